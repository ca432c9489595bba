//! The boxes to export: which ones, with which numbers and labels.

use std::collections::BTreeSet;

use crate::chat::candidates::{BoxId, Candidate, Candidates};
use crate::chat::conversation::Turn;
use crate::chat::overlay::Mentions;
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// The category of boxes without a label, where they are exported.
pub const OBJECT: &str = "object";

/// Which boxes are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every candidate.
    #[default]
    All,
    /// Those drawn in the picture now.
    Shown,
    /// Those that an answer of the conversation names.
    Mentioned,
    /// Those of the user.
    Own,
    /// The selected ones.
    Selected,
}

/// What happens to boxes without a label in a format that needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlabelled {
    /// They get the label [`OBJECT`].
    AsObject,
    /// They are left out.
    LeaveOut,
}

/// The state of the page that boxes are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// File name of the picture.
    pub name: &'a str,
    /// Its size.
    pub size: ImageSize,
    /// The boxes for the next question.
    pub candidates: &'a Candidates,
    /// The turns, oldest first.
    pub turns: &'a [Turn],
    /// The boxes drawn in the picture.
    pub shown: &'a BTreeSet<BoxId>,
    /// The selected boxes.
    pub selected: &'a BTreeSet<BoxId>,
}

/// A box to export.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkedBox {
    /// Its identity.
    pub id: BoxId,
    /// Its number in the last answer that names it, else in the picture.
    pub number: u32,
    /// Corners in order, inside the picture, with an area.
    pub bbox: BoxXyxy,
    /// The proposal's score; `None` for a box of the user.
    pub score: Option<f32>,
    /// The phrase of the last answer that names it, else the kind that a detector says or the label of the
    /// user.
    pub label: Option<String>,
    /// Index in the palette; `None` if the last answer with phrases does not name it.
    pub hue: Option<usize>,
    /// Dash style.
    pub dash: usize,
}

impl MarkedBox {
    /// True for a box of the user.
    pub fn is_own(&self) -> bool {
        matches!(self.id, BoxId::Own(_))
    }
}

/// A picture and the boxes to export.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// File name of the picture.
    pub name: String,
    /// Its size.
    pub size: ImageSize,
    /// The boxes.
    pub boxes: Vec<MarkedBox>,
}

impl Sheet {
    /// The boxes of a scope: candidates in the order of their numbers, then boxes that only earlier
    /// answers have. Boxes outside the picture are left out.
    pub fn of(source: Source<'_>, scope: Scope) -> Self {
        let mentions: Vec<Mentions> = source.turns.iter().filter_map(Mentions::of).collect();
        let named = |id| mentions.iter().any(|m| m.phrase_of(id).is_some());
        let is_wanted = |id: BoxId| match scope {
            Scope::All => source.candidates.number(id).is_some(),
            Scope::Shown => source.shown.contains(&id),
            Scope::Mentioned => named(id),
            Scope::Own => {
                matches!(id, BoxId::Own(_)) && (source.candidates.number(id).is_some() || named(id))
            }
            Scope::Selected => source.selected.contains(&id),
        };
        let frozen = mentions.iter().rev().flat_map(|m| m.boxes.boxes.iter());
        let mut seen = BTreeSet::new();
        let candidates = source.candidates.boxes.iter().chain(frozen);
        let boxes = candidates
            .filter(|c| is_wanted(c.id) && seen.insert(c.id))
            .filter_map(|c| marked(c, source, &mentions))
            .collect();
        Self {
            name: source.name.to_owned(),
            size: source.size,
            boxes,
        }
    }

    /// How many boxes have no label.
    pub fn unlabelled(&self) -> usize {
        self.boxes.iter().filter(|b| b.label.is_none()).count()
    }

    /// The same boxes, all with a label.
    #[must_use]
    pub fn labelled(mut self, how: Unlabelled) -> Self {
        match how {
            Unlabelled::LeaveOut => self.boxes.retain(|b| b.label.is_some()),
            Unlabelled::AsObject => {
                for marked in &mut self.boxes {
                    marked.label.get_or_insert_with(|| OBJECT.to_owned());
                }
            }
        }
        self
    }

    /// The distinct labels in order of appearance; the first spelling counts.
    pub fn categories(&self) -> Vec<String> {
        categories(self.boxes.iter().filter_map(|b| b.label.as_deref()))
    }
}

/// The distinct labels in order of appearance; the first spelling counts.
pub fn categories<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for label in labels {
        if category(&found, label).is_none() {
            found.push(label.to_owned());
        }
    }
    found
}

/// The place of a label among the categories, whatever the case of its letters.
pub fn category(categories: &[String], label: &str) -> Option<usize> {
    let label = label.to_lowercase();
    categories.iter().position(|c| c.to_lowercase() == label)
}

fn marked(candidate: &Candidate, source: Source<'_>, mentions: &[Mentions]) -> Option<MarkedBox> {
    let id = candidate.id;
    let last = mentions.last();
    let current = last.and_then(|m| Some((m.phrase_of(id)?, m.boxes.number(id)?)));
    let naming = mentions.iter().rev().find(|m| m.phrase_of(id).is_some());
    let phrase = naming.and_then(|m| m.phrase_of(id)).map(|p| clean(&p.text));
    let phrase = phrase.filter(|text| !text.is_empty() && !text.starts_with('['));
    let then = naming.and_then(|m| m.boxes.number(id));
    let now = source.candidates.number(id);
    Some(MarkedBox {
        id,
        number: current.map(|(_, number)| number).or(now).or(then)?,
        bbox: inside(candidate.bbox, source.size)?,
        score: candidate.score,
        label: phrase.or_else(|| candidate.label.clone()),
        hue: current.map(|(phrase, _)| phrase.hue()),
        dash: current.map_or(0, |(phrase, _)| phrase.dash()),
    })
}

/// A phrase as a category: without white space and punctuation around it.
pub(crate) fn clean(phrase: &str) -> String {
    phrase
        .trim_matches(|c: char| c.is_whitespace() || ",.;:".contains(c))
        .to_owned()
}

/// A box with its corners in order, clipped to the picture; `None` if nothing is left.
pub fn inside(b: BoxXyxy, size: ImageSize) -> Option<BoxXyxy> {
    let (width, height) = (size.width as f32, size.height as f32);
    let clipped = BoxXyxy {
        x1: b.x1.min(b.x2).clamp(0.0, width),
        y1: b.y1.min(b.y2).clamp(0.0, height),
        x2: b.x1.max(b.x2).clamp(0.0, width),
        y2: b.y1.max(b.y2).clamp(0.0, height),
    };
    (clipped.area() > 0.0).then_some(clipped)
}

/// A coordinate with three decimals, without the digits that f32 adds.
pub(super) fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}

/// A file name without its folder; characters that archives or systems refuse become `_`.
pub fn safe_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let is_bad = |c: char| c.is_control() || ":*?\"<>|".contains(c);
    let name: String = name
        .chars()
        .map(|c| if is_bad(c) { '_' } else { c })
        .collect();
    let name = name.trim().trim_start_matches('.');
    let name: String = name.chars().take(120).collect();
    if name.is_empty() {
        "picture".to_owned()
    } else {
        name
    }
}

/// A file name without its ending.
pub fn stem(name: &str) -> String {
    let name = safe_name(name);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::{restored, sheet, source};

    #[test]
    fn every_scope_has_its_boxes() {
        let c = restored();
        let own = BTreeSet::from([BoxId::Own(0)]);
        let none = BTreeSet::new();
        let cases = [
            (Scope::All, vec![0, 1, 2]),
            (Scope::Shown, vec![2]),
            (Scope::Mentioned, vec![0, 2]),
            (Scope::Own, vec![2]),
            (Scope::Selected, vec![]),
        ];
        for (scope, expected) in cases {
            let sheet = Sheet::of(source(&c, &own, &none), scope);
            let numbers: Vec<_> = sheet.boxes.iter().map(|b| b.number).collect();
            assert_eq!(numbers, expected, "{scope:?}");
        }
    }

    #[test]
    fn mentioned_boxes_stay_after_the_filters_dropped_them() {
        use crate::chat::candidates::Filter;
        use crate::chat::conversation::Input;
        let mut c = restored();
        c.step(Input::Filter(Filter {
            score: 0.99,
            ..c.filter()
        }));
        let none = BTreeSet::new();
        let all = Sheet::of(source(&c, &none, &none), Scope::All);
        assert_eq!(all.boxes.len(), 1, "only the box of the user");
        let named = Sheet::of(source(&c, &none, &none), Scope::Mentioned);
        let found: Vec<_> = named
            .boxes
            .iter()
            .map(|b| (b.number, b.label.as_deref()))
            .collect();
        assert_eq!(found, [(2, Some("lamp")), (0, Some("black cat"))]);
    }

    #[test]
    fn labels_are_phrases_then_kinds_and_the_rest_is_decided() {
        let sheet = sheet();
        let labels: Vec<_> = sheet.boxes.iter().map(|b| b.label.as_deref()).collect();
        assert_eq!(labels, [Some("black cat"), None, Some("lamp")]);
        assert_eq!(sheet.unlabelled(), 1);
        let count = |how| sheet.clone().labelled(how).boxes.len();
        assert_eq!(count(Unlabelled::LeaveOut), 2);
        assert_eq!(count(Unlabelled::AsObject), 3);
        let all = sheet.labelled(Unlabelled::AsObject);
        assert_eq!(all.categories(), ["black cat", "object", "lamp"]);
        assert_eq!(category(&all.categories(), "LAMP"), Some(2));
    }

    #[test]
    fn boxes_are_clipped_and_empty_ones_left_out() {
        let size = ImageSize {
            width: 10,
            height: 8,
        };
        let cases = [
            ([-3., -3., 4., 20.], Some([0., 0., 4., 8.])),
            ([4., 5., 1., 2.], Some([1., 2., 4., 5.])),
            ([11., 0., 15., 4.], None),
            ([2., 2., 2., 5.], None),
        ];
        for (bbox, expected) in cases {
            assert_eq!(inside(bbox.into(), size).map(<[f32; 4]>::from), expected);
        }
    }

    #[test]
    fn names_are_safe_for_archives_and_systems() {
        let cases = [
            ("cat.jpg", "cat.jpg", "cat"),
            ("a/../b\\c:d.png", "c_d.png", "c_d"),
            ("..", "picture", "picture"),
            (".hidden", "hidden", "hidden"),
            ("", "picture", "picture"),
            ("no ending", "no ending", "no ending"),
        ];
        for (name, safe, short) in cases {
            assert_eq!(
                (safe_name(name).as_str(), stem(name).as_str()),
                (safe, short)
            );
        }
    }
}
