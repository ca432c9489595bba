//! Weights by name in CPU memory: initialization of networks, safetensors files, and checkpoints of a
//! run.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::Fault;
use crate::files;
use crate::nn::loader::on_device;
use crate::nn::weight::parameter_id;
use crate::nn::{Init, WeightSource};

/// An f32 tensor in CPU memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuTensor {
    /// The shape.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f32>,
}

/// Tensors by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Sorted by name.
    pub tensors: BTreeMap<String, CpuTensor>,
}

/// Precision of the values in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32, exact.
    F32,
    /// f16, rounded to nearest.
    F16,
}

impl Weights {
    /// Reads a safetensors file of f32, f16 or bf16 tensors.
    ///
    /// # Errors
    /// The file is missing or damaged, or has another dtype.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
        let location = path.display().to_string();
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| Fault::model(&location, error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let values = decode(view.dtype(), view.data()).ok_or_else(|| {
                Fault::model(
                    &location,
                    format!("{name} has the unsupported dtype {:?}", view.dtype()),
                )
            })?;
            let shape = view.shape().to_vec();
            tensors.insert(name, CpuTensor { shape, values });
        }
        Ok(Self { tensors })
    }

    /// Writes a safetensors file atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, precision: Precision) -> Result<(), Fault> {
        let tensors = self.tensors.iter().map(|(name, tensor)| {
            let (dtype, bytes) = encode(&tensor.values, precision);
            (name.clone(), tensor.shape.clone(), dtype, bytes)
        });
        write_safetensors(path, tensors.collect(), None)
    }

    /// The parameters of `module`, by the names recorded in `initializer`.
    pub fn of_module<M: Module>(module: &M, initializer: &Initializer) -> Self {
        let mut collector = WeightCollector {
            names: initializer.names(),
            weights: Self::default(),
        };
        module.visit(&mut collector);
        collector.weights
    }
}

struct WeightCollector {
    names: HashMap<u64, String>,
    weights: Weights,
}

impl ModuleVisitor for WeightCollector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names[&param.id.val()].clone();
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor
            .into_data()
            .try_to_vec::<f32>()
            .expect("parameters are f32 during training");
        self.weights
            .tensors
            .insert(name, CpuTensor { shape, values });
    }
}

/// Initial values of a network: stored weights, else random values that depend on the seed and on the
/// parameter's name only. Records the name of every requested parameter.
#[derive(Debug)]
pub struct Initializer {
    weights: Weights,
    seed: u64,
    names: Mutex<HashMap<u64, String>>,
}

impl Initializer {
    /// Random initialization, except for the tensors in `weights`.
    pub fn new(weights: Weights, seed: u64) -> Self {
        Self {
            weights,
            seed,
            names: Mutex::default(),
        }
    }

    /// Names by parameter id, for all parameters requested so far.
    pub fn names(&self) -> HashMap<u64, String> {
        self.names
            .lock()
            .expect("no thread panics while it holds the lock")
            .clone()
    }
}

impl Initializer {
    /// Initial values of parameter `name`.
    ///
    /// # Errors
    /// The stored tensor has another shape.
    pub fn parameter(&self, name: &str, shape: &[usize], init: &Init) -> Result<Vec<f32>, Fault> {
        self.names
            .lock()
            .expect("no thread panics while it holds the lock")
            .insert(parameter_id(name).val(), name.to_owned());
        if let Some(stored) = self.weights.tensors.get(name) {
            if stored.shape != shape {
                return Err(Fault::model(
                    name,
                    format!("has the shape {:?}, expected {shape:?}", stored.shape),
                ));
            }
            return Ok(stored.values.clone());
        }
        let mut rng =
            ChaCha8Rng::seed_from_u64(self.seed ^ parameter_id(name).val().rotate_left(17));
        let count = shape.iter().product::<usize>();
        Ok(match init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Constant(value) => vec![*value; count],
            Init::Normal(deviation) => (0..count).map(|_| deviation * normal(&mut rng)).collect(),
            Init::Uniform(bound) => (0..count)
                .map(|_| bound * (2.0 * uniform(&mut rng) - 1.0))
                .collect(),
            Init::Values(values) => values.clone(),
        })
    }
}

impl WeightSource for Initializer {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        init: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        Ok(on_device(self.parameter(name, shape, init)?, device))
    }
}

/// Uniform in `(0, 1)`.
fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    ((rng.next_u32() >> 8) as f32 + 0.5) / (1 << 24) as f32
}

/// Standard normal (Box-Muller transform).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * uniform(rng).ln()).sqrt();
    radius * (std::f32::consts::TAU * uniform(rng)).cos()
}

/// Enables gradients for the parameters whose name satisfies `trainable` and disables them for all
/// others.
pub fn set_trainable<M: Module>(
    module: M,
    initializer: &Initializer,
    trainable: impl Fn(&str) -> bool,
) -> M {
    module.map(&mut GradientSelector {
        names: initializer.names(),
        trainable,
    })
}

struct GradientSelector<F> {
    names: HashMap<u64, String>,
    trainable: F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for GradientSelector<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trainable = (self.trainable)(&self.names[&param.id.val()]);
        param.map(Tensor::detach).set_require_grad(trainable)
    }
}

/// Name, shape, dtype and bytes of a tensor.
pub(super) type TensorEntry = (String, Vec<usize>, Dtype, Vec<u8>);

pub(super) fn write_safetensors(
    path: &Path,
    tensors: Vec<TensorEntry>,
    progress: Option<String>,
) -> Result<(), Fault> {
    let views = tensors.iter().map(|(name, shape, dtype, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes)
            .expect("the number of bytes matches the shape");
        (name.as_str(), view)
    });
    let header = progress.map(|text| HashMap::from([("progress".to_owned(), text)]));
    let bytes = safetensors::serialize(views, header).map_err(|error| Fault::file(path, error))?;
    write_atomically(path, &bytes)
}

/// Writes `bytes` to a temporary file and renames it to `path`.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    files::replace(path, bytes).map_err(|error| Fault::file(path, error))
}

pub(super) fn encode(values: &[f32], precision: Precision) -> (Dtype, Vec<u8>) {
    match precision {
        Precision::F32 => (Dtype::F32, bytemuck::cast_slice(values).to_vec()),
        Precision::F16 => (
            Dtype::F16,
            values
                .iter()
                .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                .collect(),
        ),
    }
}

pub(super) fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match dtype {
        Dtype::F32 => Some(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        ),
        Dtype::F16 => Some(pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, Loader};
    use crate::train::optimizer::{AdamW, Moments};
    use crate::train::state::{read_state, write_state};

    #[test]
    fn random_values_depend_on_seed_and_name_only() {
        let draw = |seed, name: &str| {
            Initializer::new(Weights::default(), seed)
                .parameter(name, &[64], &Init::Normal(1.0))
                .unwrap()
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }

    #[test]
    fn weights_round_trip_through_a_file() {
        let initializer = Initializer::new(Weights::default(), 3);
        let linear = Linear::load(
            &Loader::new(&initializer, &Device::flex()).child("fc"),
            3,
            2,
            true,
        )
        .unwrap();
        let weights = Weights::of_module(&linear, &initializer);
        assert_eq!(weights.tensors["fc.weight"].shape, [2, 3]);
        let folder = std::env::temp_dir().join(format!("chatrex-weights-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("w.safetensors");
        weights.write(&path, Precision::F32).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), weights);
        weights.write(&path, Precision::F16).unwrap();
        let rounded = Weights::read(&path).unwrap();
        for (name, tensor) in &weights.tensors {
            for (a, b) in tensor.values.iter().zip(&rounded.tensors[name].values) {
                assert!((a - b).abs() <= a.abs() / 1024.0, "{name}: {a} {b}");
            }
        }
        let again = Initializer::new(weights, 4);
        let wrong = Linear::load(
            &Loader::new(&again, &Device::flex()).child("fc"),
            4,
            2,
            true,
        );
        assert!(wrong.unwrap_err().to_string().contains("fc.weight"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
