//! Training of nano (`data-engine.md` section 2): UPN, the towers' warm-up, then the decoder's
//! stages, each from random or earlier weights, each resumable to the bit.
//!
//! A stage keeps everything it needs in `OUT/state.safetensors` (weights, optimiser moments, step,
//! curriculum) and writes beside it `metrics.jsonl`, `curve.svg` and `weights.safetensors` (f16,
//! the weights alone). All randomness is drawn from the seed and the step number.

use std::path::PathBuf;

use burn::tensor::Device;

use crate::fault::{Fault, FaultKind};
use crate::protocol::DevicePreference;

pub mod checkpoint;
pub mod feed;
pub mod metrics;
pub mod optimizer;
pub mod regions;
pub mod schedule;
pub mod towers;
pub mod upn;
pub mod upn_loss;
pub mod upn_measure;
pub mod upn_scenes;

/// The stages, in the order they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The proposal network alone.
    Upn,
    /// Both towers and the object projector, by classifying regions.
    Towers,
    /// Decoder, projectors and embeddings on frozen towers: naming and finding.
    Align,
    /// Everything on naming, finding, counting and referring.
    Perceive,
    /// Everything on all tasks.
    Instruct,
}

impl Stage {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
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
        Stage::Upn => upn::run(options),
        stage => Err(Fault::new(
            FaultKind::Model,
            stage.name(),
            "this stage is not built yet",
            "",
        )),
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
