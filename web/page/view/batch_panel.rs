//! The batch: its button, the line that tells how far it is, and the dialog that begins and shows it.

use chatrex::chat::batch::{Batch, Status, Task, TaskKind};
use chatrex::chat::batch_strings as words;
use chatrex::chat::{conversation_strings, strings};
use leptos::ev;
use leptos::prelude::*;
use web_sys::{Blob, File, HtmlInputElement};

use super::batch_list::Running;
use super::batch_parts::{PauseButton, Said, has_batch, progress, status, waits_for};
use super::dialog;
use super::export::Check;
use super::later::Later;
use super::models::{all_files, chooses_folders};
use super::review_panel::ReviewPanel;
use super::state::app_state;
use crate::decode;

/// Endings of pictures whose kind the system does not know.
const ENDINGS: [&str; 8] = [
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".heic",
];

/// The button that opens the batch.
#[component]
pub fn BatchButton() -> impl IntoView {
    let batching = app_state().batching;
    view! {
        <button
            type="button"
            class="button batch-button"
            aria-haspopup="dialog"
            data-testid="batch-open"
            on:click=move |_| batching.open()
        >
            {words::BATCH}
        </button>
    }
}

/// The line below the header while a batch is not finished.
#[component]
pub fn BatchLine() -> impl IntoView {
    let app = app_state();
    let status = status(app);
    let is_shown = Memo::new(move |_| {
        let counts = app.batching.batch.with(Batch::counts);
        counts.all() > 0 && status.get() != Status::Finished
    });
    view! {
        <Show when=move || is_shown.get()>
            <section class="batch-line" aria-label=words::BATCH data-testid="batch-line">
                <b>{words::BATCH}</b>
                <span>{move || progress(app, false)} " " {move || waits_for(app)}</span>
                <PauseButton />
                <button
                    type="button"
                    class="button small"
                    data-testid="batch-show"
                    on:click=move |_| app.batching.open()
                >
                    {words::SHOW}
                </button>
            </section>
        </Show>
    }
}

/// The dialog.
#[component]
pub fn BatchDialog() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let has_batch = has_batch(app);
    let is_reviewing = batching.is_reviewing;
    let close = move |_| dialog::close(batching.dialog);
    let content = move || match (has_batch.get(), is_reviewing.get()) {
        (false, _) if batching.is_elsewhere.get() => view! { <Elsewhere /> }.into_any(),
        (false, _) => view! { <Setup /> }.into_any(),
        (true, false) => view! { <Running /> }.into_any(),
        (true, true) => view! { <ReviewPanel /> }.into_any(),
    };
    view! {
        <dialog
            class="manager batch"
            class:wide=move || is_reviewing.get()
            node_ref=batching.dialog
            aria-labelledby="batch-title"
            data-testid="batch"
        >
            <header role="none">
                <h2 id="batch-title">{words::BATCH}</h2>
                <button type="button" class="quiet" data-testid="batch-close" on:click=close>
                    {strings::CLOSE}
                </button>
            </header>
            <Later>{content}</Later>
        </dialog>
    }
}

/// The batch is in another tab.
#[component]
fn Elsewhere() -> impl IntoView {
    let batching = app_state().batching;
    view! {
        <p class="note" data-testid="batch-elsewhere">{words::ELSEWHERE}</p>
        <div class="batch-buttons">
            <button
                type="button"
                class="button"
                data-testid="batch-check"
                on:click=move |_| batching.check()
            >
                {conversation_strings::TRY_AGAIN}
            </button>
        </div>
    }
}

/// The chosen pictures, with their names.
type Chosen = StoredValue<Vec<(String, Blob)>, LocalStorage>;

/// The choice of pictures and task.
#[component]
fn Setup() -> impl IntoView {
    let app = app_state();
    let batching = app.batching;
    let chosen: Chosen = StoredValue::new_local(Vec::new());
    let counts = RwSignal::new((0_usize, 0_usize));
    let kind = RwSignal::new(TaskKind::default());
    let text = RwSignal::new(String::new());
    let in_history = RwSignal::new(false);
    let task = move || Task {
        kind: kind.get(),
        words: text.get(),
    };
    let is_ready = move || counts.get().0 > 0 && task().is_complete() && !batching.is_storing.get();
    let start = move |event: ev::SubmitEvent| {
        event.prevent_default();
        if untrack(is_ready) {
            let files = chosen.get_value();
            app.start_batch(untrack(task), in_history.get_untracked(), files);
        }
    };
    let on_kind = move |event: ev::Event| {
        kind.set(TaskKind::of_key(&event_target_value(&event)).unwrap_or_default());
    };
    let kinds = TaskKind::ALL.map(|kind| {
        view! { <option value=kind.key()>{move || words::task(kind)}</option> }
    });
    view! {
        <form class="batch-setup" on:submit=start>
            <p class="hint">{words::NOTE}</p>
            <Pictures chosen counts />
            <label class="exchange-field">
                <span>{words::TASK}</span>
                <select data-testid="batch-task" on:change=on_kind>
                    {kinds.into_iter().collect_view()}
                </select>
            </label>
            <Show when=move || kind.get().needs_words()>
                <label class="exchange-field">
                    <span>{words::WORDS}</span>
                    <input
                        type="text"
                        data-testid="batch-words"
                        placeholder=move || words::placeholder(kind.get())
                        prop:value=move || text.get()
                        on:input=move |event| text.set(event_target_value(&event))
                    />
                </label>
            </Show>
            <Check label=words::IN_HISTORY test_id="batch-history" signal=in_history />
            <button
                type="submit"
                class="button primary"
                data-testid="batch-start"
                disabled=move || !is_ready()
            >
                {words::START}
            </button>
            <Show when=move || batching.is_storing.get()>
                <p role="status">{words::STORING}</p>
            </Show>
            <Said />
        </form>
    }
}

/// The buttons that choose pictures. `counts` are the chosen pictures and the files that were left out.
#[component]
fn Pictures(chosen: Chosen, counts: RwSignal<(usize, usize)>) -> impl IntoView {
    let app = app_state();
    let folder = chooses_folders();
    let on_files = move |event: ev::Event| {
        let input: HtmlInputElement = event_target(&event);
        let files = input.files().map(all_files).unwrap_or_default();
        let all = files.len();
        let pictures = files.into_iter().filter(is_picture);
        let pictures = pictures.map(|file| (file.name(), Blob::from(file)));
        let left_out = chosen.try_update_value(|chosen| {
            let before = chosen.len();
            chosen.extend(pictures);
            (chosen.len(), all + before - chosen.len())
        });
        if let Some((count, left_out)) = left_out {
            counts.update(|counts| *counts = (count, counts.1 + left_out));
        }
        input.set_value("");
    };
    let group = move || app.group_of_current().len();
    let take_group = move |_| {
        leptos::task::spawn_local(async move {
            let pictures = app.group_pictures().await;
            counts.set((pictures.len(), 0));
            chosen.set_value(pictures);
        });
    };
    let clear = move |_| {
        chosen.update_value(Vec::clear);
        counts.set((0, 0));
    };
    let text = move || match counts.get() {
        (0, 0) => String::new(),
        (0, _) => words::NO_PICTURES().to_owned(),
        (count, left_out) => words::chosen(count, left_out),
    };
    view! {
        <div class="batch-buttons">
            <label class="button">
                <input
                    type="file"
                    accept="image/*"
                    multiple
                    class="hidden-input"
                    data-testid="batch-files"
                    on:change=on_files
                />
                {words::FILES}
            </label>
            <label class="button">
                <input
                    type="file"
                    multiple
                    class="hidden-input"
                    node_ref=folder
                    data-testid="batch-folder"
                    on:change=on_files
                />
                {words::FOLDER}
            </label>
            <Show when=move || { group() > 1 }>
                <button type="button" class="button" data-testid="batch-group" on:click=take_group>
                    {move || words::group(group())}
                </button>
            </Show>
            <Show when=move || counts.get() != (0, 0)>
                <button type="button" class="quiet" on:click=clear>
                    {words::CLEAR}
                </button>
            </Show>
        </div>
        <p role="status" data-testid="batch-chosen">
            {text}
        </p>
    }
}

fn is_picture(file: &File) -> bool {
    let name = file.name().to_lowercase();
    let is_unknown = file.type_().is_empty();
    decode::is_picture(file) || (is_unknown && ENDINGS.iter().any(|ending| name.ends_with(ending)))
}
