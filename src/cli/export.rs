//! `chatrex export`: writes trained weights as a checkpoint folder for `chatrex convert`.

use std::path::PathBuf;

use super::names::finite;
use crate::error::{Fault, FaultKind};
use crate::train::export::{
    ExportOptions, MiniExportOptions, SmallExportOptions, export, export_mini, export_small,
};

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
    /// `labels`, for small those of the stage `adapter`; both require them.
    #[arg(long)]
    chatrex: Option<PathBuf>,
    /// The tokenizer.json file. Required except for small.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Small only, required: the folder of the language model, converted with --quant f32.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Small only: the GGUF file that the language model was converted from; by default that of small.
    #[arg(long, value_name = "FILE")]
    base_gguf: Option<PathBuf>,
    /// The checkpoint folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Default score threshold of boxes; by default 0.3, for mini and small 0.32.
    #[arg(long, value_parser = finite::<f32>)]
    score: Option<f32>,
    /// Mini and small: least score of the best box of a kind without a box above the score threshold.
    #[arg(long, default_value_t = 0.15, value_parser = finite::<f32>)]
    first_of_kind: f32,
    /// Default NMS threshold (IoU); by default 0.8, for mini and small 0.5.
    #[arg(long, value_parser = finite::<f64>)]
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
    Small,
}

/// The file of an option that a preset requires.
fn required(file: Option<&PathBuf>, option: &str, advice: &str) -> Result<PathBuf, Fault> {
    let missing = || Fault::new(FaultKind::File, option, "is missing", advice);
    file.cloned().ok_or_else(missing)
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let weights = |stage: &str| {
        let advice = format!("Name the weights of the stage `{stage}`");
        required(options.chatrex.as_ref(), "--chatrex", &advice)
    };
    let tokenizer = || {
        required(
            options.tokenizer.as_ref(),
            "--tokenizer",
            "Name the tokenizer.json of the model",
        )
    };
    match options.preset {
        Preset::Mini => export_mini(&MiniExportOptions {
            weights: weights("labels")?,
            tokenizer: tokenizer()?,
            out: options.out.clone(),
            score: options.score.unwrap_or(0.32),
            first_of_kind: options.first_of_kind,
            nms: options.nms.unwrap_or(0.5),
            made_by: options.made_by.clone(),
        })?,
        Preset::Small => export_small(&SmallExportOptions {
            weights: weights("adapter")?,
            base: required(
                options.base.as_ref(),
                "--base",
                "Name the folder of the language model, converted with --quant f32",
            )?,
            base_file: options.base_gguf.clone(),
            out: options.out.clone(),
            score: options.score.unwrap_or(0.32),
            first_of_kind: options.first_of_kind,
            nms: options.nms.unwrap_or(0.5) as f32,
            made_by: options.made_by.clone(),
        })?,
        Preset::Nano => export(&ExportOptions {
            upn: options.upn.clone(),
            chatrex: options.chatrex.clone(),
            tokenizer: tokenizer()?,
            out: options.out.clone(),
            score: options.score.unwrap_or(0.3),
            nms: options.nms.unwrap_or(0.8),
            trained_on: "scenes of emoji stickers drawn by this project".to_string(),
            made_by: options.made_by.clone(),
        })?,
    }
    Ok(true)
}
