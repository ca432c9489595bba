//! Universal proposal network: a picture to boxes of any object, at two granularities (ChatRex,
//! Jiang et al. 2024, arXiv 2411.18363; `upn.md`; original `upn_encoder.py`, `upn_decoder.py`,
//! `deformable_transformer.py`).
//!
//! A two-stage deformable detector whose classification is a dot product with one learned prompt
//! vector. Boxes are centre, width and height in `[0, 1]`. Backbone and encoder do not depend on
//! the prompt: [`Upn::encode`] once, [`Upn::propose`] for either prompt. Position tables and the
//! choice of the best tokens are computed on the host.

use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, FaultKind};
use crate::gpu::activation::Activation;
use crate::gpu::box_position_embedding;
use crate::image::prepare::ShortSideRecipe;
use crate::model::deformable::{DecoderLayer, DeformableConfig, EncoderLayer, Pyramid};
use crate::model::swin::{Map, Swin, SwinConfig};
use crate::nn::linear::{Conv2dConfig, linear};
use crate::nn::{Conv2d, GroupNorm, Init, LayerNorm, Linear, Loader};
use crate::protocol::Granularity;

const EPS: f64 = 1e-5;
/// Smallest probability that `inverse_sigmoid` sees; many ports of the detector use 1e-5.
const INVERSE_SIGMOID_EPS: f64 = 1e-3;
/// Temperature of the query embedding; the picture's own is in the configuration.
const QUERY_TEMPERATURE: f64 = 10000.0;
/// Stands for the infinite logits of excluded proposals on the device: the sigmoid is exactly 1.
const EXCLUDED_LOGIT: f32 = 1e4;

/// Sizes of the network, under the names of the original configuration where it has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpnConfig {
    /// The backbone.
    pub backbone: SwinConfig,
    /// Backbone stages that become feature levels.
    pub return_interm_indices: Vec<usize>,
    /// Feature levels; those beyond the backbone's halve the last.
    pub num_feature_levels: usize,
    /// Boxes proposed.
    pub num_queries: usize,
    /// Width of the transformer.
    pub d_model: usize,
    /// Heads of every attention.
    pub n_heads: usize,
    /// Hidden width of the feed-forward parts.
    pub d_ffn: usize,
    /// Sampling points per head and level.
    pub n_points: usize,
    /// Layers of the encoder.
    pub num_encoder_layers: usize,
    /// Layers of the decoder.
    pub num_decoder_layers: usize,
    /// Groups of the normalisation after the input projections.
    pub group_norm_groups: usize,
    /// Temperature of the picture's position embedding.
    pub temperature: f64,
    /// Side of the boxes proposed on the first level; doubles with every level.
    pub proposal_side: f32,
    /// Shorter side of the prepared picture in pixels.
    pub size: u32,
    /// Largest longer side of the prepared picture in pixels.
    pub max_size: u32,
}

impl UpnConfig {
    /// The published `upn_large`.
    pub fn large() -> Self {
        Self {
            backbone: SwinConfig {
                embed_dim: 192,
                depths: vec![2, 2, 18, 2],
                num_heads: vec![6, 12, 24, 48],
                window_size: 12,
                mlp_ratio: 4,
            },
            return_interm_indices: vec![0, 1, 2, 3],
            num_feature_levels: 5,
            num_queries: 900,
            d_model: 256,
            n_heads: 8,
            d_ffn: 2048,
            n_points: 4,
            num_encoder_layers: 6,
            num_decoder_layers: 6,
            group_norm_groups: 32,
            temperature: 20.0,
            proposal_side: 0.05,
            size: 800,
            max_size: 1333,
        }
    }

    /// The small member of the family that this project trains (`nano-upn-notes.md`).
    pub fn nano() -> Self {
        Self {
            backbone: SwinConfig {
                embed_dim: 32,
                depths: vec![1, 1, 2, 1],
                num_heads: vec![2, 4, 8, 16],
                window_size: 4,
                mlp_ratio: 4,
            },
            return_interm_indices: vec![1, 2, 3],
            num_feature_levels: 4,
            num_queries: 48,
            d_model: 64,
            n_heads: 4,
            d_ffn: 256,
            n_points: 4,
            num_encoder_layers: 2,
            num_decoder_layers: 3,
            group_norm_groups: 32,
            temperature: 20.0,
            proposal_side: 0.1,
            size: 128,
            max_size: 192,
        }
    }

    /// How pictures are prepared.
    pub fn recipe(&self) -> ShortSideRecipe {
        ShortSideRecipe {
            size: self.size,
            max: self.max_size,
            ..ShortSideRecipe::UPN
        }
    }

    fn layer(&self) -> DeformableConfig {
        DeformableConfig {
            d_model: self.d_model,
            d_ffn: self.d_ffn,
            n_heads: self.n_heads,
            n_levels: self.num_feature_levels,
            n_points: self.n_points,
        }
    }
}

/// Which pixels of a batch are padding: pictures of different sizes lie in the upper left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddingMask {
    /// Pictures.
    pub batch: usize,
    /// Rows of the padded pictures.
    pub height: usize,
    /// Columns of the padded pictures.
    pub width: usize,
    /// `[batch, height, width]`, true on padding.
    pub padded: Vec<bool>,
}

impl PaddingMask {
    /// No padding anywhere.
    pub fn none(batch: usize, height: usize, width: usize) -> Self {
        Self {
            batch,
            height,
            width,
            padded: vec![false; batch * height * width],
        }
    }

    /// Pictures of `(height, width)` each, padded to the largest of both.
    pub fn from_sizes(sizes: &[[usize; 2]]) -> Self {
        let height = sizes.iter().map(|size| size[0]).max().unwrap_or(0);
        let width = sizes.iter().map(|size| size[1]).max().unwrap_or(0);
        let mut mask = Self::none(sizes.len(), height, width);
        for (picture, &[h, w]) in sizes.iter().enumerate() {
            for row in 0..height {
                for column in 0..width {
                    let at = (picture * height + row) * width + column;
                    mask.padded[at] = row >= h || column >= w;
                }
            }
        }
        mask
    }

    /// The mask of a level of `height x width` cells: nearest neighbour, rounded down.
    pub fn resize(&self, height: usize, width: usize) -> Self {
        // As the reference: the scale is an f32 before it is multiplied.
        let source = |at: usize, from: usize, to: usize| {
            ((at as f32 * (from as f32 / to as f32)) as usize).min(from - 1)
        };
        let mut padded = Vec::with_capacity(self.batch * height * width);
        for picture in 0..self.batch {
            for row in 0..height {
                let row = source(row, self.height, height);
                for column in 0..width {
                    let column = source(column, self.width, width);
                    padded.push(self.padded[(picture * self.height + row) * self.width + column]);
                }
            }
        }
        Self {
            batch: self.batch,
            height,
            width,
            padded,
        }
    }

    /// True if anything is padded.
    pub fn any(&self) -> bool {
        self.padded.contains(&true)
    }

    /// Unpadded columns of the first row and rows of the first column of a picture.
    fn valid(&self, picture: usize) -> (usize, usize) {
        let padded = &self.padded[picture * self.height * self.width..];
        let columns = padded[..self.width].iter().filter(|&&p| !p).count();
        let rows = (0..self.height)
            .filter(|row| !padded[row * self.width])
            .count();
        (columns, rows)
    }

    /// Share of the map that is not padding, as (of the width, of the height).
    fn valid_ratio(&self, picture: usize) -> [f32; 2] {
        let (columns, rows) = self.valid(picture);
        [
            columns as f32 / self.width as f32,
            rows as f32 / self.height as f32,
        ]
    }
}

/// Sine embedding of every cell of a level: `[batch, height * width, 2 * channels]`, y before x,
/// positions counted over unpadded cells and scaled to `2 pi` at the last (`upn.md` 4).
pub fn sine_positions(mask: &PaddingMask, channels: usize, temperature: f64) -> Vec<f32> {
    let PaddingMask { height, width, .. } = *mask;
    let periods = periods(channels, temperature);
    let width_out = 2 * channels;
    let mut table = vec![0.0; mask.batch * height * width * width_out];
    for picture in 0..mask.batch {
        let padded = &mask.padded[picture * height * width..][..height * width];
        let table = &mut table[picture * height * width * width_out..];
        let (down, along) = unpadded_counts(padded, height, width);
        for row in 0..height {
            for column in 0..width {
                let cell = row * width + column;
                let bottom = down[(height - 1) * width + column];
                let last = along[row * width + width - 1];
                let y = down[cell] / (bottom + 1e-6) * std::f32::consts::TAU;
                let x = along[cell] / (last + 1e-6) * std::f32::consts::TAU;
                let out = &mut table[cell * width_out..][..width_out];
                for (channel, &period) in periods.iter().enumerate() {
                    let wave = |value: f32| match channel % 2 {
                        0 => (value / period).sin(),
                        _ => (value / period).cos(),
                    };
                    out[channel] = wave(y);
                    out[channels + channel] = wave(x);
                }
            }
        }
    }
    table
}

/// Running counts of unpadded cells down each column and along each row.
fn unpadded_counts(padded: &[bool], height: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
    let mut down = vec![0.0; height * width];
    let mut along = vec![0.0; height * width];
    for row in 0..height {
        for column in 0..width {
            let cell = row * width + column;
            let one = if padded[cell] { 0.0 } else { 1.0 };
            down[cell] = one + if row > 0 { down[cell - width] } else { 0.0 };
            along[cell] = one + if column > 0 { along[cell - 1] } else { 0.0 };
        }
    }
    (down, along)
}

/// `temperature^(2 * floor(k / 2) / channels)` for every channel `k`.
fn periods(channels: usize, temperature: f64) -> Vec<f32> {
    (0..channels)
        .map(|k| temperature.powf((2 * (k / 2)) as f64 / channels as f64) as f32)
        .collect()
}

/// Sine embedding of boxes: `[B, Q, 4]` to `[B, Q, 4 * channels]`, in the order cy, cx, w, h.
pub fn box_position_embedding(boxes: Tensor<3>, channels: usize) -> Tensor<3> {
    box_position_embedding::box_position_embedding(boxes, &periods(channels, QUERY_TEMPERATURE))
}

/// `log(x / (1 - x))` with both clamped from below at 1e-3.
pub fn inverse_sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let x = x.clamp(0.0, 1.0);
    let rest = x.clone().neg().add_scalar(1.0);
    x.clamp_min(INVERSE_SIGMOID_EPS).log() - rest.clamp_min(INVERSE_SIGMOID_EPS).log()
}

/// The box proposed by every token of every picture, before the sigmoid, and `+inf` where the
/// token is padded or its box too close to the border: `[batch, S]` of `[cx, cy, w, h]`.
pub fn encoder_proposals(levels: &[PaddingMask], first_side: f32) -> Vec<[f32; 4]> {
    let batch = levels.first().map_or(0, |level| level.batch);
    let mut proposals = Vec::new();
    for picture in 0..batch {
        for (index, level) in levels.iter().enumerate() {
            let side = first_side * (1u32 << index) as f32;
            let (columns, rows) = level.valid(picture);
            let padded = &level.padded[picture * level.height * level.width..];
            for row in 0..level.height {
                for column in 0..level.width {
                    let bbox = [
                        (column as f32 + 0.5) / columns as f32,
                        (row as f32 + 0.5) / rows as f32,
                        side,
                        side,
                    ];
                    let inside = bbox.iter().all(|&value| value > 0.01 && value < 0.99);
                    proposals.push(if inside && !padded[row * level.width + column] {
                        bbox.map(|value| (value / (1.0 - value)).ln())
                    } else {
                        [f32::INFINITY; 4]
                    });
                }
            }
        }
    }
    proposals
}

/// Reference points of the encoder, `[batch, S, levels, 2]`: the centre of each cell in units of
/// the unpadded picture, then in units of every level's padded map.
pub fn encoder_references(sizes: &[[usize; 2]], valid_ratios: &[Vec<[f32; 2]>]) -> Vec<f32> {
    let mut references = Vec::new();
    for ratios in valid_ratios {
        for (&[height, width], own) in sizes.iter().zip(ratios) {
            for row in 0..height {
                for column in 0..width {
                    let x = (column as f32 + 0.5) / (own[0] * width as f32);
                    let y = (row as f32 + 0.5) / (own[1] * height as f32);
                    references.extend(ratios.iter().flat_map(|ratio| [x * ratio[0], y * ratio[1]]));
                }
            }
        }
    }
    references
}

/// Linear layers with ReLU between them.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// Reads `layers.{0..}` of the given widths (one more than layers). Before training, the last
    /// layer is zero where `silent`.
    fn load(at: &Loader, widths: &[usize], silent: bool) -> Result<Self, Fault> {
        let last = widths.len() - 2;
        let layers = widths
            .windows(2)
            .enumerate()
            .map(|(index, pair)| {
                let at = at.child("layers").child(index);
                if silent && index == last {
                    Linear::load_with(&at, pair[0], pair[1], true, Init::Zeros)
                } else {
                    Linear::load(&at, pair[0], pair[1], true)
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }

    /// `[B, Q, in]` to `[B, Q, out]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (last, hidden) = self.layers.split_last().expect("an MLP has layers");
        let through = |x, layer: &Linear| layer.activated(x, Activation::Relu);
        let x = hidden.iter().fold(x, through);
        last.forward(x)
    }
}

#[derive(Module, Debug)]
struct InputProjection {
    conv: Conv2d,
    norm: GroupNorm,
}

impl InputProjection {
    fn load(at: &Loader, inputs: usize, config: &UpnConfig, halving: bool) -> Result<Self, Fault> {
        let (kernel, stride, padding) = if halving { (3, 2, 1) } else { (1, 1, 0) };
        let size = Conv2dConfig {
            inputs,
            outputs: config.d_model,
            kernel,
            stride,
            padding,
            groups: 1,
        };
        Ok(Self {
            conv: Conv2d::load(&at.child(0), size, true)?,
            norm: GroupNorm::load(&at.child(1), config.group_norm_groups, config.d_model, EPS)?,
        })
    }

    fn project(&self, map: &Map) -> Map {
        let [outputs, inputs, _, _] = self.conv.weight.dims();
        let tokens = linear(
            map.tokens.clone(),
            self.conv.weight.val().reshape([outputs, inputs]),
            self.conv.bias.as_ref().map(Param::val),
        );
        Map {
            tokens: self.norm.forward(tokens),
            size: map.size,
        }
    }

    /// Half the size of `map`, by a 3x3 convolution with stride 2.
    fn halve(&self, map: Map) -> Map {
        let x = self.conv.forward(map.channels_first());
        let [batch, channels, height, width] = x.dims();
        let tokens = x
            .permute([0, 2, 3, 1])
            .reshape([batch, height * width, channels]);
        Map {
            tokens: self.norm.forward(tokens),
            size: [height, width],
        }
    }
}

/// An encoded batch, ready for either prompt.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The encoder's output.
    pub pyramid: Pyramid,
    /// `[B, S, C]`: what the prompts are compared with, excluded tokens replaced.
    pub candidates: Tensor<3>,
    /// `[batch][level]` unpadded share of width and height.
    pub valid_ratios: Vec<Vec<[f32; 2]>>,
    /// `[batch, S]`: the tokens' own boxes before the sigmoid, `+inf` where excluded.
    pub proposals: Vec<[f32; 4]>,
}

/// The tokens chosen as queries.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `[B, Q]` rows: chosen tokens of each picture, best first.
    pub indices: Vec<Vec<usize>>,
    /// `[B, Q, C]`: their features.
    pub features: Tensor<3>,
    /// `[B, Q, 4]`: the boxes they propose.
    pub boxes: Tensor<3>,
}

/// The state of the queries after one layer of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderState {
    /// `[B, Q, C]`, normalised.
    pub state: Tensor<3>,
    /// `[B, Q, 4]`: the boxes the layer started from.
    pub reference: Tensor<3>,
}

/// What the network says about a batch.
#[derive(Clone, Debug)]
pub struct Proposals {
    /// `[B, Q, 4]`: centre, width and height in `[0, 1]`; a padded batch counts from each unpadded picture.
    pub boxes: Tensor<3>,
    /// `[B, Q]`: logits of the scores.
    pub logits: Tensor<2>,
}

/// The network.
#[derive(Module, Debug)]
pub struct Upn {
    backbone: Swin,
    input_proj: Vec<InputProjection>,
    level_embed: Param<Tensor<2>>,
    encoder: Vec<EncoderLayer>,
    enc_output: Linear,
    enc_output_norm: LayerNorm,
    enc_out_bbox_embed: Mlp,
    tgt_embed: Param<Tensor<2>>,
    fine_grained_prompt: Param<Tensor<2>>,
    coarse_grained_prompt: Param<Tensor<2>>,
    decoder: Vec<DecoderLayer>,
    decoder_norm: LayerNorm,
    ref_point_head: Mlp,
    bbox_embed: Mlp,
    #[module(skip)]
    config: UpnConfig,
}

impl Upn {
    /// Reads the network under the names of `upn.md` 10.
    ///
    /// `bbox_embed.0` is read for all its aliases; see [`is_surplus`] for what a checkpoint holds
    /// beside the names read here.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &UpnConfig) -> Result<Self, Fault> {
        let width = config.d_model;
        let backbone = at.child("backbone").child("model").child("backbone");
        let transformer = at.child("transformer");
        let decoder = transformer.child("decoder");
        let from_backbone = config.return_interm_indices.len();
        let deepest = *config
            .return_interm_indices
            .last()
            .ok_or_else(|| Fault::model("return_interm_indices", "names no backbone stage"))?;
        let channels = |level: usize| match config.return_interm_indices.get(level) {
            Some(&stage) => config.backbone.channels(stage),
            None if level == from_backbone => config.backbone.channels(deepest),
            None => width,
        };
        let prompt = |name: &str| {
            transformer.child(name).parameter(
                "weight",
                [1, width],
                Init::Normal((width as f32).sqrt().recip()),
            )
        };
        Ok(Self {
            backbone: Swin::load(&backbone, &config.backbone, &config.return_interm_indices)?,
            input_proj: (0..config.num_feature_levels)
                .map(|level| {
                    let at = at.child("input_proj").child(level);
                    InputProjection::load(&at, channels(level), config, level >= from_backbone)
                })
                .collect::<Result<_, _>>()?,
            level_embed: transformer.parameter(
                "level_embed",
                [config.num_feature_levels, width],
                Init::Normal(1.0),
            )?,
            encoder: (0..config.num_encoder_layers)
                .map(|layer| {
                    let at = transformer.child("encoder").child("layers").child(layer);
                    EncoderLayer::load(&at, config.layer())
                })
                .collect::<Result<_, _>>()?,
            enc_output: Linear::load(&transformer.child("enc_output"), width, width, true)?,
            enc_output_norm: LayerNorm::load(&transformer.child("enc_output_norm"), width, EPS)?,
            enc_out_bbox_embed: Mlp::load(
                &transformer.child("enc_out_bbox_embed"),
                &[width, width, width, 4],
                true,
            )?,
            tgt_embed: transformer.child("tgt_embed").parameter(
                "weight",
                [config.num_queries, width],
                Init::Normal(1.0),
            )?,
            fine_grained_prompt: prompt("fine_grained_prompt")?,
            coarse_grained_prompt: prompt("coarse_grained_prompt")?,
            decoder: (0..config.num_decoder_layers)
                .map(|layer| {
                    DecoderLayer::load(&decoder.child("layers").child(layer), config.layer())
                })
                .collect::<Result<_, _>>()?,
            decoder_norm: LayerNorm::load(&decoder.child("norm"), width, EPS)?,
            ref_point_head: Mlp::load(
                &decoder.child("ref_point_head"),
                &[2 * width, width, width],
                false,
            )?,
            bbox_embed: Mlp::load(
                &at.child("bbox_embed").child(0),
                &[width, width, width, 4],
                true,
            )?,
            config: config.clone(),
        })
    }

    /// The sizes it was built with.
    pub fn config(&self) -> &UpnConfig {
        &self.config
    }

    /// Backbone, levels and encoder for prepared pictures `[B, 3, H, W]`; `mask` has the size of
    /// the pictures.
    ///
    /// # Errors
    /// The picture has fewer tokens than the network has queries.
    pub fn encode(&self, image: Tensor<4>, mask: &PaddingMask) -> Result<Memory, Fault> {
        let device = image.device();
        let maps = self.levels(image);
        let sizes = maps.iter().map(|map| map.size).collect::<Vec<_>>();
        let masks = sizes
            .iter()
            .map(|&[height, width]| mask.resize(height, width))
            .collect::<Vec<_>>();
        let positions = self.positions(&masks, &device);
        let tokens = Tensor::cat(maps.into_iter().map(|map| map.tokens).collect(), 1);
        let [batch, cells, _] = tokens.dims();
        if cells < self.config.num_queries {
            return Err(Fault::new(
                FaultKind::Picture,
                "picture",
                format!(
                    "{cells} cells are fewer than the network's {} queries",
                    self.config.num_queries
                ),
                "Use a larger picture",
            ));
        }
        let keep = masks.iter().any(PaddingMask::any).then(|| {
            let mut values = Vec::with_capacity(batch * cells);
            for picture in 0..batch {
                for level in &masks {
                    let cells = level.height * level.width;
                    let padded = &level.padded[picture * cells..][..cells];
                    values.extend(padded.iter().map(|&p| if p { 0.0f32 } else { 1.0 }));
                }
            }
            Tensor::from_data(TensorData::new(values, [batch, cells, 1]), &device)
        });
        let valid_ratios = (0..batch)
            .map(|picture| {
                let ratio = |level: &PaddingMask| level.valid_ratio(picture);
                masks.iter().map(ratio).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>();
        let references = encoder_references(&sizes, &valid_ratios);
        let references = Tensor::from_data(
            TensorData::new(references, [batch, cells, sizes.len(), 2]),
            &device,
        );
        let mut pyramid = Pyramid {
            tokens,
            keep,
            sizes,
        };
        for layer in &self.encoder {
            pyramid.tokens = layer.forward(&pyramid, positions.clone(), references.clone());
        }
        let proposals = encoder_proposals(&masks, self.config.proposal_side);
        let candidates = self.candidates(&pyramid, &proposals);
        Ok(Memory {
            pyramid,
            candidates,
            valid_ratios,
            proposals,
        })
    }

    /// `[B, 3, H, W]` to the projected levels, finest first.
    fn levels(&self, image: Tensor<4>) -> Vec<Map> {
        let maps = self.backbone.forward(image);
        let (projections, halvings) = self.input_proj.split_at(maps.len());
        let mut levels = maps
            .iter()
            .zip(projections)
            .map(|(map, projection)| projection.project(map))
            .collect::<Vec<_>>();
        // The first extra level halves the backbone's own last map, not its projection.
        let mut last = maps.into_iter().last().expect("a backbone has outputs");
        for halving in halvings {
            last = halving.halve(last);
            levels.push(last.clone());
        }
        levels
    }

    /// Position embedding plus level embedding, `[B, S, C]`.
    fn positions(&self, masks: &[PaddingMask], device: &Device) -> Tensor<3> {
        let width = self.config.d_model;
        let levels = masks.iter().enumerate().map(|(index, mask)| {
            let table = sine_positions(mask, width / 2, self.config.temperature);
            let shape = [mask.batch, mask.height * mask.width, width];
            let sine = Tensor::<3>::from_data(TensorData::new(table, shape), device);
            sine + self.level_embed.val().narrow(0, index, 1).unsqueeze()
        });
        Tensor::cat(levels.collect(), 1)
    }

    /// Excluded tokens are set to zero before the projection, so they all stand for the same
    /// feature and stay in the competition.
    fn candidates(&self, pyramid: &Pyramid, proposals: &[[f32; 4]]) -> Tensor<3> {
        let [batch, cells, _] = pyramid.tokens.dims();
        let allowed = proposals
            .iter()
            .map(|proposal| if proposal[0].is_finite() { 1.0f32 } else { 0.0 })
            .collect::<Vec<_>>();
        let allowed = Tensor::from_data(
            TensorData::new(allowed, [batch, cells, 1]),
            &pyramid.tokens.device(),
        );
        self.enc_output_norm
            .forward(self.enc_output.forward(pyramid.tokens.clone() * allowed))
    }

    /// The prompt vector, `[1, C]`.
    pub fn prompt(&self, granularity: Granularity) -> Tensor<2> {
        match granularity {
            Granularity::Fine => self.fine_grained_prompt.val(),
            Granularity::Coarse => self.coarse_grained_prompt.val(),
        }
    }

    /// Dot product of features `[B, Q, C]` with a prompt `[1, C]`: `[B, Q]`.
    pub fn logits(&self, features: Tensor<3>, prompt: Tensor<2>) -> Tensor<2> {
        let [batch, queries, width] = features.dims();
        features
            .reshape([batch * queries, width])
            .matmul(prompt.transpose())
            .reshape([batch, queries])
    }

    /// The queries of every picture, given the candidates' logits `[B, S]` row-major on the host.
    pub fn select(&self, memory: &Memory, logits: &[f32]) -> Selection {
        let [batch, cells, width] = memory.candidates.dims();
        let queries = self.config.num_queries;
        let device = memory.candidates.device();
        let indices = logits
            .chunks(cells)
            .map(|logits| best(logits, queries))
            .collect::<Vec<_>>();
        let rows = indices
            .iter()
            .enumerate()
            .flat_map(|(picture, tokens)| tokens.iter().map(move |token| picture * cells + token))
            .collect::<Vec<_>>();
        let proposals = rows
            .iter()
            .flat_map(|&row| memory.proposals[row])
            .map(|value| {
                if value.is_finite() {
                    value
                } else {
                    EXCLUDED_LOGIT
                }
            })
            .collect::<Vec<_>>();
        let proposals = Tensor::from_data(TensorData::new(proposals, [batch, queries, 4]), &device);
        let rows = rows.iter().map(|&row| row as i32).collect::<Vec<_>>();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [batch * queries]), &device);
        let features = memory
            .candidates
            .clone()
            .reshape([batch * cells, width])
            .select(0, rows)
            .reshape([batch, queries, width]);
        let boxes = sigmoid(self.enc_out_bbox_embed.forward(features.clone()) + proposals);
        Selection {
            indices,
            features,
            boxes,
        }
    }

    /// The learned content of the queries, `[B, Q, C]`.
    pub fn content(&self, batch: usize) -> Tensor<3> {
        let [queries, width] = self.tgt_embed.dims();
        self.tgt_embed
            .val()
            .reshape([1, queries, width])
            .expand([batch, queries, width])
    }

    /// All layers of the decoder on `content` `[B, Q, C]` starting from boxes `reference`
    /// `[B, Q, 4]`; `blocked` `[Q, Q]` is added to the scores of self-attention.
    ///
    /// Gradients do not flow from layer to layer through the boxes a layer starts from; they do
    /// through the boxes reported in [`DecoderState::reference`] (DINO, "look forward twice").
    pub fn decode(
        &self,
        memory: &Memory,
        content: Tensor<3>,
        reference: Tensor<3>,
        blocked: Option<Tensor<2>>,
    ) -> Vec<DecoderState> {
        let [batch, queries, _] = content.dims();
        let levels = memory.pyramid.sizes.len();
        let ratios = memory
            .valid_ratios
            .iter()
            .flatten()
            .flat_map(|&[w, h]| [w, h, w, h])
            .collect::<Vec<_>>();
        let ratios = Tensor::<4>::from_data(
            TensorData::new(ratios, [batch, 1, levels, 4]),
            &content.device(),
        );
        let mut x = content;
        let mut reference = reference;
        let mut states = Vec::with_capacity(self.decoder.len());
        for layer in &self.decoder {
            let start = reference.clone().detach();
            let input = start.clone().reshape([batch, queries, 1, 4]) * ratios.clone();
            let first_level = input.clone().narrow(2, 0, 1).reshape([batch, queries, 4]);
            let positions = self
                .ref_point_head
                .forward(box_position_embedding(first_level, self.config.d_model / 2));
            x = layer.forward(x, positions, input, &memory.pyramid, blocked.clone());
            states.push(DecoderState {
                state: self.decoder_norm.forward(x.clone()),
                reference,
            });
            reference = sigmoid(self.bbox_embed.forward(x.clone()) + inverse_sigmoid(start));
        }
        states
    }

    /// The boxes of one layer, `[B, Q, 4]`: from its normalised state and the reference it started
    /// from, not from the one it passes on.
    pub fn boxes(&self, layer: &DecoderState) -> Tensor<3> {
        let reference = inverse_sigmoid(layer.reference.clone());
        sigmoid(self.bbox_embed.forward(layer.state.clone()) + reference)
    }

    /// All boxes and scores for one prompt, in the order of the queries.
    ///
    /// # Errors
    /// The device fails to hand back the logits.
    pub async fn propose(
        &self,
        memory: &Memory,
        granularity: Granularity,
    ) -> Result<Proposals, Fault> {
        let prompt = self.prompt(granularity);
        let logits = self.logits(memory.candidates.clone(), prompt.clone());
        let logits = read(logits).await?;
        let selection = self.select(memory, &logits);
        let [batch, _, _] = selection.boxes.dims();
        let states = self.decode(memory, self.content(batch), selection.boxes, None);
        let last = states.last().expect("a decoder has layers");
        Ok(Proposals {
            boxes: self.boxes(last),
            logits: self.logits(last.state.clone(), prompt),
        })
    }
}

/// The values of a tensor, row-major.
///
/// # Errors
/// The device fails.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Fault> {
    let failed = |error: String| Fault::new(FaultKind::Device, "proposals", error, "");
    let data = tensor
        .into_data_async()
        .await
        .map_err(|error| failed(error.to_string()))?;
    data.try_to_vec()
        .map_err(|error| failed(format!("{error:?}")))
}

/// The indices of the `count` largest values, largest first, ties in index order.
fn best(values: &[f32], count: usize) -> Vec<usize> {
    let mut order = (0..values.len()).collect::<Vec<_>>();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(count);
    order
}

/// True for tensors that a UPN checkpoint may hold and this network does not read: recomputable
/// indices, aliases of the one box head, and the head whose result the original multiplies by zero.
pub fn is_surplus(name: &str) -> bool {
    name.ends_with("relative_position_index")
        || name.starts_with("transformer.decoder.bbox_embed.")
        || name.starts_with("transformer.decoder.ref_point_head_point.")
        || (name.starts_with("bbox_embed.") && !name.starts_with("bbox_embed.0."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_keep_their_order() {
        assert_eq!(best(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
    }

    #[test]
    fn a_mask_of_sizes_marks_right_and_bottom() {
        let mask = PaddingMask::from_sizes(&[[2, 3], [1, 2]]);
        assert_eq!(mask.padded[6..], [false, false, true, true, true, true]);
        assert_eq!(mask.valid_ratio(1), [2.0 / 3.0, 0.5]);
        assert!(!mask.resize(1, 1).any());
    }

    #[test]
    fn border_tokens_are_excluded() {
        let level = PaddingMask::none(1, 2, 120);
        let proposals = encoder_proposals(&[level], 0.05);
        // Centres 0.5/120 = 0.004 and 119.5/120 = 0.996 lie outside (0.01, 0.99).
        assert!(proposals[0][0].is_infinite() && proposals[119][0].is_infinite());
        assert!(proposals[1][0].is_finite());
    }
}
