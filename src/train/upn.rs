//! Training of the proposal network: scenes to boxes, both prompts on the same boxes in turn
//! (recipe of `nano-upn-notes.md`).

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData, read_sync};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Fault;
use crate::geometry::{Proposal, proposals};
use crate::gpu::readback::read;
use crate::model::upn::{PaddingMask, Upn, UpnConfig};
use crate::nn::{Init, Loader};
use crate::protocol::Granularity;
use crate::scenes::{Rng, Scene};
use crate::train::checkpoint::{Precision, Start, Weights, read_state, write_state};
use crate::train::data_loader::DataLoader;
use crate::train::metrics::Metrics;
use crate::train::optimizer::AdamW;
use crate::train::schedule::{Budget, Schedule};
use crate::train::upn_loss::{Denoising, Loss, assign};
use crate::train::upn_measure::Measure;
use crate::train::upn_scenes::{Batch, POOL, pool};
use crate::train::{Options, training_device};

/// Scenes of the fixed validation set, from seed 800000 on.
const VALIDATION: u64 = 100;
/// Seconds between two validations, each followed by a checkpoint.
const EVERY: f64 = 240.0;
/// Learning rate of the sampling offsets over that of everything else.
const OFFSET_RATE: f64 = 0.1;
/// Parameters of the trainer alone; not part of the network.
const TRAINER: &str = "denoising.";

/// The network and the content of denoising queries.
#[derive(Module, Debug)]
struct Trainee {
    upn: Upn,
    denoising: Param<Tensor<2>>,
}

impl Trainee {
    fn load(at: &Loader, config: &UpnConfig) -> Result<Self, Fault> {
        Ok(Self {
            upn: Upn::load(at, config)?,
            denoising: at.child("denoising").parameter(
                "content",
                [1, config.d_model],
                Init::Normal(1.0),
            )?,
        })
    }

    /// The loss of a batch, `[1]`.
    fn loss(
        &self,
        batch: &Batch,
        granularity: Granularity,
        rng: &mut Rng,
    ) -> Result<Tensor<1>, Fault> {
        let upn = &self.upn;
        let device = self.denoising.val().device();
        let memory = upn.encode(batch.image(&device), &batch.mask)?;
        let prompt = upn.prompt(granularity);
        let candidates = upn.logits(memory.candidates.clone(), prompt.clone());
        let selection = upn.select(&memory, &values(candidates));
        let [pictures, own, width] = selection.features.dims();
        let count = batch.targets.iter().map(Vec::len).sum::<usize>().max(1) as f32;

        let mut loss = Loss::default();
        let chosen = upn.logits(selection.features.clone(), prompt.clone());
        add_assigned(
            &mut loss,
            batch,
            chosen,
            selection.boxes.clone(),
            1.0 / count,
        );

        let denoising = Denoising::new(&batch.targets, rng);
        let extra = denoising.queries;
        let mut content = upn.content(pictures);
        let mut reference = selection.boxes.detach();
        let mut blocked = None;
        if extra > 0 {
            let boxes = denoising
                .boxes
                .iter()
                .flatten()
                .copied()
                .collect::<Vec<_>>();
            let boxes = TensorData::new(boxes, [pictures, extra, 4]);
            let learned = self
                .denoising
                .val()
                .reshape([1, 1, width])
                .expand([pictures, extra, width]);
            content = Tensor::cat(vec![learned, content], 1);
            reference = Tensor::cat(vec![Tensor::from_data(boxes, &device), reference], 1);
            let total = extra + own;
            let pairs = TensorData::new(denoising.blocked(own), [total, total]);
            blocked = Some(Tensor::from_data(pairs, &device));
        }
        let groups = (extra as f32 / 2.0).max(1.0) * pictures as f32;
        for state in upn.decode(&memory, content, reference, blocked) {
            let logits = upn.logits(state.state.clone(), prompt.clone());
            let boxes = upn.boxes(&state);
            if extra > 0 {
                loss.add(
                    logits.clone().narrow(1, 0, extra),
                    boxes.clone().narrow(1, 0, extra),
                    1.0 / groups,
                    |picture, query| {
                        let answer = denoising.answers[picture * extra + query];
                        answer.map(|target| batch.targets[picture][target])
                    },
                );
            }
            add_assigned(
                &mut loss,
                batch,
                logits.narrow(1, extra, own),
                boxes.narrow(1, extra, own),
                1.0 / count,
            );
        }
        Ok(loss.sum())
    }
}

/// Adds predictions whose queries are free to choose their box.
fn add_assigned(loss: &mut Loss, batch: &Batch, logits: Tensor<2>, boxes: Tensor<3>, share: f32) {
    let [_, queries] = logits.dims();
    let on_host = values(boxes.clone());
    let on_host = on_host.as_chunks::<4>().0;
    let scores = values(logits.clone());
    let chosen = batch
        .targets
        .iter()
        .enumerate()
        .map(|(picture, targets)| {
            let part = picture * queries..(picture + 1) * queries;
            let mut answers = vec![None; queries];
            let queries = assign(&scores[part.clone()], &on_host[part], targets);
            for (query, &target) in queries.into_iter().zip(targets) {
                answers[query] = Some(target);
            }
            answers
        })
        .collect::<Vec<_>>();
    loss.add(logits, boxes, share, |picture, query| {
        chosen[picture][query]
    });
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    read_sync(read("a computed tensor", tensor.inner()))
        .expect("a device that trains hands back its values")
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    step: u64,
    seconds: f64,
    best: f64,
}

/// Trains.
///
/// # Errors
/// Files that cannot be read or written, weights of another shape.
pub fn run(options: &Options) -> Result<(), Fault> {
    let config = UpnConfig::nano();
    let device = training_device(options.device)?;
    let state_path = options.out.join("state.safetensors");
    let weights_path = options.out.join("weights.safetensors");
    let mut optimizer = AdamW {
        beta2: 0.999,
        decay: 1e-4,
        ..AdamW::default()
    };
    let (weights, mut progress) = if options.resume {
        read_state::<Progress>(&state_path, &mut optimizer)?
    } else {
        let weights = match &options.from {
            Some(folder) => Weights::read(&folder.join("weights.safetensors"))?,
            None => Weights::default(),
        };
        (weights, Progress::default())
    };
    let start = Start::new(weights, options.seed);
    let mut trainee = Trainee::load(&Loader::new(&start, &device), &config)?;
    let mut metrics = Metrics::open(&options.out, options.resume, "upn")?;
    let budget = Budget::start(options.minutes, options.steps, progress.seconds);
    let schedule = Schedule {
        peak: 1e-3,
        warmup: 60,
        hold: 0.6,
        floor: 0.0,
    };
    let (seed, recipe) = (options.seed, config.recipe());
    let mut feed = DataLoader::start(progress.step / POOL, 1, move |number| {
        pool(seed, number, &recipe)
    });
    let mut batches = feed.take().into_iter();
    for _ in 0..progress.step % POOL {
        batches.next();
    }
    let (mut sum, mut norms, mut since) = (0.0, 0.0, 0u32);
    let mut measured = budget.seconds();
    loop {
        let over = budget.is_over(progress.step);
        if over || (budget.seconds() - measured > EVERY) {
            progress.seconds = budget.seconds();
            let network = trainee.upn.valid();
            let found = measure(&network, Granularity::Coarse)?;
            let mut entry = json!({
                "step": progress.step,
                "seconds": progress.seconds,
                "loss": sum / f64::from(since.max(1)),
                "gradient_norm": norms / f64::from(since.max(1)),
                "recall_50_at_30": found.recall_50(),
                "recall_75_at_30": found.recall_75(),
                "recall_50_score_0.3": found.recall_confident(),
                "ap_50": found.ap_50(),
            });
            if over {
                let fine = measure(&network, Granularity::Fine)?;
                entry["recall_50_at_30_fine"] = json!(fine.recall_50());
            }
            metrics.log(object(entry))?;
            metrics.draw()?;
            (sum, norms, since) = (0.0, 0.0, 0);
            let mut weights = Weights::of_module(&trainee, &start);
            let goodness = found.recall_50() + found.ap_50();
            let better = goodness >= progress.best;
            progress.best = progress.best.max(goodness);
            write_state(&state_path, &weights, &optimizer, &progress)?;
            weights.tensors.retain(|name, _| !name.starts_with(TRAINER));
            if better {
                weights.write(&weights_path, Precision::F16)?;
            }
            measured = budget.seconds();
        }
        if over {
            return Ok(());
        }
        let batch = match batches.next() {
            Some(batch) => batch,
            None => {
                batches = feed.take().into_iter();
                batches.next().expect("a pool has batches")
            }
        };
        let granularity = if progress.step % 2 == 0 {
            Granularity::Coarse
        } else {
            Granularity::Fine
        };
        let mut rng = Rng::new(seed ^ 0x5eed, progress.step);
        let loss = trainee.loss(&batch, granularity, &mut rng)?;
        sum += f64::from(values(loss.clone())[0]);
        let rate = schedule.rate(progress.step, budget.fraction(progress.step));
        let (next, norm) = optimizer.step(trainee, &start, loss.backward(), |name| {
            if name.contains("sampling_offsets") {
                rate * OFFSET_RATE
            } else {
                rate
            }
        });
        trainee = next;
        norms += f64::from(norm);
        since += 1;
        progress.step += 1;
        metrics.show(
            budget.fraction(progress.step),
            format!("step {} loss {:.3}", progress.step, sum / f64::from(since)),
        );
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries,
        other => panic!("an entry of the record is an object, not {other}"),
    }
}

/// Proposals on the validation scenes.
fn measure(upn: &Upn, granularity: Granularity) -> Result<Measure, Fault> {
    let mut measure = Measure::default();
    for seed in 800_000..800_000 + VALIDATION {
        let scene = Scene::draw(seed);
        let ranked = detect(upn, &scene, granularity)?;
        let truths = scene.objects.iter().map(|o| o.bbox).collect::<Vec<_>>();
        measure.add(&ranked, &truths);
    }
    Ok(measure)
}

/// What `upn` finds on `scene`, best first, in pixels of the scene.
///
/// # Errors
/// A scene too small for the network's queries.
pub fn detect(upn: &Upn, scene: &Scene, granularity: Granularity) -> Result<Vec<Proposal>, Fault> {
    let device = upn.prompt(granularity).device();
    let batch = Batch::prepare(std::slice::from_ref(scene), &upn.config().recipe());
    let PaddingMask { height, width, .. } = batch.mask;
    let memory = upn.encode(batch.image(&device), &PaddingMask::none(1, height, width))?;
    let found = read_sync(upn.propose(&memory, granularity))?;
    let boxes = values(found.boxes);
    Ok(proposals(
        boxes.as_chunks::<4>().0,
        &values(found.logits),
        scene.pixels.width,
        scene.pixels.height,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::swin::SwinConfig;
    use burn::module::ModuleVisitor;
    use burn::tensor::{Device, Gradients};
    use std::collections::HashMap;

    fn tiny() -> UpnConfig {
        UpnConfig {
            backbone: SwinConfig {
                embed_dim: 8,
                depths: vec![1, 2],
                num_heads: vec![1, 2],
                window_size: 2,
                mlp_ratio: 2,
            },
            return_interm_indices: vec![0, 1],
            num_feature_levels: 3,
            num_queries: 5,
            d_model: 16,
            n_heads: 2,
            d_ffn: 16,
            n_points: 2,
            num_encoder_layers: 1,
            num_decoder_layers: 1,
            group_norm_groups: 4,
            ..UpnConfig::nano()
        }
    }

    struct Reader {
        names: HashMap<u64, String>,
        source: Gradients,
        gradients: HashMap<String, Vec<f32>>,
    }

    impl ModuleVisitor for Reader {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(&self.source) {
                let name = self.names[&param.id.val()].clone();
                self.gradients.insert(name, values(gradient));
            }
        }
    }

    /// Encoder and decoder losses with fixed answers and fixed starting boxes: no step that the
    /// gradient leaves out on purpose.
    fn smooth_loss(upn: &Upn, device: &Device) -> Tensor<1> {
        let numbers = |shape: [usize; 4]| {
            let values = (0..shape.iter().product::<usize>())
                .map(|i| (i as f32 * 0.7).sin())
                .collect::<Vec<_>>();
            Tensor::<4>::from_data(TensorData::new(values, shape), device)
        };
        let mask = PaddingMask::from_sizes(&[[28, 36], [32, 30]]);
        let image = numbers([2, 3, mask.height, mask.width]);
        let memory = upn.encode(image, &mask).unwrap();
        let prompt = upn.prompt(Granularity::Fine);
        let logits = upn.logits(memory.candidates.clone(), prompt.clone());
        let fixed = (0..values(logits).len())
            .map(|i| (i as f32 * 1.3).cos())
            .collect::<Vec<_>>();
        let selection = upn.select(&memory, &fixed);
        let mut loss = Loss::default();
        let answer = |picture: usize, query: usize| {
            let shift = 0.1 * picture as f32;
            query
                .is_multiple_of(2)
                .then_some([0.4 + shift, 0.3 + 0.1 * query as f32, 0.35, 0.2])
        };
        let chosen = upn.logits(selection.features, prompt.clone());
        loss.add(chosen, selection.boxes, 0.3, answer);
        let reference = numbers([1, 2, 5, 4]).reshape([2, 5, 4]) * 0.2 + 0.45;
        for state in upn.decode(&memory, upn.content(2), reference, None) {
            let logits = upn.logits(state.state.clone(), prompt.clone());
            loss.add(logits, upn.boxes(&state), 0.3, answer);
        }
        loss.sum()
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let config = tiny();
        let plain = Device::flex();
        let start = Start::new(Weights::default(), 3);
        let upn = Upn::load(&Loader::new(&start, &plain), &config).unwrap();
        let mut weights = Weights::of_module(&upn, &start);
        // Away from zeros and from sampling points exactly on pixels.
        for tensor in weights.tensors.values_mut() {
            for (index, value) in tensor.values.iter_mut().enumerate() {
                *value += 0.1 * (index as f32 * 2.1 + 1.0).sin();
            }
        }
        let loss_at = |weights: &Weights| {
            let start = Start::new(weights.clone(), 3);
            let upn = Upn::load(&Loader::new(&start, &plain), &config).unwrap();
            values(smooth_loss(&upn, &plain))[0]
        };
        let device = Device::flex().autodiff();
        let start = Start::new(weights.clone(), 3);
        let upn = Upn::load(&Loader::new(&start, &device), &config).unwrap();
        let mut reader = Reader {
            names: start.names(),
            source: smooth_loss(&upn, &device).backward(),
            gradients: HashMap::new(),
        };
        upn.visit(&mut reader);
        let gradients = reader.gradients;
        for name in [
            "backbone.model.backbone.patch_embed.proj.weight",
            "backbone.model.backbone.layers.0.downsample.reduction.weight",
            "backbone.model.backbone.layers.1.blocks.1.attn.qkv.weight",
            "backbone.model.backbone.layers.1.blocks.1.attn.relative_position_bias_table",
            "backbone.model.backbone.norm1.weight",
            "input_proj.0.1.weight",
            "input_proj.2.0.weight",
            "transformer.level_embed",
            "transformer.encoder.layers.0.self_attn.sampling_offsets.weight",
            "transformer.encoder.layers.0.self_attn.attention_weights.bias",
            "transformer.enc_output.weight",
            "transformer.fine_grained_prompt.weight",
            "transformer.tgt_embed.weight",
            "transformer.decoder.layers.0.self_attn.in_proj_weight",
            "transformer.decoder.layers.0.cross_attn.sampling_offsets.weight",
            "transformer.decoder.ref_point_head.layers.0.weight",
            "bbox_embed.0.layers.1.weight",
        ] {
            let gradient = &gradients[name];
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let moved = |step: f32| {
                let mut weights = weights.clone();
                let tensor = weights.tensors.get_mut(name).unwrap();
                for (value, g) in tensor.values.iter_mut().zip(gradient) {
                    *value += step * g / norm;
                }
                loss_at(&weights)
            };
            // A long step crosses kinks of the sampling and of L1, a short one drowns in rounding.
            let slope = |step: f32| (moved(step) - moved(-step)) / (2.0 * step);
            let closest = [1e-2, 3e-3, 1e-3, 3e-4]
                .map(slope)
                .into_iter()
                .min_by(|a, b| (a - norm).abs().total_cmp(&(b - norm).abs()))
                .unwrap();
            assert!(
                (closest - norm).abs() < 0.01 * norm + 2e-3,
                "{name}: {norm} by hand, {closest} by differences"
            );
        }
    }
}
