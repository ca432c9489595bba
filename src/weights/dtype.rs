//! Element types of stored and uploaded tensors.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use serde::{Deserialize, Serialize};

use crate::simd::vectorized;

/// Type of a tensor's elements, spelled as in safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 32-bit words of quantized weights.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// 32-bit words that hold `count` elements.
    pub const fn words(self, count: usize) -> usize {
        match self {
            Self::F32 | Self::U32 => count,
            Self::F16 | Self::BF16 => count.div_ceil(2),
        }
    }

    /// Little-endian elements as f32; none for `U32`.
    pub fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytemuck::pod_collect_to_vec(whole(bytes, 4)),
            Self::F16 => f16_to_f32(&halves(bytes)),
            Self::BF16 => {
                let halves = halves(bytes).into_iter();
                halves
                    .map(|bits| f32::from_bits(u32::from(bits) << 16))
                    .collect()
            }
            Self::U32 => Vec::new(),
        }
    }

    /// The index of the first infinite or NaN among little-endian elements; `U32` has none.
    pub fn first_not_finite(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::F32 => first_not_finite(&self.to_f32(bytes)),
            Self::F16 | Self::BF16 => {
                let exponent = if self == Self::F16 { 0x7c00 } else { 0x7f80 };
                let is_finite = |bits: &u16| bits & exponent != exponent;
                let halves = halves(bytes);
                let mut finite = true;
                all_below(&halves, exponent, &mut finite);
                match finite {
                    true => None,
                    false => halves.iter().position(|bits| !is_finite(bits)),
                }
            }
            Self::U32 => None,
        }
    }
}

/// The index of the first infinite value or NaN.
pub fn first_not_finite(values: &[f32]) -> Option<usize> {
    let mut finite = true;
    all_finite(values, &mut finite);
    match finite {
        true => None,
        false => values.iter().position(|value| !value.is_finite()),
    }
}

/// The values of f16 `bits`.
pub fn f16_to_f32(bits: &[u16]) -> Vec<f32> {
    let mut values = vec![0.0; bits.len()];
    bits.reinterpret_cast::<f16>()
        .convert_to_f32_slice(&mut values);
    values
}

/// `values` rounded to f16, as bits.
pub fn f32_to_f16(values: &[f32]) -> Vec<u16> {
    let mut halves = vec![0_u16; values.len()];
    halves
        .reinterpret_cast_mut::<f16>()
        .convert_from_f32_slice(values);
    halves
}

fn halves(bytes: &[u8]) -> Vec<u16> {
    bytemuck::pod_collect_to_vec(whole(bytes, 2))
}

/// `bytes` without an incomplete element at the end.
fn whole(bytes: &[u8], size: usize) -> &[u8] {
    &bytes[..bytes.len() / size * size]
}

vectorized! {
    /// Whether all values are finite.
    fn all_finite(values: &[f32], finite: &mut bool) {
        *finite = values.chunks(1024).all(|values| {
            values.iter().fold(true, |finite, value| finite & value.is_finite())
        });
    }
}

vectorized! {
    /// Whether no value has all bits of `exponent`.
    fn all_below(values: &[u16], exponent: u16, finite: &mut bool) {
        *finite = values.chunks(1024).all(|values| {
            values.iter().fold(true, |finite, value| finite & (value & exponent != exponent))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let wide = [DType::F16, DType::BF16].map(|dtype| dtype.to_f32(&bytes));
        for (at, &bits) in bits.iter().enumerate() {
            let expected = [
                f16::from_bits(bits).to_f32(),
                half::bf16::from_bits(bits).to_f32(),
            ];
            for (wide, expected) in wide.iter().zip(expected) {
                assert!(
                    wide[at].to_bits() == expected.to_bits()
                        || wide[at].is_nan() && expected.is_nan(),
                    "{bits:#x}"
                );
            }
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        let mut values = vec![f32::MAX; 3000];
        assert_eq!(first_not_finite(&values), None);
        for (at, bad) in [
            (2999, f32::NAN),
            (1030, f32::INFINITY),
            (7, f32::NEG_INFINITY),
        ] {
            values[at] = bad;
            assert_eq!(first_not_finite(&values), Some(at));
            let bytes = bytemuck::cast_slice(&values);
            assert_eq!(DType::F32.first_not_finite(bytes), Some(at));
            let halves = |value: &f32| match value.is_finite() {
                true => [0x7bff_u16, 0x7f7f],
                false => [
                    f16::from_f32(*value).to_bits(),
                    half::bf16::from_f32(*value).to_bits(),
                ],
            };
            for (index, dtype) in [DType::F16, DType::BF16].into_iter().enumerate() {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| halves(value)[index].to_le_bytes())
                    .collect();
                assert_eq!(dtype.first_not_finite(&bytes), Some(at), "{dtype:?}");
                assert_eq!(dtype.first_not_finite(&bytes[..2 * at]), None, "{dtype:?}");
            }
        }
        assert_eq!(DType::U32.first_not_finite(&[0xff; 8]), None);
    }
}
