//! Rotary position embedding (RoPE, arXiv 2104.09864) in its half-split form (`rotate_half` in
//! `modeling_llama.py` of `transformers`): channel `i` of a head pairs with channel
//! `i + width / 2`.

use burn::tensor::{Device, Tensor, TensorData};

use super::config::DecoderConfig;
use crate::cpu::cached_attention::Angles;

/// Cosines and sines of the rotation angles, as tensors.
#[derive(Clone, Debug)]
pub(super) struct Rope {
    /// `[B or 1, 1, T, width / 2]`.
    cosine: Tensor<4>,
    sine: Tensor<4>,
}

impl Rope {
    /// The angles of `positions[b][t]`; all sequences have one length.
    pub fn new(positions: &[Vec<u32>], config: &DecoderConfig, device: &Device) -> Self {
        let (cosine, sine) = rope_table(positions, config);
        let half = config.head_width() / 2;
        let shape = [positions.len(), 1, positions[0].len(), half];
        Self {
            cosine: Tensor::from_data(TensorData::new(cosine, shape), device),
            sine: Tensor::from_data(TensorData::new(sine, shape), device),
        }
    }

    /// Rotates queries or keys `[B, heads, T, width]`.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let width = x.dims()[3];
        let first = x.clone().narrow(3, 0, width / 2);
        let second = x.narrow(3, width / 2, width / 2);
        let (cosine, sine) = (self.cosine.clone(), self.sine.clone());
        Tensor::cat(
            vec![
                first.clone() * cosine.clone() - second.clone() * sine.clone(),
                second * cosine + first * sine,
            ],
            3,
        )
    }
}

/// The angles of `count` tokens after `past` others.
pub(super) fn angles(past: usize, count: usize, config: &DecoderConfig) -> Angles {
    let positions = (past as u32..(past + count) as u32).collect();
    let (cosine, sine) = rope_table(&[positions], config);
    Angles { cosine, sine }
}

/// Cosine and sine of `position * theta^(-2 i / width)`, `[sequences, T, width / 2]` each. The
/// product is rounded to f32, as in the original.
pub(super) fn rope_table(positions: &[Vec<u32>], config: &DecoderConfig) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_width() / 2;
    let frequencies = (0..half)
        .map(|i| config.rope_theta.powf(-(i as f64) / half as f64) as f32)
        .collect::<Vec<_>>();
    let length = positions[0].len();
    let (mut cosine, mut sine) = (Vec::new(), Vec::new());
    for sequence in positions {
        assert_eq!(
            sequence.len(),
            length,
            "RoPE: sequences of a batch have one length"
        );
        for &position in sequence {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cosine.push(angle.cos() as f32);
                sine.push(angle.sin() as f32);
            }
        }
    }
    (cosine, sine)
}
