//! Sampling of the next token, constrained decoding, and the end of an answer: token ids and logits
//! only, no text, no network.

pub mod constraint;
pub mod sampling;
pub mod stop;
