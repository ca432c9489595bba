//! Attention kernels: the towers' encoder, Swin's windows, and the decoder's prefill and decode.

pub mod decoder;
pub mod encoder;
pub mod window;
