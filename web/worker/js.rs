//! Bindings of browser functions for the worker: network, timers, storage.
//!
//! Declared here because every feature added to web-sys reaches wgpu and rebuilds all of burn.

use js_sys::{Array, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::DedicatedWorkerGlobalScope;

#[wasm_bindgen]
extern "C" {
    pub type MessageChannel;
    #[wasm_bindgen(constructor)]
    pub fn new() -> MessageChannel;
    #[wasm_bindgen(method, getter)]
    pub fn port1(this: &MessageChannel) -> MessagePort;
    #[wasm_bindgen(method, getter)]
    pub fn port2(this: &MessageChannel) -> MessagePort;

    pub type MessagePort;
    #[wasm_bindgen(method, setter)]
    pub fn set_onmessage(this: &MessagePort, handler: &JsValue);
    #[wasm_bindgen(method, js_name = postMessage)]
    pub fn post_message(this: &MessagePort, message: &JsValue);

    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    pub fn performance_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    pub fn set_timeout(then: &JsValue, milliseconds: f64) -> f64;
    #[wasm_bindgen(js_name = clearTimeout)]
    pub fn clear_timeout(timer: f64);
    #[wasm_bindgen(js_name = addEventListener)]
    pub fn add_event_listener(event: &str, handler: &JsValue);
    #[wasm_bindgen(js_name = removeEventListener)]
    pub fn remove_event_listener(event: &str, handler: &JsValue);

    pub fn fetch(address: &str, options: &JsValue) -> Promise;

    pub type AbortController;
    #[wasm_bindgen(constructor)]
    pub fn new() -> AbortController;
    #[wasm_bindgen(method, getter)]
    pub fn signal(this: &AbortController) -> JsValue;
    #[wasm_bindgen(method)]
    pub fn abort(this: &AbortController);

    pub type Response;
    #[wasm_bindgen(method, getter)]
    pub fn ok(this: &Response) -> bool;
    #[wasm_bindgen(method, getter)]
    pub fn status(this: &Response) -> u16;
    #[wasm_bindgen(method, getter)]
    pub fn headers(this: &Response) -> Headers;
    #[wasm_bindgen(method, getter)]
    pub fn body(this: &Response) -> Option<ReadableStream>;

    pub type Headers;
    #[wasm_bindgen(method)]
    pub fn get(this: &Headers, name: &str) -> Option<String>;

    pub type ReadableStream;
    #[wasm_bindgen(method, js_name = getReader)]
    pub fn get_reader(this: &ReadableStream) -> ReadableStreamDefaultReader;

    pub type ReadableStreamDefaultReader;
    #[wasm_bindgen(method)]
    pub fn read(this: &ReadableStreamDefaultReader) -> Promise;

    pub type File;
    #[wasm_bindgen(method, getter)]
    pub fn name(this: &File) -> String;
    #[wasm_bindgen(method, getter)]
    pub fn size(this: &File) -> f64;
    #[wasm_bindgen(method)]
    pub fn slice(this: &File, start: f64, end: f64) -> File;
    #[wasm_bindgen(method, js_name = arrayBuffer)]
    fn array_buffer(this: &File) -> Promise;

    pub type FileReaderSync;
    #[wasm_bindgen(constructor, catch)]
    pub fn new() -> Result<FileReaderSync, JsValue>;
    #[wasm_bindgen(method, js_name = readAsArrayBuffer, catch)]
    fn read_as_array_buffer(this: &FileReaderSync, file: &File) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(js_namespace = ["navigator", "storage"], js_name = getDirectory, catch)]
    pub fn get_directory() -> Result<Promise, JsValue>;

    pub type Directory;
    #[wasm_bindgen(method, js_name = getDirectoryHandle)]
    pub fn directory(this: &Directory, name: &str, options: &JsValue) -> Promise;
    #[wasm_bindgen(method, js_name = getFileHandle)]
    pub fn file(this: &Directory, name: &str, options: &JsValue) -> Promise;
    #[wasm_bindgen(method, js_name = removeEntry)]
    pub fn remove(this: &Directory, name: &str, options: &JsValue) -> Promise;
    #[wasm_bindgen(method)]
    fn keys(this: &Directory) -> Names;

    type Names;
    #[wasm_bindgen(method)]
    fn next(this: &Names) -> Promise;

    pub type FileHandle;
    #[wasm_bindgen(method, js_name = getFile)]
    pub fn get_file(this: &FileHandle) -> Promise;
    #[wasm_bindgen(method, js_name = createSyncAccessHandle)]
    pub fn open(this: &FileHandle) -> Promise;

    pub type OpenFile;
    #[wasm_bindgen(method, catch)]
    pub fn read(this: &OpenFile, bytes: &mut [u8], options: &JsValue) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub fn write(this: &OpenFile, bytes: &[u8], options: &JsValue) -> Result<f64, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub fn truncate(this: &OpenFile, bytes: f64) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    pub fn flush(this: &OpenFile) -> Result<(), JsValue>;
    #[wasm_bindgen(method, js_name = getSize, catch)]
    pub fn get_size(this: &OpenFile) -> Result<f64, JsValue>;
    #[wasm_bindgen(method)]
    pub fn close(this: &OpenFile);

    #[wasm_bindgen(js_namespace = ["navigator", "locks"], js_name = query, catch)]
    fn query_locks() -> Result<Promise, JsValue>;
}

/// The scope of this worker.
pub fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// Awaits a promise of a `T`.
pub async fn wait<T: JsCast>(promise: Promise) -> Result<T, JsValue> {
    JsFuture::from(promise).await.map(JsValue::unchecked_into)
}

/// A plain object.
pub fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object.into()
}

/// A field of an object, `undefined` where it has none.
pub fn field(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

/// The name of an exception, such as `QuotaExceededError`.
pub fn name_of(error: &JsValue) -> String {
    field(error, "name").as_string().unwrap_or_default()
}

/// The message of an exception.
pub fn describe(error: &JsValue) -> String {
    let message = field(error, "message").as_string();
    message.unwrap_or_else(|| format!("{error:?}"))
}

/// The bytes of a file or a slice of one.
pub async fn bytes_of(file: &File) -> Result<Vec<u8>, JsValue> {
    let buffer: JsValue = wait(file.array_buffer()).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// The bytes of a file or a slice of one, at once.
pub fn bytes_now(file: &File) -> Result<Vec<u8>, JsValue> {
    let buffer = FileReaderSync::new()?.read_as_array_buffer(file)?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// The names of the entries of a directory.
pub async fn names_in(directory: &Directory) -> Result<Vec<String>, JsValue> {
    let names = directory.keys();
    let mut found = Vec::new();
    loop {
        let next: JsValue = wait(names.next()).await?;
        if field(&next, "done").is_truthy() {
            return Ok(found);
        }
        found.extend(field(&next, "value").as_string());
    }
}

/// The names of all held Web Locks, here or in another tab.
pub async fn held_locks() -> Result<Vec<String>, JsValue> {
    let state: JsValue = wait(query_locks()?).await?;
    let held = Array::from(&field(&state, "held"));
    Ok((held.iter())
        .filter_map(|lock| field(&lock, "name").as_string())
        .collect())
}
