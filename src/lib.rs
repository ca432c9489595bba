//! ChatRex: chat about a picture with a model that points at boxes.
//!
//! The crate is a building; a floor may name the floors below it and never the ones above
//! (`tests/floors.rs` holds this).
//!
//! | floor | modules |
//! |---|---|
//! | plain data | [`geometry`], [`fault`], [`fit`], [`progress`], [`image`], [`text`], [`generate`], [`protocol`], [`chat`] |
//! | bytes | [`weights`] |
//! | the GPU | `kernel` |
//! | layers | `nn` |
//! | networks | `model` |
//! | product | `engine` |
//! | workshop | `parity`; native `scenes`, `train`, `eval`, `convert` |
//! | program (native) | `command` |

pub mod chat;
pub mod device_preference;
pub mod error;
pub mod generate;
pub mod geometry;
pub mod image;
pub mod memory;
pub mod progress;
pub mod protocol;
pub mod text;

#[cfg(feature = "engine")]
pub mod cpu;
#[cfg(feature = "diagnostics")]
pub mod diagnostics;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "engine")]
pub mod gpu;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "engine")]
pub mod nn;
#[cfg(feature = "engine")]
pub mod weights;

#[cfg(feature = "native")]
pub mod cli;
#[cfg(feature = "native")]
pub mod convert;
#[cfg(feature = "native")]
pub mod eval;
#[cfg(feature = "native")]
pub mod files;
#[cfg(feature = "native")]
pub mod scenes;
#[cfg(feature = "native")]
pub mod session;
#[cfg(feature = "native")]
pub mod train;
