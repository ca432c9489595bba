//! Named values on the host: starting values of networks, weights read from and written to
//! safetensors, and the whole state of a run.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Fault;
use crate::nn::loader::on_device;
use crate::nn::weight::parameter_id;
use crate::nn::{Init, WeightSource};
use crate::train::optimizer::{AdamW, Moments};
use crate::weights::source;

/// A tensor on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// Tensors by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// In the order of their names.
    pub tensors: BTreeMap<String, Values>,
}

/// How [`Weights::write`] stores numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Exact.
    F32,
    /// Rounded to the nearest half; what is shipped.
    F16,
}

impl Weights {
    /// Reads a safetensors file of f32, f16 or bf16 tensors.
    ///
    /// # Errors
    /// The file is missing, damaged, or holds another type of number.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
        let place = path.display().to_string();
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| Fault::model(&place, error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let values = decode(view.dtype(), view.data()).ok_or_else(|| {
                Fault::model(&place, format!("{name} is stored as {:?}", view.dtype()))
            })?;
            let shape = view.shape().to_vec();
            tensors.insert(name, Values { shape, values });
        }
        Ok(Self { tensors })
    }

    /// Writes a safetensors file; a reader sees the old file or the new one, never half of it.
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

    /// The parameters of `module`, by the names that `start` gave out.
    pub fn of_module<M: Module>(module: &M, start: &Start) -> Self {
        let mut reader = Reader {
            names: start.names(),
            weights: Self::default(),
        };
        module.visit(&mut reader);
        reader.weights
    }
}

struct Reader {
    names: HashMap<u64, String>,
    weights: Weights,
}

impl ModuleVisitor for Reader {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names[&param.id.val()].clone();
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let values = tensor
            .into_data()
            .try_to_vec::<f32>()
            .expect("parameters are f32 while they are trained");
        self.weights.tensors.insert(name, Values { shape, values });
    }
}

/// Starting values of a network: given weights where there are some, else random numbers that
/// depend on the seed and the parameter's name alone. Remembers every name it is asked for.
#[derive(Debug)]
pub struct Start {
    weights: Weights,
    seed: u64,
    names: Mutex<HashMap<u64, String>>,
}

impl Start {
    /// Random but for the tensors in `weights`.
    pub fn new(weights: Weights, seed: u64) -> Self {
        Self {
            weights,
            seed,
            names: Mutex::default(),
        }
    }

    /// Name by parameter id, for every parameter asked for so far.
    pub fn names(&self) -> HashMap<u64, String> {
        self.names
            .lock()
            .expect("no holder of the lock panics")
            .clone()
    }
}

impl Start {
    /// The values that parameter `name` starts with.
    ///
    /// # Errors
    /// It is stored in another shape.
    pub fn parameter(&self, name: &str, shape: &[usize], init: &Init) -> Result<Vec<f32>, Fault> {
        self.names
            .lock()
            .expect("no holder of the lock panics")
            .insert(parameter_id(name).val(), name.to_owned());
        if let Some(stored) = self.weights.tensors.get(name) {
            if stored.shape != shape {
                return Err(Fault::model(
                    name,
                    format!("stored as {:?}, expected {shape:?}", stored.shape),
                ));
            }
            return Ok(stored.values.clone());
        }
        let mut random =
            ChaCha8Rng::seed_from_u64(self.seed ^ parameter_id(name).val().rotate_left(17));
        let count = shape.iter().product::<usize>();
        Ok(match init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Constant(value) => vec![*value; count],
            Init::Normal(deviation) => (0..count)
                .map(|_| deviation * normal(&mut random))
                .collect(),
            Init::Uniform(bound) => (0..count)
                .map(|_| bound * (2.0 * unit(&mut random) - 1.0))
                .collect(),
            Init::Values(values) => values.clone(),
        })
    }
}

impl WeightSource for Start {
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
fn unit(random: &mut ChaCha8Rng) -> f32 {
    ((random.next_u32() >> 8) as f32 + 0.5) / (1 << 24) as f32
}

/// Standard normal, by Box and Muller's transform.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * unit(random).ln()).sqrt();
    radius * (std::f32::consts::TAU * unit(random)).cos()
}

/// Marks the parameters whose name satisfies `trained` as requiring gradients and all others as
/// constants.
pub fn select_trained<M: Module>(module: M, start: &Start, trained: impl Fn(&str) -> bool) -> M {
    module.map(&mut Selector {
        names: start.names(),
        trained,
    })
}

struct Selector<F> {
    names: HashMap<u64, String>,
    trained: F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Selector<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trained = (self.trained)(&self.names[&param.id.val()]);
        param.map(Tensor::detach).set_require_grad(trained)
    }
}

/// Writes a whole run: weights, optimiser and `progress` (step, seed, curriculum, ...).
///
/// # Errors
/// The file cannot be written.
pub fn write_state(
    path: &Path,
    weights: &Weights,
    optimizer: &AdamW,
    progress: &impl Serialize,
) -> Result<(), Fault> {
    let mut tensors = Vec::new();
    for (name, tensor) in &weights.tensors {
        let (dtype, bytes) = encode(&tensor.values, Precision::F32);
        tensors.push((format!("weight/{name}"), tensor.shape.clone(), dtype, bytes));
    }
    for (name, moments) in &optimizer.moments {
        for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
            let (dtype, bytes) = encode(values, Precision::F32);
            tensors.push((format!("{kind}/{name}"), vec![values.len()], dtype, bytes));
        }
        let steps = moments.steps.to_le_bytes().to_vec();
        tensors.push((format!("steps/{name}"), vec![1], Dtype::U64, steps));
    }
    let progress = serde_json::to_string(progress).expect("progress is plain data");
    write_safetensors(path, tensors, Some(progress))
}

/// Reads what [`write_state`] wrote; the moments go into `optimizer`.
///
/// # Errors
/// The file is missing or damaged.
pub fn read_state<P: DeserializeOwned>(
    path: &Path,
    optimizer: &mut AdamW,
) -> Result<(Weights, P), Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    let place = path.display().to_string();
    let damaged = |what: &str| Fault::model(&place, format!("damaged training state: {what}"));
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(&error.to_string()))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| damaged(&error.to_string()))?;
    let progress = header
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get("progress"))
        .ok_or_else(|| damaged("no progress entry"))?;
    let progress = serde_json::from_str(progress).map_err(|error| damaged(&error.to_string()))?;
    let mut weights = Weights::default();
    let mut moments = BTreeMap::<String, Moments>::new();
    for (key, view) in file.tensors() {
        let (kind, name) = key.split_once('/').ok_or_else(|| damaged(&key))?;
        if kind == "steps" {
            let steps = view.data().try_into().map_err(|_| damaged(&key))?;
            moments.entry(name.to_owned()).or_default().steps = u64::from_le_bytes(steps);
            continue;
        }
        let values = decode(view.dtype(), view.data()).ok_or_else(|| damaged(&key))?;
        match kind {
            "weight" => {
                let shape = view.shape().to_vec();
                weights
                    .tensors
                    .insert(name.to_owned(), Values { shape, values });
            }
            "first" => moments.entry(name.to_owned()).or_default().first = values,
            "second" => moments.entry(name.to_owned()).or_default().second = values,
            _ => return Err(damaged(&key)),
        }
    }
    optimizer.moments = moments;
    Ok((weights, progress))
}

type Stored = (String, Vec<usize>, Dtype, Vec<u8>);

fn write_safetensors(
    path: &Path,
    tensors: Vec<Stored>,
    progress: Option<String>,
) -> Result<(), Fault> {
    let views = tensors.iter().map(|(name, shape, dtype, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes)
            .expect("the bytes were made for this shape");
        (name.as_str(), view)
    });
    let header = progress.map(|text| HashMap::from([("progress".to_owned(), text)]));
    let bytes = safetensors::serialize(views, header).map_err(|error| Fault::file(path, error))?;
    replace(path, &bytes)
}

/// Replaces `path` with `bytes`; a reader sees the old file or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    source::replace(path, bytes).map_err(|error| Fault::file(path, error))
}

fn encode(values: &[f32], precision: Precision) -> (Dtype, Vec<u8>) {
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

fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match dtype {
        Dtype::F32 => Some(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        ),
        Dtype::F16 => Some(halves().map(|b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, Loader};

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let draw = |seed, name: &str| {
            Start::new(Weights::default(), seed)
                .parameter(name, &[64], &Init::Normal(1.0))
                .unwrap()
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }

    #[test]
    fn weights_survive_a_file() {
        let start = Start::new(Weights::default(), 3);
        let linear = Linear::load(
            &Loader::new(&start, &Device::flex()).child("fc"),
            3,
            2,
            true,
        )
        .unwrap();
        let weights = Weights::of_module(&linear, &start);
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
        let again = Start::new(weights, 4);
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
