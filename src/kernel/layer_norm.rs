//! Layer normalisation over the last axis.
//!
//! On the processor one pass forward and one backward, written out; elsewhere tensor operations.
//! The stock form makes ten passes and keeps every intermediate for the gradient.

use burn::tensor::Tensor;

use crate::kernel::host::{HostOp, apply, runs_on_host};
use crate::kernel::processor::{for_each_chunk, vectorised};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis of `x` `[.., C]`;
/// `weight`, `bias` `[C]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    if !runs_on_host(&x.device()) {
        return layer_norm_reference(x, weight, bias, eps);
    }
    let shape = x.dims();
    let op = LayerNormOp {
        width: shape[D - 1],
        eps: eps as f32,
    };
    apply(op, x, weight, bias, shape)
}

/// [`layer_norm`] in tensor operations.
pub fn layer_norm_reference<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    centred / variance.add_scalar(eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

#[derive(Debug)]
struct LayerNormOp {
    width: usize,
    eps: f32,
}

/// Sums in eight lanes, so that the compiler may use vectors.
#[inline(always)]
fn sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    let whole = count / 8 * 8;
    for start in (0..whole).step_by(8) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
    }
    (whole..count).map(&term).sum::<f32>() + lanes.iter().sum::<f32>()
}

/// Mean and reciprocal deviation of a row.
#[inline(always)]
fn statistics(row: &[f32], eps: f32) -> (f32, f32) {
    let count = row.len();
    let mean = sum(count, |i| row[i]) / count as f32;
    let variance = sum(count, |i| (row[i] - mean) * (row[i] - mean)) / count as f32;
    (mean, (variance + eps).sqrt().recip())
}

vectorised! {
    fn normalise(rows: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = statistics(row, eps);
            for i in 0..width {
                out[i] = (row[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }
}

vectorised! {
    /// Gradients of the rows, and what they add to those of weight and bias.
    fn normalise_backward(
        rows: &[f32],
        weight: &[f32],
        gradient: &[f32],
        eps: f32,
        to_rows: &mut [f32],
        to_weight: &mut [f32],
        to_bias: &mut [f32],
    ) {
        let width = weight.len();
        let rows = rows.chunks_exact(width).zip(gradient.chunks_exact(width));
        for ((row, gradient), to_row) in rows.zip(to_rows.chunks_exact_mut(width)) {
            let (mean, scale) = statistics(row, eps);
            let along = sum(width, |i| gradient[i] * weight[i]) / width as f32;
            let across =
                sum(width, |i| gradient[i] * weight[i] * (row[i] - mean)) * scale / width as f32;
            for i in 0..width {
                let normal = (row[i] - mean) * scale;
                to_row[i] = scale * (gradient[i] * weight[i] - along - normal * across);
                to_weight[i] += gradient[i] * normal;
                to_bias[i] += gradient[i];
            }
        }
    }
}

impl HostOp for LayerNormOp {
    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Vec<f32> {
        let mut result = vec![0.0; x.len()];
        let length = self.width * (8192 / self.width).max(1);
        for_each_chunk(&mut result, length, |index, out| {
            let rows = &x[index * length..][..out.len()];
            normalise(rows, weight, bias, self.eps, out);
        });
        result
    }

    fn backward(&self, [x, weight, bias]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let mut results = [x, weight, bias].map(|input| vec![0.0; input.len()]);
        let [to_x, to_weight, to_bias] = &mut results;
        normalise_backward(x, weight, gradient, self.eps, to_x, to_weight, to_bias);
        results
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, Int};

    #[test]
    fn values_and_gradients_equal_the_tensor_form() {
        let device = Device::flex().autodiff();
        for width in [1, 7, 8, 19] {
            let random = |shape: [usize; 2]| {
                let length = shape[0] * shape[1];
                let wave = Tensor::<1, Int>::arange(0..length as i64, &device).float();
                (wave * 1.7).sin().reshape(shape)
            };
            let x = random([5, width]).require_grad();
            let weight = random([1, width]).reshape([width]).require_grad();
            let bias = Tensor::<1>::ones([width], &device).require_grad();
            let mix = (random([5, width]) + 0.3).cos();
            let both = [layer_norm, layer_norm_reference].map(|norm| {
                let y = norm(x.clone(), weight.clone(), bias.clone(), 1e-3);
                let gradients = (y.clone() * mix.clone()).sum().backward();
                (
                    y.inner(),
                    x.grad(&gradients).unwrap(),
                    weight.grad(&gradients).unwrap(),
                    bias.grad(&gradients).unwrap(),
                )
            });
            let [ours, stock] = both;
            let close = |a: f32, what: &str| assert!(a < 1e-4, "width {width}, {what}: {a}");
            close(
                (ours.0 - stock.0).abs().max().into_scalar::<f32>(),
                "values",
            );
            close((ours.1 - stock.1).abs().max().into_scalar::<f32>(), "x");
            close(
                (ours.2 - stock.2).abs().max().into_scalar::<f32>(),
                "weight",
            );
            close((ours.3 - stock.3).abs().max().into_scalar::<f32>(), "bias");
        }
    }
}
