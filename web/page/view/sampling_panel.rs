//! How questions are answered: temperature, top-p, repetition penalty, constrained decoding, the limit, the
//! system prompt, earlier turns.

use chatrex::chat::choices::{Choices, Item, PENALTY, SYSTEM_LENGTH, TEMPERATURE, TOP_P};
use chatrex::chat::conversation::{Input, Model};
use chatrex::chat::conversation_strings as words;
use chatrex::chat::model_strings as texts;
use chatrex::chat::strings;
use chatrex::chat::words::Word;
use chatrex::protocol::ModelCard;
use leptos::prelude::*;

use super::icons::{Icon, icon};
use super::state::{AppState, app_state};

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

/// Changes the choices of this conversation.
fn choose(app: AppState, change: impl FnOnce(&mut Choices, Option<&ModelCard>)) {
    let mut choices = app.choices.get_untracked();
    app.model
        .with_untracked(|model| change(&mut choices, card(model)));
    app.act(Input::Choose(choices));
}

fn card(model: &Model) -> Option<&ModelCard> {
    match model {
        Model::Ready(card) => Some(card),
        _ => None,
    }
}

/// The settings, in a popover beside the conversation.
#[component]
pub fn SamplingPanel() -> impl IntoView {
    let app = app_state();
    let now = move || app.choices.get();
    let penalty = move || app.model.with(|model| now().penalty(card(model)));
    let penalty_words = move || app.model.with(|model| texts::penalty(&now(), card(model)));
    let set_limit = move |event| {
        let limit = event_target_value(&event).parse().ok();
        choose(app, |choices, _| choices.max_tokens = limit);
        // What lies outside the range is brought into it, and the field shows that.
        app.max_tokens.notify();
    };
    view! {
        <div id="sampling" class="aside choices" popover="auto" role="group" aria-label=words::SETTINGS>
            <h2>{words::SETTINGS}</h2>
            <Setting
                name=texts::TEMPERATURE
                id="temperature-slider"
                item=Item::Temperature
                range=TEMPERATURE
                value=Signal::derive(move || now().sampling.temperature)
                shown=Signal::derive(move || strings::temperature(now().sampling))
                set=move |value| choose(app, |choices, _| choices.set_temperature(value))
            />
            <Show when=move || now().sampling.temperature != 0.0>
                <Setting
                    name=texts::TOP_P
                    id="top-p-slider"
                    item=Item::TopP
                    range=TOP_P
                    value=Signal::derive(move || now().sampling.top_p)
                    shown=Signal::derive(move || format!("{:.2}", now().sampling.top_p))
                    set=move |value| choose(app, |choices, _| choices.sampling.top_p = value)
                />
            </Show>
            <Setting
                name=texts::PENALTY
                id="penalty-slider"
                item=Item::Penalty
                range=PENALTY
                value=Signal::derive(penalty)
                shown=Signal::derive(penalty_words)
                set=move |value| choose(app, |choices, card| choices.set_penalty(value, card))
            />
            <label class="choice">
                <input
                    type="checkbox"
                    data-testid="grammar"
                    prop:checked=move || now().sampling.grammar
                    on:change=move |event| {
                        let grammar = event_target_checked(&event);
                        choose(app, |choices, _| choices.sampling.grammar = grammar);
                    }
                />
                {texts::GRAMMAR}
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
                <Reset name=words::MAX_TOKENS item=Item::MaxTokens />
            </div>
            <SystemPrompt />
            <EarlierTurns />
            <Scope />
        </div>
    }
}

/// A slider with its name, its value in words and a reset.
#[component]
fn Setting(
    name: Word,
    id: &'static str,
    item: Item,
    range: (f32, f32, f32),
    value: Signal<f32>,
    shown: Signal<String>,
    set: impl Fn(f32) + 'static,
) -> impl IntoView {
    let (min, max, step) = range;
    let on_input = move |event| {
        if let Ok(value) = event_target_value(&event).parse() {
            set(value);
        }
    };
    view! {
        <div class="setting">
            <label class="slider">
                <span>{name}</span>
                <output>{move || shown.get()}</output>
                <input
                    type="range"
                    min=min.to_string()
                    max=max.to_string()
                    step=step.to_string()
                    data-testid=id
                    prop:value=move || format!("{:.2}", value.get())
                    on:input=on_input
                />
            </label>
            <Reset name item />
        </div>
    }
}

/// Brings a setting back to its usual value.
#[component]
fn Reset(name: Word, item: Item) -> impl IntoView {
    let app = app_state();
    view! {
        <button
            type="button"
            class="quiet"
            aria-label=move || words::of(words::RESET(), name())
            data-testid=format!("reset-{item:?}").to_lowercase()
            disabled=move || app.choices.with(|choices| choices.is_usual(item))
            on:click=move |_| choose(app, |choices, _| choices.reset(item))
        >
            {words::RESET}
        </button>
    }
}

/// The words before every question.
#[component]
fn SystemPrompt() -> impl IntoView {
    let app = app_state();
    let text = move || {
        app.model.with(|model| {
            app.choices
                .with(|choices| choices.system(card(model)).to_owned())
        })
    };
    let set = move |event| {
        let words = event_target_value(&event);
        choose(app, |choices, card| choices.set_system(&words, card));
    };
    view! {
        <div class="setting system">
            <label>
                <span>{texts::SYSTEM}</span>
                <textarea
                    rows="3"
                    dir="auto"
                    maxlength=SYSTEM_LENGTH.to_string()
                    placeholder=texts::SYSTEM_NONE
                    aria-describedby="system-note"
                    data-testid="system"
                    prop:value=text
                    on:change=set
                ></textarea>
            </label>
            <Reset name=texts::SYSTEM item=Item::System />
            <p id="system-note" class="small-print">{texts::SYSTEM_NOTE}</p>
        </div>
    }
}

/// Whether earlier turns are sent along.
#[component]
fn EarlierTurns() -> impl IntoView {
    let app = app_state();
    let note = move || app.model.with(texts::earlier_note);
    view! {
        <label class="choice">
            <input
                type="checkbox"
                data-testid="earlier"
                aria-describedby="earlier-note"
                prop:checked=move || app.choices.with(|choices| choices.earlier)
                on:change=move |event| {
                    let earlier = event_target_checked(&event);
                    choose(app, |choices, _| choices.earlier = earlier);
                }
            />
            <span data-testid="earlier-words">{move || texts::earlier(app.earlier.get())}</span>
        </label>
        <p id="earlier-note" class="small-print" data-testid="earlier-note">{note}</p>
    }
}

/// For which conversations the choices are.
#[component]
fn Scope() -> impl IntoView {
    let app = app_state();
    let is_usual = Memo::new(move |_| app.choices.get() == app.usual.get());
    let note = move || match is_usual.get() {
        true => texts::IS_DEFAULT,
        false => texts::SCOPE,
    };
    let make_default = move |_| {
        let choices = app.choices.get_untracked();
        app.act(Input::Usual {
            choices,
            now: false,
        });
    };
    view! {
        <div class="setting">
            <p class="small-print" data-testid="scope">{note}</p>
            <button
                type="button"
                class="button small"
                data-testid="make-default"
                disabled=move || is_usual.get()
                on:click=make_default
            >
                {texts::MAKE_DEFAULT}
            </button>
        </div>
    }
}
