//! `chatrex propose`: object boxes of an image.

use std::path::PathBuf;

use serde::Serialize;

use super::names::KvCacheName;
use crate::error::Fault;
use crate::geometry::{self, Proposal};
use crate::image::{Pixels, annotate, decode};
use crate::protocol::{
    Client as _, DevicePreference, Granularity, LoadOptions, LookTime, ModelCard,
};
use crate::session::{self, Session, SessionOptions};

/// Arguments shared by `propose` and `chat`.
#[derive(clap::Args)]
pub struct ImageArgs {
    /// Image file: JPEG, PNG or WebP.
    #[arg(long)]
    pub image: PathBuf,
    /// Model folder; `nano` is the built-in model.
    #[arg(long, default_value = session::NANO)]
    pub model: String,
    /// Prompt of the proposal network.
    #[arg(long, value_enum, default_value_t)]
    pub prompt: Prompt,
    /// Score threshold [default: that of the model].
    #[arg(long)]
    pub score: Option<f32>,
    /// IoU threshold of non-maximum suppression; 0 disables it [default: that of the model].
    #[arg(long)]
    pub nms: Option<f64>,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceName,
    /// Limit of the GPU memory in megabytes; model parts are loaded and evicted on demand [default: no
    /// limit].
    #[arg(long, value_name = "MB")]
    pub memory: Option<u64>,
    /// Data type of the KV cache on the GPU [default: f16 for quantized weights, else f32].
    #[arg(long, value_enum)]
    pub cache: Option<KvCacheName>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a copy of the image with the boxes drawn.
    #[arg(long)]
    pub annotate: Option<PathBuf>,
}

/// Arguments of `chatrex propose`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    image: ImageArgs,
}

/// The prompt of UPN.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Prompt {
    /// Objects and their parts.
    Fine,
    /// Whole objects.
    #[default]
    Coarse,
}

/// The device.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum DeviceName {
    /// The GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// A GPU adapter; may be a software adapter.
    Wgpu,
    /// The CPU.
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

/// An image with its proposals, in an open session.
pub(super) struct DetectedImage {
    pub session: Session,
    pub pixels: Pixels,
    pub boxes: Vec<Proposal>,
    pub time: LookTime,
}

impl ImageArgs {
    pub(super) fn look(&self) -> Result<DetectedImage, Fault> {
        let pixels = decode::open(&self.image)?;
        let options = SessionOptions::from(LoadOptions {
            device: self.device.into(),
            memory: self.memory.map(|mb| mb * 1_000_000),
            cache: self.cache.map(Into::into),
        });
        let mut session = Session::open(self.model.as_str(), options.on_progress(session::report))?;
        announce(session.card());
        let granularity = match self.prompt {
            Prompt::Fine => Granularity::Fine,
            Prompt::Coarse => Granularity::Coarse,
        };
        let (boxes, time) = session.open_picture(pixels.clone(), granularity)?;
        let card = session.card();
        let kept = geometry::filter(
            &boxes,
            self.score.unwrap_or(card.default_score),
            self.nms.unwrap_or(card.default_nms),
            usize::MAX,
        );
        let boxes = kept.kept.into_iter().map(|index| boxes[index]).collect();
        Ok(DetectedImage {
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
    image: ImageSize,
    prompt: &'static str,
    boxes: Vec<ProposalRow>,
    milliseconds: LookTime,
}

#[derive(Serialize)]
struct ImageSize {
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct ProposalRow {
    index: usize,
    #[serde(flatten)]
    proposal: Proposal,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let args = &options.image;
    let detected = args.look()?;
    if let Some(path) = &args.annotate {
        let boxes: Vec<_> = detected.boxes.iter().map(|p| p.bbox).collect();
        annotate::write(&detected.pixels, &boxes, path)?;
    }
    if args.json {
        let report = Report {
            image: ImageSize {
                width: detected.pixels.width,
                height: detected.pixels.height,
            },
            prompt: match args.prompt {
                Prompt::Fine => "fine",
                Prompt::Coarse => "coarse",
            },
            boxes: detected
                .boxes
                .iter()
                .enumerate()
                .map(|(index, &proposal)| ProposalRow { index, proposal })
                .collect(),
            milliseconds: detected.time,
        };
        println!("{}", super::json(&report));
    } else {
        for (index, proposal) in detected.boxes.iter().enumerate() {
            let [x1, y1, x2, y2] = proposal.bbox.into();
            println!(
                "{index:3}  {:.2}  {x1:7.1} {y1:7.1} {x2:7.1} {y2:7.1}",
                proposal.score
            );
        }
    }
    Ok(true)
}
