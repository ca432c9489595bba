//! Operations with hand-written CPU loops and gradients, beside their tensor-operation references,
//! and products with packed weights.

pub mod cached_attention;
pub mod conv2d;
pub mod cross_entropy;
pub mod gelu;
pub mod op;
pub mod packed_matrix;
pub mod quick_gelu;
pub mod softmax;
pub mod tensor_ops;
mod tiles;
pub mod varlen_attention;
