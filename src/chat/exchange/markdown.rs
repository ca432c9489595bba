//! The conversation as Markdown: questions are headings, phrases are bold with the numbers of their boxes,
//! and a table lists the boxes that an answer names. Coordinates are whole pixels of the picture.

use super::marked::Source;
use super::words;
use crate::chat::answer::{AnswerPiece, Phrase};
use crate::chat::conversation::Turn;
use crate::chat::strings;

/// All turns.
pub fn conversation(source: Source<'_>) -> String {
    let mut text = format!(
        "# {}\n\n{}\n",
        escape(source.name),
        words::picture_note(source.size),
    );
    for turn in source.turns {
        text.push('\n');
        text.push_str(&self::turn(turn));
    }
    text
}

/// One turn.
fn turn(turn: &Turn) -> String {
    let pieces = turn.pieces();
    let mut text = format!("## {}\n\n", escape(&one_line(&turn.shown)));
    let mut answer = String::new();
    for piece in &pieces {
        match piece {
            AnswerPiece::Text(plain) => answer.push_str(&escape(plain)),
            AnswerPiece::Phrase(phrase) => answer.push_str(&bold(phrase)),
        }
    }
    // A line end inside a paragraph needs two spaces before it.
    text.push_str(&answer.trim().replace('\n', "  \n"));
    if let Some(outcome) = strings::outcome(turn) {
        text.push_str(&format!("\n\n_{}_", escape(&outcome)));
    }
    text.push('\n');
    let phrases: Vec<&Phrase> = pieces
        .iter()
        .filter_map(|piece| match piece {
            AnswerPiece::Phrase(phrase) if !phrase.objects.is_empty() => Some(phrase),
            _ => None,
        })
        .collect();
    if let (false, Some(boxes)) = (phrases.is_empty(), &turn.boxes) {
        text.push_str(&format!("\n{}\n| --- | --- | --- |\n", words::TABLE()));
        for phrase in phrases {
            for &number in &phrase.objects {
                let Some(candidate) = boxes.get(number) else {
                    continue;
                };
                let corners = <[f32; 4]>::from(candidate.bbox).map(|v| format!("{v:.0}"));
                let words = escape(phrase.text.trim()).replace('|', "\\|");
                text.push_str(&format!(
                    "| {number} | {words} | {} |\n",
                    corners.join(", ")
                ));
            }
        }
    }
    text
}

fn bold(phrase: &Phrase) -> String {
    let words = phrase.text.trim();
    let marks: String = phrase
        .objects
        .iter()
        .map(|o| format!(" \\[{o}\\]"))
        .collect();
    if words.starts_with('[') {
        return escape(words);
    }
    // Bold text cannot begin or end with white space.
    let space = &phrase.text[phrase.text.trim_end().len()..];
    let before = &phrase.text[..phrase.text.len() - phrase.text.trim_start().len()];
    format!("{before}**{}**{marks}{space}", escape(words))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text without the marks of Markdown and HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let before = text[..at].rsplit('\n').next().unwrap_or_default();
        let begins_line = before.trim().is_empty();
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' => {
                out.push('\\');
                out.push(c);
            }
            '#' | '>' | '-' | '+' | '=' | '~' if begins_line => {
                out.push('\\');
                out.push(c);
            }
            // `1.` and `1)` begin a list.
            '.' | ')'
                if !before.trim().is_empty()
                    && before.trim().bytes().all(|b| b.is_ascii_digit()) =>
            {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chat::exchange::test_sheet::{restored, source};

    #[test]
    fn phrases_are_bold_with_the_numbers_of_their_boxes() {
        let none = BTreeSet::new();
        let c = restored();
        let expected = "# room.jpg\n\n\
            Picture of 100 × 80 pixels. Answers and boxes may be wrong.\n\n\
            ## What is here?\n\n\
            A **black cat** \\[0\\] near a **lamp** \\[2\\].\n\n\
            | box | phrase | left, top, right, bottom |\n\
            | --- | --- | --- |\n\
            | 0 | black cat | 0, 0, 10, 10 |\n\
            | 2 | lamp | 40, 30, 60, 50 |\n";
        assert_eq!(conversation(source(&c, &none, &none)), expected);
    }

    #[test]
    fn marks_and_tags_stay_text() {
        let cases = [
            ("a *b* _c_ `d`", "a \\*b\\* \\_c\\_ \\`d\\`"),
            ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
            ("[x](javascript:y)", "\\[x\\](javascript:y)"),
            ("# a\n- b\n1. c", "\\# a\n\\- b\n1\\. c"),
            ("3 - 2 = 1. Yes", "3 - 2 = 1. Yes"),
        ];
        for (text, expected) in cases {
            assert_eq!(escape(text), expected);
        }
    }
}
