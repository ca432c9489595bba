//! Convolution of channels-first feature maps.
//!
//! On a GPU the kernel `conv2d`, on the CPU burn's operation. burn's convolution on a GPU would bring its matrix
//! products into the page, a third of the engine's bytes.

use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

use crate::cpu::conv2d::Geometry;
use crate::cpu::tensor_ops;
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/conv2d.wgsl`.
    struct Conv2dUniforms {
        /// B.
        batch: u32,
        /// C.
        channels: u32,
        /// H.
        height: u32,
        /// W.
        width: u32,
        /// O.
        outputs: u32,
        /// H'.
        out_height: u32,
        /// W'.
        out_width: u32,
        /// K.
        kernel_size: u32,
        /// S.
        stride: u32,
        /// P.
        padding: u32,
        /// G.
        groups: u32,
    }
}

/// `shaders/conv2d.wgsl`.
pub const SHADER: Shader = Shader {
    name: "conv2d",
    text: include_str!("../../shaders/conv2d.wgsl"),
    uniforms: Conv2dUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// Convolves `x` `[B, C, H, W]` with `weight` `[O, C / groups, k, k]` and adds `bias` `[O]`: `[B, O, H', W']`.
///
/// # Panics
/// The channels do not match, the kernel is not square, or a stride is 0.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    geometry: Geometry,
) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let [outputs, per_group, kernel, columns] = weight.dims();
    let Geometry {
        stride,
        padding,
        groups,
    } = geometry;
    assert!(
        kernel == columns && stride > 0,
        "conv2d: kernel {kernel} x {columns}, stride {stride}"
    );
    assert!(
        channels == per_group * groups && outputs.is_multiple_of(groups),
        "conv2d: {channels} channels to {outputs} with {per_group} in each of {groups} groups"
    );
    let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &x.device().inner()));
    assert_eq!(bias.dims(), [outputs], "conv2d: outputs of bias and weight");
    if !is_gpu(&x.device()) {
        let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], groups);
        return tensor_ops::conv2d(x, weight, bias, options);
    }
    let [out_height, out_width] = [height, width].map(|extent| geometry.outputs(extent, kernel));
    let shape = [batch, outputs, out_height, out_width];
    let count: usize = shape.iter().product();
    if count == 0 || channels == 0 || kernel == 0 {
        let zeros = Tensor::zeros(shape, &x.device());
        return zeros + bias.reshape([1, outputs, 1, 1]);
    }
    let x = to_buffer("conv2d", x);
    let weight = to_buffer("conv2d", weight);
    let bias = to_buffer("conv2d", bias);
    let out = alloc("conv2d", &x.client, count);
    launch(
        &SHADER,
        &x.client,
        (count as u64).div_ceil(u64::from(WORKGROUP_SIZE)),
        &[&x.handle, &weight.handle, &bias.handle],
        &[&out],
        &Conv2dUniforms {
            batch: batch as u32,
            channels: channels as u32,
            height: height as u32,
            width: width as u32,
            outputs: outputs as u32,
            out_height: out_height as u32,
            out_width: out_width as u32,
            kernel_size: kernel as u32,
            stride: stride as u32,
            padding: padding as u32,
            groups: groups as u32,
        },
    );
    from_buffer(&x, out, shape)
}

/// Sums of at most 225 products of values in [-1, 1].
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 2e-5;

/// Compares the kernel on a GPU with burn's convolution on the CPU: strides, paddings wider than the map, groups,
/// kernels of even size, several images, more workgroups than one dispatch dimension holds.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for ([batch, channels, height, width], [outputs, kernel], [stride, padding, groups]) in [
        ([1, 1, 1, 1], [1, 1], [1, 0, 1]),
        ([1, 3, 13, 22], [24, 3], [2, 1, 1]),
        ([2, 3, 9, 8], [5, 3], [1, 1, 1]),
        ([1, 24, 11, 7], [24, 5], [2, 2, 24]),
        ([3, 8, 6, 5], [12, 3], [1, 1, 4]),
        ([1, 9, 7, 7], [2, 5], [1, 2, 1]),
        ([1, 2, 3, 2], [3, 3], [2, 4, 1]),
        ([1, 4, 9, 10], [4, 2], [3, 0, 2]),
        ([1, 1, 2049, 2049], [1, 1], [1, 0, 1]),
    ] {
        let geometry = Geometry {
            stride,
            padding,
            groups,
        };
        let name = format!(
            "conv2d [{batch}, {channels}, {height}, {width}] to {outputs}, kernel size {kernel}, {geometry:?}"
        );
        let mut rng = TestRng::default();
        let x = rng.data([batch, channels, height, width]);
        let weight = rng.data([outputs, channels / groups, kernel, kernel]);
        let bias = rng.data([outputs]);
        let on = |device: &Device| {
            let [x, weight] = [&x, &weight].map(|data| Tensor::from_data(data.clone(), device));
            let bias = Tensor::from_data(bias.clone(), device);
            conv2d(x, weight, Some(bias), geometry)
        };
        let expected = read(&name, on(&Device::flex())).await?;
        let got = with_nan_fill(|| on(device));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}
