//! The converter on complete, renamed and damaged checkpoints, and interrupted runs.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use chatrex::convert::checkpoint::Checkpoint;
use chatrex::convert::required_tensors::{RequiredTensor, required_tensors};
use chatrex::convert::size_plan::SizePlan;
use chatrex::convert::{Conversion, Converted, convert};
use chatrex::engine::memory_plan::{kv_cache_dtype, needs};
use chatrex::error::Fault;
use chatrex::image::prepare::SquareRecipe;
use chatrex::model::config::{ModelConfig, TowersConfig};
use chatrex::nn::{Init, WeightMap, WeightSource};
use chatrex::protocol::DevicePreference;
use chatrex::session::Session;
use chatrex::weights::Manifest;
use chatrex::weights::download::Downloader;
use chatrex::weights::manifest::{MANIFEST, Part};
use chatrex::weights::quant::{QuantScheme, Rounding};
use chatrex::weights::source::{BlockingRuntime, Folder};
use chatrex::weights::storage::QuantPreset;
use half::f16;
use safetensors::tensor::{SafeTensors, TensorView};
use safetensors::{Dtype, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

const GOLDEN: &str = "tests/data/golden/checkpoint";

const TOWER: &str = "vision_tower.vision_tower.vision_model.";

/// A temporary folder with the checkpoint `model` and the output `out`.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Options that convert the checkpoint `model` to the folder `out`, both in this folder.
    fn conversion(&self, model: &str, out: &str) -> Conversion {
        Conversion {
            model: self.path(model),
            upn: None,
            detector: None,
            detector_side: None,
            adapter: None,
            out: self.path(out),
            quant: QuantPreset::F32,
            group: 32,
            rounding: Rounding::Search,
            template: None,
            prefixes: Vec::new(),
            name: None,
        }
    }
}

/// The tiny checkpoint, which a test changes before writing it.
struct Tiny {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    config: Value,
    /// Files besides config and weights.
    files: BTreeMap<String, Vec<u8>>,
}

impl Tiny {
    fn read() -> Self {
        let folder = Path::new(GOLDEN).join("chatrex");
        let file = |name: &str| std::fs::read(folder.join(name)).expect("a recorded file");
        let mut tensors = BTreeMap::new();
        for shard in ["model-00001-of-00002", "model-00002-of-00002"] {
            let bytes = file(&format!("{shard}.safetensors"));
            for (name, view) in SafeTensors::deserialize(&bytes).expect("a shard").iter() {
                let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                tensors.insert(name.to_string(), tensor);
            }
        }
        let files = [
            "generation_config.json",
            "tiny_vision_sizes.json",
            "tokenizer.json",
        ];
        Self {
            tensors,
            config: serde_json::from_slice(&file("config.json")).expect("a config"),
            files: files.map(|name| (name.into(), file(name))).into(),
        }
    }

    /// With `layers` decoder layers: the recorded two, repeated.
    fn with_layers(mut self, layers: usize) -> Self {
        let blocks: Vec<_> = (0..layers)
            .flat_map(|layer| {
                let from = format!("model.layers.{}.", layer % 2);
                let of = |(name, tensor): (&String, &(Dtype, Vec<usize>, Vec<u8>))| {
                    let rest = name.strip_prefix(&from)?;
                    Some((format!("model.layers.{layer}.{rest}"), tensor.clone()))
                };
                self.tensors.iter().filter_map(of).collect::<Vec<_>>()
            })
            .collect();
        self.tensors.extend(blocks);
        self.set("num_hidden_layers", json!(layers))
    }

    /// As LLaMA models are published: no biases of q, k and v, a SentencePiece vocabulary.
    fn into_llama(mut self) -> Self {
        self.tensors
            .retain(|name, _| !name.ends_with("_proj.bias") || !name.starts_with("model."));
        self.files.remove("tokenizer.json");
        for name in [
            "tokenizer.model",
            "added_tokens.json",
            "tokenizer_config.json",
        ] {
            let path = Path::new("tests/data/golden/tokenizer_llama").join(name);
            self.files
                .insert(name.into(), std::fs::read(path).expect("a recorded file"));
        }
        self.set("architectures", json!(["LlavaRexLlamaForCausalLM"]))
            .set("model_type", json!("llama"))
    }

    fn set(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    fn floats(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensors
            .insert(name.into(), (Dtype::F32, shape.to_vec(), bytes));
        self
    }

    /// With `value` as element `at` of tensor `name`, in f32.
    fn with_element(self, name: &str, at: usize, value: f32) -> Self {
        let shape = self.tensors[name].1.clone();
        let mut values = vec![0.01; shape.iter().product()];
        values[at] = value;
        self.floats(name, &shape, &values)
    }

    fn without(mut self, names: &[&str]) -> Self {
        for name in names {
            self.tensors
                .remove(*name)
                .expect("a tensor of the checkpoint");
        }
        self
    }

    fn renamed(mut self, new: impl Fn(&str) -> String) -> Self {
        self.tensors = self
            .tensors
            .into_iter()
            .map(|(name, tensor)| (new(&name), tensor))
            .collect();
        self
    }

    fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            (name.clone(), view.expect("shape and values agree"))
        });
        let weights = serialize(views, None).expect("small tensors serialise");
        let config = self.config.to_string().into_bytes();
        for (name, bytes) in [("model.safetensors", &weights), ("config.json", &config)] {
            std::fs::write(folder.join(name), bytes).expect("a file");
        }
        for (name, bytes) in &self.files {
            std::fs::write(folder.join(name), bytes).expect("a file");
        }
    }

    /// Writes it to `model` and converts it with options that `change` changes.
    fn convert(
        &self,
        scratch: &Scratch,
        change: impl FnOnce(&mut Conversion),
    ) -> Result<Converted, Fault> {
        let mut conversion = scratch.conversion("model", "out");
        self.write(&conversion.model);
        change(&mut conversion);
        convert(&conversion, &())
    }
}

fn manifest(folder: &Path) -> Manifest {
    let json = std::fs::read(folder.join(MANIFEST)).expect("a manifest");
    Manifest::parse(&json, MANIFEST).expect("a whole manifest")
}

fn recipe(folder: &Path) -> SquareRecipe {
    match config(folder).towers {
        Some(TowersConfig::ClipConvNext { recipe, .. }) => recipe,
        other => panic!("the converted towers are {other:?}"),
    }
}

fn config(folder: &Path) -> ModelConfig {
    ModelConfig::of(&manifest(folder), MANIFEST).expect("a known family")
}

/// Every required tensor with its loaded values.
fn loaded(folder: &Path) -> Vec<(RequiredTensor, Vec<f32>)> {
    let device = Device::flex();
    let manifest = manifest(folder);
    let mut weights = WeightMap::new(&device, |_| true);
    let source = Folder(folder.to_path_buf());
    let downloader = Downloader::new(&manifest, &source, None, &BlockingRuntime, &|_| ());
    pollster::block_on(downloader.tensors(&Part::ALL, &mut weights)).expect("whole shards");
    let required = required_tensors(&config(folder)).expect("a valid configuration");
    let read = |tensor: Tensor<1>| tensor.into_data().try_to_vec().expect("f32");
    let values = required.into_iter().map(|required| {
        let tensor = match required.name.strip_suffix(".weight") {
            Some(stem) if required.matrix => {
                let shape = [required.shape[0], required.shape[1]];
                let weight = weights.weight(stem, shape, &Init::Zeros, &device);
                let weight = weight.unwrap_or_else(|fault| panic!("{fault}"));
                let rows: Vec<u32> = (0..shape[0] as u32).collect();
                let values = weight.gather(&rows, &device);
                values.reshape([shape[0] * shape[1]])
            }
            _ => weights
                .tensor(&required.name, &required.shape, &Init::Zeros, &device)
                .unwrap_or_else(|fault| panic!("{fault}")),
        };
        (required, read(tensor))
    });
    let values = values.collect();
    weights.finish().expect("no surplus tensors");
    values
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum()
}

/// Asserts that errors are within half a step, and that searching for scales is not worse than rounding.
fn within_scheme(name: &str, scheme: QuantScheme, original: &[f32], found: &[f32]) {
    let group = scheme.group;
    let mut words = vec![0; scheme.words(original.len())];
    let mut scales = vec![f16::ZERO; original.len() / group];
    scheme.quantize(original, Rounding::Nearest, &mut words, &mut scales);
    let mut nearest = vec![0.0; original.len()];
    scheme.dequantize(&words, &scales, &mut nearest);
    let groups = original.chunks(group).zip(found.chunks(group));
    for ((original, found), nearest) in groups.zip(nearest.chunks(group)) {
        let largest = original.iter().fold(0.0_f32, |max, v| max.max(v.abs()));
        let step = largest / scheme.offset() as f32;
        assert!(
            squares(original, found) <= 1.01 * squares(original, nearest) + 1e-12,
            "{name}: worse than rounding"
        );
        for (a, b) in original.iter().zip(found) {
            // One sign has one code less, and a clipped extreme has a larger error.
            let allowed = if scheme.bits == 4 { 4.0 } else { 1.1 };
            assert!((a - b).abs() <= allowed * step, "{name}: {a} became {b}");
        }
    }
}

#[test]
fn quantized_folders_load_within_the_error_of_their_scheme() {
    for (quant, group, rounding) in [
        (QuantPreset::Q8, 32, Rounding::Search),
        (QuantPreset::Q8, 64, Rounding::Nearest),
        (QuantPreset::Q4, 32, Rounding::Search),
        (QuantPreset::Q4, 64, Rounding::Search),
        (QuantPreset::F16, 32, Rounding::Nearest),
    ] {
        let scratch = Scratch::new();
        let upn = Path::new(GOLDEN).join("upn_tiny.pth");
        let converted = Tiny::read()
            .with_layers(4)
            .convert(&scratch, |conversion| {
                conversion.upn = Some(upn.clone());
                (conversion.quant, conversion.group) = (quant, group);
                conversion.rounding = rounding;
            })
            .unwrap_or_else(|fault| panic!("{fault}"));
        let out = scratch.path("out");
        let manifest = manifest(&out);
        let published = [
            Checkpoint::hub(&scratch.path("model")).expect("the checkpoint"),
            Checkpoint::open_upn(&upn).expect("the proposal network"),
        ];
        let mut quantized = BTreeMap::new();
        for (required, found) in loaded(&out) {
            let name = &required.name;
            let from = &published[usize::from(required.part == Part::Upn)];
            let original = from.values(name).expect("published");
            let stem = name.strip_suffix("weight").unwrap_or(name);
            let codes = manifest.tensors.get(&format!("{stem}qweight"));
            if let Some(codes) = codes {
                let scales = &manifest.tensors[&format!("{stem}scales")];
                let scheme = QuantScheme::infer(
                    required.shape[1],
                    &codes.shape,
                    &scales.shape,
                    scales.dtype,
                );
                let scheme = scheme.expect("a known scheme");
                assert_eq!(scheme.group, group, "{name}");
                within_scheme(name, scheme, &original, &found);
                *quantized.entry(scheme.bits).or_insert(0) += 1;
            } else if manifest.tensors[name].dtype == chatrex::weights::dtype::DType::F16 {
                let halves = original.iter().map(|v| f16::from_f32(*v).to_f32());
                assert_eq!(found, halves.collect::<Vec<_>>(), "{name}");
            } else {
                assert!(quant != QuantPreset::F16, "{name} is not in f16");
                assert_eq!(found, original, "{name}");
            }
            let report = converted.tensors.iter().find(|report| report.name == *name);
            let report = report.unwrap_or_else(|| panic!("{name} is not reported"));
            let apart = |(a, b): (&f32, &f32)| (a - b).abs();
            let worst = original.iter().zip(&found).map(apart).fold(0.0, f32::max);
            let rms = (squares(&original, &found) / original.len() as f64).sqrt();
            assert_eq!(report.worst, worst, "{name}");
            assert!(
                (report.rms - rms).abs() <= 1e-3 * rms,
                "{name}: {} {rms}",
                report.rms
            );
        }
        let bits: Vec<u32> = quantized.keys().copied().collect();
        match quant {
            QuantPreset::Q4 => assert_eq!(bits, [4, 8]),
            QuantPreset::Q8 => assert_eq!(bits, [8]),
            _ => assert!(bits.is_empty()),
        }
        let folder = out.to_str().expect("a plain path");
        let session = Session::open(folder, DevicePreference::Cpu);
        let session = session.unwrap_or_else(|fault| panic!("{quant:?}: {fault}"));
        assert_eq!(session.card().name, "model");
    }
}

/// The same model with other tensor names is converted to the same shards.
#[test]
fn names_of_other_checkpoints_are_normalized() {
    let shards = |tiny: &Tiny, name: &str, prefixes: &[(&str, &str)]| {
        let scratch = Scratch::new();
        let given = prefixes.iter().map(|(a, b)| (a.to_string(), b.to_string()));
        tiny.convert(&scratch, |conversion| conversion.prefixes = given.collect())
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
        manifest(&scratch.path("out")).shards
    };
    let plain = shards(&Tiny::read(), "plain", &[]);
    let swap = |name: &str, from: &str, to: &str| {
        name.strip_prefix(from).map(|rest| format!("{to}{rest}"))
    };
    let wrapped = |name: &str| {
        let inside = name.starts_with("vision_") || name.starts_with("mm_");
        if inside {
            format!("model.{name}")
        } else {
            name.to_string()
        }
    };
    let stock = |name: &str| {
        swap(name, TOWER, "vision_model.")
            .or_else(|| swap(name, "vision_tower_aux.vision_stem.", "visual.trunk.stem."))
            .or_else(|| {
                swap(
                    name,
                    "vision_tower_aux.vision_stages.",
                    "visual.trunk.stages.",
                )
            })
            .unwrap_or_else(|| name.to_string())
            .replace(".ramma", ".gamma")
    };
    assert_eq!(
        shards(&Tiny::read().renamed(wrapped), "wrapped", &[]),
        plain
    );
    let stock = Tiny::read().renamed(stock);
    assert!(stock.tensors.keys().any(|name| name.ends_with(".gamma")));
    assert_eq!(shards(&stock, "stock", &[]), plain);
    let parallel = Tiny::read().renamed(|name| format!("module.{}", wrapped(name)));
    assert_eq!(shards(&parallel, "parallel", &[("module.", "")]), plain);
}

#[test]
fn settings_come_from_the_checkpoint() {
    let scratch = Scratch::new();
    Tiny::read()
        .convert(&scratch, |_| ())
        .expect("a good checkpoint");
    let found = manifest(&scratch.path("out"));
    assert_eq!(found.defaults.repetition_penalty, 1.05);
    assert_eq!(
        found.licence.name,
        "IDEA License 1.0 (non-commercial research)"
    );
    assert!(!found.licence.text.contains("Llama"));
    assert!(recipe(&scratch.path("out")).half_boxes);
    assert!(!found.tensors.contains_key("lm_head.weight"));

    let scratch = Scratch::new();
    Tiny::read()
        .into_llama()
        .set("rms_norm_eps", Value::Null)
        .set("rope_theta", Value::Null)
        .convert(&scratch, |_| ())
        .unwrap_or_else(|fault| panic!("{fault}"));
    let out = scratch.path("out");
    let found = config(&out);
    assert!(!recipe(&out).half_boxes && !found.llm.qkv_bias);
    assert_eq!((found.llm.rope_theta, found.llm.rms_norm_eps), (1e4, 1e-5));
    assert_eq!(found.bos.as_deref(), Some("<s>"));
    assert_eq!(found.template.stop, ["</s>"]);
    let licence = manifest(&out).licence;
    assert!(licence.name.contains("LLAMA 2") && licence.text.contains("Meta Platforms"));
    let folder = out.to_str().expect("a plain path");
    let session = Session::open(folder, DevicePreference::Cpu);
    session.unwrap_or_else(|fault| panic!("{fault}"));

    let scratch = Scratch::new();
    Tiny::read()
        .set("license", json!("CC0-1.0"))
        .set("license_text", json!("Do what you like."))
        .set("tie_word_embeddings", json!(false))
        .convert(&scratch, |conversion| conversion.name = Some("mine".into()))
        .expect("a good checkpoint");
    let found = manifest(&scratch.path("out"));
    assert_eq!((&*found.name, &*found.licence.name), ("mine", "CC0-1.0"));
    assert_eq!(found.licence.text, "Do what you like.");
    assert!(found.tensors.contains_key("lm_head.weight"));
}

#[test]
fn inconsistent_checkpoints_are_rejected() {
    let tiny = Tiny::read;
    let extra = |name: &str| tiny().floats(name, &[2], &[1.0, 2.0]);
    let doubled = {
        let own = tiny().tensors["mm_projector.0.bias"].clone();
        let mut tiny = tiny();
        tiny.tensors.insert("model.mm_projector.0.bias".into(), own);
        tiny
    };
    let mut short = tiny().set("vocab_size", json!(300));
    let (_, shape, bytes) = short
        .tensors
        .get_mut("model.embed_tokens.weight")
        .expect("there");
    bytes.truncate(bytes.len() / 527 * 300);
    shape[0] = 300;
    let mut penalty = tiny();
    penalty.files.insert(
        "generation_config.json".into(),
        br#"{"repetition_penalty": 0}"#.into(),
    );
    let mut cut_tower = tiny().without(&[
        &format!("{TOWER}post_layernorm.weight"),
        &format!("{TOWER}post_layernorm.bias"),
    ]);
    cut_tower.files.remove("tiny_vision_sizes.json");
    let cases = [
        (
            extra("model.extra.weight"),
            "holds 1 tensors that no part of the model uses: model.extra.weight",
        ),
        (
            extra("visual.head.weight"),
            "name it with --prefix THEIRS=OURS",
        ),
        (
            tiny().without(&["mm_projector.0.bias", "model.layers.1.mlp.up_proj.weight"]),
            "lacks 2 tensors: mm_projector.0.bias, model.layers.1.mlp.up_proj.weight",
        ),
        (
            tiny().floats("mm_projector.0.bias", &[3], &[0.0; 3]),
            "tensor mm_projector.0.bias: has shape [3] instead of [",
        ),
        (
            tiny().floats("model.embed_tokens.weight", &[4], &[0.0; 4]),
            "tensor model.embed_tokens.weight: has shape [4] instead of 2 axes",
        ),
        (doubled, "are both read as mm_projector.0.bias"),
        (
            tiny().renamed(|name| format!("module.{name}")),
            "Remove the prefix with --prefix module.=",
        ),
        (
            tiny().set("vocab_size", json!(32_104)),
            "config.json: has vocab_size 32104, the tensors have 527",
        ),
        (
            tiny().set("num_hidden_layers", json!(3)),
            "has num_hidden_layers 3, the tensors have 2",
        ),
        (
            tiny().set("num_attention_heads", json!(3)),
            "has 3 and 2 heads of 21, the tensors have 64 and 32 rows",
        ),
        (
            tiny().set("num_key_value_heads", json!(4)),
            "has 4 and 4 heads of 16, the tensors have 64 and 32 rows",
        ),
        (
            tiny().set("num_attention_heads", Value::Null),
            "lacks num_attention_heads",
        ),
        (
            tiny().set("rope_scaling", json!({"type": "linear", "factor": 4})),
            "has rope_scaling {\"factor\":4,\"type\":\"linear\"}, which is not supported",
        ),
        (
            tiny().set("use_sliding_window", json!(true)),
            "has a sliding window",
        ),
        (
            tiny().set("hidden_act", json!("gelu")),
            "has hidden_act gelu; supported is silu",
        ),
        (
            tiny()
                .set("architectures", json!(["MistralForCausalLM"]))
                .set("model_type", json!("mistral")),
            "has an unknown architecture ([\"MistralForCausalLM\"])",
        ),
        (short, "has 527 tokens, the embedding 300 rows"),
        (penalty, "has a repetition penalty of 0"),
        (cut_tower, "must have clip.num_hidden_layers"),
        (
            tiny().with_element("model.norm.weight", 5, f32::NAN),
            "model.safetensors, tensor model.norm.weight: holds NaN at element 5",
        ),
        (
            tiny().with_element(
                "model.layers.1.mlp.down_proj.weight",
                1000,
                f32::NEG_INFINITY,
            ),
            "tensor model.layers.1.mlp.down_proj.weight: holds -inf at element 1000",
        ),
    ];
    for (tiny, message) in cases {
        let scratch = Scratch::new();
        let fault = tiny.convert(&scratch, |_| ());
        let fault = fault.expect_err(message).to_string();
        assert!(fault.contains(message), "{message}: {fault}");
        assert!(!scratch.path("out").join(MANIFEST).exists(), "{message}");
    }
}

/// A scale that overflows makes its whole group infinite or NaN.
#[test]
fn values_beyond_f16_are_rejected_with_advice() {
    for (quant, value) in [
        (QuantPreset::F16, 70_000.0),
        (QuantPreset::Q8, 1e7),
        (QuantPreset::Q4, 1e20),
    ] {
        let name = "model.layers.0.mlp.up_proj.weight";
        let tiny = Tiny::read().with_element(name, 77, value);
        let scratch = Scratch::new();
        let fault = tiny.convert(&scratch, |conversion| conversion.quant = quant);
        let fault = fault.expect_err("beyond f16").to_string();
        let message = format!("tensor {name}: holds values beyond the range of f16. Convert with");
        assert!(fault.contains(&message), "{fault}");
        assert!(!scratch.path("out").join("decoder.safetensors").exists());
        let exact = tiny.convert(&scratch, |_| ());
        exact.unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// Every file of a folder: its bytes and its inode.
fn files(folder: &Path) -> BTreeMap<String, (Vec<u8>, u64)> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let inode = std::fs::metadata(&path).expect("a file").ino();
        (name, (std::fs::read(&path).unwrap_or_default(), inode))
    };
    entries.map(read).collect()
}

fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = files(folder).into_iter();
    files.map(|(name, (bytes, _))| (name, bytes)).collect()
}

#[test]
fn an_interrupted_run_resumes() {
    let scratch = Scratch::new();
    Tiny::read().write(&scratch.path("model"));
    let run = |out: &str, quant| {
        let mut conversion = scratch.conversion("model", out);
        conversion.upn = Some(Path::new(GOLDEN).join("upn_tiny.pth"));
        conversion.quant = quant;
        convert(&conversion, &())
    };
    run("whole", QuantPreset::Q8).expect("a good checkpoint");
    let whole = bytes(&scratch.path("whole"));
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        [
            "decoder.safetensors",
            "model.json",
            "tokenizer.json",
            "towers.safetensors",
            "upn.safetensors"
        ]
    );

    let out = scratch.path("out");
    let obstacle = out.join("decoder.safetensors.unfinished");
    std::fs::create_dir_all(&out).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", &obstacle).expect("a link");
    let fault = run("out", QuantPreset::Q8)
        .expect_err("the disk is full")
        .to_string();
    assert!(
        fault.contains("decoder.safetensors.unfinished: cannot be written ("),
        "{fault}"
    );
    assert!(
        fault.contains("Make room") && fault.contains("finished shards are kept"),
        "{fault}"
    );
    let before = files(&out);
    let left: Vec<_> = before.keys().collect();
    assert_eq!(
        left,
        ["towers.safetensors", "unfinished.json", "upn.safetensors"]
    );

    run("out", QuantPreset::Q8).expect("there is room now");
    let after = files(&out);
    for shard in ["upn.safetensors", "towers.safetensors"] {
        assert_eq!(after[shard], before[shard], "{shard} was written again");
    }
    assert!(
        bytes(&out) == whole,
        "the result differs from an uninterrupted run"
    );
    let again = run("out", QuantPreset::Q8)
        .expect_err("a model is there")
        .to_string();
    assert!(again.contains("already holds a model"), "{again}");
    assert_eq!(files(&out), after);
}

#[test]
fn other_options_start_over() {
    let scratch = Scratch::new();
    Tiny::read().write(&scratch.path("model"));
    let run = |out: &str, quant| {
        let mut conversion = scratch.conversion("model", out);
        conversion.quant = quant;
        convert(&conversion, &())
    };
    let out = scratch.path("out");
    let obstacle = out.join("decoder.safetensors.unfinished");
    std::fs::create_dir_all(&obstacle).expect("a folder");
    let fault = run("out", QuantPreset::Q8)
        .expect_err("a folder is in the way")
        .to_string();
    assert!(fault.contains("decoder.safetensors.unfinished"), "{fault}");
    let first = files(&out);
    // Files outside the folder that the state names must not be deleted.
    let state = String::from_utf8(first["unfinished.json"].0.clone()).expect("JSON");
    let precious = scratch.path("precious.safetensors");
    std::fs::write(&precious, "mine").expect("a file");
    let mut state: Value = serde_json::from_str(&state).expect("JSON");
    let mut elsewhere = state["shards"][0].clone();
    elsewhere["name"] = json!("../precious.safetensors");
    state["shards"]
        .as_array_mut()
        .expect("shards")
        .push(elsewhere);
    std::fs::write(out.join("unfinished.json"), state.to_string()).expect("a file");

    let fault = run("out", QuantPreset::F16)
        .expect_err("still in the way")
        .to_string();
    assert!(fault.contains("decoder.safetensors.unfinished"), "{fault}");
    let second = files(&out);
    assert!(second["towers.safetensors"].0 != first["towers.safetensors"].0);
    assert!(precious.exists());
    std::fs::remove_dir(&obstacle).expect("an empty folder");
    // A truncated shard is written again.
    let shard = std::fs::File::options()
        .write(true)
        .open(out.join("towers.safetensors"));
    shard.and_then(|shard| shard.set_len(100)).expect("a shard");
    run("out", QuantPreset::F16).expect("nothing is in the way");
    run("whole", QuantPreset::F16).expect("nothing is in the way");
    assert!(bytes(&out) == bytes(&scratch.path("whole")));
}

#[test]
fn the_checkpoint_is_never_overwritten() {
    let scratch = Scratch::new();
    let fault = Tiny::read()
        .convert(&scratch, |conversion| {
            conversion.out = conversion.model.clone()
        })
        .expect_err("the same folder")
        .to_string();
    assert!(fault.contains("is the checkpoint's own folder"), "{fault}");
    let tiny = Tiny::read();
    assert_eq!(
        bytes(&scratch.path("model"))["tokenizer.json"],
        tiny.files["tokenizer.json"]
    );
    tiny.convert(&scratch, |conversion| {
        conversion.out = conversion.model.join("converted");
    })
    .unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn the_size_plan_agrees_with_the_written_manifest() {
    for quant in QuantPreset::ALL {
        let scratch = Scratch::new();
        Tiny::read()
            .with_layers(4)
            .convert(&scratch, |conversion| {
                conversion.upn = Some(Path::new(GOLDEN).join("upn_tiny.pth"));
                conversion.quant = quant;
            })
            .unwrap_or_else(|fault| panic!("{fault}"));
        let out = scratch.path("out");
        let (manifest, config) = (manifest(&out), config(&out));
        let expected = SizePlan {
            download: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            needs: needs(&manifest, &config, kv_cache_dtype(&manifest)),
        };
        let plan = SizePlan::of(&config, quant, 32).expect("a network");
        assert_eq!(plan, expected, "{quant:?}");
        assert!(plan.needs.decoder > 0 && plan.needs.upn > 0, "{quant:?}");
    }
}
