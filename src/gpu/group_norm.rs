//! Group normalisation of a map with channels last: over groups of channels and all cells.

use burn::tensor::{Device, Tensor};

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Invocations per workgroup.
const GROUP: u32 = 256;

/// `shaders/group_norm.wgsl`.
pub const SHADER: Shader = Shader {
    name: "group_norm",
    text: include_str!("../../shaders/group_norm.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` for `x` `[B, S, C]` and `weight`, `bias`
/// `[C]`; mean and variance over the S cells and the C / `groups` neighbouring channels of a group.
///
/// # Panics
/// There is no cell, or the channels do not fill the groups.
pub fn group_norm(
    x: Tensor<3>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<3> {
    let [batch, cells, channels] = x.dims();
    assert!(cells > 0, "group norm: an empty map");
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "group norm: {channels} channels in {groups} groups"
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
    let out = alloc("group_norm", &x.client, batch * cells * channels);
    let [b, s, c, g] = [batch, cells, channels, groups].map(|size| size as u32);
    launch(
        &SHADER,
        &x.client,
        (batch * groups) as u64,
        &[&x.handle, &weight.handle, &bias.handle],
        &[&out],
        &[b, s, c, g, (eps as f32).to_bits(), 0, 0, 0],
    );
    from_buffer(&x, out, [batch, cells, channels])
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
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone().square());
    centred / variance.add_scalar(eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// Results have deviation 1; inputs lie up to 4 deviations from zero.
const TOLERANCE: f32 = 2e-5;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: groups
/// of one and of many channels, cells around the workgroup, several pictures.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for [batch, cells, channels, groups] in [
        [1, 1, 2, 1],
        [1, 7, 6, 3],
        [2, 31, 64, 32],
        [1, 255, 5, 5],
        [1, 256, 5, 1],
        [3, 257, 14, 2],
        [1, 1031, 64, 32],
        [65_537, 2, 2, 1],
    ] {
        let name = format!("group_norm [{batch}, {cells}, {channels}] in {groups} groups");
        let mut dice = TestRng::default();
        let inputs = [
            dice.data([batch, cells, channels]),
            dice.data([1, 1, channels]),
            dice.data([1, 1, channels]),
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
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(swept)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn group_norm_kernel_agrees_with_its_reference() {
        let Some(device) = adapter_for_test("group_norm_kernel_agrees_with_its_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernel and reference agree");
        println!("{swept:?}");
    }
}
