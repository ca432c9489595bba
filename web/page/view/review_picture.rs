//! The picture of the review with its boxes. Dragging draws a box.

use chatrex::chat::batch_strings as words;
use chatrex::chat::review::{Entry, Input, ReviewedBox};
use chatrex::geometry::BoxXyxy;
use chatrex::protocol::ImageSize;
use leptos::prelude::*;
use leptos::svg;
use leptos::task::spawn_local;
use web_sys::PointerEvent;

use super::state::app_state;
use crate::decode::{self, ObjectUrl};

/// The picture of the current entry.
#[component]
pub fn ReviewPicture(current: Memo<Option<Entry>>, boxes: Memo<Vec<ReviewedBox>>) -> impl IntoView {
    let batching = app_state().batching;
    let item = Memo::new(move |_| current.get().map(|entry| entry.item));
    let size = Memo::new(move |_| {
        let item = item.get()?;
        let batch = batching.batch;
        batch.with(|batch| Some(batch.items().get(item)?.outcome()?.size))
    });
    let url = RwSignal::new_local(None::<(usize, ObjectUrl)>);
    Effect::new(move |_| {
        let Some(wanted) = item.get() else {
            return;
        };
        spawn_local(async move {
            let file = batching.file(wanted).await;
            let address = match file {
                Some(file) => decode::address(&file).await.ok(),
                None => None,
            };
            if item.get_untracked() == Some(wanted) {
                url.set(address.map(|address| (wanted, address)));
            }
        });
    });
    let address = move || {
        let shown = item.get();
        url.with(|url| {
            let (of, url) = url.as_ref()?;
            (Some(*of) == shown).then(|| url.as_str().to_owned())
        })
    };
    let svg = NodeRef::<svg::Svg>::new();
    let from = StoredValue::new(None::<(f32, f32)>);
    let at = move |event: &PointerEvent| -> Option<(f32, f32)> {
        let bounds = svg.get_untracked()?.get_bounding_client_rect();
        let size = size.get_untracked()?;
        // The drawing keeps the picture's shape inside its element.
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        let scale = (bounds.width() / width).min(bounds.height() / height);
        let left = bounds.left() + (bounds.width() - width * scale) / 2.0;
        let top = bounds.top() + (bounds.height() - height * scale) / 2.0;
        let x = (f64::from(event.client_x()) - left) / scale;
        let y = (f64::from(event.client_y()) - top) / scale;
        Some((x as f32, y as f32))
    };
    let press = move |event: PointerEvent| {
        if event.button() == 0 && batching.review.with_untracked(|r| r.sketch().is_some()) {
            from.set_value(at(&event));
            if let Some(svg) = svg.get_untracked() {
                // Without it the drag ends at the edge.
                let _ = svg.set_pointer_capture(event.pointer_id());
            }
            event.prevent_default();
        }
    };
    let motion = move |event: PointerEvent| {
        if let (Some((x1, y1)), Some((x2, y2))) = (from.get_value(), at(&event)) {
            batching.review(Input::Sketch([x1, y1, x2, y2].into()));
        }
    };
    let view_box = move || {
        let size = size.get()?;
        Some(format!("0 0 {} {}", size.width, size.height))
    };
    let name = move || {
        let count = boxes.with(Vec::len);
        words::boxes(count)
    };
    let is_drawing = move || batching.review.with(|r| r.sketch().is_some());
    view! {
        <svg
            class="review-picture"
            class:drawing=is_drawing
            node_ref=svg
            viewBox=view_box
            preserveAspectRatio="xMidYMid meet"
            role="img"
            aria-label=name
            data-testid="review-picture"
            on:pointerdown=press
            on:pointermove=motion
            on:pointerup=move |_| from.set_value(None)
            on:pointercancel=move |_| from.set_value(None)
        >
            {move || {
                let size = size.get()?;
                let address = address()?;
                Some(view! { <image href=address width=size.width height=size.height /> })
            }}
            <Outlines current boxes size />
            {move || batching.review.with(|r| r.sketch()).map(|b| outline("sketch", b))}
        </svg>
    }
}

/// The boxes; the current one comes last, with its label.
#[component]
fn Outlines(
    current: Memo<Option<Entry>>,
    boxes: Memo<Vec<ReviewedBox>>,
    size: Memo<Option<ImageSize>>,
) -> impl IntoView {
    move || {
        let (entry, size) = (current.get()?, size.get()?);
        let mut all = boxes.get();
        all.sort_by_key(|b| b.entry == entry);
        let shown = all.into_iter().map(|b| {
            let is_current = b.entry == entry;
            let verdict = match b.accepted {
                None => "open",
                Some(true) => "accepted",
                Some(false) => "rejected",
            };
            let class = if is_current { "current" } else { "other" };
            let label = b.found.label.clone().filter(|_| is_current);
            let text = label.map(|label| caption(label, b.found.bbox, size));
            view! {
                <g class=format!("review-box {class} {verdict}") data-testid="review-box" data-state=verdict>
                    {outline("halo", b.found.bbox)}
                    {outline("line", b.found.bbox)}
                    {text}
                </g>
            }
        });
        Some(shown.collect_view())
    }
}

fn outline(class: &'static str, b: BoxXyxy) -> impl IntoView {
    view! { <rect class=class x={b.x1} y={b.y1} width={b.x2 - b.x1} height={b.y2 - b.y1} /> }
}

/// The label above a box, or inside it at the upper edge of the picture.
fn caption(label: String, b: BoxXyxy, size: ImageSize) -> impl IntoView {
    let em = size.width.max(size.height) as f32 / 32.0;
    let base = match b.y1 > em * 1.3 {
        true => b.y1 - em * 0.3,
        false => b.y1 + em * 1.1,
    };
    view! {
        <text class="review-caption" x={b.x1} y=base font-size=em stroke-width={em / 5.0}>
            {label}
        </text>
    }
}
