//! SentencePiece vocabularies (`tokenizer.model`) as a `tokenizer.json`.
//!
//! The file is a protocol buffer (`github.com/google/sentencepiece`, `sentencepiece_model.proto`). Only
//! the features of LLaMA-family models are supported: byte-pair encoding with byte fallback, without a
//! normalization table.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::error::Fault;

/// SentencePiece's character for a space.
const SPACE: &str = "\u{2581}";

/// Maximum bytes of a piece; limits the work of finding its merges.
const MAX_PIECE: usize = 512;

/// A vocabulary: the index of a piece is its token id.
#[derive(Debug)]
pub struct Vocabulary {
    pieces: Vec<Piece>,
    bos: Option<usize>,
    eos: Option<usize>,
    dummy_prefix: bool,
}

#[derive(Debug)]
struct Piece {
    text: String,
    score: f32,
    kind: Kind,
}

/// The type of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Text.
    Normal,
    /// The token for unknown text.
    Unknown,
    /// A control token, which no text produces.
    Control,
    /// User-defined text that is always one token.
    UserDefined,
    /// A byte of a character without a piece.
    Byte,
}

impl Kind {
    /// The type of piece `id` by its number.
    fn of(number: u64, id: usize) -> Result<Self, String> {
        match number {
            1 => Ok(Self::Normal),
            2 => Ok(Self::Unknown),
            3 => Ok(Self::Control),
            4 => Ok(Self::UserDefined),
            6 => Ok(Self::Byte),
            other => Err(format!(
                "piece {id} is of type {other}, which is not supported"
            )),
        }
    }
}

impl Vocabulary {
    /// Parses the file `bytes`; `place` names it in errors.
    ///
    /// # Errors
    /// The file is truncated or damaged, is no byte-pair encoding with byte fallback, normalizes text in an
    /// unsupported way, or repeats a piece.
    pub fn read(bytes: &[u8], place: &str) -> Result<Self, Fault> {
        parse(bytes).map_err(|what| Fault::model(place, what))
    }

    /// A vocabulary of `pieces`, each with its text, its score and its type as SentencePiece numbers them.
    /// With `dummy_prefix` a text begins with a space. `place` names their file in errors.
    ///
    /// # Errors
    /// A piece is empty, too long, repeated or of an unknown type; a byte or the piece for unknown text is
    /// missing.
    pub fn of_pieces(
        pieces: Vec<(String, f32, u32)>,
        dummy_prefix: bool,
        place: &str,
    ) -> Result<Self, Fault> {
        let piece = |(id, (text, score, kind)): (usize, (String, f32, u32))| {
            let kind = match kind {
                // No text produces an unused piece.
                5 => Kind::Control,
                kind => Kind::of(kind.into(), id)?,
            };
            check_piece(Piece { text, score, kind }, id)
        };
        let pieces = pieces.into_iter().enumerate().map(piece);
        let pieces: Result<Vec<Piece>, String> = pieces.collect();
        let checked = pieces.and_then(|pieces| check_pieces(&pieces).map(|()| pieces));
        Ok(Self {
            pieces: checked.map_err(|what| Fault::model(place, what))?,
            bos: None,
            eos: None,
            dummy_prefix,
        })
    }

    /// The number of pieces, which is the first free id.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there are no pieces; false after [`Vocabulary::read`].
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The text of piece `id`.
    pub fn piece(&self, id: usize) -> Option<&str> {
        self.pieces.get(id).map(|piece| piece.text.as_str())
    }

    /// The token that begins a text, by the vocabulary.
    pub fn bos(&self) -> Option<&str> {
        self.piece(self.bos?)
    }

    /// The token that ends a text, by the vocabulary.
    pub fn eos(&self) -> Option<&str> {
        self.piece(self.eos?)
    }

    /// A `tokenizer.json` that produces the same ids. The tokens `added` get the ids after the pieces. If
    /// the vocabulary prepends a space to a text, `legacy` also prepends one to every section between
    /// special tokens, as the first version of the original class does.
    pub fn to_json(&self, added: &[String], legacy: bool) -> Value {
        let vocab: serde_json::Map<String, Value> = self
            .pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (piece.text.clone(), json!(id)))
            .collect();
        let unknown = self.pieces.iter().find(|piece| piece.kind == Kind::Unknown);
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(added),
            "normalizer": self.normalizer(legacy),
            "pre_tokenizer": self.pre_tokenizer(legacy),
            "post_processor": null,
            "decoder": self.decoder(),
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown.map(|piece| &piece.text),
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": vocab,
                "merges": self.merges(),
            },
        })
    }

    fn added_tokens(&self, added: &[String]) -> Vec<Value> {
        let own = self.pieces.iter().enumerate();
        let own = own.filter_map(|(id, piece)| match piece.kind {
            Kind::Unknown | Kind::Control => Some((id, &piece.text, true)),
            Kind::UserDefined => Some((id, &piece.text, false)),
            Kind::Normal | Kind::Byte => None,
        });
        let more = (self.len()..).zip(added).map(|(id, text)| (id, text, true));
        own.chain(more)
            .map(|(id, text, special)| added_token(id, text, special))
            .collect()
    }

    fn normalizer(&self, legacy: bool) -> Value {
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        if !self.dummy_prefix || !legacy {
            return spaces;
        }
        let prefix = json!({"type": "Prepend", "prepend": SPACE});
        json!({"type": "Sequence", "normalizers": [prefix, spaces]})
    }

    /// Prepends a space to the first section only. `Metaspace` does not prepend to text that begins with
    /// its replacement character, SentencePiece does: the first of the two steps uses a character that
    /// no normalized text has, the second replaces it by the right one.
    fn pre_tokenizer(&self, legacy: bool) -> Value {
        if !self.dummy_prefix || legacy {
            return Value::Null;
        }
        let metaspace = |replacement: &str, scheme: &str| {
            json!({
                "type": "Metaspace",
                "replacement": replacement,
                "prepend_scheme": scheme,
                "split": false,
            })
        };
        let steps = [metaspace(" ", "first"), metaspace(SPACE, "never")];
        json!({"type": "Sequence", "pretokenizers": steps})
    }

    fn decoder(&self) -> Value {
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.dummy_prefix {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }

    /// All merges of two pieces into a third, by descending score of the third.
    fn merges(&self) -> Vec<(&str, &str)> {
        let normal = |piece: &&Piece| piece.kind == Kind::Normal;
        let known: HashMap<&str, usize> = (0..)
            .zip(&self.pieces)
            .filter(|(_, piece)| normal(piece))
            .map(|(id, piece)| (piece.text.as_str(), id))
            .collect();
        let mut order: Vec<&Piece> = self.pieces.iter().filter(normal).collect();
        order.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut merges = Vec::new();
        for piece in order {
            let cuts = piece.text.char_indices().skip(1);
            let halves = cuts.map(|(at, _)| piece.text.split_at(at));
            let mut halves: Vec<_> = halves
                .filter_map(|(left, right)| {
                    Some((known.get(left)?, known.get(right)?, left, right))
                })
                .collect();
            halves.sort();
            merges.extend(halves.into_iter().map(|(_, _, left, right)| (left, right)));
        }
        merges
    }
}

/// An entry of `added_tokens` in a `tokenizer.json`.
pub(super) fn added_token(id: usize, text: &str, special: bool) -> Value {
    json!({
        "id": id,
        "content": text,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    })
}

/// A field's value in a protocol buffer.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Four([u8; 4]),
    Bytes(&'a [u8]),
    Eight,
}

impl<'a> Field<'a> {
    fn flag(self) -> Result<bool, String> {
        Ok(self.number()? != 0)
    }

    fn number(self) -> Result<u64, String> {
        match self {
            Self::Number(value) => Ok(value),
            _ => Err(damaged()),
        }
    }

    fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(damaged()),
        }
    }

    fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged())
    }
}

fn damaged() -> String {
    "is truncated, damaged or no SentencePiece vocabulary".to_string()
}

/// A little-endian base-128 integer.
fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(damaged)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged())
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], String> {
    let count = usize::try_from(count).map_err(|_| damaged())?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(taken)
}

/// Calls `each` with the number and the value of every field of a message.
fn fields<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u64, Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => {
                take(&mut bytes, 8)?;
                Field::Eight
            }
            2 => {
                let count = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, count)?)
            }
            5 => {
                let four = take(&mut bytes, 4)?.try_into();
                Field::Four(four.map_err(|_| damaged())?)
            }
            _ => return Err(damaged()),
        };
        each(key >> 3, field)?;
    }
    Ok(())
}

/// The relevant training settings.
struct Trainer {
    model: u64,
    byte_fallback: bool,
    space_suffix: bool,
    bos: i32,
    eos: i32,
}

/// Normalization of text.
struct Normalizer {
    table: bool,
    dummy_prefix: bool,
    trims_spaces: bool,
    escapes_spaces: bool,
}

fn parse(bytes: &[u8]) -> Result<Vocabulary, String> {
    let mut pieces = Vec::new();
    let mut trainer = Trainer {
        model: 1,
        byte_fallback: false,
        space_suffix: false,
        bos: 1,
        eos: 2,
    };
    let mut normalizer = Normalizer {
        table: false,
        dummy_prefix: true,
        trims_spaces: true,
        escapes_spaces: true,
    };
    fields(bytes, |number, field| {
        match number {
            1 => pieces.push(piece(field.bytes()?, pieces.len())?),
            2 => read_trainer(field.bytes()?, &mut trainer)?,
            3 => read_normalizer(field.bytes()?, &mut normalizer)?,
            _ => {}
        }
        Ok(())
    })?;
    if pieces.is_empty() {
        return Err(damaged());
    }
    check_kind(&trainer, &normalizer)?;
    check_pieces(&pieces)?;
    let known = |id: i32| usize::try_from(id).ok().filter(|&id| id < pieces.len());
    Ok(Vocabulary {
        bos: known(trainer.bos),
        eos: known(trainer.eos),
        dummy_prefix: normalizer.dummy_prefix,
        pieces,
    })
}

fn piece(bytes: &[u8], id: usize) -> Result<Piece, String> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: Kind::Normal,
    };
    fields(bytes, |number, field| {
        match (number, field) {
            (1, _) => piece.text = field.text()?.to_string(),
            (2, Field::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (2, _) => return Err(damaged()),
            (3, _) => piece.kind = Kind::of(field.number()?, id)?,
            _ => {}
        }
        Ok(())
    })?;
    check_piece(piece, id)
}

fn check_piece(piece: Piece, id: usize) -> Result<Piece, String> {
    if piece.text.is_empty() || piece.text.len() > MAX_PIECE || piece.score.is_nan() {
        return Err(format!("piece {id} is empty, too long or has no score"));
    }
    Ok(piece)
}

fn read_trainer(bytes: &[u8], into: &mut Trainer) -> Result<(), String> {
    fields(bytes, |number, field| {
        match number {
            3 => into.model = field.number()?,
            24 => into.space_suffix = field.flag()?,
            35 => into.byte_fallback = field.flag()?,
            41 => into.bos = field.number()? as i32,
            42 => into.eos = field.number()? as i32,
            _ => {}
        }
        Ok(())
    })
}

fn read_normalizer(bytes: &[u8], into: &mut Normalizer) -> Result<(), String> {
    fields(bytes, |number, field| {
        match number {
            2 => into.table |= !field.bytes()?.is_empty(),
            3 => into.dummy_prefix = field.flag()?,
            4 => into.trims_spaces = field.flag()?,
            5 => into.escapes_spaces = field.flag()?,
            _ => {}
        }
        Ok(())
    })
}

fn check_kind(trainer: &Trainer, normalizer: &Normalizer) -> Result<(), String> {
    let model = match trainer.model {
        1 => "unigram",
        2 => "byte-pair",
        3 => "word",
        4 => "character",
        _ => "unknown",
    };
    if trainer.model != 2 || !trainer.byte_fallback {
        let fallback = if trainer.byte_fallback {
            "with"
        } else {
            "without"
        };
        return Err(format!(
            "is a {model} model {fallback} byte fallback; only byte-pair models with it are supported"
        ));
    }
    let unsupported = [
        (normalizer.table, "normalizes text by a table"),
        (normalizer.trims_spaces, "removes spaces from text"),
        (!normalizer.escapes_spaces, "does not escape spaces"),
        (trainer.space_suffix, "puts spaces after words"),
    ];
    match unsupported.into_iter().find(|(is, _)| *is) {
        Some((_, what)) => Err(format!("{what}, which is not supported")),
        None => Ok(()),
    }
}

fn check_pieces(pieces: &[Piece]) -> Result<(), String> {
    let mut seen = HashMap::new();
    for (id, piece) in pieces.iter().enumerate() {
        if let Some(other) = seen.insert(piece.text.as_str(), id) {
            return Err(format!("pieces {other} and {id} are both `{}`", piece.text));
        }
    }
    let unknown = pieces.iter().filter(|piece| piece.kind == Kind::Unknown);
    if unknown.count() != 1 {
        return Err("needs exactly one piece for unknown text".to_string());
    }
    for byte in 0..=u8::MAX {
        let text = format!("<0x{byte:02X}>");
        let found = seen.get(text.as_str());
        if found.is_none_or(|&id| pieces[id].kind != Kind::Byte) {
            return Err(format!("has no piece for byte {text}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../tests/data/golden/tokenizer_llama/tokenizer.model");

    /// A field of a message: its key, the length of `content` and `content`.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        assert!(number < 16 && content.len() < 1 << 14);
        let length = [
            content.len() as u8 & 0x7f | 0x80,
            (content.len() >> 7) as u8,
        ];
        [&[number << 3 | 2], length.as_slice(), content].concat()
    }

    fn error_of(bytes: &[u8]) -> String {
        Vocabulary::read(bytes, "tokenizer.model")
            .expect_err("rejected")
            .to_string()
    }

    fn with_field(number: u8, content: &[u8]) -> Vec<u8> {
        [FILE, &field(number, content)].concat()
    }

    #[test]
    fn the_recorded_vocabulary_is_read() {
        let vocabulary = Vocabulary::read(FILE, "f").expect("a vocabulary");
        assert_eq!(vocabulary.len(), 420);
        assert_eq!(vocabulary.bos(), Some("<s>"));
        assert_eq!(vocabulary.eos(), Some("</s>"));
        assert_eq!(vocabulary.piece(0), Some("<unk>"));
        assert_eq!(vocabulary.piece(420), None);
        assert!(vocabulary.dummy_prefix);
    }

    #[test]
    fn merges_are_ordered_by_score_and_only_of_text() {
        let vocabulary = Vocabulary::read(FILE, "f").expect("a vocabulary");
        let merges = vocabulary.merges();
        let score = |text: &str| {
            let mut pieces = vocabulary.pieces.iter();
            let piece = pieces.find(|piece| piece.text == text).expect("a piece");
            assert_eq!(piece.kind, Kind::Normal);
            piece.score
        };
        let scores: Vec<f32> = merges
            .iter()
            .map(|(left, right)| score(&format!("{left}{right}")))
            .collect();
        assert!(scores.is_sorted_by(|a, b| a >= b));
        assert!(merges.len() > 50, "{}", merges.len());
    }

    #[test]
    fn other_models_are_rejected() {
        for (file, message) in [
            (
                with_field(2, &[3 << 3, 1]),
                "is a unigram model with byte fallback",
            ),
            (with_field(2, &[3 << 3, 4]), "is a character model"),
            (
                with_field(2, &[0x98, 2, 0]),
                "is a byte-pair model without byte fallback",
            ),
            (with_field(2, &[0xc0, 1, 1]), "puts spaces after words"),
            (
                with_field(3, &[2 << 3 | 2, 1, 9]),
                "normalizes text by a table",
            ),
            (with_field(3, &[4 << 3, 1]), "removes spaces"),
            (with_field(3, &[5 << 3, 0]), "does not escape spaces"),
            (
                with_field(1, &[1 << 3 | 2, 3, b'<', b's', b'>']),
                "are both `<s>`",
            ),
            (
                with_field(1, &[1 << 3 | 2, 1, 1, 3 << 3, 5]),
                "piece 420 is of type 5",
            ),
            (
                with_field(1, &[1 << 3 | 2, 1, 1, 3 << 3, 2]),
                "exactly one piece for unknown",
            ),
            (with_field(1, &[]), "piece 420 is empty"),
            (
                with_field(1, &field(1, &[b'x'; 600])),
                "piece 420 is empty, too long",
            ),
            (
                with_field(1, &[1 << 3 | 2, 1, 1, 2 << 3 | 5, 0, 0, 0xc0, 0x7f]),
                "has no score",
            ),
            (
                with_field(1, &[1 << 3 | 2, 1, 0xff]),
                "is truncated, damaged",
            ),
            (with_field(1, &[1 << 3, 1]), "is truncated, damaged"),
            (with_field(1, &[3]), "is truncated, damaged"),
            (b"<html>".to_vec(), "is truncated, damaged"),
            (Vec::new(), "is truncated, damaged"),
        ] {
            let fault = error_of(&file);
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }

    #[test]
    fn no_prefix_is_accepted_and_no_flipped_bit_panics() {
        for length in 0..FILE.len() {
            let read = Vocabulary::read(&FILE[..length], "f");
            assert!(read.is_err(), "{length} bytes are a prefix only");
        }
        let mut copy = FILE.to_vec();
        for at in 0..copy.len() {
            for bit in [0x01, 0x80, 0xff] {
                copy[at] ^= bit;
                if let Ok(vocabulary) = Vocabulary::read(&copy, "f") {
                    vocabulary.merges();
                }
                copy[at] ^= bit;
            }
        }
    }
}
