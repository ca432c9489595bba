//! The inference engine: encodes a picture once and answers many questions about it.
//!
//! It consumes [`Request`]s and produces [`Event`]s, natively and in the browser's worker alike. It
//! does no I/O of its own: a [`Host`] provides weight bytes, a clock and a way to yield.
//!
//! Of the current picture it caches the pixels, the output of UPN's encoder or of the detector, the
//! features of the vision towers, and the KV cache of the prompt up to the last box. A further question about the
//! same boxes prefills only its own tokens.

mod ask;
mod compare;
mod links;
mod load;
mod look;
pub mod memory_plan;
#[cfg(feature = "native")]
pub mod prepare;
#[cfg(feature = "native")]
pub mod together;
pub(crate) mod token_stream;
mod warmup;
mod warmup_steps;

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::error::{ErrorCode, Fault, FaultKind};
use crate::geometry::{BoxXyxy, Granularity, Proposal};
use crate::gpu::compile_errors::take_compile_error;
use crate::image::Pixels;
use crate::image::prepare::Planar;
use crate::model::chatrex::ImageFeatures;
use crate::model::decoder::KvCache;
use crate::model::dense_predictions::DensePredictions;
use crate::model::upn::Memory;
use crate::protocol::{Envelope, Event, LookTime, PictureId, Request, TurnId};
use crate::weights::source::{LocalFuture, ModelFiles, Runtime};

#[cfg(feature = "diagnostics")]
pub(crate) use self::ask::class_tokens;
pub use self::load::LoadedModel;
#[cfg(feature = "diagnostics")]
pub(crate) use self::look::dense_predictions;

/// What the engine needs from the program that runs it. The engine yields between tokens and stages
/// so that pending messages are handled.
pub trait Host: Runtime {
    /// Sends an event to the client.
    fn emit(&self, event: Event);
    /// Milliseconds since some fixed moment.
    fn milliseconds(&self) -> f64;
    /// Whether the user wants `turn` stopped.
    fn stopped(&self, turn: TurnId) -> bool;
    /// The files of the model named in [`Request::Load`].
    ///
    /// # Errors
    /// There is no such model.
    fn files<'a>(&'a self, model: &'a str) -> LocalFuture<'a, Result<ModelFiles, Fault>>;
}

/// The current picture and everything computed from it.
struct Picture {
    id: PictureId,
    pixels: Pixels,
    /// What was preprocessed elsewhere and is not used yet.
    #[cfg(feature = "native")]
    prepared: Option<prepare::Prepared>,
    /// The output of UPN's encoder and the time it took.
    upn_memory: Option<(Memory, LookTime)>,
    /// The output of the detector.
    detected: Option<Detected>,
    proposals: HashMap<Granularity, Vec<Proposal>>,
    /// Which of [`Picture::proposals`] were computed together with those of other pictures, and the picture's share
    /// of the time.
    together: Option<(Granularity, LookTime)>,
    features: Option<ImageFeatures>,
    prefix: Option<Prefix>,
}

impl Picture {
    fn new(id: PictureId, pixels: Pixels) -> Self {
        Self {
            id,
            pixels,
            #[cfg(feature = "native")]
            prepared: None,
            upn_memory: None,
            detected: None,
            proposals: HashMap::new(),
            together: None,
            features: None,
            prefix: None,
        }
    }

    /// The time of the proposals of `granularity`, if they were computed together with those of other pictures.
    fn time_together(&self, granularity: Granularity) -> Option<LookTime> {
        let (proposed, time) = self.together?;
        (proposed == granularity).then_some(time)
    }

    /// The image for the proposal network, if it was preprocessed elsewhere.
    fn take_proposer_image(&mut self) -> Option<Planar> {
        #[cfg(feature = "native")]
        return self.prepared.as_mut()?.proposer.take();
        #[cfg(not(feature = "native"))]
        None
    }

    /// The images for the towers, high and low resolution, if they were preprocessed elsewhere.
    fn take_tower_images(&mut self) -> Option<(Planar, Planar)> {
        #[cfg(feature = "native")]
        return self.prepared.as_mut()?.towers.take();
        #[cfg(not(feature = "native"))]
        None
    }
}

/// What the detector says about a picture.
struct Detected {
    /// Boxes in pixels of the picture, with the scores of all kinds.
    predictions: DensePredictions,
    /// The time it took.
    time: LookTime,
}

/// The KV cache after the prompt up to the last box, shared by all questions about the same boxes.
struct Prefix {
    boxes: Vec<BoxXyxy>,
    /// The words of its system prompt, where they are not the model's own.
    system: Option<String>,
    cache: KvCache,
    /// Tokens of the prompt up to the last box.
    tokens: usize,
    /// The last answer after it.
    last: Option<LastAnswer>,
}

/// The tokens of an answer, which follow those of a [`Prefix`] in its cache.
struct LastAnswer {
    turn: TurnId,
    /// Question and answer.
    ids: Vec<u32>,
    /// Tokens of the question.
    question: usize,
}

/// One model, one picture, one device.
pub struct Engine<H: Host> {
    host: H,
    model: Option<LoadedModel>,
    picture: Option<Picture>,
    /// What was computed of the next picture.
    #[cfg(feature = "native")]
    next: Option<together::Next>,
    /// The KV cache of a model that reads text alone.
    text: Option<Prefix>,
}

impl<H: Host> Engine<H> {
    /// An engine without a model.
    pub fn new(host: H) -> Self {
        Self {
            host,
            model: None,
            picture: None,
            #[cfg(feature = "native")]
            next: None,
            text: None,
        }
    }

    /// The program that runs the engine.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Host and loaded model, for diagnostics.
    #[cfg(feature = "diagnostics")]
    pub(crate) fn parts(&mut self) -> (&H, Option<&mut LoadedModel>) {
        (&self.host, self.model.as_mut())
    }

    /// Handles one request; every outcome, including failure, is an event.
    pub async fn handle(&mut self, message: impl Into<Envelope<Request>>) {
        let Envelope { body, attachment } = message.into();
        let (turn, picture) = match &body {
            Request::Load { .. } => (None, None),
            Request::Look { picture, .. } => (None, Some(*picture)),
            Request::Ask { turn, picture, .. } | Request::Compare { turn, picture, .. } => {
                (Some(*turn), Some(*picture))
            }
            Request::Stop { turn } | Request::Links { turn } => (Some(*turn), None),
        };
        let outcome = match body {
            Request::Load { model, options } => self.load(&model, options).await,
            Request::Look {
                picture,
                size,
                granularity,
            } => {
                let pixels = size.map(|size| size.with_rgb(attachment.unwrap_or_default()));
                self.look(picture, pixels, granularity).await
            }
            Request::Ask {
                turn,
                picture,
                question,
            } => self.ask(turn, picture, question).await,
            Request::Stop { .. } => Ok(()),
            Request::Links { turn } => self.links(turn).await,
            Request::Compare {
                turn,
                picture,
                boxes,
            } => self.compare(turn, picture, &boxes).await,
        };
        if let Err(fault) = outcome {
            // If a shader did not compile, every later error is a consequence of that.
            let fault = take_compile_error().await.unwrap_or(fault);
            // And no other request can do without that shader.
            let (turn, picture) = match fault.code {
                ErrorCode::ShaderRejected => (None, None),
                _ => (turn, picture),
            };
            self.host.emit(Event::Failed {
                turn,
                picture,
                fault,
            });
        }
    }
}

/// A preprocessed image as `[1, 3, H, W]`.
pub(crate) fn planar(image: Planar, device: &Device) -> Tensor<4> {
    let shape = [1, 3, image.height, image.width];
    Tensor::from_data(TensorData::new(image.values, shape), device)
}

pub(crate) fn no_model() -> Fault {
    Fault::new(
        FaultKind::Model,
        "model",
        "no model is loaded",
        "Load a model first",
    )
    .code(ErrorCode::NotReady)
}

/// The current picture, if it is the one with `id`.
fn current(picture: &mut Option<Picture>, id: PictureId) -> Result<&mut Picture, Fault> {
    picture
        .as_mut()
        .filter(|picture| picture.id == id)
        .ok_or_else(|| {
            Fault::new(
                FaultKind::Picture,
                format!("picture {}", id.0),
                "is not the current picture",
                "Open the picture again",
            )
            .code(ErrorCode::NotReady)
        })
}
