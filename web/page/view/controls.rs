//! Which boxes there are: granularity and the two filters. They only filter what was found.

use chatrex::chat::candidates::Filter;
use chatrex::chat::conversation::Input;
use chatrex::protocol::Granularity;
use chatrex::text::prompt::MAX_BOXES;
use leptos::prelude::*;

use super::state::app_state;

/// Granularity and sliders.
#[component]
pub fn Controls() -> impl IntoView {
    let desk = app_state();
    let score = move || f64::from(desk.filter.with(|f| f.score));
    let nms = move || desk.filter.with(|f| f.nms);
    let score_words = move || format!("{:.2}", score());
    let nms_words = move || match nms() {
        all if all >= 1.0 => "keep all".to_owned(),
        nms => format!("{nms:.2}"),
    };
    let set_score = move |value: f64| {
        let nms = desk.filter.with_untracked(|f| f.nms);
        desk.act(Input::Filter(Filter {
            score: value as f32,
            nms,
        }));
    };
    let set_nms = move |value: f64| {
        let score = desk.filter.with_untracked(|f| f.score);
        desk.act(Input::Filter(Filter { score, nms: value }));
    };
    let left_out = move || {
        let left_out = desk.candidates.with(|c| c.left_out);
        (left_out > 0)
            .then(|| format!("{left_out} more pass, but {MAX_BOXES} is the most the chat can use."))
    };
    view! {
        <div class="controls">
            <fieldset class="segments">
                <legend class="hidden">"What to look for"</legend>
                <Way granularity=Granularity::Coarse words="Whole objects" />
                <Way granularity=Granularity::Fine words="Parts too" />
            </fieldset>
            <Slider name="Minimum confidence" id="score-slider" least="0" value=score shown=score_words set=set_score />
            <Slider name="Merge overlapping boxes" id="nms-slider" least="0.1" value=nms shown=nms_words set=set_nms />
            {move || left_out().map(|words| view! { <p class="hint" data-testid="left-out">{words}</p> })}
        </div>
    }
}

/// A slider up to 1 with its name and its value in words.
#[component]
pub fn Slider(
    name: &'static str,
    id: &'static str,
    least: &'static str,
    value: impl Fn() -> f64 + Copy + Send + 'static,
    shown: impl Fn() -> String + Send + 'static,
    set: impl Fn(f64) + 'static,
) -> impl IntoView {
    view! {
        <label class="slider">
            <span>{name}</span>
            <output>{shown}</output>
            <input
                type="range"
                min=least
                max="1"
                step="0.01"
                data-testid=id
                prop:value=move || format!("{:.2}", value())
                on:input=move |event| number(&event).map_or((), &set)
            />
        </label>
    }
}

#[component]
fn Way(granularity: Granularity, words: &'static str) -> impl IntoView {
    let desk = app_state();
    let value = format!("{granularity:?}").to_lowercase();
    view! {
        <label>
            <input
                type="radio"
                name="granularity"
                value=value.clone()
                data-testid=format!("granularity-{value}")
                prop:checked=move || desk.granularity.get() == granularity
                on:change=move |_| desk.act(Input::Prefer(granularity))
            />
            <span>{words}</span>
        </label>
    }
}

fn number(event: &leptos::ev::Event) -> Option<f64> {
    event_target_value(event).parse().ok()
}
