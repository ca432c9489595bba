//! The state of a training run as one file: weights, optimizer moments and progress.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Fault;
use crate::train::checkpoint::{CpuTensor, Precision, Weights, decode, encode, write_safetensors};
use crate::train::optimizer::{AdamW, Moments};

/// Writes a checkpoint: weights, optimizer state and `progress` (step, seed, curriculum and so on).
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
        for (field, values) in [("first", &moments.first), ("second", &moments.second)] {
            let (dtype, bytes) = encode(values, Precision::F32);
            tensors.push((format!("{field}/{name}"), vec![values.len()], dtype, bytes));
        }
        let steps = moments.steps.to_le_bytes().to_vec();
        tensors.push((format!("steps/{name}"), vec![1], Dtype::U64, steps));
    }
    let progress = serde_json::to_string(progress).expect("plain data serializes");
    write_safetensors(path, tensors, Some(progress))
}

/// Reads a checkpoint of [`write_state`]; sets the moments of `optimizer`.
///
/// # Errors
/// The file is missing or damaged.
pub fn read_state<P: DeserializeOwned>(
    path: &Path,
    optimizer: &mut AdamW,
) -> Result<(Weights, P), Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    let location = path.display().to_string();
    let damaged = |what: &str| Fault::model(&location, format!("damaged training state: {what}"));
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
        let (field, name) = key.split_once('/').ok_or_else(|| damaged(&key))?;
        if field == "steps" {
            let steps = view.data().try_into().map_err(|_| damaged(&key))?;
            moments.entry(name.to_owned()).or_default().steps = u64::from_le_bytes(steps);
            continue;
        }
        let values = decode(view.dtype(), view.data()).ok_or_else(|| damaged(&key))?;
        match field {
            "weight" => {
                let shape = view.shape().to_vec();
                weights
                    .tensors
                    .insert(name.to_owned(), CpuTensor { shape, values });
            }
            "first" => moments.entry(name.to_owned()).or_default().first = values,
            "second" => moments.entry(name.to_owned()).or_default().second = values,
            _ => return Err(damaged(&key)),
        }
    }
    optimizer.moments = moments;
    Ok((weights, progress))
}
