//! Layer, RMS and group normalisation, in f32.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::fault::Fault;
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
        let centred = x.clone() - x.mean_dim(D - 1);
        let variance = centred.clone().square().mean_dim(D - 1);
        centred / variance.add_scalar(self.eps).sqrt() * self.weight.val().unsqueeze()
            + self.bias.val().unsqueeze()
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
        let mean_square = x.clone().square().mean_dim(D - 1);
        x / mean_square.add_scalar(self.eps).sqrt() * self.weight.val().unsqueeze()
    }
}
