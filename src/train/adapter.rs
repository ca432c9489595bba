//! The `adapter` stage: low-rank changes of a published language model, embeddings of new tokens and an
//! object projector, on label scenes (`docs/reference/training.md` section 7). The language model itself
//! stays as it is.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};

use crate::error::{Fault, FaultKind};
use crate::model::adapter::{ADDED_EMBEDDINGS, LoraConfig, lora_names};
use crate::model::class_projector::{ClassProjector, ClassProjectorConfig};
use crate::model::config::{ModelConfig, OBJECT_PROJECTOR};
use crate::model::decoder::{Decoder, DecoderConfig, EMBEDDINGS};
use crate::nn::weight::parameter_id;
use crate::nn::{Init, Loader, Weight};
use crate::scenes::labels::{KINDS, LabelTask};
use crate::text::prompt::{ChatTemplate, MAX_BOXES, index_tag};
use crate::text::tokenizer::Tokenizer;
use crate::train::TrainOptions;
use crate::train::chats;
use crate::train::checkpoint::{CpuTensor, Initializer, Weights, set_trainable, write_atomically};
use crate::train::label_batches::BatchBuilder;
use crate::train::label_trainer::{LabelModel, LabelSettings, LabelTrainer};
use crate::train::labels::{extreme_weights, name_weights, word_embeddings};
use crate::train::packing::tokens;
use crate::train::{open_data, training_device};
use crate::weights::manifest::{MANIFEST, Manifest};

const SETTINGS: LabelSettings = LabelSettings {
    peak: 1e-3,
    hold: 0.6,
    warmup: 20,
    validation_interval: 900.0,
    validation_scenes: 12,
};

/// The token whose embedding `<obj0>` begins with: one of the more frequent ones, but not of the control
/// tokens and letters.
const OWN_TOKEN: usize = 1000;
/// Distance of the tokens of neighbouring indices.
const OWN_TOKEN_STEP: usize = 61;

/// Sampling weights of the tasks.
const TASKS: &[(LabelTask, usize)] = &[
    (LabelTask::DetectOne, 12),
    (LabelTask::DetectSeveral, 12),
    (LabelTask::DetectAbsent, 6),
    (LabelTask::Name, 8),
    (LabelTask::Count, 10),
    (LabelTask::Exists, 10),
    (LabelTask::Refer, 16),
    (LabelTask::Where, 4),
    (LabelTask::Caption, 8),
    (LabelTask::Total, 1),
    (LabelTask::Cannot, 2),
    (LabelTask::UnknownNoun, 2),
    (LabelTask::Chat, 4),
];

/// The low-rank changes of a run, in its output folder.
pub const LORA: &str = "lora.json";

/// Checks that `base` has the matrices that `lora` changes.
///
/// # Errors
/// A rank of 0, a scale that is not finite, or a target that `base` lacks.
fn check_lora(lora: &LoraConfig, base: &Base) -> Result<(), Fault> {
    let refused = |place: &str, what: String| {
        let advice = "Name matrices of the blocks, for example q,k,v,o,gate,up,down";
        Fault::new(FaultKind::Question, place, what, advice)
    };
    if lora.rank == 0 || !lora.scale.is_finite() {
        let what = format!("rank {} and scale {} change nothing", lora.rank, lora.scale);
        return Err(refused("--lora-rank", what));
    }
    if lora.targets.is_empty() {
        return Err(refused("--lora-targets", "names no matrix".into()));
    }
    for target in &lora.targets {
        let name = format!("model.layers.0.{target}.weight");
        let matrix = base.weights.tensors.get(&name);
        let Some([outputs, inputs]) = matrix.map(|tensor| &tensor.shape[..]) else {
            let what = format!("names {target}, which is no matrix of the language model");
            return Err(refused("--lora-targets", what));
        };
        if lora.rank > *outputs.min(inputs) {
            let what = format!(
                "is {}, and {target} has {outputs} x {inputs} weights",
                lora.rank
            );
            return Err(refused("--lora-rank", what));
        }
    }
    Ok(())
}

/// The low-rank changes of the adapter of small.
pub fn lora_config() -> LoraConfig {
    LoraConfig {
        rank: 16,
        scale: 2.0,
        targets: ["q", "k", "v", "o"]
            .map(|name| format!("self_attn.{name}_proj"))
            .to_vec(),
    }
}

/// A language model that an adapter changes.
pub struct Base {
    /// Its weights.
    pub weights: Weights,
    /// Its sizes.
    pub config: DecoderConfig,
    /// Its template.
    pub template: ChatTemplate,
}

impl Base {
    /// Reads the model folder `folder` of the family `decoder` with f32 weights, and its tokenizer with the
    /// tags of the answer grammar.
    ///
    /// # Errors
    /// A file is missing or damaged, or the embeddings are not tied.
    pub fn read(folder: &Path) -> Result<(Self, Tokenizer), Fault> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| Fault::file(&path, error))
        };
        let place = folder.join(MANIFEST).display().to_string();
        let manifest = Manifest::parse(&read(MANIFEST)?, &place)?;
        let config = ModelConfig::of(&manifest, &place)?;
        if !config.llm.tie_word_embeddings {
            return Err(Fault::model(
                place,
                "has an LM head beside its embeddings, which the adapter cannot extend",
            ));
        }
        let mut weights = Weights::default();
        for shard in &manifest.shards {
            let path = folder.join(&shard.name);
            weights.tensors.extend(Weights::read(&path)?.tensors);
        }
        join_row_blocks(&mut weights);
        let json = read(&manifest.tokenizer.name)?;
        let place = folder.join(&manifest.tokenizer.name).display().to_string();
        let tokenizer = Tokenizer::from_json(&json, &place, config.bos.as_deref())?;
        let base = Self {
            weights,
            config: config.llm,
            template: config.template,
        };
        Ok((base, tokenizer))
    }

    /// The language model on `device`, without gradients.
    ///
    /// # Errors
    /// A tensor is missing or misshapen.
    pub fn decoder(&self, device: &Device) -> Result<Decoder, Fault> {
        let initializer = Initializer::new(self.weights.clone(), 0);
        let decoder = Decoder::load(&Loader::new(&initializer, device), &self.config)?;
        let names = initializer.names();
        match names
            .values()
            .find(|name| !self.weights.tensors.contains_key(*name))
        {
            Some(missing) => Err(Fault::model(missing, "is missing")),
            None => Ok(set_trainable(decoder, &initializer, |_| false)),
        }
    }
}

/// Joins the row blocks `NAME.rows.0`, `NAME.rows.1` and so on to `NAME`.
fn join_row_blocks(weights: &mut Weights) {
    let names = weights.tensors.keys().filter_map(|name| {
        let (stem, block) = name.rsplit_once(".rows.")?;
        Some((stem.to_owned(), block.parse::<usize>().ok()?))
    });
    let mut blocks: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (stem, block) in names {
        blocks.entry(stem).or_default().push(block);
    }
    for (stem, mut numbers) in blocks {
        numbers.sort_unstable();
        let mut whole = CpuTensor::default();
        for number in numbers {
            let block = weights.tensors.remove(&format!("{stem}.rows.{number}"));
            let block = block.expect("listed above");
            if whole.shape.is_empty() {
                whole = block;
            } else {
                whole.shape[0] += block.shape[0];
                whole.values.extend(block.values);
            }
        }
        weights.tensors.insert(stem, whole);
    }
}

/// `A` and `B` of one matrix.
#[derive(Module, Debug)]
struct LoraPair {
    /// `[rank, in]`.
    a: Param<Tensor<2>>,
    /// `[out, rank]`.
    b: Param<Tensor<2>>,
}

/// The trained parameters, with the frozen language model.
#[derive(Module, Debug)]
pub struct AdapterTrainee {
    lora: Vec<LoraPair>,
    added: Param<Tensor<2>>,
    /// The object projector.
    pub objects: ClassProjector,
    #[module(skip)]
    base: Arc<Decoder>,
    /// Index in `lora` by the id of the changed matrix.
    #[module(skip)]
    places: Arc<HashMap<u64, usize>>,
    #[module(skip)]
    scale: f64,
}

impl AdapterTrainee {
    /// Reads the parameters of the adapter `lora` of `base`. New ones change nothing: `B` is 0. Embeddings
    /// of new tokens and of class names begin as means of embeddings of words.
    ///
    /// # Errors
    /// A misshapen tensor, or a target that `base` lacks.
    pub fn load(
        at: &Loader,
        lora: &LoraConfig,
        base: &Base,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Fault> {
        let names = lora.weights(base.config.num_hidden_layers);
        let pair = |name: &String| {
            let matrix = base.weights.tensors.get(name);
            let Some([outputs, inputs]) = matrix.map(|tensor| &tensor.shape[..]) else {
                return Err(Fault::model(name, "is no matrix of the language model"));
            };
            let [a, b] = lora_names(name);
            let deviation = (*inputs as f32).sqrt().recip();
            Ok(LoraPair {
                a: at.parameter(a, [lora.rank, *inputs], Init::Normal(deviation))?,
                b: at.parameter(b, [*outputs, lora.rank], Init::Zeros)?,
            })
        };
        let width = base.config.hidden_size;
        let places = names.iter().enumerate();
        let objects = at.child(OBJECT_PROJECTOR);
        let mut projector =
            ClassProjector::load(&objects, &ClassProjectorConfig::SMALL, KINDS.len(), width)?;
        let table = &base.weights.tensors[EMBEDDINGS].values;
        let embeddings = |name: &str, weights: Vec<f32>| {
            let values = word_embeddings(table, width, &weights, tokenizer);
            let shape = [width, values.len() / width];
            let at = objects.child(name);
            Ok::<_, Fault>(Weight::Dense(at.parameter(
                "weight",
                shape,
                Init::Values(values),
            )?))
        };
        projector.names.weight = embeddings("names", name_weights(tokenizer))?;
        if let Some(extremes) = &mut projector.extremes {
            extremes.weight = embeddings("extremes", extreme_weights(tokenizer))?;
        }
        let tags = tag_embeddings(base, tokenizer);
        if let Some(indices) = &mut projector.indices {
            let ids = (0..MAX_BOXES as u32).map(|index| tokenizer.id(&index_tag(index)));
            let ids: Vec<u32> = ids.collect::<Result<_, _>>()?;
            let all = [table.as_slice(), &tags].concat();
            let values = (0..width)
                .flat_map(|unit| ids.iter().map(move |&id| id as usize * width + unit))
                .map(|place| all[place])
                .collect();
            let at = objects.child("indices");
            let shape = [width, MAX_BOXES];
            indices.weight = Weight::Dense(at.parameter("weight", shape, Init::Values(values))?);
        }
        Ok(Self {
            lora: names.iter().map(pair).collect::<Result<_, _>>()?,
            added: at.parameter(
                ADDED_EMBEDDINGS,
                [tokenizer.vocab_size() - base.config.vocab_size, width],
                Init::Values(tags),
            )?,
            objects: projector,
            base: Arc::new(base.decoder(at.device())?),
            places: Arc::new(
                places
                    .map(|(index, name)| (parameter_id(name).val(), index))
                    .collect(),
            ),
            scale: f64::from(lora.scale),
        })
    }
}

impl AdapterTrainee {
    /// The language model with the changes and the new tokens.
    pub fn changed(&self) -> Decoder {
        let decoder = (*self.base).clone().map(&mut Merger(self));
        let (published, added) = (decoder.embed_tokens.as_tensor(), self.added.val());
        let vocabulary = published.dims()[0] + added.dims()[0];
        decoder.with_embeddings(Weight::sharded(vec![published, added]), vocabulary)
    }
}

impl LabelModel for AdapterTrainee {
    fn decoder(&self) -> Decoder {
        self.changed()
    }

    fn objects(&self, scores: Tensor<3>, positions: Tensor<3>) -> Tensor<3> {
        self.objects.forward(scores, positions)
    }

    fn for_validation(&self) -> Self {
        self.clone()
    }
}

/// Replaces each changed matrix `W` by `W + scale B A`.
struct Merger<'a>(&'a AdapterTrainee);

impl ModuleMapper for Merger<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trainee = self.0;
        let Some(&place) = trainee.places.get(&param.id.val()) else {
            return param;
        };
        let LoraPair { a, b } = &trainee.lora[place];
        let change = b.val().matmul(a.val()) * trainee.scale;
        param.map(|weight| {
            let shape = weight.dims();
            weight + change.reshape(shape)
        })
    }
}

/// The mean embedding `[D]` of the tokens of `text`.
fn mean_embedding(base: &Base, tokenizer: &Tokenizer, text: &str) -> Vec<f32> {
    let width = base.config.hidden_size;
    let table = &base.weights.tensors[EMBEDDINGS].values;
    let ids = tokens(text, tokenizer);
    let mut mean = vec![0.0; width];
    for id in &ids {
        let row = &table[*id as usize * width..][..width];
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += value / ids.len() as f32;
        }
    }
    mean
}

/// The initial embeddings of the new tokens, `[n, D]` row-major: those of the words that they stand for.
/// Digits alone would give `<obj12>` and `<obj21>` the same embedding, so each index also gets that of a
/// token of its own.
fn tag_embeddings(base: &Base, tokenizer: &Tokenizer) -> Vec<f32> {
    let width = base.config.hidden_size;
    let vocab = base.config.vocab_size;
    let table = &base.weights.tensors[EMBEDDINGS].values;
    let tags = (vocab..tokenizer.vocab_size()).map(|id| {
        let tag = tokenizer.token(id as u32).unwrap_or_default();
        let words = match tag.trim_matches(['<', '>']) {
            "ground" => " the".to_owned(),
            "/ground" => " at".to_owned(),
            "objects" => " (".to_owned(),
            "/objects" => ")".to_owned(),
            index => {
                let digits = index.trim_start_matches("obj");
                let mut embedding = mean_embedding(base, tokenizer, &format!(" {digits}"));
                let index: usize = digits.parse().unwrap_or_default();
                let own = (OWN_TOKEN + index * OWN_TOKEN_STEP) % vocab;
                for (value, own) in embedding.iter_mut().zip(&table[own * width..]) {
                    *value = 0.5 * *value + 0.8 * own;
                }
                return embedding;
            }
        };
        mean_embedding(base, tokenizer, &words)
    });
    tags.flatten().collect()
}

/// Runs the stage: an adapter of `base`.
///
/// # Errors
/// A file cannot be read or written, or weights have other shapes.
pub fn run(
    options: &TrainOptions,
    base: Base,
    tokenizer: Tokenizer,
    weights: Weights,
) -> Result<(), Fault> {
    let device = training_device(options.device)?;
    let chats = match &options.chats {
        Some(path) => chats::read(path)?,
        None => Vec::new(),
    };
    let lora = options.lora.clone().unwrap_or_else(lora_config);
    check_lora(&lora, &base)?;
    let text = serde_json::to_vec_pretty(&lora).expect("plain data");
    write_atomically(&options.out.join(LORA), &text)?;
    let load = |initializer: &Initializer, tokenizer: &Tokenizer| {
        AdapterTrainee::load(&Loader::new(initializer, &device), &lora, &base, tokenizer)
    };
    let builder = BatchBuilder {
        tokenizer,
        template: base.template.clone(),
        seed: 0,
        scenes: 4,
        dialogue_tokens: 200,
        validation_boxes: 24,
        tasks: TASKS,
        chats,
        data: open_data(options)?,
    };
    let (trainer, trainee) =
        LabelTrainer::start(options, SETTINGS, &device, weights, builder, load)?;
    drop(base);
    trainer.run(trainee)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LORA_RANK: usize = 2;

    /// A random language model of two blocks with mini's tokenizer cut by the tags.
    fn base() -> (Base, Tokenizer) {
        let tokenizer = crate::train::mini_tokenizer().expect("mini's tokenizer");
        let config = DecoderConfig {
            hidden_size: 12,
            intermediate_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            num_key_value_heads: 1,
            head_dim: Some(4),
            ..crate::train::labels::mini_decoder(tokenizer.vocab_size() - 4)
        };
        let device = Device::flex();
        let initializer = Initializer::new(Weights::default(), 3);
        let decoder = Decoder::load(&Loader::new(&initializer, &device), &config).expect("random");
        let base = Base {
            weights: Weights::of_module(&decoder, &initializer),
            config,
            template: ChatTemplate::qwen(),
        };
        (base, tokenizer)
    }

    fn lora() -> LoraConfig {
        LoraConfig {
            rank: LORA_RANK,
            ..lora_config()
        }
    }

    fn trainee(weights: Weights, base: &Base, tokenizer: &Tokenizer) -> (AdapterTrainee, Weights) {
        let initializer = Initializer::new(weights, 1);
        let device = Device::flex();
        let at = Loader::new(&initializer, &device);
        let trainee = AdapterTrainee::load(&at, &lora(), base, tokenizer).expect("an adapter");
        let weights = Weights::of_module(&trainee, &initializer);
        (trainee, weights)
    }

    #[test]
    fn a_new_adapter_changes_nothing_and_a_trained_one_adds_scaled_products() {
        let (base, tokenizer) = base();
        let (new, mut weights) = trainee(Weights::default(), &base, &tokenizer);
        let values = |decoder: &Decoder, name: &str| {
            let initializer = Initializer::new(base.weights.clone(), 0);
            Decoder::load(&Loader::new(&initializer, &Device::flex()), &base.config)
                .expect("the names of the decoder");
            let mut tensors = Weights::of_module(decoder, &initializer).tensors;
            tensors
                .remove(name)
                .expect("a parameter of the decoder")
                .values
        };
        let name = "model.layers.1.self_attn.v_proj.weight";
        let original = &base.weights.tensors[name].values;
        assert_eq!(&values(&new.decoder(), name), original);
        let [a, b] = lora_names(name);
        let b_values = &mut weights.tensors.get_mut(&b).expect("B").values;
        b_values[0] = 0.5;
        let a_row = weights.tensors[&a].values[..base.config.hidden_size].to_vec();
        let (trained, weights) = trainee(weights, &base, &tokenizer);
        let merged = values(&trained.decoder(), name);
        for (column, value) in merged.iter().enumerate() {
            let change = match a_row.get(column) {
                Some(a) => lora().scale * 0.5 * a,
                None => 0.0,
            };
            assert!((value - original[column] - change).abs() < 1e-6, "{column}");
        }
        let mlp = "model.layers.1.mlp.up_proj.weight";
        assert_eq!(
            values(&trained.decoder(), mlp),
            base.weights.tensors[mlp].values
        );
        let last = tokenizer.vocab_size() as u32 - 1;
        let embedding = trained.decoder().embed(&[last]);
        let values = embedding.into_data().try_to_vec::<f32>().expect("f32");
        let added = &weights.tensors[ADDED_EMBEDDINGS].values;
        assert_eq!(values, added[added.len() - 12..]);
    }

    #[test]
    fn only_the_adapter_is_trained() {
        let (base, tokenizer) = base();
        let device = Device::flex().autodiff();
        let initializer = Initializer::new(Weights::default(), 1);
        let at = Loader::new(&initializer, &device);
        let trainee = AdapterTrainee::load(&at, &lora(), &base, &tokenizer).expect("an adapter");
        let names: Vec<String> = initializer.names().into_values().collect();
        assert!(names.iter().all(|name| {
            name.contains(".lora_")
                || name == ADDED_EMBEDDINGS
                || name.starts_with(OBJECT_PROJECTOR)
        }));
        let decoder = trainee.decoder();
        let last = tokenizer.vocab_size() as u32 - 1;
        let frozen = crate::train::optimizer::gradients(
            &trainee,
            &initializer,
            decoder
                .logits(decoder.embed(&[0, 1, last]))
                .sum()
                .backward(),
        );
        assert!(
            frozen.keys().all(|name| names.contains(name)),
            "{:?}",
            frozen.keys()
        );
        assert!(frozen.contains_key(ADDED_EMBEDDINGS));
    }

    #[test]
    fn changes_of_matrices_that_are_not_there_are_refused() {
        let (base, _) = base();
        let with = |rank, scale, targets: &[&str]| {
            let targets = targets.iter().map(|target| (*target).to_owned()).collect();
            check_lora(
                &LoraConfig {
                    rank,
                    scale,
                    targets,
                },
                &base,
            )
        };
        assert_eq!(with(4, 2.0, &["self_attn.v_proj", "mlp.up_proj"]), Ok(()));
        for (rank, scale, target, expected) in [
            (0, 2.0, "self_attn.v_proj", "rank 0"),
            (2, f32::NAN, "self_attn.v_proj", "scale NaN"),
            (
                2,
                2.0,
                "self_attn.x_proj",
                "self_attn.x_proj, which is no matrix",
            ),
            (5, 2.0, "self_attn.v_proj", "4 x 12"),
        ] {
            let fault = with(rank, scale, &[target]).expect_err(expected);
            assert!(fault.what.contains(expected), "{fault}");
        }
        assert!(with(2, 2.0, &[]).is_err());
    }

    /// A run on data with other changes than small's, cut and resumed.
    #[test]
    fn a_resumed_run_on_data_equals_an_uninterrupted_one() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("data");
        crate::train::data::tests::write_scenes(&folder, 3);
        let lora = LoraConfig {
            rank: 3,
            scale: 1.5,
            targets: vec!["self_attn.v_proj".into(), "mlp.down_proj".into()],
        };
        let train = |name: &str, steps, resume, lora: &LoraConfig| {
            let out = root.path().join(name);
            std::fs::create_dir_all(&out).expect("a folder");
            let options = TrainOptions {
                stage: crate::train::TrainStage::Adapter,
                from: None,
                towers: None,
                upn: None,
                base: None,
                chats: None,
                data: Some(folder.clone()),
                detector: None,
                lora: Some(lora.clone()),
                out: out.clone(),
                minutes: 0.0,
                steps: Some(steps),
                seed: 9,
                device: crate::device_preference::DevicePreference::Cpu,
                resume,
            };
            let (base, tokenizer) = base();
            run(&options, base, tokenizer, Weights::default())?;
            Weights::read(&out.join("weights.safetensors"))
        };
        let whole = train("whole", 2, false, &lora).expect("a run");
        assert!(
            whole
                .tensors
                .keys()
                .any(|name| name.contains("down_proj.lora_A"))
        );
        assert!(
            !whole
                .tensors
                .keys()
                .any(|name| name.contains("q_proj.lora_A"))
        );
        train("resumed", 1, false, &lora).expect("a run");
        assert_eq!(train("resumed", 2, true, &lora), Ok(whole));
        let other = LoraConfig { scale: 2.0, ..lora };
        let fault = train("resumed", 3, true, &other).expect_err("other changes");
        assert!(fault.what.contains("scale 1.5"), "{fault}");
    }

    #[test]
    fn row_blocks_are_joined_in_their_order() {
        let block = |value: f32, rows: usize| CpuTensor {
            shape: vec![rows, 2],
            values: vec![value; rows * 2],
        };
        let mut weights = Weights::default();
        for (number, rows) in [(0, 1), (2, 1), (10, 2), (1, 3)] {
            let name = format!("a.weight.rows.{number}");
            weights.tensors.insert(name, block(number as f32, rows));
        }
        join_row_blocks(&mut weights);
        let whole = &weights.tensors["a.weight"];
        assert_eq!((weights.tensors.len(), &whole.shape), (1, &vec![7, 2]));
        assert_eq!(whole.values[..4], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(whole.values[12..], [10.0, 10.0]);
    }

    #[test]
    fn a_folder_without_a_language_model_is_refused() {
        let fault = Base::read(Path::new("assets/models/none")).map(|_| ());
        assert!(
            fault
                .expect_err("no folder")
                .to_string()
                .contains("model.json")
        );
        let (base, tokenizer) = base();
        let mut lacking = Weights::default();
        let kept = base.weights.tensors.iter();
        let kept = kept.filter(|(name, _)| !name.ends_with("layers.1.self_attn.q_proj.weight"));
        lacking
            .tensors
            .extend(kept.map(|(name, tensor)| (name.clone(), tensor.clone())));
        let lacking = Base {
            weights: lacking,
            ..base
        };
        let initializer = Initializer::new(Weights::default(), 1);
        let device = Device::flex();
        let at = Loader::new(&initializer, &device);
        let fault = AdapterTrainee::load(&at, &lora(), &lacking, &tokenizer).map(|_| ());
        let fault = fault.expect_err("a matrix is missing").to_string();
        assert!(
            fault.contains("model.layers.1.self_attn.q_proj.weight"),
            "{fault}"
        );
    }
}
