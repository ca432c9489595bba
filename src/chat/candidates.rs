//! The boxes a question may point at: proposals after the two filters, then the boxes of the user.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::geometry::{BoxXyxy, Filtered, Selection};
use crate::protocol::{Granularity, ModelCard, Proposal};
use crate::text::prompt::{MAX_BOXES, index_tag};

/// Identity of a box of one picture; the filters do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BoxId {
    /// A proposal: its rank among all proposals of that granularity.
    Found(Granularity, u32),
    /// A box of the user, in order of drawing.
    Own(u32),
}

/// A box of the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnBox {
    /// Original picture pixels.
    pub bbox: BoxXyxy,
    /// The kind of the proposal that it replaced.
    pub label: Option<String>,
}

impl From<BoxXyxy> for OwnBox {
    fn from(bbox: BoxXyxy) -> Self {
        Self { bbox, label: None }
    }
}

/// The filters of the page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// Score threshold, 0 to 1.
    pub score: f32,
    /// IoU threshold of non-maximum suppression; 1 keeps all boxes.
    pub nms: f64,
    /// Score from which the best box of a kind without other boxes is kept.
    pub first_of_kind: Option<f32>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            score: 0.3,
            nms: 0.8,
            first_of_kind: None,
        }
    }
}

impl Filter {
    /// The default thresholds of a model.
    pub fn of(card: &ModelCard) -> Self {
        Self {
            score: card.default_score,
            nms: card.default_nms,
            first_of_kind: card.default_first_of_kind,
        }
    }

    /// Whether every threshold is within 0 to 1.
    pub fn is_in_range(&self) -> bool {
        let unit = 0.0..=1.0;
        let first = self.first_of_kind.unwrap_or_default();
        unit.contains(&f64::from(self.score))
            && unit.contains(&self.nms)
            && unit.contains(&f64::from(first))
    }

    /// The same with another score threshold. Above the model's default it applies to every box: a
    /// kind without other boxes is no exception.
    #[must_use]
    pub fn with_score(self, score: f32, defaults: Self) -> Self {
        Self {
            score,
            first_of_kind: defaults.first_of_kind.filter(|_| score <= defaults.score),
            ..self
        }
    }
}

/// One box a question may point at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its identity.
    pub id: BoxId,
    /// Original picture pixels.
    pub bbox: BoxXyxy,
    /// The proposal's score; `None` for a box of the user.
    pub score: Option<f32>,
    /// The kind that a detector says it is, or the name that the model gave it.
    pub label: Option<String>,
}

/// The boxes of one question in the order the model numbers them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// At most [`MAX_BOXES`]; the index in this list is the number in `<objK>`.
    pub boxes: Vec<Candidate>,
    /// Number of proposals that passed the filters and exceed [`MAX_BOXES`].
    pub left_out: usize,
}

impl Candidates {
    /// Filters `proposals` (best first), keeps the best that fit and appends `own`. Proposals in
    /// `removed` are left out after the filters: no other takes their place.
    pub fn choose(
        proposals: &[Proposal],
        granularity: Granularity,
        own: &BTreeMap<u32, OwnBox>,
        removed: &BTreeSet<BoxId>,
        limits: Filter,
    ) -> Self {
        let room = MAX_BOXES.saturating_sub(own.len());
        let overlap = if limits.nms < 1.0 { limits.nms } else { 0.0 };
        let selection = Selection {
            score: limits.score,
            nms: overlap,
            first_of_kind: limits.first_of_kind,
        };
        let is_removed = |rank: usize| removed.contains(&BoxId::Found(granularity, rank as u32));
        let spare = (0..proposals.len())
            .filter(|&rank| is_removed(rank))
            .count();
        let Filtered {
            mut kept,
            mut left_out,
        } = selection.choose(proposals, room + spare);
        kept.retain(|&rank| !is_removed(rank));
        left_out += kept.len().saturating_sub(room);
        kept.truncate(room);
        let found = kept.into_iter().map(|rank| Candidate {
            id: BoxId::Found(granularity, rank as u32),
            bbox: proposals[rank].bbox,
            score: Some(proposals[rank].score),
            label: proposals[rank].label.clone(),
        });
        let own = own.iter().map(|(&number, own)| Candidate {
            id: BoxId::Own(number),
            bbox: own.bbox,
            score: None,
            label: own.label.clone(),
        });
        Self {
            boxes: found.chain(own).take(MAX_BOXES).collect(),
            left_out,
        }
    }

    /// Gives boxes the names that the model found for them, in place of the detector's kinds.
    pub fn name(&mut self, names: &BTreeMap<BoxId, String>) {
        for candidate in &mut self.boxes {
            if let Some(name) = names.get(&candidate.id) {
                candidate.label = Some(name.clone());
            }
        }
    }

    /// Whether the two sets hold the same boxes, whatever they are called.
    pub fn has_boxes_of(&self, other: &Self) -> bool {
        let same = |(a, b): (&Candidate, &Candidate)| a.id == b.id && a.bbox == b.bbox;
        self.boxes.len() == other.boxes.len() && self.boxes.iter().zip(&other.boxes).all(same)
    }

    /// The number of a box in this set.
    pub fn number(&self, id: BoxId) -> Option<u32> {
        let place = self.boxes.iter().position(|b| b.id == id)?;
        Some(place as u32)
    }

    /// The box with a number.
    pub fn get(&self, number: u32) -> Option<&Candidate> {
        self.boxes.get(number as usize)
    }

    /// How many of the boxes are proposals, and how many are boxes of the user.
    pub fn counts(&self) -> (usize, usize) {
        let found = self.boxes.iter().filter(|b| b.score.is_some()).count();
        (found, self.boxes.len() - found)
    }

    /// The marks `[K]` of boxes.
    pub fn marks<'a>(&self, boxes: impl IntoIterator<Item = &'a BoxId>) -> Vec<String> {
        let numbers = boxes.into_iter().filter_map(|&id| self.number(id));
        numbers.map(|number| format!("[{number}]")).collect()
    }

    /// The box `step` places after `id` in the order of numbers, around the end; without `id` the
    /// first or the last.
    pub fn neighbor(&self, id: Option<BoxId>, step: isize) -> Option<BoxId> {
        let count = self.boxes.len() as isize;
        let number = id.and_then(|id| self.number(id));
        let next = match number {
            Some(number) => (number as isize + step).checked_rem_euclid(count)?,
            None if step > 0 => 0,
            None => count - 1,
        };
        let next = self.boxes.get(usize::try_from(next).ok()?)?;
        Some(next.id)
    }
}

/// A mark in a draft whose box is gone.
pub const LOST_MARK: &str = "[?]";

/// Rewrites the `[K]` marks of a draft, so that each still means the same box when the candidates
/// change. A mark whose box is gone becomes [`LOST_MARK`].
pub fn renumber(question: &str, before: &Candidates, after: &Candidates) -> String {
    renumber_as(question, before, after, |id| id)
}

/// The same where a box has one identity `before` and another one `after`.
pub fn renumber_as(
    question: &str,
    before: &Candidates,
    after: &Candidates,
    identity: impl Fn(BoxId) -> BoxId,
) -> String {
    replace_marks(question, |number| {
        let now = before
            .get(number)
            .and_then(|b| after.number(identity(b.id)));
        match (now, before.get(number)) {
            (Some(now), _) => format!("[{now}]"),
            (None, Some(_)) => LOST_MARK.to_owned(),
            (None, None) => format!("[{number}]"),
        }
    })
}

/// The same for words with tags `<objK>`.
pub fn renumber_tags(words: &str, before: &Candidates, after: &Candidates) -> String {
    let mut out = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(start) = rest.find("<obj") {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let tag = rest.find('>').map_or(rest.len(), |end| end + 1);
        let number = rest[..tag]
            .strip_prefix("<obj")
            .and_then(|n| n.strip_suffix('>'));
        let named = number
            .and_then(|n| n.parse().ok())
            .and_then(|n| before.get(n));
        match named.map(|b| after.number(b.id)) {
            Some(Some(now)) => out.push_str(&index_tag(now)),
            Some(None) => out.push_str(LOST_MARK),
            None => out.push_str(&rest[..tag]),
        }
        rest = &rest[tag..];
    }
    out.push_str(rest);
    out
}

/// Replaces the `[K]` marks of a question by the tags `<objK>` that the model reads; marks beyond
/// the boxes stay as they are.
pub fn cite(question: &str, candidates: &Candidates) -> String {
    replace_marks(question, |number| match candidates.get(number) {
        Some(_) => index_tag(number),
        None => format!("[{number}]"),
    })
}

fn replace_marks(question: &str, mut with: impl FnMut(u32) -> String) -> String {
    let mut out = String::with_capacity(question.len());
    let mut rest = question;
    while let Some(open) = rest.find('[') {
        out.push_str(&rest[..open]);
        let inside = &rest[open + 1..];
        let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
        match inside[..digits].parse() {
            Ok(number) if inside[digits..].starts_with(']') => {
                out.push_str(&with(number));
                rest = &inside[digits + 1..];
            }
            _ => {
                out.push('[');
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(bbox: [f32; 4], score: f32) -> Proposal {
        Proposal::unlabelled(bbox.into(), score)
    }

    fn own_box(bbox: [f32; 4]) -> OwnBox {
        BoxXyxy::from(bbox).into()
    }

    fn numbers(set: &Candidates) -> Vec<BoxId> {
        set.boxes.iter().map(|b| b.id).collect()
    }

    const NONE: BTreeSet<BoxId> = BTreeSet::new();
    const A: BoxId = BoxId::Found(Granularity::Coarse, 0);
    const B: BoxId = BoxId::Found(Granularity::Coarse, 1);
    const C: BoxId = BoxId::Found(Granularity::Coarse, 2);

    fn three() -> Vec<Proposal> {
        vec![
            proposal([0., 0., 10., 10.], 0.9),
            proposal([0., 0., 10., 9.], 0.8),
            proposal([20., 20., 30., 30.], 0.4),
        ]
    }

    #[test]
    fn filters_by_score_and_overlap_and_appends_boxes_of_the_user() {
        let own = BTreeMap::from([(4, own_box([1., 1., 2., 2.]))]);
        let cases = [
            (0.3, 0.8, vec![A, C, BoxId::Own(4)]),
            (0.3, 0.95, vec![A, B, C, BoxId::Own(4)]),
            (0.3, 1.0, vec![A, B, C, BoxId::Own(4)]),
            (0.5, 0.8, vec![A, BoxId::Own(4)]),
            (1.0, 0.8, vec![BoxId::Own(4)]),
        ];
        for (score, nms, expected) in cases {
            let set = {
                let limits = Filter {
                    score,
                    nms,
                    ..Filter::default()
                };
                Candidates::choose(&three(), Granularity::Coarse, &own, &NONE, limits)
            };
            assert_eq!(numbers(&set), expected, "score {score}, nms {nms}");
            assert_eq!(set.left_out, 0);
        }
    }

    #[test]
    fn kinds_come_with_their_boxes_and_a_raised_score_hides_single_ones() {
        let named = |bbox, score, label: &str| Proposal {
            label: Some(label.to_owned()),
            ..proposal(bbox, score)
        };
        let proposals = [
            named([0., 0., 10., 10.], 0.9, "dog"),
            named([20., 20., 30., 30.], 0.2, "cat"),
            named([40., 20., 50., 30.], 0.2, "dog"),
        ];
        let defaults = Filter {
            score: 0.3,
            nms: 0.5,
            first_of_kind: Some(0.15),
        };
        let labels = |filter: Filter| -> Vec<_> {
            let own = BTreeMap::from([(0, own_box([0., 0., 2., 2.]))]);
            let set = Candidates::choose(&proposals, Granularity::Coarse, &own, &NONE, filter);
            set.boxes.into_iter().map(|b| b.label).collect()
        };
        let (dog, cat) = (Some("dog".to_owned()), Some("cat".to_owned()));
        let cases = [
            (0.3, vec![dog.clone(), cat.clone(), None]),
            (0.1, vec![dog.clone(), cat, dog.clone(), None]),
            (0.31, vec![dog, None]),
            (0.95, vec![None]),
        ];
        for (score, expected) in cases {
            let moved = defaults.with_score(0.99, defaults);
            let filter = moved.with_score(score, defaults);
            assert_eq!(labels(filter), expected, "score {score}");
        }
    }

    #[test]
    fn keeps_the_best_hundred_and_all_boxes_of_the_user() {
        let many: Vec<_> = (0..130)
            .map(|i| {
                let x = i as f32 * 10.0;
                proposal([x, 0., x + 5., 5.], 0.9 - i as f32 * 0.001)
            })
            .collect();
        let own = BTreeMap::from([
            (0, own_box([0., 0., 2., 2.])),
            (1, own_box([0., 0., 3., 3.])),
        ]);
        let set = Candidates::choose(&many, Granularity::Fine, &own, &NONE, Filter::default());
        assert_eq!(set.boxes.len(), MAX_BOXES);
        assert_eq!(set.left_out, 32);
        assert_eq!(set.boxes[98].id, BoxId::Own(0));
        assert_eq!(set.boxes[97].id, BoxId::Found(Granularity::Fine, 97));
    }

    #[test]
    fn removed_proposals_are_left_out_and_no_other_takes_their_place() {
        let own = BTreeMap::new();
        let ids = |removed: &[BoxId]| {
            let removed = removed.iter().copied().collect();
            let limits = Filter::default();
            numbers(&Candidates::choose(
                &three(),
                Granularity::Coarse,
                &own,
                &removed,
                limits,
            ))
        };
        let fine = BoxId::Found(Granularity::Fine, 0);
        let cases = [
            (vec![], vec![A, C]),
            (vec![fine], vec![A, C]),
            (vec![A], vec![C]),
            (vec![A, B, C], vec![]),
        ];
        for (removed, expected) in cases {
            assert_eq!(ids(&removed), expected, "{removed:?}");
        }
        let many: Vec<_> = (0..130)
            .map(|i| proposal([i as f32 * 10.0, 0., i as f32 * 10.0 + 5., 5.], 0.9))
            .collect();
        let removed = BTreeSet::from([A, C]);
        let limits = Filter::default();
        let set = Candidates::choose(&many, Granularity::Coarse, &own, &removed, limits);
        assert_eq!((set.boxes.len(), set.left_out), (MAX_BOXES, 28));
    }

    #[test]
    fn marks_follow_their_boxes_and_become_tags() {
        let own = BTreeMap::new();
        let wide = Filter {
            score: 0.3,
            nms: 1.0,
            ..Filter::default()
        };
        let before = Candidates::choose(&three(), Granularity::Coarse, &own, &NONE, wide);
        let after = Candidates::choose(
            &three(),
            Granularity::Coarse,
            &own,
            &NONE,
            Filter::default(),
        );
        let cases = [
            ("what is [2]?", "what is [1]?"),
            ("[0] or [1]", "[0] or [?]"),
            ("[7] [x] [ [2", "[7] [x] [ [2"),
        ];
        for (question, expected) in cases {
            assert_eq!(renumber(question, &before, &after), expected);
        }
        for (words, expected) in [
            ("is <obj2> red? <obj1>", "is <obj1> red? [?]"),
            ("<obj7> <objx> <obj", "<obj7> <objx> <obj"),
        ] {
            assert_eq!(renumber_tags(words, &before, &after), expected);
        }
        let as_last = |id| if id == B { C } else { id };
        let question = renumber_as("[0] or [1]", &before, &after, as_last);
        assert_eq!(question, "[0] or [1]");
        assert_eq!(
            cite("is [1] left of [9]? [a", &after),
            "is <obj1> left of [9]? [a"
        );
    }

    #[test]
    fn neighbors_go_around_and_marks_skip_unknown_boxes() {
        let own = BTreeMap::from([(4, own_box([1., 1., 2., 2.]))]);
        let set = Candidates::choose(
            &three(),
            Granularity::Coarse,
            &own,
            &NONE,
            Filter::default(),
        );
        let last = BoxId::Own(4);
        let cases = [
            (None, 1, Some(A)),
            (None, -1, Some(last)),
            (Some(A), 1, Some(C)),
            (Some(A), -1, Some(last)),
            (Some(last), 1, Some(A)),
            (Some(B), 1, Some(A)),
        ];
        for (id, step, expected) in cases {
            assert_eq!(set.neighbor(id, step), expected, "{id:?} {step}");
        }
        assert_eq!(Candidates::default().neighbor(None, 1), None);
        assert_eq!(Candidates::default().neighbor(None, -1), None);
        assert_eq!(set.marks(&[A, B, last]), ["[0]", "[2]"]);
        assert_eq!(set.counts(), (2, 1));
    }
}
