//! Resampling of 8-bit images, bit-equal to Pillow (`Resample.c`): two separable passes, horizontal
//! first, each with 22-bit fixed-point weights, rounded and clamped to 8 bits.
//!
//! The source is a [`Canvas`], an image with virtual padding: a 20000 x 10 image padded to a square
//! would take 1.2 GB.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::Pixels;
use crate::simd::{for_each_chunk, vectorized};

/// Bytes behind the last pixel of a row of the source: pixels are read two at a time, as 8 bytes.
const PADDING: usize = 5;

/// Values of a row that the vertical pass sums in registers.
const RUN: usize = 32;

/// The resampling filters of Pillow that the original models use; antialiased when downsampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle, support 1.
    Bilinear,
    /// Cubic convolution of Keys with a = -0.5, support 2.
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

/// An image, with or without padding of one color.
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
    /// The image without padding.
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

    /// The image centered in the smallest square around it; with an odd difference, the extra row or
    /// column of padding is at the bottom or right (`docs/reference/chatrex.md`, section 2.1, step 2).
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

    /// The image with its padding stored.
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

    /// The rows of the image; all others are padding.
    fn picture_rows(&self) -> std::ops::Range<usize> {
        self.top..self.top + self.pixels.height as usize
    }

    fn write_row(&self, y: usize, row: &mut [u8]) {
        let length = self.pixels.width as usize * 3;
        let picture = match self.picture_rows().contains(&y) {
            true => &self.pixels.rgb[(y - self.top) * length..][..length],
            false => &[],
        };
        let (left, row) = row.split_at_mut(self.left * 3);
        let (middle, right) = row.split_at_mut(picture.len());
        middle.copy_from_slice(picture);
        for padding in [left, right] {
            for pixel in padding.chunks_exact_mut(3) {
                pixel.copy_from_slice(&self.background);
            }
        }
    }
}

/// Resamples to `width` x `height` (both at least 1). As in Pillow, a pass that would not change the
/// size is skipped.
pub fn resize(canvas: &Canvas, width: u32, height: u32, filter: Filter) -> Pixels {
    assert!(
        width > 0 && height > 0,
        "resize: the target has at least one pixel"
    );
    assert!(
        canvas.width > 0 && canvas.height > 0,
        "resize: the source has at least one pixel"
    );
    let (width, height) = (width as usize, height as usize);
    let columns = (width != canvas.width).then(|| Columns::new(canvas.width, width, filter));

    // Rows after the horizontal pass; the last one stands for all rows of padding.
    let picture = canvas.picture_rows();
    let mut resized_rows = vec![0; (picture.len() + 1) * width * 3];
    for_each_chunk(&mut resized_rows, width * 3, |position, row| {
        let y = if position < picture.len() {
            picture.start + position
        } else {
            canvas.height
        };
        match &columns {
            None => canvas.write_row(y, row),
            Some(columns) => {
                let mut source_row = vec![0; canvas.width * 3 + PADDING];
                canvas.write_row(y, &mut source_row[..canvas.width * 3]);
                columns.resample(&source_row, row);
            }
        }
    });
    let row_at = |y: usize| {
        let position = if picture.contains(&y) {
            y - picture.start
        } else {
            picture.len()
        };
        &resized_rows[position * width * 3..(position + 1) * width * 3]
    };

    let mut rgb = vec![0; width * height * 3];
    let rows = (height != canvas.height).then(|| Taps::new(canvas.height, height, filter));
    for_each_chunk(&mut rgb, width * 3, |y, row| match &rows {
        None => row.copy_from_slice(row_at(y)),
        Some(taps) => {
            let (first, weights) = &taps.0[y];
            let sources: Vec<&[u8]> = (*first..first + weights.len()).map(row_at).collect();
            vertical(weights, &sources, row);
        }
    });
    Pixels {
        width: width as u32,
        height: height as u32,
        rgb,
    }
}

/// Fractional bits of a weight.
const PRECISION: u32 = 32 - 8 - 2;

/// For each output position: the first source position, and the weights from there.
struct Taps(Vec<(usize, Vec<i32>)>);

impl Taps {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let tap = |position: usize| {
            let center = (position as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weights: Vec<f64> = (first..end)
                .map(|x| filter.weight((x as f64 - center + 0.5) * (1.0 / filter_scale)))
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
}

/// The weights of the horizontal pass.
struct Columns {
    taps: Taps,
    #[cfg(target_arch = "x86_64")]
    pairs: Option<avx2::PairTaps>,
}

impl Columns {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let taps = Taps::new(from, to, filter);
        Self {
            #[cfg(target_arch = "x86_64")]
            pairs: avx2::PairTaps::new(&taps),
            taps,
        }
    }

    /// Resamples a row; [`PADDING`] bytes follow the last pixel of `source`.
    fn resample(&self, source: &[u8], target: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(pairs) = &self.pairs {
            return pairs.resample(source, target);
        }
        horizontal(&self.taps.0, source, target);
    }
}

vectorized! {
    /// Resamples a row.
    fn horizontal(taps: &[(usize, Vec<i32>)], source: &[u8], target: &mut [u8]) {
        let (pixels, _) = source.as_chunks::<3>();
        for (target, (first, weights)) in target.as_chunks_mut::<3>().0.iter_mut().zip(taps) {
            let mut sums = [1 << (PRECISION - 1); 3];
            for (pixel, &weight) in pixels[*first..].iter().zip(weights) {
                add(&mut sums, pixel, weight);
            }
            *target = sums.map(clamped);
        }
    }
}

vectorized! {
    /// The weighted sum of rows.
    fn vertical(weights: &[i32], sources: &[&[u8]], target: &mut [u8]) {
        let mut at = 0;
        let (runs, rest) = target.as_chunks_mut::<RUN>();
        for run in runs {
            let mut sums = [1 << (PRECISION - 1); RUN];
            for (source, &weight) in sources.iter().zip(weights) {
                if let Some(values) = source[at..].first_chunk() {
                    add(&mut sums, values, weight);
                }
            }
            *run = sums.map(clamped);
            at += RUN;
        }
        for value in rest {
            let mut sum = 1 << (PRECISION - 1);
            for (source, &weight) in sources.iter().zip(weights) {
                sum += i32::from(source[at]) * weight;
            }
            *value = clamped(sum);
            at += 1;
        }
    }
}

/// Adds `values * weight`.
#[inline(always)]
fn add<const N: usize>(sums: &mut [i32; N], values: &[u8; N], weight: i32) {
    for lane in 0..N {
        sums[lane] += i32::from(values[lane]) * weight;
    }
}

#[inline(always)]
fn clamped(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::simd::tests::with_each_instruction_set;

    #[test]
    fn every_instruction_set_gives_the_same_bytes() {
        let mut state = 7_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Many black and white values: the cubic filter overshoots beside them.
            ((state >> 24) as i32 * 2 - 128).clamp(0, 255) as u8
        };
        for (width, height) in [(1, 1), (2, 3), (31, 17), (64, 5)] {
            let rgb = (0..width * height * 3).map(|_| byte()).collect();
            let pixels = Pixels { width, height, rgb };
            let canvases = [
                Canvas::plain(&pixels),
                Canvas::square(&pixels, [3, 250, 90]),
            ];
            for canvas in canvases {
                for filter in [Filter::Bilinear, Filter::Bicubic] {
                    for (width, height) in [(1, 1), (7, 9), (40, 33), (width + 1, height)] {
                        let mut plain = None;
                        with_each_instruction_set(|set| {
                            let resized = resize(&canvas, width, height, filter);
                            let plain = plain.get_or_insert_with(|| resized.clone());
                            assert_eq!(*plain, resized, "{set:?} {filter:?} to {width} x {height}");
                        });
                    }
                }
            }
        }
    }
}
