//! Download size and GPU memory of a model, from its configuration alone.

use serde::Serialize;

use crate::convert::layout::lay_out;
use crate::convert::required_tensors::required_tensors;
use crate::engine::memory_plan::{PartTensor, default_kv_cache, needs_of};
use crate::error::Fault;
use crate::memory::MemoryNeeds;
use crate::model::config::ModelConfig;
use crate::model::presets::Preset;
use crate::weights::WeightFormat;
use crate::weights::storage::{QuantPreset, storage_for};

/// Vocabulary size of the trained nano.
const NANO_VOCAB_SIZE: usize = 869;

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
        let layers = config.llm.num_hidden_layers;
        let formats: Vec<WeightFormat> = required
            .iter()
            .map(|tensor| storage_for(tensor.spec(), quant, group, layers))
            .collect();
        let shards = lay_out(&required, &formats, config.family()?);
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
}

/// The presets with a decoder and the configuration of each, proposal network included.
pub fn presets() -> Vec<(Preset, ModelConfig)> {
    let presets = Preset::WITH_DECODER.into_iter();
    let configs = presets.filter_map(|preset| {
        let mut chatrex = preset.chatrex()?;
        if preset == Preset::Nano {
            chatrex.llm.vocab_size = NANO_VOCAB_SIZE;
        }
        Some((
            preset,
            ModelConfig::from_chatrex(chatrex, Some(preset.upn())),
        ))
    });
    configs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::real_model::REAL_MODELS;
    use crate::engine::memory_plan::{kv_cache_dtype, needs};
    use crate::memory::Residency;
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
        let nano = presets()
            .into_iter()
            .find(|(preset, _)| *preset == Preset::Nano);
        let (_, preset) = nano.expect("nano has a decoder");
        assert_eq!(
            (preset.chatrex(), &preset.proposer),
            (config.chatrex(), &config.proposer)
        );
    }

    /// The page shows what published models need before it has their files.
    #[test]
    fn the_page_has_the_plans_of_published_models() {
        for real in &REAL_MODELS {
            let name = real.name.to_lowercase();
            let presets = presets();
            let preset = presets.iter().find(|(preset, _)| preset.name() == name);
            let (_, config) = preset.expect(&name);
            let plan = SizePlan::of(config, QuantPreset::Q4, 32).expect("a network");
            for residency in [Residency::All, Residency::Decoder, Residency::OneByOne] {
                let (exact, shown) = (plan.needs.peak(residency), real.needs.peak(residency));
                assert!(
                    exact.abs_diff(shown) < 100_000_000,
                    "{name}: {exact} {shown}"
                );
            }
            let rounded = |bytes: u64| (bytes + 5_000_000) / 10_000_000;
            assert_eq!(rounded(plan.download), rounded(real.download), "{name}");
        }
    }

    #[test]
    fn fewer_bits_take_less_memory() {
        for (name, config) in presets() {
            let plans = QuantPreset::ALL.map(|quant| SizePlan::of(&config, quant, 32));
            let plans = plans.map(|plan| plan.expect("a network"));
            let download = plans.map(|plan| plan.download);
            assert!(download.is_sorted(), "{name}: {download:?}");
            let resident = plans.map(|plan| plan.needs.peak(Residency::All));
            assert!(resident.is_sorted(), "{name}: {resident:?}");
            for plan in plans {
                let peaks = [Residency::OneByOne, Residency::Decoder, Residency::All]
                    .map(|residency| plan.needs.peak(residency));
                assert!(
                    peaks.is_sorted() && peaks[0] < peaks[2],
                    "{name}: {peaks:?}"
                );
            }
        }
    }
}
