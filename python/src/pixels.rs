//! Decoded pictures.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use chatrex::Fault;
use chatrex::image::decode as files;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::fault::{invalid, or_raise};

/// A decoded picture: 8-bit RGB, rows from the top. `look` and `examine` of an `Engine` take its bytes, once.
#[pyclass(frozen)]
pub struct Pixels {
    /// Columns.
    #[pyo3(get)]
    width: u32,
    /// Rows.
    #[pyo3(get)]
    height: u32,
    pixels: Mutex<Option<chatrex::Pixels>>,
}

impl Pixels {
    fn new(pixels: chatrex::Pixels) -> Self {
        Self {
            width: pixels.width,
            height: pixels.height,
            pixels: Mutex::new(Some(pixels)),
        }
    }

    /// Takes the bytes.
    ///
    /// # Errors
    /// They were taken before.
    pub fn take(&self) -> Result<chatrex::Pixels, Fault> {
        let mut pixels = self.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        pixels
            .take()
            .ok_or_else(|| invalid("picture", "was used before", "Decode it again"))
    }
}

fn computed(
    py: Python<'_>,
    work: impl FnOnce() -> Result<chatrex::Pixels, Fault> + Send,
) -> PyResult<Pixels> {
    or_raise(py, py.detach(work)).map(Pixels::new)
}

/// Reads and decodes a JPEG, PNG or WebP file; applies its EXIF orientation.
///
/// # Errors
/// The file cannot be read or decoded.
#[pyfunction]
pub fn open(py: Python<'_>, path: PathBuf) -> PyResult<Pixels> {
    computed(py, move || files::open(&path))
}

/// Decodes a JPEG, PNG or WebP file in memory; applies its EXIF orientation.
///
/// # Errors
/// It cannot be decoded.
#[pyfunction]
pub fn decode(py: Python<'_>, data: PyBackedBytes) -> PyResult<Pixels> {
    computed(py, move || files::decode(&data))
}

/// A picture of `height * width * 3` bytes.
///
/// # Errors
/// Another number of bytes, no pixels or too many.
#[pyfunction]
pub fn from_rgb(py: Python<'_>, width: u32, height: u32, data: PyBackedBytes) -> PyResult<Pixels> {
    computed(py, move || {
        chatrex::Pixels::new(width, height, data.to_vec())
    })
}

/// A picture of `height * width * 4` bytes, blended with white.
///
/// # Errors
/// Another number of bytes, no pixels or too many.
#[pyfunction]
pub fn from_rgba(py: Python<'_>, width: u32, height: u32, data: PyBackedBytes) -> PyResult<Pixels> {
    computed(py, move || chatrex::Pixels::from_rgba(width, height, &data))
}
