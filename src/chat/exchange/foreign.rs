//! What readers of other programs' files share.

use crate::chat::document::{LabelledBox, refused};
use crate::error::{ErrorCode, Fault, FaultKind};

/// The boxes of a picture in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The boxes, not yet clipped.
    pub boxes: Vec<LabelledBox>,
    /// Width and height that the file names; `None` where coordinates are relative to the picture.
    pub size: Option<(f64, f64)>,
    /// Entries that are no upright boxes.
    pub left_out: usize,
}

/// The place of the picture called `name`, or of the only one; `pictures` are their file names.
pub(super) fn pick<'a>(
    place: &str,
    pictures: impl Iterator<Item = &'a str>,
    name: &str,
) -> Result<usize, Fault> {
    let pictures: Vec<&str> = pictures.collect();
    if let Some(found) = pictures.iter().position(|p| is_called(p, name)) {
        return Ok(found);
    }
    match pictures.len() {
        0 => Err(refused(place, "it describes no picture")),
        1 => Ok(0),
        count => Err(Fault::new(
            FaultKind::File,
            place,
            format!("it describes {count} pictures and none is called {name}"),
            "Open one of its pictures first; nothing was changed",
        )
        .code(ErrorCode::NotFound)),
    }
}

/// Whether a path, address or upload name ends in a file name, whatever the case of its letters. Label
/// Studio puts a code and `-` before the name of an uploaded file.
pub(super) fn is_called(path: &str, name: &str) -> bool {
    let last = path
        .rsplit(['/', '\\', '='])
        .next()
        .unwrap_or(path)
        .to_lowercase();
    let name = name.to_lowercase();
    let uploaded = last.split_once('-').is_some_and(|(code, rest)| {
        code.len() == 8 && code.bytes().all(|b| b.is_ascii_hexdigit()) && rest == name
    });
    last == name || uploaded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_by_the_end_of_their_path() {
        let cases = [
            ("a.jpg", "a.jpg", true),
            ("x/y/A.JPG", "a.jpg", true),
            ("x\\a.jpg", "a.jpg", true),
            ("/data/upload/1/0a1b2c3d-a.jpg", "a.jpg", true),
            ("/data/local-files/?d=x/a.jpg", "a.jpg", true),
            ("ba.jpg", "a.jpg", false),
            ("zz-a.jpg", "a.jpg", false),
        ];
        for (path, name, expected) in cases {
            assert_eq!(is_called(path, name), expected, "{path}");
        }
    }
}
