//! Compares this crate with recordings of the original implementation, fixture by fixture.
//!
//! A fixture is a folder with `config.json`, `io.safetensors` and, for networks, `weights.safetensors`
//! ([`fixture`]). One function per fixture, listed in [`FIXTURES`], rebuilds the instance from its own
//! config and computes tensors under the names of `io.safetensors`; which of them count, and how
//! closely they must agree, is written beside the fixtures in `tolerances.json` ([`check`]). Nothing
//! here knows the sizes of the shipped recordings.
//!
//! To add a fixture: write `fn run(&Fixture, &Device) -> Result<Computed, Fault>` in a file of this
//! folder and add one line to [`FIXTURES`].

pub mod check;
pub mod fixture;
mod language;
mod picture;
mod published;
pub mod upn;
mod vision;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;

use crate::fault::{Fault, FaultKind};
use check::{Check, Tolerances};
pub use fixture::{Array, Computed, Fixture, FixtureWeights};

/// Rebuilds one fixture on a device and returns what it computed.
pub type Implementation = fn(&Fixture, &Device) -> Result<Computed, Fault>;

/// Every fixture that is compared, by the name of its folder.
pub const FIXTURES: &[(&str, Implementation)] = &[
    ("llama_untied", language::decoder),
    ("qwen2_tied", language::decoder),
    ("qwen2_untied", language::decoder),
    ("rexseek", language::rexseek),
    ("ms_deform_attn", upn::ms_deform_attn),
    ("swin", upn::swin),
    ("upn", upn::upn),
    ("upn_decoder_layer", upn::upn_decoder_layer),
    ("upn_encoder_layer", upn::upn_encoder_layer),
    ("upn_helpers", upn::upn_helpers),
    ("box_encoder", vision::box_encoder),
    ("checkpoint", published::checkpoint),
    ("tokenizer_llama", published::tokenizer_llama),
    ("clip_vision", vision::clip_vision),
    ("convnext", vision::convnext),
    ("projectors", vision::projectors),
    ("roi_align", vision::roi_align),
    ("parse_nms", words::parse_nms),
    ("preprocess", picture::preprocess),
    ("tokenizer", words::tokenizer),
    ("upn_postprocess", picture::upn_postprocess),
    ("upn_resize_table", picture::upn_resize_table),
];

/// What a comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One entry per folder, in alphabetical order.
    pub fixtures: Vec<FixtureReport>,
    /// Checks that passed.
    pub passed: usize,
    /// Checks that failed.
    pub failed: usize,
    /// Folders passed over; none is.
    pub skipped: usize,
}

/// What a comparison found in one folder.
#[derive(Clone, Debug, Serialize)]
pub struct FixtureReport {
    /// The folder's name.
    pub name: String,
    /// One per counted key.
    pub checks: Vec<Check>,
}

impl Report {
    /// The report as a table; the last line is `N passed, N failed, N skipped`.
    pub fn table(&self) -> String {
        let key_width = self
            .fixtures
            .iter()
            .flat_map(|fixture| &fixture.checks)
            .map(|check| check.key.len())
            .max()
            .unwrap_or(0);
        let mut table = String::new();
        for fixture in &self.fixtures {
            let _ = writeln!(table, "{}", fixture.name);
            for check in &fixture.checks {
                let verdict = if check.pass { "ok" } else { "FAILED" };
                let error = check
                    .error
                    .map_or_else(|| "-".to_string(), |error| format!("{error:.2e}"));
                let tolerance = check.tolerance;
                let _ = write!(
                    table,
                    "  {:key_width$}  {error:>9} <= {tolerance:<9} {verdict}",
                    check.key
                );
                if !check.note.is_empty() {
                    let _ = write!(table, "  {}", check.note);
                }
                table.push('\n');
            }
        }
        let _ = write!(
            table,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        table
    }
}

/// Compares every fixture folder below `golden`, or the one called `only`, computing on `device`.
///
/// A folder that nothing implements fails; so does a fixture of which nothing counts.
///
/// # Errors
/// `golden` or its `tolerances.json` cannot be read, or there is no folder `only`. What goes wrong
/// inside a fixture is a failed check instead.
pub fn run(golden: &Path, only: Option<&str>, device: &Device) -> Result<Report, Fault> {
    let tolerances = Tolerances::read(&golden.join("tolerances.json"))?;
    let mut folders = folders(golden)?;
    if let Some(only) = only {
        folders.retain(|name, _| name == only);
        if folders.is_empty() {
            return Err(Fault::new(
                FaultKind::File,
                golden.join(only).display().to_string(),
                "there is no such fixture folder",
                "Give the name of a folder inside the golden directory",
            ));
        }
    }
    let mut report = Report {
        fixtures: Vec::new(),
        passed: 0,
        failed: 0,
        skipped: 0,
    };
    for (name, folder) in folders {
        let checks = compare(&name, &folder, &tolerances, device);
        report.passed += checks.iter().filter(|check| check.pass).count();
        report.failed += checks.iter().filter(|check| !check.pass).count();
        report.fixtures.push(FixtureReport { name, checks });
    }
    Ok(report)
}

fn folders(golden: &Path) -> Result<BTreeMap<String, PathBuf>, Fault> {
    let entries = std::fs::read_dir(golden).map_err(|error| Fault::file(golden, error))?;
    let mut folders = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| Fault::file(golden, error))?.path();
        if path.is_dir()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            folders.insert(name.to_string(), path.clone());
        }
    }
    Ok(folders)
}

fn compare(name: &str, folder: &Path, tolerances: &Tolerances, device: &Device) -> Vec<Check> {
    let Some((_, implementation)) = FIXTURES.iter().find(|(known, _)| *known == name) else {
        return vec![Check::failed("fixture", 0.0, "nothing implements it")];
    };
    let fixture = match Fixture::open(folder) {
        Ok(fixture) => fixture,
        Err(fault) => return vec![Check::failed("fixture", 0.0, &fault.to_string())],
    };
    let computed = catch_unwind(AssertUnwindSafe(|| implementation(&fixture, device)))
        .map_err(|panic| {
            let words = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            format!("panicked: {words}")
        })
        .and_then(|computed| computed.map_err(|fault| fault.to_string()));
    let checks = tolerances.checks(name, &fixture, computed.as_ref().map_err(String::as_str));
    if checks.is_empty() {
        return vec![Check::failed(
            "fixture",
            0.0,
            "tolerances.json counts nothing of it",
        )];
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::device::adapter_for_test;

    /// The processor's turn is in `tests/parity.rs`.
    #[test]
    fn every_fixture_agrees_on_a_graphics_device() {
        let Some(device) = adapter_for_test("every_fixture_agrees_on_a_graphics_device") else {
            return;
        };
        let golden = Path::new("tests/data/golden");
        let report = run(golden, None, &device).expect("a readable golden folder");
        assert_eq!(report.failed, 0, "{}", report.table());
    }

    #[test]
    fn unknown_folders_fail() {
        let golden = std::env::temp_dir().join(format!("parity-run-{}", std::process::id()));
        std::fs::create_dir_all(golden.join("no_such_network"))
            .expect("a writable temporary folder");
        std::fs::write(golden.join("tolerances.json"), "{}").expect("a writable temporary folder");
        let report = run(&golden, None, &Device::flex()).expect("a readable golden folder");
        let missing = run(&golden, Some("absent"), &Device::flex());
        std::fs::remove_dir_all(&golden).expect("the folder made above");
        assert_eq!((report.passed, report.failed, report.skipped), (0, 1, 0));
        let table = report.table();
        assert_eq!(table.lines().last(), Some("0 passed, 1 failed, 0 skipped"));
        assert!(missing.is_err());
    }
}
