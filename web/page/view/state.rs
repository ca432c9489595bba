//! The page's one handle: the state machine behind it and the signals the views read.

use std::rc::Rc;
use std::sync::Arc;

use chatrex::chat::answer::{Piece, pieces};
use chatrex::chat::box_drawing::Drawing;
use chatrex::chat::candidates::{BoxId, Candidates, Filter, renumber};
use chatrex::chat::conversation::{Conversation, Input, Model, Picture, Turn};
use chatrex::chat::model_manager::{self, Choice, Effect, ModelManager};
use chatrex::chat::overlay::{DrawnBox, Mentions, Overlay, Visibility};
use chatrex::error::{Fault, FaultKind};
use chatrex::generate::sampling::Sampling;
use chatrex::protocol::{DevicePreference, Event, Granularity, PictureId, Request, TurnId};
use js_sys::ArrayBuffer;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use web_sys::{Blob, Url};

use crate::decode::{self, Opened};
use crate::link::{Link, Report};
use crate::{offline, persist};
use chatrex::chat::question::Task;

/// The model the page loads by itself, beside it.
const MODEL: &str = "models/nano/";

/// The sample picture, beside the page.
const SAMPLE: &str = "samples/scene.png";

/// A turn and the signal its view reads.
#[derive(Clone)]
pub struct TurnSignal {
    /// The turn's number.
    pub id: TurnId,
    /// The turn.
    pub turn: ArcRwSignal<Turn>,
}

/// The pixels and the address of a picture, kept while it can be looked at again.
struct Kept {
    id: PictureId,
    opened: Opened,
}

/// After the worker was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// It was not, or that is over.
    #[default]
    None,
    /// The next one loads the model again, after the graphics device was lost.
    Restoring,
    /// The same after the worker itself stopped.
    Restarting,
    /// It has.
    Restored,
}

/// Everything the views read and do. Copied freely.
#[derive(Clone, Copy)]
pub struct AppState {
    machine: StoredValue<Conversation, LocalStorage>,
    link: StoredValue<Option<Link>, LocalStorage>,
    kept: StoredValue<Vec<Kept>, LocalStorage>,
    next_picture: StoredValue<u32>,
    /// Counts wishes to open something; the latest wins.
    wishes: StoredValue<u32>,
    frame_asked: StoredValue<bool>,
    /// True until this worker is lost.
    alive: StoredValue<bool>,
    /// True once this worker's engine has loaded a model.
    proved: StoredValue<bool>,
    /// Where the model stands.
    pub model: RwSignal<Model>,
    /// The models there are.
    pub library: RwSignal<ModelManager>,
    /// The model manager's dialog.
    pub manager: NodeRef<html::Dialog>,
    /// True once the browser refused to promise to keep what is stored.
    pub volatile: RwSignal<bool>,
    /// Whether a lost worker is being replaced.
    pub recovery: RwSignal<Recovery>,
    /// The picture talked about.
    pub picture: RwSignal<Option<Picture>>,
    /// Address of the picture for showing.
    pub address: RwSignal<Option<String>>,
    /// True while a file is being decoded.
    pub opening: RwSignal<bool>,
    /// The turns, oldest first.
    pub turns: RwSignal<Vec<TurnSignal>>,
    /// The boxes a question asked now would carry.
    pub candidates: RwSignal<Arc<Candidates>>,
    /// The filters in force.
    pub filter: RwSignal<Filter>,
    /// Whole objects or parts too.
    pub granularity: RwSignal<Granularity>,
    /// How the words of an answer are chosen.
    pub sampling: RwSignal<Sampling>,
    /// True when a question would be taken.
    pub can_ask: RwSignal<bool>,
    /// True while a turn waits or runs.
    pub busy: RwSignal<bool>,
    /// True when the picture before can be brought back.
    pub can_reopen: RwSignal<bool>,
    /// What is shown and pointed at.
    pub overlay: RwSignal<Overlay>,
    /// The phrases the overlay colours.
    pub mentions: Memo<Option<Mentions>>,
    /// The boxes as drawn.
    pub marks: Memo<Vec<DrawnBox>>,
    /// The box being drawn.
    pub drawing: RwSignal<Drawing>,
    /// True while the pointer draws instead of selecting.
    pub draws: RwSignal<bool>,
    /// The question being written.
    pub draft: RwSignal<String>,
    /// What kind of question it is.
    pub task: RwSignal<Task>,
    /// Counts wishes to move the focus into the text box.
    pub focus_draft: RwSignal<u32>,
    /// Something went wrong outside a turn.
    pub notice: RwSignal<Option<Fault>>,
    /// True once everything is stored for use without a network.
    pub offline: RwSignal<bool>,
}

impl AppState {
    /// Everything empty; nothing is loaded before [`AppState::begin`].
    pub fn new() -> Self {
        let overlay = RwSignal::new(Overlay::default());
        let turns = RwSignal::new(Vec::<TurnSignal>::new());
        let candidates = RwSignal::new(Arc::new(Candidates::default()));
        let picture = RwSignal::new(None::<Picture>);
        let pointed_turn = Memo::new(move |_| overlay.with(Overlay::turn));
        let mentions = Memo::new(move |_| {
            let pointed = pointed_turn.get();
            turns.with(|turns| {
                let all = turns.iter().filter_map(|t| t.turn.with(mentions));
                let all: Vec<_> = all.collect();
                let of_pointed = all.iter().position(|m| Some(m.turn) == pointed);
                of_pointed
                    .or(all.len().checked_sub(1))
                    .map(|place| all[place].clone())
            })
        });
        let marks = Memo::new(move |_| {
            let candidates = candidates.get();
            mentions.with(|m| overlay.with(|o| o.marks(&candidates, m.as_ref())))
        });
        Self {
            machine: StoredValue::new_local(Conversation::default()),
            link: StoredValue::new_local(None),
            kept: StoredValue::new_local(Vec::new()),
            next_picture: StoredValue::new(0),
            wishes: StoredValue::new(0),
            frame_asked: StoredValue::new(false),
            alive: StoredValue::new(false),
            proved: StoredValue::new(false),
            model: RwSignal::new(Model::Absent),
            library: RwSignal::new(ModelManager::default()),
            manager: NodeRef::new(),
            volatile: RwSignal::new(false),
            recovery: RwSignal::new(Recovery::None),
            picture,
            address: RwSignal::new(None),
            opening: RwSignal::new(false),
            turns,
            candidates,
            filter: RwSignal::new(Filter::default()),
            granularity: RwSignal::new(Granularity::default()),
            sampling: RwSignal::new(Sampling::default()),
            can_ask: RwSignal::new(false),
            busy: RwSignal::new(false),
            can_reopen: RwSignal::new(false),
            overlay,
            mentions,
            marks,
            drawing: RwSignal::new(Drawing::default()),
            draws: RwSignal::new(false),
            draft: RwSignal::new(String::new()),
            task: RwSignal::new(Task::Free),
            focus_draft: RwSignal::new(0),
            notice: RwSignal::new(None),
            offline: RwSignal::new(false),
        }
    }

    /// Opens the sample, loads the model and asks the first question; all at once.
    pub fn begin(self) {
        self.load();
        self.open_sample();
        spawn_local(async move { self.offline.set(offline::stored().await) });
    }

    /// Starts a worker, in place of any other, and loads the chosen model into it.
    pub fn load(self) {
        if self.alive.get_value() {
            self.manage(model_manager::Input::Lost);
        }
        self.link.set_value(None);
        self.alive.set_value(false);
        self.proved.set_value(false);
        let hear: Rc<dyn Fn(Report)> = Rc::new(move |report| match report {
            Report::Event(event) => self.hear(event),
            Report::Shelf(event) => self.manage(model_manager::Input::Heard(Box::new(event))),
            Report::Lost(fault) => self.lose(fault, Recovery::Restarting),
        });
        match Link::start(hear) {
            Ok(link) => {
                self.link.set_value(Some(link));
                self.alive.set_value(true);
                self.manage(model_manager::Input::Started);
                self.give(&self.library.with_untracked(|l| l.choice().clone()));
            }
            Err(fault) => self.act(Input::Lost(fault)),
        }
    }

    /// Gives the engine a model.
    fn give(self, choice: &Choice) {
        let model = match choice {
            Choice::Demo => {
                let base = document().base_uri().ok().flatten().unwrap_or_default();
                let address = Url::new_with_base(MODEL, &base).map(|url| url.href());
                address.unwrap_or_else(|_| MODEL.to_owned())
            }
            Choice::Kept(model) => model.to_load(),
        };
        self.act(Input::Load {
            model,
            device: DevicePreference::Auto,
        });
        // Not with the next frame: until then the model before would pass for this one.
        self.flush();
    }

    fn hear(self, event: Event) {
        if matches!(event, Event::Ready(_)) {
            self.proved.set_value(true);
            if self.recovery.get_untracked() != Recovery::None {
                self.recovery.set(Recovery::Restored);
            }
        }
        let of_device = matches!(
            &event,
            Event::Failed { turn, picture, fault }
                if fault.kind == FaultKind::Device && (turn.is_some() || picture.is_some())
        );
        match event {
            Event::Failed { fault, .. } if of_device => self.lose(fault, Recovery::Restoring),
            event => self.act(Input::Event(event)),
        }
    }

    /// The worker or its device is gone: another one takes over, unless this one never worked or
    /// the model is too large.
    fn lose(self, fault: Fault, recovery: Recovery) {
        let restart = self.proved.get_value() && !self.is_too_large(&fault);
        self.alive.set_value(false);
        self.manage(model_manager::Input::Lost);
        self.act(Input::Lost(fault));
        if restart {
            self.recovery.set(recovery);
            self.load();
        } else {
            self.recovery.set(Recovery::None);
        }
    }

    /// Tries again after a failure: in a new worker, unless the old one is sound.
    pub fn restart(self) {
        let device = self.model.with_untracked(
            |m| matches!(m, Model::Failed(fault) if fault.kind == FaultKind::Device),
        );
        if self.alive.get_value() && !device {
            self.give(&self.library.with_untracked(|l| l.choice().clone()));
        } else {
            self.load();
        }
    }

    /// Puts the question again that was lost with the worker.
    pub fn ask_again(self) {
        self.recovery.set(Recovery::None);
        let last = (self.turns).with_untracked(|turns| turns.last().map(|t| t.id));
        if let Some(turn) = last {
            self.act(Input::Retry(turn));
        }
    }

    /// Whether a kept model failed for want of memory.
    pub fn is_too_large(self, fault: &Fault) -> bool {
        let kept = self.library.with_untracked(|l| *l.choice() != Choice::Demo);
        kept && fault.what.to_lowercase().contains("memory")
    }

    /// Gives the model manager an input and does what it asks for.
    pub fn manage(self, input: model_manager::Input) {
        self.manage_with(input, &JsValue::NULL);
    }

    /// The same with the person's files.
    pub fn manage_with(self, input: model_manager::Input, files: &JsValue) {
        let now = js_sys::Date::now();
        let mut orders = Vec::new();
        self.library.update(|l| orders = l.step(input, now));
        for order in orders {
            match order {
                Effect::Send(request) => {
                    let sent = self
                        .link
                        .with_value(|link| link.as_ref().map(|l| l.ask_library(request, files)));
                    if let Some(Err(fault)) = sent {
                        self.lose(fault, Recovery::Restarting);
                    }
                }
                Effect::Persist => spawn_local(async move {
                    self.volatile.set(!persist::promised().await);
                }),
                Effect::Load(choice) => {
                    self.recovery.set(Recovery::None);
                    if self.alive.get_value() {
                        self.give(&choice);
                    } else {
                        self.load();
                    }
                }
            }
        }
    }

    /// Opens the sample and asks it to be described.
    pub fn open_sample(self) {
        let wish = self.wish();
        spawn_local(async move {
            match decode::fetch(SAMPLE).await {
                Ok(blob) => {
                    if self.open(blob, wish).await {
                        self.ask(Task::Describe, "");
                    }
                }
                Err(fault) => self.notice.set(Some(fault)),
            }
        });
    }

    /// Opens the person's picture.
    pub fn open_file(self, blob: Blob) {
        let wish = self.wish();
        spawn_local(async move {
            self.open(blob, wish).await;
        });
    }

    fn wish(self) -> u32 {
        self.wishes.update_value(|wishes| *wishes += 1);
        self.wishes.get_value()
    }

    /// Decodes a picture and makes it the one talked about, unless something else was wished for
    /// meanwhile; on failure the old one stays.
    async fn open(self, blob: Blob, wish: u32) -> bool {
        if wish != self.wishes.get_value() {
            return false;
        }
        self.opening.set(true);
        let opened = decode::open(&blob).await;
        if wish != self.wishes.get_value() {
            return false;
        }
        self.opening.set(false);
        match opened {
            Ok(opened) => {
                self.notice.set(None);
                let id = PictureId(self.next_picture.get_value());
                self.next_picture.update_value(|next| *next += 1);
                let (width, height) = (opened.width, opened.height);
                let current = self.picture.with_untracked(|p| p.as_ref().map(|p| p.id));
                self.kept.update_value(|kept| {
                    kept.retain(|k| Some(k.id) == current);
                    kept.push(Kept { id, opened });
                });
                self.look_up();
                self.act(Input::Open {
                    picture: id,
                    width,
                    height,
                });
                self.flush();
                true
            }
            Err(fault) => {
                self.notice.set(Some(fault));
                false
            }
        }
    }

    /// Back to the picture before.
    pub fn reopen(self) {
        self.look_up();
        self.act(Input::Reopen);
    }

    /// Another picture comes into view: nothing is pointed at any more.
    fn look_up(self) {
        self.overlay.update(Overlay::reset);
        self.drawing.set(Drawing::Idle);
        self.draws.set(false);
        self.task.set(Task::Free);
        self.draft.set(String::new());
    }

    /// Asks a question of a kind.
    pub fn ask(self, task: Task, words: &str) {
        let candidates = self.machine.with_value(|m| Arc::clone(m.candidates()));
        let (shown, question) = task.phrase(words, &candidates);
        self.act(Input::Ask { shown, question });
    }

    /// Gives the state machine an input, sends what it asks for and shows the outcome with the
    /// next frame.
    pub fn act(self, input: Input) {
        let answered = matches!(&input, Input::Event(Event::Done { .. }));
        let requests = self
            .machine
            .try_update_value(|m| m.step(input))
            .unwrap_or_default();
        for request in requests {
            self.send(&request);
        }
        if answered {
            self.show_mentioned();
        }
        self.ask_frame();
    }

    fn send(self, request: &Request) {
        let pixels = match request {
            Request::Look {
                picture,
                pixels: Some(_),
                ..
            } => self.pixels(*picture),
            _ => None,
        };
        let sent = self
            .link
            .with_value(|link| link.as_ref().map(|l| l.send(request, pixels)));
        if let Some(Err(fault)) = sent {
            self.lose(fault, Recovery::Restarting);
        }
    }

    /// A copy of a picture's bytes, for the worker to keep.
    fn pixels(self, picture: PictureId) -> Option<ArrayBuffer> {
        self.kept.with_value(|kept| {
            let kept = kept.iter().find(|k| k.id == picture)?;
            let rgb = &kept.opened.rgb;
            Some(rgb.slice(0, rgb.length()).buffer())
        })
    }

    /// After an answer that points at boxes only those are shown.
    fn show_mentioned(self) {
        let points = self
            .machine
            .with_value(|m| m.turns().last().is_some_and(|t| mentions(t).is_some()));
        if points {
            self.overlay.update(|o| {
                if o.show == Show::All {
                    o.show = Show::Mentioned;
                }
            });
        }
    }

    fn ask_frame(self) {
        if !self.frame_asked.get_value() {
            self.frame_asked.set_value(true);
            request_animation_frame(move || {
                self.frame_asked.set_value(false);
                self.flush();
            });
        }
    }

    /// Brings the signals up to the state machine, touching only what changed.
    fn flush(self) {
        self.machine.with_value(|m| {
            put(self.model, m.model());
            if self.picture.with_untracked(|p| p.as_ref() != m.picture()) {
                let id = m.picture().map(|p| p.id);
                self.picture.set(m.picture().cloned());
                let address = self.kept.with_value(|kept| {
                    let kept = kept.iter().find(|k| Some(k.id) == id)?;
                    Some(kept.opened.url.as_str().to_owned())
                });
                put(self.address, &address);
            }
            self.show_candidates(m.candidates());
            put(self.filter, &m.filter());
            put(self.granularity, &m.granularity());
            put(self.sampling, &m.sampling());
            put(self.can_ask, &m.can_ask());
            put(self.busy, &m.active().is_some());
            put(self.can_reopen, &m.can_reopen());
            self.show_turns(m.turns());
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
        let same = self.turns.with_untracked(|shown| {
            shown.len() == turns.len() && shown.iter().zip(turns).all(|(s, t)| s.id == t.id)
        });
        if same {
            self.turns.with_untracked(|shown| {
                for (shown, turn) in shown.iter().zip(turns) {
                    if shown.turn.with_untracked(|t| t != turn) {
                        shown.turn.set(turn.clone());
                    }
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
                if shown.turn.with_untracked(|t| t != turn) {
                    shown.turn.set(turn.clone());
                }
                shown
            };
            self.turns.set(turns.iter().map(signal).collect());
        }
    }

    /// Deletes an own box.
    pub fn erase(self, id: BoxId) {
        if let BoxId::Own(number) = id {
            self.overlay.update(|o| o.forget(id));
            self.act(Input::Erase(number));
        }
    }

    /// Puts marks of the selected boxes into the question and goes there.
    pub fn cite_selection(self) {
        let candidates = self.candidates.get_untracked();
        let marks: Vec<_> = self.overlay.with_untracked(|o| {
            let numbers = o.selection().iter().filter_map(|&id| candidates.number(id));
            numbers.map(|number| format!("[{number}]")).collect()
        });
        if marks.is_empty() {
            return;
        }
        self.draft.update(|draft| {
            if !draft.is_empty() && !draft.ends_with(' ') {
                draft.push(' ');
            }
            draft.push_str(&marks.join(" "));
            draft.push(' ');
        });
        self.focus_draft.update(|count| *count += 1);
    }

    /// The numbers of the selected boxes as marks, `[1]; [4]`.
    pub fn selection_marks(self) -> String {
        let candidates = self.candidates.get_untracked();
        self.overlay.with_untracked(|o| {
            let numbers = o.selection().iter().filter_map(|&id| candidates.number(id));
            let marks: Vec<_> = numbers.map(|number| format!("[{number}]")).collect();
            marks.join("; ")
        })
    }
}

/// The page's handle, from any view.
pub fn app_state() -> AppState {
    expect_context::<AppState>()
}

/// The phrases of a turn that point at boxes, if any.
fn mentions(turn: &Turn) -> Option<Mentions> {
    let boxes = turn.boxes.as_ref()?;
    let phrases: Vec<_> = pieces(&turn.spans, boxes.boxes.len())
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Phrase(phrase) if !phrase.objects.is_empty() => Some(phrase),
            _ => None,
        })
        .collect();
    (!phrases.is_empty()).then(|| Mentions {
        turn: turn.id,
        boxes: Arc::clone(boxes),
        phrases,
    })
}

fn put<T: PartialEq + Clone + Send + Sync + 'static>(signal: RwSignal<T>, value: &T) {
    if signal.with_untracked(|now| now != value) {
        signal.set(value.clone());
    }
}
