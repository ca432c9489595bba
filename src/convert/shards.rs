//! Writes all shards of a model folder; an interrupted run resumes after the last finished shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::ShardPlan;
use super::options::{ByteProgress, Conversion};
use super::proposer::Proposer;
use super::write::{QuantError, RowSource, check_representable, replace, write_fault, write_shard};
use crate::error::Fault;
use crate::files::read_json;
use crate::weights::manifest::{Shard, VERSION, sha256_hex};
use crate::weights::storage::WeightFormat;

/// The state of an interrupted run.
const UNFINISHED: &str = "unfinished.json";

/// The state of a run, stored beside the shards.
#[derive(Serialize, Deserialize)]
pub(super) struct WrittenShards {
    /// Hash of everything that determines the shards' bytes.
    signature: String,
    /// The finished shards.
    pub shards: Vec<Shard>,
    /// Quantization errors by index of the required tensor.
    #[serde(rename = "deviations")]
    pub errors: BTreeMap<usize, QuantError>,
}

impl WrittenShards {
    /// The state of an earlier run with the same input and options, as far as its shards exist; else an
    /// empty state, and the shards of the other run are deleted.
    fn resume(out: &Path, signature: String) -> Self {
        let mut state = match read_json::<Self>(&out.join(UNFINISHED)) {
            Ok(Some(state)) if state.signature == signature => state,
            other => {
                if let Ok(Some(state)) = other {
                    delete_shards(out, &state.shards);
                }
                Self {
                    signature,
                    shards: Vec::new(),
                    errors: BTreeMap::new(),
                }
            }
        };
        let is_whole = |shard: &Shard| {
            let file = std::fs::metadata(out.join(&shard.name));
            file.is_ok_and(|file| file.len() == shard.bytes)
        };
        let whole = state.shards.iter().take_while(|shard| is_whole(shard));
        state.shards.truncate(whole.count());
        state
    }

    fn save(&self, out: &Path) -> Result<(), Fault> {
        let json = serde_json::to_vec(self).expect("plain data");
        replace(&out.join(UNFINISHED), &json)
    }
}

/// Writes the shards of `plan` that an earlier run has not finished.
///
/// # Errors
/// A tensor cannot be read, is not finite or not representable, or the disk is full.
pub(super) fn write_shards(
    conversion: &Conversion,
    plan: &[ShardPlan],
    formats: &[WeightFormat],
    source: &dyn RowSource,
    progress: &dyn ByteProgress,
) -> Result<WrittenShards, Fault> {
    let out = &conversion.out;
    let mut state = WrittenShards::resume(out, signature(conversion, plan)?);
    for (index, plan) in plan.iter().enumerate() {
        if index < state.shards.len() {
            progress.add(plan.bytes);
            continue;
        }
        let unfinished = out.join(format!("{}.unfinished", plan.name));
        let written = write_shard(
            &unfinished,
            plan,
            formats,
            conversion.rounding,
            source,
            &|bytes| progress.add(bytes),
        );
        let (shard, errors) = written
            .and_then(|written| check_representable(&written.1, source).map(|()| written))
            .inspect_err(|_| {
                // The next run writes it again; if deleting fails, only disk space is lost.
                let _ = std::fs::remove_file(&unfinished);
            })?;
        let finished = out.join(&plan.name);
        std::fs::rename(&unfinished, &finished).map_err(|error| write_fault(&finished, &error))?;
        for (tensor, error) in errors {
            state.errors.entry(tensor).or_default().add(&error);
        }
        state.shards.push(shard);
        state.save(out)?;
    }
    Ok(state)
}

/// Deletes the shards of a run with other options.
fn delete_shards(out: &Path, shards: &[Shard]) {
    let is_inside = |name: &&str| name.ends_with(".safetensors") && !name.contains(['/', '\\']);
    let names = shards.iter().map(|shard| shard.name.as_str());
    for name in names.filter(is_inside) {
        // If deleting fails, the file is overwritten, or is no part of the new model.
        let _ = std::fs::remove_file(out.join(name));
    }
}

/// Deletes the remains of interrupted runs in a finished folder. Errors are ignored: the files are no
/// part of the model.
pub(super) fn delete_unfinished(out: &Path) {
    let _ = std::fs::remove_file(out.join(UNFINISHED));
    for entry in std::fs::read_dir(out).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .ends_with(".safetensors.unfinished")
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A hash that changes whenever the bytes of a shard may change: of options, layout, and size and
/// modification time of the checkpoint's files.
fn signature(conversion: &Conversion, plan: &[ShardPlan]) -> Result<String, Fault> {
    let mut text = format!(
        "{VERSION} {:?} {:?} {:?}",
        conversion.quant, conversion.rounding, conversion.prefixes
    );
    let mut files: Vec<PathBuf> = conversion.upn.iter().cloned().collect();
    if let Some(detector) = &conversion.detector {
        files.extend(Proposer::detector_files(detector)?);
    }
    if conversion.model.is_file() {
        files.push(conversion.model.clone());
    } else {
        let entries = std::fs::read_dir(&conversion.model)
            .map_err(|error| Fault::file(&conversion.model, error))?;
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        let metadata = std::fs::metadata(&file).map_err(|error| Fault::file(&file, error))?;
        if metadata.is_dir() {
            continue;
        }
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let bytes = metadata.len();
        text.push_str(&format!("\n{} {bytes} {modified:?}", file.display()));
    }
    for shard in plan {
        text.push_str(&sha256_hex(&shard.header));
    }
    Ok(sha256_hex(text.as_bytes()))
}
