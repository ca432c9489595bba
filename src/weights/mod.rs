//! Weight files: a manifest, safetensors shards, pieces with a hash each.
//!
//! A model is a folder (or base address) with `model.json`, the tokenizer and safetensors shards.
//! Nothing is used before its SHA-256 agrees with the manifest, and a model is never held in
//! memory as a whole.

pub mod download;
pub mod manifest;
pub mod quant;
pub mod safetensors;
#[cfg(all(test, feature = "native"))]
pub(crate) mod sample;
pub mod source;
pub mod storage;

pub use manifest::Manifest;
pub use source::ByteSource;
