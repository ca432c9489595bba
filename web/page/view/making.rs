//! The card on which a published checkpoint becomes a model.

use std::rc::Rc;
use std::time::Duration;

use chatrex::chat::making::{Effect, Input, Making, is_checkpoint, name_of};
use chatrex::chat::model_manager;
use chatrex::chat::model_strings as words;
use chatrex::chat::strings;
use chatrex::chat::words::Word;
use chatrex::memory::Verdict;
use chatrex::protocol::store::{Convertible, Quantization};
use chatrex::protocol::{Envelope, ToWorker};
use js_sys::{Array, Reflect};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::prelude::*;
use web_sys::File;

use super::state::{AppState, app_state};
use crate::link::{Link, Report};
use crate::persist;

/// Whether files of the user are a published checkpoint.
pub fn are_checkpoint(files: &[File]) -> bool {
    let names: Vec<String> = files.iter().map(File::name).collect();
    is_checkpoint(names.iter().map(String::as_str))
}

/// Previews the model in files of the user, or opens the published checkpoint.
pub fn preview_files(app: AppState, files: &[File]) {
    if are_checkpoint(files) {
        return app.make_from(files);
    }
    let all: Array = files.iter().collect();
    app.manage_with(model_manager::Input::PreviewFiles, Some(&all));
}

impl AppState {
    /// Opens a published checkpoint in files of the user.
    pub fn make_from(self, files: &[File]) {
        let names: Vec<String> = files.iter().map(File::name).collect();
        let name = name_of(folder_of(files).as_deref(), &names);
        self.workshop.update_value(|workshop| {
            workshop.files = Some(files.iter().collect());
        });
        self.make(Input::Choose {
            name,
            quantization: Quantization::default(),
        });
    }

    /// Gives the conversion an input and carries out its effects.
    pub fn make(self, input: Input) {
        let effects = self.making.try_update(|making| making.step(input));
        for effect in effects.unwrap_or_default() {
            match effect {
                Effect::Start => self.start_workshop(),
                Effect::Send(request) => self.send_to_workshop(request),
                Effect::End => {
                    self.workshop.update_value(|workshop| workshop.link = None);
                    // The remains of a conversion go with the list.
                    self.manage(model_manager::Input::Started);
                }
                Effect::Persist => spawn_local(async move {
                    self.is_volatile.set(!persist::is_granted().await);
                }),
                Effect::Judge(name, needs) => {
                    self.manage(model_manager::Input::Judge(vec![(name, needs)]));
                }
                Effect::Made(_) => {
                    self.workshop.update_value(|workshop| workshop.files = None);
                    self.keep.tell(words::MADE().to_owned());
                }
            }
        }
    }

    fn start_workshop(self) {
        let on_report: Rc<dyn Fn(Report)> = Rc::new(move |report| {
            let input = match report {
                Report::Store(event) => Input::Event(Box::new(event)),
                Report::Lost(fault) => Input::Lost(fault),
                Report::Event(_) => return,
            };
            // The worker may be ended by it, and with it the handler that runs now.
            set_timeout(move || self.make(input), Duration::ZERO);
        });
        match Link::start(on_report) {
            Ok(link) => self
                .workshop
                .update_value(|workshop| workshop.link = Some(link)),
            Err(fault) => self.make(Input::Lost(fault)),
        }
    }

    fn send_to_workshop(self, request: chatrex::protocol::store::StoreRequest) {
        let sent = self.workshop.with_value(|workshop| {
            let link = workshop.link.as_ref()?;
            let files = workshop.files.clone().map(JsValue::from);
            let message = Envelope {
                body: ToWorker::Store(request),
                attachment: files,
            };
            Some(link.send(&message))
        });
        if let Some(Err(fault)) = sent {
            self.make(Input::Lost(fault));
        }
    }
}

/// The folder that the files were chosen or dropped in, if the browser tells it.
fn folder_of(files: &[File]) -> Option<String> {
    let first = files.first()?;
    let path = Reflect::get(first, &"webkitRelativePath".into()).ok()?;
    let path = path.as_string()?;
    let (folder, _) = path.split_once('/')?;
    Some(folder.to_owned())
}

/// The card.
#[component]
pub fn MakingCard() -> impl IntoView {
    let app = app_state();
    // Neither progress nor the checkbox rebuilds the card.
    let stage = Memo::new(move |_| {
        app.making.with(|making| match making.clone() {
            Making::Ready {
                convertible,
                quantization,
                ..
            } => Making::Ready {
                convertible,
                quantization,
                accepted: false,
            },
            Making::Running { name, .. } => Making::Running {
                name,
                done: 0,
                total: 0,
            },
            other => other,
        })
    });
    view! {
        <div role="status" aria-live="polite">
            {move || match stage.get() {
                Making::None => ().into_any(),
                Making::Opening { .. } => view! { <p class="stand">{words::OPENING_CHECKPOINT}</p> }.into_any(),
                Making::Ready { convertible, quantization, .. } => {
                    view! { <Ready convertible=*convertible quantization /> }.into_any()
                }
                Making::Running { name, .. } => view! { <Running name /> }.into_any(),
                Making::Failed(fault) => view! {
                    <div class="offer" data-testid="making-failed">
                        <p class="wrong">
                            {strings::sentence(&fault)} " "
                            <small class="error-code" data-testid="making-code">{strings::error_code(&fault)}</small>
                        </p>
                        <Cancel label=strings::DISMISS />
                    </div>
                }.into_any(),
            }}
        </div>
    }
}

#[component]
fn Cancel(label: Word) -> impl IntoView {
    let app = app_state();
    view! {
        <button type="button" class="button small" data-testid="making-cancel" on:click=move |_| app.make(Input::Cancel)>
            {label}
        </button>
    }
}

/// What the checkpoint becomes, its licence, and the button that begins.
#[component]
fn Ready(convertible: Convertible, quantization: Quantization) -> impl IntoView {
    let app = app_state();
    let Convertible {
        facts, warnings, ..
    } = convertible;
    let name = StoredValue::new(facts.name.clone());
    let fit = Memo::new(move |_| app.models.with(|m| m.judged(&name.get_value()).cloned()));
    let accepted = Memo::new(move |_| {
        app.making
            .with(|making| matches!(making, Making::Ready { accepted: true, .. }))
    });
    let choice = move |choice: Quantization| {
        let choose = move |_| {
            app.make(Input::Choose {
                name: name.get_value(),
                quantization: choice,
            });
        };
        let key = format!("{choice:?}").to_lowercase();
        view! {
            <label>
                <input
                    type="radio"
                    name="quantization"
                    data-testid=format!("quantization-{key}")
                    prop:checked={choice == quantization}
                    on:change=choose
                />
                <span>{move || words::quantization(choice)}</span>
            </label>
        }
    };
    let (named, precision, bytes) = (facts.name, facts.precision, facts.bytes);
    let title = move || strings::preview(&named, &precision, bytes);
    let licence = move || strings::licence(&facts.licence);
    view! {
        <div class="offer" data-testid="making">
            <h4>{title}</h4>
            <p>{words::MAKING_NOTE}</p>
            <fieldset class="segments">
                <legend class="hidden">{words::QUANTIZATION}</legend>
                {Quantization::ALL.map(choice).collect_view()}
            </fieldset>
            {move || fit.get().map(|fit| view! {
                <p class="verdict" class:bad=fit.verdict == Verdict::WillNotRun data-testid="making-verdict">
                    {strings::verdict(&fit)}
                </p>
            })}
            {warnings.into_iter().map(|text| view! { <p class="facts">{text}</p> }).collect_view()}
            <h5>{licence.clone()}</h5>
            <p class="licence-text" tabindex="0" role="document" aria-label=licence>
                {facts.licence_text}
            </p>
            <label class="accept">
                <input
                    type="checkbox"
                    data-testid="making-accept"
                    prop:checked=move || accepted.get()
                    on:change=move |event| app.make(Input::Accept(event_target_checked(&event)))
                />
                {strings::ACCEPT}
            </label>
            <div class="model-actions">
                <button
                    type="button"
                    class="button small primary"
                    data-testid="making-begin"
                    disabled=move || !accepted.get()
                    on:click=move |_| app.make(Input::Begin)
                >
                    {words::CONVERT}
                </button>
                <Cancel label=strings::NOT_NOW />
            </div>
        </div>
    }
}

/// The progress.
#[component]
fn Running(name: String) -> impl IntoView {
    let app = app_state();
    let of = move || {
        app.making.with(|making| match making {
            Making::Running { done, total, .. } => (*done, *total),
            _ => (0, 0),
        })
    };
    let permille = move || {
        let (done, total) = of();
        (done * 1000 / total.max(1)).to_string()
    };
    view! {
        <div class="offer" data-testid="making-running">
            <h4>{name.clone()}</h4>
            <progress aria-label=name max="1000" value=permille></progress>
            <p class="stand">{move || words::converting(of().0, of().1)}</p>
            <Cancel label=words::CANCEL_MAKING />
        </div>
    }
}
