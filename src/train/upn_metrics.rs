//! Validation metrics of UPN: recall of the best proposals, and average precision.

use crate::geometry::{BoxXyxy, Proposal, nms};

/// Proposals per image that count for recall.
const TOP: usize = 30;
/// IoU threshold of NMS.
const NMS_IOU: f64 = 0.8;

/// Accumulated matches of proposals with ground-truth boxes.
#[derive(Clone, Debug, Default)]
pub struct DetectionMetrics {
    /// `(score, matched)` of every proposal after NMS.
    ranked: Vec<(f32, bool)>,
    matched_50: usize,
    matched_75: usize,
    matched_confident: usize,
    truths: usize,
}

impl DetectionMetrics {
    /// Adds an image; `proposals` are sorted by score, best first.
    pub fn add(&mut self, proposals: &[Proposal], truths: &[BoxXyxy]) {
        let boxes = proposals.iter().map(|p| p.bbox).collect::<Vec<_>>();
        let kept = nms(&boxes, NMS_IOU);
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
            let is_matched = |least: f32, score: f32| {
                kept.iter().take(TOP).any(|&index| {
                    proposals[index].score >= score && boxes[index].iou(truth) >= least
                })
            };
            self.matched_50 += usize::from(is_matched(0.5, 0.0));
            self.matched_75 += usize::from(is_matched(0.75, 0.0));
            self.matched_confident += usize::from(is_matched(0.5, 0.3));
        }
        self.truths += truths.len();
    }

    fn fraction(&self, found: usize) -> f64 {
        found as f64 / self.truths.max(1) as f64
    }

    /// Fraction of ground-truth boxes matched by the best 30 proposals at IoU 0.5.
    pub fn recall_50(&self) -> f64 {
        self.fraction(self.matched_50)
    }

    /// The same at IoU 0.75.
    pub fn recall_75(&self) -> f64 {
        self.fraction(self.matched_75)
    }

    /// As [`DetectionMetrics::recall_50`], for proposals with a score of at least 0.3.
    pub fn recall_confident(&self) -> f64 {
        self.fraction(self.matched_confident)
    }

    /// Area under the precision-recall curve at IoU 0.5, with monotone precision.
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
        let proposal = |x, score| Proposal::unlabelled(at(x), score);
        let mut metrics = DetectionMetrics::default();
        metrics.add(
            &[proposal(0.0, 0.9), proposal(5.0, 0.8), proposal(2.3, 0.2)],
            &[at(0.0), at(2.0)],
        );
        assert_eq!(metrics.recall_50(), 1.0);
        assert_eq!(metrics.recall_75(), 0.5);
        assert_eq!(metrics.recall_confident(), 0.5);
        assert!((metrics.ap_50() - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-9);
    }
}
