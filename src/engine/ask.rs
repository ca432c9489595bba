//! [`Request::Ask`](crate::protocol::Request::Ask): answers a question about the current picture.
//!
//! 1. [`encode_prompt`]: template and tokenizer make token ids of the question.
//! 2. [`ensure_prefix`]: picture and boxes are prefilled into the KV cache, unless they are there;
//!    [`ensure_text_cache`] for a model that reads text alone.
//! 3. [`generate`]: the question is prefilled and the answer decoded token by token.
//! 4. [`finish`]: text, spans and durations become an [`Answer`], which is sent.

use std::borrow::Cow;

use burn::tensor::{Device, Tensor};

use super::look::ensure_detected;
use super::memory_plan::{MAX_REQUEST_TOKENS, MAX_SYSTEM_TOKENS, MAX_TURN_TOKENS};
use super::token_stream::TokenStream;
use super::{Engine, Host, LastAnswer, LoadedModel, Picture, Prefix, current, no_model, planar};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::stop::{Ending, Stop};
use crate::geometry::{BoxXyxy, TOO_FAR, first_far_box};
use crate::gpu::device::allocated;
use crate::image::prepare::SquareRecipe;
use crate::model::chatrex::splice;
use crate::model::class_projector::{ClassProjector, ScoredBoxes};
use crate::model::config::TowersConfig;
use crate::model::decoder::KvCache;
use crate::model::dense_predictions::DensePredictions;
use crate::progress::{Progress, Stage};
use crate::protocol::{Answer, AskTime, Event, PictureId, Question, StopReason, TurnId};
use crate::text::answer_parser::AnswerParser;
use crate::text::prompt::{ChatTemplate, IMAGE_SLOT, OBJECT_SLOT, check_question};

/// Places that a new KV cache has for a question and its answer, at least: shorter questions that
/// follow need no new cache.
const MIN_TURN_CAPACITY: usize = 512;

impl<H: Host> Engine<H> {
    pub(super) async fn ask(
        &mut self,
        turn: TurnId,
        id: PictureId,
        question: Question,
    ) -> Result<(), Fault> {
        question.sampling.check()?;
        let host = &self.host;
        let model = self.model.as_mut().ok_or_else(no_model)?;
        // A model without towers needs no picture.
        let picture = match model.config.towers {
            Some(_) => Some(current(&mut self.picture, id)?),
            None => None,
        };
        let mut meter = Meter::start(host);
        let prompt = encode_prompt(model, &question)?;
        let prefix = if let Some(picture) = picture {
            ensure_prefix(model, picture, &question, &prompt, &mut meter).await?;
            &mut picture.prefix
        } else {
            ensure_text_cache(model, &mut self.text, &question, &prompt, &mut meter).await?;
            &mut self.text
        };
        let prefix = prefix.as_mut().expect("ensured above");
        let generated = generate(turn, model, prefix, &question, &prompt, &mut meter).await?;
        let question_ids = prompt.question_ids.iter().map(|&id| id as u32);
        prefix.last = Some(LastAnswer {
            turn,
            ids: question_ids.chain(generated.ids.iter().copied()).collect(),
            question: prompt.question_ids.len(),
        });
        let gpu_bytes = allocated(&model.device);
        let answer = finish(prompt, generated, gpu_bytes, meter);
        host.emit(Event::Done { turn, answer });
        Ok(())
    }
}

/// A prompt as text and as token ids.
struct Prompt {
    text: String,
    /// Up to and including the last image or object slot; empty without slots.
    prefix_ids: Vec<i64>,
    /// After the last slot: the question and the beginning of the answer. Never empty.
    question_ids: Vec<i64>,
    /// Tokens of the question without earlier turns.
    question_tokens: usize,
}

impl Prompt {
    /// Tokens of the question and of an answer of `max_tokens`.
    fn turn_tokens(&self, max_tokens: u32) -> usize {
        self.question_ids.len() + max_tokens as usize
    }
}

/// The chat template with other words of the system prompt.
fn system_template(model: &LoadedModel, words: &str) -> Result<ChatTemplate, Fault> {
    let fault = |what: String, advice: &str| {
        Err(Fault::new(
            FaultKind::Question,
            "system prompt",
            what,
            advice,
        ))
    };
    if !words.trim().is_empty() {
        model.tokenizer.check_words(words)?;
        check_question(words, 0)?;
    }
    let tokens = model.tokenizer.encode(words).len();
    if tokens > MAX_SYSTEM_TOKENS {
        let what = format!("has {tokens} tokens; there is room for {MAX_SYSTEM_TOKENS}");
        return fault(what, "Shorten it");
    }
    Ok(model.config.template.with_system(words))
}

/// The prompt of a question and its earlier turns.
fn prompt_text(model: &LoadedModel, question: &Question) -> Result<String, Fault> {
    let boxes = question.boxes.len();
    let earlier = &question.earlier;
    let texts = earlier.iter().flat_map(|e| [&e.question, &e.answer]);
    for text in texts.chain([&question.text]) {
        model.tokenizer.check_words(text)?;
    }
    let mut questions = earlier.iter().map(|e| &e.question).chain([&question.text]);
    let first = questions.next().expect("there is at least the question");
    let template = match &question.system {
        None => Cow::Borrowed(&model.config.template),
        Some(words) => Cow::Owned(system_template(model, words)?),
    };
    let mut text = template.first(&model.config.user_turn(boxes, first)?);
    for (earlier, next) in earlier.iter().zip(questions) {
        check_question(next, boxes)?;
        text.push_str(&earlier.answer);
        text.push_str(&template.next(next));
    }
    Ok(text)
}

/// Makes the prompt and checks that the question fits into [`MAX_TURN_TOKENS`], with earlier turns and answer
/// into [`MAX_REQUEST_TOKENS`].
fn encode_prompt(model: &LoadedModel, question: &Question) -> Result<Prompt, Fault> {
    let text = prompt_text(model, question)?;
    let mut prefix_ids = model.tokenizer.encode(&text);
    let last_slot = prefix_ids
        .iter()
        .rposition(|&id| id == IMAGE_SLOT || id == OBJECT_SLOT);
    let question_ids = prefix_ids.split_off(last_slot.map_or(0, |slot| slot + 1));
    if question_ids.is_empty() {
        return Err(Fault::new(
            FaultKind::Question,
            "question",
            "has no token that the model knows",
            "Ask in other words",
        ));
    }
    let question_tokens = match question.earlier.is_empty() {
        true => question_ids.len(),
        false => {
            let last = model.config.template.next(&question.text);
            model.tokenizer.encode(&last).len()
        }
    };
    let prompt = Prompt {
        text,
        prefix_ids,
        question_ids,
        question_tokens,
    };
    let (tokens, answer) = (prompt.question_ids.len(), question.max_tokens);
    let room = match question.earlier.is_empty() {
        true => MAX_TURN_TOKENS as usize,
        false => MAX_REQUEST_TOKENS,
    };
    if tokens >= room || prompt.turn_tokens(answer) > MAX_REQUEST_TOKENS {
        return Err(Fault::new(
            FaultKind::Question,
            "question",
            format!(
                "has {tokens} tokens, plus {answer} for the answer; there is room for {room}, and for \
                 {MAX_REQUEST_TOKENS} in all"
            ),
            "Ask a shorter question, or for a shorter answer",
        ));
    }
    Ok(prompt)
}

/// Prefills picture and boxes, unless the picture has a KV cache of them with room for this turn.
async fn ensure_prefix(
    model: &mut LoadedModel,
    picture: &mut Picture,
    question: &Question,
    prompt: &Prompt,
    meter: &mut Meter<'_, impl Host>,
) -> Result<(), Fault> {
    let turn_tokens = prompt.turn_tokens(question.max_tokens);
    if reusable(
        picture.prefix.as_ref(),
        question,
        &question.boxes,
        turn_tokens,
    ) {
        return Ok(());
    }
    let host = meter.host;
    let objects = object_tokens(model, picture, &question.boxes, meter).await?;
    let dtype = model.cache;
    let device = model.device.clone();
    let llm = model.llm(host).await?;
    let features = picture.features.as_ref();
    let embeds = (!prompt.prefix_ids.is_empty())
        .then(|| splice(llm, &prompt.prefix_ids, features, objects.as_ref()));
    let tokens = embeds.as_ref().map_or(0, |embeds| embeds.dims()[1]);
    meter.prefix_encoded(tokens, tokens + prompt.question_ids.len());
    host.yield_now().await;
    let capacity = tokens + turn_tokens.max(MIN_TURN_CAPACITY);
    let mut cache = KvCache::new(llm.config(), capacity, dtype, &device);
    if let Some(embeds) = embeds {
        llm.prefill(embeds, &mut cache);
    }
    picture.prefix = Some(Prefix {
        boxes: question.boxes.clone(),
        system: question.system.clone(),
        cache,
        tokens,
        last: None,
    });
    Ok(())
}

/// The object tokens of `boxes`, `[N, D]`; `None` without boxes, or if the model sees none. Encodes the
/// picture if necessary.
pub(super) async fn object_tokens(
    model: &mut LoadedModel,
    picture: &mut Picture,
    boxes: &[BoxXyxy],
    meter: &mut Meter<'_, impl Host>,
) -> Result<Option<Tensor<2>>, Fault> {
    if let Some(index) = first_far_box(boxes) {
        let place = format!("box {index}");
        let advice = "Give boxes in pixels of the picture";
        return Err(
            Fault::new(FaultKind::Question, place, TOO_FAR, advice).code(ErrorCode::InvalidInput)
        );
    }
    let host = meter.host;
    Ok(match model.config.towers.clone() {
        Some(TowersConfig::ClipConvNext { recipe, .. }) => {
            encode_picture(model, &recipe, picture, meter).await?;
            let features = picture.features.as_ref().expect("encoded above");
            let (width, height) = (picture.pixels.width, picture.pixels.height);
            match &recipe.boxes(width, height, boxes)[..] {
                [] => None,
                boxes => Some(model.towers(host).await?.encode_boxes(features, boxes)),
            }
        }
        Some(TowersConfig::Classes(_)) if !boxes.is_empty() => {
            Some(encode_classes(host, model, picture, boxes).await?)
        }
        _ => None,
    })
}

/// Whether `prefix` belongs to `boxes` and to the system prompt of `question`, and has room for
/// `turn_tokens` more.
fn reusable(
    prefix: Option<&Prefix>,
    question: &Question,
    boxes: &[BoxXyxy],
    turn_tokens: usize,
) -> bool {
    prefix.is_some_and(|prefix| {
        let is_same = prefix.boxes == boxes && prefix.system == question.system;
        is_same && prefix.tokens + turn_tokens <= prefix.cache.capacity()
    })
}

/// Runs CLIP and ConvNeXt, unless the picture has their features.
async fn encode_picture(
    model: &mut LoadedModel,
    recipe: &SquareRecipe,
    picture: &mut Picture,
    meter: &mut Meter<'_, impl Host>,
) -> Result<(), Fault> {
    if picture.features.is_some() {
        return Ok(());
    }
    let host = meter.host;
    meter.report_look();
    host.yield_now().await;
    let ready = picture.take_tower_images();
    let (high, low) = ready.unwrap_or_else(|| recipe.prepare(&picture.pixels));
    let low = planar(low, &model.device);
    let high = planar(high, &model.device);
    picture.features = Some(model.towers(host).await?.encode_image(low, high));
    Ok(())
}

/// Runs detector and projector for the tokens of `boxes` (at least one), `[N, D]`.
async fn encode_classes(
    host: &impl Host,
    model: &mut LoadedModel,
    picture: &mut Picture,
    boxes: &[BoxXyxy],
) -> Result<Tensor<2>, Fault> {
    if let Some(config) = model.config.detector().cloned() {
        ensure_detected(host, model, &config, picture).await?;
    }
    let detected = picture.detected.as_ref().ok_or_else(no_model)?;
    let size = [picture.pixels.width, picture.pixels.height];
    let device = model.device.clone();
    let projector = model.projector(host).await?;
    let predictions = &detected.predictions;
    Ok(class_tokens(projector, predictions, size, boxes, &device))
}

/// The tokens of `boxes` (at least one, in pixels of a picture of `[width, height]`) from the class scores
/// of the detector, `[N, D]`.
pub(crate) fn class_tokens(
    projector: &ClassProjector,
    predictions: &DensePredictions,
    [width, height]: [u32; 2],
    boxes: &[BoxXyxy],
    device: &Device,
) -> Tensor<2> {
    let scores = predictions.class_scores(boxes);
    let (width, height) = (width as f32, height as f32);
    let relative: Vec<[f32; 4]> = boxes
        .iter()
        .map(|b| [b.x1 / width, b.y1 / height, b.x2 / width, b.y2 / height])
        .collect();
    let boxes = ScoredBoxes {
        boxes: &relative,
        scores: &scores,
    };
    projector.embed(boxes, device)
}

/// Makes an empty KV cache with room for this turn, unless there is one.
async fn ensure_text_cache(
    model: &mut LoadedModel,
    text: &mut Option<Prefix>,
    question: &Question,
    prompt: &Prompt,
    meter: &mut Meter<'_, impl Host>,
) -> Result<(), Fault> {
    let turn_tokens = prompt.turn_tokens(question.max_tokens);
    if reusable(text.as_ref(), question, &[], turn_tokens) {
        return Ok(());
    }
    meter.prefix_encoded(0, prompt.question_ids.len());
    let (dtype, device) = (model.cache, model.device.clone());
    let llm = model.llm(meter.host).await?;
    let capacity = turn_tokens.max(MIN_TURN_CAPACITY);
    *text = Some(Prefix {
        boxes: Vec::new(),
        system: question.system.clone(),
        cache: KvCache::new(llm.config(), capacity, dtype, &device),
        tokens: 0,
        last: None,
    });
    Ok(())
}

/// A generated answer.
struct Generated {
    parser: AnswerParser,
    /// The tokens of the text.
    ids: Vec<u32>,
    /// Number of tokens, the end token included.
    tokens: u32,
    ending: Ending,
}

/// Prefills the question after `prefix` and decodes the answer. Every new piece of text is sent.
async fn generate(
    turn: TurnId,
    model: &mut LoadedModel,
    prefix: &mut Prefix,
    question: &Question,
    prompt: &Prompt,
    meter: &mut Meter<'_, impl Host>,
) -> Result<Generated, Fault> {
    let host = meter.host;
    let config = model.sampling_config(question.sampling, question.boxes.len());
    model.llm(host).await?;
    let model = &*model;
    let llm = model.resident_llm();
    prefix.cache.truncate(prefix.tokens);
    let embeds = splice(llm, &prompt.question_ids, None, None);
    meter.prefill_tokens += prompt.question_ids.len();
    let logits = llm.prefill(embeds, &mut prefix.cache);
    let limit = question.max_tokens as usize;
    let mut stream = TokenStream::new(llm, &mut prefix.cache, logits, config, limit);
    let mut decoder = model.tokenizer.decode_stream();
    let mut parser = AnswerParser::new();
    let mut stop = Stop::new(&model.stop_ids, question.max_tokens);
    let mut ids = Vec::new();
    let ending = loop {
        if let Some(ending) = stop.before(host.stopped(turn)) {
            break ending;
        }
        let Some(token) = stream.next().await? else {
            break Ending::Length;
        };
        let ending = stop.take(token);
        if stop.taken() == 1 {
            meter.first_token();
        }
        if let Some(ending) = ending {
            break ending;
        }
        ids.push(token);
        let new_text = decoder.push(token);
        if !new_text.is_empty() {
            parser.push(&new_text);
            host.emit(Event::Said {
                turn,
                spans: parser.spans(),
            });
        }
        host.yield_now().await;
    };
    stream.finish().await;
    parser.push(&decoder.finish());
    Ok(Generated {
        parser,
        ids,
        tokens: stop.taken(),
        ending,
    })
}

/// The answer as it is sent.
fn finish(
    prompt: Prompt,
    generated: Generated,
    gpu_bytes: Option<u64>,
    meter: Meter<'_, impl Host>,
) -> Answer {
    let Generated {
        parser,
        tokens,
        ending,
        ..
    } = generated;
    Answer {
        prompt: prompt.text,
        text: parser.text().trim().to_string(),
        spans: parser.finish(),
        tokens,
        prefill_tokens: meter.prefill_tokens as u32,
        question_tokens: prompt.question_tokens as u32,
        gpu_bytes,
        stop: match ending {
            Ending::End => StopReason::End,
            Ending::Length => StopReason::Length,
            Ending::Cancelled => StopReason::Stopped,
        },
        milliseconds: meter.finish(tokens),
    }
}

/// Measures one question and reports its progress.
pub(super) struct Meter<'a, H: Host> {
    host: &'a H,
    start: f64,
    time: AskTime,
    /// Tokens prefilled for this question.
    prefill_tokens: usize,
}

impl<'a, H: Host> Meter<'a, H> {
    pub fn start(host: &'a H) -> Self {
        Self {
            host,
            start: host.milliseconds(),
            time: AskTime::default(),
            prefill_tokens: 0,
        }
    }

    fn elapsed(&self) -> f64 {
        self.host.milliseconds() - self.start
    }

    /// The vision towers start.
    fn report_look(&self) {
        self.host.emit(Event::Progress(Progress {
            stage: Stage::Look,
            done: 0,
            total: 1,
        }));
    }

    fn report_prefill(&self, done: usize, total: usize) {
        self.host.emit(Event::Progress(Progress {
            stage: Stage::Read,
            done: done as u64,
            total: total as u64,
        }));
    }

    /// Picture and boxes are embedded as `tokens` tokens; `total` tokens are to be prefilled.
    fn prefix_encoded(&mut self, tokens: usize, total: usize) {
        self.time.look = self.elapsed();
        self.prefill_tokens += tokens;
        self.report_prefill(0, total);
    }

    /// The first token has been read.
    fn first_token(&mut self) {
        self.time.first_token = self.elapsed();
        self.time.prefill = self.time.first_token - self.time.look;
        self.report_prefill(self.prefill_tokens, self.prefill_tokens);
    }

    /// The durations of an answer of `tokens` tokens that is complete now.
    fn finish(self, tokens: u32) -> AskTime {
        let elapsed = self.elapsed();
        let mut time = self.time;
        if tokens == 0 {
            time.prefill = elapsed - time.look;
        } else {
            time.decode = elapsed - time.first_token;
        }
        time
    }
}
