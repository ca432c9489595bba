//! The text files of this repository, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// Extensions of the files that are read.
const TEXT: [&str; 14] = [
    "rs", "wgsl", "wesl", "js", "mjs", "ts", "css", "html", "py", "sh", "md", "toml", "yml", "txt",
];

/// Folders that hold no text of this project: recorded fixtures, builds, packages.
const SKIPPED: [&str; 6] = [
    "tests/data",
    "target",
    "dist",
    "node_modules",
    "pkg",
    ".git",
];

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text files below `folders` and the Markdown files beside them, sorted, as paths relative to
/// [`root`] with `/` between folders, each with its contents.
pub fn text_files(folders: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut paths);
    }
    let entries = fs::read_dir(root()).expect("the root is a folder");
    let beside = entries.map(|entry| entry.expect("the root can be listed").path());
    paths.extend(beside.filter(|path| path.extension().is_some_and(|end| end == "md")));
    let mut files: Vec<(String, String)> = paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (relative(&path), text)
        })
        .collect();
    files.sort();
    files.dedup();
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    // Not every folder that is asked for exists.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        let name = relative(&path);
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                collect(&path, paths);
            }
        } else if path
            .extension()
            .is_some_and(|end| TEXT.iter().any(|text| end == *text))
        {
            paths.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("below the root");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
