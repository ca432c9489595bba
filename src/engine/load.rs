//! [`Request::Load`](crate::protocol::Request::Load): loads a model folder onto a device. Parts that do
//! not fit into GPU memory together are loaded and evicted on demand.

use burn::tensor::Device;

#[cfg(feature = "native")]
use super::memory_plan::Group;
use super::memory_plan::{self, device_bytes, needs, plan_memory};
#[cfg(feature = "native")]
use super::together::{MOST_BY_DEFAULT, MOST_TOGETHER};
use super::warmup_steps::Warmup;
use super::{Engine, Host};
use crate::cpu::op::is_cpu;
#[cfg(feature = "native")]
use crate::device_preference::DevicePreference;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::constraint::Grammar;
use crate::generate::sampling::Sampling;
use crate::gpu::device::{self, Opened};
use crate::gpu::readback;
use crate::gpu::sampling::SamplingConfig;
use crate::memory::{CpuActivations, Fit, KvCacheDType, Residency, Verdict};
use crate::model::chatrex::Towers;
use crate::model::class_projector::ClassProjector;
use crate::model::config::{ModelConfig, OBJECT_PROJECTOR, ProposerConfig, TowersConfig};
use crate::model::decoder::Decoder;
use crate::model::nanodet::NanoDet;
use crate::model::upn::{self, Upn};
use crate::nn::{Loader, WeightMap};
use crate::progress::{Progress, Stage};
use crate::protocol::{Event, LoadOptions, ModelCard};
use crate::text::tokenizer::Tokenizer;
use crate::weights::download::{Downloader, TransferStats};
use crate::weights::manifest::{MANIFEST, MAX_MANIFEST, Manifest, Part, SelfTest};
use crate::weights::source::ModelFiles;

/// Whether `part` stays on the device while another part computes.
fn stays_resident(residency: Residency, part: Part) -> bool {
    match residency {
        Residency::All => true,
        Residency::Decoder => part == Part::Decoder,
        Residency::OneByOne => false,
    }
}

/// A proposal network on the device.
pub(super) enum Proposer {
    Upn(Box<Upn>),
    Detector(Box<NanoDet>),
}

/// Vision towers on the device.
pub(super) enum LoadedTowers {
    ClipConvNext(Box<Towers>),
    Classes(Box<ClassProjector>),
}

/// A loaded model.
pub struct LoadedModel {
    pub(super) proposer: Option<Proposer>,
    pub(super) towers: Option<LoadedTowers>,
    pub(super) llm: Option<Decoder>,
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// The tokens that end an answer.
    pub stop_ids: Vec<u32>,
    /// Sizes, preprocessing and chat template.
    pub config: ModelConfig,
    /// The device it is loaded on.
    pub device: Device,
    /// Element type of the KV cache.
    pub cache: KvCacheDType,
    activations: CpuActivations,
    manifest: Manifest,
    files: ModelFiles,
    residency: Residency,
    /// Pipelines that are compiled while there is nothing else to do.
    pub(super) warmup: Warmup,
}

impl LoadedModel {
    /// The manifest; its hashes of pieces identify the weights.
    #[cfg(feature = "native")]
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Sampling for an answer about `boxes` boxes.
    pub fn sampling_config(&self, sampling: Sampling, boxes: usize) -> SamplingConfig {
        let tags = match self.config.towers {
            Some(_) => self.tokenizer.list_tags(),
            None => None,
        };
        SamplingConfig {
            sampling,
            penalty: sampling
                .repetition_penalty
                .unwrap_or(self.manifest.defaults.repetition_penalty),
            grammar: tags.map(|([open, close], indices)| Grammar {
                open,
                close,
                indices,
                boxes,
            }),
        }
    }

    /// UPN, if it is the model's proposal network; loads it if necessary.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub async fn upn(&mut self, host: &impl Host) -> Result<Option<&Upn>, Fault> {
        self.ensure_loaded(Part::Upn, host).await?;
        Ok(match &self.proposer {
            Some(Proposer::Upn(upn)) => Some(upn),
            _ => None,
        })
    }

    /// The detector; loads it if necessary.
    ///
    /// # Errors
    /// The model has none, or it cannot be loaded.
    pub async fn detector(&mut self, host: &impl Host) -> Result<&NanoDet, Fault> {
        self.ensure_loaded(Part::Upn, host).await?;
        match &self.proposer {
            Some(Proposer::Detector(detector)) => Ok(detector),
            _ => Err(has_no(&self.manifest, "detector")),
        }
    }

    /// CLIP, ConvNeXt and their projectors; loads them if necessary.
    ///
    /// # Errors
    /// The model has none, or they cannot be loaded.
    pub async fn towers(&mut self, host: &impl Host) -> Result<&Towers, Fault> {
        self.ensure_loaded(Part::Towers, host).await?;
        match &self.towers {
            Some(LoadedTowers::ClipConvNext(towers)) => Ok(towers),
            _ => Err(has_no(&self.manifest, "vision towers")),
        }
    }

    /// The projector of class scores; loads it if necessary.
    ///
    /// # Errors
    /// The model has none, or it cannot be loaded.
    pub async fn projector(&mut self, host: &impl Host) -> Result<&ClassProjector, Fault> {
        self.ensure_loaded(Part::Towers, host).await?;
        match &self.towers {
            Some(LoadedTowers::Classes(projector)) => Ok(projector),
            _ => Err(has_no(&self.manifest, "projector of class scores")),
        }
    }

    /// The language model; loads it if necessary.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub async fn llm(&mut self, host: &impl Host) -> Result<&Decoder, Fault> {
        self.ensure_loaded(Part::Decoder, host).await?;
        Ok(self.llm.as_ref().expect("loaded above"))
    }

    /// The language model, after [`LoadedModel::llm`] has loaded it.
    ///
    /// # Panics
    /// It is not on the device.
    pub fn resident_llm(&self) -> &Decoder {
        self.llm.as_ref().expect("the language model is loaded")
    }

    /// Bytes of weights that decoding one token reads from device memory.
    pub fn bytes_per_token(&self) -> u64 {
        // Decoding gathers one row of an embedding that is not also the LM head.
        let read_whole = |name: &str| {
            self.config.llm.tie_word_embeddings || !name.starts_with("model.embed_tokens.")
        };
        let shards = self.manifest.shards.iter();
        shards
            .filter(|shard| shard.part == Part::Decoder)
            .flat_map(|shard| self.manifest.in_shard(&shard.name))
            .filter(|(name, _)| read_whole(name))
            .map(|(name, tensor)| device_bytes(name, tensor))
            .sum()
    }

    /// Name and weight format of the model, from its manifest.
    pub fn describe(&self) -> (&str, &str) {
        (&self.manifest.name, &self.manifest.precision)
    }

    /// The most pictures whose vision networks may run together, at most `wanted`, within the memory of the device and
    /// `limit`, in bytes. Without `wanted`, [`MOST_BY_DEFAULT`] where it saves time: on a GPU that is no software
    /// adapter, and where parts are loaded on demand; else 1.
    #[cfg(feature = "native")]
    pub(super) async fn pictures_together(
        &self,
        wanted: Option<usize>,
        limit: Option<u64>,
    ) -> usize {
        let preference = match is_cpu(&self.device) {
            true => DevicePreference::Cpu,
            false => DevicePreference::Wgpu,
        };
        // A GPU is opened once, so this is the device of the model.
        let Ok(opened) = device::open(preference).await else {
            return 1;
        };
        let wanted = wanted.unwrap_or(match opened.software && self.residency == Residency::All {
            true => 1,
            false => MOST_BY_DEFAULT,
        });
        let one = needs(&self.manifest, &self.config, self.cache);
        let group = Group {
            one,
            config: &self.config,
            residency: self.residency,
            limit,
        };
        group.most(&opened, wanted.clamp(1, MOST_TOGETHER)).await
    }

    fn is_resident(&self, part: Part) -> bool {
        match part {
            Part::Upn => self.proposer.is_some() || self.config.proposer.is_none(),
            Part::Towers => self.towers.is_some() || self.config.towers.is_none(),
            Part::Decoder => self.llm.is_some(),
        }
    }

    /// Loads `part` unless it is on the device, after evicting what does not stay resident.
    async fn ensure_loaded(&mut self, part: Part, host: &impl Host) -> Result<(), Fault> {
        if self.is_resident(part) {
            return Ok(());
        }
        for other in Part::ALL {
            if other != part && !stays_resident(self.residency, other) {
                match other {
                    Part::Upn => self.proposer = None,
                    Part::Towers => self.towers = None,
                    Part::Decoder => self.llm = None,
                }
            }
        }
        self.load_parts(&[part], host).await
    }

    /// Loads parts from the model store or from their source.
    async fn load_parts(&mut self, parts: &[Part], host: &impl Host) -> Result<(), Fault> {
        let stage = if self.files.store.is_some() {
            Stage::Upload
        } else {
            Stage::Fetch
        };
        let report = |stats: TransferStats| {
            host.emit(Event::Progress(Progress {
                stage,
                done: stats.done,
                total: stats.total,
            }));
        };
        let wanted: fn(&str) -> bool = match self.config.proposer {
            Some(ProposerConfig::Upn(_)) => |name| !upn::is_surplus(name),
            _ => |_| true,
        };
        let mut weights = WeightMap::new(&self.device, wanted);
        let store = self.files.store.as_deref();
        Downloader::new(&self.manifest, &*self.files.source, store, host, &report)
            .tensors(parts, &mut weights)
            .await?;
        let at = Loader::new(&weights, &self.device).with_activations(self.activations);
        for part in parts {
            match part {
                Part::Upn => self.proposer = load_proposer(&at, &self.config)?,
                Part::Towers => self.towers = load_towers(&at, &self.config)?,
                Part::Decoder => self.llm = Some(Decoder::load(&at, &self.config.llm)?),
            }
        }
        weights.finish()
    }

    /// Compares the device's results with those in the manifest.
    async fn run_self_test(&self, opened: &Opened) -> Result<(), Fault> {
        let (Some(test), Some(llm)) = (&self.manifest.self_test, &self.llm) else {
            return Ok(());
        };
        let SelfTest {
            rows,
            expected,
            tolerance,
        } = test;
        if *rows < 2 || *rows > 64 {
            return Err(Fault::model(
                MANIFEST,
                format!("has a self-test of {rows} rows; 2 to 64 are supported"),
            ));
        }
        let values = readback::read("the result of the self-test", llm.self_test(*rows)).await?;
        let wrong = (values.iter().zip(expected)).position(|(value, expected)| {
            let difference = (value - expected).abs();
            difference.is_nan() || difference > *tolerance
        });
        match wrong {
            Some(at) if values[at].is_nan() => Err(Fault::new(
                FaultKind::Device,
                &opened.adapter,
                format!(
                    "fails the self-test: value {at} is NaN instead of {}, so the weights are damaged or \
                     the device computes wrong results",
                    expected[at]
                ),
                "Fetch or convert the model again, or use another device",
            )
            .code(ErrorCode::WrongResult)),
            Some(at) => Err(Fault::new(
                FaultKind::Device,
                &opened.adapter,
                format!(
                    "fails the self-test: value {at} is {} instead of {}",
                    values[at], expected[at]
                ),
                "Update the GPU driver, or use another device",
            )
            .code(ErrorCode::WrongResult)),
            None => Ok(()),
        }
    }
}

impl LoadedModel {
    /// The description that is sent to the client.
    fn card(&self, asked_for: &str, opened: Opened, fit: Fit) -> ModelCard {
        let manifest = &self.manifest;
        ModelCard {
            asked_for: asked_for.to_owned(),
            name: manifest.name.clone(),
            licence: manifest.licence.name.clone(),
            licence_parts: manifest.licence.parts.clone(),
            trained_on: manifest.provenance.trained_on.clone(),
            knows: manifest.provenance.knows.clone(),
            classes: self.config.classes().to_vec(),
            text_only: self.config.towers.is_none(),
            device: opened.kind.into(),
            adapter: opened.adapter.clone(),
            software: opened.software,
            default_score: manifest.defaults.score,
            default_nms: manifest.defaults.nms,
            default_first_of_kind: manifest.defaults.first_of_kind,
            default_max_tokens: manifest.defaults.max_tokens,
            default_repetition_penalty: manifest.defaults.repetition_penalty,
            default_system: self.config.template.system_words().to_owned(),
            multi_turn: manifest.defaults.multi_turn,
            hardware: opened.hardware(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            weight_bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            fit,
        }
    }
}

impl<H: Host> Engine<H> {
    pub(super) async fn load(&mut self, model: &str, options: LoadOptions) -> Result<(), Fault> {
        let LoadOptions {
            device: preference,
            memory,
            cache,
            activations,
        } = options;
        let opened = device::open(preference).await?;
        let files = self.host.files(model).await?;
        let json = files.source.read(MANIFEST, MAX_MANIFEST).await?;
        let manifest = Manifest::parse(&json, MANIFEST)?;
        let config = ModelConfig::of(&manifest, MANIFEST)?;
        let tokenizer = load_tokenizer(&files, &manifest, &config).await?;
        let stop_ids = config
            .template
            .stop
            .iter()
            .map(|token| tokenizer.id(token))
            .collect::<Result<_, _>>()?;
        // Frees memory before it is measured.
        self.picture = None;
        #[cfg(feature = "native")]
        {
            self.next = None;
        }
        self.text = None;
        self.model = None;
        let cache = cache.unwrap_or_else(|| match is_cpu(&opened.device) {
            true => KvCacheDType::F32,
            false => memory_plan::kv_cache_dtype(&manifest),
        });
        let needs = needs(&manifest, &config, cache);
        let fit = plan_memory(needs, &opened, memory).await;
        if fit.verdict == Verdict::WillNotRun {
            let code = match opened.largest_binding() {
                Some(binding) if needs.largest_buffer <= binding => ErrorCode::OutOfMemory,
                _ => ErrorCode::Unsupported,
            };
            return Err(Fault::new(
                FaultKind::Device,
                &manifest.name,
                format!("will not run on {}: it {}", opened.adapter, fit.reason),
                "Use a smaller model, or this one quantized to fewer bits",
            )
            .code(code));
        }
        let mut loaded = LoadedModel {
            warmup: Warmup::new(&config, &opened.device),
            proposer: None,
            towers: None,
            llm: None,
            tokenizer,
            stop_ids,
            config,
            device: opened.device.clone(),
            cache,
            activations: activations.unwrap_or_default(),
            manifest,
            files,
            residency: fit.residency,
        };
        // Parts that do not stay resident are loaded when they are needed.
        let parts: Vec<Part> = Part::ALL
            .into_iter()
            .filter(|&part| stays_resident(fit.residency, part) || part == Part::Decoder)
            .collect();
        loaded.load_parts(&parts, &self.host).await?;
        loaded.run_self_test(&opened).await?;
        let card = loaded.card(model, opened, fit);
        self.model = Some(loaded);
        self.host.emit(Event::Ready(Box::new(card)));
        Ok(())
    }
}

/// The proposal network of `config`, under the names of its checkpoint.
fn load_proposer(at: &Loader, config: &ModelConfig) -> Result<Option<Proposer>, Fault> {
    Ok(match &config.proposer {
        Some(ProposerConfig::Upn(upn)) => Some(Proposer::Upn(Box::new(Upn::load(at, upn)?))),
        Some(ProposerConfig::Detector(detector)) => {
            let detector = NanoDet::load(at, detector)?;
            Some(Proposer::Detector(Box::new(detector)))
        }
        None => None,
    })
}

/// The vision towers of `config`, under the names of their checkpoint.
fn load_towers(at: &Loader, config: &ModelConfig) -> Result<Option<LoadedTowers>, Fault> {
    let width = config.llm.hidden_size;
    Ok(match &config.towers {
        Some(TowersConfig::ClipConvNext { sizes, .. }) => {
            let towers = Towers::load(at, sizes, width)?;
            Some(LoadedTowers::ClipConvNext(Box::new(towers)))
        }
        Some(TowersConfig::Classes(objects)) => {
            let at = at.child(OBJECT_PROJECTOR);
            let projector = ClassProjector::load(&at, objects, config.classes().len(), width)?;
            Some(LoadedTowers::Classes(Box::new(projector)))
        }
        None => None,
    })
}

/// The fault of a request for a part that the model does not have.
fn has_no(manifest: &Manifest, part: &str) -> Fault {
    Fault::model(&manifest.name, format!("has no {part}")).code(ErrorCode::Unsupported)
}

/// Loads the tokenizer, and checks that the model has an embedding for every token.
async fn load_tokenizer(
    files: &ModelFiles,
    manifest: &Manifest,
    config: &ModelConfig,
) -> Result<Tokenizer, Fault> {
    let entry = &manifest.tokenizer;
    let json = files.source.read(&entry.name, entry.bytes).await?;
    entry.check(&json)?;
    // A model that reads text alone has no embeddings for the tags of boxes.
    let read = match config.towers {
        Some(_) => Tokenizer::from_json,
        None => Tokenizer::plain,
    };
    let tokenizer = read(&json, &entry.name, config.bos.as_deref())?;
    let (tokens, embeddings) = (tokenizer.vocab_size(), config.llm.vocab_size);
    if tokens > embeddings {
        return Err(Fault::model(
            &entry.name,
            format!("has {tokens} tokens, the model has embeddings for {embeddings}"),
        ));
    }
    Ok(tokenizer)
}
