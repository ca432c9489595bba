//! The spots where stock tensor operations are not enough: one file per operation.

pub mod deform_attention;
pub mod depthwise;
pub mod gelu;
pub mod host;
mod processor;
pub mod roi_pool;
