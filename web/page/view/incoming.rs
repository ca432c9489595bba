//! Pictures from outside: dropped files, folders and pictures of other pages, pasted ones, those that the
//! system opens with the page.

use chatrex::chat::exchange::import;
use chatrex::chat::incoming::{Dragged, first_address, paste_opens, reaches_other_hosts};
use chatrex::chat::kept_strings as words;
use chatrex::chat::network_strings;
use js_sys::{Array, Function, Promise, Reflect};
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Blob, DataTransfer, DragEvent, EventTarget, File, FileSystemDirectoryEntry, FileSystemEntry,
    FileSystemFileEntry, HtmlElement, Response,
};

use super::export::ExchangeState;
use super::making::{are_checkpoint, preview_files};
use super::models::{all_files, show_manager};
use super::share::clear_address;
use super::state::AppState;
use crate::early::Dropped;
use crate::{decode, embed, shared};

/// A model's manifest: files beside it are a model, not pictures.
const MANIFEST: &str = "model.json";

/// Listens for drops and pastes; `over` is true while something is dragged over the page.
pub fn listen(app: AppState, exchange: ExchangeState, over: RwSignal<bool>) {
    listen_for_drops(app, exchange, over);
    listen_for_pastes(app);
    listen_for_launches(app, exchange);
    take_shared(app, exchange);
}

/// Nothing that is dropped is opened, by the browser neither.
pub fn refuse_drops() {
    window_event_listener(ev::dragover, |event| event.prevent_default());
    window_event_listener(ev::drop, |event| event.prevent_default());
}

/// Opens the pictures that the system shared with the page.
fn take_shared(app: AppState, exchange: ExchangeState) {
    let address = embed::address();
    let (before, query) = address.split_once('?').unwrap_or((&address, ""));
    if !query.starts_with("shared=") {
        return;
    }
    let before = before.to_owned();
    clear_address(|_| before);
    spawn_local(async move {
        let files = shared::take().await;
        match files.is_empty() {
            true => refuse(app, network_strings::NOTHING_SHARED()),
            false => open_all(app, exchange, files),
        }
    });
}

/// Opens files of the user: a model in the manager, else the pictures among them.
pub fn open_all(app: AppState, exchange: ExchangeState, files: Vec<File>) {
    if files.iter().any(|file| file.name() == MANIFEST) || are_checkpoint(&files) {
        show_manager(app);
        preview_files(app, &files);
        return;
    }
    let is_picture = |file: &&File| decode::is_picture(file);
    let pictures: Vec<_> = files.iter().filter(is_picture).cloned().collect();
    let has_imports = files.iter().any(|file| import::is_wanted(&file.name()));
    if has_imports && pictures.len() < 2 {
        return exchange.import(app, files);
    }
    // A file whose kind the system does not know may be one: decoding tells.
    let chosen = match (pictures.is_empty(), files.len()) {
        (true, 1) => files,
        (true, 0) => return,
        (true, _) => return refuse(app, words::NO_PICTURES()),
        (false, _) => pictures,
    };
    let named = chosen.into_iter().map(|file| (file.name(), file.into()));
    app.open_files(named.collect());
}

fn refuse(app: AppState, what: &str) {
    app.keep.tell(what.to_owned());
}

fn listen_for_drops(app: AppState, exchange: ExchangeState, over: RwSignal<bool>) {
    window_event_listener(ev::dragover, move |event| match dragged(&event) {
        Dragged::Text => over.set(false),
        Dragged::Nothing => event.prevent_default(),
        Dragged::Files | Dragged::Address => {
            event.prevent_default();
            over.set(true);
        }
    });
    window_event_listener(ev::dragleave, move |event| {
        if event.related_target().is_none() {
            over.set(false);
        }
    });
    window_event_listener(ev::dragend, move |_| over.set(false));
    window_event_listener(ev::drop, move |event| {
        over.set(false);
        let what = dragged(&event);
        if what == Dragged::Text {
            return;
        }
        // Else the browser would leave the page for the file or the address.
        event.prevent_default();
        let Some(data) = event.data_transfer() else {
            return;
        };
        match what {
            Dragged::Files => open_dropped(app, exchange, Dropped::of(&data)),
            Dragged::Address => open_address(app, &data),
            Dragged::Text | Dragged::Nothing => {}
        }
    });
}

fn dragged(event: &DragEvent) -> Dragged {
    let types = event.data_transfer().map(|d| d.types()).unwrap_or_default();
    let types: Vec<_> = types.iter().filter_map(|kind| kind.as_string()).collect();
    let types = types.iter().map(String::as_str);
    Dragged::of(types, event.target().is_some_and(|t| is_text_box(&t)))
}

/// Whether an element takes text.
pub fn is_text_box(target: &EventTarget) -> bool {
    let Some(element) = target.dyn_ref::<HtmlElement>() else {
        return false;
    };
    let is_input = || {
        let kind = element.get_attribute("type").unwrap_or_default();
        !["checkbox", "radio", "range", "file", "button"].contains(&kind.as_str())
    };
    match element.tag_name().as_str() {
        "TEXTAREA" => true,
        "INPUT" => is_input(),
        _ => element.is_content_editable(),
    }
}

/// Opens dropped files, and the files of dropped folders.
pub fn open_dropped(app: AppState, exchange: ExchangeState, dropped: Dropped) {
    let Dropped { files, entries } = dropped;
    if !entries.iter().any(FileSystemEntry::is_directory) {
        return open_all(app, exchange, files);
    }
    spawn_local(async move {
        let mut files = Vec::new();
        let mut waiting = entries;
        waiting.reverse();
        while let Some(entry) = waiting.pop() {
            if entry.is_directory() {
                let mut inside = inside(entry.unchecked_ref()).await;
                inside.sort_by_key(|entry| std::cmp::Reverse(entry.name()));
                waiting.append(&mut inside);
            } else if let Some(file) = file_of(entry.unchecked_ref()).await {
                files.push(file);
            }
        }
        if files.is_empty() {
            refuse(app, words::NO_PICTURES());
        }
        open_all(app, exchange, files);
    });
}

/// What a folder holds. The browser gives it in pieces, the last one empty.
async fn inside(folder: &FileSystemDirectoryEntry) -> Vec<FileSystemEntry> {
    let reader = folder.create_reader();
    let mut all = Vec::new();
    loop {
        let read = Promise::new(&mut |resolve, reject| {
            let refused = reject.clone();
            // A refusal is reported by the second function.
            if reader
                .read_entries_with_callback_and_callback(&resolve, &reject)
                .is_err()
            {
                let _ = refused.call0(&JsValue::UNDEFINED);
            }
        });
        // A folder that cannot be read counts as empty.
        let Ok(entries) = JsFuture::from(read).await else {
            return all;
        };
        let entries: Array = entries.unchecked_into();
        if entries.length() == 0 {
            return all;
        }
        all.extend(entries.iter().map(FileSystemEntry::unchecked_from_js));
    }
}

async fn file_of(entry: &FileSystemFileEntry) -> Option<File> {
    let read = Promise::new(&mut |resolve, reject| {
        entry.file_with_callback_and_callback(&resolve, &reject);
    });
    JsFuture::from(read).await.ok()?.dyn_into().ok()
}

/// Something of another page without its bytes: an address within the data, of this page, or of
/// another host.
fn open_address(app: AppState, data: &DataTransfer) {
    let read = |kind: &str| data.get_data(kind).unwrap_or_default();
    let list = read("text/uri-list");
    let address = first_address(&list).map(str::to_owned);
    let source = address.unwrap_or_else(|| read("text/plain"));
    spawn_local(async move {
        let origin = window().location().origin().unwrap_or_default();
        let is_own = !origin.is_empty() && source.starts_with(&format!("{origin}/"));
        if is_own || source.starts_with("blob:") {
            open_from(app, &source).await;
        } else {
            refuse(app, words::ADDRESS_ONLY());
        }
    });
}

/// Opens the picture at an address; a refusal is said in a sentence.
pub async fn open_from(app: AppState, address: &str) {
    match decode::fetch(address).await {
        Ok(blob) => {
            let name = address.rsplit('/').next().unwrap_or_default();
            let name = name.split(['?', '#']).next().unwrap_or_default();
            app.open_file(blob, name.to_owned());
        }
        Err(_) => refuse(app, words::ADDRESS_REFUSED()),
    }
}

/// Whether this page may fetch pictures of other hosts.
pub async fn can_reach_other_hosts() -> bool {
    let Some(address) = document().url().ok() else {
        return false;
    };
    let response = JsFuture::from(window().fetch_with_str(&address)).await;
    let Some(response) = response.ok().and_then(|r| r.dyn_into::<Response>().ok()) else {
        return false;
    };
    let policy = response.headers().get("Content-Security-Policy");
    reaches_other_hosts(policy.ok().flatten().as_deref())
}

fn listen_for_pastes(app: AppState) {
    window_event_listener(ev::paste, move |event| {
        let Some(data) = event.clipboard_data() else {
            return;
        };
        let files = data.files().map(all_files).unwrap_or_default();
        let pictures: Vec<_> = files.into_iter().filter(decode::is_picture).collect();
        let text = data.get_data("text/plain").unwrap_or_default();
        let in_text_box = event.target().is_some_and(|t| is_text_box(&t));
        if paste_opens(!pictures.is_empty(), !text.is_empty(), in_text_box) {
            event.prevent_default();
            let unnamed = pictures.into_iter().map(|p| (String::new(), Blob::from(p)));
            app.open_files(unnamed.collect());
        }
    });
}

/// The files that the system opens with the installed page.
fn listen_for_launches(app: AppState, exchange: ExchangeState) {
    let get = |object: &JsValue, name: &str| {
        let value = Reflect::get(object, &name.into()).ok();
        value.filter(|value| !value.is_undefined() && !value.is_null())
    };
    let Some(queue) = get(&window(), "launchQueue") else {
        return;
    };
    let Some(set) = get(&queue, "setConsumer").and_then(|f| f.dyn_into::<Function>().ok()) else {
        return;
    };
    let consumer = Closure::<dyn FnMut(JsValue)>::new(move |launch: JsValue| {
        let handles = get(&launch, "files").and_then(|f| f.dyn_into::<Array>().ok());
        spawn_local(async move {
            let mut files = Vec::new();
            for handle in handles.unwrap_or_default().iter() {
                let file = get(&handle, "getFile").and_then(|f| f.dyn_into::<Function>().ok());
                let file = file.and_then(|f| f.call0(&handle).ok());
                if let Some(file) = file {
                    let file = JsFuture::from(Promise::resolve(&file)).await;
                    files.extend(file.ok().and_then(|f| f.dyn_into::<File>().ok()));
                }
            }
            open_all(app, exchange, files);
        });
    });
    // A browser that refuses it opens the page without the files.
    let _ = set.call1(&queue, consumer.as_ref());
    // The page listens as long as it lives.
    consumer.forget();
}
