//! Published files through the converter, which reads and writes a disk: `checkpoint`,
//! `tokenizer_llama`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::{Computed, Fixture};
use crate::convert::checkpoint::Checkpoint;
use crate::convert::{Conversion, Converted, convert, pth, tokenizer};
use crate::error::Fault;
use crate::text::tokenizer::Tokenizer;
use crate::weights::Manifest;
use crate::weights::manifest::MANIFEST;
use crate::weights::quant::Rounding;
use crate::weights::storage::QuantPreset;

/// The head of a decoder with untied embeddings.
const LM_HEAD: &str = "lm_head.weight";

fn temporary_folder() -> Result<TempDir, Fault> {
    tempfile::tempdir().map_err(|error| Fault::file(std::env::temp_dir(), error))
}

fn conversion(model: &Path, upn: PathBuf, out: PathBuf) -> Conversion {
    Conversion {
        model: model.to_path_buf(),
        upn: Some(upn),
        detector: None,
        detector_side: None,
        adapter: None,
        out,
        quant: QuantPreset::F32,
        group: 32,
        rounding: Rounding::Search,
        template: None,
        prefixes: Vec::new(),
        name: None,
    }
}

/// A whole checkpoint, converted to f32: every stored tensor equals the recorded one after rounding to
/// its published dtype, every other published tensor is reported. Damaged and hostile files are
/// rejected.
pub(super) async fn checkpoint(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let scratch = temporary_folder()?;
    let (model, upn) = (fixture.path("chatrex"), fixture.path("upn_tiny.pth"));
    let out = scratch.path().join("converted");
    let converted = convert(&conversion(&model, upn.clone(), out.clone()), &())?;
    let stored = stored_tensors(&out)?;
    let recorded = |name: &str| {
        let path = fixture.sibling(name, "weights.safetensors");
        Checkpoint::safetensors(&path)
    };
    let [model_file, upn_file] = [
        Compared {
            published: Checkpoint::hub(&model)?,
            recorded: recorded("rexseek")?,
        },
        Compared {
            published: Checkpoint::open_upn(&upn)?,
            recorded: recorded("upn")?,
        },
    ];
    let mut differences = Vec::new();
    for (name, values) in &stored {
        let source = [&model_file, &upn_file]
            .into_iter()
            .find(|file| file.published.get(name).is_some());
        match source {
            Some(file) => differences.extend(file.difference(name, values)?),
            None => differences.push(format!("{name} is not in the checkpoint")),
        }
    }
    let tied = has_tied_embeddings(fixture)?;
    differences.extend(head_differences(
        tied,
        &model_file.published,
        &stored,
        &converted,
    ));
    differences.extend(unstored_differences(
        &model_file,
        &upn_file,
        &stored,
        &converted,
    ));
    let required: BTreeSet<&str> = upn_file
        .published
        .names()
        .filter(|name| stored.contains_key(*name))
        .collect();
    differences.extend(rejected_files(fixture, &model, &required, scratch.path())?);
    let mut computed = Computed::new();
    computed.put_json(differences);
    Ok(computed)
}

/// A published file and the recorded weights that it contains.
struct Compared {
    published: Checkpoint,
    recorded: Checkpoint,
}

impl Compared {
    /// How the stored values of tensor `name` differ from the recorded ones, rounded to the published
    /// dtype.
    fn difference(&self, name: &str, stored: &[f32]) -> Result<Option<String>, Fault> {
        if self.recorded.get(name).is_none() {
            return Ok(Some(format!("{name} is not recorded")));
        }
        let dtype = self.published.get(name).map(|view| view.dtype);
        let recorded = self.recorded.values(name)?;
        let equal = |(a, b): (&f32, &f32)| rounded(*a, dtype).to_bits() == b.to_bits();
        let equal = recorded.len() == stored.len() && recorded.iter().zip(stored).all(equal);
        Ok((!equal).then(|| format!("{name} differs")))
    }
}

fn rounded(value: f32, dtype: Option<Dtype>) -> f32 {
    match dtype {
        Some(Dtype::F16) => f16::from_f32(value).to_f32(),
        Some(Dtype::BF16) => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// The values of every tensor of a converted folder by name; row blocks are joined.
fn stored_tensors(folder: &Path) -> Result<BTreeMap<String, Vec<f32>>, Fault> {
    let file = folder.join(MANIFEST);
    let json = std::fs::read(&file).map_err(|error| Fault::file(&file, error))?;
    let manifest = Manifest::parse(&json, MANIFEST)?;
    let mut blocks: BTreeMap<String, BTreeMap<usize, &str>> = BTreeMap::new();
    for name in manifest.tensors.keys() {
        let (tensor, block) = name
            .rsplit_once(".rows.")
            .and_then(|(tensor, block)| Some((tensor, block.parse().ok()?)))
            .unwrap_or((name, 0));
        blocks
            .entry(tensor.to_string())
            .or_default()
            .insert(block, name);
    }
    let shards = Checkpoint::hub(folder)?;
    blocks
        .into_iter()
        .map(|(tensor, blocks)| {
            let values: Vec<Vec<f32>> = blocks
                .into_values()
                .map(|block| shards.values(block))
                .collect::<Result<_, _>>()?;
            Ok((tensor, values.concat()))
        })
        .collect()
}

/// Whether the checkpoint's `config.json` ties the head to the embedding; by default it does not.
fn has_tied_embeddings(fixture: &Fixture) -> Result<bool, Fault> {
    let config = fixture.json("chatrex/config.json")?;
    Ok(config["tie_word_embeddings"].as_bool().unwrap_or(false))
}

/// With untied embeddings a published head is stored; with tied ones it is skipped, even if its values
/// are not those of the embedding.
fn head_differences(
    tied: bool,
    published: &Checkpoint,
    stored: &BTreeMap<String, Vec<f32>>,
    converted: &Converted,
) -> Vec<String> {
    let mut differences = Vec::new();
    if published.get(LM_HEAD).is_some() {
        let ties = if tied { "tied" } else { "untied" };
        if stored.contains_key(LM_HEAD) == tied {
            let stored = if tied { "stored" } else { "not stored" };
            differences.push(format!(
                "{LM_HEAD} is {stored} although embeddings are {ties}"
            ));
        }
        if converted.skipped.iter().any(|name| name == LM_HEAD) != tied {
            let skipped = if tied { "not skipped" } else { "skipped" };
            differences.push(format!(
                "{LM_HEAD} is {skipped} although embeddings are {ties}"
            ));
        }
    }
    differences
}

/// Every published tensor that is not stored is skipped, or left over if the recorded network lacks it.
fn unstored_differences(
    model: &Compared,
    upn: &Compared,
    stored: &BTreeMap<String, Vec<f32>>,
    converted: &Converted,
) -> Vec<String> {
    let mut expected_left_over = BTreeSet::new();
    let mut differences = Vec::new();
    let skipped: BTreeSet<&str> = converted.skipped.iter().map(String::as_str).collect();
    for (file, is_upn) in [(model, false), (upn, true)] {
        for name in file.published.names() {
            if stored.contains_key(name) {
                continue;
            }
            if is_upn && file.recorded.get(name).is_none() {
                expected_left_over.insert(name);
            } else if !skipped.contains(name) {
                differences.push(format!("{name} is neither stored nor skipped"));
            }
        }
    }
    let left_over: BTreeSet<&str> = converted.left_over.iter().map(String::as_str).collect();
    if left_over != expected_left_over {
        differences.push(format!(
            "left over: {left_over:?}, expected {expected_left_over:?}"
        ));
    }
    differences
}

/// Files in place of the proposal network's that must be rejected, with a reason. `required` are the
/// tensors of the whole network.
fn rejected_files(
    fixture: &Fixture,
    model: &Path,
    required: &BTreeSet<&str>,
    scratch: &Path,
) -> Result<Vec<String>, Fault> {
    let mut differences = Vec::new();
    let legacy = fixture.path("upn_cut_legacy.pth");
    let present = Checkpoint::open_upn(&legacy)?;
    // The converter counts layers in the file itself, so it cannot name tensors of layers that are cut.
    let missing: Vec<&str> = required
        .iter()
        .copied()
        .filter(|name| !name.contains(".layers.") && present.get(name).is_none())
        .collect();
    let truncated = fixture.path("truncated.pth");
    let cut = if pth::is_zip(&fixture.bytes(&truncated)?) {
        "is cut or damaged"
    } else {
        "is cut"
    };
    if missing.is_empty() {
        differences.push("upn_cut_legacy.pth lacks no tensor".into());
    }
    let names_missing = |fault: &str| {
        let mut names = listed_tensors(fault).peekable();
        // The message lists the first ones, those of layers among them.
        let is_absent = |name| present.get(name).is_none();
        names.peek().is_some_and(|name| missing.contains(name)) && names.all(is_absent)
    };
    let mut check = |file: PathBuf, reason: &str, is_given: &dyn Fn(&str) -> bool| {
        let out = scratch.join("rejected");
        let shown = file.file_name().unwrap_or_default().display();
        match convert(&conversion(model, file.clone(), out.clone()), &()) {
            Err(fault) => {
                let fault = fault.to_string();
                if !is_given(&fault) {
                    differences.push(format!("{shown} is rejected without {reason}: {fault}"));
                }
            }
            Ok(_) => differences.push(format!("{shown} is accepted")),
        }
        if out.join(MANIFEST).exists() {
            differences.push(format!("{shown} leaves a model behind"));
        }
    };
    let nothing = "nothing was run";
    check(fixture.path("hostile.pth"), nothing, &|fault| {
        fault.contains(nothing)
    });
    check(truncated, cut, &|fault| fault.contains(cut));
    check(legacy, "the names of missing tensors", &names_missing);
    Ok(differences)
}

/// The tensors that the message of a fault lists.
fn listed_tensors(fault: &str) -> impl Iterator<Item = &str> {
    let list = fault.split_once(" tensors: ").map_or("", |(_, list)| list);
    let list = list.split([';', '\n']).next().unwrap_or_default();
    let list = list.split(" and ").next().unwrap_or_default();
    list.split(", ").filter(|name| !name.is_empty())
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

/// A SentencePiece vocabulary as a `tokenizer.json`, with both behaviours of the original class.
pub(super) async fn tokenizer_llama(fixture: &Fixture, _: &Device) -> Result<Computed, Fault> {
    let recorded = Cases::deserialize(fixture.json("cases.json")?)
        .map_err(|error| fixture.fault(&format!("cases.json: {error}")))?;
    let mut differences = Vec::new();
    for (legacy, encode, decode) in [
        (true, &recorded.legacy, &recorded.legacy_decode),
        (false, &recorded.new, &recorded.new_decode),
    ] {
        let scratch = temporary_folder()?;
        let tokenizer = converted_tokenizer(fixture, scratch.path(), legacy)?;
        if tokenizer.vocab_size() != recorded.vocab_size_with_added {
            differences.push(format!("{} tokens", tokenizer.vocab_size()));
        }
        for case in encode {
            let ids = tokenizer.encode_continuation(&case.text);
            let expected: Vec<i64> = case.ids.iter().map(|&id| id.into()).collect();
            if ids != expected {
                differences.push(format!("legacy {legacy}, {:?}: {ids:?}", case.text));
            }
        }
        for case in decode {
            let text = tokenizer.decode(&case.ids);
            if text != case.text {
                differences.push(format!("legacy {legacy}, {:?}: {text:?}", case.ids));
            }
        }
    }
    let mut computed = Computed::new();
    computed.put_json(differences);
    Ok(computed)
}

/// The fixture's tokenizer with `legacy` set in its configuration.
fn converted_tokenizer(
    fixture: &Fixture,
    scratch: &Path,
    legacy: bool,
) -> Result<Tokenizer, Fault> {
    for file in ["tokenizer.model", "added_tokens.json"] {
        let from = fixture.path(file);
        if from.exists() {
            let to = scratch.join(file);
            std::fs::copy(from, &to).map_err(|error| Fault::file(&to, error))?;
        }
    }
    let mut config: Value = fixture.json("tokenizer_config.json")?;
    config["legacy"] = json!(legacy);
    let path = scratch.join("tokenizer_config.json");
    std::fs::write(&path, config.to_string()).map_err(|error| Fault::file(&path, error))?;
    let read = tokenizer::read(scratch)?;
    Tokenizer::from_json(&read.json, "tokenizer.json", None)
}
