//! Operations with hand-written CPU loops and gradients, beside their tensor-operation references.

pub mod cross_entropy;
pub mod gelu;
pub mod op;
pub(crate) mod simd;
pub mod varlen_attention;
