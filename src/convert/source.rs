//! The input of a conversion: checkpoint, proposal network and tokenizer, checked against the tensors
//! that the model requires.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use super::checkpoint::Checkpoint;
use super::family::{self, Names, Shapes};
use super::licence;
use super::options::Conversion;
use super::required_tensors::{RequiredTensor, required_tensors};
use super::tokenizer;
use super::write::RowSource;
use crate::error::{Fault, FaultKind};
use crate::files::read_json;
use crate::model::config::ModelConfig;
use crate::model::upn::is_surplus;
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::manifest::{Defaults, Licence, Part};

/// The name of the tokenizer in a model folder.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// The opened input of a conversion.
pub(super) struct Source {
    model: (Checkpoint, Names),
    upn: Option<(Checkpoint, Names)>,
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
        let template = match &conversion.template {
            Some(path) => Some(
                read_json::<ChatTemplate>(path)?.ok_or_else(|| Fault::file(path, "is missing"))?,
            ),
            None => None,
        };
        let model = Checkpoint::hub(folder)?;
        let names = family::names(&model, &conversion.prefixes)?;
        let shapes = Shapes::new(&model, &names, folder);
        let mut described = family::describe(folder, &shapes, template)?;
        let upn = match &conversion.upn {
            Some(file) => {
                let upn = Checkpoint::open_upn(file)?;
                let names: Names = upn.names().map(|name| (name.into(), name.into())).collect();
                described.config.upn = Some(family::upn(file, &Shapes::new(&upn, &names, file))?);
                Some((upn, names))
            }
            None => None,
        };
        let tokenizer = open_tokenizer(folder, &mut described.config)?;
        let mut source = Self {
            model: (model, names),
            upn,
            required: required_tensors(&described.config)?,
            described,
            place: match &conversion.upn {
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
            if family::is_skipped(name, &self.described.config.chatrex) {
                skipped.push(name.clone());
            } else {
                unknown.push(name.as_str());
            }
        }
        if let Some((_, names)) = &self.upn {
            let of_upn = used(true);
            for name in names.keys().filter(|name| !of_upn.contains(&***name)) {
                if is_surplus(name) {
                    skipped.push(name.clone());
                } else {
                    left_over.push(name.clone());
                }
            }
        }
        if !unknown.is_empty() {
            let (count, first) = (unknown.len(), &unknown[..unknown.len().min(10)]);
            return Err(Fault::new(
                FaultKind::Model,
                &self.place,
                format!(
                    "holds {count} tensors that no part of the model uses: {}",
                    first.join(", ")
                ),
                "If they have an additional prefix, name it with --prefix THEIRS=OURS",
            ));
        }
        (self.skipped, self.left_over) = (skipped, left_over);
        Ok(())
    }

    /// The file of a required tensor and its name in it.
    fn find(&self, tensor: &RequiredTensor) -> Option<(&Checkpoint, &str)> {
        let (checkpoint, names) = match tensor.part {
            Part::Upn => self.upn.as_ref()?,
            _ => &self.model,
        };
        Some((checkpoint, names.get(&tensor.name)?.as_str()))
    }

    fn check_required(&self) -> Result<(), Fault> {
        let missing: Vec<&str> = self
            .required
            .iter()
            .filter(|tensor| self.find(tensor).is_none())
            .map(|tensor| tensor.name.as_str())
            .collect();
        if !missing.is_empty() {
            let count = missing.len();
            return Err(Fault::model(
                &self.place,
                format!("lacks {count} tensors: {}", missing.join(", ")),
            ));
        }
        for tensor in &self.required {
            let (checkpoint, name) = self.find(tensor).expect("found just above");
            let shape = checkpoint.get(name).map(|view| &view.shape);
            if let Some(shape) = shape.filter(|shape| **shape != tensor.shape) {
                return Err(Fault::model(
                    checkpoint.place(name),
                    format!("has shape {shape:?} instead of {:?}", tensor.shape),
                ));
            }
        }
        Ok(())
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
            max_tokens: 512,
            repetition_penalty: penalty,
        })
    }

    /// The checkpoint's own licence, or that of its family.
    pub fn licence(&self) -> Licence {
        match &self.described.licence {
            Some((name, text)) => Licence {
                name: name.clone(),
                text: text.clone(),
            },
            None => licence::idea(self.described.llama),
        }
    }

    /// Bytes of the required tensors in their files.
    pub fn bytes(&self) -> u64 {
        self.required
            .iter()
            .filter_map(|tensor| {
                let (checkpoint, name) = self.find(tensor)?;
                checkpoint.get(name)?.extent()
            })
            .sum()
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
    let (tokens, rows) = (tokenizer.vocab_size(), config.chatrex.llm.vocab_size);
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
        let (checkpoint, name) = self
            .find(&self.required[index])
            .expect("checked when opened");
        checkpoint.rows(name, rows)
    }

    fn place(&self, index: usize) -> String {
        let tensor = &self.required[index];
        match self.find(tensor) {
            Some((checkpoint, name)) => checkpoint.place(name),
            None => tensor.name.clone(),
        }
    }
}
