//! `chatrex convert`: a model folder of a published checkpoint.

use std::path::PathBuf;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::convert::{ByteProgress, Conversion, convert};
use crate::error::Fault;
use crate::weights::quant::Rounding;
use crate::weights::storage::QuantPreset;

/// Arguments of `chatrex convert`.
#[derive(clap::Args)]
pub struct Options {
    /// The checkpoint: a folder as the hub serves it.
    #[arg(long)]
    model: PathBuf,
    /// The proposal network: a `.pth` or safetensors file.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// The model folder to make.
    #[arg(long)]
    out: PathBuf,
    /// Precision of the weights.
    #[arg(long, value_enum, default_value_t = QuantPreset::Q4)]
    quant: QuantPreset,
    /// Weights that share a scale.
    #[arg(long, default_value = "32", value_parser = ["32", "64"])]
    group: String,
    /// Round every weight to the nearest code instead of searching for the best scale.
    #[arg(long)]
    nearest: bool,
    /// The words around a question, as JSON.
    #[arg(long)]
    template: Option<PathBuf>,
    /// A beginning of tensor names in this checkpoint and what stands for it here; repeat it.
    #[arg(long, value_parser = prefix, value_name = "THEIRS=OURS")]
    prefix: Vec<(String, String)>,
    /// The model's name; the folder's without.
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn prefix(text: &str) -> Result<(String, String), String> {
    let (theirs, ours) = text
        .split_once('=')
        .ok_or("write it as THEIRS=OURS, e.g. module.=")?;
    Ok((theirs.to_string(), ours.to_string()))
}

/// Bytes on a progress bar.
pub(super) struct Bar(pub(super) ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let style = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("the template is well-formed");
        Self(ProgressBar::new(0).with_style(style))
    }
}

impl ByteProgress for Bar {
    fn set_total(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let start = Instant::now();
    let bar = Bar::new();
    let converted = convert(
        &Conversion {
            model: options.model.clone(),
            upn: options.upn.clone(),
            out: options.out.clone(),
            quant: options.quant,
            group: options.group.parse().expect("checked by the parser"),
            rounding: if options.nearest {
                Rounding::Nearest
            } else {
                Rounding::Search
            },
            template: options.template.clone(),
            prefixes: options.prefix.clone(),
            name: options.name.clone(),
        },
        &bar,
    )?;
    bar.0.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    for name in &converted.left_over {
        eprintln!("warning: nothing reads tensor {name} of the proposal network's file");
    }
    if options.json {
        let mut value = serde_json::to_value(&converted).expect("plain data");
        value["seconds"] = seconds.into();
        println!("{value}");
        return Ok(true);
    }
    println!("{:<72} form      worst        rms   relative", "tensor");
    for tensor in &converted.tensors {
        println!(
            "{:<72} {:<4} {:>10.3e} {:>10.3e} {:>10.3e}",
            tensor.name, tensor.form, tensor.worst, tensor.rms, tensor.relative
        );
    }
    println!(
        "{} tensors, {} not needed. {:.1} MB read, {:.1} MB written to {} in {seconds:.1} s ({:.0} MB/s read)",
        converted.tensors.len(),
        converted.skipped.len() + converted.left_over.len(),
        converted.read_bytes as f64 / 1e6,
        converted.bytes as f64 / 1e6,
        options.out.display(),
        converted.read_bytes as f64 / 1e6 / seconds,
    );
    Ok(true)
}
