//! Recordings of the original implementation against this browser's device.

use std::path::Path;
use std::rc::Rc;

use chatrex::diagnostics::parity::{Golden, Recordings, Report};
use chatrex::error::Fault;
use chatrex::gpu::device::open;
use chatrex::memory::KvCacheDType;
use chatrex::protocol::DevicePreference;
use js_sys::{Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

/// Files that the page handed in: an object of `Uint8Array`s by path.
struct Handed(Object);

impl Recordings for Handed {
    fn file(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
        let path = path.to_string_lossy();
        let file = Reflect::get(&self.0, &JsValue::from_str(&path))
            .ok()
            .and_then(|file| file.dyn_into::<Uint8Array>().ok());
        Ok(file.map(|file| file.to_vec()))
    }
}

/// Compares the fixture `name` among `files`, whose paths begin in the folder of
/// `tolerances.json`: a report as `chatrex parity --json` prints it, beside its table. Keys and values are held in
/// half precision where `halves` says so.
#[wasm_bindgen]
pub async fn parity(name: String, files: Object, halves: bool) -> Result<String, String> {
    let cache = if halves {
        KvCacheDType::F16
    } else {
        KvCacheDType::F32
    };
    let in_words = |fault: Fault| fault.to_string();
    let device = open(DevicePreference::Wgpu).await.map_err(in_words)?.device;
    let golden = Golden::open(Rc::new(Handed(files)), Path::new(""), cache).map_err(in_words)?;
    let report = Report::of(vec![golden.compare(&name, &device).await]);
    let table = report.table();
    Ok(serde_json::json!({ "report": report, "table": table }).to_string())
}
