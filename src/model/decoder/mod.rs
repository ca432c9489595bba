//! The language model: Qwen2 (arXiv 2407.10671) and LLaMA (arXiv 2302.13971) by configuration,
//! `chatrex.md` section 8; tensor names as in `transformers` (`modeling_qwen2.py`,
//! `modeling_llama.py`).
//!
//! One stack of blocks serves two paths. Training runs whole sequences under any mask, so that
//! several dialogues may share one picture. Inference appends to a [`KvCache`] that is allocated
//! once and can be cut back to the picture's prefix; on a graphics device it goes through kernels
//! that fuse a block into six launches per token, and the device chooses tokens itself
//! ([`Decoder::advance`]). Position tables are computed on the host.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::cpu::op::is_cpu;
pub use crate::cpu::varlen_attention::AttentionSpan;
use crate::cpu::varlen_attention::{PackedSequences, varlen_attention};
use crate::error::Fault;
use crate::gpu::attention::decoder::{
    self as decoder_attention, AttentionShape, KvLayer, Qkv, RopeTable,
};
use crate::gpu::buffer::is_gpu;
use crate::gpu::matmul::fused::{self, FusedWeights};
use crate::gpu::matmul::{self, DeviceMatrix, Epilogue, GEMV_MAX_M};
use crate::gpu::sampling::GpuSampler;
use crate::gpu::swiglu::swiglu;
use crate::memory::CacheForm;
use crate::nn::{Init, Linear, Loader, Matrix, RmsNorm};

/// Sizes and switches, by the names of the checkpoint's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// Width D.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; query heads are a multiple.
    pub num_key_value_heads: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Rows V of the embedding.
    pub vocab_size: usize,
    /// The output head is the embedding; `lm_head.weight` is then not read.
    pub tie_word_embeddings: bool,
    /// Biases on q, k and v: Qwen2 has them, LLaMA has not.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// Width of a head where it is not D / heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
}

fn yes() -> bool {
    true
}

impl DecoderConfig {
    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads)
    }
}

/// The whole language model.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `model.embed_tokens.weight`, `[V, D]`.
    pub embed_tokens: Matrix,
    layers: Vec<Block>,
    norm: RmsNorm,
    lm_head: Option<Matrix>,
    #[module(skip)]
    config: DecoderConfig,
    /// Embedding and head as kernels read them.
    #[module(skip)]
    ends: Option<Arc<[Vec<DeviceMatrix>; 2]>>,
}

impl Decoder {
    /// Reads `model.*` and, where embeddings are not tied, `lm_head.weight`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let matrix = [config.vocab_size, config.hidden_size];
        let model = at.child("model");
        let layers = model.child("layers");
        let head_deviation = (config.hidden_size as f32).sqrt().recip();
        let embed_tokens = model
            .child("embed_tokens")
            .matrix(matrix, Init::Normal(0.06))?;
        let lm_head = (!config.tie_word_embeddings)
            .then(|| {
                at.child("lm_head")
                    .matrix(matrix, Init::Normal(head_deviation))
            })
            .transpose()?;
        let head = lm_head.as_ref().unwrap_or(&embed_tokens).on_gpu();
        let ends = embed_tokens.on_gpu().zip(head);
        Ok(Self {
            ends: ends.map(|(embedding, head)| Arc::new([embedding, head])),
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

    /// The configuration it was built with.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The rows of `ids`, `[T, D]`.
    pub fn embed(&self, ids: &[u32]) -> Tensor<2> {
        self.embed_tokens.rows(ids, &self.norm.weight.device())
    }

    /// Whole sequences `[B, T, D]` under `layout`: hidden states after the last norm, `[B, T, D]`.
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

    /// Appends `embeds` `[1, T, D]` to what `cache` holds. Returns the logits of the last row,
    /// `[V]`.
    ///
    /// # Panics
    /// The cache has less room than T.
    pub fn prefill(&self, embeds: Tensor<3>, cache: &mut KvCache) -> Tensor<1> {
        let [batch, new, width] = embeds.dims();
        assert_eq!(batch, 1, "the cache holds one sequence");
        let past = cache.length;
        assert!(
            past + new <= cache.capacity,
            "{past} + {new} tokens exceed the cache of {}",
            cache.capacity
        );
        cache.length = past + new;
        let store = match &mut cache.store {
            Backend::Tensors(slots) => {
                let layout = Masked::appended(past, new, &self.config, &embeds.device());
                let mut x = embeds;
                for (layer, slot) in self.layers.iter().zip(slots) {
                    x = layer.append(x, &layout, slot, past);
                }
                let last = x.slice([0..1, new - 1..new, 0..width]);
                let hidden = self.norm.forward(last);
                return self.logits(hidden).reshape([self.config.vocab_size]);
            }
            Backend::Gpu(store) => store,
        };
        let rows = embeds.reshape([new, width]);
        let mut last = None;
        for start in (0..new).step_by(CHUNK) {
            let x = rows.clone().narrow(0, start, CHUNK.min(new - start));
            last = Some(self.extend(x, past + start, store, &store.places));
        }
        let last = last.expect("a prefill has rows");
        let end = last.dims()[0] - 1;
        self.head(last.narrow(0, end, 1))
    }

    /// Carries rows at positions `past ..` `[T, D]` through all blocks: `[T, D]`.
    fn extend(&self, x: Tensor<2>, past: usize, store: &GpuCache, places: &RopeTable) -> Tensor<2> {
        let layers = self.layers.iter().zip(&store.layers);
        layers.fold(x, |x, (layer, cached)| {
            layer.extend(x, past, store.heads, places, cached)
        })
    }

    /// The logits of one row after the last block `[1, D]`, `[V]`.
    fn head(&self, row: Tensor<2>) -> Tensor<1> {
        let [_, head] = &**self.ends.as_ref().expect("kept with a cache of kernels");
        let norm = self.norm.fused();
        matmul::normed_linear(row, &norm, head, Epilogue::None).reshape([self.config.vocab_size])
    }

    /// Whether the device can choose tokens itself for `cache`.
    pub fn can_advance(&self, cache: &KvCache) -> bool {
        matches!(cache.store, Backend::Gpu(_))
    }

    /// Appends the token that `sampler` chose last and lets it choose the next, all on the device:
    /// nothing is read.
    ///
    /// # Panics
    /// The cache is full, or is none of kernels.
    pub fn advance(&self, sampler: &GpuSampler, cache: &mut KvCache) {
        cache.grow();
        self.launch(sampler, cache);
    }

    /// The launches of [`Decoder::advance`], the same for every token, for a place that
    /// [`KvCache::grow`] has made.
    ///
    /// # Panics
    /// The cache is none of kernels.
    pub fn launch(&self, sampler: &GpuSampler, cache: &KvCache) {
        let Backend::Gpu(store) = &cache.store else {
            panic!("advance: a cache of tensors");
        };
        let [embedding, _] = &**self.ends.as_ref().expect("kept with a cache of kernels");
        let x = matmul::gather_on_device(sampler.token(), embedding);
        let places = store.places.from(sampler.position());
        let x = self.extend(x, 0, store, &places);
        sampler.sample(self.head(x));
    }

    /// Appends one token. Returns the logits that follow it, `[V]`.
    ///
    /// # Panics
    /// The cache is full.
    pub fn step(&self, id: u32, cache: &mut KvCache) -> Tensor<1> {
        self.prefill(self.embed(&[id]).unsqueeze(), cache)
    }
}

/// Rows of a prefill that go through all blocks together: enough to use each weight often, few
/// enough that no submission keeps a middling graphics card from the page for long.
const CHUNK: usize = 256;

/// Values that [`Decoder::probe`] gives.
pub const SELF_TEST_LEN: usize = 16;

impl Decoder {
    /// Carries `rows` made-up rows, the last one by itself, through the first block and the last
    /// norm: the first [`SELF_TEST_LEN`] values of the last row, or fewer where rows are shorter. Touches
    /// every kind of operation a token goes through, but for embedding and head.
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
        let mut cache = KvCache::new(&one_block, rows, CacheForm::Single, &device);
        let mut append = |from: usize, count: usize| {
            let part = x.clone().narrow(1, from, count);
            let block = &self.layers[0];
            match &mut cache.store {
                Backend::Tensors(slots) => {
                    let layout = Masked::appended(from, count, &self.config, &device);
                    block.append(part, &layout, &mut slots[0], from)
                }
                Backend::Gpu(store) => {
                    let part = part.reshape([count, width]);
                    let (heads, places) = (store.heads, &store.places);
                    let x = block.extend(part, from, heads, places, &store.layers[0]);
                    x.unsqueeze()
                }
            }
        };
        append(0, rows - 1);
        let last = self.norm.forward(append(rows - 1, 1));
        last.reshape([width]).narrow(0, 0, SELF_TEST_LEN.min(width))
    }
}

/// Who attends to whom, and where everybody stands.
///
/// On the processor whole sequences go through [`packed_attention`], which visits only what is
/// seen; elsewhere through a mask.
#[derive(Clone, Debug)]
pub enum Layout {
    /// For [`packed_attention`].
    Packed(Arc<PackedSequences>),
    /// For tensor operations.
    Masked(Box<Masked>),
}

/// A mask and position tables as tensors.
#[derive(Clone, Debug)]
pub struct Masked {
    rotary: Rotary,
    /// Added to scores: 0 or a large negative number, `[B or 1, 1, T, S]`.
    mask: Option<Tensor<4>>,
}

impl Layout {
    /// Positions 0.. and a causal mask for sequences of `length`.
    pub fn causal(length: usize, config: &DecoderConfig, device: &Device) -> Self {
        let positions = (0..length as u32).collect();
        Self::packed(
            &[positions],
            &[vec![AttentionSpan::CAUSAL; length]],
            config,
            device,
        )
    }

    /// Several stretches in one sequence: `positions[b][t]` and `sights[b][t]`, one row for all
    /// sequences or one for each, all of one length.
    pub fn packed(
        positions: &[Vec<u32>],
        sights: &[Vec<AttentionSpan>],
        config: &DecoderConfig,
        device: &Device,
    ) -> Self {
        let length = positions[0].len();
        let (cosine, sine) = rope_table(positions, config);
        if is_cpu(device) {
            return Self::Packed(Arc::new(PackedSequences {
                length,
                sights: sights.concat(),
                cosine,
                sine,
            }));
        }
        let mut mask = vec![HIDDEN; sights.len() * length * length];
        for (row, values) in mask.chunks_exact_mut(length).enumerate() {
            let row = (row / length, row % length);
            let sight = sights[row.0][row.1];
            values[..sight.shared].fill(0.0);
            values[sight.own..=row.1].fill(0.0);
        }
        let mask = TensorData::new(mask, [sights.len(), 1, length, length]);
        Self::Masked(Box::new(Masked {
            rotary: Rotary::new(positions, config, device),
            mask: Some(Tensor::from_data(mask, device)),
        }))
    }
}

impl Masked {
    /// `new` rows after `past` others, each seeing all before it.
    fn appended(past: usize, new: usize, config: &DecoderConfig, device: &Device) -> Self {
        let positions = (past as u32..(past + new) as u32).collect();
        let total = past + new;
        let mask = (new > 1).then(|| {
            let mut mask = vec![HIDDEN; new * total];
            for (row, values) in mask.chunks_exact_mut(total).enumerate() {
                values[..=past + row].fill(0.0);
            }
            Tensor::from_data(TensorData::new(mask, [1, 1, new, total]), device)
        });
        Self {
            rotary: Rotary::new(&[positions], config, device),
            mask,
        }
    }
}

/// What is added to the score of a hidden row: far below any score, far above overflow.
const HIDDEN: f32 = -1e9;

/// Rotary position embedding in its half-split form (arXiv 2104.09864; `rotate_half` in
/// `transformers`): channel `i` pairs with channel `i + width / 2`.
#[derive(Clone, Debug)]
struct Rotary {
    /// `[B or 1, 1, T, width / 2]`.
    cosine: Tensor<4>,
    sine: Tensor<4>,
}

impl Rotary {
    fn new(positions: &[Vec<u32>], config: &DecoderConfig, device: &Device) -> Self {
        let (cosine, sine) = rope_table(positions, config);
        let half = config.head_width() / 2;
        let shape = [positions.len(), 1, positions[0].len(), half];
        Self {
            cosine: Tensor::from_data(TensorData::new(cosine, shape), device),
            sine: Tensor::from_data(TensorData::new(sine, shape), device),
        }
    }

    /// `[B, heads, T, width]`, turned.
    fn apply_rope(&self, x: Tensor<4>) -> Tensor<4> {
        let width = x.dims()[3];
        let first = x.clone().narrow(3, 0, width / 2);
        let second = x.narrow(3, width / 2, width / 2);
        let (cosine, sine) = (self.cosine.clone(), self.sine.clone());
        Tensor::cat(
            vec![
                first.clone() * cosine.clone() - second.clone() * sine.clone(),
                second * cosine + first * sine,
            ],
            3,
        )
    }
}

/// Cosine and sine of `position * theta^(-2 i / width)`, `[sequences, T, width / 2]`, the product
/// rounded to f32 as the original does.
fn rope_table(positions: &[Vec<u32>], config: &DecoderConfig) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_width() / 2;
    let frequencies = (0..half)
        .map(|i| config.rope_theta.powf(-(i as f64) / half as f64) as f32)
        .collect::<Vec<_>>();
    let length = positions[0].len();
    let (mut cosine, mut sine) = (Vec::new(), Vec::new());
    for row in positions {
        assert_eq!(row.len(), length, "sequences of one batch have one length");
        for &position in row {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cosine.push(angle.cos() as f32);
                sine.push(angle.sin() as f32);
            }
        }
    }
    (cosine, sine)
}

/// `x += Attention(norm(x)); x += Mlp(norm(x))`.
#[derive(Module, Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
    #[module(skip)]
    kernels: Option<Arc<BlockKernels>>,
}

/// A block's matrices as kernels read them.
#[derive(Debug)]
struct BlockKernels {
    /// Queries, keys and values, and their biases side by side.
    qkv: Option<(FusedWeights<3>, Option<Tensor<1>>)>,
    output: Vec<DeviceMatrix>,
    gate_up: Option<FusedWeights<2>>,
    down: Vec<DeviceMatrix>,
}

impl BlockKernels {
    fn of(attention: &Attention, mlp: &Mlp) -> Option<Self> {
        let rows = |linear: &Linear| linear.weight.on_gpu();
        let projections = [&attention.q_proj, &attention.k_proj, &attention.v_proj];
        let [q, k, v] = projections.map(rows);
        let biases = projections.map(|linear| linear.bias.as_ref().map(Param::val));
        let bias = biases.into_iter().collect::<Option<Vec<_>>>();
        let (gate, up) = (rows(&mlp.gate_proj)?, rows(&mlp.up_proj)?);
        Some(Self {
            qkv: FusedWeights::of([&q?, &k?, &v?])
                .map(|qkv| (qkv, bias.map(|bias| Tensor::cat(bias, 0)))),
            output: rows(&attention.o_proj)?,
            gate_up: FusedWeights::of([&gate, &up]),
            down: rows(&mlp.down_proj)?,
        })
    }
}

impl Block {
    fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let norm = |name| RmsNorm::load(&at.child(name), config.hidden_size, config.rms_norm_eps);
        let self_attn = Attention::load(&at.child("self_attn"), config)?;
        let mlp = Mlp::load(&at.child("mlp"), config)?;
        Ok(Self {
            kernels: BlockKernels::of(&self_attn, &mlp).map(Arc::new),
            input_layernorm: norm("input_layernorm")?,
            self_attn,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp,
        })
    }

    /// Rows at positions `past ..` `[T, D]` to the same, through kernels; a single row takes six
    /// launches.
    fn extend(
        &self,
        x: Tensor<2>,
        past: usize,
        heads: AttentionShape,
        places: &RopeTable,
        cached: &KvLayer,
    ) -> Tensor<2> {
        let kernels = self.kernels.as_ref().expect("kept with a cache of kernels");
        let [count, _] = x.dims();
        let few = count <= GEMV_MAX_M;
        let rows = match &kernels.qkv {
            Some((qkv, bias)) if few => {
                let norm = self.input_layernorm.fused();
                Qkv::Packed(Box::new(fused::qkv_proj(
                    x.clone(),
                    &norm,
                    qkv,
                    bias.clone(),
                )))
            }
            _ => {
                let y = self.input_layernorm.forward(x.clone());
                let attention = &self.self_attn;
                let projections = [&attention.q_proj, &attention.k_proj, &attention.v_proj];
                Qkv::Split(Box::new(
                    projections.map(|linear| linear.forward(y.clone())),
                ))
            }
        };
        let mixed = if count == 1 {
            decoder_attention::attention_decode(rows, heads, past, places, cached)
        } else {
            let q = decoder_attention::rope_kv_append(rows, heads, past, places, cached);
            decoder_attention::attention_prefill(q, heads, past, cached)
        };
        let x = matmul::linear(mixed, &kernels.output, Epilogue::Residual(x));
        let norm = &self.post_attention_layernorm;
        let inner = match &kernels.gate_up {
            Some(gate_up) if few => fused::swiglu_proj(x.clone(), &norm.fused(), gate_up),
            _ => {
                let y = norm.forward(x.clone());
                let gate = self.mlp.gate_proj.forward(y.clone());
                swiglu(gate, self.mlp.up_proj.forward(y))
            }
        };
        matmul::linear(inner, &kernels.down, Epilogue::Residual(x))
    }

    fn forward(&self, x: Tensor<3>, layout: &Layout) -> Tensor<3> {
        let y = self.input_layernorm.forward(x.clone());
        let attended = match layout {
            Layout::Packed(arrangement) => self.self_attn.attend_packed(y, arrangement),
            Layout::Masked(layout) => {
                let (q, k, v) = self.self_attn.project(y, layout);
                self.self_attn.attend(q, k, v, layout)
            }
        };
        self.finish(x, attended)
    }

    fn append(&self, x: Tensor<3>, layout: &Masked, slot: &mut LayerKv, past: usize) -> Tensor<3> {
        let y = self.input_layernorm.forward(x.clone());
        let (q, k, v) = self.self_attn.project(y, layout);
        let (k, v) = slot.append(k, v, past);
        self.finish(x, self.self_attn.attend(q, k, v, layout))
    }

    fn finish(&self, x: Tensor<3>, attended: Tensor<3>) -> Tensor<3> {
        let x = x + attended;
        let y = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(y)
    }
}

/// The start of a layer that writes into the residual: deeper stacks begin more quietly.
fn residual_init(inputs: usize, layers: usize) -> Init {
    Init::Normal(((2 * inputs * layers) as f32).sqrt().recip())
}

/// Grouped-query attention (arXiv 2305.13245): key head `j` serves query heads `j*g .. j*g+g-1`.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    width: usize,
}

impl Attention {
    fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let (heads, groups) = (config.num_attention_heads, config.num_key_value_heads);
        let (width, hidden) = (config.head_width(), config.hidden_size);
        assert_eq!(heads % groups, 0, "query heads divide into key heads");
        let project =
            |name, outputs| Linear::load(&at.child(name), hidden, outputs, config.qkv_bias);
        let residual = residual_init(heads * width, config.num_hidden_layers);
        Ok(Self {
            q_proj: project("q_proj", heads * width)?,
            k_proj: project("k_proj", groups * width)?,
            v_proj: project("v_proj", groups * width)?,
            o_proj: Linear::load_with(&at.child("o_proj"), heads * width, hidden, false, residual)?,
            heads,
            groups,
            width,
        })
    }

    /// `[B, T, D]` to `[B, T, D]`, all heads in one pass.
    fn attend_packed(&self, x: Tensor<3>, arrangement: &Arc<PackedSequences>) -> Tensor<3> {
        let q = self.q_proj.forward(x.clone());
        let k = self.k_proj.forward(x.clone());
        let v = self.v_proj.forward(x);
        self.o_proj
            .forward(varlen_attention(q, k, v, self.width, arrangement))
    }

    /// `[B, T, D]` to turned queries `[B, heads, T, width]`, turned keys and values
    /// `[B, groups, T, width]`.
    fn project(&self, x: Tensor<3>, layout: &Masked) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let [batch, length, _] = x.dims();
        let split = |y: Tensor<3>, heads| {
            y.reshape([batch, length, heads, self.width])
                .swap_dims(1, 2)
        };
        let q = split(self.q_proj.forward(x.clone()), self.heads);
        let k = split(self.k_proj.forward(x.clone()), self.groups);
        let v = split(self.v_proj.forward(x), self.groups);
        (layout.rotary.apply_rope(q), layout.rotary.apply_rope(k), v)
    }

    /// Queries over S keys to `[B, T, D]`. The query heads of one key head lie side by side as
    /// rows of one product, so keys and values are never repeated.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, layout: &Masked) -> Tensor<3> {
        let [batch, _, length, _] = q.dims();
        let seen = k.dims()[2];
        let (groups, share) = (self.groups, self.heads / self.groups);
        let q = q.reshape([batch, groups, share * length, self.width]);
        let scores = q.matmul(k.swap_dims(2, 3)) * (self.width as f64).sqrt().recip();
        let weights = match &layout.mask {
            Some(mask) => {
                let scores = scores.reshape([batch, self.heads, length, seen]) + mask.clone();
                softmax(scores, 3).reshape([batch, groups, share * length, seen])
            }
            None => softmax(scores, 3),
        };
        let mixed = weights
            .matmul(v)
            .reshape([batch, self.heads, length, self.width])
            .swap_dims(1, 2)
            .reshape([batch, length, self.heads * self.width]);
        self.o_proj.forward(mixed)
    }
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let residual = residual_init(inner, config.num_hidden_layers);
        Ok(Self {
            gate_proj: Linear::load(&at.child("gate_proj"), hidden, inner, false)?,
            up_proj: Linear::load(&at.child("up_proj"), hidden, inner, false)?,
            down_proj: Linear::load_with(&at.child("down_proj"), inner, hidden, false, residual)?,
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone());
        let up = self.up_proj.forward(x);
        self.down_proj.forward(swiglu(gate, up))
    }
}

/// Keys and values of one sequence, allocated once for `capacity` tokens.
#[derive(Debug)]
pub struct KvCache {
    store: Backend,
    length: usize,
    capacity: usize,
}

#[derive(Debug)]
enum Backend {
    Tensors(Vec<LayerKv>),
    Gpu(Box<GpuCache>),
}

/// For the kernels of a graphics device.
#[derive(Debug)]
struct GpuCache {
    layers: Vec<KvLayer>,
    heads: AttentionShape,
    places: RopeTable,
}

impl KvCache {
    /// Room for `capacity` tokens, empty. A graphics device holds them in `form`, the processor in
    /// single precision.
    pub fn new(config: &DecoderConfig, capacity: usize, form: CacheForm, device: &Device) -> Self {
        let width = config.head_width();
        let wide = config.num_attention_heads * width;
        let widths = [config.hidden_size, config.intermediate_size, wide];
        let vectors = widths.iter().all(|width| width.is_multiple_of(4));
        let store = if is_gpu(device) && vectors && decoder_attention::takes(width) {
            let heads = AttentionShape {
                queries: config.num_attention_heads,
                keys: config.num_key_value_heads,
                width,
                capacity,
            };
            let positions = (0..capacity as u32).collect();
            let (cosine, sine) = rope_table(&[positions], config);
            let pairs = cosine.chunks(width / 2).zip(sine.chunks(width / 2));
            let angles = pairs.flat_map(|(cosine, sine)| [cosine, sine].concat());
            let angles = TensorData::new(angles.collect::<Vec<_>>(), [capacity, width]);
            let start = Tensor::<1, Int>::zeros([1], device);
            Backend::Gpu(Box::new(GpuCache {
                layers: (0..config.num_hidden_layers)
                    .map(|_| KvLayer::new(heads, form, device))
                    .collect(),
                heads,
                places: RopeTable::new(Tensor::from_data(angles, device), start),
            }))
        } else {
            let shape = [1, config.num_key_value_heads, capacity, width];
            let empty = || Some(Tensor::zeros(shape, device));
            let slots = (0..config.num_hidden_layers).map(|_| LayerKv {
                keys: empty(),
                values: empty(),
            });
            Backend::Tensors(slots.collect())
        };
        Self {
            store,
            length: 0,
            capacity,
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True when no token is held.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens there is room for in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts one token more, which the device puts in its place.
    ///
    /// # Panics
    /// The cache is full.
    pub fn grow(&mut self) {
        assert!(self.length < self.capacity, "the cache is full");
        self.length += 1;
    }

    /// Forgets everything after the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// Keys and values of one block, `[1, groups, capacity, width]`; taken out while they are written
/// so that the write happens in place.
#[derive(Debug)]
struct LayerKv {
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
}

impl LayerKv {
    /// Writes after `past` tokens; returns all keys and all values so far.
    fn append(&mut self, k: Tensor<4>, v: Tensor<4>, past: usize) -> (Tensor<4>, Tensor<4>) {
        (
            write(&mut self.keys, k, past),
            write(&mut self.values, v, past),
        )
    }
}

fn write(held: &mut Option<Tensor<4>>, new: Tensor<4>, past: usize) -> Tensor<4> {
    let [_, groups, count, width] = new.dims();
    let tensor = held.take().expect("a slot is refilled after every write");
    let tensor = tensor.slice_assign([0..1, 0..groups, past..past + count, 0..width], new);
    let seen = tensor.clone().narrow(2, 0, past + count);
    *held = Some(tensor);
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::WeightSource;
    use crate::nn::loader::on_device;

    struct Waves;

    impl WeightSource for Waves {
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
            head_dim: Some(8),
        };
        let decoder = Decoder::load(&Loader::new(&Waves, &device), &config).unwrap();
        (decoder, device)
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

    #[test]
    fn cache_agrees_with_the_whole_sequence() {
        let (decoder, device) = tiny();
        let ids = [3, 1, 4, 1, 5, 9, 2, 6];
        let embeds = decoder.embed(&ids).unsqueeze::<3>();
        let layout = Layout::causal(ids.len(), decoder.config(), &device);
        let whole = values(decoder.logits(decoder.forward(embeds, &layout)));
        let row = |t: usize| &whole[t * 31..(t + 1) * 31];

        let mut cache = KvCache::new(decoder.config(), 16, CacheForm::Single, &device);
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

    /// Two continuations packed behind one prefix give what each gives alone.
    #[test]
    fn packed_dialogues_do_not_see_each_other() {
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
        let sights = [0, 0, 0, 3, 3, 5, 5, 5].map(|own| AttentionSpan {
            shared: own.min(3),
            own,
        });
        let layout = Layout::packed(&positions, &[sights.to_vec()], decoder.config(), &device);
        let packed = values(decoder.forward(decoder.embed(&ids).unsqueeze(), &layout));
        assert_close(&packed[3 * 24..5 * 24], &alone(&a));
        assert_close(&packed[5 * 24..], &alone(&b));
    }
}
