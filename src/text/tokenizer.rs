//! Token ids for a prompt and words for token ids, after a `tokenizer.json`.

use tokenizers::AddedToken;

use super::prompt::{IMAGE, IMAGE_SLOT, MAX_BOXES, OBJECT, OBJECT_SLOT, index_tag};
use crate::error::Fault;

/// The tags of the answer grammar that follow the index tags in the vocabulary.
const TAGS: [&str; 4] = ["<ground>", "</ground>", "<objects>", "</objects>"];

/// Gives those of `<obj0>` .. `<obj99>` and the four grounding tags that `inner` lacks the next
/// free ids, in this order, and says how many they were. `place` names the file.
///
/// # Errors
/// The tokenizer takes no more tokens.
pub fn add_lacking(inner: &mut tokenizers::Tokenizer, place: &str) -> Result<usize, Fault> {
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

/// A tokenizer that has the index and grounding tokens of the family.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json` found at `place`. Those of `<obj0>` .. `<obj99>` and
    /// the four grounding tags that it lacks get the next free ids, in this order (`chatrex.md`
    /// 7.1). `bos` names the token that every prompt begins with, where there is one.
    ///
    /// # Errors
    /// Not a tokenizer, or one without `bos`.
    pub fn from_json(json: &[u8], place: &str, bos: Option<&str>) -> Result<Self, Fault> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| Fault::model(place, format!("this is not a tokenizer: {error}")))?;
        add_lacking(&mut inner, place)?;
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

    /// Ids from 0 up to here are in use.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of one token by its exact text.
    ///
    /// # Errors
    /// The vocabulary lacks it.
    pub fn id(&self, token: &str) -> Result<u32, Fault> {
        self.inner
            .token_to_id(token)
            .ok_or_else(|| Fault::model("tokenizer", format!("token `{token}` is missing")))
    }

    /// The ids of `<objects>` and `</objects>`, and those of `<obj0>`, `<obj1>`, ...
    ///
    /// # Panics
    /// Never: whatever was lacking was added when the vocabulary was read.
    pub fn list_tags(&self) -> ([u32; 2], Vec<u32>) {
        let id = |token: &str| self.inner.token_to_id(token).expect("the family's token");
        let [.., open, close] = TAGS.map(id);
        let indices = (0..MAX_BOXES as u32).map(|index| id(&index_tag(index)));
        ([open, close], indices.collect())
    }

    /// The ids of the beginning of a prompt: the begin token where the vocabulary has one, then
    /// [`Tokenizer::encode_more`].
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        let bos = self.bos.map(i64::from);
        bos.into_iter().chain(self.encode_more(prompt)).collect()
    }

    /// Token ids with [`IMAGE_SLOT`] and [`OBJECT_SLOT`] in place of their marks. The words between
    /// two marks are encoded on their own, so no token reaches across one (`chatrex.md` 7.3).
    pub fn encode_more(&self, text: &str) -> Vec<i64> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let mark = [(IMAGE, IMAGE_SLOT), (OBJECT, OBJECT_SLOT)]
                .into_iter()
                .filter_map(|(mark, slot)| Some((rest.find(mark)?, mark, slot)))
                .min();
            let words = &rest[..mark.map_or(rest.len(), |(at, ..)| at)];
            if !words.is_empty() {
                let encoding = self
                    .inner
                    .encode_fast(words, false)
                    .expect("a tokenizer that was read encodes any text");
                ids.extend(encoding.get_ids().iter().copied().map(i64::from));
            }
            let Some((at, mark, slot)) = mark else { break };
            ids.push(slot);
            rest = &rest[at + mark.len()..];
        }
        ids
    }

    /// The text of token ids, special tokens included; bytes that are no text become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner
            .decode(ids, false)
            .expect("a tokenizer that was read decodes any ids")
    }

    /// Turns ids into text as they come.
    pub fn decoding(&self) -> Decoding<'_> {
        Decoding {
            tokenizer: self,
            ids: Vec::new(),
            given: 0,
        }
    }
}

/// Text of a growing list of ids. A character that is spread over several tokens appears with the
/// last of them.
pub struct Decoding<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    given: usize,
}

impl Decoding<'_> {
    /// The text that `id` adds; often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids);
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let new = whole.get(self.given..).unwrap_or_default().to_string();
        self.given += new.len();
        new
    }

    /// What was held back, now that nothing more comes.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.ids);
        text.get(self.given..).unwrap_or_default().to_string()
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

    #[test]
    fn lacking_tokens_are_added_in_order() {
        let complete = tokenizer(FILE);
        let mut file: Value = serde_json::from_str(FILE).expect("json");
        let added = file["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| {
            token["content"]
                .as_str()
                .is_some_and(|text| text.contains('|'))
        });
        let bare = tokenizer(&file.to_string());
        assert_eq!(bare.vocab_size(), complete.vocab_size());
        for token in ["<obj0>", "<obj57>", "<obj99>", "<ground>", "</objects>"] {
            assert_eq!(bare.id(token), complete.id(token), "{token}");
        }
        let text = "x <obj3></ground>";
        assert_eq!(bare.encode(text), complete.encode(text));
    }

    #[test]
    fn a_prompt_begins_with_the_begin_token_and_a_continuation_does_not() {
        let with_bos = Tokenizer::from_json(FILE.as_bytes(), "f", Some("<|im_start|>"));
        let with_bos = with_bos.expect("a tokenizer");
        let id = i64::from(with_bos.id("<|im_start|>").expect("a token"));
        assert_eq!(with_bos.encode("<image>"), [id, IMAGE_SLOT]);
        assert_eq!(with_bos.encode_more("<image>"), [IMAGE_SLOT]);
        assert!(Tokenizer::from_json(FILE.as_bytes(), "f", Some("<s>")).is_err());
        assert!(Tokenizer::from_json(json!({}).to_string().as_bytes(), "f", None).is_err());
    }

    #[test]
    fn streamed_text_is_the_text_in_whole_characters() {
        let tokenizer = tokenizer(FILE);
        let text = "café — 猫🐈 <ground>x</ground><objects><obj7></objects>";
        let ids: Vec<u32> = tokenizer.encode(text).iter().map(|&id| id as u32).collect();
        let mut decoding = tokenizer.decoding();
        let parts: Vec<String> = ids.iter().map(|&id| decoding.push(id)).collect();
        assert_eq!(parts.concat(), text);
        assert_eq!(decoding.finish(), "");
        let cut = ids[..ids.len() - 5]
            .iter()
            .position(|&id| tokenizer.decode(&[id]) == "\u{fffd}");
        let cut = cut.expect("a character of several tokens");
        let mut decoding = tokenizer.decoding();
        let before: String = ids[..=cut].iter().map(|&id| decoding.push(id)).collect();
        assert!(!before.contains('\u{fffd}'));
        assert_eq!(before + &decoding.finish(), tokenizer.decode(&ids[..=cut]));
    }
}
