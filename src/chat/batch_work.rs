//! The work on one picture of a batch: a conversation beside the one on the screen, on the same engine.
//!
//! Rules. Pictures and requests of batches have numbers from [`FIRST`] on, so that no reply is taken for
//! one to the user. An answer that names boxes is complete once it is known how sure the model was of
//! them.

use crate::chat::batch::Task;
use crate::chat::batch_result::Outcome;
use crate::chat::conversation::{Conversation, Input, LookState, Phase};
use crate::chat::history::Snapshot;
use crate::chat::question::QuestionKind;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::progress::Stage;
use crate::protocol::{Event, ImageSize, PictureId, Request, TurnId};

/// The first number of a picture or request of a batch.
pub const FIRST: u32 = 1 << 30;

/// The work on a picture.
#[derive(Clone, Debug)]
pub struct Work {
    conversation: Conversation,
    task: Task,
    is_naming: bool,
    /// The answer whose links are still to come.
    links: Option<TurnId>,
}

/// How far the work is.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkState {
    /// It goes on.
    Going,
    /// It is complete.
    Answered(Box<Outcome>),
    /// It failed.
    Failed(Fault),
}

impl Work {
    /// Begins with a picture; returns the requests for the engine. `screen` is the conversation on the
    /// screen, `next` the number of the next request.
    pub fn begin(
        screen: &Conversation,
        next: TurnId,
        picture: PictureId,
        size: ImageSize,
        task: Task,
    ) -> (Self, Vec<Request>) {
        let mut work = Self {
            conversation: screen.beside(TurnId(next.0.max(FIRST))),
            task,
            is_naming: false,
            links: None,
        };
        let mut requests = work.step(Input::Open { picture, size });
        if let Some(draft) = work.task.draft() {
            requests.extend(work.step(Input::AskDraft(draft)));
        }
        (work, requests)
    }

    /// The number of the next request.
    pub fn next_turn(&self) -> TurnId {
        self.conversation.next_turn()
    }

    /// Applies an event of the engine; returns the requests that follow.
    pub fn on_event(&mut self, event: Event) -> Vec<Request> {
        if let Event::Links { turn, .. }
        | Event::Failed {
            turn: Some(turn), ..
        } = &event
        {
            self.links.take_if(|links| links == turn);
        }
        let mut requests = self.step(Input::Event(event));
        let looked = self.conversation.picture().map(|p| &p.look) == Some(&LookState::Done);
        if self.task.draft().is_none() && looked && !self.is_naming {
            self.is_naming = true;
            requests.extend(self.step(Input::NameAll));
        }
        requests
    }

    /// The requests that stop it.
    pub fn stop(&mut self) -> Vec<Request> {
        self.step(Input::Stop)
    }

    fn step(&mut self, input: Input) -> Vec<Request> {
        let requests = self.conversation.step(input);
        for request in &requests {
            if let Request::Links { turn } = request {
                self.links = Some(*turn);
            }
        }
        requests
    }

    /// How far it is; `name` is that of the picture.
    pub fn state(&self, name: &str) -> WorkState {
        let c = &self.conversation;
        let Some(picture) = c.picture() else {
            return WorkState::Going;
        };
        if let LookState::Failed(fault) = &picture.look {
            return WorkState::Failed(fault.clone());
        }
        let is_complete = match c.turns().last().map(|turn| &turn.phase) {
            Some(Phase::Failed(fault)) => return WorkState::Failed(fault.clone()),
            Some(Phase::Stopped) => return WorkState::Failed(stopped(name)),
            Some(phase) => *phase == Phase::Done && self.links.is_none(),
            None => self.is_naming && c.naming().is_none(),
        };
        match Outcome::of(c, name).filter(|_| is_complete) {
            Some(outcome) => WorkState::Answered(Box::new(outcome)),
            None => WorkState::Going,
        }
    }

    /// The conversation as it is kept.
    pub fn snapshot(&self) -> Option<Snapshot> {
        Snapshot::of(&self.conversation, "", QuestionKind::Free)
    }
}

/// Whether an event is about a batch; progress is where `works` is true.
pub fn is_of_batch(event: &Event, works: bool) -> bool {
    match event {
        Event::Progress(progress) => {
            works && matches!(progress.stage, Stage::Propose | Stage::Look | Stage::Read)
        }
        Event::Proposed { picture, .. } => picture.0 >= FIRST,
        Event::Said { turn, .. }
        | Event::Done { turn, .. }
        | Event::Links { turn, .. }
        | Event::Compared { turn, .. } => turn.0 >= FIRST,
        Event::Failed { turn, picture, .. } => {
            turn.is_some_and(|t| t.0 >= FIRST) || picture.is_some_and(|p| p.0 >= FIRST)
        }
        Event::Ready(_) => false,
    }
}

/// Whether a request of the conversation on the screen takes the engine from the batch.
pub fn takes_engine(request: &Request) -> bool {
    matches!(
        request,
        Request::Load { .. } | Request::Look { .. } | Request::Ask { .. } | Request::Compare { .. }
    )
}

fn stopped(name: &str) -> Fault {
    Fault::new(
        FaultKind::Question,
        name,
        "its answer was stopped",
        "Retry it",
    )
    .code(ErrorCode::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::batch::TaskKind;
    use crate::chat::test_data::{after, load, open, proposed, ready};
    use crate::protocol::{Answer, AskTime, Granularity, Link, LookTime, StopReason};
    use crate::text::answer_parser;

    const PICTURE: PictureId = PictureId(FIRST + 3);
    const SIZE: ImageSize = ImageSize {
        width: 100,
        height: 80,
    };

    fn begin(kind: TaskKind) -> (Work, Vec<Request>) {
        let mine = PictureId(1);
        let found = proposed(mine, Granularity::Coarse);
        let screen = after([load(), ready(), open(mine), found]);
        let words = "cat".to_owned();
        Work::begin(&screen, TurnId(0), PICTURE, SIZE, Task { kind, words })
    }

    fn found() -> Event {
        match proposed(PICTURE, Granularity::Coarse) {
            Input::Event(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn done(turn: TurnId, text: &str) -> Event {
        let answer = Answer {
            prompt: String::new(),
            text: text.to_owned(),
            spans: answer_parser::spans(text),
            tokens: 9,
            prefill_tokens: 9,
            question_tokens: 0,
            gpu_bytes: None,
            stop: StopReason::End,
            milliseconds: AskTime::default(),
        };
        Event::Done { turn, answer }
    }

    fn turn_of(requests: &[Request]) -> TurnId {
        match requests {
            [Request::Ask { turn, .. }] => *turn,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_asked_once_the_boxes_are_known_and_ends_with_its_links() {
        let (mut work, requests) = begin(TaskKind::Find);
        assert!(
            matches!(
                requests[..],
                [Request::Look {
                    picture: PICTURE,
                    size: Some(SIZE),
                    ..
                }]
            ),
            "{requests:?}"
        );
        let turn = turn_of(&work.on_event(found()));
        assert_eq!((turn, work.next_turn()), (TurnId(FIRST), TurnId(FIRST + 1)));
        let text = "<ground>cat</ground><objects><obj1></objects>";
        let requests = work.on_event(done(turn, text));
        assert_eq!(requests, [Request::Links { turn }]);
        assert_eq!(work.state("a"), WorkState::Going);
        let link = Link {
            object: 1,
            probability: 0.5,
            runner_up: None,
        };
        let links = vec![link];
        work.on_event(Event::Links { turn, links });
        match work.state("a") {
            WorkState::Answered(outcome) => {
                assert_eq!(outcome.boxes.len(), 1);
                assert!((outcome.certainty() - 0.3).abs() < 1e-6, "{outcome:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(work.snapshot().map(|s| s.turns.len()), Some(1));
    }

    #[test]
    fn every_box_is_named_and_a_picture_without_boxes_is_done_at_once() {
        let (mut work, _) = begin(TaskKind::NameAll);
        let first = turn_of(&work.on_event(found()));
        let second = turn_of(&work.on_event(done(first, "cat")));
        assert_eq!(work.state("a"), WorkState::Going);
        assert_eq!(work.on_event(done(second, "dog")), []);
        match work.state("a") {
            WorkState::Answered(outcome) => {
                let labels = outcome.boxes.iter().map(|b| b.label.as_deref());
                assert_eq!(labels.collect::<Vec<_>>(), [Some("cat"), Some("dog")]);
            }
            other => panic!("{other:?}"),
        }
        let (mut work, _) = begin(TaskKind::NameAll);
        work.on_event(Event::Proposed {
            picture: PICTURE,
            granularity: Granularity::Coarse,
            boxes: Vec::new(),
            milliseconds: LookTime::default(),
        });
        assert!(matches!(work.state("a"), WorkState::Answered(o) if o.boxes.is_empty()));
    }

    #[test]
    fn failures_of_picture_and_question_end_the_work() {
        let fault = Fault::new(FaultKind::Picture, "that picture", "it is too wide", "");
        let failed = |turn, picture| Event::Failed {
            turn,
            picture,
            fault: fault.clone(),
        };
        let (mut work, _) = begin(TaskKind::Describe);
        work.on_event(failed(None, Some(PICTURE)));
        assert_eq!(work.state("a"), WorkState::Failed(fault.clone()));
        let (mut work, _) = begin(TaskKind::Describe);
        let turn = turn_of(&work.on_event(found()));
        assert_eq!(work.stop(), [Request::Stop { turn }]);
        work.on_event(failed(Some(turn), None));
        assert_eq!(work.state("a"), WorkState::Failed(fault.clone()));
        for (event, works, expected) in [
            (failed(Some(turn), None), false, true),
            (failed(None, Some(PICTURE)), false, true),
            (failed(None, None), true, false),
            (failed(Some(TurnId(4)), None), true, false),
            (found(), false, true),
            (done(TurnId(4), ""), true, false),
        ] {
            assert_eq!(is_of_batch(&event, works), expected, "{event:?}");
        }
    }
}
