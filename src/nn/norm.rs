//! Layer, RMS and group normalization, in f32.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::error::Fault;
use crate::gpu::group_norm::group_norm;
use crate::gpu::layer_norm::layer_norm;
use crate::gpu::matmul::RmsNormPrologue;
use crate::gpu::rms_norm::rms_norm;
use crate::nn::{Init, Loader};

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[C]`.
    pub weight: Param<Tensor<1>>,
    /// `[C]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, width: usize, eps: f64) -> Result<Self, Fault> {
        Ok(Self {
            weight: at.parameter("weight", [width], Init::Ones)?,
            bias: at.parameter("bias", [width], Init::Zeros)?,
            eps,
        })
    }

    /// `[.., C]` to `[.., C]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// `x * rsqrt(mean(x^2) + eps) * weight` over the last axis.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[C]`.
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, width: usize, eps: f64) -> Result<Self, Fault> {
        Ok(Self {
            weight: at.parameter("weight", [width], Init::Ones)?,
            eps,
        })
    }

    /// `[.., C]` to `[.., C]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        rms_norm(x, self.weight.val(), self.eps)
    }

    /// The norm as the prologue of a fused matmul kernel.
    pub fn fused(&self) -> RmsNormPrologue {
        RmsNormPrologue {
            gain: self.weight.val(),
            eps: self.eps as f32,
        }
    }
}

/// Normalization over groups of channels and the whole feature map, padding included.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[C]`.
    pub weight: Param<Tensor<1>>,
    /// `[C]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    eps: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, groups: usize, width: usize, eps: f64) -> Result<Self, Fault> {
        assert_eq!(width % groups, 0, "group norm: channels per group");
        Ok(Self {
            weight: at.parameter("weight", [width], Init::Ones)?,
            bias: at.parameter("bias", [width], Init::Zeros)?,
            groups,
            eps,
        })
    }

    /// Channels last: `[B, H * W, C]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        group_norm(x, weight, bias, self.groups, self.eps)
    }
}
