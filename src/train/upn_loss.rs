//! Loss of UPN: Hungarian matching of targets and queries, focal, L1 and GIoU losses
//! (`docs/reference/upn.md` section 12), and contrastive denoising queries (DINO, Zhang et al. 2022,
//! arXiv 2203.03605).

use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Int, Tensor, TensorData};
use pathfinding::kuhn_munkres::kuhn_munkres_min;
use pathfinding::matrix::Matrix;

use crate::scenes::Rng;

const CLASS_COST: f32 = 2.0;
const L1_COST: f32 = 5.0;
const GIOU_COST: f32 = 2.0;
const CLASS_WEIGHT: f32 = 1.0;
const L1_WEIGHT: f32 = 5.0;
const GIOU_WEIGHT: f32 = 2.0;
const FOCAL_ALPHA: f32 = 0.25;
/// Number of groups of denoising queries, each with a near and a far copy of every box.
const DENOISING_GROUPS: usize = 3;
/// Added to the attention logit of a masked pair.
const MASKED: f32 = -1e4;

/// `cx, cy, w, h` as `x1, y1, x2, y2`.
pub fn corners([cx, cy, w, h]: [f32; 4]) -> [f32; 4] {
    [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
}

/// Generalized IoU of two boxes `x1, y1, x2, y2` (Rezatofighi et al. 2019, arXiv 1902.09630).
pub fn giou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |b: [f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let side = |low: f32, high: f32| (high - low).max(0.0);
    let common = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
    let union = area(a) + area(b) - common;
    let hull = side(a[0].min(b[0]), a[2].max(b[2])) * side(a[1].min(b[1]), a[3].max(b[3]));
    common / union.max(1e-9) - (hull - union) / hull.max(1e-9)
}

/// The query of each target, by the assignment of least total cost.
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
            let overlap = giou(corners(bbox), corners(target));
            let cost =
                CLASS_COST * (positive - negative) + L1_COST * distance - GIOU_COST * overlap;
            costs.push((cost.clamp(-1e4, 1e4) * 1e5) as i64);
        }
    }
    let matrix = Matrix::from_vec(targets.len(), logits.len(), costs)
        .expect("one cost per target and query");
    kuhn_munkres_min(&matrix).1
}

/// Denoising queries: noisy copies of the target boxes.
#[derive(Clone, Debug)]
pub struct Denoising {
    /// Number of denoising queries per image, before the matching queries; 0 if an image has no target.
    pub queries: usize,
    /// `[B, queries]` boxes, `cx, cy, w, h`.
    pub boxes: Vec<[f32; 4]>,
    /// `[B, queries]`: the target that a query must reconstruct, by its index in the image, or `None`
    /// if it must predict background.
    pub query_targets: Vec<Option<usize>>,
}

impl Denoising {
    /// Near copies move each edge by less than half of the side, far copies by half to a whole side.
    /// Images with fewer boxes than others repeat theirs.
    pub fn new(targets: &[Vec<[f32; 4]>], rng: &mut Rng) -> Self {
        let max_boxes = targets.iter().map(Vec::len).max().unwrap_or(0);
        let queries = if targets.iter().any(Vec::is_empty) {
            0
        } else {
            2 * DENOISING_GROUPS * max_boxes
        };
        let (mut boxes, mut query_targets) = (Vec::new(), Vec::new());
        for targets in targets {
            for query in 0..queries {
                let (far, index) = (
                    (query / max_boxes) % 2 == 1,
                    query % max_boxes % targets.len(),
                );
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
                query_targets.push((!far).then_some(index));
            }
        }
        Self {
            queries,
            boxes,
            query_targets,
        }
    }

    /// Additive attention mask `[Q, Q]`, row-major, for `Q = queries + matching`: matching queries do
    /// not attend to denoising queries, denoising groups do not attend to each other.
    pub fn attention_mask(&self, matching: usize) -> Vec<f32> {
        let total = self.queries + matching;
        let group = |query: usize| query * DENOISING_GROUPS / self.queries;
        let mut values = vec![0.0; total * total];
        for from in 0..total {
            for to in 0..self.queries {
                if from >= self.queries || group(from) != group(to) {
                    values[from * total + to] = MASKED;
                }
            }
        }
        values
    }
}

/// Accumulates predictions of all layers with their targets, so that the loss is evaluated once.
#[derive(Default)]
pub struct Loss {
    logits: Vec<Tensor<1>>,
    boxes: Vec<Tensor<2>>,
    /// Per row: +1 for an object, -1 for background.
    signs: Vec<f32>,
    /// Per row: weight in the loss.
    weights: Vec<f32>,
    /// Rows with a target box, their boxes and weights.
    box_rows: Vec<i32>,
    box_targets: Vec<[f32; 4]>,
    box_weights: Vec<f32>,
}

impl Loss {
    /// Adds predictions `logits` `[B, Q]` and `boxes` `[B, Q, 4]`. `target(image, query)` is the target
    /// box of a query; `weight` is the weight of every row.
    pub fn add(
        &mut self,
        logits: Tensor<2>,
        boxes: Tensor<3>,
        weight: f32,
        target: impl Fn(usize, usize) -> Option<[f32; 4]>,
    ) {
        let [batch, queries] = logits.dims();
        for image in 0..batch {
            for query in 0..queries {
                let target = target(image, query);
                if let Some(bbox) = target {
                    self.box_rows.push(self.signs.len() as i32);
                    self.box_targets.push(bbox);
                    self.box_weights.push(weight);
                }
                self.signs.push(if target.is_some() { 1.0 } else { -1.0 });
                self.weights.push(weight);
            }
        }
        self.logits.push(logits.reshape([batch * queries]));
        self.boxes.push(boxes.reshape([batch * queries, 4]));
    }

    /// The weighted sum of focal, L1 and GIoU loss, `[1]`.
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
            .zip(&self.weights)
            .map(|(&sign, weight)| {
                let alpha = if sign > 0.0 {
                    FOCAL_ALPHA
                } else {
                    1.0 - FOCAL_ALPHA
                };
                -CLASS_WEIGHT * alpha * weight
            })
            .collect::<Vec<_>>();
        let signed = logits * constant(self.signs);
        let p_wrong = sigmoid(signed.clone().neg());
        let focal = (p_wrong.square() * log_sigmoid(signed) * constant(alphas)).sum();
        if self.box_rows.is_empty() {
            return focal;
        }
        let count = self.box_rows.len();
        let box_rows =
            Tensor::<1, Int>::from_data(TensorData::new(self.box_rows, [count]), &device);
        let predicted = Tensor::cat(self.boxes, 0).select(0, box_rows);
        let box_targets =
            constant(self.box_targets.into_iter().flatten().collect()).reshape([count, 4]);
        let weights = constant(self.box_weights).reshape([count, 1]);
        let distance = ((predicted.clone() - box_targets.clone()).abs() * weights.clone()).sum();
        let giou_loss = batched_giou(predicted, box_targets).neg().add_scalar(1.0);
        focal + distance * L1_WEIGHT + (giou_loss * weights).sum() * GIOU_WEIGHT
    }
}

/// Row-wise GIoU of boxes `cx, cy, w, h`: two `[N, 4]` to `[N, 1]`.
fn batched_giou(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
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
    fn matching_minimizes_the_total_cost() {
        let boxes = [
            [0.3, 0.5, 0.2, 0.2],
            [0.5, 0.5, 0.2, 0.2],
            [0.9, 0.9, 0.1, 0.1],
        ];
        let targets = [[0.4, 0.5, 0.2, 0.2], [0.32, 0.5, 0.2, 0.2]];
        assert_eq!(assign(&[0.0; 3], &boxes, &targets), [1, 0]);
    }

    #[test]
    fn giou_of_tensors_equals_the_scalar_form() {
        let device = Device::flex();
        let (a, b) = ([0.3, 0.4, 0.2, 0.5], [0.5, 0.45, 0.3, 0.2]);
        let tensor = |b: [f32; 4]| Tensor::<2>::from_floats([b], &device);
        let predicted = batched_giou(tensor(a), tensor(b)).into_scalar::<f32>();
        assert!((predicted - giou(corners(a), corners(b))).abs() < 1e-6);
    }

    #[test]
    fn denoising_groups_attend_to_themselves_and_to_matching_queries() {
        let targets = vec![vec![[0.5, 0.5, 0.2, 0.2]; 2], vec![[0.5, 0.5, 0.2, 0.2]]];
        let denoising = Denoising::new(&targets, &mut Rng::new(1, 1));
        assert_eq!(denoising.queries, 12);
        let attention_mask = denoising.attention_mask(3);
        let attends = |from: usize, to: usize| attention_mask[from * 15 + to] == 0.0;
        assert!(attends(0, 3) && !attends(0, 4) && attends(0, 14) && !attends(14, 0));
        assert_eq!(denoising.query_targets[..4], [Some(0), Some(1), None, None]);
    }
}
