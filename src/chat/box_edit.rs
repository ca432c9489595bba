//! Moving and resizing a box: the eight handles, and boxes that stay inside the picture.

use crate::chat::box_drawing::{Point, between};
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// Shortest side of a box after an edit, in picture pixels.
const MIN_SIDE: f32 = 1.0;

/// On the screen a side shorter than this has no handle in its middle.
const MIN_SIDE_OF_MIDDLE: f32 = 30.0;

/// Which edge of a box a handle moves along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The left or the upper edge.
    Low,
    /// Neither.
    None,
    /// The right or the lower edge.
    High,
}

/// A handle: a corner or the middle of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Along the width.
    pub x: Edge,
    /// Along the height.
    pub y: Edge,
}

impl Handle {
    /// The corners, then the middles of the sides.
    pub const ALL: [Self; 8] = [
        Self::new(Edge::Low, Edge::Low),
        Self::new(Edge::High, Edge::Low),
        Self::new(Edge::High, Edge::High),
        Self::new(Edge::Low, Edge::High),
        Self::new(Edge::None, Edge::Low),
        Self::new(Edge::High, Edge::None),
        Self::new(Edge::None, Edge::High),
        Self::new(Edge::Low, Edge::None),
    ];

    const fn new(x: Edge, y: Edge) -> Self {
        Self { x, y }
    }

    /// Its compass direction, as in the names of mouse pointers.
    pub fn name(self) -> &'static str {
        match (self.x, self.y) {
            (Edge::Low, Edge::Low) => "nw",
            (Edge::High, Edge::Low) => "ne",
            (Edge::High, Edge::High) => "se",
            (Edge::Low, Edge::High) => "sw",
            (Edge::None, Edge::Low) => "n",
            (Edge::High, Edge::None) => "e",
            (Edge::None, Edge::High) => "s",
            (Edge::Low, Edge::None) => "w",
            (Edge::None, Edge::None) => "move",
        }
    }

    /// Where it lies on a box.
    pub fn point(self, b: BoxXyxy) -> Point {
        let on = |edge, low: f32, high: f32| match edge {
            Edge::Low => low,
            Edge::None => (low + high) / 2.0,
            Edge::High => high,
        };
        (on(self.x, b.x1, b.x2), on(self.y, b.y1, b.y2))
    }
}

/// The handles of a box of this size on the screen: short sides have none in their middle.
pub fn handles(b: BoxXyxy) -> impl Iterator<Item = Handle> {
    let (wide, high) = (
        b.x2 - b.x1 >= MIN_SIDE_OF_MIDDLE,
        b.y2 - b.y1 >= MIN_SIDE_OF_MIDDLE,
    );
    Handle::ALL.into_iter().filter(move |h| match (h.x, h.y) {
        (Edge::None, _) => wide,
        (_, Edge::None) => high,
        _ => true,
    })
}

/// The handle of a box within `reach` of a point, all in screen pixels. Inside a small box the reach
/// shrinks, so that its middle can still be dragged.
pub fn handle_at(b: BoxXyxy, (x, y): Point, reach: f32) -> Option<Handle> {
    let is_inside = x > b.x1 && x < b.x2 && y > b.y1 && y < b.y2;
    let within = |side: f32| {
        if is_inside {
            reach.min(side / 4.0)
        } else {
            reach
        }
    };
    let (reach_x, reach_y) = (within(b.x2 - b.x1), within(b.y2 - b.y1));
    let distance = |handle: &Handle| {
        let at = handle.point(b);
        (at.0 - x).abs().max((at.1 - y).abs())
    };
    handles(b)
        .filter(|handle| {
            let at = handle.point(b);
            (at.0 - x).abs() <= reach_x && (at.1 - y).abs() <= reach_y
        })
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// A point moved into the picture.
pub fn inside((x, y): Point, size: ImageSize) -> Point {
    (
        x.clamp(0.0, size.width as f32),
        y.clamp(0.0, size.height as f32),
    )
}

/// The part of a box inside the picture, its corners in order.
pub fn clipped(b: BoxXyxy, size: ImageSize) -> BoxXyxy {
    between(inside((b.x1, b.y1), size), inside((b.x2, b.y2), size))
}

/// The box moved by picture pixels, as far as the picture's edges allow.
pub fn moved(b: BoxXyxy, dx: f32, dy: f32, size: ImageSize) -> BoxXyxy {
    let shift = |low: f32, high: f32, by: f32, end: f32| {
        let least = (-low).min(0.0);
        let most = (end - high).max(0.0);
        by.clamp(least, most)
    };
    let b = clipped(b, size);
    let dx = shift(b.x1, b.x2, dx, size.width as f32);
    let dy = shift(b.y1, b.y2, dy, size.height as f32);
    [b.x1 + dx, b.y1 + dy, b.x2 + dx, b.y2 + dy].into()
}

/// The box with a handle dragged to a point in picture pixels. Beyond the opposite edge the box turns
/// over. With `square` a corner keeps width and height equal, and a side grows the box evenly around
/// its middle.
pub fn resized(b: BoxXyxy, handle: Handle, to: Point, square: bool, size: ImageSize) -> BoxXyxy {
    let (x, y) = inside(to, size);
    let fixed = |edge, low: f32, high: f32| if edge == Edge::Low { high } else { low };
    let (fixed_x, fixed_y) = (fixed(handle.x, b.x1, b.x2), fixed(handle.y, b.y1, b.y2));
    match (handle.x, handle.y) {
        (Edge::None, Edge::None) => b,
        (Edge::None, _) if square => {
            let side = (y - fixed_y).abs();
            let (low, high) = around((b.x1 + b.x2) / 2.0, side, size.width as f32);
            sized(between((low, fixed_y), (high, y)), size)
        }
        (_, Edge::None) if square => {
            let side = (x - fixed_x).abs();
            let (low, high) = around((b.y1 + b.y2) / 2.0, side, size.height as f32);
            sized(between((fixed_x, low), (x, high)), size)
        }
        (Edge::None, _) => sized(between((b.x1, fixed_y), (b.x2, y)), size),
        (_, Edge::None) => sized(between((fixed_x, b.y1), (x, b.y2)), size),
        _ => {
            let to = if square {
                square_corner((fixed_x, fixed_y), (x, y), size)
            } else {
                (x, y)
            };
            sized(between((fixed_x, fixed_y), to), size)
        }
    }
}

/// The corner of a square from `from` towards `to`: as large as the longer side, as far as the
/// picture allows.
pub fn square_corner(from: Point, to: Point, size: ImageSize) -> Point {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let room = |start: f32, by: f32, end: f32| if by < 0.0 { start } else { end - start };
    let side = (dx.abs().max(dy.abs()))
        .min(room(from.0, dx, size.width as f32))
        .min(room(from.1, dy, size.height as f32))
        .max(0.0);
    let sign = |by: f32| if by < 0.0 { -1.0 } else { 1.0 };
    (from.0 + side * sign(dx), from.1 + side * sign(dy))
}

/// The box with one of its numbers changed: left, top, width or height, in picture pixels. Width and
/// height keep the corner, left and top keep the size.
pub fn with_number(b: BoxXyxy, number: BoxNumber, value: f32, size: ImageSize) -> BoxXyxy {
    if !value.is_finite() {
        return b;
    }
    match number {
        BoxNumber::Left => moved(b, value - b.x1, 0.0, size),
        BoxNumber::Top => moved(b, 0.0, value - b.y1, size),
        BoxNumber::Width => {
            let x2 = (b.x1 + value.max(MIN_SIDE)).min(size.width as f32);
            sized([b.x1, b.y1, x2, b.y2].into(), size)
        }
        BoxNumber::Height => {
            let y2 = (b.y1 + value.max(MIN_SIDE)).min(size.height as f32);
            sized([b.x1, b.y1, b.x2, y2].into(), size)
        }
    }
}

/// The four numbers of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxNumber {
    /// Its left edge.
    Left,
    /// Its upper edge.
    Top,
    /// Its width.
    Width,
    /// Its height.
    Height,
}

impl BoxNumber {
    /// Its value in picture pixels.
    pub fn of(self, b: BoxXyxy) -> f32 {
        match self {
            Self::Left => b.x1,
            Self::Top => b.y1,
            Self::Width => b.x2 - b.x1,
            Self::Height => b.y2 - b.y1,
        }
    }
}

/// Start and end of an interval of length `side` around `middle` within 0 and `end`.
fn around(middle: f32, side: f32, end: f32) -> (f32, f32) {
    let half = (side / 2.0).min(middle).min(end - middle).max(0.0);
    (middle - half, middle + half)
}

/// The box inside the picture, at least [`MIN_SIDE`] wide and high.
fn sized(b: BoxXyxy, size: ImageSize) -> BoxXyxy {
    let b = clipped(b, size);
    let grown = |low: f32, high: f32, end: f32| {
        if high - low >= MIN_SIDE {
            (low, high)
        } else {
            let low = low.min(end - MIN_SIDE).max(0.0);
            (low, (low + MIN_SIDE).min(end))
        }
    };
    let (x1, x2) = grown(b.x1, b.x2, size.width as f32);
    let (y1, y2) = grown(b.y1, b.y2, size.height as f32);
    [x1, y1, x2, y2].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ImageSize = ImageSize {
        width: 100,
        height: 80,
    };

    fn handle(name: &str) -> Handle {
        let found = Handle::ALL.into_iter().find(|h| h.name() == name);
        found.expect("a handle of that name")
    }

    #[test]
    fn each_handle_moves_its_edges_and_no_other() {
        let b = [20., 20., 60., 50.].into();
        let cases = [
            ("nw", (10., 5.), [10., 5., 60., 50.]),
            ("n", (10., 5.), [20., 5., 60., 50.]),
            ("ne", (90., 5.), [20., 5., 90., 50.]),
            ("e", (90., 5.), [20., 20., 90., 50.]),
            ("se", (90., 70.), [20., 20., 90., 70.]),
            ("s", (90., 70.), [20., 20., 60., 70.]),
            ("sw", (10., 70.), [10., 20., 60., 70.]),
            ("w", (10., 70.), [10., 20., 60., 50.]),
            ("e", (500., 0.), [20., 20., 100., 50.]),
            ("nw", (-9., -9.), [0., 0., 60., 50.]),
            ("w", (80., 0.), [60., 20., 80., 50.]),
            ("w", (60., 0.), [60., 20., 61., 50.]),
        ];
        for (name, to, expected) in cases {
            let next = resized(b, handle(name), to, false, SIZE);
            assert_eq!(next, expected.into(), "{name} to {to:?}");
        }
    }

    #[test]
    fn shift_keeps_a_square_inside_the_picture() {
        let b = [20., 20., 60., 50.].into();
        let cases = [
            ("se", (50., 70.), [20., 20., 70., 70.]),
            ("nw", (30., 0.), [10., 0., 60., 50.]),
            ("se", (99., 79.), [20., 20., 80., 80.]),
            ("e", (80., 0.), [20., 5., 80., 65.]),
            ("s", (0., 70.), [15., 20., 65., 70.]),
        ];
        for (name, to, expected) in cases {
            let next = resized(b, handle(name), to, true, SIZE);
            assert_eq!(next, expected.into(), "{name} to {to:?}");
        }
        let cases = [
            ((10., 10.), (30., 15.), (30., 30.)),
            ((10., 10.), (0., 2.), (0., 0.)),
            ((90., 10.), (100., 70.), (100., 20.)),
            ((50., 50.), (50., 50.), (50., 50.)),
        ];
        for (from, to, expected) in cases {
            assert_eq!(square_corner(from, to, SIZE), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_moved_box_keeps_its_size_and_stays_in_the_picture() {
        let cases = [
            ([20., 20., 60., 50.], (5., -3.), [25., 17., 65., 47.]),
            ([20., 20., 60., 50.], (500., 500.), [60., 50., 100., 80.]),
            ([20., 20., 60., 50.], (-500., -500.), [0., 0., 40., 30.]),
            ([-10., 0., 60., 50.], (1., 0.), [1., 0., 61., 50.]),
            ([0., 0., 100., 80.], (7., 7.), [0., 0., 100., 80.]),
        ];
        for (b, (dx, dy), expected) in cases {
            assert_eq!(moved(b.into(), dx, dy, SIZE), expected.into(), "{b:?}");
        }
    }

    #[test]
    fn numbers_of_a_box_can_be_typed() {
        let b = [20., 20., 60., 50.].into();
        let cases = [
            (BoxNumber::Left, 30., [30., 20., 70., 50.]),
            (BoxNumber::Left, 900., [60., 20., 100., 50.]),
            (BoxNumber::Top, -4., [20., 0., 60., 30.]),
            (BoxNumber::Width, 10., [20., 20., 30., 50.]),
            (BoxNumber::Width, 1e9, [20., 20., 100., 50.]),
            (BoxNumber::Height, -3., [20., 20., 60., 21.]),
            (BoxNumber::Height, f32::NAN, [20., 20., 60., 50.]),
        ];
        for (number, value, expected) in cases {
            let next = with_number(b, number, value, SIZE);
            assert_eq!(next, expected.into(), "{number:?} {value}");
        }
        assert_eq!(BoxNumber::Height.of(b), 30.);
    }

    #[test]
    fn the_nearest_handle_is_grabbed_and_the_middle_stays_free() {
        let large = [100., 100., 200., 200.].into();
        let small = [100., 100., 116., 116.].into();
        let cases = [
            (large, (98., 103.), Some("nw")),
            (large, (150., 94.), Some("n")),
            (large, (204., 204.), Some("se")),
            (large, (150., 150.), None),
            (large, (130., 130.), None),
            (small, (108., 108.), None),
            (small, (113., 114.), Some("se")),
            (small, (128., 108.), None),
            (small, (122., 122.), Some("se")),
        ];
        for (b, at, expected) in cases {
            let found = handle_at(b, at, 8.0).map(Handle::name);
            assert_eq!(found, expected, "{at:?} on {b:?}");
        }
        assert_eq!(handles(large).count(), 8);
        assert_eq!(handles(small).count(), 4);
    }
}
