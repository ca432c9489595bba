//! The layout, and input from outside the views: dropped and pasted files, and global keys.

use chatrex::chat::conversation::Input;
use chatrex::chat::kept_strings;
use chatrex::chat::overlay::Overlay;
use chatrex::chat::page_strings;
use leptos::ev;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use super::about::About;
use super::ask::{Ask, is_composing};
use super::camera::{Camera, CameraOpen, has_camera};
use super::canvas::Canvas;
use super::controls::Controls;
use super::conversation::Transcript;
use super::drawer::{Drawer, HistoryButton, NotKept};
use super::export::{ExchangeState, ExportButtons};
use super::gallery::Gallery;
use super::incoming::{self, is_text_box};
use super::naming::NameAll;
use super::objects::{BoxNumbers, Objects};
use super::settings::SettingsPanel;
use super::start::{FileInput, OpenPicture, Start, Strip};
use super::state::{AppState, app_state};
use super::status::{DeviceNote, Knows, ModelState, ProblemMessage, Status};
use super::toast::{Install, NewVersion, ToastView};

/// The whole page.
#[component]
pub fn App() -> impl IntoView {
    let app = AppState::new();
    provide_context(app);
    let exchange = ExchangeState::new();
    provide_context(exchange);
    app.begin();
    let over = RwSignal::new(false);
    provide_context(FileInput(NodeRef::new()));
    provide_context(CameraOpen(RwSignal::new(false)));
    incoming::listen(app, exchange, over);
    listen_for_keys(app);
    listen_for_history_keys(app);
    let wide = window()
        .inner_width()
        .ok()
        .and_then(|w| w.as_f64())
        .is_none_or(|w| w >= 1024.0);
    let vacant = Memo::new(move |_| {
        let is_decided = app.keep.is_decided.get() && !app.opening.get();
        is_decided && app.picture.with(Option::is_none)
    });
    let count = move || app.candidates.with(|c| c.boxes.len());

    view! {
        <a class="skip" href="#picture">{page_strings::TO_PICTURE}</a>
        <a class="skip" href="#question">{page_strings::TO_QUESTION}</a>
        <Header />
        <NewVersion />
        <main class="desk" class:vacant=vacant>
            <section class="left" aria-label=page_strings::PICTURE>
                <Show when=move || vacant.get()>
                    <Start />
                </Show>
                <Canvas />
                <Strip />
                <div class="under-picture">
                    <Status />
                    <ExportButtons />
                    <button
                        type="button"
                        class="quiet"
                        data-testid="remove-picture"
                        on:click=move |_| app.close_picture()
                    >
                        {kept_strings::REMOVE}
                    </button>
                    <NotKept />
                </div>
                <Gallery />
                <details class="panel" open=wide>
                    <summary>
                        <h2>{page_strings::OBJECTS}</h2>
                        <span class="count" data-testid="box-count">{count}</span>
                    </summary>
                    <div class="panel-parts">
                        <div class="panel-part">
                            <Controls />
                            <NameAll />
                            <BoxNumbers />
                        </div>
                        <Objects />
                    </div>
                </details>
            </section>
            <section class="right" aria-label=page_strings::CONVERSATION>
                <Knows />
                <ProblemMessage />
                <DeviceNote />
                <Transcript />
                <Ask />
            </section>
        </main>
        <div class="veil" class:over=move || over.get() aria-hidden="true">
            <p>{kept_strings::DROP_TO_OPEN}</p>
        </div>
        <Drawer />
        <Camera />
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
            <p class="tagline">{kept_strings::HERO}</p>
            <div class="bar-actions">
                <button
                    type="button"
                    class="button"
                    title="Ctrl+Shift+O"
                    data-testid="new"
                    on:click=move |_| app.close_picture()
                >
                    {kept_strings::NEW}
                </button>
                <OpenPicture />
                {has_camera().then(|| view! {
                    <button
                        type="button"
                        class="button camera-button"
                        aria-label=kept_strings::CAMERA
                        title=kept_strings::CAMERA
                        data-testid="open-camera"
                        on:click=move |_| camera.set(true)
                    >
                        <svg viewBox="0 0 24 24" aria-hidden="true">
                            <path d="M4 8h3l2-3h6l2 3h3v11H4z" />
                            <circle cx="12" cy="13" r="3.5" />
                        </svg>
                    </button>
                })}
            </div>
            <div class="bar-state">
                <ModelState />
                <Show when=move || app.offline.get()>
                    <span
                        class="badge"
                        data-testid="offline-badge"
                        title=page_strings::OFFLINE_NOTE
                    >
                        {page_strings::OFFLINE}
                    </span>
                </Show>
                <Install />
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
                // A browser without popovers has the button.
                let _ = settings.unchecked_into::<HtmlElement>().toggle_popover();
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

/// Keys that work with any focus: Escape clears selection and highlights, Alt+R asks the last question
/// again.
fn listen_for_keys(app: AppState) {
    window_event_listener(ev::keydown, move |event| {
        if event.default_prevented() || is_composing(&event) {
            return;
        }
        if event.key() == "Escape" {
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
