//! Messages to the page, and whether the engine has opened the device that both sides ask about.

use std::cell::Cell;

use chatrex::protocol::FromWorker;
use js_sys::Array;
use wasm_bindgen::prelude::*;

use super::js::scope;

thread_local! {
    static DEVICE_IS_OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the engine has opened its device. The engine opens it first, once.
pub fn device_is_open() -> bool {
    DEVICE_IS_OPEN.get()
}

/// The engine has opened its device.
pub fn set_device_open() {
    DEVICE_IS_OPEN.set(true);
}

/// Sends a message to the page.
pub fn post(message: &FromWorker) {
    let json = serde_json::to_string(message).expect("messages have string keys only");
    scope()
        .post_message(&Array::of1(&JsValue::from_str(&json)))
        .expect("a string can always be cloned");
}
