//! Asks for the name of every box, one after the other.

use chatrex::chat::conversation::Input;
use chatrex::chat::conversation_strings as words;
use leptos::prelude::*;

use super::state::app_state;

/// The button, and while names are asked the progress and a button to stop.
#[component]
pub fn NameAll() -> impl IntoView {
    let app = app_state();
    let is_naming = Memo::new(move |_| app.naming.with(Option::is_some));
    let cannot = move || !app.can_ask.get() || app.candidates.with(|c| c.boxes.is_empty());
    let text = move || app.naming.get().map(|(done, all)| words::naming(done, all));
    let bar = move || {
        app.naming.get().map(|(done, all)| {
            view! {
                <progress aria-label=words::NAME_ALL max=all.to_string() value=done.to_string()></progress>
            }
        })
    };
    view! {
        <div class="name-all">
            <Show
                when=move || is_naming.get()
                fallback=move || {
                    view! {
                        <button
                            type="button"
                            class="button small"
                            data-testid="name-all"
                            title=words::NAME_ALL_TITLE
                            disabled=cannot
                            on:click=move |_| app.act(Input::NameAll)
                        >
                            {words::NAME_ALL}
                        </button>
                    }
                }
            >
                <button
                    type="button"
                    class="button small"
                    data-testid="name-stop"
                    on:click=move |_| app.act(Input::Stop)
                >
                    {words::STOP}
                </button>
                {bar}
            </Show>
            <span role="status" data-testid="naming">{text}</span>
        </div>
    }
}
