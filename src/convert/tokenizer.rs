//! The tokenizer of a published model as one `tokenizer.json`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::{AddedToken, Tokenizer};

use super::byte_level::{QWEN2_SPLIT, byte_level_model};
use super::checkpoint::Members;
use super::disk;
use super::sentencepiece::Vocabulary;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::text::tokenizer::{add_missing_tags, remove_limits};

/// A tokenizer of the `tokenizers` crate.
const JSON: &str = "tokenizer.json";

/// A SentencePiece vocabulary.
const MODEL: &str = "tokenizer.model";

/// A byte-level vocabulary: tokens and their ids.
const VOCAB: &str = "vocab.json";

/// The merges of a byte-level vocabulary, one per line, the first to apply first.
const MERGES: &str = "merges.txt";

/// The tokenizer's settings, with its special tokens.
const CONFIG: &str = "tokenizer_config.json";

/// The special tokens.
const SPECIAL: &str = "special_tokens_map.json";

/// Tokens beyond the vocabulary and their ids.
const ADDED: &str = "added_tokens.json";

/// The model's configuration.
const MODEL_CONFIG: &str = "config.json";

/// The settings that name the token before a prompt and the one that ends an answer.
const BOS: &str = "bos_token";
const EOS: &str = "eos_token";

/// The settings that name special tokens, and those that list more. Tokens without ids get theirs in
/// this order (`tokenization_utils_base.py` of `github.com/huggingface/transformers`).
const SPECIAL_KEYS: [&str; 7] = [
    BOS,
    EOS,
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];
const SPECIAL_LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The tokenizer of a model folder.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenizerFile {
    /// A `tokenizer.json` with all tokens of the family, without truncation and padding.
    pub json: Vec<u8>,
    /// The token before every prompt, if the tokenizer adds one.
    pub bos: Option<String>,
    /// The token that ends an answer.
    pub eos: Option<String>,
}

/// Reads the tokenizer of the model in `folder`: `tokenizer.json`, else `tokenizer.model`, else
/// `vocab.json` with `merges.txt`. Tokens that `added_tokens.json` and `tokenizer_config.json` list are
/// added with the listed ids. Special tokens come from `tokenizer_config.json`, else from
/// `special_tokens_map.json`. Special tokens without ids, then missing tokens of the family, get the next
/// free ids.
///
/// # Errors
/// There is no tokenizer, it is damaged or of an unsupported kind, its added tokens leave gaps in the ids
/// or claim taken ids, or it lacks a special token.
pub fn read(folder: &Path) -> Result<TokenizerFile, Fault> {
    let special = SpecialTokens::read(folder)?;
    let base = Base::read(folder, &special.config)?;
    let mut tokenizer = base.parse()?;
    let changes = [
        remove_limits(&mut tokenizer),
        add_listed(&mut tokenizer, folder, &special, &base)?,
        add_special(&mut tokenizer, &special, &base)?,
        add_missing_tags(&mut tokenizer, &base.place)? > 0,
    ];
    let text_of = |key: &str| -> Result<Option<String>, Fault> {
        let token = special.token(key, base.default(key))?;
        match token.map(|token| token.content) {
            Some(text) if tokenizer.token_to_id(&text).is_none() => Err(Fault::model(
                &base.place,
                format!("lacks its {key} `{text}`"),
            )),
            text => Ok(text),
        }
    };
    let (bos, eos) = (text_of(BOS)?, text_of(EOS)?);
    let adds_bos = match special.config.flag("add_bos_token")? {
        Some(flag) => flag,
        None => {
            base.kind == Kind::SentencePiece
                || special.config.is_llama()
                || begins_with(&tokenizer, bos.as_deref())
        }
    };
    let json = match changes.contains(&true) {
        true => tokenizer
            .to_string(false)
            .map_err(|error| Fault::model(&base.place, format!("cannot be written: {error}")))?
            .into_bytes(),
        false => base.json,
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

/// The beginning of `text`, for messages.
fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// A special token in a settings file.
enum SpecialToken {
    /// The file does not name it.
    Unset,
    /// The token, or `None` if the file says that there is none.
    Set(Option<AddedToken>),
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
        let value = short(&value.to_string());
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

    fn text(&self, key: &str) -> Option<&str> {
        self.members.get(key).and_then(Value::as_str)
    }

    fn token(&self, key: &str) -> Result<SpecialToken, Fault> {
        match self.members.get(key) {
            None => Ok(SpecialToken::Unset),
            Some(Value::Null) => Ok(SpecialToken::Set(None)),
            Some(value) => match added_token(value, true) {
                Some(token) => Ok(SpecialToken::Set(Some(token))),
                None => Err(self.invalid(key, value, "a token")),
            },
        }
    }

    fn is_llama(&self) -> bool {
        let class = self.text("tokenizer_class");
        class.is_some_and(|class| class.starts_with("Llama") || class.starts_with("CodeLlama"))
    }
}

/// The token of a setting: its text, or an object with the text as `content`. `special` holds where the
/// object does not say it.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    if let Value::String(text) = value {
        return Some(AddedToken::from(text, special));
    }
    let flag = |key: &str, default: bool| {
        let flag = value.get(key).and_then(Value::as_bool);
        flag.unwrap_or(default)
    };
    let text = value.get("content")?.as_str()?;
    let special = flag("special", special);
    let token = AddedToken::from(text, special)
        .single_word(flag("single_word", false))
        .lstrip(flag("lstrip", false))
        .rstrip(flag("rstrip", false))
        .normalized(flag("normalized", !special));
    Some(token)
}

/// The special tokens of a folder.
struct SpecialTokens {
    config: Settings,
    map: Settings,
}

impl SpecialTokens {
    fn read(folder: &Path) -> Result<Self, Fault> {
        Ok(Self {
            config: Settings::read(folder.join(CONFIG))?,
            map: Settings::read(folder.join(SPECIAL))?,
        })
    }

    /// The token that the setting `key` names; `default` if there is no such setting.
    fn token(&self, key: &str, default: Option<&str>) -> Result<Option<AddedToken>, Fault> {
        let named = match self.config.token(key)? {
            SpecialToken::Unset => self.map.token(key)?,
            named => named,
        };
        Ok(match named {
            SpecialToken::Unset => default.map(|text| AddedToken::from(text, true)),
            SpecialToken::Set(token) => token,
        })
    }

    /// All special tokens with the settings that name them, in the order in which they get ids.
    fn named(&self, base: &Base) -> Result<Vec<(&'static str, AddedToken)>, Fault> {
        let mut named = Vec::new();
        for key in SPECIAL_KEYS {
            let token = self.token(key, base.default(key))?;
            named.extend(token.map(|token| (key, token)));
        }
        for key in SPECIAL_LISTS {
            let tokens = self.list(key)?.into_iter();
            named.extend(tokens.map(|token| (key, token)));
        }
        Ok(named)
    }

    /// The tokens in the list `key`.
    fn list(&self, key: &str) -> Result<Vec<AddedToken>, Fault> {
        for settings in [&self.config, &self.map] {
            let tokens = match settings.members.get(key) {
                None => continue,
                Some(Value::Array(tokens)) => tokens,
                Some(_) => break,
            };
            let token = |value: &Value| {
                let token = added_token(value, true);
                token.ok_or_else(|| settings.invalid(key, value, "a token"))
            };
            return tokens.iter().map(token).collect();
        }
        Ok(Vec::new())
    }
}

/// The form in which a folder holds its tokenizer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `tokenizer.json`.
    Json,
    /// `tokenizer.model`.
    SentencePiece,
    /// `vocab.json` and `merges.txt`.
    ByteLevel,
}

/// A tokenizer without the tokens that other files of its folder add.
struct Base {
    place: String,
    kind: Kind,
    /// A `tokenizer.json`.
    json: Vec<u8>,
    /// Settings of special tokens, and the token of each where no file has the setting.
    defaults: Vec<(&'static str, String)>,
}

impl Base {
    fn read(folder: &Path, config: &Settings) -> Result<Self, Fault> {
        let path = |file: &str| folder.join(file);
        if disk::exists(&path(JSON)) {
            Ok(Self {
                place: path(JSON).display().to_string(),
                kind: Kind::Json,
                json: bytes(&path(JSON))?,
                defaults: Vec::new(),
            })
        } else if disk::exists(&path(MODEL)) {
            Self::sentencepiece(&path(MODEL), config)
        } else if disk::exists(&path(VOCAB)) && disk::exists(&path(MERGES)) {
            Self::byte_level(folder, config)
        } else {
            Err(Fault::model(
                folder.display().to_string(),
                format!("holds neither {JSON} nor {MODEL}, nor {VOCAB} with {MERGES}"),
            ))
        }
    }

    fn sentencepiece(path: &Path, config: &Settings) -> Result<Self, Fault> {
        let place = path.display().to_string();
        let pieces = Vocabulary::read(&bytes(path)?, &place)?;
        if config.flag("add_prefix_space")? == Some(false) {
            return Err(Fault::model(
                &config.place,
                "`add_prefix_space` is false, which is not supported with a SentencePiece vocabulary",
            ));
        }
        let legacy = config.flag("legacy")?.unwrap_or(true);
        let defaults = [(BOS, pieces.bos()), (EOS, pieces.eos())];
        let defaults = defaults
            .into_iter()
            .filter_map(|(key, text)| Some((key, text?.to_string())));
        Ok(Self {
            place,
            kind: Kind::SentencePiece,
            json: pieces.to_json(&[], legacy).to_string().into_bytes(),
            defaults: defaults.collect(),
        })
    }

    fn byte_level(folder: &Path, config: &Settings) -> Result<Self, Fault> {
        let class = Class::of(folder, config)?;
        let adds_space = class.adds_space(config)?;
        let path = folder.join(VOCAB);
        let tokens = read_vocab(&path)?;
        let merges = read_merges(&folder.join(MERGES), &tokens)?;
        let json = class.to_json(&tokens, &merges, adds_space);
        let defaults = class.defaults().iter();
        Ok(Self {
            place: path.display().to_string(),
            kind: Kind::ByteLevel,
            json: json.to_string().into_bytes(),
            defaults: defaults
                .map(|key| (*key, END_OF_TEXT.to_string()))
                .collect(),
        })
    }

    fn parse(&self) -> Result<Tokenizer, Fault> {
        let tokenizer = Tokenizer::from_bytes(&self.json).map_err(|error| {
            let what = format!("this is not a tokenizer: {error}");
            Fault::model(&self.place, what)
        })?;
        check_added(&self.json, &tokenizer, &self.place)?;
        Ok(tokenizer)
    }

    /// The token of the setting `key` where no file has it.
    fn default(&self, key: &str) -> Option<&str> {
        let mut defaults = self.defaults.iter();
        let found = defaults.find(|(other, _)| *other == key);
        found.map(|(_, text)| text.as_str())
    }

    /// `token`, found in text as the files say. The normalizer of a SentencePiece vocabulary would change
    /// the token's own text.
    fn found_in_text(&self, token: AddedToken) -> AddedToken {
        let normalized = token.normalized && self.kind != Kind::SentencePiece;
        token.normalized(normalized)
    }
}

/// The special token of the byte-level classes.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A class of byte-level tokenizers, which says how text is normalized and split
/// (`convert_slow_tokenizer.py` of `github.com/huggingface/transformers`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Gpt2,
    Qwen2,
}

impl Class {
    /// The class that the settings name, else the one that belongs to the model's type.
    fn of(folder: &Path, config: &Settings) -> Result<Self, Fault> {
        let model = Settings::read(folder.join(MODEL_CONFIG))?;
        let of_type = match model.text("model_type") {
            Some("gpt2") => Some("GPT2Tokenizer"),
            Some("qwen2") => Some("Qwen2Tokenizer"),
            _ => None,
        };
        let class = config.text("tokenizer_class");
        let class = class.or_else(|| model.text("tokenizer_class")).or(of_type);
        let what = match class {
            Some("GPT2Tokenizer" | "GPT2TokenizerFast") => return Ok(Self::Gpt2),
            Some("Qwen2Tokenizer" | "Qwen2TokenizerFast") => return Ok(Self::Qwen2),
            Some(other) => format!("is {:?}, which is not supported", short(other)),
            None => "is missing".to_string(),
        };
        Err(Fault::new(
            FaultKind::Model,
            &config.place,
            format!(
                "`tokenizer_class` {what}; with {VOCAB} and {MERGES} GPT2Tokenizer and Qwen2Tokenizer are known"
            ),
            format!("Save the tokenizer as {JSON}"),
        )
        .code(ErrorCode::Unsupported))
    }

    /// Whether text begins with a space that is added.
    fn adds_space(self, config: &Settings) -> Result<bool, Fault> {
        let flag = config.flag("add_prefix_space")?.unwrap_or(false);
        if flag && self == Self::Qwen2 {
            return Err(Fault::model(
                &config.place,
                "`add_prefix_space` is true, which is not supported with Qwen2Tokenizer",
            ));
        }
        Ok(flag)
    }

    /// The settings whose token is [`END_OF_TEXT`] where no file has them.
    fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::Gpt2 => &[BOS, EOS, "unk_token"],
            Self::Qwen2 => &[EOS, "unk_token", "pad_token"],
        }
    }

    fn normalizer(self) -> Value {
        match self {
            Self::Gpt2 => Value::Null,
            Self::Qwen2 => json!({"type": "NFC"}),
        }
    }

    fn pre_tokenizer(self, adds_space: bool) -> Value {
        let bytes = json!({
            "type": "ByteLevel",
            "add_prefix_space": adds_space,
            "trim_offsets": true,
            "use_regex": self == Self::Gpt2,
        });
        if self == Self::Gpt2 {
            return bytes;
        }
        let split = json!({
            "type": "Split",
            "pattern": {"Regex": QWEN2_SPLIT},
            "behavior": "Isolated",
            "invert": false,
        });
        json!({"type": "Sequence", "pretokenizers": [split, bytes]})
    }

    /// A `tokenizer.json` of `tokens`, by id, and `merges`.
    fn to_json(self, tokens: &[String], merges: &[(String, String)], adds_space: bool) -> Value {
        let texts = tokens.iter().map(String::as_str);
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": self.normalizer(),
            "pre_tokenizer": self.pre_tokenizer(adds_space),
            "post_processor": null,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": true,
                "trim_offsets": true,
                "use_regex": true,
            },
            "model": byte_level_model(texts, &merges, false),
        })
    }
}

/// The tokens of a `vocab.json` by id.
fn read_vocab(path: &Path) -> Result<Vec<String>, Fault> {
    let place = path.display().to_string();
    let json = bytes(path)?;
    let members = serde_json::from_slice::<Members>(&json)
        .map_err(|error| Fault::model(&place, format!("cannot be parsed ({error})")))?
        .0;
    let count = members.len();
    if count == 0 {
        return Err(Fault::model(place, "has no tokens"));
    }
    let mut tokens: Vec<Option<String>> = vec![None; count];
    for (index, (text, id)) in members.into_iter().enumerate() {
        let fault = |what: String| {
            let line = line_of_string(&json, index);
            let what = format!("token `{}` {what}", short(&text));
            Fault::model(format!("{place}, line {line}"), what)
        };
        let number = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let number =
            number.ok_or_else(|| fault(format!("has no id, but {}", short(&id.to_string()))))?;
        let Some(slot) = tokens.get_mut(number) else {
            let what = format!("has id {number}, but there are {count} tokens: the ids have gaps");
            return Err(fault(what));
        };
        if let Some(holder) = slot.as_deref() {
            return Err(fault(format!("has id {number}, as `{}`", short(holder))));
        }
        *slot = Some(text);
    }
    Ok(tokens.into_iter().flatten().collect())
}

/// The line, counted from 1, on which string `index` of a JSON text begins.
fn line_of_string(json: &[u8], index: usize) -> usize {
    let (mut line, mut quotes, mut is_escaped) = (1, 0, false);
    for byte in json {
        match byte {
            b'\n' => line += 1,
            b'"' if !is_escaped && quotes == 2 * index => return line,
            b'"' if !is_escaped => quotes += 1,
            _ => {}
        }
        is_escaped = *byte == b'\\' && !is_escaped;
    }
    line
}

/// The merges of a `merges.txt`, each of two of `tokens` into a third.
fn read_merges(path: &Path, tokens: &[String]) -> Result<Vec<(String, String)>, Fault> {
    let place = path.display().to_string();
    let content = bytes(path)?;
    let fault = |index: usize, what: String| {
        let line = index + 1;
        Fault::model(format!("{place}, line {line}"), what)
    };
    let text = std::str::from_utf8(&content).map_err(|error| {
        let before = content.iter().take(error.valid_up_to());
        let index = before.filter(|byte| **byte == b'\n').count();
        fault(index, "is not UTF-8".to_string())
    })?;
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let mut seen = HashSet::new();
    let mut merges = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let is_header = index == 0 && line.starts_with("#version");
        if is_header || line.trim().is_empty() {
            continue;
        }
        let pair = pair_of(line, &known).map_err(|what| fault(index, what))?;
        if seen.insert(pair) {
            merges.push((pair.0.to_string(), pair.1.to_string()));
        }
    }
    Ok(merges)
}

/// The two tokens of a line of a `merges.txt`; they and what they merge into are among `known`.
fn pair_of<'a>(line: &'a str, known: &HashSet<&str>) -> Result<(&'a str, &'a str), String> {
    let mut parts = line.split_whitespace();
    let (Some(left), Some(right), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("is {:?} instead of two tokens", short(line)));
    };
    let merged = format!("{left}{right}");
    for token in [left, right, merged.as_str()] {
        if !known.contains(token) {
            let [left, right, token] = [left, right, token].map(short);
            return Err(format!(
                "merges `{left}` and `{right}`, but {VOCAB} has no token `{token}`"
            ));
        }
    }
    Ok((left, right))
}

/// Whether the tokenizer itself prepends `token` to every text.
fn begins_with(tokenizer: &Tokenizer, token: Option<&str>) -> bool {
    let id = token.and_then(|token| tokenizer.token_to_id(token));
    let encoding = tokenizer.encode_fast("", true);
    let first = encoding.ok().and_then(|e| e.get_ids().first().copied());
    id.is_some() && id == first
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

/// Adds the tokens that `added_tokens.json` and `tokenizer_config.json` list, with the listed ids.
/// Returns whether that changes the tokenizer.
fn add_listed(
    tokenizer: &mut Tokenizer,
    folder: &Path,
    special: &SpecialTokens,
    base: &Base,
) -> Result<bool, Fault> {
    let config = &special.config;
    let named = special.named(base)?;
    let mut added = Added::new(tokenizer, base);
    let listed = Settings::read(folder.join(ADDED))?;
    for (text, id) in &listed.members {
        // The file does not say which tokens are special. Those that the vocabulary lacks are.
        let is_named = named.iter().any(|(_, token)| token.content == *text);
        let token = AddedToken::from(text, is_named || !added.ids.contains_key(text));
        let id = added.claim(&id.to_string(), text, &listed.place)?;
        let entry = (base.found_in_text(token), listed.place.clone());
        added.tokens.entry(id).or_insert(entry);
    }
    let decoder = config.members.get("added_tokens_decoder");
    if let Some(decoder) = decoder.filter(|decoder| !decoder.is_null()) {
        let tokens = decoder.as_object();
        let tokens = tokens
            .ok_or_else(|| config.invalid("added_tokens_decoder", decoder, "a table of tokens"))?;
        for (id, value) in tokens {
            let token = added_token(value, false);
            let token = token.ok_or_else(|| config.invalid(id, value, "a token"))?;
            let id = added.claim(id, &token.content, &config.place)?;
            let entry = (base.found_in_text(token), config.place.clone());
            added.tokens.insert(id, entry);
        }
    }
    added.add_to(tokenizer, base)
}

/// The tokens of a tokenizer, and those that are added to it.
struct Added {
    ids: HashMap<String, u32>,
    texts: HashMap<u32, String>,
    /// Added tokens by id, each with the file that lists it.
    tokens: BTreeMap<u32, (AddedToken, String)>,
}

impl Added {
    fn new(tokenizer: &Tokenizer, base: &Base) -> Self {
        let ids = tokenizer.get_vocab(true);
        let own = tokenizer.get_added_tokens_decoder().into_iter();
        Self {
            texts: ids.iter().map(|(text, id)| (*id, text.clone())).collect(),
            ids,
            tokens: own
                .map(|(id, token)| (id, (token, base.place.clone())))
                .collect(),
        }
    }

    /// Checks that the token `text` can have the id that the file at `place` writes as `written`, and
    /// returns the id.
    fn claim(&mut self, written: &str, text: &str, place: &str) -> Result<u32, Fault> {
        let fault =
            |what: String| Fault::model(place, format!("added token `{}` {what}", short(text)));
        let id = written.parse::<u32>();
        let id = id.map_err(|_| fault(format!("has no id, but {}", short(written))))?;
        if text.is_empty() {
            return Err(fault(format!("of id {id} is empty")));
        }
        let holder = self.texts.get(&id).filter(|holder| *holder != text);
        if let Some(holder) = holder {
            let what = format!("claims id {id}, which `{}` has", short(holder));
            return Err(fault(what));
        }
        if let Some(other) = self.ids.get(text).filter(|other| **other != id) {
            return Err(fault(format!("claims id {id}, but has id {other}")));
        }
        self.ids.insert(text.to_string(), id);
        self.texts.insert(id, text.to_string());
        Ok(id)
    }

    /// Adds the tokens to `tokenizer`, which gives them the next free ids. Returns whether that changes
    /// it.
    fn add_to(self, tokenizer: &mut Tokenizer, base: &Base) -> Result<bool, Fault> {
        let tokens = self.tokens.values().map(|(token, _)| token.clone());
        let count = add(tokenizer, tokens, base)?;
        for (id, (token, place)) in &self.tokens {
            let text = &token.content;
            let given = tokenizer.token_to_id(text);
            if let Some(given) = given.filter(|given| given != id) {
                let text = short(text);
                let what = format!("added token `{text}` has id {id}, but id {given} is free");
                return Err(Fault::model(place, what));
            }
        }
        Ok(count > 0)
    }
}

/// Adds `tokens`; returns how many of them are new or have other properties than before.
fn add(
    tokenizer: &mut Tokenizer,
    tokens: impl IntoIterator<Item = AddedToken>,
    base: &Base,
) -> Result<usize, Fault> {
    tokenizer
        .add_tokens(tokens)
        .map_err(|error| Fault::model(&base.place, format!("cannot add tokens: {error}")))
}

/// Gives the special tokens that have no ids the next free ones. Returns whether there are any.
///
/// A byte-level vocabulary has no control tokens of its own. Every other one must have those that begin
/// a prompt and end an answer, and its words stay words if they are also special tokens.
fn add_special(
    tokenizer: &mut Tokenizer,
    special: &SpecialTokens,
    base: &Base,
) -> Result<bool, Fault> {
    let added = tokenizer.get_added_vocabulary().get_vocab();
    let mut named = special.named(base)?;
    named.retain(|(key, token)| match base.kind {
        Kind::ByteLevel => !added.contains_key(&token.content),
        _ => ![BOS, EOS].contains(key) && tokenizer.token_to_id(&token.content).is_none(),
    });
    let tokens = named
        .into_iter()
        .map(|(_, token)| base.found_in_text(token.special(true)));
    Ok(add(tokenizer, tokens, base)? > 0)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use tempfile::TempDir;

    use super::*;

    const LLAMA: &str = "tests/data/golden/tokenizer_llama";
    const CHATREX: &str = "tests/data/golden/checkpoint/chatrex";

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

    fn ids(file: &TokenizerFile, text: &str) -> Vec<u32> {
        let tokenizer = Tokenizer::from_bytes(&file.json).expect("a tokenizer");
        let encoding = tokenizer.encode_fast(text, false).expect("ids");
        encoding.get_ids().to_vec()
    }

    /// The ids of tokens by their texts.
    fn ids_of<const N: usize>(file: &TokenizerFile, tokens: [&str; N]) -> [Option<u32>; N] {
        let tokenizer = Tokenizer::from_bytes(&file.json).expect("a tokenizer");
        tokens.map(|token| tokenizer.token_to_id(token))
    }

    /// The recorded `tokenizer.json`.
    fn recorded() -> Value {
        let json = std::fs::read(Path::new(CHATREX).join(JSON)).expect("a file");
        serde_json::from_slice(&json).expect("json")
    }

    /// The recorded tokenizer without the tags of the family.
    fn without_tags() -> Folder {
        let mut file = recorded();
        let added = file["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| token["content"].as_str().is_some_and(|t| t.contains('|')));
        let folder = Folder::copy(CHATREX);
        folder.write(JSON, &file);
        folder
    }

    /// The recorded tokenizer in the files of a tokenizer of `class` that is not in one file.
    fn byte_level(class: &str) -> Folder {
        let file = recorded();
        let mut merges = "#version: 0.2\n".to_string();
        for pair in file["model"]["merges"].as_array().expect("merges") {
            let [left, right] = [0usize, 1].map(|at| pair[at].as_str().expect("a token"));
            merges.push_str(&format!("{left} {right}\n"));
        }
        let mut added = json!({});
        for token in file["added_tokens"].as_array().expect("tokens") {
            added[token["content"].as_str().expect("a token")] = token["id"].clone();
        }
        let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
        std::fs::write(folder.path(MERGES), merges).expect("a file");
        folder
            .write(VOCAB, &file["model"]["vocab"])
            .write(ADDED, &added)
            .set(CONFIG, "tokenizer_class", Some(json!(class)))
            .set(CONFIG, "eos_token", Some(json!("<|im_end|>")));
        folder
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
        let folder = Folder::copy(CHATREX);
        let json = std::fs::read(folder.path(JSON)).expect("a file");
        let file = folder.read();
        assert_eq!((&file.json, &file.bos, &file.eos), (&json, &None, &None));
        let mut bare: Value = serde_json::from_slice(&json).expect("json");
        let added = bare["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| token["content"].as_str().is_some_and(|t| t.contains('|')));
        folder.write(JSON, &bare);
        let expected = Tokenizer::from_bytes(&json).expect("a tokenizer");
        let completed = folder.read();
        let actual = Tokenizer::from_bytes(&completed.json).expect("a tokenizer");
        assert_eq!(actual.get_vocab(true), expected.get_vocab(true));
        let text = "x <obj3></ground> dog";
        assert_eq!(ids(&completed, text), ids(&file, text));
        bare["added_tokens"][0]["id"] = json!(9999);
        let fault = folder.write(JSON, &bare).error();
        assert!(
            fault.contains("claims id 9999, which is taken or leaves a gap"),
            "{fault}"
        );
    }

    #[test]
    fn special_tokens_are_found_in_every_form() {
        let folder = Folder::copy(CHATREX);
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

    #[test]
    fn truncation_and_padding_are_removed() {
        let folder = Folder::copy(CHATREX);
        let whole = folder.read();
        let mut file = recorded();
        file["truncation"] = json!({
            "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
        });
        file["padding"] = json!({
            "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
        });
        let read = folder.write(JSON, &file).read();
        let json: Value = serde_json::from_slice(&read.json).expect("json");
        assert!(json["truncation"].is_null() && json["padding"].is_null());
        for text in ["x", "How many dogs are there? <obj3>"] {
            assert_eq!(ids(&read, text), ids(&whole, text), "{text}");
        }
    }

    #[test]
    fn listed_tokens_keep_their_ids() {
        // The grounding tags come first, and the indices in descending order.
        let tags = ["<ground>", "</ground>", "<objects>", "</objects>"].map(str::to_string);
        let indices = (0..100).rev().map(|index| format!("<obj{index}>"));
        let (mut list, mut table) = (json!({}), json!({}));
        for (id, token) in (423..).zip(tags.into_iter().chain(indices)) {
            table[id.to_string()] = json!({"content": token, "special": true, "lstrip": true});
            list[token] = json!(id);
        }
        let expected: [Option<u32>; 4] = [423, 426, 427, 526].map(Some);
        let tokens = ["<ground>", "</objects>", "<obj99>", "<obj0>"];
        for (has_list, has_table) in [(true, false), (false, true), (true, true)] {
            let folder = without_tags();
            if has_list {
                folder.write(ADDED, &list);
            }
            if has_table {
                folder.set(CONFIG, "added_tokens_decoder", Some(table.clone()));
            }
            let file = folder.read();
            assert_eq!(ids_of(&file, tokens), expected, "{has_list} {has_table}");
            let json: Value = serde_json::from_slice(&file.json).expect("json");
            let added = json["added_tokens"].as_array().expect("tokens");
            let tag = added.iter().find(|token| token["id"] == 426);
            let tag = tag.expect("the tag");
            assert_eq!(
                (&tag["content"], &tag["special"]),
                (&json!("</objects>"), &json!(true))
            );
            assert_eq!(tag["lstrip"], json!(has_table));
        }
    }

    #[test]
    fn listed_ids_that_contradict_are_rejected() {
        for (list, table, message) in [
            (
                json!({"<a>": 423}),
                json!({"424": {"content": "<a>"}}),
                "tokenizer_config.json: added token `<a>` claims id 424, but has id 423",
            ),
            (
                json!({"<a>": 423}),
                json!({"423": {"content": "<b>"}}),
                "tokenizer_config.json: added token `<b>` claims id 423, which `<a>` has",
            ),
            (
                json!({"<a>": 421}),
                json!({}),
                "added_tokens.json: added token `<a>` claims id 421, which `<|endoftext|>` has",
            ),
            (
                json!({"<a>": 0}),
                json!(null),
                "added_tokens.json: added token `<a>` claims id 0, which `!` has",
            ),
            (
                json!({}),
                json!({"423": {"content": "<|im_end|>"}}),
                "added token `<|im_end|>` claims id 423, but has id 420",
            ),
            (
                json!({"<a>": 424}),
                json!({}),
                "added_tokens.json: added token `<a>` has id 424, but id 423 is free",
            ),
            (
                json!({"<a>": 4294967296u64}),
                json!({}),
                "added token `<a>` has no id, but 4294967296",
            ),
            (
                json!({}),
                json!({"x": {"content": "<a>"}}),
                "added token `<a>` has no id, but x",
            ),
        ] {
            let folder = without_tags();
            folder
                .write(ADDED, &list)
                .set(CONFIG, "added_tokens_decoder", Some(table));
            let fault = folder.error();
            assert!(fault.contains(message), "{message}: {fault}");
        }
        // The recorded ids of the tags are others.
        let folder = Folder::copy(CHATREX);
        let fault = folder.write(ADDED, &json!({"<obj0>": 424})).error();
        let message = "added token `<obj0>` claims id 424, which `<obj1>` has";
        assert!(fault.contains(message), "{fault}");
    }

    /// As `transformers` 4.57 and 5.24 count.
    #[test]
    fn special_tokens_without_ids_get_the_next_ones() {
        let tokens = [
            "<|im_end|>",
            "<|endoftext|>",
            "[PAD]",
            "<ground>",
            "<obj1>",
            "<obj0>",
        ];
        let with_names = |folder: &Folder| {
            let more = json!(["<ground>", {"content": "<obj1>"}]);
            folder
                .set(CONFIG, "additional_special_tokens", Some(more))
                .set(SPECIAL, "pad_token", Some(json!("[PAD]")));
            ids_of(&folder.read(), tokens)
        };
        let expected: [Option<u32>; 6] = [420, 421, 423, 424, 425, 426].map(Some);
        assert_eq!(with_names(&without_tags()), expected);
        for (class, expected) in [
            ("Qwen2Tokenizer", [420u32, 421, 422, 423, 424, 425]),
            ("GPT2Tokenizer", [421, 420, 422, 423, 424, 425]),
        ] {
            let folder = byte_level(class);
            folder.without(ADDED);
            assert_eq!(with_names(&folder), expected.map(Some), "{class}");
        }
    }

    /// The ids are those of `transformers` 4.57 and 5.24.
    #[test]
    fn a_byte_level_vocabulary_gives_the_recorded_ids() {
        let text = "It's 2 dogs, <obj3> and\n\nthe cafe\u{301}.";
        let start: &[u32] = &[
            40, 83, 6, 82, 220, 17, 220, 67, 78, 70, 82, 11, 220, 426, 288, 198, 198, 256, 68, 303,
            64, 69,
        ];
        let composed = [start, &[127, 102, 13][..]].concat();
        let decomposed = [start, &[68, 136, 223, 13][..]].concat();
        for (class, expected) in [
            ("Qwen2Tokenizer", &composed),
            ("Qwen2TokenizerFast", &composed),
            ("GPT2Tokenizer", &decomposed),
            ("GPT2TokenizerFast", &decomposed),
        ] {
            let file = byte_level(class).read();
            assert_eq!(ids(&file, text), *expected, "{class}");
            let tokens = ["<|im_end|>", "<obj0>", "</objects>", "<tag>"];
            let expected: [Option<u32>; 4] = [Some(420), Some(423), Some(526), None];
            assert_eq!(ids_of(&file, tokens), expected, "{class}");
            let tokenizer = Tokenizer::from_bytes(&file.json).expect("a tokenizer");
            let back = tokenizer.decode(&ids(&file, "two dogs"), false);
            assert_eq!(back.expect("text"), "two dogs");
            assert_eq!(file.eos.as_deref(), Some("<|im_end|>"));
            assert_eq!(file.bos, None);
        }
        let folder = byte_level("GPT2Tokenizer");
        folder.set(CONFIG, "add_prefix_space", Some(json!(true)));
        let file = folder.read();
        assert_eq!(ids(&file, text), [&[220][..], &decomposed[..]].concat());
        assert_eq!(ids(&file, " dogs"), [220, 67, 78, 70, 82]);
        folder.set(CONFIG, "add_bos_token", Some(json!(true)));
        folder.set(CONFIG, "eos_token", None);
        let file = folder.read();
        let expected = Some("<|endoftext|>".to_string());
        assert_eq!((file.bos, file.eos), (expected.clone(), expected));
    }

    #[test]
    fn the_class_of_a_byte_level_tokenizer_must_be_known() {
        let folder = byte_level("CodeGenTokenizer");
        let known = "GPT2Tokenizer and Qwen2Tokenizer are known";
        let fault = folder.error();
        assert!(
            fault.contains("is \"CodeGenTokenizer\", which is not supported")
                && fault.contains(known),
            "{fault}"
        );
        let fault = folder.set(CONFIG, "tokenizer_class", None).error();
        assert!(
            fault.contains("`tokenizer_class` is missing") && fault.contains(known),
            "{fault}"
        );
        let expected = byte_level("Qwen2Tokenizer").read();
        folder.write(MODEL_CONFIG, &json!({"model_type": "qwen2"}));
        assert_eq!(folder.read(), expected);
        folder.write(
            MODEL_CONFIG,
            &json!({"model_type": "gpt2", "tokenizer_class": "Qwen2Tokenizer"}),
        );
        assert_eq!(folder.read(), expected);
        let fault = folder.set(CONFIG, "add_prefix_space", Some(json!(true)));
        let fault = fault.error();
        assert!(fault.contains("`add_prefix_space` is true"), "{fault}");
    }

    #[test]
    fn merges_are_read_in_every_form() {
        let folder = byte_level("Qwen2Tokenizer");
        let expected = folder.read();
        let merges = std::fs::read_to_string(folder.path(MERGES)).expect("a file");
        let (header, bare) = merges.split_once('\n').expect("a header");
        let first = bare.lines().next().expect("a merge");
        for form in [
            bare.to_string(),
            merges.replace('\n', "\r\n"),
            merges.replace('\n', "\n\n"),
            merges.trim_end().to_string(),
            format!("{header}\n{bare}{first}\n"),
        ] {
            std::fs::write(folder.path(MERGES), form).expect("a file");
            assert_eq!(folder.read(), expected);
        }
        folder.without(MERGES);
        assert!(folder.error().contains("nor vocab.json with merges.txt"));
    }

    #[test]
    fn damaged_byte_level_files_are_rejected() {
        let cases: [(&str, &[u8], &str); 11] = [
            (
                VOCAB,
                b"{\n\"a\": 0,\n\"b\": 1,\n\"c\": 1\n}",
                "vocab.json, line 4: token `c` has id 1, as `b`",
            ),
            (
                VOCAB,
                b"{\"a\\\"\": 0,\n\"b\\\\\": 1,\n\n\"c\": 0}",
                "vocab.json, line 4: token `c` has id 0, as `a\"`",
            ),
            (
                VOCAB,
                b"{\n\"a\": 0,\n\"b\": 7}",
                "vocab.json, line 3: token `b` has id 7, but there are 2 tokens",
            ),
            (
                VOCAB,
                b"{\"a\": \"0\"}",
                "vocab.json, line 1: token `a` has no id, but \"0\"",
            ),
            (
                VOCAB,
                b"{\"a\": 0, \"a\": 1}",
                "`a` is named twice at line 1",
            ),
            (VOCAB, b"{}", "vocab.json: has no tokens"),
            (
                MERGES,
                b"#version: 0.2\nt h\nt\n",
                "merges.txt, line 3: is \"t\" instead of two tokens",
            ),
            (
                MERGES,
                b"t h\nt h e\n",
                "merges.txt, line 2: is \"t h e\" instead of two tokens",
            ),
            (
                MERGES,
                b"t h\n\nt zz\n",
                "merges.txt, line 3: merges `t` and `zz`, but vocab.json has no token `zz`",
            ),
            (
                MERGES,
                b"! !",
                "merges.txt, line 1: merges `!` and `!`, but vocab.json has no token `!!`",
            ),
            (MERGES, b"t h\n\xff", "merges.txt, line 2: is not UTF-8"),
        ];
        for (file, content, message) in cases {
            let folder = byte_level("Qwen2Tokenizer");
            std::fs::write(folder.path(file), content).expect("a file");
            let fault = folder.error();
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }
}
