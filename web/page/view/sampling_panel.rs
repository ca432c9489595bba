//! How answers are written: temperature, top-p, constrained decoding of box references, the limit.

use chatrex::chat::conversation::Input;
use chatrex::chat::conversation_strings as words;
use chatrex::chat::strings;
use chatrex::generate::sampling::Sampling;
use leptos::prelude::*;

use super::controls::Slider;
use super::icons::{Icon, icon};
use super::state::app_state;

/// The button that opens the settings.
#[component]
pub fn SamplingButton() -> impl IntoView {
    view! {
        <button
            type="button"
            class="quiet gear"
            popovertarget="sampling"
            data-testid="sampling-open"
            aria-label=words::SETTINGS
            title=words::SETTINGS
        >
            {icon(Icon::Sliders)}
        </button>
    }
}

/// The settings, in a popover beside the conversation.
#[component]
pub fn SamplingPanel() -> impl IntoView {
    let app = app_state();
    let now = move || app.sampling.get();
    let change = move |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = app.sampling.get_untracked();
        change(&mut sampling);
        app.act(Input::Sampling(sampling));
    };
    let usual = Sampling::default();
    let set_limit = move |event| {
        let limit = event_target_value(&event).parse().ok();
        app.act(Input::MaxTokens(limit));
        // What lies outside the range is brought into it, and the field shows that.
        app.max_tokens.notify();
    };
    view! {
        <div id="sampling" class="aside" popover="auto" role="group" aria-label=words::SETTINGS>
            <h2>{words::SETTINGS}</h2>
            <div class="setting">
                <Slider
                    name="Temperature"
                    id="temperature-slider"
                    min="0"
                    value=move || f64::from(now().temperature)
                    shown=Signal::derive(move || strings::temperature(now()))
                    set=move |value| change(&|sampling| sampling.temperature = value as f32)
                />
                <Reset
                    name="Temperature"
                    is_usual=Signal::derive(move || now().temperature == usual.temperature)
                    reset=move || change(&|sampling| sampling.temperature = usual.temperature)
                />
            </div>
            <Show when=move || now().temperature != 0.0>
                <div class="setting">
                    <Slider
                        name="Among the most likely that make up"
                        id="top-p-slider"
                        min="0.05"
                        value=move || f64::from(now().top_p)
                        set=move |value| change(&|sampling| sampling.top_p = value as f32)
                    />
                    <Reset
                        name="Among the most likely that make up"
                        is_usual=Signal::derive(move || now().top_p == usual.top_p)
                        reset=move || change(&|sampling| sampling.top_p = usual.top_p)
                    />
                </div>
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
            <div class="setting">
                <label class="number">
                    <span>{words::MAX_TOKENS}</span>
                    <input
                        type="number"
                        min="16"
                        max="2048"
                        step="16"
                        data-testid="max-tokens"
                        prop:value=move || app.max_tokens.get().to_string()
                        on:change=set_limit
                    />
                </label>
                <Reset
                    name=words::MAX_TOKENS
                    is_usual=Signal::derive(|| false)
                    reset=move || app.act(Input::MaxTokens(None))
                />
            </div>
        </div>
    }
}

/// Brings a setting back to its usual value.
#[component]
fn Reset(name: &'static str, is_usual: Signal<bool>, reset: impl Fn() + 'static) -> impl IntoView {
    view! {
        <button
            type="button"
            class="quiet"
            aria-label=format!("{}: {name}", words::RESET)
            disabled=move || is_usual.get()
            on:click=move |_| reset()
        >
            {words::RESET}
        </button>
    }
}
