//! About the model and the page.

use chatrex::chat::conversation::Model;
use chatrex::chat::model_manager::Choice;
use chatrex::chat::strings;
use leptos::prelude::*;

use super::state::app_state;

/// A button and the popover it opens.
#[component]
pub fn About() -> impl IntoView {
    let app = app_state();
    let card = move || {
        app.model.with(|model| match model {
            Model::Ready(card) => {
                let megabytes = card.weight_bytes as f64 / 1e6;
                view! {
                    <dl>
                        <dt>"Model"</dt>
                        <dd>{card.name.clone()}</dd>
                        <dt>"Trained on"</dt>
                        <dd data-testid="trained-on">{card.trained_on.clone()}</dd>
                        <dt>"Licence"</dt>
                        <dd>{card.licence.clone()}</dd>
                        <dt>"Computes on"</dt>
                        <dd>{format!("{} ({})", card.adapter, card.device)}</dd>
                        <dt>"Weights"</dt>
                        <dd>{format!("{megabytes:.1} MB")}</dd>
                    </dl>
                }
                .into_any()
            }
            _ => view! { <p>"The model is not loaded yet."</p> }.into_any(),
        })
    };
    view! {
        <button type="button" class="quiet" popovertarget="about" data-testid="about">
            "About"
        </button>
        <div id="about" class="about" popover="auto">
            <h2>"What answers here"</h2>
            <Show when=move || app.models.with(|m| *m.choice() == Choice::Demo)>
                <p>{strings::ABOUT_DEMO}</p>
            </Show>
            {card}
            <h2>"Private"</h2>
            <p>{strings::ABOUT_PRIVACY}</p>
        </div>
    }
}
