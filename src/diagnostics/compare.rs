//! What the networks compute on a made-up picture, stage by stage, so that two devices can be
//! compared at the full size of a model.

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Host, no_model, planar};
use crate::error::Fault;
use crate::geometry::BoxXyxy;
use crate::geometry::Granularity;
use crate::gpu::readback;
use crate::image::Pixels;
use crate::memory::KvCacheDType;
use crate::model::chatrex::splice;
use crate::model::decoder::KvCache;
use crate::model::upn::PaddingMask;
use crate::progress::{Progress, Stage};
use crate::protocol::Event;

/// Values of every stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivationDump {
    /// The stages in order.
    pub stages: Vec<StageValues>,
    /// The tokens that became queries; another device must be given the same, as near ties may
    /// fall either way.
    pub selection: Vec<usize>,
    /// The token that the language model would say first.
    pub token: u32,
}

/// What one stage computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageValues {
    /// Its name.
    pub name: String,
    /// Values spread evenly over the result.
    pub values: Vec<f32>,
    /// Time taken since the stage before, reading included.
    pub milliseconds: f64,
}

/// At most so many values are kept of a stage.
const KEPT: usize = 1024;

/// Boxes of the made-up picture, as parts of its sides.
const BOXES: [[f32; 4]; 5] = [
    [0.1, 0.1, 0.4, 0.5],
    [0.5, 0.2, 0.9, 0.8],
    [0.0, 0.0, 1.0, 1.0],
    [0.3, 0.6, 0.35, 0.65],
    [0.7, 0.0, 0.95, 0.3],
];

impl<H: Host> Engine<H> {
    /// Carries `pixels` and five boxes through every stage up to the second token. `selection` are the tokens that become queries; the network's own choice without.
    ///
    /// # Errors
    /// No model is loaded, a part cannot be read again, or the device fails.
    pub async fn examine(
        &mut self,
        pixels: &Pixels,
        selection: Option<Vec<usize>>,
    ) -> Result<ActivationDump, Fault> {
        let host = &self.host;
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let (width, height) = (pixels.width as f32, pixels.height as f32);
        let boxes = BOXES.map(|[x1, y1, x2, y2]| {
            BoxXyxy::from([x1 * width, y1 * height, x2 * width, y2 * height])
        });
        let device = model.device.clone();
        let mut clock = host.milliseconds();
        let mut stages = Vec::new();
        let mut note = |name: &str, values: Vec<f32>| {
            let now = host.milliseconds();
            let step = (values.len() / KEPT).max(1);
            stages.push(StageValues {
                name: name.to_string(),
                values: values.into_iter().step_by(step).take(KEPT).collect(),
                milliseconds: now - clock,
            });
            clock = now;
            host.emit(Event::Progress(Progress {
                stage: Stage::Look,
                done: stages.len() as u64,
                total: 0,
            }));
        };
        let mut chosen = Vec::new();
        if let Some(config) = model.config.upn.clone() {
            let image = config.recipe().prepare(pixels);
            let mask = PaddingMask::none(1, image.height, image.width);
            let upn = model.upn(host).await?.expect("the model has one");
            let memory = upn.encode(planar(image, &device), &mask)?;
            note(
                "upn.candidates",
                readback::read("an activation", memory.candidates.clone()).await?,
            );
            host.yield_now().await;
            let prompt = upn.prompt(Granularity::Coarse);
            let logits = upn.logits(memory.candidates.clone(), prompt.clone());
            let mut logits = readback::read("an activation", logits).await?;
            note("upn.encoder_logits", logits.clone());
            if let Some(selection) = &selection {
                logits.fill(f32::MIN);
                for (rank, &token) in selection.iter().enumerate() {
                    if let Some(logit) = logits.get_mut(token) {
                        *logit = -(rank as f32);
                    }
                }
            }
            let selected = upn.select(&memory, &logits);
            chosen = selected.indices[0].clone();
            let states = upn.decode(&memory, upn.content(1), selected.boxes, None);
            let last = states.last().expect("a decoder has layers");
            note(
                "upn.boxes",
                readback::read("an activation", upn.boxes(last)).await?,
            );
            let logits = upn.logits(last.state.clone(), prompt);
            note("upn.logits", readback::read("an activation", logits).await?);
        }
        host.yield_now().await;
        let recipe = model.config.recipe.clone();
        let (high, low) = recipe.prepare(pixels);
        let placed = recipe.boxes(pixels.width, pixels.height, &boxes);
        let towers = model.towers(host).await?;
        let seen = towers.encode_image(planar(low, &device), planar(high, &device));
        note(
            "visual_tokens",
            readback::read("an activation", seen.image.clone()).await?,
        );
        let objects = towers.encode_boxes(&seen, &placed);
        note(
            "object_tokens",
            readback::read("an activation", objects.clone()).await?,
        );
        host.yield_now().await;
        let user = crate::text::prompt::user_turn(boxes.len(), "What is this?")?;
        let ids = model.tokenizer.encode(&model.config.template.first(&user));
        let llm = model.llm(host).await?;
        let embeds = splice(llm, &ids, Some(&seen), Some(&objects));
        let tokens = embeds.dims()[1];
        let mut cache = KvCache::new(llm.config(), tokens + 1, KvCacheDType::F32, &device);
        let logits = readback::read("an activation", llm.prefill(embeds, &mut cache)).await?;
        let token = crate::generate::sampling::Sampler::greedy().sample(&logits);
        note("prefill_logits", logits);
        let logits = readback::read("an activation", llm.step(token, &mut cache)).await?;
        note("step_logits", logits);
        Ok(ActivationDump {
            stages,
            selection: chosen,
            token,
        })
    }
}
