//! The messages between host and page: `{v: 1, id, type, …}`. The id of a request is that of its replies.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::chat::candidates::{Candidate, Candidates};
use crate::chat::conversation::Turn;
use crate::chat::strings;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::BoxXyxy;
use crate::protocol::{Granularity, ImageSize, ModelCard};
use crate::text::prompt::MAX_BOXES;

/// The version of the messages.
pub const VERSION: u64 = 1;

/// Most characters of an id.
const ID_LENGTH: usize = 200;

/// A request of the host.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Command {
    /// Whether the page is there; it replies `ready` or `progress`.
    Hello,
    /// Open a picture: the bytes or the blob in `picture`, else what is at `url`.
    Load {
        /// Its address.
        url: Option<String>,
        /// Name of its file.
        #[serde(default)]
        name: String,
    },
    /// Ask a question about the picture.
    Ask {
        /// The words. `<objK>` is box K of `boxes`, `[K]` box K of the page.
        question: String,
        /// The kind of question, by the word of its chip; absent for free words.
        kind: Option<String>,
        /// Boxes of the question, in pixels of the picture; they become boxes of the user.
        boxes: Option<Vec<BoxXyxy>>,
    },
    /// Choose boxes by other thresholds.
    Propose {
        /// The granularity; absent for the current one.
        granularity: Option<Granularity>,
        /// Score threshold, 0 to 1.
        score: Option<f32>,
        /// IoU threshold of non-maximum suppression, 0 to 1.
        nms: Option<f64>,
    },
    /// Select boxes by their numbers.
    Select {
        /// The numbers.
        boxes: Vec<u32>,
    },
    /// Stop the running answer.
    Stop,
    /// Send the picture.
    Picture,
}

/// A message that was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Its id, null if it has none.
    pub id: Value,
    /// Why.
    pub fault: Fault,
}

/// Reads a message; `has_picture` if it brings bytes or a blob, which are not part of the JSON.
///
/// # Errors
/// It is no message of this version, or a value cannot be used.
pub fn read(json: &str, has_picture: bool) -> Result<(Value, Command), Refused> {
    let no_object = |_| refused(Value::Null, ErrorCode::Protocol, "it is no object");
    let message: Map<String, Value> = serde_json::from_str(json).map_err(no_object)?;
    let id = message.get("id").cloned().unwrap_or_default();
    let is_id = match &id {
        Value::String(text) => text.chars().count() <= ID_LENGTH,
        id => id.is_number(),
    };
    if !is_id {
        let what = "its id is neither a number nor a short text";
        return Err(refused(Value::Null, ErrorCode::Protocol, what));
    }
    if message.get("v").and_then(Value::as_u64) != Some(VERSION) {
        let what = format!("its version v is not {VERSION}");
        return Err(refused(id, ErrorCode::Unsupported, what));
    }
    let command = serde_json::from_value(Value::Object(message));
    let command = command.map_err(|error| {
        let what = format!("its type or a field cannot be read ({error})");
        refused(id.clone(), ErrorCode::Protocol, what)
    })?;
    match check(&command, has_picture) {
        Some(what) => Err(refused(id, ErrorCode::InvalidInput, what)),
        None => Ok((id, command)),
    }
}

/// What cannot be used about a command.
fn check(command: &Command, has_picture: bool) -> Option<&'static str> {
    let is_share = |value: f64| (0.0..=1.0).contains(&value);
    match command {
        Command::Load { url: None, .. } if !has_picture => {
            Some("it brings neither picture nor url")
        }
        Command::Ask { boxes: Some(b), .. } if b.len() > MAX_BOXES => Some("it has too many boxes"),
        Command::Ask { boxes: Some(b), .. } if !b.iter().all(is_box) => {
            Some("a box is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
        }
        Command::Propose { score, nms, .. } => {
            let bad =
                score.is_some_and(|s| !is_share(s.into())) || nms.is_some_and(|n| !is_share(n));
            bad.then_some("score or nms is not within 0 and 1")
        }
        _ => None,
    }
}

fn is_box(bbox: &BoxXyxy) -> bool {
    let [x1, y1, x2, y2] = (*bbox).into();
    [x1, y1, x2, y2].into_iter().all(f32::is_finite) && x1 < x2 && y1 < y2
}

/// A refusal of the message `id`.
pub fn refused(id: Value, code: ErrorCode, what: impl Into<String>) -> Refused {
    let fault = Fault::new(FaultKind::Question, "the message", what, "").code(code);
    Refused { id, fault }
}

/// A message of a type with these fields.
fn message(id: &Value, kind: &str, fields: Value) -> Value {
    let mut all = json!({"v": VERSION, "id": id, "type": kind});
    if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
        all.extend(fields);
    }
    all
}

/// The model is loaded.
pub fn ready(id: &Value, card: &ModelCard) -> Value {
    let model = json!({
        "name": card.name, "licence": card.licence, "knows": card.knows, "device": card.device,
    });
    message(id, "ready", json!({"versions": [VERSION], "model": model}))
}

/// How much of a stage is done; `total` is 0 where unknown.
pub fn progress(id: &Value, stage: &str, done: u64, total: u64) -> Value {
    message(
        id,
        "progress",
        json!({"stage": stage, "done": done, "total": total}),
    )
}

/// An answer so far.
pub fn partial(id: &Value, turn: &Turn) -> Value {
    let text: String = turn.spans.iter().map(|span| span.text.as_str()).collect();
    message(
        id,
        "progress",
        json!({"stage": "answer", "done": text.chars().count(), "total": 0, "text": text, "spans": turn.spans}),
    )
}

/// The boxes of a picture; without one there is neither.
pub fn boxes(id: &Value, picture: Option<ImageSize>, candidates: &Candidates) -> Value {
    let picture = picture.map(|size| json!({"width": size.width, "height": size.height}));
    let boxes = listed(candidates);
    message(
        id,
        "boxes",
        json!({"picture": picture, "boxes": boxes, "left_out": candidates.left_out}),
    )
}

/// A complete or stopped answer.
pub fn answer(id: &Value, turn: &Turn) -> Value {
    let boxes = turn
        .boxes
        .as_ref()
        .map(|boxes| listed(boxes))
        .unwrap_or_default();
    let mut spans = turn.spans.clone();
    for span in &mut spans {
        span.objects
            .retain(|&object| (object as usize) < boxes.len());
    }
    let text: String = spans.iter().map(|span| span.text.as_str()).collect();
    let stop = turn
        .answer
        .as_ref()
        .map(|a| json!(a.stop))
        .unwrap_or_else(|| json!("stopped"));
    let figures = turn
        .answer
        .as_ref()
        .map(|a| json!({"tokens": a.tokens, "milliseconds": a.milliseconds}));
    let mut all = message(
        id,
        "answer",
        json!({"question": turn.shown, "text": text, "spans": spans, "boxes": boxes, "stop": stop}),
    );
    if let (Value::Object(all), Some(Value::Object(figures))) = (&mut all, figures) {
        all.extend(figures);
    }
    all
}

/// The numbers of the selected boxes.
pub fn select(id: &Value, numbers: &[u32]) -> Value {
    message(id, "select", json!({"boxes": numbers}))
}

/// The fields of the reply to a request for the picture, which is attached.
pub fn picture(id: &Value, name: &str) -> Value {
    message(id, "picture", json!({"name": name}))
}

/// A failure.
pub fn error(id: &Value, fault: &Fault) -> Value {
    message(
        id,
        "error",
        json!({"code": fault.code, "message": strings::sentence(fault), "fault": fault}),
    )
}

fn listed(candidates: &Candidates) -> Vec<Value> {
    candidates.boxes.iter().map(listed_box).collect()
}

fn listed_box(candidate: &Candidate) -> Value {
    let mut all = Map::new();
    all.insert("box".into(), json!(candidate.bbox));
    if let Some(score) = candidate.score {
        all.insert("score".into(), json!(score));
    }
    if let Some(label) = &candidate.label {
        all.insert("label".into(), json!(label));
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let ask = |kind: Option<&str>, boxes| Command::Ask {
            question: "What is <obj0>?".into(),
            kind: kind.map(str::to_owned),
            boxes,
        };
        let cases = [
            (r#""type":"hello""#, Command::Hello),
            (r#""type":"stop""#, Command::Stop),
            (r#""type":"picture","more":1"#, Command::Picture),
            (
                r#""type":"load","url":"blob:x","name":"a.png""#,
                Command::Load {
                    url: Some("blob:x".into()),
                    name: "a.png".into(),
                },
            ),
            (
                r#""type":"ask","question":"What is <obj0>?""#,
                ask(None, None),
            ),
            (
                r#""type":"ask","question":"What is <obj0>?","kind":"find","boxes":[[1,2,3,4]]"#,
                ask(Some("find"), Some(vec![[1., 2., 3., 4.].into()])),
            ),
            (
                r#""type":"propose","granularity":"fine","score":0.5"#,
                Command::Propose {
                    granularity: Some(Granularity::Fine),
                    score: Some(0.5),
                    nms: None,
                },
            ),
            (
                r#""type":"select","boxes":[1,2]"#,
                Command::Select { boxes: vec![1, 2] },
            ),
        ];
        for (fields, expected) in cases {
            let json = format!(r#"{{"v":1,"id":7,{fields}}}"#);
            assert_eq!(read(&json, false), Ok((json!(7), expected)), "{json}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_code() {
        let long = format!(r#"{{"v":1,"id":"{}","type":"stop"}}"#, "x".repeat(201));
        let cases = [
            ("7", Value::Null, ErrorCode::Protocol),
            ("{", Value::Null, ErrorCode::Protocol),
            ("[]", Value::Null, ErrorCode::Protocol),
            (r#"{"v":1,"type":"stop"}"#, Value::Null, ErrorCode::Protocol),
            (
                r#"{"v":1,"id":{},"type":"stop"}"#,
                Value::Null,
                ErrorCode::Protocol,
            ),
            (&long, Value::Null, ErrorCode::Protocol),
            (
                r#"{"id":"a","type":"stop"}"#,
                json!("a"),
                ErrorCode::Unsupported,
            ),
            (
                r#"{"v":2,"id":"a","type":"stop"}"#,
                json!("a"),
                ErrorCode::Unsupported,
            ),
            (
                r#"{"v":1,"id":"a","type":"fly"}"#,
                json!("a"),
                ErrorCode::Protocol,
            ),
            (r#"{"v":1,"id":"a"}"#, json!("a"), ErrorCode::Protocol),
            (
                r#"{"v":1,"id":"a","type":"ask"}"#,
                json!("a"),
                ErrorCode::Protocol,
            ),
            (
                r#"{"v":1,"id":"a","type":"ask","question":"x","boxes":[[1,2,3]]}"#,
                json!("a"),
                ErrorCode::Protocol,
            ),
            (
                r#"{"v":1,"id":"a","type":"ask","question":"x","boxes":[[3,2,1,4]]}"#,
                json!("a"),
                ErrorCode::InvalidInput,
            ),
            (
                r#"{"v":1,"id":"a","type":"load"}"#,
                json!("a"),
                ErrorCode::InvalidInput,
            ),
            (
                r#"{"v":1,"id":"a","type":"propose","score":2}"#,
                json!("a"),
                ErrorCode::InvalidInput,
            ),
            (
                r#"{"v":1,"id":"a","type":"select","boxes":[-1]}"#,
                json!("a"),
                ErrorCode::Protocol,
            ),
        ];
        for (json, id, code) in cases {
            let refused = read(json, false).expect_err(json);
            assert_eq!((&refused.id, refused.fault.code), (&id, code), "{json}");
            let told = error(&refused.id, &refused.fault);
            assert_eq!(told["type"], "error");
            assert_eq!(told["code"], json!(code));
            assert!(
                told["message"]
                    .as_str()
                    .is_some_and(|m| m.starts_with("The message"))
            );
        }
        let with_bytes = read(r#"{"v":1,"id":1,"type":"load"}"#, true);
        assert!(with_bytes.is_ok(), "{with_bytes:?}");
    }
}
