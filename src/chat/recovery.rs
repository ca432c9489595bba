//! Recovery of a lost worker: when a new one starts, and what the page shows meanwhile.
//!
//! Rules. A worker is replaced without asking only if its engine had loaded a model, and not where
//! the model is too large: the next worker would fail in the same way. The GPU of a worker cannot be
//! opened a second time, so a fault of the device needs a new worker.

use crate::chat::conversation::Model;
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

/// Whether a stored model failed for lack of memory. The demo model fits everywhere.
pub fn is_too_large(fault: &Fault, choice: &Choice) -> bool {
    *choice != Choice::Demo
        && fault.kind == FaultKind::Device
        && fault.code == ErrorCode::OutOfMemory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::test_data::card;
    use crate::protocol::store::ModelId;
    use crate::protocol::{PictureId, TurnId};

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
                Choice::Demo,
                Loss::Worker,
                Recovery::Restarting,
            ),
            (
                false,
                ErrorCode::WorkerLost,
                Choice::Demo,
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
        assert!(supervisor.lose(Loss::Worker, &fault(ErrorCode::WorkerLost), &Choice::Demo));
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
}
