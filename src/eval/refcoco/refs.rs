//! Reader of referring expressions: RefCOCO, RefCOCO+, RefCOCOg and files of the user.
//!
//! Forms: a JSON list or lines of `{"image", "sentence" | "sentences", "bbox": [x, y, width, height]}`; a JSON
//! object with `refs`, `annotations` and `images` as in the instances files of RefCOCO.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::eval::photographs::rows::{BoxField, Key, Scalar, clean_json, relative_path};
use crate::eval::photographs::{Picture, rows};
use crate::geometry::BoxXyxy;
use crate::text::prompt::check_question;

/// Longest expression that is asked, in bytes.
const MAX_SENTENCE: usize = 2000;

/// An object with the expressions that refer to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Path of the picture's file below the folder of images.
    pub image: PathBuf,
    /// The expressions.
    pub sentences: Vec<String>,
    /// `[x, y, width, height]` in pixels.
    pub xywh: [f64; 4],
    /// Its number in the file, from 1.
    pub number: usize,
}

impl Reference {
    /// The corners.
    pub fn bbox(&self) -> BoxXyxy {
        let [x, y, w, h] = self.xywh;
        [x as f32, y as f32, (x + w) as f32, (y + h) as f32].into()
    }

    /// The path of the picture in the folder `images`, as [`Picture::path`] finds it.
    pub fn path(&self, images: &Path) -> PathBuf {
        Picture::new(0, &self.image, 1, 1).path(images)
    }
}

/// An expression: text, or an object with it, as in RefCOCO.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sentence {
    Text(String),
    Parts {
        sent: Option<String>,
        raw: Option<String>,
    },
}

impl Sentence {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts { sent, raw } => sent.or(raw).unwrap_or_default(),
        }
    }
}

/// One or several expressions.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sentences {
    One(Sentence),
    Many(Vec<Sentence>),
}

impl Sentences {
    fn texts(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.text()],
            Self::Many(many) => many.into_iter().map(Sentence::text).collect(),
        }
    }
}

#[derive(Deserialize)]
struct Row {
    #[serde(alias = "file_name", alias = "img")]
    image: String,
    #[serde(alias = "sentence", alias = "expression", alias = "expressions")]
    sentences: Sentences,
    #[serde(default)]
    bbox: BoxField,
    #[serde(default)]
    split: Scalar,
}

#[derive(Deserialize)]
struct RefsFile {
    images: Vec<rows::ImageRow>,
    annotations: Vec<BoxRow>,
    refs: Vec<RefRow>,
}

#[derive(Deserialize)]
struct BoxRow {
    id: Scalar,
    image_id: Scalar,
    #[serde(default)]
    bbox: BoxField,
}

#[derive(Deserialize)]
struct RefRow {
    ann_id: Scalar,
    sentences: Sentences,
    #[serde(default)]
    split: Scalar,
}

/// The first bytes of a pickle: protocol 2 and later, or the opening of a list in protocol 0 and 1.
fn is_pickle(text: &[u8], path: &Path) -> bool {
    matches!(text, [0x80, 2..=5, ..])
        || text.starts_with(b"(lp")
        || path.extension().is_some_and(|e| e == "p")
}

/// Reads the references of the file at `path`; of those with a split only those of `split`, if one is given.
///
/// # Errors
/// The file cannot be read, is a pickle, or is in none of the forms; a reference has no expression, no
/// finite box, or no picture. The error names the line or the record, which is counted from 1.
pub fn open(path: &Path, split: Option<&str>) -> Result<Vec<Reference>, Fault> {
    let text = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    let place = path.display().to_string();
    if is_pickle(&text, path) {
        let what = "is a pickle, which only Python reads";
        let advice =
            "Write its list with json.dump, beside `images` and `annotations` of instances.json";
        let fault = Fault::new(FaultKind::File, place, what, advice);
        return Err(fault.code(ErrorCode::Unsupported));
    }
    parse(&text, &place, split)
}

/// [`open`] for the text of a file; `place` names it in errors.
///
/// # Errors
/// Those of [`open`], except for reading.
pub fn parse(text: &[u8], place: &str, split: Option<&str>) -> Result<Vec<Reference>, Fault> {
    let text = clean_json(text);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    let rows: Vec<(Row, usize)> = match first {
        Some(b'[') => {
            let rows: Vec<Row> = read(&text, place)?;
            rows.into_iter().zip(1..).collect()
        }
        _ => match has_refs(&text) {
            true => joined(read(&text, place)?, place)?,
            false => lines(&text, place)?,
        },
    };
    let splits = rows.iter().filter_map(|(row, _)| row.split.words());
    let mut splits: Vec<String> = splits.map(str::to_owned).collect();
    splits.sort();
    splits.dedup();
    let of_split = |row: &Row| match (split, row.split.words()) {
        (Some(split), Some(own)) => split == own,
        (Some(_), None) => splits.is_empty(),
        (None, _) => true,
    };
    let rows = rows.into_iter().filter(|(row, _)| of_split(row));
    let references: Vec<Reference> = rows
        .map(|(row, number)| reference(row, number).map_err(|what| refused(place, what)))
        .collect::<Result<_, _>>()?;
    if references.is_empty() {
        let what = match split {
            Some(split) if !splits.is_empty() => {
                format!(
                    "has no reference of the split {split}; it has {}",
                    splits.join(", ")
                )
            }
            _ => "has no reference".to_owned(),
        };
        return Err(refused(place, what));
    }
    Ok(references)
}

fn refused(place: &str, what: String) -> Fault {
    let advice = "Use a list of {\"image\", \"sentences\", \"bbox\"}, or an object with refs, annotations and images";
    Fault::new(FaultKind::File, place, what, advice).code(ErrorCode::Corrupt)
}

fn read<T: DeserializeOwned>(text: &[u8], place: &str) -> Result<T, Fault> {
    serde_json::from_slice(text)
        .map_err(|error| refused(place, format!("is no file of references: {error}")))
}

/// Whether the text is one JSON object with the key `refs`.
fn has_refs(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        refs: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Probe>(text).map_or_else(
        // Of a damaged file the error of its own form is the useful one.
        |error| !error.is_data() && text.windows(6).any(|part| part == b"\"refs\""),
        |probe| probe.refs.is_some(),
    )
}

fn lines(text: &[u8], place: &str) -> Result<Vec<(Row, usize)>, Fault> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    filled
        .map(|(line, text)| {
            let number = line + 1;
            let row = serde_json::from_slice(text).map_err(|error| {
                let column = error.column();
                let error = error.to_string();
                let (what, _) = error.rsplit_once(" at line ").unwrap_or((&error, ""));
                refused(place, format!("line {number}, column {column}: {what}"))
            })?;
            Ok((row, number))
        })
        .collect()
}

/// The references of an object with `refs`.
fn joined(file: RefsFile, place: &str) -> Result<Vec<(Row, usize)>, Fault> {
    let images = file.images.into_iter();
    let names: BTreeMap<Key, String> = images
        .filter_map(|row| Some((row.id.key()?, row.file_name)))
        .collect();
    let boxes = file.annotations.into_iter();
    let boxes: BTreeMap<Key, BoxRow> = boxes.filter_map(|row| Some((row.id.key()?, row))).collect();
    let rows = file.refs.into_iter().zip(1..).map(|(row, number)| {
        let of = |what: String| refused(place, format!("reference {number} {what}"));
        let id = row.ann_id.key();
        let text = |id: Option<Key>| id.map_or("null".to_owned(), |id| id.to_string());
        let Some(annotation) = id.as_ref().and_then(|id| boxes.get(id)) else {
            let id = text(id);
            return Err(of(format!("is of annotation {id}, which is not listed")));
        };
        let image = annotation.image_id.key();
        let Some(name) = image.as_ref().and_then(|id| names.get(id)) else {
            let id = text(image);
            return Err(of(format!("is of picture {id}, which is not listed")));
        };
        let row = Row {
            image: name.clone(),
            sentences: row.sentences,
            bbox: annotation.bbox.clone(),
            split: row.split,
        };
        Ok((row, number))
    });
    rows.collect()
}

fn reference(row: Row, number: usize) -> Result<Reference, String> {
    let of = |what: String| format!("reference {number} {what}");
    let Some(image) = relative_path(&row.image) else {
        return Err(of(format!(
            "has the picture `{}`, which is no file name",
            row.image
        )));
    };
    let Some(xywh) = row.bbox.xywh().map_err(of)? else {
        return Err(of("has no box".into()));
    };
    if xywh[2] <= 0.0 || xywh[3] <= 0.0 {
        return Err(of("has a box without area".into()));
    }
    let texts = row.sentences.texts().into_iter();
    let sentences: Vec<String> = texts
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|text| !text.is_empty())
        .collect();
    for text in &sentences {
        if text.len() > MAX_SENTENCE {
            return Err(of(format!("has an expression of {} bytes", text.len())));
        }
        check_question(text, 0)
            .map_err(|fault| of(format!("has an expression that {}", fault.what)))?;
    }
    if sentences.is_empty() {
        return Err(of("has no expression".into()));
    }
    Ok(Reference {
        image,
        sentences,
        xywh,
        number,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_text(text: &str) -> Result<Vec<Reference>, Fault> {
        parse(text.as_bytes(), "refs.json", None)
    }

    #[test]
    fn every_form_gives_the_same_references() {
        let list = json!([
            {"image": "a.png", "sentence": "the  red dog", "bbox": [1, 2, 3, 4]},
            {"file_name": "b.png", "sentences": ["left cat", {"sent": "cat on the left", "sent_id": 4}],
             "bbox": {"x": 0, "y": 0, "width": "5", "height": 6}},
        ]);
        let lines = format!("\u{feff}{}\r\n\n{}\n", list[0], list[1]);
        let joined = json!({
            "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
            "annotations": [{"id": 9, "image_id": 2, "bbox": [0, 0, 5, 6]}, {"id": "7", "image_id": 1, "bbox": [1, 2, 3, 4]}],
            "refs": [{"ann_id": 7, "ref_id": 1, "split": "val", "sentences": [{"sent": "the red dog", "raw": "x"}]},
                     {"ann_id": 9, "ref_id": 2, "split": "testA", "sentences": [{"raw": "left cat"}, "cat on the left"]}],
        });
        let expected = read_text(&list.to_string()).expect("a list");
        assert_eq!(expected[0].sentences, ["the red dog"]);
        assert_eq!(expected[1].sentences, ["left cat", "cat on the left"]);
        assert_eq!(expected[1].bbox(), [0.0, 0.0, 5.0, 6.0].into());
        let mut by_line = read_text(&lines).expect("lines");
        assert_eq!((by_line[0].number, by_line[1].number), (1, 3));
        by_line[1].number = 2;
        assert_eq!(by_line, expected);
        assert_eq!(read_text(&joined.to_string()), Ok(expected.clone()));
        let one = json!({"image": "a.png", "sentence": "x", "bbox": [0, 0, 1, 1]});
        assert_eq!(read_text(&one.to_string()).map(|refs| refs.len()), Ok(1));
        let text = joined.to_string();
        let of_split = |split: &str| parse(text.as_bytes(), "refs.json", Some(split));
        assert_eq!(of_split("val"), Ok(expected[..1].to_vec()));
        let fault = of_split("test").expect_err("no such split");
        assert!(fault.what.contains("testA, val"), "{fault}");
    }

    #[test]
    fn wrong_references_are_refused_with_line_or_record() {
        let good = r#"{"image": "a.png", "sentence": "dog", "bbox": [1, 2, 3, 4]}"#;
        for (from, to, expected) in [
            (
                "[1, 2, 3, 4]",
                "[1, 2, 3]",
                "reference 2 has a box of 3 numbers",
            ),
            ("[1, 2, 3, 4]", "null", "reference 2 has no box"),
            (
                "[1, 2, 3, 4]",
                "[1, 2, 0, 4]",
                "reference 2 has a box without area",
            ),
            (
                "[1, 2, 3, 4]",
                "[1, NaN, 0, 4]",
                "reference 2 has a box that is not",
            ),
            ("\"dog\"", "\" \"", "reference 2 has no expression"),
            (
                "\"dog\"",
                "\"<image>\"",
                "reference 2 has an expression that",
            ),
            ("\"dog\"", "[]", "reference 2 has no expression"),
            ("a.png", "..", "reference 2 has the picture `..`"),
            ("\"image\"", "\"picture\"", "line 2, column"),
            ("3, 4]}", "3, 4}", "line 2, column"),
        ] {
            let changed = good.replace(from, to);
            let fault = read_text(&format!("{good}\n{changed}\n")).expect_err(to);
            assert!(fault.what.contains(expected), "{to}: {fault}");
        }
        let refs = json!({"images": [], "annotations": [{"id": 1, "image_id": 4, "bbox": [0, 0, 1, 1]}],
                          "refs": [{"ann_id": 1, "sentences": ["x"]}]});
        let fault = read_text(&refs.to_string()).expect_err("no picture");
        assert!(
            fault.what.contains("reference 1 is of picture 4"),
            "{fault}"
        );
        let cut = &refs.to_string()[..60];
        assert!(read_text(cut).is_err());
        assert!(read_text("[]").is_err_and(|fault| fault.what == "has no reference"));
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [
            ("refs(unc).p", &b"(lp1\n."[..]),
            ("refs", &[0x80, 4, 0x95][..]),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            let fault = open(&path, None).expect_err("a pickle");
            assert!(fault.what.contains("pickle") && fault.advice.contains("json.dump"));
            assert_eq!(fault.code, ErrorCode::Unsupported);
        }
    }
}
