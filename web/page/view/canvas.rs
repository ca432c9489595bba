//! The picture and the boxes over it; drawing only. What is drawn and what lies under the pointer
//! is `chat::overlay`'s business.

use chatrex::chat::box_drawing::{Drawing, Point};
use chatrex::chat::candidates::BoxId;
use chatrex::chat::conversation::Input;
use chatrex::chat::overlay::{DrawnBox, Highlight, Visibility, hit};
use chatrex::geometry::BoxXyxy;
use leptos::html;
use leptos::prelude::*;
use leptos::svg;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{KeyboardEvent, PointerEvent, ResizeObserver};

use super::state::{AppState, app_state};
use chatrex::chat::question::Task;

/// Labels longer than this are cut on the picture.
const LABEL_CHARS: usize = 26;

/// Boxes narrower than this on the screen show their number only.
const ROOM_FOR_LABEL: f32 = 40.0;

/// The picture, its boxes, the tools above and the bar of the selection below.
#[component]
pub fn Canvas() -> impl IntoView {
    let desk = app_state();
    let pane = NodeRef::<html::Div>::new();
    let over = NodeRef::<svg::Svg>::new();
    let size = watch_size(pane);
    let scale = Memo::new(move |_| {
        let (w, h) = size.get();
        desk.picture
            .with(|p| p.as_ref().map_or(1.0, |p| fit(p.width, p.height, w, h).0))
    });
    let view_box = move || {
        desk.picture
            .with(|p| p.as_ref().map(|p| format!("0 0 {} {}", p.width, p.height)))
    };
    let at = move |event: &PointerEvent| {
        let svg = over.get_untracked()?;
        let rect = svg.get_bounding_client_rect();
        let (w, h) = desk
            .picture
            .with_untracked(|p| p.as_ref().map(|p| (p.width, p.height)))?;
        let (scale, left, top) = fit(w, h, rect.width() as f32, rect.height() as f32);
        let x = (event.client_x() as f32 - rect.left() as f32 - left) / scale;
        let y = (event.client_y() as f32 - rect.top() as f32 - top) / scale;
        Some((x, y, w as f32, h as f32))
    };
    let inside = move |event: &PointerEvent| -> Option<Point> {
        let (x, y, w, h) = at(event)?;
        Some((x.clamp(0.0, w), y.clamp(0.0, h)))
    };
    let under = move |event: &PointerEvent| {
        let (x, y, ..) = at(event)?;
        desk.marks
            .with_untracked(|marks| hit(marks, (x, y), 3.0 / scale.get_untracked()))
    };

    let press = move |event: PointerEvent| {
        let drawn = desk.draws.get_untracked() && event.button() == 0;
        if let Some(point) = inside(&event).filter(|_| drawn) {
            event.prevent_default();
            if let Some(svg) = over.get_untracked() {
                // Without capture a drag beyond the edge merely ends early.
                let _ = svg.set_pointer_capture(event.pointer_id());
            }
            desk.drawing.update(|d| d.press(point));
        }
    };
    let motion = move |event: PointerEvent| {
        if desk.draws.get_untracked() {
            if let Some(point) = inside(&event) {
                desk.drawing.update(|d| d.motion(point));
            }
        } else {
            let cite = under(&event).map(Highlight::one);
            desk.overlay.maybe_update(|o| o.hover(cite));
        }
    };
    let release = move |event: PointerEvent| {
        if desk.draws.get_untracked() {
            if let Some(point) = inside(&event) {
                let scale = scale.get_untracked();
                let drawn = desk
                    .drawing
                    .try_update(|d| d.release(point, scale))
                    .flatten();
                if let Some(bbox) = drawn {
                    keep_own(desk, bbox);
                }
            }
        } else if event.button() == 0 {
            let extend = event.shift_key() || event.ctrl_key() || event.meta_key();
            match under(&event) {
                Some(id) => desk.overlay.update(|o| o.select(id, extend)),
                None => desk.overlay.update(|o| {
                    o.escape();
                }),
            }
        }
    };
    let leave = move |_| desk.overlay.maybe_update(|o| o.hover(None));

    let order = Memo::new(move |_| {
        desk.marks
            .with(|m| m.iter().map(|m| m.id).collect::<Vec<_>>())
    });
    let name = move || {
        let boxes = desk.candidates.with(|c| c.boxes.len());
        let said = desk.mentions.with(|m| {
            m.as_ref().map(|m| {
                let names = m.phrases.iter().map(|p| p.text.trim().to_owned());
                names.collect::<Vec<_>>().join(", ")
            })
        });
        match said {
            Some(said) => format!("The picture, with {boxes} boxes. Mentioned: {said}"),
            None => format!("The picture, with {boxes} boxes"),
        }
    };

    view! {
        <Tools />
        <div
            id="picture"
            class="pane"
            class:drawing=move || desk.draws.get()
            class:pointed=move || desk.overlay.with(|o| !o.highlighted().is_empty())
            node_ref=pane
            data-testid="picture"
            tabindex="0"
            role="group"
            aria-label=name
            aria-describedby="picture-keys"
            on:keydown=move |event| use_key(desk, &event)
        >
            {move || {
                desk.address.get().map(|address| view! { <img src=address alt="" draggable="false" /> })
            }}
            <svg
                node_ref=over
                class="boxes"
                viewBox=view_box
                preserveAspectRatio="xMidYMid meet"
                aria-hidden="true"
                on:pointerdown=press
                on:pointermove=motion
                on:pointerup=release
                on:pointerleave=leave
            >
                <For each=move || order.get() key=|id| *id children=move |id| view! { <Outline id /> } />
                <For
                    each=move || order.get()
                    key=|id| *id
                    children=move |id| view! { <Label id scale /> }
                />
                {move || {
                    desk.drawing.with(Drawing::preview).map(|b| view! {
                        <rect class="preview" x={b.x1} y={b.y1} width={b.x2 - b.x1} height={b.y2 - b.y1} />
                    })
                }}
            </svg>
            <Show when=move || desk.picture.with(Option::is_none)>
                <p class="pane-empty">"Drop a picture, paste one, or choose a file."</p>
            </Show>
            <SelectionBar />
        </div>
        <p id="picture-keys" class="hidden">
            "Keys: full stop and comma go from box to box, Enter asks about the selected ones, R draws, Escape lets go."
        </p>
    }
}

#[component]
fn Tools() -> impl IntoView {
    let desk = app_state();
    let ways = [
        (Visibility::All, "All"),
        (Visibility::Mentioned, "Mentioned"),
        (Visibility::Selected, "Selected"),
        (Visibility::Nothing, "None"),
    ];
    let toggle_drawing = move |_| {
        desk.drawing.set(Drawing::Idle);
        desk.draws.update(|draws| *draws = !*draws);
    };
    view! {
        <div class="tools">
            <button
                type="button"
                class="button small"
                data-testid="draw"
                aria-pressed=move || desk.draws.get().to_string()
                disabled=move || desk.picture.with(Option::is_none)
                on:click=toggle_drawing
            >
                "Draw a box"
            </button>
            <fieldset class="segments">
                <legend class="hidden">"Boxes shown"</legend>
                {ways
                    .map(|(way, word)| {
                        let value = word.to_lowercase();
                        view! {
                            <label>
                                <input
                                    type="radio"
                                    name="show"
                                    value=value.clone()
                                    data-testid=format!("show-{value}")
                                    prop:checked=move || desk.overlay.with(|o| o.show == way)
                                    on:change=move |_| desk.overlay.update(|o| o.show = way)
                                />
                                <span>{word}</span>
                            </label>
                        }
                    })
                    .collect_view()}
            </fieldset>
        </div>
    }
}

#[component]
fn Outline(id: BoxId) -> impl IntoView {
    let mark = mark_of(id);
    let bbox = Memo::new(move |_| mark.with(|m| m.as_ref().map_or(BoxXyxy::default(), |m| m.bbox)));
    let class = move || mark.with(|m| m.as_ref().map_or(String::new(), classes));
    let lit = move || mark.with(|m| m.as_ref().is_some_and(|m| m.lit)).to_string();
    let number = move || mark.with(|m| m.as_ref().map_or(0, |m| m.number));
    let x = move || bbox.get().x1;
    let y = move || bbox.get().y1;
    let width = move || bbox.get().x2 - bbox.get().x1;
    let height = move || bbox.get().y2 - bbox.get().y1;
    view! {
        <g class=class data-testid="box" data-index=number data-lit=lit>
            <rect class="halo" x=x y=y width=width height=height />
            <rect class="line" x=x y=y width=width height=height />
        </g>
    }
}

#[component]
fn Label(id: BoxId, scale: Memo<f32>) -> impl IntoView {
    let desk = app_state();
    let mark = mark_of(id);
    let tag = move || {
        let scale = scale.get();
        let (w, h) = desk
            .picture
            .with(|p| p.as_ref().map(|p| (p.width, p.height)))?;
        mark.with(|mark| {
            let mark = mark.as_ref()?;
            let text = caption(mark, scale);
            let unit = 1.0 / scale;
            let width = (text.chars().count() as f32 * 6.8 + 9.0) * unit;
            let height = 17.0 * unit;
            let x = mark.bbox.x1.min(w as f32 - width).max(0.0);
            let above = mark.bbox.y1 - height;
            let y = if above >= 0.0 {
                above
            } else {
                mark.bbox.y1.min(h as f32 - height)
            };
            Some(view! {
                <g class=format!("label {}", classes(mark))>
                    <rect x=x y=y width=width height=height rx={3.0 * unit} />
                    <text x={x + 4.5 * unit} y={y + 12.6 * unit} font-size={11.5 * unit}>
                        {text}
                    </text>
                </g>
            })
        })
    };
    view! { {tag} }
}

/// What can be done with the selected boxes.
#[component]
fn SelectionBar() -> impl IntoView {
    let desk = app_state();
    let some = Memo::new(move |_| desk.overlay.with(|o| !o.selection().is_empty()));
    let words = move || {
        let marks = desk.overlay.with(|o| o.selection().len());
        match desk.overlay.with(|o| o.selected()) {
            Some(id) => desk.marks.with(|all| {
                let mark = all.iter().find(|m| m.id == id);
                mark.map_or(String::new(), |m| {
                    format!("Box {}{}", m.number, described(m))
                })
            }),
            None => format!("{marks} boxes"),
        }
    };
    let own = move || matches!(desk.overlay.with(|o| o.selected()), Some(BoxId::Own(_)));
    let put = move |task: Task| {
        let marks = desk.selection_marks();
        if !marks.is_empty() {
            desk.ask(task, &marks);
        }
    };
    let erase = move |_| {
        if let Some(id) = desk.overlay.with_untracked(|o| o.selected()) {
            desk.erase(id);
        }
    };
    view! {
        <Show when=move || some.get()>
            <div class="selection" data-testid="selection-bar">
                <span class="selection-words">{words}</span>
                <button
                    type="button"
                    data-testid="name-it"
                    disabled=move || !desk.can_ask.get()
                    on:click=move |_| put(Task::Name)
                >
                    "Name it"
                </button>
                <button
                    type="button"
                    data-testid="describe-it"
                    disabled=move || !desk.can_ask.get()
                    on:click=move |_| put(Task::DescribeBox)
                >
                    "Describe it"
                </button>
                <button type="button" data-testid="ask-it" on:click=move |_| desk.cite_selection()>
                    "Ask…"
                </button>
                <Show when=own>
                    <button type="button" data-testid="delete-box" on:click=erase>
                        "Delete"
                    </button>
                </Show>
            </div>
        </Show>
    }
}

/// Keys while the picture has the focus.
fn use_key(desk: AppState, event: &KeyboardEvent) {
    if event.ctrl_key() || event.meta_key() || event.alt_key() {
        return;
    }
    let step = if event.shift_key() { 10.0 } else { 1.0 };
    let selected = desk.overlay.with_untracked(|o| o.selected());
    let own = match selected {
        Some(BoxId::Own(number)) => Some(number),
        _ => None,
    };
    match event.key().as_str() {
        "Escape" => {
            let given_up = desk.drawing.try_update(Drawing::cancel) == Some(true);
            if !given_up && !desk.draws.get_untracked() {
                return;
            }
            if !given_up {
                desk.draws.set(false);
            }
        }
        "r" | "R" | "n" | "N" => desk.draws.set(true),
        "v" | "V" => desk.draws.set(false),
        "." => next_box(desk, 1),
        "," => next_box(desk, -1),
        "Enter" if desk.draws.get_untracked() => {
            if let Some((w, h)) = desk
                .picture
                .with_untracked(|p| p.as_ref().map(|p| (p.width, p.height)))
            {
                let (w, h) = (w as f32, h as f32);
                keep_own(
                    desk,
                    [w / 3.0, h / 3.0, w * 2.0 / 3.0, h * 2.0 / 3.0].into(),
                );
            }
        }
        "Enter" => desk.cite_selection(),
        "Delete" | "Backspace" => {
            if let Some(id) = selected {
                desk.erase(id);
            }
        }
        "ArrowLeft" if own.is_some() => nudge(desk, own, -step, 0.0),
        "ArrowRight" if own.is_some() => nudge(desk, own, step, 0.0),
        "ArrowUp" if own.is_some() => nudge(desk, own, 0.0, -step),
        "ArrowDown" if own.is_some() => nudge(desk, own, 0.0, step),
        _ => return,
    }
    event.prevent_default();
}

/// Makes a box the person's own and selects it.
fn keep_own(desk: AppState, bbox: BoxXyxy) {
    desk.draws.set(false);
    let number = desk
        .picture
        .with_untracked(|p| p.as_ref().map(|p| p.next_own()));
    desk.act(Input::Draw(bbox));
    if let Some(number) = number {
        desk.overlay.update(|o| {
            while o.escape() {}
            o.select(BoxId::Own(number), false);
        });
    }
}

fn nudge(desk: AppState, own: Option<u32>, dx: f32, dy: f32) {
    let bbox = own.and_then(|own| {
        let bbox = desk
            .picture
            .with_untracked(|p| p.as_ref().and_then(|p| p.own(own)))?;
        Some((own, bbox))
    });
    if let Some((own, b)) = bbox {
        let moved = [b.x1 + dx, b.y1 + dy, b.x2 + dx, b.y2 + dy].into();
        desk.act(Input::Reshape(own, moved));
    }
}

/// Selects the next box in the order of numbers.
fn next_box(desk: AppState, step: isize) {
    let ids: Vec<_> = desk
        .candidates
        .with_untracked(|c| c.boxes.iter().map(|b| b.id).collect());
    if ids.is_empty() {
        return;
    }
    let now = desk.overlay.with_untracked(|o| o.selected());
    let place = now.and_then(|id| ids.iter().position(|&i| i == id));
    let next = match place {
        Some(place) => (place as isize + step).rem_euclid(ids.len() as isize) as usize,
        None if step > 0 => 0,
        None => ids.len() - 1,
    };
    if now != Some(ids[next]) {
        desk.overlay.update(|o| o.select(ids[next], false));
    }
}

fn mark_of(id: BoxId) -> Memo<Option<DrawnBox>> {
    let desk = app_state();
    Memo::new(move |_| {
        desk.marks
            .with(|marks| marks.iter().find(|m| m.id == id).cloned())
    })
}

fn classes(mark: &DrawnBox) -> String {
    let hue = mark
        .hue
        .map_or("hue-none".to_owned(), |hue| format!("hue-{hue}"));
    let own = if matches!(mark.id, BoxId::Own(_)) {
        " own"
    } else {
        ""
    };
    let dim = if mark.dim { " dim" } else { "" };
    let lit = if mark.lit { " lit" } else { "" };
    let selected = if mark.selected { " selected" } else { "" };
    format!("box {hue} dash-{}{own}{dim}{lit}{selected}", mark.dash)
}

fn caption(mark: &DrawnBox, scale: f32) -> String {
    let wide = (mark.bbox.x2 - mark.bbox.x1) * scale >= ROOM_FOR_LABEL;
    match &mark.label {
        Some(label) if wide || mark.lit => {
            let cut: String = label.chars().take(LABEL_CHARS).collect();
            let more = if cut.len() < label.len() { "…" } else { "" };
            format!("{} {cut}{more}", mark.number)
        }
        _ => mark.number.to_string(),
    }
}

fn described(mark: &DrawnBox) -> String {
    match (&mark.label, mark.score) {
        (Some(label), Some(score)) => format!(" · {label} · {score:.2}"),
        (None, Some(score)) => format!(" · {score:.2}"),
        (Some(label), None) => format!(" · {label} · yours"),
        (None, None) => " · yours".to_owned(),
    }
}

/// Scale and margins of a picture shown whole and centred in `w` by `h`.
fn fit(width: u32, height: u32, w: f32, h: f32) -> (f32, f32, f32) {
    let (width, height) = (width as f32, height as f32);
    let scale = (w / width).min(h / height).max(1e-6);
    (scale, (w - width * scale) / 2.0, (h - height * scale) / 2.0)
}

/// The size of an element in CSS pixels, kept up to date.
fn watch_size(node: NodeRef<html::Div>) -> RwSignal<(f32, f32)> {
    let size = RwSignal::new((1.0, 1.0));
    Effect::new(move |_| {
        let Some(element) = node.get() else {
            return;
        };
        let measured = element.clone();
        let measure = Closure::<dyn FnMut()>::new(move || {
            size.set((
                measured.client_width() as f32,
                measured.client_height() as f32,
            ));
        });
        if let Ok(observer) = ResizeObserver::new(measure.as_ref().unchecked_ref()) {
            observer.observe(&element);
        }
        // The pane lives as long as the page does.
        measure.forget();
    });
    size
}
