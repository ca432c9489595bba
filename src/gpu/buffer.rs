//! Between tensors and kernels: buffers of a graphics device.

use std::cell::Cell;

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::Client;
use cubecl::server::Handle;

/// True where kernels run.
pub fn is_gpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// `x` as a row-major f32 buffer.
///
/// # Panics
/// `x` is not on a graphics device or holds another type; `kernel` is named.
pub fn to_buffer<const D: usize>(kernel: &str, x: Tensor<D>) -> CubeTensor {
    let x = x
        .try_into_primitive::<Cube>()
        .unwrap_or_else(|error| panic!("{kernel}: not on a graphics device: {error:?}"));
    let x = into_contiguous(x);
    assert_eq!(x.dtype, DType::F32, "{kernel}: type of an input");
    x
}

/// A tensor of `shape` over `out`, on the device of `like`.
pub fn from_buffer<const D: usize>(like: &CubeTensor, out: Handle, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        Shape::from(shape),
        out,
        DType::F32,
    ))
}

thread_local! {
    static NAN_FILL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with outputs that hold NaN before their kernel writes them, so that a value that is
/// never written shows.
pub fn with_nan_fill<R>(work: impl FnOnce() -> R) -> R {
    NAN_FILL.set(true);
    let result = work();
    NAN_FILL.set(false);
    result
}

/// A buffer for `elements` f32 or u32 values.
///
/// # Panics
/// The device cannot bind so many; `kernel` is named.
pub fn alloc(kernel: &str, client: &Client, elements: usize) -> Handle {
    let limit = client.properties().memory.max_page_size;
    let bytes = 4 * elements as u64;
    assert!(
        bytes <= limit && elements <= u32::MAX as usize,
        "{kernel}: {bytes} bytes of results, the device binds {limit}"
    );
    if NAN_FILL.get() {
        return client.create_from_slice(bytemuck::cast_slice(&vec![f32::NAN; elements]));
    }
    client.empty(bytes as usize)
}
