//! Layers that several networks share, and how a network is filled with weights.

pub mod linear;
pub mod load;
pub mod matrix;
pub mod norm;
pub mod portions;
pub mod stored;

pub use linear::{Conv2d, Linear};
pub use load::{Init, Loader, ParameterSource};
pub use matrix::Matrix;
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use stored::StoredWeights;
