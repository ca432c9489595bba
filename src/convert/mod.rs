//! Original checkpoints become model folders.
//!
//! A checkpoint is a file of somebody else: nothing in it is believed before it was checked, and
//! nothing it asks to run is run. Tensors go through one at a time, on all cores; shards that are
//! finished stay when a run is cut, and `model.json`, without which a folder is no model, comes
//! last.

pub mod checkpoint;
pub mod family;
pub mod layout;
pub mod licence;
pub mod pickle;
pub mod pth;
pub mod required_tensors;
pub mod sentencepiece;
pub mod size_plan;
pub mod synthetic;
pub mod tokenizer;
pub mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, FaultKind};
use crate::model::decoder::{Decoder, DecoderConfig};
use crate::model::upn::is_surplus;
use crate::nn::{Init, Loader, Weight, WeightMap, WeightSource};
use crate::text::prompt::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::weights::download::Downloader;
use crate::weights::manifest::{
    Defaults, FileEntry, Licence, MANIFEST, Manifest, Part, Provenance, SelfTest, Shard, VERSION,
    sha256_hex,
};
use crate::weights::quant::Rounding;
use crate::weights::source::{self, BlockingRuntime, Folder};
use crate::weights::storage::{QuantPreset, WeightFormat, storage_for};

use checkpoint::Checkpoint;
use family::{Names, Shapes};
use layout::{ShardPlan, lay_out};
use required_tensors::RequiredTensor;
use write::{PIECE_BYTES, QuantError, Rows, unwritten, write_shard};

/// The name of the tokenizer in a model folder.
const TOKENIZER: &str = "tokenizer.json";

/// What a run that was cut leaves for the next one.
const UNFINISHED: &str = "unfinished.json";

/// What to convert, and how.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// A hub folder.
    pub model: PathBuf,
    /// The proposal network's file.
    pub upn: Option<PathBuf>,
    /// The model folder to make.
    pub out: PathBuf,
    /// Precision.
    pub quant: QuantPreset,
    /// Weights per scale, 32 or 64.
    pub group: usize,
    /// How scales are chosen.
    pub rounding: Rounding,
    /// The words around a question, where the family's own do not fit.
    pub template: Option<PathBuf>,
    /// Beginnings of names: theirs and ours.
    pub prefixes: Vec<(String, String)>,
    /// The model's name; the folder's without.
    pub name: Option<String>,
}

/// What a conversion did.
#[derive(Clone, Debug, Serialize)]
pub struct Converted {
    /// Bytes of the folder.
    pub bytes: u64,
    /// Bytes that were read of the checkpoint.
    pub read_bytes: u64,
    /// Every tensor: its name, form, and how far its stored values are from the checkpoint's.
    pub tensors: Vec<TensorReport>,
    /// Tensors of the checkpoint that nothing reads, as documented.
    pub skipped: Vec<String>,
    /// Tensors of the proposal network's file that nothing reads.
    pub left_over: Vec<String>,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// The checkpoint's name in our spelling.
    pub name: String,
    /// `f32`, `f16`, `q8` or `q4`.
    pub form: String,
    /// Largest difference.
    pub worst: f32,
    /// Root of the mean squared difference.
    pub rms: f64,
    /// The same over the root mean square of the values.
    pub relative: f64,
}

/// How far a conversion has come.
pub trait Watch: Sync {
    /// There are so many bytes to write.
    fn total(&self, bytes: u64);
    /// So many more are written.
    fn more(&self, bytes: u64);
}

/// The state of a run, kept beside the shards.
#[derive(Serialize, Deserialize)]
struct Unfinished {
    /// Of everything that decides about the bytes.
    signature: String,
    shards: Vec<Shard>,
    deviations: BTreeMap<usize, QuantError>,
}

/// Converts a checkpoint.
///
/// # Errors
/// Files that are missing, damaged or of an unknown kind, a tensor that is missing, surplus,
/// misshapen or not finite, a folder that already holds a model, a disk that is full.
pub fn convert(conversion: &Conversion, watch: &dyn Watch) -> Result<Converted, Fault> {
    let out = &conversion.out;
    if out.join(MANIFEST).exists() {
        return Err(Fault::new(
            FaultKind::File,
            out.display().to_string(),
            "already holds a model",
            "Name another folder, or delete this one",
        ));
    }
    let here = |folder: &Path| std::fs::canonicalize(folder).ok();
    if here(out).is_some() && here(out) == here(&conversion.model) {
        return Err(Fault::new(
            FaultKind::File,
            out.display().to_string(),
            "is the checkpoint's own folder",
            "Name another folder",
        ));
    }
    let opened = Opened::open(conversion)?;
    let described = &opened.described;
    let config = &described.config;
    let needed = &opened.needed;
    opened.check(needed)?;
    let tokenizer = &opened.tokenizer;
    let layers = config.chatrex.llm.num_hidden_layers;
    let forms: Vec<WeightFormat> = needed
        .iter()
        .map(|tensor| {
            storage_for(
                tensor.described(),
                conversion.quant,
                conversion.group,
                layers,
            )
        })
        .collect();
    let plan = lay_out(needed, &forms);
    watch.total(plan.iter().map(|shard| shard.bytes).sum());
    std::fs::create_dir_all(out).map_err(|error| Fault::file(out, error))?;
    let source = Source {
        opened: &opened,
        needed,
    };
    let state = write_shards(conversion, &plan, &forms, &source, watch)?;

    let mut manifest = Manifest {
        version: VERSION,
        name: model_name(conversion),
        family: "chatrex".into(),
        config: serde_json::to_value(config).expect("configurations are plain data"),
        defaults: opened.defaults(&conversion.model)?,
        precision: precision(conversion),
        tokenizer: FileEntry::describe(TOKENIZER, tokenizer),
        piece_bytes: PIECE_BYTES,
        shards: state.shards,
        tensors: plan
            .iter()
            .flat_map(|shard| &shard.blocks)
            .flat_map(|block| block.stored.iter().cloned())
            .collect(),
        licence: opened.licence(),
        provenance: Provenance {
            trained_on: described.trained_on.clone().unwrap_or_else(|| {
                "a converted checkpoint; its authors say what it was trained on".into()
            }),
            commands: described.made_by.clone(),
        },
        self_test: None,
    };
    manifest.self_test = Some(self_test(out, &manifest, &config.chatrex.llm)?);
    replace(&out.join(TOKENIZER), tokenizer)?;
    let json = serde_json::to_vec_pretty(&manifest).expect("manifests are plain data");
    Manifest::parse(&json, MANIFEST)?;
    replace(&out.join(MANIFEST), &json)?;
    sweep(out);
    Ok(Converted {
        bytes: manifest.bytes() + json.len() as u64,
        read_bytes: opened.bytes(needed),
        tensors: report(needed, &forms, &state.deviations),
        skipped: opened.skipped.clone(),
        left_over: opened.left_over.clone(),
    })
}

/// The checkpoints and what they are.
struct Opened {
    model: (Checkpoint, Names),
    upn: Option<(Checkpoint, Names)>,
    described: family::Described,
    /// Every tensor that the described model asks for.
    needed: Vec<RequiredTensor>,
    place: String,
    skipped: Vec<String>,
    left_over: Vec<String>,
    tokenizer: Vec<u8>,
}

impl Opened {
    fn open(conversion: &Conversion) -> Result<Self, Fault> {
        let folder = &conversion.model;
        let template = match &conversion.template {
            Some(path) => Some(
                family::json::<ChatTemplate>(path)?
                    .ok_or_else(|| Fault::file(path, "is missing"))?,
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
        let read = tokenizer::read(folder)?;
        let place = folder.join(TOKENIZER).display().to_string();
        let words = Tokenizer::from_json(&read.json, &place, read.bos.as_deref())?;
        let template = &mut described.config.template;
        template.stop.retain(|token| words.id(token).is_ok());
        if template.stop.is_empty() {
            template
                .stop
                .extend(read.eos.filter(|token| words.id(token).is_ok()));
        }
        if template.stop.is_empty() {
            return Err(Fault::model(place, "has no token that could end an answer"));
        }
        let rows = described.config.chatrex.llm.vocab_size;
        if words.vocab_size() > rows {
            return Err(Fault::model(
                place,
                format!(
                    "has {} tokens, the embedding {rows} rows",
                    words.vocab_size()
                ),
            ));
        }
        described.config.bos = read.bos;
        Self {
            model: (model, names),
            upn,
            needed: required_tensors::needed(&described.config)?,
            described,
            place: match &conversion.upn {
                Some(file) => format!("{} with {}", folder.display(), file.display()),
                None => folder.display().to_string(),
            },
            skipped: Vec::new(),
            left_over: Vec::new(),
            tokenizer: read.json,
        }
        .sort_surplus()
    }

    /// Tells documented surplus from left-overs and from what must not be there.
    fn sort_surplus(mut self) -> Result<Self, Fault> {
        let asked = |upn: bool| {
            let of = self
                .needed
                .iter()
                .filter(move |n| (n.part == Part::Upn) == upn);
            of.map(|needed| needed.name.as_str())
                .collect::<std::collections::BTreeSet<_>>()
        };
        let mut unknown = Vec::new();
        let own = asked(false);
        for name in self
            .model
            .1
            .keys()
            .filter(|name| !own.contains(name.as_str()))
        {
            if family::is_skipped(name, &self.described.config.chatrex) {
                self.skipped.push(name.clone());
            } else {
                unknown.push(name.as_str());
            }
        }
        if let Some((_, names)) = &self.upn {
            let own = asked(true);
            for name in names.keys().filter(|name| !own.contains(name.as_str())) {
                let list = if is_surplus(name) {
                    &mut self.skipped
                } else {
                    &mut self.left_over
                };
                list.push(name.clone());
            }
        }
        if unknown.is_empty() {
            return Ok(self);
        }
        let shown = unknown
            .iter()
            .take(10)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        Err(Fault::new(
            FaultKind::Model,
            &self.place,
            format!(
                "holds {} tensors that no part of the model reads: {shown}",
                unknown.len()
            ),
            "If they begin with a prefix of their own, name it with --prefix THEIRS=OURS",
        ))
    }

    /// The file of a needed tensor and its name there.
    fn find(&self, needed: &RequiredTensor) -> Option<(&Checkpoint, &str)> {
        let (checkpoint, names) = match needed.part {
            Part::Upn => self.upn.as_ref()?,
            _ => &self.model,
        };
        Some((checkpoint, names.get(&needed.name)?.as_str()))
    }

    /// Every needed tensor is there and has its shape.
    fn check(&self, needed: &[RequiredTensor]) -> Result<(), Fault> {
        let missing: Vec<&str> = needed
            .iter()
            .filter(|needed| self.find(needed).is_none())
            .map(|needed| needed.name.as_str())
            .collect();
        if !missing.is_empty() {
            let count = missing.len();
            return Err(Fault::model(
                &self.place,
                format!("lacks {count} tensors: {}", missing.join(", ")),
            ));
        }
        for needed in needed {
            let (checkpoint, theirs) = self.find(needed).expect("found just above");
            let found = checkpoint.get(theirs).map(|located| &located.shape);
            if let Some(shape) = found.filter(|shape| **shape != needed.shape) {
                return Err(Fault::model(
                    checkpoint.place(theirs),
                    format!("has shape {shape:?} instead of {:?}", needed.shape),
                ));
            }
        }
        Ok(())
    }

    fn defaults(&self, folder: &Path) -> Result<Defaults, Fault> {
        #[derive(Default, Deserialize)]
        struct Generation {
            repetition_penalty: Option<f32>,
        }
        let path = folder.join("generation_config.json");
        let generation: Generation = family::json(&path)?.unwrap_or_default();
        let penalty = generation.repetition_penalty.unwrap_or(1.0);
        if !(penalty > 0.0 && penalty.is_finite()) {
            return Err(Fault::model(
                path.display().to_string(),
                format!("asks for a repetition penalty of {penalty}"),
            ));
        }
        Ok(Defaults {
            score: self.described.score.unwrap_or(0.3),
            nms: self.described.nms.unwrap_or(0.8),
            max_tokens: 512,
            repetition_penalty: penalty,
        })
    }

    fn licence(&self) -> Licence {
        match &self.described.licence {
            Some((name, text)) => Licence {
                name: name.clone(),
                text: text.clone(),
            },
            None => licence::idea(self.described.llama),
        }
    }

    fn bytes(&self, needed: &[RequiredTensor]) -> u64 {
        needed
            .iter()
            .filter_map(|needed| {
                let (checkpoint, theirs) = self.find(needed)?;
                checkpoint.get(theirs)?.extent()
            })
            .sum()
    }
}

struct Source<'a> {
    opened: &'a Opened,
    needed: &'a [RequiredTensor],
}

impl Rows for Source<'_> {
    fn rows(&self, index: usize, rows: Range<usize>) -> Result<Vec<f32>, Fault> {
        let (checkpoint, theirs) = self
            .opened
            .find(&self.needed[index])
            .expect("checked before");
        checkpoint.rows(theirs, rows)
    }

    fn place(&self, index: usize) -> String {
        let needed = &self.needed[index];
        match self.opened.find(needed) {
            Some((checkpoint, theirs)) => checkpoint.place(theirs),
            None => needed.name.clone(),
        }
    }
}

fn write_shards(
    conversion: &Conversion,
    plan: &[ShardPlan],
    forms: &[WeightFormat],
    source: &Source,
    watch: &dyn Watch,
) -> Result<Unfinished, Fault> {
    let out = &conversion.out;
    let path = out.join(UNFINISHED);
    let signature = signature(conversion, plan)?;
    let mut state = match family::json::<Unfinished>(&path) {
        Ok(Some(state)) if state.signature == signature => state,
        other => {
            if let Ok(Some(state)) = other {
                discard(out, &state.shards);
            }
            Unfinished {
                signature,
                shards: Vec::new(),
                deviations: BTreeMap::new(),
            }
        }
    };
    let whole = |shard: &&Shard| {
        std::fs::metadata(out.join(&shard.name)).is_ok_and(|found| found.len() == shard.bytes)
    };
    let finished: Vec<Shard> = state.shards.iter().take_while(whole).cloned().collect();
    state.shards = finished;
    for (index, plan) in plan.iter().enumerate() {
        if index < state.shards.len() {
            watch.more(plan.bytes);
            continue;
        }
        let unfinished = out.join(format!("{}.unfinished", plan.name));
        let written = write_shard(
            &unfinished,
            plan,
            forms,
            conversion.rounding,
            source,
            &|bytes| watch.more(bytes),
        );
        let (shard, deviations) = written
            .and_then(|written| representable(&written.1, source).map(|()| written))
            .inspect_err(|_| {
                // It is written anew next time; until then it only takes room.
                let _ = std::fs::remove_file(&unfinished);
            })?;
        let finished = out.join(&plan.name);
        std::fs::rename(&unfinished, &finished).map_err(|error| unwritten(&finished, &error))?;
        for (tensor, deviation) in deviations {
            state.deviations.entry(tensor).or_default().add(&deviation);
        }
        state.shards.push(shard);
        let json = serde_json::to_vec(&state).expect("plain data");
        replace(&path, &json)?;
    }
    Ok(state)
}

/// Fails where a tensor did not survive its form.
fn representable(deviations: &[(usize, QuantError)], source: &Source) -> Result<(), Fault> {
    let beyond = deviations
        .iter()
        .find(|(_, deviation)| !deviation.worst.is_finite());
    match beyond {
        Some((tensor, _)) => Err(Fault::new(
            FaultKind::Model,
            source.place(*tensor),
            "holds values beyond half precision",
            "Convert with --quant f32",
        )),
        None => Ok(()),
    }
}

/// Deletes the shards of a run with other options.
fn discard(out: &Path, shards: &[Shard]) {
    let own = |name: &&str| name.ends_with(".safetensors") && !name.contains(['/', '\\']);
    for name in shards.iter().map(|shard| shard.name.as_str()).filter(own) {
        // What cannot be deleted is overwritten, or is no part of the new model.
        let _ = std::fs::remove_file(out.join(name));
    }
}

/// Deletes what runs left that were cut. The folder is whole: whatever stays does no harm.
fn sweep(out: &Path) {
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

/// Changes whenever the bytes of a shard could.
fn signature(conversion: &Conversion, plan: &[ShardPlan]) -> Result<String, Fault> {
    let mut text = format!(
        "{VERSION} {:?} {:?} {:?}",
        conversion.quant, conversion.rounding, conversion.prefixes
    );
    let mut files: Vec<PathBuf> = conversion.upn.iter().cloned().collect();
    let entries = std::fs::read_dir(&conversion.model)
        .map_err(|error| Fault::file(&conversion.model, error))?;
    files.extend(entries.flatten().map(|entry| entry.path()));
    files.sort();
    for file in files {
        let found = std::fs::metadata(&file).map_err(|error| Fault::file(&file, error))?;
        if found.is_dir() {
            continue;
        }
        let changed = found
            .modified()
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        text.push_str(&format!("\n{} {} {changed:?}", file.display(), found.len()));
    }
    for shard in plan {
        text.push_str(&sha256_hex(&shard.header));
    }
    Ok(sha256_hex(text.as_bytes()))
}

fn model_name(conversion: &Conversion) -> String {
    conversion.name.clone().unwrap_or_else(|| {
        let folder = conversion.model.file_name().unwrap_or_default();
        folder.to_string_lossy().into_owned()
    })
}

fn precision(conversion: &Conversion) -> String {
    match conversion.quant {
        QuantPreset::Q4 => format!("q4, groups of {}", conversion.group),
        QuantPreset::Q8 => format!("q8, groups of {}", conversion.group),
        QuantPreset::F16 => "f16".into(),
        QuantPreset::F32 => "f32".into(),
    }
}

fn report(
    needed: &[RequiredTensor],
    forms: &[WeightFormat],
    deviations: &BTreeMap<usize, QuantError>,
) -> Vec<TensorReport> {
    deviations
        .iter()
        .map(|(&index, deviation)| TensorReport {
            name: needed[index].name.clone(),
            form: match forms[index] {
                WeightFormat::Dense(element) => format!("{element:?}").to_lowercase(),
                WeightFormat::Quantized(scheme) => format!("q{}", scheme.bits),
            },
            worst: deviation.worst,
            rms: deviation.rms(),
            relative: deviation.relative(),
        })
        .collect()
}

/// Rows of the self-test's input.
const PROBE_ROWS: usize = 7;

/// What the processor makes of the first block as it was just stored.
fn self_test(out: &Path, manifest: &Manifest, config: &DecoderConfig) -> Result<SelfTest, Fault> {
    let device = Device::flex();
    let wanted =
        |name: &str| name.starts_with("model.layers.0.") || name.starts_with("model.norm.");
    let mut weights = WeightMap::new(&device, wanted);
    let folder = Folder(out.to_path_buf());
    let transfer = Downloader::new(manifest, &folder, None, &BlockingRuntime, &|_| ());
    pollster::block_on(transfer.tensors(&[Part::Decoder], &mut weights))?;
    let one_block = DecoderConfig {
        num_hidden_layers: 1,
        tie_word_embeddings: true,
        ..config.clone()
    };
    let source = WithoutEmbedding(weights);
    let decoder = Decoder::load(&Loader::new(&source, &device), &one_block)?;
    let expected: Vec<f32> = decoder
        .self_test(PROBE_ROWS)
        .into_data()
        .try_to_vec()
        .expect("the processor computes in f32");
    let reach = expected
        .iter()
        .fold(0.0_f32, |reach, value| reach.max(value.abs()));
    if !reach.is_finite() {
        return Err(Fault::model(
            out.display().to_string(),
            "the first block computes values that are not finite",
        ));
    }
    Ok(SelfTest {
        rows: PROBE_ROWS,
        expected,
        tolerance: (reach * 2e-3).max(1e-6),
    })
}

/// A decoder of which only blocks are wanted.
struct WithoutEmbedding(WeightMap);

impl WeightSource for WithoutEmbedding {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        init: &Init,
        device: &Device,
    ) -> Result<burn::tensor::Tensor<1>, Fault> {
        self.0.tensor(name, shape, init, device)
    }

    fn weight(
        &self,
        stem: &str,
        shape: [usize; 2],
        init: &Init,
        device: &Device,
    ) -> Result<Weight, Fault> {
        if stem == "model.embed_tokens" {
            return Ok(Weight::Device(Vec::new()));
        }
        self.0.weight(stem, shape, init, device)
    }
}

/// Replaces `path` with `bytes`; a reader sees the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    source::replace(path, bytes).map_err(|error| unwritten(path, &error))
}
