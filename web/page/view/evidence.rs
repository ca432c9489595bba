//! The boxes of an answer as small crops of the picture under it.

use chatrex::chat::conversation::Turn;
use chatrex::chat::conversation_strings as words;
use chatrex::chat::evidence::{self, Evidence, MOST};
use chatrex::chat::overlay::Highlight;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::collections::BTreeSet;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{CanvasRenderingContext2d, HtmlImageElement};

use super::state::{AppState, app_state};

/// Height of a crop in CSS pixels.
const HEIGHT: f64 = 52.0;

/// The decoded picture that crops are drawn from.
#[derive(Clone, Copy)]
struct Source {
    image: StoredValue<Option<HtmlImageElement>, LocalStorage>,
    /// Address of the picture once it is decoded.
    ready: RwSignal<Option<String>>,
}

/// Keeps the current picture decoded for the crops below.
pub fn provide_source(app: AppState) {
    let source = Source {
        image: StoredValue::new_local(None),
        ready: RwSignal::new(None),
    };
    provide_context(source);
    Effect::new(move |_| {
        let address = app.address.get();
        source.ready.set(None);
        let (Some(address), Ok(image)) = (address, HtmlImageElement::new()) else {
            return;
        };
        image.set_src(&address);
        spawn_local(async move {
            // Without the picture there are numbers only.
            let is_decoded = JsFuture::from(image.decode()).await.is_ok();
            if is_decoded && app.address.get_untracked().as_ref() == Some(&address) {
                source.image.set_value(Some(image));
                source.ready.set(Some(address));
            }
        });
    });
}

/// The strip of crops under an answer.
#[component]
pub fn EvidenceStrip(turn: RwSignal<Turn>) -> impl IntoView {
    let found = Memo::new(move |_| turn.with(evidence::of));
    let shown = move || found.with(|found| found.iter().take(MOST).cloned().collect::<Vec<_>>());
    let more = move || found.with(|found| found.len().saturating_sub(MOST));
    view! {
        <Show when=move || found.with(|found| !found.is_empty())>
            <ul class="evidence" aria-label=words::EVIDENCE data-testid="evidence">
                <For
                    each=shown
                    key=|e| format!("{e:?}")
                    children=move |evidence| view! { <Crop turn evidence /> }
                />
                <Show when=move || more() != 0>
                    <li class="more">{move || words::more(more())}</li>
                </Show>
            </ul>
        </Show>
    }
}

#[component]
fn Crop(turn: RwSignal<Turn>, evidence: Evidence) -> impl IntoView {
    let app = app_state();
    let source = expect_context::<Source>();
    let canvas = NodeRef::<html::Canvas>::new();
    let size = app.picture.with_untracked(|p| p.as_ref().map(|p| p.size));
    let crop = size.map(|size| evidence::crop(evidence.bbox, size));
    let (width, height) = crop.map_or((HEIGHT, HEIGHT), |crop| evidence::shown_size(crop, HEIGHT));
    let ratio = window().device_pixel_ratio().clamp(1.0, 3.0);
    Effect::new(move |_| {
        let is_ready = source.ready.get().is_some();
        if let (Some(canvas), Some(crop), true) = (canvas.get(), crop, is_ready) {
            let context = canvas.get_context("2d").ok().flatten();
            let context = context.and_then(|c| c.dyn_into::<CanvasRenderingContext2d>().ok());
            let [x, y, w, h] = crop;
            let place = (width * ratio, height * ratio);
            let [left, top, across, down] = evidence::inside(crop, place);
            source.image.with_value(|image| {
                if let (Some(context), Some(image)) = (context, image) {
                    // A crop that cannot be drawn stays empty; its number is there.
                    let _ = context
                        .draw_image_with_html_image_element_and_sw_and_sh_and_dx_and_dy_and_dw_and_dh(
                            image, x, y, w, h, left, top, across, down,
                        );
                }
            });
        }
    });
    let id = evidence.id;
    let highlight = StoredValue::new(Highlight {
        turn: Some(turn.with_untracked(|t| t.id)),
        boxes: BTreeSet::from([id]),
    });
    let is_lit = Memo::new(move |_| app.overlay.with(|o| o.highlighted().contains(&id)));
    let is_pinned =
        Memo::new(move |_| highlight.with_value(|h| app.overlay.with(|o| o.is_pinned(h))));
    let enter = move || {
        let hovered = highlight.get_value();
        app.overlay.maybe_update(|o| o.hover(Some(hovered)));
    };
    let leave = move || app.overlay.maybe_update(|o| o.hover(None));
    let phrase = &evidence.phrase;
    let class = format!("crop hue-{} dash-{}", phrase.hue(), phrase.dash());
    let number = evidence.number;
    view! {
        <li>
            <button
                type="button"
                class=class
                class:lit=move || is_lit.get()
                data-testid="crop"
                data-index=number
                aria-label=move || words::evidence_name(&evidence)
                aria-pressed=move || is_pinned.get().to_string()
                on:pointerenter=move |_| enter()
                on:pointerleave=move |_| leave()
                on:focus=move |_| enter()
                on:blur=move |_| leave()
                on:click=move |_| app.overlay.update(|o| o.pin(highlight.get_value()))
            >
                <canvas
                    node_ref=canvas
                    width=(width * ratio).round().to_string()
                    height=(height * ratio).round().to_string()
                    style:width=format!("{width}px")
                    style:height=format!("{height}px")
                ></canvas>
                <span class="crop-number" aria-hidden="true">{number}</span>
            </button>
        </li>
    }
}
