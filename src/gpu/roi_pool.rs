//! One weighted sum of a feature map per box, with separable weights.
//!
//! RoIAlign, averaged over the bins of a box, is a weight per row times a weight per column
//! ([`AxisWeights::add_box`]). Work: one multiply-add per channel and cell inside the box; 100
//! boxes over a ConvNeXt-Large pyramid at 768 pixels take at most 1.3 G of them.

use burn::tensor::{Device, Tensor, TensorData};

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::matmul::batched_matmul;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Channels, and threads, per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/roi_pool.wgsl`.
    struct RoiPoolUniforms {
        /// B.
        batch: u32,
        /// N.
        boxes: u32,
        /// H.
        height: u32,
        /// W.
        width: u32,
        /// C.
        channels: u32,
    }
}

/// `shaders/roi_pool.wgsl`.
pub const SHADER: Shader = Shader {
    name: "roi_pool",
    text: include_str!("../../shaders/roi_pool.wgsl"),
    uniforms: RoiPoolUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// Weights along one axis of a map for every box: `[B, N, extent]`, row-major in CPU memory.
#[derive(Clone, Debug)]
pub struct AxisWeights {
    values: Vec<f32>,
    images: usize,
    boxes: usize,
    extent: usize,
}

impl AxisWeights {
    /// All zero, for `images` images of `boxes` boxes each over an axis of `extent` cells.
    pub fn zeros(images: usize, boxes: usize, extent: usize) -> Self {
        Self {
            values: vec![0.0; images * boxes * extent],
            images,
            boxes,
            extent,
        }
    }

    /// Cells along the axis.
    pub fn extent(&self) -> usize {
        self.extent
    }

    /// Adds to a box's weights the mean over bins and samples of RoIAlign's bilinear weights, for a
    /// box from `low` to `high` in cells of the map; f32 arithmetic in torchvision's order. Samples
    /// outside `[-1, extent]` add nothing but count in the mean (`roi_align_common.h`).
    pub fn add_box(&mut self, image: usize, index: usize, [low, high]: [f32; 2], bins: usize) {
        let start = (image * self.boxes + index) * self.extent;
        let weights = &mut self.values[start..][..self.extent];
        let bin = (high - low).max(1.0) / bins as f32;
        let per_bin = bin.ceil();
        let total = f64::from(per_bin) * bins as f64;
        let sample_weight = (1.0 / total) as f32;
        // Only samples near the map are visited: a huge box has many outside.
        let step = bin / per_bin;
        let first = ((-1.0 - low) / step - 2.0).max(0.0) as u64;
        let last = (((weights.len() as f32 - low) / step + 2.0) as u64).min(total as u64);
        for sample in first..last {
            let in_bin = sample % (per_bin as u64);
            let at = low
                + (sample / per_bin as u64) as f32 * bin
                + (in_bin as f32 + 0.5) * bin / per_bin;
            for (index, weight) in bilinear(at, weights.len()).into_iter().flatten() {
                weights[index] += weight * sample_weight;
            }
        }
    }

    /// New weights over `extent` cells: `f` fills each new row, initially zero, from the old one.
    pub fn map_rows(&self, extent: usize, mut f: impl FnMut(&[f32], &mut [f32])) -> Self {
        let mut mapped = Self::zeros(self.images, self.boxes, extent);
        if self.extent > 0 && extent > 0 {
            self.values
                .chunks_exact(self.extent)
                .zip(mapped.values.chunks_exact_mut(extent))
                .for_each(|(from, to)| f(from, to));
        }
        mapped
    }

    /// Begin and end of the cells with a weight, per box; equal where there are none.
    fn spans(&self) -> impl Iterator<Item = [u32; 2]> {
        self.values.chunks_exact(self.extent.max(1)).map(|row| {
            let first = row.iter().position(|w| *w != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|w| *w != 0.0).map_or(first, |i| i + 1);
            [first as u32, end as u32]
        })
    }

    fn tensor(&self, device: &Device) -> Tensor<3> {
        let shape = [self.images, self.boxes, self.extent];
        Tensor::from_data(TensorData::new(self.values.clone(), shape), device)
    }
}

/// The two neighbors of a bilinear sample of RoIAlign at coordinate `at` on an axis of `extent`
/// cells, with their weights; none where the sample is outside `[-1, extent]`.
pub fn bilinear(at: f32, extent: usize) -> [Option<(usize, f32)>; 2] {
    if !(at >= -1.0 && at <= extent as f32) {
        return [None, None];
    }
    let at = at.max(0.0);
    let lower = at as usize;
    if lower + 1 >= extent {
        return [Some((extent - 1, 1.0)), None];
    }
    let fraction = at - lower as f32;
    [Some((lower, 1.0 - fraction)), Some((lower + 1, fraction))]
}

/// `out[b, n, c] = sum_yx vertical[b, n, y] features[b, c, y, x] horizontal[b, n, x]` for
/// `features` `[B, C, H, W]` (fastest with channels last in memory): `[B, N, C]`.
///
/// The kernel on a GPU; [`roi_pool_reference`] on the CPU and for gradients.
pub fn roi_pool(
    features: Tensor<4>,
    vertical: &AxisWeights,
    horizontal: &AxisWeights,
) -> Tensor<3> {
    let [batch, _, height, width] = features.dims();
    for (axis, weights, extent) in [
        ("vertical", vertical, height),
        ("horizontal", horizontal, width),
    ] {
        assert_eq!(
            (weights.images, weights.boxes, weights.extent),
            (batch, vertical.boxes, extent),
            "roi_pool: images, boxes and cells of the {axis} weights, and those expected"
        );
    }
    if is_gpu(&features.device()) && vertical.boxes > 0 {
        on_gpu(features, vertical, horizontal)
    } else {
        roi_pool_reference(features, vertical, horizontal)
    }
}

fn on_gpu(features: Tensor<4>, vertical: &AxisWeights, horizontal: &AxisWeights) -> Tensor<3> {
    let [batch, channels, height, width] = features.dims();
    let boxes = vertical.boxes;
    let features = to_buffer("roi_pool", features.permute([0, 2, 3, 1]));
    let client = &features.client;
    let spans: Vec<[u32; 4]> = vertical
        .spans()
        .zip(horizontal.spans())
        .map(|([top, bottom], [left, right])| [top, bottom, left, right])
        .collect();
    let upload = |bytes: &[u8]| client.create_from_slice(bytes);
    let out = alloc("roi_pool", client, batch * boxes * channels);
    let rows = (batch * boxes) as u64;
    launch(
        &SHADER,
        client,
        rows * (channels as u64).div_ceil(u64::from(WORKGROUP_SIZE)),
        &[
            &features.handle,
            &upload(bytemuck::cast_slice(&vertical.values)),
            &upload(bytemuck::cast_slice(&horizontal.values)),
            &upload(bytemuck::cast_slice(&spans)),
        ],
        &[&out],
        &RoiPoolUniforms {
            batch: batch as u32,
            boxes: boxes as u32,
            height: height as u32,
            width: width as u32,
            channels: channels as u32,
        },
    );
    from_buffer(&features, out, [batch, boxes, channels])
}

/// [`roi_pool`] in tensor operations, differentiable in `features`: the weights of both axes as one
/// matrix over cells, times the map.
pub fn roi_pool_reference(
    features: Tensor<4>,
    vertical: &AxisWeights,
    horizontal: &AxisWeights,
) -> Tensor<3> {
    let [batch, channels, height, width] = features.dims();
    let device = features.device();
    let vertical_weights = vertical.tensor(&device).unsqueeze_dim::<4>(3); // [B, N, H, 1]
    let horizontal_weights = horizontal.tensor(&device).unsqueeze_dim::<4>(2); // [B, N, 1, W]
    let weights =
        (vertical_weights * horizontal_weights).reshape([batch, vertical.boxes, height * width]);
    let cells = features
        .permute([0, 2, 3, 1])
        .reshape([batch, height * width, channels]);
    batched_matmul(weights, cells)
}

/// The weights of a box sum to one and features are in [-1, 1]; only the order of the sums differs.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on a GPU with the reference on the CPU: boxes that are points, inverted, far
/// outside and of 2e9 cells, outputs that start as NaN, more workgroups than one dispatch dimension
/// holds.
///
/// # Errors
/// The first difference, with shape, index and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let shapes: [[usize; 5]; 11] = [
        // images, boxes, channels, height, width
        [1, 0, 5, 3, 3],
        [1, 1, 1, 1, 1],
        [1, 7, 1, 2, 9],
        [1, 13, 63, 6, 6],
        [1, 13, 64, 6, 6],
        [1, 13, 65, 6, 6],
        [2, 5, 31, 7, 5],
        [3, 11, 129, 1, 17],
        [1, 100, 16, 48, 48],
        [1, 3, 200, 24, 24],
        [1, 65_537, 2, 1, 3],
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
    [images, boxes, channels, height, width]: [usize; 5],
    report: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("roi_pool [{images}, {boxes}, {channels}, {height}, {width}]");
    let mut rng = TestRng::default();
    let data = rng.data([images, height, width, channels]);
    let features =
        |device: &Device| Tensor::<4>::from_data(data.clone(), device).permute([0, 3, 1, 2]);
    let mut along = |extent: usize| {
        let mut weights = AxisWeights::zeros(images, boxes, extent);
        for image in 0..images {
            for index in 0..boxes {
                let reach = 1.5 * extent as f32;
                let (a, b) = (rng.draw() * reach, rng.draw() * reach);
                let ends = match index % 7 {
                    0 => [a, a],
                    1 => [a.max(b), a.min(b)],
                    2 => [-1e9, 1e9],
                    3 => [extent as f32 + 5.0, extent as f32 + 9.0],
                    _ => [a.min(b), a.max(b)],
                };
                weights.add_box(image, index, ends, 7);
            }
        }
        weights
    };
    let (vertical, horizontal) = (along(height), along(width));
    let expected = roi_pool_reference(features(&Device::flex()), &vertical, &horizontal);
    let expected = read(&name, expected).await?;
    let pooled = with_nan_fill(|| roi_pool(features(device), &vertical, &horizontal));
    report.compare(&name, pooled, &expected, TOLERANCE).await
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;
    use crate::gpu::device::open;

    /// The comparison can fail: a device without kernels is refused.
    #[test]
    fn sweep_refuses_the_cpu() {
        let cpu = pollster::block_on(open(DevicePreference::Cpu)).expect("a CPU device");
        let refusal = pollster::block_on(sweep(&cpu.device)).expect_err("no kernel on the CPU");
        assert!(refusal.contains("not a GPU"), "{refusal}");
    }
}
