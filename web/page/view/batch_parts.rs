//! What several views of a batch show.

use chatrex::chat::batch::{Batch, Input as Queue, Status};
use chatrex::chat::batch_strings as words;
use chatrex::chat::conversation::Model;
use chatrex::chat::words::Word;
use js_sys::Date;
use leptos::prelude::*;

use super::export::fault_text;
use super::state::{AppState, app_state};

/// Whether there is a batch.
pub fn has_batch(app: AppState) -> Memo<bool> {
    Memo::new(move |_| app.batching.batch.with(|b| !b.items().is_empty()))
}

/// What the batch does.
pub fn status(app: AppState) -> Memo<Status> {
    Memo::new(move |_| app.batching.batch.with(Batch::status))
}

/// How far the batch is, in words; without the time left for `is_short`.
pub fn progress(app: AppState, is_short: bool) -> String {
    app.batching.tick.track();
    app.batching.batch.with(|batch| {
        let left = batch.time_left(Date::now()).filter(|_| !is_short);
        words::progress(batch.status(), batch.counts(), left)
    })
}

/// What the batch waits for, if it waits for something beside the engine's work.
pub fn waits_for(app: AppState) -> Option<Word> {
    let waits = (app.batching.batch)
        .with(|batch| batch.status() == Status::Running && batch.running().is_none());
    let is_ready = app.model.with(|m| matches!(m, Model::Ready(_)));
    match (waits, is_ready) {
        (false, _) => None,
        (true, false) => Some(words::WAITS_FOR_MODEL),
        (true, true) => app.busy.get().then_some(words::WAITS_FOR_USER),
    }
}

/// The button that pauses or resumes.
#[component]
pub fn PauseButton() -> impl IntoView {
    let app = app_state();
    let status = status(app);
    let button = move || match status.get() {
        Status::Finished => None,
        Status::Running => Some((words::PAUSE, Queue::Pause, "batch-pause")),
        Status::Paused | Status::Pausing => Some((words::RESUME, Queue::Resume, "batch-resume")),
    };
    move || button().map(|(label, input, test_id)| view! { <StepButton label test_id input /> })
}

/// A button that gives the batch an input.
#[component]
pub fn StepButton(label: Word, test_id: &'static str, input: Queue) -> impl IntoView {
    let app = app_state();
    view! {
        <button
            type="button"
            class="button small"
            data-testid=test_id
            on:click=move |_| app.batch_step(input.clone(), None)
        >
            {label}
        </button>
    }
}

/// What came of the last action.
#[component]
pub fn Said() -> impl IntoView {
    let said = app_state().batching.said;
    let text = move || match said.get() {
        None => ().into_any(),
        Some(Ok(text)) => text.into_any(),
        Some(Err(fault)) => fault_text(&fault).into_any(),
    };
    view! {
        <p role="status" class="hint" data-testid="batch-said">
            {text}
        </p>
    }
}
