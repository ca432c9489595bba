//! A second conversation on the same engine: that of a batch beside the one on the screen.

use super::{Conversation, LookState, PictureSession, TurnId};

impl Conversation {
    /// A conversation without a picture, with the same model and settings. Its requests have numbers from
    /// `first` on.
    pub fn beside(&self, first: TurnId) -> Self {
        Self {
            session: PictureSession::default(),
            previous: None,
            engine_holds: None,
            looks: Default::default(),
            candidates: Default::default(),
            naming: None,
            next_turn: first.0,
            comparison: None,
            compares_later: false,
            likeness: None,
            resting: false,
            ..self.clone()
        }
    }

    /// The number of the next request.
    pub fn next_turn(&self) -> TurnId {
        TurnId(self.next_turn)
    }

    /// True while nothing of this conversation is queued in the engine or running there.
    pub fn is_settled(&self) -> bool {
        self.is_idle() && self.looks.is_empty() && self.comparison.is_none()
    }

    /// Another conversation gets the engine: this picture goes there again with the next question, whose
    /// boxes are the known ones. A conversation that is not settled is left as it is.
    pub(super) fn yield_engine(&mut self) {
        if !self.is_settled() {
            return;
        }
        self.engine_holds = None;
        let is_known = |look: &LookState| *look == LookState::Done;
        let picture = self.session.picture.as_ref();
        self.resting = picture.is_some_and(|picture| is_known(&picture.look));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Input;
    use crate::chat::question::{Draft, QuestionKind};
    use crate::chat::test_data::{after, load, open, proposed, ready};
    use crate::protocol::{Granularity, PictureId, Request};

    const MINE: PictureId = PictureId(1);

    fn ask() -> Input {
        Input::AskDraft(Draft::new(QuestionKind::Find, "cat"))
    }

    fn found() -> Conversation {
        let found = proposed(MINE, Granularity::Coarse);
        after([load(), ready(), open(MINE), found])
    }

    #[test]
    fn a_conversation_that_yielded_sends_its_picture_again_with_the_next_question() {
        let mut c = found();
        let before = c.candidates().clone();
        assert_eq!(c.step(Input::Yield), []);
        assert_eq!(c.picture().map(|p| &p.look), Some(&LookState::Done));
        let sent = c.step(ask());
        let is_look = |r: &Request| matches!(r, Request::Look { size: Some(_), .. });
        assert!(sent.len() == 1 && is_look(&sent[0]), "{sent:?}");
        let sent = c.step(proposed(MINE, Granularity::Coarse));
        let [Request::Ask { question, .. }] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!(question.boxes.len(), before.boxes.len());
    }

    #[test]
    fn a_conversation_with_something_in_the_engine_does_not_yield() {
        let mut c = after([load(), ready(), open(MINE)]);
        assert!(!c.is_settled());
        c.step(Input::Yield);
        let sent = c.step(proposed(MINE, Granularity::Coarse));
        assert_eq!(sent, [], "it still holds the picture");
        assert!(c.is_settled());
        c.step(ask());
        assert!(!c.is_settled());
    }

    #[test]
    fn the_second_conversation_has_the_model_and_numbers_of_its_own() {
        let mut first = found();
        first.step(ask());
        let mut second = first.beside(TurnId(1 << 30));
        assert_eq!(second.turns(), []);
        assert!(second.picture().is_none() && second.is_settled());
        let other = PictureId(1 << 30);
        assert_eq!(second.step(open(other)).len(), 1, "the model is ready");
        second.step(proposed(other, Granularity::Coarse));
        let sent = second.step(ask());
        assert!(
            matches!(sent[..], [Request::Ask { turn: TurnId(t), .. }] if t == 1 << 30),
            "{sent:?}"
        );
    }
}
