//! A model folder becomes networks on a device.

use serde::{Deserialize, Serialize};

use burn::tensor::Device;

use super::{Engine, Host};
use crate::fault::Fault;
use crate::image::prepare::SquareRecipe;
use crate::kernel::device;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::model::upn::{self, Upn, UpnConfig};
use crate::nn::Loader;
use crate::progress::{Progress, Stage};
use crate::protocol::{DevicePreference, Event, ModelCard};
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::format::{MANIFEST, Manifest};
use crate::weights::{ByteSource, WeightStore};

/// The family `chatrex` as the manifest's `config` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Towers, projectors and decoder.
    pub chatrex: ChatRexConfig,
    /// The proposal network.
    pub upn: UpnConfig,
    /// Preprocessing of the towers.
    pub recipe: SquareRecipe,
    /// The words around a question.
    pub template: ChatTemplate,
}

/// A model ready to look and answer.
pub struct LoadedModel {
    /// Towers, projectors and decoder.
    pub chatrex: ChatRex,
    /// The proposal network.
    pub upn: Upn,
    /// Words to ids and back.
    pub tokenizer: Tokenizer,
    /// The tokens that end an answer.
    pub stop_ids: Vec<u32>,
    /// Sizes and recipes.
    pub config: ModelConfig,
    /// Where it computes.
    pub device: Device,
}

impl<H: Host> Engine<H> {
    pub(super) async fn load(
        &mut self,
        model: &str,
        preference: DevicePreference,
    ) -> Result<(), Fault> {
        let opened = device::open(preference).await?;
        let source = self.host.source(model)?;
        let (manifest, store, tokenizer) = self.fetch(source.as_ref()).await?;
        if manifest.family != "chatrex" {
            return Err(Fault::model(
                source.place(),
                format!(
                    "is of the family {:?}; known is \"chatrex\"",
                    manifest.family
                ),
            ));
        }
        let config: ModelConfig = serde_json::from_value(manifest.config.clone())
            .map_err(|error| Fault::model(MANIFEST, format!("config: {error}")))?;
        let tokenizer = Tokenizer::from_json(&tokenizer, &manifest.tokenizer.name, None)?;
        let stop_ids = config
            .template
            .stop
            .iter()
            .map(|token| tokenizer.id(token))
            .collect::<Result<_, _>>()?;
        self.upload_progress(0);
        self.host.pause().await;
        let at = Loader::new(&store, &opened.device);
        let upn = Upn::load(&at, &config.upn)?;
        self.upload_progress(1);
        self.host.pause().await;
        let chatrex = ChatRex::load(&at, &config.chatrex)?;
        self.upload_progress(2);
        store.finish(upn::is_surplus)?;
        let card = ModelCard {
            name: manifest.name,
            licence: manifest.licence.name,
            trained_on: manifest.provenance.trained_on,
            device: opened.kind.into(),
            adapter: opened.adapter,
            software: opened.software,
            default_score: manifest.defaults.score,
            default_nms: manifest.defaults.nms,
            default_max_tokens: manifest.defaults.max_tokens,
            weight_bytes: store.bytes(),
        };
        self.picture = None;
        self.model = Some(LoadedModel {
            chatrex,
            upn,
            tokenizer,
            stop_ids,
            config,
            device: opened.device,
        });
        self.host.emit(Event::Ready(card));
        Ok(())
    }

    async fn fetch(
        &self,
        source: &dyn ByteSource,
    ) -> Result<(Manifest, WeightStore, Vec<u8>), Fault> {
        let json = source.read(MANIFEST, &|_| ()).await?;
        let manifest = Manifest::parse(&json, MANIFEST)?;
        let total = manifest.tokenizer.bytes + manifest.shards.iter().map(|s| s.bytes).sum::<u64>();
        let report = |done| {
            self.host.emit(Event::Progress(Progress {
                stage: Stage::Fetch,
                done,
                total,
            }));
        };
        let mut before = 0;
        report(before);
        let tokenizer = source
            .read(&manifest.tokenizer.name, &|arrived| report(arrived))
            .await?;
        manifest.tokenizer.check(&tokenizer)?;
        before += manifest.tokenizer.bytes;
        let mut store = WeightStore::new();
        for shard in &manifest.shards {
            let bytes = source
                .read(&shard.name, &|arrived| report(before + arrived))
                .await?;
            store.add_shard(&manifest, &shard.name, &bytes)?;
            before += shard.bytes;
            self.host.pause().await;
        }
        Ok((manifest, store, tokenizer))
    }

    fn upload_progress(&self, done: u64) {
        self.host.emit(Event::Progress(Progress {
            stage: Stage::Upload,
            done,
            total: 2,
        }));
    }
}
