//! Pieces of a model, one after another: fetched or taken from where they are kept, checked,
//! fetched again where they are wrong, and cut into tensors.
//!
//! At most a handful of pieces is held at any time, whatever the size of the model.

use std::cell::Cell;

use futures_util::StreamExt;
use futures_util::stream;

use super::format::{Manifest, Part, TensorEntry, sha256_hex};
use super::source::{ByteSource, Hold, Pace, Piece, PieceStore};
use crate::fault::{Fault, FaultKind};

/// A piece is asked for this many times in a row without a byte coming, then the transfer ends;
/// with the waits between that is about four minutes.
const MAX_SILENT: u32 = 8;

/// A piece whose bytes are wrong this often is wrong at its source.
const MAX_WRONG: u32 = 3;

/// The longest wait between two requests, in milliseconds.
const LONGEST_WAIT: u32 = 60_000;

/// What a transfer did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
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

/// One model on its way.
pub struct Transfer<'a> {
    manifest: &'a Manifest,
    source: &'a dyn ByteSource,
    store: Option<&'a dyn PieceStore>,
    pace: &'a dyn Pace,
    report: &'a dyn Fn(Tally),
    tally: Cell<Tally>,
}

impl<'a> Transfer<'a> {
    /// A transfer from `source`, through `store` where there is one; `report` hears of progress.
    pub fn new(
        manifest: &'a Manifest,
        source: &'a dyn ByteSource,
        store: Option<&'a dyn PieceStore>,
        pace: &'a dyn Pace,
        report: &'a dyn Fn(Tally),
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
    pub fn tally(&self) -> Tally {
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
    /// As [`Transfer::keep`], and whatever `sink` finds wrong.
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

    async fn each(
        &self,
        pieces: Vec<Piece<'_>>,
        visit: &mut dyn FnMut(&Piece, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut coming = stream::iter(&pieces)
            .map(|piece| async move { (piece, self.obtain(piece).await) })
            .buffered(self.source.at_once().max(1));
        while let Some((piece, bytes)) = coming.next().await {
            visit(piece, &bytes?)?;
            self.count(|tally| tally.done += size(piece));
            self.pace.breathe().await;
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
            if silent > 0 && self.pace.hold() == Hold::Run {
                let wait = (500_u32 << silent).min(LONGEST_WAIT);
                self.pace.sleep(wait).await;
            }
        }
    }

    async fn wait_while_held(&self) -> Result<(), Fault> {
        loop {
            match self.pace.hold() {
                Hold::Run => return Ok(()),
                Hold::Pause => self.pace.sleep(200).await,
                Hold::Cancel => return Err(cancelled(&self.manifest.name)),
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
        (self.report)(tally);
    }
}

/// The fault of a transfer that the person gave up.
pub fn cancelled(model: &str) -> Fault {
    Fault::new(FaultKind::Network, model, "the download was cancelled", "")
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
