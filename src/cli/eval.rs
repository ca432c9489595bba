//! `chatrex eval`: evaluation of a model on test scenes.

use indicatif::ProgressBar;

use super::names::KvCacheName;
use super::propose::DeviceName;
use super::stdio_client::StdioClient;
use crate::error::Fault;
use crate::eval::pairs::compare;
use crate::eval::{AskWith, EvalModel, EvalOptions, evaluate};
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Proposal};
use crate::image::Pixels;
use crate::protocol::{Answer, Client, Granularity, LoadOptions, Question};
use crate::session::{NANO, Session};

/// Arguments of `chatrex eval`.
#[derive(clap::Args)]
pub struct Options {
    /// Number of scenes.
    #[arg(long)]
    count: u64,
    /// Seed of the first scene, at least 900000.
    #[arg(long)]
    seed: u64,
    /// Model folder; `nano` is the built-in model.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Data type of the KV cache on the GPU [default: f16 for quantized weights, else f32].
    #[arg(long, value_enum)]
    cache: Option<KvCacheName>,
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

/// Value of `--against` for a model in another program.
const STDIO: &str = "-";

/// The model under test with its current image.
struct SessionModel {
    engine: Box<dyn Client>,
    sampling: Sampling,
    current: Option<(Pixels, Vec<Proposal>)>,
}

impl SessionModel {
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
        };
        Box::new(Session::open(model, load_options)?)
    };
    let card = engine.card().clone();
    super::propose::announce(&card);
    let model_under_test = SessionModel {
        engine,
        sampling: Sampling {
            grammar: !options.no_grammar,
            ..Sampling::default()
        },
        current: None,
    };
    let options = EvalOptions {
        count: options.count,
        seed: options.seed,
        ask_with: match options.ask_with {
            Boxes::Proposals => AskWith::Proposals,
            Boxes::Truth => AskWith::Truth,
        },
        score: card.default_score,
        nms: card.default_nms,
        model: model.into(),
        device: card.device,
    };
    Ok((model_under_test, options))
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let (mut model, eval) = open(options, &options.model)?;
    let bar = ProgressBar::new(options.count);
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

fn print(options: &Options, report: &(impl serde::Serialize + std::fmt::Display)) {
    if options.json {
        println!("{}", super::json(report));
    } else {
        println!("{report}");
    }
}
