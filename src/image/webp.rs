//! The EXIF orientation of WebP files. Some browsers ignore it, others apply it; without the entry none
//! does, and the page turns the picture itself.

/// How a picture is turned: the EXIF orientations 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation(u8);

impl Orientation {
    /// The transform of a canvas that draws the stored picture, `width` by `height` pixels, upright:
    /// `[a, b, c, d, e, f]` of `x' = a x + c y + e`, `y' = b x + d y + f`.
    pub fn transform(self, width: u32, height: u32) -> [f64; 6] {
        let (w, h) = (f64::from(width), f64::from(height));
        match self.0 {
            2 => [-1., 0., 0., 1., w, 0.],
            3 => [-1., 0., 0., -1., w, h],
            4 => [1., 0., 0., -1., 0., h],
            5 => [0., 1., 1., 0., 0., 0.],
            6 => [0., 1., -1., 0., h, 0.],
            7 => [0., -1., -1., 0., h, w],
            8 => [0., -1., 1., 0., 0., w],
            _ => [1., 0., 0., 1., 0., 0.],
        }
    }

    /// Columns and rows of the upright picture.
    pub fn upright(self, width: u32, height: u32) -> (u32, u32) {
        if self.0 >= 5 {
            (height, width)
        } else {
            (width, height)
        }
    }
}

/// The orientation of a WebP file that is not upright, and the file without its EXIF data. `None` for
/// upright pictures and for other files.
pub fn turned(bytes: &[u8]) -> Option<(Orientation, Vec<u8>)> {
    let mut rest = bytes.strip_prefix(b"RIFF")?.get(4..)?;
    rest = rest.strip_prefix(b"WEBP")?;
    let mut plain = b"RIFF\0\0\0\0WEBP".to_vec();
    let mut orientation = None;
    while let (Some(name), Some(size)) = (rest.get(..4), rest.get(4..8)) {
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let end = 8_usize.checked_add(size)?;
        let chunk = rest.get(..end.checked_add(size % 2)?).unwrap_or(rest);
        let content = chunk.get(8..end.min(chunk.len()))?;
        match name {
            b"EXIF" => orientation = orientation.or_else(|| exif_orientation(content)),
            b"VP8X" => {
                let at = plain.len() + 8;
                plain.extend_from_slice(chunk);
                // The flag that says that there are EXIF data.
                *plain.get_mut(at)? &= !0x08;
            }
            _ => plain.extend_from_slice(chunk),
        }
        rest = &rest[chunk.len()..];
    }
    let size = u32::try_from(plain.len() - 8).ok()?;
    plain[4..8].copy_from_slice(&size.to_le_bytes());
    Some((orientation.filter(|o| o.0 != 1)?, plain))
}

/// The orientation in EXIF data: the entry 0x0112 of the first directory of a TIFF structure.
fn exif_orientation(exif: &[u8]) -> Option<Orientation> {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let is_little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let two = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let (first, second) = (usize::from(two(4)?), usize::from(two(6)?));
    let directory = if is_little {
        second << 16 | first
    } else {
        first << 16 | second
    };
    for entry in 0..usize::from(two(directory)?) {
        let at = directory.checked_add(2 + entry * 12)?;
        if two(at)? == 0x0112 {
            let value = two(at + 8)?;
            return (1..=8).contains(&value).then_some(Orientation(value as u8));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut chunk = name.to_vec();
        chunk.extend((content.len() as u32).to_le_bytes());
        chunk.extend(content);
        chunk.resize(chunk.len() + content.len() % 2, 0);
        chunk
    }

    fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
        let body = chunks.concat();
        let mut file = b"RIFF".to_vec();
        file.extend((body.len() as u32 + 4).to_le_bytes());
        file.extend(b"WEBP");
        file.extend(body);
        file
    }

    fn exif(is_little: bool, orientation: u16) -> Vec<u8> {
        let two = |value: u16| {
            if is_little {
                value.to_le_bytes()
            } else {
                value.to_be_bytes()
            }
        };
        let four = |value: u32| {
            if is_little {
                value.to_le_bytes()
            } else {
                value.to_be_bytes()
            }
        };
        let mut block = if is_little { b"II*\0" } else { b"MM\0*" }.to_vec();
        block.extend(four(8));
        block.extend(two(2));
        for (tag, value) in [(0x0100, 7), (0x0112, orientation)] {
            block.extend(two(tag));
            block.extend(two(3));
            block.extend(four(1));
            block.extend(two(value));
            block.extend([0, 0]);
        }
        block
    }

    #[test]
    fn the_orientation_is_found_and_the_entry_removed() {
        let (flags, bare) = ([0x18, 0, 0, 0, 9, 0, 0, 4, 0, 0], b"odd");
        for (is_little, orientation, expected) in [
            (true, 6, Some(6)),
            (false, 5, Some(5)),
            (true, 1, None),
            (true, 0, None),
            (false, 9, None),
        ] {
            for prefix in [&b""[..], b"Exif\0\0"] {
                let block = [prefix, &exif(is_little, orientation)].concat();
                let vp8 = chunk(b"VP8L", bare);
                let file = webp(&[chunk(b"VP8X", &flags), vp8.clone(), chunk(b"EXIF", &block)]);
                let found = turned(&file);
                assert_eq!(found.as_ref().map(|(o, _)| o.0), expected);
                if let Some((_, plain)) = found {
                    let mut flags = flags;
                    flags[0] = 0x10;
                    assert_eq!(plain, webp(&[chunk(b"VP8X", &flags), vp8]));
                }
            }
        }
    }

    #[test]
    fn damaged_and_other_files_are_left_alone() {
        let file = webp(&[
            chunk(b"VP8X", &[8, 0, 0, 0]),
            chunk(b"EXIF", &exif(true, 6)),
        ]);
        assert!(turned(&file).is_some());
        for length in 0..file.len() - 30 {
            assert_eq!(turned(&file[..length]), None, "{length}");
        }
        for other in [&b"RIFF\0\0\0\0WAVE"[..], b"\xff\xd8\xff", b""] {
            assert_eq!(turned(other), None);
        }
        let huge = [
            &b"RIFF\0\0\0\0WEBPEXIF\xff\xff\xff\xffII*\0"[..],
            &[0xff; 8],
        ]
        .concat();
        assert_eq!(turned(&huge), None);
    }

    #[test]
    fn the_corners_of_a_turned_picture_lie_where_they_belong() {
        // The stored corner that comes to the top left, and to the top right, of 4 by 2 pixels.
        let cases = [
            (1, (0., 0.), (4., 0.)),
            (2, (4., 0.), (0., 0.)),
            (3, (4., 2.), (0., 2.)),
            (4, (0., 2.), (4., 2.)),
            (5, (0., 0.), (0., 2.)),
            (6, (0., 2.), (0., 0.)),
            (7, (4., 2.), (4., 0.)),
            (8, (4., 0.), (4., 2.)),
        ];
        for (value, left, right) in cases {
            let orientation = Orientation(value);
            let [a, b, c, d, e, f] = orientation.transform(4, 2);
            let at = |(x, y): (f64, f64)| (a * x + c * y + e, b * x + d * y + f);
            let (width, _) = orientation.upright(4, 2);
            assert_eq!(at(left), (0., 0.), "{value}");
            assert_eq!(at(right), (f64::from(width), 0.), "{value}");
        }
    }
}
