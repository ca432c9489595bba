//! Whether the page works without a network: checks the caches of the service worker.

use std::cell::Cell;

use js_sys::{Object, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{CacheStorage, Response, Url};

/// The list of the files of the site, which the service worker stores last.
const LIST: &str = "files.json";

/// Waits for the service worker and checks that every file of the site is stored. False if
/// there is no service worker or a file is missing.
pub async fn stored() -> bool {
    check().await.unwrap_or(false)
}

/// Calls `tell` when a new version of the site has taken over from the one that this page came from. The
/// first version of a first visit is none.
pub fn on_new_version(tell: impl Fn() + 'static) {
    let window = web_sys::window().expect("a page has a window");
    let navigator = window.navigator();
    if !Reflect::has(&navigator, &"serviceWorker".into()).unwrap_or(false) {
        return;
    }
    let container = navigator.service_worker();
    let had_version = Cell::new(container.controller().is_some());
    let on_change = Closure::<dyn FnMut()>::new(move || {
        if had_version.replace(true) {
            tell();
        }
    });
    container.set_oncontrollerchange(Some(on_change.as_ref().unchecked_ref()));
    // The page listens as long as it lives.
    on_change.forget();
}

async fn check() -> Result<bool, JsValue> {
    let window = web_sys::window().expect("a page has a window");
    if !Reflect::has(&window.navigator(), &"serviceWorker".into())? {
        return Ok(false);
    }
    JsFuture::from(window.navigator().service_worker().ready()?).await?;
    let base = window
        .document()
        .and_then(|document| document.base_uri().ok()?)
        .unwrap_or_default();
    let address = |path: &str| Url::new_with_base(path, &base).map(|url| url.href());
    let caches = window.caches()?;
    let Some(list) = cached(&caches, &address(LIST)?).await? else {
        return Ok(false);
    };
    let files: Object = JsFuture::from(list.json()?).await?.unchecked_into();
    for path in Object::keys(&files) {
        let path = path.as_string().unwrap_or_default();
        if cached(&caches, &address(&path)?).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn cached(caches: &CacheStorage, address: &str) -> Result<Option<Response>, JsValue> {
    let found = JsFuture::from(caches.match_with_str(address)).await?;
    Ok(found.dyn_into().ok())
}
