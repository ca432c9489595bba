//! ChatRex: ask questions about an image; the answer points at boxes.
//!
//! A detector (UPN) proposes boxes, every box becomes a token, and the language model answers in text
//! and box indices ([ChatRex](https://arxiv.org/abs/2411.18363)). This crate is the inference engine of the
//! page, the worker and the native program `chatrex`: it loads a model folder, runs on a GPU through
//! wgpu or on the CPU, and streams the answer.
//!
//! # Example
//!
//! Two models are compiled into the crate: `mini` knows 80 kinds of things in photographs, `nano` knows
//! drawn stickers.
//!
//! ```
//! use chatrex::{DevicePreference, Model, Session, image};
//!
//! # fn main() -> Result<(), chatrex::Fault> {
//! let mut session = Session::open(Model::Nano, DevicePreference::Cpu)?;
//! let pixels = image::decode::open("web/static/samples/scene.png".as_ref())?;
//! let proposals = session.look(pixels)?;
//! let boxes: Vec<_> = proposals
//!     .iter()
//!     .filter(|proposal| proposal.score > 0.5)
//!     .map(|proposal| proposal.bbox)
//!     .collect();
//! let answer = session.ask("What is <obj0>?", &boxes, |spans| println!("{spans:?}"))?;
//! for span in &answer.spans {
//!     println!("{} {:?}", span.text, span.objects);
//! }
//! # assert!(!boxes.is_empty() && !answer.text.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` has the same as programs, and a host with files and a clock of its own.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `native` (default) | files, the facade [`Session`], training, conversion, evaluation, the command line |
//! | `engine` | networks, kernels and the engine, for a host of your own |
//! | `diagnostics` | parity, benchmarks, kernel sweeps (part of `native`) |
//! | `worker` | the engine in a browser's dedicated worker |
//! | `page` | the leptos page, without the engine |
//!
//! # What is untrusted
//!
//! Pictures, model folders, checkpoints, the network, the GPU and the model's output. Weights are
//! hashed before use; pickles are parsed, never executed; sizes are checked before memory is allocated;
//! a device must pass the model's self-test; model output that is malformed becomes plain text. Every
//! such failure is a [`Fault`] with an [`ErrorCode`], a place and advice. A broken promise between the
//! crate's own functions is a panic. `docs/security.md` has the details.
//!
//! # Modules
//!
//! `ARCHITECTURE.md` has the table of floors that `tests/floors.rs` enforces. Only what is re-exported
//! here, [`image`], [`geometry`], [`closer_look`], [`protocol`] and [`engine`] are meant for other programs; other modules
//! may change without notice.

#[doc(hidden)]
pub mod built_in;
#[doc(hidden)]
pub mod chat;
pub mod closer_look;
#[doc(hidden)]
pub mod device_preference;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod generate;
pub mod geometry;
#[doc(hidden)]
pub mod hardware;
pub mod image;
#[doc(hidden)]
pub mod licence;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod progress;
pub mod protocol;
#[doc(hidden)]
pub mod simd;
#[doc(hidden)]
pub mod text;

#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod cpu;
#[cfg(feature = "diagnostics")]
#[doc(hidden)]
pub mod diagnostics;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod gpu;
#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod model;
#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod nn;
#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod weights;

#[cfg(feature = "native")]
#[doc(hidden)]
pub mod batch;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod cli;
#[cfg(any(feature = "native", feature = "worker"))]
#[doc(hidden)]
pub mod convert;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod dialogues;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod eval;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod files;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod scenes;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod server;
#[cfg(feature = "native")]
pub mod session;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod train;

pub use error::{ErrorCode, Fault};
pub use geometry::{BoxXyxy, Granularity, Proposal};
pub use image::Pixels;
pub use protocol::{Answer, DevicePreference, LoadOptions, ModelCard, Question};
#[cfg(feature = "native")]
pub use session::{Model, Session, SessionOptions, StopHandle};
pub use text::answer_parser::Span;
