//! The input of a conversion: checkpoint, proposal network and tokenizer, checked against the tensors
//! that the model requires.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use super::Input;
use super::checkpoint::{Checkpoint, name_list};
use super::disk::read_json;
use super::family::{self, Names, Shapes};
use super::licence;
use super::options::Conversion;
use super::proposer::Proposer;
use super::required_tensors::{RequiredTensor, required_tensors};
use super::tensor_view::TensorView;
use super::tokenizer;
use super::write::RowSource;
use crate::error::{Fault, FaultKind};
use crate::model::config::{ModelConfig, TowersConfig};
use crate::text::tokenizer::Tokenizer;
use crate::weights::manifest::{Defaults, Licence, Part, Provenance};
use crate::weights::storage::{QuantPreset, storage_for};

/// The name of the tokenizer in a model folder.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// The opened input of a conversion.
pub(super) struct Source {
    model: (Checkpoint, Names),
    proposer: Option<Proposer>,
    /// The model by its configuration and its tensors' shapes.
    pub described: family::Described,
    /// Every tensor that the model requires.
    pub required: Vec<RequiredTensor>,
    /// The files, for messages.
    place: String,
    /// Tensors that the model is known not to use.
    pub skipped: Vec<String>,
    /// Unknown tensors of the proposal network's file.
    pub left_over: Vec<String>,
    /// The content of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
}

impl Source {
    /// Opens all files and checks that the required tensors exist with their shapes.
    ///
    /// # Errors
    /// A file is missing, damaged or of an unknown kind; a tensor is missing, unexpected or of another
    /// shape; the tokenizer does not match the model.
    pub fn open(conversion: &Conversion) -> Result<Self, Fault> {
        let folder = &conversion.model;
        let template = conversion.chat_template()?;
        let model = Checkpoint::hub(folder)?;
        let names = family::names(&model, &conversion.prefixes)?;
        let shapes = Shapes::new(&model, &names, folder);
        let mut described = family::describe(folder, &shapes, template)?;
        let proposer = open_proposer(conversion, &mut described.config)?;
        let tokenizer = open_tokenizer(folder, &mut described.config)?;
        let mut source = Self {
            model: (model, names),
            proposer,
            required: required_tensors(&described.config)?,
            described,
            place: match conversion.upn.as_ref().or(conversion.detector.as_ref()) {
                Some(file) => format!("{} with {}", folder.display(), file.display()),
                None => folder.display().to_string(),
            },
            skipped: Vec::new(),
            left_over: Vec::new(),
            tokenizer,
        };
        source.sort_unused()?;
        source.check_required()?;
        Ok(source)
    }

    /// Sorts tensors that no network loads into known and unknown ones; unknown tensors of the model are
    /// an error.
    fn sort_unused(&mut self) -> Result<(), Fault> {
        let used = |upn: bool| {
            let tensors = self.required.iter();
            tensors
                .filter(move |tensor| (tensor.part == Part::Upn) == upn)
                .map(|tensor| tensor.name.as_str())
                .collect::<BTreeSet<_>>()
        };
        let (mut skipped, mut left_over, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let of_model = used(false);
        let (_, names) = &self.model;
        for name in names.keys().filter(|name| !of_model.contains(&***name)) {
            if family::is_skipped(name, &self.described.config) {
                skipped.push(name.clone());
            } else {
                unknown.push(name.as_str());
            }
        }
        if let Some(proposer) = &self.proposer {
            let of_proposer = used(true);
            for name in proposer.names() {
                if of_proposer.contains(&*name) {
                    continue;
                }
                if proposer.is_known_surplus(&name) {
                    skipped.push(name.into_owned());
                } else {
                    left_over.push(name.into_owned());
                }
            }
        }
        if !unknown.is_empty() {
            let (count, names) = (unknown.len(), name_list(unknown));
            return Err(Fault::new(
                FaultKind::Model,
                &self.place,
                format!("holds {count} tensors that no part of the model uses: {names}"),
                "If they have an additional prefix, name it with --prefix THEIRS=OURS",
            ));
        }
        (self.skipped, self.left_over) = (skipped, left_over);
        Ok(())
    }

    /// The place of a required tensor.
    fn find(&self, tensor: &RequiredTensor) -> Option<Found<'_>> {
        if tensor.part == Part::Upn {
            let proposer = self.proposer.as_ref()?;
            let shape = proposer.shape(&tensor.name)?;
            return Some(Found::Proposer(proposer, tensor.name.clone(), shape));
        }
        let (checkpoint, names) = &self.model;
        Some(Found::Model(checkpoint, names.get(&tensor.name)?))
    }

    fn check_required(&self) -> Result<(), Fault> {
        let required = self.required.iter();
        let missing: Vec<_> = required.filter(|t| self.find(t).is_none()).collect();
        if !missing.is_empty() {
            return Err(self.lacks(&missing));
        }
        for tensor in &self.required {
            let found = self.find(tensor).expect("found just above");
            let shape = found.shape();
            if shape != tensor.shape {
                return Err(Fault::model(
                    found.place(),
                    format!("has shape {shape:?} instead of {:?}", tensor.shape),
                ));
            }
        }
        Ok(())
    }

    fn lacks(&self, missing: &[&RequiredTensor]) -> Fault {
        let list = name_list(missing.iter().map(|tensor| tensor.name.as_str()));
        let mut what = format!("lacks {} tensors: {list}", missing.len());
        let of_proposer = missing.iter().any(|tensor| tensor.part == Part::Upn);
        match self.left_over.first().filter(|_| of_proposer) {
            Some(other) => {
                what += &format!("; others, such as {other}, are not used");
                let advice = "If they have an additional prefix, name it with --prefix THEIRS=OURS";
                Fault::new(FaultKind::Model, &self.place, what, advice)
            }
            None => Fault::model(&self.place, what),
        }
    }

    /// The input of [`convert`](super::convert).
    ///
    /// # Errors
    /// Those of [`Source::defaults`].
    pub fn into_input(self, conversion: &Conversion) -> Result<Input, Fault> {
        let described = &self.described;
        let layers = described.config.llm.num_hidden_layers;
        let format = |tensor: &RequiredTensor| {
            storage_for(tensor.spec(), conversion.quant, conversion.group, layers)
        };
        Ok(Input {
            config: described.config.clone(),
            required: self.required.clone(),
            formats: self.required.iter().map(format).collect(),
            tokenizer: self.tokenizer.clone(),
            name: conversion.model_name(),
            precision: precision(conversion),
            defaults: self.defaults(&conversion.model)?,
            licence: self.licence(),
            provenance: Provenance {
                trained_on: described.trained_on.clone().unwrap_or_else(|| {
                    "a converted checkpoint; its authors say what it was trained on".into()
                }),
                commands: described.made_by.clone(),
                knows: described.knows.clone(),
            },
            read_bytes: self.bytes(),
            skipped: self.skipped.clone(),
            left_over: self.left_over.clone(),
            warnings: Vec::new(),
            rows: Box::new(self),
        })
    }

    /// Default settings, with the repetition penalty of the checkpoint in `folder`.
    ///
    /// # Errors
    /// The penalty is not positive, or its file cannot be read.
    pub fn defaults(&self, folder: &Path) -> Result<Defaults, Fault> {
        #[derive(Default, Deserialize)]
        struct Generation {
            repetition_penalty: Option<f32>,
        }
        let path = folder.join("generation_config.json");
        let generation: Generation = read_json(&path)?.unwrap_or_default();
        let penalty = generation.repetition_penalty.unwrap_or(1.0);
        if !(penalty > 0.0 && penalty.is_finite()) {
            return Err(Fault::model(
                path.display().to_string(),
                format!("has a repetition penalty of {penalty}"),
            ));
        }
        Ok(Defaults {
            score: self.described.score.unwrap_or(0.3),
            nms: self.described.nms.unwrap_or(0.8),
            first_of_kind: self.described.first_of_kind,
            max_tokens: 512,
            repetition_penalty: penalty,
            multi_turn: false,
        })
    }

    /// The checkpoint's own licence, or that of its family.
    pub fn licence(&self) -> Licence {
        let mut licence = match &self.described.licence {
            Some((name, text)) => Licence {
                name: name.clone(),
                text: text.clone(),
                parts: Vec::new(),
            },
            None => licence::idea(self.described.llama),
        };
        if let Some(source) = self.proposer.as_ref().and_then(Proposer::detector_source) {
            licence.parts.push(licence::nanodet(source));
        }
        licence
    }

    /// Bytes of the required tensors in their files.
    pub fn bytes(&self) -> u64 {
        self.required
            .iter()
            .filter_map(|tensor| Some(self.find(tensor)?.bytes()))
            .sum()
    }
}

/// A required tensor in its file.
enum Found<'a> {
    /// In the model's checkpoint, under this name.
    Model(&'a Checkpoint, &'a str),
    /// In the proposal network's file, with its shape.
    Proposer(&'a Proposer, String, Vec<usize>),
}

impl Found<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Model(checkpoint, name) => checkpoint.get(name).map_or(&[], |view| &view.shape),
            Self::Proposer(_, _, shape) => shape,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Model(checkpoint, name) => checkpoint.place(name),
            Self::Proposer(proposer, name, _) => proposer.place(name),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Model(checkpoint, name) => {
                let view = checkpoint.get(name);
                view.and_then(TensorView::extent).unwrap_or(0)
            }
            Self::Proposer(proposer, name, _) => proposer.bytes(name),
        }
    }
}

/// Opens the proposal network's file and adds it to `config`.
fn open_proposer(
    conversion: &Conversion,
    config: &mut ModelConfig,
) -> Result<Option<Proposer>, Fault> {
    let fault = |what, advice| {
        let place = conversion.model.display().to_string();
        Err(Fault::new(FaultKind::Model, place, what, advice))
    };
    let has_classes = matches!(config.towers, Some(TowersConfig::Classes(_)));
    let opened = match (&conversion.detector, &conversion.upn) {
        (Some(file), None) if has_classes => {
            Proposer::renamed_detector(file, conversion.detector_side, &conversion.prefixes)?
        }
        (None, Some(file)) if !has_classes => Proposer::upn(file, &conversion.prefixes)?,
        (None, None) if !has_classes => return Ok(None),
        _ if has_classes => {
            return fault(
                "has a projector of the classes of a detector",
                "Name the detector's file with --detector, and no other proposal network",
            );
        }
        _ => {
            return fault(
                "has no projector of the classes of a detector (`objects` in config.json)",
                "Leave out --detector",
            );
        }
    };
    let (proposer, proposer_config) = opened;
    config.proposer = Some(proposer_config);
    Ok(Some(proposer))
}

fn precision(conversion: &Conversion) -> String {
    match conversion.quant {
        QuantPreset::Q4 => format!("q4, groups of {}", conversion.group),
        QuantPreset::Q8 => format!("q8, groups of {}", conversion.group),
        QuantPreset::F16 => "f16".into(),
        QuantPreset::F32 => "f32".into(),
    }
}

/// Reads the tokenizer of `folder` and completes `config` with its special tokens; returns the content
/// of `tokenizer.json`.
fn open_tokenizer(folder: &Path, config: &mut ModelConfig) -> Result<Vec<u8>, Fault> {
    let read = tokenizer::read(folder)?;
    let place = folder.join(TOKENIZER).display().to_string();
    let tokenizer = Tokenizer::from_json(&read.json, &place, read.bos.as_deref())?;
    let stop = &mut config.template.stop;
    stop.retain(|token| tokenizer.id(token).is_ok());
    if stop.is_empty() {
        stop.extend(read.eos.filter(|token| tokenizer.id(token).is_ok()));
    }
    if stop.is_empty() {
        return Err(Fault::model(place, "has no token that ends an answer"));
    }
    let (tokens, rows) = (tokenizer.vocab_size(), config.llm.vocab_size);
    if tokens > rows {
        return Err(Fault::model(
            place,
            format!("has {tokens} tokens, the embedding {rows} rows"),
        ));
    }
    config.bos = read.bos;
    Ok(read.json)
}

impl RowSource for Source {
    fn rows(&self, index: usize, rows: Range<usize>) -> Result<Vec<f32>, Fault> {
        match self.find(&self.required[index]) {
            Some(Found::Model(checkpoint, name)) => checkpoint.rows(name, rows),
            Some(Found::Proposer(proposer, name, _)) => proposer.rows(&name, rows),
            None => unreachable!("checked when opened"),
        }
    }

    fn place(&self, index: usize) -> String {
        let tensor = &self.required[index];
        match self.find(tensor) {
            Some(found) => found.place(),
            None => tensor.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::tensor::{SafeTensors, serialize};
    use tempfile::TempDir;

    use super::*;
    use crate::weights::quant::Rounding;

    /// A temporary folder with UPN's recorded tensors under other names.
    struct Scratch(TempDir);

    impl Scratch {
        fn new(rename: &dyn Fn(&str) -> String) -> Self {
            let scratch = Self(tempfile::tempdir().expect("a temporary folder"));
            let bytes = std::fs::read("tests/data/golden/upn/weights.safetensors");
            let bytes = bytes.expect("a recorded file");
            let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
            let tensors = tensors.tensors().into_iter();
            let tensors = tensors.map(|(name, view)| (rename(&name), view));
            let bytes = serialize(tensors, None).expect("small tensors");
            std::fs::write(scratch.upn(), bytes).expect("a writable folder");
            scratch
        }

        fn upn(&self) -> PathBuf {
            self.0.path().join("upn.safetensors")
        }

        fn open(&self, prefixes: &[(&str, &str)]) -> Result<Source, Fault> {
            let prefixes = prefixes.iter().map(|(a, b)| (a.to_string(), b.to_string()));
            Source::open(&Conversion {
                model: "tests/data/golden/checkpoint/chatrex".into(),
                upn: Some(self.upn()),
                adapter: None,
                detector: None,
                detector_side: None,
                out: self.0.path().join("out"),
                quant: QuantPreset::F32,
                group: 32,
                rounding: Rounding::Nearest,
                template: None,
                prefixes: prefixes.collect(),
                name: None,
            })
        }
    }

    #[test]
    fn a_given_prefix_is_replaced_only_in_files_that_have_it() {
        for (theirs, given) in [
            ("", ""),
            ("module.", ""),
            ("module.", "module."),
            ("model.", "model."),
            ("a.b.", "model."),
        ] {
            let scratch = Scratch::new(&|name| format!("{theirs}{name}"));
            let opened = scratch.open(&[(given, "")]);
            let source = opened.unwrap_or_else(|fault| panic!("{theirs} {given}: {fault}"));
            assert!(source.left_over.is_empty(), "{:?}", source.left_over);
            assert!(source.bytes() > 0);
        }
    }

    #[test]
    fn missing_tensors_are_told_in_a_line_of_reasonable_length() {
        let scratch = Scratch::new(&|name| format!("{name}.ema"));
        let fault = scratch.open(&[]).err().expect("another network");
        let fault = fault.to_string();
        assert!(
            fault.contains(" with ") && fault.contains("lacks 6"),
            "{fault}"
        );
        let first = "backbone.model.backbone.patch_embed.proj.weight";
        assert!(
            fault.contains(first) && fault.contains(" more; others, such as "),
            "{fault}"
        );
        assert!(fault.contains("--prefix THEIRS=OURS"), "{fault}");
        assert!(fault.len() < 600, "{} bytes: {fault}", fault.len());
        assert!(fault.matches(", ").count() <= 10 + 2, "{fault}");
    }
}
