//! The state of model, picture and device in words, and failures.

use chatrex::chat::conversation::{Model, Phase};
use chatrex::chat::conversation_strings as words;
use chatrex::chat::layout_strings;
use chatrex::chat::model_manager::{self, Choice};
use chatrex::chat::page_strings;
use chatrex::chat::recovery::{Problem, Recovery};
use chatrex::chat::strings;
use js_sys::Reflect;
use leptos::prelude::*;

use super::icons::{Icon, icon};
use super::models::{Manager, show_manager};
use super::original::Original;
use super::state::{AppState, app_state};
use crate::memory;

/// The state of the model in the bar; a click opens the model manager.
#[component]
pub fn ModelState() -> impl IntoView {
    let app = app_state();
    let text = move || {
        let models = app.models.read();
        app.model.with(|model| strings::model_state(&models, model))
    };
    let state = move || {
        app.model.with(|model| match model {
            Model::Absent => "absent",
            Model::Loading(_) => "loading",
            Model::Ready(_) => "ready",
            Model::Failed(_) => "failed",
        })
    };
    let download = Memo::new(move |_| {
        app.models
            .with(|m| m.downloading().map(strings::downloading))
    });
    view! {
        <button
            type="button"
            class="chip"
            aria-haspopup="dialog"
            title=strings::TITLE
            data-testid="model-state"
            data-state=state
            on:click=move |_| show_manager(app)
        >
            <i class="dot" aria-hidden="true"></i>
            <span class="chip-words">{text}</span>
            <SlowMark />
            <Show when=move || app.offline.get()>
                <span class="badge" data-testid="offline-badge" title=layout_strings::OFFLINE_NAME>
                    {icon(Icon::Check)}
                    <span class="hidden">{layout_strings::OFFLINE}</span>
                </span>
            </Show>
            {move || download.get().map(|text| view! { <span class="moving" data-testid="moving">{text}</span> })}
        </button>
        <Manager />
    }
}

/// The progress bar of a model that is being loaded.
#[component]
pub fn ModelProgress() -> impl IntoView {
    let app = app_state();
    let progress = move || {
        app.model.with(|m| match m {
            Model::Loading(progress) => *progress,
            _ => None,
        })
    };
    let text = move || app.models.with(|m| strings::loading_chosen(m, progress()));
    let bar = move || {
        match progress() {
        Some(p) if p.total > 0 => view! {
            <progress aria-label=page_strings::LOADING_MODEL max=p.total.to_string() value=p.done.to_string()></progress>
        }
        .into_any(),
        _ => view! { <progress aria-label=page_strings::LOADING_MODEL></progress> }.into_any(),
    }
    };
    view! {
        <div class="loading">
            <span>{text}</span>
            {bar}
        </div>
    }
}

/// The state of the picture and its boxes.
#[component]
pub fn Status() -> impl IntoView {
    let app = app_state();
    let text = move || {
        if app.opening.get() {
            return strings::OPENING().to_owned();
        }
        let (model, picture) = (app.model.read(), app.picture.read());
        let candidates = app.candidates.get();
        strings::status(&model, picture.as_ref(), &candidates, app.filter.get())
    };
    view! {
        <p class="status" role="status" data-testid="status">
            {text}
        </p>
    }
}

/// Name of the loaded model and what it knows.
#[component]
pub fn Knows() -> impl IntoView {
    let app = app_state();
    let known = Memo::new(move |_| {
        app.model.with(|model| match model {
            Model::Ready(card) => {
                Some((card.name.clone(), strings::of_model(strings::knows(model)?)))
            }
            _ => None,
        })
    });
    view! {
        {move || {
            known.get().map(|(name, text)| {
                let title = text.clone();
                view! {
                    <p class="knows" data-testid="knows" title=title>
                        <b>{name}</b>
                        " "
                        {text}
                    </p>
                }
            })
        }}
    }
}

/// The note about a slow device of the loaded model.
fn device_note(app: AppState) -> Option<String> {
    app.model.with(|model| match model {
        Model::Ready(card) => {
            strings::device_note(card, has_webgpu(), window().is_secure_context())
        }
        _ => None,
    })
}

/// A note where no GPU computes, until the user dismisses it.
#[component]
pub fn DeviceNote() -> impl IntoView {
    let app = app_state();
    let note = Memo::new(move |_| device_note(app).filter(|_| !app.note_read.get()));
    let dismiss = move |_| {
        app.note_read.set(true);
        memory::keep_seen(memory::Seen::SlowNote);
    };
    view! {
        {move || {
            note.get().map(|text| view! {
                <p class="note" data-testid="device-note">
                    {icon(Icon::About)}
                    <span>{text}</span>
                    <button type="button" class="quiet" data-testid="note-dismiss" on:click=dismiss>
                        {strings::DISMISS}
                    </button>
                </p>
            })
        }}
    }
}

/// The mark of a slow device in the model's button, after the note was dismissed.
#[component]
fn SlowMark() -> impl IntoView {
    let app = app_state();
    let note = Memo::new(move |_| device_note(app).filter(|_| app.note_read.get()));
    view! {
        {move || {
            note.get().map(|text| view! {
                <i class="slow" role="img" data-testid="slow-mark" aria-label=words::SLOW title=text>
                    {icon(Icon::Slow)}
                </i>
            })
        }}
    }
}

fn has_webgpu() -> bool {
    Reflect::has(&window().navigator(), &"gpu".into()).unwrap_or(false)
}

/// The message about a failure: what, where, and what to do.
#[component]
pub fn ProblemMessage() -> impl IntoView {
    let app = app_state();
    let problem = Memo::new(move |_| {
        let last = app.latest_turn();
        let last_phase = last.map(|last| last.turn.with(|t| t.phase.clone()));
        let (notice, model, picture) = (app.notice.read(), app.model.read(), app.picture.read());
        Problem::of(
            notice.as_ref(),
            &model,
            picture.as_ref(),
            last_phase.as_ref(),
            app.recovery.get(),
            app.models.read().choice(),
        )
    });
    let fault = Memo::new(move |_| problem.with(|p| p.as_ref().map(|p| p.fault.clone())));
    let can = move |what: fn(&Problem) -> bool| problem.with(|p| p.as_ref().is_some_and(what));
    let use_demo = move |_| app.manage(model_manager::Input::Load(Choice::default()));
    view! {
        <div role="alert">
            {move || {
                fault.get().map(|fault| view! {
                    <div class="problem" data-testid="error">
                        <p>
                            {
                                let fault = fault.clone();
                                move || app.models.with(|models| strings::error(&fault, models))
                            }
                        </p>
                        <Original fault=fault.clone() />
                        <Show when=move || can(|problem| problem.can_retry)>
                            <button type="button" class="button small" data-testid="restart" on:click=move |_| app.retry_model()>
                                {strings::RESTART}
                            </button>
                        </Show>
                        <Show when=move || can(|problem| problem.can_use_demo)>
                            <button type="button" class="button small" data-testid="smaller" on:click=use_demo>
                                {strings::USE_SMALLER}
                            </button>
                        </Show>
                        <Show when=move || can(|problem| problem.can_dismiss)>
                            <button type="button" class="quiet" data-testid="dismiss" on:click=move |_| app.notice.set(None)>
                                {strings::DISMISS}
                            </button>
                        </Show>
                        <small class="error-code" data-testid="error-code">{strings::error_code(&fault)}</small>
                    </div>
                })
            }}
        </div>
        <Recovered app />
    }
}

/// The message about the recovery of a lost worker.
#[component]
fn Recovered(app: AppState) -> impl IntoView {
    let is_failed = move || {
        let last = app.latest_turn();
        last.is_some_and(|last| last.turn.with(|t| matches!(t.phase, Phase::Failed(_))))
    };
    let can_ask_again = move || app.recovery.get() == Recovery::Restored && is_failed();
    view! {
        <div role="status">
            <Show when=move || app.recovery.get() != Recovery::None>
                <div class="note" data-testid="recovery">
                    {icon(Icon::About)}
                    <p>{move || strings::recovery(app.recovery.get())}</p>
                    <Show when=can_ask_again>
                        <button type="button" class="button small" data-testid="ask-again" on:click=move |_| app.ask_again()>
                            {strings::ASK_AGAIN}
                        </button>
                    </Show>
                    <Show when=move || app.recovery.get() == Recovery::Restored>
                        <button type="button" class="quiet" data-testid="recovery-dismiss" on:click=move |_| app.dismiss_recovery()>
                            {strings::DISMISS}
                        </button>
                    </Show>
                </div>
            </Show>
        </div>
    }
}
