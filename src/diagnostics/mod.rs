//! Checks and measurements of the engine: feature `diagnostics`, which the shipped worker lacks.

pub mod bench;
pub mod compare;
pub mod parity;
pub(crate) mod random_weights;
