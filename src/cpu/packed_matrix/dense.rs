//! f32 weights in panels, so that products read them in the order in which they lie in memory.

use super::{LANES, TASK_BYTES, TILE_COLUMNS, Vector, Wide, interleave, multiply_add, tiles};
use crate::simd::{for_each_chunk, fused};

/// Consecutive rows of an f32 matrix.
pub(super) struct DensePanels {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// `[panels, columns]`, with an even number of panels.
    values: Vec<Vector>,
}

impl DensePanels {
    /// `values` `[rows, columns]`, row-major.
    pub(super) fn new(values: &[f32], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), rows * columns, "weights");
        let mut values = interleave(values, rows, columns, |value| value);
        values.resize(
            rows.next_multiple_of(2 * LANES) / LANES * columns,
            [0.0; LANES],
        );
        Self {
            rows,
            columns,
            values,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.values[..])
    }

    pub(super) fn row(&self, index: usize) -> Vec<f32> {
        let panel = self.panel(index / LANES).iter();
        panel.map(|lanes| lanes[index % LANES]).collect()
    }

    fn panel(&self, index: usize) -> &[Vector] {
        &self.values[index * self.columns..][..self.columns]
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

fused! {
    /// The product of the panels from `first` with one row `x`: as many panels as `out` holds.
    fn gemv(panels: &DensePanels, first: usize, x: &[f32], out: &mut [f32]) {
        for (panel, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // Four sums, so that an addition need not wait for the one before.
            let mut parts = [[0.0; LANES]; 4];
            let (weights, last_weights) = panels.panel(first + panel).as_chunks::<4>();
            let (x, last_x) = x.as_chunks::<4>();
            for (weights, x) in weights.iter().zip(x) {
                for k in 0..4 {
                    for lane in 0..LANES {
                        parts[k][lane] = multiply_add::<FUSED>(weights[k][lane], x[k], parts[k][lane]);
                    }
                }
            }
            for (weights, &x) in last_weights.iter().zip(last_x) {
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
}

fused! {
    /// The products of pairs of panels from `first` with `count` rows `x`, of
    /// [`columns_together`](super::columns_together): as many pairs as `out`, `[pairs, count]`, holds.
    pub(super) fn gemm(panels: &DensePanels, first: usize, count: usize, x: &[f32], out: &mut [Wide]) {
        out.fill([0.0; 2 * LANES]);
        for start in (0..panels.columns).step_by(TILE_COLUMNS) {
            let end = panels.columns.min(start + TILE_COLUMNS);
            for (pair, out) in out.chunks_exact_mut(count).enumerate() {
                let panel = 2 * (first + pair);
                let weights = [panel, panel + 1].map(|panel| &panels.panel(panel)[start..end]);
                tiles::<FUSED>(weights, x, start, panels.columns, out);
            }
        }
    }
}
