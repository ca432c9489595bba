//! Compressed copies beside the files of a site, for hosts that send them, and the sizes of what a visitor
//! downloads.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::files::files;

/// Extensions of files that compression makes smaller.
const COMPRESSIBLE: [&str; 7] = ["css", "html", "ico", "js", "json", "svg", "wasm"];

/// Endings of the copies.
pub const ENDINGS: [&str; 2] = ["br", "gz"];

/// Files of the worker, which come after the page.
const ENGINE: [&str; 6] = [
    "page_worker.js",
    "subgroups.js",
    "timestamp_query.js",
    "worker.js",
    "worker_bg.wasm",
    "worker_start.js",
];

/// Files at the root that a visitor of the page does not download.
const OTHERS: [&str; 3] = ["chat-rex.js", "embed.json", "service_worker.js"];

/// Bytes of a megabyte.
const MB: u64 = 1_000_000;

/// Most bytes of the page with brotli, of the engine with brotli, and of the engine raw.
const LIMITS: [(Part, Form, u64); 3] = [
    (Part::Shell, Form::Brotli, MB),
    (Part::Engine, Form::Brotli, MB * 5 / 2),
    (Part::Engine, Form::Raw, 15 * MB),
];

/// A part of what a visitor downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The page.
    Shell,
    /// The worker.
    Engine,
}

/// How a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Raw,
    Brotli,
}

/// Bytes of a file, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    raw: u64,
    gzip: u64,
    brotli: u64,
}

impl Sizes {
    fn add(&mut self, other: Self) {
        self.raw += other.raw;
        self.gzip += other.gzip;
        self.brotli += other.brotli;
    }

    fn of(self, form: Form) -> u64 {
        match form {
            Form::Raw => self.raw,
            Form::Brotli => self.brotli,
        }
    }
}

/// Writes `FILE.br` and `FILE.gz` beside every file under `folder` that compression makes smaller, prints
/// the sizes of page and engine, and checks their limits.
///
/// # Errors
/// When a file cannot be read or written, or a limit is exceeded.
pub fn site(folder: &Path) -> Result<()> {
    let all: Vec<String> = files(folder)?
        .into_iter()
        .filter(|file| is_compressible(file))
        .collect();
    let sizes = write(folder, &all)?;
    let total = |part: Part| {
        let mut total = Sizes::default();
        for (file, sizes) in all.iter().zip(&sizes) {
            if part_of(file) == Some(part) {
                total.add(*sizes);
            }
        }
        total
    };
    let (shell, engine) = (total(Part::Shell), total(Part::Engine));
    println!("{}\n{}", line("page", shell), line("engine", engine));
    check(shell, engine)
}

fn line(name: &str, sizes: Sizes) -> String {
    let megabytes = |bytes: u64| format!("{:.3} MB", bytes as f64 / MB as f64);
    format!(
        "{name:6} {} raw, {} with gzip, {} with brotli",
        megabytes(sizes.raw),
        megabytes(sizes.gzip),
        megabytes(sizes.brotli)
    )
}

fn check(shell: Sizes, engine: Sizes) -> Result<()> {
    for (part, form, limit) in LIMITS {
        let sizes = if part == Part::Shell { shell } else { engine };
        let bytes = sizes.of(form);
        if bytes > limit {
            bail!("{part:?}: {bytes} bytes ({form:?}) exceed the limit of {limit}");
        }
    }
    Ok(())
}

/// Whether a file gets copies.
fn is_compressible(file: &str) -> bool {
    let extension = file.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| COMPRESSIBLE.contains(&extension))
}

/// The part that a compressible file belongs to.
fn part_of(file: &str) -> Option<Part> {
    match file {
        file if file.contains('/') || OTHERS.contains(&file) => None,
        file if ENGINE.contains(&file) => Some(Part::Engine),
        _ => Some(Part::Shell),
    }
}

/// Writes the copies on all cores; the sizes in the order of `files`.
fn write(folder: &Path, files: &[String]) -> Result<Vec<Sizes>> {
    let next = AtomicUsize::new(0);
    // The largest first: they take the longest.
    let mut order: Vec<usize> = (0..files.len()).collect();
    let bytes = |at: usize| fs::metadata(folder.join(&files[at])).map_or(0, |file| file.len());
    order.sort_by_key(|&at| std::cmp::Reverse(bytes(at)));
    let work = || -> Result<Vec<(usize, Sizes)>> {
        let mut done = Vec::new();
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = folder.join(&files[at]);
            done.push((
                at,
                copies(&file).with_context(|| file.display().to_string())?,
            ));
        }
        Ok(done)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let done = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread panics"));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut sizes = vec![Sizes::default(); files.len()];
    for (at, one) in done.into_iter().flatten() {
        sizes[at] = one;
    }
    Ok(sizes)
}

/// Writes the copies of a file.
fn copies(file: &Path) -> Result<Sizes> {
    let raw = fs::read(file)?;
    let (brotli, gzip) = (brotli(&raw)?, gzip(&raw)?);
    for (ending, bytes) in ENDINGS.iter().zip([&brotli, &gzip]) {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{ending}"));
        fs::write(name, bytes)?;
    }
    let [raw, gzip, brotli] = [raw, gzip, brotli].map(|bytes| bytes.len() as u64);
    Ok(Sizes { raw, gzip, brotli })
}

fn brotli(raw: &[u8]) -> Result<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: 11,
        lgwin: 24,
        size_hint: raw.len(),
        ..Default::default()
    };
    let mut compressed = Vec::new();
    brotli::BrotliCompress(&mut &*raw, &mut compressed, &parameters)?;
    Ok(compressed)
}

fn gzip(raw: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(raw)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::files::{empty, remove};

    #[test]
    fn copies_hold_what_the_file_holds_and_pictures_and_weights_have_none() {
        let folder = std::env::temp_dir().join(format!("chatrex-compress-{}", std::process::id()));
        empty(&folder).unwrap();
        let text = "fn main() {}\n".repeat(500);
        for file in ["page.js", "worker.js", "a.png", "m.safetensors"] {
            fs::write(folder.join(file), &text).unwrap();
        }
        site(&folder).unwrap();
        let read = |file: &str| fs::read(folder.join(file)).unwrap();
        let mut plain = Vec::new();
        brotli::BrotliDecompress(&mut &*read("page.js.br"), &mut plain).unwrap();
        assert_eq!(plain, text.as_bytes());
        let mut plain = String::new();
        let bytes = read("page.js.gz");
        flate2::read::GzDecoder::new(&*bytes)
            .read_to_string(&mut plain)
            .unwrap();
        assert_eq!(plain, text);
        assert!(bytes.len() < text.len() / 10);
        for absent in [
            "a.png.br",
            "a.png.gz",
            "m.safetensors.br",
            "m.safetensors.gz",
        ] {
            assert!(!folder.join(absent).exists(), "{absent}");
        }
        remove(&folder).unwrap();
    }

    #[test]
    fn page_and_engine_have_limits() {
        let sizes = |raw, brotli| Sizes {
            raw,
            gzip: 0,
            brotli,
        };
        let small = sizes(1, 1);
        assert!(check(small, small).is_ok());
        assert!(check(sizes(9_000_000, MB), sizes(15 * MB, 5 * MB / 2)).is_ok());
        for (shell, engine) in [
            (sizes(1, MB + 1), small),
            (small, sizes(1, 5 * MB / 2 + 1)),
            (small, sizes(15 * MB + 1, 1)),
        ] {
            assert!(check(shell, engine).is_err(), "{shell:?} {engine:?}");
        }
    }

    #[test]
    fn files_belong_to_the_page_or_the_engine() {
        for (file, part) in [
            ("index.html", Some(Part::Shell)),
            ("page_bg.wasm", Some(Part::Shell)),
            ("network.js", Some(Part::Shell)),
            ("worker_bg.wasm", Some(Part::Engine)),
            ("page_worker.js", Some(Part::Engine)),
            ("chat-rex.js", None),
            ("models/mini/model.json", None),
        ] {
            assert_eq!(part_of(file), part, "{file}");
        }
        assert!(
            is_compressible("a/b.svg")
                && !is_compressible("a/b.jpg")
                && !is_compressible("LICENSE")
        );
    }
}
