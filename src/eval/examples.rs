//! The worst errors of an evaluation, for a report that people read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::geometry::BoxXyxy;

/// Errors that are kept of each task.
const PER_TASK: usize = 8;

/// A wrong answer with its boxes, in pixels of the picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The file of the picture.
    pub image: PathBuf,
    /// The task.
    pub task: String,
    /// The question; empty for proposals.
    pub question: String,
    /// The answer with tags.
    pub answer: String,
    /// The true answer, for people to read.
    pub truth: String,
    /// The true boxes.
    pub truth_boxes: Vec<BoxXyxy>,
    /// The boxes that the answer names.
    pub answered: Vec<BoxXyxy>,
    /// How wrong it is; higher is worse, and only comparable within a task.
    pub badness: f64,
}

/// The worst errors of each task.
#[derive(Clone, Debug, Default)]
pub struct WorstErrors(BTreeMap<String, Vec<Example>>);

impl WorstErrors {
    /// Keeps `example` if it is one of the worst of its task. Of equal ones the first stays.
    pub fn add(&mut self, example: Example) {
        let kept = self.0.entry(example.task.clone()).or_default();
        let place = kept.partition_point(|other| other.badness >= example.badness);
        kept.insert(place, example);
        kept.truncate(PER_TASK);
    }

    /// At most `count` errors: the worst of every task, then the second of every task, and so on.
    pub fn take(self, count: usize) -> Vec<Example> {
        let mut tasks: Vec<_> = self.0.into_values().map(Vec::into_iter).collect();
        let mut taken: Vec<Example> = Vec::new();
        for _ in 0..PER_TASK {
            for task in &mut tasks {
                taken.extend(task.next());
            }
        }
        taken.truncate(count);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_shown_before_the_second_of_one() {
        let mut worst = WorstErrors::default();
        for number in 0..30 {
            worst.add(Example {
                task: if number < 25 { "detect" } else { "name" }.into(),
                badness: f64::from(number % 10),
                answer: number.to_string(),
                ..Example::default()
            });
        }
        let all = worst.clone().take(100);
        assert_eq!(all.len(), PER_TASK + 5);
        let first: Vec<&str> = all[..4].iter().map(|example| &*example.answer).collect();
        assert_eq!(first, ["9", "29", "19", "28"]);
        assert_eq!(worst.take(3).len(), 3);
    }
}
