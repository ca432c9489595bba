//! `chatrex fake-checkpoint`: writes random weights in the shapes of a published checkpoint.

use std::path::PathBuf;
use std::time::Instant;

use super::convert::Bar;
use crate::convert::synthetic::write;
use crate::error::Fault;
use crate::model::presets::Preset;

/// Arguments of `chatrex fake-checkpoint`.
#[derive(clap::Args)]
pub struct Options {
    /// The checkpoint to imitate.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Preset::PUBLISHED.map(Preset::name)))]
    like: String,
    /// Decoder layers; by default all.
    #[arg(long)]
    layers: Option<usize>,
    /// Blocks per stage of the towers and of UPN; by default all.
    #[arg(long)]
    depth: Option<usize>,
    /// The folder to write.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let preset = options.like.parse().expect("clap accepts only these names");
    let start = Instant::now();
    let bar = Bar::new();
    write(preset, options.layers, options.depth, &options.out, &bar)?;
    let bytes = bar.0.position();
    bar.0.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.1} MB written to {} in {seconds:.1} s",
        bytes as f64 / 1e6,
        options.out.display()
    );
    Ok(true)
}
