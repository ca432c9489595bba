//! `chatrex bench`: how fast a device is at what a model does.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::names::{KvCacheName, QuantName};
use super::propose::DeviceName;
use crate::diagnostics::bench::clock::median;
use crate::diagnostics::bench::layer::{Layer, LayerCase, Meta};
use crate::diagnostics::bench::report::Row;
use crate::diagnostics::bench::{GROUPS, Plan};
use crate::error::{Fault, FaultKind};
use crate::gpu::device;
use crate::model::presets::Preset;
use crate::session::{NANO, Session};

/// Arguments of `chatrex bench`.
#[derive(clap::Args)]
pub struct Options {
    /// A model folder; without it the nano model inside the program.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Random weights in the sizes of a published model instead, made on the device.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Preset::WITH_DECODER.map(Preset::name)), conflicts_with = "model")]
    like: Option<String>,
    /// Blocks of the made-up language model; all without.
    #[arg(long, requires = "like")]
    layers: Option<usize>,
    /// Blocks in every stage of made-up towers and of UPN; all without.
    #[arg(long, requires = "like")]
    depth: Option<usize>,
    /// How the made-up model is stored.
    #[arg(long, value_enum, default_value_t, requires = "like")]
    quant: QuantName,
    /// How keys and values are held; without it in half precision where weights are packed.
    #[arg(long, value_enum)]
    cache: Option<KvCacheName>,
    /// A layer that `tests/reference/layer.py` wrote, instead: what other runtimes are given too.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "like"])]
    layer: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Boxes in the prompt.
    #[arg(long, default_value_t = Plan::default().boxes)]
    boxes: usize,
    /// Timed blocks of every row; 0 takes 7, on a software adapter 3.
    #[arg(long, default_value_t = 0)]
    repeats: usize,
    /// Seconds after which a row is not repeated; what would take longer is left out.
    #[arg(long, default_value_t = Plan::default().seconds)]
    seconds: f64,
    /// Only these rows; may be given several times.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(GROUPS))]
    only: Vec<String>,
    /// Write the report as JSON into this file, or with `-` to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A case of a layer, measured.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    case: LayerCase,
    /// Median.
    milliseconds: f64,
    /// The first run, compiling included.
    first: f64,
    /// To what was computed in f64.
    cosine: f64,
    /// The largest difference from it.
    worst: f64,
}

/// Timed runs of a case where `--repeats` does not say.
const REPEATS: [usize; 2] = [21, 3];

fn layer(options: &Options, folder: &Path) -> Result<bool, Fault> {
    let opened = pollster::block_on(device::open(options.device.into()))?;
    let meta = folder.join("meta.json");
    let meta: Meta = crate::convert::family::json(&meta)?
        .ok_or_else(|| Fault::file(&meta, "is missing. Run tests/reference/layer.py"))?;
    let path = folder.join("ours.safetensors");
    let file = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
    let mut layer = Layer::open(&path.display().to_string(), &file, &opened.device)?;
    let times = match options.repeats {
        0 => REPEATS[usize::from(opened.software)],
        times => times,
    };
    let mut measured = Vec::new();
    for case in meta.cases {
        let mut run = || {
            let start = Instant::now();
            let output = pollster::block_on(layer.run(case.work));
            output.map(|output| (output, start.elapsed().as_secs_f64() * 1e3))
        };
        let (output, first) = run()?;
        let (cosine, worst) = case.compare(&output).map_err(|what| {
            let place = format!("{}, {}", meta.name, case.work);
            Fault::new(FaultKind::Device, place, what, "")
        })?;
        // Decoding reads the tokens before it once; that is no part of it.
        run()?;
        let found: Result<Vec<f64>, Fault> = (0..times).map(|_| Ok(run()?.1)).collect();
        measured.push(Measured {
            milliseconds: median(&mut found?).unwrap_or(first),
            case,
            first,
            cosine,
            worst,
        });
    }
    let label = if opened.software {
        " (software: no GPU numbers)"
    } else {
        ""
    };
    let mut lines = vec![format!("{} on {}{label}", meta.name, opened.adapter)];
    for Measured {
        case,
        milliseconds,
        first,
        cosine,
        worst,
    } in &measured
    {
        lines.push(format!(
            "{:<18} {milliseconds:>10.3} ms, first {first:.1} ms, cosine {cosine:.7}, worst {worst:.1e}",
            case.work.to_string()
        ));
    }
    let report = serde_json::json!({
        "layer": meta.name, "device": opened.kind, "adapter": opened.adapter,
        "software": opened.software, "cases": measured,
    });
    give(options, &report, &lines.join("\n"))
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    if let Some(folder) = &options.layer {
        return layer(options, folder);
    }
    let like = options.like.as_deref().map(str::parse).transpose();
    let like = like.map_err(|what: String| {
        Fault::new(
            FaultKind::Question,
            "--like",
            what,
            "See `chatrex bench --help`",
        )
    })?;
    let plan = Plan {
        like,
        layers: options.layers,
        depth: options.depth,
        quant: options.quant.into(),
        cache: options.cache.map(Into::into),
        boxes: options.boxes,
        repeats: options.repeats,
        seconds: options.seconds,
        only: options.only.clone(),
    };
    let preference = options.device.into();
    let mut session = match like {
        Some(_) => Session::empty(),
        None => Session::open(&options.model, preference, None)?,
    };
    let report = session.bench(&plan, preference, &|row: &Row| eprintln!("{}", row.line()))?;
    give(options, &report, &report.table())
}

/// Table and JSON to where they are wanted.
fn give(options: &Options, report: &impl Serialize, table: &str) -> Result<bool, Fault> {
    match &options.json {
        Some(path) if path.as_os_str() == "-" => println!("{}", super::json(report)),
        Some(path) => {
            println!("{table}");
            std::fs::write(path, super::json(report)).map_err(|error| Fault::file(path, error))?;
        }
        None => println!("{table}"),
    }
    Ok(true)
}
