//! A detection answer as a table: what was asked for or found, and its boxes.

use crate::chat::answer::{AnswerPiece, Phrase, is_list};
use crate::chat::kind_words;
use crate::text::kinds::plural;

/// A row: a phrase of the answer with its boxes, or a thing that was asked for and not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The phrase, or the thing as it was asked for.
    pub text: String,
    /// The index of the phrase's piece and the phrase; `None` if nothing was found.
    pub found: Option<(usize, Phrase)>,
}

/// An answer to "Find", or one of phrases only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The rows: phrases in the order of the answer, then what was not found.
    pub rows: Vec<Row>,
    /// Whether the table says all that the answer says; else the words are shown too.
    pub is_all: bool,
}

/// The table of an answer to the question for `asked`, which is empty for other questions. `None` if
/// the answer has neither a list of boxes nor a thing that is missing.
pub fn table(pieces: &[AnswerPiece], asked: &[String]) -> Option<Table> {
    let phrases = pieces
        .iter()
        .enumerate()
        .filter_map(|(index, piece)| match piece {
            AnswerPiece::Phrase(phrase) => Some((index, phrase.clone())),
            AnswerPiece::Text(_) => None,
        });
    let phrases: Vec<_> = phrases.collect();
    let list = is_list(pieces);
    let missing = asked.iter().filter(|thing| {
        let is_found = |(_, phrase): &(usize, Phrase)| {
            !phrase.objects.is_empty() && names(&phrase.text, thing)
        };
        !phrases.iter().any(is_found)
    });
    let missing: Vec<_> = missing
        .map(|thing| Row {
            text: thing.clone(),
            found: None,
        })
        .collect();
    let says_nothing_else = list || (phrases.is_empty() && !asked.is_empty());
    if !list && missing.is_empty() {
        return None;
    }
    let mut rows: Vec<Row> = Vec::new();
    for (index, phrase) in phrases {
        let text = phrase.text.trim().to_owned();
        let known = rows
            .iter_mut()
            .find(|row| row.text.to_lowercase() == text.to_lowercase());
        match known.and_then(|row| row.found.as_mut()) {
            Some((_, known)) => {
                let more = phrase.objects.iter().filter(|o| !known.objects.contains(o));
                let more: Vec<_> = more.copied().collect();
                known.objects.extend(more);
                known.missing += phrase.missing;
            }
            None => rows.push(Row {
                text,
                found: Some((index, phrase)),
            }),
        }
    }
    rows.extend(missing);
    Some(Table {
        rows,
        is_all: says_nothing_else,
    })
}

/// Whether `phrase` names `thing`: the same words in singular or plural, or more words that end so.
pub fn names(phrase: &str, thing: &str) -> bool {
    let (phrase, thing) = (bare(phrase), bare(kind_words::english(thing)));
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with(' '))
    };
    let same = |phrase: &str, thing: &str| ends(phrase, thing) || ends(thing, phrase);
    same(&phrase, &thing) || same(&phrase, &plural(&thing)) || same(&plural(&phrase), &thing)
}

/// Lower case without an article.
fn bare(words: &str) -> String {
    let words = words.trim().trim_end_matches(['.', ',']).to_lowercase();
    let article = ["a ", "an ", "the "]
        .iter()
        .find_map(|a| words.strip_prefix(a));
    article.unwrap_or(&words).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::answer;
    use crate::text::answer_parser;

    /// The rows in short, and whether they say all.
    type Rows<'a> = Option<(&'a [&'a str], bool)>;

    fn rows(answer: &str, asked: &[&str]) -> Option<(Vec<String>, bool)> {
        let pieces = answer::pieces(&answer_parser::spans(answer), 9);
        let asked: Vec<_> = asked.iter().map(|&a| a.to_owned()).collect();
        let table = table(&pieces, &asked)?;
        let row = |row: Row| match row.found {
            Some((_, phrase)) => format!("{} {:?}", row.text, phrase.objects),
            None => format!("{} none", row.text),
        };
        Some((table.rows.into_iter().map(row).collect(), table.is_all))
    }

    #[test]
    fn what_was_asked_for_and_not_found_has_a_row() {
        let cats = "<ground>cats</ground><objects><obj1><obj3></objects>";
        let dog = "<ground>Dog</ground><objects><obj2></objects>";
        let black = "<ground>a black cat</ground><objects><obj1></objects>";
        let more = "<ground>cats</ground><objects><obj3><obj4></objects>";
        let cases: [(&str, &[&str], Rows); 9] = [
            (
                cats,
                &["tree", "cat", "zebra"],
                Some((&["cats [1, 3]", "tree none", "zebra none"], true)),
            ),
            (
                &format!("{cats}; {dog}"),
                &["cat", "dog"],
                Some((&["cats [1, 3]", "Dog [2]"], true)),
            ),
            (
                &format!("{cats}; {dog}"),
                &[],
                Some((&["cats [1, 3]", "Dog [2]"], true)),
            ),
            (
                &format!("{cats}; {more}"),
                &[],
                Some((&["cats [1, 3, 4]"], true)),
            ),
            (black, &["cat"], Some((&["a black cat [1]"], true))),
            (
                "There is no such thing in this image",
                &["zebra"],
                Some((&["zebra none"], true)),
            ),
            (
                &format!("I see {cats}."),
                &["cat", "owl"],
                Some((&["cats [1, 3]", "owl none"], false)),
            ),
            (&format!("I see {cats}."), &["a cat"], None),
            ("Nothing.", &[], None),
        ];
        for (answer, asked, expected) in cases {
            let expected = expected.map(|(rows, is_all)| {
                (
                    rows.iter().map(|&r| r.to_owned()).collect::<Vec<_>>(),
                    is_all,
                )
            });
            assert_eq!(rows(answer, asked), expected, "{answer} {asked:?}");
        }
    }
}
