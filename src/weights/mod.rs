//! Weight files: a manifest, safetensors shards, and pieces with a hash each.
//!
//! A model is a folder (or base URL) with `model.json`, the tokenizer and safetensors shards.
//! No byte is used before its SHA-256 agrees with the manifest, and a model is never in
//! memory as a whole.

pub mod download;
pub mod dtype;
pub mod manifest;
pub mod quant;
pub mod safetensors;
#[cfg(all(test, feature = "native"))]
pub(crate) mod sample;
pub mod source;
pub mod storage;

pub use dtype::DType;
pub use manifest::Manifest;
pub use quant::QuantScheme;
pub use source::ByteSource;
pub use storage::WeightFormat;
