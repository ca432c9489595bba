//! The `labels` stage: decoder and object projector of mini on label scenes
//! (`docs/reference/training.md` section 6).
//!
//! The number of boxes grows with the accuracy of index tokens, as in [`stages`](super::stages). The
//! embedding of a class is the mean embedding of its words plus a trained difference, so looking up a
//! kind among boxes is a comparison of equal vectors from the first step.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::model::class_projector::{ClassProjector, ClassProjectorConfig, position_features};
use crate::model::decoder::{Decoder, DecoderConfig};
use crate::nn::Loader;
use crate::scenes::Rng;
use crate::scenes::labels::{GROUPS, KINDS, LabelScene, LabelTask, label_dialogue};
use crate::text::prompt::{ChatTemplate, OBJECT_SLOT, box_turn, index_tag};
use crate::text::tokenizer::Tokenizer;
use crate::train::TrainOptions;
use crate::train::accuracy::{Score, index_tokens, read_boxes, task_name, write_boxes};
use crate::train::checkpoint::{Initializer, Precision, Weights, set_trainable};
use crate::train::data_loader::DataLoader;
use crate::train::metrics::MetricsLog;
use crate::train::optimizer::AdamW;
use crate::train::packing::{
    AuxTarget, PackedBatch, PackedExample, TokenizedDialogue, first_token, group_target,
    lookup_target, tokens,
};
use crate::train::schedule::{Budget, LrSchedule};
use crate::train::state::{read_state, write_state};
use crate::train::towers::{argmax, cross_entropy, metrics_entry};
use crate::train::training_device;

/// Number of boxes at the end of the curriculum.
const MAX_BOXES: usize = 48;
/// Number of boxes at the start of the curriculum.
const FIRST_BOXES: usize = 3;
/// Accuracy of index tokens at which the curriculum adds boxes.
const GROWTH_ACCURACY: f64 = 0.88;
/// Steps after which the curriculum adds boxes in any case.
const MAX_STEPS_WITHOUT_GROWTH: u64 = 3000;
/// Scenes per step.
const BATCH: usize = 16;
/// Tokens of the dialogues of a scene, at most.
const DIALOGUE_TOKENS: usize = 170;
/// Seconds between two validations.
const VALIDATION_INTERVAL: f64 = 240.0;
/// Scenes of a validation.
const VALIDATION_SCENES: u64 = 64;
/// Boxes of a validation scene, at most.
const VALIDATION_BOXES: usize = 24;
/// Sum of the weights of a class's word embeddings. The mean of four forms is shorter than a word.
const NAME_GAIN: f32 = 2.0;
/// Groups of an answer among the auxiliary targets of a scene, at most.
const AUX_GROUPS: usize = 4;
/// Boxes among the auxiliary targets of a scene, at most.
const AUX_BOXES: usize = 12;
/// [`Rng`] stream of training scenes.
const TRAINING_STREAM: u64 = 201;
/// [`Rng`] stream of validation scenes.
const VALIDATION_STREAM: u64 = 202;

/// [`Rng`] stream of the embeddings of new tokens.
const EMBEDDING_STREAM: u64 = 203;

/// Sampling weights of the tasks.
const TASKS: [(LabelTask, usize); 14] = [
    (LabelTask::DetectOne, 12),
    (LabelTask::DetectSeveral, 14),
    (LabelTask::DetectAbsent, 6),
    (LabelTask::Name, 8),
    (LabelTask::Count, 12),
    (LabelTask::Exists, 11),
    (LabelTask::Refer, 22),
    (LabelTask::Where, 5),
    (LabelTask::Caption, 9),
    (LabelTask::Total, 2),
    (LabelTask::Help, 1),
    (LabelTask::Cannot, 2),
    (LabelTask::UnknownNoun, 2),
    (LabelTask::Foreign, 1),
];

/// The decoder of mini for a vocabulary of `vocab_size` tokens. It has the sizes of nano's, so that it can
/// start from nano's weights.
pub fn mini_decoder(vocab_size: usize) -> DecoderConfig {
    DecoderConfig {
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 5,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        vocab_size,
        tie_word_embeddings: true,
        qkv_bias: true,
        head_dim: Some(32),
    }
}

/// The trained parameters.
#[derive(Module, Debug)]
pub struct LabelTrainee {
    /// The decoder.
    pub llm: Decoder,
    /// The object projector; its name embeddings are differences from the words of the classes.
    pub objects: ClassProjector,
}

impl LabelTrainee {
    /// Reads decoder and projector under the names of the checkpoint.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        Ok(Self {
            llm: Decoder::load(at, config)?,
            objects: ClassProjector::load(
                &at.child("mm_object_projector"),
                &ClassProjectorConfig::MINI,
                KINDS.len(),
                config.hidden_size,
            )?,
        })
    }
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
}

/// Class scores, positions and packed sequences of some scenes.
struct Batch {
    scores: Vec<f32>,
    positions: Vec<f32>,
    max_boxes: usize,
    packed: PackedBatch<LabelTask>,
}

/// Builds batches.
struct BatchBuilder {
    tokenizer: Tokenizer,
    seed: u64,
}

impl BatchBuilder {
    fn training(&self, step: u64, boxes: usize) -> Batch {
        let scenes = (0..BATCH as u64).map(|i| {
            let number = step * BATCH as u64 + i;
            let mut rng = Rng::new(self.seed ^ number.rotate_left(32), TRAINING_STREAM);
            (LabelScene::draw(boxes, &mut rng), rng)
        });
        self.batch(scenes.collect())
    }

    fn validation(&self, first: u64) -> Batch {
        let scenes = (first..first + BATCH as u64).map(|number| {
            let mut rng = Rng::new(number, VALIDATION_STREAM);
            (LabelScene::draw(VALIDATION_BOXES, &mut rng), rng)
        });
        self.batch(scenes.collect())
    }

    fn batch(&self, scenes: Vec<(LabelScene, Rng)>) -> Batch {
        let counts = scenes.iter().map(|(scene, _)| scene.objects.len());
        let max_boxes = counts.max().unwrap_or(0);
        let (mut scores, mut positions, mut examples) = (Vec::new(), Vec::new(), Vec::new());
        for (scene, mut rng) in scenes {
            let padding = max_boxes - scene.objects.len();
            let mut boxes: Vec<[f32; 4]> = scene.objects.iter().map(|o| o.bbox).collect();
            let mut confidences: Vec<f32> = scene.objects.iter().map(|o| o.score()).collect();
            boxes.resize(max_boxes, [0.0; 4]);
            confidences.resize(max_boxes, 0.0);
            positions.extend(position_features(&boxes, &confidences));
            for object in &scene.objects {
                scores.extend(&object.scores);
            }
            scores.resize(scores.len() + padding * KINDS.len(), 0.0);
            examples.push(self.example(&scene, &mut rng));
        }
        Batch {
            scores,
            positions,
            max_boxes,
            packed: PackedBatch::new(&examples, self.tokenizer.vocab_size(), 0, max_boxes),
        }
    }

    fn example(&self, scene: &LabelScene, rng: &mut Rng) -> PackedExample<LabelTask> {
        let prompt = |question: &str| self.prompt(scene.objects.len(), question);
        let mut prefix = prompt("?");
        prefix.truncate(self.prefix_len(&prefix));
        let mut example = PackedExample {
            prefix,
            dialogues: Vec::new(),
            aux_targets: self.aux_targets(scene, rng),
        };
        let (mut tokens_left, mut seen) = (DIALOGUE_TOKENS, HashSet::new());
        for _ in 0..DIALOGUE_TOKENS / 8 {
            let task = rng.pick_weighted(&TASKS);
            let Some(dialogue) = label_dialogue(scene, task, rng) else {
                continue;
            };
            let prompt = prompt(&dialogue.question);
            let ids = prompt[self.prefix_len(&prompt)..].iter();
            let mut ids: Vec<u32> = ids
                .map(|&id| u32::try_from(id).expect("no slots after the boxes"))
                .collect();
            let answer_start = ids.len();
            ids.extend(tokens(
                &format!("{}<|im_end|>", dialogue.answer),
                &self.tokenizer,
            ));
            let fits = ids.len() <= tokens_left || example.dialogues.is_empty();
            if fits && seen.insert(ids.clone()) {
                tokens_left = tokens_left.saturating_sub(ids.len());
                example.dialogues.push(TokenizedDialogue {
                    task,
                    ids,
                    answer_start,
                });
            }
        }
        example
    }

    /// The prompt of a question about `boxes` boxes, with slots.
    fn prompt(&self, boxes: usize, question: &str) -> Vec<i64> {
        let user = box_turn(boxes, question).expect("generated questions are valid");
        self.tokenizer.encode(&ChatTemplate::qwen().first(&user))
    }

    /// Length of the part of a prompt that all questions about the boxes share: up to the last slot,
    /// or the head of the template.
    fn prefix_len(&self, prompt: &[i64]) -> usize {
        match prompt.iter().rposition(|&id| id == OBJECT_SLOT) {
            Some(slot) => slot + 1,
            None => self.tokenizer.encode("<|im_start|>user\n").len(),
        }
    }

    /// Up to [`AUX_GROUPS`] groups, each of which predicts its indices, and up to [`AUX_BOXES`] index
    /// tokens, each of which predicts the first token of its kind.
    fn aux_targets(&self, scene: &LabelScene, rng: &mut Rng) -> Vec<AuxTarget> {
        let tokenizer = &self.tokenizer;
        let mut kinds = scene.kinds();
        rng.shuffle(&mut kinds);
        let mut targets: Vec<AuxTarget> = kinds
            .iter()
            .take(AUX_GROUPS)
            .map(|&kind| {
                let indices = scene.indices(|k| k == kind);
                group_target(KINDS[kind].name, &indices, tokenizer)
            })
            .collect();
        let mut named = scene.indices(|_| true);
        rng.shuffle(&mut named);
        named.truncate(AUX_BOXES);
        if !named.is_empty() {
            targets.push(lookup_target(named.into_iter().map(|index| {
                let kind = scene.objects[index].kind.expect("named boxes have kinds");
                let tag = tokens(&index_tag(index as u32), tokenizer);
                (tag, first_token(KINDS[kind].name, tokenizer))
            })));
        }
        targets
    }
}

/// Weights `[K, V]` of token embeddings whose sum is the embedding of a class: the mean over the
/// tokens of a form, over the forms singular and plural, each with and without a space before it.
fn name_weights(tokenizer: &Tokenizer) -> Vec<f32> {
    let vocab = tokenizer.vocab_size();
    let mut weights = vec![0.0; KINDS.len() * vocab];
    for (kind, row) in KINDS.iter().zip(weights.chunks_mut(vocab)) {
        for word in [kind.name, kind.plural] {
            for form in [word.to_owned(), format!(" {word}")] {
                let ids = tokens(&form, tokenizer);
                for id in &ids {
                    row[*id as usize] += NAME_GAIN / (4 * ids.len()) as f32;
                }
            }
        }
    }
    weights
}

/// The embeddings of the classes `[D, K]`: those of their words plus `difference`.
fn class_embeddings(llm: &Decoder, difference: Tensor<2>, weights: Tensor<2>) -> Tensor<2> {
    weights.matmul(llm.embed_tokens.as_tensor()).transpose() + difference
}

/// Everything of a run except the trained parameters.
struct Trainer<'a> {
    options: &'a TrainOptions,
    /// The device without autodiff.
    device: Device,
    state_path: PathBuf,
    state: LabelTrainerState,
    initializer: Initializer,
    optimizer: AdamW,
    schedule: LrSchedule,
    budget: Budget,
    builder: Arc<BatchBuilder>,
    loader: DataLoader<Batch>,
    index_tokens: Vec<u32>,
    name_weights: Tensor<2>,
    metrics: MetricsLog,
    validated_at: f64,
}

fn start_loader(builder: &Arc<BatchBuilder>, step: u64, boxes: usize) -> DataLoader<Batch> {
    let builder = builder.clone();
    DataLoader::start(step, 1, move |step| builder.training(step, boxes))
}

/// Runs the stage with the tokenizer in `tokenizer`.
///
/// # Errors
/// A file cannot be read or written, or weights have other shapes.
pub fn run(options: &TrainOptions, tokenizer: Tokenizer, weights: Weights) -> Result<(), Fault> {
    let (mut trainer, mut trainee) = Trainer::start(options, tokenizer, weights)?;
    while !trainer.budget.is_over(trainer.state.step) {
        trainee = trainer.step(trainee)?;
    }
    Ok(())
}

impl<'a> Trainer<'a> {
    fn start(
        options: &'a TrainOptions,
        tokenizer: Tokenizer,
        weights: Weights,
    ) -> Result<(Self, LabelTrainee), Fault> {
        let device = training_device(options.device)?;
        let state_path = options.out.join("state.safetensors");
        let mut optimizer = AdamW::default();
        let (weights, state): (_, LabelTrainerState) = if options.resume {
            read_state(&state_path, &mut optimizer)?
        } else {
            let state = LabelTrainerState {
                seed: options.seed,
                boxes: first_boxes(options),
                ..LabelTrainerState::default()
            };
            (weights, state)
        };
        let config = mini_decoder(tokenizer.vocab_size());
        let initializer = Initializer::new(weights, state.seed);
        let trainee = LabelTrainee::load(&Loader::new(&initializer, &device), &config)?;
        let trainee = set_trainable(trainee, &initializer, |_| true);
        let inner = device.inner();
        let shape = [KINDS.len(), tokenizer.vocab_size()];
        let name_weights =
            Tensor::from_data(TensorData::new(name_weights(&tokenizer), shape), &inner);
        let index_tokens = index_tokens(&tokenizer)?;
        let builder = Arc::new(BatchBuilder {
            tokenizer,
            seed: state.seed,
        });
        let budget = Budget::start(options.minutes, options.steps, state.seconds);
        let trainer = Self {
            options,
            device: inner,
            state_path,
            initializer,
            optimizer,
            schedule: LrSchedule {
                peak: 1e-3,
                warmup: 100,
                hold: 0.6,
                floor: 0.03,
            },
            loader: start_loader(&builder, state.step, state.boxes),
            builder,
            index_tokens,
            name_weights,
            metrics: MetricsLog::open(&options.out, options.resume, options.stage.name())?,
            validated_at: budget.seconds(),
            budget,
            state,
        };
        Ok((trainer, trainee))
    }

    /// The logits of the targets of a batch, `[targets, V]`.
    fn logits(&self, trainee: &LabelTrainee, batch: &Batch) -> Tensor<2> {
        let count = batch.max_boxes;
        let boxes = (count > 0).then(|| {
            let tensor = |values: &[f32]| {
                let features = values.len() / (BATCH * count);
                let data = TensorData::new(values.to_vec(), [BATCH, count, features]);
                Tensor::<3>::from_data(data, &self.device)
            };
            let difference = trainee.objects.names.weight.as_tensor();
            let names = class_embeddings(&trainee.llm, difference, self.name_weights.clone());
            let shares = trainee.objects.shares(tensor(&batch.scores));
            shares.matmul(names.transpose().unsqueeze())
                + trainee.objects.position(tensor(&batch.positions))
        });
        batch.packed.logits(&trainee.llm, None, boxes, &self.device)
    }

    /// Updates the parameters with the next batch; validates and writes the checkpoint if due.
    fn step(&mut self, trainee: LabelTrainee) -> Result<LabelTrainee, Fault> {
        let step = self.state.step;
        let progress = self.budget.progress(step);
        let batch = self.loader.next_batch();
        let logits = self.logits(&trainee, &batch);
        let predicted = argmax(logits.clone());
        let loss = cross_entropy(logits, &batch.packed.labels());
        let loss_value = f64::from(loss.clone().into_scalar::<f32>());
        let lr = self.schedule.lr(step, progress);
        let (trainee, grad_norm) =
            self.optimizer
                .step(trainee, &self.initializer, loss.backward(), |_| lr);
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
                None => self.budget.seconds() - self.validated_at > VALIDATION_INTERVAL,
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
            ]);
            if due {
                for (task, (correct, total)) in self.validate(&trainee.valid()) {
                    let accuracy = correct as f64 / total as f64;
                    line.insert(format!("exact_{}", task_name(task)), accuracy.into());
                }
                self.validated_at = self.budget.seconds();
            }
            self.metrics.log(line)?;
        }
        if due {
            self.metrics.plot()?;
            self.write_checkpoint(&trainee)?;
        }
        Ok(trainee)
    }

    fn score(&self, batch: &Batch, predicted: &[i32]) -> Score<LabelTask> {
        Score::of(&batch.packed, predicted, &self.index_tokens, |task, _| {
            matches!(task, LabelTask::DetectOne | LabelTask::DetectSeveral)
        })
    }

    /// Exact answers on the validation scenes by task, as `(correct, total)`.
    fn validate(&self, trainee: &LabelTrainee) -> BTreeMap<LabelTask, (usize, usize)> {
        let mut sums = BTreeMap::new();
        for first in (0..VALIDATION_SCENES).step_by(BATCH) {
            let batch = self.builder.validation(first);
            let predicted = argmax(self.logits(trainee, &batch));
            self.score(&batch, &predicted).add_exact(&mut sums);
        }
        sums
    }

    fn write_checkpoint(&self, trainee: &LabelTrainee) -> Result<(), Fault> {
        let out = &self.options.out;
        let weights = Weights::of_module(trainee, &self.initializer);
        write_state(&self.state_path, &weights, &self.optimizer, &self.state)?;
        weights.write(&out.join("weights.safetensors"), Precision::F32)?;
        write_boxes(out, self.state.boxes)
    }
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

/// The decoder weights in `folder` for `tokenizer`: those of a run of this stage, or those of another
/// model folder with a decoder of the same sizes. Embeddings of tokens that its vocabulary lacks are
/// left out of the result row by row: they are drawn from a normal distribution with the standard
/// deviation of the others.
///
/// # Errors
/// A file is missing or damaged.
pub fn initial_weights(folder: &Path, tokenizer: &Tokenizer, seed: u64) -> Result<Weights, Fault> {
    let own = folder.join("weights.safetensors");
    if own.exists() {
        return Weights::read(&own);
    }
    let mut weights = Weights::read(&folder.join("decoder.safetensors"))?;
    let path = folder.join("tokenizer.json");
    let json = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
    let old = Tokenizer::from_json(&json, &path.display().to_string(), None)?;
    let name = "model.embed_tokens.weight";
    let Some(table) = weights.tensors.get_mut(name) else {
        return Err(Fault::model(name, "is missing"));
    };
    let width = table.values.len() / old.vocab_size().max(1);
    let squares: f32 = table.values.iter().map(|value| value * value).sum();
    let deviation = (squares / table.values.len().max(1) as f32).sqrt();
    let mut rng = Rng::new(seed, EMBEDDING_STREAM);
    let mut rows = Vec::with_capacity(tokenizer.vocab_size() * width);
    for id in 0..tokenizer.vocab_size() as u32 {
        let known = tokenizer.token(id).and_then(|token| old.id(&token).ok());
        match known.and_then(|id| {
            table
                .values
                .get(id as usize * width..(id as usize + 1) * width)
        }) {
            Some(row) => rows.extend_from_slice(row),
            None => rows.extend((0..width).map(|_| {
                // The sum of twelve uniform values has a variance of 1.
                let sum: f32 = (0..12).map(|_| rng.unit()).sum();
                deviation * (sum - 6.0)
            })),
        }
    }
    table.values = rows;
    table.shape = vec![tokenizer.vocab_size(), width];
    Ok(weights)
}

/// Questions and answers of label scenes, for the tokenizer.
pub fn label_texts(scenes: u64) -> Vec<String> {
    let mut texts = Vec::new();
    for kind in &KINDS {
        let synonyms = kind.synonyms.iter().flat_map(|&(one, many)| [one, many]);
        for word in [kind.name, kind.plural].into_iter().chain(synonyms) {
            // Frequent enough that every word becomes one token.
            for _ in 0..40 {
                texts.extend([word.to_owned(), format!(" {word}")]);
            }
        }
    }
    for group in &GROUPS {
        texts.extend([group.name.to_owned(), format!(" {}", group.plural)]);
    }
    for seed in 0..scenes {
        let mut rng = Rng::new(seed, TRAINING_STREAM);
        let scene = LabelScene::draw(12, &mut rng);
        for task in LabelTask::ALL {
            if let Some(dialogue) = label_dialogue(&scene, task, &mut rng) {
                texts.extend([format!("\n{}", dialogue.question), dialogue.answer]);
            }
        }
    }
    texts
}

/// The weights of a run, in `initializer`, as the checkpoint of mini's decoder: the class embeddings are
/// those of [`class_embeddings`].
///
/// # Errors
/// A tensor has another shape.
pub fn bake(initializer: &Initializer, tokenizer: &Tokenizer) -> Result<Weights, Fault> {
    let device = Device::flex();
    let config = mini_decoder(tokenizer.vocab_size());
    let trainee = LabelTrainee::load(&Loader::new(initializer, &device), &config)?;
    let shape = [KINDS.len(), tokenizer.vocab_size()];
    let words = Tensor::from_data(TensorData::new(name_weights(tokenizer), shape), &device);
    let difference = trainee.objects.names.weight.as_tensor();
    let names = class_embeddings(&trainee.llm, difference, words);
    let mut weights = Weights::of_module(&trainee, initializer);
    let stored = weights.tensors.get_mut("mm_object_projector.names.weight");
    let stored = stored.expect("the projector has name embeddings");
    stored.values = names.into_data().try_to_vec::<f32>().expect("f32 weights");
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;
    use crate::model::nanodet::COCO_CLASSES;
    use crate::train::TrainStage;

    fn tokenizer() -> Tokenizer {
        crate::train::mini_tokenizer().expect("mini's tokenizer")
    }

    #[test]
    fn kinds_are_the_classes_of_the_detector() {
        assert_eq!(KINDS.map(|kind| kind.name), COCO_CLASSES);
    }

    #[test]
    fn class_embeddings_are_means_of_their_words() {
        let tokenizer = tokenizer();
        let weights = name_weights(&tokenizer);
        let vocab = tokenizer.vocab_size();
        for (kind, row) in KINDS.iter().zip(weights.chunks(vocab)) {
            let sum: f32 = row.iter().sum();
            assert!((sum - NAME_GAIN).abs() < 1e-4, "{} {sum}", kind.name);
            for form in [kind.name.to_owned(), format!(" {}", kind.plural)] {
                for id in tokens(&form, &tokenizer) {
                    assert!(row[id as usize] > 0.0, "{form}");
                }
            }
        }
    }

    #[test]
    fn dialogues_continue_the_prompt_that_the_engine_builds() {
        let builder = BatchBuilder {
            tokenizer: tokenizer(),
            seed: 5,
        };
        for number in 0..20 {
            let mut rng = Rng::new(number, TRAINING_STREAM);
            let scene = LabelScene::draw(if number == 0 { 1 } else { 12 }, &mut rng);
            let example = builder.example(&scene, &mut rng);
            assert!(!example.dialogues.is_empty());
            for dialogue in &example.dialogues {
                let question = &dialogue.ids[..dialogue.answer_start];
                let text = builder.tokenizer.decode(question);
                let (question_text, _) = text
                    .split_once("<|im_end|>")
                    .unwrap_or_else(|| panic!("the end of the turn: {text}"));
                let prompt = builder.prompt(scene.objects.len(), question_text.trim_start());
                let whole: Vec<i64> = example
                    .prefix
                    .iter()
                    .copied()
                    .chain(question.iter().map(|&id| i64::from(id)))
                    .collect();
                assert_eq!(whole, prompt, "{question_text}");
            }
        }
    }

    #[test]
    fn new_tokens_get_embeddings_and_known_tokens_keep_theirs() {
        let tokenizer = tokenizer();
        let folder = Path::new("assets/models/nano");
        let weights = initial_weights(folder, &tokenizer, 1).expect("nano's decoder");
        let old = Weights::read(&folder.join("decoder.safetensors")).expect("nano's decoder");
        let name = "model.embed_tokens.weight";
        let (table, nano) = (&weights.tensors[name], &old.tensors[name]);
        let width = nano.shape[1];
        assert_eq!(table.shape, [tokenizer.vocab_size(), width]);
        let row = |table: &crate::train::checkpoint::CpuTensor, id: u32| {
            table.values[id as usize * width..][..width].to_vec()
        };
        let known = tokenizer.id("<obj7>").expect("a tag");
        let nano_tokenizer = crate::train::nano_tokenizer().expect("nano's tokenizer");
        let nano_id = nano_tokenizer.id("<obj7>").expect("a tag");
        assert_eq!(row(table, known), row(nano, nano_id));
        let new = tokenizer.id("refrigerator").expect("a word");
        assert!(nano_tokenizer.id("refrigerator").is_err());
        assert!(row(table, new).iter().all(|value| value.is_finite()));
        assert!(row(table, new).iter().any(|value| value.abs() > 1e-3));
    }

    #[test]
    fn a_resumed_run_equals_an_uninterrupted_one_and_becomes_a_checkpoint() {
        let root = tempfile::tempdir().expect("a folder");
        let train = |name: &str, steps, resume| {
            let out = root.path().join(name);
            std::fs::create_dir_all(&out).expect("a folder");
            let options = TrainOptions {
                stage: TrainStage::Labels,
                from: None,
                towers: None,
                upn: None,
                out: out.clone(),
                minutes: 0.0,
                steps: Some(steps),
                seed: 4,
                device: DevicePreference::Cpu,
                resume,
            };
            run(&options, tokenizer(), Weights::default()).expect("a run");
            Weights::read(&out.join("weights.safetensors")).expect("weights")
        };
        let whole = train("whole", 2, false);
        train("resumed", 1, false);
        assert_eq!(whole, train("resumed", 2, true));
        let names = "mm_object_projector.names.weight";
        let baked = bake(&Initializer::new(whole.clone(), 0), &tokenizer()).expect("a checkpoint");
        assert_eq!(baked.tensors.len(), whole.tensors.len());
        assert_eq!(baked.tensors[names].shape, whole.tensors[names].shape);
        assert_ne!(baked.tensors[names], whole.tensors[names]);
    }
}
