//! `chatrex scenes`: synthetic images with annotations and dialogues.

use std::path::PathBuf;

use indicatif::ProgressBar;

use crate::error::Fault;
use crate::scenes::{WriteOptions, write};

/// Arguments of `chatrex scenes`.
#[derive(clap::Args)]
pub struct Options {
    /// Number of scenes.
    #[arg(long)]
    count: u64,
    /// Seed of the first scene; below 800000 training, below 900000 validation, else test.
    #[arg(long)]
    seed: u64,
    /// Output folder; must be new or empty.
    #[arg(long)]
    out: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let bar = ProgressBar::new(options.count);
    let options = WriteOptions {
        count: options.count,
        seed: options.seed,
        out: options.out.clone(),
    };
    write(&options, |done| bar.set_position(done))?;
    bar.finish();
    Ok(true)
}
