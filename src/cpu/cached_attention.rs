//! Attention over a KV cache on the CPU: RoPE, scores, softmax and weighted sum, over the visible keys only.
//!
//! Keys and values lie in panels, so that both products read them as [`tiles`] reads weights: the rows of the one
//! matrix are keys, those of the other are the channels of the values.

use super::tiles::{Element, LANES, TILE_COLUMNS, TILE_ROWS, Wide, put_together, tiles};
use crate::memory::KvCacheDType;
use crate::simd::{exp, for_each_chunk, fused};
use crate::weights::dtype::f32_to_f16;

/// Rows of queries that are multiplied with the same keys: their scores fill a part of a second-level cache. A
/// multiple of `TILE_ROWS`.
const CHUNK_ROWS: usize = 48;

/// Products of queries and keys below which one thread is faster than several.
const SMALL: usize = 1 << 18;

/// Sizes of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedShape {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads of one key head.
    pub group: usize,
    /// Channels of a head, an even number.
    pub width: usize,
    /// Tokens that the cache holds.
    pub capacity: usize,
}

/// Cosines and sines of the rotation angles of consecutive tokens (RoPE), `[T, width / 2]` each.
#[derive(Clone, Debug)]
pub struct Angles {
    /// Cosines.
    pub cosine: Vec<f32>,
    /// Sines.
    pub sine: Vec<f32>,
}

/// Keys and values of one attention layer.
#[derive(Debug)]
pub struct CpuKv {
    shape: CachedShape,
    store: Store,
}

#[derive(Debug)]
enum Store {
    F32(Panels<f32>),
    /// Bits of f16.
    F16(Panels<u16>),
}

#[derive(Debug)]
struct Panels<T> {
    /// `[key heads, panels of tokens, width]`, an even number of panels.
    keys: Vec<[T; LANES]>,
    /// `[key heads, panels of channels, capacity]`, an even number of panels.
    values: Vec<[T; LANES]>,
}

/// The number of panels of `rows` rows, which is even.
fn panels(rows: usize) -> usize {
    rows.next_multiple_of(2 * LANES) / LANES
}

impl<T: Copy + Default> Panels<T> {
    fn new(shape: CachedShape) -> Self {
        let CachedShape {
            kv_heads,
            width,
            capacity,
            ..
        } = shape;
        let zeros = |panels, columns| vec![[T::default(); LANES]; kv_heads * panels * columns];
        Self {
            keys: zeros(panels(capacity), width),
            values: zeros(panels(width), capacity),
        }
    }

    /// Writes keys and values `[T, key heads * width]` after `past` tokens.
    fn write(&mut self, shape: CachedShape, past: usize, keys: &[T], values: &[T]) {
        let CachedShape {
            width, capacity, ..
        } = shape;
        let heads = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (index, (keys, values)) in heads.enumerate() {
            let (token, head) = (past + index / shape.kv_heads, index % shape.kv_heads);
            let panel = head * panels(capacity) + token / LANES;
            let lanes = &mut self.keys[panel * width..][..width];
            for (lanes, &key) in lanes.iter_mut().zip(keys) {
                lanes[token % LANES] = key;
            }
            let first = head * panels(width);
            for (channel, &value) in values.iter().enumerate() {
                let panel = first + channel / LANES;
                self.values[panel * capacity + token][channel % LANES] = value;
            }
        }
    }
}

impl CpuKv {
    /// Keys and values of no token yet.
    pub fn new(shape: CachedShape, dtype: KvCacheDType) -> Self {
        let store = match dtype {
            KvCacheDType::F32 => Store::F32(Panels::new(shape)),
            KvCacheDType::F16 => Store::F16(Panels::new(shape)),
        };
        Self { shape, store }
    }

    /// Appends keys and values after `past` tokens and attends to all tokens so far, each row of `q` up to its own
    /// token. `q` `[Q, heads * width]` of the last Q of T tokens, `k` and `v` `[T, key heads * width]`, and `angles` of
    /// the T tokens give `[Q, heads * width]`. Query head `j` belongs to key head `j / group`.
    ///
    /// # Panics
    /// The sizes disagree, there are more queries than keys, or the tokens do not fit.
    pub fn attend(
        &mut self,
        mut q: Vec<f32>,
        mut k: Vec<f32>,
        v: &[f32],
        angles: &Angles,
        past: usize,
    ) -> Vec<f32> {
        let shape = self.shape;
        let CachedShape {
            kv_heads,
            group,
            width,
            capacity,
        } = shape;
        let count = v.len() / (kv_heads * width);
        assert!(past + count <= capacity, "tokens beyond the KV cache");
        let queries = q.len() / (kv_heads * group * width);
        assert!(
            queries <= count
                && q.len() == queries * kv_heads * group * width
                && k.len() == v.len()
                && v.len() == count * kv_heads * width,
            "sizes of queries, keys and values"
        );
        // Tokens of the cache before the first query.
        let before = past + count - queries;
        rotate(&mut q, [kv_heads * group, width], angles, count - queries);
        rotate(&mut k, [kv_heads, width], angles, 0);
        match &mut self.store {
            Store::F32(panels) => panels.write(shape, past, &k, v),
            Store::F16(panels) => {
                let [k, v] = [&k, v].map(f32_to_f16);
                panels.write(shape, past, &k, &v);
            }
        }
        // The queries of a key head are rows: those of the first token, then those of the second.
        let rows = queries * group;
        let chunks = rows.div_ceil(CHUNK_ROWS);
        let mut parts = vec![Vec::new(); kv_heads * chunks];
        let is_small = kv_heads * rows * (past + count) * width < SMALL;
        let at_once = if is_small { parts.len() } else { 1 };
        for_each_chunk(&mut parts, at_once, |first, parts| {
            for (at, part) in parts.iter_mut().enumerate() {
                let index = first * at_once + at;
                let (head, first) = (index / chunks, index % chunks * CHUNK_ROWS);
                let rows = first..rows.min(first + CHUNK_ROWS);
                let queries: Vec<f32> = rows
                    .clone()
                    .flat_map(|row| query(&q, shape, head, row))
                    .copied()
                    .collect();
                attend(self, head, &queries, before, first, part);
            }
        });
        for (index, part) in parts.iter().enumerate() {
            let (head, first) = (index / chunks, index % chunks * CHUNK_ROWS);
            for (row, values) in (first..).zip(part.chunks_exact(width)) {
                let at = place(shape, head, row);
                q[at..at + width].copy_from_slice(values);
            }
        }
        q
    }
}

/// Where row `row` of the queries of key head `head` begins in `[T, heads * width]`.
fn place(shape: CachedShape, head: usize, row: usize) -> usize {
    let (token, in_group) = (row / shape.group, row % shape.group);
    ((token * shape.kv_heads + head) * shape.group + in_group) * shape.width
}

fn query(q: &[f32], shape: CachedShape, head: usize, row: usize) -> &[f32] {
    &q[place(shape, head, row)..][..shape.width]
}

/// Rotates heads `[T, heads, width]` by `angles` from those of token `first` on: channel `i` with channel
/// `i + width / 2`.
fn rotate(x: &mut [f32], [heads, width]: [usize; 2], angles: &Angles, first: usize) {
    let half = width / 2;
    for (token, heads) in (first..).zip(x.chunks_exact_mut(heads * width)) {
        let cosine = &angles.cosine[token * half..][..half];
        let sine = &angles.sine[token * half..][..half];
        for head in heads.chunks_exact_mut(width) {
            let (first, second) = head.split_at_mut(half);
            for i in 0..half {
                let (a, b) = (first[i], second[i]);
                first[i] = a * cosine[i] - b * sine[i];
                second[i] = b * cosine[i] + a * sine[i];
            }
        }
    }
}

fused! {
    /// The attended values `[rows, width]` of queries of key head `head`, `[rows, width]`, of which the first is the
    /// row `first` of that head after `past` tokens.
    fn attend(kv: &CpuKv, head: usize, queries: &[f32], past: usize, first: usize, out: &mut Vec<f32>) {
        match &kv.store {
            Store::F32(panels) => {
                *out = attend_of::<FUSED, _>(panels, kv.shape, head, queries, past, first);
            }
            Store::F16(panels) => {
                *out = attend_of::<FUSED, _>(panels, kv.shape, head, queries, past, first);
            }
        }
    }
}

#[inline(always)]
fn attend_of<const FUSED: bool, T: Element>(
    kv: &Panels<T>,
    shape: CachedShape,
    head: usize,
    queries: &[f32],
    past: usize,
    first: usize,
) -> Vec<f32> {
    let CachedShape {
        group,
        width,
        capacity,
        ..
    } = shape;
    let rows = queries.len() / width;
    let visible = |row: usize| past + (first + row) / group + 1;
    let tokens = visible(rows - 1);
    let keys = &kv.keys[head * panels(capacity) * width..][..panels(capacity) * width];
    let values = &kv.values[head * panels(width) * capacity..][..panels(width) * capacity];

    let mut together = vec![0.0; queries.len()];
    let queries = queries.chunks(TILE_ROWS * width);
    for (queries, together) in queries.zip(together.chunks_mut(TILE_ROWS * width)) {
        put_together(queries, width, together);
    }
    let pairs = tokens.div_ceil(2 * LANES);
    let mut scores = vec![[0.0; 2 * LANES]; pairs * rows];
    for (pair, scores) in scores.chunks_exact_mut(rows).enumerate() {
        let panels = &keys[2 * pair * width..][..2 * width];
        product::<FUSED, T>(panels.split_at(width), &together, width, scores);
    }

    let mut weights = vec![0.0; rows * tokens];
    let mut sums = [0.0; CHUNK_ROWS];
    let scale = (width as f32).sqrt().recip();
    for (tile, weights) in weights.chunks_mut(TILE_ROWS * tokens).enumerate() {
        let together = weights.len() / tokens;
        for row in 0..together {
            let index = tile * TILE_ROWS + row;
            let of_row = scores[index..].iter().step_by(rows);
            let seen = visible(index);
            let weights = weights[row..].iter_mut().step_by(together).take(seen);
            sums[index] = softmax(of_row, weights, seen, scale);
        }
    }

    let mut out = vec![0.0; rows * width];
    let mut attended = vec![[0.0; 2 * LANES]; rows];
    for (pair, panels) in values.chunks_exact(2 * capacity).enumerate() {
        attended.fill([0.0; 2 * LANES]);
        let (left, right) = panels.split_at(capacity);
        let both = (&left[..tokens], &right[..tokens]);
        product::<FUSED, T>(both, &weights, tokens, &mut attended);
        let channels = pair * 2 * LANES..width.min((pair + 1) * 2 * LANES);
        for ((out, attended), sum) in out.chunks_exact_mut(width).zip(&attended).zip(sums) {
            for (out, value) in out[channels.clone()].iter_mut().zip(attended) {
                *out = value / sum;
            }
        }
    }
    out
}

/// Adds the products of two panels, of all `columns`, with the rows `x`.
#[inline(always)]
fn product<const FUSED: bool, T: Element>(
    (left, right): (&[[T; LANES]], &[[T; LANES]]),
    x: &[f32],
    columns: usize,
    out: &mut [Wide],
) {
    let mut buffers = [[[0.0; LANES]; TILE_COLUMNS]; 2];
    let [left_buffer, right_buffer] = &mut buffers;
    for start in (0..columns).step_by(TILE_COLUMNS) {
        let end = columns.min(start + TILE_COLUMNS);
        let left = T::tile(&left[start..end], left_buffer);
        let right = T::tile(&right[start..end], right_buffer);
        tiles::<FUSED>([left, right], x, start, columns, out);
    }
}

/// Writes `e^(scale (score - largest))` of the first `seen` scores to `weights`; returns their sum, which is NaN if a
/// score is.
#[inline(always)]
fn softmax<'a>(
    scores: impl Iterator<Item = &'a Wide> + Clone,
    weights: impl Iterator<Item = &'a mut f32>,
    seen: usize,
    scale: f32,
) -> f32 {
    let mut largest = [f32::NEG_INFINITY; 2 * LANES];
    // Comparisons pass over NaN.
    let mut is_nan = false;
    for (at, scores) in scores.clone().enumerate() {
        for lane in 0..2 * LANES {
            let is_seen = 2 * LANES * at + lane < seen;
            let score = if is_seen {
                scores[lane]
            } else {
                f32::NEG_INFINITY
            };
            largest[lane] = if score > largest[lane] {
                score
            } else {
                largest[lane]
            };
            is_nan |= score.is_nan();
        }
    }
    if is_nan {
        return f32::NAN;
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; 2 * LANES];
    let mut weights = weights;
    for (at, scores) in scores.enumerate() {
        let mut exponentials = [0.0; 2 * LANES];
        for lane in 0..2 * LANES {
            exponentials[lane] = exp(scale * (scores[lane] - largest));
        }
        for lane in 0..2 * LANES {
            let is_seen = 2 * LANES * at + lane < seen;
            sums[lane] += if is_seen { exponentials[lane] } else { 0.0 };
        }
        // In this order no weight is taken when the exponentials end.
        for (exponential, weight) in exponentials.into_iter().zip(weights.by_ref()) {
            *weight = exponential;
        }
    }
    sums.iter().sum()
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use half::f16;

    use super::*;
    use crate::simd::tests::with_each_instruction_set;

    /// `count` values in [-2, 2] that do not repeat.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| 2.0 * ((i + 977 * seed) as f32 * 0.613).sin())
            .collect()
    }

    fn angles(past: usize, count: usize, width: usize) -> Angles {
        let angles = (past..past + count)
            .flat_map(|token| (0..width / 2).map(move |i| token as f32 / (1.0 + i as f32)));
        let angles: Vec<f32> = angles.collect();
        Angles {
            cosine: angles.iter().map(|angle| angle.cos()).collect(),
            sine: angles.iter().map(|angle| angle.sin()).collect(),
        }
    }

    /// Attention of the last `count` of all tokens, in f64, over keys and values stored as `dtype`.
    fn expected(
        shape: CachedShape,
        dtype: KvCacheDType,
        [q, k, v]: [&[f32]; 3],
        count: usize,
    ) -> Vec<f64> {
        let CachedShape {
            kv_heads,
            group,
            width,
            ..
        } = shape;
        let tokens = v.len() / (kv_heads * width);
        let stored = |value: f32| match dtype {
            KvCacheDType::F32 => f64::from(value),
            KvCacheDType::F16 => f16::from_f32(value).to_f64(),
        };
        let rotated = |x: &[f32], heads| {
            let mut x = x.to_vec();
            rotate(&mut x, [heads, width], &angles(0, tokens, width), 0);
            x
        };
        let (q, k) = (rotated(q, kv_heads * group), rotated(k, kv_heads));
        let mut out = Vec::new();
        for token in tokens - count..tokens {
            for head in 0..kv_heads * group {
                let q = &q[(token * kv_heads * group + head) * width..][..width];
                let at = |token: usize| (token * kv_heads + head / group) * width;
                let scores: Vec<f64> = (0..=token)
                    .map(|seen| {
                        let k = k[at(seen)..].iter().map(|&key| stored(key));
                        let dot: f64 = q.iter().zip(k).map(|(&q, k)| f64::from(q) * k).sum();
                        dot / (width as f64).sqrt()
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..width).map(|channel| {
                    let seen = weights.iter().enumerate();
                    let terms = seen.map(|(seen, w)| w * stored(v[at(seen) + channel]));
                    terms.sum::<f64>() / sum
                }));
            }
        }
        out
    }

    #[test]
    fn attention_agrees_with_f64() {
        // Channels below, at and above two panels; groups that fill chunks and do not.
        let shapes = [[1, 1, 2], [2, 3, 8], [1, 7, 20], [3, 1, 32], [2, 2, 80]];
        with_each_instruction_set(|set| {
            for [kv_heads, group, width] in shapes {
                for dtype in [KvCacheDType::F32, KvCacheDType::F16] {
                    let capacity = 301;
                    let shape = CachedShape {
                        kv_heads,
                        group,
                        width,
                        capacity,
                    };
                    let mut kv = CpuKv::new(shape, dtype);
                    let all = [
                        values(capacity * kv_heads * group * width, 1),
                        values(capacity * kv_heads * width, 2),
                        values(capacity * kv_heads * width, 3),
                    ];
                    let mut past = 0;
                    // A first row, a row, several chunks, and rows beyond a tile of columns; queries of all tokens,
                    // of the last one and of several.
                    for (count, queries) in [(1, 1), (1, 1), (59, 59), (7, 1), (232, 50), (1, 1)] {
                        let [q, k, v] = all.each_ref().map(|all| {
                            let row = all.len() / capacity;
                            &all[past * row..(past + count) * row]
                        });
                        let angles = angles(past, count, width);
                        let q = &q[(count - queries) * kv_heads * group * width..];
                        let got = kv.attend(q.to_vec(), k.to_vec(), v, &angles, past);
                        past += count;
                        let so_far = all
                            .each_ref()
                            .map(|all| &all[..all.len() / capacity * past]);
                        let expected = expected(shape, dtype, so_far, queries);
                        assert_eq!(got.len(), expected.len());
                        for (got, expected) in got.iter().zip(expected) {
                            assert!(
                                (f64::from(*got) - expected).abs() < 5e-6,
                                "{set:?} {shape:?} {dtype:?}, {queries} of {past}: {got} {expected}"
                            );
                        }
                    }
                    assert_eq!(past, capacity);
                }
            }
        });
    }

    #[test]
    fn tokens_after_the_past_are_replaced() {
        let shape = CachedShape {
            kv_heads: 1,
            group: 2,
            width: 8,
            capacity: 20,
        };
        let row = |seed: usize| (values(16, seed), values(8, seed + 1), values(8, seed + 2));
        let angles = angles(0, 1, 8);
        let mut kv = CpuKv::new(shape, KvCacheDType::F32);
        let (q, k, v) = row(1);
        let first = kv.attend(q.clone(), k.clone(), &v, &angles, 0);
        let (other_q, other_k, other_v) = row(5);
        kv.attend(other_q, other_k, &other_v, &angles, 1);
        assert_eq!(kv.attend(q, k, &v, &angles, 0), first);
    }

    #[test]
    fn values_that_are_not_finite_show() {
        let shape = CachedShape {
            kv_heads: 2,
            group: 1,
            width: 8,
            capacity: 40,
        };
        let count = 30;
        for bad in [f32::NAN, f32::INFINITY] {
            for part in 0..3 {
                let mut all = [1, 2, 3].map(|seed| values(count * 16, seed));
                all[part][16 * 3 + 2] = bad;
                let [q, k, v] = all;
                let mut kv = CpuKv::new(shape, KvCacheDType::F32);
                let got = kv.attend(q, k, &v, &angles(0, count, 8), 0);
                let of_token = &got[16 * 3..][..8];
                assert!(
                    of_token.iter().any(|y| !y.is_finite()),
                    "{bad} {part}: {of_token:?}"
                );
                // A value that is not finite times a weight of zero is NaN.
                if part < 2 {
                    assert!(got[..16 * 3].iter().all(|y| y.is_finite()), "{bad} {part}");
                }
            }
        }
    }
}
