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

/// Vocabulary size without special tokens: 256 bytes and the merges.
const VOCAB_SIZE: usize = 1000;
/// Number of scenes.
const SCENES: u64 = 300;
/// Rounds of dialogues per scene.
const ROUNDS: u64 = 8;

/// Pre-tokenization pattern of Qwen2.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains the tokenizer and returns its `tokenizer.json`.
pub fn train() -> String {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(VOCAB_SIZE)
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
        .train(&mut trainer, training_texts().into_iter())
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
