//! Shares a link with the question and the settings, and the conversation as a file where the system can.

use chatrex::chat::model_manager::Choice;
use chatrex::chat::network_strings as words;
use chatrex::chat::share::Shared;
use js_sys::{Array, Function, Object, Promise, Reflect};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, File};

use super::copy_menu::CopyButton;
use super::state::{AppState, app_state};
use crate::{decode, embed};

/// The link to the page as it is now.
fn link(app: AppState) -> String {
    let draft = untrack(|| app.written());
    // Without a draft the last question is shared.
    let last =
        untrack(|| app.latest_turn()).map(|turn| turn.turn.with_untracked(|t| t.draft.clone()));
    let draft = Some(draft)
        .filter(|d| !d.words.trim().is_empty())
        .or(last)
        .unwrap_or_default();
    let settings = app.keep.settings.get_untracked();
    let shared = Shared {
        kind: draft.kind,
        prompt: draft.words,
        granularity: Some(app.granularity.get_untracked()),
        filter: app
            .with_conversation(|c| c.moved_filter())
            .or(settings.filter),
        sampling: Some(app.sampling.get_untracked()),
    };
    let model = app.models.with_untracked(|models| match models.choice() {
        Choice::BuiltIn(model) => Some(model.name()),
        Choice::Stored(_) | Choice::Unsaved { .. } => None,
    });
    shared.link(&embed::address(), model)
}

/// Whether the browser can hand files to the system at all.
fn has_share() -> bool {
    Reflect::has(&window().navigator(), &"canShare".into()).unwrap_or(false)
}

/// Whether the system takes this file.
fn can_share(file: &File) -> bool {
    let navigator = window().navigator();
    let can = Reflect::get(&navigator, &"canShare".into()).ok();
    let can = can.and_then(|can| can.dyn_into::<Function>().ok());
    can.is_some_and(|can| {
        can.call1(&navigator, &files(file))
            .is_ok_and(|can| can.is_truthy())
    })
}

fn files(file: &File) -> Object {
    let data = Object::new();
    // A plain object takes any field.
    let _ = Reflect::set(&data, &"files".into(), &Array::of1(file));
    let _ = Reflect::set(&data, &"title".into(), &file.name().into());
    data
}

/// Hands a file to the system's dialog; the user may close that without sharing.
async fn share(file: &File) {
    let navigator = window().navigator();
    let share = Reflect::get(&navigator, &"share".into()).ok();
    let share = share.and_then(|share| share.dyn_into::<Function>().ok());
    if let Some(share) = share
        && let Ok(shared) = share.call1(&navigator, &files(file))
    {
        // The browser rejects a share that the user cancels.
        let _ = JsFuture::from(Promise::resolve(&shared)).await;
    }
}

/// The link and the file. `make` makes the conversation file and its name.
#[component]
pub fn ShareButtons<F>(
    /// Makes the file.
    make: F,
) -> impl IntoView
where
    F: Fn() -> std::pin::Pin<Box<dyn Future<Output = Option<(Blob, String)>>>> + Copy + 'static,
{
    let app = app_state();
    let copied = RwSignal::new(None::<bool>);
    // The dialog of the system opens soon after a press only, so the file is made before.
    let file = RwSignal::new_local(None::<File>);
    Effect::new(move |_| {
        app.picture.track();
        app.turns.track();
        file.set(None);
        if app.busy.get() || !has_share() {
            return;
        }
        spawn_local(async move {
            let made = make().await;
            let made = made.and_then(|(blob, name)| decode::named(&blob, &name));
            file.try_set(made.filter(can_share));
        });
    });
    let send = move |_| {
        if let Some(file) = file.get_untracked() {
            spawn_local(async move { share(&file).await });
        }
    };
    view! {
        <section class="share" aria-labelledby="share-title">
            <h3 id="share-title">{words::SHARE}</h3>
            <p class="hint">{words::LINK_NOTE}</p>
            <CopyButton
                test_id="share-link"
                class="button"
                label=words::COPY_LINK
                copied
                text=move || link(app)
            />
            <Show when=move || file.with(Option::is_some)>
                <p class="hint">{words::FILE_NOTE}</p>
                <button type="button" class="button" data-testid="share-file" on:click=send>
                    {words::SHARE_FILE}
                </button>
            </Show>
        </section>
    }
}

/// Takes over the settings and the question of the link that opened the page.
pub fn take_link(app: AppState) -> Option<Shared> {
    let shared = Shared::read(&embed::address())?;
    app.take_settings(&shared);
    clear_address(|address| address.split('#').next().unwrap_or_default().to_owned());
    Some(shared)
}

/// Changes the address of the page without loading it again.
pub fn clear_address(change: impl FnOnce(&str) -> String) {
    if let Ok(history) = window().history() {
        // Where it is refused, a reload takes the link again.
        let _ =
            history.replace_state_with_url(&JsValue::NULL, "", Some(&change(&embed::address())));
    }
}
