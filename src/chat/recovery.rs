//! Recovery of a lost worker: when a new one starts, and what the page shows meanwhile.
//!
//! Rules. A worker is replaced without asking only if its engine had loaded a model, and not where
//! the model is too large: the next worker would fail in the same way. The GPU of a worker cannot be
//! opened a second time, so a fault of the device needs a new worker.

use crate::chat::conversation::{LookState, Model, Phase, Picture};
use crate::chat::model_manager::Choice;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::protocol::Event;

/// What the page shows about the recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing: no worker was lost, or the user dismissed it.
    #[default]
    None,
    /// A new worker loads the model after a fault of the GPU.
    Restoring,
    /// A new worker loads the model after the worker stopped.
    Restarting,
    /// The model is loaded again.
    Restored,
}

/// What was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The GPU of the worker.
    Device,
    /// The worker itself.
    Worker,
}

/// Where a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadIn {
    /// In the running worker.
    RunningWorker,
    /// In a new worker.
    NewWorker,
}

/// The state of the worker as far as recovery needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// True until the running worker is lost.
    alive: bool,
    /// True once the engine of the running worker has loaded a model.
    proven: bool,
    recovery: Recovery,
}

impl Supervisor {
    /// What the page shows.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The running worker is terminated; true if there was one.
    pub fn terminate(&mut self) -> bool {
        self.proven = false;
        std::mem::take(&mut self.alive)
    }

    /// A new worker started.
    pub fn start(&mut self) {
        self.alive = true;
    }

    /// The engine sent an event; the loss that it reports, if any. A fault without turn or picture
    /// is one of loading, which the user retries.
    pub fn on_event(&mut self, event: &Event) -> Option<Loss> {
        match event {
            Event::Ready(_) => {
                self.proven = true;
                if self.recovery != Recovery::None {
                    self.recovery = Recovery::Restored;
                }
                None
            }
            Event::Failed {
                turn,
                picture,
                fault,
            } if fault.kind == FaultKind::Device && (turn.is_some() || picture.is_some()) => {
                Some(Loss::Device)
            }
            _ => None,
        }
    }

    /// The worker or its GPU is lost; true if a new worker starts without asking.
    pub fn lose(&mut self, loss: Loss, fault: &Fault, choice: &Choice) -> bool {
        let restart = self.proven && !is_too_large(fault, choice);
        self.alive = false;
        self.recovery = match loss {
            _ if !restart => Recovery::None,
            Loss::Device => Recovery::Restoring,
            Loss::Worker => Recovery::Restarting,
        };
        restart
    }

    /// The user retries after a failure of `model`.
    pub fn retry(&self, model: &Model) -> LoadIn {
        match model {
            Model::Failed(fault) if fault.kind == FaultKind::Device => LoadIn::NewWorker,
            _ => self.load_in(),
        }
    }

    /// The user chose another model.
    pub fn choose(&mut self) -> LoadIn {
        self.dismiss();
        self.load_in()
    }

    /// The user read the message.
    pub fn dismiss(&mut self) {
        self.recovery = Recovery::None;
    }

    fn load_in(&self) -> LoadIn {
        match self.alive {
            true => LoadIn::RunningWorker,
            false => LoadIn::NewWorker,
        }
    }
}

/// Whether a stored model failed for lack of memory. Built-in models fit everywhere.
pub fn is_too_large(fault: &Fault, choice: &Choice) -> bool {
    !matches!(choice, Choice::BuiltIn(_))
        && fault.kind == FaultKind::Device
        && fault.code == ErrorCode::OutOfMemory
}

/// The failure that the page shows, and what the user can do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The failure.
    pub fault: Fault,
    /// Whether the model can be started again.
    pub can_retry: bool,
    /// Whether the default model can be loaded instead.
    pub can_use_demo: bool,
    /// Whether the message can be dismissed.
    pub can_dismiss: bool,
}

impl Problem {
    /// The most important failure: a `notice` outside model, picture and turns, else that of the model,
    /// of the picture or of the last turn, whose phase is `last_phase`. The latter two are not shown during a recovery, which has a
    /// message of its own.
    pub fn of(
        notice: Option<&Fault>,
        model: &Model,
        picture: Option<&Picture>,
        last_phase: Option<&Phase>,
        recovery: Recovery,
        choice: &Choice,
    ) -> Option<Self> {
        let of_model = match model {
            Model::Failed(fault) => Some(fault),
            _ => None,
        };
        let of_picture = match picture.map(|picture| &picture.look) {
            Some(LookState::Failed(fault)) => Some(fault),
            _ => None,
        };
        let of_turn = match last_phase {
            Some(Phase::Failed(fault)) => Some(fault),
            _ => None,
        };
        let of_request = of_picture.or(of_turn);
        let of_request = of_request.filter(|_| recovery == Recovery::None);
        let can_retry = of_model.is_some() && notice.is_none();
        Some(Self {
            fault: notice.or(of_model).or(of_request)?.clone(),
            can_retry,
            can_use_demo: can_retry && !matches!(choice, Choice::BuiltIn(_)),
            can_dismiss: notice.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::conversation::Input;
    use crate::chat::test_data::{after, card, load, open, proposed, ready};
    use crate::protocol::store::ModelId;
    use crate::protocol::{Granularity, PictureId, TurnId};

    fn stored() -> Choice {
        Choice::Stored(ModelId("00112233aabbccdd".into()))
    }

    fn fault(code: ErrorCode) -> Fault {
        Fault::new(FaultKind::Device, "GPU", "failed", "").code(code)
    }

    fn running(proven: bool) -> Supervisor {
        let mut supervisor = Supervisor::default();
        supervisor.start();
        if proven {
            supervisor.on_event(&Event::Ready(card()));
        }
        supervisor
    }

    #[test]
    fn a_proven_worker_is_replaced_unless_its_model_is_too_large() {
        let cases = [
            (
                true,
                ErrorCode::WorkerLost,
                stored(),
                Loss::Worker,
                Recovery::Restarting,
            ),
            (
                true,
                ErrorCode::DeviceLost,
                stored(),
                Loss::Device,
                Recovery::Restoring,
            ),
            (
                true,
                ErrorCode::OutOfMemory,
                stored(),
                Loss::Device,
                Recovery::None,
            ),
            (
                true,
                ErrorCode::OutOfMemory,
                stored(),
                Loss::Worker,
                Recovery::None,
            ),
            (
                true,
                ErrorCode::OutOfMemory,
                Choice::default(),
                Loss::Worker,
                Recovery::Restarting,
            ),
            (
                false,
                ErrorCode::WorkerLost,
                Choice::default(),
                Loss::Worker,
                Recovery::None,
            ),
            (
                false,
                ErrorCode::DeviceLost,
                stored(),
                Loss::Device,
                Recovery::None,
            ),
        ];
        for (proven, code, choice, loss, expected) in cases {
            let mut supervisor = running(proven);
            let restart = supervisor.lose(loss, &fault(code), &choice);
            let case = format!("{proven} {code:?} {choice:?} {loss:?}");
            assert_eq!(supervisor.recovery(), expected, "{case}");
            assert_eq!(restart, expected != Recovery::None, "{case}");
        }
    }

    #[test]
    fn the_code_decides_and_not_the_sentence() {
        let said = Fault::new(FaultKind::Device, "GPU", "the parent memory is gone", "");
        assert!(!is_too_large(&said, &stored()));
        assert!(is_too_large(&fault(ErrorCode::OutOfMemory), &stored()));
        let picture = Fault::new(FaultKind::Picture, "that picture", "is too large", "")
            .code(ErrorCode::OutOfMemory);
        assert!(!is_too_large(&picture, &stored()), "not the model");
    }

    #[test]
    fn only_device_faults_of_a_request_lose_the_device() {
        let (turn, picture) = (Some(TurnId(1)), Some(PictureId(1)));
        let cases = [
            (FaultKind::Device, turn, None, Some(Loss::Device)),
            (FaultKind::Device, None, picture, Some(Loss::Device)),
            (FaultKind::Device, None, None, None),
            (FaultKind::Question, turn, picture, None),
            (FaultKind::Picture, None, picture, None),
        ];
        for (kind, turn, picture, expected) in cases {
            let event = Event::Failed {
                turn,
                picture,
                fault: Fault::new(kind, "place", "what", ""),
            };
            assert_eq!(running(true).on_event(&event), expected, "{event:?}");
        }
    }

    #[test]
    fn a_retry_uses_the_running_worker_unless_its_device_failed() {
        let device = Model::Failed(fault(ErrorCode::DeviceFailed));
        let network = Model::Failed(Fault::new(FaultKind::Network, "a", "b", ""));
        let cases = [
            (true, &network, LoadIn::RunningWorker),
            (true, &device, LoadIn::NewWorker),
            (false, &network, LoadIn::NewWorker),
            (false, &device, LoadIn::NewWorker),
        ];
        for (alive, model, expected) in cases {
            let mut supervisor = running(true);
            if !alive {
                supervisor.lose(Loss::Worker, &fault(ErrorCode::OutOfMemory), &stored());
            }
            assert_eq!(supervisor.retry(model), expected, "{alive} {model:?}");
        }
    }

    #[test]
    fn recovery_ends_with_the_next_model_or_with_another_choice() {
        let mut supervisor = running(true);
        assert!(supervisor.lose(
            Loss::Worker,
            &fault(ErrorCode::WorkerLost),
            &Choice::default()
        ));
        assert!(!supervisor.terminate(), "it is lost already");
        supervisor.start();
        assert_eq!(supervisor.recovery(), Recovery::Restarting);
        supervisor.on_event(&Event::Ready(card()));
        assert_eq!(supervisor.recovery(), Recovery::Restored);
        assert_eq!(supervisor.choose(), LoadIn::RunningWorker);
        assert_eq!(supervisor.recovery(), Recovery::None);
        assert!(supervisor.terminate());
        assert_eq!(supervisor.choose(), LoadIn::NewWorker);
    }

    #[test]
    fn one_problem_is_shown_with_what_can_be_done() {
        const A: PictureId = PictureId(1);
        let named = |place: &str| Fault::new(FaultKind::Device, place, "failed", "");
        let (notice, model) = (named("notice"), Model::Failed(named("model")));
        let fail = |turn, picture, place| {
            Input::Event(Event::Failed {
                turn,
                picture,
                fault: named(place),
            })
        };
        let ask = Input::Ask {
            shown: "what?".into(),
            question: "what?".into(),
        };
        let looked = [load(), open(A), ready(), proposed(A, Granularity::Coarse)];
        let turn = after(
            looked
                .into_iter()
                .chain([ask, fail(Some(TurnId(0)), None, "turn")]),
        );
        let picture = after([load(), open(A), ready(), fail(None, Some(A), "picture")]);
        let (none, demo) = (Recovery::None, Choice::default());
        let flags = |problem: Option<Problem>| {
            problem.map(|p| (p.fault.place, p.can_retry, p.can_use_demo, p.can_dismiss))
        };
        let loaded = Model::Ready(card());
        let cases = [
            (
                None,
                &loaded,
                &turn,
                none,
                &demo,
                Some(("turn", false, false, false)),
            ),
            (
                None,
                &loaded,
                &picture,
                none,
                &demo,
                Some(("picture", false, false, false)),
            ),
            (None, &loaded, &turn, Recovery::Restored, &demo, None),
            (
                None,
                &model,
                &turn,
                none,
                &demo,
                Some(("model", true, false, false)),
            ),
            (
                None,
                &model,
                &turn,
                none,
                &stored(),
                Some(("model", true, true, false)),
            ),
            (
                Some(&notice),
                &model,
                &turn,
                none,
                &stored(),
                Some(("notice", false, false, true)),
            ),
        ];
        for (notice, model, conversation, recovery, choice, expected) in cases {
            let last = conversation.turns().last().map(|turn| &turn.phase);
            let picture = conversation.picture();
            let found = flags(Problem::of(notice, model, picture, last, recovery, choice));
            let expected = expected.map(|(place, a, b, c)| (place.to_owned(), a, b, c));
            assert_eq!(found, expected);
        }
        let nothing = after([]);
        assert_eq!(
            Problem::of(None, nothing.model(), None, None, none, &demo),
            None
        );
    }
}
