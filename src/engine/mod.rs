//! The engine: looks at a picture once, answers many questions about it.
//!
//! It consumes [`Request`]s and produces [`Event`]s, natively and in the worker alike, and knows
//! neither files nor browsers: a [`Host`] gives it weight bytes, a clock and a way to let others
//! run. It keeps of the current picture: the prepared pixels, UPN's memory, the towers' features
//! and the decoder's keys and values up to the last box, so that a further question reads only its
//! own words.

mod ask;
mod load;
pub mod memory_plan;
pub(crate) mod token_stream;
mod warmup;

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::error::{Fault, FaultKind};
use crate::geometry::{self, BoxXyxy, Proposal};
use crate::gpu::compile_errors::take_compile_error;
use crate::image::Pixels;
use crate::image::prepare::Planar;
use crate::model::chatrex::ImageFeatures;
use crate::model::decoder::KvCache;
use crate::model::upn::{self, Memory, PaddingMask};
use crate::progress::{Progress, Stage};
use crate::protocol::{Event, Granularity, LookTime, PictureId, Request, TurnId};
use crate::weights::source::{LocalFuture, ModelFiles, Runtime};

use self::ask::Asked;
pub use load::{LoadedModel, ModelConfig};

/// What the engine needs from the program around it. It breathes between tokens and stages, so that
/// waiting messages get through.
pub trait Host: Runtime {
    /// Sends an event to the front.
    fn emit(&self, event: Event);
    /// Milliseconds since some fixed moment.
    fn milliseconds(&self) -> f64;
    /// Whether the person wants `turn` stopped.
    fn stopped(&self, turn: TurnId) -> bool;
    /// The files of the model named in [`Request::Load`].
    ///
    /// # Errors
    /// There is no such place.
    fn files<'a>(&'a self, model: &'a str) -> LocalFuture<'a, Result<ModelFiles, Fault>>;
}

/// The picture at hand and all that was computed of it.
struct Picture {
    id: PictureId,
    pixels: Pixels,
    upn_memory: Option<(Memory, LookTime)>,
    proposals: HashMap<Granularity, Vec<Proposal>>,
    features: Option<ImageFeatures>,
    prefix: Option<Prefix>,
}

/// Decoder state after picture and boxes, before any question.
struct Prefix {
    boxes: Vec<BoxXyxy>,
    cache: KvCache,
    tokens: usize,
    capacity: usize,
}

/// One model, one picture, one device.
pub struct Engine<H: Host> {
    pub(crate) host: H,
    pub(crate) model: Option<LoadedModel>,
    picture: Option<Picture>,
}

impl<H: Host> Engine<H> {
    /// An engine without a model.
    pub fn new(host: H) -> Self {
        Self {
            host,
            model: None,
            picture: None,
        }
    }

    /// The program around the engine.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Host and loaded model, for diagnostics.
    #[cfg(feature = "diagnostics")]
    pub(crate) fn parts(&mut self) -> (&H, Option<&mut LoadedModel>) {
        (&self.host, self.model.as_mut())
    }

    /// Carries out one request; every outcome, failure included, is an event.
    pub async fn handle(&mut self, request: Request) {
        let (turn, picture) = match &request {
            Request::Load { .. } => (None, None),
            Request::Look { picture, .. } => (None, Some(*picture)),
            Request::Ask { turn, picture, .. } => (Some(*turn), Some(*picture)),
            Request::Stop { turn } => (Some(*turn), None),
        };
        let outcome = match request {
            Request::Load {
                model,
                device,
                memory,
                cache,
            } => self.load(&model, device, memory, cache).await,
            Request::Look {
                picture,
                pixels,
                granularity,
            } => self.look(picture, pixels, granularity).await,
            Request::Ask {
                turn,
                picture,
                boxes,
                question,
                max_tokens,
                sampling,
            } => {
                let asked = Asked {
                    boxes,
                    question,
                    max_tokens,
                    sampling,
                };
                self.ask(turn, picture, asked).await
            }
            Request::Stop { .. } => Ok(()),
        };
        if let Err(fault) = outcome {
            // A kernel that did not compile is why what came after it failed.
            let fault = take_compile_error().await.unwrap_or(fault);
            self.host.emit(Event::Failed {
                turn,
                picture,
                fault,
            });
        }
    }

    async fn look(
        &mut self,
        id: PictureId,
        pixels: Option<Pixels>,
        granularity: Granularity,
    ) -> Result<(), Fault> {
        if let Some(pixels) = pixels {
            pixels.check()?;
            self.picture = Some(Picture {
                id,
                pixels,
                upn_memory: None,
                proposals: HashMap::new(),
                features: None,
                prefix: None,
            });
        }
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let picture = current(&mut self.picture, id)?;
        let host = &self.host;
        let progress = |done| {
            host.emit(Event::Progress(Progress {
                stage: Stage::Propose,
                done,
                total: 3,
            }));
        };
        if picture.upn_memory.is_none()
            && let Some(config) = model.config.upn.clone()
        {
            progress(0);
            host.yield_now().await;
            let start = host.milliseconds();
            let image = config.recipe().prepare(&picture.pixels);
            let prepare = host.milliseconds() - start;
            progress(1);
            host.yield_now().await;
            let device = model.device.clone();
            if let Some(upn) = model.upn(host).await? {
                let start = host.milliseconds();
                let mask = PaddingMask::none(1, image.height, image.width);
                let memory = upn.encode(planar(image, &device), &mask)?;
                let upn = host.milliseconds() - start;
                picture.upn_memory = Some((memory, LookTime { prepare, upn }));
            }
        }
        let mut time = LookTime::default();
        let mut boxes = picture
            .proposals
            .get(&granularity)
            .cloned()
            .unwrap_or_default();
        if let Some((memory, encoded)) = &picture.upn_memory {
            time = *encoded;
            if !picture.proposals.contains_key(&granularity)
                && let Some(upn) = model.upn(host).await?
            {
                progress(2);
                host.yield_now().await;
                let start = host.milliseconds();
                let (width, height) = (picture.pixels.width, picture.pixels.height);
                let found = upn.propose(memory, granularity).await?;
                let corners = upn::read(found.boxes).await?;
                let logits = upn::read(found.logits).await?;
                if !corners.iter().chain(&logits).all(|value| value.is_finite()) {
                    return Err(token_stream::not_finite());
                }
                let (corners, _) = corners.as_chunks::<4>();
                boxes = geometry::proposals(corners, &logits, width, height);
                time.upn += host.milliseconds() - start;
                picture.proposals.insert(granularity, boxes.clone());
            }
        }
        progress(3);
        host.emit(Event::Proposed {
            picture: id,
            granularity,
            boxes,
            milliseconds: time,
        });
        Ok(())
    }
}

/// A prepared picture as `[1, 3, H, W]`.
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
}

fn current(picture: &mut Option<Picture>, id: PictureId) -> Result<&mut Picture, Fault> {
    picture
        .as_mut()
        .filter(|picture| picture.id == id)
        .ok_or_else(|| {
            Fault::new(
                FaultKind::Picture,
                format!("picture {}", id.0),
                "is not the one at hand",
                "Open the picture again",
            )
        })
}
