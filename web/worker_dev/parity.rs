//! Compares recordings of the original implementation with this browser's GPU.

use std::path::Path;
use std::rc::Rc;

use chatrex::diagnostics::parity::{Golden, Recordings, Report};
use chatrex::error::Fault;
use chatrex::gpu::device::open;
use chatrex::memory::KvCacheDType;
use chatrex::protocol::DevicePreference;
use js_sys::{Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

/// Files from the page: an object of `Uint8Array`s by path.
struct PageFiles(Object);

impl Recordings for PageFiles {
    fn file(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
        let path = path.to_string_lossy();
        let file = Reflect::get(&self.0, &JsValue::from_str(&path))
            .ok()
            .and_then(|file| file.dyn_into::<Uint8Array>().ok());
        Ok(file.map(|file| file.to_vec()))
    }
}

/// Compares fixture `name` of `files`, whose paths are relative to the folder of `tolerances.json`, with
/// a KV cache in f16 or f32. Returns the report, as `chatrex parity --json` prints it, and its table.
#[wasm_bindgen]
pub async fn parity(name: String, files: Object, f16: bool) -> Result<String, String> {
    let cache = if f16 {
        KvCacheDType::F16
    } else {
        KvCacheDType::F32
    };
    let text = |fault: Fault| fault.to_string();
    let device = open(DevicePreference::Wgpu).await.map_err(text)?.device;
    let files = Rc::new(PageFiles(files));
    let golden = Golden::open(files, Path::new(""), cache).map_err(text)?;
    let report = Report::new(vec![golden.compare(&name, &device).await]);
    let table = report.table();
    Ok(serde_json::json!({ "report": report, "table": table }).to_string())
}
