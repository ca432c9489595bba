//! `chatrex parity`: compares this program with recordings of the original implementation.

use std::path::PathBuf;

use super::names::KvCacheName;
use super::propose::DeviceName;
use crate::diagnostics::parity;
use crate::error::Fault;
use crate::gpu::{KERNELS, device};

/// Arguments of `chatrex parity`.
#[derive(clap::Args)]
pub struct Options {
    /// Folder of fixtures, with tolerances.json.
    #[arg(long)]
    golden: PathBuf,
    /// Compare this fixture only.
    #[arg(long)]
    only: Option<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// KV-cache dtype on a GPU.
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
        let mut json = serde_json::to_value(&report).expect("plain data");
        // The browser test compares the kernel registries of program and worker.
        json["kernels"] = KERNELS.iter().map(|kernel| kernel.name).collect();
        println!("{}", super::json(&json));
    } else {
        println!("{}", report.table());
    }
    Ok(report.is_good())
}
