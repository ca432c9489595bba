//! Sampling: temperature, top-p, and constrained decoding of box references.

use chatrex::chat::conversation::Input;
use chatrex::chat::strings;
use chatrex::generate::sampling::Sampling;
use leptos::prelude::*;

use super::controls::Slider;
use super::state::app_state;

/// The sampling options, folded away.
#[component]
pub fn SamplingPanel() -> impl IntoView {
    let app = app_state();
    let now = move || app.sampling.get();
    let change = move |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = app.sampling.get_untracked();
        change(&mut sampling);
        app.act(Input::Sampling(sampling));
    };
    view! {
        <details class="exact choosing">
            <summary>"How words are chosen"</summary>
            <Slider
                name="Temperature"
                id="temperature-slider"
                min="0"
                value=move || f64::from(now().temperature)
                shown=Signal::derive(move || strings::temperature(now()))
                set=move |value| change(&|sampling| sampling.temperature = value as f32)
            />
            <Show when=move || now().temperature != 0.0>
                <Slider
                    name="Among the most likely that make up"
                    id="top-p-slider"
                    min="0.05"
                    value=move || f64::from(now().top_p)
                    set=move |value| change(&|sampling| sampling.top_p = value as f32)
                />
            </Show>
            <label class="choice">
                <input
                    type="checkbox"
                    data-testid="grammar"
                    prop:checked=move || now().grammar
                    on:change=move |event| {
                        let grammar = event_target_checked(&event);
                        change(&|sampling| sampling.grammar = grammar);
                    }
                />
                "Name only boxes that there are"
            </label>
        </details>
    }
}
