//! Benchmarks: kernels against the device's measured ceilings, and the stages of a question. The same
//! rows natively and in a browser.
//!
//! Every timed block ends with the readback of a value that depends on it, and follows a warm-up run
//! that is reported apart. `clock` measures, `kernels` and `stages` list the rows, [`report`] is the
//! result. [`layer`] measures one layer for comparison with other runtimes.

mod attention;
mod case;
mod clock;
mod kernels;
pub mod layer;
mod plan;
pub mod report;
mod stages;

use burn::tensor::Device;

pub use self::case::median;
use self::clock::Clock;
use self::plan::Shapes;
pub use self::plan::{GROUPS, Plan};
use self::report::{Report, Row, Token};
use self::stages::{Encoded, TowersInput};
use super::random_weights::RandomWeights;
use crate::cpu::op::is_cpu;
use crate::engine::{Engine, Host, LoadedModel, no_model};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::gpu::device;
use crate::image::Pixels;
use crate::memory::{CpuActivations, KvCacheDType};
use crate::model::chatrex::{ChatRexConfig, Towers};
use crate::model::config::Family;
use crate::model::decoder::Decoder;
use crate::model::presets::Preset;
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::protocol::DevicePreference;
use crate::weights::manifest::Part;
use crate::weights::storage::QuantPreset;

/// What the host program knows about the device.
#[derive(Default)]
pub struct Environment<'a> {
    /// The adapter's name and whether it is a software adapter, where the engine cannot ask.
    pub adapter: Option<(String, bool)>,
    /// Counts the dispatches of this thread so far, those of burn included.
    pub dispatches: Option<&'a dyn Fn() -> u64>,
}

/// Measures the rows of `plan` on the loaded model or on random weights. Every row is handed to
/// `on_row` as soon as it is measured.
///
/// # Errors
/// The plan is invalid, no model is loaded, or the device fails.
pub async fn run<H: Host>(
    engine: &mut Engine<H>,
    plan: &Plan,
    preference: DevicePreference,
    environment: Environment<'_>,
    on_row: &dyn Fn(&Row),
) -> Result<Report, Fault> {
    plan.check().map_err(|what| {
        let advice = "See `chatrex bench --help`";
        Fault::new(FaultKind::Question, "bench", what, advice)
    })?;
    let opened = device::open(preference).await?;
    let (host, loaded) = engine.parts();
    let (adapter, software) = environment
        .adapter
        .unwrap_or((opened.adapter.clone(), opened.software));
    let clock = Clock::new(host, &opened.device, software, plan, on_row);
    let mut bench = Bench::new(clock, plan, loaded)?;
    let (model, stored) = bench.weights.names();
    let layers = bench.chatrex.llm.num_hidden_layers;
    kernels::ceilings(&mut bench.clock).await?;
    if plan.includes("kernels") {
        bench.kernels().await?;
    }
    let pixels = Pixels::test_pattern(1066, 800);
    if plan.includes("upn") {
        bench.upn(&pixels).await?;
    }
    let mut token = None;
    if plan.includes("towers") || plan.includes("decoder") {
        let encoded = bench.towers(&pixels).await?;
        if plan.includes("decoder") {
            token = Some(bench.decoder(&encoded, environment.dispatches).await?);
        }
    }
    let (rows, ceilings) = bench.clock.finish();
    let mut report = Report {
        model,
        stored,
        layers,
        device: opened.kind.into(),
        adapter,
        software,
        ceilings,
        rows,
        token,
    };
    report.fill_shares();
    Ok(report)
}

/// The state of a run.
struct Bench<'a, H> {
    clock: Clock<'a, H>,
    weights: Weights<'a>,
    chatrex: ChatRexConfig,
    upn: Option<UpnConfig>,
    cache: KvCacheDType,
    boxes: usize,
    /// Whether the towers' rows are wanted; the decoder needs their output in any case.
    measure_towers: bool,
}

impl<'a, H: Host> Bench<'a, H> {
    fn new(
        clock: Clock<'a, H>,
        plan: &Plan,
        loaded: Option<&'a mut LoadedModel>,
    ) -> Result<Self, Fault> {
        let (weights, chatrex, upn, cache) = match (plan.like, loaded) {
            (Some(preset), _) => {
                let (chatrex, upn) = plan.configs(preset);
                let quantized = matches!(plan.quant, QuantPreset::Q4 | QuantPreset::Q8);
                let random = Random {
                    preset,
                    quant: plan.quant,
                    layers: chatrex.llm.num_hidden_layers,
                    device: clock.device(),
                    activations: plan.activations,
                };
                let cache = KvCacheDType::default_for(quantized && !is_cpu(clock.device()));
                (Weights::Random(random), chatrex, Some(upn), cache)
            }
            (None, Some(model)) => {
                let chatrex = model.config.chatrex().ok_or_else(|| {
                    let family = model.config.family().map_or("unknown", Family::name);
                    let what = format!("is of the family {family}; benchmarks need chatrex");
                    Fault::model(model.describe().0, what).code(ErrorCode::Unsupported)
                })?;
                let upn = model.config.upn().cloned();
                let cache = model.cache;
                (Weights::Loaded(model), chatrex, upn, cache)
            }
            (None, None) => return Err(no_model()),
        };
        Ok(Self {
            clock,
            weights,
            chatrex,
            upn,
            cache: plan.cache.unwrap_or(cache),
            boxes: plan.boxes,
            measure_towers: plan.includes("towers"),
        })
    }

    async fn kernels(&mut self) -> Result<(), Fault> {
        let shapes = Shapes {
            chatrex: &self.chatrex,
            upn: self.upn.as_ref(),
            cache: self.cache,
            boxes: self.boxes,
        };
        kernels::measure(&mut self.clock, &shapes).await
    }

    async fn upn(&mut self, pixels: &Pixels) -> Result<(), Fault> {
        let Some(config) = &self.upn else {
            return Ok(());
        };
        let image = config.recipe().prepare(pixels);
        match self.weights.upn(config, self.clock.host()).await? {
            Some(upn) => stages::upn(&mut self.clock, &upn, image).await,
            None => Ok(()),
        }
    }

    async fn towers(&mut self, pixels: &Pixels) -> Result<Encoded, Fault> {
        let host = self.clock.host();
        let towers = self.weights.towers(&self.chatrex, host).await?;
        let input = TowersInput {
            chatrex: &self.chatrex,
            pixels,
            boxes: self.boxes,
            measured: self.measure_towers,
        };
        stages::towers(&mut self.clock, &towers, input).await
    }

    async fn decoder(
        &mut self,
        encoded: &Encoded,
        dispatches: Option<&dyn Fn() -> u64>,
    ) -> Result<Token, Fault> {
        let host = self.clock.host();
        let (llm, bytes) = self.weights.decoder(&self.chatrex, host).await?;
        let run = stages::DecoderRun {
            llm: &llm,
            encoded,
            cache: self.cache,
            weight_bytes: bytes,
            dispatches,
        };
        run.measure(&mut self.clock).await
    }
}

/// The weights that are measured.
enum Weights<'a> {
    Random(Random<'a>),
    Loaded(&'a mut LoadedModel),
}

/// Random weights of a preset's shapes.
struct Random<'a> {
    preset: Preset,
    quant: QuantPreset,
    layers: usize,
    device: &'a Device,
    activations: CpuActivations,
}

impl Random<'_> {
    fn source(&self, part: Part) -> RandomWeights {
        RandomWeights::new(part, self.quant, self.layers, self.device)
    }

    fn loader<'a>(&self, source: &'a RandomWeights) -> Loader<'a> {
        Loader::new(source, self.device).with_activations(self.activations)
    }
}

/// A network with random weights, or one of the loaded model.
enum Network<'a, T> {
    Random(Box<T>),
    Loaded(&'a T),
}

impl<T> std::ops::Deref for Network<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Random(network) => network,
            Self::Loaded(network) => network,
        }
    }
}

impl Weights<'_> {
    /// The model's name and how its weights are stored.
    fn names(&self) -> (String, String) {
        match self {
            Self::Random(Random { preset, quant, .. }) => {
                let stored = serde_json::to_value(quant).expect("a plain name");
                let stored = stored.as_str().unwrap_or_default().to_string();
                (format!("random weights like {preset}"), stored)
            }
            Self::Loaded(model) => {
                let (name, stored) = model.describe();
                (name.to_string(), stored.to_string())
            }
        }
    }

    async fn upn(
        &mut self,
        config: &UpnConfig,
        host: &impl Host,
    ) -> Result<Option<Network<'_, Upn>>, Fault> {
        Ok(match self {
            Self::Random(random) => {
                let source = random.source(Part::Upn);
                let upn = Upn::load(&random.loader(&source), config)?;
                Some(Network::Random(Box::new(upn)))
            }
            Self::Loaded(model) => model.upn(host).await?.map(Network::Loaded),
        })
    }

    async fn towers(
        &mut self,
        config: &ChatRexConfig,
        host: &impl Host,
    ) -> Result<Network<'_, Towers>, Fault> {
        Ok(match self {
            Self::Random(random) => {
                let source = random.source(Part::Towers);
                let towers = Towers::load(
                    &random.loader(&source),
                    &config.towers,
                    config.llm.hidden_size,
                )?;
                Network::Random(Box::new(towers))
            }
            Self::Loaded(model) => Network::Loaded(model.towers(host).await?),
        })
    }

    /// The decoder, and the bytes of weights that every token reads.
    async fn decoder(
        &mut self,
        config: &ChatRexConfig,
        host: &impl Host,
    ) -> Result<(Network<'_, Decoder>, u64), Fault> {
        Ok(match self {
            Self::Random(random) => {
                let source = random.source(Part::Decoder);
                let llm = Decoder::load(&random.loader(&source), &config.llm)?;
                let [embedding, rest] = source.bytes();
                let tied = config.llm.tie_word_embeddings;
                let bytes = rest + if tied { embedding } else { 0 };
                (Network::Random(Box::new(llm)), bytes)
            }
            Self::Loaded(model) => {
                let bytes = model.bytes_per_token();
                (Network::Loaded(model.llm(host).await?), bytes)
            }
        })
    }
}
