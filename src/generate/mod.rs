//! The choice of the next token and the end of an answer: token ids and logits only, no text, no
//! network.

pub mod constraint;
pub mod sampling;
pub mod stop;
