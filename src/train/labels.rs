//! The `labels` stage: decoder and object projector of mini on label scenes
//! (`docs/reference/training.md` section 6).
//!
//! The embedding of a class is the mean embedding of its words plus a trained difference, so looking up a
//! kind among boxes is a comparison of equal vectors from the first step.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::Fault;
use crate::model::class_projector::{ClassProjector, ClassProjectorConfig};
use crate::model::decoder::{Decoder, DecoderConfig};
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
use crate::train::training_device;

/// Sum of the weights of a class's word embeddings. The mean of four forms is shorter than a word.
const NAME_GAIN: f32 = 2.0;

/// [`Rng`] stream of the embeddings of new tokens.
const EMBEDDING_STREAM: u64 = 203;

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
}

impl LabelTrainee {
    /// Reads decoder and projector under the names of the checkpoint.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, tokenizer: &Tokenizer) -> Result<Self, Fault> {
        let config = &mini_decoder(tokenizer.vocab_size());
        let shape = [KINDS.len(), tokenizer.vocab_size()];
        let data = TensorData::new(name_weights(tokenizer), shape);
        Ok(Self {
            name_weights: Tensor::from_data(data, &at.device().clone().inner()),
            llm: Decoder::load(at, config)?,
            objects: ClassProjector::load(
                &at.child("mm_object_projector"),
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
        shares.matmul(names.transpose().unsqueeze()) + self.objects.position(positions)
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
    let builder = batch_builder(tokenizer);
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
    }
}

/// Weights `[K, V]` of token embeddings whose sum is the embedding of a class: the mean over the
/// tokens of a form, over the forms singular and plural, each with and without a space before it.
pub(super) fn name_weights(tokenizer: &Tokenizer) -> Vec<f32> {
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
/// those of [`LabelTrainee::class_embeddings`].
///
/// # Errors
/// A tensor has another shape.
pub fn bake(initializer: &Initializer, tokenizer: &Tokenizer) -> Result<Weights, Fault> {
    let trainee = LabelTrainee::load(&Loader::new(initializer, &Device::flex()), tokenizer)?;
    let names = trainee.class_embeddings();
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
        let builder = batch_builder(tokenizer());
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
                base: None,
                chats: None,
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
