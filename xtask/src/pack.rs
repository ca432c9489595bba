//! `cargo xtask pack`: an archive that compares this program with other runtimes on a machine with a
//! GPU and without network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha512};

use crate::bench::{SHAPES, generate_layers};
use crate::files;
use crate::paths;
use crate::process::{output, run};
use crate::setup;

/// Options of `cargo xtask pack`.
#[derive(Debug, Default, PartialEq)]
pub struct Pack {
    /// The archive, `.tar.xz`.
    pub out: PathBuf,
    /// Layer names of `tests/reference/layer.py`; empty for [`SHAPES`].
    pub shapes: Vec<String>,
    /// Python version of the other machine, such as `3.12`; none is the version of this machine.
    pub python: Option<String>,
}

/// llama.cpp as shared libraries.
pub struct LlamaPackage {
    /// The npm package.
    name: &'static str,
    /// SHA-512 of its file.
    sha512: &'static str,
    /// The folder of the libraries in it.
    folder: &'static str,
}

/// llama.cpp with Vulkan.
const LLAMA: LlamaPackage = LlamaPackage {
    name: "@node-llama-cpp/linux-x64-vulkan@3.21.1",
    sha512: "7e511e4b338d43a3889b96d828b41fe1e127073702e56ba015bc8f530902ab2c8e159f291f41fdba543b64d0cb48873378a9de311268ae79726351eaedddc60c",
    folder: "package/bins/linux-x64-vulkan",
};

/// llama.cpp for the CPU.
pub const LLAMA_CPU: LlamaPackage = LlamaPackage {
    name: "@node-llama-cpp/linux-x64@3.22.1",
    sha512: "e6e0820cda9608d7da026f1a47f533c5ba381c1a4a80d17dd640873dea4a86032057638099ab6879f6ce94c8a1b2a0a21f639ddf913f7941d00856df44126e3a",
    folder: "package/bins/linux-x64",
};

/// Prefixes of the libraries to pack. Of the CPU variants, the baseline and two newer ones are
/// enough.
const LLAMA_FILES: [&str; 7] = [
    "libggml-base.",
    "libggml.",
    "libggml-vulkan.",
    "libllama.",
    "libggml-cpu-x64.",
    "libggml-cpu-haswell.",
    "libggml-cpu-skylakex.",
];

/// Platform tags of Python packages that run on the other machine.
const PLATFORMS: [&str; 4] = [
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
];

/// Parts of Python packages that the benchmark does not use.
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
/// When a tool is missing, a build fails or a file cannot be written.
pub fn pack(options: &Pack) -> Result<bool> {
    let Pack {
        out,
        shapes,
        python,
    } = options;
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "pack needs Linux on x86-64: the packages of the other runtimes are for it"
    );
    ensure!(
        out.to_string_lossy().ends_with(".tar.xz"),
        "{}: the name must end with .tar.xz",
        out.display()
    );
    let folder = paths::target().join("pack");
    let content = folder.join("chatrex-rivals");
    if content.exists() {
        fs::remove_dir_all(&content).with_context(|| content.display().to_string())?;
    }
    fs::create_dir_all(&content).with_context(|| content.display().to_string())?;

    let build = ["build", "--locked", "--release", "--bin", "chatrex"];
    run(Command::new("cargo")
        .args(build)
        .current_dir(paths::root())
        .env("CARGO_TARGET_DIR", paths::target()))?;
    files::copy_file(
        &paths::target().join("release/chatrex"),
        &content.join("chatrex"),
    )?;
    let reference = paths::root().join("tests/reference");
    for script in ["run.sh", "layer.py", "native_rivals.py", "torch_models.py"] {
        files::copy_file(&reference.join(script), &content.join(script))?;
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

/// Packs graphs and expected outputs; weights are generated again from their seed.
fn layers(shapes: &[String], to: &Path) -> Result<()> {
    let shapes: Vec<&str> = match shapes.is_empty() {
        true => SHAPES.to_vec(),
        false => shapes.iter().map(String::as_str).collect(),
    };
    let source = paths::target().join("layers");
    generate_layers(&source, &shapes)?;
    for shape in shapes {
        for file in files::files(&source.join(shape))? {
            if file.ends_with(".onnx") || file.ends_with(".json") {
                files::copy_file(&source.join(shape).join(&file), &to.join(shape).join(&file))?;
            }
        }
    }
    Ok(())
}

/// Unpacks the Python packages of `rivals.txt` for a Python version.
fn packages(version: Option<&str>, reference: &Path, to: &Path) -> Result<()> {
    let installed = || {
        let words = ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"];
        output("python3", &words).context("no python3. Name a version with --python")
    };
    let version = version.map_or_else(installed, |version| Ok(version.to_owned()))?;
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

/// Fetches a package of llama.cpp and unpacks it in `folder`. Returns the folder of its libraries.
///
/// # Errors
/// When npm fails, or the file is not the expected one.
pub fn fetch_llama(package: &LlamaPackage, folder: &Path) -> Result<PathBuf> {
    let (package, sha, libraries) = (package.name, package.sha512, package.folder);
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let name = package.trim_start_matches('@').replace(['/', '@'], "-") + ".tgz";
    let file = folder.join(&name);
    let complete = || fs::read(&file).is_ok_and(|bytes| sha512(&bytes) == sha);
    if !complete() {
        run(Command::new("npm")
            .args(["pack", "--silent", "--pack-destination"])
            .arg(folder)
            .arg(package))?;
        ensure!(
            complete(),
            "{}: the SHA-512 is not that of {package}",
            file.display()
        );
    }
    run(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(&file)
        .arg("--directory")
        .arg(folder))?;
    Ok(folder.join(libraries))
}

/// Packs the libraries of llama.cpp.
fn llama(folder: &Path, to: &Path) -> Result<()> {
    let libraries = fetch_llama(&LLAMA, folder)?;
    let files = selected(&files::files(&libraries)?);
    ensure!(
        files.len() >= LLAMA_FILES.len(),
        "{}: has only {files:?} of {LLAMA_FILES:?}",
        LLAMA.name
    );
    for library in files {
        files::copy_file(&libraries.join(&library), &to.join(&library))?;
    }
    Ok(())
}

/// The libraries to pack.
fn selected(files: &[String]) -> Vec<String> {
    let packed = |file: &&String| LLAMA_FILES.iter().any(|prefix| file.starts_with(prefix));
    files.iter().filter(packed).cloned().collect()
}

fn sha512(bytes: &[u8]) -> String {
    let digest = Sha512::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packs the Vulkan loader, for machines that have a driver and no loader.
fn loader(to: &Path) -> Result<()> {
    const NAME: &str = "libvulkan.so.1";
    setup::vulkan()?;
    let listed = output("ldconfig", &["-p"])
        .or_else(|| output("/sbin/ldconfig", &["-p"]))
        .unwrap_or_default();
    let file = listed.lines().find_map(|line| library(line, NAME));
    let file = file.with_context(|| {
        format!("no {NAME}. Install it from your system's packages (Debian: libvulkan1)")
    })?;
    files::copy_file(Path::new(file), &to.join(NAME))?;
    Ok(())
}

/// The file of the x86-64 library `name` in a line of `ldconfig -p`.
fn library<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (library, file) = line.trim().split_once(" => ")?;
    (library.split(' ').next() == Some(name) && library.contains("x86-64")).then_some(file)
}

/// True for `MAJOR.MINOR`, such as `3.12`.
pub fn is_version(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(major, minor)| number(major) && number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_for_other_cpus_are_left_out() {
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
        let packed = selected(&files.map(String::from));
        assert_eq!(packed, [1, 2, 4, 5, 7].map(|at| files[at].to_owned()));
    }

    #[test]
    fn the_loader_is_found_in_the_list_of_ldconfig() {
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
    fn other_bytes_have_another_hash() {
        assert!(sha512(b"").starts_with("cf83e1357eefb8bd"));
        assert_ne!(sha512(b"a"), sha512(b"b"));
        assert_eq!(sha512(b"a").len(), LLAMA.sha512.len());
        assert_eq!(LLAMA.sha512.len(), LLAMA_CPU.sha512.len());
    }
}
