//! Tokenization, parsing of answers and non-maximum suppression: `tokenizer`, `parse_nms`.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::Value;

use super::fixture::{Array, Computed, Fixture};
use crate::error::Fault;
use crate::geometry::{BoxXyxy, nms};
use crate::text::answer_parser::{Compat, compat, compat_pairs};
use crate::text::tokenizer::Tokenizer;

/// The tokenizer file at `path`, of this fixture or of a sibling.
///
/// # Errors
/// It cannot be read.
fn read_tokenizer(fixture: &Fixture, path: &std::path::Path) -> Result<Tokenizer, Fault> {
    let json = fixture.bytes(path)?;
    Tokenizer::from_json(&json, &path.display().to_string(), None)
}

/// The tokenizer that `config.json` names by its path in the golden folder.
pub(super) fn tokenizer_of(fixture: &Fixture) -> Result<Tokenizer, Fault> {
    let path = fixture.config().get("tokenizer").and_then(Value::as_str);
    let (folder, file) = path
        .and_then(|path| path.split_once('/'))
        .unwrap_or(("tokenizer", "tokenizer.json"));
    read_tokenizer(fixture, &fixture.sibling(folder, file))
}

#[derive(Deserialize)]
struct TokenizerCases {
    image_token_index: i64,
    object_token_index: i64,
    vocab_size: usize,
    cases: Vec<EncodeCase>,
    decode: Vec<DecodeCase>,
    special_ids: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
struct EncodeCase {
    text: String,
    ids: Vec<i64>,
}

#[derive(Deserialize)]
struct DecodeCase {
    ids: Vec<i64>,
    decoded: String,
}

/// Encoding, decoding and special tokens.
pub(super) async fn tokenizer(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let tokenizer = read_tokenizer(fixture, &fixture.path("tokenizer.json"))?;
    let recorded = TokenizerCases::deserialize(fixture.json("cases.json")?)
        .map_err(|error| fixture.fault(&format!("cases.json: {error}")))?;
    let mut differences = Vec::new();
    let mut compare = |what: String, actual: String, expected: String| {
        if actual != expected {
            differences.push(format!("{what}: {actual}, expected {expected}"));
        }
    };
    compare(
        "vocabulary size".to_string(),
        tokenizer.vocab_size().to_string(),
        recorded.vocab_size.to_string(),
    );
    let slots = [recorded.image_token_index, recorded.object_token_index];
    compare(
        "image and object slots".to_string(),
        format!("{:?}", tokenizer.encode("<image><objfeat>")),
        format!("{slots:?}"),
    );
    for case in &recorded.cases {
        compare(
            format!("ids of {:?}", case.text),
            format!("{:?}", tokenizer.encode(&case.text)),
            format!("{:?}", case.ids),
        );
    }
    for case in &recorded.decode {
        let ids: Vec<u32> = case
            .ids
            .iter()
            .filter_map(|&id| id.try_into().ok())
            .collect();
        let mut decoding = tokenizer.decode_stream();
        let streamed: String = ids.iter().map(|&id| decoding.push(id)).collect();
        for text in [tokenizer.decode(&ids), streamed + &decoding.finish()] {
            compare(
                format!("text of {:?}", case.ids),
                text,
                case.decoded.clone(),
            );
        }
    }
    for (token, &id) in &recorded.special_ids {
        compare(
            token.clone(),
            tokenizer.id(token)?.to_string(),
            id.to_string(),
        );
    }
    let mut computed = Computed::new();
    computed.put_json(differences);
    Ok(computed)
}

#[derive(Deserialize)]
struct ParseCase {
    text: String,
    chatrex: BTreeMap<String, Vec<String>>,
    rexseek_eval: BTreeMap<String, Vec<String>>,
    chatrex_pairs: Vec<(String, u32)>,
}

#[derive(Deserialize)]
struct NmsCase {
    name: String,
    iou_threshold: f64,
}

/// The original's two parsers of answers, and non-maximum suppression.
pub(super) async fn parse_nms(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let mut computed = Computed::new();
    let cases: Vec<NmsCase> = fixture.config_at("/nms")?;
    for NmsCase {
        name,
        iou_threshold,
    } in cases
    {
        let boxes = fixture.array(&format!("{name}.boxes"))?.f32();
        let scores = fixture.array(&format!("{name}.scores"))?.f32();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let ranked: Vec<BoxXyxy> = order
            .iter()
            .map(|&index| boxes.as_chunks::<4>().0[index].into())
            .collect();
        let keep = nms(&ranked, iou_threshold);
        computed.put_array(
            format!("{name}.keep"),
            Array::integers(keep.into_iter().map(|position| order[position] as i64)),
        );
    }

    let boxes: usize = fixture.config_at("/parse_n_boxes")?;
    let cases: Vec<ParseCase> = fixture.config_at("/parse_cases")?;
    let mut differences = Vec::new();
    for case in cases {
        for (parser, expected) in [
            (Compat::ChatRex, case.chatrex),
            (Compat::RexSeekEval, case.rexseek_eval),
        ] {
            let actual: BTreeMap<String, Vec<String>> =
                compat(&case.text, parser).into_iter().collect();
            if actual != expected {
                let text = &case.text;
                differences.push(format!(
                    "{parser:?} of {text:?}: {actual:?}, expected {expected:?}"
                ));
            }
        }
        let pairs = compat_pairs(&case.text, Compat::ChatRex, boxes);
        if pairs != case.chatrex_pairs {
            let (text, expected) = (&case.text, case.chatrex_pairs);
            differences.push(format!(
                "pairs of {text:?}: {pairs:?}, expected {expected:?}"
            ));
        }
    }
    computed.put_json(differences);
    Ok(computed)
}
