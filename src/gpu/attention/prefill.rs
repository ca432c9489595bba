//! Causal attention of many rows over the KV cache.

use burn::tensor::Tensor;

use crate::gpu::attention::decode::attention_combine;
use crate::gpu::attention::kv_cache::{AttentionShape, KvLayer, for_kv_types, variant};
use crate::gpu::attention::{TILE_KEYS, TILE_ROWS, row_tiles};
use crate::gpu::buffer::{alloc, from_buffer, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::uniforms;

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::attention::rope::{Qkv, rope_kv_append};
#[cfg(feature = "diagnostics")]
use crate::gpu::attention::testing::{
    DecoderCase, TOLERANCE, causal_attention_reference, compare_values,
};
#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, read};

/// Prefill is split over the keys where it has fewer workgroups than this without.
const KV_SPLIT_BELOW_GROUPS: usize = 256;

uniforms! {
    /// Uniforms of `shaders/attention_prefill.wgsl`.
    struct AttentionPrefillUniforms {
        /// M.
        rows: u32,
        /// H.
        heads: u32,
        /// G.
        kv_heads: u32,
        /// D.
        head_dim: u32,
        /// C.
        capacity: u32,
        /// Position of the first row.
        past: u32,
        /// S, the number of parts that the keys are split into.
        kv_splits: u32,
        /// Factor of the scores.
        scale: f32,
    }
}

/// `attention_prefill` in `chunks` chunks of 32 channels.
macro_rules! shaders {
    ($chunks:literal) => {
        for_kv_types!(
            "attention_prefill",
            AttentionPrefillUniforms,
            &[
                ("CHUNKS", $chunks),
                ("DEPTH", 32),
                ("TILE_ROWS", TILE_ROWS),
                ("TILE_KEYS", TILE_KEYS),
            ]
        )
    };
}

/// `shaders/attention_prefill.wgsl` for heads of up to 32, 64, 96 and 128 channels, each for every
/// type of the KV cache.
pub const PREFILL: [[Shader; 2]; 4] = [shaders!(1), shaders!(2), shaders!(3), shaders!(4)];

/// Channels of the widest head.
const MAX_HEAD_DIM: usize = 32 * PREFILL.len();

/// Whether the decoder kernels support heads of `head_dim` channels.
pub fn supports_head_dim(head_dim: usize) -> bool {
    head_dim > 0 && head_dim.is_multiple_of(8) && head_dim <= MAX_HEAD_DIM
}

/// Attention of rotated queries `q` `[M, heads * head_dim]` at positions `past ..` over the KV
/// cache, each over the keys up to its own. Returns `[M, heads * head_dim]`.
///
/// # Panics
/// The rows do not fit the cache.
pub fn attention_prefill(
    q: Tensor<2>,
    shape: AttentionShape,
    past: usize,
    cache: &KvLayer,
) -> Tensor<2> {
    let [rows, width] = q.dims();
    assert_eq!(width, shape.q_width(), "attention_prefill: width of Q");
    assert!(
        past + rows <= shape.capacity,
        "attention_prefill: {past} + {rows} rows in a KV cache of {}",
        shape.capacity
    );
    let q = to_buffer("attention_prefill", q);
    let groups = shape.heads * row_tiles(rows);
    let key_tiles = (past + rows).div_ceil(TILE_KEYS as usize);
    let kv_splits = (KV_SPLIT_BELOW_GROUPS / groups).min(key_tiles / 2).max(1);
    let head_rows = rows * shape.heads;
    let out_width = shape.head_dim + if kv_splits == 1 { 0 } else { 2 };
    let out = alloc(
        "attention_prefill",
        &q.client,
        head_rows * kv_splits * out_width,
    );
    launch(
        &PREFILL[shape.head_dim.div_ceil(32) - 1][variant(cache.dtype)],
        &q.client,
        (groups * kv_splits) as u64,
        &[&q.handle, &cache.keys.handle, &cache.values.handle],
        &[&out],
        &AttentionPrefillUniforms {
            rows: rows as u32,
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            head_dim: shape.head_dim as u32,
            capacity: shape.capacity as u32,
            past: past as u32,
            kv_splits: kv_splits as u32,
            scale: shape.scale(),
        },
    );
    let out = if kv_splits == 1 {
        out
    } else {
        attention_combine(&q, &out, head_rows, kv_splits, shape.head_dim)
    };
    from_buffer(&q, out, [rows, width])
}

/// Compares `attention_prefill` on a GPU with [`causal_attention_reference`]: two prefills of a
/// sequence, around the tiles, with and without KV splits; and poisoned inputs.
///
/// # Errors
/// The first difference, with shape, index and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for case in DecoderCase::random(device).chain(DecoderCase::poisoned(device)) {
        let shape = case.shape;
        let name = format!("attention_prefill {}", case.name);
        let cache = KvLayer::new(shape, case.dtype, device);
        let expected = causal_attention_reference(&case);
        for (from, to) in [(0, case.before), (case.before, case.before + case.rows)] {
            if from == to {
                continue;
            }
            let got = with_nan_fill(|| {
                let qkv = Qkv::Split(Box::new(case.qkv(from, to)));
                let q = rope_kv_append(qkv, shape, from, &case.rope, &cache);
                attention_prefill(q, shape, from, &cache)
            });
            let got = read(&name, got).await?;
            let expected = &expected[from * shape.q_width()..to * shape.q_width()];
            let tolerance = TOLERANCE[variant(case.dtype)];
            compare_values(&mut report, &name, &got, expected, tolerance)?;
        }
    }
    Ok(report)
}
