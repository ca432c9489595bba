//! Products of two panels of a matrix with rows of activations, the innermost loops of the CPU's products.
//!
//! Eight rows of a matrix form a panel: value `j` of each row, then value `j + 1` of each row, so that the lanes of a
//! vector are rows.

use crate::simd::for_each_chunk;

/// Rows of a panel.
pub(super) const LANES: usize = 8;

/// A value of each row of a panel.
pub(super) type Vector = [f32; LANES];

/// A value of each row of two panels.
pub(super) type Wide = [f32; 2 * LANES];

/// Rows of activations that [`tiles`] multiplies at once. In a browser their sums have half as many registers, on most
/// CPUs sixteen of four lanes.
pub(super) const TILE_ROWS: usize = if cfg!(target_arch = "wasm32") { 2 } else { 6 };

/// The most columns of two panels that fill half of a first-level cache as f32.
pub(super) const TILE_COLUMNS: usize = 256;

/// A stored weight.
pub(super) trait Element: Copy {
    /// The values of a column of a panel.
    fn widen(lanes: [Self; LANES]) -> Vector;

    /// The values of columns of a panel; `buffer` may hold them.
    fn tile<'a>(panel: &'a [[Self; LANES]], buffer: &'a mut [Vector]) -> &'a [Vector];
}

impl Element for f32 {
    #[inline(always)]
    fn widen(lanes: Vector) -> Vector {
        lanes
    }

    #[inline(always)]
    fn tile<'a>(panel: &'a [Vector], _: &'a mut [Vector]) -> &'a [Vector] {
        panel
    }
}

impl Element for u16 {
    #[inline(always)]
    fn widen(lanes: [u16; LANES]) -> Vector {
        widen(lanes)
    }

    #[inline(always)]
    fn tile<'a>(panel: &'a [[u16; LANES]], buffer: &'a mut [Vector]) -> &'a [Vector] {
        let buffer = &mut buffer[..panel.len()];
        for (wide, lanes) in buffer.iter_mut().zip(panel) {
            *wide = widen(*lanes);
        }
        buffer
    }
}

/// Finite f16 to f32, in a form that compilers vectorize: the sign stays where it is, and the exponent is moved by a
/// multiplication, which is exact for subnormal numbers too.
#[inline(always)]
pub(super) fn widen(bits: [u16; LANES]) -> Vector {
    let two_to_the_112 = f32::from_bits((127 + 112) << 23);
    let mut values = [0.0; LANES];
    for (value, bits) in values.iter_mut().zip(bits) {
        let moved = (u32::from(bits) << 16).cast_signed() >> 3;
        *value = f32::from_bits(moved.cast_unsigned() & 0x8fff_ffff) * two_to_the_112;
    }
    values
}

/// `a * b + c`, rounded once where `FUSED`.
#[inline(always)]
pub(super) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `TILE_ROWS` rows of `x` at a time with the values of a column beside each other, as [`tiles`] reads them; fewer
/// rows at the end.
pub(super) fn columns_together(x: &[f32], columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for_each_chunk(&mut out, TILE_ROWS * columns, |index, out| {
        let x = &x[index * TILE_ROWS * columns..][..out.len()];
        put_together(x, columns, out);
    });
    out
}

/// Puts the values of each column of at most `TILE_ROWS` rows of `x` beside each other.
#[inline(always)]
pub(super) fn put_together(x: &[f32], columns: usize, out: &mut [f32]) {
    let rows = out.len() / columns;
    for (row, x) in x.chunks_exact(columns).enumerate() {
        for (column, x) in out.chunks_exact_mut(rows).zip(x) {
            column[row] = *x;
        }
    }
}

/// Adds the products of two panels of weights, of columns from `start`, with all rows of `x`, of
/// [`columns_together`].
// In a browser one copy serves all callers, because the size of the engine has a limit. Natively it takes the
// instruction set of its caller.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
pub(super) fn tiles<const FUSED: bool>(
    weights: [&[Vector]; 2],
    x: &[f32],
    start: usize,
    columns: usize,
    out: &mut [Wide],
) {
    let rows = out.chunks_mut(TILE_ROWS).zip(x.chunks(TILE_ROWS * columns));
    for (out, x) in rows {
        let x = &x[start * out.len()..][..weights[0].len() * out.len()];
        match out.len() {
            #[cfg(not(target_arch = "wasm32"))]
            6 => tile::<FUSED, 6>(weights, x, out),
            #[cfg(not(target_arch = "wasm32"))]
            5 => tile::<FUSED, 5>(weights, x, out),
            #[cfg(not(target_arch = "wasm32"))]
            4 => tile::<FUSED, 4>(weights, x, out),
            3 => tile::<FUSED, 3>(weights, x, out),
            2 => tile::<FUSED, 2>(weights, x, out),
            _ => tile::<FUSED, 1>(weights, x, out),
        }
    }
}

/// [`tiles`] of two pairs of panels. With `AVX512`, which the CPU must have, they are multiplied together.
#[inline(always)]
pub(super) fn two_pairs<const FUSED: bool, const AVX512: bool>(
    weights: [[&[Vector]; 2]; 2],
    x: &[f32],
    start: usize,
    columns: usize,
    [first, second]: [&mut [Wide]; 2],
) {
    #[cfg(target_arch = "x86_64")]
    if AVX512 {
        // SAFETY: the caller says that the CPU has AVX-512.
        return unsafe { avx512::two_pairs(weights, x, start, columns, [first, second]) };
    }
    let [left, right] = weights;
    tiles::<FUSED>(left, x, start, columns, first);
    tiles::<FUSED>(right, x, start, columns, second);
}

/// Adds the product of `R` rows of `x`, of [`columns_together`], with two panels of weights.
#[inline(always)]
fn tile<const FUSED: bool, const R: usize>(
    [first, second]: [&[Vector]; 2],
    x: &[f32],
    out: &mut [Wide],
) {
    let mut sums = [[[0.0; LANES]; 2]; R];
    for ((first, second), x) in first.iter().zip(second).zip(x.as_chunks::<R>().0) {
        for row in 0..R {
            let [left, right] = &mut sums[row];
            for lane in 0..LANES {
                left[lane] = multiply_add::<FUSED>(x[row], first[lane], left[lane]);
            }
            for lane in 0..LANES {
                right[lane] = multiply_add::<FUSED>(x[row], second[lane], right[lane]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
            *out += sum;
        }
    }
}

/// The same products in the same order, in vectors of two panels.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm256_loadu_ps, _mm512_add_ps, _mm512_castps256_ps512, _mm512_fmadd_ps,
        _mm512_insertf32x8, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{TILE_ROWS, Vector, Wide};

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,fma,f16c")]
    pub(super) fn two_pairs(
        weights: [[&[Vector]; 2]; 2],
        x: &[f32],
        start: usize,
        columns: usize,
        [first, second]: [&mut [Wide]; 2],
    ) {
        let width = weights[0][0].len();
        let weights = weights.map(|pair| pair.map(|panel| &panel[..width]));
        let rows = first
            .chunks_mut(TILE_ROWS)
            .zip(second.chunks_mut(TILE_ROWS));
        for ((first, second), x) in rows.zip(x.chunks(TILE_ROWS * columns)) {
            let x = &x[start * first.len()..][..width * first.len()];
            let out = [&mut *first, second];
            match out[0].len() {
                6 => tile::<6>(weights, x, out),
                5 => tile::<5>(weights, x, out),
                4 => tile::<4>(weights, x, out),
                3 => tile::<3>(weights, x, out),
                2 => tile::<2>(weights, x, out),
                _ => tile::<1>(weights, x, out),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,fma,f16c")]
    fn tile<const R: usize>(
        [[a, b], [c, d]]: [[&[Vector]; 2]; 2],
        x: &[f32],
        mut out: [&mut [Wide]; 2],
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let weights = a.iter().zip(b).zip(c.iter().zip(d));
        for (((a, b), (c, d)), x) in weights.zip(x.as_chunks::<R>().0) {
            let weights = [join(a, b), join(c, d)];
            for row in 0..R {
                let x = _mm512_set1_ps(x[row]);
                for pair in 0..2 {
                    sums[row][pair] = _mm512_fmadd_ps(x, weights[pair], sums[row][pair]);
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (out, sums) in out.iter_mut().zip(sums) {
                let out = out[row].as_mut_ptr();
                // SAFETY: the row has room for sixteen floats.
                unsafe { _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sums)) };
            }
        }
    }

    /// The lanes of two panels.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,fma,f16c")]
    fn join(first: &Vector, second: &Vector) -> __m512 {
        // SAFETY: both have eight floats.
        let (first, second) = unsafe {
            (
                _mm256_loadu_ps(first.as_ptr()),
                _mm256_loadu_ps(second.as_ptr()),
            )
        };
        _mm512_insertf32x8::<1>(_mm512_castps256_ps512(first), second)
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn every_finite_f16_is_widened_exactly() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        for bits in bits.as_chunks().0 {
            for (bits, value) in bits.iter().zip(widen(*bits)) {
                let expected = f16::from_bits(*bits).to_f32();
                if expected.is_finite() {
                    assert_eq!(value.to_bits(), expected.to_bits(), "{bits:#x}");
                }
            }
        }
    }
}
