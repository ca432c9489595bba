//! Reads, decodes and preprocesses pictures ahead of the engine, on other threads.
//!
//! Pictures are given out in their order. Threads begin at most a number of pictures ahead, and decode one only
//! while its pixels and preprocessed images fit into a limit of bytes beside those that wait; the picture that the
//! engine waits for is always decoded. Preprocessing uses rayon's pool, which must have threads of its own: one of the
//! engine's thread alone would never serve these.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::engine::prepare::{Preparation, Prepared};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::image::{Pixels, decode};

/// Larger files are refused: with 8 bits per channel no picture within [`Pixels::LIMIT`] needs so much.
const MAX_FILE: u64 = 512 << 20;

/// Bytes that a pixel takes while it waits: RGB, and about as much again as f32 in preprocessed images.
const BYTES_PER_PIXEL: u64 = 6;

/// Limits of what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pictures; 0 reads each one when the engine wants it.
    pub pictures: usize,
    /// Bytes of pixels and preprocessed images.
    pub bytes: u64,
}

/// A picture that was read.
pub struct Loaded {
    /// SHA-256 of its file; `None` if it cannot be read.
    pub sha256: Option<[u8; 32]>,
    /// What it shows; `None` if a picture before it has the same file.
    pub content: Result<Option<Content>, Fault>,
    /// Time to read and decode it, and to preprocess it, in milliseconds.
    pub milliseconds: [f64; 2],
}

/// A picture as the engine takes it.
pub struct Content {
    /// The pixels.
    pub pixels: Pixels,
    /// What the networks read.
    pub prepared: Prepared,
}

impl Content {
    fn bytes(&self) -> u64 {
        (self.pixels.rgb.len() + self.prepared.bytes()) as u64
    }
}

/// The pictures of a batch, in order.
pub struct Ahead<'a> {
    paths: Vec<PathBuf>,
    preparation: &'a Preparation,
    limits: Limits,
    /// Whether a file that was read before is not decoded again.
    once: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next picture that a thread begins.
    next: usize,
    /// The picture that the engine takes next.
    wanted: usize,
    /// Bytes of those that wait or are being decoded.
    bytes: u64,
    ready: BTreeMap<usize, Loaded>,
    seen: HashSet<[u8; 32]>,
    closed: bool,
}

impl<'a> Ahead<'a> {
    /// With `once` a file that is equal to one before is not decoded.
    pub fn new(
        paths: Vec<PathBuf>,
        preparation: &'a Preparation,
        limits: Limits,
        once: bool,
    ) -> Self {
        Self {
            paths,
            preparation,
            limits,
            once,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        }
    }

    /// Starts the threads. They end once every picture is read, or with [`Ahead::close`].
    pub fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.limits.pictures.min((cores - 1).clamp(1, 8));
        for _ in 0..threads {
            scope.spawn(|| self.work());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(place) = self.begin() {
            let loaded = self.load(place, true);
            let mut state = self.lock();
            if let Ok(Some(content)) = &loaded.content {
                state.bytes += content.bytes();
            }
            state.ready.insert(place, loaded);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next picture to read, once it is near enough.
    fn begin(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.closed || state.next >= self.paths.len() {
                return None;
            }
            if state.next < state.wanted + self.limits.pictures {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.wait(state);
        }
    }

    /// Reads a picture. With `waits` its bytes are reserved before it is decoded, and given back.
    fn load(&self, place: usize, waits: bool) -> Loaded {
        let start = Instant::now();
        let path = &self.paths[place];
        let mut loaded = Loaded {
            sha256: None,
            content: Ok(None),
            milliseconds: [0.0; 2],
        };
        let bytes = match read_file(path) {
            Ok(bytes) => bytes,
            Err(fault) => {
                loaded.content = Err(fault);
                return loaded;
            }
        };
        let sha256: [u8; 32] = Sha256::digest(&bytes).into();
        loaded.sha256 = Some(sha256);
        let is_new = self.lock().seen.insert(sha256);
        if waits && self.once && !is_new {
            return loaded;
        }
        let reserved = match waits {
            true => self.reserve(place, &bytes),
            false => 0,
        };
        // A decoder that panics must not leave the engine waiting.
        let decoded = catch_unwind(AssertUnwindSafe(|| decode::decode(&bytes)));
        let decoded = decoded.unwrap_or_else(|_| Err(undecodable()));
        loaded.milliseconds[0] = start.elapsed().as_secs_f64() * 1e3;
        loaded.content = decoded
            .map(|pixels| {
                let prepared = self.preparation.prepare(&pixels);
                Some(Content { pixels, prepared })
            })
            .map_err(|fault| Fault {
                place: path.display().to_string(),
                ..fault
            });
        loaded.milliseconds[1] = start.elapsed().as_secs_f64() * 1e3 - loaded.milliseconds[0];
        if reserved > 0 {
            self.lock().bytes -= reserved;
        }
        loaded
    }

    /// Waits until the picture fits, and reserves its bytes.
    fn reserve(&self, place: usize, file: &[u8]) -> u64 {
        let pixels = decode::size(file).map_or(0, |(w, h)| u64::from(w) * u64::from(h));
        let bytes = pixels * BYTES_PER_PIXEL + file.len() as u64;
        let mut state = self.lock();
        while !state.closed && state.wanted != place && state.bytes + bytes > self.limits.bytes {
            state = self.wait(state);
        }
        state.bytes += bytes;
        bytes
    }

    /// The picture at `place`; call it with every place in order.
    pub fn take(&self, place: usize) -> Loaded {
        if self.limits.pictures == 0 {
            return self.read_now(place);
        }
        let mut state = self.lock();
        state.wanted = place;
        self.changed.notify_all();
        loop {
            if let Some(loaded) = state.ready.remove(&place) {
                if let Ok(Some(content)) = &loaded.content {
                    state.bytes -= content.bytes();
                }
                state.wanted = place + 1;
                drop(state);
                self.changed.notify_all();
                return loaded;
            }
            state = self.wait(state);
        }
    }

    /// Reads a picture on this thread, even if its file was read before.
    pub fn read_now(&self, place: usize) -> Loaded {
        self.load(place, false)
    }

    /// Ends the threads.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Reads a picture file.
fn read_file(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |error| Fault::file(path, error);
    let data = fs::metadata(path).map_err(fault)?;
    let refuse = |what: String, advice: &str| {
        let fault = Fault::new(FaultKind::Picture, path.display().to_string(), what, advice);
        Err(fault.code(ErrorCode::InvalidInput))
    };
    // Reading a pipe could wait for ever.
    if !data.is_file() {
        return refuse("is no file".into(), "Name picture files");
    }
    if data.len() > MAX_FILE {
        let megabytes = data.len() / 1_000_000;
        return refuse(
            format!(
                "has {megabytes} MB, the limit for a picture file is {} MB",
                MAX_FILE / 1_000_000
            ),
            "Save it with compression",
        );
    }
    fs::read(path).map_err(fault)
}

fn undecodable() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "picture",
        "is damaged: the decoder failed",
        "Export or download it again",
    )
    .code(ErrorCode::Corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of 40 x 30 pixels; the third is the first again, the fourth is none, the fifth is missing.
    fn folder() -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for (name, level) in [("a.png", 10), ("b.png", 200), ("f.png", 90)] {
            image::RgbImage::from_pixel(40, 30, image::Rgb([level; 3]))
                .save(path(name))
                .expect("a file");
        }
        fs::copy(path("a.png"), path("c.png")).expect("a copy");
        fs::write(path("d.png"), "no picture").expect("a file");
        let names = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"];
        let paths = names.map(path).into();
        (folder, paths)
    }

    fn levels(limits: Limits, once: bool) -> Vec<Option<u8>> {
        let (_folder, paths) = folder();
        let preparation = Preparation::none();
        let count = paths.len();
        let ahead = Ahead::new(paths, &preparation, limits, once);
        std::thread::scope(|scope| {
            ahead.start(scope);
            let taken = (0..count).map(|place| {
                let loaded = ahead.take(place);
                assert_eq!(loaded.sha256.is_none(), place == 4);
                match loaded.content {
                    Ok(content) => content.map(|content| content.pixels.rgb[0]),
                    Err(fault) => {
                        assert!([3, 4].contains(&place), "{fault}");
                        assert!(fault.place.ends_with(".png"), "{fault}");
                        Some(0)
                    }
                }
            });
            taken.collect()
        })
    }

    #[test]
    fn pictures_come_in_order_whatever_the_limits() {
        let all = [Some(10), Some(200), Some(10), Some(0), Some(0), Some(90)];
        let mut once = all;
        once[2] = None;
        for (pictures, bytes) in [(0, 0), (1, 0), (4, 1), (4, 8000), (100, 1 << 30)] {
            let limits = Limits { pictures, bytes };
            assert_eq!(levels(limits, false), all, "{limits:?}");
            // With several threads the copy may be read first; then the original is left to the engine.
            let mut found = levels(limits, true);
            match pictures {
                0 => assert_eq!(found, all),
                _ => {
                    if found[0].is_none() {
                        found.swap(0, 2);
                    }
                    assert_eq!(found, once, "{limits:?}");
                }
            }
        }
    }

    #[test]
    fn threads_end_when_the_engine_stops_early() {
        let (_folder, paths) = folder();
        let preparation = Preparation::none();
        let limits = Limits {
            pictures: 3,
            bytes: 1,
        };
        let ahead = Ahead::new(paths, &preparation, limits, false);
        std::thread::scope(|scope| {
            ahead.start(scope);
            assert!(ahead.take(0).content.is_ok());
            ahead.close();
        });
    }
}
