//! The picture and the boxes over it. `chat::overlay` decides which boxes are drawn and which one is
//! under the pointer.

use chatrex::chat::box_drawing::{Drawing, Point};
use chatrex::chat::candidates::BoxId;
use chatrex::chat::conversation::{Input, Picture};
use chatrex::chat::overlay::{DrawnBox, Highlight, Visibility, hit};
use chatrex::chat::question::QuestionKind;
use chatrex::chat::strings;
use chatrex::geometry::BoxXyxy;
use chatrex::protocol::ImageSize;
use leptos::html;
use leptos::prelude::*;
use leptos::svg;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{KeyboardEvent, PointerEvent, ResizeObserver};

use super::state::{AppState, app_state};

/// Margin around a box in which the pointer hits it, in screen pixels.
const HIT_SLACK: f32 = 3.0;

/// The picture, its boxes, the tools above and the bar of the selection below.
#[component]
pub fn Canvas() -> impl IntoView {
    let app = app_state();
    let pane = NodeRef::<html::Div>::new();
    let name = move || {
        let boxes = app.candidates.with(|c| c.boxes.len());
        (app.mentions).with(|m| strings::picture_name(boxes, m.as_ref().map(|m| &m.phrases[..])))
    };
    view! {
        <Tools />
        <div
            id="picture"
            class="pane"
            class:drawing=move || app.is_drawing.get()
            class:pointed=move || app.overlay.with(|o| !o.highlighted().is_empty())
            node_ref=pane
            data-testid="picture"
            tabindex="0"
            role="group"
            aria-label=name
            aria-describedby="picture-keys"
            on:keydown=move |event| on_key(app, &event)
        >
            {move || {
                app.address.get().map(|address| view! { <img src=address alt="" draggable="false" /> })
            }}
            <Boxes pane />
            <Show when=move || app.picture.with(Option::is_none)>
                <p class="pane-empty">"Drop a picture, paste one, or choose a file."</p>
            </Show>
            <SelectionBar />
        </div>
        <p id="picture-keys" class="hidden">
            "Keys: full stop and comma go from box to box, Enter asks about the selected ones, R draws, Escape lets go."
        </p>
    }
}

/// The boxes over the picture, and the pointer.
#[component]
fn Boxes(pane: NodeRef<html::Div>) -> impl IntoView {
    let app = app_state();
    let svg = NodeRef::<svg::Svg>::new();
    let pane_size = watch_size(pane);
    let scale = Memo::new(move |_| {
        let (width, height) = pane_size.get();
        app.picture.with(|p| {
            p.as_ref()
                .map_or(1.0, |p| Fit::new(p.size, width, height).scale)
        })
    });
    let pointer = Pointer { app, svg, scale };
    let view_box = move || {
        app.picture.with(|p| {
            p.as_ref()
                .map(|p| format!("0 0 {} {}", p.size.width, p.size.height))
        })
    };
    let order = Memo::new(move |_| {
        app.drawn_boxes
            .with(|boxes| boxes.iter().map(|b| b.id).collect::<Vec<_>>())
    });
    let preview = move || {
        app.drawing.with(Drawing::preview).map(|b| {
            view! {
                <rect class="preview" x={b.x1} y={b.y1} width={b.x2 - b.x1} height={b.y2 - b.y1} />
            }
        })
    };
    view! {
        <svg
            node_ref=svg
            class="boxes"
            viewBox=view_box
            preserveAspectRatio="xMidYMid meet"
            aria-hidden="true"
            on:pointerdown=move |event| pointer.press(&event)
            on:pointermove=move |event| pointer.motion(&event)
            on:pointerup=move |event| pointer.release(&event)
            on:pointerleave=move |_| app.overlay.maybe_update(|o| o.hover(None))
        >
            <For each=move || order.get() key=|id| *id children=move |id| view! { <Outline id /> } />
            <For
                each=move || order.get()
                key=|id| *id
                children=move |id| view! { <Label id scale /> }
            />
            {preview}
        </svg>
    }
}

/// The pointer over the picture: it draws, highlights and selects.
#[derive(Clone, Copy)]
struct Pointer {
    app: AppState,
    svg: NodeRef<svg::Svg>,
    /// Screen pixels per picture pixel.
    scale: Memo<f32>,
}

impl Pointer {
    fn press(self, event: &PointerEvent) {
        let draws = self.app.is_drawing.get_untracked() && event.button() == 0;
        if let Some(point) = self.inside(event).filter(|_| draws) {
            event.prevent_default();
            if let Some(svg) = self.svg.get_untracked() {
                // Without capture a drag beyond the edge ends early.
                let _ = svg.set_pointer_capture(event.pointer_id());
            }
            self.app.drawing.update(|d| d.press(point));
        }
    }

    fn motion(self, event: &PointerEvent) {
        if self.app.is_drawing.get_untracked() {
            if let Some(point) = self.inside(event) {
                self.app.drawing.update(|d| d.motion(point));
            }
        } else {
            let highlight = self.under(event).map(Highlight::one);
            self.app.overlay.maybe_update(|o| o.hover(highlight));
        }
    }

    fn release(self, event: &PointerEvent) {
        if self.app.is_drawing.get_untracked() {
            if let Some(point) = self.inside(event) {
                let scale = self.scale.get_untracked();
                let drawing = self.app.drawing;
                let drawn = drawing.try_update(|d| d.release(point, scale)).flatten();
                if let Some(bbox) = drawn {
                    self.app.add_box(bbox);
                }
            }
        } else if event.button() == 0 {
            let extend = event.shift_key() || event.ctrl_key() || event.meta_key();
            let under = self.under(event);
            self.app.overlay.update(|o| match under {
                Some(id) => o.select(id, extend),
                None => {
                    o.escape();
                }
            });
        }
    }

    /// The pointer in pixels of the picture, and the size of the picture.
    fn position(self, event: &PointerEvent) -> Option<(Point, ImageSize)> {
        let rect = self.svg.get_untracked()?.get_bounding_client_rect();
        let size = picture_size(self.app)?;
        let fit = Fit::new(size, rect.width() as f32, rect.height() as f32);
        let x = (event.client_x() as f32 - rect.left() as f32 - fit.left) / fit.scale;
        let y = (event.client_y() as f32 - rect.top() as f32 - fit.top) / fit.scale;
        Some(((x, y), size))
    }

    /// The pointer, clamped to the picture.
    fn inside(self, event: &PointerEvent) -> Option<Point> {
        let ((x, y), size) = self.position(event)?;
        Some((
            x.clamp(0.0, size.width as f32),
            y.clamp(0.0, size.height as f32),
        ))
    }

    /// The box under the pointer.
    fn under(self, event: &PointerEvent) -> Option<BoxId> {
        let (point, _) = self.position(event)?;
        let slack = HIT_SLACK / self.scale.get_untracked();
        (self.app.drawn_boxes).with_untracked(|boxes| hit(boxes, point, slack))
    }
}

fn picture_size(app: AppState) -> Option<ImageSize> {
    app.picture.with_untracked(|p| p.as_ref().map(|p| p.size))
}

#[component]
fn Tools() -> impl IntoView {
    let app = app_state();
    let toggle_drawing = move |_| {
        app.drawing.set(Drawing::Idle);
        app.is_drawing.update(|draws| *draws = !*draws);
    };
    view! {
        <div class="tools">
            <button
                type="button"
                class="button small"
                data-testid="draw"
                aria-pressed=move || app.is_drawing.get().to_string()
                disabled=move || app.picture.with(Option::is_none)
                on:click=toggle_drawing
            >
                "Draw a box"
            </button>
            <fieldset class="segments">
                <legend class="hidden">"Boxes shown"</legend>
                <VisibilityButton visibility=Visibility::All label="All" />
                <VisibilityButton visibility=Visibility::Mentioned label="Mentioned" />
                <VisibilityButton visibility=Visibility::Selected label="Selected" />
                <VisibilityButton visibility=Visibility::Nothing label="None" />
            </fieldset>
        </div>
    }
}

#[component]
fn VisibilityButton(visibility: Visibility, label: &'static str) -> impl IntoView {
    let app = app_state();
    let value = label.to_lowercase();
    view! {
        <label>
            <input
                type="radio"
                name="show"
                value=value.clone()
                data-testid=format!("show-{value}")
                prop:checked=move || app.overlay.with(|o| o.show == visibility)
                on:change=move |_| app.overlay.update(|o| o.show = visibility)
            />
            <span>{label}</span>
        </label>
    }
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
    view! {
        <g class=class data-testid="box" data-index=number data-lit=highlighted>
            <rect class="halo" x=x y=y width=width height=height />
            <rect class="line" x=x y=y width=width height=height />
        </g>
    }
}

/// The label of a box: as large as on the screen whatever the scale, and inside the picture.
#[component]
fn Label(id: BoxId, scale: Memo<f32>) -> impl IntoView {
    let app = app_state();
    let drawn = drawn_box(id);
    let label = move || {
        let scale = scale.get();
        let size = app.picture.with(|p| p.as_ref().map(|p| p.size))?;
        drawn.with(|drawn| {
            let drawn = drawn.as_ref()?;
            let text = drawn.caption(scale);
            // One screen pixel in picture pixels.
            let unit = 1.0 / scale;
            let width = (text.chars().count() as f32 * 6.8 + 9.0) * unit;
            let height = 17.0 * unit;
            let x = drawn.bbox.x1.min(size.width as f32 - width).max(0.0);
            let above = drawn.bbox.y1 - height;
            let y = if above >= 0.0 {
                above
            } else {
                drawn.bbox.y1.min(size.height as f32 - height)
            };
            Some(view! {
                <g class=format!("label {}", classes(drawn)) data-testid="box-label">
                    <rect x=x y=y width=width height=height rx={3.0 * unit} />
                    <text x={x + 4.5 * unit} y={y + 12.6 * unit} font-size={11.5 * unit}>
                        {text}
                    </text>
                </g>
            })
        })
    };
    view! { {label} }
}

/// The actions on the selected boxes.
#[component]
fn SelectionBar() -> impl IntoView {
    let app = app_state();
    let is_shown = Memo::new(move |_| app.overlay.with(|o| !o.selection().is_empty()));
    let text = move || match app.overlay.with(|o| o.selected()) {
        Some(id) => app.drawn_boxes.with(|boxes| {
            let drawn = boxes.iter().find(|b| b.id == id);
            drawn.map_or(String::new(), DrawnBox::description)
        }),
        None => format!("{} boxes", app.overlay.with(|o| o.selection().len())),
    };
    let is_own = move || matches!(app.overlay.with(|o| o.selected()), Some(BoxId::Own(_)));
    let ask = move |kind: QuestionKind| {
        let marks = app.selection_marks();
        if !marks.is_empty() {
            app.ask(kind, &marks.join("; "));
        }
    };
    let erase = move |_| {
        if let Some(id) = app.overlay.with_untracked(|o| o.selected()) {
            app.erase(id);
        }
    };
    view! {
        <Show when=move || is_shown.get()>
            <div class="selection" data-testid="selection-bar">
                <span class="selection-words">{text}</span>
                <button
                    type="button"
                    data-testid="name-it"
                    disabled=move || !app.can_ask.get()
                    on:click=move |_| ask(QuestionKind::Name)
                >
                    "Name it"
                </button>
                <button
                    type="button"
                    data-testid="describe-it"
                    disabled=move || !app.can_ask.get()
                    on:click=move |_| ask(QuestionKind::DescribeBox)
                >
                    "Describe it"
                </button>
                <button type="button" data-testid="ask-it" on:click=move |_| app.cite_selection()>
                    "Ask…"
                </button>
                <Show when=is_own>
                    <button type="button" data-testid="delete-box" on:click=erase>
                        "Delete"
                    </button>
                </Show>
            </div>
        </Show>
    }
}

/// Keys while the picture has the focus.
fn on_key(app: AppState, event: &KeyboardEvent) {
    if event.ctrl_key() || event.meta_key() || event.alt_key() {
        return;
    }
    let key = event.key();
    let selected = app.overlay.with_untracked(|o| o.selected());
    match (key.as_str(), selected) {
        ("Escape", _) => {
            let cancelled = app.drawing.try_update(Drawing::cancel) == Some(true);
            if !cancelled && !app.is_drawing.get_untracked() {
                return;
            }
            if !cancelled {
                app.is_drawing.set(false);
            }
        }
        ("r" | "R" | "n" | "N", _) => app.is_drawing.set(true),
        ("v" | "V", _) => app.is_drawing.set(false),
        (".", _) => select_neighbor(app, 1),
        (",", _) => select_neighbor(app, -1),
        ("Enter", _) if app.is_drawing.get_untracked() => add_middle_box(app),
        ("Enter", _) => app.cite_selection(),
        ("Delete" | "Backspace", Some(id)) => app.erase(id),
        ("Delete" | "Backspace", None) => {}
        (key, Some(BoxId::Own(number))) => {
            let Some((dx, dy)) = arrow(key) else {
                return;
            };
            let step = if event.shift_key() { 10.0 } else { 1.0 };
            nudge(app, number, dx * step, dy * step);
        }
        _ => return,
    }
    event.prevent_default();
}

/// The direction of an arrow key.
fn arrow(key: &str) -> Option<(f32, f32)> {
    match key {
        "ArrowLeft" => Some((-1.0, 0.0)),
        "ArrowRight" => Some((1.0, 0.0)),
        "ArrowUp" => Some((0.0, -1.0)),
        "ArrowDown" => Some((0.0, 1.0)),
        _ => None,
    }
}

/// Adds a box of a third of the picture in its middle, for drawing without a pointer.
fn add_middle_box(app: AppState) {
    if let Some(size) = picture_size(app) {
        let (w, h) = (size.width as f32, size.height as f32);
        app.add_box([w / 3.0, h / 3.0, w * 2.0 / 3.0, h * 2.0 / 3.0].into());
    }
}

/// Moves a box of the user by picture pixels.
fn nudge(app: AppState, number: u32, dx: f32, dy: f32) {
    let own = |picture: &Option<Picture>| picture.as_ref().and_then(|p| p.own(number));
    if let Some(b) = app.picture.with_untracked(own) {
        let moved = [b.x1 + dx, b.y1 + dy, b.x2 + dx, b.y2 + dy].into();
        app.act(Input::Reshape(number, moved));
    }
}

/// Selects the next or the previous box in the order of numbers.
fn select_neighbor(app: AppState, step: isize) {
    let now = app.overlay.with_untracked(|o| o.selected());
    let next = app.candidates.with_untracked(|c| c.neighbor(now, step));
    if let Some(id) = next.filter(|_| next != now) {
        app.overlay.update(|o| o.select(id, false));
    }
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

/// A picture that is shown whole and centered.
struct Fit {
    /// Screen pixels per picture pixel.
    scale: f32,
    /// Left margin in screen pixels.
    left: f32,
    /// Top margin in screen pixels.
    top: f32,
}

impl Fit {
    /// In a pane of `w` by `h` screen pixels.
    fn new(size: ImageSize, w: f32, h: f32) -> Self {
        let (width, height) = (size.width as f32, size.height as f32);
        let scale = (w / width).min(h / height).max(1e-6);
        Self {
            scale,
            left: (w - width * scale) / 2.0,
            top: (h - height * scale) / 2.0,
        }
    }
}

/// The size of an element in CSS pixels, updated when it changes.
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
        // The pane lives as long as the page.
        measure.forget();
    });
    size
}
