//! Words in and words out: prompt layout, tokenizer, answer grammar.

pub mod grammar;
pub mod prompt;
#[cfg(feature = "engine")]
pub mod tokenizer;
