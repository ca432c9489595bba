//! The boxes of an answer as small crops, in the order in which the answer mentions them.

use crate::chat::answer::{AnswerPiece, Phrase};
use crate::chat::candidates::BoxId;
use crate::chat::conversation::Turn;
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// Most crops of an answer.
pub const MOST: usize = 24;

/// A box that an answer mentions.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Its identity.
    pub id: BoxId,
    /// Its number in the answer.
    pub number: u32,
    /// Pixels of the picture.
    pub bbox: BoxXyxy,
    /// The first phrase that mentions it.
    pub phrase: Phrase,
}

/// The boxes that a turn's answer mentions, each once.
pub fn of(turn: &Turn) -> Vec<Evidence> {
    let Some(boxes) = &turn.boxes else {
        return Vec::new();
    };
    let mut found: Vec<Evidence> = Vec::new();
    for piece in turn.pieces() {
        let AnswerPiece::Phrase(phrase) = piece else {
            continue;
        };
        for &number in &phrase.objects {
            let known = found.iter().any(|e| e.number == number);
            if let Some(candidate) = boxes.get(number).filter(|_| !known) {
                found.push(Evidence {
                    id: candidate.id,
                    number,
                    bbox: candidate.bbox,
                    phrase: phrase.clone(),
                });
            }
        }
    }
    found
}

/// The part of a picture to show for a box, `[left, top, width, height]` in pixels of the picture: the
/// box and a margin of a tenth, inside the picture and at least one pixel wide.
pub fn crop(bbox: BoxXyxy, size: ImageSize) -> [f64; 4] {
    let side = |a: f32, b: f32, end: u32| {
        let (from, to) = (f64::from(a.min(b)), f64::from(a.max(b)));
        let margin = (to - from) * 0.1;
        let end = f64::from(end.max(1));
        let from = (from - margin).clamp(0.0, end - 1.0);
        (from, (to + margin).clamp(from + 1.0, end) - from)
    };
    let (left, width) = side(bbox.x1, bbox.x2, size.width);
    let (top, height) = side(bbox.y1, bbox.y2, size.height);
    [left, top, width, height]
}

/// Width and height of the crop on the screen in CSS pixels, for a `height` of the strip.
pub fn shown_size(crop: [f64; 4], height: f64) -> (f64, f64) {
    let width = (height * crop[2] / crop[3]).clamp(height * 0.6, height * 2.0);
    (width.round(), height)
}

/// The part of a `width` x `height` canvas that a crop fills, so that it is not stretched: `[left, top,
/// width, height]`.
pub fn inside(crop: [f64; 4], (width, height): (f64, f64)) -> [f64; 4] {
    let scale = (width / crop[2]).min(height / crop[3]);
    let (w, h) = (crop[2] * scale, crop[3] * scale);
    [(width - w) / 2.0, (height - h) / 2.0, w, h]
}

/// Largest scale of a [`thumbnail`]: a box of few pixels stays small.
const MAX_SCALE: f64 = 4.0;

/// A crop as an element with the picture as its background, in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thumbnail {
    /// Width and height of the element.
    pub element: (f64, f64),
    /// Width and height of the whole picture behind it.
    pub picture: (f64, f64),
    /// Place of the picture's left upper corner in the element.
    pub corner: (f64, f64),
}

/// A crop of a picture of `size` that fits into a square of `side` CSS pixels.
pub fn thumbnail(crop: [f64; 4], size: ImageSize, side: f64) -> Thumbnail {
    let [left, top, width, height] = crop;
    let scale = (side / width.max(height)).min(MAX_SCALE);
    Thumbnail {
        element: (width * scale, height * scale),
        picture: (
            f64::from(size.width) * scale,
            f64::from(size.height) * scale,
        ),
        corner: (-left * scale, -top * scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::candidates::{Candidate, Candidates};
    use crate::chat::question::Draft;
    use crate::protocol::TurnId;
    use crate::text::answer_parser::spans;

    #[test]
    fn boxes_come_once_in_the_order_of_mention() {
        let mut turn = Turn::new(TurnId(0), String::new(), String::new(), Draft::default());
        assert!(of(&turn).is_empty());
        let candidate = |number| Candidate {
            id: BoxId::Own(number + 10),
            bbox: [0., 0., 1., 1.].into(),
            score: None,
            label: None,
        };
        turn.boxes = Some(std::sync::Arc::new(Candidates {
            boxes: (0..3_u32).map(candidate).collect(),
            left_out: 0,
        }));
        turn.spans = spans(
            "<ground>b</ground><objects><obj2><obj7></objects> <ground>a</ground><objects><obj0><obj2></objects>",
        );
        let found: Vec<_> = of(&turn)
            .into_iter()
            .map(|e| (e.number, e.id, e.phrase.text))
            .collect();
        let expected = [(2, BoxId::Own(12), "b"), (0, BoxId::Own(10), "a")];
        assert_eq!(
            found,
            expected.map(|(n, id, text)| (n, id, text.to_owned()))
        );
    }

    #[test]
    fn crops_lie_inside_the_picture_and_keep_their_shape() {
        let size = ImageSize {
            width: 100,
            height: 50,
        };
        let cases = [
            ([10., 10., 30., 20.], [8., 9., 24., 12.]),
            ([30., 20., 10., 10.], [8., 9., 24., 12.]),
            ([-5., -5., 100., 50.], [0., 0., 100., 50.]),
            ([120., 60., 130., 70.], [99., 49., 1., 1.]),
            ([10., 10., 10., 10.], [10., 10., 1., 1.]),
        ];
        for (bbox, expected) in cases {
            assert_eq!(crop(bbox.into(), size), expected, "{bbox:?}");
        }
        let wide = [0., 0., 400., 10.];
        let shown = shown_size(wide, 50.);
        assert_eq!(shown, (100., 50.));
        assert_eq!(inside(wide, shown), [0., 23.75, 100., 2.5]);
        assert_eq!(shown_size([0., 0., 20., 20.], 50.), (50., 50.));
    }

    #[test]
    fn a_thumbnail_shows_its_crop_and_nothing_else() {
        let size = ImageSize {
            width: 200,
            height: 100,
        };
        for (crop, element, picture, corner) in [
            // Scaled down to the side.
            ([50., 0., 100., 50.], (32., 16.), (64., 32.), (-16., 0.)),
            ([10., 20., 40., 80.], (16., 32.), (80., 40.), (-4., -8.)),
            // Scaled up, and no further than four times.
            ([0., 0., 16., 8.], (32., 16.), (400., 200.), (0., 0.)),
            ([1., 2., 1., 1.], (4., 4.), (800., 400.), (-4., -8.)),
        ] {
            let expected = Thumbnail {
                element,
                picture,
                corner,
            };
            assert_eq!(thumbnail(crop, size, 32.), expected, "{crop:?}");
        }
    }
}
