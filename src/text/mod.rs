//! Text in and out: prompt layout, tokenizer, answer parser.

pub mod answer_parser;
pub mod kinds;
pub mod prompt;
#[cfg(feature = "engine")]
pub mod tokenizer;
