//! Files of the local file system.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Fault;

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
