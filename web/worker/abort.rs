//! Pause and cancel of a transfer: a change aborts its requests and wakes its sleeps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use chatrex::weights::source::TransferControl;
use js_sys::{Function, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::js::{
    AbortController, add_event_listener, clear_timeout, remove_event_listener, set_timeout,
};

/// A request that receives no byte for this many milliseconds is aborted and repeated.
const STALL_TIMEOUT: f64 = 45_000.0;

/// The control of one transfer; at first it runs.
pub struct PauseControl {
    control: Cell<TransferControl>,
    requests: RefCell<Vec<Rc<AbortController>>>,
    /// The resolve functions of the sleeps.
    sleeps: RefCell<Vec<Function>>,
}

impl Default for PauseControl {
    fn default() -> Self {
        Self {
            control: Cell::new(TransferControl::Run),
            requests: RefCell::default(),
            sleeps: RefCell::default(),
        }
    }
}

impl PauseControl {
    /// Whether the transfer runs, pauses or ends.
    pub fn control(&self) -> TransferControl {
        self.control.get()
    }

    /// Sets the control; a change aborts all requests and ends all sleeps.
    pub fn set(&self, control: TransferControl) {
        if self.control.replace(control) == control {
            return;
        }
        let requests: Vec<_> = self.requests.borrow().clone();
        requests.iter().for_each(|request| request.abort());
        for wake in self.sleeps.take() {
            let _ = wake.call0(&JsValue::NULL);
        }
    }

    /// Sleeps until the time is over, the network is back or the control changes.
    pub async fn sleep(&self, milliseconds: u32) {
        let mut pending = None;
        let slept = Promise::new(&mut |resolve, _| {
            let timer = set_timeout(&resolve, f64::from(milliseconds));
            add_event_listener("online", &resolve);
            self.sleeps.borrow_mut().push(resolve.clone());
            pending = Some((timer, resolve));
        });
        let _ = JsFuture::from(slept).await;
        if let Some((timer, resolve)) = pending {
            clear_timeout(timer);
            remove_event_listener("online", &resolve);
            self.sleeps.borrow_mut().retain(|wake| *wake != resolve);
        }
    }
}

/// A request that is aborted when the control changes, when it stalls, and when it is dropped.
pub struct AbortableFetch {
    control: Rc<PauseControl>,
    controller: Rc<AbortController>,
    abort: Closure<dyn FnMut()>,
    timer: f64,
}

impl AbortableFetch {
    /// A request about to start.
    pub fn new(control: &Rc<PauseControl>) -> Self {
        let controller = Rc::new(AbortController::new());
        control.requests.borrow_mut().push(Rc::clone(&controller));
        let aborted = Rc::clone(&controller);
        let abort = Closure::<dyn FnMut()>::new(move || aborted.abort());
        let timer = set_timeout(abort.as_ref(), STALL_TIMEOUT);
        Self {
            control: Rc::clone(control),
            controller,
            abort,
            timer,
        }
    }

    /// The `signal` option of the request.
    pub fn signal(&self) -> JsValue {
        self.controller.signal()
    }

    /// Bytes arrived: the stall timeout starts again.
    pub fn restart_timeout(&mut self) {
        clear_timeout(self.timer);
        self.timer = set_timeout(self.abort.as_ref(), STALL_TIMEOUT);
    }
}

impl Drop for AbortableFetch {
    fn drop(&mut self) {
        clear_timeout(self.timer);
        self.controller.abort();
        let own = &self.controller;
        let mut requests = self.control.requests.borrow_mut();
        requests.retain(|request| !Rc::ptr_eq(request, own));
    }
}
