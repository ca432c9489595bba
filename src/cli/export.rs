//! `chatrex export`: writes trained weights as a checkpoint folder for `chatrex convert`.

use std::path::PathBuf;

use crate::error::Fault;
use crate::train::export::{ExportOptions, export};

/// Arguments of `chatrex export`.
#[derive(clap::Args)]
pub struct Options {
    /// Weights of the proposal network; by default random.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// Weights of towers, projectors and decoder; by default random.
    #[arg(long)]
    chatrex: Option<PathBuf>,
    /// The tokenizer.json file.
    #[arg(long)]
    tokenizer: PathBuf,
    /// The checkpoint folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Default score threshold of boxes.
    #[arg(long, default_value_t = 0.3)]
    score: f32,
    /// Default NMS threshold (IoU).
    #[arg(long, default_value_t = 0.8)]
    nms: f64,
    /// A command that produced the weights; repeat it in order.
    #[arg(long)]
    made_by: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    export(&ExportOptions {
        upn: options.upn.clone(),
        chatrex: options.chatrex.clone(),
        tokenizer: options.tokenizer.clone(),
        out: options.out.clone(),
        score: options.score,
        nms: options.nms,
        trained_on: "scenes of emoji stickers drawn by this project".to_string(),
        made_by: options.made_by.clone(),
    })?;
    Ok(true)
}
