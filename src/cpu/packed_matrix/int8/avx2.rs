//! [`multiply`](super::multiply) with AVX2.

use std::arch::x86_64::*;

use super::{BLOCK, Block, LANES, OFFSET, Panels, QUADS, TILE_ROWS, Vector};
use crate::cpu::packed_matrix::x86::{integers, scale};

/// Defines `multiply` for the instruction sets `$features`, of which `dots_of_4_bits` and `dots_of_8_bits` make use.
macro_rules! multiply_with {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(in super::super) fn multiply(
            panels: &Panels,
            panel: usize,
            activations: &[Block],
            out: &mut [Vector],
        ) {
            match (panels.scheme.bits, panels.scheme.minimum) {
                (4, false) => in_tiles::<4, false>(panels, panel, activations, out),
                (4, true) => in_tiles::<4, true>(panels, panel, activations, out),
                (_, false) => in_tiles::<8, false>(panels, panel, activations, out),
                (_, true) => in_tiles::<8, true>(panels, panel, activations, out),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn in_tiles<const BITS: u32, const MINIMUM: bool>(
            panels: &Panels,
            panel: usize,
            activations: &[Block],
            out: &mut [Vector],
        ) {
            let blocks = panels.columns / BLOCK;
            let rows = activations.chunks(TILE_ROWS * blocks);
            for (out, x) in out.chunks_mut(TILE_ROWS).zip(rows) {
                match out.len() {
                    6 => tile::<BITS, MINIMUM, 6>(panels, panel, x, out),
                    5 => tile::<BITS, MINIMUM, 5>(panels, panel, x, out),
                    4 => tile::<BITS, MINIMUM, 4>(panels, panel, x, out),
                    3 => tile::<BITS, MINIMUM, 3>(panels, panel, x, out),
                    2 => tile::<BITS, MINIMUM, 2>(panels, panel, x, out),
                    _ => tile::<BITS, MINIMUM, 1>(panels, panel, x, out),
                }
            }
        }

        /// The products of a panel with `R` rows of blocks.
        #[inline]
        #[target_feature(enable = $features)]
        fn tile<const BITS: u32, const MINIMUM: bool, const R: usize>(
            panels: &Panels,
            panel: usize,
            x: &[Block],
            out: &mut [Vector],
        ) {
            let (rows, _) = x.as_chunks::<R>();
            let per_group = panels.scheme.group / BLOCK;
            let words_per_block = BLOCK * BITS as usize / 32;
            let words = panels.words(panel, 0);
            let words = words.chunks_exact(words_per_block * per_group);
            let mut sums = [_mm256_setzero_ps(); R];
            for (group, (words, rows)) in words.zip(rows.chunks_exact(per_group)).enumerate() {
                let (scale, minimum) = scale::<MINIMUM>(panels, panel, group);
                for (words, rows) in words.chunks_exact(words_per_block).zip(rows) {
                    let dots = match BITS {
                        4 => dots_of_4_bits(words, rows),
                        _ => dots_of_8_bits(words, rows),
                    };
                    for row in 0..R {
                        let block = &rows[row];
                        let dots = _mm256_fmadd_ps(
                            _mm256_cvtepi32_ps(dots[row]),
                            _mm256_set1_ps(block.scale),
                            _mm256_set1_ps(block.missing),
                        );
                        sums[row] = _mm256_fmadd_ps(dots, scale, sums[row]);
                        if MINIMUM {
                            let sum = _mm256_set1_ps(block.sum);
                            sums[row] = _mm256_fmadd_ps(minimum, sum, sums[row]);
                        }
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                // SAFETY: the vector has room for eight floats.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
            }
        }
    };
}

/// `vpmaddubsw` multiplies unsigned with signed bytes and adds pairs in 16 bits.
pub(super) mod plain {
    use super::*;

    multiply_with!("avx2,fma,f16c");

    /// For each row of a panel, the sums of the products of 32 codes with each of `R` blocks.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn dots_of_4_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [__m256i; R] {
        // At most 16 * 15 * 127 in 16 bits.
        let mut sums = [_mm256_setzero_si256(); R];
        for (word, codes) in words.iter().enumerate().take(QUADS / 2) {
            let [low, high] = nibbles(codes);
            for row in 0..R {
                let quads = &rows[row].quads;
                let (even, odd) = (broadcast(quads[2 * word]), broadcast(quads[2 * word + 1]));
                let even = _mm256_maddubs_epi16(low, even);
                let odd = _mm256_maddubs_epi16(high, odd);
                sums[row] = _mm256_add_epi16(sums[row], _mm256_add_epi16(even, odd));
            }
        }
        for sums in &mut sums {
            *sums = _mm256_madd_epi16(*sums, _mm256_set1_epi16(1));
        }
        sums
    }

    /// The same for codes of 8 bits, less [`OFFSET`].
    #[inline]
    #[target_feature(enable = "avx2")]
    fn dots_of_8_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [__m256i; R] {
        let offset = _mm256_set1_epi8(OFFSET as u8 as i8);
        let mut sums = [_mm256_setzero_si256(); R];
        for (word, codes) in words.iter().enumerate().take(QUADS) {
            let codes = _mm256_xor_si256(integers(codes), offset);
            let sizes = _mm256_abs_epi8(codes);
            for row in 0..R {
                // At most 2 * 128 * 127 in 16 bits: the signs of the codes move to the activations.
                let x = _mm256_sign_epi8(broadcast(rows[row].quads[word]), codes);
                let pairs = _mm256_maddubs_epi16(sizes, x);
                let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                sums[row] = _mm256_add_epi32(sums[row], fours);
            }
        }
        sums
    }
}

/// `vpdpbusd` multiplies unsigned with signed bytes and adds fours in 32 bits.
pub(super) mod vnni {
    use super::*;

    multiply_with!("avx2,fma,f16c,avxvnni");

    /// For each row of a panel, the sums of the products of 32 codes with each of `R` blocks.
    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    fn dots_of_4_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [__m256i; R] {
        let mut sums = [_mm256_setzero_si256(); R];
        for (word, codes) in words.iter().enumerate().take(QUADS / 2) {
            let [low, high] = nibbles(codes);
            for row in 0..R {
                let quads = &rows[row].quads;
                let (even, odd) = (broadcast(quads[2 * word]), broadcast(quads[2 * word + 1]));
                let sum = _mm256_dpbusd_avx_epi32(sums[row], low, even);
                sums[row] = _mm256_dpbusd_avx_epi32(sum, high, odd);
            }
        }
        sums
    }

    /// The same for codes of 8 bits, less [`OFFSET`].
    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    fn dots_of_8_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [__m256i; R] {
        let mut sums = [_mm256_setzero_si256(); R];
        for row in 0..R {
            sums[row] = _mm256_set1_epi32(-OFFSET * rows[row].total);
        }
        for (word, codes) in words.iter().enumerate().take(QUADS) {
            let codes = integers(codes);
            for row in 0..R {
                let x = broadcast(rows[row].quads[word]);
                sums[row] = _mm256_dpbusd_avx_epi32(sums[row], codes, x);
            }
        }
        sums
    }
}

/// The low and the high halves of the bytes of a word.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(codes: &[u32; LANES]) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    let codes = integers(codes);
    let high = _mm256_srli_epi16::<4>(codes);
    [_mm256_and_si256(codes, mask), _mm256_and_si256(high, mask)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(quad: u32) -> __m256i {
    _mm256_set1_epi32(quad.cast_signed())
}
