//! A click as a prompt: the smallest proposal under the pointer, whatever its score; further clicks on the
//! same point go to the next larger one, around the end.

use crate::chat::box_drawing::Point;
use crate::chat::candidates::{BoxId, Candidates};
use crate::geometry::{BoxXyxy, Proposal};

/// Coordinates that differ by at most this many pixels are the same.
const SAME_PIXELS: f32 = 0.5;

/// The last click.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PointPick {
    last: Option<(Point, BoxXyxy)>,
    /// The box of the user that the last click added.
    added: Option<BoxId>,
}

/// What a click does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pick {
    /// The box is there already: it is selected. The box that the last click added is removed.
    Select(BoxId, Option<BoxId>),
    /// The proposal becomes a box of the user.
    Add(BoxXyxy),
    /// The box that the last click added gets the shape of the next proposal.
    Replace(BoxId, BoxXyxy),
}

impl PointPick {
    /// A click at a point of the picture, both in its pixels as `slack`, the distance within which a click
    /// is on the same point. `candidates` are the boxes that are there, `selected` is the only selected one.
    pub fn click(
        &mut self,
        at: Point,
        slack: f32,
        proposals: &[Proposal],
        candidates: &Candidates,
        selected: Option<BoxId>,
    ) -> Option<Pick> {
        let under = under(proposals, at);
        let is_near = |(x, y): Point| (x - at.0).abs().max((y - at.1).abs()) <= slack;
        let last = self.last.filter(|(point, _)| is_near(*point));
        // A box that the user left meanwhile stays as it is.
        let added = self
            .added
            .filter(|_| last.is_some() && selected == self.added);
        let place = last.and_then(|(_, b)| under.iter().position(|other| is_same(other, &b)));
        let next = place.map_or(0, |place| (place + 1) % under.len());
        let bbox = *under.get(next)?;
        self.last = Some((last.map_or(at, |(point, _)| point), bbox));
        self.added = added;
        let mut known = candidates.boxes.iter();
        let known = known.find(|c| Some(c.id) != added && is_same(&c.bbox, &bbox));
        Some(match (known, added) {
            (Some(known), added) => {
                self.added = None;
                Pick::Select(known.id, added)
            }
            (None, Some(added)) => Pick::Replace(added, bbox),
            (None, None) => Pick::Add(bbox),
        })
    }

    /// The box that the last click added.
    pub fn on_added(&mut self, id: BoxId) {
        self.added = Some(id);
    }
}

/// The distinct proposals under a point, the smallest first.
fn under(proposals: &[Proposal], (x, y): Point) -> Vec<BoxXyxy> {
    let holds = |b: &BoxXyxy| x >= b.x1 && x <= b.x2 && y >= b.y1 && y <= b.y2;
    let mut all: Vec<BoxXyxy> = Vec::new();
    for bbox in proposals.iter().map(|p| p.bbox).filter(holds) {
        if !all.iter().any(|other| is_same(other, &bbox)) {
            all.push(bbox);
        }
    }
    all.sort_by(|a, b| a.area().total_cmp(&b.area()));
    all
}

fn is_same(a: &BoxXyxy, b: &BoxXyxy) -> bool {
    let (a, b) = (<[f32; 4]>::from(*a), <[f32; 4]>::from(*b));
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME_PIXELS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::candidates::Candidate;
    use crate::protocol::Granularity;

    const SMALL: [f32; 4] = [40., 40., 50., 50.];
    const MIDDLE: [f32; 4] = [30., 30., 60., 60.];
    const LARGE: [f32; 4] = [0., 0., 90., 90.];

    #[test]
    fn clicks_pick_the_smallest_proposal_and_then_larger_ones() {
        let proposal = |b: [f32; 4]| Proposal::unlabelled(b.into(), 0.1);
        let proposals = [LARGE, SMALL, MIDDLE, MIDDLE].map(proposal);
        let found = BoxId::Found(Granularity::Coarse, 2);
        let candidates = Candidates {
            boxes: vec![Candidate {
                id: found,
                bbox: MIDDLE.into(),
                score: Some(0.9),
                label: None,
            }],
            left_out: 0,
        };
        let (own, second) = (BoxId::Own(7), BoxId::Own(8));
        let mut pick = PointPick::default();
        let mut click = |at, selected, adds: Option<BoxId>| {
            let picked = pick.click(at, 2.0, &proposals, &candidates, selected);
            adds.into_iter().for_each(|id| pick.on_added(id));
            picked
        };
        let add = |b: [f32; 4]| Some(Pick::Add(b.into()));
        assert_eq!(click((45., 45.), None, Some(own)), add(SMALL));
        let picked = click((46., 45.), Some(own), None);
        assert_eq!(
            picked,
            Some(Pick::Select(found, Some(own))),
            "it is there already"
        );
        assert_eq!(click((45., 44.), Some(found), Some(own)), add(LARGE));
        let picked = click((45., 45.), Some(own), None);
        assert_eq!(
            picked,
            Some(Pick::Replace(own, SMALL.into())),
            "around the end"
        );
        // Elsewhere a box of its own, and none where no proposal is.
        assert_eq!(click((5., 5.), Some(own), Some(second)), add(LARGE));
        assert_eq!(click((95., 95.), Some(second), None), None);
        // Another selection: what was added stays.
        assert_eq!(click((5., 5.), None, None), add(LARGE));
    }
}
