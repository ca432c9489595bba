//! The ChatRex family (ChatRex, arXiv 2411.18363; RexSeek, arXiv 2503.08507;
//! `docs/reference/chatrex.md`, sections 1 to 7): two vision towers encode the image, every box becomes
//! one vector, and a language model answers with the indices of boxes.
//!
//! An image is encoded once for any number of boxes and questions. Preprocessing, prompts and answers
//! are elsewhere ([`image`](crate::image), [`text`](crate::text)).

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::image::prepare::SquareRecipe;
use crate::model::clip_vit::{ClipVit, ClipVitConfig};
use crate::model::convnext::{ConvNext, ConvNextConfig};
use crate::model::decoder::{Decoder, DecoderConfig};
use crate::model::projector::Projector;
use crate::model::roi_encoder;
use crate::nn::Loader;
pub use crate::text::prompt::{IMAGE_SLOT, OBJECT_SLOT};

/// Sizes of a member of the family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRexConfig {
    /// The language model.
    pub llm: DecoderConfig,
    /// The vision towers.
    #[serde(flatten)]
    pub towers: ClipConvNextConfig,
}

/// Sizes of both vision towers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipConvNextConfig {
    /// The low-resolution vision tower.
    pub clip: ClipVitConfig,
    /// The high-resolution vision tower.
    pub convnext: ConvNextConfig,
    /// Side of the low-resolution image in pixels.
    pub image_low: usize,
    /// Side of the high-resolution image in pixels; boxes are in its pixels.
    pub image_aux: usize,
}

impl ChatRexConfig {
    /// RexSeek-3B on Qwen2.5-3B.
    pub fn rexseek_3b() -> Self {
        Self {
            llm: DecoderConfig {
                hidden_size: 2048,
                intermediate_size: 11008,
                num_hidden_layers: 36,
                num_attention_heads: 16,
                num_key_value_heads: 2,
                rms_norm_eps: 1e-6,
                rope_theta: 1e6,
                vocab_size: 151_769,
                tie_word_embeddings: true,
                qkv_bias: true,
                head_dim: None,
            },
            towers: ClipConvNextConfig {
                clip: ClipVitConfig::large_336(),
                convnext: ConvNextConfig::large(),
                image_low: 336,
                image_aux: 768,
            },
        }
    }

    /// ChatRex-7B on Vicuna-7B, as released (`docs/reference/chatrex.md`, section 1).
    pub fn chatrex_7b() -> Self {
        Self {
            llm: DecoderConfig {
                hidden_size: 4096,
                intermediate_size: 11008,
                num_hidden_layers: 32,
                num_attention_heads: 32,
                num_key_value_heads: 32,
                rms_norm_eps: 1e-5,
                rope_theta: 1e4,
                vocab_size: 32_104,
                tie_word_embeddings: false,
                qkv_bias: false,
                head_dim: None,
            },
            ..Self::rexseek_3b()
        }
    }

    /// The small model of this project, for a vocabulary of `vocab_size` tokens: two vision towers, four
    /// levels and grouped-query attention like the large ones, small enough to train on two CPU cores.
    pub fn nano(vocab_size: usize) -> Self {
        Self {
            llm: DecoderConfig {
                hidden_size: 128,
                intermediate_size: 384,
                num_hidden_layers: 5,
                num_attention_heads: 6,
                num_key_value_heads: 2,
                rms_norm_eps: 1e-6,
                rope_theta: 1e4,
                vocab_size,
                tie_word_embeddings: true,
                qkv_bias: true,
                head_dim: Some(32),
            },
            towers: ClipConvNextConfig {
                clip: ClipVitConfig {
                    hidden_size: 64,
                    intermediate_size: 192,
                    num_hidden_layers: 3,
                    num_attention_heads: 4,
                    image_size: 84,
                    patch_size: 14,
                    num_channels: 3,
                    layer_norm_eps: 1e-5,
                    select_layer: -2,
                },
                convnext: ConvNextConfig {
                    depths: vec![1, 1, 3, 1],
                    dims: vec![24, 48, 96, 152],
                    kernel: 7,
                    patch_size: 4,
                    ln_eps: 1e-6,
                },
                image_low: 84,
                image_aux: 192,
            },
        }
    }
}

impl ClipConvNextConfig {
    /// Channels of a visual token: the features of both towers, concatenated.
    pub fn visual_width(&self) -> usize {
        let coarsest = self.convnext.dims.last().expect("ConvNeXt has stages");
        self.clip.hidden_size + coarsest
    }

    /// Channels of a box feature: all levels of the high-resolution tower, concatenated.
    pub fn object_width(&self) -> usize {
        self.convnext.dims.iter().sum()
    }

    /// Preprocessing of images and boxes. The scripts of RexSeek also set
    /// [`half_boxes`](SquareRecipe::half_boxes).
    pub fn recipe(&self) -> SquareRecipe {
        SquareRecipe {
            high: self.image_aux as u32,
            low: self.image_low as u32,
            ..SquareRecipe::CHATREX
        }
    }

    /// Visual tokens of an image.
    pub fn visual_tokens(&self) -> usize {
        self.clip.grid() * self.clip.grid()
    }
}

/// The whole model.
#[derive(Module, Debug)]
pub struct ChatRex {
    /// The language model.
    pub llm: Decoder,
    /// Vision towers and projectors.
    pub towers: Towers,
    #[module(skip)]
    config: ChatRexConfig,
}

impl ChatRex {
    /// Reads all parts under the names of the checkpoint.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &ChatRexConfig) -> Result<Self, Fault> {
        Ok(Self {
            llm: Decoder::load(at, &config.llm)?,
            towers: Towers::load(at, &config.towers, config.llm.hidden_size)?,
            config: config.clone(),
        })
    }

    /// The configuration it was built with.
    pub fn config(&self) -> &ChatRexConfig {
        &self.config
    }
}

/// Both vision towers and both projectors: image and boxes to embeddings of the language model.
#[derive(Module, Debug)]
pub struct Towers {
    vision_tower: ClipVit,
    vision_tower_aux: ConvNext,
    mm_projector: Projector,
    mm_object_projector: Projector,
    #[module(skip)]
    image_aux: usize,
}

/// An encoded image.
#[derive(Clone, Debug)]
pub struct ImageFeatures {
    /// Visual tokens in the width D of the language model, `[B, P, D]`.
    pub image: Tensor<3>,
    /// Feature levels of the high-resolution tower, finest first, `[B, C_l, h_l, w_l]`.
    pub pyramid: Vec<Tensor<4>>,
}

impl ImageFeatures {
    /// The features of each image of the batch.
    pub fn split(self) -> Vec<Self> {
        let one = |image: usize| Self {
            image: self.image.clone().narrow(0, image, 1),
            pyramid: self
                .pyramid
                .iter()
                .map(|level| level.clone().narrow(0, image, 1))
                .collect(),
        };
        (0..self.image.dims()[0]).map(one).collect()
    }
}

impl Towers {
    /// Reads towers and projectors under the names of the checkpoint; `width` is that of the decoder.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &ClipConvNextConfig, width: usize) -> Result<Self, Fault> {
        Ok(Self {
            vision_tower: ClipVit::load(
                &at.child("vision_tower.vision_tower.vision_model"),
                &config.clip,
            )?,
            vision_tower_aux: ConvNext::load(&at.child("vision_tower_aux"), &config.convnext)?,
            mm_projector: Projector::load(&at.child("mm_projector"), config.visual_width(), width)?,
            mm_object_projector: Projector::load(
                &at.child("mm_object_projector"),
                config.object_width(),
                width,
            )?,
            image_aux: config.image_aux,
        })
    }

    /// The low-resolution tower.
    pub fn clip(&self) -> &ClipVit {
        &self.vision_tower
    }

    /// The high-resolution tower.
    pub fn convnext(&self) -> &ConvNext {
        &self.vision_tower_aux
    }

    /// Encodes images: normalized pixels `[B, 3, low, low]` and `[B, 3, aux, aux]`.
    pub fn encode_image(&self, low: Tensor<4>, high: Tensor<4>) -> ImageFeatures {
        let (visual, pyramid) = self.forward(low, high);
        ImageFeatures {
            image: self.project_visual(visual),
            pyramid,
        }
    }

    /// The towers alone: visual tokens before the projector, `[B, P, clip + coarsest level]`, and the
    /// feature levels.
    ///
    /// # Panics
    /// The grids of the two towers differ.
    pub fn forward(&self, low: Tensor<4>, high: Tensor<4>) -> (Tensor<3>, Vec<Tensor<4>>) {
        let clip = self.vision_tower.forward(low); // [B, P, clip]
        let pyramid = self.vision_tower_aux.forward(high);
        let coarsest = pyramid.last().expect("ConvNeXt has stages").clone();
        let [batch, channels, rows, columns] = coarsest.dims();
        assert_eq!(
            clip.dims()[1],
            rows * columns,
            "both towers have the same grid"
        );
        let coarsest = coarsest
            .permute([0, 2, 3, 1])
            .reshape([batch, rows * columns, channels]);
        (Tensor::cat(vec![clip, coarsest], 2), pyramid)
    }

    /// Visual tokens `[B, P, clip + coarsest level]` to `[B, P, D]`.
    pub fn project_visual(&self, visual: Tensor<3>) -> Tensor<3> {
        self.mm_projector.forward(visual)
    }

    /// Box features before the projector, `[B, N, object width]`: one list of boxes per image, in pixels
    /// of the padded high-resolution image. N is the longest list; rows beyond the boxes of an image are
    /// zero.
    pub fn box_features(&self, pyramid: &[Tensor<4>], boxes: &[Vec<BoxXyxy>]) -> Tensor<3> {
        roi_encoder::encode_batch(pyramid, boxes, [self.image_aux; 2])
    }

    /// Box features `[B, N, object width]` to `[B, N, D]`.
    pub fn project_objects(&self, features: Tensor<3>) -> Tensor<3> {
        self.mm_object_projector.forward(features)
    }

    /// The embeddings of the boxes of one image, `[N, D]`; at least one box.
    pub fn encode_boxes(&self, image: &ImageFeatures, boxes: &[BoxXyxy]) -> Tensor<2> {
        let features = self.box_features(&image.pyramid, &[boxes.to_vec()]);
        self.project_objects(features).squeeze_dim(0)
    }
}

/// Embeds token ids with slots, `[1, T, D]`: [`IMAGE_SLOT`] becomes all visual tokens, the k-th
/// [`OBJECT_SLOT`] becomes row k of `objects` `[N, D]`.
///
/// # Panics
/// A slot without an image or a box, or an id outside the vocabulary.
pub fn splice(
    llm: &Decoder,
    ids: &[i64],
    image: Option<&ImageFeatures>,
    objects: Option<&Tensor<2>>,
) -> Tensor<3> {
    let text_ids: Vec<u32> = ids
        .iter()
        .filter(|id| **id >= 0)
        .map(|id| u32::try_from(*id).expect("ids fit 32 bits"))
        .collect();
    if text_ids.len() == ids.len() {
        return llm.embed(&text_ids).unsqueeze();
    }
    // All embeddings are concatenated, and then gathered in the order of the ids.
    let mut sources = Vec::new();
    let mut rows = 0;
    let mut add = |source: Tensor<2>| {
        let start = rows;
        rows += source.dims()[0];
        sources.push(source);
        start as i32
    };
    let first_text = if text_ids.is_empty() {
        0
    } else {
        add(llm.embed(&text_ids))
    };
    let image = image.map(|image| image.image.clone().squeeze_dim::<2>(0));
    let image = image.map(|image| (image.dims()[0] as i32, add(image)));
    let first_object = objects.map(|objects| add(objects.clone()));
    let (mut text, mut object) = (0, 0);
    let mut indices = Vec::with_capacity(ids.len());
    for &id in ids {
        match id {
            0.. => {
                indices.push(first_text + text);
                text += 1;
            }
            IMAGE_SLOT => {
                let (count, start) = image.expect("an image slot needs an image");
                indices.extend(start..start + count);
            }
            OBJECT_SLOT => {
                indices.push(first_object.expect("an object slot needs boxes") + object);
                object += 1;
            }
            _ => panic!("{id} is neither a token id nor a slot"),
        }
    }
    let all = Tensor::cat(sources, 0);
    let count = indices.len();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &all.device());
    all.select(0, indices).unsqueeze()
}
