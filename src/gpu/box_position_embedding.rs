//! Sine embedding of boxes, from which UPN's decoder makes its query positions.

use burn::tensor::{Int, Tensor};

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/box_position_embedding.wgsl`.
    struct BoxPositionEmbeddingUniforms {
        /// 4 * R * C.
        count: u32,
        /// C.
        channels: u32,
    }
}

/// `shaders/box_position_embedding.wgsl`.
pub const SHADER: Shader = Shader {
    name: "box_position_embedding",
    text: include_str!("../../shaders/box_position_embedding.wgsl"),
    uniforms: BoxPositionEmbeddingUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", WORKGROUP_SIZE)],
    imports: &[],
};

/// Sine embedding of boxes: `[B, Q, 4]` of `cx, cy, w, h`, each times `2 pi`, to `[B, Q, 4 * C]` in
/// the order `cy, cx, w, h`; channel `k` of a coordinate is the sine (even `k`) or the cosine (odd
/// `k`) of it divided by `periods[k]` (DAB-DETR, arXiv 2201.12329, section 4).
pub fn box_position_embedding(boxes: Tensor<3>, periods: &[f32]) -> Tensor<3> {
    let [batch, queries, coordinates] = boxes.dims();
    assert_eq!(
        coordinates, 4,
        "box_position_embedding: coordinates of a box"
    );
    let channels = periods.len();
    let count = batch * queries * 4 * channels;
    if !is_gpu(&boxes.device()) || count == 0 {
        return box_position_embedding_reference(boxes, periods);
    }
    let frequencies: Vec<f32> = periods.iter().map(|period| period.recip()).collect();
    let frequencies = Tensor::<1>::from_floats(frequencies.as_slice(), &boxes.device());
    let boxes = to_buffer("box_position_embedding", boxes);
    let frequencies = to_buffer("box_position_embedding", frequencies);
    let out = alloc("box_position_embedding", &boxes.client, count);
    launch(
        &SHADER,
        &boxes.client,
        (count as u64).div_ceil(u64::from(WORKGROUP_SIZE)),
        &[&boxes.handle, &frequencies.handle],
        &[&out],
        &BoxPositionEmbeddingUniforms {
            count: count as u32,
            channels: channels as u32,
        },
    );
    from_buffer(&boxes, out, [batch, queries, 4 * channels])
}

/// [`box_position_embedding`] in tensor operations.
pub fn box_position_embedding_reference(boxes: Tensor<3>, periods: &[f32]) -> Tensor<3> {
    let [batch, queries, _] = boxes.dims();
    let device = boxes.device();
    let channels = periods.len();
    // `reshape` takes a 0 as "keep this dimension".
    if batch * queries == 0 {
        return Tensor::zeros([batch, queries, 4 * channels], &device);
    }
    let row = |value: &dyn Fn(usize) -> f32| {
        let values: Vec<f32> = (0..channels).map(value).collect();
        Tensor::<1>::from_floats(values.as_slice(), &device).reshape([1, 1, channels])
    };
    let order = Tensor::<1, Int>::from_ints([1, 0, 2, 3], &device);
    let angles = boxes
        .select(2, order)
        .reshape([batch * queries, 4, 1])
        .mul(row(&|k| std::f32::consts::TAU / periods[k])); // [B * Q, 4, C]
    let even = row(&|k| if k % 2 == 0 { 1.0 } else { 0.0 });
    let odd = row(&|k| if k % 2 == 0 { 0.0 } else { 1.0 });
    (angles.clone().sin() * even + angles.cos() * odd).reshape([batch, queries, 4 * channels])
}

/// Angles of up to two turns in f32.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 3e-6;

/// Compares the kernel on a GPU with the reference on the CPU: from no box to more workgroups than
/// one dispatch dimension holds, odd numbers of channels, coordinates from -1 to 2.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for [batch, queries, channels] in [
        [1, 0, 4],
        [1, 1, 1],
        [2, 3, 7],
        [1, 1, 16],
        [1, 17, 128],
        [1, 16_385, 64],
    ] {
        let name = format!("box_position_embedding [{batch}, {queries}, 4] to {channels} channels");
        let periods: Vec<f32> = (0..channels)
            .map(|k| 10_000_f32.powf((k / 2 * 2) as f32 / channels as f32))
            .collect();
        let mut rng = TestRng::default();
        let mut boxes = rng.data([batch, queries, 4]);
        for value in boxes.as_mut_slice::<f32>().expect("f32 data") {
            *value = 0.5 + 1.5 * *value;
        }
        let on = |device: &Device| Tensor::<3>::from_data(boxes.clone(), device);
        let expected = box_position_embedding_reference(on(&Device::flex()), &periods);
        let expected = read(&name, expected).await?;
        let boxes = on(device);
        let got = with_nan_fill(|| box_position_embedding(boxes, &periods));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(report)
}
