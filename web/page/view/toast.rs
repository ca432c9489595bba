//! Short messages: what happened with its undo, a new version of the page, its installation.

use chatrex::chat::conversation::Phase;
use chatrex::chat::kept_strings as words;
use js_sys::{Function, Reflect};
use leptos::prelude::*;
use wasm_bindgen::prelude::*;

use super::icons::{Icon, icon};
use super::state::app_state;
use crate::{memory, offline};

/// The last message, for ten seconds.
#[component]
pub fn ToastView() -> impl IntoView {
    let app = app_state();
    let keep = app.keep;
    view! {
        <div class="toasts" role="status">
            {move || {
                keep.toast.get().map(|toast| {
                    let can_undo = toast.can_undo();
                    view! {
                        <div class="toast" data-testid="toast">
                            <span>{toast.text}</span>
                            {can_undo.then(|| view! {
                                <button type="button" class="link" data-testid="undo" on:click=move |_| app.undo()>
                                    {words::UNDO}
                                </button>
                            })}
                        </div>
                    }
                })
            }}
        </div>
    }
}

/// Offers a new version, never in the middle of an answer.
#[component]
pub fn NewVersion() -> impl IntoView {
    let app = app_state();
    let is_ready = RwSignal::new(false);
    offline::on_new_version(move || is_ready.set(true));
    let reload = move |_| {
        // Leaving the page keeps what is not written yet.
        let _ = window().location().reload();
    };
    view! {
        <div role="status">
            <Show when=move || is_ready.get() && !app.busy.get()>
                <p class="note version" data-testid="new-version">
                    {icon(Icon::About)}
                    <span>{words::NEW_VERSION}</span>
                    <button type="button" class="button small" on:click=reload>
                        {words::RELOAD}
                    </button>
                </p>
            </Show>
        </div>
    }
}

/// Offers to install the page where the browser can, after the first answer, in one visit only.
#[component]
pub fn Install() -> impl IntoView {
    let app = app_state();
    let prompt = RwSignal::new_local(None::<JsValue>);
    let listener = Closure::<dyn FnMut(web_sys::Event)>::new(move |event: web_sys::Event| {
        event.prevent_default();
        prompt.set(Some(event.into()));
    });
    // Without the event there is no button.
    let _ = window()
        .add_event_listener_with_callback("beforeinstallprompt", listener.as_ref().unchecked_ref());
    // The page listens as long as it lives.
    listener.forget();
    let was_offered = memory::is_seen(memory::Seen::Install);
    let has_answer = move || {
        app.turns.with(|turns| {
            turns
                .iter()
                .any(|t| t.turn.with(|t| t.phase == Phase::Done))
        })
    };
    let install = move |_| {
        if let Some(event) = prompt.get_untracked() {
            let show = Reflect::get(&event, &"prompt".into()).unwrap_or_default();
            if let Some(show) = show.dyn_ref::<Function>() {
                // The user decides in the browser's own dialog.
                let _ = show.call0(&event);
            }
        }
        prompt.set(None);
    };
    let is_offered =
        Memo::new(move |_| !was_offered && prompt.with(Option::is_some) && has_answer());
    Effect::new(move |_| {
        if is_offered.get() {
            memory::keep_seen(memory::Seen::Install);
        }
    });
    view! {
        <Show when=move || is_offered.get()>
            <button type="button" class="quiet" data-testid="install" on:click=install>
                {words::INSTALL}
            </button>
        </Show>
    }
}
