//! The boxes as a list: what the picture shows, for eyes, ears and keyboard.

use chatrex::chat::candidates::{BoxId, Candidate};
use chatrex::chat::overlay::Highlight;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::{HtmlElement, KeyboardEvent};

use super::state::{AppState, app_state};

/// The list of candidates, best first, own ones last.
#[component]
pub fn Objects() -> impl IntoView {
    let desk = app_state();
    let active = RwSignal::new(0_usize);
    let rows = move || {
        desk.candidates
            .with(|c| c.boxes.iter().copied().enumerate().collect::<Vec<_>>())
    };
    let none = move || desk.candidates.with(|c| c.boxes.is_empty());
    let active_row = move || (!none()).then(|| row_id(active.get()));
    let focused = move |_| point_at(desk, active.get_untracked());
    view! {
        <div
            class="objects"
            role="listbox"
            aria-label="Objects in the picture"
            aria-multiselectable="true"
            aria-activedescendant=active_row
            tabindex="0"
            data-testid="object-list"
            on:keydown=move |event| use_key(desk, active, &event)
            on:focus=focused
            on:blur=move |_| desk.overlay.maybe_update(|o| o.hover(None))
        >
            <For
                each=rows
                key=|(place, b)| (*place, b.id, b.bbox.x1.to_bits(), b.bbox.y1.to_bits())
                children=move |(place, candidate)| view! { <Row place candidate active /> }
            />
        </div>
        <Show when=none>
            <p class="hint">"Nothing here yet."</p>
        </Show>
    }
}

#[component]
fn Row(place: usize, candidate: Candidate, active: RwSignal<usize>) -> impl IntoView {
    let desk = app_state();
    let id = candidate.id;
    let lit = Memo::new(move |_| desk.overlay.with(|o| o.highlighted().contains(&id)));
    let selected = Memo::new(move |_| desk.overlay.with(|o| o.selection().contains(&id)));
    let mark = Memo::new(move |_| {
        desk.mentions.with(|m| {
            let m = m.as_ref()?;
            let number = m.boxes.number(id)?;
            let phrase = m.phrases.iter().find(|p| p.objects.contains(&number))?;
            Some((phrase.text.trim().to_owned(), phrase.hue()))
        })
    });
    let swatch = move || match mark.get() {
        Some((_, hue)) => format!("swatch hue-{hue}"),
        None => "swatch hue-none".to_owned(),
    };
    let label = move || mark.get().map_or(String::new(), |(label, _)| label);
    let source = match candidate.score {
        Some(score) => format!("{score:.2}"),
        None => "yours".to_owned(),
    };
    view! {
        <div
            id=row_id(place)
            role="option"
            class="row"
            class:lit=move || lit.get()
            class:active=move || active.get() == place
            aria-selected=move || selected.get().to_string()
            on:pointerenter=move |_| desk.overlay.maybe_update(|o| o.hover(Some(Highlight::one(id))))
            on:pointerleave=move |_| desk.overlay.maybe_update(|o| o.hover(None))
            on:click=move |event| {
                active.set(place);
                let extend = event.shift_key() || event.ctrl_key() || event.meta_key();
                desk.overlay.update(|o| o.select(id, extend));
            }
        >
            <span class=swatch aria-hidden="true"></span>
            <span class="row-number">{place}</span>
            <span class="row-label">{label}</span>
            <span class="row-score">{source}</span>
        </div>
    }
}

fn use_key(desk: AppState, active: RwSignal<usize>, event: &KeyboardEvent) {
    let count = desk.candidates.with_untracked(|c| c.boxes.len());
    if count == 0 {
        return;
    }
    let now = active.get_untracked().min(count - 1);
    let id: BoxId = desk.candidates.with_untracked(|c| c.boxes[now].id);
    let next = match event.key().as_str() {
        "ArrowDown" => (now + 1).min(count - 1),
        "ArrowUp" => now.saturating_sub(1),
        "Home" => 0,
        "End" => count - 1,
        " " => {
            event.prevent_default();
            desk.overlay.update(|o| o.select(id, true));
            return;
        }
        "Enter" => {
            event.prevent_default();
            if desk.overlay.with_untracked(|o| o.selection().is_empty()) {
                desk.overlay.update(|o| o.select(id, false));
            }
            desk.cite_selection();
            return;
        }
        "Delete" | "Backspace" => {
            event.prevent_default();
            desk.erase(id);
            return;
        }
        _ => return,
    };
    event.prevent_default();
    active.set(next);
    point_at(desk, next);
    if let Some(row) = document().get_element_by_id(&row_id(next)) {
        let row: HtmlElement = row.unchecked_into();
        row.scroll_into_view_with_bool(false);
    }
}

fn point_at(desk: AppState, place: usize) {
    let id = desk
        .candidates
        .with_untracked(|c| c.boxes.get(place).map(|b| b.id));
    desk.overlay
        .maybe_update(|o| o.hover(id.map(Highlight::one)));
}

fn row_id(place: usize) -> String {
    format!("object-{place}")
}
