//! The page in a frame: what its address asks for, and the way to the host.

use chatrex::chat::embed::message::{self, Command, Refused, refused};
use chatrex::chat::embed::{Hosts, Options};
use chatrex::error::ErrorCode;
use js_sys::{ArrayBuffer, JSON, Object, Reflect};
use serde_json::Value;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, MessageEvent, Response, Window};

/// The list of hosts, relative to the page.
const LIST: &str = "embed.json";

/// The field of a message that brings a picture.
const PICTURE: &str = "picture";

thread_local! {
    static OPTIONS: Options = Options::of_address(&address());
}

/// What the address of the page asks for.
pub fn options() -> Options {
    OPTIONS.with(|options| *options)
}

/// The address of the page.
pub fn address() -> String {
    let document = web_sys::window().and_then(|window| window.document());
    document
        .and_then(|document| document.url().ok())
        .unwrap_or_default()
}

/// Who may be the host.
pub async fn hosts() -> Hosts {
    let own = web_sys::window().and_then(|window| window.location().origin().ok());
    Hosts::read(list().await.as_deref(), &own.unwrap_or_default())
}

async fn list() -> Option<String> {
    let response = JsFuture::from(web_sys::window()?.fetch_with_str(LIST)).await;
    let response: Response = response.ok()?.dyn_into().ok()?;
    if !response.ok() {
        return None;
    }
    JsFuture::from(response.text().ok()?)
        .await
        .ok()?
        .as_string()
}

/// The page around this one; none outside a frame.
pub fn parent() -> Option<Window> {
    let window = web_sys::window()?;
    let parent = window.parent().ok()??;
    let is_other = !Object::is(parent.as_ref(), window.as_ref());
    is_other.then_some(parent)
}

/// Whether an event comes from the page around this one.
pub fn is_of_parent(event: &MessageEvent) -> bool {
    let source = event.source().map(JsValue::from);
    parent().is_some_and(|parent| source.is_some_and(|source| Object::is(parent.as_ref(), &source)))
}

/// A message of the host and the picture that it brings.
pub fn read(data: &JsValue) -> (Result<(Value, Command), Refused>, Option<Blob>) {
    let no_object = || Err(refused(Value::Null, ErrorCode::Protocol, "it is no object"));
    if !data.is_object() {
        return (no_object(), None);
    }
    let copy = Object::assign(&Object::new(), data.unchecked_ref());
    let picture = Reflect::get(&copy, &PICTURE.into())
        .ok()
        .and_then(|value| blob(&value));
    // Bytes as JSON would be many times as long.
    let _ = Reflect::delete_property(&copy, &PICTURE.into());
    let json = JSON::stringify(&copy)
        .ok()
        .and_then(|json| json.as_string());
    let message = json.map_or_else(no_object, |json| message::read(&json, picture.is_some()));
    (message, picture)
}

/// A picture in a message: a blob, or bytes.
fn blob(value: &JsValue) -> Option<Blob> {
    if let Some(blob) = value.dyn_ref::<Blob>() {
        return Some(blob.clone());
    }
    let is_bytes = value.is_instance_of::<ArrayBuffer>() || ArrayBuffer::is_view(value);
    is_bytes.then(|| Blob::new_with_buffer_source_sequence(&js_sys::Array::of1(value)).ok())?
}

/// Sends a message to the host of `origin`, with a picture or without.
pub fn post(origin: &str, message: &Value, picture: Option<&Blob>) {
    let Some(parent) = parent() else {
        return;
    };
    let Ok(value) = JSON::parse(&message.to_string()) else {
        return;
    };
    if let Some(picture) = picture {
        let _ = Reflect::set(&value, &PICTURE.into(), picture);
    }
    // A host that is gone needs no message.
    let _ = parent.post_message(&value, origin);
}
