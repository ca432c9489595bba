//! Class-agnostic metrics of proposals: recall at a number of boxes, and average precision as in COCO.

use crate::geometry::{BoxXyxy, Proposal, nms};

/// The IoU thresholds of COCO: 0.50, 0.55 … 0.95.
const IOU_THRESHOLDS: [f32; 10] = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95];
/// IoU threshold of NMS.
const NMS_IOU: f64 = 0.8;
/// Boxes per image that are evaluated.
const MAX_BOXES: usize = 100;

/// Accumulated proposals and objects of all images.
#[derive(Default)]
pub(super) struct ProposalScores {
    objects: usize,
    /// Objects matched by the best 10, 30 and 100 proposals.
    matched: [usize; 3],
    /// Per proposal: score, and at which thresholds it matches an object.
    ranked: Vec<(f32, [bool; IOU_THRESHOLDS.len()])>,
}

impl ProposalScores {
    /// Adds an image: its proposals in any order, and its ground-truth boxes.
    pub(super) fn add(&mut self, proposals: &[Proposal], truth: &[BoxXyxy]) {
        let mut best = proposals.to_vec();
        best.sort_by(|a, b| b.score.total_cmp(&a.score));
        let boxes: Vec<BoxXyxy> = best.iter().map(|p| p.bbox).collect();
        let mut kept = nms(&boxes, NMS_IOU);
        kept.truncate(MAX_BOXES);
        let kept: Vec<Proposal> = kept.into_iter().map(|i| best[i].clone()).collect();
        self.objects += truth.len();
        for (matched, k) in self.matched.iter_mut().zip([10, 30, 100]) {
            let within = &kept[..k.min(kept.len())];
            let hit = |t: &&BoxXyxy| within.iter().any(|p| p.bbox.iou(t) >= 0.5);
            *matched += truth.iter().filter(hit).count();
        }
        let mut matched = vec![[false; IOU_THRESHOLDS.len()]; kept.len()];
        for (column, threshold) in IOU_THRESHOLDS.into_iter().enumerate() {
            let boxes = kept.iter().map(|p| p.bbox);
            for (row, hit) in match_greedily(boxes, truth, threshold)
                .into_iter()
                .enumerate()
            {
                matched[row][column] = hit.is_some();
            }
        }
        self.ranked
            .extend(kept.iter().map(|p| p.score).zip(matched));
    }

    /// Fraction of objects with a proposal at IoU 0.5 among the best 10, 30 and 100.
    pub(super) fn recall(&self) -> [f64; 3] {
        self.matched.map(|matched| fraction(matched, self.objects))
    }

    /// Average precision at IoU 0.5, and its mean over 0.5 to 0.95.
    pub(super) fn average_precisions(&self) -> [f64; 2] {
        let mut ranked: Vec<_> = self.ranked.iter().collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let at = |column: usize| {
            let hits = ranked.iter().map(|(_, matched)| matched[column]);
            average_precision(hits, self.objects)
        };
        let all: Vec<f64> = (0..IOU_THRESHOLDS.len()).map(at).collect();
        [all[0], all.iter().sum::<f64>() / all.len() as f64]
    }
}

/// Matches `boxes` in order, each to the free box of `truth` with the highest IoU, at least
/// `threshold`.
pub(super) fn match_greedily(
    boxes: impl Iterator<Item = BoxXyxy>,
    truth: &[BoxXyxy],
    threshold: f32,
) -> Vec<Option<usize>> {
    let mut free = vec![true; truth.len()];
    boxes
        .map(|b| {
            let best = (0..truth.len())
                .filter(|&t| free[t])
                .map(|t| (t, b.iou(&truth[t])))
                .filter(|(_, iou)| *iou >= threshold)
                .max_by(|a, b| a.1.total_cmp(&b.1))?;
            free[best.0] = false;
            Some(best.0)
        })
        .collect()
}

/// 101-point interpolated average precision (COCO) of ranked hits and misses.
fn average_precision(hits: impl Iterator<Item = bool>, objects: usize) -> f64 {
    let mut curve: Vec<(f64, f64)> = Vec::new();
    let mut right = 0;
    for (seen, hit) in hits.enumerate() {
        right += usize::from(hit);
        curve.push((fraction(right, objects), fraction(right, seen + 1)));
    }
    area_under(curve, |i| f64::from(i) / 100.0)
}

/// Mean of the highest precision at or beyond each of 101 recalls; `recall` gives the i-th. `curve` has
/// pairs of recall and precision, recalls ascending.
pub(super) fn area_under(mut curve: Vec<(f64, f64)>, recall: impl Fn(i32) -> f64) -> f64 {
    let mut best = 0.0_f64;
    for point in curve.iter_mut().rev() {
        best = best.max(point.1);
        point.1 = best;
    }
    let at = |recall: f64| {
        let first = curve.partition_point(|point| point.0 < recall);
        curve.get(first).map_or(0.0, |point| point.1)
    };
    (0..=100).map(|i| at(recall(i))).sum::<f64>() / 101.0
}

/// `part / whole`, or 0 if `whole` is 0.
pub(super) fn fraction(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(x: f32, score: f32) -> Proposal {
        Proposal::unlabelled([x, 0.0, x + 10.0, 10.0].into(), score)
    }

    #[test]
    fn a_perfect_ranking_has_average_precision_one() {
        let truth = [proposal(0.0, 0.0).bbox, proposal(50.0, 0.0).bbox];
        let mut scores = ProposalScores::default();
        scores.add(
            &[proposal(50.0, 0.8), proposal(0.0, 0.9), proposal(99.0, 0.1)],
            &truth,
        );
        assert_eq!(scores.recall(), [1.0; 3]);
        assert_eq!(scores.average_precisions(), [1.0; 2]);
    }

    /// Hit, miss, hit with two objects: precision 1 up to recall 0.5 (51 points), then 2/3.
    #[test]
    fn a_miss_between_hits_lowers_average_precision() {
        let expected = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
        let found = average_precision([true, false, true].into_iter(), 2);
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        assert_eq!(average_precision([].into_iter(), 2), 0.0);
    }

    #[test]
    fn a_second_box_on_an_object_is_a_false_positive() {
        let truth = [proposal(0.0, 0.0).bbox];
        let hits = match_greedily(
            [0.0, 1.0].map(|x| proposal(x, 0.0).bbox).into_iter(),
            &truth,
            0.5,
        );
        assert_eq!(hits, [Some(0), None]);
        let mut scores = ProposalScores::default();
        // IoU 7 / 13 with the object: a match at 0.5 only.
        scores.add(&[proposal(3.0, 0.5)], &truth);
        assert_eq!(scores.average_precisions(), [1.0, 0.1]);
    }
}
