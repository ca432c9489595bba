//! The files of a batch: one line of JSON per picture, and an archive for training programs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::chat::batch::{Batch, ItemState};
use crate::chat::batch_result::{FoundBox, Outcome};
use crate::chat::candidates::BoxId;
use crate::chat::exchange::marked::{MarkedBox, Sheet, Unlabelled, categories, safe_name, stem};
use crate::chat::exchange::{archive, coco, voc, yolo};
use crate::chat::review::Review;
use crate::protocol::Granularity;

/// Most bytes of pictures in an archive.
pub const MAX_BYTES: u64 = 500_000_000;

/// The results as lines of JSON, in the order of the pictures. With a review only accepted and corrected
/// boxes.
pub fn jsonl(batch: &Batch, review: Option<&Review>) -> String {
    let mut lines = String::new();
    for (index, item) in batch.items().iter().enumerate() {
        let mut line = json!({
            "picture": item.name,
            "state": item.state.key(),
            "task": {"kind": batch.head.task.kind.key(), "words": batch.head.task.words},
        });
        match &item.state {
            ItemState::Done(outcome) => add_outcome(&mut line, index, outcome, review),
            ItemState::Failed(fault) => {
                line["code"] = format!("{:?}", fault.code).into();
                line["error"] = fault.to_string().into();
            }
            _ => {}
        }
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    lines
}

fn add_outcome(line: &mut Value, index: usize, outcome: &Outcome, review: Option<&Review>) {
    line["width"] = outcome.size.width.into();
    line["height"] = outcome.size.height.into();
    line["question"] = outcome.question.as_str().into();
    line["answer"] = outcome.answer.as_str().into();
    line["model"] = outcome.model.as_str().into();
    let boxes = match review {
        None => Some(outcome.boxes.clone()),
        Some(review) => {
            let accepted = review.accepted(index, outcome);
            line["reviewed"] = accepted.is_some().into();
            accepted
        }
    };
    let boxes = boxes.unwrap_or_default();
    line["boxes"] = boxes.iter().map(box_line).collect();
}

fn box_line(found: &FoundBox) -> Value {
    let round = |value: f32| (f64::from(value) * 1000.0).round() / 1000.0;
    let corners = <[f32; 4]>::from(found.bbox).map(round);
    let mut line =
        json!({"box": corners, "label": found.label, "certainty": round(found.certainty)});
    if let Some(score) = found.score {
        line["score"] = round(score).into();
    }
    line
}

/// A picture of the archive: its place in the batch, and its boxes under a name that no other has.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Its place in the batch.
    pub item: usize,
    /// The boxes, all with a label.
    pub sheet: Sheet,
}

/// The pictures of the archive. With a review only those about which something was decided.
pub fn pages(batch: &Batch, review: Option<&Review>) -> Vec<Page> {
    let mut taken = BTreeSet::new();
    let mut all = Vec::new();
    for (item, of) in batch.items().iter().enumerate() {
        let Some(outcome) = of.outcome() else {
            continue;
        };
        let boxes = match review {
            Some(review) => review.accepted(item, outcome),
            None => Some(outcome.boxes.clone()),
        };
        let Some(boxes) = boxes else {
            continue;
        };
        let sheet = Sheet {
            name: unique(&of.name, &mut taken),
            size: outcome.size,
            boxes: boxes.into_iter().enumerate().map(marked).collect(),
        };
        all.push(Page {
            item,
            sheet: sheet.labelled(Unlabelled::AsObject),
        });
    }
    all
}

fn marked((place, found): (usize, FoundBox)) -> MarkedBox {
    let number = place as u32;
    MarkedBox {
        id: match found.score {
            Some(_) => BoxId::Found(Granularity::default(), number),
            None => BoxId::Own(number),
        },
        number,
        bbox: found.bbox,
        score: found.score,
        label: found.label,
        hue: None,
        dash: 0,
    }
}

/// A file name whose stem is not taken, whatever the case of its letters.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let (name, stem) = (safe_name(name), stem(name));
    let ending = name.strip_prefix(&stem).unwrap_or_default().to_owned();
    let mut free = stem.clone();
    let mut count = 1;
    while !taken.insert(free.to_lowercase()) {
        count += 1;
        free = format!("{stem}-{count}");
    }
    free + &ending
}

/// The archive: COCO, YOLO, Pascal VOC, the list of labels and the lines; `pictures` are the files of the
/// pages, or none.
pub fn zip(pages: &[Page], lines: &str, pictures: &[Vec<u8>]) -> Vec<u8> {
    let sheets: Vec<Sheet> = pages.iter().map(|page| page.sheet.clone()).collect();
    let labels = sheets.iter().flat_map(|sheet| &sheet.boxes);
    let labels = categories(labels.filter_map(|b| b.label.as_deref()));
    let list: String = labels.iter().map(|label| format!("{label}\n")).collect();
    let mut files = vec![
        (
            "annotations.coco.json".to_owned(),
            coco::write_all(&sheets, &labels),
        ),
        ("data.yaml".to_owned(), yolo::data_yaml(&labels)),
        ("labels.txt".to_owned(), list),
        ("results.jsonl".to_owned(), lines.to_owned()),
    ];
    for sheet in &sheets {
        let name = stem(&sheet.name);
        let text = yolo::labels_among(sheet, &labels);
        files.push((format!("labels/train/{name}.txt"), text));
        files.push((format!("Annotations/{name}.xml"), voc::write(sheet)));
    }
    let texts = files
        .iter()
        .map(|(path, text)| (path.clone(), text.as_bytes()));
    let names = sheets.iter().map(|s| format!("images/train/{}", s.name));
    let pictures = names.zip(pictures.iter().map(Vec::as_slice));
    archive::write(&texts.chain(pictures).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::batch::{Input, Item, Task, TaskKind};
    use crate::chat::review;
    use crate::chat::test_data::outcome;
    use crate::error::{Fault, FaultKind};

    fn done(boxes: &[(Option<&str>, f32)]) -> Box<Outcome> {
        let found = |&(label, score): &(Option<&str>, f32)| FoundBox {
            bbox: [1., 2., 11., 22.].into(),
            label: label.map(str::to_owned),
            score: Some(score),
            certainty: score,
        };
        outcome(boxes.iter().map(found).collect())
    }

    fn batch() -> Batch {
        let task = Task {
            kind: TaskKind::Find,
            words: "cat".into(),
        };
        let items = ["x/a.jpg", "broken.png", "A.png", "b.png"].map(Item::new);
        let mut batch = Batch::new("k".into(), task, false, items.into());
        batch.step(Input::Resume);
        let fault = Fault::new(
            FaultKind::Picture,
            "that file",
            "it is no picture",
            "Skip it",
        );
        for input in [
            Input::Answered(0, done(&[(Some("cat"), 0.9), (None, 0.5)]), 1.0),
            Input::Failed(1, fault),
            Input::Answered(2, done(&[(Some("Cat"), 0.8)]), 1.0),
        ] {
            batch.step(Input::Free(0.0));
            batch.step(input);
        }
        batch
    }

    #[test]
    fn every_picture_is_a_line() {
        let lines = jsonl(&batch(), None);
        let lines = lines
            .lines()
            .map(|l| serde_json::from_str(l).expect("JSON"));
        let lines: Vec<Value> = lines.collect();
        let states = lines
            .iter()
            .map(|l| l["state"].as_str().unwrap_or_default());
        assert_eq!(
            states.collect::<Vec<_>>(),
            ["done", "failed", "done", "waiting"]
        );
        assert_eq!(lines[0]["boxes"][0]["box"], json!([1.0, 2.0, 11.0, 22.0]));
        assert_eq!(lines[1]["code"], "InvalidInput");
        assert_eq!(lines[3].get("boxes"), None);
    }

    #[test]
    fn the_archive_has_every_format_and_names_of_its_own_for_every_picture() {
        let batch = batch();
        let pages = pages(&batch, None);
        let names = pages.iter().map(|page| page.sheet.name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["a.jpg", "A-2.png"]);
        let bytes = zip(&pages, "{}\n", &[]);
        let files = archive::read("a.zip", &bytes).expect("ours");
        let text = |path: &str| {
            let file = files.iter().find(|(name, _)| name == path);
            String::from_utf8(file.unwrap_or_else(|| panic!("{path}")).1.clone()).expect("text")
        };
        assert_eq!(text("labels.txt"), "cat\nobject\n");
        assert_eq!(text("labels/train/a.txt").lines().count(), 2);
        assert!(text("labels/train/A-2.txt").starts_with("0 "));
        let coco: Value = serde_json::from_str(&text("annotations.coco.json")).expect("JSON");
        let ids = coco["annotations"].as_array().expect("a list").iter();
        let ids: Vec<_> = ids
            .map(|a| (a["id"].clone(), a["image_id"].clone()))
            .collect();
        let expected = [(1, 1), (2, 1), (3, 2)].map(|(a, b)| (json!(a), json!(b)));
        assert_eq!(ids, expected);
        assert!(text("data.yaml").contains("0: \"cat\""));
        let with_pictures = zip(&pages, "", &[vec![1, 2], vec![3]]);
        let path = b"images/train/a.jpg";
        assert!(with_pictures.windows(path.len()).any(|w| w == path));
    }

    #[test]
    fn after_a_review_only_what_was_accepted_is_written() {
        let batch = batch();
        let mut review = Review::default();
        // The least certain box is the one without a label.
        review.step(review::Input::Reject, &batch);
        let first = pages(&batch, Some(&review));
        assert_eq!((first.len(), first[0].sheet.boxes.len()), (1, 0));
        review.step(review::Input::Label("dog".into()), &batch);
        let pages = pages(&batch, Some(&review));
        assert_eq!(pages.len(), 2);
        assert_eq!(pages[1].sheet.boxes[0].label.as_deref(), Some("dog"));
        let lines = jsonl(&batch, Some(&review));
        let first: Value =
            serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
        assert_eq!(
            (&first["reviewed"], &first["boxes"]),
            (&json!(true), &json!([]))
        );
    }
}
