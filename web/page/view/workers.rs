//! The workers beside that of the engine.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::Array;

use crate::link::Link;

/// The GPU path at work in a worker of its own; dropping it ends the trial.
pub struct Trial {
    pub(super) link: Rc<RefCell<Option<Link>>>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.link.take();
    }
}

/// The worker that converts a checkpoint, and the files of the user.
#[derive(Default)]
pub struct Workshop {
    pub(super) link: Option<Link>,
    pub(super) files: Option<Array>,
}
