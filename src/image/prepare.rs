//! Preprocessing: from 8-bit pixels to the planar f32 values that a network reads, and boxes to the
//! same coordinates. A recipe is data that is stored in the manifest.

use serde::{Deserialize, Serialize};

use super::Pixels;
use super::resize::{Canvas, Filter, resize};
use crate::geometry::BoxXyxy;

/// A preprocessed image.
#[derive(Clone, Debug, PartialEq)]
pub struct Planar {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[3, height, width]`, normalized.
    pub values: Vec<f32>,
}

impl Planar {
    /// `(value / 255 - mean) / std` per channel, in f32.
    pub(super) fn normalized(pixels: &Pixels, mean: [f32; 3], std: [f32; 3]) -> Self {
        let mut values = Vec::with_capacity(pixels.rgb.len());
        for channel in 0..3 {
            let levels: Vec<f32> = (0..=255_u8)
                .map(|level| (f32::from(level) / 255.0 - mean[channel]) / std[channel])
                .collect();
            let bytes = pixels.rgb.iter().skip(channel).step_by(3);
            values.extend(bytes.map(|&level| levels[usize::from(level)]));
        }
        Self {
            width: pixels.width as usize,
            height: pixels.height as usize,
            values,
        }
    }

    /// Bilinear interpolation to `side` x `side`, pixel centers at half-integers, without
    /// antialiasing (`docs/reference/chatrex.md`, section 2.1, step 5).
    fn interpolated(&self, side: usize) -> Self {
        let columns = neighbors(self.width, side);
        let rows = neighbors(self.height, side);
        let mut values = Vec::with_capacity(3 * side * side);
        for plane in self.values.chunks_exact(self.width * self.height) {
            for &(y0, y1, fy) in &rows {
                let upper = &plane[y0 * self.width..][..self.width];
                let lower = &plane[y1 * self.width..][..self.width];
                values.extend(columns.iter().map(|&(x0, x1, fx)| {
                    let across = |row: &[f32]| row[x0] * (1.0 - fx) + row[x1] * fx;
                    across(upper) * (1.0 - fy) + across(lower) * fy
                }));
            }
        }
        Self {
            width: side,
            height: side,
            values,
        }
    }
}

/// For each of `to` positions: its two neighbors among `from` positions, and the weight of the
/// second.
fn neighbors(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|position| {
            let source = ((position as f32 + 0.5) * scale - 0.5).max(0.0);
            let first = (source as usize).min(from - 1);
            (first, (first + 1).min(from - 1), source - first as f32)
        })
        .collect()
}

/// The recipe of the ChatRex family (`docs/reference/chatrex.md`, section 2): pad to a square, resize
/// to the high resolution, interpolate the low resolution from that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SquareRecipe {
    /// Side of the high-resolution image in pixels.
    pub high: u32,
    /// Side of the low-resolution image in pixels.
    pub low: u32,
    /// Color of the padding.
    pub background: [u8; 3],
    /// Mean per channel, for values in 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, for values in 0 to 1.
    pub std: [f32; 3],
    /// Round boxes to f16, as the scripts of RexSeek do.
    #[serde(default)]
    pub half_boxes: bool,
}

impl SquareRecipe {
    /// ChatRex-7B: sides 768 and 336, normalized as for CLIP.
    pub const CHATREX: Self = Self {
        high: 768,
        low: 336,
        background: [122, 116, 104],
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        half_boxes: false,
    };

    /// The picture padded to a square and resized to the high resolution.
    pub fn resized(&self, pixels: &Pixels) -> Pixels {
        let canvas = Canvas::square(pixels, self.background);
        resize(&canvas, self.high, self.high, Filter::Bicubic)
    }

    /// The high-resolution and the low-resolution image.
    pub fn prepare(&self, pixels: &Pixels) -> (Planar, Planar) {
        let high = Planar::normalized(&self.resized(pixels), self.mean, self.std);
        let low = high.interpolated(self.low as usize);
        (high, low)
    }

    /// Boxes in pixels of a `width` x `height` picture to pixels of the high-resolution image
    /// (`docs/reference/chatrex.md`, section 2.2), without clipping.
    pub fn boxes(&self, width: u32, height: u32, boxes: &[BoxXyxy]) -> Vec<BoxXyxy> {
        boxes
            .iter()
            .map(|&b| self.box_to_high(width, height, <[f32; 4]>::from(b).map(f64::from)))
            .collect()
    }

    /// [`SquareRecipe::boxes`] for one box `x1, y1, x2, y2`. The order of operations is that of the
    /// original: width and height in the precision of the input, the rest in f32.
    pub fn box_to_high(&self, width: u32, height: u32, [x1, y1, x2, y2]: [f64; 4]) -> BoxXyxy {
        let [mut x, mut y, w, h] = [x1, y1, x2 - x1, y2 - y1].map(|value| value as f32);
        if height >= width {
            x += ((height - width) / 2) as f32;
        } else {
            y += ((width - height) / 2) as f32;
        }
        let scale = (f64::from(self.high) / f64::from(width.max(height))) as f32;
        let [x, y, w, h] = [x, y, w, h].map(|value| value * scale);
        let bbox = [x, y, x + w, y + h].into();
        if self.half_boxes {
            round_to_f16(bbox)
        } else {
            bbox
        }
    }
}

/// The recipe of UPN (`docs/reference/upn.md`, section 2): resize the shorter side to `size`, or to
/// less if the longer side would exceed `max`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShortSideRecipe {
    /// Shorter side in pixels.
    pub size: u32,
    /// Limit of the longer side in pixels.
    pub max: u32,
    /// Mean per channel, for values in 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, for values in 0 to 1.
    pub std: [f32; 3],
}

impl ShortSideRecipe {
    /// UPN-Large: 800, at most 1333, normalized as for ImageNet.
    pub const UPN: Self = Self {
        size: 800,
        max: 1333,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// The picture resized to [`ShortSideRecipe::target`].
    pub fn resized(&self, pixels: &Pixels) -> Pixels {
        let (width, height) = self.target(pixels.width, pixels.height);
        resize(&Canvas::plain(pixels), width, height, Filter::Bilinear)
    }

    /// The preprocessed image.
    pub fn prepare(&self, pixels: &Pixels) -> Planar {
        Planar::normalized(&self.resized(pixels), self.mean, self.std)
    }

    /// Width and height after resizing. If the rule of the original gives a side of 0 (aspect ratios
    /// beyond `2 * max`), that side is 1 and the other at most `max`.
    pub fn target(&self, width: u32, height: u32) -> (u32, u32) {
        let (short, long) = (width.min(height), width.max(height));
        let mut size = self.size;
        if f64::from(long) / f64::from(short) * f64::from(size) > f64::from(self.max) {
            let product = u64::from(self.max) * u64::from(short);
            size = (product as f64 / f64::from(long)).round_ties_even() as u32;
        }
        if size == short {
            return (width, height);
        }
        let other = if size == 0 {
            self.max
        } else {
            ((u64::from(size) * u64::from(long)) as f64 / f64::from(short)) as u32
        };
        let size = size.max(1);
        if width < height {
            (size, other)
        } else {
            (other, size)
        }
    }
}

/// The box with its corners rounded to f16, as in the scripts of RexSeek
/// (`docs/reference/chatrex.md`, section 2.2): steps of 1/4 pixel from 256 on, 1/2 pixel from 512 on.
pub fn round_to_f16(b: BoxXyxy) -> BoxXyxy {
    <[f32; 4]>::from(b).map(to_f16_and_back).into()
}

/// The f16 value nearest to `value`, as f32; ties to even, infinite from 65520 on.
fn to_f16_and_back(value: f32) -> f32 {
    if !value.is_finite() {
        return value;
    }
    // Spacing of f16 at this magnitude: 10 bits below the leading one, not below 2^-24.
    let exponent = (value.to_bits() >> 23 & 0xff) as i32 - 127;
    let spacing = f64::from((exponent - 10).max(-24)).exp2();
    let rounded = ((f64::from(value) / spacing).round_ties_even() * spacing) as f32;
    if rounded.abs() > 65504.0 {
        f32::INFINITY.copysign(value)
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: u32, height: u32) -> Pixels {
        let rgb = vec![90; (width * height * 3) as usize];
        Pixels::new(width, height, rgb).expect("a small picture")
    }

    #[test]
    fn extreme_aspect_ratios_are_preprocessed() {
        for (width, height) in [(1, 1), (20_000, 10), (10, 20_000), (20_000, 1), (2, 1)] {
            let pixels = gray(width, height);
            let (high, low) = SquareRecipe::CHATREX.prepare(&pixels);
            assert_eq!((high.width, high.height), (768, 768));
            assert_eq!(low.values.len(), 3 * 336 * 336);
            let upn = ShortSideRecipe::UPN.prepare(&pixels);
            assert_eq!(upn.values.len(), 3 * upn.width * upn.height);
            assert!(upn.width.min(upn.height) >= 1 && upn.width.max(upn.height) <= 2666);
        }
    }

    #[test]
    fn virtual_padding_resamples_like_stored_padding() {
        let rgb = (0..37 * 61 * 3).map(|i| (i * 73 % 251) as u8).collect();
        let pixels = Pixels::new(37, 61, rgb).expect("a small picture");
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for side in [20, 61, 97] {
                let canvas = Canvas::square(&pixels, [1, 2, 3]);
                let stored = canvas.to_pixels();
                assert_eq!(
                    resize(&canvas, side, side, filter),
                    resize(&Canvas::plain(&stored), side, side, filter)
                );
            }
        }
    }

    #[test]
    fn values_round_to_f16() {
        for (value, expected) in [
            (300.1, 300.0),
            (300.125, 300.0),
            (300.376, 300.5),
            (700.25, 700.0),
            (-0.1, -0.099_975_586),
            (65519.0, 65504.0),
            (65520.0, f32::INFINITY),
            (2e-8, 0.0),
            (0.0, 0.0),
        ] {
            assert_eq!(to_f16_and_back(value), expected, "{value}");
        }
    }
}
