//! The decoder stages (`docs/reference/training.md` section 5). `align` trains decoder, projectors and
//! embeddings with frozen towers on naming and detection, `perceive` on all tasks; `instruct` trains
//! all parameters on all tasks, with the loss of the `towers` stage as an auxiliary loss.
//!
//! `align` learns pointing by a curriculum on the number of boxes: it starts with three boxes and adds
//! two whenever most index tokens are correct. Training on many boxes from the start does not learn
//! pointing at all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::nn::Loader;
use crate::scenes::{DialogueTask, Rng, Scene};
use crate::text::tokenizer::Tokenizer;
use crate::train::accuracy::{Score, index_tokens, read_boxes, task_name, write_boxes};
use crate::train::checkpoint::{Initializer, Precision, Weights, set_trainable};
use crate::train::data_loader::DataLoader;
use crate::train::detections::Detections;
use crate::train::metrics::MetricsLog;
use crate::train::optimizer::AdamW;
use crate::train::packing::{PackedBatch, PackedExample, TaskMix};
use crate::train::regions::{LabeledBox, ProposalNoise, sample_boxes};
use crate::train::schedule::{Budget, LrSchedule};
use crate::train::state::{read_state, write_state};
use crate::train::towers::{
    ImageBatch, RegionHeads, RegionLabels, Trainee, WordAlignment, argmax, cross_entropy,
    metrics_entry, training_seed,
};
use crate::train::{TrainOptions, TrainStage, training_device};

/// Steps after which the curriculum adds boxes in any case: with many boxes the errors of the towers
/// limit the accuracy, not the pointing.
const MAX_STEPS_WITHOUT_GROWTH: u64 = 2500;
/// Number of boxes at the end of the curriculum; nano's manifest has the same limit.
pub const MAX_BOXES: usize = 24;
/// Number of boxes at the start of the curriculum.
const FIRST_BOXES: usize = 3;
/// Accuracy of index tokens at which the curriculum adds boxes. Earlier growth degrades pointing
/// permanently: at 0.78 most answers over ten boxes stayed wrong.
const GROWTH_ACCURACY: f64 = 0.88;
/// Seconds between two validations.
const VALIDATION_INTERVAL: f64 = 150.0;
/// Weight of the auxiliary losses.
const AUX_LOSS_WEIGHT: f32 = 0.3;

/// Settings of a stage.
#[derive(Clone, Debug)]
struct StageConfig {
    task_mix: TaskMix,
    batch: usize,
    lr: f64,
    /// Factor of the learning rate of the towers; 0 freezes them.
    towers_lr_factor: f64,
    /// Number of validation scenes.
    validation_scenes: u64,
}

impl StageConfig {
    fn of(stage: TrainStage) -> Self {
        let pointing = [
            (DialogueTask::DetectOne, 7),
            (DialogueTask::Name, 5),
            (DialogueTask::DetectAbsent, 1),
            (DialogueTask::ShortPhrase, 1),
            (DialogueTask::Colour, 1),
        ];
        let all_tasks = DialogueTask::ALL.map(|task| match task {
            DialogueTask::DetectSeveral | DialogueTask::Count | DialogueTask::Caption => (task, 5),
            DialogueTask::DetectOne | DialogueTask::Name => (task, 3),
            DialogueTask::DetectAbsent | DialogueTask::CaptionDetailed => (task, 2),
            _ => (task, 1),
        });
        match stage {
            TrainStage::Align => Self {
                task_mix: TaskMix {
                    tasks: pointing.to_vec(),
                    tokens: 110,
                    shortest_of: 3,
                },
                batch: 16,
                lr: 1e-3,
                towers_lr_factor: 0.0,
                validation_scenes: 48,
            },
            TrainStage::Perceive => Self {
                task_mix: TaskMix {
                    tasks: all_tasks.to_vec(),
                    tokens: 210,
                    shortest_of: 1,
                },
                batch: 12,
                lr: 7e-4,
                towers_lr_factor: 0.0,
                validation_scenes: 48,
            },
            _ => Self {
                lr: 3e-4,
                towers_lr_factor: 0.3,
                ..Self::of(TrainStage::Perceive)
            },
        }
    }

    /// Factor of the learning rate of parameter `name`.
    fn lr_factor(&self, name: &str) -> f64 {
        if name.starts_with("vision_tower") || name.starts_with("warmup") {
            self.towers_lr_factor
        } else if name.starts_with("mm_object_projector") {
            0.3
        } else {
            1.0
        }
    }
}

/// Progress of a run, stored in its checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct DecoderTrainerState {
    step: u64,
    seed: u64,
    seconds: f64,
    /// Current number of boxes of the curriculum.
    boxes: usize,
    /// Running accuracy of index tokens at about that number of boxes.
    #[serde(rename = "pointing")]
    pointing_accuracy: f64,
    /// Running accuracy of the naming task.
    #[serde(rename = "naming")]
    naming_accuracy: f64,
    /// Running mean of the loss.
    #[serde(rename = "loss")]
    mean_loss: f64,
    /// Steps since the curriculum added boxes.
    #[serde(rename = "waited", default)]
    steps_since_growth: u64,
}

/// A batch of preprocessed images and packed sequences.
struct Batch {
    images: ImageBatch,
    packed: PackedBatch,
}

/// Builds batches from scenes.
struct BatchBuilder {
    config: ChatRexConfig,
    tokenizer: Tokenizer,
    task_mix: TaskMix,
    batch: usize,
    seed: u64,
    validation_scenes: u64,
    detections: Detections,
}

/// Training scenes with cached detections, in addition to the validation scenes.
const DETECTED_SCENES: u64 = 10_000;
/// Training scenes that use cached detections, in percent.
const DETECTED_PERCENT: usize = 70;
/// Distinguishes the seeds of these scenes from those of the other training scenes.
const DETECTED_SEED: u64 = 0xde7e;
/// Number of boxes from which on scenes of all sizes are drawn.
const ALL_SIZES: usize = 12;

/// [`Rng`] stream of training boxes and dialogues.
const TRAINING_STREAM: u64 = 91;
/// [`Rng`] stream of validation boxes and dialogues.
const VALIDATION_STREAM: u64 = 92;
/// Seed of the first validation scene.
const VALIDATION_SEED: u64 = 800_000;

impl BatchBuilder {
    /// The training batch of step `step` with at most `boxes` boxes per scene.
    fn training(&self, step: u64, boxes: usize) -> Batch {
        let max_objects = boxes.min(ALL_SIZES);
        let detected = self.detections.len() - self.detected_validation_scenes();
        let scenes = (0..self.batch as u64).map(|i| {
            let number = step * self.batch as u64 + i;
            let mut rng = Rng::new(self.seed ^ number.rotate_left(32), TRAINING_STREAM);
            if detected > 0 && max_objects == ALL_SIZES && rng.chance(DETECTED_PERCENT) {
                let index = self.detected_validation_scenes() + rng.below(detected);
                let scene = Scene::draw(self.detections.seed(index));
                let score = rng.between(0.1, 0.3);
                let labeled = self
                    .detections
                    .labeled_boxes(index, &scene, score, boxes, &mut rng);
                return (scene, labeled, rng);
            }
            let scene = Scene::draw_with(training_seed(self.seed, number), 1..=max_objects);
            let labeled = sample_boxes(&scene, ProposalNoise::PROPOSALS, boxes, &mut rng);
            (scene, labeled, rng)
        });
        self.batch(scenes.collect())
    }

    /// The detections start with this many validation scenes.
    fn detected_validation_scenes(&self) -> usize {
        self.detections.len().min(self.validation_scenes as usize)
    }

    /// The batch of the validation set from scene `first` on.
    fn validation(&self, first: u64, boxes: usize) -> Batch {
        let scenes = (first..first + self.batch as u64).map(|i| {
            let seed = VALIDATION_SEED + i;
            let (scene, mut rng) = (Scene::draw(seed), Rng::new(seed, VALIDATION_STREAM));
            let labeled = match self.detections.is_empty() {
                true => sample_boxes(&scene, ProposalNoise::PROPOSALS, boxes, &mut rng),
                false => self
                    .detections
                    .labeled_boxes(i as usize, &scene, 0.2, boxes, &mut rng),
            };
            (scene, labeled, rng)
        });
        self.batch(scenes.collect())
    }

    fn batch(&self, scenes: Vec<(Scene, Vec<LabeledBox>, Rng)>) -> Batch {
        let mut examples = Vec::new();
        let mut labeled_scenes = Vec::new();
        for (scene, labeled, mut rng) in scenes {
            examples.push(PackedExample::new(
                &scene,
                &labeled,
                &self.task_mix,
                &self.tokenizer,
                &mut rng,
            ));
            labeled_scenes.push((scene, labeled));
        }
        let images = ImageBatch::prepare(labeled_scenes, &self.config);
        let packed = PackedBatch::new(
            &examples,
            self.config.llm.vocab_size,
            self.config.towers.visual_tokens(),
            images.max_boxes(),
        );
        Batch { images, packed }
    }
}

fn start_loader(builder: &Arc<BatchBuilder>, step: u64, boxes: usize) -> DataLoader<Batch> {
    let builder = builder.clone();
    DataLoader::start(step, 1, move |step| builder.training(step, boxes))
}

/// Projected visual tokens `[B, P, D]` and box embeddings `[B, N, D]` of a batch.
fn encode(model: &ChatRex, images: &ImageBatch, device: &Device) -> (Tensor<3>, Tensor<3>) {
    let (low, high) = images.tensors(model.config(), device);
    let (visual, pyramid) = model.towers.forward(low, high);
    let features = model.towers.box_features(&pyramid, &images.boxes);
    (
        model.towers.project_visual(visual),
        model.towers.project_objects(features),
    )
}

fn is_detection(task: DialogueTask) -> bool {
    matches!(task, DialogueTask::DetectOne | DialogueTask::DetectSeveral)
}

/// Exact answers on the validation set by task, as `(correct, total)`.
fn validate(
    model: &ChatRex,
    builder: &BatchBuilder,
    index_tokens: &[u32],
    boxes: usize,
    device: &Device,
) -> BTreeMap<DialogueTask, (usize, usize)> {
    let mut sums = BTreeMap::new();
    for first in (0..builder.validation_scenes).step_by(builder.batch) {
        let batch = builder.validation(first, boxes);
        let (visual, embeddings) = encode(model, &batch.images, device);
        let logits = batch
            .packed
            .logits(&model.llm, Some(visual), Some(embeddings), device);
        let predicted = argmax(logits);
        Score::of(&batch.packed, &predicted, index_tokens, |task, _| {
            is_detection(task)
        })
        .add_exact(&mut sums);
    }
    sums
}

/// Runs a decoder stage.
///
/// # Errors
/// A file cannot be read or written, or weights have other shapes.
pub fn run(options: &TrainOptions, config: &ChatRexConfig, weights: Weights) -> Result<(), Fault> {
    run_stage(options, config, weights, StageConfig::of(options.stage))
}

fn run_stage(
    options: &TrainOptions,
    config: &ChatRexConfig,
    weights: Weights,
    stage: StageConfig,
) -> Result<(), Fault> {
    let (mut trainer, mut trainee) = Trainer::start(options, config, weights, stage)?;
    while !trainer.is_over() {
        let step;
        (trainee, step) = trainer.train_step(trainee);
        trainer.finish_step(&trainee, &step)?;
    }
    Ok(())
}

/// Everything of a run except the trained parameters.
struct Trainer<'a> {
    options: &'a TrainOptions,
    stage: StageConfig,
    /// The device without autodiff.
    device: Device,
    state_path: PathBuf,
    state: DecoderTrainerState,
    initializer: Initializer,
    optimizer: AdamW,
    schedule: LrSchedule,
    budget: Budget,
    builder: Arc<BatchBuilder>,
    loader: DataLoader<Batch>,
    index_tokens: Vec<u32>,
    alignment: WordAlignment,
    metrics: MetricsLog,
    /// Time of the last validation, in seconds of the run.
    validated_at: f64,
}

/// Result of a training step.
struct StepReport {
    lr: f64,
    grad_norm: f32,
    /// The curriculum added boxes.
    grown: bool,
}

impl<'a> Trainer<'a> {
    /// Loads the checkpoint or `weights`, and starts the data loader.
    fn start(
        options: &'a TrainOptions,
        config: &ChatRexConfig,
        weights: Weights,
        stage: StageConfig,
    ) -> Result<(Self, Trainee), Fault> {
        let device = training_device(options.device)?;
        let state_path = options.out.join("state.safetensors");
        let mut optimizer = AdamW::default();
        let (weights, state): (_, DecoderTrainerState) = if options.resume {
            read_state(&state_path, &mut optimizer)?
        } else {
            let state = DecoderTrainerState {
                seed: options.seed,
                boxes: first_boxes(options),
                ..DecoderTrainerState::default()
            };
            (weights, state)
        };
        let initializer = Initializer::new(weights, state.seed);
        let at = Loader::new(&initializer, &device);
        let trainee = Trainee {
            model: ChatRex::load(&at, config)?,
            heads: RegionHeads::load(&at.child("warmup"), config.llm.hidden_size)?,
        };
        let trainee = set_trainable(trainee, &initializer, |name| stage.lr_factor(name) > 0.0);
        let builder = Arc::new(BatchBuilder {
            detections: detections(options, state.seed, stage.validation_scenes)?,
            config: config.clone(),
            tokenizer: crate::train::nano_tokenizer()?,
            task_mix: stage.task_mix.clone(),
            batch: stage.batch,
            seed: state.seed,
            validation_scenes: stage.validation_scenes,
        });
        let index_tokens = index_tokens(&builder.tokenizer)?;
        let alignment = WordAlignment::new(&builder.tokenizer)?;
        let budget = Budget::start(options.minutes, options.steps, state.seconds);
        let metrics = MetricsLog::open(&options.out, options.resume, options.stage.name())?;
        let trainer = Self {
            options,
            device: device.inner(),
            state_path,
            initializer,
            optimizer,
            schedule: LrSchedule {
                peak: stage.lr,
                warmup: 50,
                hold: 0.6,
                floor: 0.05,
            },
            stage,
            loader: start_loader(&builder, state.step, state.boxes),
            state,
            builder,
            index_tokens,
            alignment,
            metrics,
            validated_at: budget.seconds(),
            budget,
        };
        Ok((trainer, trainee))
    }

    fn is_over(&self) -> bool {
        self.budget.is_over(self.state.step)
    }

    /// Updates the parameters with the next batch.
    fn train_step(&mut self, trainee: Trainee) -> (Trainee, StepReport) {
        let step = self.state.step;
        let progress = self.budget.progress(step);
        let batch = self.loader.next_batch();
        let (loss, answer_loss, score) = self.loss(&trainee, &batch);
        let lr = self.schedule.lr(step, progress);
        let stage = &self.stage;
        let gradients = loss.backward();
        let (trainee, grad_norm) =
            self.optimizer
                .step(trainee, &self.initializer, gradients, |name| {
                    lr * stage.lr_factor(name)
                });
        self.state.step += 1;
        let grown = self.state.update(&score, answer_loss);
        let state = &self.state;
        if grown {
            self.loader = start_loader(&self.builder, state.step, state.boxes);
        }
        self.metrics.show(
            progress,
            format!(
                "step {} boxes {} loss {:.3} pointing {:.2} naming {:.2}",
                state.step,
                state.boxes,
                state.mean_loss,
                state.pointing_accuracy,
                state.naming_accuracy
            ),
        );
        let report = StepReport {
            lr,
            grad_norm,
            grown,
        };
        (trainee, report)
    }

    /// The total loss, the value of the next-token loss, and the score of the batch.
    fn loss(&self, trainee: &Trainee, batch: &Batch) -> (Tensor<1>, f64, Score<DialogueTask>) {
        let Batch { images, packed } = batch;
        let (visual, boxes) = encode(&trainee.model, images, &self.device);
        let logits = packed.logits(
            &trainee.model.llm,
            Some(visual),
            Some(boxes.clone()),
            &self.device,
        );
        let min_boxes = self.state.boxes.saturating_sub(2);
        let score = Score::of(
            packed,
            &argmax(logits.clone()),
            &self.index_tokens,
            |task, boxes| is_detection(task) && boxes >= min_boxes,
        );
        let mut loss = cross_entropy(logits, &packed.labels());
        let answer_loss = f64::from(loss.clone().into_scalar::<f32>());
        let labels = RegionLabels::new(&images.scenes, images.max_boxes());
        let table = trainee.model.llm.embed_tokens.as_tensor();
        loss = loss + self.alignment.loss(boxes.clone(), table, &labels) * AUX_LOSS_WEIGHT;
        if self.stage.towers_lr_factor > 0.0 {
            loss = loss + trainee.heads.loss(boxes, &labels) * AUX_LOSS_WEIGHT;
        }
        (loss, answer_loss, score)
    }

    /// Validates, logs and writes the checkpoint if they are due after a step.
    fn finish_step(&mut self, trainee: &Trainee, report: &StepReport) -> Result<(), Fault> {
        let due = self.is_over()
            || match self.options.steps {
                Some(_) => self.state.step.is_multiple_of(100),
                None => self.budget.seconds() - self.validated_at > VALIDATION_INTERVAL,
            };
        if due || report.grown {
            self.log(trainee, report, due)?;
        }
        if due {
            self.write_checkpoint(trainee)?;
        }
        Ok(())
    }

    /// Writes a line of metrics, with those of a validation if `validation`.
    fn log(
        &mut self,
        trainee: &Trainee,
        report: &StepReport,
        validation: bool,
    ) -> Result<(), Fault> {
        self.state.seconds = self.budget.seconds();
        let state = &self.state;
        let mut line = metrics_entry(&[
            ("step", state.step as f64),
            ("seconds", state.seconds),
            ("boxes", state.boxes as f64),
            ("loss", state.mean_loss),
            ("rate", report.lr),
            ("norm", f64::from(report.grad_norm)),
            ("pointing", state.pointing_accuracy),
            ("naming", state.naming_accuracy),
        ]);
        if validation {
            let exact = validate(
                &trainee.model,
                &self.builder,
                &self.index_tokens,
                MAX_BOXES,
                &self.device,
            );
            for (task, (correct, total)) in exact {
                let accuracy = correct as f64 / total as f64;
                line.insert(format!("exact_{}", task_name(task)), accuracy.into());
            }
            self.validated_at = self.budget.seconds();
        }
        self.metrics.log(line)?;
        self.metrics.plot()
    }

    fn write_checkpoint(&self, trainee: &Trainee) -> Result<(), Fault> {
        let out = &self.options.out;
        let weights = Weights::of_module(trainee, &self.initializer);
        write_state(&self.state_path, &weights, &self.optimizer, &self.state)?;
        weights.write(&out.join("weights.safetensors"), Precision::F32)?;
        write_boxes(out, self.state.boxes)
    }
}

/// The cached or computed proposals of the UPN in `options`; none without it.
fn detections(
    options: &TrainOptions,
    seed: u64,
    validation_scenes: u64,
) -> Result<Detections, Fault> {
    let Some(upn) = &options.upn else {
        return Ok(Detections::default());
    };
    let validation = VALIDATION_SEED..VALIDATION_SEED + validation_scenes;
    let training = (0..DETECTED_SCENES).map(|i| training_seed(seed ^ DETECTED_SEED, i));
    Detections::load_or_compute(&options.out, upn, validation.chain(training))
}

impl DecoderTrainerState {
    /// Updates the running means with the score of a step and advances the curriculum; true if it
    /// added boxes.
    fn update(&mut self, score: &Score<DialogueTask>, loss: f64) -> bool {
        self.mean_loss = if self.step <= 1 {
            loss
        } else {
            self.mean_loss * 0.98 + loss * 0.02
        };
        let blend = |old: f64, (correct, total): (usize, usize)| {
            let weight = 1.0 - 0.998_f64.powi(total as i32);
            match total {
                0 => old,
                _ => old * (1.0 - weight) + correct as f64 / total as f64 * weight,
            }
        };
        self.pointing_accuracy = blend(self.pointing_accuracy, score.pointing);
        let naming = score.exact.get(&DialogueTask::Name);
        let naming = naming.copied().unwrap_or_default();
        self.naming_accuracy = blend(self.naming_accuracy, naming);
        self.steps_since_growth += 1;
        let ready = self.pointing_accuracy >= GROWTH_ACCURACY
            || self.steps_since_growth >= MAX_STEPS_WITHOUT_GROWTH;
        let grows = ready && self.boxes < MAX_BOXES;
        if grows {
            self.boxes = (self.boxes + 2).min(MAX_BOXES);
            self.pointing_accuracy *= 0.8;
            self.steps_since_growth = 0;
        }
        grows
    }
}

/// Number of boxes at the start of a run: for `align`, that of the run in `options.from`, if any; for
/// later stages all.
fn first_boxes(options: &TrainOptions) -> usize {
    if options.stage != TrainStage::Align {
        return MAX_BOXES;
    }
    options
        .from
        .as_ref()
        .and_then(|folder| read_boxes(folder))
        .unwrap_or(FIRST_BOXES)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::chatrex::ClipConvNextConfig;
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
            towers: ClipConvNextConfig {
                clip: ClipVitConfig {
                    hidden_size: 8,
                    intermediate_size: 12,
                    num_attention_heads: 2,
                    image_size: 28,
                    ..ChatRexConfig::nano(0).towers.clip
                },
                convnext: ConvNextConfig {
                    depths: vec![1, 1, 1, 1],
                    dims: vec![4, 8, 8, 12],
                    ..ChatRexConfig::nano(0).towers.convnext
                },
                image_low: 28,
                image_aux: 64,
            },
        }
    }

    fn stage() -> StageConfig {
        StageConfig {
            batch: 2,
            validation_scenes: 2,
            ..StageConfig::of(TrainStage::Instruct)
        }
    }

    fn options(out: &Path, steps: u64, resume: bool) -> TrainOptions {
        TrainOptions {
            stage: TrainStage::Instruct,
            from: None,
            towers: None,
            upn: None,
            base: None,
            chats: None,
            data: None,
            detector: None,
            lora: None,
            out: out.to_owned(),
            minutes: 0.0,
            steps: Some(steps),
            seed: 5,
            device: DevicePreference::Cpu,
            resume,
        }
    }

    /// Two steps, a resumption and two more steps give the same bits as four steps.
    #[test]
    fn a_resumed_run_equals_an_uninterrupted_one() {
        let root = std::env::temp_dir().join(format!("chatrex-resume-{}", std::process::id()));
        let (whole, resumed) = (root.join("whole"), root.join("resumed"));
        for folder in [&whole, &resumed] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let train = |out: &Path, steps, resume| {
            let options = options(out, steps, resume);
            run_stage(&options, &tiny(), Weights::default(), stage()).unwrap();
        };
        train(&whole, 4, false);
        train(&resumed, 2, false);
        train(&resumed, 4, true);
        let read = |out: &Path| Weights::read(&out.join("weights.safetensors")).unwrap();
        assert_eq!(read(&whole), read(&resumed));
        std::fs::remove_dir_all(root).unwrap();
    }

    /// The gradient of the total loss, including the towers, against central differences along it.
    #[test]
    fn gradients_equal_finite_differences() {
        let config = tiny();
        let builder = BatchBuilder {
            config: config.clone(),
            tokenizer: crate::train::nano_tokenizer().unwrap(),
            task_mix: stage().task_mix,
            batch: 2,
            seed: 3,
            validation_scenes: 0,
            detections: Detections::default(),
        };
        let batch = builder.training(0, 5);
        let device = Device::flex().autodiff();
        let inner_device = Device::flex();
        let loss_of = |weights: &Weights| {
            let initializer = Initializer::new(weights.clone(), 3);
            let at = Loader::new(&initializer, &device);
            let trainee = Trainee {
                model: ChatRex::load(&at, &config).unwrap(),
                heads: RegionHeads::load(&at.child("warmup"), 16).unwrap(),
            };
            let (visual, boxes) = encode(&trainee.model, &batch.images, &inner_device);
            let logits = batch.packed.logits(
                &trainee.model.llm,
                Some(visual),
                Some(boxes.clone()),
                &inner_device,
            );
            let labels = RegionLabels::new(&batch.images.scenes, batch.images.max_boxes());
            let loss =
                cross_entropy(logits, &batch.packed.labels()) + trainee.heads.loss(boxes, &labels);
            (trainee, initializer, loss)
        };
        let value = |weights: &Weights| f64::from(loss_of(weights).2.into_scalar::<f32>());
        let (trainee, initializer, loss) = loss_of(&Weights::default());
        let weights = Weights::of_module(&trainee, &initializer);
        let gradients = crate::train::optimizer::gradients(&trainee, &initializer, loss.backward());
        for (name, gradient) in gradients {
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            if norm < 2e-3 {
                continue;
            }
            let step = 2e-3_f32.min(2e-3 / norm);
            let at = |sign: f32| {
                let mut moved = weights.clone();
                let tensor = moved.tensors.get_mut(&name).unwrap();
                for (value, g) in tensor.values.iter_mut().zip(&gradient) {
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
