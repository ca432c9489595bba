//! The engine's request queue: parses the page's messages and runs the engine's requests in order.

use std::cell::RefCell;
use std::collections::VecDeque;

use chatrex::engine::Engine;
use chatrex::error::{Fault, FaultKind};
use chatrex::protocol::{Event, FromWorker, Request, ToWorker};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;

use super::{host, model_store};

/// The engine and its pending requests; the engine is taken out while it works.
struct EngineQueue {
    engine: Option<Engine<host::Worker>>,
    waiting: VecDeque<Request>,
}

thread_local! {
    static QUEUE: RefCell<EngineQueue> = RefCell::new(EngineQueue {
        engine: Some(Engine::new(host::Worker::default())),
        waiting: VecDeque::new(),
    });
}

/// Takes one message of the page.
pub fn receive(message: &JsValue) {
    match request(message) {
        Ok(ToWorker::Shelf(request)) => model_store::receive(request, attachment(message)),
        Ok(ToWorker::Engine(Request::Stop { turn })) => host::stop(turn),
        Ok(ToWorker::Engine(request)) => {
            let engine = QUEUE.with_borrow_mut(|queue| {
                queue.waiting.push_back(request);
                queue.engine.take()
            });
            if let Some(engine) = engine {
                wasm_bindgen_futures::spawn_local(work(engine));
            }
        }
        Err(fault) => host::post(&failed(fault)),
    }
}

/// Handles the pending requests, first in, first out.
async fn work(mut engine: Engine<host::Worker>) {
    while let Some(request) = QUEUE.with_borrow_mut(|queue| queue.waiting.pop_front()) {
        engine.handle(request).await;
    }
    QUEUE.with_borrow_mut(|queue| queue.engine = Some(engine));
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
        pixels.rgb = Uint8Array::new(&attachment(message)).to_vec();
    }
    Ok(request)
}

/// What travels beside the JSON of a message.
fn attachment(message: &JsValue) -> JsValue {
    message.unchecked_ref::<Array>().get(1)
}

fn failed(fault: Fault) -> FromWorker {
    FromWorker::Engine(Event::Failed {
        turn: None,
        picture: None,
        fault,
    })
}
