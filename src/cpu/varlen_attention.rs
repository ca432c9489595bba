//! Variable-length attention over packed sequences on the CPU: RoPE, scores, softmax and weighted sum in
//! one pass, forward and backward, over the unmasked keys only.
//!
//! In a batch that packs several dialogues after one image, three quarters of all pairs of rows are
//! masked; tensor operations compute them all, in a dozen passes. On other devices the decoder uses
//! tensor operations with a mask.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::cpu::op::{CpuOp, apply};
use crate::simd::{exp, vectorized};

/// The rows that a row attends to: those before `prefix_len`, and those from `start` up to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSpan {
    /// Length of the prefix that sequences share.
    pub prefix_len: usize,
    /// Start of the row's own sequence; at least `prefix_len`, at most the row itself.
    pub start: usize,
}

impl AttentionSpan {
    /// All rows up to the row itself.
    pub const CAUSAL: Self = Self {
        prefix_len: 0,
        start: 0,
    };
}

/// Attention spans and RoPE tables of the rows of a batch.
#[derive(Debug)]
pub struct PackedSequences {
    /// Rows of a packed sequence.
    pub length: usize,
    /// `[sequences or 1, length]`.
    pub spans: Vec<AttentionSpan>,
    /// `[sequences or 1, length, width / 2]`.
    pub cosine: Vec<f32>,
    /// As `cosine`.
    pub sine: Vec<f32>,
}

/// Grouped-query attention of `q` `[B, T, heads * width]` over `k` and `v` `[B, T, groups * width]`, with
/// RoPE applied here: `[B, T, heads * width]`. `width` is even. On a device that
/// [`is_cpu`](crate::cpu::op::is_cpu) only.
pub fn varlen_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    width: usize,
    sequences: &Arc<PackedSequences>,
) -> Tensor<3> {
    let [batch, length, row] = q.dims();
    assert_eq!(
        length, sequences.length,
        "varlen_attention: rows of a sequence"
    );
    let op = PackedAttention {
        batch,
        heads: row / width,
        groups: k.dims()[2] / width,
        width,
        sequences: sequences.clone(),
    };
    apply(op, q, k, v, [batch, length, row])
}

#[derive(Debug)]
struct PackedAttention {
    batch: usize,
    heads: usize,
    groups: usize,
    width: usize,
    sequences: Arc<PackedSequences>,
}

/// Spans and RoPE tables of one packed sequence.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    spans: &'a [AttentionSpan],
    cosine: &'a [f32],
    sine: &'a [f32],
}

impl PackedAttention {
    fn sequence(&self, b: usize) -> Sequence<'_> {
        let sequences = &*self.sequences;
        let (length, half) = (sequences.length, self.width / 2);
        let b = b % (sequences.spans.len() / length);
        Sequence {
            spans: &sequences.spans[b * length..][..length],
            cosine: &sequences.cosine[b * length * half..][..length * half],
            sine: &sequences.sine[b * length * half..][..length * half],
        }
    }

    /// Calls `work(b, part of out)` for each sequence, in parallel natively.
    fn for_each_sequence(&self, out: &mut [f32], work: impl Fn(usize, &mut [f32]) + Send + Sync) {
        crate::simd::for_each_chunk(out, out.len() / self.batch, work);
    }
}

impl CpuOp for PackedAttention {
    fn forward(&self, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
        let length = self.sequences.length;
        let (wide, narrow) = (self.heads * self.width, self.groups * self.width);
        let mut out = vec![0.0; q.len()];
        self.for_each_sequence(&mut out, |b, out| {
            let q = &q[b * length * wide..][..length * wide];
            let k = &k[b * length * narrow..][..length * narrow];
            let v = &v[b * length * narrow..][..length * narrow];
            let sequence = self.sequence(b);
            forward(q, k, v, sequence, self.width, out);
        });
        out
    }

    fn backward(&self, [q, k, v]: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let length = self.sequences.length;
        let (wide, narrow) = (self.heads * self.width, self.groups * self.width);
        let part = length * (wide + 2 * narrow);
        let mut parts = vec![0.0; self.batch * part];
        self.for_each_sequence(&mut parts, |b, part| {
            let q = &q[b * length * wide..][..length * wide];
            let gradient = &gradient[b * length * wide..][..length * wide];
            let k = &k[b * length * narrow..][..length * narrow];
            let v = &v[b * length * narrow..][..length * narrow];
            let sequence = self.sequence(b);
            backward(q, k, v, gradient, sequence, self.width, part);
        });
        let gather = |from: usize, size: usize| {
            let mut all = Vec::with_capacity(self.batch * size);
            for part in parts.chunks_exact(part) {
                all.extend_from_slice(&part[from..from + size]);
            }
            all
        };
        [
            gather(0, length * wide),
            gather(length * wide, length * narrow),
            gather(length * (wide + narrow), length * narrow),
        ]
    }
}

/// Writes row `x` of one head, with RoPE applied, to `out`.
#[inline(always)]
fn apply_rope(x: &[f32], row: usize, sequence: Sequence<'_>, out: &mut [f32]) {
    let half = x.len() / 2;
    let cosine = &sequence.cosine[row * half..][..half];
    let sine = &sequence.sine[row * half..][..half];
    let (x0, x1) = x.split_at(half);
    let (out0, out1) = out.split_at_mut(half);
    for i in 0..half {
        out0[i] = x0[i] * cosine[i] - x1[i] * sine[i];
        out1[i] = x1[i] * cosine[i] + x0[i] * sine[i];
    }
}

/// Writes `x * scale`, with the inverse rotation applied, to `out`: the gradient of RoPE.
#[inline(always)]
fn apply_inverse_rope(x: &[f32], scale: f32, row: usize, sequence: Sequence<'_>, out: &mut [f32]) {
    let half = x.len() / 2;
    let cosine = &sequence.cosine[row * half..][..half];
    let sine = &sequence.sine[row * half..][..half];
    let (x0, x1) = x.split_at(half);
    let (out0, out1) = out.split_at_mut(half);
    for i in 0..half {
        out0[i] = (x0[i] * cosine[i] + x1[i] * sine[i]) * scale;
        out1[i] = (x1[i] * cosine[i] - x0[i] * sine[i]) * scale;
    }
}

/// Keys or values of one group, `[T, width]` and transposed `[width, T + LANES]`. Inner loops run over
/// slices, which compilers vectorize.
struct KvGroup {
    width: usize,
    rows: Vec<f32>,
    columns: Vec<f32>,
    stride: usize,
}

/// Ranges of keys are rounded up to a multiple of this.
const LANES: usize = 8;

impl KvGroup {
    #[inline(always)]
    fn new(width: usize, length: usize, mut fill: impl FnMut(usize, &mut [f32])) -> Self {
        let stride = length + LANES;
        let mut rows = vec![0.0; length * width];
        let mut columns = vec![0.0; width * stride];
        for (t, row) in rows.chunks_exact_mut(width).enumerate() {
            fill(t, row);
            for (i, value) in row.iter().enumerate() {
                columns[i * stride + t] = *value;
            }
        }
        Self {
            width,
            rows,
            columns,
            stride,
        }
    }

    /// Writes the dot products of `x` with the rows `from..to` to `out`; overwrites up to [`LANES`] values
    /// after them.
    #[inline(always)]
    fn dot_rows(&self, x: &[f32], from: usize, to: usize, out: &mut [f32]) {
        let count = (to - from).next_multiple_of(LANES);
        let out = &mut out[..count];
        out.fill(0.0);
        let mut i = 0;
        while i + 4 <= self.width {
            let column = |j: usize| &self.columns[(i + j) * self.stride + from..][..count];
            let (c0, c1, c2, c3) = (column(0), column(1), column(2), column(3));
            let (x0, x1, x2, x3) = (x[i], x[i + 1], x[i + 2], x[i + 3]);
            for j in 0..count {
                out[j] += (x0 * c0[j] + x1 * c1[j]) + (x2 * c2[j] + x3 * c3[j]);
            }
            i += 4;
        }
        while i < self.width {
            let column = &self.columns[i * self.stride + from..][..count];
            for j in 0..count {
                out[j] += x[i] * column[j];
            }
            i += 1;
        }
    }

    /// `sum += weights[j] * row(from + j)`.
    #[inline(always)]
    fn weighted_sum(&self, weights: &[f32], from: usize, sum: &mut [f32]) {
        let width = self.width;
        let rows = &self.rows[from * width..][..weights.len() * width];
        let sum = &mut sum[..width];
        let (fours, rest) = weights.as_chunks::<4>();
        for (w, rows) in fours.iter().zip(rows.chunks_exact(4 * width)) {
            let (r0, rows) = rows.split_at(width);
            let (r1, rows) = rows.split_at(width);
            let (r2, r3) = rows.split_at(width);
            let r3 = &r3[..width];
            for i in 0..width {
                sum[i] += (w[0] * r0[i] + w[1] * r1[i]) + (w[2] * r2[i] + w[3] * r3[i]);
            }
        }
        for (w, row) in rest
            .iter()
            .zip(rows[fours.len() * 4 * width..].chunks_exact(width))
        {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += w * value;
            }
        }
    }
}

/// Writes the softmax over the keys of a row's span to `weights`, the shared prefix first; returns their
/// number.
#[inline(always)]
fn softmax_of_span(
    query: &[f32],
    keys: &KvGroup,
    span: AttentionSpan,
    row: usize,
    weights: &mut [f32],
) -> usize {
    keys.dot_rows(query, 0, span.prefix_len, weights);
    keys.dot_rows(query, span.start, row + 1, &mut weights[span.prefix_len..]);
    let count = span.prefix_len + row + 1 - span.start;
    // Padding after the last key has weight exp(-inf) = 0.
    let padded = count.next_multiple_of(LANES);
    weights[count..padded].fill(f32::NEG_INFINITY);
    let weights = &mut weights[..padded];
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for chunk in weights.chunks_exact(LANES) {
        for (max, &weight) in maxima.iter_mut().zip(chunk) {
            *max = if weight > *max { weight } else { *max };
        }
    }
    let max = maxima.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for weight in weights.iter_mut() {
        *weight = exp(*weight - max);
    }
    for chunk in weights.chunks_exact(LANES) {
        for (sum, weight) in sums.iter_mut().zip(chunk) {
            *sum += weight;
        }
    }
    let normalizer = 1.0 / sums.iter().sum::<f32>();
    for weight in weights.iter_mut() {
        *weight *= normalizer;
    }
    count
}

/// Keys, with RoPE applied, and values of group `group`.
#[inline(always)]
fn keys_and_values(
    k: &[f32],
    v: &[f32],
    group: usize,
    groups: usize,
    sequence: Sequence<'_>,
    width: usize,
) -> (KvGroup, KvGroup) {
    let length = sequence.spans.len();
    let at = |t: usize| (t * groups + group) * width;
    let keys = KvGroup::new(width, length, |t, out| {
        apply_rope(&k[at(t)..][..width], t, sequence, out);
    });
    let values = KvGroup::new(width, length, |t, out| {
        out.copy_from_slice(&v[at(t)..][..width]);
    });
    (keys, values)
}

vectorized! {
    fn forward(
        q: &[f32], k: &[f32], v: &[f32], sequence: Sequence<'_>, width: usize, out: &mut [f32],
    ) {
        let length = sequence.spans.len();
        let (heads, groups) = (q.len() / (length * width), k.len() / (length * width));
        let scale = 1.0 / (width as f32).sqrt();
        let mut weights = vec![0.0; length + 2 * LANES];
        let mut query = vec![0.0; width];
        let group_heads = heads / groups;
        for group in 0..groups {
            let (keys, values) = keys_and_values(k, v, group, groups, sequence, width);
            for head in group * group_heads..(group + 1) * group_heads {
                for (row, &span) in sequence.spans.iter().enumerate() {
                    let offset = (row * heads + head) * width;
                    apply_rope(&q[offset..][..width], row, sequence, &mut query);
                    for x in &mut query {
                        *x *= scale;
                    }
                    let count = softmax_of_span(&query, &keys, span, row, &mut weights);
                    let sum = &mut out[offset..][..width];
                    values.weighted_sum(&weights[..span.prefix_len], 0, sum);
                    values.weighted_sum(&weights[span.prefix_len..count], span.start, sum);
                }
            }
        }
    }
}

vectorized! {
    /// Writes the gradients of q, k and v, concatenated, to `out`, which holds zeros.
    fn backward(
        q: &[f32], k: &[f32], v: &[f32], gradient: &[f32], sequence: Sequence<'_>, width: usize,
        out: &mut [f32],
    ) {
        let length = sequence.spans.len();
        let (heads, groups) = (q.len() / (length * width), k.len() / (length * width));
        let scale = 1.0 / (width as f32).sqrt();
        let (to_q, rest) = out.split_at_mut(q.len());
        let (to_k, to_v) = rest.split_at_mut(k.len());
        let mut weights = vec![0.0; length + 2 * LANES];
        let mut score_gradients = vec![0.0; length + 2 * LANES];
        let (mut query, mut q_gradient) = (vec![0.0; width], vec![0.0; width]);
        for group in 0..groups {
            let (keys, values) = keys_and_values(k, v, group, groups, sequence, width);
            let mut key_gradient = vec![0.0; length * width];
            let mut value_gradient = vec![0.0; length * width];
            let group_heads = heads / groups;
            for head in group * group_heads..(group + 1) * group_heads {
                for (row, &span) in sequence.spans.iter().enumerate() {
                    let offset = (row * heads + head) * width;
                    let out_gradient = &gradient[offset..][..width];
                    apply_rope(&q[offset..][..width], row, sequence, &mut query);
                    for x in &mut query {
                        *x *= scale;
                    }
                    let count = softmax_of_span(&query, &keys, span, row, &mut weights);
                    values.dot_rows(out_gradient, 0, span.prefix_len, &mut score_gradients);
                    values.dot_rows(out_gradient, span.start, row + 1, &mut score_gradients[span.prefix_len..]);
                    let mean = dot(&weights[..count], &score_gradients[..count]);
                    for (weight, gradient) in weights[..count].iter().zip(&mut score_gradients) {
                        *gradient = weight * (*gradient - mean);
                    }
                    q_gradient.fill(0.0);
                    for (from, range) in [(0, 0..span.prefix_len), (span.start, span.prefix_len..count)] {
                        let (weights, score_gradients) = (&weights[range.clone()], &score_gradients[range]);
                        keys.weighted_sum(score_gradients, from, &mut q_gradient);
                        add_outer(score_gradients, &query, &mut key_gradient[from * width..]);
                        add_outer(weights, out_gradient, &mut value_gradient[from * width..]);
                    }
                    apply_inverse_rope(&q_gradient, scale, row, sequence, &mut to_q[offset..][..width]);
                }
            }
            for row in 0..length {
                let offset = (row * groups + group) * width;
                let k_gradient = &key_gradient[row * width..][..width];
                apply_inverse_rope(k_gradient, 1.0, row, sequence, &mut to_k[offset..][..width]);
                to_v[offset..][..width].copy_from_slice(&value_gradient[row * width..][..width]);
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>();
    lanes.iter().sum::<f32>() + rest
}

/// `rows[j] += factors[j] * x`.
#[inline(always)]
fn add_outer(factors: &[f32], x: &[f32], rows: &mut [f32]) {
    for (factor, row) in factors.iter().zip(rows.chunks_exact_mut(x.len())) {
        for (value, x) in row.iter_mut().zip(x) {
            *value += factor * x;
        }
    }
}

#[cfg(all(test, feature = "native"))]
pub(crate) mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    /// Asserts that two functions of three random tensors have the same values and gradients.
    pub(crate) fn assert_same_gradients(
        shapes: [[usize; 3]; 3],
        ours: impl Fn([Tensor<3>; 3]) -> Tensor<3>,
        theirs: impl Fn([Tensor<3>; 3]) -> Tensor<3>,
    ) {
        let device = Device::flex().autodiff();
        let inputs = shapes.map(|shape| {
            Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
        });
        let (ours, theirs) = (ours(inputs.clone()), theirs(inputs.clone()));
        let slopes =
            Tensor::<3>::random(ours.dims(), Distribution::Normal(0.0, 1.0), &device).detach();
        let difference = |a: Tensor<3>, b: Tensor<3>| (a - b).abs().max().into_scalar::<f32>();
        let error = difference(ours.clone().inner(), theirs.clone().inner());
        assert!(error < 2e-5, "results differ by {error}");
        let (ours, theirs) = (
            (ours * slopes.clone()).sum().backward(),
            (theirs * slopes).sum().backward(),
        );
        for (i, input) in inputs.iter().enumerate() {
            let Some(expected) = input.grad(&theirs) else {
                continue;
            };
            let error = difference(input.grad(&ours).expect("a gradient"), expected);
            assert!(error < 2e-4, "gradients of input {i} differ by {error}");
        }
    }

    #[test]
    fn equals_masked_attention() {
        let device = Device::flex();
        for (width, heads, groups) in [(8, 4, 2), (32, 3, 1), (10, 2, 2), (24, 6, 2)] {
            let (batch, length, half) = (2, 41, width / 2);
            let span_of = |b: usize, t: usize| match (b, t) {
                (0, ..9) => AttentionSpan::CAUSAL,
                (0, 9..15) => AttentionSpan {
                    prefix_len: 9,
                    start: 9,
                },
                (0, 15..38) => AttentionSpan {
                    prefix_len: 9,
                    start: 15,
                },
                (0, _) => AttentionSpan {
                    prefix_len: 0,
                    start: t,
                },
                _ => AttentionSpan::CAUSAL,
            };
            let angle =
                |b: usize, t: usize, i: usize| ((b + 2 * t) as f32) * 0.9_f32.powi(i as i32);
            let mut sequences = PackedSequences {
                length,
                spans: Vec::new(),
                cosine: Vec::new(),
                sine: Vec::new(),
            };
            let mut mask = Vec::new();
            for b in 0..batch {
                for t in 0..length {
                    let span = span_of(b, t);
                    sequences.spans.push(span);
                    for i in 0..half {
                        sequences.cosine.push(angle(b, t, i).cos());
                        sequences.sine.push(angle(b, t, i).sin());
                    }
                    mask.extend((0..length).map(|s| {
                        let visible = s < span.prefix_len || (span.start..=t).contains(&s);
                        if visible { 0.0 } else { -1e9_f32 }
                    }));
                }
            }
            let tensor = |values: &[f32], shape: [usize; 4]| {
                let data = burn::tensor::TensorData::new(values.to_vec(), shape);
                Tensor::<4>::from_data(data, &device)
            };
            let mask = tensor(&mask, [batch, 1, length, length]);
            let cosine = tensor(&sequences.cosine, [batch, length, 1, half]);
            let sine = tensor(&sequences.sine, [batch, length, 1, half]);
            let split = |x: Tensor<3>, heads: usize| x.reshape([batch, length, heads, width]);
            let apply_rope = |x: Tensor<4>| {
                let first = x.clone().narrow(3, 0, half);
                let second = x.narrow(3, half, half);
                let (cosine, sine) = (cosine.clone(), sine.clone());
                Tensor::cat(
                    vec![
                        first.clone() * cosine.clone() - second.clone() * sine.clone(),
                        second * cosine + first * sine,
                    ],
                    3,
                )
            };
            let repeat_heads = |x: Tensor<4>| {
                let group_heads = heads / groups;
                x.reshape([batch, length, groups, 1, width])
                    .expand([batch, length, groups, group_heads, width])
                    .reshape([batch, length, heads, width])
                    .swap_dims(1, 2)
            };
            let sequences = Arc::new(sequences);
            assert_same_gradients(
                [
                    [batch, length, heads * width],
                    [batch, length, groups * width],
                    [batch, length, groups * width],
                ],
                |[q, k, v]| varlen_attention(q, k, v, width, &sequences),
                |[q, k, v]| {
                    let q = apply_rope(split(q, heads)).swap_dims(1, 2);
                    let k = repeat_heads(apply_rope(split(k, groups)));
                    let v = repeat_heads(split(v, groups));
                    let scores = q.matmul(k.swap_dims(2, 3)) / (width as f32).sqrt();
                    let weights = burn::tensor::activation::softmax(scores + mask.clone(), 3);
                    weights
                        .matmul(v)
                        .swap_dims(1, 2)
                        .reshape([batch, length, heads * width])
                },
            );
        }
    }
}
