//! Options of a conversion, and its progress.

use std::path::{Path, PathBuf};

use super::disk::{self, read_json};
use crate::error::Fault;
use crate::text::prompt::ChatTemplate;
use crate::weights::quant::Rounding;
use crate::weights::storage::QuantPreset;

/// Options of a conversion.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The checkpoint: a hub folder, or a GGUF file.
    pub model: PathBuf,
    /// The proposal network's file.
    pub upn: Option<PathBuf>,
    /// A folder with an adapter of the language model in a GGUF file.
    pub adapter: Option<PathBuf>,
    /// The detector's file: a TensorFlow.js graph model of NanoDet-g (its JSON file), or safetensors.
    pub detector: Option<PathBuf>,
    /// Side of the detector's input in pixels; by default that of its file.
    pub detector_side: Option<usize>,
    /// The model folder to write.
    pub out: PathBuf,
    /// Quantization.
    pub quant: QuantPreset,
    /// Weights per scale, 32 or 64.
    pub group: usize,
    /// Rounding of quantized weights.
    pub rounding: Rounding,
    /// A JSON file with a chat template instead of the family's.
    pub template: Option<PathBuf>,
    /// Prefixes of tensor names in the checkpoint and in the proposal network's file: theirs and this
    /// project's.
    pub prefixes: Vec<(String, String)>,
    /// The model's name; by default that of the folder or the file.
    pub name: Option<String>,
}

impl Conversion {
    /// The model's name: the given one, else that of the checkpoint.
    pub(super) fn model_name(&self) -> String {
        let given = self.name.clone();
        given.unwrap_or_else(|| path_name(&self.model))
    }

    /// The chat template that replaces the family's, if one is given.
    ///
    /// # Errors
    /// Its file is missing or damaged.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, Fault> {
        let Some(path) = &self.template else {
            return Ok(None);
        };
        let template = read_json(path)?;
        Ok(Some(
            template.ok_or_else(|| Fault::file(path, "is missing"))?,
        ))
    }
}

/// The name of the model in a folder or a file; never empty. Paths like `.` are resolved, and a link has
/// its own name.
pub(super) fn path_name(path: &Path) -> String {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = path.file_name();
    let is_link = name.is_some() && name != real.file_name();
    let named = if is_link { path } else { real.as_path() };
    let own = match disk::is_file(path) {
        true => named.file_stem(),
        false => named.file_name(),
    };
    [path, named]
        .into_iter()
        .find_map(cached_name)
        .or_else(|| Some(own?.to_string_lossy().trim().to_string()))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "model".into())
}

/// The name in a path of the Hugging Face hub's cache: NAME of `models--OWNER--NAME/snapshots/HASH`.
fn cached_name(path: &Path) -> Option<String> {
    let parent = path.parent()?;
    let is_hash = parent.ends_with("snapshots") || parent.ends_with("blobs");
    let folder = if is_hash { parent.parent()? } else { path };
    let folder = folder.file_name()?.to_string_lossy();
    let name = match folder.strip_prefix("models--") {
        Some(repository) => match repository.split_once("--") {
            Some((_, name)) => name,
            None => repository,
        },
        None if is_hash => &*folder,
        None => return None,
    };
    (!name.is_empty()).then(|| name.to_string())
}

/// Receives the progress of writing files.
pub trait ByteProgress: Sync {
    /// Sets the number of bytes to write.
    fn set_total(&self, bytes: u64);
    /// Adds bytes that were written.
    fn add(&self, bytes: u64);
}

/// Ignores progress.
impl ByteProgress for () {
    fn set_total(&self, _bytes: u64) {}
    fn add(&self, _bytes: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_give_their_names() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = scratch.path().join("ChatRex-1.5");
        std::fs::create_dir_all(folder.join("inner")).expect("a folder");
        std::fs::write(folder.join("Qwen2.5-q4.gguf"), b"").expect("a file");
        for path in ["", "inner/..", "./.", "inner/../inner/.."] {
            assert_eq!(path_name(&folder.join(path)), "ChatRex-1.5", "{path}");
        }
        assert_eq!(path_name(&folder.join("Qwen2.5-q4.gguf")), "Qwen2.5-q4");
        assert_eq!(path_name(&folder.join("missing")), "missing");
        assert_eq!(path_name(Path::new("/")), "model");
        assert_eq!(path_name(Path::new("")), "model");
        let here = std::env::current_dir().expect("a folder");
        let here = here.file_name().expect("a name").to_string_lossy();
        assert_eq!(path_name(Path::new(".")), here);
    }

    #[test]
    fn the_cache_of_the_hub_gives_the_name_of_the_repository() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let hash = "e2f1b7c99a0d4c1f8b6f0a1d2c3b4a5968778695";
        for (repository, name) in [
            ("models--IDEA-Research--ChatRex-7B", "ChatRex-7B"),
            ("models--gpt2", "gpt2"),
            ("RexSeek-3B", "RexSeek-3B"),
        ] {
            let folder = scratch.path().join(repository);
            let snapshot = folder.join("snapshots").join(hash);
            std::fs::create_dir_all(&snapshot).expect("a folder");
            assert_eq!(path_name(&snapshot), name);
            assert_eq!(path_name(&snapshot.join("..").join(hash)), name);
            assert_eq!(path_name(&folder), name);
            std::fs::write(snapshot.join("text.gguf"), b"").expect("a file");
            assert_eq!(path_name(&snapshot.join("text.gguf")), "text");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_has_its_own_name() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = scratch.path().join("models--a--b/snapshots/0");
        std::fs::create_dir_all(folder.join("inner")).expect("a folder");
        let link = scratch.path().join("mine");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        assert_eq!(path_name(&link), "mine");
        assert_eq!(path_name(&link.join("inner/..")), "b");
    }
}
