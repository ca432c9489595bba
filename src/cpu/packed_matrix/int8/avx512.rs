//! [`multiply_two`](super::multiply_two) with AVX-512 and VNNI, whose `vpdpbusd` multiplies unsigned with signed bytes
//! and adds fours in 32 bits. A vector has the lanes of two panels.

use std::arch::x86_64::*;

use super::{BLOCK, Block, LANES, OFFSET, Panels, QUADS, TILE_ROWS, Vector};
use crate::cpu::packed_matrix::x86::{join_words, scale_of_two};

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_two(
    panels: &Panels,
    panel: usize,
    activations: &[Block],
    out: [&mut [Vector]; 2],
) {
    match (panels.scheme.bits, panels.scheme.minimum) {
        (4, false) => in_tiles::<4, false>(panels, panel, activations, out),
        (4, true) => in_tiles::<4, true>(panels, panel, activations, out),
        (_, false) => in_tiles::<8, false>(panels, panel, activations, out),
        (_, true) => in_tiles::<8, true>(panels, panel, activations, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
fn in_tiles<const BITS: u32, const MINIMUM: bool>(
    panels: &Panels,
    panel: usize,
    activations: &[Block],
    [first, second]: [&mut [Vector]; 2],
) {
    let blocks = panels.columns / BLOCK;
    let rows = activations.chunks(TILE_ROWS * blocks);
    let out = first
        .chunks_mut(TILE_ROWS)
        .zip(second.chunks_mut(TILE_ROWS));
    for ((first, second), x) in out.zip(rows) {
        let count = first.len();
        let out = [first, second];
        match count {
            6 => tile::<BITS, MINIMUM, 6>(panels, panel, x, out),
            5 => tile::<BITS, MINIMUM, 5>(panels, panel, x, out),
            4 => tile::<BITS, MINIMUM, 4>(panels, panel, x, out),
            3 => tile::<BITS, MINIMUM, 3>(panels, panel, x, out),
            2 => tile::<BITS, MINIMUM, 2>(panels, panel, x, out),
            _ => tile::<BITS, MINIMUM, 1>(panels, panel, x, out),
        }
    }
}

/// The products of two panels with `R` rows of blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
fn tile<const BITS: u32, const MINIMUM: bool, const R: usize>(
    panels: &Panels,
    panel: usize,
    x: &[Block],
    [first, second]: [&mut [Vector]; 2],
) {
    let (rows, _) = x.as_chunks::<R>();
    let per_group = panels.scheme.group / BLOCK;
    let words_per_block = BLOCK * BITS as usize / 32;
    let per_group_words = words_per_block * per_group;
    let [left, right] = [panel, panel + 1].map(|panel| panels.words(panel, 0));
    let words = left
        .chunks_exact(per_group_words)
        .zip(right.chunks_exact(per_group_words));
    let mut sums = [_mm512_setzero_ps(); R];
    for (group, ((left, right), rows)) in words.zip(rows.chunks_exact(per_group)).enumerate() {
        let (scale, minimum) = scale_of_two::<MINIMUM>(panels, [panel, panel + 1], group);
        let blocks = left
            .chunks_exact(words_per_block)
            .zip(right.chunks_exact(words_per_block));
        for ((left, right), rows) in blocks.zip(rows) {
            let dots = match BITS {
                4 => dots_of_4_bits([left, right], rows),
                _ => dots_of_8_bits([left, right], rows),
            };
            for row in 0..R {
                let block = &rows[row];
                let dots = _mm512_fmadd_ps(
                    _mm512_cvtepi32_ps(dots[row]),
                    _mm512_set1_ps(block.scale),
                    _mm512_set1_ps(block.missing),
                );
                sums[row] = _mm512_fmadd_ps(dots, scale, sums[row]);
                if MINIMUM {
                    let sum = _mm512_set1_ps(block.sum);
                    sums[row] = _mm512_fmadd_ps(minimum, sum, sums[row]);
                }
            }
        }
    }
    for ((first, second), sums) in first.iter_mut().zip(second).zip(sums) {
        // SAFETY: each vector has room for eight floats.
        unsafe {
            _mm256_storeu_ps(first.as_mut_ptr(), _mm512_castps512_ps256(sums));
            _mm256_storeu_ps(second.as_mut_ptr(), _mm512_extractf32x8_ps::<1>(sums));
        }
    }
}

/// For each row of two panels, the sums of the products of 32 codes with each of `R` blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
fn dots_of_4_bits<const R: usize>(
    [left, right]: [&[[u32; LANES]]; 2],
    rows: &[Block; R],
) -> [__m512i; R] {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); R];
    for (word, (left, right)) in left.iter().zip(right).enumerate().take(QUADS / 2) {
        let codes = join_words(left, right);
        let low = _mm512_and_si512(codes, mask);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
        for row in 0..R {
            let quads = &rows[row].quads;
            let (even, odd) = (broadcast(quads[2 * word]), broadcast(quads[2 * word + 1]));
            let sum = _mm512_dpbusd_epi32(sums[row], low, even);
            sums[row] = _mm512_dpbusd_epi32(sum, high, odd);
        }
    }
    sums
}

/// The same for codes of 8 bits, less [`OFFSET`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
fn dots_of_8_bits<const R: usize>(
    [left, right]: [&[[u32; LANES]]; 2],
    rows: &[Block; R],
) -> [__m512i; R] {
    let mut sums = [_mm512_setzero_si512(); R];
    for row in 0..R {
        sums[row] = _mm512_set1_epi32(-OFFSET * rows[row].total);
    }
    for (word, (left, right)) in left.iter().zip(right).enumerate().take(QUADS) {
        let codes = join_words(left, right);
        for row in 0..R {
            let x = broadcast(rows[row].quads[word]);
            sums[row] = _mm512_dpbusd_epi32(sums[row], codes, x);
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
fn broadcast(quad: u32) -> __m512i {
    _mm512_set1_epi32(quad.cast_signed())
}
