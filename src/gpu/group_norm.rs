//! Group normalization of a feature map with channels last (arXiv 1803.08494).

use burn::tensor::Tensor;

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::launch::{GroupLimit, MAX_GROUPS};
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};
#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 256;

uniforms! {
    /// Uniforms of `shaders/group_norm.wgsl`.
    struct GroupNormUniforms {
        /// Number of images.
        batch: u32,
        /// Positions per image.
        positions: u32,
        /// Channels per position.
        channels: u32,
        /// Groups of channels, all of one size.
        norm_groups: u32,
        /// Added to the variance.
        eps: f32,
    }
}

/// `shaders/group_norm.wgsl`.
pub const SHADER: Shader = Shader {
    name: "group_norm",
    text: include_str!("../../shaders/group_norm.wgsl"),
    uniforms: GroupNormUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for `x` `[B, S, C]` and `weight`, `bias`
/// `[C]`; mean and variance over the S positions and the C / `groups` neighboring channels of a group.
///
/// # Panics
/// S is 0, or `groups` does not divide C.
pub fn group_norm(
    x: Tensor<3>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<3> {
    let [batch, positions, channels] = x.dims();
    assert!(positions > 0, "group_norm: no positions");
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "group_norm: {channels} channels in {groups} groups"
    );
    if !is_gpu(&x.device()) || batch * channels == 0 {
        return group_norm_reference(x, weight, bias, groups, eps);
    }
    let [x, weight, bias] = [
        x,
        weight.reshape([1, 1, channels]),
        bias.reshape([1, 1, channels]),
    ]
    .map(|input| to_buffer("group_norm", input));
    let out = alloc("group_norm", &x.client, batch * positions * channels);
    launch(
        &SHADER,
        &x.client,
        (batch * groups) as u64,
        &[&x.handle, &weight.handle, &bias.handle],
        &[&out],
        &GroupNormUniforms {
            batch: batch as u32,
            positions: positions as u32,
            channels: channels as u32,
            norm_groups: groups as u32,
            eps: eps as f32,
        },
    );
    from_buffer(&x, out, [batch, positions, channels])
}

/// [`group_norm`] in tensor operations.
pub fn group_norm_reference(
    x: Tensor<3>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<3> {
    let [batch, _, channels] = x.dims();
    let per_group = channels / groups;
    let mean = |x: Tensor<3>| {
        x.mean_dim(1)
            .reshape([batch, groups, per_group])
            .mean_dim(2)
            .expand([batch, groups, per_group])
            .reshape([batch, 1, channels])
    };
    let centered = x.clone() - mean(x);
    let variance = mean(centered.clone().square());
    centered / variance.add_scalar(eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// The largest difference allowed. Results have standard deviation 1; means lie up to 4 deviations from 0.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 2e-5;

/// Compares the kernel on `device`, a GPU, with the reference on the CPU: groups of one and of many
/// channels, positions around the workgroup size, several images.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let shapes = [
        [1, 1, 2, 1],
        [1, 7, 6, 3],
        [2, 31, 64, 32],
        [1, 255, 5, 5],
        [1, 256, 5, 1],
        [3, 257, 14, 2],
        [1, 1031, 64, 32],
    ];
    let folded = (3, [7, 31, 6, 1]);
    for (limit, [batch, positions, channels, groups]) in
        shapes.map(|s| (MAX_GROUPS, s)).into_iter().chain([folded])
    {
        let _limit = GroupLimit::new(limit);
        let name = format!("group_norm [{batch}, {positions}, {channels}] in {groups} groups");
        let mut rng = TestRng::default();
        let inputs = [
            rng.data([batch, positions, channels]),
            rng.data([1, 1, channels]),
            rng.data([1, 1, channels]),
        ];
        let norm = |device: &Device| {
            let [x, weight, bias] = inputs
                .clone()
                .map(|data| Tensor::<3>::from_data(data, device));
            let flat = |x: Tensor<3>| x.reshape([channels]);
            group_norm(x + 2.0, flat(weight), flat(bias), groups, 1e-3)
        };
        let expected = read(&name, norm(&Device::flex())).await?;
        let got = with_nan_fill(|| norm(device));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}
