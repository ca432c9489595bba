//! Layer normalisation over the last axis.
//!
//! On a graphics device the kernel `layer_norm`; on the processor one pass forward and one backward,
//! written out. The stock form makes ten passes and keeps every intermediate for the gradient.

use burn::tensor::{Device, Tensor};

use crate::cpu::op::{CpuOp, apply, is_cpu};
use crate::cpu::simd::{for_each_chunk, vectorized};
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Invocations per workgroup.
const GROUP: u32 = 64;

/// `shaders/layer_norm.wgsl`.
pub const SHADER: Shader = Shader {
    name: "layer_norm",
    text: include_str!("../../shaders/layer_norm.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis of `x` `[.., C]`;
/// `weight`, `bias` `[C]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let shape = x.dims();
    let width = shape[D - 1];
    assert_eq!(
        (weight.dims(), bias.dims()),
        ([width], [width]),
        "layer_norm: channels of weight and bias, and those of the input"
    );
    if is_gpu(&x.device()) && !shape.contains(&0) {
        return on_gpu(x, weight, bias, eps);
    }
    if !is_cpu(&x.device()) {
        return layer_norm_reference(x, weight, bias, eps);
    }
    let op = LayerNormOp {
        width,
        eps: eps as f32,
    };
    apply(op, x, weight, bias, shape)
}

fn on_gpu<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let shape = x.dims();
    let (count, width) = (shape.iter().product::<usize>(), shape[D - 1]);
    let x = to_buffer("layer_norm", x);
    let [weight, bias] = [weight, bias].map(|input| to_buffer("layer_norm", input));
    let out = alloc("layer_norm", &x.client, count);
    let rows = count / width;
    launch(
        &SHADER,
        &x.client,
        rows as u64,
        &[&x.handle, &weight.handle, &bias.handle],
        &[&out],
        &[rows as u32, width as u32, (eps as f32).to_bits(), 0],
    );
    from_buffer(&x, out, shape)
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

vectorized! {
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

vectorized! {
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

impl CpuOp for LayerNormOp {
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

/// Results are a few units large; epsilon keeps the rounding of inputs from growing tenfold.
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: rows of
/// one value and of many, widths around the workgroup, more rows than one dimension holds.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for [rows, width] in [
        [0, 8],
        [1, 1],
        [3, 2],
        [7, 24],
        [5, 63],
        [5, 64],
        [5, 65],
        [2, 3072],
        [65_537, 3],
    ] {
        let name = format!("layer_norm [{rows}, {width}]");
        let mut dice = TestRng::default();
        let x = dice.data([rows, width]);
        let [weight, bias] = [0, 1].map(|_| dice.data([width]));
        let inputs = |device: &Device| {
            let [weight, bias] =
                [&weight, &bias].map(|data| Tensor::<1>::from_data(data.clone(), device));
            (
                Tensor::<2>::from_data(x.clone(), device) + 2.0,
                weight,
                bias,
            )
        };
        let (x, weight, bias) = inputs(&Device::flex());
        let expected = read(&name, layer_norm_reference(x, weight, bias, 1e-2)).await?;
        let (x, weight, bias) = inputs(device);
        let got = with_nan_fill(|| layer_norm(x, weight, bias, 1e-2));
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(swept)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;
    use burn::tensor::Int;

    #[test]
    fn layer_norm_kernel_agrees_with_its_reference() {
        let Some(device) = adapter_for_test("layer_norm_kernel_agrees_with_its_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernel and reference agree");
        println!("{swept:?}");
    }

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
