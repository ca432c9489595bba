//! Exports trained weights as a checkpoint folder in the layout of published models, which
//! `chatrex convert` reads.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Value, json};

use super::adapter::{AdapterTrainee, Base, LORA, lora_config};
use super::checkpoint::{Initializer, Precision, Weights, write_atomically};
use super::labels;
use crate::error::Fault;
use crate::files::read_json;
use crate::model::adapter::{ADAPTER_CONFIG, ADAPTER_TENSORS, AdapterConfig, BaseModel};
use crate::model::chatrex::{ChatRex, ChatRexConfig};
use crate::model::class_projector::ClassProjectorConfig;
use crate::model::upn::{Upn, UpnConfig};
use crate::nn::Loader;
use crate::text::tokenizer::Tokenizer;
use crate::weights::manifest::sha256_hex;

/// Options of [`export`].
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Weight file of UPN; random weights if `None`.
    pub upn: Option<PathBuf>,
    /// Weight file of towers, projectors and decoder; random weights if `None`.
    pub chatrex: Option<PathBuf>,
    /// The `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// The output folder.
    pub out: PathBuf,
    /// Default score threshold of boxes.
    pub score: f32,
    /// Default IoU threshold of NMS.
    pub nms: f64,
    /// The training data, in one sentence.
    pub trained_on: String,
    /// The commands that produced the weights, in order.
    pub made_by: Vec<String>,
}

/// Writes nano as a checkpoint folder: `config.json`, `model.safetensors`, `vision_sizes.json`,
/// `tokenizer.json`, and UPN as `upn.safetensors` and `upn.json`. Auxiliary heads of the training are
/// omitted.
///
/// # Errors
/// A file cannot be read or written, lacks a parameter, or has tensors of other shapes than nano's.
pub fn export(options: &ExportOptions) -> Result<(), Fault> {
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    let (tokenizer_json, tokenizer) = read_tokenizer(&options.tokenizer)?;
    let chatrex = ChatRexConfig::nano(tokenizer.vocab_size());
    let upn = UpnConfig::nano();
    let device = Device::flex();
    let path = |name: &str| options.out.join(name);

    let weights = parameters(options.upn.as_deref(), |initializer| {
        let network = Upn::load(&Loader::new(initializer, &device), &upn)?;
        Ok(Weights::of_module(&network, initializer))
    })?;
    weights.write(&path("upn.safetensors"), Precision::F32)?;
    let weights = parameters(options.chatrex.as_deref(), |initializer| {
        let network = ChatRex::load(&Loader::new(initializer, &device), &chatrex)?;
        Ok(Weights::of_module(&network, initializer))
    })?;
    weights.write(&path("model.safetensors"), Precision::F32)?;
    let mut config = serde_json::to_value(&chatrex.llm).expect("plain data");
    let extra = json!({
        "architectures": ["ChatRexForCausalLM"],
        "model_type": "chatrex",
        "mm_vision_select_layer": chatrex.towers.clip.select_layer,
        "license": "MIT OR Apache-2.0",
        "license_text": "These weights were trained by this project on scenes it draws and carry \
                         the project's own licence.",
        "trained_on": options.trained_on,
        "made_by": options.made_by,
        "score": options.score,
        "nms": options.nms,
    });
    extend(&mut config, extra);
    let sizes = json!({
        "clip": chatrex.towers.clip,
        "image_low": chatrex.towers.image_low,
        "image_aux": chatrex.towers.image_aux,
    });
    for (name, value) in [
        ("config.json", &config),
        ("vision_sizes.json", &sizes),
        ("upn.json", &serde_json::to_value(&upn).expect("plain data")),
    ] {
        let text = serde_json::to_vec_pretty(value).expect("plain data");
        write_atomically(&path(name), &text)?;
    }
    write_atomically(&path("tokenizer.json"), &tokenizer_json)
}

/// Options of [`export_mini`].
#[derive(Clone, Debug)]
pub struct MiniExportOptions {
    /// Weight file of the `labels` stage.
    pub weights: PathBuf,
    /// The `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// The output folder.
    pub out: PathBuf,
    /// Default score threshold of boxes.
    pub score: f32,
    /// Least score of the best box of a kind that has no box above `score`.
    pub first_of_kind: f32,
    /// Default IoU threshold of NMS.
    pub nms: f64,
    /// The commands that produced the weights, in order.
    pub made_by: Vec<String>,
}

/// What mini was trained on.
const MINI_TRAINED_ON: &str = "lists of boxes as a detector of photographs reports them, drawn by this project; the detector was trained on \
                               COCO by its authors";
/// What mini knows, in one line for users.
const MINI_KNOWS: &str = "Knows 80 kinds of everyday things in photographs: people, pets, vehicles, furniture, kitchen, food. It sees most big \
                          things, misses more than half of all objects, small ones above all, and calls one in six that it finds by a wrong \
                          name.";

/// Writes decoder and object projector of mini as a checkpoint folder: `config.json`,
/// `model.safetensors` and `tokenizer.json`. `chatrex convert --detector` adds the detector.
///
/// # Errors
/// A file cannot be read or written, lacks a parameter, or has tensors of other shapes than mini's.
pub fn export_mini(options: &MiniExportOptions) -> Result<(), Fault> {
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    let (tokenizer_json, tokenizer) = read_tokenizer(&options.tokenizer)?;
    let weights = parameters(Some(&options.weights), |initializer| {
        labels::bake(initializer, &tokenizer)
    })?;
    weights.write(&options.out.join("model.safetensors"), Precision::F32)?;
    let llm = labels::mini_decoder(tokenizer.vocab_size());
    let mut config = serde_json::to_value(&llm).expect("plain data");
    let extra = json!({
        "architectures": ["ChatRexDetectorForCausalLM"],
        "model_type": "chatrex_detector",
        "objects": ClassProjectorConfig::MINI,
        "license": "MIT OR Apache-2.0",
        "license_text": "Decoder and projector were trained by this project and carry the project's own \
                         licence.",
        "trained_on": MINI_TRAINED_ON,
        "knows": MINI_KNOWS,
        "made_by": options.made_by,
        "score": options.score,
        "first_of_kind": options.first_of_kind,
        "nms": options.nms,
    });
    extend(&mut config, extra);
    let text = serde_json::to_vec_pretty(&config).expect("plain data");
    write_atomically(&options.out.join("config.json"), &text)?;
    write_atomically(&options.out.join("tokenizer.json"), &tokenizer_json)
}

/// Options of [`export_small`].
#[derive(Clone, Debug)]
pub struct SmallExportOptions {
    /// Weight file of the `adapter` stage.
    pub weights: PathBuf,
    /// The model folder of the language model, with f32 weights.
    pub base: PathBuf,
    /// The GGUF file that it was converted from; by default that of small.
    pub base_file: Option<PathBuf>,
    /// The output folder.
    pub out: PathBuf,
    /// Default score threshold of boxes.
    pub score: f32,
    /// Least score of the best box of a kind that has no box above `score`.
    pub first_of_kind: f32,
    /// Default IoU threshold of NMS.
    pub nms: f32,
    /// The commands that produced the weights, in order.
    pub made_by: Vec<String>,
}

/// What small knows, in one line for users.
const SMALL_KNOWS: &str = "Knows the same 80 kinds of everyday things in photographs as mini, and answers in words of a small general \
                           language model, which invents a lot. It sees the names and places of things, not the picture.";

/// Writes the adapter of small: `adapter.json` and `adapter.safetensors` in f16. `chatrex convert --adapter`
/// merges it into the language model.
///
/// # Errors
/// A file cannot be read or written, lacks a parameter, or has tensors of other shapes than small's.
pub fn export_small(options: &SmallExportOptions) -> Result<(), Fault> {
    std::fs::create_dir_all(&options.out).map_err(|error| Fault::file(&options.out, error))?;
    let (base, tokenizer) = Base::read(&options.base)?;
    // The changes of the run stand beside its weights.
    let run = options.weights.parent().unwrap_or(Path::new("."));
    let lora = read_json(&run.join(LORA))?.unwrap_or_else(lora_config);
    let base_file = base_file(options)?;
    let device = Device::flex();
    let weights = parameters(Some(&options.weights), |initializer| {
        let at = Loader::new(initializer, &device);
        let trainee = AdapterTrainee::load(&at, &lora, &base, &tokenizer)?;
        Ok(Weights::of_module(&trainee, initializer))
    })?;
    weights.write(&options.out.join(ADAPTER_TENSORS), Precision::F16)?;
    let config = AdapterConfig {
        base: base_file,
        lora,
        objects: ClassProjectorConfig::SMALL,
        added_tokens: tokenizer.vocab_size() - base.config.vocab_size,
        template: base.template,
        score: options.score,
        first_of_kind: options.first_of_kind,
        nms: options.nms,
        knows: SMALL_KNOWS.into(),
        trained_on: MINI_TRAINED_ON.into(),
        made_by: options.made_by.clone(),
        license: "MIT OR Apache-2.0".into(),
    };
    let text = serde_json::to_vec_pretty(&config).expect("plain data");
    write_atomically(&options.out.join(ADAPTER_CONFIG), &text)
}

/// The file of the language model that the adapter changes.
fn base_file(options: &SmallExportOptions) -> Result<BaseModel, Fault> {
    let Some(path) = &options.base_file else {
        return Ok(BaseModel {
            name: "SmolLM2-135M-Instruct".into(),
            file: "SmolLM2-135M-Instruct.Q4_1.gguf".into(),
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".into(),
        });
    };
    let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into();
    Ok(BaseModel {
        name: text(path.file_stem()),
        file: text(path.file_name()),
        sha256: sha256_hex(&bytes),
    })
}

/// A `tokenizer.json`, as it is and parsed.
fn read_tokenizer(path: &Path) -> Result<(Vec<u8>, Tokenizer), Fault> {
    let json = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    let tokenizer = Tokenizer::from_json(&json, &path.display().to_string(), None)?;
    Ok((json, tokenizer))
}

/// Adds the members of the object `extra` to the object `config`.
fn extend(config: &mut Value, extra: Value) {
    if let (Some(config), Value::Object(extra)) = (config.as_object_mut(), extra) {
        config.extend(extra);
    }
}

/// The parameters that `load` requests, from `file` or random.
fn parameters(
    file: Option<&Path>,
    load: impl FnOnce(&Initializer) -> Result<Weights, Fault>,
) -> Result<Weights, Fault> {
    let stored = file.map(Weights::read).transpose()?;
    let initializer = Initializer::new(stored.clone().unwrap_or_default(), 0);
    let weights = load(&initializer)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mini_is_not_exported_without_all_of_its_weights() {
        let folder = tempfile::tempdir().expect("a folder");
        let weights = folder.path().join("weights.safetensors");
        let empty = Weights::default();
        empty.write(&weights, Precision::F32).expect("a file");
        let options = MiniExportOptions {
            weights,
            tokenizer: super::super::MINI_TOKENIZER.into(),
            out: folder.path().join("out"),
            score: 0.3,
            first_of_kind: 0.1,
            nms: 0.5,
            made_by: Vec::new(),
        };
        let fault = export_mini(&options).expect_err("no weights");
        assert_eq!(fault.what, "is missing");
        assert!(!options.out.join("model.safetensors").exists());
    }
}
