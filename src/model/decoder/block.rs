//! One transformer block: attention and a gated MLP, each after an RMSNorm and added to the
//! residual (`Qwen2DecoderLayer`, `LlamaDecoderLayer` of `transformers`).
//!
//! A block has four forward passes over the same weights: [`Block::forward`] over whole sequences
//! (training), [`Block::append_on_cpu`] over the KV cache in loops of the CPU, [`Block::append_on_gpu`] over
//! the KV cache in kernels, and [`Block::append`] over the KV cache in tensor operations, on a GPU whose kernels do
//! not support the decoder.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};

use super::config::DecoderConfig;
use super::kv_cache::TensorKv;
use super::layout::{Layout, Masked};
use crate::cpu::cached_attention::{Angles, CpuKv};
use crate::cpu::softmax::scaled_softmax;
use crate::cpu::varlen_attention::{PackedSequences, varlen_attention};
use crate::error::Fault;
use crate::gpu::attention::{
    AttentionShape, KvLayer, Qkv, RopeTable, attention_decode, attention_prefill, kv_append,
    rope_kv_append,
};
use crate::gpu::matmul::fused::{self, FusedWeights};
use crate::gpu::matmul::{self, DeviceMatrix, Epilogue, GEMV_MAX_M, batched_matmul};
use crate::gpu::swiglu::swiglu;
use crate::nn::{Init, Linear, Loader, RmsNorm};

/// `x += attention(norm(x)); x += mlp(norm(x))`.
#[derive(Module, Debug)]
pub(super) struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
    #[module(skip)]
    device_weights: Option<Arc<DeviceWeights>>,
}

/// The rows of a block's output that are computed. Keys and values are computed for all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outputs {
    /// All rows.
    All,
    /// The last row.
    Last,
}

impl Outputs {
    /// These rows of `x` `[.., T, D]`.
    pub fn of<const R: usize>(self, x: Tensor<R>) -> Tensor<R> {
        match self {
            Self::All => x,
            Self::Last => {
                let rows = x.dims()[R - 2];
                x.narrow(R - 2, rows - 1, 1)
            }
        }
    }
}

/// The weights of a block as the kernels read them.
#[derive(Debug)]
struct DeviceWeights {
    /// Fused q, k and v projections and their concatenated biases; `None` if they cannot be fused.
    qkv: Option<(FusedWeights<3>, Option<Tensor<1>>)>,
    output: Vec<DeviceMatrix>,
    /// Fused gate and up projections; `None` if they cannot be fused.
    gate_up: Option<FusedWeights<2>>,
    down: Vec<DeviceMatrix>,
}

impl DeviceWeights {
    fn of(attention: &Attention, mlp: &Mlp) -> Option<Self> {
        let blocks = |linear: &Linear| linear.weight.device_blocks();
        let projections = [&attention.q_proj, &attention.k_proj, &attention.v_proj];
        let [q, k, v] = projections.map(blocks);
        let biases = projections.map(|linear| linear.bias.as_ref().map(Param::val));
        let bias = biases.into_iter().collect::<Option<Vec<_>>>();
        let (gate, up) = (blocks(&mlp.gate_proj)?, blocks(&mlp.up_proj)?);
        Some(Self {
            qkv: FusedWeights::of([&q?, &k?, &v?])
                .map(|qkv| (qkv, bias.map(|bias| Tensor::cat(bias, 0)))),
            output: blocks(&attention.o_proj)?,
            gate_up: FusedWeights::of([&gate, &up]),
            down: blocks(&mlp.down_proj)?,
        })
    }
}

impl Block {
    pub fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let norm = |name| RmsNorm::load(&at.child(name), config.hidden_size, config.rms_norm_eps);
        let self_attn = Attention::load(&at.child("self_attn"), config)?;
        let mlp = Mlp::load(&at.child("mlp"), config)?;
        Ok(Self {
            device_weights: DeviceWeights::of(&self_attn, &mlp).map(Arc::new),
            input_layernorm: norm("input_layernorm")?,
            self_attn,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp,
        })
    }

    /// Whole sequences `[B, T, D]` under `layout`: `[B, T, D]`.
    pub fn forward(&self, x: Tensor<3>, layout: &Layout) -> Tensor<3> {
        let y = self.input_layernorm.forward(x.clone());
        let attended = match layout {
            Layout::Packed(sequences) => self.self_attn.forward_packed(y, sequences),
            Layout::Masked(layout) => {
                let (q, k, v) = self.self_attn.project(y, layout);
                self.self_attn.attend(q, k, v, layout)
            }
        };
        self.finish(x, attended)
    }

    /// Rows `[1, T, D]` with `angles` after `past` tokens in `kv`, on the CPU: `outputs` of `[1, T, D]`.
    pub fn append_on_cpu(
        &self,
        x: Tensor<3>,
        angles: &Angles,
        kv: &mut CpuKv,
        past: usize,
        outputs: Outputs,
    ) -> Tensor<3> {
        let y = self.input_layernorm.forward(x.clone());
        let attention = &self.self_attn;
        let project = |linear: &Linear, y: Tensor<3>| {
            let data = linear.forward(y).into_data();
            data.try_into_vec::<f32>()
                .expect("activations are f32 on the CPU")
        };
        let q = project(&attention.q_proj, outputs.of(y.clone()));
        let k = project(&attention.k_proj, y.clone());
        let v = project(&attention.v_proj, y);
        let attended = kv.attend(q, k, &v, angles, past);
        let x = outputs.of(x);
        let [_, count, _] = x.dims();
        let shape = [1, count, attended.len() / count];
        let attended = Tensor::from_data(TensorData::new(attended, shape), &x.device());
        self.finish(x, attention.o_proj.forward(attended))
    }

    /// Rows `[1, T, D]` after `past` tokens in `kv`: `[1, T, D]`.
    pub fn append(
        &self,
        x: Tensor<3>,
        layout: &Masked,
        kv: &mut TensorKv,
        past: usize,
    ) -> Tensor<3> {
        let y = self.input_layernorm.forward(x.clone());
        let (q, k, v) = self.self_attn.project(y, layout);
        let (k, v) = kv.append(k, v, past);
        self.finish(x, self.self_attn.attend(q, k, v, layout))
    }

    /// Adds the attention output and the MLP to the residual.
    fn finish(&self, x: Tensor<3>, attended: Tensor<3>) -> Tensor<3> {
        let x = x + attended;
        let y = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(y)
    }

    /// Rows `[T, D]` at positions `past ..` over the cache `kv`: `outputs` of `[T, D]`. A single row takes
    /// six launches.
    pub fn append_on_gpu(
        &self,
        x: Tensor<2>,
        past: usize,
        shape: AttentionShape,
        rope: &RopeTable,
        kv: &KvLayer,
        outputs: Outputs,
    ) -> Tensor<2> {
        let weights = self
            .device_weights
            .as_ref()
            .expect("a GPU cache comes with device weights");
        let use_gemv = |x: &Tensor<2>| x.dims()[0] <= GEMV_MAX_M;
        let qkv = match &weights.qkv {
            Some((qkv, bias)) if use_gemv(&x) => {
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
                let q = attention.q_proj.forward(outputs.of(y.clone()));
                let k = attention.k_proj.forward(y.clone());
                Qkv::Split(Box::new([q, k, attention.v_proj.forward(y)]))
            }
        };
        let x = outputs.of(x);
        let attended = if x.dims()[0] == 1 {
            attention_decode(qkv, shape, past, rope, kv)
        } else {
            let q = rope_kv_append(qkv, shape, past, rope, kv);
            attention_prefill(q, shape, past, kv)
        };
        let x = matmul::linear(attended, &weights.output, Epilogue::Residual(x));
        let norm = &self.post_attention_layernorm;
        let hidden = match &weights.gate_up {
            Some(gate_up) if use_gemv(&x) => fused::swiglu_proj(x.clone(), &norm.fused(), gate_up),
            _ => {
                let y = norm.forward(x.clone());
                let gate = self.mlp.gate_proj.forward(y.clone());
                swiglu(gate, self.mlp.up_proj.forward(y))
            }
        };
        matmul::linear(hidden, &weights.down, Epilogue::Residual(x))
    }

    /// Appends the keys and values of rows `[T, D]` at positions `past ..` to the cache `kv`.
    pub fn append_keys_on_gpu(
        &self,
        x: Tensor<2>,
        past: usize,
        shape: AttentionShape,
        rope: &RopeTable,
        kv: &KvLayer,
    ) {
        let y = self.input_layernorm.forward(x);
        let keys = self.self_attn.k_proj.forward(y.clone());
        let values = self.self_attn.v_proj.forward(y);
        kv_append([keys, values], shape, past, rope, kv);
    }
}

/// Initial values of a layer that adds to the residual; deeper stacks start with smaller ones.
fn residual_init(inputs: usize, layers: usize) -> Init {
    Init::Normal(((2 * inputs * layers) as f32).sqrt().recip())
}

/// Grouped-query attention (arXiv 2305.13245): with `g` query heads per key head, key head `j`
/// serves query heads `j*g .. j*g+g-1`.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    #[module(skip)]
    query_heads: usize,
    #[module(skip)]
    key_heads: usize,
    #[module(skip)]
    head_dim: usize,
}

impl Attention {
    fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let (query_heads, key_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (head_dim, width) = (config.head_width(), config.hidden_size);
        assert_eq!(
            query_heads % key_heads,
            0,
            "the number of key heads divides that of query heads"
        );
        let project =
            |name, outputs| Linear::load(&at.child(name), width, outputs, config.qkv_bias);
        let inputs = query_heads * head_dim;
        let residual = residual_init(inputs, config.num_hidden_layers);
        Ok(Self {
            q_proj: project("q_proj", inputs)?,
            k_proj: project("k_proj", key_heads * head_dim)?,
            v_proj: project("v_proj", key_heads * head_dim)?,
            o_proj: Linear::load_with(&at.child("o_proj"), inputs, width, false, residual)?,
            query_heads,
            key_heads,
            head_dim,
        })
    }

    /// `[B, T, D]` to `[B, T, D]` by the CPU kernel.
    fn forward_packed(&self, x: Tensor<3>, sequences: &Arc<PackedSequences>) -> Tensor<3> {
        let q = self.q_proj.forward(x.clone());
        let k = self.k_proj.forward(x.clone());
        let v = self.v_proj.forward(x);
        self.o_proj
            .forward(varlen_attention(q, k, v, self.head_dim, sequences))
    }

    /// Projects `[B, T, D]` to q `[B, query heads, T, head dim]`, k and v
    /// `[B, key heads, T, head dim]`; q and k are rotated.
    fn project(&self, x: Tensor<3>, layout: &Masked) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let [batch, length, _] = x.dims();
        let split = |y: Tensor<3>, heads| {
            y.reshape([batch, length, heads, self.head_dim])
                .swap_dims(1, 2)
        };
        let q = split(self.q_proj.forward(x.clone()), self.query_heads);
        let k = split(self.k_proj.forward(x.clone()), self.key_heads);
        let v = split(self.v_proj.forward(x), self.key_heads);
        (layout.rope.apply(q), layout.rope.apply(k), v)
    }

    /// Attends to S keys and applies the output projection: `[B, T, D]`. The query heads of one key
    /// head become rows of one matrix product, so keys and values are never repeated.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, layout: &Masked) -> Tensor<3> {
        let [batch, _, length, _] = q.dims();
        let keys = k.dims()[2];
        let (key_heads, group) = (self.key_heads, self.query_heads / self.key_heads);
        let q = q.reshape([batch, key_heads, group * length, self.head_dim]);
        let scale = (self.head_dim as f32).sqrt().recip();
        let scores = batched_matmul(q, k.swap_dims(2, 3));
        let weights = match &layout.mask {
            Some(mask) => {
                let scores = scores.reshape([batch, self.query_heads, length, keys]);
                scaled_softmax(scores.mul_scalar(scale) + mask.clone(), 1.0).reshape([
                    batch,
                    key_heads,
                    group * length,
                    keys,
                ])
            }
            None => scaled_softmax(scores, scale),
        };
        let attended = batched_matmul(weights, v)
            .reshape([batch, self.query_heads, length, self.head_dim])
            .swap_dims(1, 2)
            .reshape([batch, length, self.query_heads * self.head_dim]);
        self.o_proj.forward(attended)
    }
}

/// SwiGLU MLP (arXiv 2002.05202): `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(at: &Loader, config: &DecoderConfig) -> Result<Self, Fault> {
        let (width, hidden) = (config.hidden_size, config.intermediate_size);
        let residual = residual_init(hidden, config.num_hidden_layers);
        Ok(Self {
            gate_proj: Linear::load(&at.child("gate_proj"), width, hidden, false)?,
            up_proj: Linear::load(&at.child("up_proj"), width, hidden, false)?,
            down_proj: Linear::load_with(&at.child("down_proj"), hidden, width, false, residual)?,
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone());
        let up = self.up_proj.forward(x);
        self.down_proj.forward(swiglu(gate, up))
    }
}
