//! How the words of an answer are chosen: the likeliest or by chance, and whether boxes are named by
//! the grammar.

use chatrex::chat::conversation::Input;
use chatrex::generate::sampling::Sampling;
use leptos::prelude::*;

use super::controls::Slider;
use super::state::app_state;

/// Chance and grammar, folded away.
#[component]
pub fn Choosing() -> impl IntoView {
    let desk = app_state();
    let now = move || desk.sampling.get();
    let change = move |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = desk.sampling.get_untracked();
        change(&mut sampling);
        desk.act(Input::Sampling(sampling));
    };
    let heat_words = move || match now().temperature {
        0.0 => "the likeliest word".to_owned(),
        temperature => format!("{temperature:.2}"),
    };
    let share_words = move || format!("{:.2}", now().top_p);
    view! {
        <details class="exact choosing">
            <summary>"How words are chosen"</summary>
            <Slider
                name="Temperature"
                id="temperature-slider"
                least="0"
                value=move || f64::from(now().temperature)
                shown=heat_words
                set=move |value| change(&|sampling| sampling.temperature = value as f32)
            />
            <Show when=move || now().temperature != 0.0>
                <Slider
                    name="Among the likeliest that make up"
                    id="top-p-slider"
                    least="0.05"
                    value=move || f64::from(now().top_p)
                    shown=share_words
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
