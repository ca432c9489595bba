//! Attention of every token to all tokens, without a matrix of scores on a graphics device.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Rows that a workgroup of `shaders/shared/flash.wgsl` makes.
pub(super) const ROWS: usize = 32;

/// Widths of a head that shaders are made for; others run in the next larger one.
pub const WIDTHS: [u32; 3] = [16, 32, 64];

macro_rules! shaders {
    ($name:literal) => {
        [
            shaders!($name, 1, 16),
            shaders!($name, 1, 32),
            shaders!($name, 2, 32),
        ]
    };
    ($name:literal, $chunks:literal, $depth:literal) => {
        Shader {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            constants: &[("CHUNKS", $chunks), ("DEPTH", $depth)],
            imports: &[],
        }
    };
}

pub(crate) use shaders;

/// `shaders/attention_encoder.wgsl` for [`WIDTHS`].
pub const SHADERS: [Shader; 3] = shaders!("attention_encoder");

/// Which of [`WIDTHS`] serves heads of `width`; none where it is larger, or not made of steps of
/// four channels.
pub fn variant(width: usize) -> Option<usize> {
    let fits = |served: &u32| width <= *served as usize && width.is_multiple_of(4) && width > 0;
    WIDTHS.iter().position(fits)
}

/// `softmax(q k^T / sqrt(D) + blocked) v` for each of `heads` heads, D channels wide.
///
/// `query`, `key` and `value` are `[B, T, heads * D]`; `blocked` `[T, T]` (row = query) is meant for
/// training and added where it is given. Returns `[B, T, heads * D]`. Heads that no shader serves
/// ([`variant`]) take tensor operations.
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    blocked: Option<Tensor<2>>,
) -> Tensor<3> {
    let shape = query.dims();
    assert_eq!(
        (key.dims(), value.dims()),
        (shape, shape),
        "attention: shapes of keys and values, and that of the queries"
    );
    let [batch, tokens, channels] = shape;
    assert!(
        heads > 0 && channels.is_multiple_of(heads),
        "attention: {channels} channels in {heads} heads"
    );
    let width = channels / heads;
    let shader = match variant(width) {
        Some(index) if is_gpu(&query.device()) && blocked.is_none() => &SHADERS[index],
        _ => return attention_reference(query, key, value, heads, blocked),
    };
    if batch * tokens == 0 {
        return query;
    }
    let [query, key, value] = [query, key, value].map(|x| to_buffer("attention_encoder", x));
    let out = alloc(
        "attention_encoder",
        &query.client,
        batch * tokens * channels,
    );
    launch(
        shader,
        &query.client,
        (batch * heads * tokens.div_ceil(ROWS)) as u64,
        &[&query.handle, &key.handle, &value.handle],
        &[&out],
        &[batch, tokens, heads, width / 4].map(|size| size as u32),
    );
    from_buffer(&query, out, shape)
}

/// [`attention`] in tensor operations.
pub fn attention_reference(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    blocked: Option<Tensor<2>>,
) -> Tensor<3> {
    let [batch, tokens, channels] = query.dims();
    let width = channels / heads;
    let split = |x: Tensor<3>| x.reshape([batch, tokens, heads, width]).swap_dims(1, 2);
    let query = split(query).mul_scalar((width as f32).sqrt().recip());
    let scores = query.matmul(split(key).swap_dims(2, 3)); // [B, heads, T, T]
    let scores = match blocked {
        None => scores,
        Some(blocked) => scores + blocked.unsqueeze(),
    };
    softmax(scores, 3)
        .matmul(split(value))
        .swap_dims(1, 2)
        .reshape([batch, tokens, channels])
}

/// Values lie in [-1, 1] and the results between them; scores are a few units large.
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on `device`, a graphics device, with the reference on the processor: every
/// width and some between, tokens around the tile and the workgroup, several pictures, more
/// workgroups than one dimension holds.
///
/// # Errors
/// The first difference, or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    for [batch, tokens, heads, width] in [
        [1, 1, 1, 4],
        [0, 3, 2, 16],
        [1, 15, 3, 64],
        [2, 16, 1, 64],
        [1, 17, 2, 48],
        [1, 31, 2, 20],
        [1, 31, 2, 6],
        [1, 37, 4, 16],
        [2, 63, 3, 16],
        [1, 64, 1, 32],
        [1, 65, 5, 32],
        [1, 577, 2, 64],
        [65_537, 1, 1, 4],
    ] {
        let name = format!("attention [{batch}, {tokens}, {heads}, {width}]");
        let mut dice = TestRng::default();
        let inputs = [0, 1, 2].map(|_| dice.data([batch, tokens, heads * width]));
        let mixed = |device: &Device| {
            let [query, key, value] = inputs
                .clone()
                .map(|data| Tensor::<3>::from_data(data, device));
            attention(query * 3.0, key, value, heads, None)
        };
        let expected = if batch == 0 {
            Vec::new()
        } else {
            read(&name, mixed(&Device::flex())).await?
        };
        let got = with_nan_fill(|| mixed(device));
        swept.compare(&name, got, &expected, TOLERANCE).await?;
    }
    Ok(swept)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn attention_kernels_agree_with_their_reference() {
        let Some(device) = adapter_for_test("attention_kernels_agree_with_their_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }

    #[test]
    fn the_smallest_shader_that_holds_a_head_is_taken() {
        let variants = [0, 4, 6, 16, 20, 32, 64, 68].map(variant);
        let [a, b, c] = [Some(0), Some(1), Some(2)];
        assert_eq!(variants, [None, a, None, a, b, b, c, None]);
    }
}
