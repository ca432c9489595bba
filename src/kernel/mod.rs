//! The spots where stock tensor operations are not enough: one file per operation.
//!
//! An operation is a kernel for graphics devices, a hand-written loop for the processor, or both,
//! beside a reference in tensor operations that runs anywhere and says what is meant.
//!
//! # Add a kernel
//!
//! 1. `shaders/NAME.wgsl`, opened by its contract: what each buffer holds, with shapes. Inputs are
//!    `var<storage, $INPUT>`, sizes a uniform of `vec4<u32>`s bound last, and every binding is used.
//!    Pieces that several kernels share lie in `shaders/shared/` and are imported by name.
//! 2. `src/kernel/NAME.rs`: a [`launch::Shader`], the function that asserts shapes, types and limits
//!    and calls [`launch::launch`], the reference below it, and a sweep over shapes within
//!    [`graphics::poisoned`]. The sweep runs natively and in the browser test.
//! 3. One line in [`SHADERS`]: `tests/shaders.rs` then validates it on machines without a GPU.

pub mod copy;
pub mod deform_attention;
pub mod depthwise;
pub mod device;
pub mod gated_silu;
pub mod gelu;
pub mod graphics;
pub mod host;
pub mod launch;
pub mod layer_norm;
pub mod noise;
pub mod packed;
pub mod packed_attention;
mod processor;
pub mod rms_norm;
pub mod roi_pool;
pub mod upload;

/// Every WGSL file of this program.
pub const SHADERS: &[&launch::Shader] = &[
    &copy::SHADER,
    &noise::SHADER,
    &roi_pool::SHADER,
    &packed::GEMV[0],
    &packed::GEMV[1],
    &packed::MATMUL[0],
    &packed::MATMUL[1],
    &packed::ROWS[0],
    &packed::ROWS[1],
];
