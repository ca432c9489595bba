//! Drawn pictures of stickers with everything that can be said about them: what nano is trained
//! and measured on.
//!
//! A seed means the same picture and words everywhere, and [`Split`] says what it may be used for.
//! Nothing here knows a tensor.

mod backdrop;
mod dialogue;
mod draw;
mod rng;
mod stickers;
mod wording;
mod write;

pub use dialogue::{Dialogue, Piece, Task, dialogue, dialogues, number_word};
pub(crate) use dialogue::{absent_kind, detect_all};
pub use draw::{Object, Scene, Size};
pub use rng::Rng;
pub use stickers::{Kind, Tint};
pub use write::{WriteOptions, write};

/// What a seed may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Below 800000.
    Train,
    /// From 800000; drawn and worded like training scenes.
    Validation,
    /// From 900000; layouts, backgrounds and wordings that training never sees.
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
