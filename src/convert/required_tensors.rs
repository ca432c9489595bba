//! The tensors a network asks for: its constructors run on a source that only takes notes.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};

use crate::error::Fault;
use crate::model::chatrex::Towers;
use crate::model::config::ModelConfig;
use crate::model::decoder::Decoder;
use crate::model::upn::Upn;
use crate::nn::{Init, Loader, Weight, WeightSource};
use crate::weights::manifest::Part;
use crate::weights::storage::TensorSpec;

/// A tensor that a network asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredTensor {
    /// The checkpoint's own name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is a matrix that is multiplied with, and may be packed.
    pub matrix: bool,
    /// Who asks for it.
    pub part: Part,
}

impl RequiredTensor {
    /// The tensor as the rule for forms sees it.
    pub fn described(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            shape: &self.shape,
            matrix: self.matrix,
            part: self.part,
        }
    }
}

struct Recorder {
    part: Part,
    needed: RefCell<Vec<RequiredTensor>>,
}

impl Recorder {
    fn take(&self, name: &str, shape: &[usize], matrix: bool) {
        self.needed.borrow_mut().push(RequiredTensor {
            name: name.to_string(),
            shape: shape.to_vec(),
            matrix,
            part: self.part,
        });
    }
}

impl WeightSource for Recorder {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        _init: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        self.take(name, shape, false);
        Ok(Tensor::zeros([shape.iter().product::<usize>()], device))
    }

    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        _init: &Init,
        _device: &Device,
    ) -> Result<Weight, Fault> {
        self.take(&format!("{stem}.weight"), &shape, true);
        Ok(Weight::Device(Vec::new()))
    }
}

/// Every tensor of a model, part by part, in the order in which constructors ask.
///
/// # Errors
/// The configuration builds no network.
pub fn needed(config: &ModelConfig) -> Result<Vec<RequiredTensor>, Fault> {
    let device = Device::flex();
    let mut needed = Vec::new();
    for part in Part::ALL {
        let notes = Recorder {
            part,
            needed: RefCell::default(),
        };
        let at = Loader::new(&notes, &device);
        match (part, &config.upn) {
            (Part::Upn, Some(config)) => drop(Upn::load(&at, config)?),
            (Part::Upn, None) => {}
            (Part::Towers, _) => drop(Towers::load(&at, &config.chatrex)?),
            (Part::Decoder, _) => drop(Decoder::load(&at, &config.chatrex.llm)?),
        }
        needed.extend(notes.needed.into_inner());
    }
    Ok(needed)
}
