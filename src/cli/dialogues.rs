//! `chatrex dialogues`: questions with answers from the user's pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::eval::SessionModel;
use super::propose::DeviceName;
use crate::dialogues::{
    Captioner, DIALOGUES, DialogueOptions, DialogueReport, MAX_PLAIN, pictures_in, run as make,
};
use crate::error::{Fault, FaultKind};
use crate::eval::photographs::CocoSet;
use crate::generate::sampling::Sampling;
use crate::protocol::LoadOptions;
use crate::session::Session;
use crate::weights::manifest::sha256_hex;

/// Arguments of `chatrex dialogues`.
#[derive(clap::Args)]
pub struct Options {
    /// Annotations of the pictures: a file of COCO instances.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    coco: Option<PathBuf>,
    /// Captions of the pictures: a COCO file of captions.
    #[arg(long, value_name = "FILE", requires = "coco")]
    captions: Option<PathBuf>,
    /// The folder of the pictures.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Output folder; a run that was cut goes on there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Model that captions, describes and grounds: a folder or the name of a built-in model.
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
    /// Seed of the choices of questions and wordings.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of pictures, in the order of their ids.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Leave out pictures whose shorter side has fewer pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1)]
    min_side: u32,
    /// Leave out pictures whose background is plain and takes more than this share of the pixels; 1 keeps all [default:
    /// 0.5, with --coco 1].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_plain: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A share of something, 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err("is not from 0 to 1".into()),
    }
}

/// Reads a file, and adds its hash to what decides the records.
fn read(
    path: &Path,
    key: &str,
    signature: &mut BTreeMap<String, String>,
) -> Result<Vec<u8>, Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    signature.insert(key.to_owned(), sha256_hex(&bytes));
    Ok(bytes)
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let mut signature = BTreeMap::new();
    let mut set = match &options.coco {
        Some(coco) => {
            let text = read(coco, "annotations", &mut signature)?;
            CocoSet::parse(&text, &coco.display().to_string())?
        }
        None => pictures_in(&options.images)?,
    };
    if let Some(captions) = &options.captions {
        let text = read(captions, "captions", &mut signature)?;
        set.add_captions(&text, &captions.display().to_string())?;
    }
    let mut model = options
        .model
        .as_deref()
        .map(|name| open(options, name))
        .transpose()?;
    let captioner = match &mut model {
        Some((model, name)) => {
            let card = model.card();
            let (selection, text_only) = (card.selection(), card.text_only);
            if text_only {
                let what = "reads text alone and cannot describe pictures";
                let advice = "Name a model that sees pictures, or leave --model out";
                return Err(Fault::new(FaultKind::Model, name.as_str(), what, advice));
            }
            signature.insert("model".into(), name.clone());
            Some(Captioner {
                model,
                name: name.clone(),
                selection,
            })
        }
        None => None,
    };
    let count = set.pictures.len().min(options.count.unwrap_or(usize::MAX));
    let bar = ProgressBar::new(count as u64);
    let run = DialogueOptions {
        images: options.images.clone(),
        out: options.out.clone(),
        seed: options.seed,
        count: options.count,
        min_side: options.min_side,
        // Annotated pictures were chosen by those who annotated them.
        max_plain: options.max_plain.unwrap_or(match options.coco {
            Some(_) => 1.0,
            None => MAX_PLAIN,
        }),
        annotated: options.coco.is_some(),
        signature,
    };
    let report = make(&set, &run, captioner, |done| bar.set_position(done))?;
    bar.finish();
    if options.json {
        println!("{}", super::json(&report));
    } else {
        print(&report, &options.out);
    }
    Ok(true)
}

fn open(options: &Options, name: &str) -> Result<(SessionModel, String), Fault> {
    let load = LoadOptions {
        device: options.device.into(),
        memory: None,
        cache: None,
        activations: None,
    };
    let session = Session::open(name, load)?;
    super::process::keep_freed_memory();
    let card = session.card().clone();
    super::propose::announce(&card);
    Ok((
        SessionModel::new(Box::new(session), Sampling::default()),
        card.name,
    ))
}

fn print(report: &DialogueReport, out: &Path) {
    for (task, count) in &report.per_task {
        println!("{task:24}{count:>10}");
    }
    for (reason, count) in &report.dropped {
        println!("left out: {reason:17}{count:>7}");
    }
    println!(
        "{} records of {} pictures in {}",
        report.records,
        report.count,
        out.join(DIALOGUES).display()
    );
}
