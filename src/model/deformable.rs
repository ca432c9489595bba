//! Deformable attention and the layers built on it (Zhu et al. 2020, arXiv 2010.04159; `upn.md` 5,
//! 6, 8; original `ms_deform_attn.py`, `deformable_transformer.py`).

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

/// Sizes shared by all layers of a deformable transformer, under the original's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeformableConfig {
    /// Width of every token.
    pub d_model: usize,
    /// Hidden width of the feed-forward part.
    pub d_ffn: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Levels of the pyramid.
    pub n_levels: usize,
    /// Sampling points per head and level.
    pub n_points: usize,
}

/// A pyramid that queries sample from.
#[derive(Clone, Debug)]
pub struct Pyramid {
    /// `[B, S, C]`, levels one after the other, each row-major.
    pub tokens: Tensor<3>,
    /// `[B, S, 1]`: 0 on padding, 1 elsewhere. Absent where nothing is padded.
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
    /// Reads the four linear layers. Before training, offsets are a star: head `h` looks in its
    /// own direction, point `p` at distance `p + 1`.
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
                bias: Some(offsets.parameter("bias", [2 * samples], Init::Values(star(size)))?),
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

    /// * `query` `[B, Q, C]`;
    /// * `reference` `[B, Q, levels, 2]`: points (x, y), offsets count in cells of the level; or
    ///   `[B, Q, levels, 4]`: boxes (cx, cy, w, h), offsets count in half boxes over points.
    ///
    /// Returns `[B, Q, C]`.
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
        let (centre, unit) = self.frame(reference, source);
        // [B * Q, heads, levels * points * 2]
        let offsets = offsets.reshape([batch * queries, self.heads, per_head * 2]);
        let locations =
            (offsets * unit + centre).reshape([batch, queries, self.heads * per_head * 2]);
        let sampled = deform_attention(
            value,
            &source.sizes,
            locations,
            weights.reshape([batch, queries, self.heads * per_head]),
        );
        self.output_proj.forward(sampled)
    }

    /// Where offsets start and how long a unit of them is, both
    /// `[B * Q or 1, 1, levels * points * 2]`.
    fn frame(&self, reference: Tensor<4>, source: &Pyramid) -> (Tensor<3>, Tensor<3>) {
        let [batch, queries, levels, numbers] = reference.dims();
        let rows = batch * queries;
        let length = levels * self.points * 2;
        let per_point = |part: Tensor<4>| {
            part.reshape([rows, levels, 1, 2])
                .expand([rows, levels, self.points, 2])
                .reshape([rows, 1, length])
        };
        if numbers == 2 {
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

/// Directions of the heads times the number of the point, `[heads * levels * points * 2]`.
fn star(size: DeformableConfig) -> Vec<f32> {
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

/// Self-attention with the packed projection of `torch.nn.MultiheadAttention`.
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

    /// Queries and keys from `place`, values from `content`, both `[B, Q, C]`; `blocked`
    /// `[Q, Q]` is added to the scores (row = query).
    pub fn forward(
        &self,
        place: Tensor<3>,
        content: Tensor<3>,
        blocked: Option<Tensor<2>>,
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
        let (query, key) = (project(place.clone(), 0), project(place, 1));
        let mixed = attention(query, key, project(content, 2), self.heads, blocked);
        self.out_proj.forward(mixed)
    }
}

/// One layer of the encoder, normalised after each part.
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

/// One layer of the decoder: queries among themselves, then on the pyramid.
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

    /// `x`, `positions` `[B, Q, C]`, `reference` `[B, Q, levels, 4]`, `blocked` `[Q, Q]` added to
    /// the scores of self-attention. Returns `[B, Q, C]`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: Tensor<3>,
        reference: Tensor<4>,
        memory: &Pyramid,
        blocked: Option<Tensor<2>>,
    ) -> Tensor<3> {
        let place = x.clone() + positions.clone();
        let attended = self.self_attn.forward(place, x.clone(), blocked);
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
