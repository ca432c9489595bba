//! What is known of a picture: its boxes in the order of the prompt, and the objects among them.

use crate::eval::photographs::Picture;
use crate::geometry::{BoxXyxy, Proposal};
use crate::scenes::{Rng, position_in_words};
use crate::text::prompt::MAX_BOXES;

/// IoU from which a proposal is a copy of an annotated box.
const SAME_BOX: f32 = 0.5;

/// An object with its box.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Thing {
    /// The name of its kind.
    pub(super) kind: String,
    /// Index of its box.
    pub(super) index: usize,
    /// A description from the annotations.
    pub(super) caption: Option<String>,
}

/// The contents of a picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contents {
    /// Width and height in pixels.
    pub(super) size: [f32; 2],
    /// The boxes in the order of the prompt, at most 100.
    pub(super) boxes: Vec<BoxXyxy>,
    /// The objects, in the order of their boxes.
    pub(super) things: Vec<Thing>,
    /// Kinds with an object, by their first box, all of whose objects have a box.
    pub(super) kinds: Vec<String>,
    /// Kinds that are not in the picture.
    pub(super) absent: Vec<String>,
    /// Captions from the annotations.
    pub(super) captions: Vec<String>,
    /// Whether boxes are proposals of a model.
    pub(super) proposed: bool,
}

impl Contents {
    /// The contents of an annotated picture; `kinds` are the names of all kinds, `proposals` become boxes
    /// without an object. Kinds with a crowd, and kinds of which an object has no box because there are too
    /// many, are in no question that needs all of their objects.
    pub(super) fn annotated(
        picture: &Picture,
        kinds: &[String],
        proposals: &[BoxXyxy],
        rng: &mut Rng,
    ) -> Self {
        let mut objects = picture.objects();
        rng.shuffle(&mut objects);
        let left_over = objects.split_off(objects.len().min(MAX_BOXES));
        let own = objects.iter().map(|object| (object.bbox(), Some(*object)));
        let is_new = |bbox: &&BoxXyxy| {
            let mut known = picture.annotations.iter();
            known.all(|annotation| annotation.bbox().iou(bbox) < SAME_BOX)
        };
        let others = proposals.iter().filter(is_new).map(|bbox| (*bbox, None));
        let mut boxes: Vec<_> = own.chain(others).take(MAX_BOXES).collect();
        rng.shuffle(&mut boxes);
        let things: Vec<Thing> = (boxes.iter().enumerate())
            .filter_map(|(index, (_, object))| {
                let object = (*object)?;
                Some(Thing {
                    kind: kinds[object.kind].clone(),
                    index,
                    caption: object.caption.clone(),
                })
            })
            .collect();
        let incomplete: Vec<usize> = (picture.annotations.iter())
            .filter(|annotation| annotation.crowd)
            .chain(left_over)
            .map(|annotation| annotation.kind)
            .collect();
        let is_complete = |name: &String| !incomplete.iter().any(|&kind| kinds[kind] == *name);
        let mut present = Vec::new();
        for thing in &things {
            if is_complete(&thing.kind) && !present.contains(&thing.kind) {
                present.push(thing.kind.clone());
            }
        }
        let annotated = |kind: usize| picture.annotations.iter().any(|other| other.kind == kind);
        let absent = (0..kinds.len()).filter(|&kind| !annotated(kind));
        Self {
            size: [picture.width as f32, picture.height as f32],
            proposed: boxes.iter().any(|(_, object)| object.is_none()),
            boxes: boxes.into_iter().map(|(bbox, _)| bbox).collect(),
            things,
            kinds: present,
            absent: absent.map(|kind| kinds[kind].clone()).collect(),
            captions: picture.captions.clone(),
        }
    }

    /// The contents of a picture without annotations: the proposals, whose labels are the kinds. `universe` are
    /// the kinds that the model knows.
    pub(super) fn proposed(
        size: [u32; 2],
        proposals: &[Proposal],
        universe: &[String],
        rng: &mut Rng,
    ) -> Self {
        let mut boxes: Vec<&Proposal> = proposals.iter().take(MAX_BOXES).collect();
        rng.shuffle(&mut boxes);
        let things: Vec<Thing> = (boxes.iter().enumerate())
            .filter_map(|(index, proposal)| {
                Some(Thing {
                    kind: proposal.label.clone()?,
                    index,
                    caption: None,
                })
            })
            .collect();
        let mut kinds: Vec<String> = Vec::new();
        for thing in &things {
            if !kinds.contains(&thing.kind) {
                kinds.push(thing.kind.clone());
            }
        }
        let absent = universe.iter().filter(|name| !kinds.contains(name));
        Self {
            size: size.map(|side| side as f32),
            boxes: boxes.iter().map(|proposal| proposal.bbox).collect(),
            absent: absent.cloned().collect(),
            things,
            kinds,
            captions: Vec::new(),
            proposed: true,
        }
    }

    /// The objects of `kind`, by their place in `things`.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<usize> {
        let things = 0..self.things.len();
        things
            .filter(|&thing| self.things[thing].kind == kind)
            .collect()
    }

    /// The box of an object.
    pub(super) fn bbox(&self, thing: usize) -> BoxXyxy {
        self.boxes[self.things[thing].index]
    }

    /// The boxes of some objects, ascending.
    pub(super) fn indices(&self, things: &[usize]) -> Vec<usize> {
        let mut indices: Vec<usize> = things.iter().map(|&t| self.things[t].index).collect();
        indices.sort_unstable();
        indices
    }

    /// Centre of an object as fractions of width and height.
    pub(super) fn centre(&self, thing: usize) -> [f32; 2] {
        let b = self.bbox(thing);
        let [width, height] = self.size;
        [(b.x1 + b.x2) / 2.0 / width, (b.y1 + b.y2) / 2.0 / height]
    }

    /// Share of the picture that the box of an object has.
    pub(super) fn share(&self, thing: usize) -> f32 {
        let [width, height] = self.size;
        self.bbox(thing).area() / (width * height)
    }

    /// The place of an object in words; `None` if two fit.
    pub(super) fn place(&self, thing: usize) -> Option<&'static str> {
        position_in_words(self.centre(thing))
    }
}
