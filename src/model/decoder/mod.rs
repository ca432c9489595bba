//! The language model: a decoder-only transformer, Qwen2 (arXiv 2407.10671) or LLaMA
//! (arXiv 2302.13971) by configuration (`docs/reference/chatrex.md`, section 8). Tensor names are
//! those of `modeling_qwen2.py` and `modeling_llama.py` of `transformers`.
//!
//! One stack of blocks serves training and inference:
//!
//! - Training: [`Decoder::forward`] runs whole sequences under a [`Layout`], so that several
//!   dialogues can share one image.
//! - Inference: [`Decoder::prefill`] and [`Decoder::step`] append to a [`KvCache`] and return
//!   logits. On the GPU a block takes six launches per token, and [`Decoder::advance`] decodes and
//!   samples a token without readback.

mod block;
mod config;
mod kv_cache;
mod layout;
mod rope;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use self::block::{Block, Outputs};
use self::kv_cache::{Backend, GpuCache};
use crate::error::Fault;
use crate::gpu::attention::RopeTable;
use crate::gpu::matmul::{self, DeviceMatrix, Epilogue};
use crate::gpu::sampling::GpuSampler;
use crate::memory::KvCacheDType;
use crate::nn::{Init, Loader, RmsNorm, Weight};

pub use self::config::{DecoderConfig, EMBEDDINGS};
pub use self::kv_cache::KvCache;
pub use self::layout::{Layout, Masked};
pub use crate::cpu::varlen_attention::AttentionSpan;

/// The whole language model.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `model.embed_tokens.weight`, `[V, D]`.
    pub embed_tokens: Weight,
    layers: Vec<Block>,
    norm: RmsNorm,
    lm_head: Option<Weight>,
    #[module(skip)]
    config: DecoderConfig,
    #[module(skip)]
    device_weights: Option<Arc<DeviceWeights>>,
}

/// Embedding and LM head as the kernels read them.
#[derive(Debug)]
struct DeviceWeights {
    embedding: Vec<DeviceMatrix>,
    lm_head: Vec<DeviceMatrix>,
}

impl Decoder {
    /// Reads `model.*` and, if embeddings are not tied, `lm_head.weight`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let shape = [config.vocab_size, config.hidden_size];
        let model = at.child("model");
        let layers = model.child("layers");
        let head_deviation = (config.hidden_size as f32).sqrt().recip();
        let embed_tokens = model
            .child("embed_tokens")
            .weight(shape, Init::Normal(0.06))?;
        let lm_head = (!config.tie_word_embeddings)
            .then(|| {
                at.child("lm_head")
                    .weight(shape, Init::Normal(head_deviation))
            })
            .transpose()?;
        let head = lm_head.as_ref().unwrap_or(&embed_tokens).device_blocks();
        let device_weights = embed_tokens.device_blocks().zip(head);
        Ok(Self {
            device_weights: device_weights
                .map(|(embedding, lm_head)| Arc::new(DeviceWeights { embedding, lm_head })),
            embed_tokens,
            layers: (0..config.num_hidden_layers)
                .map(|layer| Block::load(&layers.child(layer), config))
                .collect::<Result<_, _>>()?,
            norm: RmsNorm::load(
                &model.child("norm"),
                config.hidden_size,
                config.rms_norm_eps,
            )?,
            lm_head,
            config: config.clone(),
        })
    }

    /// The decoder with `embed_tokens` `[vocab_size, D]` in place of its embeddings, to which its LM head is
    /// tied.
    #[must_use]
    pub fn with_embeddings(mut self, embed_tokens: Weight, vocab_size: usize) -> Self {
        self.embed_tokens = embed_tokens;
        self.config.vocab_size = vocab_size;
        self.device_weights = None;
        self
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The embeddings of `ids`, `[T, D]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<2> {
        self.embed_tokens.gather(ids, &self.norm.weight.device())
    }

    /// Whole sequences `[B, T, D]` under `layout`: hidden states after the final norm, `[B, T, D]`.
    pub fn forward(&self, embeds: Tensor<3>, layout: &Layout) -> Tensor<3> {
        let mut x = embeds;
        for layer in &self.layers {
            x = layer.forward(x, layout);
        }
        self.norm.forward(x)
    }

    /// Hidden states `[.., D]` to logits `[.., V]`.
    pub fn logits<const R: usize>(&self, hidden: Tensor<R>) -> Tensor<R> {
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        head.linear(hidden, None)
    }

    /// Appends `embeds` `[1, T, D]` to the tokens in `cache`. Returns the logits of the last row,
    /// `[V]`. The last block computes keys and values for all rows, everything else for the last row only.
    ///
    /// # Panics
    /// T is 0, or T tokens do not fit into the cache.
    pub fn prefill(&self, embeds: Tensor<3>, cache: &mut KvCache) -> Tensor<1> {
        let last = self.run(embeds, cache, Outputs::Last);
        if self.can_advance(cache) {
            return self.logits_on_gpu(last.flatten(0, 1));
        }
        let hidden = self.norm.forward(last);
        self.logits(hidden).reshape([self.config.vocab_size])
    }

    /// Appends `embeds` `[1, T, D]` to the tokens in `cache`. Returns the hidden states of all rows after
    /// the final norm, `[1, T, D]`.
    ///
    /// # Panics
    /// T is 0, or T tokens do not fit into the cache.
    pub fn append(&self, embeds: Tensor<3>, cache: &mut KvCache) -> Tensor<3> {
        self.norm.forward(self.run(embeds, cache, Outputs::All))
    }

    /// Runs `embeds` `[1, T, D]` after the tokens in `cache` through all blocks: `outputs` of `[1, T, D]`.
    fn run(&self, embeds: Tensor<3>, cache: &mut KvCache, outputs: Outputs) -> Tensor<3> {
        let [batch, new, width] = embeds.dims();
        assert_eq!(batch, 1, "the KV cache holds one sequence");
        let past = cache.reserve(new);
        match &mut cache.backend {
            Backend::Cpu(layers) => {
                let angles = rope::angles(past, new, &self.config);
                let layers = self.blocks(outputs).zip(layers);
                layers.fold(embeds, |x, ((layer, outputs), kv)| {
                    layer.append_on_cpu(x, &angles, kv, past, outputs)
                })
            }
            Backend::Tensors(layers) => {
                let layout = Masked::appended(past, new, &self.config, &embeds.device());
                let layers = self.layers.iter().zip(layers);
                outputs.of(layers.fold(embeds, |x, (layer, kv)| layer.append(x, &layout, kv, past)))
            }
            Backend::Gpu(cache) => {
                let rows = embeds.reshape([new, width]);
                let mut chunks = Vec::new();
                for start in (0..new).step_by(PREFILL_CHUNK) {
                    let count = PREFILL_CHUNK.min(new - start);
                    let x = rows.clone().narrow(0, start, count);
                    if outputs == Outputs::All || start + count == new {
                        chunks.push(self.append_on_gpu(
                            x,
                            past + start,
                            cache,
                            &cache.rope,
                            outputs,
                        ));
                    } else {
                        self.append_keys_on_gpu(x, past + start, cache);
                    }
                }
                let chunks = chunks.into_iter();
                let rows = chunks.reduce(|rows, chunk| Tensor::cat(vec![rows, chunk], 0));
                rows.expect("a prefill has rows").unsqueeze()
            }
        }
    }

    /// All blocks, each with the rows of its output that are computed: `outputs` of the last block, all of
    /// the others.
    fn blocks(&self, outputs: Outputs) -> impl Iterator<Item = (&Block, Outputs)> {
        let last = self.layers.len() - 1;
        self.layers
            .iter()
            .enumerate()
            .map(move |(index, block)| (block, if index == last { outputs } else { Outputs::All }))
    }

    /// Appends one token. Returns the logits of the next one, `[V]`.
    ///
    /// # Panics
    /// The cache is full.
    pub fn step(&self, id: u32, cache: &mut KvCache) -> Tensor<1> {
        self.prefill(self.embed(&[id]).unsqueeze(), cache)
    }

    /// Whether [`Decoder::advance`] works with `cache`: it lies on the GPU.
    pub fn can_advance(&self, cache: &KvCache) -> bool {
        matches!(cache.backend, Backend::Gpu(_))
    }

    /// Decodes one token on the GPU: appends the token that `sampler` sampled last and samples the
    /// next. Nothing is read back.
    ///
    /// # Panics
    /// The cache is full or not on the GPU.
    pub fn advance(&self, sampler: &GpuSampler, cache: &mut KvCache) {
        cache.grow();
        self.launch(sampler, cache);
    }

    /// The launches of [`Decoder::advance`] after [`KvCache::grow`]. They are the same for every
    /// token, so they can be captured and replayed.
    ///
    /// # Panics
    /// The cache is not on the GPU.
    pub fn launch(&self, sampler: &GpuSampler, cache: &KvCache) {
        let Backend::Gpu(cache) = &cache.backend else {
            panic!("advance: the KV cache is not on the GPU");
        };
        let x = matmul::gather_on_device(sampler.token(), &self.device_weights().embedding);
        let rope = cache.rope.with_position(sampler.position());
        let x = self.append_on_gpu(x, 0, cache, &rope, Outputs::All);
        sampler.sample(self.logits_on_gpu(x));
    }

    /// Runs rows `[T, D]` at positions `past ..` through all blocks: `outputs` of `[T, D]`.
    fn append_on_gpu(
        &self,
        x: Tensor<2>,
        past: usize,
        cache: &GpuCache,
        rope: &RopeTable,
        outputs: Outputs,
    ) -> Tensor<2> {
        let layers = self.blocks(outputs).zip(&cache.layers);
        layers.fold(x, |x, ((layer, outputs), kv)| {
            layer.append_on_gpu(x, past, cache.shape, rope, kv, outputs)
        })
    }

    /// Appends the keys and values of rows `[T, D]` at positions `past ..` to the caches of all blocks.
    fn append_keys_on_gpu(&self, x: Tensor<2>, past: usize, cache: &GpuCache) {
        let (last, layers) = self.layers.split_last().expect("a decoder has blocks");
        let x = layers.iter().zip(&cache.layers).fold(x, |x, (layer, kv)| {
            layer.append_on_gpu(x, past, cache.shape, &cache.rope, kv, Outputs::All)
        });
        let kv = cache.layers.last().expect("one entry per block");
        last.append_keys_on_gpu(x, past, cache.shape, &cache.rope, kv);
    }

    /// The logits of one row after the last block `[1, D]`, `[V]`.
    fn logits_on_gpu(&self, row: Tensor<2>) -> Tensor<1> {
        let head = &self.device_weights().lm_head;
        let norm = self.norm.fused();
        matmul::normed_linear(row, &norm, head, Epilogue::None).reshape([self.config.vocab_size])
    }

    fn device_weights(&self) -> &DeviceWeights {
        self.device_weights
            .as_ref()
            .expect("a GPU cache comes with device weights")
    }
}

/// Rows per chunk of a prefill on the GPU: enough to use each weight often, few enough that no
/// submission blocks the page for long on a mid-range card.
const PREFILL_CHUNK: usize = 256;

/// Values that [`Decoder::self_test`] returns at most.
pub const SELF_TEST_LEN: usize = 16;

impl Decoder {
    /// Runs `rows` fixed rows, the last one separately, through the first block and the final norm.
    /// Returns the first [`SELF_TEST_LEN`] values of the last row, or D if that is less. Covers
    /// every kind of operation that a token needs except embedding and LM head.
    pub fn self_test(&self, rows: usize) -> Tensor<1> {
        let width = self.config.hidden_size;
        let device = self.norm.weight.device();
        let values: Vec<f32> = (0..rows * width)
            .map(|i| ((i * 37 + i / width * 11) % 127) as f32 / 63.5 - 1.0)
            .collect();
        let x = Tensor::<3>::from_data(TensorData::new(values, [1, rows, width]), &device);
        let one_block = DecoderConfig {
            num_hidden_layers: 1,
            ..self.config.clone()
        };
        let mut cache = KvCache::new(&one_block, rows, KvCacheDType::F32, &device);
        let mut append = |past: usize, count: usize| {
            let x = x.clone().narrow(1, past, count);
            let block = &self.layers[0];
            match &mut cache.backend {
                Backend::Cpu(layers) => {
                    let angles = rope::angles(past, count, &self.config);
                    block.append_on_cpu(x, &angles, &mut layers[0], past, Outputs::All)
                }
                Backend::Tensors(layers) => {
                    let layout = Masked::appended(past, count, &self.config, &device);
                    block.append(x, &layout, &mut layers[0], past)
                }
                Backend::Gpu(cache) => {
                    let x = x.reshape([count, width]);
                    let kv = &cache.layers[0];
                    let x =
                        block.append_on_gpu(x, past, cache.shape, &cache.rope, kv, Outputs::All);
                    x.unsqueeze()
                }
            }
        };
        append(0, rows - 1);
        let last = self.norm.forward(append(rows - 1, 1));
        last.reshape([width]).narrow(0, 0, SELF_TEST_LEN.min(width))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::nn::loader::on_device;
    use crate::nn::{Init, WeightSource};

    /// Weights from a sine, and norms of ones.
    struct SineWeights;

    impl WeightSource for SineWeights {
        fn tensor(
            &self,
            name: &str,
            shape: &[usize],
            init: &Init,
            device: &Device,
        ) -> Result<Tensor<1>, Fault> {
            let count = shape.iter().product::<usize>();
            let values = match init {
                Init::Ones => vec![1.0; count],
                _ => (0..count)
                    .map(|i| ((i * 7 + name.len() * 13) as f32 * 0.37).sin() * 0.3)
                    .collect(),
            };
            Ok(on_device(values, device))
        }
    }

    fn tiny() -> (Decoder, Device) {
        let device = Device::flex();
        (with_heads_of(8, &device), device)
    }

    /// A decoder with heads of `width` channels.
    fn with_heads_of(width: usize, device: &Device) -> Decoder {
        let config = DecoderConfig {
            hidden_size: 24,
            intermediate_size: 40,
            num_hidden_layers: 2,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            vocab_size: 31,
            tie_word_embeddings: true,
            qkv_bias: true,
            head_dim: Some(width),
        };
        Decoder::load(&Loader::new(&SineWeights, device), &config).unwrap()
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    fn assert_close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() < 2e-5, "{i}: {a} {b}");
        }
    }

    /// A prefill gives the last row of the whole sequence, and the cache that a step after it needs.
    fn assert_prefills_agree(decoder: &Decoder, device: &Device) {
        for (first, second) in [(1, 2), (3, 4), (20, 30), (7, PREFILL_CHUNK + 5)] {
            let total = first + second + 1;
            let ids: Vec<u32> = (0..total as u32).map(|i| i * 7 % 31).collect();
            let mut cache = KvCache::new(decoder.config(), total, KvCacheDType::F32, device);
            let hidden = decoder.append(decoder.embed(&ids).unsqueeze(), &mut cache);
            assert_eq!(hidden.dims(), [1, total, 24]);
            let whole = values(decoder.logits(hidden));
            let row = |t: usize| &whole[t * 31..(t + 1) * 31];

            let mut cache = KvCache::new(decoder.config(), total, KvCacheDType::F32, device);
            let mut prefill =
                |ids: &[u32]| values(decoder.prefill(decoder.embed(ids).unsqueeze(), &mut cache));
            assert_close(&prefill(&ids[..first]), row(first - 1));
            assert_close(&prefill(&ids[first..total - 1]), row(total - 2));
            assert_close(&prefill(&ids[total - 1..]), row(total - 1));
        }
    }

    #[test]
    fn a_prefill_gives_the_logits_of_the_last_row() {
        let (decoder, device) = tiny();
        assert_prefills_agree(&decoder, &device);
    }

    /// With heads that kernels support, and in tensor operations.
    #[cfg(feature = "native")]
    #[test]
    fn a_prefill_on_a_gpu_gives_the_logits_of_the_last_row() {
        let test = "a_prefill_on_a_gpu_gives_the_logits_of_the_last_row";
        let Some(device) = crate::gpu::device::adapter_for_test(test) else {
            return;
        };
        for (width, has_kernels) in [(8, true), (6, false)] {
            let decoder = with_heads_of(width, &device);
            let cache = KvCache::new(decoder.config(), 1, KvCacheDType::F32, &device);
            assert_eq!(decoder.can_advance(&cache), has_kernels);
            assert_prefills_agree(&decoder, &device);
        }
    }

    #[test]
    fn the_kv_cache_agrees_with_the_whole_sequence() {
        let (decoder, device) = tiny();
        let ids = [3, 1, 4, 1, 5, 9, 2, 6];
        let embeds = decoder.embed(&ids).unsqueeze::<3>();
        let layout = Layout::causal(ids.len(), decoder.config(), &device);
        let whole = values(decoder.logits(decoder.forward(embeds, &layout)));
        let row = |t: usize| &whole[t * 31..(t + 1) * 31];

        let mut cache = KvCache::new(decoder.config(), 16, KvCacheDType::F32, &device);
        let first = decoder.prefill(decoder.embed(&ids[..3]).unsqueeze(), &mut cache);
        assert_close(&values(first), row(2));
        decoder.prefill(decoder.embed(&[7, 7, 7]).unsqueeze(), &mut cache);
        cache.truncate(3);
        let second = decoder.prefill(decoder.embed(&ids[3..6]).unsqueeze(), &mut cache);
        assert_close(&values(second), row(5));
        assert_close(&values(decoder.step(ids[6], &mut cache)), row(6));
        assert_close(&values(decoder.step(ids[7], &mut cache)), row(7));
        assert_eq!(cache.len(), 8);
    }

    /// Two continuations packed after one prefix give the same as each alone.
    #[test]
    fn packed_dialogues_do_not_attend_to_each_other() {
        let (decoder, device) = tiny();
        let (prefix, a, b) = ([3, 1, 4], [1, 5], [9, 2, 6]);
        let alone = |tail: &[u32]| {
            let ids = [&prefix[..], tail].concat();
            let layout = Layout::causal(ids.len(), decoder.config(), &device);
            let hidden = decoder.forward(decoder.embed(&ids).unsqueeze(), &layout);
            values(hidden)[prefix.len() * 24..].to_vec()
        };
        let ids = [&prefix[..], &a, &b].concat();
        let positions = [vec![0, 1, 2, 3, 4, 3, 4, 5]];
        let spans = [0, 0, 0, 3, 3, 5, 5, 5].map(|start| AttentionSpan {
            prefix_len: start.min(3),
            start,
        });
        let layout = Layout::packed(&positions, &[spans.to_vec()], decoder.config(), &device);
        let packed = values(decoder.forward(decoder.embed(&ids).unsqueeze(), &layout));
        assert_close(&packed[3 * 24..5 * 24], &alone(&a));
        assert_close(&packed[5 * 24..], &alone(&b));
    }
}
