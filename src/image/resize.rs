//! Resampling of 8-bit pictures that equals Pillow's to the bit (`Resample.c`): two separable
//! passes, horizontal first, each with 22-bit fixed-point weights, rounded and clamped to 8 bits.
//!
//! The source is a [`Canvas`], a picture with an optional border that is never stored: a
//! 20000 x 10 picture on its square would need 1.2 GB.

use super::Pixels;

/// The resampling filters of Pillow that the original models use, antialiased when shrinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle, support 1.
    Bilinear,
    /// Keys with a = -0.5, support 2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// A picture, alone or on a background of one colour.
#[derive(Clone, Copy, Debug)]
pub struct Canvas<'a> {
    pixels: &'a Pixels,
    width: usize,
    height: usize,
    left: usize,
    top: usize,
    background: [u8; 3],
}

impl<'a> Canvas<'a> {
    /// The picture alone.
    pub fn plain(pixels: &'a Pixels) -> Self {
        Self {
            pixels,
            width: pixels.width as usize,
            height: pixels.height as usize,
            left: 0,
            top: 0,
            background: [0; 3],
        }
    }

    /// The picture in the middle of the smallest square that holds it; with an odd difference the
    /// extra row or column is at the bottom or right (`chatrex.md` 2.1, step 2).
    pub fn square(pixels: &'a Pixels, background: [u8; 3]) -> Self {
        let (width, height) = (pixels.width as usize, pixels.height as usize);
        let side = width.max(height);
        Self {
            pixels,
            width: side,
            height: side,
            left: (side - width) / 2,
            top: (side - height) / 2,
            background,
        }
    }

    /// The picture with its background stored.
    pub fn to_pixels(&self) -> Pixels {
        let mut rgb = vec![0; self.width * self.height * 3];
        for (y, row) in rgb.chunks_exact_mut(self.width * 3).enumerate() {
            self.write_row(y, row);
        }
        Pixels {
            width: self.width as u32,
            height: self.height as u32,
            rgb,
        }
    }

    /// The rows that hold the picture; all others are background.
    fn picture_rows(&self) -> std::ops::Range<usize> {
        self.top..self.top + self.pixels.height as usize
    }

    fn write_row(&self, y: usize, row: &mut [u8]) {
        for pixel in row.chunks_exact_mut(3) {
            pixel.copy_from_slice(&self.background);
        }
        if self.picture_rows().contains(&y) {
            let length = self.pixels.width as usize * 3;
            let source = (y - self.top) * length;
            row[self.left * 3..self.left * 3 + length]
                .copy_from_slice(&self.pixels.rgb[source..source + length]);
        }
    }
}

/// Resamples to `width` x `height` (both at least 1). As in Pillow, a pass that would not change
/// the extent is left out.
pub fn resize(canvas: &Canvas, width: u32, height: u32, filter: Filter) -> Pixels {
    assert!(width > 0 && height > 0, "resize: to at least one pixel");
    assert!(
        canvas.width > 0 && canvas.height > 0,
        "resize: from at least one pixel"
    );
    let (width, height) = (width as usize, height as usize);
    let columns = (width != canvas.width).then(|| Taps::new(canvas.width, width, filter));

    // Rows after the horizontal pass; one background row, the last, stands for all of them.
    let picture = canvas.picture_rows();
    let mut narrow = vec![0; (picture.len() + 1) * width * 3];
    let mut wide = vec![0; canvas.width * 3];
    for (position, row) in narrow.chunks_exact_mut(width * 3).enumerate() {
        let y = if position < picture.len() {
            picture.start + position
        } else {
            canvas.height
        };
        match &columns {
            None => canvas.write_row(y, row),
            Some(taps) => {
                canvas.write_row(y, &mut wide);
                taps.horizontal(&wide, row);
            }
        }
    }
    let row_at = |y: usize| {
        let position = if picture.contains(&y) {
            y - picture.start
        } else {
            picture.len()
        };
        &narrow[position * width * 3..(position + 1) * width * 3]
    };

    let mut rgb = vec![0; width * height * 3];
    let rows = (height != canvas.height).then(|| Taps::new(canvas.height, height, filter));
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        match &rows {
            None => row.copy_from_slice(row_at(y)),
            Some(taps) => taps.vertical(y, row_at, row),
        }
    }
    Pixels {
        width: width as u32,
        height: height as u32,
        rgb,
    }
}

/// Bits after the point of a weight.
const PRECISION: u32 = 32 - 8 - 2;

/// For each output position: the first source position, and the weights from there on.
struct Taps(Vec<(usize, Vec<i32>)>);

impl Taps {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let tap = |position: usize| {
            let centre = (position as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weights: Vec<f64> = (first..end)
                .map(|x| filter.weight((x as f64 - centre + 0.5) * (1.0 / stretch)))
                .collect();
            let sum: f64 = weights.iter().sum();
            let fixed = weights
                .iter()
                .map(|&weight| {
                    let weight = if sum == 0.0 { weight } else { weight / sum };
                    (weight * f64::from(1 << PRECISION)).round() as i32
                })
                .collect();
            (first, fixed)
        };
        Self((0..to).map(tap).collect())
    }

    fn horizontal(&self, source: &[u8], target: &mut [u8]) {
        for (pixel, (first, weights)) in target.chunks_exact_mut(3).zip(&self.0) {
            let mut sums = [1 << (PRECISION - 1); 3];
            let taken = source[first * 3..].chunks_exact(3);
            for (rgb, &weight) in taken.zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(rgb) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (value, sum) in pixel.iter_mut().zip(sums) {
                *value = clamped(sum);
            }
        }
    }

    fn vertical<'a>(&self, y: usize, row_at: impl Fn(usize) -> &'a [u8], target: &mut [u8]) {
        let (first, weights) = &self.0[y];
        let mut sums = vec![1_i32 << (PRECISION - 1); target.len()];
        for (offset, &weight) in weights.iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(row_at(first + offset)) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, sum) in target.iter_mut().zip(sums) {
            *value = clamped(sum);
        }
    }
}

fn clamped(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
