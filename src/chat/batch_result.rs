//! What a task found in one picture of a batch.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::chat::answer;
use crate::chat::conversation::{Conversation, Model, Turn};
use crate::chat::exchange::marked::{Scope, Sheet, Source};
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// The certainty of an answer without boxes, whose certainty is not known.
pub const UNKNOWN: f32 = 0.5;

/// A box of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundBox {
    /// Pixels of the picture.
    #[serde(rename = "box")]
    pub bbox: BoxXyxy,
    /// What it shows.
    #[serde(default)]
    pub label: Option<String>,
    /// The proposal's score; absent for a box that the user drew.
    #[serde(default)]
    pub score: Option<f32>,
    /// How sure the model is of the box, 0 to 1: its score times the probability that the answer means it.
    pub certainty: f32,
}

/// The answer of a task about one picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Size of the picture.
    pub size: ImageSize,
    /// The question as the user sees it; empty where all boxes were named.
    pub shown: String,
    /// The question as the model reads it.
    pub question: String,
    /// The answer in words; phrases are followed by the numbers of their boxes.
    pub answer: String,
    /// The boxes that it names, or all that were named.
    pub boxes: Vec<FoundBox>,
    /// Name of the model.
    pub model: String,
}

impl Outcome {
    /// What the only turn of a conversation says; without a turn the names of all boxes.
    pub fn of(c: &Conversation, name: &str) -> Option<Self> {
        let size = c.picture()?.size;
        let turn = c.turns().last();
        let none = BTreeSet::new();
        let source = Source {
            name,
            size,
            candidates: c.candidates(),
            turns: c.turns(),
            shown: &none,
            selected: &none,
        };
        let scope = turn.map_or(Scope::All, |_| Scope::Mentioned);
        let sure = turn.map(probabilities).unwrap_or_default();
        let boxes = Sheet::of(source, scope).boxes.into_iter().map(|marked| {
            let named = sure.get(&marked.number).copied().unwrap_or(1.0);
            FoundBox {
                bbox: marked.bbox,
                label: marked.label,
                score: marked.score,
                certainty: (named * marked.score.unwrap_or(1.0)).clamp(0.0, 1.0),
            }
        });
        Some(Self {
            size,
            shown: turn.map(|t| t.shown.clone()).unwrap_or_default(),
            question: turn.map(|t| t.question.clone()).unwrap_or_default(),
            answer: turn.map_or_else(String::new, |t| answer::plain(&t.pieces())),
            boxes: boxes.collect(),
            model: match c.model() {
                Model::Ready(card) => card.name.clone(),
                _ => String::new(),
            },
        })
    }

    /// The certainty of the answer as a whole: that of its least sure box.
    pub fn certainty(&self) -> f32 {
        let all = self.boxes.iter().map(|b| b.certainty);
        all.min_by(f32::total_cmp).unwrap_or(UNKNOWN)
    }
}

/// The least probability with which an answer names each box.
fn probabilities(turn: &Turn) -> BTreeMap<u32, f32> {
    let mut all = BTreeMap::new();
    for link in &turn.certainty {
        let least = all.entry(link.object).or_insert(link.probability);
        *least = link.probability.min(*least);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Input;
    use crate::chat::exchange::test_sheet::restored;
    use crate::chat::test_data::{after, load, open, proposed, ready};
    use crate::protocol::{Event, Granularity, Link, PictureId};

    fn rounded(outcome: &Outcome) -> Vec<(Option<&str>, f32)> {
        let boxes = outcome.boxes.iter();
        let short = boxes.map(|b| (b.label.as_deref(), (b.certainty * 100.0).round() / 100.0));
        short.collect()
    }

    #[test]
    fn the_boxes_of_an_answer_are_as_sure_as_score_and_link() {
        let mut c = restored();
        let outcome = Outcome::of(&c, "room.jpg").expect("a picture");
        assert_eq!(
            rounded(&outcome),
            [(Some("black cat"), 0.9), (Some("lamp"), 1.0)]
        );
        assert_eq!(outcome.answer, "A black cat [0] near a lamp [2].");
        let link = |object, probability| Link {
            object,
            probability,
            runner_up: None,
        };
        c.step(Input::Event(Event::Links {
            turn: c.turns()[0].request,
            links: vec![link(0, 0.5), link(2, 0.8)],
        }));
        let outcome = Outcome::of(&c, "room.jpg").expect("a picture");
        assert_eq!(
            rounded(&outcome),
            [(Some("black cat"), 0.45), (Some("lamp"), 0.8)]
        );
        assert_eq!(outcome.certainty(), 0.45);
        let json = serde_json::to_string(&outcome).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Outcome>(&json).expect("ours"),
            outcome
        );
    }

    #[test]
    fn without_a_question_all_boxes_are_the_result() {
        let picture = PictureId(4);
        let found = proposed(picture, Granularity::Coarse);
        let c = after([load(), ready(), open(picture), found]);
        let outcome = Outcome::of(&c, "a.png").expect("a picture");
        assert_eq!(rounded(&outcome), [(None, 0.9), (None, 0.6)]);
        assert_eq!(
            (outcome.model.as_str(), outcome.shown.as_str()),
            ("nano", "")
        );
        assert_eq!(Outcome::of(&Conversation::default(), "a.png"), None);
    }
}
