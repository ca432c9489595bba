//! `chatrex scenes`: pictures with annotations and dialogues.

use std::path::PathBuf;

use indicatif::ProgressBar;

use crate::error::Fault;
use crate::scenes::{WriteOptions, write};

/// Arguments of `chatrex scenes`.
#[derive(clap::Args)]
pub struct Options {
    /// How many scenes.
    #[arg(long)]
    count: u64,
    /// Seed of the first scene; training below 800000, validation below 900000, test from there.
    #[arg(long)]
    seed: u64,
    /// A new folder.
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
