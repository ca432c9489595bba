//! Messages between the tabs of this page: a tab asks the others to give up a model, and tells them when it
//! has loaded one.

use std::rc::Rc;

use chatrex::protocol::store::ModelId;
use wasm_bindgen::prelude::*;
use web_sys::{BroadcastChannel, MessageEvent};

const CHANNEL: &str = "chatrex models";

/// What another tab says.
pub enum Message {
    /// It wants a model.
    Claim(ModelId),
    /// It has loaded a model.
    Loaded,
}

/// The channel; closed when dropped.
pub struct Tabs {
    channel: BroadcastChannel,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
}

impl Tabs {
    /// Opens the channel; `received` gets what other tabs say. `None` where the browser has no such channel: a
    /// model then stays where it is.
    pub fn open(received: Rc<dyn Fn(Message)>) -> Option<Self> {
        let channel = BroadcastChannel::new(CHANNEL).ok()?;
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let model = event.data().as_string();
            received(model.map_or(Message::Loaded, |model| Message::Claim(ModelId(model))));
        });
        channel.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        Some(Self {
            channel,
            _on_message: on_message,
        })
    }

    /// Asks the other tabs to give up a model.
    pub fn claim(&self, model: &ModelId) {
        // A message that cannot be sent leaves the model where it is, which the list shows.
        let _ = self.channel.post_message(&JsValue::from_str(&model.0));
    }

    /// Tells the other tabs that this one has loaded a model.
    pub fn loaded(&self) {
        // Without the message their lists are older than they could be.
        let _ = self.channel.post_message(&JsValue::NULL);
    }
}

impl Drop for Tabs {
    fn drop(&mut self) {
        self.channel.set_onmessage(None);
        self.channel.close();
    }
}
