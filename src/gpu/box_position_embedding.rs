//! The sine embedding of boxes, from which UPN's decoder makes the positions of its queries.

use burn::tensor::{Device, Int, Tensor};

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Invocations per workgroup.
const GROUP: u32 = 64;

/// `shaders/box_position_embedding.wgsl`.
pub const SHADER: Shader = Shader {
    name: "box_position_embedding",
    text: include_str!("../../shaders/box_position_embedding.wgsl"),
    constants: &[("GROUP", GROUP)],
    imports: &[],
};

/// Sine embedding of boxes: `[B, Q, 4]` of `cx, cy, w, h`, each times `2 pi`, to `[B, Q, 4 * C]` in
/// the order `cy, cx, w, h`; channel `k` of a side is the sine (even `k`) or the cosine (odd) of it
/// divided by `periods[k]` (the positional queries of DAB-DETR, arXiv 2201.12329, section 4).
pub fn box_position_embedding(boxes: Tensor<3>, periods: &[f32]) -> Tensor<3> {
    let [batch, queries, sides] = boxes.dims();
    assert_eq!(sides, 4, "sine_of_boxes: sides of a box");
    let channels = periods.len();
    let count = batch * queries * 4 * channels;
    if !is_gpu(&boxes.device()) || count == 0 {
        return sine_of_boxes_reference(boxes, periods);
    }
    let turns: Vec<f32> = periods.iter().map(|period| period.recip()).collect();
    let turns = Tensor::<1>::from_floats(turns.as_slice(), &boxes.device());
    let boxes = to_buffer("box_position_embedding", boxes);
    let turns = to_buffer("box_position_embedding", turns);
    let out = alloc("box_position_embedding", &boxes.client, count);
    launch(
        &SHADER,
        &boxes.client,
        (count as u64).div_ceil(u64::from(GROUP)),
        &[&boxes.handle, &turns.handle],
        &[&out],
        &[count as u32, channels as u32, 0, 0],
    );
    from_buffer(&boxes, out, [batch, queries, 4 * channels])
}

/// [`box_position_embedding`] in tensor operations.
pub fn sine_of_boxes_reference(boxes: Tensor<3>, periods: &[f32]) -> Tensor<3> {
    let [batch, queries, _] = boxes.dims();
    let device = boxes.device();
    let channels = periods.len();
    // To `reshape` a 0 means: as it is.
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

/// Angles of up to two turns in single precision.
const TOLERANCE: f32 = 3e-6;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: no box to
/// more than one dimension of workgroups, odd counts of channels, sides from -1 to 2.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for [batch, queries, channels] in [
        [1, 0, 4],
        [1, 1, 1],
        [2, 3, 7],
        [1, 1, 16],
        [1, 17, 128],
        [1, 16_385, 64],
    ] {
        let name = format!("sine_of_boxes [{batch}, {queries}, 4] to {channels} channels");
        let periods: Vec<f32> = (0..channels)
            .map(|k| 10_000_f32.powf((k / 2 * 2) as f32 / channels as f32))
            .collect();
        let mut dice = TestRng::default();
        let mut boxes = dice.data([batch, queries, 4]);
        for side in boxes.as_mut_slice::<f32>().expect("made as f32") {
            *side = 0.5 + 1.5 * *side;
        }
        let on = |device: &Device| Tensor::<3>::from_data(boxes.clone(), device);
        let expected = sine_of_boxes_reference(on(&Device::flex()), &periods);
        let expected = read(&name, expected).await?;
        let boxes = on(device);
        let got = with_nan_fill(|| box_position_embedding(boxes, &periods));
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(swept)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn sine_of_boxes_kernel_agrees_with_its_reference() {
        let Some(device) = adapter_for_test("sine_of_boxes_kernel_agrees_with_its_reference")
        else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernel and reference agree");
        println!("{swept:?}");
    }
}
