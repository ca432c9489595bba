//! The filter of pictures with little content before a plain background.
//!
//! The data engine of Rexverse leaves such pictures out with a trained classifier that is not published
//! (`docs/reference/training.md` section 1). Here a measure of the colors decides: the background of a picture is plain
//! if almost all of its border has one color, and its share are the pixels of that color.

use crate::image::Pixels;

/// Width of the border as a part of the shorter side.
const BORDER: u32 = 50;
/// The largest difference of a channel, of 255, at which two colors are one: noise of JPEG, not shades.
const SAME_COLOR: u8 = 12;
/// Share of the border that has one color before a plain background.
const PLAIN_BORDER: f64 = 0.95;

/// The share of a plain background, 0 to 1; `None` if the background is not plain.
pub(super) fn plain_share(pixels: &Pixels) -> Option<f64> {
    let border = border(pixels);
    let color = median(&border);
    let near = |pixel: &&[u8; 3]| {
        let channels = pixel.iter().zip(&color);
        channels
            .into_iter()
            .all(|(a, b)| a.abs_diff(*b) <= SAME_COLOR)
    };
    let share = |near: usize, of: usize| near as f64 / of as f64;
    let near_border = border.iter().filter(near).count();
    if share(near_border, border.len()) < PLAIN_BORDER {
        return None;
    }
    let all = pixels.rgb.as_chunks::<3>().0;
    Some(share(all.iter().filter(near).count(), all.len()))
}

/// The pixels of the border; at least one.
fn border(pixels: &Pixels) -> Vec<[u8; 3]> {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let depth = (pixels.width.min(pixels.height) / BORDER).max(1) as usize;
    let rows = pixels.rgb.as_chunks::<3>().0.chunks_exact(width);
    let inner = depth..width.saturating_sub(depth).max(depth);
    let of_row = |(y, row): (usize, &[[u8; 3]])| {
        if y < depth || y + depth >= height {
            return row.to_vec();
        }
        let (left, right) = (&row[..inner.start], &row[inner.end..]);
        [left, right].concat()
    };
    rows.enumerate().flat_map(of_row).collect()
}

/// The median of each channel.
fn median(pixels: &[[u8; 3]]) -> [u8; 3] {
    std::array::from_fn(|channel| {
        let mut counts = [0_usize; 256];
        for pixel in pixels {
            counts[usize::from(pixel[channel])] += 1;
        }
        let mut left = pixels.len() / 2;
        let is_median = |&count: &usize| match left.checked_sub(count) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        };
        counts.iter().position(is_median).unwrap_or(255) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose pixel at `(x, y)` is `color(x, y)`.
    fn picture(width: u32, height: u32, color: impl Fn(u32, u32) -> [u8; 3]) -> Pixels {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let rgb = places.flat_map(|(x, y)| color(x, y)).collect();
        Pixels::new(width, height, rgb).expect("a picture")
    }

    /// A thing in a rectangle before another color.
    fn thing(before: [u8; 3], [x1, y1, x2, y2]: [u32; 4]) -> Pixels {
        picture(200, 100, |x, y| {
            let inside = (x1..x2).contains(&x) && (y1..y2).contains(&y);
            if inside {
                [200, 30, (x % 256) as u8]
            } else {
                before
            }
        })
    }

    #[test]
    fn the_share_of_a_plain_background_is_that_of_its_pixels() {
        let white = [255; 3];
        for (pixels, share) in [
            (picture(1, 1, |_, _| [9; 3]), Some(1.0)),
            (picture(3, 2, |_, _| white), Some(1.0)),
            (thing(white, [50, 20, 150, 70]), Some(0.75)),
            (thing([20, 90, 160], [20, 10, 180, 90]), Some(0.36)),
            // Things that are cut by a short piece of the border, and by a long one.
            (thing(white, [90, 0, 100, 50]), Some(0.975)),
            (thing(white, [50, 0, 150, 70]), None),
            (thing(white, [0, 0, 200, 50]), None),
        ] {
            assert_eq!(
                plain_share(&pixels),
                share,
                "{}x{}",
                pixels.width,
                pixels.height
            );
        }
    }

    #[test]
    fn noise_is_plain_and_shades_are_not() {
        let noise = |x: u32, y: u32| ((x * 31 + y * 57) % 11) as u8;
        let noisy = picture(120, 90, |x, y| [245 + noise(x, y), 250 - noise(y, x), 245]);
        assert_eq!(plain_share(&noisy), Some(1.0));
        let sky = picture(120, 90, |_, y| [100, 140, 250 - y as u8]);
        assert_eq!(plain_share(&sky), None);
        let half = picture(120, 90, |x, _| if x < 60 { [255; 3] } else { [0; 3] });
        assert_eq!(plain_share(&half), None);
        // A frame of one color around a picture is no background of many pixels.
        let framed = picture(120, 90, |x, y| {
            let inside = (6..114).contains(&x) && (6..84).contains(&y);
            if inside {
                [noise(x, y) * 20 + 30; 3]
            } else {
                [0; 3]
            }
        });
        let share = plain_share(&framed).expect("its border is plain");
        assert!(share < 0.25, "{share}");
    }

    #[test]
    fn the_median_of_a_channel_is_that_of_its_values() {
        let pixels = [[1, 0, 255], [3, 0, 255], [200, 7, 255]];
        assert_eq!(median(&pixels), [3, 0, 255]);
        assert_eq!(median(&pixels[..1]), [1, 0, 255]);
    }
}
