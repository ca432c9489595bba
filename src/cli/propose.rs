//! `chatrex propose`: boxes of a picture.

use std::path::PathBuf;

use serde::Serialize;

use super::names::KvCacheName;
use crate::error::Fault;
use crate::geometry::{self, Proposal};
use crate::image::{Pixels, annotate, decode};
use crate::protocol::{
    Client as _, DevicePreference, Granularity, LoadOptions, LookTime, ModelCard,
};
use crate::session::{self, Session};

/// What `propose` and `chat` share.
#[derive(clap::Args)]
pub struct Picture {
    /// The picture: JPEG, PNG or WebP.
    #[arg(long)]
    pub image: PathBuf,
    /// A model folder; without it the nano model inside the program.
    #[arg(long, default_value = session::NANO)]
    pub model: String,
    /// Which boxes to look for.
    #[arg(long, value_enum, default_value_t)]
    pub prompt: Prompt,
    /// Leave out boxes below this score; without it the model's own default.
    #[arg(long)]
    pub score: Option<f32>,
    /// Leave out boxes that overlap a better one by more than this; 0 keeps all; without it the
    /// model's own default.
    #[arg(long)]
    pub nms: Option<f64>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceName,
    /// Graphics memory in megabytes that the model must not exceed; all there is without.
    #[arg(long, value_name = "MB")]
    pub memory: Option<u64>,
    /// How a graphics device holds keys and values; without it in half precision where weights are
    /// packed.
    #[arg(long, value_enum)]
    pub cache: Option<KvCacheName>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a copy of the picture with its boxes.
    #[arg(long)]
    pub annotate: Option<PathBuf>,
}

/// Arguments of `chatrex propose`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    picture: Picture,
}

/// The prompt of UPN by name.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Prompt {
    /// Parts too.
    Fine,
    /// Whole objects.
    #[default]
    Coarse,
}

/// The device by name.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum DeviceName {
    /// A graphics card where there is one, else the processor.
    #[default]
    Auto,
    /// A graphics adapter, software ones included.
    Wgpu,
    /// The processor.
    Cpu,
}

impl From<DeviceName> for DevicePreference {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Auto => Self::Auto,
            DeviceName::Wgpu => Self::Wgpu,
            DeviceName::Cpu => Self::Cpu,
        }
    }
}

/// A picture that was opened and looked at.
pub(super) struct Looked {
    pub session: Session,
    pub pixels: Pixels,
    pub boxes: Vec<Proposal>,
    pub time: LookTime,
}

impl Picture {
    pub(super) fn look(&self) -> Result<Looked, Fault> {
        let pixels = decode::open(&self.image)?;
        let mut session = Session::open(
            &self.model,
            LoadOptions {
                device: self.device.into(),
                memory: self.memory.map(|mb| mb * 1_000_000),
                cache: self.cache.map(Into::into),
            },
            Some(session::report),
        )?;
        announce(session.card());
        let granularity = match self.prompt {
            Prompt::Fine => Granularity::Fine,
            Prompt::Coarse => Granularity::Coarse,
        };
        let (boxes, time) = session.look(pixels.clone(), granularity)?;
        let card = session.card();
        let kept = geometry::filter(
            &boxes,
            self.score.unwrap_or(card.default_score),
            self.nms.unwrap_or(card.default_nms),
            usize::MAX,
        );
        let boxes = kept.kept.into_iter().map(|index| boxes[index]).collect();
        Ok(Looked {
            session,
            pixels,
            boxes,
            time,
        })
    }
}

pub(super) fn announce(card: &ModelCard) {
    let (name, device, adapter) = (&card.name, &card.device, &card.adapter);
    eprintln!("{name} on {device} ({adapter}): {}", card.fit.reason);
}

#[derive(Serialize)]
struct Report {
    image: Size,
    prompt: &'static str,
    boxes: Vec<Row>,
    milliseconds: LookTime,
}

#[derive(Serialize)]
struct Size {
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Row {
    index: usize,
    #[serde(flatten)]
    proposal: Proposal,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let picture = &options.picture;
    let looked = picture.look()?;
    if let Some(path) = &picture.annotate {
        let boxes: Vec<_> = looked.boxes.iter().map(|p| p.bbox).collect();
        annotate::write(&looked.pixels, &boxes, path)?;
    }
    if picture.json {
        let report = Report {
            image: Size {
                width: looked.pixels.width,
                height: looked.pixels.height,
            },
            prompt: match picture.prompt {
                Prompt::Fine => "fine",
                Prompt::Coarse => "coarse",
            },
            boxes: looked
                .boxes
                .iter()
                .enumerate()
                .map(|(index, &proposal)| Row { index, proposal })
                .collect(),
            milliseconds: looked.time,
        };
        println!("{}", super::json(&report));
    } else {
        for (index, proposal) in looked.boxes.iter().enumerate() {
            let [x1, y1, x2, y2] = proposal.bbox.into();
            println!(
                "{index:3}  {:.2}  {x1:7.1} {y1:7.1} {x2:7.1} {y2:7.1}",
                proposal.score
            );
        }
    }
    Ok(true)
}
