//! Pieces of a model, one after another: fetched or taken from where they are kept, checked,
//! fetched again where they are wrong, and cut into tensors.
//!
//! At most a handful of pieces is held at any time, whatever the size of the model.

use std::cell::Cell;

use futures_util::StreamExt;
use futures_util::stream;

use super::manifest::{Manifest, Part, TensorEntry, sha256_hex};
use super::source::{ByteSource, Piece, PieceStore, Runtime, TransferControl};
use crate::error::{ErrorCode, Fault, FaultKind};

/// A piece is asked for this many times in a row without a byte coming, then the transfer ends;
/// with the waits between that is about four minutes.
const MAX_SILENT: u32 = 8;

/// A piece whose bytes are wrong this often is wrong at its source.
const MAX_WRONG: u32 = 3;

/// The longest wait between two requests, in milliseconds.
const LONGEST_WAIT: u32 = 60_000;

/// What a transfer did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferStats {
    /// Bytes that came from the source, wrong and repeated ones included.
    pub fetched: u64,
    /// Bytes that were taken from where they were kept.
    pub kept: u64,
    /// Bytes that are whole and checked.
    pub done: u64,
    /// Bytes there are in all.
    pub total: u64,
    /// Requests that ended early.
    pub cuts: u32,
    /// Pieces whose bytes were wrong.
    pub wrong: u32,
}

/// Takes the checked bytes of one piece after another.
type Visit<'a> = dyn FnMut(&Piece, &[u8]) -> Result<(), Fault> + 'a;

/// One model on its way.
pub struct Downloader<'a> {
    manifest: &'a Manifest,
    source: &'a dyn ByteSource,
    store: Option<&'a dyn PieceStore>,
    pace: &'a dyn Runtime,
    report: &'a dyn Fn(TransferStats),
    tally: Cell<TransferStats>,
}

impl<'a> Downloader<'a> {
    /// A transfer from `source`, through `store` where there is one; `report` hears of progress.
    pub fn new(
        manifest: &'a Manifest,
        source: &'a dyn ByteSource,
        store: Option<&'a dyn PieceStore>,
        pace: &'a dyn Runtime,
        report: &'a dyn Fn(TransferStats),
    ) -> Self {
        Self {
            manifest,
            source,
            store,
            pace,
            report,
            tally: Cell::default(),
        }
    }

    /// What it did so far.
    pub fn tally(&self) -> TransferStats {
        self.tally.get()
    }

    /// Brings every piece into the store.
    ///
    /// # Errors
    /// The source fails for good, a piece stays wrong, the store has no room, or the person
    /// cancels. What was stored by then stays.
    pub async fn keep(&self) -> Result<(), Fault> {
        let pieces = pieces(self.manifest);
        let stored = |piece: &Piece| self.store.is_some_and(|store| store.has(piece));
        let length = |pieces: &[Piece]| pieces.iter().map(size).sum::<u64>();
        let (have, missing): (Vec<_>, Vec<_>) = pieces.into_iter().partition(stored);
        self.count(|tally| {
            tally.total = length(&have) + length(&missing);
            tally.done = length(&have);
            tally.kept = tally.done;
        });
        self.each(missing, &mut |_, _| Ok(())).await
    }

    /// Hands the tensors of `parts` that `sink` wants to it, in load order.
    ///
    /// # Errors
    /// As [`Downloader::keep`], and whatever `sink` finds wrong.
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
        self.count(|tally| tally.total = needed.iter().map(size).sum());
        let mut next = 0;
        self.each(needed, &mut |piece, bytes| {
            while let Some((name, tensor)) = wanted.get(next) {
                let Some((from, to)) = overlap(tensor, piece) else {
                    break;
                };
                let start = tensor.offset;
                if start >= piece.range.start {
                    sink.begin(name, tensor)?;
                }
                let cut = |at: u64| (at - piece.range.start) as usize;
                sink.bytes(&bytes[cut(from)..cut(to)])?;
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

    async fn each(&self, pieces: Vec<Piece<'_>>, visit: &mut Visit<'_>) -> Result<(), Fault> {
        let mut coming = stream::iter(&pieces)
            .map(|piece| async move { (piece, self.obtain(piece).await) })
            .buffered(self.source.max_parallel().max(1));
        while let Some((piece, bytes)) = coming.next().await {
            visit(piece, &bytes?)?;
            self.count(|tally| tally.done += size(piece));
            self.pace.yield_now().await;
        }
        Ok(())
    }

    /// The checked bytes of a piece.
    async fn obtain(&self, piece: &Piece<'_>) -> Result<Vec<u8>, Fault> {
        if let Some(store) = self.store.filter(|store| store.has(piece)) {
            let bytes = store.read(piece);
            if let Ok(bytes) = bytes
                && sha256_hex(&bytes) == piece.sha256
            {
                self.count(|tally| tally.kept += size(piece));
                return Ok(bytes);
            }
            store.forget(piece);
            self.count(|tally| tally.wrong += 1);
        }
        for _ in 0..MAX_WRONG {
            let bytes = self.fetch(piece).await?;
            if sha256_hex(&bytes) == piece.sha256 {
                if let Some(store) = self.store {
                    store.write(piece, &bytes)?;
                }
                return Ok(bytes);
            }
            self.count(|tally| tally.wrong += 1);
        }
        Err(Fault::model(
            format!(
                "{}, bytes {} to {}",
                piece.shard, piece.range.start, piece.range.end
            ),
            format!(
                "is damaged at {}: its SHA-256 was wrong {MAX_WRONG} times",
                self.source.place()
            ),
        ))
    }

    /// A piece as the source has it: what came before a cut is kept, and only the rest asked for.
    async fn fetch(&self, piece: &Piece<'_>) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let mut silent = 0;
        loop {
            self.wait_while_held().await?;
            let from = piece.range.start + bytes.len() as u64;
            let arrived = |more| self.count(|tally| tally.fetched += more);
            let read = self
                .source
                .range(piece.shard, piece.length, from..piece.range.end, &arrived)
                .await;
            let cut = match read {
                Ok(rest) if bytes.is_empty() => return Ok(rest),
                Ok(rest) => {
                    bytes.extend(rest);
                    return Ok(bytes);
                }
                Err(cut) => cut,
            };
            self.count(|tally| tally.cuts += 1);
            silent = if cut.arrived.is_empty() {
                silent + 1
            } else {
                0
            };
            if !cut.again || silent >= MAX_SILENT {
                return Err(cut.fault);
            }
            bytes.extend(cut.arrived);
            if silent > 0 && self.pace.hold() == TransferControl::Run {
                let wait = (500_u32 << silent).min(LONGEST_WAIT);
                self.pace.sleep(wait).await;
            }
        }
    }

    async fn wait_while_held(&self) -> Result<(), Fault> {
        loop {
            match self.pace.hold() {
                TransferControl::Run => return Ok(()),
                TransferControl::Pause => self.pace.sleep(200).await,
                TransferControl::Cancel => return Err(cancelled(&self.manifest.name)),
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut TransferStats)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
        (self.report)(tally);
    }
}

/// The fault of a transfer that the person gave up.
pub fn cancelled(model: &str) -> Fault {
    Fault::new(FaultKind::Network, model, "the download was cancelled", "")
        .code(ErrorCode::Cancelled)
}

/// Takes tensors as they come.
pub trait TensorSink {
    /// Whether tensor `name` is wanted at all.
    fn wants(&self, name: &str) -> bool;

    /// A tensor begins.
    ///
    /// # Errors
    /// It cannot be taken.
    fn begin(&mut self, name: &str, entry: &TensorEntry) -> Result<(), Fault>;

    /// More of its bytes, a multiple of four but at its end.
    ///
    /// # Errors
    /// They are not what a tensor may hold.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault>;

    /// It is complete.
    ///
    /// # Errors
    /// It cannot be taken.
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

/// The bytes of the shard that tensor and piece share.
fn overlap(tensor: &TensorEntry, piece: &Piece) -> Option<(u64, u64)> {
    let from = tensor.offset.max(piece.range.start);
    let to = (tensor.offset + byte_count(tensor)).min(piece.range.end);
    (tensor.shard == piece.shard && from < to).then_some((from, to))
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::weights::sample::{PIECE, Sample};
    use crate::weights::source::{LocalFuture, PartialRead};
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Range;

    /// A server with weaknesses.
    struct Server<'a> {
        files: &'a BTreeMap<String, Vec<u8>>,
        /// The connection ends whenever this many bytes have gone over it.
        cut_every: u64,
        sent: Cell<u64>,
        /// Byte of the first file that is wrong so many times.
        wrong: RefCell<(usize, u32)>,
        /// Nothing comes.
        dead: bool,
    }

    impl<'a> Server<'a> {
        fn new(sample: &'a Sample) -> Self {
            Self {
                files: &sample.shards,
                cut_every: u64::MAX,
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
            unreachable!("only ranges are asked for")
        }

        fn range<'a>(
            &'a self,
            file: &'a str,
            _length: u64,
            range: Range<u64>,
            arrived: &'a dyn Fn(u64),
        ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
            Box::pin(async move {
                let fault = Fault::new(FaultKind::Network, file, "connection lost", "");
                if self.dead {
                    return Err(PartialRead {
                        arrived: Vec::new(),
                        fault,
                        again: true,
                    });
                }
                let room = self.cut_every - self.sent.get() % self.cut_every;
                let end = range.end.min(range.start.saturating_add(room));
                let mut bytes = self.files[file][range.start as usize..end as usize].to_vec();
                let mut wrong = self.wrong.borrow_mut();
                if wrong.1 > 0 && (range.start..end).contains(&(wrong.0 as u64)) {
                    bytes[wrong.0 - range.start as usize] ^= 0x10;
                    wrong.1 -= 1;
                }
                self.sent.set(self.sent.get() + bytes.len() as u64);
                arrived(bytes.len() as u64);
                if end < range.end {
                    return Err(PartialRead {
                        arrived: bytes,
                        fault,
                        again: true,
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
        /// Pieces there is room for.
        room: Option<usize>,
    }

    impl PieceStore for Memory {
        fn has(&self, piece: &Piece) -> bool {
            self.pieces.borrow().contains_key(&piece.number)
        }

        fn read(&self, piece: &Piece) -> Result<Vec<u8>, Fault> {
            Ok(self.pieces.borrow()[&piece.number].clone())
        }

        fn write(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Fault> {
            if self.room == Some(self.pieces.borrow().len()) {
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

    /// Somebody who changes their mind after some pieces.
    struct Watcher {
        slept: Cell<u32>,
        breaths: Cell<u32>,
        then: (u32, TransferControl),
    }

    impl Watcher {
        fn patient() -> Self {
            Self::then(u32::MAX, TransferControl::Run)
        }

        fn then(breaths: u32, hold: TransferControl) -> Self {
            Self {
                slept: Cell::new(0),
                breaths: Cell::new(0),
                then: (breaths, hold),
            }
        }
    }

    impl Runtime for Watcher {
        fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
            self.slept.set(self.slept.get() + milliseconds);
            Box::pin(std::future::ready(()))
        }

        fn yield_now(&self) -> LocalFuture<'_, ()> {
            self.breaths.set(self.breaths.get() + 1);
            Box::pin(std::future::ready(()))
        }

        fn hold(&self) -> TransferControl {
            match self.then {
                (breaths, hold) if self.breaths.get() >= breaths => hold,
                _ => TransferControl::Run,
            }
        }
    }

    #[derive(Default)]
    struct Collected {
        tensors: BTreeMap<String, Vec<u8>>,
        now: String,
        without: BTreeSet<&'static str>,
    }

    impl TensorSink for Collected {
        fn wants(&self, name: &str) -> bool {
            !self.without.contains(name)
        }

        fn begin(&mut self, name: &str, _: &TensorEntry) -> Result<(), Fault> {
            self.now = name.into();
            self.tensors.insert(name.into(), Vec::new());
            Ok(())
        }

        fn bytes(&mut self, bytes: &[u8]) -> Result<(), Fault> {
            let now = self.tensors.get_mut(&self.now).expect("begun");
            now.extend(bytes);
            Ok(())
        }

        fn end(&mut self) -> Result<(), Fault> {
            self.now.clear();
            Ok(())
        }
    }

    fn kept(
        sample: &Sample,
        server: &Server,
        store: &Memory,
        watcher: &Watcher,
    ) -> (Result<(), Fault>, TransferStats) {
        let silent = |_| ();
        let transfer = Downloader::new(&sample.manifest, server, Some(store), watcher, &silent);
        let outcome = pollster::block_on(transfer.keep());
        (outcome, transfer.tally())
    }

    fn bytes_of(sample: &Sample, name: &str) -> Vec<u8> {
        let entry = &sample.manifest.tensors[name];
        let bytes = entry.bytes().expect("small") as usize;
        sample.shards[&entry.shard][entry.offset as usize..][..bytes].to_vec()
    }

    #[test]
    fn tensors_come_whole_across_pieces() {
        let sample = Sample::floats();
        let server = Server::new(&sample);
        for (parts, without, names) in [
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
                without: without.into_iter().collect(),
                ..Collected::default()
            };
            let watcher = Watcher::patient();
            let transfer = Downloader::new(&sample.manifest, &server, None, &watcher, &|_| ());
            pollster::block_on(transfer.tensors(&parts, &mut sink)).expect("a good server");
            assert_eq!(sink.tensors.keys().collect::<Vec<_>>(), names);
            for (name, bytes) in &sink.tensors {
                assert!(*bytes == bytes_of(&sample, name), "{name}");
            }
            assert_eq!(transfer.tally().done, transfer.tally().total);
        }
    }

    #[test]
    fn cuts_cost_no_bytes_and_one_wrong_piece_costs_itself() {
        let sample = Sample::floats();
        let total: u64 = sample.manifest.shards.iter().map(|shard| shard.bytes).sum();
        let mut server = Server::new(&sample);
        server.cut_every = 50_000;
        let store = Memory::default();
        let (outcome, tally) = kept(&sample, &server, &store, &Watcher::patient());
        outcome.expect("cuts are survived");
        assert_eq!((tally.fetched, tally.done), (total, total));
        assert!(tally.cuts >= (total / 50_000) as u32);

        *server.wrong.borrow_mut() = (100_000, 1);
        let store = Memory::default();
        let (outcome, tally) = kept(&sample, &server, &store, &Watcher::patient());
        outcome.expect("the wrong piece is fetched again");
        assert_eq!((tally.fetched, tally.wrong), (total + PIECE, 1));
        for piece in pieces(&sample.manifest) {
            let bytes = &store.pieces.borrow()[&piece.number];
            assert_eq!(sha256_hex(bytes), piece.sha256);
        }
    }

    #[test]
    fn what_is_kept_is_not_fetched_again_unless_it_is_damaged() {
        let sample = Sample::floats();
        let total: u64 = sample.manifest.shards.iter().map(|shard| shard.bytes).sum();
        let server = Server::new(&sample);
        let store = Memory::default();
        let (outcome, _) = kept(
            &sample,
            &server,
            &store,
            &Watcher::then(2, TransferControl::Cancel),
        );
        assert!(outcome.expect_err("cancelled").what.contains("cancelled"));
        let have = store.pieces.borrow().len();
        assert!((2..=5).contains(&have), "{have} pieces");

        let (outcome, tally) = kept(&sample, &server, &store, &Watcher::patient());
        outcome.expect("it goes on");
        assert_eq!(tally.fetched + tally.kept, total);
        assert_eq!(server.sent.get(), total);

        store.pieces.borrow_mut().get_mut(&1).expect("kept")[7] ^= 1;
        let mut sink = Collected::default();
        let watcher = Watcher::patient();
        let transfer = Downloader::new(&sample.manifest, &server, Some(&store), &watcher, &|_| ());
        pollster::block_on(transfer.tensors(&Part::ALL, &mut sink)).expect("repaired");
        assert_eq!(
            (transfer.tally().wrong, transfer.tally().fetched),
            (1, PIECE)
        );
        assert!(sink.tensors["b"] == bytes_of(&sample, "b"));
    }

    #[test]
    fn what_cannot_succeed_ends_with_a_reason() {
        let sample = Sample::floats();
        let mut server = Server::new(&sample);
        *server.wrong.borrow_mut() = (70_000, 99);
        let (outcome, tally) = kept(&sample, &server, &Memory::default(), &Watcher::patient());
        let fault = outcome.expect_err("wrong for good").to_string();
        assert!(
            fault.contains("upn.safetensors, bytes 65536 to 131072"),
            "{fault}"
        );
        assert_eq!(tally.wrong, MAX_WRONG);

        *server.wrong.borrow_mut() = (0, 0);
        let full = Memory {
            room: Some(3),
            ..Memory::default()
        };
        let (outcome, _) = kept(&sample, &server, &full, &Watcher::patient());
        assert_eq!(outcome.expect_err("full").what, "no room");
        assert_eq!(full.pieces.borrow().len(), 3);

        server.dead = true;
        let watcher = Watcher::patient();
        let (outcome, tally) = kept(&sample, &server, &Memory::default(), &watcher);
        assert_eq!(outcome.expect_err("dead").what, "connection lost");
        assert!(tally.cuts >= MAX_SILENT);
        assert!(watcher.slept.get() > 100_000, "{}", watcher.slept.get());
    }

    #[test]
    fn a_pause_waits() {
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
            fn hold(&self) -> TransferControl {
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
        pollster::block_on(transfer.keep()).expect("it goes on after the pause");
        assert_eq!(pausing.0.get(), 5);
    }
}
