//! Tensors of a model, found by exact name.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors};

use crate::fault::Fault;
use crate::weights::Manifest;
use crate::weights::format::TensorEntry;

/// Checked shards of one model.
pub struct WeightStore {
    tensors: BTreeMap<String, (TensorEntry, Vec<u8>)>,
    used: RefCell<BTreeSet<String>>,
}

impl WeightStore {
    /// An empty store; shards are added one by one.
    pub fn new() -> Self {
        Self {
            tensors: BTreeMap::new(),
            used: RefCell::new(BTreeSet::new()),
        }
    }

    /// Adds shard `name` of `manifest`, after checking its bytes and every tensor in it.
    ///
    /// # Errors
    /// Length or hash differ, the header is not valid, a tensor is missing, surplus, of another
    /// shape or type than the manifest says, or holds a value that is not finite.
    pub fn add_shard(
        &mut self,
        manifest: &Manifest,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let entry = manifest
            .shards
            .iter()
            .find(|shard| shard.name == name)
            .ok_or_else(|| Fault::model(name, "is not listed in the manifest"))?;
        entry.check(bytes)?;
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| Fault::model(name, format!("is not a safetensors file ({error})")))?;
        let mut expected: BTreeMap<&String, &TensorEntry> = manifest
            .tensors
            .iter()
            .filter(|(_, tensor)| tensor.shard == name)
            .collect();
        for (tensor_name, view) in file.tensors() {
            let Some(tensor) = expected.remove(&tensor_name) else {
                return Err(Fault::model(
                    format!("{name}, tensor {tensor_name}"),
                    "is not in the manifest",
                ));
            };
            let place = || format!("{name}, tensor {tensor_name}");
            let dtype = format!("{:?}", view.dtype());
            if view.shape() != tensor.shape || dtype != tensor.dtype {
                return Err(Fault::model(
                    place(),
                    format!(
                        "is {dtype} {:?} instead of {} {:?}",
                        view.shape(),
                        tensor.dtype,
                        tensor.shape
                    ),
                ));
            }
            let values = read_f32(view.dtype(), view.data())
                .ok_or_else(|| Fault::model(place(), format!("has element type {dtype}")))?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(Fault::model(
                    place(),
                    format!("holds {} at element {at}", values[at]),
                ));
            }
            self.tensors
                .insert(tensor_name, (tensor.clone(), view.data().to_vec()));
        }
        match expected.keys().next() {
            Some(missing) => Err(Fault::model(
                format!("{name}, tensor {missing}"),
                "is in the manifest but not in the file",
            )),
            None => Ok(()),
        }
    }

    /// The values of tensor `name`, row-major, as f32.
    ///
    /// # Errors
    /// There is no such tensor, or it has another shape.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Fault> {
        let (entry, bytes) = self
            .tensors
            .get(name)
            .ok_or_else(|| Fault::model(format!("tensor {name}"), "is missing"))?;
        if entry.shape != shape {
            return Err(Fault::model(
                format!("tensor {name}"),
                format!("has shape {:?} instead of {shape:?}", entry.shape),
            ));
        }
        self.used.borrow_mut().insert(name.to_string());
        let dtype = dtype_named(&entry.dtype).expect("add_shard accepted this element type");
        Ok(read_f32(dtype, bytes).expect("add_shard accepted this element type"))
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|(_, b)| b.len() as u64).sum()
    }

    /// Fails if a tensor was never asked for and `skipped` does not excuse it.
    ///
    /// # Errors
    /// A surplus tensor, by name.
    pub fn finish(&self, skipped: impl Fn(&str) -> bool) -> Result<(), Fault> {
        let used = self.used.borrow();
        match self
            .tensors
            .keys()
            .find(|name| !used.contains(*name) && !skipped(name))
        {
            Some(name) => Err(Fault::model(
                format!("tensor {name}"),
                "belongs to no part of the model",
            )),
            None => Ok(()),
        }
    }
}

impl Default for WeightStore {
    fn default() -> Self {
        Self::new()
    }
}

fn dtype_named(name: &str) -> Option<Dtype> {
    [Dtype::F32, Dtype::F16, Dtype::BF16]
        .into_iter()
        .find(|dtype| format!("{dtype:?}") == name)
}

/// Little-endian elements as f32; `None` for element types that are no weights.
pub fn read_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => Some(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
        ),
        Dtype::F16 => Some(
            halves()
                .map(|b| half::f16::from_le_bytes(*b).to_f32())
                .collect(),
        ),
        Dtype::BF16 => Some(
            halves()
                .map(|b| half::bf16::from_le_bytes(*b).to_f32())
                .collect(),
        ),
        _ => None,
    }
}
