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

/// The steps of `tests/reference/cpu_programs.py`; a run that names none has all.
const PROGRAMS: [&str; 3] = ["pictures", "convert", "upn"];

/// Runs layers in this engine, llama.cpp, onnxruntime and, if the Python packages include it, PyTorch, in turns;
/// then whole steps of the program and of others.
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
    let named = rivals.shapes.iter().map(String::as_str);
    let (programs, shapes): (Vec<&str>, Vec<&str>) = match rivals.shapes.is_empty() {
        true => (PROGRAMS.to_vec(), SHAPES.to_vec()),
        false => named.partition(|name| PROGRAMS.contains(name)),
    };
    run(Command::new("cargo")
        .args(["build", "--locked", "--bin", "chatrex"])
        .current_dir(paths::root())
        .env("CARGO_TARGET_DIR", paths::target()))?;
    let folder = paths::target().join("cpu-rivals");
    let packages = folder.join("python");
    install(&packages, rivals.torch)?;
    if !shapes.is_empty() {
        run(&mut layer_script(rivals, &shapes, &folder, &packages)?)?;
    }
    if !programs.is_empty() {
        let mut script = script("cpu_programs.py", &packages)?;
        script.arg("--work").arg(folder.join("programs"));
        for program in programs {
            script.args(["--only", program]);
        }
        if let Some(json) = &rivals.json {
            script.args(["--json", &format!("{json}.programs")]);
        }
        run(&mut script)?;
    }
    Ok(true)
}

/// A script of `tests/reference` that measures the program.
fn script(name: &str, packages: &Path) -> Result<Command> {
    let mut script = Command::new(setup::python()?);
    script
        .env("PYTHONPATH", packages)
        .arg(paths::root().join("tests/reference").join(name))
        .arg("--program")
        .arg(paths::target().join("debug/chatrex"));
    Ok(script)
}

/// The script that measures layers.
fn layer_script(
    rivals: &Rivals,
    shapes: &[&str],
    folder: &Path,
    packages: &Path,
) -> Result<Command> {
    let layers = paths::target().join("layers");
    generate_layers(&layers, shapes)?;
    let llama = fetch_llama(&LLAMA_CPU, folder)?;
    let mut script = script("cpu_rivals.py", packages)?;
    script
        .arg("--layers")
        .arg(&layers)
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
    Ok(script)
}

/// Installs the Python packages of the other runtimes, with PyTorch or without.
fn install(to: &Path, torch: bool) -> Result<()> {
    let names: &[&str] = match torch {
        true => &["cpu_rivals.txt", "cpu_rivals_torch.txt"],
        false => &["cpu_rivals.txt"],
    };
    let lists: Vec<_> = names
        .iter()
        .map(|name| paths::root().join("tests/reference").join(name))
        .collect();
    let mut wanted = Vec::new();
    for list in &lists {
        wanted.extend(fs::read(list).with_context(|| list.display().to_string())?);
    }
    let stamp = to.join("installed.txt");
    // Packages of an earlier run with PyTorch serve one without it too.
    if fs::read(&stamp).is_ok_and(|installed| installed.starts_with(&wanted)) {
        return Ok(());
    }
    let mut pip = Command::new(setup::python()?);
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
        .arg(to);
    for list in lists {
        pip.arg("--requirement").arg(list);
    }
    run(&mut pip)?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())
}
