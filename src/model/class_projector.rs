//! Object tokens from the class scores of a detector: the embeddings of the class names, weighted by
//! the scores, plus an MLP of the position and the confidence of the box.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::nn::{Init, Linear, Loader};

/// Frequencies of the sine embedding of each coordinate.
const FREQUENCIES: usize = 6;
/// Coordinates with a sine embedding: center, width and height.
const SINES: usize = 4;
/// Inputs of the MLP: 11 linear features and the sine embedding.
const POSITION_FEATURES: usize = 11 + SINES * FREQUENCIES * 2;

/// Sizes of a [`ClassProjector`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassProjectorConfig {
    /// Hidden units of the MLP.
    pub hidden: usize,
    /// Power of the scores before they are normalized to a sum of 1: higher values sharpen.
    pub power: i32,
}

impl ClassProjectorConfig {
    /// The sizes of mini.
    pub const MINI: Self = Self {
        hidden: 96,
        power: 4,
    };
}

/// Class scores and boxes to embeddings of the decoder.
#[derive(Module, Debug)]
pub struct ClassProjector {
    /// Embeddings of the class names, `[D, K]`.
    pub names: Linear,
    first: Linear,
    second: Linear,
    #[module(skip)]
    power: i32,
}

impl ClassProjector {
    /// Reads `names.weight` `[D, K]`, `position.0.{weight,bias}` and `position.2.{weight,bias}` for
    /// `classes` classes K and the decoder's width `width` D.
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
        Ok(Self {
            names: Linear::load_with(&at.child("names"), classes, width, false, Init::Zeros)?,
            first: Linear::load(&position.child(0), POSITION_FEATURES, config.hidden, true)?,
            second: Linear::load_with(
                &position.child(2),
                config.hidden,
                width,
                true,
                Init::Normal(0.05 / (config.hidden as f32).sqrt()),
            )?,
            power: config.power,
        })
    }

    /// Class scores `[B, N, K]` (0 to 1) and position features `[B, N, F]` of
    /// [`position_features`] to `[B, N, D]`.
    pub fn forward(&self, scores: Tensor<3>, positions: Tensor<3>) -> Tensor<3> {
        let shares = self.shares(scores);
        self.names.forward(shares) + self.position(positions)
    }

    /// The scores as shares with a sum of 1, `[B, N, K]`; zeros where all scores are zero.
    pub fn shares(&self, scores: Tensor<3>) -> Tensor<3> {
        let highest = scores.clone().max_dim(2).clamp_min(1e-6);
        let powers = (scores / highest).powi_scalar(self.power);
        let total = powers.clone().sum_dim(2).clamp_min(1e-6);
        powers / total
    }

    /// The part of the embedding that depends on position and confidence, `[B, N, D]`.
    pub fn position(&self, positions: Tensor<3>) -> Tensor<3> {
        let hidden = self.first.activated(positions, Activation::Gelu);
        self.second.forward(hidden)
    }
}

/// The position features of boxes `[x1, y1, x2, y2]`, relative to the picture, with their highest class
/// score, `[N, F]` row-major: corners, center, size, area, its square root, the score, and
/// sine and cosine of `2^i π v` of center and size.
pub fn position_features(boxes: &[[f32; 4]], scores: &[f32]) -> Vec<f32> {
    assert_eq!(boxes.len(), scores.len(), "one score per box");
    let mut features = Vec::with_capacity(boxes.len() * POSITION_FEATURES);
    for (&[x1, y1, x2, y2], &score) in boxes.iter().zip(scores) {
        let (w, h) = (x2 - x1, y2 - y1);
        let (cx, cy) = ((x1 + x2) / 2.0, (y1 + y2) / 2.0);
        let area = (w * h).max(0.0);
        features.extend([x1, y1, x2, y2, cx, cy, w, h, area, area.sqrt(), score]);
        for value in [cx, cy, w, h] {
            for frequency in 0..FREQUENCIES {
                let angle = std::f32::consts::PI * value * (1 << frequency) as f32;
                features.extend([angle.sin(), angle.cos()]);
            }
        }
    }
    features
}

/// [`position_features`] of one picture as a tensor `[1, N, F]`; at least one box.
pub fn position_tensor(
    boxes: &[[f32; 4]],
    scores: &[f32],
    device: &burn::tensor::Device,
) -> Tensor<3> {
    let features = position_features(boxes, scores);
    let shape = [1, boxes.len(), POSITION_FEATURES];
    Tensor::from_data(TensorData::new(features, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_the_documented_order() {
        let row = position_features(&[[0.2, 0.4, 0.6, 0.5]], &[0.7]);
        assert_eq!(row.len(), POSITION_FEATURES);
        let expected = [0.2, 0.4, 0.6, 0.5, 0.4, 0.45, 0.4, 0.1, 0.04, 0.2, 0.7];
        for (value, expected) in row.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
        assert!((row[11] - (std::f32::consts::PI * 0.4).sin()).abs() < 1e-6);
    }
}
