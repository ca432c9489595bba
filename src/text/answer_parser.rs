//! Parses answers: text with groups `<ground>phrase</ground><objects><objK>..</objects>`
//! (`docs/reference/chatrex.md`, section 9).
//!
//! There are two parsers. [`spans`] (and [`AnswerParser`], for an answer that is being generated)
//! keeps all text and every index and accepts anything that a model may generate: unmatched tags are
//! dropped and the text between them stays plain text. [`compat`] reproduces the parsers of the
//! original projects, for their metrics only.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A part of an answer: text, and the boxes that it names (none for plain text).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Text without tags; `[K]` if the model named box K without a phrase.
    pub text: String,
    /// Indices of the boxes named; may be beyond the boxes of the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<u32>,
    /// True for a phrase whose boxes are still to come.
    #[serde(default, skip_serializing_if = "is_false")]
    pub open: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Parses an answer while it is generated.
#[derive(Clone, Debug, Default)]
pub struct AnswerParser {
    text: String,
}

impl AnswerParser {
    /// A parser without text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the next piece of the answer; it may end anywhere, even inside a tag.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The answer so far, with tags.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The spans so far. An incomplete tag at the end is withheld; a phrase is [open](Span::open) until
    /// its list of boxes is complete.
    pub fn spans(&self) -> Vec<Span> {
        parse(without_incomplete_tag(&self.text), false)
    }

    /// The spans of the complete answer.
    pub fn finish(self) -> Vec<Span> {
        spans(&self.text)
    }
}

/// The spans of a complete answer. A list of boxes without its end tag counts.
pub fn spans(text: &str) -> Vec<Span> {
    parse(text, true)
}

/// A tag, or the text between two tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Text(&'a str),
    Ground,
    EndGround,
    Objects,
    EndObjects,
    Index(u32),
}

const TAGS: [(&str, Token); 4] = [
    ("<ground>", Token::Ground),
    ("</ground>", Token::EndGround),
    ("<objects>", Token::Objects),
    ("</objects>", Token::EndObjects),
];

/// Most digits of an index tag.
const MAX_DIGITS: usize = 6;

/// The tag that `text` starts with, and the text after it.
fn leading_tag(text: &str) -> Option<(Token<'_>, &str)> {
    let fixed = TAGS
        .iter()
        .find_map(|&(tag, token)| Some((token, text.strip_prefix(tag)?)));
    fixed.or_else(|| {
        let (number, rest) = text.strip_prefix("<obj")?.split_once('>')?;
        (is_number(number) && !number.is_empty())
            .then(|| (Token::Index(number.parse().expect("few digits")), rest))
    })
}

fn is_number(text: &str) -> bool {
    text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `text` without an incomplete tag at its end.
fn without_incomplete_tag(text: &str) -> &str {
    let Some(start) = text.rfind('<') else {
        return text;
    };
    let end = &text[start..];
    let incomplete = TAGS
        .iter()
        .any(|(tag, _)| tag.starts_with(end) && *tag != end)
        || "<obj".starts_with(end)
        || end.strip_prefix("<obj").is_some_and(is_number);
    if incomplete { &text[..start] } else { text }
}

/// Splits `text` into tags and the text between them.
fn tokenize(mut text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    while !text.is_empty() {
        let mut starts = text.match_indices('<').map(|(start, _)| start);
        let tag = starts.find_map(|start| Some((start, leading_tag(&text[start..])?)));
        let (start, tag) = tag.map_or((text.len(), None), |(start, tag)| (start, Some(tag)));
        if start > 0 {
            tokens.push(Token::Text(&text[..start]));
        }
        let Some((token, rest)) = tag else { break };
        tokens.push(token);
        text = rest;
    }
    tokens
}

/// A group that is being parsed.
struct Group<'a> {
    phrase: String,
    objects: Vec<u32>,
    /// Text inside the list of boxes, which the grammar does not allow.
    stray: String,
    state: GroupState<'a>,
}

/// The part of a group that the next token belongs to.
#[derive(Clone, Copy)]
enum GroupState<'a> {
    Phrase,
    /// Between phrase and list, with the white space found there.
    Between(&'a str),
    List,
}

impl Group<'_> {
    fn new() -> Self {
        Self {
            phrase: String::new(),
            objects: Vec::new(),
            stray: String::new(),
            state: GroupState::Phrase,
        }
    }

    fn add_object(&mut self, object: u32) {
        if !self.objects.contains(&object) {
            self.objects.push(object);
        }
    }
}

/// Parses an answer, `complete` or so far.
fn parse(text: &str, complete: bool) -> Vec<Span> {
    let mut spans = Spans::default();
    let mut open: Option<Group> = None;
    for token in tokenize(text) {
        let Some(mut group) = open.take() else {
            match token {
                Token::Text(text) => spans.push_text(text),
                Token::Index(object) => spans.push_index(object),
                Token::Ground => open = Some(Group::new()),
                Token::EndGround | Token::Objects | Token::EndObjects => {}
            }
            continue;
        };
        match (group.state, token) {
            (GroupState::Phrase, Token::Text(text)) => group.phrase.push_str(text),
            (GroupState::Phrase, Token::Index(object)) => {
                group.phrase.push_str(&format!("[{object}]"));
                group.add_object(object);
            }
            (GroupState::Phrase, Token::EndGround) => group.state = GroupState::Between(""),
            (GroupState::Between(""), Token::Text(space)) if space.trim().is_empty() => {
                group.state = GroupState::Between(space);
            }
            (GroupState::Between(_), Token::Objects) => group.state = GroupState::List,
            (GroupState::List, Token::Text(text)) => group.stray.push_str(text.trim()),
            (GroupState::List, Token::Index(object)) => group.add_object(object),
            (GroupState::List, Token::EndObjects) => {
                spans.push_group(group, false);
                continue;
            }
            (_, Token::Ground) => {
                spans.push_group(group, false);
                open = Some(Group::new());
                continue;
            }
            (GroupState::Phrase, Token::Objects)
            | (GroupState::Between(_), Token::Text(_) | Token::Index(_)) => {
                spans.push_group(group, false);
                match token {
                    Token::Text(text) => spans.push_text(text),
                    Token::Index(object) => spans.push_index(object),
                    _ => {}
                }
                continue;
            }
            (_, Token::EndGround | Token::Objects | Token::EndObjects) => {}
        }
        open = Some(group);
    }
    if let Some(mut group) = open {
        if !complete {
            group.objects.clear();
            group.state = GroupState::List;
        }
        spans.push_group(group, !complete);
    }
    spans.0
}

/// The spans so far; adjacent plain text is one span.
#[derive(Default)]
struct Spans(Vec<Span>);

impl Spans {
    fn push_text(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.objects.is_empty() && !last.open => last.text.push_str(text),
            _ => self.0.push(Span {
                text: text.to_string(),
                ..Span::default()
            }),
        }
    }

    fn push_index(&mut self, object: u32) {
        self.0.push(Span {
            text: format!("[{object}]"),
            objects: vec![object],
            open: false,
        });
    }

    /// White space around a phrase stays plain text; a phrase without boxes is plain text unless it is
    /// `open`, and boxes without a phrase are spans of their own.
    fn push_group(&mut self, group: Group, open: bool) {
        let phrase = group.phrase.trim();
        if phrase.is_empty() || (group.objects.is_empty() && !open) {
            self.push_text(&group.phrase);
            for &object in &group.objects {
                self.push_index(object);
            }
        } else {
            let (before, after) = group
                .phrase
                .split_once(phrase)
                .expect("a string contains itself trimmed");
            self.push_text(before);
            self.0.push(Span {
                text: phrase.to_string(),
                objects: group.objects,
                open,
            });
            self.push_text(after);
        }
        self.push_text(&group.stray);
        if let GroupState::Between(space) = group.state {
            self.push_text(space);
        }
    }
}

/// The parser of an original project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// The ChatRex demo: drops a group if all its tags occurred before.
    ChatRex,
    /// The RexSeek evaluation: keeps such groups. If the grammar matches nothing, it is tried with a
    /// single space between the tags.
    RexSeekEval,
}

/// Parses an answer as an original project does (`docs/reference/chatrex.md`, section 9.2): phrases
/// with their index tags as written, repeated tags included, so that `<obj00>` is not `<obj0>`. Of a
/// repeated phrase only the first group counts. A group must not contain a line break.
pub fn compat(text: &str, parser: Compat) -> Vec<(String, Vec<String>)> {
    const STRICT: [&str; 3] = ["<ground>", "</ground><objects>", "</objects>"];
    const SPACED: [&str; 3] = ["<ground> ", " </ground> <objects> ", " </objects>"];
    const REJECTION: &str = "There is no such thing in this image";

    let mut found = groups(text, STRICT);
    if parser == Compat::RexSeekEval {
        if text.contains(REJECTION) {
            return Vec::new();
        }
        if found.is_empty() {
            found = groups(text, SPACED);
        }
    }
    let mut seen = BTreeSet::new();
    let mut kept: Vec<(String, Vec<String>)> = Vec::new();
    for (phrase, list) in found {
        let tags = index_tags(list);
        let any_new = tags.iter().any(|tag| !seen.contains(tag));
        seen.extend(tags.iter().copied());
        if parser == Compat::ChatRex && !any_new {
            continue;
        }
        let phrase = phrase.trim_matches(is_python_space);
        if kept.iter().all(|(known, _)| known != phrase) {
            let tags = tags.into_iter().map(str::to_string).collect();
            kept.push((phrase.to_string(), tags));
        }
    }
    kept
}

/// The (phrase, index) pairs of [`compat`] for `boxes` boxes. An index is the number in its tag;
/// indices of no box are dropped.
pub fn compat_pairs(text: &str, parser: Compat, boxes: usize) -> Vec<(String, u32)> {
    let index = |tag: &str| {
        let digits = tag.strip_prefix("<obj")?.strip_suffix('>')?;
        // A number that does not fit is beyond all boxes.
        let index: u32 = digits.parse().ok()?;
        ((index as usize) < boxes).then_some(index)
    };
    compat(text, parser)
        .into_iter()
        .flat_map(|(phrase, tags)| {
            let indices: Vec<u32> = tags.iter().filter_map(|tag| index(tag)).collect();
            indices
                .into_iter()
                .map(move |index| (phrase.clone(), index))
        })
        .collect()
}

/// The matches of the regular expression `<obj\d+>` in `list`, for ASCII digits.
fn index_tags(list: &str) -> Vec<&str> {
    list.match_indices("<obj")
        .filter_map(|(start, prefix)| {
            let rest = &list[start + prefix.len()..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let end = start + prefix.len() + digits;
            (digits > 0 && list[end..].starts_with('>')).then(|| &list[start..=end])
        })
        .collect()
}

/// The characters that `str.strip` of Python removes: white space, and four separators that Unicode
/// does not count as such.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The matches of the regular expression `open(.*?)middle(.*?)close`, where `.` does not match a line
/// break.
fn groups<'a>(mut text: &'a str, [open, middle, close]: [&str; 3]) -> Vec<(&'a str, &'a str)> {
    let mut groups = Vec::new();
    while let Some((_, after)) = text.split_once(open) {
        let line = after.split('\n').next().unwrap_or(after);
        let parts = line.split_once(middle).and_then(|(phrase, rest)| {
            let (list, _) = rest.split_once(close)?;
            Some((phrase, list))
        });
        text = match parts {
            Some((phrase, list)) => {
                groups.push((phrase, list));
                &after[phrase.len() + middle.len() + list.len() + close.len()..]
            }
            None => after,
        };
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, objects: &[u32]) -> Span {
        Span {
            text: text.to_string(),
            objects: objects.to_vec(),
            open: false,
        }
    }

    #[test]
    fn whole_answers() {
        for (text, expected) in [
            ("plain words", vec![span("plain words", &[])]),
            ("", vec![]),
            (
                "a <ground>wooden TV stand</ground><objects><obj3></objects>holding",
                vec![
                    span("a ", &[]),
                    span("wooden TV stand", &[3]),
                    span("holding", &[]),
                ],
            ),
            (
                "<ground>cat</ground><objects><obj1><obj0><obj1><obj120></objects>\n<ground> dog </ground> <objects> <obj2> </objects>.",
                vec![
                    span("cat", &[1, 0, 120]),
                    span("\n ", &[]),
                    span("dog", &[2]),
                    span(" .", &[]),
                ],
            ),
            (
                "what <obj4> holds",
                vec![span("what ", &[]), span("[4]", &[4]), span(" holds", &[])],
            ),
            (
                "<ground></ground><objects><obj2></objects>",
                vec![span("[2]", &[2])],
            ),
            (
                "<ground>dog</ground><objects></objects>",
                vec![span("dog", &[])],
            ),
            (
                "<ground>a <obj2> b</ground><objects><obj5></objects>",
                vec![span("a [2] b", &[2, 5])],
            ),
        ] {
            assert_eq!(spans(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed_answers_keep_their_text() {
        for (text, expected) in [
            ("<ground>unclosed", vec![span("unclosed", &[])]),
            ("<ground>a</ground> b", vec![span("a b", &[])]),
            (
                "<ground>a</ground> <ground>b</ground>",
                vec![span("a b", &[])],
            ),
            (
                "<ground>x<objects><obj1></objects>",
                vec![span("x", &[]), span("[1]", &[1])],
            ),
            (
                "<ground>t</ground><objects>obj3 <obj3></objects>!",
                vec![span("t", &[3]), span("obj3!", &[])],
            ),
            (
                "<ground>cut</ground><objects><obj1><ob",
                vec![span("cut", &[1]), span("<ob", &[])],
            ),
            ("</objects>a</ground><objects>b <", vec![span("ab <", &[])]),
            (
                "1 < 2 <obj> <obj1234567> <b>",
                vec![span("1 < 2 <obj> <obj1234567> <b>", &[])],
            ),
        ] {
            assert_eq!(spans(text), expected, "{text}");
        }
    }

    #[test]
    fn incomplete_tags_are_withheld_and_phrases_link_at_the_end_of_their_list() {
        let text = "see <ground>two dogs</ground> <objects><obj0><obj12></objects> <3";
        let mut parser = AnswerParser::new();
        let mut shown = Vec::new();
        for character in text.chars() {
            parser.push(character.encode_utf8(&mut [0; 4]));
            let spans = parser.spans();
            let joined: String = spans.iter().map(|span| span.text.as_str()).collect();
            assert!(
                !joined.contains("obj") && !joined.contains("gro"),
                "{joined}"
            );
            shown.push((joined, spans.iter().any(|span| !span.objects.is_empty())));
        }
        let end_of_list = text.find("</objects>").expect("is there") + "</objects>".len();
        for (at, (joined, linked)) in shown.iter().enumerate() {
            assert_eq!(*linked, at + 1 >= end_of_list, "{joined}");
        }
        for pair in shown.windows(2) {
            assert!(pair[1].0.starts_with(&pair[0].0), "{pair:?}");
        }
        assert_eq!(
            parser.finish(),
            [
                span("see ", &[]),
                span("two dogs", &[0, 12]),
                span(" <3", &[])
            ]
        );
    }

    /// Index tags are compared and kept as written; only pairs take their numbers.
    #[test]
    fn compat_keeps_tags_as_written() {
        let text = "<ground>cat</ground><objects><obj0><obj00></objects>\
                    <ground>dog</ground><objects><obj00><obj007></objects>\
                    <ground>owl</ground><objects><obj7></objects>\
                    <ground>fox</ground><objects><obj007><obj0></objects>";
        let group = |phrase: &str, tags: &[&str]| {
            let tags = tags.iter().map(|tag| (*tag).to_string());
            (phrase.to_string(), tags.collect::<Vec<_>>())
        };
        let mut expected = vec![
            group("cat", &["<obj0>", "<obj00>"]),
            group("dog", &["<obj00>", "<obj007>"]),
            group("owl", &["<obj7>"]),
        ];
        assert_eq!(compat(text, Compat::ChatRex), expected);
        expected.push(group("fox", &["<obj007>", "<obj0>"]));
        assert_eq!(compat(text, Compat::RexSeekEval), expected);
        let pairs = [("cat", 0), ("cat", 0), ("dog", 0), ("dog", 7), ("owl", 7)];
        assert_eq!(
            compat_pairs(text, Compat::ChatRex, 8),
            pairs.map(|(phrase, index)| (phrase.to_string(), index))
        );
        assert_eq!(compat_pairs(text, Compat::ChatRex, 7).len(), 3);
    }

    #[test]
    fn compat_accepts_numbers_of_any_length_and_no_other_tags() {
        let list = "<obj12345678901234567890><obj><obj-1><objx><obj1 ><obj<obj2>";
        let text = format!("<ground>\u{1c}a\u{a0}</ground><objects>{list}</objects>");
        let tags = ["<obj12345678901234567890>", "<obj2>"].map(str::to_string);
        assert_eq!(
            compat(&text, Compat::ChatRex),
            [("a".to_string(), tags.to_vec())]
        );
        assert_eq!(
            compat_pairs(&text, Compat::ChatRex, 100),
            [("a".to_string(), 2)]
        );
    }

    /// A small deterministic generator of numbers.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) as usize % end
        }
    }

    #[test]
    fn a_phrase_is_open_until_its_boxes_are_known() {
        let cases: [(&str, &[(&str, bool)]); 5] = [
            ("a <ground>red", &[("a ", false), ("red", true)]),
            (
                "a <ground>red car</ground><obj",
                &[("a ", false), ("red car", true)],
            ),
            ("<ground>cat</ground><objects><obj1>", &[("cat", true)]),
            (
                "<ground>cat</ground><objects><obj1></objects>",
                &[("cat", false)],
            ),
            ("a <ground> ", &[("a  ", false)]),
        ];
        for (text, expected) in cases {
            let mut parser = AnswerParser::new();
            parser.push(text);
            let found = parser.spans();
            let found: Vec<_> = found.iter().map(|s| (s.text.as_str(), s.open)).collect();
            assert_eq!(found, expected, "{text}");
            assert!(parser.finish().iter().all(|span| !span.open), "{text}");
        }
    }

    #[test]
    fn any_split_of_any_text_gives_the_same_spans() {
        const PARTS: [&str; 16] = [
            "<ground>",
            "</ground>",
            "<objects>",
            "</objects>",
            "<obj1>",
            "<obj99>",
            "<obj",
            "<",
            ">",
            "</",
            "a cat",
            " ",
            "\n",
            "é猫",
            "<obj7",
            "ground",
        ];
        let mut numbers = Numbers(7);
        for _ in 0..3000 {
            let count = numbers.below(12);
            let text: String = (0..count)
                .map(|_| PARTS[numbers.below(PARTS.len())])
                .collect();
            let whole = spans(&text);
            let mut parser = AnswerParser::new();
            let mut pending = String::new();
            for character in text.chars() {
                pending.push(character);
                if numbers.below(3) == 0 {
                    parser.push(&std::mem::take(&mut pending));
                    let so_far = parser.spans();
                    assert!(
                        so_far.windows(2).all(|pair| pair
                            .iter()
                            .any(|span| !span.objects.is_empty() || span.open)),
                        "adjacent plain spans in {so_far:?}"
                    );
                }
            }
            parser.push(&pending);
            assert_eq!(parser.finish(), whole, "{text}");
        }
    }
}
