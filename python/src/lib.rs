//! The native half of the Python package `chatrex`: pictures, and a [`Session`](chatrex::Session) on a thread of
//! its own.
//!
//! `python/chatrex/__init__.py` is the interface for users. Structured values cross the border as JSON text, with
//! the keys of `docs/reference/interfaces.md`; faults become `chatrex.Error` in `fault`.

mod engine;
mod fault;
mod pixels;
mod plan;
mod proposals;
mod stream;
mod worker;

/// The engine of the package `chatrex`. Use the package: this module has no stable interface.
#[pyo3::pymodule(gil_used = false)]
mod _chatrex {
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::pixels::{Pixels, decode, from_rgb, from_rgba, open};
    #[pymodule_export]
    use super::plan::check_task;
    #[pymodule_export]
    use super::proposals::Proposals;
    #[pymodule_export]
    use super::stream::Stream;

    /// The version of the engine.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    /// The most boxes of a question.
    #[pymodule_export]
    const MAX_BOXES: usize = chatrex::text::prompt::MAX_BOXES;
    /// The built-in model that is used where none is named.
    #[pymodule_export]
    const DEFAULT_MODEL: &str = chatrex::session::DEFAULT_MODEL;
}
