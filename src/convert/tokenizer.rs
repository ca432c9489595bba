//! The tokenizer of a published model as one `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::checkpoint::Members;
use super::disk;
use super::sentencepiece::Vocabulary;
use crate::error::Fault;
use crate::text::tokenizer::add_missing_tags;

/// A tokenizer of the `tokenizers` crate.
const JSON: &str = "tokenizer.json";

/// A SentencePiece vocabulary.
const MODEL: &str = "tokenizer.model";

/// The tokenizer's settings, with its special tokens.
const CONFIG: &str = "tokenizer_config.json";

/// The special tokens.
const SPECIAL: &str = "special_tokens_map.json";

/// Tokens beyond the vocabulary and their ids.
const ADDED: &str = "added_tokens.json";

/// The tokenizer of a model folder.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenizerFile {
    /// A `tokenizer.json` with all tokens of the family.
    pub json: Vec<u8>,
    /// The token before every prompt, if the tokenizer adds one.
    pub bos: Option<String>,
    /// The token that ends an answer.
    pub eos: Option<String>,
}

/// Reads the tokenizer of the model in `folder`: `tokenizer.json`, else `tokenizer.model` with
/// `added_tokens.json`. Special tokens come from `tokenizer_config.json`, else from
/// `special_tokens_map.json`. Missing tokens of the family get the next free ids.
///
/// # Errors
/// There is no tokenizer, it is damaged or of an unsupported kind, its added tokens leave gaps in the ids
/// or claim taken ids, or it lacks a special token.
pub fn read(folder: &Path) -> Result<TokenizerFile, Fault> {
    let config = Settings::read(folder.join(CONFIG))?;
    let special = Settings::read(folder.join(SPECIAL))?;
    let json = folder.join(JSON);
    let model = folder.join(MODEL);
    let (place, json, pieces) = if disk::exists(&json) {
        (json.display().to_string(), bytes(&json)?, None)
    } else if disk::exists(&model) {
        let place = model.display().to_string();
        let pieces = Vocabulary::read(&bytes(&model)?, &place)?;
        let json = convert(folder, &config, &pieces)?;
        (place, json, Some(pieces))
    } else {
        return Err(Fault::model(
            folder.display().to_string(),
            format!("holds neither {JSON} nor {MODEL}"),
        ));
    };
    let (tokenizer, json) = with_all_tokens(json, &place)?;
    let special_token = |key: &str, default: Option<&str>| -> Result<Option<String>, Fault> {
        let token = match config.token(key)? {
            SpecialToken::Unset => match special.token(key)? {
                SpecialToken::Unset => default.map(str::to_string),
                SpecialToken::Set(token) => token,
            },
            SpecialToken::Set(token) => token,
        };
        match token {
            Some(token) if tokenizer.token_to_id(&token).is_none() => {
                Err(Fault::model(&place, format!("lacks its {key} `{token}`")))
            }
            token => Ok(token),
        }
    };
    let bos = special_token("bos_token", pieces.as_ref().and_then(Vocabulary::bos))?;
    let eos = special_token("eos_token", pieces.as_ref().and_then(Vocabulary::eos))?;
    let adds_bos = match config.flag("add_bos_token")? {
        Some(flag) => flag,
        None => pieces.is_some() || config.is_llama() || begins_with(&tokenizer, bos.as_deref()),
    };
    Ok(TokenizerFile {
        json,
        bos: bos.filter(|_| adds_bos),
        eos,
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    disk::read(path).map_err(|error| {
        let what = format!("cannot be read ({error})");
        Fault::model(path.display().to_string(), what)
    })
}

/// A special token in a settings file.
enum SpecialToken {
    /// The file does not name it.
    Unset,
    /// Its text, or `None` if the file says that there is none.
    Set(Option<String>),
}

/// A JSON object; empty if the file does not exist.
struct Settings {
    place: String,
    members: BTreeMap<String, Value>,
}

impl Settings {
    fn read(path: PathBuf) -> Result<Self, Fault> {
        let place = path.display().to_string();
        let members = match disk::exists(&path) {
            true => serde_json::from_slice::<Members>(&bytes(&path)?)
                .map_err(|error| Fault::model(&place, format!("cannot be parsed ({error})")))?
                .0
                .into_iter()
                .collect(),
            false => BTreeMap::new(),
        };
        Ok(Self { place, members })
    }

    fn invalid(&self, key: &str, value: &Value, expected: &str) -> Fault {
        Fault::model(
            &self.place,
            format!("`{key}` is {value} instead of {expected}"),
        )
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        match self.members.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.invalid(key, other, "true or false")),
        }
    }

    /// A special token: a string, or an object with the string as `content`.
    fn token(&self, key: &str) -> Result<SpecialToken, Fault> {
        let Some(value) = self.members.get(key) else {
            return Ok(SpecialToken::Unset);
        };
        match (value, value.get("content")) {
            (Value::Null, _) => Ok(SpecialToken::Set(None)),
            (Value::String(token), _) | (_, Some(Value::String(token))) => {
                Ok(SpecialToken::Set(Some(token.clone())))
            }
            _ => Err(self.invalid(key, value, "a token")),
        }
    }

    fn is_llama(&self) -> bool {
        let class = self.members.get("tokenizer_class").and_then(Value::as_str);
        class.is_some_and(|class| class.starts_with("Llama") || class.starts_with("CodeLlama"))
    }
}

/// Whether the tokenizer itself prepends `token` to every text.
fn begins_with(tokenizer: &Tokenizer, token: Option<&str>) -> bool {
    let id = token.and_then(|token| tokenizer.token_to_id(token));
    let encoding = tokenizer.encode_fast("", true);
    let first = encoding.ok().and_then(|e| e.get_ids().first().copied());
    id.is_some() && id == first
}

/// The tokenizer with all tokens of the family, and its file: `json` itself if it has them all.
fn with_all_tokens(json: Vec<u8>, place: &str) -> Result<(Tokenizer, Vec<u8>), Fault> {
    let mut tokenizer = Tokenizer::from_bytes(&json)
        .map_err(|error| Fault::model(place, format!("this is not a tokenizer: {error}")))?;
    check_added(&json, &tokenizer, place)?;
    if add_missing_tags(&mut tokenizer, place)? == 0 {
        return Ok((tokenizer, json));
    }
    let text = tokenizer
        .to_string(false)
        .map_err(|error| Fault::model(place, format!("cannot be written: {error}")))?;
    Ok((tokenizer, text.into_bytes()))
}

/// Checks the ids of added tokens: the `tokenizers` crate ignores them and continues from the
/// vocabulary.
fn check_added(json: &[u8], tokenizer: &Tokenizer, place: &str) -> Result<(), Fault> {
    let file: Value = serde_json::from_slice(json)
        .map_err(|error| Fault::model(place, format!("is not JSON ({error})")))?;
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let (text, id) = (token["content"].as_str().unwrap_or_default(), &token["id"]);
        let actual = tokenizer.token_to_id(text);
        if actual.map(u64::from) != id.as_u64() {
            return Err(Fault::model(
                place,
                format!("added token `{text}` claims id {id}, which is taken or leaves a gap"),
            ));
        }
    }
    Ok(())
}

/// A `tokenizer.json` of the vocabulary `pieces` and the tokens that `folder` adds.
fn convert(folder: &Path, config: &Settings, pieces: &Vocabulary) -> Result<Vec<u8>, Fault> {
    if config.flag("add_prefix_space")? == Some(false) {
        return Err(Fault::model(
            &config.place,
            "`add_prefix_space` is false, which is not supported with a SentencePiece vocabulary",
        ));
    }
    let legacy = config.flag("legacy")?.unwrap_or(true);
    let mut added = Added::new(pieces);
    let listed = Settings::read(folder.join(ADDED))?;
    for (text, id) in &listed.members {
        added.claim(id.as_u64(), text, &listed.place)?;
    }
    if let Some(decoder) = config.members.get("added_tokens_decoder") {
        let tokens = decoder.as_object();
        let tokens = tokens
            .ok_or_else(|| config.invalid("added_tokens_decoder", decoder, "a table of tokens"))?;
        for (id, token) in tokens {
            let text = token["content"].as_str();
            let text = text.ok_or_else(|| config.invalid(id, token, "a token"))?;
            added.claim(id.parse().ok(), text, &config.place)?;
        }
    }
    let json = pieces.to_json(&added.in_order(folder)?, legacy);
    Ok(json.to_string().into_bytes())
}

/// Tokens that a folder adds to a vocabulary.
struct Added<'a> {
    pieces: &'a Vocabulary,
    ids: BTreeMap<String, u64>,
    texts: BTreeMap<u64, String>,
}

impl<'a> Added<'a> {
    fn new(pieces: &'a Vocabulary) -> Self {
        let pieces_with_ids = (0..pieces.len()).filter_map(|id| Some((pieces.piece(id)?, id)));
        Self {
            pieces,
            ids: pieces_with_ids
                .map(|(text, id)| (text.to_string(), id as u64))
                .collect(),
            texts: BTreeMap::new(),
        }
    }

    /// Adds `text` with `id`, as the file at `place` has it.
    fn claim(&mut self, id: Option<u64>, text: &str, place: &str) -> Result<(), Fault> {
        let fault = |what: String| Fault::model(place, format!("added token `{text}` {what}"));
        let id = id.ok_or_else(|| fault("has no id".to_string()))?;
        if text.is_empty() {
            return Err(fault(format!("of id {id} is empty")));
        }
        let piece = usize::try_from(id)
            .ok()
            .and_then(|id| self.pieces.piece(id));
        let holder = piece.or_else(|| self.texts.get(&id).map(String::as_str));
        if let Some(holder) = holder.filter(|holder| *holder != text) {
            return Err(fault(format!("claims id {id}, which `{holder}` has")));
        }
        if let Some(other) = self.ids.get(text).filter(|other| **other != id) {
            return Err(fault(format!("claims id {id}, but has id {other}")));
        }
        if holder.is_none() {
            self.ids.insert(text.to_string(), id);
            self.texts.insert(id, text.to_string());
        }
        Ok(())
    }

    /// The texts by ascending id; the ids must continue the vocabulary's without a gap.
    fn in_order(self, folder: &Path) -> Result<Vec<String>, Fault> {
        let expected = self.pieces.len() as u64..;
        for (id, (&actual, text)) in expected.zip(&self.texts) {
            if id != actual {
                return Err(Fault::model(
                    folder.join(ADDED).display().to_string(),
                    format!("added token `{text}` has id {actual}, but id {id} is free"),
                ));
            }
        }
        Ok(self.texts.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    const LLAMA: &str = "tests/data/golden/tokenizer_llama";

    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }

    #[derive(Deserialize)]
    struct Cases {
        legacy: Vec<Case>,
        new: Vec<Case>,
        legacy_decode: Vec<Case>,
        new_decode: Vec<Case>,
        vocab_size_with_added: usize,
    }

    /// A temporary copy of a folder of recorded files.
    struct Folder(TempDir);

    impl Folder {
        fn copy(of: &str) -> Self {
            let folder = Self(tempfile::tempdir().expect("a temporary folder"));
            for file in [JSON, MODEL, CONFIG, SPECIAL, ADDED] {
                let from = Path::new(of).join(file);
                if from.exists() {
                    let bytes = std::fs::read(from).expect("a file");
                    std::fs::write(folder.path(file), bytes).expect("a file");
                }
            }
            folder
        }

        fn path(&self, file: &str) -> PathBuf {
            self.0.path().join(file)
        }

        fn write(&self, file: &str, json: &Value) -> &Self {
            std::fs::write(self.path(file), json.to_string()).expect("a file");
            self
        }

        /// Sets `key` of a settings file; `None` removes it.
        fn set(&self, file: &str, key: &str, value: Option<Value>) -> &Self {
            let bytes = std::fs::read(self.path(file)).unwrap_or(b"{}".to_vec());
            let mut all: Value = serde_json::from_slice(&bytes).expect("json");
            let object = all.as_object_mut().expect("an object");
            match value {
                Some(value) => object.insert(key.to_string(), value),
                None => object.remove(key),
            };
            self.write(file, &all)
        }

        fn without(&self, file: &str) -> &Self {
            std::fs::remove_file(self.path(file)).expect("a file");
            self
        }

        fn error(&self) -> String {
            read(self.0.path()).expect_err("rejected").to_string()
        }

        fn read(&self) -> TokenizerFile {
            read(self.0.path()).expect("a tokenizer")
        }
    }

    fn cases() -> Cases {
        let text = std::fs::read_to_string(Path::new(LLAMA).join("cases.json")).expect("a file");
        serde_json::from_str(&text).expect("cases")
    }

    fn check(file: &TokenizerFile, encode: &[Case], decode: &[Case]) {
        let tokenizer = Tokenizer::from_bytes(&file.json).expect("a tokenizer");
        assert_eq!(
            tokenizer.get_vocab_size(true),
            cases().vocab_size_with_added
        );
        assert!(encode.len() > 10 && decode.len() > 1);
        for case in encode {
            let encoding = tokenizer
                .encode_fast(case.text.as_str(), false)
                .expect("ids");
            assert_eq!(encoding.get_ids(), case.ids, "{:?}", case.text);
        }
        for case in decode {
            assert_eq!(tokenizer.decode(&case.ids, false).expect("text"), case.text);
        }
    }

    #[test]
    fn a_sentencepiece_vocabulary_gives_the_recorded_ids() {
        let folder = Folder::copy(LLAMA);
        let file = folder.read();
        check(&file, &cases().legacy, &cases().legacy_decode);
        assert_eq!(file.bos.as_deref(), Some("<s>"));
        assert_eq!(file.eos.as_deref(), Some("</s>"));
        folder.set(CONFIG, "legacy", Some(json!(false)));
        check(&folder.read(), &cases().new, &cases().new_decode);
        folder.set(CONFIG, "legacy", None);
        assert_eq!(folder.read(), file);
        folder.without(CONFIG);
        assert_eq!(folder.read(), file);
    }

    #[test]
    fn missing_tokens_get_the_next_ids() {
        let folder = Folder::copy(LLAMA);
        let vocab = || {
            let tokenizer = Tokenizer::from_bytes(folder.read().json).expect("a tokenizer");
            tokenizer.get_vocab(true)
        };
        let complete = vocab();
        folder.without(ADDED);
        assert_eq!(vocab(), complete);
        folder.write(ADDED, &json!({"<pad>": 420, "<obj1>": 421}));
        let vocab = vocab();
        assert_eq!(vocab.len(), 525);
        let ids = ["<pad>", "<obj1>", "<obj0>", "<obj2>", "</objects>"].map(|token| vocab[token]);
        assert_eq!(ids, [420, 421, 422, 423, 524]);
    }

    #[test]
    fn a_complete_tokenizer_json_is_unchanged() {
        let source = "tests/data/golden/checkpoint/chatrex";
        let folder = Folder::copy(source);
        let json = std::fs::read(folder.path(JSON)).expect("a file");
        let file = folder.read();
        assert_eq!((&file.json, &file.bos, &file.eos), (&json, &None, &None));
        let mut bare: Value = serde_json::from_slice(&json).expect("json");
        let added = bare["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| token["content"].as_str().is_some_and(|t| t.contains('|')));
        folder.write(JSON, &bare);
        let expected = Tokenizer::from_bytes(&json).expect("a tokenizer");
        let actual = Tokenizer::from_bytes(folder.read().json).expect("a tokenizer");
        assert_eq!(actual.get_vocab(true), expected.get_vocab(true));
        let text = "x <obj3></ground> dog";
        let ids = |tokenizer: &Tokenizer| {
            let encoding = tokenizer.encode_fast(text, false).expect("ids");
            encoding.get_ids().to_vec()
        };
        assert_eq!(ids(&actual), ids(&expected));
        bare["added_tokens"][0]["id"] = json!(9999);
        let fault = folder.write(JSON, &bare).error();
        assert!(
            fault.contains("claims id 9999, which is taken or leaves a gap"),
            "{fault}"
        );
    }

    #[test]
    fn special_tokens_are_found_in_every_form() {
        let folder = Folder::copy("tests/data/golden/checkpoint/chatrex");
        let im_end = json!({"content": "<|im_end|>", "special": true});
        folder.set(CONFIG, "eos_token", Some(im_end.clone()));
        folder.set(CONFIG, "bos_token", Some(json!("<|im_start|>")));
        let end = Some("<|im_end|>".to_string());
        let start = Some("<|im_start|>".to_string());
        let both = |folder: &Folder| {
            let file = folder.read();
            (file.bos, file.eos)
        };
        assert_eq!(both(&folder), (None, end.clone()));
        folder.set(CONFIG, "add_bos_token", Some(json!(true)));
        assert_eq!(both(&folder), (start.clone(), end.clone()));
        folder.set(CONFIG, "add_bos_token", None);
        folder.set(CONFIG, "tokenizer_class", Some(json!("LlamaTokenizerFast")));
        assert_eq!(both(&folder), (start, end.clone()));
        folder.set(CONFIG, "bos_token", Some(Value::Null));
        folder.set(SPECIAL, "bos_token", Some(im_end.clone()));
        assert_eq!(both(&folder), (None, end.clone()));
        folder.set(CONFIG, "eos_token", None);
        assert_eq!(both(&folder), (None, None));
        folder.set(SPECIAL, "eos_token", Some(im_end));
        assert_eq!(both(&folder), (None, end));
        let llama = Folder::copy(LLAMA);
        llama.set(CONFIG, "add_bos_token", Some(json!(false)));
        assert_eq!(llama.read().bos, None);
        llama.set(CONFIG, "add_bos_token", None);
        llama.set(CONFIG, "bos_token", None);
        assert_eq!(llama.read().bos.as_deref(), Some("<s>"));
    }

    #[test]
    fn invalid_settings_are_rejected() {
        for (file, key, value, message) in [
            (
                ADDED,
                "<obj9>",
                json!(2000),
                "token `<obj10>` has id 430, but id 429 is free",
            ),
            (
                ADDED,
                "<x>",
                json!(430),
                "claims id 430, which `<obj10>` has",
            ),
            (
                ADDED,
                "<x>",
                json!(7),
                "added token `<x>` claims id 7, which",
            ),
            (ADDED, "<s>", json!(524), "claims id 524, but has id 1"),
            (ADDED, "<x>", json!("524"), "added token `<x>` has no id"),
            (ADDED, "", json!(524), "of id 524 is empty"),
            (
                CONFIG,
                "added_tokens_decoder",
                json!({"430": {"content": "<x>"}}),
                "claims id 430",
            ),
            (
                CONFIG,
                "added_tokens_decoder",
                json!({"524": 3}),
                "`524` is 3 instead of a token",
            ),
            (
                CONFIG,
                "added_tokens_decoder",
                json!([]),
                "instead of a table",
            ),
            (
                CONFIG,
                "bos_token",
                json!("<begin>"),
                "lacks its bos_token `<begin>`",
            ),
            (
                CONFIG,
                "bos_token",
                json!(1),
                "`bos_token` is 1 instead of a token",
            ),
            (
                CONFIG,
                "legacy",
                json!("no"),
                "`legacy` is \"no\" instead of true or false",
            ),
            (CONFIG, "add_prefix_space", json!(false), "is not supported"),
        ] {
            let folder = Folder::copy(LLAMA);
            let fault = folder.set(file, key, Some(value)).error();
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }

    #[test]
    fn damaged_files_are_rejected() {
        let folder = Folder::copy(LLAMA);
        let model = std::fs::read(folder.path(MODEL)).expect("a file");
        let write = |file: &str, bytes: &[u8]| {
            std::fs::write(folder.path(file), bytes).expect("a file");
            folder.error()
        };
        let fault = write(MODEL, &model[..model.len() / 2]);
        assert!(fault.contains("tokenizer.model: is "), "{fault}");
        let fault = write(CONFIG, b"{\"legacy\": true, \"legacy\": false}");
        assert!(
            fault.contains("tokenizer_config.json: cannot be parsed"),
            "{fault}"
        );
        folder.without(CONFIG);
        let fault = write(JSON, b"{}");
        assert!(
            fault.contains("tokenizer.json: this is not a tokenizer"),
            "{fault}"
        );
        folder.without(JSON).without(MODEL);
        assert!(folder.error().contains("holds neither tokenizer.json nor"));
    }
}
