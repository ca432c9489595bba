//! A picture with the proposals of a model: the boxes of its questions, and the scoring of answers.

use std::collections::BTreeSet;

use super::average_precision::{Detection, MAX_DETECTIONS, THRESHOLDS, TrueBox};
use super::coco::Picture;
use super::questions::{Asked, Contents};
use super::replies::{Kinds, Reply};
use super::scores::{Metric, Scores};
use crate::eval::answers::MATCH_IOU;
use crate::eval::examples::Example;
use crate::eval::proposals::match_greedily;
use crate::eval::{AskWith, DUPLICATE_IOU, MAX_BOXES};
use crate::geometry::{BoxXyxy, Proposal, Selection};
use crate::image::Pixels;
use crate::scenes::Rng;
use crate::text::answer_parser::Span;

/// Objects whose box has more square pixels than this are large.
const LARGE: f64 = 96.0 * 96.0;

/// A box of a question and the kind that the proposer's label says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AskedBox {
    pub(super) bbox: BoxXyxy,
    label: Option<usize>,
}

/// Proposals after NMS, best first, without a score threshold.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranking(Vec<Proposal>);

impl Ranking {
    /// The ranking of `proposals`; NMS is that of `selection`.
    pub(super) fn of(proposals: &[Proposal], selection: Selection) -> Self {
        let all = Selection {
            score: f32::NEG_INFINITY,
            first_of_kind: None,
            ..selection
        };
        let kept = all.choose(proposals, usize::MAX).kept;
        Self(
            kept.into_iter()
                .map(|index| proposals[index].clone())
                .collect(),
        )
    }

    /// The same with boxes scaled by `factors`.
    pub(super) fn scaled(&self, factors: [f32; 2]) -> Self {
        let proposals = self.0.iter().map(|proposal| Proposal {
            bbox: scaled(&proposal.bbox, factors),
            ..proposal.clone()
        });
        Self(proposals.collect())
    }

    fn best(&self, count: usize) -> &[Proposal] {
        &self.0[..count.min(self.0.len())]
    }

    /// The one of the best 100 with the highest IoU with `bbox`, at least [`MATCH_IOU`].
    fn nearest(&self, bbox: &BoxXyxy) -> Option<&Proposal> {
        let best = self.best(MAX_DETECTIONS).iter();
        best.map(|proposal| (proposal, proposal.bbox.iou(bbox)))
            .filter(|(_, iou)| *iou >= MATCH_IOU)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(proposal, _)| proposal)
    }

    /// Adds recalls and detections to `scores`.
    pub(super) fn score(&self, picture: &Picture, kinds: &Kinds, scores: &mut Scores) {
        let objects = picture.objects();
        for (metric, count) in [
            (Metric::RecallAt10, 10),
            (Metric::RecallAt30, 30),
            (Metric::RecallAt100, 100),
        ] {
            let covered = objects.iter().filter(|object| {
                let bbox = object.bbox();
                let mut best = self.best(count).iter();
                best.any(|proposal| proposal.bbox.iou(&bbox) >= MATCH_IOU)
            });
            scores.add(metric, covered.count(), objects.len());
        }
        let labels: Vec<Option<usize>> = self.0.iter().map(|p| label(p, kinds)).collect();
        let detections = |kind: Option<usize>| -> Vec<Detection> {
            self.0
                .iter()
                .zip(&labels)
                .filter(|(_, label)| kind.is_none() || **label == kind)
                .take(MAX_DETECTIONS)
                .map(|(proposal, _)| {
                    let [x1, y1, x2, y2] = <[f32; 4]>::from(proposal.bbox).map(f64::from);
                    Detection {
                        xywh: [x1, y1, x2 - x1, y2 - y1],
                        score: proposal.score.into(),
                    }
                })
                .collect()
        };
        let truth = |kind| TrueBox::of(picture, kind);
        let found = scores.boxes.add(&detections(None), &truth(None));
        let metrics = [Metric::ArAt1, Metric::ArAt10, Metric::ArAt100];
        for (metric, found) in metrics.into_iter().zip(found) {
            scores.add(metric, found, THRESHOLDS * objects.len());
        }
        scores
            .kinds
            .resize_with(kinds.names.len(), Default::default);
        for (kind, sums) in scores.kinds.iter_mut().enumerate() {
            sums.add(&detections(Some(kind)), &truth(Some(kind)));
        }
    }
}

fn scaled(bbox: &BoxXyxy, [x, y]: [f32; 2]) -> BoxXyxy {
    BoxXyxy {
        x1: bbox.x1 * x,
        y1: bbox.y1 * y,
        x2: bbox.x2 * x,
        y2: bbox.y2 * y,
    }
}

/// The kind that the label of `proposal` names.
fn label(proposal: &Proposal, kinds: &Kinds) -> Option<usize> {
    let label = proposal.label.as_ref()?.to_lowercase();
    kinds.names.iter().position(|name| *name == label)
}

/// A picture and the proposals of a model for it.
pub(super) struct View<'a> {
    pub(super) picture: &'a Picture,
    pub(super) pixels: Pixels,
    pub(super) contents: Contents<'a>,
    pub(super) ranking: Ranking,
    /// Whether a proposal has a label.
    pub(super) labeled: bool,
    boxes: Vec<AskedBox>,
    /// Whether one of the best 100 proposals covers the object.
    found: Vec<bool>,
}

impl<'a> View<'a> {
    /// The view of `picture` with `proposals`.
    pub(super) fn new(
        picture: &'a Picture,
        pixels: Pixels,
        proposals: &[Proposal],
        selection: Selection,
        ask_with: AskWith,
        kinds: &Kinds,
    ) -> Self {
        let contents = Contents::of(picture, kinds.names.len());
        let ranking = Ranking::of(proposals, selection);
        let best = ranking.best(MAX_DETECTIONS);
        let covers = |bbox: &BoxXyxy| {
            let ious = best
                .iter()
                .map(|proposal| (proposal, proposal.bbox.iou(bbox)));
            let good = ious.filter(|(_, iou)| *iou >= MATCH_IOU);
            good.max_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(proposal, _)| proposal)
        };
        let boxes = match ask_with {
            AskWith::Proposals => selection
                .choose(proposals, MAX_BOXES)
                .kept
                .into_iter()
                .map(|index| AskedBox {
                    bbox: proposals[index].bbox,
                    label: label(&proposals[index], kinds),
                })
                .collect(),
            AskWith::Truth => {
                let mut boxes: Vec<AskedBox> = contents
                    .objects
                    .iter()
                    .map(|object| object.bbox())
                    .map(|bbox| AskedBox {
                        label: ranking.nearest(&bbox).and_then(|p| label(p, kinds)),
                        bbox,
                    })
                    .collect();
                Rng::new(picture.id.cast_unsigned(), 2).shuffle(&mut boxes);
                boxes.truncate(MAX_BOXES);
                boxes
            }
        };
        let found = contents
            .objects
            .iter()
            .map(|object| covers(&object.bbox()).is_some());
        Self {
            found: found.collect(),
            labeled: proposals.iter().any(|proposal| proposal.label.is_some()),
            picture,
            pixels,
            contents,
            ranking,
            boxes,
        }
    }

    /// The boxes of `asked`: the true box that it names first, if any, then those of the picture.
    pub(super) fn boxes(&self, asked: &Asked, kinds: &Kinds) -> Vec<AskedBox> {
        let Some(target) = asked.target() else {
            return self.boxes.clone();
        };
        let bbox = self.contents.objects[target].bbox();
        let ious = self
            .ranking
            .best(MAX_DETECTIONS)
            .iter()
            .map(|p| (p, p.bbox.iou(&bbox)));
        let nearest = ious
            .filter(|(_, iou)| *iou >= MATCH_IOU)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let own = AskedBox {
            bbox,
            label: nearest.and_then(|(proposal, _)| label(proposal, kinds)),
        };
        let rest = self
            .boxes
            .iter()
            .filter(|other| other.bbox.iou(&bbox) < DUPLICATE_IOU);
        std::iter::once(own)
            .chain(rest.take(MAX_BOXES - 1).copied())
            .collect()
    }

    /// The boxes of the picture without question, scaled to the size of `pixels`.
    pub(super) fn boxes_for(&self, pixels: &Pixels) -> (Ranking, Vec<BoxXyxy>) {
        let factors = [
            pixels.width as f32 / self.pixels.width as f32,
            pixels.height as f32 / self.pixels.height as f32,
        ];
        let boxes = self.boxes.iter().map(|asked| scaled(&asked.bbox, factors));
        (self.ranking.scaled(factors), boxes.collect())
    }

    /// The answer that the labels of the proposals give.
    pub(super) fn labels_reply(&self, asked: &Asked, kinds: &Kinds) -> Reply {
        let boxes = self.boxes(asked, kinds);
        let of_kind = |kind: usize| -> Vec<usize> {
            let indices = 0..boxes.len();
            indices
                .filter(|&index| boxes[index].label == Some(kind))
                .collect()
        };
        match asked {
            Asked::Detect { kinds: wanted, .. } => {
                let groups = wanted.iter().map(|&kind| (kind, of_kind(kind)));
                grouped(groups, kinds)
            }
            Asked::Absent { kind } => grouped(std::iter::once((*kind, of_kind(*kind))), kinds),
            Asked::Name { .. } => {
                let name = boxes[0].label.map(|kind| kinds.names[kind].clone());
                Reply::plain(name.unwrap_or_default())
            }
            Asked::Count { kind, .. } => Reply::plain(of_kind(*kind).len().to_string()),
            Asked::Exists { kind, .. } => Reply::plain(if of_kind(*kind).is_empty() {
                "no"
            } else {
                "yes"
            }),
            Asked::Refer { kind, extreme, .. } => {
                let indices = of_kind(*kind);
                let candidates: Vec<[f64; 4]> = indices
                    .iter()
                    .map(|&index| {
                        let [x1, y1, x2, y2] = <[f32; 4]>::from(boxes[index].bbox).map(f64::from);
                        [x1, y1, x2 - x1, y2 - y1]
                    })
                    .collect();
                let size = [self.pixels.width as f32, self.pixels.height as f32];
                let first = extreme.first(&candidates, size).map(|first| indices[first]);
                grouped(std::iter::once((*kind, first.into_iter().collect())), kinds)
            }
            Asked::Caption => grouped(
                (0..kinds.names.len()).map(|kind| (kind, of_kind(kind))),
                kinds,
            ),
        }
    }

    /// Scores `reply` to `asked`; whether it is right.
    pub(super) fn score(
        &self,
        asked: &Asked,
        reply: &Reply,
        kinds: &Kinds,
        scores: &mut Scores,
    ) -> bool {
        let boxes: Vec<BoxXyxy> = self
            .boxes(asked, kinds)
            .iter()
            .map(|asked| asked.bbox)
            .collect();
        let right = match asked {
            Asked::Detect { absent, .. } => {
                let right = self.score_detection(reply, &boxes, kinds, scores);
                if let Some(absent) = absent {
                    let refused = !reply.boxes_by_kind(kinds).contains_key(&Some(*absent));
                    scores.tally(Metric::Absent, refused);
                }
                right
            }
            Asked::Absent { .. } => {
                let right = reply.boxes().is_empty();
                scores.tally(Metric::Refusal, right);
                right
            }
            Asked::Name { object } => {
                let right = reply.kind(kinds) == Some(self.contents.objects[*object].kind);
                scores.tally(Metric::Naming, right);
                let kind = reply.kind_or_synonym(kinds);
                let near = kind == Some(self.contents.objects[*object].kind);
                scores.tally(Metric::NamingSynonym, near);
                if self.found[*object] {
                    scores.tally(Metric::NamingFound, right);
                }
                right
            }
            Asked::Count { truth, .. } => {
                let number = reply.number();
                let near = number.is_some_and(|number| number.abs_diff(*truth) <= 1);
                scores.tally(Metric::CountWithinOne, near);
                scores.tally(Metric::Count, number == Some(*truth));
                number == Some(*truth)
            }
            Asked::Refer { object, .. } => {
                let target = self.contents.objects[*object].bbox();
                let first = reply
                    .first_box()
                    .and_then(|index| boxes.get(index as usize));
                let right = first.is_some_and(|first| first.iou(&target) >= MATCH_IOU);
                scores.tally(Metric::Refer, right);
                right
            }
            Asked::Exists { truth, .. } => {
                let right = reply.yes() == Some(*truth);
                scores.tally(Metric::Exists, right);
                right
            }
            Asked::Caption => return false,
        };
        scores.task(asked.task(), right);
        right
    }

    /// Matches the answered boxes one to one per kind, in the order of their scores. A box that is left
    /// over inside a crowd of its kind does not count.
    fn score_detection(
        &self,
        reply: &Reply,
        boxes: &[BoxXyxy],
        kinds: &Kinds,
        scores: &mut Scores,
    ) -> bool {
        let objects = &self.contents.objects;
        let (mut correct, mut answered, mut large_correct) = (0, 0, 0);
        for (kind, indices) in reply.boxes_by_kind(kinds) {
            let of_kind: Vec<_> = objects
                .iter()
                .filter(|object| Some(object.kind) == kind)
                .collect();
            let truth: Vec<BoxXyxy> = of_kind.iter().map(|object| object.bbox()).collect();
            let given: Vec<BoxXyxy> = indices
                .iter()
                .filter_map(|&i| boxes.get(i as usize))
                .copied()
                .collect();
            answered += indices.len();
            let matched = match_greedily(given.iter().copied(), &truth, MATCH_IOU);
            for (bbox, matched) in given.iter().zip(matched) {
                match matched {
                    Some(object) => {
                        correct += 1;
                        large_correct += usize::from(is_large(of_kind[object].xywh));
                    }
                    None => answered -= usize::from(self.in_crowd(bbox, kind)),
                }
            }
        }
        let large = objects
            .iter()
            .filter(|object| is_large(object.xywh))
            .count();
        scores.add(Metric::DetectPrecision, correct, answered);
        scores.add(Metric::DetectRecall, correct, objects.len());
        scores.add(Metric::DetectF1, 2 * correct, answered + objects.len());
        scores.add(Metric::DetectRecallLarge, large_correct, large);
        correct == answered && correct == objects.len()
    }

    /// Whether at least half of `bbox` is inside a crowd of `kind`.
    fn in_crowd(&self, bbox: &BoxXyxy, kind: Option<usize>) -> bool {
        let crowds = self
            .picture
            .annotations
            .iter()
            .filter(|annotation| annotation.crowd);
        let mut of_kind = crowds.filter(|crowd| Some(crowd.kind) == kind);
        of_kind.any(|crowd| {
            let crowd = crowd.bbox();
            let side = |a1: f32, a2: f32, b1: f32, b2: f32| (a2.min(b2) - a1.max(b1)).max(0.0);
            let shared = side(bbox.x1, bbox.x2, crowd.x1, crowd.x2)
                * side(bbox.y1, bbox.y2, crowd.y1, crowd.y2);
            bbox.area() > 0.0 && shared / bbox.area() >= MATCH_IOU
        })
    }

    /// The error of the model in `reply` to `asked`.
    pub(super) fn example(&self, asked: &Asked, reply: &Reply, kinds: &Kinds) -> Example {
        let boxes = self.boxes(asked, kinds);
        let answered: Vec<BoxXyxy> = reply
            .boxes()
            .into_iter()
            .filter_map(|index| Some(boxes.get(index as usize)?.bbox))
            .collect();
        let objects = &self.contents.objects;
        let of_kinds = |wanted: &[usize]| -> Vec<BoxXyxy> {
            let of_kind = objects
                .iter()
                .filter(|object| wanted.contains(&object.kind));
            of_kind.map(|object| object.bbox()).collect()
        };
        let truth_boxes = match asked {
            Asked::Detect { kinds, .. } => of_kinds(kinds),
            Asked::Absent { .. } => Vec::new(),
            Asked::Count { kind, .. } | Asked::Exists { kind, .. } => of_kinds(&[*kind]),
            Asked::Name { object } | Asked::Refer { object, .. } => vec![objects[*object].bbox()],
            Asked::Caption => objects.iter().map(|object| object.bbox()).collect(),
        };
        let badness = match asked {
            Asked::Count { truth, .. } => match reply.number() {
                Some(number) => number.abs_diff(*truth) as f64,
                None => f64::INFINITY,
            },
            Asked::Refer { .. } => {
                let nearest = answered.first().map_or(0.0, |b| b.iou(&truth_boxes[0]));
                1.0 - f64::from(nearest)
            }
            Asked::Name { .. } => truth_boxes[0].area().into(),
            _ => {
                let matched = match_greedily(answered.iter().copied(), &truth_boxes, MATCH_IOU);
                let matched = matched.iter().flatten().count();
                (answered.len() + truth_boxes.len() - 2 * matched) as f64
            }
        };
        Example {
            task: asked.task().to_owned(),
            question: asked.question(&kinds.names),
            answer: reply.text.clone(),
            truth: self.truth(asked, kinds),
            truth_boxes,
            answered,
            badness,
            ..Example::default()
        }
    }

    /// The objects that none of the best 100 proposals covers, if any, and the boxes of the questions.
    pub(super) fn missed(&self, kinds: &Kinds) -> Option<Example> {
        let objects = self.contents.objects.iter().zip(&self.found);
        let missed: Vec<_> = objects.filter(|(_, found)| !**found).collect();
        if missed.is_empty() {
            return None;
        }
        let names: Vec<&str> = missed
            .iter()
            .map(|(object, _)| kinds.names[object.kind].as_str())
            .collect();
        Some(Example {
            task: "proposals".to_owned(),
            truth: format!("not found: {}", names.join(", ")),
            truth_boxes: missed.iter().map(|(object, _)| object.bbox()).collect(),
            answered: self.boxes.iter().map(|asked| asked.bbox).collect(),
            badness: missed.len() as f64,
            ..Example::default()
        })
    }

    /// The true answer to `asked`, for people to read. Objects without a box are `?`.
    pub(super) fn truth(&self, asked: &Asked, kinds: &Kinds) -> String {
        let boxes = self.boxes(asked, kinds);
        let objects = &self.contents.objects;
        let index = |object: usize| {
            let own = objects[object].bbox();
            let ious = boxes.iter().map(|asked| asked.bbox.iou(&own)).enumerate();
            let good = ious.filter(|(_, iou)| *iou >= MATCH_IOU);
            let best = good.max_by(|a, b| a.1.total_cmp(&b.1));
            best.map_or("?".to_owned(), |(index, _)| format!("obj{index}"))
        };
        let group = |kind: usize| {
            let of_kind = (0..objects.len()).filter(|&object| objects[object].kind == kind);
            let indices: Vec<String> = of_kind.map(index).collect();
            (!indices.is_empty()).then(|| format!("{} {}", kinds.names[kind], indices.join(" ")))
        };
        match asked {
            Asked::Detect { kinds: wanted, .. } => {
                let groups: Vec<String> = wanted.iter().filter_map(|&kind| group(kind)).collect();
                groups.join("; ")
            }
            Asked::Absent { .. } => "nothing".to_owned(),
            Asked::Name { object } => kinds.names[objects[*object].kind].clone(),
            Asked::Count { truth, .. } => truth.to_string(),
            Asked::Refer { object, .. } => index(*object),
            Asked::Exists { truth, .. } => if *truth { "yes" } else { "no" }.to_owned(),
            Asked::Caption => {
                let groups: Vec<String> = (0..kinds.names.len()).filter_map(group).collect();
                groups.join("; ")
            }
        }
    }
}

fn is_large([_, _, w, h]: [f64; 4]) -> bool {
    w * h > LARGE
}

/// An answer of groups; those without a box are left out.
fn grouped(groups: impl Iterator<Item = (usize, Vec<usize>)>, kinds: &Kinds) -> Reply {
    let spans: Vec<Span> = groups
        .filter(|(_, indices)| !indices.is_empty())
        .map(|(kind, indices)| Span {
            text: kinds.names[kind].clone(),
            objects: indices.into_iter().map(|index| index as u32).collect(),
            open: false,
        })
        .collect();
    let texts: Vec<&str> = spans.iter().map(|span| span.text.as_str()).collect();
    Reply {
        text: texts.join(" "),
        spans,
    }
}

/// Whether two answers to `asked` say the same.
pub(super) fn same_answer(asked: &Asked, a: &Reply, b: &Reply, kinds: &Kinds) -> bool {
    let text = |reply: &Reply| reply.text.trim().trim_end_matches('.').to_lowercase();
    match asked {
        Asked::Detect { .. } | Asked::Absent { .. } | Asked::Refer { .. } | Asked::Caption => {
            let [a, b]: [BTreeSet<u32>; 2] = [a.boxes(), b.boxes()];
            a == b
        }
        Asked::Count { .. } => a.number().is_some() && a.number() == b.number(),
        Asked::Exists { .. } => a.yes().is_some() && a.yes() == b.yes(),
        Asked::Name { .. } => match a.kind(kinds) {
            Some(kind) => b.kind(kinds) == Some(kind),
            None => text(a) == text(b),
        },
    }
}
