//! The questions about a picture, in the wording that models are trained on, and their true answers.

use super::MetricGroup;
use super::coco::{Annotation, Picture};
use crate::scenes::Rng;
use crate::text::kinds::with_article;
use crate::text::prompt::{Task, index_tag};

/// Boxes of a picture that are asked to be named.
const NAMES: usize = 3;
/// Kinds of a picture that are counted, and kinds of which an extreme object is asked for.
const KINDS: usize = 2;
/// By how much of the picture's width or height the centre of an extreme object is ahead of the next.
const MIN_OFFSET: f32 = 0.02;
/// The least ratio of the areas of an extreme object and the next.
const MIN_RATIO: f32 = 1.25;

/// What makes one object of a kind the one asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extreme {
    Leftmost,
    Rightmost,
    Topmost,
    Bottommost,
    Biggest,
    Smallest,
}

impl Extreme {
    const ALL: [Self; 6] = [
        Self::Leftmost,
        Self::Rightmost,
        Self::Topmost,
        Self::Bottommost,
        Self::Biggest,
        Self::Smallest,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Leftmost => "leftmost",
            Self::Rightmost => "rightmost",
            Self::Topmost => "topmost",
            Self::Bottommost => "bottommost",
            Self::Biggest => "biggest",
            Self::Smallest => "smallest",
        }
    }

    /// Position of the one among `boxes` (`[x, y, width, height]` of a picture of `size` pixels), and
    /// by how much it is ahead of the next; `None` if there are fewer than two.
    fn lead(self, boxes: &[[f64; 4]], size: [f32; 2]) -> Option<(usize, f32)> {
        let value = |[x, y, w, h]: [f64; 4]| -> f32 {
            let centre = [
                (x + w / 2.0) as f32 / size[0],
                (y + h / 2.0) as f32 / size[1],
            ];
            let area = (w * h) as f32;
            match self {
                Self::Leftmost => -centre[0],
                Self::Rightmost => centre[0],
                Self::Topmost => -centre[1],
                Self::Bottommost => centre[1],
                Self::Biggest => area.ln(),
                Self::Smallest => -area.ln(),
            }
        };
        let mut order: Vec<(usize, f32)> =
            boxes.iter().map(|&xywh| value(xywh)).enumerate().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        match order[..] {
            [first, second, ..] => Some((first.0, first.1 - second.1)),
            _ => None,
        }
    }

    /// Position of the one among `boxes`, whatever its lead.
    pub(super) fn first(self, boxes: &[[f64; 4]], size: [f32; 2]) -> Option<usize> {
        match boxes {
            [_] => Some(0),
            _ => self.lead(boxes, size).map(|(first, _)| first),
        }
    }

    /// Position of the one among two or more `boxes`, if it is clearly ahead.
    fn clear(self, boxes: &[[f64; 4]], size: [f32; 2]) -> Option<usize> {
        let least = match self {
            Self::Biggest | Self::Smallest => MIN_RATIO.ln(),
            _ => MIN_OFFSET,
        };
        let (first, lead) = self.lead(boxes, size)?;
        (lead >= least).then_some(first)
    }
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// All objects of some kinds.
    Detect,
    /// The kind of a box.
    Name,
    /// The number of objects of a kind.
    Count,
    /// One object of a kind by its position or size.
    Refer(Extreme),
    /// Whether there is an object of a kind.
    Exists,
    /// All objects.
    Caption,
}

impl Topic {
    /// Name in the report.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Name => "name",
            Self::Count => "count",
            Self::Refer(_) => "refer",
            Self::Exists => "exists",
            Self::Caption => "caption",
        }
    }
}

/// A question about a picture. Kinds and objects are indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All objects of the kinds; `absent` is among them.
    Detect {
        kinds: Vec<usize>,
        absent: Option<usize>,
    },
    /// An absent kind, alone.
    Absent { kind: usize },
    /// The kind of the object, whose box has index 0.
    Name { object: usize },
    /// The number of objects of the kind.
    Count { kind: usize, truth: usize },
    /// The one of its kind.
    Refer {
        kind: usize,
        extreme: Extreme,
        object: usize,
    },
    /// Whether there is one of the kind.
    Exists { kind: usize, truth: bool },
    /// All objects.
    Caption,
}

impl Asked {
    /// The question in its trained wording; `kinds` are the names.
    pub(super) fn question(&self, kinds: &[String]) -> String {
        match self {
            Self::Detect { kinds: asked, .. } => {
                let names: Vec<&str> = asked.iter().map(|&kind| kinds[kind].as_str()).collect();
                Task::Detect.question(&names)
            }
            Self::Absent { kind } => Task::Detect.question(&[&kinds[*kind]]),
            Self::Name { .. } => Task::Name.question(&[index_tag(0)]),
            Self::Count { kind, .. } => Task::Count.question(&[&kinds[*kind]]),
            Self::Refer { kind, extreme, .. } => {
                Task::Detect.question(&[format!("the {} {}", extreme.word(), kinds[*kind])])
            }
            Self::Exists { kind, .. } => {
                format!("Is there {} in this image?", with_article(&kinds[*kind]))
            }
            Self::Caption => Task::BriefCaption.question::<&str>(&[]),
        }
    }

    /// Whether it is about `topic`.
    pub(super) fn is_about(&self, topic: Topic) -> bool {
        match (topic, self) {
            (Topic::Detect, Self::Detect { .. })
            | (Topic::Name, Self::Name { .. })
            | (Topic::Count, Self::Count { .. })
            | (Topic::Exists, Self::Exists { .. })
            | (Topic::Caption, Self::Caption) => true,
            (Topic::Refer(wanted), Self::Refer { extreme, .. }) => wanted == *extreme,
            _ => false,
        }
    }

    /// The object whose box has index 0.
    pub(super) fn target(&self) -> Option<usize> {
        match self {
            Self::Name { object } => Some(*object),
            _ => None,
        }
    }

    /// The metrics that the answer counts for.
    pub(super) fn group(&self) -> MetricGroup {
        match self {
            Self::Detect { .. } | Self::Absent { .. } => MetricGroup::Detection,
            Self::Name { .. } => MetricGroup::Naming,
            Self::Count { .. } => MetricGroup::Count,
            Self::Refer { .. } => MetricGroup::Refer,
            Self::Exists { .. } => MetricGroup::Exists,
            Self::Caption => MetricGroup::Phrasing,
        }
    }

    /// Name in the report.
    pub(super) fn task(&self) -> &'static str {
        match self {
            Self::Detect { .. } => "detect",
            Self::Absent { .. } => "detect_absent",
            Self::Name { .. } => "name",
            Self::Count { .. } => "count",
            Self::Refer { extreme, .. } => extreme.word(),
            Self::Exists { truth: true, .. } => "exists_present",
            Self::Exists { truth: false, .. } => "exists_absent",
            Self::Caption => "caption",
        }
    }
}

/// A picture as questions see it.
pub(super) struct Contents<'a> {
    pub(super) objects: Vec<&'a Annotation>,
    size: [f32; 2],
    /// Kinds with an object, ascending.
    present: Vec<usize>,
    /// Kinds with an object and without a crowd, so that their objects can be counted.
    countable: Vec<usize>,
    /// Kinds without any annotation.
    absent: Vec<usize>,
}

impl<'a> Contents<'a> {
    /// The contents of `picture` in a data set of `kinds` kinds.
    pub(super) fn of(picture: &'a Picture, kinds: usize) -> Self {
        let objects = picture.objects();
        let has = |kind: usize, crowd: bool| {
            let mut annotations = picture.annotations.iter();
            annotations.any(|annotation| annotation.kind == kind && annotation.crowd == crowd)
        };
        let all = |fits: &dyn Fn(usize) -> bool| (0..kinds).filter(|&kind| fits(kind)).collect();
        Self {
            size: [picture.width as f32, picture.height as f32],
            present: all(&|kind| has(kind, false)),
            countable: all(&|kind| has(kind, false) && !has(kind, true)),
            absent: all(&|kind| !has(kind, false) && !has(kind, true)),
            objects,
        }
    }

    fn of_kind(&self, kind: usize) -> Vec<usize> {
        let objects = 0..self.objects.len();
        objects
            .filter(|&object| self.objects[object].kind == kind)
            .collect()
    }

    fn refer(&self, kind: usize, extreme: Extreme) -> Option<Asked> {
        let objects = self.of_kind(kind);
        let boxes: Vec<[f64; 4]> = objects.iter().map(|&o| self.objects[o].xywh).collect();
        let object = objects[extreme.clear(&boxes, self.size)?];
        Some(Asked::Refer {
            kind,
            extreme,
            object,
        })
    }

    fn exists(&self, kind: usize) -> Asked {
        let truth = self.present.contains(&kind);
        Asked::Exists { kind, truth }
    }

    fn count(&self, kind: usize) -> Asked {
        let truth = self.of_kind(kind).len();
        Asked::Count { kind, truth }
    }

    /// The questions of the metrics, drawn with `rng`.
    pub(super) fn questions(&self, rng: &mut Rng) -> Vec<Asked> {
        let mut asked = Vec::new();
        let absent = (!self.absent.is_empty()).then(|| *rng.pick(&self.absent));
        let mut kinds: Vec<usize> = self.present.iter().copied().chain(absent).collect();
        rng.shuffle(&mut kinds);
        if !self.present.is_empty() {
            asked.push(Asked::Detect { kinds, absent });
        }
        if !self.absent.is_empty() {
            let kind = *rng.pick(&self.absent);
            asked.push(Asked::Absent { kind });
        }
        for kind in sample(&self.countable, KINDS, rng) {
            asked.push(self.count(kind));
        }
        for kind in sample(&self.countable, usize::MAX, rng) {
            let mut extremes = Extreme::ALL;
            rng.shuffle(&mut extremes);
            asked.extend(
                extremes
                    .into_iter()
                    .find_map(|extreme| self.refer(kind, extreme)),
            );
            let asked_for = asked
                .iter()
                .filter(|asked| matches!(asked, Asked::Refer { .. }));
            if asked_for.count() == KINDS {
                break;
            }
        }
        // One of each, so that always yes and always no are right half of the time.
        if !self.present.is_empty() && !self.absent.is_empty() {
            asked.push(self.exists(*rng.pick(&self.present)));
            asked.push(self.exists(*rng.pick(&self.absent)));
        }
        let objects: Vec<usize> = (0..self.objects.len()).collect();
        let named = sample(&objects, NAMES, rng).into_iter();
        asked.extend(named.map(|object| Asked::Name { object }));
        asked
    }

    /// A question about `topic`, one of `earlier` where that is possible; `None` if the picture allows
    /// none.
    pub(super) fn question_about(
        &self,
        topic: Topic,
        earlier: &[Asked],
        rng: &mut Rng,
    ) -> Option<Asked> {
        let fitting: Vec<&Asked> = earlier
            .iter()
            .filter(|asked| asked.is_about(topic))
            .collect();
        if topic != Topic::Detect && !fitting.is_empty() {
            return Some((*rng.pick(&fitting)).clone());
        }
        match topic {
            Topic::Detect if !self.present.is_empty() => {
                let kinds = vec![*rng.pick(&self.present)];
                Some(Asked::Detect {
                    kinds,
                    absent: None,
                })
            }
            Topic::Refer(extreme) => {
                let mut kinds = sample(&self.countable, usize::MAX, rng).into_iter();
                kinds.find_map(|kind| self.refer(kind, extreme))
            }
            Topic::Caption => Some(Asked::Caption),
            _ => None,
        }
    }
}

/// `count` random items.
fn sample(items: &[usize], count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut items = items.to_vec();
    rng.shuffle(&mut items);
    items.truncate(count);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(annotations: &[(usize, [f64; 4], bool)]) -> Picture {
        let annotations = annotations
            .iter()
            .map(|&(kind, xywh, crowd)| Annotation::new(kind, xywh, crowd));
        Picture {
            annotations: annotations.collect(),
            ..Picture::new(1, "a.png", 100, 100)
        }
    }

    fn names() -> Vec<String> {
        ["cat", "dog", "tree", "bench"].map(String::from).to_vec()
    }

    #[test]
    fn questions_keep_to_what_the_annotations_say() {
        let picture = picture(&[
            (0, [0.0, 0.0, 10.0, 10.0], false),
            (0, [50.0, 50.0, 30.0, 30.0], false),
            (1, [20.0, 20.0, 10.0, 10.0], false),
            (1, [0.0, 0.0, 90.0, 90.0], true),
            (2, [0.0, 0.0, 90.0, 90.0], true),
        ]);
        for seed in 0..20 {
            let contents = Contents::of(&picture, 4);
            let asked = contents.questions(&mut Rng::new(seed, 0));
            // Kind 1 has a crowd and is not counted; kind 2 is only a crowd, neither present nor absent.
            let Asked::Detect { kinds, absent } = &asked[0] else {
                panic!()
            };
            assert_eq!((kinds.len(), *absent), (3, Some(3)));
            assert!(!kinds.contains(&2) && kinds.contains(&3));
            assert_eq!(asked[1], Asked::Absent { kind: 3 });
            assert_eq!(asked[2], Asked::Count { kind: 0, truth: 2 });
            let Asked::Refer {
                kind: 0,
                extreme,
                object,
            } = asked[3]
            else {
                panic!("{asked:?}")
            };
            let first = matches!(
                extreme,
                Extreme::Leftmost | Extreme::Topmost | Extreme::Smallest
            );
            assert_eq!(object == 0, first);
            assert_eq!(
                asked[5],
                Asked::Exists {
                    kind: 3,
                    truth: false
                }
            );
            assert_eq!(asked.len(), 9);
        }
    }

    #[test]
    fn an_extreme_object_is_clearly_ahead() {
        let boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 40.0, 10.0, 11.0]];
        let clear = |extreme: Extreme| extreme.clear(&boxes, [100.0, 100.0]);
        assert_eq!(clear(Extreme::Leftmost), None);
        assert_eq!(clear(Extreme::Topmost), Some(0));
        assert_eq!(clear(Extreme::Bottommost), Some(1));
        assert_eq!(clear(Extreme::Biggest), None);
        assert_eq!(Extreme::Biggest.first(&boxes, [100.0, 100.0]), Some(1));
        assert_eq!(Extreme::Topmost.clear(&boxes[..1], [100.0, 100.0]), None);
    }

    #[test]
    fn trained_wordings_name_the_kind() {
        let names = names();
        let refer = Asked::Refer {
            kind: 3,
            extreme: Extreme::Leftmost,
            object: 0,
        };
        assert_eq!(
            refer.question(&names),
            "Please detect the leftmost bench in this image. Answer the question with object indexes."
        );
        let exists = Asked::Exists {
            kind: 1,
            truth: true,
        };
        assert_eq!(exists.question(&names), "Is there a dog in this image?");
    }
}
