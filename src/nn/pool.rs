//! Pooling and interpolation of feature maps by fixed factors.
//!
//! On the CPU these are burn's operations. On a GPU a few tensor operations compute them: burn's kernels would bring a
//! framework for tiles into the page.

use burn::tensor::{Tensor, s};

use crate::cpu::tensor_ops;
use crate::gpu::buffer::is_gpu;

/// The largest of each `kernel` x `kernel` cells, `[B, C, H, W]` to `[B, C, H', W']`; cells outside the map, of which
/// there are `padding` on every side, do not count.
///
/// # Panics
/// The kernel does not fit the padded map, or is all padding somewhere.
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    assert!(
        padding < kernel && height.min(width) + 2 * padding >= kernel,
        "max_pool2d: {height} x {width} with a kernel of {kernel} and a padding of {padding}"
    );
    if !is_gpu(&x.device()) {
        return tensor_ops::max_pool2d(x, kernel, stride, padding);
    }
    let padded = x.pad((padding, padding, padding, padding), f32::NEG_INFINITY);
    let span = |extent: usize| (extent + 2 * padding - kernel) / stride * stride + 1;
    let (rows, columns, step) = (span(height), span(width), stride as isize);
    let of_row = |tap: usize| padded.clone().slice(s![.., .., tap..tap + rows;step, ..]);
    let highest = (1..kernel).fold(of_row(0), |highest, tap| highest.max_pair(of_row(tap)));
    let of_column = |tap: usize| {
        highest
            .clone()
            .slice(s![.., .., .., tap..tap + columns;step])
    };
    (1..kernel).fold(of_column(0), |x, tap| x.max_pair(of_column(tap)))
}

/// The mean of each 2 x 2 cells, `[B, C, H, W]` to `[B, C, H / 2, W / 2]`, which is bilinear interpolation to half
/// the size. A last row or column without a partner is left out.
pub fn halved(x: Tensor<4>) -> Tensor<4> {
    if !is_gpu(&x.device()) {
        return tensor_ops::avg_pool_2x2(x);
    }
    let [_, _, height, width] = x.dims();
    let (rows, columns) = (height / 2 * 2, width / 2 * 2);
    let sum = x.clone().slice(s![.., .., 0..rows;2, ..]) + x.slice(s![.., .., 1..rows;2, ..]);
    let of_columns = |first: usize| sum.clone().slice(s![.., .., .., first..columns;2]);
    (of_columns(0) + of_columns(1)).mul_scalar(0.25)
}

/// Bilinear interpolation to twice the size, `[B, C, H, W]` to `[B, C, 2 H, 2 W]`, cell centers at half-integers.
pub fn doubled(x: Tensor<4>) -> Tensor<4> {
    if !is_gpu(&x.device()) {
        return tensor_ops::upsample_2x(x);
    }
    doubled_along::<2>(doubled_along::<3>(x))
}

/// Every cell becomes two: three quarters of it and a quarter of the one before, then of the one after. The first and
/// the last one are their own neighbors.
fn doubled_along<const AXIS: usize>(x: Tensor<4>) -> Tensor<4> {
    let mut shape = x.dims();
    let extent = shape[AXIS];
    let [first, last] = [0, extent - 1].map(|at| x.clone().narrow(AXIS, at, 1));
    let padded = Tensor::cat(vec![first, x.clone(), last], AXIS);
    let most = x.mul_scalar(0.75);
    let pair = [0, 2].map(|start| {
        let neighbors = padded.clone().narrow(AXIS, start, extent);
        (most.clone() + neighbors.mul_scalar(0.25)).unsqueeze_dim::<5>(AXIS + 1)
    });
    shape[AXIS] *= 2;
    Tensor::cat(pair.to_vec(), AXIS + 1).reshape(shape)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::gpu::device::adapter_for_test;

    type Operation = fn(Tensor<4>) -> Tensor<4>;

    #[test]
    fn maps_on_a_gpu_equal_those_on_the_cpu() {
        let Some(gpu) = adapter_for_test("maps_on_a_gpu_equal_those_on_the_cpu") else {
            return;
        };
        for shape in [[1, 1, 2, 2], [2, 3, 7, 4], [1, 24, 13, 22], [1, 2, 3, 9]] {
            let count = shape.iter().product::<usize>();
            let values: Vec<f32> = (0..count)
                .map(|i| (i * 37 % 23) as f32 / 8.0 - 2.0)
                .collect();
            let data = TensorData::new(values, shape);
            let operations: [(&str, Operation); 5] = [
                ("max 3, 2, 1", |x| max_pool2d(x, 3, 2, 1)),
                ("max 2, 1, 0", |x| max_pool2d(x, 2, 1, 0)),
                ("max 2, 3, 1", |x| max_pool2d(x, 2, 3, 1)),
                ("halved", halved),
                ("doubled", doubled),
            ];
            for (name, operation) in operations {
                let on = |device: &Device| {
                    operation(Tensor::from_data(data.clone(), device)).into_data()
                };
                let [expected, found] = [on(&Device::flex()), on(&gpu)];
                assert_eq!(found.shape(), expected.shape(), "{name} of {shape:?}");
                // Sixteenths of small numbers are exact.
                let [expected, found] =
                    [expected, found].map(|data| data.try_to_vec::<f32>().expect("f32"));
                assert_eq!(found, expected, "{name} of {shape:?}");
            }
        }
    }
}
