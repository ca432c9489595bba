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

/// The programs as wasm-bindgen leaves them.
const PROGRAMS: [&str; 2] = ["page_bg.wasm", "worker_bg.wasm"];

/// What the linker appends to the names of such wrappers, kept in the `name` section.
const COMMAND_EXPORT: &[u8] = b".command_export";

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
    for program in PROGRAMS {
        let file = place::site().join(program);
        let wasm = fs::read(&file).with_context(|| program.to_owned())?;
        ensure!(
            !wasm
                .windows(COMMAND_EXPORT.len())
                .any(|w| w == COMMAND_EXPORT),
            "{program}: the linker wrapped its exports so that every call runs all constructors \
             again. Call `__wasm_call_ctors` in its start function"
        );
        let without = without_names(&wasm).with_context(|| format!("{program}: no WebAssembly"))?;
        fs::write(&file, without).with_context(|| program.to_owned())?;
    }
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
    let program = fs::read_to_string(place::root().join("web/static/service_worker.js"))
        .context("web/static/service_worker.js")?;
    let version = hex(list.as_bytes());
    fs::write(
        site.join("service_worker.js"),
        format!("const FILES = {list};\nconst VERSION = \"{version}\";\n{program}"),
    )
    .context("service_worker.js")
}

/// A WebAssembly module without its `name` section, which is twice as long as the code and only
/// read by debuggers; nothing when `module` is malformed.
fn without_names(module: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 8;
    const CUSTOM: u8 = 0;
    let mut kept = module.get(..HEADER)?.to_vec();
    let mut at = HEADER;
    while at < module.len() {
        let (length, start) = leb128(module, at + 1)?;
        let end = start.checked_add(length)?;
        let content = module.get(start..end)?;
        if module[at] != CUSTOM || !content.starts_with(b"\x04name") {
            kept.extend_from_slice(&module[at..end]);
        }
        at = end;
    }
    Some(kept)
}

/// The unsigned number that starts at `at`, and the place after it.
fn leb128(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(at)?;
        number |= usize::from(byte & 0x7f) << shift;
        at += 1;
        if byte & 0x80 == 0 {
            return Some((number, at));
        }
    }
    None
}

/// The SHA-256 of `bytes` in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_section_goes() {
        let head = b"\0asm\x01\0\0\0";
        let names = b"\0\x06\x04nameX";
        let other = b"\0\x05\x04nama";
        let code = [&[10u8, 0x82, 0x01][..], &[7; 130]].concat();
        let module = [&head[..], other, names, &code].concat();
        let kept = [&head[..], other, &code].concat();
        assert_eq!(without_names(&module), Some(kept));
        assert_eq!(without_names(&module[..module.len() - 1]), None);
    }
}
