//! Pictures that the system shared with the installed page: the service worker put them into a cache.

use js_sys::Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, Cache, File, Request, Response, Url};

use crate::decode;

/// The beginning of the cache's name in `service_worker.js`; the page's folder follows.
const CACHE: &str = "shared with ";

/// Takes the shared pictures, in their order: they are in the cache no longer.
pub async fn take() -> Vec<File> {
    taken().await.unwrap_or_default()
}

async fn taken() -> Result<Vec<File>, JsValue> {
    let window = web_sys::window().ok_or(JsValue::NULL)?;
    let base = window
        .document()
        .and_then(|document| document.base_uri().ok()?);
    let scope = Url::new_with_base("./", &base.unwrap_or_default())?.href();
    let (caches, name) = (window.caches()?, format!("{CACHE}{scope}"));
    let has = JsFuture::from(caches.has(&name)).await?;
    if !has.is_truthy() {
        return Ok(Vec::new());
    }
    let cache: Cache = JsFuture::from(caches.open(&name)).await?.unchecked_into();
    let keys: Array = JsFuture::from(cache.keys()).await?.unchecked_into();
    let mut files = Vec::new();
    for key in keys.iter() {
        let request: Request = key.unchecked_into();
        let response: Response = JsFuture::from(cache.match_with_request(&request))
            .await?
            .dyn_into()?;
        let name = response.headers().get("X-Name")?.unwrap_or_default();
        let name = js_sys::decode_uri_component(&name).map_or_else(|_| String::new(), String::from);
        let blob: Blob = JsFuture::from(response.blob()?).await?.dyn_into()?;
        files.extend(decode::named(&blob, &name));
    }
    JsFuture::from(caches.delete(&name)).await?;
    Ok(files)
}
