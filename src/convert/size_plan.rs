//! Download size and GPU memory of a model, from its configuration alone.

use serde::Serialize;

use crate::convert::layout::lay_out;
use crate::convert::required_tensors::required_tensors;
use crate::engine::memory_plan::{PartTensor, default_kv_cache, needs_of};
use crate::error::Fault;
use crate::memory::{MemoryNeeds, Residency};
use crate::model::chatrex::ChatRexConfig;
use crate::model::config::ModelConfig;
use crate::model::upn::UpnConfig;
use crate::text::prompt::ChatTemplate;
use crate::weights::WeightFormat;
use crate::weights::storage::{QuantPreset, storage_for};

/// Tokens of nano's vocabulary.
const NANO_VOCABULARY: usize = 869;

/// The sizes of a model in one quantization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SizePlan {
    /// Bytes of all weight files.
    pub download: u64,
    /// Bytes on a GPU, with the default KV cache.
    pub needs: MemoryNeeds,
}

impl SizePlan {
    /// The sizes of a model of `config`, converted with `quant` and `group` weights per scale.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub fn of(config: &ModelConfig, quant: QuantPreset, group: usize) -> Result<Self, Fault> {
        let required = required_tensors(config)?;
        let layers = config.chatrex.llm.num_hidden_layers;
        let formats: Vec<WeightFormat> = required
            .iter()
            .map(|tensor| storage_for(tensor.spec(), quant, group, layers))
            .collect();
        let shards = lay_out(&required, &formats);
        let tensors: Vec<PartTensor> = shards
            .iter()
            .flat_map(|shard| {
                let stored = shard.blocks.iter().flat_map(|block| &block.stored);
                stored.map(|(name, entry)| (shard.part, name.as_str(), entry))
            })
            .collect();
        Ok(Self {
            download: shards.iter().map(|shard| shard.bytes).sum(),
            needs: needs_of(&tensors, config, default_kv_cache(&tensors)),
        })
    }

    /// GPU memory in bytes with all parts resident.
    pub fn all_resident(&self) -> u64 {
        self.needs.peak(Residency::All)
    }

    /// Peak GPU memory in bytes with one part loaded at a time.
    pub fn one_at_a_time(&self) -> u64 {
        self.needs.peak(Residency::OneByOne)
    }
}

/// Names and configurations of the published models, each with its proposal network.
pub fn published() -> [(&'static str, ModelConfig); 3] {
    [
        (
            "ChatRex-7B",
            ChatRexConfig::chatrex_7b(),
            UpnConfig::large(),
        ),
        (
            "RexSeek-3B",
            ChatRexConfig::rexseek_3b(),
            UpnConfig::large(),
        ),
        (
            "nano",
            ChatRexConfig::nano(NANO_VOCABULARY),
            UpnConfig::nano(),
        ),
    ]
    .map(|(name, chatrex, upn)| {
        let config = ModelConfig {
            recipe: chatrex.recipe(),
            chatrex,
            upn: Some(upn),
            template: ChatTemplate::qwen(),
            bos: None,
        };
        (name, config)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory_plan::{kv_cache_dtype, needs};
    use crate::weights::manifest::{MANIFEST, Manifest};

    /// The manifest of nano was written by the converter.
    #[test]
    fn the_plan_of_nano_agrees_with_its_manifest() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/models/nano/model.json");
        let json = std::fs::read(path).expect("nano's manifest");
        let manifest = Manifest::parse(&json, MANIFEST).expect("nano's manifest");
        let config = ModelConfig::of(&manifest, MANIFEST).expect("nano's configuration");
        let cache = kv_cache_dtype(&manifest);
        let expected = SizePlan {
            download: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            needs: needs(&manifest, &config, cache),
        };
        assert_eq!(
            SizePlan::of(&config, QuantPreset::F16, 32).expect("a network"),
            expected
        );
        let [.., (name, preset)] = published();
        assert_eq!(
            (name, &preset.chatrex, &preset.upn),
            ("nano", &config.chatrex, &config.upn)
        );
    }

    #[test]
    fn fewer_bits_take_less_memory() {
        for (name, config) in published() {
            let plans = QuantPreset::ALL.map(|quant| SizePlan::of(&config, quant, 32));
            let plans = plans.map(|plan| plan.expect("a network"));
            let download = plans.map(|plan| plan.download);
            assert!(download.is_sorted(), "{name}: {download:?}");
            let resident = plans.map(|plan| plan.all_resident());
            assert!(resident.is_sorted(), "{name}: {resident:?}");
            for plan in plans {
                assert!(plan.one_at_a_time() < plan.all_resident(), "{name}");
            }
        }
    }
}
