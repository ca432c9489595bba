//! [`Request::Ask`](crate::protocol::Request::Ask): answers a question about the current picture.
//!
//! 1. [`encode_prompt`]: template and tokenizer make token ids of the question.
//! 2. [`ensure_prefix`]: picture and boxes are prefilled into the KV cache, unless they are there.
//! 3. [`generate`]: the question is prefilled and the answer decoded token by token.
//! 4. [`finish`]: text, spans and durations become an [`Answer`], which is sent.

use super::memory_plan::MAX_TURN_TOKENS;
use super::token_stream::TokenStream;
use super::{Engine, Host, LoadedModel, Picture, Prefix, current, no_model, planar};
use crate::error::{Fault, FaultKind};
use crate::generate::stop::{Ending, Stop};
use crate::model::chatrex::splice;
use crate::model::decoder::KvCache;
use crate::progress::{Progress, Stage};
use crate::protocol::{Answer, AskTime, Event, PictureId, Question, StopReason, TurnId};
use crate::text::answer_parser::AnswerParser;
use crate::text::prompt::{self, IMAGE_SLOT, OBJECT_SLOT};

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
        let picture = current(&mut self.picture, id)?;
        let mut meter = Meter::start(host);
        let prompt = encode_prompt(model, &question)?;
        ensure_prefix(model, picture, &question, &prompt, &mut meter).await?;
        let prefix = picture.prefix.as_mut().expect("ensured above");
        let generated = generate(turn, model, prefix, &question, &prompt, &mut meter).await?;
        let answer = finish(prompt, generated, meter);
        host.emit(Event::Done { turn, answer });
        Ok(())
    }
}

/// A prompt as text and as token ids.
struct Prompt {
    text: String,
    /// Up to and including the last image or object slot.
    prefix_ids: Vec<i64>,
    /// After the last slot: the question and the beginning of the answer.
    question_ids: Vec<i64>,
}

impl Prompt {
    /// Tokens of the question and of an answer of `max_tokens`.
    fn turn_tokens(&self, max_tokens: u32) -> usize {
        self.question_ids.len() + max_tokens as usize
    }
}

/// Makes the prompt and checks that question and answer fit into [`MAX_TURN_TOKENS`].
fn encode_prompt(model: &LoadedModel, question: &Question) -> Result<Prompt, Fault> {
    let user = prompt::user_turn(question.boxes.len(), &question.text)?;
    let text = model.config.template.first(&user);
    let mut prefix_ids = model.tokenizer.encode(&text);
    let last_slot = prefix_ids
        .iter()
        .rposition(|&id| id == IMAGE_SLOT || id == OBJECT_SLOT)
        .expect("every prompt has an image slot");
    let question_ids = prefix_ids.split_off(last_slot + 1);
    let prompt = Prompt {
        text,
        prefix_ids,
        question_ids,
    };
    let max_tokens = question.max_tokens;
    if prompt.turn_tokens(max_tokens) > MAX_TURN_TOKENS as usize {
        let tokens = prompt.question_ids.len();
        return Err(Fault::new(
            FaultKind::Question,
            "question",
            format!(
                "has {tokens} tokens, plus {max_tokens} for the answer; there is room for \
                 {MAX_TURN_TOKENS}"
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
    let reusable = picture.prefix.as_ref().is_some_and(|prefix| {
        prefix.boxes == question.boxes && prefix.tokens + turn_tokens <= prefix.cache.capacity()
    });
    if reusable {
        return Ok(());
    }
    let host = meter.host;
    if picture.features.is_none() {
        meter.report_look();
        host.yield_now().await;
        let (high, low) = model.config.recipe.prepare(&picture.pixels);
        let low = planar(low, &model.device);
        let high = planar(high, &model.device);
        picture.features = Some(model.towers(host).await?.encode_image(low, high));
    }
    let features = picture.features.as_ref().expect("encoded above");
    let (width, height) = (picture.pixels.width, picture.pixels.height);
    let boxes = model.config.recipe.boxes(width, height, &question.boxes);
    let objects = match &boxes[..] {
        [] => None,
        boxes => Some(model.towers(host).await?.encode_boxes(features, boxes)),
    };
    let dtype = model.cache;
    let llm = model.llm(host).await?;
    let embeds = splice(llm, &prompt.prefix_ids, Some(features), objects.as_ref());
    let tokens = embeds.dims()[1];
    meter.prefix_encoded(tokens, tokens + prompt.question_ids.len());
    host.yield_now().await;
    let capacity = tokens + turn_tokens.max(MIN_TURN_CAPACITY);
    let mut cache = KvCache::new(llm.config(), capacity, dtype, &embeds.device());
    llm.prefill(embeds, &mut cache);
    picture.prefix = Some(Prefix {
        boxes: question.boxes.clone(),
        cache,
        tokens,
    });
    Ok(())
}

/// A generated answer.
struct Generated {
    parser: AnswerParser,
    /// Tokens, the end token included.
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
        tokens: stop.taken(),
        ending,
    })
}

/// The answer as it is sent.
fn finish(prompt: Prompt, generated: Generated, meter: Meter<'_, impl Host>) -> Answer {
    let Generated {
        parser,
        tokens,
        ending,
    } = generated;
    Answer {
        prompt: prompt.text,
        text: parser.text().trim().to_string(),
        spans: parser.finish(),
        tokens,
        prefill_tokens: meter.prefill_tokens as u32,
        stop: match ending {
            Ending::End => StopReason::End,
            Ending::Length => StopReason::Length,
            Ending::Cancelled => StopReason::Stopped,
        },
        milliseconds: meter.finish(tokens),
    }
}

/// Measures one question and reports its progress.
struct Meter<'a, H: Host> {
    host: &'a H,
    start: f64,
    time: AskTime,
    /// Tokens prefilled for this question.
    prefill_tokens: usize,
}

impl<'a, H: Host> Meter<'a, H> {
    fn start(host: &'a H) -> Self {
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
