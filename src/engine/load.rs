//! A model folder becomes networks on a device, all at once or a part at a time.

use serde::{Deserialize, Serialize};

use burn::tensor::Device;

use super::memory_plan::{self, device_bytes, needs, plan_memory};
use super::{Engine, Host};
use crate::error::{Fault, FaultKind};
use crate::generate::constraint::Grammar;
use crate::generate::sampling::Sampling;
use crate::gpu::device;
use crate::gpu::sampling::SamplingConfig;
use crate::image::prepare::SquareRecipe;
use crate::memory::{KvCacheDType, Residency, Verdict};
use crate::model::chatrex::{ChatRexConfig, Towers};
use crate::model::decoder::Decoder;
use crate::model::upn::{self, Upn, UpnConfig};
use crate::nn::{Loader, WeightMap};
use crate::progress::{Progress, Stage};
use crate::protocol::{DevicePreference, Event, ModelCard};
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::download::Downloader;
use crate::weights::manifest::{MANIFEST, MAX_MANIFEST, Manifest, Part, SelfTest};
use crate::weights::source::ModelFiles;

/// The family `chatrex` as the manifest's `config` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Towers, projectors and decoder.
    pub chatrex: ChatRexConfig,
    /// The proposal network; without one people draw their own boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upn: Option<UpnConfig>,
    /// Preprocessing of the towers.
    pub recipe: SquareRecipe,
    /// The words around a question.
    pub template: ChatTemplate,
    /// The token that every prompt begins with, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<String>,
}

impl ModelConfig {
    /// The family's part of a manifest.
    ///
    /// # Errors
    /// Another family, or a configuration that does not fit.
    pub fn of(manifest: &Manifest, place: &str) -> Result<Self, Fault> {
        if manifest.family != "chatrex" {
            let family = &manifest.family;
            return Err(Fault::model(
                place,
                format!("is of the family {family:?}; known is \"chatrex\""),
            ));
        }
        serde_json::from_value(manifest.config.clone())
            .map_err(|error| Fault::model(place, format!("config: {error}")))
    }
}

/// Whether `part` stays on the device while another one works.
fn stays_resident(residency: Residency, part: Part) -> bool {
    match residency {
        Residency::All => true,
        Residency::Decoder => part == Part::Decoder,
        Residency::OneByOne => false,
    }
}

/// A model ready to look and answer.
pub struct LoadedModel {
    pub(super) upn: Option<Upn>,
    pub(super) towers: Option<Towers>,
    pub(super) llm: Option<Decoder>,
    /// Words to ids and back.
    pub tokenizer: Tokenizer,
    /// The tokens that end an answer.
    pub stop_ids: Vec<u32>,
    /// Sizes and recipes.
    pub config: ModelConfig,
    /// Where it computes.
    pub device: Device,
    /// How keys and values are held there.
    pub cache: KvCacheDType,
    manifest: Manifest,
    files: ModelFiles,
    residency: Residency,
    /// Parts whose pipelines were compiled ahead.
    pub(super) compiled: Vec<Part>,
}

impl LoadedModel {
    /// How tokens about `boxes` boxes are chosen.
    pub fn rule(&self, sampling: Sampling, boxes: usize) -> SamplingConfig {
        let ([open, close], indices) = self.tokenizer.list_tags();
        SamplingConfig {
            sampling,
            penalty: self.manifest.defaults.repetition_penalty,
            grammar: Some(Grammar {
                open,
                close,
                indices,
                boxes,
            }),
        }
    }

    /// The proposal network, where the model has one.
    ///
    /// # Errors
    /// It had to be read again and could not.
    pub async fn upn(&mut self, host: &impl Host) -> Result<Option<&Upn>, Fault> {
        self.ensure_loaded(Part::Upn, host).await?;
        Ok(self.upn.as_ref())
    }

    /// Towers and projectors.
    ///
    /// # Errors
    /// They had to be read again and could not.
    pub async fn towers(&mut self, host: &impl Host) -> Result<&Towers, Fault> {
        self.ensure_loaded(Part::Towers, host).await?;
        Ok(self.towers.as_ref().expect("brought just now"))
    }

    /// The language model.
    ///
    /// # Errors
    /// It had to be read again and could not.
    pub async fn llm(&mut self, host: &impl Host) -> Result<&Decoder, Fault> {
        self.ensure_loaded(Part::Decoder, host).await?;
        Ok(self.llm.as_ref().expect("brought just now"))
    }

    /// The language model that [`LoadedModel::llm`] brought.
    ///
    /// # Panics
    /// It is not on the device.
    pub fn resident_llm(&self) -> &Decoder {
        self.llm.as_ref().expect("the language model was brought")
    }

    /// Bytes of weights that every token of an answer needs from the device's memory.
    pub fn bytes_per_token(&self) -> u64 {
        let whole = |name: &str| {
            self.config.chatrex.llm.tie_word_embeddings || !name.starts_with("model.embed_tokens.")
        };
        let tensors = self
            .manifest
            .shards
            .iter()
            .filter(|s| s.part == Part::Decoder);
        tensors
            .flat_map(|shard| self.manifest.in_shard(&shard.name))
            .filter(|(name, _)| whole(name))
            .map(|(name, tensor)| device_bytes(name, tensor))
            .sum()
    }

    /// The manifest's name for the model and how its weights are stored.
    pub fn describe(&self) -> (&str, &str) {
        (&self.manifest.name, &self.manifest.precision)
    }

    fn is_resident(&self, part: Part) -> bool {
        match part {
            Part::Upn => self.upn.is_some() || self.config.upn.is_none(),
            Part::Towers => self.towers.is_some(),
            Part::Decoder => self.llm.is_some(),
        }
    }

    /// Puts `part` on the device, after taking off it what does not stay.
    async fn ensure_loaded(&mut self, part: Part, host: &impl Host) -> Result<(), Fault> {
        if self.is_resident(part) {
            return Ok(());
        }
        for other in Part::ALL {
            if other != part && !stays_resident(self.residency, other) {
                match other {
                    Part::Upn => self.upn = None,
                    Part::Towers => self.towers = None,
                    Part::Decoder => self.llm = None,
                }
            }
        }
        self.read(&[part], host).await
    }

    /// Reads parts from where the model is kept.
    async fn read(&mut self, parts: &[Part], host: &impl Host) -> Result<(), Fault> {
        let stage = if self.files.store.is_some() {
            Stage::Upload
        } else {
            Stage::Fetch
        };
        let report = |tally: crate::weights::download::TransferStats| {
            host.emit(Event::Progress(Progress {
                stage,
                done: tally.done,
                total: tally.total,
            }));
        };
        let mut weights = WeightMap::new(&self.device, |name| !upn::is_surplus(name));
        let store = self.files.store.as_deref();
        Downloader::new(&self.manifest, &*self.files.source, store, host, &report)
            .tensors(parts, &mut weights)
            .await?;
        let at = Loader::new(&weights, &self.device);
        for part in parts {
            match part {
                Part::Upn => {
                    let config = self.config.upn.as_ref();
                    self.upn = config.map(|config| Upn::load(&at, config)).transpose()?;
                }
                Part::Towers => self.towers = Some(Towers::load(&at, &self.config.chatrex)?),
                Part::Decoder => self.llm = Some(Decoder::load(&at, &self.config.chatrex.llm)?),
            }
        }
        weights.finish()?;
        self.compile(parts, host).await
    }

    /// Compares the device's arithmetic with what the manifest expects.
    async fn check(&self, opened: &device::Opened) -> Result<(), Fault> {
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
                format!("has a self-test of {rows} rows"),
            ));
        }
        let found = upn::read(llm.self_test(*rows)).await?;
        let wrong = (found.iter().zip(expected)).position(|(found, expected)| {
            let difference = (found - expected).abs();
            difference.is_nan() || difference > *tolerance
        });
        match wrong {
            Some(at) if found[at].is_nan() => Err(Fault::new(
                FaultKind::Device,
                &opened.adapter,
                format!(
                    "computes no number: value {at} of the self-test is NaN instead of {}, so the \
                     weights are damaged or the device is at fault",
                    expected[at]
                ),
                "Fetch or convert the model again, or use another device",
            )),
            Some(at) => Err(Fault::new(
                FaultKind::Device,
                &opened.adapter,
                format!(
                    "computes wrong: value {at} of the self-test is {} instead of {}",
                    found[at], expected[at]
                ),
                "Update the graphics driver, or use another device",
            )),
            None => Ok(()),
        }
    }
}

impl<H: Host> Engine<H> {
    pub(super) async fn load(
        &mut self,
        model: &str,
        preference: DevicePreference,
        memory: Option<u64>,
        cache: Option<KvCacheDType>,
    ) -> Result<(), Fault> {
        let opened = device::open(preference).await?;
        let files = self.host.files(model).await?;
        let json = files.source.read(MANIFEST, MAX_MANIFEST).await?;
        let manifest = Manifest::parse(&json, MANIFEST)?;
        let config = ModelConfig::of(&manifest, MANIFEST)?;
        let entry = &manifest.tokenizer;
        let tokenizer = files.source.read(&entry.name, entry.bytes).await?;
        entry.check(&tokenizer)?;
        let tokenizer = Tokenizer::from_json(&tokenizer, &entry.name, config.bos.as_deref())?;
        let vocabulary = config.chatrex.llm.vocab_size;
        if tokenizer.vocab_size() > vocabulary {
            return Err(Fault::model(
                &entry.name,
                format!(
                    "has {} tokens, the model has rows for {vocabulary}",
                    tokenizer.vocab_size()
                ),
            ));
        }
        let stop_ids = config
            .template
            .stop
            .iter()
            .map(|token| tokenizer.id(token))
            .collect::<Result<_, _>>()?;
        // Whatever was loaded before makes room first.
        self.picture = None;
        self.model = None;
        let cache = cache.unwrap_or_else(|| memory_plan::kv_cache_dtype(&manifest));
        let needs = needs(&manifest, &config, cache);
        let fit = plan_memory(needs, &opened, memory).await;
        if fit.verdict == Verdict::WillNotRun {
            return Err(Fault::new(
                FaultKind::Device,
                &manifest.name,
                format!("will not run on {}: it {}", opened.adapter, fit.reason),
                "Use a smaller model, or a stronger quantisation of this one",
            ));
        }
        let mut loaded = LoadedModel {
            upn: None,
            towers: None,
            llm: None,
            tokenizer,
            stop_ids,
            config,
            device: opened.device.clone(),
            cache,
            manifest,
            files,
            residency: fit.residency,
            compiled: Vec::new(),
        };
        // What will not stay is read when its turn comes.
        let first: Vec<Part> = Part::ALL
            .into_iter()
            .filter(|&part| stays_resident(fit.residency, part) || part == Part::Decoder)
            .collect();
        loaded.read(&first, &self.host).await?;
        loaded.check(&opened).await?;
        let manifest = &loaded.manifest;
        let card = ModelCard {
            asked_for: model.to_owned(),
            name: manifest.name.clone(),
            licence: manifest.licence.name.clone(),
            trained_on: manifest.provenance.trained_on.clone(),
            device: opened.kind.into(),
            adapter: opened.adapter,
            software: opened.software,
            default_score: manifest.defaults.score,
            default_nms: manifest.defaults.nms,
            default_max_tokens: manifest.defaults.max_tokens,
            weight_bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            fit,
        };
        self.model = Some(loaded);
        self.host.emit(Event::Ready(card));
        Ok(())
    }
}
