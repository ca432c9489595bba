//! Layer normalization over the last axis: a GPU kernel; on the CPU one pass forward and one backward.
//! Tensor operations make ten passes and keep every intermediate for the gradient.

use burn::tensor::Tensor;

use crate::cpu::op::{CpuOp, apply, is_cpu};
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::simd::{for_each_chunk, vectorized};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};
#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/layer_norm.wgsl`.
    struct LayerNormUniforms {
        /// Number of rows.
        rows: u32,
        /// Width of a row.
        channels: u32,
        /// Added to the variance.
        eps: f32,
    }
}

/// `shaders/layer_norm.wgsl`.
pub const SHADER: Shader = Shader {
    name: "layer_norm",
    text: include_str!("../../shaders/layer_norm.wgsl"),
    uniforms: LayerNormUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
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
        "layer_norm: weight and bias, channels of the input"
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
        &LayerNormUniforms {
            rows: rows as u32,
            channels: width as u32,
            eps: eps as f32,
        },
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
    let centered = x.clone() - x.mean_dim(D - 1);
    let variance = centered.clone().square().mean_dim(D - 1);
    centered / variance.add_scalar(eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

#[derive(Debug)]
struct LayerNormOp {
    width: usize,
    eps: f32,
}

/// A sum in eight lanes, so that the compiler can use vectors.
#[inline(always)]
fn sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    let whole = count / 8 * 8;
    for start in (0..whole).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    (whole..count).map(&term).sum::<f32>() + lanes.iter().sum::<f32>()
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn statistics(row: &[f32], eps: f32) -> (f32, f32) {
    let count = row.len();
    let mean = sum(count, |i| row[i]) / count as f32;
    let variance = sum(count, |i| (row[i] - mean) * (row[i] - mean)) / count as f32;
    (mean, (variance + eps).sqrt().recip())
}

vectorized! {
    fn normalize(rows: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
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
    /// Writes the gradient of the rows; adds to the gradients of weight and bias.
    fn normalize_backward(
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
            let mean_term = sum(width, |i| gradient[i] * weight[i]) / width as f32;
            let scale_term =
                sum(width, |i| gradient[i] * weight[i] * (row[i] - mean)) * scale / width as f32;
            for i in 0..width {
                let normal = (row[i] - mean) * scale;
                to_row[i] = scale * (gradient[i] * weight[i] - mean_term - normal * scale_term);
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
            normalize(rows, weight, bias, self.eps, out);
        });
        result
    }

    fn backward(&self, [x, weight, bias]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let mut results = [x, weight, bias].map(|input| vec![0.0; input.len()]);
        let [to_x, to_weight, to_bias] = &mut results;
        normalize_backward(x, weight, gradient, self.eps, to_x, to_weight, to_bias);
        results
    }
}

/// The largest difference allowed. Results are a few units large; epsilon bounds the amplification of
/// rounding errors.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on `device`, a GPU, with the reference on the CPU: widths of 1 and around the
/// workgroup size, more rows than one dimension of workgroups holds.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
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
        let mut rng = TestRng::default();
        let x = rng.data([rows, width]);
        let [weight, bias] = [0, 1].map(|_| rng.data([width]));
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
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, Int};

    #[test]
    fn values_and_gradients_equal_tensor_operations() {
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
