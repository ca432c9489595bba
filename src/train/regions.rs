//! Boxes to train on, made to look like what the proposal network leaves after its filters: every
//! object found or missed, a little off, some found twice, some background.
//!
//! Labels are one-to-one: of all boxes that overlap an object with an IoU of at least 0.5 only the
//! best one stands for it; the others, like background, stand for nothing. Evaluation counts the
//! same way.

use crate::geometry::BoxXyxy;
use crate::scenes::{Rng, Scene};

/// Least overlap of a box that stands for an object.
pub const MATCH_IOU: f32 = 0.5;

/// Overlap above which the better of two boxes hides the other, as nano's manifest has it.
pub const NMS_IOU: f32 = 0.5;

/// A candidate box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Pixels of the picture.
    pub bbox: BoxXyxy,
    /// The object of the scene it stands for.
    pub object: Option<usize>,
}

/// How far candidates stray from the objects.
#[derive(Clone, Copy, Debug)]
pub struct ProposalNoise {
    /// Objects that get no box, in percent.
    pub missed: usize,
    /// Objects that get a second, worse box, in percent.
    pub doubled: usize,
    /// Most boxes on background.
    pub background: usize,
    /// An edge moves by at most this share of the box's side.
    pub jitter: f32,
}

impl ProposalNoise {
    /// Exact boxes of all objects.
    pub const NONE: Self = Self {
        missed: 0,
        doubled: 0,
        background: 0,
        jitter: 0.0,
    };

    /// About what nano's proposal network leaves.
    pub const PROPOSALS: Self = Self {
        missed: 4,
        doubled: 6,
        background: 2,
        jitter: 0.07,
    };
}

/// Candidates of `scene` in random order, at most `limit`; objects come before doubles and
/// background when there is not room for all.
pub fn candidates(
    scene: &Scene,
    noise: ProposalNoise,
    limit: usize,
    rng: &mut Rng,
) -> Vec<Candidate> {
    let truth = scene
        .objects
        .iter()
        .map(|object| object.bbox)
        .collect::<Vec<_>>();
    let mut order = (0..truth.len()).collect::<Vec<_>>();
    rng.shuffle(&mut order);
    let mut boxes = Vec::new();
    for &object in &order {
        if !rng.chance(noise.missed) {
            boxes.push(moved(truth[object], noise.jitter, rng));
        }
    }
    for &object in &order {
        if rng.chance(noise.doubled) {
            boxes.push(moved(truth[object], 0.35, rng));
        }
    }
    let (width, height) = (scene.pixels.width as f32, scene.pixels.height as f32);
    for _ in 0..rng.below(noise.background + 1) {
        let side = width.min(height) * rng.between(0.12, 0.45);
        let (w, h) = (side * rng.between(0.7, 1.3), side);
        let x = rng.between(-0.1 * w, width - 0.9 * w);
        let y = rng.between(-0.1 * h, height - 0.9 * h);
        let b = BoxXyxy::from([x, y, x + w, y + h]);
        if truth.iter().all(|t| t.iou(&b) < 0.3) {
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
    label(&kept, &truth)
}

/// Labels boxes as the module's header says: pairs in falling order of overlap, each box and each
/// object once.
pub fn label(boxes: &[BoxXyxy], truth: &[BoxXyxy]) -> Vec<Candidate> {
    let mut pairs = Vec::new();
    for (i, b) in boxes.iter().enumerate() {
        for (object, t) in truth.iter().enumerate() {
            let iou = b.iou(t);
            if iou >= MATCH_IOU {
                pairs.push((iou, i, object));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut labels = vec![None; boxes.len()];
    let mut taken = vec![false; truth.len()];
    for (_, i, object) in pairs {
        if labels[i].is_none() && !taken[object] {
            labels[i] = Some(object);
            taken[object] = true;
        }
    }
    boxes
        .iter()
        .zip(labels)
        .map(|(&bbox, object)| Candidate { bbox, object })
        .collect()
}

fn moved(b: BoxXyxy, share: f32, rng: &mut Rng) -> BoxXyxy {
    let (w, h) = (b.x2 - b.x1, b.y2 - b.y1);
    let mut off = |side: f32| side * rng.between(-share, share);
    BoxXyxy {
        x1: b.x1 + off(w),
        y1: b.y1 + off(h),
        x2: b.x2 + off(w),
        y2: b.y2 + off(h),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_box_stands_for_the_object() {
        let truth = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]].map(BoxXyxy::from);
        let boxes = [
            [2.0, 0.0, 12.0, 10.0],
            [0.0, 0.0, 10.0, 9.0],
            [50.0, 50.0, 60.0, 60.0],
            [21.0, 1.0, 30.0, 10.0],
        ]
        .map(BoxXyxy::from);
        let objects = label(&boxes, &truth)
            .iter()
            .map(|c| c.object)
            .collect::<Vec<_>>();
        assert_eq!(objects, [None, Some(0), None, Some(1)]);
    }

    #[test]
    fn without_noise_every_object_has_its_box() {
        let scene = Scene::draw(11);
        let found = candidates(&scene, ProposalNoise::NONE, 100, &mut Rng::new(1, 9));
        assert_eq!(found.len(), scene.objects.len());
        for candidate in found {
            let object = candidate.object.expect("every box is an object's");
            assert_eq!(candidate.bbox, scene.objects[object].bbox);
        }
    }
}
