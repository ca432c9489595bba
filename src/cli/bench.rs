//! `chatrex bench`: measures kernels and model stages on a device.

mod loading;
mod picture;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::names::{CpuActivationsName, KvCacheName, QuantName, finite};
use super::process::keep_freed_memory;
use super::propose::DeviceName;
use crate::diagnostics::bench::layer::{Layer, LayerCase, LayerOptions, Meta, Work};
use crate::diagnostics::bench::report::Row;
use crate::diagnostics::bench::{self, Environment, GROUPS, Plan, median};
use crate::error::{Fault, FaultKind};
use crate::files::read_json;
use crate::gpu::device;
use crate::model::presets::Preset;
use crate::protocol::LoadOptions;
use crate::session::{NANO, Session};

/// Arguments of `chatrex bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Model folder; by default the built-in nano model.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Measure random weights in the shapes of this preset instead of a model.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Preset::WITH_DECODER.map(Preset::name)), conflicts_with = "model")]
    like: Option<String>,
    /// Decoder layers of the random weights; by default all.
    #[arg(long, requires = "like")]
    layers: Option<usize>,
    /// Blocks per stage of the random towers and UPN; by default all.
    #[arg(long, requires = "like")]
    depth: Option<usize>,
    /// Quantization of the random weights.
    #[arg(long, value_enum, default_value_t, requires = "like")]
    quant: QuantName,
    /// KV-cache dtype; by default f16 for quantized weights, else f32.
    #[arg(long, value_enum)]
    cache: Option<KvCacheName>,
    /// Activations that quantized weights are multiplied with on the CPU.
    #[arg(long, value_enum, default_value_t)]
    cpu_activations: CpuActivationsName,
    /// Measure a layer written by tests/reference/layer.py, for comparison with other runtimes.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "like"])]
    layer: Option<PathBuf>,
    /// Quantize the f32 matrices of the layer to 8 bits in groups of 32.
    #[arg(long, requires = "layer")]
    quantize_layer: bool,
    /// Measure the resizing of this picture to the inputs of ChatRex-7B.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "like", "layer"])]
    picture: Option<PathBuf>,
    /// Measure what loading the folder of --model costs.
    #[arg(long, requires = "model", conflicts_with_all = ["like", "layer", "picture"])]
    loading: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Boxes in the prompt.
    #[arg(long, default_value_t = Plan::default().boxes)]
    boxes: usize,
    /// Timed blocks per row; 0 means 7, on a software adapter 3.
    #[arg(long, default_value_t = 0)]
    repeats: usize,
    /// Time limit per row in seconds; rows that would take longer are left out.
    #[arg(long, default_value_t = Plan::default().seconds, value_parser = finite::<f64>)]
    seconds: f64,
    /// Measure this group of rows only; repeatable.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(GROUPS))]
    only: Vec<String>,
    /// Write the report as JSON to this file; `-` prints it instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    if let Some(folder) = &options.layer {
        return run_layer(options, folder);
    }
    if let Some(file) = &options.picture {
        let report = picture::measure(file, options.repeats)?;
        return options.print(&report, &report.table());
    }
    let preference = options.device.into();
    let load = || LoadOptions {
        activations: Some(options.cpu_activations.into()),
        ..LoadOptions::from(preference)
    };
    if options.loading {
        let report = loading::measure(&options.model, load())?;
        return options.print(&report, &report.table());
    }
    let plan = options.plan()?;
    let mut session = match plan.like {
        Some(_) => Session::empty(),
        None => Session::open(options.model.as_str(), load())?,
    };
    keep_freed_memory();
    let report = pollster::block_on(bench::run(
        session.engine(),
        &plan,
        preference,
        Environment::default(),
        &|row: &Row| eprintln!("{}", row.line()),
    ))?;
    options.print(&report, &report.table())
}

impl Options {
    fn plan(&self) -> Result<Plan, Fault> {
        let like = self.like.as_deref().map(str::parse).transpose();
        let like = like.map_err(|what: String| {
            let advice = "See `chatrex bench --help`";
            Fault::new(FaultKind::Question, "--like", what, advice)
        })?;
        Ok(Plan {
            like,
            layers: self.layers,
            depth: self.depth,
            quant: self.quant.into(),
            cache: self.cache.map(Into::into),
            activations: self.cpu_activations.into(),
            boxes: self.boxes,
            repeats: self.repeats,
            seconds: self.seconds,
            only: self.only.clone(),
        })
    }

    /// Prints the table, and writes or prints the JSON, by `--json`.
    fn print(&self, report: &impl Serialize, table: &str) -> Result<bool, Fault> {
        match &self.json {
            Some(path) if path.as_os_str() == "-" => println!("{}", super::json(report)),
            Some(path) => {
                println!("{table}");
                std::fs::write(path, super::json(report))
                    .map_err(|error| Fault::file(path, error))?;
            }
            None => println!("{table}"),
        }
        Ok(true)
    }
}

/// Timed runs per case of a layer by default: on a GPU or the CPU, on a software adapter.
const LAYER_REPEATS: [usize; 2] = [21, 3];

/// A measured case of a layer.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    case: LayerCase,
    /// Median.
    milliseconds: f64,
    /// The first run, pipeline compilation included.
    first: f64,
    /// Cosine similarity to the expected output.
    cosine: f64,
    /// Largest absolute difference from the expected output.
    worst: f64,
}

/// Measures all cases of the layer in `folder`.
fn run_layer(options: &Options, folder: &Path) -> Result<bool, Fault> {
    keep_freed_memory();
    let opened = pollster::block_on(device::open(options.device.into()))?;
    let meta = folder.join("meta.json");
    let meta: Meta = read_json(&meta)?
        .ok_or_else(|| Fault::file(&meta, "is missing. Run tests/reference/layer.py"))?;
    let path = folder.join("ours.safetensors");
    let file = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
    let layer_options = LayerOptions {
        activations: options.cpu_activations.into(),
        quantize: options.quantize_layer,
    };
    let name = path.display().to_string();
    let mut layer = Layer::open(&name, &file, &opened.device, layer_options)?;
    let repeats = match options.repeats {
        0 => LAYER_REPEATS[usize::from(opened.software)],
        repeats => repeats,
    };
    let measured = meta
        .cases
        .into_iter()
        .map(|case| measure_case(&mut layer, &meta.name, case, repeats, layer_options))
        .collect::<Result<Vec<_>, Fault>>()?;
    let label = if opened.software {
        " (software adapter: no GPU numbers)"
    } else {
        ""
    };
    let mut lines = vec![format!("{} on {}{label}", meta.name, opened.adapter)];
    lines.extend(measured.iter().map(Measured::line));
    let report = serde_json::json!({
        "layer": meta.name, "device": opened.kind, "adapter": opened.adapter,
        "software": opened.software, "cases": measured,
    });
    options.print(&report, &lines.join("\n"))
}

/// Checks the output of a case and measures it.
fn measure_case(
    layer: &mut Layer,
    name: &str,
    case: LayerCase,
    repeats: usize,
    options: LayerOptions,
) -> Result<Measured, Fault> {
    let (output, first) = timed_run(layer, case.work)?;
    let (cosine, worst) = case.compare(&output, options).map_err(|what| {
        let place = format!("{name}, {}", case.work);
        Fault::new(FaultKind::Device, place, what, "")
    })?;
    // The prefill before a decoded token runs once and is not measured.
    timed_run(layer, case.work)?;
    let mut times = (0..repeats)
        .map(|_| Ok(timed_run(layer, case.work)?.1))
        .collect::<Result<Vec<f64>, Fault>>()?;
    Ok(Measured {
        milliseconds: median(&mut times).unwrap_or(first),
        case,
        first,
        cosine,
        worst,
    })
}

/// The output of `work`, and the milliseconds it took.
fn timed_run(layer: &mut Layer, work: Work) -> Result<(Vec<f32>, f64), Fault> {
    let start = Instant::now();
    let output = pollster::block_on(layer.run(work))?;
    Ok((output, start.elapsed().as_secs_f64() * 1e3))
}

impl Measured {
    fn line(&self) -> String {
        let Self {
            case,
            milliseconds,
            first,
            cosine,
            worst,
        } = self;
        let work = case.work.to_string();
        format!(
            "{work:<18} {milliseconds:>10.3} ms, first {first:.1} ms, cosine {cosine:.7}, worst {worst:.1e}"
        )
    }
}
