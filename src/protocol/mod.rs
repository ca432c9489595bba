//! Messages between a client (page, terminal, evaluation) and the engine or the model store.

pub mod client;
pub mod engine;
pub mod envelope;
pub mod store;

pub use client::Client;
pub use engine::*;
pub use envelope::Envelope;
