//! The boxes over the picture: which are drawn, their labels, which are highlighted, and which one is
//! under the pointer.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::chat::answer::{AnswerPiece, Phrase};
use crate::chat::box_drawing::{Point, between};
use crate::chat::box_history::BoxEdits;
use crate::chat::candidates::{BoxId, Candidate, Candidates};
use crate::chat::conversation::Turn;
use crate::chat::words::{self, say};
use crate::geometry::BoxXyxy;
use crate::protocol::TurnId;

/// Which boxes are drawn while none is highlighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Every candidate.
    #[default]
    All,
    /// Those that the shown answer names.
    Mentioned,
    /// The selected ones.
    Selected,
    /// None.
    Nothing,
}

/// Boxes that are highlighted together: those of a phrase of an answer, or a single box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Highlight {
    /// The turn of the phrase.
    pub turn: Option<TurnId>,
    /// The boxes.
    pub boxes: BTreeSet<BoxId>,
}

impl Highlight {
    /// A single box.
    pub fn one(id: BoxId) -> Self {
        Self {
            turn: None,
            boxes: BTreeSet::from([id]),
        }
    }
}

/// The phrases of one answer and the boxes of its question.
#[derive(Clone, Debug, PartialEq)]
pub struct Mentions {
    /// The turn.
    pub turn: TurnId,
    /// The boxes of its question.
    pub boxes: Arc<Candidates>,
    /// Its phrases, in order.
    pub phrases: Vec<Phrase>,
}

impl Mentions {
    /// The phrases of a turn that name boxes; `None` if there are none.
    pub fn of(turn: &Turn) -> Option<Self> {
        let boxes = turn.boxes.as_ref()?;
        let phrases: Vec<_> = (turn.pieces().into_iter())
            .filter_map(|piece| match piece {
                AnswerPiece::Phrase(phrase) if !phrase.objects.is_empty() => Some(phrase),
                _ => None,
            })
            .collect();
        (!phrases.is_empty()).then(|| Self {
            turn: turn.id,
            boxes: Arc::clone(boxes),
            phrases,
        })
    }

    /// The boxes that a phrase names.
    pub fn highlight(&self, objects: &[u32]) -> Highlight {
        let ids = objects.iter().filter_map(|&o| self.boxes.get(o));
        Highlight {
            turn: Some(self.turn),
            boxes: ids.map(|b| b.id).collect(),
        }
    }

    /// The first phrase that names a box.
    pub fn phrase_of(&self, id: BoxId) -> Option<&Phrase> {
        let number = self.boxes.number(id)?;
        self.phrases.iter().find(|p| p.objects.contains(&number))
    }
}

/// A box as it is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnBox {
    /// Its identity.
    pub id: BoxId,
    /// The number on its label.
    pub number: u32,
    /// Corners in order, in pixels of the picture; may exceed the picture.
    pub bbox: BoxXyxy,
    /// The proposal's score.
    pub score: Option<f32>,
    /// The kind that a detector says it is.
    pub kind: Option<String>,
    /// The phrase of the shown answer that names it.
    pub label: Option<String>,
    /// Index in the palette; `None` for a box that the shown answer does not name.
    pub hue: Option<usize>,
    /// Dash style.
    pub dash: usize,
    /// Whether it is highlighted.
    pub highlighted: bool,
    /// Whether only others are highlighted.
    pub dim: bool,
    /// Whether it is selected.
    pub selected: bool,
    /// Whether it is highlighted or hovered.
    pub pointed: bool,
}

/// Labels longer than this many characters are cut.
const LABEL_CHARS: usize = 26;

/// Boxes narrower than this many screen pixels show their number only.
const MIN_LABEL_WIDTH: f32 = 40.0;

impl DrawnBox {
    /// The words on its label beside the number: the phrase of the answer, else kind and score; empty
    /// where the box is too narrow. `scale` is screen pixels per picture pixel.
    pub fn words(&self, scale: f32) -> String {
        let is_wide = (self.bbox.x2 - self.bbox.x1) * scale >= MIN_LABEL_WIDTH;
        match (&self.label, &self.kind) {
            (Some(name), _) | (None, Some(name)) if is_wide || self.highlighted => {
                let cut: String = name.chars().take(LABEL_CHARS).collect();
                let more = if cut.len() < name.len() { "…" } else { "" };
                let score = self.score.filter(|_| self.label.is_none());
                let score = score
                    .map(|score| format!(" {score:.2}"))
                    .unwrap_or_default();
                format!("{cut}{more}{score}")
            }
            _ => String::new(),
        }
    }

    /// Which labels are placed first: those of highlighted boxes, then of the answer and of the user.
    pub fn label_rank(&self) -> u8 {
        match self {
            Self { pointed: true, .. } => 0,
            Self { label: Some(_), .. } => 1,
            Self {
                id: BoxId::Own(_), ..
            } => 2,
            _ => 3,
        }
    }

    /// Number, label or kind, and score in a line.
    pub fn description(&self) -> String {
        let number = self.number;
        let label = self
            .label
            .iter()
            .chain(&self.kind)
            .take(1)
            .map(|label| format!(" · {label}"));
        let score = match self.score {
            Some(score) => format!(" · {}", words::number(f64::from(score), 2)),
            None => say!(" · yours", " · 你的"),
        };
        let label: String = label.collect();
        say!("Box {number}{label}{score}", "{number} 号框{label}{score}")
    }
}

/// What is highlighted, selected and shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// Which boxes are drawn while none is highlighted.
    pub show: Visibility,
    hover: Option<Highlight>,
    pinned: Option<Highlight>,
    selection: BTreeSet<BoxId>,
    /// Where the last click on the picture was, in picture pixels.
    clicked: Option<Point>,
}

impl Overlay {
    /// The pointer or the keyboard focus is on `highlight`, or on nothing; true if that changed.
    pub fn hover(&mut self, highlight: Option<Highlight>) -> bool {
        let changed = self.hover != highlight;
        self.hover = highlight;
        changed
    }

    /// Toggles whether `highlight` stays highlighted without the pointer.
    pub fn pin(&mut self, highlight: Highlight) {
        self.pinned = (self.pinned.as_ref() != Some(&highlight)).then_some(highlight);
    }

    /// Whether `highlight` is pinned.
    pub fn is_pinned(&self, highlight: &Highlight) -> bool {
        self.pinned.as_ref() == Some(highlight)
    }

    /// Selects a box alone, or with `extend` adds or removes it. The only selected box is deselected
    /// by a second time.
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

    /// Selects these boxes and no others.
    pub fn select_all(&mut self, ids: impl IntoIterator<Item = BoxId>) {
        self.selection = ids.into_iter().collect();
    }

    /// A click at a point, in picture pixels, on the boxes `hits`, the smallest first. Selects the
    /// smallest; further clicks within `slack` picture pixels go to the next larger one, around the
    /// end. With `extend` the smallest joins or leaves the selection. Beside all boxes the selection
    /// ends, else what is pinned.
    pub fn click(&mut self, hits: &[BoxId], at: Point, slack: f32, extend: bool) {
        let again = self
            .clicked
            .is_some_and(|(x, y)| (x - at.0).abs().max((y - at.1).abs()) <= slack);
        if !again {
            self.clicked = Some(at);
        }
        let Some(&smallest) = hits.first() else {
            self.escape();
            return;
        };
        if extend {
            self.select(smallest, true);
            return;
        }
        let selected = self.selected().filter(|_| again);
        let place = selected.and_then(|id| hits.iter().position(|&hit| hit == id));
        let next = place.map_or(smallest, |place| hits[(place + 1) % hits.len()]);
        self.select_all([next]);
    }

    /// Deselects the boxes that are gone.
    pub fn keep_selected(&mut self, is_there: impl Fn(BoxId) -> bool) {
        self.selection.retain(|&id| is_there(id));
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

    /// Clears the selection, else the pin, else the hover; false if there was none.
    pub fn escape(&mut self) -> bool {
        if !self.selection.is_empty() {
            self.selection.clear();
            true
        } else {
            self.pinned.take().is_some() || self.hover.take().is_some()
        }
    }

    /// A box of the user was drawn: only it is selected.
    pub fn on_drawn(&mut self, id: BoxId) {
        while self.escape() {}
        self.select(id, false);
    }

    /// A box was deleted.
    pub fn remove(&mut self, id: BoxId) {
        self.selection.remove(&id);
        for highlight in [&mut self.hover, &mut self.pinned] {
            if highlight.as_ref().is_some_and(|h| h.boxes.contains(&id)) {
                *highlight = None;
            }
        }
    }

    /// An answer is complete: if it names boxes and all boxes are shown, only the named ones stay.
    pub fn on_answer(&mut self, names_boxes: bool) {
        if names_boxes && self.show == Visibility::All {
            self.show = Visibility::Mentioned;
        }
    }

    /// Another picture is shown: nothing is highlighted, all boxes are drawn.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The highlighted boxes: those of the selection, else of the pin, else of the hover.
    pub fn highlighted(&self) -> BTreeSet<BoxId> {
        let highlight = self.pinned.as_ref().or(self.hover.as_ref());
        match highlight {
            _ if !self.selection.is_empty() => self.selection.clone(),
            Some(highlight) => highlight.boxes.clone(),
            None => BTreeSet::new(),
        }
    }

    /// The turn whose phrase is highlighted.
    pub fn turn(&self) -> Option<TurnId> {
        let highlight = self.hover.as_ref().or(self.pinned.as_ref())?;
        highlight.turn
    }

    /// The boxes to draw: the visible ones of the candidates `live`, those that the answer
    /// `mentions`, and the highlighted ones.
    pub fn drawn_boxes(&self, live: &Candidates, mentions: Option<&Mentions>) -> Vec<DrawnBox> {
        let highlighted = self.highlighted();
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
                let phrase = mentions.and_then(|m| m.phrase_of(id));
                let pointed =
                    highlighted.contains(&id) || hovered.is_some_and(|h| h.boxes.contains(&id));
                let shown = match self.show {
                    Visibility::All => now.is_some(),
                    Visibility::Mentioned => {
                        let own = matches!(id, BoxId::Own(_));
                        phrase.is_some() || (now.is_some() && (own || mentions.is_none()))
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
                    bbox: {
                        let b = candidate.bbox;
                        between((b.x1, b.y1), (b.x2, b.y2))
                    },
                    score: candidate.score,
                    kind: candidate.label.clone(),
                    label: phrase.map(|p| p.text.trim().to_owned()),
                    hue: phrase.map(Phrase::hue),
                    dash: phrase.map_or(0, Phrase::dash),
                    highlighted: highlighted.contains(&id),
                    dim: !highlighted.is_empty() && !pointed,
                    selected: self.selection.contains(&id),
                    pointed,
                })
            })
            .collect()
    }
}

/// The boxes under a point, the smallest first; `slack` picture pixels are added around each box, so
/// that tiny ones can be hit.
pub fn hits(boxes: &[DrawnBox], (x, y): Point, slack: f32) -> Vec<BoxId> {
    let contains = |drawn: &&DrawnBox| {
        let b = &drawn.bbox;
        x >= b.x1 - slack && x <= b.x2 + slack && y >= b.y1 - slack && y <= b.y2 + slack
    };
    let mut under: Vec<_> = boxes.iter().filter(contains).collect();
    under.sort_by(|a, b| a.bbox.area().total_cmp(&b.bbox.area()));
    under.into_iter().map(|drawn| drawn.id).collect()
}

/// The smallest box under a point, as in [`hits`].
pub fn hit(boxes: &[DrawnBox], point: Point, slack: f32) -> Option<BoxId> {
    hits(boxes, point, slack).first().copied()
}

/// Leaves out the boxes that the user removed or hid, unless they are highlighted or hovered.
pub fn without_hidden(boxes: Vec<DrawnBox>, edits: &BoxEdits) -> Vec<DrawnBox> {
    let is_hidden = |id: &BoxId| edits.hidden.contains(id) || edits.removed.contains(id);
    boxes
        .into_iter()
        .filter(|b| b.pointed || !is_hidden(&b.id))
        .collect()
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
            label: None,
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
            edited: false,
            open: false,
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
        let boxes = overlay.drawn_boxes(live, mentions);
        boxes.iter().map(|b| (b.number, b.highlighted)).collect()
    }

    #[test]
    fn each_visibility_draws_its_boxes() {
        let live = set(&[0, 1, 2, 3]);
        let answer = mentions();
        let cases = [
            (Visibility::All, Some(&answer), vec![0, 1, 2, 3]),
            (Visibility::Mentioned, Some(&answer), vec![1, 2]),
            (Visibility::Mentioned, None, vec![0, 1, 2, 3]),
            (Visibility::Selected, Some(&answer), vec![0]),
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
    fn a_phrase_highlights_its_boxes_even_after_the_filters_dropped_them() {
        let answer = mentions();
        let live = set(&[0, 1]);
        let mut overlay = Overlay::default();
        overlay.hover(Some(answer.highlight(&[2])));
        let boxes = overlay.drawn_boxes(&live, Some(&answer));
        let lit: Vec<_> = boxes.iter().filter(|b| b.highlighted).collect();
        assert_eq!(lit.len(), 1);
        assert_eq!((lit[0].id, lit[0].number), (id(3), 2));
        assert_eq!((lit[0].hue, lit[0].dash), (Some(2), 1));
        assert!(boxes.iter().all(|b| b.highlighted != b.dim));
        assert_eq!(overlay.turn(), Some(TurnId(7)));
        assert!(answer.highlight(&[55]).boxes.is_empty());
    }

    #[test]
    fn selection_precedes_pin_and_hover_and_escape_clears_them_in_that_order() {
        let answer = mentions();
        let mut overlay = Overlay::default();
        overlay.hover(Some(Highlight::one(id(0))));
        overlay.pin(answer.highlight(&[1]));
        overlay.select(id(3), false);
        overlay.select(id(1), true);
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(1), id(3)]));
        assert_eq!(overlay.selected(), None);
        assert!(overlay.escape());
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(2)]));
        assert!(overlay.is_pinned(&answer.highlight(&[1])));
        assert!(overlay.escape());
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(0)]));
        overlay.remove(id(0));
        assert!(!overlay.escape());
    }

    #[test]
    fn pin_and_select_toggle() {
        let answer = mentions();
        let mut overlay = Overlay::default();
        overlay.pin(answer.highlight(&[1]));
        overlay.pin(answer.highlight(&[2]));
        assert_eq!(overlay.highlighted(), BTreeSet::from([id(3)]));
        overlay.pin(answer.highlight(&[2]));
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
        let boxes = overlay.drawn_boxes(&live, None);
        assert_eq!(boxes[0].bbox, [-20., -5., 130., 30.].into());
        let cases = [
            ((5., 5.), 0.0, Some(id(0))),
            ((15., 5.), 0.0, Some(id(1))),
            ((15., 5.), 6.0, Some(id(0))),
            ((90., 25.), 0.0, Some(id(2))),
            ((90., 90.), 0.0, None),
        ];
        for (point, slack, expected) in cases {
            assert_eq!(hit(&boxes, point, slack), expected, "{point:?} {slack}");
        }
    }

    #[test]
    fn further_clicks_on_the_same_point_go_outwards() {
        let mut overlay = Overlay::default();
        let all = [id(0), id(1), id(2)];
        let cases = [
            (&all[..], (5., 5.), false, vec![id(0)]),
            (&all, (5.5, 5.), false, vec![id(1)]),
            (&all, (5., 5.), false, vec![id(2)]),
            (&all, (5., 5.), false, vec![id(0)]),
            (&all[1..], (15., 5.), false, vec![id(1)]),
            (&all, (5., 5.), false, vec![id(0)]),
            (&all[..1], (5., 5.), false, vec![id(0)]),
            (&all[2..], (25., 5.), true, vec![id(0), id(2)]),
            (&all[2..], (25., 5.), true, vec![id(0)]),
            (&[], (90., 90.), false, vec![]),
        ];
        for (hits, at, extend, expected) in cases {
            overlay.click(hits, at, 2.0, extend);
            let selected: Vec<_> = overlay.selection().iter().copied().collect();
            assert_eq!(selected, expected, "{hits:?} at {at:?}");
        }
        overlay.select_all(all);
        overlay.keep_selected(|b| b != id(1));
        assert_eq!(*overlay.selection(), BTreeSet::from([id(0), id(2)]));
    }

    #[test]
    fn boxes_of_the_user_are_always_shown_and_hidden_ones_only_when_pointed_at() {
        let own = BoxId::Own(0);
        let mut live = set(&[0, 1]);
        live.boxes.push(Candidate {
            id: own,
            bbox: [0., 0., 5., 5.].into(),
            score: None,
            label: None,
        });
        let answer = mentions();
        let cases = [
            (Visibility::All, true),
            (Visibility::Mentioned, true),
            (Visibility::Selected, false),
            (Visibility::Nothing, false),
        ];
        for (show, expected) in cases {
            let overlay = Overlay {
                show,
                ..Overlay::default()
            };
            let boxes = overlay.drawn_boxes(&live, Some(&answer));
            assert_eq!(boxes.iter().any(|b| b.id == own), expected, "{show:?}");
        }
        let edits = BoxEdits {
            hidden: BTreeSet::from([own]),
            removed: BTreeSet::from([id(3)]),
            ..BoxEdits::default()
        };
        let mut overlay = Overlay::default();
        let shown = |overlay: &Overlay| -> Vec<_> {
            let boxes = overlay.drawn_boxes(&live, Some(&answer));
            let boxes = without_hidden(boxes, &edits);
            boxes.into_iter().map(|b| b.id).collect()
        };
        assert_eq!(shown(&overlay), [id(0), id(1)]);
        overlay.hover(Some(Highlight::one(own)));
        assert_eq!(shown(&overlay), [id(0), id(1), own]);
        overlay.hover(Some(answer.highlight(&[2])));
        assert_eq!(shown(&overlay), [id(0), id(1), id(3)]);
    }

    #[test]
    fn labels_are_cut_to_the_box_and_described_in_a_line() {
        let drawn = |label: Option<&str>, width, highlighted, score| DrawnBox {
            id: id(3),
            number: 3,
            bbox: [0., 0., width, 9.].into(),
            score,
            kind: None,
            label: label.map(str::to_owned),
            hue: None,
            dash: 0,
            highlighted,
            dim: false,
            selected: false,
            pointed: highlighted,
        };
        let long = "a very long phrase about a cat";
        let cases = [
            (drawn(None, 90., false, Some(0.5)), "", "Box 3 · 0.50"),
            (
                drawn(Some("cat"), 90., false, None),
                "cat",
                "Box 3 · cat · yours",
            ),
            (
                drawn(Some("cat"), 10., false, Some(0.25)),
                "",
                "Box 3 · cat · 0.25",
            ),
            (
                drawn(Some("cat"), 10., true, None),
                "cat",
                "Box 3 · cat · yours",
            ),
            (
                drawn(Some(long), 90., false, None),
                "a very long phrase about a…",
                "Box 3 · a very long phrase about a cat · yours",
            ),
            (drawn(None, 90., true, None), "", "Box 3 · yours"),
        ];
        for (drawn, words, description) in cases {
            assert_eq!(drawn.words(1.0), words);
            assert_eq!(drawn.description(), description);
        }
        assert_eq!(drawn(Some("cat"), 10., false, None).words(4.0), "cat");
    }

    #[test]
    fn a_box_shows_kind_and_score_until_an_answer_names_it() {
        let mut live = set(&[3]);
        live.boxes[0].label = Some("dog".into());
        let overlay = Overlay::default();
        let only = |mentions| {
            let boxes = overlay.drawn_boxes(&live, mentions);
            let [drawn] = &boxes[..] else {
                panic!("one box");
            };
            (drawn.words(2.0), drawn.words(0.5), drawn.description())
        };
        let texts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(only(None), texts("dog 0.50", "", "Box 0 · dog · 0.50"));
        let answer = Mentions {
            turn: TurnId(7),
            boxes: Arc::new(live.clone()),
            phrases: vec![phrase("a brown dog", &[0], 0)],
        };
        let named = texts("a brown dog", "", "Box 0 · a brown dog · 0.50");
        assert_eq!(only(Some(&answer)), named);
    }

    #[test]
    fn an_answer_that_names_boxes_hides_the_others_once() {
        let cases = [
            (Visibility::All, true, Visibility::Mentioned),
            (Visibility::All, false, Visibility::All),
            (Visibility::Selected, true, Visibility::Selected),
            (Visibility::Nothing, true, Visibility::Nothing),
        ];
        for (show, names_boxes, expected) in cases {
            let mut overlay = Overlay {
                show,
                ..Overlay::default()
            };
            overlay.on_answer(names_boxes);
            assert_eq!(overlay.show, expected, "{show:?} {names_boxes}");
        }
    }

    #[test]
    fn a_drawn_box_is_the_only_selected_one() {
        let mut overlay = Overlay::default();
        overlay.pin(mentions().highlight(&[1]));
        overlay.select(id(0), false);
        overlay.select(id(1), true);
        overlay.on_drawn(BoxId::Own(0));
        assert_eq!(overlay.selected(), Some(BoxId::Own(0)));
        assert_eq!(overlay.highlighted(), BTreeSet::from([BoxId::Own(0)]));
    }
}
