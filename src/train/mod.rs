//! Training (`docs/reference/training.md` sections 4 to 7). Nano: UPN, the towers, then the stages of the
//! decoder. Mini and small: the decoder or an adapter of one on label scenes. Each stage starts from random or earlier weights and resumes bit-exactly.
//!
//! A stage stores its checkpoint in `OUT/state.safetensors` (weights, optimizer moments, step,
//! curriculum), its weights in `weights.safetensors`, and its log in `metrics.jsonl` and `curve.svg`.
//! All random numbers derive from the seed and the step.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::model::adapter::LoraConfig;
use crate::model::chatrex::ChatRexConfig;
use crate::protocol::DevicePreference;
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::Weights;

pub mod accuracy;
pub mod adapter;
pub mod chats;
pub mod checkpoint;
mod data;
pub mod data_loader;
pub mod detections;
pub mod export;
mod label_batches;
mod label_trainer;
pub mod labels;
pub mod metrics;
pub mod optimizer;
pub mod packing;
pub mod regions;
pub mod schedule;
pub mod stages;
mod state;
pub mod tokenizer;
pub mod towers;
pub mod upn;
pub mod upn_data;
pub mod upn_loss;
pub mod upn_metrics;

/// The training stages, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TrainStage {
    /// The tokenizer: `OUT/tokenizer.json`.
    Tokenizer,
    /// The proposal network UPN.
    Upn,
    /// Both vision towers and the object projector, by region classification.
    Towers,
    /// Decoder, projectors and embeddings with frozen towers, on naming and detection.
    Align,
    /// The same parameters on all tasks.
    Perceive,
    /// All parameters on all tasks.
    Instruct,
    /// The tokenizer of mini: `OUT/tokenizer.json`.
    LabelTokenizer,
    /// Decoder and object projector of mini on label scenes.
    Labels,
    /// Answers of the language model of small to everyday questions: `OUT/chats.json`.
    Chats,
    /// The adapter of small on label scenes.
    Adapter,
}

impl TrainStage {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Upn => "upn",
            Self::Towers => "towers",
            Self::Align => "align",
            Self::Perceive => "perceive",
            Self::Instruct => "instruct",
            Self::LabelTokenizer => "label-tokenizer",
            Self::Labels => "labels",
            Self::Chats => "chats",
            Self::Adapter => "adapter",
        }
    }
}

/// Options of a training run.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The stage.
    pub stage: TrainStage,
    /// A folder with `weights.safetensors` or an exported checkpoint to start from. Missing
    /// parameters are initialized at random.
    pub from: Option<PathBuf>,
    /// A folder of the `towers` stage; its towers replace those of `from`.
    pub towers: Option<PathBuf>,
    /// A folder with a trained UPN. The decoder stages use its proposals for most scenes once the
    /// curriculum has reached all scene sizes.
    pub upn: Option<PathBuf>,
    /// The model folder of the language model that an adapter changes, with f32 weights.
    pub base: Option<PathBuf>,
    /// The recorded answers of the stage `chats`, which the stage `adapter` mixes in.
    pub chats: Option<PathBuf>,
    /// A folder of records (`dialogues.jsonl`) and pictures in place of drawn scenes, for the stages `labels`
    /// and `adapter`.
    pub data: Option<PathBuf>,
    /// The model folder whose detector scores the boxes of `data`; by default mini's.
    pub detector: Option<PathBuf>,
    /// The low-rank changes of the stage `adapter`; by default those of small.
    pub lora: Option<LoraConfig>,
    /// Output folder of checkpoint, weights and metrics.
    pub out: PathBuf,
    /// Wall-clock budget in minutes; the learning rate schedule spans it.
    pub minutes: f64,
    /// Number of steps in place of `minutes`; the run is then bit-reproducible.
    pub steps: Option<u64>,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The device; `Auto` selects the CPU.
    pub device: DevicePreference,
    /// Resume from `OUT/state.safetensors`.
    pub resume: bool,
}

/// The user's data of a run, if it has any.
///
/// # Errors
/// Those of [`data::DataSet::open`].
fn open_data(options: &TrainOptions) -> Result<Option<Arc<data::DataSet>>, Fault> {
    let Some(folder) = &options.data else {
        return Ok(None);
    };
    let detector = options.detector.as_deref().unwrap_or(Path::new(MINI));
    let data = data::DataSet::open(folder, detector, &options.out)?;
    Ok(Some(Arc::new(data)))
}

/// Checks that the stage reads what the options name.
fn check(options: &TrainOptions) -> Result<(), Fault> {
    let refused = |option: &str, stages: &str| {
        let what = format!("is not for the stage {}", options.stage.name());
        let advice = format!("Leave it out, or train the {stages}");
        Err(Fault::new(FaultKind::Question, option, what, advice))
    };
    if options.data.is_some() && !matches!(options.stage, TrainStage::Labels | TrainStage::Adapter)
    {
        return refused(
            "--data",
            "stages labels or adapter, whose decoders see boxes and not pixels",
        );
    }
    if options.lora.is_some() && options.stage != TrainStage::Adapter {
        return refused("--lora-rank", "stage adapter");
    }
    Ok(())
}

/// Runs one stage.
///
/// # Errors
/// A file cannot be read or written, weights have other shapes, there is no GPU adapter, or an option is not
/// for the stage.
pub fn run(options: &TrainOptions) -> Result<(), Fault> {
    check(options)?;
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    match options.stage {
        TrainStage::Tokenizer => tokenizer::write(&options.out.join("tokenizer.json")),
        TrainStage::LabelTokenizer => tokenizer::write_labels(&options.out.join("tokenizer.json")),
        TrainStage::Labels => {
            let tokenizer = mini_tokenizer()?;
            let weights = match &options.from {
                Some(folder) => labels::initial_weights(folder, &tokenizer, options.seed)?,
                None => Weights::default(),
            };
            labels::run(options, tokenizer, weights)
        }
        TrainStage::Chats => {
            let (base, tokenizer) = adapter::Base::read(base_folder(options)?)?;
            let decoder = base.decoder(&Device::flex())?;
            chats::record(&decoder, &tokenizer, &base.template, &options.out)
        }
        TrainStage::Adapter => {
            let (base, tokenizer) = adapter::Base::read(base_folder(options)?)?;
            let weights = match &options.from {
                Some(folder) => Weights::read(&folder.join("weights.safetensors"))?,
                None => Weights::default(),
            };
            adapter::run(options, base, tokenizer, weights)
        }
        TrainStage::Upn => upn::run(options),
        stage => {
            let config = ChatRexConfig::nano(nano_tokenizer()?.vocab_size());
            let mut weights = match &options.from {
                Some(folder) => Weights::read(&weights_in(folder, CHATREX_FILE))?,
                None => Weights::default(),
            };
            if let Some(folder) = &options.towers {
                let mut towers = Weights::read(&weights_in(folder, CHATREX_FILE))?;
                towers
                    .tensors
                    .retain(|name, _| name.starts_with("vision_tower"));
                weights.tensors.extend(towers.tensors);
            }
            match stage {
                TrainStage::Towers => towers::run(options, &config, weights),
                _ => stages::run(options, &config, weights),
            }
        }
    }
}

fn base_folder(options: &TrainOptions) -> Result<&Path, Fault> {
    options.base.as_deref().ok_or_else(|| {
        Fault::new(
            FaultKind::File,
            "--base",
            "is missing",
            "Name the model folder of the language model, converted with --quant f32",
        )
    })
}

const CHATREX_FILE: &str = "model.safetensors";

/// Nano's tokenizer, relative to the root of the repository.
pub const NANO_TOKENIZER: &str = "assets/models/nano/tokenizer.json";

/// Mini's model folder, relative to the root of the repository.
pub const MINI: &str = "assets/models/mini";

/// Mini's tokenizer, relative to the root of the repository.
pub const MINI_TOKENIZER: &str = "assets/models/mini/tokenizer.json";

/// Nano's tokenizer.
///
/// # Errors
/// The file is missing or damaged.
pub fn nano_tokenizer() -> Result<Tokenizer, Fault> {
    read_tokenizer(NANO_TOKENIZER)
}

/// Mini's tokenizer.
///
/// # Errors
/// The file is missing or damaged.
pub fn mini_tokenizer() -> Result<Tokenizer, Fault> {
    read_tokenizer(MINI_TOKENIZER)
}

fn read_tokenizer(path: &str) -> Result<Tokenizer, Fault> {
    let bytes = std::fs::read(path).map_err(|error| {
        Fault::new(
            FaultKind::File,
            path,
            error.to_string(),
            "Run from the root of the repository",
        )
        .code(ErrorCode::of_io(error.kind()))
    })?;
    Tokenizer::from_json(&bytes, path, None)
}

/// The weight file in `folder`: that of a stage, else that of an exported checkpoint.
fn weights_in(folder: &Path, exported: &str) -> PathBuf {
    let stage = folder.join("weights.safetensors");
    if stage.exists() {
        stage
    } else {
        folder.join(exported)
    }
}

/// The training device, with autodiff.
///
/// # Errors
/// `Wgpu` is requested and there is no adapter.
pub fn training_device(preference: DevicePreference) -> Result<Device, Fault> {
    match preference {
        DevicePreference::Auto | DevicePreference::Cpu => Ok(Device::flex().autodiff()),
        DevicePreference::Wgpu => {
            Device::wgpu_options()
                .init()
                .map(Device::autodiff)
                .map_err(|error| {
                    Fault::new(
                        FaultKind::Device,
                        "wgpu",
                        error.to_string(),
                        "Use --device cpu",
                    )
                    .code(ErrorCode::NoAdapter)
                })
        }
    }
}
