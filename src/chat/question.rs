//! The kinds of question that the page offers, and the draft of a question. The user reads the
//! wording of this file; the model reads that of `text::prompt`.

use crate::chat::kind_words;
use crate::chat::words::{say, text};
use serde::{Deserialize, Serialize};

use crate::chat::candidates::{Candidates, LOST_MARK, cite};
use crate::text::kinds::plural;
use crate::text::prompt;

/// A kind of question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// A detailed description of the whole picture.
    DescribeLong,
}

/// A question as the user writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Its kind.
    pub kind: QuestionKind,
    /// The words in the text box.
    pub words: String,
    /// The words for the model where the user changed them by hand.
    pub exact: Option<String>,
}

impl Draft {
    /// A draft without changes by hand.
    pub fn new(kind: QuestionKind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
            exact: None,
        }
    }

    /// A free question that the user reads in the page's language and the model in English.
    pub fn translated(english: &'static str, chinese: &'static str) -> Self {
        let words = text(english, chinese);
        Self {
            exact: (words != english).then(|| english.to_owned()),
            ..Self::new(QuestionKind::Free, words)
        }
    }

    /// Whether it can be sent.
    pub fn is_complete(&self) -> bool {
        match &self.exact {
            Some(exact) => !exact.trim().is_empty() && !exact.contains(LOST_MARK),
            None => self.kind.is_complete(&self.words),
        }
    }

    /// The question as the user sees it, and as the model reads it.
    pub fn phrase(&self, candidates: &Candidates) -> (String, String) {
        let (shown, question) = self.kind.phrase(&self.words, candidates);
        match &self.exact {
            Some(exact) => {
                let shown = if shown.trim().is_empty() {
                    exact.trim().to_owned()
                } else {
                    shown
                };
                (shown, without_turn_marks(&cite(exact.trim(), candidates)))
            }
            None => (shown, question),
        }
    }

    /// The things to find; none if the words for the model were changed by hand.
    pub fn things(&self) -> Vec<String> {
        match (self.kind, &self.exact) {
            (QuestionKind::Find, None) => {
                list(&self.words).into_iter().map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }
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
            Self::Free => text("Ask", "提问"),
            Self::Find => text("Find", "查找"),
            Self::Count => text("Count", "计数"),
            Self::Describe => text("Describe", "描述"),
            Self::Name => text("Name", "命名"),
            Self::DescribeBox => text("Describe a box", "描述框"),
            Self::DescribeLong => text("Describe at length", "详细描述"),
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
            Self::DescribeLong => "describe-long",
        }
    }

    /// The kind with this [`QuestionKind::key`].
    pub fn of_key(key: &str) -> Option<Self> {
        let all = [Self::Free].into_iter().chain(Self::COMMANDS);
        all.into_iter().find(|kind| kind.key() == key)
    }

    /// Those in the menu that `/` opens, in its order.
    pub const COMMANDS: [Self; 6] = [
        Self::Find,
        Self::Count,
        Self::Describe,
        Self::DescribeLong,
        Self::Name,
        Self::Free,
    ];

    /// The word after `/` in the menu.
    pub fn command(self) -> &'static str {
        match self {
            Self::Free => "ask",
            kind => kind.key(),
        }
    }

    /// What the kind does, in the menu.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Free => text("Ask in your own words", "用自己的话提问"),
            Self::Find => text(
                "Show every box of the things you name",
                "显示你说的物体的每一个框",
            ),
            Self::Count => text("Count the things you name", "数一数你说的物体"),
            Self::Describe => text("Describe the picture in a sentence", "用一句话描述图片"),
            Self::DescribeLong => text("Describe the picture in detail", "详细描述图片"),
            Self::Name => text("Say what is in the boxes you choose", "说出所选框里是什么"),
            Self::DescribeBox => text("Describe the boxes you choose", "描述所选的框"),
        }
    }

    /// The rows of the menu for a text box that holds `words`; empty if the menu is closed.
    pub fn menu(words: &str) -> Vec<Self> {
        let Some(typed) = words.strip_prefix('/') else {
            return Vec::new();
        };
        let typed = typed.to_lowercase();
        let all = Self::COMMANDS.into_iter();
        all.filter(|kind| kind.command().starts_with(&typed))
            .collect()
    }

    /// Placeholder of the text box.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Free => text("Ask about the picture", "就图片提问"),
            Self::Find => text(
                "What to find, for example: cat; tree",
                "要找什么，例如：cat; tree",
            ),
            Self::Count => text(
                "What to count, for example: apples",
                "要数什么，例如：apples",
            ),
            Self::Describe | Self::DescribeLong => {
                text("Nothing to add: just send", "无需填写，直接发送")
            }
            Self::Name | Self::DescribeBox => text(
                "Select a box in the picture, or type its number",
                "在图片中选一个框，或输入它的编号",
            ),
        }
    }

    /// Whether a draft can be sent.
    pub fn is_complete(self, draft: &str) -> bool {
        let needs_none = matches!(self, Self::Describe | Self::DescribeLong);
        let has_words = needs_none || !draft.trim().is_empty();
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
        let words = &without_turn_marks(&hashes_to_marks(words.trim(), candidates));
        let things = list(words);
        let english: Vec<&str> = things.iter().map(|t| kind_words::english(t)).collect();
        let marks: Vec<String> = things.iter().map(|thing| bracketed(thing)).collect();
        let tags: Vec<String> = marks.iter().map(|mark| cite(mark, candidates)).collect();
        match self {
            Self::Free => (words.to_owned(), cite(words, candidates)),
            Self::Find => (
                say!("Find {}", "查找 {}", things.join(", ")),
                prompt::Task::Detect.question(&english),
            ),
            Self::Count => (
                say!("Count {}", "数一数 {}", things.join(", ")),
                prompt::Task::Count.question(&english_plurals(&things)),
            ),
            Self::Describe => (
                text("Describe the picture", "描述图片").to_owned(),
                prompt::Task::BriefCaption.question::<&str>(&[]),
            ),
            Self::Name => (
                say!("Name {}", "命名 {}", marks.join(", ")),
                prompt::Task::Name.question(&tags),
            ),
            Self::DescribeBox => (
                say!("Describe {}", "描述 {}", marks.join(", ")),
                prompt::Task::Phrase.question(&tags),
            ),
            Self::DescribeLong => (
                text("Describe the picture in detail", "详细描述图片").to_owned(),
                prompt::Task::DetailedCaption.question::<&str>(&[]),
            ),
        }
    }
}

/// `#3` becomes the mark `[3]` where there is a box with this number.
pub fn hashes_to_marks(words: &str, candidates: &Candidates) -> String {
    replace_hashes(words, candidates, false).0
}

/// The same for words that are being typed: a number at the end may go on, so it stays. Also gives the
/// place of the caret, both places in UTF-16 units.
pub fn typed_hashes(words: &str, caret: usize, candidates: &Candidates) -> (String, usize) {
    let (text, places) = replace_hashes(words, candidates, true);
    let before = places.iter().filter(|&&place| place <= caret).count();
    (text, caret + before)
}

/// The replaced text, and where in `words` the replaced numbers end, in UTF-16 units.
fn replace_hashes(words: &str, candidates: &Candidates, typing: bool) -> (String, Vec<usize>) {
    let mut out = String::with_capacity(words.len());
    let mut places = Vec::new();
    let mut rest = words;
    while let Some(start) = rest.find('#') {
        let before = &rest[..start];
        out.push_str(before);
        let after = &rest[start + 1..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let begins = out
            .chars()
            .next_back()
            .is_none_or(|c| !c.is_alphanumeric() && c != '&');
        let goes_on = after[digits..].chars().next().map(char::is_alphanumeric);
        let is_whole = goes_on.map_or(!typing, |goes_on| !goes_on);
        let number = after[..digits].parse().ok();
        let number = number.filter(|&n| begins && is_whole && candidates.get(n).is_some());
        match number {
            Some(number) => {
                out.push_str(&format!("[{number}]"));
                rest = &after[digits..];
                let end = words.len() - rest.len();
                places.push(words[..end].encode_utf16().count());
            }
            None => {
                out.push('#');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    (out, places)
}

/// Marks of turns in a question, such as `<|im_end|>`, are control words to a model. A space inside
/// makes them plain words.
pub fn without_turn_marks(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(start) = rest.find('<') {
        out.push_str(&rest[..=start]);
        rest = &rest[start + 1..];
        let is_mark = rest.starts_with('|')
            || ["s>", "/s>", "bos>", "eos>", "unk>", "pad>"]
                .iter()
                .any(|end| rest.starts_with(end));
        if is_mark {
            out.push(' ');
        }
    }
    out.push_str(rest);
    out
}

/// A box that a draft names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cited {
    /// Its number.
    pub number: u32,
    /// What it is, if known.
    pub label: Option<String>,
}

/// The boxes that a draft names, each once, in order.
pub fn cited(words: &str, candidates: &Candidates) -> Vec<Cited> {
    let mut found: Vec<Cited> = Vec::new();
    for number in marks(words) {
        let Some(candidate) = candidates.get(number) else {
            continue;
        };
        if found.iter().all(|cited| cited.number != number) {
            let label = candidate.label.clone();
            found.push(Cited { number, label });
        }
    }
    found
}

/// The draft without the marks of a box.
pub fn without_mark(words: &str, number: u32) -> String {
    let mark = format!("[{number}]");
    let parts: Vec<&str> = words.split(&mark).collect();
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        let closes_gap = index > 0 && (out.is_empty() || out.ends_with(' '));
        out.push_str(if closes_gap {
            part.strip_prefix(' ').unwrap_or(part)
        } else {
            part
        });
    }
    out
}

/// The numbers of the marks `[K]` in a draft.
fn marks(words: &str) -> Vec<u32> {
    let parts = words.split('[').skip(1);
    let inside = parts.filter_map(|part| part.split_once(']').map(|(inside, _)| inside));
    inside.filter_map(|inside| inside.parse().ok()).collect()
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
    let things = words
        .split([',', ';', '\n', '，', '；', '、'])
        .map(str::trim);
    things.filter(|thing| !thing.is_empty()).collect()
}

/// Things to count in English: the model is asked for several of a kind.
fn english_plurals(things: &[&str]) -> Vec<String> {
    let plural = |thing: &&str| match kind_words::english(thing) {
        same if same == *thing => same.to_owned(),
        english => plural(english),
    };
    things.iter().map(plural).collect()
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
    use crate::chat::words::{Language, speak};

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
    fn a_question_in_chinese_is_asked_in_english() {
        speak(Language::Chinese);
        let none = Candidates::default();
        let phrase = |kind: QuestionKind, words| kind.phrase(words, &none);
        let (shown, question) = phrase(QuestionKind::Find, "狗；wolf、 猫");
        assert_eq!(shown, "查找 狗, wolf, 猫");
        assert_eq!(
            question,
            prompt::Task::Detect.question(&["dog", "wolf", "cat"])
        );
        let (shown, question) = phrase(QuestionKind::Count, "人");
        assert_eq!(shown, "数一数 人");
        assert_eq!(question, prompt::Task::Count.question(&["people"]));
        let draft = Draft::translated("Where?", "在哪里？");
        assert_eq!(draft.phrase(&none), ("在哪里？".into(), "Where?".into()));
        speak(Language::English);
        assert_eq!(Draft::translated("Where?", "在哪里？").exact, None);
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
            (QuestionKind::DescribeLong, "", true),
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
    fn a_number_sign_names_a_box_that_there_is() {
        let boxes = three_boxes();
        for (words, expected) in [
            ("what is #1?", "what is [1]?"),
            ("#0 or #2", "[0] or [2]"),
            ("#7 is not there", "#7 is not there"),
            ("C#1 and &#1; and #1a", "C#1 and &#1; and #1a"),
            ("# 1 ##1", "# 1 #[1]"),
        ] {
            assert_eq!(hashes_to_marks(words, &boxes), expected);
        }
        for (words, caret, expected) in [
            ("is #1", 5, ("is #1", 5)),
            ("is #1 ", 6, ("is [1] ", 7)),
            ("é #1, #2? z", 5, ("é [1], [2]? z", 6)),
            ("x #1 y", 1, ("x [1] y", 1)),
        ] {
            let (text, caret) = typed_hashes(words, caret, &boxes);
            assert_eq!((text.as_str(), caret), expected, "{words}");
        }
    }

    #[test]
    fn marks_of_turns_become_plain_words() {
        for (words, expected) in [
            ("a<|im_end|>\n<|im_start|>b", "a< |im_end|>\n< |im_start|>b"),
            (
                "</s><s> a < b <obj1> <small>",
                "< /s>< s> a < b <obj1> <small>",
            ),
        ] {
            assert_eq!(without_turn_marks(words), expected);
        }
        let (_, question) = QuestionKind::Find.phrase("<|im_end|>", &three_boxes());
        assert!(!question.contains("<|"), "{question}");
        let exact = Draft {
            exact: Some("is [1] red?</s>".into()),
            ..Draft::new(QuestionKind::Find, "cat")
        };
        let (shown, question) = exact.phrase(&three_boxes());
        assert_eq!(
            (shown.as_str(), question.as_str()),
            ("Find cat", "is <obj1> red?< /s>")
        );
        assert!(exact.things().is_empty());
    }

    #[test]
    fn the_menu_lists_the_kinds_that_begin_with_the_typed_word() {
        let names = |words| -> Vec<_> {
            let kinds = QuestionKind::menu(words).into_iter();
            kinds.map(QuestionKind::command).collect()
        };
        let all = ["find", "count", "describe", "describe-long", "name", "ask"];
        assert_eq!(names("/"), all);
        assert_eq!(names("/De"), ["describe", "describe-long"]);
        assert_eq!(names("/describe-"), ["describe-long"]);
        assert!(names("/x").is_empty() && names("").is_empty() && names("a/").is_empty());
    }

    #[test]
    fn boxes_in_a_draft_are_listed_once_and_can_be_taken_out() {
        let mut boxes = three_boxes();
        boxes.boxes[1].label = Some("cat".into());
        let draft = "is [1] left of [2], or [1] of [9]?";
        let found: Vec<_> = cited(draft, &boxes)
            .into_iter()
            .map(|c| (c.number, c.label))
            .collect();
        assert_eq!(found, [(1, Some("cat".to_owned())), (2, None)]);
        assert_eq!(without_mark(draft, 1), "is left of [2], or of [9]?");
        assert_eq!(without_mark("[1] a", 1), "a");
        assert_eq!(without_mark("[1][1]", 1), "");
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
