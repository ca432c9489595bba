//! What the parts of the picture share: keys that are held, and sizes of elements.

use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::ResizeObserver;

/// Keys that are held on the picture.
#[derive(Clone, Copy)]
pub struct HeldKeys {
    /// Space: the pointer moves the picture.
    pub space: RwSignal<bool>,
    /// B: the picture is shown without boxes.
    pub bare: RwSignal<bool>,
}

impl HeldKeys {
    /// None is held any more.
    pub fn release(self) {
        self.space.maybe_update(std::mem::take);
        self.bare.maybe_update(std::mem::take);
    }
}

/// Keeps the size of an element in CSS pixels in a signal.
pub fn watch_size(node: NodeRef<html::Div>, size: RwSignal<(f32, f32)>) {
    Effect::new(move |_| {
        let Some(element) = node.get() else {
            return;
        };
        let measured = element.clone();
        let measure = Closure::<dyn FnMut()>::new(move || {
            let now = (
                measured.client_width() as f32,
                measured.client_height() as f32,
            );
            if now.0 > 0.0 && now.1 > 0.0 && size.get_untracked() != now {
                size.set(now);
            }
        });
        if let Ok(observer) = ResizeObserver::new(measure.as_ref().unchecked_ref()) {
            observer.observe(&element);
        }
        // The element lives as long as the page.
        measure.forget();
    });
}
