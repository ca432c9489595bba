//! Inputs and comparisons of the attention sweeps.

use burn::backend::Cube;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use half::f16;

use crate::gpu::attention::kv_cache::{AttentionShape, RopeTable};
use crate::gpu::testing::{SweepReport, TestRng, read};
use crate::memory::KvCacheDType;

/// Compares values with `expected`. Where NaN is expected, only NaN is accepted.
///
/// # Errors
/// The first difference above `tolerance`, with `name`, its index and both values.
pub(super) fn compare_values(
    report: &mut SweepReport,
    name: &str,
    got: &[f32],
    expected: &[f32],
    tolerance: f32,
) -> Result<(), String> {
    if got.len() != expected.len() {
        let (got, expected) = (got.len(), expected.len());
        return Err(format!("{name}: {got} values instead of {expected}"));
    }
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        if got == expected || (got.is_nan() && expected.is_nan()) {
            continue;
        }
        let error = (got - expected).abs();
        if error > tolerance || error.is_nan() {
            return Err(format!(
                "{name}: value {index} is {got}, expected {expected} within {tolerance}"
            ));
        }
        report.worst = report.worst.max(error);
    }
    report.shapes += 1;
    Ok(())
}

/// Inputs with large or non-finite values. A kernel must not turn NaN into a finite result.
#[derive(Clone, Copy, Debug)]
pub(super) enum Poison {
    /// Scores of about 1e4, so that softmax is nearly an argmax.
    LargeScores,
    /// NaN in one query: its row is NaN.
    NanQuery,
    /// NaN in one key: every row that sees the key is NaN.
    NanKey,
    /// NaN in one channel of the first value: the channel is NaN in every row.
    NanValue,
    /// Infinity in one key: a row where its score is -inf masks the key, others are NaN.
    InfiniteKey,
}

impl Poison {
    pub(super) const ALL: [Self; 5] = [
        Self::LargeScores,
        Self::NanQuery,
        Self::NanKey,
        Self::NanValue,
        Self::InfiniteKey,
    ];

    /// Queries `[tokens, heads * head_dim]`, keys and values `[tokens, kv_heads * head_dim]`.
    /// Queries and keys are small integers: their dot products are exact in f32 in any order.
    pub(super) fn inputs(
        self,
        tokens: usize,
        [heads, kv_heads, head_dim]: [usize; 3],
    ) -> [Vec<f32>; 3] {
        let mut rng = TestRng::default();
        let mut integers = |heads: usize| -> Vec<f32> {
            let values = rng.values(tokens * heads * head_dim);
            values.iter().map(|value| (4.0 * value).round()).collect()
        };
        let (mut q, mut k) = (integers(heads), integers(kv_heads));
        let mut v = rng.values(tokens * kv_heads * head_dim);
        let middle = tokens / 2 * kv_heads * head_dim;
        match self {
            Self::LargeScores => {
                for value in q.iter_mut().chain(&mut k) {
                    *value *= 32.0;
                }
            }
            Self::NanQuery => q[tokens / 2 * heads * head_dim + 1] = f32::NAN,
            Self::NanKey => k[middle + 1] = f32::NAN,
            Self::NanValue => v[2] = f32::NAN,
            Self::InfiniteKey => k[middle + 3] = f32::INFINITY,
        }
        [q, k, v]
    }
}

/// Heads, key and value heads, channels of a head, rows before, rows: around the tiles of prefill
/// and the KV splits of decode.
const DECODER_SHAPES: [[usize; 5]; 8] = [
    [1, 1, 8, 0, 1],
    [6, 2, 32, 5, 7],
    [3, 1, 40, 31, 33],
    [4, 4, 64, 0, 65],
    [7, 1, 128, 100, 28],
    [2, 2, 96, 126, 2],
    [3, 1, 40, 97, 20],
    [2, 1, 8, 257, 1],
];

/// Shapes of [`Poison`]ed inputs: keys in one split and in two.
const POISON_SHAPES: [[usize; 5]; 2] = [[4, 2, 16, 20, 30], [2, 1, 64, 100, 40]];

/// Queries, keys and values of a sequence before RoPE, and a RoPE table.
pub(super) struct DecoderCase {
    pub(super) name: String,
    pub(super) shape: AttentionShape,
    pub(super) dtype: KvCacheDType,
    /// Rows of the first and of the second prefill.
    pub(super) before: usize,
    pub(super) rows: usize,
    /// Rows of the sequence: those of both prefills and two decode steps.
    pub(super) total: usize,
    pub(super) rope: RopeTable,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    angles: Vec<f32>,
    device: Device,
}

impl DecoderCase {
    /// Random inputs, for every shape and every type of the KV cache.
    pub(super) fn random(device: &Device) -> impl Iterator<Item = Self> {
        let case = |dims: [usize; 5], dtype| {
            let [heads, kv_heads, head_dim, before, rows] = dims;
            let mut rng = TestRng::default();
            let total = before + rows + 2;
            let qkv = [heads, kv_heads, kv_heads].map(|heads| rng.values(total * heads * head_dim));
            let angle = |position: usize, i: usize| position as f32 * 0.37_f32.powi(i as i32);
            Self::new(String::new(), dims, dtype, qkv, &angle, device)
        };
        let shapes = DECODER_SHAPES.into_iter();
        shapes.flat_map(move |dims| {
            [KvCacheDType::F32, KvCacheDType::F16].map(|dtype| case(dims, dtype))
        })
    }

    /// Poisoned inputs at angle zero, so that RoPE is exact, for every type of the KV cache.
    pub(super) fn poisoned(device: &Device) -> impl Iterator<Item = Self> {
        let case = |dims: [usize; 5], poison: Poison, dtype| {
            let [heads, kv_heads, head_dim, before, rows] = dims;
            let qkv = poison.inputs(before + rows + 2, [heads, kv_heads, head_dim]);
            Self::new(
                format!(" with {poison:?}"),
                dims,
                dtype,
                qkv,
                &|_, _| 0.0,
                device,
            )
        };
        let shapes = POISON_SHAPES.into_iter();
        let poisons = shapes.flat_map(|dims| Poison::ALL.map(|poison| (dims, poison)));
        poisons.flat_map(move |(dims, poison)| {
            [KvCacheDType::F32, KvCacheDType::F16].map(|dtype| case(dims, poison, dtype))
        })
    }

    fn new(
        note: String,
        [heads, kv_heads, head_dim, before, rows]: [usize; 5],
        dtype: KvCacheDType,
        [q, k, v]: [Vec<f32>; 3],
        angle: &dyn Fn(usize, usize) -> f32,
        device: &Device,
    ) -> Self {
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim,
            capacity: before + rows + 3,
        };
        let angles: Vec<f32> = (0..shape.capacity)
            .flat_map(|position| {
                let half = move || (0..head_dim / 2).map(move |i| angle(position, i));
                half().map(f32::cos).chain(half().map(f32::sin))
            })
            .collect();
        let table = TensorData::new(angles.clone(), [shape.capacity, head_dim]);
        let start = Tensor::from_data(TensorData::new(vec![0], [1]), device);
        Self {
            name: format!("{shape:?} {dtype:?}, {before} and {rows} rows{note}"),
            shape,
            dtype,
            before,
            rows,
            total: before + rows + 2,
            rope: RopeTable::new(Tensor::from_data(table, device), start),
            q,
            k,
            v,
            angles,
            device: device.clone(),
        }
    }

    /// Queries, keys and values of rows `from .. to`.
    pub(super) fn qkv(&self, from: usize, to: usize) -> [Tensor<2>; 3] {
        let (q_width, kv_width) = (self.shape.q_width(), self.shape.kv_width());
        [(&self.q, q_width), (&self.k, kv_width), (&self.v, kv_width)].map(|(values, width)| {
            let values = values[from * width..to * width].to_vec();
            Tensor::from_data(TensorData::new(values, [to - from, width]), &self.device)
        })
    }

    /// A position in a buffer.
    pub(super) fn position(&self, position: usize) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(vec![position as i32], [1]), &self.device)
    }

    /// Rotated queries, `[total, heads * head_dim]`.
    pub(super) fn rotated_queries(&self) -> Vec<f32> {
        self.rotated(&self.q)
    }

    /// Keys and values as a KV cache holds them, `[total, kv_heads * head_dim]`.
    pub(super) fn cached(&self) -> [Vec<f32>; 2] {
        [self.rotated(&self.k), self.v.clone()].map(|values| {
            let values = values.into_iter();
            values.map(|value| round_to(self.dtype, value)).collect()
        })
    }

    fn rotated(&self, x: &[f32]) -> Vec<f32> {
        let head_dim = self.shape.head_dim;
        let rows = x.chunks_exact(x.len() / self.total);
        rows.zip(self.angles.chunks_exact(head_dim))
            .flat_map(|(row, angles)| {
                let heads = row.chunks_exact(head_dim);
                heads.flat_map(|head| rope_reference(head, angles))
            })
            .collect()
    }
}

/// A value as a KV cache holds it; beyond the largest f16 it is clamped.
fn round_to(dtype: KvCacheDType, value: f32) -> f32 {
    match dtype {
        KvCacheDType::F32 => value,
        KvCacheDType::F16 => f16::from_f32(value.clamp(-65504.0, 65504.0)).to_f32(),
    }
}

/// The values in a buffer of a KV cache.
///
/// # Errors
/// The device fails; `name` is named.
pub(super) async fn read_cache(
    name: &str,
    cache: &CubeTensor,
    dtype: KvCacheDType,
) -> Result<Vec<f32>, String> {
    let words = read(name, Tensor::<1>::from_primitive::<Cube>(cache.clone())).await?;
    Ok(match dtype {
        KvCacheDType::F32 => words,
        KvCacheDType::F16 => words
            .iter()
            .map(|word| word.to_bits())
            .flat_map(|bits| [bits as u16, (bits >> 16) as u16])
            .map(|bits| f16::from_bits(bits).to_f32())
            .collect(),
    })
}

/// RoPE of one head `x` `[head_dim]` in plain loops; `angles` is the position's row of the table.
pub(super) fn rope_reference(x: &[f32], angles: &[f32]) -> Vec<f32> {
    let half = x.len() / 2;
    let (cosine, sine) = angles.split_at(half);
    let first = (0..half).map(|i| x[i] * cosine[i] - x[i + half] * sine[i]);
    let second = (0..half).map(|i| x[i + half] * cosine[i] + x[i] * sine[i]);
    first.chain(second).collect()
}

/// Causal attention of all rows of a sequence from position 0, in plain loops with f64 sums: RoPE,
/// KV cache in its type, softmax. Returns `[total, heads * head_dim]`.
pub(super) fn causal_attention_reference(case: &DecoderCase) -> Vec<f32> {
    let AttentionShape {
        heads,
        kv_heads,
        head_dim,
        ..
    } = case.shape;
    let queries = case.rotated_queries();
    let [keys, values] = case.cached();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let terms = a.iter().zip(b);
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let mut out = Vec::with_capacity(queries.len());
    for (index, query) in queries.chunks_exact(head_dim).enumerate() {
        let (row, head) = (index / heads, index % heads);
        let kv_head = head / (heads / kv_heads);
        let start = |key: usize| (key * kv_heads + kv_head) * head_dim;
        let scores: Vec<f64> = (0..=row)
            .map(|key| dot(query, &keys[start(key)..][..head_dim]) / (head_dim as f64).sqrt())
            .collect();
        let m = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - m).exp()).collect();
        let l: f64 = weights.iter().sum();
        out.extend((0..head_dim).map(|i| {
            let terms = weights.iter().enumerate();
            let value = |key| f64::from(values[start(key) + i]);
            (terms.map(|(key, weight)| weight * value(key)).sum::<f64>() / l) as f32
        }));
    }
    out
}

/// Scores and values are at most a few units; sums of up to a few hundred of them differ in their
/// order. A device may round an f16 up or down, the reference rounds to nearest.
pub(super) const TOLERANCE: [f32; 2] = [2e-5, 1e-3];
