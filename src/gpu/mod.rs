//! GPU kernels: one file per operation.
//!
//! An operation is a WGSL kernel, a hand-written CPU loop ([`cpu`](crate::cpu)) or both, beside a
//! reference in tensor operations that runs on any device and defines the result.
//!
//! # Add a kernel
//!
//! 1. `shaders/NAME.wgsl`. Its header is the contract: the shape and meaning of each buffer, and what
//!    the kernel costs. Inputs are `var<storage, read>`, the last binding is
//!    `var<uniform> u: Uniforms`. Shared WGSL is in `shaders/shared/`, see [`shader`].
//! 2. `src/gpu/NAME.rs`: the uniforms ([`uniforms`]), a [`shader::Shader`], a function that asserts
//!    shapes, types and limits and calls [`launch::launch`], the reference, and a sweep
//!    ([`testing::SweepReport`]) over awkward shapes with [`buffer::with_nan_fill`].
//! 3. One entry in [`KERNELS`]: the native test, the browser test and `tests/shaders.rs` iterate it.
//!    `CHATREX_KERNEL=NAME cargo test --lib every_kernel_agrees` sweeps one kernel.

#[cfg(feature = "diagnostics")]
use std::pin::Pin;

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

pub mod activation;
pub mod attention;
pub mod box_position_embedding;
pub mod buffer;
pub mod compile_errors;
pub mod conv2d;
#[cfg(feature = "diagnostics")]
pub mod copy;
pub mod deform_attention;
pub mod depthwise;
pub mod device;
pub mod graph;
pub mod group_norm;
pub mod launch;
pub mod layer_norm;
pub mod matmul;
#[cfg(feature = "diagnostics")]
pub mod random_fill;
pub mod readback;
pub mod rms_norm;
#[cfg(feature = "diagnostics")]
pub mod roi_align;
pub mod roi_pool;
pub mod sampling;
pub mod shader;
pub mod swiglu;
#[cfg(feature = "diagnostics")]
pub mod testing;
pub mod uniforms;
pub mod upload;

/// A kernel: its shaders in every variant, and the sweep that compares it with its reference.
#[cfg(feature = "diagnostics")]
pub struct Kernel {
    /// The name under which results are reported.
    pub name: &'static str,
    /// Every variant of its WGSL files.
    pub shaders: &'static [&'static [shader::Shader]],
    /// Compares the kernel with its reference over awkward shapes.
    pub sweep: fn(&Device) -> Sweep<'_>,
}

/// The result of a sweep: a report, or the first difference.
#[cfg(feature = "diagnostics")]
pub type Sweep<'a> = Pin<Box<dyn Future<Output = Result<testing::SweepReport, String>> + 'a>>;

/// Entries of [`KERNELS`]: `name, module, [shaders]`.
#[cfg(feature = "diagnostics")]
macro_rules! kernels {
    ($(($name:literal, $($module:ident)::+, [$($shaders:expr),* $(,)?])),* $(,)?) => {
        &[$(Kernel {
            name: $name,
            shaders: &[$($shaders),*],
            sweep: |device| Box::pin($($module)::+::sweep(device)),
        }),*]
    };
}

/// Every kernel. The native sweep, the browser's sweep and the validation of shaders iterate this list.
#[cfg(feature = "diagnostics")]
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
        "attention_prefill",
        attention::prefill,
        [attention::prefill::PREFILL.as_flattened()]
    ),
    (
        "attention_decode",
        attention::decode,
        [&attention::decode::DECODE, &[attention::decode::COMBINE]]
    ),
    (
        "box_position_embedding",
        box_position_embedding,
        [&[box_position_embedding::SHADER]]
    ),
    ("conv2d", conv2d, [&[conv2d::SHADER]]),
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
            matmul::GEMV.as_flattened(),
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
        [
            matmul::fused::GEMV_SWIGLU.as_flattened(),
            matmul::fused::GEMV_QKV.as_flattened()
        ]
    ),
    ("random_fill", random_fill, [&[random_fill::SHADER]]),
    ("rms_norm", rms_norm, [&[rms_norm::SHADER]]),
    ("roi_align", roi_align, [&[roi_align::SHADER]]),
    ("roi_pool", roi_pool, [&[roi_pool::SHADER]]),
    (
        "rope_kv_append",
        attention::rope,
        [&attention::rope::ROPE_KV_APPEND]
    ),
    ("sampling", sampling, [&[sampling::TOP_K, sampling::SAMPLE]]),
    ("swiglu", swiglu, [&[swiglu::SHADER]]),
];

/// Every WGSL shader of [`KERNELS`], in its variants.
#[cfg(feature = "diagnostics")]
pub fn shaders() -> impl Iterator<Item = &'static shader::Shader> {
    KERNELS
        .iter()
        .flat_map(|kernel| kernel.shaders.iter().copied().flatten())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;

    /// Numbers of results that sweeps compared when they were written.
    const SHAPES: [(&str, usize); 3] = [("rms_norm", 7), ("sampling", 48), ("swiglu", 7)];

    /// All kernels, or the one that `CHATREX_KERNEL` names.
    #[test]
    fn every_kernel_agrees_with_its_reference() {
        let Some(device) = device::adapter_for_test("every_kernel_agrees_with_its_reference")
        else {
            return;
        };
        let only = std::env::var("CHATREX_KERNEL").ok();
        let selected = |kernel: &&Kernel| only.as_deref().is_none_or(|only| kernel.name == only);
        let kernels: Vec<_> = KERNELS.iter().filter(selected).collect();
        assert!(!kernels.is_empty(), "no kernel {only:?}");
        for Kernel { name, sweep, .. } in kernels {
            let report = pollster::block_on(sweep(&device))
                .unwrap_or_else(|difference| panic!("{name}: {difference}"));
            println!("{name}: {report:?}");
            assert!(report.shapes > 0, "{name}: nothing was compared");
            if let Some((_, shapes)) = SHAPES.iter().find(|(kernel, _)| kernel == name) {
                assert_eq!(report.shapes, *shapes, "{name}");
            }
        }
    }

    #[test]
    fn kernels_with_subgroups_agree_too() {
        let test = "kernels_with_subgroups_agree_too";
        if device::adapter_for_test(test).is_none() {
            return;
        }
        let opened = pollster::block_on(device::open(DevicePreference::Wgpu));
        let Some(opened) = opened.ok().filter(device::Opened::has_subgroups) else {
            println!("{test} skipped: no device with subgroups");
            return;
        };
        let with_subgroups = |kernel: &&Kernel| {
            let mut shaders = kernel.shaders.iter().copied().flatten();
            shaders.any(shader::Shader::has_subgroup_form)
        };
        let kernels: Vec<_> = KERNELS.iter().filter(with_subgroups).collect();
        assert!(!kernels.is_empty());
        shader::use_subgroups(true);
        let swept = kernels.iter().try_for_each(|kernel| {
            let swept = pollster::block_on((kernel.sweep)(&opened.device));
            swept
                .map(|_| ())
                .map_err(|difference| format!("{}: {difference}", kernel.name))
        });
        shader::use_subgroups(!opened.software);
        swept.expect("kernels and references agree");
    }
}
