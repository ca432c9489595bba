//! Two models on the same scenes: what precision costs.

use std::fmt;

use serde::Serialize;

use super::{EvalOptions, Given, Metrics, Subject, Tests, check_seeds, share, trials};
use crate::error::Fault;
use crate::geometry::BoxXyxy;

/// Scenes are dealt out to this many blocks, whose differences tell how sure a difference is.
const BLOCKS: usize = 20;

/// One measure of two models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The measure's name.
    pub name: &'static str,
    /// Of the model.
    pub model: f64,
    /// Of the one it is compared with.
    pub against: f64,
    /// The first less the second.
    pub difference: f64,
    /// Standard error of the difference, from blocks of scenes.
    pub error: f64,
}

/// What `chatrex eval --against` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedReport {
    /// Scenes measured on.
    pub count: u64,
    /// Seed of the first.
    pub seed: u64,
    /// The model's name.
    pub model: String,
    /// The other's.
    pub against: String,
    /// Every measure.
    pub metrics: Vec<Pair>,
    /// Questions asked of both.
    pub questions: usize,
    /// Share of them that both answered word for word alike, each with its own boxes.
    pub same_answers: f64,
    /// The largest difference between coordinates of the boxes that both offered, in pixels; null
    /// where one offered more boxes of a scene than the other.
    pub box_difference: Option<f32>,
}

/// Asks two models the same questions about the same scenes, each with the boxes it found itself.
///
/// # Errors
/// Seeds below 900000, no scenes, and whatever fault a subject reports.
pub fn compare(
    subjects: [&mut dyn Subject; 2],
    options: [&EvalOptions; 2],
    mut done: impl FnMut(u64),
) -> Result<PairedReport, Fault> {
    let [model, against] = options;
    check_seeds(model)?;
    let [first, second] = subjects;
    let mut all = [Tests::default(), Tests::default()];
    let mut blocks: Vec<[Tests; 2]> = (0..BLOCKS).map(|_| Default::default()).collect();
    let (mut questions, mut same) = (0, 0);
    let mut furthest = Some(0.0_f32);
    for number in 0..model.count {
        let block = &mut blocks[number as usize % BLOCKS];
        let mut texts = [Vec::new(), Vec::new()];
        let mut offered = [Vec::new(), Vec::new()];
        for (which, (subject, options)) in [(&mut *first, model), (&mut *second, against)]
            .into_iter()
            .enumerate()
        {
            let given = Given::look(subject, options, model.seed + number)?;
            let truth: Vec<_> = given.scene.objects.iter().map(|o| o.bbox).collect();
            all[which].proposals.add(&given.proposals, &truth);
            block[which].proposals.add(&given.proposals, &truth);
            for trial in trials(&given, number) {
                let pixels = &given.scene.pixels;
                let answer = trial.ask(subject, pixels, &trial.boxes)?;
                all[which].answers.add(&trial.question(&given), &answer);
                block[which].answers.add(&trial.question(&given), &answer);
                texts[which].push(answer.text);
            }
            offered[which] = given.boxes;
        }
        let [a, b] = &offered;
        furthest = furthest.zip(apart(a, b)).map(|(a, b)| largest(a, b));
        let [a, b] = &texts;
        questions += a.len().max(b.len());
        same += a.iter().zip(b).filter(|(a, b)| a == b).count();
        done(number + 1);
    }
    let [rows, others] = all.map(|tests| tests.metrics().rows());
    let parts: Vec<[Metrics; 2]> = blocks
        .into_iter()
        .take(model.count.min(BLOCKS as u64) as usize)
        .map(|pair| pair.map(|tests| tests.metrics()))
        .collect();
    let metrics = rows
        .iter()
        .zip(others)
        .enumerate()
        .map(|(row, (a, b))| Pair {
            name: a.0,
            model: a.1,
            against: b.1,
            difference: a.1 - b.1,
            error: standard_error(parts.iter().map(|[a, b]| a.rows()[row].1 - b.rows()[row].1)),
        });
    Ok(PairedReport {
        count: model.count,
        seed: model.seed,
        model: model.model.clone(),
        against: against.model.clone(),
        metrics: metrics.collect(),
        questions,
        same_answers: share(same, questions),
        box_difference: furthest,
    })
}

/// The largest difference between coordinates of boxes one by one; none where their numbers differ.
fn apart(a: &[BoxXyxy], b: &[BoxXyxy]) -> Option<f32> {
    let pairs = a.iter().zip(b);
    let differences = pairs.flat_map(|(a, b)| {
        let (a, b) = (<[f32; 4]>::from(*a), <[f32; 4]>::from(*b));
        a.into_iter().zip(b).map(|(a, b)| (a - b).abs())
    });
    (a.len() == b.len()).then(|| differences.fold(0.0, largest))
}

/// The larger of two numbers that are not negative; what is no number is larger than all.
fn largest(a: f32, b: f32) -> f32 {
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
    fn boxes_are_compared_one_by_one() {
        let boxes =
            |x: &[f32]| -> Vec<BoxXyxy> { x.iter().map(|&x| [x, 0.0, 9.0, 9.0].into()).collect() };
        assert_eq!(apart(&boxes(&[1.0, 2.0]), &boxes(&[1.0, 2.5])), Some(0.5));
        assert_eq!(apart(&boxes(&[1.0]), &boxes(&[1.0, 2.0])), None);
        assert_eq!(apart(&[], &[]), Some(0.0));
        let no_number = apart(&boxes(&[f32::NAN, 1.0]), &boxes(&[1.0, 1.0]));
        assert!(no_number.is_some_and(f32::is_nan));
    }

    #[test]
    fn equal_differences_have_no_error() {
        assert_eq!(standard_error([0.5; 4].into_iter()), 0.0);
        assert_eq!(standard_error([1.0].into_iter()), 0.0);
        let error = standard_error([1.0, 3.0].into_iter());
        assert!((error - 1.0).abs() < 1e-12, "{error}");
    }
}
