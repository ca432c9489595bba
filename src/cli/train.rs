//! `chatrex train`: one training stage of nano, mini or small.

use std::path::PathBuf;

use super::names::finite;
use super::propose::DeviceName;
use crate::error::{Fault, FaultKind};
use crate::train;

/// Arguments of `chatrex train`.
#[derive(clap::Args)]
pub struct Options {
    /// The model; by default the one that the stage belongs to.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
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
    /// The language model that the stages `chats` and `adapter` read: a folder converted with --quant f32.
    #[arg(long)]
    base: Option<PathBuf>,
    /// The chats.json that the stage `adapter` mixes in.
    #[arg(long)]
    chats: Option<PathBuf>,
    /// Output folder for weights, checkpoint and metrics.
    #[arg(long)]
    out: PathBuf,
    /// Training time in minutes.
    #[arg(long, default_value_t = 30.0, value_parser = finite::<f64>)]
    minutes: f64,
    /// Number of steps, instead of a time; the run is then bit-reproducible.
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device to train on; `auto` selects the CPU.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Resume from the checkpoint in `--out`.
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    Nano,
    Mini,
    Small,
}

impl Preset {
    fn of(stage: train::TrainStage) -> Self {
        match stage {
            train::TrainStage::LabelTokenizer | train::TrainStage::Labels => Self::Mini,
            train::TrainStage::Chats | train::TrainStage::Adapter => Self::Small,
            _ => Self::Nano,
        }
    }
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let preset = Preset::of(options.stage);
    if options.preset.is_some_and(|given| given != preset) {
        let stages = match preset {
            Preset::Mini => "mini",
            Preset::Small => "small",
            Preset::Nano => "nano",
        };
        return Err(Fault::new(
            FaultKind::Question,
            format!("--stage {}", options.stage.name()),
            format!("is a stage of {stages}"),
            format!("Leave out --preset, or give --preset {stages}"),
        ));
    }
    train::run(&train::TrainOptions {
        stage: options.stage,
        from: options.from.clone(),
        towers: options.towers.clone(),
        upn: options.upn.clone(),
        base: options.base.clone(),
        chats: options.chats.clone(),
        out: options.out.clone(),
        minutes: options.minutes,
        steps: options.steps,
        seed: options.seed,
        device: options.device.into(),
        resume: options.resume,
    })?;
    Ok(true)
}
