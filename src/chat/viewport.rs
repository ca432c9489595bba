//! How the picture lies in its pane: zoom and pan as a transform between pixels of the picture and
//! pixels of the screen.

use crate::chat::box_drawing::Point;
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// Screen pixels per picture pixel at the closest view.
const MAX_SCALE: f32 = 32.0;

/// Factor of one step of a zoom button or key.
pub const STEP: f32 = 1.25;

/// A box whose shorter side is below this many screen pixels is too small to be seen well.
pub const MIN_SEEN: f32 = 24.0;

/// Share of the pane that boxes fill after they were brought into view.
const REVEALED_SHARE: f32 = 0.6;

/// A picture and the pane that shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// Size of the picture in picture pixels.
    pub picture: ImageSize,
    /// Width and height of the pane in screen pixels.
    pub pane: (f32, f32),
}

impl Frame {
    fn size(&self) -> (f32, f32) {
        let ImageSize { width, height } = self.picture;
        (width.max(1) as f32, height.max(1) as f32)
    }

    /// Screen pixels per picture pixel where the whole picture fits.
    pub fn fit_scale(&self) -> f32 {
        let (width, height) = self.size();
        (self.pane.0 / width).min(self.pane.1 / height).max(1e-6)
    }
}

/// The view of a picture: how close, and which point lies in the middle of the pane. It stays the same
/// when the pane changes its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Viewport {
    /// Relative to the whole picture in the pane.
    zoom: f32,
    /// Share of width and height of the picture, 0 to 1, in the middle of the pane.
    middle: Point,
}

impl Default for Viewport {
    fn default() -> Self {
        Self {
            zoom: 1.0,
            middle: (0.5, 0.5),
        }
    }
}

impl Viewport {
    /// Whether the whole picture fits exactly.
    pub fn is_fit(&self) -> bool {
        *self == Self::default()
    }

    /// Screen pixels per picture pixel.
    pub fn scale(&self, frame: Frame) -> f32 {
        frame.fit_scale() * self.zoom
    }

    /// The scale in percent; 100 is one screen pixel per picture pixel.
    pub fn percent(&self, frame: Frame) -> u32 {
        (self.scale(frame) * 100.0).round() as u32
    }

    /// The corner of the picture in screen pixels of the pane.
    fn corner(&self, frame: Frame) -> Point {
        let ((width, height), scale) = (frame.size(), self.scale(frame));
        (
            frame.pane.0 / 2.0 - self.middle.0 * width * scale,
            frame.pane.1 / 2.0 - self.middle.1 * height * scale,
        )
    }

    /// From picture pixels to screen pixels of the pane.
    pub fn to_screen(&self, (x, y): Point, frame: Frame) -> Point {
        let (corner, scale) = (self.corner(frame), self.scale(frame));
        (corner.0 + x * scale, corner.1 + y * scale)
    }

    /// From screen pixels of the pane to picture pixels; may lie outside of the picture.
    pub fn to_picture(&self, (x, y): Point, frame: Frame) -> Point {
        let (corner, scale) = (self.corner(frame), self.scale(frame));
        ((x - corner.0) / scale, (y - corner.1) / scale)
    }

    /// A box in screen pixels of the pane.
    pub fn box_to_screen(&self, b: BoxXyxy, frame: Frame) -> BoxXyxy {
        let (x1, y1) = self.to_screen((b.x1, b.y1), frame);
        let (x2, y2) = self.to_screen((b.x2, b.y2), frame);
        [x1, y1, x2, y2].into()
    }

    /// Shift in screen pixels and factor for a picture that was laid out to fit: the transform
    /// `translate(x, y) scale(factor)` around the corner of the pane.
    pub fn pane_transform(&self, frame: Frame) -> (f32, f32, f32) {
        let fitted = Self::default().corner(frame);
        let corner = self.corner(frame);
        (
            corner.0 - fitted.0 * self.zoom,
            corner.1 - fitted.1 * self.zoom,
            self.zoom,
        )
    }

    /// The same in picture pixels, for boxes whose picture was laid out to fit.
    pub fn picture_transform(&self, frame: Frame) -> (f32, f32, f32) {
        let (width, height) = frame.size();
        (
            width * (0.5 - self.middle.0 * self.zoom),
            height * (0.5 - self.middle.1 * self.zoom),
            self.zoom,
        )
    }

    /// The view `factor` times as close; the point of the picture at `at`, in screen pixels of the
    /// pane, stays where it is as far as the picture's edges allow.
    #[must_use]
    pub fn zoomed(&self, factor: f32, at: Point, frame: Frame) -> Self {
        let fixed = self.to_picture(at, frame);
        let fit = frame.fit_scale();
        let (least, most) = ((1.0 / fit).min(1.0), (MAX_SCALE / fit).max(1.0));
        let factor = if factor.is_finite() { factor } else { 1.0 };
        let next = Self {
            zoom: (self.zoom * factor).clamp(least, most),
            ..*self
        };
        let now = next.to_screen(fixed, frame);
        next.panned(at.0 - now.0, at.1 - now.1, frame)
    }

    /// The view at one screen pixel per picture pixel; the middle of the pane stays.
    #[must_use]
    pub fn at_full_size(&self, frame: Frame) -> Self {
        let middle = (frame.pane.0 / 2.0, frame.pane.1 / 2.0);
        self.zoomed(1.0 / self.scale(frame), middle, frame)
    }

    /// The view with the picture moved by screen pixels. Along an axis where the picture is larger than
    /// the pane its edges do not come into the pane, else they do not leave it. A picture that is not
    /// closer than to fit is centered.
    #[must_use]
    pub fn panned(&self, dx: f32, dy: f32, frame: Frame) -> Self {
        if self.zoom <= 1.0 {
            return Self {
                zoom: self.zoom,
                ..Self::default()
            };
        }
        let ((width, height), scale) = (frame.size(), self.scale(frame));
        let middle = |share: f32, moved: f32, side: f32, pane: f32| {
            let half = pane / (2.0 * side * scale);
            let (low, high) = (half.min(1.0 - half), half.max(1.0 - half));
            (share - moved / (side * scale)).clamp(low, high)
        };
        Self {
            zoom: self.zoom,
            middle: (
                middle(self.middle.0, dx, width, frame.pane.0),
                middle(self.middle.1, dy, height, frame.pane.1),
            ),
        }
    }

    /// The view that shows all of `boxes` (picture pixels). Unchanged where each lies in the pane and
    /// is at least [`MIN_SEEN`] screen pixels wide and high.
    #[must_use]
    pub fn revealing(&self, boxes: &[BoxXyxy], frame: Frame) -> Self {
        let shown: Vec<_> = (boxes.iter())
            .map(|&b| self.box_to_screen(b, frame))
            .collect();
        let is_inside = |b: &BoxXyxy| {
            b.x1 >= -1.0 && b.y1 >= -1.0 && b.x2 <= frame.pane.0 + 1.0 && b.y2 <= frame.pane.1 + 1.0
        };
        let is_large = |b: &BoxXyxy| (b.x2 - b.x1).min(b.y2 - b.y1) >= MIN_SEEN;
        let (inside, large) = (shown.iter().all(is_inside), shown.iter().all(is_large));
        let union = boxes.iter().copied().reduce(|a, b| {
            [
                a.x1.min(b.x1),
                a.y1.min(b.y1),
                a.x2.max(b.x2),
                a.y2.max(b.y2),
            ]
            .into()
        });
        let Some(union) = union.filter(|_| !inside || !large) else {
            return *self;
        };
        let (width, height) = (
            (union.x2 - union.x1).max(1.0),
            (union.y2 - union.y1).max(1.0),
        );
        let all = (frame.pane.0 / width).min(frame.pane.1 / height) * REVEALED_SHARE;
        let fit = frame.fit_scale();
        // Never smaller than the whole picture; as close as now where that already shows everything.
        let closest = (MAX_SCALE / 2.0).max(fit);
        let wanted = match large {
            true => self.scale(frame).min(all),
            false => all.max(if inside { self.scale(frame) } else { 0.0 }),
        };
        let scale = wanted.clamp(fit, closest);
        let next = Self {
            zoom: scale / fit,
            ..*self
        };
        let center = ((union.x1 + union.x2) / 2.0, (union.y1 + union.y2) / 2.0);
        let now = next.to_screen(center, frame);
        next.panned(
            frame.pane.0 / 2.0 - now.0,
            frame.pane.1 / 2.0 - now.1,
            frame,
        )
    }
}

/// How long the picture takes to come to another view, in milliseconds.
pub const EASE: f64 = 180.0;

/// The view on the way from one to another. `elapsed` in milliseconds; the end is reached at [`EASE`].
pub fn eased(from: Viewport, to: Viewport, elapsed: f64) -> Viewport {
    let share = (elapsed / EASE).clamp(0.0, 1.0) as f32;
    if share >= 1.0 {
        return to;
    }
    // Fast at first, slow at the end.
    let share = 1.0 - (1.0 - share).powi(3);
    let zoom = from.zoom * (to.zoom / from.zoom).powf(share);
    // What is in the middle moves evenly on the screen, not in the picture.
    let moved = match (to.zoom - from.zoom).abs() < 1e-4 {
        true => share,
        false => (1.0 / from.zoom - 1.0 / zoom) / (1.0 / from.zoom - 1.0 / to.zoom),
    };
    let between = |a: f32, b: f32| a + (b - a) * moved;
    Viewport {
        zoom,
        middle: (
            between(from.middle.0, to.middle.0),
            between(from.middle.1, to.middle.1),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Frame = Frame {
        picture: ImageSize {
            width: 400,
            height: 200,
        },
        pane: (800.0, 600.0),
    };

    fn near(a: Point, b: Point) -> bool {
        (a.0 - b.0).abs() < 0.05 && (a.1 - b.1).abs() < 0.05
    }

    #[test]
    fn the_whole_picture_fits_in_the_middle() {
        let cases = [
            (WIDE, (0., 0.), (0., 100.)),
            (WIDE, (400., 200.), (800., 500.)),
            (
                Frame {
                    pane: (100., 300.),
                    ..WIDE
                },
                (0., 0.),
                (0., 125.),
            ),
        ];
        for (frame, picture, screen) in cases {
            let view = Viewport::default();
            assert!(near(view.to_screen(picture, frame), screen), "{picture:?}");
            assert!(near(view.to_picture(screen, frame), picture), "{screen:?}");
        }
        assert_eq!(Viewport::default().percent(WIDE), 200);
    }

    #[test]
    fn zooming_keeps_the_point_under_the_pointer() {
        let view = Viewport::default().zoomed(3.0, (400., 300.), WIDE);
        for (factor, at) in [
            (2.0, (300., 250.)),
            (1.5, (10., 20.)),
            (0.9, (420., 310.)),
            (1.0, (500., 400.)),
        ] {
            let next = view.zoomed(factor, at, WIDE);
            let (before, after) = (view.to_picture(at, WIDE), next.to_picture(at, WIDE));
            assert!(
                near(before, after),
                "{factor} at {at:?}: {before:?} {after:?}"
            );
            assert!((next.scale(WIDE) - view.scale(WIDE) * factor).abs() < 0.01);
        }
    }

    #[test]
    fn the_zoom_has_ends_and_the_edges_stay_out_of_the_pane() {
        let small = Frame {
            picture: ImageSize {
                width: 4000,
                height: 100,
            },
            ..WIDE
        };
        let cases = [
            (WIDE, 1e9, 3200),
            (WIDE, 0.0, 100),
            (WIDE, f32::NAN, 200),
            (small, 1e9, 3200),
            (small, 1e-9, 20),
        ];
        for (frame, factor, percent) in cases {
            let view = Viewport::default().zoomed(factor, (5., 5.), frame);
            assert_eq!(view.percent(frame), percent, "{factor}");
        }
        let close = Viewport::default().zoomed(4.0, (400., 300.), WIDE);
        let cases = [
            ((1e6, 1e6), (0., 0.), (0., 0.)),
            ((-1e6, -1e6), (400., 200.), (800., 600.)),
            ((0., 0.), (200., 100.), (400., 300.)),
        ];
        for ((dx, dy), picture, screen) in cases {
            let moved = close.panned(dx, dy, WIDE);
            assert!(near(moved.to_screen(picture, WIDE), screen), "{dx} {dy}");
        }
        let wide = Viewport::default().zoomed(1.2, (400., 300.), WIDE);
        let moved = wide.panned(0., 1e6, WIDE);
        assert!(near(moved.to_screen((0., 200.), WIDE), (-80., 600.)));
        let fit = Viewport::default().panned(50., 50., WIDE);
        assert!(fit.is_fit(), "a picture that fits stays in the middle");
    }

    #[test]
    fn full_size_is_one_screen_pixel_per_picture_pixel() {
        let view = Viewport::default().at_full_size(WIDE);
        assert_eq!(view.percent(WIDE), 100);
        assert!(near(view.to_screen((200., 100.), WIDE), (400., 300.)));
    }

    #[test]
    fn both_transforms_put_the_picture_where_points_are() {
        let views = [
            Viewport::default(),
            Viewport::default().zoomed(3.0, (100., 150.), WIDE),
            Viewport::default().zoomed(0.6, (100., 150.), WIDE),
        ];
        for view in views {
            let point = (37.0, 120.0);
            let wanted = view.to_screen(point, WIDE);
            let fitted = Viewport::default().to_screen(point, WIDE);
            let (x, y, zoom) = view.pane_transform(WIDE);
            assert!(near((x + fitted.0 * zoom, y + fitted.1 * zoom), wanted));
            let (x, y, zoom) = view.picture_transform(WIDE);
            let moved = (x + point.0 * zoom, y + point.1 * zoom);
            assert!(near(Viewport::default().to_screen(moved, WIDE), wanted));
        }
    }

    #[test]
    fn boxes_that_are_away_or_tiny_are_brought_into_view() {
        let close = Viewport::default().zoomed(8.0, (0., 100.), WIDE);
        let tiny = [380., 180., 384., 184.];
        let cases: [(Viewport, &[[f32; 4]], bool); 6] = [
            (Viewport::default(), &[[10., 10., 60., 60.]], false),
            (Viewport::default(), &[tiny], true),
            (close, &[tiny], true),
            (close, &[[10., 10., 30., 30.]], false),
            (
                close,
                &[[10., 10., 30., 30.], [300., 100., 390., 190.]],
                true,
            ),
            (close, &[], false),
        ];
        for (view, boxes, moves) in cases {
            let boxes: Vec<BoxXyxy> = boxes.iter().map(|&b| b.into()).collect();
            let next = view.revealing(&boxes, WIDE);
            assert_eq!(next != view, moves, "{boxes:?}");
            for &b in &boxes {
                let b = next.box_to_screen(b, WIDE);
                assert!(
                    b.x1 >= -1. && b.y1 >= -1. && b.x2 <= 801. && b.y2 <= 601.,
                    "{b:?}"
                );
                assert!((b.x2 - b.x1).min(b.y2 - b.y1) >= MIN_SEEN, "{b:?}");
            }
        }
    }

    #[test]
    fn boxes_far_apart_show_the_whole_picture() {
        let close = Viewport::default().zoomed(8.0, (0., 100.), WIDE);
        let boxes = [[0., 0., 4., 4.].into(), [395., 195., 399., 199.].into()];
        assert_eq!(close.revealing(&boxes, WIDE).percent(WIDE), 200);
    }

    #[test]
    fn a_view_eases_to_another_without_a_jump() {
        let whole = Viewport::default();
        let close = whole.zoomed(8.0, (0., 100.), WIDE);
        let other = close.panned(-900., -300., WIDE);
        for (from, to) in [(whole, close), (close, whole), (close, other)] {
            assert_eq!(eased(from, to, 0.0), from);
            assert_eq!(eased(from, to, EASE), to);
            assert_eq!(eased(from, to, 1e9), to);
            let mut before = from;
            for step in 1..=18 {
                let now = eased(from, to, f64::from(step) * EASE / 18.0);
                let corner = |view: Viewport| view.to_screen((0., 0.), WIDE);
                let (a, b) = (corner(before), corner(now));
                assert!((a.0 - b.0).hypot(a.1 - b.1) < 900.0, "{before:?} {now:?}");
                assert!((now.zoom - to.zoom).abs() <= (before.zoom - to.zoom).abs());
                before = now;
            }
        }
    }
}
