//! What computes here, for a report, and how fast it is.

use std::time::Duration;

use chatrex::chat::bench::Bench;
use chatrex::chat::conversation::Model;
use chatrex::chat::model_strings as words;
use chatrex::chat::strings;
use chatrex::chat::words::Word;
use chatrex::protocol::ModelCard;
use leptos::prelude::*;
use leptos::task::spawn_local;

use super::copy_menu;
use super::state::{AppState, app_state};

/// How long the outcome of copying stays.
const STAYS: Duration = Duration::from_secs(3);

/// A button that copies a text, and the outcome.
#[component]
pub fn CopyText(
    label: Word,
    key: &'static str,
    text: impl Fn() -> Option<String> + Copy + 'static,
) -> impl IntoView {
    let outcome = RwSignal::new(None::<bool>);
    let copy = move |_| {
        let Some(text) = untrack(text) else {
            return;
        };
        spawn_local(async move {
            let is_copied = copy_menu::write(&text).await;
            outcome.set(Some(is_copied));
            let hide = move || {
                // The view may be gone.
                let _ = outcome.try_set(None);
            };
            set_timeout(hide, STAYS);
        });
    };
    let said = move || {
        outcome.get().map(|is_copied| match is_copied {
            true => words::COPIED,
            false => chatrex::chat::conversation_strings::NOT_COPIED,
        })
    };
    view! {
        <button type="button" class="button small" data-testid=key on:click=copy>
            {label}
        </button>
        <span class="copied" role="status" data-testid=format!("{key}-done")>{said}</span>
    }
}

fn browser() -> String {
    window().navigator().user_agent().unwrap_or_default()
}

/// Reads the card of the loaded model.
fn with_card<T>(app: AppState, read: impl FnOnce(&ModelCard) -> T) -> Option<T> {
    app.model.with(|model| match model {
        Model::Ready(card) => Some(read(card)),
        _ => None,
    })
}

fn rows(rows: impl IntoIterator<Item = (&'static str, String)>) -> impl IntoView {
    let row = |(name, value): (&'static str, String)| view! { <dt>{name}</dt> <dd>{value}</dd> };
    view! { <dl>{rows.into_iter().map(row).collect_view()}</dl> }
}

/// The device of the loaded model.
#[component]
pub fn DeviceCard() -> impl IntoView {
    let app = app_state();
    let card = move || with_card(app, |card| rows(words::device_rows(card, &browser())));
    let choice = move || {
        app.engine
            .with(|engine| engine.record().map(words::engine_choice))
    };
    let report = move || {
        let run = app
            .bench
            .with(|bench| bench.as_ref().and_then(Bench::median));
        let record = app.engine.with(|engine| engine.record().copied());
        with_card(app, |card| {
            words::report(card, &browser(), record.as_ref(), run)
        })
    };
    view! {
        <section class="device-card" data-testid="device-card">
            <h2>{words::DEVICE}</h2>
            {card}
            {move || choice().map(|text| view! { <p data-testid="engine-choice">{text}</p> })}
            <div class="model-actions">
                <CopyText label=words::COPY_REPORT key="copy-report" text=report />
            </div>
            <p class="small-print">{words::REPORT_NOTE}</p>
        </section>
    }
}

/// The benchmark.
#[component]
pub fn BenchCard() -> impl IntoView {
    let app = app_state();
    let is_running = Memo::new(move |_| {
        app.bench
            .with(|bench| bench.as_ref().is_some_and(Bench::is_running))
    });
    let state = move || {
        app.bench
            .with(|bench| bench.as_ref().map(words::bench_state).unwrap_or_default())
    };
    let median = move || {
        app.bench
            .with(|bench| bench.as_ref().and_then(Bench::median))
    };
    let fault = move || {
        app.bench
            .with(|bench| bench.as_ref().and_then(Bench::fault).map(strings::sentence))
    };
    let json = move || {
        let bench = app.bench.get()?;
        let report = with_card(app, |card| bench.report(card)).flatten()?;
        serde_json::to_string_pretty(&report).ok()
    };
    view! {
        <section class="device-card" data-testid="bench">
            <h2>{words::BENCH}</h2>
            <p>{words::BENCH_NOTE}</p>
            <div class="model-actions">
                <Show
                    when=move || is_running.get()
                    fallback=move || view! {
                        <button
                            type="button"
                            class="button small"
                            data-testid="bench-begin"
                            disabled=move || !app.can_lend.get()
                            title=words::BENCH_BUSY
                            on:click=move |_| app.begin_bench()
                        >
                            {words::BENCH_BEGIN}
                        </button>
                    }
                >
                    <button type="button" class="button small" data-testid="bench-stop" on:click=move |_| app.stop_bench()>
                        {words::BENCH_STOP}
                    </button>
                </Show>
                <Show when=move || median().is_some()>
                    <CopyText label=words::COPY_JSON key="bench-copy" text=json />
                </Show>
            </div>
            <p role="status" data-testid="bench-state">{state}</p>
            {move || fault().map(|text| view! { <p class="wrong">{text}</p> })}
            {move || median().map(|run| view! { <div data-testid="bench-result">{rows(words::bench_rows(run))}</div> })}
        </section>
    }
}
