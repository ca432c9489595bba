//! The side of the picture: tools, picture, state, the pictures opened together, and the empty page.

use chatrex::chat::layout_strings as words;
use chatrex::chat::stage::Stage;
use leptos::prelude::*;

use super::canvas::Canvas;
use super::gallery::Gallery;
use super::icons::{Icon, IconButton};
use super::start::{Start, Strip};
use super::state::{AppState, app_state};

/// Whether the picture is large or small. Only small screens show the difference.
#[derive(Clone, Copy)]
pub struct StageSize(pub RwSignal<Stage>);

impl StageSize {
    /// The picture is large, and every other picture is at first.
    pub fn new(app: AppState) -> Self {
        let stage = Self(RwSignal::new(Stage::default()));
        let id = Memo::new(move |_| app.picture.with(|p| p.as_ref().map(|p| p.id)));
        Effect::new(move |_| {
            id.track();
            stage.enlarge();
        });
        stage
    }

    /// The picture becomes large.
    pub fn enlarge(self) {
        self.step(Stage::enlarge);
    }

    /// The picture becomes small.
    pub fn shrink(self) {
        self.step(Stage::shrink);
    }

    /// Changes the size, and tells the views only if it differs.
    pub fn step(self, change: impl FnOnce(&mut Stage)) {
        let mut next = self.0.get_untracked();
        change(&mut next);
        if next != self.0.get_untracked() {
            self.0.set(next);
        }
    }
}

/// The picture with everything that belongs to it, or in its place the ways to one.
#[component]
pub fn StageColumn(
    /// True where there is no picture.
    vacant: Memo<bool>,
) -> impl IntoView {
    let app = app_state();
    let stage: StageSize = expect_context();
    let is_small = Memo::new(move |_| stage.0.with(|stage| stage.is_small()));
    let can_enlarge = move || is_small.get() && app.picture.with(Option::is_some);
    view! {
        <section class="left" class:small=move || is_small.get() aria-label=words::PICTURE>
            <h2 class="hidden">{words::PICTURE}</h2>
            <Show when=move || vacant.get()>
                <Start />
            </Show>
            <Canvas />
            <Strip />
            <Gallery />
            <Show when=can_enlarge>
                <IconButton
                    id="enlarge"
                    name=words::ENLARGE
                    class="enlarge"
                    press=move || stage.enlarge()
                    shape=Icon::Enlarge
                />
            </Show>
        </section>
    }
}
