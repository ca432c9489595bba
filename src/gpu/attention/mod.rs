//! Attention kernels: vision encoders, Swin windows, and prefill and decode of the language model.
//!
//! [`encoder`], [`window`] and [`prefill`] compute 32 query rows per workgroup by online softmax,
//! without a matrix of scores (`shaders/shared/flash.wgsl`). [`decode`] computes one row,
//! split over the KV cache (split-KV). [`rope`] applies rotary embedding and appends to the cache.

pub mod decode;
pub mod encoder;
pub mod kv_cache;
pub mod prefill;
pub mod rope;
#[cfg(feature = "diagnostics")]
mod testing;
pub mod window;

pub use decode::attention_decode;
pub use kv_cache::{AttentionShape, KvLayer, RopeTable};
pub use prefill::{attention_prefill, supports_head_dim};
pub use rope::{Qkv, kv_append, rope_kv_append};

/// Query rows per workgroup of `shaders/shared/flash.wgsl`.
const TILE_ROWS: u32 = 32;

/// Keys per step of `shaders/shared/flash.wgsl`.
const TILE_KEYS: u32 = 32;

/// The number of tiles of [`TILE_ROWS`] that hold `rows` rows.
fn row_tiles(rows: usize) -> usize {
    rows.div_ceil(TILE_ROWS as usize)
}
