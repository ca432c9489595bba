//! A message and the binary data that travel beside its JSON.
//!
//! In the page an envelope is the array `[json, attachment]` of a `postMessage`: the attachment is
//! the `ArrayBuffer` of a picture (`Look`), the array of files of a model (`SurveyFiles`), or `null`.
//! Over standard output it is a line, the JSON array `[json, hex]`.

use super::{Granularity, ImageSize, PictureId, Request};
use crate::image::Pixels;

/// A message `body` with its binary `attachment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<Body, Attachment = Vec<u8>> {
    /// The message.
    pub body: Body,
    /// The data beside it; none for most messages.
    pub attachment: Option<Attachment>,
}

impl<Body, Attachment> Envelope<Body, Attachment> {
    /// `body` with `attachment`.
    pub fn with(body: Body, attachment: Attachment) -> Self {
        Self {
            body,
            attachment: Some(attachment),
        }
    }
}

impl<Body, Attachment> From<Body> for Envelope<Body, Attachment> {
    fn from(body: Body) -> Self {
        Self {
            body,
            attachment: None,
        }
    }
}

impl Envelope<Request> {
    /// The request to find the boxes of a picture.
    pub fn look(picture: PictureId, pixels: Pixels, granularity: Granularity) -> Self {
        let Pixels { width, height, rgb } = pixels;
        let size = Some(ImageSize { width, height });
        let body = Request::Look {
            picture,
            size,
            granularity,
        };
        Self::with(body, rgb)
    }
}

impl ImageSize {
    /// The picture of this size with the bytes of an attachment. Nothing is checked; see
    /// [`Pixels::check`].
    pub fn with_rgb(self, rgb: Vec<u8>) -> Pixels {
        Pixels {
            width: self.width,
            height: self.height,
            rgb,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back_from_size_and_attachment() {
        let pixels = Pixels {
            width: 1,
            height: 2,
            rgb: (0..6).collect(),
        };
        let look = Envelope::look(PictureId(1), pixels.clone(), Granularity::Fine);
        let Request::Look {
            size: Some(size), ..
        } = look.body
        else {
            panic!("{look:?}");
        };
        let rgb = look.attachment.expect("the pixels");
        assert_eq!(size.with_rgb(rgb), pixels);
        assert!(size.with_rgb(Vec::new()).check().is_err(), "no bytes");
    }
}
