//! The history: a drawer on the left with all kept conversations.

use chatrex::chat::history::Head;
use chatrex::chat::kept_strings as words;
use chatrex::chat::words::moment;
use leptos::ev::SubmitEvent;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;

use super::icons::{Icon, icon};
use super::start::Thumbnail;
use super::state::app_state;

/// The button of the drawer.
#[component]
pub fn HistoryButton() -> impl IntoView {
    let keep = app_state().keep;
    view! {
        <button
            type="button"
            class="icon-button"
            aria-label=words::HISTORY
            title=words::HISTORY
            aria-haspopup="dialog"
            data-testid="history"
            on:click=move |_| keep.is_open.set(true)
        >
            {icon(Icon::History)}
        </button>
    }
}

/// The drawer.
#[component]
pub fn Drawer() -> impl IntoView {
    let app = app_state();
    let keep = app.keep;
    let dialog = NodeRef::<html::Dialog>::new();
    Effect::new(move |_| {
        let Some(dialog) = dialog.get() else {
            return;
        };
        if keep.is_open.get() {
            // Fails only if it is open already.
            let _ = dialog.show_modal();
            spawn_local(keep.reload());
        } else {
            dialog.close();
        }
    });
    let close = move || keep.is_open.set(false);
    let heads = move || {
        keep.shelf
            .with(|shelf| shelf.found().cloned().collect::<Vec<_>>())
    };
    let is_empty = Memo::new(move |_| keep.shelf.with(|shelf| shelf.all().is_empty()));
    let nothing = move || {
        let is_found = keep.shelf.with(|shelf| shelf.found().next().is_some());
        match (is_empty.get(), is_found) {
            (true, _) => Some(words::NO_HISTORY),
            (false, false) => Some(words::NOTHING_FOUND),
            (false, true) => None,
        }
    };
    view! {
        <dialog
            class="drawer"
            node_ref=dialog
            aria-labelledby="history-title"
            data-testid="drawer"
            on:close=move |_| close()
            on:click=move |event| {
                // A click beside the drawer has the dialog itself as its target.
                let own = dialog.get_untracked().map(JsValue::from);
                if event.target().map(JsValue::from) == own {
                    close();
                }
            }
        >
            <div class="drawer-inside">
                <header role="none">
                    <h2 id="history-title">{words::HISTORY}</h2>
                    <button type="button" class="quiet" data-testid="drawer-close" on:click=move |_| close()>
                        {words::CLOSE}
                    </button>
                </header>
                <input
                    type="search"
                    class="search"
                    aria-label=words::SEARCH
                    placeholder=words::SEARCH
                    data-testid="history-search"
                    prop:value=move || keep.shelf.with(|s| s.query.clone())
                    on:input=move |event| keep.shelf.update(|s| s.query = event_target_value(&event))
                />
                <Trouble />
                {move || nothing().map(|text| view! { <p class="hint" data-testid="history-empty">{text}</p> })}
                <ul class="kept-list" data-testid="history-list">
                    <For
                        each=heads
                        key=|h| (h.id.clone(), h.title().to_owned(), h.changed.to_bits())
                        children=|head| view! { <Entry head /> }
                    />
                </ul>
                <Footer is_empty />
            </div>
        </dialog>
    }
}

/// Why nothing is kept, in a line above the conversation.
#[component]
pub fn NotKept() -> impl IntoView {
    let keep = app_state().keep;
    let trouble = Memo::new(move |_| keep.shelf.with(|s| s.trouble.map(words::trouble)));
    move || {
        trouble.get().map(|text| {
            view! {
                <p class="note" data-testid="not-kept">
                    {icon(Icon::About)}
                    <span>{text}</span>
                </p>
            }
        })
    }
}

/// Why nothing is kept, and what cannot be read.
#[component]
fn Trouble() -> impl IntoView {
    let keep = app_state().keep;
    let trouble = Memo::new(move |_| keep.shelf.with(|s| s.trouble.map(words::trouble)));
    let skipped = Memo::new(move |_| keep.shelf.with(|s| words::skipped(s.skipped)));
    view! {
        {move || trouble.get().map(|text| view! { <p class="hint" data-testid="history-trouble">{text}</p> })}
        {move || skipped.get().map(|text| view! { <p class="hint" data-testid="history-skipped">{text}</p> })}
    }
}

#[component]
fn Entry(head: Head) -> impl IntoView {
    let app = app_state();
    let keep = app.keep;
    let is_renaming = RwSignal::new(false);
    let input = NodeRef::<html::Input>::new();
    let title = head.title().to_owned();
    let changed = head.changed;
    let id = StoredValue::new(head.id.clone());
    let shown = StoredValue::new(title);
    let is_current = move || {
        keep.id
            .with(|now| id.with_value(|id| now.as_ref() == Some(id)))
    };
    let rename = move |event: SubmitEvent| {
        event.prevent_default();
        let title = input.get_untracked().map(|input| input.value());
        app.rename_kept(id.get_value(), title.unwrap_or_default());
        is_renaming.set(false);
    };
    Effect::new(move |_| {
        if let Some(input) = input.get() {
            // An element that cannot take the focus leaves it where it is.
            let _ = input.focus();
            input.select();
        }
    });
    let name = head.name.clone();
    view! {
        <li class="kept" data-testid="history-entry">
            <Show
                when=move || is_renaming.get()
                fallback=move || view! {
                    <button
                        type="button"
                        class="kept-open"
                        aria-current=move || is_current().to_string()
                        data-testid="history-open"
                        on:click=move |_| {
                            keep.is_open.set(false);
                            app.open_kept(id.get_value());
                        }
                    >
                        <Thumbnail id=id.get_value() />
                        <span class="kept-words">
                            <span class="kept-title">{shown.get_value()}</span>
                            <small>{move || moment(changed)} " " {name.clone()}</small>
                        </span>
                    </button>
                    <button
                        type="button"
                        class="quiet"
                        aria-label=move || words::on_chat(words::RENAME(), &shown.get_value())
                        data-testid="history-rename"
                        on:click=move |_| is_renaming.set(true)
                    >
                        {words::RENAME}
                    </button>
                    <button
                        type="button"
                        class="quiet"
                        aria-label=move || words::on_chat(words::DELETE(), &shown.get_value())
                        data-testid="history-delete"
                        on:click=move |_| app.delete_kept(id.get_value())
                    >
                        {words::DELETE}
                    </button>
                }
            >
                <form class="kept-rename" on:submit=rename>
                    <input
                        type="text"
                        node_ref=input
                        aria-label=words::RENAME
                        maxlength="200"
                        data-testid="history-title"
                        value=shown.get_value()
                        on:keydown=move |event| {
                            if event.key() == "Escape" {
                                event.prevent_default();
                                event.stop_propagation();
                                is_renaming.set(false);
                            }
                        }
                    />
                    <button type="submit" class="quiet">{words::SAVE}</button>
                </form>
            </Show>
        </li>
    }
}

/// The switches, and the button that deletes everything.
#[component]
fn Footer(is_empty: Memo<bool>) -> impl IntoView {
    let app = app_state();
    let keep = app.keep;
    let is_asking = RwSignal::new(false);
    let count = move || keep.shelf.with(|shelf| shelf.all().len() + shelf.skipped);
    view! {
        <footer>
            <label class="accept">
                <input
                    type="checkbox"
                    data-testid="no-history"
                    prop:checked=move || keep.settings.with(|s| !s.keep_history)
                    on:change=move |event| app.set_keep_history(!event_target_checked(&event))
                />
                {words::NO_KEEPING}
            </label>
            <Show when=move || keep.id.with(Option::is_some)>
                <label class="accept">
                    <input
                        type="checkbox"
                        data-testid="temporary"
                        prop:checked=move || keep.is_temporary.get()
                        on:change=move |event| app.set_temporary(event_target_checked(&event))
                    />
                    {words::TEMPORARY}
                </label>
            </Show>
            <Show
                when=move || is_asking.get()
                fallback=move || view! {
                    <button
                        type="button"
                        class="quiet"
                        data-testid="delete-all"
                        disabled=move || is_empty.get() && count() == 0
                        on:click=move |_| is_asking.set(true)
                    >
                        {words::DELETE_ALL}
                    </button>
                }
            >
                <p class="doubt">{move || words::delete_all(count())}</p>
                <div class="model-actions">
                    <button
                        type="button"
                        class="button small"
                        data-testid="delete-all-yes"
                        on:click=move |_| {
                            is_asking.set(false);
                            app.delete_everything();
                        }
                    >
                        {words::DELETE_ALL}
                    </button>
                    <button type="button" class="quiet" on:click=move |_| is_asking.set(false)>
                        {words::BACK}
                    </button>
                </div>
            </Show>
        </footer>
    }
}
