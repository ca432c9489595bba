//! Files on disk.

use std::io;
use std::path::Path;

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
