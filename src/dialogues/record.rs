//! A record of `dialogues.jsonl`.

use serde::{Deserialize, Serialize};

use super::text::Reason;
use crate::geometry::BoxXyxy;

/// What made a part of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The step: `boxes`, `caption`, `ground`, `describe`, `filter`, `rewrite`, `verify` or `answer`.
    pub step: String,
    /// The model's name; `annotations` for the user's file, `rules` for code of this program.
    pub model: String,
}

/// The name of the user's annotations in [`MadeBy`].
pub const ANNOTATIONS: &str = "annotations";
/// The name of this program's rules in [`MadeBy`].
pub const RULES: &str = "rules";

/// Pairs of step and model.
pub(super) fn made_by(steps: &[(&str, &str)]) -> Vec<MadeBy> {
    let steps = steps.iter().map(|(step, model)| MadeBy {
        step: (*step).to_owned(),
        model: (*model).to_owned(),
    });
    steps.collect()
}

/// A question with its answer, as `chatrex scenes` writes it, and what made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Path of the picture below the folder of the records.
    pub image: String,
    /// The task.
    pub task: String,
    /// The question.
    pub question: String,
    /// The answer in the grammar of `docs/reference/chatrex.md` section 9.1.
    pub answer: String,
    /// The boxes that tags refer to, in pixels.
    pub boxes: Vec<BoxXyxy>,
    /// The boxes that the answer names, ascending.
    pub objects: Vec<u32>,
    /// The steps that made the record.
    #[serde(default)]
    pub made_by: Vec<MadeBy>,
}

/// A text that was left out, one per line of `dropped.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Dropped {
    pub(super) image: String,
    pub(super) task: String,
    pub(super) text: String,
    pub(super) reason: Reason,
    pub(super) made_by: Vec<MadeBy>,
}
