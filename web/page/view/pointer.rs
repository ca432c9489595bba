//! Mouse, pen and fingers over the picture. `chat::pointing` decides what they do.

use chatrex::chat::candidates::BoxId;
use chatrex::chat::overlay::{Highlight, hits};
use chatrex::chat::pointing::{Action, PointerInput, Scene, Tool};
use chatrex::geometry::BoxXyxy;
use leptos::html;
use leptos::prelude::*;
use leptos::svg;
use web_sys::{FocusOptions, PointerEvent, WheelEvent};

use super::pane::HeldKeys;
use super::state::AppState;

/// Margin around a box in which the pointer hits it, in screen pixels.
const HIT_SLACK: f32 = 3.0;

/// Clicks within this many screen pixels are on the same point.
const SAME_POINT: f32 = 4.0;

/// Largest step of the wheel that counts, in CSS pixels: wheels of a mouse jump, pinches on a touch pad
/// creep.
const MAX_WHEEL: f64 = 25.0;

/// The pointer over the picture.
#[derive(Clone, Copy)]
pub struct Pointer {
    /// The page's state.
    pub app: AppState,
    /// The held keys.
    pub held: HeldKeys,
    /// The pane of the picture.
    pub pane: NodeRef<html::Div>,
    /// The element that gets the events; it fills the pane.
    pub svg: NodeRef<svg::Svg>,
    /// What the pointer is over: the direction of a handle, a box or nothing.
    pub cursor: RwSignal<&'static str>,
}

impl Pointer {
    /// A pointer goes down.
    pub fn press(self, event: &PointerEvent) {
        let is_middle = event.button() == 1;
        if event.button() != 0 && !is_middle {
            return;
        }
        let Some((input, scene)) = self.read(event, is_middle) else {
            return;
        };
        if let Some(svg) = self.svg.get_untracked() {
            // Without capture a drag beyond the edge ends early.
            let _ = svg.set_pointer_capture(event.pointer_id());
        }
        self.focus();
        self.step(|pointing| pointing.press(input, &scene));
    }

    /// A pointer moves.
    pub fn motion(self, event: &PointerEvent) {
        let Some((input, scene)) = self.read(event, false) else {
            return;
        };
        let is_idle = self.app.pointing.with_untracked(|p| !p.is_busy());
        if is_idle && !input.is_touch && event.buttons() == 0 {
            self.hover(input, &scene);
        }
        self.step(|pointing| pointing.motion(input, &scene));
    }

    /// A pointer goes up.
    pub fn release(self, event: &PointerEvent) {
        if let Some((input, scene)) = self.read(event, false) {
            self.step(|pointing| pointing.release(input, &scene));
        }
    }

    /// The browser takes a pointer away.
    pub fn cancel(self, event: &PointerEvent) {
        let pointer = event.pointer_id();
        self.app.pointing.update(|p| p.cancel(pointer));
    }

    /// The wheel zooms with Ctrl or Cmd, which is also how a pinch on a touch pad arrives.
    pub fn wheel(self, event: &WheelEvent) {
        if !event.ctrl_key() && !event.meta_key() {
            return;
        }
        event.prevent_default();
        let (Some(at), Some(frame)) = (self.at(event), self.app.frame.get_untracked()) else {
            return;
        };
        let pixels = match event.delta_mode() {
            WheelEvent::DOM_DELTA_LINE => event.delta_y() * 16.0,
            WheelEvent::DOM_DELTA_PAGE => event.delta_y() * 400.0,
            _ => event.delta_y(),
        };
        let factor = (-pixels.clamp(-MAX_WHEEL, MAX_WHEEL) * 0.01).exp() as f32;
        self.app.view(|view| view.zoomed(factor, at, frame));
    }

    /// Gives `chat::pointing` an input and carries out what follows.
    fn step(self, step: impl FnOnce(&mut chatrex::chat::pointing::Pointing) -> Option<Action>) {
        let app = self.app;
        let mut next = app.pointing.get_untracked();
        let action = step(&mut next);
        if app.pointing.with_untracked(|now| *now != next) {
            app.pointing.set(next);
        }
        let Some(action) = action else {
            return;
        };
        let Some(frame) = app.frame.get_untracked() else {
            return;
        };
        match action {
            Action::Pan(dx, dy) => app.view(|view| view.panned(dx, dy, frame)),
            Action::Zoom { shift, factor, at } => app.view(|view| {
                let moved = view.panned(shift.0, shift.1, frame);
                moved.zoomed(factor, at, frame)
            }),
            Action::Draw(bbox) => app.add_box(bbox),
            Action::Reshape(id, bbox) => app.reshape(id, bbox, false),
            Action::Take(id) => app.overlay.update(|o| o.select_all([id])),
            Action::Click { at, .. } if app.tool.get_untracked() == Tool::Point => {
                let scale = app.viewport.with_untracked(|v| v.scale(frame));
                app.pick_at(at, SAME_POINT / scale);
            }
            Action::Click { at, extend } => {
                let scale = app.viewport.with_untracked(|v| v.scale(frame));
                let under =
                    (app.drawn_boxes).with_untracked(|boxes| hits(boxes, at, HIT_SLACK / scale));
                app.overlay
                    .update(|o| o.click(&under, at, SAME_POINT / scale, extend));
            }
        }
    }

    /// Highlights the box under the pointer and shapes the mouse pointer.
    fn hover(self, input: PointerInput, scene: &Scene) {
        let app = self.app;
        let (at, scale) = (
            scene.view.to_picture(input.at, scene.frame),
            scene.view.scale(scene.frame),
        );
        let under = match scene.tool {
            Tool::Select => (app.drawn_boxes)
                .with_untracked(|boxes| hits(boxes, at, HIT_SLACK / scale))
                .first()
                .copied(),
            _ => None,
        };
        let handle = scene.handle(input.at, false);
        let cursor = match (handle, under) {
            (Some(handle), _) => handle.name(),
            (None, Some(id)) => {
                let selected = scene.selected.map(|(selected, _)| selected);
                if selected == Some(id) || matches!(id, BoxId::Own(_)) {
                    "move"
                } else {
                    "box"
                }
            }
            _ => "",
        };
        if self.cursor.get_untracked() != cursor {
            self.cursor.set(cursor);
        }
        app.overlay
            .maybe_update(|o| o.hover(under.map(Highlight::one)));
    }

    /// The pointer, and what it meets.
    fn read(self, event: &PointerEvent, is_middle: bool) -> Option<(PointerInput, Scene)> {
        let app = self.app;
        let at = self.at(event)?;
        let frame = app.frame.get_untracked()?;
        let view = app.viewport.get_untracked();
        let input = PointerInput {
            pointer: event.pointer_id(),
            at,
            is_touch: event.pointer_type() == "touch",
            is_middle,
            shift: event.shift_key(),
            control: event.ctrl_key() || event.meta_key(),
        };
        let tool = match self.held.space.get_untracked() {
            true => Tool::Hand,
            false => app.tool.get_untracked(),
        };
        let selected = app.overlay.with_untracked(|o| o.selected());
        let (selected, own_under) = app.drawn_boxes.with_untracked(|boxes| {
            let corners = |id: BoxId| -> Option<(BoxId, BoxXyxy)> {
                let drawn = boxes.iter().find(|b| b.id == id)?;
                Some((id, drawn.bbox))
            };
            let slack = HIT_SLACK / view.scale(frame);
            let under = hits(boxes, view.to_picture(at, frame), slack);
            let own = under.first().filter(|id| matches!(id, BoxId::Own(_)));
            (selected.and_then(corners), own.and_then(|&id| corners(id)))
        });
        let scene = Scene {
            view,
            frame,
            tool,
            selected,
            own_under,
        };
        Some((input, scene))
    }

    /// The pointer in CSS pixels of the pane.
    fn at(self, event: &web_sys::MouseEvent) -> Option<(f32, f32)> {
        let rect = self.svg.get_untracked()?.get_bounding_client_rect();
        Some((
            (f64::from(event.client_x()) - rect.left()) as f32,
            (f64::from(event.client_y()) - rect.top()) as f32,
        ))
    }

    /// Gives the picture the focus, so that its keys work, without scrolling to it.
    fn focus(self) {
        if let Some(pane) = self.pane.get_untracked() {
            let options = FocusOptions::new();
            options.set_prevent_scroll(true);
            // An element that cannot get the focus works without keys.
            let _ = pane.focus_with_options(&options);
        }
    }
}
