//! `cargo xtask test`: every check, in the order in which failing early saves most time.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::place;
use crate::process::{asked, followed, run};
use crate::serve::Running;
use crate::setup::{self, Browser, WasmCompiler};
use crate::site;

/// The browser programs and the features each is built with.
const WEB_PROGRAMS: [&str; 2] = ["page", "worker"];

/// Where a copy of the page is served that tests may change, as hosts do that serve a folder.
const DEEP: &str = "/some/folder/";

/// What a step found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u32,
    failed: u32,
}

impl Count {
    /// One check that is either good or not.
    fn one(good: bool) -> Self {
        Self {
            passed: u32::from(good),
            failed: u32::from(!good),
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

struct Step {
    name: &'static str,
    what: &'static str,
    check: fn() -> Result<Count>,
}

const STEPS: [Step; 5] = [
    Step {
        name: "fmt",
        what: "formatting",
        check: fmt,
    },
    Step {
        name: "clippy",
        what: "lints, native and WebAssembly",
        check: clippy,
    },
    Step {
        name: "native",
        what: "native tests, shader validation among them",
        check: native,
    },
    Step {
        name: "web",
        what: "build of the page",
        check: web,
    },
    Step {
        name: "browser",
        what: "browser tests",
        check: browser,
    },
];

/// Runs the steps called `only`, or all; the last line is `N passed, N failed`.
///
/// # Errors
/// When a name in `only` is no step.
pub fn command(only: &[String]) -> Result<bool> {
    for name in only {
        ensure!(
            STEPS.iter().any(|step| step.name == name),
            "no step is called {name}"
        );
    }
    let mut total = Count::default();
    let mut table = Vec::new();
    for step in STEPS {
        if !only.is_empty() && !only.iter().any(|name| name == step.name) {
            continue;
        }
        println!("\n== {}: {}", step.name, step.what);
        let started = Instant::now();
        let count = (step.check)().unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", step.name);
            Count::one(false)
        });
        total.add(count);
        table.push(line(step.name, count, started.elapsed()));
    }
    println!("\n{}", table.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn line(name: &str, count: Count, took: Duration) -> String {
    let Count { passed, failed } = count;
    format!(
        "{name:8} {passed:5} ok {failed:3} not ok {:6.0} s",
        took.as_secs_f64()
    )
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(words)
        .current_dir(place::root())
        .env("CARGO_TARGET_DIR", place::target());
    command
}

fn fmt() -> Result<Count> {
    if asked("cargo", &["fmt", "--version"]).is_none() {
        run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))?;
    }
    followed(&mut cargo(&["fmt", "--all", "--check"]), |_| ()).map(Count::one)
}

fn clippy() -> Result<Count> {
    const STRICT: [&str; 3] = ["--", "-D", "warnings"];
    let mut native = cargo(&["clippy", "--locked", "--workspace", "--all-targets"]);
    let mut count = Count::one(followed(native.args(STRICT), |_| ())?);
    let compiler = WasmCompiler::ready()?;
    for program in WEB_PROGRAMS {
        let mut web = compiler.command("cargo");
        web.args(["clippy", "--locked", "--target", "wasm32-unknown-unknown"])
            .args(["--profile", "web", "--no-default-features"])
            .args(["--features", program, "--bin", program])
            .args(STRICT);
        count.add(Count::one(followed(&mut web, |_| ())?));
    }
    Ok(count)
}

fn native() -> Result<Count> {
    setup::vulkan()?;
    let mut count = Count::default();
    let mut tests = cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
    tests.env("CHATREX_NEED_ADAPTER", "1");
    let good = followed(&mut tests, |line| count.add(cargo_result(line)))?;
    if !good && count.failed == 0 {
        bail!("cargo test ended with an error outside the tests");
    }
    Ok(count)
}

/// The numbers in a line `test result: ok. 12 passed; 1 failed; …`.
fn cargo_result(line: &str) -> Count {
    let Some(numbers) = line.strip_prefix("test result: ") else {
        return Count::default();
    };
    let before = |word: &str| {
        numbers
            .split([';', '.'])
            .filter_map(|part| part.trim().strip_suffix(word))
            .find_map(|number| number.trim().parse().ok())
            .unwrap_or(0)
    };
    Count {
        passed: before("passed"),
        failed: before("failed"),
    }
}

fn web() -> Result<Count> {
    site::build()?;
    Ok(Count::one(true))
}

fn browser() -> Result<Count> {
    in_browser(browser_tests()?, None)
}

/// Runs `tests/browser/NAME.mjs`, which is no part of the tests, on a model folder.
///
/// # Errors
/// When there is no such script or folder.
pub fn manual(name: &str, folder: &Path) -> Result<bool> {
    let script = format!("tests/browser/{name}.mjs");
    ensure!(
        place::root().join(&script).is_file(),
        "there is no {script}"
    );
    let folder = folder
        .canonicalize()
        .with_context(|| folder.display().to_string())?;
    site::build()?;
    let count = in_browser(vec![script], Some(&folder))?;
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(count.failed == 0)
}

/// Runs files of browser tests against the built page; `folder` is a model for those that ask.
fn in_browser(files: Vec<String>, folder: Option<&Path>) -> Result<Count> {
    let browser = Browser::ready()?;
    ensure!(
        place::site().join("index.html").is_file(),
        "the page is not built"
    );
    run(&mut cargo(&["build", "--locked", "--bin", "chatrex"]))?;
    let pictures = place::target().join("browser-tests");
    fs::create_dir_all(&pictures).with_context(|| pictures.display().to_string())?;
    let running = Running::start(&place::site(), "/", 0)?;
    let copy = pictures.join("site");
    site::copy(&copy)?;
    let deep = Running::start(&copy, DEEP, 0)?;
    let program = format!("chatrex{}", std::env::consts::EXE_SUFFIX);

    let mut tests = Command::new("node");
    tests
        .args(["--test", "--test-reporter=spec"])
        .args(files)
        .current_dir(place::root())
        .env("CHATREX_BROWSER", browser.chromium)
        .env("CHATREX_URL", format!("http://localhost:{}/", running.port))
        .env(
            "CHATREX_DEEP_URL",
            format!("http://localhost:{}{DEEP}", deep.port),
        )
        .env("CHATREX_DEEP_SITE", copy)
        .env(
            "CHATREX_PROGRAM",
            place::target().join("debug").join(program),
        )
        .env("CHATREX_PICTURES", pictures);
    if let Some(folder) = folder {
        tests.env("CHATREX_FOLDER", folder);
    }
    let mut count = Count::default();
    let good = followed(&mut tests, |line| count.add(node_result(line)))?;
    ensure!(count != Count::default(), "no browser test ran");
    if !good && count.failed == 0 {
        bail!("the browser tests ended with an error outside the tests");
    }
    Ok(count)
}

/// The files that hold browser tests.
fn browser_tests() -> Result<Vec<String>> {
    let mut files = site::files(&place::root().join("tests/browser"))?;
    files.retain(|file| file.ends_with(".test.mjs"));
    Ok(files
        .iter()
        .map(|file| format!("tests/browser/{file}"))
        .collect())
}

/// The number in a line `ℹ pass 12` or `ℹ fail 1`.
fn node_result(line: &str) -> Count {
    let mut words = line.split_whitespace();
    let (sign, word, number) = (words.next(), words.next(), words.next());
    let number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
    match (sign, word) {
        (Some("ℹ"), Some("pass")) => Count {
            passed: number,
            failed: 0,
        },
        (Some("ℹ"), Some("fail" | "cancelled")) => Count {
            passed: 0,
            failed: number,
        },
        _ => Count::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; finished in 1.20s";
        let found = cargo_result(line);
        assert_eq!((found.passed, found.failed), (12, 3));
        assert_eq!(cargo_result("test a ... ok"), Count::default());
        assert_eq!(node_result("ℹ pass 7").passed, 7);
        assert_eq!(node_result("ℹ cancelled 2").failed, 2);
        assert_eq!(node_result("✔ pass 7"), Count::default());
    }
}
