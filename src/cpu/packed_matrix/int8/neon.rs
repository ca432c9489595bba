//! [`multiply`](super::multiply) with the dot products of 64-bit ARM, which Armv8.2 has as an option and Armv8.4 as
//! a rule. `sdot` multiplies signed bytes and adds fours in 32 bits.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{BLOCK, Block, LANES, OFFSET, Panels, QUADS, TILE_ROWS, Vector};

/// The lanes of a panel.
type Integers = [int32x4_t; 2];

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply(panels: &Panels, panel: usize, activations: &[Block], out: &mut [Vector]) {
    match (panels.scheme.bits, panels.scheme.minimum) {
        (4, false) => in_tiles::<4, false>(panels, panel, activations, out),
        (4, true) => in_tiles::<4, true>(panels, panel, activations, out),
        (_, false) => in_tiles::<8, false>(panels, panel, activations, out),
        (_, true) => in_tiles::<8, true>(panels, panel, activations, out),
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
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
#[target_feature(enable = "neon,dotprod")]
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
    let mut sums = [[vdupq_n_f32(0.0); 2]; R];
    for (group, (words, rows)) in words.zip(rows.chunks_exact(per_group)).enumerate() {
        let (scale, minimum) = panels.scale(panel, group);
        let (scale, minimum) = (floats(&scale), floats(&minimum));
        for (words, rows) in words.chunks_exact(words_per_block).zip(rows) {
            let dots = match BITS {
                4 => dots_of_4_bits(words, rows),
                _ => dots_of_8_bits(words, rows),
            };
            for row in 0..R {
                let block = &rows[row];
                for half in 0..2 {
                    let dots = vcvtq_f32_s32(dots[row][half]);
                    let missing = vdupq_n_f32(block.missing);
                    let dots = vfmaq_n_f32(missing, dots, block.scale);
                    let sum = &mut sums[row][half];
                    *sum = vfmaq_f32(*sum, dots, scale[half]);
                    if MINIMUM {
                        *sum = vfmaq_n_f32(*sum, minimum[half], block.sum);
                    }
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        let (low, high) = out.split_at_mut(LANES / 2);
        for (out, sums) in [low, high].into_iter().zip(sums) {
            // SAFETY: half a vector has room for four floats.
            unsafe { vst1q_f32(out.as_mut_ptr(), sums) };
        }
    }
}

/// For each row of a panel, the sums of the products of 32 codes with each of `R` blocks.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots_of_4_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [Integers; R] {
    let mut sums = [[vdupq_n_s32(0); 2]; R];
    for (word, codes) in words.iter().enumerate().take(QUADS / 2) {
        for (half, codes) in bytes(codes).into_iter().enumerate() {
            let low = vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(15)));
            let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(codes));
            for row in 0..R {
                let quads = &rows[row].quads;
                let sum = dot(sums[row][half], low, quads[2 * word]);
                sums[row][half] = dot(sum, high, quads[2 * word + 1]);
            }
        }
    }
    sums
}

/// The same for codes of 8 bits, less [`OFFSET`].
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots_of_8_bits<const R: usize>(words: &[[u32; LANES]], rows: &[Block; R]) -> [Integers; R] {
    let mut sums = [[vdupq_n_s32(0); 2]; R];
    for (word, codes) in words.iter().enumerate().take(QUADS) {
        for (half, codes) in bytes(codes).into_iter().enumerate() {
            let codes = vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(OFFSET as u8)));
            for row in 0..R {
                sums[row][half] = dot(sums[row][half], codes, rows[row].quads[word]);
            }
        }
    }
    sums
}

/// Adds the products of the four bytes of each lane with those of `quad`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(sums: int32x4_t, codes: int8x16_t, quad: u32) -> int32x4_t {
    let quads = vreinterpretq_s8_u32(vdupq_n_u32(quad));
    let mut sums = sums;
    // The function for this instruction is not stable.
    // SAFETY: the CPU has the instruction; it only changes the register of the sums.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {quads:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            quads = in(vreg) quads,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The bytes of the words of a panel.
#[inline]
#[target_feature(enable = "neon")]
fn bytes(words: &[u32; LANES]) -> [uint8x16_t; 2] {
    let (low, high) = words.split_at(LANES / 2);
    // SAFETY: each half has four words.
    let (low, high) = unsafe { (vld1q_u32(low.as_ptr()), vld1q_u32(high.as_ptr())) };
    [vreinterpretq_u8_u32(low), vreinterpretq_u8_u32(high)]
}

#[inline]
#[target_feature(enable = "neon")]
fn floats(values: &Vector) -> [float32x4_t; 2] {
    let (low, high) = values.split_at(LANES / 2);
    // SAFETY: each half has four floats.
    unsafe { [vld1q_f32(low.as_ptr()), vld1q_f32(high.as_ptr())] }
}
