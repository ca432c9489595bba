//! What the user did before the page was there: words in the text box of `index.html`, and dropped files.

use js_sys::{Array, Reflect};
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::*;
use web_sys::{DataTransfer, Document, File, FileSystemEntry, HtmlTextAreaElement};

use crate::view::models::all_files;

/// The element of `index.html` with the text box. `start.js` puts `data-composing`, `files` and `entries` there.
const PLACE: &str = "early";

/// Early input.
#[derive(Default)]
pub struct Early {
    /// The words in the text box.
    pub words: String,
    /// Whether the text box had the focus.
    pub has_focus: bool,
    /// What was dropped.
    pub dropped: Dropped,
}

/// Dropped files and folders.
#[derive(Default)]
pub struct Dropped {
    /// The files; a folder has an unreadable one.
    pub files: Vec<File>,
    /// The same as entries, which tell folders.
    pub entries: Vec<FileSystemEntry>,
}

impl Dropped {
    /// Reads a drop, which has its data only while it is handled.
    pub fn of(data: &DataTransfer) -> Self {
        let items = data.items();
        let entries =
            (0..items.length()).filter_map(|i| items.get(i)?.webkit_get_as_entry().ok()?);
        Self {
            files: data.files().map(all_files).unwrap_or_default(),
            entries: entries.collect(),
        }
    }
}

/// Calls `mount` with the early input, after the input method that is composing, if one is.
pub fn take(mount: impl FnOnce(Early) + 'static) {
    let document = web_sys::window().and_then(|window| window.document());
    let Some(document) = document else {
        return;
    };
    let composing = document
        .query_selector("#early[data-composing] textarea")
        .ok()
        .flatten();
    let Some(text_box) = composing else {
        return mount(take_now(&document));
    };
    let ended = Closure::once_into_js(move || mount(take_now(&document)));
    // Every element takes listeners.
    let _ = text_box.add_event_listener_with_callback("compositionend", ended.unchecked_ref());
}

fn take_now(document: &Document) -> Early {
    let Some(place) = document.get_element_by_id(PLACE) else {
        return Early::default();
    };
    let text_box = place.query_selector("textarea").ok().flatten();
    let text_box = text_box.and_then(|found| found.dyn_into::<HtmlTextAreaElement>().ok());
    let listed = |name: &str| {
        let list = Reflect::get(&place, &name.into()).ok();
        list.and_then(|list| list.dyn_into::<Array>().ok())
            .unwrap_or_default()
    };
    let early = Early {
        words: text_box.as_ref().map(|t| t.value()).unwrap_or_default(),
        has_focus: text_box.is_some() && text_box.map(Into::into) == document.active_element(),
        dropped: Dropped {
            files: listed("files").iter().map(JsCast::unchecked_into).collect(),
            entries: listed("entries")
                .iter()
                .map(JsCast::unchecked_into)
                .collect(),
        },
    };
    place.remove();
    early
}
