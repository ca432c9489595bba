//! `chatrex bench`: how fast a device is at what a model does.

use std::path::PathBuf;

use super::propose::DeviceName;
use super::session::{NANO, Session};
use crate::engine::bench::report::Row;
use crate::engine::bench::{GROUPS, Like, Plan};
use crate::fault::{Fault, FaultKind};
use crate::weights::form::Quant;

/// Arguments of `chatrex bench`.
#[derive(clap::Args)]
pub struct Options {
    /// A model folder; without it the nano model inside the program.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Random weights in the sizes of a published model instead, made on the device.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Like::ALL.map(|(name, _)| name)), conflicts_with = "model")]
    like: Option<String>,
    /// Blocks of the made-up language model; all without.
    #[arg(long, requires = "like")]
    layers: Option<usize>,
    /// Blocks in every stage of made-up towers and of UPN; all without.
    #[arg(long, requires = "like")]
    depth: Option<usize>,
    /// How the made-up model is stored.
    #[arg(long, value_enum, default_value_t, requires = "like")]
    quant: Quant,
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

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
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
        quant: options.quant,
        boxes: options.boxes,
        repeats: options.repeats,
        seconds: options.seconds,
        only: options.only.clone(),
    };
    let preference = options.device.into();
    let mut session = match like {
        Some(_) => Session::empty(),
        None => Session::open(&options.model, preference, None, None)?,
    };
    let report = session.bench(&plan, preference, &|row: &Row| eprintln!("{}", row.line()))?;
    let Some(path) = &options.json else {
        println!("{}", report.table());
        return Ok(true);
    };
    if path.as_os_str() == "-" {
        println!("{}", super::json(&report));
        return Ok(true);
    }
    println!("{}", report.table());
    std::fs::write(path, super::json(&report)).map_err(|error| Fault::file(path, error))?;
    Ok(true)
}
