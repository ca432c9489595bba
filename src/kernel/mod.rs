//! The spots where stock tensor operations are not enough: one file per operation.

pub mod depthwise;
pub mod gelu;
mod processor;
pub mod roi_pool;
