//! The typed channel to the worker: requests out, events in.
//!
//! A message to the worker is an [`Envelope`] as the array `[json, attachment]`: a [`ToWorker`] as
//! JSON; with a `Look` the picture's `ArrayBuffer`, which is transferred, with `SurveyFiles` the array
//! of files, else `null`. A message of the worker is the array `[json]` with a [`FromWorker`].

use std::cell::Cell;
use std::rc::Rc;

use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::protocol::store::StoreEvent;
use chatrex::protocol::{Envelope, Event, FromWorker, ToWorker};
use js_sys::{Array, ArrayBuffer, Reflect};
use wasm_bindgen::prelude::*;
use web_sys::{MessageEvent, Worker, WorkerOptions, WorkerType};

/// The worker's start script, relative to the page.
const SCRIPT: &str = "./page_worker.js";

/// A message of the worker, or its end.
pub enum Report {
    /// An event of the engine.
    Event(Event),
    /// An event of the model store.
    Store(StoreEvent),
    /// The worker cannot continue.
    Lost(Fault),
}

/// A running worker; dropping it terminates the worker.
pub struct Link {
    worker: Worker,
    _handlers: [Closure<dyn FnMut(JsValue)>; 3],
}

impl Link {
    /// Starts a worker; `on_report` gets its messages until the link is dropped.
    pub fn start(on_report: Rc<dyn Fn(Report)>) -> Result<Self, Fault> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        if let Some(name) = network_name() {
            options.set_name(&name);
        }
        let worker = Worker::new_with_options(SCRIPT, &options)
            .map_err(|error| lost(&format!("it could not start ({error:?})")))?;

        let on_message = {
            let on_report = Rc::clone(&on_report);
            Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
                let data = event.unchecked_into::<MessageEvent>().data();
                on_report(read(&data));
            })
        };
        let on_error = {
            let on_report = Rc::clone(&on_report);
            let is_lost = Cell::new(false);
            Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
                if !is_lost.replace(true) {
                    on_report(Report::Lost(lost(&reason(&event))));
                }
            })
        };
        let on_message_error = Closure::<dyn FnMut(JsValue)>::new(move |_| {
            on_report(Report::Lost(unreadable("a message could not be read")));
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        worker.set_onmessageerror(Some(on_message_error.as_ref().unchecked_ref()));
        Ok(Self {
            worker,
            _handlers: [on_message, on_error, on_message_error],
        })
    }

    /// Sends a message. An attached `ArrayBuffer` is transferred and empty afterwards.
    pub fn send(&self, message: &Envelope<ToWorker, JsValue>) -> Result<(), Fault> {
        let json = serde_json::to_string(&message.body).expect("messages have string keys only");
        let attachment = message.attachment.clone().unwrap_or(JsValue::NULL);
        let transfer = Array::new();
        if attachment.is_instance_of::<ArrayBuffer>() {
            transfer.push(&attachment);
        }
        let message = Array::of2(&JsValue::from_str(&json), &attachment);
        self.worker
            .post_message_with_transfer(&message, &transfer)
            .map_err(|error| lost(&format!("it takes no messages ({error:?})")))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.set_onmessageerror(None);
        self.worker.terminate();
    }
}

/// The name that lets the worker tell the page what it requests (`network.js`).
fn network_name() -> Option<String> {
    let window = web_sys::window()?;
    Reflect::get(&window, &"networkName".into())
        .ok()?
        .as_string()
}

fn read(data: &JsValue) -> Report {
    let json = data
        .dyn_ref::<Array>()
        .and_then(|message| message.get(0).as_string());
    let Some(json) = json else {
        return Report::Lost(unreadable("it sent a message that is not an event"));
    };
    match serde_json::from_str(&json) {
        Ok(FromWorker::Engine(event)) => Report::Event(event),
        Ok(FromWorker::Store(event)) => Report::Store(event),
        Err(error) => Report::Lost(unreadable(&format!("it sent an unknown event ({error})"))),
    }
}

/// The reason in an error event; an event without a message means that a script was not fetched.
fn reason(event: &JsValue) -> String {
    let message = Reflect::get(event, &"message".into())
        .ok()
        .and_then(|m| m.as_string());
    match message {
        Some(message) if !message.is_empty() => format!("it stopped ({message})"),
        _ => "it could not be loaded".to_owned(),
    }
}

/// The fault of a worker that stopped for a reason that the browser tells.
fn lost(what: &str) -> Fault {
    Fault::new(
        FaultKind::Device,
        "the model's worker",
        what,
        "Start it again; picture and conversation are kept",
    )
    .code(ErrorCode::WorkerLost)
    .code_of(what)
}

/// The fault of a worker whose messages cannot be parsed.
fn unreadable(what: &str) -> Fault {
    lost(what).code(ErrorCode::Protocol)
}
