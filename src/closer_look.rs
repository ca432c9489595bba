//! A second look at a part of a picture: cells of a grid, the crop that they stand for, and requests for one in a
//! reply. After "Introducing Visual Perception Token into Multimodal Large Language Model" (arXiv 2502.17425).

use crate::geometry::BoxXyxy;

/// Cells of the grid along each side of a picture.
pub const GRID: u32 = 8;

/// Cells that a request is grown by on each side.
const GROW: u32 = 1;

/// An aspect ratio beyond this is cut to [`CUT_ASPECT`].
const MAX_ASPECT: u32 = 200;
const CUT_ASPECT: u32 = 180;

const REGION_START: &str = "<|region_token_start|>";
const REGION_END: &str = "<|region_token_end|>";

/// A rectangle of cells of the 8 x 8 grid. The last column and row belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// First column.
    pub x0: u32,
    /// First row.
    pub y0: u32,
    /// Last column.
    pub x1: u32,
    /// Last row.
    pub y1: u32,
}

impl Cells {
    /// The least cells that hold the union of `boxes`, in pixels of a picture of `[width, height]`. What lies outside
    /// the picture is left out. `None` if nothing lies inside.
    pub fn of_boxes(boxes: &[BoxXyxy], [width, height]: [u32; 2]) -> Option<Self> {
        let (width, height) = (width as f32, height as f32);
        let clipped = boxes.iter().map(|bbox| BoxXyxy {
            x1: bbox.x1.min(bbox.x2).clamp(0.0, width),
            y1: bbox.y1.min(bbox.y2).clamp(0.0, height),
            x2: bbox.x1.max(bbox.x2).clamp(0.0, width),
            y2: bbox.y1.max(bbox.y2).clamp(0.0, height),
        });
        let inside = clipped.filter(|bbox| bbox.x1 < bbox.x2 && bbox.y1 < bbox.y2);
        let union = inside.reduce(|a, b| BoxXyxy {
            x1: a.x1.min(b.x1),
            y1: a.y1.min(b.y1),
            x2: a.x2.max(b.x2),
            y2: a.y2.max(b.y2),
        })?;
        let cells = GRID as f32;
        let first = |edge: f32, side: f32| (edge / side * cells) as u32;
        // A border belongs to the cell before it.
        let last = |edge: f32, side: f32| ((edge / side * cells).ceil() as u32).clamp(1, GRID) - 1;
        let (x1, y1) = (last(union.x2, width), last(union.y2, height));
        Some(Self {
            x0: first(union.x1, width).min(x1),
            y0: first(union.y1, height).min(y1),
            x1,
            y1,
        })
    }

    /// These cells and their neighbours.
    #[must_use]
    pub fn grown(self) -> Self {
        Self {
            x0: self.x0.saturating_sub(GROW),
            y0: self.y0.saturating_sub(GROW),
            x1: (self.x1 + GROW).min(GRID - 1),
            y1: (self.y1 + GROW).min(GRID - 1),
        }
    }

    /// `[left, top, right, bottom]` in pixels of a picture of `[width, height]`; the last two are exclusive. Empty where
    /// the picture has fewer pixels than the grid has cells.
    pub fn crop(self, [width, height]: [u32; 2]) -> [u32; 4] {
        let at =
            |cell: u32, side: u32| (u64::from(cell) * u64::from(side) / u64::from(GRID)) as u32;
        [
            at(self.x0, width),
            at(self.y0, height),
            at(self.x1 + 1, width),
            at(self.y1 + 1, height),
        ]
    }
}

/// What a reply asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookRequest {
    /// Nothing: it is the final answer.
    None,
    /// The picture once more, cut to each of these cells, which are as the reply names them.
    Regions(Vec<Cells>),
    /// The picture once more through a vision tower.
    Encode(Tower),
    /// A region without columns or without rows; such a reply counts as the final answer.
    Incomplete,
}

/// A vision tower that a reply can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tower {
    /// The tower of the model.
    Clip,
    /// `DINOv2-L`.
    Detection,
    /// `SAM ViT-L`.
    Segmentation,
}

impl Tower {
    const ALL: [Self; 3] = [Self::Clip, Self::Detection, Self::Segmentation];

    /// Its name in tokens and checkpoints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Detection => "detection",
            Self::Segmentation => "seg",
        }
    }
}

/// What `reply`, with its special tokens, asks for. More than one kind of request is none.
pub fn request(reply: &str) -> LookRequest {
    let asked = |tower: &Tower| reply.contains(&format!("<|{}_action_start|>", tower.name()));
    let towers: Vec<Tower> = Tower::ALL.into_iter().filter(asked).collect();
    let regions = regions(reply);
    match (&towers[..], regions.is_empty()) {
        ([tower], true) => LookRequest::Encode(*tower),
        ([], false) => match regions.into_iter().collect() {
            Some(cells) => LookRequest::Regions(cells),
            None => LookRequest::Incomplete,
        },
        _ => LookRequest::None,
    }
}

/// The regions of a reply, in order; `None` for one that lacks an axis.
fn regions(reply: &str) -> Vec<Option<Cells>> {
    let mut found = Vec::new();
    let mut rest = reply;
    while let Some(start) = rest.find(REGION_START) {
        rest = &rest[start + REGION_START.len()..];
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        let mut tail = rest;
        while let Some((is_column, index, after)) = cell_token(tail) {
            if is_column { &mut columns } else { &mut rows }.push(index);
            tail = after;
        }
        let is_any = !columns.is_empty() || !rows.is_empty();
        if let (true, Some(after)) = (is_any, tail.strip_prefix(REGION_END)) {
            rest = after;
            let ends = |cells: &[u32]| Some((*cells.iter().min()?, *cells.iter().max()?));
            let region = ends(&columns).zip(ends(&rows));
            found.push(region.map(|((x0, x1), (y0, y1))| Cells { x0, y0, x1, y1 }));
        }
    }
    found
}

/// The token `<|x_i|>` or `<|y_i|>` at the start of `text`: whether it is a column, `i`, and the text behind it.
fn cell_token(text: &str) -> Option<(bool, u32, &str)> {
    let (is_column, rest) = match text.strip_prefix("<|x_") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("<|y_")?),
    };
    let index = rest.chars().next()?.to_digit(GRID)?;
    Some((is_column, index, rest[1..].strip_prefix("|>")?))
}

/// The user's turn that follows a request for `count` regions. `<image>` stands for the crop of each.
pub fn second_turn(count: usize) -> String {
    match count {
        1 => "<image>".into(),
        _ => (0..count)
            .map(|region| format!("Region {region}: <image>\n"))
            .collect(),
    }
}

/// The size that the reference shrinks a picture of `[width, height]` to: at most `longer` along the longer side, at
/// least `shorter` along both, of a limited aspect ratio. `None` if it has no pixel or shrinks to none.
pub fn shrunk([width, height]: [u32; 2], longer: u32, shorter: u32) -> Option<[u32; 2]> {
    let side = width.max(height);
    let shrink = |length: u32| match side > longer {
        true => (u64::from(length) * u64::from(longer) / u64::from(side)) as u32,
        false => length,
    };
    let sides = [width, height].map(shrink);
    if sides.contains(&0) {
        return None;
    }
    let [width, height] = sides.map(|length| length.max(shorter));
    let cut = |length: u32, other: u32| match length > MAX_ASPECT.saturating_mul(other) {
        true => CUT_ASPECT * other,
        false => length,
    };
    Some([cut(width, height), cut(height, width)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [u32; 2] = [640, 480];

    fn cells(x0: u32, y0: u32, x1: u32, y1: u32) -> Cells {
        Cells { x0, y0, x1, y1 }
    }

    #[test]
    fn cells_hold_the_boxes_and_no_more() {
        let of = |boxes: &[[f32; 4]]| {
            let boxes: Vec<BoxXyxy> = boxes.iter().map(|&bbox| bbox.into()).collect();
            Cells::of_boxes(&boxes, SIZE)
        };
        assert_eq!(of(&[[0.0, 0.0, 80.0, 60.0]]), Some(cells(0, 0, 0, 0)));
        assert_eq!(of(&[[80.0, 60.0, 80.5, 121.0]]), Some(cells(1, 1, 1, 2)));
        assert_eq!(of(&[[90.0, 70.0, 85.0, 65.0]]), Some(cells(1, 1, 1, 1)));
        assert_eq!(of(&[[-50.0, -9.0, 900.0, 999.0]]), Some(cells(0, 0, 7, 7)));
        let two = [[100.0, 300.0, 120.0, 310.0], [500.0, 10.0, 560.0, 20.0]];
        assert_eq!(of(&two), Some(cells(1, 0, 6, 5)));
        assert_eq!(of(&[[700.0, 0.0, 800.0, 10.0]]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[[f32::NAN, 0.0, 5.0, 5.0]]), None);
    }

    #[test]
    fn crops_are_those_of_grown_cells() {
        assert_eq!(cells(2, 1, 4, 3).grown().crop(SIZE), [80, 0, 480, 300]);
        assert_eq!(cells(0, 7, 7, 7).grown(), cells(0, 6, 7, 7));
        assert_eq!(cells(3, 3, 3, 3).crop([4, 4]), [1, 1, 2, 2]);
        assert_eq!(cells(0, 0, 0, 0).crop([4, 4]), [0, 0, 0, 0]);
    }

    #[test]
    fn requests_are_read_whole_or_not_at_all() {
        let region = |inside: &str| format!("{REGION_START}{inside}{REGION_END}");
        let one = |x0, y0, x1, y1| LookRequest::Regions(vec![cells(x0, y0, x1, y1)]);
        assert_eq!(
            request(&region("<|y_5|><|x_6|><|y_2|><|x_1|>")),
            one(1, 2, 6, 5)
        );
        assert_eq!(request(&region("<|x_1|>")), LookRequest::Incomplete);
        assert_eq!(request(&region("<|x_8|><|y_1|>")), LookRequest::None);
        assert_eq!(request(&region("<|x_é|><|y_1|>")), LookRequest::None);
        assert_eq!(request(&region(" <|x_1|><|y_1|>")), LookRequest::None);
        let nested = format!("{REGION_START}{}", region("<|x_1|><|y_2|>"));
        assert_eq!(request(&nested), one(1, 2, 1, 2));
        let clip = "<|clip_action_start|>";
        assert_eq!(request(clip), LookRequest::Encode(Tower::Clip));
        let both = format!("{clip}{}", region("<|x_1|><|y_1|>"));
        assert_eq!(request(&both), LookRequest::None);
        assert_eq!(request("A plain answer."), LookRequest::None);
    }

    #[test]
    fn sizes_shrink_to_whole_pixels_within_limits() {
        assert_eq!(shrunk([1024, 300], 512, 28), Some([512, 150]));
        assert_eq!(shrunk([10, 20], 512, 28), Some([28, 28]));
        assert_eq!(shrunk([6000, 10], 6000, 28), Some([28 * 180, 28]));
        assert_eq!(shrunk([2000, 1], 512, 28), None);
        assert_eq!(shrunk([0, 9], 512, 28), None);
    }
}
