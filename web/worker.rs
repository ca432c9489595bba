//! The program of the dedicated worker: requests in, events out, the engine between.
//!
//! `worker_start.js` loads it and hands every message of the page to [`receive`]. A message is the
//! array `[json, beside]`: a [`ToWorker`] or [`FromWorker`] as JSON and, beside a `Look` with pixels,
//! their `ArrayBuffer`, beside `SurveyFiles` the files. A panic becomes an error of the worker, which the page hears.

mod bench;
mod bindings;
mod fetched;
mod gate;
mod host;
mod library;
mod opfs;
mod parity;
mod steering;

use std::cell::RefCell;
use std::collections::VecDeque;

use burn::tensor::{Device, Tensor};
use chatrex::engine::Engine;
use chatrex::engine::examine::picture;
use chatrex::fault::{Fault, FaultKind};
use chatrex::kernel::device::open;
use chatrex::kernel::sweep::Swept;
use chatrex::kernel::{
    activation, attention, causal_attention, copy, deform_attention, depthwise, fused, group_norm,
    launch, layer_norm, noise, roi_align, roi_pool, sine_of_boxes, weight_rows, window_attention,
};
use chatrex::protocol::{DevicePreference, Event, FromWorker, Request, ToWorker};
use js_sys::{Array, Date, Uint8Array};
use wasm_bindgen::prelude::*;

/// The engine, and the requests that wait for it. The engine is away while it works.
struct Desk {
    engine: Option<Engine<host::Worker>>,
    waiting: VecDeque<Request>,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk {
        engine: Some(Engine::new(host::Worker::default())),
        waiting: VecDeque::new(),
    });
}

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
    fetched::watch_policy();
}

/// Whether this browser's device was made with subgroups (`subgroups.js`).
#[wasm_bindgen]
pub fn use_subgroups(subgroups: bool) {
    launch::use_subgroups(subgroups);
}

/// Takes one message of the page.
#[wasm_bindgen]
pub fn receive(message: JsValue) {
    match request(&message) {
        Ok(ToWorker::Shelf(request)) => library::receive(request, beside(&message)),
        Ok(ToWorker::Engine(Request::Stop { turn })) => host::stop(turn),
        Ok(ToWorker::Engine(request)) => {
            let engine = DESK.with_borrow_mut(|desk| {
                desk.waiting.push_back(request);
                desk.engine.take()
            });
            if let Some(engine) = engine {
                wasm_bindgen_futures::spawn_local(work(engine));
            }
        }
        Err(fault) => host::post(&failed(fault)),
    }
}

/// Carries out what waits, one after another.
async fn work(mut engine: Engine<host::Worker>) {
    while let Some(request) = DESK.with_borrow_mut(|desk| desk.waiting.pop_front()) {
        engine.handle(request).await;
    }
    DESK.with_borrow_mut(|desk| desk.engine = Some(engine));
}

/// Computes on this browser's device and reports, for the browser tests: a matrix product
/// (`worker_start.js?product`), and with `kernels` every kernel's sweep (`worker_start.js?check`).
#[wasm_bindgen]
pub async fn check(kernels: bool) -> Result<String, String> {
    let device = open(DevicePreference::Wgpu)
        .await
        .map_err(|fault| fault.to_string())?
        .device;
    let ones = Tensor::<2>::ones([64, 64], &device);
    let sum = ones.clone().matmul(ones).sum();
    let sum = sum
        .into_data_async()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let sum: f32 = sum.iter::<f32>().sum();
    let kernels = match kernels {
        true => sweep(&device).await?,
        false => serde_json::Value::Null,
    };
    Ok(serde_json::json!({
        "matmul": sum,
        "subgroups": launch::uses_subgroups(),
        "kernels": kernels,
    })
    .to_string())
}

/// Every kernel's sweep: what it found, and how long it took.
async fn sweep(device: &Device) -> Result<serde_json::Value, String> {
    let mut found = serde_json::Map::new();
    macro_rules! sweep {
        ($($kernel:ident),* $(,)?) => {$({
            let began = Date::now();
            let Swept { shapes, worst } = $kernel::sweep(device).await?;
            let seconds = (Date::now() - began) / 1000.0;
            let said = serde_json::json!({ "shapes": shapes, "worst": worst, "seconds": seconds });
            found.insert(stringify!($kernel).into(), said);
        })*};
    }
    sweep!(
        activation,
        attention,
        causal_attention,
        copy,
        deform_attention,
        depthwise,
        fused,
        group_norm,
        layer_norm,
        noise,
        roi_align,
        roi_pool,
        sine_of_boxes,
        weight_rows,
        window_attention,
    );
    Ok(found.into())
}

/// What this browser's device computes at every stage of `model` on a made-up picture, as
/// `chatrex examine` prints it (`worker_start.js?examine`).
#[wasm_bindgen]
pub async fn examine(model: String, width: u32, height: u32) -> Result<String, String> {
    let mut engine = Engine::new(host::Worker::default());
    engine
        .handle(Request::Load {
            model,
            device: DevicePreference::Wgpu,
            memory: None,
            cache: None,
        })
        .await;
    let pixels = picture(width, height);
    let examined = engine.examine(&pixels, None).await;
    let examined = examined.map_err(|fault| fault.to_string())?;
    serde_json::to_string(&examined).map_err(|error| error.to_string())
}

/// The request in a message, with the picture's bytes in place.
fn request(message: &JsValue) -> Result<ToWorker, Fault> {
    let array: &Array = message.unchecked_ref();
    let json = array.get(0).as_string().unwrap_or_default();
    let mut request: ToWorker = serde_json::from_str(&json).map_err(|error| {
        Fault::new(
            FaultKind::Device,
            "message to the engine",
            error.to_string(),
            "Reload the page: it is of another version than the engine",
        )
    })?;
    if let ToWorker::Engine(Request::Look {
        pixels: Some(pixels),
        ..
    }) = &mut request
    {
        pixels.rgb = Uint8Array::new(&beside(message)).to_vec();
    }
    Ok(request)
}

/// What travels beside the JSON of a message.
fn beside(message: &JsValue) -> JsValue {
    message.unchecked_ref::<Array>().get(1)
}

fn failed(fault: Fault) -> FromWorker {
    FromWorker::Engine(Event::Failed {
        turn: None,
        picture: None,
        fault,
    })
}
