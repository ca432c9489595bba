//! `chatrex train`: one training stage of nano.

use std::path::PathBuf;

use super::propose::DeviceName;
use crate::error::Fault;
use crate::train;

/// Arguments of `chatrex train`.
#[derive(clap::Args)]
pub struct Options {
    /// Model size.
    #[arg(long, value_enum, default_value_t)]
    preset: Preset,
    /// Training stage.
    #[arg(long, value_enum)]
    stage: train::TrainStage,
    /// Folder of initial weights: the output of a stage or an exported checkpoint.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Output folder of the `towers` stage; its towers replace those of `--from`.
    #[arg(long)]
    towers: Option<PathBuf>,
    /// Output folder of the `upn` stage; the decoder stages then train on the proposals of this network.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// Output folder for weights, checkpoint and metrics.
    #[arg(long)]
    out: PathBuf,
    /// Training time in minutes.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Number of steps, instead of a time; the run is then bit-reproducible.
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Resume from the checkpoint in `--out`.
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
    train::run(&train::TrainOptions {
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
