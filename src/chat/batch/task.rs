//! What is asked about every picture of a batch.

use serde::{Deserialize, Serialize};

use crate::chat::question::{Draft, QuestionKind};

/// What is asked about every picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskKind {
    /// Which boxes hold the things named.
    #[default]
    Find,
    /// How many of the things named there are.
    Count,
    /// A sentence about the whole picture.
    Describe,
    /// A name for every box.
    NameAll,
    /// Any words.
    Free,
}

impl TaskKind {
    /// All kinds, in the order of the menu.
    pub const ALL: [Self; 5] = [
        Self::Find,
        Self::Count,
        Self::Describe,
        Self::NameAll,
        Self::Free,
    ];

    /// Its name in attributes and files.
    pub fn key(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Count => "count",
            Self::Describe => "describe",
            Self::NameAll => "name-all",
            Self::Free => "free",
        }
    }

    /// The kind with this name.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
    }

    /// Whether the user has to say something.
    pub fn needs_words(self) -> bool {
        matches!(self, Self::Find | Self::Count | Self::Free)
    }
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What is asked.
    pub kind: TaskKind,
    /// The words of the user; empty where none are needed.
    pub words: String,
}

impl Task {
    /// Whether it can be asked.
    pub fn is_complete(&self) -> bool {
        !self.kind.needs_words() || !self.words.trim().is_empty()
    }

    /// The question; `None` where every box is named.
    pub fn draft(&self) -> Option<Draft> {
        let kind = match self.kind {
            TaskKind::Find => QuestionKind::Find,
            TaskKind::Count => QuestionKind::Count,
            TaskKind::Describe => return Some(Draft::new(QuestionKind::Describe, "")),
            TaskKind::NameAll => return None,
            TaskKind::Free => QuestionKind::Free,
        };
        Some(Draft::new(kind, self.words.trim()))
    }

    /// The things that are looked for.
    pub fn things(&self) -> Vec<String> {
        match self.kind {
            TaskKind::Find | TaskKind::Count => {
                Draft::new(QuestionKind::Find, self.words.clone()).things()
            }
            _ => Vec::new(),
        }
    }
}
