//! Files as they are published, through the converter and therefore on a disk: `checkpoint`,
//! `tokenizer_llama`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Computed, Fixture};
use crate::convert::checkpoint::Checkpoint;
use crate::convert::{Conversion, Watch, convert, tokenizer};
use crate::error::Fault;
use crate::text::tokenizer::Tokenizer;
use crate::weights::Manifest;
use crate::weights::manifest::MANIFEST;
use crate::weights::quant::Rounding;
use crate::weights::storage::QuantPreset;

/// A folder that is gone when its owner is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self, Fault> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = format!("chatrex-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).map_err(|error| Fault::file(&path, error))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be deleted is the system's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Unwatched;

impl Watch for Unwatched {
    fn total(&self, _bytes: u64) {}
    fn more(&self, _bytes: u64) {}
}

fn conversion(model: PathBuf, upn: PathBuf, out: PathBuf) -> Conversion {
    Conversion {
        model,
        upn: Some(upn),
        out,
        quant: QuantPreset::F32,
        group: 32,
        rounding: Rounding::Search,
        template: None,
        prefixes: Vec::new(),
        name: None,
    }
}

/// A whole checkpoint, converted exactly: every tensor equals the recorded one after rounding to
/// the type it was published in. Files that are damaged or hostile are refused.
pub(super) async fn checkpoint(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let scratch = Scratch::new("checkpoint")?;
    let (model, upn) = (fixture.path("chatrex"), fixture.path("upn_tiny.pth"));
    let mut differences = Vec::new();
    let out = scratch.0.join("whole");
    let converted = convert(
        &conversion(model.clone(), upn.clone(), out.clone()),
        &Unwatched,
    )?;
    if converted.left_over.is_empty() {
        differences.push("the left-over tensor of upn_tiny.pth is not listed".to_string());
    }
    if !converted
        .skipped
        .iter()
        .any(|name| name == "lm_head.weight")
    {
        differences.push("lm_head.weight is not skipped although embeddings are tied".into());
    }
    let folder = Checkpoint::hub(&out)?;
    let published = [Checkpoint::hub(&model)?, Checkpoint::open_upn(&upn)?];
    let recorded = |name: &str| {
        let path = fixture.path(&format!("../{name}/weights.safetensors"));
        Checkpoint::safetensors(&path)
    };
    let recorded = [recorded("rexseek")?, recorded("upn")?];
    let json = std::fs::read(out.join(MANIFEST)).map_err(|error| Fault::file(&out, error))?;
    let manifest = Manifest::parse(&json, MANIFEST)?;
    for name in manifest.tensors.keys() {
        let Some(which) = published.iter().position(|file| file.get(name).is_some()) else {
            differences.push(format!("{name} comes from nowhere"));
            continue;
        };
        let dtype = published[which].get(name).map(|located| located.dtype);
        let expected: Vec<f32> = recorded[which]
            .values(name)?
            .into_iter()
            .map(|value| rounded(value, dtype))
            .collect();
        let found = folder.values(name)?;
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        if found.len() != expected.len() || !found.iter().zip(&expected).all(same) {
            differences.push(format!("{name} differs"));
        }
    }
    for (file, says) in [
        ("hostile.pth", "nothing was run"),
        ("truncated.pth", "cut or damaged"),
        ("upn_cut_legacy.pth", "transformer.decoder.norm.weight"),
    ] {
        let out = scratch.0.join("refused");
        let refused = convert(
            &conversion(model.clone(), fixture.path(file), out.clone()),
            &Unwatched,
        );
        match refused {
            Err(fault) if fault.to_string().contains(says) => {}
            Err(fault) => differences.push(format!("{file} is refused as: {fault}")),
            Ok(_) => differences.push(format!("{file} is taken")),
        }
        if out.join(MANIFEST).exists() {
            differences.push(format!("{file} leaves a model behind"));
        }
    }
    let mut computed = Computed::new();
    computed.put_json(differences);
    Ok(computed)
}

fn rounded(value: f32, dtype: Option<Dtype>) -> f32 {
    match dtype {
        Some(Dtype::F16) => f16::from_f32(value).to_f32(),
        Some(Dtype::BF16) => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

#[derive(Deserialize)]
struct Cases {
    legacy: Vec<Case>,
    legacy_decode: Vec<Case>,
    new: Vec<Case>,
    new_decode: Vec<Case>,
    vocab_size_with_added: usize,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

/// A SentencePiece vocabulary as one `tokenizer.json`, with both behaviours of the original class.
pub(super) async fn tokenizer_llama(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let recorded = Cases::deserialize(fixture.json("cases.json")?)
        .map_err(|error| fixture.fault(&format!("cases.json: {error}")))?;
    let mut differences = Vec::new();
    for (legacy, encode, decode) in [
        (true, &recorded.legacy, &recorded.legacy_decode),
        (false, &recorded.new, &recorded.new_decode),
    ] {
        let scratch = Scratch::new("tokenizer")?;
        let words = vocabulary(fixture, &scratch.0, legacy)?;
        if words.vocab_size() != recorded.vocab_size_with_added {
            differences.push(format!("{} tokens", words.vocab_size()));
        }
        for case in encode {
            let ids = words.encode_continuation(&case.text);
            let expected: Vec<i64> = case.ids.iter().map(|&id| id.into()).collect();
            if ids != expected {
                differences.push(format!("legacy {legacy}, {:?}: {ids:?}", case.text));
            }
        }
        for case in decode {
            let text = words.decode(&case.ids);
            if text != case.text {
                differences.push(format!("legacy {legacy}, {:?}: {text:?}", case.ids));
            }
        }
    }
    let mut computed = Computed::new();
    computed.put_json(differences);
    Ok(computed)
}

/// The fixture's tokenizer as if its configuration said `legacy`.
fn vocabulary(fixture: &Fixture, scratch: &Path, legacy: bool) -> Result<Tokenizer, Fault> {
    for file in ["tokenizer.model", "added_tokens.json"] {
        let to = scratch.join(file);
        std::fs::copy(fixture.path(file), &to).map_err(|error| Fault::file(&to, error))?;
    }
    let mut config: Value = fixture.json("tokenizer_config.json")?;
    config["legacy"] = json!(legacy);
    let path = scratch.join("tokenizer_config.json");
    std::fs::write(&path, config.to_string()).map_err(|error| Fault::file(&path, error))?;
    let read = tokenizer::read(scratch)?;
    Tokenizer::from_json(&read.json, "tokenizer.json", None)
}
