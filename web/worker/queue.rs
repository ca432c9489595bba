//! The engine's request queue: parses the page's messages and runs the engine's requests in order.

use std::cell::RefCell;
use std::collections::VecDeque;

use chatrex::engine::Engine;
use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::protocol::{Envelope, Event, FromWorker, Request, ToWorker};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;

use super::{host, model_store, page};

/// The engine and its pending requests; the engine is taken out while it works.
struct EngineQueue {
    engine: Option<Engine<host::Worker>>,
    pending: VecDeque<Envelope<Request>>,
}

thread_local! {
    static QUEUE: RefCell<EngineQueue> = RefCell::new(EngineQueue {
        engine: Some(Engine::new(host::Worker::default())),
        pending: VecDeque::new(),
    });
}

/// Handles one message of the page.
pub fn receive(message: &JsValue) {
    let Envelope { body, attachment } = match parse(message) {
        Ok(envelope) => envelope,
        Err(fault) => return page::post(&failed(fault)),
    };
    match body {
        ToWorker::Store(request) => model_store::receive(request, attachment),
        ToWorker::Engine(Request::Stop { turn }) => host::stop(turn),
        ToWorker::Engine(body @ Request::Load { .. }) => {
            model_store::pick(attachment);
            enqueue(body.into());
        }
        ToWorker::Engine(body) => enqueue(Envelope {
            body,
            attachment: attachment.map(|buffer| Uint8Array::new(&buffer).to_vec()),
        }),
    }
}

fn enqueue(request: Envelope<Request>) {
    let engine = QUEUE.with_borrow_mut(|queue| {
        queue.pending.push_back(request);
        queue.engine.take()
    });
    if let Some(engine) = engine {
        wasm_bindgen_futures::spawn_local(work(engine));
    }
}

/// Handles the pending requests, first in, first out; between them the engine warms up.
async fn work(mut engine: Engine<host::Worker>) {
    loop {
        let next = QUEUE.with_borrow_mut(|queue| queue.pending.pop_front());
        if let Some(request) = next {
            engine.handle(request).await;
        } else if !engine.warm_up_next().await {
            break;
        }
    }
    QUEUE.with_borrow_mut(|queue| queue.engine = Some(engine));
}

/// The message `[json, attachment]`.
fn parse(message: &JsValue) -> Result<Envelope<ToWorker, JsValue>, Fault> {
    let array: &Array = message.unchecked_ref();
    let json = array.get(0).as_string().unwrap_or_default();
    let body = serde_json::from_str(&json).map_err(|error| {
        Fault::new(
            FaultKind::Device,
            "message to the engine",
            error.to_string(),
            "Reload the page: it is of another version than the engine",
        )
        .code(ErrorCode::Protocol)
    })?;
    let attachment = array.get(1);
    let is_absent = attachment.is_null() || attachment.is_undefined();
    Ok(Envelope {
        body,
        attachment: (!is_absent).then_some(attachment),
    })
}

fn failed(fault: Fault) -> FromWorker {
    FromWorker::Engine(Event::Failed {
        turn: None,
        picture: None,
        fault,
    })
}
