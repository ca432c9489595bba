//! `cargo xtask test`: every check. What can fail for a user comes before formatting and lints.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::checks::{Count, cargo};
use crate::files;
use crate::lint;
use crate::paths;
use crate::process::{run, run_reading, run_streaming};
use crate::serve::Running;
use crate::setup::{self, Browser};
use crate::site;
use crate::times;
use crate::wheel::{self, Wheel};

/// Path of a copy of the site below a sub-folder of the host; tests may change its files.
const DEEP: &str = "/some/folder/";

struct Step {
    name: &'static str,
    title: &'static str,
    check: fn() -> Result<Count>,
}

/// In order; what stands together runs side by side. Much of a build is the work of one core: the compiler reads
/// our own crate alone.
const STEPS: [&[Step]; 5] = [
    &[
        Step {
            name: "native",
            title: "native tests, shader validation among them",
            check: native,
        },
        Step {
            name: "web",
            title: "build of the site",
            check: web,
        },
    ],
    &[Step {
        name: "browser",
        title: "browser tests",
        check: browser,
    }],
    &[Step {
        name: "python",
        title: "the Python package and its tests",
        check: python,
    }],
    &[Step {
        name: "fmt",
        title: "formatting",
        check: lint::fmt,
    }],
    &[Step {
        name: "clippy",
        title: "lints, native and WebAssembly",
        check: lint::clippy,
    }],
];

/// Runs the steps named in `only`, or all; `browser/NAME` is one file of the browser tests. Prints the time
/// of each step and the results; the last line is `N passed, N failed`.
///
/// # Errors
/// When `only` has an unknown name.
pub fn command(only: &[String]) -> Result<bool> {
    let mut browser_files = Vec::new();
    for name in only {
        match name.strip_prefix("browser/") {
            Some(file) => browser_files.push(script(&format!("{file}.test"))?),
            None => ensure!(
                STEPS
                    .iter()
                    .copied()
                    .flatten()
                    .any(|step| step.name == name),
                "no step is called {name}"
            ),
        }
    }
    let is_chosen = |step: &str| only.is_empty() || only.iter().any(|name| name == step);
    let check = |step: &Step| -> Option<Count> {
        let check: &dyn Fn() -> Result<Count> = if is_chosen(step.name) {
            &step.check
        } else if step.name == "browser" && !browser_files.is_empty() {
            &|| in_browser(&browser_files, None)
        } else {
            return None;
        };
        println!("\n== {}: {}", step.name, step.title);
        Some(times::step(step.name, check).unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", step.name);
            Count::one(false)
        }))
    };
    let mut total = Count::default();
    let mut results = Vec::new();
    for together in STEPS {
        let counts: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = together
                .iter()
                .map(|step| scope.spawn(|| check(step)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|count| count.expect("a step does not panic"))
                .collect()
        });
        for (step, count) in together.iter().zip(counts) {
            if let Some(count) = count {
                total.add(count);
                results.push(line(step.name, count));
            }
        }
    }
    times::print();
    println!("\n{}", results.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn line(name: &str, count: Count) -> String {
    let Count { passed, failed } = count;
    format!("{name:8} {passed:5} ok {failed:3} not ok")
}

/// Tests package by package: cargo unifies the features of packages it builds together, and those
/// of `xtask` would compile dependencies of `chatrex` a second time.
fn native() -> Result<Count> {
    setup::vulkan()?;
    let mut count = Count::default();
    let mut good = true;
    for package in ["chatrex", "xtask"] {
        let words = ["test", "--locked", "--package", package];
        times::step(&format!("build tests of {package}"), || {
            run(cargo(&words).arg("--no-run"))
        })?;
        let mut tests = cargo(&words);
        tests.arg("--no-fail-fast").env("CHATREX_NEED_ADAPTER", "1");
        good &= times::step(&format!("tests of {package}"), || {
            run_streaming(&mut tests, |line| count.add(cargo_result(line)))
        })?;
    }
    if !good && count.failed == 0 {
        bail!("cargo test failed outside the tests");
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
    site::build_for_tests()?;
    Ok(Count::one(true))
}

fn python() -> Result<Count> {
    wheel::make(&Wheel {
        test: true,
        ..Wheel::default()
    })
}

fn browser() -> Result<Count> {
    in_browser(&browser_tests()?, None)
}

/// Runs `tests/browser/NAME.mjs`, a script outside the tests, on a model folder.
///
/// # Errors
/// When the script or the folder does not exist.
pub fn manual(name: &str, folder: &Path) -> Result<bool> {
    let script = script(name)?;
    let folder = folder
        .canonicalize()
        .with_context(|| folder.display().to_string())?;
    site::build_for_tests()?;
    let count = in_browser(&[script], Some(&folder))?;
    println!("{} passed, {} failed", count.passed, count.failed);
    Ok(count.failed == 0)
}

/// The path of `tests/browser/NAME.mjs`, which exists.
fn script(name: &str) -> Result<String> {
    let path = format!("tests/browser/{name}.mjs");
    ensure!(paths::root().join(&path).is_file(), "{path} does not exist");
    Ok(path)
}

/// Runs browser tests against the test site, two files at a time: one runner takes files from the start of the
/// list, the other from its end. `folder` is the model of a manual script.
fn in_browser(files: &[String], folder: Option<&Path>) -> Result<Count> {
    let browser = Browser::ready()?;
    let site = paths::test_site();
    ensure!(
        site.join("index.html").is_file(),
        "the site is not built. Run `cargo xtask test --only web`"
    );
    times::step("build chatrex", || {
        run(&mut cargo(&["build", "--locked", "--bin", "chatrex"]))
    })?;
    let running = Running::start(&site, "/", 0)?;
    let queue = &Mutex::new(VecDeque::from_iter(files));
    let ends = if files.len() == 1 {
        &[End::Only][..]
    } else {
        &[End::Front, End::Back]
    };
    let runners = ends
        .iter()
        .map(|&end| Runner::new(end, &browser, &running, folder))
        .collect::<Result<Vec<_>>>()?;
    let counts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = runners
            .iter()
            .map(|runner| scope.spawn(move || runner.run(queue)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|count| count.expect("a runner does not panic"))
            .collect()
    });
    let mut count = Count::default();
    let mut good = true;
    for one in counts {
        let (passed, succeeded) = one?;
        count.add(passed);
        good &= succeeded;
    }
    ensure!(count != Count::default(), "no browser test ran");
    if !good && count.failed == 0 {
        bail!("node failed outside the browser tests");
    }
    Ok(count)
}

/// The end of the list that a runner takes files from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Front,
    Back,
    /// The list has one file.
    Only,
}

/// Runs one browser test after the other.
struct Runner<'a> {
    end: End,
    browser: &'a Browser,
    site: &'a Running,
    /// The site at [`DEEP`]; the tests of this runner may change its files.
    deep: Running,
    deep_folder: PathBuf,
    pictures: PathBuf,
    folder: Option<&'a Path>,
}

impl<'a> Runner<'a> {
    fn new(
        end: End,
        browser: &'a Browser,
        site: &'a Running,
        folder: Option<&'a Path>,
    ) -> Result<Self> {
        let pictures = paths::target().join("browser-tests");
        fs::create_dir_all(&pictures).with_context(|| pictures.display().to_string())?;
        let deep_folder = pictures.join(format!("site-{end:?}").to_lowercase());
        files::replace(&paths::test_site(), &deep_folder)?;
        Ok(Self {
            end,
            browser,
            site,
            deep: Running::start(&deep_folder, DEEP, 0)?,
            deep_folder,
            pictures,
            folder,
        })
    }

    /// Runs files of the queue until there is none. Prints lines as they come, or, beside another runner, the output
    /// of a file after its last test. The results, and whether all programs succeeded.
    fn run(&self, queue: &Mutex<VecDeque<&String>>) -> Result<(Count, bool)> {
        let mut count = Count::default();
        let mut good = true;
        let next = || {
            let mut queue = queue.lock().expect("a runner does not panic");
            match self.end {
                End::Front | End::Only => queue.pop_front(),
                End::Back => queue.pop_back(),
            }
        };
        while let Some(file) = next() {
            let mut output = format!("{file}\n");
            good &= times::step(file, || {
                run_reading(&mut self.node(file), |line| {
                    count.add(node_result(line));
                    output.push_str(line);
                    output.push('\n');
                    if self.end == End::Only {
                        print!("{}", std::mem::take(&mut output));
                    }
                })
            })?;
            print!("{output}");
        }
        Ok((count, good))
    }

    fn node(&self, file: &str) -> Command {
        let address = |server: &Running, path| format!("http://localhost:{}{path}", server.port);
        let program = format!("chatrex{}", std::env::consts::EXE_SUFFIX);
        let mut node = Command::new("node");
        node.args(["--test", "--test-reporter=spec", file])
            .current_dir(paths::root())
            .env("CHATREX_BROWSER", &self.browser.chromium)
            .env("CHATREX_URL", address(self.site, "/"))
            .env("CHATREX_DEEP_URL", address(&self.deep, DEEP))
            .env("CHATREX_DEEP_SITE", &self.deep_folder)
            .env(
                "CHATREX_PROGRAM",
                paths::target().join("debug").join(program),
            )
            .env("CHATREX_PICTURES", &self.pictures);
        if let Some(folder) = self.folder {
            node.env("CHATREX_FOLDER", folder);
        }
        node
    }
}

/// The files with browser tests.
fn browser_tests() -> Result<Vec<String>> {
    let mut files = files::files(&paths::root().join("tests/browser"))?;
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
        let count = cargo_result(line);
        assert_eq!((count.passed, count.failed), (12, 3));
        assert_eq!(cargo_result("test a ... ok"), Count::default());
        assert_eq!(node_result("ℹ pass 7").passed, 7);
        assert_eq!(node_result("ℹ cancelled 2").failed, 2);
        assert_eq!(node_result("✔ pass 7"), Count::default());
    }
}
