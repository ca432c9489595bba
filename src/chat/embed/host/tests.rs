use serde_json::json;

use super::super::question::draft;
use super::*;
use crate::chat::conversation::Input;
use crate::chat::document::LabelledBox;
use crate::chat::test_data::{load, open, proposed, ready};
use crate::error::FaultKind;
use crate::geometry::BoxXyxy;
use crate::protocol::{Answer, AskTime, Event, StopReason};
use crate::text::answer_parser::Span;

/// A page with its host. Effects on the page are carried out, messages to the host are kept.
#[derive(Default)]
struct Frame {
    host: Host,
    conversation: Conversation,
    selection: BTreeSet<BoxId>,
    notice: Option<Fault>,
    told: Vec<Value>,
    opening: Vec<Value>,
}

impl Frame {
    fn with<T>(&mut self, act: impl FnOnce(&mut Host, Page<'_>) -> T) -> T {
        let page = Page {
            conversation: &self.conversation,
            selection: &self.selection,
            notice: self.notice.as_ref(),
        };
        act(&mut self.host, page)
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Post(message) => self.told.push(message),
                Effect::Open { id, .. } => self.opening.push(id),
                Effect::Ask(asked) => {
                    let labelled = |&bbox: &BoxXyxy| LabelledBox { bbox, label: None };
                    let boxes = asked.boxes.iter().map(labelled).collect();
                    self.conversation.step(Input::Import(boxes));
                    match draft(&asked, self.conversation.candidates()) {
                        Ok(draft) => drop(self.conversation.step(Input::AskDraft(draft))),
                        Err(fault) => {
                            let effects = self.host.refused(&fault);
                            self.carry_out(effects);
                        }
                    }
                    self.compare();
                }
                Effect::Propose {
                    granularity,
                    filter,
                } => {
                    self.conversation.step(Input::Filter(filter));
                    self.conversation.step(Input::Prefer(granularity));
                    self.compare();
                }
                Effect::Select(ids) => self.selection = ids.into_iter().collect(),
                Effect::Stop => drop(self.conversation.step(Input::Stop)),
                Effect::SendPicture(id) => self.told.push(message::picture(&id, "")),
            }
        }
    }

    fn compare(&mut self) {
        let effects = self.with(|host, page| host.compare(page));
        self.carry_out(effects);
    }

    fn get(&mut self, message: Value) {
        let read = message::read(&message.to_string(), message["type"] == "load");
        let effects = self.with(|host, page| host.receive(read, page));
        self.carry_out(effects);
    }

    fn opened(&mut self, outcome: Result<u32, Fault>) {
        let id = self.opening.pop().expect("a picture that is being opened");
        if let Ok(number) = outcome {
            self.conversation.step(open(PictureId(number)));
        }
        let outcome = outcome.map(PictureId);
        let effects = self.with(|host, page| host.opened(&id, outcome, page));
        self.carry_out(effects);
    }

    fn step(&mut self, input: Input) {
        self.conversation.step(input);
        self.compare();
    }

    /// Type and id of the messages since the last call, and the code of errors.
    fn heard(&mut self) -> Vec<(String, Value)> {
        let told = std::mem::take(&mut self.told);
        let short = |message: Value| {
            let code = message["code"].as_str().map(|code| format!(" {code}"));
            let kind = message["type"].as_str().unwrap_or_default();
            (
                format!("{kind}{}", code.unwrap_or_default()),
                message["id"].clone(),
            )
        };
        told.into_iter().map(short).collect()
    }
}

/// A page with a model, a picture of the host and its boxes.
fn prepared() -> Frame {
    let mut frame = Frame::default();
    frame.step(load());
    frame.step(ready());
    frame.get(json!({"v": 1, "id": "l", "type": "load"}));
    frame.opened(Ok(1));
    frame.step(proposed(PictureId(1), Granularity::Coarse));
    frame.told.clear();
    frame
}

fn done(turn: TurnId, text: &str, objects: &[u32]) -> Input {
    let spans = vec![Span {
        text: text.into(),
        objects: objects.to_vec(),
        ..Span::default()
    }];
    Input::Event(Event::Done {
        turn,
        answer: Answer {
            prompt: String::new(),
            text: text.into(),
            spans,
            tokens: 3,
            prefill_tokens: 9,
            question_tokens: 0,
            gpu_bytes: None,
            stop: StopReason::End,
            milliseconds: AskTime::default(),
        },
    })
}

fn pairs(expected: &[(&str, Value)]) -> Vec<(String, Value)> {
    expected
        .iter()
        .map(|(kind, id)| ((*kind).to_owned(), id.clone()))
        .collect()
}

#[test]
fn a_host_that_says_hello_hears_of_the_model() {
    let mut frame = Frame::default();
    frame.get(json!({"v": 1, "id": 1, "type": "hello"}));
    assert_eq!(frame.heard(), pairs(&[("progress", Value::Null)]));
    frame.step(load());
    assert_eq!(frame.heard(), pairs(&[("progress", Value::Null)]));
    frame.step(ready());
    assert_eq!(frame.heard(), pairs(&[("ready", json!(1))]));
    frame.compare();
    assert_eq!(frame.heard(), pairs(&[]));
    frame.get(json!({"v": 1, "id": 2, "type": "hello"}));
    assert_eq!(frame.heard(), pairs(&[("ready", json!(2))]));
}

#[test]
fn questions_wait_for_the_picture_and_for_each_other() {
    let mut frame = Frame::default();
    frame.get(json!({"v": 1, "id": 1, "type": "ask", "question": "What is it?"}));
    assert_eq!(frame.heard(), pairs(&[("error NotReady", json!(1))]));
    frame.step(load());
    frame.step(ready());
    frame.told.clear();
    frame.get(json!({"v": 1, "id": 2, "type": "load"}));
    for id in [3, 4] {
        frame.get(json!({"v": 1, "id": id, "type": "ask", "question": "What is it?"}));
    }
    frame.opened(Ok(1));
    frame.step(proposed(PictureId(1), Granularity::Coarse));
    let heard = frame.heard();
    assert!(heard.contains(&("boxes".into(), json!(2))), "{heard:?}");
    assert_eq!(
        frame.conversation.turns().len(),
        1,
        "one question at a time"
    );
    let first = frame.conversation.turns()[0].id;
    frame.step(done(first, "A cat", &[0, 9]));
    let answer = frame
        .told
        .iter()
        .find(|m| m["type"] == "answer")
        .cloned()
        .expect("an answer");
    assert_eq!(answer["id"], json!(3));
    assert_eq!(answer["spans"], json!([{"text": "A cat", "objects": [0]}]));
    assert_eq!(answer["boxes"][0]["box"], json!([0.0, 0.0, 10.0, 10.0]));
    assert_eq!(
        (&answer["stop"], &answer["tokens"]),
        (&json!("end"), &json!(3))
    );
    let second = frame.conversation.turns()[1].id;
    frame.step(done(second, "Two", &[]));
    assert_eq!(frame.heard().last(), Some(&("answer".into(), json!(4))));
}

#[test]
fn a_picture_that_cannot_be_opened_loses_nothing() {
    let mut frame = prepared();
    let fault = Fault::new(FaultKind::Picture, "that file", "it is none", "");
    frame.get(json!({"v": 1, "id": 5, "type": "load"}));
    frame.get(json!({"v": 1, "id": 6, "type": "load"}));
    assert_eq!(frame.heard(), pairs(&[("error Cancelled", json!(5))]));
    frame.notice = Some(fault.clone());
    frame.opened(Err(fault.clone()));
    assert_eq!(frame.heard(), pairs(&[("error InvalidInput", json!(6))]));
    frame.opened(Err(fault));
    assert_eq!(
        frame.heard(),
        pairs(&[]),
        "the outdated one is not told twice"
    );
    assert!(frame.conversation.picture().is_some());
    frame.notice = None;
    frame.get(json!({"v": 1, "id": 7, "type": "ask", "question": "What is it?"}));
    let turn = frame.conversation.turns()[0].id;
    frame.step(done(turn, "A cat", &[]));
    assert_eq!(frame.heard(), pairs(&[("answer", json!(7))]));
}

#[test]
fn what_is_refused_has_a_code_and_changes_nothing() {
    let mut frame = prepared();
    for (message, code) in [
        (json!({"v": 1, "id": 1, "type": "fly"}), "error Protocol"),
        (
            json!({"v": 3, "id": 1, "type": "stop"}),
            "error Unsupported",
        ),
        (
            json!({"v": 1, "id": 1, "type": "ask", "question": "x", "kind": "sing"}),
            "error InvalidInput",
        ),
        (
            json!({"v": 1, "id": 1, "type": "ask", "question": " "}),
            "error InvalidInput",
        ),
        (
            json!({"v": 1, "id": 1, "type": "ask", "question": "What is <obj8>?"}),
            "error InvalidInput",
        ),
        (
            json!({"v": 1, "id": 1, "type": "ask", "question": "What is <obj0>?", "boxes": [[200, 200, 210, 210]]}),
            "error InvalidInput",
        ),
        (
            json!({"v": 1, "id": 1, "type": "select", "boxes": [0, 9]}),
            "error InvalidInput",
        ),
    ] {
        frame.get(message.clone());
        assert_eq!(frame.heard(), pairs(&[(code, json!(1))]), "{message}");
        assert_eq!(frame.conversation.turns().len(), 0, "{message}");
        assert!(frame.selection.is_empty(), "{message}");
    }
}

#[test]
fn boxes_of_a_question_become_boxes_of_the_user() {
    let mut frame = prepared();
    let question = "What is <obj0>?";
    frame.get(
        json!({"v": 1, "id": 1, "type": "ask", "question": question, "boxes": [[50, 30, 70, 60]]}),
    );
    let turn = &frame.conversation.turns()[0];
    let boxes = turn.boxes.as_ref().expect("the question was sent");
    let own = boxes.boxes.len() - 1;
    assert_eq!(boxes.boxes[own].bbox, [50., 30., 70., 60.].into());
    assert_eq!(turn.question, format!("What is <obj{own}>?"));
    assert_eq!(turn.shown, format!("What is [{own}]?"));
}

#[test]
fn a_selection_is_told_once() {
    let mut frame = prepared();
    frame.selection = [BoxId::Found(Granularity::Coarse, 1)].into();
    frame.compare();
    assert_eq!(
        frame.told,
        [json!({"v": 1, "id": null, "type": "select", "boxes": [1]})]
    );
    frame.told.clear();
    frame.get(json!({"v": 1, "id": 3, "type": "select", "boxes": [0, 0]}));
    frame.compare();
    assert_eq!(
        frame.told,
        [json!({"v": 1, "id": 3, "type": "select", "boxes": [0]})]
    );
    assert_eq!(
        frame.selection,
        [BoxId::Found(Granularity::Coarse, 0)].into()
    );
}

#[test]
fn other_thresholds_give_other_boxes() {
    let mut frame = prepared();
    frame.get(json!({"v": 1, "id": 2, "type": "propose", "score": 0.05}));
    let boxes = frame.told.pop().expect("a reply");
    assert_eq!((&boxes["type"], &boxes["id"]), (&json!("boxes"), &json!(2)));
    assert_eq!(boxes["boxes"].as_array().map(Vec::len), Some(3));
    frame.told.clear();
    frame.get(json!({"v": 1, "id": 3, "type": "propose", "granularity": "fine"}));
    frame.step(proposed(PictureId(1), Granularity::Fine));
    assert_eq!(frame.heard().last(), Some(&("boxes".into(), json!(3))));
}

#[test]
fn failures_reach_the_request_that_they_belong_to() {
    let fault = || Fault::new(FaultKind::Device, "card", "is lost", "");
    let mut frame = prepared();
    frame.get(json!({"v": 1, "id": 1, "type": "ask", "question": "What is it?"}));
    let turn = frame.conversation.turns()[0].id;
    frame.step(Input::Event(Event::Failed {
        turn: Some(turn),
        picture: None,
        fault: fault(),
    }));
    assert_eq!(frame.heard(), pairs(&[("error DeviceFailed", json!(1))]));
    frame.get(json!({"v": 1, "id": 2, "type": "load"}));
    frame.opened(Ok(2));
    frame.told.clear();
    frame.step(Input::Event(Event::Failed {
        turn: None,
        picture: Some(PictureId(2)),
        fault: fault(),
    }));
    assert_eq!(frame.heard(), pairs(&[("error DeviceFailed", json!(2))]));
}

#[test]
fn the_picture_is_sent_on_request_only() {
    let mut frame = prepared();
    let turn_text = serde_json::to_string(&frame.told).expect("plain data");
    assert!(!turn_text.contains("picture\":{\"bytes"), "{turn_text}");
    frame.get(json!({"v": 1, "id": 1, "type": "picture"}));
    assert_eq!(frame.heard(), pairs(&[("picture", json!(1))]));
    frame.step(Input::Close);
    assert_eq!(frame.heard(), pairs(&[("boxes", Value::Null)]));
    frame.get(json!({"v": 1, "id": 2, "type": "picture"}));
    assert_eq!(frame.heard(), pairs(&[("error NotReady", json!(2))]));
}
