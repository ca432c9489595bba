//! Attention without a causal mask, for vision encoders: every token attends to all tokens of its
//! image, by online softmax.

use burn::tensor::Tensor;

use crate::cpu::softmax::scaled_softmax;
use crate::gpu::attention::row_tiles;
use crate::gpu::buffer::{alloc, from_buffer, is_gpu, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::matmul::batched_matmul;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::uniforms;

#[cfg(feature = "diagnostics")]
use burn::tensor::{Device, TensorData};

#[cfg(feature = "diagnostics")]
use crate::gpu::attention::testing::{Poison, compare_values};
#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::launch::{GroupLimit, MAX_GROUPS};
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, TestRng, read};

/// Head dimensions of the shader variants; a head runs in the smallest variant that holds it.
pub const HEAD_DIMS: [u32; 3] = [16, 32, 64];

/// `shaders/NAME.wgsl` for [`HEAD_DIMS`]: its uniforms, and the chunks of channels of each variant.
macro_rules! for_head_dims {
    ($name:literal, $uniforms:ty) => {
        [
            for_head_dims!($name, $uniforms, 1, 16),
            for_head_dims!($name, $uniforms, 1, 32),
            for_head_dims!($name, $uniforms, 2, 32),
        ]
    };
    ($name:literal, $uniforms:ty, $chunks:literal, $depth:literal) => {
        $crate::gpu::shader::Shader {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            uniforms: <$uniforms as $crate::gpu::uniforms::Uniforms>::LAYOUT,
            constants: &[
                ("CHUNKS", $chunks),
                ("DEPTH", $depth),
                ("TILE_ROWS", $crate::gpu::attention::TILE_ROWS),
                ("TILE_KEYS", $crate::gpu::attention::TILE_KEYS),
            ],
            imports: &[],
        }
    };
}

pub(super) use for_head_dims;

uniforms! {
    /// Uniforms of `shaders/attention_encoder.wgsl`.
    struct AttentionEncoderUniforms {
        /// B.
        batch: u32,
        /// T.
        tokens: u32,
        /// H.
        heads: u32,
        /// D.
        head_dim: u32,
    }
}

/// `shaders/attention_encoder.wgsl` for [`HEAD_DIMS`].
pub const SHADERS: [Shader; 3] = for_head_dims!("attention_encoder", AttentionEncoderUniforms);

/// The index of the smallest of [`HEAD_DIMS`] that holds `head_dim`; none where it is too large or
/// not a multiple of four.
pub(super) fn variant(head_dim: usize) -> Option<usize> {
    let fits =
        |largest: &u32| head_dim <= *largest as usize && head_dim.is_multiple_of(4) && head_dim > 0;
    HEAD_DIMS.iter().position(fits)
}

/// `softmax(q k^T / sqrt(D) + mask) v` for each of `heads` heads of D channels.
///
/// `query`, `key` and `value` are `[B, T, heads * D]`; `mask` `[T, T]` (row = query) is added to
/// the scores and used in training only. Returns `[B, T, heads * D]`. Tensor operations compute it
/// where there is a mask or no shader variant for D.
pub fn attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    mask: Option<Tensor<2>>,
) -> Tensor<3> {
    let shape = query.dims();
    assert_eq!(
        (key.dims(), value.dims()),
        (shape, shape),
        "attention: shapes of keys and values, and shape of queries"
    );
    let [batch, tokens, channels] = shape;
    assert!(
        heads > 0 && channels.is_multiple_of(heads),
        "attention: {channels} channels in {heads} heads"
    );
    let head_dim = channels / heads;
    let shader = match variant(head_dim) {
        Some(index) if is_gpu(&query.device()) && mask.is_none() => &SHADERS[index],
        _ => return attention_reference(query, key, value, heads, mask),
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
        (batch * heads * row_tiles(tokens)) as u64,
        &[&query.handle, &key.handle, &value.handle],
        &[&out],
        &AttentionEncoderUniforms {
            batch: batch as u32,
            tokens: tokens as u32,
            heads: heads as u32,
            head_dim: head_dim as u32,
        },
    );
    from_buffer(&query, out, shape)
}

/// [`attention`] in tensor operations.
pub fn attention_reference(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    mask: Option<Tensor<2>>,
) -> Tensor<3> {
    let [batch, tokens, channels] = query.dims();
    let head_dim = channels / heads;
    let split = |x: Tensor<3>| x.reshape([batch, tokens, heads, head_dim]).swap_dims(1, 2);
    let scale = (head_dim as f32).sqrt().recip();
    let scores = batched_matmul(split(query), split(key).swap_dims(2, 3)); // [B, heads, T, T]
    let shares = match mask {
        None => scaled_softmax(scores, scale),
        Some(mask) => scaled_softmax(scores.mul_scalar(scale) + mask.unsqueeze(), 1.0),
    };
    batched_matmul(shares, split(value))
        .swap_dims(1, 2)
        .reshape([batch, tokens, channels])
}

/// Values and results are in [-1, 1]; scores are a few units.
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-5;

/// Compares the kernel on a GPU with [`attention_reference`] on the CPU: every variant and head
/// dimensions between them, tokens around the tile and the workgroup, several images, more
/// workgroups than one dispatch dimension holds; and poisoned inputs.
///
/// # Errors
/// The first difference, or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    let shapes = [
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
    ];
    let folded = (3, [7, 37, 1, 4]);
    for (limit, [batch, tokens, heads, head_dim]) in
        shapes.map(|s| (MAX_GROUPS, s)).into_iter().chain([folded])
    {
        let _limit = GroupLimit::new(limit);
        let name = format!("attention [{batch}, {tokens}, {heads}, {head_dim}]");
        let mut rng = TestRng::default();
        let inputs = [0, 1, 2].map(|_| rng.data([batch, tokens, heads * head_dim]));
        let attend = |device: &Device| {
            let [query, key, value] = inputs
                .clone()
                .map(|data| Tensor::<3>::from_data(data, device));
            attention(query * 3.0, key, value, heads, None)
        };
        let expected = if batch == 0 {
            Vec::new()
        } else {
            read(&name, attend(&Device::flex())).await?
        };
        let got = with_nan_fill(|| attend(device));
        report.compare(&name, got, &expected, TOLERANCE).await?;
    }
    for (poison, head_dim) in Poison::ALL.into_iter().flat_map(|p| [(p, 16), (p, 64)]) {
        let (tokens, heads) = (70, 2);
        let name = format!("attention [1, {tokens}, {heads}, {head_dim}] with {poison:?}");
        let inputs = poison.inputs(tokens, [heads, heads, head_dim]);
        let attend = |device: &Device| {
            let [query, key, value] = inputs.clone().map(|values| {
                let data = TensorData::new(values, [1, tokens, heads * head_dim]);
                Tensor::<3>::from_data(data, device)
            });
            attention(query, key, value, heads, None)
        };
        let expected = read(&name, attend(&Device::flex())).await?;
        let got = with_nan_fill(|| attend(device));
        let got = read(&name, got).await?;
        compare_values(&mut report, &name, &got, &expected, TOLERANCE)?;
    }
    Ok(report)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_variant_that_holds_a_head_is_used() {
        let variants = [0, 4, 6, 16, 20, 32, 64, 68].map(variant);
        let [a, b, c] = [Some(0), Some(1), Some(2)];
        assert_eq!(variants, [None, a, None, a, b, b, c, None]);
    }
}
