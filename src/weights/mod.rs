//! Weight files: a manifest, safetensors shards, exact lookup by name.
//!
//! A model is a folder (or base address) with `model.json`, the tokenizer and safetensors shards.
//! Nothing is used before its length and SHA-256 agree with the manifest.

pub mod format;
pub mod source;
pub mod store;

pub use format::Manifest;
pub use source::ByteSource;
pub use store::WeightStore;
