//! [`Request::Links`](crate::protocol::Request::Links): how sure the model was of the boxes that its last
//! answer names.
//!
//! The KV cache still has the answer. For each index, from the last to the first, the cache is cut before
//! the token that precedes the index, and this token is decoded again: its logits are those that the index
//! was sampled from.

use super::{Engine, Host, LastAnswer, Prefix, no_model};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::gpu::readback;
use crate::protocol::{Event, Link, RunnerUp, TurnId};

impl<H: Host> Engine<H> {
    pub(super) async fn links(&mut self, turn: TurnId) -> Result<(), Fault> {
        let model = self.model.as_ref().ok_or_else(no_model)?;
        let prefix = self.picture.as_mut().and_then(|p| p.prefix.as_mut());
        let prefix = prefix.filter(|p| p.last.as_ref().is_some_and(|last| last.turn == turn));
        let Some(prefix) = prefix else {
            let place = format!("turn {}", turn.0);
            let what = "is not the last answer about the current picture";
            return Err(
                Fault::new(FaultKind::Question, place, what, "Ask the question again")
                    .code(ErrorCode::NotReady),
            );
        };
        let Prefix {
            boxes,
            cache,
            tokens,
            last,
            ..
        } = prefix;
        let LastAnswer { ids, question, .. } = last.as_ref().expect("checked above");
        let tags = model.tokenizer.list_tags();
        let mut indices = tags.map(|(_, indices)| indices).unwrap_or_default();
        indices.truncate(boxes.len());
        let llm = model.resident_llm();
        // An earlier call has cut the cache.
        let held = cache.len().saturating_sub(*tokens);
        let needed = ids.len().saturating_sub(2);
        if held < needed {
            let missing = llm.embed(&ids[held..needed]);
            llm.prefill(missing.unsqueeze(), cache);
        }
        let mut links = Vec::new();
        for place in (*question..ids.len()).rev() {
            let Some(object) = indices.iter().position(|index| *index == ids[place]) else {
                continue;
            };
            cache.truncate(*tokens + place - 1);
            let logits = llm.step(ids[place - 1], cache);
            let logits = readback::read("the logits of an index", logits).await?;
            links.push(link(&logits, &indices, object));
            self.host.yield_now().await;
        }
        links.reverse();
        self.host.emit(Event::Links { turn, links });
        Ok(())
    }
}

/// The probability of box `object` among all boxes, and the most probable other box; `indices` are the
/// tokens of the boxes.
fn link(logits: &[f32], indices: &[u32], object: usize) -> Link {
    let value = |box_index: usize| f64::from(logits[indices[box_index] as usize]);
    let boxes = 0..indices.len();
    let highest = boxes.clone().map(value).fold(f64::NEG_INFINITY, f64::max);
    let weight = |box_index: usize| (value(box_index) - highest).exp();
    let total: f64 = boxes.clone().map(weight).sum();
    let others = boxes.filter(|other| *other != object);
    let runner_up = others.max_by(|a, b| value(*a).total_cmp(&value(*b)));
    let probability = |box_index: usize| (weight(box_index) / total) as f32;
    Link {
        object: object as u32,
        probability: probability(object),
        runner_up: runner_up.map(|other| RunnerUp {
            object: other as u32,
            probability: probability(other),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_up_is_the_best_other_box() {
        let logits = [9.0, 1.0, 3.0, 2.0];
        let found = link(&logits, &[1, 2, 3], 1);
        let total = 1.0 + (-1.0_f32).exp() + (-2.0_f32).exp();
        assert!((found.probability - 1.0 / total).abs() < 1e-6);
        let other = found.runner_up.expect("three boxes");
        assert_eq!((found.object, other.object), (1, 2));
        assert!((other.probability - (-1.0_f32).exp() / total).abs() < 1e-6);
        let unsure = link(&logits, &[1, 2, 3], 0);
        assert_eq!(unsure.runner_up.map(|other| other.object), Some(1));
        let only = link(&logits, &[1], 0);
        assert_eq!((only.probability, only.runner_up), (1.0, None));
    }
}
