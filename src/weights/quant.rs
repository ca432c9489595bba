//! Matrices in 4 or 8 bits per weight: neighbouring weights of a row share a scale.
//!
//! A matrix `NAME.weight` `[out, in]` becomes two tensors. `NAME.qweight` `[out, in * bits / 32]`
//! holds 32-bit words, the first weight in the lowest bits, each as `code + 2^(bits - 1)`.
//! `NAME.scales` `[out, in / group]` holds one f16 or f32 per group; a weight is `code * scale`. Bits
//! and group follow from the three shapes, so nothing else has to be stored.

use half::f16;
use serde::{Deserialize, Serialize};

/// What takes the place of `weight` in the name of a packed matrix: its codes.
pub const QWEIGHT: &str = "qweight";

/// What takes the place of `weight` in the name of a packed matrix: its scales.
pub const SCALES: &str = "scales";

/// Bits per weight and weights per scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantScheme {
    /// 4 or 8.
    pub bits: u32,
    /// 32 or 64.
    pub group: usize,
}

/// How codes and scales are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The largest weight of a group takes the largest code; every weight goes to the nearest.
    Nearest,
    /// Of several scales the one with the least squared error, fitted to its codes.
    Search,
}

/// Scales tried by [`Rounding::Search`], as parts of the one that just reaches the largest weight.
/// Smaller ones clip it and serve the others better.
const TRIED: [f32; 15] = [
    1.0, 0.98, 0.96, 0.94, 0.92, 0.90, 0.88, 0.86, 0.84, 0.82, 0.80, 0.77, 0.74, 0.70, 1.03,
];

impl QuantScheme {
    /// The scheme of a matrix of `columns` whose rows take `words` words and `scales` scales.
    pub fn infer(columns: usize, words: usize, scales: usize) -> Option<Self> {
        let found = [4, 8]
            .into_iter()
            .flat_map(|bits| [32, 64].map(|group| Self { bits, group }));
        found.into_iter().find(|scheme| {
            scheme.fits(columns)
                && scheme.words(columns) == words
                && columns / scheme.group == scales
        })
    }

    /// Whether rows of `columns` weights fill their groups.
    pub fn fits(self, columns: usize) -> bool {
        columns > 0 && columns.is_multiple_of(self.group)
    }

    /// Words that hold `count` weights.
    pub fn words(self, count: usize) -> usize {
        count * self.bits as usize / 32
    }

    /// Weights in a word.
    pub fn per_word(self) -> usize {
        32 / self.bits as usize
    }

    /// What is added to a code before it is stored.
    pub fn offset(self) -> i32 {
        1 << (self.bits - 1)
    }

    /// Packs whole groups; `words` and `scales` are filled.
    ///
    /// # Panics
    /// The three lengths disagree.
    pub fn pack(self, values: &[f32], rounding: Rounding, words: &mut [u32], scales: &mut [f16]) {
        assert_eq!(values.len(), scales.len() * self.group, "groups");
        assert_eq!(self.words(values.len()), words.len(), "words");
        let group_words = self.words(self.group);
        let groups = values.chunks_exact(self.group);
        for ((values, words), scale) in groups.zip(words.chunks_exact_mut(group_words)).zip(scales)
        {
            let chosen = match self.group {
                32 => self.choose::<32>(values, rounding),
                _ => self.choose::<64>(values, rounding),
            };
            *scale = chosen;
            let inverse = inverse(chosen.to_f32());
            for (word, values) in words.iter_mut().zip(values.chunks_exact(self.per_word())) {
                *word = values.iter().rev().fold(0, |word, &value| {
                    let code = self.code(value, inverse) as i32 + self.offset();
                    word.checked_shl(self.bits).unwrap_or(0) | code as u32
                });
            }
        }
    }

    /// The weights of whole groups.
    ///
    /// # Panics
    /// The three lengths disagree.
    pub fn unpack<S: Copy + Into<f32>>(self, words: &[u32], scales: &[S], values: &mut [f32]) {
        assert_eq!(values.len(), scales.len() * self.group, "groups");
        assert_eq!(self.words(values.len()), words.len(), "words");
        let mask = (1_u32 << self.bits) - 1;
        let group_words = self.words(self.group);
        let groups = values.chunks_exact_mut(self.group);
        for ((values, words), &scale) in groups.zip(words.chunks_exact(group_words)).zip(scales) {
            let scale: f32 = scale.into();
            for (values, word) in values.chunks_exact_mut(self.per_word()).zip(words) {
                for (at, value) in values.iter_mut().enumerate() {
                    let code = (word >> (at as u32 * self.bits) & mask) as i32 - self.offset();
                    *value = code as f32 * scale;
                }
            }
        }
    }

    /// The nearest code, as a whole number.
    #[inline(always)]
    fn code(self, value: f32, inverse: f32) -> f32 {
        let reach = self.offset() as f32;
        round(value * inverse).clamp(-reach, reach - 1.0)
    }

    fn choose<const N: usize>(self, values: &[f32], rounding: Rounding) -> f16 {
        let values: &[f32; N] = values.try_into().expect("a whole group");
        let extreme = values
            .iter()
            .fold(0.0_f32, |a, &b| if b.abs() > a.abs() { b } else { a });
        // The negative side has one code more, so the extreme is put there.
        let base = extreme / -(self.offset() as f32);
        if rounding == Rounding::Nearest || self.bits == 8 || extreme == 0.0 {
            return f16::from_f32(base);
        }
        let other_side = extreme / (self.offset() as f32 - 1.0);
        let mut best = (f32::NEG_INFINITY, base);
        for tried in TRIED
            .map(|part| part * base)
            .into_iter()
            .chain([other_side])
        {
            let inverse = inverse(tried);
            let (mut with, mut own) = ([0.0_f32; 8], [0.0_f32; 8]);
            for chunk in values.as_chunks::<8>().0 {
                for lane in 0..8 {
                    let code = self.code(chunk[lane], inverse);
                    with[lane] += code * chunk[lane];
                    own[lane] += code * code;
                }
            }
            let (with, own) = (with.iter().sum::<f32>(), own.iter().sum::<f32>());
            // For given codes the best scale is with / own, and it removes this much of the error.
            let removed = with * with / own;
            if own > 0.0 && removed > best.0 {
                best = (removed, with / own);
            }
        }
        f16::from_f32(best.1)
    }
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

/// To the nearest whole number, ties to even, for magnitudes below 2^22; compiles to two additions
/// where `f32::round` would be a call.
#[inline(always)]
fn round(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value.clamp(-1e6, 1e6) + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| (i as f32 * 0.7).sin() * (1.0 + (i / 32) as f32 * 0.3) * 0.02)
            .collect()
    }

    fn there_and_back(scheme: QuantScheme, rounding: Rounding, values: &[f32]) -> Vec<f32> {
        let mut words = vec![0; scheme.words(values.len())];
        let mut scales = vec![f16::ZERO; values.len() / scheme.group];
        scheme.pack(values, rounding, &mut words, &mut scales);
        let mut back = vec![f32::NAN; values.len()];
        scheme.unpack(&words, &scales, &mut back);
        back
    }

    fn error(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    #[test]
    fn every_weight_is_within_half_a_step() {
        for bits in [4, 8] {
            for group in [32, 64] {
                let scheme = QuantScheme { bits, group };
                let values = waves(4 * group);
                let back = there_and_back(scheme, Rounding::Nearest, &values);
                for (values, back) in values.chunks(group).zip(back.chunks(group)) {
                    let step =
                        values.iter().fold(0.0_f32, |a, b| a.max(b.abs())) / scheme.offset() as f32;
                    for (value, back) in values.iter().zip(back) {
                        // Weights on the far side of the largest may lie a step beyond the codes.
                        let reach = if (value / step).abs() > scheme.offset() as f32 - 1.0 {
                            1.01
                        } else {
                            0.51
                        };
                        assert!(
                            (value - back).abs() <= reach * step,
                            "{scheme:?}: {value} {back}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn searching_never_does_worse_than_rounding() {
        let scheme = QuantScheme { bits: 4, group: 32 };
        let values = waves(32 * 64);
        let nearest = there_and_back(scheme, Rounding::Nearest, &values);
        let search = there_and_back(scheme, Rounding::Search, &values);
        for ((values, nearest), search) in values
            .chunks(32)
            .zip(nearest.chunks(32))
            .zip(search.chunks(32))
        {
            assert!(error(values, search) <= error(values, nearest) * 1.001);
        }
        assert!(error(&values, &search) < 0.9 * error(&values, &nearest));
    }

    #[test]
    fn exact_weights_and_zeros_come_back() {
        let scheme = QuantScheme { bits: 4, group: 32 };
        let codes: Vec<f32> = (0..32).map(|i| (i % 16 - 8) as f32 * 0.25).collect();
        let mut values = codes.clone();
        values.extend([0.0; 32]);
        assert_eq!(there_and_back(scheme, Rounding::Search, &values), values);
        let scheme = QuantScheme { bits: 8, group: 64 };
        let codes: Vec<f32> = (0..64).map(|i| (i * 4 - 128) as f32 * 0.5).collect();
        assert_eq!(there_and_back(scheme, Rounding::Nearest, &codes), codes);
    }

    #[test]
    fn the_first_weight_lies_in_the_lowest_bits() {
        let scheme = QuantScheme { bits: 4, group: 32 };
        let mut values = [0.0; 32];
        values[0] = -8.0;
        values[1] = 7.0;
        let (mut words, mut scales) = ([0; 4], [f16::ZERO; 1]);
        scheme.pack(&values, Rounding::Nearest, &mut words, &mut scales);
        assert_eq!(words, [0x8888_88f0, 0x8888_8888, 0x8888_8888, 0x8888_8888]);
        assert_eq!(scales, [f16::ONE]);
    }

    #[test]
    fn shapes_tell_the_scheme() {
        for bits in [4, 8] {
            for group in [32, 64] {
                let scheme = QuantScheme { bits, group };
                assert_eq!(
                    QuantScheme::infer(128, scheme.words(128), 128 / group),
                    Some(scheme)
                );
            }
        }
        assert_eq!(QuantScheme::infer(128, 15, 4), None);
        assert_eq!(QuantScheme::infer(100, 12, 3), None);
    }
}
