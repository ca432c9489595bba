//! The work of a batch: the engine on this thread, pictures from [`Ahead`], results to the [`Store`].

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::ahead::{Ahead, Content, Limits, Loaded};
use super::inputs::Pictures;
use super::questions::{Asked, Kind, Questions};
use super::record::{self, Record};
use super::shard::Shard;
use super::store::{Existing, Key, Lists, Names, Store};
use super::tables::{Format, Tables};
use super::together::{self, Member};
use crate::chat::exchange::marked;
use crate::engine::prepare::Preparation;
use crate::engine::together::{Encoded, Input};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::geometry::{Granularity, Proposal, Selection};
use crate::image::{Pixels, annotate};
use crate::protocol::{Client as _, LoadOptions, Question, StopReason};
use crate::session::Session;
use crate::text::answer_parser::Span;
use crate::text::prompt::{MAX_BOXES, index_tag};
use crate::weights::manifest::{hex, sha256_hex};

/// Version of `batch.json`.
const VERSION: u32 = 1;

/// Pictures in a row that may fail on the device before the batch ends: then the device is at fault.
const MAX_DEVICE_FAILURES: usize = 3;

/// A batch.
pub struct Job {
    /// The pictures.
    pub pictures: Pictures,
    /// What is asked about them.
    pub questions: Questions,
    /// The folder of the results.
    pub out: PathBuf,
    /// The part of the pictures to do; all without it.
    pub shard: Option<Shard>,
    /// How the model was opened.
    pub load: LoadOptions,
    /// Which proposals are asked for.
    pub granularity: Granularity,
    /// Which of them are used.
    pub selection: Selection,
    /// Tokens per answer.
    pub max_tokens: u32,
    /// How answers are sampled.
    pub sampling: Sampling,
    /// Folder for copies of the pictures with their boxes.
    pub annotate: Option<PathBuf>,
    /// Files to write beside `results.jsonl`.
    pub formats: Vec<Format>,
    /// What is read ahead of the engine: pictures at least as many as run together, unless 0.
    pub ahead: Limits,
    /// The most pictures whose vision networks run together, as far as memory allows; `None` for a number by device
    /// and memory. Results do not depend on it on the CPU, and but for rounding on a GPU.
    pub together: Option<usize>,
    /// What happens to results that are there.
    pub existing: Existing,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pictures with all their results, those of earlier runs included.
    pub done: usize,
    /// All pictures.
    pub total: usize,
    /// Results that are failures.
    pub failed: usize,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Pictures of the batch, or of its shard.
    pub pictures: usize,
    /// Results that it should have: one per picture and question.
    pub results: usize,
    /// Results that this run computed.
    pub done: usize,
    /// Results that this run copied from an equal picture.
    pub copied: usize,
    /// Results of earlier runs.
    pub skipped: usize,
    /// Results, of this run and earlier ones, that are failures.
    pub failed: usize,
    /// Pictures that this run worked on.
    pub worked: usize,
    /// The most of them whose vision networks ran together.
    pub together: usize,
    /// Duration of that work in seconds, without loading the model.
    pub seconds: f64,
    /// `worked / seconds`.
    pub pictures_per_second: f64,
    /// The files of results.
    pub files: Vec<String>,
}

/// Runs a batch: the results that are not there yet, then the files for other programs. `on_progress` is called
/// after every picture.
///
/// # Errors
/// The results cannot be written or are of another batch, the model reads no pictures, or the device fails for
/// good. Pictures and questions that fail are results, not errors.
pub fn run(
    session: &mut Session,
    job: &Job,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Summary, Fault> {
    if session.card().text_only {
        let what = "reads text alone; a batch is about pictures";
        let fault = Fault::new(
            FaultKind::Model,
            session.card().name.clone(),
            what,
            "Use another model",
        );
        return Err(fault.code(ErrorCode::Unsupported));
    }
    if let Some(folder) = &job.annotate {
        fs::create_dir_all(folder).map_err(|error| Fault::file(folder, error))?;
    }
    let names = Names::new(&job.out, job.shard);
    let signature = signature(session, job);
    let lists = Lists {
        pictures: &job.pictures,
        questions: &job.questions,
    };
    let store = Store::open(&names, &signature, &lists, job.existing)?;
    let preparation = session
        .engine()
        .preparation()
        .unwrap_or_else(Preparation::none);
    let preparation = match job.questions.has_questions() {
        true => preparation,
        false => preparation.without_towers(),
    };
    let mut work = Work::new(session, job, store);
    work.ask_all(&preparation, on_progress)?;
    let Work { store, summary, .. } = work;
    let mut summary = summary;
    let tables = Tables {
        store: &store,
        lists,
        names: &names,
        model: &session.card().name,
    };
    summary.files = tables.write(&job.formats)?;
    summary.failed = store.failures();
    Ok(summary)
}

/// What the results depend on.
fn signature(session: &mut Session, job: &Job) -> Value {
    let load = json!({"cache": job.load.cache, "activations": job.load.activations});
    let (_, model) = session.engine().parts();
    let manifest = model.and_then(|model| serde_json::to_vec(model.manifest()).ok());
    let kinds = job.questions.all.first().map(|asked| asked.kind.key());
    json!({
        "version": VERSION,
        "engine": session.card().engine,
        "model": session.card().name,
        "model_sha256": sha256_hex(&manifest.unwrap_or_default()),
        "device": session.card().device,
        "load": load,
        "task": kinds,
        "questions": job.questions.all.len(),
        "question": job.questions.all.first().map(|asked| &asked.text),
        "questions_sha256": job.questions.digest(),
        "pictures": job.pictures.all.len(),
        "pictures_sha256": job.pictures.digest(),
        "shard": job.shard.map(|shard| shard.to_string()),
        "prompt": job.granularity,
        "score": job.selection.score,
        "nms": job.selection.nms,
        "first_of_kind": job.selection.first_of_kind,
        "max_tokens": job.max_tokens,
        "sampling": job.sampling,
        "annotate": job.annotate.is_some(),
    })
}

/// The place of a picture, and the questions about it that have no result.
type Todo = (usize, Vec<usize>);

/// The work in progress.
struct Work<'a> {
    session: &'a mut Session,
    job: &'a Job,
    store: Store,
    summary: Summary,
    /// Pictures of a group whose vision networks run together.
    together: usize,
    /// Pictures in a row that failed on the device.
    device_failures: usize,
}

/// A picture that the engine holds.
struct Open {
    proposals: Vec<Proposal>,
    /// Kept to draw boxes on.
    pixels: Option<Pixels>,
    milliseconds: f64,
    /// Milliseconds of the towers that no answer has counted.
    towers: f64,
}

/// What is known of a picture beside its name.
#[derive(Default)]
struct About {
    sha256: Option<[u8; 32]>,
    size: Option<[u32; 2]>,
    /// Time to read and decode it, and to preprocess it, in milliseconds.
    milliseconds: [f64; 2],
}

impl<'a> Work<'a> {
    fn new(session: &'a mut Session, job: &'a Job, store: Store) -> Self {
        let together = session.pictures_together(job.together, job.load.memory);
        Self {
            session,
            job,
            store,
            summary: Summary {
                together,
                ..Summary::default()
            },
            together,
            device_failures: 0,
        }
    }

    /// Asks what is missing about every picture.
    fn ask_all(
        &mut self,
        preparation: &Preparation,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Fault> {
        let mut todo: Vec<Todo> = Vec::new();
        for place in 0..self.job.pictures.all.len() {
            let questions = self.job.questions.about(place);
            if questions.is_empty() || !self.job.shard.is_none_or(|shard| shard.has(place)) {
                continue;
            }
            self.summary.pictures += 1;
            self.summary.results += questions.len();
            let missing: Vec<usize> = questions
                .iter()
                .copied()
                .filter(|&question| !self.store.has((place, question)))
                .collect();
            self.summary.skipped += questions.len() - missing.len();
            if !missing.is_empty() {
                todo.push((place, missing));
            }
        }
        let start = Instant::now();
        let before = self.summary.pictures - todo.len();
        let paths = todo
            .iter()
            .map(|(place, _)| self.job.pictures.all[*place].path.clone());
        let once = self.job.annotate.is_none();
        let mut limits = self.job.ahead;
        if limits.pictures > 0 {
            limits.pictures = limits.pictures.max(self.together);
        }
        let ahead = Ahead::new(paths.collect(), preparation, limits, once);
        let mut failed = self.store.failures();
        std::thread::scope(|scope| {
            let _closed = CloseAtEnd(&ahead);
            ahead.start(scope);
            let mut group = VecDeque::new();
            for (number, (place, questions)) in todo.iter().enumerate() {
                if group.is_empty() {
                    group = self.next_group(&ahead, &todo, number);
                }
                let member = group.pop_front().expect("a group has pictures");
                let read_again = || ahead.read_now(number);
                failed += self.ask_about(*place, questions, member, read_again)?;
                self.summary.worked += 1;
                on_progress(Progress {
                    done: before + number + 1,
                    total: self.summary.pictures,
                    failed,
                });
            }
            self.store.sync()
        })?;
        self.summary.seconds = start.elapsed().as_secs_f64();
        self.summary.pictures_per_second =
            self.summary.worked as f64 / self.summary.seconds.max(f64::MIN_POSITIVE);
        Ok(())
    }

    /// Takes the next pictures of `todo`, from number `first`, and runs the vision networks on those that will be opened.
    /// If that fails, each is tried alone when its turn comes, so that the fault is recorded with its picture.
    fn next_group(&mut self, ahead: &Ahead, todo: &[Todo], first: usize) -> VecDeque<Member> {
        let numbers = first..todo.len().min(first + self.together);
        let taken = numbers.map(|number| Member::from(ahead.take(number)));
        let mut group: Vec<Member> = taken.collect();
        let is_known = |at: usize, sha256: &[u8; 32]| self.has_answers(&todo[first + at].1, sha256);
        let places = together::to_encode(&group, is_known);
        let encode =
            |inputs: &[Input<'_>]| self.session.encode_together(inputs, self.job.granularity);
        if let Err(fault) = together::encode(&mut group, &places, encode)
            && fault.code == ErrorCode::OutOfMemory
        {
            self.together = (self.together / 2).max(1);
            self.summary.together = self.together;
        }
        group.into()
    }

    /// Whether the results of all `questions` about a picture can be copied from those of an equal one.
    fn has_answers(&self, questions: &[usize], sha256: &[u8; 32]) -> bool {
        let mut digests = (questions.iter()).map(|&q| self.job.questions.all[q].digest(sha256));
        digests.all(|digest| self.store.known(&digest).is_some())
    }

    /// Asks `questions` about a picture; returns how many failed. `read_again` reads it even if its file was read
    /// before.
    fn ask_about(
        &mut self,
        place: usize,
        questions: &[usize],
        member: Member,
        read_again: impl FnOnce() -> Loaded,
    ) -> Result<usize, Fault> {
        let mut read_again = Some(read_again);
        let Member { loaded, encoded } = member;
        let mut loaded = Some(loaded);
        let mut encoded = Some(encoded);
        let mut about = About::default();
        // The engine's copy of the picture, once it is opened, or why it cannot be.
        let mut opened: Option<Result<Open, Fault>> = None;
        let mut failures = 0;
        for &question in questions {
            let key = (place, question);
            let sha256 = loaded.as_ref().map_or(about.sha256, |loaded| loaded.sha256);
            let digest = sha256.map(|sha| self.job.questions.all[question].digest(&sha));
            if let Some(known) = digest.and_then(|digest| self.store.known(&digest)) {
                self.copy(known, key)?;
                continue;
            }
            if opened.is_none() {
                let mut now = loaded.take().expect("it is taken with the first question");
                if let (Ok(None), Some(read_again)) = (&now.content, read_again.take()) {
                    now = read_again();
                }
                let encoded = encoded.take().unwrap_or_default();
                opened = Some(self.open(now, encoded, &mut about)?);
            }
            let digest = about
                .sha256
                .map(|sha| self.job.questions.all[question].digest(&sha));
            let start = Instant::now();
            let record = match opened.as_mut().expect("opened above") {
                Ok(open) => self.answer(key, &about, open)?,
                Err(fault) => self.failure(key, &about, fault.clone()),
            };
            let [look, towers] = match &mut opened {
                Some(Ok(open)) => [open.milliseconds, std::mem::take(&mut open.towers)],
                _ => [0.0; 2],
            };
            if let (Some(folder), Some(Ok(open)), None) =
                (&self.job.annotate, &opened, &record.error)
            {
                self.draw(folder, key, open, &record)?;
            }
            failures += usize::from(record.error.is_some());
            self.summary.done += usize::from(record.error.is_none());
            self.store.append(key, &record, digest)?;
            self.store.append_time(&json!({
                "id": record.id,
                "milliseconds": {
                    "decode": rounded(about.milliseconds[0]),
                    "prepare": rounded(about.milliseconds[1]),
                    "look": rounded(look),
                    "answer": rounded(towers + start.elapsed().as_secs_f64() * 1e3),
                },
            }));
        }
        Ok(failures)
    }

    /// Gives a picture to the engine, with what the vision networks made of it. The inner fault is that of the picture.
    fn open(
        &mut self,
        loaded: Loaded,
        encoded: Encoded,
        about: &mut About,
    ) -> Result<Result<Open, Fault>, Fault> {
        about.sha256 = loaded.sha256;
        about.milliseconds = loaded.milliseconds;
        let content = match loaded.content {
            Ok(content) => content.expect("it was read again if it was left out"),
            Err(fault) => return Ok(Err(fault)),
        };
        let Content { pixels, prepared } = content;
        about.size = Some([pixels.width, pixels.height]);
        let kept = self.job.annotate.is_some().then(|| pixels.clone());
        let towers = encoded.towers_milliseconds();
        self.session.engine().prepare_next(prepared, encoded);
        match self.session.open_picture(pixels, self.job.granularity) {
            Ok((proposals, time)) => {
                self.device_failures = 0;
                Ok(Ok(Open {
                    proposals: self.chosen(&proposals),
                    pixels: kept,
                    milliseconds: time.total(),
                    towers,
                }))
            }
            Err(fault) => self.check_device(fault).map(Err),
        }
    }

    /// The proposals that are used, best first.
    fn chosen(&self, proposals: &[Proposal]) -> Vec<Proposal> {
        let limit = match self.job.questions.has_questions() {
            true => MAX_BOXES,
            false => usize::MAX,
        };
        let kept = self.job.selection.choose(proposals, limit).kept.into_iter();
        kept.map(|index| proposals[index].clone()).collect()
    }

    /// A fault that is only about this picture or question; those after which no other can succeed end the batch.
    fn check_device(&mut self, fault: Fault) -> Result<Fault, Fault> {
        let is_final = fault.kind == FaultKind::Model
            || matches!(
                fault.code,
                ErrorCode::DeviceLost
                    | ErrorCode::NoAdapter
                    | ErrorCode::ShaderRejected
                    | ErrorCode::NotReady
            );
        self.device_failures += usize::from(fault.kind == FaultKind::Device);
        match is_final || self.device_failures > MAX_DEVICE_FAILURES {
            true => Err(fault),
            false => Ok(fault),
        }
    }

    /// The result of a question about the open picture.
    fn answer(&mut self, key: Key, about: &About, open: &Open) -> Result<Record, Fault> {
        let asked = &self.job.questions.all[key.1];
        let mut record = self.record(key, about);
        let proposals = &open.proposals;
        match &asked.boxes {
            Some(boxes) => {
                record.boxes.clone_from(boxes);
                record.scores = vec![None; boxes.len()];
            }
            None => {
                record.boxes = proposals.iter().map(|p| p.bbox).collect();
                record.scores = proposals.iter().map(|p| Some(p.score)).collect();
            }
        }
        let kinds = match &asked.boxes {
            Some(boxes) => vec![None; boxes.len()],
            None => proposals.iter().map(|p| p.label.clone()).collect(),
        };
        let answered = match asked.kind {
            Kind::Propose => {
                record.labels = kinds;
                Ok(())
            }
            Kind::RegionCaption => self.describe_boxes(asked, &mut record),
            _ => self.ask(asked, &kinds, &mut record),
        };
        match answered {
            Ok(()) => {
                self.device_failures = 0;
                Ok(record)
            }
            Err(fault) => {
                let fault = self.check_device(fault)?;
                Ok(self.failure(key, about, fault))
            }
        }
    }

    /// Asks one question; `kinds` are those that the detector names.
    fn ask(
        &mut self,
        asked: &Asked,
        kinds: &[Option<String>],
        record: &mut Record,
    ) -> Result<(), Fault> {
        let answer = self.session.answer(self.question(&asked.text, record))?;
        record.tokens = Some(answer.tokens);
        record.stop = Some(answer.stop);
        if asked.kind == Kind::Caption {
            let text: String = answer.spans.iter().map(|span| span.text.as_str()).collect();
            record.labels = vec![None; record.boxes.len()];
            record.spans = vec![Span {
                text: text.clone(),
                ..Span::default()
            }];
            record.text = Some(text);
        } else {
            record.labels = record::labels(&answer.spans, kinds);
            record.spans = answer.spans;
            record.text = Some(answer.text);
        }
        Ok(())
    }

    /// Asks about every box; the answers become one in the form of a detection.
    fn describe_boxes(&mut self, asked: &Asked, record: &mut Record) -> Result<(), Fault> {
        let mut text = String::new();
        let (mut tokens, mut stop) = (0, StopReason::End);
        for index in 0..record.boxes.len() as u32 {
            let words = asked.text.replace("[OBJ]", &index_tag(index));
            let answer = self.session.answer(self.question(&words, record))?;
            tokens += answer.tokens;
            if answer.stop != StopReason::End {
                stop = answer.stop;
            }
            let phrase: String = answer.spans.iter().map(|span| span.text.as_str()).collect();
            let phrase = phrase.trim().to_owned();
            if index > 0 {
                text.push('\n');
                record.spans.push(Span {
                    text: "\n".into(),
                    ..Span::default()
                });
            }
            text.push_str(&format!(
                "<ground>{phrase}</ground><objects>{}</objects>",
                index_tag(index)
            ));
            record
                .labels
                .push((!phrase.is_empty()).then(|| phrase.clone()));
            record.spans.push(Span {
                text: phrase,
                objects: vec![index],
                ..Span::default()
            });
        }
        record.text = Some(text);
        record.tokens = Some(tokens);
        record.stop = Some(stop);
        Ok(())
    }

    fn question(&self, words: &str, record: &Record) -> Question {
        Question {
            boxes: record.boxes.clone(),
            text: words.to_owned(),
            max_tokens: self.job.max_tokens,
            sampling: self.job.sampling,
            earlier: Vec::new(),
            system: None,
        }
    }

    /// A result without an answer.
    fn record(&self, (place, question): Key, about: &About) -> Record {
        let picture = &self.job.pictures.all[place];
        let asked = &self.job.questions.all[question];
        Record {
            id: asked.id(&picture.name),
            image: picture.name.clone(),
            sha256: about.sha256.map(|sha| hex(&sha)),
            width: about.size.map(|[width, _]| width),
            height: about.size.map(|[_, height]| height),
            task: asked.kind.key().into(),
            question: asked.text.clone(),
            ..Record::default()
        }
    }

    fn failure(&self, key: Key, about: &About, fault: Fault) -> Record {
        Record {
            error: Some(fault.into()),
            ..self.record(key, about)
        }
    }

    /// Writes the result of an equal question about an equal picture under another name.
    fn copy(&mut self, known: Key, key: Key) -> Result<(), Fault> {
        let picture = &self.job.pictures.all[key.0];
        let asked = &self.job.questions.all[key.1];
        let record = Record {
            id: asked.id(&picture.name),
            image: picture.name.clone(),
            ..self.store.record(known)?
        };
        if let Some(folder) = &self.job.annotate {
            let (from, to) = (self.drawing(folder, known), self.drawing(folder, key));
            fs::copy(&from, &to).map_err(|error| Fault::file(&to, error))?;
        }
        self.summary.copied += 1;
        self.store.append(key, &record, None)
    }

    /// The name of a picture with the boxes of a result.
    fn drawing(&self, folder: &Path, (place, question): Key) -> PathBuf {
        let stem = marked::stem(&self.job.pictures.all[place].name);
        let line = self.job.questions.all[question].line;
        let line = line.map(|line| format!("-{line}")).unwrap_or_default();
        folder.join(format!("{:06}-{stem}{line}.png", place + 1))
    }

    /// Draws the boxes of a result. The file is complete before the result is written.
    fn draw(&self, folder: &Path, key: Key, open: &Open, record: &Record) -> Result<(), Fault> {
        let (Some(pixels), Some(sheet)) = (&open.pixels, record.sheet()) else {
            return Ok(());
        };
        let path = self.drawing(folder, key);
        let unfinished = path.with_extension("unfinished.png");
        let boxes: Vec<_> = sheet.boxes.iter().map(|b| b.bbox).collect();
        let labels: Vec<_> = sheet.boxes.iter().map(|b| b.label.as_deref()).collect();
        annotate::write(pixels, &boxes, &labels, &unfinished)?;
        fs::rename(&unfinished, &path).map_err(|error| Fault::file(&path, error))
    }
}

/// Ends the threads of [`Ahead`], also after a fault.
struct CloseAtEnd<'a, 'b>(&'a Ahead<'b>);

impl Drop for CloseAtEnd<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 100.0).round() / 100.0
}
