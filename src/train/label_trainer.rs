//! Training on label scenes: the loop that the decoders of mini and small share.
//!
//! The number of boxes grows with the accuracy of index tokens, as in [`stages`](super::stages).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::model::decoder::Decoder;
use crate::scenes::labels::LabelTask;
use crate::text::tokenizer::Tokenizer;
use crate::train::TrainOptions;
use crate::train::accuracy::{Score, index_tokens, read_boxes, task_name, write_boxes};
use crate::train::checkpoint::{Initializer, Precision, Weights};
use crate::train::data_loader::DataLoader;
use crate::train::label_batches::{BatchBuilder, LabelBatch};
use crate::train::metrics::MetricsLog;
use crate::train::optimizer::AdamW;
use crate::train::schedule::{Budget, LrSchedule};
use crate::train::state::{read_state, write_state};
use crate::train::towers::{argmax, cross_entropy, metrics_entry};

/// Number of boxes at the end of the curriculum.
const MAX_BOXES: usize = 48;
/// Number of boxes at the start of the curriculum.
const FIRST_BOXES: usize = 3;
/// Accuracy of index tokens at which the curriculum adds boxes.
const GROWTH_ACCURACY: f64 = 0.88;
/// Steps after which the curriculum adds boxes in any case.
const MAX_STEPS_WITHOUT_GROWTH: u64 = 3000;

/// The trained parameters of a model that answers questions about label scenes.
pub(super) trait LabelModel: Module {
    /// The decoder.
    fn decoder(&self) -> Decoder;

    /// The embeddings `[B, N, D]` of boxes with class scores `[B, N, K]` and position features
    /// `[B, N, F]`.
    fn objects(&self, scores: Tensor<3>, positions: Tensor<3>) -> Tensor<3>;

    /// The model for validation, without gradients where it can be had.
    fn for_validation(&self) -> Self;
}

/// What differs between the models.
#[derive(Clone, Copy)]
pub(super) struct LabelSettings {
    /// Highest learning rate.
    pub peak: f64,
    /// Share of the run at the highest rate.
    pub hold: f64,
    /// Steps with a rising rate.
    pub warmup: u64,
    /// Seconds between two validations.
    pub validation_interval: f64,
    /// Scenes of a validation.
    pub validation_scenes: usize,
}

/// Progress of a run, stored in its checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct LabelTrainerState {
    step: u64,
    seed: u64,
    seconds: f64,
    boxes: usize,
    pointing_accuracy: f64,
    mean_loss: f64,
    steps_since_growth: u64,
    /// Low-rank changes and data of the run; empty in checkpoints of before.
    #[serde(default)]
    made_with: String,
}

/// Everything of a run except the trained parameters.
pub(super) struct LabelTrainer<'a> {
    options: &'a TrainOptions,
    settings: LabelSettings,
    /// The device without autodiff.
    device: Device,
    state_path: PathBuf,
    state: LabelTrainerState,
    initializer: Initializer,
    optimizer: AdamW,
    schedule: LrSchedule,
    budget: Budget,
    builder: Arc<BatchBuilder>,
    loader: DataLoader<LabelBatch>,
    index_tokens: Vec<u32>,
    metrics: MetricsLog,
    validated_at: f64,
    /// Positions computed since `started_at`, padding included.
    tokens: usize,
    started_at: f64,
}

fn start_loader(builder: &Arc<BatchBuilder>, step: u64, boxes: usize) -> DataLoader<LabelBatch> {
    let builder = builder.clone();
    DataLoader::start(step, 1, move |step| builder.training(step, boxes))
}

impl<'a> LabelTrainer<'a> {
    /// Starts or resumes a run on `device` with the batches of `builder`, whose seed becomes that of the
    /// run. `load` makes the model from its initial values.
    pub fn start<M: LabelModel>(
        options: &'a TrainOptions,
        settings: LabelSettings,
        device: &Device,
        weights: Weights,
        mut builder: BatchBuilder,
        load: impl FnOnce(&Initializer, &Tokenizer) -> Result<M, Fault>,
    ) -> Result<(Self, M), Fault> {
        let state_path = options.out.join("state.safetensors");
        let mut optimizer = AdamW::default();
        let made_with = made_with(options, &builder);
        let (weights, state): (_, LabelTrainerState) = if options.resume {
            let (weights, state): (_, LabelTrainerState) = read_state(&state_path, &mut optimizer)?;
            if !state.made_with.is_empty() && state.made_with != made_with {
                let what = format!("is of a run with {}, not {made_with}", state.made_with);
                let advice = "Resume with the same options, or begin in another folder";
                let place = state_path.display().to_string();
                let fault = Fault::new(FaultKind::File, place, what, advice);
                return Err(fault.code(ErrorCode::InvalidInput));
            }
            (weights, state)
        } else {
            let state = LabelTrainerState {
                seed: options.seed,
                boxes: first_boxes(options),
                made_with,
                ..LabelTrainerState::default()
            };
            (weights, state)
        };
        let initializer = Initializer::new(weights, state.seed);
        let model = load(&initializer, &builder.tokenizer)?;
        builder.seed = state.seed;
        let builder = Arc::new(builder);
        let budget = Budget::start(options.minutes, options.steps, state.seconds);
        let trainer = Self {
            options,
            settings,
            device: device.clone().inner(),
            state_path,
            initializer,
            optimizer,
            schedule: LrSchedule {
                peak: settings.peak,
                warmup: settings.warmup,
                hold: settings.hold,
                floor: 0.03,
            },
            loader: start_loader(&builder, state.step, state.boxes),
            index_tokens: index_tokens(&builder.tokenizer)?,
            builder,
            metrics: MetricsLog::open(&options.out, options.resume, options.stage.name())?,
            validated_at: budget.seconds(),
            tokens: 0,
            started_at: budget.seconds(),
            budget,
            state,
        };
        Ok((trainer, model))
    }

    /// Trains `model` until the budget is spent.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn run<M: LabelModel>(mut self, mut model: M) -> Result<(), Fault> {
        while !self.budget.is_over(self.state.step) {
            model = self.step(model)?;
        }
        Ok(())
    }

    /// The logits of the targets of a batch, `[targets, V]`.
    fn logits<M: LabelModel>(&self, model: &M, batch: &LabelBatch) -> Tensor<2> {
        let count = batch.max_boxes;
        let boxes = (count > 0).then(|| {
            let tensor = |values: &[f32]| {
                let features = values.len() / (batch.scenes * count);
                let data = TensorData::new(values.to_vec(), [batch.scenes, count, features]);
                Tensor::<3>::from_data(data, &self.device)
            };
            model.objects(tensor(&batch.scores), tensor(&batch.positions))
        });
        batch
            .packed
            .logits(&model.decoder(), None, boxes, &self.device)
    }

    /// Updates the parameters with the next batch; validates and writes the checkpoint if due.
    fn step<M: LabelModel>(&mut self, model: M) -> Result<M, Fault> {
        let step = self.state.step;
        let progress = self.budget.progress(step);
        let batch = self.loader.next_batch();
        let logits = self.logits(&model, &batch);
        let predicted = argmax(logits.clone());
        let loss = cross_entropy(logits, &batch.packed.labels());
        let loss_value = f64::from(loss.clone().into_scalar::<f32>());
        let lr = self.schedule.lr(step, progress);
        let (model, grad_norm) =
            self.optimizer
                .step(model, &self.initializer, loss.backward(), |_| lr);
        self.tokens += batch.packed.batch * batch.packed.length;
        self.state.step += 1;
        let score = self.score(&batch, &predicted);
        let grown = self.state.update(score.pointing, loss_value);
        if grown {
            self.loader = start_loader(&self.builder, self.state.step, self.state.boxes);
        }
        let state = &self.state;
        self.metrics.show(
            progress,
            format!(
                "step {} boxes {} loss {:.3} pointing {:.2}",
                state.step, state.boxes, state.mean_loss, state.pointing_accuracy
            ),
        );
        let due = self.budget.is_over(self.state.step)
            || match self.options.steps {
                Some(_) => self.state.step.is_multiple_of(100),
                None => {
                    self.budget.seconds() - self.validated_at > self.settings.validation_interval
                }
            };
        if due || grown {
            self.state.seconds = self.budget.seconds();
            let state = &self.state;
            let mut line = metrics_entry(&[
                ("step", state.step as f64),
                ("seconds", state.seconds),
                ("boxes", state.boxes as f64),
                ("loss", state.mean_loss),
                ("rate", lr),
                ("norm", f64::from(grad_norm)),
                ("pointing", state.pointing_accuracy),
                (
                    "tokens_per_second",
                    self.tokens as f64 / (state.seconds - self.started_at).max(1e-3),
                ),
            ]);
            if due {
                for (task, (correct, total)) in self.validate(&model.for_validation()) {
                    let accuracy = correct as f64 / total as f64;
                    line.insert(format!("exact_{}", task_name(task)), accuracy.into());
                }
                self.validated_at = self.budget.seconds();
            }
            self.metrics.log(line)?;
        }
        if due {
            self.metrics.plot()?;
            self.write_checkpoint(&model)?;
        }
        Ok(model)
    }

    fn score(&self, batch: &LabelBatch, predicted: &[i32]) -> Score<LabelTask> {
        Score::of(&batch.packed, predicted, &self.index_tokens, |task, _| {
            matches!(task, LabelTask::DetectOne | LabelTask::DetectSeveral)
        })
    }

    /// Exact answers on the validation scenes by task, as `(correct, total)`.
    fn validate<M: LabelModel>(&self, model: &M) -> BTreeMap<LabelTask, (usize, usize)> {
        let mut sums = BTreeMap::new();
        for first in (0..self.settings.validation_scenes).step_by(self.builder.scenes) {
            let batch = self.builder.validation(first as u64);
            let predicted = argmax(self.logits(model, &batch));
            self.score(&batch, &predicted).add_exact(&mut sums);
        }
        sums
    }

    fn write_checkpoint<M: LabelModel>(&self, model: &M) -> Result<(), Fault> {
        let out = &self.options.out;
        let weights = Weights::of_module(model, &self.initializer);
        write_state(&self.state_path, &weights, &self.optimizer, &self.state)?;
        weights.write(&out.join("weights.safetensors"), Precision::F32)?;
        write_boxes(out, self.state.boxes)
    }
}

/// The low-rank changes and the data of a run, in words.
fn made_with(options: &TrainOptions, builder: &BatchBuilder) -> String {
    let lora = match &options.lora {
        Some(lora) => {
            let targets = lora.targets.join(",");
            format!("rank {} scale {} of {targets}", lora.rank, lora.scale)
        }
        None => "its own changes".to_owned(),
    };
    let data = builder.data.as_ref();
    let data = data.map_or("drawn scenes".to_owned(), |data| {
        format!("data {}", data.sha256)
    });
    format!("{lora} on {data}")
}

/// Number of boxes at the start of a run: that of the run in `options.from`, if any.
fn first_boxes(options: &TrainOptions) -> usize {
    let before = options.from.as_ref();
    before
        .and_then(|folder| read_boxes(folder))
        .unwrap_or(FIRST_BOXES)
}

impl LabelTrainerState {
    /// Updates the running means with a step and advances the curriculum; true if it added boxes.
    fn update(&mut self, (correct, total): (usize, usize), loss: f64) -> bool {
        self.mean_loss = if self.step <= 1 {
            loss
        } else {
            self.mean_loss * 0.98 + loss * 0.02
        };
        if total > 0 {
            let old_share = 0.9985_f64.powi(total as i32);
            let accuracy = correct as f64 / total as f64;
            self.pointing_accuracy =
                self.pointing_accuracy * old_share + accuracy * (1.0 - old_share);
        }
        self.steps_since_growth += 1;
        let ready = self.pointing_accuracy >= GROWTH_ACCURACY
            || self.steps_since_growth >= MAX_STEPS_WITHOUT_GROWTH;
        let grows = ready && self.boxes < MAX_BOXES;
        if grows {
            let more = if self.boxes < 16 { 2 } else { 4 };
            self.boxes = (self.boxes + more).min(MAX_BOXES);
            self.pointing_accuracy *= 0.9;
            self.steps_since_growth = 0;
        }
        grows
    }
}
