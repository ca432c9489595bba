//! What UPN learns from: a one-to-one assignment of boxes to queries, focal, L1 and overlap losses
//! on it (`upn.md` 12), and queries that start from disturbed true boxes (DINO, Zhang et al. 2022,
//! arXiv 2203.03605, "contrastive denoising").

use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Int, Tensor, TensorData};
use pathfinding::kuhn_munkres::kuhn_munkres_min;
use pathfinding::matrix::Matrix;

use crate::scenes::Rng;

const CLASS_COST: f32 = 2.0;
const L1_COST: f32 = 5.0;
const OVERLAP_COST: f32 = 2.0;
const CLASS_WEIGHT: f32 = 1.0;
const L1_WEIGHT: f32 = 5.0;
const OVERLAP_WEIGHT: f32 = 2.0;
const FOCAL_ALPHA: f32 = 0.25;
/// Denoising queries come in this many groups, each with a near and a far copy of every box.
const GROUPS: usize = 3;
/// Added to the score of a pair that must not see each other.
const BLOCKED: f32 = -1e4;

/// `x1, y1, x2, y2` of `cx, cy, w, h`.
pub fn corners([cx, cy, w, h]: [f32; 4]) -> [f32; 4] {
    [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
}

/// Generalised intersection over union of two boxes given by corners (Rezatofighi et al. 2019).
pub fn generalised_iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |b: [f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let side = |low: f32, high: f32| (high - low).max(0.0);
    let common = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
    let union = area(a) + area(b) - common;
    let hull = side(a[0].min(b[0]), a[2].max(b[2])) * side(a[1].min(b[1]), a[3].max(b[3]));
    common / union.max(1e-9) - (hull - union) / hull.max(1e-9)
}

/// The query for each target: the assignment of least total cost.
pub fn assign(logits: &[f32], boxes: &[[f32; 4]], targets: &[[f32; 4]]) -> Vec<usize> {
    if targets.is_empty() {
        return Vec::new();
    }
    let mut costs = Vec::with_capacity(targets.len() * logits.len());
    for &target in targets {
        for (&logit, &bbox) in logits.iter().zip(boxes) {
            let p = 1.0 / (1.0 + (-logit).exp());
            let positive = FOCAL_ALPHA * (1.0 - p).powi(2) * -(p + 1e-8).ln();
            let negative = (1.0 - FOCAL_ALPHA) * p.powi(2) * -(1.0 - p + 1e-8).ln();
            let distance = target
                .iter()
                .zip(bbox)
                .map(|(a, b)| (a - b).abs())
                .sum::<f32>();
            let overlap = generalised_iou(corners(bbox), corners(target));
            let cost =
                CLASS_COST * (positive - negative) + L1_COST * distance - OVERLAP_COST * overlap;
            costs.push((cost.clamp(-1e4, 1e4) * 1e5) as i64);
        }
    }
    let matrix = Matrix::from_vec(targets.len(), logits.len(), costs)
        .expect("one cost per target and query");
    kuhn_munkres_min(&matrix).1
}

/// Disturbed true boxes that ride along as extra queries.
#[derive(Clone, Debug)]
pub struct Denoising {
    /// Queries added in front; 0 where the batch has no target.
    pub queries: usize,
    /// `[B, queries]` boxes, `cx, cy, w, h`.
    pub boxes: Vec<[f32; 4]>,
    /// `[B, queries]`: the box a query should restore (index into the picture's targets), or none
    /// where it should say that there is nothing.
    pub answers: Vec<Option<usize>>,
}

impl Denoising {
    /// Near copies move each corner by less than half the box, far ones by half to a whole.
    /// Pictures with fewer boxes than others repeat theirs.
    pub fn new(targets: &[Vec<[f32; 4]>], rng: &mut Rng) -> Self {
        let most = targets.iter().map(Vec::len).max().unwrap_or(0);
        let queries = if targets.iter().any(Vec::is_empty) {
            0
        } else {
            2 * GROUPS * most
        };
        let (mut boxes, mut answers) = (Vec::new(), Vec::new());
        for targets in targets {
            for query in 0..queries {
                let (far, index) = ((query / most) % 2 == 1, query % most % targets.len());
                let [cx, cy, w, h] = targets[index];
                let mut edges = corners([cx, cy, w, h]);
                for (edge, half) in edges.iter_mut().zip([w / 2.0, h / 2.0, w / 2.0, h / 2.0]) {
                    let part = rng.unit() + if far { 1.0 } else { 0.0 };
                    let sign = if rng.chance(50) { 1.0 } else { -1.0 };
                    *edge = (*edge + sign * part * half).clamp(0.0, 1.0);
                }
                let [x1, y1, x2, y2] = edges;
                boxes.push([
                    (x1 + x2) / 2.0,
                    (y1 + y2) / 2.0,
                    (x2 - x1).max(1e-3),
                    (y2 - y1).max(1e-3),
                ]);
                answers.push((!far).then_some(index));
            }
        }
        Self {
            queries,
            boxes,
            answers,
        }
    }

    /// Which query must not see which, `[Q, Q]` row-major for all `Q = queries + own`: the
    /// network's own queries see no denoising query, denoising groups do not see each other.
    pub fn blocked(&self, own: usize) -> Vec<f32> {
        let total = self.queries + own;
        let group = |query: usize| query * GROUPS / self.queries;
        let mut values = vec![0.0; total * total];
        for from in 0..total {
            for to in 0..self.queries {
                if from >= self.queries || group(from) != group(to) {
                    values[from * total + to] = BLOCKED;
                }
            }
        }
        values
    }
}

/// Predictions of one stage of the network and what they should be, gathered for one evaluation.
#[derive(Default)]
pub struct Loss {
    logits: Vec<Tensor<1>>,
    boxes: Vec<Tensor<2>>,
    /// Per row: +1 for an object, -1 for nothing.
    signs: Vec<f32>,
    /// Per row: share in the loss.
    shares: Vec<f32>,
    /// Rows with a box to learn, the box, and its share.
    rows: Vec<i32>,
    truths: Vec<[f32; 4]>,
    box_shares: Vec<f32>,
}

impl Loss {
    /// Adds rows: `logits` `[B, Q]`, `boxes` `[B, Q, 4]`; `truth(picture, query)` is the box that a
    /// query should give. Every row counts `share`.
    pub fn add(
        &mut self,
        logits: Tensor<2>,
        boxes: Tensor<3>,
        share: f32,
        truth: impl Fn(usize, usize) -> Option<[f32; 4]>,
    ) {
        let [batch, queries] = logits.dims();
        for picture in 0..batch {
            for query in 0..queries {
                let truth = truth(picture, query);
                if let Some(bbox) = truth {
                    self.rows.push(self.signs.len() as i32);
                    self.truths.push(bbox);
                    self.box_shares.push(share);
                }
                self.signs.push(if truth.is_some() { 1.0 } else { -1.0 });
                self.shares.push(share);
            }
        }
        self.logits.push(logits.reshape([batch * queries]));
        self.boxes.push(boxes.reshape([batch * queries, 4]));
    }

    /// The sum, weighted: focal + L1 + overlap, `[1]`.
    pub fn sum(self) -> Tensor<1> {
        let logits = Tensor::cat(self.logits, 0);
        let device = logits.device().inner();
        let constant = |values: Vec<f32>| {
            let length = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [length]), &device)
        };
        let alphas = self
            .signs
            .iter()
            .zip(&self.shares)
            .map(|(&sign, share)| {
                let alpha = if sign > 0.0 {
                    FOCAL_ALPHA
                } else {
                    1.0 - FOCAL_ALPHA
                };
                -CLASS_WEIGHT * alpha * share
            })
            .collect::<Vec<_>>();
        let signed = logits * constant(self.signs);
        let wrong = sigmoid(signed.clone().neg());
        let focal = (wrong.square() * log_sigmoid(signed) * constant(alphas)).sum();
        if self.rows.is_empty() {
            return focal;
        }
        let count = self.rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(self.rows, [count]), &device);
        let found = Tensor::cat(self.boxes, 0).select(0, rows);
        let truths = constant(self.truths.into_iter().flatten().collect()).reshape([count, 4]);
        let shares = constant(self.box_shares).reshape([count, 1]);
        let distance = ((found.clone() - truths.clone()).abs() * shares.clone()).sum();
        let gap = generalised_iou_of(found, truths).neg().add_scalar(1.0);
        focal + distance * L1_WEIGHT + (gap * shares).sum() * OVERLAP_WEIGHT
    }
}

/// Row by row, of `cx, cy, w, h`: `[N, 4]` twice to `[N, 1]`.
fn generalised_iou_of(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let split = |boxes: Tensor<2>| {
        let half = boxes.clone().narrow(1, 2, 2) * 0.5;
        let centre = boxes.narrow(1, 0, 2);
        (centre.clone() - half.clone(), centre + half)
    };
    let area = |low: Tensor<2>, high: Tensor<2>| {
        let sides = (high - low).clamp_min(0.0);
        sides.clone().narrow(1, 0, 1) * sides.narrow(1, 1, 1)
    };
    let ((a_low, a_high), (b_low, b_high)) = (split(a), split(b));
    let common = area(
        a_low.clone().max_pair(b_low.clone()),
        a_high.clone().min_pair(b_high.clone()),
    );
    let union =
        area(a_low.clone(), a_high.clone()) + area(b_low.clone(), b_high.clone()) - common.clone();
    let hull = area(a_low.min_pair(b_low), a_high.max_pair(b_high));
    common / union.clone().add_scalar(1e-9) - (hull.clone() - union) / hull.add_scalar(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_cheapest_assignment_wins_over_the_nearest_box() {
        let boxes = [
            [0.3, 0.5, 0.2, 0.2],
            [0.5, 0.5, 0.2, 0.2],
            [0.9, 0.9, 0.1, 0.1],
        ];
        let targets = [[0.4, 0.5, 0.2, 0.2], [0.32, 0.5, 0.2, 0.2]];
        assert_eq!(assign(&[0.0; 3], &boxes, &targets), [1, 0]);
    }

    #[test]
    fn overlap_in_tensors_equals_the_scalar_form() {
        let device = Device::flex();
        let (a, b) = ([0.3, 0.4, 0.2, 0.5], [0.5, 0.45, 0.3, 0.2]);
        let tensor = |b: [f32; 4]| Tensor::<2>::from_floats([b], &device);
        let found = generalised_iou_of(tensor(a), tensor(b)).into_scalar::<f32>();
        assert!((found - generalised_iou(corners(a), corners(b))).abs() < 1e-6);
    }

    #[test]
    fn groups_of_denoising_queries_see_themselves_and_the_networks_own() {
        let targets = vec![vec![[0.5, 0.5, 0.2, 0.2]; 2], vec![[0.5, 0.5, 0.2, 0.2]]];
        let denoising = Denoising::new(&targets, &mut Rng::new(1, 1));
        assert_eq!(denoising.queries, 12);
        let blocked = denoising.blocked(3);
        let sees = |from: usize, to: usize| blocked[from * 15 + to] == 0.0;
        assert!(sees(0, 3) && !sees(0, 4) && sees(0, 14) && !sees(14, 0));
        assert_eq!(denoising.answers[..4], [Some(0), Some(1), None, None]);
    }
}
