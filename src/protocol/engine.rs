//! The messages between a client (page, terminal, evaluation) and the engine: two enums.
//!
//! Each message names the picture or turn it belongs to, so that a client can recognize and drop
//! late replies. Coordinates are pixels of the original picture, EXIF rotation applied.

use serde::{Deserialize, Serialize};

use super::store::{StoreEvent, StoreRequest};
pub use crate::device_preference::DevicePreference;
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Selection};
pub use crate::geometry::{Granularity, Proposal};
pub use crate::hardware::{Hardware, Limits};
pub use crate::licence::PartLicence;
use crate::memory::{CpuActivations, Fit, KvCacheDType};
use crate::progress::Progress;
use crate::text::answer_parser::Span;

/// The number of a picture, unique within a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PictureId(pub u32);

/// The number of a question, unique within a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TurnId(pub u32);

/// Where and how a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadOptions {
    /// The device.
    pub device: DevicePreference,
    /// GPU memory limit in bytes; without it, all there is.
    pub memory: Option<u64>,
    /// Element type of the KV cache; without it, f16 for quantized weights on a GPU and f32 else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<KvCacheDType>,
    /// Activations of quantized weights on the CPU; without it f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<CpuActivations>,
}

impl From<DevicePreference> for LoadOptions {
    fn from(device: DevicePreference) -> Self {
        Self {
            device,
            ..Self::default()
        }
    }
}

/// A question about a picture, and how it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The boxes the model may point at, best first; at most 100.
    pub boxes: Vec<BoxXyxy>,
    /// The user's words, after any task template.
    #[serde(rename = "question")]
    pub text: String,
    /// The answer ends after this many tokens.
    pub max_tokens: u32,
    /// How tokens are sampled.
    #[serde(default)]
    pub sampling: Sampling,
    /// Earlier questions about the same boxes with their answers, oldest first. Models are trained on
    /// single questions unless their documentation says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Exchange>,
    /// The words of the system prompt in place of the model's own; empty for none. Grounding is trained
    /// with the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// A question that was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// The question as the model read it.
    pub question: String,
    /// The answer with tags, as in [`Answer::text`].
    pub answer: String,
}

/// Width and height of a picture in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A request of a client to the engine. The pixels of a [`Request::Look`] are the attachment of its
/// [`Envelope`](super::Envelope).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Load the model found at `model`: a folder natively, a base address in the page.
    Load {
        /// Folder or base address that holds `model.json`.
        model: String,
        /// Where and how.
        #[serde(flatten)]
        options: LoadOptions,
    },
    /// Find boxes in a picture. Answered by [`Event::Proposed`]; the picture stays encoded for
    /// the questions that follow, until the next `Look` with another id.
    Look {
        /// The picture's number.
        picture: PictureId,
        /// Size of the attached picture; `None` when the engine already holds this id (other
        /// granularity).
        #[serde(rename = "pixels")]
        size: Option<ImageSize>,
        /// Which prompt of UPN to use.
        granularity: Granularity,
    },
    /// Ask about a picture. Answered by [`Event::Said`]s and one [`Event::Done`].
    Ask {
        /// The turn's number.
        turn: TurnId,
        /// The picture asked about.
        picture: PictureId,
        /// The question.
        #[serde(flatten)]
        question: Question,
    },
    /// Stop a turn between two tokens.
    Stop {
        /// The turn to stop.
        turn: TurnId,
    },
    /// How sure the model was of the boxes that its last answer names. Answered by [`Event::Links`].
    Links {
        /// The last answered turn.
        turn: TurnId,
    },
    /// How alike boxes of a picture are. Answered by [`Event::Compared`].
    Compare {
        /// A number of its own.
        turn: TurnId,
        /// The current picture.
        picture: PictureId,
        /// The boxes, at most 100.
        boxes: Vec<BoxXyxy>,
    },
}

/// A reply of the engine to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Progress of a long operation.
    Progress(Progress),
    /// The model is loaded.
    Ready(Box<ModelCard>),
    /// All boxes of a picture, best first, unfiltered.
    Proposed {
        /// The picture's number.
        picture: PictureId,
        /// Which prompt they belong to.
        granularity: Granularity,
        /// Every query's box, best first.
        boxes: Vec<Proposal>,
        /// Durations.
        milliseconds: LookTime,
    },
    /// The answer so far.
    Said {
        /// The turn's number.
        turn: TurnId,
        /// The whole answer so far; never half a tag.
        spans: Vec<Span>,
    },
    /// The answer is complete.
    Done {
        /// The turn's number.
        turn: TurnId,
        /// The complete answer.
        answer: Answer,
    },
    /// How sure the model was of the boxes that an answer names.
    Links {
        /// The turn's number.
        turn: TurnId,
        /// One entry per index in the answer, in their order.
        links: Vec<Link>,
    },
    /// How alike the boxes of a picture are.
    Compared {
        /// The number of the request.
        turn: TurnId,
        /// Cosines of the object tokens, row by row: -1 to 1.
        likeness: Vec<Vec<f32>>,
    },
    /// A request failed; `turn` or `picture` name what it belonged to.
    Failed {
        /// The turn concerned.
        turn: Option<TurnId>,
        /// The picture concerned.
        picture: Option<PictureId>,
        /// What failed.
        fault: Fault,
    },
}

/// A message of a page to its worker: for the engine or for the model store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// For the model store.
    #[serde(rename = "Shelf")]
    Store(StoreRequest),
    /// For the engine.
    #[serde(untagged)]
    Engine(Request),
}

/// A message of a worker to its page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// From the model store.
    #[serde(rename = "Shelf")]
    Store(StoreEvent),
    /// From the engine.
    #[serde(untagged)]
    Engine(Event),
}

/// Duration of a [`Request::Look`] in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LookTime {
    /// Preprocessing.
    pub prepare: f64,
    /// UPN or the detector.
    pub upn: f64,
}

impl LookTime {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.prepare + self.upn
    }
}

/// Duration of an answer in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AskTime {
    /// Vision towers, box encoder and projectors; 0 when cached from an earlier question.
    pub look: f64,
    /// Prefill: the prompt through the decoder.
    pub prefill: f64,
    /// From the question to the first token.
    pub first_token: f64,
    /// Decode: all tokens after the first.
    pub decode: f64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopReason {
    /// The model generated its end token.
    End,
    /// The token limit.
    Length,
    /// The user.
    Stopped,
}

/// How sure the model was of a box that its answer names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Index of the box.
    pub object: u32,
    /// Its probability among all boxes of the question, before temperature and penalties.
    pub probability: f32,
    /// The most probable other box.
    pub runner_up: Option<RunnerUp>,
}

/// A box that the model could have named instead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// Index of the box.
    pub object: u32,
    /// Its probability among all boxes of the question.
    pub probability: f32,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The prompt as the model read it.
    pub prompt: String,
    /// The generated text with tags, without the end token.
    pub text: String,
    /// The text in pieces; joined they have no tags.
    pub spans: Vec<Span>,
    /// Generated tokens, the end token included.
    pub tokens: u32,
    /// Tokens that were prefilled for this answer; a cached prefix does not count.
    pub prefill_tokens: u32,
    /// Tokens of the question, without earlier turns.
    #[serde(default)]
    pub question_tokens: u32,
    /// Bytes of all GPU buffers at its end: weights, KV cache and scratch; `None` on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_bytes: Option<u64>,
    /// Why it ended.
    pub stop: StopReason,
    /// Durations.
    pub milliseconds: AskTime,
}

#[cfg(test)]
impl Answer {
    /// An answer that took no time and no token.
    pub(crate) fn saying(text: String, spans: Vec<Span>) -> Self {
        Self {
            prompt: String::new(),
            text,
            spans,
            tokens: 0,
            prefill_tokens: 0,
            question_tokens: 0,
            gpu_bytes: None,
            stop: StopReason::End,
            milliseconds: AskTime::default(),
        }
    }
}

/// Description of the loaded model and its device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The `model` of the [`Request::Load`] that this answers.
    pub asked_for: String,
    /// Short name, e.g. `nano`.
    pub name: String,
    /// Licence line.
    pub licence: String,
    /// Licences of the parts that come from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licence_parts: Vec<PartLicence>,
    /// What it was trained on, in a sentence.
    pub trained_on: String,
    /// What it knows, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knows: Option<String>,
    /// The kinds that its detector names; empty if its boxes have no labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Whether it reads text alone: it answers without a picture, and proposes no boxes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub text_only: bool,
    /// `wgpu` or `cpu`.
    pub device: String,
    /// Name of the GPU adapter or of the CPU.
    pub adapter: String,
    /// True on a software adapter or the CPU.
    pub software: bool,
    /// Default score threshold for boxes.
    pub default_score: f32,
    /// Default IoU threshold of non-maximum suppression.
    pub default_nms: f64,
    /// Default score from which the best box of a kind without other boxes is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_first_of_kind: Option<f32>,
    /// Default limit of an answer in tokens.
    pub default_max_tokens: u32,
    /// Default repetition penalty; 1 is none.
    #[serde(default = "no_penalty")]
    pub default_repetition_penalty: f32,
    /// The words of the model's own system prompt; empty for none.
    #[serde(default)]
    pub default_system: String,
    /// Whether the model was trained on several questions about the same boxes.
    #[serde(default)]
    pub multi_turn: bool,
    /// What is known of the GPU; `None` on the CPU.
    #[serde(default)]
    pub hardware: Option<Hardware>,
    /// Version of the engine.
    #[serde(default)]
    pub engine: String,
    /// Bytes of weights in files.
    pub weight_bytes: u64,
    /// Memory plan for the device.
    pub fit: Fit,
}

fn no_penalty() -> f32 {
    1.0
}

fn is_false(value: &bool) -> bool {
    !value
}

impl ModelCard {
    /// The model's default choice among its proposals.
    pub fn selection(&self) -> Selection {
        Selection {
            score: self.default_score,
            nms: self.default_nms,
            first_of_kind: self.default_first_of_kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The JSON that pages, workers and evaluation programs exchange.
    #[test]
    fn requests_keep_their_json() {
        let sampling = Sampling::default();
        let cases = [
            (
                Request::Load {
                    model: "models/nano".into(),
                    options: DevicePreference::Wgpu.into(),
                },
                json!({"Load": {"model": "models/nano", "device": "wgpu", "memory": null}}),
            ),
            (
                Request::Load {
                    model: "m".into(),
                    options: LoadOptions {
                        device: DevicePreference::Auto,
                        memory: Some(1 << 33),
                        cache: Some(KvCacheDType::default()),
                        activations: Some(CpuActivations::Int8),
                    },
                },
                json!({"Load": {
                    "model": "m",
                    "device": "auto",
                    "memory": 8_589_934_592_u64,
                    "cache": "f32",
                    "activations": "int8",
                }}),
            ),
            (
                Request::Look {
                    picture: PictureId(3),
                    size: Some(ImageSize {
                        width: 20,
                        height: 10,
                    }),
                    granularity: Granularity::Fine,
                },
                json!({"Look": {
                    "picture": 3,
                    "pixels": {"width": 20, "height": 10},
                    "granularity": "fine",
                }}),
            ),
            (
                Request::Look {
                    picture: PictureId(3),
                    size: None,
                    granularity: Granularity::Coarse,
                },
                json!({"Look": {"picture": 3, "pixels": null, "granularity": "coarse"}}),
            ),
            (
                Request::Ask {
                    turn: TurnId(1),
                    picture: PictureId(3),
                    question: Question {
                        boxes: vec![[0.5, 1.0, 2.0, 3.25].into()],
                        text: "What is <obj0>?".into(),
                        max_tokens: 64,
                        sampling,
                        earlier: Vec::new(),
                        system: None,
                    },
                },
                json!({"Ask": {
                    "turn": 1,
                    "picture": 3,
                    "boxes": [[0.5, 1.0, 2.0, 3.25]],
                    "question": "What is <obj0>?",
                    "max_tokens": 64,
                    "sampling": sampling,
                }}),
            ),
            (
                Request::Stop { turn: TurnId(1) },
                json!({"Stop": {"turn": 1}}),
            ),
            (
                Request::Links { turn: TurnId(1) },
                json!({"Links": {"turn": 1}}),
            ),
            (
                Request::Compare {
                    turn: TurnId(2),
                    picture: PictureId(3),
                    boxes: vec![[0.5, 1.0, 2.0, 3.25].into()],
                },
                json!({"Compare": {"turn": 2, "picture": 3, "boxes": [[0.5, 1.0, 2.0, 3.25]]}}),
            ),
        ];
        for (request, json) in cases {
            let written = serde_json::to_value(ToWorker::Engine(request.clone()));
            assert_eq!(written.expect("plain data"), json);
            let text = json.to_string();
            let read: ToWorker = serde_json::from_str(&text).expect(&text);
            assert_eq!(read, ToWorker::Engine(request), "{text}");
        }
    }

    #[test]
    fn options_may_be_left_out() {
        let load: Request = serde_json::from_str(r#"{"Load":{"model":"m"}}"#).expect("defaults");
        let options = LoadOptions::default();
        let model = "m".into();
        assert_eq!(load, Request::Load { model, options });
        let ask = r#"{"Ask":{"turn":0,"picture":0,"boxes":[],"question":"?","max_tokens":1}}"#;
        let Request::Ask { question, .. } = serde_json::from_str(ask).expect("no sampling") else {
            panic!("{ask}");
        };
        assert_eq!(question.sampling, Sampling::default());
        let unknown = r#"{"Load":{"model":"m","device":"abacus"}}"#;
        assert!(serde_json::from_str::<Request>(unknown).is_err());
    }
}
