//! Trained weights become a checkpoint folder as other models are published: what `chatrex convert`
//! reads.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::json;

use super::checkpoint::{Precision, Start, Weights, replace};
use crate::error::Fault;
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::text::tokenizer::Tokenizer;

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
    /// Default score threshold of boxes.
    pub score: f32,
    /// Default overlap above which a box gives way to a better one.
    pub nms: f64,
    /// What it was trained on, in a sentence.
    pub trained_on: String,
    /// The commands that made the weights, in order.
    pub made_by: Vec<String>,
}

/// Writes nano as a checkpoint folder: `config.json`, `model.safetensors`, `tokenizer.json`, and
/// `upn.safetensors` with its sizes in `upn.json`. Training's auxiliary heads are left out; a
/// weight file that lacks a parameter is refused.
///
/// # Errors
/// A file cannot be read or written, or holds tensors of other shapes than nano's.
pub fn export(options: &ExportOptions) -> Result<(), Fault> {
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    let words = std::fs::read(&options.tokenizer)
        .map_err(|error| Fault::file(&options.tokenizer, error))?;
    let place = options.tokenizer.display().to_string();
    let vocabulary = Tokenizer::from_json(&words, &place, None)?.vocab_size();
    let chatrex = ChatRexConfig::nano(vocabulary);
    let upn = UpnConfig::nano();
    let device = Device::flex();
    let path = |name: &str| options.out.join(name);

    let weights = parameters(options.upn.as_deref(), |start| {
        let network = Upn::load(&Loader::new(start, &device), &upn)?;
        Ok(Weights::of_module(&network, start))
    })?;
    weights.write(&path("upn.safetensors"), Precision::F32)?;
    let weights = parameters(options.chatrex.as_deref(), |start| {
        let network = ChatRex::load(&Loader::new(start, &device), &chatrex)?;
        Ok(Weights::of_module(&network, start))
    })?;
    weights.write(&path("model.safetensors"), Precision::F32)?;
    let mut config = serde_json::to_value(&chatrex.llm).expect("plain data");
    let more = json!({
        "architectures": ["ChatRexForCausalLM"],
        "model_type": "chatrex",
        "mm_vision_select_layer": chatrex.clip.select_layer,
        "license": "MIT OR Apache-2.0",
        "license_text": "These weights were trained by this project on scenes it draws and carry \
                         the project's own licence.",
        "trained_on": options.trained_on,
        "made_by": options.made_by,
        "score": options.score,
        "nms": options.nms,
    });
    if let (Some(config), serde_json::Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    let sizes = json!({
        "clip": chatrex.clip,
        "image_low": chatrex.image_low,
        "image_aux": chatrex.image_aux,
    });
    for (name, value) in [
        ("config.json", &config),
        ("vision_sizes.json", &sizes),
        ("upn.json", &serde_json::to_value(&upn).expect("plain data")),
    ] {
        let text = serde_json::to_vec_pretty(value).expect("plain data");
        replace(&path(name), &text)?;
    }
    replace(&path("tokenizer.json"), &words)
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
