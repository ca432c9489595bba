//! The decoder and the whole model: `qwen2_tied`, `qwen2_untied`, `llama_untied`, `rexseek`.

use burn::tensor::{Device, Tensor, TensorData};

use super::fixture::{Array, Computed, Fixture};
use super::image::recorded_pixels;
use super::text::tokenizer_of;
use crate::error::Fault;
use crate::generate::sampling::Sampler;
use crate::geometry::BoxXyxy;
use crate::gpu::readback::read;
use crate::image::prepare::{Planar, SquareRecipe};
use crate::memory::KvCacheDType;
use crate::model::chatrex::{ChatRex, ChatRexConfig, splice};
use crate::model::decoder::{Decoder, DecoderConfig, KvCache, Layout};
use crate::nn::Loader;
use crate::text::prompt::{ChatTemplate, user_turn};

/// A decoder on recorded embeddings: all logits of a forward pass, greedy decoding with the KV cache,
/// and a batch of ids padded on the right.
pub(super) async fn decoder(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let config: DecoderConfig = fixture.config_as()?;
    let weights = fixture.weights()?;
    let decoder = Decoder::load(&Loader::new(&weights, device), &config)?;
    weights.finish(ignored_head(&config))?;

    let mut computed = Computed::new();
    let embeds: Tensor<3> = fixture.tensor("in.inputs_embeds", device)?;
    let layout = Layout::causal(embeds.dims()[1], &config, device);
    let hidden = decoder.forward(embeds.clone(), &layout);
    computed.put("out.logits", decoder.logits(hidden)).await?;
    let tokens: usize = fixture.config_at("/new_tokens")?;
    let generated = generate(&decoder, embeds, tokens, fixture.cache).await?;
    computed.put_array("out.generated_ids", generated.ids());
    computed.put_array("out.step_logits", generated.logits());

    if fixture.has("batch.in.input_ids") {
        let ids = fixture.array("batch.in.input_ids")?;
        let mask = fixture.array("batch.in.attention_mask")?.i64();
        let length = ids.shape[1];
        let flat_ids: Vec<u32> = ids.values.iter().map(|&id| id as u32).collect();
        let embeds = decoder
            .embed(&flat_ids)
            .reshape([ids.shape[0], length, config.hidden_size]);
        let layout = Layout::causal(length, &config, device);
        let logits = decoder.logits(decoder.forward(embeds, &layout));
        for (row, mask) in mask.chunks_exact(length).enumerate() {
            let valid = mask.iter().filter(|&&mask| mask != 0).count();
            let logits: Tensor<2> = logits.clone().narrow(0, row, 1).squeeze_dim(0);
            let key = format!("batch.out.logits_row{row}");
            computed
                .put(format!("{key}_valid"), logits.clone().narrow(0, 0, valid))
                .await?;
            computed.put(key, logits).await?;
        }
    }
    Ok(computed)
}

/// From pixels, boxes and a question to the tokens of an answer, with boxes in f32 and in f16.
pub(super) async fn rexseek(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    const TOWER: &str = "vision_tower.vision_tower.vision_model";
    let config: ChatRexConfig = fixture.config_as()?;
    let weights = fixture.weights()?;
    let model = ChatRex::load(&Loader::new(&weights, device), &config)?;
    let unused: Vec<String> = config
        .towers
        .clip
        .unused_names()
        .into_iter()
        .flat_map(|name| [format!("{TOWER}.{name}"), format!("{TOWER}.{name}.*")])
        .collect();
    let unused: Vec<&str> = unused.iter().map(String::as_str).collect();
    weights.finish(&[&unused, ignored_head(&config.llm)].concat())?;

    let pixels = recorded_pixels(fixture, "in.raw_u8")?;
    let recipe = config.towers.recipe();
    let (high, low) = recipe.prepare(&pixels);
    let features = model
        .towers
        .encode_image(on_device(low, device), on_device(high, device));
    let mut computed = Computed::new();
    computed
        .put("mid.image_features", features.image.clone())
        .await?;
    for (level, map) in features.pyramid.iter().enumerate() {
        computed
            .put(format!("mid.aux_level{level}"), map.clone())
            .await?;
    }

    let corners = fixture.array("in.boxes_xyxy")?;
    let corners = corners.values.as_chunks::<4>().0;
    let template = ChatTemplate {
        turn: fixture
            .config_at::<String>("/template/INSTRUCTION")?
            .replace("{input}", "{user}"),
        ..ChatTemplate::qwen()
    };
    let question: String = fixture.config_at("/question")?;
    let prompt = template.first(&user_turn(corners.len(), &question)?);
    let ids = tokenizer_of(fixture)?.encode(&prompt);
    computed.put_array(
        "in.input_ids",
        Array::new(&[1, ids.len()], ids.iter().map(|&id| id as f64)),
    );

    let tokens: usize = fixture.config_at("/max_new_tokens")?;
    for (half_boxes, suffix) in [(false, ""), (true, "_fp16_boxes")] {
        let recipe = SquareRecipe {
            half_boxes,
            ..recipe.clone()
        };
        let boxes: Vec<BoxXyxy> = corners
            .iter()
            .map(|&corners| recipe.box_to_high(pixels.width, pixels.height, corners))
            .collect();
        let objects = model.towers.encode_boxes(&features, &boxes);
        let embeds = splice(&model.llm, &ids, Some(&features), Some(&objects));
        let generated = generate(&model.llm, embeds.clone(), tokens, fixture.cache).await?;
        computed
            .put(format!("mid.object_features{suffix}"), objects)
            .await?;
        computed.put_array(format!("out.generated_ids{suffix}"), generated.ids());
        if !half_boxes {
            computed.put("mid.inputs_embeds", embeds).await?;
            computed.put_array("out.prompt_logits_last", generated.first_logits());
            computed.put_array("out.step_logits", generated.logits());
        }
    }
    Ok(computed)
}

/// The head of a decoder with tied embeddings: it is not loaded, even if the file has one.
fn ignored_head(config: &DecoderConfig) -> &'static [&'static str] {
    if config.tie_word_embeddings {
        &["lm_head.weight"]
    } else {
        &[]
    }
}

fn on_device(planar: Planar, device: &Device) -> Tensor<4> {
    let shape = [1, 3, planar.height, planar.width];
    Tensor::from_data(TensorData::new(planar.values, shape), device)
}

/// Greedily decoded tokens and the logits of each.
struct Generated {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

impl Generated {
    fn ids(&self) -> Array {
        Array::integers(self.ids.iter().copied().map(i64::from))
    }

    fn logits(&self) -> Array {
        let width = self.logits.first().map_or(0, Vec::len);
        let values = self.logits.iter().flatten().copied();
        Array::new(&[self.logits.len(), width], values)
    }

    fn first_logits(&self) -> Array {
        let first = self.logits.first().cloned().unwrap_or_default();
        Array::new(&[1, first.len()], first)
    }
}

/// Decodes `tokens` tokens greedily after `embeds` `[1, T, D]`, with a KV cache of dtype `cache`. No
/// token ends the answer.
async fn generate(
    decoder: &Decoder,
    embeds: Tensor<3>,
    tokens: usize,
    cache: KvCacheDType,
) -> Result<Generated, Fault> {
    let capacity = embeds.dims()[1] + tokens;
    let mut cache = KvCache::new(decoder.config(), capacity, cache, &embeds.device());
    let mut sampler = Sampler::greedy();
    let mut next = decoder.prefill(embeds, &mut cache);
    let mut generated = Generated {
        ids: Vec::new(),
        logits: Vec::new(),
    };
    for step in 1..=tokens {
        let logits = read("logits", next.clone()).await?;
        let id = sampler.sample(&logits);
        generated.ids.push(id);
        generated.logits.push(logits);
        if step < tokens {
            next = decoder.step(id, &mut cache);
        }
    }
    Ok(generated)
}
