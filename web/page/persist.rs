//! The browser's promise to keep what a page stores.

use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = ["navigator", "storage"], js_name = persist, catch)]
    fn persist() -> Result<Promise, JsValue>;
}

/// Asks for the promise; false where the browser gives none.
pub async fn promised() -> bool {
    let Ok(asked) = persist() else {
        return false;
    };
    JsFuture::from(asked).await.is_ok_and(|yes| yes.is_truthy())
}
