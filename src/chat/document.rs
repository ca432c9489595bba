//! A conversation as a JSON document: the picture's name and size, the boxes with identity and label, the
//! turns with their question, words and boxes, and the parameters.
//!
//! Version 1. `format` is [`FORMAT`]. A box is `[x1, y1, x2, y2]` in pixels of the picture. An identity is
//! `coarse-K` or `fine-K` for rank K of the proposals, `own-K` for a box of the user.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::chat::candidates::{BoxId, Candidate, Candidates, Filter};
use crate::chat::question::Draft;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
use crate::protocol::{Answer, Granularity, Link};
use crate::text::answer_parser::Span;
use crate::text::prompt::MAX_BOXES;

/// The value of [`Document::format`].
pub const FORMAT: &str = "chatrex-conversation";
/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Most turns that are read from a file.
const MAX_TURNS: usize = 10_000;

/// A conversation about a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The picture.
    pub picture: SavedPicture,
    /// The parameters of the page.
    pub parameters: Parameters,
    /// The boxes for the next question, in the order of their numbers.
    pub boxes: Vec<SavedBox>,
    /// The turns, oldest first.
    pub turns: Vec<SavedTurn>,
}

/// Name and size of a picture; its pixels are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPicture {
    /// Name of the file.
    pub name: String,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// How boxes were chosen and words sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// Name of the loaded model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The granularity of the proposals.
    pub granularity: Granularity,
    /// Score threshold, 0 to 1.
    pub score: f32,
    /// IoU threshold of non-maximum suppression; 1 keeps all boxes.
    pub nms: f64,
    /// Score from which the best box of a kind without other boxes is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_of_kind: Option<f32>,
    /// How tokens are sampled.
    #[serde(default)]
    pub sampling: Sampling,
}

impl Parameters {
    /// The filters.
    pub fn filter(&self) -> Filter {
        Filter {
            score: self.score,
            nms: self.nms,
            first_of_kind: self.first_of_kind,
        }
    }
}

/// A box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedBox {
    /// Its identity.
    pub id: SavedId,
    /// Pixels of the picture.
    #[serde(rename = "box")]
    pub bbox: BoxXyxy,
    /// The proposal's score; absent for a box of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// The kind that a detector says, or the label that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl From<&Candidate> for SavedBox {
    fn from(candidate: &Candidate) -> Self {
        Self {
            id: SavedId(candidate.id),
            bbox: candidate.bbox,
            score: candidate.score,
            label: candidate.label.clone(),
        }
    }
}

impl From<&SavedBox> for Candidate {
    fn from(saved: &SavedBox) -> Self {
        Self {
            id: saved.id.0,
            bbox: saved.bbox,
            score: saved.score,
            label: saved.label.clone(),
        }
    }
}

/// The boxes of a set, in order.
pub fn saved_boxes(candidates: &Candidates) -> Vec<SavedBox> {
    candidates.boxes.iter().map(SavedBox::from).collect()
}

/// The identity of a box as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SavedId(pub BoxId);

impl Display for SavedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            BoxId::Found(Granularity::Coarse, rank) => write!(f, "coarse-{rank}"),
            BoxId::Found(Granularity::Fine, rank) => write!(f, "fine-{rank}"),
            BoxId::Own(number) => write!(f, "own-{number}"),
        }
    }
}

impl FromStr for SavedId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no identity of a box");
        let (kind, number) = text.split_once('-').ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        Ok(Self(match kind {
            "coarse" => BoxId::Found(Granularity::Coarse, number),
            "fine" => BoxId::Found(Granularity::Fine, number),
            "own" => BoxId::Own(number),
            _ => return Err(wrong()),
        }))
    }
}

impl TryFrom<String> for SavedId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SavedId> for String {
    fn from(id: SavedId) -> Self {
        id.to_string()
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTurn {
    /// The question as the user sees it.
    pub shown: String,
    /// The question as the model reads it.
    pub question: String,
    /// How the answer ended.
    pub state: SavedState,
    /// The boxes of the question: number K of the spans is box K of this list.
    #[serde(default)]
    pub boxes: Vec<SavedBox>,
    /// The answer in pieces.
    #[serde(default)]
    pub spans: Vec<Span>,
    /// The complete answer with prompt and durations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// How sure the model was of each index, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certainty: Vec<Link>,
    /// The user's boxes of a piece, by its index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<usize, Vec<u32>>,
    /// The other answers to the question, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<SavedAnswer>,
    /// Place of the shown answer among all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: usize,
    /// What the user wrote; absent in documents of older pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Draft>,
}

/// Another answer to the question of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedAnswer {
    /// How it ended.
    pub state: SavedState,
    /// The answer in pieces.
    #[serde(default)]
    pub spans: Vec<Span>,
    /// The complete answer with prompt and durations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// How sure the model was of each index, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certainty: Vec<Link>,
    /// The user's boxes of a piece, by its index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<usize, Vec<u32>>,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// How an answer ended. An answer that was running when the document was written counts as stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedState {
    /// Complete, or ended by the length limit.
    Done,
    /// Stopped.
    Stopped,
    /// Failed.
    Failed(Fault),
}

/// A box without identity, from a file of another program.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    /// Pixels of the picture.
    pub bbox: BoxXyxy,
    /// What it shows.
    pub label: Option<String>,
}

/// How many boxes of a file were added, and why the others were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Added.
    pub added: usize,
    /// The user has the same box.
    pub known: usize,
    /// They are not boxes, or not in the picture.
    pub left_out: usize,
    /// They exceed what a question can take.
    pub surplus: usize,
}

impl Document {
    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    /// Reads JSON; `place` is the name of the file.
    ///
    /// # Errors
    /// The text is not such a document, is of a newer version, or holds values that cannot be used.
    pub fn parse(place: &str, json: &str) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Head {
            format: Option<String>,
            version: Option<u32>,
        }
        let head: Head = serde_json::from_str(json).map_err(|error| damaged(place, &error))?;
        if head.format.as_deref() != Some(FORMAT) {
            return Err(refused(place, "it is not a conversation of this page"));
        }
        match head.version {
            Some(version) if version > VERSION => {
                return Err(Fault::new(
                    FaultKind::File,
                    place,
                    format!("it has version {version}, and this page reads {VERSION} and older"),
                    "Reload the page to get its newest version; nothing was changed",
                )
                .code(ErrorCode::Unsupported));
            }
            Some(1..) => {}
            _ => return Err(refused(place, "it names no version")),
        }
        let document: Self = serde_json::from_str(json).map_err(|error| damaged(place, &error))?;
        document.check(place)?;
        Ok(document)
    }

    /// Checks what the types do not: sizes, finite coordinates, ranges, counts.
    fn check(&self, place: &str) -> Result<(), Fault> {
        if self.picture.width == 0 || self.picture.height == 0 {
            return Err(refused(place, "its picture has no size"));
        }
        let parameters = &self.parameters;
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        let first = parameters.first_of_kind.map_or(0.0, f64::from);
        if ![parameters.score.into(), parameters.nms, first]
            .into_iter()
            .all(is_share)
            || parameters.sampling.check().is_err()
        {
            return Err(refused(place, "its parameters are out of range"));
        }
        if self.turns.len() > MAX_TURNS {
            return Err(refused(place, "it has too many turns"));
        }
        for turn in &self.turns {
            let others = turn.others.iter().map(|other| &other.links);
            let objects = others.chain([&turn.links]).flat_map(BTreeMap::values);
            let is_box = |&object: &u32| (object as usize) < turn.boxes.len();
            if !objects.flatten().all(is_box) {
                return Err(refused(place, "a link leads to no box"));
            }
            if turn.others.len() > MAX_TURNS || turn.version > turn.others.len() {
                return Err(refused(place, "its other answers are damaged"));
            }
        }
        let sets = self.turns.iter().map(|turn| &turn.boxes);
        for boxes in sets.chain([&self.boxes]) {
            if boxes.len() > MAX_BOXES {
                let what = format!("a question has more than {MAX_BOXES} boxes");
                return Err(refused(place, what));
            }
            let values = boxes.iter().flat_map(|b| <[f32; 4]>::from(b.bbox));
            if !values.into_iter().all(f32::is_finite) {
                return Err(refused(place, "a coordinate is not a number"));
            }
        }
        Ok(())
    }
}

/// A file that is no valid JSON or lacks a value.
pub fn damaged(place: &str, error: &serde_json::Error) -> Fault {
    refused(place, format!("it is damaged ({error})"))
}

/// A file that cannot be used.
pub fn refused(place: &str, what: impl Into<String>) -> Fault {
    Fault::new(
        FaultKind::File,
        place,
        what,
        "Choose another file; nothing was changed",
    )
    .code(ErrorCode::Corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::test_data::saved;

    #[test]
    fn a_document_comes_back_unchanged() {
        let document = saved();
        let json = document.to_json();
        assert_eq!(Document::parse("a.json", &json), Ok(document));
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["boxes"][0]["id"], "coarse-0");
        assert_eq!(value["turns"][0]["state"], "done");
        assert_eq!(value["picture"]["width"], 100);
    }

    #[test]
    fn damaged_documents_get_one_sentence() {
        let json = saved().to_json();
        let cases = [
            ("", "damaged"),
            ("[1, 2]", "damaged"),
            ("{}", "not a conversation"),
            (&json[..json.len() / 2], "damaged"),
            (
                &json.replace("\"version\": 1", "\"version\": 2"),
                "version 2",
            ),
            (
                &json.replace("\"version\": 1", "\"version\": 0"),
                "no version",
            ),
            (&json.replace("coarse-0", "coarse-x"), "no identity"),
            (&json.replace("\"width\": 100", "\"width\": 0"), "no size"),
            (&json.replace("\"nms\": 0.8", "\"nms\": 7"), "out of range"),
            (&json.replace("40.5", "1e300"), "not a number"),
            (&json.replace("40.5", "null"), "damaged"),
            (
                &json.replace(
                    "\"state\": \"done\"",
                    "\"state\": \"done\", \"links\": {\"1\": [3]}",
                ),
                "leads to no box",
            ),
            (
                &json.replace("\"state\": \"done\"", "\"state\": \"done\", \"version\": 1"),
                "other answers",
            ),
        ];
        for (json, expected) in cases {
            let fault = Document::parse("a.json", json).expect_err(expected);
            assert!(fault.what.contains(expected), "{fault}");
            assert_eq!(fault.place, "a.json");
        }
        let mut many = saved();
        many.boxes = vec![many.boxes[0].clone(); MAX_BOXES + 1];
        let fault = Document::parse("a.json", &many.to_json()).expect_err("too many");
        assert!(fault.what.contains("more than 100"), "{fault}");
    }
}
