//! Loads from panels into vectors.

use std::arch::x86_64::*;

use super::{LANES, Panels, Scales, Vector};

/// Scales and minima of a group. Without `MINIMUM` the minima are the scales.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scale<const MINIMUM: bool>(
    panels: &Panels,
    panel: usize,
    group: usize,
) -> (__m256, __m256) {
    let per_group = 1 + usize::from(MINIMUM);
    let at = (panel * panels.groups() + group) * per_group;
    let scale = lanes(&panels.scales, at);
    match MINIMUM {
        true => (scale, lanes(&panels.scales, at + 1)),
        false => (scale, scale),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn lanes(scales: &Scales, at: usize) -> __m256 {
    match scales {
        // SAFETY: the vector has eight halves.
        Scales::F16(bits) => unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bits[at].as_ptr().cast())) },
        // SAFETY: the vector has eight floats.
        Scales::F32(values) => unsafe { _mm256_loadu_ps(values[at].as_ptr()) },
    }
}

/// [`scale`] of two panels.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,f16c")]
pub(super) fn scale_of_two<const MINIMUM: bool>(
    panels: &Panels,
    pair: [usize; 2],
    group: usize,
) -> (__m512, __m512) {
    // Intrinsics in a closure of `map` would not be inlined.
    let left = scale::<MINIMUM>(panels, pair[0], group);
    let right = scale::<MINIMUM>(panels, pair[1], group);
    (join(left.0, right.0), join(left.1, right.1))
}

/// The lanes of two panels.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,f16c")]
fn join(left: __m256, right: __m256) -> __m512 {
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(left), right)
}

/// [`dequantize_tile`](super::dequantize_tile).
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn dequantize_tile(panels: &Panels, panel: usize, first: usize, tile: &mut [Vector]) {
    match (panels.scheme.bits, panels.scheme.minimum) {
        (4, false) => dequantize_tile_of::<4, 8, false>(panels, panel, first, tile),
        (4, true) => dequantize_tile_of::<4, 8, true>(panels, panel, first, tile),
        (_, false) => dequantize_tile_of::<8, 4, false>(panels, panel, first, tile),
        (_, true) => dequantize_tile_of::<8, 4, true>(panels, panel, first, tile),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn dequantize_tile_of<const BITS: u32, const PER_WORD: usize, const MINIMUM: bool>(
    panels: &Panels,
    panel: usize,
    first: usize,
    tile: &mut [Vector],
) {
    let group = panels.scheme.group;
    let first = first / group;
    let offset = _mm256_set1_ps(panels.scheme.offset() as f32);
    let mask = _mm256_set1_epi32((1 << BITS) - 1);
    let words = panels.words(panel, first).chunks_exact(group / PER_WORD);
    for (at, (tile, words)) in tile.chunks_exact_mut(group).zip(words).enumerate() {
        let (scale, minimum) = scale::<MINIMUM>(panels, panel, first + at);
        for (values, words) in tile.as_chunks_mut::<PER_WORD>().0.iter_mut().zip(words) {
            let words = integers(words);
            for (k, value) in values.iter_mut().enumerate() {
                let shift = _mm256_set1_epi32((k as u32 * BITS).cast_signed());
                let code = _mm256_and_si256(_mm256_srlv_epi32(words, shift), mask);
                let code = _mm256_sub_ps(_mm256_cvtepi32_ps(code), offset);
                let mut row = _mm256_mul_ps(code, scale);
                if MINIMUM {
                    row = _mm256_add_ps(row, minimum);
                }
                // SAFETY: the vector has room for eight floats.
                unsafe { _mm256_storeu_ps(value.as_mut_ptr(), row) };
            }
        }
    }
}

/// Prefetches the line at `address`, which may be of no object.
#[inline(always)]
pub(super) fn prefetch(address: *const i8) {
    // SAFETY: every CPU of the target has the instruction, and it has no effect but on caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

/// The words of a panel.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn integers(words: &[u32; LANES]) -> __m256i {
    // SAFETY: the vector has the size of the words.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// The words of two panels.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
pub(super) fn join_words(left: &[u32; LANES], right: &[u32; LANES]) -> __m512i {
    _mm512_inserti32x8::<1>(_mm512_castsi256_si512(integers(left)), integers(right))
}
