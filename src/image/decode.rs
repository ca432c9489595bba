//! Decodes JPEG, PNG and WebP files to [`Pixels`], natively. The page uses the decoder of the browser;
//! both apply the EXIF orientation.

use std::fmt::Display;
use std::io::Cursor;
use std::path::Path;

use image::error::ImageError;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageReader, RgbImage};
use jpeg_decoder::PixelFormat;

use super::{Pixels, check_size, jpeg};
use crate::error::{Fault, FaultKind};

/// Reads and decodes a picture file.
///
/// # Errors
/// The file cannot be read, or [`decode`]'s.
pub fn open(path: &Path) -> Result<Pixels, Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    decode(&bytes).map_err(|fault| Fault {
        place: path.display().to_string(),
        ..fault
    })
}

/// Decodes a picture, first frame only, and applies its EXIF orientation; transparent parts are
/// blended with white.
///
/// # Errors
/// Not a JPEG, PNG or WebP picture, damaged or truncated, or too large.
pub fn decode(bytes: &[u8]) -> Result<Pixels, Fault> {
    let mut decoder = decoder(bytes)?;
    // Unreadable EXIF data count as upright.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = match jpeg::has_separate_scans(bytes) {
        true => separate_scans(bytes)?,
        false => DynamicImage::from_decoder(decoder).map_err(|error| fault(&error))?,
    };
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    if picture.color().has_alpha() {
        Pixels::from_rgba(width, height, &picture.into_rgba8())
    } else {
        Pixels::new(width, height, picture.into_rgb8().into_raw())
    }
}

/// Checks the header of a picture: its format and its size. What comes after it may still be damaged.
///
/// # Errors
/// Not a JPEG, PNG or WebP picture, cut short, or too large.
pub fn check(bytes: &[u8]) -> Result<(), Fault> {
    decoder(bytes).map(|_| ())
}

/// The decoder of a picture whose size is within the limit.
fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_, Fault> {
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .expect("reading from memory cannot fail");
    if reader.format().is_none() {
        return Err(not_a_picture());
    }
    if !jpeg::is_complete(bytes) {
        return Err(damaged("its end is missing"));
    }
    let decoder = reader.into_decoder().map_err(|error| fault(&error))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    Ok(decoder)
}

/// Decodes a JPEG file whose colors are in separate scans, which zune-jpeg reads wrongly where they are subsampled.
fn separate_scans(bytes: &[u8]) -> Result<DynamicImage, Fault> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let values = decoder.decode().map_err(damaged)?;
    let info = decoder.info().ok_or_else(|| damaged("it has no frame"))?;
    let (width, height) = (info.width.into(), info.height.into());
    let picture = match info.pixel_format {
        PixelFormat::RGB24 => RgbImage::from_raw(width, height, values).map(DynamicImage::from),
        PixelFormat::L8 => GrayImage::from_raw(width, height, values).map(DynamicImage::from),
        PixelFormat::L16 | PixelFormat::CMYK32 => {
            return Err(damaged("its colors are in separate scans and are not RGB"));
        }
    };
    picture.ok_or_else(|| damaged("its data end early"))
}

/// Width and height of a picture as its header says them, before its EXIF orientation is applied; `None` if it has
/// no such header.
pub fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    reader.ok()?.into_dimensions().ok()
}

fn not_a_picture() -> Fault {
    Fault::new(
        FaultKind::Picture,
        "picture",
        "is not a JPEG, PNG or WebP picture",
        "Choose a file of one of these formats",
    )
}

fn fault(error: &ImageError) -> Fault {
    match error {
        ImageError::Unsupported(_) => not_a_picture(),
        _ => damaged(error),
    }
}

fn damaged(why: impl Display) -> Fault {
    Fault::new(
        FaultKind::Picture,
        "picture",
        format!("is damaged or cut short ({why})"),
        "Export or download it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageEncoder, ImageFormat, Rgb, RgbaImage};

    /// Left half red, right half blue, with noise so that files do not become tiny.
    fn halves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let noise = ((x * 31 + y * 17) % 23) as u8;
            if x < width / 2 {
                Rgb([230, noise, noise])
            } else {
                Rgb([noise, noise, 230])
            }
        })
    }

    /// An EXIF block with the orientation as its only entry.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        block
    }

    fn jpeg(orientation: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
        encoder
            .set_exif_metadata(exif(orientation))
            .expect("JPEG stores EXIF");
        let picture = halves(64, 32);
        encoder
            .write_image(&picture, 64, 32, image::ExtendedColorType::Rgb8)
            .expect("encodes");
        bytes
    }

    #[test]
    fn exif_orientation_is_applied() {
        let is_red = |pixels: &Pixels, x: u32, y: u32| {
            let at = ((y * pixels.width + x) * 3) as usize;
            pixels.rgb[at] > 128 && pixels.rgb[at + 2] < 128
        };
        let upright = decode(&jpeg(1)).expect("a picture");
        assert_eq!((upright.width, upright.height), (64, 32));
        assert!(is_red(&upright, 4, 16) && !is_red(&upright, 60, 16));
        let clockwise = decode(&jpeg(6)).expect("a picture");
        assert_eq!((clockwise.width, clockwise.height), (32, 64));
        assert!(is_red(&clockwise, 16, 4) && !is_red(&clockwise, 16, 60));
        let mirrored = decode(&jpeg(2)).expect("a picture");
        assert!(!is_red(&mirrored, 4, 16) && is_red(&mirrored, 60, 16));
    }

    #[test]
    fn every_format_is_read_and_transparency_is_blended_with_white() {
        let clear = RgbaImage::new(5, 3);
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let mut bytes = Cursor::new(Vec::new());
            clear.write_to(&mut bytes, format).expect("encodes");
            let pixels = decode(bytes.get_ref()).expect("a picture");
            assert_eq!(pixels.rgb, [255; 45]);
        }
    }

    #[test]
    fn other_files_are_rejected() {
        for bytes in [
            &b""[..],
            b"hello",
            b"GIF89a\x01\0\x01\0\0\0\0;",
            b"RIFF\0\0\0\0WAVE",
        ] {
            let fault = decode(bytes).expect_err("not a picture");
            assert_eq!(fault, not_a_picture(), "{bytes:?}");
        }
    }

    #[test]
    fn a_truncated_picture_is_rejected() {
        let mut files = vec![jpeg(1)];
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let mut bytes = Cursor::new(Vec::new());
            halves(64, 32)
                .write_to(&mut bytes, format)
                .expect("encodes");
            files.push(bytes.into_inner());
        }
        for file in files {
            for length in [file.len() / 4, file.len() / 2, file.len() * 9 / 10] {
                let fault = decode(&file[..length]).err();
                assert!(
                    fault.is_some_and(|fault| fault.what.contains("cut short")),
                    "{length} bytes of {}",
                    file.len()
                );
            }
        }
    }

    #[test]
    fn a_huge_picture_is_rejected_before_it_is_decoded() {
        // A PNG header of 100000 x 100000 pixels with the data of a small picture.
        let mut bytes = Cursor::new(Vec::new());
        halves(2, 2)
            .write_to(&mut bytes, ImageFormat::Png)
            .expect("encodes");
        let mut file = bytes.into_inner();
        file[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
        file[20..24].copy_from_slice(&100_000_u32.to_be_bytes());
        let crc = crc32fast::hash(&file[12..29]);
        file[29..33].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(check(&file).err(), decode(&file).err());
        let fault = decode(&file).expect_err("10 gigapixels");
        assert!(fault.what.contains("the limit is 64 megapixels"), "{fault}");
    }
}
