//! The layout, and input from outside the views: dropped and pasted files, and global keys.

use chatrex::chat::conversation::Input;
use chatrex::chat::kept_strings;
use chatrex::chat::overlay::Overlay;
use chatrex::chat::page_strings;
use chatrex::chat::side::Tab;
use leptos::ev;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use super::about::About;
use super::ask::is_composing;
use super::batch_panel::{BatchButton, BatchDialog, BatchLine};
use super::camera::{Camera, CameraOpen, has_camera};
use super::drawer::{Drawer, HistoryButton};
use super::export::ExchangeState;
use super::icons::{Icon, IconButton, icon};
use super::incoming::{self, is_text_box};
use super::keys::{KeyList, Keys, KeysButton};
use super::settings::SettingsPanel;
use super::side::{SideColumn, SideState};
use super::stage::{StageColumn, StageSize};
use super::start::{FileInput, OpenPicture};
use super::state::{AppState, app_state};
use super::status::ModelState;
use super::toast::{Install, NewVersion, ToastView};
use crate::early::Early;
use crate::embed;

/// The whole page.
#[component]
pub fn App(
    /// What the user did before the page was there.
    early: Early,
) -> impl IntoView {
    let app = AppState::new();
    provide_context(app);
    let exchange = ExchangeState::new();
    provide_context(exchange);
    app.draft.set(early.words);
    if early.has_focus {
        // The text box can take the focus once it is shown.
        request_animation_frame(move || app.focus_draft.update(|count| *count += 1));
    }
    app.begin();
    super::embed::start(app);
    let over = RwSignal::new(false);
    provide_context(FileInput(NodeRef::new()));
    provide_context(CameraOpen(RwSignal::new(false)));
    let side = SideState::new(app);
    provide_context(side);
    provide_context(StageSize::new(app));
    let keys = KeyList::new();
    provide_context(keys);
    if embed::options().readonly {
        incoming::refuse_drops();
    } else {
        incoming::listen(app, exchange, over);
        incoming::open_dropped(app, exchange, early.dropped);
    }
    listen_for_keys(app);
    if !embed::options().is_embedded {
        listen_for_history_keys(app);
    }
    keys.listen();
    let vacant = Memo::new(move |_| {
        let is_decided = app.keep.is_decided.get() && !app.opening.get();
        is_decided && app.picture.with(Option::is_none)
    });

    view! {
        <a class="skip" href="#picture">{page_strings::TO_PICTURE}</a>
        <a class="skip" href="#question" on:click=move |_| side.choose(Tab::Chat)>{page_strings::TO_QUESTION}</a>
        <Header />
        <NewVersion />
        <BatchLine />
        <main class="desk" class:vacant=vacant>
            <StageColumn vacant />
            <SideColumn />
        </main>
        <div class="veil" class:over=move || over.get() aria-hidden="true">
            <p>{kept_strings::DROP_TO_OPEN}</p>
        </div>
        <Drawer />
        <Camera />
        <BatchDialog />
        <Keys />
        <ToastView />
    }
}

#[component]
fn Header() -> impl IntoView {
    let app = app_state();
    let CameraOpen(camera) = expect_context();
    view! {
        <header class="bar">
            <HistoryButton />
            <h1>
                <svg class="mark" viewBox="0 0 24 24" aria-hidden="true">
                    <rect x="3" y="3" width="12" height="12" rx="2.5" />
                    <rect x="9" y="9" width="12" height="12" rx="2.5" />
                </svg>
                "ChatRex"
            </h1>
            <div class="bar-actions">
                <button
                    type="button"
                    class="button"
                    title=move || format!("{} (Ctrl+Shift+O)", kept_strings::NEW())
                    data-testid="new"
                    on:click=move |_| app.close_picture()
                >
                    {icon(Icon::New)}
                    <span class="button-words">{kept_strings::NEW}</span>
                </button>
                <OpenPicture />
                <BatchButton />
                {has_camera().then(|| view! {
                    <IconButton
                        id="open-camera"
                        name=kept_strings::CAMERA
                        class="icon-button camera-button"
                        press=move || camera.set(true)
                        shape=Icon::Camera
                    />
                })}
            </div>
            <div class="bar-state">
                <ModelState />
                <Install />
                <KeysButton />
                <SettingsPanel />
                <About />
            </div>
        </header>
    }
}

/// Keys of pictures and history: Ctrl+Shift+O begins anew, Ctrl with a comma opens the settings, Ctrl with
/// left or right changes the picture outside of text boxes.
fn listen_for_history_keys(app: AppState) {
    window_event_listener(ev::keydown, move |event| {
        let is_command = (event.ctrl_key() || event.meta_key()) && !event.alt_key();
        if event.default_prevented() || !is_command {
            return;
        }
        if event.shift_key() && event.code() == "KeyO" {
            event.prevent_default();
            app.close_picture();
            return;
        }
        if event.key() == "," {
            if let Some(settings) = document().get_element_by_id("settings") {
                event.prevent_default();
                let settings: HtmlElement = settings.unchecked_into();
                // A browser without popovers has the button. What is hidden takes no focus.
                let _ = settings.toggle_popover();
                let _ = settings.focus();
            }
            return;
        }
        let step = match event.key().as_str() {
            "ArrowRight" => 1,
            "ArrowLeft" => -1,
            _ => return,
        };
        let in_text_box = event.target().is_some_and(|t| is_text_box(&t));
        if !in_text_box && !event.shift_key() && app.step_picture(step) {
            event.prevent_default();
        }
    });
}

/// Keys that work with any focus: Escape clears selection and highlights, with Shift it leads to the text
/// box, Alt+R asks the last question again.
fn listen_for_keys(app: AppState) {
    window_event_listener(ev::keydown, move |event| {
        if event.default_prevented() || is_composing(&event) {
            return;
        }
        if event.key() == "Escape" && event.shift_key() {
            event.prevent_default();
            app.focus_draft.update(|count| *count += 1);
        } else if event.key() == "Escape" {
            app.overlay.maybe_update(Overlay::escape);
        } else if event.alt_key()
            && event.code() == "KeyR"
            && !app.busy.get_untracked()
            && let Some(turn) = untrack(|| app.latest_turn())
        {
            event.prevent_default();
            app.act(Input::Retry(turn.id));
        }
    });
}
