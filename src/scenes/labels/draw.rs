//! Random boxes with class scores.

use super::kinds::KINDS;
use crate::scenes::Rng;

/// A box of a label scene.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelObject {
    /// `[x1, y1, x2, y2]` relative to the picture.
    pub bbox: [f32; 4],
    /// The class scores, one per kind; all 0 for a box of no known kind.
    pub scores: Vec<f32>,
    /// The kind with the highest score; `None` if all scores are 0.
    pub kind: Option<usize>,
}

impl LabelObject {
    /// A box with its scores.
    pub fn new(bbox: [f32; 4], scores: Vec<f32>) -> Self {
        let best = (0..scores.len()).reduce(|a, b| if scores[b] > scores[a] { b } else { a });
        let kind = best.filter(|&kind| scores[kind] > 0.0);
        Self { bbox, scores, kind }
    }

    /// The highest score.
    pub fn score(&self) -> f32 {
        self.scores.iter().copied().fold(0.0, f32::max)
    }

    /// Center.
    pub fn center(&self) -> [f32; 2] {
        let [x1, y1, x2, y2] = self.bbox;
        [(x1 + x2) / 2.0, (y1 + y2) / 2.0]
    }

    /// Area, as a fraction of the picture.
    pub fn area(&self) -> f32 {
        let [x1, y1, x2, y2] = self.bbox;
        (x2 - x1) * (y2 - y1)
    }
}

/// The boxes of a picture, in the order of the prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelScene {
    /// The boxes.
    pub objects: Vec<LabelObject>,
}

impl LabelScene {
    /// A random scene of at most `max_boxes` boxes.
    pub fn draw(max_boxes: usize, rng: &mut Rng) -> Self {
        // Half of the scenes have up to the maximum, half have few boxes, as most pictures.
        let count = match rng.below(100) {
            0..2 => 0,
            2..50 => 1 + rng.below(max_boxes),
            _ => 1 + rng.below(max_boxes.min(10)),
        };
        let repeat = [20, 50, 80][rng.below(3)];
        let mut objects: Vec<LabelObject> = Vec::with_capacity(count);
        while objects.len() < count {
            let model =
                (!objects.is_empty() && rng.chance(repeat)).then(|| rng.pick(&objects).clone());
            let kind = match &model {
                Some(object) => object.kind,
                None if rng.chance(3) => None,
                None if rng.chance(12) => Some(0),
                None => Some(rng.below(KINDS.len())),
            };
            let bbox = draw_box(model.map(|object| object.bbox), rng);
            objects.push(LabelObject::new(bbox, draw_scores(kind, rng)));
        }
        if rng.chance(70) {
            objects.sort_by(|a, b| b.score().total_cmp(&a.score()));
        }
        Self { objects }
    }

    /// The indices of the boxes whose kind satisfies `matches`.
    pub fn indices(&self, matches: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.objects.len())
            .filter(|&index| self.objects[index].kind.is_some_and(&matches))
            .collect()
    }

    /// The kinds in the scene, by their first box.
    pub fn kinds(&self) -> Vec<usize> {
        let mut kinds = Vec::new();
        for kind in self.objects.iter().filter_map(|object| object.kind) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }
}

/// A random box; one of similar size as `model` in half of the cases.
fn draw_box(model: Option<[f32; 4]>, rng: &mut Rng) -> [f32; 4] {
    let side = |rng: &mut Rng| 0.02 * (0.98_f32 / 0.02).powf(rng.unit());
    let (mut w, mut h) = (side(rng), side(rng));
    if let Some([x1, y1, x2, y2]) = model.filter(|_| rng.chance(60)) {
        w = ((x2 - x1) * rng.between(0.6, 1.6)).min(0.98);
        h = ((y2 - y1) * rng.between(0.6, 1.6)).min(0.98);
    } else if rng.chance(60) {
        h = (w * rng.between(0.4, 2.5)).clamp(0.02, 0.98);
    }
    let x = rng.between(0.0, 1.0 - w);
    let y = rng.between(0.0, 1.0 - h);
    [x, y, x + w, y + h]
}

/// Class scores with the highest score at `kind`, sometimes with similar scores of other kinds.
fn draw_scores(kind: Option<usize>, rng: &mut Rng) -> Vec<f32> {
    let Some(kind) = kind else {
        return vec![0.0; KINDS.len()];
    };
    let score = match rng.below(10) {
        0 => rng.between(0.03, 0.15),
        1..4 => rng.between(0.12, 0.29),
        _ => 0.32 + 0.6 * rng.unit() * rng.unit(),
    };
    let noise = score.min(0.1) * 0.3;
    let mut scores: Vec<f32> = (0..KINDS.len())
        .map(|_| noise * rng.unit() * rng.unit())
        .collect();
    for _ in 0..[0, 0, 1, 1, 2][rng.below(5)] {
        scores[rng.below(KINDS.len())] = score * rng.between(0.1, 0.93);
    }
    scores[kind] = score;
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_inside_and_kinds_have_the_highest_score() {
        for seed in 0..50 {
            let scene = LabelScene::draw(24, &mut Rng::new(seed, 0));
            assert!(scene.objects.len() <= 24);
            for object in &scene.objects {
                let [x1, y1, x2, y2] = object.bbox;
                assert!(
                    0.0 <= x1 && x1 < x2 && x2 <= 1.0001 && 0.0 <= y1 && y1 < y2 && y2 <= 1.0001
                );
                match object.kind {
                    Some(kind) => assert_eq!(object.scores[kind], object.score()),
                    None => assert_eq!(object.score(), 0.0),
                }
            }
        }
    }
}
