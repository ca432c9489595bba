//! Convolutions on the CPU as matrix products.
//!
//! Cells of the map lie in the lanes of vectors and outputs are rows of the other matrix, so that a product is written
//! where it belongs in a channels-first map.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::cpu::op::{self, CpuOp};
use crate::cpu::tiles::{LANES, TILE_COLUMNS, Vector, Wide, columns_together, two_pairs};
use crate::simd::{for_each_chunk, fused};

/// Panels of cells that are multiplied together.
const PANELS: usize = 4;

/// Blocks of cells whose products are in memory at once.
const BLOCKS: usize = 32;

/// What a convolution does beside its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Cells from one output to the next, along both axes; at least 1.
    pub stride: usize,
    /// Zeros on every side of the map.
    pub padding: usize,
    /// Groups of channels; those of the input and of the output are multiples.
    pub groups: usize,
}

impl Geometry {
    /// Outputs along an axis of `extent` cells; none where the kernel does not fit.
    pub fn outputs(self, extent: usize, kernel: usize) -> usize {
        match (extent + 2 * self.padding).checked_sub(kernel) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        }
    }
}

/// The weights of a convolution without groups, as [`ConvKernel::forward`] reads them. Copies share the weights.
#[derive(Module, Debug)]
pub struct ConvKernel {
    /// Rows of outputs in tiles, [`columns_together`].
    #[module(skip)]
    tiles: Arc<Vec<f32>>,
    /// `[O, C, K]`.
    #[module(skip)]
    shape: [usize; 3],
}

impl ConvKernel {
    /// `weight` `[O, C, K, K]`, row-major.
    ///
    /// # Panics
    /// The sizes disagree.
    pub fn new(weight: &[f32], [outputs, channels, size]: [usize; 3]) -> Self {
        let columns = channels * size * size;
        assert_eq!(weight.len(), outputs * columns, "weights");
        let tiles = if weight.is_empty() {
            Vec::new()
        } else {
            columns_together(weight, columns)
        };
        Self {
            tiles: Arc::new(tiles),
            shape: [outputs, channels, size],
        }
    }

    /// Convolves `x` `[B, C, H, W]`, adds `bias` `[O]`, and multiplies what is negative by `slope`, which is 1 for no
    /// activation: `[B, O, H', W']`. Only for inference: there are no gradients.
    ///
    /// # Panics
    /// `x` is not on the CPU, the geometry has groups, or the channels do not match.
    pub fn forward(
        &self,
        x: Tensor<4>,
        bias: Option<Tensor<1>>,
        geometry: Geometry,
        slope: f32,
    ) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let [outputs, expected, size] = self.shape;
        assert!(
            geometry.groups == 1 && channels == expected,
            "conv2d: {channels} channels instead of {expected}"
        );
        let [out_height, out_width] = [height, width].map(|extent| geometry.outputs(extent, size));
        let convolution = Convolution {
            kernel: self.clone(),
            biased: bias.is_some(),
            slope,
            geometry,
            map: [height, width],
            out: [out_height, out_width],
        };
        let none = Tensor::zeros([1], &x.device());
        let bias = bias.unwrap_or_else(|| none.clone());
        let shape = [batch, outputs, out_height, out_width];
        op::apply(convolution, x, bias, none, shape)
    }
}

#[derive(Debug)]
struct Convolution {
    kernel: ConvKernel,
    biased: bool,
    slope: f32,
    geometry: Geometry,
    /// `[H, W]`.
    map: [usize; 2],
    /// `[H', W']`.
    out: [usize; 2],
}

impl CpuOp for Convolution {
    fn forward(&self, [x, bias, _]: [&[f32]; 3]) -> Vec<f32> {
        let [outputs, channels, _] = self.kernel.shape;
        let image = channels * self.map[0] * self.map[1];
        let plane = self.out[0] * self.out[1];
        let mut out = vec![0.0; x.len() / image.max(1) * outputs * plane];
        if out.is_empty() {
            return out;
        }
        let images = out.chunks_exact_mut(outputs * plane);
        for (out, x) in images.zip(x.chunks_exact(image)) {
            let padded = self.padded(x);
            let cells = PANELS * LANES;
            let blocks = plane.div_ceil(cells);
            let mut tiles = vec![[0.0; 2 * LANES]; blocks.min(BLOCKS) * 2 * outputs];
            for first in (0..blocks).step_by(BLOCKS) {
                let tiles = &mut tiles[..BLOCKS.min(blocks - first) * 2 * outputs];
                for_each_chunk(tiles, 2 * outputs, |block, tiles| {
                    self.multiply((first + block) * cells, &padded, tiles);
                });
                for_each_chunk(out, plane, |output, out| {
                    let bias = if self.biased { bias[output] } else { 0.0 };
                    let pairs = tiles.chunks_exact(outputs);
                    let out = out[first * cells..].chunks_mut(2 * LANES);
                    for (out, pair) in out.zip(pairs) {
                        for (out, value) in out.iter_mut().zip(&pair[output]) {
                            let value = value + bias;
                            *out = if value < 0.0 {
                                value * self.slope
                            } else {
                                value
                            };
                        }
                    }
                });
            }
        }
        out
    }

    fn backward(&self, _: [&[f32]; 3], _: &[f32]) -> [Vec<f32>; 3] {
        unreachable!("this convolution has no gradient")
    }
}

impl Convolution {
    /// Height and width of the map with its padding.
    fn padded_size(&self) -> [usize; 2] {
        self.map.map(|extent| extent + 2 * self.geometry.padding)
    }

    /// The map `x` with its padding.
    fn padded(&self, x: &[f32]) -> Vec<f32> {
        let [height, width] = self.map;
        let [padded_height, padded_width] = self.padded_size();
        let padding = self.geometry.padding;
        let channels = self.kernel.shape[1];
        let mut padded = vec![0.0; channels * padded_height * padded_width];
        for_each_chunk(
            &mut padded,
            padded_height * padded_width,
            |channel, padded| {
                let x = &x[channel * height * width..][..height * width];
                let rows = padded.chunks_exact_mut(padded_width).skip(padding);
                for (row, x) in rows.zip(x.chunks_exact(width)) {
                    row[padding..][..width].copy_from_slice(x);
                }
            },
        );
        padded
    }

    /// The products of the cells from `first` with all outputs, `[2, O]`: of a pair of panels after those of the other.
    fn multiply(&self, first: usize, padded: &[f32], tiles: &mut [Wide]) {
        let [outputs, channels, size] = self.kernel.shape;
        let columns = channels * size * size;
        let mut panels = vec![[0.0; LANES]; PANELS * columns];
        for (panel, at) in panels.chunks_exact_mut(columns).zip(0..) {
            self.read(first + at * LANES, padded, panel);
        }
        let (left, right) = tiles.split_at_mut(outputs);
        multiply_panels(&panels, &self.kernel.tiles, columns, left, right);
    }

    /// What eight cells from `first` read of the padded map, `[C, K, K]`; those behind the last one read it too.
    fn read(&self, first: usize, padded: &[f32], panel: &mut [Vector]) {
        let [height, width] = self.padded_size();
        let [out_height, out_width] = self.out;
        let size = self.kernel.shape[2];
        let stride = self.geometry.stride;
        let starts: [usize; LANES] = std::array::from_fn(|lane| {
            let cell = (first + lane).min(out_height * out_width - 1);
            (cell / out_width * width + cell % out_width) * stride
        });
        let is_run = starts[LANES - 1] - starts[0] == LANES - 1;
        let planes = padded.chunks_exact(height * width);
        for (panel, plane) in panel.chunks_exact_mut(size * size).zip(planes) {
            for (row, values) in panel.chunks_exact_mut(size).enumerate() {
                for (column, values) in values.iter_mut().enumerate() {
                    let plane = &plane[row * width + column..];
                    if is_run {
                        values.copy_from_slice(&plane[starts[0]..][..LANES]);
                    } else {
                        *values = starts.map(|start| plane[start]);
                    }
                }
            }
        }
    }
}

fused! {
    /// The products of four panels of `columns` columns with rows `x`, of [`columns_together`]: of the first two in
    /// `left`, of the others in `right`.
    fn multiply_panels(panels: &[Vector], x: &[f32], columns: usize, left: &mut [Wide], right: &mut [Wide]) {
        left.fill([0.0; 2 * LANES]);
        right.fill([0.0; 2 * LANES]);
        for start in (0..columns).step_by(TILE_COLUMNS) {
            let width = TILE_COLUMNS.min(columns - start);
            let panel = |at: usize| &panels[at * columns + start..][..width];
            let weights = [[panel(0), panel(1)], [panel(2), panel(3)]];
            two_pairs::<FUSED, AVX512>(weights, x, start, columns, [&mut *left, &mut *right]);
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::activation::leaky_relu;
    use burn::tensor::ops::ConvOptions;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::cpu::tensor_ops;
    use crate::simd::tests::with_each_instruction_set;

    #[test]
    fn equals_the_convolution_of_burn() {
        with_each_instruction_set(|set| {
            for ([batch, channels, height, width], [outputs, size], [stride, padding]) in [
                ([1, 1, 1, 1], [1, 1], [1, 0]),
                ([1, 3, 13, 22], [24, 3], [2, 1]),
                ([2, 3, 9, 8], [5, 3], [1, 1]),
                ([3, 8, 6, 5], [17, 5], [1, 2]),
                ([1, 2, 3, 2], [3, 3], [2, 4]),
                ([1, 4, 9, 10], [4, 2], [3, 0]),
                ([1, 40, 40, 31], [33, 3], [1, 1]),
                ([0, 4, 4, 4], [3, 3], [1, 1]),
                ([1, 4, 2, 2], [3, 3], [1, 0]),
            ] {
                let name = format!(
                    "{set:?}: {channels} x {height} x {width} to {outputs}, size {size}, stride {stride}"
                );
                let device = Device::flex();
                let data = |shape: [usize; 4], seed: usize| {
                    let count = shape.iter().product::<usize>();
                    let values = (0..count).map(|i| ((i * 37 + seed) % 23) as f32 / 8.0 - 1.25);
                    TensorData::new(values.collect::<Vec<_>>(), shape)
                };
                let x = data([batch, channels, height, width], 1);
                let x = Tensor::<4>::from_data(x, &device);
                let weight = data([outputs, channels, size, size], 5);
                let values = weight.try_to_vec::<f32>().expect("f32");
                let kernel = ConvKernel::new(&values, [outputs, channels, size]);
                let weight = Tensor::<4>::from_data(weight, &device);
                let bias = Tensor::<4>::from_data(data([1, 1, 1, outputs], 3), &device);
                let geometry = Geometry {
                    stride,
                    padding,
                    groups: 1,
                };
                for bias in [None, Some(bias.reshape([outputs]))] {
                    let found = kernel.forward(x.clone(), bias.clone(), geometry, 0.25);
                    let shape = found.dims();
                    if batch == 0 || geometry.outputs(height, size) == 0 {
                        assert_eq!(shape.iter().product::<usize>(), 0, "{name}");
                        continue;
                    }
                    let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &device));
                    let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
                    let expected = tensor_ops::conv2d(x.clone(), weight.clone(), bias, options);
                    let expected = leaky_relu(expected, 0.25);
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
        });
    }
}
