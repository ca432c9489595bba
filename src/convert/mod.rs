//! Converts published checkpoints to model folders.
//!
//! Checkpoints are untrusted: everything is checked before it is used, and pickles are never executed.
//! Tensors are converted one after another, on all cores. Finished shards are kept when a run is
//! interrupted. `model.json`, without which a folder is no model, is written last.

pub mod checkpoint;
pub mod family;
pub mod layout;
pub mod licence;
pub mod options;
pub mod pickle;
pub mod pth;
pub mod required_tensors;
mod self_test;
pub mod sentencepiece;
mod shards;
pub mod size_plan;
mod source;
pub mod synthetic;
pub mod tensor_view;
pub mod tokenizer;
pub mod write;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{Fault, FaultKind};
use crate::weights::manifest::{FileEntry, MANIFEST, Manifest, Provenance, Shard, VERSION};
use crate::weights::storage::{QuantPreset, WeightFormat, storage_for};

use layout::{ShardPlan, lay_out};
pub use options::{ByteProgress, Conversion};
use required_tensors::RequiredTensor;
use self_test::self_test;
use shards::{delete_unfinished, write_shards};
use source::{Source, TOKENIZER};
use write::{PIECE_BYTES, QuantError, replace};

/// The result of a conversion.
#[derive(Clone, Debug, Serialize)]
pub struct Converted {
    /// Bytes of the model folder.
    pub bytes: u64,
    /// Bytes read from the checkpoint.
    pub read_bytes: u64,
    /// Every tensor: its name, storage format and quantization error.
    pub tensors: Vec<TensorReport>,
    /// Tensors that the model is known not to use.
    pub skipped: Vec<String>,
    /// Unknown tensors of the proposal network's file.
    pub left_over: Vec<String>,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// The tensor's name in this project's spelling.
    pub name: String,
    /// `f32`, `f16`, `q8` or `q4`.
    pub form: String,
    /// Largest absolute difference.
    pub worst: f32,
    /// Root mean square of the differences.
    pub rms: f64,
    /// `rms` relative to the root mean square of the values.
    pub relative: f64,
}

/// Converts a checkpoint.
///
/// # Errors
/// Files are missing, damaged or of an unknown kind; a tensor is missing, unexpected, of another shape or
/// not finite; the folder already holds a model; the disk is full.
pub fn convert(conversion: &Conversion, progress: &dyn ByteProgress) -> Result<Converted, Fault> {
    let out = &conversion.out;
    check_output(conversion)?;
    let source = Source::open(conversion)?;
    let formats = formats(&source, conversion);
    let plan = lay_out(&source.required, &formats);
    progress.set_total(plan.iter().map(|shard| shard.bytes).sum());
    std::fs::create_dir_all(out).map_err(|error| Fault::file(out, error))?;
    let written = write_shards(conversion, &plan, &formats, &source, progress)?;
    let manifest = manifest(conversion, &source, &plan, written.shards)?;
    replace(&out.join(TOKENIZER), &source.tokenizer)?;
    let json = serde_json::to_vec_pretty(&manifest).expect("manifests are plain data");
    Manifest::parse(&json, MANIFEST)?;
    replace(&out.join(MANIFEST), &json)?;
    delete_unfinished(out);
    Ok(Converted {
        bytes: manifest.bytes() + json.len() as u64,
        read_bytes: source.bytes(),
        tensors: report(&source.required, &formats, &written.errors),
        skipped: source.skipped,
        left_over: source.left_over,
    })
}

/// Fails if the output folder holds a model or is the checkpoint itself.
fn check_output(conversion: &Conversion) -> Result<(), Fault> {
    let out = &conversion.out;
    let fault = |what, advice| {
        let place = out.display().to_string();
        Err(Fault::new(FaultKind::File, place, what, advice))
    };
    if out.join(MANIFEST).exists() {
        return fault(
            "already holds a model",
            "Name another folder, or delete this one",
        );
    }
    let real = |folder: &Path| std::fs::canonicalize(folder).ok();
    if real(out).is_some() && real(out) == real(&conversion.model) {
        return fault("is the checkpoint's own folder", "Name another folder");
    }
    Ok(())
}

/// The storage format of every required tensor.
fn formats(source: &Source, conversion: &Conversion) -> Vec<WeightFormat> {
    let layers = source.described.config.chatrex.llm.num_hidden_layers;
    let format = |tensor: &RequiredTensor| {
        storage_for(tensor.spec(), conversion.quant, conversion.group, layers)
    };
    source.required.iter().map(format).collect()
}

/// The manifest of the written shards, with a self-test.
fn manifest(
    conversion: &Conversion,
    source: &Source,
    plan: &[ShardPlan],
    shards: Vec<Shard>,
) -> Result<Manifest, Fault> {
    let described = &source.described;
    let config = &described.config;
    let mut manifest = Manifest {
        version: VERSION,
        name: model_name(conversion),
        family: "chatrex".into(),
        config: serde_json::to_value(config).expect("configurations are plain data"),
        defaults: source.defaults(&conversion.model)?,
        precision: precision(conversion),
        tokenizer: FileEntry::describe(TOKENIZER, &source.tokenizer),
        piece_bytes: PIECE_BYTES,
        shards,
        tensors: plan
            .iter()
            .flat_map(|shard| &shard.blocks)
            .flat_map(|block| block.stored.iter().cloned())
            .collect(),
        licence: source.licence(),
        provenance: Provenance {
            trained_on: described.trained_on.clone().unwrap_or_else(|| {
                "a converted checkpoint; its authors say what it was trained on".into()
            }),
            commands: described.made_by.clone(),
        },
        self_test: None,
    };
    manifest.self_test = Some(self_test(&conversion.out, &manifest, &config.chatrex.llm)?);
    Ok(manifest)
}

fn model_name(conversion: &Conversion) -> String {
    conversion.name.clone().unwrap_or_else(|| {
        let folder = conversion.model.file_name().unwrap_or_default();
        folder.to_string_lossy().into_owned()
    })
}

fn precision(conversion: &Conversion) -> String {
    match conversion.quant {
        QuantPreset::Q4 => format!("q4, groups of {}", conversion.group),
        QuantPreset::Q8 => format!("q8, groups of {}", conversion.group),
        QuantPreset::F16 => "f16".into(),
        QuantPreset::F32 => "f32".into(),
    }
}

fn report(
    required: &[RequiredTensor],
    formats: &[WeightFormat],
    errors: &BTreeMap<usize, QuantError>,
) -> Vec<TensorReport> {
    errors
        .iter()
        .map(|(&index, error)| TensorReport {
            name: required[index].name.clone(),
            form: match formats[index] {
                WeightFormat::Dense(dtype) => format!("{dtype:?}").to_lowercase(),
                WeightFormat::Quantized(scheme) => format!("q{}", scheme.bits),
            },
            worst: error.worst,
            rms: error.rms(),
            relative: error.relative(),
        })
        .collect()
}
