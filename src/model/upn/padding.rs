//! Padding masks of batches and of their feature levels.

/// The padding mask of a batch: images of different sizes lie in the upper left corner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddingMask {
    /// Images.
    pub batch: usize,
    /// Rows of the padded images.
    pub height: usize,
    /// Columns of the padded images.
    pub width: usize,
    /// `[batch, height, width]`; true on padding.
    pub padded: Vec<bool>,
}

impl PaddingMask {
    /// A mask without padding.
    pub fn none(batch: usize, height: usize, width: usize) -> Self {
        Self {
            batch,
            height,
            width,
            padded: vec![false; batch * height * width],
        }
    }

    /// The mask of images of `[height, width]` each, padded to the largest height and width.
    pub fn from_sizes(sizes: &[[usize; 2]]) -> Self {
        let height = sizes.iter().map(|size| size[0]).max().unwrap_or(0);
        let width = sizes.iter().map(|size| size[1]).max().unwrap_or(0);
        let mut mask = Self::none(sizes.len(), height, width);
        for (image, &[h, w]) in sizes.iter().enumerate() {
            for row in 0..height {
                for column in 0..width {
                    let at = (image * height + row) * width + column;
                    mask.padded[at] = row >= h || column >= w;
                }
            }
        }
        mask
    }

    /// The mask of a level of `height x width` cells: nearest neighbor, rounded down.
    pub fn resize(&self, height: usize, width: usize) -> Self {
        // As in the original, the scale is rounded to f32 first.
        let source = |at: usize, from: usize, to: usize| {
            ((at as f32 * (from as f32 / to as f32)) as usize).min(from - 1)
        };
        let mut padded = Vec::with_capacity(self.batch * height * width);
        for image in 0..self.batch {
            for row in 0..height {
                let row = source(row, self.height, height);
                for column in 0..width {
                    let column = source(column, self.width, width);
                    padded.push(self.padded[(image * self.height + row) * self.width + column]);
                }
            }
        }
        Self {
            batch: self.batch,
            height,
            width,
            padded,
        }
    }

    /// True if any cell is padding.
    pub fn any(&self) -> bool {
        self.padded.contains(&true)
    }

    /// Unpadded columns and rows of an image, counted in its first row and its first column.
    pub(super) fn valid_extent(&self, image: usize) -> (usize, usize) {
        let padded = &self.padded[image * self.height * self.width..];
        let columns = padded[..self.width].iter().filter(|&&p| !p).count();
        let rows = (0..self.height)
            .filter(|row| !padded[row * self.width])
            .count();
        (columns, rows)
    }

    /// The unpadded share of the width and of the height.
    pub(super) fn valid_ratio(&self, image: usize) -> [f32; 2] {
        let (columns, rows) = self.valid_extent(image);
        [
            columns as f32 / self.width as f32,
            rows as f32 / self.height as f32,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_sizes_pads_right_and_bottom() {
        let mask = PaddingMask::from_sizes(&[[2, 3], [1, 2]]);
        assert_eq!(mask.padded[6..], [false, false, true, true, true, true]);
        assert_eq!(mask.valid_ratio(1), [2.0 / 3.0, 0.5]);
        assert!(!mask.resize(1, 1).any());
    }
}
