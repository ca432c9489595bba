//! What all requests share: model, queue, metrics and limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout_at;

use super::access::Access;
use super::engine::{ended, refuse};
use super::fair::{FairQueue, Queued, Refused};
use super::job::{Job, Outcome, Reply, Work};
use super::metrics::Metrics;
use super::problem::Problem;
use crate::protocol::ModelCard;
use crate::session::StopHandle;

/// How far the end of the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It accepts nothing, and finishes what it has.
    Ending,
    /// Answers are cut.
    Cutting,
}

/// The state of a server.
#[derive(Debug)]
pub struct Shared {
    /// The loaded model.
    pub card: ModelCard,
    /// Who may ask.
    pub access: Access,
    /// Jobs that wait for the engine.
    pub queue: FairQueue<Job>,
    /// The metrics.
    pub metrics: Metrics,
    /// Whether the device works.
    pub healthy: AtomicBool,
    /// The most bytes of a body.
    pub max_body: usize,
    /// Memory for bodies and pictures, in KiB.
    pub memory: Arc<Semaphore>,
    /// The longest time of a request in the queue and in the engine.
    pub timeout: Duration,
    /// The folder of Label Studio's files.
    pub label_studio_root: Option<PathBuf>,
    /// When it started, in seconds since 1970.
    pub created: u64,
    /// Whether it ends.
    pub phase: watch::Sender<Phase>,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Shared {
    /// Queues work of `client`, whose picture holds `memory`.
    ///
    /// # Errors
    /// The queue is full, or the server ends.
    pub fn submit(
        self: &Arc<Self>,
        client: &str,
        work: Work,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<Ticket, Problem> {
        let (replies, received) = unbounded_channel();
        let stop = StopHandle::new();
        let job = Job {
            work,
            replies,
            stop: stop.clone(),
            queued: Instant::now(),
            memory,
        };
        let Queued { number, displaced } =
            self.queue.push(client, job).map_err(|why| match why {
                Refused::Full => Problem::queue_full(),
                Refused::Closed => Problem::shutting_down(),
            })?;
        if let Some(displaced) = displaced {
            refuse(&displaced, Problem::queue_full());
        }
        Ok(Ticket {
            number,
            stop,
            received,
            deadline: tokio::time::Instant::now() + self.timeout,
            phase: self.phase.subscribe(),
            is_over: false,
            shared: Arc::clone(self),
        })
    }
}

/// A job that was queued. When it is dropped, the job leaves the queue or stops.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    stop: StopHandle,
    received: UnboundedReceiver<Reply>,
    deadline: tokio::time::Instant,
    phase: watch::Receiver<Phase>,
    is_over: bool,
    shared: Arc<Shared>,
}

/// The next part of a job's replies.
#[derive(Debug)]
pub enum Next {
    /// Text to append.
    Text(String),
    /// The end.
    Done(Box<Outcome>),
}

impl Ticket {
    /// The next reply.
    ///
    /// # Errors
    /// The job failed, its time is over, or the server ends.
    pub async fn next(&mut self) -> Result<Next, Problem> {
        let reply = tokio::select! {
            biased;
            reply = timeout_at(self.deadline, self.received.recv()) => reply,
            _ = self.phase.wait_for(|phase| *phase == Phase::Cutting) => {
                return Err(Problem::shutting_down());
            }
        };
        match reply {
            Err(_) => Err(Problem::timeout(self.shared.timeout.as_secs())),
            Ok(Some(Reply::Text(text))) => Ok(Next::Text(text)),
            Ok(Some(Reply::Done(outcome))) => {
                self.is_over = true;
                Ok(Next::Done(outcome))
            }
            Ok(Some(Reply::Failed(problem))) => {
                self.is_over = true;
                Err(problem)
            }
            Ok(None) => Err(ended()),
        }
    }

    /// The end of the job; text on the way is dropped.
    ///
    /// # Errors
    /// See [`Ticket::next`].
    pub async fn outcome(&mut self) -> Result<Outcome, Problem> {
        loop {
            if let Next::Done(outcome) = self.next().await? {
                return Ok(*outcome);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_over {
            self.stop.stop();
            self.shared.queue.remove(self.number);
            self.shared.metrics.cancelled.inc();
        }
    }
}
