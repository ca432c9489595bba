//! The files of a conversion. Natively they are on the disk and mapped into memory; in a browser they are
//! files of the user, of which slices are read, and files of the page's private storage: see [`Host`].
//!
//! A file must not change while it is open.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::Fault;

/// A file that is read in parts.
pub(super) struct InputFile {
    path: PathBuf,
    content: platform::Content,
}

impl InputFile {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let content = platform::Content::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self {
            path: path.to_path_buf(),
            content,
        })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for messages.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// Its length.
    pub(super) fn len(&self) -> u64 {
        self.content.len()
    }

    /// The bytes of a range, which lies in the file.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Fault> {
        let read = self.content.read(&self.path, range);
        read.map_err(|error| unreadable(&self.path, &error))
    }

    /// Its first `bytes` bytes, or all; natively all. The same number is asked for each time.
    pub(super) fn head(&self, bytes: u64) -> Result<&[u8], Fault> {
        let head = self.content.head(&self.path, bytes);
        head.map_err(|error| unreadable(&self.path, &error))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let what = format!("cannot be read ({error})");
    Fault::model(path.display().to_string(), what)
}

/// Whether there is a file or a folder.
pub(super) fn exists(path: &Path) -> bool {
    platform::exists(path)
}

/// Whether there is a file.
pub(super) fn is_file(path: &Path) -> bool {
    platform::is_file(path)
}

/// The whole file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    platform::read(path)
}

/// The files of a folder.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    platform::list(folder).map_err(|error| Fault::file(folder, error))
}

/// Reads a JSON file; `None` if it does not exist.
///
/// # Errors
/// It cannot be read, or is not the JSON of a `T`.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Fault> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::file(path, error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Fault::model(path.display().to_string(), error.to_string()))
}

#[cfg(not(feature = "native"))]
pub use platform::{Host, install};
pub(super) use platform::{OutputFile, OutputFolder};

#[cfg(feature = "native")]
mod platform {
    use std::fs::File;
    use std::io::{BufWriter, Write};

    use memmap2::Mmap;

    use super::*;
    pub use crate::weights::source::Folder as OutputFolder;

    pub struct Content(Mmap);

    impl Content {
        pub fn open(path: &Path) -> io::Result<Self> {
            let file = File::open(path)?;
            // SAFETY: the mapping is only read, as bytes; that the file does not change meanwhile is the
            // contract of this module.
            unsafe { Mmap::map(&file) }.map(Self)
        }

        pub fn len(&self) -> u64 {
            self.0.len() as u64
        }

        pub fn read(&self, _: &Path, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
            Ok(Cow::Borrowed(
                &self.0[range.start as usize..range.end as usize],
            ))
        }

        pub fn head(&self, _: &Path, _: u64) -> io::Result<&[u8]> {
            Ok(&self.0)
        }
    }

    pub fn exists(path: &Path) -> bool {
        path.exists()
    }

    pub fn is_file(path: &Path) -> bool {
        path.is_file()
    }

    pub fn read(path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    /// A new file.
    pub struct OutputFile(BufWriter<File>);

    impl OutputFile {
        pub fn create(path: &Path) -> io::Result<Self> {
            Ok(Self(BufWriter::with_capacity(1 << 20, File::create(path)?)))
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all(bytes)
        }

        /// Completes the file on the disk.
        pub fn finish(self) -> io::Result<()> {
            let file = self
                .0
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?;
            file.sync_all()
        }
    }
}

#[cfg(not(feature = "native"))]
mod platform {
    use std::cell::RefCell;
    use std::sync::OnceLock;

    use super::*;
    use crate::weights::source::{ByteSource, LocalFuture, PartialRead, too_long};

    /// The files that a browser's worker gives.
    pub trait Host {
        /// The length of a file; `None` if it is not there.
        fn length(&self, path: &Path) -> Option<u64>;
        /// The files of a folder.
        fn list(&self, folder: &Path) -> Vec<PathBuf>;
        /// The bytes of a range.
        ///
        /// # Errors
        /// They cannot be read.
        fn read(&self, path: &Path, range: Range<u64>) -> io::Result<Vec<u8>>;
        /// Writes bytes from byte `at` on.
        ///
        /// # Errors
        /// There is no such file, or no room.
        fn write(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()>;
    }

    thread_local! {
        static HOST: RefCell<Option<Box<dyn Host>>> = const { RefCell::new(None) };
    }

    /// Sets the files of the conversion in this worker.
    pub fn install(host: Box<dyn Host>) {
        HOST.set(Some(host));
    }

    fn with<T>(call: impl FnOnce(&dyn Host) -> T, none: T) -> T {
        HOST.with_borrow(|host| match host {
            Some(host) => call(&**host),
            None => none,
        })
    }

    fn absent() -> io::Error {
        io::ErrorKind::NotFound.into()
    }

    pub struct Content {
        length: u64,
        head: OnceLock<Vec<u8>>,
    }

    impl Content {
        pub fn open(path: &Path) -> io::Result<Self> {
            let length = with(|host| host.length(path), None).ok_or_else(absent)?;
            let head = OnceLock::new();
            Ok(Self { length, head })
        }

        pub fn len(&self) -> u64 {
            self.length
        }

        pub fn read(&self, path: &Path, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
            read_range(path, range).map(Cow::Owned)
        }

        pub fn head(&self, path: &Path, bytes: u64) -> io::Result<&[u8]> {
            if self.head.get().is_none() {
                let head = read_range(path, 0..bytes.min(self.length))?;
                return Ok(self.head.get_or_init(|| head));
            }
            Ok(self.head.get().map_or(&[], Vec::as_slice))
        }
    }

    fn read_range(path: &Path, range: Range<u64>) -> io::Result<Vec<u8>> {
        with(|host| host.read(path, range), Err(absent()))
    }

    pub fn exists(path: &Path) -> bool {
        is_file(path)
    }

    pub fn is_file(path: &Path) -> bool {
        with(|host| host.length(path), None).is_some()
    }

    pub fn read(path: &Path) -> io::Result<Vec<u8>> {
        let length = with(|host| host.length(path), None).ok_or_else(absent)?;
        read_range(path, 0..length)
    }

    pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(with(|host| host.list(folder), Vec::new()))
    }

    /// A file that the host has reserved.
    pub struct OutputFile {
        path: PathBuf,
        at: u64,
    }

    impl OutputFile {
        pub fn create(path: &Path) -> io::Result<Self> {
            let path = path.to_path_buf();
            Ok(Self { path, at: 0 })
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            let (path, at) = (&self.path, self.at);
            with(|host| host.write(path, at, bytes), Err(absent()))?;
            self.at += bytes.len() as u64;
            Ok(())
        }

        /// All bytes are written already.
        pub fn finish(self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The written shards as the source of a model.
    pub struct OutputFolder(pub PathBuf);

    impl ByteSource for OutputFolder {
        fn place(&self) -> String {
            self.0.display().to_string()
        }

        fn read<'a>(
            &'a self,
            name: &'a str,
            limit: u64,
        ) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
            let path = self.0.join(name);
            let read = read(&path).map_err(|error| unreadable(&path, &error));
            let read = read.and_then(|bytes| match bytes.len() as u64 {
                length if length > limit => Err(too_long(name, length, limit)),
                _ => Ok(bytes),
            });
            Box::pin(std::future::ready(read))
        }

        fn range<'a>(
            &'a self,
            file: &'a str,
            _length: u64,
            range: Range<u64>,
            on_bytes: &'a dyn Fn(u64),
        ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
            let path = self.0.join(file);
            let read = read_range(&path, range);
            let read = read.map_err(|error| PartialRead::fatal(unreadable(&path, &error)));
            Box::pin(std::future::ready(
                read.inspect(|bytes| on_bytes(bytes.len() as u64)),
            ))
        }
    }
}
