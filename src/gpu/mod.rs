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
//!    and calls [`launch::launch`], the reference below it, and a sweep ([`sweep::SweepReport`]) over
//!    shapes within [`graphics::poisoned`]. The sweep runs natively and in the browser test.
//! 3. One line in [`SHADERS`]: `tests/shaders.rs` then validates it on machines without a GPU.

use std::pin::Pin;

use burn::tensor::Device;

pub mod activation;
pub mod attention;
pub mod box_position_embedding;
pub mod buffer;
pub mod compile_errors;
pub mod copy;
pub mod deform_attention;
pub mod depthwise;
pub mod device;
pub mod graph;
pub mod group_norm;
pub mod launch;
pub mod layer_norm;
pub mod matmul;
pub mod random_fill;
pub mod readback;
pub mod rms_norm;
pub mod roi_align;
pub mod roi_pool;
pub mod sampling;
pub mod swiglu;
pub mod testing;
pub mod upload;

/// A kernel family: its shaders in every variant, and the sweep that compares it with its reference.
pub struct Kernel {
    /// The name under which results are reported.
    pub name: &'static str,
    /// Every variant of its WGSL files.
    pub shaders: &'static [&'static [launch::Shader]],
    /// Compares the kernel with its reference over awkward shapes.
    pub sweep: fn(&Device) -> Sweep<'_>,
}

/// The result of a sweep: a report, or the first difference.
pub type Sweep<'a> = Pin<Box<dyn Future<Output = Result<testing::SweepReport, String>> + 'a>>;

/// Entries of [`KERNELS`]: `name, module, [shaders]`.
macro_rules! kernels {
    ($(($name:literal, $($module:ident)::+, [$($shaders:expr),* $(,)?])),* $(,)?) => {
        &[$(Kernel {
            name: $name,
            shaders: &[$($shaders),*],
            sweep: |device| Box::pin($($module)::+::sweep(device)),
        }),*]
    };
}

/// Every kernel of this program. The native sweep, the browser's sweep and the validation of the
/// shaders iterate this list.
pub const KERNELS: &[Kernel] = kernels![
    ("activation", activation, [&activation::SHADERS]),
    (
        "attention_encoder",
        attention::encoder,
        [&attention::encoder::SHADERS]
    ),
    (
        "attention_window",
        attention::window,
        [&attention::window::SHADERS]
    ),
    (
        "attention_decoder",
        attention::decoder,
        [
            attention::decoder::PREFILL.as_flattened(),
            &attention::decoder::ROPE_KV_APPEND,
            &attention::decoder::DECODE,
            &[attention::decoder::COMBINE],
        ]
    ),
    (
        "box_position_embedding",
        box_position_embedding,
        [&[box_position_embedding::SHADER]]
    ),
    ("copy", copy, [&[copy::SHADER]]),
    (
        "deform_attention",
        deform_attention,
        [&deform_attention::SHADERS]
    ),
    ("depthwise", depthwise, [&[depthwise::SHADER]]),
    ("group_norm", group_norm, [&[group_norm::SHADER]]),
    ("layer_norm", layer_norm, [&[layer_norm::SHADER]]),
    (
        "matmul",
        matmul,
        [
            &matmul::GEMV,
            &matmul::MATMUL_SPLIT_K,
            &matmul::MATMUL,
            &matmul::MATMUL_TILE64X128,
            &matmul::MATMUL_SKINNY,
            &matmul::GATHER_ROWS,
        ]
    ),
    (
        "matmul_fused",
        matmul::fused,
        [&matmul::fused::GEMV_SWIGLU, &matmul::fused::GEMV_QKV]
    ),
    ("random_fill", random_fill, [&[random_fill::SHADER]]),
    ("rms_norm", rms_norm, [&[rms_norm::SHADER]]),
    ("roi_align", roi_align, [&[roi_align::SHADER]]),
    ("roi_pool", roi_pool, [&[roi_pool::SHADER]]),
    ("sampling", sampling, [&[sampling::TOP_K, sampling::SAMPLE]]),
    ("swiglu", swiglu, [&[swiglu::SHADER]]),
];

/// Every WGSL shader of [`KERNELS`], in its variants.
pub fn shaders() -> impl Iterator<Item = &'static launch::Shader> {
    KERNELS
        .iter()
        .flat_map(|kernel| kernel.shaders.iter().copied().flatten())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;

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
            matmul::fused::sweep(device).await?;
            layer_norm::sweep(device).await?;
            group_norm::sweep(device).await?;
            attention::decoder::sweep(device).await
        });
        launch::use_subgroups(!opened.software);
        swept.expect("kernels and reference agree");
    }
}
