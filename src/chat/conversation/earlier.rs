//! What goes with a question beside its own words: earlier turns about the same boxes.
//!
//! Rules. Only turns with an answer count, and only those whose boxes are those of the question: an
//! answer names boxes by their numbers. Versions that are not shown do not count.

use super::{Conversation, Phase, Turn};
use crate::chat::candidates::Candidates;
use crate::protocol::Exchange;

/// The earlier turns that the next question can take along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// How many.
    pub turns: usize,
    /// Their tokens, questions and answers.
    pub tokens: u32,
}

impl Conversation {
    /// The earlier turns that the next question can take along.
    pub fn earlier(&self) -> Earlier {
        let turns = self.session.turns.iter();
        let answers = turns.filter_map(|turn| answer_about(turn, &self.candidates));
        answers.fold(Earlier::default(), |all, answer| Earlier {
            turns: all.turns + 1,
            tokens: all.tokens + answer.question_tokens + answer.tokens,
        })
    }

    /// The turns before the one at `place`, if they are to be sent with it.
    pub(super) fn exchanges_before(&self, place: usize, boxes: &Candidates) -> Vec<Exchange> {
        if !self.session.choices.earlier {
            return Vec::new();
        }
        let before = self.session.turns.iter().take(place);
        let exchanges = before.filter_map(|turn| {
            let answer = answer_about(turn, boxes)?;
            Some(Exchange {
                question: turn.question.clone(),
                answer: answer.text.clone(),
            })
        });
        exchanges.collect()
    }
}

/// The answer of a turn about the same boxes.
fn answer_about<'a>(turn: &'a Turn, boxes: &Candidates) -> Option<&'a crate::protocol::Answer> {
    let is_same = turn
        .boxes
        .as_ref()
        .is_some_and(|then| then.has_boxes_of(boxes));
    let has_ended = matches!(turn.phase, Phase::Done | Phase::Stopped);
    let answer = turn.answer.as_ref()?;
    (is_same && has_ended && !answer.text.trim().is_empty()).then_some(answer)
}
