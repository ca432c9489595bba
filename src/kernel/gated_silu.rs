//! `silu(gate) * up`: a kernel for graphics devices, and one pass forward and backward on the processor.

use burn::tensor::Tensor;

use crate::kernel::graphics::{buffer, is_graphics, output, tensor};
use crate::kernel::host::{HostOp, apply};
use crate::kernel::launch::{Shader, launch};
use crate::kernel::processor::{exp, for_each_chunk, vectorised};

/// Invocations per workgroup.
const GROUP: u32 = 64;

/// `shaders/gate.wgsl`.
pub const SHADER: Shader = Shader {
    name: "gate",
    text: include_str!("../../shaders/gate.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// `gate * sigmoid(gate) * up`, all of one shape.
pub fn gated_silu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let shape: [usize; D] = gate.dims();
    assert_eq!(shape, up.dims(), "gate: shapes of the two halves");
    let count = shape.iter().product::<usize>();
    if is_graphics(&gate.device()) && count > 0 {
        let (gate, up) = (buffer("gate", gate), buffer("gate", up));
        let out = output("gate", &gate.client, count);
        launch(
            &SHADER,
            &gate.client,
            count.div_ceil(GROUP as usize) as u64,
            &[&gate.handle, &up.handle],
            &[&out],
            &[count as u32, 0, 0, 0],
        );
        return tensor(&gate, out, shape);
    }
    let nothing = Tensor::<1>::zeros([1], &gate.device().inner());
    apply(GatedSilu, gate, up, nothing, shape)
}

#[derive(Debug)]
struct GatedSilu;

/// Numbers per task.
const CHUNK: usize = 1 << 14;

impl HostOp for GatedSilu {
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

vectorised! {
    fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

vectorised! {
    fn backward_gate(gate: &[f32], up: &[f32], gradient: &[f32], out: &mut [f32]) {
        for (((out, gate), up), g) in out.iter_mut().zip(gate).zip(up).zip(gradient) {
            let share = 1.0 / (1.0 + exp(-gate));
            *out = g * up * share * (1.0 + gate * (1.0 - share));
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::kernel::packed_attention::tests::assert_same_gradients;
    use burn::tensor::activation::silu;

    #[test]
    fn equals_tensor_operations() {
        assert_same_gradients(
            [[3, 5, 7], [3, 5, 7], [1, 1, 1]],
            |[gate, up, _]| gated_silu(gate, up),
            |[gate, up, _]| silu(gate) * up,
        );
    }
}
