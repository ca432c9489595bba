//! Words in and words out: prompt layout, tokenizer, answer grammar.

pub mod answer_parser;
pub mod prompt;
#[cfg(feature = "engine")]
pub mod tokenizer;
