//! The text box, the kinds of question, send and stop.

use chatrex::chat::conversation::Input;
use leptos::html;
use leptos::prelude::*;
use web_sys::KeyboardEvent;

use super::sampling_panel::Choosing;
use super::state::{AppState, app_state};
use chatrex::chat::question::Task;

/// Key code browsers report while an input method composes.
const COMPOSING: u32 = 229;

/// Where questions are written.
#[component]
pub fn Ask() -> impl IntoView {
    let desk = app_state();
    let text = NodeRef::<html::Textarea>::new();
    let complete = Memo::new(move |_| {
        desk.task.get().stands_alone() || desk.draft.with(|d| !d.trim().is_empty())
    });
    let ready = Memo::new(move |_| {
        complete.get() && desk.can_ask.get() && !desk.draft.with(|d| d.contains("[?]"))
    });
    let exact = move || {
        let candidates = desk.candidates.get();
        desk.draft
            .with(|draft| desk.task.get().phrase(draft, &candidates).1)
    };
    Effect::new(move |before: Option<u32>| {
        let wishes = desk.focus_draft.get();
        if before.is_some_and(|b| b != wishes) {
            focus(text);
        }
        wishes
    });
    let use_key = move |event: KeyboardEvent| {
        let composing = event.is_composing() || event.key_code() == COMPOSING;
        match event.key().as_str() {
            "Enter" if !event.shift_key() && !composing => {
                event.prevent_default();
                if ready.get_untracked() {
                    send(desk);
                }
            }
            "Escape" if desk.busy.get_untracked() => {
                event.prevent_default();
                desk.act(Input::Stop);
            }
            "Escape" if desk.task.get_untracked() != Task::Free => {
                event.prevent_default();
                desk.task.set(Task::Free);
            }
            "ArrowUp" if desk.draft.with_untracked(String::is_empty) => {
                let last = desk.turns.with_untracked(|t| {
                    t.last().map(|t| t.turn.with_untracked(|t| t.shown.clone()))
                });
                if let Some(last) = last {
                    event.prevent_default();
                    desk.draft.set(last);
                }
            }
            _ => {}
        }
    };

    view! {
        <form
            class="ask"
            on:submit=move |event| {
                event.prevent_default();
                if ready.get_untracked() {
                    send(desk);
                    focus(text);
                }
            }
        >
            <div class="chips" role="group" aria-label="Kinds of question">
                {Task::CHIPS.map(|task| view! { <Chip task text /> }).collect_view()}
            </div>
            <div class="field">
                <label class="hidden" for="question">
                    "Your question"
                </label>
                <textarea
                    id="question"
                    node_ref=text
                    rows="2"
                    data-testid="question"
                    placeholder=move || desk.task.get().placeholder()
                    prop:value=move || desk.draft.get()
                    on:input=move |event| desk.draft.set(event_target_value(&event))
                    on:keydown=use_key
                ></textarea>
                <Show
                    when=move || desk.busy.get()
                    fallback=move || {
                        view! {
                            <button
                                type="submit"
                                class="button primary send"
                                data-testid="send"
                                disabled=move || !ready.get()
                            >
                                "Send"
                            </button>
                        }
                    }
                >
                    <button
                        type="button"
                        class="button send"
                        data-testid="stop"
                        on:click=move |_| {
                            desk.act(Input::Stop);
                            focus(text);
                        }
                    >
                        "Stop"
                    </button>
                </Show>
            </div>
            <Show when=move || desk.draft.with(|d| d.contains("[?]"))>
                <p class="hint">
                    "A box you mention is no longer shown. Replace [?] by a number in the picture."
                </p>
            </Show>
            <div class="small-print">
                <details class="exact">
                    <summary>"Exact words sent"</summary>
                    <code data-testid="exact">{exact}</code>
                </details>
                <Choosing />
                <p>"Answers and boxes may be wrong."</p>
            </div>
        </form>
    }
}

#[component]
fn Chip(task: Task, text: NodeRef<html::Textarea>) -> impl IntoView {
    let desk = app_state();
    let choose = move |_| {
        let marks = desk.selection_marks();
        let free = desk.can_ask.get_untracked();
        match task {
            Task::Describe if free => desk.ask(task, ""),
            Task::Name if free && !marks.is_empty() => desk.ask(task, &marks),
            _ => {
                desk.task
                    .update(|now| *now = if *now == task { Task::Free } else { task });
                focus(text);
            }
        }
    };
    view! {
        <button
            type="button"
            class="chip-button"
            data-testid=format!("chip-{}", task.key())
            aria-pressed=move || (desk.task.get() == task).to_string()
            on:click=choose
        >
            {task.label()}
        </button>
    }
}

fn send(desk: AppState) {
    let (task, words) = (desk.task.get_untracked(), desk.draft.get_untracked());
    desk.ask(task, &words);
    desk.draft.set(String::new());
    desk.task.set(Task::Free);
}

fn focus(text: NodeRef<html::Textarea>) {
    if let Some(text) = text.get_untracked() {
        // An element that cannot take the focus keeps it where it is.
        let _ = text.focus();
    }
}
