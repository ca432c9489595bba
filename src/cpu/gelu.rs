//! GELU with the exact error function, and its exact derivative.
//!
//! On a GPU this is burn's operation, or a kernel when it follows a bias
//! ([`activation`](crate::gpu::activation)). On the CPU it is implemented here: burn's forward pass calls
//! a scalar error function, and its backward pass differentiates the tanh approximation instead.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};

use crate::simd::{for_each_chunk, vectorized};

/// `x Phi(x)` of each element, Phi the normal distribution function (arXiv 1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::exact_gelu(x.into_dispatch()))
}

/// [`gelu`] as an operation of burn's backends.
#[backend_extension(Flex, Cube, Autodiff: cfg(feature = "native"))]
pub trait GeluOps: Backend {
    /// See [`gelu`].
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// The gradient of `x`, from that of the output.
    fn exact_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_backward(x, gradient)
    }
}

impl GeluOps for Cube {}

/// Values per task.
const CHUNK: usize = 1 << 14;

impl GeluOps for Flex {
    fn exact_gelu(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let values: &[f32] = x.storage();
        let mut out = vec![0.0; values.len()];
        for_each_chunk(&mut out, CHUNK, |i, out| {
            gelu_values(&values[i * CHUNK..][..out.len()], out);
        });
        FlexTensor::from_data(TensorData::new(out, x.shape()))
    }

    fn exact_gelu_backward(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
        let (values, gradients): (&[f32], &[f32]) = (x.storage(), gradient.storage());
        let mut out = vec![0.0; values.len()];
        for_each_chunk(&mut out, CHUNK, |i, out| {
            let start = i * CHUNK;
            gelu_backward_values(
                &values[start..][..out.len()],
                &gradients[start..][..out.len()],
                out,
            );
        });
        FlexTensor::from_data(TensorData::new(out, x.shape()))
    }
}

vectorized! {
    fn gelu_values(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * normal(*x).0;
        }
    }
}

vectorized! {
    fn gelu_backward_values(x: &[f32], gradient: &[f32], out: &mut [f32]) {
        const SQRT_TAU: f32 = 2.506_628_3;
        for ((out, x), gradient) in out.iter_mut().zip(x).zip(gradient) {
            let (phi, gauss) = normal(*x);
            *out = gradient * (phi + x * (gauss / SQRT_TAU));
        }
    }
}

/// The normal distribution function Phi(x), and `exp(-x^2 / 2)`.
///
/// Abramowitz and Stegun 7.1.26 (error below 1.5e-7) in the scale of the normal distribution, without
/// branches, so that compilers vectorize it.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let gauss = exp_of_negative(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let series = t
        * (0.254_829_6
            + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * gauss;
    (if x < 0.0 { tail } else { 1.0 - tail }, gauss)
}

/// `exp(v)` for `v <= 0`; zero below -87.
#[inline(always)]
fn exp_of_negative(v: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUNDING: f32 = 12_582_912.0;
    let clamped = v.max(-87.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDING;
    let whole = shifted - ROUNDING;
    // ln 2 in two parts; products with the first are exact.
    let r = clamped - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let series = 1.0
        + r * (1.0
            + r * (1.0 / 2.0
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if v < -87.0 { 0.0 } else { series * power }
}

#[cfg(feature = "native")]
mod gradient {
    use burn::backend::Autodiff;
    use burn::backend::autodiff::NodeId;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};

    use super::{FloatTensor, GeluOps};

    #[derive(Debug)]
    struct Gelu;

    impl<B: GeluOps> Backward<B, 1> for Gelu {
        type State = NodeId;

        fn backward(
            self,
            ops: Ops<Self::State, 1>,
            grads: &mut Gradients,
            checkpointer: &mut Checkpointer,
        ) {
            let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
            unary::<B, _>(ops.parents, ops.node, grads, |gradient| {
                B::exact_gelu_backward(x, gradient)
            });
        }
    }

    impl<B: GeluOps, C: CheckpointStrategy> GeluOps for Autodiff<B, C> {
        fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
            match Gelu.prepare::<C>([x.node()]).compute_bound().stateful() {
                OpsKind::Tracked(mut step) => {
                    let state = step.checkpoint(&x);
                    step.finish(state, B::exact_gelu(x.into_primitive()))
                }
                OpsKind::UnTracked(step) => step.finish(B::exact_gelu(x.into_primitive())),
            }
        }
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Expected values: Python's `math.erf` in f64.
    #[test]
    fn values_and_gradients_are_exact() {
        let table: [(f32, f32, f32); 8] = [
            (-100.0, 0.0, 0.0),
            (-6.0, -5.919_526e-9, -3.546_871e-8),
            (-1.0, -0.158_655_25, -0.083_315_47),
            (-0.1, -0.046_017_22, 0.420_476_9),
            (0.0, 0.0, 0.5),
            (0.5, 0.345_731_23, 0.867_495_1),
            (3.0, 2.995_950_3, 1.011_945_7),
            (50.0, 50.0, 1.0),
        ];
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_floats(table.map(|row| row.0), &device).require_grad();
        let y = gelu(x.clone());
        let gradients = x.grad(&y.clone().sum().backward()).expect("tracked");
        let read = |t: Tensor<1>| t.into_data().try_to_vec::<f32>().expect("f32");
        let (y, gradients) = (read(y), read(gradients));
        for (i, (x, value, slope)) in table.into_iter().enumerate() {
            assert!(
                (y[i] - value).abs() < 4e-7,
                "gelu({x}) = {}, not {value}",
                y[i]
            );
            assert!(
                (gradients[i] - slope).abs() < 4e-7,
                "gelu'({x}) = {}, not {slope}",
                gradients[i]
            );
        }
    }
}
