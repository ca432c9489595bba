//! The weight matrix of a linear layer or an embedding. Layers multiply with it and gather rows of it
//! without knowing its format.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::cpu::packed_matrix::{PackedMatrix, packed_linear};
use crate::cpu::tensor_ops;
use crate::gpu::activation::{Activation, bias_activation};
use crate::gpu::buffer::is_gpu;
use crate::gpu::matmul::{self, DeviceMatrix, Epilogue, in_whole_vectors};
use crate::memory::CpuActivations;

/// A matrix `[out, in]`.
#[derive(Module, Debug)]
pub enum Weight {
    /// One f32 tensor; the only variant that can be trained.
    Dense(Param<Tensor<2>>),
    /// f32 in row blocks, as tensors, on a GPU where `in` is no multiple of 4, which
    /// kernels read only with zeros behind each row. Joined to one tensor they would exceed what a GPU
    /// binds, and need twice the memory while they load.
    Sharded(Vec<Tensor<2>>),
    /// Row blocks on the CPU, as its products read them.
    Packed(Vec<PackedMatrix>),
    /// Row blocks of any format on a GPU, as kernels read them.
    Device(Vec<DeviceMatrix>),
}

impl Weight {
    /// The trainable matrix `tensor`, whose full name is `name`.
    pub fn dense(name: &str, tensor: Tensor<2>) -> Self {
        Self::Dense(Param::initialized(parameter_id(name), tensor).set_require_grad(true))
    }

    /// An f32 matrix in row blocks.
    pub fn sharded(blocks: Vec<Tensor<2>>) -> Self {
        let on_gpu = |block: &Tensor<2>| {
            let matrix = is_gpu(&block.device()).then(|| DeviceMatrix::f32(block.clone()));
            matrix.filter(DeviceMatrix::fits)
        };
        match blocks.iter().map(on_gpu).collect::<Option<_>>() {
            Some(blocks) => Self::Device(blocks),
            None => Self::Sharded(blocks),
        }
    }

    /// The same with other activations, if it is quantized and on the CPU.
    pub fn with_activations(self, activations: CpuActivations) -> Self {
        match self {
            Self::Packed(blocks) => {
                let blocks = blocks.into_iter();
                Self::Packed(blocks.map(|b| b.with_activations(activations)).collect())
            }
            other => other,
        }
    }

    /// The matrix as one tensor.
    ///
    /// # Panics
    /// It is not [`Weight::Dense`]: only trained networks need this.
    pub fn as_tensor(&self) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.val(),
            Self::Sharded(_) | Self::Packed(_) | Self::Device(_) => {
                panic!("a trained matrix is one tensor")
            }
        }
    }

    /// `x W^T + b` for `x` `[.., in]` and `bias` `[out]`.
    ///
    /// # Panics
    /// The width of `x` is not `in`.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        let blocks = match self {
            Self::Dense(weight) => return linear(x, weight.val(), bias),
            Self::Sharded(blocks) => return linear_by_blocks(x, blocks, bias),
            Self::Packed(blocks) => return packed_linear(x, blocks, bias),
            Self::Device(blocks) => blocks,
        };
        let mut shape: [usize; D] = x.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        let x = x.reshape([rows, shape[D - 1]]);
        let y = matmul::linear(x, blocks, bias.map_or(Epilogue::None, Epilogue::Bias));
        shape[D - 1] = y.dims()[1];
        y.reshape(shape)
    }

    /// The matrix as kernels read it; `None` on the CPU, or where no kernel reads its width.
    pub fn device_blocks(&self) -> Option<Vec<DeviceMatrix>> {
        let blocks = match self {
            Self::Dense(weight) => {
                let weight = weight.val();
                vec![is_gpu(&weight.device()).then(|| DeviceMatrix::f32(weight))?]
            }
            Self::Sharded(_) | Self::Packed(_) => return None,
            Self::Device(blocks) => blocks.clone(),
        };
        blocks.iter().all(DeviceMatrix::fits).then_some(blocks)
    }

    /// Gathers the rows `ids`, `[R, in]`; at least one.
    ///
    /// # Panics
    /// An id is not below `out`.
    pub fn gather(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        match self {
            Self::Dense(weight) => select(weight.val(), ids),
            Self::Sharded(blocks) => select_from_blocks(blocks, ids),
            Self::Packed(blocks) => {
                let rows = ids.iter().flat_map(|&id| {
                    let (block, row) = locate(blocks, PackedMatrix::shape, id);
                    blocks[block].row(row as usize)
                });
                let rows: Vec<f32> = rows.collect();
                let width = rows.len() / ids.len();
                Tensor::from_data(TensorData::new(rows, [ids.len(), width]), device)
            }
            Self::Device(blocks) => matmul::gather(ids, blocks, device),
        }
    }
}

/// The id of the parameter called `full_name` (64-bit FNV-1a of the name).
pub fn parameter_id(full_name: &str) -> ParamId {
    let hash = full_name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    ParamId::from(hash)
}

/// `x W^T + b` for `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape: [usize; D] = x.dims();
    let [outputs, inputs] = weight.dims();
    assert_eq!(shape[D - 1], inputs, "linear: width of the input");
    let rows = shape[..D - 1].iter().product::<usize>();
    shape[D - 1] = outputs;
    let x = x.reshape([rows, inputs]);
    if is_gpu(&x.device()) {
        let [x, weight] = [x, weight].map(in_whole_vectors);
        let epilogue = bias.map_or(Epilogue::None, Epilogue::Bias);
        return matmul::linear(x, &[DeviceMatrix::f32(weight)], epilogue).reshape(shape);
    }
    let y = tensor_ops::matmul(x, weight.transpose());
    let y = match bias {
        Some(bias) => bias_activation(y, bias, Activation::Identity),
        None => y,
    };
    y.reshape(shape)
}

/// One product per block, side by side.
fn linear_by_blocks<const D: usize>(
    x: Tensor<D>,
    blocks: &[Tensor<2>],
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let product = |block: &Tensor<2>| linear(x.clone(), block.clone(), None);
    let y = Tensor::cat(blocks.iter().map(product).collect(), D - 1);
    match bias {
        Some(bias) => y + bias.unsqueeze::<D>(),
        None => y,
    }
}

fn select(weight: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let ids: Vec<i32> = ids.iter().map(|id| id.cast_signed()).collect();
    let count = ids.len();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &weight.device());
    weight.select(0, ids)
}

/// The block that holds row `id`, and the row within it.
///
/// # Panics
/// No block holds it.
fn locate<T>(blocks: &[T], shape: fn(&T) -> [usize; 2], mut id: u32) -> (usize, u32) {
    for (index, block) in blocks.iter().enumerate() {
        let rows = shape(block)[0] as u32;
        if id < rows {
            return (index, id);
        }
        id -= rows;
    }
    panic!("row {id} beyond the last block");
}

/// One select per run of ids in the same block.
fn select_from_blocks(blocks: &[Tensor<2>], ids: &[u32]) -> Tensor<2> {
    let place = |&id| locate(blocks, Tensor::dims, id);
    let located: Vec<(usize, u32)> = ids.iter().map(place).collect();
    let runs = located.chunk_by(|a, b| a.0 == b.0).map(|run| {
        let ids: Vec<u32> = run.iter().map(|(_, id)| *id).collect();
        select(blocks[run[0].0].clone(), &ids)
    });
    Tensor::cat(runs.collect(), 0)
}
