//! Converts published checkpoints to model folders.
//!
//! Checkpoints are untrusted: everything is checked before it is used, and pickles are never executed.
//! Tensors are converted one after another, on all cores. Finished shards are kept when a run is
//! interrupted. `model.json`, without which a folder is no model, is written last.

#[cfg(feature = "native")]
mod adapter;
mod byte_level;
pub mod checkpoint;
pub mod disk;
pub mod family;
pub mod ggml;
pub mod gguf;
mod gguf_model;
mod gguf_tokenizer;
pub mod layout;
pub mod licence;
#[cfg(feature = "native")]
pub mod nanodet;
pub mod options;
pub mod pickle;
mod proposer;
pub mod pth;
pub mod required_tensors;
mod self_test;
pub mod sentencepiece;
#[cfg(feature = "native")]
mod shards;
#[cfg(feature = "native")]
pub mod size_plan;
mod source;
#[cfg(feature = "native")]
pub mod synthetic;
pub mod tensor_view;
#[cfg(feature = "native")]
pub mod tfjs;
pub mod tokenizer;
pub mod write;

#[cfg(feature = "native")]
use std::collections::BTreeMap;
#[cfg(feature = "native")]
use std::path::Path;

#[cfg(feature = "native")]
use serde::Serialize;

use crate::engine::memory_plan::{PartTensor, default_kv_cache, needs_of};
use crate::error::Fault;
#[cfg(feature = "native")]
use crate::error::FaultKind;
use crate::memory::MemoryNeeds;
use crate::model::config::ModelConfig;
use crate::weights::manifest::{
    Defaults, FileEntry, Licence, MANIFEST, Manifest, Provenance, Shard, VERSION,
};
use crate::weights::storage::WeightFormat;

#[cfg(all(test, feature = "native"))]
pub(crate) use nanodet::tests::Builder as TestDetector;

use layout::{ShardPlan, lay_out};
pub use options::{ByteProgress, Conversion};
use required_tensors::RequiredTensor;
use self_test::self_test;
#[cfg(feature = "native")]
use shards::{delete_unfinished, write_shards};
use source::{Source, TOKENIZER};
use write::{PIECE_BYTES, RowSource, check_representable, write_shard};
#[cfg(feature = "native")]
use write::{QuantError, replace};

/// The result of a conversion.
#[cfg(feature = "native")]
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
    /// What a user should know about the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is converted: checked tensors, and what the manifest says about them. The native program reports all of it.
#[cfg_attr(not(feature = "native"), allow(dead_code))]
struct Input {
    /// The values of the required tensors.
    rows: Box<dyn RowSource>,
    /// The parts of the model.
    config: ModelConfig,
    /// Every tensor that the model requires.
    required: Vec<RequiredTensor>,
    /// The storage format of each.
    formats: Vec<WeightFormat>,
    /// The content of `tokenizer.json`.
    tokenizer: Vec<u8>,
    name: String,
    precision: String,
    defaults: Defaults,
    licence: Licence,
    provenance: Provenance,
    /// Bytes of the required tensors in their files.
    read_bytes: u64,
    /// Tensors that the model is known not to use.
    skipped: Vec<String>,
    /// Unknown tensors of the proposal network's file.
    left_over: Vec<String>,
    warnings: Vec<String>,
}

/// One line of the report.
#[cfg(feature = "native")]
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// The tensor's name in this project's spelling.
    pub name: String,
    /// `f32`, `f16`, `q8`, `q4`, or `q4m`: 4 bits with minimums.
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
#[cfg(feature = "native")]
pub fn convert(conversion: &Conversion, progress: &dyn ByteProgress) -> Result<Converted, Fault> {
    let out = &conversion.out;
    check_output(conversion)?;
    let Prepared { input, plan } = prepare(conversion)?;
    progress.set_total(plan.iter().map(|shard| shard.bytes).sum());
    std::fs::create_dir_all(out).map_err(|error| Fault::file(out, error))?;
    let written = write_shards(conversion, &plan, &input.formats, &*input.rows, progress)?;
    let manifest = manifest(conversion, &input, &plan, written.shards)?;
    replace(&out.join(TOKENIZER), &input.tokenizer)?;
    let json = to_json(&manifest)?;
    replace(&out.join(MANIFEST), &json)?;
    delete_unfinished(out);
    Ok(Converted {
        bytes: manifest.bytes() + json.len() as u64,
        read_bytes: input.read_bytes,
        tensors: report(&input.required, &input.formats, &written.errors),
        skipped: input.skipped,
        left_over: input.left_over,
        warnings: input.warnings,
    })
}

/// A checkpoint that can be converted, and where its tensors go.
pub struct Prepared {
    input: Input,
    plan: Vec<ShardPlan>,
}

/// Opens a checkpoint and checks everything but the values of its tensors.
///
/// # Errors
/// Files are missing, damaged or of an unknown kind; a tensor is missing, unexpected or of another shape.
pub fn prepare(conversion: &Conversion) -> Result<Prepared, Fault> {
    let input = match &conversion.adapter {
        #[cfg(feature = "native")]
        Some(adapter) => adapter::open(conversion, adapter)?,
        #[cfg(not(feature = "native"))]
        Some(adapter) => {
            let what = "is an adapter, which only the native program adds";
            return Err(Fault::file(adapter, what));
        }
        None if disk::is_file(&conversion.model) => gguf_model::open(conversion)?,
        None => Source::open(conversion)?.into_input(conversion)?,
    };
    let plan = lay_out(&input.required, &input.formats, input.config.family()?);
    Ok(Prepared { input, plan })
}

impl Prepared {
    /// Name and length of every shard, in load order.
    pub fn shards(&self) -> impl Iterator<Item = (&str, u64)> {
        self.plan.iter().map(|shard| (&*shard.name, shard.bytes))
    }

    /// Name and content of the tokenizer.
    pub fn tokenizer(&self) -> (&'static str, &[u8]) {
        (TOKENIZER, &self.input.tokenizer)
    }

    /// Name, precision and licence of the model.
    pub fn facts(&self) -> (&str, &str, &Licence) {
        (&self.input.name, &self.input.precision, &self.input.licence)
    }

    /// What the model was trained on, in a sentence.
    pub fn trained_on(&self) -> &str {
        &self.input.provenance.trained_on
    }

    /// What a user should know about the model.
    pub fn warnings(&self) -> &[String] {
        &self.input.warnings
    }

    /// Bytes that the model needs on a GPU.
    pub fn needs(&self) -> MemoryNeeds {
        let tensors: Vec<PartTensor> = self
            .plan
            .iter()
            .flat_map(|shard| {
                let stored = shard.blocks.iter().flat_map(|block| &block.stored);
                stored.map(|(name, entry)| (shard.part, name.as_str(), entry))
            })
            .collect();
        needs_of(&tensors, &self.input.config, default_kv_cache(&tensors))
    }

    /// Writes all shards into the output folder; returns the manifest.
    ///
    /// # Errors
    /// A tensor cannot be read, is not finite or not representable, or there is no room.
    pub fn write(
        &self,
        conversion: &Conversion,
        progress: &dyn ByteProgress,
    ) -> Result<Vec<u8>, Fault> {
        let Self { input, plan } = self;
        let mut shards = Vec::new();
        for plan in plan {
            let (shard, errors) = write_shard(
                &conversion.out.join(&plan.name),
                plan,
                &input.formats,
                conversion.rounding,
                &*input.rows,
                &|bytes| progress.add(bytes),
            )?;
            check_representable(&errors, &*input.rows)?;
            shards.push(shard);
        }
        to_json(&manifest(conversion, input, plan, shards)?)
    }
}

fn to_json(manifest: &Manifest) -> Result<Vec<u8>, Fault> {
    let json = serde_json::to_vec_pretty(manifest).expect("manifests are plain data");
    Manifest::parse(&json, MANIFEST)?;
    Ok(json)
}

/// Fails if the output folder holds a model or is the checkpoint itself.
#[cfg(feature = "native")]
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

/// The manifest of the written shards, with a self-test.
fn manifest(
    conversion: &Conversion,
    input: &Input,
    plan: &[ShardPlan],
    shards: Vec<Shard>,
) -> Result<Manifest, Fault> {
    let (family, json) = input.config.to_manifest()?;
    let mut manifest = Manifest {
        version: VERSION,
        name: input.name.clone(),
        family: family.name().into(),
        config: json,
        defaults: input.defaults,
        precision: input.precision.clone(),
        tokenizer: FileEntry::describe(TOKENIZER, &input.tokenizer),
        piece_bytes: PIECE_BYTES,
        shards,
        tensors: plan
            .iter()
            .flat_map(|shard| &shard.blocks)
            .flat_map(|block| block.stored.iter().cloned())
            .collect(),
        licence: input.licence.clone(),
        provenance: input.provenance.clone(),
        self_test: None,
    };
    manifest.self_test = Some(self_test(&conversion.out, &manifest, &input.config.llm)?);
    Ok(manifest)
}

#[cfg(feature = "native")]
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
                WeightFormat::Quantized(scheme) => {
                    let minimum = if scheme.minimum { "m" } else { "" };
                    format!("q{}{minimum}", scheme.bits)
                }
            },
            worst: error.worst,
            rms: error.rms(),
            relative: error.relative(),
        })
        .collect()
}
