//! `chatrex export`: writes trained weights as a checkpoint folder for `chatrex convert`.

use std::path::PathBuf;

use crate::error::{Fault, FaultKind};
use crate::train::export::{ExportOptions, MiniExportOptions, export, export_mini};

/// Arguments of `chatrex export`.
#[derive(clap::Args)]
pub struct Options {
    /// The model that was trained.
    #[arg(long, value_enum, default_value_t)]
    preset: Preset,
    /// Weights of the proposal network; by default random.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// Weights of towers, projectors and decoder; by default random. For mini those of the stage
    /// `labels`, which are required.
    #[arg(long)]
    chatrex: Option<PathBuf>,
    /// The tokenizer.json file.
    #[arg(long)]
    tokenizer: PathBuf,
    /// The checkpoint folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Default score threshold of boxes; by default 0.3, for mini 0.32.
    #[arg(long)]
    score: Option<f32>,
    /// Mini only: least score of the best box of a kind without a box above the score threshold.
    #[arg(long, default_value_t = 0.15)]
    first_of_kind: f32,
    /// Default NMS threshold (IoU); by default 0.8, for mini 0.5.
    #[arg(long)]
    nms: Option<f64>,
    /// A command that produced the weights; repeat it in order.
    #[arg(long)]
    made_by: Vec<String>,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Preset {
    #[default]
    Nano,
    Mini,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    if let Preset::Mini = options.preset {
        let weights = options.chatrex.clone().ok_or_else(|| {
            Fault::new(
                FaultKind::File,
                "--chatrex",
                "is missing",
                "Name the weights of the stage `labels`",
            )
        })?;
        export_mini(&MiniExportOptions {
            weights,
            tokenizer: options.tokenizer.clone(),
            out: options.out.clone(),
            score: options.score.unwrap_or(0.32),
            first_of_kind: options.first_of_kind,
            nms: options.nms.unwrap_or(0.5),
            made_by: options.made_by.clone(),
        })?;
        return Ok(true);
    }
    export(&ExportOptions {
        upn: options.upn.clone(),
        chatrex: options.chatrex.clone(),
        tokenizer: options.tokenizer.clone(),
        out: options.out.clone(),
        score: options.score.unwrap_or(0.3),
        nms: options.nms.unwrap_or(0.8),
        trained_on: "scenes of emoji stickers drawn by this project".to_string(),
        made_by: options.made_by.clone(),
    })?;
    Ok(true)
}
