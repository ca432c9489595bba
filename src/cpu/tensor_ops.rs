//! Matrix products, convolutions and pooling of burn, for tensors in CPU memory and for training.
//!
//! Called through burn's tensors, these operations are compiled for every device. On a GPU the engine has its own
//! kernels, and burn's would be a third of its bytes in the page.

use burn::backend::tensor::FloatTensor;
#[cfg(feature = "native")]
use burn::backend::{Autodiff, Cube, autodiff::checkpoint::strategy::CheckpointStrategy};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions};

/// The product of the matrices in the last two dimensions of `a` and `b`, as `Tensor::matmul`.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::tensor_matmul(
        a.into_dispatch(),
        b.into_dispatch(),
    ))
}

/// A convolution, as [`burn::tensor::module::conv2d`].
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::tensor_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        options,
    ))
}

/// The largest of each `kernel` x `kernel` cells, as [`burn::tensor::module::max_pool2d`].
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(Dispatch::tensor_max_pool2d(x, kernel, stride, padding))
}

/// The mean of each 2 x 2 cells.
pub fn avg_pool_2x2(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::tensor_avg_pool_2x2(x.into_dispatch()))
}

/// Bilinear interpolation to twice the size, cell centers at half-integers.
pub fn upsample_2x(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::tensor_upsample_2x(x.into_dispatch()))
}

/// The operations of the CPU and of training.
#[backend_extension(Flex, Cube: cfg(feature = "native"), Autodiff: cfg(feature = "native"))]
pub trait TensorOps: Backend {
    /// See [`matmul`].
    fn tensor_matmul(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(a, b)
    }

    /// See [`conv2d`].
    fn tensor_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, Some(bias), options)
    }

    /// See [`max_pool2d`].
    fn tensor_max_pool2d(
        x: FloatTensor<Self>,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        let [kernel, stride, padding] = [kernel, stride, padding].map(|extent| [extent; 2]);
        Self::max_pool2d(x, kernel, stride, padding, [1, 1], false)
    }

    /// See [`avg_pool_2x2`].
    fn tensor_avg_pool_2x2(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::avg_pool2d(x, [2, 2], [2, 2], [0, 0], true, false)
    }

    /// See [`upsample_2x`].
    fn tensor_upsample_2x(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = x.shape();
        let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_align_corners(false);
        Self::interpolate(x, [2 * shape[2], 2 * shape[3]], options)
    }
}

impl TensorOps for Flex {}

#[cfg(feature = "native")]
impl TensorOps for Cube {}

#[cfg(feature = "native")]
impl<B: Backend, C: CheckpointStrategy> TensorOps for Autodiff<B, C> where Self: Backend {}
