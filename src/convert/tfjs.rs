//! Reader of TensorFlow.js graph models: a JSON file with the topology and a list of weights, and binary
//! shards beside it.
//!
//! Nothing is executed: nodes are looked up by name, constants are read. In each group of the list the
//! shards are one sequence of bytes, and the tensors follow each other in it without gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{ErrorCode, Fault, FaultKind};

/// Maximum bytes of the JSON file.
const MAX_JSON: u64 = 100_000_000;

/// Maximum axes of a tensor.
const MAX_AXES: usize = 8;

/// A node of the graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its operation.
    pub op: String,
    /// The nodes it reads, in order; `name:k` is output `k` of a node.
    #[serde(default)]
    pub input: Vec<String>,
    #[serde(default)]
    attr: BTreeMap<String, Value>,
}

impl Node {
    /// A flag.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.attr.get(name)?.get("b")?.as_bool()
    }

    /// A float.
    pub fn float(&self, name: &str) -> Option<f64> {
        self.attr.get(name)?.get("f")?.as_f64()
    }

    /// A string; base64 in the file, and returned so.
    pub fn base64(&self, name: &str) -> Option<&str> {
        self.attr.get(name)?.get("s")?.as_str()
    }

    /// A list of integers.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let list = self.attr.get(name)?.get("list")?.get("i")?.as_array()?;
        list.iter().map(integer).collect()
    }

    /// The shape of a placeholder.
    pub fn shape(&self) -> Option<Vec<i64>> {
        let shape = self.attr.get("shape")?.get("shape")?;
        let sides = shape.get("dim")?.as_array()?;
        sides
            .iter()
            .map(|side| integer(side.get("size")?))
            .collect()
    }
}

/// A 64-bit integer, which the format writes as a string.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_i64(),
    }
}

/// The name of the node that an input names, and the index of its output.
pub fn node_of(input: &str) -> (&str, usize) {
    match input.rsplit_once(':') {
        Some((name, output)) => match output.parse() {
            Ok(output) => (name, output),
            Err(_) => (input, 0),
        },
        None => (input, 0),
    }
}

/// How the elements of a constant are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Storage {
    F32,
    F16,
    I32,
    Bool,
    /// `code * scale + min`.
    U8(Affine),
    /// `code * scale + min`.
    U16(Affine),
}

/// Scale and offset of codes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Affine {
    scale: f64,
    min: f64,
    /// Whether the result is rounded to an integer.
    integer: bool,
}

impl Affine {
    fn value(self, code: f64) -> f64 {
        let value = code * self.scale + self.min;
        if self.integer { value.round() } else { value }
    }
}

impl Storage {
    fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::U16(_) => 2,
            Self::Bool | Self::U8(_) => 1,
        }
    }
}

/// A constant: its shape and its place.
#[derive(Clone, Debug)]
struct Constant {
    shape: Vec<usize>,
    storage: Storage,
    group: usize,
    start: usize,
    end: usize,
}

/// An opened graph model.
#[derive(Debug)]
pub struct GraphModel {
    place: String,
    nodes: BTreeMap<String, Node>,
    constants: BTreeMap<String, Constant>,
    /// The bytes of each group.
    groups: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelJson {
    #[serde(default)]
    format: Option<String>,
    model_topology: Topology,
    weights_manifest: Vec<Group>,
}

impl ModelJson {
    fn read(path: &Path) -> Result<Self, Fault> {
        let json = read_at_most(path, MAX_JSON)?;
        serde_json::from_slice(&json).map_err(|error| {
            let place = path.display().to_string();
            Fault::model(place, format!("is no graph model ({error})"))
        })
    }
}

#[derive(Deserialize)]
struct Topology {
    node: Vec<Node>,
}

#[derive(Deserialize)]
struct Group {
    paths: Vec<String>,
    weights: Vec<Weight>,
}

#[derive(Deserialize)]
struct Weight {
    name: String,
    shape: Vec<u64>,
    dtype: String,
    #[serde(default)]
    quantization: Option<Quantization>,
}

#[derive(Deserialize)]
struct Quantization {
    dtype: String,
    #[serde(default)]
    scale: Option<f64>,
    #[serde(default)]
    min: Option<f64>,
}

impl GraphModel {
    /// Opens the JSON file `path` and the shards that it names, which lie in its folder.
    ///
    /// # Errors
    /// A file is missing, cut or too long; the JSON is no graph model; a name is used twice; a shard lies
    /// outside the folder; a type is not supported.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let place = path.display().to_string();
        let json = ModelJson::read(path)?;
        if let Some(format) = json.format.as_ref().filter(|f| *f != "graph-model") {
            return Err(Fault::model(
                place,
                format!("has the format {format:?}; supported is \"graph-model\""),
            )
            .code(ErrorCode::Unsupported));
        }
        let mut model = Self {
            nodes: BTreeMap::new(),
            constants: BTreeMap::new(),
            groups: Vec::new(),
            place,
        };
        for node in json.model_topology.node {
            if let Some(twice) = model.nodes.insert(node.name.clone(), node) {
                return Err(model.fault(&twice.name, "is defined twice"));
            }
        }
        let shards = shards(path, &json.weights_manifest)?;
        for (group, paths) in json.weights_manifest.into_iter().zip(shards) {
            let bytes = model.lay_out(group.weights)?;
            let bytes = model.read_group(&paths, bytes)?;
            model.groups.push(bytes);
        }
        Ok(model)
    }

    /// The JSON file `path` and the shards that it names.
    ///
    /// # Errors
    /// It is missing or no graph model, or a shard lies outside the folder.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>, Fault> {
        let json = ModelJson::read(path)?;
        let mut files = shards(path, &json.weights_manifest)?.concat();
        files.push(path.to_path_buf());
        Ok(files)
    }

    /// Places the constants of the next group one after another; returns their length in bytes.
    fn lay_out(&mut self, weights: Vec<Weight>) -> Result<usize, Fault> {
        let mut end = 0_usize;
        for weight in weights {
            let storage = storage(&weight)
                .map_err(|what| self.fault(&weight.name, &what).code(ErrorCode::Unsupported))?;
            if weight.shape.len() > MAX_AXES {
                return Err(self.fault(&weight.name, "has more than 8 axes"));
            }
            let start = end;
            let size = weight
                .shape
                .iter()
                .try_fold(storage.bytes(), |size, &side| {
                    size.checked_mul(usize::try_from(side).ok()?)
                });
            end = size
                .and_then(|size| start.checked_add(size))
                .ok_or_else(|| {
                    let shape = &weight.shape;
                    self.fault(&weight.name, &format!("has the shape {shape:?}"))
                })?;
            let constant = Constant {
                shape: weight.shape.iter().map(|&side| side as usize).collect(),
                storage,
                group: self.groups.len(),
                start,
                end,
            };
            if self
                .constants
                .insert(weight.name.clone(), constant)
                .is_some()
            {
                return Err(self.fault(&weight.name, "is listed twice"));
            }
        }
        Ok(end)
    }

    /// The bytes of a group's shards, which must be `expected`.
    fn read_group(&self, paths: &[PathBuf], expected: usize) -> Result<Vec<u8>, Fault> {
        let mut lengths = Vec::new();
        for path in paths {
            let metadata = std::fs::metadata(path).map_err(|error| Fault::file(path, error))?;
            lengths.push(metadata.len());
        }
        let total = lengths
            .iter()
            .try_fold(0_u64, |sum, &length| sum.checked_add(length));
        let names = || {
            let names: Vec<_> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            match names.is_empty() {
                true => self.place.clone(),
                false => names.join(" and "),
            }
        };
        if total != Some(expected as u64) {
            let total: u128 = lengths.iter().map(|&length| u128::from(length)).sum();
            return Err(Fault::model(
                names(),
                format!(
                    "has {total} bytes, the tensors of {} {expected}",
                    self.place
                ),
            ));
        }
        let mut bytes = Vec::with_capacity(expected);
        for (path, length) in paths.iter().zip(lengths) {
            bytes.extend(read_at_most(path, length)?);
        }
        if bytes.len() != expected {
            return Err(Fault::model(names(), "changed while it was read"));
        }
        Ok(bytes)
    }

    /// A fault of the node or constant `name`.
    pub fn fault(&self, name: &str, what: &str) -> Fault {
        let place = format!("{}, {name}", self.place);
        Fault::new(FaultKind::Model, place, what, "")
    }

    /// The JSON file, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The node that the input `input` names.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, input: &str) -> Result<&Node, Fault> {
        let (name, _) = node_of(input);
        let found = self.nodes.get(name);
        found.ok_or_else(|| self.fault(name, "is no node of the graph"))
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether `input` names a constant.
    pub fn is_constant(&self, input: &str) -> bool {
        self.constants.contains_key(node_of(input).0)
    }

    /// Bytes of the constant `input`; 0 if there is none.
    pub fn bytes(&self, input: &str) -> u64 {
        let constant = self.constant(input);
        constant.map_or(0, |constant| (constant.end - constant.start) as u64)
    }

    /// The shape of the constant `input`.
    ///
    /// # Errors
    /// There is none.
    pub fn shape(&self, input: &str) -> Result<&[usize], Fault> {
        Ok(&self.constant(input)?.shape)
    }

    /// The constant `input` as f32, row-major.
    ///
    /// # Errors
    /// There is none.
    pub fn floats(&self, input: &str) -> Result<Vec<f32>, Fault> {
        let values = self.values(self.constant(input)?);
        Ok(values.into_iter().map(|value| value as f32).collect())
    }

    /// The constant `input` as integers, row-major.
    ///
    /// # Errors
    /// There is none, or it is not of int32.
    pub fn integers(&self, input: &str) -> Result<Vec<i64>, Fault> {
        let constant = self.constant(input)?;
        let is_integer = match constant.storage {
            Storage::I32 => true,
            Storage::U8(affine) | Storage::U16(affine) => affine.integer,
            Storage::F32 | Storage::F16 | Storage::Bool => false,
        };
        if !is_integer {
            return Err(self.fault(node_of(input).0, "is not of int32"));
        }
        let values = self.values(constant).into_iter();
        Ok(values.map(|value| value as i64).collect())
    }

    fn constant(&self, input: &str) -> Result<&Constant, Fault> {
        let (name, _) = node_of(input);
        let found = self.constants.get(name);
        found.ok_or_else(|| self.fault(name, "is no constant of the model"))
    }

    fn values(&self, constant: &Constant) -> Vec<f64> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let elements = bytes.as_chunks::<N>().0.iter();
            elements.map(|&element| value(element)).collect()
        }
        let bytes = &self.groups[constant.group][constant.start..constant.end];
        match constant.storage {
            Storage::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Storage::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f64()),
            Storage::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Storage::Bool => each(bytes, |[b]| f64::from(b)),
            Storage::U8(affine) => each(bytes, |[b]| affine.value(f64::from(b))),
            Storage::U16(affine) => each(bytes, |b| affine.value(f64::from(u16::from_le_bytes(b)))),
        }
    }
}

/// The shards of each group, in the folder of the JSON file `path`.
fn shards(path: &Path, groups: &[Group]) -> Result<Vec<Vec<PathBuf>>, Fault> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let fault = |what: String| Fault::model(path.display().to_string(), what);
    let mut seen = BTreeSet::new();
    let mut result = Vec::new();
    for group in groups {
        let mut paths = Vec::new();
        for name in &group.paths {
            if !is_file_name(name) {
                return Err(fault(format!(
                    "names the shard {name:?}, which is not the name of a file"
                )));
            }
            if !seen.insert(name) {
                return Err(fault(format!("names the shard {name} twice")));
            }
            paths.push(folder.join(name));
        }
        result.push(paths);
    }
    Ok(result)
}

/// How a weight is stored; the error continues a sentence that begins with its name.
fn storage(weight: &Weight) -> Result<Storage, String> {
    let dtype = &*weight.dtype;
    let Some(quantization) = &weight.quantization else {
        return match dtype {
            "float32" => Ok(Storage::F32),
            "int32" => Ok(Storage::I32),
            "bool" => Ok(Storage::Bool),
            other => Err(format!("has the unsupported dtype {other}")),
        };
    };
    let stored = &*quantization.dtype;
    let affine = || {
        let (Some(scale), Some(min)) = (quantization.scale, quantization.min) else {
            return Err(format!("is quantized to {stored} without scale and min"));
        };
        Ok(Affine {
            scale,
            min,
            integer: dtype == "int32",
        })
    };
    match (dtype, stored) {
        ("float32", "float16") => Ok(Storage::F16),
        ("float32" | "int32", "uint8") => Ok(Storage::U8(affine()?)),
        ("float32" | "int32", "uint16") => Ok(Storage::U16(affine()?)),
        _ => Err(format!(
            "has the dtype {dtype} and the unsupported quantization {stored}"
        )),
    }
}

/// Whether `name` is the name of a file in the same folder.
fn is_file_name(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty()
        && !name.contains(['/', '\\', ':', '\0'])
        && path.file_name().is_some_and(|file| file == name)
}

/// The content of a file of at most `limit` bytes.
fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, Fault> {
    let fault = |error: std::io::Error| Fault::file(path, error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(fault)?;
    if bytes.len() as u64 > limit {
        return Err(Fault::model(
            path.display().to_string(),
            format!("has more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    struct Files {
        folder: TempDir,
        json: Value,
    }

    impl Files {
        /// One tensor of each type in two groups; the first group has two shards.
        fn new() -> Self {
            let weight = |name: &str, shape: &[usize], dtype: &str, quantization: Value| {
                let mut weight = json!({"name": name, "shape": shape, "dtype": dtype});
                if !quantization.is_null() {
                    weight["quantization"] = quantization;
                }
                weight
            };
            let affine = |dtype: &str| json!({"dtype": dtype, "scale": 0.5, "min": -1.0});
            let first = [
                weight("f32", &[2], "float32", Value::Null),
                weight("f16", &[1, 3], "float32", json!({"dtype": "float16"})),
                weight("empty", &[0, 7], "float32", Value::Null),
                weight("i32", &[], "int32", Value::Null),
            ];
            let second = [
                weight("bool", &[3], "bool", Value::Null),
                weight("u8", &[2], "float32", affine("uint8")),
                weight("u16", &[2], "float32", affine("uint16")),
                weight("whole", &[2], "int32", affine("uint8")),
            ];
            let json = json!({
                "format": "graph-model",
                "modelTopology": {"node": [{"name": "f32", "op": "Const"}]},
                "weightsManifest": [
                    {"paths": ["a.bin", "b.bin"], "weights": first},
                    {"paths": ["c.bin"], "weights": second},
                ],
            });
            let mut bytes = [1.5_f32, -2.0].map(f32::to_le_bytes).concat();
            for value in [0.25, 4.0, -8.0] {
                bytes.extend(half::f16::from_f32(value).to_le_bytes());
            }
            bytes.extend((-7_i32).to_le_bytes());
            // The first shard ends inside an element.
            let (a, b) = bytes.split_at(5);
            let c = [1, 0, 1, 0, 6, 2, 0, 0, 1, 5, 9];
            let folder = tempfile::tempdir().expect("a temporary folder");
            for (name, bytes) in [("a.bin", a), ("b.bin", b), ("c.bin", &c)] {
                std::fs::write(folder.path().join(name), bytes).expect("a writable folder");
            }
            Self { folder, json }
        }

        fn open(&self) -> Result<GraphModel, Fault> {
            let path = self.folder.path().join("model.json");
            std::fs::write(&path, self.json.to_string()).expect("a writable folder");
            GraphModel::open(&path)
        }

        fn error(change: impl FnOnce(&mut Value)) -> String {
            let mut files = Self::new();
            change(&mut files.json);
            files.open().expect_err("a damaged model").to_string()
        }
    }

    #[test]
    fn constants_of_every_type_are_read() {
        let model = Files::new().open().expect("a model");
        let floats = |name: &str| model.floats(name).expect("a constant");
        assert_eq!(floats("f32"), [1.5, -2.0]);
        assert_eq!(floats("f32:0"), [1.5, -2.0]);
        assert_eq!(floats("f16"), [0.25, 4.0, -8.0]);
        assert_eq!(model.shape("f16").expect("a constant"), [1, 3]);
        assert_eq!(floats("empty"), [0.0; 0]);
        assert_eq!(floats("bool"), [1.0, 0.0, 1.0]);
        assert_eq!(floats("u8"), [-1.0, 2.0]);
        assert_eq!(floats("u16"), [0.0, 127.0]);
        let integers = |name: &str| model.integers(name);
        assert_eq!(integers("i32").expect("int32"), [-7]);
        // 1.5 and 3.5, rounded away from zero.
        assert_eq!(integers("whole").expect("int32"), [2, 4]);
        assert!(integers("f32").is_err() && integers("u8").is_err());
        assert!(model.floats("absent").is_err() && model.node("absent").is_err());
        assert_eq!(model.node("f32").expect("a node").op, "Const");
    }

    #[test]
    fn damaged_models_are_refused() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 16] = [
            (
                |json| json["format"] = json!("layers-model"),
                "has the format \"layers-model\"",
            ),
            (|json| json["modelTopology"] = json!(3), "is no graph model"),
            (
                |json| json["weightsManifest"] = Value::Null,
                "is no graph model",
            ),
            (
                |json| {
                    let node = json!({"name": "f32", "op": "Add"});
                    json["modelTopology"]["node"]
                        .as_array_mut()
                        .expect("nodes")
                        .push(node);
                },
                "f32: is defined twice",
            ),
            (
                |json| json["weightsManifest"][0]["paths"][0] = json!("../a.bin"),
                "names the shard \"../a.bin\", which is not the name of a file",
            ),
            (
                |json| json["weightsManifest"][0]["paths"][0] = json!("/etc/passwd"),
                "is not the name of a file",
            ),
            (
                |json| json["weightsManifest"][0]["paths"][0] = json!(".."),
                "is not the name",
            ),
            (
                |json| json["weightsManifest"][0]["paths"][0] = json!(""),
                "is not the name",
            ),
            (
                |json| json["weightsManifest"][1]["paths"][0] = json!("a.bin"),
                "names the shard a.bin twice",
            ),
            (
                |json| json["weightsManifest"][1]["paths"] = json!([]),
                "has 0 bytes",
            ),
            (
                |json| json["weightsManifest"][0]["weights"][0]["shape"] = json!([3]),
                "has 18 bytes, the tensors of",
            ),
            (
                |json| json["weightsManifest"][0]["weights"][0]["shape"] = json!([u64::MAX, 2]),
                "f32: has the shape",
            ),
            (
                |json| json["weightsManifest"][0]["weights"][0]["shape"] = json!(vec![1; 9]),
                "f32: has more than 8 axes",
            ),
            (
                |json| json["weightsManifest"][0]["weights"][0]["dtype"] = json!("string"),
                "f32: has the unsupported dtype string",
            ),
            (
                |json| {
                    json["weightsManifest"][1]["weights"][1]["quantization"]["scale"] = Value::Null
                },
                "u8: is quantized to uint8 without scale and min",
            ),
            (
                |json| json["weightsManifest"][1]["weights"][0]["name"] = json!("f32"),
                "f32: is listed twice",
            ),
        ];
        for (change, message) in cases {
            let fault = Files::error(change);
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }

    #[test]
    fn missing_cut_and_long_shards_are_refused() {
        let files = Files::new();
        let path = files.folder.path().join("c.bin");
        let whole = std::fs::read(&path).expect("a shard");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("a writable folder");
            let fault = files.open().expect_err("a cut shard").to_string();
            assert!(fault.contains(&format!("has {length} bytes")), "{fault}");
        }
        std::fs::write(&path, [&whole[..], &[0]].concat()).expect("a writable folder");
        let fault = files.open().expect_err("a long shard").to_string();
        assert!(fault.contains("c.bin: has 12 bytes"), "{fault}");
        std::fs::remove_file(&path).expect("the shard");
        let fault = files.open().expect_err("a missing shard");
        assert_eq!(fault.code, ErrorCode::NotFound);
        assert!(GraphModel::open(Path::new("no/such.json")).is_err());
    }
}
