//! Checks and measurements of the engine. The shipped page has none of this (feature `diagnostics`).

pub mod bench;
pub mod compare;
pub mod parity;
pub(crate) mod random_weights;
