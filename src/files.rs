//! Files of the local file system.

#[cfg(feature = "native")]
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Fault;
#[cfg(feature = "native")]
use crate::error::{ErrorCode, FaultKind};

/// Reads a JSON file; `None` if it does not exist.
///
/// # Errors
/// It cannot be read, or is not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Fault> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::file(path, error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Fault::model(path.display().to_string(), error.to_string()))
}

/// Opens the file `path` for this process alone, to read and write it. A new file is empty. A file system without
/// locks, as some network file systems are, lets other processes in.
///
/// # Errors
/// The file cannot be opened, or another process has it.
#[cfg(feature = "native")]
pub fn open_alone(path: &Path) -> Result<File, Fault> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options
        .open(path)
        .map_err(|error| Fault::file(path, error))?;
    match file.try_lock() {
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let what = "is being written by another process";
            let advice = "Wait until it ends, or name another folder with --out";
            let fault = Fault::new(FaultKind::File, path.display().to_string(), what, advice);
            Err(fault.code(ErrorCode::InUse))
        }
    }
}

/// Replaces the file `path` with `bytes` by renaming a finished copy: a reader sees the old contents
/// or the new ones.
///
/// # Errors
/// The file cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path)
}
