//! `chatrex convert`: converts a published checkpoint to a model folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::builder::NonEmptyStringValueParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::names::QuantName;
use crate::convert::checkpoint::name_list;
use crate::convert::size_plan::{SizePlan, presets};
use crate::convert::{ByteProgress, Conversion, Converted, convert};
use crate::error::Fault;
use crate::memory::{Residency, display_bytes};
use crate::weights::quant::Rounding;
use crate::weights::storage::QuantPreset;

/// Arguments of `chatrex convert`.
#[derive(clap::Args)]
pub struct Options {
    /// The checkpoint: a folder in the layout of the Hugging Face hub.
    #[arg(long, required_unless_present_any = ["plan", "gguf"])]
    model: Option<PathBuf>,
    /// A GGUF file of a LLaMA or Qwen2 language model, instead of a checkpoint: a model for plain chat, or
    /// with --adapter for pictures.
    #[arg(long, conflicts_with_all = ["model", "upn", "prefix"])]
    gguf: Option<PathBuf>,
    /// A folder with an adapter of the language model, as `chatrex export --preset small` writes it.
    #[arg(long, requires_all = ["gguf", "detector"], conflicts_with = "template")]
    adapter: Option<PathBuf>,
    /// The proposal network: a `.pth` or safetensors file.
    #[arg(long)]
    upn: Option<PathBuf>,
    /// The detector instead: the JSON file of NanoDet-g for TensorFlow.js, or a safetensors file.
    #[arg(long, conflicts_with = "upn")]
    detector: Option<PathBuf>,
    /// Side of the detector's input in pixels, a multiple of 32; by default that of its file. More pixels
    /// find more small objects and take more time.
    #[arg(long, requires = "detector")]
    detector_side: Option<usize>,
    /// The model folder to write.
    #[arg(long, required_unless_present = "plan")]
    out: Option<PathBuf>,
    /// Quantization of the weights.
    #[arg(long, value_enum, default_value_t)]
    quant: QuantName,
    /// Weights per scale.
    #[arg(long, default_value = "32", value_parser = ["32", "64"])]
    group: String,
    /// Round to the nearest code instead of searching for the best scale.
    #[arg(long)]
    nearest: bool,
    /// A JSON file with the chat template.
    #[arg(long)]
    template: Option<PathBuf>,
    /// Replace a prefix of tensor names in the checkpoint and in the proposal network's file; repeatable.
    #[arg(long, value_parser = parse_prefix, value_name = "THEIRS=OURS")]
    prefix: Vec<(String, String)>,
    /// The model's name; by default that of the folder or the file.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Print download size and GPU memory of the known models; convert nothing.
    #[arg(long, conflicts_with_all = ["model", "gguf", "adapter", "upn", "detector", "out"])]
    plan: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn parse_prefix(text: &str) -> Result<(String, String), String> {
    let (theirs, ours) = text
        .split_once('=')
        .ok_or("write it as THEIRS=OURS, e.g. module.=")?;
    Ok((theirs.to_string(), ours.to_string()))
}

/// A progress bar of bytes.
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
    let Some(conversion) = options.conversion() else {
        print_plan(options.group(), options.json)?;
        return Ok(true);
    };
    let start = Instant::now();
    let bar = Bar::new();
    let converted = convert(&conversion, &bar)?;
    bar.0.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    if !converted.left_over.is_empty() {
        let (count, names) = (converted.left_over.len(), &converted.left_over);
        let names = name_list(names.iter().map(String::as_str));
        eprintln!("warning: {count} tensors of the proposal network's file are not used: {names}");
    }
    for warning in &converted.warnings {
        eprintln!("warning: {warning}");
    }
    if options.json {
        let mut value = serde_json::to_value(&converted).expect("plain data");
        value["seconds"] = seconds.into();
        println!("{value}");
    } else {
        print_table(&converted, &conversion.out, seconds);
    }
    Ok(true)
}

impl Options {
    /// The conversion; `None` with `--plan`.
    fn conversion(&self) -> Option<Conversion> {
        Some(Conversion {
            model: self.gguf.clone().or_else(|| self.model.clone())?,
            upn: self.upn.clone(),
            adapter: self.adapter.clone(),
            detector: self.detector.clone(),
            detector_side: self.detector_side,
            out: self.out.clone()?,
            quant: self.quant.into(),
            group: self.group(),
            rounding: if self.nearest {
                Rounding::Nearest
            } else {
                Rounding::Search
            },
            template: self.template.clone(),
            prefixes: self.prefix.clone(),
            name: self.name.clone(),
        })
    }

    fn group(&self) -> usize {
        self.group.parse().expect("checked by the parser")
    }
}

fn print_table(converted: &Converted, out: &Path, seconds: f64) {
    println!("{:<72} form      worst        rms   relative", "tensor");
    for tensor in &converted.tensors {
        println!(
            "{:<72} {:<4} {:>10.3e} {:>10.3e} {:>10.3e}",
            tensor.name, tensor.form, tensor.worst, tensor.rms, tensor.relative
        );
    }
    println!(
        "{} tensors, {} unused. {:.1} MB read, {:.1} MB written to {} in {seconds:.1} s ({:.0} MB/s read)",
        converted.tensors.len(),
        converted.skipped.len() + converted.left_over.len(),
        converted.read_bytes as f64 / 1e6,
        converted.bytes as f64 / 1e6,
        out.display(),
        converted.read_bytes as f64 / 1e6 / seconds,
    );
}

/// Prints the sizes of the presets in every quantization: a table, or JSON with bytes.
fn print_plan(group: usize, json: bool) -> Result<(), Fault> {
    let mut rows = Vec::new();
    for (preset, config) in presets() {
        for quant in QuantPreset::ALL {
            let plan = SizePlan::of(&config, quant, group)?;
            rows.push((preset.name(), format!("{quant:?}").to_lowercase(), plan));
        }
    }
    let residencies = [Residency::All, Residency::Decoder, Residency::OneByOne];
    if json {
        let row = |(model, quant, plan): &(&str, String, SizePlan)| {
            let [all, decoder, one] = residencies.map(|residency| plan.needs.peak(residency));
            serde_json::json!({
                "model": model,
                "quant": quant,
                "download": plan.download,
                "all_resident": all,
                "decoder_resident": decoder,
                "one_part_at_a_time": one,
                "needs": plan.needs,
            })
        };
        let models: Vec<_> = rows.iter().map(row).collect();
        println!("{}", serde_json::json!({"group": group, "models": models}));
        return Ok(());
    }
    println!(
        "{:<12}{:<6}{:>10}{:>15}{:>19}{:>21}",
        "model", "quant", "download", "all resident", "decoder resident", "one part at a time"
    );
    for (model, quant, plan) in rows {
        let [all, decoder, one] =
            residencies.map(|residency| display_bytes(plan.needs.peak(residency)));
        let download = display_bytes(plan.download);
        println!("{model:<12}{quant:<6}{download:>10}{all:>15}{decoder:>19}{one:>21}");
    }
    println!(
        "download: weight files; the other columns: peak GPU memory, by the parts that stay there"
    );
    Ok(())
}
