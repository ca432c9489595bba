//! `cargo xtask bench-rivals --cpu`: layers on the CPU against other native runtimes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bench::{Rivals, generate_layers};
use crate::pack::{LLAMA_CPU, fetch_llama};
use crate::paths;
use crate::process::run;
use crate::setup;

/// The layers of a run that names none.
const SHAPES: [&str; 5] = ["d896", "d2048", "clip-l", "convnext-192", "convnext-768"];

/// Runs layers in this engine, llama.cpp, onnxruntime and, if the Python packages include it, PyTorch, in turns.
///
/// # Errors
/// When a tool is missing or the program does not build.
pub fn rivals(rivals: &Rivals) -> Result<bool> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "bench-rivals --cpu needs Linux on x86-64: the packages of the other runtimes are for it"
    );
    ensure!(
        rivals.cases.is_empty() && rivals.without.is_empty() && !rivals.gpu,
        "--cases, --without and --gpu do not go with --cpu"
    );
    let shapes: Vec<&str> = match rivals.shapes.is_empty() {
        true => SHAPES.to_vec(),
        false => rivals.shapes.iter().map(String::as_str).collect(),
    };
    let layers = paths::target().join("layers");
    generate_layers(&layers, &shapes)?;
    run(Command::new("cargo")
        .args(["build", "--locked", "--bin", "chatrex"])
        .current_dir(paths::root())
        .env("CARGO_TARGET_DIR", paths::target()))?;
    let folder = paths::target().join("cpu-rivals");
    let llama = fetch_llama(&LLAMA_CPU, &folder)?;
    let packages = folder.join("python");
    install(&packages)?;
    let mut script = Command::new(setup::python()?);
    script
        .env("PYTHONPATH", &packages)
        .arg(paths::root().join("tests/reference/cpu_rivals.py"))
        .arg("--layers")
        .arg(&layers)
        .arg("--program")
        .arg(paths::target().join("debug/chatrex"))
        .arg("--llama")
        .arg(&llama);
    for shape in shapes {
        script.args(["--shape", shape]);
    }
    if rivals.repeats > 0 {
        script.args(["--repeats", &rivals.repeats.to_string()]);
    }
    if let Some(json) = &rivals.json {
        script.args(["--json", json]);
    }
    run(&mut script)?;
    Ok(true)
}

/// Installs the Python packages of the other runtimes.
fn install(to: &Path) -> Result<()> {
    let list = paths::root().join("tests/reference/cpu_rivals.txt");
    let wanted = fs::read(&list).with_context(|| list.display().to_string())?;
    let stamp = to.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    run(Command::new(setup::python()?)
        .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
        .arg(to)
        .arg("--requirement")
        .arg(&list))?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())
}
