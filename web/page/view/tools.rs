//! Buttons of the picture: tools, which boxes are drawn, undo and redo, and the view.

use chatrex::chat::box_strings;
use chatrex::chat::conversation::{BoxChange, Picture};
use chatrex::chat::kept_strings;
use chatrex::chat::overlay::Visibility;
use chatrex::chat::page_strings;
use chatrex::chat::pointing::{Pointing, Tool};
use chatrex::chat::viewport::{STEP, Viewport};
use chatrex::chat::words::Word;
use leptos::prelude::*;

use super::icons::{Icon, IconButton, icon};
use super::state::{AppState, app_state};

/// The tools, which boxes are drawn, and the button that removes the picture.
#[component]
pub fn Tools() -> impl IntoView {
    let app = app_state();
    view! {
        <div class="tools">
            <div class="tool-buttons" role="group" aria-label=box_strings::TOOLS>
                <ToolButton tool=Tool::Select name=box_strings::SELECT shape=Icon::Select id="tool-select" />
                <ToolButton tool=Tool::Hand name=box_strings::HAND shape=Icon::Hand id="tool-hand" />
                <ToolButton tool=Tool::Point name=box_strings::POINT shape=Icon::Point id="tool-point" />
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
                    {icon(Icon::Draw)}
                    <span class="button-words">{box_strings::DRAW}</span>
                </button>
            </div>
            <fieldset class="segments">
                <legend class="hidden">{page_strings::BOXES_SHOWN}</legend>
                <VisibilityButton visibility=Visibility::All value="all" label=page_strings::SHOW_ALL />
                <VisibilityButton visibility=Visibility::Mentioned value="mentioned" label=page_strings::SHOW_MENTIONED />
                <VisibilityButton visibility=Visibility::Selected value="selected" label=page_strings::SHOW_SELECTED />
                <VisibilityButton visibility=Visibility::Nothing value="none" label=page_strings::SHOW_NONE />
            </fieldset>
            <IconButton
                id="remove-picture"
                name=kept_strings::REMOVE
                class="icon-button"
                press=move || app.close_picture()
                shape=Icon::Remove
            />
        </div>
    }
}

#[component]
fn ToolButton(tool: Tool, name: Word, shape: Icon, id: &'static str) -> impl IntoView {
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
            {icon(shape)}
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

/// The bars below the picture: undo and redo, and the view.
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
                <IconButton
                    id="undo-box"
                    name=box_strings::UNDO
                    enabled=Signal::derive(move || can(app, Picture::can_undo))
                    press=move || app.change_boxes(BoxChange::Undo)
                    shape=Icon::Undo
                />
                <IconButton
                    id="redo-box"
                    name=box_strings::REDO
                    enabled=Signal::derive(move || can(app, Picture::can_redo))
                    press=move || app.change_boxes(BoxChange::Redo)
                    shape=Icon::Redo
                />
            </div>
            <div class="stage-bar" role="group" aria-label=box_strings::VIEW>
                <IconButton id="zoom-out" name=box_strings::ZOOM_OUT press=move || zoom(app, 1.0 / STEP) shape=Icon::Less />
                <button
                    type="button"
                    class="zoom-percent"
                    data-testid="zoom-full"
                    aria-label=move || box_strings::zoom_name(percent.get())
                    on:click=move |_| full_size(app)
                >
                    {move || box_strings::zoom(percent.get())}
                </button>
                <IconButton id="zoom-in" name=box_strings::ZOOM_IN press=move || zoom(app, STEP) shape=Icon::More />
                <button
                    type="button"
                    data-testid="zoom-fit"
                    title=box_strings::FIT_NAME
                    on:click=move |_| app.view(|_| Viewport::default())
                >
                    {icon(Icon::Fit)}
                    <span class="hidden">{box_strings::FIT}</span>
                </button>
            </div>
        </Show>
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
