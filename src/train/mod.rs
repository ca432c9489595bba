//! Training of nano (`data-engine.md` section 2): UPN, the towers' warm-up, then the decoder's
//! stages, each from random or earlier weights, each resumable to the bit.
//!
//! A stage keeps everything it needs in `OUT/state.safetensors` (weights, optimiser moments, step,
//! curriculum) and writes beside it `metrics.jsonl`, `curve.svg` and `weights.safetensors` (f16,
//! the weights alone). All randomness is drawn from the seed and the step number.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::error::{Fault, FaultKind};
use crate::model::chatrex::ChatRexConfig;
use crate::protocol::DevicePreference;
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::Weights;

pub mod checkpoint;
pub mod data_loader;
pub mod detections;
pub mod export;
pub mod metrics;
pub mod optimizer;
pub mod packing;
pub mod regions;
pub mod schedule;
pub mod stages;
pub mod tokenizer;
pub mod towers;
pub mod upn;
pub mod upn_loss;
pub mod upn_measure;
pub mod upn_scenes;

/// The stages, in the order they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// The tokenizer: `OUT/tokenizer.json`.
    Tokenizer,
    /// The proposal network alone.
    Upn,
    /// Both towers and the object projector, by classifying regions.
    Towers,
    /// Decoder, projectors and embeddings on frozen towers: naming and finding.
    Align,
    /// The same on all tasks.
    Perceive,
    /// The towers too, on all tasks.
    Instruct,
}

impl Stage {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Upn => "upn",
            Self::Towers => "towers",
            Self::Align => "align",
            Self::Perceive => "perceive",
            Self::Instruct => "instruct",
        }
    }
}

/// What to train, from what, for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stage.
    pub stage: Stage,
    /// A folder with `weights.safetensors` or shipped weights to start from; parameters that it
    /// lacks start at random.
    pub from: Option<PathBuf>,
    /// A folder of the warm-up, trained on since: its towers replace those of `from`.
    pub towers: Option<PathBuf>,
    /// A folder with the trained proposal network: the decoder's stages take the boxes of most
    /// scenes from it, once there are enough of them.
    pub upn: Option<PathBuf>,
    /// Where state, weights and metrics go.
    pub out: PathBuf,
    /// Wall-clock budget; the learning rate falls towards its end.
    pub minutes: f64,
    /// Ends after this many steps instead; the run is then reproducible to the bit.
    pub steps: Option<u64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Where to compute; `Auto` means the processor here.
    pub device: DevicePreference,
    /// Continue from `OUT/state.safetensors`.
    pub resume: bool,
}

/// Runs one stage.
///
/// # Errors
/// Files that cannot be read or written, weights of another shape, no adapter.
pub fn run(options: &Options) -> Result<(), Fault> {
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    match options.stage {
        Stage::Tokenizer => tokenizer::write(&options.out.join("tokenizer.json")),
        Stage::Upn => upn::run(options),
        stage => {
            let config = ChatRexConfig::nano(nano_tokenizer()?.vocab_size());
            let mut weights = match &options.from {
                Some(folder) => Weights::read(&weights_in(folder, CHATREX))?,
                None => Weights::default(),
            };
            if let Some(folder) = &options.towers {
                let mut towers = Weights::read(&weights_in(folder, CHATREX))?;
                towers
                    .tensors
                    .retain(|name, _| name.starts_with("vision_tower"));
                weights.tensors.extend(towers.tensors);
            }
            match stage {
                Stage::Towers => towers::run(options, &config, weights),
                _ => stages::run(options, &config, weights),
            }
        }
    }
}

const CHATREX: &str = "model.safetensors";

/// Where nano's tokenizer lies, from the root of the repository.
pub const NANO_TOKENIZER: &str = "assets/models/nano/tokenizer.json";

/// Nano's tokenizer.
///
/// # Errors
/// It is not there or damaged.
pub fn nano_tokenizer() -> Result<Tokenizer, Fault> {
    let bytes = std::fs::read(NANO_TOKENIZER).map_err(|error| {
        Fault::new(
            FaultKind::File,
            NANO_TOKENIZER,
            error.to_string(),
            "Run from the root of the repository",
        )
    })?;
    Tokenizer::from_json(&bytes, NANO_TOKENIZER, None)
}

/// The weights in `folder`: those of a stage, or else of an exported checkpoint.
fn weights_in(folder: &Path, exported: &str) -> PathBuf {
    let stage = folder.join("weights.safetensors");
    if stage.exists() {
        stage
    } else {
        folder.join(exported)
    }
}

/// The device to train on, gradients enabled.
///
/// # Errors
/// `Wgpu` was asked for and no adapter is there.
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
                        "Train with --device cpu",
                    )
                })
        }
    }
}
