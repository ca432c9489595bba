//! Convolutions on the CPU as products of a packed matrix with patches of the map.

use burn::tensor::Tensor;

use crate::cpu::op::{self, CpuOp};
use crate::cpu::packed_matrix::PackedMatrix;
use crate::gpu::conv2d::Geometry;
use crate::simd::for_each_chunk;

/// Outputs of a map whose patches are in memory at once, about.
const CHUNK: usize = 512;

/// Patches per task.
const TASK: usize = 32;

/// Outputs whose channels are put in order at once.
const BLOCK: usize = 16;

/// Convolves `x` `[B, C, H, W]` with a matrix `[O, C * kernel * kernel]` and adds `bias` `[O]`: `[B, O, H', W']`.
/// Only for inference: there are no gradients.
///
/// # Panics
/// `x` is not on the CPU, the geometry has groups, or the channels do not match.
pub fn packed_conv2d(
    x: Tensor<4>,
    matrix: &PackedMatrix,
    kernel: usize,
    bias: Option<Tensor<1>>,
    geometry: Geometry,
) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let [outputs, inner] = matrix.shape();
    assert!(
        geometry.groups == 1 && inner == channels * kernel * kernel,
        "packed_conv2d: {channels} channels, {inner} weights per output"
    );
    let [out_height, out_width] = [height, width].map(|extent| geometry.outputs(extent, kernel));
    let convolution = PackedConv {
        matrix: matrix.clone(),
        biased: bias.is_some(),
        kernel,
        geometry,
        map: [channels, height, width],
        out: [outputs, out_height, out_width],
    };
    let none = Tensor::zeros([1], &x.device());
    let bias = bias.unwrap_or_else(|| none.clone());
    let shape = [batch, outputs, out_height, out_width];
    op::apply(convolution, x, bias, none, shape)
}

#[derive(Debug)]
struct PackedConv {
    matrix: PackedMatrix,
    biased: bool,
    kernel: usize,
    geometry: Geometry,
    /// `[C, H, W]`.
    map: [usize; 3],
    /// `[O, H', W']`.
    out: [usize; 3],
}

impl CpuOp for PackedConv {
    fn forward(&self, [x, bias, _]: [&[f32]; 3]) -> Vec<f32> {
        let [outputs, out_height, out_width] = self.out;
        let (plane, size) = (out_height * out_width, outputs * out_height * out_width);
        let image: usize = self.map.iter().product();
        let mut out = vec![0.0; x.len() / image.max(1) * size];
        if size == 0 || image == 0 {
            return out;
        }
        let bias = if self.biased { bias } else { &[] };
        let rows = (CHUNK / out_width).clamp(1, out_height);
        let mut patches = vec![0.0; rows * out_width * self.matrix.shape()[1]];
        for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(image)) {
            for first in (0..out_height).step_by(rows) {
                let cells = rows.min(out_height - first) * out_width;
                let products = self.products(x, first * out_width, cells, &mut patches, bias);
                for_each_chunk(out, BLOCK * plane, |block, out| {
                    let products = products.chunks_exact(outputs).map(|p| &p[block * BLOCK..]);
                    for (cell, products) in (first * out_width..).zip(products) {
                        for (out, product) in out.chunks_exact_mut(plane).zip(products) {
                            out[cell] = *product;
                        }
                    }
                });
            }
        }
        out
    }

    fn backward(&self, _: [&[f32]; 3], _: &[f32]) -> [Vec<f32>; 3] {
        unreachable!("a packed convolution has no gradient")
    }
}

impl PackedConv {
    /// The outputs of `cells` cells from `first`, `[cells, O]`.
    fn products(
        &self,
        x: &[f32],
        first: usize,
        cells: usize,
        patches: &mut [f32],
        bias: &[f32],
    ) -> Vec<f32> {
        let inner = self.matrix.shape()[1];
        let patches = &mut patches[..cells * inner];
        for_each_chunk(patches, TASK * inner, |task, patches| {
            for (cell, patch) in (first + task * TASK..).zip(patches.chunks_exact_mut(inner)) {
                match self.kernel {
                    1 => self.copy_patch::<1>(x, cell, patch),
                    3 => self.copy_patch::<3>(x, cell, patch),
                    5 => self.copy_patch::<5>(x, cell, patch),
                    _ => self.copy_any_patch(x, cell, patch),
                }
            }
        });
        self.matrix.product(patches, bias)
    }

    /// The first row and column of the map that output `cell` reads; padding is below zero.
    fn corner(&self, cell: usize) -> [isize; 2] {
        let Geometry {
            stride, padding, ..
        } = self.geometry;
        let width = self.out[2];
        [cell / width, cell % width].map(|at| (at * stride) as isize - padding as isize)
    }

    /// Copies what output `cell` reads, `[C, K, K]`.
    fn copy_patch<const K: usize>(&self, x: &[f32], cell: usize, patch: &mut [f32]) {
        let [_, height, width] = self.map;
        let [top, left] = self.corner(cell);
        let is_inside = |start: isize, extent: usize| {
            usize::try_from(start).is_ok_and(|start| start + K <= extent)
        };
        if !is_inside(top, height) || !is_inside(left, width) {
            return self.copy_any_patch(x, cell, patch);
        }
        let start = top as usize * width + left as usize;
        let planes = x.chunks_exact(height * width);
        for (patch, plane) in patch.chunks_exact_mut(K * K).zip(planes) {
            let rows = plane[start..].chunks(width);
            for (patch, row) in patch.as_chunks_mut::<K>().0.iter_mut().zip(rows) {
                if let Some(values) = row.first_chunk::<K>() {
                    *patch = *values;
                }
            }
        }
    }

    /// The same at the edge of the map, and of any kernel.
    fn copy_any_patch(&self, x: &[f32], cell: usize, patch: &mut [f32]) {
        let [_, height, width] = self.map;
        let [top, left] = self.corner(cell);
        let kernel = self.kernel;
        let planes = x.chunks_exact(height * width);
        for (patch, plane) in patch.chunks_exact_mut(kernel * kernel).zip(planes) {
            for (at, value) in patch.iter_mut().enumerate() {
                let [row, column] = [top + (at / kernel) as isize, left + (at % kernel) as isize];
                let is_inside =
                    (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
                *value = if is_inside {
                    plane[row as usize * width + column as usize]
                } else {
                    0.0
                };
            }
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::gpu::conv2d::conv2d;

    #[test]
    fn equals_the_convolution_of_burn() {
        let device = Device::flex();
        for ([batch, channels, height, width], [outputs, kernel], [stride, padding]) in [
            ([1, 1, 1, 1], [1, 1], [1, 0]),
            ([1, 3, 13, 22], [24, 3], [2, 1]),
            ([2, 3, 9, 8], [5, 3], [1, 1]),
            ([3, 8, 6, 5], [17, 5], [1, 2]),
            ([1, 2, 3, 2], [3, 3], [2, 4]),
            ([1, 4, 9, 10], [4, 2], [3, 0]),
            ([1, 4, 40, 31], [33, 3], [1, 1]),
            ([0, 4, 4, 4], [3, 3], [1, 1]),
            ([1, 4, 2, 2], [3, 3], [1, 0]),
        ] {
            let name = format!("{channels} x {height} x {width} to {outputs}, kernel {kernel}");
            let data = |shape: Vec<usize>, seed: usize| {
                let values = (0..shape.iter().product()).map(|i: usize| (i * 37 + seed) % 23);
                let values: Vec<f32> = values.map(|i| i as f32 / 8.0 - 1.25).collect();
                TensorData::new(values, shape)
            };
            let x = Tensor::<4>::from_data(data(vec![batch, channels, height, width], 1), &device);
            let weight = data(vec![outputs, channels, kernel, kernel], 5);
            let weight = Tensor::<4>::from_data(weight, &device);
            let bias = Tensor::<1>::from_data(data(vec![outputs], 3), &device);
            let geometry = Geometry {
                stride,
                padding,
                groups: 1,
            };
            let inner = channels * kernel * kernel;
            let matrix = weight.clone().reshape([outputs * inner]);
            let matrix = PackedMatrix::of_tensor(matrix, [outputs, inner]);
            for bias in [None, Some(bias)] {
                let found = packed_conv2d(x.clone(), &matrix, kernel, bias.clone(), geometry);
                let shape = found.dims();
                if batch == 0 || geometry.outputs(height, kernel) == 0 {
                    assert_eq!(shape.iter().product::<usize>(), 0, "{name}");
                    continue;
                }
                let expected = conv2d(x.clone(), weight.clone(), bias, geometry);
                assert_eq!(shape, expected.dims(), "{name}");
                // Sums of small multiples of 1/64 are exact.
                let [found, expected] = [found, expected].map(|x| x.into_data());
                assert_eq!(
                    found.try_to_vec::<f32>().expect("f32"),
                    expected.try_to_vec::<f32>().expect("f32"),
                    "{name}"
                );
            }
        }
    }
}
