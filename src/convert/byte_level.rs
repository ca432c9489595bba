//! What tokenizers of byte-level BPE have in common, whatever file they come from.

use serde::Serialize;
use serde_json::{Value, json};

/// The pattern of Qwen2 and LLaMA 3, with the longest run of digits.
macro_rules! words {
    ($digits:literal) => {
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    };
}

/// The pattern by which Qwen2 splits text (`docs/reference/chatrex.md`, section 7.3).
pub(super) const QWEN2_SPLIT: &str = words!(r"\p{N}");

/// The pattern by which LLaMA 3 splits text.
pub(super) const LLAMA3_SPLIT: &str = words!(r"\p{N}{1,3}");

/// The model of a `tokenizer.json` of byte-level BPE, of the tokens by id, and merges, the first to apply first. With
/// `ignore_merges` a word that is a token is not merged.
pub(super) fn byte_level_model<'a>(
    tokens: impl Iterator<Item = &'a str>,
    merges: &impl Serialize,
    ignore_merges: bool,
) -> Value {
    let ids = tokens.enumerate();
    let vocab: serde_json::Map<String, Value> = ids
        .map(|(id, text)| (text.to_string(), json!(id)))
        .collect();
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": ignore_merges,
        "vocab": vocab,
        "merges": merges,
    })
}
