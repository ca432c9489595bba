//! Products of a [`PackedMatrix`](super::PackedMatrix) with activations that are quantized to int8: in blocks of
//! 32, each with the scale `max |x| / 127`. Products and sums of a block are integers and exact; those of the blocks
//! are added in f32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use super::{Panels, code};
use crate::cpu::tiles::{LANES, Vector, multiply_add};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::simd::{InstructionSet, instruction_set};
use crate::simd::{for_each_chunk, fused, threads};

/// Products of codes of 8 bits are those of the code less this.
pub(super) const OFFSET: i32 = 128;

/// Activations with the same scale.
pub(super) const BLOCK: usize = 32;

/// Words of four activations in a block.
pub(super) const QUADS: usize = BLOCK / 4;

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
pub(super) struct Block {
    /// Four activations in each word, in the order in which bytes of codes come out of a word of weights: with
    /// 4 bits of every eight first those of the low halves of bytes, then those of the high ones.
    pub(super) quads: [u32; QUADS],
    pub(super) scale: f32,
    /// The sum of the quantized activations, times `scale`.
    pub(super) sum: f32,
    /// `sum` times what is missing from the codes of [`dots`].
    missing: f32,
    /// The sum of the quantized activations.
    pub(super) total: i32,
}

fused! {
    /// Quantizes rows of whole blocks, `[M, blocks, 32]`, to `[blocks, M]`.
    fn quantize_plain(x: &[f32], rows: usize, missing: f32, out: &mut [Block]) {
        quantize_rows(x, rows, missing, out, in_order);
    }
}

fused! {
    /// The same in the other order.
    fn quantize_nibbles(x: &[f32], rows: usize, missing: f32, out: &mut [Block]) {
        quantize_rows(x, rows, missing, out, nibbles_in_order);
    }
}

#[inline(always)]
fn quantize_rows(
    x: &[f32],
    rows: usize,
    missing: f32,
    out: &mut [Block],
    order: impl Fn(&[i32; BLOCK]) -> [u32; QUADS],
) {
    let blocks = out.len() / rows;
    for (index, x) in x.as_chunks().0.iter().enumerate() {
        out[index % blocks * rows + index / blocks] = quantized(x, missing, &order);
    }
}

#[inline(always)]
fn quantized(
    x: &[f32; BLOCK],
    missing: f32,
    order: impl Fn(&[i32; BLOCK]) -> [u32; QUADS],
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
    let sum = scale * total as f32;
    Block {
        quads: order(&codes),
        scale,
        sum,
        missing: sum * missing,
        total,
    }
}

/// [`Block::quads`] for codes of 8 bits.
#[inline(always)]
pub(super) fn in_order(x: &[i32; BLOCK]) -> [u32; QUADS] {
    quads(|quad, byte| x[4 * quad + byte])
}

/// The same for codes of 4 bits.
#[inline(always)]
pub(super) fn nibbles_in_order(x: &[i32; BLOCK]) -> [u32; QUADS] {
    quads(|quad, byte| x[8 * (quad / 2) + 2 * byte + quad % 2])
}

#[inline(always)]
fn quads(x: impl Fn(usize, usize) -> i32) -> [u32; QUADS] {
    let mut quads = [0; QUADS];
    for (quad, word) in quads.iter_mut().enumerate() {
        for byte in 0..4 {
            *word |= (x(quad, byte).cast_unsigned() & 0xff) << (8 * byte);
        }
    }
    quads
}

/// The blocks of `x` `[M, columns]` in tiles of [`TILE_ROWS`] rows, each `[blocks, rows]`.
pub(super) fn quantized_rows(panels: &Panels, x: &[f32]) -> Vec<Block> {
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
    activations
}

/// `x W^T` for `x` `[M, columns]`: `[M, rows]`.
pub(super) fn product(panels: &Panels, x: &[f32]) -> Vec<f32> {
    let blocks = panels.columns / BLOCK;
    let count = x.len() / panels.columns;
    let activations = quantized_rows(panels, x);
    let all = panels.rows.div_ceil(LANES);
    let panel_bytes = size_of_val(panels.words(0, 0)).max(1);
    let task = (CACHED / panel_bytes).min(all.div_ceil(4 * threads()));
    let task = task.clamp(1, TASK_PANELS).next_multiple_of(2);
    let row_bytes = blocks * size_of::<Block>();
    let chunk = (CACHED / row_bytes)
        .next_multiple_of(TILE_ROWS)
        .max(TILE_ROWS);
    // `[panels, M]`.
    let mut sums = vec![[0.0; LANES]; all * count];
    for_each_chunk(&mut sums, task * count, |index, sums| {
        for (chunk_index, activations) in activations.chunks(chunk * blocks).enumerate() {
            let rows = chunk_index * chunk..chunk_index * chunk + activations.len() / blocks;
            for (pair, sums) in sums.chunks_mut(2 * count).enumerate() {
                let panel = index * task + 2 * pair;
                let (first, second) = sums.split_at_mut(count);
                let first = &mut first[rows.clone()];
                match second.get_mut(rows.clone()) {
                    Some(second) => multiply_two(panels, panel, activations, [first, second]),
                    None => multiply(panels, panel, activations, first),
                }
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

/// [`multiply`] of two panels.
fn multiply_two(
    panels: &Panels,
    panel: usize,
    activations: &[Block],
    [first, second]: [&mut [Vector]; 2],
) {
    #[cfg(target_arch = "x86_64")]
    if instruction_set() == InstructionSet::Avx512Vnni {
        // SAFETY: the CPU has these instructions.
        return unsafe { avx512::multiply_two(panels, panel, activations, [first, second]) };
    }
    multiply(panels, panel, activations, first);
    multiply(panels, panel + 1, activations, second);
}

/// The products of a panel with rows of activations, in tiles of [`TILE_ROWS`] and fewer at the end.
fn multiply(panels: &Panels, panel: usize, activations: &[Block], out: &mut [Vector]) {
    #[cfg(target_arch = "x86_64")]
    match instruction_set() {
        InstructionSet::Baseline => {}
        // SAFETY: the CPU has these instructions.
        InstructionSet::Avx2Vnni => {
            return unsafe { avx2::vnni::multiply(panels, panel, activations, out) };
        }
        // SAFETY: the CPU has AVX2, FMA and F16C.
        _ => return unsafe { avx2::plain::multiply(panels, panel, activations, out) },
    }
    #[cfg(target_arch = "aarch64")]
    if instruction_set() == InstructionSet::DotProducts {
        // SAFETY: the CPU has dot products.
        return unsafe { neon::multiply(panels, panel, activations, out) };
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
