//! `cargo xtask bench` and `bench-rivals`: measuring in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::place;
use crate::process::run;
use crate::serve::Running;
use crate::setup::{self, Browser};
use crate::site;

/// What `cargo xtask bench` measures.
#[derive(Debug, Default, PartialEq)]
pub struct Bench {
    /// The fields of `diagnostics::bench::Plan` that were given.
    pub plan: Map<String, Value>,
    /// A model folder; nano without.
    pub model: Option<PathBuf>,
    /// Where the report goes as JSON; `-` is standard output.
    pub json: Option<String>,
    /// On the graphics card of this machine instead of software.
    pub gpu: bool,
}

/// What `cargo xtask bench-rivals` measures.
#[derive(Debug, Default, PartialEq)]
pub struct Rivals {
    /// Names of layers, as `tests/reference/layer.py` lists them.
    pub shapes: Vec<String>,
    /// Beginnings of the cases' names; all without any.
    pub cases: Vec<String>,
    /// Timed runs of every case; 0 chooses by the adapter.
    pub repeats: u32,
    /// Features of the adapter that the other runtime is not told of.
    pub without: Vec<String>,
    /// Where the result goes as JSON.
    pub json: Option<String>,
    /// On the graphics card of this machine instead of software.
    pub gpu: bool,
}

/// Layers that are measured where none is named.
pub const SHAPES: [&str; 4] = ["d896", "d2048", "clip-l", "convnext-768"];

/// Headers of a page whose runtimes may use threads and compile WebAssembly of their own.
const HEADERS: &str = "/*\n  Cross-Origin-Opener-Policy: same-origin\n  \
                       Cross-Origin-Embedder-Policy: require-corp\n  Cache-Control: no-cache\n";

/// Measures the rows of `chatrex bench` in a browser.
///
/// # Errors
/// When the page cannot be built or the browser not be started.
pub fn bench(bench: &Bench) -> Result<bool> {
    site::build()?;
    let folder = place::target().join("bench-site");
    site::copy(&folder)?;
    let model = match &bench.model {
        None => "models/nano",
        Some(model) => {
            let to = folder.join("models/measured");
            lay(model, &to)?;
            "models/measured"
        }
    };
    let json = bench.json.as_deref().map(absolute).transpose()?;
    let ask = json!({"plan": bench.plan, "model": model, "json": json});
    in_browser("bench", &folder, ("CHATREX_BENCH", &ask), bench.gpu)
}

/// Measures a layer of ours and of others, in turns.
///
/// # Errors
/// When something cannot be set up, the page not be built or the browser not be started.
pub fn rivals(rivals: &Rivals) -> Result<bool> {
    let shapes: Vec<&str> = match rivals.shapes.is_empty() {
        true => SHAPES.to_vec(),
        false => rivals.shapes.iter().map(String::as_str).collect(),
    };
    let layers = place::target().join("layers");
    make_layers(&layers, &shapes)?;
    site::build()?;
    Browser::ready()?;
    let folder = place::target().join("rivals-site");
    site::copy(&folder)?;
    let own = place::root().join("tests/rivals");
    for file in site::files(&own)? {
        fs::copy(own.join(&file), folder.join(&file)).with_context(|| file.clone())?;
    }
    fs::write(folder.join("_headers"), HEADERS).context("_headers")?;
    lay(
        &place::root().join("node_modules/onnxruntime-web/dist"),
        &folder.join("ort"),
    )?;
    for shape in &shapes {
        lay(&layers.join(shape), &folder.join("layers").join(shape))?;
    }
    let json = rivals.json.as_deref().map(absolute).transpose()?;
    let ask = json!({
        "shapes": shapes, "cases": rivals.cases, "repeats": rivals.repeats,
        "without": rivals.without, "json": json,
    });
    in_browser("rivals", &folder, ("CHATREX_RIVALS", &ask), rivals.gpu)
}

/// Writes the layers that are not there yet, or were written by another version of the script.
///
/// # Errors
/// When there is no Python, or the script knows no such layer.
pub fn make_layers(folder: &Path, shapes: &[&str]) -> Result<()> {
    let script = place::root().join("tests/reference/layer.py");
    let version = site::hex(&fs::read(&script).with_context(|| script.display().to_string())?);
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

/// Puts a folder's files at `to`, without copying them where the system can.
fn lay(folder: &Path, to: &Path) -> Result<()> {
    ensure!(folder.is_dir(), "{}: is no folder", folder.display());
    for file in site::files(folder)? {
        let (from, to) = (folder.join(&file), to.join(&file));
        fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

/// A path as it is from anywhere; `-` stays.
fn absolute(path: &str) -> Result<String> {
    if path == "-" {
        return Ok(path.into());
    }
    let path = std::path::absolute(path).with_context(|| path.to_owned())?;
    Ok(path.display().to_string())
}

/// Runs `tests/browser/NAME.mjs` on a served folder; true when it ends well.
fn in_browser(name: &str, folder: &Path, ask: (&str, &Value), gpu: bool) -> Result<bool> {
    let browser = Browser::ready()?;
    let running = Running::start(folder, "/", 0)?;
    let mut program = Command::new("node");
    program
        .arg(format!("tests/browser/{name}.mjs"))
        .current_dir(place::root())
        .env("CHATREX_BROWSER", browser.chromium)
        .env("CHATREX_URL", format!("http://localhost:{}/", running.port))
        .env(ask.0, ask.1.to_string());
    if gpu {
        program.env("CHATREX_GPU", "1");
    }
    Ok(program.status().context("node")?.success())
}
