//! How good proposals are on scenes: recall of the best few, and average precision.

use crate::geometry::{BoxXyxy, Proposal, nms};

/// Boxes counted per picture for recall.
const BEST: usize = 30;
/// Overlap above which the weaker of two proposals is dropped.
const NMS: f64 = 0.8;

/// Proposals of some pictures against the truth.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// `(score, right)` of every proposal that survived.
    ranked: Vec<(f32, bool)>,
    found_50: usize,
    found_75: usize,
    confident: usize,
    truths: usize,
}

impl Measure {
    /// Adds a picture: `proposals` best first.
    pub fn add(&mut self, proposals: &[Proposal], truths: &[BoxXyxy]) {
        let boxes = proposals.iter().map(|p| p.bbox).collect::<Vec<_>>();
        let kept = nms(&boxes, NMS);
        let mut taken = vec![false; truths.len()];
        for &index in &kept {
            let best = (0..truths.len())
                .filter(|&truth| !taken[truth])
                .map(|truth| (truth, boxes[index].iou(&truths[truth])))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let hit = best.filter(|(_, overlap)| *overlap >= 0.5);
            if let Some((truth, _)) = hit {
                taken[truth] = true;
            }
            self.ranked.push((proposals[index].score, hit.is_some()));
        }
        for truth in truths {
            let reaches = |least: f32, score: f32| {
                kept.iter().take(BEST).any(|&index| {
                    proposals[index].score >= score && boxes[index].iou(truth) >= least
                })
            };
            self.found_50 += usize::from(reaches(0.5, 0.0));
            self.found_75 += usize::from(reaches(0.75, 0.0));
            self.confident += usize::from(reaches(0.5, 0.3));
        }
        self.truths += truths.len();
    }

    fn share(&self, found: usize) -> f64 {
        found as f64 / self.truths.max(1) as f64
    }

    /// Share of the true boxes with one of the best 30 at IoU 0.5.
    pub fn recall_50(&self) -> f64 {
        self.share(self.found_50)
    }

    /// The same at IoU 0.75.
    pub fn recall_75(&self) -> f64 {
        self.share(self.found_75)
    }

    /// As [`Measure::recall_50`], of proposals with a score of 0.3 or more.
    pub fn recall_confident(&self) -> f64 {
        self.share(self.confident)
    }

    /// Area under precision over recall at IoU 0.5, precision made monotone.
    pub fn ap_50(&self) -> f64 {
        let mut ranked = self.ranked.clone();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut right = 0;
        let mut points = Vec::with_capacity(ranked.len());
        for (index, (_, hit)) in ranked.iter().enumerate() {
            right += usize::from(*hit);
            points.push((*hit, right as f64 / (index + 1) as f64));
        }
        let (mut best, mut area) = (0.0_f64, 0.0);
        for (hit, precision) in points.into_iter().rev() {
            best = best.max(precision);
            if hit {
                area += best;
            }
        }
        area / self.truths.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_of_three_proposals() {
        let at = |x: f32| BoxXyxy::from([x, 0.0, x + 1.0, 1.0]);
        let proposal = |x, score| Proposal { bbox: at(x), score };
        let mut measure = Measure::default();
        measure.add(
            &[proposal(0.0, 0.9), proposal(5.0, 0.8), proposal(2.3, 0.2)],
            &[at(0.0), at(2.0)],
        );
        assert_eq!(measure.recall_50(), 1.0);
        assert_eq!(measure.recall_75(), 0.5);
        assert_eq!(measure.recall_confident(), 0.5);
        assert!((measure.ap_50() - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-9);
    }
}
