//! Waiting without blocking the page.

use js_sys::Promise;
use wasm_bindgen_futures::JsFuture;

/// Waits; events of the browser are handled meanwhile.
pub async fn pause(milliseconds: i32) {
    let window = web_sys::window().expect("a page has a window");
    let waited = Promise::new(&mut |resolve, _| {
        window
            .set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, milliseconds)
            .expect("a page has timers");
    });
    // A timer only ever resolves.
    let _ = JsFuture::from(waited).await;
}
