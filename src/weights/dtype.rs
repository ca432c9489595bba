//! Element types of stored and uploaded tensors.

use serde::{Deserialize, Serialize};

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
}
