//! Drawing a box: by a drag, or by one click on each of two corners.

use crate::geometry::BoxXyxy;

/// Minimum width and height of a box in screen pixels; smaller drags are accidents.
pub const MIN_SIZE: f32 = 4.0;

/// A point in original picture pixels.
pub type Point = (f32, f32);

/// The state of drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Drawing {
    /// No box is being drawn.
    #[default]
    Idle,
    /// The pointer is down.
    Dragging {
        /// The first corner.
        from: Point,
        /// The pointer.
        to: Point,
        /// Whether `from` was set by an earlier click.
        second: bool,
    },
    /// The first corner was clicked; the second is next.
    Anchored {
        /// The first corner.
        from: Point,
        /// The pointer.
        to: Point,
    },
}

impl Drawing {
    /// The pointer goes down.
    pub fn press(&mut self, at: Point) {
        *self = match *self {
            Self::Anchored { from, .. } => Self::Dragging {
                from,
                to: at,
                second: true,
            },
            _ => Self::Dragging {
                from: at,
                to: at,
                second: false,
            },
        };
    }

    /// The pointer moves.
    pub fn motion(&mut self, at: Point) {
        match self {
            Self::Idle => {}
            Self::Dragging { to, .. } | Self::Anchored { to, .. } => *to = at,
        }
    }

    /// The pointer goes up; `scale` is screen pixels per picture pixel. Returns the finished box.
    pub fn release(&mut self, at: Point, scale: f32) -> Option<BoxXyxy> {
        self.release_at_least(at, scale, MIN_SIZE)
    }

    /// The same where boxes smaller than `least` screen pixels are accidents.
    pub fn release_at_least(&mut self, at: Point, scale: f32, least: f32) -> Option<BoxXyxy> {
        let Self::Dragging { from, second, .. } = *self else {
            return None;
        };
        let bbox = between(from, at);
        let large = |length: f32| length * scale >= least;
        if large(bbox.x2 - bbox.x1) && large(bbox.y2 - bbox.y1) {
            *self = Self::Idle;
            return Some(bbox);
        }
        let still = !large(bbox.x2 - bbox.x1) && !large(bbox.y2 - bbox.y1);
        *self = if still && !second {
            Self::Anchored { from, to: at }
        } else {
            Self::Idle
        };
        None
    }

    /// Cancels; true if a box was being drawn.
    pub fn cancel(&mut self) -> bool {
        std::mem::take(self) != Self::Idle
    }

    /// The first corner of the box being drawn.
    pub fn first_corner(&self) -> Option<Point> {
        match *self {
            Self::Idle => None,
            Self::Dragging { from, .. } | Self::Anchored { from, .. } => Some(from),
        }
    }

    /// The box between the first corner and the pointer.
    pub fn preview(&self) -> Option<BoxXyxy> {
        match *self {
            Self::Idle => None,
            Self::Dragging { from, to, .. } | Self::Anchored { from, to } => {
                Some(between(from, to))
            }
        }
    }
}

/// The box between two opposite corners.
pub fn between(a: Point, b: Point) -> BoxXyxy {
    [a.0.min(b.0), a.1.min(b.1), a.0.max(b.0), a.1.max(b.1)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drag(drawing: &mut Drawing, from: Point, to: Point, scale: f32) -> Option<BoxXyxy> {
        drawing.press(from);
        drawing.motion(to);
        drawing.release(to, scale)
    }

    #[test]
    fn a_drag_or_two_clicks_make_the_same_box() {
        let expected = Some([10., 20., 50., 60.].into());
        let mut drawing = Drawing::default();
        assert_eq!(drag(&mut drawing, (50., 20.), (10., 60.), 1.0), expected);
        assert_eq!(drag(&mut drawing, (10., 20.), (11., 20.), 1.0), None);
        drawing.motion((30., 30.));
        assert_eq!(drawing.preview(), Some([10., 20., 30., 30.].into()));
        assert_eq!(drag(&mut drawing, (50., 60.), (50., 60.), 1.0), expected);
        assert_eq!(drawing, Drawing::Idle);
    }

    #[test]
    fn tiny_drags_are_ignored_at_the_scale_of_the_screen() {
        let cases = [(1.0, 3.0, false), (2.0, 3.0, true), (0.1, 30.0, false)];
        for (scale, length, made) in cases {
            let mut drawing = Drawing::default();
            let bbox = drag(&mut drawing, (0., 0.), (length, length), scale);
            assert_eq!(bbox.is_some(), made, "{length} px at {scale}");
        }
        let mut flat = Drawing::default();
        assert_eq!(drag(&mut flat, (0., 0.), (100., 1.), 1.0), None);
        assert_eq!(
            flat,
            Drawing::Idle,
            "a flat drag does not set a first corner"
        );
    }

    #[test]
    fn a_second_click_on_the_first_corner_cancels() {
        let mut drawing = Drawing::default();
        drag(&mut drawing, (5., 5.), (5., 5.), 1.0);
        assert_eq!(drag(&mut drawing, (5., 5.), (5., 5.), 1.0), None);
        assert_eq!(drawing, Drawing::Idle);
        assert!(!drawing.cancel());
        drawing.press((1., 1.));
        assert!(drawing.cancel());
        assert_eq!(drawing.release((90., 90.), 1.0), None);
    }
}
