//! Many pictures with one model (`chatrex batch`): lists of pictures, questions, results that survive a kill, and
//! files for other programs. `docs/reference/interfaces.md` section 7 describes the files.
//!
//! 1. [`inputs`] and [`questions`] say what is asked about which picture.
//! 2. [`ahead`] reads, decodes and preprocesses pictures on other threads, within limits.
//! 3. [`together`] runs the vision networks on the next pictures in one batch.
//! 4. [`run`] asks the engine on the calling thread; pictures with equal files are computed once.
//! 5. [`store`] appends each result as a line, and finds out what is missing when a batch is run again.
//! 6. [`tables`] writes Parquet, COCO and Label Studio files from the lines.

pub mod ahead;
pub mod inputs;
mod pattern;
pub mod questions;
pub mod record;
mod run;
pub mod shard;
pub mod store;
pub mod tables;
mod together;

#[cfg(test)]
mod tests;

pub use run::{Job, Progress, Summary, run};
