//! `cargo xtask wheel`: the Python package of `python/` as a wheel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::checks::Count;
use crate::files;
use crate::paths;
use crate::process::{run, run_streaming};
use crate::setup;
use crate::times;

/// Options of `cargo xtask wheel`.
#[derive(Debug, Default, PartialEq)]
pub struct Wheel {
    /// Where the wheel goes; the target folder without it.
    pub out: Option<PathBuf>,
    /// With the profile `wheel`, for users; else with the profile of the tests.
    pub release: bool,
    /// Installs it in a new virtual environment and runs `python/tests` there.
    pub test: bool,
}

/// `cargo xtask wheel`.
///
/// # Errors
/// Those of [`make`].
pub fn command(options: &Wheel) -> Result<bool> {
    let count = make(options)?;
    times::print();
    println!("\n{} passed, {} failed", count.passed, count.failed);
    Ok(count.failed == 0)
}

/// Builds the wheel and tests it where that is wanted. Built counts as one check.
///
/// # Errors
/// When Python or a package is missing, the wheel cannot be built, or no test ran.
pub fn make(options: &Wheel) -> Result<Count> {
    let wheel = build(options)?;
    println!("{}", wheel.display());
    let mut count = Count::one(true);
    if options.test {
        count.add(test(&wheel)?);
    }
    Ok(count)
}

/// The folder of what is made here, below the target folder.
fn folder() -> PathBuf {
    paths::target().join("python")
}

/// Builds the wheel; its path.
fn build(options: &Wheel) -> Result<PathBuf> {
    let list = paths::root().join("python/requirements.txt");
    let python = setup::environment(&folder().join("maturin"), &list)?;
    let out = options.out.clone();
    let out = out.unwrap_or_else(|| folder().join("wheels"));
    // A wheel in a folder of its own is the only one there.
    let new = folder().join("new");
    files::empty(&new)?;
    let mut maturin = Command::new(&python);
    maturin
        .args(["-m", "maturin", "build", "--locked", "--strip"])
        .args(["--manifest-path", "python/Cargo.toml", "--out"])
        .arg(&new)
        .current_dir(paths::root())
        .env("CARGO_TARGET_DIR", paths::target());
    match options.release {
        true => maturin.args(["--profile", "wheel"]),
        // For this machine: no check of the system's libraries.
        false => maturin.args([
            "--profile",
            "dev",
            "--compatibility",
            "linux",
            "--auditwheel",
            "skip",
        ]),
    };
    times::step("build the wheel", || run(&mut maturin))?;
    let name = files::files(&new)?.pop();
    let name = name.with_context(|| format!("{}: holds no wheel", new.display()))?;
    let wheel = out.join(&name);
    files::copy_file(&new.join(&name), &wheel)?;
    files::remove(&new)?;
    Ok(wheel)
}

/// Installs the wheel in a new virtual environment and runs the tests of the package there.
fn test(wheel: &Path) -> Result<Count> {
    let tests = paths::root().join("python/tests");
    let environment = folder().join("test");
    let python = times::step("install the wheel", || {
        let python = setup::new_environment(&environment)?;
        run(Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .arg("--requirement")
            .arg(tests.join("requirements.txt"))
            .arg(wheel))?;
        Ok(python)
    })?;
    let mut count = Count::default();
    // Started elsewhere: `python/chatrex` without its engine must not be found.
    let mut pytest = Command::new(&python);
    pytest
        .args(["-m", "pytest"])
        .arg(&tests)
        .current_dir(&environment)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let good = times::step("tests of the package", || {
        run_streaming(&mut pytest, |line| count.add(result(line)))
    })?;
    ensure!(count != Count::default(), "no test of the package ran");
    if !good && count.failed == 0 {
        bail!("pytest failed outside the tests");
    }
    Ok(count)
}

/// The numbers in a line `1 failed, 12 passed, 1 skipped in 3.10s`.
fn result(line: &str) -> Count {
    let line = line.trim_matches(['=', ' ']);
    let Some((numbers, seconds)) = line.rsplit_once(" in ") else {
        return Count::default();
    };
    if !seconds.trim_end_matches(')').contains('s') {
        return Count::default();
    }
    let number = |words: &[&str]| {
        let parts = numbers.split(", ");
        let found = parts.filter_map(|part| {
            let (number, word) = part.split_once(' ')?;
            words.contains(&word).then(|| number.parse::<u32>().ok())?
        });
        found.sum()
    };
    Count {
        passed: number(&["passed"]),
        failed: number(&["failed", "error", "errors"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_pytest_are_counted() {
        for (line, passed, failed) in [
            ("12 passed in 3.10s", 12, 0),
            ("2 failed, 10 passed, 1 skipped in 65.02s (0:01:05)", 10, 2),
            ("===== 1 error in 0.10s =====", 0, 1),
            ("3 passed", 0, 0),
            ("test_a.py ... in the folder", 0, 0),
            ("no tests ran in 0.01s", 0, 0),
        ] {
            let count = result(line);
            assert_eq!((count.passed, count.failed), (passed, failed), "{line}");
        }
    }

    /// The build back end of `pyproject.toml` is the version that is installed here.
    #[test]
    fn versions_of_maturin_agree() {
        let read =
            |name: &str| std::fs::read_to_string(paths::root().join("python").join(name)).unwrap();
        let wanted = read("requirements.txt");
        let wanted = wanted.trim();
        assert!(wanted.starts_with("maturin=="), "{wanted}");
        assert!(read("pyproject.toml").contains(&format!("requires = [\"{wanted}\"]")));
    }
}
