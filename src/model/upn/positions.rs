//! Positions of cells and boxes: sine embeddings, and the reference points and proposed boxes of the
//! encoder (original `deformable_transformer.py`, `position_encoding.py`). Tables are computed on the
//! CPU.

use burn::tensor::Tensor;

use super::padding::PaddingMask;
use crate::gpu::box_position_embedding;

/// Temperature of the position embedding of queries; that of the image is in the configuration.
const QUERY_TEMPERATURE: f64 = 10000.0;

/// Sine embedding of every cell of a level, `[batch, height * width, 2 * channels]`, y before x.
/// Positions are counted over unpadded cells and scaled to `2 pi` at the last one
/// (`docs/reference/upn.md`, section 4).
pub fn sine_positions(mask: &PaddingMask, channels: usize, temperature: f64) -> Vec<f32> {
    let PaddingMask { height, width, .. } = *mask;
    let periods = periods(channels, temperature);
    let width_out = 2 * channels;
    let mut table = vec![0.0; mask.batch * height * width * width_out];
    for image in 0..mask.batch {
        let padded = &mask.padded[image * height * width..][..height * width];
        let table = &mut table[image * height * width * width_out..];
        let (vertical, horizontal) = unpadded_counts(padded, height, width);
        for row in 0..height {
            for column in 0..width {
                let cell = row * width + column;
                let last_y = vertical[(height - 1) * width + column];
                let last_x = horizontal[row * width + width - 1];
                let y = vertical[cell] / (last_y + 1e-6) * std::f32::consts::TAU;
                let x = horizontal[cell] / (last_x + 1e-6) * std::f32::consts::TAU;
                let out = &mut table[cell * width_out..][..width_out];
                for (channel, &period) in periods.iter().enumerate() {
                    let wave = |value: f32| match channel % 2 {
                        0 => (value / period).sin(),
                        _ => (value / period).cos(),
                    };
                    out[channel] = wave(y);
                    out[channels + channel] = wave(x);
                }
            }
        }
    }
    table
}

/// Cumulative counts of unpadded cells down each column and along each row.
fn unpadded_counts(padded: &[bool], height: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
    let mut vertical = vec![0.0; height * width];
    let mut horizontal = vec![0.0; height * width];
    for row in 0..height {
        for column in 0..width {
            let cell = row * width + column;
            let one = if padded[cell] { 0.0 } else { 1.0 };
            vertical[cell] = one + if row > 0 { vertical[cell - width] } else { 0.0 };
            horizontal[cell] = one
                + if column > 0 {
                    horizontal[cell - 1]
                } else {
                    0.0
                };
        }
    }
    (vertical, horizontal)
}

/// The periods `temperature^(2 * floor(k / 2) / channels)` of the channels `k`.
fn periods(channels: usize, temperature: f64) -> Vec<f32> {
    (0..channels)
        .map(|k| temperature.powf((2 * (k / 2)) as f64 / channels as f64) as f32)
        .collect()
}

/// Sine embedding of boxes: `[B, Q, 4]` to `[B, Q, 4 * channels]`, in the order cy, cx, w, h.
pub fn box_position_embedding(boxes: Tensor<3>, channels: usize) -> Tensor<3> {
    box_position_embedding::box_position_embedding(boxes, &periods(channels, QUERY_TEMPERATURE))
}

/// The box proposed by every token of every image, before the sigmoid: `[batch, S]` of
/// `[cx, cy, w, h]`. Excluded tokens (padding, or a box too close to the border) have `+inf`.
pub fn encoder_proposals(levels: &[PaddingMask], first_side: f32) -> Vec<[f32; 4]> {
    let batch = levels.first().map_or(0, |level| level.batch);
    let mut proposals = Vec::new();
    for image in 0..batch {
        for (index, level) in levels.iter().enumerate() {
            let side = first_side * (1u32 << index) as f32;
            let (columns, rows) = level.valid_extent(image);
            let padded = &level.padded[image * level.height * level.width..];
            for row in 0..level.height {
                for column in 0..level.width {
                    let bbox = [
                        (column as f32 + 0.5) / columns as f32,
                        (row as f32 + 0.5) / rows as f32,
                        side,
                        side,
                    ];
                    let inside = bbox.iter().all(|&value| value > 0.01 && value < 0.99);
                    proposals.push(if inside && !padded[row * level.width + column] {
                        bbox.map(|value| (value / (1.0 - value)).ln())
                    } else {
                        [f32::INFINITY; 4]
                    });
                }
            }
        }
    }
    proposals
}

/// Reference points (x, y) of the encoder, `[batch, S, levels, 2]`: the center of each cell relative
/// to the unpadded image, scaled to the padded map of every level.
pub fn encoder_references(sizes: &[[usize; 2]], valid_ratios: &[Vec<[f32; 2]>]) -> Vec<f32> {
    let mut references = Vec::new();
    for ratios in valid_ratios {
        for (&[height, width], own) in sizes.iter().zip(ratios) {
            for row in 0..height {
                for column in 0..width {
                    let x = (column as f32 + 0.5) / (own[0] * width as f32);
                    let y = (row as f32 + 0.5) / (own[1] * height as f32);
                    references.extend(ratios.iter().flat_map(|ratio| [x * ratio[0], y * ratio[1]]));
                }
            }
        }
    }
    references
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn border_tokens_are_excluded() {
        let level = PaddingMask::none(1, 2, 120);
        let proposals = encoder_proposals(&[level], 0.05);
        // Centers 0.5/120 = 0.004 and 119.5/120 = 0.996 lie outside (0.01, 0.99).
        assert!(proposals[0][0].is_infinite() && proposals[119][0].is_infinite());
        assert!(proposals[1][0].is_finite());
    }
}
