//! An answer as the page shows it: phrases with their boxes and colors, and whether the answer is a
//! list of detections.

use std::collections::BTreeMap;

use crate::text::answer_parser::Span;

/// Number of hues in the palette (Okabe-Ito without black).
pub const HUES: usize = 7;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerPiece {
    /// Plain text.
    Text(String),
    /// Text that names boxes.
    Phrase(Phrase),
}

/// Text that names boxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase {
    /// The text; `[K]` where the model named a box without text.
    pub text: String,
    /// Numbers of the boxes, without repeats, in the model's order.
    pub objects: Vec<u32>,
    /// How many indices exceed the boxes of the question.
    pub missing: usize,
    /// Rank of the text among the answer's distinct phrases; decides color and dash.
    pub rank: usize,
    /// Whether the boxes are the user's and not the model's.
    pub edited: bool,
    /// Whether the boxes are still to come.
    pub open: bool,
}

impl Phrase {
    /// Index in the palette.
    pub fn hue(&self) -> usize {
        self.rank % HUES
    }

    /// Dash style: 0 solid, then dashed, dotted, …
    pub fn dash(&self) -> usize {
        self.rank / HUES % 3
    }
}

/// The pieces of an answer over `boxes` boxes.
pub fn pieces(spans: &[Span], boxes: usize) -> Vec<AnswerPiece> {
    let mut known: Vec<String> = Vec::new();
    spans
        .iter()
        .map(|span| {
            if span.objects.is_empty() && !span.open {
                return AnswerPiece::Text(span.text.clone());
            }
            let mut objects: Vec<u32> = Vec::new();
            for &object in &span.objects {
                if (object as usize) < boxes && !objects.contains(&object) {
                    objects.push(object);
                }
            }
            let missing = span
                .objects
                .iter()
                .filter(|&&o| o as usize >= boxes)
                .count();
            let text = match span.text.trim() {
                "" => span.objects.iter().map(|o| format!("[{o}]")).collect(),
                _ => span.text.clone(),
            };
            let key = text.trim().to_lowercase();
            let rank = known.iter().position(|k| *k == key).unwrap_or_else(|| {
                known.push(key);
                known.len() - 1
            });
            AnswerPiece::Phrase(Phrase {
                text,
                objects,
                missing,
                rank,
                edited: false,
                open: span.open,
            })
        })
        .collect()
}

/// Puts the user's boxes in place of the model's; `links` has them by the index of the piece.
pub fn relink(pieces: &mut [AnswerPiece], links: &BTreeMap<usize, Vec<u32>>) {
    for (&index, objects) in links {
        if let Some(AnswerPiece::Phrase(phrase)) = pieces.get_mut(index) {
            phrase.objects.clone_from(objects);
            phrase.missing = 0;
            phrase.edited = true;
        }
    }
}

/// True when the answer has only phrases with boxes (detection: `docs/reference/chatrex.md`,
/// section 9.1); the page shows it as a list.
pub fn is_list(pieces: &[AnswerPiece]) -> bool {
    let mut phrases = 0;
    let only = pieces.iter().all(|piece| match piece {
        AnswerPiece::Text(text) => text
            .chars()
            .all(|c| c.is_whitespace() || c == ';' || c == ','),
        AnswerPiece::Phrase(_) => {
            phrases += 1;
            true
        }
    });
    only && phrases > 0
}

/// The answer as plain text with `[K]` marks after each phrase.
pub fn plain(pieces: &[AnswerPiece]) -> String {
    let mut out = String::new();
    for piece in pieces {
        match piece {
            AnswerPiece::Text(text) => out.push_str(text),
            AnswerPiece::Phrase(phrase) => {
                out.push_str(&phrase.text);
                if !phrase.text.starts_with('[') {
                    for object in &phrase.objects {
                        out.push_str(&format!(" [{object}]"));
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, objects: &[u32]) -> Span {
        Span {
            text: text.to_owned(),
            objects: objects.to_vec(),
            open: false,
        }
    }

    #[test]
    fn repeated_phrases_share_a_rank_and_wrong_indices_are_counted() {
        let spans = [
            span("a ", &[]),
            span("red car", &[3, 3, 12]),
            span(" by ", &[]),
            span("tree", &[1]),
            span("Red car ", &[2]),
            span("", &[0]),
        ];
        let found: Vec<_> = pieces(&spans, 10)
            .into_iter()
            .filter_map(|piece| match piece {
                AnswerPiece::Phrase(p) => Some((p.text, p.objects, p.missing, p.rank)),
                AnswerPiece::Text(_) => None,
            })
            .collect();
        let expected = [
            ("red car", vec![3], 1, 0),
            ("tree", vec![1], 0, 1),
            ("Red car ", vec![2], 0, 0),
            ("[0]", vec![0], 0, 2),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(text, objects, missing, rank)| (text.to_owned(), objects, missing, rank))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_open_phrase_has_the_rank_that_it_keeps() {
        let mut parser = crate::text::answer_parser::AnswerParser::new();
        parser.push("<ground>cat</ground><objects><obj1></objects> <ground>dog");
        let ranks = |spans: &[Span]| -> Vec<_> {
            let pieces = pieces(spans, 9).into_iter();
            let phrases = pieces.filter_map(|piece| match piece {
                AnswerPiece::Phrase(phrase) => Some((phrase.rank, phrase.open)),
                AnswerPiece::Text(_) => None,
            });
            phrases.collect()
        };
        assert_eq!(ranks(&parser.spans()), [(0, false), (1, true)]);
        parser.push("</ground><objects><obj2></objects>");
        assert_eq!(ranks(&parser.finish()), [(0, false), (1, false)]);
    }

    #[test]
    fn lists_are_distinguished_from_sentences() {
        let cases: [(&[Span], bool); 4] = [
            (
                &[span("cat", &[1]), span("\n", &[]), span("dog", &[2])],
                true,
            ),
            (
                &[span("cat", &[1]), span(" and ", &[]), span("dog", &[2])],
                false,
            ),
            (&[span("There is no such thing in this image", &[])], false),
            (&[], false),
        ];
        for (spans, expected) in cases {
            assert_eq!(is_list(&pieces(spans, 9)), expected, "{spans:?}");
        }
    }

    #[test]
    fn plain_text_keeps_the_numbers() {
        let spans = [
            span("two cats", &[1, 4]),
            span(" near ", &[]),
            span("", &[0]),
        ];
        assert_eq!(plain(&pieces(&spans, 9)), "two cats [1] [4] near [0]");
    }
}
