//! Builds a network by descending the checkpoint's names together with the code.
//!
//! A constructor receives a [`Loader`] and narrows it with the name of each child, so the tree of
//! constructors and the tree of tensor names are the same tree. A [`WeightSource`] supplies the
//! values: a weight file, or random numbers before training. Every parameter gets a
//! [`burn::module::ParamId`] computed from its full name, by which optimizer state and saved weights
//! find it.

use std::fmt::Display;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::Fault;
use crate::memory::CpuActivations;
use crate::nn::weight::{Weight, parameter_id};

/// Initial values of a parameter that is not read from a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// One value everywhere.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform in `[-bound, bound]`.
    Uniform(f32),
    /// These values, row-major.
    Values(Vec<f32>),
}

/// Supplies parameters.
pub trait WeightSource {
    /// The values of tensor `name` of `shape`, row-major on `device`.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        init: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault>;

    /// The matrix `stem.weight`, `[out, in]`, in the format it is stored in.
    ///
    /// # Errors
    /// It is missing or has another shape.
    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<Weight, Fault> {
        let name = format!("{stem}.weight");
        let values = self.tensor(&name, &shape, init, device)?;
        Ok(Weight::dense(&name, values.reshape(shape)))
    }

    /// Whether the weights are for products on the CPU alone: they may be kept as these read them. Otherwise they are
    /// parameters, which can be trained and saved.
    fn is_packed(&self) -> bool {
        false
    }
}

/// Uploads `values`.
pub fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// A position in the tree of tensor names, and the device its tensors go to.
#[derive(Clone)]
pub struct Loader<'a> {
    source: &'a dyn WeightSource,
    prefix: String,
    device: Device,
    activations: CpuActivations,
}

impl<'a> Loader<'a> {
    /// The root of a checkpoint.
    pub fn new(source: &'a dyn WeightSource, device: &Device) -> Self {
        Self {
            source,
            prefix: String::new(),
            device: device.clone(),
            activations: CpuActivations::default(),
        }
    }

    /// The same with other activations for quantized weights on the CPU.
    pub fn with_activations(self, activations: CpuActivations) -> Self {
        Self {
            activations,
            ..self
        }
    }

    /// The child called `name`: `a.b` becomes `a.b.name`.
    pub fn child(&self, name: impl Display) -> Self {
        Self {
            source: self.source,
            prefix: self.full_name(name),
            device: self.device.clone(),
            activations: self.activations,
        }
    }

    /// [`WeightSource::is_packed`].
    pub fn is_packed(&self) -> bool {
        self.source.is_packed()
    }

    /// The device of the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter `name` at this position; it requires a gradient on an autodiff device.
    ///
    /// # Errors
    /// The source's: missing or misshapen, by full name.
    pub fn parameter<const D: usize>(
        &self,
        name: impl Display,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, Fault> {
        let full_name = self.full_name(name);
        let tensor = self
            .source
            .tensor(&full_name, &shape, &init, &self.device)?
            .reshape(shape);
        Ok(Param::initialized(parameter_id(&full_name), tensor).set_require_grad(true))
    }

    /// The matrix `weight` `[out, in]` at this position, in the format it is stored in.
    ///
    /// # Errors
    /// The source's: missing or misshapen, by full name.
    pub fn weight(&self, shape: [usize; 2], init: Init) -> Result<Weight, Fault> {
        let weight = self
            .source
            .weight(&self.prefix, shape, &init, &self.device)?;
        Ok(weight.with_activations(self.activations))
    }

    fn full_name(&self, name: impl Display) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}
