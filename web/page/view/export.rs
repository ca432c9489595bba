//! The dialog for export and import, and the line that tells what came of it.

use std::collections::BTreeSet;

use chatrex::chat::answer;
use chatrex::chat::candidates::BoxId;
use chatrex::chat::conversation::{Input, Model, Turn};
use chatrex::chat::document::{Document, Parameters};
use chatrex::chat::exchange::annotated::{self, Style, covered};
use chatrex::chat::exchange::format::Format;
use chatrex::chat::exchange::import::{self, Imported};
use chatrex::chat::exchange::marked::{Scope, Sheet, Source, Unlabelled};
use chatrex::chat::exchange::{box_2d, coco, csv, html as saved_page, label_studio};
use chatrex::chat::exchange::{lossless, markdown, voc, words, yolo};
use chatrex::chat::overlay::{Mentions, Visibility};
use chatrex::chat::strings;
use chatrex::chat::words::{Word, number};
use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::protocol::ImageSize;
use js_sys::Array;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::{ev, html};
use web_sys::{Blob, File, HtmlInputElement};

use super::dialog;
use super::icons::{Icon, icon};
use super::models::all_files;
use super::original::Original;
use super::share::ShareButtons;
use super::state::{AppState, app_state};
use crate::{decode, export};

/// What came of the last export or import.
#[derive(Clone, Debug, Default, PartialEq)]
enum Outcome {
    /// Nothing yet.
    #[default]
    None,
    /// It succeeded, or something is missing.
    Said(String),
    /// It failed.
    Failed(Fault),
}

/// The state of the dialog. Copied freely.
#[derive(Clone, Copy)]
pub struct ExchangeState {
    dialog: NodeRef<html::Dialog>,
    is_open: RwSignal<bool>,
    outcome: RwSignal<Outcome>,
    format: RwSignal<Format>,
    scope: RwSignal<Scope>,
    unlabelled: RwSignal<Option<Unlabelled>>,
    /// Line width and text size that the user chose, in pixels of the picture.
    line: RwSignal<Option<f32>>,
    text: RwSignal<Option<f32>>,
    words: RwSignal<bool>,
    footer: RwSignal<bool>,
    blur: RwSignal<bool>,
}

impl ExchangeState {
    /// The dialog is closed.
    pub fn new() -> Self {
        Self {
            dialog: NodeRef::new(),
            is_open: RwSignal::new(false),
            outcome: RwSignal::new(Outcome::None),
            format: RwSignal::new(Format::default()),
            scope: RwSignal::new(Scope::Shown),
            unlabelled: RwSignal::new(None),
            line: RwSignal::new(None),
            text: RwSignal::new(None),
            words: RwSignal::new(true),
            footer: RwSignal::new(false),
            blur: RwSignal::new(false),
        }
    }

    fn open(self) {
        self.outcome.set(Outcome::None);
        self.is_open.set(true);
        dialog::show(self.dialog);
    }

    /// The dialog was closed; what it said belongs to it.
    fn close(self) {
        self.is_open.set(false);
        self.outcome.set(Outcome::None);
    }

    fn say(self, text: impl Into<String>) {
        self.outcome.set(Outcome::Said(text.into()));
    }

    /// Chooses a format and the boxes that are usual for it.
    fn choose(self, app: AppState, format: Format) {
        let has_selection = app.overlay.with_untracked(|o| !o.selection().is_empty());
        self.scope.set(match format {
            Format::Annotated => Scope::Shown,
            Format::Redacted if has_selection => Scope::Selected,
            Format::Redacted => Scope::Mentioned,
            _ => Scope::All,
        });
        self.format.set(format);
        self.outcome.set(Outcome::None);
    }

    fn style(self, size: ImageSize) -> Style {
        let automatic = Style::automatic(size);
        Style {
            line: self.line.get().unwrap_or(automatic.line),
            text: self.text.get().unwrap_or(automatic.text),
            words: self.words.get(),
        }
    }

    /// Writes the chosen file.
    fn save(self, app: AppState) {
        let (format, unlabelled) = (self.format.get_untracked(), self.unlabelled.get_untracked());
        let Some((picture, sheet)) = app.picture_file().zip(untrack(|| self.sheet(app))) else {
            return;
        };
        let missing = sheet.unlabelled();
        let sheet = match unlabelled {
            _ if !format.needs_labels() || missing == 0 => sheet,
            Some(how) => sheet.labelled(how),
            None => return self.say(words::decide(missing)),
        };
        if format == Format::Redacted && sheet.boxes.is_empty() {
            return self.say(words::NOTHING_TO_COVER());
        }
        self.say(words::WORKING());
        spawn_local(async move {
            let count = format.has_scope().then_some(sheet.boxes.len());
            let name = format.file_name(&sheet.name);
            let made = self.make(app, format, &sheet, &picture).await;
            let saved = made.and_then(|blob| {
                export::download(&name, &blob)?;
                Ok(words::saved(&name, count, blob.size() as u64))
            });
            self.outcome
                .set(saved.map_or_else(Outcome::Failed, Outcome::Said));
        });
    }

    /// The file of a format.
    async fn make(
        self,
        app: AppState,
        format: Format,
        sheet: &Sheet,
        picture: &Blob,
    ) -> Result<Blob, Fault> {
        let text = match format {
            Format::Annotated => {
                let footer = self
                    .footer
                    .get_untracked()
                    .then(|| last_words(app))
                    .flatten();
                let footer = footer.as_ref().map(|(q, a)| (q.as_str(), a.as_str()));
                let style = untrack(|| self.style(sheet.size));
                let plan = annotated::plan(sheet, style, footer, &mut export::measure()?);
                return export::annotated(picture, &plan).await;
            }
            Format::Redacted => {
                let blur = self.blur.get_untracked();
                return export::redacted(picture, sheet.size, &covered(sheet), blur).await;
            }
            Format::Page => return page_file(app, sheet.size, picture).await,
            Format::Yolo => {
                let content = export::content(picture).await?;
                return export::bytes(&yolo::zip(sheet, &content), format.media_type());
            }
            Format::Document => document(app).to_json(),
            Format::Markdown => with_source(app, markdown::conversation),
            Format::Coco => coco::write(sheet),
            Format::Voc => voc::write(sheet),
            Format::Csv => csv::write(sheet),
            Format::Box2d => box_2d::write(sheet),
            Format::LabelStudio => label_studio::write(sheet),
        };
        export::text(&text, format.media_type())
    }

    /// The chosen boxes of the current picture.
    fn sheet(self, app: AppState) -> Option<Sheet> {
        self.sheet_of(app, self.scope.get())
    }

    /// The boxes of a scope, and again whenever they change.
    fn sheet_of(self, app: AppState, scope: Scope) -> Option<Sheet> {
        app.candidates.track();
        app.drawn_boxes.track();
        app.turns
            .with(|turns| turns.last().map(|last| last.turn.track()));
        app.picture
            .with(Option::is_some)
            .then(|| with_source(app, |s| Sheet::of(s, scope)))
    }

    /// Reads files of the user: a conversation, or boxes for the picture among them or the open one.
    pub fn import(self, app: AppState, files: Vec<File>) {
        self.say(words::READING());
        spawn_local(async move {
            let outcome = self.read(app, files).await;
            self.outcome
                .set(outcome.map_or_else(Outcome::Failed, Outcome::Said));
        });
    }

    async fn read(self, app: AppState, files: Vec<File>) -> Result<String, Fault> {
        let (pictures, files): (Vec<File>, Vec<File>) =
            files.into_iter().partition(decode::is_picture);
        if let Some(picture) = pictures.into_iter().next()
            && !app.open_and_wait(picture).await
        {
            // The message about the picture tells why.
            return Ok(String::new());
        }
        let mut read = Vec::new();
        for file in &files {
            read.push(export::read(file).await?);
        }
        let open = app.with_conversation(|c| c.picture().map(|p| p.size));
        let name = open.map(|_| app.picture_name());
        match import::read(read, name.as_deref().zip(open))? {
            Imported::Boxes {
                boxes,
                left_out,
                place,
            } => {
                let added = app.with_conversation(|c| c.picture().map(|p| p.added(&boxes)));
                let mut added = added.unwrap_or_default();
                added.left_out = left_out;
                app.act(Input::Import(boxes));
                app.overlay.update(|o| o.show = Visibility::All);
                Ok(words::imported(&place, added))
            }
            Imported::Conversation {
                document,
                picture,
                place,
            } => {
                if let Some(picture) = picture {
                    let name = &document.picture.name;
                    let blob = export::bytes(&picture.bytes, &picture.media_type)?;
                    let file = decode::named(&blob, name).ok_or_else(|| no_picture(&place))?;
                    if !app.open_and_wait(file).await {
                        app.notice.set(None);
                        return Err(no_picture(&place));
                    }
                    let size = app.with_conversation(|c| c.picture().map(|p| p.size));
                    let expected = (document.picture.width, document.picture.height);
                    if size.map(|s| (s.width, s.height)) != Some(expected) {
                        app.undo();
                        return Err(no_picture(&place));
                    }
                }
                let text = words::restored(&place, &document);
                app.act(Input::Restore(document));
                let names_boxes =
                    app.with_conversation(|c| c.turns().last().and_then(Mentions::of).is_some());
                app.overlay.update(|o| o.on_answer(names_boxes));
                Ok(text)
            }
        }
    }
}

fn exchange_state() -> ExchangeState {
    expect_context::<ExchangeState>()
}

/// Calls `read` with the boxes and turns as they are now.
fn with_source<T>(app: AppState, read: impl FnOnce(Source<'_>) -> T) -> T {
    let name = app.picture_name();
    let shown: BTreeSet<BoxId> =
        (app.drawn_boxes).with_untracked(|boxes| boxes.iter().map(|b| b.id).collect());
    let selected = app.overlay.with_untracked(|o| o.selection().clone());
    app.with_conversation(|c| {
        read(Source {
            name: &name,
            size: c.picture().map_or(
                ImageSize {
                    width: 1,
                    height: 1,
                },
                |p| p.size,
            ),
            candidates: c.candidates(),
            turns: c.turns(),
            shown: &shown,
            selected: &selected,
        })
    })
}

/// The conversation with its picture as one file, and the name of that.
async fn shared_file(app: AppState) -> Option<(Blob, String)> {
    let picture = app.picture_file()?;
    let size = app.with_conversation(|c| c.picture().map(|p| p.size))?;
    let blob = page_file(app, size, &picture).await.ok()?;
    Some((blob, Format::Page.file_name(&app.picture_name())))
}

/// The conversation as a page of its own.
async fn page_file(app: AppState, size: ImageSize, picture: &Blob) -> Result<Blob, Fault> {
    let picture = portable(picture, size).await?;
    let address = export::data_address(&picture).await?;
    let (before, after) = saved_page::parts(&document(app));
    let parts = Array::of3(&before.into(), &address, &after.into());
    export::blob(&parts, Format::Page.media_type())
}

/// The conversation as a document.
fn document(app: AppState) -> Document {
    let parameters = app.with_conversation(|c| {
        let filter = c.filter();
        Parameters {
            model: match c.model() {
                Model::Ready(card) => Some(card.name.clone()),
                _ => None,
            },
            granularity: c.granularity(),
            score: filter.score,
            nms: filter.nms,
            first_of_kind: filter.first_of_kind,
            sampling: c.sampling(),
        }
    });
    with_source(app, |source| lossless::document(source, parameters))
}

/// The last question with an answer, and the answer.
fn last_words(app: AppState) -> Option<(String, String)> {
    let words = |turn: &Turn| (turn.shown.clone(), answer::plain(&turn.pieces()));
    app.with_conversation(|c| {
        let mut turns = c.turns().iter().rev();
        turns.find(|turn| !turn.spans.is_empty()).map(words)
    })
}

/// A picture in a format that every browser shows: the file itself, else a PNG of it.
async fn portable(picture: &Blob, size: ImageSize) -> Result<Blob, Fault> {
    let is_usual = [
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/gif",
        "image/avif",
        "image/bmp",
    ]
    .contains(&picture.type_().as_str());
    if is_usual {
        Ok(picture.clone())
    } else {
        export::png(picture, size).await
    }
}

fn no_picture(place: &str) -> Fault {
    Fault::new(
        FaultKind::File,
        place,
        "its picture is damaged",
        "Choose another file; your current picture is unchanged",
    )
    .code(ErrorCode::Corrupt)
}

/// The buttons for export and import, the dialog, and the outcome.
#[component]
pub fn ExportButtons() -> impl IntoView {
    let app = app_state();
    let state = exchange_state();
    let open = move |_| {
        state.choose(app, state.format.get_untracked());
        state.open();
    };
    view! {
        <div class="exchange-buttons">
            <button
                type="button"
                class="icon-button"
                aria-haspopup="dialog"
                aria-label=words::OPEN
                title=words::OPEN
                data-testid="export"
                on:click=open
            >
                {icon(Icon::Export)}
            </button>
            <label class="icon-button" title=words::IMPORT>
                <FileField test_id="import" />
                {icon(Icon::Import)}
                <span class="hidden">{words::IMPORT}</span>
            </label>
        </div>
        <Show when=move || !state.is_open.get()>
            <OutcomeLine />
        </Show>
        <Dialog />
    }
}

/// The field that chooses files to import, in a label.
#[component]
fn FileField(test_id: &'static str) -> impl IntoView {
    let app = app_state();
    let state = exchange_state();
    let on_files = move |event: ev::Event| {
        let input: HtmlInputElement = event_target(&event);
        let files = input.files().map(all_files).unwrap_or_default();
        if !files.is_empty() {
            state.import(app, files);
        }
        input.set_value("");
    };
    view! {
        <input type="file" multiple class="hidden-input" data-testid=test_id on:change=on_files />
    }
}

/// A fault in a sentence, with its code.
pub(super) fn fault_text(fault: &Fault) -> impl IntoView + use<> {
    view! {
        {strings::sentence(fault)}
        " "
        <small class="error-code">{strings::error_code(fault)}</small>
    }
}

/// What came of the last export or import.
#[component]
fn OutcomeLine() -> impl IntoView {
    let state = exchange_state();
    let is_bad = move || state.outcome.with(|o| matches!(o, Outcome::Failed(_)));
    let text = move || match state.outcome.get() {
        Outcome::None => ().into_any(),
        Outcome::Said(text) => text.into_any(),
        Outcome::Failed(fault) => fault_text(&fault).into_any(),
    };
    let is_dismissible = move || !state.outcome.with(|o| matches!(o, Outcome::None));
    view! {
        <div class="exchange-outcome" class:wrong=is_bad>
            <p role="status" data-testid="exchange-outcome">
                {text}
            </p>
            {move || match state.outcome.get() {
                Outcome::Failed(fault) => Some(view! { <Original fault /> }),
                _ => None,
            }}
            <Show when=is_dismissible>
                <button
                    type="button"
                    class="quiet"
                    data-testid="exchange-dismiss"
                    on:click=move |_| state.outcome.set(Outcome::None)
                >
                    {strings::DISMISS}
                </button>
            </Show>
        </div>
    }
}

#[component]
fn Dialog() -> impl IntoView {
    let state = exchange_state();
    let close = move |_| dialog::close(state.dialog);
    view! {
        <dialog
            class="manager exchange"
            node_ref=state.dialog
            aria-labelledby="exchange-title"
            data-testid="exchange"
            on:close=move |_| state.close()
        >
            <header role="none">
                <h2 id="exchange-title">{words::TITLE}</h2>
                <button type="button" class="quiet" data-testid="exchange-close" on:click=close>
                    {strings::CLOSE}
                </button>
            </header>
            <Show when=move || state.is_open.get()>
                <Content />
            </Show>
        </dialog>
    }
}

#[component]
fn Content() -> impl IntoView {
    let app = app_state();
    let state = exchange_state();
    let format = state.format;
    let has_picture = Memo::new(move |_| app.picture.with(Option::is_some));
    let missing = Memo::new(move |_| {
        let sheet = state.sheet(app).filter(|_| format.get().needs_labels());
        sheet.map_or(0, |sheet| sheet.unlabelled())
    });
    let has_missing = move || missing.get() > 0;
    let on_format = move |event: ev::Event| {
        if let Some(format) = Format::of_key(&event_target_value(&event)) {
            state.choose(app, format);
        }
    };
    let is = move |wanted: Format| move || format.get() == wanted;
    view! {
        <div class="exchange-out">
            <label class="exchange-field">
                <span>{words::FORMAT}</span>
                <select data-testid="export-format" on:change=on_format prop:value=move || format.get().key()>
                    {(0..words::GROUPS.len()).map(|group| view! { <Group group /> }).collect_view()}
                </select>
            </label>
            <Show when=move || format.get().has_scope()>
                <ScopeChoice />
            </Show>
            <Show when=has_missing>
                <UnlabelledChoice missing />
            </Show>
            <Show when=is(Format::Annotated)>
                <StyleChoice />
            </Show>
            <Show when=is(Format::Redacted)>
                <CoverChoice />
            </Show>
            {move || words::note(format.get()).map(|note| view! { <p class="hint">{note}</p> })}
            <button
                type="button"
                class="button primary"
                data-testid="export-save"
                disabled=move || !has_picture.get()
                on:click=move |_| state.save(app)
            >
                {words::SAVE}
            </button>
            <OutcomeLine />
        </div>
        <ShareButtons make=move || Box::pin(shared_file(app)) />
        <section class="exchange-in" aria-labelledby="import-title">
            <h3 id="import-title">{words::IMPORT}</h3>
            <p class="hint">{words::IMPORT_NOTE}</p>
            <label class="button">
                <FileField test_id="import-here" />
                {words::CHOOSE}
            </label>
        </section>
    }
}

/// The formats of a group.
#[component]
fn Group(group: usize) -> impl IntoView {
    let state = exchange_state();
    let formats = Format::ALL
        .into_iter()
        .filter(move |&f| words::group(f) == group);
    view! {
        <optgroup label=words::GROUPS[group]>
            {formats
                .map(|format| view! {
                    <option value=format.key() selected={state.format.get_untracked() == format}>
                        {move || words::format(format)}
                    </option>
                })
                .collect_view()}
        </optgroup>
    }
}

/// Which boxes go into the file.
#[component]
fn ScopeChoice() -> impl IntoView {
    let app = app_state();
    let state = exchange_state();
    let scopes = [
        Scope::All,
        Scope::Shown,
        Scope::Mentioned,
        Scope::Own,
        Scope::Selected,
    ];
    let choice = move |scope: Scope| {
        let count = Memo::new(move |_| state.sheet_of(app, scope).map_or(0, |s| s.boxes.len()));
        view! {
            <label>
                <input
                    type="radio"
                    name="export-scope"
                    data-testid=format!("scope-{}", format!("{scope:?}").to_lowercase())
                    prop:checked=move || state.scope.get() == scope
                    on:change=move |_| state.scope.set(scope)
                />
                <span>{move || words::scope(scope)} " " <b class="count">{count}</b></span>
            </label>
        }
    };
    view! {
        <fieldset class="exchange-field">
            <legend>{words::SCOPE}</legend>
            <div class="segments wrap">{scopes.map(choice).into_iter().collect_view()}</div>
        </fieldset>
    }
}

/// What happens to boxes without a label. Nothing is chosen at first.
#[component]
fn UnlabelledChoice(missing: Memo<usize>) -> impl IntoView {
    let state = exchange_state();
    let choices = [
        (Unlabelled::AsObject, words::AS_OBJECT, "as-object"),
        (Unlabelled::LeaveOut, words::LEAVE_OUT, "leave-out"),
    ];
    let choice = move |(how, label, test_id)| {
        view! {
            <label class="accept">
                <input
                    type="radio"
                    name="export-unlabelled"
                    data-testid=test_id
                    prop:checked=move || state.unlabelled.get() == Some(how)
                    on:change=move |_| state.unlabelled.set(Some(how))
                />
                {label}
            </label>
        }
    };
    view! {
        <fieldset class="exchange-field" data-testid="unlabelled">
            <legend>{move || words::unlabelled(missing.get())}</legend>
            {choices.map(choice).into_iter().collect_view()}
        </fieldset>
    }
}

/// Line width, text size and footer of the annotated picture.
#[component]
fn StyleChoice() -> impl IntoView {
    let app = app_state();
    let state = exchange_state();
    let style = move || {
        let size = app.picture.with(|p| p.as_ref().map(|p| p.size));
        state.style(size.unwrap_or(ImageSize {
            width: 1,
            height: 1,
        }))
    };
    view! {
        <div class="exchange-field exchange-sliders">
            <PixelSlider
                name=words::LINE
                test_id="export-line"
                range=(1.0, Style::MAX_LINE)
                value=Signal::derive(move || style().line)
                set=state.line
            />
            <PixelSlider
                name=words::TEXT
                test_id="export-text"
                range=Style::TEXT
                value=Signal::derive(move || style().text)
                set=state.text
            />
            <Check label=words::LABELS test_id="export-labels" signal=state.words />
            <Check label=words::FOOTER test_id="export-footer" signal=state.footer />
        </div>
    }
}

/// A slider of whole pixels of the picture.
#[component]
fn PixelSlider(
    name: Word,
    test_id: &'static str,
    range: (f32, f32),
    value: Signal<f32>,
    set: RwSignal<Option<f32>>,
) -> impl IntoView {
    let on_input = move |event| {
        if let Ok(value) = event_target_value(&event).parse() {
            set.set(Some(value));
        }
    };
    view! {
        <label class="slider">
            <span>{name}</span>
            <output>{move || format!("{} px", number(f64::from(value.get()), 0))}</output>
            <input
                type="range"
                min=range.0
                max=range.1
                step="1"
                data-testid=test_id
                prop:value=move || value.get().to_string()
                on:input=on_input
            />
        </label>
    }
}

/// A check box and its label.
#[component]
pub(super) fn Check(label: Word, test_id: &'static str, signal: RwSignal<bool>) -> impl IntoView {
    view! {
        <label class="accept">
            <input
                type="checkbox"
                data-testid=test_id
                prop:checked=move || signal.get()
                on:change=move |event| signal.set(event_target_checked(&event))
            />
            {label}
        </label>
    }
}

/// How boxes are covered.
#[component]
fn CoverChoice() -> impl IntoView {
    let state = exchange_state();
    let choice = move |(blur, label, test_id)| {
        view! {
            <label>
                <input
                    type="radio"
                    name="export-cover"
                    data-testid=test_id
                    prop:checked=move || state.blur.get() == blur
                    on:change=move |_| state.blur.set(blur)
                />
                <span>{label}</span>
            </label>
        }
    };
    let choices = [
        (false, words::BLACK, "cover-black"),
        (true, words::BLUR, "cover-blur"),
    ];
    view! {
        <fieldset class="exchange-field">
            <legend>{words::COVER}</legend>
            <div class="segments">{choices.map(choice).into_iter().collect_view()}</div>
        </fieldset>
    }
}
