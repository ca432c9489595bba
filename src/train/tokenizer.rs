//! Nano's tokenizer: byte-level BPE with Qwen2's pre-tokeniser (`chatrex.md` 7.3), trained on
//! questions and answers about training scenes, then the family's special tokens.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};

use crate::error::Fault;
use crate::scenes::{Scene, dialogues};

/// Regular entries: 256 bytes and merges.
const ENTRIES: usize = 1000;
/// Scenes that are asked about.
const SCENES: u64 = 300;
/// Times that each scene is asked about.
const ROUNDS: u64 = 8;

const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains the tokenizer and returns its `tokenizer.json`.
pub fn train() -> String {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(ENTRIES)
        .min_frequency(0)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let split = Split::new(
        SplitPattern::Regex(PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .expect("the pattern is well formed");
    let bytes = ByteLevel::new(false, true, false);
    let mut tokenizer = TokenizerBuilder::<BPE, NFC, Sequence, ByteLevel, ByteLevel>::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])))
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .expect("a model and a pre-tokeniser are given");
    tokenizer
        .train(&mut trainer, texts().into_iter())
        .expect("texts in memory can be read");
    let objects = (0..100).map(|index| format!("<obj{index}>"));
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        .map(str::to_owned)
        .into_iter()
        .chain(objects)
        .chain(["<ground>", "</ground>", "<objects>", "</objects>"].map(str::to_owned));
    tokenizer
        .add_special_tokens(special.map(|token| AddedToken::from(token, true)))
        .expect("special tokens are plain strings");
    tokenizer
        .to_string(true)
        .expect("a tokenizer can be written")
}

/// Trains the tokenizer and writes it to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path) -> Result<(), Fault> {
    std::fs::write(path, train()).map_err(|error| Fault::file(path, error))
}

/// Questions and answers, cut at every tag: no merge may reach across a special token.
fn texts() -> Vec<String> {
    let mut texts = vec!["user\n".to_owned(), "assistant\n".to_owned()];
    for seed in 0..SCENES {
        let scene = Scene::draw(seed);
        let every_object = (0..scene.objects.len()).map(Some).collect::<Vec<_>>();
        for round in 0..ROUNDS {
            for dialogue in dialogues(&scene, seed * ROUNDS + round) {
                if let Some((question, answer)) = dialogue.render(&every_object) {
                    texts.extend(between_tags(&format!("\n{question}")));
                    texts.extend(between_tags(&answer));
                }
            }
        }
    }
    texts
}

fn between_tags(text: &str) -> Vec<String> {
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
    fn tags_are_cut_out() {
        assert_eq!(
            between_tags("one <ground>red car</ground><objects><obj4></objects>."),
            ["one ", "red car", "."]
        );
    }
}
