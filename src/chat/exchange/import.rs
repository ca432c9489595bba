//! Reads files of the user: what they are is decided by their content.

use serde_json::Value;

use super::foreign::Found;
use super::html::BroughtPicture;
use super::marked::{inside, stem};
use super::{archive, box_2d, coco, csv, html, label_studio, voc, words, yolo};
use crate::chat::document::{Document, FORMAT, LabelledBox, damaged, refused};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::ImageSize;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: u64 = 200_000_000;

/// A file of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What files hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Imported {
    /// Boxes for the open picture.
    Boxes {
        /// The boxes, inside the picture.
        boxes: Vec<LabelledBox>,
        /// How many entries are no upright boxes inside the picture.
        left_out: usize,
        /// The name of the file.
        place: String,
    },
    /// A conversation; without a picture of its own it belongs to the open one.
    Conversation {
        /// The conversation.
        document: Box<Document>,
        /// Its picture.
        picture: Option<BroughtPicture>,
        /// The name of the file.
        place: String,
    },
}

/// Whether a file may be one to import, by the ending of its name.
pub fn is_wanted(name: &str) -> bool {
    let name = name.to_lowercase();
    let endings = [
        ".json", ".html", ".htm", ".txt", ".yaml", ".yml", ".names", ".zip", ".xml", ".csv",
    ];
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Reads files that were chosen together. `open` is name and size of the open picture.
///
/// # Errors
/// The files are damaged, of an unknown kind, or belong to another picture.
pub fn read(files: Vec<InFile>, open: Option<(&str, ImageSize)>) -> Result<Imported, Fault> {
    let files = unpacked(files)?;
    let text = |file: &InFile| {
        let text = std::str::from_utf8(&file.bytes);
        let text = text.map_err(|_| unknown(&file.name))?;
        Ok::<_, Fault>(text.trim_start_matches('\u{feff}').to_owned())
    };
    let ends = |file: &&InFile, endings: &[&str]| {
        let name = file.name.to_lowercase();
        endings.iter().any(|ending| name.ends_with(ending))
    };
    if let Some(file) = files.iter().find(|f| ends(f, &[".html", ".htm"])) {
        let (document, picture) = html::read(&file.name, &text(file)?)?;
        return Ok(Imported::Conversation {
            document: Box::new(document),
            picture: Some(picture),
            place: file.name.clone(),
        });
    }
    if let Some(file) = files.iter().find(|f| ends(f, &[".json"])) {
        return read_json(&file.name, &text(file)?, open);
    }
    if let Some(file) = files.iter().find(|f| ends(f, &[".csv"])) {
        let (picture, size) = open.ok_or_else(|| no_picture(&file.name))?;
        let found = csv::read(&file.name, &text(file)?, picture)?;
        return boxes(&file.name, found, size);
    }
    let annotations: Vec<&InFile> = files.iter().filter(|f| ends(f, &[".xml"])).collect();
    if let Some(first) = annotations.first() {
        let (picture, size) = open.ok_or_else(|| no_picture(&first.name))?;
        let file = of_picture(&annotations, picture, "xml")?;
        let found = voc::read(&file.name, &text(file)?)?;
        return boxes(&file.name, found, size);
    }
    let is_names = |f: &&InFile| ends(f, &["classes.txt", ".names", ".yaml", ".yml"]);
    let labels: Vec<&InFile> = (files.iter())
        .filter(|f| ends(f, &[".txt"]) && !is_names(f))
        .collect();
    let Some((picture, size)) = open else {
        return Err(match files.first() {
            Some(file) if !labels.is_empty() => no_picture(&file.name),
            Some(file) => unknown(&file.name),
            None => unknown("the files"),
        });
    };
    if labels.is_empty() {
        return Err(unknown(files.first().map_or("the files", |f| &f.name)));
    }
    let file = of_picture(&labels, picture, "txt")?;
    let names = match files.iter().find(is_names) {
        None => None,
        Some(list) if ends(&list, &[".yaml", ".yml"]) => {
            let names = yolo::names_of_yaml(&text(list)?);
            Some(names.ok_or_else(|| refused(&list.name, "it lists no names"))?)
        }
        Some(list) => Some(yolo::names_of_lines(&text(list)?)),
    };
    let found = yolo::read(&file.name, &text(file)?, names.as_deref(), size)?;
    boxes(&file.name, found, size)
}

/// Of several files the one that is called like the picture, with this ending.
fn of_picture<'a>(files: &[&'a InFile], picture: &str, ending: &str) -> Result<&'a InFile, Fault> {
    if let [only] = files {
        return Ok(only);
    }
    let wanted = format!("{}.{ending}", stem(picture));
    let found = files
        .iter()
        .find(|f| super::foreign::is_called(&f.name, &wanted));
    found.copied().ok_or_else(|| {
        let what = format!(
            "there are {} label files and none is called {wanted}",
            files.len()
        );
        Fault::new(
            FaultKind::File,
            files.first().map_or("the files", |f| f.name.as_str()),
            what,
            "Open one of their pictures first; nothing was changed",
        )
        .code(ErrorCode::NotFound)
    })
}

/// The files, with archives replaced by the files inside.
fn unpacked(files: Vec<InFile>) -> Result<Vec<InFile>, Fault> {
    let mut out = Vec::new();
    for file in files {
        if file.bytes.is_empty() {
            return Err(refused(&file.name, "it is empty"));
        }
        if file.bytes.starts_with(b"PK") {
            let inside = archive::read(&file.name, &file.bytes)?;
            out.extend(
                inside
                    .into_iter()
                    .map(|(name, bytes)| InFile { name, bytes }),
            );
        } else {
            out.push(file);
        }
    }
    Ok(out)
}

fn read_json(place: &str, json: &str, open: Option<(&str, ImageSize)>) -> Result<Imported, Fault> {
    let json = box_2d::without_fence(json);
    let value: Value = serde_json::from_str(json).map_err(|error| damaged(place, &error))?;
    if value.get("format").and_then(Value::as_str) == Some(FORMAT) {
        let document = Box::new(Document::parse(place, json)?);
        let size = open.map(|(_, size)| size);
        let picture = &document.picture;
        if size.map(|s| (s.width, s.height)) != Some((picture.width, picture.height)) {
            return Err(words::other_picture(place, &document, size));
        }
        return Ok(Imported::Conversation {
            document,
            picture: None,
            place: place.to_owned(),
        });
    }
    let first = value.get(0).unwrap_or(&Value::Null);
    let is_coco = value.get("images").is_some() && value.get("annotations").is_some();
    let is_task = first.get("data").is_some()
        && (first.get("annotations").is_some() || first.get("predictions").is_some());
    let list = box_2d::list(&value);
    if !(is_coco || is_task || list.is_some()) {
        return Err(unknown(place));
    }
    let (name, size) = open.ok_or_else(|| no_picture(place))?;
    let found = if is_coco {
        coco::read(place, json, name)?
    } else if is_task {
        label_studio::read(place, json, name, size)?
    } else {
        box_2d::read(list.map_or(&[][..], Vec::as_slice), size)
    };
    boxes(place, found, size)
}

/// Boxes that fit the open picture.
fn boxes(place: &str, found: Found, size: ImageSize) -> Result<Imported, Fault> {
    let open = (f64::from(size.width), f64::from(size.height));
    if let Some((width, height)) = found.size.filter(|&of| of != open) {
        return Err(Fault::new(
            FaultKind::File,
            place,
            format!(
                "its boxes belong to a picture of {width} × {height} pixels, and the open one has {} × {}",
                size.width, size.height
            ),
            "Open the picture that belongs to it; nothing was changed",
        )
        .code(ErrorCode::InvalidInput));
    }
    let all = found.boxes.len();
    let clean = |label: String| {
        let label = label.split_whitespace().collect::<Vec<_>>().join(" ");
        (!label.is_empty()).then_some(label)
    };
    let boxes: Vec<LabelledBox> = (found.boxes.into_iter())
        .filter(|b| <[f32; 4]>::from(b.bbox).iter().all(|v| v.is_finite()))
        .filter_map(|LabelledBox { bbox, label }| {
            Some(LabelledBox {
                bbox: inside(bbox, size)?,
                label: label.and_then(clean),
            })
        })
        .collect();
    if boxes.is_empty() {
        return Err(refused(place, "it has no boxes inside this picture"));
    }
    Ok(Imported::Boxes {
        left_out: found.left_out + all - boxes.len(),
        boxes,
        place: place.to_owned(),
    })
}

fn unknown(place: &str) -> Fault {
    Fault::new(
        FaultKind::File,
        place,
        "it is of no kind that can be imported",
        "Choose a saved conversation, COCO, Label Studio or labelled JSON, Pascal VOC, CSV or YOLO label files; nothing was changed",
    )
    .code(ErrorCode::Unsupported)
}

fn no_picture(place: &str) -> Fault {
    Fault::new(
        FaultKind::File,
        place,
        "it has boxes, and no picture is open",
        "Open the picture first",
    )
    .code(ErrorCode::NotReady)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::marked::Unlabelled;
    use crate::chat::exchange::test_sheet::{SIZE, sheet};
    use crate::chat::test_data::saved;

    fn file(name: &str, content: impl AsRef<[u8]>) -> InFile {
        InFile {
            name: name.into(),
            bytes: content.as_ref().to_vec(),
        }
    }

    const OPEN: Option<(&str, ImageSize)> = Some(("room.jpg", SIZE));

    #[test]
    fn every_file_of_ours_is_recognized() {
        let sheet = sheet().labelled(Unlabelled::AsObject);
        let yaml = yolo::data_yaml(&sheet.categories());
        let labels = yolo::labels(&sheet);
        let cases = [
            (vec![file("a.json", coco::write(&sheet))], "a.json"),
            (vec![file("b.json", label_studio::write(&sheet))], "b.json"),
            (vec![file("c.json", box_2d::write(&sheet))], "c.json"),
            (
                vec![file("d.zip", yolo::zip(&sheet, b"p"))],
                "labels/train/room.txt",
            ),
            (
                vec![file("data.yaml", yaml), file("e.txt", &labels)],
                "e.txt",
            ),
            (vec![file("f.csv", csv::write(&sheet))], "f.csv"),
            (
                vec![
                    file("other.xml", "<annotation/>"),
                    file("Annotations/ROOM.xml", voc::write(&sheet)),
                ],
                "Annotations/ROOM.xml",
            ),
            (
                vec![
                    file("classes.txt", "black cat\nobject\nlamp"),
                    file("x.txt", "0 1 1 1 1"),
                    file("room.txt", labels),
                ],
                "room.txt",
            ),
        ];
        for (files, expected) in cases {
            match read(files, OPEN).expect(expected) {
                Imported::Boxes {
                    boxes,
                    left_out,
                    place,
                } => {
                    assert_eq!((boxes.len(), left_out, place.as_str()), (3, 0, expected));
                    let mut labels: Vec<_> =
                        boxes.iter().filter_map(|b| b.label.as_deref()).collect();
                    labels.sort_unstable();
                    assert_eq!(labels, ["black cat", "lamp", "object"]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn conversations_are_read_with_and_without_a_picture() {
        let page = html::write(&saved(), b"pixels", "image/png");
        for (file, open, has_picture) in [
            (file("a.html", page), None, true),
            (file("a.json", saved().to_json()), OPEN, false),
        ] {
            match read(vec![file], open).expect("ours") {
                Imported::Conversation {
                    document, picture, ..
                } => {
                    assert_eq!((*document, picture.is_some()), (saved(), has_picture));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn foreign_and_damaged_files_get_one_sentence_with_a_code() {
        let other = Some((
            "b.jpg",
            ImageSize {
                width: 9,
                height: 9,
            },
        ));
        let conversation = saved().to_json();
        let coco = coco::write(&sheet());
        let cases = [
            (vec![], OPEN, ErrorCode::Unsupported),
            (vec![file("a.json", "")], OPEN, ErrorCode::Corrupt),
            (vec![file("a.json", "{")], OPEN, ErrorCode::Corrupt),
            (vec![file("a.json", "{}")], OPEN, ErrorCode::Unsupported),
            (vec![file("a.json", "[[[[")], OPEN, ErrorCode::Corrupt),
            (
                vec![file("a.json", "[".repeat(100_000))],
                OPEN,
                ErrorCode::Corrupt,
            ),
            (
                vec![file("a.json", [0xff, 0xfe, 0x00])],
                OPEN,
                ErrorCode::Unsupported,
            ),
            (
                vec![file("a.json", &conversation)],
                other,
                ErrorCode::InvalidInput,
            ),
            (
                vec![file("a.json", &conversation)],
                None,
                ErrorCode::InvalidInput,
            ),
            (vec![file("a.json", &coco)], other, ErrorCode::InvalidInput),
            (vec![file("a.json", &coco)], None, ErrorCode::NotReady),
            (
                vec![file("a.json", r#"{"images":[{"id":1}],"annotations":[]}"#)],
                OPEN,
                ErrorCode::Corrupt,
            ),
            (vec![file("a.xml", "<svg/>")], OPEN, ErrorCode::Corrupt),
            (
                vec![file("a.xml", "<annotation/>")],
                OPEN,
                ErrorCode::Corrupt,
            ),
            (
                vec![file("a.xml", "<annotation/>")],
                None,
                ErrorCode::NotReady,
            ),
            (
                vec![file("a.xml", "<annotation/>"), file("b.xml", "")],
                OPEN,
                ErrorCode::Corrupt,
            ),
            (
                vec![
                    file("a.xml", "<annotation/>"),
                    file("b.xml", "<annotation/>"),
                ],
                OPEN,
                ErrorCode::NotFound,
            ),
            (
                vec![file(
                    "a.xml",
                    voc::write(&sheet().labelled(Unlabelled::AsObject)),
                )],
                other,
                ErrorCode::InvalidInput,
            ),
            (vec![file("a.csv", "a,b")], OPEN, ErrorCode::Corrupt),
            (
                vec![file("a.csv", csv::write(&sheet()))],
                None,
                ErrorCode::NotReady,
            ),
            (
                vec![file("a.csv", csv::write(&sheet()))],
                other,
                ErrorCode::InvalidInput,
            ),
            (
                vec![file("a.csv", "x1,y1,x2,y2\n500,0,600,9\n")],
                OPEN,
                ErrorCode::Corrupt,
            ),
            (vec![file("a.html", "<p>")], OPEN, ErrorCode::Unsupported),
            (vec![file("a.zip", "PK")], OPEN, ErrorCode::Corrupt),
            (vec![file("a.txt", "hello")], OPEN, ErrorCode::Corrupt),
            (vec![file("a.txt", "0 0 0 1 1")], None, ErrorCode::NotReady),
            (
                vec![file("a.txt", "0 0 0 1 1"), file("data.yaml", "x: 1")],
                OPEN,
                ErrorCode::Corrupt,
            ),
            (
                vec![file("a.txt", "0 0 0 1 1"), file("b.txt", "0 0 0 1 1")],
                OPEN,
                ErrorCode::NotFound,
            ),
            (
                vec![file("data.yaml", "names: [a]")],
                OPEN,
                ErrorCode::Unsupported,
            ),
        ];
        for (files, open, code) in cases {
            let name = files.first().map(|f| (f.name.clone(), f.bytes.len()));
            let fault = read(files, open).expect_err(&format!("{name:?}"));
            assert_eq!(fault.code, code, "{fault}");
            assert!(!fault.advice.is_empty(), "{fault}");
        }
    }

    #[test]
    fn boxes_outside_are_left_out_and_labels_are_one_line() {
        let json = r#"[{"box_2d": [0, 0, 100, 100], "label": " a\n b "}, {"box_2d": [0, 1200, 10, 1300], "label": "x"},
            {"box_2d": [0, 0, 500, 500], "label": " "}]"#;
        match read(vec![file("a.json", json)], OPEN).expect("a list") {
            Imported::Boxes {
                boxes, left_out, ..
            } => {
                assert_eq!((boxes.len(), left_out), (2, 1));
                assert_eq!(
                    (boxes[0].label.as_deref(), boxes[1].label.as_deref()),
                    (Some("a b"), None)
                );
            }
            other => panic!("{other:?}"),
        }
        for (name, expected) in [
            ("a.JSON", true),
            ("a.jpg", false),
            ("model.safetensors", false),
            ("b.zip", true),
            ("b.xml", true),
            ("b.CSV", true),
        ] {
            assert_eq!(is_wanted(name), expected, "{name}");
        }
    }
}
