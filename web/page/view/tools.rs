//! Buttons of the picture: tools, which boxes are drawn, undo and redo, and the view.

use chatrex::chat::box_strings;
use chatrex::chat::conversation::{BoxChange, Picture};
use chatrex::chat::overlay::Visibility;
use chatrex::chat::page_strings;
use chatrex::chat::pointing::{Pointing, Tool};
use chatrex::chat::viewport::{STEP, Viewport};
use chatrex::chat::words::Word;
use leptos::prelude::*;

use super::state::{AppState, app_state};

/// Lines of an icon, 24 units wide and high.
fn icon(path: &'static str) -> impl IntoView {
    view! {
        <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
            <path d=path />
        </svg>
    }
}

const ARROW: &str = "M5 3l14 8-6.5 1.6L9 19z";
const HAND: &str = "M12 3v18M3 12h18M12 3l-3 3M12 3l3 3M12 21l-3-3M12 21l3-3M3 12l3-3M3 12l3 3M21 12l-3-3M21 12l-3 3";
const BOX: &str = "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M12 9v6M9 12h6";
const BACK: &str = "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 0 12";
const FORTH: &str = "M15 7l5 5-5 5M20 12H10a6 6 0 0 0 0 12";

/// The tools, and which boxes are drawn.
#[component]
pub fn Tools() -> impl IntoView {
    let app = app_state();
    view! {
        <div class="tools">
            <div class="tool-buttons" role="group" aria-label=box_strings::TOOLS>
                <ToolButton tool=Tool::Select name=box_strings::SELECT path=ARROW id="tool-select" />
                <ToolButton tool=Tool::Hand name=box_strings::HAND path=HAND id="tool-hand" />
                <button
                    type="button"
                    class="button small"
                    data-testid="draw"
                    aria-pressed=move || (app.tool.get() == Tool::Draw).to_string()
                    disabled=move || app.picture.with(Option::is_none)
                    on:click=move |_| {
                        let draws = app.tool.get_untracked() == Tool::Draw;
                        choose(app, if draws { Tool::Select } else { Tool::Draw });
                    }
                >
                    {icon(BOX)}
                    {box_strings::DRAW}
                </button>
            </div>
            <fieldset class="segments">
                <legend class="hidden">{page_strings::BOXES_SHOWN}</legend>
                <VisibilityButton visibility=Visibility::All value="all" label=page_strings::SHOW_ALL />
                <VisibilityButton visibility=Visibility::Mentioned value="mentioned" label=page_strings::SHOW_MENTIONED />
                <VisibilityButton visibility=Visibility::Selected value="selected" label=page_strings::SHOW_SELECTED />
                <VisibilityButton visibility=Visibility::Nothing value="none" label=page_strings::SHOW_NONE />
            </fieldset>
        </div>
    }
}

#[component]
fn ToolButton(tool: Tool, name: Word, path: &'static str, id: &'static str) -> impl IntoView {
    let app = app_state();
    view! {
        <button
            type="button"
            class="button small icon-button"
            data-testid=id
            title=name
            aria-label=name
            aria-pressed=move || (app.tool.get() == tool).to_string()
            disabled=move || app.picture.with(Option::is_none)
            on:click=move |_| choose(app, tool)
        >
            {icon(path)}
        </button>
    }
}

/// Takes a tool; a box that is being drawn is dropped.
pub fn choose(app: AppState, tool: Tool) {
    app.pointing.maybe_update(Pointing::abort);
    app.tool.set(tool);
}

#[component]
fn VisibilityButton(visibility: Visibility, value: &'static str, label: Word) -> impl IntoView {
    let app = app_state();
    view! {
        <label>
            <input
                type="radio"
                name="show"
                value=value
                data-testid=format!("show-{value}")
                prop:checked=move || app.overlay.with(|o| o.show == visibility)
                on:change=move |_| app.overlay.update(|o| o.show = visibility)
            />
            <span>{label}</span>
        </label>
    }
}

/// The bars at the picture's bottom edge: undo and redo, and the view.
#[component]
pub fn StageBar() -> impl IntoView {
    let app = app_state();
    let percent = Memo::new(move |_| {
        let view = app.viewport.get();
        app.frame.get().map_or(100, |frame| view.percent(frame))
    });
    view! {
        <Show when=move || app.picture.with(Option::is_some)>
            <div class="stage-bar steps" role="group" aria-label=box_strings::STEPS>
                <StageButton
                    id="undo-box"
                    name=box_strings::UNDO
                    enabled=Signal::derive(move || can(app, Picture::can_undo))
                    press=move || app.change_boxes(BoxChange::Undo)
                >
                    {icon(BACK)}
                </StageButton>
                <StageButton
                    id="redo-box"
                    name=box_strings::REDO
                    enabled=Signal::derive(move || can(app, Picture::can_redo))
                    press=move || app.change_boxes(BoxChange::Redo)
                >
                    {icon(FORTH)}
                </StageButton>
            </div>
            <div class="stage-bar" role="group" aria-label=box_strings::VIEW>
                <StageButton id="zoom-out" name=box_strings::ZOOM_OUT press=move || zoom(app, 1.0 / STEP)>
                    "−"
                </StageButton>
                <button
                    type="button"
                    class="zoom-percent"
                    data-testid="zoom-full"
                    aria-label=move || box_strings::zoom_name(percent.get())
                    on:click=move |_| full_size(app)
                >
                    {move || box_strings::zoom(percent.get())}
                </button>
                <StageButton id="zoom-in" name=box_strings::ZOOM_IN press=move || zoom(app, STEP)>
                    "+"
                </StageButton>
                <button
                    type="button"
                    data-testid="zoom-fit"
                    title=box_strings::FIT_NAME
                    on:click=move |_| app.view(|_| Viewport::default())
                >
                    {box_strings::FIT}
                </button>
            </div>
        </Show>
    }
}

/// A button that shows a sign, with its name for the pointer and for screen readers.
#[component]
fn StageButton(
    id: &'static str,
    name: Word,
    #[prop(default = true.into(), into)] enabled: Signal<bool>,
    press: impl Fn() + 'static,
    children: Children,
) -> impl IntoView {
    view! {
        <button
            type="button"
            data-testid=id
            title=name
            aria-label=name
            disabled=move || !enabled.get()
            on:click=move |_| press()
        >
            {children()}
        </button>
    }
}

fn can(app: AppState, what: impl Fn(&Picture) -> bool) -> bool {
    app.picture.with(|p| p.as_ref().is_some_and(what))
}

/// Zooms around the middle of the pane.
pub fn zoom(app: AppState, factor: f32) {
    if let Some(frame) = app.frame.get_untracked() {
        let middle = (frame.pane.0 / 2.0, frame.pane.1 / 2.0);
        app.view(|view| view.zoomed(factor, middle, frame));
    }
}

/// Shows one screen pixel per picture pixel.
pub fn full_size(app: AppState) {
    if let Some(frame) = app.frame.get_untracked() {
        app.view(|view| view.at_full_size(frame));
    }
}
