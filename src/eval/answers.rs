//! How true answers are: each kind of question has its own measure (`contracts.md`, metric
//! definitions).

use std::collections::{BTreeMap, BTreeSet};

use super::proposals::one_to_one;
use super::share;
use crate::geometry::BoxXyxy;
use crate::protocol::Answer;
use crate::scenes::{Dialogue, Kind, Object, Scene, Task, Tint, number_word};

/// Overlap from which a box counts as an object's.
pub(super) const OVERLAP: f32 = 0.5;

/// A question put to the model.
pub(super) struct Question<'a> {
    pub(super) scene: &'a Scene,
    pub(super) dialogue: &'a Dialogue,
    /// The boxes that the indices of the answer mean.
    pub(super) boxes: &'a [BoxXyxy],
    /// The index of each object's box.
    pub(super) box_of: &'a [Option<usize>],
    /// The kind in a detection question that is not in the picture.
    pub(super) absent: Option<Kind>,
}

/// Right and wrong so far.
#[derive(Default)]
pub(super) struct AnswerScores {
    boxes_right: usize,
    boxes_answered: usize,
    boxes_true: usize,
    phrases_right: usize,
    phrases: usize,
    mentioned: usize,
    mentionable: usize,
    absent: Tally,
    refer: Tally,
    count: Tally,
    naming: Tally,
    plain: Tally,
    /// Every task's questions.
    pub(super) per_task: BTreeMap<Task, Tally>,
}

/// Questions asked and answered rightly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) right: usize,
}

impl Tally {
    fn add(&mut self, right: bool) {
        self.asked += 1;
        self.right += usize::from(right);
    }

    pub(super) fn share(self) -> f64 {
        share(self.right, self.asked)
    }
}

impl AnswerScores {
    /// Adds an answer.
    pub(super) fn add(&mut self, question: &Question, answer: &Answer) {
        let task = question.dialogue.task;
        let right = match task {
            Task::DetectSeveral if question.absent.is_some() => self.detection(question, answer),
            Task::Caption => self.caption(question, answer),
            Task::ReferPosition | Task::ReferSize | Task::ReferColour | Task::ReferRelation => {
                let right = refers(question, answer);
                self.refer.add(right);
                right
            }
            Task::Count => {
                let truth = question.dialogue.objects().len();
                let right = number(&answer.text) == Some(truth);
                self.count.add(right);
                right
            }
            Task::Name => {
                let right = exact(question, answer);
                self.naming.add(right);
                right
            }
            Task::Exists | Task::Relation | Task::Colour | Task::Total => {
                let right = exact(question, answer);
                self.plain.add(right);
                right
            }
            _ => exact(question, answer),
        };
        self.per_task.entry(task).or_default().add(right);
    }

    /// Precision, recall and their harmonic mean over all boxes of all detections.
    pub(super) fn detect(&self) -> [f64; 3] {
        let precision = share(self.boxes_right, self.boxes_answered);
        let recall = share(self.boxes_right, self.boxes_true);
        let f1 = share(2 * self.boxes_right, self.boxes_answered + self.boxes_true);
        [precision, recall, f1]
    }

    /// Share of detections in which the absent kind got no box.
    pub(super) fn absent(&self) -> f64 {
        self.absent.share()
    }

    /// Share of references whose first box is the target's.
    pub(super) fn refer(&self) -> f64 {
        self.refer.share()
    }

    /// Share of counts with the right number.
    pub(super) fn count(&self) -> f64 {
        self.count.share()
    }

    /// Share of boxes called by the right word.
    pub(super) fn naming(&self) -> f64 {
        self.naming.share()
    }

    /// Share of phrases that are true of their boxes, and share of objects mentioned.
    pub(super) fn captions(&self) -> [f64; 2] {
        [
            share(self.phrases_right, self.phrases),
            share(self.mentioned, self.mentionable),
        ]
    }

    /// Share of plain questions answered exactly.
    pub(super) fn plain(&self) -> f64 {
        self.plain.share()
    }

    /// Matches the answered boxes one to one per kind; right when all are found and none else.
    fn detection(&mut self, question: &Question, answer: &Answer) -> bool {
        let mut answered: BTreeMap<Option<Kind>, BTreeSet<u32>> = BTreeMap::new();
        for span in answer.spans.iter().filter(|s| !s.objects.is_empty()) {
            let kind = said(&span.text).map(|(kind, _)| kind);
            answered.entry(kind).or_default().extend(&span.objects);
        }
        let (mut right, mut total) = (0, 0);
        for (kind, indices) in &answered {
            let of_kind = |o: &&Object| Some(o.kind) == *kind;
            let objects = question.scene.objects.iter().filter(of_kind);
            let truth: Vec<BoxXyxy> = objects.map(|o| o.bbox).collect();
            let boxes = indices
                .iter()
                .filter_map(|&i| question.boxes.get(i as usize));
            total += indices.len();
            right += one_to_one(boxes.copied(), &truth, OVERLAP)
                .into_iter()
                .flatten()
                .count();
        }
        let truth = question.scene.objects.len();
        self.boxes_right += right;
        self.boxes_answered += total;
        self.boxes_true += truth;
        self.absent.add(!answered.contains_key(&question.absent));
        right == total && right == truth
    }

    /// Checks every phrase against its boxes; right when all hold and nothing is left out.
    fn caption(&mut self, question: &Question, answer: &Answer) -> bool {
        let objects = &question.scene.objects;
        let mut mentioned = BTreeSet::new();
        let (mut right, mut phrases) = (0, 0);
        for span in answer.spans.iter().filter(|s| !s.objects.is_empty()) {
            phrases += 1;
            let Some(said) = said(&span.text) else {
                continue;
            };
            let shown: Vec<Option<usize>> = span
                .objects
                .iter()
                .map(|&i| object_at(objects, question.boxes.get(i as usize)?))
                .collect();
            let holds = |o: &usize| is(&objects[*o], said);
            right += usize::from(shown.iter().all(|o| o.as_ref().is_some_and(holds)));
            mentioned.extend(shown.into_iter().flatten().filter(holds));
        }
        self.phrases += phrases;
        self.phrases_right += right;
        self.mentionable += objects.len();
        self.mentioned += mentioned.len();
        right == phrases && mentioned.len() == objects.len()
    }
}

/// The object whose box `bbox` overlaps most, by at least a half.
fn object_at(objects: &[Object], bbox: &BoxXyxy) -> Option<usize> {
    (0..objects.len())
        .map(|o| (o, objects[o].bbox.iou(bbox)))
        .filter(|(_, iou)| *iou >= OVERLAP)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(o, _)| o)
}

/// Kind and colour that a phrase says: the kind is its last word, a colour may come before.
fn said(phrase: &str) -> Option<(Kind, Option<Tint>)> {
    let mut words = phrase.split_whitespace().rev();
    let kind = Kind::from_word(words.next()?)?;
    let tint = words.find_map(|word| Tint::ALL.into_iter().find(|t| t.word() == word));
    Some((kind, tint))
}

fn is(object: &Object, (kind, tint): (Kind, Option<Tint>)) -> bool {
    object.kind == kind && (tint.is_none() || object.tint == tint)
}

/// Whether the first answered box is the target's.
fn refers(question: &Question, answer: &Answer) -> bool {
    let target = question.scene.objects[question.dialogue.objects()[0]].bbox;
    let first = answer.spans.iter().find_map(|s| s.objects.first());
    first
        .and_then(|&i| question.boxes.get(i as usize))
        .is_some_and(|b| b.iou(&target) >= OVERLAP)
}

fn exact(question: &Question, answer: &Answer) -> bool {
    let truth = question.dialogue.answer(question.box_of);
    truth.is_some_and(|truth| truth == answer.text.trim())
}

/// The first number among the words of an answer, tags left out.
fn number(text: &str) -> Option<usize> {
    let mut outside = String::new();
    for (i, part) in text.split('<').enumerate() {
        let words = if i == 0 {
            part
        } else {
            part.split_once('>').map_or("", |(_, words)| words)
        };
        outside.push(' ');
        outside.push_str(words);
    }
    outside
        .split(|c: char| !c.is_alphanumeric())
        .find_map(|word| {
            let word = word.to_lowercase();
            let spelt = (0..=12).find(|&n| number_word(n) == word);
            spelt.or_else(|| word.parse().ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_words_only() {
        let counted = "<ground>dogs</ground><objects><obj0><obj7></objects> two";
        assert_eq!(number(counted), Some(2));
        assert_eq!(number("Twelve <ground>red cars</ground>"), Some(12));
        assert_eq!(number("there are 3."), Some(3));
        assert_eq!(number("<objects><obj4></objects>"), None);
    }

    #[test]
    fn phrases_are_kind_and_colour() {
        let car = Kind::from_word("car").unwrap();
        assert_eq!(said("small red cars"), Some((car, Some(Tint::Red))));
        assert_eq!(said("car "), Some((car, None)));
        assert_eq!(said("red"), None);
        assert_eq!(said(""), None);
    }
}
