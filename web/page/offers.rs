//! The models that the site offers beside the built-in ones: `offered.json`.

use chatrex::chat::model_manager::Offer;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Response, Url};

/// The list, relative to the page.
const LIST: &str = "offered.json";

/// Fetches the list. Without a network, or on a site without the list, nothing is offered.
pub async fn fetch() -> Vec<Offer> {
    read().await.unwrap_or_default()
}

async fn read() -> Option<Vec<Offer>> {
    let window = web_sys::window()?;
    let base = window.document()?.base_uri().ok()??;
    let address = |path: &str| Some(Url::new_with_base(path, &base).ok()?.href());
    let response = JsFuture::from(window.fetch_with_str(LIST)).await;
    let response: Response = response.ok()?.dyn_into().ok()?;
    if !response.ok() {
        return None;
    }
    let text = JsFuture::from(response.text().ok()?).await.ok()?;
    let mut offers: Vec<Offer> = serde_json::from_str(&text.as_string()?).ok()?;
    for offer in &mut offers {
        offer.address = address(&format!("models/{}", offer.name))?;
    }
    Some(offers)
}
