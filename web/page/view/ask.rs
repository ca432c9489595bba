//! The text box, the kinds of question, and the buttons to send and stop.

use chatrex::chat::candidates::LOST_MARK;
use chatrex::chat::conversation::Input;
use chatrex::chat::question::{ChipAction, QuestionKind};
use chatrex::chat::strings;
use leptos::html;
use leptos::prelude::*;
use web_sys::KeyboardEvent;

use super::sampling_panel::SamplingPanel;
use super::state::{AppState, app_state};

/// Key code that browsers report while an input method composes.
const COMPOSING: u32 = 229;

type TextBox = NodeRef<html::Textarea>;

/// The form in which the user writes a question.
#[component]
pub fn Ask() -> impl IntoView {
    let app = app_state();
    let text_box = TextBox::new();
    let ready = Memo::new(move |_| {
        app.can_ask.get() && app.draft.with(|draft| app.kind.get().is_complete(draft))
    });
    Effect::new(move |before: Option<u32>| {
        let requests = app.focus_draft.get();
        if before.is_some_and(|before| before != requests) {
            focus(text_box);
        }
        requests
    });
    view! {
        <form
            class="ask"
            on:submit=move |event| {
                event.prevent_default();
                if ready.get_untracked() {
                    app.send_draft();
                    focus(text_box);
                }
            }
        >
            <div class="chips" role="group" aria-label="Kinds of question">
                {QuestionKind::CHIPS.map(|kind| view! { <Chip kind text_box /> }).collect_view()}
            </div>
            <div class="field">
                <label class="hidden" for="question">
                    "Your question"
                </label>
                <textarea
                    id="question"
                    node_ref=text_box
                    rows="2"
                    data-testid="question"
                    placeholder=move || app.kind.get().placeholder()
                    prop:value=move || app.draft.get()
                    on:input=move |event| app.draft.set(event_target_value(&event))
                    on:keydown=move |event| on_key(app, ready, &event)
                ></textarea>
                <SendOrStop ready text_box />
            </div>
            <Show when=move || app.draft.with(|draft| draft.contains(LOST_MARK))>
                <p class="hint">{strings::LOST_MARK_HINT}</p>
            </Show>
            <SmallPrint />
        </form>
    }
}

/// Keys in the text box: Enter sends, Escape stops or returns to free words, the up arrow repeats the last
/// question.
fn on_key(app: AppState, ready: Memo<bool>, event: &KeyboardEvent) {
    let composing = event.is_composing() || event.key_code() == COMPOSING;
    match event.key().as_str() {
        "Enter" if !event.shift_key() && !composing => {
            if ready.get_untracked() {
                app.send_draft();
            }
        }
        "Escape" if app.busy.get_untracked() => app.act(Input::Stop),
        "Escape" if app.kind.get_untracked() != QuestionKind::Free => {
            app.kind.set(QuestionKind::Free)
        }
        "ArrowUp" if app.draft.with_untracked(String::is_empty) => {
            let last = app
                .turns
                .with_untracked(|t| t.last().map(|t| t.turn.with_untracked(|t| t.shown.clone())));
            let Some(last) = last else {
                return;
            };
            app.draft.set(last);
        }
        _ => return,
    }
    event.prevent_default();
}

#[component]
fn SendOrStop(ready: Memo<bool>, text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let send = move || {
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
    };
    let stop = move |_| {
        app.act(Input::Stop);
        focus(text_box);
    };
    view! {
        <Show when=move || app.busy.get() fallback=send>
            <button type="button" class="button send" data-testid="stop" on:click=stop>
                "Stop"
            </button>
        </Show>
    }
}

#[component]
fn SmallPrint() -> impl IntoView {
    let app = app_state();
    let exact = move || {
        let candidates = app.candidates.get();
        app.draft
            .with(|draft| app.kind.get().phrase(draft, &candidates).1)
    };
    view! {
        <div class="small-print">
            <details class="exact">
                <summary>"Exact words sent"</summary>
                <code data-testid="exact">{exact}</code>
            </details>
            <SamplingPanel />
            <p>{strings::MAY_BE_WRONG}</p>
        </div>
    }
}

#[component]
fn Chip(kind: QuestionKind, text_box: TextBox) -> impl IntoView {
    let app = app_state();
    let on_click = move |_| {
        let marks = app.selection_marks().join("; ");
        match kind.on_chip(&marks, app.can_ask.get_untracked()) {
            ChipAction::Ask(words) => app.ask(kind, &words),
            ChipAction::Toggle => {
                app.kind.update(|now| {
                    *now = if *now == kind {
                        QuestionKind::Free
                    } else {
                        kind
                    }
                });
                focus(text_box);
            }
        }
    };
    view! {
        <button
            type="button"
            class="chip-button"
            data-testid=format!("chip-{}", kind.key())
            aria-pressed=move || (app.kind.get() == kind).to_string()
            on:click=on_click
        >
            {kind.label()}
        </button>
    }
}

fn focus(text_box: TextBox) {
    if let Some(text_box) = text_box.get_untracked() {
        // An element that cannot take the focus leaves it where it is.
        let _ = text_box.focus();
    }
}
