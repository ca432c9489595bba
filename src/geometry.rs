//! Boxes: corner and center forms, area, IoU, non-maximum suppression.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A box by its corners, `x1, y1, x2, y2`, in units of the caller (usually pixels of the original
/// picture). Corners may be in any order: networks can return inverted boxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BoxXyxy {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

/// Coordinates beyond this many pixels are refused: no picture has so many, and products of larger ones overflow.
pub const MAX_COORDINATE: f32 = 1e6;

/// What is wrong with a box that [`first_far_box`] finds.
pub const TOO_FAR: &str = "has a coordinate beyond 1,000,000 pixels";

/// The index of the first box with a coordinate beyond [`MAX_COORDINATE`], or one that is no number.
pub fn first_far_box(boxes: &[BoxXyxy]) -> Option<usize> {
    boxes.iter().position(|b| {
        let coordinates: [f32; 4] = (*b).into();
        !coordinates
            .iter()
            .all(|value| value.abs() <= MAX_COORDINATE)
    })
}

impl From<[f32; 4]> for BoxXyxy {
    fn from([x1, y1, x2, y2]: [f32; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl From<BoxXyxy> for [f32; 4] {
    fn from(b: BoxXyxy) -> Self {
        [b.x1, b.y1, b.x2, b.y2]
    }
}

impl BoxXyxy {
    /// Signed width times height, as `torchvision.ops.box_area` computes it.
    pub fn area(&self) -> f32 {
        (self.x2 - self.x1) * (self.y2 - self.y1)
    }

    /// Intersection over union; NaN where both areas are zero.
    pub fn iou(&self, other: &Self) -> f32 {
        let w = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.0);
        let h = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.0);
        let inter = w * h;
        inter / (self.area() + other.area() - inter)
    }
}

/// The granularity of the boxes that UPN proposes (`docs/reference/upn.md`, introduction).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// Objects and their parts.
    Fine,
    /// Whole objects.
    #[default]
    Coarse,
}

/// A box proposed by UPN or a detector, and its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// In pixels of the original picture; may extend beyond its edges.
    #[serde(rename = "box")]
    pub bbox: BoxXyxy,
    /// Sigmoid of the logit, 0 to 1.
    pub score: f32,
    /// The kind that a detector says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Proposal {
    /// A proposal without a label.
    pub fn unlabelled(bbox: BoxXyxy, score: f32) -> Self {
        Self {
            bbox,
            score,
            label: None,
        }
    }
}

/// Greedy class-agnostic non-maximum suppression (`torchvision.ops.nms`). `boxes` are sorted best
/// first; returns the indices kept, ascending. A box is suppressed if its IoU with an earlier kept
/// box exceeds `threshold`. The IoU is f32 and the threshold f64, so an f32 IoU of 0.3 exceeds 0.3.
/// A NaN IoU (0/0) exceeds nothing.
pub fn nms(boxes: &[BoxXyxy], threshold: f64) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for (index, candidate) in boxes.iter().enumerate() {
        if kept
            .iter()
            .all(|&earlier| !exceeds(boxes[earlier].iou(candidate), threshold))
        {
            kept.push(index);
        }
    }
    kept
}

fn exceeds(iou: f32, threshold: f64) -> bool {
    f64::from(iou) > threshold
}

/// The result of [`filter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Indices into the proposals, best first.
    pub kept: Vec<usize>,
    /// Proposals that passed both thresholds but exceed the cap.
    pub left_out: usize,
}

/// Which proposals become boxes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selection {
    /// Least score.
    pub score: f32,
    /// IoU threshold of [`nms`]; 0 or less keeps all boxes.
    pub nms: f64,
    /// Least score of the best box of a label that has no box with `score`; `None` keeps no such box.
    pub first_of_kind: Option<f32>,
}

impl Selection {
    /// This selection with the thresholds that are given. A given score applies to all labels.
    #[must_use]
    pub fn with(self, score: Option<f32>, nms: Option<f64>) -> Self {
        Self {
            score: score.unwrap_or(self.score),
            nms: nms.unwrap_or(self.nms),
            first_of_kind: self.first_of_kind.filter(|_| score.is_none()),
        }
    }

    /// The proposals that survive [`nms`] and have at least [`Selection::score`], or are the best one of
    /// their label and have at least [`Selection::first_of_kind`]. At most `cap` of them, best first;
    /// equal scores keep their order (`docs/reference/upn.md`, section 9).
    pub fn choose(&self, proposals: &[Proposal], cap: usize) -> Filtered {
        let least = self
            .first_of_kind
            .map_or(self.score, |first| first.min(self.score));
        let mut order: Vec<usize> = (0..proposals.len())
            .filter(|&index| proposals[index].score >= least)
            .collect();
        order.sort_by(|&a, &b| proposals[b].score.total_cmp(&proposals[a].score));
        if self.nms > 0.0 {
            let boxes: Vec<BoxXyxy> = order.iter().map(|&index| proposals[index].bbox).collect();
            order = nms(&boxes, self.nms)
                .into_iter()
                .map(|position| order[position])
                .collect();
        }
        let mut labels = BTreeSet::new();
        order.retain(|&index| {
            let Proposal { score, label, .. } = &proposals[index];
            let first = label.as_ref().is_some_and(|label| labels.insert(label));
            *score >= self.score || first
        });
        let left_out = order.len().saturating_sub(cap);
        order.truncate(cap);
        Filtered {
            kept: order,
            left_out,
        }
    }
}

/// [`Selection::choose`] with the least score `min_score` for all labels and the IoU threshold
/// `threshold`.
pub fn filter(proposals: &[Proposal], min_score: f32, threshold: f64, cap: usize) -> Filtered {
    let selection = Selection {
        score: min_score,
        nms: threshold,
        first_of_kind: None,
    };
    selection.choose(proposals, cap)
}

/// Converts the output of UPN to proposals on a picture of `width` x `height` pixels, best first;
/// equal scores keep their order (`docs/reference/upn.md`, section 9, steps 1 to 3). `boxes` are
/// `[cx, cy, w, h]` relative to the picture; `logits` are before the sigmoid. Boxes are not clipped.
pub fn proposals(boxes: &[[f32; 4]], logits: &[f32], width: u32, height: u32) -> Vec<Proposal> {
    assert_eq!(boxes.len(), logits.len(), "proposals: one logit per box");
    let (width, height) = (width as f32, height as f32);
    let mut proposals: Vec<Proposal> = boxes
        .iter()
        .zip(logits)
        .map(|(&[cx, cy, w, h], &logit)| {
            let (x1, y1) = (cx - w / 2.0, cy - h / 2.0);
            let bbox = BoxXyxy {
                x1: x1 * width,
                y1: y1 * height,
                x2: (x1 + w) * width,
                y2: (y1 + h) * height,
            };
            Proposal::unlabelled(bbox, 1.0 / (1.0 + (-logit).exp()))
        })
        .collect();
    proposals.sort_by(|a, b| b.score.total_cmp(&a.score));
    proposals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_far_outside_any_picture_are_found() {
        let near = BoxXyxy::from([-50.0, -1e6, 900.0, 1e6]);
        assert_eq!(first_far_box(&[]), None);
        assert_eq!(first_far_box(&[near]), None);
        for bad in [1e30, -1_000_001.0, f32::INFINITY, f32::NAN] {
            let far = BoxXyxy::from([0.0, 0.0, 5.0, bad]);
            assert_eq!(first_far_box(&[near, far, far]), Some(1), "{bad}");
        }
    }

    fn proposal(x1: f32, score: f32) -> Proposal {
        Proposal::unlabelled([x1, 0.0, x1 + 10.0, 10.0].into(), score)
    }

    #[test]
    fn filter_sorts_suppresses_and_caps() {
        let given = [
            proposal(0.0, 0.5),
            proposal(100.0, 0.9),
            proposal(1.0, 0.8),
            proposal(200.0, 0.29),
            proposal(300.0, 0.5),
        ];
        let all = filter(&given, 0.3, 0.5, 100);
        assert_eq!((all.kept, all.left_out), (vec![1, 2, 4], 0));
        let off = filter(&given, 0.3, -1.0, 3);
        assert_eq!((off.kept, off.left_out), (vec![1, 2, 0], 1));
        assert_eq!(filter(&[], 0.3, 0.8, 100), Filtered::default());
    }

    #[test]
    fn the_best_box_of_a_label_needs_a_lower_score() {
        let labelled = |x1: f32, score, label: &str| Proposal {
            label: Some(label.into()),
            ..proposal(x1, score)
        };
        let given = [
            labelled(0.0, 0.9, "cat"),
            labelled(50.0, 0.31, "cat"),
            labelled(100.0, 0.2, "dog"),
            labelled(150.0, 0.18, "dog"),
            labelled(200.0, 0.1, "bird"),
            labelled(1.0, 0.25, "sofa"),
            proposal(300.0, 0.2),
        ];
        let mut selection = Selection {
            score: 0.32,
            nms: 0.5,
            first_of_kind: Some(0.15),
        };
        assert_eq!(selection.choose(&given, 9).kept, [0, 2]);
        selection.score = 0.3;
        assert_eq!(selection.choose(&given, 9).kept, [0, 1, 2]);
        selection.score = 0.95;
        assert_eq!(selection.choose(&given, 9).kept, [0, 2]);
        selection.score = 0.05;
        assert_eq!(selection.choose(&given, 2).left_out, 4);
        selection.first_of_kind = None;
        selection.score = 0.32;
        assert_eq!(selection.choose(&given, 9).kept, [0]);
    }

    #[test]
    fn given_thresholds_replace_those_of_a_selection() {
        let selection = Selection {
            score: 0.3,
            nms: 0.5,
            first_of_kind: Some(0.1),
        };
        assert_eq!(selection.with(None, None), selection);
        let of_nms = Selection {
            nms: 0.8,
            ..selection
        };
        assert_eq!(selection.with(None, Some(0.8)), of_nms);
        let of_score = Selection {
            score: 0.2,
            first_of_kind: None,
            ..selection
        };
        assert_eq!(selection.with(Some(0.2), None), of_score);
    }

    #[test]
    fn boxes_without_area_suppress_nothing() {
        let point = BoxXyxy::from([5.0, 5.0, 5.0, 5.0]);
        assert_eq!(nms(&[point, point], 0.1), [0, 1]);
    }
}
