//! Evaluation of a model on photographs with COCO annotations: `chatrex eval --coco`.
//!
//! Every picture gets questions in the wording that models are trained on, and some of them again in
//! wordings that no training uses. Three baselines get the same questions except for the latter: `blank`
//! and `shuffled` as for scenes, and `detector`, which answers from the labels of the proposals alone.
//! `docs/reference/interfaces.md` section 5 defines the metrics.

mod average_precision;
mod coco;
mod phrasings;
mod questions;
mod replies;
mod report;
mod scores;
mod view;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use self::phrasings::Phrasing;
use self::questions::Asked;
use self::replies::{Kinds, Reply};
use self::report::baselines;
use self::scores::{Metric, Scores};
use self::view::{View, same_answer};
use crate::error::{Fault, FaultKind};
use crate::eval::{AskWith, EvalModel, cycled};
use crate::geometry::{BoxXyxy, Selection};
use crate::image::Pixels;
use crate::scenes::Rng;

pub use self::coco::{Annotation, CocoSet, Picture};
pub use self::report::{AnswerRecord, PhotoBaselines, PhotoReport};
pub use self::scores::{Errors, MetricRow, Metrics};

/// Questions per picture in wordings that no training uses.
const PHRASINGS: usize = 4;

/// Options of an evaluation on photographs.
#[derive(Clone, Debug)]
pub struct PhotoOptions {
    /// Name of the data set, for the report.
    pub annotations: String,
    /// The folder of the pictures.
    pub images: PathBuf,
    /// The source of the boxes.
    pub ask_with: AskWith,
    /// Which proposals become boxes.
    pub selection: Selection,
    /// Whether the blank and the shuffled baseline run.
    pub blind: bool,
    /// The model's name, for the report.
    pub model: String,
    /// The device's name, for the report.
    pub device: String,
}

/// Evaluates `model` on the pictures of `set`. `progress` gets the number of finished pictures, `record`
/// every answer of the model.
///
/// # Errors
/// Fewer than two pictures, a picture that is missing or cannot be read, or a fault of the model or of
/// `record`.
pub fn evaluate_photographs(
    model: &mut dyn EvalModel,
    set: &CocoSet,
    options: &PhotoOptions,
    mut progress: impl FnMut(u64),
    record: &mut dyn FnMut(&AnswerRecord) -> Result<(), Fault>,
) -> Result<PhotoReport, Fault> {
    let [.., last] = &set.pictures[..] else {
        return Err(too_few(set));
    };
    if set.pictures.len() < 2 {
        return Err(too_few(set));
    }
    set.check_files(&options.images)?;
    let began = Instant::now();
    let kinds = Kinds::new(set.kinds.clone());
    let mut run = Run {
        kinds: &kinds,
        options,
        phrasings: Queue::new(),
        labeled: false,
        real: Scores::default(),
        labels: Scores::default(),
        blank: Scores::default(),
        shuffled: Scores::default(),
    };
    let mut before = match options.blind {
        true => Some(run.look(model, last)?),
        false => None,
    };
    for (number, picture) in set.pictures.iter().enumerate() {
        let view = run.look(model, picture)?;
        run.evaluate(model, &view, before.as_ref(), record)?;
        if options.blind {
            before = Some(view);
        }
        progress(number as u64 + 1);
    }
    let Run {
        mut real,
        labels,
        blank,
        shuffled,
        labeled,
        ..
    } = run;
    if !labeled {
        real.kinds.clear();
    }
    let per_task = report::tasks(&real);
    let (metrics, errors) = report::values(real);
    let blind = options.blind.then_some([blank, shuffled]);
    let (baselines, baseline_errors) = baselines(blind, labeled.then_some(labels));
    let annotations = || set.pictures.iter().flat_map(|picture| &picture.annotations);
    Ok(PhotoReport {
        annotations: options.annotations.clone(),
        count: set.pictures.len(),
        objects: annotations().filter(|annotation| !annotation.crowd).count(),
        crowds: annotations().filter(|annotation| annotation.crowd).count(),
        without_area: set.without_area,
        model: options.model.clone(),
        device: options.device.clone(),
        ask_with: options.ask_with,
        metrics,
        errors,
        baselines,
        baseline_errors,
        per_task,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn too_few(set: &CocoSet) -> Fault {
    Fault::new(
        FaultKind::Question,
        "--coco",
        format!(
            "evaluation needs at least two pictures, not {}",
            set.pictures.len()
        ),
        "Use a larger file or a higher --limit",
    )
}

/// The wordings that no training uses. The one that was asked the longest time ago is next.
struct Queue(VecDeque<Phrasing>);

impl Queue {
    fn new() -> Self {
        let mut all = phrasings::all();
        Rng::new(0, 3).shuffle(&mut all);
        Self(all.into())
    }

    /// The next wordings that `view` allows, with their questions.
    fn take(&mut self, view: &View, earlier: &[Asked]) -> Vec<(Phrasing, Asked)> {
        let mut rng = Rng::new(view.picture.id.cast_unsigned(), 1);
        let (mut taken, mut left) = (Vec::new(), VecDeque::new());
        for phrasing in std::mem::take(&mut self.0) {
            let asked = if taken.len() < PHRASINGS {
                let topic = phrasing.topic;
                view.contents.question_about(topic, earlier, &mut rng)
            } else {
                None
            };
            match asked {
                Some(asked) => taken.push((phrasing, asked)),
                None => left.push_back(phrasing),
            }
        }
        left.extend(taken.iter().map(|(phrasing, _)| *phrasing));
        self.0 = left;
        taken
    }
}

/// The state of an evaluation.
struct Run<'a> {
    kinds: &'a Kinds,
    options: &'a PhotoOptions,
    phrasings: Queue,
    /// Whether any proposal has a label.
    labeled: bool,
    real: Scores,
    labels: Scores,
    blank: Scores,
    shuffled: Scores,
}

impl Run<'_> {
    fn look<'p>(
        &mut self,
        model: &mut dyn EvalModel,
        picture: &'p Picture,
    ) -> Result<View<'p>, Fault> {
        let pixels = picture.pixels(&self.options.images)?;
        let proposals = model.propose(&pixels)?;
        let PhotoOptions {
            selection,
            ask_with,
            ..
        } = *self.options;
        let view = View::new(picture, pixels, &proposals, selection, ask_with, self.kinds);
        self.labeled |= view.labeled;
        Ok(view)
    }

    fn evaluate(
        &mut self,
        model: &mut dyn EvalModel,
        view: &View,
        before: Option<&View>,
        record: &mut dyn FnMut(&AnswerRecord) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let questions = view
            .contents
            .questions(&mut Rng::new(view.picture.id.cast_unsigned(), 0));
        self.ask_model(model, view, &questions, record)?;
        self.labels.next_picture();
        view.ranking
            .score(view.picture, self.kinds, &mut self.labels);
        for asked in &questions {
            let reply = view.labels_reply(asked, self.kinds);
            view.score(asked, &reply, self.kinds, &mut self.labels);
        }
        let Some(before) = before else { return Ok(()) };
        self.shuffled.next_picture();
        let (ranking, other) = before.boxes_for(&view.pixels);
        ranking.score(view.picture, self.kinds, &mut self.shuffled);
        for asked in &questions {
            let boxes = cycled(&other, view.boxes(asked, self.kinds).len());
            let reply = ask(
                model,
                &view.pixels,
                &boxes,
                &asked.question(&self.kinds.names),
            )?;
            view.score(asked, &reply, self.kinds, &mut self.shuffled);
        }
        self.blank.next_picture();
        let grey = Pixels {
            rgb: vec![127; view.pixels.rgb.len()],
            ..view.pixels
        };
        let ranking = view::Ranking::of(&model.propose(&grey)?, self.options.selection);
        ranking.score(view.picture, self.kinds, &mut self.blank);
        for asked in &questions {
            let boxes = self.boxes(view, asked);
            let reply = ask(model, &grey, &boxes, &asked.question(&self.kinds.names))?;
            view.score(asked, &reply, self.kinds, &mut self.blank);
        }
        Ok(())
    }

    /// Asks the model itself, also in wordings that no training uses.
    fn ask_model(
        &mut self,
        model: &mut dyn EvalModel,
        view: &View,
        questions: &[Asked],
        record: &mut dyn FnMut(&AnswerRecord) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut write = |task: &str, text: &str, asked: &Asked, reply: &Reply, right: bool| {
            record(&AnswerRecord {
                image: view.picture.file.display().to_string(),
                task: task.to_owned(),
                question: text.to_owned(),
                answer: reply.text.clone(),
                truth: view.truth(asked, self.kinds),
                right,
            })
        };
        self.real.next_picture();
        view.ranking.score(view.picture, self.kinds, &mut self.real);
        let mut trained: Vec<(Asked, Reply)> = Vec::new();
        let names = &self.kinds.names;
        let boxes_of = |asked: &Asked| -> Vec<BoxXyxy> {
            view.boxes(asked, self.kinds)
                .iter()
                .map(|asked| asked.bbox)
                .collect()
        };
        for asked in questions {
            let text = asked.question(names);
            let reply = ask(model, &view.pixels, &boxes_of(asked), &text)?;
            let right = view.score(asked, &reply, self.kinds, &mut self.real);
            write(asked.task(), &text, asked, &reply, right)?;
            trained.push((asked.clone(), reply));
        }
        for (phrasing, asked) in self.phrasings.take(view, questions) {
            let boxes = boxes_of(&asked);
            let known = trained.iter().find(|(earlier, _)| *earlier == asked);
            let usual = match known {
                Some((_, reply)) => reply.clone(),
                None => ask(model, &view.pixels, &boxes, &asked.question(names))?,
            };
            let text = phrasing.question(&asked, names);
            let reply = ask(model, &view.pixels, &boxes, &text)?;
            let same = same_answer(&asked, &usual, &reply, self.kinds);
            self.real.tally(Metric::Phrasing, same);
            let task = format!("phrasing_{}", phrasing.topic.word());
            self.real.task(&task, same);
            write(&task, &text, &asked, &reply, same)?;
        }
        Ok(())
    }

    fn boxes(&self, view: &View, asked: &Asked) -> Vec<BoxXyxy> {
        view.boxes(asked, self.kinds)
            .iter()
            .map(|asked| asked.bbox)
            .collect()
    }
}

fn ask(
    model: &mut dyn EvalModel,
    pixels: &Pixels,
    boxes: &[BoxXyxy],
    text: &str,
) -> Result<Reply, Fault> {
    Ok(model.ask(pixels, boxes, text)?.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::questions::{Asked, Topic};
    use super::*;
    use crate::geometry::Proposal;
    use crate::protocol::{Answer, AskTime, StopReason};

    const SIZE: u32 = 200;

    const SELECTION: Selection = Selection {
        score: 0.3,
        nms: 0.8,
        first_of_kind: None,
    };

    /// Six pictures of one colour each. Picture 1 has a crowd of kind 1.
    fn data_set(images: &Path) -> CocoSet {
        let mut rng = Rng::new(7, 0);
        let (mut pictures, mut annotations) = (Vec::new(), Vec::new());
        for id in 0..6_u32 {
            let name = format!("{id}.png");
            let colour = ::image::Rgb([id as u8; 3]);
            let picture = ::image::RgbImage::from_pixel(SIZE, SIZE, colour);
            picture.save(images.join(&name)).expect("written");
            pictures.push(json!({"id": id, "file_name": name, "width": SIZE, "height": SIZE}));
            let mut add = |kind: u32, bbox: [u32; 4], crowd: bool| {
                let number = annotations.len();
                annotations.push(
                    json!({"id": number, "image_id": id, "category_id": kind, "bbox": bbox,
                    "iscrowd": u8::from(crowd)}),
                );
            };
            add(id % 4, [id % 3 * 50, 0, 100, 100], false);
            for slot in 1..6 {
                let [x, y] = [slot * 30 + id % 2 * 15, 100 + (slot + id) % 6 * 14];
                add(rng.below(4) as u32, [x, y, 20 + slot, 24], false);
            }
            if id == 1 {
                add(1, [100, 0, 100, 100], true);
            }
        }
        let kinds = ["cat", "dog", "tree", "bench", "ghost"];
        let kinds: Vec<_> = (0..)
            .zip(kinds)
            .map(|(id, name)| json!({"id": id, "name": name}))
            .collect();
        let file = json!({"images": pictures, "annotations": annotations, "categories": kinds});
        CocoSet::parse(file.to_string().as_bytes(), "set").expect("a data set")
    }

    fn options(images: &Path) -> PhotoOptions {
        PhotoOptions {
            annotations: "set".into(),
            images: images.into(),
            ask_with: AskWith::Proposals,
            selection: SELECTION,
            blind: true,
            model: "oracle".into(),
            device: "cpu".into(),
        }
    }

    /// Knows the pictures by their colour and the questions by their text, and answers with the truth; has
    /// no answer to other pictures, to other boxes, and, unless `free`, to other wordings.
    struct Oracle {
        set: CocoSet,
        kinds: Kinds,
        free: bool,
        /// Also proposes a dog inside the crowd.
        crowd: bool,
    }

    impl Oracle {
        fn picture(&self, pixels: &Pixels) -> Option<&Picture> {
            self.set
                .pictures
                .iter()
                .find(|picture| picture.id == i64::from(pixels.rgb[0]))
        }

        fn view<'a>(&'a self, picture: &'a Picture, pixels: &Pixels) -> View<'a> {
            let proposals = self.proposals(picture);
            View::new(
                picture,
                pixels.clone(),
                &proposals,
                SELECTION,
                AskWith::Proposals,
                &self.kinds,
            )
        }

        fn proposals(&self, picture: &Picture) -> Vec<Proposal> {
            let labeled = |kind: usize, bbox: BoxXyxy| Proposal {
                label: Some(self.kinds.names[kind].clone()),
                ..Proposal::unlabelled(bbox, 0.9)
            };
            let objects = picture.objects().into_iter();
            let mut proposals: Vec<_> = objects
                .map(|object| labeled(object.kind, object.bbox()))
                .collect();
            if self.crowd && picture.id == 1 {
                proposals.push(labeled(1, [120.0, 20.0, 150.0, 60.0].into()));
            }
            proposals
        }

        fn answer(&self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Option<Reply> {
            let picture = self.picture(pixels)?;
            let view = self.view(picture, pixels);
            let names = &self.kinds.names;
            let mut known = view
                .contents
                .questions(&mut Rng::new(picture.id.cast_unsigned(), 0));
            known.push(Asked::Caption);
            known.extend((0..names.len()).map(|kind| Asked::Detect {
                kinds: vec![kind],
                absent: None,
            }));
            let phrasings = phrasings::all();
            for phrasing in &phrasings {
                if let Topic::Refer(_) = phrasing.topic {
                    // Several draws, so that every kind is drawn.
                    let draws = (0..40).filter_map(|seed| {
                        view.contents
                            .question_about(phrasing.topic, &[], &mut Rng::new(seed, 9))
                    });
                    known.extend(draws);
                }
            }
            let fits = |asked: &&Asked| {
                let own: Vec<BoxXyxy> = view
                    .boxes(asked, &self.kinds)
                    .iter()
                    .map(|asked| asked.bbox)
                    .collect();
                let mut others = phrasings
                    .iter()
                    .filter(|phrasing| asked.is_about(phrasing.topic));
                own == boxes
                    && (asked.question(names) == question
                        || self.free
                            && others.any(|phrasing| phrasing.question(asked, names) == question))
            };
            let asked = known.iter().find(fits)?;
            Some(view.labels_reply(asked, &self.kinds))
        }
    }

    impl EvalModel for Oracle {
        fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
            let picture = self.picture(pixels);
            Ok(picture.map_or_else(Vec::new, |picture| self.proposals(picture)))
        }

        fn ask(
            &mut self,
            pixels: &Pixels,
            boxes: &[BoxXyxy],
            question: &str,
        ) -> Result<Answer, Fault> {
            let reply = self.answer(pixels, boxes, question).unwrap_or_default();
            Ok(Answer {
                prompt: String::new(),
                text: reply.text,
                spans: reply.spans,
                tokens: 0,
                prefill_tokens: 0,
                question_tokens: 0,
                gpu_bytes: None,
                stop: StopReason::End,
                milliseconds: AskTime::default(),
            })
        }
    }

    fn report(free: bool, crowd: bool) -> PhotoReport {
        let folder = tempfile::tempdir().expect("a folder");
        let set = data_set(folder.path());
        let kinds = Kinds::new(set.kinds.clone());
        let mut oracle = Oracle {
            set: set.clone(),
            kinds,
            free,
            crowd,
        };
        let options = options(folder.path());
        let mut records = 0;
        let mut record = |_: &AnswerRecord| {
            records += 1;
            Ok(())
        };
        let report = evaluate_photographs(&mut oracle, &set, &options, |_| (), &mut record)
            .expect("a report");
        let asked: usize = report.per_task.values().map(|task| task.asked).sum();
        assert_eq!(records, asked);
        report
    }

    #[test]
    fn the_truth_scores_one_and_blind_answers_do_not() {
        let report = report(true, false);
        for row in &report.metrics.0 {
            assert_eq!(row.value, Some(1.0), "{}", row.name);
            assert_eq!(row.error, Some(0.0), "{}", row.name);
        }
        let PhotoBaselines {
            blank,
            shuffled,
            detector,
        } = report.baselines;
        for row in detector.expect("labels").0 {
            let expected = (row.name != "phrasing_accuracy").then_some(1.0);
            assert_eq!(row.value, expected, "{}", row.name);
        }
        for row in [blank, shuffled]
            .into_iter()
            .flatten()
            .flat_map(|metrics| metrics.0)
        {
            // Without an answer an absent kind has no box.
            let empty = ["absent_accuracy", "refusal_accuracy"].contains(&row.name);
            assert!(
                empty || row.value.is_none_or(|value| value < 0.7),
                "{row:?}"
            );
        }
        assert_eq!((report.count, report.objects, report.crowds), (6, 36, 1));
    }

    #[test]
    fn boxes_inside_a_crowd_are_neither_right_nor_wrong() {
        let report = report(true, true);
        for name in [
            "detect_precision",
            "detect_f1",
            "ap_50",
            "map",
            "ap_50_kinds",
        ] {
            let value = report.metrics.get(name).and_then(|row| row.value);
            assert_eq!(value, Some(1.0), "{name}");
        }
    }

    #[test]
    fn wordings_without_an_answer_are_not_the_same() {
        let report = report(false, false);
        let value = |name: &str| report.metrics.get(name).and_then(|row| row.value);
        assert_eq!(value("phrasing_accuracy"), Some(0.0));
        assert_eq!(value("detect_f1"), Some(1.0));
    }

    #[test]
    fn json_has_the_documented_keys() {
        let report = report(true, false);
        let json = serde_json::to_value(&report).expect("plain data");
        for key in [
            "count",
            "model",
            "device",
            "metrics",
            "errors",
            "baselines",
            "per_task",
            "seconds",
        ] {
            assert!(!json[key].is_null(), "{key}");
        }
        let documented =
            std::fs::read_to_string("docs/reference/interfaces.md").expect("the document");
        for row in &report.metrics.0 {
            assert_eq!(json["metrics"][row.name].as_f64(), row.value);
            assert!(json["baselines"]["detector"].get(row.name).is_some());
            assert!(json["errors"][row.name].is_number(), "{}", row.name);
            assert!(
                documented.contains(&format!("`{}`", row.name)),
                "{}",
                row.name
            );
        }
        let table = report.to_string();
        assert!(
            table.contains("1.000 ± 0.000") && table.contains("detector"),
            "{table}"
        );
    }

    #[test]
    fn one_picture_is_too_few() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut set = data_set(folder.path());
        set.pictures.truncate(1);
        let kinds = Kinds::new(set.kinds.clone());
        let mut oracle = Oracle {
            set: set.clone(),
            kinds,
            free: true,
            crowd: false,
        };
        let options = options(folder.path());
        let found = evaluate_photographs(&mut oracle, &set, &options, |_| (), &mut |_| Ok(()));
        assert!(found.is_err_and(|fault| fault.what.contains("two pictures")));
    }
}
