//! The actions on the selected boxes, at the boxes.

use chatrex::chat::box_strings;
use chatrex::chat::labels::bar_place;
use chatrex::chat::overlay::DrawnBox;
use chatrex::chat::question::QuestionKind;
use leptos::html;
use leptos::prelude::*;

use super::canvas::watch_size;
use super::state::app_state;

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
        None => format!("{} boxes", app.overlay.with(|o| o.selection().len())),
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
                    "Name it"
                </button>
                <button
                    type="button"
                    data-testid="describe-it"
                    disabled=move || !app.can_ask.get()
                    on:click=move |_| ask(QuestionKind::DescribeBox)
                >
                    "Describe it"
                </button>
                <button type="button" data-testid="ask-it" on:click=move |_| app.cite_selection()>
                    "Ask…"
                </button>
                <button type="button" data-testid="delete-box" on:click=remove>
                    {box_strings::DELETE}
                </button>
            </Show>
        </div>
    }
}
