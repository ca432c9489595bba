//! The tokenizer of a published model as one `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::checkpoint::Members;
use super::sentencepiece::Vocabulary;
use crate::error::Fault;
use crate::text::tokenizer::add_missing_tags;

/// The tokenizer the `tokenizers` crate reads.
const JSON: &str = "tokenizer.json";

/// A SentencePiece vocabulary.
const MODEL: &str = "tokenizer.model";

/// Settings of the tokenizer, among them the names of its special tokens.
const CONFIG: &str = "tokenizer_config.json";

/// The names of the special tokens.
const SPECIAL: &str = "special_tokens_map.json";

/// Tokens beyond the vocabulary and their ids.
const ADDED: &str = "added_tokens.json";

/// A tokenizer ready to be shipped.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenizerFile {
    /// A `tokenizer.json` with all tokens of the family.
    pub json: Vec<u8>,
    /// The token every prompt begins with, where the tokenizer is to put it.
    pub bos: Option<String>,
    /// The token that ends an answer.
    pub eos: Option<String>,
}

/// Reads the tokenizer of the model in `folder`: `tokenizer.json`, else `tokenizer.model` with
/// `added_tokens.json`; the special tokens after `tokenizer_config.json` and
/// `special_tokens_map.json`. Those of the family's tokens that it lacks get the next free ids
/// (`chatrex.md` 7.1).
///
/// # Errors
/// There is no tokenizer, it is damaged or of a kind that is not read, its added tokens leave out
/// ids or claim taken ones, or a special token is not in it.
pub fn read(folder: &Path) -> Result<TokenizerFile, Fault> {
    let config = Settings::read(folder.join(CONFIG))?;
    let special = Settings::read(folder.join(SPECIAL))?;
    let json = folder.join(JSON);
    let model = folder.join(MODEL);
    let (place, json, pieces) = if json.exists() {
        (json.display().to_string(), bytes(&json)?, None)
    } else if model.exists() {
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
    let (tokenizer, json) = complete(json, &place)?;
    let named = |key: &str, default: Option<&str>| -> Result<Option<String>, Fault> {
        let token = match config.token(key)? {
            Named::Absent => match special.token(key)? {
                Named::Absent => default.map(str::to_string),
                Named::As(token) => token,
            },
            Named::As(token) => token,
        };
        match token {
            Some(token) if tokenizer.token_to_id(&token).is_none() => {
                Err(Fault::model(&place, format!("lacks its {key} `{token}`")))
            }
            token => Ok(token),
        }
    };
    let bos = named("bos_token", pieces.as_ref().and_then(Vocabulary::bos))?;
    let eos = named("eos_token", pieces.as_ref().and_then(Vocabulary::eos))?;
    let puts_bos = match config.flag("add_bos_token")? {
        Some(flag) => flag,
        None => pieces.is_some() || config.is_llama() || begins_with(&tokenizer, bos.as_deref()),
    };
    Ok(TokenizerFile {
        json,
        bos: bos.filter(|_| puts_bos),
        eos,
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| {
        let what = format!("cannot be read ({error})");
        Fault::model(path.display().to_string(), what)
    })
}

/// What a settings file says about a special token.
enum Named {
    /// Nothing.
    Absent,
    /// Its text, or that there is none.
    As(Option<String>),
}

/// A JSON object; empty where the file is absent.
struct Settings {
    place: String,
    members: BTreeMap<String, Value>,
}

impl Settings {
    fn read(path: PathBuf) -> Result<Self, Fault> {
        let place = path.display().to_string();
        let members = match path.exists() {
            true => serde_json::from_slice::<Members>(&bytes(&path)?)
                .map_err(|error| Fault::model(&place, format!("is not read ({error})")))?
                .0
                .into_iter()
                .collect(),
            false => BTreeMap::new(),
        };
        Ok(Self { place, members })
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Fault {
        Fault::model(
            &self.place,
            format!("`{key}` is {value} instead of {expected}"),
        )
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        match self.members.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A token is its text or an object with the text as `content`.
    fn token(&self, key: &str) -> Result<Named, Fault> {
        let Some(value) = self.members.get(key) else {
            return Ok(Named::Absent);
        };
        match (value, value.get("content")) {
            (Value::Null, _) => Ok(Named::As(None)),
            (Value::String(token), _) | (_, Some(Value::String(token))) => {
                Ok(Named::As(Some(token.clone())))
            }
            _ => Err(self.wrong(key, value, "a token")),
        }
    }

    fn is_llama(&self) -> bool {
        let class = self.members.get("tokenizer_class").and_then(Value::as_str);
        class.is_some_and(|class| class.starts_with("Llama") || class.starts_with("CodeLlama"))
    }
}

/// Whether the tokenizer itself puts `token` before every text.
fn begins_with(tokenizer: &Tokenizer, token: Option<&str>) -> bool {
    let id = token.and_then(|token| tokenizer.token_to_id(token));
    let encoding = tokenizer.encode_fast("", true);
    let first = encoding.ok().and_then(|e| e.get_ids().first().copied());
    id.is_some() && id == first
}

/// The tokenizer with all of the family's tokens, and its file: `json` itself if it has them all.
fn complete(json: Vec<u8>, place: &str) -> Result<(Tokenizer, Vec<u8>), Fault> {
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

/// The ids of added tokens are only remarks to the `tokenizers` crate, which counts on from the
/// vocabulary: they must say the same.
fn check_added(json: &[u8], tokenizer: &Tokenizer, place: &str) -> Result<(), Fault> {
    let file: Value = serde_json::from_slice(json)
        .map_err(|error| Fault::model(place, format!("is not JSON ({error})")))?;
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let (text, id) = (token["content"].as_str().unwrap_or_default(), &token["id"]);
        let given = tokenizer.token_to_id(text);
        if given.map(u64::from) != id.as_u64() {
            return Err(Fault::model(
                place,
                format!("added token `{text}` claims id {id}, which is taken or leaves a gap"),
            ));
        }
    }
    Ok(())
}

/// A `tokenizer.json` of the vocabulary `pieces` and the tokens that `folder` adds to it.
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
            .ok_or_else(|| config.wrong("added_tokens_decoder", decoder, "a table of tokens"))?;
        for (id, token) in tokens {
            let text = token["content"].as_str();
            let text = text.ok_or_else(|| config.wrong(id, token, "a token"))?;
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

    /// Notes that `text` has `id`, as the file at `place` says.
    fn claim(&mut self, id: Option<u64>, text: &str, place: &str) -> Result<(), Fault> {
        let refuse = |what: String| Fault::model(place, format!("added token `{text}` {what}"));
        let id = id.ok_or_else(|| refuse("has no id".to_string()))?;
        if text.is_empty() {
            return Err(refuse(format!("of id {id} is empty")));
        }
        let piece = usize::try_from(id)
            .ok()
            .and_then(|id| self.pieces.piece(id));
        let holder = piece.or_else(|| self.texts.get(&id).map(String::as_str));
        if let Some(holder) = holder.filter(|holder| *holder != text) {
            return Err(refuse(format!("claims id {id}, which `{holder}` has")));
        }
        if let Some(other) = self.ids.get(text).filter(|other| **other != id) {
            return Err(refuse(format!("claims id {id}, but has id {other}")));
        }
        if holder.is_none() {
            self.ids.insert(text.to_string(), id);
            self.texts.insert(id, text.to_string());
        }
        Ok(())
    }

    /// The texts in the order of their ids, which follow the vocabulary's without a gap.
    fn in_order(self, folder: &Path) -> Result<Vec<String>, Fault> {
        let expected = self.pieces.len() as u64..;
        for (id, (&have, text)) in expected.zip(&self.texts) {
            if id != have {
                return Err(Fault::model(
                    folder.join(ADDED).display().to_string(),
                    format!("added token `{text}` has id {have}, but id {id} is free"),
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

    /// A copy of a folder of recorded files that goes when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn copy(of: &str, name: &str) -> Self {
            let id = std::process::id();
            let folder = std::env::temp_dir().join(format!("chatrex-tokenizer-{id}-{name}"));
            std::fs::create_dir_all(&folder).expect("a folder");
            for file in [JSON, MODEL, CONFIG, SPECIAL, ADDED] {
                let from = Path::new(of).join(file);
                if from.exists() {
                    let bytes = std::fs::read(from).expect("a file");
                    std::fs::write(folder.join(file), bytes).expect("a file");
                }
            }
            Self(folder)
        }

        fn write(&self, file: &str, json: &Value) -> &Self {
            std::fs::write(self.0.join(file), json.to_string()).expect("a file");
            self
        }

        /// Sets `key` of a settings file, `None` removes it.
        fn set(&self, file: &str, key: &str, value: Option<Value>) -> &Self {
            let bytes = std::fs::read(self.0.join(file)).unwrap_or(b"{}".to_vec());
            let mut all: Value = serde_json::from_slice(&bytes).expect("json");
            let object = all.as_object_mut().expect("an object");
            match value {
                Some(value) => object.insert(key.to_string(), value),
                None => object.remove(key),
            };
            self.write(file, &all)
        }

        fn without(&self, file: &str) -> &Self {
            std::fs::remove_file(self.0.join(file)).expect("a file");
            self
        }

        fn refusal(&self) -> String {
            read(&self.0).expect_err("refused").to_string()
        }

        fn read(&self) -> TokenizerFile {
            read(&self.0).expect("a tokenizer")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("a folder");
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
        let folder = Folder::copy(LLAMA, "llama");
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
    fn lacking_tokens_get_the_next_ids() {
        let folder = Folder::copy(LLAMA, "lacking");
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
    fn a_complete_tokenizer_json_is_taken_as_it_is() {
        let source = "tests/data/golden/checkpoint/chatrex";
        let folder = Folder::copy(source, "qwen");
        let json = std::fs::read(folder.0.join(JSON)).expect("a file");
        let file = folder.read();
        assert_eq!((&file.json, &file.bos, &file.eos), (&json, &None, &None));
        let mut bare: Value = serde_json::from_slice(&json).expect("json");
        let added = bare["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| token["content"].as_str().is_some_and(|t| t.contains('|')));
        folder.write(JSON, &bare);
        let (have, want) = (folder.read(), Tokenizer::from_bytes(&json).expect("one"));
        let have = Tokenizer::from_bytes(have.json).expect("a tokenizer");
        assert_eq!(have.get_vocab(true), want.get_vocab(true));
        let text = "x <obj3></ground> dog";
        let ids = |tokenizer: &Tokenizer| {
            let encoding = tokenizer.encode_fast(text, false).expect("ids");
            encoding.get_ids().to_vec()
        };
        assert_eq!(ids(&have), ids(&want));
        bare["added_tokens"][0]["id"] = json!(9999);
        let fault = folder.write(JSON, &bare).refusal();
        assert!(
            fault.contains("claims id 9999, which is taken or leaves a gap"),
            "{fault}"
        );
    }

    #[test]
    fn special_tokens_are_found_in_every_form() {
        let folder = Folder::copy("tests/data/golden/checkpoint/chatrex", "special");
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
        let llama = Folder::copy(LLAMA, "special-llama");
        llama.set(CONFIG, "add_bos_token", Some(json!(false)));
        assert_eq!(llama.read().bos, None);
        llama.set(CONFIG, "add_bos_token", None);
        llama.set(CONFIG, "bos_token", None);
        assert_eq!(llama.read().bos.as_deref(), Some("<s>"));
    }

    #[test]
    fn wrong_settings_are_refused() {
        for (file, key, value, says) in [
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
            let folder = Folder::copy(LLAMA, "settings");
            let fault = folder.set(file, key, Some(value)).refusal();
            assert!(fault.contains(says), "{says}: {fault}");
        }
    }

    #[test]
    fn damaged_files_are_refused_by_name() {
        let folder = Folder::copy(LLAMA, "damaged");
        let model = std::fs::read(folder.0.join(MODEL)).expect("a file");
        let write = |file: &str, bytes: &[u8]| {
            std::fs::write(folder.0.join(file), bytes).expect("a file");
            folder.refusal()
        };
        let fault = write(MODEL, &model[..model.len() / 2]);
        assert!(fault.contains("tokenizer.model: is "), "{fault}");
        let fault = write(CONFIG, b"{\"legacy\": true, \"legacy\": false}");
        assert!(
            fault.contains("tokenizer_config.json: is not read"),
            "{fault}"
        );
        folder.without(CONFIG);
        let fault = write(JSON, b"{}");
        assert!(
            fault.contains("tokenizer.json: this is not a tokenizer"),
            "{fault}"
        );
        folder.without(JSON).without(MODEL);
        assert!(
            folder
                .refusal()
                .contains("holds neither tokenizer.json nor")
        );
    }
}
