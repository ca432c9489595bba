//! The dialog of the model manager: stored models, downloads and imports.

use chatrex::built_in::BuiltIn;
use chatrex::chat::conversation::Model;
use chatrex::chat::model_manager::{
    self, Choice, Confirmation, Entry, EntryAction, Input, PreviewState, Status,
};
use chatrex::chat::model_strings as words;
use chatrex::chat::strings;
use chatrex::error::Fault;
use chatrex::memory::Verdict;
use chatrex::progress::Progress;
use chatrex::protocol::store::{ModelId, Preview, ShardProgress};
use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::{ev, html};
use wasm_bindgen::JsCast;
use web_sys::{File, FileList, HtmlElement, HtmlInputElement};

use super::dialog;
use super::folder_rows::{FolderButton, FolderRows};
use super::later::Later;
use super::making::{MakingCard, preview_files};
use super::original::Original;
use super::real_model::RealModels;
use super::state::{AppState, app_state};

/// Opens the dialog.
pub fn show_manager(app: AppState) {
    dialog::show(app.manager_dialog);
}

/// The dialog.
#[component]
pub fn Manager() -> impl IntoView {
    let app = app_state();
    show_in_title(app);
    let close = move |_| dialog::close(app.manager_dialog);
    let models = Memo::new(move |_| {
        app.models.with(|m| {
            let entries = m.entries().iter();
            entries.map(|e| e.stored.model.clone()).collect::<Vec<_>>()
        })
    });
    let offers = Memo::new(move |_| app.models.with(|m| m.offers().cloned().collect::<Vec<_>>()));
    let used = Memo::new(move |_| app.models.with(|m| m.used()));
    let fault = Memo::new(move |_| app.models.with(|m| m.fault().cloned()));
    view! {
        <dialog class="manager" node_ref=app.manager_dialog aria-labelledby="manager-title" data-testid="manager">
            <header role="none">
                <h2 id="manager-title">{strings::TITLE}</h2>
                <span class="used" data-testid="used">{move || strings::used(used.get())}</span>
                <DeleteAll />
                <button type="button" class="quiet" data-testid="manager-close" on:click=close>
                    {strings::CLOSE}
                </button>
            </header>
            <Later>
                <Show when=move || app.is_volatile.get()>
                    <p class="note" data-testid="volatile">{move || strings::volatile(is_safari())}</p>
                </Show>
                <ul class="models">
                    {BuiltIn::SHIPPED.iter().map(|&model| view! { <BuiltInRow model /> }).collect_view()}
                    <For each=move || models.get() key=|model| model.0.clone() let:model>
                        <Row model />
                    </For>
                    <FolderRows />
                    {move || offers.get().into_iter().map(|offer| view! { <OfferRow offer /> }).collect_view()}
                </ul>
                <div role="alert">
                    {move || fault.get().map(|fault| view! { <Failure fault /> })}
                </div>
                <WithoutRoom />
                <Add />
                <MakingCard />
                <RealModels />
            </Later>
        </dialog>
    }
}

/// Deletes every stored model, after a confirmation.
#[component]
fn DeleteAll() -> impl IntoView {
    let app = app_state();
    let is_asking = RwSignal::new(false);
    let can_delete = Memo::new(move |_| app.models.with(|m| m.can_delete()));
    let text = move || {
        app.models
            .with(|m| words::delete_all(m.entries().len(), m.used()))
    };
    let delete = move || {
        is_asking.set(false);
        app.manage(Input::DeleteAll);
    };
    view! {
        <Show when=move || can_delete.get()>
            <Show
                when=move || is_asking.get()
                fallback=move || view! {
                    <button type="button" class="quiet" data-testid="models-delete-all" on:click=move |_| is_asking.set(true)>
                        {words::DELETE_ALL}
                    </button>
                }
            >
                <span class="doubt" role="status">{text}</span>
                <Action label=words::DELETE_ALL key="models-delete-all-yes" act=delete />
                <button type="button" class="quiet" on:click=move |_| is_asking.set(false)>{words::BACK}</button>
            </Show>
        </Show>
    }
}

/// The offer to run a model that there was no room for.
#[component]
fn WithoutRoom() -> impl IntoView {
    let app = app_state();
    let name = Memo::new(move |_| {
        app.models
            .with(|m| m.without_room().map(|preview| preview.facts.name.clone()))
    });
    view! {
        {move || name.get().map(|name| view! {
            <div class="model-actions">
                <span>{name}</span>
                <Action label=words::RUN_UNSAVED key="run-unsaved" primary=true act=move || app.manage(Input::RunUnsaved) />
            </div>
        })}
    }
}

/// The files of a download.
#[component]
fn Shards(entry: Memo<Option<Entry>>) -> impl IntoView {
    let shards = Memo::new(move |_| {
        entry.with(|e| e.as_ref().map(|e| e.shards.clone()).unwrap_or_default())
    });
    let names = Memo::new(move |_| {
        shards.with(|all| all.iter().map(|s| s.name.clone()).collect::<Vec<_>>())
    });
    let row = move |name: String| {
        let of = move |shards: &[ShardProgress]| shards.iter().find(|s| s.name == name).cloned();
        let shard = Memo::new(move |_| shards.with(|all| of(all.as_slice())));
        let state =
            move || shard.with(|s| s.as_ref().map(|s| format!("{:?}", s.state).to_lowercase()));
        let text = move || shard.with(|s| s.as_ref().map(words::shard));
        view! { <li data-testid="shard" data-state=state>{text}</li> }
    };
    view! {
        <Show when=move || names.with(|names| !names.is_empty())>
            <details class="shards" data-testid="shards">
                <summary>{words::SHARDS}</summary>
                <ul>
                    <For each=move || names.get() key=String::clone children=row />
                </ul>
            </details>
        </Show>
    }
}

/// Shows the progress of a download in the title of the page.
fn show_in_title(app: AppState) {
    let title = document().title();
    let part = Memo::new(move |_| {
        app.models.with(|m| {
            let entry = m.downloading();
            entry.map(|e| strings::percent(e.progress.done, e.progress.total))
        })
    });
    Effect::new(move |before: Option<bool>| {
        let now = part.get();
        match now {
            Some(part) => {
                document().set_title(&format!("{} · {title}", strings::whole_percent(part)))
            }
            None if before == Some(true) => document().set_title(&title),
            None => {}
        }
        now.is_some()
    });
}

fn is_safari() -> bool {
    let agent = window().navigator().user_agent().unwrap_or_default();
    agent.contains("Safari") && !agent.contains("Chrom")
}

#[component]
fn Failure(fault: Fault) -> impl IntoView {
    let (told, coded) = (fault.clone(), fault.clone());
    let text = move || strings::sentence(&told);
    let code = move || strings::error_code(&coded);
    view! {
        <p class="wrong" data-testid="model-error">
            {text} " "
            <small class="error-code" data-testid="error-code">{code}</small>
        </p>
        <Original fault />
    }
}

/// A built-in model.
#[component]
fn BuiltInRow(model: BuiltIn) -> impl IntoView {
    let app = app_state();
    let choice = StoredValue::new(Choice::BuiltIn(model));
    let is_chosen = move || app.models.with(|m| *m.choice() == choice.get_value());
    let status = move || {
        let models = app.models.read();
        app.model
            .with(|engine| strings::built_in_status(model, &models, engine))
    };
    // The default model has the same names in every version.
    let (row, load) = match model == BuiltIn::default() {
        true => ("demo-model".to_owned(), "load-demo"),
        false => (format!("model-{}", model.name()), "load-built-in"),
    };
    view! {
        <li class="model" data-testid=row>
            <div class="model-head">
                <h3>{model.name()}</h3>
                <span class="facts">{move || strings::description(model)}</span>
            </div>
            <Show when=is_chosen>
                <KnowsLine />
            </Show>
            <p class="stand">{status}</p>
            <div class="model-actions">
                <Show when=move || !is_chosen()>
                    <Action label=strings::LOAD key=load act=move || app.manage(Input::Load(choice.get_value())) />
                </Show>
            </div>
        </li>
    }
}

/// A model that the site offers.
#[component]
fn OfferRow(offer: model_manager::Offer) -> impl IntoView {
    let app = app_state();
    let model_manager::Offer {
        name,
        bytes,
        address,
    } = offer;
    let preview = move || app.manage(Input::Preview(address.clone()));
    let test_id = format!("offer-{name}");
    view! {
        <li class="model" data-testid=test_id>
            <div class="model-head">
                <h3>{name.clone()}</h3>
                <span class="facts">{move || strings::offer(&name, bytes)}</span>
            </div>
            <div class="model-actions">
                <Action label=strings::GET key="get-offer" act=preview />
            </div>
        </li>
    }
}

/// What the loaded model knows.
#[component]
fn KnowsLine() -> impl IntoView {
    let app = app_state();
    let knows = move || {
        app.model
            .with(|model| strings::knows(model).map(strings::of_model))
    };
    view! { {move || knows().map(|text| view! { <p class="stand">{text}</p> })} }
}

/// A button of a model.
#[component]
fn Action(
    label: impl Fn() -> &'static str + Send + 'static,
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
            {label}
        </button>
    }
}

/// A stored model.
#[component]
fn Row(model: ModelId) -> impl IntoView {
    let app = app_state();
    let id = StoredValue::new(model);
    let entry = Memo::new(move |_| app.models.with(|m| m.entry(&id.get_value()).cloned()));
    let status = Memo::new(move |_| {
        entry.with(|entry| {
            let entry = entry.as_ref()?;
            app.model
                .with(|engine| app.models.with(|m| Some(m.status(entry, engine))))
        })
    });
    let state = Memo::new(move |_| status.with(|s| s.as_ref().map_or("gone", Status::name)));
    let fact =
        move |of: fn(&Entry) -> String| entry.with(|e| e.as_ref().map(of).unwrap_or_default());
    let progress = move || {
        app.model.with(|model| match model {
            Model::Loading(progress) => *progress,
            _ => None,
        })
    };
    let text = move || {
        entry.with(|entry| {
            let entry = entry.as_ref()?;
            status.with(|s| {
                s.as_ref()
                    .map(|s| strings::entry_status(entry, s, progress()))
            })
        })
    };
    let fault = Memo::new(move |_| entry.with(|e| e.as_ref().and_then(|e| e.fault.clone())));
    let fit = Memo::new(move |_| entry.with(|e| e.as_ref().and_then(|e| e.stored.fit.clone())));
    view! {
        <li class="model" data-testid="model" data-state=move || state.get() data-model=id.get_value().0>
            <div class="model-head">
                <h3>{move || fact(|e| e.stored.facts.name.clone())}</h3>
                <span class="facts">{move || fact(strings::facts)}</span>
            </div>
            <Bar entry status progress=Signal::derive(progress) />
            <p class="stand" data-testid="model-words">{text}</p>
            <p class="facts" data-testid="last-used">{move || fact(last_used)}</p>
            {move || fit.get().map(|fit| view! {
                <p class="verdict" class:bad=fit.verdict == Verdict::WillNotRun data-testid="kept-verdict">
                    {strings::verdict(&fit)}
                </p>
            })}
            <Shards entry />
            <div role="alert">
                {move || fault.get().map(|fault| view! { <Failure fault /> })}
            </div>
            <Actions id=id.get_value() status entry />
            <details class="licence">
                <summary>{move || strings::licence(&fact(|e| e.stored.facts.licence.clone()))}</summary>
                <p>{move || fact(|e| e.stored.facts.licence_text.clone())}</p>
            </details>
        </li>
    }
}

fn last_used(entry: &Entry) -> String {
    words::last_used(entry, js_sys::Date::now())
}

/// The progress bar of a download or of loading.
#[component]
fn Bar(
    entry: Memo<Option<Entry>>,
    status: Memo<Option<Status>>,
    progress: Signal<Option<Progress>>,
) -> impl IntoView {
    let part = Memo::new(move |_| {
        let entry = entry.get()?;
        let stored = (entry.progress.done, entry.progress.total);
        match status.get()? {
            Status::Loading => progress.get().map(|p| (p.done, p.total)),
            Status::Downloading { .. } | Status::Paused | Status::Partial => Some(stored),
            Status::Ready | Status::Loaded | Status::InOtherTab => None,
        }
    });
    let name = move || entry.with(|e| e.as_ref().map(|e| e.stored.facts.name.clone()));
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

/// The actions on a stored model, or the confirmation of one.
#[component]
fn Actions(id: ModelId, status: Memo<Option<Status>>, entry: Memo<Option<Entry>>) -> impl IntoView {
    let app = app_state();
    let id = StoredValue::new(id);
    let confirmation = RwSignal::new(Confirmation::None);
    let buttons = NodeRef::<html::Div>::new();
    let pressed = StoredValue::new(false);
    let state = Memo::new(move |_| status.with(|s| s.as_ref().map(Status::name)));
    let actions = Memo::new(move |_| {
        let confirmation = confirmation.get();
        status.with(|s| s.as_ref().map(|s| confirmation.actions(s)))
    });
    Effect::new(move |before: Option<Option<&'static str>>| {
        let state = state.get();
        if before.is_some_and(|before| before != state) {
            confirmation.set(Confirmation::None);
        }
        state
    });
    Effect::new(move |_| {
        state.track();
        confirmation.track();
        if pressed.get_value() {
            request_animation_frame(move || keep_focus_in(buttons));
        }
    });
    let press = move |action: EntryAction| {
        let (next, input) = action.press(id.get_value());
        confirmation.set(next);
        if let Some(input) = input {
            app.manage(input);
        }
        // Fails after a press that removed the row.
        pressed.try_set_value(true);
    };
    let text = move || {
        entry.with(|entry| {
            let entry = entry.as_ref()?;
            Some(strings::confirmation(entry, confirmation.get()))
        })
    };
    view! {
        <div class="model-actions" node_ref=buttons>
            <Show when=move || confirmation.get() != Confirmation::None>
                <span class="doubt" role="status">{text}</span>
            </Show>
            <For
                each=move || actions.get().unwrap_or_default().iter().copied()
                key=|action| *action
                children=move |action| {
                    view! {
                        <Action
                            label=move || strings::action(action)
                            key=action.key()
                            primary=action.is_primary()
                            act=move || press(action)
                        />
                    }
                }
            />
        </div>
    }
}

/// Moves the focus to the first button if the pressed one was replaced.
fn keep_focus_in(buttons: NodeRef<html::Div>) {
    let focused = document().active_element().map(|e| e.tag_name());
    let is_lost = focused.is_none_or(|tag| matches!(tag.as_str(), "BODY" | "DIALOG"));
    let first = (buttons.try_get_untracked().flatten())
        .and_then(|buttons| buttons.query_selector("button").ok()?);
    if let (true, Some(first)) = (is_lost, first) {
        // A button in an open dialog takes the focus.
        let _ = first.unchecked_into::<HtmlElement>().focus();
    }
}

/// The reference of a field for files that chooses a folder instead.
pub fn chooses_folders() -> NodeRef<html::Input> {
    let field = NodeRef::<html::Input>::new();
    Effect::new(move |_| {
        if let Some(field) = field.get() {
            // A browser without folders has the button for files.
            let _ = field.set_attribute("webkitdirectory", "");
        }
    });
    field
}

/// The ways to add a model: an address, a folder, files.
#[component]
fn Add() -> impl IntoView {
    let app = app_state();
    let address = RwSignal::new(String::new());
    let on_submit = move |event: SubmitEvent| {
        event.prevent_default();
        app.manage(Input::Preview(address.get_untracked()));
    };
    let folder = chooses_folders();
    let on_files = move |event: ev::Event| {
        let input: HtmlInputElement = event_target(&event);
        let files = input.files().map(all_files).unwrap_or_default();
        if !files.is_empty() {
            preview_files(app, &files);
        }
        input.set_value("");
    };
    let preview = Memo::new(move |_| app.models.with(|m| without_consent(m.preview())));
    view! {
        <section class="add" aria-labelledby="add-title">
            <h3 id="add-title">{strings::ADD}</h3>
            <form on:submit=on_submit>
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
                    <input type="file" multiple class="hidden-input" data-testid="model-folder" node_ref=folder on:change=on_files />
                    {strings::FOLDER}
                </label>
                <label class="button small">
                    <input type="file" multiple class="hidden-input" data-testid="model-files" on:change=on_files />
                    {strings::FILES}
                </label>
                <FolderButton />
            </div>
            <div role="status" aria-live="polite">
                {move || match preview.get() {
                    PreviewState::None => ().into_any(),
                    PreviewState::Loading => view! { <p class="stand">{strings::LOOKING}</p> }.into_any(),
                    PreviewState::Failed(fault) => view! { <Failure fault /> }.into_any(),
                    PreviewState::Ready { preview, .. } => view! { <Offer preview /> }.into_any(),
                }}
            </div>
        </section>
    }
}

/// The preview without the state of the licence checkbox, whose change must not rebuild the view.
fn without_consent(preview: &PreviewState) -> PreviewState {
    match preview.clone() {
        PreviewState::Ready { preview, .. } => PreviewState::Ready {
            preview,
            accepted: false,
        },
        other => other,
    }
}

/// The files of a list.
pub fn all_files(files: FileList) -> Vec<File> {
    (0..files.length()).filter_map(|i| files.get(i)).collect()
}

/// A previewed model: its facts, its licence, and the button to download or import it.
#[component]
fn Offer(preview: Preview) -> impl IntoView {
    let app = app_state();
    let facts = preview.facts;
    let accepted = Memo::new(move |_| {
        app.models
            .with(|m| matches!(m.preview(), PreviewState::Ready { accepted: true, .. }))
    });
    let accept = move |event: ev::Event| app.manage(Input::Accept(event_target_checked(&event)));
    let is_here = preview.address.is_none();
    let name = StoredValue::new(facts.name.clone());
    let (named, precision, bytes) = (facts.name, facts.precision, facts.bytes);
    let title = move || strings::preview(&named, &precision, bytes);
    let trained_on = move || strings::of_model(&facts.trained_on);
    let licence = move || strings::licence(&facts.licence);
    let verb = match is_here {
        false => strings::DOWNLOAD,
        true => strings::IMPORT,
    };
    view! {
        <div class="offer" data-testid="offer">
            <h4>{title}</h4>
            {preview.address.map(|address| view! { <p class="facts">{address}</p> })}
            <p>{trained_on}</p>
            {preview.fit.map(|fit| {
                let is_bad = fit.verdict == Verdict::WillNotRun;
                view! {
                <p class="verdict" class:bad=is_bad data-testid="verdict">{move || strings::verdict(&fit)}</p>
            }})}
            <h5>{licence.clone()}</h5>
            <p class="licence-text" tabindex="0" role="document" aria-label=licence data-testid="licence-text">
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
                    on:click=move |_| app.manage(Input::Download)
                >
                    {verb}
                </button>
                <Show when=move || is_here>
                    <button
                        type="button"
                        class="button small"
                        data-testid="use-in-place"
                        disabled=move || !accepted.get()
                        on:click=move |_| {
                            app.keep_folder(name.get_value());
                            app.manage(Input::RunUnsaved);
                        }
                    >
                        {words::USE_IN_PLACE}
                    </button>
                </Show>
                <Action label=strings::NOT_NOW key="forget" act=move || app.manage(Input::Dismiss) />
            </div>
            <Show when=move || is_here>
                <p class="small-print">{words::USE_IN_PLACE_NOTE}</p>
            </Show>
        </div>
    }
}
