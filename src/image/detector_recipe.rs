//! Preprocessing of a detector, and the way back of its boxes.
//!
//! All arithmetic on sizes is in integers, and on boxes in single IEEE operations of f32, so results
//! are the same on every platform.

use serde::{Deserialize, Serialize};

use super::Pixels;
use super::prepare::Planar;
use super::resize::{Canvas, Filter, resize};
use crate::geometry::BoxXyxy;

/// Resize and normalize.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorRecipe {
    /// Longer side of the input in pixels.
    pub side: usize,
    /// Keep the aspect ratio: the longer side becomes `side`, and both ends of the shorter one are padded
    /// with the mean color to the next quarter of `side`, rounded up to a multiple of `multiple`. So inputs
    /// have at most seven sizes; pipelines of burn's operations depend on the size. Otherwise both sides
    /// become `side`.
    pub letterbox: bool,
    /// Both sides of the input are multiples of this; `side` is one.
    pub multiple: usize,
    /// Mean per channel, for values in 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, for values in 0 to 1.
    pub std: [f32; 3],
}

/// The place of the resized picture in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    /// Width and height of the input.
    input: [usize; 2],
}

impl DetectorRecipe {
    /// NanoDet-g: 416 pixels, mean and deviation of ImageNet.
    pub const NANODET: Self = Self {
        side: 416,
        letterbox: true,
        multiple: 32,
        mean: [123.675 / 255.0, 116.28 / 255.0, 103.53 / 255.0],
        std: [58.395 / 255.0, 57.12 / 255.0, 57.375 / 255.0],
    };

    /// The normalized input, `[3, H, W]`; padding is 0, the mean.
    pub fn prepare(&self, pixels: &Pixels) -> Planar {
        let frame = self.frame(pixels.width, pixels.height);
        let (width, height) = (frame.width as u32, frame.height as u32);
        let small = resize(&Canvas::plain(pixels), width, height, Filter::Bilinear);
        let small = Planar::normalized(&small, self.mean, self.std);
        let [width, height] = frame.input;
        if [small.width, small.height] == frame.input {
            return small;
        }
        let mut values = vec![0.0; 3 * width * height];
        let planes = values.chunks_exact_mut(width * height);
        let sources = small.values.chunks_exact(frame.width * frame.height);
        for (plane, source) in planes.zip(sources) {
            let rows = plane.chunks_exact_mut(width).skip(frame.top);
            for (row, source) in rows.zip(source.chunks_exact(frame.width)) {
                row[frame.left..frame.left + frame.width].copy_from_slice(source);
            }
        }
        Planar {
            width,
            height,
            values,
        }
    }

    /// A box in pixels of the input to pixels of a `width` x `height` picture, clipped to the picture.
    pub fn to_picture(&self, width: u32, height: u32, input: BoxXyxy) -> BoxXyxy {
        let frame = self.frame(width, height);
        let axis = |value: f32, start: usize, size: usize, picture: u32| {
            let picture = picture as f32;
            ((value - start as f32) * (picture / size as f32)).clamp(0.0, picture)
        };
        let x = |value| axis(value, frame.left, frame.width, width);
        let y = |value| axis(value, frame.top, frame.height, height);
        [x(input.x1), y(input.y1), x(input.x2), y(input.y2)].into()
    }

    /// Where a `width` x `height` picture lies in the input.
    fn frame(&self, width: u32, height: u32) -> Frame {
        assert!(width > 0 && height > 0, "a picture has at least one pixel");
        let side = self.side;
        if !self.letterbox {
            return Frame {
                left: 0,
                top: 0,
                width: side,
                height: side,
                input: [side; 2],
            };
        }
        let longer = u64::from(width.max(height));
        // `length * side / longer`, rounded half up.
        let scaled = |length: u32| {
            let twice = 2 * u64::from(length) * side as u64;
            (((twice + longer) / (2 * longer)) as usize).clamp(1, side)
        };
        let (width, height) = (scaled(width), scaled(height));
        let quarter = side.div_ceil(4).next_multiple_of(self.multiple);
        let input = [width, height].map(|length| length.next_multiple_of(quarter).min(side));
        Frame {
            left: (input[0] - width) / 2,
            top: (input[1] - height) / 2,
            width,
            height,
            input,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: DetectorRecipe = DetectorRecipe {
        letterbox: false,
        ..DetectorRecipe::NANODET
    };

    #[test]
    fn pictures_lie_in_the_middle_and_boxes_find_back() {
        let recipe = DetectorRecipe::NANODET;
        for (size, frame) in [
            ((640, 480), [0, 36, 416, 312]),
            ((480, 640), [36, 0, 312, 416]),
            ((416, 416), [0, 0, 416, 416]),
            ((500, 490), [0, 4, 416, 408]),
            ((100, 33), [0, 59, 416, 137]),
            ((20_000, 10), [0, 63, 416, 1]),
            ((1, 64_000_000), [63, 0, 1, 416]),
        ] {
            let found = recipe.frame(size.0, size.1);
            assert!(
                found
                    .input
                    .iter()
                    .all(|length| length % 32 == 0 && *length <= 416)
            );
            let found = [found.left, found.top, found.width, found.height];
            assert_eq!(found, frame, "{size:?}");
            let corners = [frame[0], frame[1], frame[0] + frame[2], frame[1] + frame[3]];
            let whole = corners.map(|corner| corner as f32);
            let back: [f32; 4] = recipe.to_picture(size.0, size.1, whole.into()).into();
            let expected = [0.0, 0.0, size.0 as f32, size.1 as f32];
            for (value, expected) in back.iter().zip(expected) {
                assert!((value - expected).abs() <= expected * 1e-6, "{back:?}");
            }
        }
        let outside = [-30.0, 10.0, 500.0, 410.0].into();
        let back = recipe.to_picture(640, 480, outside);
        assert_eq!(back, [0.0, 0.0, 640.0, 480.0].into());
        let back = STRETCH.to_picture(832, 208, [104.0, 104.0, 208.0, 416.0].into());
        assert_eq!(back, [208.0, 52.0, 416.0, 208.0].into());
    }

    #[test]
    fn padding_is_zero_and_the_picture_is_normalized() {
        let pixels = Pixels::new(64, 32, [255, 0, 128].repeat(64 * 32)).expect("a picture");
        let input = DetectorRecipe::NANODET.prepare(&pixels);
        assert_eq!((input.width, input.height), (416, 256));
        assert_eq!(input.values.len(), 3 * 416 * 256);
        let expected = [
            (255.0 - 123.675) / 58.395,
            (0.0 - 116.28) / 57.12,
            (128.0 - 103.53) / 57.375,
        ];
        for (plane, expected) in input.values.chunks_exact(416 * 256).zip(expected) {
            for (y, row) in plane.chunks_exact(416).enumerate() {
                let value = if (24..232).contains(&y) {
                    expected
                } else {
                    0.0
                };
                let near = |&found: &f32| (found - value).abs() < 1e-5;
                assert!(row.iter().all(near), "row {y}: {} {value}", row[0]);
            }
        }
        let stretched = STRETCH.prepare(&pixels);
        assert!((stretched.values[0] - expected[0]).abs() < 1e-5);
    }
}
