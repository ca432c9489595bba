//! The sample pictures as cards.

use chatrex::chat::page_strings;
use leptos::prelude::*;

use super::state::app_state;

/// A card for each sample of the chosen model; nothing if there is only one.
#[component]
pub fn Gallery() -> impl IntoView {
    let app = app_state();
    let samples = Memo::new(move |_| app.samples());
    let several = Memo::new(move |_| samples.with(|samples| samples.len() > 1));
    view! {
        <Show when=move || several.get()>
            <ul class="gallery" aria-label=page_strings::SAMPLE_PICTURES data-testid="gallery">
                <For each=move || samples.get() key=|sample| &sample.file let:sample>
                    <li>
                        <button
                            type="button"
                            class="card"
                            data-testid="sample-card"
                            data-sample=sample.file.as_str()
                            on:click=move |_| app.open_sample(sample)
                        >
                            <img src=sample.address() alt=move || sample.shown_alt() loading="lazy" />
                            <span>{move || sample.shown_question()}</span>
                        </button>
                    </li>
                </For>
            </ul>
        </Show>
    }
}
