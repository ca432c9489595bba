//! Label scenes: lists of boxes with class scores, as a detector reports them, and dialogues about them.
//! No pixels are drawn. Mini's decoder is trained on them (`docs/reference/training.md` section 6).
//!
//! The truth of a label scene is what the detector says: the kind of a box is the class with its highest
//! score. So the decoder learns to report the detector's list, whatever the photograph.

mod dialogue;
mod draw;
mod kinds;
mod phrases;
mod template;

pub use dialogue::{LabelDialogue, LabelTask, label_dialogue, superlative};
pub use draw::{LabelObject, LabelScene};
pub use kinds::{GROUPS, Group, KINDS, Kind};
