//! The texts around questions and answers: the text box, the actions below an answer, and their
//! messages.

use crate::chat::answer::{AnswerPiece, Phrase};
use crate::chat::candidates::{Candidate, Candidates};
use crate::chat::certainty::Certainty;
use crate::chat::conversation::Turn;
use crate::chat::evidence::Evidence;
use crate::chat::question::Cited;
use crate::chat::strings;
use crate::protocol::LookTime;

/// Note below the text box.
pub const HONEST: &str = "Each question is read on its own. Answers and boxes may be wrong.";
/// Button that stops an answer.
pub const STOP: &str = "Stop";
/// The same while the engine has not confirmed.
pub const STOPPING: &str = "Stopping";
/// Button that sends.
pub const SEND: &str = "Send";
/// Button that asks an edited question.
pub const SEND_EDITED: &str = "Ask this instead";
/// Button that goes to the end of the conversation.
pub const TO_LATEST: &str = "To latest";
/// Button that asks a question again.
pub const TRY_AGAIN: &str = "Try again";
/// The same where the next attempt is sampled.
pub const OTHER_WORDING: &str = "Another wording";
/// Button that lets an answer go on.
pub const CONTINUE: &str = "Continue";
/// Button that changes a question.
pub const EDIT: &str = "Edit this question";
/// Button that leaves the editing of a question.
pub const CANCEL: &str = "Cancel";
/// Note while a question is being edited.
pub const EDITING: &str =
    "You are changing an earlier question. Sending it removes the answers after it.";
/// Note after an edited question was sent.
pub const DROPPED: &str = "The earlier question and what followed were removed.";
/// Button that brings them back.
pub const UNDO: &str = "Undo";
/// Opens the menu of forms.
pub const COPY: &str = "Copy";
/// After copying.
pub const COPIED: &str = "Copied";
/// Where the browser refuses.
pub const NOT_COPIED: &str =
    "The browser did not allow copying. Select the words and copy them by hand.";
/// Opens the words for the model.
pub const EXACT: &str = "Exact words";
/// Mark beside it where they were changed.
pub const CHANGED: &str = "changed";
/// Heading of the words for the model.
pub const EXACT_TITLE: &str = "The exact words for the model";
/// Note about them.
pub const EXACT_NOTE: &str =
    "The model was trained with these words. Change them if you like; <obj3> stands for box 3.";
/// Button that brings back the usual words.
pub const EXACT_RESET: &str = "Back to the usual words";
/// Opens the settings of sampling.
pub const SETTINGS: &str = "How words are chosen";
/// The limit of an answer.
pub const MAX_TOKENS: &str = "Longest answer, in tokens (16 to 2048)";
/// Button that restores a setting.
pub const RESET: &str = "Reset";
/// Name of the menu of kinds of question.
pub const MENU: &str = "Kinds of question";
/// Button that names every box.
pub const NAME_ALL: &str = "Name everything";
/// Title of that button.
pub const NAME_ALL_TITLE: &str = "Ask the model for the name of every box, one after the other";
/// Name of the strip of crops.
pub const EVIDENCE: &str = "The boxes of this answer";
/// Heads of the table of a detection answer.
pub const TABLE_HEADS: [&str; 3] = ["Found", "Boxes", "In the picture"];
/// In place of the number of boxes where there are none.
pub const NONE: &str = "none";
/// Button that highlights the boxes of a row.
pub const SHOW: &str = "Show";
/// Opens the boxes of a phrase.
pub const LINKS: &str = "Change its boxes";
/// Restores the model's boxes of a phrase.
pub const LINKS_RESET: &str = "Back to the model's boxes";
/// Adds the boxes that are selected in the picture.
pub const LINKS_ADD_SELECTED: &str = "Add the selected boxes";
/// First row of the list of boxes to add.
pub const LINKS_ADD: &str = "Add a box";
/// Closes the boxes of a phrase.
pub const DONE: &str = "Done";
/// Mark on a phrase with boxes of the user.
pub const EDITED: &str = "your boxes";
/// Mark on a phrase without a box that exists.
pub const NO_BOX: &str = "no box";
/// Name of the suggestions.
pub const SUGGESTIONS: &str = "Suggested questions";
/// Mark of a slow device, in the model's button.
pub const SLOW: &str = "Runs on the main processor (CPU), not on a graphics card";

/// How sure the model was of the boxes of a phrase.
pub fn certainty(certainty: &Certainty) -> String {
    let percent = |probability: f32| format!("{} %", (probability * 100.0).round());
    let Certainty {
        object,
        probability,
        runner_up,
    } = certainty;
    let first = format!("Box {object}: {}", percent(*probability));
    match runner_up {
        Some(other) => {
            let probability = percent(other.probability);
            format!(
                "{first}, next box {}: {probability}. Hold Alt to see it",
                other.object
            )
        }
        None => first,
    }
}

/// The title of the boxes of a phrase.
pub fn links_title(phrase: &Phrase) -> String {
    format!("Boxes of “{}”", phrase.text.trim())
}

/// The mark where the answer says another number than it links boxes.
pub fn mismatch(said: u32, phrase: &Phrase) -> String {
    format!("says {said}, shows {}", phrase.objects.len())
}

/// The mark on a phrase some of whose boxes do not exist.
pub fn missing(phrase: &Phrase) -> Option<String> {
    match (phrase.missing, phrase.objects.is_empty()) {
        (0, _) => None,
        (_, true) => Some(NO_BOX.to_owned()),
        (1, false) => Some("1 box does not exist".to_owned()),
        (n, false) => Some(format!("{n} boxes do not exist")),
    }
}

/// The name of a phrase for a screen reader.
pub fn phrase_name(phrase: &Phrase, said: Option<u32>) -> String {
    let mut name = strings::phrase_name(phrase);
    if let Some(said) = said {
        name.push_str(&format!(", the answer says {said}"));
    }
    if phrase.edited {
        name.push_str(", boxes chosen by you");
    }
    name
}

/// The name of a crop for a screen reader.
pub fn evidence_name(evidence: &Evidence) -> String {
    let phrase = evidence.phrase.text.trim();
    format!("Box {}, {phrase}, show in the picture", evidence.number)
}

/// After the crops where there are more boxes.
pub fn more(count: usize) -> String {
    format!("and {count} more")
}

/// A box in the draft: its number and what it is.
pub fn cited(cited: &Cited) -> String {
    match &cited.label {
        Some(label) => format!("{} {label}", cited.number),
        None => format!("Box {}", cited.number),
    }
}

/// The button that removes a box from the draft or from a phrase.
pub fn remove_box(number: u32) -> String {
    format!("Remove box {number}")
}

/// A box in a list of boxes.
pub fn option(number: usize, candidate: &Candidate) -> String {
    match &candidate.label {
        Some(label) => format!("Box {number}, {label}"),
        None => format!("Box {number}"),
    }
}

/// What the button [`CONTINUE`] does.
pub fn continues(limit: u32) -> String {
    format!(
        "The model starts over and may write up to {limit} tokens; the words so far stay until then."
    )
}

/// Which of several answers is shown.
pub fn version(turn: &Turn) -> String {
    format!("{} / {}", turn.version + 1, turn.versions())
}

/// While boxes are being named.
pub fn naming(done: usize, all: usize) -> String {
    format!("Naming box {} of {all}", (done + 1).min(all))
}

/// Whether the boxes of an answer differ from those for the next question.
pub fn boxes_changed(turn: &Turn, now: &Candidates) -> bool {
    turn.boxes
        .as_ref()
        .is_some_and(|then| !then.has_boxes_of(now))
}

/// The figures of an answer by name, with the boxes that it names and that do not exist.
pub fn figures(turn: &Turn, found: Option<LookTime>) -> Vec<(&'static str, String)> {
    let Some(answer) = &turn.answer else {
        return Vec::new();
    };
    let boxes = turn.boxes.as_ref().map_or(0, |b| b.boxes.len());
    let mut rows = strings::figures(answer, boxes, found);
    let missing: usize = crate::chat::answer::pieces(&turn.spans, boxes)
        .iter()
        .map(|piece| match piece {
            AnswerPiece::Phrase(phrase) => phrase.missing,
            AnswerPiece::Text(_) => 0,
        })
        .sum();
    if missing > 0 {
        rows.insert(
            rows.len() - 1,
            ("Boxes that do not exist", missing.to_string()),
        );
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::answer;
    use crate::chat::question::Draft;
    use crate::protocol::{Answer, AskTime, StopReason, TurnId};
    use crate::text::answer_parser::spans;

    #[test]
    fn boxes_that_do_not_exist_are_counted() {
        let mut turn = Turn::new(TurnId(0), String::new(), String::new(), Draft::default());
        assert!(figures(&turn, None).is_empty(), "no answer yet");
        let answer = |text: &str| Answer {
            prompt: String::new(),
            text: text.into(),
            spans: spans(text),
            tokens: 1,
            prefill_tokens: 1,
            stop: StopReason::End,
            milliseconds: AskTime::default(),
        };
        for (text, expected) in [
            (
                "a <ground>cat</ground><objects><obj0><obj1></objects> <obj7>",
                Some("3"),
            ),
            ("nothing", None),
        ] {
            let answer = answer(text);
            turn.spans.clone_from(&answer.spans);
            turn.answer = Some(answer);
            let rows = figures(&turn, None);
            let found = rows
                .iter()
                .find(|(name, _)| *name == "Boxes that do not exist");
            assert_eq!(found.map(|(_, count)| count.as_str()), expected, "{text}");
        }
    }

    #[test]
    fn marks_on_a_phrase_say_what_is_wrong() {
        let phrase = |text: &str, boxes| match answer::pieces(&spans(text), boxes).remove(0) {
            AnswerPiece::Phrase(phrase) => phrase,
            AnswerPiece::Text(text) => panic!("{text}"),
        };
        let text = "<ground>two cats</ground><objects><obj0><obj5><obj6></objects>";
        for (boxes, expected) in [
            (0, Some("no box")),
            (3, Some("2 boxes do not exist")),
            (6, Some("1 box does not exist")),
            (7, None),
        ] {
            assert_eq!(
                missing(&phrase(text, boxes)).as_deref(),
                expected,
                "{boxes}"
            );
        }
        let mut one = phrase(text, 3);
        assert_eq!(mismatch(2, &one), "says 2, shows 1");
        one.edited = true;
        assert_eq!(
            phrase_name(&one, Some(2)),
            "two cats, 1 box, show in the picture, the answer says 2, boxes chosen by you"
        );
    }
}
