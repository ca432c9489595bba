//! Downloads a model piece by piece: each piece is read from the cache or fetched, hashed, fetched
//! again where its hash is wrong, and split into tensors.
//!
//! A few pieces are in memory at a time, whatever the size of the model.

use std::cell::Cell;

use futures_util::StreamExt;
use futures_util::stream;

use super::manifest::{Manifest, Part, TensorEntry};
use super::source::{ByteSource, Piece, PieceStore, Runtime, TransferControl};
use crate::error::{ErrorCode, Fault, FaultKind};

/// After this many requests in a row that bring no byte the transfer fails; with the backoff between
/// them that takes about four minutes.
const MAX_EMPTY_READS: u32 = 8;

/// A piece whose hash is wrong this often is corrupt at its source.
const MAX_CORRUPT_READS: u32 = 3;

/// The longest backoff between two requests, in milliseconds.
const MAX_BACKOFF: u32 = 60_000;

/// Counters of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferStats {
    /// Bytes received from the source, corrupt and repeated ones included.
    pub fetched: u64,
    /// Bytes read from the store.
    pub cached: u64,
    /// Bytes of complete, checked pieces.
    pub done: u64,
    /// Bytes of all pieces.
    pub total: u64,
    /// Requests that ended early.
    pub interruptions: u32,
    /// Pieces whose hash was wrong.
    pub wrong: u32,
}

/// Receives the checked bytes of one piece after another.
type Visit<'a> = dyn FnMut(&Piece, &[u8]) -> Result<(), Fault> + 'a;

/// The transfer of one model.
pub struct Downloader<'a> {
    manifest: &'a Manifest,
    source: &'a dyn ByteSource,
    store: Option<&'a dyn PieceStore>,
    runtime: &'a dyn Runtime,
    report: &'a dyn Fn(TransferStats),
    stats: Cell<TransferStats>,
}

impl<'a> Downloader<'a> {
    /// A transfer from `source`, through `store` where there is one; every change of the counters goes
    /// to `report`.
    pub fn new(
        manifest: &'a Manifest,
        source: &'a dyn ByteSource,
        store: Option<&'a dyn PieceStore>,
        runtime: &'a dyn Runtime,
        report: &'a dyn Fn(TransferStats),
    ) -> Self {
        Self {
            manifest,
            source,
            store,
            runtime,
            report,
            stats: Cell::default(),
        }
    }

    /// The counters.
    pub fn stats(&self) -> TransferStats {
        self.stats.get()
    }

    /// Downloads every missing piece into the store.
    ///
    /// # Errors
    /// The source fails permanently, a piece stays corrupt, the store is full, or the user
    /// cancels. Pieces stored before that stay.
    pub async fn download(&self) -> Result<(), Fault> {
        let pieces = pieces(self.manifest);
        let is_stored = |piece: &Piece| self.store.is_some_and(|store| store.has(piece));
        let length = |pieces: &[Piece]| pieces.iter().map(size).sum::<u64>();
        let (stored, missing): (Vec<_>, Vec<_>) = pieces.into_iter().partition(is_stored);
        self.count(|stats| {
            stats.total = length(&stored) + length(&missing);
            stats.done = length(&stored);
            stats.cached = stats.done;
        });
        self.visit_pieces(missing, &mut |_, _| Ok(())).await
    }

    /// Passes the tensors of `parts` that `sink` wants to it, in load order.
    ///
    /// # Errors
    /// As [`Downloader::download`], and the errors of `sink`.
    pub async fn tensors(&self, parts: &[Part], sink: &mut dyn TensorSink) -> Result<(), Fault> {
        let manifest = self.manifest;
        let shards: Vec<&str> = manifest
            .shards
            .iter()
            .filter(|shard| parts.contains(&shard.part))
            .map(|shard| shard.name.as_str())
            .collect();
        let wanted: Vec<(&str, &TensorEntry)> = shards
            .iter()
            .flat_map(|shard| manifest.in_shard(shard))
            .filter(|(name, _)| sink.wants(name))
            .collect();
        let needed: Vec<Piece> = pieces(manifest)
            .into_iter()
            .filter(|piece| {
                wanted
                    .iter()
                    .any(|(_, tensor)| overlap(tensor, piece).is_some())
            })
            .collect();
        self.count(|stats| stats.total = needed.iter().map(size).sum());
        let mut next = 0;
        self.visit_pieces(needed, &mut |piece, bytes| {
            while let Some((name, tensor)) = wanted.get(next) {
                let Some((from, to)) = overlap(tensor, piece) else {
                    break;
                };
                let start = tensor.offset;
                if start >= piece.range.start {
                    sink.begin(name, tensor)?;
                }
                let in_piece = |at: u64| (at - piece.range.start) as usize;
                sink.bytes(&bytes[in_piece(from)..in_piece(to)])?;
                if to < start + byte_count(tensor) {
                    break;
                }
                sink.end()?;
                next += 1;
            }
            Ok(())
        })
        .await
    }

    /// Reads pieces in order, several at a time.
    async fn visit_pieces(
        &self,
        pieces: Vec<Piece<'_>>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let mut reads = stream::iter(&pieces)
            .map(|piece| async move { (piece, self.checked_bytes(piece).await) })
            .buffered(self.source.max_parallel().max(1));
        while let Some((piece, bytes)) = reads.next().await {
            visit(piece, &bytes?)?;
            self.count(|stats| stats.done += size(piece));
            self.runtime.yield_now().await;
        }
        Ok(())
    }

    /// The bytes of a piece, whose hash is right.
    async fn checked_bytes(&self, piece: &Piece<'_>) -> Result<Vec<u8>, Fault> {
        if let Some(store) = self.store.filter(|store| store.has(piece)) {
            if let Ok(bytes) = store.read(piece) {
                let (bytes, sha256) = self.runtime.sha256(bytes).await;
                if sha256 == piece.sha256 {
                    self.count(|stats| stats.cached += size(piece));
                    return Ok(bytes);
                }
            }
            store.forget(piece);
            self.count(|stats| stats.wrong += 1);
        }
        for _ in 0..MAX_CORRUPT_READS {
            let (bytes, sha256) = self.runtime.sha256(self.fetch(piece).await?).await;
            if sha256 == piece.sha256 {
                if let Some(store) = self.store {
                    store.write(piece, &bytes)?;
                }
                return Ok(bytes);
            }
            self.count(|stats| stats.wrong += 1);
        }
        Err(Fault::model(
            format!(
                "{}, bytes {} to {}",
                piece.shard, piece.range.start, piece.range.end
            ),
            format!(
                "is damaged at {}: its SHA-256 was wrong {MAX_CORRUPT_READS} times",
                self.source.place()
            ),
        ))
    }

    /// Fetches a piece, unchecked. After an interruption only the missing bytes are requested.
    async fn fetch(&self, piece: &Piece<'_>) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let mut empty_reads = 0;
        loop {
            self.wait_while_paused().await?;
            let from = piece.range.start + bytes.len() as u64;
            let on_bytes = |more| self.count(|stats| stats.fetched += more);
            let read = self
                .source
                .range(piece.shard, piece.length, from..piece.range.end, &on_bytes)
                .await;
            let partial = match read {
                Ok(rest) if bytes.is_empty() => return Ok(rest),
                Ok(rest) => {
                    bytes.extend(rest);
                    return Ok(bytes);
                }
                Err(partial) => partial,
            };
            self.count(|stats| stats.interruptions += 1);
            empty_reads = if partial.arrived.is_empty() {
                empty_reads + 1
            } else {
                0
            };
            if !partial.retryable || empty_reads >= MAX_EMPTY_READS {
                return Err(partial.fault);
            }
            bytes.extend(partial.arrived);
            if empty_reads > 0 && self.runtime.control() == TransferControl::Run {
                let backoff = (500_u32 << empty_reads).min(MAX_BACKOFF);
                self.runtime.sleep(backoff).await;
            }
        }
    }

    async fn wait_while_paused(&self) -> Result<(), Fault> {
        loop {
            match self.runtime.control() {
                TransferControl::Run => return Ok(()),
                TransferControl::Pause => self.runtime.sleep(200).await,
                TransferControl::Cancel => return Err(cancelled(&self.manifest.name)),
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut TransferStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
        (self.report)(stats);
    }
}

/// The fault of a transfer that the user cancelled.
pub fn cancelled(model: &str) -> Fault {
    Fault::new(FaultKind::Network, model, "the download was cancelled", "")
        .code(ErrorCode::Cancelled)
}

/// Receives tensors one after another, each in several steps.
pub trait TensorSink {
    /// Whether tensor `name` is wanted.
    fn wants(&self, name: &str) -> bool;

    /// Starts a tensor.
    ///
    /// # Errors
    /// The sink cannot store it.
    fn begin(&mut self, name: &str, entry: &TensorEntry) -> Result<(), Fault>;

    /// The next bytes of the tensor; their number is a multiple of four except at the end.
    ///
    /// # Errors
    /// The tensor may not hold these values.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault>;

    /// Completes the tensor.
    ///
    /// # Errors
    /// The sink cannot store it.
    fn end(&mut self) -> Result<(), Fault>;
}

/// All pieces of a model, in load order.
pub fn pieces(manifest: &Manifest) -> Vec<Piece<'_>> {
    let step = manifest.piece_bytes;
    let mut pieces = Vec::new();
    for shard in &manifest.shards {
        for (index, sha256) in shard.pieces.iter().enumerate() {
            let start = index as u64 * step;
            pieces.push(Piece {
                shard: &shard.name,
                length: shard.bytes,
                number: pieces.len(),
                range: start..(start + step).min(shard.bytes),
                sha256,
            });
        }
    }
    pieces
}

fn size(piece: &Piece) -> u64 {
    piece.range.end - piece.range.start
}

fn byte_count(tensor: &TensorEntry) -> u64 {
    tensor.bytes().expect("the manifest was checked")
}

/// The bytes of the shard that are both in the tensor and in the piece.
fn overlap(tensor: &TensorEntry, piece: &Piece) -> Option<(u64, u64)> {
    let from = tensor.offset.max(piece.range.start);
    let to = (tensor.offset + byte_count(tensor)).min(piece.range.end);
    (tensor.shard == piece.shard && from < to).then_some((from, to))
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::weights::manifest::sha256_hex;
    use crate::weights::sample::{PIECE, Sample};
    use crate::weights::source::{LocalFuture, PartialRead};
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Range;

    /// A server with faults.
    struct Server<'a> {
        files: &'a BTreeMap<String, Vec<u8>>,
        /// The connection breaks whenever it has carried this many bytes.
        break_every: u64,
        sent: Cell<u64>,
        /// A byte offset that is wrong, and how many times.
        wrong: RefCell<(usize, u32)>,
        /// No request brings a byte.
        dead: bool,
    }

    impl<'a> Server<'a> {
        fn new(sample: &'a Sample) -> Self {
            Self {
                files: &sample.shards,
                break_every: u64::MAX,
                sent: Cell::new(0),
                wrong: RefCell::new((0, 0)),
                dead: false,
            }
        }
    }

    impl ByteSource for Server<'_> {
        fn place(&self) -> String {
            "http://example.org".into()
        }

        fn read<'a>(&'a self, _: &'a str, _: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
            unreachable!("only ranges are requested")
        }

        fn range<'a>(
            &'a self,
            file: &'a str,
            _length: u64,
            range: Range<u64>,
            on_bytes: &'a dyn Fn(u64),
        ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
            Box::pin(async move {
                let fault = Fault::new(FaultKind::Network, file, "connection lost", "");
                if self.dead {
                    return Err(PartialRead {
                        arrived: Vec::new(),
                        fault,
                        retryable: true,
                    });
                }
                let room = self.break_every - self.sent.get() % self.break_every;
                let end = range.end.min(range.start.saturating_add(room));
                let mut bytes = self.files[file][range.start as usize..end as usize].to_vec();
                let mut wrong = self.wrong.borrow_mut();
                if wrong.1 > 0 && (range.start..end).contains(&(wrong.0 as u64)) {
                    bytes[wrong.0 - range.start as usize] ^= 0x10;
                    wrong.1 -= 1;
                }
                self.sent.set(self.sent.get() + bytes.len() as u64);
                on_bytes(bytes.len() as u64);
                if end < range.end {
                    return Err(PartialRead {
                        arrived: bytes,
                        fault,
                        retryable: true,
                    });
                }
                Ok(bytes)
            })
        }

        fn max_parallel(&self) -> usize {
            3
        }
    }

    #[derive(Default)]
    struct Memory {
        pieces: RefCell<BTreeMap<usize, Vec<u8>>>,
        /// The most pieces it can hold.
        capacity: Option<usize>,
    }

    impl PieceStore for Memory {
        fn has(&self, piece: &Piece) -> bool {
            self.pieces.borrow().contains_key(&piece.number)
        }

        fn read(&self, piece: &Piece) -> Result<Vec<u8>, Fault> {
            Ok(self.pieces.borrow()[&piece.number].clone())
        }

        fn write(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Fault> {
            if self.capacity == Some(self.pieces.borrow().len()) {
                return Err(Fault::new(FaultKind::File, piece.shard, "no room", ""));
            }
            let mut pieces = self.pieces.borrow_mut();
            pieces.insert(piece.number, bytes.to_vec());
            Ok(())
        }

        fn forget(&self, piece: &Piece) {
            self.pieces.borrow_mut().remove(&piece.number);
        }
    }

    /// A runtime whose clock is a counter and whose user acts after some pieces.
    struct Scripted {
        slept: Cell<u32>,
        yields: Cell<u32>,
        /// From which yield on which control applies.
        action: (u32, TransferControl),
    }

    impl Scripted {
        fn running() -> Self {
            Self::after(u32::MAX, TransferControl::Run)
        }

        fn after(yields: u32, control: TransferControl) -> Self {
            Self {
                slept: Cell::new(0),
                yields: Cell::new(0),
                action: (yields, control),
            }
        }
    }

    impl Runtime for Scripted {
        fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
            self.slept.set(self.slept.get() + milliseconds);
            Box::pin(std::future::ready(()))
        }

        fn yield_now(&self) -> LocalFuture<'_, ()> {
            self.yields.set(self.yields.get() + 1);
            Box::pin(std::future::ready(()))
        }

        fn control(&self) -> TransferControl {
            match self.action {
                (yields, control) if self.yields.get() >= yields => control,
                _ => TransferControl::Run,
            }
        }
    }

    #[derive(Default)]
    struct Collected {
        tensors: BTreeMap<String, Vec<u8>>,
        current: String,
        unwanted: BTreeSet<&'static str>,
    }

    impl TensorSink for Collected {
        fn wants(&self, name: &str) -> bool {
            !self.unwanted.contains(name)
        }

        fn begin(&mut self, name: &str, _: &TensorEntry) -> Result<(), Fault> {
            self.current = name.into();
            self.tensors.insert(name.into(), Vec::new());
            Ok(())
        }

        fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
            let tensor = self.tensors.get_mut(&self.current).expect("begun");
            tensor.extend(bytes);
            Ok(())
        }

        fn end(&mut self) -> Result<(), Fault> {
            self.current.clear();
            Ok(())
        }
    }

    fn downloaded(
        sample: &Sample,
        server: &Server,
        store: &Memory,
        runtime: &Scripted,
    ) -> (Result<(), Fault>, TransferStats) {
        let report = |_| ();
        let transfer = Downloader::new(&sample.manifest, server, Some(store), runtime, &report);
        let outcome = pollster::block_on(transfer.download());
        (outcome, transfer.stats())
    }

    fn bytes_of(sample: &Sample, name: &str) -> Vec<u8> {
        let entry = &sample.manifest.tensors[name];
        let bytes = entry.bytes().expect("small") as usize;
        sample.shards[&entry.shard][entry.offset as usize..][..bytes].to_vec()
    }

    #[test]
    fn tensors_span_pieces() {
        let sample = Sample::floats();
        let server = Server::new(&sample);
        for (parts, unwanted, names) in [
            (
                vec![Part::Upn, Part::Decoder],
                vec![],
                vec!["a", "b", "c", "d", "e"],
            ),
            (vec![Part::Decoder], vec![], vec!["d", "e"]),
            (
                vec![Part::Upn, Part::Decoder],
                vec!["a", "b", "d"],
                vec!["c", "e"],
            ),
        ] {
            let mut sink = Collected {
                unwanted: unwanted.into_iter().collect(),
                ..Collected::default()
            };
            let runtime = Scripted::running();
            let transfer = Downloader::new(&sample.manifest, &server, None, &runtime, &|_| ());
            pollster::block_on(transfer.tensors(&parts, &mut sink)).expect("a good server");
            assert_eq!(sink.tensors.keys().collect::<Vec<_>>(), names);
            for (name, bytes) in &sink.tensors {
                assert!(*bytes == bytes_of(&sample, name), "{name}");
            }
            assert_eq!(transfer.stats().done, transfer.stats().total);
        }
    }

    #[test]
    fn interruptions_repeat_no_bytes_and_a_corrupt_piece_is_fetched_again() {
        let sample = Sample::floats();
        let total: u64 = sample.manifest.shards.iter().map(|shard| shard.bytes).sum();
        let mut server = Server::new(&sample);
        server.break_every = 50_000;
        let store = Memory::default();
        let (outcome, stats) = downloaded(&sample, &server, &store, &Scripted::running());
        outcome.expect("interruptions are survived");
        assert_eq!((stats.fetched, stats.done), (total, total));
        assert!(stats.interruptions >= (total / 50_000) as u32);

        *server.wrong.borrow_mut() = (100_000, 1);
        let store = Memory::default();
        let (outcome, stats) = downloaded(&sample, &server, &store, &Scripted::running());
        outcome.expect("the wrong piece is fetched again");
        assert_eq!((stats.fetched, stats.wrong), (total + PIECE, 1));
        for piece in pieces(&sample.manifest) {
            let bytes = &store.pieces.borrow()[&piece.number];
            assert_eq!(sha256_hex(bytes), piece.sha256);
        }
    }

    #[test]
    fn stored_pieces_are_not_fetched_again_unless_damaged() {
        let sample = Sample::floats();
        let total: u64 = sample.manifest.shards.iter().map(|shard| shard.bytes).sum();
        let server = Server::new(&sample);
        let store = Memory::default();
        let (outcome, _) = downloaded(
            &sample,
            &server,
            &store,
            &Scripted::after(2, TransferControl::Cancel),
        );
        assert!(outcome.expect_err("cancelled").what.contains("cancelled"));
        let stored = store.pieces.borrow().len();
        assert!((2..=5).contains(&stored), "{stored} pieces");

        let (outcome, stats) = downloaded(&sample, &server, &store, &Scripted::running());
        outcome.expect("the download resumes");
        assert_eq!(stats.fetched + stats.cached, total);
        assert_eq!(server.sent.get(), total);

        store.pieces.borrow_mut().get_mut(&1).expect("stored")[7] ^= 1;
        let mut sink = Collected::default();
        let runtime = Scripted::running();
        let transfer = Downloader::new(&sample.manifest, &server, Some(&store), &runtime, &|_| ());
        pollster::block_on(transfer.tensors(&Part::ALL, &mut sink)).expect("repaired");
        assert_eq!(
            (transfer.stats().wrong, transfer.stats().fetched),
            (1, PIECE)
        );
        assert!(sink.tensors["b"] == bytes_of(&sample, "b"));
    }

    #[test]
    fn permanent_failures_end_with_a_reason() {
        let sample = Sample::floats();
        let mut server = Server::new(&sample);
        *server.wrong.borrow_mut() = (70_000, 99);
        let (outcome, stats) =
            downloaded(&sample, &server, &Memory::default(), &Scripted::running());
        let fault = outcome.expect_err("corrupt at the source").to_string();
        assert!(
            fault.contains("upn.safetensors, bytes 65536 to 131072"),
            "{fault}"
        );
        assert_eq!(stats.wrong, MAX_CORRUPT_READS);

        *server.wrong.borrow_mut() = (0, 0);
        let full = Memory {
            capacity: Some(3),
            ..Memory::default()
        };
        let (outcome, _) = downloaded(&sample, &server, &full, &Scripted::running());
        assert_eq!(outcome.expect_err("full").what, "no room");
        assert_eq!(full.pieces.borrow().len(), 3);

        server.dead = true;
        let runtime = Scripted::running();
        let (outcome, stats) = downloaded(&sample, &server, &Memory::default(), &runtime);
        assert_eq!(outcome.expect_err("dead").what, "connection lost");
        assert!(stats.interruptions >= MAX_EMPTY_READS);
        assert!(runtime.slept.get() > 100_000, "{}", runtime.slept.get());
    }

    #[test]
    fn a_pause_waits_until_the_user_resumes() {
        let sample = Sample::floats();
        let server = Server::new(&sample);
        struct Pausing(Cell<u32>);
        impl Runtime for Pausing {
            fn sleep(&self, _: u32) -> LocalFuture<'_, ()> {
                self.0.set(self.0.get() + 1);
                Box::pin(std::future::ready(()))
            }
            fn yield_now(&self) -> LocalFuture<'_, ()> {
                Box::pin(std::future::ready(()))
            }
            fn control(&self) -> TransferControl {
                if self.0.get() < 5 {
                    TransferControl::Pause
                } else {
                    TransferControl::Run
                }
            }
        }
        let pausing = Pausing(Cell::new(0));
        let store = Memory::default();
        let transfer = Downloader::new(&sample.manifest, &server, Some(&store), &pausing, &|_| ());
        pollster::block_on(transfer.download()).expect("it resumes after the pause");
        assert_eq!(pausing.0.get(), 5);
    }
}
