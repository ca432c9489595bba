//! How fast a device is at what a model does: kernels against what its memory and arithmetic can
//! do, and stages of a question. The same rows natively and in a browser.
//!
//! Every timed block ends with the reading of a value that depends on it, and comes after a warm-up
//! whose time is told apart. [`clock`] measures, [`kernels`] and [`stages`] list what is measured,
//! [`report`] is what comes out. [`layer`] is what other runtimes are measured beside.

mod attention;
pub mod clock;
mod kernels;
pub mod layer;
pub mod report;
mod stages;

use serde::{Deserialize, Serialize};

use self::clock::Clock;
use self::report::Report;
use super::random_weights::RandomWeights;
use crate::device_preference::DevicePreference;
use crate::engine::{Engine, Host, no_model};
use crate::error::Fault;
use crate::gpu::device;
use crate::image::Pixels;
use crate::memory::KvCacheDType;
use crate::model::chatrex::{ChatRexConfig, Towers};
use crate::model::decoder::Decoder;
use crate::model::presets::{Preset, set_depths};
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::weights::manifest::Part;
use crate::weights::storage::QuantPreset;

/// The parts of a run, in order.
pub const GROUPS: [&str; 4] = ["kernels", "upn", "towers", "decoder"];

/// What to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Sizes of a made-up model; without it the loaded one is measured.
    pub like: Option<Preset>,
    /// Blocks of a made-up language model; all without.
    pub layers: Option<usize>,
    /// Blocks in every stage of made-up towers and of UPN; all without.
    pub depth: Option<usize>,
    /// How a made-up model is stored.
    pub quant: QuantPreset,
    /// How keys and values are held; without it as the model at hand holds them, and in half precision
    /// beside packed weights of a made-up one.
    pub cache: Option<KvCacheDType>,
    /// Boxes in the prompt.
    pub boxes: usize,
    /// Timed blocks of every row; 0 takes 7, on a software adapter 3.
    pub repeats: usize,
    /// Seconds after which a row is not repeated; rows that would take longer at the pace of the
    /// matrix product are left out.
    pub seconds: f64,
    /// Which of [`GROUPS`], beside the ceilings; all without any.
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
            boxes: 100,
            repeats: 0,
            seconds: 60.0,
            only: Vec::new(),
        }
    }
}

impl Plan {
    /// What cannot be measured.
    ///
    /// # Errors
    /// An unknown group, or a number outside its range, in words.
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
        if let Some(like) = self.like.filter(|like| like.chatrex().is_none()) {
            let known = Preset::WITH_DECODER.map(Preset::name).join(", ");
            return Err(format!("like is {like}, which is none of {known}"));
        }
        if self.like.is_none() && (self.layers.is_some() || self.depth.is_some()) {
            return Err("layers and depth are those of a made-up model: say like which".into());
        }
        Ok(())
    }

    fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == group)
    }

    fn sizes(&self, like: Preset) -> (ChatRexConfig, UpnConfig) {
        let mut chatrex = like.chatrex().expect("a checked plan has a decoder");
        let mut upn = like.upn();
        set_depths(&mut chatrex, &mut upn, self.layers, self.depth);
        (chatrex, upn)
    }
}

/// What the program around knows of the device better than the engine.
#[derive(Default)]
pub struct Around<'a> {
    /// The adapter's name and whether it is software.
    pub adapter: Option<(String, bool)>,
    /// Dispatches of this thread so far, stock operations included.
    pub dispatches: Option<&'a dyn Fn() -> u64>,
}

impl<H: Host> Engine<H> {
    /// Measures what `plan` says on the loaded model, or on a made-up one; rows go to `tell` as they
    /// come.
    ///
    /// # Errors
    /// The plan asks for what there is not, no model is loaded, or the device fails.
    pub async fn bench(
        &mut self,
        plan: &Plan,
        preference: DevicePreference,
        around: Around<'_>,
        tell: &dyn Fn(&report::Row),
    ) -> Result<Report, Fault> {
        plan.check().map_err(|what| {
            let kind = crate::error::FaultKind::Question;
            Fault::new(kind, "bench", what, "See `chatrex bench --help`")
        })?;
        let opened = device::open(preference).await?;
        let (chatrex, upn_config) = match (plan.like, &self.model) {
            (Some(like), _) => {
                let (chatrex, upn) = plan.sizes(like);
                (chatrex, Some(upn))
            }
            (None, Some(model)) => (model.config.chatrex.clone(), model.config.upn.clone()),
            (None, None) => return Err(no_model()),
        };
        let (model, stored) = match (plan.like, &self.model) {
            (None, Some(model)) => {
                let (name, stored) = model.describe();
                (name.to_string(), stored.to_string())
            }
            (Some(like), _) => {
                let stored = serde_json::to_value(plan.quant).expect("a plain name");
                let stored = stored.as_str().unwrap_or_default().to_string();
                (format!("random weights like {like}"), stored)
            }
            (None, None) => return Err(no_model()),
        };
        let (adapter, software) = around
            .adapter
            .unwrap_or((opened.adapter.clone(), opened.software));
        let device = &opened.device;
        let mut clock = Clock::new(&self.host, device, software, plan, tell);
        let mut report = Report {
            model,
            stored,
            layers: chatrex.llm.num_hidden_layers,
            device: opened.kind.into(),
            adapter,
            software,
            ..Report::default()
        };
        kernels::ceilings(&mut clock).await?;
        let held = match (plan.like, &self.model) {
            (None, Some(model)) => model.cache,
            _ => KvCacheDType::default_for(matches!(plan.quant, QuantPreset::Q4 | QuantPreset::Q8)),
        };
        let form = plan.cache.unwrap_or(held);
        if plan.wants("kernels") {
            let shapes = kernels::Shapes {
                chatrex: &chatrex,
                upn: upn_config.as_ref(),
                cache: form,
                boxes: plan.boxes,
            };
            kernels::measure(&mut clock, &shapes).await?;
        }
        let pixels = Pixels::test_pattern(1066, 800);
        let layers = chatrex.llm.num_hidden_layers;
        let made = |part| RandomWeights::new(part, plan.quant, layers, device);
        if let Some(config) = upn_config.filter(|_| plan.wants("upn")) {
            let image = config.recipe().prepare(&pixels);
            match plan.like {
                Some(_) => {
                    let source = made(Part::Upn);
                    let upn = Upn::load(&Loader::new(&source, device), &config)?;
                    stages::upn(&mut clock, &upn, image).await?;
                }
                None => {
                    let model = self.model.as_mut().ok_or_else(no_model)?;
                    if let Some(upn) = model.upn(&self.host).await? {
                        stages::upn(&mut clock, upn, image).await?;
                    }
                }
            }
        }
        let mut looked = None;
        if plan.wants("towers") || plan.wants("decoder") {
            let setting = stages::Setting {
                chatrex: &chatrex,
                pixels: &pixels,
                boxes: plan.boxes,
                measured: plan.wants("towers"),
            };
            looked = Some(match plan.like {
                Some(_) => {
                    let source = made(Part::Towers);
                    let towers = Towers::load(&Loader::new(&source, device), &chatrex)?;
                    stages::towers(&mut clock, &towers, setting).await?
                }
                None => {
                    let model = self.model.as_mut().ok_or_else(no_model)?;
                    let towers = model.towers(&self.host).await?;
                    stages::towers(&mut clock, towers, setting).await?
                }
            });
        }
        if let Some(looked) = looked.filter(|_| plan.wants("decoder")) {
            let count = around.dispatches;
            report.token = Some(match plan.like {
                Some(_) => {
                    let source = made(Part::Decoder);
                    let llm = Decoder::load(&Loader::new(&source, device), &chatrex.llm)?;
                    let [embedding, rest] = source.bytes();
                    let tied = chatrex.llm.tie_word_embeddings;
                    let bytes = rest + if tied { embedding } else { 0 };
                    stages::decoder(&mut clock, &llm, &looked, form, bytes, count).await?
                }
                None => {
                    let model = self.model.as_mut().ok_or_else(no_model)?;
                    let bytes = model.bytes_per_token();
                    let llm = model.llm(&self.host).await?;
                    stages::decoder(&mut clock, llm, &looked, form, bytes, count).await?
                }
            });
        }
        (report.rows, report.ceilings) = clock.finish();
        report.share();
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_outside_their_range_are_refused() {
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
                "say like which",
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
        for (plan, says) in cases {
            let error = plan.check().expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_plan_travels_as_json() {
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
