//! `roi_align`: the cells of boxes on a feature map, sample by sample. What [`roi_pool`] sums up
//! separably is checked against their mean.
//!
//! [`roi_pool`]: crate::gpu::roi_pool

use burn::tensor::{Device, Tensor, TensorData};

use crate::geometry::BoxXyxy;
use crate::gpu::buffer::{alloc, from_buffer, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::roi_pool::{AxisWeights, bilinear, roi_pool};
use crate::gpu::testing::{SweepReport, TestRng};

/// Channels per workgroup.
const GROUP: u32 = 64;

/// `shaders/roi_align.wgsl`.
pub const SHADER: Shader = Shader {
    name: "roi_align",
    text: include_str!("../../shaders/roi_align.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// `torchvision.ops.roi_align` with `sampling_ratio = -1` and `aligned = false` on a graphics device,
/// for `features` `[1, C, h, w]` (best with channels last in memory) and `boxes` in input pixels,
/// `scale` map cells each: `[N, C, cells, cells]`.
///
/// # Panics
/// `features` are several pictures, empty or not on a graphics device, or there is no box or cell.
pub fn roi_align(features: Tensor<4>, boxes: &[BoxXyxy], scale: f32, cells: usize) -> Tensor<4> {
    let [batch, channels, height, width] = features.dims();
    assert!(
        batch == 1 && channels * height * width > 0 && !boxes.is_empty() && cells > 0,
        "roi_align: {:?} with {} boxes of {cells} cells",
        features.dims(),
        boxes.len()
    );
    let features = to_buffer("roi_align", features.permute([0, 2, 3, 1]));
    let client = &features.client;
    let corners: Vec<[f32; 4]> = boxes
        .iter()
        .map(|&b| <[f32; 4]>::from(b).map(|side| side * scale))
        .collect();
    let corners = client.create_from_slice(bytemuck::cast_slice(&corners));
    let count = boxes.len() * cells * cells;
    let out = alloc("roi_align", client, count * channels);
    launch(
        &SHADER,
        client,
        count as u64 * (channels as u64).div_ceil(u64::from(GROUP)),
        &[&features.handle, &corners],
        &[&out],
        &[boxes.len(), height, width, channels, cells, 0, 0, 0].map(|size| size as u32),
    );
    from_buffer(&features, out, [boxes.len(), cells, cells, channels]).permute([0, 3, 1, 2])
}

/// [`roi_align`] in plain loops: `features` `[C, h, w]` row-major, the result `[N, C, cells, cells]`.
pub fn roi_align_reference(
    features: &[f32],
    [channels, height, width]: [usize; 3],
    boxes: &[BoxXyxy],
    scale: f32,
    cells: usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(boxes.len() * channels * cells * cells);
    for b in boxes {
        let (x, y) = (b.x1 * scale, b.y1 * scale);
        let cell_w = (b.x2 * scale - x).max(1.0) / cells as f32;
        let cell_h = (b.y2 * scale - y).max(1.0) / cells as f32;
        let (grid_w, grid_h) = (cell_w.ceil(), cell_h.ceil());
        for channel in 0..channels {
            let map = &features[channel * height * width..][..height * width];
            for row in 0..cells {
                for column in 0..cells {
                    let mut sum = 0.0;
                    for iy in 0..grid_h as usize {
                        let at_y = y + row as f32 * cell_h + (iy as f32 + 0.5) * cell_h / grid_h;
                        for ix in 0..grid_w as usize {
                            let at_x =
                                x + column as f32 * cell_w + (ix as f32 + 0.5) * cell_w / grid_w;
                            for (j, wy) in bilinear(at_y, height).into_iter().flatten() {
                                for (i, wx) in bilinear(at_x, width).into_iter().flatten() {
                                    sum += wy * wx * map[j * width + i];
                                }
                            }
                        }
                    }
                    out.push(sum / (grid_h * grid_w));
                }
            }
        }
    }
    out
}

/// Features lie in [-1, 1] and samples are a few units in the last place apart, where a map cell is
/// at most 96 of them from the origin; means of means differ by the order of their sums.
const TOLERANCE: f32 = 5e-5;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor, and
/// `roi_pool` with the mean of the reference's cells: over awkward shapes, boxes that are points,
/// inverted, partly and far outside, outputs that start as NaN, and more workgroups than one dimension
/// holds. The same natively and in a browser.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let shapes: [[usize; 5]; 9] = [
        // boxes, channels, height, width, cells of a side
        [1, 1, 1, 1, 1],
        [7, 1, 2, 9, 7],
        [13, 63, 6, 6, 7],
        [5, 64, 5, 7, 3],
        [5, 65, 7, 5, 2],
        [11, 129, 1, 17, 7],
        [9, 3, 48, 48, 7],
        [6, 8, 96, 20, 7],
        [65_537, 1, 2, 3, 1],
    ];
    let mut swept = SweepReport::on(device)?;
    for shape in shapes {
        compare(device, shape, &mut swept).await?;
    }
    Ok(swept)
}

async fn compare(
    device: &Device,
    [count, channels, height, width, cells]: [usize; 5],
    swept: &mut SweepReport,
) -> Result<(), String> {
    const SCALE: f32 = 0.25;
    let name = format!("roi_align [{count}, {channels}, {height}, {width}] in {cells}");
    let mut dice = TestRng::default();
    let values = dice.values(channels * height * width);
    let mut ends = |extent: usize, kind: usize| {
        let reach = 1.4913 * extent as f32 / SCALE;
        let (a, b) = (dice.draw() * reach, dice.draw() * reach);
        match kind {
            0 => [a, a],
            1 => [a.max(b), a.min(b)],
            2 => [reach + 20.0, reach + 36.0],
            3 => [-reach, reach],
            _ => [a.min(b), a.max(b)],
        }
    };
    let boxes: Vec<BoxXyxy> = (0..count)
        .map(|index| {
            let [x1, x2] = ends(width, index % 7);
            let [y1, y2] = ends(height, index % 5);
            BoxXyxy::from([x1, y1, x2, y2])
        })
        .collect();
    let expected = roi_align_reference(&values, [channels, height, width], &boxes, SCALE, cells);
    let data = TensorData::new(values, [1, channels, height, width]);
    let features = || Tensor::<4>::from_data(data.clone(), device);
    let aligned = with_nan_fill(|| roi_align(features(), &boxes, SCALE, cells));
    swept.compare(&name, aligned, &expected, TOLERANCE).await?;

    let mut vertical = AxisWeights::zeros(1, count, height);
    let mut horizontal = AxisWeights::zeros(1, count, width);
    for (index, b) in boxes.iter().enumerate() {
        vertical.add_box(0, index, [b.y1 * SCALE, b.y2 * SCALE], cells);
        horizontal.add_box(0, index, [b.x1 * SCALE, b.x2 * SCALE], cells);
    }
    let means: Vec<f32> = expected
        .chunks_exact(cells * cells)
        .map(|cells| cells.iter().sum::<f32>() / cells.len() as f32)
        .collect();
    let pooled = with_nan_fill(|| roi_pool(features(), &vertical, &horizontal));
    let name = format!("{name}, mean");
    swept.compare(&name, pooled, &means, TOLERANCE).await
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn kernel_and_pooling_agree_with_the_reference() {
        let Some(device) = adapter_for_test("kernel_and_pooling_agree_with_the_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }
}
