//! The tokenizer of a GGUF file as a `tokenizer.json`, and its chat template.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::byte_level::{LLAMA3_SPLIT, QWEN2_SPLIT, byte_level_model};
use super::gguf::Gguf;
use super::sentencepiece::{Vocabulary, added_token};
use super::tokenizer::TokenizerFile;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::text::prompt::ChatTemplate;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Token types, as SentencePiece numbers them.
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;

/// How text is split before merging (`llama-vocab.cpp` of `github.com/ggml-org/llama.cpp` lists the names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splitter {
    /// Words, numbers and punctuation, as in GPT-2.
    Gpt2,
    /// The same, each digit by itself.
    SingleDigits,
    /// As in Qwen2: digits by themselves, text in Unicode's form NFC.
    Qwen2,
    /// As in LLaMA 3: up to three digits, whole words before merges.
    Llama3,
}

impl Splitter {
    fn of(gguf: &Gguf, architecture: &str) -> Result<Self, Fault> {
        match (gguf.text(PRE)?, architecture) {
            (Some("gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo"), _) => Ok(Self::Gpt2),
            (Some("smollm" | "starcoder" | "refact" | "codeshell"), _) => Ok(Self::SingleDigits),
            (Some("qwen2" | "deepseek-r1-qwen"), _) | (None, "qwen2") => Ok(Self::Qwen2),
            (Some("llama-bpe" | "llama3" | "llama-v3"), _) => Ok(Self::Llama3),
            (Some(other), _) => Err(gguf.unsupported(
                PRE,
                format!(
                    "is {other:?}, which is not supported; supported are gpt-2, smollm, qwen2, llama-bpe"
                ),
            )),
            (None, _) => Err(Fault::new(
                FaultKind::Model,
                gguf.place(),
                format!("lacks {PRE}, so nobody knows how its tokenizer splits text"),
                "Use a newer file of this model",
            )),
        }
    }

    fn normalizer(self) -> Value {
        match self {
            Self::Qwen2 => json!({"type": "NFC"}),
            _ => Value::Null,
        }
    }

    fn pre_tokenizer(self) -> Value {
        let bytes = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": false,
                "trim_offsets": false,
                "use_regex": use_regex,
            })
        };
        let split = |pattern: &str| {
            json!({
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": false,
            })
        };
        let steps = match self {
            Self::Gpt2 => return bytes(true),
            Self::SingleDigits => [
                json!({"type": "Digits", "individual_digits": true}),
                bytes(true),
            ],
            Self::Qwen2 => [split(QWEN2_SPLIT), bytes(false)],
            Self::Llama3 => [split(LLAMA3_SPLIT), bytes(false)],
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// Tokens and their types.
struct Tokens<'a> {
    texts: Vec<&'a str>,
    types: Vec<u32>,
    ids: HashMap<&'a str, usize>,
}

impl<'a> Tokens<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self, Fault> {
        let texts = gguf.texts(TOKENS)?;
        let texts = texts.filter(|texts| !texts.is_empty());
        let texts = texts.ok_or_else(|| gguf.fault(TOKENS, "is missing or empty"))?;
        let mut ids = HashMap::new();
        for (id, text) in texts.iter().enumerate() {
            if let Some(other) = ids.insert(*text, id) {
                let what = format!("tokens {other} and {id} are both {text:?}");
                return Err(gguf.fault(TOKENS, what));
            }
        }
        let types = match gguf.numbers(TYPES)? {
            Some(types) if types.len() == texts.len() => types.iter().map(|t| *t as u32).collect(),
            Some(types) => {
                let (types, tokens) = (types.len(), texts.len());
                return Err(gguf.fault(TYPES, format!("has {types} entries for {tokens} tokens")));
            }
            None => vec![1; texts.len()],
        };
        Ok(Self { texts, types, ids })
    }

    /// The token whose id is the metadata value `tokenizer.ggml.NAME_token_id`.
    fn special(&self, gguf: &Gguf, name: &str) -> Result<Option<&'a str>, Fault> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        // Files without the token have 2^32 - 1 here.
        let id = gguf.integer(&key)?.filter(|id| *id != u32::MAX as usize);
        let Some(id) = id else { return Ok(None) };
        let token = self.texts.get(id).ok_or_else(|| {
            let what = format!("is {id}, but there are {} tokens", self.texts.len());
            gguf.fault(&key, what)
        });
        token.copied().map(Some)
    }
}

/// What a file says about text.
pub(super) struct GgufTokenizer {
    /// The tokenizer, with its special tokens.
    pub file: TokenizerFile,
    /// The number of its tokens.
    pub tokens: usize,
    /// The chat template.
    pub template: ChatTemplate,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Reads the tokenizer of a file of `architecture`. `template` replaces the file's chat template.
///
/// # Errors
/// Tokens or merges are missing, contradict each other or are of an unsupported kind; the chat template
/// is unknown; no token ends an answer.
pub(super) fn read(
    gguf: &Gguf,
    architecture: &str,
    template: Option<ChatTemplate>,
) -> Result<GgufTokenizer, Fault> {
    let tokens = Tokens::read(gguf)?;
    let [bos, eos, eot] = ["bos", "eos", "eot"].map(|name| tokens.special(gguf, name));
    let (bos, eos, eot) = (bos?, eos?, eot?);
    let (json, adds_bos) = match gguf.text(MODEL)? {
        Some("gpt2") => {
            let splitter = Splitter::of(gguf, architecture)?;
            (
                byte_level(gguf, &tokens, splitter)?,
                splitter == Splitter::Llama3,
            )
        }
        Some("llama") => (sentencepiece(gguf, &tokens)?, true),
        Some(other) => {
            let what =
                format!("is {other:?}, which is not supported; supported are gpt2 and llama");
            return Err(gguf.unsupported(MODEL, what));
        }
        None => return Err(gguf.fault(MODEL, "is missing")),
    };
    let adds_bos = gguf
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(adds_bos);
    if adds_bos && bos.is_none() {
        return Err(gguf.fault("tokenizer.ggml.bos_token_id", "is missing"));
    }
    let mut warnings = Vec::new();
    let own = gguf.text(TEMPLATE)?;
    let mut template = match (template, own) {
        (Some(template), _) => template,
        (None, Some(jinja)) => chat_template(jinja, bos, eos).ok_or_else(|| {
            Fault::new(
                FaultKind::Model,
                format!("{}, key {TEMPLATE}", gguf.place()),
                "is none of the chat templates that are known: ChatML, LLaMA 2 and 3, Vicuna, Zephyr",
                "Write the template as JSON and name it with --template",
            )
            .code(ErrorCode::Unsupported)
        })?,
        (None, None) => {
            warnings.push(format!(
                "{} has no chat template: the model continues the question as plain text",
                gguf.place()
            ));
            plain()
        }
    };
    for token in [eos, eot].into_iter().flatten() {
        if !template.stop.iter().any(|stop| stop == token) {
            template.stop.push(token.to_string());
        }
    }
    template
        .stop
        .retain(|token| tokens.ids.contains_key(token.as_str()));
    if template.stop.is_empty() {
        return Err(Fault::model(
            gguf.place(),
            "has no token that ends an answer",
        ));
    }
    Ok(GgufTokenizer {
        file: TokenizerFile {
            json: json.to_string().into_bytes(),
            bos: bos.filter(|_| adds_bos).map(str::to_string),
            eos: eos.map(str::to_string),
        },
        tokens: tokens.texts.len(),
        template,
        warnings,
    })
}

/// Byte pairs over the 256 characters that stand for bytes.
fn byte_level(gguf: &Gguf, tokens: &Tokens, splitter: Splitter) -> Result<Value, Fault> {
    let merges = gguf.texts(MERGES)?.filter(|merges| !merges.is_empty());
    let merges = merges.ok_or_else(|| gguf.fault(MERGES, "is missing or empty"))?;
    let mut pairs = Vec::new();
    for (index, merge) in merges.iter().enumerate() {
        let pair = merge.split_once(' ').filter(|(left, right)| {
            let known = |token: &str| tokens.ids.contains_key(token);
            known(left) && known(right) && known(&format!("{left}{right}"))
        });
        pairs.push(pair.ok_or_else(|| {
            let what = format!("entry {index} is {merge:?}, which does not make a token of two");
            gguf.fault(MERGES, what)
        })?);
    }
    let special = tokens.texts.iter().zip(&tokens.types).enumerate();
    let added = special.filter_map(|(id, (text, kind))| match *kind {
        CONTROL => Some(added_token(id, text, true)),
        USER_DEFINED => Some(added_token(id, text, false)),
        _ => None,
    });
    let added: Vec<Value> = added.collect();
    let texts = tokens.texts.iter().copied();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": splitter.normalizer(),
        "pre_tokenizer": splitter.pre_tokenizer(),
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": false,
            "use_regex": false,
        },
        "model": byte_level_model(texts, &pairs, splitter == Splitter::Llama3),
    }))
}

/// A SentencePiece vocabulary: pieces with scores.
fn sentencepiece(gguf: &Gguf, tokens: &Tokens) -> Result<Value, Fault> {
    let scores = gguf.numbers(SCORES)?;
    let scores = scores.ok_or_else(|| gguf.fault(SCORES, "is missing"))?;
    if scores.len() != tokens.texts.len() {
        let (scores, tokens) = (scores.len(), tokens.texts.len());
        return Err(gguf.fault(SCORES, format!("has {scores} entries for {tokens} tokens")));
    }
    let pieces = tokens.texts.iter().zip(&scores).zip(&tokens.types);
    let pieces = pieces.map(|((text, score), kind)| ((*text).to_string(), *score as f32, *kind));
    let prefix = gguf
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let place = format!("{}, key {TOKENS}", gguf.place());
    let vocabulary = Vocabulary::of_pieces(pieces.collect(), prefix, &place)?;
    Ok(vocabulary.to_json(&[], true))
}

/// Question and answer as plain text.
fn plain() -> ChatTemplate {
    ChatTemplate {
        system: String::new(),
        turn: "{user}\n".to_string(),
        between: "\n".to_string(),
        stop: Vec::new(),
    }
}

/// The template that a model's Jinja text `jinja` describes, recognized by its control tokens.
fn chat_template(jinja: &str, bos: Option<&str>, eos: Option<&str>) -> Option<ChatTemplate> {
    let (bos, eos) = (bos.unwrap_or_default(), eos.unwrap_or_default());
    let with = |turn: &str, between: &str, stop: &[&str]| ChatTemplate {
        system: String::new(),
        turn: turn.to_string(),
        between: between.to_string(),
        stop: stop.iter().map(|token| (*token).to_string()).collect(),
    };
    if jinja.contains("<|im_start|>") {
        let system = system_text(jinja, "<|im_start|>system\n", "<|im_end|>");
        Some(ChatTemplate {
            system: system.map_or_else(String::new, |text| {
                format!("<|im_start|>system\n{text}<|im_end|>\n")
            }),
            ..ChatTemplate::qwen()
        })
    } else if jinja.contains("<|start_header_id|>") {
        Some(with(
            "<|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
            &["<|eot_id|>", "<|end_of_text|>"],
        ))
    } else if jinja.contains("[INST]") {
        // LLaMA 2 begins every turn with the first token, Mistral only the conversation.
        let repeats = jinja.contains("bos_token + '[INST]");
        let between = if repeats {
            format!(" {eos}{bos}")
        } else {
            eos.to_string()
        };
        Some(with("[INST] {user} [/INST]", &between, &[]))
    } else if jinja.contains("<|user|>") && jinja.contains("<|assistant|>") {
        jinja.contains("eos_token").then(|| {
            with(
                &format!("<|user|>\n{{user}}{eos}\n<|assistant|>\n"),
                &format!("{eos}\n"),
                &[],
            )
        })
    } else if jinja.contains("USER:") && jinja.contains("ASSISTANT:") {
        Some(ChatTemplate {
            between: eos.to_string(),
            ..ChatTemplate::vicuna()
        })
    } else {
        None
    }
}

/// The text of a system turn that a template inserts by itself: it stands between `start` and `end`
/// without anything that is evaluated.
fn system_text<'a>(jinja: &'a str, start: &str, end: &str) -> Option<String> {
    // The line feed of `start` may be written as an escape.
    let escaped = start.replace('\n', "\\n");
    [start, escaped.as_str()].into_iter().find_map(|start| {
        let sections = jinja.split(start).skip(1);
        let texts = sections.filter_map(|section: &'a str| Some(section.split_once(end)?.0));
        let mut texts = texts.filter(|text| !text.contains(['{', '}', '\'', '"', '\\', '+']));
        texts.find(|text| !text.is_empty()).map(str::to_string)
    })
}

#[cfg(test)]
mod tests {
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
    };

    use super::*;

    fn splits(splitter: Splitter, text: &str) -> Vec<String> {
        let json = splitter.pre_tokenizer();
        let splitter: PreTokenizerWrapper = serde_json::from_value(json).expect("a pre-tokenizer");
        let mut pieces = PreTokenizedString::from(text);
        splitter.pre_tokenize(&mut pieces).expect("text");
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let texts = splits
            .iter()
            .map(|(_, (from, to), _)| text[*from..*to].to_string());
        texts.collect()
    }

    #[test]
    fn text_is_split_as_the_vocabularies_were_trained() {
        let text = "It's  12345 Ünïcode, ok\n\n x";
        let common = [" Ünïcode", ",", " ok", "\n\n", " x"];
        for (splitter, numbers) in [
            (Splitter::Gpt2, vec!["It", "'s", " ", " 12345"]),
            (
                Splitter::SingleDigits,
                vec!["It", "'s", "  ", "1", "2", "3", "4", "5"],
            ),
            (
                Splitter::Qwen2,
                vec!["It", "'s", " ", " ", "1", "2", "3", "4", "5"],
            ),
            (Splitter::Llama3, vec!["It", "'s", " ", " ", "123", "45"]),
        ] {
            let expected = [numbers, common.to_vec()].concat();
            assert_eq!(splits(splitter, text), expected, "{splitter:?}");
        }
        let upper = "IT'S";
        assert_eq!(splits(Splitter::Gpt2, upper), ["IT", "'", "S"]);
        assert_eq!(splits(Splitter::Llama3, upper), ["IT", "'S"]);
    }

    #[test]
    fn chat_templates_are_recognized() {
        let read = |jinja: &str| chat_template(jinja, Some("<s>"), Some("</s>"));
        let first = |jinja: &str| read(jinja).expect("a known template").first("Hi");
        let next = |jinja: &str| read(jinja).expect("a known template").next("Hi");
        let chatml = "{{ '<|im_start|>' + message['role'] + '\n' }}";
        assert_eq!(
            first(chatml),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
        for line_feed in ["\n", "\\n"] {
            let jinja = format!(
                "{{{{ '<|im_start|>system{line_feed}' + x + '<|im_end|>' }}}}{{{{ \
                 '<|im_start|>system{line_feed}You are made up.<|im_end|>{line_feed}' }}}}"
            );
            let first = first(&jinja);
            let expected = "<|im_start|>system\nYou are made up.<|im_end|>\n<|im_start|>user\nHi";
            assert!(first.starts_with(expected), "{first}");
        }
        let llama3 = "<|start_header_id|>";
        assert!(first(llama3).ends_with("<|start_header_id|>assistant<|end_header_id|>\n\n"));
        let llama2 = "{{ bos_token + '[INST] ' + content }}";
        assert_eq!(first(llama2), "[INST] Hi [/INST]");
        assert_eq!(next(llama2), " </s><s>[INST] Hi [/INST]");
        let mistral = "{{ bos_token }}{{ '[INST] ' + content }}";
        assert_eq!(next(mistral), "</s>[INST] Hi [/INST]");
        let zephyr = "{{ '<|user|>\n' + content + eos_token }}{{ '<|assistant|>' }}";
        assert_eq!(first(zephyr), "<|user|>\nHi</s>\n<|assistant|>\n");
        let vicuna = "USER: ASSISTANT:";
        assert_eq!(next(vicuna), "</s>USER: Hi ASSISTANT:");
        assert_eq!(read("{{ content }}"), None);
        assert_eq!(read("<|user|> <|end|> <|assistant|>"), None);
    }
}
