//! Quick GELU on the CPU, in one pass forward and one backward.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use crate::cpu::op::{CpuOp, apply_to_one, is_cpu};
use crate::simd::{exp, for_each_chunk, vectorized};

/// `x sigmoid(1.702 x)` of each element.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_cpu(&x.device()) {
        return x.clone() * sigmoid(x.mul_scalar(SLOPE));
    }
    let shape = x.dims();
    apply_to_one(QuickGelu, x, shape)
}

const SLOPE: f32 = 1.702;

/// Values per task.
const TASK: usize = 1 << 14;

#[derive(Debug)]
struct QuickGelu;

impl CpuOp for QuickGelu {
    fn forward(&self, [x, ..]: [&[f32]; 3]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for_each_chunk(&mut out, TASK, |index, out| {
            values(&x[index * TASK..][..out.len()], out);
        });
        out
    }

    fn backward(&self, [x, b, c]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let mut of_x = gradient.to_vec();
        for_each_chunk(&mut of_x, TASK, |index, of_x| {
            slopes(&x[index * TASK..][..of_x.len()], of_x);
        });
        [of_x, vec![0.0; b.len()], vec![0.0; c.len()]]
    }
}

/// `1 / (1 + e^-x)`, without a large intermediate value.
#[inline(always)]
fn sigmoid_of(x: f32) -> f32 {
    let small = exp(-x.abs());
    let share = 1.0 / (1.0 + small);
    if x < 0.0 { small * share } else { share }
}

vectorized! {
    fn values(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * sigmoid_of(SLOPE * x);
        }
    }
}

vectorized! {
    /// Multiplies gradients with the derivative.
    fn slopes(x: &[f32], gradient: &mut [f32]) {
        for (gradient, x) in gradient.iter_mut().zip(x) {
            let share = sigmoid_of(SLOPE * x);
            *gradient *= share + x * share * (1.0 - share) * SLOPE;
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::simd::tests::with_each_instruction_set;

    #[test]
    fn values_and_gradients_are_those_of_tensor_operations() {
        let device = Device::flex().autodiff();
        let mut data: Vec<f32> = (-400..400).map(|i| i as f32 * 0.2).collect();
        data.extend([-1e9, 1e9]);
        let read = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().expect("f32");
        with_each_instruction_set(|set| {
            let run = |f: &dyn Fn(Tensor<1>) -> Tensor<1>| {
                let x = TensorData::new(data.clone(), [data.len()]);
                let x = Tensor::<1>::from_data(x, &device).require_grad();
                let y = f(x.clone());
                let gradients = y.clone().sum().backward();
                [read(y), read(x.grad(&gradients).expect("a gradient"))]
            };
            let got = run(&quick_gelu);
            let expected = run(&|x| x.clone() * sigmoid(x.mul_scalar(SLOPE)));
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                let limit = 1e-6 + 1e-6 * expected.abs();
                assert!((got - expected).abs() < limit, "{set:?}: {got} {expected}");
            }
            assert!(read(quick_gelu(Tensor::from_floats([f32::NAN], &device)))[0].is_nan());
        });
    }
}
