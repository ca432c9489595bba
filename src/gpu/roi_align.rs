//! RoIAlign, sample by sample. It checks [`roi_pool`](crate::gpu::roi_pool), which computes the
//! mean of a box's bins with separable weights.

use burn::tensor::Tensor;

use crate::geometry::BoxXyxy;
use crate::gpu::buffer::{alloc, from_buffer, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::roi_pool::bilinear;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use burn::tensor::{Device, TensorData};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::roi_pool::{AxisWeights, roi_pool};
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng};

/// Channels, and threads, per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/roi_align.wgsl`.
    struct RoiAlignUniforms {
        /// N.
        boxes: u32,
        /// H.
        height: u32,
        /// W.
        width: u32,
        /// C.
        channels: u32,
        /// S, bins along a side of a box.
        bins: u32,
    }
}

/// `shaders/roi_align.wgsl`.
pub const SHADER: Shader = Shader {
    name: "roi_align",
    text: include_str!("../../shaders/roi_align.wgsl"),
    uniforms: RoiAlignUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// `torchvision.ops.roi_align` with `sampling_ratio = -1` and `aligned = false` on a GPU, for
/// `features` `[1, C, H, W]` (fastest with channels last in memory) and `boxes` in pixels; `scale`
/// is cells of the map per pixel. Returns `[N, C, bins, bins]`.
///
/// # Panics
/// `features` are of several images, empty or not on a GPU, or there is no box or bin.
pub fn roi_align(features: Tensor<4>, boxes: &[BoxXyxy], scale: f32, bins: usize) -> Tensor<4> {
    let [batch, channels, height, width] = features.dims();
    assert!(
        batch == 1 && channels * height * width > 0 && !boxes.is_empty() && bins > 0,
        "roi_align: {:?} with {} boxes of {bins} bins",
        features.dims(),
        boxes.len()
    );
    let features = to_buffer("roi_align", features.permute([0, 2, 3, 1]));
    let client = &features.client;
    let corners: Vec<[f32; 4]> = boxes
        .iter()
        .map(|&b| <[f32; 4]>::from(b).map(|coordinate| coordinate * scale))
        .collect();
    let corners = client.create_from_slice(bytemuck::cast_slice(&corners));
    let count = boxes.len() * bins * bins;
    let out = alloc("roi_align", client, count * channels);
    launch(
        &SHADER,
        client,
        count as u64 * (channels as u64).div_ceil(u64::from(WORKGROUP_SIZE)),
        &[&features.handle, &corners],
        &[&out],
        &RoiAlignUniforms {
            boxes: boxes.len() as u32,
            height: height as u32,
            width: width as u32,
            channels: channels as u32,
            bins: bins as u32,
        },
    );
    from_buffer(&features, out, [boxes.len(), bins, bins, channels]).permute([0, 3, 1, 2])
}

/// [`roi_align`] in plain loops: `features` `[C, H, W]` row-major, the result `[N, C, bins, bins]`.
pub fn roi_align_reference(
    features: &[f32],
    [channels, height, width]: [usize; 3],
    boxes: &[BoxXyxy],
    scale: f32,
    bins: usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(boxes.len() * channels * bins * bins);
    for b in boxes {
        let (x, y) = (b.x1 * scale, b.y1 * scale);
        let bin_w = (b.x2 * scale - x).max(1.0) / bins as f32;
        let bin_h = (b.y2 * scale - y).max(1.0) / bins as f32;
        let (samples_x, samples_y) = (bin_w.ceil(), bin_h.ceil());
        for channel in 0..channels {
            let map = &features[channel * height * width..][..height * width];
            for row in 0..bins {
                for column in 0..bins {
                    let mut sum = 0.0;
                    for iy in 0..samples_y as usize {
                        let at_y = y + row as f32 * bin_h + (iy as f32 + 0.5) * bin_h / samples_y;
                        for ix in 0..samples_x as usize {
                            let at_x =
                                x + column as f32 * bin_w + (ix as f32 + 0.5) * bin_w / samples_x;
                            for (j, wy) in bilinear(at_y, height).into_iter().flatten() {
                                for (i, wx) in bilinear(at_x, width).into_iter().flatten() {
                                    sum += wy * wx * map[j * width + i];
                                }
                            }
                        }
                    }
                    out.push(sum / (samples_y * samples_x));
                }
            }
        }
    }
    out
}

/// Features are in [-1, 1]; sample coordinates of up to 96 cells differ by a few units in the last
/// place, and means of means by the order of their sums.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 5e-5;

/// Compares the kernel on a GPU with the reference on the CPU, and `roi_pool` with the mean of the
/// reference's bins: boxes that are points, inverted, partly and far outside, outputs that start as
/// NaN, more workgroups than one dispatch dimension holds.
///
/// # Errors
/// The first difference, with shape, index and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let shapes: [[usize; 5]; 9] = [
        // boxes, channels, height, width, bins along a side
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
    let mut report = SweepReport::on(device)?;
    for shape in shapes {
        compare(device, shape, &mut report).await?;
    }
    Ok(report)
}

#[cfg(feature = "diagnostics")]
async fn compare(
    device: &Device,
    [count, channels, height, width, bins]: [usize; 5],
    report: &mut SweepReport,
) -> Result<(), String> {
    const SCALE: f32 = 0.25;
    let name = format!("roi_align [{count}, {channels}, {height}, {width}] in {bins} bins");
    let mut rng = TestRng::default();
    let values = rng.values(channels * height * width);
    let mut ends = |extent: usize, kind: usize| {
        let reach = 1.4913 * extent as f32 / SCALE;
        let (a, b) = (rng.draw() * reach, rng.draw() * reach);
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
    let expected = roi_align_reference(&values, [channels, height, width], &boxes, SCALE, bins);
    let data = TensorData::new(values, [1, channels, height, width]);
    let features = || Tensor::<4>::from_data(data.clone(), device);
    let aligned = with_nan_fill(|| roi_align(features(), &boxes, SCALE, bins));
    report.compare(&name, aligned, &expected, TOLERANCE).await?;

    let mut vertical = AxisWeights::zeros(1, count, height);
    let mut horizontal = AxisWeights::zeros(1, count, width);
    for (index, b) in boxes.iter().enumerate() {
        vertical.add_box(0, index, [b.y1 * SCALE, b.y2 * SCALE], bins);
        horizontal.add_box(0, index, [b.x1 * SCALE, b.x2 * SCALE], bins);
    }
    let means: Vec<f32> = expected
        .chunks_exact(bins * bins)
        .map(|bins| bins.iter().sum::<f32>() / bins.len() as f32)
        .collect();
    let pooled = with_nan_fill(|| roi_pool(features(), &vertical, &horizontal));
    let name = format!("{name}, mean");
    report.compare(&name, pooled, &means, TOLERANCE).await
}
