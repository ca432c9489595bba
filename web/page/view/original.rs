//! The engine's own words about a failure.

use chatrex::chat::strings;
use chatrex::error::Fault;
use leptos::prelude::*;

/// The English words of a fault of which the page's language tells only the cause.
#[component]
pub fn Original(fault: Fault) -> impl IntoView {
    move || {
        strings::original(&fault).map(|text| {
            view! {
                <details class="original" data-testid="original">
                    <summary>{strings::ORIGINAL}</summary>
                    <span lang="en">{text}</span>
                </details>
            }
        })
    }
}
