//! A weight matrix in whatever form it is stored: one tensor, blocks of rows, or packed.
//!
//! Networks multiply with it and take rows of it; the form is invisible to them.

use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::gpu::buffer::is_gpu;
use crate::gpu::matmul::{self, DeviceMatrix, Epilogue};
use crate::nn::linear::linear;

/// How a matrix `[out, in]` lies on a device.
#[derive(Clone, Debug)]
pub enum WeightForm {
    /// One tensor.
    Whole(Box<Tensor<2>>),
    /// Neighbouring rows together.
    Blocks(Blocks),
}

/// A matrix in blocks of neighbouring rows.
#[derive(Clone, Debug)]
pub enum Blocks {
    /// As numbers.
    Rows(Vec<Tensor<2>>),
    /// In a few bits per weight, on a graphics device.
    Packed(Vec<DeviceMatrix>),
}

/// A matrix `[out, in]`; trainable where it is one tensor.
#[derive(Module, Debug)]
pub struct Matrix {
    whole: Option<Param<Tensor<2>>>,
    #[module(skip)]
    blocks: Option<Arc<Blocks>>,
}

impl Matrix {
    /// A matrix with the identity `id`.
    pub fn new(form: WeightForm, id: ParamId) -> Self {
        match form {
            WeightForm::Whole(tensor) => Self {
                whole: Some(Param::initialized(id, *tensor).set_require_grad(true)),
                blocks: None,
            },
            WeightForm::Blocks(blocks) => Self {
                whole: None,
                blocks: Some(Arc::new(blocks)),
            },
        }
    }

    /// The matrix as one tensor.
    ///
    /// # Panics
    /// It is stored otherwise: only networks that are trained ask for it.
    pub fn whole(&self) -> Tensor<2> {
        self.whole
            .as_ref()
            .expect("a trained matrix is one tensor")
            .val()
    }

    /// `x W^T + b` for `x` `[.., in]` and `bias` `[out]`.
    ///
    /// # Panics
    /// The width of `x` is another.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        let Some(blocks) = &self.blocks else {
            return linear(x, self.whole(), bias);
        };
        let mut shape: [usize; D] = x.dims();
        let inputs = shape[D - 1];
        let rows = shape[..D - 1].iter().product::<usize>();
        let x = x.reshape([rows, inputs]);
        let y = match &**blocks {
            Blocks::Packed(blocks) => {
                let added = bias.map_or(Epilogue::None, Epilogue::Bias);
                matmul::linear(x, blocks, added)
            }
            Blocks::Rows(blocks) => {
                let part = |block: &Tensor<2>| linear(x.clone(), block.clone(), None);
                let y = Tensor::cat(blocks.iter().map(part).collect(), 1);
                match bias {
                    Some(bias) => y + bias.unsqueeze::<2>(),
                    None => y,
                }
            }
        };
        shape[D - 1] = y.dims()[1];
        y.reshape(shape)
    }

    /// The matrix as kernels of a graphics device read it; `None` on the processor, or where its rows
    /// are no whole number of vectors.
    pub fn on_gpu(&self) -> Option<Vec<DeviceMatrix>> {
        let single =
            |tensor: Tensor<2>| is_gpu(&tensor.device()).then(|| DeviceMatrix::single(tensor));
        let blocks = match (&self.whole, self.blocks.as_deref()) {
            (_, Some(Blocks::Packed(blocks))) => blocks.clone(),
            (_, Some(Blocks::Rows(blocks))) => {
                blocks.iter().cloned().map(single).collect::<Option<_>>()?
            }
            (Some(whole), None) => vec![single(whole.val())?],
            (None, None) => return None,
        };
        blocks.iter().all(DeviceMatrix::fits).then_some(blocks)
    }

    /// The rows `ids`, `[R, in]`; at least one.
    ///
    /// # Panics
    /// An id is not below `out`.
    pub fn rows(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        match self.blocks.as_deref() {
            None => select(self.whole(), ids),
            Some(Blocks::Packed(blocks)) => matmul::gather(ids, blocks, device),
            Some(Blocks::Rows(blocks)) => select_from_blocks(blocks, ids),
        }
    }
}

fn select(weight: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let ids: Vec<i32> = ids.iter().map(|id| id.cast_signed()).collect();
    let count = ids.len();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &weight.device());
    weight.select(0, ids)
}

/// Ids of one block that follow each other are selected together.
fn select_from_blocks(blocks: &[Tensor<2>], ids: &[u32]) -> Tensor<2> {
    let place = |mut id: u32| {
        for (index, block) in blocks.iter().enumerate() {
            let rows = block.dims()[0] as u32;
            if id < rows {
                return (index, id);
            }
            id -= rows;
        }
        panic!("row {id} beyond the last block");
    };
    let places: Vec<(usize, u32)> = ids.iter().map(|&id| place(id)).collect();
    let runs = places.chunk_by(|a, b| a.0 == b.0).map(|run| {
        let ids: Vec<u32> = run.iter().map(|(_, id)| *id).collect();
        select(blocks[run[0].0].clone(), &ids)
    });
    Tensor::cat(runs.collect(), 0)
}
