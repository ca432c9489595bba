//! `cargo xtask bench` and `bench-rivals`: benchmarks in a headless browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::files;
use crate::paths;
use crate::process::run;
use crate::serve::Running;
use crate::setup::{self, Browser};
use crate::site;

/// Options of `cargo xtask bench`.
#[derive(Debug, Default, PartialEq)]
pub struct Bench {
    /// The given fields of `diagnostics::bench::Plan`.
    pub plan: Map<String, Value>,
    /// A model folder; none is nano.
    pub model: Option<PathBuf>,
    /// File for the report as JSON; `-` is standard output.
    pub json: Option<String>,
    /// Use the GPU of this machine, not the software adapter.
    pub gpu: bool,
}

/// Options of `cargo xtask bench-rivals`.
#[derive(Debug, Default, PartialEq)]
pub struct Rivals {
    /// Layer names of `tests/reference/layer.py`; empty for [`SHAPES`].
    pub shapes: Vec<String>,
    /// Prefixes of case names; empty for all cases.
    pub cases: Vec<String>,
    /// Timed runs per case; 0 depends on the adapter.
    pub repeats: u32,
    /// WebGPU features to hide from the other runtime.
    pub without: Vec<String>,
    /// File for the result as JSON.
    pub json: Option<String>,
    /// Use the GPU of this machine, not the software adapter.
    pub gpu: bool,
    /// Measure natively on the CPU, not in a browser.
    pub cpu: bool,
    /// Install PyTorch for the measurement on the CPU.
    pub torch: bool,
}

/// The layers of a run that names none.
pub const SHAPES: [&str; 4] = ["d896", "d2048", "clip-l", "convnext-768"];

/// Response headers that let the other runtime use threads and compile WebAssembly.
const HEADERS: &str = "/*\n  Cross-Origin-Opener-Policy: same-origin\n  \
                       Cross-Origin-Embedder-Policy: require-corp\n  Cache-Control: no-cache\n";

/// Runs the rows of `chatrex bench` in a browser.
///
/// # Errors
/// When the site does not build or the browser does not start.
pub fn bench(bench: &Bench) -> Result<bool> {
    site::build_for_tests()?;
    let folder = paths::target().join("bench-site");
    files::replace(&paths::test_site(), &folder)?;
    let model = match &bench.model {
        None => "models/nano",
        Some(model) => {
            let to = folder.join("models/benchmark");
            link_files(model, &to)?;
            "models/benchmark"
        }
    };
    let json = bench.json.as_deref().map(absolute).transpose()?;
    let request = json!({"plan": bench.plan, "model": model, "json": json});
    in_browser("bench", &folder, ("CHATREX_BENCH", &request), bench.gpu)
}

/// Runs layers in this engine and in the other runtime, interleaved.
///
/// # Errors
/// When a tool is missing, the site does not build or the browser does not start.
pub fn rivals(rivals: &Rivals) -> Result<bool> {
    let shapes: Vec<&str> = match rivals.shapes.is_empty() {
        true => SHAPES.to_vec(),
        false => rivals.shapes.iter().map(String::as_str).collect(),
    };
    let layers = paths::target().join("layers");
    generate_layers(&layers, &shapes)?;
    site::build_for_tests()?;
    Browser::ready()?;
    let folder = paths::target().join("rivals-site");
    files::replace(&paths::test_site(), &folder)?;
    let own = paths::root().join("tests/rivals");
    for file in files::files(&own)? {
        fs::copy(own.join(&file), folder.join(&file)).with_context(|| file.clone())?;
    }
    fs::write(folder.join("_headers"), HEADERS).context("_headers")?;
    link_files(
        &paths::root().join("node_modules/onnxruntime-web/dist"),
        &folder.join("ort"),
    )?;
    for shape in &shapes {
        link_files(&layers.join(shape), &folder.join("layers").join(shape))?;
    }
    let json = rivals.json.as_deref().map(absolute).transpose()?;
    let request = json!({
        "shapes": shapes, "cases": rivals.cases, "repeats": rivals.repeats,
        "without": rivals.without, "json": json,
    });
    in_browser("rivals", &folder, ("CHATREX_RIVALS", &request), rivals.gpu)
}

/// Generates layers that are missing or come from another version of the script.
///
/// # Errors
/// When Python is missing or the script has no such layer.
pub fn generate_layers(folder: &Path, shapes: &[&str]) -> Result<()> {
    let script = paths::root().join("tests/reference/layer.py");
    let version = files::hex(&fs::read(&script).with_context(|| script.display().to_string())?);
    let missing = shapes.iter().filter(|shape| {
        let meta = fs::read(folder.join(shape).join("meta.json"));
        let meta: Option<Value> = meta
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        meta.is_none_or(|meta| meta["script"] != version.as_str())
    });
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let python = setup::python()?;
    run(Command::new(python).arg(script).arg(folder).args(missing))
}

/// Hard-links the files of a folder into `to`, or copies them where links fail.
fn link_files(folder: &Path, to: &Path) -> Result<()> {
    ensure!(folder.is_dir(), "{}: is not a folder", folder.display());
    for file in files::files(folder)? {
        let (from, to) = (folder.join(&file), to.join(&file));
        fs::create_dir_all(to.parent().expect("a file has a folder"))?;
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

/// An absolute path; `-` stays.
fn absolute(path: &str) -> Result<String> {
    if path == "-" {
        return Ok(path.into());
    }
    let path = std::path::absolute(path).with_context(|| path.to_owned())?;
    Ok(path.display().to_string())
}

/// Serves a folder and runs `tests/browser/NAME.mjs`; true if it succeeds.
fn in_browser(name: &str, folder: &Path, request: (&str, &Value), gpu: bool) -> Result<bool> {
    let browser = Browser::ready()?;
    let running = Running::start(folder, "/", 0)?;
    let mut program = Command::new("node");
    program
        .arg(format!("tests/browser/{name}.mjs"))
        .current_dir(paths::root())
        .env("CHATREX_BROWSER", browser.chromium)
        .env("CHATREX_URL", format!("http://localhost:{}/", running.port))
        .env(request.0, request.1.to_string());
    if gpu {
        program.env("CHATREX_GPU", "1");
    }
    Ok(program.status().context("node")?.success())
}
