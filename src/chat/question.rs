//! The kinds of question that the page offers, and the draft of a question. The user reads the
//! wording of this file; the model reads that of `text::prompt`.

use serde::{Deserialize, Serialize};

use crate::chat::candidates::{Candidates, LOST_MARK, cite};
use crate::text::prompt;

/// A kind of question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuestionKind {
    /// Any words.
    #[default]
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

/// What a click on the chip of a [`QuestionKind`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChipAction {
    /// Asks at once, with these words.
    Ask(String),
    /// Switches the draft to the kind, or back to free words.
    Toggle,
}

impl QuestionKind {
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

    /// Placeholder of the text box.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Free => "Ask about the picture",
            Self::Find => "What to find, for example: cat; tree",
            Self::Count => "What to count, for example: apples",
            Self::Describe => "Nothing to add: just send",
            Self::Name | Self::DescribeBox => "Select a box in the picture, or type its number",
        }
    }

    /// Whether a draft can be sent.
    pub fn is_complete(self, draft: &str) -> bool {
        let has_words = self == Self::Describe || !draft.trim().is_empty();
        has_words && !draft.contains(LOST_MARK)
    }

    /// What a click on the chip does; `marks` are those of the selected boxes.
    pub fn on_chip(self, marks: &str, can_ask: bool) -> ChipAction {
        match self {
            Self::Describe if can_ask => ChipAction::Ask(String::new()),
            Self::Name if can_ask && !marks.is_empty() => ChipAction::Ask(marks.to_owned()),
            _ => ChipAction::Toggle,
        }
    }

    /// The question as the user sees it, and as the model reads it.
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

/// Appends the marks of boxes to a draft.
pub fn append_marks(draft: &mut String, marks: &[String]) {
    if !draft.is_empty() && !draft.ends_with(' ') {
        draft.push(' ');
    }
    draft.push_str(&marks.join(" "));
    draft.push(' ');
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::candidates::{BoxId, Candidate};

    /// Boxes with the numbers 0, 1 and 2.
    fn three_boxes() -> Candidates {
        let candidate = |number| Candidate {
            id: BoxId::Own(number),
            bbox: [0., 0., 1., 1.].into(),
            score: None,
            label: None,
        };
        Candidates {
            boxes: (0..3).map(candidate).collect(),
            left_out: 0,
        }
    }

    #[test]
    fn every_kind_has_a_wording_for_the_user_and_one_for_the_model() {
        let cases = [
            (
                QuestionKind::Free,
                " is [1] red? ",
                "is [1] red?",
                "is <obj1> red?",
            ),
            (QuestionKind::Free, "[7]?", "[7]?", "[7]?"),
            (
                QuestionKind::Find,
                "cat; tree,\n house,",
                "Find cat, tree, house",
                &prompt::Task::Detect.question(&["cat", "tree", "house"]),
            ),
            (
                QuestionKind::Count,
                "apples",
                "Count apples",
                &prompt::Task::Count.question(&["apples"]),
            ),
            (
                QuestionKind::Describe,
                "",
                "Describe the picture",
                &prompt::Task::BriefCaption.question::<&str>(&[]),
            ),
            (
                QuestionKind::Name,
                "[0]; 2",
                "Name [0], [2]",
                &prompt::Task::Name.question(&["<obj0>", "<obj2>"]),
            ),
            (
                QuestionKind::DescribeBox,
                "1",
                "Describe [1]",
                &prompt::Task::Phrase.question(&["<obj1>"]),
            ),
        ];
        for (kind, words, shown, question) in cases {
            let found = kind.phrase(words, &three_boxes());
            assert_eq!(found, (shown.to_owned(), question.to_owned()), "{kind:?}");
        }
    }

    #[test]
    fn the_model_reads_tags_and_the_names_of_things() {
        let (_, question) = QuestionKind::Find.phrase("cat, tree", &three_boxes());
        assert!(
            question.contains("cat") && question.contains("tree"),
            "{question}"
        );
        let (_, question) = QuestionKind::Name.phrase("2", &three_boxes());
        assert!(
            question.contains("<obj2>") && !question.contains("[2]"),
            "{question}"
        );
    }

    #[test]
    fn a_draft_is_complete_with_words_and_without_lost_marks() {
        let cases = [
            (QuestionKind::Free, "", false),
            (QuestionKind::Free, "  ", false),
            (QuestionKind::Free, "what?", true),
            (QuestionKind::Free, "what is [?]?", false),
            (QuestionKind::Describe, "", true),
            (QuestionKind::Describe, "[?]", false),
            (QuestionKind::Name, "", false),
        ];
        for (kind, draft, expected) in cases {
            assert_eq!(kind.is_complete(draft), expected, "{kind:?} {draft:?}");
        }
    }

    #[test]
    fn chips_ask_at_once_where_no_words_are_missing() {
        let ask = |words: &str| ChipAction::Ask(words.to_owned());
        let cases = [
            (QuestionKind::Describe, "", true, ask("")),
            (QuestionKind::Describe, "[1]", true, ask("")),
            (QuestionKind::Describe, "", false, ChipAction::Toggle),
            (QuestionKind::Name, "[1]; [4]", true, ask("[1]; [4]")),
            (QuestionKind::Name, "", true, ChipAction::Toggle),
            (QuestionKind::Name, "[1]", false, ChipAction::Toggle),
            (QuestionKind::Find, "[1]", true, ChipAction::Toggle),
            (QuestionKind::Count, "", true, ChipAction::Toggle),
        ];
        for (kind, marks, can_ask, expected) in cases {
            assert_eq!(kind.on_chip(marks, can_ask), expected, "{kind:?} {marks}");
        }
    }

    #[test]
    fn marks_are_appended_with_spaces() {
        let marks = ["[1]".to_owned(), "[4]".to_owned()];
        for (draft, expected) in [
            ("", "[1] [4] "),
            ("is", "is [1] [4] "),
            ("is ", "is [1] [4] "),
        ] {
            let mut written = draft.to_owned();
            append_marks(&mut written, &marks);
            assert_eq!(written, expected);
        }
    }
}
