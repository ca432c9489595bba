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
