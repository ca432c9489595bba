//! The thread of a session, and how Python threads wait for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use chatrex::protocol::Client as _;
use chatrex::protocol::LookTime;
use chatrex::{Fault, Granularity, Pixels, Proposal, Session};
use pyo3::prelude::*;

use crate::fault::{lost, replaced};

/// How often a waiting thread looks for signals such as Ctrl+C.
pub const SIGNALS: Duration = Duration::from_millis(50);

/// What the thread of a session works on.
pub type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A session and the number of its current picture.
pub struct Worker {
    /// The session.
    pub session: Session,
    opened: u32,
    current: Option<u32>,
}

impl Worker {
    /// A worker without a picture.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            opened: 0,
            current: None,
        }
    }

    /// Makes `pixels` the current picture: its number, all its proposals, and the time they took.
    ///
    /// # Errors
    /// The device fails; there is then no current picture.
    pub fn look(
        &mut self,
        pixels: Pixels,
        granularity: Granularity,
    ) -> Result<(u32, Vec<Proposal>, LookTime), Fault> {
        self.current = None;
        self.opened += 1;
        let (all, time) = self.session.open_picture(pixels, granularity)?;
        self.current = Some(self.opened);
        Ok((self.opened, all, time))
    }

    /// Checks that picture `wanted`, if any, is the current one. Its number; 0 if there is no picture.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, wanted: Option<u32>) -> Result<u32, Fault> {
        match wanted {
            Some(_) if wanted != self.current => Err(replaced()),
            _ => Ok(self.current.unwrap_or_default()),
        }
    }
}

/// Waits for the result of a job. Other Python threads run meanwhile.
///
/// # Errors
/// A signal handler raised an exception.
pub fn wait<T: Send>(
    py: Python<'_>,
    mut receiver: Receiver<Result<T, Fault>>,
) -> PyResult<Result<T, Fault>> {
    loop {
        let received;
        (received, receiver) = py.detach(move || (receiver.recv_timeout(SIGNALS), receiver));
        match received {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Disconnected) => return Ok(Err(lost())),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
        }
    }
}
