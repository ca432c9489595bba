//! Will it fit: memory a model needs, known from its manifest alone, against what a device gives.

use crate::gpu::device::Opened;
use crate::memory::{CacheForm, Fit, MemoryNeeds, Residency, Verdict};
use crate::model::chatrex::ChatRexConfig;
use crate::model::config::ModelConfig;
use crate::model::upn::UpnConfig;
use crate::nn::weight_map::stays_half;
use crate::text::prompt::MAX_BOXES;
use crate::weights::manifest::{DType, Manifest, Part, TensorEntry};

/// Tokens of a question and its answer that room is kept for; longer ones are refused.
pub(super) const MAX_TURN_TOKENS: u64 = 1024;

/// How keys and values of a model are held where nobody says it.
pub fn cache_form(manifest: &Manifest) -> CacheForm {
    let shards = manifest.shards.iter();
    let mut decoder = shards
        .filter(|shard| shard.part == Part::Decoder)
        .flat_map(|shard| manifest.in_shard(&shard.name));
    CacheForm::beside(decoder.any(|(_, tensor)| tensor.dtype == DType::U32))
}

/// The needs of a model whose keys and values are held as `cache` says.
pub fn needs(manifest: &Manifest, config: &ModelConfig, cache: CacheForm) -> MemoryNeeds {
    let mut needs = MemoryNeeds::default();
    for shard in &manifest.shards {
        let part = match shard.part {
            Part::Upn => &mut needs.upn,
            Part::Towers => &mut needs.towers,
            Part::Decoder => &mut needs.decoder,
        };
        for (name, tensor) in manifest.in_shard(&shard.name) {
            let bytes = device_bytes(name, tensor);
            *part += bytes;
            needs.largest_buffer = needs.largest_buffer.max(bytes);
        }
    }
    let chatrex = &config.chatrex;
    let llm = &chatrex.llm;
    let tokens = chatrex.visual_tokens() as u64 + 2 * MAX_BOXES as u64 + MAX_TURN_TOKENS;
    let keys = (llm.num_key_value_heads * llm.head_width()) as u64;
    needs.cache = 2 * cache.bytes() as u64 * llm.num_hidden_layers as u64 * keys * tokens;
    needs.decoder_scratch = decoder_scratch(chatrex, tokens);
    needs.towers_scratch = towers_scratch(chatrex);
    needs.upn_scratch = config.upn.as_ref().map_or(0, upn_scratch);
    needs
}

/// What a stored tensor takes on a graphics device.
pub(super) fn device_bytes(name: &str, tensor: &TensorEntry) -> u64 {
    let elements = tensor.elements() as u64;
    // Scales and matrices stay as they are; other halves are widened.
    let scales = tensor.dtype == DType::F16 && name.contains(".scales");
    if scales || stays_half(name, tensor) {
        2 * elements
    } else {
        4 * elements
    }
}

/// Hidden rows of the MLP three times (gate, up, product), and a few rows of the model's width; scores
/// never leave their kernel.
fn decoder_scratch(config: &ChatRexConfig, tokens: u64) -> u64 {
    let llm = &config.llm;
    let mlp = 3 * llm.intermediate_size as u64;
    4 * tokens * (mlp + 8 * llm.hidden_size as u64)
}

/// The first stage of the high-resolution tower is the widest: its MLP's hidden map three times,
/// and the levels that are kept.
fn towers_scratch(config: &ChatRexConfig) -> u64 {
    let strides = config.convnext.strides();
    let cells = |stride: usize| (config.image_aux / stride).pow(2) as u64;
    let levels = config.convnext.dims.iter().zip(&strides);
    let kept: u64 = levels
        .clone()
        .map(|(&channels, &stride)| channels as u64 * cells(stride))
        .sum();
    let hidden = levels
        .map(|(&channels, &stride)| 4 * channels as u64 * cells(stride))
        .max()
        .unwrap_or(0);
    4 * (3 * hidden + 2 * kept)
}

/// Per token of the largest picture the hidden row of the feed-forward part twice and a dozen rows of
/// the transformer's width, or three times the hidden map of the first Swin stage; scores and samples
/// never leave their kernels.
fn upn_scratch(config: &UpnConfig) -> u64 {
    let (width, height) = (u64::from(config.max_size), u64::from(config.size));
    let tokens: u64 = config
        .return_interm_indices
        .iter()
        .map(|stage| {
            let stride = 4 << stage;
            width.div_ceil(stride) * height.div_ceil(stride)
        })
        .sum();
    let d_model = config.d_model as u64;
    let encoder = tokens * (2 * config.d_ffn as u64 + 12 * d_model);
    let cells = width.div_ceil(4) * height.div_ceil(4);
    let hidden = 3 * 4 * cells * config.backbone.embed_dim as u64;
    4 * encoder.max(hidden)
}

/// Models that need less than this are not tested: any device has it.
const SMALL: u64 = 512 << 20;

/// The processor computes with f32; more weights than this would take minutes for a word.
const LARGEST_ON_PROCESSOR: u64 = 2 << 30;

/// Judges a model of these needs by test allocations on `device`; `limit` is memory it must not
/// exceed where the person says so.
pub async fn plan_memory(needs: MemoryNeeds, device: &Opened, limit: Option<u64>) -> Fit {
    let fit = |verdict, residency, reason| Fit {
        verdict,
        residency,
        reason,
        needs,
    };
    let Some(binding) = device.largest_binding() else {
        let bytes = needs.upn + needs.towers + needs.decoder;
        return if bytes > LARGEST_ON_PROCESSOR {
            let reason = format!(
                "{} of weights are too many for the processor",
                gigabytes(bytes)
            );
            fit(Verdict::WillNotRun, Residency::All, reason)
        } else {
            let reason = "runs on the processor".to_string();
            fit(Verdict::Fits, Residency::All, reason)
        };
    };
    if needs.largest_buffer > binding {
        let reason = format!(
            "one tensor takes {}, this device binds {}",
            gigabytes(needs.largest_buffer),
            gigabytes(binding)
        );
        return fit(Verdict::WillNotRun, Residency::OneByOne, reason);
    }
    for residency in [Residency::All, Residency::Decoder, Residency::OneByOne] {
        let peak = needs.peak(residency);
        if limit.is_some_and(|limit| peak > limit) {
            continue;
        }
        if peak > SMALL && !device.has_room(peak).await {
            continue;
        }
        let spare = peak <= SMALL || (limit.is_none() && device.has_room(peak + peak / 4).await);
        let tested = format!("needs {} of graphics memory, tested here", gigabytes(peak));
        return match residency {
            Residency::All if spare => fit(Verdict::Fits, residency, tested),
            Residency::All => fit(Verdict::Tight, residency, tested),
            Residency::Decoder => {
                let how = "detector and towers are loaded again for every new picture";
                fit(Verdict::Tight, residency, format!("{tested}; {how}"))
            }
            Residency::OneByOne => {
                let how = "every part is loaded again when it is its turn, which is slow";
                fit(Verdict::Tight, residency, format!("{tested}; {how}"))
            }
        };
    }
    let least = gigabytes(needs.peak(Residency::OneByOne));
    let reason = match limit {
        Some(limit) => format!("needs {least} at least, {} are allowed", gigabytes(limit)),
        None => format!("needs {least} of graphics memory at least, the device refused them"),
    };
    fit(Verdict::WillNotRun, Residency::OneByOne, reason)
}

fn gigabytes(bytes: u64) -> String {
    if bytes < 100_000_000 {
        format!("{:.1} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.2} GB", bytes as f64 / 1e9)
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;
    use crate::gpu::device::open;

    #[test]
    fn the_processor_takes_small_models_only() {
        let cpu = pollster::block_on(open(DevicePreference::Cpu)).expect("there is a processor");
        let judged = |decoder| {
            let needs = MemoryNeeds {
                decoder,
                ..MemoryNeeds::default()
            };
            pollster::block_on(plan_memory(needs, &cpu, None)).verdict
        };
        assert_eq!(judged(1 << 20), Verdict::Fits);
        assert_eq!(judged(4 << 30), Verdict::WillNotRun);
    }

    #[test]
    fn a_limit_decides_what_stays() {
        let Ok(device) = pollster::block_on(open(DevicePreference::Wgpu)) else {
            println!("a_limit_decides_what_stays skipped: no graphics device");
            return;
        };
        let needs = MemoryNeeds {
            upn: 40 << 20,
            towers: 40 << 20,
            decoder: 60 << 20,
            largest_buffer: 1 << 20,
            ..MemoryNeeds::default()
        };
        for (limit, verdict, residency) in [
            (None, Verdict::Fits, Residency::All),
            (Some(110 << 20), Verdict::Tight, Residency::Decoder),
            (Some(70 << 20), Verdict::Tight, Residency::OneByOne),
            (Some(50 << 20), Verdict::WillNotRun, Residency::OneByOne),
        ] {
            let fit = pollster::block_on(plan_memory(needs, &device, limit));
            assert_eq!(
                (fit.verdict, fit.residency),
                (verdict, residency),
                "{}",
                fit.reason
            );
        }
        let vast = MemoryNeeds {
            largest_buffer: u64::MAX,
            ..needs
        };
        let fit = pollster::block_on(plan_memory(vast, &device, None));
        assert_eq!(fit.verdict, Verdict::WillNotRun);
    }
}
