//! The boxes as a list, for the keyboard and screen readers too.

use chatrex::chat::candidates::{BoxId, Candidate};
use chatrex::chat::overlay::Highlight;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::{HtmlElement, KeyboardEvent};

use super::state::{AppState, app_state};

/// The list of candidates: proposals, best first, then boxes of the user.
#[component]
pub fn Objects() -> impl IntoView {
    let app = app_state();
    let active = RwSignal::new(0_usize);
    let rows = move || {
        app.candidates
            .with(|c| c.boxes.iter().cloned().enumerate().collect::<Vec<_>>())
    };
    let none = move || app.candidates.with(|c| c.boxes.is_empty());
    let active_row = move || (!none()).then(|| row_id(active.get()));
    let on_focus = move |_| hover_row(app, active.get_untracked());
    view! {
        <div
            class="objects"
            role="listbox"
            aria-label="Objects in the picture"
            aria-multiselectable="true"
            aria-activedescendant=active_row
            tabindex="0"
            data-testid="object-list"
            on:keydown=move |event| on_key(app, active, &event)
            on:focus=on_focus
            on:blur=move |_| app.overlay.maybe_update(|o| o.hover(None))
        >
            <For
                each=rows
                key=|(row, b)| (*row, b.id, b.bbox.x1.to_bits(), b.bbox.y1.to_bits(), b.label.clone())
                children=move |(row, candidate)| view! { <Row row candidate active /> }
            />
        </div>
        <Show when=none>
            <p class="hint">"Nothing here yet."</p>
        </Show>
    }
}

#[component]
fn Row(row: usize, candidate: Candidate, active: RwSignal<usize>) -> impl IntoView {
    let app = app_state();
    let id = candidate.id;
    let highlighted = Memo::new(move |_| app.overlay.with(|o| o.highlighted().contains(&id)));
    let selected = Memo::new(move |_| app.overlay.with(|o| o.selection().contains(&id)));
    let phrase = Memo::new(move |_| {
        app.mentions.with(|m| {
            let phrase = m.as_ref()?.phrase_of(id)?;
            Some((phrase.text.trim().to_owned(), phrase.hue()))
        })
    });
    let swatch = move || match phrase.get() {
        Some((_, hue)) => format!("swatch hue-{hue}"),
        None => "swatch hue-none".to_owned(),
    };
    // The phrase of the answer, else the kind that the detector says.
    let kind = candidate.label.unwrap_or_default();
    let label = move || {
        phrase
            .get()
            .map_or_else(|| kind.clone(), |(label, _)| label)
    };
    let score = match candidate.score {
        Some(score) => format!("{score:.2}"),
        None => "yours".to_owned(),
    };
    view! {
        <div
            id=row_id(row)
            role="option"
            class="row"
            class:lit=move || highlighted.get()
            class:active=move || active.get() == row
            aria-selected=move || selected.get().to_string()
            on:pointerenter=move |_| app.overlay.maybe_update(|o| o.hover(Some(Highlight::one(id))))
            on:pointerleave=move |_| app.overlay.maybe_update(|o| o.hover(None))
            on:click=move |event| {
                active.set(row);
                let extend = event.shift_key() || event.ctrl_key() || event.meta_key();
                app.overlay.update(|o| o.select(id, extend));
            }
        >
            <span class=swatch aria-hidden="true"></span>
            <span class="row-number">{row}</span>
            <span class="row-label" data-testid="object-name">{label}</span>
            <span class="row-score">{score}</span>
        </div>
    }
}

fn on_key(app: AppState, active: RwSignal<usize>, event: &KeyboardEvent) {
    let count = app.candidates.with_untracked(|c| c.boxes.len());
    if count == 0 {
        return;
    }
    let now = active.get_untracked().min(count - 1);
    let id: BoxId = app.candidates.with_untracked(|c| c.boxes[now].id);
    let next = match event.key().as_str() {
        "ArrowDown" => (now + 1).min(count - 1),
        "ArrowUp" => now.saturating_sub(1),
        "Home" => 0,
        "End" => count - 1,
        " " => {
            event.prevent_default();
            app.overlay.update(|o| o.select(id, true));
            return;
        }
        "Enter" => {
            event.prevent_default();
            if app.overlay.with_untracked(|o| o.selection().is_empty()) {
                app.overlay.update(|o| o.select(id, false));
            }
            app.cite_selection();
            return;
        }
        "Delete" | "Backspace" => {
            event.prevent_default();
            app.erase(id);
            return;
        }
        _ => return,
    };
    event.prevent_default();
    active.set(next);
    hover_row(app, next);
    if let Some(row) = document().get_element_by_id(&row_id(next)) {
        let row: HtmlElement = row.unchecked_into();
        row.scroll_into_view_with_bool(false);
    }
}

fn hover_row(app: AppState, row: usize) {
    let id = app
        .candidates
        .with_untracked(|c| c.boxes.get(row).map(|b| b.id));
    app.overlay
        .maybe_update(|o| o.hover(id.map(Highlight::one)));
}

fn row_id(row: usize) -> String {
    format!("object-{row}")
}
