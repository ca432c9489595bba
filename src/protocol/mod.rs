//! Messages between a front (page, terminal, evaluation) and the engine or the model store.

pub mod engine;
pub mod store;

pub use engine::*;
