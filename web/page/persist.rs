//! Persistent storage: the browser does not evict what the page stores.

use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = ["navigator", "storage"], js_name = persist, catch)]
    fn persist() -> Result<Promise, JsValue>;
}

/// Requests persistent storage; false where the browser refuses it.
pub async fn is_granted() -> bool {
    let Ok(request) = persist() else {
        return false;
    };
    JsFuture::from(request)
        .await
        .is_ok_and(|granted| granted.is_truthy())
}

/// Name of the entry that remembers that the note about the device was read.
const NOTE_READ: &str = "chatrex-device-note-read";

/// Whether the note about a slow device was read in an earlier visit.
pub fn is_note_read() -> bool {
    let entry = local_storage().and_then(|storage| storage.get_item(NOTE_READ).ok().flatten());
    entry.is_some()
}

/// Remembers that the note was read.
pub fn keep_note_read() {
    if let Some(storage) = local_storage() {
        // A refusal only brings the note back at the next visit.
        let _ = storage.set_item(NOTE_READ, "1");
    }
}

/// The storage of small entries, where the browser gives one.
fn local_storage() -> Option<web_sys::Storage> {
    web_sys::window()?.local_storage().ok().flatten()
}
