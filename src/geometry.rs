//! Boxes: corner and centre forms, area, overlap, non-maximum suppression.

use serde::{Deserialize, Serialize};

/// A box by its corners, `x1, y1, x2, y2`; the unit is the caller's (usually pixels of the
/// original picture). No order of corners is promised: networks may return inverted boxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 4]", into = "[f32; 4]")]
pub struct BoxXyxy {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
}

impl From<[f32; 4]> for BoxXyxy {
    fn from([x1, y1, x2, y2]: [f32; 4]) -> Self {
        Self { x1, y1, x2, y2 }
    }
}

impl From<BoxXyxy> for [f32; 4] {
    fn from(b: BoxXyxy) -> Self {
        [b.x1, b.y1, b.x2, b.y2]
    }
}

impl BoxXyxy {
    /// Signed width times height, as `torchvision.ops.box_area` computes it.
    pub fn area(&self) -> f32 {
        (self.x2 - self.x1) * (self.y2 - self.y1)
    }

    /// Intersection over union; NaN where both areas are zero.
    pub fn iou(&self, other: &Self) -> f32 {
        let w = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.0);
        let h = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.0);
        let inter = w * h;
        inter / (self.area() + other.area() - inter)
    }
}
