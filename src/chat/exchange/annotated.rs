//! The plan of an annotated picture: outlines, labels and a footer, in pixels of the picture. The page draws
//! it on a canvas.

use super::marked::{MarkedBox, Sheet};
use crate::geometry::BoxXyxy;
use crate::protocol::ImageSize;

/// Okabe-Ito without black, with the text colour on each; the page's style sheet has the same.
const PALETTE: [(&str, &str); 7] = [
    ("#e69f00", "#111111"),
    ("#56b4e9", "#111111"),
    ("#009e73", "#111111"),
    ("#f0e442", "#111111"),
    ("#0072b2", "#ffffff"),
    ("#d55e00", "#111111"),
    ("#cc79a7", "#111111"),
];
const WHITE: &str = "#ffffff";
const BLACK: &str = "#111111";
/// Behind labels of boxes that the answer does not name.
const PLATE: &str = "rgb(24 24 26 / 0.78)";
const DARK_HALO: &str = "rgb(0 0 0 / 0.62)";
const LIGHT_HALO: &str = "rgb(255 255 255 / 0.85)";
/// Labels longer than this many characters are cut.
const LABEL_CHARS: usize = 40;

/// Line width and text size in pixels of the picture, and what is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Width of the outlines.
    pub line: f32,
    /// Height of the letters.
    pub text: f32,
    /// Whether labels have words beside the number.
    pub words: bool,
}

impl Style {
    /// The widest line.
    pub const MAX_LINE: f32 = 40.0;
    /// The largest and the smallest text.
    pub const TEXT: (f32, f32) = (6.0, 200.0);

    /// What is readable when the picture is shown as a whole.
    pub fn automatic(size: ImageSize) -> Self {
        let side = (size.width as f32 * size.height as f32).sqrt();
        Self {
            line: (side / 320.0).round().clamp(2.0, Self::MAX_LINE),
            text: (side / 36.0).round().clamp(10.0, Self::TEXT.1),
            words: true,
        }
    }
}

/// A thing to draw.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// The outline of a box.
    Outline {
        /// Its edges, the middle of the line.
        bbox: BoxXyxy,
        /// Line width.
        width: f32,
        /// A CSS colour.
        color: &'static str,
        /// Lengths of dashes and gaps; empty for a solid line.
        dash: Vec<f32>,
    },
    /// A filled box.
    Fill {
        /// Its edges.
        bbox: BoxXyxy,
        /// A CSS colour.
        color: &'static str,
    },
    /// A line of text.
    Text {
        /// Its beginning.
        x: f32,
        /// Its base line.
        y: f32,
        /// Height of the letters.
        size: f32,
        /// A CSS colour.
        color: &'static str,
        /// Whether it is bold.
        bold: bool,
        /// The text.
        text: String,
    },
}

/// The size of the whole and what is drawn over the picture, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Columns, those of the picture.
    pub width: u32,
    /// Rows, those of the picture and of the footer.
    pub height: u32,
    /// The marks.
    pub marks: Vec<Mark>,
}

/// Plans an annotated picture. `footer` is a question and its answer; `measure` gives the width of a text
/// from its size and whether it is bold.
pub fn plan(
    sheet: &Sheet,
    style: Style,
    footer: Option<(&str, &str)>,
    measure: &mut dyn FnMut(&str, f32, bool) -> f32,
) -> Plan {
    let mut marks = Vec::new();
    for marked in &sheet.boxes {
        outline(marked, style, &mut marks);
    }
    let mut plates: Vec<BoxXyxy> = Vec::new();
    for marked in &sheet.boxes {
        label(marked, sheet.size, style, &mut plates, &mut marks, measure);
    }
    let mut height = sheet.size.height;
    if let Some((question, answer)) = footer {
        height += write_footer(sheet.size, style, (question, answer), &mut marks, measure);
    }
    Plan {
        width: sheet.size.width,
        height,
        marks,
    }
}

fn colors(marked: &MarkedBox) -> (&'static str, &'static str, &'static str, &'static str) {
    match marked.hue {
        Some(hue) => {
            let hue = hue % PALETTE.len();
            let (color, on) = PALETTE[hue];
            let halo = if hue == 4 { LIGHT_HALO } else { DARK_HALO };
            (color, halo, color, on)
        }
        None => (WHITE, DARK_HALO, PLATE, WHITE),
    }
}

fn outline(marked: &MarkedBox, style: Style, marks: &mut Vec<Mark>) {
    let (color, halo, ..) = colors(marked);
    let line = style.line;
    let dash = match marked.dash {
        _ if marked.is_own() => vec![4.5 * line, 2.0 * line],
        0 => Vec::new(),
        1 => vec![3.5 * line, 2.0 * line],
        _ => vec![line, 1.5 * line],
    };
    for (color, width, dash) in [(halo, 2.0 * line, Vec::new()), (color, line, dash)] {
        marks.push(Mark::Outline {
            bbox: marked.bbox,
            width,
            color,
            dash,
        });
    }
}

/// Puts a label where it covers least of other labels: above the box, inside it, below it, or at the right
/// end of these.
fn label(
    marked: &MarkedBox,
    size: ImageSize,
    style: Style,
    plates: &mut Vec<BoxXyxy>,
    marks: &mut Vec<Mark>,
    measure: &mut dyn FnMut(&str, f32, bool) -> f32,
) {
    let (.., plate, on) = colors(marked);
    let words = marked.label.as_deref().filter(|_| style.words);
    let text = match words {
        Some(words) => {
            let cut: String = words.chars().take(LABEL_CHARS).collect();
            let more = if cut.len() < words.len() { "…" } else { "" };
            format!("{} {cut}{more}", marked.number)
        }
        None => marked.number.to_string(),
    };
    let pad = style.text * 0.35;
    let width = measure(&text, style.text, true) + 2.0 * pad;
    let height = style.text * 1.4;
    let (right, bottom) = (size.width as f32, size.height as f32);
    let b = marked.bbox;
    let places = [
        (b.x1, b.y1 - height),
        (b.x1, b.y1),
        (b.x1, b.y2),
        (b.x2 - width, b.y1 - height),
        (b.x2 - width, b.y1),
        (b.x2 - width, b.y2),
        (b.x1, b.y2 - height),
    ];
    let at = |(x, y): (f32, f32)| {
        let x = x.min(right - width).max(0.0);
        let y = y.min(bottom - height).max(0.0);
        BoxXyxy::from([x, y, x + width, y + height])
    };
    let covers = |place: &BoxXyxy| -> f32 { plates.iter().map(|other| shared(place, other)).sum() };
    let places = places.map(at).into_iter();
    let best = places.min_by(|a, b| covers(a).total_cmp(&covers(b)));
    let bbox = best.unwrap_or(b);
    plates.push(bbox);
    marks.push(Mark::Fill { bbox, color: plate });
    marks.push(Mark::Text {
        x: bbox.x1 + pad,
        y: bbox.y1 + style.text * 1.05,
        size: style.text,
        color: on,
        bold: true,
        text,
    });
}

/// The area that two boxes share.
fn shared(a: &BoxXyxy, b: &BoxXyxy) -> f32 {
    let width = (a.x2.min(b.x2) - a.x1.max(b.x1)).max(0.0);
    width * (a.y2.min(b.y2) - a.y1.max(b.y1)).max(0.0)
}

/// Writes question and answer below the picture; returns the height that they take.
fn write_footer(
    size: ImageSize,
    style: Style,
    (question, answer): (&str, &str),
    marks: &mut Vec<Mark>,
    measure: &mut dyn FnMut(&str, f32, bool) -> f32,
) -> u32 {
    let margin = style.text * 0.8;
    let room = (size.width as f32 - 2.0 * margin).max(1.0);
    let mut lines: Vec<(String, bool)> = Vec::new();
    for (text, bold) in [(question, true), (answer, false)] {
        let mut width = |text: &str| measure(text, style.text, bold);
        lines.extend(
            wrap(text, room, &mut width)
                .into_iter()
                .map(|line| (line, bold)),
        );
    }
    let step = style.text * 1.45;
    let height = (lines.len() as f32 * step + 2.0 * margin).ceil() as u32;
    let top = size.height as f32;
    marks.push(Mark::Fill {
        bbox: [0.0, top, size.width as f32, top + height as f32].into(),
        color: WHITE,
    });
    for (index, (text, bold)) in lines.into_iter().enumerate() {
        marks.push(Mark::Text {
            x: margin,
            y: top + margin + style.text + index as f32 * step,
            size: style.text,
            color: BLACK,
            bold,
            text,
        });
    }
    height
}

/// Lines no wider than `room`; a word that is wider is cut.
fn wrap(text: &str, room: f32, width: &mut dyn FnMut(&str) -> f32) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.trim().lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = match line.as_str() {
                "" => word.to_owned(),
                line => format!("{line} {word}"),
            };
            if width(&longer) <= room {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for c in word.chars() {
                line.push(c);
                if width(&line) > room && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, c.to_string()));
                }
            }
        }
        lines.push(line);
    }
    lines
}

/// A rectangle of whole pixels: left, top, width, height.
pub type PixelRect = (u32, u32, u32, u32);

/// The pixels that boxes touch, to cover them. Pixels at an edge count as a whole.
pub fn covered(sheet: &Sheet) -> Vec<PixelRect> {
    let (width, height) = (sheet.size.width, sheet.size.height);
    let rect = |b: BoxXyxy| {
        let (x1, y1) = (b.x1.floor() as u32, b.y1.floor() as u32);
        let (x2, y2) = (
            (b.x2.ceil() as u32).min(width),
            (b.y2.ceil() as u32).min(height),
        );
        (x1, y1, x2.saturating_sub(x1), y2.saturating_sub(y1))
    };
    let rects = sheet.boxes.iter().map(|b| rect(b.bbox));
    rects.filter(|&(_, _, w, h)| w > 0 && h > 0).collect()
}

/// The size to which a covered part is shrunk before it is drawn large again: at most 6 pixels at its longer
/// side, so that faces and letters are lost.
pub fn shrunk((_, _, width, height): PixelRect) -> (u32, u32) {
    let longer = width.max(height).max(1);
    let small = |side: u32| (side * 6).div_ceil(longer).clamp(1, side.max(1));
    (small(width), small(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::exchange::test_sheet::sheet;

    const STYLE: Style = Style {
        line: 2.0,
        text: 10.0,
        words: true,
    };

    /// Letters half as wide as high.
    fn half(text: &str, size: f32, _: bool) -> f32 {
        text.chars().count() as f32 * size / 2.0
    }

    fn texts(plan: &Plan) -> Vec<&str> {
        let texts = plan.marks.iter().filter_map(|mark| match mark {
            Mark::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn every_box_has_a_halo_a_line_and_a_label() {
        let plan = plan(&sheet(), STYLE, None, &mut half);
        assert_eq!((plan.width, plan.height), (100, 80));
        assert_eq!(plan.marks.len(), 3 * 4);
        assert_eq!(texts(&plan), ["0 black cat", "1", "2 lamp"]);
        let Mark::Outline { width, color, .. } = &plan.marks[0] else {
            panic!("the halo comes first");
        };
        assert_eq!((*width, *color), (4.0, DARK_HALO));
        let colors: Vec<_> = (plan.marks.iter())
            .filter_map(|mark| match mark {
                Mark::Outline {
                    color, width: 2.0, ..
                } => Some(*color),
                _ => None,
            })
            .collect();
        assert_eq!(colors, ["#e69f00", WHITE, "#56b4e9"]);
    }

    #[test]
    fn labels_stay_in_the_picture_and_apart() {
        let small = Style { text: 6.0, ..STYLE };
        let plan = plan(&sheet(), small, None, &mut half);
        let plates: Vec<BoxXyxy> = (plan.marks.iter())
            .filter_map(|mark| match mark {
                Mark::Fill { bbox, .. } => Some(*bbox),
                _ => None,
            })
            .collect();
        for (i, a) in plates.iter().enumerate() {
            assert!(
                a.x1 >= 0.0 && a.y1 >= 0.0 && a.x2 <= 100.0 && a.y2 <= 80.0,
                "{a:?}"
            );
            for b in &plates[i + 1..] {
                assert_eq!(shared(a, b), 0.0, "{a:?} {b:?}");
            }
        }
        let numbers = Style {
            words: false,
            ..STYLE
        };
        let plan = super::plan(&sheet(), numbers, None, &mut half);
        assert_eq!(texts(&plan), ["0", "1", "2"]);
    }

    #[test]
    fn the_footer_makes_the_picture_higher_and_wraps() {
        let none = Sheet {
            boxes: Vec::new(),
            ..sheet()
        };
        let footer = Some(("What is here?", "a cat and\n\nanother very long answer"));
        let plan = plan(&none, STYLE, footer, &mut half);
        let expected = [
            "What is here?",
            "a cat and",
            "",
            "another very",
            "long answer",
        ];
        assert_eq!(texts(&plan), expected);
        assert_eq!(plan.height, 80 + (5.0 * 14.5 + 16.0_f32).ceil() as u32);
        let mut width = |text: &str| text.len() as f32;
        assert_eq!(
            wrap("abcdefg hi", 3.0, &mut width),
            ["abc", "def", "g", "hi"]
        );
        assert_eq!(wrap("ab", 0.5, &mut width), ["a", "b"]);
    }

    #[test]
    fn sizes_grow_with_the_picture() {
        let of = |width, height| Style::automatic(ImageSize { width, height });
        let (small, large) = (of(200, 100), of(6000, 4000));
        assert_eq!((small.line, small.text), (2.0, 10.0));
        assert!(large.line > 10.0 && large.text > 100.0, "{large:?}");
        assert!(large.line <= Style::MAX_LINE && large.text <= Style::TEXT.1);
    }

    #[test]
    fn covered_pixels_contain_the_whole_box() {
        assert_eq!(covered(&sheet())[2], (40, 30, 20, 20));
        for (rect, expected) in [
            ((0, 0, 100, 50), (6, 3)),
            ((5, 5, 3, 2), (3, 2)),
            ((0, 0, 1, 900), (1, 6)),
        ] {
            assert_eq!(shrunk(rect), expected);
        }
    }
}
