//! Attention of a decoder on a graphics device: rotary embedding and the write into the cache,
//! many rows over the cache, and one row that does all of it.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;
use half::f16;

use crate::gpu::attention::encoder::ROWS;
use crate::gpu::buffer::{alloc, from_buffer, to_buffer, with_nan_fill};
use crate::gpu::launch::{Shader, launch};
use crate::gpu::matmul::{GROUP, integers};
use crate::gpu::testing::{SweepReport, TestRng};
use crate::memory::KvCacheDType;

/// Keys per workgroup of `attention_step`.
const KV_SPLIT: u32 = 32;

/// Invocations per workgroup of `attention_step`.
const DECODE_GROUP: u32 = 4 * KV_SPLIT;

/// Rows over the cache are split over their keys where they make fewer workgroups than this.
const KV_SPLIT_MIN_GROUPS: usize = 256;

/// Invocations per workgroup of `attention_join`: two for each channel of the widest head.
const COMBINE_GROUP: u32 = 256;

macro_rules! shader {
    ($name:literal, $cache:literal, $($constant:literal = $value:expr),*) => {
        Shader {
            name: $name,
            text: include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            constants: &[$(($constant, $value)),*],
            imports: &[("CACHE", $cache)],
        }
    };
}

/// A shader that reads or writes a cache, by [`variant`].
macro_rules! for_caches {
    ($name:literal, $($constant:literal = $value:expr),*) => {
        [
            shader!($name, "kv_f32", $($constant = $value),*),
            shader!($name, "kv_f16", $($constant = $value),*),
        ]
    };
}

/// `shaders/rope_kv_append.wgsl` for every form of a cache.
pub const ROPE_KV_APPEND: [Shader; 2] = for_caches!("rope_kv_append", "GROUP" = GROUP);

/// `shaders/attention_decode.wgsl` for every form of a cache.
pub const DECODE: [Shader; 2] = for_caches!(
    "attention_decode",
    "GROUP" = DECODE_GROUP,
    "STRETCH" = KV_SPLIT
);

/// `shaders/attention_combine.wgsl`.
pub const COMBINE: Shader = Shader {
    name: "attention_combine",
    text: include_str!("../../../shaders/attention_combine.wgsl"),
    constants: &[("GROUP", COMBINE_GROUP)],
    imports: &[],
};

/// `shaders/attention_prefill.wgsl` for heads of up to 32, 64, 96 and 128 channels, each for every
/// form of a cache.
pub const PREFILL: [[Shader; 2]; 4] = [
    for_caches!("attention_prefill", "CHUNKS" = 1, "DEPTH" = 32),
    for_caches!("attention_prefill", "CHUNKS" = 2, "DEPTH" = 32),
    for_caches!("attention_prefill", "CHUNKS" = 3, "DEPTH" = 32),
    for_caches!("attention_prefill", "CHUNKS" = 4, "DEPTH" = 32),
];

/// Channels of the widest head.
const MAX_HEAD_DIM: usize = 32 * PREFILL.len();

/// Whether heads of `width` channels can go through these kernels.
pub fn takes(width: usize) -> bool {
    width > 0 && width.is_multiple_of(8) && width <= MAX_HEAD_DIM
}

/// The place among the variants of a shader.
fn variant(form: KvCacheDType) -> usize {
    match form {
        KvCacheDType::F32 => 0,
        KvCacheDType::F16 => 1,
    }
}

/// Numbers of heads, and places of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; query heads are a multiple.
    pub keys: usize,
    /// Channels of a head.
    pub width: usize,
    /// Places in the cache.
    pub capacity: usize,
}

impl AttentionShape {
    /// Queries, keys and values of a row together.
    fn numbers(self) -> usize {
        (self.queries + 2 * self.keys) * self.width
    }
}

/// Keys and values of one block, `[key heads, capacity, width]` each, written in place.
#[derive(Clone, Debug)]
pub struct KvLayer {
    keys: Handle,
    values: Handle,
    form: KvCacheDType,
}

impl KvLayer {
    /// An empty cache.
    ///
    /// # Panics
    /// `device` is not a graphics device.
    pub fn new(heads: AttentionShape, form: KvCacheDType, device: &Device) -> Self {
        let empty = || {
            let bytes = heads.keys * heads.capacity * heads.width * form.bytes();
            to_buffer("cache", Tensor::<1>::zeros([bytes / 4], device)).handle
        };
        Self {
            keys: empty(),
            values: empty(),
            form,
        }
    }
}

/// Where rows stand: their angles, and the position of the first one.
#[derive(Clone, Debug)]
pub struct RopeTable {
    angles: CubeTensor,
    position: CubeTensor,
}

impl RopeTable {
    /// `angles` `[capacity, width]`: cosines and then sines of every position. `position` `[1]` is
    /// added to the position that a launch names; kernels may change it.
    pub fn new(angles: Tensor<2>, position: Tensor<1, Int>) -> Self {
        Self {
            angles: to_buffer("angles", angles),
            position: integers(position),
        }
    }

    /// The same, counted from `position`.
    #[must_use]
    pub fn from(&self, position: Tensor<1, Int>) -> Self {
        Self {
            angles: self.angles.clone(),
            position: integers(position),
        }
    }

    /// The position that is added.
    pub fn position(&self) -> Tensor<1, Int> {
        Tensor::from_primitive::<Cube>(self.position.clone())
    }
}

/// Queries, keys and values of some rows, not turned yet.
pub enum Qkv {
    /// `[M, (queries + 2 keys) * width]`, side by side.
    Packed(Box<Tensor<2>>),
    /// `[M, heads * width]` each.
    Split(Box<[Tensor<2>; 3]>),
}

/// Where the queries, keys and values of rows lie.
struct QkvLayout {
    buffers: [CubeTensor; 3],
    count: usize,
    /// From one row to the next.
    strides: [usize; 3],
    /// Of the first row.
    offsets: [usize; 3],
}

impl Qkv {
    fn laid(self, kernel: &'static str, heads: AttentionShape) -> QkvLayout {
        let (wide, narrow) = (heads.queries * heads.width, heads.keys * heads.width);
        match self {
            Self::Packed(rows) => {
                let [count, width] = rows.dims();
                assert_eq!(width, heads.numbers(), "{kernel}: width of the rows");
                let rows = to_buffer(kernel, *rows);
                QkvLayout {
                    buffers: [rows.clone(), rows.clone(), rows],
                    count,
                    strides: [width; 3],
                    offsets: [0, wide, wide + narrow],
                }
            }
            Self::Split(rows) => {
                let [count, _] = rows[0].dims();
                let strides = [wide, narrow, narrow];
                for (part, width) in rows.iter().zip(strides) {
                    assert_eq!(part.dims(), [count, width], "{kernel}: rows");
                }
                QkvLayout {
                    buffers: rows.map(|part| to_buffer(kernel, part)),
                    count,
                    strides,
                    offsets: [0; 3],
                }
            }
        }
    }
}

/// Turns queries and keys of rows at positions `past ..` and lays keys and values into `cache`:
/// the queries, `[M, queries * width]`. Rows past the cache's end are dropped.
///
/// # Panics
/// Sizes disagree.
pub fn rope_kv_append(
    rows: Qkv,
    heads: AttentionShape,
    past: usize,
    places: &RopeTable,
    cache: &KvLayer,
) -> Tensor<2> {
    let wide = heads.queries * heads.width;
    let QkvLayout {
        buffers,
        count,
        strides,
        offsets,
    } = rows.laid("rope_kv_append", heads);
    let [q, k, v] = &buffers;
    let out = alloc("rope_kv_append", &q.client, count * wide);
    let quads = count * heads.numbers() / 4;
    let sizes = [
        [count, heads.queries, heads.keys, heads.width],
        [strides[0], strides[1], strides[2], past],
        [offsets[0], offsets[1], offsets[2], heads.capacity],
    ];
    launch(
        &ROPE_KV_APPEND[variant(cache.form)],
        &q.client,
        quads.div_ceil(GROUP as usize) as u64,
        &[
            &q.handle,
            &k.handle,
            &v.handle,
            &places.angles.handle,
            &places.position.handle,
        ],
        &[&out, &cache.keys, &cache.values],
        &sizes
            .concat()
            .iter()
            .map(|size| *size as u32)
            .collect::<Vec<_>>(),
    );
    from_buffer(q, out, [count, wide])
}

fn factor(heads: AttentionShape) -> u32 {
    (heads.width as f32).sqrt().recip().to_bits()
}

/// Turned queries `[M, queries * width]` at positions `past ..` over the cache up to themselves:
/// `[M, queries * width]`.
///
/// # Panics
/// The rows do not fit the cache.
pub fn attention_prefill(
    q: Tensor<2>,
    heads: AttentionShape,
    past: usize,
    cache: &KvLayer,
) -> Tensor<2> {
    let [count, wide] = q.dims();
    assert_eq!(wide, heads.queries * heads.width, "attention: width");
    assert!(
        past + count <= heads.capacity,
        "attention: {past} + {count} rows in a cache of {}",
        heads.capacity
    );
    let q = to_buffer("attention_prefill", q);
    let groups = heads.queries * count.div_ceil(ROWS);
    let parts = (KV_SPLIT_MIN_GROUPS / groups)
        .min((past + count).div_ceil(32) / 2)
        .max(1);
    let rows = count * heads.queries;
    let made = heads.width + if parts == 1 { 0 } else { 2 };
    let out = alloc("attention_prefill", &q.client, rows * parts * made);
    launch(
        &PREFILL[heads.width.div_ceil(32) - 1][variant(cache.form)],
        &q.client,
        (groups * parts) as u64,
        &[&q.handle, &cache.keys, &cache.values],
        &[&out],
        &[
            count as u32,
            heads.queries as u32,
            heads.keys as u32,
            heads.width as u32,
            heads.capacity as u32,
            past as u32,
            factor(heads),
            parts as u32,
        ],
    );
    let out = if parts == 1 {
        out
    } else {
        attention_combine(&q, &out, rows, parts, heads.width)
    };
    from_buffer(&q, out, [count, wide])
}

/// `attention_join` over `parts` for each of `rows` rows of `width` channels.
fn attention_combine(
    q: &CubeTensor,
    sums: &Handle,
    rows: usize,
    parts: usize,
    width: usize,
) -> Handle {
    let out = alloc("attention_combine", &q.client, rows * width);
    launch(
        &COMBINE,
        &q.client,
        rows as u64,
        &[sums],
        &[&out],
        &[rows as u32, parts as u32, width as u32, 0],
    );
    out
}

/// One row at position `past` of `places`, not turned yet: lays its key and value into the cache and
/// attends to all up to itself, `[1, queries * width]`. A row past the cache's end is dropped.
///
/// # Panics
/// Sizes disagree, or there are several rows.
pub fn attention_decode(
    row: Qkv,
    heads: AttentionShape,
    past: usize,
    places: &RopeTable,
    cache: &KvLayer,
) -> Tensor<2> {
    let wide = heads.queries * heads.width;
    let laid = row.laid("attention_decode", heads);
    assert_eq!(laid.count, 1, "attention_step: rows");
    let [q, k, v] = &laid.buffers;
    let stretches = heads.capacity.div_ceil(KV_SPLIT as usize);
    let parts = heads.queries * stretches * (heads.width + 2);
    let parts = alloc("attention_decode", &q.client, parts);
    launch(
        &DECODE[variant(cache.form)],
        &q.client,
        (heads.queries * stretches) as u64,
        &[
            &q.handle,
            &k.handle,
            &v.handle,
            &places.angles.handle,
            &places.position.handle,
        ],
        &[&parts, &cache.keys, &cache.values],
        &[
            heads.queries as u32,
            heads.keys as u32,
            heads.width as u32,
            heads.capacity as u32,
            stretches as u32,
            factor(heads),
            past as u32,
            0,
            laid.offsets[0] as u32,
            laid.offsets[1] as u32,
            laid.offsets[2] as u32,
            0,
        ],
    );
    let out = attention_combine(q, &parts, heads.queries, stretches, heads.width);
    from_buffer(q, out, [1, wide])
}

/// Scores and values stay within a few units; sums of up to a few hundred of them differ in order.
/// A device may round a half up or down, and the reference rounds to the nearest.
const TOLERANCE: [f32; 2] = [2e-5, 1e-3];

/// Compares all kernels on `device`, a graphics device, with plain loops on the processor: rows in
/// two goes, then two rows one by one, around the tiles of both attentions.
///
/// # Errors
/// The first difference, with its shape, place and both values; or a failed read.
pub async fn sweep(device: &Device) -> Result<SweepReport, String> {
    let mut swept = SweepReport::on(device)?;
    // query heads, key heads, width, rows before, rows
    for (queries, keys, width, before, rows) in [
        (1, 1, 8, 0, 1),
        (6, 2, 32, 5, 7),
        (3, 1, 40, 31, 33),
        (4, 4, 64, 0, 65),
        (7, 1, 128, 100, 28),
        (2, 2, 96, 126, 2),
        (3, 1, 40, 97, 20),
        (2, 1, 8, 257, 1),
    ] {
        let heads = AttentionShape {
            queries,
            keys,
            width,
            capacity: before + rows + 3,
        };
        for form in [KvCacheDType::F32, KvCacheDType::F16] {
            compare(device, heads, form, before, rows, &mut swept).await?;
        }
    }
    Ok(swept)
}

async fn compare(
    device: &Device,
    heads: AttentionShape,
    form: KvCacheDType,
    before: usize,
    rows: usize,
    swept: &mut SweepReport,
) -> Result<(), String> {
    let name = format!("attention {heads:?} {form:?}, {before} and {rows} rows");
    let tolerance = TOLERANCE[variant(form)];
    let mut dice = TestRng::default();
    let mut values = |count| dice.values(count);
    let total = before + rows + 2;
    let (wide, narrow) = (heads.queries * heads.width, heads.keys * heads.width);
    let (q, k, v) = (
        values(total * wide),
        values(total * narrow),
        values(total * narrow),
    );
    let half = heads.width / 2;
    let angles: Vec<f32> = (0..heads.capacity)
        .flat_map(|place| {
            let angle = move |i: usize| place as f32 * 0.37_f32.powi(i as i32);
            let cosines = (0..half).map(move |i| angle(i).cos());
            cosines.chain((0..half).map(move |i| angle(i).sin()))
        })
        .collect();
    let upload = |values: &[f32], width: usize| {
        let shape = [values.len() / width, width];
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let at = |place: i32| Tensor::<1, Int>::from_data(TensorData::new(vec![place], [1]), device);
    let places = RopeTable::new(upload(&angles, heads.width), at(0));
    let cache = KvLayer::new(heads, form, device);
    let part = |from: usize, to: usize| {
        [(&q, wide), (&k, narrow), (&v, narrow)]
            .map(|(all, width)| upload(&all[from * width..to * width], width))
    };
    let expected = attention_reference([&q, &k, &v], &angles, heads, form);
    for (from, to) in [(0, before), (before, before + rows)] {
        if from < to {
            let got = with_nan_fill(|| {
                let turned = rope_kv_append(
                    Qkv::Split(Box::new(part(from, to))),
                    heads,
                    from,
                    &places,
                    &cache,
                );
                attention_prefill(turned, heads, from, &cache)
            });
            let expected = &expected[from * wide..to * wide];
            swept.compare(&name, got, expected, tolerance).await?;
        }
    }
    // Of the last two rows the second sees what the first laid into the cache.
    for (place, joined) in [(total - 2, true), (total - 1, false)] {
        let row = part(place, place + 1);
        let got = with_nan_fill(|| {
            if joined {
                let row = Qkv::Packed(Box::new(Tensor::cat(row.to_vec(), 1)));
                attention_decode(row, heads, 0, &places.from(at(place as i32)), &cache)
            } else {
                attention_decode(Qkv::Split(Box::new(row)), heads, place, &places, &cache)
            }
        });
        let expected = &expected[place * wide..][..wide];
        let name = format!("{name}, one more at {place}");
        swept.compare(&name, got, expected, tolerance).await?;
    }
    Ok(())
}

/// Causal attention with rotary embedding over all rows from position 0, in plain loops.
fn attention_reference(
    [q, k, v]: [&[f32]; 3],
    angles: &[f32],
    heads: AttentionShape,
    form: KvCacheDType,
) -> Vec<f32> {
    let kept = |x: f32| match form {
        KvCacheDType::F32 => x,
        KvCacheDType::F16 => f16::from_f32(x).to_f32(),
    };
    let (width, half) = (heads.width, heads.width / 2);
    let total = q.len() / (heads.queries * width);
    let row = |all: &[f32], count: usize, place: usize, head: usize| {
        all[(place * count + head) * width..][..width].to_vec()
    };
    let turned = |all: &[f32], count: usize, place: usize, head: usize| {
        let x = row(all, count, place, head);
        let (cosine, sine) = angles[place * width..][..width].split_at(half);
        let first = (0..half).map(|i| x[i] * cosine[i] - x[i + half] * sine[i]);
        let second = (0..half).map(|i| x[i + half] * cosine[i] + x[i] * sine[i]);
        first.chain(second).collect::<Vec<f32>>()
    };
    let mut mixed = Vec::with_capacity(q.len());
    for place in 0..total {
        for head in 0..heads.queries {
            let key_head = head / (heads.queries / heads.keys);
            let query = turned(q, heads.queries, place, head);
            let weights: Vec<f64> = (0..=place)
                .map(|key| {
                    let key = turned(k, heads.keys, key, key_head);
                    let terms = query.iter().zip(&key);
                    let product: f64 = terms
                        .map(|(a, b)| f64::from(*a) * f64::from(kept(*b)))
                        .sum();
                    (product / (width as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            mixed.extend((0..width).map(|i| {
                let terms = weights.iter().enumerate();
                let value = |key| f64::from(kept(row(v, heads.keys, key, key_head)[i]));
                (terms.map(|(key, weight)| weight * value(key)).sum::<f64>() / sum) as f32
            }));
        }
    }
    mixed
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::gpu::device::adapter_for_test;

    #[test]
    fn attention_agrees_with_its_reference() {
        let Some(device) = adapter_for_test("attention_agrees_with_its_reference") else {
            return;
        };
        let swept = pollster::block_on(sweep(&device)).expect("kernels and reference agree");
        println!("{swept:?}");
    }
}
