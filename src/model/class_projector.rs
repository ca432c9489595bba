//! Object tokens from the class scores of a detector: the embeddings of the class names, weighted by
//! the scores, plus an MLP of the position and the confidence of the box.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::nn::{Init, Linear, Loader};
use crate::text::prompt::MAX_BOXES;

/// Frequencies of the sine embedding of each coordinate.
const FREQUENCIES: usize = 6;
/// Coordinates with a sine embedding: center, width and height.
const SINES: usize = 4;
/// Inputs of the MLP: 11 linear features and the sine embedding.
const POSITION_FEATURES: usize = 11 + SINES * FREQUENCIES * 2;
/// Features that compare a box with the other boxes of its class.
const EXTREMES: usize = EXTREME_WORDS.len();

/// Words for these features, in their order.
pub const EXTREME_WORDS: [&str; 6] = [
    "leftmost",
    "rightmost",
    "topmost",
    "bottommost",
    "biggest",
    "smallest",
];

/// Sizes of a [`ClassProjector`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassProjectorConfig {
    /// Hidden units of the MLP.
    pub hidden: usize,
    /// Power of the scores before they are normalized to a sum of 1: higher values sharpen.
    pub power: i32,
    /// Whether an embedding is added for each of [`EXTREME_WORDS`] that a box is among the boxes of its
    /// class.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extremes: bool,
    /// Whether an embedding is added for the index of a box. Its token then says itself what an answer that
    /// names it must contain; otherwise the decoder reads the index from the token before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub indices: bool,
}

impl ClassProjectorConfig {
    /// The sizes of mini.
    pub const MINI: Self = Self {
        hidden: 96,
        power: 4,
        extremes: true,
        indices: false,
    };

    /// The sizes of small.
    pub const SMALL: Self = Self {
        indices: true,
        ..Self::MINI
    };

    /// Number of position features of a box.
    fn features(&self) -> usize {
        POSITION_FEATURES + if self.extremes { EXTREMES } else { 0 }
    }
}

/// Class scores and boxes to embeddings of the decoder.
#[derive(Module, Debug)]
pub struct ClassProjector {
    /// Embeddings of the class names, `[D, K]`.
    pub names: Linear,
    /// Embeddings of [`EXTREME_WORDS`], `[D, 6]`.
    pub extremes: Option<Linear>,
    /// Embeddings of indices, `[D, 100]`.
    pub indices: Option<Linear>,
    first: Linear,
    second: Linear,
    #[module(skip)]
    config: ClassProjectorConfig,
}

impl ClassProjector {
    /// Reads `names.weight` `[D, K]`, `extremes.weight` `[D, 6]` and `indices.weight` `[D, 100]` if the
    /// model has them, `position.0.{weight,bias}` and `position.2.{weight,bias}` for `classes` classes K and the decoder's
    /// width `width` D.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(
        at: &Loader,
        config: &ClassProjectorConfig,
        classes: usize,
        width: usize,
    ) -> Result<Self, Fault> {
        let position = at.child("position");
        let embeddings = |name: &str, count: usize| {
            Linear::load_with(&at.child(name), count, width, false, Init::Zeros)
        };
        let extremes = config.extremes.then(|| embeddings("extremes", EXTREMES));
        let indices = config.indices.then(|| embeddings("indices", MAX_BOXES));
        Ok(Self {
            names: embeddings("names", classes)?,
            extremes: extremes.transpose()?,
            indices: indices.transpose()?,
            first: Linear::load(&position.child(0), POSITION_FEATURES, config.hidden, true)?,
            second: Linear::load_with(
                &position.child(2),
                config.hidden,
                width,
                true,
                Init::Normal(0.05 / (config.hidden as f32).sqrt()),
            )?,
            config: *config,
        })
    }

    /// Class scores `[B, N, K]` (0 to 1) and position features `[B, N, F]` of
    /// [`ScoredBoxes::position_features`] to `[B, N, D]`; N is at most [`MAX_BOXES`].
    pub fn forward(&self, scores: Tensor<3>, positions: Tensor<3>) -> Tensor<3> {
        let [batch, boxes, _] = scores.dims();
        let shares = self.shares(scores);
        let tokens = self.names.forward(shares) + self.position(positions);
        let Some(indices) = &self.indices else {
            return tokens;
        };
        let numbers: Vec<f32> = (0..boxes * MAX_BOXES)
            .map(|place| f32::from(u8::from(place / MAX_BOXES == place % MAX_BOXES)))
            .collect();
        let numbers = TensorData::new(numbers, [1, boxes, MAX_BOXES]);
        let numbers = Tensor::<3>::from_data(numbers, &tokens.device());
        tokens + indices.forward(numbers).repeat_dim(0, batch)
    }

    /// The scores as shares with a sum of 1, `[B, N, K]`; zeros where all scores are zero.
    pub fn shares(&self, scores: Tensor<3>) -> Tensor<3> {
        let highest = scores.clone().max_dim(2).clamp_min(1e-6);
        let powers = (scores / highest).powi_scalar(self.config.power);
        let total = powers.clone().sum_dim(2).clamp_min(1e-6);
        powers / total
    }

    /// The part of the embedding that depends on position and confidence, `[B, N, D]`.
    pub fn position(&self, positions: Tensor<3>) -> Tensor<3> {
        let own = positions.clone().narrow(2, 0, POSITION_FEATURES);
        let hidden = self.first.activated(own, Activation::Gelu);
        let embedding = self.second.forward(hidden);
        match &self.extremes {
            Some(extremes) => embedding + extremes.forward(extreme_flags(positions)),
            None => embedding,
        }
    }
}

/// The features of [`ScoredBoxes::position_features`] that compare boxes, `[B, N, 6]`.
pub fn extreme_flags(positions: Tensor<3>) -> Tensor<3> {
    positions.narrow(2, POSITION_FEATURES, EXTREMES)
}

/// Boxes of a picture with their class scores.
#[derive(Clone, Copy, Debug)]
pub struct ScoredBoxes<'a> {
    /// `[x1, y1, x2, y2]`, relative to the picture.
    pub boxes: &'a [[f32; 4]],
    /// Class scores, `[N, K]` row-major.
    pub scores: &'a [f32],
}

impl ScoredBoxes<'_> {
    /// The class of each box with its highest score; `None` where all scores are 0.
    fn best(&self) -> Vec<Option<(usize, f32)>> {
        let classes = self.scores.len() / self.boxes.len().max(1);
        let rows = self.scores.chunks(classes.max(1));
        let best = |row: &[f32]| {
            let scored = row.iter().copied().enumerate();
            // The first of equal scores.
            let best = scored.reduce(|a, b| if b.1 > a.1 { b } else { a });
            best.filter(|&(_, score)| score > 0.0)
        };
        rows.map(best).collect()
    }

    /// The features of [`ClassProjector::position`], `[N, F]` row-major: corners, center, size, area, its
    /// square root, the highest class score, sine and cosine of `2^i π v` of center and size, and, with
    /// [`ClassProjectorConfig::extremes`], 1 or 0 for each of [`EXTREME_WORDS`] among the boxes of the same
    /// class. Of equal boxes it is the first.
    pub fn position_features(&self, config: &ClassProjectorConfig) -> Vec<f32> {
        let best = self.best();
        let mut features = Vec::with_capacity(self.boxes.len() * config.features());
        for (&[x1, y1, x2, y2], best) in self.boxes.iter().zip(&best) {
            let (w, h) = (x2 - x1, y2 - y1);
            let (cx, cy) = ((x1 + x2) / 2.0, (y1 + y2) / 2.0);
            let area = (w * h).max(0.0);
            let score = best.map_or(0.0, |(_, score)| score);
            features.extend([x1, y1, x2, y2, cx, cy, w, h, area, area.sqrt(), score]);
            for value in [cx, cy, w, h] {
                for frequency in 0..FREQUENCIES {
                    let angle = std::f32::consts::PI * value * (1 << frequency) as f32;
                    features.extend([angle.sin(), angle.cos()]);
                }
            }
            if config.extremes {
                features.extend([0.0; EXTREMES]);
            }
        }
        if config.extremes {
            let mut extremes = BTreeMap::<usize, [(f32, usize); EXTREMES]>::new();
            for (index, (&[x1, y1, x2, y2], best)) in self.boxes.iter().zip(&best).enumerate() {
                let Some((class, _)) = *best else { continue };
                let (cx, cy, area) = (x1 + x2, y1 + y2, (x2 - x1) * (y2 - y1));
                let values = [-cx, cx, -cy, cy, area, -area].map(|value| (value, index));
                let leaders = extremes.entry(class).or_insert(values);
                for (leader, value) in leaders.iter_mut().zip(values) {
                    if value.0 > leader.0 {
                        *leader = value;
                    }
                }
            }
            for leaders in extremes.values() {
                for (extreme, &(_, index)) in leaders.iter().enumerate() {
                    features[index * config.features() + POSITION_FEATURES + extreme] = 1.0;
                }
            }
        }
        features
    }
}

impl ClassProjector {
    /// The embeddings `[N, D]` of the boxes of one picture; at least one.
    pub fn embed(&self, boxes: ScoredBoxes, device: &Device) -> Tensor<2> {
        let count = boxes.boxes.len();
        let tensor = |values: Vec<f32>| {
            let shape = [1, count, values.len() / count];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        let positions = tensor(boxes.position_features(&self.config));
        self.forward(tensor(boxes.scores.to_vec()), positions)
            .squeeze_dim(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::WeightSource;
    use crate::nn::loader::on_device;

    #[test]
    fn features_have_the_documented_order() {
        let boxes = ScoredBoxes {
            boxes: &[[0.2, 0.4, 0.6, 0.5]],
            scores: &[0.1, 0.7],
        };
        let plain = ClassProjectorConfig {
            extremes: false,
            ..ClassProjectorConfig::MINI
        };
        let row = boxes.position_features(&plain);
        assert_eq!(row.len(), POSITION_FEATURES);
        let expected = [0.2, 0.4, 0.6, 0.5, 0.4, 0.45, 0.4, 0.1, 0.04, 0.2, 0.7];
        for (value, expected) in row.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
        assert!((row[11] - (std::f32::consts::PI * 0.4).sin()).abs() < 1e-6);
        let with_extremes = boxes.position_features(&ClassProjectorConfig::MINI);
        assert_eq!(with_extremes[..row.len()], row);
        assert_eq!(with_extremes[row.len()..], [1.0; EXTREMES]);
    }

    /// Every tensor counts up to 12 and begins again.
    struct Counting;

    impl WeightSource for Counting {
        fn tensor(
            &self,
            _name: &str,
            shape: &[usize],
            _init: &Init,
            device: &Device,
        ) -> Result<Tensor<1>, Fault> {
            let values = (0..shape.iter().product::<usize>()).map(|i| (i % 13) as f32);
            Ok(on_device(values.collect(), device))
        }
    }

    #[test]
    fn each_box_gets_the_embedding_of_its_index() {
        let device = Device::flex();
        let load = |config: ClassProjectorConfig| {
            ClassProjector::load(&Loader::new(&Counting, &device), &config, 3, 4)
                .expect("every tensor")
        };
        let boxes = ScoredBoxes {
            boxes: &[[0.1, 0.1, 0.2, 0.2]; 3],
            scores: &[0.5; 9],
        };
        let embed = |config: ClassProjectorConfig| {
            let tokens = load(config).embed(boxes, &device).into_data();
            tokens.try_into_vec::<f32>().expect("f32")
        };
        let with = embed(ClassProjectorConfig::SMALL);
        let without = embed(ClassProjectorConfig::MINI);
        for (place, (with, without)) in with.iter().zip(&without).enumerate() {
            let (index, unit) = (place / 4, place % 4);
            let expected = ((unit * MAX_BOXES + index) % 13) as f32;
            assert!(
                (with - without - expected).abs() < 0.1,
                "{place}: {with} {without}"
            );
        }
    }

    #[test]
    fn extremes_are_among_boxes_of_the_same_class() {
        let boxes = ScoredBoxes {
            boxes: &[
                [0.1, 0.1, 0.2, 0.2],
                [0.0, 0.0, 0.1, 0.1],
                [0.5, 0.5, 0.9, 0.9],
                [0.8, 0.8, 0.9, 0.9],
                [0.5, 0.5, 0.9, 0.9],
            ],
            // The second box is of the other class, the fourth of none.
            scores: &[0.5, 0.1, 0.1, 0.5, 0.5, 0.4, 0.0, 0.0, 0.5, 0.4],
        };
        let features = boxes.position_features(&ClassProjectorConfig::MINI);
        let rows = features.chunks(POSITION_FEATURES + EXTREMES);
        let extremes: Vec<&[f32]> = rows.map(|row| &row[POSITION_FEATURES..]).collect();
        assert_eq!(extremes[0], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(extremes[1], [1.0; EXTREMES]);
        assert_eq!(extremes[2], [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!(extremes[3], [0.0; EXTREMES]);
        assert_eq!(
            extremes[4], [0.0; EXTREMES],
            "the first of equal boxes leads"
        );
    }
}
