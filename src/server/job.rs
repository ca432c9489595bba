//! What the engine is asked to do, and what it replies.

use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::picture::Picture;
use super::problem::Problem;
use super::shown::Form;
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Granularity};
use crate::protocol::{Answer, Exchange, ImageSize, LookTime, Proposal};
use crate::session::StopHandle;

/// Which boxes are found and used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looking {
    /// The prompt of the proposal network.
    pub granularity: Granularity,
    /// Least score; without it the model's own.
    pub score: Option<f32>,
    /// IoU threshold of non-maximum suppression; without it the model's own.
    pub nms: Option<f64>,
    /// Boxes of the client in place of the proposals, in pixels.
    pub boxes: Option<Vec<BoxXyxy>>,
}

/// A question, or several about the same boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// Each is answered by itself.
    pub questions: Vec<String>,
    /// The words of the system prompt; without them the model's own.
    pub system: Option<String>,
    /// Earlier questions with their answers.
    pub earlier: Vec<Exchange>,
    /// The most tokens of each answer; without it the model's own limit.
    pub max_tokens: Option<u32>,
    /// How tokens are sampled.
    pub sampling: Sampling,
    /// Whether the text of the answer has tags.
    pub form: Form,
    /// Whether the text is sent as it grows.
    pub stream: bool,
}

/// Work for the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// None for a model that reads text alone.
    pub picture: Option<Picture>,
    /// How boxes are found.
    pub looking: Looking,
    /// What is asked about them; `None` for the boxes alone.
    pub asking: Option<Asking>,
}

/// The end of a piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The size of the picture.
    pub size: Option<ImageSize>,
    /// The boxes that the answers may name, best first; those of a client have no label and score 0.
    pub boxes: Vec<Proposal>,
    /// Whether they are the client's.
    pub given: bool,
    /// How long the boxes took; zero if they were known.
    pub looked: LookTime,
    /// One per question.
    pub answers: Vec<Told>,
}

/// An answer as the client gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The answer.
    pub answer: Answer,
    /// Its text in the form that was asked for.
    pub text: String,
    /// All tokens of the prompt.
    pub prompt_tokens: u32,
}

/// A reply of the engine.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Text to append.
    Text(String),
    /// The work is done.
    Done(Box<Outcome>),
    /// The work failed.
    Failed(Problem),
}

/// Work in the queue.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub work: Work,
    /// Where the replies go.
    pub replies: UnboundedSender<Reply>,
    /// Stops the work.
    pub stop: StopHandle,
    /// When it was queued.
    pub queued: Instant,
    /// Memory that its picture holds.
    pub memory: Option<OwnedSemaphorePermit>,
}

impl Job {
    /// Sends a reply; a client that left gets none.
    pub fn reply(&self, reply: Reply) {
        let _ = self.replies.send(reply);
    }
}
