//! Progress of long operations as data; the views choose the words.

use serde::{Deserialize, Serialize};

/// How much of a stage is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Units done so far.
    pub done: u64,
    /// All units; 0 where unknown.
    pub total: u64,
}

/// The long operations of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading weight files; units are bytes.
    Fetch,
    /// Uploading stored weights to the device; units are bytes.
    Upload,
    /// Compiling the pipelines of a loaded model while there is nothing else to do; units are dry runs.
    Compile,
    /// Finding boxes in an image; units are steps.
    Propose,
    /// Encoding an image; units are steps.
    Look,
    /// Prefill of image, boxes and question; units are tokens.
    Read,
}
