//! The page without a picture, and the ways to a picture: files, camera, address.

use chatrex::chat::{batch_strings, kept_strings as words};
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::{ev, ev::SubmitEvent};
use web_sys::HtmlInputElement;

use super::camera::{CameraOpen, has_camera};
use super::icons::{Icon, icon};
use super::incoming::{can_reach_other_hosts, open_all, open_from};
use super::models::all_files;
use super::state::app_state;

/// The input for files, which buttons elsewhere open.
#[derive(Clone, Copy)]
pub struct FileInput(pub NodeRef<html::Input>);

impl FileInput {
    /// Opens the browser's dialog.
    pub fn open(self) {
        if let Some(input) = self.0.get_untracked() {
            input.click();
        }
    }
}

/// The button that chooses files.
#[component]
pub fn OpenPicture() -> impl IntoView {
    let app = app_state();
    let FileInput(input) = expect_context();
    let exchange = expect_context();
    let open_chosen = move |event: ev::Event| {
        let input: HtmlInputElement = event_target(&event);
        open_all(
            app,
            exchange,
            input.files().map(all_files).unwrap_or_default(),
        );
        // So that the same file can be chosen again.
        input.set_value("");
    };
    view! {
        <label class="button" title=words::OPEN_PICTURE>
            <input
                type="file"
                accept="image/*"
                multiple
                class="hidden-input"
                node_ref=input
                data-testid="file-input"
                on:change=open_chosen
            />
            {icon(Icon::Picture)}
            <span class="button-words">{words::OPEN_PICTURE}</span>
        </label>
    }
}

/// What stands in place of the picture: a sentence and the ways to open one. The sample cards follow.
#[component]
pub fn Start() -> impl IntoView {
    let app = app_state();
    let file: FileInput = expect_context();
    let camera: CameraOpen = expect_context();
    let samples = Memo::new(move |_| app.samples());
    let is_single = move || samples.with(|samples| samples.len() == 1);
    view! {
        <div class="start" data-testid="start">
            <h2>{words::HERO}</h2>
            <div class="dropzone">
                <p>
                    {words::DROP_HERE}
                    <button type="button" class="link" data-testid="choose-file" on:click=move |_| file.open()>
                        {words::CHOOSE_FILE}
                    </button>
                    {has_camera().then(|| view! {
                        {words::OR_USE}
                        <button type="button" class="link" data-testid="start-camera" on:click=move |_| camera.0.set(true)>
                            {words::CAMERA_LINK}
                        </button>
                    })}
                    "."
                </p>
                <p>
                    <button
                        type="button"
                        class="link"
                        aria-haspopup="dialog"
                        data-testid="start-batch"
                        on:click=move |_| app.batching.open()
                    >
                        {batch_strings::MANY}
                    </button>
                </p>
                <Address />
            </div>
            <Show
                when=is_single
                fallback=move || view! { <h3>{words::OR_SAMPLE}</h3> }
            >
                <button type="button" class="button" data-testid="sample" on:click=move |_| {
                    if let Some(&sample) = samples.get_untracked().first() {
                        app.open_sample(sample);
                    }
                }>
                    {words::OR_SAMPLE}
                </button>
            </Show>
        </div>
    }
}

/// The field for an address, only where the page may fetch from other hosts.
#[component]
fn Address() -> impl IntoView {
    let app = app_state();
    let is_allowed = RwSignal::new(false);
    let input = NodeRef::<html::Input>::new();
    spawn_local(async move { is_allowed.set(can_reach_other_hosts().await) });
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let address = input.get_untracked().map(|input| input.value());
        let address = address.unwrap_or_default().trim().to_owned();
        if !address.is_empty() {
            spawn_local(async move { open_from(app, &address).await });
        }
    };
    view! {
        <Show when=move || is_allowed.get()>
            <form class="address" data-testid="picture-address" on:submit=submit>
                <input type="url" node_ref=input aria-label=words::ADDRESS placeholder=words::ADDRESS />
                <button type="submit" class="button">{words::OPEN}</button>
            </form>
        </Show>
    }
}

/// The pictures that were opened together.
#[component]
pub fn Strip() -> impl IntoView {
    let app = app_state();
    let keep = app.keep;
    let group = Memo::new(move |_| {
        let id = keep.id.get();
        let id = id.as_deref().unwrap_or_default();
        keep.shelf.with(|shelf| {
            let group = shelf.group(id).into_iter();
            let named = group.map(|h| (h.id.clone(), h.title().to_owned()));
            named.collect::<Vec<_>>()
        })
    });
    let items = move || {
        let group = group.get();
        let count = group.len();
        group
            .into_iter()
            .enumerate()
            .map(|(place, (id, title))| {
                let name = words::strip_name(place, count, &title);
                let (key, now) = (id.clone(), id.clone());
                view! {
                    <li>
                        <button
                            type="button"
                            class="thumb"
                            aria-label=name.clone()
                            title=name
                            aria-current=move || (keep.id.get().as_ref() == Some(&now)).to_string()
                            data-testid="strip-picture"
                            on:click=move |_| app.open_kept(key.clone())
                        >
                            <Thumbnail id />
                        </button>
                    </li>
                }
            })
            .collect_view()
    };
    view! {
        <Show when=move || group.with(|group| !group.is_empty())>
            <ul class="strip" aria-label=words::STRIP data-testid="strip">{items}</ul>
        </Show>
    }
}

/// The small picture of a conversation.
#[component]
pub fn Thumbnail(id: String) -> impl IntoView {
    let keep = app_state().keep;
    let address = move || {
        keep.thumbnails
            .with(|all| Some(all.get(&id)?.as_str().to_owned()))
    };
    move || match address() {
        Some(address) => view! { <img src=address alt="" loading="lazy" /> }.into_any(),
        None => view! { <i class="no-thumb" aria-hidden="true"></i> }.into_any(),
    }
}
