//! `cargo xtask pack`: one archive that measures our program beside other runtimes on a machine with
//! a graphics card and without network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha512};

use crate::bench::{SHAPES, make_layers};
use crate::place;
use crate::process::{asked, run};
use crate::setup;
use crate::site;

/// What `cargo xtask pack` writes.
#[derive(Debug, Default, PartialEq)]
pub struct Pack {
    /// The archive, `.tar.xz`.
    pub out: PathBuf,
    /// Names of layers, as `tests/reference/layer.py` lists them.
    pub shapes: Vec<String>,
    /// The version of Python on the other machine, as `3.12`; this machine's without.
    pub python: Option<String>,
}

/// llama.cpp with Vulkan, as shared libraries: npm's package, and the SHA-512 of its file.
const LLAMA: (&str, &str) = (
    "@node-llama-cpp/linux-x64-vulkan@3.21.1",
    "7e511e4b338d43a3889b96d828b41fe1e127073702e56ba015bc8f530902ab2c8e159f291f41fdba543b64d0cb48873378a9de311268ae79726351eaedddc60c",
);

/// Where that package's libraries lie in it.
const LLAMA_FOLDER: &str = "package/bins/linux-x64-vulkan";

/// Which of them are taken, by the beginnings of their names: of those for processors the plainest
/// and two newer.
const LLAMA_FILES: [&str; 7] = [
    "libggml-base.",
    "libggml.",
    "libggml-vulkan.",
    "libllama.",
    "libggml-cpu-x64.",
    "libggml-cpu-haswell.",
    "libggml-cpu-skylakex.",
];

/// Platforms whose Python packages run on the other machine.
const PLATFORMS: [&str; 4] = [
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
];

/// Parts of Python packages that measuring does without.
const UNUSED: [&str; 7] = [
    "bin",
    "numpy/f2py",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    "onnxruntime/backend",
];

/// Writes the archive.
///
/// # Errors
/// When something cannot be set up, built or written.
pub fn pack(asked: &Pack) -> Result<bool> {
    let Pack {
        out,
        shapes,
        python,
    } = asked;
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "pack: the other runtimes' packages are those of Linux on x86-64. Run it there"
    );
    ensure!(
        out.to_string_lossy().ends_with(".tar.xz"),
        "{}: the archive's name must end with .tar.xz",
        out.display()
    );
    let folder = place::target().join("pack");
    let content = folder.join("chatrex-rivals");
    if content.exists() {
        fs::remove_dir_all(&content).with_context(|| content.display().to_string())?;
    }
    fs::create_dir_all(&content).with_context(|| content.display().to_string())?;

    let build = ["build", "--locked", "--release", "--bin", "chatrex"];
    run(Command::new("cargo")
        .args(build)
        .current_dir(place::root())
        .env("CARGO_TARGET_DIR", place::target()))?;
    take(
        &place::target().join("release/chatrex"),
        &content.join("chatrex"),
    )?;
    let reference = place::root().join("tests/reference");
    for script in ["run.sh", "layer.py", "native_rivals.py", "torch_models.py"] {
        take(&reference.join(script), &content.join(script))?;
    }
    layers(shapes, &content.join("layers"))?;
    packages(python.as_deref(), &reference, &content.join("python"))?;
    llama(&folder, &content.join("llama"))?;
    loader(&content.join("lib"))?;

    run(Command::new("tar")
        .args(["--create", "--xz", "--sort=name", "--owner=0", "--group=0"])
        .arg("--file")
        .arg(out)
        .arg("--directory")
        .arg(&folder)
        .arg("chatrex-rivals"))?;
    let bytes = fs::metadata(out).with_context(|| out.display().to_string())?;
    println!("{}: {:.1} MB", out.display(), bytes.len() as f64 / 1e6);
    Ok(true)
}

/// Copies a file into a folder that is made.
fn take(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

/// Graphs and what comes out of them; weights are made again from their seed.
fn layers(shapes: &[String], to: &Path) -> Result<()> {
    let shapes: Vec<&str> = match shapes.is_empty() {
        true => SHAPES.to_vec(),
        false => shapes.iter().map(String::as_str).collect(),
    };
    let made = place::target().join("layers");
    make_layers(&made, &shapes)?;
    for shape in shapes {
        for file in site::files(&made.join(shape))? {
            if file.ends_with(".onnx") || file.ends_with(".json") {
                take(&made.join(shape).join(&file), &to.join(shape).join(&file))?;
            }
        }
    }
    Ok(())
}

/// The Python packages of `rivals.txt` for a version of Python, unpacked.
fn packages(version: Option<&str>, reference: &Path, to: &Path) -> Result<()> {
    let own = || {
        let words = ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"];
        asked("python3", &words).context("no python3 that says its version; name one with --python")
    };
    let version = version.map_or_else(own, |version| Ok(version.to_owned()))?;
    let mut pip = Command::new(setup::python()?);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--only-binary", ":all:", "--implementation", "cp"])
        .args(["--python-version", &version]);
    for platform in PLATFORMS {
        pip.args(["--platform", platform]);
    }
    run(pip
        .arg("--target")
        .arg(to)
        .arg("--requirement")
        .arg(reference.join("rivals.txt")))?;
    for unused in UNUSED {
        let folder = to.join(unused);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
    }
    fs::write(to.join("version.txt"), version).context("version.txt")
}

/// llama.cpp's libraries.
fn llama(folder: &Path, to: &Path) -> Result<()> {
    let (package, sha) = LLAMA;
    let name = package.trim_start_matches('@').replace(['/', '@'], "-") + ".tgz";
    let file = folder.join(&name);
    let whole = || fs::read(&file).is_ok_and(|bytes| sha512(&bytes) == sha);
    if !whole() {
        run(Command::new("npm")
            .args(["pack", "--silent", "--pack-destination"])
            .arg(folder)
            .arg(package))?;
        ensure!(
            whole(),
            "{}: is not the file that this project knows as {package}",
            file.display()
        );
    }
    run(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(&file)
        .arg("--directory")
        .arg(folder))?;
    let libraries = folder.join(LLAMA_FOLDER);
    let files = wanted(&site::files(&libraries)?);
    ensure!(
        files.len() >= LLAMA_FILES.len(),
        "{package}: holds only {files:?} of {LLAMA_FILES:?}"
    );
    for library in files {
        take(&libraries.join(&library), &to.join(&library))?;
    }
    Ok(())
}

/// Those of `files` that are taken.
fn wanted(files: &[String]) -> Vec<String> {
    let taken = |file: &&String| LLAMA_FILES.iter().any(|begin| file.starts_with(begin));
    files.iter().filter(taken).cloned().collect()
}

fn sha512(bytes: &[u8]) -> String {
    let digest = Sha512::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The Vulkan loader of this machine, for one that has a driver and no loader.
fn loader(to: &Path) -> Result<()> {
    const NAME: &str = "libvulkan.so.1";
    setup::vulkan()?;
    let known = asked("ldconfig", &["-p"])
        .or_else(|| asked("/sbin/ldconfig", &["-p"]))
        .unwrap_or_default();
    let file = known.lines().find_map(|line| library(line, NAME));
    let file = file.with_context(|| {
        format!("no {NAME}. Install it from your system's packages (Debian: libvulkan1)")
    })?;
    take(Path::new(file), &to.join(NAME))
}

/// The file in a line of `ldconfig -p` about `name` for x86-64.
fn library<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (what, file) = line.trim().split_once(" => ")?;
    (what.split(' ').next() == Some(name) && what.contains("x86-64")).then_some(file)
}

/// Whether `text` is a version like `3.12`.
pub fn is_version(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(major, minor)| number(major) && number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_other_processors_stay() {
        let files = [
            "_nlcBuildMetadata.json",
            "libggml-base.so",
            "libggml-cpu-haswell.so",
            "libggml-cpu-zen4.so",
            "libggml-vulkan.so",
            "libggml.vulkan.v0.4.0.so",
            "libllama-common.so",
            "libllama.vulkan.v0.4.0.so",
            "llama-addon.node",
        ];
        let taken = wanted(&files.map(String::from));
        assert_eq!(taken, [1, 2, 4, 5, 7].map(|at| files[at].to_owned()));
    }

    #[test]
    fn the_loader_is_found_in_what_ldconfig_says() {
        let line = "\tlibvulkan.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libvulkan.so.1";
        let found = library(line, "libvulkan.so.1");
        assert_eq!(found, Some("/lib/x86_64-linux-gnu/libvulkan.so.1"));
        assert_eq!(library(line, "libvulkan.so"), None);
        let other = "\tlibvulkan.so.1 (libc6) => /lib/i386-linux-gnu/libvulkan.so.1";
        assert_eq!(library(other, "libvulkan.so.1"), None);
        assert_eq!(library("1234 libs found in cache", "libvulkan.so.1"), None);
    }

    #[test]
    fn versions_are_two_numbers() {
        assert!(is_version("3.12"));
        for text in ["3", "3.", ".12", "3.12.1", "three.12", ""] {
            assert!(!is_version(text), "{text:?}");
        }
    }

    #[test]
    fn another_file_has_another_hash() {
        assert!(sha512(b"").starts_with("cf83e1357eefb8bd"));
        assert_ne!(sha512(b"a"), sha512(b"b"));
        assert_eq!(sha512(b"a").len(), LLAMA.1.len());
    }
}
