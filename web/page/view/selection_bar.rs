//! The actions on the selected boxes, at the boxes.

use chatrex::chat::page_strings;
use std::collections::BTreeSet;

use chatrex::chat::box_strings;
use chatrex::chat::candidates::BoxId;
use chatrex::chat::labels::bar_place;
use chatrex::chat::overlay::DrawnBox;
use chatrex::chat::question::QuestionKind;
use chatrex::chat::{strings, words};
use leptos::html;
use leptos::prelude::*;

use super::icons::{Icon, icon};
use super::pane::watch_size;
use super::state::{Alike, app_state};

/// The bar of the selection: below the boxes, above them near the edge.
#[component]
pub fn SelectionBar() -> impl IntoView {
    let app = app_state();
    let bar = NodeRef::<html::Div>::new();
    let size = RwSignal::new((320.0_f32, 44.0_f32));
    watch_size(bar, size);
    // Out of the way while a box is drawn or changed.
    let is_shown = Memo::new(move |_| {
        app.overlay.with(|o| !o.selection().is_empty())
            && app.pointing.with(|p| !p.is_busy() && !p.is_drawing())
    });
    let text = move || match app.overlay.with(|o| o.selected()) {
        Some(id) => app.drawn_boxes.with(|boxes| {
            let drawn = boxes.iter().find(|b| b.id == id);
            drawn.map_or(String::new(), DrawnBox::description)
        }),
        None => strings::boxes(app.overlay.with(|o| o.selection().len())),
    };
    let place = Memo::new(move |_| {
        let (frame, view) = (app.frame.get()?, app.viewport.get());
        let union = app.drawn_boxes.with(|boxes| {
            let selected = boxes.iter().filter(|b| b.selected).map(|b| b.bbox);
            selected.reduce(|a, b| {
                [
                    a.x1.min(b.x1),
                    a.y1.min(b.y1),
                    a.x2.max(b.x2),
                    a.y2.max(b.y2),
                ]
                .into()
            })
        })?;
        Some(bar_place(
            view.box_to_screen(union, frame),
            size.get(),
            frame.pane,
        ))
    });
    let left = move || place.get().map(|(x, _)| format!("{x}px"));
    let top = move || place.get().map(|(_, y)| format!("{y}px"));
    let ask = move |kind: QuestionKind| {
        let marks = app.selection_marks();
        if !marks.is_empty() {
            app.ask(kind, &marks.join("; "));
        }
    };
    let remove = move |_| {
        let ids = app
            .overlay
            .with_untracked(|o| o.selection().iter().copied().collect());
        app.remove(ids);
    };
    let alike = move |_| {
        if let Some(id) = app.overlay.with_untracked(|o| o.selected()) {
            app.select_alike(id);
        }
    };
    view! {
        <div
            class="selection"
            class:shown=move || is_shown.get()
            node_ref=bar
            data-testid="selection-bar"
            style:left=left
            style:top=top
        >
            <Show when=move || is_shown.get()>
                <span class="selection-words">{text}</span>
                <button
                    type="button"
                    data-testid="name-it"
                    disabled=move || !app.can_ask.get()
                    on:click=move |_| ask(QuestionKind::Name)
                >
                    {icon(Icon::Name)}
                    {page_strings::NAME_IT}
                </button>
                <button
                    type="button"
                    data-testid="describe-it"
                    disabled=move || !app.can_ask.get()
                    on:click=move |_| ask(QuestionKind::DescribeBox)
                >
                    {icon(Icon::Words)}
                    {page_strings::DESCRIBE_IT}
                </button>
                <button type="button" data-testid="ask-it" on:click=move |_| app.cite_selection()>
                    {icon(Icon::Chat)}
                    {page_strings::ASK_ABOUT_IT}
                </button>
                <Show when=move || app.overlay.with(|o| o.selected().is_some())>
                    <button type="button" data-testid="more-like-this" on:click=alike>
                        {icon(Icon::Alike)}
                        {box_strings::ALIKE}
                    </button>
                </Show>
                <LikenessSlider />
                <button type="button" data-testid="delete-box" on:click=remove>
                    {icon(Icon::Remove)}
                    {box_strings::DELETE}
                </button>
            </Show>
        </div>
    }
}

/// Selects the boxes that are like one of them, with a slider of the least likeness. Ends when the user
/// selects something else.
#[component]
fn LikenessSlider() -> impl IntoView {
    let app = app_state();
    let chosen = Memo::new(move |_| {
        let alike = app.alike.get()?;
        let others = app
            .likeness
            .with(|known| known.as_ref().map(|l| l.to(alike.id)))?;
        let near = others
            .into_iter()
            .filter(|(_, value)| *value >= alike.least);
        let ids: BTreeSet<BoxId> = near.map(|(id, _)| id).chain([alike.id]).collect();
        Some(ids)
    });
    Effect::new(move |_| {
        if let Some(ids) = chosen.get() {
            app.overlay.update(|o| o.select_all(ids));
        }
    });
    Effect::new(move |_| {
        let selection = app.overlay.with(|o| o.selection().clone());
        let is_same = chosen.get_untracked().is_none_or(|ids| ids == selection);
        if !is_same {
            app.alike.set(None);
        }
    });
    let least = move || app.alike.get().map_or(0.0, |alike| alike.least);
    let set_least = move |event| {
        if let Ok(least) = event_target_value(&event).parse() {
            app.alike
                .update(|alike| *alike = alike.map(|alike| Alike { least, ..alike }));
        }
    };
    view! {
        <Show when=move || chosen.with(Option::is_some)>
            <label class="likeness">
                <span class="hidden">{box_strings::LIKENESS}</span>
                <input
                    type="range"
                    min="0"
                    max="1"
                    step="0.01"
                    data-testid="likeness"
                    prop:value=move || least().to_string()
                    on:input=set_least
                />
                <output>{move || words::number(f64::from(least()), 2)}</output>
            </label>
        </Show>
    }
}
