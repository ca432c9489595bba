//! Images as data: 8-bit pixels, resampling and preprocessing.

#[cfg(feature = "native")]
pub mod annotate;
#[cfg(feature = "native")]
pub mod decode;
pub mod detector_recipe;
pub mod jpeg;
pub mod prepare;
pub mod resize;
pub mod webp;

use crate::error::{Fault, FaultKind};

/// An 8-bit RGB picture, row-major, EXIF rotation already applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Pixels {
    /// Pictures with more pixels are rejected.
    pub const LIMIT: u64 = 64_000_000;

    /// A picture from `height * width * 3` bytes.
    ///
    /// # Errors
    /// No pixels, more than [`Pixels::LIMIT`], or another number of bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, Fault> {
        let pixels = Self { width, height, rgb };
        pixels.check()?;
        Ok(pixels)
    }

    /// A picture from `height * width * 4` bytes of RGBA, blended with white.
    ///
    /// # Errors
    /// As for [`Pixels::new`].
    pub fn from_rgba(width: u32, height: u32, rgba: &[u8]) -> Result<Self, Fault> {
        check_size(width, height)?;
        check_bytes(width, height, 4, rgba.len())?;
        let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
        for &[r, g, b, alpha] in rgba.as_chunks::<4>().0 {
            rgb.extend([r, g, b].map(|value| blend_with_white(value, alpha)));
        }
        Self::new(width, height, rgb)
    }

    /// The part `[left, top, right, bottom]`, in pixels; the last two are exclusive.
    ///
    /// # Errors
    /// It has no pixel.
    ///
    /// # Panics
    /// It reaches beyond the picture.
    pub fn crop(&self, [left, top, right, bottom]: [u32; 4]) -> Result<Self, Fault> {
        let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
        check_size(width, height)?;
        let rows = self.rgb.chunks_exact(3 * self.width as usize);
        let rows = rows.skip(top as usize).take(height as usize);
        let columns = 3 * left as usize..3 * right as usize;
        let rgb = rows.flat_map(|row| &row[columns.clone()]).copied();
        Self::new(width, height, rgb.collect())
    }

    /// A deterministic picture for warmup and measurements: sine waves of three lengths, and edges.
    ///
    /// # Panics
    /// The size is not that of a picture; see [`check_size`].
    pub fn test_pattern(width: u32, height: u32) -> Self {
        let rgb = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| {
                let edge = if (x / 97 + y / 61) % 2 == 0 {
                    40.0
                } else {
                    0.0
                };
                let (x, y) = (x as f32, y as f32);
                [(0.031, 0.017), (0.11, 0.05), (0.007, 0.23)].map(|(a, b)| {
                    (110.0 + edge + 90.0 * (x * a + y * b).sin()).clamp(0.0, 255.0) as u8
                })
            })
            .collect();
        Self::new(width, height, rgb).expect("a test pattern has the size of a picture")
    }

    /// Checks a picture from outside the program.
    ///
    /// # Errors
    /// No pixels, more than [`Pixels::LIMIT`], or another number of bytes.
    pub fn check(&self) -> Result<(), Fault> {
        check_size(self.width, self.height)?;
        check_bytes(self.width, self.height, 3, self.rgb.len())
    }
}

/// Checks the size of a picture; call it before allocating memory for the pixels.
///
/// # Errors
/// No pixels, or more than [`Pixels::LIMIT`].
pub fn check_size(width: u32, height: u32) -> Result<(), Fault> {
    let count = u64::from(width) * u64::from(height);
    if count == 0 {
        return Err(fault(
            format!("has {width} x {height} pixels"),
            "Choose another picture",
        ));
    }
    if count > Pixels::LIMIT {
        return Err(fault(
            format!(
                "has {width} x {height} pixels ({} megapixels), the limit is {} megapixels",
                megapixels(count),
                megapixels(Pixels::LIMIT)
            ),
            "Scale it down and try again",
        ));
    }
    Ok(())
}

/// Megapixels without digits behind the point, unless they would look like the limit.
fn megapixels(count: u64) -> String {
    let million = count as f64 / 1e6;
    match count / 1_000_000 == Pixels::LIMIT / 1_000_000 && count != Pixels::LIMIT {
        true => format!("{million:.6}").trim_end_matches('0').to_owned(),
        false => format!("{million:.0}"),
    }
}

fn check_bytes(width: u32, height: u32, per_pixel: u64, bytes: usize) -> Result<(), Fault> {
    let expected = u64::from(width) * u64::from(height) * per_pixel;
    if bytes as u64 == expected {
        return Ok(());
    }
    Err(fault(
        format!("has {bytes} bytes for {width} x {height} pixels, expected {expected}"),
        "",
    ))
}

/// `value * alpha + 255 * (1 - alpha)`, rounded to nearest.
fn blend_with_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn fault(what: String, advice: &str) -> Fault {
    Fault::new(FaultKind::Picture, "picture", what, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_picture_does_not_look_like_the_limit() {
        let what = |width, height| check_size(width, height).expect_err("too large").what;
        let limit = "the limit is 64 megapixels";
        assert!(check_size(8000, 8000).is_ok());
        for (width, height, size) in [
            (8001, 8000, "(64.008 megapixels)"),
            (1, 64_000_001, "(64.000001 megapixels)"),
            (10_000, 10_000, "(100 megapixels)"),
        ] {
            let what = what(width, height);
            assert!(what.contains(size) && what.contains(limit), "{what}");
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Pixels::new(1, 1, vec![0; 3]).is_ok());
        assert!(Pixels::new(20_000, 10, vec![0; 600_000]).is_ok());
        assert!(Pixels::new(0, 7, vec![]).is_err());
        assert!(Pixels::new(2, 2, vec![0; 11]).is_err());
        let huge = Pixels::new(10_000, 10_000, vec![]).expect_err("100 megapixels");
        assert!(huge.what.contains("100 megapixels"), "{huge}");
        assert!(Pixels::from_rgba(2, 1, &[0; 7]).is_err());
    }

    #[test]
    fn transparency_is_blended_with_white() {
        let pixels = Pixels::from_rgba(3, 1, &[10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128])
            .expect("three pixels");
        assert_eq!(pixels.rgb, [10, 20, 30, 255, 255, 255, 127, 127, 127]);
    }
}
