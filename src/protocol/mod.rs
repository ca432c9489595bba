//! Messages between a client (page, terminal, evaluation) and the engine or the model store.

pub mod engine;
pub mod envelope;
pub mod store;

pub use engine::*;
pub use envelope::Envelope;
