//! The engine's host in a worker of the browser: model files, a clock, and yielding to messages.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use chatrex::engine::Host;
use chatrex::error::Fault;
use chatrex::protocol::{Event, FromWorker, TurnId};
use chatrex::weights::source::{LocalFuture, ModelFiles, Runtime, TransferControl};
use js_sys::{Array, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::abort::PauseControl;
use super::js::{MessageChannel, performance_now, scope};
use super::model_store;

thread_local! {
    static STOPPED: RefCell<HashSet<TurnId>> = RefCell::default();
    static DEVICE_IS_OPEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether the engine has opened its device. The engine opens it first, once.
pub fn device_is_open() -> bool {
    DEVICE_IS_OPEN.get()
}

/// Requests that `turn` stops.
pub fn stop(turn: TurnId) {
    STOPPED.with_borrow_mut(|stopped| stopped.insert(turn));
}

/// Sends a message to the page.
pub fn post(message: &FromWorker) {
    let json = serde_json::to_string(message).expect("messages have string keys only");
    scope()
        .post_message(&Array::of1(&JsValue::from_str(&json)))
        .expect("a string can always be cloned");
}

/// Yields through a message to the worker itself: it queues behind the pending messages, without the
/// delay that browsers add to timers.
pub struct Yielder(MessageChannel);

impl Default for Yielder {
    fn default() -> Self {
        Self(MessageChannel::new())
    }
}

impl Yielder {
    /// Yields to pending messages.
    pub fn yield_now(&self) -> LocalFuture<'static, ()> {
        let promise = Promise::new(&mut |resolve, _| {
            self.0.port1().set_onmessage(&resolve);
        });
        self.0.port2().post_message(&JsValue::NULL);
        Box::pin(async move {
            let _ = JsFuture::from(promise).await;
        })
    }
}

/// The host.
#[derive(Default)]
pub struct Worker {
    yielder: Yielder,
    control: Rc<PauseControl>,
}

impl Runtime for Worker {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        Box::pin(self.control.sleep(milliseconds))
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        self.yielder.yield_now()
    }

    fn hold(&self) -> TransferControl {
        self.control.control()
    }
}

impl Host for Worker {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Ready(_)) {
            DEVICE_IS_OPEN.set(true);
        }
        post(&FromWorker::Engine(event));
    }

    fn milliseconds(&self) -> f64 {
        performance_now()
    }

    fn stopped(&self, turn: TurnId) -> bool {
        STOPPED.with_borrow_mut(|stopped| stopped.remove(&turn))
    }

    fn files<'a>(&'a self, model: &'a str) -> LocalFuture<'a, Result<ModelFiles, Fault>> {
        Box::pin(model_store::files(model, &self.control))
    }
}
