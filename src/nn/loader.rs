//! Fills a network by descending the checkpoint's names together with the code.
//!
//! A constructor receives a [`Loader`] and narrows it with the name of each child, so the tree of
//! constructors and the tree of tensor names are the same tree. Where values come from (a weight
//! file, random numbers before training) is a [`WeightSource`]'s business. Every parameter gets
//! a [`ParamId`] computed from its full name: optimiser state and saved weights find it again.

use std::fmt::Display;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::Fault;
use crate::nn::weight::{Matrix, WeightForm};

/// How a parameter starts when it is not read from a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// One value everywhere.
    Constant(f32),
    /// Normal with mean 0 and this deviation.
    Normal(f32),
    /// Uniform in `[-bound, bound]`.
    Uniform(f32),
    /// These very values, row-major.
    Values(Vec<f32>),
}

/// Where parameters come from.
pub trait WeightSource {
    /// The values of tensor `name`, row-major on `device`, `shape` long in all.
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

    /// The matrix `stem.weight`, `[out, in]`, in the form it is stored in.
    ///
    /// # Errors
    /// It is missing or has another shape.
    fn matrix(
        &self,
        stem: &str,
        [rows, columns]: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<WeightForm, Fault> {
        let name = format!("{stem}.weight");
        let values = self.tensor(&name, &[rows, columns], init, device)?;
        Ok(WeightForm::Whole(Box::new(values.reshape([rows, columns]))))
    }
}

/// Values of the host as a tensor.
pub fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// A place in a checkpoint, and the device its tensors go to.
#[derive(Clone)]
pub struct Loader<'a> {
    source: &'a dyn WeightSource,
    prefix: String,
    device: Device,
}

impl<'a> Loader<'a> {
    /// The root of a checkpoint.
    pub fn new(source: &'a dyn WeightSource, device: &Device) -> Self {
        Self {
            source,
            prefix: String::new(),
            device: device.clone(),
        }
    }

    /// The child called `name`: `a.b` becomes `a.b.name`.
    pub fn child(&self, name: impl Display) -> Self {
        Self {
            source: self.source,
            prefix: self.full_name(name),
            device: self.device.clone(),
        }
    }

    /// The device that parameters are put on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter `name` below this place; it asks for a gradient on an autodiff device.
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

    /// The matrix `weight` `[out, in]` at this place, in the form it is stored in.
    ///
    /// # Errors
    /// The source's: missing or misshapen, by full name.
    pub fn matrix(&self, shape: [usize; 2], init: Init) -> Result<Matrix, Fault> {
        let form = self
            .source
            .matrix(&self.prefix, shape, &init, &self.device)?;
        let id = parameter_id(&self.full_name("weight"));
        Ok(Matrix::new(form, id))
    }

    fn full_name(&self, name: impl Display) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

/// The id of the parameter called `full_name` (64-bit FNV-1a of the name).
pub fn parameter_id(full_name: &str) -> ParamId {
    let hash = full_name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    ParamId::from(hash)
}
