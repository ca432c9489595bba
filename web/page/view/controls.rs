//! Which boxes there are: granularity and the two filters.

use chatrex::chat::candidates::Filter;
use chatrex::chat::conversation::{Input, Model};
use chatrex::chat::strings;
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
    let left_out = move || app.candidates.with(|c| strings::left_out(c));
    view! {
        <div class="controls">
            <fieldset class="segments">
                <legend class="hidden">"What to look for"</legend>
                <GranularityButton granularity=Granularity::Coarse label="Whole objects" />
                <GranularityButton granularity=Granularity::Fine label="Parts too" />
            </fieldset>
            <Slider
                name="Minimum confidence"
                id="score-slider"
                min="0"
                value=move || f64::from(app.filter.with(|f| f.score))
                set=move |value| set_score(value as f32)
            />
            <Slider
                name="Merge overlapping boxes"
                id="nms-slider"
                min="0.1"
                value=nms
                shown=Signal::derive(move || strings::nms(nms()))
                set=move |value| change(&|filter| filter.nms = value)
            />
            {move || left_out().map(|text| view! { <p class="hint" data-testid="left-out">{text}</p> })}
        </div>
    }
}

/// A slider up to 1 with its name and its value; `shown` is the value in words, by default with two
/// decimals.
#[component]
pub fn Slider(
    name: &'static str,
    id: &'static str,
    min: &'static str,
    value: impl Fn() -> f64 + Copy + Send + Sync + 'static,
    #[prop(optional)] shown: Option<Signal<String>>,
    set: impl Fn(f64) + 'static,
) -> impl IntoView {
    let decimals = move || format!("{:.2}", value());
    let shown = shown.unwrap_or_else(|| Signal::derive(decimals));
    let on_input = move |event| {
        if let Ok(value) = event_target_value(&event).parse() {
            set(value);
        }
    };
    view! {
        <label class="slider">
            <span>{name}</span>
            <output>{move || shown.get()}</output>
            <input
                type="range"
                min=min
                max="1"
                step="0.01"
                data-testid=id
                prop:value=decimals
                on:input=on_input
            />
        </label>
    }
}

#[component]
fn GranularityButton(granularity: Granularity, label: &'static str) -> impl IntoView {
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
