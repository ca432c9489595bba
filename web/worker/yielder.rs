//! Yielding to the worker's pending messages.

use chatrex::weights::source::LocalFuture;
use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::js::MessageChannel;

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
