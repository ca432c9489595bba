//! The review of a batch: the user accepts, rejects and corrects its boxes one after the other.
//!
//! Rules. An entry is a box of a result, a box that the user drew, or the answer of a picture without
//! boxes. Entries come least certain first, over all pictures or within each. A verdict leads to the next
//! entry without one. A new label accepts. A drawn box is accepted. Undo takes back one verdict or box
//! and shows it again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chat::batch::Batch;
use crate::chat::batch_result::{FoundBox, Outcome};
use crate::chat::exchange::marked::{categories, inside};
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// The version that this page writes, and the only one that it reads.
const VERSION: u32 = 1;

/// Most steps that can be taken back.
const MAX_UNDO: usize = 1_000;

/// Labels that have a key.
pub const KEYS: usize = 9;

/// Longest label, in characters.
const MAX_LABEL: usize = 80;

/// [`Entry::part`] of the answer of a picture without boxes.
pub const ANSWER: u32 = u32::MAX;

/// Something to decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// The picture's place in the batch.
    pub item: usize,
    /// The box's place in the result, behind these the drawn ones; or [`ANSWER`].
    pub part: u32,
}

/// The order of the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// By certainty over all pictures.
    #[default]
    LeastSure,
    /// By pictures, and by certainty within each.
    ByPicture,
}

/// What the user said about an entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Mark {
    /// Accepted or rejected.
    accepted: bool,
    /// Another label.
    label: Option<String>,
}

/// A step that can be taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Step {
    /// A verdict, and the one before.
    Mark(Entry, Option<Mark>),
    /// A box was drawn in this picture.
    Drawn(usize),
}

/// What the user does.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Accept.
    Accept,
    /// Reject.
    Reject,
    /// Accept with the label at this place of [`Review::labels`].
    Key(usize),
    /// Accept with this label.
    Label(String),
    /// Go to the next or the previous entry.
    Move(isize),
    /// Go to the next or the previous picture.
    Picture(isize),
    /// Begin or end drawing.
    Draw,
    /// The box that is being drawn.
    Sketch(BoxXyxy),
    /// Move the box that is being drawn, or its lower right corner, by steps of a hundredth.
    Nudge {
        /// Steps to the right.
        dx: f32,
        /// Steps down.
        dy: f32,
        /// Whether only the corner moves.
        sizes: bool,
    },
    /// Add the box that is being drawn.
    Add,
    /// Drop it.
    Drop,
    /// Take the last step back.
    Undo,
    /// Another order.
    Order(Order),
}

impl Input {
    /// Whether it changes what [`Review::to_json`] writes: the box that is being drawn is not stored.
    pub fn is_stored(&self) -> bool {
        !matches!(
            self,
            Self::Draw | Self::Sketch(_) | Self::Nudge { .. } | Self::Drop
        )
    }
}

/// The state of a review.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Review {
    version: u32,
    order: Order,
    cursor: Option<Entry>,
    marks: BTreeMap<usize, BTreeMap<u32, Mark>>,
    drawn: BTreeMap<usize, Vec<FoundBox>>,
    steps: Vec<Step>,
    #[serde(skip)]
    sketch: Option<BoxXyxy>,
}

/// A box as the review shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReviewedBox {
    /// Its entry.
    pub entry: Entry,
    /// The box with the label that it has now.
    pub found: FoundBox,
    /// The verdict.
    pub accepted: Option<bool>,
}

impl Review {
    /// The text that is stored.
    ///
    /// # Panics
    /// Never: it is plain data with numbers as keys.
    pub fn to_json(&self) -> String {
        let stored = Self {
            version: VERSION,
            ..self.clone()
        };
        serde_json::to_string(&stored).expect("plain data with numbers as keys")
    }

    /// Reads a stored review; a damaged one begins anew.
    pub fn read(json: &str) -> Self {
        let read = serde_json::from_str(json).ok();
        read.filter(|r: &Self| r.version == VERSION)
            .unwrap_or_default()
    }

    /// Whether there is a verdict or a drawn box.
    pub fn is_begun(&self) -> bool {
        !self.marks.is_empty()
    }

    /// The order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The box that is being drawn.
    pub fn sketch(&self) -> Option<BoxXyxy> {
        self.sketch
    }

    /// Whether a step can be taken back.
    pub fn can_undo(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The current entry; the first open one at the beginning.
    pub fn current(&self, batch: &Batch) -> Option<Entry> {
        let entries = self.entries(batch);
        let known = self.cursor.filter(|cursor| entries.contains(cursor));
        known
            .or_else(|| entries.iter().copied().find(|&e| self.verdict(e).is_none()))
            .or_else(|| entries.first().copied())
    }

    /// The verdict about an entry.
    pub fn verdict(&self, entry: Entry) -> Option<bool> {
        let mark = self.marks.get(&entry.item)?.get(&entry.part)?;
        Some(mark.accepted)
    }

    /// How many entries of results have a verdict, and how many there are.
    pub fn progress(&self, batch: &Batch) -> (usize, usize) {
        let entries = self.entries(batch);
        let decided = entries.iter().filter(|&&e| self.verdict(e).is_some());
        (decided.count(), entries.len())
    }

    /// The labels: things that were looked for, then those of the results and of the user.
    pub fn labels(&self, batch: &Batch) -> Vec<String> {
        let things = batch.head.task.things();
        let results = outcomes(batch).flat_map(|(_, outcome)| &outcome.boxes);
        let marks = self.marks.values().flat_map(BTreeMap::values);
        let all = (things.iter().map(String::as_str))
            .chain(results.filter_map(|b| b.label.as_deref()))
            .chain(marks.filter_map(|mark| mark.label.as_deref()));
        categories(all)
    }

    /// The boxes of a picture with their verdicts.
    pub fn boxes(&self, item: usize, outcome: &Outcome) -> Vec<ReviewedBox> {
        let drawn = self.drawn.get(&item).into_iter().flatten();
        let all = outcome.boxes.iter().chain(drawn).enumerate();
        let marks = self.marks.get(&item);
        all.map(|(part, found)| {
            let part = part as u32;
            let mark = marks.and_then(|marks| marks.get(&part));
            let label = mark.and_then(|mark| mark.label.clone());
            ReviewedBox {
                entry: Entry { item, part },
                found: FoundBox {
                    label: label.or_else(|| found.label.clone()),
                    ..found.clone()
                },
                accepted: mark.map(|mark| mark.accepted),
            }
        })
        .collect()
    }

    /// The accepted and corrected boxes of a picture; `None` if nothing was decided about it, or its answer
    /// was rejected as a whole.
    pub fn accepted(&self, item: usize, outcome: &Outcome) -> Option<Vec<FoundBox>> {
        let marks = self.marks.get(&item).filter(|marks| !marks.is_empty())?;
        let boxes = self.boxes(item, outcome).into_iter();
        let accepted: Vec<_> = boxes
            .filter(|b| b.accepted == Some(true))
            .map(|b| b.found)
            .collect();
        let is_rejected = marks.get(&ANSWER).is_some_and(|mark| !mark.accepted);
        (!is_rejected || !accepted.is_empty()).then_some(accepted)
    }

    /// Applies one input.
    pub fn step(&mut self, input: Input, batch: &Batch) {
        let current = self.current(batch);
        match input {
            Input::Accept => self.decide(current, true, None, batch),
            Input::Reject => self.decide(current, false, None, batch),
            Input::Key(place) => {
                let label = self.labels(batch).into_iter().take(KEYS).nth(place);
                if label.is_some() {
                    self.give(current, label, batch);
                }
            }
            Input::Label(label) => {
                let label = label.split_whitespace().collect::<Vec<_>>().join(" ");
                let label: String = label.chars().take(MAX_LABEL).collect();
                if !label.is_empty() {
                    self.give(current, Some(label), batch);
                }
            }
            Input::Move(by) => {
                let entries = self.entries(batch);
                let place = current.and_then(|c| entries.iter().position(|&e| e == c));
                let next = place.and_then(|place| entries.get(place.checked_add_signed(by)?));
                self.go(next.copied().or(current));
            }
            Input::Picture(by) => self.go_to_picture(current, by, batch),
            Input::Draw => {
                let size = size_at(batch, current).filter(|_| self.sketch.is_none());
                self.sketch = size.map(middle);
            }
            Input::Sketch(bbox) => {
                let inside = size_at(batch, current).and_then(|size| inside(bbox, size));
                self.sketch = inside.or(self.sketch);
            }
            Input::Nudge { dx, dy, sizes } => {
                let size = size_at(batch, current);
                if let Some((bbox, size)) = self.sketch.zip(size) {
                    self.sketch = Some(nudged(bbox, dx, dy, sizes, size));
                }
            }
            Input::Add => self.add(current, None, batch),
            Input::Drop => self.sketch = None,
            Input::Undo => self.undo(batch),
            Input::Order(order) => {
                self.cursor = current;
                self.order = order;
            }
        }
    }

    /// All entries in order.
    fn entries(&self, batch: &Batch) -> Vec<Entry> {
        let mut all = Vec::new();
        for (item, outcome) in outcomes(batch) {
            let boxes = self.boxes(item, outcome);
            if outcome.boxes.is_empty() {
                let entry = Entry { item, part: ANSWER };
                all.push((outcome.certainty(), entry));
            }
            all.extend(boxes.iter().map(|b| (b.found.certainty, b.entry)));
        }
        all.sort_by(|(a, left), (b, right)| {
            let by_item = match self.order {
                Order::LeastSure => std::cmp::Ordering::Equal,
                Order::ByPicture => left.item.cmp(&right.item),
            };
            by_item.then(a.total_cmp(b)).then(left.cmp(right))
        });
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    fn go(&mut self, entry: Option<Entry>) {
        self.sketch = None;
        self.cursor = entry;
    }

    fn go_to_picture(&mut self, current: Option<Entry>, by: isize, batch: &Batch) {
        let Some(now) = current.map(|entry| entry.item) else {
            return;
        };
        let items = outcomes(batch).map(|(item, _)| item);
        let next = match by > 0 {
            true => items.filter(|&item| item > now).min(),
            false => items.filter(|&item| item < now).max(),
        };
        let Some(next) = next else {
            return;
        };
        let mut entries = self.entries(batch);
        entries.retain(|entry| entry.item == next);
        let open = entries.iter().find(|&&e| self.verdict(e).is_none());
        let entry = open.or(entries.first()).copied();
        self.go(entry);
    }

    /// A label for the box that is being drawn, else for the current one.
    fn give(&mut self, current: Option<Entry>, label: Option<String>, batch: &Batch) {
        match self.sketch {
            Some(_) => self.add(current, label, batch),
            None => self.decide(current, true, label, batch),
        }
    }

    fn decide(&mut self, entry: Option<Entry>, accepted: bool, label: Option<String>, b: &Batch) {
        let Some(entry) = entry else {
            return;
        };
        // An answer without boxes has no label.
        let label = label.filter(|_| entry.part != ANSWER);
        let marks = self.marks.entry(entry.item).or_default();
        let before = marks.get(&entry.part).cloned();
        let kept = before.as_ref().and_then(|mark| mark.label.clone());
        let label = label.or(kept);
        marks.insert(entry.part, Mark { accepted, label });
        self.push(Step::Mark(entry, before));
        self.go_on(entry, b);
    }

    /// Goes to the next open entry behind `from`, around the end.
    fn go_on(&mut self, from: Entry, batch: &Batch) {
        let entries = self.entries(batch);
        let place = entries.iter().position(|&e| e == from).unwrap_or(0);
        let behind = entries.iter().cycle().skip(place + 1).take(entries.len());
        let open = behind.copied().find(|&e| self.verdict(e).is_none());
        self.go(open.or(Some(from)));
    }

    fn add(&mut self, current: Option<Entry>, label: Option<String>, batch: &Batch) {
        let (Some(bbox), Some(entry)) = (self.sketch, current) else {
            return;
        };
        let item = entry.item;
        let Some((_, outcome)) = outcomes(batch).find(|(place, _)| *place == item) else {
            return;
        };
        let label = label.or_else(|| self.labels(batch).into_iter().next());
        let drawn = self.drawn.entry(item).or_default();
        let part = (outcome.boxes.len() + drawn.len()) as u32;
        drawn.push(FoundBox {
            bbox,
            label: label.clone(),
            score: None,
            certainty: 1.0,
        });
        let mark = Mark {
            accepted: true,
            label,
        };
        self.marks.entry(item).or_default().insert(part, mark);
        self.push(Step::Drawn(item));
        self.go(Some(entry));
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
        if self.steps.len() > MAX_UNDO {
            self.steps.remove(0);
        }
    }

    fn undo(&mut self, batch: &Batch) {
        match self.steps.pop() {
            None => {}
            Some(Step::Mark(entry, before)) => {
                let marks = self.marks.entry(entry.item).or_default();
                match before {
                    Some(mark) => drop(marks.insert(entry.part, mark)),
                    None => drop(marks.remove(&entry.part)),
                }
                self.go(Some(entry));
            }
            Some(Step::Drawn(item)) => {
                let results = batch.items().get(item).and_then(|i| i.outcome());
                let drawn = self.drawn.entry(item).or_default();
                drawn.pop();
                let part = results.map_or(0, |o| o.boxes.len()) + drawn.len();
                self.marks.entry(item).or_default().remove(&(part as u32));
            }
        }
        self.marks.retain(|_, marks| !marks.is_empty());
        self.drawn.retain(|_, drawn| !drawn.is_empty());
    }
}

/// The pictures with an answer.
fn outcomes(batch: &Batch) -> impl Iterator<Item = (usize, &Outcome)> {
    let items = batch.items().iter().enumerate();
    items.filter_map(|(item, of)| Some((item, of.outcome()?)))
}

fn size_at(batch: &Batch, entry: Option<Entry>) -> Option<ImageSize> {
    let outcome = batch.items().get(entry?.item)?.outcome()?;
    Some(outcome.size)
}

/// A box of a third of the picture in its middle.
fn middle(size: ImageSize) -> BoxXyxy {
    let (w, h) = (size.width as f32 / 3.0, size.height as f32 / 3.0);
    [w, h, 2.0 * w, 2.0 * h].into()
}

/// A box moved or sized by hundredths of the picture's longer side; it stays inside and visible.
fn nudged(b: BoxXyxy, dx: f32, dy: f32, sizes: bool, size: ImageSize) -> BoxXyxy {
    let (width, height) = (size.width as f32, size.height as f32);
    let step = width.max(height) / 100.0;
    let (dx, dy) = (dx * step, dy * step);
    let least = step.min(width).min(height);
    if sizes {
        let x2 = (b.x2 + dx).clamp((b.x1 + least).min(width), width);
        let y2 = (b.y2 + dy).clamp((b.y1 + least).min(height), height);
        return [b.x1, b.y1, x2, y2].into();
    }
    let dx = dx.clamp(-b.x1, width - b.x2);
    let dy = dy.clamp(-b.y1, height - b.y2);
    [b.x1 + dx, b.y1 + dy, b.x2 + dx, b.y2 + dy].into()
}

#[cfg(test)]
mod tests;
