//! Values of `--cache`, `--cpu-activations` and `--quant` by name, and of options that are numbers.

use std::str::FromStr;

use crate::memory::{CpuActivations, KvCacheDType};
use crate::weights::storage::QuantPreset;

/// A finite number, for options: Rust parses `nan` and `inf` as numbers too.
///
/// # Errors
/// Anything else.
pub fn finite<T: FromStr + Copy + Into<f64>>(text: &str) -> Result<T, String> {
    let number = text
        .parse()
        .ok()
        .filter(|&number: &T| number.into().is_finite());
    number.ok_or_else(|| "expected a number".into())
}

/// Element type of the KV cache by name.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum KvCacheName {
    /// 4 bytes per element.
    #[default]
    F32,
    /// 2 bytes per element.
    F16,
}

impl From<KvCacheName> for KvCacheDType {
    fn from(name: KvCacheName) -> Self {
        match name {
            KvCacheName::F32 => Self::F32,
            KvCacheName::F16 => Self::F16,
        }
    }
}

/// Activations that quantized weights are multiplied with on the CPU, by name.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum CpuActivationsName {
    /// Exact.
    #[default]
    F32,
    /// Quantized to 8 bits in blocks of 32: faster, and not exact.
    Int8,
}

impl From<CpuActivationsName> for CpuActivations {
    fn from(name: CpuActivationsName) -> Self {
        match name {
            CpuActivationsName::F32 => Self::F32,
            CpuActivationsName::Int8 => Self::Int8,
        }
    }
}

/// Precision of weights by name.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum QuantName {
    /// 4 bits for the decoder's blocks, 8 for other matrices.
    #[default]
    Q4,
    /// 8 bits for matrices.
    Q8,
    /// f16.
    F16,
    /// f32: exact.
    F32,
}

impl From<QuantName> for QuantPreset {
    fn from(name: QuantName) -> Self {
        match name {
            QuantName::Q4 => Self::Q4,
            QuantName::Q8 => Self::Q8,
            QuantName::F16 => Self::F16,
            QuantName::F32 => Self::F32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::finite;

    #[test]
    fn numbers_are_finite() {
        assert_eq!(finite::<f32>("-0.5"), Ok(-0.5));
        assert_eq!(finite::<f64>("1e300"), Ok(1e300));
        for text in ["nan", "NaN", "inf", "-infinity", "1e999", "", "0,5", "x"] {
            assert!(
                finite::<f32>(text).is_err() && finite::<f64>(text).is_err(),
                "{text}"
            );
        }
    }
}
