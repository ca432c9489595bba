//! The page's state: the state machines of `chatrex::chat` and the signals that the views read.

use std::rc::Rc;
use std::sync::Arc;

use chatrex::chat::bench::Bench;
use chatrex::chat::box_edit::clipped;
use chatrex::chat::candidates::{BoxId, Candidates, Filter, renumber, renumber_as, renumber_tags};
use chatrex::chat::choices::Choices;
use chatrex::chat::conversation::{
    BoxChange, Conversation, Earlier, Input, Likeness, Model, Picture, Turn,
};
use chatrex::chat::engine_choice::EngineChoice;
use chatrex::chat::making::Making;
use chatrex::chat::model_manager::{self, Choice, Effect, ModelManager};
use chatrex::chat::model_strings;
use chatrex::chat::overlay::{DrawnBox, Highlight, Mentions, Overlay, without_hidden};
use chatrex::chat::point_pick::{Pick, PointPick};
use chatrex::chat::pointing::{Pointing, Tool};
use chatrex::chat::question::{Draft, QuestionKind, append_marks};
use chatrex::chat::recovery::{LoadIn, Loss, Recovery, Supervisor};
use chatrex::chat::samples::{self, Sample};
use chatrex::chat::settings::Settings;
use chatrex::chat::viewport::{Frame, Viewport};
use chatrex::error::Fault;
use chatrex::generate::sampling::Sampling;
use chatrex::geometry::BoxXyxy;
use chatrex::protocol::store::{PICKED, StoreRequest};
use chatrex::protocol::{
    Envelope, Event, Granularity, ImageSize, PictureId, Request, ToWorker, TurnId,
};
use js_sys::{Array, Uint8Array};
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use web_sys::{Blob, File, Url};

use super::batching::Batching;
use super::kept::{Keeping, Source};
use super::motion::ease;
use super::workers::{Trial, Workshop};
use crate::decode::{self, Opened};
use crate::folders::Folder;
use crate::link::{Link, Report};
use crate::tabs::{Message, Tabs};
use crate::{embed, memory, offers, offline, persist};

/// Folder of the built-in models, relative to the page.
const MODELS: &str = "models/";

/// A turn and the signal that its view reads.
#[derive(Clone)]
pub struct TurnSignal {
    /// The turn's number.
    pub id: TurnId,
    /// The turn.
    pub turn: ArcRwSignal<Turn>,
}

/// The boxes that are like one of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alike {
    /// The box.
    pub id: BoxId,
    /// Least likeness: -1 to 1.
    pub least: f32,
}

/// A decoded picture, kept while the conversation can show it again.
struct KeptPicture {
    id: PictureId,
    opened: Opened,
}

/// The state and the actions of the views. Copied freely.
#[derive(Clone, Copy)]
pub struct AppState {
    pub(super) conversation: StoredValue<Conversation, LocalStorage>,
    supervisor: StoredValue<Supervisor>,
    link: StoredValue<Option<Link>, LocalStorage>,
    kept: StoredValue<Vec<KeptPicture>, LocalStorage>,
    next_picture: StoredValue<u32>,
    /// Number of the last request to open a picture; earlier ones are outdated.
    open_request: StoredValue<u32>,
    frame_requested: StoredValue<bool>,
    point_pick: StoredValue<PointPick>,
    /// Files of the user that a model is read from where they are.
    picked: StoredValue<Option<Array>, LocalStorage>,
    /// The folder that they were chosen in, and the names of the models in remembered folders.
    pub(super) folder: StoredValue<Option<Folder>, LocalStorage>,
    pub folders: RwSignal<Vec<String>>,
    tabs: StoredValue<Option<Tabs>, LocalStorage>,
    /// Which engine a software adapter gets; and whether the adapter is known yet.
    pub(super) engine: RwSignal<EngineChoice>,
    pub(super) adapter_known: StoredValue<bool>,
    pub(super) trial: StoredValue<Option<Trial>, LocalStorage>,
    /// The question that was sent last.
    pub(super) last_ask: StoredValue<Option<Request>, LocalStorage>,
    /// The benchmark, and the pixels of its picture.
    pub bench: RwSignal<Option<Bench>>,
    pub(super) bench_pixels: StoredValue<Option<Uint8Array>, LocalStorage>,
    /// A published checkpoint that becomes a model, and the worker that converts it.
    pub making: RwSignal<Making>,
    pub(super) workshop: StoredValue<Workshop, LocalStorage>,
    /// True when the engine can work for something else.
    pub can_lend: RwSignal<bool>,
    /// How the questions of this conversation are answered.
    pub choices: RwSignal<Choices>,
    /// What a new conversation begins with.
    pub usual: RwSignal<Choices>,
    /// The earlier turns that the next question can take along.
    pub earlier: RwSignal<Earlier>,
    /// The state of the model.
    pub model: RwSignal<Model>,
    /// The stored models.
    pub models: RwSignal<ModelManager>,
    /// The model manager's dialog.
    pub manager_dialog: NodeRef<html::Dialog>,
    /// True once the browser refused persistent storage.
    pub is_volatile: RwSignal<bool>,
    /// The recovery of a lost worker.
    pub recovery: RwSignal<Recovery>,
    /// The current picture.
    pub picture: RwSignal<Option<Picture>>,
    /// Object URL of the picture.
    pub address: RwSignal<Option<String>>,
    /// True while a file is being decoded.
    pub opening: RwSignal<bool>,
    /// The turns, oldest first.
    pub turns: RwSignal<Vec<TurnSignal>>,
    /// The boxes for the next question.
    pub candidates: RwSignal<Arc<Candidates>>,
    /// The current filters.
    pub filter: RwSignal<Filter>,
    /// The current granularity.
    pub granularity: RwSignal<Granularity>,
    /// How tokens are sampled.
    pub sampling: RwSignal<Sampling>,
    /// How alike the current boxes are, once it is known.
    pub likeness: RwSignal<Option<Arc<Likeness>>>,
    /// The box whose like are selected.
    pub alike: RwSignal<Option<Alike>>,
    /// True when a question can be asked.
    pub can_ask: RwSignal<bool>,
    /// True while a turn is queued or running.
    pub busy: RwSignal<bool>,
    /// What is highlighted, selected and shown.
    pub overlay: RwSignal<Overlay>,
    /// The phrases that color the boxes.
    pub mentions: Memo<Option<Mentions>>,
    /// The boxes as drawn.
    pub drawn_boxes: Memo<Vec<DrawnBox>>,
    /// What the pointer does on the picture.
    pub tool: RwSignal<Tool>,
    /// The pointers on the picture, and the box that they draw or change.
    pub pointing: RwSignal<Pointing>,
    /// How the picture lies in its pane.
    pub viewport: RwSignal<Viewport>,
    /// Width and height of the pane in CSS pixels.
    pub pane_size: RwSignal<(f32, f32)>,
    /// The picture and its pane.
    pub frame: Memo<Option<Frame>>,
    /// The question being written.
    pub draft: RwSignal<String>,
    /// The kind of question.
    pub kind: RwSignal<QuestionKind>,
    /// Incremented to move the focus into the text box.
    pub focus_draft: RwSignal<u32>,
    /// A failure outside a turn.
    pub notice: RwSignal<Option<Fault>>,
    /// True once everything is stored for use without a network.
    pub offline: RwSignal<bool>,
    /// The words for the model, where the user changed them.
    pub exact: RwSignal<Option<String>>,
    /// The turn whose question is being changed.
    pub editing: RwSignal<Option<TurnId>>,
    /// True between the request to stop and the engine's reply.
    pub stopping: RwSignal<bool>,
    /// The last edit, while the turns that it replaced can be brought back.
    pub last_edit: RwSignal<Option<TurnId>>,
    /// The number of boxes named so far, and of all, while boxes are being named.
    pub naming: RwSignal<Option<(usize, usize)>>,
    /// The most tokens of an answer.
    pub max_tokens: RwSignal<u32>,
    /// The turn and piece whose boxes are being changed.
    pub relinking: RwSignal<Option<(TurnId, usize)>>,
    /// True once the note about a slow device was dismissed.
    pub note_read: RwSignal<bool>,
    /// True while the end of the conversation is out of sight.
    pub is_far: RwSignal<bool>,
    /// Incremented to go to the end of the conversation.
    pub go_to_latest: RwSignal<u32>,
    /// What stays between visits.
    pub keep: Keeping,
    /// One task for many pictures.
    pub batching: Batching,
}

impl AppState {
    /// The empty state; nothing is loaded before [`AppState::begin`].
    pub fn new() -> Self {
        let keep = Keeping::new();
        let overlay = RwSignal::new(Overlay::default());
        let turns = RwSignal::new(Vec::<TurnSignal>::new());
        let candidates = RwSignal::new(Arc::new(Candidates::default()));
        let highlighted_turn = Memo::new(move |_| overlay.with(Overlay::turn));
        let mentions = Memo::new(move |_| {
            let highlighted = highlighted_turn.get();
            turns.with(|turns| {
                let all = turns.iter().filter_map(|t| t.turn.with(Mentions::of));
                let all: Vec<_> = all.collect();
                let index = all.iter().position(|m| Some(m.turn) == highlighted);
                let index = index.or(all.len().checked_sub(1))?;
                Some(all[index].clone())
            })
        });
        let picture = RwSignal::new(None::<Picture>);
        let pointing = RwSignal::new(Pointing::default());
        let pane_size = RwSignal::new((1.0, 1.0));
        let size = Memo::new(move |_| picture.with(|p| p.as_ref().map(|p| p.size)));
        let frame = Memo::new(move |_| {
            let pane = pane_size.get();
            size.get().map(|picture| Frame { picture, pane })
        });
        let edits = Memo::new(move |_| {
            picture.with(|p| p.as_ref().map(|p| p.edits().clone()).unwrap_or_default())
        });
        // A box follows the pointer that moves or resizes it.
        let changing = Memo::new(move |_| pointing.with(Pointing::changing));
        let drawn_boxes = Memo::new(move |_| {
            let candidates = candidates.get();
            let boxes = mentions.with(|m| overlay.with(|o| o.drawn_boxes(&candidates, m.as_ref())));
            let mut boxes = edits.with(|edits| without_hidden(boxes, edits));
            if let Some(size) = size.get() {
                for drawn in &mut boxes {
                    let changed = changing.get().filter(|(id, _)| *id == drawn.id);
                    let bbox = changed.map_or(drawn.bbox, |(_, bbox)| bbox);
                    drawn.bbox = clipped(bbox, size);
                }
            }
            boxes
        });
        Self {
            conversation: StoredValue::new_local(Conversation::default()),
            supervisor: StoredValue::new(Supervisor::default()),
            link: StoredValue::new_local(None),
            kept: StoredValue::new_local(Vec::new()),
            next_picture: StoredValue::new(0),
            open_request: StoredValue::new(0),
            frame_requested: StoredValue::new(false),
            point_pick: StoredValue::new(PointPick::default()),
            picked: StoredValue::new_local(None),
            folder: StoredValue::new_local(None),
            folders: RwSignal::new(Vec::new()),
            tabs: StoredValue::new_local(None),
            engine: RwSignal::new(EngineChoice::new(memory::engines())),
            adapter_known: StoredValue::new(false),
            trial: StoredValue::new_local(None),
            last_ask: StoredValue::new_local(None),
            bench: RwSignal::new(None),
            bench_pixels: StoredValue::new_local(None),
            making: RwSignal::new(Making::default()),
            workshop: StoredValue::new_local(Workshop::default()),
            can_lend: RwSignal::new(false),
            choices: RwSignal::new(Choices::default()),
            usual: RwSignal::new(Choices::default()),
            earlier: RwSignal::new(Earlier::default()),
            model: RwSignal::new(Model::Absent),
            models: RwSignal::new(ModelManager::with_choice(
                keep.choice(&document().url().unwrap_or_default()),
            )),
            manager_dialog: NodeRef::new(),
            is_volatile: RwSignal::new(false),
            recovery: RwSignal::new(Recovery::None),
            picture,
            address: RwSignal::new(None),
            opening: RwSignal::new(false),
            turns,
            candidates,
            filter: RwSignal::new(Filter::default()),
            granularity: RwSignal::new(Granularity::default()),
            sampling: RwSignal::new(Sampling::default()),
            likeness: RwSignal::new(None),
            alike: RwSignal::new(None),
            can_ask: RwSignal::new(false),
            busy: RwSignal::new(false),
            overlay,
            mentions,
            drawn_boxes,
            tool: RwSignal::new(Tool::default()),
            pointing,
            viewport: RwSignal::new(Viewport::default()),
            pane_size,
            frame,
            draft: RwSignal::new(String::new()),
            kind: RwSignal::new(QuestionKind::Free),
            focus_draft: RwSignal::new(0),
            notice: RwSignal::new(None),
            offline: RwSignal::new(false),
            exact: RwSignal::new(None),
            editing: RwSignal::new(None),
            stopping: RwSignal::new(false),
            last_edit: RwSignal::new(None),
            naming: RwSignal::new(None),
            max_tokens: RwSignal::new(0),
            relinking: RwSignal::new(None),
            note_read: RwSignal::new(memory::is_seen(memory::Seen::SlowNote)),
            is_far: RwSignal::new(false),
            go_to_latest: RwSignal::new(0),
            keep,
            batching: Batching::new(),
        }
    }

    /// Loads the model and shows what the page showed last, at the first visit a sample.
    pub fn begin(self) {
        self.start_worker();
        self.know_adapter();
        self.begin_keeping();
        self.begin_batching();
        let received = Rc::new(move |message| {
            self.manage(match message {
                Message::Claim(model) => model_manager::Input::GiveUp(model),
                Message::Loaded => model_manager::Input::Started,
            });
        });
        self.tabs.set_value(Tabs::open(received));
        let is_loaded = Memo::new(move |_| self.model.with(|m| matches!(m, Model::Ready(_))));
        leptos::prelude::Effect::new(move |_| {
            if is_loaded.get() {
                self.tabs.with_value(|tabs| tabs.as_ref().map(Tabs::loaded));
            }
        });
        spawn_local(async move { self.offline.set(offline::stored().await) });
        spawn_local(self.list_folders());
        spawn_local(async move {
            self.manage(model_manager::Input::Offered(offers::fetch().await));
        });
    }

    /// Starts a worker in place of any other, and loads the chosen model into it.
    pub(super) fn start_worker(self) {
        if self.supervise(Supervisor::terminate) {
            self.manage(model_manager::Input::Lost);
        }
        self.link.set_value(None);
        let on_report: Rc<dyn Fn(Report)> = Rc::new(move |report| match report {
            Report::Event(event) => self.on_event(event),
            Report::Store(event) => self.manage(model_manager::Input::Event(Box::new(event))),
            Report::Lost(fault) => self.on_loss(Loss::Worker, fault),
        });
        match Link::start(on_report) {
            Ok(link) => {
                self.link.set_value(Some(link));
                self.supervise(Supervisor::start);
                self.manage(model_manager::Input::Started);
                // Else it is loaded as soon as the adapter is known.
                if self.adapter_known.get_value() {
                    self.load_chosen();
                }
            }
            Err(fault) => self.act(Input::Lost(fault)),
        }
    }

    /// Loads the chosen model into the running worker.
    pub(super) fn load_chosen(self) {
        let model = self.chosen_address();
        let device = self.choose_engine();
        self.act(Input::Load { model, device });
        // Not with the next frame: until then the previous model would pass for this one.
        self.flush();
    }

    /// Address of the chosen model.
    pub(super) fn chosen_address(self) -> String {
        self.models.with_untracked(|models| match models.choice() {
            Choice::BuiltIn(model) => {
                let folder = format!("{MODELS}{}/", model.name());
                let base = document().base_uri().ok().flatten().unwrap_or_default();
                let address = Url::new_with_base(&folder, &base).map(|url| url.href());
                address.unwrap_or(folder)
            }
            Choice::Stored(model) => model.to_address(),
            Choice::Unsaved { address, .. } => address.clone(),
        })
    }

    fn load_in(self, place: LoadIn) {
        match place {
            LoadIn::RunningWorker => self.load_chosen(),
            LoadIn::NewWorker => self.start_worker(),
        }
    }

    /// Applies a step of the supervisor and shows its outcome.
    fn supervise<T>(self, step: impl FnOnce(&mut Supervisor) -> T) -> T {
        let (outcome, recovery) = self
            .supervisor
            .try_update_value(|supervisor| (step(supervisor), supervisor.recovery()))
            .expect("the state lives as long as the page");
        put(self.recovery, &recovery);
        outcome
    }

    fn on_event(self, event: Event) {
        let loss = self.supervise(|supervisor| supervisor.on_event(&event));
        match (loss, event) {
            (Some(loss), Event::Failed { fault, .. }) => self.on_loss(loss, fault),
            (_, event) if Bench::is_own(&event) => self.on_bench_event(&event),
            (_, event) if self.batch_event(&event) => {}
            (_, event) => {
                self.measure(&event);
                self.act(Input::Event(event));
            }
        }
    }

    fn on_loss(self, loss: Loss, fault: Fault) {
        let choice = self.models.with_untracked(|m| m.choice().clone());
        // Before the model manager and the conversation, whose requests may fail in the same way.
        let restarts = self.supervise(|supervisor| supervisor.lose(loss, &fault, &choice));
        self.manage(model_manager::Input::Lost);
        self.lose_batch(&fault);
        self.lose_bench(&fault);
        self.act(Input::Lost(fault));
        if restarts {
            self.start_worker();
        }
    }

    /// Takes files of the user that the next model is read from.
    pub(super) fn pick(self, files: &[File]) {
        self.picked.set_value(Some(files.iter().collect()));
    }

    /// Whether a worker runs.
    pub(super) fn has_worker(self) -> bool {
        self.link.with_value(Option::is_some)
    }

    /// Retries after a failure of the model.
    pub fn retry_model(self) {
        let place = self
            .model
            .with_untracked(|model| self.supervise(|supervisor| supervisor.retry(model)));
        self.load_in(place);
    }

    /// Hides the message about the recovery.
    pub fn dismiss_recovery(self) {
        self.supervise(Supervisor::dismiss);
    }

    /// Asks the question again that was lost with the worker.
    pub fn ask_again(self) {
        self.dismiss_recovery();
        if let Some(turn) = untrack(|| self.latest_turn()) {
            self.act(Input::Retry(turn.id));
        }
    }

    /// The turn that was asked last, or again last.
    pub fn latest_turn(self) -> Option<TurnSignal> {
        self.turns.with(|turns| {
            let latest = turns.iter().max_by_key(|t| t.turn.with(|t| t.request.0));
            latest.cloned()
        })
    }

    /// Gives the model manager an input and carries out its effects.
    pub fn manage(self, input: model_manager::Input) {
        self.manage_with(input, None);
    }

    /// The same with files of the user.
    pub fn manage_with(self, input: model_manager::Input, files: Option<&Array>) {
        let now = js_sys::Date::now();
        let mut effects = Vec::new();
        self.models
            .update(|models| effects = models.step(input, now));
        for effect in effects {
            match effect {
                Effect::Send(request) => {
                    let attachment = match request {
                        StoreRequest::PreviewFiles => {
                            self.picked.set_value(files.cloned());
                            self.folder.set_value(None);
                            files.cloned().map(JsValue::from)
                        }
                        _ => None,
                    };
                    self.send(Envelope {
                        body: ToWorker::Store(request),
                        attachment,
                    });
                }
                Effect::Persist => spawn_local(async move {
                    self.is_volatile.set(!persist::is_granted().await);
                }),
                Effect::Load(choice) => {
                    self.end_bench();
                    if !matches!(choice, Choice::Unsaved { .. }) {
                        self.keep.set(|s| s.model = Some(Settings::name(&choice)));
                    }
                    let place = self.supervise(Supervisor::choose);
                    self.load_in(place);
                }
                Effect::Claim(model) => self.tabs.with_value(|tabs| {
                    if let Some(tabs) = tabs {
                        tabs.claim(&model);
                    }
                }),
                Effect::TakenOver(name) => self.keep.tell(model_strings::taken_over(&name)),
            }
        }
    }

    /// The samples for the chosen model.
    pub fn samples(self) -> Vec<&'static Sample> {
        self.models.with(|models| samples::of(models.choice()))
    }

    /// Opens a sample and asks its question.
    pub fn open_sample(self, sample: &'static Sample) {
        self.open_sample_as(sample, false);
    }

    /// The same; `is_first` if the page does it without being asked.
    pub(super) fn open_sample_as(self, sample: &'static Sample, is_first: bool) {
        let request = self.next_open_request();
        let source = Source {
            name: sample.file.clone(),
            is_first,
            ..Source::default()
        };
        self.opening.set(true);
        spawn_local(async move {
            match decode::fetch(&sample.address()).await {
                Ok(blob) => {
                    if self.open(blob, source, request).await {
                        self.act(Input::AskDraft(sample.draft()));
                    }
                }
                Err(fault) if self.is_last_request(request) => {
                    self.opening.set(false);
                    self.notice.set(Some(fault));
                }
                Err(_) => {}
            }
        });
    }

    /// Opens a picture of the user; `name` is that of its file.
    pub fn open_file(self, blob: Blob, name: String) {
        let request = self.next_open_request();
        let source = Source {
            name,
            ..Source::default()
        };
        spawn_local(async move {
            self.open(blob, source, request).await;
        });
    }

    /// The number of a new request. What is being opened is not shown any more.
    pub(super) fn next_open_request(self) -> u32 {
        self.opening.set(false);
        self.open_request.update_value(|request| *request += 1);
        self.open_request.get_value()
    }

    pub(super) fn is_last_request(self, request: u32) -> bool {
        request == self.open_request.get_value()
    }

    /// Decodes a picture and makes it the current one, unless `request` is outdated; after a failure
    /// the previous one stays. True if it was opened.
    pub(super) async fn open(self, blob: Blob, source: Source, request: u32) -> bool {
        if !self.is_last_request(request) {
            return false;
        }
        self.opening.set(true);
        let opened = decode::open(&blob).await;
        if !self.is_last_request(request) {
            return false;
        }
        self.opening.set(false);
        match opened {
            Ok(opened) => {
                self.notice.set(None);
                self.begin_conversation(opened, source);
                true
            }
            Err(fault) => {
                self.notice.set(Some(fault));
                false
            }
        }
    }

    /// Makes a decoded picture the current one. The draft stays.
    pub(super) fn show_opened(self, opened: Opened) {
        let size = ImageSize {
            width: opened.width,
            height: opened.height,
        };
        let picture = self.keep_pixels(opened);
        self.reset_input();
        self.act(Input::Open { picture, size });
        self.flush();
    }

    /// Keeps a decoded picture, and of the others only the one before. Returns its number.
    pub(super) fn keep_pixels(self, opened: Opened) -> PictureId {
        let id = PictureId(self.next_picture.get_value());
        self.next_picture.update_value(|next| *next += 1);
        let current = self.picture.with_untracked(|p| p.as_ref().map(|p| p.id));
        self.kept.update_value(|kept| {
            kept.retain(|k| Some(k.id) == current);
            kept.push(KeptPicture { id, opened });
        });
        id
    }

    /// Another picture is shown: highlights and drawing are reset.
    pub(super) fn reset_input(self) {
        self.overlay.update(Overlay::reset);
        self.pointing.set(Pointing::default());
        self.tool.set(Tool::default());
        self.viewport.set(Viewport::default());
        self.relinking.set(None);
        self.editing.set(None);
        self.exact.set(None);
    }

    /// Empties the text box.
    pub fn clear_draft(self) {
        self.kind.set(QuestionKind::Free);
        self.draft.set(String::new());
        self.exact.set(None);
        self.editing.set(None);
    }

    /// Asks a question of a kind.
    pub fn ask(self, kind: QuestionKind, words: &str) {
        self.act(Input::AskDraft(Draft::new(kind, words)));
    }

    /// The draft as it would be sent.
    pub fn written(self) -> Draft {
        Draft {
            kind: self.kind.get(),
            words: self.draft.get(),
            exact: self.exact.get(),
        }
    }

    /// Sends the draft.
    pub fn send_draft(self) {
        let draft = untrack(|| self.written());
        self.act(match self.editing.get_untracked() {
            Some(turn) => Input::Edit(turn, draft),
            None => Input::AskDraft(draft),
        });
        self.clear_draft();
    }

    /// Puts the question of a turn into the text box, its boxes with the numbers that they have now.
    pub fn take_up(self, turn: &Turn) {
        let now = self.candidates.get_untracked();
        let then = turn.boxes.clone().unwrap_or_else(|| Arc::clone(&now));
        self.kind.set(turn.draft.kind);
        self.draft.set(renumber(&turn.draft.words, &then, &now));
        let exact = turn.draft.exact.as_ref();
        self.exact
            .set(exact.map(|exact| renumber_tags(exact, &then, &now)));
        self.focus_draft.update(|count| *count += 1);
    }

    /// Gives the conversation an input, sends its requests and shows the outcome with the next frame.
    pub fn act(self, input: Input) {
        self.keep_setting(&input);
        let answered = match &input {
            Input::Event(Event::Done { turn, .. }) => Some(*turn),
            _ => None,
        };
        let requests = self
            .conversation
            .try_update_value(|c| c.step(input))
            .unwrap_or_default();
        self.interrupt_batch(&requests);
        for request in requests {
            let attachment = self.attachment(&request);
            if matches!(request, Request::Ask { .. }) {
                self.last_ask.set_value(Some(request.clone()));
            }
            self.send(Envelope {
                body: ToWorker::Engine(request),
                attachment,
            });
        }
        if let Some(request) = answered {
            let names_boxes = self.conversation.with_value(|c| {
                let answer = c.latest().filter(|turn| turn.request == request);
                answer.and_then(Mentions::of).is_some()
            });
            self.overlay.update(|o| o.on_answer(names_boxes));
        }
        self.request_frame();
    }

    pub(super) fn send(self, message: Envelope<ToWorker, JsValue>) {
        let sent = (self.link).with_value(|link| link.as_ref().map(|link| link.send(&message)));
        if let Some(Err(fault)) = sent {
            self.on_loss(Loss::Worker, fault);
        }
    }

    /// What travels beside a request: a copy of the pixels for the worker to keep, or files of the user.
    fn attachment(self, request: &Request) -> Option<JsValue> {
        match request {
            Request::Look {
                picture,
                size: Some(_),
                ..
            } => Some(self.pixels(*picture)?.buffer().into()),
            Request::Load { model, .. } if model.starts_with(PICKED) => self
                .picked
                .with_value(|files| files.clone().map(JsValue::from)),
            _ => None,
        }
    }

    /// A copy of the pixels of a picture.
    pub(super) fn pixels(self, picture: PictureId) -> Option<Uint8Array> {
        self.kept.with_value(|kept| {
            let kept = kept.iter().find(|k| k.id == picture)?;
            Some(decode::copied(&kept.opened.rgb))
        })
    }

    fn request_frame(self) {
        if !self.frame_requested.get_value() {
            self.frame_requested.set_value(true);
            request_animation_frame(move || {
                self.frame_requested.set_value(false);
                self.flush();
            });
        }
    }

    /// Updates the signals that differ from the conversation.
    pub(super) fn flush(self) {
        self.conversation.with_value(|c| {
            put(self.model, c.model());
            if self.picture.with_untracked(|p| p.as_ref() != c.picture()) {
                let id = c.picture().map(|p| p.id);
                self.picture.set(c.picture().cloned());
                let address = self.kept.with_value(|kept| {
                    let kept = kept.iter().find(|k| Some(k.id) == id)?;
                    Some(kept.opened.url.as_str().to_owned())
                });
                put(self.address, &address);
            }
            self.show_candidates(c.candidates());
            put(self.filter, &c.filter());
            put(self.granularity, &c.granularity());
            put(self.sampling, &c.sampling());
            put(self.likeness, &c.likeness().cloned());
            put(self.can_ask, &c.can_ask());
            put(self.busy, &(c.active().is_some() || c.naming().is_some()));
            put(self.stopping, &c.active().is_some_and(|t| t.stopping));
            put(self.last_edit, &c.last_edit());
            put(self.naming, &c.naming());
            put(self.max_tokens, &c.max_tokens());
            put(self.choices, c.choices());
            put(self.usual, c.usual());
            put(self.earlier, &c.earlier());
            put(self.can_lend, &c.can_lend());
            self.show_turns(c.turns());
        });
    }

    fn show_candidates(self, now: &Arc<Candidates>) {
        let before = self.candidates.get_untracked();
        if !Arc::ptr_eq(&before, now) {
            let draft = self.draft.with_untracked(|d| renumber(d, &before, now));
            put(self.draft, &draft);
            let exact = self.exact.get_untracked();
            put(self.exact, &exact.map(|e| renumber_tags(&e, &before, now)));
            self.candidates.set(Arc::clone(now));
            let is_there = |id| now.number(id).is_some() || before.number(id).is_none();
            if self
                .overlay
                .with_untracked(|o| !o.selection().iter().all(|&id| is_there(id)))
            {
                self.overlay.update(|o| o.keep_selected(is_there));
            }
        }
    }

    fn show_turns(self, turns: &[Turn]) {
        let is_same = self.turns.with_untracked(|shown| {
            shown.len() == turns.len() && shown.iter().zip(turns).all(|(s, t)| s.id == t.id)
        });
        if is_same {
            self.turns.with_untracked(|shown| {
                for (shown, turn) in shown.iter().zip(turns) {
                    shown.show(turn);
                }
            });
        } else {
            let before = self.turns.get_untracked();
            let signal = |turn: &Turn| {
                let known = before.iter().find(|s| s.id == turn.id).cloned();
                let shown = known.unwrap_or_else(|| TurnSignal {
                    id: turn.id,
                    turn: ArcRwSignal::new(turn.clone()),
                });
                shown.show(turn);
                shown
            };
            self.turns.set(turns.iter().map(signal).collect());
        }
    }

    /// Adds a box that the user drew, and selects it.
    pub fn add_box(self, bbox: BoxXyxy) {
        if embed::options().readonly {
            return;
        }
        let number = self.next_own();
        self.act(Input::Draw(bbox));
        if let Some(number) = number {
            self.overlay.update(|o| o.on_drawn(BoxId::Own(number)));
        }
        self.flush();
    }

    /// A click of the tool for points, in picture pixels as `slack`: it picks a proposal.
    pub fn pick_at(self, at: (f32, f32), slack: f32) {
        let selected = self.overlay.with_untracked(|o| o.selected());
        let mut pick = self.point_pick.get_value();
        let picked = self.conversation.with_value(|c| {
            let proposals = c.picture()?.all_proposals(c.granularity());
            pick.click(at, slack, &proposals, c.candidates(), selected)
        });
        self.point_pick.set_value(pick);
        match picked {
            None => {}
            Some(Pick::Select(id, added)) => {
                if let Some(added) = added {
                    self.remove(vec![added]);
                }
                self.overlay.update(|o| o.select_all([id]));
            }
            Some(Pick::Replace(id, bbox)) => self.reshape(id, bbox, true),
            Some(Pick::Add(bbox)) => {
                if let Some(number) = self.next_own() {
                    self.point_pick
                        .update_value(|pick| pick.on_added(BoxId::Own(number)));
                }
                self.add_box(bbox);
            }
        }
    }

    /// Gives a box another shape. A proposal becomes a box of the user, which is then the selected one.
    /// With `continues` one undo takes this and the change before back.
    pub fn reshape(self, id: BoxId, bbox: BoxXyxy, continues: bool) {
        if embed::options().readonly {
            return;
        }
        let number = self.next_own();
        let before = self.candidates.get_untracked();
        self.act(Input::Boxes(BoxChange::Reshape {
            id,
            bbox,
            continues,
        }));
        if let (BoxId::Found(..), Some(number)) = (id, number) {
            let own = BoxId::Own(number);
            let after = self.conversation.with_value(|c| Arc::clone(c.candidates()));
            // Marks in the draft mean the box that takes the place of the proposal.
            let draft = self.draft.with_untracked(|draft| {
                renumber_as(draft, &before, &after, |b| if b == id { own } else { b })
            });
            put(self.draft, &draft);
            self.candidates.set(after);
            self.overlay.update(|o| {
                o.hover(None);
                o.select_all([own]);
            });
        }
        self.flush();
    }

    /// Deletes boxes of the user and takes proposals out of use.
    pub fn remove(self, ids: Vec<BoxId>) {
        self.overlay
            .update(|o| ids.iter().for_each(|&id| o.remove(id)));
        self.change_boxes(BoxChange::Remove(ids));
    }

    /// Hides boxes; they are no longer selected.
    pub fn hide(self, ids: Vec<BoxId>) {
        self.overlay
            .update(|o| ids.iter().for_each(|&id| o.remove(id)));
        self.change_boxes(BoxChange::Hide(ids));
    }

    /// Hides all boxes, or shows all again where all are hidden.
    pub fn toggle_all(self) {
        let candidates = self.conversation.with_value(|c| Arc::clone(c.candidates()));
        let all: Vec<_> = candidates.boxes.iter().map(|b| b.id).collect();
        let hidden = |p: &Option<Picture>| {
            let edits = p.as_ref().map(|p| p.edits());
            edits.is_some_and(|e| all.iter().all(|id| e.hidden.contains(id)))
        };
        if self.picture.with_untracked(hidden) {
            self.change_boxes(BoxChange::Show(all));
        } else {
            self.hide(all);
        }
    }

    /// Changes the boxes and shows the outcome at once.
    pub fn change_boxes(self, change: BoxChange) {
        if embed::options().readonly {
            return;
        }
        self.act(Input::Boxes(change));
        self.flush();
    }

    /// The corners of a box for the next question, in picture pixels.
    pub fn corners(self, id: BoxId) -> Option<BoxXyxy> {
        self.conversation.with_value(|c| {
            let candidates = c.candidates();
            candidates.get(candidates.number(id)?).map(|b| b.bbox)
        })
    }

    /// Brings the boxes of a highlight into view where they are out of view or tiny.
    pub fn reveal(self, highlight: &Highlight) {
        let boxes: Vec<_> = self.drawn_boxes.with_untracked(|boxes| {
            let meant = boxes.iter().filter(|b| highlight.boxes.contains(&b.id));
            meant.map(|b| b.bbox).collect()
        });
        if let Some(frame) = self.frame.get_untracked() {
            let now = self.viewport.get_untracked();
            ease(self.viewport, now.revealing(&boxes, frame));
        }
    }

    /// Changes the view of the picture.
    pub fn view(self, change: impl FnOnce(Viewport) -> Viewport) {
        put(self.viewport, &change(self.viewport.get_untracked()));
    }

    fn next_own(self) -> Option<u32> {
        (self.conversation).with_value(|c| c.picture().map(Picture::next_own))
    }

    /// Selects the boxes that are like `id`, once the engine has compared them.
    pub fn select_alike(self, id: BoxId) {
        self.alike.set(Some(Alike { id, least: 0.9 }));
        self.act(Input::Compare);
    }

    /// Reads the conversation.
    pub fn with_conversation<T>(self, read: impl FnOnce(&Conversation) -> T) -> T {
        self.conversation.with_value(read)
    }

    /// The file of the current picture.
    pub fn picture_file(self) -> Option<Blob> {
        let id = self.conversation.with_value(|c| c.picture().map(|p| p.id));
        self.kept.with_value(|kept| {
            let kept = kept.iter().find(|k| Some(k.id) == id)?;
            Some(kept.opened.file.clone())
        })
    }

    /// Opens a picture of the user and waits until it is the current one; false if it is not.
    pub async fn open_and_wait(self, file: File) -> bool {
        let request = self.next_open_request();
        let source = Source {
            name: file.name(),
            ..Source::default()
        };
        self.open(file.into(), source, request).await
    }

    /// Appends the marks of the selected boxes to the draft and moves the focus there.
    pub fn cite_selection(self) {
        let marks = self.selection_marks();
        if !marks.is_empty() {
            self.draft.update(|draft| append_marks(draft, &marks));
            self.focus_draft.update(|count| *count += 1);
        }
    }

    /// The marks of the selected boxes.
    pub fn selection_marks(self) -> Vec<String> {
        let candidates = self.candidates.get_untracked();
        self.overlay
            .with_untracked(|o| candidates.marks(o.selection()))
    }
}

impl TurnSignal {
    fn show(&self, turn: &Turn) {
        if self.turn.with_untracked(|t| t != turn) {
            self.turn.set(turn.clone());
        }
    }
}

/// The page's state, from any view.
pub fn app_state() -> AppState {
    expect_context::<AppState>()
}

fn put<T: PartialEq + Clone + Send + Sync + 'static>(signal: RwSignal<T>, value: &T) {
    if signal.with_untracked(|now| now != value) {
        signal.set(value.clone());
    }
}
