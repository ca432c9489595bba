//! A still from the camera.

use chatrex::chat::kept_strings as words;
use chatrex::chat::words::Word;
use js_sys::{Array, Reflect};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{DomException, MediaStream, MediaStreamConstraints, MediaStreamTrack};

use super::state::app_state;
use crate::decode;

/// The name of a still.
const NAME: &str = "camera.jpg";

/// Whether the dialog is open.
#[derive(Clone, Copy)]
pub struct CameraOpen(pub RwSignal<bool>);

/// Whether the browser offers cameras to this page.
pub fn has_camera() -> bool {
    let devices = Reflect::get(&window().navigator(), &"mediaDevices".into());
    devices.is_ok_and(|devices| devices.is_truthy())
}

/// The dialog: a live picture and a shutter. The camera runs only while it is open.
#[component]
pub fn Camera() -> impl IntoView {
    let app = app_state();
    let CameraOpen(is_open) = expect_context();
    let dialog = NodeRef::<html::Dialog>::new();
    let video = NodeRef::<html::Video>::new();
    let stream = StoredValue::new_local(None::<MediaStream>);
    let trouble = RwSignal::new(None::<Word>);
    let is_live = RwSignal::new(false);
    let stop = move || {
        if let Some(stream) = stream.try_update_value(Option::take).flatten() {
            end(&stream);
        }
        is_live.set(false);
    };
    Effect::new(move |_| {
        let Some(dialog) = dialog.get() else {
            return;
        };
        if !is_open.get() {
            stop();
            dialog.close();
            return;
        }
        trouble.set(None);
        // Fails only if it is open already.
        let _ = dialog.show_modal();
        spawn_local(async move {
            match begin().await {
                // Closed while the browser asked.
                Ok(live) if !is_open.get_untracked() => end(&live),
                Ok(live) => {
                    if let Some(video) = video.get_untracked() {
                        video.set_src_object(Some(&live));
                        // A browser that does not start it shows its first frame.
                        let _ = video.play();
                    }
                    stream.set_value(Some(live));
                }
                Err(sentence) => trouble.set(Some(sentence)),
            }
        });
    });
    window_event_listener(ev::pagehide, move |_| stop());
    let take = move |_| {
        let Some(video) = video.get_untracked() else {
            return;
        };
        spawn_local(async move {
            let still = decode::still(&video).await;
            is_open.set(false);
            match still {
                Ok(still) => app.open_file(still, NAME.to_owned()),
                Err(fault) => app.notice.set(Some(fault)),
            }
        });
    };
    let text = move || match (trouble.get(), is_live.get()) {
        (Some(sentence), _) => Some(sentence),
        (None, false) => Some(words::CAMERA_WAITS),
        (None, true) => None,
    };
    view! {
        <dialog
            class="manager camera"
            node_ref=dialog
            aria-labelledby="camera-title"
            data-testid="camera"
            on:close=move |_| is_open.set(false)
        >
            <header role="none">
                <h2 id="camera-title">{words::CAMERA}</h2>
                <button type="button" class="quiet" data-testid="camera-close" on:click=move |_| is_open.set(false)>
                    {words::CLOSE}
                </button>
            </header>
            <p class="hint" role="status" data-testid="camera-state">{text}</p>
            <video
                node_ref=video
                muted
                playsinline
                class:live=move || is_live.get()
                on:playing=move |_| is_live.set(true)
            ></video>
            <button
                type="button"
                class="button primary"
                data-testid="shutter"
                disabled=move || !is_live.get()
                on:click=take
            >
                {words::SHUTTER}
            </button>
        </dialog>
    }
}

/// Asks for the camera; a refusal is a sentence.
async fn begin() -> Result<MediaStream, Word> {
    let constraints = MediaStreamConstraints::new();
    constraints.set_video(&JsValue::TRUE);
    let absent = |_| words::CAMERA_ABSENT;
    let devices = window().navigator().media_devices().map_err(absent)?;
    let asked = devices.get_user_media_with_constraints(&constraints);
    match JsFuture::from(asked.map_err(absent)?).await {
        Ok(stream) => Ok(stream.unchecked_into()),
        Err(error) => Err(match error.dyn_ref::<DomException>().map(|e| e.name()) {
            Some(name) if name == "NotAllowedError" || name == "SecurityError" => {
                words::CAMERA_DENIED
            }
            _ => words::CAMERA_ABSENT,
        }),
    }
}

fn end(stream: &MediaStream) {
    let tracks: Array = stream.get_tracks();
    for track in tracks.iter() {
        track.unchecked_into::<MediaStreamTrack>().stop();
    }
}
