//! One question: prompt, prefix, token loop.

use super::memory_plan::MAX_TURN_TOKENS;
use super::token_stream::TokenStream;
use super::{Engine, Host, Prefix, current, no_model, planar};
use crate::error::{Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::generate::stop::{Ending, Stop};
use crate::geometry::BoxXyxy;
use crate::model::chatrex::splice;
use crate::model::decoder::KvCache;
use crate::progress::{Progress, Stage};
use crate::protocol::{Answer, AskTime, Event, PictureId, StopReason, TurnId};
use crate::text::answer_parser::AnswerParser;
use crate::text::prompt::{self, IMAGE_SLOT, OBJECT_SLOT};

/// A question, and how it is to be answered.
pub(super) struct Asked {
    pub boxes: Vec<BoxXyxy>,
    pub question: String,
    pub max_tokens: u32,
    pub sampling: Sampling,
}

impl<H: Host> Engine<H> {
    pub(super) async fn ask(
        &mut self,
        turn: TurnId,
        id: PictureId,
        asked: Asked,
    ) -> Result<(), Fault> {
        let Asked {
            boxes,
            question,
            max_tokens,
            sampling,
        } = asked;
        sampling.check()?;
        let host = &self.host;
        let model = self.model.as_mut().ok_or_else(no_model)?;
        let picture = current(&mut self.picture, id)?;
        let started = host.milliseconds();
        let user = prompt::user_turn(boxes.len(), &question)?;
        let text = model.config.template.first(&user);
        let ids = model.tokenizer.encode(&text);
        let split = 1 + ids
            .iter()
            .rposition(|&id| id == IMAGE_SLOT || id == OBJECT_SLOT)
            .expect("every prompt has an image slot");
        let (prefix_ids, question_ids) = ids.split_at(split);

        let rule = model.rule(sampling, boxes.len());
        let form = model.cache;
        let mut time = AskTime::default();
        let mut prefill_tokens = question_ids.len();
        let needed = question_ids.len() + max_tokens as usize;
        if needed > MAX_TURN_TOKENS as usize {
            let words = question_ids.len();
            return Err(Fault::new(
                FaultKind::Question,
                "question",
                format!(
                    "{words} tokens, and {max_tokens} for the answer; there is room for {MAX_TURN_TOKENS}"
                ),
                "Ask with fewer words, or for a shorter answer",
            ));
        }
        let kept = picture.prefix.as_ref().is_some_and(|prefix| {
            prefix.boxes == boxes && prefix.tokens + needed <= prefix.capacity
        });
        let progress = |done: usize, total: usize| {
            host.emit(Event::Progress(Progress {
                stage: Stage::Read,
                done: done as u64,
                total: total as u64,
            }));
        };
        if !kept {
            if picture.features.is_none() {
                host.emit(Event::Progress(Progress {
                    stage: Stage::Look,
                    done: 0,
                    total: 1,
                }));
                host.yield_now().await;
                let (high, low) = model.config.recipe.prepare(&picture.pixels);
                let low = planar(low, &model.device);
                let high = planar(high, &model.device);
                picture.features = Some(model.towers(host).await?.encode_image(low, high));
            }
            let features = picture.features.as_ref().expect("seen just above");
            let (width, height) = (picture.pixels.width, picture.pixels.height);
            let placed = model.config.recipe.boxes(width, height, &boxes);
            let objects = match &placed[..] {
                [] => None,
                placed => Some(model.towers(host).await?.encode_boxes(features, placed)),
            };
            let llm = model.llm(host).await?;
            let embeds = splice(llm, prefix_ids, Some(features), objects.as_ref());
            time.look = host.milliseconds() - started;
            let tokens = embeds.dims()[1];
            progress(0, tokens + question_ids.len());
            host.yield_now().await;
            let capacity = tokens + needed.max(512);
            let mut cache = KvCache::new(llm.config(), capacity, form, &embeds.device());
            llm.prefill(embeds, &mut cache);
            prefill_tokens += tokens;
            picture.prefix = Some(Prefix {
                boxes,
                cache,
                tokens,
                capacity,
            });
        }
        let prefix = picture.prefix.as_mut().expect("made just above");
        prefix.cache.truncate(prefix.tokens);
        model.llm(host).await?;
        let llm = model.resident_llm();
        let words = splice(llm, question_ids, None, None);
        let logits = llm.prefill(words, &mut prefix.cache);
        let limit = max_tokens as usize;
        let mut saying = TokenStream::new(llm, &mut prefix.cache, logits, rule, limit);
        let mut words = model.tokenizer.decoding();
        let mut reader = AnswerParser::new();
        let mut stop = Stop::new(&model.stop_ids, max_tokens);
        let ending = loop {
            if let Some(ending) = stop.before(host.stopped(turn)) {
                break ending;
            }
            let token = saying.next().await?;
            let ending = stop.take(token);
            if stop.taken() == 1 {
                time.first_token = host.milliseconds() - started;
                time.prefill = time.first_token - time.look;
                progress(prefill_tokens, prefill_tokens);
            }
            if let Some(ending) = ending {
                break ending;
            }
            let new = words.push(token);
            if !new.is_empty() {
                reader.push(&new);
                host.emit(Event::Said {
                    turn,
                    spans: reader.spans(),
                });
            }
            host.yield_now().await;
        };
        saying.finish().await;
        reader.push(&words.finish());
        let spent = host.milliseconds() - started;
        if stop.taken() == 0 {
            time.prefill = spent - time.look;
        } else {
            time.decode = spent - time.first_token;
        }
        host.emit(Event::Done {
            turn,
            answer: Answer {
                prompt: text,
                text: reader.text().trim().to_string(),
                spans: reader.finish(),
                tokens: stop.taken(),
                prefill_tokens: prefill_tokens as u32,
                stop: match ending {
                    Ending::End => StopReason::End,
                    Ending::Length => StopReason::Length,
                    Ending::Cancelled => StopReason::Stopped,
                },
                milliseconds: time,
            },
        });
        Ok(())
    }
}
