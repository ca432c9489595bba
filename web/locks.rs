//! Web Locks, for page and worker.

use js_sys::{Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = ["navigator", "locks"], js_name = request, catch)]
    fn request(name: &str, options: &JsValue, then: &JsValue) -> Result<Promise, JsValue>;
}

/// A Web Lock, shared by all tabs of this origin; released when dropped.
pub struct Lock(Function);

impl Lock {
    /// Takes the lock `name`; `None` if it is held.
    ///
    /// # Errors
    /// The browser offers no locks here.
    pub async fn get(name: &str) -> Result<Option<Self>, JsValue> {
        let options = Object::new();
        Reflect::set(&options, &"ifAvailable".into(), &JsValue::TRUE)?;
        let mut requested = Ok(());
        let granted = Promise::new(&mut |resolve, _| {
            let on_lock = Closure::once_into_js(move |lock: JsValue| {
                if lock.is_null() {
                    let _ = resolve.call1(&JsValue::NULL, &JsValue::NULL);
                    return JsValue::UNDEFINED;
                }
                let held = Promise::new(&mut |release, _| {
                    let _ = resolve.call1(&JsValue::NULL, &release);
                });
                held.into()
            });
            requested = request(name, &options, &on_lock).map(drop);
        });
        requested?;
        let release = JsFuture::from(granted).await?;
        Ok(release.dyn_into().ok().map(Self))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.call0(&JsValue::NULL);
    }
}
