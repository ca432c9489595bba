//! `roi_pool`: weighted sums of a feature map, one per box, with separable weights.
//!
//! A box of RoIAlign, averaged over its cells, is a weight per row times a weight per column
//! ([`AxisWeights::add_box`]). Work: one multiply-add per channel and cell inside the box; 100 boxes
//! over a ConvNeXt-Large pyramid at 768 pixels take at most 1.3 G of them.

use burn::tensor::{Device, Tensor, TensorData};

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Channels per workgroup.
const GROUP: u32 = 64;

/// `shaders/roi_pool.wgsl`.
pub const SHADER: Shader = Shader {
    name: "roi_pool",
    text: include_str!("../../shaders/roi_pool.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// Weights along one axis of a map for every box: `[B, N, extent]`, row-major on the host.
#[derive(Clone, Debug)]
pub struct AxisWeights {
    values: Vec<f32>,
    pictures: usize,
    boxes: usize,
    extent: usize,
}

impl AxisWeights {
    /// All zero, for `pictures` pictures of `boxes` boxes each over an axis of `extent` cells.
    pub fn zeros(pictures: usize, boxes: usize, extent: usize) -> Self {
        Self {
            values: vec![0.0; pictures * boxes * extent],
            pictures,
            boxes,
            extent,
        }
    }

    /// Cells along the axis.
    pub fn extent(&self) -> usize {
        self.extent
    }

    /// Adds to a box's weights the mean over cells and samples of RoIAlign's bilinear weights, for
    /// a box from `low` to `high` in map cells; arithmetic in f32 in torchvision's order.
    /// Samples outside `[-1, extent]` add nothing but count in the mean (`roi_align_common.h`).
    pub fn add_box(&mut self, picture: usize, index: usize, [low, high]: [f32; 2], cells: usize) {
        let start = (picture * self.boxes + index) * self.extent;
        let weights = &mut self.values[start..][..self.extent];
        let cell = (high - low).max(1.0) / cells as f32;
        let per_cell = cell.ceil();
        let total = f64::from(per_cell) * cells as f64;
        let share = (1.0 / total) as f32;
        // A huge box has more samples than the map has room for: only those near it are visited.
        let step = cell / per_cell;
        let first = ((-1.0 - low) / step - 2.0).max(0.0) as u64;
        let last = (((weights.len() as f32 - low) / step + 2.0) as u64).min(total as u64);
        for sample in first..last {
            let in_cell = sample % (per_cell as u64);
            let at = low
                + (sample / per_cell as u64) as f32 * cell
                + (in_cell as f32 + 0.5) * cell / per_cell;
            for (index, weight) in bilinear(at, weights.len()).into_iter().flatten() {
                weights[index] += weight * share;
            }
        }
    }

    /// New weights over `extent` cells: `f` fills each (zeroed) new row from its old one.
    pub fn map_rows(&self, extent: usize, mut f: impl FnMut(&[f32], &mut [f32])) -> Self {
        let mut mapped = Self::zeros(self.pictures, self.boxes, extent);
        if self.extent > 0 && extent > 0 {
            self.values
                .chunks_exact(self.extent)
                .zip(mapped.values.chunks_exact_mut(extent))
                .for_each(|(from, to)| f(from, to));
        }
        mapped
    }

    /// First and last + 1 cell with a weight, box by box; equal where there is none.
    fn spans(&self) -> impl Iterator<Item = [u32; 2]> {
        self.values.chunks_exact(self.extent.max(1)).map(|row| {
            let first = row.iter().position(|w| *w != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|w| *w != 0.0).map_or(first, |i| i + 1);
            [first as u32, end as u32]
        })
    }

    fn from_buffer(&self, device: &Device) -> Tensor<3> {
        let shape = [self.pictures, self.boxes, self.extent];
        Tensor::from_data(TensorData::new(self.values.clone(), shape), device)
    }
}

/// The two neighbours of RoIAlign's bilinear rule at coordinate `at` on an axis of `extent` cells,
/// with their weights; none where the sample lies outside `[-1, extent]`.
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
/// `features` `[B, C, h, w]` (best with channels last in memory): `[B, N, C]`.
///
/// The kernel on a graphics device, [`roi_pool_reference`] on the processor and where gradients are
/// wanted.
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
            (weights.pictures, weights.boxes, weights.extent),
            (batch, vertical.boxes, extent),
            "roi_pool: pictures, boxes and cells of the {axis} weights, and those wanted"
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
        rows * (channels as u64).div_ceil(u64::from(GROUP)),
        &[
            &features.handle,
            &upload(bytemuck::cast_slice(&vertical.values)),
            &upload(bytemuck::cast_slice(&horizontal.values)),
            &upload(bytemuck::cast_slice(&spans)),
        ],
        &[&out],
        &[batch, boxes, height, width, channels, 0, 0, 0].map(|size| size as u32),
    );
    from_buffer(&features, out, [batch, boxes, channels])
}

/// [`roi_pool`] in tensor operations, differentiable in `features`: the weights of both axes as
/// one matrix over cells, times the map.
pub fn roi_pool_reference(
    features: Tensor<4>,
    vertical: &AxisWeights,
    horizontal: &AxisWeights,
) -> Tensor<3> {
    let [batch, channels, height, width] = features.dims();
    let device = features.device();
    let vertical_weights = vertical.from_buffer(&device).unsqueeze_dim::<4>(3); // [B, N, h, 1]
    let horizontal_weights = horizontal.from_buffer(&device).unsqueeze_dim::<4>(2); // [B, N, 1, w]
    let weights =
        (vertical_weights * horizontal_weights).reshape([batch, vertical.boxes, height * width]);
    let cells = features
        .permute([0, 2, 3, 1])
        .reshape([batch, height * width, channels]);
    weights.matmul(cells)
}

/// Weights of a box sum to one and features lie in [-1, 1], so only the order of the sums differs.
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: over
/// awkward shapes, boxes that are points, inverted, far outside and beyond all bounds, outputs that
/// start as NaN, and more workgroups than one dimension holds. The same natively and in a browser.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let shapes: [[usize; 5]; 11] = [
        // pictures, boxes, channels, height, width
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
    let mut swept = SweepReport::on(device)?;
    for shape in shapes {
        compare(device, shape, &mut swept).await?;
    }
    Ok(swept)
}

async fn compare(
    device: &Device,
    [pictures, boxes, channels, height, width]: [usize; 5],
    swept: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("roi_pool [{pictures}, {boxes}, {channels}, {height}, {width}]");
    let mut dice = TestRng::default();
    let data = dice.data([pictures, height, width, channels]);
    let features =
        |device: &Device| Tensor::<4>::from_data(data.clone(), device).permute([0, 3, 1, 2]);
    let mut along = |extent: usize| {
        let mut weights = AxisWeights::zeros(pictures, boxes, extent);
        for picture in 0..pictures {
            for index in 0..boxes {
                let reach = 1.5 * extent as f32;
                let (a, b) = (dice.draw() * reach, dice.draw() * reach);
                let ends = match index % 7 {
                    0 => [a, a],
                    1 => [a.max(b), a.min(b)],
                    2 => [-1e9, 1e9],
                    3 => [extent as f32 + 5.0, extent as f32 + 9.0],
                    _ => [a.min(b), a.max(b)],
                };
                weights.add_box(picture, index, ends, 7);
            }
        }
        weights
    };
    let (vertical, horizontal) = (along(height), along(width));
    let expected = roi_pool_reference(features(&Device::flex()), &vertical, &horizontal);
    let expected = read(&name, expected).await?;
    let pooled = with_nan_fill(|| roi_pool(features(device), &vertical, &horizontal));
    swept.compare(&name, pooled, &expected, TOLERANCE).await
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;
    use crate::gpu::device::{adapter_for_test, open};

    #[test]
    fn kernel_agrees_with_its_reference() {
        let Some(device) = adapter_for_test("kernel_agrees_with_its_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernel and reference agree");
        println!("{swept:?}");
    }

    /// The comparison itself can fail: a device without the kernel is refused.
    #[test]
    fn sweep_refuses_the_processor() {
        let cpu = pollster::block_on(open(DevicePreference::Cpu)).expect("there is a processor");
        let refusal = pollster::block_on(sweep(&cpu.device)).expect_err("no kernel here");
        assert!(refusal.contains("not a graphics device"), "{refusal}");
    }
}
