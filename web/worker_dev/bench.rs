//! Measuring in a browser: the rows of `chatrex bench`, and a layer beside another runtime's.

use std::cell::RefCell;

use chatrex::diagnostics::bench::layer::{Layer, Work};
use chatrex::diagnostics::bench::report::Row;
use chatrex::diagnostics::bench::{Around, Plan};
use chatrex::engine::Engine;
use chatrex::error::Fault;
use chatrex::gpu::device::open;
use chatrex::protocol::{DevicePreference, Request};
use js_sys::{Array, Float32Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use crate::worker::host;
use crate::worker::js::scope;

#[wasm_bindgen]
extern "C" {
    /// Dispatches of this worker, counted by `worker_bench.js`.
    #[wasm_bindgen(js_name = countedDispatches)]
    fn counted_dispatches() -> f64;
}

/// What to measure, and on what.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    plan: Plan,
    /// Base address of a model folder, where no made-up model is measured.
    model: Option<String>,
    /// The adapter's name and whether it is software.
    adapter: (String, bool),
}

/// The report of a run, as `chatrex bench --json` writes it, beside its table. Every row is posted
/// as it comes.
#[wasm_bindgen]
pub async fn bench(ask: String) -> Result<Array, String> {
    let Ask {
        plan,
        model,
        adapter,
    } = serde_json::from_str(&ask).map_err(|error| format!("plan: {error}"))?;
    let mut engine = Engine::new(host::Worker::default());
    if let Some(model) = model.filter(|_| plan.like.is_none()) {
        let options = DevicePreference::Wgpu.into();
        engine.handle(Request::Load { model, options }).await;
    }
    let tell = |row: &Row| {
        let line = serde_json::json!({ "row": row.line() }).to_string();
        let _ = scope().post_message(&Array::of1(&line.into()));
    };
    let around = Around {
        adapter: Some(adapter),
        dispatches: Some(&|| counted_dispatches() as u64),
    };
    let report = engine
        .bench(&plan, DevicePreference::Wgpu, around, &tell)
        .await;
    let report = report.map_err(in_words)?;
    let json = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    Ok(Array::of2(&json.into(), &report.table().into()))
}

thread_local! {
    static LAYER: RefCell<Option<Layer>> = const { RefCell::new(None) };
}

/// Puts the layer in a file on the device, in the place of an earlier one.
#[wasm_bindgen]
pub async fn open_layer(name: String, file: Vec<u8>) -> Result<(), String> {
    LAYER.take();
    let opened = open(DevicePreference::Wgpu).await.map_err(in_words)?;
    let layer = Layer::open(&name, &file, &opened.device).map_err(in_words)?;
    LAYER.set(Some(layer));
    Ok(())
}

/// What comes out of the layer's work, a [`Work`] as JSON.
#[wasm_bindgen]
pub async fn run_layer(work: String) -> Result<Float32Array, String> {
    let work: Work = serde_json::from_str(&work).map_err(|error| format!("work: {error}"))?;
    let mut layer = LAYER.take().ok_or("no layer was opened")?;
    let output = layer.run(work).await;
    LAYER.set(Some(layer));
    output
        .map(|output| Float32Array::from(&output[..]))
        .map_err(in_words)
}

fn in_words(fault: Fault) -> String {
    fault.to_string()
}
