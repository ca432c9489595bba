//! Files of lines that a killed run can be resumed from: the lines of a picture are appended in the order of
//! the pictures. A resumed run drops a torn last line and the lines of the last picture, which may be
//! incomplete, and makes that picture again.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::files;

/// A file of lines.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

/// A complete line of a log: where it begins, and its picture.
struct Line {
    start: u64,
    image: String,
}

#[derive(Deserialize)]
struct ImageOf {
    image: String,
}

impl Log {
    /// Opens the file at `path`, which is made if it does not exist, for this process alone.
    ///
    /// # Errors
    /// It cannot be read or written, or another process has it.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let file = files::open_alone(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    fn fault(&self, error: std::io::Error) -> Fault {
        Fault::file(&self.path, error)
    }

    /// The complete lines, and the length of the file up to the end of the last.
    fn lines(&mut self) -> Result<(Vec<Line>, u64), Fault> {
        let path = &self.path;
        let fault = |error| Fault::file(path, error);
        self.file.rewind().map_err(fault)?;
        let mut reader = BufReader::new(&self.file);
        let (mut lines, mut start, mut line) = (Vec::new(), 0, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(fault)? as u64;
            if length == 0 || line.last() != Some(&b'\n') {
                return Ok((lines, start));
            }
            match serde_json::from_slice::<ImageOf>(&line) {
                Ok(ImageOf { image }) => lines.push(Line { start, image }),
                Err(_) => {
                    let place = format!("{}, line {}", path.display(), lines.len() + 1);
                    let what = "is no record of this command";
                    let advice = "Name another folder, or delete the file";
                    let fault = Fault::new(FaultKind::File, place, what, advice);
                    return Err(fault.code(ErrorCode::Corrupt));
                }
            }
            start += length;
        }
    }

    /// The number of the last picture that has a line; `number` gives that of a picture.
    ///
    /// # Errors
    /// The file cannot be read, or a line is no record of a known picture.
    pub(super) fn last(
        &mut self,
        number: impl Fn(&str) -> Option<usize>,
    ) -> Result<Option<usize>, Fault> {
        let (lines, _) = self.lines()?;
        let Some(last) = lines.last() else {
            return Ok(None);
        };
        match number(&last.image) {
            Some(number) => Ok(Some(number)),
            None => {
                let place = format!("{}, line {}", self.path.display(), lines.len());
                let what = format!("is about {}, which is none of the pictures", last.image);
                let fault = Fault::new(FaultKind::File, place, what, "Name another folder");
                Err(fault.code(ErrorCode::Corrupt))
            }
        }
    }

    /// Drops the lines of the pictures from `first` on, and a torn last line.
    ///
    /// # Errors
    /// The file cannot be read or cut.
    pub(super) fn truncate(
        &mut self,
        first: usize,
        number: impl Fn(&str) -> Option<usize>,
    ) -> Result<(), Fault> {
        let (lines, end) = self.lines()?;
        let from = |line: &&Line| number(&line.image).is_none_or(|number| number >= first);
        let length = lines.iter().find(from).map_or(end, |line| line.start);
        self.file
            .set_len(length)
            .map_err(|error| self.fault(error))?;
        let moved = self.file.seek(SeekFrom::End(0));
        moved.map(|_| ()).map_err(|error| self.fault(error))
    }

    /// Appends `records`, each as a line, with one write.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn append(&mut self, records: &[impl Serialize]) -> Result<(), Fault> {
        let mut text = String::new();
        for record in records {
            text += &serde_json::to_string(record).expect("plain data serializes");
            text.push('\n');
        }
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| self.fault(error))
    }

    /// Waits until the lines are on the disk.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        self.file.sync_all().map_err(|error| self.fault(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        image: &'static str,
        n: u32,
    }

    fn number(image: &str) -> Option<usize> {
        ["a", "b", "c"].iter().position(|name| *name == image)
    }

    #[test]
    fn a_torn_tail_and_the_last_picture_are_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        let rows = [("a", 1), ("a", 2), ("b", 3), ("b", 4)].map(|(image, n)| Row { image, n });
        let mut log = Log::open(&path).expect("a log");
        assert_eq!(log.last(number), Ok(None));
        log.append(&rows).expect("written");
        let busy = Log::open(&path).map(|_| ()).expect_err("two writers");
        assert_eq!(busy.code, ErrorCode::InUse);
        drop(log);
        let whole = std::fs::read(&path).expect("a file");
        let of_a = whole.len() / 2;
        for cut in of_a..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let mut log = Log::open(&path).expect("a log");
            let last = log.last(number).expect("readable").expect("a line");
            log.truncate(last, number).expect("cut");
            let left: Vec<Row> = rows_from(last);
            log.append(&left).expect("written");
            drop(log);
            assert_eq!(std::fs::read(&path).expect("a file"), whole, "{cut}");
        }
        std::fs::write(&path, "{\"image\": \"a\"}\nx\n").expect("written");
        let fault = Log::open(&path)
            .expect("a log")
            .last(number)
            .expect_err("no record");
        assert!(fault.place.ends_with("line 2"), "{fault}");
        std::fs::write(&path, "{\"image\": \"z\"}\n").expect("written");
        let fault = Log::open(&path)
            .expect("a log")
            .last(number)
            .expect_err("unknown");
        assert!(fault.what.contains("about z"), "{fault}");
    }

    fn rows_from(first: usize) -> Vec<Row> {
        let all = [("a", 1), ("a", 2), ("b", 3), ("b", 4)].map(|(image, n)| Row { image, n });
        all.into_iter()
            .filter(|row| number(row.image) >= Some(first))
            .collect()
    }
}
