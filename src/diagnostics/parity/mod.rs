//! Compares this crate with recordings of the original implementation, fixture by fixture.
//!
//! A fixture is a folder with `config.json`, `io.safetensors` and, for networks, `weights.safetensors`
//! ([`fixture`]). [`FIXTURES`] has one function per fixture: it builds the instance from the fixture's
//! own config and computes tensors under the keys of `io.safetensors`. `tolerances.json`, beside the
//! fixtures, says which keys count and how closely they must agree ([`check`]). No function depends on
//! the sizes of a particular recording.
//!
//! It runs natively and in a browser's worker: it reads files through [`Recordings`] and never blocks.
//!
//! To add a fixture: write `async fn run(&Fixture, &Device) -> Result<Computed, Fault>` in a file of
//! this folder and add one line to [`FIXTURES`].

pub mod check;
#[cfg(feature = "native")]
mod converter;
mod decoder;
mod detector;
pub mod fixture;
mod glob;
mod image;
mod looking;
mod text;
pub mod upn;
mod vision;

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

/// Computes one fixture on a device.
pub type Implementation =
    for<'a> fn(&'a Fixture, &'a Device) -> LocalFuture<'a, Result<Computed, Fault>>;

macro_rules! boxed {
    ($run:path) => {
        |fixture, device| Box::pin($run(fixture, device))
    };
}

/// The implemented fixtures by the name of their folder. Those of the converter are native only.
pub const FIXTURES: &[(&str, Implementation)] = &[
    ("llama_untied", boxed!(decoder::decoder)),
    ("qwen2_tied", boxed!(decoder::decoder)),
    ("qwen2_untied", boxed!(decoder::decoder)),
    ("rexseek", boxed!(decoder::rexseek)),
    ("nanodet", boxed!(detector::nanodet)),
    ("ms_deform_attn", boxed!(upn::ms_deform_attn)),
    ("swin", boxed!(upn::swin)),
    ("upn", boxed!(upn::upn)),
    ("upn_decoder_layer", boxed!(upn::upn_decoder_layer)),
    ("upn_encoder_layer", boxed!(upn::upn_encoder_layer)),
    ("upn_helpers", boxed!(upn::upn_helpers)),
    ("box_encoder", boxed!(vision::box_encoder)),
    #[cfg(feature = "native")]
    ("checkpoint", boxed!(converter::checkpoint)),
    #[cfg(feature = "native")]
    ("tokenizer_llama", boxed!(converter::tokenizer_llama)),
    ("clip_vision", boxed!(vision::clip_vision)),
    ("convnext", boxed!(vision::convnext)),
    ("projectors", boxed!(vision::projectors)),
    ("roi_align", boxed!(vision::roi_align)),
    ("parse_nms", boxed!(text::parse_nms)),
    ("preprocess", boxed!(image::preprocess)),
    ("tokenizer", boxed!(text::tokenizer)),
    ("upn_postprocess", boxed!(image::upn_postprocess)),
    ("upn_resize_table", boxed!(image::upn_resize_table)),
    ("vpt_region", boxed!(looking::vpt_region)),
];

fn implementation(name: &str) -> Option<Implementation> {
    let found = FIXTURES.iter().find(|(known, _)| *known == name);
    found.map(|&(_, implementation)| implementation)
}

/// The result of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One entry per folder, in alphabetical order.
    pub fixtures: Vec<FixtureReport>,
    /// Number of checks that passed.
    pub passed: usize,
    /// Number of checks that failed.
    pub failed: usize,
    /// Number of folders that were skipped.
    pub skipped: usize,
}

/// The result of one folder.
#[derive(Clone, Debug, Serialize)]
pub struct FixtureReport {
    /// The folder's name.
    pub name: String,
    /// One check per counted key.
    pub checks: Vec<Check>,
    /// Why the folder was skipped; absent if it was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<&'static str>,
}

impl Report {
    /// The report on these folders.
    pub fn new(fixtures: Vec<FixtureReport>) -> Self {
        let checks = || fixtures.iter().flat_map(|fixture| &fixture.checks);
        let passed = checks().filter(|check| check.pass).count();
        let skipped = fixtures.iter().filter(|fixture| fixture.skipped.is_some());
        Self {
            passed,
            failed: checks().count() - passed,
            skipped: skipped.count(),
            fixtures,
        }
    }

    /// Whether at least one check ran and none failed.
    pub fn is_good(&self) -> bool {
        self.passed > 0 && self.failed == 0
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
            match fixture.skipped {
                Some(reason) => {
                    let _ = writeln!(table, "{}  skipped: {reason}", fixture.name);
                }
                None => {
                    let _ = writeln!(table, "{}", fixture.name);
                }
            }
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

/// A folder of fixtures and its tolerances.
pub struct Golden {
    files: Rc<dyn Recordings>,
    folder: PathBuf,
    tolerances: Tolerances,
    cache: KvCacheDType,
}

impl Golden {
    /// Opens `folder` of `files`, which holds fixtures and `tolerances.json`. `cache` is the KV-cache
    /// dtype on a GPU.
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

    /// Compares the fixture `name`, computing on `device`. A folder without an implementation is
    /// skipped. Any error is a failed check, as is an implemented fixture of which no key counts;
    /// panics are not caught.
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
            skipped: None,
        };
        let failed = |note: &str| report(vec![Check::failed("fixture", 0.0, note)]);
        let Some(implementation) = implementation(name) else {
            return FixtureReport {
                skipped: Some("not implemented"),
                ..report(Vec::new())
            };
        };
        let fixture = match Fixture::open(self.files.clone(), &self.folder.join(name)) {
            Ok(fixture) => fixture.with_cache(self.cache),
            Err(fault) => return failed(&fault.to_string()),
        };
        let computed = compute(implementation, &fixture).await;
        let computed = computed.as_ref().map_err(String::as_str);
        match self.tolerances.checks(name, &fixture, computed) {
            none if none.is_empty() => failed("no key of it counts by tolerances.json"),
            checks => report(checks),
        }
    }
}

/// Compares every fixture folder in `golden`, or the one called `only`, computing on `device` with a
/// KV cache of dtype `cache`.
///
/// # Errors
/// `golden` or its `tolerances.json` cannot be read, or there is no folder `only`. An error or a panic
/// inside a fixture is a failed check instead.
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
                    let message = panic
                        .downcast_ref::<String>()
                        .map(String::as_str)
                        .or_else(|| panic.downcast_ref::<&str>().copied())
                        .unwrap_or("no message");
                    Err(format!("panicked: {message}"))
                }
            }
        }))
    });
    Ok(Report::new(fixtures.collect()))
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

    /// Largest error of logits with an f16 KV cache.
    const F16_TOLERANCE: f64 = 0.03;

    /// `tests/parity.rs` runs the fixtures on the CPU.
    #[test]
    fn every_fixture_agrees_on_a_gpu() {
        let Some(device) = adapter_for_test("every_fixture_agrees_on_a_gpu") else {
            return;
        };
        let golden = Path::new("tests/data/golden");
        let report = |cache| run(golden, None, &device, cache).expect("a readable golden folder");
        let single = report(KvCacheDType::F32);
        assert_eq!(single.failed, 0, "{}", single.table());
        // The tolerances are for f32. An f16 KV cache has 11 significant bits: logits of about 10 are
        // slightly off, the greedy tokens are the same.
        let half = report(KvCacheDType::F16);
        for fixture in &half.fixtures {
            for check in fixture.checks.iter().filter(|check| !check.pass) {
                let close = check.error.is_some_and(|error| error < F16_TOLERANCE);
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
    fn unimplemented_folders_are_skipped_and_uncounted_ones_fail() {
        let golden = tempfile::tempdir().expect("a temporary folder");
        for name in ["no_such_network", "roi_align"] {
            std::fs::create_dir(golden.path().join(name)).expect("a folder");
        }
        std::fs::write(golden.path().join("tolerances.json"), "{}").expect("a file");
        let device = Device::flex();
        let run = |only| run(golden.path(), only, &device, KvCacheDType::F32);
        let report = run(None).expect("a readable golden folder");
        assert_eq!((report.passed, report.failed, report.skipped), (0, 1, 1));
        let table = report.table();
        assert_eq!(table.lines().last(), Some("0 passed, 1 failed, 1 skipped"));
        assert!(
            table.contains("no_such_network  skipped: not implemented"),
            "{table}"
        );
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(json["fixtures"][0]["skipped"], "not implemented");
        assert_eq!(json["fixtures"][1].get("skipped"), None);
        let report = run(Some("no_such_network")).expect("a readable golden folder");
        assert!(report.failed == 0 && !report.is_good());
        assert!(run(Some("absent")).is_err());
    }
}
