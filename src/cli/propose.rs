//! `chatrex propose`: object boxes of an image.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::names::{CpuActivationsName, KvCacheName, finite};
use super::process::keep_freed_memory;
use crate::error::Fault;
use crate::geometry::{Proposal, Selection};
use crate::image::{Pixels, annotate, decode};
use crate::progress::Progress;
use crate::protocol::{
    Client as _, DevicePreference, Granularity, LoadOptions, LookTime, ModelCard,
};
use crate::session::{self, Session, SessionOptions};

/// The model, its device and the choice among its proposals.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Model folder, or the name of a built-in model.
    #[arg(long, default_value = session::DEFAULT_MODEL)]
    pub model: String,
    /// Prompt of the proposal network.
    #[arg(long, value_enum, default_value_t)]
    pub prompt: Prompt,
    /// Score threshold [default: that of the model].
    #[arg(long, value_parser = finite::<f32>)]
    pub score: Option<f32>,
    /// IoU threshold of non-maximum suppression; 0 disables it [default: that of the model].
    #[arg(long, value_parser = finite::<f64>)]
    pub nms: Option<f64>,
    /// Device to run on.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceName,
    /// Limit of the GPU memory in megabytes; model parts are loaded and evicted on demand [default: no
    /// limit].
    #[arg(long, value_name = "MB")]
    pub memory: Option<u64>,
    /// Data type of the KV cache [default: f16 for quantized weights on a GPU, else f32].
    #[arg(long, value_enum)]
    pub cache: Option<KvCacheName>,
    /// Activations that quantized weights are multiplied with on the CPU.
    #[arg(long, value_enum, default_value_t)]
    pub cpu_activations: CpuActivationsName,
}

/// Arguments shared by `propose` and `chat`.
#[derive(clap::Args)]
pub struct ImageArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a copy of the image with the boxes drawn.
    #[arg(long, requires = "image")]
    pub annotate: Option<PathBuf>,
}

/// Arguments of `chatrex propose`.
#[derive(clap::Args)]
pub struct Options {
    /// Image file: JPEG, PNG or WebP.
    #[arg(long)]
    image: PathBuf,
    #[command(flatten)]
    args: ImageArgs,
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
    /// The GPU if there is one that is not a software adapter, else the CPU.
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

impl ModelArgs {
    /// How the model is loaded.
    pub(super) fn load_options(&self) -> LoadOptions {
        LoadOptions {
            device: self.device.into(),
            memory: self.memory.map(|mb| mb.saturating_mul(1_000_000)),
            cache: self.cache.map(Into::into),
            activations: Some(self.cpu_activations.into()),
        }
    }

    /// Opens the model and reports the stages of all its work.
    pub(super) fn open(&self) -> Result<Session, Fault> {
        self.open_with(session::report)
    }

    /// Opens the model.
    pub(super) fn open_with(
        &self,
        on_progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Session, Fault> {
        let options = SessionOptions::from(self.load_options());
        let session = Session::open(self.model.as_str(), options.on_progress(on_progress))?;
        keep_freed_memory();
        announce(session.card());
        Ok(session)
    }

    /// Which proposals are used: the defaults of the model without the user's values. A score of the user
    /// applies to all labels.
    pub(super) fn selection(&self, card: &ModelCard) -> Selection {
        card.selection().with(self.score, self.nms)
    }

    /// The boxes that the proposal network is asked for.
    pub(super) fn granularity(&self) -> Granularity {
        match self.prompt {
            Prompt::Fine => Granularity::Fine,
            Prompt::Coarse => Granularity::Coarse,
        }
    }
}

impl ImageArgs {
    /// Checks what can be wrong before the model is opened.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.annotate.as_deref().map_or(Ok(()), annotate::check)
    }

    /// Opens the model and finds the boxes of an image.
    pub(super) fn look(&self, image: &Path) -> Result<DetectedImage, Fault> {
        let pixels = decode::open(image)?;
        let mut session = self.model.open()?;
        let (boxes, time) = self.boxes_of(&mut session, pixels.clone())?;
        Ok(DetectedImage {
            session,
            pixels,
            boxes,
            time,
        })
    }

    /// Makes `pixels` the current picture; its boxes, best first.
    pub(super) fn boxes_of(
        &self,
        session: &mut Session,
        pixels: Pixels,
    ) -> Result<(Vec<Proposal>, LookTime), Fault> {
        let (boxes, time) = session.open_picture(pixels, self.model.granularity())?;
        let selection = self.model.selection(session.card());
        let kept = selection.choose(&boxes, usize::MAX).kept.into_iter();
        Ok((kept.map(|index| boxes[index].clone()).collect(), time))
    }
}

pub(super) fn announce(card: &ModelCard) {
    let (name, device, adapter) = (&card.name, &card.device, &card.adapter);
    eprintln!("{name} on {device} ({adapter}): {}", card.fit.reason);
}

#[derive(Serialize)]
struct Report<'a> {
    image: ImageSize,
    prompt: &'static str,
    boxes: Vec<ProposalRow<'a>>,
    milliseconds: LookTime,
}

#[derive(Serialize)]
struct ImageSize {
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct ProposalRow<'a> {
    index: usize,
    #[serde(flatten)]
    proposal: &'a Proposal,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let args = &options.args;
    args.check()?;
    let detected = args.look(&options.image)?;
    if args.json {
        let report = Report {
            image: ImageSize {
                width: detected.pixels.width,
                height: detected.pixels.height,
            },
            prompt: match args.model.prompt {
                Prompt::Fine => "fine",
                Prompt::Coarse => "coarse",
            },
            boxes: detected
                .boxes
                .iter()
                .enumerate()
                .map(|(index, proposal)| ProposalRow { index, proposal })
                .collect(),
            milliseconds: detected.time,
        };
        println!("{}", super::json(&report));
    } else {
        for (index, proposal) in detected.boxes.iter().enumerate() {
            let [x1, y1, x2, y2] = proposal.bbox.into();
            let label = proposal.label.as_deref().map(|label| format!("  {label}"));
            println!(
                "{index:3}  {:.2}  {x1:7.1} {y1:7.1} {x2:7.1} {y2:7.1}{}",
                proposal.score,
                label.unwrap_or_default()
            );
        }
    }
    if let Some(path) = &args.annotate {
        let boxes: Vec<_> = detected.boxes.iter().map(|p| p.bbox).collect();
        let labels: Vec<_> = detected.boxes.iter().map(|p| p.label.as_deref()).collect();
        annotate::write(&detected.pixels, &boxes, &labels, path)?;
    }
    Ok(true)
}
