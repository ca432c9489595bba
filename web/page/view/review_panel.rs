//! The review of a batch: one entry after the other, by buttons or keys.

use chatrex::chat::batch_strings as words;
use chatrex::chat::review::{Entry, Input, KEYS, Order, Review, ReviewedBox};
use chatrex::chat::words::Word;
use leptos::prelude::*;
use leptos::{ev, html};
use wasm_bindgen::JsCast;
use web_sys::{HtmlElement, KeyboardEvent};

use super::incoming::is_text_box;
use super::picture_keys::arrow;
use super::review_picture::ReviewPicture;
use super::state::{AppState, app_state};

/// The current entry.
pub fn current(app: AppState) -> Memo<Option<Entry>> {
    let batching = app.batching;
    Memo::new(move |_| {
        let batch = batching.batch;
        batch.with(|batch| batching.review.with(|review| review.current(batch)))
    })
}

/// The boxes of the current picture.
pub fn boxes(app: AppState, current: Memo<Option<Entry>>) -> Memo<Vec<ReviewedBox>> {
    let batching = app.batching;
    Memo::new(move |_| {
        let Some(entry) = current.get() else {
            return Vec::new();
        };
        batching.batch.with(|batch| {
            let outcome = batch.items().get(entry.item).and_then(|i| i.outcome());
            let review = batching.review;
            outcome.map_or_else(Vec::new, |o| review.with(|r| r.boxes(entry.item, o)))
        })
    })
}

/// The review.
#[component]
pub fn ReviewPanel() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let panel = NodeRef::<html::Section>::new();
    let current = current(app);
    let boxes = boxes(app, current);
    let focus = move || {
        if let Some(panel) = panel.get_untracked() {
            // Only the order of keys suffers from a failure.
            let _ = panel.focus();
        }
    };
    Effect::new(move |_| {
        if let Some(panel) = panel.get() {
            let _ = panel.focus();
        }
    });
    // After a click the keys are those of the review again, not those of the button.
    let on_click = move |event: ev::MouseEvent| {
        let target = event
            .target()
            .and_then(|t| t.dyn_into::<HtmlElement>().ok());
        let button = target.and_then(|t| t.closest("button").ok().flatten());
        if event.detail() > 0 && button.is_some() {
            focus();
        }
    };
    let place = move || {
        let entry = current.get()?;
        batching.batch.with(|batch| {
            let item = batch.items().get(entry.item)?;
            Some(words::place(entry.item, batch.items().len(), &item.name))
        })
    };
    let progress = Memo::new(move |_| {
        let batch = batching.batch;
        batch.with(|batch| batching.review.with(|review| review.progress(batch)))
    });
    let reviewed = move || {
        let (decided, all) = progress.get();
        words::reviewed(decided, all)
    };
    view! {
        <section
            class="review"
            node_ref=panel
            tabindex="-1"
            aria-label=words::REVIEW
            aria-describedby="review-keys"
            data-testid="review"
            on:keydown=move |event| on_key(app, &event)
            on:click=on_click
        >
            <Show
                when=move || current.get().is_some()
                fallback=|| view! { <p>{words::NOTHING_TO_REVIEW}</p> }
            >
                <h3 data-testid="review-place">{place}</h3>
                <progress
                    aria-label=reviewed
                    max=move || progress.get().1
                    prop:value=move || progress.get().0 as f64
                ></progress>
                <p role="status" data-testid="review-status">
                    {reviewed} ". " <Verdict current boxes />
                </p>
                <ReviewPicture current boxes />
                <Answer current />
                <Labels />
                <Actions />
            </Show>
            <p id="review-keys" class="hint">
                {move || match batching.review.with(|r| r.sketch().is_some()) {
                    true => words::DRAW_KEYS,
                    false => words::KEYS,
                }}
            </p>
            <div class="batch-buttons">
                <OrderChoice />
                <button
                    type="button"
                    class="button small"
                    data-testid="review-back"
                    on:click=move |_| batching.is_reviewing.set(false)
                >
                    {words::BACK}
                </button>
            </div>
        </section>
    }
}

/// The current entry in words: its label, how sure the model is, and the verdict.
#[component]
fn Verdict(current: Memo<Option<Entry>>, boxes: Memo<Vec<ReviewedBox>>) -> impl IntoView {
    let batching = app_state().batching;
    let text = move || {
        let entry = current.get()?;
        let verdict = batching.review.with(|review| review.verdict(entry));
        let verdict = words::verdict(verdict);
        let found = boxes.with(|boxes| boxes.iter().find(|b| b.entry == entry).cloned());
        Some(match found.map(|b| b.found) {
            Some(found) => {
                let label = found.label.unwrap_or_else(|| words::NO_LABEL().to_owned());
                let certainty = words::certainty(found.certainty);
                format!("{label}, {certainty}. {verdict}.")
            }
            None => format!("{}. {verdict}.", words::NO_BOXES()),
        })
    };
    view! { <b data-testid="review-entry">{text}</b> }
}

/// The words of the answer.
#[component]
fn Answer(current: Memo<Option<Entry>>) -> impl IntoView {
    let batching = app_state().batching;
    let text = move || {
        let entry = current.get()?;
        batching.batch.with(|batch| {
            let outcome = batch.items().get(entry.item)?.outcome()?;
            Some(outcome.answer.clone()).filter(|answer| !answer.is_empty())
        })
    };
    move || text().map(|text| view! { <p class="review-answer">{text}</p> })
}

/// The labels with a key, and a field for another one.
#[component]
fn Labels() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let labels = Memo::new(move |_| {
        let batch = batching.batch;
        let all = batch.with(|batch| batching.review.with(|review| review.labels(batch)));
        all.into_iter().take(KEYS).collect::<Vec<_>>()
    });
    let text = RwSignal::new(String::new());
    let give = move |event: ev::SubmitEvent| {
        event.prevent_default();
        batching.review(Input::Label(text.get_untracked()));
        text.set(String::new());
    };
    let buttons = move || {
        let labels = labels.get().into_iter().enumerate();
        labels
            .map(|(place, label)| {
                view! {
                    <button
                        type="button"
                        class="button small"
                        data-testid="review-label"
                        on:click=move |_| batching.review(Input::Key(place))
                    >
                        {words::key_label(place, &label)}
                    </button>
                }
            })
            .collect_view()
    };
    view! {
        <div class="batch-buttons" role="group" aria-label=words::LABELS>
            {buttons}
            <form class="review-other" on:submit=give>
                <input
                    type="text"
                    aria-label=words::OTHER_LABEL
                    placeholder=words::OTHER_LABEL
                    data-testid="review-other"
                    prop:value=move || text.get()
                    on:input=move |event| text.set(event_target_value(&event))
                />
                <button type="submit" class="button small">{words::GIVE}</button>
            </form>
        </div>
    }
}

/// The buttons for what the keys do.
#[component]
fn Actions() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let is_drawing = move || batching.review.with(|r| r.sketch().is_some());
    let cannot_undo = move || !batching.review.with(Review::can_undo);
    let button = move |label: Word, key: &'static str, test_id: &'static str, input: Input| {
        view! {
            <button
                type="button"
                class="button small"
                title=key
                data-testid=test_id
                on:click=move |_| batching.review(input.clone())
            >
                {label}
            </button>
        }
    };
    view! {
        <div class="batch-buttons">
            {button(words::ACCEPT, "Space", "review-accept", Input::Accept)}
            {button(words::REJECT, "X", "review-reject", Input::Reject)}
            <button
                type="button"
                class="button small"
                title="R"
                aria-pressed=move || is_drawing().to_string()
                data-testid="review-draw"
                on:click=move |_| batching.review(Input::Draw)
            >
                {words::DRAW}
            </button>
            <Show when=is_drawing>
                {button(words::ADD, "Enter", "review-add", Input::Add)}
            </Show>
            <button
                type="button"
                class="button small"
                title="Ctrl+Z"
                disabled=cannot_undo
                data-testid="review-undo"
                on:click=move |_| batching.review(Input::Undo)
            >
                {words::UNDO}
            </button>
            {button(words::PREVIOUS, "Ctrl+←", "review-previous", Input::Picture(-1))}
            {button(words::NEXT, "Ctrl+→", "review-next", Input::Picture(1))}
        </div>
    }
}

/// The order of the entries.
#[component]
fn OrderChoice() -> impl IntoView {
    let batching = app_state().batching;
    let on_change = move |event: ev::Event| {
        batching.review(Input::Order(match event_target_value(&event).as_str() {
            "picture" => Order::ByPicture,
            _ => Order::LeastSure,
        }));
    };
    let value = move || match batching.review.with(Review::order) {
        Order::LeastSure => "sure",
        Order::ByPicture => "picture",
    };
    view! {
        <label class="review-order">
            {words::ORDER} " "
            <select data-testid="review-order" prop:value=value on:change=on_change>
                <option value="sure">{words::LEAST_SURE}</option>
                <option value="picture">{words::BY_PICTURE}</option>
            </select>
        </label>
    }
}

/// A key of the review.
fn on_key(app: AppState, event: &KeyboardEvent) {
    let batching = app.batching;
    let Some(target) = event.target() else {
        return;
    };
    let tag = target
        .dyn_ref::<HtmlElement>()
        .map(|element| element.tag_name());
    let is_control = |name: &str| tag.as_deref() == Some(name);
    if event.alt_key() || is_text_box(&target) || is_control("SELECT") {
        return;
    }
    // A button has its own keys.
    if is_control("BUTTON") && matches!(event.key().as_str(), " " | "Enter") {
        return;
    }
    let is_drawing = batching.review.with_untracked(|r| r.sketch().is_some());
    if event.key() == "Escape" && !is_drawing {
        return;
    }
    let input = input_of(event, is_drawing);
    if let Some(input) = input {
        event.prevent_default();
        // Else the dialog would close.
        event.stop_propagation();
        batching.review(input);
    }
}

fn input_of(event: &KeyboardEvent, is_drawing: bool) -> Option<Input> {
    let key = event.key();
    let arrow = arrow(&key);
    let step = |(dx, dy): (f32, f32)| if dx + dy > 0.0 { 1 } else { -1 };
    if event.ctrl_key() || event.meta_key() {
        return match (key.to_lowercase().as_str(), arrow) {
            ("z", _) => Some(Input::Undo),
            (_, Some(arrow)) if arrow.0 != 0.0 => Some(Input::Picture(step(arrow))),
            _ => None,
        };
    }
    match (key.as_str(), arrow) {
        (_, Some((dx, dy))) if is_drawing => Some(Input::Nudge {
            dx,
            dy,
            sizes: event.shift_key(),
        }),
        (_, Some(arrow)) => Some(Input::Move(step(arrow))),
        ("Enter", _) if is_drawing => Some(Input::Add),
        ("Escape", _) => Some(Input::Drop),
        (" ", _) => Some(Input::Accept),
        ("x" | "X", _) => Some(Input::Reject),
        ("r" | "R", _) => Some(Input::Draw),
        (digit, _) => {
            let place = digit.parse::<usize>().ok()?.checked_sub(1)?;
            (place < KEYS).then_some(Input::Key(place))
        }
    }
}
