//! The page's state: the state machines of `chatrex::chat` and the signals that the views read.

use std::rc::Rc;
use std::sync::Arc;

use chatrex::chat::box_drawing::Drawing;
use chatrex::chat::candidates::{BoxId, Candidates, Filter, renumber};
use chatrex::chat::conversation::{Conversation, Input, Model, Picture, Turn};
use chatrex::chat::model_manager::{self, Choice, Effect, ModelManager};
use chatrex::chat::overlay::{DrawnBox, Mentions, Overlay};
use chatrex::chat::question::{QuestionKind, append_marks};
use chatrex::chat::recovery::{LoadIn, Loss, Recovery, Supervisor};
use chatrex::chat::samples::{self, Sample};
use chatrex::chat::settings::Settings;
use chatrex::error::Fault;
use chatrex::generate::sampling::Sampling;
use chatrex::geometry::BoxXyxy;
use chatrex::protocol::store::StoreRequest;
use chatrex::protocol::{
    DevicePreference, Envelope, Event, Granularity, ImageSize, PictureId, Request, ToWorker, TurnId,
};
use js_sys::Array;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use web_sys::{Blob, Url};

use super::kept::{Keeping, Source};
use crate::decode::{self, Opened};
use crate::link::{Link, Report};
use crate::{offers, offline, persist};

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
    /// The box being drawn.
    pub drawing: RwSignal<Drawing>,
    /// True while the pointer draws instead of selecting.
    pub is_drawing: RwSignal<bool>,
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
    /// What stays between visits.
    pub keep: Keeping,
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
        let drawn_boxes = Memo::new(move |_| {
            let candidates = candidates.get();
            mentions.with(|m| overlay.with(|o| o.drawn_boxes(&candidates, m.as_ref())))
        });
        Self {
            conversation: StoredValue::new_local(Conversation::default()),
            supervisor: StoredValue::new(Supervisor::default()),
            link: StoredValue::new_local(None),
            kept: StoredValue::new_local(Vec::new()),
            next_picture: StoredValue::new(0),
            open_request: StoredValue::new(0),
            frame_requested: StoredValue::new(false),
            model: RwSignal::new(Model::Absent),
            models: RwSignal::new(ModelManager::with_choice(
                keep.choice(&document().url().unwrap_or_default()),
            )),
            manager_dialog: NodeRef::new(),
            is_volatile: RwSignal::new(false),
            recovery: RwSignal::new(Recovery::None),
            picture: RwSignal::new(None),
            address: RwSignal::new(None),
            opening: RwSignal::new(false),
            turns,
            candidates,
            filter: RwSignal::new(Filter::default()),
            granularity: RwSignal::new(Granularity::default()),
            sampling: RwSignal::new(Sampling::default()),
            can_ask: RwSignal::new(false),
            busy: RwSignal::new(false),
            overlay,
            mentions,
            drawn_boxes,
            drawing: RwSignal::new(Drawing::default()),
            is_drawing: RwSignal::new(false),
            draft: RwSignal::new(String::new()),
            kind: RwSignal::new(QuestionKind::Free),
            focus_draft: RwSignal::new(0),
            notice: RwSignal::new(None),
            offline: RwSignal::new(false),
            keep,
        }
    }

    /// Loads the model and shows what the page showed last, at the first visit a sample.
    pub fn begin(self) {
        self.start_worker();
        self.begin_keeping();
        spawn_local(async move { self.offline.set(offline::stored().await) });
        spawn_local(async move {
            self.manage(model_manager::Input::Offered(offers::fetch().await));
        });
    }

    /// Starts a worker in place of any other, and loads the chosen model into it.
    fn start_worker(self) {
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
                self.load_chosen();
            }
            Err(fault) => self.act(Input::Lost(fault)),
        }
    }

    /// Loads the chosen model into the running worker.
    fn load_chosen(self) {
        let model = self.models.with_untracked(|models| match models.choice() {
            Choice::BuiltIn(model) => {
                let folder = format!("{MODELS}{}/", model.name());
                let base = document().base_uri().ok().flatten().unwrap_or_default();
                let address = Url::new_with_base(&folder, &base).map(|url| url.href());
                address.unwrap_or(folder)
            }
            Choice::Stored(model) => model.to_address(),
        });
        self.act(Input::Load {
            model,
            device: DevicePreference::Auto,
        });
        // Not with the next frame: until then the previous model would pass for this one.
        self.flush();
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
            (_, event) => self.act(Input::Event(event)),
        }
    }

    fn on_loss(self, loss: Loss, fault: Fault) {
        let choice = self.models.with_untracked(|m| m.choice().clone());
        // Before the model manager and the conversation, whose requests may fail in the same way.
        let restarts = self.supervise(|supervisor| supervisor.lose(loss, &fault, &choice));
        self.manage(model_manager::Input::Lost);
        self.act(Input::Lost(fault));
        if restarts {
            self.start_worker();
        }
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
        let last = (self.turns).with_untracked(|turns| turns.last().map(|t| t.id));
        if let Some(turn) = last {
            self.act(Input::Retry(turn));
        }
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
                        StoreRequest::PreviewFiles => files.cloned().map(JsValue::from),
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
                    self.keep.set(|s| s.model = Some(Settings::name(&choice)));
                    let place = self.supervise(Supervisor::choose);
                    self.load_in(place);
                }
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
        spawn_local(async move {
            match decode::fetch(&sample.address()).await {
                Ok(blob) => {
                    if self.open(blob, source, request).await {
                        self.ask(QuestionKind::Free, &sample.question);
                    }
                }
                Err(fault) => self.notice.set(Some(fault)),
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

    pub(super) fn next_open_request(self) -> u32 {
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
        self.drawing.set(Drawing::Idle);
        self.is_drawing.set(false);
    }

    /// Asks a question of a kind.
    pub fn ask(self, kind: QuestionKind, words: &str) {
        let candidates = (self.conversation).with_value(|c| Arc::clone(c.candidates()));
        let (shown, question) = kind.phrase(words, &candidates);
        self.act(Input::Ask { shown, question });
    }

    /// Sends the draft.
    pub fn send_draft(self) {
        let (kind, words) = (self.kind.get_untracked(), self.draft.get_untracked());
        self.ask(kind, &words);
        self.draft.set(String::new());
        self.kind.set(QuestionKind::Free);
    }

    /// Gives the conversation an input, sends its requests and shows the outcome with the next frame.
    pub fn act(self, input: Input) {
        self.keep_setting(&input);
        let is_answer = matches!(&input, Input::Event(Event::Done { .. }));
        let requests = self
            .conversation
            .try_update_value(|c| c.step(input))
            .unwrap_or_default();
        for request in requests {
            let attachment = self.pixels(&request);
            self.send(Envelope {
                body: ToWorker::Engine(request),
                attachment,
            });
        }
        if is_answer {
            let last = |c: &Conversation| c.turns().last().and_then(Mentions::of).is_some();
            let names_boxes = self.conversation.with_value(last);
            self.overlay.update(|o| o.on_answer(names_boxes));
        }
        self.request_frame();
    }

    fn send(self, message: Envelope<ToWorker, JsValue>) {
        let sent = (self.link).with_value(|link| link.as_ref().map(|link| link.send(&message)));
        if let Some(Err(fault)) = sent {
            self.on_loss(Loss::Worker, fault);
        }
    }

    /// A copy of the pixels that a request needs, for the worker to keep.
    fn pixels(self, request: &Request) -> Option<JsValue> {
        let Request::Look {
            picture,
            size: Some(_),
            ..
        } = request
        else {
            return None;
        };
        self.kept.with_value(|kept| {
            let kept = kept.iter().find(|k| k.id == *picture)?;
            let rgb = &kept.opened.rgb;
            Some(rgb.slice(0, rgb.length()).buffer().into())
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
            put(self.can_ask, &c.can_ask());
            put(self.busy, &c.active().is_some());
            self.show_turns(c.turns());
        });
    }

    fn show_candidates(self, now: &Arc<Candidates>) {
        let before = self.candidates.get_untracked();
        if !Arc::ptr_eq(&before, now) {
            let draft = self.draft.with_untracked(|d| renumber(d, &before, now));
            put(self.draft, &draft);
            self.candidates.set(Arc::clone(now));
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
        self.is_drawing.set(false);
        let number = self
            .picture
            .with_untracked(|p| p.as_ref().map(Picture::next_own));
        self.act(Input::Draw(bbox));
        if let Some(number) = number {
            self.overlay.update(|o| o.on_drawn(BoxId::Own(number)));
        }
    }

    /// Deletes a box of the user.
    pub fn erase(self, id: BoxId) {
        if let BoxId::Own(number) = id {
            self.overlay.update(|o| o.remove(id));
            self.act(Input::Erase(number));
        }
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
