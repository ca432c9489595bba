//! Progress of something long, as data; whoever shows it chooses the words.

use serde::{Deserialize, Serialize};

/// How far a stage has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Units done so far.
    pub done: u64,
    /// Units in all; 0 where unknown.
    pub total: u64,
}

/// The long things the engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading weight files; units are bytes.
    Fetch,
    /// Putting weights on the device; units are tensors.
    Upload,
    /// First run of every pipeline; units are steps.
    Compile,
    /// Finding boxes in a picture; units are steps.
    Propose,
    /// Encoding a picture; units are steps.
    Look,
    /// Reading picture, boxes and question into the decoder; units are tokens.
    Read,
}
