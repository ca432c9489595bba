//! f32 and f16 weights in panels, so that products read them in the order in which they lie in memory.

use std::ops::Range;

use super::{TASK_BYTES, interleave};
use crate::cpu::tiles::{
    Element, LANES, TILE_COLUMNS, Vector, Wide, multiply_add, tiles, two_pairs,
};
use crate::simd::{for_each_chunk, fused};

/// Consecutive rows of a matrix of f32 or f16.
pub(super) struct DensePanels {
    pub(super) rows: usize,
    pub(super) columns: usize,
    values: Values,
}

/// `[panels, columns]`, with an even number of panels.
enum Values {
    F32(Vec<Vector>),
    /// Bits of f16, all finite.
    F16(Vec<[u16; LANES]>),
}

/// Calls a function with the vector in [`Values`].
macro_rules! with_values {
    ($values:expr, $name:ident => $body:expr) => {
        match $values {
            Values::F32($name) => $body,
            Values::F16($name) => $body,
        }
    };
}

impl DensePanels {
    /// `values` `[rows, columns]`, row-major.
    pub(super) fn new(values: &[f32], shape: [usize; 2]) -> Self {
        Self::of(shape, Values::F32(in_pairs(values, shape)))
    }

    /// The same of the bits of finite f16.
    pub(super) fn f16(bits: &[u16], shape: [usize; 2]) -> Self {
        Self::of(shape, Values::F16(in_pairs(bits, shape)))
    }

    fn of([rows, columns]: [usize; 2], values: Values) -> Self {
        Self {
            rows,
            columns,
            values,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        with_values!(&self.values, values => size_of_val(&values[..]))
    }

    pub(super) fn row(&self, index: usize) -> Vec<f32> {
        let lane = index % LANES;
        with_values!(&self.values, values => {
            let panel = panel(values, self.columns, index / LANES).iter();
            panel.map(|lanes| Element::widen(*lanes)[lane]).collect()
        })
    }

    /// The product with one row `x`.
    pub(super) fn one_row(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.rows.next_multiple_of(LANES)];
        let task = TASK_BYTES.div_ceil(self.columns * size_of::<Vector>());
        for_each_chunk(&mut out, task * LANES, |index, out| {
            gemv(self, index * task, x, out);
        });
        out.truncate(self.rows);
        out
    }
}

/// `values` `[rows, columns]` in an even number of panels.
fn in_pairs<T: Copy + Default + Send + Sync>(
    values: &[T],
    [rows, columns]: [usize; 2],
) -> Vec<[T; LANES]> {
    assert_eq!(values.len(), rows * columns, "weights");
    let panels = rows.next_multiple_of(2 * LANES) / LANES;
    interleave(values, columns, panels)
}

fn panel<T>(values: &[[T; LANES]], columns: usize, index: usize) -> &[[T; LANES]] {
    &values[index * columns..][..columns]
}

fused! {
    /// The product of the panels from `first` with one row `x`: as many panels as `out` holds.
    fn gemv(panels: &DensePanels, first: usize, x: &[f32], out: &mut [f32]) {
        with_values!(&panels.values, values => {
            gemv_of::<FUSED, _>(values, panels.columns, first, x, out);
        });
    }
}

#[inline(always)]
fn gemv_of<const FUSED: bool, T: Element>(
    values: &[[T; LANES]],
    columns: usize,
    first: usize,
    x: &[f32],
    out: &mut [f32],
) {
    for (at, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        // Four sums, so that an addition need not wait for the one before.
        let mut parts = [[0.0; LANES]; 4];
        let (weights, last_weights) = panel(values, columns, first + at).as_chunks::<4>();
        let (x, last_x) = x.as_chunks::<4>();
        for (weights, x) in weights.iter().zip(x) {
            for k in 0..4 {
                let weights = T::widen(weights[k]);
                for lane in 0..LANES {
                    parts[k][lane] = multiply_add::<FUSED>(weights[lane], x[k], parts[k][lane]);
                }
            }
        }
        for (weights, &x) in last_weights.iter().zip(last_x) {
            let weights = T::widen(*weights);
            for lane in 0..LANES {
                parts[0][lane] = multiply_add::<FUSED>(weights[lane], x, parts[0][lane]);
            }
        }
        let [a, b, c, d] = parts;
        for lane in 0..LANES {
            out[lane] = (a[lane] + b[lane]) + (c[lane] + d[lane]);
        }
    }
}

fused! {
    /// The products of pairs of panels from `first` with `count` rows `x`, of
    /// [`columns_together`](super::columns_together): as many pairs as `out`, `[pairs, count]`, holds.
    pub(super) fn gemm(panels: &DensePanels, first: usize, count: usize, x: &[f32], out: &mut [Wide]) {
        with_values!(&panels.values, values => {
            gemm_of::<FUSED, AVX512, _>(values, panels.columns, first, count, x, out);
        });
    }
}

#[inline(always)]
fn gemm_of<const FUSED: bool, const AVX512: bool, T: Element>(
    values: &[[T; LANES]],
    columns: usize,
    first: usize,
    count: usize,
    x: &[f32],
    out: &mut [Wide],
) {
    let mut buffers = [[[[0.0; LANES]; TILE_COLUMNS]; 2]; 2];
    let [left, right] = &mut buffers;
    out.fill([0.0; 2 * LANES]);
    for start in (0..columns).step_by(TILE_COLUMNS) {
        let end = columns.min(start + TILE_COLUMNS);
        for (at, out) in out.chunks_mut(2 * count).enumerate() {
            let at = 2 * (first + 2 * at);
            let first = pair(values, columns, at, start..end, left);
            if out.len() == count {
                tiles::<FUSED>(first, x, start, columns, out);
            } else {
                let second = pair(values, columns, at + 2, start..end, right);
                let out = out.split_at_mut(count).into();
                two_pairs::<FUSED, AVX512>([first, second], x, start, columns, out);
            }
        }
    }
}

/// Columns of the panels `first` and `first + 1`; `buffers` may hold them.
#[inline(always)]
fn pair<'a, T: Element>(
    values: &'a [[T; LANES]],
    columns: usize,
    first: usize,
    range: Range<usize>,
    [left, right]: &'a mut [[Vector; TILE_COLUMNS]; 2],
) -> [&'a [Vector]; 2] {
    [
        T::tile(&panel(values, columns, first)[range.clone()], left),
        T::tile(&panel(values, columns, first + 1)[range], right),
    ]
}
