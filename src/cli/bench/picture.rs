//! `chatrex bench --picture`: resizing a picture to the inputs of ChatRex-7B.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::diagnostics::bench::median;
use crate::error::Fault;
use crate::image::prepare::{ShortSideRecipe, SquareRecipe};
use crate::image::{Pixels, decode};
use crate::weights::manifest::sha256_hex;

/// Timed runs of a row by default.
const REPEATS: usize = 9;

/// The rows of a picture.
#[derive(Serialize)]
pub(super) struct Report {
    width: u32,
    height: u32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// Median.
    milliseconds: f64,
    /// SHA-256 of the RGB bytes.
    sha256: String,
}

/// Measures each row `repeats` times, or by default [`REPEATS`] times.
///
/// # Errors
/// The picture cannot be read or decoded.
pub(super) fn measure(file: &Path, repeats: usize) -> Result<Report, Fault> {
    let repeats = if repeats == 0 { REPEATS } else { repeats };
    let pixels = decode::open(file)?;
    let row = |name, run: &dyn Fn() -> Pixels| {
        let sha256 = sha256_hex(&run().rgb);
        let timed = |_| {
            let start = Instant::now();
            let resized = run();
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            drop(resized);
            milliseconds
        };
        let mut times: Vec<f64> = (0..repeats).map(timed).collect();
        let milliseconds = median(&mut times).expect("at least one run");
        Row {
            name,
            milliseconds,
            sha256,
        }
    };
    let rows = vec![
        row("upn", &|| ShortSideRecipe::UPN.resized(&pixels)),
        row("towers", &|| SquareRecipe::CHATREX.resized(&pixels)),
    ];
    Ok(Report {
        width: pixels.width,
        height: pixels.height,
        rows,
    })
}

impl Report {
    /// One line per row.
    pub(super) fn table(&self) -> String {
        let mut lines = vec![format!("{} x {}", self.width, self.height)];
        lines.extend(self.rows.iter().map(|row| {
            let (name, milliseconds) = (row.name, row.milliseconds);
            format!("{name:<8} {milliseconds:>8.2} ms")
        }));
        lines.join("\n")
    }
}
