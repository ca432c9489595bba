//! Memory on a graphics device as data: what a model needs, which parts stay, the verdict.

use serde::{Deserialize, Serialize};

/// Which parts stay on the device while another one works. What does not stay is read again from
/// where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residency {
    /// All parts.
    All,
    /// The language model; proposal network and towers come and go.
    Decoder,
    /// One part at a time.
    OneByOne,
}

/// How a graphics device holds keys and values; arithmetic is in single precision all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "native", derive(clap::ValueEnum))]
pub enum CacheForm {
    /// Single precision.
    #[default]
    #[serde(rename = "f32")]
    #[cfg_attr(feature = "native", value(name = "f32"))]
    Single,
    /// Half precision, two in a word.
    #[serde(rename = "f16")]
    #[cfg_attr(feature = "native", value(name = "f16"))]
    Half,
}

impl CacheForm {
    /// The form taken where nobody says it: half precision where the weights of the language model
    /// are packed, so that keys and values lose no more than the weights did.
    pub fn beside(packed: bool) -> Self {
        if packed { Self::Half } else { Self::Single }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Half => 2,
        }
    }
}

/// Bytes that a model needs on a graphics device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNeeds {
    /// Weights of the proposal network.
    pub upn: u64,
    /// Weights of towers and projectors.
    pub towers: u64,
    /// Weights of the language model.
    pub decoder: u64,
    /// Keys and values of a picture with all its boxes and a full answer.
    pub cache: u64,
    /// What finding boxes takes besides.
    pub upn_scratch: u64,
    /// What looking takes besides.
    pub towers_scratch: u64,
    /// What reading a question takes besides.
    pub decoder_scratch: u64,
    /// The largest single buffer of weights.
    pub largest_buffer: u64,
}

impl MemoryNeeds {
    /// The most that is needed at a time when parts come and go as `residency` says.
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
    /// With room to spare.
    Fits,
    /// Just; parts may have to come and go.
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
    /// In a sentence.
    pub reason: String,
    /// What was counted.
    pub needs: MemoryNeeds,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published 7B, packed as the converter packs it, is meant for 8 GB.
    #[test]
    fn a_model_that_comes_and_goes_needs_less() {
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
