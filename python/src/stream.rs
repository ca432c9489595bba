//! An answer that is being generated.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use chatrex::{Answer, Fault, Span, StopHandle};
use pyo3::prelude::*;

use crate::fault::{forked, lost, or_raise, raised};
use crate::proposals::json;
use crate::worker::SIGNALS;

/// An answer that is being generated. A reader that is slower than the engine gets the latest state and skips
/// those before.
#[pyclass(frozen)]
pub struct Stream {
    shared: Arc<Shared>,
    stop: StopHandle,
    process: u32,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The spans that nobody has read yet.
    latest: Option<Vec<Span>>,
    /// Those read last.
    read: Vec<Span>,
    end: Option<Result<Answer, Fault>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` finds something; none after [`SIGNALS`].
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.state();
        if let Some(found) = ready(&mut state) {
            return Some(found);
        }
        let waited = self.changed.wait_timeout(state, SIGNALS);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ready(&mut state)
    }
}

/// The end of a [`Stream`] on the thread of the session. Dropped without an end, it tells that the engine is lost.
pub struct Writer(Arc<Shared>);

impl Writer {
    /// The answer so far.
    pub fn said(&self, spans: &[Span]) {
        self.0.state().latest = Some(spans.to_vec());
        self.0.changed.notify_all();
    }

    /// The complete answer, or the fault in its place.
    pub fn end(&self, end: Result<Answer, Fault>) {
        self.0.state().end.get_or_insert(end);
        self.0.changed.notify_all();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(Err(lost()));
    }
}

impl Stream {
    /// An answer that `stop` ends, and its other end.
    pub fn new(stop: StopHandle) -> (Self, Writer) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Writer(Arc::clone(&shared));
        let process = std::process::id();
        let stream = Self {
            shared,
            stop,
            process,
        };
        (stream, writer)
    }

    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        mut ready: impl FnMut(&mut State) -> Option<T> + Send,
    ) -> PyResult<T> {
        if self.process != std::process::id() {
            return Err(raised(py, &forked(self.process)));
        }
        let shared = &*self.shared;
        loop {
            if let Some(found) = py.detach(|| shared.wait(&mut ready)) {
                return Ok(found);
            }
            if let Err(error) = py.check_signals() {
                self.stop.stop();
                return Err(error);
            }
        }
    }
}

#[pymethods]
impl Stream {
    /// Waits until the answer has grown: its spans as a JSON list, or `None` at its end. A signal such as Ctrl+C
    /// stops the answer.
    ///
    /// # Errors
    /// The question failed, or a signal handler raised an exception.
    fn next(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let next = self.wait(py, |state| {
            let State { latest, read, end } = state;
            if let Some(spans) = latest.take().filter(|spans| spans != read) {
                read.clone_from(&spans);
                return Some(Ok(Some(spans)));
            }
            match end.as_ref()? {
                Err(fault) => Some(Err(fault.clone())),
                // The last spans, if the engine has not told them before.
                Ok(answer) if answer.spans != *read => {
                    read.clone_from(&answer.spans);
                    Some(Ok(Some(answer.spans.clone())))
                }
                Ok(_) => Some(Ok(None)),
            }
        })?;
        Ok(or_raise(py, next)?.as_ref().map(json))
    }

    /// Waits for the end: the answer as a JSON object. A signal such as Ctrl+C stops the answer.
    ///
    /// # Errors
    /// The question failed, or a signal handler raised an exception.
    fn result(&self, py: Python<'_>) -> PyResult<String> {
        let end = self.wait(py, |state| state.end.clone())?;
        Ok(json(&or_raise(py, end)?))
    }

    /// Ends the answer before its next token.
    fn stop(&self) {
        self.stop.stop();
    }

    /// Whether the answer is complete or has failed.
    #[getter]
    fn done(&self) -> bool {
        self.shared.state().end.is_some()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.stop();
    }
}
