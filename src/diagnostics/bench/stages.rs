//! Rows of whole stages, from a picture to the words of a further question.

use burn::tensor::{Device, Tensor};

use super::clock::{Case, Clock, settle};
use super::report::Token;
use crate::engine::token_stream::TokenStream;
use crate::engine::{Host, planar};
use crate::error::{Fault, FaultKind};
use crate::generate::sampling::Sampler;
use crate::geometry::BoxXyxy;
use crate::geometry::Granularity;
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
use crate::text::prompt::{IMAGE_SLOT, OBJECT_SLOT};

/// Words before the picture, by the template.
const WORDS_BEFORE: usize = 24;

/// Words of a question and of what comes after it by the template.
const WORDS_AFTER: usize = 20;

/// Tokens that are decoded in a timed block; fewer where each takes long.
const DECODED: [usize; 2] = [32, 8];

fn case(group: &'static str, name: &str, shape: impl Into<String>) -> Case {
    Case {
        group,
        name: name.into(),
        shape: shape.into(),
        ..Case::default()
    }
}

/// The proposal network on a prepared picture.
///
/// # Errors
/// The device fails.
pub async fn upn<H: Host>(clock: &mut Clock<'_, H>, upn: &Upn, image: Planar) -> Result<(), Fault> {
    let mask = PaddingMask::none(1, image.height, image.width);
    let sizes = format!("{} x {}", image.width, image.height);
    let pixels = planar(image, clock.device());
    let mut memory = None;
    clock
        .stage(case("upn", "backbone and encoder", sizes), async || {
            let encoded = upn.encode(pixels.clone(), &mask)?;
            settle(encoded.candidates.clone()).await?;
            memory = Some(encoded);
            Ok(())
        })
        .await?;
    let Some(memory) = memory else { return Ok(()) };
    let queries = format!("{} queries", upn.config().num_queries);
    clock
        .stage(case("upn", "decoder, boxes read", queries), async || {
            let found = upn.propose(&memory, Granularity::Coarse).await?;
            read("the boxes", found.boxes).await?;
            read("the scores", found.logits).await?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// What the towers are measured with.
pub struct Setting<'a> {
    pub chatrex: &'a ChatRexConfig,
    pub pixels: &'a Pixels,
    pub boxes: usize,
    /// Whether they are measured; they look in either case.
    pub measured: bool,
}

/// A picture and its boxes as the language model reads them, and the milliseconds they took.
pub struct Looked {
    seen: ImageFeatures,
    objects: Tensor<2>,
    boxes: usize,
    milliseconds: [Option<f64>; 2],
}

/// Both towers, one by one and together, and the boxes.
///
/// # Errors
/// The device fails.
pub async fn towers<H: Host>(
    clock: &mut Clock<'_, H>,
    towers: &Towers,
    setting: Setting<'_>,
) -> Result<Looked, Fault> {
    let Setting {
        chatrex,
        pixels,
        boxes: count,
        measured,
    } = setting;
    let recipe = chatrex.recipe();
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
        let sides = [chatrex.image_low, chatrex.image_aux].map(|side| format!("{side} x {side}"));
        let clip = Case {
            flops: Some(clip_flops(chatrex)),
            ..case("towers", "CLIP", &*sides[0])
        };
        clock
            .stage(clip, async || {
                settle(towers.clip().forward(low.clone())).await
            })
            .await?;
        let convnext = Case {
            flops: Some(convnext_flops(chatrex)),
            ..case("towers", "ConvNeXt", &*sides[1])
        };
        clock
            .stage(convnext, async || {
                let levels = towers.convnext().forward(high.clone());
                let last = levels.into_iter().last().expect("ConvNeXt has stages");
                settle(last).await
            })
            .await?;
        let both = Case {
            flops: Some(clip_flops(chatrex) + convnext_flops(chatrex)),
            ..case("towers", "both and projector", sides.join(", "))
        };
        milliseconds[0] = clock
            .stage(both, async || {
                settle(towers.encode_image(low.clone(), high.clone()).image).await
            })
            .await?;
    }
    let seen = towers.encode_image(low.clone(), high.clone());
    let objects = towers.encode_boxes(&seen, &placed);
    settle(objects.clone()).await?;
    if measured {
        let all = case(
            "towers",
            "RoI pooling and projector",
            format!("{count} boxes"),
        );
        milliseconds[1] = clock
            .stage(all, async || {
                settle(towers.encode_boxes(&seen, &placed)).await
            })
            .await?;
    }
    Ok(Looked {
        seen,
        objects,
        boxes: count,
        milliseconds,
    })
}

/// Operations of CLIP's blocks on one picture.
fn clip_flops(config: &ChatRexConfig) -> f64 {
    let clip = &config.clip;
    let tokens = (config.visual_tokens() + 1) as f64;
    let (width, inner) = (clip.hidden_size as f64, clip.intermediate_size as f64);
    let weights = 4.0 * width * width + 2.0 * width * inner;
    clip.used_layers() as f64 * (2.0 * tokens * weights + 4.0 * tokens * tokens * width)
}

/// Operations of ConvNeXt's blocks on one picture.
fn convnext_flops(config: &ChatRexConfig) -> f64 {
    let trunk = &config.convnext;
    let stages = trunk.dims.iter().zip(&trunk.depths).zip(trunk.strides());
    stages
        .map(|((&width, &depth), stride)| {
            let cells = ((config.image_aux / stride) as f64).powi(2);
            let (width, kernel) = (width as f64, trunk.kernel as f64);
            depth as f64 * cells * (16.0 * width * width + 2.0 * kernel * kernel * width)
        })
        .sum()
}

/// Operations of the language model's blocks on `new` tokens after `past` others.
fn decoder_flops(llm: &DecoderConfig, past: usize, new: usize) -> f64 {
    let (width, inner) = (llm.hidden_size as f64, llm.intermediate_size as f64);
    let queries = (llm.num_attention_heads * llm.head_width()) as f64;
    let keys = (llm.num_key_value_heads * llm.head_width()) as f64;
    let weights = 2.0 * width * (queries + keys) + 3.0 * width * inner;
    let seen = past as f64 + (new as f64 + 1.0) / 2.0;
    llm.num_hidden_layers as f64 * new as f64 * (2.0 * weights + 4.0 * seen * queries)
}

/// The language model: the picture's turn, a further question, tokens one by one, with keys and
/// values held in `form`. `weights` are the bytes a token needs, `dispatches` counts those of this thread.
///
/// # Errors
/// The device fails.
pub async fn decoder<H: Host>(
    clock: &mut Clock<'_, H>,
    llm: &Decoder,
    looked: &Looked,
    form: KvCacheDType,
    weights: u64,
    dispatches: Option<&dyn Fn() -> u64>,
) -> Result<Token, Fault> {
    let config = llm.config();
    let word = |i: usize| (i * 31 % config.vocab_size) as i64;
    let mut prefix: Vec<i64> = (0..WORDS_BEFORE).map(word).collect();
    prefix.push(IMAGE_SLOT);
    for number in 0..looked.boxes {
        prefix.extend([word(number + WORDS_BEFORE), OBJECT_SLOT]);
    }
    let question: Vec<i64> = (0..WORDS_AFTER).map(|i| word(i + 500)).collect();
    let tokens = prefix.len() - 1 + looked.seen.image.dims()[1];
    let past = tokens + WORDS_AFTER;
    let decoded = DECODED[usize::from(clock.is_software())];
    let device = clock.device().clone();
    let mut cache = KvCache::new(config, past + decoded + 1, form, &device);

    let turn = Case {
        flops: Some(decoder_flops(config, 0, tokens)),
        ..case(
            "decoder",
            "prefill, picture and boxes",
            format!("{tokens} tokens"),
        )
    };
    let prefill = clock
        .stage(turn, async || {
            cache.truncate(0);
            let embeds = splice(llm, &prefix, Some(&looked.seen), Some(&looked.objects));
            settle(llm.prefill(embeds, &mut cache)).await
        })
        .await?;
    if prefill.is_none() {
        let embeds = splice(llm, &prefix, Some(&looked.seen), Some(&looked.objects));
        llm.prefill(embeds, &mut cache);
    }
    let after = format!("{WORDS_AFTER} tokens after {tokens}");
    let words = Case {
        flops: Some(decoder_flops(config, tokens, WORDS_AFTER)),
        ..case("decoder", "prefill, words, logits read", after)
    };
    let words = clock
        .stage(words, async || {
            cache.truncate(tokens);
            let embeds = splice(llm, &question, None, None);
            let logits = read("the logits", llm.prefill(embeds, &mut cache)).await?;
            finite(&logits)?;
            Sampler::greedy().sample(&logits);
            Ok(())
        })
        .await?;
    if words.is_none() {
        cache.truncate(tokens);
        llm.prefill(splice(llm, &question, None, None), &mut cache);
    }
    let shape = format!("1 token after {past}");
    let bytes = weights + token_keys(config, form, past);
    let one = |name: &str| Case {
        bytes: Some(bytes as f64),
        ..case("decoder", name, &*shape)
    };
    clock
        .repeated(one("decode, each token read"), decoded, async |times| {
            cache.truncate(past);
            let logits = Tensor::zeros([config.vocab_size], &device);
            let mut saying =
                TokenStream::new(llm, &mut cache, logits, SamplingConfig::greedy(), times + 1);
            for _ in 0..=times {
                saying.next().await?;
            }
            saying.finish().await;
            Ok(())
        })
        .await?;
    let steady = clock
        .repeated(one("decode, read at the end"), decoded, async |times| {
            cache.truncate(past);
            steps(llm, &mut cache, times, &device).await
        })
        .await?;
    let [look, objects] = looked.milliseconds;
    if look.is_some() {
        let parts = [look, objects, prefill, words];
        let sum = case("decoder", "first word, first question", "towers to logits");
        clock.sum(sum, &parts);
    }
    clock.sum(
        case("decoder", "first word, next question", "words to logits"),
        &[words],
    );

    // Two tokens less one: what settling takes is in both.
    let mut counts = [[0; 2]; 2];
    for (more, counts) in counts.iter_mut().enumerate() {
        cache.truncate(past);
        let now = || [launched(), dispatches.map_or(0, |count| count())];
        let before = now();
        if llm.can_advance(&cache) {
            let sampler = first(llm, &cache, 2, &device);
            (0..=more).for_each(|_| llm.advance(&sampler, &mut cache));
            settle(sampler.output_ids().float()).await?;
        } else {
            steps(llm, &mut cache, more + 1, &device).await?;
        }
        let after = now();
        *counts = [after[0] - before[0], after[1] - before[1]];
    }
    let each = |kind: usize| counts[1][kind] as f64 - counts[0][kind] as f64;
    Ok(Token {
        past,
        own_launches: each(0),
        dispatches: dispatches.map(|_| each(1)),
        bytes,
        milliseconds: steady,
        share: None,
    })
}

/// An answer of up to `limit` tokens after what `cache` holds, with its first token.
fn first(llm: &Decoder, cache: &KvCache, limit: usize, device: &Device) -> GpuSampler {
    let vocabulary = llm.config().vocab_size;
    let sampler = GpuSampler::new(
        vocabulary,
        SamplingConfig::greedy(),
        limit,
        cache.len(),
        device,
    );
    sampler.sample(Tensor::zeros([vocabulary], device));
    sampler
}

/// `times` tokens, each after the one before, chosen on the device where it can, all but the first
/// from a recording; one read at the end.
async fn steps(
    llm: &Decoder,
    cache: &mut KvCache,
    times: usize,
    device: &Device,
) -> Result<(), Fault> {
    if !llm.can_advance(cache) {
        let vocabulary = llm.config().vocab_size;
        let logits = (0..times).map(|token| llm.step((token % vocabulary) as u32, cache));
        return match logits.last() {
            Some(logits) => settle(logits).await,
            None => Ok(()),
        };
    }
    let sampler = first(llm, cache, times + 1, device);
    cache.grow();
    let recording = CapturedGraph::of(device, || llm.launch(&sampler, cache)).await;
    for _ in 1..times {
        cache.grow();
        match &recording {
            Some(recording) => recording.replay()?,
            None => llm.launch(&sampler, cache),
        }
    }
    settle(sampler.output_ids().float()).await
}

/// Work that is not done is the fastest of all: logits must be numbers, and not all alike.
fn finite(logits: &[f32]) -> Result<(), Fault> {
    let good = logits.iter().all(|v| v.is_finite()) && logits.iter().any(|v| *v != logits[0]);
    if good {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Device,
        "bench",
        "the logits are not numbers, or all alike",
        "Update the graphics driver, or use another device",
    ))
}

/// Bytes of keys and values that a token after `past` others looks at.
fn token_keys(config: &DecoderConfig, form: KvCacheDType, past: usize) -> u64 {
    let row = config.num_key_value_heads * config.head_width();
    (2 * form.bytes() * config.num_hidden_layers * row * past) as u64
}
