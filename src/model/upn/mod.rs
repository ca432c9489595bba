//! UPN, the universal proposal network: an image to boxes of any object, at two granularities
//! (ChatRex, Jiang et al. 2024, arXiv 2411.18363; `docs/reference/upn.md`; original
//! `upn_encoder.py`, `upn_decoder.py`, `deformable_transformer.py`).
//!
//! A two-stage deformable detector in the manner of DINO. A box is classified by the dot product of
//! its feature with one learned prompt vector. Boxes are `[cx, cy, w, h]` in `[0, 1]`. Backbone and
//! encoder do not depend on the prompt: run [`Upn::encode`] once per image and [`Upn::propose`] for
//! each granularity. Position tables and the top-k selection of queries are computed on the CPU.

mod config;
mod layers;
mod padding;
mod positions;

use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Int, Tensor, TensorData};

use self::layers::{InputProjection, Mlp};
use crate::error::{Fault, FaultKind};
use crate::geometry::Granularity;
use crate::gpu::readback;
use crate::model::deformable::{DecoderLayer, EncoderLayer, Pyramid};
use crate::model::swin::{Map, Swin};
use crate::nn::weight::linear;
use crate::nn::{Init, LayerNorm, Linear, Loader};

pub use self::config::UpnConfig;
pub use self::padding::PaddingMask;
pub use self::positions::{
    box_position_embedding, encoder_proposals, encoder_references, sine_positions,
};

/// Epsilon of every LayerNorm.
const EPS: f64 = 1e-5;
/// Lower clamp of [`inverse_sigmoid`]; many ports of the detector use 1e-5.
const INVERSE_SIGMOID_EPS: f64 = 1e-3;
/// Replaces the infinite logits of excluded proposals in tensors: its sigmoid is exactly 1.
const EXCLUDED_LOGIT: f32 = 1e4;

/// An encoded batch: everything that does not depend on the prompt.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The output of the encoder.
    pub pyramid: Pyramid,
    /// Features that are compared with the prompt, `[B, S, C]`; those of excluded tokens are replaced.
    pub candidates: Tensor<3>,
    /// The unpadded share of width and height, `[batch][level]`.
    pub valid_ratios: Vec<Vec<[f32; 2]>>,
    /// The box proposed by every token before the sigmoid, `[batch, S]`; `+inf` for excluded tokens.
    pub proposals: Vec<[f32; 4]>,
}

/// The top-k tokens that become queries.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Their indices in each image, best first, `[B, Q]`.
    pub indices: Vec<Vec<usize>>,
    /// Their features, `[B, Q, C]`.
    pub features: Tensor<3>,
    /// The boxes they propose, `[B, Q, 4]`.
    pub boxes: Tensor<3>,
}

/// The queries after one layer of the decoder.
#[derive(Clone, Debug)]
pub struct DecoderState {
    /// Their features after the norm, `[B, Q, C]`.
    pub state: Tensor<3>,
    /// The boxes that the layer started from, `[B, Q, 4]`.
    pub reference: Tensor<3>,
}

/// The output for a batch.
#[derive(Clone, Debug)]
pub struct Proposals {
    /// Boxes `[cx, cy, w, h]`, `[B, Q, 4]`, relative to each unpadded image.
    pub boxes: Tensor<3>,
    /// Score logits, `[B, Q]`.
    pub logits: Tensor<2>,
}

/// The proposal network.
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
    /// Reads the network under the names listed in `docs/reference/upn.md`, section 10.
    ///
    /// `bbox_embed.0` stands for all its aliases; [`is_surplus`] tells which further tensors a
    /// checkpoint may contain.
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

    /// Runs backbone and encoder on preprocessed images `[B, 3, H, W]`; `mask` is `[B, H, W]`.
    ///
    /// # Errors
    /// The image has fewer tokens than the network has queries.
    pub fn encode(&self, image: Tensor<4>, mask: &PaddingMask) -> Result<Memory, Fault> {
        let device = image.device();
        let maps = self.levels(image);
        let sizes = maps.iter().map(|map| map.size).collect::<Vec<_>>();
        let masks = sizes
            .iter()
            .map(|&[height, width]| mask.resize(height, width))
            .collect::<Vec<_>>();
        let positions = self.positions(&masks, &device);
        let tokens = Tensor::cat(maps.into_iter().map(|map| map.tokens).collect(), 1); // [B, S, C]
        let [batch, cells, _] = tokens.dims();
        if cells < self.config.num_queries {
            return Err(Fault::new(
                FaultKind::Picture,
                "picture",
                format!(
                    "has {cells} feature cells, fewer than the {} queries of the detector",
                    self.config.num_queries
                ),
                "Use a larger picture",
            ));
        }
        let keep = padding::keep_tokens(&masks)
            .map(|keep| Tensor::from_data(TensorData::new(keep, [batch, cells, 1]), &device));
        let valid_ratios = padding::valid_ratios(&masks);
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

    /// Images `[B, 3, H, W]` to the projected feature levels, finest first.
    fn levels(&self, image: Tensor<4>) -> Vec<Map> {
        let maps = self.backbone.forward(image);
        let (projections, downsamplings) = self.input_proj.split_at(maps.len());
        let mut levels = maps
            .iter()
            .zip(projections)
            .map(|(map, projection)| projection.project(map))
            .collect::<Vec<_>>();
        // The first extra level downsamples the last map of the backbone, not its projection.
        let mut last = maps.into_iter().last().expect("a backbone has outputs");
        for downsampling in downsamplings {
            last = downsampling.downsample(last);
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

    /// The features that are compared with the prompt, `[B, S, C]`. Excluded tokens are set to zero
    /// before the projection: they share one feature and can still be among the top k.
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

    /// The learned prompt vector, `[1, C]`.
    pub fn prompt(&self, granularity: Granularity) -> Tensor<2> {
        match granularity {
            Granularity::Fine => self.fine_grained_prompt.val(),
            Granularity::Coarse => self.coarse_grained_prompt.val(),
        }
    }

    /// Dot product of features `[B, Q, C]` with a prompt `[1, C]`: `[B, Q]`.
    pub fn logits(&self, features: Tensor<3>, prompt: Tensor<2>) -> Tensor<2> {
        let [batch, queries, width] = features.dims();
        let features = features.reshape([batch * queries, width]);
        linear(features, prompt, None).reshape([batch, queries])
    }

    /// Selects the queries of every image: the top-k candidates by `logits` `[B, S]`, row-major.
    pub fn select(&self, memory: &Memory, logits: &[f32]) -> Selection {
        let [batch, cells, width] = memory.candidates.dims();
        let queries = self.config.num_queries;
        let device = memory.candidates.device();
        let indices = logits
            .chunks(cells)
            .map(|logits| top_k(logits, queries))
            .collect::<Vec<_>>();
        let rows = indices
            .iter()
            .enumerate()
            .flat_map(|(image, tokens)| tokens.iter().map(move |token| image * cells + token))
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

    /// The learned initial features of the queries, `[B, Q, C]`.
    pub fn content(&self, batch: usize) -> Tensor<3> {
        let [queries, width] = self.tgt_embed.dims();
        self.tgt_embed
            .val()
            .reshape([1, queries, width])
            .expand([batch, queries, width])
    }

    /// Runs all decoder layers on queries `content` `[B, Q, C]` with initial boxes `reference`
    /// `[B, Q, 4]`; `mask` `[Q, Q]` is added to the scores of self-attention.
    ///
    /// The boxes that a layer starts from are detached from the gradient; those in
    /// [`DecoderState::reference`] are not ("look forward twice" of DINO, arXiv 2203.03605).
    pub fn decode(
        &self,
        memory: &Memory,
        content: Tensor<3>,
        reference: Tensor<3>,
        mask: Option<Tensor<2>>,
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
            x = layer.forward(x, positions, input, &memory.pyramid, mask.clone());
            states.push(DecoderState {
                state: self.decoder_norm.forward(x.clone()),
                reference,
            });
            reference = sigmoid(self.bbox_embed.forward(x.clone()) + inverse_sigmoid(start));
        }
        states
    }

    /// The boxes of one layer, `[B, Q, 4]`, from its output and the boxes that it started from.
    pub fn boxes(&self, layer: &DecoderState) -> Tensor<3> {
        let reference = inverse_sigmoid(layer.reference.clone());
        sigmoid(self.bbox_embed.forward(layer.state.clone()) + reference)
    }

    /// Proposes boxes for one prompt, in the order of the queries.
    ///
    /// # Errors
    /// The logits of the encoder cannot be read back.
    pub async fn propose(
        &self,
        memory: &Memory,
        granularity: Granularity,
    ) -> Result<Proposals, Fault> {
        let prompt = self.prompt(granularity);
        let logits = self.logits(memory.candidates.clone(), prompt.clone());
        let logits = readback::read("the encoder logits", logits).await?;
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

/// `log(x / (1 - x))`; numerator and denominator are at least 1e-3.
pub fn inverse_sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let x = x.clamp(0.0, 1.0);
    let rest = x.clone().neg().add_scalar(1.0);
    x.clamp_min(INVERSE_SIGMOID_EPS).log() - rest.clamp_min(INVERSE_SIGMOID_EPS).log()
}

/// The indices of the `count` largest values, largest first; ties keep index order.
fn top_k(values: &[f32], count: usize) -> Vec<usize> {
    let mut order = (0..values.len()).collect::<Vec<_>>();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(count);
    order
}

/// True for tensors that a UPN checkpoint may contain and this network does not read: index tables
/// that are computed, aliases of the one box head, and a head whose output the original multiplies
/// by zero.
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
    fn top_k_is_sorted_and_ties_keep_their_order() {
        assert_eq!(top_k(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
    }
}
