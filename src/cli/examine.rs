//! `chatrex examine`: what a device computes on a made-up picture, and how far that is from what
//! another one computed.

use std::path::PathBuf;

use super::propose::DeviceName;
use crate::diagnostics::compare::ActivationDump;
use crate::error::Fault;
use crate::image::Pixels;
use crate::protocol::DevicePreference;
use crate::session::{NANO, Session};

/// Arguments of `chatrex examine`.
#[derive(clap::Args)]
pub struct Options {
    /// A model folder; without it the nano model inside the program.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Width of the made-up picture in pixels.
    #[arg(long, default_value_t = 1066)]
    width: u32,
    /// Its height.
    #[arg(long, default_value_t = 800)]
    height: u32,
    /// What another device computed, as this command prints it; the same queries are then used.
    #[arg(long)]
    against: Option<PathBuf>,
}

/// Tolerances of the stages (`golden/tolerances.json`, fixtures `upn` and `rexseek`).
const TOLERANCES: [(&str, f32); 8] = [
    ("upn.candidates", 5e-4),
    ("upn.encoder_logits", 2e-3),
    ("upn.boxes", 1e-4),
    ("upn.logits", 2e-3),
    ("visual_tokens", 2e-4),
    ("object_tokens", 2e-4),
    ("prefill_logits", 2e-3),
    ("step_logits", 2e-3),
];

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let other: Option<ActivationDump> = match &options.against {
        Some(path) => Some(
            crate::convert::family::json(path)?.ok_or_else(|| Fault::file(path, "is missing"))?,
        ),
        None => None,
    };
    let mut session = Session::open(&options.model, DevicePreference::from(options.device), None)?;
    super::propose::announce(session.card());
    let pixels = Pixels::test_pattern(options.width, options.height);
    let selection = other.as_ref().map(|other| other.selection.clone());
    let examined = session.examine(&pixels, selection)?;
    let Some(other) = other else {
        println!("{}", super::json(&examined));
        return Ok(true);
    };
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>12}",
        "stage", "largest", "difference", "tolerance", "milliseconds"
    );
    let mut good = examined.token == other.token;
    for (stage, theirs) in examined.stages.iter().zip(&other.stages) {
        let largest = stage.values.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let pairs = stage.values.iter().zip(&theirs.values);
        // A value that is no number is as far away as can be.
        let far = |(a, b): (&f32, &f32)| Some((a - b).abs()).filter(|d| !d.is_nan());
        let worst = pairs.fold(0.0_f32, |worst, pair| {
            worst.max(far(pair).unwrap_or(f32::INFINITY))
        });
        let tolerance = TOLERANCES
            .iter()
            .find(|(name, _)| *name == stage.name)
            .map_or(0.0, |(_, tolerance)| *tolerance);
        let agrees = worst <= tolerance && stage.values.len() == theirs.values.len();
        good &= agrees;
        println!(
            "{:<20} {largest:>10.3e} {worst:>10.3e} {tolerance:>10.0e} {:>12.0}{}",
            stage.name,
            stage.milliseconds,
            if agrees { "" } else { "  FAILED" }
        );
    }
    println!("first token {} here, {} there", examined.token, other.token);
    Ok(good)
}
