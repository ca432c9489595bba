//! `chatrex eval`: what a model gets right on scenes it has never seen.

use indicatif::ProgressBar;

use super::propose::DeviceName;
use super::session::{NANO, Session};
use crate::eval::pairs::compare;
use crate::eval::{AskWith, EvalOptions, Subject, evaluate};
use crate::fault::Fault;
use crate::geometry::{BoxXyxy, Proposal};
use crate::image::Pixels;
use crate::protocol::{Answer, Granularity};

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
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Which boxes questions offer.
    #[arg(long, value_enum, default_value_t)]
    ask_with: Boxes,
    /// Compare with this other model folder, scene by scene, instead of with blind models.
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

/// The engine under test, and the picture it has open.
struct Examined {
    session: Session,
    open: Option<(Pixels, Vec<Proposal>)>,
}

impl Examined {
    /// Opens `pixels` unless they are open already.
    fn look(&mut self, pixels: &Pixels) -> Result<&[Proposal], Fault> {
        if self.open.as_ref().is_none_or(|(open, _)| open != pixels) {
            let (boxes, _) = self.session.look(pixels.clone(), Granularity::Coarse)?;
            self.open = Some((pixels.clone(), boxes));
        }
        let (_, boxes) = self.open.as_ref().expect("opened just above");
        Ok(boxes)
    }
}

impl Subject for Examined {
    fn propose(&mut self, pixels: &Pixels) -> Result<Vec<Proposal>, Fault> {
        self.look(pixels).map(<[Proposal]>::to_vec)
    }

    fn ask(&mut self, pixels: &Pixels, boxes: &[BoxXyxy], question: &str) -> Result<Answer, Fault> {
        self.look(pixels)?;
        let limit = self.session.card().default_max_tokens;
        self.session.ask(boxes, question, limit)
    }
}

fn open(options: &Options, model: &str) -> Result<(Examined, EvalOptions), Fault> {
    let session = Session::open(model, options.device.into(), None, None)?;
    let card = session.card().clone();
    super::propose::announce(&card);
    let examined = Examined {
        session,
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
