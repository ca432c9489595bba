//! A question of the host as the page asks it.

use serde_json::Value;

use super::message::refused;
use crate::chat::candidates::{BoxId, Candidates, LOST_MARK};
use crate::chat::conversation::Conversation;
use crate::chat::question::{Draft, QuestionKind};
use crate::error::{ErrorCode, Fault};
use crate::geometry::BoxXyxy;
use crate::text::prompt::index_tag;

/// Least overlap of a box of a question with the box of the user that it became.
const SAME_BOX: f32 = 0.9;

/// A question of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The request.
    pub id: Value,
    /// Its words.
    pub question: String,
    /// Its kind.
    pub kind: QuestionKind,
    /// Its boxes.
    pub boxes: Vec<BoxXyxy>,
}

/// Whether the current picture shows a part of every box.
pub fn are_inside(boxes: &[BoxXyxy], conversation: &Conversation) -> bool {
    let size = conversation.picture().map(|picture| picture.size);
    size.is_some_and(|size| {
        let (width, height) = (size.width as f32, size.height as f32);
        boxes
            .iter()
            .all(|b| b.x1 < width && b.y1 < height && b.x2 > 0.0 && b.y2 > 0.0)
    })
}

/// The draft of a question. `<objK>` becomes the tag of the box of the user that box K became.
///
/// # Errors
/// A box is not in the picture, or there is no room for it.
pub fn draft(asked: &Asked, candidates: &Candidates) -> Result<Draft, Fault> {
    let number = |bbox: &BoxXyxy| {
        let own =
            (candidates.boxes.iter().enumerate()).filter(|(_, b)| matches!(b.id, BoxId::Own(_)));
        let best = own.max_by(|(_, a), (_, b)| a.bbox.iou(bbox).total_cmp(&b.bbox.iou(bbox)));
        let best = best.filter(|(_, b)| b.bbox.iou(bbox) >= SAME_BOX);
        best.map(|(number, _)| number as u32)
    };
    let numbers: Vec<_> = asked.boxes.iter().map(number).collect();
    if numbers.contains(&None) {
        let what = "a box is not in the picture, or there are too many boxes";
        return Err(refused(Value::Null, ErrorCode::InvalidInput, what).fault);
    }
    let tag = |k: usize| numbers.get(k).copied().flatten().map(index_tag);
    let words = if numbers.is_empty() {
        asked.question.clone()
    } else {
        replaced(&asked.question, tag)
    };
    // Tags are for the model; the visitor reads marks.
    let shown = marks(&words, candidates.boxes.len());
    let draft = Draft::new(asked.kind, shown);
    if draft.is_complete() && !draft.words.contains(LOST_MARK) {
        return Ok(draft);
    }
    let what = "the question is empty or names a box that is not there";
    Err(refused(Value::Null, ErrorCode::InvalidInput, what).fault)
}

/// Words whose tags `<objK>` are replaced by what `tag` gives for K; others become [`LOST_MARK`].
fn replaced(words: &str, tag: impl Fn(usize) -> Option<String>) -> String {
    let mut out = String::with_capacity(words.len());
    let mut rest = words;
    while let Some(start) = rest.find("<obj") {
        out.push_str(&rest[..start]);
        rest = &rest[start + 4..];
        let end = rest.find('>');
        let number = end.and_then(|end| rest[..end].parse().ok());
        match (number, end) {
            (Some(number), Some(end)) => {
                out.push_str(&tag(number).unwrap_or_else(|| LOST_MARK.to_owned()));
                rest = &rest[end + 1..];
            }
            _ => out.push_str("<obj"),
        }
    }
    out.push_str(rest);
    out
}

/// The same words with marks `[K]` in place of tags.
fn marks(words: &str, boxes: usize) -> String {
    replaced(words, |k| (k < boxes).then(|| format!("[{k}]")))
}
