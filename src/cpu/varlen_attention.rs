//! Attention over packed sequences on the processor: rotary embedding, scores, softmax and mixing
//! in one pass, forward and backward, visiting only the keys that a row sees.
//!
//! A batch that packs several dialogues behind one picture hides three quarters of all pairs of
//! rows; tensor operations compute them all, and a dozen passes over them. Elsewhere the decoder
//! uses tensor operations and a mask.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::cpu::op::{CpuOp, apply};
use crate::cpu::simd::{exp, vectorized};

/// What a row attends to: rows before `shared`, and rows from `own` up to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSpan {
    /// End of the shared beginning.
    pub shared: usize,
    /// Begin of the row's own stretch; at least `shared`, at most the row itself.
    pub own: usize,
}

impl AttentionSpan {
    /// Everything up to the row itself.
    pub const CAUSAL: Self = Self { shared: 0, own: 0 };
}

/// Sights and turning angles of every row of a batch, on the host.
#[derive(Debug)]
pub struct PackedSequences {
    /// Rows of one sequence.
    pub length: usize,
    /// `[sequences or 1][length]`, one after the other.
    pub sights: Vec<AttentionSpan>,
    /// `[sequences or 1, length, width / 2]`.
    pub cosine: Vec<f32>,
    /// As `cosine`.
    pub sine: Vec<f32>,
}

/// Grouped attention of `q` `[B, T, heads * width]` over `k` and `v` `[B, T, groups * width]`, none
/// of them turned yet: `[B, T, heads * width]`. `width` is even. Only where
/// [`is_cpu`](crate::cpu::op::runs_on_host).
pub fn varlen_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    width: usize,
    arrangement: &Arc<PackedSequences>,
) -> Tensor<3> {
    let [batch, length, row] = q.dims();
    assert_eq!(length, arrangement.length, "rows of the arrangement");
    let op = PackedAttention {
        batch,
        heads: row / width,
        groups: k.dims()[2] / width,
        width,
        arrangement: arrangement.clone(),
    };
    apply(op, q, k, v, [batch, length, row])
}

#[derive(Debug)]
struct PackedAttention {
    batch: usize,
    heads: usize,
    groups: usize,
    width: usize,
    arrangement: Arc<PackedSequences>,
}

/// One sequence's part of the arrangement.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    sights: &'a [AttentionSpan],
    cosine: &'a [f32],
    sine: &'a [f32],
}

impl PackedAttention {
    fn sequence(&self, b: usize) -> Sequence<'_> {
        let arrangement = &*self.arrangement;
        let (length, half) = (arrangement.length, self.width / 2);
        let b = b % (arrangement.sights.len() / length);
        Sequence {
            sights: &arrangement.sights[b * length..][..length],
            cosine: &arrangement.cosine[b * length * half..][..length * half],
            sine: &arrangement.sine[b * length * half..][..length * half],
        }
    }

    /// Calls `work(b, part of out)` for each sequence, in parallel natively.
    fn for_each_sequence(&self, out: &mut [f32], work: impl Fn(usize, &mut [f32]) + Send + Sync) {
        crate::cpu::simd::for_each_chunk(out, out.len() / self.batch, work);
    }
}

impl CpuOp for PackedAttention {
    fn forward(&self, [q, k, v]: [&[f32]; 3]) -> Vec<f32> {
        let length = self.arrangement.length;
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
        let length = self.arrangement.length;
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

/// Writes one head's row `x`, turned by the row's angles, to `out`.
#[inline(always)]
fn turn(x: &[f32], row: usize, sequence: Sequence<'_>, out: &mut [f32]) {
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

/// Writes `x * scale`, turned back, to `out`.
#[inline(always)]
fn turn_back(x: &[f32], scale: f32, row: usize, sequence: Sequence<'_>, out: &mut [f32]) {
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

/// Keys or values of one group: `[T, width]`, and `[width, T + slack]` with rows and columns
/// exchanged. Inner loops run over slices, not arrays: the compiler turns those into vector code.
struct Rows {
    width: usize,
    rows: Vec<f32>,
    columns: Vec<f32>,
    stride: usize,
}

/// Stretches of keys are rounded up to this many.
const LANES: usize = 8;

impl Rows {
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

    /// Products of `x` with the rows `from..to` into `out`; up to [`LANES`] numbers after them are
    /// overwritten too.
    #[inline(always)]
    fn products(&self, x: &[f32], from: usize, to: usize, out: &mut [f32]) {
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
    fn mix(&self, weights: &[f32], from: usize, sum: &mut [f32]) {
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

/// Softmax over the keys that a row sees, shared ones first, into `weights`; returns their number.
#[inline(always)]
fn weigh(
    query: &[f32],
    keys: &Rows,
    sight: AttentionSpan,
    row: usize,
    weights: &mut [f32],
) -> usize {
    keys.products(query, 0, sight.shared, weights);
    keys.products(query, sight.own, row + 1, &mut weights[sight.shared..]);
    let count = sight.shared + row + 1 - sight.own;
    // Numbers behind the last key take part in no sum: they are made 0 by the exponential.
    let padded = count.next_multiple_of(LANES);
    weights[count..padded].fill(f32::NEG_INFINITY);
    let weights = &mut weights[..padded];
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in weights.chunks_exact(LANES) {
        for (top, &weight) in tops.iter_mut().zip(chunk) {
            *top = if weight > *top { weight } else { *top };
        }
    }
    let top = tops.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    for weight in weights.iter_mut() {
        *weight = exp(*weight - top);
    }
    for chunk in weights.chunks_exact(LANES) {
        for (sum, weight) in sums.iter_mut().zip(chunk) {
            *sum += weight;
        }
    }
    let share = 1.0 / sums.iter().sum::<f32>();
    for weight in weights.iter_mut() {
        *weight *= share;
    }
    count
}

/// Keys (turned) and values of group `group`.
#[inline(always)]
fn keys_and_values(
    k: &[f32],
    v: &[f32],
    group: usize,
    groups: usize,
    sequence: Sequence<'_>,
    width: usize,
) -> (Rows, Rows) {
    let length = sequence.sights.len();
    let at = |t: usize| (t * groups + group) * width;
    let keys = Rows::new(width, length, |t, out| {
        turn(&k[at(t)..][..width], t, sequence, out);
    });
    let values = Rows::new(width, length, |t, out| {
        out.copy_from_slice(&v[at(t)..][..width]);
    });
    (keys, values)
}

vectorized! {
    fn forward(
        q: &[f32], k: &[f32], v: &[f32], sequence: Sequence<'_>, width: usize, out: &mut [f32],
    ) {
        let length = sequence.sights.len();
        let (heads, groups) = (q.len() / (length * width), k.len() / (length * width));
        let scale = 1.0 / (width as f32).sqrt();
        let mut weights = vec![0.0; length + 2 * LANES];
        let mut query = vec![0.0; width];
        let share = heads / groups;
        for group in 0..groups {
            let (keys, values) = keys_and_values(k, v, group, groups, sequence, width);
            for head in group * share..(group + 1) * share {
                for (row, &sight) in sequence.sights.iter().enumerate() {
                    let place = (row * heads + head) * width;
                    turn(&q[place..][..width], row, sequence, &mut query);
                    for x in &mut query {
                        *x *= scale;
                    }
                    let count = weigh(&query, &keys, sight, row, &mut weights);
                    let sum = &mut out[place..][..width];
                    values.mix(&weights[..sight.shared], 0, sum);
                    values.mix(&weights[sight.shared..count], sight.own, sum);
                }
            }
        }
    }
}

vectorized! {
    /// Gradients of q, k and v one after the other into `out`, which holds zeros.
    fn backward(
        q: &[f32], k: &[f32], v: &[f32], gradient: &[f32], sequence: Sequence<'_>, width: usize,
        out: &mut [f32],
    ) {
        let length = sequence.sights.len();
        let (heads, groups) = (q.len() / (length * width), k.len() / (length * width));
        let scale = 1.0 / (width as f32).sqrt();
        let (to_q, rest) = out.split_at_mut(q.len());
        let (to_k, to_v) = rest.split_at_mut(k.len());
        let mut weights = vec![0.0; length + 2 * LANES];
        let mut slopes = vec![0.0; length + 2 * LANES];
        let (mut query, mut pull) = (vec![0.0; width], vec![0.0; width]);
        for group in 0..groups {
            let (keys, values) = keys_and_values(k, v, group, groups, sequence, width);
            let mut key_gradient = vec![0.0; length * width];
            let mut value_gradient = vec![0.0; length * width];
            let share = heads / groups;
            for head in group * share..(group + 1) * share {
                for (row, &sight) in sequence.sights.iter().enumerate() {
                    let place = (row * heads + head) * width;
                    let slope = &gradient[place..][..width];
                    turn(&q[place..][..width], row, sequence, &mut query);
                    for x in &mut query {
                        *x *= scale;
                    }
                    let count = weigh(&query, &keys, sight, row, &mut weights);
                    values.products(slope, 0, sight.shared, &mut slopes);
                    values.products(slope, sight.own, row + 1, &mut slopes[sight.shared..]);
                    let mean = dot(&weights[..count], &slopes[..count]);
                    for (weight, slope) in weights[..count].iter().zip(&mut slopes) {
                        *slope = weight * (*slope - mean);
                    }
                    pull.fill(0.0);
                    for (from, range) in [(0, 0..sight.shared), (sight.own, sight.shared..count)] {
                        let (weights, slopes) = (&weights[range.clone()], &slopes[range]);
                        keys.mix(slopes, from, &mut pull);
                        spread(slopes, &query, &mut key_gradient[from * width..]);
                        spread(weights, slope, &mut value_gradient[from * width..]);
                    }
                    turn_back(&pull, scale, row, sequence, &mut to_q[place..][..width]);
                }
            }
            for row in 0..length {
                let place = (row * groups + group) * width;
                let pull = &key_gradient[row * width..][..width];
                turn_back(pull, 1.0, row, sequence, &mut to_k[place..][..width]);
                to_v[place..][..width].copy_from_slice(&value_gradient[row * width..][..width]);
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
fn spread(factors: &[f32], x: &[f32], rows: &mut [f32]) {
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

    /// Results and gradients of two functions of three random tensors agree.
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
            let sight = |b: usize, t: usize| match (b, t) {
                (0, ..9) => AttentionSpan::CAUSAL,
                (0, 9..15) => AttentionSpan { shared: 9, own: 9 },
                (0, 15..38) => AttentionSpan { shared: 9, own: 15 },
                (0, _) => AttentionSpan { shared: 0, own: t },
                _ => AttentionSpan::CAUSAL,
            };
            let angle =
                |b: usize, t: usize, i: usize| ((b + 2 * t) as f32) * 0.9_f32.powi(i as i32);
            let mut arrangement = PackedSequences {
                length,
                sights: Vec::new(),
                cosine: Vec::new(),
                sine: Vec::new(),
            };
            let mut mask = Vec::new();
            for b in 0..batch {
                for t in 0..length {
                    let seen = sight(b, t);
                    arrangement.sights.push(seen);
                    for i in 0..half {
                        arrangement.cosine.push(angle(b, t, i).cos());
                        arrangement.sine.push(angle(b, t, i).sin());
                    }
                    mask.extend((0..length).map(|s| {
                        let visible = s < seen.shared || (seen.own..=t).contains(&s);
                        if visible { 0.0 } else { -1e9_f32 }
                    }));
                }
            }
            let tensor = |values: &[f32], shape: [usize; 4]| {
                let data = burn::tensor::TensorData::new(values.to_vec(), shape);
                Tensor::<4>::from_data(data, &device)
            };
            let mask = tensor(&mask, [batch, 1, length, length]);
            let cosine = tensor(&arrangement.cosine, [batch, length, 1, half]);
            let sine = tensor(&arrangement.sine, [batch, length, 1, half]);
            let split = |x: Tensor<3>, heads: usize| x.reshape([batch, length, heads, width]);
            let turn = |x: Tensor<4>| {
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
            let wide = |x: Tensor<4>| {
                let share = heads / groups;
                x.reshape([batch, length, groups, 1, width])
                    .expand([batch, length, groups, share, width])
                    .reshape([batch, length, heads, width])
                    .swap_dims(1, 2)
            };
            let arrangement = Arc::new(arrangement);
            assert_same_gradients(
                [
                    [batch, length, heads * width],
                    [batch, length, groups * width],
                    [batch, length, groups * width],
                ],
                |[q, k, v]| varlen_attention(q, k, v, width, &arrangement),
                |[q, k, v]| {
                    let q = turn(split(q, heads)).swap_dims(1, 2);
                    let k = wide(turn(split(k, groups)));
                    let v = wide(split(v, groups));
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
