//! Evaluation on referring expressions: `chatrex eval --refcoco`.
//!
//! Every expression is one question in the project's referring wording. The first box of the answer counts.
//! `docs/reference/interfaces.md` section 5.2 defines the metrics.

mod refs;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::examples::{Example, WorstErrors};
use super::html::{MAX_PICTURES, Page};
use super::photographs::MetricRow;
use super::{EvalModel, MAX_BOXES};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::eval::answers::MATCH_IOU;
use crate::geometry::{BoxXyxy, Proposal, Selection};
use crate::image::{Pixels, decode};
use crate::scenes::Rng;
use crate::text::prompt::Task;

pub use self::refs::{Reference, open, parse};

/// Resamples of the pictures that a standard error is computed from.
const RESAMPLES: u64 = 200;
/// A true box may extend beyond its picture by this many pixels.
const TOLERANCE: f64 = 1.0;

/// Options of an evaluation on referring expressions.
#[derive(Clone, Debug)]
pub struct ReferOptions {
    /// Name of the file of references, for the report.
    pub references: String,
    /// The folder of the pictures.
    pub images: PathBuf,
    /// Which proposals become boxes.
    pub selection: Selection,
    /// Whether the blank baseline runs.
    pub blind: bool,
    /// The model's name, for the report.
    pub model: String,
    /// The device's name, for the report.
    pub device: String,
}

/// What is measured of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// The first box is right.
    Refer,
    /// A box of the question is on the target.
    Bound,
    /// The first box is right, of those whose target has a box.
    ReferFound,
    /// The answer has a box.
    Answered,
    /// The first of the boxes, the one with the highest score, is right.
    First,
    /// The first box of the answer about a grey picture is right.
    Blank,
}

const MEASURES: [(Measure, &str); 6] = [
    (Measure::Refer, "refer_accuracy"),
    (Measure::Bound, "proposal_bound"),
    (Measure::ReferFound, "refer_accuracy_found"),
    (Measure::Answered, "answered"),
    (Measure::First, "first_box"),
    (Measure::Blank, "blank"),
];

/// Numerator and denominator of every measure, of one picture.
type Sums = [[usize; 2]; MEASURES.len()];

/// Result of an evaluation on referring expressions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferReport {
    /// Name of the file of references.
    pub references: String,
    /// Number of pictures.
    pub count: usize,
    /// Number of objects that are referred to.
    pub objects: usize,
    /// Number of expressions.
    pub asked: usize,
    /// The model's name.
    pub model: String,
    /// The device's name.
    pub device: String,
    /// Metrics of the model.
    pub metrics: BTreeMap<&'static str, Option<f64>>,
    /// Accuracies of the baselines.
    pub baselines: BTreeMap<&'static str, Option<f64>>,
    /// The standard errors of metrics and baselines.
    pub errors: BTreeMap<&'static str, Option<f64>>,
    /// Duration in seconds.
    pub seconds: f64,
    /// All of them in the order of the report.
    #[serde(skip)]
    pub rows: Vec<MetricRow>,
    /// The worst errors, for [`ReferReport::page`].
    #[serde(skip)]
    pub worst: Vec<Example>,
}

/// An answer of the model; `chatrex eval --refcoco --answers` writes one per line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReferRecord {
    /// File of the picture.
    pub image: String,
    /// Number of the reference in its file, from 1.
    pub reference: usize,
    /// The question.
    pub question: String,
    /// The answer with tags.
    pub answer: String,
    /// The true box.
    #[serde(rename = "box")]
    pub bbox: BoxXyxy,
    /// The first box of the answer.
    pub answered: Option<BoxXyxy>,
    /// Their IoU.
    pub iou: f32,
    /// Whether any box of the question is on the target.
    pub found: bool,
}

/// The question about `sentence`.
pub fn question(sentence: &str) -> String {
    Task::Detect.question(&[sentence.trim_end_matches(['.', '?', '!', ' '])])
}

/// Evaluates `model` on `references`. `progress` gets the number of finished pictures, `record` every answer.
///
/// # Errors
/// A picture is missing or cannot be read, a true box is not in its picture, or a fault of the model or of
/// `record`.
pub fn evaluate_references(
    model: &mut dyn EvalModel,
    references: &[Reference],
    options: &ReferOptions,
    mut progress: impl FnMut(u64),
    record: &mut dyn FnMut(&ReferRecord) -> Result<(), Fault>,
) -> Result<ReferReport, Fault> {
    let began = Instant::now();
    let pictures = by_picture(references, &options.images)?;
    let mut worst = WorstErrors::default();
    let mut sums: Vec<Sums> = Vec::new();
    let mut asked = 0;
    for (number, (path, references)) in pictures.iter().enumerate() {
        let pixels = decode::open(path)?;
        let proposals = model.propose(&pixels)?;
        let view = View {
            boxes: chosen(&proposals, options.selection),
            pixels,
            path,
        };
        let mut picture = Sums::default();
        let mut questions: Vec<(&Reference, String)> = Vec::new();
        for reference in references {
            view.check(reference)?;
            let texts = reference.sentences.iter().map(|text| question(text));
            questions.extend(texts.map(|text| (*reference, text)));
        }
        for (reference, text) in &questions {
            let made = view.ask(model, reference, text, &mut picture)?;
            record(&made.0)?;
            if let Some(example) = made.1 {
                worst.add(example);
            }
        }
        if options.blind {
            view.ask_blank(model, &questions, &mut picture)?;
        }
        asked += questions.len();
        sums.push(picture);
        progress(number as u64 + 1);
    }
    let rows = rows(&sums);
    let is_baseline = |name: &str| ["first_box", "blank"].contains(&name);
    let values = |baseline: bool| {
        let rows = rows.iter().filter(|row| is_baseline(row.name) == baseline);
        rows.map(|row| (row.name, row.value)).collect()
    };
    Ok(ReferReport {
        references: options.references.clone(),
        count: pictures.len(),
        objects: references.len(),
        asked,
        model: options.model.clone(),
        device: options.device.clone(),
        metrics: values(false),
        baselines: values(true),
        errors: rows.iter().map(|row| (row.name, row.error)).collect(),
        seconds: began.elapsed().as_secs_f64(),
        worst: worst.take(MAX_PICTURES),
        rows,
    })
}

/// The references of each picture, in the order of the file.
fn by_picture<'a>(
    references: &'a [Reference],
    images: &Path,
) -> Result<Vec<(PathBuf, Vec<&'a Reference>)>, Fault> {
    let mut places: BTreeMap<&Path, usize> = BTreeMap::new();
    let mut pictures: Vec<(PathBuf, Vec<&Reference>)> = Vec::new();
    for reference in references {
        let place = *places.entry(&reference.image).or_insert_with(|| {
            pictures.push((reference.path(images), Vec::new()));
            pictures.len() - 1
        });
        pictures[place].1.push(reference);
    }
    match pictures.iter().find(|(path, _)| !path.is_file()) {
        None => Ok(pictures),
        Some((path, _)) => Err(Fault::new(
            FaultKind::File,
            path.display().to_string(),
            "is missing",
            "Name the folder of the pictures with --images",
        )
        .code(ErrorCode::NotFound)),
    }
}

fn chosen(proposals: &[Proposal], selection: Selection) -> Vec<BoxXyxy> {
    let kept = selection.choose(proposals, MAX_BOXES).kept.into_iter();
    kept.map(|index| proposals[index].bbox).collect()
}

/// A picture with its boxes, best first.
struct View<'a> {
    path: &'a Path,
    pixels: Pixels,
    boxes: Vec<BoxXyxy>,
}

impl View<'_> {
    fn check(&self, reference: &Reference) -> Result<(), Fault> {
        let [x, y, w, h] = reference.xywh;
        let Pixels { width, height, .. } = self.pixels;
        let fits = |from: f64, length: f64, limit: u32| {
            from >= -TOLERANCE && from + length <= f64::from(limit) + TOLERANCE
        };
        if fits(x, w, width) && fits(y, h, height) {
            return Ok(());
        }
        let number = reference.number;
        Err(Fault::new(
            FaultKind::Picture,
            self.path.display().to_string(),
            format!(
                "has {width} x {height} pixels; the box [{x}, {y}, {w}, {h}] of reference {number} is not inside"
            ),
            "Use the pictures that the references describe",
        )
        .code(ErrorCode::Corrupt))
    }

    /// The first box that `model` answers about `pixels`, and the answer with tags.
    fn first_box(
        &self,
        model: &mut dyn EvalModel,
        pixels: &Pixels,
        text: &str,
    ) -> Result<(Option<BoxXyxy>, String), Fault> {
        let answer = model.ask(pixels, &self.boxes, text)?;
        let first = answer.spans.iter().find_map(|span| span.objects.first());
        let bbox = first.and_then(|index| self.boxes.get(*index as usize));
        Ok((bbox.copied(), answer.text))
    }

    fn ask(
        &self,
        model: &mut dyn EvalModel,
        reference: &Reference,
        text: &str,
        sums: &mut Sums,
    ) -> Result<(ReferRecord, Option<Example>), Fault> {
        let target = reference.bbox();
        let on_target = |bbox: Option<&BoxXyxy>| bbox.is_some_and(|b| b.iou(&target) >= MATCH_IOU);
        let (answered, answer) = self.first_box(model, &self.pixels, text)?;
        let right = on_target(answered.as_ref());
        let found = self.boxes.iter().any(|bbox| on_target(Some(bbox)));
        let mut add = |measure: Measure, hit: bool| {
            let [part, whole] = &mut sums[measure as usize];
            *part += usize::from(hit);
            *whole += 1;
        };
        add(Measure::Refer, right);
        add(Measure::Bound, found);
        if found {
            add(Measure::ReferFound, right);
        }
        add(Measure::Answered, answered.is_some());
        add(Measure::First, on_target(self.boxes.first()));
        let iou = answered.map_or(0.0, |bbox| bbox.iou(&target));
        let example = (!right).then(|| Example {
            image: self.path.to_owned(),
            task: if found {
                "other box"
            } else {
                "no box on the target"
            }
            .to_owned(),
            question: text.to_owned(),
            answer: answer.clone(),
            truth: String::new(),
            truth_boxes: vec![target],
            answered: answered.into_iter().collect(),
            badness: f64::from(1.0 - iou),
        });
        let record = ReferRecord {
            image: reference.image.display().to_string(),
            reference: reference.number,
            question: text.to_owned(),
            answer,
            bbox: target,
            answered,
            iou,
            found,
        };
        Ok((record, example))
    }

    /// Asks about a grey picture with the boxes of the picture.
    fn ask_blank(
        &self,
        model: &mut dyn EvalModel,
        questions: &[(&Reference, String)],
        sums: &mut Sums,
    ) -> Result<(), Fault> {
        let grey = Pixels {
            rgb: vec![127; self.pixels.rgb.len()],
            ..self.pixels
        };
        for (reference, text) in questions {
            let (answered, _) = self.first_box(model, &grey, text)?;
            let right = answered.is_some_and(|b| b.iou(&reference.bbox()) >= MATCH_IOU);
            let [part, whole] = &mut sums[Measure::Blank as usize];
            *part += usize::from(right);
            *whole += 1;
        }
        Ok(())
    }
}

/// The values of all measures with their standard errors: the standard deviation over random resamples of the
/// pictures with replacement (bootstrap).
fn rows(sums: &[Sums]) -> Vec<MetricRow> {
    let quotient = |measure: usize, weights: &[usize]| -> Option<f64> {
        let mut total = [0, 0];
        for (picture, weight) in sums.iter().zip(weights) {
            total[0] += weight * picture[measure][0];
            total[1] += weight * picture[measure][1];
        }
        (total[1] > 0).then(|| total[0] as f64 / total[1] as f64)
    };
    let once = vec![1; sums.len()];
    let samples: Vec<Vec<usize>> = (0..RESAMPLES)
        .map(|sample| {
            let mut rng = Rng::new(sample, 0);
            let mut weights = vec![0; sums.len()];
            (0..sums.len()).for_each(|_| weights[rng.below(sums.len())] += 1);
            weights
        })
        .collect();
    let row = |(place, (_, name)): (usize, &(Measure, &'static str))| {
        let value = quotient(place, &once);
        let drawn: Vec<f64> = samples
            .iter()
            .filter_map(|weights| quotient(place, weights))
            .collect();
        let error = value.filter(|_| sums.len() > 1);
        MetricRow {
            name,
            value,
            error: error.and(super::photographs::deviation(&drawn)),
        }
    };
    MEASURES.iter().enumerate().map(row).collect()
}

impl ReferReport {
    fn counts(&self) -> String {
        format!(
            "{} expressions of {} objects in {} pictures, on {} in {:.0} s",
            self.asked, self.objects, self.count, self.device, self.seconds
        )
    }

    /// The report as HTML.
    pub fn page(&self) -> Page {
        let mut page = Page::new(&format!("{} on {}", self.model, self.references));
        page.paragraph(&self.counts());
        let rows: Vec<Vec<String>> = (self.rows.iter())
            .map(|row| vec![row.name.to_owned(), row.to_string()])
            .collect();
        page.table("Metrics", &["metric", "value"], &rows);
        page.examples(&self.worst);
        page
    }
}

impl fmt::Display for ReferReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "{:24}{:>16}", row.name, row.to_string())?;
        }
        f.write_str(&self.counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Answer;
    use crate::text::answer_parser::spans;

    /// Proposes two boxes; answers with the second for expressions with `right`, with the first else, and
    /// with nothing about a grey picture.
    struct Fixed;

    impl EvalModel for Fixed {
        fn propose(&mut self, _: &Pixels) -> Result<Vec<Proposal>, Fault> {
            let boxes = [
                ([0.0, 0.0, 20.0, 20.0], 0.9),
                ([40.0, 0.0, 60.0, 20.0], 0.5),
            ];
            Ok(boxes
                .map(|(bbox, score)| Proposal::unlabelled(bbox.into(), score))
                .to_vec())
        }

        fn ask(&mut self, pixels: &Pixels, _: &[BoxXyxy], text: &str) -> Result<Answer, Fault> {
            let text = match (pixels.rgb[0], text.contains("right")) {
                (127, _) => String::new(),
                (_, true) => "<ground>x</ground><objects><obj1></objects>".into(),
                (_, false) => "<ground>x</ground><objects><obj0><obj1></objects>".into(),
            };
            Ok(Answer::saying(text.clone(), spans(&text)))
        }
    }

    fn options(images: &Path) -> ReferOptions {
        ReferOptions {
            references: "refs.json".into(),
            images: images.into(),
            selection: Selection {
                score: 0.3,
                nms: 0.8,
                first_of_kind: None,
            },
            blind: true,
            model: "fixed".into(),
            device: "cpu".into(),
        }
    }

    fn run(text: &str, images: &Path) -> Result<(ReferReport, Vec<ReferRecord>), Fault> {
        let references = parse(text.as_bytes(), "refs.json", None)?;
        let mut records = Vec::new();
        let mut record = |record: &ReferRecord| {
            records.push(record.clone());
            Ok(())
        };
        let options = options(images);
        let report = evaluate_references(&mut Fixed, &references, &options, |_| (), &mut record)?;
        Ok((report, records))
    }

    #[test]
    fn the_first_box_and_the_bound_are_measured() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.png", "b.png"] {
            let picture = ::image::RgbImage::from_pixel(64, 32, ::image::Rgb([9; 3]));
            picture.save(folder.path().join(name)).expect("a picture");
        }
        // Right; wrong although a box is there; twice right; no box on the target.
        let text = r#"[{"image": "a.png", "sentence": "the right one", "bbox": [40, 0, 20, 20]},
            {"image": "b.png", "sentence": "the far one.", "bbox": [40, 1, 20, 20]},
            {"image": "a.png", "sentences": ["left", "leftmost"], "bbox": [0, 0, 20, 19]},
            {"image": "b.png", "sentence": "that on the right", "bbox": [20, 15, 15, 15]}]"#;
        let (report, records) = run(text, folder.path()).expect("a report");
        assert_eq!((report.count, report.objects, report.asked), (2, 4, 5));
        for (name, expected) in [
            ("refer_accuracy", 3.0 / 5.0),
            ("proposal_bound", 4.0 / 5.0),
            ("refer_accuracy_found", 3.0 / 4.0),
            ("answered", 1.0),
        ] {
            assert_eq!(report.metrics[name], Some(expected), "{name}");
        }
        assert_eq!(report.baselines["first_box"], Some(2.0 / 5.0));
        assert_eq!(report.baselines["blank"], Some(0.0));
        assert!(report.errors["refer_accuracy"].is_some_and(|error| error > 0.0));
        let far = records
            .iter()
            .find(|record| record.question.contains("far"));
        let far = far.expect("a record");
        assert!(far.found && far.iou == 0.0 && far.reference == 2);
        assert_eq!(far.question, question("the far one"));
        assert_eq!(report.worst.len(), 2);
        let page = report.page().finish();
        crate::eval::html::check_page(&page);
        assert_eq!(page.matches("<img").count(), 2);
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(json["metrics"]["refer_accuracy"], 0.6);
        let documented = std::fs::read_to_string("docs/reference/interfaces.md").expect("a file");
        for (_, name) in MEASURES {
            assert!(documented.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn pictures_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = r#"[{"image": "a.png", "sentence": "x", "bbox": [40, 0, 30, 20]}]"#;
        let fault = run(text, folder.path()).expect_err("no picture");
        assert_eq!(fault.code, ErrorCode::NotFound);
        let picture = ::image::RgbImage::new(64, 32);
        picture
            .save(folder.path().join("a.png"))
            .expect("a picture");
        let fault = run(text, folder.path()).expect_err("a box outside");
        assert!(fault.what.contains("reference 1 is not inside"), "{fault}");
    }
}
