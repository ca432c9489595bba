//! Benchmarks in a browser: the rows of `chatrex bench`, and one layer for comparison with another
//! runtime.

use std::cell::RefCell;

use chatrex::diagnostics::bench::layer::{Layer, LayerOptions, Work};
use chatrex::diagnostics::bench::report::Row;
use chatrex::diagnostics::bench::{self, Environment, Plan};
use chatrex::engine::Engine;
use chatrex::gpu::device::{is_software_name, open};
use chatrex::protocol::{DevicePreference, Request};
use js_sys::{Array, Float32Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use crate::worker::host;
use crate::worker::js::scope;

#[wasm_bindgen]
extern "C" {
    /// Dispatches of this worker so far, counted by `worker_bench.js`.
    #[wasm_bindgen(js_name = countedDispatches)]
    fn counted_dispatches() -> f64;
}

/// A benchmark request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BenchRequest {
    plan: Plan,
    /// Address of a model folder; not used if the plan has random weights.
    model: Option<String>,
    adapter: Adapter,
}

/// The adapter as the browser describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Adapter {
    name: String,
    fallback: bool,
}

impl Adapter {
    /// Its name, and whether it is a software adapter.
    fn described(self) -> (String, bool) {
        let software = self.fallback || is_software_name(&self.name);
        (self.name, software)
    }
}

/// Runs a benchmark. Returns the report as JSON, as `chatrex bench --json` writes it, and its table;
/// posts every row as soon as it is measured.
#[wasm_bindgen]
pub async fn bench(request: String) -> Result<Array, String> {
    let BenchRequest {
        plan,
        model,
        adapter,
    } = serde_json::from_str(&request).map_err(|error| format!("plan: {error}"))?;
    let mut engine = Engine::new(host::Worker::default());
    if let Some(model) = model.filter(|_| plan.like.is_none()) {
        let options = DevicePreference::Wgpu.into();
        engine.handle(Request::Load { model, options }).await;
    }
    let post_row = |row: &Row| {
        let line = serde_json::json!({ "row": row.line() }).to_string();
        // Rows are for information only.
        let _ = scope().post_message(&Array::of1(&line.into()));
    };
    let environment = Environment {
        adapter: Some(adapter.described()),
        dispatches: Some(&|| counted_dispatches() as u64),
    };
    let preference = DevicePreference::Wgpu;
    let report = bench::run(&mut engine, &plan, preference, environment, &post_row).await;
    let report = report.map_err(|fault| fault.to_string())?;
    let json = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    Ok(Array::of2(&json.into(), &report.table().into()))
}

/// The name of an adapter as the browser describes it, and whether it is a software adapter.
#[wasm_bindgen]
pub fn described_adapter(name: String, fallback: bool) -> Array {
    let (name, software) = Adapter { name, fallback }.described();
    Array::of2(&name.into(), &software.into())
}

thread_local! {
    static LAYER: RefCell<Option<Layer>> = const { RefCell::new(None) };
}

/// Uploads the layer in `file` in place of an earlier one.
#[wasm_bindgen]
pub async fn open_layer(name: String, file: Vec<u8>) -> Result<(), String> {
    LAYER.take();
    let opened = open(DevicePreference::Wgpu).await;
    let device = opened.map_err(|fault| fault.to_string())?.device;
    let layer = Layer::open(&name, &file, &device, LayerOptions::default())
        .map_err(|fault| fault.to_string())?;
    LAYER.set(Some(layer));
    Ok(())
}

/// The output of the layer for `work`, a [`Work`] as JSON.
#[wasm_bindgen]
pub async fn run_layer(work: String) -> Result<Float32Array, String> {
    let work: Work = serde_json::from_str(&work).map_err(|error| format!("work: {error}"))?;
    let mut layer = LAYER.take().ok_or("no layer is open")?;
    let output = layer.run(work).await;
    LAYER.set(Some(layer));
    output
        .map(|output| Float32Array::from(&output[..]))
        .map_err(|fault| fault.to_string())
}
