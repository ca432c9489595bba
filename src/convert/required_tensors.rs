//! The tensors that a model requires: the networks' constructors run on a source that records requests.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};

use crate::error::Fault;
use crate::model::chatrex::Towers;
use crate::model::class_projector::ClassProjector;
use crate::model::config::{ModelConfig, OBJECT_PROJECTOR, ProposerConfig, TowersConfig};
use crate::model::decoder::Decoder;
use crate::model::nanodet::NanoDet;
use crate::model::upn::Upn;
use crate::nn::{Init, Loader, Weight, WeightSource};
use crate::weights::manifest::Part;
use crate::weights::storage::TensorSpec;

/// A tensor that a network requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether it is a matmul weight, which may be quantized.
    pub matrix: bool,
    /// The part of the model that requires it.
    pub part: Part,
}

impl RequiredTensor {
    /// The tensor as input of [`storage_for`](crate::weights::storage::storage_for).
    pub fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            shape: &self.shape,
            matrix: self.matrix,
            part: self.part,
        }
    }
}

/// Records the tensors that constructors request, and returns placeholders.
struct Recorder {
    part: Part,
    tensors: RefCell<Vec<RequiredTensor>>,
}

impl Recorder {
    fn record(&self, name: &str, shape: &[usize], matrix: bool) {
        self.tensors.borrow_mut().push(RequiredTensor {
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
        self.record(name, shape, false);
        Ok(Tensor::zeros([shape.iter().product::<usize>()], device))
    }

    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        _init: &Init,
        _device: &Device,
    ) -> Result<Weight, Fault> {
        self.record(&format!("{stem}.weight"), &shape, true);
        Ok(Weight::Device(Vec::new()))
    }
}

/// Every tensor of a model, part by part, in the order of the constructors' requests.
///
/// # Errors
/// The configuration is invalid.
pub fn required_tensors(config: &ModelConfig) -> Result<Vec<RequiredTensor>, Fault> {
    let device = Device::flex();
    let mut required = Vec::new();
    for part in Part::ALL {
        let recorder = Recorder {
            part,
            tensors: RefCell::default(),
        };
        let at = Loader::new(&recorder, &device);
        let width = config.llm.hidden_size;
        match part {
            Part::Upn => match &config.proposer {
                Some(ProposerConfig::Upn(upn)) => drop(Upn::load(&at, upn)?),
                Some(ProposerConfig::Detector(detector)) => drop(NanoDet::load(&at, detector)?),
                None => {}
            },
            Part::Towers => match &config.towers {
                Some(TowersConfig::ClipConvNext { sizes, .. }) => {
                    drop(Towers::load(&at, sizes, width)?);
                }
                Some(TowersConfig::Classes(objects)) => {
                    let classes = config.classes().len();
                    let at = at.child(OBJECT_PROJECTOR);
                    drop(ClassProjector::load(&at, objects, classes, width)?);
                }
                None => {}
            },
            Part::Decoder => drop(Decoder::load(&at, &config.llm)?),
        }
        required.extend(recorder.tensors.into_inner());
    }
    Ok(required)
}
