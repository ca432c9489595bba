//! Where the conversation is scrolled to.

use chatrex::chat::stage::Scrolled;
use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{Element, ResizeObserver};

use super::stage::StageSize;
use super::state::AppState;

/// The list follows the answer while its end is at most this many CSS pixels below the view.
const FOLLOW_DISTANCE: i32 = 120;

/// The place in the list of turns.
#[derive(Clone, Copy)]
pub struct Place {
    app: AppState,
    list: NodeRef<html::Div>,
    stage: StageSize,
    /// How far the end is below the view, in CSS pixels.
    below: StoredValue<i32>,
    /// Where the page itself scrolled to last.
    own_top: StoredValue<i32>,
}

impl Place {
    /// At the end of the list.
    pub fn new(app: AppState, list: NodeRef<html::Div>) -> Self {
        Self {
            app,
            list,
            stage: expect_context(),
            below: StoredValue::new(0),
            own_top: StoredValue::new(0),
        }
    }

    /// The list; `None` while it is hidden, when it has no place.
    fn shown(self) -> Option<Element> {
        let list = self.list.get_untracked()?;
        (list.client_height() > 0).then(|| Element::clone(&list))
    }

    /// The list was scrolled, by the user or by the page.
    pub fn on_scroll(self) {
        let Some(list) = self.shown() else {
            return;
        };
        let (top, room) = (
            list.scroll_top(),
            list.scroll_height() - list.client_height(),
        );
        let below = room - top;
        self.below.set_value(below);
        let is_far = below > FOLLOW_DISTANCE;
        if self.app.is_far.get_untracked() != is_far {
            self.app.is_far.set(is_far);
        }
        let by_page = top == self.own_top.get_value();
        self.stage
            .step(|stage| stage.scrolled(Scrolled { top, room, by_page }));
    }

    /// Scrolls to a distance from the end.
    fn go(self, below: i32) {
        if let Some(list) = self.shown() {
            list.set_scroll_top(list.scroll_height() - list.client_height() - below);
            self.own_top.set_value(list.scroll_top());
        }
    }

    /// Scrolls to the end.
    pub fn go_to_end(self) {
        self.below.set_value(0);
        self.go(0);
    }

    /// Scrolls to the end of the answer while the user is there. What grows does not move the user away
    /// from the end; only scrolling does.
    pub fn follow_end(self) {
        let app = self.app;
        Effect::new(move |before: Option<usize>| {
            let turns = app.turns.with(|turns| {
                if let Some(last) = turns.last() {
                    last.turn.track();
                }
                turns.len()
            });
            let is_new = before.is_some_and(|before| turns > before);
            if is_new || !app.is_far.get_untracked() {
                request_animation_frame(move || self.go_to_end());
            }
            turns
        });
    }

    /// Keeps the distance from the end where the list changes its height, and where it is shown again:
    /// what is read stays where it is.
    pub fn keep_distance(self) {
        Effect::new(move |_| {
            let Some(list) = self.list.get() else {
                return;
            };
            let keep = Closure::<dyn FnMut()>::new(move || self.go(self.below.get_value()));
            if let Ok(observer) = ResizeObserver::new(keep.as_ref().unchecked_ref()) {
                observer.observe(&list);
            }
            // The list lives as long as the page.
            keep.forget();
        });
    }
}
