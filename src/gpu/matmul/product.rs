//! Products of two tensors of any rank, with the kernels that multiply by weights.

use burn::tensor::Tensor;

use super::{DeviceMatrix, Epilogue, linear};
use crate::cpu::tensor_ops;
use crate::gpu::buffer::is_gpu;

/// The products of the matrices in the last two dimensions, `[.., M, K]` by `[.., K, N]`: `[.., M, N]`.
///
/// On a GPU each is one product of its own. Models multiply by weights, and attention has kernels, so this is for the
/// shapes that no kernel takes.
///
/// # Panics
/// The sizes do not match, or there are fewer than two dimensions.
pub fn batched_matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let [of_a, of_b] = [a.dims(), b.dims()];
    assert!(
        D >= 2 && of_a[..D - 2] == of_b[..D - 2] && of_a[D - 1] == of_b[D - 2],
        "batched_matmul: {of_a:?} by {of_b:?}"
    );
    if !is_gpu(&a.device()) {
        return tensor_ops::matmul(a, b);
    }
    let [rows, inner, columns] = [of_a[D - 2], of_a[D - 1], of_b[D - 1]];
    let count: usize = of_a[..D - 2].iter().product();
    let mut shape = of_a;
    shape[D - 1] = columns;
    if count * rows * columns == 0 || inner == 0 {
        return Tensor::zeros(shape, &a.device());
    }
    let a = a.reshape([count, rows, inner]);
    let b = b.swap_dims(D - 2, D - 1).reshape([count, columns, inner]);
    let product = |index| {
        let a = a.clone().narrow(0, index, 1).reshape([rows, inner]);
        let b = b.clone().narrow(0, index, 1).reshape([columns, inner]);
        let [a, b] = [a, b].map(in_whole_vectors);
        linear(a, &[DeviceMatrix::f32(b)], Epilogue::None)
    };
    Tensor::cat((0..count).map(product).collect(), 0).reshape(shape)
}

/// A matrix `[rows, columns]` with columns of zeros up to a multiple of 4, as kernels read it.
pub fn in_whole_vectors(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    let missing = columns.next_multiple_of(4) - columns;
    if missing == 0 {
        return matrix;
    }
    let zeros = Tensor::zeros([rows, missing], &matrix.device());
    Tensor::cat(vec![matrix, zeros], 1)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn products_on_a_gpu_equal_those_on_the_cpu() {
        let Some(gpu) = adapter_for_test("products_on_a_gpu_equal_those_on_the_cpu") else {
            return;
        };
        for [batch, heads, rows, inner, columns] in [
            [1, 1, 1, 1, 1],
            [2, 3, 5, 7, 4],
            [1, 2, 9, 30, 33],
            [2, 1, 65, 4, 3],
            [0, 2, 3, 4, 5],
            [2, 2, 3, 0, 5],
        ] {
            let data = |rows: usize, columns: usize, seed: usize| {
                let values = (0..batch * heads * rows * columns)
                    .map(|i| ((i * 37 + seed) % 23) as f32 / 8.0 - 1.25);
                TensorData::new(values.collect::<Vec<_>>(), [batch, heads, rows, columns])
            };
            let on = |device: &Device| {
                let a = Tensor::<4>::from_data(data(rows, inner, 1), device);
                // A transposed view, as attention passes its keys.
                let b = Tensor::<4>::from_data(data(columns, inner, 5), device).swap_dims(2, 3);
                batched_matmul(a, b).into_data()
            };
            let [expected, found] = [on(&Device::flex()), on(&gpu)];
            assert_eq!(found.shape(), expected.shape());
            // Sums of thirty small multiples of 1/64 are exact.
            assert_eq!(
                found.try_to_vec::<f32>().expect("f32"),
                expected.try_to_vec::<f32>().expect("f32"),
                "{rows} x {inner} by {columns}"
            );
        }
    }
}
