//! State machine of the conversation about a picture: actions of the user and events of the engine go
//! in, requests for the engine come out.
//!
//! Rules. The engine gets a picture only once its model is ready. One question may wait while
//! the model loads or boxes are being found. A turn keeps the boxes that its question was sent with.
//! A new picture begins a new conversation; the previous one can be restored once. Replies that do
//! not belong to the current picture or turn are ignored. When the engine is lost, picture and turns
//! stay and a queued question stays queued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chat::answer::{self, AnswerPiece};
use crate::chat::candidates::{Candidates, Filter};
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
use crate::progress::{Progress, Stage};
use crate::protocol::{
    Answer, DevicePreference, Event, Granularity, ImageSize, LookTime, ModelCard, PictureId,
    Proposal, Question, Request, StopReason, TurnId,
};
use crate::text::answer_parser::Span;

/// An action of the user, or an event of the engine or its worker.
#[derive(Clone, Debug)]
pub enum Input {
    /// Load a model; also restarts after the engine was lost.
    Load {
        /// Folder or base address that holds `model.json`.
        model: String,
        /// Where to compute.
        device: DevicePreference,
    },
    /// A picture was opened; the page keeps its pixels under `picture`.
    Open {
        /// Its number.
        picture: PictureId,
        /// Size of the original.
        size: ImageSize,
    },
    /// Restore the picture and turns before the last [`Input::Open`].
    Reopen,
    /// Remove the turns, keep the picture.
    Clear,
    /// Which prompt of UPN to use.
    Prefer(Granularity),
    /// New thresholds.
    Filter(Filter),
    /// How tokens are sampled from now on; the seed is the number of the turn.
    Sampling(Sampling),
    /// The user drew a box.
    Draw(BoxXyxy),
    /// The user moved or resized a box.
    Reshape(u32, BoxXyxy),
    /// The user deleted a box.
    Erase(u32),
    /// A question.
    Ask {
        /// The question as the user sees it.
        shown: String,
        /// The question as the model reads it.
        question: String,
    },
    /// Stop the running answer or remove the queued question.
    Stop,
    /// Ask the question of an ended turn again, with the same boxes.
    Retry(TurnId),
    /// The engine sent an event.
    Event(Event),
    /// The worker is lost: it crashed, ran out of memory or could not start.
    Lost(Fault),
    /// Show a kept conversation. Nothing is asked or looked at again before the user asks.
    Restore {
        /// Its picture.
        picture: Box<Picture>,
        /// Its turns, oldest first; they get new numbers.
        turns: Vec<Turn>,
        /// The granularity.
        granularity: Granularity,
        /// The filters, if the user moved them.
        filter: Option<Filter>,
    },
    /// Remove picture and turns.
    Close,
    /// Sampling, filters and granularity as for a new visitor.
    ResetSettings,
}

/// The state of the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Model {
    /// None was requested yet.
    #[default]
    Absent,
    /// Being loaded.
    Loading(Option<Progress>),
    /// Loaded.
    Ready(Box<ModelCard>),
    /// Failed to load, or lost.
    Failed(Fault),
}

/// The state of proposing boxes for a picture.
#[derive(Clone, Debug, PartialEq)]
pub enum LookState {
    /// Waits for the model.
    Waiting,
    /// Boxes are being found.
    Looking(Option<Progress>),
    /// The boxes are known.
    Done,
    /// The engine failed.
    Failed(Fault),
}

/// The state of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Waits for the model or for boxes.
    Queued,
    /// The engine encodes the picture.
    Looking,
    /// The decoder prefills the prompt.
    Reading(Option<Progress>),
    /// Tokens arrive.
    Streaming,
    /// Complete, or ended by the length limit.
    Done,
    /// Stopped by the user.
    Stopped,
    /// Failed.
    Failed(Fault),
}

impl Phase {
    /// Its name in the page's `data-state` attribute.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Looking => "looking",
            Self::Reading(_) => "reading",
            Self::Streaming => "streaming",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }

    /// True for the final states.
    pub fn ended(&self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed(_))
    }
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Its number.
    pub id: TurnId,
    /// The question as the user sees it.
    pub shown: String,
    /// The question as the model reads it.
    pub question: String,
    /// The boxes that the question was sent with; `None` before that.
    pub boxes: Option<Arc<Candidates>>,
    /// Its state.
    pub phase: Phase,
    /// True from the request to stop until the engine confirms.
    pub stopping: bool,
    /// The answer so far.
    pub spans: Vec<Span>,
    /// The complete answer with its timing.
    pub answer: Option<Answer>,
}

impl Turn {
    /// The answer so far in pieces.
    pub fn pieces(&self) -> Vec<AnswerPiece> {
        let boxes = self.boxes.as_ref().map_or(0, |b| b.boxes.len());
        answer::pieces(&self.spans, boxes)
    }
}

/// The picture of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its number.
    pub id: PictureId,
    /// Its size.
    pub size: ImageSize,
    /// The state of proposing its boxes.
    pub look: LookState,
    /// Duration of the last look.
    pub milliseconds: Option<LookTime>,
    /// All proposals, per granularity.
    pub(super) proposals: BTreeMap<Granularity, Arc<Vec<Proposal>>>,
    /// The boxes of the user by number.
    pub(super) own: BTreeMap<u32, BoxXyxy>,
    pub(super) next_own: u32,
}

impl Picture {
    /// A box of the user by its number.
    pub fn own(&self, number: u32) -> Option<BoxXyxy> {
        self.own.get(&number).copied()
    }

    /// The number of the next box of the user.
    pub fn next_own(&self) -> u32 {
        self.next_own
    }

    /// How many proposals there are before any filter, at a granularity.
    pub fn proposals(&self, granularity: Granularity) -> Option<usize> {
        self.proposals.get(&granularity).map(|p| p.len())
    }
}

/// A picture and its turns.
#[derive(Clone, Debug, Default)]
struct PictureSession {
    picture: Option<Picture>,
    turns: Vec<Turn>,
}

/// The state of the conversation.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    model: Model,
    /// The model last requested.
    asked_for: String,
    session: PictureSession,
    previous: Option<PictureSession>,
    /// The picture the engine holds.
    engine_holds: Option<PictureId>,
    /// Requests to look at that picture that the engine has not answered yet.
    looks: BTreeSet<Granularity>,
    granularity: Granularity,
    filter: Filter,
    filter_touched: bool,
    sampling: Sampling,
    candidates: Arc<Candidates>,
    /// The model's limit of an answer in tokens.
    max_tokens: u32,
    next_turn: u32,
    /// True for a restored picture until the user acts on it: the engine does not get it before.
    resting: bool,
}

impl Conversation {
    /// The state of the model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The current picture.
    pub fn picture(&self) -> Option<&Picture> {
        self.session.picture.as_ref()
    }

    /// The turns, oldest first.
    pub fn turns(&self) -> &[Turn] {
        &self.session.turns
    }

    /// The boxes for the next question.
    pub fn candidates(&self) -> &Arc<Candidates> {
        &self.candidates
    }

    /// The current filters.
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// The current filters if the user moved them.
    pub fn moved_filter(&self) -> Option<Filter> {
        self.filter_touched.then_some(self.filter)
    }

    /// The current granularity.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// How tokens are sampled.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// True when [`Input::Reopen`] has something to restore.
    pub fn can_reopen(&self) -> bool {
        self.previous.is_some()
    }

    /// The queued or running turn.
    pub fn active(&self) -> Option<&Turn> {
        self.session.turns.last().filter(|t| !t.phase.ended())
    }

    /// True when a question can be asked: there is a picture and no active turn.
    pub fn can_ask(&self) -> bool {
        self.session.picture.is_some() && self.active().is_none()
    }

    /// Applies one input; returns the requests for the engine, in order.
    pub fn step(&mut self, input: Input) -> Vec<Request> {
        let mut out = Vec::new();
        let boxes_may_change = !matches!(
            input,
            Input::Ask { .. }
                | Input::Stop
                | Input::Sampling(_)
                | Input::Event(Event::Said { .. } | Event::Done { .. } | Event::Progress(_))
        );
        match input {
            Input::Load { model, device } => {
                self.lose_engine();
                self.requeue(&mut out);
                if self.asked_for != model {
                    // The first model of a visit is no other one.
                    self.resting &= self.asked_for.is_empty();
                    self.drop_hidden_boxes();
                    self.asked_for.clone_from(&model);
                }
                self.model = Model::Loading(None);
                out.push(Request::Load {
                    model,
                    options: device.into(),
                });
            }
            Input::Open { picture, size } => {
                self.stop(&mut out);
                self.resting = false;
                let session = PictureSession {
                    picture: Some(Picture {
                        id: picture,
                        size,
                        look: LookState::Waiting,
                        milliseconds: None,
                        proposals: BTreeMap::new(),
                        own: BTreeMap::new(),
                        next_own: 0,
                    }),
                    turns: Vec::new(),
                };
                self.previous = Some(std::mem::replace(&mut self.session, session))
                    .filter(|s| s.picture.is_some());
                self.end_previous();
                self.request_look(&mut out);
            }
            Input::Reopen => {
                if let Some(previous) = self.previous.take() {
                    self.stop(&mut out);
                    self.resting = false;
                    self.session = previous;
                    self.request_look(&mut out);
                }
            }
            Input::Clear => {
                self.stop(&mut out);
                self.session.turns.clear();
            }
            Input::Prefer(granularity) => {
                self.granularity = granularity;
                self.resting = false;
                self.request_look(&mut out);
                self.refresh_candidates();
                self.send_queued(&mut out);
            }
            Input::Filter(filter) => {
                self.filter = filter;
                self.filter_touched = true;
            }
            Input::Sampling(sampling) => self.sampling = sampling,
            Input::Draw(bbox) => {
                if let Some(picture) = &mut self.session.picture {
                    picture.own.insert(picture.next_own, bbox);
                    picture.next_own += 1;
                }
            }
            Input::Reshape(number, bbox) => {
                let picture = self.session.picture.as_mut();
                if let Some(own) = picture.and_then(|p| p.own.get_mut(&number)) {
                    *own = bbox;
                }
            }
            Input::Erase(number) => {
                if let Some(picture) = &mut self.session.picture {
                    picture.own.remove(&number);
                }
            }
            Input::Ask { shown, question } => {
                if self.can_ask() && !question.trim().is_empty() {
                    let boxes = self.wake();
                    self.push_turn(shown, question, boxes);
                    self.request_look(&mut out);
                    self.send_queued(&mut out);
                }
            }
            Input::Stop => self.stop(&mut out),
            Input::Retry(turn) => {
                let ended = self.active().is_none();
                let index = self.session.turns.iter().position(|t| t.id == turn);
                if let (true, Some(index)) = (ended, index) {
                    self.wake();
                    let old = self.session.turns.remove(index);
                    self.push_turn(old.shown, old.question, old.boxes);
                    self.request_look(&mut out);
                    self.send_queued(&mut out);
                }
            }
            Input::Event(event) => self.on_event(event, &mut out),
            Input::Lost(fault) => {
                self.lose_engine();
                self.fail_running(&fault);
                self.model = Model::Failed(fault);
            }
            Input::Restore {
                picture,
                mut turns,
                granularity,
                filter,
            } => {
                self.stop(&mut out);
                self.previous = None;
                self.granularity = granularity;
                if let Some(filter) = filter {
                    self.filter = filter;
                    self.filter_touched = true;
                }
                for turn in &mut turns {
                    turn.id = TurnId(self.next_turn);
                    self.next_turn += 1;
                }
                self.session = PictureSession {
                    picture: Some(*picture),
                    turns,
                };
                self.resting = true;
                self.request_look(&mut out);
            }
            Input::Close => {
                self.stop(&mut out);
                self.previous = None;
                self.session = PictureSession::default();
            }
            Input::ResetSettings => {
                self.sampling = Sampling::default();
                self.filter_touched = false;
                self.filter = match &self.model {
                    Model::Ready(card) => Filter::of(card),
                    _ => Filter::default(),
                };
                if self.granularity != Granularity::default() {
                    self.granularity = Granularity::default();
                    self.request_look(&mut out);
                }
            }
        }
        if boxes_may_change {
            self.refresh_candidates();
        }
        out
    }

    fn on_event(&mut self, event: Event, out: &mut Vec<Request>) {
        match event {
            Event::Progress(progress) => self.progress(progress),
            // An earlier request; the answer to the last one is still to come.
            Event::Ready(card) if card.asked_for != self.asked_for => {}
            Event::Ready(card) => {
                if !self.filter_touched {
                    self.filter = Filter::of(&card);
                }
                self.max_tokens = card.default_max_tokens;
                self.model = Model::Ready(card);
                self.refresh_candidates();
                self.request_look(out);
                self.send_queued(out);
            }
            Event::Proposed {
                picture,
                granularity,
                boxes,
                milliseconds,
            } => {
                let wanted = self.granularity == granularity;
                if self.engine_holds == Some(picture) {
                    self.looks.remove(&granularity);
                }
                if let Some(current) = self.picture_mut(picture) {
                    current.proposals.insert(granularity, Arc::new(boxes));
                    if wanted {
                        current.look = LookState::Done;
                        current.milliseconds = Some(milliseconds);
                        self.refresh_candidates();
                        self.send_queued(out);
                    }
                }
            }
            Event::Said { turn, spans } => {
                if let Some(turn) = self.running_mut(turn) {
                    turn.phase = Phase::Streaming;
                    turn.spans = spans;
                }
            }
            Event::Done { turn, answer } => {
                if let Some(turn) = self.running_mut(turn) {
                    turn.phase = match answer.stop {
                        StopReason::Stopped => Phase::Stopped,
                        StopReason::End | StopReason::Length => Phase::Done,
                    };
                    turn.stopping = false;
                    turn.spans.clone_from(&answer.spans);
                    turn.answer = Some(answer);
                }
            }
            Event::Failed {
                turn: Some(turn),
                fault,
                ..
            } => {
                if let Some(turn) = self.running_mut(turn) {
                    turn.phase = Phase::Failed(fault);
                    turn.stopping = false;
                }
            }
            Event::Failed {
                turn: None,
                picture: Some(picture),
                fault,
            } => {
                if self.engine_holds == Some(picture) {
                    self.engine_holds = None;
                    self.looks.clear();
                }
                if let Some(current) = self.picture_mut(picture) {
                    current.look = LookState::Failed(fault.clone());
                    self.fail_active(&fault);
                }
            }
            Event::Failed {
                turn: None,
                picture: None,
                fault,
            } => {
                self.lose_engine();
                self.fail_running(&fault);
                self.model = Model::Failed(fault);
            }
        }
    }

    fn progress(&mut self, progress: Progress) {
        match progress.stage {
            Stage::Fetch | Stage::Upload | Stage::Compile => {
                if let Model::Loading(shown) = &mut self.model {
                    *shown = Some(progress);
                }
            }
            Stage::Propose => {
                if let Some(Picture {
                    look: LookState::Looking(shown),
                    ..
                }) = &mut self.session.picture
                {
                    *shown = Some(progress);
                }
            }
            Stage::Look | Stage::Read => {
                let Some(turn) = self.session.turns.last_mut() else {
                    return;
                };
                if matches!(turn.phase, Phase::Looking | Phase::Reading(_)) {
                    turn.phase = match progress.stage {
                        Stage::Read => Phase::Reading(Some(progress)),
                        _ => Phase::Looking,
                    };
                }
            }
        }
    }

    /// Requests the boxes of the current picture if they are missing, or sends only the picture again
    /// if the engine no longer holds it.
    fn request_look(&mut self, out: &mut Vec<Request>) {
        let granularity = self.granularity;
        let ready = matches!(self.model, Model::Ready(_));
        let Some(picture) = &mut self.session.picture else {
            return;
        };
        let held = self.engine_holds == Some(picture.id);
        let known = picture.proposals.contains_key(&granularity);
        if known && (held || self.resting) {
            picture.look = LookState::Done;
            return;
        }
        if !ready {
            picture.look = LookState::Waiting;
            return;
        }
        picture.look = LookState::Looking(None);
        if !held {
            self.engine_holds = Some(picture.id);
            self.looks.clear();
        }
        if !self.looks.insert(granularity) {
            return;
        }
        out.push(Request::Look {
            picture: picture.id,
            size: (!held).then_some(picture.size),
            granularity,
        });
    }

    /// The user acts on the picture. Returns the boxes of one that was resting: its question is about
    /// these, not about those that the engine is going to find.
    fn wake(&mut self) -> Option<Arc<Candidates>> {
        let was_resting = std::mem::replace(&mut self.resting, false);
        let is_known = self.session.picture.as_ref()?.look == LookState::Done;
        (was_resting && is_known).then(|| Arc::clone(&self.candidates))
    }

    fn push_turn(&mut self, shown: String, question: String, boxes: Option<Arc<Candidates>>) {
        let id = TurnId(self.next_turn);
        self.next_turn += 1;
        self.session.turns.push(Turn {
            id,
            shown,
            question,
            boxes,
            phase: Phase::Queued,
            stopping: false,
            spans: Vec::new(),
            answer: None,
        });
    }

    /// Sends the queued question if the model is loaded and the boxes are known.
    fn send_queued(&mut self, out: &mut Vec<Request>) {
        let ready = matches!(self.model, Model::Ready(_));
        let Some(picture) = &self.session.picture else {
            return;
        };
        let Some(turn) = self.session.turns.last_mut() else {
            return;
        };
        let is_looked = picture.look == LookState::Done && self.engine_holds == Some(picture.id);
        if turn.phase != Phase::Queued || !ready || !is_looked {
            return;
        }
        let boxes = turn
            .boxes
            .get_or_insert_with(|| Arc::clone(&self.candidates));
        let boxes = boxes.boxes.iter().map(|b| b.bbox).collect();
        turn.phase = Phase::Looking;
        out.push(Request::Ask {
            turn: turn.id,
            picture: picture.id,
            question: Question {
                boxes,
                text: turn.question.clone(),
                max_tokens: self.max_tokens,
                sampling: Sampling {
                    seed: turn.id.0,
                    ..self.sampling
                },
            },
        });
    }

    /// Queues the running question again, under a new number: the engine may still send events of the
    /// old one.
    fn requeue(&mut self, out: &mut Vec<Request>) {
        let Some(turn) = self.session.turns.last_mut() else {
            return;
        };
        if turn.phase == Phase::Queued || turn.phase.ended() {
            return;
        }
        if !turn.stopping {
            out.push(Request::Stop { turn: turn.id });
        }
        turn.id = TurnId(self.next_turn);
        self.next_turn += 1;
        turn.phase = Phase::Queued;
        turn.stopping = false;
        turn.spans.clear();
        turn.boxes = None;
    }

    /// Another model proposes other boxes. The shown ones stay until they are replaced.
    fn drop_hidden_boxes(&mut self) {
        let sessions = [Some(&mut self.session), self.previous.as_mut()];
        for picture in sessions.into_iter().flatten().flat_map(|s| &mut s.picture) {
            picture.proposals.retain(|&g, _| g == self.granularity);
        }
    }

    fn stop(&mut self, out: &mut Vec<Request>) {
        let Some(turn) = self.session.turns.last_mut() else {
            return;
        };
        if turn.phase == Phase::Queued {
            turn.phase = Phase::Stopped;
        } else if !turn.phase.ended() && !turn.stopping {
            turn.stopping = true;
            out.push(Request::Stop { turn: turn.id });
        }
    }

    /// The turn of the previous picture gets no more replies, so it ends.
    fn end_previous(&mut self) {
        let turn = self.previous.as_mut().and_then(|s| s.turns.last_mut());
        if let Some(turn) = turn.filter(|turn| !turn.phase.ended()) {
            turn.phase = Phase::Stopped;
            turn.stopping = false;
        }
    }

    fn lose_engine(&mut self) {
        self.engine_holds = None;
        self.looks.clear();
        if let Some(picture) = &mut self.session.picture {
            picture.look = LookState::Waiting;
        }
    }

    /// The running answer fails with the engine; a queued question stays queued.
    fn fail_running(&mut self, fault: &Fault) {
        if self
            .active()
            .is_some_and(|turn| turn.phase != Phase::Queued)
        {
            self.fail_active(fault);
        }
    }

    fn fail_active(&mut self, fault: &Fault) {
        let last = self.session.turns.last_mut();
        if let Some(turn) = last.filter(|turn| !turn.phase.ended()) {
            turn.phase = Phase::Failed(fault.clone());
            turn.stopping = false;
        }
    }

    fn picture_mut(&mut self, id: PictureId) -> Option<&mut Picture> {
        self.session.picture.as_mut().filter(|p| p.id == id)
    }

    fn running_mut(&mut self, id: TurnId) -> Option<&mut Turn> {
        let turn = self.session.turns.last_mut()?;
        (turn.id == id && !turn.phase.ended() && turn.phase != Phase::Queued).then_some(turn)
    }

    /// Recomputes the candidates from proposals, boxes of the user and filters.
    fn refresh_candidates(&mut self) {
        let next = match &self.session.picture {
            None => Candidates::default(),
            Some(picture) => {
                let known = picture.proposals.get_key_value(&self.granularity);
                let (granularity, proposals) = known
                    .or_else(|| picture.proposals.first_key_value())
                    .map_or((self.granularity, &[][..]), |(&g, p)| (g, p.as_slice()));
                Candidates::choose(proposals, granularity, &picture.own, self.filter)
            }
        };
        if *self.candidates != next {
            self.candidates = Arc::new(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::candidates::BoxId;
    use crate::chat::test_data::{card, load, open, proposed, ready};
    use crate::error::FaultKind;
    use crate::protocol::AskTime;

    const A: PictureId = PictureId(1);
    const B: PictureId = PictureId(2);

    fn ask(words: &str) -> Input {
        Input::Ask {
            shown: words.into(),
            question: words.into(),
        }
    }

    fn said(turn: u32, text: &str) -> Input {
        Input::Event(Event::Said {
            turn: TurnId(turn),
            spans: vec![Span {
                text: text.into(),
                objects: vec![],
            }],
        })
    }

    fn done(turn: u32, text: &str, stop: StopReason) -> Input {
        Input::Event(Event::Done {
            turn: TurnId(turn),
            answer: Answer {
                prompt: String::new(),
                text: text.into(),
                spans: vec![Span {
                    text: text.into(),
                    objects: vec![],
                }],
                tokens: 1,
                prefill_tokens: 1,
                stop,
                milliseconds: AskTime::default(),
            },
        })
    }

    fn fault() -> Fault {
        Fault::new(FaultKind::Device, "worker", "it stopped", "Start it again")
    }

    fn failed(turn: Option<u32>, picture: Option<PictureId>) -> Input {
        Input::Event(Event::Failed {
            turn: turn.map(TurnId),
            picture,
            fault: fault(),
        })
    }

    /// The requests in short, so that tables stay readable.
    fn summary(requests: &[Request]) -> String {
        let word = |request: &Request| match request {
            Request::Load { .. } => "load".to_owned(),
            Request::Look {
                picture,
                size,
                granularity,
            } => {
                let again = if size.is_some() { "" } else { "again " };
                format!("look {again}{} {granularity:?}", picture.0).to_lowercase()
            }
            Request::Ask {
                turn,
                picture,
                question,
            } => {
                let boxes = question.boxes.len();
                format!("ask {} about {} with {boxes}", turn.0, picture.0)
            }
            Request::Stop { turn } => format!("stop {}", turn.0),
        };
        requests.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn phases(conversation: &Conversation) -> String {
        let turns = conversation.turns().iter();
        let words: Vec<_> = turns.map(|turn| turn.phase.name()).collect();
        words.join(" ")
    }

    /// Runs a table of (input, requests expected, phases expected afterwards).
    fn run(table: Vec<(Input, &str, &str)>) -> Conversation {
        let mut conversation = Conversation::default();
        for (row, (input, requests, after)) in table.into_iter().enumerate() {
            let shown = format!("row {row}: {input:?}");
            assert_eq!(summary(&conversation.step(input)), requests, "{shown}");
            assert_eq!(phases(&conversation), after, "{shown}");
        }
        conversation
    }

    fn progress(stage: Stage) -> Input {
        Input::Event(Event::Progress(Progress {
            stage,
            done: 1,
            total: 2,
        }))
    }

    fn answered() -> Vec<(Input, &'static str, &'static str)> {
        vec![
            (load(), "load", ""),
            (ready(), "", ""),
            (open(A), "look 1 coarse", ""),
            (proposed(A, Granularity::Coarse), "", ""),
            (ask("what?"), "ask 0 about 1 with 2", "looking"),
            (said(0, "a"), "", "streaming"),
        ]
    }

    #[test]
    fn the_reply_to_an_earlier_load_is_ignored() {
        let other = |model: &str| Input::Load {
            model: model.into(),
            device: DevicePreference::Auto,
        };
        let asked = Box::new(ModelCard {
            asked_for: "kept/7b".into(),
            ..*card()
        });
        let after = run(vec![
            (open(A), "", ""),
            (load(), "load", ""),
            (other("kept/7b"), "load", ""),
            (ready(), "", ""),
            (ask("what?"), "", "queued"),
            (
                Input::Event(Event::Ready(asked.clone())),
                "look 1 coarse",
                "queued",
            ),
        ]);
        assert_eq!(*after.model(), Model::Ready(asked));
    }

    #[test]
    fn a_question_waits_for_model_and_boxes() {
        let after = run(vec![
            (open(A), "", ""),
            (load(), "load", ""),
            (ask("what?"), "", "queued"),
            (ask("and?"), "", "queued"),
            (progress(Stage::Fetch), "", "queued"),
            (ready(), "look 1 coarse", "queued"),
            (
                proposed(A, Granularity::Coarse),
                "ask 0 about 1 with 2",
                "looking",
            ),
            (progress(Stage::Read), "", "reading"),
            (said(0, "a"), "", "streaming"),
            (progress(Stage::Read), "", "streaming"),
            (done(0, "a cat", StopReason::End), "", "done"),
        ]);
        assert_eq!(after.filter().score, 0.5, "the model's own threshold");
        assert_eq!(after.turns()[0].spans[0].text, "a cat");
    }

    #[test]
    fn a_queued_question_can_be_removed() {
        run(vec![
            (open(A), "", ""),
            (ask("what?"), "", "queued"),
            (Input::Stop, "", "stopped"),
            (load(), "load", "stopped"),
            (ready(), "look 1 coarse", "stopped"),
            (proposed(A, Granularity::Coarse), "", "stopped"),
        ]);
    }

    #[test]
    fn a_new_picture_stops_the_answer_and_late_replies_are_dropped() {
        let mut table = answered();
        table.extend([
            (open(B), "stop 0, look 2 coarse", ""),
            (said(0, "a cat"), "", ""),
            (done(0, "a cat", StopReason::Stopped), "", ""),
            (proposed(A, Granularity::Fine), "", ""),
            (failed(Some(0), None), "", ""),
            (failed(None, Some(A)), "", ""),
            (ask("and here?"), "", "queued"),
            (
                proposed(B, Granularity::Coarse),
                "ask 1 about 2 with 2",
                "looking",
            ),
            (done(0, "late", StopReason::End), "", "looking"),
            (Input::Reopen, "stop 1, look 1 coarse", "stopped"),
            (Input::Reopen, "", "stopped"),
        ]);
        let after = run(table);
        assert_eq!(after.turns()[0].spans[0].text, "a");
        assert_eq!(after.candidates().boxes.len(), 2, "boxes shown at once");
    }

    #[test]
    fn a_turn_stops_only_when_the_engine_confirms() {
        let mut table = answered();
        table.extend([
            (Input::Stop, "stop 0", "streaming"),
            (Input::Stop, "", "streaming"),
            (ask("more"), "", "streaming"),
            (done(0, "a b", StopReason::Stopped), "", "stopped"),
            (ask("more"), "ask 1 about 1 with 2", "stopped looking"),
        ]);
        let after = run(table);
        assert_eq!(
            after.turns()[0].spans[0].text,
            "a b",
            "the partial answer stays"
        );
    }

    #[test]
    fn an_answer_keeps_its_boxes_and_retry_sends_the_same() {
        let mut table = answered();
        let narrow = Filter {
            score: 0.8,
            nms: 0.8,
            ..Filter::default()
        };
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (Input::Filter(narrow), "", "done"),
            (Input::Retry(TurnId(0)), "ask 1 about 1 with 2", "looking"),
            (done(1, "a", StopReason::End), "", "done"),
            (ask("new"), "ask 2 about 1 with 1", "done looking"),
        ]);
        let after = run(table);
        let frozen = after.turns()[0].boxes.as_ref().expect("was sent");
        assert_eq!(frozen.boxes.len(), 2);
    }

    #[test]
    fn a_question_needs_no_boxes() {
        let none = Filter {
            score: 1.0,
            nms: 0.8,
            ..Filter::default()
        };
        let mut table = answered();
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (Input::Filter(none), "", "done"),
            (ask("what?"), "ask 1 about 1 with 0", "done looking"),
            (failed(Some(1), None), "", "done failed"),
            (Input::Filter(Filter::default()), "", "done failed"),
            (
                Input::Retry(TurnId(1)),
                "ask 2 about 1 with 0",
                "done looking",
            ),
        ]);
        run(table);
    }

    #[test]
    fn after_a_failure_picture_and_turns_stay_and_loading_again_continues() {
        let mut table = answered();
        table.extend([
            (Input::Lost(fault()), "", "failed"),
            (ask("still there?"), "", "failed queued"),
            (load(), "load", "failed queued"),
            (ready(), "look 1 coarse", "failed queued"),
            (
                proposed(A, Granularity::Coarse),
                "ask 1 about 1 with 2",
                "failed looking",
            ),
            (failed(None, None), "", "failed failed"),
        ]);
        let after = run(table);
        assert!(matches!(after.model(), Model::Failed(_)));
        assert_eq!(after.picture().map(|p| p.id), Some(A));
        assert_eq!(after.turns()[0].spans[0].text, "a");
        assert_eq!(after.candidates().boxes.len(), 2);
    }

    #[test]
    fn another_model_keeps_the_conversation_and_the_running_question() {
        let mut table = answered();
        table.extend([
            (done(0, "a cat", StopReason::End), "", "done"),
            (ask("and?"), "ask 1 about 1 with 2", "done looking"),
            (said(1, "it"), "", "done streaming"),
            (load(), "stop 1, load", "done queued"),
            (said(1, "it is"), "", "done queued"),
            (done(1, "it is", StopReason::Stopped), "", "done queued"),
            (ready(), "look 1 coarse", "done queued"),
            (
                proposed(A, Granularity::Coarse),
                "ask 2 about 1 with 2",
                "done looking",
            ),
        ]);
        let after = run(table);
        let frozen = after.turns()[0].boxes.as_ref().expect("was sent");
        assert_eq!(frozen.boxes.len(), 2, "an old answer keeps its boxes");
        assert_eq!(after.turns()[0].spans[0].text, "a cat");
    }

    #[test]
    fn a_queued_question_survives_a_model_that_fails_to_load() {
        run(vec![
            (open(A), "", ""),
            (load(), "load", ""),
            (ask("what?"), "", "queued"),
            (failed(None, None), "", "queued"),
            (load(), "load", "queued"),
            (ready(), "look 1 coarse", "queued"),
            (
                proposed(A, Granularity::Coarse),
                "ask 0 about 1 with 2",
                "looking",
            ),
        ]);
    }

    #[test]
    fn a_failed_look_is_retried_with_the_next_question() {
        run(vec![
            (load(), "load", ""),
            (ready(), "", ""),
            (open(A), "look 1 coarse", ""),
            (ask("what?"), "", "queued"),
            (failed(None, Some(A)), "", "failed"),
            (ask("what?"), "look 1 coarse", "failed queued"),
        ]);
    }

    #[test]
    fn each_granularity_is_requested_once() {
        let mut table = answered();
        let (fine, coarse) = (Granularity::Fine, Granularity::Coarse);
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (Input::Prefer(fine), "look again 1 fine", "done"),
            (ask("what?"), "", "done queued"),
            (
                Input::Prefer(coarse),
                "ask 1 about 1 with 2",
                "done looking",
            ),
            (Input::Prefer(fine), "", "done looking"),
            (proposed(A, fine), "", "done looking"),
            (Input::Prefer(coarse), "", "done looking"),
            (Input::Prefer(fine), "", "done looking"),
        ]);
        run(table);
    }

    #[test]
    fn boxes_of_the_user_come_last_and_keep_their_identity() {
        let mut table = answered();
        let bbox = BoxXyxy::from([5., 5., 9., 9.]);
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (Input::Draw(bbox), "", "done"),
            (Input::Draw(bbox), "", "done"),
            (Input::Erase(0), "", "done"),
            (Input::Reshape(1, [6., 6., 9., 9.].into()), "", "done"),
            (ask("[2]"), "ask 1 about 1 with 3", "done looking"),
        ]);
        let after = run(table);
        assert_eq!(after.candidates().boxes[2].id, BoxId::Own(1));
        assert_eq!(after.candidates().boxes[2].bbox.x1, 6.);
    }

    #[test]
    fn the_sampling_is_sent_with_the_question() {
        let warm = Sampling {
            temperature: 0.7,
            grammar: false,
            ..Sampling::default()
        };
        let mut conversation = Conversation::default();
        for input in [
            load(),
            open(A),
            ready(),
            proposed(A, Granularity::Coarse),
            Input::Sampling(warm),
        ] {
            conversation.step(input);
        }
        let requests = conversation.step(ask("what?"));
        let [Request::Ask { turn, question, .. }] = &requests[..] else {
            panic!("{requests:?}");
        };
        let seed = turn.0;
        assert_eq!(question.sampling, Sampling { seed, ..warm });
    }
}
