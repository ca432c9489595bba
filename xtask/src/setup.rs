//! Finds what a command needs and installs what is missing.
//!
//! Every tool is looked up first, so a second run changes nothing. For a tool that cannot be
//! installed, the error names the command that installs it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;
use crate::process::{output, run};
use crate::times;

const WASM: &str = "wasm32-unknown-unknown";
/// The oldest major version of Node.js that runs the browser tests.
const NODE: u32 = 18;

/// Runs and times an installation.
fn install<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("set-up: {what}");
    times::step(&format!("set-up: {what}"), work)
}

/// A Rust compiler with a WebAssembly target.
pub enum WasmCompiler {
    /// The compiler of rustup, with the target installed.
    Rustup,
    /// The compiler of Debian's packages; the standard library is built from source.
    Debian {
        /// The linker of the same LLVM version.
        linker: PathBuf,
    },
}

impl WasmCompiler {
    /// Finds a compiler or installs one.
    ///
    /// # Errors
    /// When none is found and none can be installed; the message names the command to run.
    pub fn ready() -> Result<Self> {
        if let Some(found) = Self::found() {
            return Ok(found);
        }
        let add = || {
            let added = output("rustup", &["target", "add", WASM]);
            Ok(added.and_then(|_| Self::found()))
        };
        if let Some(found) = install("WebAssembly target", add)? {
            return Ok(found);
        }
        if Debian::can_install() {
            Debian::install(&["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"])?;
            Debian::install(&[&format!("lld-{}", debian_llvm()?)])?;
        }
        Self::found().context(format!(
            "no compiler for WebAssembly. Run `rustup target add {WASM}`, or as root on Debian \
             `apt-get install rustc-web cargo-web rust-web-src rust-web-clippy lld-22`"
        ))
    }

    fn found() -> Option<Self> {
        let library = output("rustc", &["--print", "target-libdir", "--target", WASM])?;
        if Path::new(&library).is_dir() {
            return Some(Self::Rustup);
        }
        let linker = PathBuf::from(format!("/usr/bin/wasm-ld-{}", debian_llvm().ok()?));
        let library = output("/usr/bin/rustc", &["--print", "sysroot"])?;
        let source = Path::new(&library).join("lib/rustlib/src/rust/library/std");
        let complete = source.is_dir()
            && linker.is_file()
            && Path::new("/usr/bin/cargo").is_file()
            && Path::new("/usr/bin/clippy-driver").is_file();
        complete.then_some(Self::Debian { linker })
    }

    /// Cargo with this compiler.
    pub fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Rustup => Command::new("cargo"),
            Self::Debian { linker } => {
                let mut path = vec![PathBuf::from("/usr/bin")];
                path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
                let path = env::join_paths(path).expect("the paths come from PATH");
                let mut command = Command::new("/usr/bin/cargo");
                command
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env("PATH", path)
                    .env_remove("LD_LIBRARY_PATH")
                    .env_remove("CARGO");
                command
            }
        };
        command
            .current_dir(paths::root())
            .env("CARGO_TARGET_DIR", paths::target());
        command
    }

    /// Clippy's driver for this compiler.
    ///
    /// # Errors
    /// When clippy is not installed.
    pub fn clippy(&self) -> Result<PathBuf> {
        match self {
            Self::Rustup => clippy(),
            Self::Debian { .. } => Ok("/usr/bin/clippy-driver".into()),
        }
    }
}

/// Clippy's driver for the native compiler; installs it where rustup can.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn clippy() -> Result<PathBuf> {
    let found = || {
        let sysroot = output("rustc", &["--print", "sysroot"])?;
        let program = format!("clippy-driver{}", env::consts::EXE_SUFFIX);
        let beside = PathBuf::from(sysroot).join("bin").join(program);
        Some(beside).filter(|file| file.is_file())
    };
    if let Some(found) = found() {
        return Ok(found);
    }
    let add = || Ok(output("rustup", &["component", "add", "clippy"]));
    install("clippy", add)?;
    found().context("no clippy. Install it (rustup: `rustup component add clippy`)")
}

/// rustfmt; installs it where rustup can.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn rustfmt() -> Result<()> {
    let found = || output("cargo", &["fmt", "--version"]).is_some();
    if !found() {
        let add = || Ok(output("rustup", &["component", "add", "rustfmt"]));
        install("rustfmt", add)?;
    }
    ensure!(
        found(),
        "no rustfmt. Install it (rustup: `rustup component add rustfmt`)"
    );
    Ok(())
}

/// The major LLVM version of Debian's compiler.
fn debian_llvm() -> Result<String> {
    let verbose = output("/usr/bin/rustc", &["-vV"]).context("/usr/bin/rustc is missing")?;
    verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .map(str::to_owned)
        .context("/usr/bin/rustc -vV does not show an LLVM version")
}

/// Debian's package manager.
struct Debian;

impl Debian {
    fn can_install() -> bool {
        Path::new("/etc/debian_version").is_file()
            && paths::in_path("apt-get").is_some()
            && output("id", &["-u"]).as_deref() == Some("0")
    }

    fn install(packages: &[&str]) -> Result<()> {
        let apt = |words: &[&str]| {
            run(Command::new("apt-get")
                .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
                .args(words)
                .env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let words = ["install", "--yes", "--no-install-recommends"];
        let words = [&words, packages].concat();
        install(&packages.join(" "), || {
            apt(&words).or_else(|_| {
                apt(&["update"])?;
                apt(&words)
            })
        })
    }
}

/// The programs that run the browser tests.
pub struct Browser {
    /// Chromium or Chrome.
    pub chromium: PathBuf,
}

impl Browser {
    /// Finds or installs Node.js, a Chromium and the packages of `package-lock.json`.
    ///
    /// # Errors
    /// When one is missing and cannot be installed; the message names the command to run.
    pub fn ready() -> Result<Self> {
        node()?;
        node_packages()?;
        if let Some(chromium) = chromium() {
            return Ok(Self { chromium });
        }
        if Debian::can_install() {
            Debian::install(&["chromium"])?;
        }
        let chromium = chromium().context(
            "no Chromium for the browser tests. Install Chromium or Chrome (Debian: `apt-get \
             install chromium`), or name one in CHATREX_BROWSER",
        )?;
        Ok(Self { chromium })
    }
}

fn chromium() -> Option<PathBuf> {
    const NAMES: [&str; 5] = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
    ];
    const APPLICATIONS: [&str; 2] = [
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ];
    env::var_os("CHATREX_BROWSER")
        .map(PathBuf::from)
        .or_else(|| NAMES.iter().find_map(|name| paths::in_path(name)))
        .or_else(|| {
            APPLICATIONS
                .iter()
                .map(PathBuf::from)
                .find(|file| file.is_file())
        })
}

fn node() -> Result<()> {
    let new_enough = || {
        let version = output("node", &["--version"])?;
        let major: u32 = version.strip_prefix('v')?.split('.').next()?.parse().ok()?;
        (major >= NODE && paths::in_path("npm").is_some()).then_some(())
    };
    if new_enough().is_none() && Debian::can_install() {
        Debian::install(&["nodejs", "npm"])?;
    }
    ensure!(
        new_enough().is_some(),
        "the browser tests need Node.js {NODE} or newer with npm. Install it from your system's \
         packages (Debian: `apt-get install nodejs npm`)"
    );
    Ok(())
}

/// Installs the packages of `package-lock.json`, once per version of that file.
fn node_packages() -> Result<()> {
    let lock = fs::read(paths::root().join("package-lock.json")).context("package-lock.json")?;
    let stamp = paths::root().join("node_modules/.installed-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    install("packages of package-lock.json", || {
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(paths::root()))
    })?;
    fs::write(&stamp, lock).with_context(|| stamp.display().to_string())
}

/// Python in a virtual environment with the packages of `tests/reference/requirements.txt`.
///
/// # Errors
/// When there is no Python or a package cannot be installed.
pub fn python() -> Result<PathBuf> {
    let list = paths::root().join("tests/reference/requirements.txt");
    environment(&paths::tools().join("python"), &list)
}

/// Python in the virtual environment `folder` with the packages of `list`, installed once per version of that file.
///
/// # Errors
/// When there is no Python or a package cannot be installed.
pub fn environment(folder: &Path, list: &Path) -> Result<PathBuf> {
    let wanted = fs::read(list).with_context(|| list.display().to_string())?;
    let python = python_in(folder);
    let stamp = folder.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let name = list.strip_prefix(paths::root()).unwrap_or(list).display();
    install(&format!("packages of {name}"), || {
        create_environment(folder, false)?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(list))
    })?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())?;
    Ok(python)
}

/// Python in an empty virtual environment in place of what is in `folder`.
///
/// # Errors
/// When there is no Python.
pub fn new_environment(folder: &Path) -> Result<PathBuf> {
    create_environment(folder, true)?;
    Ok(python_in(folder))
}

fn python_in(environment: &Path) -> PathBuf {
    environment.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    })
}

fn create_environment(folder: &Path, empty: bool) -> Result<()> {
    let create = |program: &str| {
        let mut venv = Command::new(program);
        venv.args(["-m", "venv"]);
        if empty {
            venv.arg("--clear");
        }
        run(venv.arg(folder)).is_ok()
    };
    ensure!(
        create("python3") || create("python"),
        "no Python 3 with venv. Install it from your system's packages (Debian: `apt-get install \
         python3-venv`)"
    );
    Ok(())
}

/// Installs Mesa's software Vulkan driver for the native tests if there is no driver.
///
/// # Errors
/// When there is none and it cannot be installed.
pub fn vulkan() -> Result<()> {
    let drivers = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let present = drivers
        .iter()
        .any(|folder| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()));
    if !cfg!(target_os = "linux") || present {
        return Ok(());
    }
    if !Debian::can_install() {
        bail!(
            "the native tests need a Vulkan driver. Install the driver of your GPU, or Mesa's \
             software driver (Debian: `apt-get install mesa-vulkan-drivers`)"
        );
    }
    Debian::install(&["mesa-vulkan-drivers", "libvulkan1"])
}
