//! `chatrex train`: one stage of nano's training.

use std::path::PathBuf;

use super::propose::DeviceName;
use crate::error::Fault;
use crate::train;

/// Arguments of `chatrex train`.
#[derive(clap::Args)]
pub struct Options {
    /// The sizes to train.
    #[arg(long, value_enum, default_value_t)]
    preset: Preset,
    /// The stage.
    #[arg(long, value_enum)]
    stage: train::Stage,
    /// Weights to start from: a stage's folder or an exported checkpoint.
    #[arg(long)]
    from: Option<PathBuf>,
    /// A folder of the towers stage whose towers replace those of `--from`.
    #[arg(long)]
    towers: Option<PathBuf>,
    /// A folder of the UPN stage: the decoder then learns on boxes that this network finds.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// Where weights, state and metrics go.
    #[arg(long)]
    out: PathBuf,
    /// How long to train.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Train this many steps instead; the run is then reproducible to the bit.
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Continue from the state in `--out`.
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Preset {
    #[default]
    Nano,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let Preset::Nano = options.preset;
    train::run(&train::Options {
        stage: options.stage,
        from: options.from.clone(),
        towers: options.towers.clone(),
        upn: options.upn.clone(),
        out: options.out.clone(),
        minutes: options.minutes,
        steps: options.steps,
        seed: options.seed,
        device: options.device.into(),
        resume: options.resume,
    })?;
    Ok(true)
}
