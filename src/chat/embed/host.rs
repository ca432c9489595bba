//! State machine of the page towards its host: requests go in and the state of the page is compared with
//! what was told; effects come out.
//!
//! Rules. Questions wait in order until the picture before them is open and the answer before them has
//! ended. Every request with an outcome gets one reply that is not `progress`. What the visitor does is
//! told with the id null.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::message::{self, Command, Refused, refused};
use super::question::{Asked, are_inside};
use crate::chat::candidates::{BoxId, Candidates, Filter};
use crate::chat::conversation::{Conversation, LookState, Model, Phase, Turn};
use crate::chat::question::QuestionKind;
use crate::error::{ErrorCode, Fault};
use crate::progress::Progress;
use crate::protocol::{Granularity, PictureId, TurnId};

/// Most questions that wait.
const MAX_WAITING: usize = 32;

/// What the page does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message to the host.
    Post(Value),
    /// Open the picture that the message brought, else that at `url`, and report it by [`Host::opened`].
    Open {
        /// The request.
        id: Value,
        /// Its address.
        url: Option<String>,
        /// Name of its file.
        name: String,
    },
    /// Take the boxes over and ask [`super::question::draft`].
    Ask(Asked),
    /// Choose other boxes.
    Propose {
        /// The granularity.
        granularity: Granularity,
        /// The thresholds.
        filter: Filter,
    },
    /// Select these boxes.
    Select(Vec<BoxId>),
    /// Stop the running answer.
    Stop,
    /// Send the current picture.
    SendPicture(Value),
}

/// The state of the page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The conversation.
    pub conversation: &'a Conversation,
    /// The selected boxes.
    pub selection: &'a BTreeSet<BoxId>,
    /// A failure outside model and turns.
    pub notice: Option<&'a Fault>,
}

/// A picture that the host sent.
#[derive(Clone, Debug, PartialEq)]
enum Loading {
    /// It is being decoded.
    Opening(Value),
    /// Its boxes are being found.
    Looking(Value, PictureId),
}

/// What was told about a turn.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    id: Value,
    request: TurnId,
    letters: usize,
    has_ended: bool,
}

/// What the host asked for, and what it knows.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The request whose reply is that the model is loaded, and the model that was told.
    greeting: Option<Value>,
    model: Option<String>,
    loading: Option<Loading>,
    proposing: Option<(Value, Granularity)>,
    waiting: VecDeque<Asked>,
    /// The question that becomes the next turn.
    asked: Option<Value>,
    turns: BTreeMap<u32, Told>,
    boxes: Option<(PictureId, Arc<Candidates>)>,
    selection: Vec<u32>,
    stage: Option<(&'static str, u64, u64)>,
    faults: (Option<Fault>, Option<Fault>, Option<Fault>),
}

impl Host {
    /// Carries out a message, or refuses it.
    pub fn receive(
        &mut self,
        message: Result<(Value, Command), Refused>,
        page: Page<'_>,
    ) -> Vec<Effect> {
        match message {
            Ok((id, command)) => self.command(id, command, page),
            Err(refusal) => vec![refuse(refusal)],
        }
    }

    fn command(&mut self, id: Value, command: Command, page: Page<'_>) -> Vec<Effect> {
        let has_picture = page.conversation.picture().is_some();
        let not_ready = |id| {
            vec![refuse(refused(
                id,
                ErrorCode::NotReady,
                "there is no picture yet",
            ))]
        };
        match command {
            Command::Hello => {
                self.greeting = Some(id);
                (self.model, self.stage) = (None, None);
                let mut out = self.compare(page);
                if out.is_empty() {
                    out.push(Effect::Post(message::progress(&Value::Null, "load", 0, 0)));
                }
                out
            }
            Command::Load { url, name } => {
                let mut out = self.drop_loading(ErrorCode::Cancelled, "another picture followed");
                self.loading = Some(Loading::Opening(id.clone()));
                out.push(Effect::Open { id, url, name });
                out
            }
            Command::Ask { .. } if !has_picture && self.loading.is_none() => not_ready(id),
            Command::Ask { .. } if self.waiting.len() >= MAX_WAITING => {
                let what = "too many questions wait";
                vec![refuse(refused(id, ErrorCode::InUse, what))]
            }
            Command::Ask {
                question,
                kind,
                boxes,
            } => match kind
                .as_deref()
                .map_or(Some(QuestionKind::Free), QuestionKind::of_key)
            {
                None => {
                    let what = "there is no such kind of question";
                    vec![refuse(refused(id, ErrorCode::InvalidInput, what))]
                }
                Some(kind) => {
                    let boxes = boxes.unwrap_or_default();
                    let asked = Asked {
                        id,
                        question,
                        kind,
                        boxes,
                    };
                    self.waiting.push_back(asked);
                    self.compare(page)
                }
            },
            Command::Propose { .. } if !has_picture => not_ready(id),
            Command::Propose {
                granularity,
                score,
                nms,
            } => {
                let granularity = granularity.unwrap_or(page.conversation.granularity());
                let now = page.conversation.filter();
                let filter = Filter {
                    score: score.unwrap_or(now.score),
                    nms: nms.unwrap_or(now.nms),
                    first_of_kind: now.first_of_kind.filter(|_| score.is_none()),
                };
                let mut out = Vec::new();
                if let Some((earlier, _)) = self.proposing.replace((id, granularity)) {
                    let what = "another request for boxes followed";
                    out.push(refuse(refused(earlier, ErrorCode::Cancelled, what)));
                }
                out.push(Effect::Propose {
                    granularity,
                    filter,
                });
                out
            }
            Command::Select { boxes } => {
                let candidates = page.conversation.candidates();
                let known = boxes
                    .iter()
                    .filter_map(|&number| Some(candidates.get(number)?.id));
                let known: Vec<_> = known.collect();
                if known.len() < boxes.len() {
                    let what = "a number is not that of a box";
                    return vec![refuse(refused(id, ErrorCode::InvalidInput, what))];
                }
                let mut numbers = boxes;
                numbers.sort_unstable();
                numbers.dedup();
                let reply = message::select(&id, &numbers);
                self.selection = numbers;
                vec![Effect::Select(known), Effect::Post(reply)]
            }
            Command::Stop => vec![Effect::Stop],
            Command::Picture if !has_picture => not_ready(id),
            Command::Picture => vec![Effect::SendPicture(id)],
        }
    }

    /// The picture of the request `id` was opened, or why it was not.
    pub fn opened(
        &mut self,
        id: &Value,
        outcome: Result<PictureId, Fault>,
        page: Page<'_>,
    ) -> Vec<Effect> {
        if self.loading != Some(Loading::Opening(id.clone())) {
            return Vec::new();
        }
        match outcome {
            Ok(picture) => {
                self.loading = Some(Loading::Looking(id.clone(), picture));
                self.compare(page)
            }
            Err(fault) => {
                self.loading = None;
                self.faults.0 = page.notice.cloned();
                let mut out = vec![Effect::Post(message::error(id, &fault))];
                // Without a picture the questions after it have nothing to ask about.
                if page.conversation.picture().is_none() {
                    out.extend(self.waiting.drain(..).map(|asked| {
                        refuse(refused(
                            asked.id,
                            ErrorCode::NotReady,
                            "there is no picture",
                        ))
                    }));
                }
                out.extend(self.compare(page));
                out
            }
        }
    }

    /// Tells what differs from what was told, and asks the next question once it can be asked.
    pub fn compare(&mut self, page: Page<'_>) -> Vec<Effect> {
        let mut out = Vec::new();
        self.compare_model(page, &mut out);
        self.compare_boxes(page, &mut out);
        self.compare_turns(page, &mut out);
        self.compare_selection(page, &mut out);
        if self.faults.0.as_ref() != page.notice {
            self.faults.0 = page.notice.cloned();
            let told = page.notice.map(|fault| message::error(&Value::Null, fault));
            out.extend(told.map(Effect::Post));
        }
        let is_free = !matches!(self.loading, Some(Loading::Opening(_))) && self.asked.is_none();
        while is_free
            && page.conversation.can_ask()
            && let Some(asked) = self.waiting.pop_front()
        {
            if !are_inside(&asked.boxes, page.conversation) {
                let what = "a box is not in the picture";
                out.push(refuse(refused(asked.id, ErrorCode::InvalidInput, what)));
                continue;
            }
            self.asked = Some(asked.id.clone());
            out.push(Effect::Ask(asked));
            break;
        }
        out
    }

    /// A question could not be asked.
    pub fn refused(&mut self, fault: &Fault) -> Vec<Effect> {
        let id = self.asked.take();
        id.map(|id| Effect::Post(message::error(&id, fault)))
            .into_iter()
            .collect()
    }

    fn compare_model(&mut self, page: Page<'_>, out: &mut Vec<Effect>) {
        match page.conversation.model() {
            Model::Absent => {}
            Model::Loading(progress) => self.tell_stage(("load", *progress), &Value::Null, out),
            Model::Ready(card) => {
                self.faults.1 = None;
                let model = format!("{} {}", card.asked_for, card.device);
                if self.model.as_ref() != Some(&model) {
                    self.model = Some(model);
                    let id = self.greeting.take().unwrap_or_default();
                    out.push(Effect::Post(message::ready(&id, card)));
                }
            }
            Model::Failed(fault) if self.faults.1.as_ref() == Some(fault) => {}
            Model::Failed(fault) => {
                self.faults.1 = Some(fault.clone());
                self.model = None;
                out.push(Effect::Post(message::error(&Value::Null, fault)));
                out.extend(self.fail_boxes(fault));
            }
        }
    }

    fn compare_boxes(&mut self, page: Page<'_>, out: &mut Vec<Effect>) {
        let conversation = page.conversation;
        let Some(picture) = conversation.picture() else {
            if self.boxes.take().is_some() {
                let none = message::boxes(&Value::Null, None, &Candidates::default());
                out.push(Effect::Post(none));
            }
            return;
        };
        let id = self.boxes_id(picture.id).cloned().unwrap_or_default();
        match &picture.look {
            LookState::Waiting => {}
            LookState::Looking(progress) => self.tell_stage(("look", *progress), &id, out),
            LookState::Failed(fault) if self.faults.2.as_ref() == Some(fault) => {}
            LookState::Failed(fault) => {
                self.faults.2 = Some(fault.clone());
                let pending = self.fail_boxes(fault);
                if pending.is_empty() {
                    out.push(Effect::Post(message::error(&Value::Null, fault)));
                }
                out.extend(pending);
            }
            LookState::Done => {
                self.faults.2 = None;
                let candidates = conversation.candidates();
                let is_same = self.boxes.as_ref().is_some_and(|(known, boxes)| {
                    *known == picture.id && (Arc::ptr_eq(boxes, candidates) || boxes == candidates)
                });
                let is_asked = self.take_boxes_id(picture.id, conversation.granularity());
                if !is_same || is_asked.is_some() {
                    self.boxes = Some((picture.id, Arc::clone(candidates)));
                    let id = is_asked.unwrap_or_default();
                    let told = message::boxes(&id, Some(picture.size), candidates);
                    out.push(Effect::Post(told));
                }
            }
        }
    }

    /// The request that waits for the boxes of a picture.
    fn boxes_id(&self, picture: PictureId) -> Option<&Value> {
        match (&self.loading, &self.proposing) {
            (Some(Loading::Looking(id, of)), _) if *of == picture => Some(id),
            (_, Some((id, _))) => Some(id),
            _ => None,
        }
    }

    /// The same, and it waits no longer.
    fn take_boxes_id(&mut self, picture: PictureId, granularity: Granularity) -> Option<Value> {
        match (&self.loading, &self.proposing) {
            (Some(Loading::Looking(id, of)), _) if *of == picture => {
                let id = id.clone();
                self.loading = None;
                Some(id)
            }
            (_, Some((_, wanted))) if *wanted == granularity => {
                self.proposing.take().map(|(id, _)| id)
            }
            _ => None,
        }
    }

    /// The requests that wait for boxes fail.
    fn fail_boxes(&mut self, fault: &Fault) -> Vec<Effect> {
        let loading = match self.loading.take() {
            Some(Loading::Looking(id, _)) => Some(id),
            other => {
                self.loading = other;
                None
            }
        };
        let proposing = self.proposing.take().map(|(id, _)| id);
        let ids = loading.into_iter().chain(proposing);
        ids.map(|id| Effect::Post(message::error(&id, fault)))
            .collect()
    }

    fn drop_loading(&mut self, code: ErrorCode, what: &str) -> Vec<Effect> {
        let id = self.loading.take().map(|loading| match loading {
            Loading::Opening(id) | Loading::Looking(id, _) => id,
        });
        id.map(|id| refuse(refused(id, code, what)))
            .into_iter()
            .collect()
    }

    fn compare_turns(&mut self, page: Page<'_>, out: &mut Vec<Effect>) {
        for turn in page.conversation.turns() {
            let told = self.turns.entry(turn.id.0).or_insert_with(|| Told {
                id: self.asked.take().unwrap_or_default(),
                request: turn.request,
                letters: 0,
                has_ended: false,
            });
            if told.request != turn.request {
                // It is asked again, by the visitor.
                *told = Told {
                    id: Value::Null,
                    request: turn.request,
                    letters: 0,
                    has_ended: false,
                };
            }
            if !told.has_ended {
                out.extend(tell(told, turn).map(Effect::Post));
            }
        }
        let is_there = |id: &u32| {
            page.conversation
                .turns()
                .iter()
                .any(|turn| turn.id.0 == *id)
        };
        let gone: Vec<_> = self
            .turns
            .keys()
            .copied()
            .filter(|id| !is_there(id))
            .collect();
        for id in gone {
            let told = self
                .turns
                .remove(&id)
                .filter(|told| !told.has_ended && !told.id.is_null());
            let what = "the question was removed";
            out.extend(told.map(|told| refuse(refused(told.id, ErrorCode::Cancelled, what))));
        }
    }

    fn compare_selection(&mut self, page: Page<'_>, out: &mut Vec<Effect>) {
        let candidates = page.conversation.candidates();
        let mut numbers: Vec<_> = page
            .selection
            .iter()
            .filter_map(|&id| candidates.number(id))
            .collect();
        numbers.sort_unstable();
        if numbers != self.selection {
            out.push(Effect::Post(message::select(&Value::Null, &numbers)));
            self.selection = numbers;
        }
    }

    fn tell_stage(
        &mut self,
        (stage, progress): (&'static str, Option<Progress>),
        id: &Value,
        out: &mut Vec<Effect>,
    ) {
        let (done, total) = progress.map_or((0, 0), |p| (p.done, p.total));
        if self.stage != Some((stage, done, total)) {
            self.stage = Some((stage, done, total));
            out.push(Effect::Post(message::progress(id, stage, done, total)));
        }
    }
}

/// What is new about a turn that had not ended.
fn tell(told: &mut Told, turn: &Turn) -> Option<Value> {
    match &turn.phase {
        Phase::Done | Phase::Stopped => {
            told.has_ended = true;
            Some(message::answer(&told.id, turn))
        }
        Phase::Failed(fault) => {
            told.has_ended = true;
            Some(message::error(&told.id, fault))
        }
        Phase::Streaming => {
            let letters = turn.spans.iter().map(|span| span.text.len()).sum();
            let is_new = letters != told.letters;
            told.letters = letters;
            is_new.then(|| message::partial(&told.id, turn))
        }
        Phase::Queued | Phase::Looking | Phase::Reading(_) => None,
    }
}

fn refuse(Refused { id, fault }: Refused) -> Effect {
    Effect::Post(message::error(&id, &fault))
}

#[cfg(test)]
mod tests;
