//! A picture of a batch and its state.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::chat::batch_result::Outcome;
use crate::error::Fault;

/// The version that this page writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// Why a picture was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The user skipped it.
    User,
    /// The batch was cancelled.
    Cancelled,
    /// The same file is in the batch already.
    Duplicate,
}

/// The state of a picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ItemState {
    /// Its turn is still to come.
    #[default]
    Waiting,
    /// It is being worked on.
    Running,
    /// It has an answer.
    Done(Box<Outcome>),
    /// It has none.
    Failed(Fault),
    /// It was left out.
    Skipped(Why),
}

impl ItemState {
    /// Its name in attributes and files.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// A picture of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// [`VERSION`].
    pub version: u32,
    /// Name of its file.
    pub name: String,
    /// Its state.
    pub state: ItemState,
    /// How often the engine was lost during it.
    #[serde(default)]
    pub losses: u32,
}

impl Item {
    /// A picture that waits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            name: name.into(),
            ..Self::default()
        }
    }

    /// The pictures with these names and sizes in bytes. One that has both of an earlier one is left out.
    pub fn all<'a>(files: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let mut items = Vec::new();
        for (name, bytes) in files {
            let is_new = seen.insert((name, bytes)) || name.is_empty();
            let mut item = Self::new(name);
            if !is_new {
                item.state = ItemState::Skipped(Why::Duplicate);
            }
            items.push(item);
        }
        items
    }

    /// Its answer.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            ItemState::Done(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The text that is stored. A picture that is being worked on waits after a reload.
    ///
    /// # Panics
    /// Never: it is plain data.
    pub fn to_json(&self) -> String {
        match self.state {
            ItemState::Running => {
                let waiting = Self {
                    state: ItemState::Waiting,
                    ..self.clone()
                };
                serde_json::to_string(&waiting)
            }
            _ => serde_json::to_string(self),
        }
        .expect("plain data")
    }
}
