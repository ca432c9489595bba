//! The model manager: what is here, what could be, and everything one can do with it.

use chatrex::chat::conversation::Model;
use chatrex::chat::model_manager::{Choice, Input, Item, Search, Status};
use chatrex::error::Fault;
use chatrex::memory::Verdict;
use chatrex::progress::Progress;
use chatrex::protocol::store::{ModelId, Survey};
use js_sys::Array;
use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::{ev, html};
use wasm_bindgen::JsCast;
use web_sys::{File, FileList, HtmlElement, HtmlInputElement};

use super::state::{AppState, app_state};
use super::status::sentence;
use chatrex::chat::strings;

/// Opens the manager above the page.
pub fn show(desk: AppState) {
    if let Some(dialog) = desk.manager.get_untracked() {
        // Refused only where it is open already.
        let _ = dialog.show_modal();
    }
}

/// The dialog.
#[component]
pub fn Manager() -> impl IntoView {
    let desk = app_state();
    let dialog = desk.manager;
    take_title(desk);
    let close = move |_| {
        if let Some(dialog) = dialog.get_untracked() {
            dialog.close();
        }
    };
    let models = Memo::new(move |_| {
        desk.library.with(|l| {
            let items = l.items().iter();
            items.map(|i| i.shelved.model.clone()).collect::<Vec<_>>()
        })
    });
    let used = Memo::new(move |_| desk.library.with(|l| l.used()));
    let fault = Memo::new(move |_| desk.library.with(|l| l.fault().cloned()));
    view! {
        <dialog class="manager" node_ref=dialog aria-labelledby="manager-title" data-testid="manager">
            <header>
                <h2 id="manager-title">{strings::TITLE}</h2>
                <span class="used" data-testid="used">{move || strings::used(used.get())}</span>
                <button type="button" class="quiet" data-testid="manager-close" on:click=close>
                    {strings::CLOSE}
                </button>
            </header>
            <Show when=move || desk.volatile.get()>
                <p class="note" data-testid="volatile">{volatile()}</p>
            </Show>
            <ul class="models">
                <Demo />
                <For each=move || models.get() key=|model| model.0.clone() let:model>
                    <Row model />
                </For>
            </ul>
            <div role="alert">
                {move || fault.get().map(|fault| view! { <Wrong fault /> })}
            </div>
            <Add />
        </dialog>
    }
}

/// While a model comes, the title of the page says how far it is.
fn take_title(desk: AppState) {
    let title = document().title();
    let part = Memo::new(move |_| {
        desk.library.with(|l| {
            let moving = l.moving();
            moving.map(|i| strings::percent(i.moved.done, i.moved.total))
        })
    });
    Effect::new(move |before: Option<bool>| {
        let now = part.get();
        match now {
            Some(part) => document().set_title(&format!("{part} % · {title}")),
            None if before == Some(true) => document().set_title(&title),
            None => {}
        }
        now.is_some()
    });
}

fn volatile() -> String {
    let agent = window().navigator().user_agent().unwrap_or_default();
    let safari = agent.contains("Safari") && !agent.contains("Chrom");
    let more = if safari { strings::VOLATILE_SAFARI } else { "" };
    format!("{}{more}.", strings::VOLATILE)
}

#[component]
fn Wrong(fault: Fault) -> impl IntoView {
    view! { <p class="wrong" data-testid="model-error">{sentence(&fault)}</p> }
}

/// The model beside the page.
#[component]
fn Demo() -> impl IntoView {
    let desk = app_state();
    let chosen = move || desk.library.with(|l| *l.choice() == Choice::Demo);
    let words = move || {
        desk.model.with(|model| match model {
            Model::Ready(_) if chosen() => "Loaded".to_owned(),
            Model::Loading(progress) if chosen() => strings::loading(strings::DEMO, *progress),
            _ => String::new(),
        })
    };
    view! {
        <li class="model" data-testid="demo-model">
            <div class="model-head">
                <h3>{strings::DEMO}</h3>
                <span class="facts">{strings::DEMO_WHAT}</span>
            </div>
            <p class="stand">{words}</p>
            <div class="model-actions">
                <Show when=move || !chosen()>
                    <Act words=strings::LOAD key="load-demo" act=move || desk.manage(Input::Load(Choice::Demo)) />
                </Show>
            </div>
        </li>
    }
}

/// A button of a model.
#[component]
fn Act(
    words: &'static str,
    key: &'static str,
    #[prop(default = false)] primary: bool,
    act: impl Fn() + 'static,
) -> impl IntoView {
    let class = if primary {
        "button small primary"
    } else {
        "button small"
    };
    view! {
        <button type="button" class=class data-testid=key on:click=move |_| act()>
            {words}
        </button>
    }
}

/// What a row asks before it does something that cannot be undone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    None,
    Cancel,
    Delete,
}

/// A kept model.
#[component]
fn Row(model: ModelId) -> impl IntoView {
    let desk = app_state();
    let id = StoredValue::new(model);
    let item = Memo::new(move |_| desk.library.with(|l| l.item(&id.get_value()).cloned()));
    let stand = Memo::new(move |_| {
        item.with(|item| {
            let item = item.as_ref()?;
            desk.model
                .with(|engine| desk.library.with(|l| Some(l.stand(item, engine))))
        })
    });
    let word = Memo::new(move |_| stand.with(|s| s.as_ref().map_or("gone", Status::word)));
    let fact = move |of: fn(&Item) -> String| item.with(|i| i.as_ref().map(of).unwrap_or_default());
    let progress = move || {
        desk.model.with(|model| match model {
            Model::Loading(progress) => *progress,
            _ => None,
        })
    };
    let said = move || {
        item.with(|item| {
            let item = item.as_ref()?;
            stand.with(|s| s.as_ref().map(|s| strings::stand(item, s, progress())))
        })
    };
    let fault = Memo::new(move |_| item.with(|i| i.as_ref().and_then(|i| i.fault.clone())));
    view! {
        <li class="model" data-testid="model" data-state=move || word.get() data-model=id.get_value().0>
            <div class="model-head">
                <h3>{move || fact(|i| i.shelved.facts.name.clone())}</h3>
                <span class="facts">{move || fact(facts)}</span>
            </div>
            <Bar item stand progress=Signal::derive(progress) />
            <p class="stand" data-testid="model-words">{said}</p>
            <div role="alert">
                {move || fault.get().map(|fault| view! { <Wrong fault /> })}
            </div>
            <Actions id=id.get_value() word item />
            <details class="licence">
                <summary>{move || strings::licence(&fact(|i| i.shelved.facts.licence.clone()))}</summary>
                <p>{move || fact(|i| i.shelved.facts.licence_text.clone())}</p>
            </details>
        </li>
    }
}

fn facts(item: &Item) -> String {
    let facts = &item.shelved.facts;
    format!("{} · {}", facts.precision, strings::size(facts.bytes))
}

/// How far a model is, where that changes.
#[component]
fn Bar(
    item: Memo<Option<Item>>,
    stand: Memo<Option<Status>>,
    progress: Signal<Option<Progress>>,
) -> impl IntoView {
    let part = Memo::new(move |_| {
        let item = item.get()?;
        let moved = (item.moved.done, item.moved.total);
        match stand.get()? {
            Status::Loading => progress.get().map(|p| (p.done, p.total)),
            Status::Moving { .. } | Status::Paused | Status::Partial => Some(moved),
            Status::Ready | Status::Loaded | Status::Elsewhere => None,
        }
    });
    let name = move || item.with(|i| i.as_ref().map(|i| i.shelved.facts.name.clone()));
    let shown = Memo::new(move |_| part.with(Option::is_some));
    let permille = move || {
        part.get()
            .map_or(0, |(done, total)| done * 1000 / total.max(1))
    };
    view! {
        <Show when=move || shown.get()>
            <progress aria-label=name max="1000" value=move || permille().to_string()></progress>
        </Show>
    }
}

/// What can be done with a kept model where it stands.
#[component]
fn Actions(id: ModelId, word: Memo<&'static str>, item: Memo<Option<Item>>) -> impl IntoView {
    let desk = app_state();
    let id = StoredValue::new(id);
    let question = RwSignal::new(Question::None);
    let buttons_in = NodeRef::<html::Div>::new();
    let pressed = StoredValue::new(false);
    Effect::new(move |before: Option<&'static str>| {
        let word = word.get();
        if before.is_some_and(|before| before != word) {
            question.set(Question::None);
        }
        word
    });
    Effect::new(move |_| {
        word.track();
        question.track();
        if pressed.get_value() {
            request_animation_frame(move || go_on_in(buttons_in));
        }
    });
    let press = move |_| {
        // A press that removed the row has nothing to go on with.
        pressed.try_set_value(true);
    };
    let manage = move |input: fn(ModelId) -> Input| {
        question.set(Question::None);
        desk.manage(input(id.get_value()));
    };
    let asks = move |what: Question| move || question.set(what);
    let doubt = move || {
        item.with(|item| {
            let item = item.as_ref()?;
            let facts = &item.shelved.facts;
            Some(match question.get() {
                Question::None => String::new(),
                Question::Cancel => strings::cancel(item.moved.done),
                Question::Delete => strings::delete(&facts.name, facts.bytes),
            })
        })
    };
    let cancel = move |keep| {
        move || {
            question.set(Question::None);
            let model = id.get_value();
            desk.manage(Input::Cancel { model, keep });
        }
    };
    let delete =
        move || view! { <Act words=strings::DELETE key="delete" act=asks(Question::Delete) /> };
    let stop =
        move || view! { <Act words=strings::CANCEL key="cancel" act=asks(Question::Cancel) /> };
    let resume = move || view! { <Act words=strings::RESUME key="resume" primary=true act=move || manage(Input::Resume) /> };
    let usual = move || {
        match word.get() {
        "partial" => view! { {resume()} {delete()} }.into_any(),
        "moving" => view! {
            <Act words=strings::PAUSE key="pause" act=move || manage(Input::Pause) />
            {stop()}
        }
        .into_any(),
        "paused" => view! { {resume()} {stop()} }.into_any(),
        "ready" => view! {
            <Act words=strings::LOAD key="load" primary=true act=move || manage(|id| Input::Load(Choice::Kept(id))) />
            {delete()}
        }
        .into_any(),
        "loading" | "loaded" => view! {
            <Act words=strings::UNLOAD key="unload" act=move || desk.manage(Input::Load(Choice::Demo)) />
        }
        .into_any(),
        "elsewhere" => view! {
            <Act words=strings::AGAIN key="again" act=move || desk.manage(Input::Started) />
        }
        .into_any(),
        _ => ().into_any(),
    }
    };
    let buttons = move || match question.get() {
        Question::None => usual(),
        Question::Cancel => view! {
            <Act words=strings::KEEP_PART key="cancel-keep" act=cancel(true) />
            <Act words=strings::DELETE_PART key="cancel-delete" act=cancel(false) />
            <Act words=strings::BACK key="back" act=asks(Question::None) />
        }
        .into_any(),
        Question::Delete => view! {
            <Act words=strings::DELETE key="delete-yes" act=move || manage(Input::Delete) />
            <Act words=strings::BACK key="back" act=asks(Question::None) />
        }
        .into_any(),
    };
    view! {
        <div class="model-actions" node_ref=buttons_in on:click=press>
            <Show when=move || question.get() != Question::None>
                <span class="doubt" role="status">{doubt}</span>
            </Show>
            {buttons}
        </div>
    }
}

/// A press may replace the button that was pressed: the focus then goes to the first of the new
/// ones.
fn go_on_in(buttons: NodeRef<html::Div>) {
    let focused = document().active_element().map(|e| e.tag_name());
    let lost = focused.is_none_or(|tag| matches!(tag.as_str(), "BODY" | "DIALOG"));
    let first = (buttons.try_get_untracked().flatten())
        .and_then(|buttons| buttons.query_selector("button").ok()?);
    if let (true, Some(first)) = (lost, first) {
        // A button in an open dialog takes the focus.
        let _ = first.unchecked_into::<HtmlElement>().focus();
    }
}

/// The ways to get another model.
#[component]
fn Add() -> impl IntoView {
    let desk = app_state();
    let address = RwSignal::new(String::new());
    let look = move |event: SubmitEvent| {
        event.prevent_default();
        desk.manage(Input::Survey(address.get_untracked()));
    };
    let folder = NodeRef::<html::Input>::new();
    Effect::new(move |_| {
        if let Some(folder) = folder.get() {
            let _ = folder.set_attribute("webkitdirectory", "");
        }
    });
    let chosen = move |event: ev::Event| {
        let input: HtmlInputElement = event_target(&event);
        let files = input.files().map(all_files).unwrap_or_default();
        if !files.is_empty() {
            take_files(desk, &files);
        }
        input.set_value("");
    };
    let search = Memo::new(move |_| desk.library.with(|l| without_consent(l.search())));
    view! {
        <section class="add" aria-labelledby="add-title">
            <h3 id="add-title">{strings::ADD}</h3>
            <form on:submit=look>
                <label for="model-address">{strings::ADDRESS}</label>
                <div class="address">
                    <input
                        id="model-address"
                        type="text"
                        inputmode="url"
                        autocomplete="off"
                        spellcheck="false"
                        data-testid="model-address"
                        prop:value=move || address.get()
                        on:input=move |event| address.set(event_target_value(&event))
                    />
                    <button type="submit" class="button" data-testid="survey">{strings::LOOK}</button>
                </div>
            </form>
            <div class="own-files">
                <span>{strings::OR}</span>
                <label class="button small">
                    <input type="file" multiple class="hidden-input" data-testid="model-folder" node_ref=folder on:change=chosen />
                    {strings::FOLDER}
                </label>
                <label class="button small">
                    <input type="file" multiple class="hidden-input" data-testid="model-files" on:change=chosen />
                    {strings::FILES}
                </label>
            </div>
            <div role="status" aria-live="polite">
                {move || match search.get() {
                    Search::Idle => ().into_any(),
                    Search::Looking => view! { <p class="stand">{strings::LOOKING}</p> }.into_any(),
                    Search::Failed(fault) => view! { <Wrong fault /> }.into_any(),
                    Search::Found { survey, .. } => view! { <Offer survey /> }.into_any(),
                }}
            </div>
        </section>
    }
}

/// The search as it decides what is shown; ticking the licence must not show it anew.
fn without_consent(search: &Search) -> Search {
    match search.clone() {
        Search::Found { survey, .. } => Search::Found {
            survey,
            accepted: false,
        },
        other => other,
    }
}

/// The files of a list.
pub fn all_files(files: FileList) -> Vec<File> {
    (0..files.length()).filter_map(|i| files.get(i)).collect()
}

/// Hands the person's files to the library.
pub fn take_files(desk: AppState, files: &[File]) {
    let all: Array = files.iter().collect();
    desk.manage_with(Input::SurveyFiles, &all);
}

/// A model that could be brought here: what it is, its licence, and the press that fetches it.
#[component]
fn Offer(survey: Survey) -> impl IntoView {
    let desk = app_state();
    let facts = survey.facts;
    let accepted = Memo::new(move |_| {
        desk.library
            .with(|l| matches!(l.search(), Search::Found { accepted: true, .. }))
    });
    let accept = move |event: ev::Event| desk.manage(Input::Accept(event_target_checked(&event)));
    let verb = match survey.address {
        Some(_) => strings::DOWNLOAD,
        None => strings::IMPORT,
    };
    view! {
        <div class="offer" data-testid="offer">
            <h4>{strings::offer(&facts.name, &facts.precision, facts.bytes)}</h4>
            {survey.address.map(|address| view! { <p class="facts">{address}</p> })}
            <p>{facts.trained_on}</p>
            {survey.fit.map(|fit| view! {
                <p class="verdict" class:bad=fit.verdict == Verdict::WillNotRun data-testid="verdict">{strings::verdict(&fit)}</p>
            })}
            <h5>{strings::licence(&facts.licence)}</h5>
            <p class="licence-text" tabindex="0" role="document" aria-label=strings::licence(&facts.licence) data-testid="licence-text">
                {facts.licence_text}
            </p>
            <label class="accept">
                <input type="checkbox" data-testid="accept" prop:checked=move || accepted.get() on:change=accept />
                {strings::ACCEPT}
            </label>
            <div class="model-actions">
                <button
                    type="button"
                    class="button small primary"
                    data-testid="begin"
                    disabled=move || !accepted.get()
                    on:click=move |_| desk.manage(Input::Begin)
                >
                    {verb}
                </button>
                <Act words=strings::NOT_NOW key="forget" act=move || desk.manage(Input::Forget) />
            </div>
        </div>
    }
}
