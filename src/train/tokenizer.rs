//! Nano's tokenizer: byte-level BPE with the pre-tokenizer of Qwen2 (`docs/reference/chatrex.md`
//! section 7.3), trained on dialogues about training scenes, plus the special tokens.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};

use crate::error::Fault;
use crate::scenes::{Scene, dialogues};
use crate::train::labels::label_texts;

/// Vocabulary size without special tokens: 256 bytes and the merges.
const VOCAB_SIZE: usize = 1000;
/// Number of scenes.
const SCENES: u64 = 300;
/// Rounds of dialogues per scene.
const ROUNDS: u64 = 8;

/// Pre-tokenization pattern of Qwen2.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains nano's tokenizer and returns its `tokenizer.json`.
pub fn train() -> String {
    train_on(training_texts(), VOCAB_SIZE)
}

/// Trains a tokenizer of at most `vocab_size` entries without special tokens.
fn train_on(texts: Vec<String>, vocab_size: usize) -> String {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(0)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let split = Split::new(
        SplitPattern::Regex(PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .expect("the pattern is valid");
    let bytes = ByteLevel::new(false, true, false);
    let mut tokenizer = TokenizerBuilder::<BPE, NFC, Sequence, ByteLevel, ByteLevel>::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])))
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .expect("model and pre-tokenizer are set");
    tokenizer
        .train(&mut trainer, texts.into_iter())
        .expect("texts in memory are readable");
    let objects = (0..100).map(|index| format!("<obj{index}>"));
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        .map(str::to_owned)
        .into_iter()
        .chain(objects)
        .chain(["<ground>", "</ground>", "<objects>", "</objects>"].map(str::to_owned));
    tokenizer
        .add_special_tokens(special.map(|token| AddedToken::from(token, true)))
        .expect("special tokens are valid");
    tokenizer.to_string(true).expect("a tokenizer serializes")
}

/// Trains the tokenizer and writes it to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path) -> Result<(), Fault> {
    std::fs::write(path, train()).map_err(|error| Fault::file(path, error))
}

/// Vocabulary size of mini without special tokens.
const LABEL_VOCAB_SIZE: usize = 2000;
/// Number of label scenes of mini's tokenizer.
const LABEL_SCENES: u64 = 1500;

/// Trains mini's tokenizer on dialogues about label scenes and writes it to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write_labels(path: &Path) -> Result<(), Fault> {
    let frames = ["user\n".to_owned(), "assistant\n".to_owned()];
    let texts = label_texts(LABEL_SCENES).into_iter().chain(frames);
    let pieces = texts.flat_map(|text| split_at_tags(&text)).collect();
    let json = train_on(pieces, LABEL_VOCAB_SIZE);
    std::fs::write(path, json).map_err(|error| Fault::file(path, error))
}

/// Questions and answers, split at every tag: no merge may span a special token.
fn training_texts() -> Vec<String> {
    let mut training_texts = vec!["user\n".to_owned(), "assistant\n".to_owned()];
    for seed in 0..SCENES {
        let scene = Scene::draw(seed);
        let every_object = (0..scene.objects.len()).map(Some).collect::<Vec<_>>();
        for round in 0..ROUNDS {
            for dialogue in dialogues(&scene, seed * ROUNDS + round) {
                if let Some((question, answer)) = dialogue.render(&every_object) {
                    training_texts.extend(split_at_tags(&format!("\n{question}")));
                    training_texts.extend(split_at_tags(&answer));
                }
            }
        }
    }
    training_texts
}

fn split_at_tags(text: &str) -> Vec<String> {
    text.split('<')
        .enumerate()
        .map(|(i, piece)| match piece.split_once('>') {
            Some((_, rest)) if i > 0 => rest,
            _ => piece,
        })
        .filter(|piece| !piece.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_at_tags() {
        assert_eq!(
            split_at_tags("one <ground>red car</ground><objects><obj4></objects>."),
            ["one ", "red car", "."]
        );
    }
}
