//! State machine of the conversation about a picture: actions of the user and events of the engine go
//! in, requests for the engine come out.
//!
//! Rules. The engine gets a picture only once its model is ready. One question may wait while
//! the model loads or boxes are being found. A turn keeps the boxes that its question was sent with.
//! A new picture begins a new conversation; the previous one can be restored once. Replies that do
//! not belong to the current picture or turn are ignored. When the engine is lost, picture and turns
//! stay and a queued question stays queued.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chat::answer::{self, AnswerPiece};
use crate::chat::box_history::{BoxEdits, BoxHistory};
use crate::chat::candidates::{BoxId, Candidates, Filter};
use crate::chat::choices::{Choices, MAX_TOKENS};
use crate::chat::document::{Document, LabelledBox};
use crate::chat::question::{Draft, QuestionKind};
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
use crate::progress::{Progress, Stage};
use crate::protocol::{
    Answer, DevicePreference, Event, Granularity, ImageSize, Link, LookTime, ModelCard, PictureId,
    Proposal, Question, Request, StopReason, TurnId,
};
use crate::text::answer_parser::Span;

mod beside;
mod earlier;
mod restore;

pub use self::earlier::Earlier;

/// The filters of a kept conversation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeptFilter {
    /// The user moved them.
    Moved(Filter),
    /// Those of its model; in use until a model is ready.
    OfModel(Filter),
}

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
    /// Compare the current boxes with each other.
    Compare,
    /// A change of the boxes.
    Boxes(BoxChange),
    /// A question as the user wrote it.
    AskDraft(Draft),
    /// Ask another question in place of a turn; the later turns are dropped.
    Edit(TurnId, Draft),
    /// Bring back the turns that the last [`Input::Edit`] dropped.
    UndoEdit,
    /// The turns that the last [`Input::Edit`] dropped are not wanted any more.
    KeepEdit,
    /// Show another answer of a turn, by its place among them.
    Version(TurnId, usize),
    /// Let an answer that ended at the length limit go on, with a higher limit.
    Continue(TurnId),
    /// How the questions of this conversation are answered.
    Choose(Choices),
    /// The choices that a new conversation begins with; with `now` this one takes them too.
    Usual {
        /// The choices.
        choices: Choices,
        /// Whether this conversation takes them.
        now: bool,
    },
    /// The engine works for something else: nothing is sent to it, and it loses the picture.
    Lend,
    /// The engine is back.
    Return,
    /// The user's boxes of the piece with this index of an answer; `None` restores the model's.
    Relink(TurnId, usize, Option<Vec<u32>>),
    /// Ask for the name of every box, one after the other.
    NameAll,
    /// Boxes come from a file; they become boxes of the user. Those that are there already are skipped.
    Import(Vec<LabelledBox>),
    /// Boxes of the user and turns come from a saved conversation about a picture of the same size; ignored
    /// for another size.
    Restore(Box<Document>),
    /// Show a kept conversation. Nothing is asked or looked at again before the user asks.
    Resume {
        /// Its picture.
        picture: Box<Picture>,
        /// Its turns, oldest first; they get new numbers.
        turns: Vec<Turn>,
        /// The granularity.
        granularity: Granularity,
        /// Its filters, where they are known.
        filter: Option<KeptFilter>,
        /// How its questions are answered; without them as a new conversation.
        choices: Option<Choices>,
    },
    /// Another conversation gets the engine; ignored while something of this one is there.
    Yield,
    /// Remove picture and turns.
    Close,
    /// Sampling, filters and granularity as for a new visitor.
    ResetSettings,
}

/// A change of the boxes of the current picture; see [`BoxHistory`].
#[derive(Clone, Debug, PartialEq)]
pub enum BoxChange {
    /// A box gets another shape; a proposal is replaced by a box of the user.
    Reshape {
        /// The box.
        id: BoxId,
        /// Its new corners, in pixels of the picture.
        bbox: BoxXyxy,
        /// Whether one undo takes this and the change before back.
        continues: bool,
    },
    /// Boxes of the user are deleted, proposals taken out of use.
    Remove(Vec<BoxId>),
    /// All proposals out of use are brought back.
    Restore,
    /// Boxes are not drawn any more.
    Hide(Vec<BoxId>),
    /// They are drawn again.
    Show(Vec<BoxId>),
    /// The last change is taken back.
    Undo,
    /// The change that was taken back last is done again.
    Redo,
}

/// Milliseconds per token above which the links of an answer are not requested: they take a token for each
/// index, and the next question waits for them.
const LINKS_MILLISECONDS: f64 = 100.0;

/// Temperature of another wording where sampling is greedy.
pub const OTHER_WORDING: f32 = 0.7;

/// Most characters of the name of a box.
const NAME_LENGTH: usize = 40;

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// How sure the model was of each index of the answer, in their order; empty until it is known.
    pub certainty: Vec<Link>,
    /// What the user wrote.
    pub draft: Draft,
    /// Number of its last request to the engine.
    pub request: TurnId,
    /// How that request was to be answered.
    pub settings: Option<Settings>,
    /// How often it was asked again.
    pub retries: u32,
    /// Its other answers, in order.
    pub others: Vec<Version>,
    /// Place of the shown answer among all.
    pub version: usize,
    /// The user's boxes of a piece, by its index.
    pub links: BTreeMap<usize, Vec<u32>>,
    /// True while a longer answer replaces the shown one.
    pub extending: bool,
    /// Settings of the next request where they differ from the usual ones.
    pub planned: Option<Settings>,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Most tokens.
    pub max_tokens: u32,
    /// How tokens are sampled.
    pub sampling: Sampling,
}

/// One of several answers to the same question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    phase: Phase,
    spans: Vec<Span>,
    answer: Option<Answer>,
    settings: Option<Settings>,
    certainty: Vec<Link>,
    links: BTreeMap<usize, Vec<u32>>,
}

impl Turn {
    /// A question that waits for the model and boxes.
    pub fn new(id: TurnId, shown: String, question: String, draft: Draft) -> Self {
        Self {
            id,
            shown,
            question,
            boxes: None,
            phase: Phase::Queued,
            stopping: false,
            spans: Vec::new(),
            answer: None,
            certainty: Vec::new(),
            draft,
            request: id,
            settings: None,
            retries: 0,
            others: Vec::new(),
            version: 0,
            links: BTreeMap::new(),
            extending: false,
            planned: None,
        }
    }

    /// The answer so far in pieces, with the user's boxes in place of the model's.
    pub fn pieces(&self) -> Vec<AnswerPiece> {
        let boxes = self.boxes.as_ref().map_or(0, |b| b.boxes.len());
        let mut pieces = answer::pieces(&self.spans, boxes);
        answer::relink(&mut pieces, &self.links);
        pieces
    }

    /// The number of answers.
    pub fn versions(&self) -> usize {
        self.others.len() + 1
    }

    /// The limit that lets an answer go on, if it ended at a lower one.
    pub fn higher_limit(&self) -> Option<u32> {
        let answer = self.answer.as_ref()?;
        let limit = self.settings?.max_tokens;
        let can_go_on = answer.stop == StopReason::Length && limit < MAX_TOKENS.1;
        can_go_on.then(|| (limit * 2).min(MAX_TOKENS.1))
    }

    /// True if another attempt is asked with [`OTHER_WORDING`].
    pub fn rewords(&self, sampling: Sampling) -> bool {
        self.retries > 0 && sampling.temperature == 0.0
    }

    /// Keeps the shown answer, if it has words, and makes room for a new one.
    fn begin_again(&mut self) {
        let kept = self.take_version();
        if matches!(kept.phase, Phase::Done | Phase::Stopped) && !kept.spans.is_empty() {
            self.others.insert(self.version, kept);
        }
        self.version = self.others.len();
        self.phase = Phase::Queued;
    }

    fn take_version(&mut self) -> Version {
        Version {
            phase: std::mem::replace(&mut self.phase, Phase::Queued),
            spans: std::mem::take(&mut self.spans),
            answer: self.answer.take(),
            certainty: std::mem::take(&mut self.certainty),
            settings: self.settings,
            links: std::mem::take(&mut self.links),
        }
    }

    /// Shows the answer at `place`.
    fn show_version(&mut self, place: usize) {
        if place == self.version || place >= self.versions() {
            return;
        }
        let shown = self.take_version();
        self.others.insert(self.version, shown);
        self.show_other(place);
    }

    /// Shows an answer of the others; the shown one is gone.
    fn show_other(&mut self, place: usize) {
        let version = self.others.remove(place);
        self.phase = version.phase;
        self.spans = version.spans;
        self.answer = version.answer;
        self.certainty = version.certainty;
        self.settings = version.settings;
        self.links = version.links;
        self.version = place;
    }

    /// Of two answers with the same words only the shown one stays.
    fn drop_repeats(&mut self) {
        let before = self.others.len();
        let spans = &self.spans;
        self.others.retain(|other| other.spans != *spans);
        self.version -= before - self.others.len();
    }

    fn stop_queued(&mut self) {
        self.phase = Phase::Stopped;
        self.extending = false;
        if self.spans.is_empty() && !self.others.is_empty() {
            self.show_other(self.others.len() - 1);
        }
    }
}

/// The boxes that are being named, one after the other.
#[derive(Clone, Debug)]
struct Naming {
    boxes: Arc<Candidates>,
    left: VecDeque<u32>,
    running: Option<(TurnId, u32)>,
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
    /// What the user did to its boxes.
    pub(super) boxes: BoxHistory,
    /// The names that the model gave to boxes when all were named.
    pub(super) names: BTreeMap<BoxId, String>,
}

impl Picture {
    /// A box of the user by its number.
    pub fn own(&self, number: u32) -> Option<BoxXyxy> {
        self.edits().own.get(&number).map(|own| own.bbox)
    }

    /// The number of the next box of the user.
    pub fn next_own(&self) -> u32 {
        self.boxes.next_own()
    }

    /// The boxes of the user, and what is removed and hidden.
    pub fn edits(&self) -> &BoxEdits {
        self.boxes.now()
    }

    /// Whether a change of the boxes can be taken back.
    pub fn can_undo(&self) -> bool {
        self.boxes.can_undo()
    }

    /// Whether a change of the boxes that was taken back can be done again.
    pub fn can_redo(&self) -> bool {
        self.boxes.can_redo()
    }

    /// The scores of all proposals before any filter, at a granularity.
    pub fn scores(&self, granularity: Granularity) -> Vec<f32> {
        let proposals = self.proposals.get(&granularity);
        let proposals = proposals.map_or(&[][..], |p| p.as_slice());
        proposals.iter().map(|p| p.score).collect()
    }

    /// All proposals before any filter, at a granularity.
    pub fn all_proposals(&self, granularity: Granularity) -> Arc<Vec<Proposal>> {
        self.proposals
            .get(&granularity)
            .cloned()
            .unwrap_or_default()
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
    /// The turns before the last edit.
    unedited: Option<Vec<Turn>>,
    /// How its questions are answered.
    choices: Choices,
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
    /// What a new conversation begins with.
    usual: Choices,
    candidates: Arc<Candidates>,
    /// The model's limit of an answer in tokens.
    max_tokens: u32,
    naming: Option<Naming>,
    next_turn: u32,
    /// The comparison that the engine has not answered yet.
    comparison: Option<Comparison>,
    /// Whether to compare once the engine has the picture.
    compares_later: bool,
    likeness: Option<Arc<Likeness>>,
    /// True for a restored picture until the user acts on it: the engine does not get it before.
    resting: bool,
    /// True while the engine works for something else.
    lent: bool,
}

/// A comparison of boxes that was requested.
#[derive(Clone, Debug)]
struct Comparison {
    turn: TurnId,
    boxes: Arc<Candidates>,
}

/// How alike boxes are.
#[derive(Clone, Debug, PartialEq)]
pub struct Likeness {
    /// The boxes.
    pub boxes: Arc<Candidates>,
    /// Cosines of their object tokens, row by row: -1 to 1. Empty if the model sees no boxes.
    rows: Vec<Vec<f32>>,
}

impl Likeness {
    /// The other boxes with their likeness to `id`, most alike first.
    pub fn to(&self, id: BoxId) -> Vec<(BoxId, f32)> {
        let number = self.boxes.number(id);
        let row = number.and_then(|number| self.rows.get(number as usize));
        let pairs = self.boxes.boxes.iter().zip(row.into_iter().flatten());
        let others = pairs.filter(|(other, _)| other.id != id);
        let mut others: Vec<_> = others.map(|(other, &value)| (other.id, value)).collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1));
        others
    }
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

    /// The current filters as a record keeps them.
    pub fn kept_filter(&self) -> KeptFilter {
        match self.filter_touched {
            true => KeptFilter::Moved(self.filter),
            false => KeptFilter::OfModel(self.filter),
        }
    }

    /// The current granularity.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// How tokens are sampled.
    pub fn sampling(&self) -> Sampling {
        self.session.choices.sampling
    }

    /// How questions are answered.
    pub fn choices(&self) -> &Choices {
        &self.session.choices
    }

    /// What a new conversation begins with.
    pub fn usual(&self) -> &Choices {
        &self.usual
    }

    /// True when the engine can work for something else: it is loaded and has nothing to do.
    pub fn can_lend(&self) -> bool {
        let is_looking = |p: &Picture| matches!(p.look, LookState::Looking(_));
        let is_free = self.is_idle() && self.comparison.is_none() && !self.lent;
        let looks = self.session.picture.as_ref().is_some_and(is_looking);
        matches!(self.model, Model::Ready(_)) && is_free && !looks
    }

    /// How alike the boxes are, once it is known for the current ones.
    pub fn likeness(&self) -> Option<&Arc<Likeness>> {
        let known = self.likeness.as_ref()?;
        Arc::ptr_eq(&known.boxes, &self.candidates).then_some(known)
    }

    /// True when [`Input::Reopen`] has something to restore.
    pub fn can_reopen(&self) -> bool {
        self.previous.is_some()
    }

    /// The queued or running turn.
    pub fn active(&self) -> Option<&Turn> {
        self.session.turns.iter().find(|t| !t.phase.ended())
    }

    fn active_mut(&mut self) -> Option<&mut Turn> {
        self.session.turns.iter_mut().find(|t| !t.phase.ended())
    }

    /// The turn that was asked last, or again last.
    pub fn latest(&self) -> Option<&Turn> {
        self.session.turns.iter().max_by_key(|t| t.request.0)
    }

    /// True when a question can be asked: there is a picture, no active turn, and no box is being named.
    pub fn can_ask(&self) -> bool {
        self.session.picture.is_some() && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.active().is_none() && self.naming.is_none()
    }

    /// The request of the last edit, while [`Input::UndoEdit`] has something to restore.
    pub fn last_edit(&self) -> Option<TurnId> {
        let replaced = self.session.unedited.as_ref();
        replaced.and(self.latest()).map(|turn| turn.request)
    }

    /// The most tokens of an answer.
    pub fn max_tokens(&self) -> u32 {
        self.session.choices.max_tokens.unwrap_or(self.max_tokens)
    }

    /// The number of boxes that were named, and of all, while boxes are being named.
    pub fn naming(&self) -> Option<(usize, usize)> {
        let naming = self.naming.as_ref()?;
        let all = naming.boxes.boxes.len();
        let waiting = naming.left.len() + usize::from(naming.running.is_some());
        Some((all - waiting, all))
    }

    /// Applies one input; returns the requests for the engine, in order.
    pub fn step(&mut self, input: Input) -> Vec<Request> {
        let mut out = Vec::new();
        let boxes_may_change = !matches!(
            input,
            Input::Ask { .. }
                | Input::AskDraft(_)
                | Input::Edit(..)
                | Input::Retry(_)
                | Input::Continue(_)
                | Input::Stop
                | Input::Sampling(_)
                | Input::Event(Event::Said { .. } | Event::Done { .. } | Event::Progress(_))
        );
        match input {
            Input::Load { model, device } => {
                self.stop_naming(&mut out);
                self.lose_engine();
                self.requeue(&mut out);
                if self.asked_for != model {
                    // The first model of a visit is no other one.
                    self.resting &= self.asked_for.is_empty();
                    self.drop_hidden_boxes();
                    self.asked_for.clone_from(&model);
                    // Another model is asked greedily first.
                    for turn in &mut self.session.turns {
                        turn.retries = 0;
                    }
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
                        boxes: BoxHistory::default(),
                        names: BTreeMap::new(),
                    }),
                    turns: Vec::new(),
                    unedited: None,
                    choices: self.usual.clone(),
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
                self.session.unedited = None;
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
            Input::Sampling(sampling) => self.session.choices.sampling = sampling,
            Input::Draw(bbox) => {
                if let Some(picture) = &mut self.session.picture {
                    picture.boxes.draw(bbox.into());
                }
            }
            Input::Ask { shown, question } => {
                let draft = Draft::new(QuestionKind::Free, shown.clone());
                self.ask(shown, question, draft, &mut out);
            }
            Input::AskDraft(draft) => {
                let (shown, question) = draft.phrase(&self.candidates);
                self.ask(shown, question, draft, &mut out);
            }
            Input::Stop => self.stop(&mut out),
            Input::Retry(turn) => {
                let sampling = self.sampling();
                let max_tokens = self.max_tokens();
                self.ask_again(turn, &mut out, |turn, request| {
                    turn.planned = turn.rewords(sampling).then_some(Settings {
                        max_tokens,
                        sampling: Sampling {
                            temperature: OTHER_WORDING,
                            seed: request.0,
                            ..sampling
                        },
                    });
                    turn.retries += 1;
                    turn.begin_again();
                });
            }
            Input::Continue(turn) => {
                let known = self.session.turns.iter().find(|t| t.id == turn);
                let settings = known.and_then(|t| Some((t.settings?, t.higher_limit()?)));
                if let Some((settings, max_tokens)) = settings {
                    self.ask_again(turn, &mut out, |turn, _| {
                        turn.planned = Some(Settings {
                            max_tokens,
                            ..settings
                        });
                        turn.phase = Phase::Queued;
                        turn.answer = None;
                        turn.extending = true;
                    });
                }
            }
            Input::Edit(turn, draft) => {
                let index = self.session.turns.iter().position(|t| t.id == turn);
                let (shown, question) = draft.phrase(&self.candidates);
                let asks = self.can_ask() && !question.trim().is_empty();
                if let (true, Some(index)) = (asks, index) {
                    let before = self.session.turns.clone();
                    self.session.turns.truncate(index);
                    self.ask(shown, question, draft, &mut out);
                    self.session.unedited = Some(before);
                }
            }
            Input::UndoEdit => {
                if let Some(turns) = self.session.unedited.take() {
                    self.stop(&mut out);
                    self.session.turns = turns;
                }
            }
            Input::KeepEdit => self.session.unedited = None,
            Input::Version(turn, place) => {
                let is_idle = self.is_idle();
                let known = self.session.turns.iter_mut().find(|t| t.id == turn);
                if let Some(turn) = known.filter(|_| is_idle) {
                    turn.show_version(place);
                }
            }
            Input::Choose(choices) => self.session.choices = choices.checked(),
            Input::Usual { choices, now } => {
                self.usual = choices.checked();
                if now {
                    self.session.choices = self.usual.clone();
                }
            }
            Input::Lend => {
                self.lent = true;
                self.engine_holds = None;
                self.looks.clear();
            }
            Input::Return => self.take_back(&mut out),
            Input::Relink(turn, piece, objects) => {
                let known = self.session.turns.iter_mut().find(|t| t.id == turn);
                if let Some(turn) = known.filter(|t| t.phase.ended()) {
                    match objects {
                        Some(objects) => turn.links.insert(piece, objects),
                        None => turn.links.remove(&piece),
                    };
                }
            }
            Input::NameAll => {
                let count = self.candidates.boxes.len() as u32;
                if self.can_ask() && count > 0 {
                    self.wake();
                    self.naming = Some(Naming {
                        boxes: Arc::clone(&self.candidates),
                        left: (0..count).collect(),
                        running: None,
                    });
                    self.request_look(&mut out);
                    self.send_queued(&mut out);
                }
            }
            Input::Compare => self.compare(&mut out),
            Input::Event(event) => self.on_event(event, &mut out),
            Input::Lost(fault) => {
                self.naming = None;
                self.lose_engine();
                self.fail_running(&fault);
                self.model = Model::Failed(fault);
            }
            Input::Boxes(change) => self.change_boxes(change),
            Input::Import(boxes) => self.import(&boxes),
            Input::Restore(document) => self.restore(&document, &mut out),
            Input::Resume {
                picture,
                mut turns,
                granularity,
                filter,
                choices,
            } => {
                self.stop(&mut out);
                self.previous = None;
                self.granularity = granularity;
                match filter {
                    Some(KeptFilter::Moved(filter)) => {
                        self.filter = filter;
                        self.filter_touched = true;
                    }
                    Some(KeptFilter::OfModel(filter))
                        if !self.filter_touched && !matches!(self.model, Model::Ready(_)) =>
                    {
                        self.filter = filter;
                    }
                    _ => {}
                }
                for turn in &mut turns {
                    turn.id = self.next_request();
                    turn.request = turn.id;
                }
                self.session = PictureSession {
                    picture: Some(*picture),
                    turns,
                    unedited: None,
                    choices: choices.map_or_else(|| self.usual.clone(), Choices::checked),
                };
                self.resting = true;
                self.request_look(&mut out);
            }
            Input::Yield => self.yield_engine(),
            Input::Close => {
                self.stop(&mut out);
                self.previous = None;
                self.session = PictureSession {
                    choices: self.usual.clone(),
                    ..PictureSession::default()
                };
            }
            Input::ResetSettings => {
                self.usual = Choices::default();
                self.session.choices = Choices::default();
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

    fn change_boxes(&mut self, change: BoxChange) {
        let candidates = Arc::clone(&self.candidates);
        let Some(picture) = &mut self.session.picture else {
            return;
        };
        let boxes = &mut picture.boxes;
        match change {
            BoxChange::Reshape {
                id,
                bbox,
                continues,
            } => {
                let known = candidates.number(id).and_then(|n| candidates.get(n));
                // A box that the filters have dropped meanwhile stays as it is.
                if let Some(known) = known {
                    boxes.reshape(id, bbox, known.label.clone(), continues);
                }
            }
            BoxChange::Remove(ids) => boxes.remove(ids),
            BoxChange::Restore => boxes.restore(),
            BoxChange::Hide(ids) => boxes.hide(ids, true),
            BoxChange::Show(ids) => boxes.hide(ids, false),
            BoxChange::Undo => boxes.undo(),
            BoxChange::Redo => boxes.redo(),
        }
    }

    fn on_event(&mut self, event: Event, out: &mut Vec<Request>) {
        match event {
            Event::Progress(progress) => self.progress(progress),
            Event::Said { turn, .. } if self.is_name(turn) => {}
            Event::Done { turn, answer } if self.is_name(turn) => {
                self.on_name(&answer);
                self.send_queued(out);
            }
            Event::Failed {
                turn: Some(turn), ..
            } if self.is_name(turn) => {
                self.next_name();
                self.send_queued(out);
            }
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
                self.rematch_turns(granularity);
            }
            Event::Said { turn, spans } => {
                if let Some(turn) = self.running_mut(turn) {
                    turn.phase = Phase::Streaming;
                    if !turn.extending || length(&spans) >= length(&turn.spans) {
                        turn.spans = spans;
                    }
                }
            }
            Event::Done { turn, answer } => {
                if let Some(turn) = self.running_mut(turn) {
                    turn.phase = match answer.stop {
                        StopReason::Stopped => Phase::Stopped,
                        StopReason::End | StopReason::Length => Phase::Done,
                    };
                    turn.stopping = false;
                    turn.extending = false;
                    turn.spans.clone_from(&answer.spans);
                    let names_boxes = answer.spans.iter().any(|span| !span.objects.is_empty());
                    let per_token = answer.milliseconds.decode / f64::from(answer.tokens.max(1));
                    if names_boxes && per_token <= LINKS_MILLISECONDS {
                        out.push(Request::Links { turn: turn.request });
                    }
                    turn.answer = Some(answer);
                    turn.drop_repeats();
                }
            }
            Event::Links { turn, links } => {
                let turn = self.session.turns.iter_mut().find(|t| t.request == turn);
                if let Some(turn) = turn.filter(|turn| turn.phase.ended()) {
                    turn.certainty = links;
                }
            }
            Event::Compared { turn, likeness } => {
                if let Some(comparison) = self.comparison.take_if(|c| c.turn == turn) {
                    self.likeness = Some(Arc::new(Likeness {
                        boxes: comparison.boxes,
                        rows: likeness,
                    }));
                }
            }
            Event::Failed {
                turn: Some(turn),
                fault,
                ..
            } => {
                self.comparison.take_if(|c| c.turn == turn);
                if let Some(turn) = self.running_mut(turn) {
                    turn.phase = Phase::Failed(fault);
                    turn.stopping = false;
                    turn.extending = false;
                }
            }
            Event::Failed {
                turn: None,
                picture: Some(picture),
                fault,
            } => {
                self.naming = None;
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
                self.naming = None;
                self.lose_engine();
                self.fail_running(&fault);
                self.model = Model::Failed(fault);
            }
        }
    }

    fn progress(&mut self, progress: Progress) {
        match progress.stage {
            // The model is ready meanwhile.
            Stage::Compile => {}
            Stage::Fetch | Stage::Upload => {
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
                let Some(turn) = self.active_mut() else {
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
        let ready = matches!(self.model, Model::Ready(_)) && !self.lent;
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

    /// Requests the likeness of the current boxes, unless it is known or requested already.
    fn compare(&mut self, out: &mut Vec<Request>) {
        let Some(picture) = &self.session.picture else {
            return;
        };
        let is_current = |boxes: &Arc<Candidates>| Arc::ptr_eq(boxes, &self.candidates);
        let requested = self
            .comparison
            .as_ref()
            .is_some_and(|c| is_current(&c.boxes));
        let held = self.engine_holds == Some(picture.id);
        if requested || self.likeness().is_some() || self.candidates.boxes.is_empty() {
            return;
        }
        if !held {
            self.compares_later = true;
            self.wake();
            self.request_look(out);
            return;
        }
        let turn = TurnId(self.next_turn);
        self.next_turn += 1;
        out.push(Request::Compare {
            turn,
            picture: picture.id,
            boxes: self.candidates.boxes.iter().map(|b| b.bbox).collect(),
        });
        self.comparison = Some(Comparison {
            turn,
            boxes: Arc::clone(&self.candidates),
        });
    }

    /// Asks a new question, if one can be asked.
    fn ask(&mut self, shown: String, question: String, draft: Draft, out: &mut Vec<Request>) {
        if self.can_ask() && !question.trim().is_empty() {
            self.session.unedited = None;
            let boxes = self.wake();
            let id = self.next_request();
            let mut turn = Turn::new(id, shown, question, draft);
            turn.boxes = boxes;
            self.session.turns.push(turn);
            self.request_look(out);
            self.send_queued(out);
        }
    }

    /// Asks the question of an ended turn again in its place; `prepare` gets the number of the request.
    fn ask_again(
        &mut self,
        turn: TurnId,
        out: &mut Vec<Request>,
        prepare: impl FnOnce(&mut Turn, TurnId),
    ) {
        let index = self.session.turns.iter().position(|t| t.id == turn);
        let Some(index) = index.filter(|_| self.can_ask()) else {
            return;
        };
        self.session.unedited = None;
        self.wake();
        let request = self.next_request();
        let turn = &mut self.session.turns[index];
        turn.request = request;
        prepare(turn, request);
        self.request_look(out);
        self.send_queued(out);
    }

    fn next_request(&mut self) -> TurnId {
        let id = TurnId(self.next_turn);
        self.next_turn += 1;
        id
    }

    fn is_name(&self, id: TurnId) -> bool {
        let running = self.naming.as_ref().and_then(|n| n.running);
        running.is_some_and(|(running, _)| running == id)
    }

    /// The name of a box is complete.
    fn on_name(&mut self, answer: &Answer) {
        let naming = self.naming.as_ref();
        let named = naming.and_then(|n| n.boxes.get(n.running?.1));
        let name = name_of(&answer.spans);
        if let (Some(id), Some(picture)) = (named.map(|b| b.id), &mut self.session.picture)
            && !name.is_empty()
        {
            picture.names.insert(id, name);
        }
        self.next_name();
        self.refresh_candidates();
    }

    fn next_name(&mut self) {
        if let Some(naming) = &mut self.naming {
            naming.running = None;
        }
        self.naming.take_if(|naming| naming.left.is_empty());
    }

    /// Asks for the next name.
    fn send_name(&mut self, out: &mut Vec<Request>) {
        let id = TurnId(self.next_turn);
        let settings = self.settings(id);
        let system = self.session.choices.system.clone();
        let Some(naming) = self.naming.as_mut().filter(|n| n.running.is_none()) else {
            return;
        };
        let Some(picture) = self.session.picture.as_ref().map(|p| p.id) else {
            return;
        };
        let Some(number) = naming.left.pop_front() else {
            return;
        };
        naming.running = Some((id, number));
        let mark = format!("[{number}]");
        let (_, text) = QuestionKind::Name.phrase(&mark, &naming.boxes);
        let boxes = naming.boxes.boxes.iter().map(|b| b.bbox).collect();
        self.next_turn += 1;
        out.push(Request::Ask {
            turn: id,
            picture,
            question: Question {
                boxes,
                text,
                max_tokens: settings.max_tokens,
                sampling: settings.sampling,
                earlier: Vec::new(),
                system,
            },
        });
    }

    fn stop_naming(&mut self, out: &mut Vec<Request>) {
        if let Some((turn, _)) = self.naming.take().and_then(|n| n.running) {
            out.push(Request::Stop { turn });
        }
    }

    /// The usual settings of a request.
    fn settings(&self, request: TurnId) -> Settings {
        Settings {
            max_tokens: self.max_tokens(),
            sampling: Sampling {
                seed: request.0,
                ..self.sampling()
            },
        }
    }

    /// The engine is back, without the picture. A picture whose boxes are known rests until the user asks.
    fn take_back(&mut self, out: &mut Vec<Request>) {
        self.lent = false;
        let granularity = self.granularity;
        let knows = |p: &Picture| p.proposals.contains_key(&granularity);
        let is_known = self.session.picture.as_ref().is_some_and(knows);
        self.resting = is_known && self.is_idle();
        self.request_look(out);
        self.send_queued(out);
    }

    /// Sends the queued question, or asks for the next name, if the model is loaded and the boxes are known.
    fn send_queued(&mut self, out: &mut Vec<Request>) {
        let ready = matches!(self.model, Model::Ready(_)) && !self.lent;
        let Some(picture) = &self.session.picture else {
            return;
        };
        let is_looked = picture.look == LookState::Done && self.engine_holds == Some(picture.id);
        if !ready || !is_looked {
            return;
        }
        let picture = picture.id;
        let candidates = Arc::clone(&self.candidates);
        let request = self.active().map_or(TurnId(0), |turn| turn.request);
        let usual = self.settings(request);
        let place = self.session.turns.iter().position(|t| !t.phase.ended());
        let Some(place) = place else {
            self.send_name(out);
            return;
        };
        let turn = &mut self.session.turns[place];
        if turn.phase != Phase::Queued {
            return;
        }
        let boxes = Arc::clone(turn.boxes.get_or_insert(candidates));
        let earlier = self.exchanges_before(place, &boxes);
        let system = self.session.choices.system.clone();
        let turn = &mut self.session.turns[place];
        let boxes = boxes.boxes.iter().map(|b| b.bbox).collect();
        let settings = turn.planned.take().unwrap_or(usual);
        turn.settings = Some(settings);
        turn.phase = Phase::Looking;
        out.push(Request::Ask {
            turn: turn.request,
            picture,
            question: Question {
                boxes,
                text: turn.question.clone(),
                max_tokens: settings.max_tokens,
                sampling: settings.sampling,
                earlier,
                system,
            },
        });
    }

    /// Queues the running question again, under a new number: the engine may still send events of the
    /// old one.
    fn requeue(&mut self, out: &mut Vec<Request>) {
        let next = TurnId(self.next_turn);
        let Some(turn) = self.active_mut() else {
            return;
        };
        if turn.phase == Phase::Queued {
            return;
        }
        if !turn.stopping {
            out.push(Request::Stop { turn: turn.request });
        }
        turn.request = next;
        turn.phase = Phase::Queued;
        turn.stopping = false;
        turn.extending = false;
        turn.spans.clear();
        turn.boxes = None;
        self.next_turn += 1;
    }

    /// Another model proposes other boxes. The shown ones stay until they are replaced.
    fn drop_hidden_boxes(&mut self) {
        let sessions = [Some(&mut self.session), self.previous.as_mut()];
        for picture in sessions.into_iter().flatten().flat_map(|s| &mut s.picture) {
            picture.proposals.retain(|&g, _| g == self.granularity);
            picture.boxes.forget_proposals();
        }
    }

    fn stop(&mut self, out: &mut Vec<Request>) {
        self.stop_naming(out);
        let Some(turn) = self.active_mut() else {
            return;
        };
        if turn.phase == Phase::Queued {
            turn.stop_queued();
        } else if !turn.stopping {
            turn.stopping = true;
            out.push(Request::Stop { turn: turn.request });
        }
    }

    /// The turn of the previous picture gets no more replies, so it ends.
    fn end_previous(&mut self) {
        let turns = self.previous.iter_mut().flat_map(|s| &mut s.turns);
        for turn in turns.filter(|turn| !turn.phase.ended()) {
            turn.phase = Phase::Stopped;
            turn.stopping = false;
            turn.extending = false;
        }
    }

    fn lose_engine(&mut self) {
        self.comparison = None;
        self.compares_later = false;
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
        if let Some(turn) = self.active_mut() {
            turn.phase = Phase::Failed(fault.clone());
            turn.stopping = false;
            turn.extending = false;
        }
    }

    fn picture_mut(&mut self, id: PictureId) -> Option<&mut Picture> {
        self.session.picture.as_mut().filter(|p| p.id == id)
    }

    fn running_mut(&mut self, id: TurnId) -> Option<&mut Turn> {
        let turn = self.active_mut()?;
        (turn.request == id && turn.phase != Phase::Queued).then_some(turn)
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
                let BoxEdits { own, removed, .. } = picture.edits();
                let mut chosen =
                    Candidates::choose(proposals, granularity, own, removed, self.filter);
                chosen.name(&picture.names);
                chosen
            }
        };
        if *self.candidates != next {
            self.candidates = Arc::new(next);
        }
    }
}

/// Characters of spans.
fn length(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.text.len()).sum()
}

/// The name in the answer to "what is this box": its words without the mark of the box and the full stop.
fn name_of(spans: &[Span]) -> String {
    let words = spans.iter().map(|span| span.text.as_str());
    let words = words.filter(|text| !text.trim().starts_with('['));
    let name = words.collect::<String>().replace(['\n', '\t'], " ");
    let name = name.trim().trim_end_matches(['.', ',', ';', ':']).trim();
    name.chars().take(NAME_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
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
                ..Span::default()
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
                    ..Span::default()
                }],
                tokens: 1,
                prefill_tokens: 1,
                question_tokens: 0,
                gpu_bytes: None,
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
            Request::Links { turn } => format!("links {}", turn.0),
            Request::Compare { turn, boxes, .. } => {
                format!("compare {} with {}", turn.0, boxes.len())
            }
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
    fn the_links_of_an_answer_are_requested_once_it_is_complete() {
        let mut conversation = run(answered());
        let spans = vec![Span {
            text: "a".into(),
            objects: vec![1],
            ..Span::default()
        }];
        let Input::Event(Event::Done { turn, mut answer }) = done(0, "a", StopReason::End) else {
            unreachable!("an answer");
        };
        answer.spans = spans;
        let mut slow = answer.clone();
        slow.milliseconds.decode = 150.0 * f64::from(slow.tokens.max(1));
        let late = Input::Event(Event::Done { turn, answer: slow });
        assert!(conversation.clone().step(late).is_empty());
        let requests = conversation.step(Input::Event(Event::Done { turn, answer }));
        assert_eq!(summary(&requests), "links 0");
        let link = Link {
            object: 1,
            probability: 0.9,
            runner_up: None,
        };
        for (turn, known) in [(7, 0), (0, 1)] {
            let (turn, links) = (TurnId(turn), vec![link]);
            conversation.step(Input::Event(Event::Links { turn, links }));
            assert_eq!(conversation.turns()[0].certainty.len(), known);
        }
    }

    #[test]
    fn boxes_are_compared_once_and_a_failure_allows_another_request() {
        let mut conversation = run(answered()[..4].to_vec());
        let mut compare = |expected: &str| {
            assert_eq!(summary(&conversation.step(Input::Compare)), expected);
        };
        compare("compare 0 with 2");
        compare("");
        conversation.step(failed(Some(0), Some(A)));
        assert_eq!(
            summary(&conversation.step(Input::Compare)),
            "compare 1 with 2"
        );
        let likeness = vec![vec![1.0, 0.5], vec![0.5, 1.0]];
        for turn in [0, 1].map(TurnId) {
            let likeness = likeness.clone();
            conversation.step(Input::Event(Event::Compared { turn, likeness }));
            assert_eq!(conversation.likeness().is_some(), turn == TurnId(1));
        }
        let ids: Vec<BoxId> = conversation
            .candidates()
            .boxes
            .iter()
            .map(|b| b.id)
            .collect();
        let alike = conversation.likeness().map(|known| known.to(ids[0]));
        assert_eq!(alike, Some(vec![(ids[1], 0.5)]));
        assert!(conversation.step(Input::Compare).is_empty());
        conversation.step(Input::Draw([0.0, 0.0, 5.0, 5.0].into()));
        assert!(conversation.likeness().is_none());
        assert_eq!(
            summary(&conversation.step(Input::Compare)),
            "compare 2 with 3"
        );
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
        let erase = BoxChange::Remove(vec![BoxId::Own(0)]);
        let reshape = BoxChange::Reshape {
            id: BoxId::Own(1),
            bbox: [6., 6., 9., 9.].into(),
            continues: false,
        };
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (Input::Draw(bbox), "", "done"),
            (Input::Draw(bbox), "", "done"),
            (Input::Boxes(erase), "", "done"),
            (Input::Boxes(reshape), "", "done"),
            (ask("[2]"), "ask 1 about 1 with 3", "done looking"),
        ]);
        let after = run(table);
        assert_eq!(after.candidates().boxes[2].id, BoxId::Own(1));
        assert_eq!(after.candidates().boxes[2].bbox.x1, 6.);
    }

    #[test]
    fn changes_of_boxes_belong_to_their_picture_and_can_be_taken_back() {
        let mut conversation = Conversation::default();
        for input in [load(), ready(), open(A), proposed(A, Granularity::Coarse)] {
            conversation.step(input);
        }
        let found = |rank| BoxId::Found(Granularity::Coarse, rank);
        let (first, second) = (found(0), found(1));
        let bbox = BoxXyxy::from([5., 5., 9., 9.]);
        let reshape = |id| BoxChange::Reshape {
            id,
            bbox,
            continues: false,
        };
        let own = BoxId::Own(0);
        let steps = [
            (reshape(first), vec![second, own]),
            (reshape(found(2)), vec![second, own]),
            (BoxChange::Remove(vec![second]), vec![own]),
            (BoxChange::Hide(vec![own]), vec![own]),
            (BoxChange::Undo, vec![own]),
            (BoxChange::Undo, vec![second, own]),
            (BoxChange::Undo, vec![first, second]),
            (BoxChange::Undo, vec![first, second]),
            (BoxChange::Redo, vec![second, own]),
            (BoxChange::Restore, vec![first, second, own]),
        ];
        for (change, expected) in steps {
            let words = format!("{change:?}");
            conversation.step(Input::Boxes(change));
            let ids: Vec<_> = (conversation.candidates().boxes.iter())
                .map(|b| b.id)
                .collect();
            assert_eq!(ids, expected, "{words}");
        }
        conversation.step(open(B));
        conversation.step(Input::Boxes(BoxChange::Undo));
        assert!(conversation.candidates().boxes.is_empty());
        conversation.step(Input::Reopen);
        let picture = conversation.picture().expect("is back");
        assert!(picture.can_undo() && !picture.can_redo());
        assert_eq!(picture.own(0), Some(bbox));
        assert_eq!(picture.scores(Granularity::Coarse), [0.9, 0.6, 0.1]);
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

    #[test]
    fn a_question_is_asked_again_in_its_place_and_other_words_are_kept() {
        let mut table = answered();
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (ask("b?"), "ask 1 about 1 with 2", "done looking"),
            (done(1, "b", StopReason::End), "", "done done"),
            (
                Input::Retry(TurnId(0)),
                "ask 2 about 1 with 2",
                "looking done",
            ),
            (ask("no"), "", "looking done"),
            (said(0, "late"), "", "looking done"),
            (done(2, "a", StopReason::End), "", "done done"),
        ]);
        let mut after = run(table);
        let turn = &after.turns()[0];
        assert_eq!((turn.versions(), turn.id), (1, TurnId(0)), "the same words");
        let requests = after.step(Input::Retry(TurnId(0)));
        let [Request::Ask { turn, question, .. }] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!(question.sampling.temperature, OTHER_WORDING);
        assert_eq!(question.sampling.seed, turn.0);
        after.step(done(3, "z", StopReason::End));
        let texts = |c: &Conversation| {
            let turn = &c.turns()[0];
            (turn.version, turn.versions(), turn.spans[0].text.clone())
        };
        assert_eq!(texts(&after), (1, 2, "z".into()));
        after.step(Input::Version(TurnId(0), 0));
        assert_eq!(texts(&after), (0, 2, "a".into()));
        after.step(Input::Version(TurnId(0), 7));
        assert_eq!(texts(&after), (0, 2, "a".into()));
        after.step(Input::Retry(TurnId(0)));
        after.step(Input::Stop);
        after.step(done(4, "", StopReason::Stopped));
        after.step(Input::Version(TurnId(0), 1));
        assert_eq!(texts(&after).2, "z", "both answers are still there");
        assert_eq!(after.latest().map(|t| t.id), Some(TurnId(0)));
        let greedy = Sampling::default();
        assert!(after.turns()[0].rewords(greedy));
        let other = Input::Load {
            model: "another".into(),
            device: DevicePreference::Auto,
        };
        after.step(other);
        assert!(!after.turns()[0].rewords(greedy));
    }

    #[test]
    fn an_edited_question_drops_the_later_turns_until_undone() {
        let mut table = answered();
        let edited = Draft::new(QuestionKind::Count, "cats");
        table.extend([
            (done(0, "a", StopReason::End), "", "done"),
            (ask("b?"), "ask 1 about 1 with 2", "done looking"),
            (done(1, "b", StopReason::End), "", "done done"),
            (
                Input::Edit(TurnId(0), edited.clone()),
                "ask 2 about 1 with 2",
                "looking",
            ),
            (Input::UndoEdit, "stop 2", "done done"),
            (done(2, "late", StopReason::Stopped), "", "done done"),
            (Input::UndoEdit, "", "done done"),
            (
                Input::Edit(TurnId(1), edited.clone()),
                "ask 3 about 1 with 2",
                "done looking",
            ),
            (done(3, "two", StopReason::End), "", "done done"),
            (Input::KeepEdit, "", "done done"),
            (Input::UndoEdit, "", "done done"),
            (Input::Edit(TurnId(9), edited.clone()), "", "done done"),
        ]);
        let after = run(table);
        let last = &after.turns()[1];
        assert_eq!((&last.draft, last.shown.as_str()), (&edited, "Count cats"));
        assert_eq!(after.last_edit(), None);
        let mut after = after;
        after.step(Input::Edit(TurnId(3), edited.clone()));
        assert_eq!(after.last_edit(), Some(TurnId(4)));
        after.step(done(4, "three", StopReason::End));
        after.step(Input::Edit(TurnId(4), edited));
        assert_eq!(
            after.last_edit(),
            Some(TurnId(5)),
            "a new edit, a new while"
        );
    }

    #[test]
    fn an_answer_at_the_length_limit_goes_on_with_the_same_seed_and_a_higher_limit() {
        let mut table = answered();
        table.extend([(done(0, "one two", StopReason::Length), "", "done")]);
        let mut after = run(table);
        let before = after.turns()[0].settings.expect("was sent");
        let requests = after.step(Input::Continue(TurnId(0)));
        let [Request::Ask { question, .. }] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!(question.max_tokens, 1024);
        assert_eq!(question.sampling, before.sampling);
        let text = |c: &Conversation| c.turns()[0].spans[0].text.clone();
        after.step(said(1, "one"));
        assert_eq!(text(&after), "one two", "the words so far stay");
        after.step(said(1, "one two three"));
        assert_eq!(text(&after), "one two three");
        after.step(done(1, "one two three.", StopReason::End));
        assert_eq!(
            (text(&after).as_str(), after.turns()[0].versions()),
            ("one two three.", 1)
        );
        assert!(after.step(Input::Continue(TurnId(0))).is_empty());
    }

    #[test]
    fn the_limit_of_an_answer_can_be_chosen() {
        let mut after = run(answered());
        for (limit, expected) in [
            (Some(3), 16),
            (Some(100), 100),
            (Some(9999), 2048),
            (None, 512),
        ] {
            after.step(Input::Choose(Choices {
                max_tokens: limit,
                ..Choices::default()
            }));
            assert_eq!(after.max_tokens(), expected);
        }
    }

    #[test]
    fn every_box_is_named_until_stopped() {
        let mut table = answered();
        table.extend([
            (Input::NameAll, "", "streaming"),
            (done(0, "a", StopReason::End), "", "done"),
            (Input::NameAll, "ask 1 about 1 with 2", "done"),
            (ask("waits?"), "", "done"),
            (said(1, "c"), "", "done"),
            (
                done(1, " a cat. ", StopReason::End),
                "ask 2 about 1 with 2",
                "done",
            ),
            (failed(Some(2), None), "", "done"),
            (ask("now"), "ask 3 about 1 with 2", "done looking"),
            (done(3, "x", StopReason::End), "", "done done"),
            (Input::NameAll, "ask 4 about 1 with 2", "done done"),
            (Input::Stop, "stop 4", "done done"),
            (done(4, "late", StopReason::Stopped), "", "done done"),
        ]);
        let after = run(table);
        let labels: Vec<_> = after
            .candidates()
            .boxes
            .iter()
            .map(|b| b.label.as_deref())
            .collect();
        assert_eq!(labels, [Some("a cat"), None]);
        assert_eq!(after.naming(), None);
        let mut after = after;
        after.step(Input::NameAll);
        assert_eq!(after.naming(), Some((0, 2)));
        after.step(Input::Lost(fault()));
        assert_eq!(after.naming(), None);
    }

    #[test]
    fn links_of_the_user_stand_beside_those_of_the_model() {
        let mut after = run(answered());
        let spans = vec![Span {
            text: "cat".into(),
            objects: vec![0],
            open: false,
        }];
        after.step(Input::Event(Event::Said {
            turn: TurnId(0),
            spans: spans.clone(),
        }));
        after.step(Input::Relink(TurnId(0), 0, Some(vec![1])));
        assert!(after.turns()[0].links.is_empty(), "not while it is written");
        after.step(Input::Event(Event::Done {
            turn: TurnId(0),
            answer: Answer {
                prompt: String::new(),
                text: String::new(),
                spans: spans.clone(),
                tokens: 1,
                prefill_tokens: 1,
                question_tokens: 0,
                gpu_bytes: None,
                stop: StopReason::End,
                milliseconds: AskTime::default(),
            },
        }));
        after.step(Input::Relink(TurnId(0), 0, Some(vec![1])));
        let phrase = |c: &Conversation| match c.turns()[0].pieces().remove(0) {
            AnswerPiece::Phrase(phrase) => (phrase.objects, phrase.edited),
            AnswerPiece::Text(text) => panic!("{text}"),
        };
        assert_eq!(phrase(&after), (vec![1], true));
        assert_eq!(after.turns()[0].spans, spans, "the model's words stay");
        after.step(Input::Relink(TurnId(0), 0, None));
        assert_eq!(phrase(&after), (vec![0], false));
    }
}
