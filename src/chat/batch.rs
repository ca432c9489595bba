//! One task for many pictures: the queue as a state machine.
//!
//! Rules. One picture is worked on at a time, in order. A picture that fails does not stop the queue. The
//! user's own questions go first: the picture that was worked on waits again. A picture during which the
//! engine was lost is tried once more, then it failed. Pause lets the running picture finish; cancel does
//! not. What is done stays done: neither a reload nor a retry does it again. A batch that is read from
//! the store is paused.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chat::batch_result::Outcome;
use crate::error::{ErrorCode, Fault, FaultKind};

mod item;
mod task;

pub use item::{Item, ItemState, VERSION, Why};
pub use task::{Task, TaskKind};

/// Most pictures of a batch.
pub const MAX_PICTURES: usize = 2_000;

/// How often a picture is tried when the engine is lost.
const TRIES: u32 = 2;

/// What is stored of a batch beside its pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchHead {
    /// [`VERSION`].
    pub version: u32,
    /// Its key.
    pub id: String,
    /// The task.
    pub task: Task,
    /// The number of pictures.
    pub count: usize,
    /// Whether every answer also goes into the history.
    pub in_history: bool,
}

impl BatchHead {
    /// The text that is stored.
    ///
    /// # Panics
    /// Never: it is plain data.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }
}

/// What the whole batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It works, or waits for its turn.
    Running,
    /// It pauses once the running picture is done.
    Pausing,
    /// It is paused.
    Paused,
    /// No picture waits.
    Finished,
}

impl Status {
    /// Its name in attributes.
    pub fn key(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Finished => "finished",
        }
    }
}

/// How many pictures are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With an answer.
    pub done: usize,
    /// Without one.
    pub failed: usize,
    /// Left out.
    pub skipped: usize,
    /// Still to come, with the running one.
    pub left: usize,
}

impl Counts {
    /// All pictures.
    pub fn all(self) -> usize {
        self.ended() + self.left
    }

    /// Those that are not to be worked on any more.
    pub fn ended(self) -> usize {
        self.done + self.failed + self.skipped
    }
}

/// What happens to a batch. Times are milliseconds of one clock.
#[derive(Clone, Debug)]
pub enum Input {
    /// Work on.
    Resume,
    /// Stop after the running picture.
    Pause,
    /// Stop at once; what waits is left out.
    Cancel,
    /// Leave a picture out.
    Skip(usize),
    /// Try failed pictures again.
    RetryFailed,
    /// Work on pictures that were left out.
    RetrySkipped,
    /// The engine is free.
    Free(f64),
    /// A picture has its answer.
    Answered(usize, Box<Outcome>, f64),
    /// A picture has none.
    Failed(usize, Fault),
    /// The user's own question goes first.
    Interrupted,
    /// The engine is lost.
    Lost(Fault),
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Work on a picture.
    Begin(usize),
    /// Stop working on the running picture.
    Stop,
    /// Store a picture's state.
    Store(usize),
}

/// A batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Its key, its task and its choices.
    pub head: BatchHead,
    items: Vec<Item>,
    runs: bool,
    /// The running picture, and when it began.
    running: Option<(usize, f64)>,
    /// The milliseconds that pictures took, and how many did.
    took: (f64, usize),
}

impl Batch {
    /// A batch that waits to be resumed.
    pub fn new(id: String, task: Task, in_history: bool, items: Vec<Item>) -> Self {
        Self {
            head: BatchHead {
                version: VERSION,
                id,
                task,
                count: items.len(),
                in_history,
            },
            items,
            ..Self::default()
        }
    }

    /// Reads a stored batch; `items` are its stored pictures in order, `None` where one is missing. `None`
    /// if it is damaged or of another version.
    pub fn restore(head: &str, items: &[Option<String>]) -> Option<Self> {
        let head: BatchHead = read(head)?;
        let items = (0..head.count.min(MAX_PICTURES)).map(|index| {
            let stored = items.get(index).and_then(Option::as_deref);
            match stored {
                Some(json) => read(json).unwrap_or_else(|| Item {
                    state: ItemState::Failed(damaged()),
                    ..Item::new(numbered(index))
                }),
                None => Item {
                    state: ItemState::Failed(not_stored()),
                    ..Item::new(numbered(index))
                },
            }
        });
        Some(Self {
            items: items.collect(),
            head,
            ..Self::default()
        })
    }

    /// The pictures in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The picture that is being worked on.
    pub fn running(&self) -> Option<usize> {
        self.running.map(|(index, _)| index)
    }

    /// What the whole batch does.
    pub fn status(&self) -> Status {
        match (self.runs, self.running, self.next()) {
            (true, ..) if self.counts().left > 0 => Status::Running,
            (false, Some(_), _) => Status::Pausing,
            (false, None, Some(_)) => Status::Paused,
            _ => Status::Finished,
        }
    }

    /// How many pictures are in which state.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            *match item.state {
                ItemState::Waiting | ItemState::Running => &mut counts.left,
                ItemState::Done(_) => &mut counts.done,
                ItemState::Failed(_) => &mut counts.failed,
                ItemState::Skipped(_) => &mut counts.skipped,
            } += 1;
        }
        counts
    }

    /// The milliseconds that the pictures left will take; `None` before the first one is done.
    pub fn time_left(&self, now: f64) -> Option<f64> {
        let (took, count) = self.took;
        let left = self.counts().left;
        if count == 0 || left == 0 {
            return None;
        }
        let each = took / count as f64;
        let spent = self.running.map_or(0.0, |(_, began)| now - began);
        Some((each * left as f64 - spent.clamp(0.0, each)).max(0.0))
    }

    /// Applies one input; returns what follows, in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Resume => self.runs = true,
            Input::Pause => self.runs = false,
            Input::Cancel => {
                self.runs = false;
                self.stop(&mut out);
                for index in 0..self.items.len() {
                    self.leave_out(index, Why::Cancelled, &mut out);
                }
            }
            Input::Skip(index) => {
                if self.running() == Some(index) {
                    self.stop(&mut out);
                }
                self.leave_out(index, Why::User, &mut out);
            }
            Input::RetryFailed => self.retry(&mut out, |s| matches!(s, ItemState::Failed(_))),
            Input::RetrySkipped => self.retry(&mut out, |s| {
                matches!(s, ItemState::Skipped(Why::User | Why::Cancelled))
            }),
            Input::Free(now) => {
                let next = self.next().filter(|_| self.runs && self.running.is_none());
                if let Some(index) = next {
                    self.items[index].state = ItemState::Running;
                    self.running = Some((index, now));
                    out.push(Effect::Begin(index));
                }
            }
            Input::Answered(index, outcome, now) => {
                if let Some((_, began)) = self.running.take_if(|(running, _)| *running == index) {
                    self.took.0 += (now - began).max(0.0);
                    self.took.1 += 1;
                    self.end(index, ItemState::Done(outcome), &mut out);
                }
            }
            Input::Failed(index, fault) => {
                if self
                    .running
                    .take_if(|(running, _)| *running == index)
                    .is_some()
                {
                    self.end(index, ItemState::Failed(fault), &mut out);
                }
            }
            Input::Interrupted => self.stop(&mut out),
            Input::Lost(fault) => {
                if let Some((index, _)) = self.running.take() {
                    out.push(Effect::Stop);
                    let item = &mut self.items[index];
                    item.losses += 1;
                    let state = match item.losses < TRIES {
                        true => ItemState::Waiting,
                        false => ItemState::Failed(fault),
                    };
                    self.end(index, state, &mut out);
                }
            }
        }
        if self.counts().left == 0 {
            self.runs = false;
        }
        out
    }

    fn next(&self) -> Option<usize> {
        let mut items = self.items.iter();
        items.position(|item| item.state == ItemState::Waiting)
    }

    /// The running picture waits again.
    fn stop(&mut self, out: &mut Vec<Effect>) {
        if let Some((index, _)) = self.running.take() {
            self.items[index].state = ItemState::Waiting;
            out.push(Effect::Stop);
        }
    }

    fn leave_out(&mut self, index: usize, why: Why, out: &mut Vec<Effect>) {
        let item = self.items.get(index);
        if item.is_some_and(|item| item.state == ItemState::Waiting) {
            self.end(index, ItemState::Skipped(why), out);
        }
    }

    fn end(&mut self, index: usize, state: ItemState, out: &mut Vec<Effect>) {
        self.items[index].state = state;
        out.push(Effect::Store(index));
    }

    fn retry(&mut self, out: &mut Vec<Effect>, is_meant: impl Fn(&ItemState) -> bool) {
        for index in 0..self.items.len() {
            // A picture that is not stored cannot be read again.
            let item = &mut self.items[index];
            let is_there = !matches!(&item.state, ItemState::Failed(f) if *f == not_stored());
            if is_meant(&item.state) && is_there {
                item.losses = 0;
                self.end(index, ItemState::Waiting, out);
            }
        }
        self.runs = true;
    }
}

/// The name of a picture whose own is lost.
fn numbered(index: usize) -> String {
    format!("picture {}", index + 1)
}

/// A picture that was not stored when the page was left.
fn not_stored() -> Fault {
    Fault::new(
        FaultKind::File,
        "that picture",
        "it was not stored yet when the page was left",
        "Begin a batch with it again",
    )
    .code(ErrorCode::NotFound)
}

/// A stored state that cannot be read.
fn damaged() -> Fault {
    Fault::new(
        FaultKind::File,
        "that picture",
        "its stored state is damaged",
        "Retry it",
    )
    .code(ErrorCode::Corrupt)
}

fn read<T: DeserializeOwned>(json: &str) -> Option<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(json).ok()?;
    (version == VERSION).then(|| serde_json::from_str(json).ok())?
}

#[cfg(test)]
mod tests;
