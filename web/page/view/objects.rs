//! The boxes as a list, for the keyboard and screen readers too, and the numbers of the selected box.

use chatrex::chat::box_edit::{BoxNumber, clipped, with_number};
use chatrex::chat::box_strings;
use chatrex::chat::candidates::{BoxId, Candidate};
use chatrex::chat::conversation::{BoxChange, Picture};
use chatrex::chat::evidence::{self, Thumbnail};
use chatrex::chat::object_list::{Sort, SortKey, range};
use chatrex::chat::overlay::{Highlight, Mentions};
use chatrex::chat::words::{self, Word};
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::{HtmlElement, KeyboardEvent, MouseEvent};

use super::picture_keys::step_key;
use super::state::{AppState, app_state};

/// The columns with their order.
const KEYS: [SortKey; 4] = [
    SortKey::Number,
    SortKey::Name,
    SortKey::Score,
    SortKey::Area,
];

/// Side of a thumbnail in CSS pixels.
const SIDE: f64 = 32.0;

/// The state of the list.
#[derive(Clone, Copy)]
struct List {
    app: AppState,
    /// The boxes in the order of the rows.
    rows: Memo<Vec<BoxId>>,
    /// The row of the keyboard.
    active: RwSignal<Option<BoxId>>,
    /// Where a range of rows begins.
    anchor: RwSignal<Option<BoxId>>,
}

/// The list of candidates: proposals and boxes of the user.
#[component]
pub fn Objects() -> impl IntoView {
    let app = app_state();
    let sort = RwSignal::new(Sort::default());
    let ordered = Memo::new(move |_| {
        app.mentions.with(|mentions| {
            let name = |b: &Candidate| label(b, mentions.as_ref()).0;
            let candidates = app.candidates.get();
            let numbers = sort.get().order(&candidates, name);
            let row = |n: u32| candidates.get(n).map(|b| (n, b.clone()));
            numbers.into_iter().filter_map(row).collect::<Vec<_>>()
        })
    });
    let list = List {
        app,
        rows: Memo::new(move |_| ordered.with(|rows| rows.iter().map(|(_, b)| b.id).collect())),
        active: RwSignal::new(None),
        anchor: RwSignal::new(None),
    };
    let none = move || list.rows.with(Vec::is_empty);
    let active_row = move || {
        let id = list.active()?;
        app.candidates.with(|c| c.number(id)).map(row_id)
    };
    let columns = KEYS.into_iter().zip(box_strings::COLUMNS);
    let mut headers = columns.map(|(key, name)| view! { <SortButton sort key name /> });
    let number = headers.next();
    view! {
        <div class="object-list">
            <div class="row columns" role="group" aria-label=box_strings::SORT>
                <span></span>
                {number}
                <span></span>
                {headers.collect_view()}
            </div>
            <div
                class="objects"
                role="listbox"
                aria-label=box_strings::LIST
                aria-multiselectable="true"
                aria-activedescendant=active_row
                tabindex="0"
                data-testid="object-list"
                on:keydown=move |event| list.on_key(&event)
                on:focus=move |_| list.hover_active()
                on:blur=move |_| app.overlay.maybe_update(|o| o.hover(None))
            >
                <For
                    each=move || ordered.get()
                    key=|(number, b)| {
                        let corners = <[f32; 4]>::from(b.bbox).map(f32::to_bits);
                        (*number, b.id, corners, b.label.clone())
                    }
                    children=move |(number, candidate)| view! { <Row number candidate list /> }
                />
            </div>
            <Show when=none>
                <p class="hint list-empty">{box_strings::LIST_EMPTY}</p>
            </Show>
        </div>
    }
}

#[component]
fn SortButton(sort: RwSignal<Sort>, key: SortKey, name: Word) -> impl IntoView {
    let is_on = move || sort.get().key == key;
    let mark = move || match sort.get() {
        now if now.key != key => "",
        Sort {
            is_reversed: true, ..
        } => " ▴",
        _ => " ▾",
    };
    view! {
        <button
            type="button"
            class="sort"
            data-testid=format!("sort-{key:?}").to_lowercase()
            aria-label=move || box_strings::sort_by(name())
            aria-pressed=move || is_on().to_string()
            on:click=move |_| sort.update(|sort| *sort = sort.by(key))
        >
            {name}
            {mark}
        </button>
    }
}

/// The phrase of the shown answer that names a box, else the kind that the detector says; and the hue
/// of the phrase.
fn label(candidate: &Candidate, mentions: Option<&Mentions>) -> (String, Option<usize>) {
    match mentions.and_then(|m| m.phrase_of(candidate.id)) {
        Some(phrase) => (phrase.text.trim().to_owned(), Some(phrase.hue())),
        None => (candidate.label.clone().unwrap_or_default(), None),
    }
}

#[component]
fn Row(number: u32, candidate: Candidate, list: List) -> impl IntoView {
    let app = list.app;
    let id = candidate.id;
    let highlighted = Memo::new(move |_| app.overlay.with(|o| o.highlighted().contains(&id)));
    let selected = Memo::new(move |_| app.overlay.with(|o| o.selection().contains(&id)));
    let is_hidden = Memo::new(move |_| {
        app.picture
            .with(|p| p.as_ref().is_some_and(|p| p.edits().hidden.contains(&id)))
    });
    let candidate = StoredValue::new(candidate);
    let label = Memo::new(move |_| {
        app.mentions
            .with(|m| candidate.with_value(|c| label(c, m.as_ref())))
    });
    let swatch = move || match label.with(|(_, hue)| *hue) {
        Some(hue) => format!("swatch hue-{hue}"),
        None => "swatch hue-none".to_owned(),
    };
    let score = candidate.with_value(|c| c.score);
    let bbox = candidate.with_value(|c| c.bbox);
    let size = app.picture.with_untracked(|p| p.as_ref().map(|p| p.size));
    let share = size.map_or(0.0, |size| {
        let whole = size.width as f32 * size.height as f32;
        clipped(bbox, size).area() / whole.max(1.0)
    });
    let thumbnail = size.map(|size| evidence::thumbnail(evidence::crop(bbox, size), size, SIDE));
    let score_text = move || match score {
        Some(score) => words::number(f64::from(score), 2),
        None => box_strings::YOURS().to_owned(),
    };
    let name = move || {
        label.with(|(label, _)| box_strings::row_name(number, label, score, share, is_hidden.get()))
    };
    view! {
        <div
            id=row_id(number)
            role="option"
            class="row"
            class:lit=move || highlighted.get()
            class:off=move || is_hidden.get()
            class:active=move || list.active.get() == Some(id)
            aria-selected=move || selected.get().to_string()
            title=name
            data-testid="object-row"
            data-index=number
            on:pointerenter=move |_| app.overlay.maybe_update(|o| o.hover(Some(Highlight::one(id))))
            on:pointerleave=move |_| app.overlay.maybe_update(|o| o.hover(None))
            on:click=move |event| list.on_click(id, &event)
        >
            <span
                class="check"
                data-testid="object-shown"
                data-shown=move || (!is_hidden.get()).to_string()
                on:click=move |event| {
                    event.stop_propagation();
                    list.show(vec![id], is_hidden.get_untracked());
                }
            ></span>
            <span class="row-number"><i class=swatch></i>{number}</span>
            <span class="hidden">{move || is_hidden.get().then_some(box_strings::HIDDEN)}</span>
            <span class="row-picture">
                {thumbnail.map(|thumbnail| view! { <Crop thumbnail app /> })}
            </span>
            <span class="row-label" data-testid="object-name">{move || label.get().0}</span>
            <span class="row-score">
                {score_text}
                {score.map(|score| {
                    let filled = format!("{:.0}% 100%", score.clamp(0.0, 1.0) * 100.0);
                    view! { <i class="score-bar" style:background-size=filled></i> }
                })}
            </span>
            <span class="row-area">{move || box_strings::area(share)}</span>
        </div>
    }
}

/// The part of the picture in a box.
#[component]
fn Crop(thumbnail: Thumbnail, app: AppState) -> impl IntoView {
    let Thumbnail {
        element: (width, height),
        picture: (across, down),
        corner: (left, top),
    } = thumbnail;
    let address = move || app.address.get();
    view! {
        <i
            class="thumbnail"
            data-testid="object-thumbnail"
            style:width=format!("{width}px")
            style:height=format!("{height}px")
            style:background-size=format!("{across}px {down}px")
            style:background-position=format!("{left}px {top}px")
            style:background-image=move || address().map(|address| format!("url(\"{address}\")"))
        ></i>
    }
}

impl List {
    /// The row of the keyboard; the first if that is gone.
    fn active(self) -> Option<BoxId> {
        let active = self.active.get();
        self.rows.with(|rows| {
            let is_there = active.filter(|id| rows.contains(id));
            is_there.or_else(|| rows.first().copied())
        })
    }

    fn show(self, ids: Vec<BoxId>, shown: bool) {
        let change = if shown {
            BoxChange::Show(ids)
        } else {
            BoxChange::Hide(ids)
        };
        self.app.change_boxes(change);
    }

    fn on_click(self, id: BoxId, event: &MouseEvent) {
        self.active.set(Some(id));
        if event.shift_key() {
            self.select_range(id);
            return;
        }
        self.anchor.set(Some(id));
        let extend = event.ctrl_key() || event.meta_key();
        self.app.overlay.update(|o| o.select(id, extend));
        if self.app.overlay.with_untracked(|o| o.selected()) == Some(id) {
            self.app.reveal(&Highlight::one(id));
        }
    }

    /// Selects the rows from the anchor to this one.
    fn select_range(self, to: BoxId) {
        let anchor = self.anchor.get_untracked();
        let ids = self.rows.with_untracked(|rows| range(rows, anchor, to));
        if anchor.is_none() {
            self.anchor.set(Some(to));
        }
        self.app.overlay.update(|o| o.select_all(ids));
    }

    fn on_key(self, event: &KeyboardEvent) {
        let app = self.app;
        if step_key(app, event) {
            event.prevent_default();
            return;
        }
        let rows = self.rows.get_untracked();
        let Some(id) = untrack(|| self.active()) else {
            return;
        };
        let now = rows.iter().position(|&row| row == id).unwrap_or(0);
        let last = rows.len() - 1;
        let selection = || -> Vec<BoxId> {
            let selection = app.overlay.with_untracked(|o| o.selection().clone());
            if selection.contains(&id) {
                selection.into_iter().collect()
            } else {
                vec![id]
            }
        };
        let next = match event.key().as_str() {
            "ArrowDown" => (now + 1).min(last),
            "ArrowUp" => now.saturating_sub(1),
            "Home" => 0,
            "End" => last,
            key => {
                match key {
                    " " if event.shift_key() => self.select_range(id),
                    " " => {
                        self.anchor.set(Some(id));
                        app.overlay.update(|o| o.select(id, true));
                    }
                    "a" | "A" if event.ctrl_key() || event.meta_key() => {
                        app.overlay.update(|o| o.select_all(rows));
                    }
                    "h" | "H" if !event.ctrl_key() && !event.meta_key() => {
                        let hidden = |p: &Option<Picture>| {
                            let edits = p.as_ref().map(Picture::edits);
                            edits.is_some_and(|edits| edits.hidden.contains(&id))
                        };
                        let is_hidden = app.picture.with_untracked(hidden);
                        self.show(selection(), is_hidden);
                    }
                    "Enter" => {
                        if app.overlay.with_untracked(|o| o.selection().is_empty()) {
                            app.overlay.update(|o| o.select_all([id]));
                        }
                        app.cite_selection();
                    }
                    "Delete" | "Backspace" => {
                        let neighbor = rows.get(now + 1).or(rows.get(now.saturating_sub(1)));
                        self.active.set(neighbor.copied());
                        app.remove(selection());
                    }
                    _ => return,
                }
                event.prevent_default();
                return;
            }
        };
        event.prevent_default();
        let to = rows[next];
        if event.shift_key() {
            if self.anchor.get_untracked().is_none() {
                self.anchor.set(Some(id));
            }
            self.select_range(to);
        }
        self.active.set(Some(to));
        self.hover_active();
        let number = app.candidates.with_untracked(|c| c.number(to));
        let row = number.and_then(|number| document().get_element_by_id(&row_id(number)));
        if let Some(row) = row {
            let row: HtmlElement = row.unchecked_into();
            row.scroll_into_view_with_bool(false);
        }
    }

    fn hover_active(self) {
        let id = untrack(|| self.active());
        self.active.set(id);
        self.app
            .overlay
            .maybe_update(|o| o.hover(id.map(Highlight::one)));
    }
}

fn row_id(number: u32) -> String {
    format!("object-{number}")
}

/// Left edge, top, width and height of the only selected box, to be typed.
#[component]
pub fn BoxNumbers() -> impl IntoView {
    const NUMBERS: [BoxNumber; 4] = [
        BoxNumber::Left,
        BoxNumber::Top,
        BoxNumber::Width,
        BoxNumber::Height,
    ];
    let app = app_state();
    let selected = Memo::new(move |_| {
        let id = app.overlay.with(|o| o.selected())?;
        app.drawn_boxes.with(|boxes| {
            let drawn = boxes.iter().find(|b| b.id == id)?;
            Some((id, drawn.bbox))
        })
    });
    let fields = NUMBERS.into_iter().zip(box_strings::NUMBER_FIELDS);
    let fields = fields.map(|(number, (short, name))| {
        let value = move || {
            let bbox = selected.get().map(|(_, bbox)| bbox);
            bbox.map_or(String::new(), |b| format!("{:.0}", number.of(b)))
        };
        let change = move |event: leptos::ev::Event| {
            let typed = event_target_value(&event).trim().parse::<f32>();
            let size = app.frame.get_untracked().map(|f| f.picture);
            let known = selected.get_untracked();
            if let (Ok(typed), Some(size), Some((id, _))) = (typed, size, known)
                && let Some(now) = app.corners(id)
            {
                let next = with_number(clipped(now, size), number, typed, size);
                if next != now {
                    app.reshape(id, next, false);
                }
            }
            // What was typed may be no number, or out of the picture.
            let input: web_sys::HtmlInputElement = event_target(&event);
            input.set_value(&untrack(value));
        };
        view! {
            <label>
                <span aria-hidden="true">{short}</span>
                <input
                    type="number"
                    step="1"
                    aria-label=name
                    title=name
                    data-testid=format!("box-{short}")
                    disabled=move || selected.with(Option::is_none)
                    prop:value=value
                    on:change=change
                />
            </label>
        }
    });
    view! {
        <div class="box-numbers" role="group" aria-label=box_strings::NUMBERS>
            {fields.collect_view()}
        </div>
    }
}
