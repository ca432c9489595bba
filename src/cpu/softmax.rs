//! Softmax of scaled rows on the CPU, in one pass forward and one backward. Tensor operations take five passes and a
//! scalar exponential.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::cpu::op::{CpuOp, apply_to_one, is_cpu};
use crate::simd::{exp, for_each_chunk, vectorized};

/// `softmax(scale x)` over the last dimension. Rows with NaN, and rows of -inf alone, become NaN.
pub fn scaled_softmax<const D: usize>(x: Tensor<D>, scale: f32) -> Tensor<D> {
    let shape: [usize; D] = x.dims();
    let width = shape[D - 1];
    if !is_cpu(&x.device()) || x.shape().num_elements() == 0 {
        return softmax(x.mul_scalar(scale), D - 1);
    }
    apply_to_one(ScaledSoftmax { width, scale }, x, shape)
}

/// Values that are added up side by side.
const LANES: usize = 16;

/// Values per task, about.
const TASK: usize = 1 << 14;

#[derive(Debug)]
struct ScaledSoftmax {
    width: usize,
    scale: f32,
}

impl CpuOp for ScaledSoftmax {
    fn forward(&self, [x, ..]: [&[f32]; 3]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let task = TASK.div_ceil(self.width) * self.width;
        for_each_chunk(&mut out, task, |index, out| {
            let x = &x[index * task..][..out.len()];
            for (x, out) in x
                .chunks_exact(self.width)
                .zip(out.chunks_exact_mut(self.width))
            {
                softmax_row(x, self.scale, out);
            }
        });
        out
    }

    fn backward(&self, inputs: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let mut of_x = self.forward(inputs);
        let task = TASK.div_ceil(self.width) * self.width;
        for_each_chunk(&mut of_x, task, |index, of_x| {
            let gradient = &gradient[index * task..][..of_x.len()];
            let rows = gradient.chunks_exact(self.width);
            for (gradient, of_x) in rows.zip(of_x.chunks_exact_mut(self.width)) {
                gradient_row(gradient, self.scale, of_x);
            }
        });
        let [_, b, c] = inputs;
        [of_x, vec![0.0; b.len()], vec![0.0; c.len()]]
    }
}

vectorized! {
    fn softmax_row(x: &[f32], scale: f32, out: &mut [f32]) {
        let mut highest = [f32::NEG_INFINITY; LANES];
        // 0, or NaN if a value is.
        let mut check = [0.0; LANES];
        for x in x.chunks(LANES) {
            for ((highest, check), x) in highest.iter_mut().zip(&mut check).zip(x) {
                let x = x * scale;
                *highest = if x > *highest { x } else { *highest };
                *check += if x.is_nan() { x } else { 0.0 };
            }
        }
        let highest = highest.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0; LANES];
        for (out, x) in out.chunks_mut(LANES).zip(x.chunks(LANES)) {
            for ((out, x), sum) in out.iter_mut().zip(x).zip(&mut sums) {
                *out = exp(x * scale - highest);
                *sum += *out;
            }
        }
        let share = 1.0 / sums.iter().sum::<f32>() + check.iter().sum::<f32>();
        for out in out.iter_mut() {
            *out *= share;
        }
    }
}

vectorized! {
    /// The shares of a row become the gradient of its input.
    fn gradient_row(gradient: &[f32], scale: f32, shares: &mut [f32]) {
        let mut sums = [0.0; LANES];
        for (gradient, shares) in gradient.chunks(LANES).zip(shares.chunks(LANES)) {
            for ((gradient, share), sum) in gradient.iter().zip(shares).zip(&mut sums) {
                *sum += gradient * share;
            }
        }
        let mean: f32 = sums.iter().sum();
        for (gradient, share) in gradient.iter().zip(shares.iter_mut()) {
            *share *= scale * (gradient - mean);
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::simd::tests::with_each_instruction_set;

    fn values(tensor: &Tensor<2>) -> Vec<f32> {
        tensor.to_data().try_to_vec().expect("f32")
    }

    #[test]
    fn values_and_gradients_are_those_of_tensor_operations() {
        let device = Device::flex().autodiff();
        with_each_instruction_set(|set| {
            for [rows, width] in [[1, 1], [3, 7], [40, 577], [2, 40_000]] {
                let data = |seed: f32| {
                    let value = |i: usize| (i as f32 * 0.613 + seed).sin() * 9.0;
                    TensorData::new(
                        (0..rows * width).map(value).collect::<Vec<_>>(),
                        [rows, width],
                    )
                };
                let slope = Tensor::<2>::from_data(data(2.0), &device);
                let run = |f: &dyn Fn(Tensor<2>) -> Tensor<2>| {
                    let x = Tensor::<2>::from_data(data(1.0), &device).require_grad();
                    let y = f(x.clone());
                    let gradients = (y.clone() * slope.clone()).sum().backward();
                    [values(&y), values(&x.grad(&gradients).expect("a gradient"))]
                };
                let got = run(&|x| scaled_softmax(x, 0.3));
                let expected = run(&|x| softmax(x.mul_scalar(0.3), 1));
                for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                    let limit = 1e-6 + 1e-5 * expected.abs();
                    assert!(
                        (got - expected).abs() < limit,
                        "{set:?} {rows} x {width}: {got} {expected}"
                    );
                }
            }
        });
    }

    #[test]
    fn masked_values_have_no_share_and_nan_stays() {
        let device = Device::flex();
        let masked = f32::NEG_INFINITY;
        let rows = [[1.0, masked, 1.0], [f32::NAN, 0.0, 1.0], [masked; 3]];
        let x = Tensor::<2>::from_floats(rows, &device);
        let y = values(&scaled_softmax(x, 1.0));
        assert_eq!(y[..3], [0.5, 0.0, 0.5]);
        assert!(y[3..].iter().all(|y| y.is_nan()), "{y:?}");
    }
}
