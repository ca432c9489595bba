//! Rows of whole stages, from an image to the tokens of an answer.

use burn::tensor::{Device, Tensor};

use super::case::Case;
use super::clock::{Clock, wait_for};
use super::report::Token;
use crate::engine::token_stream::TokenStream;
use crate::engine::{Host, planar};
use crate::error::{Fault, FaultKind};
use crate::generate::sampling::Sampler;
use crate::geometry::BoxXyxy;
use crate::gpu::graph::CapturedGraph;
use crate::gpu::launch::launched;
use crate::gpu::readback::read;
use crate::gpu::sampling::{GpuSampler, SamplingConfig};
use crate::image::Pixels;
use crate::image::prepare::Planar;
use crate::memory::KvCacheDType;
use crate::model::chatrex::{ChatRexConfig, ImageFeatures, Towers, splice};
use crate::model::decoder::{Decoder, DecoderConfig, KvCache};
use crate::model::upn::{PaddingMask, Upn};
use crate::protocol::Granularity;
use crate::text::prompt::{IMAGE_SLOT, OBJECT_SLOT};

/// Tokens of the prompt before the image.
const TOKENS_BEFORE_IMAGE: usize = 24;

/// Tokens of a question and of the template after it.
const QUESTION_TOKENS: usize = 20;

/// Tokens decoded per timed block: on a GPU or the CPU, on a software adapter.
const DECODED_TOKENS: [usize; 2] = [32, 8];

/// Measures the proposal network on a prepared image.
///
/// # Errors
/// The device fails.
pub async fn upn<H: Host>(clock: &mut Clock<'_, H>, upn: &Upn, image: Planar) -> Result<(), Fault> {
    let mask = PaddingMask::none(1, image.height, image.width);
    let sizes = format!("{} x {}", image.width, image.height);
    let pixels = planar(image, clock.device());
    let mut memory = None;
    clock
        .stage(
            Case::new("upn", "backbone and encoder", sizes),
            async || {
                let encoded = upn.encode(pixels.clone(), &mask)?;
                wait_for(encoded.candidates.clone()).await?;
                memory = Some(encoded);
                Ok(())
            },
        )
        .await?;
    let Some(memory) = memory else { return Ok(()) };
    let queries = format!("{} queries", upn.config().num_queries);
    clock
        .stage(
            Case::new("upn", "decoder, boxes read", queries),
            async || {
                let proposals = upn.propose(&memory, Granularity::Coarse).await?;
                read("proposal boxes", proposals.boxes).await?;
                read("proposal logits", proposals.logits).await?;
                Ok(())
            },
        )
        .await?;
    Ok(())
}

/// Input of the towers.
pub struct TowersInput<'a> {
    /// Sizes.
    pub chatrex: &'a ChatRexConfig,
    /// The image.
    pub pixels: &'a Pixels,
    /// Number of boxes.
    pub boxes: usize,
    /// Whether to measure rows; the towers run in any case.
    pub measured: bool,
}

/// Image and boxes as the decoder's input, and the milliseconds that image and boxes took.
pub struct Encoded {
    features: ImageFeatures,
    objects: Tensor<2>,
    boxes: usize,
    milliseconds: [Option<f64>; 2],
}

/// Encodes an image and boxes; measures both towers apart and together, and the boxes.
///
/// # Errors
/// The device fails.
pub async fn towers<H: Host>(
    clock: &mut Clock<'_, H>,
    towers: &Towers,
    input: TowersInput<'_>,
) -> Result<Encoded, Fault> {
    let TowersInput {
        chatrex,
        pixels,
        boxes: count,
        measured,
    } = input;
    let recipe = chatrex.towers.recipe();
    let (high, low) = recipe.prepare(pixels);
    let high = planar(high, clock.device());
    let low = planar(low, clock.device());
    let (width, height) = (pixels.width as f32, pixels.height as f32);
    let boxes: Vec<BoxXyxy> = (0..count)
        .map(|i| {
            let (x, y) = (
                (i % 10) as f32 / 15.0 * width,
                (i / 10) as f32 / 15.0 * height,
            );
            let size = 0.05 + 0.3 * (i % 7) as f32 / 7.0;
            BoxXyxy::from([x, y, x + size * width, y + size * height])
        })
        .collect();
    let placed = recipe.boxes(pixels.width, pixels.height, &boxes);
    let mut milliseconds = [None; 2];
    if measured {
        let sides = [chatrex.towers.image_low, chatrex.towers.image_aux]
            .map(|side| format!("{side} x {side}"));
        let clip = Case {
            flops: Some(clip_flops(chatrex)),
            ..Case::new("towers", "CLIP", &*sides[0])
        };
        clock
            .stage(clip, async || {
                wait_for(towers.clip().forward(low.clone())).await
            })
            .await?;
        let convnext = Case {
            flops: Some(convnext_flops(chatrex)),
            ..Case::new("towers", "ConvNeXt", &*sides[1])
        };
        clock
            .stage(convnext, async || {
                let levels = towers.convnext().forward(high.clone());
                let last = levels.into_iter().last().expect("ConvNeXt has stages");
                wait_for(last).await
            })
            .await?;
        let both = Case {
            flops: Some(clip_flops(chatrex) + convnext_flops(chatrex)),
            ..Case::new("towers", "both and projector", sides.join(", "))
        };
        milliseconds[0] = clock
            .stage(both, async || {
                wait_for(towers.encode_image(low.clone(), high.clone()).image).await
            })
            .await?;
    }
    let features = towers.encode_image(low.clone(), high.clone());
    let objects = towers.encode_boxes(&features, &placed);
    wait_for(objects.clone()).await?;
    if measured {
        let boxes = Case::new(
            "towers",
            "RoI pooling and projector",
            format!("{count} boxes"),
        );
        milliseconds[1] = clock
            .stage(boxes, async || {
                wait_for(towers.encode_boxes(&features, &placed)).await
            })
            .await?;
    }
    Ok(Encoded {
        features,
        objects,
        boxes: count,
        milliseconds,
    })
}

/// Floating-point operations of CLIP's blocks on one image.
fn clip_flops(config: &ChatRexConfig) -> f64 {
    let clip = &config.towers.clip;
    let tokens = (config.towers.visual_tokens() + 1) as f64;
    let (width, inner) = (clip.hidden_size as f64, clip.intermediate_size as f64);
    let weights = 4.0 * width * width + 2.0 * width * inner;
    clip.used_layers() as f64 * (2.0 * tokens * weights + 4.0 * tokens * tokens * width)
}

/// Floating-point operations of ConvNeXt's blocks on one image.
fn convnext_flops(config: &ChatRexConfig) -> f64 {
    let convnext = &config.towers.convnext;
    let stages = convnext
        .dims
        .iter()
        .zip(&convnext.depths)
        .zip(convnext.strides());
    stages
        .map(|((&width, &depth), stride)| {
            let cells = ((config.towers.image_aux / stride) as f64).powi(2);
            let (width, kernel) = (width as f64, convnext.kernel as f64);
            depth as f64 * cells * (16.0 * width * width + 2.0 * kernel * kernel * width)
        })
        .sum()
}

/// Floating-point operations of the decoder's layers in a prefill of `new` tokens after `past` cached ones: the
/// last layer computes keys and values for all, the rest for the last token.
fn decoder_flops(llm: &DecoderConfig, past: usize, new: usize) -> f64 {
    let (width, inner) = (llm.hidden_size as f64, llm.intermediate_size as f64);
    let q_width = (llm.num_attention_heads * llm.head_width()) as f64;
    let kv_width = (llm.num_key_value_heads * llm.head_width()) as f64;
    let kv_weights = 2.0 * width * kv_width;
    let weights = 2.0 * width * q_width + 3.0 * width * inner;
    let (past, new) = (past as f64, new as f64);
    let of_keys = |keys: f64| 2.0 * weights + 4.0 * keys * q_width;
    let layers = llm.num_hidden_layers as f64;
    let keys = past + (new + 1.0) / 2.0;
    layers * new * 2.0 * kv_weights + (layers - 1.0) * new * of_keys(keys) + of_keys(past + new)
}

/// The decoder's measurements: prefill of the image's prompt, prefill of a question, decoding.
pub struct DecoderRun<'a> {
    pub llm: &'a Decoder,
    pub encoded: &'a Encoded,
    /// KV-cache dtype.
    pub cache: KvCacheDType,
    /// Bytes of weights that every token reads.
    pub weight_bytes: u64,
    /// Counts the dispatches of this thread.
    pub dispatches: Option<&'a dyn Fn() -> u64>,
}

impl DecoderRun<'_> {
    /// Measures all rows of the decoder.
    ///
    /// # Errors
    /// The device fails.
    pub async fn measure<H: Host>(&self, clock: &mut Clock<'_, H>) -> Result<Token, Fault> {
        let config = self.llm.config();
        let prompt = self.prompt();
        let prompt_tokens = prompt.len() - 1 + self.encoded.features.image.dims()[1];
        let past = prompt_tokens + QUESTION_TOKENS;
        let decoded = DECODED_TOKENS[usize::from(clock.is_software())];
        let mut cache = KvCache::new(config, past + decoded + 1, self.cache, clock.device());

        let prefill = self.prefill_prompt(clock, &prompt, &mut cache).await?;
        let question = self.prefill_question(clock, &mut cache).await?;
        let bytes = self.weight_bytes + kv_bytes(config, self.cache, past);
        let milliseconds = self.decode(clock, &mut cache, bytes, decoded).await?;
        self.sum_first_token(clock, prefill, question);
        let [own_launches, dispatches] = self.count_launches(&mut cache, past).await?;
        Ok(Token {
            past,
            own_launches,
            dispatches: self.dispatches.map(|_| dispatches),
            bytes,
            milliseconds,
            share: None,
        })
    }

    /// A token id for position `i`.
    fn id(&self, i: usize) -> i64 {
        (i * 31 % self.llm.config().vocab_size) as i64
    }

    /// The prompt up to the last box: ids, an image slot, an object slot per box.
    fn prompt(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = (0..TOKENS_BEFORE_IMAGE).map(|i| self.id(i)).collect();
        ids.push(IMAGE_SLOT);
        for index in 0..self.encoded.boxes {
            ids.extend([self.id(index + TOKENS_BEFORE_IMAGE), OBJECT_SLOT]);
        }
        ids
    }

    fn prompt_embeds(&self, prompt: &[i64]) -> Tensor<3> {
        let Encoded {
            features, objects, ..
        } = self.encoded;
        splice(self.llm, prompt, Some(features), Some(objects))
    }

    /// Prefill of image and boxes; `cache` holds them afterwards.
    async fn prefill_prompt<H: Host>(
        &self,
        clock: &mut Clock<'_, H>,
        prompt: &[i64],
        cache: &mut KvCache,
    ) -> Result<Option<f64>, Fault> {
        let tokens = prompt.len() - 1 + self.encoded.features.image.dims()[1];
        let prefill = Case {
            flops: Some(decoder_flops(self.llm.config(), 0, tokens)),
            ..Case::new(
                "decoder",
                "prefill, image and boxes",
                format!("{tokens} tokens"),
            )
        };
        let milliseconds = clock
            .stage(prefill, async || {
                cache.truncate(0);
                wait_for(self.llm.prefill(self.prompt_embeds(prompt), cache)).await
            })
            .await?;
        if milliseconds.is_none() {
            self.llm.prefill(self.prompt_embeds(prompt), cache);
        }
        Ok(milliseconds)
    }

    /// Prefill of a question after what `cache` holds; `cache` holds both afterwards.
    async fn prefill_question<H: Host>(
        &self,
        clock: &mut Clock<'_, H>,
        cache: &mut KvCache,
    ) -> Result<Option<f64>, Fault> {
        let past = cache.len();
        let ids: Vec<i64> = (0..QUESTION_TOKENS).map(|i| self.id(i + 500)).collect();
        let embeds = || splice(self.llm, &ids, None, None);
        let prefill = Case {
            flops: Some(decoder_flops(self.llm.config(), past, QUESTION_TOKENS)),
            ..Case::new(
                "decoder",
                "prefill, question, logits read",
                format!("{QUESTION_TOKENS} tokens after {past}"),
            )
        };
        let milliseconds = clock
            .stage(prefill, async || {
                cache.truncate(past);
                let logits = read("logits", self.llm.prefill(embeds(), cache)).await?;
                check_logits(&logits)?;
                Sampler::greedy().sample(&logits);
                Ok(())
            })
            .await?;
        if milliseconds.is_none() {
            cache.truncate(past);
            self.llm.prefill(embeds(), cache);
        }
        Ok(milliseconds)
    }

    /// Decoding with a readback per token, and with one at the end: the latter's milliseconds per
    /// token.
    async fn decode<H: Host>(
        &self,
        clock: &mut Clock<'_, H>,
        cache: &mut KvCache,
        bytes: u64,
        tokens: usize,
    ) -> Result<Option<f64>, Fault> {
        let past = cache.len();
        let device = clock.device();
        let decode = |name: &str| Case {
            bytes: Some(bytes as f64),
            ..Case::new("decoder", name, format!("1 token after {past}"))
        };
        clock
            .repeated(decode("decode, each token read"), tokens, async |tokens| {
                cache.truncate(past);
                let logits = Tensor::zeros([self.llm.config().vocab_size], device);
                let greedy = SamplingConfig::greedy();
                let mut stream = TokenStream::new(self.llm, cache, logits, greedy, tokens + 1);
                for _ in 0..=tokens {
                    stream.next().await?;
                }
                stream.finish().await;
                Ok(())
            })
            .await?;
        clock
            .repeated(decode("decode, read at the end"), tokens, async |tokens| {
                cache.truncate(past);
                decode_unread(self.llm, cache, tokens, device).await
            })
            .await
    }

    /// Rows of the time to the first token, from the stages before.
    fn sum_first_token<H: Host>(
        &self,
        clock: &mut Clock<'_, H>,
        prefill: Option<f64>,
        question: Option<f64>,
    ) {
        let [image, boxes] = self.encoded.milliseconds;
        if image.is_some() {
            let first = Case::new("decoder", "first token, first question", "towers to logits");
            clock.sum(first, &[image, boxes, prefill, question]);
        }
        let next = Case::new(
            "decoder",
            "first token, next question",
            "question to logits",
        );
        clock.sum(next, &[question]);
    }

    /// Launches of this crate's kernels and dispatches per token: those of two tokens less those of
    /// one, because waiting for the result is in both.
    async fn count_launches(&self, cache: &mut KvCache, past: usize) -> Result<[f64; 2], Fault> {
        let now = || [launched(), self.dispatches.map_or(0, |count| count())];
        let device = self.encoded.objects.device();
        let mut counts = [[0; 2]; 2];
        for (more, counts) in counts.iter_mut().enumerate() {
            cache.truncate(past);
            let before = now();
            if self.llm.can_advance(cache) {
                let sampler = start_answer(self.llm, cache, 2, &device);
                (0..=more).for_each(|_| self.llm.advance(&sampler, cache));
                wait_for(sampler.output_ids().float()).await?;
            } else {
                decode_unread(self.llm, cache, more + 1, &device).await?;
            }
            let after = now();
            *counts = [after[0] - before[0], after[1] - before[1]];
        }
        Ok([0, 1].map(|kind| counts[1][kind] as f64 - counts[0][kind] as f64))
    }
}

/// A GPU sampler for an answer of up to `limit` tokens after what `cache` holds, with its first token
/// sampled.
fn start_answer(llm: &Decoder, cache: &KvCache, limit: usize, device: &Device) -> GpuSampler {
    let vocab_size = llm.config().vocab_size;
    let greedy = SamplingConfig::greedy();
    let sampler = GpuSampler::new(vocab_size, greedy, limit, cache.len(), device);
    sampler.sample(Tensor::zeros([vocab_size], device));
    sampler
}

/// Decodes `tokens` tokens with one readback at the end. Where the GPU samples, all but the first are
/// replayed from a captured graph.
async fn decode_unread(
    llm: &Decoder,
    cache: &mut KvCache,
    tokens: usize,
    device: &Device,
) -> Result<(), Fault> {
    if !llm.can_advance(cache) {
        let vocab_size = llm.config().vocab_size;
        let logits = (0..tokens).map(|token| llm.step((token % vocab_size) as u32, cache));
        return match logits.last() {
            Some(logits) => wait_for(logits).await,
            None => Ok(()),
        };
    }
    let sampler = start_answer(llm, cache, tokens + 1, device);
    cache.grow();
    let graph = CapturedGraph::of(device, || llm.launch(&sampler, cache)).await;
    for _ in 1..tokens {
        cache.grow();
        match &graph {
            Some(graph) => graph.replay()?,
            None => llm.launch(&sampler, cache),
        }
    }
    wait_for(sampler.output_ids().float()).await
}

/// Fails if logits are not finite or all equal: a device that skips work looks fast.
fn check_logits(logits: &[f32]) -> Result<(), Fault> {
    let finite = logits.iter().all(|v| v.is_finite());
    if finite && logits.iter().any(|v| *v != logits[0]) {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Device,
        "bench",
        "the logits are not finite, or all equal",
        "Update the graphics driver, or use another device",
    ))
}

/// Bytes of keys and values that a token after `past` others reads.
fn kv_bytes(config: &DecoderConfig, dtype: KvCacheDType, past: usize) -> u64 {
    let row = config.num_key_value_heads * config.head_width();
    (2 * dtype.bytes() * config.num_hidden_layers * row * past) as u64
}
