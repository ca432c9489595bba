//! Finds what a command needs, and installs what is missing where that can be done.
//!
//! Everything is looked for before anything is installed, so a second run changes nothing. What
//! cannot be installed is named with the command that would.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::place;
use crate::process::{asked, run};

const TRUNK: &str = "0.21.14";
const WASM: &str = "wasm32-unknown-unknown";
const NODE: u32 = 18;

/// The compiler that makes WebAssembly.
pub enum WasmCompiler {
    /// rustup's, with the target installed.
    Rustup,
    /// Debian's packages beside rustup; the standard library is built from its source.
    Debian {
        /// The linker of the same LLVM.
        linker: PathBuf,
    },
}

impl WasmCompiler {
    /// Finds or installs one.
    ///
    /// # Errors
    /// When none is there and none can be installed; the message names the command to run.
    pub fn ready() -> Result<Self> {
        if let Some(found) = Self::found() {
            return Ok(found);
        }
        println!("setting up: WebAssembly target");
        if asked("rustup", &["target", "add", WASM]).is_some()
            && let Some(found) = Self::found()
        {
            return Ok(found);
        }
        if Debian::packages_can_be_added() {
            Debian::add(&["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"])?;
            Debian::add(&[&format!("lld-{}", debian_llvm()?)])?;
        }
        Self::found().context(format!(
            "no compiler for WebAssembly. Run `rustup target add {WASM}`, or as root on Debian \
             `apt-get install rustc-web cargo-web rust-web-src rust-web-clippy lld-22`"
        ))
    }

    fn found() -> Option<Self> {
        let library = asked("rustc", &["--print", "target-libdir", "--target", WASM])?;
        if Path::new(&library).is_dir() {
            return Some(Self::Rustup);
        }
        let linker = PathBuf::from(format!("/usr/bin/wasm-ld-{}", debian_llvm().ok()?));
        let library = asked("/usr/bin/rustc", &["--print", "sysroot"])?;
        let source = Path::new(&library).join("lib/rustlib/src/rust/library/std");
        let complete = source.is_dir()
            && linker.is_file()
            && Path::new("/usr/bin/cargo").is_file()
            && Path::new("/usr/bin/cargo-clippy").is_file();
        complete.then_some(Self::Debian { linker })
    }

    /// `program` set up so that it, and what it starts, compiles WebAssembly with this compiler.
    pub fn command(&self, program: &str) -> Command {
        let mut path = vec![place::tools().join("bin")];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut command = match self {
            Self::Rustup => Command::new(program),
            Self::Debian { linker } => {
                path.insert(0, PathBuf::from("/usr/bin"));
                let mut command = Command::new(if program == "cargo" {
                    "/usr/bin/cargo"
                } else {
                    program
                });
                command
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env_remove("LD_LIBRARY_PATH")
                    .env_remove("CARGO");
                command
            }
        };
        command
            .current_dir(place::root())
            .env("CARGO_TARGET_DIR", place::target())
            .env("PATH", env::join_paths(path).expect("came out of PATH"));
        command
    }
}

/// The major version of LLVM in Debian's compiler.
fn debian_llvm() -> Result<String> {
    let verbose = asked("/usr/bin/rustc", &["-vV"]).context("/usr/bin/rustc is missing")?;
    verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .map(str::to_owned)
        .context("/usr/bin/rustc does not say its LLVM version")
}

/// Debian's package manager, where this machine has it.
struct Debian;

impl Debian {
    fn packages_can_be_added() -> bool {
        Path::new("/etc/debian_version").is_file()
            && place::in_path("apt-get").is_some()
            && asked("id", &["-u"]).as_deref() == Some("0")
    }

    fn add(packages: &[&str]) -> Result<()> {
        println!("setting up: {}", packages.join(" "));
        let apt = |words: &[&str]| {
            run(Command::new("apt-get")
                .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
                .args(words)
                .env("DEBIAN_FRONTEND", "noninteractive"))
        };
        let words = ["install", "--yes", "--no-install-recommends"];
        let words = [&words, packages].concat();
        apt(&words).or_else(|_| {
            apt(&["update"])?;
            apt(&words)
        })
    }
}

/// Trunk and the wasm-bindgen command of the locked version, installed in [`place::tools`].
///
/// # Errors
/// When `cargo install` fails.
pub fn bundler() -> Result<()> {
    // Trunk only starts other programs: unoptimised and without its downloader it does the same
    // and is installed in a fraction of the time.
    let quick = ["--debug", "--no-default-features"];
    cargo_tool("trunk", "trunk", TRUNK, &quick)?;
    let lock = fs::read_to_string(place::root().join("Cargo.lock")).context("Cargo.lock")?;
    let version =
        locked_version(&lock, "wasm-bindgen").context("Cargo.lock has no wasm-bindgen")?;
    cargo_tool("wasm-bindgen-cli", "wasm-bindgen", version, &[])
}

fn cargo_tool(package: &str, program: &str, version: &str, flags: &[&str]) -> Result<()> {
    let installed = place::tools()
        .join("bin")
        .join(format!("{program}{}", env::consts::EXE_SUFFIX));
    let says = asked(&installed, &["--version"]).unwrap_or_default();
    if says.split_whitespace().nth(1) == Some(version) {
        return Ok(());
    }
    println!("setting up: {package} {version} (some minutes, once)");
    let install = |how: &[&str]| {
        run(Command::new("cargo")
            .args(["install", "--force", package, "--version", version])
            .args(flags)
            .args(how)
            .arg("--root")
            .arg(place::tools())
            .env_remove("CARGO_TARGET_DIR"))
    };
    // A registry mirror may lack the very versions the tool's own lock file names.
    install(&["--locked"])
        .or_else(|_| install(&[]))
        .with_context(|| format!("{package} could not be installed"))
}

/// The version of `package` in the text of a `Cargo.lock`.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

/// What the browser tests run on.
pub struct Browser {
    /// A Chromium.
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
        if Debian::packages_can_be_added() {
            Debian::add(&["chromium"])?;
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
        .or_else(|| NAMES.iter().find_map(|name| place::in_path(name)))
        .or_else(|| {
            APPLICATIONS
                .iter()
                .map(PathBuf::from)
                .find(|file| file.is_file())
        })
}

fn node() -> Result<()> {
    let new_enough = || {
        let version = asked("node", &["--version"])?;
        let major: u32 = version.strip_prefix('v')?.split('.').next()?.parse().ok()?;
        (major >= NODE && place::in_path("npm").is_some()).then_some(())
    };
    if new_enough().is_none() && Debian::packages_can_be_added() {
        Debian::add(&["nodejs", "npm"])?;
    }
    ensure!(
        new_enough().is_some(),
        "the browser tests need Node.js {NODE} or newer with npm. Install it from your system's \
         packages (Debian: `apt-get install nodejs npm`)"
    );
    Ok(())
}

/// Installs the packages of `package-lock.json`, unless that was done with this very file.
fn node_packages() -> Result<()> {
    let lock = fs::read(place::root().join("package-lock.json")).context("package-lock.json")?;
    let stamp = place::root().join("node_modules/.installed-lock.json");
    if fs::read(&stamp).is_ok_and(|done| done == lock) {
        return Ok(());
    }
    println!("setting up: test packages of package-lock.json");
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(place::root()))?;
    fs::write(&stamp, lock).with_context(|| stamp.display().to_string())
}

/// A Python with the packages of `tests/reference/requirements.txt`, in an environment of its own.
///
/// # Errors
/// When there is no Python or a package cannot be installed.
pub fn python() -> Result<PathBuf> {
    let list = place::root().join("tests/reference/requirements.txt");
    let wanted = fs::read(&list).with_context(|| list.display().to_string())?;
    let folder = place::tools().join("python");
    let python = folder.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    let stamp = folder.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(python);
    }
    println!("setting up: Python packages of tests/reference/requirements.txt");
    let made = |program: &str| run(Command::new(program).args(["-m", "venv"]).arg(&folder)).is_ok();
    ensure!(
        made("python3") || made("python"),
        "no Python 3 with venv. Install it from your system's packages (Debian: `apt-get install \
         python3-venv`)"
    );
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(list))?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())?;
    Ok(python)
}

/// A Vulkan driver for the native tests; Mesa's software one where there is none.
///
/// # Errors
/// When the package cannot be installed.
pub fn vulkan() -> Result<()> {
    let drivers = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
    let present = drivers
        .iter()
        .any(|folder| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()));
    if !cfg!(target_os = "linux") || present {
        return Ok(());
    }
    if !Debian::packages_can_be_added() {
        bail!(
            "the native tests need a Vulkan driver. Install your graphics card's, or Mesa's \
             software one (Debian: `apt-get install mesa-vulkan-drivers`)"
        );
    }
    Debian::add(&["mesa-vulkan-drivers", "libvulkan1"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_the_lock_file() {
        let lock = "[[package]]\nname = \"wasm-bindgen-macro\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen"), Some("0.2.130"));
        assert_eq!(locked_version(lock, "wasm"), None);
    }
}
