//! Hand-written CPU operations with gradients.
//!
//! A [`CpuOp`] works on slices. This module inserts it into burn's graph, so that the flex backend runs
//! it in one pass where tensor operations take a dozen, and can train through it. On other devices
//! ([`is_cpu`]) its caller uses a kernel or tensor operations.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, Flex, backend_extension};
use burn::tensor::{Device, Tensor};

/// A function of three tensors to one, and its gradient.
pub trait CpuOp: Debug + Send + Sync {
    /// The output, row-major.
    fn forward(&self, inputs: [&[f32]; 3]) -> Vec<f32>;

    /// The gradient of each input, from that of the output.
    fn backward(&self, inputs: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3];
}

/// Whether tensors on `device` are in CPU memory, with or without gradients.
pub fn is_cpu(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "native")]
        DispatchDevice::Autodiff(inner) => matches!(**inner, DispatchDevice::Flex(_)),
        DispatchDevice::Cube(_) => false,
    }
}

/// Applies `op`, whose output has `shape`; on a device that [`is_cpu`] only.
pub fn apply<const A: usize, const B: usize, const C: usize, const D: usize>(
    op: impl CpuOp + 'static,
    a: Tensor<A>,
    b: Tensor<B>,
    c: Tensor<C>,
    shape: [usize; D],
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::cpu_op(
        a.into_dispatch(),
        b.into_dispatch(),
        c.into_dispatch(),
        Arc::new(op),
        shape.to_vec(),
    ))
}

/// [`apply`] of an operation that reads its first input alone.
pub fn apply_to_one<const A: usize, const D: usize>(
    op: impl CpuOp + 'static,
    x: Tensor<A>,
    shape: [usize; D],
) -> Tensor<D> {
    let none = Tensor::<1>::zeros([1], &x.device().inner());
    apply(op, x, none.clone(), none, shape)
}

/// The operation of burn's backends: flex, and flex with gradients for training.
#[backend_extension(Flex, Autodiff: cfg(feature = "native"))]
pub trait CpuOps: Backend {
    /// Applies `op`, whose output has `shape`.
    fn cpu_op(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        op: Arc<dyn CpuOp>,
        shape: Vec<usize>,
    ) -> FloatTensor<Self>;
}

impl CpuOps for Flex {
    fn cpu_op(
        a: FlexTensor,
        b: FlexTensor,
        c: FlexTensor,
        op: Arc<dyn CpuOp>,
        shape: Vec<usize>,
    ) -> FlexTensor {
        let inputs = [a.to_contiguous(), b.to_contiguous(), c.to_contiguous()];
        let result = op.forward(inputs.each_ref().map(values));
        tensor(result, shape)
    }
}

fn values(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice()
        .expect("a contiguous f32 tensor has a slice")
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    assert_eq!(
        values.len(),
        layout.num_elements(),
        "elements of the output"
    );
    FlexTensor::new(
        burn::tensor::Bytes::from_elems(values),
        layout,
        burn::tensor::DType::F32,
    )
}

#[cfg(feature = "native")]
mod gradient {
    use std::sync::Arc;

    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Flex};

    use super::{CpuOp, CpuOps, tensor, values};

    #[derive(Debug)]
    struct CpuOpBackward;

    #[derive(Clone, Debug)]
    struct Saved {
        op: Arc<dyn CpuOp>,
        inputs: [FlexTensor; 3],
    }

    impl Backward<Flex, 3> for CpuOpBackward {
        type State = Saved;

        fn backward(
            self,
            ops: Ops<Saved, 3>,
            gradients: &mut Gradients,
            _checkpointer: &mut Checkpointer,
        ) {
            let Saved { op, inputs } = ops.state;
            let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
            let results = op.backward(inputs.each_ref().map(values), values(&gradient));
            for ((parent, result), input) in ops.parents.into_iter().zip(results).zip(&inputs) {
                if let Some(parent) = parent {
                    let shape = input.layout().shape().to_vec();
                    gradients.register::<Flex>(parent.id, tensor(result, shape));
                }
            }
        }
    }

    impl<C: CheckpointStrategy> CpuOps for Autodiff<Flex, C> {
        fn cpu_op(
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            c: FloatTensor<Self>,
            op: Arc<dyn CpuOp>,
            shape: Vec<usize>,
        ) -> FloatTensor<Self> {
            let nodes = [a.node(), b.node(), c.node()];
            let inputs = [a, b, c].map(|input| input.into_primitive().to_contiguous());
            let result = tensor(op.forward(inputs.each_ref().map(values)), shape);
            match CpuOpBackward.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish(Saved { op, inputs }, result),
                OpsKind::UnTracked(prepared) => prepared.finish(result),
            }
        }
    }
}
