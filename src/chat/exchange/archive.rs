//! Zip archives, stored without compression.

use std::io::Write;

use rawzip::{CompressionMethod, ZipArchive, ZipArchiveWriter};

use crate::chat::document::refused;
use crate::error::{ErrorCode, Fault, FaultKind};

/// Endings of the files that are read from an archive.
const READ: [&str; 8] = [
    ".txt", ".yaml", ".yml", ".json", ".html", ".names", ".xml", ".csv",
];

/// An archive of these files.
pub fn write(files: &[(String, &[u8])]) -> Vec<u8> {
    try_write(files).expect("memory takes every byte, and the names are short")
}

fn try_write(files: &[(String, &[u8])]) -> Result<Vec<u8>, rawzip::Error> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for (path, content) in files {
        let (mut entry, config) = archive
            .new_file(path.as_str())
            .compression_method(CompressionMethod::STORE)
            .start()?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(content)?;
        let (_, descriptor) = writer.finish()?;
        entry.finish(descriptor)?;
    }
    archive.finish()?;
    Ok(bytes)
}

/// The text files of an archive by path; others are skipped.
///
/// # Errors
/// The archive is damaged, or a text file is compressed.
pub fn read(place: &str, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let damaged =
        |error: rawzip::Error| refused(place, format!("the archive is damaged ({error})"));
    let archive = ZipArchive::from_slice(bytes).map_err(damaged)?;
    let mut files = Vec::new();
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        let path = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        let lower = path.to_lowercase();
        if !READ.iter().any(|ending| lower.ends_with(ending)) || lower.starts_with("__macosx") {
            continue;
        }
        if entry.compression_method() != CompressionMethod::STORE {
            return Err(Fault::new(
                FaultKind::File,
                place,
                "the files in the archive are compressed",
                "Unpack it and choose the files inside together; nothing was changed",
            )
            .code(ErrorCode::Unsupported));
        }
        let entry = archive.get_entry(entry.wayfinder()).map_err(damaged)?;
        let mut content = Vec::new();
        let mut reader = entry.verifying_reader(entry.data());
        std::io::Read::read_to_end(&mut reader, &mut content)
            .map_err(|error| refused(place, format!("the archive is damaged ({error})")))?;
        files.push((path, content));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_files_come_back_and_others_are_skipped() {
        let files = [
            ("a/b.txt".to_owned(), &b"one\n"[..]),
            ("p.jpg".to_owned(), &[0xff, 0xd8][..]),
            ("data.yaml".to_owned(), &b""[..]),
        ];
        let bytes = write(&files);
        let read_back = read("a.zip", &bytes).expect("our own");
        let expected = [
            ("a/b.txt".to_owned(), b"one\n".to_vec()),
            ("data.yaml".to_owned(), Vec::new()),
        ];
        assert_eq!(read_back, expected);
    }

    #[test]
    fn damage_is_told() {
        let bytes = write(&[("a.txt".to_owned(), &b"one\n"[..])]);
        let mut changed = bytes.clone();
        let place = changed
            .windows(3)
            .position(|w| w == b"one")
            .expect("stored");
        changed[place] ^= 1;
        let mut compressed = bytes.clone();
        // The method in the central directory, which begins with PK 1 2.
        let directory = bytes
            .windows(4)
            .position(|w| w == b"PK\x01\x02")
            .expect("a directory");
        compressed[directory + 10] = 8;
        for (bytes, what) in [
            (&bytes[..bytes.len() / 2], "damaged"),
            (&changed[..], "damaged"),
            (&compressed[..], "compressed"),
            (&b"not a zip"[..], "damaged"),
        ] {
            let fault = read("a.zip", bytes).expect_err(what);
            assert!(fault.what.contains(what), "{fault}");
        }
    }
}
