//! Messages to the page, and whether the engine has opened the device that both sides ask about.

use std::cell::Cell;

use chatrex::protocol::{DevicePreference, FromWorker};
use js_sys::Array;
use wasm_bindgen::prelude::*;

use super::js::scope;

thread_local! {
    static DEVICE: Cell<Option<DevicePreference>> = const { Cell::new(None) };
}

/// The device that the engine has opened. The engine opens it first, once.
pub fn device() -> Option<DevicePreference> {
    DEVICE.get()
}

/// The engine has opened `device`; true if it is another one than before.
pub fn set_device(device: DevicePreference) -> bool {
    DEVICE.replace(Some(device)) != Some(device)
}

/// Sends a message to the page.
pub fn post(message: &FromWorker) {
    let json = serde_json::to_string(message).expect("messages have string keys only");
    scope()
        .post_message(&Array::of1(&JsValue::from_str(&json)))
        .expect("a string can always be cloned");
}
