//! Options of a conversion, and its progress.

use std::path::PathBuf;

use super::disk::read_json;
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
    /// Prefixes of tensor names: the checkpoint's and this project's.
    pub prefixes: Vec<(String, String)>,
    /// The model's name; by default the folder's.
    pub name: Option<String>,
}

impl Conversion {
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
