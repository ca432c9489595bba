//! The ConvNeXt trunk, the high-resolution tower (Liu et al. 2022, arXiv 2201.03545; the trunk of
//! OpenCLIP's `convnext_large_d_320` with the names of `timm`).
//!
//! Returns the outputs of the stages, without the final norm and head. The layer scale is called
//! `ramma` in the checkpoints of ChatRex (`gamma` in `timm`). Activations are channels-last, so that
//! every pointwise layer is one matrix product.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::gpu::depthwise::depthwise_conv;
use crate::nn::chunked::map_chunks;
use crate::nn::linear::Conv2dConfig;
use crate::nn::{Conv2d, Init, LayerNorm, Linear, Loader};

/// Sizes of the trunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvNextConfig {
    /// Blocks per stage.
    pub depths: Vec<usize>,
    /// Channels per stage.
    pub dims: Vec<usize>,
    /// Side of the depthwise kernel; odd.
    #[serde(default = "default_kernel")]
    pub kernel: usize,
    /// Kernel size and stride of the stem.
    #[serde(default = "default_patch_size")]
    pub patch_size: usize,
    /// Epsilon of every LayerNorm.
    #[serde(default = "default_ln_eps")]
    pub ln_eps: f64,
}

fn default_kernel() -> usize {
    7
}

fn default_patch_size() -> usize {
    4
}

fn default_ln_eps() -> f64 {
    1e-6
}

impl ConvNextConfig {
    /// The trunk of OpenCLIP's ConvNeXt-Large.
    pub fn large() -> Self {
        Self {
            depths: vec![3, 3, 27, 3],
            dims: vec![192, 384, 768, 1536],
            kernel: 7,
            patch_size: 4,
            ln_eps: 1e-6,
        }
    }

    /// Pixels per cell of each level.
    pub fn strides(&self) -> Vec<usize> {
        (0..self.dims.len()).map(|s| self.patch_size << s).collect()
    }
}

/// Initial layer scale. The paper's 1e-6 needs hundreds of epochs to grow; nano trains for an hour.
const INITIAL_LAYER_SCALE: f32 = 0.1;

/// Depthwise convolution, norm, MLP, layer scale, residual.
#[derive(Module, Debug)]
pub struct Block {
    conv_dw: DepthwiseConv,
    norm: LayerNorm,
    mlp: Mlp,
    ramma: Param<Tensor<1>>,
}

impl Block {
    /// Reads a block of `width` channels below `blocks`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &ConvNextConfig, width: usize) -> Result<Self, Fault> {
        Ok(Self {
            conv_dw: DepthwiseConv::load(&at.child("conv_dw"), width, config.kernel)?,
            norm: LayerNorm::load(&at.child("norm"), width, config.ln_eps)?,
            mlp: Mlp::load(&at.child("mlp"), width)?,
            ramma: at.parameter("ramma", [width], Init::Constant(INITIAL_LAYER_SCALE))?,
        })
    }

    /// `[B, H, W, C]` to `[B, H, W, C]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv_dw.forward(x.clone());
        let y = self.mlp.forward(self.norm.forward(y));
        x + y * self.ramma.val().unsqueeze()
    }
}

/// Depthwise convolution with same padding: one odd kernel per channel.
#[derive(Module, Debug)]
struct DepthwiseConv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl DepthwiseConv {
    fn load(at: &Loader, width: usize, kernel: usize) -> Result<Self, Fault> {
        Ok(Self {
            weight: at.parameter(
                "weight",
                [width, 1, kernel, kernel],
                Init::Normal((kernel as f32).recip()),
            )?,
            bias: at.parameter("bias", [width], Init::Zeros)?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        depthwise_conv(x, self.weight.val(), self.bias.val())
    }
}

/// `fc1` to four times the width, GELU, `fc2`.
#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn load(at: &Loader, width: usize) -> Result<Self, Fault> {
        Ok(Self {
            fc1: Linear::load(&at.child("fc1"), width, 4 * width, true)?,
            fc2: Linear::load(&at.child("fc2"), 4 * width, width, true)?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, _, columns, channels] = x.dims();
        map_chunks(x, 1, 4 * batch * columns * channels, |x, _| {
            self.fc2.forward(self.fc1.activated(x, Activation::Gelu))
        })
    }
}

/// Norm and a 2 x 2 convolution of stride 2.
#[derive(Module, Debug)]
struct Downsample {
    norm: LayerNorm,
    conv: Conv2d,
}

impl Downsample {
    fn load(
        at: &Loader,
        config: &ConvNextConfig,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, Fault> {
        Ok(Self {
            norm: LayerNorm::load(&at.child(0), inputs, config.ln_eps)?,
            conv: Conv2d::load(&at.child(1), patch_conv(inputs, outputs, 2), true)?,
        })
    }

    /// `[B, H, W, C]` to `[B, H / 2, W / 2, outputs]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.norm.forward(x).permute([0, 3, 1, 2]);
        self.conv.forward(x).permute([0, 2, 3, 1])
    }
}

/// A convolution without overlap: its stride is the kernel size.
fn patch_conv(inputs: usize, outputs: usize, kernel: usize) -> Conv2dConfig {
    Conv2dConfig {
        inputs,
        outputs,
        kernel,
        stride: kernel,
        padding: 0,
        groups: 1,
    }
}

/// Downsampling (none in the first stage) and blocks.
#[derive(Module, Debug)]
struct Stage {
    downsample: Option<Downsample>,
    blocks: Vec<Block>,
}

/// The trunk.
#[derive(Module, Debug)]
pub struct ConvNext {
    stem_conv: Conv2d,
    stem_norm: LayerNorm,
    stages: Vec<Stage>,
}

impl ConvNext {
    /// Reads `vision_stem.*` and `vision_stages.*`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, config: &ConvNextConfig) -> Result<Self, Fault> {
        assert_eq!(
            config.depths.len(),
            config.dims.len(),
            "ConvNeXt: one depth and one width per stage"
        );
        let stem = at.child("vision_stem");
        let stages = at.child("vision_stages");
        let stage = |s: usize| {
            let at = stages.child(s);
            let width = config.dims[s];
            Ok(Stage {
                downsample: (s > 0)
                    .then(|| {
                        let at = at.child("downsample");
                        Downsample::load(&at, config, config.dims[s - 1], width)
                    })
                    .transpose()?,
                blocks: (0..config.depths[s])
                    .map(|b| Block::load(&at.child("blocks").child(b), config, width))
                    .collect::<Result<_, _>>()?,
            })
        };
        Ok(Self {
            stem_conv: Conv2d::load(
                &stem.child(0),
                patch_conv(3, config.dims[0], config.patch_size),
                true,
            )?,
            stem_norm: LayerNorm::load(&stem.child(1), config.dims[0], config.ln_eps)?,
            stages: (0..config.dims.len())
                .map(stage)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Normalized pixels `[B, 3, H, W]` to one `[B, C, h, w]` per stage, finest first (channels-last in
    /// memory).
    pub fn forward(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let x = self.stem_conv.forward(images).permute([0, 2, 3, 1]);
        let mut x = self.stem_norm.forward(x); // [B, H / 4, W / 4, C]
        let mut levels = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            if let Some(downsample) = &stage.downsample {
                x = downsample.forward(x);
            }
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x));
            levels.push(x.clone().permute([0, 3, 1, 2]));
        }
        levels
    }
}
