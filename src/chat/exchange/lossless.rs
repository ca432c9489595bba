//! The conversation as a [`Document`].

use super::marked::{Source, safe_name};
use crate::chat::conversation::{Phase, Turn};
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
        state: match &turn.phase {
            Phase::Done => SavedState::Done,
            Phase::Failed(fault) => SavedState::Failed(fault.clone()),
            _ => SavedState::Stopped,
        },
        boxes: boxes.map_or_else(Vec::<SavedBox>::new, |set| saved_boxes(set)),
        spans: turn.spans.clone(),
        answer: turn.answer.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chat::candidates::BoxId;
    use crate::chat::document::SavedId;
    use crate::chat::exchange::test_sheet::{restored, source};
    use crate::chat::test_data::saved;

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
    fn a_turn_is_copied_with_its_boxes() {
        let saved = saved_turn(&restored().turns()[0]);
        let json = serde_json::to_string(&saved).expect("plain data");
        let turn: SavedTurn = serde_json::from_str(&json).expect("JSON");
        assert_eq!((turn.spans.len(), turn.boxes.len()), (5, 3));
    }
}
