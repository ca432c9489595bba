//! Steps on text: noun phrases of a caption with their objects, the check of a description, its rewriting
//! into a referring expression.

use crate::scenes::labels::KINDS;
use crate::text::kinds::plural;

/// Words of a referring expression.
const REFERRING_WORDS: std::ops::RangeInclusive<usize> = 6..=9;
/// Words of a description, at least: fewer are a name.
const MIN_WORDS: usize = 3;
/// Words of a description, at most.
const MAX_WORDS: usize = 60;
/// Words of a repeated part of a description that a model produced in a loop.
const LOOP_WORDS: usize = 3;

/// Why a text is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Empty, too short for a description, or too long.
    Length,
    /// The same words again and again.
    Repeats,
    /// It does not name the kind of its object.
    OtherKind,
    /// It has tags of boxes where none belong, or control words.
    Tags,
    /// No referring expression of 6 to 9 words is in it.
    NoExpression,
    /// The grounder finds another object for it.
    NotFound,
    /// No phrase has a box.
    NoBox,
    /// The picture cannot be read, or is too small.
    Picture,
    /// The picture has little content before a plain background.
    PlainBackground,
}

/// Lower-case words without marks at their ends.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| {
            word.trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// The words for one object of `kind` and for several: its name, and the synonyms that the models know.
pub(super) fn names(kind: &str) -> (Vec<String>, Vec<String>) {
    let (mut one, mut many) = (vec![kind.to_owned()], vec![plural(kind)]);
    if let Some(known) = KINDS.iter().find(|known| known.name == kind) {
        many.push(known.plural.to_owned());
        for (singular, plural) in known.synonyms {
            one.push(singular.to_lowercase());
            many.push(plural.to_lowercase());
        }
    }
    (one, many)
}

/// Positions of `name` among `words`.
fn places(words: &[String], name: &str) -> Vec<usize> {
    let name: Vec<&str> = name.split_whitespace().collect();
    if name.is_empty() {
        return Vec::new();
    }
    let windows = words.windows(name.len()).enumerate();
    windows
        .filter(|(_, window)| window.iter().zip(&name).all(|(a, b)| a == b))
        .map(|(at, _)| at)
        .collect()
}

/// Whether `text` names `kind`, by its name, its plural or a synonym.
pub(super) fn names_kind(text: &str, kind: &str) -> bool {
    let words = words(text);
    let (one, many) = names(kind);
    let mut all = one.iter().chain(&many);
    all.any(|name| !places(&words, name).is_empty())
}

/// Checks a description of an object of `kind`: the judge of the filter.
///
/// # Errors
/// The reason to leave it out.
pub(super) fn judge(text: &str, kind: &str) -> Result<(), Reason> {
    if text.contains("<obj") || text.contains("<ground>") || text.contains("<image>") {
        return Err(Reason::Tags);
    }
    check_length(text)?;
    if words(text).len() < MIN_WORDS {
        return Err(Reason::Length);
    }
    match names_kind(text, kind) {
        true => Ok(()),
        false => Err(Reason::OtherKind),
    }
}

/// Checks that a text is of a sensible length and no loop.
///
/// # Errors
/// The reason to leave it out.
pub(super) fn check_length(text: &str) -> Result<(), Reason> {
    let words = words(text);
    if words.is_empty() || words.len() > MAX_WORDS {
        return Err(Reason::Length);
    }
    let mut parts: Vec<&[String]> = words.windows(LOOP_WORDS).collect();
    let count = parts.len();
    parts.sort();
    parts.dedup();
    // A third of all parts again is a loop; a short text may say a word twice.
    match count > 6 && parts.len() * 3 < count * 2 {
        true => Err(Reason::Repeats),
        false => Ok(()),
    }
}

/// Words that open a description and do not refer.
const OPENINGS: [&str; 8] = [
    "there is ",
    "this is ",
    "it is ",
    "here is ",
    "we see ",
    "i see ",
    "it shows ",
    "the image shows ",
];
/// Words at which a description can be cut.
const BREAKS: [&str; 9] = [
    "and", "which", "that", "while", "with", "who", "next", "near", "in",
];

/// `description` as a referring expression of more than 5 and fewer than 10 words without commas, which
/// names `kind`; `None` if it does not contain one. Nothing is added except the article.
pub(super) fn rewrite(description: &str, kind: &str) -> Option<String> {
    let lower = description.trim().to_lowercase();
    let mut rest = lower.as_str();
    while let Some(cut) = OPENINGS
        .iter()
        .find_map(|opening| rest.strip_prefix(opening))
    {
        rest = cut.trim_start();
    }
    let sentence = rest.split(['.', '!', '?', ';']).next().unwrap_or_default();
    let mut words: Vec<&str> = sentence
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .collect();
    match words.first() {
        Some(&("a" | "an")) => words[0] = "the",
        Some(&"the") => {}
        _ => words.insert(0, "the"),
    }
    let most = *REFERRING_WORDS.end();
    if words.len() > most {
        // The last place within the limit where a part of the sentence begins.
        let cut = (*REFERRING_WORDS.start()..=most)
            .rev()
            .find(|&at| BREAKS.contains(&words[at]))?;
        words.truncate(cut);
    }
    let expression = words.join(" ");
    let fits = REFERRING_WORDS.contains(&words.len()) && names_kind(&expression, kind);
    fits.then_some(expression)
}

/// A noun phrase of a caption and the objects that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mention {
    /// Bytes of the caption.
    pub(super) range: std::ops::Range<usize>,
    /// The objects.
    pub(super) objects: Vec<usize>,
}

/// Words before a noun that belong to its phrase if they stand there: those that say nothing which the
/// annotations could contradict.
const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// The noun phrases of `caption` that name objects without doubt: the only object of a kind in the
/// singular, all objects of a kind in the plural. `objects` are the objects of each kind that can be counted.
/// A kind that is named twice is left out, and so is one with a word that is part of a longer name.
pub(super) fn mentions(caption: &str, objects: &[(String, Vec<usize>)]) -> Vec<Mention> {
    let tokens = tokens(caption);
    let words: Vec<String> = tokens
        .iter()
        .map(|range| caption[range.clone()].to_lowercase())
        .collect();
    let mut found: Vec<(usize, usize, usize, bool)> = Vec::new();
    for (kind, (name, _)) in objects.iter().enumerate() {
        let (one, many) = names(name);
        let both = one.iter().map(|name| (name, false));
        for (name, several) in both.chain(many.iter().map(|name| (name, true))) {
            let length = name.split_whitespace().count();
            let at = places(&words, name).into_iter();
            found.extend(at.map(|at| (at, length, kind, several)));
        }
    }
    // Of names at the same place the longest.
    found.sort_by_key(|&(at, length, ..)| (at, std::cmp::Reverse(length)));
    let mut last = 0;
    found.retain(|&(at, length, ..)| {
        let free = at >= last;
        if free {
            last = at + length;
        }
        free
    });
    let times = |kind: usize| found.iter().filter(|named| named.2 == kind).count();
    found
        .iter()
        .filter_map(|&(at, length, kind, several)| {
            let members = &objects[kind].1;
            let agrees = match several {
                // Some names are their own plural.
                true => members.len() > 1,
                false => members.len() == 1,
            };
            if !agrees || times(kind) > 1 {
                return None;
            }
            let first = match at.checked_sub(1) {
                Some(before) if ARTICLES.contains(&words[before].as_str()) => before,
                _ => at,
            };
            Some(Mention {
                range: tokens[first].start..tokens[at + length - 1].end,
                objects: members.clone(),
            })
        })
        .collect()
}

/// The bytes of every word.
fn tokens(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut tokens = Vec::new();
    let mut start = None;
    for (at, character) in text.char_indices() {
        let part = character.is_alphanumeric() || character == '\'' || character == '-';
        match (part, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                tokens.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    tokens.extend(start.map(|from| from..text.len()));
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_judged() {
        assert_eq!(judge("A brown dog on the grass.", "dog"), Ok(()));
        assert_eq!(judge("Two women with a child", "person"), Ok(()));
        assert_eq!(judge("A cat on the grass.", "dog"), Err(Reason::OtherKind));
        assert_eq!(judge("a hot dog", "cat"), Err(Reason::OtherKind));
        assert_eq!(judge(" . ", "dog"), Err(Reason::Length));
        assert_eq!(judge("a dog", "dog"), Err(Reason::Length));
        assert_eq!(judge(&"dog ".repeat(70), "dog"), Err(Reason::Length));
        let again = "the dog is red ".repeat(5);
        assert_eq!(judge(&again, "dog"), Err(Reason::Repeats));
        assert_eq!(judge("the <obj1> dog", "dog"), Err(Reason::Tags));
    }

    #[test]
    fn referring_expressions_have_6_to_9_words_and_no_commas() {
        for (description, kind, expected) in [
            (
                "A large brown dog lying on the green grass.",
                "dog",
                Some("the large brown dog lying on the green grass"),
            ),
            (
                "There is a small, red car parked beside the old house and a tree.",
                "car",
                Some("the small red car parked beside the old house"),
            ),
            ("A dog.", "dog", None),
            ("a big black cat on the old sofa", "dog", None),
            (
                "This is a puppy that sleeps on a chair",
                "dog",
                Some("the puppy that sleeps on a chair"),
            ),
            (
                "the man standing motionless beside another very very tall elderly man",
                "person",
                None,
            ),
        ] {
            assert_eq!(
                rewrite(description, kind).as_deref(),
                expected,
                "{description}"
            );
        }
    }

    #[test]
    fn phrases_name_objects_without_doubt() {
        let objects = [
            ("person".to_owned(), vec![0]),
            ("dog".to_owned(), vec![1, 2]),
            ("hot dog".to_owned(), vec![3]),
            ("car".to_owned(), vec![4, 5]),
        ];
        let caption = "A man with the dogs, a hot dog and a car beside a bench.";
        let found = mentions(caption, &objects);
        let texts: Vec<&str> = found.iter().map(|m| &caption[m.range.clone()]).collect();
        assert_eq!(texts, ["A man", "the dogs", "a hot dog"]);
        assert_eq!(found[1].objects, [1, 2]);
        // Twice named: which of them is which is not known.
        assert_eq!(mentions("a man and another man", &objects), []);
        assert_eq!(mentions("", &objects), []);
        let accents = "Ünïcode é man.";
        let found = mentions(accents, &objects);
        assert_eq!(&accents[found[0].range.clone()], "man");
    }
}
