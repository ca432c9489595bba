//! The plan of a benchmark run.

use serde::{Deserialize, Serialize};

use crate::memory::{CpuActivations, KvCacheDType};
use crate::model::chatrex::ChatRexConfig;
use crate::model::presets::{Preset, set_depths};
use crate::model::upn::UpnConfig;
use crate::weights::storage::QuantPreset;

/// The groups of rows, in order.
pub const GROUPS: [&str; 4] = ["kernels", "upn", "towers", "decoder"];

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Measure random weights of this preset's shapes; by default the loaded model is measured.
    pub like: Option<Preset>,
    /// Decoder layers of random weights; by default all.
    pub layers: Option<usize>,
    /// Blocks per stage of random towers and of a random UPN; by default all.
    pub depth: Option<usize>,
    /// Quantization of random weights.
    pub quant: QuantPreset,
    /// KV-cache dtype; by default the loaded model's, and f16 for quantized random weights.
    pub cache: Option<KvCacheDType>,
    /// Activations of quantized random weights on the CPU.
    pub activations: CpuActivations,
    /// Boxes in the prompt.
    pub boxes: usize,
    /// Timed blocks per row; 0 means 7, on a software adapter 3.
    pub repeats: usize,
    /// Time limit per row in seconds. A row stops repeating after it, and is left out if its estimate
    /// exceeds it.
    pub seconds: f64,
    /// Which of [`GROUPS`] to measure, in addition to the ceilings; by default all.
    pub only: Vec<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            like: None,
            layers: None,
            depth: None,
            quant: QuantPreset::Q4,
            cache: None,
            activations: CpuActivations::default(),
            boxes: 100,
            repeats: 0,
            seconds: 60.0,
            only: Vec::new(),
        }
    }
}

impl Plan {
    /// Checks the fields.
    ///
    /// # Errors
    /// An unknown group, a preset without a decoder, or a number outside its range.
    pub fn check(&self) -> Result<(), String> {
        for group in &self.only {
            if !GROUPS.contains(&group.as_str()) {
                return Err(format!("{group:?} is none of {}", GROUPS.join(", ")));
            }
        }
        let ranges = [
            (
                "boxes",
                Some(self.boxes),
                1..=crate::text::prompt::MAX_BOXES,
            ),
            ("layers", self.layers, 1..=1000),
            ("depth", self.depth, 1..=1000),
            ("repeats", Some(self.repeats), 0..=1000),
        ];
        for (name, value, range) in ranges {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                return Err(format!(
                    "{name} is {value}, not {} to {}",
                    range.start(),
                    range.end()
                ));
            }
        }
        match self.like {
            Some(preset) if !Preset::WITH_DECODER.contains(&preset) => {
                let known = Preset::WITH_DECODER.map(Preset::name).join(", ");
                Err(format!("like is {preset}, which is none of {known}"))
            }
            None if self.layers.is_some() || self.depth.is_some() => {
                Err("layers and depth apply to random weights only: set `like`".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether a group is measured.
    pub(super) fn includes(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == group)
    }

    /// The preset's configurations with this plan's numbers of layers.
    pub(super) fn configs(&self, preset: Preset) -> (ChatRexConfig, UpnConfig) {
        let mut chatrex = preset.chatrex().expect("a checked plan has a decoder");
        let mut upn = preset.upn();
        set_depths(&mut chatrex, &mut upn, self.layers, self.depth);
        (chatrex, upn)
    }
}

/// The configuration that determines the sizes of the rows.
pub(super) struct Shapes<'a> {
    /// Towers and decoder.
    pub chatrex: &'a ChatRexConfig,
    /// The proposal network, if there is one.
    pub upn: Option<&'a UpnConfig>,
    /// KV-cache dtype.
    pub cache: KvCacheDType,
    /// Boxes in the prompt.
    pub boxes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_outside_their_range_are_rejected() {
        let good = Plan {
            like: Some(Preset::Nano),
            layers: Some(2),
            ..Plan::default()
        };
        assert_eq!(good.check(), Ok(()));
        let cases = [
            (
                Plan {
                    boxes: 0,
                    ..good.clone()
                },
                "boxes is 0",
            ),
            (
                Plan {
                    layers: Some(0),
                    ..good.clone()
                },
                "layers is 0",
            ),
            (
                Plan {
                    like: None,
                    ..good.clone()
                },
                "set `like`",
            ),
            (
                Plan {
                    like: Some(Preset::UpnLarge),
                    ..good.clone()
                },
                "like is upn-large, which is none of chatrex-7b",
            ),
            (
                Plan {
                    only: vec!["towers".into(), "x".into()],
                    ..good.clone()
                },
                "\"x\" is none of kernels",
            ),
        ];
        for (plan, message) in cases {
            let error = plan.check().expect_err(message);
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_plan_is_parsed_from_json() {
        let text = r#"{"like": "rexseek-3b", "layers": 1, "quant": "q8"}"#;
        let plan: Plan = serde_json::from_str(text).expect("a plan");
        assert_eq!((plan.like, plan.layers), (Some(Preset::RexSeek3b), Some(1)));
        assert_eq!((plan.quant, plan.boxes), (QuantPreset::Q8, 100));
        assert!(serde_json::from_str::<Plan>(r#"{"layer": 1}"#).is_err());
        assert_eq!("nano".parse(), Ok(Preset::Nano));
        assert_eq!(Preset::ChatRex7b.to_string(), "chatrex-7b");
        assert!("llama".parse::<Preset>().is_err());
    }
}
