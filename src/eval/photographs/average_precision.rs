//! Average precision and recall as pycocotools computes them, in f64.
//!
//! `tests/reference/coco_metrics.py` records the expected values of the test;
//! `tests/reference/coco_compare.py` compares on random boxes.

use super::coco::Picture;
use crate::eval::proposals::area_under;

/// Number of IoU thresholds.
pub(super) const THRESHOLDS: usize = 10;
/// Detections per picture that are evaluated.
pub(super) const MAX_DETECTIONS: usize = 100;

/// IoU threshold `index`: 0.50, 0.55 … 0.95, as `numpy.linspace` rounds them.
fn iou_threshold(index: usize) -> f64 {
    let last = THRESHOLDS - 1;
    if index == last {
        return 0.95;
    }
    index as f64 * ((0.95 - 0.5) / last as f64) + 0.5
}

/// Numbers of best detections per picture whose recall is measured.
pub(super) const BEST: [usize; 3] = [1, 10, MAX_DETECTIONS];

/// A range of areas. Objects and unmatched detections of another size are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sizes {
    #[default]
    All,
    Small,
    Medium,
    Large,
}

impl Sizes {
    /// Whether `area`, in square pixels, is in the range; its ends are.
    fn hold(self, area: f64) -> bool {
        let [low, high] = match self {
            Self::All => [0.0, 1e10],
            Self::Small => [0.0, 1024.0],
            Self::Medium => [1024.0, 9216.0],
            Self::Large => [9216.0, 1e10],
        };
        low <= area && area <= high
    }
}

/// A true box, or the region of a crowd.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrueBox {
    /// `[x, y, width, height]`.
    pub(super) xywh: [f64; 4],
    /// Area in square pixels, which may be that of a mask.
    pub(super) area: f64,
    /// Detections inside it are ignored.
    pub(super) crowd: bool,
}

impl TrueBox {
    /// The annotations of `picture`, of all kinds or of one.
    pub(super) fn of(picture: &Picture, kind: Option<usize>) -> Vec<Self> {
        let annotations = picture.annotations.iter();
        annotations
            .filter(|annotation| kind.is_none_or(|kind| annotation.kind == kind))
            .map(|annotation| Self {
                xywh: annotation.xywh,
                area: annotation.area,
                crowd: annotation.crowd,
            })
            .collect()
    }
}

/// A detected box with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Detection {
    /// `[x, y, width, height]`.
    pub(super) xywh: [f64; 4],
    pub(super) score: f64,
}

impl Detection {
    fn area(&self) -> f64 {
        self.xywh[2] * self.xywh[3]
    }
}

/// Intersection over union; over the area of `found` if `truth` is a crowd.
fn iou(found: &[f64; 4], truth: &TrueBox) -> f64 {
    let side = |axis: usize| {
        let (a, b) = (found[axis], truth.xywh[axis]);
        (a + found[axis + 2]).min(b + truth.xywh[axis + 2]) - a.max(b)
    };
    let (w, h) = (side(0), side(1));
    if w <= 0.0 || h <= 0.0 {
        return 0.0;
    }
    let area = found[2] * found[3];
    let union = if truth.crowd {
        area
    } else {
        area + truth.xywh[2] * truth.xywh[3] - w * h
    };
    w * h / union
}

/// What a detection is at one threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outcome {
    Right,
    #[default]
    Wrong,
    /// Matched to a crowd or an object of another size, or unmatched and of another size.
    Ignored,
}

/// A detection of any picture.
#[derive(Clone, Debug)]
struct Ranked {
    score: f64,
    picture: usize,
    /// Position among the detections of the picture, best first.
    rank: usize,
    outcomes: [Outcome; THRESHOLDS],
}

/// Accumulated detections of one kind, or of all kinds together.
#[derive(Clone, Debug, Default)]
pub(super) struct AveragePrecision {
    sizes: Sizes,
    ranked: Vec<Ranked>,
    /// Objects of each picture, ignored ones left out.
    objects: Vec<usize>,
}

impl AveragePrecision {
    /// Of objects of some sizes.
    pub(super) fn of(sizes: Sizes) -> Self {
        Self {
            sizes,
            ..Self::default()
        }
    }

    /// Adds a picture: its detections in any order, of which the first of equal scores is better, and its
    /// true boxes. Returns the matched objects among the best detections, for each of [`BEST`], summed over
    /// the thresholds.
    pub(super) fn add(
        &mut self,
        detections: &[Detection],
        truth: &[TrueBox],
    ) -> [usize; BEST.len()] {
        let picture = self.objects.len();
        let ignored = |truth: &TrueBox| truth.crowd || !self.sizes.hold(truth.area);
        let mut truth = truth.to_vec();
        truth.sort_by_key(ignored);
        let objects = truth.partition_point(|truth| !ignored(truth));
        let mut best = detections.to_vec();
        best.sort_by(|a, b| b.score.total_cmp(&a.score));
        best.truncate(MAX_DETECTIONS);
        let mut outcomes = vec![[Outcome::Wrong; THRESHOLDS]; best.len()];
        for threshold in 0..THRESHOLDS {
            let mut free = vec![true; truth.len()];
            let least = iou_threshold(threshold);
            for (found, row) in best.iter().zip(&mut outcomes) {
                row[threshold] = match matched(found, &truth, objects, &mut free, least) {
                    Some(index) if index < objects => Outcome::Right,
                    Some(_) => Outcome::Ignored,
                    None if self.sizes.hold(found.area()) => Outcome::Wrong,
                    None => Outcome::Ignored,
                };
            }
        }
        self.objects.push(objects);
        let rows = best.iter().zip(outcomes).enumerate();
        let first = self.ranked.len();
        self.ranked
            .extend(rows.map(|(rank, (found, outcomes))| Ranked {
                score: found.score,
                picture,
                rank,
                outcomes,
            }));
        let added = &self.ranked[first..];
        BEST.map(|count| {
            let best = added.iter().take(count).flat_map(|ranked| ranked.outcomes);
            best.filter(|outcome| *outcome == Outcome::Right).count()
        })
    }

    /// Recall at each IoU threshold of the best `count` detections of each picture; `None` without objects.
    pub(super) fn recall(&self, count: usize) -> Option<[f64; THRESHOLDS]> {
        let objects: usize = self.objects.iter().sum();
        if objects == 0 {
            return None;
        }
        Some(std::array::from_fn(|threshold| {
            let best = self.ranked.iter().filter(|ranked| ranked.rank < count);
            let right = best.filter(|ranked| ranked.outcomes[threshold] == Outcome::Right);
            right.count() as f64 / objects as f64
        }))
    }

    /// Sorts the detections of all pictures; must be called before [`AveragePrecision::at`].
    pub(super) fn sort(&mut self) {
        self.ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    }

    /// Average precision at each IoU threshold if picture `p` counts `weights[p]` times; `None` without
    /// objects.
    pub(super) fn at(&self, weights: &[usize]) -> Option<[f64; THRESHOLDS]> {
        let objects = self.objects.iter().zip(weights);
        let objects: usize = objects.map(|(objects, weight)| objects * weight).sum();
        if objects == 0 {
            return None;
        }
        Some(std::array::from_fn(|threshold| {
            let mut curve: Vec<(f64, f64)> = Vec::new();
            let (mut right, mut counted) = (0, 0);
            for ranked in &self.ranked {
                let weight = weights[ranked.picture];
                match ranked.outcomes[threshold] {
                    Outcome::Ignored => continue,
                    Outcome::Right => right += weight,
                    Outcome::Wrong => {}
                }
                counted += weight;
                if weight > 0 {
                    curve.push((right as f64 / objects as f64, right as f64 / counted as f64));
                }
            }
            area(curve)
        }))
    }
}

/// The true box that `found` matches, of those that are still `free`. The first `objects` of them count,
/// the others are ignored; crowds stay free.
fn matched(
    found: &Detection,
    truth: &[TrueBox],
    objects: usize,
    free: &mut [bool],
    threshold: f64,
) -> Option<usize> {
    let mut best = threshold.min(1.0 - 1e-10);
    let mut matched: Option<usize> = None;
    for (index, candidate) in truth.iter().enumerate() {
        if !free[index] && !candidate.crowd {
            continue;
        }
        if matched.is_some_and(|matched| matched < objects) && index >= objects {
            break;
        }
        let iou = iou(&found.xywh, candidate);
        if iou >= best {
            best = iou;
            matched = Some(index);
        }
    }
    if let Some(index) = matched {
        free[index] = false;
    }
    matched
}

/// Mean of the highest precision at or beyond each of the recalls of `numpy.linspace(0, 1, 101)`.
fn area(curve: Vec<(f64, f64)>) -> f64 {
    area_under(curve, |i| f64::from(i) * 0.01)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::coco::CocoSet;
    use super::*;

    #[derive(Deserialize)]
    struct Expected {
        ap: [f64; THRESHOLDS],
        map: f64,
        ap_50_kinds: f64,
        map_kinds: f64,
    }

    #[derive(Deserialize)]
    struct Row {
        image_id: i64,
        category_id: usize,
        bbox: [f64; 4],
        score: f64,
    }

    const FOLDER: &str = "tests/data/coco";

    fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
        let text = std::fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    #[test]
    fn values_are_those_of_pycocotools() {
        let set = CocoSet::open(format!("{FOLDER}/instances.json").as_ref()).unwrap();
        let rows: Vec<Row> = read("detections.json");
        let expected: Expected = read("expected.json");
        let mut all = AveragePrecision::default();
        let mut kinds = vec![AveragePrecision::default(); set.kinds.len()];
        for picture in &set.pictures {
            let detections = |kind: Option<usize>| -> Vec<Detection> {
                rows.iter()
                    .filter(|row| row.image_id == picture.id)
                    // The fixture numbers its categories from 1 without gaps.
                    .filter(|row| kind.is_none_or(|kind| row.category_id == kind + 1))
                    .map(|row| Detection {
                        xywh: row.bbox,
                        score: row.score,
                    })
                    .collect()
            };
            let truth = |kind| TrueBox::of(picture, kind);
            all.add(&detections(None), &truth(None));
            for (kind, scores) in kinds.iter_mut().enumerate() {
                scores.add(&detections(Some(kind)), &truth(Some(kind)));
            }
        }
        let once = vec![1; set.pictures.len()];
        all.sort();
        let ap = all.at(&once).unwrap();
        for (found, expected) in ap.iter().zip(expected.ap) {
            close(*found, expected);
        }
        close(ap.iter().sum::<f64>() / THRESHOLDS as f64, expected.map);
        kinds.iter_mut().for_each(AveragePrecision::sort);
        let found: Vec<_> = kinds.iter().filter_map(|scores| scores.at(&once)).collect();
        assert!(
            found.len() < kinds.len(),
            "one kind of the fixture has no object"
        );
        let mean = |value: fn(&[f64; THRESHOLDS]) -> f64| {
            found.iter().map(value).sum::<f64>() / found.len() as f64
        };
        close(mean(|ap| ap[0]), expected.ap_50_kinds);
        close(
            mean(|ap| ap.iter().sum::<f64>() / THRESHOLDS as f64),
            expected.map_kinds,
        );
    }

    /// A weight is a number of copies of the picture.
    #[test]
    fn a_weight_repeats_a_picture() {
        let truth = [[0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 10.0, 10.0]].map(|xywh| TrueBox {
            xywh,
            area: 100.0,
            crowd: false,
        });
        let detection = |x: f64, score: f64| Detection {
            xywh: [x, 0.0, 10.0, 10.0],
            score,
        };
        let pictures = [
            vec![
                detection(0.0, 0.9),
                detection(90.0, 0.8),
                detection(50.0, 0.3),
            ],
            vec![detection(51.0, 0.7), detection(80.0, 0.75)],
        ];
        let weighted = {
            let mut scores = AveragePrecision::default();
            for found in &pictures {
                scores.add(found, &truth);
            }
            scores.sort();
            scores.at(&[3, 2])
        };
        let mut copied = AveragePrecision::default();
        for (found, copies) in pictures.iter().zip([3, 2]) {
            for _ in 0..copies {
                copied.add(found, &truth);
            }
        }
        copied.sort();
        assert_eq!(weighted, copied.at(&[1; 5]));
        assert_eq!(copied.at(&[0; 5]), None);
    }
}
