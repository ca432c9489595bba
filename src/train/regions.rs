//! Training boxes that imitate the filtered proposals of UPN: objects are missed, displaced or found
//! twice, and some boxes are on background.
//!
//! Labels are one-to-one: of all boxes with an IoU of at least 0.5 with an object, only the best is
//! labeled with it. The others have no label, like background. The evaluation counts the same way.

use crate::geometry::BoxXyxy;
use crate::scenes::{Rng, Scene};

/// Least IoU of a box with the object it is labeled with.
pub const MATCH_IOU: f32 = 0.5;

/// IoU threshold of NMS, as in nano's manifest.
pub const NMS_IOU: f32 = 0.5;

/// A box with its label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabeledBox {
    /// The box in pixels of the scene.
    pub bbox: BoxXyxy,
    /// Index of the object it is labeled with; `None` for background and unmatched boxes.
    pub object: Option<usize>,
}

/// Noise of the training boxes.
#[derive(Clone, Copy, Debug)]
pub struct ProposalNoise {
    /// Objects without a box, in percent.
    pub missed: usize,
    /// Objects with a second, less accurate box, in percent.
    pub doubled: usize,
    /// Maximum number of boxes on background.
    pub background: usize,
    /// Maximum displacement of an edge, as a fraction of the box's side.
    pub jitter: f32,
}

impl ProposalNoise {
    /// The exact boxes of all objects.
    pub const NONE: Self = Self {
        missed: 0,
        doubled: 0,
        background: 0,
        jitter: 0.0,
    };

    /// Approximately the errors of nano's UPN.
    pub const PROPOSALS: Self = Self {
        missed: 4,
        doubled: 6,
        background: 2,
        jitter: 0.07,
    };
}

/// Noisy boxes of `scene` after NMS, in random order, at most `limit`. Boxes of objects have priority
/// over second boxes, and these over background.
pub fn sample_boxes(
    scene: &Scene,
    noise: ProposalNoise,
    limit: usize,
    rng: &mut Rng,
) -> Vec<LabeledBox> {
    let ground_truth = scene
        .objects
        .iter()
        .map(|object| object.bbox)
        .collect::<Vec<_>>();
    let mut order = (0..ground_truth.len()).collect::<Vec<_>>();
    rng.shuffle(&mut order);
    let mut boxes = Vec::new();
    for &object in &order {
        if !rng.chance(noise.missed) {
            boxes.push(jittered(ground_truth[object], noise.jitter, rng));
        }
    }
    for &object in &order {
        if rng.chance(noise.doubled) {
            boxes.push(jittered(ground_truth[object], 0.35, rng));
        }
    }
    let (width, height) = (scene.pixels.width as f32, scene.pixels.height as f32);
    for _ in 0..rng.below(noise.background + 1) {
        let side = width.min(height) * rng.between(0.12, 0.45);
        let (w, h) = (side * rng.between(0.7, 1.3), side);
        let x = rng.between(-0.1 * w, width - 0.9 * w);
        let y = rng.between(-0.1 * h, height - 0.9 * h);
        let b = BoxXyxy::from([x, y, x + w, y + h]);
        if ground_truth.iter().all(|t| t.iou(&b) < 0.3) {
            boxes.push(b);
        }
    }
    let mut kept = Vec::<BoxXyxy>::new();
    for b in boxes {
        if kept.len() < limit && kept.iter().all(|k| k.iou(&b) <= NMS_IOU) {
            kept.push(b);
        }
    }
    rng.shuffle(&mut kept);
    assign_objects(&kept, &ground_truth)
}

/// Labels boxes one-to-one: matches pairs of box and object in descending order of IoU, at least
/// [`MATCH_IOU`].
pub fn assign_objects(boxes: &[BoxXyxy], ground_truth: &[BoxXyxy]) -> Vec<LabeledBox> {
    let mut pairs = Vec::new();
    for (i, b) in boxes.iter().enumerate() {
        for (object, t) in ground_truth.iter().enumerate() {
            let iou = b.iou(t);
            if iou >= MATCH_IOU {
                pairs.push((iou, i, object));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut objects_of = vec![None; boxes.len()];
    let mut taken = vec![false; ground_truth.len()];
    for (_, i, object) in pairs {
        if objects_of[i].is_none() && !taken[object] {
            objects_of[i] = Some(object);
            taken[object] = true;
        }
    }
    boxes
        .iter()
        .zip(objects_of)
        .map(|(&bbox, object)| LabeledBox { bbox, object })
        .collect()
}

fn jittered(b: BoxXyxy, max_jitter: f32, rng: &mut Rng) -> BoxXyxy {
    let (w, h) = (b.x2 - b.x1, b.y2 - b.y1);
    let mut jitter = |side: f32| side * rng.between(-max_jitter, max_jitter);
    BoxXyxy {
        x1: b.x1 + jitter(w),
        y1: b.y1 + jitter(h),
        x2: b.x2 + jitter(w),
        y2: b.y2 + jitter(h),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_best_box_is_labeled() {
        let ground_truth = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]].map(BoxXyxy::from);
        let boxes = [
            [2.0, 0.0, 12.0, 10.0],
            [0.0, 0.0, 10.0, 9.0],
            [50.0, 50.0, 60.0, 60.0],
            [21.0, 1.0, 30.0, 10.0],
        ]
        .map(BoxXyxy::from);
        let objects = assign_objects(&boxes, &ground_truth)
            .iter()
            .map(|c| c.object)
            .collect::<Vec<_>>();
        assert_eq!(objects, [None, Some(0), None, Some(1)]);
    }

    #[test]
    fn without_noise_every_object_has_its_exact_box() {
        let scene = Scene::draw(11);
        let found = sample_boxes(&scene, ProposalNoise::NONE, 100, &mut Rng::new(1, 9));
        assert_eq!(found.len(), scene.objects.len());
        for labeled in found {
            let object = labeled.object.expect("every box has a label");
            assert_eq!(labeled.bbox, scene.objects[object].bbox);
        }
    }
}
