//! Original checkpoints, as their authors published them, read as plain data.
//!
//! A checkpoint is a file of somebody else: nothing in it is believed before it was checked, and
//! nothing it asks to run is run.

pub mod checkpoint;
pub mod pickle;
pub mod pth;
pub mod sentencepiece;
pub mod tokenizer;
