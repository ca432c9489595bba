//! Layers that several networks share, and how a network is filled with weights.

pub mod linear;
pub mod load;
pub mod norm;

pub use linear::{Conv2d, Linear};
pub use load::{Init, Loader, ParameterSource};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
