//! The way to a real model: what it needs, whether it fits here, and the steps.

use chatrex::chat::model_manager::Input;
use chatrex::chat::model_strings as words;
use chatrex::chat::real_model::{REAL_MODELS, RealModel, UPN_FILE, UPN_HUB};
use chatrex::memory::Verdict;
use leptos::prelude::*;

use super::device_card::CopyText;
use super::state::app_state;

/// The card.
#[component]
pub fn RealModels() -> impl IntoView {
    let app = app_state();
    let is_ready = Memo::new(move |_| {
        use chatrex::chat::conversation::Model;
        app.model.with(|model| matches!(model, Model::Ready(_)))
    });
    let is_open = RwSignal::new(false);
    // The device is known once a model is loaded, and asked only where the card is read.
    Effect::new(move |_| {
        let is_judged = app
            .models
            .with_untracked(|m| m.judged(REAL_MODELS[0].name).is_some());
        if is_open.get() && is_ready.get() && !is_judged {
            let models = REAL_MODELS.map(|model| (model.name.to_owned(), model.needs));
            app.manage(Input::Judge(models.into()));
        }
    });
    view! {
        <details
            class="real-models"
            data-testid="real-models"
            on:toggle=move |_| is_open.set(true)
        >
            <summary>{words::REAL}</summary>
            <p>{words::REAL_NOTE}</p>
            {REAL_MODELS.iter().map(|model| view! { <Way model /> }).collect_view()}
        </details>
    }
}

#[component]
fn Way(model: &'static RealModel) -> impl IntoView {
    let app = app_state();
    let fit = Memo::new(move |_| app.models.with(|m| m.judged(model.name).cloned()));
    let is_bad = move || fit.with(|f| f.as_ref().is_some_and(|f| f.verdict == Verdict::WillNotRun));
    view! {
        <section class="way" data-testid=format!("way-{}", model.name)>
            <h4 translate="no">{model.name}</h4>
            <p class="verdict" class:bad=is_bad data-testid="way-verdict">
                {move || fit.with(|fit| words::real_model(model, fit.as_ref()))}
            </p>
            <ol>
                <li>
                    {move || words::real_download(model, UPN_FILE, UPN_HUB)} " "
                    <a href=model.address() target="_blank" rel="noopener noreferrer" translate="no">{model.hub}</a>
                </li>
                <li>
                    {words::REAL_CONVERT}
                    <code class="command" data-testid="command">{model.command()}</code>
                    <div class="model-actions">
                        <CopyText label=words::COPY_COMMAND key="copy-command" text=move || Some(model.command()) />
                    </div>
                </li>
                <li>{words::REAL_CHOOSE}</li>
            </ol>
        </section>
    }
}
