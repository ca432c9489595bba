//! Suggested questions: after a picture was opened, and after an answer.

use chatrex::chat::conversation::{Input, Model};
use chatrex::chat::conversation_strings as words;
use chatrex::chat::suggestions::{self, Suggestion};
use leptos::prelude::*;

use super::state::app_state;

/// The suggestions that fit the conversation; none while a question is answered.
#[component]
pub fn Suggested() -> impl IntoView {
    let app = app_state();
    let found = Memo::new(move |_| {
        let is_ready = app.model.with(|m| matches!(m, Model::Ready(_)));
        if !is_ready || !app.can_ask.get() {
            return Vec::new();
        }
        let turns = app.turns.get();
        let candidates = app.candidates.get();
        match turns.last() {
            None => suggestions::opening(&candidates),
            Some(last) => {
                let asked = turns.iter().map(|t| t.turn.with(|t| t.draft.clone()));
                let asked: Vec<_> = asked.collect();
                last.turn
                    .with(|last| suggestions::follow_up(last, &asked, &candidates))
            }
        }
    });
    let button = move |suggestion: Suggestion| {
        let draft = suggestion.draft;
        view! {
            <button
                type="button"
                class="chip-button"
                data-testid="suggestion"
                on:click=move |_| app.act(Input::AskDraft(draft.clone()))
            >
                {suggestion.label}
            </button>
        }
    };
    view! {
        <Show when=move || found.with(|found| !found.is_empty())>
            <div class="suggested" role="group" aria-label=words::SUGGESTIONS>
                {move || found.get().into_iter().map(button).collect_view()}
            </div>
        </Show>
    }
}
