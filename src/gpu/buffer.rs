//! Conversions between tensors and GPU buffers.

#[cfg(feature = "diagnostics")]
use std::cell::Cell;

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{DType, Device, Int, Shape, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::Client;
use cubecl::server::Handle;

/// Whether `device` is a GPU, where kernels run.
pub fn is_gpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// `x` as a row-major f32 buffer.
///
/// # Panics
/// `x` is not on a GPU or not f32; `kernel` is named.
pub fn to_buffer<const D: usize>(kernel: &str, x: Tensor<D>) -> CubeTensor {
    let x = x
        .try_into_primitive::<Cube>()
        .unwrap_or_else(|error| panic!("{kernel}: not on a GPU: {error:?}"));
    let x = into_contiguous(x);
    assert_eq!(x.dtype, DType::F32, "{kernel}: dtype of an input");
    x
}

/// `x` as a contiguous buffer of 32-bit integers.
///
/// # Panics
/// `x` is not on a GPU; `kernel` is named.
pub fn int_to_buffer(kernel: &str, x: Tensor<1, Int>) -> CubeTensor {
    let x = x
        .try_into_primitive::<Cube>()
        .unwrap_or_else(|error| panic!("{kernel}: not on a GPU: {error:?}"));
    into_contiguous(x)
}

/// An f32 tensor of `shape` over the buffer `out`, on the device of `like`.
pub fn from_buffer<const D: usize>(like: &CubeTensor, out: Handle, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        Shape::from(shape),
        out,
        DType::F32,
    ))
}

#[cfg(feature = "diagnostics")]
thread_local! {
    static NAN_FILL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with outputs filled with NaN before a kernel writes them, so that a missing write shows.
#[cfg(feature = "diagnostics")]
pub fn with_nan_fill<R>(work: impl FnOnce() -> R) -> R {
    NAN_FILL.set(true);
    let result = work();
    NAN_FILL.set(false);
    result
}

/// A buffer for `elements` f32 or u32 values, uninitialized.
///
/// # Panics
/// The device cannot bind a buffer of that size; `kernel` is named.
pub fn alloc(kernel: &str, client: &Client, elements: usize) -> Handle {
    let limit = client.properties().memory.max_page_size;
    let bytes = 4 * elements as u64;
    assert!(
        bytes <= limit && elements <= u32::MAX as usize,
        "{kernel}: {bytes} bytes of outputs, the device binds {limit}"
    );
    #[cfg(feature = "diagnostics")]
    if NAN_FILL.get() {
        return client.create_from_slice(bytemuck::cast_slice(&vec![f32::NAN; elements]));
    }
    client.empty(bytes as usize)
}
