//! Products with one row of activations, each of which is a sum of signed bytes: `scale * (d0 + 256 d1 + ...)`.
//! Products and sums of the bytes of a block are integers and exact, and instructions multiply 64 of them at once.

use std::arch::x86_64::*;

use super::int8::{BLOCK, Block, QUADS, in_order, nibbles_in_order};
use super::x86::{join_words, prefetch, scale_of_two};
use super::{Panels, Scales};
use crate::cpu::tiles::LANES;
use crate::simd::{InstructionSet, for_each_chunk, fused, instruction_set};

/// Bytes of an f32 activation. Values of a block that are at least `2^-6` of its largest one are exact, others to
/// within `2^-30` of that.
const EXACT: usize = 4;

/// Bytes of codes of a panel that are prefetched.
const AHEAD: usize = 6 << 10;

/// Bytes of codes that one task reads at least.
const TASK_BYTES: usize = 64 << 10;

/// Whether the CPU has the instructions.
pub(super) fn is_available() -> bool {
    instruction_set() == InstructionSet::Avx512Vnni
}

/// 32 activations.
#[derive(Clone, Copy)]
struct Digits<const D: usize> {
    /// The bytes of each digit in the order of [`Block::quads`], the digit that counts least first.
    quads: [[u32; QUADS]; D],
    /// What is subtracted from codes, times the sum of each digit.
    first: [i32; D],
    /// What 1 in the first digit counts.
    scale: f32,
    /// The sum of the activations.
    sum: f32,
}

/// `W x` for `x` `[columns]`: `[rows]`.
pub(super) fn one_row(panels: &Panels, x: &[f32]) -> Vec<f32> {
    let zero = Digits {
        quads: [[0; QUADS]; EXACT],
        first: [0; EXACT],
        scale: 0.0,
        sum: 0.0,
    };
    let mut digits = vec![zero; x.len() / BLOCK];
    split_all(x, subtracted(panels), panels.scheme.bits, &mut digits);
    product(panels, &digits)
}

/// The same for activations in int8.
pub(super) fn one_row_of_int8(panels: &Panels, x: &[Block]) -> Vec<f32> {
    let offset = subtracted(panels);
    let digits: Vec<_> = x
        .iter()
        .map(|block| Digits {
            quads: [block.quads],
            first: [-offset * block.total],
            scale: block.scale,
            sum: block.sum,
        })
        .collect();
    product(panels, &digits)
}

/// What is subtracted from codes: their offset, unless a minimum stands for it.
fn subtracted(panels: &Panels) -> i32 {
    match panels.scheme.minimum {
        true => 0,
        false => panels.scheme.offset(),
    }
}

fused! {
    /// [`split`] of all blocks of a row.
    fn split_all(x: &[f32], offset: i32, bits: u32, out: &mut [Digits<EXACT>]) {
        for (x, out) in x.as_chunks().0.iter().zip(out) {
            *out = split(x, offset, bits);
        }
    }
}

/// Splits activations into bytes.
#[inline(always)]
fn split(x: &[f32; BLOCK], offset: i32, bits: u32) -> Digits<EXACT> {
    // Values below 2^30 leave the last digit room for what is carried.
    const MOST: i32 = 29;
    const BIAS: i32 = 127;
    let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    let exponent = (largest.to_bits() >> 23).cast_signed() - BIAS;
    let power = (MOST - exponent).min(BIAS - 1);
    let power_of_two = |power: i32| f32::from_bits((BIAS + power).cast_unsigned() << 23);
    let factor = power_of_two(power);
    let mut codes = [[0; BLOCK]; EXACT];
    for (at, x) in x.iter().enumerate() {
        let mut rest = (x * factor).round_ties_even() as i32;
        for codes in &mut codes {
            codes[at] = i32::from(rest as i8);
            rest = rest.wrapping_sub(codes[at]) >> 8;
        }
    }
    // 0, or NaN if a value is not finite.
    let check: f32 = x.iter().map(|x| x * 0.0).sum();
    Digits {
        quads: match bits {
            4 => codes.map(|codes| nibbles_in_order(&codes)),
            _ => codes.map(|codes| in_order(&codes)),
        },
        first: codes.map(|codes| -offset * codes.iter().sum::<i32>()),
        scale: power_of_two(-power) + check,
        sum: x.iter().sum(),
    }
}

fn product<const D: usize>(panels: &Panels, x: &[Digits<D>]) -> Vec<f32> {
    let mut out = vec![0.0; panels.rows.next_multiple_of(LANES)];
    let panel_bytes = size_of_val(panels.words(0, 0)).max(1);
    let task = TASK_BYTES.div_ceil(panel_bytes).next_multiple_of(2);
    for_each_chunk(&mut out, task * LANES, |index, out| {
        // SAFETY: callers have found the instructions.
        unsafe { gemv(panels, index * task, x, out) };
    });
    out.truncate(panels.rows);
    out
}

/// The product of the panels from `first`: as many as `out` holds.
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma,f16c")]
fn gemv<const D: usize>(panels: &Panels, first: usize, x: &[Digits<D>], out: &mut [f32]) {
    match (panels.scheme.bits, panels.scheme.minimum) {
        (4, false) => gemv_of::<4, 4, false, D>(panels, first, x, out),
        (4, true) => gemv_of::<4, 4, true, D>(panels, first, x, out),
        (_, false) => gemv_of::<8, 8, false, D>(panels, first, x, out),
        (_, true) => gemv_of::<8, 8, true, D>(panels, first, x, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma,f16c")]
fn gemv_of<const BITS: u32, const WORDS: usize, const MINIMUM: bool, const D: usize>(
    panels: &Panels,
    first: usize,
    x: &[Digits<D>],
    out: &mut [f32],
) {
    for (pair, out) in out.chunks_mut(2 * LANES).enumerate() {
        let left = first + 2 * pair;
        // The last panel may be alone.
        let right = left + out.len() / LANES - 1;
        let mut sums = [0.0; 2 * LANES];
        let total = two_panels::<BITS, WORDS, MINIMUM, D>(panels, [left, right], x);
        // SAFETY: there is room for sixteen floats.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), total) };
        out.copy_from_slice(&sums[..out.len()]);
    }
}

/// The products of two panels.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma,f16c")]
fn two_panels<const BITS: u32, const WORDS: usize, const MINIMUM: bool, const D: usize>(
    panels: &Panels,
    pair: [usize; 2],
    x: &[Digits<D>],
) -> __m512 {
    let per_group = panels.scheme.group / BLOCK;
    let [left, right] = pair.map(|panel| {
        let blocks = panels.words(panel, 0).as_chunks::<WORDS>().0;
        blocks.chunks_exact(per_group)
    });
    let mut codes_ahead = Ahead::new(AHEAD, size_of_val(panels.words(0, 0)));
    let (scale_bytes, scales) = match &panels.scales {
        Scales::F16(bits) => (size_of_val(&bits[0]), bits.as_ptr().cast::<i8>()),
        Scales::F32(values) => (size_of_val(&values[0]), values.as_ptr().cast()),
    };
    let scale_bytes = scale_bytes * panels.scheme.scales_per_group();
    let group_bytes = per_group * size_of::<[[u32; LANES]; WORDS]>();
    let of_panel = panels.groups() * scale_bytes;
    let mut scales_ahead = Ahead::new(AHEAD * scale_bytes / group_bytes, of_panel);
    let mut total = _mm512_setzero_ps();
    let groups = left.zip(right).zip(x.chunks_exact(per_group));
    for (group, ((left, right), x)) in groups.enumerate() {
        let (scale, minimum) = scale_of_two::<MINIMUM>(panels, pair, group);
        let distance = scales_ahead.next(scale_bytes) + group * scale_bytes;
        for panel in pair {
            prefetch(scales.wrapping_add(panel * of_panel + distance));
        }
        for ((left, right), x) in left.iter().zip(right).zip(x) {
            let distance = codes_ahead.next(size_of_val(left));
            for words in [left, right] {
                for line in words.as_chunks::<2>().0 {
                    prefetch(line.as_ptr().cast::<i8>().wrapping_add(distance));
                }
            }
            let dots = value(dots::<BITS, WORDS, D>(left, right, x));
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale));
            total = _mm512_fmadd_ps(dots, scale, total);
            if MINIMUM {
                total = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x.sum), total);
            }
        }
    }
    total
}

/// The sums of the products of codes, less what is subtracted, and each digit.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma,f16c")]
fn dots<const BITS: u32, const WORDS: usize, const D: usize>(
    left: &[[u32; LANES]; WORDS],
    right: &[[u32; LANES]; WORDS],
    x: &Digits<D>,
) -> [__m512i; D] {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); D];
    for (sum, &first) in sums.iter_mut().zip(&x.first) {
        *sum = _mm512_set1_epi32(first);
    }
    for word in 0..WORDS {
        let codes = join_words(&left[word], &right[word]);
        let high = _mm512_srli_epi16::<4>(codes);
        for (sum, quads) in sums.iter_mut().zip(&x.quads) {
            let quad = |at: usize| _mm512_set1_epi32(quads[at].cast_signed());
            *sum = if BITS == 4 {
                let low = _mm512_and_si512(codes, mask);
                let sum = _mm512_dpbusd_epi32(*sum, low, quad(2 * word));
                _mm512_dpbusd_epi32(sum, _mm512_and_si512(high, mask), quad(2 * word + 1))
            } else {
                _mm512_dpbusd_epi32(*sum, codes, quad(word))
            };
        }
    }
    sums
}

/// The number that digits stand for. Two of them fit an integer.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,fma,f16c")]
fn value<const D: usize>(digits: [__m512i; D]) -> __m512 {
    let mut value = _mm512_setzero_ps();
    for pair in digits.rchunks(2) {
        let pair = match pair {
            [low, high] => _mm512_add_epi32(_mm512_slli_epi32::<8>(*high), *low),
            _ => pair[0],
        };
        value = _mm512_fmadd_ps(value, _mm512_set1_ps(65_536.0), _mm512_cvtepi32_ps(pair));
    }
    value
}

/// Where to prefetch a panel of a pair: so many bytes ahead in it, or in the panel of the same place in a later pair.
struct Ahead {
    /// Bytes of a panel.
    length: usize,
    /// From what is read to what is prefetched.
    distance: usize,
    /// Bytes until the prefetched panel ends.
    left: usize,
}

impl Ahead {
    #[inline(always)]
    fn new(distance: usize, length: usize) -> Self {
        Self {
            length,
            distance: distance + distance / length * length,
            left: length - distance % length,
        }
    }

    /// The distance, for the next `bytes`.
    #[inline(always)]
    fn next(&mut self, bytes: usize) -> usize {
        if self.left == 0 {
            self.distance += self.length;
            self.left = self.length;
        }
        self.left = self.left.saturating_sub(bytes);
        self.distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_for_the_activations() {
        for size in [1e-38, 1e-20, 1.0, 3e37] {
            let x: [f32; BLOCK] = std::array::from_fn(|i| {
                size * (i as f32 * 0.7).sin() * 0.5_f32.powi(i.cast_signed() as i32 / 4)
            });
            let largest = x.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
            for bits in [4, 8] {
                let digits = split(&x, 8, bits);
                let mut values = [0.0; BLOCK];
                for (digit, quads) in digits.quads.iter().enumerate() {
                    let factor = f64::from(digits.scale) * 256_f64.powi(digit as i32);
                    let bytes = quads.iter().flat_map(|quad| quad.to_le_bytes());
                    for (place, byte) in bytes.enumerate() {
                        let (quad, byte_of_quad) = (place / 4, place % 4);
                        let at = match bits {
                            4 => 8 * (quad / 2) + 2 * byte_of_quad + quad % 2,
                            _ => place,
                        };
                        values[at] += factor * f64::from(byte.cast_signed());
                    }
                }
                for (x, value) in x.iter().zip(values) {
                    let error = (value - f64::from(*x)).abs();
                    let allowed = f64::from(largest) * 2_f64.powi(-30) + 2_f64.powi(-127);
                    assert!(error <= allowed, "{x}: {value}");
                    if x.abs() >= largest / 64.0 && largest > 1e-28 {
                        assert_eq!(value, f64::from(*x));
                    }
                }
            }
        }
    }

    #[test]
    fn prefetched_addresses_are_those_of_later_pairs() {
        let (length, step) = (320, 64);
        for distance in [0, 64, 256, 320, 960, 1024] {
            let mut ahead = Ahead::new(distance, length);
            for at in (0..length).step_by(step) {
                let place = at + distance;
                let expected = 2 * (place / length) * length + place % length;
                assert_eq!(at + ahead.next(step), expected, "{at} + {distance}");
            }
        }
    }
}
