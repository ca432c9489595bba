//! Activations of every stage of a model on one picture, so that two devices can be compared at the
//! model's full size.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Host, class_tokens, dense_predictions, no_model, planar};
use crate::error::Fault;
use crate::generate::sampling::Sampler;
use crate::geometry::BoxXyxy;
use crate::gpu::readback::read;
use crate::image::Pixels;
use crate::memory::KvCacheDType;
use crate::model::chatrex::splice;
use crate::model::config::TowersConfig;
use crate::model::decoder::KvCache;
use crate::model::dense_predictions::DensePredictions;
use crate::model::upn::PaddingMask;
use crate::progress::{Progress, Stage};
use crate::protocol::{Event, Granularity};

/// Samples of the activations of every stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivationDump {
    /// The stages in order.
    pub stages: Vec<StageValues>,
    /// Encoder tokens that became queries. Another device must use the same ones: near ties are
    /// resolved differently by rounding.
    pub selection: Vec<usize>,
    /// The first token by greedy decoding.
    pub token: u32,
}

/// Samples of one stage's activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageValues {
    /// The stage's name.
    pub name: String,
    /// Values at even distances in the row-major tensor.
    pub values: Vec<f32>,
    /// Milliseconds since the stage before, readback included.
    pub milliseconds: f64,
}

/// Values sampled per stage at most.
const MAX_VALUES: usize = 1024;

/// Boxes in the prompt, `[x1, y1, x2, y2]` in fractions of the picture's sides.
const BOXES: [[f32; 4]; 5] = [
    [0.1, 0.1, 0.4, 0.5],
    [0.5, 0.2, 0.9, 0.8],
    [0.0, 0.0, 1.0, 1.0],
    [0.3, 0.6, 0.35, 0.65],
    [0.7, 0.0, 0.95, 0.3],
];

/// Runs `pixels` and five boxes through every stage of the loaded model, up to the logits of the
/// second token. `selection` are the encoder tokens that become queries; by default the network
/// selects them.
///
/// # Errors
/// No model is loaded, a part cannot be loaded again, or the device fails.
pub async fn dump_activations<H: Host>(
    engine: &mut Engine<H>,
    pixels: &Pixels,
    selection: Option<Vec<usize>>,
) -> Result<ActivationDump, Fault> {
    let (host, model) = engine.parts();
    let model = model.ok_or_else(no_model)?;
    let (width, height) = (pixels.width as f32, pixels.height as f32);
    let boxes = BOXES
        .map(|[x1, y1, x2, y2]| BoxXyxy::from([x1 * width, y1 * height, x2 * width, y2 * height]));
    let device = model.device.clone();
    let mut recorder = Recorder {
        host,
        since: host.milliseconds(),
        stages: Vec::new(),
    };
    let mut selected = Vec::new();
    if let Some(config) = model.config.upn().cloned() {
        let image = config.recipe().prepare(pixels);
        let mask = PaddingMask::none(1, image.height, image.width);
        let upn = model.upn(host).await?.expect("the model has one");
        let memory = upn.encode(planar(image, &device), &mask)?;
        let candidates = memory.candidates.clone();
        recorder.read("upn.candidates", candidates.clone()).await?;
        host.yield_now().await;
        let prompt = upn.prompt(Granularity::Coarse);
        let logits = upn.logits(candidates, prompt.clone());
        let mut logits = recorder.read("upn.encoder_logits", logits).await?;
        if let Some(selection) = &selection {
            rank_first(&mut logits, selection);
        }
        let queries = upn.select(&memory, &logits);
        selected = queries.indices[0].clone();
        let states = upn.decode(&memory, upn.content(1), queries.boxes, None);
        let last = states.last().expect("a decoder has layers");
        recorder.read("upn.boxes", upn.boxes(last)).await?;
        let logits = upn.logits(last.state.clone(), prompt);
        recorder.read("upn.logits", logits).await?;
    }
    let mut predictions = DensePredictions::default();
    if let Some(config) = model.config.detector().cloned() {
        let image = config.recipe().prepare(pixels);
        let detector = model.detector(host).await?;
        let output = detector.forward(planar(image, &device));
        let boxes = recorder.read("detector.boxes", output.boxes).await?;
        let scores = recorder.read("detector.scores", output.scores).await?;
        predictions = dense_predictions(&config, pixels, &boxes, scores);
    }
    host.yield_now().await;
    let (mut features, mut objects) = (None, None);
    match model.config.towers.clone() {
        Some(TowersConfig::ClipConvNext { recipe, .. }) => {
            let (high, low) = recipe.prepare(pixels);
            let placed = recipe.boxes(pixels.width, pixels.height, &boxes);
            let towers = model.towers(host).await?;
            let image = towers.encode_image(planar(low, &device), planar(high, &device));
            recorder.read("visual_tokens", image.image.clone()).await?;
            objects = Some(towers.encode_boxes(&image, &placed));
            features = Some(image);
        }
        Some(TowersConfig::Classes(_)) => {
            let projector = model.projector(host).await?;
            let size = [pixels.width, pixels.height];
            objects = Some(class_tokens(projector, &predictions, size, &boxes, &device));
        }
        None => {}
    }
    if let Some(objects) = &objects {
        recorder.read("object_tokens", objects.clone()).await?;
    }
    host.yield_now().await;
    let count = if objects.is_some() { boxes.len() } else { 0 };
    let user = model.config.user_turn(count, "What is this?")?;
    let ids = model.tokenizer.encode(&model.config.template.first(&user));
    let llm = model.llm(host).await?;
    let embeds = splice(llm, &ids, features.as_ref(), objects.as_ref());
    let tokens = embeds.dims()[1];
    let mut cache = KvCache::new(llm.config(), tokens + 1, KvCacheDType::F32, &device);
    let logits = llm.prefill(embeds, &mut cache);
    let logits = recorder.read("prefill_logits", logits).await?;
    let token = Sampler::greedy().sample(&logits);
    let logits = llm.step(token, &mut cache);
    recorder.read("step_logits", logits).await?;
    Ok(ActivationDump {
        stages: recorder.stages,
        selection: selected,
        token,
    })
}

/// Changes `logits` so that the tokens of `selection` are the highest, in this order.
fn rank_first(logits: &mut [f32], selection: &[usize]) {
    logits.fill(f32::MIN);
    for (rank, &token) in selection.iter().enumerate() {
        if let Some(logit) = logits.get_mut(token) {
            *logit = -(rank as f32);
        }
    }
}

/// Samples activations and reports progress.
struct Recorder<'a, H> {
    host: &'a H,
    /// When the stage before ended, in the host's milliseconds.
    since: f64,
    stages: Vec<StageValues>,
}

impl<H: Host> Recorder<'_, H> {
    /// Reads the activations of a stage back and records samples of them.
    async fn read<const D: usize>(
        &mut self,
        stage: &str,
        activations: Tensor<D>,
    ) -> Result<Vec<f32>, Fault> {
        let values = read(stage, activations).await?;
        let now = self.host.milliseconds();
        let step = (values.len() / MAX_VALUES).max(1);
        self.stages.push(StageValues {
            name: stage.to_string(),
            values: values
                .iter()
                .copied()
                .step_by(step)
                .take(MAX_VALUES)
                .collect(),
            milliseconds: now - self.since,
        });
        self.since = now;
        self.host.emit(Event::Progress(Progress {
            stage: Stage::Look,
            done: self.stages.len() as u64,
            total: 0,
        }));
        Ok(values)
    }
}
