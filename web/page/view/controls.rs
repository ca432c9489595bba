//! Which boxes there are: granularity and the two filters.

use chatrex::chat::box_strings;
use chatrex::chat::candidates::Filter;
use chatrex::chat::conversation::{BoxChange, Input, Model};
use chatrex::chat::object_list::{bar_heights, histogram};
use chatrex::chat::page_strings;
use chatrex::chat::strings;
use chatrex::chat::words::Word;
use chatrex::protocol::Granularity;
use leptos::prelude::*;

use super::state::app_state;

/// Granularity and the sliders of the filters.
#[component]
pub fn Controls() -> impl IntoView {
    let app = app_state();
    let change = move |change: &dyn Fn(&mut Filter)| {
        let mut filter = app.filter.get_untracked();
        change(&mut filter);
        app.act(Input::Filter(filter));
    };
    let set_score = move |score: f32| {
        app.model.with_untracked(|model| {
            let filter = app.filter.get_untracked();
            let defaults = match model {
                Model::Ready(card) => Filter::of(card),
                _ => filter,
            };
            app.act(Input::Filter(filter.with_score(score, defaults)));
        });
    };
    let nms = move || app.filter.with(|f| f.nms);
    let count = move || app.candidates.with(|c| box_strings::box_count(c));
    let removed = Memo::new(move |_| {
        app.picture
            .with(|p| p.as_ref().map_or(0, |p| p.edits().removed.len()))
    });
    view! {
        <div class="controls">
            <fieldset class="segments">
                <legend class="hidden">{page_strings::GRANULARITY}</legend>
                <GranularityButton granularity=Granularity::Coarse label=page_strings::WHOLE_OBJECTS />
                <GranularityButton granularity=Granularity::Fine label=page_strings::PARTS_TOO />
            </fieldset>
            <FilterSlider
                name=box_strings::SCORE
                id="score"
                min=0.0
                value=Signal::derive(move || f64::from(app.filter.with(|f| f.score)))
                set=move |value| set_score(value as f32)
                behind=histogram_view
            />
            <FilterSlider
                name=box_strings::OVERLAP
                id="nms"
                min=0.1
                value=Signal::derive(nms)
                note=Signal::derive(move || match nms() {
                    all if all >= 1.0 => strings::nms(all),
                    _ => String::new(),
                })
                set=move |value| change(&|filter| filter.nms = value)
            />
            <p class="hint box-total">
                <span data-testid="box-total">{count}</span>
                <Show when=move || { removed.get() > 0 }>
                    " "
                    <button
                        type="button"
                        class="link"
                        data-testid="restore-boxes"
                        title=box_strings::RESTORE_NAME
                        on:click=move |_| app.change_boxes(BoxChange::Restore)
                    >
                        {move || box_strings::restore(removed.get())}
                    </button>
                </Show>
            </p>
        </div>
    }
}

/// A slider up to 1 with its name, a number field, and something behind it.
#[component]
fn FilterSlider(
    name: Word,
    id: &'static str,
    min: f64,
    value: Signal<f64>,
    #[prop(optional)] note: Option<Signal<String>>,
    set: impl Fn(f64) + Copy + 'static,
    #[prop(optional)] behind: Option<fn() -> AnyView>,
) -> impl IntoView {
    let decimals = move || format!("{:.2}", value.get());
    let on_input = move |event| {
        if let Ok(value) = event_target_value(&event).parse() {
            set(value);
        }
    };
    let on_change = move |event: leptos::ev::Event| {
        if let Ok(typed) = event_target_value(&event).trim().parse::<f64>()
            && typed.is_finite()
        {
            set(typed.clamp(min, 1.0));
        }
        let input: web_sys::HtmlInputElement = event_target(&event);
        // The page shows what it took with the next frame.
        request_animation_frame(move || {
            request_animation_frame(move || input.set_value(&untrack(decimals)));
        });
    };
    view! {
        <div class="slider filter">
            <span aria-hidden="true">{name}</span>
            <span class="filter-value">
                <span>{move || note.map(|note| note.get())}</span>
                <input
                    type="number"
                    min=min.to_string()
                    max="1"
                    step="0.01"
                    aria-label=move || box_strings::as_number(name())
                    data-testid=format!("{id}-number")
                    prop:value=decimals
                    on:change=on_change
                />
            </span>
            <span class="filter-track">
                {behind.map(|behind| behind())}
                <input
                    type="range"
                    min=min.to_string()
                    max="1"
                    step="0.01"
                    aria-label=name
                    data-testid=format!("{id}-slider")
                    prop:value=decimals
                    on:input=on_input
                />
            </span>
        </div>
    }
}

fn histogram_view() -> AnyView {
    view! { <Histogram /> }.into_any()
}

/// The scores of all proposals; those below the threshold are paler.
#[component]
fn Histogram() -> impl IntoView {
    const BINS: usize = 50;
    let app = app_state();
    let heights = Memo::new(move |_| {
        let granularity = app.granularity.get();
        let scores = (app.picture).with(|p| p.as_ref().map(|p| p.scores(granularity)));
        bar_heights(&histogram(scores.unwrap_or_default(), BINS))
    });
    // A bin is pale when its middle is below the threshold.
    let pale_bins = Memo::new(move |_| {
        let threshold = app.filter.with(|f| f.score);
        (0..BINS)
            .filter(|&bin| (bin as f32 + 0.5) / (BINS as f32) < threshold)
            .count()
    });
    let bars = move || {
        heights
            .get()
            .into_iter()
            .enumerate()
            .filter(|(_, height)| *height > 0.0)
            .map(|(bin, height)| {
                let is_below = move || bin < pale_bins.get();
                // The least bar can still be seen.
                let height = 20.0 * height.max(0.08);
                view! {
                    <rect class:below=is_below x={bin * 4} y={20.0 - height} width="3" height=height />
                }
            })
            .collect_view()
    };
    view! {
        <svg
            class="histogram"
            viewBox="0 0 200 20"
            preserveAspectRatio="none"
            aria-hidden="true"
            data-testid="histogram"
        >
            {bars}
        </svg>
    }
}

#[component]
fn GranularityButton(granularity: Granularity, label: Word) -> impl IntoView {
    let app = app_state();
    let value = format!("{granularity:?}").to_lowercase();
    view! {
        <label>
            <input
                type="radio"
                name="granularity"
                value=value.clone()
                data-testid=format!("granularity-{value}")
                prop:checked=move || app.granularity.get() == granularity
                on:change=move |_| app.act(Input::Prefer(granularity))
            />
            <span>{label}</span>
        </label>
    }
}
