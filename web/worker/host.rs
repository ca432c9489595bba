//! The engine's host in a worker of the browser: model files, a clock, and yielding to messages.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use chatrex::engine::Host;
use chatrex::error::Fault;
use chatrex::protocol::{DevicePreference, Event, FromWorker, TurnId};
use chatrex::weights::source::{LocalFuture, ModelFiles, Runtime, TransferControl};

use super::abort::PauseControl;
use super::js::performance_now;
use super::model_store;
use super::page::post;
use super::yielder::Yielder;

thread_local! {
    static STOPPED: RefCell<HashSet<TurnId>> = RefCell::default();
}

/// Requests that `turn` stops.
pub fn stop(turn: TurnId) {
    STOPPED.with_borrow_mut(|stopped| stopped.insert(turn));
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

    fn control(&self) -> TransferControl {
        self.control.control()
    }
}

impl Host for Worker {
    fn emit(&self, event: Event) {
        if let Event::Ready(card) = &event {
            let device = match card.device.as_str() {
                "cpu" => DevicePreference::Cpu,
                _ => DevicePreference::Wgpu,
            };
            model_store::on_device(device);
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
