//! The tokenizer: prompts to token ids and back, from a `tokenizer.json`.

use tokenizers::AddedToken;

use super::prompt::{IMAGE, IMAGE_SLOT, MAX_BOXES, OBJECT, OBJECT_SLOT, index_tag};
use crate::error::{Fault, FaultKind};

/// The tags of the answer grammar, which follow the index tags in the vocabulary.
const TAGS: [&str; 4] = ["<ground>", "</ground>", "<objects>", "</objects>"];

/// Adds those of `<obj0>` .. `<obj99>` and the four grounding tags that `inner` lacks, in this order,
/// with the next free ids. Returns their number. `place` names the file in errors.
///
/// # Errors
/// The tokenizer rejects them.
pub fn add_missing_tags(inner: &mut tokenizers::Tokenizer, place: &str) -> Result<usize, Fault> {
    let missing: Vec<AddedToken> = (0..MAX_BOXES as u32)
        .map(index_tag)
        .chain(TAGS.map(str::to_string))
        .filter(|token| inner.token_to_id(token).is_none())
        .map(|token| AddedToken::from(token, true))
        .collect();
    let count = missing.len();
    inner
        .add_special_tokens(missing)
        .map_err(|error| Fault::model(place, format!("cannot add tokens: {error}")))?;
    Ok(count)
}

/// Removes truncation and padding, which act on every text and belong to the program that wrote the file.
/// Returns whether there were any.
pub fn remove_limits(inner: &mut tokenizers::Tokenizer) -> bool {
    let has_any = inner.get_truncation().is_some() || inner.get_padding().is_some();
    inner.with_padding(None);
    inner
        .with_truncation(None)
        .expect("a tokenizer may do without truncation");
    has_any
}

/// A tokenizer, with the index and grounding tags of the ChatRex family if its model points at boxes.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
}

impl Tokenizer {
    /// Parses a `tokenizer.json`, without its truncation and padding, and adds the tags that it lacks
    /// (`docs/reference/chatrex.md`, section 7.1). `place` names the file in errors. `bos` is the token that
    /// every prompt begins with, if any.
    ///
    /// # Errors
    /// Not a tokenizer, or one without the token `bos`.
    pub fn from_json(json: &[u8], place: &str, bos: Option<&str>) -> Result<Self, Fault> {
        let mut inner = parse(json, place)?;
        add_missing_tags(&mut inner, place)?;
        Self::with_bos(inner, place, bos)
    }

    /// As [`Tokenizer::from_json`], without adding tags: for a model that answers text alone.
    ///
    /// # Errors
    /// Those of [`Tokenizer::from_json`].
    pub fn plain(json: &[u8], place: &str, bos: Option<&str>) -> Result<Self, Fault> {
        Self::with_bos(parse(json, place)?, place, bos)
    }

    fn with_bos(
        inner: tokenizers::Tokenizer,
        place: &str,
        bos: Option<&str>,
    ) -> Result<Self, Fault> {
        let mut tokenizer = Self { inner, bos: None };
        tokenizer.bos = bos
            .map(|token| {
                tokenizer.id(token).map_err(|fault| Fault {
                    place: place.to_string(),
                    ..fault
                })
            })
            .transpose()?;
        Ok(tokenizer)
    }

    /// The vocabulary size: ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of one token by its exact text.
    ///
    /// # Errors
    /// The vocabulary does not contain it.
    pub fn id(&self, token: &str) -> Result<u32, Fault> {
        self.inner
            .token_to_id(token)
            .ok_or_else(|| Fault::model("tokenizer", format!("token `{token}` is missing")))
    }

    /// The token with id `id`, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Checks that `text`, which a user wrote or a model generated, has none of the special tokens that
    /// mark the turns of a conversation. The tags of the answer grammar are allowed.
    ///
    /// # Errors
    /// It has one.
    pub fn check_words(&self, text: &str) -> Result<(), Fault> {
        let tokens = self.inner.get_added_tokens_decoder();
        let mark = tokens.values().filter(|token| token.special).find(|token| {
            let word = token.content.as_str();
            let is_tag = TAGS.contains(&word) || word.starts_with("<obj");
            !is_tag && !word.is_empty() && text.contains(word)
        });
        match mark {
            Some(mark) => Err(Fault::new(
                FaultKind::Question,
                "question",
                format!(
                    "contains `{}`, which is a control word of the model",
                    mark.content
                ),
                "Remove it",
            )),
            None => Ok(()),
        }
    }

    /// The ids of `<objects>` and `</objects>`, and those of `<obj0>`, `<obj1>`, ...; `None` if the
    /// vocabulary lacks one, which is so only after [`Tokenizer::plain`].
    pub fn list_tags(&self) -> Option<([u32; 2], Vec<u32>)> {
        let id = |token: &str| self.inner.token_to_id(token);
        let [.., open, close] = TAGS.map(id);
        let indices = (0..MAX_BOXES as u32).map(|index| id(&index_tag(index)));
        Some(([open?, close?], indices.collect::<Option<_>>()?))
    }

    /// Token ids of the start of a prompt: the token `bos` if there is one, then
    /// [`Tokenizer::encode_continuation`].
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        let bos = self.bos.map(i64::from);
        bos.into_iter()
            .chain(self.encode_continuation(prompt))
            .collect()
    }

    /// Token ids, with [`IMAGE_SLOT`] and [`OBJECT_SLOT`] for the placeholders. The text between two
    /// placeholders is encoded separately, so no token spans one (`docs/reference/chatrex.md`, section
    /// 7.3).
    pub fn encode_continuation(&self, text: &str) -> Vec<i64> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next = [(IMAGE, IMAGE_SLOT), (OBJECT, OBJECT_SLOT)]
                .into_iter()
                .filter_map(|(placeholder, slot)| {
                    Some((rest.find(placeholder)?, placeholder, slot))
                })
                .min();
            let text = &rest[..next.map_or(rest.len(), |(at, ..)| at)];
            if !text.is_empty() {
                let encoding = self
                    .inner
                    .encode_fast(text, false)
                    .expect("the tokenizer encodes any text");
                ids.extend(encoding.get_ids().iter().copied().map(i64::from));
            }
            let Some((at, placeholder, slot)) = next else {
                break;
            };
            ids.push(slot);
            rest = &rest[at + placeholder.len()..];
        }
        ids
    }

    /// The text of token ids, special tokens included; invalid UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner
            .decode(ids, false)
            .expect("the tokenizer decodes any ids")
    }

    /// Decodes token ids one by one.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream {
            tokenizer: self,
            ids: Vec::new(),
            returned: 0,
        }
    }
}

fn parse(json: &[u8], place: &str) -> Result<tokenizers::Tokenizer, Fault> {
    let mut inner = tokenizers::Tokenizer::from_bytes(json)
        .map_err(|error| Fault::model(place, format!("is not a tokenizer: {error}")))?;
    remove_limits(&mut inner);
    Ok(inner)
}

/// Decodes a growing list of token ids. A character of several tokens is returned with the last of
/// them.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Bytes of text returned so far.
    returned: usize,
}

impl DecodeStream<'_> {
    /// The text that `id` adds; often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids);
        let complete = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let new = complete
            .get(self.returned..)
            .unwrap_or_default()
            .to_string();
        self.returned += new.len();
        new
    }

    /// The text withheld so far, after the last id.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.ids);
        text.get(self.returned..).unwrap_or_default().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FILE: &str = include_str!("../../tests/data/golden/tokenizer/tokenizer.json");

    fn tokenizer(json: &str) -> Tokenizer {
        Tokenizer::from_json(json.as_bytes(), "tokenizer.json", None).expect("a tokenizer")
    }

    /// [`FILE`] without the tags.
    fn without_tags() -> String {
        let mut file: Value = serde_json::from_str(FILE).expect("json");
        let added = file["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| {
            token["content"]
                .as_str()
                .is_some_and(|text| text.contains('|'))
        });
        file.to_string()
    }

    #[test]
    fn missing_tags_are_added_in_order() {
        let complete = tokenizer(FILE);
        let json = without_tags();
        let plain = Tokenizer::plain(json.as_bytes(), "tokenizer.json", None);
        let plain = plain.expect("a tokenizer");
        assert!(plain.vocab_size() < complete.vocab_size());
        assert!(plain.list_tags().is_none() && complete.list_tags().is_some());
        let bare = tokenizer(&json);
        assert_eq!(bare.vocab_size(), complete.vocab_size());
        for token in ["<obj0>", "<obj57>", "<obj99>", "<ground>", "</objects>"] {
            assert_eq!(bare.id(token), complete.id(token), "{token}");
        }
        let text = "x <obj3></ground>";
        assert_eq!(bare.encode(text), complete.encode(text));
    }

    #[test]
    fn truncation_and_padding_of_the_file_have_no_effect() {
        let expected = tokenizer(FILE);
        let text = "How many dogs are there? <obj3>";
        assert!(expected.encode(text).len() > 3);
        for (max_length, padding) in [
            (3, json!({"Fixed": 90})),
            (500, json!({"Fixed": 90})),
            (1, json!("BatchLongest")),
        ] {
            let mut file: Value = serde_json::from_str(FILE).expect("json");
            file["truncation"] = json!({
                "direction": "Left", "max_length": max_length, "strategy": "LongestFirst", "stride": 0,
            });
            file["padding"] = json!({
                "strategy": padding, "direction": "Left", "pad_to_multiple_of": 8,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
            });
            let json = file.to_string();
            assert_eq!(tokenizer(&json).encode(text), expected.encode(text));
            let plain = Tokenizer::plain(json.as_bytes(), "f", None).expect("a tokenizer");
            assert_eq!(plain.encode(text), expected.encode(text));
        }
    }

    #[test]
    fn a_plain_tokenizer_gets_no_tags() {
        let json = without_tags();
        let plain = Tokenizer::plain(json.as_bytes(), "f", None).expect("a tokenizer");
        assert_eq!(plain.vocab_size() + 104, tokenizer(&json).vocab_size());
        assert_eq!(plain.list_tags(), None);
        assert!(tokenizer(&json).list_tags().is_some());
        let ids = plain.encode("is <obj3> there?");
        assert!(ids.iter().all(|id| *id < plain.vocab_size() as i64));
        assert!(Tokenizer::plain(b"{}", "f", None).is_err());
    }

    #[test]
    fn a_prompt_begins_with_bos_and_a_continuation_does_not() {
        let with_bos = Tokenizer::from_json(FILE.as_bytes(), "f", Some("<|im_start|>"));
        let with_bos = with_bos.expect("a tokenizer");
        let id = i64::from(with_bos.id("<|im_start|>").expect("a token"));
        assert_eq!(with_bos.encode("<image>"), [id, IMAGE_SLOT]);
        assert_eq!(with_bos.encode_continuation("<image>"), [IMAGE_SLOT]);
        assert!(Tokenizer::from_json(FILE.as_bytes(), "f", Some("<s>")).is_err());
        assert!(Tokenizer::from_json(json!({}).to_string().as_bytes(), "f", None).is_err());
    }

    #[test]
    fn streamed_text_has_complete_characters() {
        let tokenizer = tokenizer(FILE);
        let text = "café — 猫🐈 <ground>x</ground><objects><obj7></objects>";
        let ids: Vec<u32> = tokenizer.encode(text).iter().map(|&id| id as u32).collect();
        let mut stream = tokenizer.decode_stream();
        let parts: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
        assert_eq!(parts.concat(), text);
        assert_eq!(stream.finish(), "");
        let cut = ids[..ids.len() - 5]
            .iter()
            .position(|&id| tokenizer.decode(&[id]) == "\u{fffd}");
        let cut = cut.expect("a character of several tokens");
        let mut stream = tokenizer.decode_stream();
        let before: String = ids[..=cut].iter().map(|&id| stream.push(id)).collect();
        assert!(!before.contains('\u{fffd}'));
        assert_eq!(before + &stream.finish(), tokenizer.decode(&ids[..=cut]));
    }
}
