//! A language model in a GGUF file, its adapter and a detector as the input of a conversion.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::Input;
use super::checkpoint::Checkpoint;
use super::gguf_model::{GgufModel, GgufRows, precision};
use super::licence;
use super::options::{Conversion, path_name};
use super::proposer::Proposer;
use super::required_tensors::{RequiredTensor, required_tensors};
use super::write::{Packed, RowSource};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::files::read_json;
use crate::model::adapter::{
    ADAPTER_CONFIG, ADAPTER_TENSORS, ADDED_EMBEDDINGS, AdapterConfig, BaseModel, lora_names,
};
use crate::model::config::{ModelConfig, TowersConfig};
use crate::model::decoder::EMBEDDINGS;
use crate::text::tokenizer::Tokenizer;
use crate::weights::QuantScheme;
use crate::weights::manifest::{Defaults, Licence, Part, PartLicence, Provenance, sha256_hex};
use crate::weights::quant::Rounding;
use crate::weights::storage::{QuantPreset, WeightFormat, storage_for};

/// Where the values of a required tensor are.
enum Place {
    /// In the detector's file, under its own name.
    Detector,
    /// In the adapter, under its own name.
    Adapter,
    /// In the language model.
    Base(usize),
    /// In the language model, plus a product of the adapter.
    Changed(usize, Product),
    /// The embeddings of the language model, then those of the adapter.
    Extended(usize),
}

/// `scale · B A`.
struct Product {
    scale: f32,
    rank: usize,
    /// `[rank, in]`.
    a: Vec<f32>,
    /// `[out, rank]`.
    b: Vec<f32>,
}

impl Product {
    /// Adds `rows` of the product to `values`, the same rows of a matrix.
    fn add(&self, rows: Range<usize>, values: &mut [f32]) {
        let width = self.a.len() / self.rank;
        for (row, values) in rows.zip(values.chunks_exact_mut(width)) {
            let factors = &self.b[row * self.rank..][..self.rank];
            for (factor, a) in factors.iter().zip(self.a.chunks_exact(width)) {
                let factor = self.scale * factor;
                for (value, a) in values.iter_mut().zip(a) {
                    *value += factor * a;
                }
            }
        }
    }
}

/// The tensors of a language model with an adapter and a detector.
struct AdapterRows {
    base: GgufRows,
    adapter: Checkpoint,
    detector: Proposer,
    required: Vec<RequiredTensor>,
    /// The place of each required tensor.
    places: Vec<Place>,
    rounding: Rounding,
}

impl AdapterRows {
    /// The rows of tensor `index` that are in the language model, and those of the adapter counted from 0.
    fn split(&self, index: usize, rows: Range<usize>) -> (Range<usize>, Range<usize>) {
        let count = self.base.required[index].shape[0];
        let (start, end) = (rows.start, rows.end);
        (
            start.min(count)..end.min(count),
            start.max(count) - count..end.max(count) - count,
        )
    }

    /// Bytes of tensor `name` of the adapter.
    fn adapter_bytes(&self, name: &str) -> u64 {
        let view = self.adapter.get(name);
        view.and_then(|view| view.extent()).unwrap_or(0)
    }
}

impl RowSource for AdapterRows {
    fn rows(&self, index: usize, rows: Range<usize>) -> Result<Vec<f32>, Fault> {
        let name = &self.required[index].name;
        match &self.places[index] {
            Place::Detector => self.detector.rows(name, rows),
            Place::Adapter => self.adapter.rows(name, rows),
            Place::Base(index) => self.base.rows(*index, rows),
            Place::Changed(index, product) => {
                let mut values = self.base.rows(*index, rows.clone())?;
                product.add(rows, &mut values);
                Ok(values)
            }
            Place::Extended(index) => {
                let (old, new) = self.split(*index, rows);
                let mut values = self.base.rows(*index, old)?;
                values.extend(self.adapter.rows(ADDED_EMBEDDINGS, new)?);
                Ok(values)
            }
        }
    }

    fn packed(&self, index: usize, rows: Range<usize>, scheme: QuantScheme) -> Option<Packed> {
        match &self.places[index] {
            Place::Base(index) => self.base.packed(*index, rows, scheme),
            Place::Extended(index) => {
                let (old, new) = self.split(*index, rows);
                let mut packed = self.base.packed(*index, old, scheme)?;
                let added = self.adapter.rows(ADDED_EMBEDDINGS, new).ok()?;
                let added = Packed::quantized(&added, scheme, self.rounding);
                packed.words.extend(added.words);
                packed.scales.extend(added.scales);
                Some(packed)
            }
            Place::Detector | Place::Adapter | Place::Changed(..) => None,
        }
    }

    fn place(&self, index: usize) -> String {
        let name = &self.required[index].name;
        match &self.places[index] {
            Place::Detector => self.detector.place(name),
            Place::Adapter => self.adapter.place(name),
            Place::Base(index) | Place::Extended(index) => self.base.place(*index),
            Place::Changed(index, _) => {
                format!("{} with its change in the adapter", self.base.place(*index))
            }
        }
    }
}

/// Opens the GGUF file, the adapter in `folder` and the detector of `conversion`.
///
/// # Errors
/// Those of [`GgufModel::open`]; the file is not the one that the adapter was trained for; a tensor of the
/// adapter or of the detector is missing, misshapen or unknown.
pub(super) fn open(conversion: &Conversion, folder: &Path) -> Result<Input, Fault> {
    let path = folder.join(ADAPTER_CONFIG);
    let config: AdapterConfig =
        read_json(&path)?.ok_or_else(|| Fault::file(&path, "is missing"))?;
    let place = path.display().to_string();
    if config.lora.rank == 0 || !config.lora.scale.is_finite() {
        let (rank, scale) = (config.lora.rank, config.lora.scale);
        let what = format!("has low-rank changes of rank {rank} and scale {scale}");
        return Err(Fault::model(place, what));
    }
    let Some(detector) = &conversion.detector else {
        let advice = "Name the detector's file with --detector";
        let what = "is an adapter for the boxes of a detector";
        return Err(Fault::new(FaultKind::Model, place, what, advice));
    };
    let GgufModel {
        config: base_config,
        tokenizer,
        rows: base,
        mut skipped,
        warnings,
    } = GgufModel::open(conversion)?;
    check_base(&config.base, &base)?;
    let (detector, proposer) = Proposer::detector(detector, conversion.detector_side)?;
    let adapter = Checkpoint::safetensors(&folder.join(ADAPTER_TENSORS))?;
    let mut llm = base_config.llm;
    if !llm.tie_word_embeddings {
        let what = "has an LM head beside its embeddings, which an adapter cannot extend";
        return Err(Fault::model(base.file(), what));
    }
    llm.vocab_size += config.added_tokens;
    let bos = base_config.bos;
    let tokens = Tokenizer::from_json(&tokenizer, &base.file(), bos.as_deref())?.vocab_size();
    if tokens != llm.vocab_size {
        let (added, rows) = (config.added_tokens, llm.vocab_size - config.added_tokens);
        let what = format!(
            "adds {added} tokens to {rows}; the tokenizer with the tags of boxes has {tokens}"
        );
        return Err(Fault::model(place, what));
    }
    let layers = llm.num_hidden_layers;
    let model = ModelConfig {
        proposer: Some(proposer),
        towers: Some(TowersConfig::Classes(config.objects)),
        llm,
        template: config.template.clone(),
        bos,
    };
    let required = required_tensors(&model)?;
    let mut rows = AdapterRows {
        base,
        adapter,
        detector,
        required: required.clone(),
        places: Vec::new(),
        rounding: conversion.rounding,
    };
    rows.places = places(&rows, &config, layers)?;
    let (surplus, left_over) = unused_of_detector(&rows);
    skipped.extend(surplus);
    let format = |index: usize| match &rows.places[index] {
        Place::Base(base) | Place::Extended(base) => rows.base.format(*base, conversion),
        // In 4 bits the minimums stay: the matrix is nearly the same.
        Place::Changed(base, _) if conversion.quant == QuantPreset::Q4 => {
            rows.base.format(*base, conversion)
        }
        _ => storage_for(
            required[index].spec(),
            conversion.quant,
            conversion.group,
            layers,
        ),
    };
    let formats: Vec<WeightFormat> = (0..required.len()).map(format).collect();
    let of_detector = required.iter().filter(|tensor| tensor.part == Part::Upn);
    let read_bytes = of_detector
        .map(|tensor| rows.detector.bytes(&tensor.name))
        .chain(rows.adapter.names().map(|name| rows.adapter_bytes(name)))
        .sum::<u64>()
        + rows.base.bytes();
    Ok(Input {
        name: (conversion.name.clone()).unwrap_or_else(|| path_name(folder)),
        precision: precision(&required, &formats),
        defaults: Defaults {
            score: config.score,
            nms: f64::from(config.nms),
            first_of_kind: Some(config.first_of_kind),
            max_tokens: 512,
            repetition_penalty: 1.0,
            multi_turn: false,
        },
        licence: licence(&config, &rows)?,
        provenance: Provenance {
            trained_on: config.trained_on,
            commands: config.made_by,
            knows: Some(config.knows),
        },
        read_bytes,
        tokenizer,
        warnings,
        config: model,
        required,
        formats,
        skipped,
        left_over,
        rows: Box::new(rows),
    })
}

/// Fails if the GGUF file is not the one that the adapter was trained for.
fn check_base(expected: &BaseModel, base: &GgufRows) -> Result<(), Fault> {
    if sha256_hex(&base.file_bytes()?) == expected.sha256 {
        return Ok(());
    }
    let BaseModel { name, file, sha256 } = expected;
    Err(Fault::new(
        FaultKind::Model,
        base.file(),
        format!("is not {file} of {name}, which the adapter was trained for: its SHA-256 is not {sha256}"),
        "Get the file again",
    )
    .code(ErrorCode::Corrupt))
}

/// The place of every required tensor, with its shape checked; every tensor of the adapter is used.
fn places(rows: &AdapterRows, config: &AdapterConfig, layers: usize) -> Result<Vec<Place>, Fault> {
    let AdapterRows {
        base,
        adapter,
        detector,
        required,
        ..
    } = rows;
    let changed: BTreeSet<String> = config.lora.weights(layers).into_iter().collect();
    let mut used = BTreeSet::new();
    let mut of_adapter = |name: &str, shape: &[usize]| {
        let view = adapter.get(name);
        check_shape(adapter.place(name), view.map(|view| &*view.shape), shape)?;
        used.insert(name.to_owned());
        Ok::<_, Fault>(())
    };
    let in_base = |name: &str| {
        let found = base.required.iter().position(|tensor| tensor.name == name);
        found.ok_or_else(|| Fault::model(base.file(), format!("lacks a tensor: {name}")))
    };
    let place = |tensor: &RequiredTensor| {
        let RequiredTensor {
            name, shape, part, ..
        } = tensor;
        match part {
            Part::Upn => {
                check_shape(detector.place(name), detector.shape(name).as_deref(), shape)?;
                Ok(Place::Detector)
            }
            Part::Towers => {
                of_adapter(name, shape)?;
                Ok(Place::Adapter)
            }
            Part::Decoder if name == EMBEDDINGS => {
                of_adapter(ADDED_EMBEDDINGS, &[config.added_tokens, shape[1]])?;
                Ok(Place::Extended(in_base(name)?))
            }
            Part::Decoder if changed.contains(name) => {
                let rank = config.lora.rank;
                let [a, b] = lora_names(name);
                of_adapter(&a, &[rank, shape[1]])?;
                of_adapter(&b, &[shape[0], rank])?;
                let product = Product {
                    scale: config.lora.scale,
                    rank,
                    a: adapter.values(&a)?,
                    b: adapter.values(&b)?,
                };
                Ok(Place::Changed(in_base(name)?, product))
            }
            Part::Decoder => Ok(Place::Base(in_base(name)?)),
        }
    };
    let places: Vec<Place> = required.iter().map(place).collect::<Result<_, Fault>>()?;
    match adapter.names().find(|name| !used.contains(*name)) {
        Some(name) => Err(Fault::model(
            adapter.place(name),
            "is a tensor that no part of the model uses",
        )),
        None => Ok(places),
    }
}

fn check_shape(place: String, found: Option<&[usize]>, expected: &[usize]) -> Result<(), Fault> {
    match found {
        None => Err(Fault::model(place, "is missing")),
        Some(shape) if shape != expected => Err(Fault::model(
            place,
            format!("has shape {shape:?} instead of {expected:?}"),
        )),
        Some(_) => Ok(()),
    }
}

/// Tensors of the detector's file that it does not read: known and unknown ones.
fn unused_of_detector(rows: &AdapterRows) -> (Vec<String>, Vec<String>) {
    let required = |name: &str| rows.required.iter().any(|tensor| tensor.name == name);
    let names = rows.detector.names().into_iter();
    let unused = names
        .filter(|name| !required(name))
        .map(|name| name.into_owned());
    unused.partition(|name| rows.detector.is_known_surplus(name))
}

/// The licence of the language model, with those of the adapter and the detector.
fn licence(config: &AdapterConfig, rows: &AdapterRows) -> Result<Licence, Fault> {
    let mut licence = rows.base.licence()?;
    licence.parts.push(PartLicence {
        part: "adapter".into(),
        name: config.license.clone(),
        text: format!(
            "The adapter of {}: low-rank changes of its matrices, which are merged into these weights, \
             embeddings of new tokens, and the projector of boxes.",
            config.base.name
        ),
        source: "trained by this project".into(),
    });
    if let Some(source) = rows.detector.detector_source() {
        licence.parts.push(licence::nanodet(source));
    }
    Ok(licence)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize};
    use tempfile::TempDir;

    use super::*;
    use crate::convert::convert;
    use crate::convert::gguf_model::tests::{converted, loaded};
    use crate::convert::nanodet::tests::Builder;
    use crate::model::adapter::LoraConfig;
    use crate::model::class_projector::ClassProjectorConfig;
    use crate::model::config::{Family, OBJECT_PROJECTOR};
    use crate::nn::WeightMap;
    use crate::text::prompt::ChatTemplate;
    use crate::weights::manifest::{MANIFEST, Manifest};

    const BASE: &str = "tests/data/gguf/qwen2.gguf";
    const WIDTH: usize = 32;
    const RANK: usize = 2;
    const TAGS: usize = 104;
    const OBJECTS: ClassProjectorConfig = ClassProjectorConfig {
        hidden: 8,
        power: 4,
        extremes: true,
        indices: true,
    };
    const CHANGED: &str = "model.layers.1.self_attn.o_proj.weight";

    /// A tensor of an adapter: its name, its shape, its values.
    type Tensor = (String, Vec<usize>, Vec<f32>);

    /// A temporary folder with a detector, an adapter and the output `out`.
    struct Scratch(TempDir);

    impl Scratch {
        fn new(config: &AdapterConfig, tensors: &[Tensor]) -> Self {
            let scratch = Self(tempfile::tempdir().expect("a temporary folder"));
            Builder::detector().write(scratch.0.path());
            let views = tensors.iter().map(|(name, shape, values)| {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (name, shape.clone(), bytes)
            });
            let views: Vec<_> = views.collect();
            let views = views.iter().map(|(name, shape, bytes)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
                (name, view.expect("shape and values agree"))
            });
            let file = serialize(views, None).expect("small tensors");
            let json = serde_json::to_vec(config).expect("plain data");
            let folder = scratch.path("small");
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join(ADAPTER_TENSORS), file).expect("a file");
            std::fs::write(folder.join(ADAPTER_CONFIG), json).expect("a file");
            scratch
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn conversion(&self, quant: QuantPreset) -> Conversion {
            Conversion {
                model: BASE.into(),
                upn: None,
                adapter: Some(self.path("small")),
                detector: Some(self.path("model.json")),
                detector_side: None,
                out: self.path("out"),
                quant,
                group: 32,
                rounding: Rounding::Search,
                template: None,
                prefixes: Vec::new(),
                name: None,
            }
        }

        fn converted(&self, quant: QuantPreset) -> (Manifest, WeightMap) {
            converted(&self.conversion(quant))
        }

        fn refused(&self) -> String {
            let fault = convert(&self.conversion(QuantPreset::F32), &()).expect_err("no model");
            assert!(!self.path("out").join(MANIFEST).exists());
            fault.to_string()
        }
    }

    fn config() -> AdapterConfig {
        AdapterConfig {
            base: BaseModel {
                name: "synthetic qwen2".into(),
                file: "qwen2.gguf".into(),
                sha256: sha256_hex(&std::fs::read(BASE).expect("a recorded file")),
            },
            lora: LoraConfig {
                rank: RANK,
                scale: 0.5,
                targets: vec!["self_attn.o_proj".into()],
            },
            objects: OBJECTS,
            template: ChatTemplate::qwen(),
            added_tokens: TAGS,
            score: 0.25,
            first_of_kind: 0.125,
            nms: 0.5,
            knows: "Eighty kinds".into(),
            trained_on: "lists of boxes".into(),
            made_by: vec!["a command".into()],
            license: "MIT".into(),
        }
    }

    fn tensor(name: &str, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| ((i * 7 + name.len()) % 61) as f32 / 64.0 - 0.4);
        (name.into(), shape.into(), values.collect())
    }

    fn tensors() -> Vec<Tensor> {
        let projector = |name: &str| format!("{OBJECT_PROJECTOR}.{name}");
        let mut tensors = vec![
            tensor(ADDED_EMBEDDINGS, &[TAGS, WIDTH]),
            tensor(&projector("names.weight"), &[WIDTH, 80]),
            tensor(&projector("extremes.weight"), &[WIDTH, 6]),
            tensor(&projector("indices.weight"), &[WIDTH, 100]),
            tensor(&projector("position.0.weight"), &[8, 59]),
            tensor(&projector("position.0.bias"), &[8]),
            tensor(&projector("position.2.weight"), &[WIDTH, 8]),
            tensor(&projector("position.2.bias"), &[WIDTH]),
        ];
        for weight in config().lora.weights(2) {
            let [a, b] = lora_names(&weight);
            tensors.push(tensor(&a, &[RANK, WIDTH]));
            tensors.push(tensor(&b, &[WIDTH, RANK]));
        }
        tensors
    }

    /// The values of tensor `name` in the GGUF file.
    fn base(scratch: &Scratch, name: &str) -> Vec<f32> {
        let model = GgufModel::open(&scratch.conversion(QuantPreset::F32)).expect("a GGUF file");
        let place = model.rows.required.iter().position(|t| t.name == name);
        let place = place.expect("a tensor of the language model");
        let rows = model.rows.required[place].shape[0];
        model.rows.rows(place, 0..rows).expect("its values")
    }

    #[test]
    fn language_model_adapter_and_detector_become_one_model() {
        let scratch = Scratch::new(&config(), &tensors());
        let (manifest, weights) = scratch.converted(QuantPreset::F32);
        assert_eq!(manifest.family, Family::DetectorChat.name());
        assert_eq!(manifest.name, "small");
        let parsed = ModelConfig::of(&manifest, MANIFEST).expect("a known family");
        assert_eq!(parsed.towers, Some(TowersConfig::Classes(OBJECTS)));
        let defaults = &manifest.defaults;
        assert_eq!((defaults.score, defaults.nms), (0.25, 0.5));
        assert_eq!(defaults.first_of_kind, Some(0.125));
        let provenance = &manifest.provenance;
        assert_eq!(provenance.knows.as_deref(), Some("Eighty kinds"));
        assert_eq!(provenance.commands, ["a command"]);
        let parts = manifest.licence.parts.iter().map(|part| &*part.part);
        assert_eq!(parts.collect::<Vec<_>>(), ["adapter", "detector"]);

        let values = base(&scratch, CHANGED);
        let [a, b] = lora_names(CHANGED).map(|name| {
            let tensors = tensors();
            let (.., values) = tensors.into_iter().find(|t| t.0 == name).expect("a factor");
            values
        });
        let merged = loaded(&weights, CHANGED, &[WIDTH, WIDTH]);
        for (at, (merged, value)) in merged.iter().zip(&values).enumerate() {
            let (row, column) = (at / WIDTH, at % WIDTH);
            let product = (0..RANK).map(|r| b[row * RANK + r] * a[r * WIDTH + column]);
            let expected = value + 0.5 * product.sum::<f32>();
            assert!(
                (merged - expected).abs() < 1e-6,
                "{at}: {merged} {expected}"
            );
        }

        let old = base(&scratch, EMBEDDINGS);
        let rows = old.len() / WIDTH + TAGS;
        assert_eq!(parsed.llm.vocab_size, rows);
        let table = loaded(&weights, EMBEDDINGS, &[rows, WIDTH]);
        let added = tensor(ADDED_EMBEDDINGS, &[TAGS, WIDTH]).2;
        assert_eq!(table[..old.len()], old);
        assert_eq!(table[old.len()..], added);
    }

    #[test]
    fn unchanged_weights_stay_as_they_are_quantized() {
        let scratch = Scratch::new(&config(), &tensors());
        let (_, weights) = scratch.converted(QuantPreset::Q8);
        let old = base(&scratch, EMBEDDINGS);
        let rows = old.len() / WIDTH + TAGS;
        let table = loaded(&weights, EMBEDDINGS, &[rows, WIDTH]);
        assert_eq!(table[..old.len()], old, "the file's own codes");
        let added = tensor(ADDED_EMBEDDINGS, &[TAGS, WIDTH]).2;
        for (stored, added) in table[old.len()..].iter().zip(&added) {
            assert!((stored - added).abs() < 0.01, "{stored} {added}");
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let with = |change: &dyn Fn(&mut AdapterConfig, &mut Vec<Tensor>)| {
            let (mut config, mut tensors) = (config(), tensors());
            change(&mut config, &mut tensors);
            Scratch::new(&config, &tensors).refused()
        };
        let fault = with(&|config, _| config.base.sha256 = "0".repeat(64));
        assert!(fault.contains("is not qwen2.gguf"), "{fault}");
        let fault = with(&|config, _| config.added_tokens = 3);
        assert!(fault.contains("adds 3 tokens"), "{fault}");
        let fault = with(&|config, _| config.lora.rank = 0);
        assert!(fault.contains("rank 0"), "{fault}");
        let fault = with(&|_, tensors| drop(tensors.pop()));
        assert!(
            fault.contains("lora_B.weight") && fault.contains("missing"),
            "{fault}"
        );
        let fault = with(&|_, tensors| tensors.push(tensor("other", &[1])));
        assert!(fault.contains("tensor other"), "{fault}");
        let fault = with(&|_, tensors| tensors[0] = tensor(ADDED_EMBEDDINGS, &[TAGS, 8]));
        assert!(fault.contains("[104, 8] instead of [104, 32]"), "{fault}");
        let fault = with(&|_, tensors| tensors[0].2[5] = f32::NAN);
        assert!(fault.contains("NaN"), "{fault}");

        let scratch = Scratch::new(&config(), &tensors());
        let alone = Conversion {
            detector: None,
            ..scratch.conversion(QuantPreset::F32)
        };
        let fault = convert(&alone, &()).expect_err("no detector").to_string();
        assert!(fault.contains("--detector"), "{fault}");
        std::fs::remove_file(scratch.path("small").join(ADAPTER_CONFIG)).expect("a file");
        let fault = scratch.refused();
        assert!(fault.contains(ADAPTER_CONFIG), "{fault}");
    }
}
