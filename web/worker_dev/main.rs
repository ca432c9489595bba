//! The worker for tests and measurements: the shipped worker and every diagnostic that runs in a
//! browser. It is never part of the published site.
//!
//! `worker_dev_start.js` loads it and calls the functions exported here.

mod bench;
mod parity;
#[path = "../worker/main.rs"]
mod worker;

use burn::tensor::{Device, Tensor};
use chatrex::diagnostics::compare::dump_activations;
use chatrex::engine::Engine;
use chatrex::gpu::device::open;
use chatrex::gpu::testing::SweepReport;
use chatrex::gpu::{KERNELS, shader};
use chatrex::image::Pixels;
use chatrex::protocol::{DevicePreference, Request};
use js_sys::Date;
use wasm_bindgen::prelude::*;
use worker::host;

fn main() {
    worker::main();
}

/// Checks the browser's GPU: a matmul, and with `kernels` the sweep of every kernel. Returns a report
/// as JSON.
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
        true => sweep_kernels(&device).await?,
        false => Vec::new(),
    };
    Ok(serde_json::json!({
        "matmul": sum,
        "subgroups": shader::uses_subgroups(),
        "kernels": kernels,
    })
    .to_string())
}

/// Sweeps every kernel of the registry, in its order: name, result and seconds of each.
async fn sweep_kernels(device: &Device) -> Result<Vec<serde_json::Value>, String> {
    let mut reports = Vec::new();
    for kernel in KERNELS {
        let start = Date::now();
        let SweepReport { shapes, worst } = (kernel.sweep)(device).await?;
        let seconds = (Date::now() - start) / 1000.0;
        reports.push(serde_json::json!({
            "name": kernel.name, "shapes": shapes, "worst": worst, "seconds": seconds,
        }));
    }
    Ok(reports)
}

/// Activations of every stage of `model`, an address, on the test picture, as `chatrex examine` prints
/// them.
#[wasm_bindgen]
pub async fn examine(model: String, width: u32, height: u32) -> Result<String, String> {
    let mut engine = Engine::new(host::Worker::default());
    let options = DevicePreference::Wgpu.into();
    engine.handle(Request::Load { model, options }).await;
    let pixels = Pixels::test_pattern(width, height);
    let dump = dump_activations(&mut engine, &pixels, None).await;
    let dump = dump.map_err(|fault| fault.to_string())?;
    serde_json::to_string(&dump).map_err(|error| error.to_string())
}
