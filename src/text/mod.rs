//! Words in and words out: prompt layout, tokenizer, answer grammar.

pub mod grammar;
