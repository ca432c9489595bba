//! The `labels` stage: decoder and object projector of mini on label scenes
//! (`docs/reference/training.md` section 6).
//!
//! The embedding of a class is the mean embedding of its words plus a trained difference, so looking up a
//! kind among boxes is a comparison of equal vectors from the first step.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::Fault;
use crate::model::class_projector::{
    ClassProjector, ClassProjectorConfig, EXTREME_WORDS, extreme_flags,
};
use crate::model::config::OBJECT_PROJECTOR;
use crate::model::decoder::{Decoder, DecoderConfig, EMBEDDINGS};
use crate::nn::Loader;
use crate::scenes::Rng;
use crate::scenes::labels::{GROUPS, KINDS, LabelScene, LabelTask, label_dialogue};
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::train::TrainOptions;
use crate::train::checkpoint::{Initializer, Weights, set_trainable};
use crate::train::label_batches::{BatchBuilder, TRAINING_STREAM};
use crate::train::label_trainer::{LabelModel, LabelSettings, LabelTrainer};
use crate::train::packing::tokens;
use crate::train::{open_data, training_device};

/// Sum of the weights of a class's word embeddings. The mean of four forms is shorter than a word.
const NAME_GAIN: f32 = 2.0;

/// [`Rng`] stream of the embeddings of new tokens.
const EMBEDDING_STREAM: u64 = 203;

/// The class embeddings: while training, their differences from the embeddings of the words.
const CLASS_EMBEDDINGS: &str = "mm_object_projector.names.weight";

/// The embeddings of superlatives, likewise.
const EXTREME_EMBEDDINGS: &str = "mm_object_projector.extremes.weight";

/// [`Rng`] stream of the embeddings of superlatives.
const SUPERLATIVE_STREAM: u64 = 204;

const SETTINGS: LabelSettings = LabelSettings {
    peak: 1e-3,
    hold: 0.6,
    warmup: 100,
    validation_interval: 240.0,
    validation_scenes: 64,
};

/// Sampling weights of the tasks.
const TASKS: &[(LabelTask, usize)] = &[
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
    (LabelTask::Cannot, 1),
    (LabelTask::OffTopic, 1),
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
    /// [`name_weights`], `[K, V]`.
    #[module(skip)]
    name_weights: Tensor<2>,
    /// [`extreme_weights`], `[6, V]`.
    #[module(skip)]
    extreme_weights: Tensor<2>,
}

impl LabelTrainee {
    /// Reads decoder and projector under the names of the checkpoint.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, tokenizer: &Tokenizer) -> Result<Self, Fault> {
        let config = &mini_decoder(tokenizer.vocab_size());
        let constant = |weights: Vec<f32>| {
            let vocab = tokenizer.vocab_size();
            let shape = [weights.len() / vocab, vocab];
            let data = TensorData::new(weights, shape);
            Tensor::from_data(data, &at.device().clone().inner())
        };
        Ok(Self {
            name_weights: constant(name_weights(tokenizer)),
            extreme_weights: constant(extreme_weights(tokenizer)),
            llm: Decoder::load(at, config)?,
            objects: ClassProjector::load(
                &at.child(OBJECT_PROJECTOR),
                &ClassProjectorConfig::MINI,
                KINDS.len(),
                config.hidden_size,
            )?,
        })
    }

    /// The embeddings of the classes `[D, K]`: those of their words plus the trained differences.
    fn class_embeddings(&self) -> Tensor<2> {
        let words = self
            .name_weights
            .clone()
            .matmul(self.llm.embed_tokens.as_tensor());
        words.transpose() + self.objects.names.weight.as_tensor()
    }
}

impl LabelModel for LabelTrainee {
    fn decoder(&self) -> Decoder {
        self.llm.clone()
    }

    fn objects(&self, scores: Tensor<3>, positions: Tensor<3>) -> Tensor<3> {
        let names = self.class_embeddings();
        let shares = self.objects.shares(scores);
        let table = self.llm.embed_tokens.as_tensor();
        let extremes = self.extreme_weights.clone().matmul(table);
        shares.matmul(names.transpose().unsqueeze())
            + extreme_flags(positions.clone()).matmul(extremes.unsqueeze())
            + self.objects.position(positions)
    }

    fn for_validation(&self) -> Self {
        self.valid()
    }
}

/// Runs the stage with the tokenizer in `tokenizer`.
///
/// # Errors
/// A file cannot be read or written, or weights have other shapes.
pub fn run(options: &TrainOptions, tokenizer: Tokenizer, weights: Weights) -> Result<(), Fault> {
    let device = training_device(options.device)?;
    let load = |initializer: &Initializer, tokenizer: &Tokenizer| {
        let trainee = LabelTrainee::load(&Loader::new(initializer, &device), tokenizer)?;
        Ok(set_trainable(trainee, initializer, |_| true))
    };
    let builder = BatchBuilder {
        data: open_data(options)?,
        ..batch_builder(tokenizer)
    };
    let (trainer, trainee) =
        LabelTrainer::start(options, SETTINGS, &device, weights, builder, load)?;
    trainer.run(trainee)
}

/// The batches of mini.
fn batch_builder(tokenizer: Tokenizer) -> BatchBuilder {
    BatchBuilder {
        tokenizer,
        template: ChatTemplate::qwen(),
        seed: 0,
        scenes: 16,
        dialogue_tokens: 170,
        validation_boxes: 24,
        tasks: TASKS,
        chats: Vec::new(),
        data: None,
    }
}

/// Weights `[K, V]` of token embeddings whose sum is the embedding of a class: the mean over the
/// tokens of a form, over the forms singular and plural, each with and without a space before it.
pub(super) fn name_weights(tokenizer: &Tokenizer) -> Vec<f32> {
    word_weights(KINDS.map(|kind| vec![kind.name, kind.plural]), tokenizer)
}

/// The same of [`EXTREME_WORDS`], `[6, V]`.
pub(super) fn extreme_weights(tokenizer: &Tokenizer) -> Vec<f32> {
    word_weights(EXTREME_WORDS.map(|word| vec![word]), tokenizer)
}

fn word_weights<const K: usize>(words: [Vec<&str>; K], tokenizer: &Tokenizer) -> Vec<f32> {
    let vocab = tokenizer.vocab_size();
    let mut weights = vec![0.0; K * vocab];
    for (words, row) in words.iter().zip(weights.chunks_mut(vocab)) {
        for word in words {
            for form in [(*word).to_owned(), format!(" {word}")] {
                let ids = tokens(&form, tokenizer);
                for id in &ids {
                    row[*id as usize] += NAME_GAIN / (2 * words.len() * ids.len()) as f32;
                }
            }
        }
    }
    weights
}

/// The initial weights of a run for `tokenizer`: those of the run of this stage in `folder`, or of the model
/// folder `folder` with a decoder of the same sizes, and with its projector if it has one. A projector
/// without embeddings of superlatives gets them, see [`redraw_superlatives`].
///
/// # Errors
/// A file is missing or damaged.
pub fn initial_weights(folder: &Path, tokenizer: &Tokenizer, seed: u64) -> Result<Weights, Fault> {
    let own = folder.join("weights.safetensors");
    let mut weights = if own.exists() {
        Weights::read(&own)?
    } else {
        let mut weights = decoder_weights(folder, tokenizer, seed)?;
        let projector = folder.join("projector.safetensors");
        if projector.exists() {
            let mut projector = Weights::read(&projector)?;
            projector
                .tensors
                .retain(|name, _| name.starts_with(OBJECT_PROJECTOR));
            weights.tensors.extend(projector.tensors);
            add_words(&mut weights, tokenizer, -1.0)?;
        }
        weights
    };
    if !weights.tensors.contains_key(EXTREME_EMBEDDINGS) {
        redraw_superlatives(&mut weights, tokenizer, seed);
    }
    Ok(weights)
}

/// Draws the embeddings of the tokens for [`EXTREME_WORDS`] anew, with their old lengths. A decoder that had
/// to compare positions has nearly equal embeddings for these words, so a box that carries one of them would
/// look like a box that carries another.
fn redraw_superlatives(weights: &mut Weights, tokenizer: &Tokenizer, seed: u64) {
    let Some(table) = weights.tensors.get_mut(EMBEDDINGS) else {
        return;
    };
    let width = table.values.len() / tokenizer.vocab_size();
    let mut rng = Rng::new(seed, SUPERLATIVE_STREAM);
    for word in EXTREME_WORDS {
        let [id] = tokens(&format!(" {word}"), tokenizer)[..] else {
            continue;
        };
        let row = &mut table.values[id as usize * width..][..width];
        let length = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
        let old = length(row);
        row.fill_with(|| normal(&mut rng));
        let factor = old / length(row).max(f32::MIN_POSITIVE);
        row.iter_mut().for_each(|value| *value *= factor);
    }
}

/// A nearly normal value with a mean of 0 and a variance of 1: the sum of twelve uniform values.
fn normal(rng: &mut Rng) -> f32 {
    let sum: f32 = (0..12).map(|_| rng.unit()).sum();
    sum - 6.0
}

/// Adds `factor` times the embeddings of the words to those of the projector.
fn add_words(weights: &mut Weights, tokenizer: &Tokenizer, factor: f32) -> Result<(), Fault> {
    for (name, of_words) in [
        (CLASS_EMBEDDINGS, name_weights(tokenizer)),
        (EXTREME_EMBEDDINGS, extreme_weights(tokenizer)),
    ] {
        let table = &weights.tensors[EMBEDDINGS];
        let words = word_embeddings(&table.values, table.shape[1], &of_words, tokenizer);
        let Some(stored) = weights.tensors.get_mut(name) else {
            // A model without these embeddings.
            continue;
        };
        if stored.values.len() != words.len() {
            return Err(Fault::model(name, "has another shape than the words"));
        }
        for (value, word) in stored.values.iter_mut().zip(words) {
            *value += factor * word;
        }
    }
    Ok(())
}

/// The sums of the rows of `table` `[V, D]` with `weights` `[K, V]`, `[D, K]` row-major.
pub(super) fn word_embeddings(
    table: &[f32],
    width: usize,
    weights: &[f32],
    tokenizer: &Tokenizer,
) -> Vec<f32> {
    let vocab = tokenizer.vocab_size();
    let count = weights.len() / vocab;
    let mut embeddings = vec![0.0; width * count];
    for (column, row) in weights.chunks(vocab).enumerate() {
        let words = row.iter().enumerate().filter(|(_, weight)| **weight != 0.0);
        for (id, weight) in words {
            for (unit, value) in table[id * width..][..width].iter().enumerate() {
                embeddings[unit * count + column] += weight * value;
            }
        }
    }
    embeddings
}

/// The decoder weights in the model folder `folder` for `tokenizer`. Embeddings of tokens that its vocabulary
/// lacks are drawn from a normal distribution with the standard deviation of the others.
///
/// # Errors
/// A file is missing or damaged.
fn decoder_weights(folder: &Path, tokenizer: &Tokenizer, seed: u64) -> Result<Weights, Fault> {
    let mut weights = Weights::read(&folder.join("decoder.safetensors"))?;
    weights.tensors.retain(|name, _| name.starts_with("model."));
    let path = folder.join("tokenizer.json");
    let json = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
    let old = Tokenizer::from_json(&json, &path.display().to_string(), None)?;
    let Some(table) = weights.tensors.get_mut(EMBEDDINGS) else {
        return Err(Fault::model(EMBEDDINGS, "is missing"));
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
            None => rows.extend((0..width).map(|_| deviation * normal(&mut rng))),
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

/// The weights of a run, in `initializer`, as the checkpoint of mini's decoder: the embeddings of classes and
/// superlatives are those of the words plus the trained differences.
///
/// # Errors
/// A tensor has another shape.
pub fn bake(initializer: &Initializer, tokenizer: &Tokenizer) -> Result<Weights, Fault> {
    let trainee = LabelTrainee::load(&Loader::new(initializer, &Device::flex()), tokenizer)?;
    let mut weights = Weights::of_module(&trainee, initializer);
    add_words(&mut weights, tokenizer, 1.0)?;
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;
    use crate::model::nanodet::COCO_CLASSES;
    use crate::train::TrainStage;
    use crate::train::checkpoint::Precision;

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
        let builder = batch_builder(tokenizer());
        for number in 0..20 {
            let mut rng = Rng::new(number, TRAINING_STREAM);
            let scene = LabelScene::draw(if number == 0 { 1 } else { 12 }, &mut rng);
            let example = builder.example(&scene, None, &mut rng);
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
        let name = EMBEDDINGS;
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
    fn superlatives_begin_with_embeddings_of_their_own() {
        let tokenizer = tokenizer();
        let folder = Path::new("assets/models/nano");
        let weights = initial_weights(folder, &tokenizer, 1).expect("nano's decoder");
        let table = &weights.tensors[EMBEDDINGS];
        let width = table.shape[1];
        let rows = EXTREME_WORDS.map(|word| {
            let [id] = tokens(&format!(" {word}"), &tokenizer)[..] else {
                panic!("{word} is one token");
            };
            &table.values[id as usize * width..][..width]
        });
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for (at, a) in rows.iter().enumerate() {
            for b in &rows[..at] {
                let cosine = product(a, b) / (product(a, a) * product(b, b)).sqrt();
                assert!(cosine.abs() < 0.5, "{cosine}");
            }
        }
    }

    #[test]
    fn a_model_is_trained_further_from_its_folder() {
        let tokenizer = tokenizer();
        let trained = |seed| {
            let initializer = Initializer::new(Weights::default(), seed);
            let at = Loader::new(&initializer, &Device::flex());
            let trainee = LabelTrainee::load(&at, &tokenizer).expect("random weights");
            Weights::of_module(&trainee, &initializer)
        };
        let mut weights = trained(5);
        let names = weights.tensors.get_mut(CLASS_EMBEDDINGS).expect("names");
        names.values[7] = 0.25;
        let folder = tempfile::tempdir().expect("a folder");
        let baked = bake(&Initializer::new(weights.clone(), 0), &tokenizer).expect("a checkpoint");
        let (mut decoder, mut projector) = (baked.clone(), baked);
        decoder.tensors.retain(|name, _| name.starts_with("model."));
        projector
            .tensors
            .retain(|name, _| name.starts_with(OBJECT_PROJECTOR));
        for (name, part) in [("decoder", decoder), ("projector", projector)] {
            let path = folder.path().join(format!("{name}.safetensors"));
            part.write(&path, Precision::F32).expect("a file");
        }
        std::fs::copy(
            crate::train::MINI_TOKENIZER,
            folder.path().join("tokenizer.json"),
        )
        .expect("a file");
        let read = initial_weights(folder.path(), &tokenizer, 1).expect("initial weights");
        assert_eq!(read.tensors.len(), weights.tensors.len());
        for (name, tensor) in &read.tensors {
            let expected = &weights.tensors[name];
            assert_eq!(tensor.shape, expected.shape, "{name}");
            for (value, expected) in tensor.values.iter().zip(&expected.values) {
                assert!(
                    (value - expected).abs() < 1e-5,
                    "{name}: {value} {expected}"
                );
            }
        }
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
                base: None,
                chats: None,
                data: None,
                detector: None,
                lora: None,
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
        let names = CLASS_EMBEDDINGS;
        let baked = bake(&Initializer::new(whole.clone(), 0), &tokenizer()).expect("a checkpoint");
        assert_eq!(baked.tensors.len(), whole.tensors.len());
        assert_eq!(baked.tensors[names].shape, whole.tensors[names].shape);
        assert_ne!(baked.tensors[names], whole.tensors[names]);
    }
}
