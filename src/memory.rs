//! GPU memory as data: what a model needs, which parts stay resident, the verdict.

use serde::{Deserialize, Serialize};

/// Which parts stay on the device while another one works. The others are evicted and read again
/// from their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residency {
    /// All parts.
    All,
    /// The decoder; the proposal network and the towers are loaded on demand.
    Decoder,
    /// One part at a time.
    OneByOne,
}

/// Activations that quantized weights are multiplied with on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuActivations {
    /// Exact.
    #[default]
    F32,
    /// Quantized to int8 in blocks of 32, which is faster.
    Int8,
}

/// Element type of the KV cache; arithmetic is f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvCacheDType {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes.
    F16,
}

impl KvCacheDType {
    /// The default on a GPU: f16 where the decoder's weights are quantized, because keys and values then lose
    /// no more than the weights did. On the CPU it is f32.
    pub fn default_for(quantized: bool) -> Self {
        if quantized { Self::F16 } else { Self::F32 }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Bytes that a model needs on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNeeds {
    /// Weights of the proposal network.
    pub upn: u64,
    /// Weights of the vision towers and projectors.
    pub towers: u64,
    /// Weights of the decoder, copies for fused kernels included.
    pub decoder: u64,
    /// KV cache of an image with all its boxes and a full answer.
    pub cache: u64,
    /// Activations of the proposal network.
    pub upn_scratch: u64,
    /// Activations of the towers.
    pub towers_scratch: u64,
    /// Activations of a prefill.
    pub decoder_scratch: u64,
    /// The largest single buffer of weights.
    pub largest_buffer: u64,
}

impl MemoryNeeds {
    /// The most that is needed at one time under `residency`.
    pub fn peak(&self, residency: Residency) -> u64 {
        let upn = self.upn + self.upn_scratch;
        let towers = self.towers + self.towers_scratch;
        let decoder = self.decoder + self.cache;
        match residency {
            Residency::All => {
                let scratch = self
                    .upn_scratch
                    .max(self.towers_scratch)
                    .max(self.decoder_scratch);
                self.upn + self.towers + decoder + scratch
            }
            Residency::Decoder => decoder + upn.max(towers).max(self.decoder_scratch),
            Residency::OneByOne => upn.max(towers).max(decoder + self.decoder_scratch),
        }
    }
}

/// Whether a model runs on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// With memory to spare.
    Fits,
    /// Barely; parts may have to be loaded on demand.
    Tight,
    /// Not at all.
    WillNotRun,
}

/// A verdict and its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The verdict.
    pub verdict: Verdict,
    /// Which parts stay on the device.
    pub residency: Residency,
    /// One sentence.
    pub reason: String,
    /// The bytes it is based on.
    pub needs: MemoryNeeds,
}

/// A number of bytes for users: in MB below 100 MB, else in GB.
pub fn display_bytes(bytes: u64) -> String {
    if bytes < 100_000_000 {
        format!("{:.1} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_on_demand_lowers_the_peak() {
        let gb = 1_000_000_000;
        let needs = MemoryNeeds {
            upn: gb / 2,
            towers: gb,
            decoder: 4 * gb,
            cache: gb / 2,
            upn_scratch: gb,
            towers_scratch: gb / 2,
            decoder_scratch: gb / 4,
            largest_buffer: 64 << 20,
        };
        assert_eq!(needs.peak(Residency::All), 7 * gb);
        assert_eq!(needs.peak(Residency::Decoder), 6 * gb);
        assert_eq!(needs.peak(Residency::OneByOne), 4 * gb + 3 * gb / 4);
    }
}
