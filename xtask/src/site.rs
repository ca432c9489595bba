//! Builds the page into a folder of static files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::place;
use crate::process::run;
use crate::setup::{self, WasmCompiler};

/// Files a host reads itself and a page never asks for.
const NOT_OFFLINE: [&str; 2] = ["_headers", "service_worker.js"];

/// Sets up what is missing and builds the page into [`place::site`].
///
/// # Errors
/// When something cannot be set up or does not compile.
pub fn build() -> Result<()> {
    let compiler = WasmCompiler::ready()?;
    setup::bundler()?;
    run(compiler
        .command("trunk")
        .args(["build", "--skip-version-check", "--dist"])
        .arg(place::site()))?;
    offline(&place::site())
}

/// `cargo xtask dist`: builds and copies to `out`.
///
/// # Errors
/// When the build fails or `out` holds something else than an earlier copy.
pub fn dist(out: &Path) -> Result<bool> {
    ensure!(
        !out.exists()
            || out.join("service_worker.js").is_file()
            || fs::read_dir(out)?.next().is_none(),
        "{}: holds other files. Name a new folder",
        out.display()
    );
    build()?;
    let bytes = copy(out)?;
    println!("{}: {:.1} MB", out.display(), bytes as f64 / 1e6);
    Ok(true)
}

/// Copies what was built to `out`, in place of anything there; the bytes copied.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy(out: &Path) -> Result<u64> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    let mut bytes = 0;
    for path in files(&place::site())? {
        let to = out.join(&path);
        fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
        bytes +=
            fs::copy(place::site().join(&path), &to).with_context(|| to.display().to_string())?;
    }
    Ok(bytes)
}

/// Writes the service worker: the list of the site's files and their SHA-256, then the program.
fn offline(site: &Path) -> Result<()> {
    let mut hashes = BTreeMap::new();
    for path in files(site)? {
        if !NOT_OFFLINE.contains(&path.as_str()) {
            let bytes = fs::read(site.join(&path)).with_context(|| path.clone())?;
            hashes.insert(path, hex(&bytes));
        }
    }
    let list = serde_json::to_string(&hashes)?;
    let program = fs::read_to_string(place::root().join("web/service_worker.js"))
        .context("web/service_worker.js")?;
    let version = hex(list.as_bytes());
    fs::write(
        site.join("service_worker.js"),
        format!("const FILES = {list};\nconst VERSION = \"{version}\";\n{program}"),
    )
    .context("service_worker.js")
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Every file under `folder`, as sorted paths relative to it with forward slashes.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{path}/"), found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}
