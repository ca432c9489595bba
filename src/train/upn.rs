//! Training of UPN: scenes to boxes, with alternating prompts on the same boxes
//! (`docs/reference/training.md` section 4).

use std::path::PathBuf;

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
use crate::train::checkpoint::{Initializer, Precision, Weights};
use crate::train::data_loader::DataLoader;
use crate::train::metrics::MetricsLog;
use crate::train::optimizer::AdamW;
use crate::train::schedule::{Budget, LrSchedule};
use crate::train::state::{read_state, write_state};
use crate::train::upn_data::{POOL_BATCHES, UpnBatch, draw_pool};
use crate::train::upn_loss::{Denoising, Loss, assign};
use crate::train::upn_metrics::DetectionMetrics;
use crate::train::{TrainOptions, training_device};

/// Number of validation scenes, with seeds from 800000 on.
const VALIDATION_SCENES: u64 = 100;
/// Seconds between two validations; each writes a checkpoint.
const VALIDATION_INTERVAL: f64 = 240.0;
/// Factor of the learning rate of the sampling offsets.
const OFFSET_LR_FACTOR: f64 = 0.1;
/// Prefix of the parameters that only the training uses.
const DENOISING_PREFIX: &str = "denoising.";

/// The network and the content embedding of denoising queries.
#[derive(Module, Debug)]
struct UpnTrainee {
    upn: Upn,
    denoising: Param<Tensor<2>>,
}

impl UpnTrainee {
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
        batch: &UpnBatch,
        granularity: Granularity,
        rng: &mut Rng,
    ) -> Result<Tensor<1>, Fault> {
        let upn = &self.upn;
        let device = self.denoising.val().device();
        let memory = upn.encode(batch.image(&device), &batch.mask)?;
        let prompt = upn.prompt(granularity);
        let candidates = upn.logits(memory.candidates.clone(), prompt.clone());
        let selection = upn.select(&memory, &to_vec(candidates));
        let [images, matching, _] = selection.features.dims();
        let targets = batch.targets.iter().map(Vec::len).sum::<usize>().max(1) as f32;

        let mut loss = Loss::default();
        let logits = upn.logits(selection.features.clone(), prompt.clone());
        add_matched(
            &mut loss,
            batch,
            logits,
            selection.boxes.clone(),
            1.0 / targets,
        );

        let denoising = Denoising::new(&batch.targets, rng);
        let noisy = denoising.queries;
        let mut content = upn.content(images);
        let mut reference = selection.boxes.detach();
        let mut attention_mask = None;
        if noisy > 0 {
            let (noisy_content, noisy_boxes) = self.denoising_queries(&denoising, images);
            content = Tensor::cat(vec![noisy_content, content], 1);
            reference = Tensor::cat(vec![noisy_boxes, reference], 1);
            let total = noisy + matching;
            let mask = TensorData::new(denoising.attention_mask(matching), [total, total]);
            attention_mask = Some(Tensor::from_data(mask, &device));
        }
        let near_copies = (noisy as f32 / 2.0).max(1.0) * images as f32;
        for layer in upn.decode(&memory, content, reference, attention_mask) {
            let logits = upn.logits(layer.state.clone(), prompt.clone());
            let boxes = upn.boxes(&layer);
            if noisy > 0 {
                loss.add(
                    logits.clone().narrow(1, 0, noisy),
                    boxes.clone().narrow(1, 0, noisy),
                    1.0 / near_copies,
                    |image, query| {
                        let target = denoising.query_targets[image * noisy + query];
                        target.map(|target| batch.targets[image][target])
                    },
                );
            }
            add_matched(
                &mut loss,
                batch,
                logits.narrow(1, noisy, matching),
                boxes.narrow(1, noisy, matching),
                1.0 / targets,
            );
        }
        Ok(loss.sum())
    }

    /// Content `[B, Q, D]` and boxes `[B, Q, 4]` of the denoising queries.
    fn denoising_queries(&self, denoising: &Denoising, images: usize) -> (Tensor<3>, Tensor<3>) {
        let content = self.denoising.val();
        let [_, width] = content.dims();
        let boxes = denoising.boxes.iter().flatten().copied();
        let boxes = boxes.collect::<Vec<_>>();
        let boxes = TensorData::new(boxes, [images, denoising.queries, 4]);
        let boxes = Tensor::from_data(boxes, &content.device());
        let content = content
            .reshape([1, 1, width])
            .expand([images, denoising.queries, width]);
        (content, boxes)
    }
}

/// Adds predictions with the targets that Hungarian matching assigns to them.
fn add_matched(
    loss: &mut Loss,
    batch: &UpnBatch,
    logits: Tensor<2>,
    boxes: Tensor<3>,
    weight: f32,
) {
    let [_, queries] = logits.dims();
    let cpu_boxes = to_vec(boxes.clone());
    let cpu_boxes = cpu_boxes.as_chunks::<4>().0;
    let cpu_logits = to_vec(logits.clone());
    let query_targets = batch
        .targets
        .iter()
        .enumerate()
        .map(|(image, targets)| {
            let part = image * queries..(image + 1) * queries;
            let mut query_targets = vec![None; queries];
            let matched = assign(&cpu_logits[part.clone()], &cpu_boxes[part], targets);
            for (query, &target) in matched.into_iter().zip(targets) {
                query_targets[query] = Some(target);
            }
            query_targets
        })
        .collect::<Vec<_>>();
    loss.add(logits, boxes, weight, |image, query| {
        query_targets[image][query]
    });
}

fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    read_sync(read("a tensor of the training", tensor.inner()))
        .expect("the training device can be read")
}

/// Progress of a run, stored in its checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct UpnTrainerState {
    step: u64,
    seconds: f64,
    /// Best sum of recall and average precision so far.
    best: f64,
}

/// Trains UPN.
///
/// # Errors
/// A file cannot be read or written, or weights have other shapes.
pub fn run(options: &TrainOptions) -> Result<(), Fault> {
    let (mut trainer, mut trainee) = Trainer::start(options)?;
    loop {
        let over = trainer.is_over();
        if over || trainer.is_validation_due() {
            trainer.validate(&trainee, over)?;
        }
        if over {
            return Ok(());
        }
        trainee = trainer.train_step(trainee)?;
    }
}

/// Everything of a run except the trained parameters.
struct Trainer {
    seed: u64,
    state_path: PathBuf,
    weights_path: PathBuf,
    state: UpnTrainerState,
    initializer: Initializer,
    optimizer: AdamW,
    schedule: LrSchedule,
    budget: Budget,
    loader: DataLoader<Vec<UpnBatch>>,
    /// The rest of the current pool.
    batches: std::vec::IntoIter<UpnBatch>,
    metrics: MetricsLog,
    /// Sums of loss and gradient norm over `steps` steps since the last validation.
    loss_sum: f64,
    grad_norm_sum: f64,
    steps: u32,
    /// Time of the last validation, in seconds of the run.
    validated_at: f64,
}

impl Trainer {
    /// Loads the checkpoint or initial weights, and starts the data loader.
    fn start(options: &TrainOptions) -> Result<(Self, UpnTrainee), Fault> {
        let config = UpnConfig::nano();
        let device = training_device(options.device)?;
        let state_path = options.out.join("state.safetensors");
        let mut optimizer = AdamW {
            beta2: 0.999,
            weight_decay: 1e-4,
            ..AdamW::default()
        };
        let (weights, state) = if options.resume {
            read_state::<UpnTrainerState>(&state_path, &mut optimizer)?
        } else {
            let weights = match &options.from {
                Some(folder) => Weights::read(&folder.join("weights.safetensors"))?,
                None => Weights::default(),
            };
            (weights, UpnTrainerState::default())
        };
        let initializer = Initializer::new(weights, options.seed);
        let trainee = UpnTrainee::load(&Loader::new(&initializer, &device), &config)?;
        let metrics = MetricsLog::open(&options.out, options.resume, "upn")?;
        let budget = Budget::start(options.minutes, options.steps, state.seconds);
        let (seed, recipe) = (options.seed, config.recipe());
        let mut loader = DataLoader::start(state.step / POOL_BATCHES, 1, move |pool| {
            draw_pool(seed, pool, &recipe)
        });
        let mut batches = loader.next_batch().into_iter();
        for _ in 0..state.step % POOL_BATCHES {
            batches.next();
        }
        let trainer = Self {
            seed,
            state_path,
            weights_path: options.out.join("weights.safetensors"),
            state,
            initializer,
            optimizer,
            schedule: LrSchedule {
                peak: 1e-3,
                warmup: 60,
                hold: 0.6,
                floor: 0.0,
            },
            validated_at: budget.seconds(),
            budget,
            loader,
            batches,
            metrics,
            loss_sum: 0.0,
            grad_norm_sum: 0.0,
            steps: 0,
        };
        Ok((trainer, trainee))
    }

    fn is_over(&self) -> bool {
        self.budget.is_over(self.state.step)
    }

    fn is_validation_due(&self) -> bool {
        self.budget.seconds() - self.validated_at > VALIDATION_INTERVAL
    }

    /// Updates the parameters with the next batch.
    fn train_step(&mut self, trainee: UpnTrainee) -> Result<UpnTrainee, Fault> {
        let step = self.state.step;
        let batch = self.next_batch();
        let granularity = if step.is_multiple_of(2) {
            Granularity::Coarse
        } else {
            Granularity::Fine
        };
        let mut rng = Rng::new(self.seed ^ 0x5eed, step);
        let loss = trainee.loss(&batch, granularity, &mut rng)?;
        self.loss_sum += f64::from(to_vec(loss.clone())[0]);
        let lr = self.schedule.lr(step, self.budget.progress(step));
        let gradients = loss.backward();
        let (trainee, grad_norm) =
            self.optimizer
                .step(trainee, &self.initializer, gradients, |name| {
                    if name.contains("sampling_offsets") {
                        lr * OFFSET_LR_FACTOR
                    } else {
                        lr
                    }
                });
        self.grad_norm_sum += f64::from(grad_norm);
        self.steps += 1;
        self.state.step += 1;
        let mean_loss = self.loss_sum / f64::from(self.steps);
        self.metrics.show(
            self.budget.progress(self.state.step),
            format!("step {} loss {mean_loss:.3}", self.state.step),
        );
        Ok(trainee)
    }

    fn next_batch(&mut self) -> UpnBatch {
        if let Some(batch) = self.batches.next() {
            return batch;
        }
        self.batches = self.loader.next_batch().into_iter();
        self.batches.next().expect("a pool is not empty")
    }

    /// Validates, logs, writes the checkpoint, and the weights if they are the best so far. The last
    /// validation evaluates the fine prompt too.
    fn validate(&mut self, trainee: &UpnTrainee, last: bool) -> Result<(), Fault> {
        self.state.seconds = self.budget.seconds();
        let network = trainee.upn.valid();
        let coarse = evaluate(&network, Granularity::Coarse)?;
        let mut entry = json!({
            "step": self.state.step,
            "seconds": self.state.seconds,
            "loss": self.loss_sum / f64::from(self.steps.max(1)),
            "gradient_norm": self.grad_norm_sum / f64::from(self.steps.max(1)),
            "recall_50_at_30": coarse.recall_50(),
            "recall_75_at_30": coarse.recall_75(),
            "recall_50_score_0.3": coarse.recall_confident(),
            "ap_50": coarse.ap_50(),
        });
        if last {
            let fine = evaluate(&network, Granularity::Fine)?;
            entry["recall_50_at_30_fine"] = json!(fine.recall_50());
        }
        self.metrics.log(object(entry))?;
        self.metrics.plot()?;
        (self.loss_sum, self.grad_norm_sum, self.steps) = (0.0, 0.0, 0);
        let mut weights = Weights::of_module(trainee, &self.initializer);
        let quality = coarse.recall_50() + coarse.ap_50();
        let is_best = quality >= self.state.best;
        self.state.best = self.state.best.max(quality);
        write_state(&self.state_path, &weights, &self.optimizer, &self.state)?;
        weights
            .tensors
            .retain(|name, _| !name.starts_with(DENOISING_PREFIX));
        if is_best {
            weights.write(&self.weights_path, Precision::F16)?;
        }
        self.validated_at = self.budget.seconds();
        Ok(())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries,
        other => panic!("a log entry is an object, not {other}"),
    }
}

/// Metrics of `upn` on the validation scenes.
fn evaluate(upn: &Upn, granularity: Granularity) -> Result<DetectionMetrics, Fault> {
    let mut metrics = DetectionMetrics::default();
    for seed in 800_000..800_000 + VALIDATION_SCENES {
        let scene = Scene::draw(seed);
        let ranked = detect(upn, &scene, granularity)?;
        let ground_truth = scene.objects.iter().map(|o| o.bbox).collect::<Vec<_>>();
        metrics.add(&ranked, &ground_truth);
    }
    Ok(metrics)
}

/// The proposals of `upn` on `scene`, best first, in pixels of the scene.
///
/// # Errors
/// The scene is too small for the number of queries.
pub fn detect(upn: &Upn, scene: &Scene, granularity: Granularity) -> Result<Vec<Proposal>, Fault> {
    let device = upn.prompt(granularity).device();
    let batch = UpnBatch::prepare(std::slice::from_ref(scene), &upn.config().recipe());
    let PaddingMask { height, width, .. } = batch.mask;
    let memory = upn.encode(batch.image(&device), &PaddingMask::none(1, height, width))?;
    let found = read_sync(upn.propose(&memory, granularity))?;
    let boxes = to_vec(found.boxes);
    Ok(proposals(
        boxes.as_chunks::<4>().0,
        &to_vec(found.logits),
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

    struct GradientReader {
        names: HashMap<u64, String>,
        source: Gradients,
        gradients: HashMap<String, Vec<f32>>,
    }

    impl ModuleVisitor for GradientReader {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(&self.source) {
                let name = self.names[&param.id.val()].clone();
                self.gradients.insert(name, to_vec(gradient));
            }
        }
    }

    /// Encoder and decoder losses with fixed targets and fixed reference boxes, that is without the
    /// operations that the gradient skips by design.
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
        let fixed = (0..to_vec(logits).len())
            .map(|i| (i as f32 * 1.3).cos())
            .collect::<Vec<_>>();
        let selection = upn.select(&memory, &fixed);
        let mut loss = Loss::default();
        let target = |image: usize, query: usize| {
            let shift = 0.1 * image as f32;
            query
                .is_multiple_of(2)
                .then_some([0.4 + shift, 0.3 + 0.1 * query as f32, 0.35, 0.2])
        };
        let logits = upn.logits(selection.features, prompt.clone());
        loss.add(logits, selection.boxes, 0.3, target);
        let reference = numbers([1, 2, 5, 4]).reshape([2, 5, 4]) * 0.2 + 0.45;
        for state in upn.decode(&memory, upn.content(2), reference, None) {
            let logits = upn.logits(state.state.clone(), prompt.clone());
            loss.add(logits, upn.boxes(&state), 0.3, target);
        }
        loss.sum()
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let config = tiny();
        let inner_device = Device::flex();
        let initializer = Initializer::new(Weights::default(), 3);
        let upn = Upn::load(&Loader::new(&initializer, &inner_device), &config).unwrap();
        let mut weights = Weights::of_module(&upn, &initializer);
        // Avoids zeros and sampling points exactly at pixel centres.
        for tensor in weights.tensors.values_mut() {
            for (index, value) in tensor.values.iter_mut().enumerate() {
                *value += 0.1 * (index as f32 * 2.1 + 1.0).sin();
            }
        }
        let loss_at = |weights: &Weights| {
            let initializer = Initializer::new(weights.clone(), 3);
            let upn = Upn::load(&Loader::new(&initializer, &inner_device), &config).unwrap();
            to_vec(smooth_loss(&upn, &inner_device))[0]
        };
        let device = Device::flex().autodiff();
        let initializer = Initializer::new(weights.clone(), 3);
        let upn = Upn::load(&Loader::new(&initializer, &device), &config).unwrap();
        let mut reader = GradientReader {
            names: initializer.names(),
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
            let grad_norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let moved = |step: f32| {
                let mut weights = weights.clone();
                let tensor = weights.tensors.get_mut(name).unwrap();
                for (value, g) in tensor.values.iter_mut().zip(gradient) {
                    *value += step * g / grad_norm;
                }
                loss_at(&weights)
            };
            // A long step crosses kinks of the sampling and of L1; rounding errors dominate a short one.
            let slope = |step: f32| (moved(step) - moved(-step)) / (2.0 * step);
            let closest = [1e-2, 3e-3, 1e-3, 3e-4]
                .map(slope)
                .into_iter()
                .min_by(|a, b| (a - grad_norm).abs().total_cmp(&(b - grad_norm).abs()))
                .unwrap();
            assert!(
                (closest - grad_norm).abs() < 0.01 * grad_norm + 2e-3,
                "{name}: gradient {grad_norm}, differences {closest}"
            );
        }
    }
}
