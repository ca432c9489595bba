//! What the engine needs of a browser's worker: fetched files, a clock, turns for waiting messages.

use std::cell::RefCell;
use std::collections::HashSet;

use chatrex::engine::Host;
use chatrex::fault::{Fault, FaultKind};
use chatrex::protocol::{Event, TurnId};
use chatrex::weights::ByteSource;
use chatrex::weights::source::LocalFuture;
use js_sys::{Array, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::DedicatedWorkerGlobalScope;

// Declared here because every feature added to web-sys reaches wgpu and rebuilds all of burn.
#[wasm_bindgen]
extern "C" {
    type MessageChannel;
    #[wasm_bindgen(constructor)]
    fn new() -> MessageChannel;
    #[wasm_bindgen(method, getter)]
    fn port1(this: &MessageChannel) -> MessagePort;
    #[wasm_bindgen(method, getter)]
    fn port2(this: &MessageChannel) -> MessagePort;

    type MessagePort;
    #[wasm_bindgen(method, setter)]
    fn set_onmessage(this: &MessagePort, handler: &JsValue);
    #[wasm_bindgen(method, js_name = postMessage)]
    fn post_message(this: &MessagePort, message: &JsValue);

    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;

    type Response;
    #[wasm_bindgen(method, getter)]
    fn ok(this: &Response) -> bool;
    #[wasm_bindgen(method, getter)]
    fn status(this: &Response) -> u16;
    #[wasm_bindgen(method, getter)]
    fn body(this: &Response) -> Option<ReadableStream>;

    type ReadableStream;
    #[wasm_bindgen(method, js_name = getReader)]
    fn get_reader(this: &ReadableStream) -> ReadableStreamDefaultReader;

    type ReadableStreamDefaultReader;
    #[wasm_bindgen(method)]
    fn read(this: &ReadableStreamDefaultReader) -> Promise;
}

thread_local! {
    static STOPPED: RefCell<HashSet<TurnId>> = RefCell::default();
}

/// Notes that the person wants `turn` stopped.
pub fn stop(turn: TurnId) {
    STOPPED.with_borrow_mut(|stopped| stopped.insert(turn));
}

/// Sends an event to the page.
pub fn post(event: &Event) {
    let json = serde_json::to_string(event).expect("events have string keys only");
    scope()
        .post_message(&Array::of1(&JsValue::from_str(&json)))
        .expect("a string can always be cloned");
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// The worker around the engine.
pub struct Worker {
    channel: MessageChannel,
}

impl Worker {
    /// The worker this runs in.
    pub fn new() -> Self {
        Self {
            channel: MessageChannel::new(),
        }
    }
}

impl Host for Worker {
    fn emit(&self, event: Event) {
        post(&event);
    }

    /// A message to oneself: it queues behind those already waiting, without the delay that
    /// browsers add to timers.
    fn pause(&self) -> LocalFuture<'_, ()> {
        let promise = Promise::new(&mut |resolve, _| {
            self.channel.port1().set_onmessage(&resolve);
        });
        self.channel.port2().post_message(&JsValue::NULL);
        Box::pin(async move {
            let _ = JsFuture::from(promise).await;
        })
    }

    fn milliseconds(&self) -> f64 {
        performance_now()
    }

    fn stopped(&self, turn: TurnId) -> bool {
        STOPPED.with_borrow_mut(|stopped| stopped.remove(&turn))
    }

    fn source(&self, model: &str) -> Result<Box<dyn ByteSource>, Fault> {
        Ok(Box::new(Fetched(model.trim_end_matches('/').to_string())))
    }
}

/// A model folder below this page's address.
struct Fetched(String);

impl ByteSource for Fetched {
    fn place(&self) -> String {
        self.0.clone()
    }

    fn read<'a>(
        &'a self,
        name: &'a str,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let address = format!("{}/{name}", self.0);
            fetch(&address, arrived)
                .await
                .map_err(|error| not_fetched(&address, &describe(&error)))?
                .map_err(|status| not_fetched(&address, &format!("the server says {status}")))
        })
    }
}

fn not_fetched(address: &str, what: &str) -> Fault {
    Fault::new(
        FaultKind::Network,
        address,
        format!("could not be fetched: {what}"),
        "Check the connection and load the model again",
    )
}

fn describe(error: &JsValue) -> String {
    Reflect::get(error, &"message".into())
        .ok()
        .and_then(|message| message.as_string())
        .unwrap_or_else(|| format!("{error:?}"))
}

/// The body at `address`, piece by piece; the inner error is an HTTP status.
async fn fetch(address: &str, arrived: &dyn Fn(u64)) -> Result<Result<Vec<u8>, u16>, JsValue> {
    let response: Response = JsFuture::from(scope().fetch_with_str(address))
        .await?
        .unchecked_into();
    if !response.ok() {
        return Ok(Err(response.status()));
    }
    let Some(body) = response.body() else {
        return Ok(Ok(Vec::new()));
    };
    let reader = body.get_reader();
    let mut bytes = Vec::new();
    loop {
        let piece = JsFuture::from(reader.read()).await?;
        if Reflect::get(&piece, &"done".into())?.is_truthy() {
            return Ok(Ok(bytes));
        }
        let piece: Uint8Array = Reflect::get(&piece, &"value".into())?.unchecked_into();
        let start = bytes.len();
        bytes.resize(start + piece.length() as usize, 0);
        piece.copy_to(&mut bytes[start..]);
        arrived(bytes.len() as u64);
    }
}
