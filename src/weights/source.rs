//! Sources of a model's files, and the store that caches checked pieces of them.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use super::manifest::sha256_hex;
use crate::error::{ErrorCode, Fault};
#[cfg(feature = "native")]
use crate::simd::threads;

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A read that ended early.
#[derive(Clone, Debug)]
pub struct PartialRead {
    /// The bytes received, from the start of the range.
    pub arrived: Vec<u8>,
    /// Why it ended.
    pub fault: Fault,
    /// Whether a retry may succeed.
    pub retryable: bool,
}

impl PartialRead {
    /// A permanent failure that brought no byte.
    pub fn fatal(fault: Fault) -> Self {
        Self {
            arrived: Vec::new(),
            fault,
            retryable: false,
        }
    }
}

/// Reads the files of one model folder, by plain name.
pub trait ByteSource {
    /// The folder or base URL, for messages.
    fn place(&self) -> String;

    /// The whole file `name`; an error if it is longer than `limit` bytes.
    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>>;

    /// The bytes `range` of `file`, which is `length` bytes long. `on_bytes` receives the number of
    /// bytes of each chunk that arrives.
    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        on_bytes: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>>;

    /// How many ranges to request at a time.
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
    /// Index among all pieces of the model.
    pub number: usize,
    /// Its bytes in the shard.
    pub range: Range<u64>,
    /// Its SHA-256.
    pub sha256: &'a str,
}

/// Caches pieces of one model between visits.
pub trait PieceStore {
    /// Whether the piece is stored. Its hash is checked again after every read.
    fn has(&self, piece: &Piece) -> bool;

    /// The piece's bytes.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, piece: &Piece) -> Result<Vec<u8>, Fault>;

    /// Stores a checked piece.
    ///
    /// # Errors
    /// The storage is full, or fails.
    fn write(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Fault>;

    /// Drops a piece that is damaged.
    fn forget(&self, piece: &Piece);
}

/// The source of one model's files and the store of its checked pieces.
pub struct ModelFiles {
    /// Serves manifest, tokenizer and shards.
    pub source: Box<dyn ByteSource>,
    /// Absent where the source is as fast as a store.
    pub store: Option<Box<dyn PieceStore>>,
}

/// What the user wants of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferControl {
    /// Continue.
    Run,
    /// Wait.
    Pause,
    /// Stop for good.
    Cancel,
}

/// Timers, yielding and pause/cancel.
pub trait Runtime {
    /// Waits. A host may end the wait early, e.g. when the network is back.
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()>;

    /// Lets pending messages be handled.
    fn yield_now(&self) -> LocalFuture<'_, ()>;

    /// The current wish of the user.
    fn control(&self) -> TransferControl;

    /// `bytes` and their SHA-256, natively computed on another thread if there is one.
    fn sha256(&self, bytes: Vec<u8>) -> LocalFuture<'_, (Vec<u8>, String)> {
        Box::pin(hashed(bytes))
    }
}

/// `bytes` and their SHA-256.
async fn hashed(bytes: Vec<u8>) -> (Vec<u8>, String) {
    let hash = |bytes: Vec<u8>| {
        let sha256 = sha256_hex(&bytes);
        (bytes, sha256)
    };
    #[cfg(feature = "native")]
    if threads() > 1 {
        let (sender, receiver) = futures_channel::oneshot::channel();
        // Sending fails if the load has ended with an error.
        rayon::spawn(move || drop(sender.send(hash(bytes))));
        return receiver.await.expect("the hash of bytes is always sent");
    }
    hash(bytes)
}

/// Sleeps on the thread (in a browser not at all), never yields, pauses or cancels.
#[cfg(any(feature = "native", feature = "worker"))]
pub struct BlockingRuntime;

#[cfg(any(feature = "native", feature = "worker"))]
impl Runtime for BlockingRuntime {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        if cfg!(feature = "native") {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds.into()));
        }
        Box::pin(std::future::ready(()))
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn control(&self) -> TransferControl {
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
        on_bytes: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            let bytes =
                Self::read_range(&self.0.join(file), length, &range).map_err(PartialRead::fatal)?;
            on_bytes(bytes.len() as u64);
            Ok(bytes)
        })
    }

    /// One more than the threads that hash.
    fn max_parallel(&self) -> usize {
        threads() + 1
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
#[derive(Clone, Copy, Debug)]
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
        on_bytes: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            let bytes = self.find(file).map_err(PartialRead::fatal)?;
            if bytes.len() as u64 != length {
                let what = format!("has {} bytes instead of {length}", bytes.len());
                return Err(PartialRead::fatal(Fault::model(file, what)));
            }
            on_bytes(range.end - range.start);
            Ok(bytes[range.start as usize..range.end as usize].to_vec())
        })
    }
}
