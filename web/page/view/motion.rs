//! The picture moves to another view in a moment, at once where the user wants no motion.

use std::cell::Cell;

use chatrex::chat::viewport::{Viewport, eased};
use js_sys::Date;
use leptos::prelude::*;

thread_local! {
    /// Number of the last movement; earlier ones end.
    static MOVEMENT: Cell<u32> = const { Cell::new(0) };
}

/// Moves the view to another one, unless the user moves it meanwhile.
pub fn ease(view: RwSignal<Viewport>, to: Viewport) {
    let from = view.get_untracked();
    if from == to {
        return;
    }
    let movement = MOVEMENT.get().wrapping_add(1);
    MOVEMENT.set(movement);
    if !is_wanted() {
        view.set(to);
        return;
    }
    step(
        view,
        Movement {
            from,
            to,
            now: from,
            start: Date::now(),
            number: movement,
        },
    );
}

#[derive(Clone, Copy)]
struct Movement {
    from: Viewport,
    to: Viewport,
    now: Viewport,
    start: f64,
    number: u32,
}

fn step(view: RwSignal<Viewport>, movement: Movement) {
    request_animation_frame(move || {
        let is_last = MOVEMENT.get() == movement.number;
        if !is_last || view.get_untracked() != movement.now {
            return;
        }
        let elapsed = Date::now() - movement.start;
        let now = eased(movement.from, movement.to, elapsed);
        view.set(now);
        if now != movement.to {
            step(view, Movement { now, ..movement });
        }
    });
}

/// Whether things may move: the style sheet sets `--motion` to 0 where the user wants none.
fn is_wanted() -> bool {
    let root = document().document_element();
    let style = root.and_then(|root| window().get_computed_style(&root).ok().flatten());
    let motion = style.and_then(|style| style.get_property_value("--motion").ok());
    motion.is_some_and(|motion| motion.trim() != "0")
}
