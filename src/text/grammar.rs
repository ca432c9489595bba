//! The answer grammar (`chatrex.md` 9): text with `<ground>phrase</ground><objects><objK>..</objects>`.

use serde::{Deserialize, Serialize};

/// A piece of an answer: words, and the boxes they name (empty for plain words).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The words, without tags.
    pub text: String,
    /// Indices of the boxes named; may lie beyond the boxes given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<u32>,
}
