//! What pointers do on the picture: mouse, pen and fingers select, draw, move, resize, pan and zoom.
//! Points are screen pixels of the pane unless they are said to be picture pixels.

use std::collections::BTreeMap;

use crate::chat::box_drawing::{Drawing, MIN_SIZE, Point};
use crate::chat::box_edit::{Handle, handle_at, inside, moved, resized, square_corner};
use crate::chat::candidates::BoxId;
use crate::chat::viewport::{Frame, Viewport};
use crate::geometry::BoxXyxy;

/// A pointer that moved less than this many screen pixels clicked.
const CLICK_SLACK: f32 = 4.0;

/// The same for a finger.
const TAP_SLACK: f32 = 10.0;

/// Distance in screen pixels at which a mouse grabs a handle.
const REACH: f32 = 8.0;

/// The same for a finger.
const TOUCH_REACH: f32 = 22.0;

/// What the pointer does on the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tool {
    /// Selects, moves and resizes boxes.
    #[default]
    Select,
    /// Moves the picture.
    Hand,
    /// Draws boxes.
    Draw,
    /// Picks proposals by points.
    Point,
}

/// A pointer that goes down, moves or goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PointerInput {
    /// The browser's number of the pointer.
    pub pointer: i32,
    /// Where it is.
    pub at: Point,
    /// Whether it is a finger.
    pub is_touch: bool,
    /// Whether the middle button of a mouse is meant.
    pub is_middle: bool,
    /// Whether Shift is held.
    pub shift: bool,
    /// Whether Ctrl or Cmd is held.
    pub control: bool,
}

/// What the pointer meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scene {
    /// How the picture lies in the pane.
    pub view: Viewport,
    /// Picture and pane.
    pub frame: Frame,
    /// The tool; holding Space makes it the hand.
    pub tool: Tool,
    /// The only selected box in picture pixels.
    pub selected: Option<(BoxId, BoxXyxy)>,
    /// A box of the user under the pointer that is the smallest there, in picture pixels.
    pub own_under: Option<(BoxId, BoxXyxy)>,
}

impl Scene {
    fn picture_point(&self, at: Point) -> Point {
        inside(self.view.to_picture(at, self.frame), self.frame.picture)
    }

    fn reach(is_touch: bool) -> f32 {
        if is_touch { TOUCH_REACH } else { REACH }
    }

    /// The handle of the selected box at a point.
    pub fn handle(&self, at: Point, is_touch: bool) -> Option<Handle> {
        let (_, bbox) = self.selected.filter(|_| self.tool == Tool::Select)?;
        let shown = self.view.box_to_screen(bbox, self.frame);
        handle_at(shown, at, Self::reach(is_touch))
    }

    /// The selected box, if the point lies in it.
    fn selected_at(&self, at: Point) -> Option<(BoxId, BoxXyxy)> {
        let (x, y) = self.view.to_picture(at, self.frame);
        self.selected
            .filter(|(_, b)| x >= b.x1 && x <= b.x2 && y >= b.y1 && y <= b.y2)
    }
}

/// What follows from a pointer.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The picture moves by screen pixels.
    Pan(f32, f32),
    /// The picture moves by `shift` screen pixels, then the view gets `factor` times as close around
    /// `at`.
    Zoom {
        /// How far the picture moves.
        shift: Point,
        /// How much closer.
        factor: f32,
        /// The point that stays.
        at: Point,
    },
    /// A box was drawn, in picture pixels.
    Draw(BoxXyxy),
    /// A box was moved or resized, in picture pixels.
    Reshape(BoxId, BoxXyxy),
    /// A box of the user is about to be moved: it becomes the selected one.
    Take(BoxId),
    /// A click at a point in picture pixels.
    Click {
        /// Where.
        at: Point,
        /// Whether the box joins the selection.
        extend: bool,
    },
}

/// How a box is being changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Move,
    Resize(Handle),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Gesture {
    #[default]
    None,
    /// Down, and not moved yet.
    Pressed,
    Panning,
    /// Two fingers.
    Pinching,
    Drawing,
    Changing {
        id: BoxId,
        start: BoxXyxy,
        change: Change,
        now: BoxXyxy,
    },
}

/// The pointers on the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pointing {
    /// Where each pressed pointer is.
    pressed: BTreeMap<i32, Point>,
    gesture: Gesture,
    /// Where the first pointer went down.
    from: Point,
    drawing: Drawing,
}

impl Pointing {
    /// The box being drawn, in picture pixels.
    pub fn preview(&self) -> Option<BoxXyxy> {
        self.drawing.preview()
    }

    /// The box being moved or resized, in picture pixels.
    pub fn changing(&self) -> Option<(BoxId, BoxXyxy)> {
        match self.gesture {
            Gesture::Changing { id, now, .. } => Some((id, now)),
            _ => None,
        }
    }

    /// True while a pressed pointer does more than to select.
    pub fn is_busy(&self) -> bool {
        !matches!(self.gesture, Gesture::None | Gesture::Pressed)
    }

    /// True while the picture follows the pointer.
    pub fn is_panning(&self) -> bool {
        matches!(self.gesture, Gesture::Panning | Gesture::Pinching)
    }

    /// True while a box is being drawn, also between the clicks on its two corners.
    pub fn is_drawing(&self) -> bool {
        self.drawing != Drawing::Idle
    }

    /// A pointer goes down.
    pub fn press(&mut self, input: PointerInput, scene: &Scene) -> Option<Action> {
        self.pressed.insert(input.pointer, input.at);
        match self.pressed.len() {
            1 => {}
            2 if input.is_touch => {
                self.drawing.cancel();
                self.gesture = Gesture::Pinching;
                return None;
            }
            _ => return None,
        }
        self.from = input.at;
        let pans = input.is_middle || scene.tool == Tool::Hand;
        if pans {
            self.gesture = Gesture::Panning;
            return None;
        }
        if scene.tool == Tool::Draw {
            self.gesture = Gesture::Drawing;
            self.drawing.press(self.corner(input, scene));
            return None;
        }
        self.gesture = Gesture::Pressed;
        if scene.tool == Tool::Point {
            return None;
        }
        let extends = input.shift || input.control;
        let handle = scene.handle(input.at, input.is_touch);
        if let (Some((id, start)), Some(handle)) = (scene.selected, handle) {
            self.gesture = Gesture::Changing {
                id,
                start,
                change: Change::Resize(handle),
                now: start,
            };
        }
        if extends || input.is_touch || scene.selected_at(input.at).is_some() {
            return None;
        }
        let (id, _) = scene
            .own_under
            .filter(|_| self.gesture == Gesture::Pressed)?;
        Some(Action::Take(id))
    }

    /// A pointer moves, pressed or not.
    pub fn motion(&mut self, input: PointerInput, scene: &Scene) -> Option<Action> {
        let Some(before) = self.pressed.get(&input.pointer).copied() else {
            if self.pressed.is_empty() {
                let at = self.corner(input, scene);
                self.drawing.motion(at);
            }
            return None;
        };
        if self.gesture == Gesture::Pinching {
            return self.pinch(input, before);
        }
        self.pressed.insert(input.pointer, input.at);
        match self.gesture {
            Gesture::None | Gesture::Pinching => None,
            Gesture::Panning => Some(Action::Pan(input.at.0 - before.0, input.at.1 - before.1)),
            Gesture::Drawing => {
                let at = self.corner(input, scene);
                self.drawing.motion(at);
                None
            }
            Gesture::Pressed => {
                if !self.has_moved(input) {
                    return None;
                }
                let extends = input.shift || input.control;
                let changes = scene.tool == Tool::Select && !extends;
                if let Some((id, start)) = scene.selected_at(self.from).filter(|_| changes) {
                    self.gesture = Gesture::Changing {
                        id,
                        start,
                        change: Change::Move,
                        now: start,
                    };
                    self.change(input, scene);
                    return None;
                }
                self.gesture = Gesture::Panning;
                Some(Action::Pan(
                    input.at.0 - self.from.0,
                    input.at.1 - self.from.1,
                ))
            }
            Gesture::Changing { start, now, .. } => {
                // A finger that only taps trembles.
                if now != start || !input.is_touch || self.has_moved(input) {
                    self.change(input, scene);
                }
                None
            }
        }
    }

    /// A pointer goes up.
    pub fn release(&mut self, input: PointerInput, scene: &Scene) -> Option<Action> {
        self.pressed.remove(&input.pointer)?;
        if !self.pressed.is_empty() {
            // The finger that stays does nothing until all are up.
            return None;
        }
        match std::mem::take(&mut self.gesture) {
            Gesture::None | Gesture::Panning | Gesture::Pinching => None,
            Gesture::Drawing => {
                let at = self.corner(input, scene);
                let scale = scene.view.scale(scene.frame);
                let least = if input.is_touch { TAP_SLACK } else { MIN_SIZE };
                self.drawing
                    .release_at_least(at, scale, least)
                    .map(Action::Draw)
            }
            Gesture::Changing { id, start, now, .. } if now != start => {
                Some(Action::Reshape(id, now))
            }
            Gesture::Pressed | Gesture::Changing { .. } => Some(Action::Click {
                at: scene.view.to_picture(input.at, scene.frame),
                extend: input.shift || input.control,
            }),
        }
    }

    /// The browser took a pointer away, for example to scroll: nothing comes of it.
    pub fn cancel(&mut self, pointer: i32) {
        self.pressed.remove(&pointer);
        self.abort();
        if self.pressed.is_empty() {
            self.gesture = Gesture::None;
        }
    }

    /// Drops the box being drawn or changed; true if there was one.
    pub fn abort(&mut self) -> bool {
        let changes = matches!(self.gesture, Gesture::Changing { .. } | Gesture::Drawing);
        if changes {
            self.gesture = Gesture::None;
        }
        self.drawing.cancel() || changes
    }

    fn has_moved(&self, input: PointerInput) -> bool {
        let slack = if input.is_touch {
            TAP_SLACK
        } else {
            CLICK_SLACK
        };
        let (dx, dy) = (input.at.0 - self.from.0, input.at.1 - self.from.1);
        dx.abs().max(dy.abs()) >= slack
    }

    /// The pointer in picture pixels as a corner of the box being drawn.
    fn corner(&self, input: PointerInput, scene: &Scene) -> Point {
        let at = scene.picture_point(input.at);
        match self.drawing.first_corner() {
            Some(from) if input.shift => square_corner(from, at, scene.frame.picture),
            _ => at,
        }
    }

    fn change(&mut self, input: PointerInput, scene: &Scene) {
        let (from, size) = (self.from, scene.frame.picture);
        let Gesture::Changing {
            start, change, now, ..
        } = &mut self.gesture
        else {
            return;
        };
        let scale = scene.view.scale(scene.frame);
        let (dx, dy) = ((input.at.0 - from.0) / scale, (input.at.1 - from.1) / scale);
        *now = match *change {
            Change::Move => moved(*start, dx, dy, size),
            Change::Resize(handle) => {
                let (x, y) = handle.point(*start);
                resized(*start, handle, (x + dx, y + dy), input.shift, size)
            }
        };
    }

    /// Two fingers: their middle moves the picture, their distance zooms.
    fn pinch(&mut self, input: PointerInput, before: Point) -> Option<Action> {
        let other = (self.pressed.iter())
            .find(|(pointer, _)| **pointer != input.pointer)
            .map(|(_, at)| *at);
        self.pressed.insert(input.pointer, input.at);
        let other = other?;
        let distance = |a: Point, b: Point| (a.0 - b.0).hypot(a.1 - b.1).max(1.0);
        Some(Action::Zoom {
            shift: ((input.at.0 - before.0) / 2.0, (input.at.1 - before.1) / 2.0),
            factor: distance(input.at, other) / distance(before, other),
            at: ((input.at.0 + other.0) / 2.0, (input.at.1 + other.1) / 2.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ImageSize;

    /// A picture of 200 x 100 pixels, shown twice as large.
    const FRAME: Frame = Frame {
        picture: ImageSize {
            width: 200,
            height: 100,
        },
        pane: (400.0, 200.0),
    };
    const OWN: BoxId = BoxId::Own(3);

    fn scene(tool: Tool) -> Scene {
        Scene {
            view: Viewport::default(),
            frame: FRAME,
            tool,
            selected: None,
            own_under: None,
        }
    }

    /// A box from (20, 20) to (60, 60) is selected.
    fn selected() -> Scene {
        Scene {
            selected: Some((OWN, [20., 20., 60., 60.].into())),
            ..scene(Tool::Select)
        }
    }

    fn mouse(x: f32, y: f32) -> PointerInput {
        PointerInput {
            at: (x, y),
            ..PointerInput::default()
        }
    }

    fn finger(pointer: i32, x: f32, y: f32) -> PointerInput {
        PointerInput {
            pointer,
            is_touch: true,
            ..mouse(x, y)
        }
    }

    fn shows_box(pointing: &Pointing) -> bool {
        pointing.preview().is_some() || pointing.changing().is_some()
    }

    /// Presses, moves and releases; the actions that follow.
    fn drag(scene: &Scene, steps: &[PointerInput]) -> Vec<Action> {
        let mut pointing = Pointing::default();
        let mut out = Vec::new();
        let (first, rest) = steps.split_first().expect("a press");
        out.extend(pointing.press(*first, scene));
        for step in rest {
            out.extend(pointing.motion(*step, scene));
        }
        out.extend(pointing.release(*steps.last().expect("a release"), scene));
        assert!(!shows_box(&pointing) && !pointing.is_busy());
        out
    }

    fn click(x: f32, y: f32, extend: bool) -> Vec<Action> {
        vec![Action::Click { at: (x, y), extend }]
    }

    fn shape(b: [f32; 4]) -> Vec<Action> {
        vec![Action::Reshape(OWN, b.into())]
    }

    #[test]
    fn a_mouse_selects_draws_moves_resizes_and_pans() {
        let shift = |input: PointerInput| PointerInput {
            shift: true,
            ..input
        };
        let middle = |input: PointerInput| PointerInput {
            is_middle: true,
            ..input
        };
        let (select, draw, hand) = (scene(Tool::Select), scene(Tool::Draw), scene(Tool::Hand));
        let under = Scene {
            own_under: Some((OWN, [20., 20., 60., 60.].into())),
            ..select
        };
        let m = mouse;
        let cases = [
            (
                "click",
                select,
                vec![m(80., 80.), m(82., 81.)],
                click(41., 40.5, false),
            ),
            (
                "with Shift",
                select,
                vec![shift(m(80., 80.))],
                click(40., 40., true),
            ),
            (
                "drag beside boxes",
                select,
                vec![m(80., 80.), m(90., 70.), m(95., 70.)],
                vec![Action::Pan(10., -10.), Action::Pan(5., 0.)],
            ),
            (
                "hand",
                hand,
                vec![m(0., 0.), m(1., 2.)],
                vec![Action::Pan(1., 2.)],
            ),
            (
                "middle button",
                draw,
                vec![middle(m(0., 0.)), middle(m(1., 2.))],
                vec![Action::Pan(1., 2.)],
            ),
            (
                "draw",
                draw,
                vec![m(20., 20.), m(60., 40.), m(900., 100.)],
                vec![Action::Draw([10., 10., 200., 50.].into())],
            ),
            (
                "draw a square",
                draw,
                vec![m(20., 20.), shift(m(60., 40.))],
                vec![Action::Draw([10., 10., 30., 30.].into())],
            ),
            ("too small", draw, vec![m(20., 20.), m(80., 21.)], vec![]),
            (
                "move",
                selected(),
                vec![m(80., 80.), m(90., 80.), m(100., 60.)],
                shape([30., 10., 70., 50.]),
            ),
            (
                "move to the edge",
                selected(),
                vec![m(80., 80.), m(9000., 80.)],
                shape([160., 20., 200., 60.]),
            ),
            (
                "resize",
                selected(),
                vec![m(122., 118.), m(142., 158.)],
                shape([20., 20., 70., 80.]),
            ),
            (
                "resize to a square",
                selected(),
                vec![m(120., 120.), shift(m(140., 160.))],
                shape([20., 20., 80., 80.]),
            ),
            (
                "click on a handle",
                selected(),
                vec![m(120., 120.)],
                click(60., 60., false),
            ),
            (
                "take and move",
                under,
                vec![m(80., 80.)],
                [vec![Action::Take(OWN)], click(40., 40., false)].concat(),
            ),
        ];
        for (name, scene, steps, expected) in cases {
            assert_eq!(drag(&scene, &steps), expected, "{name}");
        }
    }

    #[test]
    fn a_zoomed_view_maps_to_the_same_picture_pixels() {
        let view = Viewport::default().zoomed(2.0, (0., 0.), FRAME);
        let scene = Scene {
            view,
            ..scene(Tool::Draw)
        };
        let actions = drag(&scene, &[mouse(40., 40.), mouse(80., 120.)]);
        assert_eq!(actions, [Action::Draw([10., 10., 20., 30.].into())]);
    }

    #[test]
    fn fingers_tap_two_corners_drag_handles_and_pinch() {
        let draw = scene(Tool::Draw);
        let mut pointing = Pointing::default();
        assert_eq!(pointing.press(finger(1, 20., 20.), &draw), None);
        assert_eq!(pointing.motion(finger(1, 26., 23.), &draw), None);
        assert_eq!(pointing.release(finger(1, 26., 23.), &draw), None);
        assert!(pointing.is_drawing(), "the first corner waits");
        assert_eq!(pointing.press(finger(2, 100., 60.), &draw), None);
        let drawn = pointing.release(finger(2, 100., 60.), &draw);
        assert_eq!(drawn, Some(Action::Draw([10., 10., 50., 30.].into())));

        let near = [finger(1, 134., 106.), finger(1, 154., 126.)];
        assert_eq!(drag(&selected(), &near), shape([20., 20., 70., 70.]));
        let still = [finger(1, 134., 106.), finger(1, 137., 109.)];
        assert_eq!(drag(&selected(), &still), click(68.5, 54.5, false));

        let mut pointing = Pointing::default();
        let select = scene(Tool::Select);
        pointing.press(finger(1, 100., 100.), &select);
        pointing.press(finger(2, 200., 100.), &select);
        let zoom = pointing.motion(finger(2, 300., 100.), &select);
        let expected = Action::Zoom {
            shift: (50., 0.),
            factor: 2.0,
            at: (200., 100.),
        };
        assert_eq!(zoom, Some(expected));
        assert!(pointing.is_panning());
        assert_eq!(pointing.release(finger(2, 300., 100.), &select), None);
        assert_eq!(pointing.motion(finger(1, 0., 0.), &select), None);
        assert_eq!(pointing.release(finger(1, 0., 0.), &select), None);
        assert_eq!(
            pointing,
            Pointing {
                from: (100., 100.),
                ..Pointing::default()
            }
        );
    }

    #[test]
    fn what_the_browser_or_escape_cancels_leaves_nothing() {
        let scenes = [scene(Tool::Draw), selected()];
        for scene in scenes {
            for by_browser in [true, false] {
                let mut pointing = Pointing::default();
                pointing.press(finger(7, 80., 80.), &scene);
                pointing.motion(finger(7, 120., 100.), &scene);
                assert!(shows_box(&pointing));
                if by_browser {
                    pointing.cancel(7);
                } else {
                    assert!(pointing.abort());
                }
                assert!(!shows_box(&pointing));
                assert_eq!(pointing.release(finger(7, 130., 110.), &scene), None);
                assert_eq!(pointing.press(finger(8, 80., 80.), &scene), None);
                pointing.motion(finger(8, 120., 100.), &scene);
                assert!(shows_box(&pointing), "the next one works");
            }
        }
    }

    #[test]
    fn a_second_finger_ends_drawing() {
        let draw = scene(Tool::Draw);
        let mut pointing = Pointing::default();
        pointing.press(finger(1, 20., 20.), &draw);
        pointing.motion(finger(1, 80., 80.), &draw);
        pointing.press(finger(2, 200., 100.), &draw);
        assert!(!shows_box(&pointing));
        assert_eq!(pointing.release(finger(1, 80., 80.), &draw), None);
        assert_eq!(pointing.release(finger(2, 200., 100.), &draw), None);
        assert!(!pointing.is_drawing());
    }
}
