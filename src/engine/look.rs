//! [`Request::Look`](crate::protocol::Request::Look): proposes boxes for a picture.

use super::token_stream::not_finite;
use super::{Engine, Host, LoadedModel, Picture, current, no_model, planar};
use crate::error::Fault;
use crate::geometry::{self, Granularity};
use crate::gpu::readback;
use crate::image::Pixels;
use crate::model::upn::PaddingMask;
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
            self.picture = Some(Picture::new(id, pixels));
        }
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let picture = current(&mut self.picture, id)?;
        let host = &self.host;
        ensure_encoded(host, model, picture).await?;
        let time = ensure_proposals(host, model, picture, granularity).await?;
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

/// Runs backbone and encoder of UPN, unless the picture has their output or the model has no UPN.
async fn ensure_encoded(
    host: &impl Host,
    model: &mut LoadedModel,
    picture: &mut Picture,
) -> Result<(), Fault> {
    let Some(config) = &model.config.upn else {
        return Ok(());
    };
    if picture.upn_memory.is_some() {
        return Ok(());
    }
    report(host, 0);
    host.yield_now().await;
    let start = host.milliseconds();
    let image = config.recipe().prepare(&picture.pixels);
    let prepare = host.milliseconds() - start;
    report(host, 1);
    host.yield_now().await;
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
    let output = upn.propose(memory, granularity).await?;
    let boxes = readback::read("the proposed boxes", output.boxes).await?;
    let logits = readback::read("the scores of the proposals", output.logits).await?;
    if !boxes.iter().chain(&logits).all(|value| value.is_finite()) {
        return Err(not_finite());
    }
    let (boxes, _) = boxes.as_chunks::<4>();
    let (width, height) = (picture.pixels.width, picture.pixels.height);
    let proposals = geometry::proposals(boxes, &logits, width, height);
    time.upn += host.milliseconds() - start;
    picture.proposals.insert(granularity, proposals);
    Ok(time)
}

/// Reports that `done` of three steps are done.
fn report(host: &impl Host, done: u64) {
    host.emit(Event::Progress(Progress {
        stage: Stage::Propose,
        done,
        total: 3,
    }));
}
