//! The decoder's stages (`data-engine.md` 2.2, in miniature). `align` trains decoder, projectors
//! and embeddings on frozen towers by naming and finding, `perceive` by all tasks; `instruct` trains
//! everything on all tasks and keeps the warm-up's loss beside.
//!
//! Pointing is learnt in `align` by growing the number of boxes: it begins with three, and two are
//! added whenever most index tokens are right at the present number. Training on many boxes from
//! the start does not learn it at all.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::nn::Loader;
use crate::scenes::{Rng, Scene, Task};
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::{
    Precision, Start, Weights, read_state, select_trained, write_state,
};
use crate::train::data_loader::DataLoader;
use crate::train::detections::Detections;
use crate::train::metrics::Metrics;
use crate::train::optimizer::AdamW;
use crate::train::packing::{Packed, PackedExample, TaskMix};
use crate::train::regions::{Candidate, ProposalNoise, candidates};
use crate::train::schedule::{Budget, Schedule};
use crate::train::towers::{
    Pictures, RegionHeads, RegionLabels, Trained, Vocabulary, best_class, cross_entropy, entry,
    training_seed,
};
use crate::train::{Options, Stage, training_device};

/// Steps after which boxes are added anyway: with many boxes the towers' mistakes, not the
/// pointing, decide.
const LONGEST_WAIT: u64 = 2500;
/// Most boxes that training grows to; nano's manifest lets no more through.
pub const MOST_BOXES: usize = 24;
/// Boxes in the beginning.
const FIRST_BOXES: usize = 3;
/// Share of right index tokens at which boxes are added. Growing sooner leaves pointing blurred
/// for good: at 0.78 the answers over ten boxes stayed mostly wrong.
const GROWS_AT: f64 = 0.88;
/// Seconds between two validations.
const PAUSE: f64 = 150.0;

/// What a stage does differently from the others.
#[derive(Clone, Debug)]
struct Plan {
    task_mix: TaskMix,
    batch: usize,
    rate: f64,
    /// Learning rate of the towers over that of the decoder; 0 freezes them.
    towers: f64,
    /// Scenes of the fixed validation set.
    validation: u64,
}

impl Plan {
    fn of(stage: Stage) -> Self {
        let pointing = [
            (Task::DetectOne, 7),
            (Task::Name, 5),
            (Task::DetectAbsent, 1),
            (Task::ShortPhrase, 1),
            (Task::Colour, 1),
        ];
        let everything = Task::ALL.map(|task| match task {
            Task::DetectSeveral | Task::Count | Task::Caption => (task, 5),
            Task::DetectOne | Task::Name => (task, 3),
            Task::DetectAbsent | Task::CaptionDetailed => (task, 2),
            _ => (task, 1),
        });
        match stage {
            Stage::Align => Self {
                task_mix: TaskMix {
                    tasks: pointing.to_vec(),
                    tokens: 110,
                    shortest_of: 3,
                },
                batch: 16,
                rate: 1e-3,
                towers: 0.0,
                validation: 48,
            },
            Stage::Perceive => Self {
                task_mix: TaskMix {
                    tasks: everything.to_vec(),
                    tokens: 210,
                    shortest_of: 1,
                },
                batch: 12,
                rate: 7e-4,
                towers: 0.0,
                validation: 48,
            },
            _ => Self {
                rate: 3e-4,
                towers: 0.3,
                ..Self::of(Stage::Perceive)
            },
        }
    }

    /// Learning rate of a parameter over that of the decoder.
    fn share(&self, name: &str) -> f64 {
        if name.starts_with("vision_tower") || name.starts_with("warmup") {
            self.towers
        } else if name.starts_with("mm_object_projector") {
            0.3
        } else {
            1.0
        }
    }
}

/// Where a run stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    step: u64,
    seed: u64,
    seconds: f64,
    /// Boxes at present.
    boxes: usize,
    /// Running share of right index tokens at about that many boxes.
    pointing: f64,
    /// Running share of right answers of the naming task.
    naming: f64,
    /// Running loss.
    loss: f64,
    /// Steps since boxes were added.
    #[serde(default)]
    waited: u64,
}

/// A batch ready for the networks.
struct Batch {
    pictures: Pictures,
    packed: Packed,
}

/// What batches are made from.
struct BatchBuilder {
    config: ChatRexConfig,
    tokenizer: Tokenizer,
    task_mix: TaskMix,
    batch: usize,
    seed: u64,
    validation: u64,
    detections: Detections,
}

/// Scenes on which the proposal network is asked, beside those of the validation set.
const DETECTED: u64 = 10_000;
/// Share of the scenes whose boxes come from the proposal network, in percent.
const DETECTED_SHARE: usize = 70;
/// Sets the seeds of these scenes apart from the others.
const DETECTED_STREAM: u64 = 0xde7e;
/// Boxes from which on scenes are drawn without regard to their number.
const ALL_SIZES: usize = 12;

/// The stream of [`Rng`] of training boxes and dialogues.
const TRAINING_STREAM: u64 = 91;
/// The stream of [`Rng`] of validation boxes and dialogues.
const VALIDATION_STREAM: u64 = 92;
/// The first scene of the validation set.
const VALIDATION_SEED: u64 = 800_000;

impl BatchBuilder {
    /// The training batch of step `step` with at most `boxes` boxes per scene.
    fn training(&self, step: u64, boxes: usize) -> Batch {
        let most = boxes.min(ALL_SIZES);
        let detected = self.detections.len() - self.validated();
        let scenes = (0..self.batch as u64).map(|i| {
            let number = step * self.batch as u64 + i;
            let mut rng = Rng::new(self.seed ^ number.rotate_left(32), TRAINING_STREAM);
            if detected > 0 && most == ALL_SIZES && rng.chance(DETECTED_SHARE) {
                let index = self.validated() + rng.below(detected);
                let scene = Scene::draw(self.detections.seed(index));
                let score = rng.between(0.1, 0.3);
                let found = self
                    .detections
                    .candidates(index, &scene, score, boxes, &mut rng);
                return (scene, found, rng);
            }
            let scene = Scene::draw_with(training_seed(self.seed, number), 1..=most);
            let found = candidates(&scene, ProposalNoise::PROPOSALS, boxes, &mut rng);
            (scene, found, rng)
        });
        self.batch(scenes.collect())
    }

    /// Scenes at the front of the detections that belong to the validation set.
    fn validated(&self) -> usize {
        self.detections.len().min(self.validation as usize)
    }

    /// A batch of the fixed validation set.
    fn validation(&self, first: u64, boxes: usize) -> Batch {
        let scenes = (first..first + self.batch as u64).map(|i| {
            let seed = VALIDATION_SEED + i;
            let (scene, mut rng) = (Scene::draw(seed), Rng::new(seed, VALIDATION_STREAM));
            let found = match self.detections.is_empty() {
                true => candidates(&scene, ProposalNoise::PROPOSALS, boxes, &mut rng),
                false => self
                    .detections
                    .candidates(i as usize, &scene, 0.2, boxes, &mut rng),
            };
            (scene, found, rng)
        });
        self.batch(scenes.collect())
    }

    fn batch(&self, scenes: Vec<(Scene, Vec<Candidate>, Rng)>) -> Batch {
        let mut sheets = Vec::new();
        let mut drawn = Vec::new();
        for (scene, found, mut rng) in scenes {
            sheets.push(PackedExample::new(
                &scene,
                &found,
                &self.task_mix,
                &self.tokenizer,
                &mut rng,
            ));
            drawn.push((scene, found));
        }
        let pictures = Pictures::prepare(drawn, &self.config);
        let packed = Packed::new(
            &sheets,
            self.config.llm.vocab_size,
            self.config.visual_tokens(),
            pictures.rows(),
        );
        Batch { pictures, packed }
    }
}

/// Projected visual tokens and box vectors of a batch.
fn look(model: &ChatRex, pictures: &Pictures, device: &Device) -> (Tensor<3>, Tensor<3>) {
    let (low, high) = pictures.tensors(model.config(), device);
    let (visual, pyramid) = model.towers.forward(low, high);
    let features = model.towers.box_features(&pyramid, &pictures.boxes);
    (
        model.towers.project_visual(visual),
        model.towers.project_objects(features),
    )
}

/// Right answers and answers by task, and right index tokens and index tokens of dialogues with
/// at least `boxes` boxes.
struct Score {
    exact: BTreeMap<Task, (usize, usize)>,
    pointing: (usize, usize),
}

/// Scores the most likely tokens. With true tokens before it each answer is right as a whole
/// exactly when greedy decoding would give it.
fn score(packed: &Packed, said: &[i32], pointers: &[u32], boxes: usize) -> Score {
    let mut right = vec![true; packed.turns.len()];
    let mut pointing = (0, 0);
    for (target, &said) in packed.targets.iter().zip(said) {
        let Some(turn) = target.turn else { continue };
        let hit = said == target.id as i32;
        right[turn] &= hit;
        let (task, held) = packed.turns[turn];
        let finds = matches!(task, Task::DetectOne | Task::DetectSeveral);
        if finds && held >= boxes && pointers.contains(&target.id) {
            pointing.0 += usize::from(hit);
            pointing.1 += 1;
        }
    }
    let mut exact = BTreeMap::new();
    for (&(task, _), right) in packed.turns.iter().zip(right) {
        let sum = exact.entry(task).or_insert((0, 0));
        sum.0 += usize::from(right);
        sum.1 += 1;
    }
    Score { exact, pointing }
}

/// Index tokens, and the token that ends their list.
fn pointer_tokens(tokenizer: &Tokenizer) -> Result<Vec<u32>, Fault> {
    (0..100)
        .map(|index| tokenizer.id(&format!("<obj{index}>")))
        .chain([tokenizer.id("</objects>")])
        .collect()
}

fn validate(
    model: &ChatRex,
    builder: &BatchBuilder,
    pointers: &[u32],
    boxes: usize,
    device: &Device,
) -> BTreeMap<Task, (usize, usize)> {
    let mut sums = BTreeMap::new();
    for first in (0..builder.validation).step_by(builder.batch) {
        let batch = builder.validation(first, boxes);
        let (visual, objects) = look(model, &batch.pictures, device);
        let logits = batch.packed.logits(model, visual, objects, device);
        let found = score(&batch.packed, &best_class(logits), pointers, 0);
        for (task, (right, all)) in found.exact {
            let sum = sums.entry(task).or_insert((0, 0));
            sum.0 += right;
            sum.1 += all;
        }
    }
    sums
}

/// Runs a stage of the decoder.
///
/// # Errors
/// Files that cannot be read or written.
pub fn run(options: &Options, config: &ChatRexConfig, weights: Weights) -> Result<(), Fault> {
    run_stage(options, config, weights, &Plan::of(options.stage))
}

fn run_stage(
    options: &Options,
    config: &ChatRexConfig,
    weights: Weights,
    plan: &Plan,
) -> Result<(), Fault> {
    let device = training_device(options.device)?;
    let plain = device.clone().inner();
    let state = options.out.join("state.safetensors");
    let mut optimizer = AdamW::default();
    let (weights, mut position) = if options.resume {
        read_state(&state, &mut optimizer)?
    } else {
        let position = Position {
            seed: options.seed,
            boxes: first_boxes(options),
            ..Position::default()
        };
        (weights, position)
    };
    let start = Start::new(weights, position.seed);
    let at = Loader::new(&start, &device);
    let trained = Trained {
        model: ChatRex::load(&at, config)?,
        heads: RegionHeads::load(&at.child("warmup"), config.llm.hidden_size)?,
    };
    let mut trained = select_trained(trained, &start, |name| plan.share(name) > 0.0);
    let schedule = Schedule {
        peak: plan.rate,
        warmup: 50,
        hold: 0.6,
        floor: 0.05,
    };
    let detections = match &options.upn {
        Some(upn) => {
            let seed = |i| training_seed(position.seed ^ DETECTED_STREAM, i);
            let seeds =
                (VALIDATION_SEED..VALIDATION_SEED + plan.validation).chain((0..DETECTED).map(seed));
            Detections::kept_or_made(&options.out, upn, seeds)?
        }
        None => Detections::default(),
    };
    let builder = Arc::new(BatchBuilder {
        detections,
        config: config.clone(),
        tokenizer: crate::train::nano_tokenizer()?,
        task_mix: plan.task_mix.clone(),
        batch: plan.batch,
        seed: position.seed,
        validation: plan.validation,
    });
    let pointers = pointer_tokens(&builder.tokenizer)?;
    let vocabulary = Vocabulary::new(&builder.tokenizer)?;
    let budget = Budget::start(options.minutes, options.steps, position.seconds);
    let mut metrics = Metrics::open(&options.out, options.resume, options.stage.name())?;
    let mut feed = feed(&builder, position.step, position.boxes);
    let mut validated = budget.seconds();
    while !budget.is_over(position.step) {
        let fraction = budget.fraction(position.step);
        let batch = feed.take();
        let (visual, objects) = look(&trained.model, &batch.pictures, &plain);
        let logits = batch
            .packed
            .logits(&trained.model, visual, objects.clone(), &plain);
        let found = score(
            &batch.packed,
            &best_class(logits.clone()),
            &pointers,
            position.boxes.saturating_sub(2),
        );
        let mut loss = cross_entropy(logits, &batch.packed.labels());
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let labels = RegionLabels::new(&batch.pictures.scenes, batch.pictures.rows());
        let table = trained.model.llm.embed_tokens.as_tensor();
        loss = loss + vocabulary.loss(objects.clone(), table, &labels) * 0.3;
        if plan.towers > 0.0 {
            loss = loss + trained.heads.loss(objects, &labels) * 0.3;
        }
        let rate = schedule.rate(position.step, fraction);
        let (updated, norm) = optimizer.step(trained, &start, loss.backward(), |name| {
            rate * plan.share(name)
        });
        trained = updated;
        position.step += 1;
        let grown = position.follow(&found, value);
        if grown {
            feed = self::feed(&builder, position.step, position.boxes);
        }
        metrics.show(
            fraction,
            format!(
                "step {} boxes {} loss {:.3} pointing {:.2} naming {:.2}",
                position.step, position.boxes, position.loss, position.pointing, position.naming
            ),
        );
        let last = budget.is_over(position.step);
        let due = match options.steps {
            Some(_) => position.step.is_multiple_of(100),
            None => budget.seconds() - validated > PAUSE,
        };
        if due || last || grown {
            position.seconds = budget.seconds();
            let mut line = entry(&[
                ("step", position.step as f64),
                ("seconds", position.seconds),
                ("boxes", position.boxes as f64),
                ("loss", position.loss),
                ("rate", rate),
                ("norm", f64::from(norm)),
                ("pointing", position.pointing),
                ("naming", position.naming),
            ]);
            if due || last {
                let model = &trained.model;
                let exact = validate(model, &builder, &pointers, MOST_BOXES, &plain);
                for (task, (right, all)) in exact {
                    let share = right as f64 / all as f64;
                    line.insert(format!("exact_{}", task_name(task)), share.into());
                }
                validated = budget.seconds();
            }
            metrics.log(line)?;
            metrics.draw()?;
        }
        if due || last {
            let weights = Weights::of_module(&trained, &start);
            write_state(&state, &weights, &optimizer, &position)?;
            weights.write(&options.out.join("weights.safetensors"), Precision::F32)?;
            write_boxes(&options.out, position.boxes)?;
        }
    }
    Ok(())
}

fn feed(builder: &Arc<BatchBuilder>, step: u64, boxes: usize) -> DataLoader<Batch> {
    let builder = builder.clone();
    DataLoader::start(step, 1, move |step| builder.training(step, boxes))
}

impl Position {
    /// Takes a step's score into account; true when boxes were added.
    fn follow(&mut self, found: &Score, loss: f64) -> bool {
        self.loss = if self.step <= 1 {
            loss
        } else {
            self.loss * 0.98 + loss * 0.02
        };
        let blend = |old: f64, (right, all): (usize, usize)| {
            let weight = 1.0 - 0.998_f64.powi(all as i32);
            match all {
                0 => old,
                _ => old * (1.0 - weight) + right as f64 / all as f64 * weight,
            }
        };
        self.pointing = blend(self.pointing, found.pointing);
        let names = found.exact.get(&Task::Name).copied().unwrap_or_default();
        self.naming = blend(self.naming, names);
        self.waited += 1;
        let ready = self.pointing >= GROWS_AT || self.waited >= LONGEST_WAIT;
        let grows = ready && self.boxes < MOST_BOXES;
        if grows {
            self.boxes = (self.boxes + 2).min(MOST_BOXES);
            self.pointing *= 0.8;
            self.waited = 0;
        }
        grows
    }
}

fn task_name(task: Task) -> String {
    serde_json::to_value(task)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("a task is written as its name")
}

const BOXES_FILE: &str = "boxes.json";

fn write_boxes(folder: &Path, boxes: usize) -> Result<(), Fault> {
    let path = folder.join(BOXES_FILE);
    std::fs::write(&path, boxes.to_string()).map_err(|error| Fault::file(&path, error))
}

/// The number of boxes that `align` ended with before; later stages begin with all.
fn first_boxes(options: &Options) -> usize {
    if options.stage != Stage::Align {
        return MOST_BOXES;
    }
    options
        .from
        .as_ref()
        .and_then(|folder| std::fs::read_to_string(folder.join(BOXES_FILE)).ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(FIRST_BOXES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clip_vit::ClipVitConfig;
    use crate::model::convnext::ConvNextConfig;
    use crate::model::decoder::DecoderConfig;
    use crate::protocol::DevicePreference;

    fn tiny() -> ChatRexConfig {
        ChatRexConfig {
            llm: DecoderConfig {
                hidden_size: 16,
                intermediate_size: 24,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                num_key_value_heads: 1,
                vocab_size: crate::train::nano_tokenizer().unwrap().vocab_size(),
                head_dim: Some(8),
                ..ChatRexConfig::nano(0).llm
            },
            clip: ClipVitConfig {
                hidden_size: 8,
                intermediate_size: 12,
                num_attention_heads: 2,
                image_size: 28,
                ..ChatRexConfig::nano(0).clip
            },
            convnext: ConvNextConfig {
                depths: vec![1, 1, 1, 1],
                dims: vec![4, 8, 8, 12],
                ..ChatRexConfig::nano(0).convnext
            },
            image_low: 28,
            image_aux: 64,
        }
    }

    fn plan() -> Plan {
        Plan {
            batch: 2,
            validation: 2,
            ..Plan::of(Stage::Instruct)
        }
    }

    fn options(out: &Path, steps: u64, resume: bool) -> Options {
        Options {
            stage: Stage::Instruct,
            from: None,
            towers: None,
            upn: None,
            out: out.to_owned(),
            minutes: 0.0,
            steps: Some(steps),
            seed: 5,
            device: DevicePreference::Cpu,
            resume,
        }
    }

    /// Two steps, a restart and two more give what four steps give, to the bit.
    #[test]
    fn resumes_exactly() {
        let root = std::env::temp_dir().join(format!("chatrex-resume-{}", std::process::id()));
        let (straight, broken) = (root.join("straight"), root.join("broken"));
        for folder in [&straight, &broken] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let go = |out: &Path, steps, resume| {
            let options = options(out, steps, resume);
            run_stage(&options, &tiny(), Weights::default(), &plan()).unwrap();
        };
        go(&straight, 4, false);
        go(&broken, 2, false);
        go(&broken, 4, true);
        let read = |out: &Path| Weights::read(&out.join("weights.safetensors")).unwrap();
        assert_eq!(read(&straight), read(&broken));
        std::fs::remove_dir_all(root).unwrap();
    }

    /// The gradient of the whole loss, towers included, against central differences along it.
    #[test]
    fn gradients_agree_with_differences() {
        let config = tiny();
        let builder = BatchBuilder {
            config: config.clone(),
            tokenizer: crate::train::nano_tokenizer().unwrap(),
            task_mix: plan().task_mix,
            batch: 2,
            seed: 3,
            validation: 0,
            detections: Detections::default(),
        };
        let batch = builder.training(0, 5);
        let device = Device::flex().autodiff();
        let plain = Device::flex();
        let loss_of = |weights: &Weights| {
            let start = Start::new(weights.clone(), 3);
            let at = Loader::new(&start, &device);
            let trained = Trained {
                model: ChatRex::load(&at, &config).unwrap(),
                heads: RegionHeads::load(&at.child("warmup"), 16).unwrap(),
            };
            let (visual, objects) = look(&trained.model, &batch.pictures, &plain);
            let logits = batch
                .packed
                .logits(&trained.model, visual, objects.clone(), &plain);
            let labels = RegionLabels::new(&batch.pictures.scenes, batch.pictures.rows());
            let loss = cross_entropy(logits, &batch.packed.labels())
                + trained.heads.loss(objects, &labels);
            (trained, start, loss)
        };
        let value = |weights: &Weights| f64::from(loss_of(weights).2.into_scalar::<f32>());
        let (trained, start, loss) = loss_of(&Weights::default());
        let weights = Weights::of_module(&trained, &start);
        let slopes = crate::train::optimizer::gradients(&trained, &start, loss.backward());
        for (name, slope) in slopes {
            let norm = slope.iter().map(|g| g * g).sum::<f32>().sqrt();
            if norm < 2e-3 {
                continue;
            }
            let step = 2e-3_f32.min(2e-3 / norm);
            let at = |sign: f32| {
                let mut moved = weights.clone();
                let tensor = moved.tensors.get_mut(&name).unwrap();
                for (value, g) in tensor.values.iter_mut().zip(&slope) {
                    *value += sign * step * g / norm;
                }
                value(&moved)
            };
            let measured = (at(1.0) - at(-1.0)) / f64::from(2.0 * step);
            let error = (measured - f64::from(norm)).abs();
            assert!(
                error < 0.03 * f64::from(norm) + 2e-3,
                "{name}: gradient {norm}, differences {measured}"
            );
        }
    }
}
