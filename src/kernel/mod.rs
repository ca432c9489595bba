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
//!    and calls [`launch::launch`], the reference below it, and a sweep ([`sweep::Swept`]) over
//!    shapes within [`graphics::poisoned`]. The sweep runs natively and in the browser test.
//! 3. One line in [`SHADERS`]: `tests/shaders.rs` then validates it on machines without a GPU.

pub mod activation;
pub mod attention;
pub mod causal_attention;
pub mod choice;
pub mod copy;
pub mod deform_attention;
pub mod depthwise;
pub mod device;
pub mod fused;
pub mod gated_silu;
pub mod gelu;
pub mod graphics;
pub mod group_norm;
pub mod host;
pub mod launch;
pub mod layer_norm;
pub mod noise;
pub mod packed_attention;
mod processor;
pub mod recording;
pub mod rms_norm;
pub mod roi_align;
pub mod roi_pool;
pub mod sine_of_boxes;
pub mod sweep;
pub mod upload;
pub mod weight_rows;
pub mod window_attention;

/// Every WGSL file of this program, in its variants.
pub const SHADERS: &[&[launch::Shader]] = &[
    &[
        causal_attention::JOIN,
        choice::CANDIDATES,
        choice::CHOOSE,
        copy::SHADER,
        depthwise::SHADER,
        gated_silu::SHADER,
        group_norm::SHADER,
        layer_norm::SHADER,
        noise::SHADER,
        rms_norm::SHADER,
        roi_align::SHADER,
        roi_pool::SHADER,
        sine_of_boxes::SHADER,
    ],
    &activation::SHADERS,
    &attention::SHADERS,
    causal_attention::PREFILL.as_flattened(),
    &causal_attention::ROPE_WRITE,
    &causal_attention::STEP,
    &deform_attention::SHADERS,
    &fused::GEMV_GATED,
    &fused::GEMV_THREE,
    &weight_rows::GEMV,
    &weight_rows::MATMUL_DEEP,
    &weight_rows::MATMUL,
    &weight_rows::MATMUL_WIDE,
    &weight_rows::MATMUL_SHORT,
    &weight_rows::ROWS,
    &window_attention::SHADERS,
];

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::protocol::DevicePreference;

    /// Sums over subgroups are those over workgroups, whatever size the adapter's subgroups have.
    #[test]
    fn kernels_agree_with_subgroups_too() {
        let opened = pollster::block_on(device::open(DevicePreference::Wgpu));
        let Some(opened) = opened.ok().filter(device::Opened::has_subgroups) else {
            println!("kernels_agree_with_subgroups_too skipped: no device with subgroups");
            return;
        };
        launch::use_subgroups(true);
        let device = &opened.device;
        let swept = pollster::block_on(async {
            fused::sweep(device).await?;
            layer_norm::sweep(device).await?;
            group_norm::sweep(device).await?;
            causal_attention::sweep(device).await
        });
        launch::use_subgroups(!opened.software);
        swept.expect("kernels and reference agree");
    }
}
