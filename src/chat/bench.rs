//! The benchmark of the page: a fixed picture and question several times, each from the beginning.
//!
//! Rules. It uses numbers of pictures and turns that no conversation has, so its events are told apart. The
//! engine works for the benchmark alone; a stop takes effect when the engine has answered what it was
//! asked last. A failure ends it.

use serde::Serialize;

use crate::chat::candidates::{Candidates, Filter};
use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::protocol::{
    Answer, Event, Granularity, ImageSize, LookTime, ModelCard, PictureId, Question, Request,
    TurnId,
};

/// Runs of the page's benchmark.
pub const RUNS: u32 = 3;

/// Tokens of an answer of the benchmark, at most.
pub const TOKENS: u32 = 64;

/// The first number of the benchmark's pictures and turns.
const FIRST: u32 = 1 << 31;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The name of the picture.
    pub picture: String,
    /// Its size.
    pub size: ImageSize,
    /// The question.
    pub question: String,
    /// How often.
    pub runs: u32,
    /// Most tokens of an answer.
    pub max_tokens: u32,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Finding,
    Answering,
    Stopping,
    Done,
    Stopped,
    Failed(Fault),
}

/// The state of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    task: Task,
    filter: Filter,
    /// The number of the current picture and turn.
    number: u32,
    state: State,
    runs: Vec<Run>,
    /// Duration of the current look.
    look: LookTime,
    /// Boxes of the current question.
    boxes: usize,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Finding boxes, in milliseconds.
    pub detector: f64,
    /// Towers and box tokens, in milliseconds.
    pub vision: f64,
    /// From the question to the first word, in milliseconds.
    pub first_word: f64,
    /// Tokens of the prompt per second.
    pub prefill: f64,
    /// Tokens of the answer per second, after the first.
    pub decode: f64,
    /// Boxes of the question.
    pub boxes: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub answer_tokens: u32,
}

impl Run {
    fn of(look: LookTime, answer: &Answer, boxes: usize) -> Self {
        let time = answer.milliseconds;
        let rate = |count: u32, milliseconds: f64| match milliseconds > 0.0 {
            true => f64::from(count) * 1000.0 / milliseconds,
            false => 0.0,
        };
        Self {
            detector: look.total(),
            vision: time.look,
            first_word: time.first_token,
            prefill: rate(answer.prefill_tokens, time.prefill),
            decode: rate(answer.tokens.saturating_sub(1), time.decode),
            boxes,
            prompt_tokens: answer.prefill_tokens,
            answer_tokens: answer.tokens,
        }
    }

    /// Milliseconds per token after the first.
    pub fn per_token(&self) -> f64 {
        match self.decode > 0.0 {
            true => 1000.0 / self.decode,
            false => f64::INFINITY,
        }
    }
}

/// The outcome of a benchmark, as it is copied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// Version of the engine.
    pub engine: String,
    /// `wgpu` or `cpu`.
    pub device: String,
    /// Name of the adapter.
    pub adapter: String,
    /// The picture.
    pub picture: String,
    /// Its width and height.
    pub size: [u32; 2],
    /// The question.
    pub question: String,
    /// Medians of the runs; times in milliseconds, rates in tokens per second.
    pub median: Run,
    /// The runs.
    pub runs: Vec<Run>,
}

impl Bench {
    /// Begins; returns the first request. `filter` chooses the boxes of the question.
    pub fn begin(task: Task, filter: Filter) -> (Self, Request) {
        let bench = Self {
            task,
            filter,
            number: FIRST,
            state: State::Finding,
            runs: Vec::new(),
            look: LookTime::default(),
            boxes: 0,
        };
        let request = bench.find();
        (bench, request)
    }

    fn find(&self) -> Request {
        Request::Look {
            picture: PictureId(self.number),
            size: Some(self.task.size),
            granularity: Granularity::Coarse,
        }
    }

    /// Whether a picture or turn has a number of the benchmark.
    pub fn is_number(number: u32) -> bool {
        number >= FIRST
    }

    /// Whether an event answers a request of a benchmark.
    pub fn is_own(event: &Event) -> bool {
        let number = match event {
            Event::Proposed { picture, .. } => Some(picture.0),
            Event::Said { turn, .. } | Event::Done { turn, .. } => Some(turn.0),
            Event::Failed { turn, picture, .. } => turn.map(|t| t.0).or(picture.map(|p| p.0)),
            _ => None,
        };
        number.is_some_and(Self::is_number)
    }

    /// Applies an event of the engine; returns the next request.
    pub fn on_event(&mut self, event: &Event) -> Option<Request> {
        match (event, &self.state) {
            (Event::Failed { fault, .. }, _) if self.is_running() => {
                self.state = State::Failed(fault.clone());
                None
            }
            (Event::Proposed { .. } | Event::Done { .. }, State::Stopping) => {
                self.state = State::Stopped;
                None
            }
            (
                Event::Proposed {
                    boxes,
                    milliseconds,
                    ..
                },
                State::Finding,
            ) => {
                self.look = *milliseconds;
                let chosen = Candidates::choose(
                    boxes,
                    Granularity::Coarse,
                    &Default::default(),
                    &Default::default(),
                    self.filter,
                );
                self.state = State::Answering;
                self.boxes = chosen.boxes.len();
                Some(self.ask(chosen.boxes.iter().map(|b| b.bbox).collect()))
            }
            (Event::Done { answer, .. }, State::Answering) => self.on_answer(answer),
            _ => None,
        }
    }

    fn ask(&self, boxes: Vec<BoxXyxy>) -> Request {
        Request::Ask {
            turn: TurnId(self.number),
            picture: PictureId(self.number),
            question: Question {
                boxes,
                text: self.task.question.clone(),
                max_tokens: self.task.max_tokens,
                sampling: Default::default(),
                earlier: Vec::new(),
                system: None,
            },
        }
    }

    fn on_answer(&mut self, answer: &Answer) -> Option<Request> {
        self.runs.push(Run::of(self.look, answer, self.boxes));
        self.number += 1;
        if self.runs.len() as u32 == self.task.runs {
            self.state = State::Done;
            return None;
        }
        self.state = State::Finding;
        Some(self.find())
    }

    /// The user stops it; returns the request for the engine.
    pub fn stop(&mut self) -> Option<Request> {
        let request = match self.state {
            State::Finding => None,
            State::Answering => Some(Request::Stop {
                turn: TurnId(self.number),
            }),
            _ => return None,
        };
        self.state = State::Stopping;
        request
    }

    /// The worker is gone.
    pub fn lose(&mut self, fault: &Fault) {
        if self.is_running() {
            self.state = State::Failed(fault.clone());
        }
    }

    /// True until it is done, stopped or failed.
    pub fn is_running(&self) -> bool {
        matches!(
            self.state,
            State::Finding | State::Answering | State::Stopping
        )
    }

    /// True from the stop of the user until the engine has answered.
    pub fn is_stopping(&self) -> bool {
        self.state == State::Stopping
    }

    /// True if the user stopped it.
    pub fn was_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Why it failed.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.state {
            State::Failed(fault) => Some(fault),
            _ => None,
        }
    }

    /// Complete runs, and all.
    pub fn progress(&self) -> (u32, u32) {
        (self.runs.len() as u32, self.task.runs)
    }

    /// The medians, once all runs are complete.
    pub fn median(&self) -> Option<Run> {
        let is_done = self.state == State::Done;
        is_done.then(|| median(&self.runs)).flatten()
    }

    /// What is copied, once all runs are complete.
    pub fn report(&self, card: &ModelCard) -> Option<Report> {
        Some(Report {
            model: card.name.clone(),
            engine: card.engine.clone(),
            device: card.device.clone(),
            adapter: card.adapter.clone(),
            picture: self.task.picture.clone(),
            size: [self.task.size.width, self.task.size.height],
            question: self.task.question.clone(),
            median: self.median()?,
            runs: self.runs.clone(),
        })
    }
}

/// The median of every figure.
fn median(runs: &[Run]) -> Option<Run> {
    let first = *runs.first()?;
    let of = |figure: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        f64::midpoint(values[low], values[high])
    };
    Some(Run {
        detector: of(|run| run.detector),
        vision: of(|run| run.vision),
        first_word: of(|run| run.first_word),
        prefill: of(|run| run.prefill),
        decode: of(|run| run.decode),
        ..first
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::test_data::card;
    use crate::error::FaultKind;
    use crate::protocol::{AskTime, Proposal, StopReason};

    fn task(runs: u32) -> Task {
        Task {
            picture: "scene.png".into(),
            size: ImageSize {
                width: 20,
                height: 10,
            },
            question: "What is here?".into(),
            runs,
            max_tokens: 64,
        }
    }

    fn begin(runs: u32) -> Bench {
        Bench::begin(task(runs), Filter::default()).0
    }

    fn proposed(bench: &Bench, upn: f64) -> Event {
        let proposal = |x: f32, score| Proposal::unlabelled([x, 0., x + 5., 5.].into(), score);
        Event::Proposed {
            picture: PictureId(bench.number),
            granularity: Granularity::Coarse,
            boxes: vec![proposal(0., 0.9), proposal(10., 0.01)],
            milliseconds: LookTime { prepare: 1.0, upn },
        }
    }

    fn done(bench: &Bench, decode: f64) -> Event {
        Event::Done {
            turn: TurnId(bench.number),
            answer: Answer {
                prompt: "<obj0><objfeat>\n?".into(),
                text: "a cat".into(),
                spans: Vec::new(),
                tokens: 11,
                prefill_tokens: 100,
                question_tokens: 9,
                gpu_bytes: None,
                stop: StopReason::End,
                milliseconds: AskTime {
                    look: 30.0,
                    prefill: 50.0,
                    first_token: 80.0,
                    decode,
                },
            },
        }
    }

    #[test]
    fn every_run_begins_with_a_new_picture_and_the_medians_are_reported() {
        let (mut bench, first) = Bench::begin(task(3), Filter::default());
        let mut request = Some(first);
        for (run, (upn, decode)) in [(9.0, 100.0), (19.0, 200.0), (99.0, 50.0)]
            .into_iter()
            .enumerate()
        {
            let Some(Request::Look { picture, size, .. }) = request else {
                panic!("{request:?}");
            };
            assert_eq!((picture.0, size.is_some()), (FIRST + run as u32, true));
            assert_eq!(bench.progress(), (run as u32, 3));
            let asked = bench.on_event(&proposed(&bench, upn));
            let Some(Request::Ask { question, .. }) = asked else {
                panic!("{asked:?}");
            };
            assert_eq!(question.boxes.len(), 1, "the filter chooses");
            assert!(bench.median().is_none());
            request = bench.on_event(&done(&bench, decode));
        }
        assert_eq!(request, None);
        assert!(!bench.is_running());
        let report = bench.report(&card()).expect("complete");
        let Run {
            detector,
            vision,
            first_word,
            prefill,
            decode,
            ..
        } = report.median;
        assert_eq!((detector, vision, first_word), (20.0, 30.0, 80.0));
        assert_eq!((prefill, decode), (2000.0, 100.0));
        assert_eq!(report.median.per_token(), 10.0);
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(json["runs"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["median"]["detector"], 20.0);
    }

    #[test]
    fn a_stop_takes_effect_with_the_next_answer() {
        let mut finding = begin(3);
        assert_eq!(finding.stop(), None, "a look cannot be stopped");
        assert!(finding.is_stopping());
        assert_eq!(finding.on_event(&proposed(&finding, 1.0)), None);
        assert!(finding.was_stopped() && !finding.is_running());

        let mut answering = begin(3);
        answering.on_event(&proposed(&answering, 1.0));
        let stop = answering.stop();
        assert_eq!(
            stop,
            Some(Request::Stop {
                turn: TurnId(FIRST)
            })
        );
        assert_eq!(answering.stop(), None, "once");
        assert_eq!(answering.on_event(&done(&answering, 1.0)), None);
        assert!(answering.was_stopped());
        assert!(answering.report(&card()).is_none());
    }

    #[test]
    fn a_failure_and_a_lost_worker_end_it() {
        let fault = Fault::new(FaultKind::Device, "GPU", "failed", "");
        let failed = Event::Failed {
            turn: None,
            picture: Some(PictureId(FIRST)),
            fault: fault.clone(),
        };
        let mut bench = begin(1);
        assert!(Bench::is_own(&failed));
        assert_eq!(bench.on_event(&failed), None);
        assert_eq!(bench.fault(), Some(&fault));
        let mut lost = begin(1);
        lost.lose(&fault);
        assert_eq!(lost.fault(), Some(&fault));
    }

    #[test]
    fn events_of_the_conversation_are_not_its_own() {
        let bench = begin(1);
        assert!(Bench::is_own(&proposed(&bench, 1.0)));
        assert!(Bench::is_own(&done(&bench, 1.0)));
        let said = |turn| Event::Said {
            turn: TurnId(turn),
            spans: Vec::new(),
        };
        assert!(!Bench::is_own(&said(7)) && Bench::is_own(&said(FIRST)));
        assert!(!Bench::is_own(&Event::Ready(card())));
    }
}
