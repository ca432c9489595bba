//! Copies an answer in one of several forms.

use std::time::Duration;

use chatrex::chat::conversation::Turn;
use chatrex::chat::conversation_strings as words;
use chatrex::chat::copying::CopyForm;
use chatrex::chat::network_strings;
use chatrex::chat::words::Word;
use js_sys::Reflect;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen_futures::JsFuture;

use super::icons::{Icon, icon};

/// How long the outcome stays, in milliseconds: of success, and of a failure, which takes reading.
const STAYS: (u64, u64) = (2000, 6000);

/// The button and its menu, and the outcome.
#[component]
pub fn CopyMenu(turn: RwSignal<Turn>) -> impl IntoView {
    let menu = NodeRef::<html::Details>::new();
    let outcome = RwSignal::new(None::<bool>);
    let copies = StoredValue::new(0_u32);
    let copy = move |form: CopyForm| {
        let text = turn.with_untracked(|t| form.text(t));
        if let Some(menu) = menu.get_untracked() {
            menu.set_open(false);
        }
        spawn_local(async move {
            let is_copied = write(&text).await;
            copies.update_value(|count| *count += 1);
            let this = copies.get_value();
            outcome.set(Some(is_copied));
            let stays = Duration::from_millis(if is_copied { STAYS.0 } else { STAYS.1 });
            set_timeout(
                move || {
                    if copies.try_get_value() == Some(this) {
                        outcome.set(None);
                    }
                },
                stays,
            );
        });
    };
    let on_key = move |event: web_sys::KeyboardEvent| {
        let open = menu.get_untracked().filter(|menu| menu.open());
        if let (Some(menu), "Escape") = (open, event.key().as_str()) {
            event.prevent_default();
            event.stop_propagation();
            menu.set_open(false);
        }
    };
    let on_leave = move |event: web_sys::FocusEvent| {
        let to = event.related_target();
        if let Some(menu) = menu.get_untracked() {
            let node = to.and_then(|to| wasm_bindgen::JsCast::dyn_into::<web_sys::Node>(to).ok());
            if node.is_some_and(|node| !menu.contains(Some(&node))) {
                menu.set_open(false);
            }
        }
    };
    let text = move || {
        outcome.get().map(|is_copied| {
            if is_copied {
                words::COPIED
            } else {
                words::NOT_COPIED
            }
        })
    };
    view! {
        <details class="copy-menu" node_ref=menu on:keydown=on_key on:focusout=on_leave>
            <summary class="quiet action" title=words::COPY data-testid="copy">
                {icon(Icon::Copy)}
                <span class="hidden">{words::COPY}</span>
            </summary>
            <div class="menu">
                {CopyForm::ALL
                    .map(|form| {
                        view! {
                            <button
                                type="button"
                                data-testid=format!("copy-{}", form.key())
                                on:click=move |_| copy(form)
                            >
                                {move || form.label()}
                            </button>
                        }
                    })
                    .collect_view()}
            </div>
        </details>
        <span class="copied" role="status" data-testid="copied">{text}</span>
    }
}

/// A button that copies a text, and whether that worked.
#[component]
pub(super) fn CopyButton(
    test_id: &'static str,
    class: &'static str,
    label: Word,
    /// Whether the last press copied.
    copied: RwSignal<Option<bool>>,
    text: impl Fn() -> String + 'static,
) -> impl IntoView {
    let copy = move |_| {
        let text = text();
        spawn_local(async move { copied.set(Some(write(&text).await)) });
    };
    let said = |is_copied| match is_copied {
        true => network_strings::COPIED,
        false => network_strings::NOT_COPIED,
    };
    view! {
        <button type="button" class=class data-testid=test_id on:click=copy>
            {label}
        </button>
        <span role="status">{move || copied.get().map(said)}</span>
    }
}

/// Writes to the clipboard; false if the browser does not allow it.
pub async fn write(text: &str) -> bool {
    let navigator = window().navigator();
    let clipboard = Reflect::get(&navigator, &"clipboard".into());
    if clipboard.is_ok_and(|clipboard| clipboard.is_undefined()) {
        return false;
    }
    JsFuture::from(navigator.clipboard().write_text(text))
        .await
        .is_ok()
}
