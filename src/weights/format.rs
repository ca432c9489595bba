//! `model.json`: what a model folder holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// The manifest version this program writes and reads.
pub const VERSION: u32 = 1;

/// The name of the manifest in a model folder.
pub const MANIFEST: &str = "model.json";

/// The contents of `model.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Short name shown to people, e.g. `nano`.
    pub name: String,
    /// Network family, e.g. `chatrex`.
    pub family: String,
    /// The family's own configuration; read by `model`.
    pub config: serde_json::Value,
    /// Defaults a front starts with.
    pub defaults: Defaults,
    /// The tokenizer file.
    pub tokenizer: FileEntry,
    /// Safetensors shards, in load order.
    pub shards: Vec<FileEntry>,
    /// Every tensor of every shard.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// Name and text of the licence of the weights.
    pub licence: Licence,
    /// Where the weights come from.
    pub provenance: Provenance,
}

/// Defaults a front starts with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Boxes below this score are left out.
    pub score: f32,
    /// Boxes overlapping a better one by more than this IoU are left out; 0 or less keeps all.
    pub nms: f64,
    /// Answers are cut after this many tokens.
    pub max_tokens: u32,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name inside the folder; no path.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// The shard that holds it.
    pub shard: String,
    /// Safetensors' name of the element type, e.g. `F16`.
    pub dtype: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// A licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX expression or common name.
    pub name: String,
    /// Text or notice shown to people.
    pub text: String,
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// What the model was trained on, in a sentence.
    pub trained_on: String,
    /// The commands that made the weights, in order.
    pub commands: Vec<String>,
}

impl Manifest {
    /// Reads a manifest found at `place`.
    ///
    /// # Errors
    /// Not JSON, an unknown version, a missing or unknown field, a file name that leaves the
    /// folder, a tensor in a shard that is not listed.
    pub fn parse(json: &[u8], place: &str) -> Result<Self, Fault> {
        let value: serde_json::Value = serde_json::from_slice(json)
            .map_err(|error| Fault::model(place, format!("is not JSON ({error})")))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or("no version".into(), |v| format!("version {v}"));
            return Err(Fault::new(
                crate::fault::FaultKind::Model,
                place,
                format!("has {found}; this program reads version {VERSION}"),
                "Update the program, or convert the model again",
            ));
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|error| Fault::model(place, format!("does not fit its format: {error}")))?;
        for file in manifest.shards.iter().chain([&manifest.tokenizer]) {
            let plain = !file.name.is_empty()
                && !file.name.starts_with('.')
                && file
                    .name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            if !plain {
                return Err(Fault::model(
                    place,
                    format!("names the file {:?}, which is not a plain name", file.name),
                ));
            }
        }
        for (name, tensor) in &manifest.tensors {
            if !manifest.shards.iter().any(|s| s.name == tensor.shard) {
                return Err(Fault::model(
                    place,
                    format!("puts tensor {name} in {}, which is no shard", tensor.shard),
                ));
            }
        }
        Ok(manifest)
    }
}

impl FileEntry {
    /// Describes `bytes` under `name`.
    pub fn describe(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.len() as u64,
            sha256: sha256_hex(bytes),
        }
    }

    /// Checks length and SHA-256 of `bytes`.
    ///
    /// # Errors
    /// One of them differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() as u64 != self.bytes {
            return Err(Fault::model(
                &self.name,
                format!("has {} bytes instead of {}", bytes.len(), self.bytes),
            ));
        }
        let found = sha256_hex(bytes);
        if found != self.sha256 {
            return Err(Fault::model(
                &self.name,
                format!("is damaged: SHA-256 {found} instead of {}", self.sha256),
            ));
        }
        Ok(())
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
