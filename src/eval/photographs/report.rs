//! The report of an evaluation on photographs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::scores::{Errors, Metrics, Scores};
use crate::eval::examples::Example;
use crate::eval::html::Page;
use crate::eval::{AskWith, TaskScore};

/// Something of the blind baselines and of the detector's labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhotoBaselines<T> {
    /// A grey picture with the boxes of the picture; the proposals are those of the grey picture. Absent
    /// if it did not run.
    pub blank: Option<T>,
    /// The picture with the boxes and proposals of another one, scaled. Absent if it did not run.
    pub shuffled: Option<T>,
    /// Answers from the labels of the proposals; absent if they have none.
    pub detector: Option<T>,
}

/// Result of an evaluation on photographs; `chatrex eval --coco --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhotoReport {
    /// Name of the annotations.
    pub annotations: String,
    /// Number of pictures.
    pub count: usize,
    /// Number of objects.
    pub objects: usize,
    /// Number of crowds.
    pub crowds: usize,
    /// Annotations without area, which are left out.
    pub without_area: usize,
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// The source of the boxes.
    pub ask_with: AskWith,
    /// Metrics of the model.
    pub metrics: Metrics,
    /// Their standard errors.
    pub errors: Errors,
    /// Metrics of the baselines.
    pub baselines: PhotoBaselines<Metrics>,
    /// Their standard errors.
    pub baseline_errors: PhotoBaselines<Errors>,
    /// Results of the model per task.
    pub per_task: BTreeMap<String, TaskScore>,
    /// Duration in seconds.
    pub seconds: f64,
    /// The worst errors, for [`PhotoReport::page`].
    #[serde(skip)]
    pub worst: Vec<Example>,
}

impl PhotoReport {
    /// The report as HTML.
    pub fn page(&self) -> Page {
        let mut page = Page::new(&format!("{} on {}", self.model, self.annotations));
        page.paragraph(&format!(
            "{} pictures with {} objects and {} crowds, on {} in {:.0} s. A standard error is that of a bootstrap over \
             the pictures.",
            self.count, self.objects, self.crowds, self.device, self.seconds
        ));
        let columns = self.columns();
        let names = columns.iter().map(|(name, _)| *name);
        let head: Vec<&str> = std::iter::once("metric").chain(names).collect();
        let measured = |row: usize| columns.iter().any(|(_, m)| m.0[row].value.is_some());
        let rows: Vec<Vec<String>> = (0..self.metrics.0.len())
            .filter(|&row| measured(row))
            .map(|row| {
                let name = self.metrics.0[row].name.to_owned();
                let values = columns
                    .iter()
                    .map(|(_, metrics)| metrics.0[row].to_string());
                std::iter::once(name).chain(values).collect()
            })
            .collect();
        page.table("Metrics", &head, &rows);
        let tasks: Vec<Vec<String>> = (self.per_task.iter())
            .map(|(task, score)| {
                vec![
                    task.clone(),
                    format!("{:.3}", score.right),
                    score.asked.to_string(),
                ]
            })
            .collect();
        if !tasks.is_empty() {
            page.table("Tasks", &["task", "right", "asked"], &tasks);
        }
        page.examples(&self.worst);
        page
    }

    /// The model and the baselines that ran, with their metrics.
    fn columns(&self) -> Vec<(&str, &Metrics)> {
        let baselines = [
            ("blank", &self.baselines.blank),
            ("shuffled", &self.baselines.shuffled),
            ("detector", &self.baselines.detector),
        ];
        let ran = baselines.map(|(name, metrics)| Some((name, metrics.as_ref()?)));
        std::iter::once((self.model.as_str(), &self.metrics))
            .chain(ran.into_iter().flatten())
            .collect()
    }
}

/// An answer of the model; `chatrex eval --coco --answers` writes one per line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerRecord {
    /// File of the picture.
    pub image: String,
    /// The task.
    pub task: String,
    /// The question.
    pub question: String,
    /// The answer with tags.
    pub answer: String,
    /// The true answer, for people to read.
    pub truth: String,
    /// Whether the answer is right; for wordings that no training uses, whether it is that to the trained
    /// wording.
    pub right: bool,
}

/// Metrics and standard errors of `scores`.
pub(super) fn values(mut scores: Scores) -> (Metrics, Errors) {
    let metrics = scores.metrics();
    let errors = metrics.errors();
    (metrics, errors)
}

/// Results per task.
pub(super) fn tasks(scores: &Scores) -> BTreeMap<String, TaskScore> {
    let tasks = scores.tasks.iter().map(|(task, tally)| {
        let right = tally.right as f64 / tally.asked as f64;
        let asked = tally.asked;
        (task.clone(), TaskScore { asked, right })
    });
    tasks.collect()
}

/// Metrics and standard errors of the baselines: `[blank, shuffled]`, and the detector's labels.
pub(super) fn baselines(
    blind: Option<[Scores; 2]>,
    labels: Option<Scores>,
) -> (PhotoBaselines<Metrics>, PhotoBaselines<Errors>) {
    let labeled = labels.is_some();
    let clear = |mut scores: Scores| {
        if !labeled {
            scores.kinds.clear();
        }
        values(scores)
    };
    let (blank, shuffled) = match blind {
        Some([blank, shuffled]) => (Some(clear(blank)), Some(clear(shuffled))),
        None => (None, None),
    };
    let (blank, blank_errors) = blank.unzip();
    let (shuffled, shuffled_errors) = shuffled.unzip();
    let (detector, detector_errors) = labels.map(values).unzip();
    let metrics = PhotoBaselines {
        blank,
        shuffled,
        detector,
    };
    let errors = PhotoBaselines {
        blank: blank_errors,
        shuffled: shuffled_errors,
        detector: detector_errors,
    };
    (metrics, errors)
}

impl fmt::Display for PhotoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        write!(f, "{:24}", "")?;
        for (name, _) in &columns {
            write!(f, "{name:>16}")?;
        }
        writeln!(f)?;
        for (index, row) in self.metrics.0.iter().enumerate() {
            write!(f, "{:24}", row.name)?;
            for (_, metrics) in &columns {
                write!(f, "{:>16}", metrics.0[index].to_string())?;
            }
            writeln!(f)?;
        }
        for (task, score) in &self.per_task {
            writeln!(f, "{task:24}{:>16.3} of {}", score.right, score.asked)?;
        }
        write!(
            f,
            "{} pictures with {} objects and {} crowds on {} in {:.0} s",
            self.count, self.objects, self.crowds, self.device, self.seconds
        )
    }
}
