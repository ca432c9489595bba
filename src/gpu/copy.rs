//! Copies a buffer: the memory bandwidth that kernels which read weights are measured against.

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor};

use crate::gpu::buffer::{alloc, from_buffer, to_buffer, with_nan_fill};
use crate::gpu::launch::launch;
use crate::gpu::random_fill;
use crate::gpu::readback::read_ids;
use crate::gpu::shader::Shader;
use crate::gpu::testing::SweepReport;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/copy.wgsl`.
    struct CopyUniforms {
        /// Number of vectors of four values.
        vectors: u32,
    }
}

/// `shaders/copy.wgsl`.
pub const SHADER: Shader = Shader {
    name: "copy",
    text: include_str!("../../shaders/copy.wgsl"),
    uniforms: CopyUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// The number of 4-byte values in the largest buffer of a GPU; unlimited on the CPU.
pub fn max_elements(device: &Device) -> usize {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => {
            let limit = device.client().properties().memory.max_page_size;
            usize::try_from(limit / 4).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    }
}

/// A copy of `x`.
///
/// # Panics
/// The length of `x` is 0 or not a multiple of 4, or `x` is not on a GPU.
pub fn copy(x: Tensor<1>) -> Tensor<1> {
    let [count] = x.dims();
    assert!(count > 0 && count.is_multiple_of(4), "copy: {count} values");
    let x = to_buffer("copy", x);
    let out = alloc("copy", &x.client, count);
    let vectors = count / 4;
    launch(
        &SHADER,
        &x.client,
        vectors.div_ceil(WORKGROUP_SIZE as usize) as u64,
        &[&x.handle],
        &[&out],
        &CopyUniforms {
            vectors: vectors as u32,
        },
    );
    from_buffer(&x, out, [count])
}

/// Copies random values on `device`, a GPU, and compares.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let counts = [
        4,
        1020,
        1024,
        1028,
        4 * (65_536 * WORKGROUP_SIZE as usize + 3),
    ];
    for count in counts {
        let x = random_fill::uniform(count, 7, 0.0, 1.0, device);
        let wrong = with_nan_fill(|| copy(x.clone())).equal(x).bool_not();
        let wrong = read_ids("copy", wrong.int().sum()).await;
        let wrong: u32 = wrong.map_err(|fault| fault.to_string())?.iter().sum();
        if wrong != 0 {
            return Err(format!("copy: {wrong} of {count} values differ"));
        }
    }
    report.shapes = counts.len();
    Ok(report)
}
