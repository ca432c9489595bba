//! The one error type for everything that comes from outside: a picture, a file, the network,
//! the GPU, a person. A broken promise between our own functions is a panic instead.

use serde::{Deserialize, Serialize};

/// What failed, where, and what a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{place}: {what}{}{advice}", if advice.is_empty() { "" } else { ". " })]
pub struct Fault {
    /// The area it belongs to; decides how the page presents it.
    pub kind: FaultKind,
    /// The file, tensor, argument or device concerned, by name.
    pub place: String,
    /// What is wrong, with the actual and the expected value where there are two.
    pub what: String,
    /// What the person can do; empty where there is nothing to do.
    pub advice: String,
}

/// The area a [`Fault`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// A picture that cannot be read or used.
    Picture,
    /// A question that cannot be asked.
    Question,
    /// A weight file, manifest or tokenizer that is missing, damaged or of another version.
    Model,
    /// A file that cannot be read or written.
    File,
    /// The network.
    Network,
    /// The graphics device.
    Device,
}

impl Fault {
    /// A fault of `kind` at `place`: `what` is wrong, `advice` helps.
    pub fn new(
        kind: FaultKind,
        place: impl Into<String>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            place: place.into(),
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// A fault in a weight file, manifest or tokenizer.
    pub fn model(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(
            FaultKind::Model,
            place,
            what,
            "Fetch or convert the model again",
        )
    }

    /// A fault in a file on disk.
    pub fn file(place: impl AsRef<std::path::Path>, error: impl std::fmt::Display) -> Self {
        Self::new(
            FaultKind::File,
            place.as_ref().display().to_string(),
            error.to_string(),
            "",
        )
    }
}
