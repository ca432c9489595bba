//! The answer grammar (`chatrex.md` 9): text with `<ground>phrase</ground><objects><objK>..</objects>`.
//!
//! Two readers of the same text. [`spans`] (and [`AnswerParser`], for an answer that is still being
//! written) keeps every word and every index, and takes whatever a model may write: tags that lead
//! nowhere are dropped and their words stay as plain words. [`compat`] is the original's, for its
//! metrics only.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A piece of an answer: words, and the boxes they name (empty for plain words).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The words, without tags; `[K]` where the model named box K without words.
    pub text: String,
    /// Indices of the boxes named; may lie beyond the boxes given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<u32>,
}

/// Reads an answer while it is being written.
#[derive(Clone, Debug, Default)]
pub struct AnswerParser {
    text: String,
}

impl AnswerParser {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next stretch of the answer; it may end anywhere.
    pub fn push(&mut self, stretch: &str) {
        self.text.push_str(stretch);
    }

    /// The answer so far, with tags.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The answer so far. What may become a tag is held back; a phrase is plain words until its
    /// list of boxes is complete.
    pub fn spans(&self) -> Vec<Span> {
        read(without_begun_tag(&self.text), false)
    }

    /// The answer, now that nothing more comes.
    pub fn finish(self) -> Vec<Span> {
        spans(&self.text)
    }
}

/// A complete answer in pieces. A list of boxes that the end cuts off counts as far as it goes.
pub fn spans(text: &str) -> Vec<Span> {
    read(text, true)
}

/// A tag, or the words between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Words(&'a str),
    Ground,
    EndGround,
    Objects,
    EndObjects,
    Index(u32),
}

const TAGS: [(&str, Piece); 4] = [
    ("<ground>", Piece::Ground),
    ("</ground>", Piece::EndGround),
    ("<objects>", Piece::Objects),
    ("</objects>", Piece::EndObjects),
];

/// Longest number in an index tag.
const DIGITS: usize = 6;

/// The tag that `text` begins with, and what follows it.
fn leading_tag(text: &str) -> Option<(Piece<'_>, &str)> {
    let fixed = TAGS
        .iter()
        .find_map(|&(tag, piece)| Some((piece, text.strip_prefix(tag)?)));
    fixed.or_else(|| {
        let (number, rest) = text.strip_prefix("<obj")?.split_once('>')?;
        (is_number(number) && !number.is_empty())
            .then(|| (Piece::Index(number.parse().expect("few digits")), rest))
    })
}

fn is_number(text: &str) -> bool {
    text.len() <= DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `text` up to where its end may be the beginning of a tag.
fn without_begun_tag(text: &str) -> &str {
    let Some(start) = text.rfind('<') else {
        return text;
    };
    let end = &text[start..];
    let begun = TAGS
        .iter()
        .any(|(tag, _)| tag.starts_with(end) && *tag != end)
        || "<obj".starts_with(end)
        || end.strip_prefix("<obj").is_some_and(is_number);
    if begun { &text[..start] } else { text }
}

fn pieces(mut text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let mut starts = text.match_indices('<').map(|(start, _)| start);
        let tag = starts.find_map(|start| Some((start, leading_tag(&text[start..])?)));
        let (start, tag) = tag.map_or((text.len(), None), |(start, tag)| (start, Some(tag)));
        if start > 0 {
            pieces.push(Piece::Words(&text[..start]));
        }
        let Some((piece, rest)) = tag else { break };
        pieces.push(piece);
        text = rest;
    }
    pieces
}

/// A group being read.
struct Group<'a> {
    phrase: String,
    objects: Vec<u32>,
    /// Words inside the list of boxes, where none belong.
    stray: String,
    stage: Stage<'a>,
}

#[derive(Clone, Copy)]
enum Stage<'a> {
    Phrase,
    /// Between phrase and list, with the blanks met there.
    Between(&'a str),
    List,
}

impl Group<'_> {
    fn name(&mut self, object: u32) {
        if !self.objects.contains(&object) {
            self.objects.push(object);
        }
    }
}

fn read(text: &str, complete: bool) -> Vec<Span> {
    let mut spans = Spans::default();
    let mut open: Option<Group> = None;
    for piece in pieces(text) {
        let Some(mut group) = open.take() else {
            match piece {
                Piece::Words(words) => spans.words(words),
                Piece::Index(object) => spans.bare(object),
                Piece::Ground => open = Some(begun()),
                Piece::EndGround | Piece::Objects | Piece::EndObjects => {}
            }
            continue;
        };
        match (group.stage, piece) {
            (Stage::Phrase, Piece::Words(words)) => group.phrase.push_str(words),
            (Stage::Phrase, Piece::Index(object)) => {
                group.phrase.push_str(&format!("[{object}]"));
                group.name(object);
            }
            (Stage::Phrase, Piece::EndGround) => group.stage = Stage::Between(""),
            (Stage::Between(""), Piece::Words(blank)) if blank.trim().is_empty() => {
                group.stage = Stage::Between(blank);
            }
            (Stage::Between(_), Piece::Objects) => group.stage = Stage::List,
            (Stage::List, Piece::Words(words)) => group.stray.push_str(words.trim()),
            (Stage::List, Piece::Index(object)) => group.name(object),
            (Stage::List, Piece::EndObjects) => {
                spans.group(group);
                continue;
            }
            (_, Piece::Ground) => {
                spans.group(group);
                open = Some(begun());
                continue;
            }
            (Stage::Phrase, Piece::Objects)
            | (Stage::Between(_), Piece::Words(_) | Piece::Index(_)) => {
                spans.group(group);
                match piece {
                    Piece::Words(words) => spans.words(words),
                    Piece::Index(object) => spans.bare(object),
                    _ => {}
                }
                continue;
            }
            (_, Piece::EndGround | Piece::Objects | Piece::EndObjects) => {}
        }
        open = Some(group);
    }
    if let Some(mut group) = open {
        if !complete {
            group.objects.clear();
            group.stage = Stage::List;
        }
        spans.group(group);
    }
    spans.0
}

fn begun<'a>() -> Group<'a> {
    Group {
        phrase: String::new(),
        objects: Vec::new(),
        stray: String::new(),
        stage: Stage::Phrase,
    }
}

/// The spans so far; neighbouring plain words are one span.
#[derive(Default)]
struct Spans(Vec<Span>);

impl Spans {
    fn words(&mut self, words: &str) {
        match self.0.last_mut() {
            _ if words.is_empty() => {}
            Some(last) if last.objects.is_empty() => last.text.push_str(words),
            _ => self.0.push(Span {
                text: words.to_string(),
                objects: Vec::new(),
            }),
        }
    }

    fn bare(&mut self, object: u32) {
        self.0.push(Span {
            text: format!("[{object}]"),
            objects: vec![object],
        });
    }

    /// Blanks around a phrase stay plain; a phrase without boxes is plain words, and boxes without
    /// a phrase stand alone.
    fn group(&mut self, group: Group) {
        let phrase = group.phrase.trim();
        if phrase.is_empty() || group.objects.is_empty() {
            self.words(&group.phrase);
            for &object in &group.objects {
                self.bare(object);
            }
        } else {
            let (before, after) = group
                .phrase
                .split_once(phrase)
                .expect("a string contains itself trimmed");
            self.words(before);
            self.0.push(Span {
                text: phrase.to_string(),
                objects: group.objects,
            });
            self.words(after);
        }
        self.words(&group.stray);
        if let Stage::Between(blank) = group.stage {
            self.words(blank);
        }
    }
}

/// Which of the original's readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// The ChatRex demo: a group whose every index was named before is dropped.
    ChatRex,
    /// The RexSeek evaluation: keeps such groups, and reads the grammar with single spaces between
    /// its pieces where the proper one gives nothing.
    RexSeekEval,
}

/// What the original makes of an answer (`chatrex.md` 9.2): phrases with their indices, repeats
/// included. Of a repeated phrase only the first group counts. Groups that hold a line break are
/// not seen.
pub fn compat(text: &str, reader: Compat) -> Vec<(String, Vec<u32>)> {
    const PROPER: [&str; 3] = ["<ground>", "</ground><objects>", "</objects>"];
    const SPACED: [&str; 3] = ["<ground> ", " </ground> <objects> ", " </objects>"];
    const REJECTION: &str = "There is no such thing in this image";

    let mut found = groups(text, PROPER);
    if reader == Compat::RexSeekEval {
        if text.contains(REJECTION) {
            return Vec::new();
        }
        if found.is_empty() {
            found = groups(text, SPACED);
        }
    }
    let mut seen = BTreeSet::new();
    let mut kept: Vec<(String, Vec<u32>)> = Vec::new();
    for (phrase, list) in found {
        let objects: Vec<u32> = pieces(list)
            .into_iter()
            .filter_map(|piece| match piece {
                Piece::Index(object) => Some(object),
                _ => None,
            })
            .collect();
        let new = objects.iter().any(|object| !seen.contains(object));
        seen.extend(objects.iter().copied());
        if reader == Compat::ChatRex && !new {
            continue;
        }
        let phrase = phrase.trim();
        if kept.iter().all(|(known, _)| known != phrase) {
            kept.push((phrase.to_string(), objects));
        }
    }
    kept
}

/// The (phrase, index) pairs of [`compat`] over `boxes` boxes; indices beyond them are dropped.
pub fn compat_pairs(text: &str, reader: Compat, boxes: usize) -> Vec<(String, u32)> {
    compat(text, reader)
        .into_iter()
        .flat_map(|(phrase, objects)| {
            objects
                .into_iter()
                .filter(|&object| (object as usize) < boxes)
                .map(move |object| (phrase.clone(), object))
        })
        .collect()
}

/// The matches of the regular expression `open(.*?)middle(.*?)close`, where `.` is not a line
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
    fn malformed_answers_keep_their_words() {
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
    fn half_tags_never_show_and_phrases_link_at_the_end_of_their_list() {
        let text = "see <ground>two dogs</ground> <objects><obj0><obj12></objects> <3";
        let mut reader = AnswerParser::new();
        let mut shown = Vec::new();
        for character in text.chars() {
            reader.push(character.encode_utf8(&mut [0; 4]));
            let spans = reader.spans();
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
            reader.finish(),
            [
                span("see ", &[]),
                span("two dogs", &[0, 12]),
                span(" <3", &[])
            ]
        );
    }

    /// A small deterministic source of numbers.
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
            let mut reader = AnswerParser::new();
            let mut stretch = String::new();
            for character in text.chars() {
                stretch.push(character);
                if numbers.below(3) == 0 {
                    reader.push(&std::mem::take(&mut stretch));
                    let so_far = reader.spans();
                    assert!(
                        so_far
                            .windows(2)
                            .all(|pair| { pair.iter().any(|span| !span.objects.is_empty()) }),
                        "neighbouring plain spans in {so_far:?}"
                    );
                }
            }
            reader.push(&stretch);
            assert_eq!(reader.finish(), whole, "{text}");
        }
    }
}
