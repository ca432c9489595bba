//! Layers that several networks share, and loading of their weights.

pub mod chunked;
pub mod linear;
pub mod loader;
pub mod norm;
pub mod pool;
pub mod weight;
pub mod weight_map;

pub use linear::{Conv2d, Linear};
pub use loader::{Init, Loader, WeightSource};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use weight::Weight;
pub use weight_map::WeightMap;
