//! Folders and files: list, copy, replace, hash.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Copies the files of a folder in place of what is at `to`; the number of bytes.
///
/// # Errors
/// When a file cannot be read or written.
pub fn replace(from: &Path, to: &Path) -> Result<u64> {
    remove(to)?;
    copy_folder(from, to)
}

/// Copies the files of a folder; the number of bytes.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in files(from)? {
        bytes += copy_file(&from.join(&file), &to.join(&file))?;
    }
    Ok(bytes)
}

/// Copies a file and creates the folders of the copy; the number of bytes.
///
/// # Errors
/// When the file cannot be read or written.
pub fn copy_file(from: &Path, to: &Path) -> Result<u64> {
    let folder = to.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))
}

/// Removes a folder if it exists.
pub fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

/// Creates an empty folder in place of what is there.
///
/// # Errors
/// When a folder cannot be removed or created.
pub fn empty(folder: &Path) -> Result<()> {
    remove(folder)?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// The SHA-256 of `bytes` in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Every file under `folder`, as sorted paths relative to it with forward slashes.
///
/// # Errors
/// When a folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{path}/"), found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}
