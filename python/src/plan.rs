//! What a batch does with each picture: a task, or a question.

use chatrex::batch::questions::{Kind, Questions};
use chatrex::generate::sampling::Sampling;
use chatrex::protocol::Client as _;
use chatrex::text::prompt::{MAX_BOXES, index_tag};
use chatrex::{Answer, Fault, Granularity, Pixels, Proposal, Question, StopHandle};
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};

use crate::fault::{cancelled, or_raise};
use crate::proposals::Thresholds;
use crate::worker::Worker;

/// What is done with a picture.
#[derive(Deserialize)]
pub struct Plan {
    /// A task as `chatrex batch --task` takes it, or
    task: Option<String>,
    /// a question.
    question: Option<String>,
    granularity: Granularity,
    score: Option<f32>,
    nms: Option<f64>,
    max_tokens: u32,
    #[serde(default)]
    sampling: Sampling,
    #[serde(default)]
    system: Option<String>,
}

/// What was found in a picture.
#[derive(Serialize)]
pub struct Outcome {
    width: u32,
    height: u32,
    boxes: Vec<Proposal>,
    turns: Vec<Turn>,
}

#[derive(Serialize)]
struct Turn {
    question: String,
    answer: Answer,
}

/// The questions of a task about `boxes` boxes.
///
/// # Errors
/// There is no such task, or it lacks things to look for.
fn questions(task: &str, boxes: usize) -> Result<Vec<String>, Fault> {
    let asked = Questions::of_task(task).map_err(|fault| Fault {
        place: "task".into(),
        ..fault
    })?;
    let of_asked = asked.all.iter().flat_map(|asked| match asked.kind {
        Kind::Propose => Vec::new(),
        Kind::RegionCaption => (0..boxes as u32)
            .map(|index| asked.text.replace("[OBJ]", &index_tag(index)))
            .collect(),
        _ => vec![asked.text.clone()],
    });
    Ok(of_asked.collect())
}

/// Checks a task before pictures are decoded.
///
/// # Errors
/// There is no such task, or it lacks things to look for.
#[pyfunction]
pub fn check_task(py: Python<'_>, task: &str) -> PyResult<()> {
    or_raise(py, questions(task, 0)).map(drop)
}

impl Plan {
    /// Looks at a picture and asks what is planned.
    ///
    /// # Errors
    /// The picture or a question cannot be used, the device fails, or `stop` was stopped.
    pub fn carry_out(
        self,
        worker: &mut Worker,
        pixels: Pixels,
        stop: &StopHandle,
    ) -> Result<Outcome, Fault> {
        if stop.is_stopped() {
            return Err(cancelled());
        }
        let thresholds = Thresholds::checked(self.score, self.nms)?;
        let (width, height) = (pixels.width, pixels.height);
        let (_, all, _) = worker.look(pixels, self.granularity)?;
        let session = &mut worker.session;
        session.stop_with(stop);
        let boxes = thresholds.choose(&all, session.card().selection(), MAX_BOXES);
        let texts = match (&self.task, self.question) {
            (Some(task), _) => questions(task, boxes.len())?,
            (None, question) => question.into_iter().collect(),
        };
        let mut turns = Vec::new();
        for text in texts {
            let answer = session.answer(Question {
                boxes: boxes.iter().map(|proposal| proposal.bbox).collect(),
                text: text.clone(),
                max_tokens: self.max_tokens,
                sampling: self.sampling,
                earlier: Vec::new(),
                system: self.system.clone(),
            })?;
            if stop.is_stopped() {
                return Err(cancelled());
            }
            let question = text;
            turns.push(Turn { question, answer });
        }
        Ok(Outcome {
            width,
            height,
            boxes,
            turns,
        })
    }
}
