//! Compares this crate with recordings of the original implementation, fixture by fixture.
//!
//! A fixture is a folder with `config.json`, `io.safetensors` and, for networks, `weights.safetensors`
//! ([`fixture`]). One function per fixture, listed in [`FIXTURES`], rebuilds the instance from its own
//! config and computes tensors under the names of `io.safetensors`; which of them count, and how
//! closely they must agree, is written beside the fixtures in `tolerances.json` ([`check`]). Nothing
//! here knows the sizes of the shipped recordings.
//!
//! It runs natively and in a browser's worker, so it reads nothing but what [`Recordings`] gives and
//! never blocks.
//!
//! To add a fixture: write `async fn run(&Fixture, &Device) -> Result<Computed, Fault>` in a file of
//! this folder and add one line to [`FIXTURES`].

pub mod check;
pub mod fixture;
mod language;
mod picture;
#[cfg(feature = "native")]
mod published;
pub mod upn;
mod vision;
mod words;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::tensor::Device;
use serde::Serialize;

use crate::error::Fault;
use crate::memory::KvCacheDType;
use crate::weights::source::LocalFuture;
use check::{Check, Tolerances};
pub use fixture::{Array, Computed, Fixture, FixtureWeights, Recordings};

/// Rebuilds one fixture on a device and gives what it computed.
pub type Implementation =
    for<'a> fn(&'a Fixture, &'a Device) -> LocalFuture<'a, Result<Computed, Fault>>;

macro_rules! of {
    ($run:path) => {
        |fixture, device| Box::pin($run(fixture, device))
    };
}

/// Every fixture that is compared, by the name of its folder. Those of the converter are native.
pub const FIXTURES: &[(&str, Implementation)] = &[
    ("llama_untied", of!(language::decoder)),
    ("qwen2_tied", of!(language::decoder)),
    ("qwen2_untied", of!(language::decoder)),
    ("rexseek", of!(language::rexseek)),
    ("ms_deform_attn", of!(upn::ms_deform_attn)),
    ("swin", of!(upn::swin)),
    ("upn", of!(upn::upn)),
    ("upn_decoder_layer", of!(upn::upn_decoder_layer)),
    ("upn_encoder_layer", of!(upn::upn_encoder_layer)),
    ("upn_helpers", of!(upn::upn_helpers)),
    ("box_encoder", of!(vision::box_encoder)),
    #[cfg(feature = "native")]
    ("checkpoint", of!(published::checkpoint)),
    #[cfg(feature = "native")]
    ("tokenizer_llama", of!(published::tokenizer_llama)),
    ("clip_vision", of!(vision::clip_vision)),
    ("convnext", of!(vision::convnext)),
    ("projectors", of!(vision::projectors)),
    ("roi_align", of!(vision::roi_align)),
    ("parse_nms", of!(words::parse_nms)),
    ("preprocess", of!(picture::preprocess)),
    ("tokenizer", of!(words::tokenizer)),
    ("upn_postprocess", of!(picture::upn_postprocess)),
    ("upn_resize_table", of!(picture::upn_resize_table)),
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
    /// A report on folders.
    pub fn of(fixtures: Vec<FixtureReport>) -> Self {
        let checks = || fixtures.iter().flat_map(|fixture| &fixture.checks);
        let passed = checks().filter(|check| check.pass).count();
        Self {
            passed,
            failed: checks().count() - passed,
            skipped: 0,
            fixtures,
        }
    }

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

/// Recordings, and what of them counts.
pub struct Golden {
    files: Rc<dyn Recordings>,
    folder: PathBuf,
    tolerances: Tolerances,
    cache: KvCacheDType,
}

impl Golden {
    /// Opens `folder` of `files`, which holds fixtures and `tolerances.json`. On a graphics device keys
    /// and values are held in the form `cache`.
    ///
    /// # Errors
    /// `tolerances.json` cannot be read.
    pub fn open(
        files: Rc<dyn Recordings>,
        folder: &Path,
        cache: KvCacheDType,
    ) -> Result<Self, Fault> {
        Ok(Self {
            cache,
            tolerances: Tolerances::read(&*files, &folder.join("tolerances.json"))?,
            folder: folder.to_path_buf(),
            files,
        })
    }

    /// Compares the fixture `name`, computing on `device`. What goes wrong is a failed check, and so
    /// is a folder that nothing implements or of which nothing counts; a panic goes through.
    pub async fn compare(&self, name: &str, device: &Device) -> FixtureReport {
        self.report(name, async |implementation, fixture| {
            let computed = implementation(fixture, device).await;
            computed.map_err(|fault| fault.to_string())
        })
        .await
    }

    async fn report(
        &self,
        name: &str,
        compute: impl AsyncFnOnce(Implementation, &Fixture) -> Result<Computed, String>,
    ) -> FixtureReport {
        let report = |checks| FixtureReport {
            name: name.to_string(),
            checks,
        };
        let failed = |note: &str| report(vec![Check::failed("fixture", 0.0, note)]);
        let Some(&(_, implementation)) = FIXTURES.iter().find(|(known, _)| *known == name) else {
            return failed("nothing implements it");
        };
        let fixture = match Fixture::open(self.files.clone(), &self.folder.join(name)) {
            Ok(fixture) => fixture.with_cache(self.cache),
            Err(fault) => return failed(&fault.to_string()),
        };
        let computed = compute(implementation, &fixture).await;
        let computed = computed.as_ref().map_err(String::as_str);
        match self.tolerances.checks(name, &fixture, computed) {
            none if none.is_empty() => failed("tolerances.json counts nothing of it"),
            checks => report(checks),
        }
    }
}

/// Compares every fixture folder below `golden`, or the one called `only`, computing on `device`
/// with keys and values in the form `cache`.
///
/// # Errors
/// `golden` or its `tolerances.json` cannot be read, or there is no folder `only`. What goes wrong
/// inside a fixture is a failed check instead, a panic too.
#[cfg(feature = "native")]
pub fn run(
    golden: &Path,
    only: Option<&str>,
    device: &Device,
    cache: KvCacheDType,
) -> Result<Report, Fault> {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let mut names = folders(golden)?;
    if let Some(only) = only {
        names.retain(|name| name == only);
        if names.is_empty() {
            return Err(Fault::new(
                crate::error::FaultKind::File,
                golden.join(only).display().to_string(),
                "there is no such fixture folder",
                "Give the name of a folder inside the golden directory",
            ));
        }
    }
    let golden = Golden::open(Rc::new(fixture::Disk), golden, cache)?;
    let fixtures = names.iter().map(|name| {
        pollster::block_on(golden.report(name, async |implementation, fixture| {
            let run = || pollster::block_on(implementation(fixture, device));
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(computed) => computed.map_err(|fault| fault.to_string()),
                Err(panic) => {
                    let words = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("no message");
                    Err(format!("panicked: {words}"))
                }
            }
        }))
    });
    Ok(Report::of(fixtures.collect()))
}

#[cfg(feature = "native")]
fn folders(golden: &Path) -> Result<std::collections::BTreeSet<String>, Fault> {
    let entries = std::fs::read_dir(golden).map_err(|error| Fault::file(golden, error))?;
    let mut folders = std::collections::BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|error| Fault::file(golden, error))?.path();
        if path.is_dir()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            folders.insert(name.to_string());
        }
    }
    Ok(folders)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    /// How far logits may be off with keys and values in half precision.
    const HALF: f64 = 0.03;

    /// The processor's turn is in `tests/parity.rs`.
    #[test]
    fn every_fixture_agrees_on_a_graphics_device() {
        let Some(device) = adapter_for_test("every_fixture_agrees_on_a_graphics_device") else {
            return;
        };
        let golden = Path::new("tests/data/golden");
        let report = |cache| run(golden, None, &device, cache).expect("a readable golden folder");
        let single = report(KvCacheDType::F32);
        assert_eq!(single.failed, 0, "{}", single.table());
        // Tolerances are those of single precision: with keys and values rounded to eleven bits the
        // same tokens are chosen, from logits up to some ten that are a little off.
        let half = report(KvCacheDType::F16);
        for fixture in &half.fixtures {
            for check in fixture.checks.iter().filter(|check| !check.pass) {
                let close = check.error.is_some_and(|error| error < HALF);
                let logits = check.key.contains("logits");
                assert!(
                    logits && close,
                    "{} {}\n{}",
                    fixture.name,
                    check.key,
                    half.table()
                );
            }
        }
    }

    #[test]
    fn unknown_folders_fail() {
        let golden = std::env::temp_dir().join(format!("parity-run-{}", std::process::id()));
        std::fs::create_dir_all(golden.join("no_such_network"))
            .expect("a writable temporary folder");
        std::fs::write(golden.join("tolerances.json"), "{}").expect("a writable temporary folder");
        let report = run(&golden, None, &Device::flex(), KvCacheDType::F32)
            .expect("a readable golden folder");
        let missing = run(&golden, Some("absent"), &Device::flex(), KvCacheDType::F32);
        std::fs::remove_dir_all(&golden).expect("the folder made above");
        assert_eq!((report.passed, report.failed, report.skipped), (0, 1, 0));
        let table = report.table();
        assert_eq!(table.lines().last(), Some("0 passed, 1 failed, 0 skipped"));
        assert!(missing.is_err());
    }
}
