//! Measures a model on scenes it has never seen: `chatrex eval`.
//!
//! The model is anything that proposes boxes and answers questions ([`Subject`]). Beside the
//! model as it is, the same questions go to two blind ones: `blank` sees a grey picture with the
//! scene's boxes, `shuffled` sees the picture with another scene's boxes, and its indices are read
//! against the scene's own. A measure on which the model does not beat both means nothing.
//!
//! Every scene is asked eight questions: all kinds with an absent one, a caption, a count, a
//! reference, a plain question, the name of a box, and in turn a detection, an absent thing, a
//! place, a detailed caption; a short phrase, a brief and a one-sentence description.
//!
//! Nothing here knows how answers are made.

mod answers;
pub mod pairs;
mod proposals;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::Serialize;

use self::answers::{AnswerScores, OVERLAP, Question};
use self::proposals::ProposalScores;
use crate::error::{Fault, FaultKind};
use crate::geometry::{BoxXyxy, Proposal, filter};
use crate::image::Pixels;
use crate::protocol::Answer;
use crate::scenes::{Dialogue, Kind, Rng, Scene, Split, Task, absent_kind, detect_all, dialogue};

/// Most boxes that a question may offer.
const MOST_BOXES: usize = 100;
/// Overlap from which a box is left out beside a box given by hand.
const SAME_BOX: f32 = 0.8;

/// What is measured.
pub trait Subject {
    /// Every box of a picture under the coarse prompt, unfiltered, in any order.
    fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault>;

    /// The answer to `question` about a picture with `boxes`. Calls about one picture follow each
    /// other, and most offer the boxes of the call before.
    fn ask(&mut self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault>;
}

/// Which boxes a question offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AskWith {
    /// The model's proposals after its default threshold and suppression.
    #[default]
    Proposals,
    /// The true boxes in random order.
    Truth,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// How many scenes.
    pub count: u64,
    /// Seed of the first scene, from 900000 on.
    pub seed: u64,
    /// Which boxes the questions offer.
    pub ask_with: AskWith,
    /// Lowest score of a proposal that questions offer.
    pub score: f32,
    /// Overlap above which questions offer only the better of two proposals.
    pub nms: f64,
    /// The model's name, for the report.
    pub model: String,
    /// The device's name, for the report.
    pub device: String,
}

/// All measures, each 0 to 1 (`contracts.md`, metric definitions). A share of nothing is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Objects covered by the best 10 proposals.
    pub recall_50_at_10: f64,
    /// Objects covered by the best 30 proposals.
    pub recall_50_at_30: f64,
    /// Objects covered by the best 100 proposals.
    pub recall_50_at_100: f64,
    /// Average precision of proposals at overlap 0.5.
    pub ap_50: f64,
    /// Average precision of proposals over overlaps 0.5 to 0.95.
    pub map: f64,
    /// Share of answered boxes that are right.
    pub detect_precision: f64,
    /// Share of objects answered.
    pub detect_recall: f64,
    /// Harmonic mean of the two.
    pub detect_f1: f64,
    /// Absent kinds without a box.
    pub absent_accuracy: f64,
    /// References whose first box is the target's.
    pub refer_accuracy: f64,
    /// Right numbers.
    pub count_accuracy: f64,
    /// Right words for boxes.
    pub naming_accuracy: f64,
    /// Caption phrases that are true of their boxes.
    pub caption_phrase_precision: f64,
    /// Objects that captions mention.
    pub caption_object_recall: f64,
    /// Plain questions answered exactly.
    pub answer_exact: f64,
}

/// The two blind models.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baselines {
    /// A grey picture with the scene's boxes. Proposals: those of the grey picture.
    pub blank: Metrics,
    /// The picture with another scene's boxes. Proposals: those of the other scene, scaled.
    pub shuffled: Metrics,
}

/// One task's questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// How many were asked.
    pub asked: usize,
    /// Share answered entirely right: for detections and captions everything found and nothing
    /// wrong, for references and counts as in the metric, else the exact text.
    pub right: f64,
}

/// What `chatrex eval --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Scenes measured on.
    pub count: u64,
    /// Seed of the first.
    pub seed: u64,
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// Which boxes questions offered.
    pub ask_with: AskWith,
    /// The model's measures.
    pub metrics: Metrics,
    /// The same of the blind models.
    pub baselines: Baselines,
    /// The model's answers, task by task.
    pub per_task: BTreeMap<Task, TaskScore>,
    /// Time taken, in seconds.
    pub seconds: f64,
}

/// Measures `subject`; `done` is told how many scenes are done.
///
/// # Errors
/// Seeds below 900000, no scenes, and whatever fault the subject reports.
pub fn evaluate(
    subject: &mut dyn Subject,
    options: &EvalOptions,
    mut done: impl FnMut(u64),
) -> Result<Report, Fault> {
    check_seeds(options)?;
    let began = Instant::now();
    let (mut real, mut blank, mut shuffled) =
        (Tests::default(), Tests::default(), Tests::default());
    let mut before = Given::look(subject, options, options.seed + options.count - 1)?;
    for number in 0..options.count {
        let given = Given::look(subject, options, options.seed + number)?;
        let scene = &given.scene;
        let truth: Vec<BoxXyxy> = scene.objects.iter().map(|o| o.bbox).collect();
        let elsewhere = before.moved_to(&scene.pixels);
        real.proposals.add(&given.proposals, &truth);
        shuffled.proposals.add(&elsewhere.proposals, &truth);
        let trials = trials(&given, number);
        for trial in &trials {
            real.ask(subject, &scene.pixels, trial, &given, &trial.boxes)?;
        }
        for trial in &trials {
            let boxes = others(&elsewhere.boxes, trial.boxes.len());
            shuffled.ask(subject, &scene.pixels, trial, &given, &boxes)?;
        }
        let grey = Pixels {
            rgb: vec![127; scene.pixels.rgb.len()],
            ..scene.pixels
        };
        blank.proposals.add(&subject.propose(&grey)?, &truth);
        for trial in &trials {
            blank.ask(subject, &grey, trial, &given, &trial.boxes)?;
        }
        before = given;
        done(number + 1);
    }
    let per_task = real.answers.per_task.iter();
    Ok(Report {
        count: options.count,
        seed: options.seed,
        model: options.model.clone(),
        device: options.device.clone(),
        ask_with: options.ask_with,
        metrics: real.metrics(),
        baselines: Baselines {
            blank: blank.metrics(),
            shuffled: shuffled.metrics(),
        },
        per_task: per_task
            .map(|(&task, tally)| {
                let (asked, right) = (tally.asked, tally.share());
                (task, TaskScore { asked, right })
            })
            .collect(),
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn check_seeds(options: &EvalOptions) -> Result<(), Fault> {
    let last = options.seed.checked_add(options.count);
    if options.count == 0 || last.is_none() || Split::of(options.seed) != Split::Test {
        return Err(Fault::new(
            FaultKind::Question,
            format!("--count {} --seed {}", options.count, options.seed),
            "evaluation needs at least one scene, and test seeds start at 900000",
            "Use --count 300 --seed 900000",
        ));
    }
    Ok(())
}

/// `part` of `whole`; of nothing, 0.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// A scene and what the model found in it.
struct Given {
    scene: Scene,
    proposals: Vec<Proposal>,
    /// What questions offer.
    boxes: Vec<BoxXyxy>,
}

/// Boxes of one picture on another.
struct Moved {
    proposals: Vec<Proposal>,
    boxes: Vec<BoxXyxy>,
}

impl Given {
    fn look(subject: &mut dyn Subject, options: &EvalOptions, seed: u64) -> Result<Self, Fault> {
        let scene = Scene::draw(seed);
        let proposals = subject.propose(&scene.pixels)?;
        let boxes = match options.ask_with {
            AskWith::Proposals => filter(&proposals, options.score, options.nms, MOST_BOXES)
                .kept
                .into_iter()
                .map(|i| proposals[i].bbox)
                .collect(),
            AskWith::Truth => {
                let mut boxes: Vec<BoxXyxy> = scene.objects.iter().map(|o| o.bbox).collect();
                Rng::new(seed, 3).shuffle(&mut boxes);
                boxes
            }
        };
        Ok(Self {
            scene,
            proposals,
            boxes,
        })
    }

    /// Its boxes, scaled from its picture to `pixels`.
    fn moved_to(&self, pixels: &Pixels) -> Moved {
        let from = &self.scene.pixels;
        let x = pixels.width as f32 / from.width as f32;
        let y = pixels.height as f32 / from.height as f32;
        let scaled = |b: &BoxXyxy| BoxXyxy {
            x1: b.x1 * x,
            y1: b.y1 * y,
            x2: b.x2 * x,
            y2: b.y2 * y,
        };
        let proposals = self.proposals.iter().map(|p| Proposal {
            bbox: scaled(&p.bbox),
            ..*p
        });
        Moved {
            proposals: proposals.collect(),
            boxes: self.boxes.iter().map(scaled).collect(),
        }
    }
}

/// As many of `boxes` as the scene's own list has, from the first again where they run out.
fn others(boxes: &[BoxXyxy], count: usize) -> Vec<BoxXyxy> {
    let nowhere = BoxXyxy::from([0.0, 0.0, 32.0, 32.0]);
    let cycle = boxes.iter().cycle().chain(std::iter::repeat(&nowhere));
    cycle.take(count).copied().collect()
}

/// A question with the boxes it offers.
struct Trial {
    dialogue: Dialogue,
    absent: Option<Kind>,
    boxes: Vec<BoxXyxy>,
    box_of: Vec<Option<usize>>,
}

impl Trial {
    /// The model's answer, offered `boxes`.
    fn ask(
        &self,
        subject: &mut dyn Subject,
        pixels: &Pixels,
        boxes: &[BoxXyxy],
    ) -> Result<Answer, Fault> {
        let words = self
            .dialogue
            .question(&self.box_of)
            .expect("the object asked about is the first box");
        subject.ask(pixels, boxes, &words)
    }

    /// What is needed to score an answer.
    fn question<'a>(&'a self, given: &'a Given) -> Question<'a> {
        Question {
            scene: &given.scene,
            dialogue: &self.dialogue,
            boxes: &self.boxes,
            box_of: &self.box_of,
            absent: self.absent,
        }
    }
}

/// The questions about the scene numbered `number` of the run.
fn trials(given: &Given, number: u64) -> Vec<Trial> {
    let scene = &given.scene;
    let mut rng = Rng::new(scene.seed, 4);
    let absent = absent_kind(scene, &mut rng);
    let mut asked = vec![(detect_all(scene, absent, &mut rng), Some(absent))];
    // Of each row the first that the scene allows, from another start at every scene.
    let rows: [&[Task]; 7] = [
        &[Task::Caption],
        &[Task::Count],
        &[
            Task::ReferPosition,
            Task::ReferSize,
            Task::ReferColour,
            Task::ReferRelation,
        ],
        &[Task::Exists, Task::Colour, Task::Total, Task::Relation],
        &[
            Task::DetectOne,
            Task::DetectAbsent,
            Task::Where,
            Task::CaptionDetailed,
        ],
        &[Task::Name],
        &[Task::ShortPhrase, Task::Brief, Task::Sentence],
    ];
    for row in rows {
        let start = (number % row.len() as u64) as usize;
        let turn = row.iter().cycle().skip(start).take(row.len());
        let found = turn
            .copied()
            .find_map(|task| dialogue(scene, task, &mut rng));
        asked.extend(found.map(|dialogue| (dialogue, None)));
    }
    asked
        .into_iter()
        .map(|(dialogue, absent)| {
            let boxes = offered(given, dialogue.target());
            let box_of = match_boxes(scene, &boxes, dialogue.target());
            Trial {
                dialogue,
                absent,
                boxes,
                box_of,
            }
        })
        .collect()
}

/// The boxes of a question: those of the scene, after the true box of the object asked about.
fn offered(given: &Given, target: Option<usize>) -> Vec<BoxXyxy> {
    let Some(target) = target else {
        return given.boxes.clone();
    };
    let own = given.scene.objects[target].bbox;
    let rest = given.boxes.iter().filter(|b| b.iou(&own) < SAME_BOX);
    let rest = rest.take(MOST_BOXES - 1).copied();
    std::iter::once(own).chain(rest).collect()
}

/// The index of each object's box: the one that overlaps most, by at least a half; 0 for the
/// object asked about.
fn match_boxes(scene: &Scene, boxes: &[BoxXyxy], target: Option<usize>) -> Vec<Option<usize>> {
    let best = |object: usize| {
        let own = scene.objects[object].bbox;
        (0..boxes.len())
            .map(|i| (i, boxes[i].iou(&own)))
            .filter(|(_, iou)| *iou >= OVERLAP)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(i, _)| i)
    };
    (0..scene.objects.len())
        .map(|object| {
            if target == Some(object) {
                Some(0)
            } else {
                best(object)
            }
        })
        .collect()
}

/// What one model, seeing or blind, has shown so far.
#[derive(Default)]
struct Tests {
    proposals: ProposalScores,
    answers: AnswerScores,
}

impl Tests {
    /// Asks with `boxes` in place of the trial's, and scores the answer against the trial's.
    fn ask(
        &mut self,
        subject: &mut dyn Subject,
        pixels: &Pixels,
        trial: &Trial,
        given: &Given,
        boxes: &[BoxXyxy],
    ) -> Result<(), Fault> {
        let answer = trial.ask(subject, pixels, boxes)?;
        self.answers.add(&trial.question(given), &answer);
        Ok(())
    }

    fn metrics(&self) -> Metrics {
        let [recall_50_at_10, recall_50_at_30, recall_50_at_100] = self.proposals.recall();
        let [ap_50, map] = self.proposals.precision();
        let [detect_precision, detect_recall, detect_f1] = self.answers.detect();
        let [caption_phrase_precision, caption_object_recall] = self.answers.captions();
        Metrics {
            recall_50_at_10,
            recall_50_at_30,
            recall_50_at_100,
            ap_50,
            map,
            detect_precision,
            detect_recall,
            detect_f1,
            absent_accuracy: self.answers.absent(),
            refer_accuracy: self.answers.refer(),
            count_accuracy: self.answers.count(),
            naming_accuracy: self.answers.naming(),
            caption_phrase_precision,
            caption_object_recall,
            answer_exact: self.answers.plain(),
        }
    }
}

impl Metrics {
    /// Every measure with its name, in the order of `contracts.md`.
    pub fn rows(&self) -> [(&'static str, f64); 15] {
        [
            ("recall_50_at_10", self.recall_50_at_10),
            ("recall_50_at_30", self.recall_50_at_30),
            ("recall_50_at_100", self.recall_50_at_100),
            ("ap_50", self.ap_50),
            ("map", self.map),
            ("detect_precision", self.detect_precision),
            ("detect_recall", self.detect_recall),
            ("detect_f1", self.detect_f1),
            ("absent_accuracy", self.absent_accuracy),
            ("refer_accuracy", self.refer_accuracy),
            ("count_accuracy", self.count_accuracy),
            ("naming_accuracy", self.naming_accuracy),
            ("caption_phrase_precision", self.caption_phrase_precision),
            ("caption_object_recall", self.caption_object_recall),
            ("answer_exact", self.answer_exact),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:26} {:>7} {:>7} {:>9}",
            "", self.model, "blank", "shuffled"
        )?;
        let blank = self.baselines.blank.rows();
        let shuffled = self.baselines.shuffled.rows();
        for ((row, blank), shuffled) in self.metrics.rows().iter().zip(blank).zip(shuffled) {
            let (name, value) = row;
            writeln!(
                f,
                "{name:26} {value:>7.3} {:>7.3} {:>9.3}",
                blank.1, shuffled.1
            )?;
        }
        for (task, score) in &self.per_task {
            writeln!(
                f,
                "{:26} {:>7.3} of {}",
                format!("{task:?}"),
                score.right,
                score.asked
            )?;
        }
        write!(
            f,
            "{} scenes from seed {} on {} in {:.0} s",
            self.count, self.seed, self.device, self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{AskTime, StopReason};
    use crate::scenes::Piece;
    use crate::text::answer_parser::Span;

    const SEED: u64 = 900_100;
    const COUNT: u64 = 12;

    fn options(ask_with: AskWith) -> EvalOptions {
        EvalOptions {
            count: COUNT,
            seed: SEED,
            ask_with,
            score: 0.3,
            nms: 0.8,
            model: "oracle".into(),
            device: "cpu".into(),
        }
    }

    fn answer(text: String, spans: Vec<Span>) -> Answer {
        Answer {
            prompt: String::new(),
            text,
            spans,
            tokens: 0,
            prefill_tokens: 0,
            stop: StopReason::End,
            milliseconds: AskTime::default(),
        }
    }

    /// Knows the scenes by their pictures and the questions by their words; speaks only where
    /// the boxes are the scene's.
    struct Oracle(Vec<Scene>);

    impl Oracle {
        fn scene(&self, pixels: &Pixels) -> Option<(u64, &Scene)> {
            let number = self.0.iter().position(|s| s.pixels == *pixels)?;
            Some((number as u64, &self.0[number]))
        }
    }

    impl Subject for Oracle {
        fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
            let Some((_, scene)) = self.scene(pixels) else {
                return Ok(Vec::new());
            };
            let proposal = |bbox| Proposal { bbox, score: 0.9 };
            Ok(scene.objects.iter().map(|o| proposal(o.bbox)).collect())
        }

        fn ask(
            &mut self,
            pixels: &Pixels,
            boxes: &[BoxXyxy],
            question: &str,
        ) -> Result<Answer, Fault> {
            let silent = || Ok(answer(String::new(), Vec::new()));
            let Some((number, scene)) = self.scene(pixels) else {
                return silent();
            };
            let given = Given {
                scene: scene.clone(),
                proposals: Vec::new(),
                boxes: boxes.to_vec(),
            };
            let box_of = match_boxes(scene, boxes, None);
            if box_of.contains(&None) {
                return silent();
            }
            for trial in trials(&given, number) {
                let Some((asked, text)) = trial.dialogue.render(&box_of) else {
                    continue;
                };
                if asked != question {
                    continue;
                }
                let spans = trial.dialogue.answer.iter().map(|piece| match piece {
                    Piece::Words(words) => Span {
                        text: words.clone(),
                        objects: Vec::new(),
                    },
                    Piece::Group { phrase, objects } => Span {
                        text: phrase.clone(),
                        objects: objects
                            .iter()
                            .filter_map(|&o| box_of[o])
                            .map(|i| i as u32)
                            .collect(),
                    },
                    Piece::Index(_) => panic!("answers name boxes in groups"),
                });
                return Ok(answer(text, spans.collect()));
            }
            silent()
        }
    }

    /// Says that everything is a dog.
    struct Silly;

    impl Subject for Silly {
        fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
            let bbox = [0.0, 0.0, pixels.width as f32, pixels.height as f32].into();
            Ok(vec![Proposal { bbox, score: 0.9 }])
        }

        fn ask(&mut self, _: &Pixels, boxes: &[BoxXyxy], _: &str) -> Result<Answer, Fault> {
            let span = Span {
                text: "dog".into(),
                objects: (0..boxes.len() as u32).collect(),
            };
            Ok(answer("dog".into(), vec![span]))
        }
    }

    #[test]
    fn the_truth_scores_one_and_blind_answers_do_not() {
        for ask_with in [AskWith::Proposals, AskWith::Truth] {
            let scenes = (SEED..SEED + COUNT).map(Scene::draw).collect();
            let report = evaluate(&mut Oracle(scenes), &options(ask_with), |_| ()).unwrap();
            for (name, value) in report.metrics.rows() {
                // Some scenes have more than ten objects.
                let least = if name == "recall_50_at_10" { 0.9 } else { 1.0 };
                assert!(value >= least, "{name} {value} {ask_with:?}");
            }
            for (task, score) in &report.per_task {
                assert_eq!(score.right, 1.0, "{task:?}");
            }
            let blind = [report.baselines.blank, report.baselines.shuffled];
            for (name, value) in blind.iter().flat_map(Metrics::rows) {
                // A blind model that says nothing gives no absent kind a box.
                let silence = name == "absent_accuracy";
                assert!(silence || value < 0.7, "{name} {value}");
            }
        }
    }

    #[test]
    fn nonsense_scores_low() {
        let report = evaluate(&mut Silly, &options(AskWith::Truth), |_| ()).unwrap();
        for (name, value) in report.metrics.rows() {
            let limit = if name == "absent_accuracy" { 1.0 } else { 0.4 };
            assert!(value <= limit, "{name} {value}");
        }
    }

    #[test]
    fn training_seeds_are_refused() {
        let wrong = EvalOptions {
            seed: 1,
            ..options(AskWith::Truth)
        };
        assert!(evaluate(&mut Silly, &wrong, |_| ()).is_err());
    }

    #[test]
    fn the_report_has_the_promised_keys() {
        let report = evaluate(&mut Silly, &options(AskWith::Proposals), |_| ()).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        for key in [
            "count", "seed", "model", "device", "metrics", "per_task", "seconds",
        ] {
            assert!(!json[key].is_null(), "{key}");
        }
        for (name, value) in report.metrics.rows() {
            assert_eq!(json["metrics"][name], value);
            assert!(json["baselines"]["blank"][name].is_number());
            assert!(json["baselines"]["shuffled"][name].is_number());
        }
        assert!(json["per_task"]["name"]["right"].is_number());
    }
}
