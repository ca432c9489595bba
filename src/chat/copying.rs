//! An answer as text for the clipboard.

use crate::chat::words::text;
use serde_json::{Value, json};

use crate::chat::answer::{self, AnswerPiece};
use crate::chat::conversation::Turn;

/// The forms in which an answer can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyForm {
    /// Words with the marks `[K]` of boxes.
    Plain,
    /// The tags that the model wrote.
    Tags,
    /// Markdown: phrases are bold.
    Markdown,
    /// Question, answer and boxes as JSON.
    Json,
}

impl CopyForm {
    /// Every form, in the order of the menu.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Tags, Self::Markdown, Self::Json];

    /// The words in the menu.
    pub fn label(self) -> &'static str {
        match self {
            Self::Plain => text("Plain text", "纯文本"),
            Self::Tags => text("Text with tags", "带标记的文本"),
            Self::Markdown => "Markdown",
            Self::Json => "JSON",
        }
    }

    /// The word in the `data-testid` of the menu.
    pub fn key(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tags => "tags",
            Self::Markdown => "markdown",
            Self::Json => "json",
        }
    }

    /// The answer of `turn` in this form. Boxes are pixels of the picture; numbers are those of the
    /// answer.
    pub fn text(self, turn: &Turn) -> String {
        match self {
            Self::Plain => answer::plain(&turn.pieces()),
            Self::Tags => match &turn.answer {
                Some(answer) => answer.text.clone(),
                None => tagged(turn),
            },
            Self::Markdown => markdown(&turn.pieces()),
            Self::Json => json_of(turn),
        }
    }
}

fn tagged(turn: &Turn) -> String {
    let span = |span: &crate::text::answer_parser::Span| {
        let tags: String = span.objects.iter().map(|o| format!("<obj{o}>")).collect();
        match span.objects.is_empty() {
            true => span.text.clone(),
            false => format!("<ground>{}</ground><objects>{tags}</objects>", span.text),
        }
    };
    turn.spans.iter().map(span).collect()
}

fn markdown(pieces: &[AnswerPiece]) -> String {
    let piece = |piece: &AnswerPiece| match piece {
        AnswerPiece::Text(text) => text.clone(),
        AnswerPiece::Phrase(phrase) if phrase.text.starts_with('[') => escaped(&phrase.text),
        AnswerPiece::Phrase(phrase) => {
            let numbers = phrase.objects.iter().map(|o| format!(" \\[{o}\\]"));
            format!(
                "**{}**{}",
                escaped(phrase.text.trim()),
                numbers.collect::<String>()
            )
        }
    };
    pieces.iter().map(piece).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if "\\`*_[]<>|".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn json_of(turn: &Turn) -> String {
    let boxes = turn.boxes.clone().unwrap_or_default();
    let of = |number: &u32| -> Option<Value> {
        let b = boxes.get(*number)?;
        let bbox = [b.bbox.x1, b.bbox.y1, b.bbox.x2, b.bbox.y2];
        Some(json!({"number": number, "box": bbox, "score": b.score, "label": b.label}))
    };
    let phrases = turn.pieces().into_iter().filter_map(|piece| match piece {
        AnswerPiece::Phrase(phrase) => Some(json!({
            "text": phrase.text,
            "boxes": phrase.objects.iter().filter_map(of).collect::<Vec<_>>(),
            "no_box": phrase.missing,
            "edited": phrase.edited,
        })),
        AnswerPiece::Text(_) => None,
    });
    let value = json!({
        "question": turn.shown,
        "asked": turn.question,
        "answer": answer::plain(&turn.pieces()),
        "tagged": CopyForm::Tags.text(turn),
        "phrases": phrases.collect::<Vec<_>>(),
    });
    format!("{value:#}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Input;
    use crate::chat::test_data::{after, load, open, proposed, ready};
    use crate::protocol::{Event, Granularity, PictureId, TurnId};
    use crate::text::answer_parser::spans;

    #[test]
    fn an_answer_is_copied_in_four_forms() {
        let tagged = "I see <ground>a *cat*</ground><objects><obj1><obj9></objects>.";
        let picture = PictureId(1);
        let conversation = after([
            load(),
            open(picture),
            ready(),
            proposed(picture, Granularity::Coarse),
            Input::Ask {
                shown: "What?".into(),
                question: "What?".into(),
            },
            Input::Event(Event::Said {
                turn: TurnId(0),
                spans: spans(tagged),
            }),
        ]);
        let turn = &conversation.turns()[0];
        assert_eq!(CopyForm::Plain.text(turn), "I see a *cat* [1].");
        assert_eq!(CopyForm::Tags.text(turn), tagged);
        assert_eq!(
            CopyForm::Markdown.text(turn),
            "I see **a \\*cat\\*** \\[1\\]."
        );
        let json: Value = serde_json::from_str(&CopyForm::Json.text(turn)).expect("JSON");
        assert_eq!(
            json["phrases"][0]["boxes"][0]["box"],
            json!([20.0, 0.0, 30.0, 10.0])
        );
        assert_eq!(json["phrases"][0]["no_box"], 1);
        assert_eq!(
            (&json["question"], &json["tagged"]),
            (&json!("What?"), &json!(tagged))
        );
    }
}
