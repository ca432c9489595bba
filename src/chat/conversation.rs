//! The conversation about a picture: what the person does and what the engine says go in, the
//! state changes, requests come out.
//!
//! Rules. The engine gets a picture only once its model is ready. One question may wait while
//! the model loads or boxes are being found. An answer freezes the boxes it was given. A new
//! picture begins a new conversation; the one before it can be brought back once. Replies that
//! belong to nothing current change nothing. When the engine is lost, picture and turns stay and a
//! waiting question goes on waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chat::candidates::{Candidates, Filter};
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
use crate::image::Pixels;
use crate::progress::{Progress, Stage};
use crate::protocol::{
    Answer, DevicePreference, Event, Granularity, LookTime, ModelCard, PictureId, Proposal,
    Request, StopReason, TurnId,
};
use crate::text::answer_parser::Span;

/// What the person does, and what the engine or its worker reports.
#[derive(Clone, Debug)]
pub enum Input {
    /// Load a model; also begins again after the engine was lost.
    Load {
        /// Folder or base address that holds `model.json`.
        model: String,
        /// Where to compute.
        device: DevicePreference,
    },
    /// A picture was opened; its pixels wait under `picture` wherever the front keeps them.
    Open {
        /// The number the front gave it.
        picture: PictureId,
        /// Columns of the original.
        width: u32,
        /// Rows of the original.
        height: u32,
    },
    /// Back to the picture and turns before the last [`Input::Open`].
    Reopen,
    /// Forget the turns, keep the picture.
    Clear,
    /// Whole objects or parts too.
    Prefer(Granularity),
    /// A slider moved.
    Filter(Filter),
    /// How tokens are chosen from now on; the seed is the turn's.
    Sampling(Sampling),
    /// An own box was drawn.
    Draw(BoxXyxy),
    /// An own box was moved or resized.
    Reshape(u32, BoxXyxy),
    /// An own box was deleted.
    Erase(u32),
    /// A question.
    Ask {
        /// The words as the person sees them.
        shown: String,
        /// The words as the model reads them.
        question: String,
    },
    /// Stop the running answer or drop the waiting question.
    Stop,
    /// Put an ended turn's question again, with the same boxes.
    Retry(TurnId),
    /// The engine said something.
    Event(Event),
    /// The worker is gone: it crashed, ran out of memory or could not start.
    Lost(Fault),
}

/// Where the model stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Model {
    /// Nothing asked for yet.
    #[default]
    Absent,
    /// On its way.
    Loading(Option<Progress>),
    /// Answers.
    Ready(ModelCard),
    /// Cannot answer until it is loaded again.
    Failed(Fault),
}

/// Where the picture stands.
#[derive(Clone, Debug, PartialEq)]
pub enum LookState {
    /// Waits for the model.
    Waiting,
    /// Boxes are being found.
    Looking(Option<Progress>),
    /// Boxes are there.
    Seen,
    /// Boxes could not be found.
    Failed(Fault),
}

/// Where a turn stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Waits for the model or for boxes.
    Queued,
    /// The engine encodes the picture.
    Looking,
    /// The decoder reads the prompt.
    Reading(Option<Progress>),
    /// Words arrive.
    Streaming,
    /// Complete, or cut at the length limit.
    Done,
    /// Stopped by the person.
    Stopped,
    /// Failed.
    Failed(Fault),
}

impl Phase {
    /// The word for it, for tests and style.
    pub fn word(&self) -> &'static str {
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

    /// True once nothing more will come.
    pub fn ended(&self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed(_))
    }
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Its number.
    pub id: TurnId,
    /// The words as the person sees them.
    pub shown: String,
    /// The words as the model reads them.
    pub question: String,
    /// The boxes given to the model, frozen when the question was sent; none before that.
    pub boxes: Option<Arc<Candidates>>,
    /// Where it stands.
    pub phase: Phase,
    /// True from the wish to stop until the engine confirms.
    pub stopping: bool,
    /// The words so far.
    pub spans: Vec<Span>,
    /// The complete answer with its figures.
    pub answer: Option<Answer>,
}

/// The picture talked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its number.
    pub id: PictureId,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Where it stands.
    pub sight: LookState,
    /// Time of the last look.
    pub milliseconds: Option<LookTime>,
    /// All proposals, per granularity.
    proposals: BTreeMap<Granularity, Arc<Vec<Proposal>>>,
    /// The person's own boxes by number.
    own: BTreeMap<u32, BoxXyxy>,
    next_own: u32,
}

impl Picture {
    /// The person's own box of that number.
    pub fn own(&self, number: u32) -> Option<BoxXyxy> {
        self.own.get(&number).copied()
    }

    /// The number the next own box will get.
    pub fn next_own(&self) -> u32 {
        self.next_own
    }

    /// How many proposals there are before any filter, at a granularity.
    pub fn proposals(&self, granularity: Granularity) -> Option<usize> {
        self.proposals.get(&granularity).map(|p| p.len())
    }
}

/// A picture and what was said about it.
#[derive(Clone, Debug, Default)]
struct Session {
    picture: Option<Picture>,
    turns: Vec<Turn>,
}

/// The whole state.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    model: Model,
    /// The model last asked for.
    asked_for: String,
    session: Session,
    previous: Option<Session>,
    /// The picture the engine holds.
    engine_holds: Option<PictureId>,
    /// Looks at that picture the engine has not answered yet.
    looks: BTreeSet<Granularity>,
    granularity: Granularity,
    filter: Filter,
    filter_touched: bool,
    sampling: Sampling,
    candidates: Arc<Candidates>,
    /// The model's own limit of an answer.
    max_tokens: u32,
    next_turn: u32,
}

impl Conversation {
    /// Where the model stands.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The picture talked about.
    pub fn picture(&self) -> Option<&Picture> {
        self.session.picture.as_ref()
    }

    /// The turns, oldest first.
    pub fn turns(&self) -> &[Turn] {
        &self.session.turns
    }

    /// The boxes a question asked now would carry.
    pub fn candidates(&self) -> &Arc<Candidates> {
        &self.candidates
    }

    /// The filters in force.
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// Whole objects or parts too.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// True when [`Input::Reopen`] has something to bring back.
    pub fn can_reopen(&self) -> bool {
        self.previous.is_some()
    }

    /// The turn that waits or runs.
    pub fn active(&self) -> Option<&Turn> {
        self.session.turns.last().filter(|t| !t.phase.ended())
    }

    /// True when a question would be taken: there is a picture and no turn waits or runs.
    pub fn can_ask(&self) -> bool {
        self.session.picture.is_some() && self.active().is_none()
    }

    /// Takes one input; gives what the engine should be told, in order.
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
                    self.drop_hidden_boxes();
                    self.asked_for.clone_from(&model);
                }
                self.model = Model::Loading(None);
                out.push(Request::Load {
                    model,
                    device,
                    memory: None,
                    cache: None,
                });
            }
            Input::Open {
                picture,
                width,
                height,
            } => {
                self.stop(&mut out);
                let session = Session {
                    picture: Some(Picture {
                        id: picture,
                        width,
                        height,
                        sight: LookState::Waiting,
                        milliseconds: None,
                        proposals: BTreeMap::new(),
                        own: BTreeMap::new(),
                        next_own: 0,
                    }),
                    turns: Vec::new(),
                };
                self.previous = Some(std::mem::replace(&mut self.session, session))
                    .filter(|s| s.picture.is_some());
                self.settle_previous();
                self.look(&mut out);
            }
            Input::Reopen => {
                if let Some(previous) = self.previous.take() {
                    self.stop(&mut out);
                    self.session = previous;
                    self.look(&mut out);
                }
            }
            Input::Clear => {
                self.stop(&mut out);
                self.session.turns.clear();
            }
            Input::Prefer(granularity) => {
                self.granularity = granularity;
                self.look(&mut out);
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
                    self.push_turn(shown, question, None);
                    self.look(&mut out);
                    self.send_queued(&mut out);
                }
            }
            Input::Stop => self.stop(&mut out),
            Input::Retry(turn) => {
                let ended = self.active().is_none();
                let place = self.session.turns.iter().position(|t| t.id == turn);
                if let (true, Some(place)) = (ended, place) {
                    let old = self.session.turns.remove(place);
                    self.push_turn(old.shown, old.question, old.boxes);
                    self.look(&mut out);
                    self.send_queued(&mut out);
                }
            }
            Input::Event(event) => self.on_event(event, &mut out),
            Input::Lost(fault) => {
                self.lose_engine();
                self.fail_running(&fault);
                self.model = Model::Failed(fault);
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
            // The one asked for before it; the one asked for last is still to come.
            Event::Ready(card) if card.asked_for != self.asked_for => {}
            Event::Ready(card) => {
                if !self.filter_touched {
                    self.filter = Filter {
                        score: card.default_score,
                        nms: card.default_nms,
                    };
                }
                self.max_tokens = card.default_max_tokens;
                self.model = Model::Ready(card);
                self.refresh_candidates();
                self.look(out);
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
                        current.sight = LookState::Seen;
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
                    current.sight = LookState::Failed(fault.clone());
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
                    sight: LookState::Looking(shown),
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

    /// Asks for the boxes of the current picture where they are missing, or only hands the
    /// picture over again where the engine no longer holds it.
    fn look(&mut self, out: &mut Vec<Request>) {
        let granularity = self.granularity;
        let ready = matches!(self.model, Model::Ready(_));
        let Some(picture) = &mut self.session.picture else {
            return;
        };
        let held = self.engine_holds == Some(picture.id);
        let known = picture.proposals.contains_key(&granularity);
        if held && known {
            picture.sight = LookState::Seen;
            return;
        }
        if !ready {
            picture.sight = LookState::Waiting;
            return;
        }
        picture.sight = LookState::Looking(None);
        if !held {
            self.engine_holds = Some(picture.id);
            self.looks.clear();
        }
        if !self.looks.insert(granularity) {
            return;
        }
        out.push(Request::Look {
            picture: picture.id,
            pixels: (!held).then_some(Pixels {
                width: picture.width,
                height: picture.height,
                rgb: Vec::new(),
            }),
            granularity,
        });
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

    /// Sends the waiting question if model and boxes are there.
    fn send_queued(&mut self, out: &mut Vec<Request>) {
        let ready = matches!(self.model, Model::Ready(_));
        let Some(picture) = &self.session.picture else {
            return;
        };
        let Some(turn) = self.session.turns.last_mut() else {
            return;
        };
        let seen = picture.sight == LookState::Seen && self.engine_holds == Some(picture.id);
        if turn.phase != Phase::Queued || !ready || !seen {
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
            boxes,
            question: turn.question.clone(),
            max_tokens: self.max_tokens,
            sampling: Sampling {
                seed: turn.id.0,
                ..self.sampling
            },
        });
    }

    /// The running question waits again, under a new number: the engine may still speak of the old.
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

    /// Another model finds other boxes. Those in view stay until they are replaced.
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

    /// A turn left behind with its picture gets no more replies: it ends where it stands.
    fn settle_previous(&mut self) {
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
            picture.sight = LookState::Waiting;
        }
    }

    /// The running answer fails with the engine; a waiting question goes on waiting.
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

    /// Brings the candidates up to date with proposals, own boxes and filters.
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
    use crate::error::FaultKind;
    use crate::memory::{Fit, MemoryNeeds, Residency, Verdict};
    use crate::protocol::AskTime;

    const A: PictureId = PictureId(1);
    const B: PictureId = PictureId(2);

    const NANO: &str = "models/nano";

    fn card() -> ModelCard {
        ModelCard {
            asked_for: NANO.into(),
            name: "nano".into(),
            licence: String::new(),
            trained_on: String::new(),
            device: "wgpu".into(),
            adapter: String::new(),
            software: false,
            default_score: 0.5,
            default_nms: 0.8,
            default_max_tokens: 512,
            weight_bytes: 0,
            fit: Fit {
                verdict: Verdict::Fits,
                residency: Residency::All,
                reason: String::new(),
                needs: MemoryNeeds::default(),
            },
        }
    }

    fn load() -> Input {
        Input::Load {
            model: NANO.into(),
            device: DevicePreference::Auto,
        }
    }

    fn open(picture: PictureId) -> Input {
        Input::Open {
            picture,
            width: 100,
            height: 80,
        }
    }

    fn ask(words: &str) -> Input {
        Input::Ask {
            shown: words.into(),
            question: words.into(),
        }
    }

    fn ready() -> Input {
        Input::Event(Event::Ready(card()))
    }

    fn proposed(picture: PictureId, granularity: Granularity) -> Input {
        let proposal = |x: f32, score| Proposal {
            bbox: [x, 0., x + 10., 10.].into(),
            score,
        };
        Input::Event(Event::Proposed {
            picture,
            granularity,
            boxes: vec![proposal(0., 0.9), proposal(20., 0.6), proposal(40., 0.1)],
            milliseconds: LookTime::default(),
        })
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

    /// One word per request, so that tables stay readable.
    fn words(requests: &[Request]) -> String {
        let word = |request: &Request| match request {
            Request::Load { .. } => "load".to_owned(),
            Request::Look {
                picture,
                pixels,
                granularity,
            } => {
                let pixels = if pixels.is_some() { "" } else { "again " };
                format!("look {pixels}{} {granularity:?}", picture.0).to_lowercase()
            }
            Request::Ask {
                turn,
                picture,
                boxes,
                ..
            } => format!("ask {} about {} with {}", turn.0, picture.0, boxes.len()),
            Request::Stop { turn } => format!("stop {}", turn.0),
        };
        requests.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn phases(conversation: &Conversation) -> String {
        let turns = conversation.turns().iter();
        let words: Vec<_> = turns.map(|turn| turn.phase.word()).collect();
        words.join(" ")
    }

    /// Runs a table of (input, requests expected, phases expected afterwards).
    fn run(table: Vec<(Input, &str, &str)>) -> Conversation {
        let mut conversation = Conversation::default();
        for (row, (input, requests, after)) in table.into_iter().enumerate() {
            let shown = format!("row {row}: {input:?}");
            assert_eq!(words(&conversation.step(input)), requests, "{shown}");
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
    fn a_model_asked_for_before_another_is_not_taken_for_it() {
        let other = |model: &str| Input::Load {
            model: model.into(),
            device: DevicePreference::Auto,
        };
        let asked = ModelCard {
            asked_for: "kept/7b".into(),
            ..card()
        };
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
    fn a_waiting_question_can_be_taken_back() {
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
    fn stop_is_over_only_when_the_engine_says_so() {
        let mut table = answered();
        table.extend([
            (Input::Stop, "stop 0", "streaming"),
            (Input::Stop, "", "streaming"),
            (ask("more"), "", "streaming"),
            (done(0, "a b", StopReason::Stopped), "", "stopped"),
            (ask("more"), "ask 1 about 1 with 2", "stopped looking"),
        ]);
        let after = run(table);
        assert_eq!(after.turns()[0].spans[0].text, "a b", "the part is kept");
    }

    #[test]
    fn an_answer_keeps_its_boxes_and_retry_sends_the_same() {
        let mut table = answered();
        let narrow = Filter {
            score: 0.8,
            nms: 0.8,
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
    fn no_boxes_is_no_reason_not_to_ask() {
        let none = Filter {
            score: 1.0,
            nms: 0.8,
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
    fn failure_keeps_picture_and_turns_and_loading_again_goes_on() {
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
    fn another_model_keeps_the_conversation_and_takes_over_the_question() {
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
    fn a_waiting_question_outlives_a_model_that_does_not_load() {
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
    fn a_picture_that_could_not_be_seen_is_tried_again() {
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
    fn each_granularity_is_found_once() {
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
    fn own_boxes_come_last_and_keep_their_names() {
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
    fn the_way_tokens_are_chosen_goes_with_the_question() {
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
        let [Request::Ask { turn, sampling, .. }] = &requests[..] else {
            panic!("{requests:?}");
        };
        let seed = turn.0;
        assert_eq!(*sampling, Sampling { seed, ..warm });
    }
}
