//! Small layers of the proposal network: MLP heads and input projections.

use burn::module::Module;
use burn::tensor::Tensor;

use super::config::UpnConfig;
use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::model::swin::Map;
use crate::nn::linear::Conv2dConfig;
use crate::nn::{Conv2d, GroupNorm, Init, Linear, Loader};

/// Epsilon of the GroupNorm.
const EPS: f64 = 1e-5;

/// Linear layers with a ReLU after each but the last.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// Reads `layers.{0..}`, of `widths[i]` inputs and `widths[i + 1]` outputs. `zero_init` starts
    /// training with a last layer of zeros.
    pub fn load(at: &Loader, widths: &[usize], zero_init: bool) -> Result<Self, Fault> {
        let last = widths.len() - 2;
        let layers = widths
            .windows(2)
            .enumerate()
            .map(|(index, pair)| {
                let at = at.child("layers").child(index);
                if zero_init && index == last {
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
        let x = hidden
            .iter()
            .fold(x, |x, layer| layer.activated(x, Activation::Relu));
        last.forward(x)
    }
}

/// Projects a map of the backbone to the width of the transformer.
#[derive(Module, Debug)]
pub(super) struct InputProjection {
    conv: Conv2d,
    norm: GroupNorm,
}

impl InputProjection {
    /// A 1x1 convolution, or if `downsample` a 3x3 convolution of stride 2.
    pub fn load(
        at: &Loader,
        inputs: usize,
        config: &UpnConfig,
        downsample: bool,
    ) -> Result<Self, Fault> {
        let (kernel, stride, padding) = if downsample { (3, 2, 1) } else { (1, 1, 0) };
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

    /// Applies the 1x1 convolution as a linear layer.
    pub fn project(&self, map: &Map) -> Map {
        let tokens = self.conv.of_patches(map.tokens.clone());
        Map {
            tokens: self.norm.forward(tokens),
            size: map.size,
        }
    }

    /// Applies the 3x3 convolution of stride 2: half the size of `map`.
    pub fn downsample(&self, map: Map) -> Map {
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
