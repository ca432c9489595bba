//! Evaluation of a model on test scenes: `chatrex eval`; [`photographs`] is that on COCO data sets.
//!
//! A model is anything that proposes boxes and answers questions ([`EvalModel`]). Two blind baselines
//! get the same questions: `blank` sees a grey image with the scene's boxes; `shuffled` sees the
//! image with the boxes of another scene, and its indices are scored against the scene's own boxes.
//! A metric on which the model does not exceed both says nothing about it.
//!
//! Each scene has eight questions: a detection of all categories and an absent one, a caption, a
//! count, a reference, a plain question, the name of a box, one of (detection, absent category,
//! position, detailed caption), and one of (short phrase, brief, one-sentence description).

mod answers;
pub mod examples;
pub mod html;
pub mod pairs;
pub mod photographs;
mod proposals;
pub mod refcoco;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::Serialize;

use self::answers::{AnswerScores, GroundTruth, MATCH_IOU};
use self::proposals::ProposalScores;
use crate::error::{Fault, FaultKind};
use crate::geometry::{BoxXyxy, Proposal, filter};
use crate::image::Pixels;
use crate::protocol::Answer;
use crate::scenes::{
    Category, Dialogue, DialogueTask, Rng, Scene, Split, absent_category, detect_all, dialogue,
};

/// Upper limit of the boxes of a question.
const MAX_BOXES: usize = 100;
/// IoU from which a proposal is dropped as a duplicate of the box that a question names.
const DUPLICATE_IOU: f32 = 0.8;

/// A model to evaluate.
pub trait EvalModel {
    /// All proposals for an image with the coarse prompt, unfiltered, in any order.
    fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault>;

    /// The answer to `question` about an image with `boxes`. Calls for the same image are consecutive
    /// and mostly use the same boxes.
    fn ask(&mut self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault>;
}

/// The source of the boxes of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AskWith {
    /// The model's proposals after its default score threshold and NMS.
    #[default]
    Proposals,
    /// The ground-truth boxes in random order.
    Truth,
}

/// Options of an evaluation.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// Number of scenes.
    pub count: u64,
    /// Seed of the first scene, from 900000 on.
    pub seed: u64,
    /// The source of the boxes.
    pub ask_with: AskWith,
    /// Score threshold of the proposals.
    pub score: f32,
    /// IoU threshold of NMS.
    pub nms: f64,
    /// The model's name, for the report.
    pub model: String,
    /// The device's name, for the report.
    pub device: String,
}

/// All metrics, each 0 to 1, as defined in `docs/reference/interfaces.md` section 4. A fraction of
/// zero cases is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Recall of the best 10 proposals at IoU 0.5.
    pub recall_50_at_10: f64,
    /// Recall of the best 30 proposals at IoU 0.5.
    pub recall_50_at_30: f64,
    /// Recall of the best 100 proposals at IoU 0.5.
    pub recall_50_at_100: f64,
    /// Average precision of the proposals at IoU 0.5.
    pub ap_50: f64,
    /// Mean of the average precisions at IoU 0.5 to 0.95.
    pub map: f64,
    /// Fraction of answered boxes that are correct.
    pub detect_precision: f64,
    /// Fraction of objects that are answered.
    pub detect_recall: f64,
    /// Harmonic mean of the two.
    pub detect_f1: f64,
    /// Fraction of absent categories without a box.
    pub absent_accuracy: f64,
    /// Fraction of references whose first box is the target.
    pub refer_accuracy: f64,
    /// Fraction of correct counts.
    pub count_accuracy: f64,
    /// Fraction of boxes with the correct category word.
    pub naming_accuracy: f64,
    /// Fraction of caption phrases that match all of their boxes.
    pub caption_phrase_precision: f64,
    /// Fraction of objects that captions mention correctly.
    pub caption_object_recall: f64,
    /// Fraction of plain questions with the exact answer.
    pub answer_exact: f64,
}

/// Metrics of the two blind baselines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baselines {
    /// A grey image with the scene's boxes; the proposals are those of the grey image.
    pub blank: Metrics,
    /// The image with the boxes of another scene; the proposals are those of the other scene, scaled.
    pub shuffled: Metrics,
}

/// Result of one task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// Number of questions.
    pub asked: usize,
    /// Fraction of correct answers: detections and captions without false positives and false
    /// negatives, references and counts as in their metric, other answers by exact text.
    pub right: f64,
}

/// Result of an evaluation; `chatrex eval --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Number of scenes.
    pub count: u64,
    /// Seed of the first scene.
    pub seed: u64,
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// The source of the boxes.
    pub ask_with: AskWith,
    /// Metrics of the model.
    pub metrics: Metrics,
    /// Metrics of the blind baselines.
    pub baselines: Baselines,
    /// Results of the model per task.
    pub per_task: BTreeMap<DialogueTask, TaskScore>,
    /// Duration in seconds.
    pub seconds: f64,
}

/// Evaluates `model`; `progress` gets the number of finished scenes.
///
/// # Errors
/// A seed below 900000, zero scenes, or a fault of the model.
pub fn evaluate(
    model: &mut dyn EvalModel,
    options: &EvalOptions,
    mut progress: impl FnMut(u64),
) -> Result<Report, Fault> {
    check_seeds(options)?;
    let began = Instant::now();
    let (mut real, mut blank, mut shuffled) =
        (Scores::default(), Scores::default(), Scores::default());
    let mut before = EvalScene::look(model, options, options.seed + options.count - 1)?;
    for number in 0..options.count {
        let input = EvalScene::look(model, options, options.seed + number)?;
        let scene = &input.scene;
        let truth: Vec<BoxXyxy> = scene.objects.iter().map(|o| o.bbox).collect();
        let other = before.scaled_to(&scene.pixels);
        real.proposals.add(&input.proposals, &truth);
        shuffled.proposals.add(&other.proposals, &truth);
        let questions = questions(&input, number);
        for question in &questions {
            real.ask(model, &scene.pixels, question, &input, &question.boxes)?;
        }
        for question in &questions {
            let boxes = cycled(&other.boxes, question.boxes.len());
            shuffled.ask(model, &scene.pixels, question, &input, &boxes)?;
        }
        let blank_image = Pixels {
            rgb: vec![127; scene.pixels.rgb.len()],
            ..scene.pixels
        };
        blank.proposals.add(&model.propose(&blank_image)?, &truth);
        for question in &questions {
            blank.ask(model, &blank_image, question, &input, &question.boxes)?;
        }
        before = input;
        progress(number + 1);
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
                let (asked, right) = (tally.asked, tally.fraction());
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
            "evaluation needs at least one scene and test seeds, which start at 900000",
            "Use --count 300 --seed 900000",
        ));
    }
    Ok(())
}

/// A scene with the proposals of the model.
struct EvalScene {
    scene: Scene,
    proposals: Vec<Proposal>,
    /// The boxes of its questions.
    boxes: Vec<BoxXyxy>,
}

/// Boxes of one image scaled to the size of another.
struct ScaledBoxes {
    proposals: Vec<Proposal>,
    boxes: Vec<BoxXyxy>,
}

impl EvalScene {
    fn look(model: &mut dyn EvalModel, options: &EvalOptions, seed: u64) -> Result<Self, Fault> {
        let scene = Scene::draw(seed);
        let proposals = model.propose(&scene.pixels)?;
        let boxes = match options.ask_with {
            AskWith::Proposals => filter(&proposals, options.score, options.nms, MAX_BOXES)
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

    /// Its proposals and boxes, scaled to the size of `pixels`.
    fn scaled_to(&self, pixels: &Pixels) -> ScaledBoxes {
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
            ..p.clone()
        });
        ScaledBoxes {
            proposals: proposals.collect(),
            boxes: self.boxes.iter().map(scaled).collect(),
        }
    }
}

/// `boxes` cut or repeated to `count` boxes; a fixed box if there are none.
fn cycled(boxes: &[BoxXyxy], count: usize) -> Vec<BoxXyxy> {
    let nowhere = BoxXyxy::from([0.0, 0.0, 32.0, 32.0]);
    let cycle = boxes.iter().cycle().chain(std::iter::repeat(&nowhere));
    cycle.take(count).copied().collect()
}

/// A question with its boxes.
struct EvalQuestion {
    dialogue: Dialogue,
    absent: Option<Category>,
    boxes: Vec<BoxXyxy>,
    box_of: Vec<Option<usize>>,
}

impl EvalQuestion {
    /// Asks the model with `boxes` in place of the question's own.
    fn ask(
        &self,
        model: &mut dyn EvalModel,
        pixels: &Pixels,
        boxes: &[BoxXyxy],
    ) -> Result<Answer, Fault> {
        let text = self
            .dialogue
            .question(&self.box_of)
            .expect("the object of the question has the first box");
        model.ask(pixels, boxes, &text)
    }

    /// The ground truth that an answer is scored against.
    fn ground_truth<'a>(&'a self, input: &'a EvalScene) -> GroundTruth<'a> {
        GroundTruth {
            scene: &input.scene,
            dialogue: &self.dialogue,
            boxes: &self.boxes,
            box_of: &self.box_of,
            absent: self.absent,
        }
    }
}

/// The questions about scene `number` of the run.
fn questions(input: &EvalScene, number: u64) -> Vec<EvalQuestion> {
    let scene = &input.scene;
    let mut rng = Rng::new(scene.seed, 4);
    let absent = absent_category(scene, &mut rng);
    let mut asked = vec![(detect_all(scene, absent, &mut rng), Some(absent))];
    // Of each row the first task that is possible in the scene; the first candidate rotates with the
    // scene number.
    let rows: [&[DialogueTask]; 7] = [
        &[DialogueTask::Caption],
        &[DialogueTask::Count],
        &[
            DialogueTask::ReferPosition,
            DialogueTask::ReferSize,
            DialogueTask::ReferColour,
            DialogueTask::ReferRelation,
        ],
        &[
            DialogueTask::Exists,
            DialogueTask::Colour,
            DialogueTask::Total,
            DialogueTask::Relation,
        ],
        &[
            DialogueTask::DetectOne,
            DialogueTask::DetectAbsent,
            DialogueTask::Where,
            DialogueTask::CaptionDetailed,
        ],
        &[DialogueTask::Name],
        &[
            DialogueTask::ShortPhrase,
            DialogueTask::Brief,
            DialogueTask::Sentence,
        ],
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
            let boxes = boxes_of(input, dialogue.target());
            let box_of = match_boxes(scene, &boxes, dialogue.target());
            EvalQuestion {
                dialogue,
                absent,
                boxes,
                box_of,
            }
        })
        .collect()
}

/// The boxes of a question: the ground-truth box of its target, if any, then those of the scene.
fn boxes_of(input: &EvalScene, target: Option<usize>) -> Vec<BoxXyxy> {
    let Some(target) = target else {
        return input.boxes.clone();
    };
    let own = input.scene.objects[target].bbox;
    let rest = input.boxes.iter().filter(|b| b.iou(&own) < DUPLICATE_IOU);
    let rest = rest.take(MAX_BOXES - 1).copied();
    std::iter::once(own).chain(rest).collect()
}

/// The box of each object: the one with the highest IoU, at least [`MATCH_IOU`]; box 0 for `target`.
fn match_boxes(scene: &Scene, boxes: &[BoxXyxy], target: Option<usize>) -> Vec<Option<usize>> {
    let best = |object: usize| {
        let own = scene.objects[object].bbox;
        (0..boxes.len())
            .map(|i| (i, boxes[i].iou(&own)))
            .filter(|(_, iou)| *iou >= MATCH_IOU)
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

/// Accumulated scores of the model or of a baseline.
#[derive(Default)]
struct Scores {
    proposals: ProposalScores,
    answers: AnswerScores,
}

impl Scores {
    /// Asks with `boxes` in place of the question's own and scores the answer against its own boxes.
    fn ask(
        &mut self,
        model: &mut dyn EvalModel,
        pixels: &Pixels,
        question: &EvalQuestion,
        input: &EvalScene,
        boxes: &[BoxXyxy],
    ) -> Result<(), Fault> {
        let answer = question.ask(model, pixels, boxes)?;
        self.answers.add(&question.ground_truth(input), &answer);
        Ok(())
    }

    fn metrics(&self) -> Metrics {
        let [recall_50_at_10, recall_50_at_30, recall_50_at_100] = self.proposals.recall();
        let [ap_50, map] = self.proposals.average_precisions();
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
    /// All metrics with their names, in the order of `docs/reference/interfaces.md` section 4.
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
    use crate::scenes::Segment;
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

    /// Recognizes scenes by their pixels and questions by their text. Answers with the ground truth if
    /// every object has a box, else with an empty text.
    struct Oracle(Vec<Scene>);

    impl Oracle {
        fn scene(&self, pixels: &Pixels) -> Option<(u64, &Scene)> {
            let number = self.0.iter().position(|s| s.pixels == *pixels)?;
            Some((number as u64, &self.0[number]))
        }
    }

    impl EvalModel for Oracle {
        fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
            let Some((_, scene)) = self.scene(pixels) else {
                return Ok(Vec::new());
            };
            let proposal = |bbox| Proposal::unlabelled(bbox, 0.9);
            Ok(scene.objects.iter().map(|o| proposal(o.bbox)).collect())
        }

        fn ask(
            &mut self,
            pixels: &Pixels,
            boxes: &[BoxXyxy],
            question: &str,
        ) -> Result<Answer, Fault> {
            let no_answer = || Ok(Answer::saying(String::new(), Vec::new()));
            let Some((number, scene)) = self.scene(pixels) else {
                return no_answer();
            };
            let input = EvalScene {
                scene: scene.clone(),
                proposals: Vec::new(),
                boxes: boxes.to_vec(),
            };
            let box_of = match_boxes(scene, boxes, None);
            if box_of.contains(&None) {
                return no_answer();
            }
            for known in questions(&input, number) {
                let Some((asked, text)) = known.dialogue.render(&box_of) else {
                    continue;
                };
                if asked != question {
                    continue;
                }
                let spans = known.dialogue.answer.iter().map(|segment| match segment {
                    Segment::Text(part) => Span {
                        text: part.clone(),
                        ..Span::default()
                    },
                    Segment::Group { phrase, objects } => Span {
                        text: phrase.clone(),
                        objects: objects
                            .iter()
                            .filter_map(|&o| box_of[o])
                            .map(|i| i as u32)
                            .collect(),
                        open: false,
                    },
                    Segment::Index(_) => panic!("answers have no index outside a group"),
                });
                return Ok(Answer::saying(text, spans.collect()));
            }
            no_answer()
        }
    }

    /// Answers that every box is a dog.
    struct AlwaysDog;

    impl EvalModel for AlwaysDog {
        fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
            let bbox = [0.0, 0.0, pixels.width as f32, pixels.height as f32].into();
            Ok(vec![Proposal::unlabelled(bbox, 0.9)])
        }

        fn ask(&mut self, _: &Pixels, boxes: &[BoxXyxy], _: &str) -> Result<Answer, Fault> {
            let span = Span {
                text: "dog".into(),
                objects: (0..boxes.len() as u32).collect(),
                open: false,
            };
            Ok(Answer::saying("dog".into(), vec![span]))
        }
    }

    #[test]
    fn the_ground_truth_scores_one_and_blind_answers_do_not() {
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
                // Without an answer the absent category has no box.
                let empty_answers = name == "absent_accuracy";
                assert!(empty_answers || value < 0.7, "{name} {value}");
            }
        }
    }

    #[test]
    fn a_constant_answer_scores_low() {
        let report = evaluate(&mut AlwaysDog, &options(AskWith::Truth), |_| ()).unwrap();
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
        assert!(evaluate(&mut AlwaysDog, &wrong, |_| ()).is_err());
    }

    #[test]
    fn the_report_has_the_documented_keys() {
        let report = evaluate(&mut AlwaysDog, &options(AskWith::Proposals), |_| ()).unwrap();
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
