//! Readback: copies tensor values from a device to host memory.

use burn::tensor::{Int, Tensor};

use crate::error::{Fault, FaultKind};

/// The values of `tensor`, row-major; none for an empty tensor. `what` names them in the error.
///
/// # Errors
/// The device fails, for example because it was lost.
pub async fn read<const D: usize>(what: &str, tensor: Tensor<D>) -> Result<Vec<f32>, Fault> {
    if tensor.dims().contains(&0) {
        return Ok(Vec::new());
    }
    let data = tensor.into_data_async().await;
    data.map_err(|error| failed(what, &error))?
        .try_into_vec()
        .map_err(|error| failed(what, &error))
}

/// The values of an integer tensor, row-major, as unsigned 32-bit ids; none for an empty tensor.
/// `what` names them in the error.
///
/// # Errors
/// The device fails, for example because it was lost.
pub async fn read_ids<const D: usize>(
    what: &str,
    tensor: Tensor<D, Int>,
) -> Result<Vec<u32>, Fault> {
    if tensor.dims().contains(&0) {
        return Ok(Vec::new());
    }
    let data = tensor.into_data_async().await;
    let ids = data
        .map_err(|error| failed(what, &error))?
        .try_into_vec_as::<i32>()
        .map_err(|error| failed(what, &error))?;
    Ok(ids.into_iter().map(i32::cast_unsigned).collect())
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
