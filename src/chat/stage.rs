//! The picture above the chat on a small screen: large, or small while the user reads or writes.

/// How far the user scrolls the conversation, in CSS pixels, before the picture makes room.
const SHRINK_AFTER: i32 = 24;

/// The conversation after it was scrolled, in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrolled {
    /// How far its beginning is above the view.
    pub top: i32,
    /// How far it can be scrolled in all.
    pub room: i32,
    /// Whether the page scrolled, not the user.
    pub by_page: bool,
}

/// The size of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    is_small: bool,
    /// Where the conversation stood before the user began to scroll.
    from: i32,
}

impl Stage {
    /// Whether the picture is small.
    pub fn is_small(self) -> bool {
        self.is_small
    }

    /// The conversation was scrolled. The picture becomes small once the user went a little way, and
    /// large again at the beginning of a conversation that is longer than the view.
    pub fn scrolled(&mut self, to: Scrolled) {
        let Scrolled { top, room, by_page } = to;
        if by_page {
            self.from = top;
        } else if self.is_small && top <= 0 && room > 0 {
            self.enlarge();
            self.from = 0;
        } else if !self.is_small && (top - self.from).abs() >= SHRINK_AFTER {
            self.is_small = true;
        }
    }

    /// The user begins to write: a keyboard may take half of the screen.
    pub fn shrink(&mut self) {
        self.is_small = true;
    }

    /// The user taps the small picture, opens another one or the list of its objects.
    pub fn enlarge(&mut self) {
        self.is_small = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(top: i32, room: i32, by_page: bool) -> Scrolled {
        Scrolled { top, room, by_page }
    }

    #[test]
    fn the_picture_makes_room_for_a_reader_only() {
        let mut stage = Stage::default();
        for (scrolled, expected) in [
            (to(300, 300, true), false),
            (to(290, 300, false), false),
            (to(280, 300, false), false),
            (to(276, 300, false), true),
            (to(100, 100, true), true),
            (to(0, 0, false), true),
            (to(0, 40, false), false),
            (to(10, 240, false), false),
            (to(24, 240, false), true),
        ] {
            stage.scrolled(scrolled);
            assert_eq!(stage.is_small(), expected, "{scrolled:?}");
        }
    }

    #[test]
    fn writing_makes_it_small_and_a_tap_large() {
        let mut stage = Stage::default();
        stage.shrink();
        assert!(stage.is_small());
        stage.enlarge();
        assert!(!stage.is_small());
    }
}
