//! Where the labels of boxes go: next to their box, inside the picture, not over each other.

use crate::geometry::BoxXyxy;

/// Height of a plate in screen pixels.
pub const HEIGHT: f32 = 18.0;

/// Space between the plates of two labels in screen pixels.
const GAP: f32 = 1.0;

/// Space left and right of a text on its plate in screen pixels.
pub const PADDING: f32 = 5.0;

/// A label to be placed.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Its box in screen pixels.
    pub bbox: BoxXyxy,
    /// The number.
    pub number: String,
    /// The words beside the number; may be empty.
    pub words: String,
    /// Labels of a lower rank are placed first.
    pub rank: u8,
    /// Distance from the edges of the box in screen pixels, for handles.
    pub margin: f32,
}

/// A placed label: plates in screen pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// The plate of the number.
    pub number: BoxXyxy,
    /// The plate of the words, right of the number; `None` where there is no room.
    pub words: Option<BoxXyxy>,
}

/// Width of a text in screen pixels at the size of the labels, estimated from its letters.
pub fn text_width(text: &str) -> f32 {
    text.chars()
        .map(|letter| match letter {
            'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | '\'' | '|' => 3.9,
            'f' | 'r' | 't' | ' ' | '(' | ')' | '-' => 5.0,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 11.3,
            '\u{1100}'.. => 13.6,
            'A'..='Z' => 8.9,
            _ => 7.6,
        })
        .sum()
}

/// Labels of this rank and below keep their words before others get a place.
const FIRST_RANKS: u8 = 2;

/// Places the labels in `area`, the visible part of the picture in screen pixels: first those of the
/// first ranks with their words, then the numbers of the others, then words where room is left. A
/// label whose words find no room shows its number only. `None` for a box out of view.
pub fn place(labels: &[Label], area: BoxXyxy) -> Vec<Option<Placed>> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&index| labels[index].rank);
    let mut out: Vec<Option<Placed>> = vec![None; labels.len()];
    let mut taken: Vec<BoxXyxy> = Vec::with_capacity(2 * labels.len());
    for &index in &order {
        let label = &labels[index];
        let Some(visible) = intersection(label.bbox, area) else {
            continue;
        };
        let number = (text_width(&label.number) + 2.0 * PADDING).max(HEIGHT);
        let free = |width: f32| {
            let is_free = |plate: &BoxXyxy| taken.iter().all(|other| !overlaps(plate, other));
            corners(visible, width, label.margin, area)
                .into_iter()
                .find(is_free)
        };
        let with_words = words_width(label)
            .filter(|_| label.rank <= FIRST_RANKS)
            .and_then(|words| free(number + words));
        let plate = with_words.or_else(|| free(number));
        // Where nothing is free the number lies in the corner of its box, over what is there.
        let plate = plate.unwrap_or_else(|| corner(visible.x1, visible.y1, number, area));
        taken.push(plate);
        let split = plate.x1 + number;
        out[index] = Some(Placed {
            number: [plate.x1, plate.y1, split, plate.y2].into(),
            words: with_words.map(|_| [split, plate.y1, plate.x2, plate.y2].into()),
        });
    }
    for index in order {
        let (Some(width), Some(placed)) = (words_width(&labels[index]), &mut out[index]) else {
            continue;
        };
        let number = placed.number;
        let words: BoxXyxy = [number.x2, number.y1, number.x2 + width, number.y2].into();
        let is_number = |other: &BoxXyxy| (other.x1, other.y1) == (number.x1, number.y1);
        let is_free = (taken.iter()).all(|other| is_number(other) || !overlaps(&words, other));
        if placed.words.is_none() && words.x2 <= area.x2 && is_free {
            placed.words = Some(words);
            taken.push(words);
        }
    }
    out
}

fn words_width(label: &Label) -> Option<f32> {
    (!label.words.is_empty()).then(|| text_width(&label.words) + 2.0 * PADDING)
}

/// Plates of a width at a box, best first: above it, inside at the top, below, inside at the bottom,
/// each at the left and at the right; then beside it, and further along its edges.
fn corners(b: BoxXyxy, width: f32, margin: f32, area: BoxXyxy) -> Vec<BoxXyxy> {
    /// How often a plate moves on along an edge.
    const STEPS: usize = 8;
    let (left, right) = (b.x1, b.x2 - width);
    let (above, below) = (b.y1 - margin - HEIGHT, b.y2 + margin);
    let (top, bottom) = (b.y1 + margin, b.y2 - margin - HEIGHT);
    let (inner_left, inner_right) = (left + margin, right - margin);
    let (before, behind) = (left - margin - width, b.x2 + margin);
    let places = [
        (left, above),
        (right, above),
        (inner_left, top),
        (inner_right, top),
        (left, below),
        (right, below),
        (inner_left, bottom),
        (inner_right, bottom),
        (behind, b.y1),
        (before, b.y1),
        (behind, b.y2 - HEIGHT),
        (before, b.y2 - HEIGHT),
        (inner_left, top + HEIGHT + 2.0),
        (inner_right, top + HEIGHT + 2.0),
        (left, below + HEIGHT + 2.0),
        (behind, b.y1 + HEIGHT + 2.0),
        (before, b.y1 + HEIGHT + 2.0),
    ];
    let fits = |(_, top): &(f32, f32)| *top >= area.y1 && top + HEIGHT <= area.y2;
    let along = (1..=STEPS).flat_map(|step| {
        let (x, y) = (step as f32 * (width + 2.0), step as f32 * (HEIGHT + 2.0));
        let is_wide = left + x <= right;
        let is_high = top + y <= bottom;
        let wide = is_wide.then_some([(left + x, above), (left + x, top), (left + x, bottom)]);
        let high = is_high.then_some([(inner_left, top + y), (inner_right, top + y)]);
        (wide.into_iter().flatten()).chain(high.into_iter().flatten())
    });
    places
        .into_iter()
        .chain(along)
        .filter(fits)
        .map(|(left, top)| corner(left, top, width, area))
        .collect()
}

/// A plate at a corner, moved into `area` as far as it fits.
fn corner(left: f32, top: f32, width: f32, area: BoxXyxy) -> BoxXyxy {
    let x = left.min(area.x2 - width).max(area.x1);
    let y = top.min(area.y2 - HEIGHT).max(area.y1);
    [x, y, x + width, y + HEIGHT].into()
}

/// The common part of a box and an area; `None` where there is none.
fn intersection(b: BoxXyxy, area: BoxXyxy) -> Option<BoxXyxy> {
    let common: BoxXyxy = [
        b.x1.max(area.x1),
        b.y1.max(area.y1),
        b.x2.min(area.x2),
        b.y2.min(area.y2),
    ]
    .into();
    (common.x1 <= common.x2 && common.y1 <= common.y2).then_some(common)
}

fn overlaps(a: &BoxXyxy, b: &BoxXyxy) -> bool {
    a.x1 < b.x2 + GAP && b.x1 < a.x2 + GAP && a.y1 < b.y2 + GAP && b.y1 < a.y2 + GAP
}

/// Where a bar of `size` goes at a box: below it, else above it, else at its right or left, else over
/// its lower part; always in the pane. All in screen pixels; returns the bar's upper left corner.
pub fn bar_place(b: BoxXyxy, size: (f32, f32), pane: (f32, f32)) -> (f32, f32) {
    const DISTANCE: f32 = 10.0;
    let (width, height) = size;
    let in_pane = |at: f32, length: f32, end: f32| at.min(end - length).max(0.0);
    let x = in_pane((b.x1 + b.x2 - width) / 2.0, width, pane.0);
    let (below, above) = (b.y2 + DISTANCE, b.y1 - DISTANCE - height);
    if below + height <= pane.1 && below >= 0.0 {
        return (x, below);
    }
    if above >= 0.0 && above + height <= pane.1 {
        return (x, above);
    }
    let y = in_pane((b.y1 + b.y2 - height) / 2.0, height, pane.1);
    let (right, left) = (b.x2 + DISTANCE, b.x1 - DISTANCE - width);
    if right + width <= pane.0 && right >= 0.0 {
        return (right, y);
    }
    if left >= 0.0 && left + width <= pane.0 {
        return (left, y);
    }
    (x, in_pane(b.y2 - height - DISTANCE, height, pane.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: [f32; 4] = [0., 0., 400., 300.];

    fn label(bbox: [f32; 4], words: &str, rank: u8) -> Label {
        Label {
            bbox: bbox.into(),
            number: "3".into(),
            words: words.into(),
            rank,
            margin: 0.0,
        }
    }

    fn top_left(placed: Option<Placed>) -> Option<(f32, f32)> {
        placed.map(|p| (p.number.x1, p.number.y1))
    }

    #[test]
    fn a_label_lies_above_its_box_or_inside_at_the_edge() {
        let cases = [
            ([100., 100., 200., 200.], Some((100., 82.))),
            ([100., 5., 200., 200.], Some((100., 5.))),
            ([395., 100., 399., 200.], Some((382., 82.))),
            ([-50., 100., 60., 200.], Some((0., 82.))),
            ([100., -50., 200., 350.], Some((100., 0.))),
            ([100., 295., 200., 299.], Some((100., 277.))),
            ([500., 100., 600., 200.], None),
        ];
        for (bbox, expected) in cases {
            let placed = place(&[label(bbox, "", 0)], AREA.into());
            assert_eq!(top_left(placed[0]), expected, "{bbox:?}");
            assert!(placed[0].is_none_or(|p| p.words.is_none()));
        }
    }

    #[test]
    fn a_label_keeps_off_the_handles() {
        let cases = [
            ([100., 100., 200., 200.], (100., 74.)),
            ([100., 5., 200., 200.], (108., 13.)),
        ];
        for (bbox, expected) in cases {
            let label = Label {
                margin: 8.0,
                ..label(bbox, "cat", 0)
            };
            assert_eq!(top_left(place(&[label], AREA.into())[0]), Some(expected));
        }
    }

    #[test]
    fn number_and_words_have_plates_side_by_side() {
        let [Some(placed)] = place(&[label([100., 100., 200., 200.], "cat", 0)], AREA.into())[..]
        else {
            panic!("one label");
        };
        let words = placed.words.expect("there is room");
        assert_eq!(words.x1, placed.number.x2);
        assert_eq!((words.y1, words.y2), (placed.number.y1, placed.number.y2));
        assert!((words.x2 - words.x1 - text_width("cat") - 2.0 * PADDING).abs() < 1e-3);
    }

    #[test]
    fn no_two_labels_overlap_while_there_is_room() {
        let bbox = |i: usize| {
            let (x, y) = ((i % 5) as f32 * 70.0, (i / 5) as f32 * 60.0);
            [x, y + 5., x + 90., y + 70.]
        };
        let labels: Vec<_> = (0..20).map(|i| label(bbox(i), "a phrase", 1)).collect();
        let placed: Vec<_> = place(&labels, AREA.into()).into_iter().flatten().collect();
        assert_eq!(placed.len(), 20);
        let plate = |p: &Placed| -> BoxXyxy {
            let end = p.words.map_or(p.number.x2, |words| words.x2);
            [p.number.x1, p.number.y1, end, p.number.y2].into()
        };
        for (i, a) in placed.iter().enumerate() {
            let a = plate(a);
            assert!(
                a.x1 >= 0. && a.y1 >= 0. && a.x2 <= 400. && a.y2 <= 300.,
                "{a:?}"
            );
            for b in &placed[..i] {
                assert!(!overlaps(&a, &plate(b)), "{a:?} {b:?}");
            }
        }
        assert!(placed.iter().any(|p| p.words.is_some()));
    }

    #[test]
    fn words_take_no_room_from_numbers() {
        let bbox = [10., 30., 390., 290.];
        let labels: Vec<_> = (0..20).map(|_| label(bbox, "a phrase", 3)).collect();
        let placed: Vec<_> = place(&labels, AREA.into()).into_iter().flatten().collect();
        let plates: Vec<_> = (placed.iter())
            .flat_map(|p| [Some(p.number), p.words])
            .collect();
        let plates: Vec<_> = plates.into_iter().flatten().collect();
        assert_eq!(placed.len(), 20);
        assert!(plates.len() > 20, "some have words");
        for (i, a) in plates.iter().enumerate() {
            for b in &plates[..i] {
                let apart = a.x1 >= b.x2 || b.x1 >= a.x2 || a.y1 >= b.y2 || b.y1 >= a.y2;
                assert!(apart, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn words_without_room_are_dropped_and_a_lower_rank_keeps_them() {
        let narrow = [0., 0., 70., 20.];
        let same = [0., 0., 70., 20.];
        let labels = [label(same, "a phrase", 1), label(same, "a phrase", 0)];
        let placed = place(&labels, narrow.into());
        let words: Vec<_> = (placed.iter())
            .map(|p| p.is_some_and(|p| p.words.is_some()))
            .collect();
        assert_eq!(words, [false, true]);
    }

    #[test]
    fn the_bar_lies_below_its_box_or_where_it_fits() {
        let cases = [
            ([100., 50., 200., 100.], (50., 110.)),
            ([100., 200., 200., 280.], (50., 150.)),
            ([0., 50., 20., 100.], (0., 110.)),
            ([390., 50., 400., 100.], (200., 110.)),
            ([10., 0., 110., 300.], (120., 130.)),
            ([290., 0., 390., 300.], (80., 130.)),
            ([0., 0., 400., 300.], (100., 250.)),
            ([100., -900., 200., -500.], (50., 0.)),
        ];
        for (b, expected) in cases {
            let place = bar_place(b.into(), (200., 40.), (400., 300.));
            assert_eq!(place, expected, "{b:?}");
        }
    }
}
