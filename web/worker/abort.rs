//! The person's wish for a transfer, and everything that must end at once when it changes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use chatrex::weights::source::TransferControl;
use js_sys::{Function, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::js::{
    AbortController, add_event_listener, clear_timeout, remove_event_listener, set_timeout,
};

/// A request without a byte for this many milliseconds is given up and made again.
const STALLED: f64 = 45_000.0;

/// Runs, until told otherwise.
pub struct PauseControl {
    hold: Cell<TransferControl>,
    requests: RefCell<Vec<Rc<AbortController>>>,
    sleepers: RefCell<Vec<Function>>,
}

impl Default for PauseControl {
    fn default() -> Self {
        Self {
            hold: Cell::new(TransferControl::Run),
            requests: RefCell::default(),
            sleepers: RefCell::default(),
        }
    }
}

impl PauseControl {
    /// What the person wants.
    pub fn hold(&self) -> TransferControl {
        self.hold.get()
    }

    /// The person wants something else: what is on its way ends, whoever sleeps wakes.
    pub fn set(&self, hold: TransferControl) {
        if self.hold.replace(hold) == hold {
            return;
        }
        let requests: Vec<_> = self.requests.borrow().clone();
        requests.iter().for_each(|request| request.abort());
        for wake in self.sleepers.take() {
            let _ = wake.call0(&JsValue::NULL);
        }
    }

    /// Waits, at most until the connection comes back or the person wants something else.
    pub async fn sleep(&self, milliseconds: u32) {
        let mut ways = None;
        let slept = Promise::new(&mut |resolve, _| {
            let timer = set_timeout(&resolve, f64::from(milliseconds));
            add_event_listener("online", &resolve);
            self.sleepers.borrow_mut().push(resolve.clone());
            ways = Some((timer, resolve));
        });
        let _ = JsFuture::from(slept).await;
        if let Some((timer, resolve)) = ways {
            clear_timeout(timer);
            remove_event_listener("online", &resolve);
            self.sleepers.borrow_mut().retain(|wake| *wake != resolve);
        }
    }
}

/// A request that ends when the person wants something else, when nothing comes for long, and when
/// it is dropped.
pub struct AbortableFetch {
    steering: Rc<PauseControl>,
    controller: Rc<AbortController>,
    give_up: Closure<dyn FnMut()>,
    timer: f64,
}

impl AbortableFetch {
    /// A request about to begin.
    pub fn new(steering: &Rc<PauseControl>) -> Self {
        let controller = Rc::new(AbortController::new());
        steering.requests.borrow_mut().push(Rc::clone(&controller));
        let aborted = Rc::clone(&controller);
        let give_up = Closure::<dyn FnMut()>::new(move || aborted.abort());
        let timer = set_timeout(give_up.as_ref(), STALLED);
        Self {
            steering: Rc::clone(steering),
            controller,
            give_up,
            timer,
        }
    }

    /// What a request must be given.
    pub fn signal(&self) -> JsValue {
        self.controller.signal()
    }

    /// Something came.
    pub fn alive(&mut self) {
        clear_timeout(self.timer);
        self.timer = set_timeout(self.give_up.as_ref(), STALLED);
    }
}

impl Drop for AbortableFetch {
    fn drop(&mut self) {
        clear_timeout(self.timer);
        self.controller.abort();
        let own = &self.controller;
        let mut requests = self.steering.requests.borrow_mut();
        requests.retain(|request| !Rc::ptr_eq(request, own));
    }
}
