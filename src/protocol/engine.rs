//! Everything that passes between a front (page, terminal, evaluation) and the engine: two enums.
//!
//! Each message names the picture or turn it belongs to, so that a late reply can be recognised
//! and dropped. Coordinates are pixels of the original picture, EXIF rotation applied.

use serde::{Deserialize, Serialize};

use super::store::{StoreEvent, StoreRequest};
pub use crate::device_preference::DevicePreference;
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
pub use crate::geometry::{Granularity, Proposal};
use crate::image::Pixels;
use crate::memory::{Fit, KvCacheDType};
use crate::progress::Progress;
use crate::text::answer_parser::Span;

/// Numbers a picture within one front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PictureId(pub u32);

/// Numbers a question within one front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TurnId(pub u32);

/// What a front asks of the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Load the model found at `model`: a folder natively, a base address in the page.
    Load {
        /// Folder or base address that holds `model.json`.
        model: String,
        /// Where to compute.
        device: DevicePreference,
        /// Graphics memory in bytes that must not be exceeded; all there is without.
        memory: Option<u64>,
        /// How a graphics device holds keys and values; without it, in half precision where weights
        /// are packed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<KvCacheDType>,
    },
    /// Find boxes in a picture. Answered by [`Event::Proposed`]; the picture stays encoded for
    /// the questions that follow, until the next `Look` with another id.
    Look {
        /// The picture's number.
        picture: PictureId,
        /// The picture; absent when the engine already holds this id (other granularity).
        pixels: Option<Pixels>,
        /// Which prompt of UPN to use.
        granularity: Granularity,
    },
    /// Ask about a picture. Answered by [`Event::Said`]s and one [`Event::Done`].
    Ask {
        /// The turn's number.
        turn: TurnId,
        /// The picture asked about.
        picture: PictureId,
        /// The boxes the model may point at, best first; at most 100.
        boxes: Vec<BoxXyxy>,
        /// The person's words, after any task template.
        question: String,
        /// The answer is cut after this many tokens.
        max_tokens: u32,
        /// How tokens are chosen.
        #[serde(default)]
        sampling: Sampling,
    },
    /// Stop a turn between two tokens.
    Stop {
        /// The turn to stop.
        turn: TurnId,
    },
}

/// What the engine tells a front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Something long goes on.
    Progress(Progress),
    /// The model is loaded.
    Ready(ModelCard),
    /// All boxes of a picture, best first, unfiltered.
    Proposed {
        /// The picture's number.
        picture: PictureId,
        /// Which prompt they belong to.
        granularity: Granularity,
        /// Every query's box, best first.
        boxes: Vec<Proposal>,
        /// Time taken.
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
    /// Something failed; `turn` or `picture` say what it belonged to.
    Failed {
        /// The turn concerned.
        turn: Option<TurnId>,
        /// The picture concerned.
        picture: Option<PictureId>,
        /// What failed.
        fault: Fault,
    },
}

/// A message of a page to its worker: for the engine, or for the library beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// For the library.
    Shelf(StoreRequest),
    /// For the engine.
    #[serde(untagged)]
    Engine(Request),
}

/// A message of a worker to its page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The library's.
    Shelf(StoreEvent),
    /// The engine's.
    #[serde(untagged)]
    Engine(Event),
}

/// Milliseconds of a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LookTime {
    /// Preparing the picture.
    pub prepare: f64,
    /// The proposal network.
    pub upn: f64,
}

/// Milliseconds of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AskTime {
    /// Towers, box encoder and projectors; 0 when kept from an earlier question.
    pub look: f64,
    /// Prompt into the decoder.
    pub prefill: f64,
    /// From the question to the first token.
    pub first_token: f64,
    /// All tokens after the first.
    pub decode: f64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopReason {
    /// The model said its end token.
    End,
    /// The token limit.
    Length,
    /// The person.
    Stopped,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The prompt as the model read it.
    pub prompt: String,
    /// The model's words with tags, without the end token.
    pub text: String,
    /// The words in pieces; joined they have no tags.
    pub spans: Vec<Span>,
    /// Generated tokens, the end token included.
    pub tokens: u32,
    /// Tokens that had to be read before the first word.
    pub prefill_tokens: u32,
    /// Why it ended.
    pub stop: StopReason,
    /// Where the time went.
    pub milliseconds: AskTime,
}

/// What a front may want to say about the loaded model and its device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// What [`Request::Load`] asked for; of several asked for in a row it tells which one this is.
    pub asked_for: String,
    /// Short name, e.g. `nano`.
    pub name: String,
    /// Licence line.
    pub licence: String,
    /// What it was trained on, in a sentence.
    pub trained_on: String,
    /// `wgpu` or `cpu`.
    pub device: String,
    /// Adapter name, or the processor.
    pub adapter: String,
    /// True when no graphics card computes: software adapter or processor.
    pub software: bool,
    /// Default score threshold for boxes.
    pub default_score: f32,
    /// Default IoU above which a box is merged into a better one.
    pub default_nms: f64,
    /// Default limit of an answer.
    pub default_max_tokens: u32,
    /// Bytes of weights in files.
    pub weight_bytes: u64,
    /// How it fits the device.
    pub fit: Fit,
}
