//! `chatrex eval`: evaluation of a model on test scenes, or on photographs with COCO annotations.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::names::{CpuActivationsName, KvCacheName};
use super::propose::DeviceName;
use super::stdio_client::StdioClient;
use crate::error::{Fault, FaultKind};
use crate::eval::html;
use crate::eval::pairs::compare;
use crate::eval::photographs::results::{Results, evaluate_results};
use crate::eval::photographs::{CocoSet, MetricGroup, PhotoOptions, evaluate_photographs};
use crate::eval::refcoco::{self, ReferOptions, evaluate_references};
use crate::eval::{AskWith, EvalModel, EvalOptions, evaluate};
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Proposal};
use crate::image::Pixels;
use crate::protocol::{Answer, Client, Granularity, LoadOptions, ModelCard, Question};
use crate::session::{NANO, Session};

/// Arguments of `chatrex eval`.
#[derive(clap::Args)]
pub struct Options {
    /// Number of scenes.
    #[arg(long, required_unless_present_any = ["coco", "refcoco"])]
    count: Option<u64>,
    /// Seed of the first scene, at least 900000.
    #[arg(long, required_unless_present_any = ["coco", "refcoco"])]
    seed: Option<u64>,
    /// Evaluate on photographs instead of scenes: a file of COCO instances.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "seed", "against", "refcoco"])]
    coco: Option<PathBuf>,
    /// Evaluate on referring expressions: a JSON list or lines of {"image", "sentences", "bbox"}, or an object
    /// with refs, annotations and images.
    #[arg(long, value_name = "FILE", requires = "images", conflicts_with_all = ["count", "seed", "against"])]
    refcoco: Option<PathBuf>,
    /// Of the referring expressions only those of this split.
    #[arg(long, value_name = "NAME", requires = "refcoco")]
    split: Option<String>,
    /// The folder of the photographs.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["count", "seed"])]
    images: Option<PathBuf>,
    /// Score these boxes instead of a model, without pictures: a COCO list of results.
    #[arg(long, value_name = "FILE", requires = "coco", conflicts_with_all = ["images", "limit", "answers", "only"])]
    results: Option<PathBuf>,
    /// Measure only these of the photographs; `proposals` asks no question.
    #[arg(
        long,
        value_name = "GROUPS",
        value_enum,
        value_delimiter = ',',
        requires = "coco"
    )]
    only: Vec<MetricGroup>,
    /// Evaluate only on the first photographs, in the order of their ids, or on the first references.
    #[arg(long, value_name = "N", requires = "images")]
    limit: Option<usize>,
    /// Write every answer about the photographs to this file, one JSON object per line.
    #[arg(long, value_name = "FILE", requires = "images")]
    answers: Option<PathBuf>,
    /// Write the report to this file as HTML, with the worst errors; it needs no network.
    #[arg(long, value_name = "OUT.html", conflicts_with_all = ["count", "seed"])]
    report: Option<PathBuf>,
    /// Leave out the blank and the shuffled baseline of the photographs.
    #[arg(long, requires = "images")]
    no_baselines: bool,
    /// Model folder; `nano` is the built-in model.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Data type of the KV cache [default: f16 for quantized weights on a GPU, else f32].
    #[arg(long, value_enum)]
    cache: Option<KvCacheName>,
    /// Activations that quantized weights are multiplied with on the CPU.
    #[arg(long, value_enum, default_value_t)]
    cpu_activations: CpuActivationsName,
    /// Disable constrained decoding, as in the original: answers may then refer to boxes that do not
    /// exist.
    #[arg(long)]
    no_grammar: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Source of the boxes of the questions.
    #[arg(long, value_enum, default_value_t)]
    ask_with: Boxes,
    /// Compare with the model in this folder, scene by scene, instead of with blind baselines; `-` is a
    /// model in another program, which reads requests from our standard output and answers on our
    /// standard input.
    #[arg(long)]
    against: Option<String>,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Boxes {
    /// The model's proposals after its default score threshold and NMS.
    #[default]
    Proposals,
    /// The ground-truth boxes.
    Truth,
}

impl From<Boxes> for AskWith {
    fn from(boxes: Boxes) -> Self {
        match boxes {
            Boxes::Proposals => Self::Proposals,
            Boxes::Truth => Self::Truth,
        }
    }
}

/// Value of `--against` for a model in another program.
const STDIO: &str = "-";

/// The model under test with its current image.
pub(super) struct SessionModel {
    engine: Box<dyn Client>,
    sampling: Sampling,
    current: Option<(Pixels, Vec<Proposal>)>,
}

impl SessionModel {
    /// The loaded model.
    pub(super) fn card(&self) -> &ModelCard {
        self.engine.card()
    }

    /// A model that answers with `engine`.
    pub(super) fn new(engine: Box<dyn Client>, sampling: Sampling) -> Self {
        Self {
            engine,
            sampling,
            current: None,
        }
    }

    /// Runs the proposal network on `pixels` unless it is the current image.
    fn look(&mut self, pixels: &Pixels) -> Result<&[Proposal], Fault> {
        if self
            .current
            .as_ref()
            .is_none_or(|(current, _)| current != pixels)
        {
            let (boxes, _) = self
                .engine
                .open_picture(pixels.clone(), Granularity::Coarse)?;
            self.current = Some((pixels.clone(), boxes));
        }
        let (_, boxes) = self
            .current
            .as_ref()
            .expect("the current image is set above");
        Ok(boxes)
    }
}

impl EvalModel for SessionModel {
    fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
        self.look(pixels).map(<[Proposal]>::to_vec)
    }

    fn ask(&mut self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault> {
        self.look(pixels)?;
        let max_tokens = self.engine.card().default_max_tokens;
        self.engine.answer(Question {
            boxes: boxes.to_vec(),
            text: question.into(),
            max_tokens,
            sampling: self.sampling,
            earlier: Vec::new(),
            system: None,
        })
    }
}

fn open(options: &Options, model: &str) -> Result<(SessionModel, EvalOptions), Fault> {
    let engine: Box<dyn Client> = if model == STDIO {
        Box::new(StdioClient::open()?)
    } else {
        let load_options = LoadOptions {
            device: options.device.into(),
            memory: None,
            cache: options.cache.map(Into::into),
            activations: Some(options.cpu_activations.into()),
        };
        Box::new(Session::open(model, load_options)?)
    };
    super::process::keep_freed_memory();
    let card = engine.card().clone();
    super::propose::announce(&card);
    let sampling = Sampling {
        grammar: !options.no_grammar,
        ..Sampling::default()
    };
    let model_under_test = SessionModel::new(engine, sampling);
    let options = EvalOptions {
        count: options.count.unwrap_or_default(),
        seed: options.seed.unwrap_or_default(),
        ask_with: options.ask_with.into(),
        score: card.default_score,
        nms: card.default_nms,
        model: model.into(),
        device: card.device,
    };
    Ok((model_under_test, options))
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    if let Some(report) = &options.report {
        html::check(report)?;
    }
    match (&options.coco, &options.images, &options.results) {
        (Some(coco), _, Some(results)) => return run_results(options, coco, results),
        (Some(coco), Some(images), None) => return run_photographs(options, coco, images),
        (Some(_), None, None) => {
            let what = "is missing; --coco needs it, or --results";
            let advice = "Name the folder of the pictures, or a file of ready boxes";
            return Err(Fault::new(FaultKind::Question, "--images", what, advice));
        }
        (None, ..) => {}
    }
    if let (Some(references), Some(images)) = (&options.refcoco, &options.images) {
        return run_references(options, references, images);
    }
    let (mut model, eval) = open(options, &options.model)?;
    let bar = ProgressBar::new(eval.count);
    let done = |done| bar.set_position(done);
    let Some(against) = &options.against else {
        let report = evaluate(&mut model, &eval, done)?;
        bar.finish();
        print(options, &report);
        return Ok(true);
    };
    let (mut other, other_eval) = open(options, against)?;
    let report = compare([&mut model, &mut other], [&eval, &other_eval], done)?;
    bar.finish();
    print(options, &report);
    Ok(true)
}

fn run_photographs(options: &Options, coco: &Path, images: &Path) -> Result<bool, Fault> {
    let mut set = CocoSet::open(coco)?;
    set.pictures.truncate(options.limit.unwrap_or(usize::MAX));
    let (mut model, eval) = open(options, &options.model)?;
    let photo = PhotoOptions {
        annotations: coco.display().to_string(),
        images: images.to_owned(),
        ask_with: eval.ask_with,
        selection: model.engine.card().selection(),
        blind: !options.no_baselines,
        groups: match options.only.is_empty() {
            true => MetricGroup::ALL.to_vec(),
            false => options.only.clone(),
        },
        model: eval.model,
        device: eval.device,
    };
    let mut answers = Answers::create(options)?;
    let bar = ProgressBar::new(set.pictures.len() as u64);
    let done = |done| bar.set_position(done);
    let mut record = |record: &_| answers.write(record);
    let report = evaluate_photographs(&mut model, &set, &photo, done, &mut record)?;
    answers.finish()?;
    bar.finish();
    present(options, &report, || report.page())
}

fn run_results(options: &Options, coco: &Path, results: &Path) -> Result<bool, Fault> {
    let set = CocoSet::open(coco)?;
    let found = Results::open(results, &set)?;
    let names = [coco, results].map(|path| path.display().to_string());
    let report = evaluate_results(&set, &found, names);
    present(options, &report, || report.page())
}

fn run_references(options: &Options, file: &Path, images: &Path) -> Result<bool, Fault> {
    let mut references = refcoco::open(file, options.split.as_deref())?;
    references.truncate(options.limit.unwrap_or(usize::MAX));
    let (mut model, eval) = open(options, &options.model)?;
    let refer = ReferOptions {
        references: file.display().to_string(),
        images: images.to_owned(),
        selection: model.engine.card().selection(),
        blind: !options.no_baselines,
        model: eval.model,
        device: eval.device,
    };
    let mut answers = Answers::create(options)?;
    let bar = ProgressBar::no_length();
    let done = |done| bar.set_position(done);
    let mut record = |record: &_| answers.write(record);
    let report = evaluate_references(&mut model, &references, &refer, done, &mut record)?;
    answers.finish()?;
    bar.finish();
    present(options, &report, || report.page())
}

/// The file of `--answers`, if there is one.
struct Answers(Option<(BufWriter<File>, PathBuf)>);

impl Answers {
    fn create(options: &Options) -> Result<Self, Fault> {
        let Some(path) = &options.answers else {
            return Ok(Self(None));
        };
        let file = File::create(path).map_err(|error| Fault::file(path, error))?;
        Ok(Self(Some((BufWriter::new(file), path.clone()))))
    }

    fn write(&mut self, record: &impl serde::Serialize) -> Result<(), Fault> {
        let Some((file, path)) = &mut self.0 else {
            return Ok(());
        };
        writeln!(file, "{}", super::json(record)).map_err(|error| Fault::file(path, error))
    }

    fn finish(self) -> Result<(), Fault> {
        match self.0 {
            Some((mut file, path)) => file.flush().map_err(|error| Fault::file(path, error)),
            None => Ok(()),
        }
    }
}

/// Writes the HTML report where one is wanted, and prints the report.
fn present(
    options: &Options,
    report: &(impl serde::Serialize + std::fmt::Display),
    page: impl FnOnce() -> html::Page,
) -> Result<bool, Fault> {
    if let Some(path) = &options.report {
        page().write(path)?;
    }
    print(options, report);
    Ok(true)
}

fn print(options: &Options, report: &(impl serde::Serialize + std::fmt::Display)) {
    if options.json {
        println!("{}", super::json(report));
    } else {
        println!("{report}");
    }
}
