//! A batch that was begun: how far it is, its pictures, and its files.

use chatrex::chat::batch::{Batch, Input as Queue, Item, ItemState, Status};
use chatrex::chat::batch_strings as words;
use chatrex::chat::review::Review;
use chatrex::chat::strings;
use chatrex::chat::words::Word;
use leptos::prelude::*;

use super::batch_parts::{PauseButton, Said, StepButton, progress, status, waits_for};
use super::export::Check;
use super::state::app_state;

/// The batch with its buttons.
#[component]
pub fn Running() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let status = status(app);
    let counts = Memo::new(move |_| batching.batch.with(Batch::counts));
    let task = move || {
        batching.batch.with(|b| {
            let task = &b.head.task;
            format!("{} {}", words::task(task.kind), task.words)
        })
    };
    view! {
        <div class="batch-running" data-testid="batch-running" data-state=move || status.get().key()>
            <h3>{task}</h3>
            <progress
                aria-label=words::BATCH
                max=move || counts.get().all()
                prop:value=move || counts.get().ended() as f64
            ></progress>
            <p data-testid="batch-progress">{move || progress(app, false)} " " {move || waits_for(app)}</p>
            <p class="hidden" role="status">{move || progress(app, true)}</p>
            <Show when=move || !batching.is_kept.get()>
                <p class="note" data-testid="batch-not-kept">{words::NOT_KEPT}</p>
            </Show>
            <div class="batch-buttons">
                <PauseButton />
                <Step
                    label=words::CANCEL
                    test_id="batch-cancel"
                    is_shown=Signal::derive(move || counts.get().left > 0)
                    input=Queue::Cancel
                />
                <Step
                    label=words::RETRY_FAILED
                    test_id="batch-retry"
                    is_shown=Signal::derive(move || counts.get().failed > 0)
                    input=Queue::RetryFailed
                />
                <Step
                    label=words::RETRY_SKIPPED
                    test_id="batch-again"
                    is_shown=Signal::derive(move || counts.get().skipped > 0)
                    input=Queue::RetrySkipped
                />
                <button
                    type="button"
                    class="button small"
                    data-testid="batch-review"
                    disabled=move || counts.get().done == 0
                    on:click=move |_| batching.is_reviewing.set(true)
                >
                    {words::REVIEW}
                </button>
            </div>
            <Items />
            <Files />
            <Replace />
        </div>
    }
}

/// A button that gives the batch an input, where that means something.
#[component]
fn Step(label: Word, test_id: &'static str, is_shown: Signal<bool>, input: Queue) -> impl IntoView {
    let input = StoredValue::new(input);
    view! {
        <Show when=move || is_shown.get()>
            <StepButton label test_id input=input.get_value() />
        </Show>
    }
}

/// The pictures.
#[component]
fn Items() -> impl IntoView {
    let batching = app_state().batching;
    let count = Memo::new(move |_| batching.batch.with(|b| b.items().len()));
    view! {
        <ol class="batch-items" aria-label=words::PICTURES tabindex="0" data-testid="batch-items">
            <For each=move || 0..count.get() key=|index| *index children=|index| view! { <Row index /> } />
        </ol>
    }
}

/// What a row shows of a picture.
#[derive(Clone, PartialEq)]
struct Shown {
    name: String,
    key: &'static str,
    state: &'static str,
    detail: String,
    code: Option<String>,
}

impl Shown {
    fn of(item: &Item) -> Self {
        let (detail, code) = match &item.state {
            ItemState::Done(outcome) => {
                let boxes = words::boxes(outcome.boxes.len());
                (format!("{boxes}. {}", outcome.answer), None)
            }
            ItemState::Failed(fault) => {
                (strings::sentence(fault), Some(strings::error_code(fault)))
            }
            _ => (String::new(), None),
        };
        Self {
            name: item.name.clone(),
            key: item.state.key(),
            state: words::state(&item.state),
            detail,
            code,
        }
    }
}

/// A picture.
#[component]
fn Row(index: usize) -> impl IntoView {
    let app = app_state();
    let shown = Memo::new(move |_| {
        let batch = app.batching.batch;
        batch.with(|batch| batch.items().get(index).map(Shown::of))
    });
    let field = move |read: fn(&Shown) -> String| {
        move || shown.with(|shown| shown.as_ref().map(read).unwrap_or_default())
    };
    let key = move || shown.with(|shown| shown.as_ref().map_or("", |s| s.key));
    view! {
        <li data-testid="batch-item" data-state=key>
            <b class="batch-name">{field(|s| s.name.clone())}</b>
            <span class="batch-state">{field(|s| s.state.to_owned())}</span>
            <p class="batch-detail">
                {field(|s| s.detail.clone())} " "
                <small class="error-code">{field(|s| s.code.clone().unwrap_or_default())}</small>
            </p>
            <Show when=move || matches!(key(), "waiting" | "running")>
                <button
                    type="button"
                    class="quiet"
                    data-testid="batch-skip"
                    aria-label=move || format!("{} {}", words::SKIP(), field(|s| s.name.clone())())
                    on:click=move |_| app.batch_step(Queue::Skip(index), None)
                >
                    {words::SKIP}
                </button>
            </Show>
            <Show when=move || key() == "done">
                <button
                    type="button"
                    class="quiet"
                    data-testid="batch-open-picture"
                    aria-label=move || format!("{} {}", words::OPEN(), field(|s| s.name.clone())())
                    on:click=move |_| app.open_of_batch(index)
                >
                    {words::OPEN}
                </button>
            </Show>
        </li>
    }
}

/// The buttons that save results.
#[component]
fn Files() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let is_begun = Memo::new(move |_| batching.review.with(Review::is_begun));
    let wants_accepted = RwSignal::new(true);
    let only_accepted = move || is_begun.get() && wants_accepted.get();
    let with_pictures = RwSignal::new(false);
    let has_none = move || batching.batch.with(|b| b.counts().ended() == 0);
    view! {
        <fieldset class="exchange-field">
            <legend>{words::FILES_OUT}</legend>
            <p class="hint">{words::ZIP_NOTE} " " {move || words::scope(only_accepted())}</p>
            <Show when=move || is_begun.get()>
                <Check label=words::ONLY_ACCEPTED test_id="batch-accepted" signal=wants_accepted />
            </Show>
            <Check label=words::WITH_PICTURES test_id="batch-with-pictures" signal=with_pictures />
            <div class="batch-buttons">
                <button
                    type="button"
                    class="button"
                    data-testid="batch-jsonl"
                    disabled=has_none
                    on:click=move |_| app.save_batch_lines(untrack(only_accepted))
                >
                    {words::SAVE_LINES}
                </button>
                <button
                    type="button"
                    class="button"
                    data-testid="batch-zip"
                    disabled=has_none
                    on:click=move |_| app.save_batch_zip(untrack(only_accepted), with_pictures.get_untracked())
                >
                    {words::SAVE_ZIP}
                </button>
            </div>
            <Said />
        </fieldset>
    }
}

/// The way to another batch, which deletes this one.
#[component]
fn Replace() -> impl IntoView {
    let app = app_state();
    let status = status(app);
    let is_asked = RwSignal::new(false);
    view! {
        <Show when=move || matches!(status.get(), Status::Paused | Status::Finished)>
            <Show
                when=move || is_asked.get()
                fallback=move || view! {
                    <button
                        type="button"
                        class="quiet"
                        data-testid="batch-new"
                        on:click=move |_| is_asked.set(true)
                    >
                        {words::NEW}
                    </button>
                }
            >
                <div class="batch-buttons" role="group" aria-label=words::NEW>
                    <span>{words::NEW_WARNING}</span>
                    <button
                        type="button"
                        class="button small"
                        data-testid="batch-delete"
                        on:click=move |_| app.forget_batch()
                    >
                        {words::DELETE}
                    </button>
                    <button type="button" class="button small" on:click=move |_| is_asked.set(false)>
                        {words::KEEP}
                    </button>
                </div>
            </Show>
        </Show>
    }
}
