//! Deformable attention and the layers built on it (Deformable DETR, Zhu et al. 2020, arXiv
//! 2010.04159; `docs/reference/upn.md`, sections 5, 6 and 8; original `ms_deform_attn.py`,
//! `deformable_transformer.py`).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::gpu::attention::encoder::attention;
use crate::gpu::deform_attention::deform_attention;
use crate::nn::chunked::map_chunks;
use crate::nn::linear::linear;
use crate::nn::{Init, LayerNorm, Linear, Loader};

const EPS: f64 = 1e-5;

/// Sizes shared by all layers of a deformable transformer, under the names of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeformableConfig {
    /// Width C of a token.
    pub d_model: usize,
    /// Hidden width of the feed-forward network.
    pub d_ffn: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Feature levels.
    pub n_levels: usize,
    /// Sampling points per head and level.
    pub n_points: usize,
}

/// Feature levels that queries sample from.
#[derive(Clone, Debug)]
pub struct Pyramid {
    /// `[B, S, C]`: the levels concatenated, each row-major.
    pub tokens: Tensor<3>,
    /// `[B, S, 1]`: 0 on padding, 1 elsewhere; `None` without padding.
    pub keep: Option<Tensor<3>>,
    /// `(height, width)` of each level.
    pub sizes: Vec<[usize; 2]>,
}

/// Multi-scale deformable attention.
#[derive(Module, Debug)]
pub struct DeformableAttention {
    sampling_offsets: Linear,
    attention_weights: Linear,
    value_proj: Linear,
    output_proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    levels: usize,
    #[module(skip)]
    points: usize,
}

impl DeformableAttention {
    /// Reads the four linear layers. Initial sampling offsets form a star: each head has a direction,
    /// point `p` is at distance `p + 1`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, size: DeformableConfig) -> Result<Self, Fault> {
        let DeformableConfig {
            d_model,
            n_heads,
            n_levels,
            n_points,
            ..
        } = size;
        let samples = n_heads * n_levels * n_points;
        let offsets = at.child("sampling_offsets");
        Ok(Self {
            sampling_offsets: Linear {
                weight: offsets.weight([2 * samples, d_model], Init::Zeros)?,
                bias: Some(offsets.parameter(
                    "bias",
                    [2 * samples],
                    Init::Values(star_offsets(size)),
                )?),
            },
            attention_weights: Linear::load_with(
                &at.child("attention_weights"),
                d_model,
                samples,
                true,
                Init::Zeros,
            )?,
            value_proj: Linear::load(&at.child("value_proj"), d_model, d_model, true)?,
            output_proj: Linear::load(&at.child("output_proj"), d_model, d_model, true)?,
            heads: n_heads,
            levels: n_levels,
            points: n_points,
        })
    }

    /// Attends from `query` `[B, Q, C]` to `source`: `[B, Q, C]`. `reference` is one of
    /// * `[B, Q, levels, 2]`: points (x, y); offsets are in cells of the level;
    /// * `[B, Q, levels, 4]`: boxes (cx, cy, w, h); offsets are in units of `w / (2 * points)` and
    ///   `h / (2 * points)`.
    pub fn forward(&self, query: Tensor<3>, reference: Tensor<4>, source: &Pyramid) -> Tensor<3> {
        let [batch, cells, channels] = source.tokens.dims();
        let mut value = self.value_proj.forward(source.tokens.clone());
        if let Some(keep) = &source.keep {
            value = value * keep.clone();
        }
        let value = value.reshape([batch, cells, self.heads, channels / self.heads]);
        let widest = batch * channels.max(2 * self.heads * self.levels * self.points);
        map_chunks(query, 1, widest, |query, start| {
            let reference = reference.clone().narrow(1, start, query.dims()[1]);
            self.sample(query, reference, value.clone(), source)
        })
    }

    /// [`DeformableAttention::forward`] for projected values `[B, S, heads, C / heads]`.
    fn sample(
        &self,
        query: Tensor<3>,
        reference: Tensor<4>,
        value: Tensor<4>,
        source: &Pyramid,
    ) -> Tensor<3> {
        let [batch, queries, _] = query.dims();
        let per_head = self.levels * self.points;
        let offsets = self.sampling_offsets.forward(query.clone());
        let weights = softmax(
            self.attention_weights
                .forward(query)
                .reshape([batch * queries, self.heads, per_head]),
            2,
        );
        let (center, unit) = self.offset_frame(reference, source);
        // [B * Q, heads, levels * points * 2]
        let offsets = offsets.reshape([batch * queries, self.heads, per_head * 2]);
        let locations =
            (offsets * unit + center).reshape([batch, queries, self.heads * per_head * 2]);
        let sampled = deform_attention(
            value,
            &source.sizes,
            locations,
            weights.reshape([batch, queries, self.heads * per_head]),
        );
        self.output_proj.forward(sampled)
    }

    /// The origin and the unit of offsets, both `[B * Q or 1, 1, levels * points * 2]`.
    fn offset_frame(&self, reference: Tensor<4>, source: &Pyramid) -> (Tensor<3>, Tensor<3>) {
        let [batch, queries, levels, coordinates] = reference.dims();
        let rows = batch * queries;
        let length = levels * self.points * 2;
        let per_point = |part: Tensor<4>| {
            part.reshape([rows, levels, 1, 2])
                .expand([rows, levels, self.points, 2])
                .reshape([rows, 1, length])
        };
        if coordinates == 2 {
            let cells = source
                .sizes
                .iter()
                .flat_map(|&[height, width]| {
                    std::iter::repeat_n([1.0 / width as f32, 1.0 / height as f32], self.points)
                })
                .flatten()
                .collect::<Vec<_>>();
            let unit = Tensor::<1>::from_floats(cells.as_slice(), &reference.device());
            return (per_point(reference), unit.reshape([1, 1, length]));
        }
        let extent = reference.clone().narrow(3, 2, 2);
        (
            per_point(reference.narrow(3, 0, 2)),
            per_point(extent.mul_scalar(0.5 / self.points as f32)),
        )
    }
}

/// Initial offsets, `[heads * levels * points * 2]`: the direction of the head times `point + 1`.
fn star_offsets(size: DeformableConfig) -> Vec<f32> {
    let mut values = Vec::new();
    for head in 0..size.n_heads {
        let angle = head as f32 * std::f32::consts::TAU / size.n_heads as f32;
        let longest = angle.cos().abs().max(angle.sin().abs());
        for _ in 0..size.n_levels {
            for point in 0..size.n_points {
                let distance = (point + 1) as f32 / longest;
                values.extend([angle.cos() * distance, angle.sin() * distance]);
            }
        }
    }
    values
}

/// Self-attention with the fused q, k, v projection of `torch.nn.MultiheadAttention`.
#[derive(Module, Debug)]
pub struct SelfAttention {
    in_proj_weight: Param<Tensor<2>>,
    in_proj_bias: Param<Tensor<1>>,
    out_proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl SelfAttention {
    /// Reads `in_proj_weight`, `in_proj_bias` and `out_proj`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, width: usize, heads: usize) -> Result<Self, Fault> {
        let deviation = (2.0 / (4 * width) as f32).sqrt();
        Ok(Self {
            in_proj_weight: at.parameter(
                "in_proj_weight",
                [3 * width, width],
                Init::Normal(deviation),
            )?,
            in_proj_bias: at.parameter("in_proj_bias", [3 * width], Init::Zeros)?,
            out_proj: Linear::load(&at.child("out_proj"), width, width, true)?,
            heads,
        })
    }

    /// Queries and keys are projected from `positioned`, values from `content`, both `[B, Q, C]`; `mask`
    /// `[Q, Q]` is added to the scores (row = query).
    pub fn forward(
        &self,
        positioned: Tensor<3>,
        content: Tensor<3>,
        mask: Option<Tensor<2>>,
    ) -> Tensor<3> {
        let channels = content.dims()[2];
        let (weight, bias) = (self.in_proj_weight.val(), self.in_proj_bias.val());
        let project = |x: Tensor<3>, part: usize| {
            linear(
                x,
                weight.clone().narrow(0, part * channels, channels),
                Some(bias.clone().narrow(0, part * channels, channels)),
            )
        };
        let (query, key) = (project(positioned.clone(), 0), project(positioned, 1));
        let attended = attention(query, key, project(content, 2), self.heads, mask);
        self.out_proj.forward(attended)
    }
}

/// An encoder layer: deformable self-attention and feed-forward network, with post-norm.
#[derive(Module, Debug)]
pub struct EncoderLayer {
    self_attn: DeformableAttention,
    norm1: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    norm2: LayerNorm,
    #[module(skip)]
    hidden: usize,
}

impl EncoderLayer {
    /// Reads one layer.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, size: DeformableConfig) -> Result<Self, Fault> {
        let DeformableConfig { d_model, d_ffn, .. } = size;
        Ok(Self {
            self_attn: DeformableAttention::load(&at.child("self_attn"), size)?,
            norm1: LayerNorm::load(&at.child("norm1"), d_model, EPS)?,
            linear1: Linear::load(&at.child("linear1"), d_model, d_ffn, true)?,
            linear2: Linear::load(&at.child("linear2"), d_ffn, d_model, true)?,
            norm2: LayerNorm::load(&at.child("norm2"), d_model, EPS)?,
            hidden: d_ffn,
        })
    }

    /// `source.tokens`, `positions` `[B, S, C]` and `reference` `[B, S, levels, 2]` to new tokens.
    pub fn forward(
        &self,
        source: &Pyramid,
        positions: Tensor<3>,
        reference: Tensor<4>,
    ) -> Tensor<3> {
        let x = source.tokens.clone();
        let attended = self
            .self_attn
            .forward(x.clone() + positions, reference, source);
        let x = self.norm1.forward(x + attended);
        let [batch, _, _] = x.dims();
        let y = map_chunks(x.clone(), 1, batch * self.hidden, |x, _| {
            let hidden = self.linear1.activated(x, Activation::Relu);
            self.linear2.forward(hidden)
        });
        self.norm2.forward(x + y)
    }
}

/// A decoder layer: self-attention among queries, deformable cross-attention to the feature levels,
/// feed-forward network, with post-norm.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    self_attn: SelfAttention,
    norm2: LayerNorm,
    cross_attn: DeformableAttention,
    norm1: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    norm3: LayerNorm,
}

impl DecoderLayer {
    /// Reads one layer. `norm2` follows self-attention and `norm1` cross-attention: the
    /// checkpoint's names are swapped relative to their order.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, size: DeformableConfig) -> Result<Self, Fault> {
        let DeformableConfig { d_model, d_ffn, .. } = size;
        Ok(Self {
            self_attn: SelfAttention::load(&at.child("self_attn"), d_model, size.n_heads)?,
            norm2: LayerNorm::load(&at.child("norm2"), d_model, EPS)?,
            cross_attn: DeformableAttention::load(&at.child("cross_attn"), size)?,
            norm1: LayerNorm::load(&at.child("norm1"), d_model, EPS)?,
            linear1: Linear::load(&at.child("linear1"), d_model, d_ffn, true)?,
            linear2: Linear::load(&at.child("linear2"), d_ffn, d_model, true)?,
            norm3: LayerNorm::load(&at.child("norm3"), d_model, EPS)?,
        })
    }

    /// Queries `x` and `positions` `[B, Q, C]`, `reference` boxes `[B, Q, levels, 4]`; `mask` `[Q, Q]` is
    /// added to the scores of self-attention. Returns `[B, Q, C]`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: Tensor<3>,
        reference: Tensor<4>,
        memory: &Pyramid,
        mask: Option<Tensor<2>>,
    ) -> Tensor<3> {
        let positioned = x.clone() + positions.clone();
        let attended = self.self_attn.forward(positioned, x.clone(), mask);
        let x = self.norm2.forward(x + attended);
        let sampled = self
            .cross_attn
            .forward(x.clone() + positions, reference, memory);
        let x = self.norm1.forward(x + sampled);
        let hidden = self.linear1.activated(x.clone(), Activation::Relu);
        let y = self.linear2.forward(hidden);
        self.norm3.forward(x + y)
    }
}
