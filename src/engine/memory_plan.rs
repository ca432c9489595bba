//! Memory planning: what a model needs, known from its manifest alone, against what a device gives.

use std::collections::BTreeMap;

use crate::gpu::device::Opened;
use crate::gpu::matmul::fused;
use crate::memory::{Fit, KvCacheDType, MemoryNeeds, Residency, Verdict, display_bytes};
use crate::model::chatrex::ClipConvNextConfig;
use crate::model::config::{ModelConfig, ProposerConfig, TowersConfig};
use crate::model::decoder::DecoderConfig;
use crate::model::nanodet::NanoDetConfig;
use crate::model::upn::UpnConfig;
use crate::nn::weight_map::{is_scales, stays_f16};
use crate::text::prompt::MAX_BOXES;
use crate::weights::manifest::{Manifest, Part, Shard, TensorEntry};
use crate::weights::quant::{QWEIGHT, SCALES};
use crate::weights::{DType, QuantScheme, WeightFormat};

/// Tokens of a question and its answer that the plan counts on; a longer question is refused.
pub(super) const MAX_TURN_TOKENS: u64 = 1024;

/// The most tokens of a question, its earlier turns and its answer. Memory beyond [`MAX_TURN_TOKENS`] is
/// allocated when it is asked for.
pub(super) const MAX_REQUEST_TOKENS: usize = 4096;

/// The most tokens of a system prompt other than the model's own.
pub(super) const MAX_SYSTEM_TOKENS: usize = 256;

/// The default element type of the KV cache of a model on a GPU.
pub fn kv_cache_dtype(manifest: &Manifest) -> KvCacheDType {
    default_kv_cache(&tensors(manifest))
}

/// The needs of a model whose KV cache has elements of type `cache`.
pub fn needs(manifest: &Manifest, config: &ModelConfig, cache: KvCacheDType) -> MemoryNeeds {
    needs_of(&tensors(manifest), config, cache)
}

/// A tensor of a model: its part, its name, its entry in the manifest.
pub type PartTensor<'a> = (Part, &'a str, &'a TensorEntry);

fn tensors(manifest: &Manifest) -> Vec<PartTensor<'_>> {
    let shards = manifest.shards.iter();
    let of_shard = |shard: &Shard| (shard.part, manifest.in_shard(&shard.name));
    let parts = shards.map(of_shard).flat_map(|(part, tensors)| {
        let tensors = tensors.into_iter();
        tensors.map(move |(name, entry)| (part, name, entry))
    });
    parts.collect()
}

/// As [`kv_cache_dtype`], of tensors that need not be in a manifest yet.
pub fn default_kv_cache(tensors: &[PartTensor]) -> KvCacheDType {
    let mut tensors = tensors.iter();
    let quantized =
        tensors.any(|(part, _, entry)| *part == Part::Decoder && entry.dtype == DType::U32);
    KvCacheDType::default_for(quantized)
}

/// As [`needs`], of tensors that need not be in a manifest yet.
pub fn needs_of(tensors: &[PartTensor], config: &ModelConfig, cache: KvCacheDType) -> MemoryNeeds {
    let mut needs = MemoryNeeds::default();
    for &(part, name, entry) in tensors {
        let bytes = device_bytes(name, entry);
        needs.largest_buffer = needs.largest_buffer.max(bytes);
        *match part {
            Part::Upn => &mut needs.upn,
            Part::Towers => &mut needs.towers,
            Part::Decoder => &mut needs.decoder,
        } += bytes;
    }
    let llm = &config.llm;
    needs.decoder += fused_scale_bytes(tensors, llm);
    let box_tokens = match config.towers {
        Some(_) => 2 * MAX_BOXES as u64,
        None => 0,
    };
    let tokens = config.visual_tokens() as u64 + box_tokens + MAX_TURN_TOKENS;
    let kv_width = (llm.num_key_value_heads * llm.head_width()) as u64;
    needs.cache = 2 * cache.bytes() as u64 * llm.num_hidden_layers as u64 * kv_width * tokens;
    needs.decoder_scratch = decoder_scratch(llm, tokens);
    needs.towers_scratch = match &config.towers {
        Some(TowersConfig::ClipConvNext { sizes, .. }) => towers_scratch(sizes),
        Some(TowersConfig::Classes(_)) => class_tokens_scratch(config),
        None => 0,
    };
    needs.upn_scratch = match &config.proposer {
        Some(ProposerConfig::Upn(upn)) => upn_scratch(upn),
        Some(ProposerConfig::Detector(detector)) => detector_scratch(detector),
        None => 0,
    };
    needs
}

/// Bytes of the scales that fused kernels hold a second time: those of q, k and v and of gate and up,
/// each concatenated in one buffer ([`fused::FusedWeights`]).
fn fused_scale_bytes(tensors: &[PartTensor], llm: &DecoderConfig) -> u64 {
    let entries: BTreeMap<&str, &TensorEntry> = tensors
        .iter()
        .map(|&(_, name, entry)| (name, entry))
        .collect();
    // A matrix in several row blocks is not fused, and has no entry of this name.
    let quantized = |stem: String| {
        let codes = entries.get(&*format!("{stem}.{QWEIGHT}"))?;
        let scales = entries.get(&*format!("{stem}.{SCALES}"))?;
        let columns = llm.hidden_size;
        let scheme = QuantScheme::infer(columns, &codes.shape, &scales.shape, scales.dtype)?;
        Some(([codes.shape[0], columns], scheme))
    };
    let layers = (0..llm.num_hidden_layers).map(|layer| {
        let matrix = |name: &str| quantized(format!("model.layers.{layer}.{name}_proj"));
        let qkv = ["self_attn.q", "self_attn.k", "self_attn.v"].map(matrix);
        let gate_up = ["mlp.gate", "mlp.up"].map(matrix);
        copied_scale_bytes(qkv) + copied_scale_bytes(gate_up)
    });
    layers.sum()
}

/// Bytes of the scales of these matrices if they are fused, else 0.
fn copied_scale_bytes<const N: usize>(matrices: [Option<([usize; 2], QuantScheme)>; N]) -> u64 {
    let matrices: Option<Vec<_>> = matrices.into_iter().collect();
    let Some(Ok(matrices)) = matrices.map(<[_; N]>::try_from) else {
        return 0;
    };
    if !fused::fusible(matrices.map(|(shape, scheme)| (shape, WeightFormat::Quantized(scheme)))) {
        return 0;
    }
    let bytes = matrices.map(|(shape, scheme)| 4 * scheme.scale_words(shape) as u64);
    bytes.iter().sum()
}

/// What a stored tensor takes on a GPU.
pub(super) fn device_bytes(name: &str, tensor: &TensorEntry) -> u64 {
    let elements = tensor.elements() as u64;
    let stays = match tensor.dtype {
        DType::F16 => is_scales(name) || stays_f16(name, tensor),
        DType::F32 | DType::U32 => true,
        DType::BF16 => false,
    };
    if stays {
        tensor.dtype.bytes() * elements
    } else {
        DType::F32.bytes() * elements
    }
}

/// Activations of a prefill: three hidden rows of the MLP (gate, up, product) and a few rows of the
/// model's width per token. Attention scores never leave their kernel.
fn decoder_scratch(llm: &DecoderConfig, tokens: u64) -> u64 {
    let mlp = 3 * llm.intermediate_size as u64;
    4 * tokens * (mlp + 8 * llm.hidden_size as u64)
}

/// Activations of the towers. The first stage of the high-resolution tower is the widest: three
/// hidden maps of its MLP, and the feature maps of all levels.
fn towers_scratch(config: &ClipConvNextConfig) -> u64 {
    let strides = config.convnext.strides();
    let cells = |stride: usize| (config.image_aux / stride).pow(2) as u64;
    let levels = config.convnext.dims.iter().zip(&strides);
    let features: u64 = levels
        .clone()
        .map(|(&channels, &stride)| channels as u64 * cells(stride))
        .sum();
    let hidden = levels
        .map(|(&channels, &stride)| 4 * channels as u64 * cells(stride))
        .max()
        .unwrap_or(0);
    4 * (3 * hidden + 2 * features)
}

/// Activations of the projector of class scores: per box a few rows of the classes and of the decoder's
/// width.
fn class_tokens_scratch(config: &ModelConfig) -> u64 {
    let width = (4 * config.classes().len() + 2 * config.llm.hidden_size) as u64;
    4 * MAX_BOXES as u64 * width
}

/// Activations of the detector: three maps of the first convolution, which halves the sides, and four
/// times the class scores and distances of all cells.
fn detector_scratch(config: &NanoDetConfig) -> u64 {
    let cells = |stride: usize| (config.side / stride).pow(2) as u64;
    let outputs: u64 = config.strides().into_iter().map(cells).sum();
    let channels = (config.classes.len() + 4 * (config.reg_max + 1)) as u64;
    4 * (3 * config.stem as u64 * cells(2) + 4 * outputs * channels)
}

/// Activations of the proposal network, per token of the largest image: two hidden rows of the FFN and
/// a dozen rows of the transformer's width, or three hidden maps of the first Swin stage. Attention
/// scores and samples never leave their kernels.
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

/// The vision networks on several pictures together.
#[cfg(feature = "native")]
pub(super) struct Group<'a> {
    /// The needs with one picture.
    pub(super) one: MemoryNeeds,
    /// Sizes of the networks.
    pub(super) config: &'a ModelConfig,
    /// Which parts stay on the device.
    pub(super) residency: Residency,
    /// Bytes that must not be exceeded, where the user sets a limit.
    pub(super) limit: Option<u64>,
}

#[cfg(feature = "native")]
impl Group<'_> {
    /// `wanted`, halved until as many pictures fit on `device`, which holds the model; at least 1.
    pub(super) async fn most(&self, device: &Opened, wanted: usize) -> usize {
        let mut count = wanted;
        while count > 1 && !self.fits(device, count as u64).await {
            count /= 2;
        }
        count.max(1)
    }

    async fn fits(&self, device: &Opened, count: u64) -> bool {
        let binding = device.largest_binding();
        let needs = self.needs(count, binding.is_some());
        let peak = needs.peak(self.residency);
        let loaded = match self.residency {
            Residency::All => needs.upn + needs.towers + needs.decoder,
            Residency::Decoder | Residency::OneByOne => needs.decoder,
        };
        let missing = peak.saturating_sub(loaded);
        if self.limit.is_some_and(|limit| peak > limit) {
            return false;
        }
        match binding {
            None => missing <= cpu_memory(),
            Some(binding) => {
                count * largest_map(self.config) <= binding
                    && (peak <= SMALL || device.has_room(missing).await)
            }
        }
    }

    /// The needs with `count` pictures, whose activations are in memory together if they are one batch, and whose
    /// features are while they wait.
    fn needs(&self, count: u64, batched: bool) -> MemoryNeeds {
        let factor = if batched { count } else { 1 };
        let waiting = (count - 1) * feature_bytes(self.config);
        MemoryNeeds {
            upn_scratch: factor * self.one.upn_scratch,
            towers_scratch: factor * self.one.towers_scratch + waiting,
            decoder_scratch: self.one.decoder_scratch + waiting,
            ..self.one
        }
    }
}

/// Bytes of the features of one picture: visual tokens, and the feature maps of all levels.
#[cfg(feature = "native")]
fn feature_bytes(config: &ModelConfig) -> u64 {
    let Some(TowersConfig::ClipConvNext { sizes, .. }) = &config.towers else {
        return 0;
    };
    let cells = |stride: usize| (sizes.image_aux / stride).pow(2);
    let levels = sizes.convnext.dims.iter().zip(sizes.convnext.strides());
    let pyramid: usize = levels.map(|(dims, stride)| dims * cells(stride)).sum();
    4 * (pyramid + sizes.visual_tokens() * config.llm.hidden_size) as u64
}

/// Bytes of the largest buffer of one picture that is not processed in chunks of rows: the map of the first stage of a
/// network, and a quarter more for padding to whole windows.
#[cfg(feature = "native")]
fn largest_map(config: &ModelConfig) -> u64 {
    let towers = match &config.towers {
        Some(TowersConfig::ClipConvNext { sizes, .. }) => {
            let side = sizes.image_aux / sizes.convnext.patch_size;
            sizes.convnext.dims[0] * side * side
        }
        _ => 0,
    };
    let proposer = match &config.proposer {
        Some(ProposerConfig::Upn(upn)) => {
            let (width, height) = (upn.max_size as usize, upn.size as usize);
            upn.backbone.embed_dim * width.div_ceil(4) * height.div_ceil(4)
        }
        Some(ProposerConfig::Detector(detector)) => detector.stem * (detector.side / 2).pow(2),
        None => 0,
    };
    5 * towers.max(proposer) as u64
}

/// No test allocation is made for models that need less than this: any device has it.
const SMALL: u64 = 512 << 20;

/// Memory that a model may take on the CPU of a browser, whose programs have 4 GB of addresses.
#[cfg(not(feature = "native"))]
const BROWSER_MEMORY: u64 = 2 << 30;

/// Memory that is free for a model on the CPU.
fn cpu_memory() -> u64 {
    #[cfg(feature = "native")]
    {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        match system.available_memory() {
            // The system does not tell.
            0 => u64::MAX,
            available => available,
        }
    }
    #[cfg(not(feature = "native"))]
    BROWSER_MEMORY
}

/// From the fastest to the one that needs least memory.
const RESIDENCIES: [Residency; 3] = [Residency::All, Residency::Decoder, Residency::OneByOne];

/// What a model pays for a residency other than [`Residency::All`].
fn reloads(residency: Residency) -> &'static str {
    match residency {
        Residency::All => "every part stays in memory",
        Residency::Decoder => "proposal network and towers are loaded again for every new image",
        Residency::OneByOne => "every part is loaded again each time it is used, which is slow",
    }
}

/// Decides by free memory or, on a GPU, by test allocations on `device` whether a model of these needs runs
/// there, and which parts stay resident. `limit` is memory that it must not exceed, where the user sets one.
pub async fn plan_memory(needs: MemoryNeeds, device: &Opened, limit: Option<u64>) -> Fit {
    let fit = |verdict, residency, reason| Fit {
        verdict,
        residency,
        reason,
        needs,
    };
    let Some(binding) = device.largest_binding() else {
        let free = limit.unwrap_or_else(cpu_memory);
        // A browser's CPU would take minutes for a token of a model that does not fit as a whole.
        let residencies = match cfg!(feature = "native") {
            true => &RESIDENCIES[..],
            false => &[Residency::All],
        };
        let fitting = residencies
            .iter()
            .find(|r| needs.peak(**r) <= free)
            .copied();
        return match fitting {
            Some(Residency::All) => {
                fit(Verdict::Fits, Residency::All, "runs on the CPU".to_string())
            }
            Some(residency) => {
                let how = reloads(residency);
                fit(Verdict::Tight, residency, format!("runs on the CPU; {how}"))
            }
            None => {
                let least = residencies.iter().map(|r| needs.peak(*r)).min();
                let least = display_bytes(least.unwrap_or_default());
                let reason = format!("needs {least} of memory, {} are free", display_bytes(free));
                fit(Verdict::WillNotRun, Residency::OneByOne, reason)
            }
        };
    };
    if needs.largest_buffer > binding {
        let reason = format!(
            "has a tensor of {}, and this device binds at most {}",
            display_bytes(needs.largest_buffer),
            display_bytes(binding)
        );
        return fit(Verdict::WillNotRun, Residency::OneByOne, reason);
    }
    for residency in RESIDENCIES {
        let peak = needs.peak(residency);
        if limit.is_some_and(|limit| peak > limit) {
            continue;
        }
        if peak > SMALL && !device.has_room(peak).await {
            continue;
        }
        let spare = peak <= SMALL || (limit.is_none() && device.has_room(peak + peak / 4).await);
        let reason = format!("needs {} of GPU memory, tested here", display_bytes(peak));
        return match residency {
            Residency::All if spare => fit(Verdict::Fits, residency, reason),
            Residency::All => fit(Verdict::Tight, residency, reason),
            residency => {
                let how = reloads(residency);
                fit(Verdict::Tight, residency, format!("{reason}; {how}"))
            }
        };
    }
    let least = display_bytes(needs.peak(Residency::OneByOne));
    let reason = match limit {
        Some(limit) => format!(
            "needs at least {least}, {} are allowed",
            display_bytes(limit)
        ),
        None => format!("needs at least {least} of GPU memory, which the device refused"),
    };
    fit(Verdict::WillNotRun, Residency::OneByOne, reason)
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::device_preference::DevicePreference;
    use crate::gpu::device::open;

    fn entry(dtype: DType, shape: [usize; 2]) -> TensorEntry {
        TensorEntry {
            shard: String::new(),
            offset: 0,
            dtype,
            shape: shape.into(),
        }
    }

    #[test]
    fn scales_of_fused_matrices_count_twice() {
        let llm = DecoderConfig {
            hidden_size: 64,
            num_hidden_layers: 2,
            ..crate::model::chatrex::ChatRexConfig::nano(100).llm
        };
        let mut entries = Vec::new();
        for (layer, v_bits) in [(0, 4), (1, 8)] {
            for (name, rows, bits) in [
                ("self_attn.q", 64, 4),
                ("self_attn.k", 32, 4),
                ("self_attn.v", 32, v_bits),
                ("self_attn.o", 64, 4),
                ("mlp.gate", 96, 4),
                ("mlp.up", 96, 4),
            ] {
                let scheme = QuantScheme::new(bits, 32);
                let stem = format!("model.layers.{layer}.{name}_proj");
                let codes = entry(DType::U32, [rows, scheme.words(64)]);
                entries.push((format!("{stem}.{QWEIGHT}"), codes));
                entries.push((format!("{stem}.{SCALES}"), entry(DType::F16, [rows, 2])));
            }
        }
        let tensors: Vec<PartTensor> = entries
            .iter()
            .map(|(name, entry)| (Part::Decoder, name.as_str(), entry))
            .collect();
        // Two f16 scales per row: q, k and v of the first block, gate and up of both. In the second
        // block v has another format, so that q, k and v are not fused.
        let expected = 4 * (64 + 32 + 32) + 2 * 4 * (96 + 96);
        assert_eq!(fused_scale_bytes(&tensors, &llm), expected);
        let blocks: Vec<PartTensor> = tensors
            .iter()
            .filter(|(_, name, _)| !name.contains("gate"))
            .copied()
            .collect();
        assert_eq!(fused_scale_bytes(&blocks, &llm), 4 * (64 + 32 + 32));
    }

    #[test]
    fn the_cpu_takes_models_that_fit_its_memory() {
        let cpu = pollster::block_on(open(DevicePreference::Cpu)).expect("every machine has a CPU");
        let fit = |decoder, upn, limit| {
            let needs = MemoryNeeds {
                decoder,
                upn,
                ..MemoryNeeds::default()
            };
            let fit = pollster::block_on(plan_memory(needs, &cpu, limit));
            (fit.verdict, fit.residency)
        };
        assert_eq!(fit(1 << 20, 0, None), (Verdict::Fits, Residency::All));
        assert_eq!(fit(1 << 60, 0, None).0, Verdict::WillNotRun);
        assert_eq!(fit(900, 100, Some(1000)), (Verdict::Fits, Residency::All));
        let (verdict, residency) = fit(900, 101, Some(1000));
        assert!(verdict == Verdict::Tight && residency != Residency::All);
        assert_eq!(fit(1001, 0, Some(1000)).0, Verdict::WillNotRun);
    }

    /// The number of pictures is halved until their activations, on a GPU, or their features fit.
    #[test]
    fn groups_of_pictures_fit_the_memory() {
        let json = include_bytes!("../../assets/models/nano/model.json");
        let manifest = Manifest::parse(json, "nano").expect("nano's manifest");
        let config = ModelConfig::of(&manifest, "nano").expect("nano's sizes");
        let group = |limit| Group {
            one: needs(&manifest, &config, KvCacheDType::F32),
            config: &config,
            residency: Residency::All,
            limit,
        };
        let one = group(None);
        assert_eq!(one.needs(1, true), one.one);
        let (batched, waiting) = (one.needs(4, true), one.needs(4, false));
        assert_eq!(batched.upn_scratch, 4 * one.one.upn_scratch);
        assert_eq!(waiting.upn_scratch, one.one.upn_scratch);
        let features = feature_bytes(&config);
        assert_eq!(
            waiting.decoder_scratch,
            one.one.decoder_scratch + 3 * features
        );
        // 36 visual tokens of 128 values, and levels of 48 x 48 to 6 x 6 cells.
        let cells = 24 * 48 * 48 + 48 * 24 * 24 + 96 * 12 * 12 + 152 * 6 * 6;
        assert_eq!(features, 4 * (36 * 128 + cells));
        let cpu = pollster::block_on(open(DevicePreference::Cpu)).expect("every machine has a CPU");
        let most = |limit, wanted| pollster::block_on(group(Some(limit)).most(&cpu, wanted));
        let limit = waiting.peak(Residency::All);
        assert_eq!((most(limit, 8), most(limit, 5), most(limit, 4)), (4, 2, 4));
        assert_eq!((most(limit - 1, 4), most(0, 4), most(0, 1)), (2, 1, 1));
        let Ok(gpu) = pollster::block_on(open(DevicePreference::Wgpu)) else {
            println!("the GPU part of groups_of_pictures_fit_the_memory skipped: no GPU");
            return;
        };
        let limit = batched.peak(Residency::All);
        let most = |limit| pollster::block_on(group(Some(limit)).most(&gpu, 8));
        assert_eq!((most(limit), most(limit - 1)), (4, 2));
    }

    #[test]
    fn a_limit_decides_which_parts_stay() {
        let Ok(device) = pollster::block_on(open(DevicePreference::Wgpu)) else {
            println!("a_limit_decides_which_parts_stay skipped: no GPU");
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
