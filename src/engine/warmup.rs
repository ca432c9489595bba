//! Warmup: compiles GPU pipelines while the loaded model has nothing to do, so that later requests need
//! not wait.
//!
//! Each model part runs a test pattern in a dry run: every launch compiles and caches its pipeline,
//! and nothing is computed. The dry-run switch is global to the program, so warmup is limited to
//! browsers, where a worker runs one engine; natively a pipeline is compiled at its first launch.

use burn::tensor::Tensor;
use cubecl::dry_run::DryRun;

use super::load::{LoadedTowers, Proposer};
use super::warmup_steps::Step;
use super::{Engine, Host, LoadedModel, planar};
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Granularity};
use crate::gpu::compile_errors::take_compile_error;
use crate::gpu::sampling::GpuSampler;
use crate::image::Pixels;
use crate::image::prepare::SquareRecipe;
use crate::model::chatrex::{ImageFeatures, Towers, splice};
use crate::model::class_projector::{ClassProjector, ScoredBoxes};
use crate::model::config::{ProposerConfig, TowersConfig};
use crate::model::decoder::KvCache;
use crate::model::nanodet::{NanoDet, NanoDetConfig};
use crate::model::upn::{PaddingMask, Upn, UpnConfig};
use crate::progress::{Progress, Stage};
use crate::protocol::Event;

/// Width and height of the test pattern of the vision towers. Preprocessing resizes it like any other
/// image.
const SIZE: [u32; 2] = [64, HEIGHT];

/// Height of the test patterns for UPN.
const HEIGHT: u32 = 48;

/// Tokens of a further question.
const QUESTION_TOKENS: usize = 16;

/// Numbers of boxes: the pipelines of burn's own operations depend on whether it is a multiple of 2
/// or 4.
const BOX_COUNTS: [usize; 3] = [2, 3, 4];

fn boxes(count: usize) -> Vec<BoxXyxy> {
    (0..count)
        .map(|i| BoxXyxy::from([i as f32, 4.0, 30.0 + i as f32, 40.0]))
        .collect()
}

impl<H: Host> Engine<H> {
    /// Makes the next dry run of the loaded model. Returns whether there was one. A caller with nothing
    /// else to do repeats it; requests need not wait for it, because a pipeline that is missing is compiled
    /// at its first launch. A kernel that does not compile is an event: the model has failed.
    pub async fn warm_up_next(&mut self) -> bool {
        let Some(model) = &mut self.model else {
            return false;
        };
        let Some(step) = model.warmup.steps.pop_front() else {
            return false;
        };
        let dry_run = DryRun::new();
        let outcome = model.warm_up(step).await;
        drop(dry_run);
        let outcome = take_compile_error().await.map_or(outcome, Err);
        let total = model.warmup.total as u64;
        let done = total - model.warmup.steps.len() as u64;
        let stage = Stage::Compile;
        let progress = Event::Progress(Progress { stage, done, total });
        self.host.emit(match outcome {
            Ok(()) => progress,
            Err(fault) => {
                model.warmup.steps.clear();
                Event::Failed {
                    turn: None,
                    picture: None,
                    fault,
                }
            }
        });
        self.host.yield_now().await;
        true
    }
}

impl LoadedModel {
    /// Makes the dry run of `step`, if its part is on the device.
    async fn warm_up(&self, step: Step) -> Result<(), Fault> {
        match (step, &self.proposer, &self.config.proposer) {
            (Step::Upn(width), Some(Proposer::Upn(upn)), Some(ProposerConfig::Upn(config))) => {
                self.warm_up_upn(upn, config, width).await
            }
            (
                Step::Detector(size),
                Some(Proposer::Detector(net)),
                Some(ProposerConfig::Detector(config)),
            ) => {
                self.warm_up_detector(net, config, size);
                Ok(())
            }
            (Step::Towers, ..) => {
                self.warm_up_objects();
                Ok(())
            }
            (Step::Decoder, ..) => self.warm_up_decoder(),
            _ => Ok(()),
        }
    }

    fn warm_up_objects(&self) {
        match (&self.towers, &self.config.towers) {
            (
                Some(LoadedTowers::ClipConvNext(towers)),
                Some(TowersConfig::ClipConvNext { recipe, .. }),
            ) => self.warm_up_towers(towers, recipe),
            (Some(LoadedTowers::Classes(projector)), _) => self.warm_up_projector(projector),
            _ => {}
        }
    }

    async fn warm_up_upn(&self, upn: &Upn, config: &UpnConfig, width: u32) -> Result<(), Fault> {
        let image = config
            .recipe()
            .prepare(&Pixels::test_pattern(width, HEIGHT));
        let mask = PaddingMask::none(1, image.height, image.width);
        let memory = upn.encode(planar(image, &self.device), &mask)?;
        upn.propose(&memory, Granularity::Coarse).await?;
        Ok(())
    }

    fn warm_up_detector(
        &self,
        detector: &NanoDet,
        config: &NanoDetConfig,
        [width, height]: [u32; 2],
    ) {
        let image = config
            .recipe()
            .prepare(&Pixels::test_pattern(width, height));
        detector.forward(planar(image, &self.device));
    }

    fn warm_up_projector(&self, projector: &ClassProjector) {
        let classes = self.config.classes().len();
        for count in BOX_COUNTS {
            let boxes = ScoredBoxes {
                boxes: &vec![[0.0, 0.0, 1.0, 1.0]; count],
                scores: &vec![0.0; count * classes],
            };
            projector.embed(boxes, &self.device);
        }
    }

    fn warm_up_towers(&self, towers: &Towers, recipe: &SquareRecipe) {
        let [width, height] = SIZE;
        let (high, low) = recipe.prepare(&Pixels::test_pattern(width, height));
        let features = towers.encode_image(planar(low, &self.device), planar(high, &self.device));
        for count in BOX_COUNTS {
            let boxes = recipe.boxes(width, height, &boxes(count));
            towers.encode_boxes(&features, &boxes);
        }
    }

    fn warm_up_decoder(&self) -> Result<(), Fault> {
        let Some(llm) = &self.llm else {
            return Ok(());
        };
        let config = &self.config;
        let width = config.llm.hidden_size;
        let zeros = |rows: usize| Tensor::<2>::zeros([rows, width], &self.device);
        let features = (config.visual_tokens() > 0).then(|| ImageFeatures {
            image: zeros(config.visual_tokens()).unsqueeze(),
            pyramid: Vec::new(),
        });
        let boxes = config.towers.as_ref().map_or(0, |_| BOX_COUNTS[0]);
        let objects = (boxes > 0).then(|| zeros(boxes));
        let user = config.user_turn(boxes, "What is this?")?;
        let ids = self.tokenizer.encode(&self.config.template.first(&user));
        let embeds = splice(llm, &ids, features.as_ref(), objects.as_ref());
        let tokens = embeds.dims()[1];
        let capacity = tokens + QUESTION_TOKENS + 2;
        let mut cache = KvCache::new(&config.llm, capacity, self.cache, &self.device);
        llm.prefill(embeds, &mut cache);
        let question = splice(llm, &[0; QUESTION_TOKENS], None, None);
        let logits = llm.prefill(question, &mut cache);
        if llm.can_advance(&cache) {
            let sampling = self.sampling_config(Sampling::default(), boxes);
            let sampler = GpuSampler::new(
                config.llm.vocab_size,
                sampling,
                2,
                cache.len(),
                &self.device,
            );
            sampler.sample(logits);
            llm.advance(&sampler, &mut cache);
        } else {
            llm.step(0, &mut cache);
        }
        Ok(())
    }
}
