//! [`Request::Look`](crate::protocol::Request::Look): proposes boxes for a picture.

use super::token_stream::not_finite;
use super::{Detected, Engine, Host, LoadedModel, Picture, current, no_model, planar};
use crate::error::Fault;
use crate::geometry::{self, Granularity, Proposal};
use crate::gpu::readback;
use crate::image::Pixels;
use crate::image::prepare::Planar;
use crate::model::config::ProposerConfig;
use crate::model::dense_predictions::DensePredictions;
use crate::model::nanodet::{DenseOutput, NanoDetConfig};
use crate::model::upn::{Memory, PaddingMask, Upn, UpnConfig};
use crate::progress::{Progress, Stage};
use crate::protocol::{Event, LookTime, PictureId};

impl<H: Host> Engine<H> {
    pub(super) async fn look(
        &mut self,
        id: PictureId,
        pixels: Option<Pixels>,
        granularity: Granularity,
    ) -> Result<(), Fault> {
        if let Some(pixels) = pixels {
            pixels.check()?;
            let picture = Picture::new(id, pixels);
            #[cfg(feature = "native")]
            let picture = match self.next.take() {
                Some(next) => next.of(picture),
                None => picture,
            };
            self.picture = Some(picture);
        }
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let picture = current(&mut self.picture, id)?;
        let host = &self.host;
        let time = match model.config.proposer.clone() {
            Some(ProposerConfig::Upn(config)) => match picture.time_together(granularity) {
                Some(time) => time,
                None => {
                    ensure_encoded(host, model, &config, picture).await?;
                    ensure_proposals(host, model, picture, granularity).await?
                }
            },
            Some(ProposerConfig::Detector(config)) => {
                let time = ensure_detected(host, model, &config, picture).await?;
                if let Some(detected) = &picture.detected {
                    // A detector has one list of boxes for both granularities.
                    let boxes = picture.proposals.entry(granularity);
                    boxes.or_insert_with(|| labelled(&detected.predictions, &config.classes));
                }
                time
            }
            None => LookTime::default(),
        };
        report(host, 3);
        host.emit(Event::Proposed {
            picture: id,
            granularity,
            boxes: picture
                .proposals
                .get(&granularity)
                .cloned()
                .unwrap_or_default(),
            milliseconds: time,
        });
        Ok(())
    }
}

/// Preprocesses the picture for a proposal network. Returns the image and the milliseconds it took.
async fn prepare(host: &impl Host, recipe: impl FnOnce() -> Planar) -> (Planar, f64) {
    report(host, 0);
    host.yield_now().await;
    let start = host.milliseconds();
    let image = recipe();
    let milliseconds = host.milliseconds() - start;
    report(host, 1);
    host.yield_now().await;
    (image, milliseconds)
}

/// Runs backbone and encoder of UPN, unless the picture has their output.
async fn ensure_encoded(
    host: &impl Host,
    model: &mut LoadedModel,
    config: &UpnConfig,
    picture: &mut Picture,
) -> Result<(), Fault> {
    if picture.upn_memory.is_some() {
        return Ok(());
    }
    let ready = picture.take_proposer_image();
    let recipe = || ready.unwrap_or_else(|| config.recipe().prepare(&picture.pixels));
    let (image, prepare) = prepare(host, recipe).await;
    let device = model.device.clone();
    if let Some(upn) = model.upn(host).await? {
        let start = host.milliseconds();
        let mask = PaddingMask::none(1, image.height, image.width);
        let memory = upn.encode(planar(image, &device), &mask)?;
        let upn = host.milliseconds() - start;
        picture.upn_memory = Some((memory, LookTime { prepare, upn }));
    }
    Ok(())
}

/// Proposes boxes of one granularity, unless the picture has them. Returns the time that encoding
/// took, plus that of the proposals if they were computed now.
async fn ensure_proposals(
    host: &impl Host,
    model: &mut LoadedModel,
    picture: &mut Picture,
    granularity: Granularity,
) -> Result<LookTime, Fault> {
    let Some((memory, mut time)) = picture.upn_memory.as_ref().map(|(m, time)| (m, *time)) else {
        return Ok(LookTime::default());
    };
    if picture.proposals.contains_key(&granularity) {
        return Ok(time);
    }
    let Some(upn) = model.upn(host).await? else {
        return Ok(time);
    };
    report(host, 2);
    host.yield_now().await;
    let start = host.milliseconds();
    let mut found = proposals_of(upn, memory, granularity, &[&picture.pixels]).await?;
    time.upn += host.milliseconds() - start;
    picture
        .proposals
        .insert(granularity, found.pop().unwrap_or_default());
    Ok(time)
}

/// The proposals for each of `pictures`, best first; `memory` is their encoded batch.
///
/// # Errors
/// The device fails, or a value is not finite.
pub(super) async fn proposals_of(
    upn: &Upn,
    memory: &Memory,
    granularity: Granularity,
    pictures: &[&Pixels],
) -> Result<Vec<Vec<Proposal>>, Fault> {
    let output = upn.propose(memory, granularity).await?;
    let [_, queries] = output.logits.dims();
    let boxes = readback::read("the proposed boxes", output.boxes).await?;
    let logits = readback::read("the scores of the proposals", output.logits).await?;
    check_finite(&boxes, &logits)?;
    let boxes = boxes.as_chunks::<4>().0.chunks_exact(queries);
    let outputs = boxes.zip(logits.chunks_exact(queries));
    let found = pictures
        .iter()
        .zip(outputs)
        .map(|(pixels, (boxes, logits))| {
            geometry::proposals(boxes, logits, pixels.width, pixels.height)
        });
    Ok(found.collect())
}

/// Runs the detector, unless the picture has its output. Returns the time it took.
pub(super) async fn ensure_detected(
    host: &impl Host,
    model: &mut LoadedModel,
    config: &NanoDetConfig,
    picture: &mut Picture,
) -> Result<LookTime, Fault> {
    if let Some(detected) = &picture.detected {
        return Ok(detected.time);
    }
    let ready = picture.take_proposer_image();
    let recipe = || ready.unwrap_or_else(|| config.recipe().prepare(&picture.pixels));
    let (image, prepare) = prepare(host, recipe).await;
    let device = model.device.clone();
    let detector = model.detector(host).await?;
    let start = host.milliseconds();
    let output = detector.forward(planar(image, &device));
    report(host, 2);
    host.yield_now().await;
    let found = predictions_of(config, output, &[&picture.pixels]).await?;
    let time = LookTime {
        prepare,
        upn: host.milliseconds() - start,
    };
    picture.detected = found
        .into_iter()
        .next()
        .map(|predictions| Detected { predictions, time });
    Ok(time)
}

/// What the output of the detector for a batch says about each of `pictures`.
///
/// # Errors
/// The device fails, or a value is not finite.
pub(super) async fn predictions_of(
    config: &NanoDetConfig,
    output: DenseOutput,
    pictures: &[&Pixels],
) -> Result<Vec<DensePredictions>, Fault> {
    let [_, cells, classes] = output.scores.dims();
    let boxes = readback::read("the boxes of the detector", output.boxes).await?;
    let scores = readback::read("the scores of the detector", output.scores).await?;
    check_finite(&boxes, &scores)?;
    let scores = scores.chunks_exact(cells * classes);
    let outputs = boxes.chunks_exact(4 * cells).zip(scores);
    let found = pictures
        .iter()
        .zip(outputs)
        .map(|(pixels, (boxes, scores))| dense_predictions(config, pixels, boxes, scores.to_vec()));
    Ok(found.collect())
}

fn check_finite(boxes: &[f32], scores: &[f32]) -> Result<(), Fault> {
    match boxes.iter().chain(scores).all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(not_finite()),
    }
}

/// The output of the detector for `pixels`: boxes `[A, 4]` in pixels of its input, class scores `[A, K]`.
pub(crate) fn dense_predictions(
    config: &NanoDetConfig,
    pixels: &Pixels,
    boxes: &[f32],
    scores: Vec<f32>,
) -> DensePredictions {
    let recipe = config.recipe();
    let (boxes, _) = boxes.as_chunks::<4>();
    let place = |&bbox: &[f32; 4]| recipe.to_picture(pixels.width, pixels.height, bbox.into());
    DensePredictions {
        boxes: boxes.iter().map(place).collect(),
        scores,
        classes: config.classes.len(),
    }
}

/// The proposals with the names of their classes.
fn labelled(predictions: &DensePredictions, classes: &[String]) -> Vec<Proposal> {
    let found = predictions.proposals().into_iter();
    let named = found.map(|found| Proposal {
        bbox: found.bbox,
        score: found.score,
        label: classes.get(found.class).cloned(),
    });
    named.collect()
}

/// Reports that `done` of three steps are done.
fn report(host: &impl Host, done: u64) {
    host.emit(Event::Progress(Progress {
        stage: Stage::Propose,
        done,
        total: 3,
    }));
}
