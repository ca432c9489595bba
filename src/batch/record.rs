//! A result: one line of `results.jsonl`.

use serde::{Deserialize, Serialize};

use crate::chat::candidates::BoxId;
use crate::chat::exchange::marked::{self, MarkedBox, Sheet};
use crate::error::{ErrorCode, Fault};
use crate::geometry::{BoxXyxy, Granularity};
use crate::protocol::{ImageSize, StopReason};
use crate::text::answer_parser::Span;

use super::questions::Kind;

/// A result. Boxes are `[x1, y1, x2, y2]` in pixels of the picture; all keys are always written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The name of the picture, with `#LINE` for a question of a file.
    pub id: String,
    /// The name of the picture.
    pub image: String,
    /// SHA-256 of its file; null if it cannot be read.
    pub sha256: Option<String>,
    /// Columns; null if it cannot be decoded.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
    /// The key of its [`Kind`].
    pub task: String,
    /// The question as the model read it.
    pub question: String,
    /// The answer with tags; null if there is none.
    pub text: Option<String>,
    /// The answer in pieces; `objects` are places in `boxes`.
    pub spans: Vec<Span>,
    /// The boxes that the answer may name, best first.
    pub boxes: Vec<BoxXyxy>,
    /// What the answer calls each box; null for boxes that it does not name. Without a question the kinds that
    /// the model's detector names.
    pub labels: Vec<Option<String>>,
    /// The score of each box; null for boxes of the user.
    pub scores: Vec<Option<f32>>,
    /// Generated tokens.
    pub tokens: Option<u32>,
    /// Why the answer ended.
    pub stop: Option<StopReason>,
    /// What failed; null if nothing did.
    pub error: Option<Failure>,
}

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The cause.
    pub code: ErrorCode,
    /// The file or argument concerned.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What the user can do.
    pub advice: String,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            code: fault.code,
            place: fault.place,
            what: fault.what,
            advice: fault.advice,
        }
    }
}

impl Record {
    /// Its line, with the line feed.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("plain data serializes");
        line.push(b'\n');
        line
    }

    /// The size of the picture, if it was decoded.
    pub fn size(&self) -> Option<ImageSize> {
        let (width, height) = self.width.zip(self.height)?;
        Some(ImageSize { width, height })
    }

    /// The boxes of the result, for files of other programs: those that the answer names, or all proposals;
    /// inside the picture. Boxes without a name are called [`marked::OBJECT`].
    pub fn sheet(&self) -> Option<Sheet> {
        let size = self.size()?;
        let is_proposal = self.task == Kind::Propose.key();
        let mut boxes = Vec::new();
        for (place, bbox) in self.boxes.iter().enumerate() {
            let label = self.labels.get(place).cloned().flatten();
            let label = label.or_else(|| is_proposal.then(|| marked::OBJECT.to_owned()));
            let (Some(label), Some(bbox)) = (label, marked::inside(*bbox, size)) else {
                continue;
            };
            let number = place as u32;
            let score = self.scores.get(place).copied().flatten();
            boxes.push(MarkedBox {
                // The result of a model is a prediction, also about boxes of the user.
                id: BoxId::Found(Granularity::default(), number),
                number,
                bbox,
                score,
                label: Some(label),
                hue: None,
                dash: 0,
            });
        }
        Some(Sheet {
            name: self.image.clone(),
            size,
            boxes,
        })
    }
}

/// What an answer with these spans calls each box: the first phrase that names it, without punctuation around
/// it; where there are no words, the kind that the detector names, or [`marked::OBJECT`].
pub fn labels(spans: &[Span], kinds: &[Option<String>]) -> Vec<Option<String>> {
    let mut labels = vec![None; kinds.len()];
    for span in spans {
        let phrase = marked::clean(&span.text);
        let has_words = !phrase.is_empty() && !phrase.starts_with('[');
        for &object in &span.objects {
            let place = object as usize;
            let Some(label) = labels.get_mut(place).filter(|label| label.is_none()) else {
                continue;
            };
            *label = Some(match has_words {
                true => phrase.clone(),
                false => kinds[place]
                    .clone()
                    .unwrap_or_else(|| marked::OBJECT.to_owned()),
            });
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::answer_parser;

    #[test]
    fn the_first_phrase_names_a_box() {
        let text = "<ground>a cat,</ground><objects><obj1></objects> and <ground>it</ground><objects><obj1><obj7></objects><objects><obj0><obj2></objects>";
        let kinds = [None, None, Some("dog".to_owned()), None];
        let found = labels(&answer_parser::spans(text), &kinds);
        let found: Vec<_> = found.iter().map(|label| label.as_deref()).collect();
        assert_eq!(found, [Some("object"), Some("a cat"), Some("dog"), None]);
    }

    fn record() -> Record {
        Record {
            id: "a.png#2".into(),
            image: "a.png".into(),
            width: Some(10),
            height: Some(20),
            task: "detect".into(),
            boxes: vec![
                [1.5, 2.25, 30., 4.].into(),
                [0., 0., 1., 0.1].into(),
                [50., 0., 60., 9.].into(),
            ],
            labels: vec![Some("cat".into()), None, Some("cat".into())],
            scores: vec![Some(0.1), None, Some(0.5)],
            ..Record::default()
        }
    }

    #[test]
    fn a_line_comes_back_and_has_every_key() {
        let line = record().line();
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        assert_eq!(
            serde_json::from_slice::<Record>(&line).expect("ours"),
            record()
        );
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(15));
        assert_eq!(
            (&value["error"], &value["scores"][0]),
            (&serde_json::Value::Null, &0.1.into())
        );
    }

    #[test]
    fn named_boxes_inside_the_picture_are_the_result() {
        let sheet = record().sheet().expect("a size");
        let boxes: Vec<_> = sheet.boxes.iter().map(|b| (b.number, b.bbox)).collect();
        assert_eq!(boxes, [(0, [1.5, 2.25, 10., 4.].into())]);
        let all = Record {
            task: "propose".into(),
            ..record()
        };
        let labels = all
            .sheet()
            .expect("a size")
            .boxes
            .into_iter()
            .map(|b| b.label.unwrap_or_default());
        assert_eq!(labels.collect::<Vec<_>>(), ["cat", "object"]);
        assert_eq!(Record::default().sheet(), None);
    }
}
