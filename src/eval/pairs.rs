//! Paired comparison of two models on the same scenes, for example of two precisions.

use std::fmt;

use serde::Serialize;

use super::proposals::fraction;
use super::{EvalModel, EvalOptions, EvalScene, Metrics, Scores, check_seeds, questions};
use crate::error::Fault;
use crate::geometry::BoxXyxy;

/// Number of blocks that scenes are divided into; the standard error comes from their differences.
const BLOCKS: usize = 20;

/// One metric of two models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricPair {
    /// Name of the metric.
    pub name: &'static str,
    /// Value of the model.
    pub model: f64,
    /// Value of the reference.
    pub against: f64,
    /// `model - against`.
    pub difference: f64,
    /// Standard error of the difference, estimated from blocks of scenes.
    pub error: f64,
}

/// Result of a comparison; `chatrex eval --against` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedReport {
    /// Number of scenes.
    pub count: u64,
    /// Seed of the first scene.
    pub seed: u64,
    /// Name of the model.
    pub model: String,
    /// Name of the reference.
    pub against: String,
    /// All metrics.
    pub metrics: Vec<MetricPair>,
    /// Number of questions.
    pub questions: usize,
    /// Fraction of questions with identical answer texts, each model with its own boxes.
    pub same_answers: f64,
    /// Largest difference of a box coordinate in pixels; null if the numbers of boxes differ in a
    /// scene.
    pub box_difference: Option<f32>,
}

/// Asks two models the same questions about the same scenes, each with its own proposals. `progress`
/// gets the number of finished scenes.
///
/// # Errors
/// A seed below 900000, zero scenes, or a fault of a model.
pub fn compare(
    models: [&mut dyn EvalModel; 2],
    options: [&EvalOptions; 2],
    mut progress: impl FnMut(u64),
) -> Result<PairedReport, Fault> {
    let [first, second] = options;
    check_seeds(first)?;
    let [first_model, second_model] = models;
    let mut all = [Scores::default(), Scores::default()];
    let mut blocks: Vec<[Scores; 2]> = (0..BLOCKS).map(|_| Default::default()).collect();
    let (mut asked, mut identical) = (0, 0);
    let mut box_difference = Some(0.0_f32);
    for number in 0..first.count {
        let block = &mut blocks[number as usize % BLOCKS];
        let mut texts = [Vec::new(), Vec::new()];
        let mut used_boxes = [Vec::new(), Vec::new()];
        for (which, (model, options)) in [(&mut *first_model, first), (&mut *second_model, second)]
            .into_iter()
            .enumerate()
        {
            let input = EvalScene::look(model, options, first.seed + number)?;
            let truth: Vec<_> = input.scene.objects.iter().map(|o| o.bbox).collect();
            all[which].proposals.add(&input.proposals, &truth);
            block[which].proposals.add(&input.proposals, &truth);
            for question in questions(&input, number) {
                let pixels = &input.scene.pixels;
                let answer = question.ask(model, pixels, &question.boxes)?;
                all[which]
                    .answers
                    .add(&question.ground_truth(&input), &answer);
                block[which]
                    .answers
                    .add(&question.ground_truth(&input), &answer);
                texts[which].push(answer.text);
            }
            used_boxes[which] = input.boxes;
        }
        let [a, b] = &used_boxes;
        box_difference = box_difference
            .zip(max_difference(a, b))
            .map(|(a, b)| max_f32(a, b));
        let [a, b] = &texts;
        asked += a.len().max(b.len());
        identical += a.iter().zip(b).filter(|(a, b)| a == b).count();
        progress(number + 1);
    }
    let [rows, others] = all.map(|scores| scores.metrics().rows());
    let parts: Vec<[Metrics; 2]> = blocks
        .into_iter()
        .take(first.count.min(BLOCKS as u64) as usize)
        .map(|pair| pair.map(|scores| scores.metrics()))
        .collect();
    let metrics = rows
        .iter()
        .zip(others)
        .enumerate()
        .map(|(row, (a, b))| MetricPair {
            name: a.0,
            model: a.1,
            against: b.1,
            difference: a.1 - b.1,
            error: standard_error(parts.iter().map(|[a, b]| a.rows()[row].1 - b.rows()[row].1)),
        });
    Ok(PairedReport {
        count: first.count,
        seed: first.seed,
        model: first.model.clone(),
        against: second.model.clone(),
        metrics: metrics.collect(),
        questions: asked,
        same_answers: fraction(identical, asked),
        box_difference,
    })
}

/// Largest difference of a coordinate, box by box; `None` if the numbers of boxes differ.
fn max_difference(a: &[BoxXyxy], b: &[BoxXyxy]) -> Option<f32> {
    let pairs = a.iter().zip(b);
    let differences = pairs.flat_map(|(a, b)| {
        let (a, b) = (<[f32; 4]>::from(*a), <[f32; 4]>::from(*b));
        a.into_iter().zip(b).map(|(a, b)| (a - b).abs())
    });
    (a.len() == b.len()).then(|| differences.fold(0.0, max_f32))
}

/// The larger of two non-negative numbers; NaN is larger than all.
fn max_f32(a: f32, b: f32) -> f32 {
    std::cmp::max_by(a, b, f32::total_cmp)
}

/// Standard error of the mean of `values`; 0 for fewer than two.
fn standard_error(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (count - 1.0) / count).sqrt()
}

impl fmt::Display for PairedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, seed) = (self.count, self.seed);
        writeln!(
            f,
            "{count} scenes from seed {seed}: {} against {}",
            self.model, self.against
        )?;
        writeln!(
            f,
            "{:<26} {:>8} {:>8} {:>11} {:>8}",
            "", "model", "against", "difference", "error"
        )?;
        for pair in &self.metrics {
            writeln!(
                f,
                "{:<26} {:>8.4} {:>8.4} {:>+11.4} {:>8.4}",
                pair.name, pair.model, pair.against, pair.difference, pair.error
            )?;
        }
        write!(
            f,
            "{} questions, {:.2} % answered word for word alike; boxes ",
            self.questions,
            100.0 * self.same_answers
        )?;
        match self.box_difference {
            Some(pixels) => write!(f, "differ by at most {pixels} pixels"),
            None => write!(f, "differ in number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_compared_in_order() {
        let boxes =
            |x: &[f32]| -> Vec<BoxXyxy> { x.iter().map(|&x| [x, 0.0, 9.0, 9.0].into()).collect() };
        assert_eq!(
            max_difference(&boxes(&[1.0, 2.0]), &boxes(&[1.0, 2.5])),
            Some(0.5)
        );
        assert_eq!(max_difference(&boxes(&[1.0]), &boxes(&[1.0, 2.0])), None);
        assert_eq!(max_difference(&[], &[]), Some(0.0));
        let not_finite = max_difference(&boxes(&[f32::NAN, 1.0]), &boxes(&[1.0, 1.0]));
        assert!(not_finite.is_some_and(f32::is_nan));
    }

    #[test]
    fn equal_differences_have_a_standard_error_of_zero() {
        assert_eq!(standard_error([0.5; 4].into_iter()), 0.0);
        assert_eq!(standard_error([1.0].into_iter()), 0.0);
        let error = standard_error([1.0, 3.0].into_iter());
        assert!((error - 1.0).abs() < 1e-12, "{error}");
    }
}
