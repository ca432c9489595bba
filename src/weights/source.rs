//! Where the files of a model are read from, and where checked pieces of them are kept.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use crate::error::{ErrorCode, Fault};

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A read that ended early.
#[derive(Clone, Debug)]
pub struct PartialRead {
    /// What had come by then, from the start of the range.
    pub arrived: Vec<u8>,
    /// Why it ended.
    pub fault: Fault,
    /// Whether asking again may help.
    pub again: bool,
}

impl PartialRead {
    /// A read that failed before anything came, for good.
    pub fn fatal(fault: Fault) -> Self {
        Self {
            arrived: Vec::new(),
            fault,
            again: false,
        }
    }
}

/// Reads the files of one model folder, by plain name.
pub trait ByteSource {
    /// The folder or base address, for messages.
    fn place(&self) -> String;

    /// The whole file `name`, unless it is longer than `limit` bytes.
    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>>;

    /// The bytes `range` of `file`, which is `length` bytes long; `arrived` is told how many more
    /// have come.
    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>>;

    /// Ranges it serves best at a time.
    fn max_parallel(&self) -> usize {
        1
    }
}

/// One piece of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Name of the shard.
    pub shard: &'a str,
    /// Length of the shard.
    pub length: u64,
    /// Number among all pieces of the model.
    pub number: usize,
    /// Its bytes in the shard.
    pub range: Range<u64>,
    /// Its SHA-256.
    pub sha256: &'a str,
}

/// Keeps pieces of one model between visits.
pub trait PieceStore {
    /// Whether the piece was written. Its bytes are checked again when they are read.
    fn has(&self, piece: &Piece) -> bool;

    /// The piece's bytes.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, piece: &Piece) -> Result<Vec<u8>, Fault>;

    /// Keeps a checked piece.
    ///
    /// # Errors
    /// There is no room, or the storage fails.
    fn write(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Fault>;

    /// Notes that the piece turned out damaged.
    fn forget(&self, piece: &Piece);
}

/// The files of one model: where they come from, and where checked pieces are kept.
pub struct ModelFiles {
    /// Reads manifest and tokenizer too.
    pub source: Box<dyn ByteSource>,
    /// Absent where the source is as near as any store would be.
    pub store: Option<Box<dyn PieceStore>>,
}

/// What the person wants of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferControl {
    /// Go on.
    Run,
    /// Wait.
    Pause,
    /// Give up.
    Cancel,
}

/// Time, and the wishes of whoever watches.
pub trait Runtime {
    /// Waits. A host that learns of a better moment, such as a connection coming back, ends it.
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()>;

    /// Lets others run.
    fn yield_now(&self) -> LocalFuture<'_, ()>;

    /// What the person wants now.
    fn hold(&self) -> TransferControl;
}

/// Replaces the file `path` with `bytes`; a reader sees the old file or the new one.
///
/// # Errors
/// It cannot be written.
#[cfg(feature = "native")]
pub fn replace(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path)
}

/// Nobody waits for others and nobody interrupts.
#[cfg(feature = "native")]
pub struct BlockingRuntime;

#[cfg(feature = "native")]
impl Runtime for BlockingRuntime {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        std::thread::sleep(std::time::Duration::from_millis(milliseconds.into()));
        Box::pin(std::future::ready(()))
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn hold(&self) -> TransferControl {
        TransferControl::Run
    }
}

/// A folder on disk.
#[cfg(feature = "native")]
pub struct Folder(pub std::path::PathBuf);

#[cfg(feature = "native")]
impl Folder {
    fn fault(path: &std::path::Path, error: std::io::Error) -> Fault {
        Fault::model(
            path.display().to_string(),
            format!("cannot be read ({error})"),
        )
        .code(ErrorCode::of_io(error.kind()))
    }

    fn read_range(
        path: &std::path::Path,
        length: u64,
        range: &Range<u64>,
    ) -> Result<Vec<u8>, Fault> {
        use std::io::{Read, Seek, SeekFrom};
        let fail = |error| Self::fault(path, error);
        let mut file = std::fs::File::open(path).map_err(fail)?;
        let found = file.metadata().map_err(fail)?.len();
        if found != length {
            return Err(Fault::model(
                path.display().to_string(),
                format!("has {found} bytes instead of {length}"),
            ));
        }
        file.seek(SeekFrom::Start(range.start)).map_err(fail)?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }
}

#[cfg(feature = "native")]
impl ByteSource for Folder {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let path = self.0.join(name);
            let fail = |error| Self::fault(&path, error);
            let bytes = std::fs::metadata(&path).map_err(fail)?.len();
            if bytes > limit {
                return Err(too_long(&path.display().to_string(), bytes, limit));
            }
            std::fs::read(&path).map_err(fail)
        })
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            let bytes =
                Self::read_range(&self.0.join(file), length, &range).map_err(PartialRead::fatal)?;
            arrived(bytes.len() as u64);
            Ok(bytes)
        })
    }
}

/// The fault of a file that is longer than it may be.
pub fn too_long(place: &str, bytes: u64, limit: u64) -> Fault {
    Fault::model(
        place,
        format!("has {bytes} bytes; at most {limit} are read"),
    )
}

/// Files compiled into the program.
pub struct Embedded {
    /// Name for messages.
    pub name: &'static str,
    /// File names and contents.
    pub files: &'static [(&'static str, &'static [u8])],
}

impl Embedded {
    fn find(&self, name: &str) -> Result<&'static [u8], Fault> {
        let found = self.files.iter().find(|(file, _)| *file == name);
        found.map(|(_, bytes)| *bytes).ok_or_else(|| {
            Fault::model(name, format!("is not part of {}", self.name)).code(ErrorCode::NotFound)
        })
    }
}

impl ByteSource for Embedded {
    fn place(&self) -> String {
        self.name.to_string()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let bytes = self.find(name)?;
            if bytes.len() as u64 > limit {
                return Err(too_long(name, bytes.len() as u64, limit));
            }
            Ok(bytes.to_vec())
        })
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            let bytes = self.find(file).map_err(PartialRead::fatal)?;
            if bytes.len() as u64 != length {
                let what = format!("has {} bytes instead of {length}", bytes.len());
                return Err(PartialRead::fatal(Fault::model(file, what)));
            }
            arrived(range.end - range.start);
            Ok(bytes[range.start as usize..range.end as usize].to_vec())
        })
    }
}
