//! The data engine on the user's pictures: `chatrex dialogues`. It makes questions with answers from
//! annotations, and with a model as captioner and grounder; `chatrex train --data` reads them.
//!
//! The steps are those of `docs/reference/training.md` section 1: boxes, caption, phrases and their grounding,
//! descriptions of regions, filter, rewriting into referring expressions. Every record says which step and
//! model made it. A picture is a function of its annotations, the seed and the model, so a resumed run gives the
//! same file as an uninterrupted one.

mod background;
mod contents;
mod log;
mod model;
mod record;
mod text;
mod truth;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::contents::Contents;
use self::log::Log;
use self::model::{Made, Steps};
use self::record::{Dropped, made_by};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::eval::EvalModel;
use crate::eval::photographs::{CocoSet, Picture};
use crate::files;
use crate::geometry::{BoxXyxy, Proposal, Selection};
use crate::image::{Pixels, decode};
use crate::scenes::Rng;
use crate::scenes::labels::KINDS;
use crate::text::answer_parser::spans;

pub use self::record::{ANNOTATIONS, MadeBy, RULES, Record};
pub use self::text::Reason;

/// The records, in the output folder.
pub const DIALOGUES: &str = "dialogues.jsonl";
/// What was left out, with the reason.
pub const DROPPED: &str = "dropped.jsonl";
/// The options of the run, and its sums once it is complete.
pub const SIGNATURE: &str = "dialogues.json";
/// The folder of the pictures in the output folder.
pub const IMAGES: &str = "images";
/// [`Rng`] stream of the dialogues.
const STREAM: u64 = 301;
/// Proposals of a model that are added to annotated boxes, at most.
const MAX_PROPOSALS: usize = 60;
/// Share of a plain background above which a picture without annotations is left out by default: it has little content.
pub const MAX_PLAIN: f64 = 0.5;

/// Options of a run.
#[derive(Clone, Debug)]
pub struct DialogueOptions {
    /// The folder of the pictures.
    pub images: PathBuf,
    /// The output folder.
    pub out: PathBuf,
    /// Seed of the choices.
    pub seed: u64,
    /// Number of pictures, at most.
    pub count: Option<usize>,
    /// Pictures with a shorter side are left out.
    pub min_side: u32,
    /// Pictures are left out whose background is plain and has a larger share of the pixels, 0 to 1; 1 keeps all.
    pub max_plain: f64,
    /// Whether the pictures are annotated.
    pub annotated: bool,
    /// What decides the records beside these options: names and hashes of annotations and model.
    pub signature: BTreeMap<String, String>,
}

/// A model of a run.
pub struct Captioner<'a> {
    /// The model.
    pub model: &'a mut dyn EvalModel,
    /// Its name, for the records.
    pub name: String,
    /// Which proposals become boxes.
    pub selection: Selection,
}

/// The sums of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DialogueReport {
    /// Number of pictures.
    pub count: usize,
    /// Number of records.
    pub records: usize,
    /// Records of each task.
    pub per_task: BTreeMap<String, usize>,
    /// Texts and pictures that were left out, by reason.
    pub dropped: BTreeMap<String, usize>,
}

/// The content of [`SIGNATURE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Signature {
    options: BTreeMap<String, String>,
    #[serde(default)]
    report: Option<DialogueReport>,
}

/// The pictures of a folder without annotations, in the order of their paths. Their sizes are not known yet.
///
/// # Errors
/// A folder cannot be read, or there is no picture.
pub fn pictures_in(folder: &Path) -> Result<CocoSet, Fault> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        let path = folder.join(&inner);
        let entries = std::fs::read_dir(&path).map_err(|error| Fault::file(&path, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Fault::file(&path, error))?;
            let name = inner.join(entry.file_name());
            let kind = entry
                .file_type()
                .map_err(|error| Fault::file(&path, error))?;
            let ending = name.extension().unwrap_or_default().to_ascii_lowercase();
            let is_picture = ["jpg", "jpeg", "png", "webp"]
                .iter()
                .any(|known| ending == *known);
            if kind.is_dir() {
                folders.push(name);
            } else if is_picture && name.to_str().is_some() {
                found.push(name);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        let place = folder.display().to_string();
        let what = "has no JPEG, PNG or WebP picture";
        let fault = Fault::new(
            FaultKind::File,
            place,
            what,
            "Name the folder of the pictures",
        );
        return Err(fault.code(ErrorCode::NotFound));
    }
    let pictures = found.into_iter().zip(1..);
    let pictures = pictures.map(|(file, id)| Picture::new(id, file, 0, 0));
    Ok(CocoSet::of_pictures(pictures.collect()))
}

/// Makes the records of the pictures of `set`. `progress` gets the number of finished pictures.
///
/// # Errors
/// A picture is missing, the output folder holds another run, a file cannot be written, or a fault of the
/// model. What was written stays, and the next run goes on from there.
pub fn run(
    set: &CocoSet,
    options: &DialogueOptions,
    mut captioner: Option<Captioner>,
    mut progress: impl FnMut(u64),
) -> Result<DialogueReport, Fault> {
    set.check_files(&options.images)?;
    let count = options.count.unwrap_or(usize::MAX);
    let pictures: Vec<&Picture> = set.pictures.iter().take(count).collect();
    let out = &options.out;
    let images = out.join(IMAGES);
    std::fs::create_dir_all(&images).map_err(|error| Fault::file(&images, error))?;
    let mut records = Log::open(&out.join(DIALOGUES))?;
    let mut dropped = Log::open(&out.join(DROPPED))?;
    let signature = open_signature(options, &mut records)?;
    if let Some(report) = signature.report {
        progress(report.count as u64);
        return Ok(report);
    }
    let numbers: BTreeMap<String, usize> =
        pictures.iter().map(|p| image_name(p)).zip(0..).collect();
    let number = |image: &str| numbers.get(image).copied();
    let first = [records.last(number)?, dropped.last(number)?];
    let first = first.into_iter().flatten().max().unwrap_or(0);
    records.truncate(first, number)?;
    dropped.truncate(first, number)?;
    for (number, picture) in pictures.iter().enumerate().skip(first) {
        progress(number as u64);
        let (kept, left_out) = of_picture(set, picture, options, captioner.as_mut())?;
        if !kept.is_empty() {
            bring(
                &picture.path(&options.images),
                &out.join(image_name(picture)),
            )?;
        }
        dropped.append(&left_out)?;
        records.append(&kept)?;
    }
    records.finish()?;
    dropped.finish()?;
    let report = sums(out, pictures.len())?;
    let complete = Signature {
        report: Some(report.clone()),
        ..signature
    };
    write_signature(out, &complete)?;
    progress(pictures.len() as u64);
    Ok(report)
}

/// The path of a picture in the records, with `/` on every system.
fn image_name(picture: &Picture) -> String {
    let parts = picture.file.iter().map(|part| part.to_string_lossy());
    std::iter::once(IMAGES.into())
        .chain(parts)
        .collect::<Vec<_>>()
        .join("/")
}

/// Records and left out texts of a picture.
fn of_picture(
    set: &CocoSet,
    picture: &Picture,
    options: &DialogueOptions,
    captioner: Option<&mut Captioner>,
) -> Result<(Vec<Record>, Vec<Dropped>), Fault> {
    let image = image_name(picture);
    let left_out = |task: &str, text: String, reason: Reason, made_by: Vec<MadeBy>| Dropped {
        image: image.clone(),
        task: task.to_owned(),
        text,
        reason,
        made_by,
    };
    let mut rng = Rng::new(
        options.seed ^ picture.id.cast_unsigned().rotate_left(32),
        STREAM,
    );
    let is_read = captioner.is_some() || options.max_plain < 1.0;
    let pixels = match filtered(picture, options, is_read) {
        Ok(pixels) => pixels,
        Err((reason, text)) => {
            let rules = made_by(&[("filter", RULES)]);
            return Ok((Vec::new(), vec![left_out("picture", text, reason, rules)]));
        }
    };
    let (Some(captioner), Some(pixels)) = (captioner, pixels) else {
        let contents = Contents::annotated(picture, &set.kinds, &[], &mut rng);
        let records = from_boxes(&contents, &image, ANNOTATIONS, None, &mut rng);
        return Ok((records, Vec::new()));
    };
    let proposals = captioner.model.propose(&pixels)?;
    let kept = captioner.selection.choose(&proposals, MAX_PROPOSALS).kept;
    let proposals: Vec<Proposal> = kept.into_iter().map(|i| proposals[i].clone()).collect();
    let contents = match options.annotated {
        true => {
            let boxes: Vec<BoxXyxy> = proposals.iter().map(|proposal| proposal.bbox).collect();
            Contents::annotated(picture, &set.kinds, &boxes, &mut rng)
        }
        false => {
            let universe: Vec<String> = KINDS.iter().map(|kind| kind.name.to_owned()).collect();
            let size = [pixels.width, pixels.height];
            Contents::proposed(size, &proposals, &universe, &mut rng)
        }
    };
    let truth = match options.annotated {
        true => ANNOTATIONS,
        false => captioner.name.as_str(),
    };
    let proposer = contents.proposed.then_some(captioner.name.as_str());
    let mut records = from_boxes(&contents, &image, truth, proposer, &mut rng);
    let mut steps = Steps {
        model: &mut *captioner.model,
        name: &captioner.name,
        pixels: &pixels,
        contents: &contents,
    };
    let mut dropped = Vec::new();
    for made in steps.all(&mut rng)? {
        let Made {
            task,
            question,
            answer,
            made_by,
            dropped: reason,
        } = made;
        match reason {
            Some(reason) => {
                let text = if answer.is_empty() { question } else { answer };
                dropped.push(left_out(task, text, reason, made_by));
            }
            None => records.push(record(&contents, &image, task, question, answer, made_by)),
        }
    }
    Ok((unique(records), dropped))
}

/// The pixels of a picture, unless they are not to be read.
///
/// # Errors
/// Why the picture is left out, as a reason and in words.
fn filtered(
    picture: &Picture,
    options: &DialogueOptions,
    is_read: bool,
) -> Result<Option<Pixels>, (Reason, String)> {
    let check_size = |width: u32, height: u32| match width.min(height) < options.min_side {
        true => Err((Reason::Picture, format!("{width} x {height} pixels"))),
        false => Ok(()),
    };
    if options.annotated {
        check_size(picture.width, picture.height)?;
    }
    if !is_read {
        return Ok(None);
    }
    let pixels = match options.annotated {
        true => picture.pixels(&options.images),
        false => decode::open(&picture.path(&options.images)),
    };
    let pixels = pixels.map_err(|fault| (Reason::Picture, fault.what))?;
    check_size(pixels.width, pixels.height)?;
    if options.max_plain < 1.0
        && let Some(share) = background::plain_share(&pixels)
        && share > options.max_plain
    {
        let text = format!(
            "{:.0}% of the pixels have the color of the border",
            100.0 * share
        );
        return Err((Reason::PlainBackground, text));
    }
    Ok(Some(pixels))
}

/// The records that follow from boxes and kinds. `truth` made the kinds, `proposer` the boxes without kinds.
fn from_boxes(
    contents: &Contents,
    image: &str,
    truth: &str,
    proposer: Option<&str>,
    rng: &mut Rng,
) -> Vec<Record> {
    let mut steps = vec![("boxes", truth)];
    if let Some(proposer) = proposer.filter(|proposer| *proposer != truth) {
        steps.push(("boxes", proposer));
    }
    let exchanges = truth::exchanges(contents, rng).into_iter();
    let records = exchanges.map(|exchange| {
        let mut steps = steps.clone();
        if exchange.captioned {
            steps.extend([("caption", ANNOTATIONS), ("ground", RULES)]);
        }
        steps.push(("answer", RULES));
        let made_by = made_by(&steps);
        let truth::Exchange {
            task,
            question,
            answer,
            ..
        } = exchange;
        record(contents, image, task, question, answer, made_by)
    });
    unique(records.collect())
}

fn record(
    contents: &Contents,
    image: &str,
    task: &str,
    question: String,
    answer: String,
    made_by: Vec<MadeBy>,
) -> Record {
    let mut objects: Vec<u32> = spans(&answer)
        .into_iter()
        .flat_map(|span| span.objects)
        .collect();
    objects.sort_unstable();
    objects.dedup();
    Record {
        image: image.to_owned(),
        task: task.to_owned(),
        question,
        answer,
        boxes: contents.boxes.clone(),
        objects,
        made_by,
    }
}

/// The first of the records with the same question and answer.
fn unique(records: Vec<Record>) -> Vec<Record> {
    let mut kept: Vec<Record> = Vec::with_capacity(records.len());
    for record in records {
        let same =
            |other: &Record| (&other.question, &other.answer) == (&record.question, &record.answer);
        if !kept.iter().any(same) {
            kept.push(record);
        }
    }
    kept
}

/// Makes `to` a link to the picture `from`, or a copy where the file system has no links.
fn bring(from: &Path, to: &Path) -> Result<(), Fault> {
    if to.exists() {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Fault::file(folder, error))?;
    }
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let bytes = std::fs::read(from).map_err(|error| Fault::file(from, error))?;
    files::replace(to, &bytes).map_err(|error| Fault::file(to, error))
}

/// The signature in the output folder, or a new one; a folder of a run with other options is refused.
fn open_signature(options: &DialogueOptions, records: &mut Log) -> Result<Signature, Fault> {
    let own = [
        ("seed", options.seed.to_string()),
        (
            "count",
            options
                .count
                .map_or("all".into(), |count| count.to_string()),
        ),
        ("min_side", options.min_side.to_string()),
        ("images", options.images.display().to_string()),
    ];
    // A run without the filter has the signature that it had before there was one.
    let filter = (options.max_plain < 1.0).then(|| ("max_plain", options.max_plain.to_string()));
    let own = own.into_iter().chain(filter);
    let own = own.map(|(key, value)| (key.to_owned(), value));
    let wanted: BTreeMap<String, String> = own.chain(options.signature.clone()).collect();
    let path = options.out.join(SIGNATURE);
    let place = path.display().to_string();
    if let Some(found) = files::read_json::<Signature>(&path)? {
        let keys = wanted.keys().chain(found.options.keys());
        let mut other = keys.filter(|key| wanted.get(*key) != found.options.get(*key));
        let Some(key) = other.next() else {
            return Ok(found);
        };
        let value = |options: &BTreeMap<String, String>| {
            options.get(key).cloned().unwrap_or_else(|| "none".into())
        };
        let (old, new) = (value(&found.options), value(&wanted));
        let what = format!("is of a run with {key} {old}, not {new}");
        let advice = "Use the same options, or another --out";
        let fault = Fault::new(FaultKind::File, place, what, advice);
        return Err(fault.code(ErrorCode::InvalidInput));
    }
    if records.last(|_| Some(0))?.is_some() {
        let what = "is missing, and there are records already";
        let fault = Fault::new(FaultKind::File, place, what, "Name a new folder with --out");
        return Err(fault.code(ErrorCode::InvalidInput));
    }
    let signature = Signature {
        options: wanted,
        report: None,
    };
    write_signature(&options.out, &signature)?;
    Ok(signature)
}

fn write_signature(out: &Path, signature: &Signature) -> Result<(), Fault> {
    let path = out.join(SIGNATURE);
    let text = serde_json::to_vec_pretty(signature).expect("plain data serializes");
    files::replace(&path, &text).map_err(|error| Fault::file(&path, error))
}

/// Counts the lines of a complete run.
fn sums(out: &Path, count: usize) -> Result<DialogueReport, Fault> {
    #[derive(Deserialize)]
    struct Line {
        task: String,
        #[serde(default)]
        reason: Option<String>,
    }
    let mut report = DialogueReport {
        count,
        ..DialogueReport::default()
    };
    for name in [DIALOGUES, DROPPED] {
        let path = out.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| Fault::file(&path, error))?;
        for line in text.lines() {
            let line: Line =
                serde_json::from_str(line).map_err(|error| Fault::file(&path, error))?;
            match line.reason {
                Some(reason) => *report.dropped.entry(reason).or_default() += 1,
                None => {
                    report.records += 1;
                    *report.per_task.entry(line.task).or_default() += 1;
                }
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
