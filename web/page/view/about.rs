//! What the model is, what it knows, and whose it is.

use chatrex::chat::conversation::Model;
use chatrex::chat::model_manager::Choice;
use leptos::prelude::*;

use super::state::app_state;

/// A button and the card it opens.
#[component]
pub fn About() -> impl IntoView {
    let desk = app_state();
    let card = move || {
        desk.model.with(|model| match model {
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
            <Show when=move || desk.library.with(|l| *l.choice() == Choice::Demo)>
                <p>
                    "nano is a very small ChatRex, trained by this project on pictures it drew itself: stickers of about two dozen kinds of thing, among them cats, dogs, apples, carrots, cars, bicycles, clocks, houses, trees and mushrooms, on varied backgrounds. It can say what they are, how many, which colour, how large and where. On photographs it finds boxes, but its words are mostly wrong. It cannot read text, recognise people or know anything else about the world."
                </p>
            </Show>
            {card}
            <h2>"Private"</h2>
            <p>"Pictures and questions stay in this browser. No tracking, no account, no other host."</p>
        </div>
    }
}
