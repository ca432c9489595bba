//! The element types of GGUF files (`ggml-common.h` and `ggml-quants.c` of `github.com/ggml-org/ggml`).
//!
//! A quantized row consists of blocks; a block holds 32 or 256 consecutive weights with their scales.
//! Dequantization computes in f32 in the order of the reference, so that the values are equal to the bit.

use half::{bf16, f16};

use crate::weights::QuantScheme;

/// Weights of a block of the types whose names end in `_K`.
const SUPER_BLOCK: usize = 256;

/// Weights of a block of the other quantized types.
const BLOCK: usize = 32;

/// An element type that is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names of the format")]
pub enum GgmlType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 4 bits, a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits, a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits, a scale.
    Q8_0,
    /// 2 bits, 16 scales and minimums of 4 bits.
    Q2_K,
    /// 3 bits, 16 scales of 6 bits.
    Q3_K,
    /// 4 bits, 8 scales and minimums of 6 bits.
    Q4_K,
    /// 5 bits, 8 scales and minimums of 6 bits.
    Q5_K,
    /// 6 bits, 16 scales of 8 bits.
    Q6_K,
}

/// The names of types that are not supported, by number.
const UNSUPPORTED: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (4, "Q4_2"),
];

impl GgmlType {
    /// Every supported type.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// The number in a file.
    const fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2_K => 10,
            Self::Q3_K => 11,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// The type of `number`.
    ///
    /// # Errors
    /// It is not supported; the error is its name.
    pub fn of(number: u32) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.number() == number);
        found.ok_or_else(|| {
            let named = UNSUPPORTED.iter().find(|(known, _)| *known == number);
            named.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_string())
        })
    }

    /// The number of weights and of bytes of a block.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (BLOCK, 18),
            Self::Q4_1 => (BLOCK, 20),
            Self::Q5_0 => (BLOCK, 22),
            Self::Q5_1 => (BLOCK, 24),
            Self::Q8_0 => (BLOCK, 34),
            Self::Q2_K => (SUPER_BLOCK, 84),
            Self::Q3_K => (SUPER_BLOCK, 110),
            Self::Q4_K => (SUPER_BLOCK, 144),
            Self::Q5_K => (SUPER_BLOCK, 176),
            Self::Q6_K => (SUPER_BLOCK, 210),
        }
    }

    /// Appends the values of whole blocks.
    ///
    /// # Panics
    /// `bytes` are no whole blocks.
    pub fn dequantize(self, bytes: &[u8], values: &mut Vec<f32>) {
        let (count, size) = self.block();
        assert!(bytes.len().is_multiple_of(size), "whole blocks");
        let start = values.len();
        values.resize(start + bytes.len() / size * count, 0.0);
        let blocks = bytes.chunks_exact(size);
        for (block, values) in blocks.zip(values[start..].chunks_exact_mut(count)) {
            match self {
                Self::F32 => {
                    values[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]])
                }
                Self::F16 => values[0] = half(block, 0),
                Self::BF16 => values[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                Self::Q4_0 => q4_0(block, values),
                Self::Q4_1 => q4_1(block, values),
                Self::Q5_0 => q5_0(block, values),
                Self::Q5_1 => q5_1(block, values),
                Self::Q8_0 => q8_0(block, values),
                Self::Q2_K => q2_k(block, values),
                Self::Q3_K => q3_k(block, values),
                Self::Q4_K => q4_k(block, values),
                Self::Q5_K => q5_k(block, values),
                Self::Q6_K => q6_k(block, values),
            }
        }
    }

    /// The scheme of a model folder that holds the same codes and scales.
    pub const fn exact_scheme(self) -> Option<QuantScheme> {
        match self {
            Self::Q4_0 => Some(QuantScheme::new(4, BLOCK)),
            Self::Q4_1 => Some(QuantScheme::with_minimum(BLOCK)),
            Self::Q8_0 => Some(QuantScheme::new(8, BLOCK)),
            _ => None,
        }
    }

    /// Appends codes and scales of whole blocks in the form of [`GgmlType::exact_scheme`].
    ///
    /// # Panics
    /// There is no such scheme, or `bytes` are no whole blocks.
    pub fn repack(self, bytes: &[u8], words: &mut Vec<u32>, scales: &mut Vec<f16>) {
        let (_, size) = self.block();
        assert!(bytes.len().is_multiple_of(size), "whole blocks");
        for block in bytes.chunks_exact(size) {
            scales.push(f16::from_le_bytes([block[0], block[1]]));
            match self {
                Self::Q4_0 => words.extend(nibble_words(&block[2..])),
                Self::Q4_1 => {
                    scales.push(f16::from_le_bytes([block[2], block[3]]));
                    words.extend(nibble_words(&block[4..]));
                }
                Self::Q8_0 => {
                    let four = block[2..].as_chunks::<4>().0.iter();
                    // Codes are stored as code + 128 there, as two's complement here.
                    words.extend(four.map(|codes| u32::from_le_bytes(*codes) ^ 0x8080_8080));
                }
                _ => panic!("{self:?} has no exact scheme"),
            }
        }
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// The f16 at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// 32 codes of 4 bits, eight to a word: the lower halves of 16 bytes, then the upper halves.
fn nibble_words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    (0..4).map(|word| {
        let (first, shift) = (word % 2 * 8, word / 2 * 4);
        let eight = bytes[first..first + 8].iter().rev();
        eight.fold(0, |word, &byte| word << 4 | u32::from(byte >> shift & 15))
    })
}

/// The code of weight `i`: the lower halves of 16 bytes, then the upper halves.
fn nibble(codes: &[u8], i: usize) -> u8 {
    codes[i % 16] >> (i / 16 * 4) & 15
}

fn q4_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    for (i, value) in values.iter_mut().enumerate() {
        *value = (f32::from(nibble(&block[2..], i)) - 8.0) * scale;
    }
}

fn q4_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (i, value) in values.iter_mut().enumerate() {
        *value = f32::from(nibble(&block[4..], i)) * scale + minimum;
    }
}

/// The code of weight `i` from four lower bits and bit `i` of four bytes.
fn five_bits(high: &[u8], codes: &[u8], i: usize) -> u8 {
    nibble(codes, i) | (high[i / 8] >> (i % 8) & 1) << 4
}

fn q5_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    for (i, value) in values.iter_mut().enumerate() {
        *value = (f32::from(five_bits(&block[2..6], &block[6..], i)) - 16.0) * scale;
    }
}

fn q5_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (i, value) in values.iter_mut().enumerate() {
        *value = f32::from(five_bits(&block[4..8], &block[8..], i)) * scale + minimum;
    }
}

fn q8_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    for (value, code) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(code.cast_signed()) * scale;
    }
}

/// Two bits of weight `i` of 256: a byte holds weights that are 32 apart.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// A bit of weight `i` of 256: bit `i / 32` of byte `i % 32`.
fn one_bit(bytes: &[u8], i: usize) -> u8 {
    bytes[i % 32] >> (i / 32) & 1
}

fn q2_k(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (i, value) in values.iter_mut().enumerate() {
        let both = block[i / 16];
        let factor = scale * f32::from(both & 15);
        let offset = minimum * f32::from(both >> 4);
        *value = factor * f32::from(two_bits(&block[16..80], i)) - offset;
    }
}

fn q3_k(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 108);
    let scales = &block[96..108];
    let factor = |group: usize| {
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        scale * (f32::from(low | high << 4) - 32.0)
    };
    for (i, value) in values.iter_mut().enumerate() {
        let code = two_bits(&block[32..96], i) | one_bit(&block[..32], i) << 2;
        *value = factor(i / 16) * (f32::from(code) - 4.0);
    }
}

/// Scale and minimum of group `group` of 32 weights, from 12 bytes that hold eight of each.
fn scale_and_minimum(bytes: &[u8], group: usize) -> (u8, u8) {
    let [scale, minimum, both] = [0, 4, 8].map(|first| bytes[first + group % 4]);
    if group < 4 {
        (scale & 63, minimum & 63)
    } else {
        (both & 15 | scale >> 6 << 4, both >> 4 | minimum >> 6 << 4)
    }
}

/// The lower four bits of the code of weight `i` of 256: a byte holds weights that are 32 apart.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

fn q4_k(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (group, values) in values.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(&block[4..16], group);
        let (factor, offset) = (scale * f32::from(s), minimum * f32::from(m));
        for (i, value) in values.iter_mut().enumerate() {
            *value = factor * f32::from(four_bits(&block[16..], group * 32 + i)) - offset;
        }
    }
}

fn q5_k(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (group, values) in values.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(&block[4..16], group);
        let (factor, offset) = (scale * f32::from(s), minimum * f32::from(m));
        for (i, value) in values.iter_mut().enumerate() {
            let i = group * 32 + i;
            let code = four_bits(&block[48..], i) | one_bit(&block[16..48], i) << 4;
            *value = factor * f32::from(code) - offset;
        }
    }
}

fn q6_k(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 208);
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    for (i, value) in values.iter_mut().enumerate() {
        let four = low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        let code = four | two_bits(high, i) << 4;
        let factor = scale * f32::from(scales[i / 16].cast_signed());
        *value = factor * (f32::from(code) - 32.0);
    }
}
