//! The elementwise part of a SwiGLU MLP, `silu(gate) * up`: a GPU kernel, and one pass forward and
//! backward on the CPU.

use burn::tensor::Tensor;

use crate::cpu::op::{CpuOp, apply};
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};
use crate::simd::{exp, for_each_chunk, vectorized};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};
#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/swiglu.wgsl`.
    struct SwiGluUniforms {
        /// Number of elements.
        count: u32,
    }
}

/// `shaders/swiglu.wgsl`.
pub const SHADER: Shader = Shader {
    name: "swiglu",
    text: include_str!("../../shaders/swiglu.wgsl"),
    uniforms: SwiGluUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// `gate * sigmoid(gate) * up`, all of one shape.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let shape: [usize; D] = gate.dims();
    assert_eq!(shape, up.dims(), "swiglu: shapes of gate and up");
    let count = shape.iter().product::<usize>();
    if is_gpu(&gate.device()) {
        if count == 0 {
            return gate;
        }
        let (gate, up) = (to_buffer("swiglu", gate), to_buffer("swiglu", up));
        let out = alloc("swiglu", &gate.client, count);
        launch(
            &SHADER,
            &gate.client,
            count.div_ceil(WORKGROUP_SIZE as usize) as u64,
            &[&gate.handle, &up.handle],
            &[&out],
            &SwiGluUniforms {
                count: count as u32,
            },
        );
        return from_buffer(&gate, out, shape);
    }
    let nothing = Tensor::<1>::zeros([1], &gate.device().inner());
    apply(SwiGlu, gate, up, nothing, shape)
}

#[derive(Debug)]
struct SwiGlu;

/// Values per task.
const CHUNK: usize = 1 << 14;

impl CpuOp for SwiGlu {
    fn forward(&self, [gate, up, _]: [&[f32]; 3]) -> Vec<f32> {
        let mut out = vec![0.0; gate.len()];
        for_each_chunk(&mut out, CHUNK, |task, out| {
            let range = task * CHUNK..task * CHUNK + out.len();
            forward(&gate[range.clone()], &up[range], out);
        });
        out
    }

    fn backward(&self, [gate, up, _]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let mut to_gate = vec![0.0; gate.len()];
        let mut to_up = vec![0.0; gate.len()];
        for_each_chunk(&mut to_gate, CHUNK, |task, out| {
            let range = task * CHUNK..task * CHUNK + out.len();
            let gradient = &gradient[range.clone()];
            backward_gate(&gate[range.clone()], &up[range], gradient, out);
        });
        for_each_chunk(&mut to_up, CHUNK, |task, out| {
            let range = task * CHUNK..task * CHUNK + out.len();
            forward(&gate[range.clone()], &gradient[range], out);
        });
        [to_gate, to_up, vec![0.0]]
    }
}

vectorized! {
    fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

vectorized! {
    fn backward_gate(gate: &[f32], up: &[f32], gradient: &[f32], out: &mut [f32]) {
        for (((out, gate), up), g) in out.iter_mut().zip(gate).zip(up).zip(gradient) {
            let sigmoid = 1.0 / (1.0 + exp(-gate));
            *out = g * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
        }
    }
}

/// The largest difference allowed, for inputs in [-8, 8).
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 2e-5;

/// Compares the kernel with the CPU over awkward sizes.
///
/// # Errors
/// The first difference above the tolerance.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let mut rng = TestRng::default();
    for shape in [
        [0, 4],
        [1, 1],
        [3, 21],
        [1, 64],
        [5, 13],
        [31, 127],
        [65_537, 65],
    ] {
        let data = [rng.data(shape), rng.data(shape)];
        let run = |device: &Device| {
            let [gate, up] = data
                .clone()
                .map(|data| Tensor::<2>::from_data(data, device).mul_scalar(8.0));
            swiglu(gate, up)
        };
        let name = format!("swiglu {shape:?}");
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
    use burn::tensor::activation::silu;

    #[test]
    fn equals_tensor_operations() {
        assert_same_gradients(
            [[3, 5, 7], [3, 5, 7], [1, 1, 1]],
            |[gate, up, _]| swiglu(gate, up),
            |[gate, up, _]| silu(gate) * up,
        );
    }
}
