//! The kinds of question the page offers, in the person's words; the model's are
//! `text::prompt`'s.

use crate::chat::candidates::{Candidates, cite};
use crate::text::prompt;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Free words.
    Free,
    /// Which boxes hold the things named.
    Find,
    /// How many of the things named there are.
    Count,
    /// A sentence about the whole picture.
    Describe,
    /// What the boxes named hold.
    Name,
    /// A short phrase about the boxes named.
    DescribeBox,
}

impl Task {
    /// Those with a chip.
    pub const CHIPS: [Self; 4] = [Self::Find, Self::Count, Self::Describe, Self::Name];

    /// The words on the chip.
    pub fn label(self) -> &'static str {
        match self {
            Self::Free => "Ask",
            Self::Find => "Find",
            Self::Count => "Count",
            Self::Describe => "Describe",
            Self::Name => "Name a box",
            Self::DescribeBox => "Describe a box",
        }
    }

    /// The word in the chip's `data-testid`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Find => "find",
            Self::Count => "count",
            Self::Describe => "describe",
            Self::Name => "name",
            Self::DescribeBox => "describe-box",
        }
    }

    /// What the text box asks for.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Free => "Ask about the picture",
            Self::Find => "What to find, for example: cat; tree",
            Self::Count => "What to count, for example: apples",
            Self::Describe => "Nothing to add: just send",
            Self::Name | Self::DescribeBox => "Select a box in the picture, or type its number",
        }
    }

    /// True where the words may be missing.
    pub fn stands_alone(self) -> bool {
        self == Self::Describe
    }

    /// The question as the person sees it, and as the model reads it.
    pub fn phrase(self, words: &str, candidates: &Candidates) -> (String, String) {
        let words = words.trim();
        let things = list(words);
        let marks: Vec<String> = things.iter().map(|thing| bracketed(thing)).collect();
        let tags: Vec<String> = marks.iter().map(|mark| cite(mark, candidates)).collect();
        match self {
            Self::Free => (words.to_owned(), cite(words, candidates)),
            Self::Find => (
                format!("Find {}", things.join(", ")),
                prompt::Task::Detect.question(&things),
            ),
            Self::Count => (
                format!("Count {}", things.join(", ")),
                prompt::Task::Count.question(&things),
            ),
            Self::Describe => (
                "Describe the picture".to_owned(),
                prompt::Task::BriefCaption.question::<&str>(&[]),
            ),
            Self::Name => (
                format!("Name {}", marks.join(", ")),
                prompt::Task::Name.question(&tags),
            ),
            Self::DescribeBox => (
                format!("Describe {}", marks.join(", ")),
                prompt::Task::Phrase.question(&tags),
            ),
        }
    }
}

/// Things separated by commas, semicolons or line ends.
fn list(words: &str) -> Vec<&str> {
    let things = words.split([',', ';', '\n']).map(str::trim);
    things.filter(|thing| !thing.is_empty()).collect()
}

/// A bare number as a mark: `3` becomes `[3]`.
fn bracketed(thing: &str) -> String {
    match thing.parse::<u32>() {
        Ok(number) => format!("[{number}]"),
        Err(_) => thing.to_owned(),
    }
}
