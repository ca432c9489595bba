//! Questions that the page suggests, from the kinds that were detected.

use crate::chat::answer::AnswerPiece;
use crate::chat::candidates::Candidates;
use crate::chat::conversation::Turn;
use crate::chat::kind_words::shown;
use crate::chat::question::{Draft, QuestionKind};
use crate::chat::words::{Language, language, say, text};
use crate::text::kinds::{plural, with_article};

/// A suggested question: its words, and what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The words on the button.
    pub label: String,
    /// The question.
    pub draft: Draft,
}

/// Number of suggestions after a picture was opened.
pub const OPENING: usize = 3;

/// Number of suggestions after an answer.
pub const FOLLOW_UP: usize = 2;

/// Questions about a picture that nothing was asked about yet.
pub fn opening(candidates: &Candidates) -> Vec<Suggestion> {
    let kinds = kinds(candidates);
    let mut out = Vec::new();
    if let Some((kind, _)) = kinds.iter().find(|(_, count)| *count > 1) {
        out.push(count(kind));
    }
    let single = kinds.iter().find(|(_, count)| *count == 1);
    out.extend(single.or(kinds.first()).map(|(kind, _)| find(kind)));
    out.push(describe());
    out.extend(kinds.get(1).map(|(kind, _)| find(kind)));
    out.push(whole());
    if !candidates.boxes.is_empty() {
        out.push(name_first());
    }
    let none = Vec::new();
    take(out, OPENING, &none)
}

/// Questions after the last answer that were not asked yet.
pub fn follow_up(last: &Turn, asked: &[Draft], candidates: &Candidates) -> Vec<Suggestion> {
    let kinds = kinds(candidates);
    let mentioned: String = last
        .pieces()
        .iter()
        .filter_map(|piece| match piece {
            AnswerPiece::Phrase(phrase) => Some(phrase.text.to_lowercase() + "\n"),
            AnswerPiece::Text(_) => None,
        })
        .collect();
    let is_mentioned = |kind: &str| mentioned.contains(kind) || mentioned.contains(&plural(kind));
    let mut out = Vec::new();
    let named = kinds.iter().find(|(kind, _)| is_mentioned(kind));
    let other = kinds.iter().find(|(kind, _)| !is_mentioned(kind));
    match (named, last.draft.kind) {
        (Some((kind, n)), QuestionKind::Find) if *n > 1 => out.push(count(kind)),
        (Some((kind, _)), _) => out.push(find(kind)),
        (None, _) => {}
    }
    out.extend(other.map(|(kind, _)| find(kind)));
    out.push(describe());
    out.extend(
        kinds
            .iter()
            .find(|(_, n)| *n > 1)
            .map(|(kind, _)| count(kind)),
    );
    if !candidates.boxes.is_empty() {
        out.push(name_first());
    }
    take(out, FOLLOW_UP, asked)
}

/// The kinds among the boxes and how many there are, the most frequent first.
fn kinds(candidates: &Candidates) -> Vec<(String, usize)> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for label in candidates.boxes.iter().filter_map(|b| b.label.as_ref()) {
        let label = label.to_lowercase();
        match kinds.iter_mut().find(|(kind, _)| *kind == label) {
            Some((_, count)) => *count += 1,
            None => kinds.push((label, 1)),
        }
    }
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    kinds
}

fn take(all: Vec<Suggestion>, most: usize, asked: &[Draft]) -> Vec<Suggestion> {
    let mut out: Vec<Suggestion> = Vec::new();
    for suggestion in all {
        // What was asked for among other things is not asked for again alone.
        let is_found = asked.iter().flat_map(Draft::things).any(|thing| {
            suggestion.draft.kind == QuestionKind::Find
                && thing.to_lowercase() == suggestion.draft.words
        });
        let is_new = !is_found
            && !asked.contains(&suggestion.draft)
            && out.iter().all(|known| known.draft != suggestion.draft);
        if is_new && out.len() < most {
            out.push(suggestion);
        }
    }
    out
}

fn whole() -> Suggestion {
    const QUESTION: &str = "What is in the picture?";
    Suggestion {
        label: text(QUESTION, "图片里有什么？").to_owned(),
        draft: Draft::translated(QUESTION, "图片里有什么？"),
    }
}

fn find(kind: &str) -> Suggestion {
    Suggestion {
        label: match language() {
            Language::English => format!("Find {}", with_article(kind)),
            Language::Chinese => format!("查找{}", shown(kind)),
        },
        draft: Draft::new(QuestionKind::Find, shown(kind)),
    }
}

fn count(kind: &str) -> Suggestion {
    let words = match language() {
        Language::English => plural(kind),
        Language::Chinese => shown(kind).to_owned(),
    };
    Suggestion {
        label: say!("Count the {words}", "数一数{words}"),
        draft: Draft::new(QuestionKind::Count, words),
    }
}

fn describe() -> Suggestion {
    Suggestion {
        label: text("Describe the picture", "描述图片").to_owned(),
        draft: Draft::new(QuestionKind::Describe, ""),
    }
}

fn name_first() -> Suggestion {
    Suggestion {
        label: text("What is in box 0?", "0 号框里是什么？").to_owned(),
        draft: Draft::new(QuestionKind::Name, "[0]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::candidates::{BoxId, Candidate};
    use crate::protocol::TurnId;
    use crate::text::answer_parser::spans;

    fn boxes(labels: &[Option<&str>]) -> Candidates {
        let candidate = |(number, label): (usize, &Option<&str>)| Candidate {
            id: BoxId::Own(number as u32),
            bbox: [0., 0., 1., 1.].into(),
            score: None,
            label: label.map(str::to_owned),
        };
        Candidates {
            boxes: labels.iter().enumerate().map(candidate).collect(),
            left_out: 0,
        }
    }

    fn labels(suggestions: &[Suggestion]) -> Vec<&str> {
        suggestions.iter().map(|s| s.label.as_str()).collect()
    }

    #[test]
    fn three_questions_come_from_what_was_detected() {
        let cases: [(&[Option<&str>], [&str; 3]); 4] = [
            (
                &[Some("cat"), Some("dog"), Some("cat")],
                ["Count the cats", "Find a dog", "Describe the picture"],
            ),
            (
                &[Some("umbrella")],
                [
                    "Find an umbrella",
                    "Describe the picture",
                    "What is in the picture?",
                ],
            ),
            (
                &[None],
                [
                    "Describe the picture",
                    "What is in the picture?",
                    "What is in box 0?",
                ],
            ),
            (
                &[Some("cat"), Some("cat")],
                ["Count the cats", "Find a cat", "Describe the picture"],
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(labels(&opening(&boxes(found))), expected, "{found:?}");
        }
        assert_eq!(opening(&boxes(&[])).len(), 2, "without boxes");
    }

    #[test]
    fn two_questions_follow_an_answer_and_none_is_repeated() {
        let found = boxes(&[Some("cat"), Some("cat"), Some("dog")]);
        let draft = Draft::new(QuestionKind::Find, "Cat; tree");
        let mut turn = Turn::new(TurnId(0), "Find cat".into(), String::new(), draft.clone());
        turn.boxes = Some(std::sync::Arc::new(found.clone()));
        turn.spans = spans("<ground>cats</ground><objects><obj0></objects>");
        let asked = [draft];
        let next = follow_up(&turn, &asked, &found);
        assert_eq!(labels(&next), ["Count the cats", "Find a dog"]);
        let asked: Vec<_> = asked
            .into_iter()
            .chain(next.into_iter().map(|s| s.draft))
            .collect();
        let next = follow_up(&turn, &asked, &found);
        assert_eq!(labels(&next), ["Describe the picture", "What is in box 0?"]);
    }
}
