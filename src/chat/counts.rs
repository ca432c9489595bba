//! Number words of an answer against the number of boxes that it links.

use crate::chat::answer::{AnswerPiece, Phrase};

const WORDS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// The number that follows a phrase in `phrase: 3`.
fn said_after(after: &str) -> Option<u32> {
    let after = after.strip_prefix(':')?.split_whitespace().next()?;
    number(after.trim_end_matches(['.', ',', ';']))
}

/// The number that the answer says of the phrase with this index, if another number of boxes is linked.
pub fn mismatch(pieces: &[AnswerPiece], index: usize) -> Option<u32> {
    let AnswerPiece::Phrase(phrase) = pieces.get(index)? else {
        return None;
    };
    let before = match index.checked_sub(1).and_then(|before| pieces.get(before)) {
        Some(AnswerPiece::Text(text)) => text.as_str(),
        _ => "",
    };
    let after = match pieces.get(index + 1) {
        Some(AnswerPiece::Text(text)) => said_after(text),
        _ => None,
    };
    let said = said(before, phrase).or(after)?;
    (said as usize != phrase.objects.len()).then_some(said)
}

/// The number word that begins the phrase or stands right before it.
fn said(before: &str, phrase: &Phrase) -> Option<u32> {
    if phrase.text.trim_start().starts_with('[') {
        return None;
    }
    let first = phrase.text.split_whitespace().next().and_then(number);
    first.or_else(|| {
        let ends_sentence = before.trim_end().ends_with(['.', ':', ';', ',', '?', ')']);
        let last = before.split_whitespace().next_back();
        last.filter(|_| !ends_sentence).and_then(number)
    })
}

fn number(word: &str) -> Option<u32> {
    let word = word.trim_matches('*').to_lowercase();
    let known = WORDS.iter().position(|w| *w == word).map(|n| n as u32);
    let is_short = word.len() <= 3 && word.bytes().all(|b| b.is_ascii_digit());
    known.or_else(|| is_short.then(|| word.parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::answer;
    use crate::text::answer_parser;

    #[test]
    fn a_number_word_is_compared_with_the_linked_boxes() {
        let linked = |text: &str, boxes: &[u32]| {
            let tags: String = boxes.iter().map(|b| format!("<obj{b}>")).collect();
            format!("<ground>{text}</ground><objects>{tags}</objects>")
        };
        let cases = [
            (linked("two penguins", &[1]), Some(2)),
            (linked("two penguins", &[1, 2]), None),
            (
                format!("There are 5 {}", linked("cats", &[1, 2, 3, 4])),
                Some(5),
            ),
            (
                format!("There are five {}.", linked("cats", &[1, 2, 3, 4, 5])),
                None,
            ),
            (format!("**Three** {}", linked("cats", &[1])), Some(3)),
            (format!("I count 5. {}", linked("cats", &[1])), None),
            (format!("Of 1990 {}", linked("cats", &[1])), None),
            (
                format!("Number of {}: 4.", linked("cats", &[1, 2])),
                Some(4),
            ),
            (format!("Number of {}: 2.", linked("cats", &[1, 2])), None),
            (format!("{}: seen", linked("cats", &[1, 2])), None),
            (linked("a cat", &[1, 2]), None),
            (linked("One dog", &[1, 2]), Some(1)),
            ("<obj3>".to_owned(), None),
        ];
        for (text, expected) in cases {
            let pieces = answer::pieces(&answer_parser::spans(&text), 9);
            let found = (0..pieces.len()).find_map(|index| mismatch(&pieces, index));
            assert_eq!(found, expected, "{text}");
        }
    }
}
