//! Trained weights become a model folder: safetensors shards, tokenizer, `model.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::checkpoint::{Precision, Start, Weights, replace};
use crate::engine::ModelConfig;
use crate::fault::Fault;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::Manifest;
use crate::weights::format::{
    Defaults, FileEntry, Licence, MANIFEST, Provenance, TensorEntry, VERSION,
};

/// The name of the tokenizer in a model folder.
const TOKENIZER: &str = "tokenizer.json";

/// What goes into a folder.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Trained proposal network; random without.
    pub upn: Option<PathBuf>,
    /// Trained towers, projectors and decoder; random without.
    pub chatrex: Option<PathBuf>,
    /// The tokenizer.
    pub tokenizer: PathBuf,
    /// The folder to write.
    pub out: PathBuf,
    /// Defaults for whoever loads it.
    pub defaults: Defaults,
    /// What it was trained on and by which commands.
    pub provenance: Provenance,
}

/// Writes nano's model folder. The manifest comes last, so a folder without one is unfinished.
/// Training's auxiliary heads are left out; a weight file that lacks a parameter is refused.
///
/// # Errors
/// A file cannot be read or written, or holds tensors of other shapes than nano's.
pub fn export(options: &ExportOptions) -> Result<(), Fault> {
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    let json = std::fs::read(&options.tokenizer)
        .map_err(|error| Fault::file(&options.tokenizer, error))?;
    let place = options.tokenizer.display().to_string();
    let vocabulary = Tokenizer::from_json(&json, &place, None)?.vocab_size();
    let chatrex = ChatRexConfig::nano(vocabulary);
    let upn = UpnConfig::nano();
    let device = Device::flex();

    let mut tensors = BTreeMap::new();
    let mut shard = |name: &str, weights: &Weights| {
        let path = options.out.join(name);
        weights.write(&path, Precision::F16)?;
        for (tensor, values) in &weights.tensors {
            let entry = TensorEntry {
                shard: name.to_string(),
                dtype: "F16".to_string(),
                shape: values.shape.clone(),
            };
            tensors.insert(tensor.clone(), entry);
        }
        let bytes = std::fs::read(&path).map_err(|error| Fault::file(&path, error))?;
        Ok::<_, Fault>(FileEntry::describe(name, &bytes))
    };
    let upn_weights = parameters(options.upn.as_deref(), |start| {
        let network = Upn::load(&Loader::new(start, &device), &upn)?;
        Ok(Weights::of_module(&network, start))
    })?;
    let chatrex_weights = parameters(options.chatrex.as_deref(), |start| {
        let network = ChatRex::load(&Loader::new(start, &device), &chatrex)?;
        Ok(Weights::of_module(&network, start))
    })?;
    let shards = vec![
        shard("upn.safetensors", &upn_weights)?,
        shard("chatrex.safetensors", &chatrex_weights)?,
    ];
    let config = ModelConfig {
        recipe: chatrex.recipe(),
        chatrex,
        upn,
        template: ChatTemplate::qwen(),
    };
    let manifest = Manifest {
        version: VERSION,
        name: "nano".to_string(),
        family: "chatrex".to_string(),
        config: serde_json::to_value(config).expect("configurations are plain data"),
        defaults: options.defaults,
        tokenizer: FileEntry::describe(TOKENIZER, &json),
        shards,
        tensors,
        licence: Licence {
            name: "MIT OR Apache-2.0".to_string(),
            text: "These weights were trained by this project on scenes it draws and carry the \
                   project's own licence."
                .to_string(),
        },
        provenance: options.provenance.clone(),
    };
    replace(&options.out.join(TOKENIZER), &json)?;
    let json = serde_json::to_vec_pretty(&manifest).expect("manifests are plain data");
    replace(&options.out.join(MANIFEST), &json)
}

/// The parameters that `load` asks for, from `file` or at random.
fn parameters(
    file: Option<&Path>,
    load: impl FnOnce(&Start) -> Result<Weights, Fault>,
) -> Result<Weights, Fault> {
    let stored = file.map(Weights::read).transpose()?;
    let start = Start::new(stored.clone().unwrap_or_default(), 0);
    let weights = load(&start)?;
    if let (Some(file), Some(stored)) = (file, stored) {
        let missing = |name: &&String| !stored.tensors.contains_key(*name);
        if let Some(name) = weights.tensors.keys().find(missing) {
            return Err(Fault::model(
                format!("{}, tensor {name}", file.display()),
                "is missing",
            ));
        }
    }
    Ok(weights)
}
