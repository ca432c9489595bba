//! Projectors: MLPs that map image and object features to the width of the decoder.
//!
//! `mm_projector` and `mm_object_projector` of LLaVA and ChatRex are `Linear, GELU, Linear`, stored as
//! a `Sequential` whose GELU has no parameters; hence the names `0` and `2`.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::error::Fault;
use crate::gpu::activation::Activation;
use crate::nn::{Linear, Loader};

/// Two linear layers with an exact (erf) GELU between them.
#[derive(Module, Debug)]
pub struct Projector {
    first: Linear,
    second: Linear,
}

impl Projector {
    /// Reads `0.{weight,bias}` `[outputs, inputs]` and `2.{weight,bias}` `[outputs, outputs]`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(at: &Loader, inputs: usize, outputs: usize) -> Result<Self, Fault> {
        Ok(Self {
            first: Linear::load(&at.child(0), inputs, outputs, true)?,
            second: Linear::load(&at.child(2), outputs, outputs, true)?,
        })
    }

    /// `[B, N, inputs]` to `[B, N, outputs]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let hidden = self.first.activated(x, Activation::Gelu);
        self.second.forward(hidden)
    }
}
