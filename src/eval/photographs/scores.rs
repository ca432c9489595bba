//! Sums of all metrics, picture by picture, and their standard errors.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::average_precision::{AveragePrecision, THRESHOLDS};
use crate::scenes::Rng;

/// Resamples of the pictures that a standard error is computed from.
const RESAMPLES: u64 = 200;

/// A metric that is a quotient of two sums over pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    RecallAt10,
    RecallAt30,
    RecallAt100,
    ArAt1,
    ArAt10,
    ArAt100,
    DetectPrecision,
    DetectRecall,
    DetectF1,
    DetectRecallLarge,
    Absent,
    Refusal,
    Refer,
    Count,
    CountWithinOne,
    Naming,
    NamingSynonym,
    NamingFound,
    Exists,
    Phrasing,
}

impl Metric {
    /// All metrics with their names.
    const ALL: [(Self, &'static str); 20] = [
        (Self::RecallAt10, "recall_50_at_10"),
        (Self::RecallAt30, "recall_50_at_30"),
        (Self::RecallAt100, "recall_50_at_100"),
        (Self::ArAt1, "ar_at_1"),
        (Self::ArAt10, "ar_at_10"),
        (Self::ArAt100, "ar_at_100"),
        (Self::DetectPrecision, "detect_precision"),
        (Self::DetectRecall, "detect_recall"),
        (Self::DetectF1, "detect_f1"),
        (Self::DetectRecallLarge, "detect_recall_large"),
        (Self::Absent, "absent_accuracy"),
        (Self::Refusal, "refusal_accuracy"),
        (Self::Refer, "refer_accuracy"),
        (Self::Count, "count_accuracy"),
        (Self::CountWithinOne, "count_within_one"),
        (Self::Naming, "naming_accuracy"),
        (Self::NamingSynonym, "naming_accuracy_synonyms"),
        (Self::NamingFound, "naming_accuracy_found"),
        (Self::Exists, "exists_accuracy"),
        (Self::Phrasing, "phrasing_accuracy"),
    ];
}

/// Position of the average precisions among the metrics.
const BOXES_AT: usize = 6;

/// The sums of one picture: numerator and denominator of each [`Metric`].
type Sums = [[usize; 2]; Metric::ALL.len()];

/// Number of questions of a task, and of right answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) right: usize,
}

/// Accumulated results of a model or a baseline.
#[derive(Default)]
pub(super) struct Scores {
    pictures: Vec<Sums>,
    /// Of the proposals without their labels.
    pub(super) boxes: AveragePrecision,
    /// Of the proposals of each label; empty if proposals have none.
    pub(super) kinds: Vec<AveragePrecision>,
    /// Per task.
    pub(super) tasks: BTreeMap<String, Tally>,
}

impl Scores {
    /// Begins the next picture.
    pub(super) fn next_picture(&mut self) {
        self.pictures.push(Sums::default());
    }

    /// Adds to the sums of the current picture.
    pub(super) fn add(&mut self, metric: Metric, part: usize, whole: usize) {
        let sums = self.pictures.last_mut().expect("a picture has begun");
        let [parts, wholes] = &mut sums[metric as usize];
        *parts += part;
        *wholes += whole;
    }

    /// Adds the result of one question to a metric.
    pub(super) fn tally(&mut self, metric: Metric, right: bool) {
        self.add(metric, right.into(), 1);
    }

    /// Adds the result of one question to a task.
    pub(super) fn task(&mut self, task: &str, right: bool) {
        let tally = self.tasks.entry(task.to_owned()).or_default();
        tally.asked += 1;
        tally.right += usize::from(right);
    }

    /// The value of every metric and its standard error: the standard deviation over random resamples of
    /// the pictures with replacement (bootstrap). The resamples are the same in every run.
    pub(super) fn metrics(&mut self) -> Metrics {
        self.boxes.sort();
        self.kinds.iter_mut().for_each(AveragePrecision::sort);
        let count = self.pictures.len();
        let values = self.values(&vec![1; count]);
        let samples: Vec<Vec<Option<f64>>> = (0..RESAMPLES)
            .map(|sample| {
                let mut rng = Rng::new(sample, 0);
                let mut weights = vec![0; count];
                (0..count).for_each(|_| weights[rng.below(count)] += 1);
                self.values(&weights)
            })
            .collect();
        let rows = Self::names()
            .into_iter()
            .zip(values)
            .enumerate()
            .map(|(row, (name, value))| {
                let drawn = samples.iter().filter_map(|sample| sample[row]);
                let error = value.and(deviation(&drawn.collect::<Vec<f64>>()));
                MetricRow { name, value, error }
            });
        Metrics(rows.collect())
    }

    fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = Metric::ALL.iter().map(|(_, name)| *name).collect();
        names.splice(
            BOXES_AT..BOXES_AT,
            ["ap_50", "map", "ap_50_kinds", "map_kinds"],
        );
        names
    }

    /// The values in the order of [`Scores::names`] if picture `p` counts `weights[p]` times.
    fn values(&self, weights: &[usize]) -> Vec<Option<f64>> {
        let quotient = |&(metric, _): &(Metric, &str)| {
            let mut sums = [0, 0];
            for (picture, weight) in self.pictures.iter().zip(weights) {
                let [part, whole] = picture[metric as usize];
                sums[0] += weight * part;
                sums[1] += weight * whole;
            }
            (sums[1] > 0).then(|| sums[0] as f64 / sums[1] as f64)
        };
        let both = |ap: [f64; THRESHOLDS]| [ap[0], ap.iter().sum::<f64>() / THRESHOLDS as f64];
        let boxes = self.boxes.at(weights).map(both);
        let kinds: Vec<[f64; 2]> = self
            .kinds
            .iter()
            .filter_map(|kind| kind.at(weights))
            .map(both)
            .collect();
        let mean = |value: usize| {
            let sum: f64 = kinds.iter().map(|kind| kind[value]).sum();
            (!kinds.is_empty()).then(|| sum / kinds.len() as f64)
        };
        let precisions = [
            boxes.map(|ap| ap[0]),
            boxes.map(|ap| ap[1]),
            mean(0),
            mean(1),
        ];
        let mut values: Vec<Option<f64>> = Metric::ALL.iter().map(quotient).collect();
        values.splice(BOXES_AT..BOXES_AT, precisions);
        values
    }
}

/// Standard deviation; `None` of fewer than two values.
pub(in crate::eval) fn deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (count - 1.0)).sqrt())
}

/// A metric with its value and standard error; `None` if no question counts for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricRow {
    /// The key in JSON.
    pub name: &'static str,
    /// The value, 0 to 1.
    pub value: Option<f64>,
    /// The standard error.
    pub error: Option<f64>,
}

impl fmt::Display for MetricRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.error) {
            (None, _) => f.write_str("-"),
            (Some(value), None) => write!(f, "{value:.3}"),
            (Some(value), Some(error)) => write!(f, "{value:.3} ± {error:.3}"),
        }
    }
}

/// All metrics, in the order of `docs/reference/interfaces.md` section 5.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics(pub Vec<MetricRow>);

impl Metrics {
    /// The row of a metric.
    pub fn get(&self, name: &str) -> Option<&MetricRow> {
        self.0.iter().find(|row| row.name == name)
    }

    /// The standard errors.
    pub(super) fn errors(&self) -> Errors {
        Errors(self.clone())
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for row in &self.0 {
            map.serialize_entry(row.name, &row.value)?;
        }
        map.end()
    }
}

/// The standard errors of [`Metrics`]; serialized as the values are.
#[derive(Clone, Debug, PartialEq)]
pub struct Errors(Metrics);

impl Serialize for Errors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = &self.0.0;
        let mut map = serializer.serialize_map(Some(rows.len()))?;
        for row in rows {
            map.serialize_entry(row.name, &row.error)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_values() {
        let mut scores = Scores::default();
        for (index, (metric, _)) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, index);
            scores.next_picture();
            scores.add(metric, index, 100);
        }
        let metrics = scores.metrics();
        assert_eq!(metrics.0.len(), 24);
        for (index, (_, name)) in Metric::ALL.iter().enumerate() {
            assert_eq!(metrics.get(name).unwrap().value, Some(index as f64 / 100.0));
        }
        assert_eq!(metrics.get("map").unwrap().value, None);
        assert_eq!(metrics.get("map").unwrap().error, None);
    }

    /// 100 pictures with one question each: the error is near that of the binomial distribution.
    #[test]
    fn the_error_of_independent_questions_is_binomial() {
        let mut scores = Scores::default();
        for picture in 0..100 {
            scores.next_picture();
            scores.tally(Metric::Count, picture % 5 == 0);
        }
        let metrics = scores.metrics();
        let row = metrics.get("count_accuracy").unwrap();
        assert_eq!(row.value, Some(0.2));
        let error = row.error.unwrap();
        assert!((error - 0.04).abs() < 0.006, "{error}");
        assert_eq!(deviation(&[1.0]), None);
    }
}
