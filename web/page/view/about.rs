//! About the model and the page.

use chatrex::chat::conversation::Model;
use chatrex::chat::model_manager::Choice;
use chatrex::chat::page_strings;
use chatrex::chat::samples::{self, Sample};
use chatrex::chat::strings;
use chatrex::protocol::PartLicence;
use leptos::prelude::*;

use super::device_card::{BenchCard, DeviceCard};
use super::icons::{Icon, icon};
use super::later::Later;
use super::network::Network;
use super::state::app_state;

/// A button and the popover it opens.
#[component]
pub fn About() -> impl IntoView {
    let app = app_state();
    let card = move || {
        app.model.with(|model| match model {
            Model::Ready(card) => view! {
                <dl>
                    <dt>{page_strings::MODEL}</dt>
                    <dd>{card.name.clone()}</dd>
                    {card.knows.as_deref().map(strings::of_model).map(|text| view! {
                        <dt>{page_strings::KNOWS}</dt>
                        <dd data-testid="about-knows">{text}</dd>
                    })}
                    <dt>{page_strings::TRAINED_ON}</dt>
                    <dd data-testid="trained-on">{strings::of_model(&card.trained_on)}</dd>
                    <dt>{page_strings::LICENCE}</dt>
                    <dd>{card.licence.clone()}</dd>
                    <dt>{page_strings::COMPUTES_ON}</dt>
                    <dd>{strings::computes_on(card)}</dd>
                    <dt>{page_strings::WEIGHTS}</dt>
                    <dd>{strings::size(card.weight_bytes)}</dd>
                </dl>
                {card.licence_parts.iter().map(part).collect_view()}
            }
            .into_any(),
            _ => view! { <p>{page_strings::NOT_LOADED}</p> }.into_any(),
        })
    };
    let built_in = move || {
        app.models.with(|m| match m.choice() {
            Choice::BuiltIn(model) => Some(*model),
            Choice::Stored(_) | Choice::Unsaved { .. } => None,
        })
    };
    view! {
        <button
            type="button"
            class="icon-button"
            popovertarget="about"
            aria-label=strings::ABOUT
            title=strings::ABOUT
            data-testid="about"
        >
            {icon(Icon::About)}
        </button>
        <div id="about" class="about" popover="auto">
            <Later>
                <h2>{page_strings::WHAT_ANSWERS}</h2>
                {move || built_in().map(|model| view! { <p>{strings::about(model)}</p> })}
                {card}
                <DeviceCard />
                <BenchCard />
                <h2>{page_strings::PRIVATE}</h2>
                <p>{strings::ABOUT_PRIVACY}</p>
                <Network />
                <h2>{strings::SAMPLES}</h2>
                <ul class="origins" data-testid="origins">
                    {samples::all().iter().map(origin).collect_view()}
                </ul>
            </Later>
        </div>
    }
}

/// The licence of a part of the model.
fn part(part: &PartLicence) -> impl IntoView + use<> {
    let PartLicence {
        part,
        name,
        text,
        source,
    } = part.clone();
    view! {
        <details class="licence" data-testid="part-licence">
            <summary>{format!("{part}: {name}")}</summary>
            <p>{source} "\n\n" {text}</p>
        </details>
    }
}

/// Origin and licence of a sample.
fn origin(sample: &'static Sample) -> impl IntoView {
    view! {
        <li>
            <b>{sample.file.as_str()}</b>
            {format!(" {}. {}.", sample.source, sample.licence)}
        </li>
    }
}
