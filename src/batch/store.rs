//! The results on disk: `results.jsonl` with a line per result, `times.jsonl`, and `batch.json`, which says what
//! they are results of.
//!
//! A line is appended as a whole, and only once it is complete it counts: what follows the last line feed is cut
//! off when the file is opened again. So a process that is killed at any moment loses at most the line that it was
//! writing.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::inputs::Pictures;
use super::questions::Questions;
use super::record::Record;
use super::shard::Shard;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::files;

/// Time between two flushes to the disk.
const SYNC: Duration = Duration::from_secs(10);

/// Results belong to a picture and a question, by their places in the lists.
pub type Key = (usize, usize);

/// Where a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    offset: u64,
    bytes: usize,
    failed: bool,
}

/// The names of the files of a batch, or of a shard of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    out: PathBuf,
    suffix: String,
}

impl Names {
    /// The files in the folder `out`.
    pub fn new(out: &Path, shard: Option<Shard>) -> Self {
        Self {
            out: out.to_owned(),
            suffix: shard.map(|shard| shard.suffix()).unwrap_or_default(),
        }
    }

    /// A file by the stem and the ending of its name.
    pub fn path(&self, stem: &str, ending: &str) -> PathBuf {
        self.out.join(format!("{stem}{}.{ending}", self.suffix))
    }

    fn results(&self) -> PathBuf {
        self.path("results", "jsonl")
    }

    fn times(&self) -> PathBuf {
        self.path("times", "jsonl")
    }

    fn manifest(&self) -> PathBuf {
        self.path("batch", "json")
    }
}

/// The open results of a batch. No other process has them open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    end: u64,
    lines: BTreeMap<Key, Line>,
    /// Results without a failure by the digest of picture and question.
    known: HashMap<[u8; 32], Key>,
    times: File,
    synced: Instant,
}

/// What the files say of pictures and questions.
pub struct Lists<'a> {
    /// The pictures.
    pub pictures: &'a Pictures,
    /// The questions.
    pub questions: &'a Questions,
}

/// How results that are there are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// They are deleted.
    pub restart: bool,
    /// Failures are deleted.
    pub retry_failed: bool,
}

impl Store {
    /// Opens the results in `names`. `signature` is what they depend on; it is written to `batch.json`.
    ///
    /// # Errors
    /// The files cannot be read or written, another process has them open, they are results of another signature,
    /// or a line before the last is damaged.
    pub fn open(
        names: &Names,
        signature: &Value,
        lists: &Lists<'_>,
        existing: Existing,
    ) -> Result<Self, Fault> {
        fs::create_dir_all(&names.out).map_err(|error| Fault::file(&names.out, error))?;
        let path = names.results();
        let file = files::open_alone(&path)?;
        let times = files::open_alone(&names.times())?;
        if existing.restart {
            file.set_len(0).map_err(|error| Fault::file(&path, error))?;
            (times.set_len(0)).map_err(|error| Fault::file(names.times(), error))?;
        }
        let length = file.metadata().map_err(|error| Fault::file(&path, error))?;
        check_signature(&names.manifest(), signature, length.len() == 0)?;
        let mut store = Self {
            path,
            file,
            end: 0,
            lines: BTreeMap::new(),
            known: HashMap::new(),
            times,
            synced: Instant::now(),
        };
        store.read_lines(lists)?;
        if existing.retry_failed && store.lines.values().any(|line| line.failed) {
            store.drop_failures(names)?;
            drop(store);
            return Self::open(names, signature, lists, Existing::default());
        }
        store.end_times(&names.times())?;
        Ok(store)
    }

    /// Reads the complete lines and cuts off the rest.
    fn read_lines(&mut self, lists: &Lists<'_>) -> Result<(), Fault> {
        let places = places(lists);
        let fault = |error| Fault::file(&self.path, error);
        self.file.seek(SeekFrom::Start(0)).map_err(fault)?;
        let mut reader = BufReader::new(&self.file);
        let mut bytes = Vec::new();
        let (mut end, mut number) = (0, 0);
        loop {
            bytes.clear();
            let length = reader.read_until(b'\n', &mut bytes).map_err(fault)?;
            if bytes.last() != Some(&b'\n') {
                break;
            }
            number += 1;
            let record = match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) => record,
                // A file system that lost power may have the length of the last line and not its bytes.
                Err(_) if reader.fill_buf().map_err(fault)?.is_empty() => break,
                Err(error) => return Err(damaged(&self.path, number, &error.to_string())),
            };
            let Some(&key) = places.get(&record.id) else {
                let what = format!("has the id {}, which is not of this batch", record.id);
                return Err(damaged(&self.path, number, &what));
            };
            let line = Line {
                offset: end,
                bytes: length,
                failed: record.error.is_some(),
            };
            if self.lines.insert(key, line).is_some() {
                let what = format!("has the id {} for the second time", record.id);
                return Err(damaged(&self.path, number, &what));
            }
            if let (false, Some(sha)) = (line.failed, record.sha256.as_deref().and_then(unhex)) {
                self.known
                    .insert(lists.questions.all[key.1].digest(&sha), key);
            }
            end += length as u64;
        }
        drop(reader);
        self.end = end;
        self.file.set_len(end).map_err(fault)
    }

    /// Replaces the file by one without failures.
    fn drop_failures(&mut self, names: &Names) -> Result<(), Fault> {
        let mut kept: Vec<Line> = self
            .lines
            .values()
            .filter(|line| !line.failed)
            .copied()
            .collect();
        kept.sort_by_key(|line| line.offset);
        write_whole(&names.results(), |out| {
            for line in &kept {
                out.write_all(&self.read(*line)?)?;
            }
            Ok(())
        })
    }

    /// Cuts off what follows the last line feed of the times.
    fn end_times(&mut self, path: &Path) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        let fault = |error| Fault::file(path, error);
        let length = self.times.metadata().map_err(fault)?.len();
        let from = length.saturating_sub(1 << 16);
        self.times.seek(SeekFrom::Start(from)).map_err(fault)?;
        (&self.times).read_to_end(&mut bytes).map_err(fault)?;
        let end = bytes
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |at| at + 1);
        let end = from + end as u64;
        self.times.set_len(end).map_err(fault)?;
        self.times.seek(SeekFrom::Start(end)).map_err(fault)?;
        Ok(())
    }

    /// Whether there is a result.
    pub fn has(&self, key: Key) -> bool {
        self.lines.contains_key(&key)
    }

    /// The number of failures.
    pub fn failures(&self) -> usize {
        self.lines.values().filter(|line| line.failed).count()
    }

    /// Every result, in the order of pictures and questions.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.lines.keys().copied()
    }

    /// A result without a failure to an equal question about an equal picture.
    pub fn known(&self, digest: &[u8; 32]) -> Option<Key> {
        self.known.get(digest).copied()
    }

    /// The result of a key that is there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn record(&self, key: Key) -> Result<Record, Fault> {
        let line = self.lines[&key];
        let bytes = self
            .read(line)
            .map_err(|error| Fault::file(&self.path, error))?;
        serde_json::from_slice(&bytes).map_err(|error| Fault::file(&self.path, error))
    }

    fn read(&self, line: Line) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; line.bytes];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(line.offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Appends a result; `digest` is that of picture and question, if the file of the picture was read.
    ///
    /// # Errors
    /// The line cannot be written, for example because the disk is full; the lines before are complete.
    pub fn append(
        &mut self,
        key: Key,
        record: &Record,
        digest: Option<[u8; 32]>,
    ) -> Result<(), Fault> {
        let bytes = record.line();
        let mut file = &self.file;
        let written = file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| file.write_all(&bytes));
        if let Err(error) = written {
            // If this fails too, the next run cuts the rest off.
            self.file.set_len(self.end).ok();
            return Err(Fault {
                advice: "The results so far are complete; make room and run the command again"
                    .into(),
                ..Fault::file(&self.path, error)
            });
        }
        let line = Line {
            offset: self.end,
            bytes: bytes.len(),
            failed: record.error.is_some(),
        };
        self.end += bytes.len() as u64;
        self.lines.insert(key, line);
        if let (None, Some(digest)) = (&record.error, digest) {
            self.known.entry(digest).or_insert(key);
        }
        if self.synced.elapsed() > SYNC {
            self.sync()?;
        }
        Ok(())
    }

    /// Appends a line to the times. They are for information: a line that cannot be written is left out.
    pub fn append_time(&mut self, line: &Value) {
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        self.times.write_all(&bytes).ok();
    }

    /// Writes what the system keeps in memory to the disk.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.synced = Instant::now();
        self.file
            .sync_data()
            .map_err(|error| Fault::file(&self.path, error))
    }
}

/// The places of pictures and questions by the ids of their results.
fn places(lists: &Lists<'_>) -> HashMap<String, Key> {
    let mut places = HashMap::new();
    for (picture, listed) in lists.pictures.all.iter().enumerate() {
        for question in lists.questions.about(picture) {
            let id = lists.questions.all[question].id(&listed.name);
            places.insert(id, (picture, question));
        }
    }
    places
}

/// Writes a file under another name and renames it when it is complete.
///
/// # Errors
/// It cannot be written; then no file is left.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> Result<(), Fault> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let written = File::create(&unfinished).and_then(|file| {
        let mut out = io::BufWriter::new(file);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_data()?;
        fs::rename(&unfinished, path)
    });
    written.map_err(|error| {
        fs::remove_file(&unfinished).ok();
        Fault::file(path, error)
    })
}

/// Compares the signature with that in `batch.json`, and writes it if there is none or there are no results.
fn check_signature(path: &Path, signature: &Value, is_new: bool) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(signature).expect("plain data serializes");
    // As it is read again: the nearest number to a decimal may be another.
    let signature: Value = serde_json::from_str(&text).expect("it was just written");
    let write = || files::replace(path, text.as_bytes()).map_err(|error| Fault::file(path, error));
    if is_new {
        return write();
    }
    let fault = |what: String| {
        let advice = "Run it with the options of before, name another folder with --out, or begin again with --restart";
        let fault = Fault::new(FaultKind::File, path.display().to_string(), what, advice);
        Err(fault.code(ErrorCode::InvalidInput))
    };
    let Some(before) = files::read_json::<Value>(path)? else {
        return fault("is missing, and there are results".into());
    };
    if before == signature {
        return Ok(());
    }
    let keys = signature.as_object().into_iter().flatten();
    let changed = keys.filter(|(key, now)| before.get(key) != Some(now));
    let changed = changed.map(|(key, now)| {
        let before = before.get(key).unwrap_or(&Value::Null);
        format!("{key} was {before} and is {now}")
    });
    fault(format!(
        "is of a batch with other options: {}",
        changed.collect::<Vec<_>>().join("; ")
    ))
}

fn damaged(path: &Path, line: usize, what: &str) -> Fault {
    let place = format!("{}, line {line}", path.display());
    let advice = "Delete the line, name another folder with --out, or begin again with --restart";
    Fault::new(FaultKind::File, place, what, advice).code(ErrorCode::Corrupt)
}

/// 32 bytes from hexadecimal.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::weights::manifest::hex;

    struct Case {
        folder: tempfile::TempDir,
        pictures: Pictures,
        questions: Questions,
    }

    impl Case {
        fn new() -> Self {
            let names = ["a.png", "b.png", "c.png"].map(Path::new);
            Self {
                folder: tempfile::tempdir().expect("a folder"),
                pictures: Pictures::of_names(Path::new(""), names.into_iter()).expect("names"),
                questions: Questions::of_task("caption").expect("a task"),
            }
        }

        fn names(&self) -> Names {
            Names::new(self.folder.path(), None)
        }

        fn open_as(&self, signature: &Value, existing: Existing) -> Result<Store, Fault> {
            let lists = Lists {
                pictures: &self.pictures,
                questions: &self.questions,
            };
            Store::open(&self.names(), signature, &lists, existing)
        }

        fn open(&self) -> Store {
            let opened = self.open_as(&json!({"task": "caption"}), Existing::default());
            opened.expect("our own files")
        }

        fn text(&self) -> String {
            fs::read_to_string(self.names().results()).expect("results")
        }
    }

    fn record(name: &str) -> Record {
        Record {
            id: name.into(),
            image: name.into(),
            sha256: Some(hex(&[7; 32])),
            ..Record::default()
        }
    }

    fn failed(name: &str) -> Record {
        let fault = Fault::new(FaultKind::Picture, name, "is damaged", "");
        Record {
            error: Some(fault.into()),
            ..record(name)
        }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_written_again() {
        let case = Case::new();
        let mut store = case.open();
        store
            .append((0, 0), &record("a.png"), Some([1; 32]))
            .expect("room");
        store
            .append((1, 0), &failed("b.png"), Some([2; 32]))
            .expect("room");
        assert_eq!(
            (store.known(&[1; 32]), store.known(&[2; 32])),
            (Some((0, 0)), None)
        );
        drop(store);
        let whole = case.text();
        let first = whole.find('\n').expect("a line") + 1;
        for cut in [first, first + 1, whole.len() - 1] {
            fs::write(case.names().results(), &whole[..cut]).expect("a file");
            fs::write(case.names().times(), "{\"a\":1}\n{\"b").expect("a file");
            let mut store = case.open();
            assert!(store.has((0, 0)) && !store.has((1, 0)), "{cut}");
            let digest = case.questions.all[0].digest(&[7; 32]);
            assert_eq!(store.known(&digest), Some((0, 0)));
            store.append((1, 0), &failed("b.png"), None).expect("room");
            store.append_time(&json!({"c": 1}));
            assert_eq!(store.record((0, 0)).expect("a line"), record("a.png"));
            assert_eq!((store.failures(), case.text()), (1, whole.clone()));
            let times = fs::read_to_string(case.names().times()).expect("times");
            assert_eq!(times, "{\"a\":1}\n{\"c\":1}\n");
        }
        fs::write(
            case.names().results(),
            whole[..first].to_owned() + "\0\0\0\n",
        )
        .expect("a file");
        assert_eq!(case.open().keys().collect::<Vec<_>>(), [(0, 0)]);
    }

    #[test]
    fn results_of_other_options_are_refused_unless_it_begins_again() {
        let case = Case::new();
        case.open()
            .append((0, 0), &record("a.png"), None)
            .expect("room");
        let other = json!({"task": "propose"});
        let fault = case
            .open_as(&other, Existing::default())
            .expect_err("another task");
        assert!(
            fault
                .what
                .contains("task was \"caption\" and is \"propose\""),
            "{fault}"
        );
        let restart = Existing {
            restart: true,
            ..Existing::default()
        };
        let store = case.open_as(&other, restart).expect("begins again");
        assert_eq!((store.keys().count(), case.text().as_str()), (0, ""));
        let second = case
            .open_as(&other, Existing::default())
            .expect_err("it is open");
        assert_eq!(second.code, ErrorCode::InUse);
    }

    #[test]
    fn failures_are_dropped_on_request() {
        let case = Case::new();
        let mut store = case.open();
        store.append((0, 0), &failed("a.png"), None).expect("room");
        store.append((1, 0), &record("b.png"), None).expect("room");
        drop(store);
        let retry = Existing {
            retry_failed: true,
            ..Existing::default()
        };
        let store = case
            .open_as(&json!({"task": "caption"}), retry)
            .expect("ours");
        assert_eq!(store.keys().collect::<Vec<_>>(), [(1, 0)]);
        assert_eq!(case.text().lines().count(), 1);
    }

    #[test]
    fn damaged_lines_are_named() {
        let case = Case::new();
        case.open()
            .append((0, 0), &record("a.png"), None)
            .expect("room");
        let line = case.text();
        for (text, what) in [
            (format!("{{\n{line}"), "line 1"),
            (format!("{line}{line}"), "second time"),
            (line.replace("a.png", "z.png"), "z.png"),
        ] {
            fs::write(case.names().results(), text).expect("a file");
            let opened = case.open_as(&json!({"task": "caption"}), Existing::default());
            let fault = opened.expect_err(what).to_string();
            assert!(fault.contains(what), "{fault}");
        }
        fs::write(case.names().results(), line).expect("a file");
        fs::remove_file(case.names().manifest()).expect("it is there");
        let opened = case.open_as(&json!({"task": "caption"}), Existing::default());
        assert!(opened.expect_err("no manifest").what.contains("is missing"));
    }
}
