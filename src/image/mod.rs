//! Pictures as data: 8-bit pixels, resampling and the preprocessing recipes.

pub mod resize;

use serde::{Deserialize, Serialize};

/// An 8-bit RGB picture, row-major, EXIF rotation already applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pixels {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes. Travels beside the message in the page, hence not in the JSON.
    #[serde(skip)]
    pub rgb: Vec<u8>,
}
