//! The box encoder: one vector per box, the pooled features of every pyramid level plus a sine
//! embedding of the box (ChatRex, arXiv 2411.18363, section 3.3; `multi_scale_roi` of RexSeek).
//!
//! The original upsamples every level to the finest, concatenates them, applies RoIAlign (adaptive
//! sampling, not aligned) and averages the cells. All of this is linear and separable on a regular
//! grid: for box `n` and level `l` it is `sum_yx wy[y] F_l[c, y, x] wx[x]` with one weight vector per
//! axis, computed here on the CPU. The concatenated map is never built. There are no learned
//! parameters.

use burn::tensor::{Device, Tensor, TensorData};

use crate::geometry::BoxXyxy;
use crate::gpu::roi_pool::{AxisWeights, roi_pool};

/// Cells per side of RoIAlign in the original.
pub const CELLS: usize = 7;

/// Encodes the boxes of several images.
///
/// `pyramid`: `[B, C_l, h_l, w_l]` per level, finest first. `boxes`: one list per image, in pixels of
/// the padded image of `image_hw` (height, width). Returns `[B, N, sum of C_l]`, where N is the longest
/// list; rows beyond the boxes of an image are zero.
pub fn encode_batch(
    pyramid: &[Tensor<4>],
    boxes: &[Vec<BoxXyxy>],
    image_hw: [usize; 2],
) -> Tensor<3> {
    encode_cells(pyramid, boxes, image_hw, CELLS)
}

/// [`encode_batch`] with another number of RoIAlign cells per side.
pub fn encode_cells(
    pyramid: &[Tensor<4>],
    boxes: &[Vec<BoxXyxy>],
    image_hw: [usize; 2],
    cells: usize,
) -> Tensor<3> {
    let pooled = pool_batch(pyramid, boxes, image_hw, cells);
    let [_, rows, width] = pooled.dims();
    let position = position_rows(boxes, rows, width, image_hw, &pooled.device());
    pooled + position
}

/// The pooled features of [`encode_cells`], without the position embedding.
fn pool_batch(
    pyramid: &[Tensor<4>],
    boxes: &[Vec<BoxXyxy>],
    image_hw: [usize; 2],
    cells: usize,
) -> Tensor<3> {
    let finest = pyramid.first().expect("a pyramid has levels").dims();
    let rows = boxes.iter().map(Vec::len).max().unwrap_or(0);
    let axis_weights = |axis: usize| {
        let extent = finest[2 + axis];
        let scale = extent as f32 / image_hw[axis] as f32;
        let mut weights = AxisWeights::zeros(boxes.len(), rows, extent);
        for (image, boxes) in boxes.iter().enumerate() {
            for (n, b) in boxes.iter().enumerate() {
                let (low, high) = if axis == 0 {
                    (b.y1, b.y2)
                } else {
                    (b.x1, b.x2)
                };
                weights.add_box(image, n, [low * scale, high * scale], cells);
            }
        }
        weights
    };
    let (vertical, horizontal) = (axis_weights(0), axis_weights(1));
    let levels = pyramid.iter().map(|level| {
        let [_, _, height, width] = level.dims();
        roi_pool(
            level.clone(),
            &fold_upsampling(&vertical, height),
            &fold_upsampling(&horizontal, width),
        )
    });
    Tensor::cat(levels.collect(), 2)
}

/// Folds upsampling into the weights: weights over an axis of `extent` cells that equal `weights` over
/// the same axis upsampled to their length (bilinear, `align_corners = false`), `U^T w`.
fn fold_upsampling(weights: &AxisWeights, extent: usize) -> AxisWeights {
    if weights.extent() == extent {
        return weights.clone();
    }
    let scale = extent as f32 / weights.extent() as f32;
    weights.map_rows(extent, |from, to| {
        for (i, weight) in from.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let at = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
            let lower = (at as usize).min(extent - 1);
            let upper = (lower + 1).min(extent - 1);
            let fraction = at - lower as f32;
            to[lower] += weight * (1.0 - fraction);
            to[upper] += weight * fraction;
        }
    })
}

/// Position embeddings, `[B, rows, width]`; zero beyond the boxes of each image.
fn position_rows(
    boxes: &[Vec<BoxXyxy>],
    rows: usize,
    width: usize,
    image_hw: [usize; 2],
    device: &Device,
) -> Tensor<3> {
    let mut values = vec![0.0; boxes.len() * rows * width];
    for (image, boxes) in boxes.iter().enumerate() {
        for (n, b) in boxes.iter().enumerate() {
            let start = (image * rows + n) * width;
            position_embedding(center_form(b, image_hw), &mut values[start..start + width]);
        }
    }
    Tensor::from_data(TensorData::new(values, [boxes.len(), rows, width]), device)
}

/// A box as `[cx, cy, w, h]` relative to the image, with the order of f32 operations of the original.
pub fn center_form(b: &BoxXyxy, [height, width]: [usize; 2]) -> [f32; 4] {
    let (x1, x2) = (b.x1 / width as f32, b.x2 / width as f32);
    let (y1, y2) = (b.y1 / height as f32, b.y2 / height as f32);
    let (w, h) = (x2 - x1, y2 - y1);
    [x1 + w / 2.0, y1 + h / 2.0, w, h]
}

/// Writes the sine embedding of a box `[cx, cy, w, h]` to `out`: a quarter for each of cy, cx, w, h,
/// alternating `sin` and `cos` of `2 pi v / 10000^(2 floor(k / 2) / d)` over its d channels k
/// (`gen_sineembed_for_position` in the original).
pub fn position_embedding([cx, cy, w, h]: [f32; 4], out: &mut [f32]) {
    assert_eq!(
        out.len() % 4,
        0,
        "position embedding: the width is a multiple of 4"
    );
    let part = out.len() / 4;
    for (value, out) in [cy, cx, w, h]
        .into_iter()
        .zip(out.chunks_exact_mut(part.max(1)))
    {
        for (k, out) in out.iter_mut().enumerate() {
            let period = 10000_f64.powf((2 * (k / 2)) as f64 / part as f64);
            let angle = f64::from(value) * std::f64::consts::TAU / period;
            *out = if k % 2 == 0 { angle.sin() } else { angle.cos() } as f32;
        }
    }
}

#[cfg(all(test, feature = "diagnostics"))]
mod tests {
    use super::*;
    use crate::gpu::roi_align::roi_align_reference;

    fn boxes() -> Vec<BoxXyxy> {
        [
            [10.0, 4.0, 30.5, 28.0],
            [-20.0, -8.0, 12.0, 6.0],
            [40.0, 30.0, 90.0, 70.0],
            [20.0, 20.0, 20.0, 20.0],
            [30.0, 25.0, 10.0, 5.0],
            [200.0, 200.0, 240.0, 260.0],
            [-1e9, -1e9, 1e9, 1e9],
        ]
        .map(BoxXyxy::from)
        .to_vec()
    }

    /// Separable pooling equals the mean over the cells of direct RoIAlign.
    #[test]
    fn separable_pooling_is_the_mean_of_roi_align() {
        let [channels, height, width] = [3, 12, 16];
        let values: Vec<f32> = (0..channels * height * width)
            .map(|i| ((i * 7919 % 1009) as f32 / 504.5) - 1.0)
            .collect();
        let direct_boxes = &boxes()[..6];
        let direct = roi_align_reference(
            &values,
            [channels, height, width],
            direct_boxes,
            0.25,
            CELLS,
        );
        let level = Tensor::<4>::from_data(
            TensorData::new(values, [1, channels, height, width]),
            &Device::flex(),
        );
        let pooled = pool_batch(&[level], &[boxes()], [48, 64], CELLS)
            .into_data()
            .try_to_vec::<f32>()
            .expect("f32");
        for (i, cells) in direct.chunks_exact(CELLS * CELLS).enumerate() {
            let mean = cells.iter().sum::<f32>() / (CELLS * CELLS) as f32;
            assert!(
                (mean - pooled[i]).abs() < 1e-5,
                "box {}, channel {}: {mean} directly, {} separably",
                i / channels,
                i % channels,
                pooled[i]
            );
        }
        assert!(
            pooled.iter().all(|v| v.is_finite()),
            "huge boxes stay finite"
        );
    }

    #[test]
    fn rows_beyond_the_boxes_are_zero() {
        let level = Tensor::<4>::ones([2, 4, 8, 8], &Device::flex());
        let boxes = [vec![BoxXyxy::from([0.0, 0.0, 16.0, 16.0]); 2], vec![]];
        let encoded = encode_batch(&[level], &boxes, [32, 32]);
        assert_eq!(encoded.dims(), [2, 2, 4]);
        let values = encoded.into_data().try_to_vec::<f32>().expect("f32");
        assert!(values[..8].iter().any(|v| *v != 0.0));
        assert!(values[8..].iter().all(|v| *v == 0.0));
    }
}
