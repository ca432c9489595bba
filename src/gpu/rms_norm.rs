//! RMS normalization: a GPU kernel; on the CPU one pass forward and one backward, where tensor
//! operations take seven and about twenty.

use burn::tensor::Tensor;

use crate::cpu::op::{CpuOp, apply};
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
    /// Uniforms of `shaders/rms_norm.wgsl`.
    struct RmsNormUniforms {
        /// Number of rows.
        m: u32,
        /// Width of a row.
        k: u32,
        /// Added to the mean square.
        eps: f32,
    }
}

/// `shaders/rms_norm.wgsl`.
pub const SHADER: Shader = Shader {
    name: "rms_norm",
    text: include_str!("../../shaders/rms_norm.wgsl"),
    uniforms: RmsNormUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// `x * rsqrt(mean(x^2) + eps) * weight` over the last axis of `x` `[.., C]`, `weight` `[C]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let shape: [usize; D] = x.dims();
    if is_gpu(&x.device()) {
        return on_gpu(x, weight, eps as f32);
    }
    let nothing = Tensor::<1>::zeros([1], &x.device().inner());
    let op = RmsNorm {
        width: shape[D - 1],
        eps: eps as f32,
    };
    apply(op, x, weight, nothing, shape)
}

fn on_gpu<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f32) -> Tensor<D> {
    let shape: [usize; D] = x.dims();
    let width = shape[D - 1];
    assert_eq!(weight.dims(), [width], "rms_norm: weight");
    let rows = shape[..D - 1].iter().product::<usize>();
    if rows * width == 0 {
        return x;
    }
    let (x, weight) = (to_buffer("rms_norm", x), to_buffer("rms_norm", weight));
    let out = alloc("rms_norm", &x.client, rows * width);
    launch(
        &SHADER,
        &x.client,
        rows as u64,
        &[&x.handle, &weight.handle],
        &[&out],
        &RmsNormUniforms {
            m: rows as u32,
            k: width as u32,
            eps,
        },
    );
    from_buffer(&x, out, shape)
}

#[derive(Debug)]
struct RmsNorm {
    width: usize,
    eps: f32,
}

/// Rows per task.
const ROWS: usize = 256;

impl CpuOp for RmsNorm {
    fn forward(&self, [x, weight, _]: [&[f32]; 3]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let size = ROWS * self.width;
        for_each_chunk(&mut out, size, |task, out| {
            forward_rows(&x[task * size..][..out.len()], weight, self.eps, out);
        });
        out
    }

    fn backward(&self, [x, weight, _]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let mut to_x = vec![0.0; x.len()];
        let size = ROWS * self.width;
        for_each_chunk(&mut to_x, size, |task, out| {
            let range = task * size..task * size + out.len();
            backward_rows(&x[range.clone()], weight, &gradient[range], self.eps, out);
        });
        let mut to_weight = vec![0.0; self.width];
        backward_weight(x, gradient, self.eps, &mut to_weight);
        [to_x, to_weight, vec![0.0]]
    }
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    let mut lanes = [0.0; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for lane in 0..8 {
            lanes[lane] += chunk[lane] * chunk[lane];
        }
    }
    let sum = lanes.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}

vectorized! {
    fn forward_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let scale = inverse_rms(x, eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * weight;
            }
        }
    }
}

vectorized! {
    fn backward_rows(x: &[f32], weight: &[f32], gradient: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for ((x, out), gradient) in x
            .chunks_exact(width)
            .zip(out.chunks_exact_mut(width))
            .zip(gradient.chunks_exact(width))
        {
            let scale = inverse_rms(x, eps);
            let mut lanes = [0.0; 8];
            for (i, ((x, g), w)) in x.iter().zip(gradient).zip(weight).enumerate() {
                lanes[i % 8] += x * g * w;
            }
            let factor = lanes.iter().sum::<f32>() * scale * scale * scale / width as f32;
            for (((out, x), g), w) in out.iter_mut().zip(x).zip(gradient).zip(weight) {
                *out = g * w * scale - x * factor;
            }
        }
    }
}

vectorized! {
    fn backward_weight(x: &[f32], gradient: &[f32], eps: f32, out: &mut [f32]) {
        let width = out.len();
        for (x, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
            let scale = inverse_rms(x, eps);
            for ((out, x), g) in out.iter_mut().zip(x).zip(gradient) {
                *out += x * g * scale;
            }
        }
    }
}

/// An RMS norm of `x` `[M, K]` in plain loops.
#[cfg(feature = "diagnostics")]
pub(super) fn rms_norm_reference(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    x.chunks_exact(gain.len())
        .flat_map(|row| {
            let sum = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let root = (sum / gain.len() as f64 + f64::from(eps)).sqrt();
            let terms = row.iter().zip(gain);
            terms.map(move |(v, g)| (f64::from(*v) * f64::from(*g) / root) as f32)
        })
        .collect()
}

/// The largest difference allowed between kernel and CPU.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel with the CPU over awkward shapes.
///
/// # Errors
/// The first difference above the tolerance.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let mut rng = TestRng::default();
    for [rows, width] in [
        [0, 4],
        [1, 1],
        [3, 63],
        [2, 64],
        [5, 65],
        [65_537, 3],
        [2, 3584],
    ] {
        let data = [rng.data([rows, width]), rng.data([1, width])];
        let run = |device: &Device| {
            let [x, weight] = data
                .clone()
                .map(|data| Tensor::<2>::from_data(data, device));
            rms_norm(x, weight.flatten(0, 1), 1e-5)
        };
        let name = format!("rms_norm [{rows}, {width}]");
        let expected = read(&name, run(&Device::flex())).await?;
        let got = with_nan_fill(|| run(device));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::cpu::varlen_attention::tests::assert_same_gradients;

    #[test]
    fn equals_tensor_operations() {
        assert_same_gradients(
            [[3, 5, 24], [1, 1, 24], [1, 1, 1]],
            |[x, weight, _]| rms_norm(x, weight.flatten(0, 2), 1e-6),
            |[x, weight, _]| {
                let mean = x.clone().square().mean_dim(2);
                x / mean.add_scalar(1e-6).sqrt() * weight
            },
        );
    }
}
