//! A small model for tests: one shard per part.

use std::collections::BTreeMap;

use serde_json::json;

use super::dtype::DType;
use super::manifest::{
    Defaults, FileEntry, Licence, Manifest, Part, Provenance, Shard, TensorEntry, VERSION,
    sha256_hex,
};

/// The smallest piece that a manifest allows.
pub const PIECE: u64 = 1 << 16;

/// Part, name, type, shape and bytes of a tensor.
pub type SampleTensor<'a> = (Part, &'a str, DType, &'a [usize], Vec<u8>);

/// A manifest and the bytes of its shards.
pub struct Sample {
    pub manifest: Manifest,
    pub shards: BTreeMap<String, Vec<u8>>,
}

impl Sample {
    /// A model of these tensors.
    pub fn new(tensors: &[SampleTensor]) -> Self {
        let mut entries = BTreeMap::new();
        let mut shards = Vec::new();
        let mut files = BTreeMap::new();
        for part in Part::ALL {
            let file = format!("{part:?}.safetensors").to_lowercase();
            let own: Vec<_> = tensors.iter().filter(|tensor| tensor.0 == part).collect();
            if own.is_empty() {
                continue;
            }
            let mut header = serde_json::Map::new();
            let mut at = 0;
            for (_, name, dtype, shape, bytes) in &own {
                let end = at + bytes.len();
                header.insert(
                    (*name).into(),
                    json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}),
                );
                at = end;
            }
            let mut text = serde_json::to_vec(&header).expect("plain data");
            text.resize(text.len().next_multiple_of(8), b' ');
            let mut file_bytes = (text.len() as u64).to_le_bytes().to_vec();
            file_bytes.extend(text);
            for (_, name, dtype, shape, bytes) in &own {
                let entry = TensorEntry {
                    shard: file.clone(),
                    offset: file_bytes.len() as u64,
                    dtype: *dtype,
                    shape: shape.to_vec(),
                };
                entries.insert((*name).to_string(), entry);
                file_bytes.extend(bytes);
            }
            shards.push(Shard {
                name: file.clone(),
                part,
                bytes: file_bytes.len() as u64,
                sha256: sha256_hex(&file_bytes),
                pieces: file_bytes.chunks(PIECE as usize).map(sha256_hex).collect(),
            });
            files.insert(file, file_bytes);
        }
        let manifest = Manifest {
            version: VERSION,
            name: "sample".into(),
            family: "chatrex".into(),
            config: json!({}),
            defaults: Defaults {
                score: 0.3,
                nms: 0.8,
                first_of_kind: None,
                max_tokens: 512,
                repetition_penalty: 1.0,
                multi_turn: false,
            },
            precision: "f32".into(),
            tokenizer: FileEntry::describe("tokenizer.json", b"{}"),
            piece_bytes: PIECE,
            shards,
            tensors: entries,
            licence: Licence {
                name: "MIT".into(),
                text: String::new(),
                parts: Vec::new(),
            },
            provenance: Provenance {
                trained_on: String::new(),
                commands: Vec::new(),
                knows: None,
            },
            self_test: None,
        };
        Self {
            manifest,
            shards: files,
        }
    }

    /// Two parts of f32 tensors that span several pieces.
    pub fn floats() -> Self {
        let wave = |count: usize, step: f32| {
            (0..count)
                .flat_map(|i| (i as f32 * step).to_le_bytes())
                .collect::<Vec<u8>>()
        };
        Self::new(&[
            (Part::Upn, "a", DType::F32, &[3], wave(3, 1.0)),
            (Part::Upn, "b", DType::F32, &[100, 500], wave(50_000, 0.25)),
            (Part::Upn, "c", DType::F32, &[2, 2], wave(4, 2.0)),
            (Part::Decoder, "d", DType::F32, &[40_001], wave(40_001, 0.5)),
            (Part::Decoder, "e", DType::F32, &[7], wave(7, 3.0)),
        ])
    }
}
