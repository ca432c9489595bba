//! Synthetic scenes: images of stickers with boxes, labels and dialogues. Nano is trained and
//! evaluated on them.
//!
//! A seed gives the same image and the same texts on every machine; [`Split`] says what a seed is
//! used for. This module does not use tensors.

mod background;
mod dialogue;
mod draw;
pub mod labels;
mod rng;
mod stickers;
mod wording;
mod write;

pub use dialogue::{Dialogue, Segment, dialogue, dialogues, number_word};
pub(crate) use dialogue::{REFUSAL, absent_category, detect_all, position_in_words};
pub use draw::{Object, Scene, Size};
pub use rng::Rng;
pub use stickers::{Category, Tint};
pub use wording::DialogueTask;
pub(crate) use wording::wording;
pub use write::{WriteOptions, write};

/// The data set split of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training: seeds below 800000.
    Train,
    /// Validation: seeds from 800000; layouts and wordings are those of training.
    Validation,
    /// Test: seeds from 900000; training never draws their layouts, backgrounds and wordings.
    Test,
}

impl Split {
    /// The split that `seed` belongs to.
    pub fn of(seed: u64) -> Self {
        match seed {
            ..800_000 => Split::Train,
            800_000..900_000 => Split::Validation,
            900_000.. => Split::Test,
        }
    }
}
