//! Rotary position embedding (RoPE) of queries and keys, and the append to the KV cache.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use crate::gpu::attention::kv_cache::{AttentionShape, KvLayer, RopeTable, for_kv_types, variant};
use crate::gpu::buffer::{alloc, from_buffer, to_buffer};
use crate::gpu::launch::launch;
use crate::gpu::shader::Shader;
use crate::gpu::uniforms::uniforms;

#[cfg(feature = "diagnostics")]
use burn::tensor::Device;

#[cfg(feature = "diagnostics")]
use crate::gpu::attention::testing::{DecoderCase, compare_values, read_cache};
#[cfg(feature = "diagnostics")]
use crate::gpu::buffer::with_nan_fill;
#[cfg(feature = "diagnostics")]
use crate::gpu::testing::{SweepReport, read};

/// Threads per workgroup.
const WORKGROUP_SIZE: u32 = 64;

uniforms! {
    /// Uniforms of `shaders/rope_kv_append.wgsl`.
    struct RopeKvAppendUniforms {
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
        /// Position of the first row, less position[0].
        past: u32,
        /// Where the first row begins, in f32s.
        q_offset: u32,
        k_offset: u32,
        v_offset: u32,
        /// From one row to the next, in f32s.
        q_stride: u32,
        k_stride: u32,
        v_stride: u32,
    }
}

/// `shaders/rope_kv_append.wgsl` for every type of the KV cache.
pub const ROPE_KV_APPEND: [Shader; 2] = for_kv_types!(
    "rope_kv_append",
    RopeKvAppendUniforms,
    &[("WORKGROUP_SIZE", WORKGROUP_SIZE)]
);

/// Queries, keys and values of M rows, before RoPE.
pub enum Qkv {
    /// `[M, (heads + 2 kv_heads) * head_dim]`, concatenated.
    Packed(Box<Tensor<2>>),
    /// Queries of the last Q rows `[Q, heads * head_dim]`, then twice `[M, kv_heads * head_dim]`.
    Split(Box<[Tensor<2>; 3]>),
}

/// Buffers of [`Qkv`] with the strides and offsets of queries, keys and values, in f32s.
pub(super) struct QkvLayout {
    pub(super) buffers: [CubeTensor; 3],
    /// Rows of keys and values.
    pub(super) rows: usize,
    /// Rows of queries, those of the last rows.
    pub(super) query_rows: usize,
    pub(super) strides: [usize; 3],
    pub(super) offsets: [usize; 3],
}

impl Qkv {
    pub(super) fn layout(self, kernel: &'static str, shape: AttentionShape) -> QkvLayout {
        let (q_width, kv_width) = (shape.q_width(), shape.kv_width());
        match self {
            Self::Packed(qkv) => {
                let [rows, width] = qkv.dims();
                assert_eq!(width, shape.qkv_width(), "{kernel}: width of packed QKV");
                let qkv = to_buffer(kernel, *qkv);
                QkvLayout {
                    buffers: [qkv.clone(), qkv.clone(), qkv],
                    rows,
                    query_rows: rows,
                    strides: [width; 3],
                    offsets: [0, q_width, q_width + kv_width],
                }
            }
            Self::Split(qkv) => {
                let [query_rows, rows] = [&qkv[0], &qkv[1]].map(|part| part.dims()[0]);
                assert!(
                    query_rows <= rows,
                    "{kernel}: {query_rows} queries of {rows} rows"
                );
                let shapes = [[query_rows, q_width], [rows, kv_width], [rows, kv_width]];
                for (part, shape) in qkv.iter().zip(shapes) {
                    assert_eq!(part.dims(), shape, "{kernel}: shape of Q, K or V");
                }
                QkvLayout {
                    buffers: qkv.map(|part| to_buffer(kernel, part)),
                    rows,
                    query_rows,
                    strides: [q_width, kv_width, kv_width],
                    offsets: [0; 3],
                }
            }
        }
    }
}

/// Applies RoPE to queries and keys of rows at positions `past ..` and appends keys and values to
/// `cache`. Returns the queries, `[M, heads * head_dim]`. Rows past the cache's end are dropped.
///
/// # Panics
/// Shapes disagree, or a row has no query.
pub fn rope_kv_append(
    qkv: Qkv,
    shape: AttentionShape,
    past: usize,
    rope: &RopeTable,
    cache: &KvLayer,
) -> Tensor<2> {
    let layout = qkv.layout("rope_kv_append", shape);
    let rows = layout.rows;
    assert_eq!(layout.query_rows, rows, "rope_kv_append: rows of queries");
    let out = append(&layout, rows, shape.heads, shape, past, rope, cache);
    from_buffer(&layout.buffers[0], out, [rows, shape.q_width()])
}

/// Applies RoPE to keys `[M, kv_heads * head_dim]` of rows at positions `past ..` and appends them and the
/// values, of the same shape, to `cache`. Rows past the cache's end are dropped.
///
/// # Panics
/// Shapes disagree.
pub fn kv_append(
    [keys, values]: [Tensor<2>; 2],
    shape: AttentionShape,
    past: usize,
    rope: &RopeTable,
    cache: &KvLayer,
) {
    let [rows, _] = keys.dims();
    let width = shape.kv_width();
    for part in [&keys, &values] {
        assert_eq!(part.dims(), [rows, width], "kv_append: shape of K or V");
    }
    let [keys, values] = [keys, values].map(|part| to_buffer("kv_append", part));
    let layout = QkvLayout {
        buffers: [keys.clone(), keys, values],
        rows,
        query_rows: 0,
        strides: [width; 3],
        offsets: [0; 3],
    };
    append_keys(&layout, rows, shape, past, rope, cache);
}

/// Appends keys and values of the first `rows` rows, whose queries are not read.
pub(super) fn append_keys(
    layout: &QkvLayout,
    rows: usize,
    shape: AttentionShape,
    past: usize,
    rope: &RopeTable,
    cache: &KvLayer,
) {
    append(layout, rows, 0, shape, past, rope, cache);
}

/// Launches the kernel for the first `rows` rows and `heads` query heads, all or none. Returns the buffer of
/// the rotated queries.
fn append(
    layout: &QkvLayout,
    rows: usize,
    heads: usize,
    shape: AttentionShape,
    past: usize,
    rope: &RopeTable,
    cache: &KvLayer,
) -> Handle {
    let [q, k, v] = &layout.buffers;
    let width = heads * shape.head_dim;
    let out = alloc("rope_kv_append", &k.client, (rows * width).max(4));
    // A thread takes eight channels.
    let threads = rows * (width + 2 * shape.kv_width()) / 8;
    let [q_offset, k_offset, v_offset] = layout.offsets.map(|offset| offset as u32);
    let [q_stride, k_stride, v_stride] = layout.strides.map(|stride| stride as u32);
    launch(
        &ROPE_KV_APPEND[variant(cache.dtype)],
        &k.client,
        threads.div_ceil(WORKGROUP_SIZE as usize) as u64,
        &[
            &q.handle,
            &k.handle,
            &v.handle,
            &rope.table.handle,
            &rope.position.handle,
        ],
        &[&out, &cache.keys.handle, &cache.values.handle],
        &RopeKvAppendUniforms {
            rows: rows as u32,
            heads: heads as u32,
            kv_heads: shape.kv_heads as u32,
            head_dim: shape.head_dim as u32,
            capacity: shape.capacity as u32,
            past: past as u32,
            q_offset,
            k_offset,
            v_offset,
            q_stride,
            k_stride,
            v_stride,
        },
    );
    out
}

/// Sums of two products of values in [-1, 1].
#[cfg(feature = "diagnostics")]
const TOLERANCE: f32 = 1e-6;

/// The same after rounding to the type of the KV cache; a device may round an f16 up or down.
#[cfg(feature = "diagnostics")]
const CACHE_TOLERANCE: [f32; 2] = [TOLERANCE, 2e-3];

/// Compares the rotated queries and the KV cache with plain loops on the CPU: two appends, one
/// split and one packed, the second with its position in a buffer and its last row past the cache's
/// end; and poisoned inputs.
///
/// # Errors
/// The first difference, with shape, index and both values; or a failed read.
#[cfg(feature = "diagnostics")]
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut report = SweepReport::on(device)?;
    for case in DecoderCase::random(device).chain(DecoderCase::poisoned(device)) {
        compare(&case, device, &mut report).await?;
    }
    Ok(report)
}

#[cfg(feature = "diagnostics")]
async fn compare(
    case: &DecoderCase,
    device: &Device,
    report: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("rope_kv_append {}", case.name);
    let shape = AttentionShape {
        capacity: case.total - 1,
        ..case.shape
    };
    let cache = KvLayer::new(shape, case.dtype, device);
    let cut = case.total / 2;
    let (first, second) = with_nan_fill(|| {
        let qkv = Qkv::Split(Box::new(case.qkv(0, cut)));
        let first = rope_kv_append(qkv, shape, 0, &case.rope, &cache);
        let qkv = Tensor::cat(case.qkv(cut, case.total).to_vec(), 1);
        let rope = case.rope.with_position(case.position(cut));
        let second = rope_kv_append(Qkv::Packed(Box::new(qkv)), shape, 0, &rope, &cache);
        (first, second)
    });
    let queries = Tensor::cat(vec![first, second], 0).narrow(0, 0, shape.capacity);
    let got = read(&name, queries).await?;
    let expected = &case.rotated_queries()[..shape.capacity * shape.q_width()];
    compare_values(report, &name, &got, expected, TOLERANCE)?;

    let tolerance = CACHE_TOLERANCE[variant(case.dtype)];
    let parts = [("keys", &cache.keys), ("values", &cache.values)];
    for ((part, buffer), rows) in parts.into_iter().zip(case.cached()) {
        let name = format!("{name}, {part}");
        let got = read_cache(&name, buffer, case.dtype).await?;
        let dim = shape.head_dim;
        let expected: Vec<f32> = (0..shape.kv_heads)
            .flat_map(|head| {
                (0..shape.capacity).map(move |row| (row * shape.kv_heads + head) * dim)
            })
            .flat_map(|start| rows[start..start + dim].iter().copied())
            .collect();
        compare_values(report, &name, &got, &expected, tolerance)?;
    }
    Ok(())
}
