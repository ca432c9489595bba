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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::format::{Defaults, FileEntry, Licence, Provenance, VERSION};
    use safetensors::tensor::TensorView;

    const SHARD: &str = "a.safetensors";

    fn shard(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (*name, view.expect("shape and values agree"))
        });
        safetensors::serialize(views, None).expect("small tensors serialise")
    }

    fn manifest(shard: &[u8], tensors: &[(&str, Vec<usize>)]) -> Manifest {
        Manifest {
            version: VERSION,
            name: "test".into(),
            family: "chatrex".into(),
            config: serde_json::Value::Null,
            defaults: Defaults {
                score: 0.3,
                nms: 0.8,
                max_tokens: 512,
            },
            tokenizer: FileEntry::describe("tokenizer.json", b"{}"),
            shards: vec![FileEntry::describe(SHARD, shard)],
            tensors: tensors
                .iter()
                .map(|(name, shape)| {
                    let entry = TensorEntry {
                        shard: SHARD.into(),
                        dtype: "F32".into(),
                        shape: shape.clone(),
                    };
                    ((*name).to_string(), entry)
                })
                .collect(),
            licence: Licence {
                name: "MIT".into(),
                text: String::new(),
            },
            provenance: Provenance {
                trained_on: String::new(),
                commands: Vec::new(),
            },
        }
    }

    fn two_tensors() -> Vec<u8> {
        shard(&[
            ("a", vec![2], vec![1.0, -2.5]),
            ("b", vec![1, 2], vec![0.0, 3.0]),
        ])
    }

    fn loaded() -> WeightStore {
        let bytes = two_tensors();
        let manifest = manifest(&bytes, &[("a", vec![2]), ("b", vec![1, 2])]);
        let mut store = WeightStore::new();
        store.add_shard(&manifest, SHARD, &bytes).expect("whole");
        store
    }

    #[test]
    fn values_come_back() {
        assert_eq!(loaded().values("a", &[2]), Ok(vec![1.0, -2.5]));
    }

    #[test]
    fn lookups_fail_by_name() {
        let store = loaded();
        for (name, shape, says) in [
            ("c", vec![2], "tensor c: is missing"),
            (
                "b",
                vec![2, 1],
                "tensor b: has shape [1, 2] instead of [2, 1]",
            ),
        ] {
            let fault = store.values(name, &shape).expect_err(name).to_string();
            assert!(fault.starts_with(says), "{fault}");
        }
        store.values("a", &[2]).expect("present");
        let fault = store.finish(|_| false).expect_err("b was not used");
        assert!(fault.to_string().starts_with("tensor b"), "{fault}");
        assert_eq!(store.finish(|name| name == "b"), Ok(()));
    }

    #[test]
    fn damaged_shards_are_refused() {
        let whole = two_tensors();
        let both = [("a", vec![2]), ("b", vec![1, 2])];
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        let not_finite = shard(&[("a", vec![2], vec![1.0, f32::NAN])]);
        let cases: [(&str, Manifest, &[u8], &str); 7] = [
            (
                "short",
                manifest(&whole, &both),
                &whole[..whole.len() - 1],
                "bytes instead of",
            ),
            ("one bit", manifest(&whole, &both), &flipped, "is damaged"),
            (
                "html",
                manifest(b"<html>", &[]),
                b"<html>",
                "is not a safetensors file",
            ),
            (
                "surplus",
                manifest(&whole, &both[..1]),
                &whole,
                "tensor b: is not in the manifest",
            ),
            (
                "missing",
                manifest(&whole, &[both[0].clone(), both[1].clone(), ("c", vec![1])]),
                &whole,
                "tensor c: is in the manifest but not in the file",
            ),
            (
                "misshapen",
                manifest(&whole, &[both[0].clone(), ("b", vec![2])]),
                &whole,
                "tensor b: is F32 [1, 2] instead of F32 [2]",
            ),
            (
                "not finite",
                manifest(&not_finite, &both[..1]),
                &not_finite,
                "tensor a: holds NaN at element 1",
            ),
        ];
        for (name, manifest, bytes, says) in cases {
            let fault = WeightStore::new()
                .add_shard(&manifest, SHARD, bytes)
                .expect_err(name)
                .to_string();
            assert!(fault.contains(says), "{name}: {fault}");
        }
    }

    #[test]
    fn manifests_are_checked() {
        let good = manifest(&two_tensors(), &[("a", vec![2])]);
        let json = |manifest: &Manifest| serde_json::to_vec(manifest).expect("plain data");
        assert_eq!(
            Manifest::parse(&json(&good), "model.json"),
            Ok(good.clone())
        );
        let newer = Manifest {
            version: VERSION + 1,
            ..good.clone()
        };
        let mut path = good.clone();
        path.shards[0].name = "../a.safetensors".into();
        let mut unlisted = good.clone();
        unlisted.shards.clear();
        for (bytes, says) in [
            (b"<html>".to_vec(), "is not JSON"),
            (b"{}".to_vec(), "has no version"),
            (json(&newer), "has version 2; this program reads version 1"),
            (b"{\"version\":1}".to_vec(), "missing field"),
            (json(&path), "not a plain name"),
            (json(&unlisted), "which is no shard"),
        ] {
            let fault = Manifest::parse(&bytes, "model.json").expect_err(says);
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }
}
