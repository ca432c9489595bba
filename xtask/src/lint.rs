//! `fmt` and `clippy` of `cargo xtask test`.
//!
//! `cargo clippy` would compile every dependency a second time, because it checks and does not
//! build. Here cargo builds: dependencies are those of the tests and of the site. For the packages
//! of this workspace cargo starts this program in place of the compiler ([`driver`]), which starts
//! clippy without generating code.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::bundle::{Page, Program};
use crate::checks::{Count, cargo};
use crate::process::run_streaming;
use crate::setup::{self, WasmCompiler};
use crate::times;

/// Names clippy's driver to the processes of this program that cargo starts.
const DRIVER: &str = "CHATREX_CLIPPY_DRIVER";

/// Checks the formatting of every package.
///
/// # Errors
/// When rustfmt is missing.
pub fn fmt() -> Result<Count> {
    setup::rustfmt()?;
    run_streaming(&mut cargo(&["fmt", "--all", "--check"]), |_| ()).map(Count::one)
}

/// Lints all native targets and every program of the browser; warnings are errors.
///
/// # Errors
/// When a tool is missing.
pub fn clippy() -> Result<Count> {
    let mut count = Count::default();
    for package in ["chatrex", "chatrex-python", "xtask"] {
        let words = ["build", "--locked", "--all-targets", "--package", package];
        count.add(lint(package, &mut cargo(&words), &setup::clippy()?)?);
    }
    let compiler = WasmCompiler::ready()?;
    let mut programs = Page::open()?.programs;
    programs.push(Program::dev_worker());
    for program in programs {
        let mut build = compiler.cargo();
        build.arg("build").args(program.arguments());
        count.add(lint(&program.name, &mut build, &compiler.clippy()?)?);
    }
    Ok(count)
}

fn lint(name: &str, build: &mut Command, clippy: &Path) -> Result<Count> {
    let this = env::current_exe().context("the path of this program")?;
    build.env("RUSTC_WORKSPACE_WRAPPER", this);
    build.env(DRIVER, clippy);
    times::step(&format!("lints of {name}"), || {
        run_streaming(build, |_| ()).map(Count::one)
    })
}

/// Runs clippy in place of the compiler; none unless cargo started this program for [`clippy`].
pub fn driver() -> Option<ExitCode> {
    let clippy = env::var_os(DRIVER)?;
    let arguments = without_code(env::args_os().skip(1).collect());
    let status = Command::new(clippy).args(arguments).status();
    Some(match status.ok().and_then(|status| status.code()) {
        Some(0) => ExitCode::SUCCESS,
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    })
}

/// Changes the arguments of a compiler call so that it checks and lints, and nothing more.
///
/// Such a call writes metadata only, so a crate that depends on a linted one gets `.rmeta` in place
/// of `.rlib`. Build scripts and procedural macros run later and keep their code. Calls that emit
/// nothing are queries of cargo and stay as they are.
fn without_code(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let text = |argument: &OsString| argument.to_str().unwrap_or_default().to_owned();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(text)
    };
    let runs = value("--crate-type").as_deref() == Some("proc-macro")
        || value("--crate-name").is_some_and(|name| name.starts_with("build_script_"));
    let mut emits = false;
    for argument in &mut arguments {
        let word = text(argument);
        if word.starts_with("--emit=") {
            emits = true;
            if !runs {
                *argument = "--emit=dep-info,metadata".into();
            }
        } else if let Some(metadata) = metadata_of(&word) {
            *argument = metadata.into();
        }
    }
    if emits {
        arguments.extend(["-D", "warnings"].map(OsString::from));
    }
    arguments
}

/// `NAME=FILE.rmeta` for `NAME=FILE.rlib` where only the former exists.
fn metadata_of(library: &str) -> Option<String> {
    let stem = library.strip_suffix(".rlib")?;
    let (_, file) = stem.split_once('=')?;
    let exists = |extension: &str| Path::new(&format!("{file}.{extension}")).is_file();
    (!exists("rlib") && exists("rmeta")).then(|| format!("{stem}.rmeta"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_compiler_call_emits_metadata_and_denies_warnings() {
        let call = strings(&["rustc", "--crate-name", "a", "--emit=dep-info,link", "a.rs"]);
        let words = "rustc --crate-name a --emit=dep-info,metadata a.rs -D warnings";
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(without_code(call), strings(&words));
    }

    #[test]
    fn build_scripts_and_macros_keep_their_code() {
        for call in [
            "rustc --crate-name build_script_build --emit=dep-info,link build.rs",
            "rustc --crate-name a --crate-type proc-macro --emit=dep-info,link a.rs",
        ] {
            let call: Vec<&str> = call.split(' ').collect();
            let mut expected = strings(&call);
            expected.extend(strings(&["-D", "warnings"]));
            assert_eq!(without_code(strings(&call)), expected);
        }
    }

    #[test]
    fn a_query_stays_as_it_is() {
        let query = strings(&["rustc", "-", "--print=cfg"]);
        assert_eq!(without_code(query.clone()), query);
    }

    #[test]
    fn a_linted_library_is_read_as_metadata() {
        let folder = env::temp_dir().join(format!("chatrex-lint-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["linted.rmeta", "built.rmeta", "built.rlib"] {
            std::fs::write(folder.join(file), "").unwrap();
        }
        let argument = |file: &str| format!("a={}", folder.join(file).display());
        let expected = Some(argument("linted.rmeta"));
        assert_eq!(metadata_of(&argument("linted.rlib")), expected);
        assert_eq!(metadata_of(&argument("built.rlib")), None);
        assert_eq!(metadata_of(&argument("absent.rlib")), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
