//! `chatrex eval`: what a model gets right on scenes it has never seen.

use indicatif::ProgressBar;

use super::names::KvCacheName;
use super::propose::DeviceName;
use super::stdio_client::StdioClient;
use crate::error::Fault;
use crate::eval::pairs::compare;
use crate::eval::{AskWith, EvalOptions, Subject, evaluate};
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Proposal};
use crate::image::Pixels;
use crate::protocol::{Answer, Client, Granularity, LoadOptions, Question};
use crate::session::{NANO, Session};

/// Arguments of `chatrex eval`.
#[derive(clap::Args)]
pub struct Options {
    /// How many scenes.
    #[arg(long)]
    count: u64,
    /// Seed of the first, from 900000 on.
    #[arg(long)]
    seed: u64,
    /// A model folder; without it the nano model inside the program.
    #[arg(long, default_value = NANO)]
    model: String,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// How a graphics device holds keys and values; without it in half precision where weights are
    /// packed.
    #[arg(long, value_enum)]
    cache: Option<KvCacheName>,
    /// Let answers name boxes that there are not, as the original does.
    #[arg(long)]
    no_grammar: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Which boxes questions offer.
    #[arg(long, value_enum, default_value_t)]
    ask_with: Boxes,
    /// Compare with this other model folder, scene by scene, instead of with blind models; `-` is a
    /// model in another program, which reads requests from standard output and answers on standard
    /// input.
    #[arg(long)]
    against: Option<String>,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Boxes {
    /// The model's own, after its default threshold and suppression.
    #[default]
    Proposals,
    /// The true ones.
    Truth,
}

/// What `--against` calls a model in another program.
const ELSEWHERE: &str = "-";

/// The engine under test, and the picture it has open.
struct ActivationDump {
    engine: Box<dyn Client>,
    sampling: Sampling,
    open: Option<(Pixels, Vec<Proposal>)>,
}

impl ActivationDump {
    /// Opens `pixels` unless they are open already.
    fn look(&mut self, pixels: &Pixels) -> Result<&[Proposal], Fault> {
        if self.open.as_ref().is_none_or(|(open, _)| open != pixels) {
            let (boxes, _) = self.engine.look(pixels.clone(), Granularity::Coarse)?;
            self.open = Some((pixels.clone(), boxes));
        }
        let (_, boxes) = self.open.as_ref().expect("opened just above");
        Ok(boxes)
    }
}

impl Subject for ActivationDump {
    fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
        self.look(pixels).map(<[Proposal]>::to_vec)
    }

    fn ask(&mut self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault> {
        self.look(pixels)?;
        let max_tokens = self.engine.card().default_max_tokens;
        self.engine.ask(Question {
            boxes: boxes.to_vec(),
            text: question.into(),
            max_tokens,
            sampling: self.sampling,
        })
    }
}

fn open(options: &Options, model: &str) -> Result<(ActivationDump, EvalOptions), Fault> {
    let engine: Box<dyn Client> = if model == ELSEWHERE {
        Box::new(StdioClient::open()?)
    } else {
        let placement = LoadOptions {
            device: options.device.into(),
            memory: None,
            cache: options.cache.map(Into::into),
        };
        Box::new(Session::open(model, placement, None)?)
    };
    let card = engine.card().clone();
    super::propose::announce(&card);
    let examined = ActivationDump {
        engine,
        sampling: Sampling {
            grammar: !options.no_grammar,
            ..Sampling::default()
        },
        open: None,
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
    Ok((examined, options))
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
