//! `model.json`, the manifest of a model folder.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::dtype::DType;
use crate::error::Fault;
pub use crate::licence::{Licence, PartLicence};

/// The manifest version that this program writes and reads.
pub const VERSION: u32 = 2;

/// The name of the manifest in a model folder.
pub const MANIFEST: &str = "model.json";

/// The most bytes of a manifest.
pub const MAX_MANIFEST: u64 = 32 << 20;

/// The most bytes of a tokenizer.
pub const MAX_TOKENIZER: u64 = 64 << 20;

/// The most bytes of a stored tensor; converters split larger ones by rows.
pub const MAX_TENSOR: u64 = 256 << 20;

/// Allowed lengths of a piece in bytes.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 1 << 16..=16 << 20;

/// The contents of `model.json`; `docs/format.md` describes it for other programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Short name shown to users, e.g. `nano`.
    pub name: String,
    /// The combination of parts, e.g. `chatrex`.
    pub family: String,
    /// The configuration of the family; parsed by `engine`.
    pub config: serde_json::Value,
    /// Initial settings of a user interface.
    pub defaults: Defaults,
    /// How weights are stored, for users, e.g. `q4, groups of 32`.
    pub precision: String,
    /// The tokenizer file.
    pub tokenizer: FileEntry,
    /// Length of a piece; the last one of a shard is shorter.
    pub piece_bytes: u64,
    /// Safetensors shards, in load order.
    pub shards: Vec<Shard>,
    /// Every tensor of every shard, without padding.
    pub tensors: BTreeMap<String, TensorEntry>,
    /// Name and text of the licence of the weights.
    pub licence: Licence,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// What a device must compute before it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
}

/// Initial settings of a user interface.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Boxes below this score are dropped.
    pub score: f32,
    /// IoU threshold of non-maximum suppression; 0 or less keeps all boxes.
    pub nms: f64,
    /// The best box of a kind is kept from this score, if no box of the kind has `score`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_of_kind: Option<f32>,
    /// Answers end after this many tokens.
    pub max_tokens: u32,
    /// Repetition penalty; 1 is none.
    #[serde(default = "no_penalty", skip_serializing_if = "is_no_penalty")]
    pub repetition_penalty: f32,
    /// Whether the model was trained on several questions about the same boxes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub multi_turn: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn no_penalty() -> f32 {
    1.0
}

fn is_no_penalty(penalty: &f32) -> bool {
    *penalty == 1.0
}

/// A file of a model.
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

/// A safetensors file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Name inside the folder; no path.
    pub name: String,
    /// The part of the model that all its tensors belong to.
    pub part: Part,
    /// Length.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// SHA-256 of every piece, in order.
    pub pieces: Vec<String>,
}

/// A part of a model that can be on the device without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The proposal network.
    Upn,
    /// Both vision towers and the projectors.
    Towers,
    /// The decoder.
    Decoder,
}

impl Part {
    /// All, in load order.
    pub const ALL: [Self; 3] = [Self::Upn, Self::Towers, Self::Decoder];
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// The shard that holds it.
    pub shard: String,
    /// Its first byte, counted from the beginning of the file.
    pub offset: u64,
    /// Type of its elements.
    pub dtype: DType,
    /// Sizes, outermost axis first.
    pub shape: Vec<usize>,
}

impl TensorEntry {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length in bytes; `None` where it does not fit 64 bits.
    pub fn bytes(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(self.dtype.bytes(), |bytes, &size| {
                bytes.checked_mul(size as u64)
            })
    }
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// What the model was trained on, in a sentence.
    pub trained_on: String,
    /// The commands that made the weights, in order.
    pub commands: Vec<String>,
    /// What the model knows, in a sentence for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knows: Option<String>,
}

/// A fixed input of the decoder's first block and its expected output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// Rows of the input.
    pub rows: usize,
    /// The first outputs of the last row.
    pub expected: Vec<f32>,
    /// Largest allowed difference of an output.
    pub tolerance: f32,
}

impl Manifest {
    /// Reads a manifest found at `place`.
    ///
    /// # Errors
    /// Not JSON, another version, a missing or unknown field, a file name that leaves the folder,
    /// a tensor outside its shard or over another one, a shard without a hash for every piece.
    pub fn parse(json: &[u8], place: &str) -> Result<Self, Fault> {
        let value: serde_json::Value = serde_json::from_slice(json).map_err(|error| {
            let html = json.trim_ascii_start().starts_with(b"<");
            let what = if html {
                "is a web page, not JSON".into()
            } else {
                format!("is not JSON ({error})")
            };
            Fault::model(place, what)
        })?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or("no version".into(), |v| format!("version {v}"));
            return Err(Fault::new(
                crate::error::FaultKind::Model,
                place,
                format!("has {found}; this program reads version {VERSION}"),
                "Update the program, or convert the model again",
            )
            .code(crate::error::ErrorCode::Unsupported));
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|error| Fault::model(place, format!("does not fit its format: {error}")))?;
        manifest
            .check()
            .map_err(|what| Fault::model(place, what))
            .map(|()| manifest)
    }

    fn check(&self) -> Result<(), String> {
        if !PIECE_BYTES.contains(&self.piece_bytes) || !self.piece_bytes.is_multiple_of(4) {
            return Err(format!("has pieces of {} bytes", self.piece_bytes));
        }
        let names = self.shards.iter().map(|shard| &shard.name);
        let mut seen = BTreeSet::from([MANIFEST]);
        for name in names.chain([&self.tokenizer.name]) {
            let plain = !name.is_empty()
                && !name.starts_with('.')
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            if !plain {
                return Err(format!(
                    "names the file {name:?}, which is not a plain name"
                ));
            }
            if !seen.insert(name) {
                return Err(format!("names the file {name} twice"));
            }
        }
        if self.tokenizer.bytes > MAX_TOKENIZER {
            return Err(format!("has a tokenizer of {} bytes", self.tokenizer.bytes));
        }
        for shard in &self.shards {
            let pieces = shard.bytes.div_ceil(self.piece_bytes);
            if shard.pieces.len() as u64 != pieces {
                let found = shard.pieces.len();
                return Err(format!(
                    "has {found} hashes for the {pieces} pieces of {}",
                    shard.name
                ));
            }
        }
        self.check_tensors()
    }

    fn check_tensors(&self) -> Result<(), String> {
        for shard in &self.shards {
            let mut end = (0, "the header");
            for (name, tensor) in self.in_shard(&shard.name) {
                if tensor.offset < end.0 {
                    return Err(format!("puts tensor {name} over {}", end.1));
                }
                let after = tensor
                    .bytes()
                    .and_then(|bytes| tensor.offset.checked_add(bytes));
                match after {
                    Some(after) if after <= shard.bytes => end = (after, name),
                    _ => {
                        return Err(format!(
                            "puts tensor {name} beyond the end of {}",
                            shard.name
                        ));
                    }
                }
                if tensor.bytes() == Some(0) || tensor.bytes() > Some(MAX_TENSOR) {
                    return Err(format!("gives tensor {name} the shape {:?}", tensor.shape));
                }
                if !tensor.offset.is_multiple_of(4) {
                    return Err(format!(
                        "puts tensor {name} at the odd byte {}",
                        tensor.offset
                    ));
                }
            }
        }
        let known: BTreeSet<&str> = self
            .shards
            .iter()
            .map(|shard| shard.name.as_str())
            .collect();
        match self
            .tensors
            .iter()
            .find(|(_, tensor)| !known.contains(tensor.shard.as_str()))
        {
            Some((name, tensor)) => Err(format!(
                "puts tensor {name} in {}, which is no shard",
                tensor.shard
            )),
            None => Ok(()),
        }
    }

    /// The tensors of a shard, in the order of their bytes.
    pub fn in_shard(&self, shard: &str) -> Vec<(&str, &TensorEntry)> {
        let mut tensors: Vec<(&str, &TensorEntry)> = self
            .tensors
            .iter()
            .filter(|(_, tensor)| tensor.shard == shard)
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        tensors.sort_by_key(|(_, tensor)| tensor.offset);
        tensors
    }

    /// Bytes of all shards and the tokenizer.
    pub fn bytes(&self) -> u64 {
        self.tokenizer.bytes + self.shards.iter().map(|shard| shard.bytes).sum::<u64>()
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

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::weights::sample::Sample;

    #[test]
    fn a_manifest_round_trips_through_json() {
        let manifest = Sample::floats().manifest;
        let json = serde_json::to_vec(&manifest).expect("plain data");
        assert_eq!(Manifest::parse(&json, MANIFEST), Ok(manifest));
    }

    #[test]
    fn inconsistent_manifests_are_refused() {
        type Change = fn(&mut Manifest);
        let cases: [(Change, &str); 12] = [
            (
                |m| m.version = VERSION + 1,
                "has version 3; this program reads version 2",
            ),
            (
                |m| m.shards[0].name = "../upn.safetensors".into(),
                "not a plain name",
            ),
            (
                |m| m.tokenizer.name = "/etc/passwd".into(),
                "not a plain name",
            ),
            (|m| m.tokenizer.name = "upn.safetensors".into(), "twice"),
            (|m| m.tokenizer.name = MANIFEST.into(), "twice"),
            (|m| m.piece_bytes = 12, "pieces of 12 bytes"),
            (|m| drop(m.shards[0].pieces.pop()), "hashes for the"),
            (|m| change(m, "b", |t| t.offset = 4), "tensor a over b"),
            (
                |m| change(m, "b", |t| t.shape = vec![1 << 40, 1 << 40]),
                "tensor b beyond the end",
            ),
            (
                |m| change(m, "e", |t| t.offset = u64::MAX - 3),
                "tensor e beyond the end",
            ),
            (
                |m| change(m, "e", |t| t.shape = vec![0]),
                "tensor e the shape [0]",
            ),
            (
                |m| change(m, "e", |t| t.shard = "x".into()),
                "tensor e in x, which is no shard",
            ),
        ];
        for (damage, message) in cases {
            let mut manifest = Sample::floats().manifest;
            damage(&mut manifest);
            let json = serde_json::to_vec(&manifest).expect("plain data");
            let fault = Manifest::parse(&json, MANIFEST)
                .expect_err(message)
                .to_string();
            assert!(fault.contains(message), "{message}: {fault}");
        }
        let html = Manifest::parse(b"  <!doctype html>", "m").expect_err("html");
        assert!(html.what.contains("web page"), "{html}");
        assert!(Manifest::parse(b"{}", "m").is_err());
    }

    fn change(manifest: &mut Manifest, tensor: &str, how: fn(&mut TensorEntry)) {
        how(manifest
            .tensors
            .get_mut(tensor)
            .expect("a tensor of the sample"));
    }

    #[test]
    fn files_are_checked() {
        let entry = FileEntry::describe("a", b"abc");
        assert_eq!(entry.check(b"abc"), Ok(()));
        assert!(
            entry
                .check(b"abd")
                .expect_err("one bit")
                .what
                .contains("damaged")
        );
        assert!(
            entry
                .check(b"ab")
                .expect_err("short")
                .what
                .contains("2 bytes instead of 3")
        );
    }
}
