//! Results of checks, and the cargo that runs them.

use std::process::Command;

use crate::paths;

/// Checks that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Checks that passed.
    pub passed: u32,
    /// Checks that failed.
    pub failed: u32,
}

impl Count {
    /// The result of one check.
    pub fn one(good: bool) -> Self {
        Self {
            passed: u32::from(good),
            failed: u32::from(!good),
        }
    }

    /// Adds other results.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Cargo with the native compiler.
pub fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(words)
        .current_dir(paths::root())
        .env("CARGO_TARGET_DIR", paths::target());
    command
}
