//! The vision networks on several pictures before the engine gets them one by one.
//!
//! On a GPU, pictures whose inputs have one size are a batch `[N, 3, H, W]`: its kernels have more rows for the cores
//! and are launched once for all. They are chosen by the number of rows, so that results may differ by rounding from
//! those of a picture alone. On the CPU every picture is a batch of its own: matrix products choose their blocks by the
//! number of rows there too, results must not depend on the other pictures, and batches of several are not faster. On
//! either device, model parts that are loaded on demand are loaded once for all pictures.

use burn::tensor::{Device, Tensor, TensorData};

use super::look::{predictions_of, proposals_of};
use super::prepare::Prepared;
use super::{Detected, Engine, Host, LoadedModel, Picture, no_model};
use crate::cpu::op::is_cpu;
use crate::error::Fault;
use crate::geometry::{Granularity, Proposal};
use crate::gpu::compile_errors::take_compile_error;
use crate::gpu::readback;
use crate::image::Pixels;
use crate::image::prepare::Planar;
use crate::model::chatrex::ImageFeatures;
use crate::model::config::{ProposerConfig, TowersConfig};
use crate::model::upn::PaddingMask;
use crate::protocol::LookTime;

/// The most pictures whose vision networks run together.
pub const MOST_TOGETHER: usize = 32;

/// As many where nobody says another number, if memory allows.
pub const MOST_BY_DEFAULT: usize = 8;

/// A picture, and what the networks read of it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The pixels.
    pub pixels: &'a Pixels,
    /// The images for the networks; networks without one do not run.
    pub prepared: &'a Prepared,
}

/// What the vision networks made of a picture.
#[derive(Default)]
pub struct Encoded {
    proposals: Option<(Granularity, Vec<Proposal>, LookTime)>,
    detected: Option<Detected>,
    features: Option<ImageFeatures>,
    towers: f64,
}

impl Encoded {
    /// The picture's share of the time of the towers, in milliseconds.
    pub fn towers_milliseconds(&self) -> f64 {
        self.towers
    }

    /// No results, and a time of the towers.
    #[cfg(test)]
    pub(crate) fn timed(towers: f64) -> Self {
        Self {
            towers,
            ..Self::default()
        }
    }

    /// The results: proposals, what the detector says, features.
    #[cfg(test)]
    pub(crate) fn results(&self) -> Results<'_> {
        Results {
            proposals: self.proposals.as_ref().map(|(_, found, _)| &found[..]),
            predictions: self.detected.as_ref().map(|found| &found.predictions),
            features: self.features.as_ref(),
        }
    }

    /// `picture` with the results.
    fn of(self, mut picture: Picture) -> Picture {
        if let Some((granularity, proposals, time)) = self.proposals {
            picture.proposals.insert(granularity, proposals);
            picture.together = Some((granularity, time));
        }
        picture.detected = self.detected;
        picture.features = self.features;
        picture
    }
}

/// The results in [`Encoded`].
#[cfg(test)]
pub(crate) struct Results<'a> {
    pub(crate) proposals: Option<&'a [Proposal]>,
    pub(crate) predictions: Option<&'a crate::model::dense_predictions::DensePredictions>,
    pub(crate) features: Option<&'a ImageFeatures>,
}

/// What was computed of a picture before the engine gets it.
pub(super) struct Next {
    prepared: Prepared,
    encoded: Encoded,
}

impl Next {
    /// `picture` with what was computed of it.
    pub(super) fn of(self, picture: Picture) -> Picture {
        self.encoded.of(Picture {
            prepared: Some(self.prepared),
            ..picture
        })
    }
}

impl<H: Host> Engine<H> {
    /// Gives the next picture of a [`Request::Look`](crate::protocol::Request::Look) its preprocessed images, and what
    /// [`Engine::encode_together`] made of them. They must be those of that picture and of the loaded model.
    pub fn prepare_next(&mut self, prepared: Prepared, encoded: Encoded) {
        self.next = Some(Next { prepared, encoded });
    }

    /// The most pictures that [`Engine::encode_together`] should get at once, at most `wanted`, within the memory of
    /// the device and `limit`, in bytes. Without `wanted`, a number by device and memory; 1 without a model.
    pub async fn pictures_together(&self, wanted: Option<usize>, limit: Option<u64>) -> usize {
        match &self.model {
            Some(model) => model.pictures_together(wanted, limit).await,
            None => 1,
        }
    }

    /// Runs proposal network and towers on `pictures`; one result per picture, in their order, for
    /// [`Engine::prepare_next`]. The current picture is given up.
    ///
    /// # Errors
    /// No model is loaded, a part of it cannot be loaded, or the device or a network fails on any of the pictures.
    pub async fn encode_together(
        &mut self,
        pictures: &[Input<'_>],
        granularity: Granularity,
    ) -> Result<Vec<Encoded>, Fault> {
        let alone = self.model.as_ref().is_some_and(|m| is_cpu(&m.device));
        self.encode_batches(pictures, granularity, alone).await
    }

    /// [`Engine::encode_together`] in batches of pictures with inputs of one size, or with `alone` of one picture, on any
    /// device.
    pub(crate) async fn encode_batches(
        &mut self,
        pictures: &[Input<'_>],
        granularity: Granularity,
        alone: bool,
    ) -> Result<Vec<Encoded>, Fault> {
        self.picture = None;
        self.next = None;
        let model = self.model.as_mut().ok_or_else(no_model)?;
        match encode(&self.host, model, pictures, granularity, alone).await {
            Ok(encoded) => Ok(encoded),
            // If a shader did not compile, the fault is a consequence of that.
            Err(fault) => Err(take_compile_error().await.unwrap_or(fault)),
        }
    }
}

/// Runs the networks on batches of pictures, or with `alone` on every one.
async fn encode(
    host: &impl Host,
    model: &mut LoadedModel,
    pictures: &[Input<'_>],
    granularity: Granularity,
    alone: bool,
) -> Result<Vec<Encoded>, Fault> {
    let mut encoded: Vec<Encoded> = pictures.iter().map(|_| Encoded::default()).collect();
    let images = pictures.iter().map(|p| p.prepared.proposer.as_ref());
    for batch in batches(images, alone) {
        propose(host, model, pictures, &batch, granularity, &mut encoded).await?;
    }
    if matches!(model.config.towers, Some(TowersConfig::ClipConvNext { .. })) {
        let towers = pictures.iter().map(|p| p.prepared.towers.as_ref());
        for batch in batches(towers.map(|towers| towers.map(|(high, _)| high)), alone) {
            encode_images(host, model, pictures, &batch, &mut encoded).await?;
        }
    }
    Ok(encoded)
}

/// The places of the images of each batch: those of one size, or with `alone` every one. Pictures without an image are
/// in none.
fn batches<'a>(images: impl Iterator<Item = Option<&'a Planar>>, alone: bool) -> Vec<Vec<usize>> {
    let mut batches: Vec<([usize; 2], Vec<usize>)> = Vec::new();
    for (place, image) in images.enumerate() {
        let Some(image) = image else { continue };
        let size = [image.height, image.width];
        let same = batches
            .iter_mut()
            .find(|(other, _)| !alone && *other == size);
        match same {
            Some((_, batch)) => batch.push(place),
            None => batches.push((size, vec![place])),
        }
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

/// Images of one size as `[N, 3, H, W]`; at least one.
fn stacked(images: &[&Planar], device: &Device) -> Tensor<4> {
    let shape = [images.len(), 3, images[0].height, images[0].width];
    let values: Vec<f32> = images
        .iter()
        .flat_map(|image| &image.values)
        .copied()
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Runs the proposal network on the pictures at `batch`.
async fn propose(
    host: &impl Host,
    model: &mut LoadedModel,
    pictures: &[Input<'_>],
    batch: &[usize],
    granularity: Granularity,
    encoded: &mut [Encoded],
) -> Result<(), Fault> {
    host.yield_now().await;
    let members = batch.iter().map(|&place| &pictures[place]);
    let pixels: Vec<&Pixels> = members.clone().map(|picture| picture.pixels).collect();
    let images: Vec<&Planar> = members
        .filter_map(|p| p.prepared.proposer.as_ref())
        .collect();
    let device = model.device.clone();
    let share = |start: f64| LookTime {
        prepare: 0.0,
        upn: (host.milliseconds() - start) / batch.len() as f64,
    };
    match model.config.proposer.clone() {
        Some(ProposerConfig::Upn(_)) => {
            let Some(upn) = model.upn(host).await? else {
                return Ok(());
            };
            let start = host.milliseconds();
            let mask = PaddingMask::none(images.len(), images[0].height, images[0].width);
            let memory = upn.encode(stacked(&images, &device), &mask)?;
            let found = proposals_of(upn, &memory, granularity, &pixels).await?;
            let time = share(start);
            for (&place, proposals) in batch.iter().zip(found) {
                encoded[place].proposals = Some((granularity, proposals, time));
            }
        }
        Some(ProposerConfig::Detector(config)) => {
            let detector = model.detector(host).await?;
            let start = host.milliseconds();
            let output = detector.forward(stacked(&images, &device));
            let found = predictions_of(&config, output, &pixels).await?;
            let time = share(start);
            for (&place, predictions) in batch.iter().zip(found) {
                encoded[place].detected = Some(Detected { predictions, time });
            }
        }
        None => {}
    }
    Ok(())
}

/// Runs the towers on the pictures at `batch`.
async fn encode_images(
    host: &impl Host,
    model: &mut LoadedModel,
    pictures: &[Input<'_>],
    batch: &[usize],
    encoded: &mut [Encoded],
) -> Result<(), Fault> {
    host.yield_now().await;
    let images = batch
        .iter()
        .filter_map(|&place| pictures[place].prepared.towers.as_ref());
    let (high, low): (Vec<&Planar>, Vec<&Planar>) = images.map(|(high, low)| (high, low)).unzip();
    let device = model.device.clone();
    let towers = model.towers(host).await?;
    let start = host.milliseconds();
    let features = towers.encode_image(stacked(&low, &device), stacked(&high, &device));
    // A fault of the device is found here and not while a picture is asked about.
    let one = features.image.clone().narrow(1, 0, 1).narrow(2, 0, 1);
    readback::read("the features of pictures", one).await?;
    let share = (host.milliseconds() - start) / batch.len() as f64;
    for (&place, features) in batch.iter().zip(features.split()) {
        encoded[place].features = Some(features);
        encoded[place].towers = share;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_one_size_or_one_picture() {
        let image = |height, width| Planar {
            width,
            height,
            values: Vec::new(),
        };
        let images = [image(2, 3), image(3, 2), image(2, 3), image(2, 3)];
        let list = || {
            [
                Some(&images[0]),
                Some(&images[1]),
                None,
                Some(&images[2]),
                Some(&images[3]),
            ]
        };
        assert_eq!(batches(list().into_iter(), false), [vec![0, 3, 4], vec![1]]);
        assert_eq!(batches(list().into_iter(), true), [[0], [1], [3], [4]]);
        assert!(batches([None].into_iter(), false).is_empty());
    }
}
