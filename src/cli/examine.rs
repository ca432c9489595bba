//! `chatrex examine`: activations of a model on one picture, and their difference from another
//! device's.

use std::path::PathBuf;

use super::propose::DeviceName;
use crate::diagnostics::compare::{ActivationDump, StageValues, dump_activations};
use crate::error::Fault;
use crate::files::read_json;
use crate::image::Pixels;
use crate::protocol::DevicePreference;
use crate::session::{NANO, Session};

/// Arguments of `chatrex examine`.
#[derive(clap::Args)]
pub struct Options {
    /// Model folder; by default the built-in nano model.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Width of the test picture in pixels.
    #[arg(long, default_value_t = 1066)]
    width: u32,
    /// Height of the test picture in pixels.
    #[arg(long, default_value_t = 800)]
    height: u32,
    /// Compare with another device's activations, printed by this command; its query selection is
    /// used too.
    #[arg(long)]
    against: Option<PathBuf>,
}

/// Largest absolute error per stage, as of the fixtures `upn` and `rexseek` in tolerances.json.
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
    let reference: Option<ActivationDump> = match &options.against {
        Some(path) => Some(read_json(path)?.ok_or_else(|| Fault::file(path, "is missing"))?),
        None => None,
    };
    let mut session = Session::open(
        options.model.as_str(),
        DevicePreference::from(options.device),
    )?;
    super::propose::announce(session.card());
    let pixels = Pixels::test_pattern(options.width, options.height);
    let selection = reference.as_ref().map(|other| other.selection.clone());
    let dump = pollster::block_on(dump_activations(session.engine(), &pixels, selection))?;
    match reference {
        Some(reference) => Ok(print_differences(&dump, &reference)),
        None => {
            println!("{}", super::json(&dump));
            Ok(true)
        }
    }
}

/// Prints the stages' differences as a table; whether all are within tolerance and the tokens equal.
fn print_differences(dump: &ActivationDump, reference: &ActivationDump) -> bool {
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>12}",
        "stage", "largest", "difference", "tolerance", "milliseconds"
    );
    let mut good = dump.token == reference.token;
    for (stage, expected) in dump.stages.iter().zip(&reference.stages) {
        let largest = stage.values.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let difference = difference(stage, expected);
        let tolerance = TOLERANCES
            .iter()
            .find(|(name, _)| *name == stage.name)
            .map_or(0.0, |(_, tolerance)| *tolerance);
        let agrees = difference <= tolerance && stage.values.len() == expected.values.len();
        good &= agrees;
        println!(
            "{:<20} {largest:>10.3e} {difference:>10.3e} {tolerance:>10.0e} {:>12.0}{}",
            stage.name,
            stage.milliseconds,
            if agrees { "" } else { "  FAILED" }
        );
    }
    println!("first token {}, reference {}", dump.token, reference.token);
    good
}

/// The largest absolute difference of the values; infinite where one is NaN.
fn difference(stage: &StageValues, expected: &StageValues) -> f32 {
    let pairs = stage.values.iter().zip(&expected.values);
    pairs.fold(0.0_f32, |largest, (a, b)| {
        let difference = (a - b).abs();
        if difference.is_nan() {
            f32::INFINITY
        } else {
            largest.max(difference)
        }
    })
}
