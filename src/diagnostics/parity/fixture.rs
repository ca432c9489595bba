//! One recorded fixture: its config, tensors and weights, and what was computed for it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::tensor::{Device, Tensor, TensorData};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::glob::glob;
use crate::error::{Fault, FaultKind};
use crate::gpu::readback::read;
use crate::memory::KvCacheDType;
use crate::nn::loader::on_device;
use crate::nn::{Init, WeightSource};
use crate::weights::safetensors::{self, Stored};

/// Reads the files of recordings.
pub trait Recordings {
    /// The content of a file; `None` if it does not exist.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    fn file(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault>;
}

/// Recordings on the local file system.
#[cfg(feature = "native")]
pub struct Disk;

#[cfg(feature = "native")]
impl Recordings for Disk {
    fn file(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::file(path, error)),
        }
    }
}

/// A tensor in CPU memory. All recorded types (f32, f64, i64 below 2^53, u8) are exact in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents, outermost first; empty for a single value.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f64>,
}

impl Array {
    /// An array of values that are exact in f64.
    ///
    /// # Panics
    /// `shape` does not match the number of values.
    pub fn new<T: Into<f64>>(shape: &[usize], values: impl IntoIterator<Item = T>) -> Self {
        let values: Vec<f64> = values.into_iter().map(Into::into).collect();
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "Array::new: shape {shape:?} does not match the number of values"
        );
        Self {
            shape: shape.to_vec(),
            values,
        }
    }

    /// A vector of integers.
    pub fn integers(values: impl IntoIterator<Item = i64>) -> Self {
        let values: Vec<f64> = values.into_iter().map(|value| value as f64).collect();
        Self {
            shape: vec![values.len()],
            values,
        }
    }

    /// The values as f32.
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// The values as integers.
    pub fn i64(&self) -> Vec<i64> {
        self.values.iter().map(|&value| value as i64).collect()
    }

    /// The values as bytes.
    pub fn u8(&self) -> Vec<u8> {
        self.values.iter().map(|&value| value as u8).collect()
    }
}

/// A fixture folder.
pub struct Fixture {
    files: Rc<dyn Recordings>,
    folder: PathBuf,
    config: Value,
    io: BTreeMap<String, Array>,
    /// KV-cache dtype on a GPU.
    pub cache: KvCacheDType,
}

impl Fixture {
    /// Opens a folder. `config.json` and `io.safetensors` may be absent.
    ///
    /// # Errors
    /// A file exists but cannot be read.
    pub fn open(files: Rc<dyn Recordings>, folder: &Path) -> Result<Self, Fault> {
        let config = folder.join("config.json");
        let io = folder.join("io.safetensors");
        Ok(Self {
            config: match files.file(&config)? {
                Some(text) => parse(&config, &text)?,
                None => Value::Null,
            },
            io: match files.file(&io)? {
                Some(bytes) => tensors(&io, &bytes)?,
                None => BTreeMap::new(),
            },
            folder: folder.to_path_buf(),
            files,
            cache: KvCacheDType::default(),
        })
    }

    /// The same fixture with another KV-cache dtype on a GPU.
    #[must_use]
    pub fn with_cache(self, cache: KvCacheDType) -> Self {
        Self { cache, ..self }
    }

    /// `config.json`; null if there is none.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// `config.json` as a config struct.
    ///
    /// # Errors
    /// A field is missing or of another type.
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        self.config_at("")
    }

    /// The part of `config.json` at a JSON pointer such as `/model/transformer_cfg`.
    ///
    /// # Errors
    /// The part is missing, or a field is missing or of another type.
    pub fn config_at<T: DeserializeOwned>(&self, pointer: &str) -> Result<T, Fault> {
        let part = self
            .config
            .pointer(pointer)
            .ok_or_else(|| self.fault(&format!("config.json: nothing at `{pointer}`")))?;
        T::deserialize(part)
            .map_err(|error| self.fault(&format!("config.json at `{pointer}`: {error}")))
    }

    /// Another JSON file of the folder.
    ///
    /// # Errors
    /// It is missing or not JSON.
    pub fn json(&self, file: &str) -> Result<Value, Fault> {
        read_json(&*self.files, &self.path(file))
    }

    /// The content of the file at `path`.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn bytes(&self, path: &Path) -> Result<Vec<u8>, Fault> {
        existing_file(&*self.files, path)
    }

    /// The path of a file in this folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The path of a file in the folder `fixture` beside this one.
    pub fn sibling(&self, fixture: &str, file: &str) -> PathBuf {
        self.folder.with_file_name(fixture).join(file)
    }

    /// All keys of `io.safetensors`, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.io.keys().map(String::as_str)
    }

    /// Whether `io.safetensors` has `key`.
    pub fn has(&self, key: &str) -> bool {
        self.io.contains_key(key)
    }

    /// The recorded array `key`.
    ///
    /// # Errors
    /// There is none.
    pub fn array(&self, key: &str) -> Result<&Array, Fault> {
        self.io
            .get(key)
            .ok_or_else(|| self.fault(&format!("io.safetensors has no `{key}`")))
    }

    /// The recorded array `key` as a float tensor.
    ///
    /// # Errors
    /// There is none, or it has another number of axes.
    pub fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Result<Tensor<D>, Fault> {
        let array = self.array(key)?;
        let shape = self.axes::<D>(key, array)?;
        Ok(Tensor::from_data(
            TensorData::new(array.f32(), shape),
            device,
        ))
    }

    /// The parameters in `weights.safetensors`.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn weights(&self) -> Result<FixtureWeights, Fault> {
        self.weights_of("weights.safetensors")
    }

    /// The parameters in the safetensors file at `path`, relative to this folder.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn weights_of(&self, path: &str) -> Result<FixtureWeights, Fault> {
        let path = self.path(path);
        Ok(FixtureWeights {
            tensors: tensors(&path, &self.bytes(&path)?)?,
            path,
            used: RefCell::default(),
        })
    }

    /// The fault of a recording that cannot be used.
    pub fn fault(&self, what: &str) -> Fault {
        Fault::new(FaultKind::File, self.folder.display().to_string(), what, "")
    }

    fn axes<const D: usize>(&self, key: &str, array: &Array) -> Result<[usize; D], Fault> {
        array.shape.as_slice().try_into().map_err(|_| {
            self.fault(&format!(
                "`{key}` has shape {:?}, expected {D} axes",
                array.shape
            ))
        })
    }
}

/// The recorded parameters of a fixture; records which were loaded.
pub struct FixtureWeights {
    path: PathBuf,
    tensors: BTreeMap<String, Array>,
    used: RefCell<BTreeSet<String>>,
}

impl FixtureWeights {
    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Checks, after loading, that every tensor was loaded except those that match a glob of `skip`.
    ///
    /// # Errors
    /// Names every other tensor that was not loaded.
    pub fn finish(&self, skip: &[&str]) -> Result<(), Fault> {
        let used = self.used.borrow();
        let surplus: Vec<&str> = self
            .tensors
            .keys()
            .map(String::as_str)
            .filter(|name| !used.contains(*name) && !skip.iter().any(|skip| glob(skip, name)))
            .collect();
        if surplus.is_empty() {
            return Ok(());
        }
        Err(Fault::model(
            self.path.display().to_string(),
            format!("surplus tensors: {}", surplus.join(", ")),
        ))
    }
}

impl WeightSource for FixtureWeights {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        _: &Init,
        device: &Device,
    ) -> Result<Tensor<1>, Fault> {
        let place = || self.path.display().to_string();
        let array = self
            .tensors
            .get(name)
            .ok_or_else(|| Fault::model(place(), format!("tensor `{name}` is missing")))?;
        if array.shape != shape {
            return Err(Fault::model(
                place(),
                format!(
                    "tensor `{name}` has shape {:?}, expected {shape:?}",
                    array.shape
                ),
            ));
        }
        self.used.borrow_mut().insert(name.to_string());
        Ok(on_device(array.f32(), device))
    }
}

/// What an implementation computed, by key of `io.safetensors`. Keys that do not count are ignored.
#[derive(Default)]
pub struct Computed {
    pub(super) arrays: BTreeMap<String, Array>,
    pub(super) json: Option<Vec<String>>,
}

impl Computed {
    /// An empty result.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a float tensor back under `key`.
    ///
    /// # Errors
    /// The device fails.
    pub async fn put<const D: usize>(
        &mut self,
        key: impl Into<String>,
        tensor: Tensor<D>,
    ) -> Result<(), Fault> {
        let shape = tensor.dims();
        let key = key.into();
        let values = read(&key, tensor).await?;
        self.put_array(key, Array::new(&shape, values));
        Ok(())
    }

    /// Puts values in CPU memory under `key`.
    pub fn put_array(&mut self, key: impl Into<String>, array: Array) {
        self.arrays.insert(key.into(), array);
    }

    /// Adds differences from the recorded JSON results, one sentence each; none if they agree.
    pub fn put_json(&mut self, differences: impl IntoIterator<Item = String>) {
        self.json.get_or_insert_default().extend(differences);
    }
}

/// Reads a JSON file.
pub(super) fn read_json(files: &dyn Recordings, path: &Path) -> Result<Value, Fault> {
    parse(path, &existing_file(files, path)?)
}

fn existing_file(files: &dyn Recordings, path: &Path) -> Result<Vec<u8>, Fault> {
    files
        .file(path)?
        .ok_or_else(|| Fault::file(path, "there is no such file"))
}

fn parse(path: &Path, text: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(text).map_err(|error| Fault::file(path, error))
}

fn tensors(path: &Path, file: &[u8]) -> Result<BTreeMap<String, Array>, Fault> {
    let (_, tensors) = safetensors::read(file).map_err(|what| Fault::file(path, what))?;
    tensors
        .into_iter()
        .map(|stored| {
            let values = values(&stored).ok_or_else(|| {
                let Stored { name, dtype, .. } = &stored;
                Fault::file(path, format!("tensor `{name}` has the type {dtype}"))
            })?;
            let shape = stored.shape;
            Ok((stored.name, Array { shape, values }))
        })
        .collect()
}

fn values(stored: &Stored) -> Option<Vec<f64>> {
    fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>()
            .0
            .iter()
            .map(|&bytes| value(bytes))
            .collect()
    }
    let data = stored.bytes;
    Some(match &*stored.dtype {
        "F32" => each(data, |b| f64::from(f32::from_le_bytes(b))),
        "F64" => each(data, f64::from_le_bytes),
        "F16" => each(data, |b| half::f16::from_le_bytes(b).to_f64()),
        "BF16" => each(data, |b| half::bf16::from_le_bytes(b).to_f64()),
        "I64" => each(data, |b| i64::from_le_bytes(b) as f64),
        "I32" => each(data, |b| f64::from(i32::from_le_bytes(b))),
        "U8" | "BOOL" => each(data, |[b]| f64::from(b)),
        _ => return None,
    })
}
