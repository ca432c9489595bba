//! Where model, picture and device stand, in words.

use chatrex::chat::conversation::{LookState, Model, Phase};
use chatrex::chat::model_manager::{self, Choice};
use chatrex::error::Fault;
use chatrex::progress::Progress;
use chatrex::text::prompt::MAX_BOXES;
use js_sys::Reflect;
use leptos::prelude::*;

use super::models::{Manager, show};
use super::state::{AppState, Recovery, app_state};
use chatrex::chat::strings;

/// The chip of the model in the bar; opens the model manager.
#[component]
pub fn ModelState() -> impl IntoView {
    let desk = app_state();
    let words = move || {
        desk.model.with(|model| match model {
            Model::Absent => "No model".to_owned(),
            Model::Loading(progress) => loading(desk, *progress),
            Model::Ready(card) => format!("{} · ready", card.name),
            Model::Failed(_) => "Model not running".to_owned(),
        })
    };
    let state = move || {
        desk.model.with(|model| match model {
            Model::Absent => "absent",
            Model::Loading(_) => "loading",
            Model::Ready(_) => "ready",
            Model::Failed(_) => "failed",
        })
    };
    let moving = Memo::new(move |_| desk.library.with(|l| l.moving().map(strings::moving)));
    view! {
        <button
            type="button"
            class="chip"
            aria-haspopup="dialog"
            title=strings::TITLE
            data-testid="model-state"
            data-state=state
            on:click=move |_| show(desk)
        >
            <i class="dot" aria-hidden="true"></i>
            {words}
            {move || moving.get().map(|words| view! { <span data-testid="moving">{words}</span> })}
        </button>
        <Manager />
    }
}

/// The bar of a loading model.
#[component]
pub fn ModelProgress() -> impl IntoView {
    let desk = app_state();
    let progress = move || {
        desk.model.with(|m| match m {
            Model::Loading(progress) => *progress,
            _ => None,
        })
    };
    let words = move || loading(desk, progress());
    let bar = move || {
        match progress() {
        Some(p) if p.total > 0 => view! {
            <progress aria-label="Loading the model" max=p.total.to_string() value=p.done.to_string()></progress>
        }
        .into_any(),
        _ => view! { <progress aria-label="Loading the model"></progress> }.into_any(),
    }
    };
    view! {
        <div class="loading">
            <span>{words}</span>
            {bar}
        </div>
    }
}

/// What is known about the boxes.
#[component]
pub fn Status() -> impl IntoView {
    let desk = app_state();
    let words = move || {
        if desk.opening.get() {
            return "Opening the picture…".to_owned();
        }
        let loading = desk.model.with(|m| !matches!(m, Model::Ready(_)));
        let (found, own, left_out) = desk.candidates.with(|c| {
            let found = c.boxes.iter().filter(|b| b.score.is_some()).count();
            (found, c.boxes.len() - found, c.left_out)
        });
        let score = desk.filter.with(|f| f.score);
        desk.picture.with(|picture| {
            let Some(picture) = picture else {
                return "No picture yet.".to_owned();
            };
            match &picture.sight {
                LookState::Waiting if found > 0 => format!("{found} objects, found earlier."),
                LookState::Waiting if loading => "Boxes appear once the model is loaded.".to_owned(),
                LookState::Waiting => "Waiting…".to_owned(),
                LookState::Looking(progress) => {
                    format!("Looking for objects…{}", progress.map_or(String::new(), of))
                }
                LookState::Failed(_) => "No boxes could be found in this picture.".to_owned(),
                LookState::Seen if found == 0 && own == 0 => format!(
                    "No objects above {score:.2}. Lower the confidence, switch to “Parts too”, or draw a box."
                ),
                LookState::Seen if left_out > 0 => format!(
                    "{} objects found; the chat can use the best {}.",
                    found + left_out,
                    MAX_BOXES - own
                ),
                LookState::Seen => {
                    let time = picture.milliseconds.map_or(0.0, |t| t.prepare + t.upn) / 1000.0;
                    let objects = if found == 1 { "object" } else { "objects" };
                    format!("Found {found} {objects} in {time:.1} s.")
                }
            }
        })
    };
    view! {
        <p class="status" role="status" data-testid="status">
            {words}
        </p>
    }
}

/// Says plainly when no graphics card computes.
#[component]
pub fn DeviceNote() -> impl IntoView {
    let desk = app_state();
    let note = Memo::new(move |_| {
        desk.model.with(|model| match model {
            Model::Ready(card) if card.software && card.device == "cpu" => Some(format!(
                "Running on the processor, not the graphics card. Expect it to be slow. {}",
                why_no_adapter()
            )),
            Model::Ready(card) if card.software => Some(format!(
                "WebGPU runs in software here ({}), not on a graphics card. Expect it to be slow.",
                card.adapter
            )),
            _ => None,
        })
    });
    view! {
        {move || {
            note.get().map(|words| view! { <p class="note" data-testid="device-note">{words}</p> })
        }}
    }
}

/// The one place for what went wrong: what, where, and what to do.
#[component]
pub fn Problem() -> impl IntoView {
    let desk = app_state();
    let failed_turn = move || {
        desk.turns.with(|turns| {
            let last = turns.last()?;
            last.turn.with(|t| match &t.phase {
                Phase::Failed(fault) => Some(fault.clone()),
                _ => None,
            })
        })
    };
    let failed_model = move || {
        desk.model.with(|m| match m {
            Model::Failed(fault) => Some(fault.clone()),
            _ => None,
        })
    };
    let failed_look = move || {
        desk.picture.with(|p| match p.as_ref().map(|p| &p.sight) {
            Some(LookState::Failed(fault)) => Some(fault.clone()),
            _ => None,
        })
    };
    let recovers = move || desk.recovery.get() != Recovery::None;
    let fault = Memo::new(move |_| {
        desk.notice.get().or_else(failed_model).or_else(|| {
            let hidden = recovers();
            failed_look().or_else(failed_turn).filter(|_| !hidden)
        })
    });
    let can_restart = move || failed_model().is_some() && desk.notice.with(Option::is_none);
    let can_shrink = move || can_restart() && desk.library.with(|l| *l.choice() != Choice::Demo);
    let dismissable = move || desk.notice.with(Option::is_some);
    let shrink = move |_| desk.manage(model_manager::Input::Load(Choice::Demo));
    view! {
        <div role="alert">
            {move || {
                fault.get().map(|fault| view! {
                    <div class="problem" data-testid="error">
                        <p>{said(desk, &fault)}</p>
                        <Show when=can_restart>
                            <button type="button" class="button small" data-testid="restart" on:click=move |_| desk.restart()>
                                "Start the model again"
                            </button>
                        </Show>
                        <Show when=can_shrink>
                            <button type="button" class="button small" data-testid="smaller" on:click=shrink>
                                {strings::USE_SMALLER}
                            </button>
                        </Show>
                        <Show when=dismissable>
                            <button type="button" class="quiet" data-testid="dismiss" on:click=move |_| desk.notice.set(None)>
                                "Dismiss"
                            </button>
                        </Show>
                    </div>
                })
            }}
        </div>
        <Recovered />
    }
}

/// What became of a lost worker.
#[component]
fn Recovered() -> impl IntoView {
    let desk = app_state();
    let failed = move || {
        desk.turns.with(|turns| {
            let last = turns.last();
            last.is_some_and(|last| last.turn.with(|t| matches!(t.phase, Phase::Failed(_))))
        })
    };
    let words = move || match desk.recovery.get() {
        Recovery::None => "",
        Recovery::Restoring => strings::RESTORING,
        Recovery::Restarting => strings::RESTARTING,
        Recovery::Restored => strings::RESTORED,
    };
    let ready = move || desk.recovery.get() == Recovery::Restored && failed();
    view! {
        <div role="status">
            <Show when=move || desk.recovery.get() != Recovery::None>
                <div class="note" data-testid="recovery">
                    <p>{words}</p>
                    <Show when=ready>
                        <button type="button" class="button small" data-testid="ask-again" on:click=move |_| desk.ask_again()>
                            {strings::ASK_AGAIN}
                        </button>
                    </Show>
                    <Show when=move || desk.recovery.get() == Recovery::Restored>
                        <button type="button" class="quiet" data-testid="recovery-dismiss" on:click=move |_| desk.recovery.set(Recovery::None)>
                            "Dismiss"
                        </button>
                    </Show>
                </div>
            </Show>
        </div>
    }
}

/// A fault in the words that fit the model at hand.
fn said(desk: AppState, fault: &Fault) -> String {
    if !desk.is_too_large(fault) {
        return sentence(fault);
    }
    desk.library.with(|library| match library.choice() {
        Choice::Kept(model) => {
            let name = library.item(model).map(|i| i.shelved.facts.name.as_str());
            strings::too_large(name.unwrap_or("this model"))
        }
        Choice::Demo => sentence(fault),
    })
}

/// ` 60 %`, or nothing where the total is unknown.
pub fn of(progress: Progress) -> String {
    match progress.total {
        0 => String::new(),
        total => format!(" {} %", (progress.done * 100 / total).min(100)),
    }
}

fn loading(desk: AppState, progress: Option<Progress>) -> String {
    desk.library.with(|library| match library.choice() {
        Choice::Demo => strings::loading("Demo model", progress),
        Choice::Kept(model) => {
            let name = library.item(model).map(|i| i.shelved.facts.name.as_str());
            strings::loading(name.unwrap_or("the model"), progress)
        }
    })
}

/// A fault as sentences; names of files and addresses keep their letters.
pub fn sentence(fault: &Fault) -> String {
    let mut words = format!("{}: {}.", fault.place, fault.what.trim_end_matches('.'));
    let is_name = fault.place.contains(['.', '/', '_']);
    if let Some(first) = words.get(..1).filter(|_| !is_name) {
        words = format!("{}{}", first.to_uppercase(), &words[1..]);
    }
    if !fault.advice.is_empty() {
        words.push_str(&format!(" {}.", fault.advice.trim_end_matches('.')));
    }
    words
}

fn why_no_adapter() -> &'static str {
    let present = Reflect::has(&window().navigator(), &"gpu".into()).unwrap_or(false);
    if present {
        "WebGPU is present but found no usable graphics device; hardware acceleration may be off."
    } else {
        "This browser offers no WebGPU here."
    }
}
