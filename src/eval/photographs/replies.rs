//! What an answer says: boxes by kind, a number, yes or no, the name of a kind.

use std::collections::{BTreeMap, BTreeSet};

use crate::eval::answers::first_number;
use crate::protocol::Answer;
use crate::scenes::labels::KINDS;
use crate::text::answer_parser::Span;
use crate::text::kinds::plural;

/// The text of an answer and its parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reply {
    /// With tags.
    pub(super) text: String,
    pub(super) spans: Vec<Span>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self {
            text: answer.text,
            spans: answer.spans,
        }
    }
}

impl Reply {
    /// An answer without boxes.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        let span = Span {
            text: text.clone(),
            ..Span::default()
        };
        Self {
            text,
            spans: vec![span],
        }
    }

    /// The indices of the boxes of each kind; `None` for phrases that name no kind.
    pub(super) fn boxes_by_kind(&self, kinds: &Kinds) -> BTreeMap<Option<usize>, BTreeSet<u32>> {
        let mut boxes: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
        for span in self.spans.iter().filter(|span| !span.objects.is_empty()) {
            let kind = kinds.find(&span.text);
            boxes.entry(kind).or_default().extend(&span.objects);
        }
        boxes
    }

    /// The indices of all boxes.
    pub(super) fn boxes(&self) -> BTreeSet<u32> {
        self.spans
            .iter()
            .flat_map(|span| &span.objects)
            .copied()
            .collect()
    }

    /// The index of the first box.
    pub(super) fn first_box(&self) -> Option<u32> {
        self.spans
            .iter()
            .find_map(|span| span.objects.first())
            .copied()
    }

    /// The first number.
    pub(super) fn number(&self) -> Option<usize> {
        first_number(&self.text)
    }

    /// Whether the answer begins with yes or no.
    pub(super) fn yes(&self) -> Option<bool> {
        let text: String = self.spans.iter().map(|span| span.text.as_str()).collect();
        let first = text
            .split(|c: char| !c.is_alphanumeric())
            .find(|word| !word.is_empty());
        match first?.to_lowercase().as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }

    /// The kind that the answer names, also by another word for it.
    pub(super) fn kind_or_synonym(&self, kinds: &Kinds) -> Option<usize> {
        let text: String = self.spans.iter().map(|span| span.text.as_str()).collect();
        kinds.find(&text).or_else(|| kinds.find_synonym(&text))
    }

    /// The kind that the answer names.
    pub(super) fn kind(&self, kinds: &Kinds) -> Option<usize> {
        let text: String = self.spans.iter().map(|span| span.text.as_str()).collect();
        kinds.find(&text)
    }
}

/// The kinds of a data set by name.
pub(super) struct Kinds {
    /// The names by index.
    pub(super) names: Vec<String>,
    /// Index by name and by plural.
    index: BTreeMap<String, usize>,
    /// Index by other words for the kinds that the models of this project know.
    synonyms: BTreeMap<String, usize>,
}

impl Kinds {
    /// The kinds with these names.
    pub(super) fn new(names: Vec<String>) -> Self {
        let plurals = names.iter().map(|name| plural(name)).enumerate();
        let mut index: BTreeMap<String, usize> = plurals.map(|(kind, name)| (name, kind)).collect();
        index.extend(
            names
                .iter()
                .cloned()
                .enumerate()
                .map(|(kind, name)| (name, kind)),
        );
        let mut synonyms = BTreeMap::new();
        for kind in &KINDS {
            let Some(&place) = index.get(kind.name) else {
                continue;
            };
            for (one, many) in kind.synonyms.iter().chain([&(kind.name, kind.plural)]) {
                for word in [one, many].map(|word| word.to_lowercase()) {
                    if !index.contains_key(&word) {
                        synonyms.insert(word, place);
                    }
                }
            }
        }
        Self {
            names,
            index,
            synonyms,
        }
    }

    /// The kind that a phrase ends with, by its longest name: `the hot dogs` is of kind `hot dog`.
    pub(super) fn find(&self, phrase: &str) -> Option<usize> {
        find(&self.index, phrase)
    }

    /// The kind that a phrase ends with by another word for it: `a puppy` is of kind `dog`.
    pub(super) fn find_synonym(&self, phrase: &str) -> Option<usize> {
        find(&self.synonyms, phrase)
    }
}

fn find(index: &BTreeMap<String, usize>, phrase: &str) -> Option<usize> {
    let phrase = phrase.to_lowercase();
    let end = phrase.trim_end_matches(|c: char| !c.is_alphanumeric());
    let words: Vec<&str> = end.split_whitespace().collect();
    (0..words.len()).find_map(|from| index.get(&words[from..].join(" ")).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::answer_parser::spans;

    fn reply(text: &str) -> Reply {
        Reply {
            text: text.into(),
            spans: spans(text),
        }
    }

    #[test]
    fn answers_are_read() {
        let kinds = Kinds::new(["dog", "hot dog", "person"].map(String::from).to_vec());
        let boxes = "<ground>hot dogs</ground><objects><obj0><obj2></objects>\n\
            <ground>the leftmost dog</ground><objects><obj5></objects> <ground>car</ground><objects><obj1></objects>";
        let boxes = reply(boxes);
        let by_kind = boxes.boxes_by_kind(&kinds);
        assert_eq!(by_kind[&Some(1)], BTreeSet::from([0, 2]));
        assert_eq!(by_kind[&Some(0)], BTreeSet::from([5]));
        assert_eq!(by_kind[&None], BTreeSet::from([1]));
        assert_eq!(boxes.first_box(), Some(0));
        assert_eq!(boxes.boxes().len(), 4);
        assert_eq!(reply("Yes, there is a dog.").yes(), Some(true));
        assert_eq!(reply(" no").yes(), Some(false));
        assert_eq!(reply("There is no such thing in this image").yes(), None);
        assert_eq!(reply("Nobody").yes(), None);
        assert_eq!(reply("It is a person.").kind(&kinds), Some(2));
        assert_eq!(reply("people").kind(&kinds), Some(2));
        assert_eq!(reply("dog house").kind(&kinds), None);
        assert_eq!(reply("a small puppy.").kind(&kinds), None);
        assert_eq!(reply("a small puppy.").kind_or_synonym(&kinds), Some(0));
        assert_eq!(reply("two women").kind_or_synonym(&kinds), Some(2));
        assert_eq!(reply("a kitten").kind_or_synonym(&kinds), None);
        assert_eq!(reply("").kind(&kinds), None);
        let counted = "There are three <ground>dogs</ground><objects><obj0><obj7></objects>.";
        assert_eq!(reply(counted).number(), Some(3));
    }
}
