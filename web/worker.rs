//! The program of the dedicated worker: requests in, events out, the engine between.
//!
//! `worker_start.js` loads it and hands every message of the page to [`receive`]. A message is the
//! array `[json, bytes]`: a [`Request`] or [`Event`] as JSON and, beside a `Look` with pixels,
//! their `ArrayBuffer`. A panic becomes an error of the worker, which the page hears.

use burn::tensor::{Device, Tensor};
use chatrex::fault::{Fault, FaultKind};
use chatrex::protocol::{Event, Request};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;
use web_sys::DedicatedWorkerGlobalScope;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

fn main() {
    // Without this call the linker runs cubecl's thousands of constructors on every export
    // (`burn-webgpu.md` section 0, trap 1).
    // SAFETY: the linker's own function, called once and before anything that relies on it.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|panic| {
        console_error_panic_hook::hook(panic);
        wasm_bindgen::throw_str(&panic.to_string());
    }));
}

/// Takes one message of the page.
#[wasm_bindgen]
pub fn receive(message: JsValue) {
    match request(&message) {
        Ok(request) => drop(request),
        Err(fault) => post(&failed(fault)),
    }
}

/// Computes on this browser's device and reports, for the browser tests (`worker_start.js?check`).
#[wasm_bindgen]
pub async fn check() -> Result<String, String> {
    let device = Device::wgpu_options()
        .init_async()
        .await
        .map_err(|error| error.to_string())?;
    let ones = Tensor::<2>::ones([64, 64], &device);
    let sum = ones.clone().matmul(ones).sum();
    let sum = sum
        .into_data_async()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let sum: f32 = sum.iter::<f32>().sum();
    Ok(serde_json::json!({ "matmul": sum }).to_string())
}

/// The request in a message, with the picture's bytes in place.
fn request(message: &JsValue) -> Result<Request, Fault> {
    let message: &Array = message.unchecked_ref();
    let json = message.get(0).as_string().unwrap_or_default();
    let mut request: Request = serde_json::from_str(&json).map_err(|error| {
        Fault::new(
            FaultKind::Device,
            "message to the engine",
            error.to_string(),
            "Reload the page: it is of another version than the engine",
        )
    })?;
    if let Request::Look {
        pixels: Some(pixels),
        ..
    } = &mut request
    {
        pixels.rgb = Uint8Array::new(&message.get(1)).to_vec();
    }
    Ok(request)
}

fn failed(fault: Fault) -> Event {
    Event::Failed {
        turn: None,
        picture: None,
        fault,
    }
}

fn post(event: &Event) {
    let json = serde_json::to_string(event).expect("events have string keys only");
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    scope
        .post_message(&Array::of1(&JsValue::from_str(&json)))
        .expect("a string can always be cloned");
}
