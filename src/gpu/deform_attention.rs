//! Multi-scale deformable attention: every query samples a few points of each level of a feature
//! pyramid and adds them with its own weights (Deformable DETR, arXiv 2010.04159,
//! `ms_deform_attn.py`; `docs/reference/upn.md`, section 5).
//!
//! Half-pixel centers (align_corners = false): location 0 is the left edge of the first cell, 1 the
//! right edge of the last. A neighbor outside the map counts as zero.
//!
//! On a GPU the kernel `deform_attention`; on the CPU a [`CpuOp`] with forward and backward, since
//! training needs a gradient that burn's grid sampling does not have.

use burn::tensor::Tensor;
use burn::tensor::ops::GridSampleOptions;

use crate::cpu::op::{CpuOp, apply, is_cpu};
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::simd::vectorized;

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

/// The most levels that the kernel supports.
const MAX_LEVELS: usize = 8;

uniforms! {
    /// Uniforms of `shaders/deform_attention.wgsl`.
    struct DeformAttentionUniforms {
        /// Of every level height, width, first cell, 0.
        levels: [[u32; 4]; MAX_LEVELS],
        /// B.
        batch: u32,
        /// Q.
        queries: u32,
        /// H.
        heads: u32,
        /// Values of type Channels per head.
        head_vectors: u32,
        /// S.
        cells: u32,
        /// L.
        level_count: u32,
        /// P.
        points: u32,
    }
}

macro_rules! shader {
    ($channels:literal) => {
        Shader {
            name: "deform_attention",
            text: include_str!("../../shaders/deform_attention.wgsl"),
            uniforms: DeformAttentionUniforms::LAYOUT,
            constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
            imports: &[("CHANNELS", $channels)],
        }
    };
}

/// `shaders/deform_attention.wgsl` for one channel and for four channels per thread.
pub const SHADERS: [Shader; 2] = [shader!("one_channel"), shader!("four_channels")];

/// The weighted sum of bilinear samples, for every query and head.
///
/// * `value` `[B, S, heads, D]`, the levels one after the other, each row-major;
/// * `sizes` height and width of each level, S cells in all;
/// * `locations` `[B, Q, heads * levels * points * 2]`, x before y, 0 to 1 over the level;
/// * `weights` `[B, Q, heads * levels * points]`.
///
/// Returns `[B, Q, heads * D]`.
pub fn deform_attention(
    value: Tensor<4>,
    sizes: &[[usize; 2]],
    locations: Tensor<3>,
    weights: Tensor<3>,
) -> Tensor<3> {
    let [batch, cells, heads, head_dim] = value.dims();
    let [_, queries, samples] = weights.dims();
    assert_eq!(
        cells,
        sizes.iter().map(|[h, w]| h * w).sum::<usize>(),
        "deform_attention: cells of the pyramid"
    );
    assert_eq!(
        samples % (heads * sizes.len()),
        0,
        "deform_attention: samples per head and level"
    );
    if is_gpu(&value.device()) {
        if batch * queries * samples * head_dim == 0 {
            return Tensor::zeros([batch, queries, heads * head_dim], &value.device());
        }
        return on_gpu(value, sizes, locations, weights);
    }
    if !is_cpu(&value.device()) {
        return deform_attention_reference(value, sizes, locations, weights);
    }
    let op = DeformAttention {
        sizes: sizes.to_vec(),
        batch,
        cells,
        heads,
        head_dim,
        queries,
        points: samples / (heads * sizes.len()),
    };
    apply(
        op,
        value,
        locations,
        weights,
        [batch, queries, heads * head_dim],
    )
}

fn on_gpu(
    value: Tensor<4>,
    sizes: &[[usize; 2]],
    locations: Tensor<3>,
    weights: Tensor<3>,
) -> Tensor<3> {
    let [batch, cells, heads, head_dim] = value.dims();
    let [_, queries, samples] = weights.dims();
    let levels = sizes.len();
    assert!(
        levels <= MAX_LEVELS,
        "deform_attention: {levels} levels, at most {MAX_LEVELS}"
    );
    assert_eq!(
        locations.dims(),
        [batch, queries, 2 * samples],
        "deform_attention: shape of the locations, and shape for the samples of the weights"
    );
    let (shader, channels) = if head_dim.is_multiple_of(4) {
        (&SHADERS[1], 4)
    } else {
        (&SHADERS[0], 1)
    };
    let value = to_buffer("deform_attention", value);
    let [locations, weights] = [locations, weights].map(|x| to_buffer("deform_attention", x));
    let count = batch * queries * heads * head_dim;
    let out = alloc("deform_attention", &value.client, count);
    let points = samples / (heads * levels);
    let mut level_sizes = [[0; 4]; MAX_LEVELS];
    let mut start = 0;
    for (level, &[height, width]) in level_sizes.iter_mut().zip(sizes) {
        *level = [height as u32, width as u32, start as u32, 0];
        start += height * width;
    }
    launch(
        shader,
        &value.client,
        ((count / channels) as u64).div_ceil(u64::from(WORKGROUP_SIZE)),
        &[&value.handle, &locations.handle, &weights.handle],
        &[&out],
        &DeformAttentionUniforms {
            levels: level_sizes,
            batch: batch as u32,
            queries: queries as u32,
            heads: heads as u32,
            head_vectors: (head_dim / channels) as u32,
            cells: cells as u32,
            level_count: levels as u32,
            points: points as u32,
        },
    );
    from_buffer(&value, out, [batch, queries, heads * head_dim])
}

/// [`deform_attention`] in tensor operations.
pub fn deform_attention_reference(
    value: Tensor<4>,
    sizes: &[[usize; 2]],
    locations: Tensor<3>,
    weights: Tensor<3>,
) -> Tensor<3> {
    let [batch, cells, heads, head_dim] = value.dims();
    let [_, queries, samples] = weights.dims();
    let levels = sizes.len();
    let points = samples / (heads * levels);
    let by_head = value
        .permute([0, 2, 3, 1])
        .reshape([batch * heads, head_dim, cells]);
    let grid = locations
        .reshape([batch, queries, heads, levels, points * 2])
        .permute([0, 2, 3, 1, 4])
        .reshape([batch * heads, levels, queries, points * 2])
        .mul_scalar(2.0)
        .sub_scalar(1.0);
    let mut start = 0;
    let sampled = sizes
        .iter()
        .enumerate()
        .map(|(level, &[height, width])| {
            let map = by_head.clone().narrow(2, start, height * width).reshape([
                batch * heads,
                head_dim,
                height,
                width,
            ]);
            start += height * width;
            let grid =
                grid.clone()
                    .narrow(1, level, 1)
                    .reshape([batch * heads, queries, points, 2]);
            map.grid_sample_2d(grid, GridSampleOptions::default())
        })
        .collect::<Vec<_>>();
    let weights = weights
        .reshape([batch, queries, heads, levels * points])
        .permute([0, 2, 1, 3])
        .reshape([batch * heads, 1, queries, levels * points]);
    (Tensor::cat(sampled, 3) * weights)
        .sum_dim(3)
        .reshape([batch, heads * head_dim, queries])
        .swap_dims(1, 2)
}

#[derive(Debug)]
struct DeformAttention {
    sizes: Vec<[usize; 2]>,
    batch: usize,
    cells: usize,
    heads: usize,
    head_dim: usize,
    queries: usize,
    points: usize,
}

/// The four neighbors of a sample (upper left, upper right, lower left, lower right) as cells of
/// the pyramid, none outside the level, and the fractional offsets from the upper left one.
struct Neighbors {
    cells: [Option<usize>; 4],
    right: f32,
    down: f32,
}

impl Neighbors {
    #[inline(always)]
    fn of(x: f32, y: f32, start: usize, height: usize, width: usize) -> Option<Self> {
        let (x, y) = (x * width as f32 - 0.5, y * height as f32 - 0.5);
        let inside = x > -1.0 && y > -1.0 && x < width as f32 && y < height as f32;
        if !inside {
            return None;
        }
        // x and y are above -1: truncation after adding one rounds down.
        let (column, row) = ((x + 1.0) as isize - 1, (y + 1.0) as isize - 1);
        let cell = |row: isize, column: isize| {
            let inside =
                row >= 0 && column >= 0 && row < height as isize && column < width as isize;
            inside.then(|| start + row as usize * width + column as usize)
        };
        Some(Self {
            cells: [
                cell(row, column),
                cell(row, column + 1),
                cell(row + 1, column),
                cell(row + 1, column + 1),
            ],
            right: x - column as f32,
            down: y - row as f32,
        })
    }

    #[inline(always)]
    fn weights(&self) -> [f32; 4] {
        let (right, down) = (self.right, self.down);
        [
            (1.0 - down) * (1.0 - right),
            (1.0 - down) * right,
            down * (1.0 - right),
            down * right,
        ]
    }
}

vectorized! {
    /// The rows `out` `[queries, heads * D]` of some queries of one image.
    fn sample_queries(
        op: &DeformAttention,
        value: &[f32],
        locations: &[f32],
        weights: &[f32],
        out: &mut [f32],
    ) {
        let head_dim = op.head_dim;
        let row = op.heads * head_dim;
        let mut sample = 0;
        for out in out.chunks_exact_mut(head_dim) {
            let head = sample / (op.sizes.len() * op.points) % op.heads;
            let mut start = 0;
            for &[height, width] in &op.sizes {
                for _ in 0..op.points {
                    let (x, y) = (locations[2 * sample], locations[2 * sample + 1]);
                    if let Some(near) = Neighbors::of(x, y, start, height, width) {
                        for (cell, factor) in near.cells.into_iter().zip(near.weights()) {
                            let Some(cell) = cell else { continue };
                            let factor = weights[sample] * factor;
                            let value = &value[cell * row + head * head_dim..][..head_dim];
                            for (out, value) in out.iter_mut().zip(value) {
                                *out += factor * value;
                            }
                        }
                    }
                    sample += 1;
                }
                start += height * width;
            }
        }
    }
}

vectorized! {
    /// The gradients of the inputs of one image.
    fn sample_queries_backward(
        op: &DeformAttention,
        inputs: [&[f32]; 3],
        gradient: &[f32],
        to_value: &mut [f32],
        to_locations: &mut [f32],
        to_weights: &mut [f32],
    ) {
        let [value, locations, weights] = inputs;
        let head_dim = op.head_dim;
        let row = op.heads * head_dim;
        let mut sample = 0;
        for gradient in gradient.chunks_exact(head_dim) {
            let head = sample / (op.sizes.len() * op.points) % op.heads;
            let mut start = 0;
            for &[height, width] in &op.sizes {
                for _ in 0..op.points {
                    let (x, y) = (locations[2 * sample], locations[2 * sample + 1]);
                    if let Some(near) = Neighbors::of(x, y, start, height, width) {
                        let factors = near.weights();
                        let weight = weights[sample];
                        let mut dots = [0.0; 4];
                        for corner in 0..4 {
                            let Some(cell) = near.cells[corner] else { continue };
                            let at = cell * row + head * head_dim;
                            let value = &value[at..at + head_dim];
                            let to_value = &mut to_value[at..at + head_dim];
                            let factor = weight * factors[corner];
                            for i in 0..head_dim {
                                to_value[i] += factor * gradient[i];
                            }
                            dots[corner] = dot(gradient, value);
                        }
                        let [a, b, c, d] = dots;
                        to_weights[sample] =
                            factors[0] * a + factors[1] * b + factors[2] * c + factors[3] * d;
                        to_locations[2 * sample] = weight
                            * width as f32
                            * ((1.0 - near.down) * (b - a) + near.down * (d - c));
                        to_locations[2 * sample + 1] = weight
                            * height as f32
                            * ((1.0 - near.right) * (c - a) + near.right * (d - b));
                    }
                    sample += 1;
                }
                start += height * width;
            }
        }
    }
}

/// Dot product in eight lanes, so that the compiler can use SIMD.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<8>();
    let (b_lanes, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}

impl CpuOp for DeformAttention {
    fn forward(&self, [value, locations, weights]: [&[f32]; 3]) -> Vec<f32> {
        const QUERIES_PER_TASK: usize = 32;
        let samples = self.heads * self.sizes.len() * self.points;
        let row = self.heads * self.head_dim;
        let mut result = vec![0.0; self.batch * self.queries * row];
        let tasks_per_image = self.queries.div_ceil(QUERIES_PER_TASK);
        let mut tasks = Vec::with_capacity(self.batch * tasks_per_image);
        for (image, rows) in result.chunks_mut((self.queries * row).max(1)).enumerate() {
            let value = part(value, image, self.cells * row);
            for (task, out) in rows.chunks_mut(QUERIES_PER_TASK * row).enumerate() {
                let first = (image * self.queries + task * QUERIES_PER_TASK) * samples;
                tasks.push((value, first, out));
            }
        }
        let work = |(value, first, out): (&[f32], usize, &mut [f32])| {
            sample_queries(self, value, &locations[2 * first..], &weights[first..], out);
        };
        #[cfg(feature = "native")]
        {
            use rayon::prelude::*;
            tasks.into_par_iter().for_each(work);
        }
        #[cfg(not(feature = "native"))]
        tasks.into_iter().for_each(work);
        result
    }

    fn backward(
        &self,
        [value, locations, weights]: [&[f32]; 3],
        gradient: &[f32],
    ) -> [Vec<f32>; 3] {
        let mut results = [value, locations, weights].map(|input| vec![0.0; input.len()]);
        let lengths = results.each_ref().map(|result| result.len() / self.batch);
        let [to_value, to_locations, to_weights] = &mut results;
        let images = to_value
            .chunks_mut(lengths[0])
            .zip(to_locations.chunks_mut(lengths[1]))
            .zip(to_weights.chunks_mut(lengths[2]))
            .enumerate()
            .collect::<Vec<_>>();
        type Image<'a> = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]);
        let work = |(image, ((a, b), c)): (usize, Image)| {
            let inputs = [
                part(value, image, lengths[0]),
                part(locations, image, lengths[1]),
                part(weights, image, lengths[2]),
            ];
            let gradient = part(gradient, image, gradient.len() / self.batch);
            sample_queries_backward(self, inputs, gradient, a, b, c);
        };
        #[cfg(feature = "native")]
        {
            use rayon::prelude::*;
            images.into_par_iter().for_each(work);
        }
        #[cfg(not(feature = "native"))]
        images.into_iter().for_each(work);
        results
    }
}

/// The values of one image, `length` per image.
fn part(values: &[f32], image: usize, length: usize) -> &[f32] {
    &values[image * length..][..length]
}

/// Weights add up to a few units and values are in [-1, 1]; a location that rounds differently
/// moves a sample by a few 1e-7 of the level.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-4;

/// Compares the kernel on a GPU with the CPU loops: one level and many, maps of one cell, head
/// dimensions around the multiples of four, locations in, on and outside the border, more
/// workgroups than one dispatch dimension holds.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let shapes: [([usize; 5], &[[usize; 2]]); 7] = [
        // images, queries, heads, head_dim, points; sizes of the levels
        ([1, 0, 2, 4, 1], &[[2, 2]]),
        ([1, 1, 1, 1, 1], &[[1, 1]]),
        ([2, 7, 3, 5, 2], &[[3, 5], [1, 4]]),
        ([1, 31, 4, 16, 4], &[[8, 6], [4, 3], [2, 2], [1, 1]]),
        ([2, 3, 8, 32, 4], &[[9, 7], [5, 4], [3, 2], [2, 1], [1, 1]]),
        ([1, 5, 1, 3, 1], &[[2, 3]; 8]),
        ([1, 65_537, 1, 64, 1], &[[3, 2]]),
    ];
    for ([batch, queries, heads, head_dim, points], sizes) in shapes {
        let name = format!(
            "deform_attention [{batch}, {queries}, {heads}, {head_dim}], {points} points of {sizes:?}"
        );
        let cells = sizes.iter().map(|[h, w]| h * w).sum::<usize>();
        let samples = heads * sizes.len() * points;
        let mut rng = TestRng::default();
        let value = rng.data([batch, cells, heads, head_dim]);
        let locations = rng.data([batch, queries, 2 * samples]);
        let weights = rng.data([batch, queries, samples]);
        let inputs = |device: &Device| {
            let [locations, weights] =
                [&locations, &weights].map(|data| Tensor::<3>::from_data(data.clone(), device));
            let value = Tensor::<4>::from_data(value.clone(), device);
            (value, locations * 0.8 + 0.5, weights)
        };
        let (value, locations, weights) = inputs(&Device::flex());
        let expected = deform_attention(value, sizes, locations, weights);
        let expected = read(&name, expected).await?;
        let (value, locations, weights) = inputs(device);
        let got = with_nan_fill(|| deform_attention(value, sizes, locations, weights));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    const SIZES: [[usize; 2]; 2] = [[3, 5], [2, 3]];

    fn numbers(count: usize, seed: u32, low: f32, high: f32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                low + (high - low) * (state >> 8) as f32 / (1 << 24) as f32
            })
            .collect()
    }

    fn inputs(device: &Device) -> (Tensor<4>, Tensor<3>, Tensor<3>) {
        let (batch, heads, head_dim, queries, points) = (2, 2, 3, 4, 2);
        let samples = heads * SIZES.len() * points;
        let tensor = |values: Vec<f32>, shape: [usize; 3]| {
            Tensor::<3>::from_data(TensorData::new(values, shape), device)
        };
        (
            tensor(
                numbers(batch * 21 * heads * head_dim, 1, -1.0, 1.0),
                [batch, 21, heads * head_dim],
            )
            .reshape([batch, 21, heads, head_dim]),
            tensor(
                numbers(batch * queries * samples * 2, 2, -0.3, 1.3),
                [batch, queries, samples * 2],
            ),
            tensor(
                numbers(batch * queries * samples, 3, 0.0, 1.0),
                [batch, queries, samples],
            ),
        )
    }

    #[test]
    fn cpu_loops_equal_tensor_operations() {
        let (value, locations, weights) = inputs(&Device::flex());
        let ours = deform_attention(value.clone(), &SIZES, locations.clone(), weights.clone());
        let reference = deform_attention_reference(value, &SIZES, locations, weights);
        let error = (ours - reference).abs().max().into_scalar::<f32>();
        assert!(error < 1e-5, "largest difference {error}");
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let device = Device::flex().autodiff();
        let (value, locations, weights) = inputs(&device);
        let (value, locations, weights) = (
            value.require_grad(),
            locations.require_grad(),
            weights.require_grad(),
        );
        let loss = |value: Tensor<4>, locations: Tensor<3>, weights: Tensor<3>| {
            let out = deform_attention(value, &SIZES, locations, weights);
            let mix = Tensor::<1>::from_data(
                TensorData::new(numbers(2 * 4 * 6, 4, -1.0, 1.0), [48]),
                &out.device(),
            );
            (out.reshape([48]) * mix).sum()
        };
        let gradients = loss(value.clone(), locations.clone(), weights.clone()).backward();
        let step = 1e-3;
        let check = |name: &str, analytic: Vec<f32>, at: &dyn Fn(usize, f32) -> f32| {
            for index in (0..analytic.len()).step_by(3) {
                let numeric = (at(index, step) - at(index, -step)) / (2.0 * step);
                let error = (numeric - analytic[index]).abs();
                assert!(
                    error < 2e-2,
                    "{name}[{index}]: {} instead of {numeric}",
                    analytic[index]
                );
            }
        };
        fn moved<const D: usize>(tensor: &Tensor<D>, index: usize, by: f32) -> Tensor<D> {
            let mut data = tensor.to_data();
            data.as_mut_slice::<f32>().unwrap()[index] += by;
            Tensor::from_data(data, &tensor.device())
        }
        fn list<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
            tensor.into_data().try_to_vec().unwrap()
        }
        let scalar = |t: Tensor<1>| t.into_scalar::<f32>();
        check("value", list(value.grad(&gradients).unwrap()), &|i, by| {
            scalar(loss(
                moved(&value, i, by),
                locations.clone(),
                weights.clone(),
            ))
        });
        check(
            "locations",
            list(locations.grad(&gradients).unwrap()),
            &|i, by| {
                scalar(loss(
                    value.clone(),
                    moved(&locations, i, by),
                    weights.clone(),
                ))
            },
        );
        check(
            "weights",
            list(weights.grad(&gradients).unwrap()),
            &|i, by| {
                scalar(loss(
                    value.clone(),
                    locations.clone(),
                    moved(&weights, i, by),
                ))
            },
        );
    }
}
