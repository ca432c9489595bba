//! Keys while the picture or a button on it has the focus.

use chatrex::chat::box_edit::moved;
use chatrex::chat::candidates::BoxId;
use chatrex::chat::conversation::BoxChange;
use chatrex::chat::overlay::Highlight;
use chatrex::chat::pointing::{Pointing, Tool};
use chatrex::chat::viewport::{STEP, Viewport};
use leptos::prelude::*;
use web_sys::KeyboardEvent;

use super::pane::HeldKeys;
use super::state::AppState;
use super::tools::{choose, full_size, zoom};

/// How far an arrow key moves the picture, in CSS pixels.
const PAN: f32 = 48.0;

/// A key goes down.
pub fn on_key(app: AppState, held: HeldKeys, event: &KeyboardEvent) {
    let is_on_picture = event.target() == event.current_target();
    let key = event.key();
    if step_key(app, event) {
        event.prevent_default();
        return;
    }
    if event.ctrl_key() || event.meta_key() {
        return;
    }
    if event.alt_key() {
        if event.code() == "KeyH" {
            app.hide(selection(app));
            event.prevent_default();
        }
        return;
    }
    let selected = app.overlay.with_untracked(|o| o.selected());
    match key.as_str() {
        "Escape" => {
            let dropped = app.pointing.try_update(Pointing::abort) == Some(true);
            let has_tool = app.tool.get_untracked() != Tool::Select;
            if !dropped && !has_tool {
                return;
            }
            if !dropped {
                app.tool.set(Tool::Select);
            }
        }
        "r" | "R" | "n" | "N" => choose(app, Tool::Draw),
        "v" | "V" => choose(app, Tool::Select),
        "p" | "P" => choose(app, Tool::Point),
        "h" | "H" if event.shift_key() => app.toggle_all(),
        "h" | "H" => choose(app, Tool::Hand),
        "b" | "B" => held.bare.set(true),
        " " if is_on_picture => held.space.set(true),
        "+" | "=" => zoom(app, STEP),
        "-" | "_" => zoom(app, 1.0 / STEP),
        "0" => app.view(|_| Viewport::default()),
        "1" => full_size(app),
        "." => select_neighbor(app, 1),
        "," => select_neighbor(app, -1),
        "Enter" if !is_on_picture => return,
        "Enter" if app.tool.get_untracked() == Tool::Draw => add_middle_box(app),
        "Enter" => app.cite_selection(),
        "Delete" | "Backspace" => {
            let ids = selection(app);
            if !ids.is_empty() {
                app.remove(ids);
            }
        }
        key => {
            let Some((dx, dy)) = arrow(key) else {
                return;
            };
            let step = if event.shift_key() { 10.0 } else { 1.0 };
            match selected {
                Some(id) => nudge(app, id, dx * step, dy * step, event.repeat()),
                None => pan(app, -dx * PAN, -dy * PAN),
            }
        }
    }
    event.prevent_default();
}

/// A key goes up.
pub fn on_key_up(held: HeldKeys, event: &KeyboardEvent) {
    match event.key().as_str() {
        " " => held.space.set(false),
        "b" | "B" => held.bare.set(false),
        _ => {}
    }
}

/// Undo and redo; true if the key is one of theirs.
pub fn step_key(app: AppState, event: &KeyboardEvent) -> bool {
    if event.alt_key() || !(event.ctrl_key() || event.meta_key()) {
        return false;
    }
    let change = match (event.key().to_lowercase().as_str(), event.shift_key()) {
        ("z", false) => BoxChange::Undo,
        ("z", true) | ("y", false) => BoxChange::Redo,
        _ => return false,
    };
    app.change_boxes(change);
    true
}

fn selection(app: AppState) -> Vec<BoxId> {
    app.overlay
        .with_untracked(|o| o.selection().iter().copied().collect())
}

/// The direction of an arrow key.
pub fn arrow(key: &str) -> Option<(f32, f32)> {
    match key {
        "ArrowLeft" => Some((-1.0, 0.0)),
        "ArrowRight" => Some((1.0, 0.0)),
        "ArrowUp" => Some((0.0, -1.0)),
        "ArrowDown" => Some((0.0, 1.0)),
        _ => None,
    }
}

fn pan(app: AppState, dx: f32, dy: f32) {
    if let Some(frame) = app.frame.get_untracked() {
        app.view(|view| view.panned(dx, dy, frame));
    }
}

/// Adds a box of a third of the visible part in its middle, for drawing without a pointer.
fn add_middle_box(app: AppState) {
    if let Some(frame) = app.frame.get_untracked() {
        let view = app.viewport.get_untracked();
        let size = frame.picture;
        let corner = |share: f32| {
            let at = (frame.pane.0 * share, frame.pane.1 * share);
            chatrex::chat::box_edit::inside(view.to_picture(at, frame), size)
        };
        let (a, b) = (corner(0.0), corner(1.0));
        let (w, h) = ((b.0 - a.0) / 3.0, (b.1 - a.1) / 3.0);
        app.add_box([a.0 + w, a.1 + h, b.0 - w, b.1 - h].into());
    }
}

/// Moves a box by picture pixels; with `continues` one undo takes this and the step before back.
fn nudge(app: AppState, id: BoxId, dx: f32, dy: f32, continues: bool) {
    let size = app.frame.get_untracked().map(|f| f.picture);
    if let (Some(b), Some(size)) = (app.corners(id), size) {
        app.reshape(id, moved(b, dx, dy, size), continues);
    }
}

/// Selects the next or the previous box in the order of numbers.
fn select_neighbor(app: AppState, step: isize) {
    let now = app.overlay.with_untracked(|o| o.selected());
    let next = app.candidates.with_untracked(|c| c.neighbor(now, step));
    if let Some(id) = next.filter(|_| next != now) {
        app.overlay.update(|o| o.select_all([id]));
        if !app.viewport.with_untracked(Viewport::is_fit) {
            app.reveal(&Highlight::one(id));
        }
    }
}
