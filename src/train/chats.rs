//! Recorded answers of a language model to everyday questions. An adapter is trained on some of them, so
//! that the model keeps answering what has nothing to do with a picture.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::memory::KvCacheDType;
use crate::model::decoder::{Decoder, KvCache};
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::train::checkpoint::write_atomically;

/// The file of the recorded answers in the output folder.
pub const CHATS: &str = "chats.json";

/// The questions, one per line.
const QUESTIONS: &str = include_str!("chat_questions.txt");

/// Tokens of an answer, at most. Longer ones are cut at the end of a sentence.
const MAX_TOKENS: usize = 72;

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// The question.
    pub question: String,
    /// The recorded answer.
    pub answer: String,
}

/// Reads recorded answers.
///
/// # Errors
/// The file is missing or damaged.
pub fn read(path: &Path) -> Result<Vec<Chat>, Fault> {
    let json = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    serde_json::from_slice(&json).map_err(|error| Fault::file(path, error))
}

/// Records the answers of `decoder` to all questions in `out`, with greedy decoding. Answers without an
/// end of a sentence are left out.
///
/// # Errors
/// The vocabulary lacks a token that ends answers, or the file cannot be written.
pub fn record(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    out: &Path,
) -> Result<(), Fault> {
    let stop = template.stop.iter().map(|token| tokenizer.id(token));
    let stop: Vec<u32> = stop.collect::<Result<_, _>>()?;
    let mut chats = Vec::new();
    for question in QUESTIONS.lines() {
        let answer = answer(decoder, tokenizer, &template.first(question), &stop);
        if let Some(answer) = answer {
            chats.push(Chat {
                question: question.to_owned(),
                answer,
            });
            let json = serde_json::to_vec_pretty(&chats).expect("plain data");
            write_atomically(&out.join(CHATS), &json)?;
        }
    }
    Ok(())
}

/// The greedy answer to `prompt`, up to the end of a sentence.
fn answer(decoder: &Decoder, tokenizer: &Tokenizer, prompt: &str, stop: &[u32]) -> Option<String> {
    let ids = tokenizer.encode(prompt).into_iter();
    let ids: Vec<u32> = ids.filter_map(|id| u32::try_from(id).ok()).collect();
    let device = Device::flex();
    let mut cache = KvCache::new(
        decoder.config(),
        ids.len() + MAX_TOKENS,
        KvCacheDType::F32,
        &device,
    );
    let next = |logits: Tensor<1>| logits.argmax(0).into_scalar::<i32>() as u32;
    let mut token = next(decoder.prefill(decoder.embed(&ids).unsqueeze(), &mut cache));
    let mut answer = Vec::new();
    while !stop.contains(&token) && answer.len() < MAX_TOKENS {
        answer.push(token);
        if answer.len() < MAX_TOKENS {
            token = next(decoder.step(token, &mut cache));
        }
    }
    let text = tokenizer.decode(&answer);
    let text = text.trim();
    if stop.contains(&token) {
        return Some(text.to_owned()).filter(|text| !text.is_empty());
    }
    let end = text.rfind(['.', '!', '?'])?;
    Some(text[..=end].to_owned())
}
