//! The language model and the whole ChatRex: `qwen2_tied`, `qwen2_untied`, `llama_untied`,
//! `rexseek`.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use super::picture::recorded_pixels;
use super::words::read_tokenizer;
use super::{Array, Computed, Fixture};
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

/// A decoder over recorded embeddings: all logits at once, a greedy continuation through the
/// cache, and a batch of ids padded at the right.
pub(super) async fn decoder(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    let config: DecoderConfig = fixture.config_as()?;
    let weights = fixture.weights()?;
    let decoder = Decoder::load(&Loader::new(&weights, device), &config)?;
    weights.finish(unread_head(&config))?;

    let mut computed = Computed::new();
    let embeds: Tensor<3> = fixture.tensor("in.inputs_embeds", device)?;
    let layout = Layout::causal(embeds.dims()[1], &config, device);
    let hidden = decoder.forward(embeds.clone(), &layout);
    computed.put("out.logits", decoder.logits(hidden)).await?;
    let steps: usize = fixture.config_at("/new_tokens")?;
    let continuation = continuation(&decoder, embeds, steps, fixture.cache).await?;
    computed.put_array("out.generated_ids", continuation.ids());
    computed.put_array("out.step_logits", continuation.logits());

    if fixture.has("batch.in.input_ids") {
        let ids = fixture.array("batch.in.input_ids")?;
        let mask = fixture.array("batch.in.attention_mask")?.i64();
        let length = ids.shape[1];
        let all: Vec<u32> = ids.values.iter().map(|&id| id as u32).collect();
        let embeds = decoder
            .embed(&all)
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

/// From pixels, boxes and a question to an answer's tokens, with boxes in f32 and rounded to f16.
pub(super) async fn rexseek(fixture: &Fixture, device: &Device) -> Result<Computed, Fault> {
    const TOWER: &str = "vision_tower.vision_tower.vision_model";
    let config: ChatRexConfig = fixture.config_as()?;
    let weights = fixture.weights()?;
    let model = ChatRex::load(&Loader::new(&weights, device), &config)?;
    let unread: Vec<String> = config
        .clip
        .unused_names()
        .into_iter()
        .flat_map(|name| [format!("{TOWER}.{name}"), format!("{TOWER}.{name}.*")])
        .collect();
    let unread: Vec<&str> = unread.iter().map(String::as_str).collect();
    weights.finish(&[&unread, unread_head(&config.llm)].concat())?;

    let pixels = recorded_pixels(fixture, "in.raw_u8")?;
    let recipe = config.recipe();
    let (high, low) = recipe.prepare(&pixels);
    let seen = model
        .towers
        .encode_image(on_device(low, device), on_device(high, device));
    let mut computed = Computed::new();
    computed
        .put("mid.image_features", seen.image.clone())
        .await?;
    for (level, features) in seen.pyramid.iter().enumerate() {
        computed
            .put(format!("mid.aux_level{level}"), features.clone())
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

    let steps: usize = fixture.config_at("/max_new_tokens")?;
    for (half_boxes, suffix) in [(false, ""), (true, "_fp16_boxes")] {
        let recipe = SquareRecipe {
            half_boxes,
            ..recipe.clone()
        };
        let boxes: Vec<BoxXyxy> = corners
            .iter()
            .map(|&corners| recipe.box_to_high(pixels.width, pixels.height, corners))
            .collect();
        let objects = model.towers.encode_boxes(&seen, &boxes);
        let embeds = splice(&model.llm, &ids, Some(&seen), Some(&objects));
        let continuation = continuation(&model.llm, embeds.clone(), steps, fixture.cache).await?;
        computed
            .put(format!("mid.object_features{suffix}"), objects)
            .await?;
        computed.put_array(format!("out.generated_ids{suffix}"), continuation.ids());
        if !half_boxes {
            computed.put("mid.inputs_embeds", embeds).await?;
            computed.put_array("out.prompt_logits_last", continuation.first_logits());
            computed.put_array("out.step_logits", continuation.logits());
        }
    }
    Ok(computed)
}

/// A tied decoder reads no head; where a file holds one all the same, the embedding wins
/// (`chatrex.md` 9.4).
fn unread_head(config: &DecoderConfig) -> &'static [&'static str] {
    if config.tie_word_embeddings {
        &["lm_head.weight"]
    } else {
        &[]
    }
}

/// The tokenizer that `config.json` names by its path from the golden folder.
fn tokenizer_of(fixture: &Fixture) -> Result<crate::text::tokenizer::Tokenizer, Fault> {
    let path = fixture.config().get("tokenizer").and_then(Value::as_str);
    let (folder, file) = path
        .and_then(|path| path.split_once('/'))
        .unwrap_or(("tokenizer", "tokenizer.json"));
    read_tokenizer(fixture, &fixture.beside(folder, file))
}

fn on_device(planar: Planar, device: &Device) -> Tensor<4> {
    let shape = [1, 3, planar.height, planar.width];
    Tensor::from_data(TensorData::new(planar.values, shape), device)
}

/// Greedy tokens and the logits each was chosen from.
struct Continuation {
    ids: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

impl Continuation {
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

/// `steps` greedy tokens after `embeds` `[1, T, D]`, none of which ends the answer; keys and values are
/// held in the form `cache`.
async fn continuation(
    decoder: &Decoder,
    embeds: Tensor<3>,
    steps: usize,
    cache: KvCacheDType,
) -> Result<Continuation, Fault> {
    let capacity = embeds.dims()[1] + steps;
    let mut cache = KvCache::new(decoder.config(), capacity, cache, &embeds.device());
    let mut sampler = Sampler::greedy();
    let mut next = decoder.prefill(embeds, &mut cache);
    let mut continuation = Continuation {
        ids: Vec::new(),
        logits: Vec::new(),
    };
    for step in 1..=steps {
        let logits = read("the logits", next.clone()).await?;
        let id = sampler.sample(&logits);
        continuation.ids.push(id);
        continuation.logits.push(logits);
        if step < steps {
            next = decoder.step(id, &mut cache);
        }
    }
    Ok(continuation)
}
