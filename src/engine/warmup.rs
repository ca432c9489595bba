//! Pipelines are compiled while the model loads, not when the first picture waits for them.
//!
//! A made-up picture goes through a part of the model in a dry run: every launch is prepared as it
//! would be, its pipeline compiled and kept, and nothing is computed. A dry run holds for the whole
//! program, so it is left to browsers, where one engine has a worker to itself; natively a pipeline
//! is compiled at its first launch.

use burn::tensor::Tensor;
use cubecl::dry_run::DryRun;

use super::{Host, LoadedModel, planar};
use crate::diagnostics::compare::picture;
use crate::error::Fault;
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
use crate::gpu::buffer::is_gpu;
use crate::gpu::compile_errors::take_compile_error;
use crate::gpu::sampling::GpuSampler;
use crate::model::chatrex::{ImageFeatures, splice};
use crate::model::decoder::KvCache;
use crate::model::upn::PaddingMask;
use crate::progress::{Progress, Stage};
use crate::protocol::{Event, Granularity};
use crate::text::prompt::user_turn;
use crate::weights::manifest::Part;

/// Sides of the made-up picture; recipes bring it to the sizes of any other.
const SIDES: [u32; 2] = [64, 48];

/// Widths of further ones where a network keeps a picture's proportions: stock operations differ by
/// whether the width of a map is a multiple of 2 or 4.
const WIDTHS: [u32; 6] = [36, 48, 57, 60, 66, 72];

/// Tokens of a further question.
const QUESTION: usize = 16;

/// Boxes on it: stock operations differ by whether so many are a multiple of 2 or 4.
const BOXES: [usize; 3] = [2, 3, 4];

fn boxes(count: usize) -> Vec<BoxXyxy> {
    let one = |i: usize| BoxXyxy::from([i as f32, 4.0, 30.0 + i as f32, 40.0]);
    (0..count).map(one).collect()
}

impl LoadedModel {
    /// Compiles the pipelines of `parts`, which are on the device, where that is done ahead.
    ///
    /// # Errors
    /// A kernel does not compile: it is named.
    pub(super) async fn compile(&mut self, parts: &[Part], host: &impl Host) -> Result<(), Fault> {
        if !cfg!(target_family = "wasm") || !is_gpu(&self.device) {
            return Ok(());
        }
        let mut parts = parts.to_vec();
        parts.retain(|part| !self.compiled.contains(part));
        let total = parts.len() as u64;
        let progress = |done| {
            let stage = Stage::Compile;
            host.emit(Event::Progress(Progress { stage, done, total }));
        };
        for (done, part) in parts.into_iter().enumerate() {
            progress(done as u64);
            host.yield_now().await;
            let dry = DryRun::new();
            let outcome = match part {
                Part::Upn => self.warm_up_upn().await,
                Part::Towers => self.warm_up_towers(),
                Part::Decoder => self.warm_up_decoder(),
            };
            drop(dry);
            if let Some(fault) = take_compile_error().await {
                return Err(fault);
            }
            outcome?;
            self.compiled.push(part);
            progress(done as u64 + 1);
        }
        Ok(())
    }

    async fn warm_up_upn(&self) -> Result<(), Fault> {
        let (Some(upn), Some(config)) = (&self.upn, &self.config.upn) else {
            return Ok(());
        };
        for width in WIDTHS.into_iter().chain([SIDES[0]]) {
            let image = config.recipe().prepare(&picture(width, SIDES[1]));
            let mask = PaddingMask::none(1, image.height, image.width);
            let memory = upn.encode(planar(image, &self.device), &mask)?;
            upn.propose(&memory, Granularity::Coarse).await?;
        }
        Ok(())
    }

    fn warm_up_towers(&self) -> Result<(), Fault> {
        let Some(towers) = &self.towers else {
            return Ok(());
        };
        let recipe = &self.config.recipe;
        let (high, low) = recipe.prepare(&picture(SIDES[0], SIDES[1]));
        let seen = towers.encode_image(planar(low, &self.device), planar(high, &self.device));
        for count in BOXES {
            let placed = recipe.boxes(SIDES[0], SIDES[1], &boxes(count));
            towers.encode_boxes(&seen, &placed);
        }
        Ok(())
    }

    fn warm_up_decoder(&self) -> Result<(), Fault> {
        let Some(llm) = &self.llm else {
            return Ok(());
        };
        let config = &self.config.chatrex;
        let width = config.llm.hidden_size;
        let empty = |rows: usize| Tensor::<2>::zeros([rows, width], &self.device);
        let seen = ImageFeatures {
            image: empty(config.visual_tokens()).unsqueeze(),
            pyramid: Vec::new(),
        };
        let boxes = BOXES[0];
        let user = user_turn(boxes, "What is this?")?;
        let ids = self.tokenizer.encode(&self.config.template.first(&user));
        let embeds = splice(llm, &ids, Some(&seen), Some(&empty(boxes)));
        let tokens = embeds.dims()[1];
        let capacity = tokens + QUESTION + 2;
        let mut cache = KvCache::new(&config.llm, capacity, self.cache, &self.device);
        llm.prefill(embeds, &mut cache);
        let words = splice(llm, &[0; QUESTION], None, None);
        let logits = llm.prefill(words, &mut cache);
        if llm.can_advance(&cache) {
            let rule = self.rule(Sampling::default(), boxes);
            let sampler =
                GpuSampler::new(config.llm.vocab_size, rule, 2, cache.len(), &self.device);
            sampler.sample(logits);
            llm.advance(&sampler, &mut cache);
        } else {
            llm.step(0, &mut cache);
        }
        Ok(())
    }
}
