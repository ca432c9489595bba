//! Evaluation of a model on photographs with COCO annotations: `chatrex eval --coco`.
//!
//! Every picture gets questions in the wording that models are trained on, and some of them again in
//! wordings that no training uses. Three baselines get the same questions except for the latter: `blank`
//! and `shuffled` as for scenes, and `detector`, which answers from the labels of the proposals alone.
//! `docs/reference/interfaces.md` section 5 defines the metrics.

mod average_precision;
mod coco;
#[cfg(test)]
mod coco_exports;
mod coco_rows;
mod phrasings;
mod questions;
mod replies;
mod report;
pub mod results;
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
use crate::eval::examples::{Example, WorstErrors};
use crate::eval::html::MAX_PICTURES;
use crate::eval::{AskWith, EvalModel, cycled};
use crate::geometry::{BoxXyxy, Selection};
use crate::image::Pixels;
use crate::scenes::Rng;

pub use self::coco::{Annotation, CocoSet, Picture};
pub use self::report::{AnswerRecord, PhotoBaselines, PhotoReport};
pub(super) use self::scores::deviation;
pub use self::scores::{Errors, MetricRow, Metrics};

/// The rows that other files of annotations share with COCO's.
pub(super) mod rows {
    pub(in crate::eval) use super::coco::ImageRow;
    pub(in crate::eval) use super::coco_rows::{BoxField, Key, Scalar, clean_json, relative_path};
}

/// Questions per picture in wordings that no training uses.
const PHRASINGS: usize = 4;

/// Metrics that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricGroup {
    /// Recall and average precision of the proposals; no question is asked.
    Proposals,
    /// Boxes of kinds, present and absent ones.
    Detection,
    /// The extreme one of a kind.
    Refer,
    /// Numbers of objects.
    Count,
    /// Names of given boxes.
    #[value(alias = "regions")]
    Naming,
    /// Yes or no.
    Exists,
    /// Wordings that no training uses.
    Phrasing,
}

impl MetricGroup {
    /// Every group.
    pub const ALL: [Self; 7] = [
        Self::Proposals,
        Self::Detection,
        Self::Refer,
        Self::Count,
        Self::Naming,
        Self::Exists,
        Self::Phrasing,
    ];
}

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
    /// What is measured; the metrics of other groups are null.
    pub groups: Vec<MetricGroup>,
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
        worst: WorstErrors::default(),
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
        worst,
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
        worst: worst.take(MAX_PICTURES),
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
    worst: WorstErrors,
}

impl Run<'_> {
    fn measures(&self, group: MetricGroup) -> bool {
        self.options.groups.contains(&group)
    }

    /// Adds an error about `picture` to the worst ones.
    fn add_error(&mut self, picture: &Picture, example: Example) {
        let image = picture.path(&self.options.images);
        self.worst.add(Example { image, ..example });
    }

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
        let mut questions = view
            .contents
            .questions(&mut Rng::new(view.picture.id.cast_unsigned(), 0));
        questions.retain(|asked| self.measures(asked.group()));
        let ranked = self.measures(MetricGroup::Proposals);
        self.ask_model(model, view, &questions, record)?;
        self.labels.next_picture();
        if ranked {
            view.ranking
                .score(view.picture, self.kinds, &mut self.labels);
        }
        for asked in &questions {
            let reply = view.labels_reply(asked, self.kinds);
            view.score(asked, &reply, self.kinds, &mut self.labels);
        }
        let Some(before) = before else { return Ok(()) };
        self.shuffled.next_picture();
        let (ranking, other) = before.boxes_for(&view.pixels);
        if ranked {
            ranking.score(view.picture, self.kinds, &mut self.shuffled);
        }
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
        if ranked {
            let ranking = view::Ranking::of(&model.propose(&grey)?, self.options.selection);
            ranking.score(view.picture, self.kinds, &mut self.blank);
        }
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
        let kinds = self.kinds;
        let mut write = |task: &str, text: &str, asked: &Asked, reply: &Reply, right: bool| {
            record(&AnswerRecord {
                image: view.picture.file.display().to_string(),
                task: task.to_owned(),
                question: text.to_owned(),
                answer: reply.text.clone(),
                truth: view.truth(asked, kinds),
                right,
            })
        };
        self.real.next_picture();
        if self.measures(MetricGroup::Proposals) {
            view.ranking.score(view.picture, self.kinds, &mut self.real);
            if let Some(missed) = view.missed(self.kinds) {
                self.add_error(view.picture, missed);
            }
        }
        let mut trained: Vec<(Asked, Reply)> = Vec::new();
        let names = &kinds.names;
        let boxes_of = |asked: &Asked| -> Vec<BoxXyxy> {
            view.boxes(asked, kinds)
                .iter()
                .map(|asked| asked.bbox)
                .collect()
        };
        for asked in questions {
            let text = asked.question(names);
            let reply = ask(model, &view.pixels, &boxes_of(asked), &text)?;
            let right = view.score(asked, &reply, self.kinds, &mut self.real);
            write(asked.task(), &text, asked, &reply, right)?;
            if !right {
                let example = view.example(asked, &reply, self.kinds);
                self.add_error(view.picture, example);
            }
            trained.push((asked.clone(), reply));
        }
        if !self.measures(MetricGroup::Phrasing) {
            return Ok(());
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
mod tests;
