//! The vision transformer of CLIP, the low-resolution tower (Radford et al. 2021, arXiv 2103.00020;
//! `modeling_clip.py` of `transformers`).
//!
//! LLaVA uses the hidden state before the last block (`select_layer = -2`) without the class token.
//! The blocks after it and `post_layernorm` are in the checkpoint but never computed:
//! [`ClipVitConfig::unused_names`] lists them.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::gpu::attention::encoder::attention;
use crate::nn::linear::Conv2dConfig;
use crate::nn::{Conv2d, Init, LayerNorm, Linear, Loader};

/// Sizes of the tower, under the names of CLIP's `vision_config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipVitConfig {
    /// Width C of a token.
    pub hidden_size: usize,
    /// Hidden width of the MLP.
    pub intermediate_size: usize,
    /// Blocks in the checkpoint, the unused ones included.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Color channels.
    #[serde(default = "default_num_channels")]
    pub num_channels: usize,
    /// Epsilon of every LayerNorm.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Index of the hidden state that is the output, in the list that starts with the input of the
    /// first block; negative from the end: -2 is the output of the second to last block.
    #[serde(default = "default_select_layer")]
    pub select_layer: i64,
}

fn default_num_channels() -> usize {
    3
}

fn default_layer_norm_eps() -> f64 {
    1e-5
}

fn default_select_layer() -> i64 {
    -2
}

impl ClipVitConfig {
    /// `openai/clip-vit-large-patch14-336`.
    pub fn large_336() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            image_size: 336,
            patch_size: 14,
            num_channels: 3,
            layer_norm_eps: 1e-5,
            select_layer: -2,
        }
    }

    /// Patches along one side of the image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Number of blocks that are computed.
    ///
    /// # Panics
    /// `select_layer` is outside the list of hidden states.
    pub fn used_layers(&self) -> usize {
        let states = self.num_hidden_layers as i64 + 1;
        let index = if self.select_layer < 0 {
            states + self.select_layer
        } else {
            self.select_layer
        };
        assert!(
            (0..states).contains(&index),
            "select_layer {} of {states} hidden states",
            self.select_layer
        );
        index as usize
    }

    /// Names below `vision_model` that a checkpoint may contain and the tower never reads: whole names,
    /// or the part of a name before a dot.
    pub fn unused_names(&self) -> Vec<String> {
        let mut names = vec![
            "embeddings.position_ids".to_owned(),
            "post_layernorm".to_owned(),
        ];
        names.extend(
            (self.used_layers()..self.num_hidden_layers).map(|i| format!("encoder.layers.{i}")),
        );
        names
    }
}

/// Patch embedding, class token and learned position embedding.
#[derive(Module, Debug)]
struct Embeddings {
    class_embedding: Param<Tensor<1>>,
    patch_embedding: Conv2d,
    position_embedding: Param<Tensor<2>>,
}

impl Embeddings {
    fn load(at: &Loader, config: &ClipVitConfig) -> Result<Self, Fault> {
        let width = config.hidden_size;
        Ok(Self {
            class_embedding: at.parameter("class_embedding", [width], Init::Normal(0.02))?,
            patch_embedding: Conv2d::load(
                &at.child("patch_embedding"),
                Conv2dConfig {
                    inputs: config.num_channels,
                    outputs: width,
                    kernel: config.patch_size,
                    stride: config.patch_size,
                    padding: 0,
                    groups: 1,
                },
                false,
            )?,
            position_embedding: at.child("position_embedding").parameter(
                "weight",
                [config.grid() * config.grid() + 1, width],
                Init::Normal(0.02),
            )?,
        })
    }

    fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let patches = self.patch_embedding.forward(pixel_values); // [B, C, grid, grid]
        let [batch, width, rows, columns] = patches.dims();
        let patches = patches
            .reshape([batch, width, rows * columns])
            .swap_dims(1, 2);
        let class = self
            .class_embedding
            .val()
            .reshape([1, 1, width])
            .expand([batch, 1, width]);
        let tokens = Tensor::cat(vec![class, patches], 1); // [B, 1 + grid^2, C]
        tokens + self.position_embedding.val().unsqueeze::<3>()
    }
}

/// Multi-head self-attention with biases on all projections.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    fn load(at: &Loader, config: &ClipVitConfig) -> Result<Self, Fault> {
        let linear = |name| {
            Linear::load(
                &at.child(name),
                config.hidden_size,
                config.hidden_size,
                true,
            )
        };
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let query = self.q_proj.forward(x.clone());
        let key = self.k_proj.forward(x.clone());
        let value = self.v_proj.forward(x);
        let attended = attention(query, key, value, self.heads, None);
        self.out_proj.forward(attended)
    }
}

/// `fc1`, quick GELU, `fc2`.
#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn load(at: &Loader, config: &ClipVitConfig) -> Result<Self, Fault> {
        let (width, hidden) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            fc1: Linear::load(&at.child("fc1"), width, hidden, true)?,
            fc2: Linear::load(&at.child("fc2"), hidden, width, true)?,
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let hidden = self.fc1.activated(x, Activation::QuickGelu);
        self.fc2.forward(hidden)
    }
}

/// A pre-norm transformer block.
#[derive(Module, Debug)]
pub struct Block {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    /// Reads a block below `encoder.layers`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &ClipVitConfig) -> Result<Self, Fault> {
        let norm =
            |name| LayerNorm::load(&at.child(name), config.hidden_size, config.layer_norm_eps);
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            self_attn: Attention::load(&at.child("self_attn"), config)?,
            layer_norm2: norm("layer_norm2")?,
            mlp: Mlp::load(&at.child("mlp"), config)?,
        })
    }

    /// `[B, tokens, C]` to `[B, tokens, C]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.self_attn.forward(self.layer_norm1.forward(x));
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

/// The tower up to the selected hidden state.
#[derive(Module, Debug)]
pub struct ClipVit {
    embeddings: Embeddings,
    pre_layrnorm: LayerNorm,
    layers: Vec<Block>,
}

impl ClipVit {
    /// Reads the tower below `vision_model`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &ClipVitConfig) -> Result<Self, Fault> {
        let layers = at.child("encoder.layers");
        Ok(Self {
            embeddings: Embeddings::load(&at.child("embeddings"), config)?,
            pre_layrnorm: LayerNorm::load(
                &at.child("pre_layrnorm"),
                config.hidden_size,
                config.layer_norm_eps,
            )?,
            layers: (0..config.used_layers())
                .map(|i| Block::load(&layers.child(i), config))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Normalized pixels `[B, 3, H, W]` to patch features `[B, patches, C]`, row-major.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let x = self.embeddings.forward(pixel_values);
        let x = self.pre_layrnorm.forward(x);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        let [batch, tokens, width] = x.dims();
        x.slice([0..batch, 1..tokens, 0..width])
    }
}
