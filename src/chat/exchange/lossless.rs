//! The conversation as a [`Document`].

use super::marked::{Source, safe_name};
use crate::chat::conversation::Turn;
use crate::chat::document::{
    Document, FORMAT, Parameters, SavedBox, SavedPicture, SavedState, SavedTurn, VERSION,
    saved_boxes,
};

/// Everything about the picture of `source` but its pixels.
pub fn document(source: Source<'_>, parameters: Parameters) -> Document {
    Document {
        format: FORMAT.to_owned(),
        version: VERSION,
        picture: SavedPicture {
            name: safe_name(source.name),
            width: source.size.width,
            height: source.size.height,
        },
        parameters,
        boxes: saved_boxes(source.candidates),
        turns: source.turns.iter().map(saved_turn).collect(),
    }
}

/// A turn with its boxes.
pub fn saved_turn(turn: &Turn) -> SavedTurn {
    let boxes = turn.boxes.as_ref();
    SavedTurn {
        shown: turn.shown.clone(),
        question: turn.question.clone(),
        state: SavedState::from(&turn.phase),
        boxes: boxes.map_or_else(Vec::<SavedBox>::new, |set| saved_boxes(set)),
        spans: turn.spans.clone(),
        answer: turn.answer.clone(),
        certainty: turn.certainty.clone(),
        links: turn.links.clone(),
        others: turn.saved_others(),
        version: turn.version,
        draft: Some(turn.draft.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chat::candidates::BoxId;
    use crate::chat::conversation::Input;
    use crate::chat::document::{SavedAnswer, SavedId};
    use crate::chat::exchange::test_sheet::{restored, source};
    use crate::chat::question::{Draft, QuestionKind};
    use crate::chat::test_data::{after, open, saved};
    use crate::protocol::{Link, PictureId};

    #[test]
    fn a_restored_conversation_is_written_as_it_was() {
        let none = BTreeSet::new();
        let c = restored();
        let mut expected = saved();
        let written = document(source(&c, &none, &none), expected.parameters.clone());
        // Boxes of the user are numbered anew in the picture they come into.
        let own = SavedId(BoxId::Own(0));
        expected.boxes[2].id = own;
        expected.turns[0].boxes[2].id = own;
        assert_eq!(written, expected);
        assert_eq!(Document::parse("a", &written.to_json()), Ok(written));
    }

    #[test]
    fn corrected_links_and_other_answers_come_back() {
        let mut expected = saved();
        let other = SavedAnswer {
            state: SavedState::Stopped,
            spans: expected.turns[0].spans[..2].to_vec(),
            answer: None,
            certainty: Vec::new(),
            links: [(1, vec![1])].into(),
        };
        let turn = &mut expected.turns[0];
        turn.links = [(3, vec![0, 1]), (1, Vec::new())].into();
        turn.certainty = vec![Link {
            object: 0,
            probability: 0.5,
            runner_up: None,
        }];
        turn.others = vec![other];
        turn.version = 1;
        turn.draft = Some(Draft::new(QuestionKind::Find, "cat"));
        let json = expected.to_json();
        let read = Document::parse("a", &json).expect("ours");
        assert_eq!(read, expected);
        let mut c = after([open(PictureId(1)), Input::Restore(Box::new(read))]);
        let none = BTreeSet::new();
        let written = document(source(&c, &none, &none), expected.parameters.clone());
        let without_boxes = |turn: &SavedTurn| SavedTurn {
            boxes: Vec::new(),
            ..turn.clone()
        };
        let expected = without_boxes(&expected.turns[0]);
        assert_eq!(without_boxes(&written.turns[0]), expected);
        // The other answer can be shown, and the first one again.
        let id = c.turns()[0].id;
        c.step(Input::Version(id, 0));
        assert_eq!(c.turns()[0].links, [(1, vec![1])].into());
        c.step(Input::Version(id, 1));
        let written = document(source(&c, &none, &none), written.parameters);
        assert_eq!(without_boxes(&written.turns[0]), expected);
    }

    #[test]
    fn a_turn_is_copied_with_its_boxes() {
        let saved = saved_turn(&restored().turns()[0]);
        let json = serde_json::to_string(&saved).expect("plain data");
        let turn: SavedTurn = serde_json::from_str(&json).expect("JSON");
        assert_eq!((turn.spans.len(), turn.boxes.len()), (5, 3));
    }
}
