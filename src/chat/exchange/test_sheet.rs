//! The boxes and the conversation that the tests of this folder share.

use std::collections::BTreeSet;

use super::marked::{Scope, Sheet, Source};
use crate::chat::candidates::BoxId;
use crate::chat::conversation::{Conversation, Input};
use crate::chat::test_data::{after, open, saved};
use crate::protocol::{ImageSize, PictureId};

/// The size of the picture of [`restored`].
pub(super) const SIZE: ImageSize = ImageSize {
    width: 100,
    height: 80,
};

/// The conversation of [`saved`].
pub(in crate::chat) fn restored() -> Conversation {
    let picture = open(PictureId(1));
    after([picture, Input::Restore(Box::new(saved()))])
}

pub(super) fn source<'a>(
    c: &'a Conversation,
    shown: &'a BTreeSet<BoxId>,
    selected: &'a BTreeSet<BoxId>,
) -> Source<'a> {
    Source {
        name: "room.jpg",
        size: SIZE,
        candidates: c.candidates(),
        turns: c.turns(),
        shown,
        selected,
    }
}

/// All boxes of [`restored`]: a named proposal, one without a label, and a named box of the user.
pub(super) fn sheet() -> Sheet {
    let none = BTreeSet::new();
    Sheet::of(source(&restored(), &none, &none), Scope::All)
}
