//! The dedicated worker: requests in, events out, the engine between.
//!
//! `worker_start.js` loads it and passes every message of the page to [`receive`]. A message is the
//! array `[json, attachment]` (`chatrex::protocol::envelope`). A panic becomes an error event of the
//! worker.
//!
//! The worker for tests (`web/worker_dev`) contains this program as a module.

mod abort;
mod convert;
pub(crate) mod host;
mod http_source;
pub(crate) mod js;
#[path = "../locks.rs"]
mod locks;
mod model_store;
mod opfs;
mod page;
mod priority_lock;
mod queue;
mod yielder;

use chatrex::gpu::{device, shader};
use wasm_bindgen::prelude::*;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs once, when the module is instantiated.
pub fn main() {
    // Without this call the linker runs cubecl's thousands of constructors on every export
    // (documentation of the crate `inventory`, "WebAssembly and constructors").
    // SAFETY: the linker's own function, called once and before anything that relies on it.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|panic| {
        console_error_panic_hook::hook(panic);
        wasm_bindgen::throw_str(&panic.to_string());
    }));
    http_source::watch_policy();
}

/// Tells whether the browser's device was created with subgroups (`subgroups.js`).
#[wasm_bindgen]
pub fn use_subgroups(subgroups: bool) {
    shader::use_subgroups(subgroups);
}

/// Tells what the browser knows of the adapter whose device is being opened (`subgroups.js`).
#[wasm_bindgen]
pub fn tell_adapter(json: &str) {
    device::tell(json);
}

/// Handles one message of the page.
#[wasm_bindgen]
pub fn receive(message: JsValue) {
    queue::receive(&message);
}
