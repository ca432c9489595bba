//! The worker for tests and measurements: the shipped worker, and every check that runs in a browser.
//!
//! It is never part of the built page.

mod bench;
mod parity;
#[path = "../worker/main.rs"]
mod worker;

use burn::tensor::{Device, Tensor};
use chatrex::engine::Engine;
use chatrex::gpu::device::open;
use chatrex::gpu::testing::SweepReport;
use chatrex::gpu::{KERNELS, launch};
use chatrex::image::Pixels;
use chatrex::protocol::{DevicePreference, Request};
use js_sys::Date;
use wasm_bindgen::prelude::*;
use worker::host;

fn main() {
    worker::main();
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

/// Runs every sweep of the kernel registry: results and seconds by kernel.
async fn sweep(device: &Device) -> Result<serde_json::Value, String> {
    let mut found = serde_json::Map::new();
    for kernel in KERNELS {
        let began = Date::now();
        let SweepReport { shapes, worst } = (kernel.sweep)(device).await?;
        let seconds = (Date::now() - began) / 1000.0;
        let report = serde_json::json!({ "shapes": shapes, "worst": worst, "seconds": seconds });
        found.insert(kernel.name.into(), report);
    }
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
            options: DevicePreference::Wgpu.into(),
        })
        .await;
    let pixels = Pixels::test_pattern(width, height);
    let examined = engine.examine(&pixels, None).await;
    let examined = examined.map_err(|fault| fault.to_string())?;
    serde_json::to_string(&examined).map_err(|error| error.to_string())
}
