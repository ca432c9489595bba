//! The typed channel to the engine's worker: requests out, events in.
//!
//! A message is the array `[json, beside]`: a [`ToWorker`] or a [`FromWorker`] as JSON, and beside a
//! `Look` the picture's `ArrayBuffer`, transferred, beside `SurveyFiles` the files; `null` otherwise.

use std::cell::RefCell;
use std::rc::Rc;

use chatrex::error::{Fault, FaultKind};
use chatrex::protocol::store::{StoreEvent, StoreRequest};
use chatrex::protocol::{Event, FromWorker, Request, ToWorker};
use js_sys::{Array, ArrayBuffer, Reflect};
use wasm_bindgen::prelude::*;
use web_sys::{MessageEvent, Worker, WorkerOptions, WorkerType};

/// The worker's first script, beside the page.
const SCRIPT: &str = "./worker_start.js";

/// What the worker has to say.
pub enum Report {
    /// The engine said something.
    Event(Event),
    /// The library said something.
    Shelf(StoreEvent),
    /// The worker cannot go on.
    Lost(Fault),
}

/// A running worker and the way to it.
pub struct Link {
    worker: Worker,
    _handlers: [Closure<dyn FnMut(JsValue)>; 3],
}

impl Link {
    /// Starts a worker; `hear` gets whatever it reports until the link is dropped.
    pub fn start(hear: Rc<dyn Fn(Report)>) -> Result<Self, Fault> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        let worker = Worker::new_with_options(SCRIPT, &options)
            .map_err(|error| lost(&format!("it could not start ({error:?})")))?;
        let lost_once = Rc::new(RefCell::new(false));

        let on_message = {
            let hear = Rc::clone(&hear);
            Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
                let data = event.unchecked_into::<MessageEvent>().data();
                hear(read(&data));
            })
        };
        let on_error = {
            let (hear, lost_once) = (Rc::clone(&hear), Rc::clone(&lost_once));
            Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
                if !lost_once.replace(true) {
                    hear(Report::Lost(lost(&why(&event))));
                }
            })
        };
        let on_garbled = Closure::<dyn FnMut(JsValue)>::new(move |_| {
            hear(Report::Lost(lost("a message could not be read")));
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        worker.set_onmessageerror(Some(on_garbled.as_ref().unchecked_ref()));
        Ok(Self {
            worker,
            _handlers: [on_message, on_error, on_garbled],
        })
    }

    /// Sends a request; `pixels` travel beside it and are gone here afterwards.
    pub fn send(&self, request: &Request, pixels: Option<ArrayBuffer>) -> Result<(), Fault> {
        let transfer = Array::new();
        let beside = match pixels {
            Some(buffer) => {
                transfer.push(&buffer);
                buffer.into()
            }
            None => JsValue::NULL,
        };
        self.post(&ToWorker::Engine(request.clone()), &beside, &transfer)
    }

    /// Asks the library; `files` travel beside the request.
    pub fn ask_library(&self, request: StoreRequest, files: &JsValue) -> Result<(), Fault> {
        self.post(&ToWorker::Shelf(request), files, &Array::new())
    }

    fn post(&self, message: &ToWorker, beside: &JsValue, transfer: &Array) -> Result<(), Fault> {
        let json = serde_json::to_string(message).expect("messages have string keys only");
        let message = Array::of2(&JsValue::from_str(&json), beside);
        self.worker
            .post_message_with_transfer(&message, transfer)
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

fn read(data: &JsValue) -> Report {
    let json = data
        .dyn_ref::<Array>()
        .and_then(|message| message.get(0).as_string());
    let Some(json) = json else {
        return Report::Lost(lost("it sent something that is no event"));
    };
    match serde_json::from_str(&json) {
        Ok(FromWorker::Engine(event)) => Report::Event(event),
        Ok(FromWorker::Shelf(event)) => Report::Shelf(event),
        Err(error) => Report::Lost(lost(&format!("it sent an unknown event ({error})"))),
    }
}

/// A script that could not be fetched gives an event without a message.
fn why(event: &JsValue) -> String {
    let message = Reflect::get(event, &"message".into())
        .ok()
        .and_then(|m| m.as_string());
    match message {
        Some(message) if !message.is_empty() => format!("it stopped ({message})"),
        _ => "it could not be loaded".to_owned(),
    }
}

fn lost(what: &str) -> Fault {
    Fault::new(
        FaultKind::Device,
        "the model's worker",
        what,
        "Start it again; picture and conversation are kept",
    )
}
