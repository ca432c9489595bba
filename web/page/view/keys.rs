//! The list of all keys, as a dialog.

use chatrex::chat::layout_strings::{self as words, KEY_GROUPS, KeyGroup};
use chatrex::chat::strings;
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use web_sys::KeyboardEvent;

use super::ask::is_composing;
use super::dialog;
use super::icons::{Icon, icon};
use super::incoming::is_text_box;

/// The dialog with the keys, which buttons elsewhere open.
#[derive(Clone, Copy)]
pub struct KeyList {
    dialog: NodeRef<html::Dialog>,
    /// True from the first opening on: the rows are built then.
    was_opened: RwSignal<bool>,
}

impl KeyList {
    /// The dialog is closed.
    pub fn new() -> Self {
        Self {
            dialog: NodeRef::new(),
            was_opened: RwSignal::new(false),
        }
    }

    /// Opens the dialog.
    pub fn open(self) {
        self.was_opened.set(true);
        dialog::show(self.dialog);
    }

    fn close(self) {
        dialog::close(self.dialog);
    }

    /// The keys that open it: a question mark outside of text boxes, and Ctrl with a slash.
    pub fn listen(self) {
        window_event_listener(ev::keydown, move |event| {
            if !event.default_prevented() && !is_composing(&event) && is_asked_for(&event) {
                event.prevent_default();
                self.open();
            }
        });
    }
}

fn is_asked_for(event: &KeyboardEvent) -> bool {
    let is_command = event.ctrl_key() || event.meta_key();
    if event.alt_key() || has_open_dialog() {
        return false;
    }
    match event.key().as_str() {
        "/" => is_command,
        "?" => !is_command && !event.target().is_some_and(|target| is_text_box(&target)),
        _ => false,
    }
}

fn has_open_dialog() -> bool {
    let open = document().query_selector("dialog[open]");
    open.is_ok_and(|dialog| dialog.is_some())
}

/// The button that opens the list.
#[component]
pub fn KeysButton() -> impl IntoView {
    let list: KeyList = expect_context();
    view! {
        <button
            type="button"
            class="icon-button keys-button"
            aria-label=words::KEYS
            aria-haspopup="dialog"
            title=move || format!("{} (?)", words::KEYS())
            data-testid="keys"
            on:click=move |_| list.open()
        >
            {icon(Icon::Keys)}
        </button>
    }
}

/// The dialog.
#[component]
pub fn Keys() -> impl IntoView {
    let list: KeyList = expect_context();
    view! {
        <dialog
            class="manager keys"
            node_ref=list.dialog
            aria-labelledby="keys-title"
            data-testid="key-list"
        >
            <header role="none">
                <h2 id="keys-title">{words::KEYS}</h2>
                <button type="button" class="quiet" data-testid="keys-close" on:click=move |_| list.close()>
                    {strings::CLOSE}
                </button>
            </header>
            <div class="key-groups">
                <Show when=move || list.was_opened.get()>
                    {KEY_GROUPS.iter().map(group).collect_view()}
                </Show>
            </div>
            <p class="hint">{words::KEYS_NOTE}</p>
        </dialog>
    }
}

fn group(group: &'static KeyGroup) -> impl IntoView {
    let rows = group.rows.iter().map(|(keys, what)| {
        view! {
            <div class="key-row">
                <dt>{keys_view(keys)}</dt>
                <dd>{*what}</dd>
            </div>
        }
    });
    view! {
        <section>
            <h3>{group.name}</h3>
            <dl>{rows.collect_view()}</dl>
        </section>
    }
}

/// Keys as they are written on a keyboard.
fn keys_view(keys: &'static str) -> impl IntoView {
    words::alternatives(keys)
        .into_iter()
        .map(|together| {
            let keys = together
                .into_iter()
                .map(|key| view! { <kbd>{move || words::key_name(key)}</kbd> });
            view! { <span class="key-set">{keys.collect_view()}</span> }
        })
        .collect_view()
}
