//! Group-wise quantization to 4 or 8 bits: neighbouring weights of a row share a scale.
//!
//! A matrix `NAME.weight` `[out, in]` becomes two tensors. `NAME.qweight` `[out, in * bits / 32]`
//! holds 32-bit words, the first weight in the lowest bits, each as `code + 2^(bits - 1)`.
//! `NAME.scales` `[out, in / group]` holds one f16 or f32 per group; a weight is `code * scale`. Bits
//! and group follow from the three shapes, so they are not stored.
//!
//! With a minimum, `NAME.scales` `[out, in / group, 2]` holds two f16 per group, scale and minimum;
//! codes are stored as they are, and a weight is `code * scale + minimum`.

use half::f16;

use super::dtype::DType;
use crate::simd::vectorized;

/// Replaces `weight` in the name of a quantized matrix's codes.
pub const QWEIGHT: &str = "qweight";

/// Replaces `weight` in the name of a quantized matrix's scales.
pub const SCALES: &str = "scales";

/// Bits per weight, weights per scale, type of the scales, and whether groups have a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantScheme {
    /// 4 or 8.
    pub bits: u32,
    /// 32 or 64.
    pub group: usize,
    /// F16 or F32.
    pub scale: DType,
    /// Whether a group has a minimum beside its scale; only with 4 bits and F16.
    pub minimum: bool,
}

/// How codes and scales are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The largest weight of a group takes the largest code; every weight rounds to the nearest.
    Nearest,
    /// Of several scales the one with the least squared error, fitted to its codes.
    Search,
}

/// The most weights per scale.
const MAX_GROUP: usize = 64;

/// Scales tried by [`Rounding::Search`], as multiples of the one that just reaches the largest
/// weight. Smaller ones clip it and fit the others better.
const CANDIDATE_SCALES: [f32; 15] = [
    1.0, 0.98, 0.96, 0.94, 0.92, 0.90, 0.88, 0.86, 0.84, 0.82, 0.80, 0.77, 0.74, 0.70, 1.03,
];

impl QuantScheme {
    /// `bits` per weight and an f16 scale per `group` weights, as the converter writes them.
    pub const fn new(bits: u32, group: usize) -> Self {
        Self {
            bits,
            group,
            scale: DType::F16,
            minimum: false,
        }
    }

    /// 4 bits per weight, an f16 scale and an f16 minimum per `group` weights.
    pub const fn with_minimum(group: usize) -> Self {
        Self {
            minimum: true,
            ..Self::new(4, group)
        }
    }

    /// The scheme of a matrix of `columns` columns whose codes have the shape `codes`, and whose scales
    /// have the shape `scales` and the type `scale`.
    pub fn infer(columns: usize, codes: &[usize], scales: &[usize], scale: DType) -> Option<Self> {
        let &[rows, words] = codes else {
            return None;
        };
        let minimum = scales.len() == 3;
        let schemes = [4, 8].into_iter().flat_map(|bits| {
            [32, 64].map(|group| Self {
                bits,
                group,
                scale,
                minimum,
            })
        });
        schemes.into_iter().find(|scheme| {
            scheme.is_supported()
                && scheme.fits(columns)
                && scheme.words(columns) == words
                && scheme.scales_shape([rows, columns]) == scales
        })
    }

    /// Whether a model folder may hold this combination.
    pub const fn is_supported(self) -> bool {
        match self.scale {
            DType::F16 => !self.minimum || self.bits == 4,
            DType::F32 => !self.minimum,
            DType::BF16 | DType::U32 => false,
        }
    }

    /// Whether rows of `columns` weights are whole groups.
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

    /// Added to a code before it is stored.
    pub fn offset(self) -> i32 {
        if self.minimum {
            0
        } else {
            1 << (self.bits - 1)
        }
    }

    /// Values of the tensor `scales` per group: the scale, and the minimum if there is one.
    pub fn scales_per_group(self) -> usize {
        1 + usize::from(self.minimum)
    }

    /// Values of the tensor `scales` for `count` weights.
    pub fn scale_count(self, count: usize) -> usize {
        count / self.group * self.scales_per_group()
    }

    /// Words of the scales of a `[rows, columns]` matrix.
    pub fn scale_words(self, [rows, columns]: [usize; 2]) -> usize {
        self.scale.words(self.scale_count(rows * columns))
    }

    /// The shape of the scales of a `[rows, columns]` matrix.
    pub fn scales_shape(self, [rows, columns]: [usize; 2]) -> Vec<usize> {
        let mut shape = vec![rows, columns / self.group];
        if self.minimum {
            shape.push(2);
        }
        shape
    }

    /// Bytes of a `[rows, columns]` matrix on a device: codes and scales.
    pub fn bytes(self, [rows, columns]: [usize; 2]) -> usize {
        4 * (rows * self.words(columns) + self.scale_words([rows, columns]))
    }

    /// Quantizes whole groups into `words` and `scales`, which are f16 under every scheme. A group with a
    /// minimum begins at its smallest weight and ends at its largest.
    ///
    /// # Panics
    /// The three lengths disagree.
    pub fn quantize(
        self,
        values: &[f32],
        rounding: Rounding,
        words: &mut [u32],
        scales: &mut [f16],
    ) {
        assert!(values.len().is_multiple_of(self.group), "groups");
        assert_eq!(self.scale_count(values.len()), scales.len(), "scales");
        assert_eq!(self.words(values.len()), words.len(), "words");
        quantize_groups(self, values, rounding, words, scales);
    }

    /// Dequantizes whole groups into `values`.
    ///
    /// # Panics
    /// The three lengths disagree.
    pub fn dequantize<S: Copy + Into<f32>>(self, words: &[u32], scales: &[S], values: &mut [f32]) {
        assert!(values.len().is_multiple_of(self.group), "groups");
        assert_eq!(self.scale_count(values.len()), scales.len(), "scales");
        assert_eq!(self.words(values.len()), words.len(), "words");
        let scales: Vec<f32> = scales.iter().map(|&scale| scale.into()).collect();
        dequantize_groups(self, words, &scales, values);
    }

    /// Scale and minimum of codes that reach from the smallest of `values` to the largest.
    fn range(self, values: &[f32]) -> [f16; 2] {
        let smallest = values.iter().copied().fold(f32::INFINITY, f32::min);
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let minimum = f16::from_f32(smallest);
        let codes = ((1_u32 << self.bits) - 1) as f32;
        [f16::from_f32((largest - minimum.to_f32()) / codes), minimum]
    }

    /// The nearest code, an integer.
    #[inline(always)]
    fn code(self, value: f32, inverse: f32) -> f32 {
        let smallest = -self.offset() as f32;
        let largest = smallest + ((1_u32 << self.bits) - 1) as f32;
        round(within(value * inverse, smallest, largest))
    }

    #[inline(always)]
    fn best_scale(self, values: &[f32], rounding: Rounding) -> f16 {
        let extreme = values
            .iter()
            .fold(0.0_f32, |a, &b| if b.abs() > a.abs() { b } else { a });
        // The negative side has one code more, so the extreme maps there.
        let base = extreme / -(self.offset() as f32);
        if rounding == Rounding::Nearest || self.bits == 8 || extreme == 0.0 {
            return f16::from_f32(base);
        }
        let other_side = extreme / (self.offset() as f32 - 1.0);
        let mut best = (f32::NEG_INFINITY, base);
        let mut codes = [0.0; MAX_GROUP];
        for candidate in CANDIDATE_SCALES
            .map(|factor| factor * base)
            .into_iter()
            .chain([other_side])
        {
            let inverse = inverse(candidate);
            let codes = &mut codes[..values.len()];
            for (code, &value) in codes.iter_mut().zip(values) {
                *code = self.code(value, inverse);
            }
            // Sums of code * value and of code^2, in eight lanes.
            let (mut dot, mut norm) = ([0.0_f32; 8], [0.0_f32; 8]);
            let chunks = values.as_chunks::<8>().0.iter();
            for (values, codes) in chunks.zip(codes.as_chunks::<8>().0) {
                for lane in 0..8 {
                    dot[lane] += codes[lane] * values[lane];
                }
                for lane in 0..8 {
                    norm[lane] += codes[lane] * codes[lane];
                }
            }
            let (dot, norm) = (dot.iter().sum::<f32>(), norm.iter().sum::<f32>());
            // Least squares: for given codes the best scale is dot / norm, and it lowers the
            // squared error by this much.
            let gain = dot * dot / norm;
            if norm > 0.0 && gain > best.0 {
                best = (gain, dot / norm);
            }
        }
        f16::from_f32(best.1)
    }
}

vectorized! {
    fn quantize_groups(
        scheme: QuantScheme,
        values: &[f32],
        rounding: Rounding,
        words: &mut [u32],
        scales: &mut [f16],
    ) {
        let group_words = scheme.words(scheme.group);
        let groups = values.chunks_exact(scheme.group);
        let scales = scales.chunks_exact_mut(scheme.scales_per_group());
        for ((values, words), scales) in groups.zip(words.chunks_exact_mut(group_words)).zip(scales)
        {
            scales[0] = if scheme.minimum {
                let [scale, minimum] = scheme.range(values);
                scales[1] = minimum;
                scale
            } else {
                scheme.best_scale(values, rounding)
            };
            let inverse = inverse(scales[0].to_f32());
            let minimum = scales.get(1).map_or(0.0, |minimum| minimum.to_f32());
            for (word, values) in words.iter_mut().zip(values.chunks_exact(scheme.per_word())) {
                *word = values.iter().rev().fold(0, |word, &value| {
                    let code = scheme.code(value - minimum, inverse) as i32 + scheme.offset();
                    word.checked_shl(scheme.bits).unwrap_or(0) | code as u32
                });
            }
        }
    }
}

vectorized! {
    fn dequantize_groups(scheme: QuantScheme, words: &[u32], scales: &[f32], values: &mut [f32]) {
        match scheme.bits {
            4 => dequantize_groups_of::<4, 8>(scheme, words, scales, values),
            _ => dequantize_groups_of::<8, 4>(scheme, words, scales, values),
        }
    }
}

#[inline(always)]
fn dequantize_groups_of<const BITS: u32, const PER_WORD: usize>(
    scheme: QuantScheme,
    words: &[u32],
    scales: &[f32],
    values: &mut [f32],
) {
    let offset = scheme.offset();
    let groups = values.chunks_exact_mut(scheme.group);
    let words = words.chunks_exact(scheme.group / PER_WORD);
    let scales = scales.chunks_exact(scheme.scales_per_group());
    for ((values, words), scales) in groups.zip(words).zip(scales) {
        let scale = scales[0];
        for (values, word) in values.as_chunks_mut::<PER_WORD>().0.iter_mut().zip(words) {
            for (at, value) in values.iter_mut().enumerate() {
                let code = word >> (at as u32 * BITS) & ((1 << BITS) - 1);
                *value = (code.cast_signed() - offset) as f32 * scale;
            }
        }
        if let Some(minimum) = scales.get(1) {
            for value in values {
                *value += minimum;
            }
        }
    }
}

/// `f32::clamp` in two instructions; NaN becomes `smallest`.
#[inline(always)]
fn within(value: f32, smallest: f32, largest: f32) -> f32 {
    let value = if value > smallest { value } else { smallest };
    if value < largest { value } else { largest }
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

/// Rounds to the nearest integer, ties to even, for magnitudes below 2^22; compiles to two
/// additions where `f32::round` would be a call.
#[inline(always)]
fn round(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| (i as f32 * 0.7).sin() * (1.0 + (i / 32) as f32 * 0.3) * 0.02)
            .collect()
    }

    fn round_trip(scheme: QuantScheme, rounding: Rounding, values: &[f32]) -> Vec<f32> {
        let mut words = vec![0; scheme.words(values.len())];
        let mut scales = vec![f16::ZERO; scheme.scale_count(values.len())];
        scheme.quantize(values, rounding, &mut words, &mut scales);
        let mut back = vec![f32::NAN; values.len()];
        scheme.dequantize(&words, &scales, &mut back);
        back
    }

    fn error(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    #[test]
    fn every_weight_is_within_half_a_step() {
        for bits in [4, 8] {
            for group in [32, 64] {
                let scheme = QuantScheme::new(bits, group);
                let values = waves(4 * group);
                let back = round_trip(scheme, Rounding::Nearest, &values);
                for (values, back) in values.chunks(group).zip(back.chunks(group)) {
                    let step =
                        values.iter().fold(0.0_f32, |a, b| a.max(b.abs())) / scheme.offset() as f32;
                    for (value, back) in values.iter().zip(back) {
                        // Weights of the opposite sign may lie a step beyond the largest code.
                        let bound = if (value / step).abs() > scheme.offset() as f32 - 1.0 {
                            1.01
                        } else {
                            0.51
                        };
                        assert!(
                            (value - back).abs() <= bound * step,
                            "{scheme:?}: {value} {back}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn scale_search_is_never_worse_than_nearest() {
        let scheme = QuantScheme::new(4, 32);
        let values = waves(32 * 64);
        let nearest = round_trip(scheme, Rounding::Nearest, &values);
        let search = round_trip(scheme, Rounding::Search, &values);
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
    fn representable_weights_and_zeros_are_exact() {
        let scheme = QuantScheme::new(4, 32);
        let codes: Vec<f32> = (0..32).map(|i| (i % 16 - 8) as f32 * 0.25).collect();
        let mut values = codes.clone();
        values.extend([0.0; 32]);
        assert_eq!(round_trip(scheme, Rounding::Search, &values), values);
        let scheme = QuantScheme::new(8, 64);
        let codes: Vec<f32> = (0..64).map(|i| (i * 4 - 128) as f32 * 0.5).collect();
        assert_eq!(round_trip(scheme, Rounding::Nearest, &codes), codes);
    }

    #[test]
    fn the_first_weight_is_in_the_lowest_bits() {
        let scheme = QuantScheme::new(4, 32);
        let mut values = [0.0; 32];
        values[0] = -8.0;
        values[1] = 7.0;
        let (mut words, mut scales) = ([0; 4], [f16::ZERO; 1]);
        scheme.quantize(&values, Rounding::Nearest, &mut words, &mut scales);
        assert_eq!(words, [0x8888_88f0, 0x8888_8888, 0x8888_8888, 0x8888_8888]);
        assert_eq!(scales, [f16::ONE]);
    }

    #[test]
    fn a_minimum_keeps_groups_that_are_not_symmetric() {
        for group in [32, 64] {
            let scheme = QuantScheme::with_minimum(group);
            let symmetric = QuantScheme::new(4, group);
            let values: Vec<f32> = waves(4 * group).iter().map(|value| value + 0.05).collect();
            let back = round_trip(scheme, Rounding::Nearest, &values);
            for (values, back) in values.chunks(group).zip(back.chunks(group)) {
                let smallest = values.iter().copied().fold(f32::INFINITY, f32::min);
                let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let step = (largest - smallest) / 15.0;
                for (value, back) in values.iter().zip(back) {
                    assert!((value - back).abs() <= 0.52 * step, "{value} {back}");
                }
            }
            let other = round_trip(symmetric, Rounding::Search, &values);
            assert!(error(&values, &back) < 0.5 * error(&values, &other));
        }
    }

    #[test]
    fn codes_with_a_minimum_are_stored_as_they_are() {
        let scheme = QuantScheme::with_minimum(32);
        let values: Vec<f32> = (0..32).map(|i| (i % 16) as f32 * 0.5 - 2.0).collect();
        assert_eq!(round_trip(scheme, Rounding::Nearest, &values), values);
        let (mut words, mut scales) = ([0; 4], [f16::ZERO; 2]);
        scheme.quantize(&values, Rounding::Nearest, &mut words, &mut scales);
        assert_eq!(words, [0x7654_3210, 0xfedc_ba98, 0x7654_3210, 0xfedc_ba98]);
        assert_eq!(scales.map(f16::to_f32), [0.5, -2.0]);
    }

    #[test]
    fn the_scheme_follows_from_the_shapes() {
        let infer = |columns, words, scales: &[usize], scale| {
            QuantScheme::infer(columns, &[7, words], scales, scale)
        };
        for bits in [4, 8] {
            for group in [32, 64] {
                for scale in [DType::F16, DType::F32] {
                    let scheme = QuantScheme {
                        bits,
                        group,
                        scale,
                        minimum: false,
                    };
                    assert_eq!(
                        infer(128, scheme.words(128), &[7, 128 / group], scale),
                        Some(scheme)
                    );
                }
            }
        }
        for group in [32, 64] {
            let scales = [7, 128 / group, 2];
            let scheme = QuantScheme::with_minimum(group);
            assert_eq!(infer(128, 16, &scales, DType::F16), Some(scheme));
            assert_eq!(infer(128, 16, &scales, DType::F32), None);
            assert_eq!(infer(128, 32, &scales, DType::F16), None);
        }
        assert_eq!(infer(128, 15, &[7, 4], DType::F16), None);
        assert_eq!(infer(128, 16, &[6, 4], DType::F16), None);
        assert_eq!(infer(128, 16, &[7, 4, 1], DType::F16), None);
        assert_eq!(infer(128, 16, &[28], DType::F16), None);
        assert_eq!(infer(100, 12, &[7, 3], DType::F16), None);
        assert_eq!(infer(128, 16, &[7, 4], DType::BF16), None);
    }
}
