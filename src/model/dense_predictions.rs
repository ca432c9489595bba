//! The predictions of a dense detector on the CPU: one box and one score per class for every cell of
//! every level.

use crate::geometry::BoxXyxy;

/// Scores below this are background.
const MIN_SCORE: f32 = 0.02;
/// At most this many boxes are proposed.
const MAX_PROPOSALS: usize = 1000;
/// IoU from which a prediction contributes to the class scores of a box.
const SAME_OBJECT_IOU: f32 = 0.6;
/// A box whose class scores are all below this is of no known class.
const UNKNOWN_SCORE: f32 = 0.03;
/// IoU below which a prediction says nothing about a box.
const MIN_IOU: f32 = 0.1;

/// The predictions of one picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DensePredictions {
    /// In pixels of the original picture, `[A]`.
    pub boxes: Vec<BoxXyxy>,
    /// Class scores after the sigmoid, `[A, classes]`, row-major.
    pub scores: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
}

/// A predicted box with the class of its highest score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifiedBox {
    /// In pixels of the original picture.
    pub bbox: BoxXyxy,
    /// The highest class score of the prediction.
    pub score: f32,
    /// The class with the highest of the [`DensePredictions::class_scores`] of the box.
    pub class: usize,
}

impl DensePredictions {
    /// The best boxes of all levels, best first, without non-maximum suppression; equal scores keep
    /// their order.
    pub fn proposals(&self) -> Vec<ClassifiedBox> {
        let objects = self.objects();
        let mut order = objects.clone();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        order.truncate(MAX_PROPOSALS);
        let boxes: Vec<BoxXyxy> = order.iter().map(|&(index, _)| self.boxes[index]).collect();
        let scores = self.mean_scores(&objects, &boxes);
        order
            .iter()
            .zip(scores.chunks(self.classes.max(1)))
            .map(|(&(index, score), row)| ClassifiedBox {
                bbox: self.boxes[index],
                score,
                class: argmax(row),
            })
            .collect()
    }

    /// Class scores of any boxes, proposed or drawn by a user, `[N, classes]`: the mean over the
    /// predictions with an IoU of at least 0.6, weighted by `IoU² * best score`. A box without such a
    /// prediction gets the scores of the prediction with the highest IoU. One that overlaps no
    /// prediction, and one whose scores are all below 0.03, gets zeros.
    pub fn class_scores(&self, boxes: &[BoxXyxy]) -> Vec<f32> {
        let mut scores = self.mean_scores(&self.objects(), boxes);
        for row in scores.chunks_mut(self.classes.max(1)) {
            if row.iter().all(|&score| score < UNKNOWN_SCORE) {
                row.fill(0.0);
            }
        }
        scores
    }

    /// The predictions that are not background, with their highest scores.
    fn objects(&self) -> Vec<(usize, f32)> {
        (0..self.boxes.len())
            .map(|index| (index, self.best(index)))
            .filter(|&(_, score)| score >= MIN_SCORE)
            .collect()
    }

    /// [`DensePredictions::class_scores`] with the low scores; `objects` are [`Self::objects`].
    fn mean_scores(&self, objects: &[(usize, f32)], boxes: &[BoxXyxy]) -> Vec<f32> {
        let mut result = vec![0.0; boxes.len() * self.classes];
        for (given, row) in boxes.iter().zip(result.chunks_mut(self.classes.max(1))) {
            let mut total = 0.0_f32;
            for &(index, score) in objects {
                let iou = self.boxes[index].iou(given);
                if iou >= SAME_OBJECT_IOU {
                    let weight = iou * iou * score;
                    total += weight;
                    for (sum, value) in row.iter_mut().zip(self.row(index)) {
                        *sum += weight * value;
                    }
                }
            }
            if total > 0.0 {
                row.iter_mut().for_each(|sum| *sum /= total);
            } else if let Some(index) = self.nearest(given) {
                row.copy_from_slice(self.row(index));
            }
        }
        result
    }

    /// The prediction with the highest IoU with `given`, if it is at least [`MIN_IOU`].
    fn nearest(&self, given: &BoxXyxy) -> Option<usize> {
        let ious = self.boxes.iter().map(|b| b.iou(given)).enumerate();
        ious.filter(|&(_, iou)| iou >= MIN_IOU)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(index, _)| index)
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.scores[index * self.classes..][..self.classes]
    }

    fn best(&self, index: usize) -> f32 {
        self.row(index).iter().copied().fold(0.0, f32::max)
    }
}

/// Index of the highest value, the first of equals.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions() -> DensePredictions {
        DensePredictions {
            boxes: vec![
                [0.0, 0.0, 10.0, 10.0].into(),
                [0.0, 0.0, 10.0, 8.0].into(),
                [50.0, 50.0, 60.0, 60.0].into(),
                [80.0, 80.0, 90.0, 90.0].into(),
            ],
            scores: vec![0.5, 0.4, 0.1, 0.6, 0.2, 0.3, 0.01, 0.015],
            classes: 2,
        }
    }

    #[test]
    fn proposals_are_sorted_and_labeled_by_all_predictions_of_the_object() {
        let found = predictions().proposals();
        let scores: Vec<f32> = found.iter().map(|b| b.score).collect();
        assert_eq!(scores, [0.6, 0.5, 0.3], "background is left out");
        // Box 0 has IoU 0.8 with box 1: (0.5 * (0.5, 0.4) + 0.64 * 0.6 * (0.1, 0.6)) / (0.5 + 0.384).
        let row = &predictions().class_scores(&[[0.0, 0.0, 10.0, 10.0].into()]);
        assert!((row[0] - 0.326_244).abs() < 1e-4 && (row[1] - 0.486_878).abs() < 1e-4);
        assert_eq!(found.iter().map(|b| b.class).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn drawn_boxes_take_the_nearest_prediction_or_nothing() {
        let scores = predictions().class_scores(&[
            [50.0, 50.0, 60.0, 66.0].into(),
            [50.0, 50.0, 60.0, 72.0].into(),
            [80.0, 80.0, 90.0, 90.0].into(),
            [200.0, 200.0, 210.0, 210.0].into(),
        ]);
        assert_eq!(scores, [0.2, 0.3, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0]);
        assert!(DensePredictions::default().proposals().is_empty());
    }
}
