//! Products of a [`PackedMatrix`](super::PackedMatrix) with activations that are quantized to int8: in blocks of
//! 32, each with the scale `max |x| / 127`. Products and sums of a block are integers and exact; those of the blocks
//! are added in f32.

#[cfg(target_arch = "x86_64")]
use super::Scales;
use super::{Panels, code};
use crate::cpu::tiles::{LANES, Vector, multiply_add};
use crate::simd::{for_each_chunk, fused, threads};

/// Products of codes of 8 bits are those of the code less this.
const OFFSET: i32 = 128;

/// Activations with the same scale.
const BLOCK: usize = 32;

/// Words of four activations in a block.
const QUADS: usize = BLOCK / 4;

/// Rows of activations that a tile multiplies at once.
const TILE_ROWS: usize = 6;

/// Bytes of activations, and of weights, that stay in a second-level cache while they are multiplied.
const CACHED: usize = 128 << 10;

/// The most panels of a task.
const TASK_PANELS: usize = 16;

/// Quantizes rows.
type Quantize = fn(x: &[f32], rows: usize, missing: f32, out: &mut [Block]);

/// 32 activations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Block {
    /// Four activations in each word, in the order in which bytes of codes come out of a word of weights: with
    /// 4 bits of every eight first those of the low halves of bytes, then those of the high ones.
    quads: [u32; QUADS],
    scale: f32,
    /// The sum of the quantized activations, times `scale`.
    sum: f32,
    /// `sum` times what is missing from the codes of [`dots`].
    missing: f32,
}

fused! {
    /// Quantizes rows of whole blocks, `[M, blocks, 32]`, to `[blocks, M]`.
    fn quantize_plain(x: &[f32], rows: usize, missing: f32, out: &mut [Block]) {
        quantize_rows(x, rows, missing, out, |codes, quad, byte| codes[4 * quad + byte]);
    }
}

fused! {
    /// The same in the other order.
    fn quantize_nibbles(x: &[f32], rows: usize, missing: f32, out: &mut [Block]) {
        let at = |codes: &[i32; BLOCK], quad, byte| codes[8 * (quad / 2) + 2 * byte + quad % 2];
        quantize_rows(x, rows, missing, out, at);
    }
}

#[inline(always)]
fn quantize_rows(
    x: &[f32],
    rows: usize,
    missing: f32,
    out: &mut [Block],
    at: impl Fn(&[i32; BLOCK], usize, usize) -> i32,
) {
    let blocks = out.len() / rows;
    for (index, x) in x.as_chunks().0.iter().enumerate() {
        out[index % blocks * rows + index / blocks] = quantized(x, missing, &at);
    }
}

#[inline(always)]
fn quantized(
    x: &[f32; BLOCK],
    missing: f32,
    at: impl Fn(&[i32; BLOCK], usize, usize) -> i32,
) -> Block {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUNDING: f32 = 12_582_912.0;
    let mut largest = [0.0_f32; LANES];
    // 0, or NaN if a value is not finite.
    let mut check = [0.0_f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let size = x[lane].abs();
            largest[lane] = if size > largest[lane] {
                size
            } else {
                largest[lane]
            };
            check[lane] += x[lane] * 0.0;
        }
    }
    let largest = largest.into_iter().fold(0.0, f32::max);
    let check: f32 = check.iter().sum();
    let inverse = 127.0 / largest;
    let (scale, inverse) = match inverse.is_finite() {
        true => (largest / 127.0, inverse),
        false => (0.0, 0.0),
    };
    let mut codes = [0; BLOCK];
    let mut total = 0_i32;
    for (code, x) in codes.iter_mut().zip(x) {
        let bits = (x * inverse + ROUNDING).to_bits();
        *code = bits.wrapping_sub(ROUNDING.to_bits()).cast_signed();
        total = i32::wrapping_add(total, *code);
    }
    let scale = scale + check;
    let mut quads = [0; QUADS];
    for (quad, word) in quads.iter_mut().enumerate() {
        for byte in 0..4 {
            *word |= (at(&codes, quad, byte).cast_unsigned() & 0xff) << (8 * byte);
        }
    }
    let sum = scale * total as f32;
    Block {
        quads,
        scale,
        sum,
        missing: sum * missing,
    }
}

/// `x W^T` for `x` `[M, columns]`: `[M, rows]`.
pub(super) fn product(panels: &Panels, x: &[f32]) -> Vec<f32> {
    let blocks = panels.columns / BLOCK;
    let count = x.len() / panels.columns;
    let (quantize, subtracted): (Quantize, i32) = match panels.scheme.bits {
        4 => (quantize_nibbles, 0),
        _ => (quantize_plain, OFFSET),
    };
    let missing = (subtracted - panels.scheme.offset()) as f32;
    let mut activations = vec![Block::default(); count * blocks];
    for_each_chunk(&mut activations, TILE_ROWS * blocks, |tile, out| {
        let x = &x[tile * TILE_ROWS * panels.columns..];
        quantize(&x[..out.len() * BLOCK], out.len() / blocks, missing, out);
    });
    let all = panels.rows.div_ceil(LANES);
    let panel_bytes = size_of_val(panels.words(0, 0)).max(1);
    let task = (CACHED / panel_bytes).min(all.div_ceil(4 * threads()));
    let task = task.clamp(1, TASK_PANELS);
    let row_bytes = blocks * size_of::<Block>();
    let chunk = (CACHED / row_bytes)
        .next_multiple_of(TILE_ROWS)
        .max(TILE_ROWS);
    // `[panels, M]`.
    let mut sums = vec![[0.0; LANES]; all * count];
    for_each_chunk(&mut sums, task * count, |index, sums| {
        for (chunk_index, activations) in activations.chunks(chunk * blocks).enumerate() {
            let rows = activations.len() / blocks;
            for (panel, sums) in sums.chunks_exact_mut(count).enumerate() {
                let sums = &mut sums[chunk_index * chunk..][..rows];
                multiply(panels, index * task + panel, activations, sums);
            }
        }
    });
    if count == 1 {
        let mut out = sums.into_flattened();
        out.truncate(panels.rows);
        return out;
    }
    let mut out = vec![0.0; count * panels.rows];
    for_each_chunk(&mut out, panels.rows, |row, out| {
        for (panel, out) in out.chunks_mut(LANES).enumerate() {
            out.copy_from_slice(&sums[panel * count + row][..out.len()]);
        }
    });
    out
}

/// The products of a panel with rows of activations, in tiles of [`TILE_ROWS`] and fewer at the end.
fn multiply(panels: &Panels, panel: usize, activations: &[Block], out: &mut [Vector]) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::instruction_set() >= crate::simd::InstructionSet::Avx2 {
        // SAFETY: the CPU has AVX2 and FMA.
        return unsafe { avx2::multiply(panels, panel, activations, out) };
    }
    multiply_portable(panels, panel, activations, out);
}

fused! {
    fn multiply_portable(panels: &Panels, panel: usize, activations: &[Block], out: &mut [Vector]) {
        match (panels.scheme.bits, panels.scheme.minimum) {
            (4, false) => by_blocks::<FUSED, false, 4>(panels, panel, activations, out, dots::<4, 4, 0>),
            (4, true) => by_blocks::<FUSED, true, 4>(panels, panel, activations, out, dots::<4, 4, 0>),
            (_, false) => by_blocks::<FUSED, false, 8>(panels, panel, activations, out, dots::<8, 8, OFFSET>),
            (_, true) => by_blocks::<FUSED, true, 8>(panels, panel, activations, out, dots::<8, 8, OFFSET>),
        }
    }
}

#[inline(always)]
fn by_blocks<const FUSED: bool, const MINIMUM: bool, const WORDS: usize>(
    panels: &Panels,
    panel: usize,
    activations: &[Block],
    out: &mut [Vector],
    dots: impl Fn(&[[u32; LANES]; WORDS], &[u32; QUADS]) -> [i32; LANES],
) {
    let words = panels.words(panel, 0).as_chunks::<WORDS>().0;
    let tiles = activations.chunks(TILE_ROWS * words.len());
    for (out, tile) in out.chunks_mut(TILE_ROWS).zip(tiles) {
        out.fill([0.0; LANES]);
        let blocks = words.iter().zip(tile.chunks_exact(out.len()));
        for (at, (words, rows)) in blocks.enumerate() {
            let (scale, minimum) = panels.scale(panel, at * BLOCK / panels.scheme.group);
            for (sum, block) in out.iter_mut().zip(rows) {
                let dots = dots(words, &block.quads);
                for lane in 0..LANES {
                    let dot = dots[lane] as f32;
                    let dot = multiply_add::<FUSED>(dot, block.scale, block.missing);
                    sum[lane] = multiply_add::<FUSED>(dot, scale[lane], sum[lane]);
                    if MINIMUM {
                        sum[lane] = multiply_add::<FUSED>(minimum[lane], block.sum, sum[lane]);
                    }
                }
            }
        }
    }
}

/// The sums of the products of codes, less `SUBTRACTED`, and quantized activations, for each row of a panel.
#[inline(always)]
fn dots<const BITS: u32, const WORDS: usize, const SUBTRACTED: i32>(
    words: &[[u32; LANES]; WORDS],
    quads: &[u32; QUADS],
) -> [i32; LANES] {
    let per_word = 32 / BITS as usize;
    let quads_per_word = QUADS / WORDS;
    let mut dots = [0; LANES];
    for (word, quads) in words.iter().zip(quads.chunks_exact(quads_per_word)) {
        for k in 0..per_word {
            let quad = quads[k % quads_per_word];
            let x = i32::from((quad >> (8 * (k / quads_per_word))) as u8 as i8);
            for lane in 0..LANES {
                dots[lane] += (code::<BITS>(word[lane], k) as i32 - SUBTRACTED) * x;
            }
        }
    }
    dots
}

/// [`multiply`] with AVX2, whose `vpmaddubsw` multiplies unsigned with signed bytes and adds pairs in 16 bits.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Block, LANES, Panels, QUADS, Scales, TILE_ROWS, Vector};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn multiply(
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
    #[target_feature(enable = "avx2,fma,f16c")]
    fn tile<const BITS: u32, const MINIMUM: bool, const R: usize>(
        panels: &Panels,
        panel: usize,
        x: &[Block],
        out: &mut [Vector],
    ) {
        let (rows, _) = x.as_chunks::<R>();
        let per_group = panels.scheme.group / BLOCK;
        let words_per_block = BLOCK * BITS as usize / 32;
        let words = panels
            .words(panel, 0)
            .chunks_exact(words_per_block * per_group);
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
                        sums[row] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(block.sum), sums[row]);
                    }
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            // SAFETY: the vector has room for eight floats.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sums) };
        }
    }

    /// For each row of a panel, the sums of the products of 32 codes with each of `R` blocks.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn dots_of_4_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [__m256i; R] {
        let mask = _mm256_set1_epi8(15);
        // At most 16 * 15 * 127 in 16 bits.
        let mut sums = [_mm256_setzero_si256(); R];
        for (word, codes) in words.iter().enumerate().take(QUADS / 2) {
            let codes = integers(codes);
            let low = _mm256_and_si256(codes, mask);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
            for row in 0..R {
                let [even, odd] = [0, 1].map(|half| broadcast(rows[row].quads[2 * word + half]));
                let even = _mm256_maddubs_epi16(low, even);
                let odd = _mm256_maddubs_epi16(high, odd);
                sums[row] = _mm256_add_epi16(sums[row], _mm256_add_epi16(even, odd));
            }
        }
        sums.map(|sums| _mm256_madd_epi16(sums, _mm256_set1_epi16(1)))
    }

    /// The same for codes of 8 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn dots_of_8_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [__m256i; R] {
        let mut sums = [_mm256_setzero_si256(); R];
        for (word, codes) in words.iter().enumerate().take(QUADS) {
            let codes = _mm256_xor_si256(integers(codes), _mm256_set1_epi8(-128));
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

    /// Scales and minima of a group.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn scale<const MINIMUM: bool>(panels: &Panels, panel: usize, group: usize) -> (__m256, __m256) {
        let per_group = 1 + usize::from(MINIMUM);
        let at = (panel * panels.groups() + group) * per_group;
        let get = |at: usize| match &panels.scales {
            // SAFETY: the vector has eight halves.
            Scales::F16(bits) => unsafe {
                _mm256_cvtph_ps(_mm_loadu_si128(bits[at].as_ptr().cast()))
            },
            // SAFETY: the vector has eight floats.
            Scales::F32(values) => unsafe { _mm256_loadu_ps(values[at].as_ptr()) },
        };
        (get(at), get(at + per_group - 1))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn broadcast(quad: u32) -> __m256i {
        _mm256_set1_epi32(quad.cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn integers(word: &[u32; LANES]) -> __m256i {
        // SAFETY: the vector has the size of the word.
        unsafe { _mm256_loadu_si256(word.as_ptr().cast()) }
    }
}
