//! A session on a thread of its own. Jobs of all Python threads go through a channel, one after the other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use chatrex::{Fault, LoadOptions, Question, Session, StopHandle};
use pyo3::prelude::*;
use serde::Deserialize;

use crate::fault::{closed, forked, or_raise, parsed};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::proposals::{Proposals, granularity, json};
use crate::stream::Stream;
use crate::worker::{Job, Worker, wait};

/// The process that opened the first engine. A copy made by `fork` has none of its threads, and those that compute
/// are started once per process.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Bytes of the stack of an engine's thread: as much as a main thread has.
const STACK: usize = 8 << 20;

/// A loaded model on a thread of its own. Calls from any thread; they are carried out one after the other.
#[pyclass(frozen)]
pub struct Engine {
    card: String,
    process: u32,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Ends the job that is being carried out and those that wait.
    stops: Mutex<Vec<StopHandle>>,
}

/// The arguments of [`Engine::new`], with the names that `Request::Load` has.
#[derive(Deserialize)]
struct Loading {
    model: String,
    #[serde(flatten)]
    options: LoadOptions,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the model and works until no sender is left.
fn work(loading: Loading, opened: &Sender<Result<String, Fault>>, jobs: &Receiver<Job>) {
    let session = match Session::open(loading.model.as_str(), loading.options) {
        Ok(session) => session,
        Err(fault) => {
            opened.send(Err(fault)).ok();
            return;
        }
    };
    opened.send(Ok(json(session.card()))).ok();
    let mut worker = Worker::new(session);
    for job in jobs {
        job(&mut worker);
    }
}

impl Engine {
    fn check_process(process: u32) -> Result<(), Fault> {
        match process == std::process::id() {
            true => Ok(()),
            false => Err(forked(process)),
        }
    }

    fn send(&self, job: Job) -> Result<(), Fault> {
        Self::check_process(self.process)?;
        let jobs = lock(&self.jobs);
        // A thread that ended by itself is noticed where its answer is awaited.
        jobs.as_ref().ok_or_else(closed)?.send(job).ok();
        Ok(())
    }

    /// Carries out `work` on the thread of the session and waits for it.
    fn call<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Worker) -> Result<T, Fault> + Send + 'static,
    ) -> PyResult<T> {
        let (sender, receiver) = channel();
        let job = move |worker: &mut Worker| {
            sender.send(work(worker)).ok();
        };
        or_raise(py, self.send(Box::new(job)))?;
        let result = wait(py, receiver)?;
        or_raise(py, result)
    }

    /// A handle that [`Engine::close`] stops too.
    fn stop_handle(&self) -> StopHandle {
        let handle = StopHandle::new();
        let mut stops = lock(&self.stops);
        stops.retain(|stop| !stop.is_stopped());
        stops.push(handle.clone());
        handle
    }
}

#[pymethods]
impl Engine {
    /// Loads a model; `loading` is a JSON object with `model`, `device`, `memory` in bytes, `cache` and
    /// `activations`.
    ///
    /// # Errors
    /// The model cannot be loaded.
    #[new]
    fn new(py: Python<'_>, loading: &str) -> PyResult<Self> {
        let loading: Loading = or_raise(py, parsed("Session", loading))?;
        let process = std::process::id();
        let first = PROCESS.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed);
        or_raise(
            py,
            Self::check_process(first.map_or_else(|first| first, |_| process)),
        )?;
        let (opened, card) = channel();
        let (sender, jobs) = channel();
        let thread = Builder::new()
            .name("chatrex".into())
            .stack_size(STACK)
            .spawn(move || work(loading, &opened, &jobs))?;
        let card = wait(py, card)?;
        Ok(Self {
            card: or_raise(py, card)?,
            process,
            jobs: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            stops: Mutex::default(),
        })
    }

    /// The model card as a JSON object.
    fn card(&self) -> &str {
        &self.card
    }

    /// Makes a picture the current one and finds its boxes.
    ///
    /// # Errors
    /// The device fails.
    fn look(&self, py: Python<'_>, pixels: &Pixels, prompt: &str) -> PyResult<Proposals> {
        let prompt = or_raise(py, granularity(prompt))?;
        let pixels = or_raise(py, pixels.take())?;
        self.call(py, move |worker| {
            let (picture, all, time) = worker.look(pixels, prompt)?;
            Ok(Proposals::new(picture, all, time, worker.session.card()))
        })
    }

    /// The boxes of the current picture for another prompt. `picture` is the number of the picture that the
    /// caller means.
    ///
    /// # Errors
    /// There is no current picture, it is another one, or the device fails.
    #[pyo3(signature = (prompt, picture=None))]
    fn propose(&self, py: Python<'_>, prompt: &str, picture: Option<u32>) -> PyResult<Proposals> {
        let prompt = or_raise(py, granularity(prompt))?;
        self.call(py, move |worker| {
            let picture = worker.check(picture)?;
            let all = worker.session.propose(prompt)?;
            let card = worker.session.card();
            Ok(Proposals::new(picture, all, Default::default(), card))
        })
    }

    /// Asks about the current picture; `question` is a JSON object with the keys of a question.
    ///
    /// # Errors
    /// The arguments cannot be used. What else can fail is told by the stream.
    #[pyo3(signature = (question, picture=None))]
    fn ask(&self, py: Python<'_>, question: &str, picture: Option<u32>) -> PyResult<Stream> {
        let question: Question = or_raise(py, parsed("question", question))?;
        let stop = self.stop_handle();
        let (stream, writer) = Stream::new(stop.clone());
        let job = move |worker: &mut Worker| {
            let ask = || {
                worker.check(picture)?;
                worker.session.stop_with(&stop);
                let asked = worker
                    .session
                    .ask_async(question, |spans| writer.said(spans));
                pollster::block_on(asked)
            };
            let end = ask();
            writer.end(end);
            // What has ended needs no stop any more.
            stop.stop();
        };
        or_raise(py, self.send(Box::new(job)))?;
        Ok(stream)
    }

    /// Looks at a picture and carries out a plan in one step, which no other thread can interrupt; `plan` is a JSON
    /// object. The outcome is one too.
    ///
    /// # Errors
    /// The picture or a question cannot be used, or the device fails.
    fn examine(&self, py: Python<'_>, pixels: &Pixels, plan: &str) -> PyResult<String> {
        let plan: Plan = or_raise(py, parsed("batch", plan))?;
        let pixels = or_raise(py, pixels.take())?;
        let stop = self.stop_handle();
        let guard = StopOnDrop(stop.clone());
        let outcome = self.call(py, move |worker| plan.carry_out(worker, pixels, &stop))?;
        drop(guard);
        Ok(json(&outcome))
    }

    /// Stops what is being answered and what waits, and frees the model. Later calls are refused.
    fn close(&self, py: Python<'_>) {
        if Self::check_process(self.process).is_err() {
            return;
        }
        drop(lock(&self.jobs).take());
        lock(&self.stops).drain(..).for_each(|stop| stop.stop());
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A thread that panicked has said so.
            py.detach(|| thread.join()).ok();
        }
    }
}

/// Stops a job that its caller does not wait for any more.
struct StopOnDrop(StopHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
