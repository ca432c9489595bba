//! The engine's side: one thread that owns the model and works on one job after another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::http::StatusCode;

use super::fair::FairQueue;
use super::job::{Asking, Job, Looking, Outcome, Reply, Told, Work};
use super::metrics::{Metrics, observe};
use super::picture::Picture;
use super::problem::{Problem, is_device};
use super::shown::Growth;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::{BoxXyxy, Granularity, Proposal};
use crate::image::decode;
use crate::progress::Stage;
use crate::protocol::{
    Client as _, ImageSize, LoadOptions, LookTime, ModelCard, Question, StopReason,
};
use crate::session::{self, Session, SessionOptions};
use crate::text::prompt::MAX_BOXES;

/// The model and the current picture.
pub struct Engine {
    model: String,
    load: LoadOptions,
    /// None after the device failed, until the model is loaded again.
    session: Option<Session>,
    current: Option<Current>,
}

/// What is known of the picture that the session holds.
struct Current {
    sha256: [u8; 32],
    size: ImageSize,
    proposals: BTreeMap<Granularity, Vec<Proposal>>,
}

/// The boxes for an answer.
struct Seen {
    size: Option<ImageSize>,
    boxes: Vec<Proposal>,
    given: bool,
    looked: LookTime,
}

impl Engine {
    /// Loads the model.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub fn open(model: &str, load: LoadOptions) -> Result<Self, Fault> {
        let options = SessionOptions::from(load).on_progress(|progress| {
            // What follows are stages of requests.
            if matches!(
                progress.stage,
                Stage::Fetch | Stage::Upload | Stage::Compile
            ) {
                session::report(progress);
            }
        });
        Ok(Self {
            model: model.to_owned(),
            load,
            session: Some(Session::open(model, options)?),
            current: None,
        })
    }

    /// The model, as it was loaded first.
    ///
    /// # Panics
    /// The device failed before.
    pub fn card(&self) -> &ModelCard {
        self.session.as_ref().expect("just opened").card()
    }

    /// Works on jobs until the queue is closed and empty. `healthy` tells whether the device works.
    pub fn run(&mut self, queue: &FairQueue<Job>, metrics: &Metrics, healthy: &AtomicBool) {
        while let Some(job) = queue.pop() {
            if job.stop.is_stopped() {
                continue;
            }
            observe(&metrics.waiting, job.queued.elapsed());
            self.guarded(healthy, |engine| engine.work(&job, metrics), &job);
            // Another body may come now.
            drop(job.memory);
        }
    }

    /// Runs `work` for a job. A panic is a fault of this job; after it, and after a fault of the device, the next job
    /// loads the model again.
    fn guarded(
        &mut self,
        healthy: &AtomicBool,
        work: impl FnOnce(&mut Self) -> Result<Option<Outcome>, Fault>,
        job: &Job,
    ) {
        let outcome = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(outcome) => outcome,
            Err(_) => Err(Fault::new(
                FaultKind::Device,
                "engine",
                "ended inside this request",
                "Try again; if it happens again, start the server again",
            )
            .code(ErrorCode::WorkerLost)),
        };
        match outcome {
            Ok(outcome) => {
                healthy.store(true, Ordering::Relaxed);
                if let Some(outcome) = outcome {
                    job.reply(Reply::Done(Box::new(outcome)));
                }
            }
            Err(fault) => {
                let is_lost = is_device(fault.code) && fault.code != ErrorCode::NotReady;
                if is_lost || fault.kind == FaultKind::Device {
                    healthy.store(false, Ordering::Relaxed);
                    eprintln!("chatrex: {fault}");
                    self.session = None;
                    self.current = None;
                }
                job.reply(Reply::Failed(fault.into()));
            }
        }
    }

    /// The session; loads the model again after the device failed.
    fn session(&mut self) -> Result<&mut Session, Fault> {
        let open = || {
            let options = SessionOptions::from(self.load);
            Session::open(self.model.as_str(), options).map_err(|fault| {
                let code = match is_device(fault.code) {
                    true => fault.code,
                    false => ErrorCode::DeviceFailed,
                };
                fault.code(code)
            })
        };
        match &mut self.session {
            Some(session) => Ok(session),
            none => Ok(none.insert(open()?)),
        }
    }

    /// Does the work of a job; `None` if it was stopped.
    fn work(&mut self, job: &Job, metrics: &Metrics) -> Result<Option<Outcome>, Fault> {
        self.session()?.stop_with(&job.stop);
        let start = Instant::now();
        let Work {
            picture,
            looking,
            asking,
        } = &job.work;
        let seen = self.see(picture.as_ref(), looking, metrics)?;
        if picture.is_some() {
            observe(&metrics.looking, start.elapsed());
        }
        let mut answers = Vec::new();
        if let Some(asking) = asking {
            let boxes: Vec<BoxXyxy> = seen.boxes.iter().map(|found| found.bbox).collect();
            for question in &asking.questions {
                if job.stop.is_stopped() {
                    return Ok(None);
                }
                let told = self.ask(question, asking, &boxes, job, metrics)?;
                if told.answer.stop == StopReason::Stopped {
                    return Ok(None);
                }
                answers.push(told);
            }
        }
        observe(&metrics.total, job.queued.elapsed());
        let Seen {
            size,
            boxes,
            given,
            looked,
        } = seen;
        Ok(Some(Outcome {
            size,
            boxes,
            given,
            looked,
            answers,
        }))
    }

    /// Finds the boxes of a picture, or takes those that are known.
    fn see(
        &mut self,
        picture: Option<&Picture>,
        looking: &Looking,
        metrics: &Metrics,
    ) -> Result<Seen, Fault> {
        let Some(picture) = picture else {
            return Ok(Seen {
                size: None,
                boxes: Vec::new(),
                given: false,
                looked: LookTime::default(),
            });
        };
        let looked = self.look(picture, looking.granularity, metrics)?;
        let current = self.current.as_ref().expect("looked at above");
        let boxes = match &looking.boxes {
            Some(boxes) => boxes
                .iter()
                .map(|&bbox| Proposal::unlabelled(bbox, 0.0))
                .collect(),
            None => {
                let card = self.session.as_ref().expect("looked with it").card();
                let found = &current.proposals[&looking.granularity];
                let selection = card.selection().with(looking.score, looking.nms);
                let kept = selection.choose(found, MAX_BOXES).kept;
                kept.iter().map(|&index| found[index].clone()).collect()
            }
        };
        Ok(Seen {
            size: Some(current.size),
            boxes,
            given: looking.boxes.is_some(),
            looked,
        })
    }

    /// Makes `picture` the current one with the proposals of `granularity`.
    fn look(
        &mut self,
        picture: &Picture,
        granularity: Granularity,
        metrics: &Metrics,
    ) -> Result<LookTime, Fault> {
        let start = Instant::now();
        let known = self.current.take().filter(|c| c.sha256 == picture.sha256);
        let session = self.session()?;
        let (current, looked) = match known {
            Some(mut current) => {
                metrics.reused.inc();
                let mut looked = LookTime::default();
                if let Entry::Vacant(entry) = current.proposals.entry(granularity) {
                    entry.insert(session.propose(granularity)?);
                    looked.upn = start.elapsed().as_secs_f64() * 1e3;
                }
                (current, looked)
            }
            None => {
                let pixels = decode::decode(&picture.bytes)?;
                let size = ImageSize {
                    width: pixels.width,
                    height: pixels.height,
                };
                let (found, looked) = session.open_picture(pixels, granularity)?;
                let current = Current {
                    sha256: picture.sha256,
                    size,
                    proposals: [(granularity, found)].into(),
                };
                (current, looked)
            }
        };
        self.current = Some(current);
        Ok(looked)
    }

    /// Asks a question about the current picture.
    fn ask(
        &mut self,
        question: &str,
        asking: &Asking,
        boxes: &[BoxXyxy],
        job: &Job,
        metrics: &Metrics,
    ) -> Result<Told, Fault> {
        let session = self.session()?;
        let question = Question {
            boxes: boxes.to_vec(),
            text: question.to_owned(),
            max_tokens: asking
                .max_tokens
                .unwrap_or(session.card().default_max_tokens),
            sampling: asking.sampling,
            earlier: asking.earlier.clone(),
            system: asking.system.clone(),
        };
        let mut growth = Growth::default();
        let mut is_first = true;
        let mut send = |text: String| {
            if let Some(rest) = growth.next(&text) {
                job.reply(Reply::Text(rest));
            }
        };
        let answer = session.ask_async(question, |spans| {
            if std::mem::replace(&mut is_first, false) {
                observe(&metrics.first_token, job.queued.elapsed());
            }
            if asking.stream {
                send(asking.form.text(spans));
            }
        });
        let answer = pollster::block_on(answer)?;
        let text = asking.form.text(&answer.spans);
        if asking.stream {
            send(text.clone());
        }
        let prompt_tokens = session.prompt_tokens(&answer);
        metrics.tokens(prompt_tokens, answer.tokens);
        Ok(Told {
            answer,
            text,
            prompt_tokens,
        })
    }
}

/// A job that is being worked on or waits is refused because the server ends or another client is served.
pub fn refuse(job: &Job, problem: Problem) {
    job.stop.stop();
    job.reply(Reply::Failed(problem));
}

/// What to say where the engine ended without a reply.
pub fn ended() -> Problem {
    let message = "the engine ended without an answer. Try again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "worker_lost", message)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::generate::sampling::Sampling;
    use crate::protocol::DevicePreference;
    use crate::server::shown::Form;
    use crate::session::StopHandle;

    fn job(questions: &[&str], stream: bool) -> (Job, UnboundedReceiver<Reply>) {
        let bytes = std::fs::read("web/static/samples/scene.png").expect("the sample");
        let asking = Asking {
            questions: questions.iter().map(|&text| text.to_owned()).collect(),
            system: None,
            earlier: Vec::new(),
            max_tokens: Some(48),
            sampling: Sampling::default(),
            form: Form::Plain,
            stream,
        };
        let (replies, received) = unbounded_channel();
        let job = Job {
            work: Work {
                picture: Some(Picture::new(bytes, "image").expect("a picture")),
                looking: Looking::default(),
                asking: (!questions.is_empty()).then_some(asking),
            },
            replies,
            stop: StopHandle::new(),
            queued: Instant::now(),
            memory: None,
        };
        (job, received)
    }

    fn done(received: &mut UnboundedReceiver<Reply>) -> (String, Outcome) {
        let mut text = String::new();
        loop {
            match received.try_recv().expect("a reply") {
                Reply::Text(more) => text.push_str(&more),
                Reply::Done(outcome) => return (text, *outcome),
                Reply::Failed(problem) => panic!("{problem:?}"),
            }
        }
    }

    const QUESTION: &str =
        "Please detect cat in this image. Answer the question with grounded answer.";

    /// Jobs of one queue: a stream whose pieces make the text, the same picture without another look, a fault of a
    /// question, a lost device, a panic, and a job of a client that left.
    #[test]
    fn a_fault_ends_its_job_only() {
        let mut engine = Engine::open("nano", DevicePreference::Cpu.into()).expect("a CPU");
        let (metrics, healthy) = (Metrics::new(), AtomicBool::new(true));
        let queue = FairQueue::new(9);
        let (whole, mut of_whole) = job(&[QUESTION], true);
        let (boxes, mut of_boxes) = job(&[], false);
        let (bad, mut of_bad) = job(&["What is <obj400>?"], false);
        let (gone, mut of_gone) = job(&[QUESTION], false);
        gone.stop.stop();
        for item in [whole, boxes, bad, gone] {
            queue.push("a", item).expect("room");
        }
        queue.close();
        engine.run(&queue, &metrics, &healthy);
        let (text, first) = done(&mut of_whole);
        assert_eq!(text, first.answers[0].text);
        assert!(!text.is_empty() && first.looked.total() > 0.0);
        let (_, second) = done(&mut of_boxes);
        assert_eq!(second.boxes, first.boxes);
        assert_eq!((second.looked.total(), metrics.reused.get()), (0.0, 2));
        let Reply::Failed(problem) = of_bad.try_recv().expect("a reply") else {
            panic!("there is no box 400");
        };
        assert_eq!(problem.status.as_u16(), 400);
        assert!(of_gone.try_recv().is_err(), "nobody waits");
        assert!(healthy.load(Ordering::Relaxed));

        let (lost, mut of_lost) = job(&[], false);
        let fault =
            || Fault::new(FaultKind::Device, "GPU", "is lost", "").code(ErrorCode::DeviceLost);
        engine.guarded(&healthy, |_| Err(fault()), &lost);
        let (panics, mut of_panics) = job(&[], false);
        engine.guarded(&healthy, |_| panic!("a broken promise"), &panics);
        for received in [&mut of_lost, &mut of_panics] {
            let Reply::Failed(problem) = received.try_recv().expect("a reply") else {
                panic!("the device failed");
            };
            assert_eq!(problem.status.as_u16(), 503);
        }
        assert!(!healthy.load(Ordering::Relaxed));
        let (after, mut of_after) = job(&[QUESTION], false);
        engine.guarded(&healthy, |engine| engine.work(&after, &metrics), &after);
        assert_eq!(done(&mut of_after).1.answers[0].text, text);
        assert!(healthy.load(Ordering::Relaxed));
    }
}
