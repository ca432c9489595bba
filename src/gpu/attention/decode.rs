//! Attention of one row over the KV cache, split over the keys (split-KV), with RoPE and the append
//! of the row's own key and value, and of those of rows before it whose queries are not needed.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use crate::gpu::attention::kv_cache::{AttentionShape, KvLayer, RopeTable, for_kv_types, variant};
use crate::gpu::attention::rope::{Qkv, append_keys};
use crate::gpu::buffer::{alloc, from_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::{Uniforms as _, uniforms};

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::attention::rope::{kv_append, rope_kv_append};
#[cfg(feature = "diagnostics")]
use crate::gpu::attention::testing::{
    DecoderCase, TOLERANCE, causal_attention_reference, compare_values,
};
#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, read};

/// Keys per workgroup of `attention_decode`.
const KV_SPLIT: u32 = 32;

/// Threads per workgroup of `attention_decode`.
const DECODE_WORKGROUP_SIZE: u32 = 4 * KV_SPLIT;

/// Threads per workgroup of `attention_combine`: two for each channel of the widest head.
const COMBINE_WORKGROUP_SIZE: u32 = 256;

uniforms! {
    /// Uniforms of `shaders/attention_decode.wgsl`.
    struct AttentionDecodeUniforms {
        /// H.
        heads: u32,
        /// G.
        kv_heads: u32,
        /// D.
        head_dim: u32,
        /// C.
        capacity: u32,
        /// S.
        splits: u32,
        /// Position of the row, less position[0].
        past: u32,
        /// Where queries, keys and values of the row begin, in f32s.
        q_offset: u32,
        k_offset: u32,
        v_offset: u32,
        /// Factor of the scores.
        scale: f32,
    }
}

uniforms! {
    /// Uniforms of `shaders/attention_combine.wgsl`.
    struct AttentionCombineUniforms {
        /// R.
        rows: u32,
        /// S.
        splits: u32,
        /// D.
        head_dim: u32,
    }
}

/// `shaders/attention_decode.wgsl` for every type of the KV cache.
pub const DECODE: [Shader; 2] = for_kv_types!(
    "attention_decode",
    AttentionDecodeUniforms,
    &[
        ("WORKGROUP_SIZE", DECODE_WORKGROUP_SIZE),
        ("KV_SPLIT", KV_SPLIT),
    ]
);

/// `shaders/attention_combine.wgsl`.
pub const COMBINE: Shader = Shader {
    name: "attention_combine",
    text: include_str!("../../../shaders/attention_combine.wgsl"),
    uniforms: AttentionCombineUniforms::LAYOUT,
    constants: &[("WORKGROUP_SIZE", COMBINE_WORKGROUP_SIZE)],
    imports: &[],
};

/// Attention of the last of M rows at positions `past ..` over the KV cache up to itself,
/// `[1, heads * head_dim]`. Applies RoPE and appends the keys and values of all rows to the cache. Rows past
/// the cache's end are dropped. Only the query of the last row is read.
///
/// # Panics
/// Shapes disagree, or there is no row.
pub fn attention_decode(
    qkv: Qkv,
    shape: AttentionShape,
    past: usize,
    rope: &RopeTable,
    cache: &KvLayer,
) -> Tensor<2> {
    let layout = qkv.layout("attention_decode", shape);
    assert!(layout.query_rows > 0, "attention_decode: no query");
    let before = layout.rows - 1;
    if before > 0 {
        append_keys(&layout, before, shape, past, rope, cache);
    }
    let [q, k, v] = &layout.buffers;
    let splits = shape.capacity.div_ceil(KV_SPLIT as usize);
    let groups = shape.heads * splits;
    let partials = alloc("attention_decode", &q.client, groups * (shape.head_dim + 2));
    // Where the last row begins.
    let last = [layout.query_rows - 1, before, before];
    let [q_offset, k_offset, v_offset] =
        [0, 1, 2].map(|part| (layout.offsets[part] + last[part] * layout.strides[part]) as u32);
    launch(
        &DECODE[variant(cache.dtype)],
        &q.client,
        groups as u64,
        &[
            &q.handle,
            &k.handle,
            &v.handle,
            &rope.table.handle,
            &rope.position.handle,
        ],
        &[&partials, &cache.keys.handle, &cache.values.handle],
        &AttentionDecodeUniforms {
            heads: shape.heads as u32,
            kv_heads: shape.kv_heads as u32,
            head_dim: shape.head_dim as u32,
            capacity: shape.capacity as u32,
            splits: splits as u32,
            past: (past + before) as u32,
            q_offset,
            k_offset,
            v_offset,
            scale: shape.scale(),
        },
    );
    let out = attention_combine(q, &partials, shape.heads, splits, shape.head_dim);
    from_buffer(q, out, [1, shape.q_width()])
}

/// Adds the `partials` `[rows, splits, head_dim + 2]` of KV splits: `[rows, head_dim]`. `like` is a
/// tensor on the same device.
pub(super) fn attention_combine(
    like: &CubeTensor,
    partials: &Handle,
    rows: usize,
    splits: usize,
    head_dim: usize,
) -> Handle {
    let out = alloc("attention_combine", &like.client, rows * head_dim);
    launch(
        &COMBINE,
        &like.client,
        rows as u64,
        &[partials],
        &[&out],
        &AttentionCombineUniforms {
            rows: rows as u32,
            splits: splits as u32,
            head_dim: head_dim as u32,
        },
    );
    out
}

/// Compares `attention_decode` on a GPU with plain loops on the CPU: two decode steps after
/// a prefill, the first with packed QKV and its position in a buffer, around the KV splits; the last rows
/// of two prefills after a part whose queries are not computed; and poisoned inputs.
///
/// # Errors
/// The first difference, with shape, index and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for case in DecoderCase::random(device).chain(DecoderCase::poisoned(device)) {
        let shape = case.shape;
        let cache = KvLayer::new(shape, case.dtype, device);
        let expected = causal_attention_reference(&case);
        let past = case.total - 2;
        let qkv = Qkv::Split(Box::new(case.qkv(0, past)));
        rope_kv_append(qkv, shape, 0, &case.rope, &cache);
        // The second row reads the key and the value that the first one appended.
        for (row, packed) in [(past, true), (past + 1, false)] {
            let name = format!("attention_decode {}, row {row}", case.name);
            let qkv = case.qkv(row, row + 1);
            let got = with_nan_fill(|| {
                if packed {
                    let qkv = Qkv::Packed(Box::new(Tensor::cat(qkv.to_vec(), 1)));
                    let rope = case.rope.with_position(case.position(row));
                    attention_decode(qkv, shape, 0, &rope, &cache)
                } else {
                    attention_decode(Qkv::Split(Box::new(qkv)), shape, row, &case.rope, &cache)
                }
            });
            let got = read(&name, got).await?;
            let expected = &expected[row * shape.q_width()..][..shape.q_width()];
            let tolerance = TOLERANCE[variant(case.dtype)];
            compare_values(&mut report, &name, &got, expected, tolerance)?;
        }
        let cache = KvLayer::new(shape, case.dtype, device);
        if case.before > 0 {
            let [_, keys, values] = case.qkv(0, case.before);
            kv_append([keys, values], shape, 0, &case.rope, &cache);
        }
        let middle = case.before + case.rows;
        for (from, to) in [(case.before, middle), (middle, case.total)] {
            let name = format!(
                "attention_decode {}, last of rows {from} to {to}",
                case.name
            );
            let [q, k, v] = case.qkv(from, to);
            let got = with_nan_fill(|| {
                let qkv = if from == middle {
                    Qkv::Packed(Box::new(Tensor::cat(vec![q, k, v], 1)))
                } else {
                    Qkv::Split(Box::new([q.narrow(0, to - from - 1, 1), k, v]))
                };
                attention_decode(qkv, shape, from, &case.rope, &cache)
            });
            let got = read(&name, got).await?;
            let expected = &expected[(to - 1) * shape.q_width()..][..shape.q_width()];
            let tolerance = TOLERANCE[variant(case.dtype)];
            compare_values(&mut report, &name, &got, expected, tolerance)?;
        }
    }
    Ok(report)
}
