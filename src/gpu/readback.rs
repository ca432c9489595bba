//! Readback: copies tensor values from a device to host memory.

use burn::tensor::{Int, Tensor};

use crate::error::{Fault, FaultKind};
use crate::gpu::compile_errors::take_compile_error;

/// The values of `tensor`, row-major; none for an empty tensor. `what` names them in the error.
///
/// # Errors
/// The device fails, for example because it was lost, or did not compile a shader since the last call.
pub async fn read<const D: usize>(what: &str, tensor: Tensor<D>) -> Result<Vec<f32>, Fault> {
    if tensor.dims().contains(&0) {
        return Ok(Vec::new());
    }
    let data = tensor.into_data_async().await;
    without_compile_error().await?;
    data.map_err(|error| failed(what, &error))?
        .try_into_vec()
        .map_err(|error| failed(what, &error))
}

/// The values of an integer tensor, row-major, as unsigned 32-bit ids; none for an empty tensor.
/// `what` names them in the error.
///
/// # Errors
/// The device fails, for example because it was lost, or did not compile a shader since the last call.
pub async fn read_ids<const D: usize>(
    what: &str,
    tensor: Tensor<D, Int>,
) -> Result<Vec<u32>, Fault> {
    if tensor.dims().contains(&0) {
        return Ok(Vec::new());
    }
    let data = tensor.into_data_async().await;
    without_compile_error().await?;
    let ids = data
        .map_err(|error| failed(what, &error))?
        .try_into_vec_as::<i32>()
        .map_err(|error| failed(what, &error))?;
    Ok(ids.into_iter().map(i32::cast_unsigned).collect())
}

/// In a browser a shader that does not compile leaves its outputs as they were, and reading them succeeds.
async fn without_compile_error() -> Result<(), Fault> {
    take_compile_error().await.map_or(Ok(()), Err)
}

fn failed(what: &str, error: &impl std::fmt::Debug) -> Fault {
    Fault::new(
        FaultKind::Device,
        "GPU",
        format!("{what} could not be read back: {error:?}"),
        "Reload the model, or use another device",
    )
    .code_of(&format!("{error:?}"))
}
