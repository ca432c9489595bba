//! What is drawn over the picture: which boxes, how they are named, which are lit; and which box
//! lies under the pointer.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::chat::answer::Phrase;
use crate::chat::candidates::{BoxId, Candidate, Candidates};
use crate::geometry::BoxXyxy;
use crate::protocol::TurnId;

/// Which boxes are drawn when nothing is pointed at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Every candidate.
    #[default]
    All,
    /// Those the answer in view mentions.
    Mentioned,
    /// Those selected.
    Selected,
    /// None.
    Nothing,
}

/// Boxes pointed at together: by a phrase of an answer, or by a row or box alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Highlight {
    /// The turn whose phrase it is.
    pub turn: Option<TurnId>,
    /// The boxes.
    pub boxes: BTreeSet<BoxId>,
}

impl Highlight {
    /// One box, pointed at directly.
    pub fn one(id: BoxId) -> Self {
        Self {
            turn: None,
            boxes: BTreeSet::from([id]),
        }
    }
}

/// The phrases of one answer and the boxes it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Mentions {
    /// The turn.
    pub turn: TurnId,
    /// Its frozen boxes.
    pub boxes: Arc<Candidates>,
    /// Its phrases, in order.
    pub phrases: Vec<Phrase>,
}

impl Mentions {
    /// The boxes a phrase names.
    pub fn cite(&self, objects: &[u32]) -> Highlight {
        let ids = objects.iter().filter_map(|&o| self.boxes.get(o));
        Highlight {
            turn: Some(self.turn),
            boxes: ids.map(|b| b.id).collect(),
        }
    }

    /// The first phrase that names a box of this number.
    fn first_phrase(&self, number: u32) -> Option<&Phrase> {
        self.phrases.iter().find(|p| p.objects.contains(&number))
    }
}

/// A box as it is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnBox {
    /// The box.
    pub id: BoxId,
    /// The number written on it.
    pub number: u32,
    /// Corners in order, in pixels of the picture; may hang over its edge.
    pub bbox: BoxXyxy,
    /// The proposal's score.
    pub score: Option<f32>,
    /// Words of the answer that name it.
    pub label: Option<String>,
    /// Place in the palette; none for a box no answer in view names.
    pub hue: Option<usize>,
    /// Dash style.
    pub dash: usize,
    /// Pointed at.
    pub lit: bool,
    /// Others are pointed at.
    pub dim: bool,
    /// Selected.
    pub selected: bool,
}

/// What is pointed at and what is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// Which boxes are drawn when nothing is pointed at.
    pub show: Visibility,
    hover: Option<Highlight>,
    pinned: Option<Highlight>,
    selection: BTreeSet<BoxId>,
}

impl Overlay {
    /// The pointer or the keyboard focus is on something, or on nothing; true if that is news.
    pub fn hover(&mut self, cite: Option<Highlight>) -> bool {
        let news = self.hover != cite;
        self.hover = cite;
        news
    }

    /// Keeps `cite` lit; a second time lets it go.
    pub fn pin(&mut self, cite: Highlight) {
        self.pinned = (self.pinned.as_ref() != Some(&cite)).then_some(cite);
    }

    /// Whether `cite` is kept lit.
    pub fn is_pinned(&self, cite: &Highlight) -> bool {
        self.pinned.as_ref() == Some(cite)
    }

    /// Selects a box alone, or with `extend` adds or removes it. Alone a second time lets it go.
    pub fn select(&mut self, id: BoxId, extend: bool) {
        let alone = self.selection.len() == 1 && self.selection.contains(&id);
        if extend {
            if !self.selection.remove(&id) {
                self.selection.insert(id);
            }
        } else {
            self.selection.clear();
            if !alone {
                self.selection.insert(id);
            }
        }
    }

    /// The selected boxes.
    pub fn selection(&self) -> &BTreeSet<BoxId> {
        &self.selection
    }

    /// The only selected box.
    pub fn selected(&self) -> Option<BoxId> {
        self.selection
            .first()
            .copied()
            .filter(|_| self.selection.len() == 1)
    }

    /// Lets go of the selection, else of the pin, else of the hover; false if there was none.
    pub fn escape(&mut self) -> bool {
        if !self.selection.is_empty() {
            self.selection.clear();
            true
        } else {
            self.pinned.take().is_some() || self.hover.take().is_some()
        }
    }

    /// A box is no more.
    pub fn forget(&mut self, id: BoxId) {
        self.selection.remove(&id);
        for cite in [&mut self.hover, &mut self.pinned] {
            if cite.as_ref().is_some_and(|c| c.boxes.contains(&id)) {
                *cite = None;
            }
        }
    }

    /// Another picture: nothing is pointed at, all boxes are shown.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What is lit: the selection before the pin before the hover.
    pub fn highlighted(&self) -> BTreeSet<BoxId> {
        let cite = self.pinned.as_ref().or(self.hover.as_ref());
        match cite {
            _ if !self.selection.is_empty() => self.selection.clone(),
            Some(cite) => cite.boxes.clone(),
            None => BTreeSet::new(),
        }
    }

    /// The turn whose phrase is pointed at.
    pub fn turn(&self) -> Option<TurnId> {
        let cite = self.hover.as_ref().or(self.pinned.as_ref())?;
        cite.turn
    }

    /// The boxes to draw: the shown ones of `live`, those
    /// `mentions` names, and whatever is pointed at.
    pub fn marks(&self, live: &Candidates, mentions: Option<&Mentions>) -> Vec<DrawnBox> {
        let lit = self.highlighted();
        let hovered = self.hover.as_ref();
        let frozen = mentions.map(|m| m.boxes.as_ref());
        let only_frozen = |b: &&Candidate| live.number(b.id).is_none();
        let extra = frozen
            .into_iter()
            .flat_map(|f| f.boxes.iter().filter(only_frozen));
        let candidates = live.boxes.iter().chain(extra);
        candidates
            .filter_map(|candidate| {
                let id = candidate.id;
                let now = live.number(id);
                let then = frozen.and_then(|f| f.number(id));
                let phrase = mentions.and_then(|m| m.first_phrase(then?));
                let pointed = lit.contains(&id) || hovered.is_some_and(|c| c.boxes.contains(&id));
                let shown = match self.show {
                    Visibility::All => now.is_some(),
                    Visibility::Mentioned => {
                        phrase.is_some() || (mentions.is_none() && now.is_some())
                    }
                    Visibility::Selected | Visibility::Nothing => false,
                };
                if !shown && !pointed {
                    return None;
                }
                let by_answer = phrase.is_some() && (self.show != Visibility::All || pointed);
                let number = if by_answer {
                    then.or(now)
                } else {
                    now.or(then)
                };
                Some(DrawnBox {
                    id,
                    number: number?,
                    bbox: upright(candidate.bbox),
                    score: candidate.score,
                    label: phrase.map(|p| p.text.trim().to_owned()),
                    hue: phrase.map(Phrase::hue),
                    dash: phrase.map_or(0, Phrase::dash),
                    lit: lit.contains(&id),
                    dim: !lit.is_empty() && !pointed,
                    selected: self.selection.contains(&id),
                })
            })
            .collect()
    }
}

/// The smallest mark under a point; `slack` picture pixels are added around each box, so that
/// tiny ones can be hit.
pub fn hit(marks: &[DrawnBox], (x, y): (f32, f32), slack: f32) -> Option<BoxId> {
    let holds = |mark: &&DrawnBox| {
        let b = &mark.bbox;
        x >= b.x1 - slack && x <= b.x2 + slack && y >= b.y1 - slack && y <= b.y2 + slack
    };
    let smallest = |a: &&DrawnBox, b: &&DrawnBox| a.bbox.area().total_cmp(&b.bbox.area());
    marks.iter().filter(holds).min_by(smallest).map(|m| m.id)
}

fn upright(b: BoxXyxy) -> BoxXyxy {
    BoxXyxy {
        x1: b.x1.min(b.x2),
        y1: b.y1.min(b.y2),
        x2: b.x1.max(b.x2),
        y2: b.y1.max(b.y2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Granularity;

    fn id(rank: u32) -> BoxId {
        BoxId::Found(Granularity::Coarse, rank)
    }

    /// Boxes by rank; each is a square of side `10 + 10 * rank` at the origin.
    fn set(ranks: &[u32]) -> Candidates {
        let candidate = |&rank: &u32| Candidate {
            id: id(rank),
            bbox: [0., 0., 10. + 10. * rank as f32, 10. + 10. * rank as f32].into(),
            score: Some(0.5),
        };
        Candidates {
            boxes: ranks.iter().map(candidate).collect(),
            left_out: 0,
        }
    }

    fn phrase(text: &str, objects: &[u32], rank: usize) -> Phrase {
        Phrase {
            text: text.into(),
            objects: objects.to_vec(),
            missing: 0,
            rank,
        }
    }

    /// An answer over boxes 0, 2, 3 that names 2 (as number 1) and 3 (as number 2).
    fn mentions() -> Mentions {
        Mentions {
            turn: TurnId(7),
            boxes: Arc::new(set(&[0, 2, 3])),
            phrases: vec![phrase("cat", &[1], 0), phrase("dog", &[2], 9)],
        }
    }

    fn drawn(
        overlay: &Overlay,
        live: &Candidates,
        mentions: Option<&Mentions>,
    ) -> Vec<(u32, bool)> {
        let marks = overlay.marks(live, mentions);
        marks.iter().map(|m| (m.number, m.lit)).collect()
    }

    #[test]
    fn each_way_of_showing_draws_its_boxes() {
        let live = set(&[0, 1, 2, 3]);
        let said = mentions();
        let cases = [
            (Visibility::All, Some(&said), vec![0, 1, 2, 3]),
            (Visibility::Mentioned, Some(&said), vec![1, 2]),
            (Visibility::Mentioned, None, vec![0, 1, 2, 3]),
            (Visibility::Selected, Some(&said), vec![0]),
            (Visibility::Nothing, None, vec![0]),
        ];
        for (show, mentions, expected) in cases {
            let mut overlay = Overlay {
                show,
                ..Overlay::default()
            };
            if matches!(show, Visibility::Selected | Visibility::Nothing) {
                overlay.select(id(0), false);
            }
            let numbers: Vec<_> = drawn(&overlay, &live, mentions);
            let numbers: Vec<_> = numbers.into_iter().map(|(n, _)| n).collect();
            assert_eq!(numbers, expected, "{show:?}");
        }
    }

    #[test]
    fn a_phrase_lights_its_own_boxes_even_after_the_filters_dropped_them() {
        let said = mentions();
        let live = set(&[0, 1]);
        let mut overlay = Overlay::default();
        overlay.hover(Some(said.cite(&[2])));
        let marks = overlay.marks(&live, Some(&said));
        let lit: Vec<_> = marks.iter().filter(|m| m.lit).collect();
        assert_eq!(lit.len(), 1);
        assert_eq!((lit[0].id, lit[0].number), (id(3), 2));
        assert_eq!((lit[0].hue, lit[0].dash), (Some(2), 1));
        assert!(marks.iter().all(|m| m.lit != m.dim));
        assert_eq!(overlay.turn(), Some(TurnId(7)));
        assert!(said.cite(&[55]).boxes.is_empty());
    }

    #[test]
    fn selection_goes_before_pin_before_hover_and_escape_undoes_in_that_order() {
        let said = mentions();
        let mut overlay = Overlay::default();
        overlay.hover(Some(Highlight::one(id(0))));
        overlay.pin(said.cite(&[1]));
        overlay.select(id(3), false);
        overlay.select(id(1), true);
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(1), id(3)]));
        assert_eq!(overlay.selected(), None);
        assert!(overlay.escape());
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(2)]));
        assert!(overlay.is_pinned(&said.cite(&[1])));
        assert!(overlay.escape());
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(0)]));
        overlay.forget(id(0));
        assert!(!overlay.escape());
    }

    #[test]
    fn pin_and_select_are_switches() {
        let said = mentions();
        let mut overlay = Overlay::default();
        overlay.pin(said.cite(&[1]));
        overlay.pin(said.cite(&[2]));
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(3)]));
        overlay.pin(said.cite(&[2]));
        assert!(overlay.highlighted().is_empty());
        overlay.select(id(2), false);
        overlay.select(id(1), false);
        assert_eq!(overlay.selected(), Some(id(1)));
        overlay.select(id(1), false);
        assert!(overlay.selection().is_empty());
    }

    #[test]
    fn the_smallest_box_under_the_pointer_is_hit() {
        let overlay = Overlay::default();
        let mut live = set(&[2, 0, 1]);
        live.boxes[0].bbox = [-20., 30., 130., -5.].into();
        let marks = overlay.marks(&live, None);
        assert_eq!(marks[0].bbox, [-20., -5., 130., 30.].into());
        let cases = [
            ((5., 5.), 0.0, Some(id(0))),
            ((15., 5.), 0.0, Some(id(1))),
            ((15., 5.), 6.0, Some(id(0))),
            ((90., 25.), 0.0, Some(id(2))),
            ((90., 90.), 0.0, None),
        ];
        for (point, slack, expected) in cases {
            assert_eq!(hit(&marks, point, slack), expected, "{point:?} {slack}");
        }
    }
}
