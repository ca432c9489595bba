//! The picture, and the boxes with their labels and handles over it. `chat::overlay` decides which
//! boxes are drawn, `chat::viewport` where, `chat::labels` where their labels go.

use chatrex::chat::box_edit::handles;
use chatrex::chat::box_strings;
use chatrex::chat::candidates::BoxId;
use chatrex::chat::labels::{self, Placed};
use chatrex::chat::overlay::DrawnBox;
use chatrex::chat::page_strings;
use chatrex::chat::pointing::{Pointing, Tool};
use chatrex::chat::strings;
use chatrex::geometry::BoxXyxy;
use leptos::html;
use leptos::prelude::*;
use leptos::svg;

use super::pane::{HeldKeys, watch_size};
use super::picture_keys::{on_key, on_key_up};
use super::pointer::Pointer;
use super::selection_bar::SelectionBar;
use super::state::{AppState, app_state};
use super::status::Status;
use super::tools::{StageBar, Tools};

/// Distance of a label from the edges of a box with handles, in CSS pixels.
const HANDLE_MARGIN: f32 = 9.0;

/// The picture, its boxes, the tools above, the bar of the selection, and the bars of the view below.
#[component]
pub fn Canvas() -> impl IntoView {
    let app = app_state();
    let pane = NodeRef::<html::Div>::new();
    let held = HeldKeys {
        space: RwSignal::new(false),
        bare: RwSignal::new(false),
    };
    watch_size(pane, app.pane_size);
    let name = move || {
        let boxes = app.candidates.with(|c| c.boxes.len());
        (app.mentions).with(|m| strings::picture_name(boxes, m.as_ref().map(|m| &m.phrases[..])))
    };
    let transform = move || {
        let view = app.viewport.get();
        let frame = app.frame.get().filter(|_| !view.is_fit());
        frame.map_or("none".to_owned(), |frame| {
            let (x, y, zoom) = view.pane_transform(frame);
            format!("translate({x}px, {y}px) scale({zoom})")
        })
    };
    let is_pixelated = move || {
        let frame = app.frame.get();
        frame.is_some_and(|frame| app.viewport.with(|v| v.scale(frame)) >= 6.0)
    };
    let takes_touch = move || {
        app.tool.get() != Tool::Select
            || !app.viewport.with(|v| v.is_fit())
            || app.overlay.with(|o| !o.selection().is_empty())
    };
    view! {
        <Tools />
        <div
            id="picture"
            class="pane"
            class:drawing=move || matches!(app.tool.get(), Tool::Draw | Tool::Point)
            class:hand=move || held.space.get() || app.tool.get() == Tool::Hand
            class:panning=move || app.pointing.with(Pointing::is_panning)
            class:touching=takes_touch
            class:bare=move || held.bare.get()
            class:pointed=move || app.overlay.with(|o| !o.highlighted().is_empty())
            node_ref=pane
            data-testid="picture"
            tabindex="0"
            role="group"
            aria-label=name
            aria-describedby="picture-keys"
            on:keydown=move |event| on_key(app, held, &event)
            on:keyup=move |event| on_key_up(held, &event)
            on:blur=move |_| held.release()
        >
            {move || {
                app.address
                    .get()
                    .map(|address| view! {
                        <img
                            src=address
                            alt=""
                            draggable="false"
                            class:pixelated=is_pixelated
                            style:transform=transform
                        />
                    })
            }}
            <Boxes pane held />
            <Marks />
            <Show when=move || app.picture.with(Option::is_none)>
                <p class="pane-empty">{page_strings::NO_PICTURE}</p>
            </Show>
            <SelectionBar />
        </div>
        <div class="stage-foot" on:keydown=move |event| on_key(app, held, &event)>
            <StageBar />
            <Status />
        </div>
        <p id="picture-keys" class="hidden">
            {box_strings::KEYS}
        </p>
    }
}

/// The outlines of the boxes in picture pixels, and the pointer.
#[component]
fn Boxes(pane: NodeRef<html::Div>, held: HeldKeys) -> impl IntoView {
    let app = app_state();
    let svg = NodeRef::<svg::Svg>::new();
    let pointer = Pointer {
        app,
        held,
        pane,
        svg,
        cursor: RwSignal::new(""),
    };
    let view_box = move || {
        app.picture.with(|p| {
            p.as_ref()
                .map(|p| format!("0 0 {} {}", p.size.width, p.size.height))
        })
    };
    let transform = move || {
        let view = app.viewport.get();
        let frame = app.frame.get().filter(|_| !view.is_fit())?;
        let (x, y, zoom) = view.picture_transform(frame);
        Some(format!("translate({x} {y}) scale({zoom})"))
    };
    let preview = Memo::new(move |_| app.pointing.with(Pointing::preview));
    let preview = move || {
        preview.get().map(|b| {
            view! {
                <rect class="preview" x={b.x1} y={b.y1} width={b.x2 - b.x1} height={b.y2 - b.y1} />
            }
        })
    };
    let order = drawn_order(app);
    view! {
        <svg
            node_ref=svg
            class=move || format!("boxes at-{}", pointer.cursor.get())
            viewBox=view_box
            preserveAspectRatio="xMidYMid meet"
            aria-hidden="true"
            on:pointerdown=move |event| pointer.press(&event)
            on:pointermove=move |event| pointer.motion(&event)
            on:pointerup=move |event| pointer.release(&event)
            on:pointercancel=move |event| pointer.cancel(&event)
            on:pointerleave=move |_| app.overlay.maybe_update(|o| o.hover(None))
            on:mousedown=move |event| {
                // The middle button would begin to scroll.
                if event.button() == 1 {
                    event.prevent_default();
                }
            }
            on:touchmove=move |event| {
                // Two fingers are for the picture even where one scrolls the page.
                if event.touches().length() > 1 {
                    event.prevent_default();
                }
            }
            on:wheel=move |event| pointer.wheel(&event)
        >
            <g transform=transform>
                <For
                    each=move || order.get()
                    key=|id| *id
                    children=move |id| view! { <Outline id /> }
                />
                {preview}
            </g>
        </svg>
    }
}

/// Labels and handles: in screen pixels, so that they stay sharp and of the same size.
#[component]
fn Marks() -> impl IntoView {
    let app = app_state();
    let order = drawn_order(app);
    let placed = Memo::new(move |_| {
        let view = app.viewport.get();
        let Some(frame) = app.frame.get() else {
            return Vec::new();
        };
        let (width, height) = (frame.picture.width as f32, frame.picture.height as f32);
        let picture = view.box_to_screen([0.0, 0.0, width, height].into(), frame);
        let area = [
            picture.x1.max(0.0),
            picture.y1.max(0.0),
            picture.x2.min(frame.pane.0),
            picture.y2.min(frame.pane.1),
        ];
        let scale = view.scale(frame);
        app.drawn_boxes.with(|boxes| {
            let wanted: Vec<_> = (boxes.iter())
                .map(|drawn| labels::Label {
                    bbox: view.box_to_screen(drawn.bbox, frame),
                    number: drawn.number.to_string(),
                    words: drawn.words(scale),
                    rank: drawn.label_rank(),
                    margin: if drawn.selected { HANDLE_MARGIN } else { 0.0 },
                })
                .collect();
            let placed = labels::place(&wanted, area.into());
            boxes.iter().map(|b| b.id).zip(placed).collect::<Vec<_>>()
        })
    });
    view! {
        <svg class="marks" aria-hidden="true">
            <For
                each=move || order.get()
                key=|id| *id
                children=move |id| view! { <Label id placed /> }
            />
            <Handles />
        </svg>
    }
}

type PlacedLabels = Memo<Vec<(BoxId, Option<Placed>)>>;

/// The label of a box: the number on its own plate, and the words beside it.
#[component]
fn Label(id: BoxId, placed: PlacedLabels) -> impl IntoView {
    let app = app_state();
    let drawn = drawn_box(id);
    let place =
        Memo::new(move |_| placed.with(|placed| placed.iter().find(|(other, _)| *other == id)?.1));
    let label = move || {
        let place = place.get()?;
        let scale = app.viewport.with(|v| app.frame.get().map(|f| v.scale(f)))?;
        drawn.with(|drawn| {
            let drawn = drawn.as_ref()?;
            let number = place.number;
            let middle = (number.x1 + number.x2) / 2.0;
            let base = number.y1 + 13.5;
            let words = place.words.map(|plate| {
                view! {
                    " "
                    {rect("words", plate)}
                    <text class="words" x={plate.x1 + labels::PADDING} y=base>
                        {drawn.words(scale)}
                    </text>
                }
            });
            Some(view! {
                <g class=format!("label {}", classes(drawn)) data-testid="box-label">
                    {rect("number", number)}
                    <text class="number" x=middle y=base>
                        {drawn.number}
                    </text>
                    {words}
                </g>
            })
        })
    };
    view! { {label} }
}

/// The handles of the only selected box.
#[component]
fn Handles() -> impl IntoView {
    let app = app_state();
    let shown = move || {
        let frame = app.frame.get()?;
        let id = app.overlay.with(|o| o.selected())?;
        if app.tool.get() != Tool::Select {
            return None;
        }
        let bbox = app.drawn_boxes.with(|boxes| {
            let drawn = boxes.iter().find(|b| b.id == id);
            drawn.map(|drawn| drawn.bbox)
        })?;
        let bbox = app.viewport.get().box_to_screen(bbox, frame);
        let view = handles(bbox).map(|handle| {
            let (x, y) = handle.point(bbox);
            view! { <circle class="handle" data-testid="handle" data-handle=handle.name() cx=x cy=y r="5" /> }
        });
        Some(view.collect_view())
    };
    view! { {shown} }
}

fn rect(class: &'static str, b: BoxXyxy) -> impl IntoView {
    view! { <rect class=class x={b.x1} y={b.y1} width={b.x2 - b.x1} height={b.y2 - b.y1} /> }
}

#[component]
fn Outline(id: BoxId) -> impl IntoView {
    let drawn = drawn_box(id);
    let bbox =
        Memo::new(move |_| drawn.with(|d| d.as_ref().map_or(BoxXyxy::default(), |d| d.bbox)));
    let class = move || drawn.with(|d| d.as_ref().map_or(String::new(), classes));
    let highlighted = move || {
        let highlighted = drawn.with(|d| d.as_ref().is_some_and(|d| d.highlighted));
        highlighted.to_string()
    };
    let number = move || drawn.with(|d| d.as_ref().map_or(0, |d| d.number));
    let x = move || bbox.get().x1;
    let y = move || bbox.get().y1;
    let width = move || bbox.get().x2 - bbox.get().x1;
    let height = move || bbox.get().y2 - bbox.get().y1;
    let is_own = matches!(id, BoxId::Own(_));
    view! {
        <g
            class=class
            data-testid="box"
            data-index=number
            data-lit=highlighted
            data-own=is_own.to_string()
        >
            <rect class="halo" x=x y=y width=width height=height />
            <rect class="line" x=x y=y width=width height=height />
        </g>
    }
}

fn drawn_order(app: AppState) -> Memo<Vec<BoxId>> {
    Memo::new(move |_| {
        app.drawn_boxes
            .with(|boxes| boxes.iter().map(|b| b.id).collect::<Vec<_>>())
    })
}

fn drawn_box(id: BoxId) -> Memo<Option<DrawnBox>> {
    let app = app_state();
    Memo::new(move |_| {
        app.drawn_boxes
            .with(|boxes| boxes.iter().find(|b| b.id == id).cloned())
    })
}

fn classes(drawn: &DrawnBox) -> String {
    let hue = drawn
        .hue
        .map_or("hue-none".to_owned(), |hue| format!("hue-{hue}"));
    let mut classes = format!("box {hue} dash-{}", drawn.dash);
    let is_own = matches!(drawn.id, BoxId::Own(_));
    for (class, is_set) in [
        (" own", is_own),
        (" dim", drawn.dim),
        (" lit", drawn.highlighted),
        (" selected", drawn.selected),
    ] {
        if is_set {
            classes.push_str(class);
        }
    }
    classes
}
