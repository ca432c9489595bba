//! The layout, and input from outside the views: dropped and pasted files, and global keys.

use chatrex::chat::conversation::Input;
use chatrex::chat::exchange::import;
use chatrex::chat::overlay::Overlay;
use leptos::ev;
use leptos::prelude::*;
use web_sys::{DragEvent, File, HtmlInputElement};

use super::about::About;
use super::ask::{Ask, is_composing};
use super::canvas::Canvas;
use super::controls::Controls;
use super::conversation::Transcript;
use super::export::{ExchangeState, ExportButtons};
use super::gallery::Gallery;
use super::models::{all_files, preview_files, show_manager};
use super::naming::NameAll;
use super::objects::{BoxNumbers, Objects};
use super::state::{AppState, app_state};
use super::status::{DeviceNote, Knows, ModelState, ProblemMessage, Status};

/// The whole page.
#[component]
pub fn App() -> impl IntoView {
    let app = AppState::new();
    provide_context(app);
    let exchange = ExchangeState::new();
    provide_context(exchange);
    app.begin();
    let over = RwSignal::new(false);
    listen_for_drops(app, exchange, over);
    listen_for_pastes(app);
    listen_for_keys(app);
    let wide = window()
        .inner_width()
        .ok()
        .and_then(|w| w.as_f64())
        .is_none_or(|w| w >= 1024.0);
    let count = move || app.candidates.with(|c| c.boxes.len());

    view! {
        <a class="skip" href="#picture">"To the picture"</a>
        <a class="skip" href="#question">"To the question"</a>
        <Header />
        <main class="desk">
            <section class="left" aria-label="Picture">
                <Canvas />
                <div class="status-row">
                    <Status />
                    <ExportButtons />
                </div>
                <Gallery />
                <details class="panel" open=wide>
                    <summary>
                        <h2>"Objects"</h2>
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
            <section class="right" aria-label="Conversation">
                <Knows />
                <ProblemMessage />
                <DeviceNote />
                <Transcript />
                <Ask />
            </section>
        </main>
        <div class="veil" class:over=move || over.get() aria-hidden="true">
            <p>"Drop to open"</p>
        </div>
    }
}

#[component]
fn Header() -> impl IntoView {
    let app = app_state();
    let open_chosen = move |event: ev::Event| {
        let input: HtmlInputElement = event_target(&event);
        if let Some(file) = input.files().and_then(|files| files.get(0)) {
            app.open_file(file.into());
        }
        input.set_value("");
    };
    view! {
        <header class="bar">
            <h1>
                <svg class="mark" viewBox="0 0 24 24" aria-hidden="true">
                    <rect x="3" y="3" width="12" height="12" rx="2.5" />
                    <rect x="9" y="9" width="12" height="12" rx="2.5" />
                </svg>
                "ChatRex"
            </h1>
            <p class="tagline">"Ask about a picture. Nothing leaves this page."</p>
            <div class="bar-actions">
                <label class="button primary">
                    <input
                        type="file"
                        accept="image/*"
                        class="hidden-input"
                        data-testid="file-input"
                        on:change=open_chosen
                    />
                    "Open picture"
                </label>
                <button
                    type="button"
                    class="button"
                    data-testid="sample"
                    on:click=move |_| app.open_first_sample()
                >
                    "Sample"
                </button>
                <Show when=move || app.can_reopen.get()>
                    <button
                        type="button"
                        class="button"
                        data-testid="reopen"
                        on:click=move |_| app.reopen()
                    >
                        "Undo"
                    </button>
                </Show>
            </div>
            <div class="bar-state">
                <ModelState />
                <Show when=move || app.offline.get()>
                    <span
                        class="badge"
                        data-testid="offline-badge"
                        title="Everything needed is stored on this device"
                    >
                        "Works offline"
                    </span>
                </Show>
                <About />
            </div>
        </header>
    }
}

/// Opens a picture, imports files or previews a model that is dropped anywhere; `over` is true while files are
/// dragged over the page.
fn listen_for_drops(app: AppState, exchange: ExchangeState, over: RwSignal<bool>) {
    let has_files = |event: &DragEvent| {
        let kinds = event.data_transfer().map(|d| d.types());
        kinds.is_some_and(|kinds| kinds.includes(&"Files".into(), 0))
    };
    window_event_listener(ev::dragover, move |event| {
        if has_files(&event) {
            event.prevent_default();
            over.set(true);
        }
    });
    window_event_listener(ev::dragleave, move |event| {
        if event.related_target().is_none() {
            over.set(false);
        }
    });
    window_event_listener(ev::drop, move |event| {
        over.set(false);
        if has_files(&event) {
            event.prevent_default();
            let files = event.data_transfer().and_then(|d| d.files());
            let files = files.map(all_files).unwrap_or_default();
            if files.iter().any(|file| file.name() == "model.json") {
                show_manager(app);
                preview_files(app, &files);
            } else if files.iter().any(|file| import::is_wanted(&file.name())) {
                exchange.import(app, files);
            } else if let Some(file) = first_picture(files) {
                app.open_file(file.into());
            }
        }
    });
}

/// Opens a pasted picture; pasted text keeps its default action.
fn listen_for_pastes(app: AppState) {
    window_event_listener(ev::paste, move |event| {
        let files = event.clipboard_data().and_then(|d| d.files());
        let file = files.map(all_files).and_then(first_picture);
        if let Some(file) = file.filter(|file| file.type_().starts_with("image/")) {
            event.prevent_default();
            app.open_file(file.into());
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

/// The first picture among the files, else the first file.
fn first_picture(files: Vec<File>) -> Option<File> {
    let picture = files.iter().position(|f| f.type_().starts_with("image/"));
    files.into_iter().nth(picture.unwrap_or(0))
}
