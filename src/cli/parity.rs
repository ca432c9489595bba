//! `chatrex parity`: this program against recorded tensors of the original.

use std::path::PathBuf;

use super::names::KvCacheName;
use super::propose::DeviceName;
use crate::diagnostics::parity;
use crate::error::Fault;
use crate::gpu::device;

/// Arguments of `chatrex parity`.
#[derive(clap::Args)]
pub struct Options {
    /// The folder of fixtures, with `tolerances.json`.
    #[arg(long)]
    golden: PathBuf,
    /// One fixture only.
    #[arg(long)]
    only: Option<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// How a graphics device holds keys and values.
    #[arg(long, value_enum, default_value_t)]
    cache: KvCacheName,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let opened = pollster::block_on(device::open(options.device.into()))?;
    eprintln!("{} ({})", opened.kind, opened.adapter);
    let report = parity::run(
        &options.golden,
        options.only.as_deref(),
        &opened.device,
        options.cache.into(),
    )?;
    if options.json {
        println!("{}", super::json(&report));
    } else {
        println!("{}", report.table());
    }
    Ok(report.failed == 0)
}
