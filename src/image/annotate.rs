//! Draws boxes on a picture and writes it to a file, for the terminal.

use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use super::Pixels;
use crate::error::Fault;
use crate::geometry::BoxXyxy;

/// The palette of Okabe and Ito, distinguishable with any color vision.
const COLORS: [[u8; 3]; 7] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
];

/// Digits as 3 x 5 dots, three bits per row, top row first.
const DIGITS: [u16; 10] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_010_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
];

/// The letters a to z in the form of [`DIGITS`].
#[rustfmt::skip]
const LETTERS: [u16; 26] = [
    0b010_101_111_101_101, // a
    0b110_101_110_101_110, // b
    0b011_100_100_100_011, // c
    0b110_101_101_101_110, // d
    0b111_100_110_100_111, // e
    0b111_100_110_100_100, // f
    0b011_100_101_101_011, // g
    0b101_101_111_101_101, // h
    0b111_010_010_010_111, // i
    0b001_001_001_101_010, // j
    0b101_101_110_101_101, // k
    0b100_100_100_100_111, // l
    0b101_111_111_101_101, // m
    0b110_101_101_101_101, // n
    0b010_101_101_101_010, // o
    0b110_101_110_100_100, // p
    0b010_101_101_110_011, // q
    0b110_101_110_101_101, // r
    0b011_100_010_001_110, // s
    0b111_010_010_010_010, // t
    0b101_101_101_101_111, // u
    0b101_101_101_101_010, // v
    0b101_101_111_111_101, // w
    0b101_101_010_101_101, // x
    0b101_101_010_010_010, // y
    0b111_001_010_100_111, // z
];

/// Dots of a character: digits and letters; others are a space.
fn glyph(character: char) -> u16 {
    let lower = character.to_ascii_lowercase();
    match lower {
        '0'..='9' => DIGITS[(lower as u8 - b'0') as usize],
        'a'..='z' => LETTERS[(lower as u8 - b'a') as usize],
        _ => 0,
    }
}

/// Checks that [`write`] can write `path`, before the work whose result it shows.
///
/// # Errors
/// The extension is not that of a format that is written, or the folder does not exist.
pub fn check(path: &Path) -> Result<(), Fault> {
    let format = ImageFormat::from_path(path).map_err(|error| Fault::file(path, error))?;
    if !format.writing_enabled() {
        let what = format!("{format:?} files are not written; name a .png, .jpg or .webp file");
        return Err(Fault::file(path, what));
    }
    if path.is_dir() {
        return Err(Fault::file(path, "is a folder"));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder.map(std::fs::metadata) {
        Some(Err(error)) => Err(Fault::file(path, error)),
        Some(Ok(folder)) if !folder.is_dir() => Err(Fault::file(path, "is in no folder")),
        _ => Ok(()),
    }
}

/// Writes `pixels` with `boxes` (in pixels) to `path`; the file extension selects the format. Each box
/// shows its index and its label; boxes beyond the end of `labels` have none.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    pixels: &Pixels,
    boxes: &[BoxXyxy],
    labels: &[Option<&str>],
    path: &Path,
) -> Result<(), Fault> {
    let mut picture = RgbImage::from_raw(pixels.width, pixels.height, pixels.rgb.clone())
        .expect("three bytes per pixel");
    let unit = (pixels.width.min(pixels.height) / 200).max(1) as i32;
    for (index, b) in boxes.iter().enumerate() {
        let color = Rgb(COLORS[index % COLORS.len()]);
        let [x1, y1, x2, y2] = <[f32; 4]>::from(*b).map(|v| v.round() as i32);
        let (w, h) = (x2 - x1, y2 - y1);
        for (x, y, w, h) in [
            (x1, y1, w, unit),
            (x1, y2 - unit, w, unit),
            (x1, y1, unit, h),
            (x2 - unit, y1, unit, h),
        ] {
            fill(&mut picture, [x, y, w, h], color);
        }
        let text = match labels.get(index) {
            Some(Some(name)) => format!("{index} {name}"),
            _ => index.to_string(),
        };
        label(&mut picture, &text, [x1, y1], unit, color);
    }
    picture.save(path).map_err(|error| Fault::file(path, error))
}

/// Fills the rectangle `[x, y, width, height]`, clipped to the picture.
fn fill(picture: &mut RgbImage, [x, y, w, h]: [i32; 4], color: Rgb<u8>) {
    let (width, height) = (picture.width() as i32, picture.height() as i32);
    for y in y.max(0)..(y + h).min(height) {
        for x in x.max(0)..(x + w).min(width) {
            picture.put_pixel(x as u32, y as u32, color);
        }
    }
}

/// Draws `text` as a dark label on `color` with its corner at `[x, y]`, clamped to the picture.
fn label(picture: &mut RgbImage, text: &str, [x, y]: [i32; 2], unit: i32, color: Rgb<u8>) {
    let (x, y) = (x.max(0), y.max(0));
    let characters = text.chars().count() as i32;
    let background = [x, y, (4 * characters + 1) * unit * 2, 14 * unit];
    fill(picture, background, color);
    for (position, character) in text.chars().enumerate() {
        let dots = glyph(character);
        for dot in (0..15).filter(|dot| dots >> (14 - dot) & 1 == 1) {
            let column = 4 * position as i32 + dot % 3 + 1;
            let row = dot / 3 + 1;
            let cell = [
                x + column * 2 * unit,
                y + row * 2 * unit,
                2 * unit,
                2 * unit,
            ];
            fill(picture, cell, Rgb([17; 3]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_written_are_found_before() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["a.png", "a.JPG", "a.webp"] {
            assert_eq!(check(&path(name)), Ok(()), "{name}");
        }
        std::fs::create_dir(path("folder.png")).expect("a folder");
        std::fs::write(path("file"), "").expect("a file");
        for name in [
            "a",
            "a.txt",
            "a.gif",
            "missing/a.png",
            "file/a.png",
            "folder.png",
        ] {
            assert!(check(&path(name)).is_err(), "{name}");
        }
        assert!(check(Path::new("a.png")).is_ok(), "a name without a folder");
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 2, "nothing is written");
    }

    #[test]
    fn boxes_beyond_the_edge_are_clipped() {
        let pixels = Pixels::new(20, 10, vec![255; 600]).expect("a plain picture");
        let path = std::env::temp_dir().join(format!("annotate-{}.png", std::process::id()));
        let b = BoxXyxy::from([-5.0, 2.0, 30.0, 8.0]);
        write(&pixels, &[b], &[], &path).expect("the folder is writable");
        let drawn = super::super::decode::open(&path).expect("just written");
        std::fs::remove_file(&path).expect("just written");
        let at = |x: usize, y: usize| &drawn.rgb[(y * 20 + x) * 3..][..3];
        assert_eq!(at(19, 7), COLORS[0]);
        assert_eq!(at(19, 9), [255; 3]);
    }

    #[test]
    fn labels_are_written_after_the_index() {
        let pixels = Pixels::new(60, 20, vec![255; 3600]).expect("a plain picture");
        let path = std::env::temp_dir().join(format!("annotate-label-{}.png", std::process::id()));
        let b = BoxXyxy::from([0.0, 0.0, 60.0, 20.0]);
        write(&pixels, &[b], &[Some("L")], &path).expect("the folder is writable");
        let drawn = super::super::decode::open(&path).expect("just written");
        std::fs::remove_file(&path).expect("just written");
        // `0`, a space and `L`: the third character begins at column 2 * (2 * 4 + 1).
        let dark = |column: usize, row: usize| {
            let pixel = ((2 * row + 2) * 60 + 18 + 2 * column) * 3;
            drawn.rgb[pixel..pixel + 3] == [17; 3]
        };
        let rows = (0..5).map(|row| [0, 1, 2].map(|column| dark(column, row)));
        let stem = [true, false, false];
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [stem, stem, stem, stem, [true; 3]]
        );
    }
}
