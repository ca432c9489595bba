//! Scoring of answers. Each task has its own metric (`docs/reference/interfaces.md` section 4).

use std::collections::{BTreeMap, BTreeSet};

use super::proposals::{fraction, match_greedily};
use crate::geometry::BoxXyxy;
use crate::protocol::Answer;
use crate::scenes::{Category, Dialogue, DialogueTask, Object, Scene, Tint, number_word};

/// Least IoU of a box that matches an object.
pub(super) const MATCH_IOU: f32 = 0.5;

/// The ground truth of a question.
pub(super) struct GroundTruth<'a> {
    pub(super) scene: &'a Scene,
    pub(super) dialogue: &'a Dialogue,
    /// The boxes that indices in the answer refer to.
    pub(super) boxes: &'a [BoxXyxy],
    /// The box of each object.
    pub(super) box_of: &'a [Option<usize>],
    /// The absent category of a detection question.
    pub(super) absent: Option<Category>,
}

/// Accumulated counts of all metrics.
#[derive(Default)]
pub(super) struct AnswerScores {
    boxes_correct: usize,
    boxes_answered: usize,
    boxes_true: usize,
    phrases_correct: usize,
    phrases: usize,
    mentioned: usize,
    mentionable: usize,
    absent: Tally,
    refer: Tally,
    count: Tally,
    naming: Tally,
    plain: Tally,
    /// Counts per task.
    pub(super) per_task: BTreeMap<DialogueTask, Tally>,
}

/// Number of questions and of correct answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) correct: usize,
}

impl Tally {
    fn add(&mut self, correct: bool) {
        self.asked += 1;
        self.correct += usize::from(correct);
    }

    pub(super) fn fraction(self) -> f64 {
        fraction(self.correct, self.asked)
    }
}

impl AnswerScores {
    /// Scores an answer.
    pub(super) fn add(&mut self, gt: &GroundTruth, answer: &Answer) {
        let task = gt.dialogue.task;
        let correct = match task {
            DialogueTask::DetectSeveral if gt.absent.is_some() => self.detection(gt, answer),
            DialogueTask::Caption => self.caption(gt, answer),
            DialogueTask::ReferPosition
            | DialogueTask::ReferSize
            | DialogueTask::ReferColour
            | DialogueTask::ReferRelation => {
                let correct = is_target(gt, answer);
                self.refer.add(correct);
                correct
            }
            DialogueTask::Count => {
                let truth = gt.dialogue.objects().len();
                let correct = first_number(&answer.text) == Some(truth);
                self.count.add(correct);
                correct
            }
            DialogueTask::Name => {
                let correct = is_exact(gt, answer);
                self.naming.add(correct);
                correct
            }
            DialogueTask::Exists
            | DialogueTask::Relation
            | DialogueTask::Colour
            | DialogueTask::Total => {
                let correct = is_exact(gt, answer);
                self.plain.add(correct);
                correct
            }
            _ => is_exact(gt, answer),
        };
        self.per_task.entry(task).or_default().add(correct);
    }

    /// Precision, recall and F1 over all boxes of all detections (micro average).
    pub(super) fn detect(&self) -> [f64; 3] {
        let precision = fraction(self.boxes_correct, self.boxes_answered);
        let recall = fraction(self.boxes_correct, self.boxes_true);
        let f1 = fraction(
            2 * self.boxes_correct,
            self.boxes_answered + self.boxes_true,
        );
        [precision, recall, f1]
    }

    /// Fraction of detections in which the absent category got no box.
    pub(super) fn absent(&self) -> f64 {
        self.absent.fraction()
    }

    /// Fraction of references whose first box is the target.
    pub(super) fn refer(&self) -> f64 {
        self.refer.fraction()
    }

    /// Fraction of correct counts.
    pub(super) fn count(&self) -> f64 {
        self.count.fraction()
    }

    /// Fraction of boxes with the correct category word.
    pub(super) fn naming(&self) -> f64 {
        self.naming.fraction()
    }

    /// Fraction of phrases that match their boxes, and fraction of objects mentioned.
    pub(super) fn captions(&self) -> [f64; 2] {
        [
            fraction(self.phrases_correct, self.phrases),
            fraction(self.mentioned, self.mentionable),
        ]
    }

    /// Fraction of plain questions with the exact answer.
    pub(super) fn plain(&self) -> f64 {
        self.plain.fraction()
    }

    /// Matches the answered boxes one to one per category; correct without false positives and false
    /// negatives.
    fn detection(&mut self, gt: &GroundTruth, answer: &Answer) -> bool {
        let mut answered: BTreeMap<Option<Category>, BTreeSet<u32>> = BTreeMap::new();
        for span in answer.spans.iter().filter(|s| !s.objects.is_empty()) {
            let category = parse_phrase(&span.text).map(|(category, _)| category);
            answered.entry(category).or_default().extend(&span.objects);
        }
        let (mut correct, mut total) = (0, 0);
        for (category, indices) in &answered {
            let of_category = |o: &&Object| Some(o.category) == *category;
            let objects = gt.scene.objects.iter().filter(of_category);
            let truth: Vec<BoxXyxy> = objects.map(|o| o.bbox).collect();
            let boxes = indices.iter().filter_map(|&i| gt.boxes.get(i as usize));
            total += indices.len();
            correct += match_greedily(boxes.copied(), &truth, MATCH_IOU)
                .into_iter()
                .flatten()
                .count();
        }
        let truth = gt.scene.objects.len();
        self.boxes_correct += correct;
        self.boxes_answered += total;
        self.boxes_true += truth;
        self.absent.add(!answered.contains_key(&gt.absent));
        correct == total && correct == truth
    }

    /// Checks every phrase against its boxes; correct if all match and no object is omitted.
    fn caption(&mut self, gt: &GroundTruth, answer: &Answer) -> bool {
        let objects = &gt.scene.objects;
        let mut mentioned = BTreeSet::new();
        let (mut correct, mut phrases) = (0, 0);
        for span in answer.spans.iter().filter(|s| !s.objects.is_empty()) {
            phrases += 1;
            let Some(phrase) = parse_phrase(&span.text) else {
                continue;
            };
            let boxed: Vec<Option<usize>> = span
                .objects
                .iter()
                .map(|&i| object_at(objects, gt.boxes.get(i as usize)?))
                .collect();
            let holds = |o: &usize| matches_phrase(&objects[*o], phrase);
            correct += usize::from(boxed.iter().all(|o| o.as_ref().is_some_and(holds)));
            mentioned.extend(boxed.into_iter().flatten().filter(holds));
        }
        self.phrases += phrases;
        self.phrases_correct += correct;
        self.mentionable += objects.len();
        self.mentioned += mentioned.len();
        correct == phrases && mentioned.len() == objects.len()
    }
}

/// The object with the highest IoU with `bbox`, at least [`MATCH_IOU`].
fn object_at(objects: &[Object], bbox: &BoxXyxy) -> Option<usize> {
    (0..objects.len())
        .map(|o| (o, objects[o].bbox.iou(bbox)))
        .filter(|(_, iou)| *iou >= MATCH_IOU)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(o, _)| o)
}

/// Category and colour of a phrase: the last word is the category, a colour may precede it.
fn parse_phrase(phrase: &str) -> Option<(Category, Option<Tint>)> {
    let mut words = phrase.split_whitespace().rev();
    let category = Category::from_word(words.next()?)?;
    let tint = words.find_map(|word| Tint::ALL.into_iter().find(|t| t.word() == word));
    Some((category, tint))
}

fn matches_phrase(object: &Object, (category, tint): (Category, Option<Tint>)) -> bool {
    object.category == category && (tint.is_none() || object.tint == tint)
}

/// Whether the first answered box is the target.
fn is_target(gt: &GroundTruth, answer: &Answer) -> bool {
    let target = gt.scene.objects[gt.dialogue.objects()[0]].bbox;
    let first = answer.spans.iter().find_map(|s| s.objects.first());
    first
        .and_then(|&i| gt.boxes.get(i as usize))
        .is_some_and(|b| b.iou(&target) >= MATCH_IOU)
}

fn is_exact(gt: &GroundTruth, answer: &Answer) -> bool {
    let truth = gt.dialogue.answer(gt.box_of);
    truth.is_some_and(|truth| truth == answer.text.trim())
}

/// The first number in the text of an answer, tags excluded.
pub(super) fn first_number(text: &str) -> Option<usize> {
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
            let as_word = (0..=12).find(|&n| number_word(n) == word);
            as_word.or_else(|| word.parse().ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_inside_tags_are_ignored() {
        let counted = "<ground>dogs</ground><objects><obj0><obj7></objects> two";
        assert_eq!(first_number(counted), Some(2));
        assert_eq!(first_number("Twelve <ground>red cars</ground>"), Some(12));
        assert_eq!(first_number("there are 3."), Some(3));
        assert_eq!(first_number("<objects><obj4></objects>"), None);
    }

    #[test]
    fn phrases_are_a_category_and_a_colour() {
        let car = Category::from_word("car").unwrap();
        assert_eq!(parse_phrase("small red cars"), Some((car, Some(Tint::Red))));
        assert_eq!(parse_phrase("car "), Some((car, None)));
        assert_eq!(parse_phrase("red"), None);
        assert_eq!(parse_phrase(""), None);
    }
}
