//! `chatrex batch`: one task or a file of questions about many pictures.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::chat::AnswerArgs;
use super::propose::ModelArgs;
use crate::batch::ahead::Limits;
use crate::batch::inputs::Pictures;
use crate::batch::questions::Questions;
use crate::batch::shard::Shard;
use crate::batch::store::Existing;
use crate::batch::tables::Format;
use crate::batch::{self, Job, Progress, Summary};
use crate::engine::together::MOST_TOGETHER;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::progress::Stage;
use crate::session;

/// Time between two lines of progress where standard error is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// Arguments of `chatrex batch`.
#[derive(clap::Args)]
pub struct Options {
    /// Folder of pictures (searched with its subfolders), glob pattern, text file with a path per line, or COCO
    /// file.
    #[arg(long, required_unless_present = "questions")]
    images: Option<String>,
    /// Folder that relative paths of a list, a COCO file or a file of questions belong to [default: the folder
    /// of that file].
    #[arg(long)]
    root: Option<PathBuf>,
    /// detect:dog,cat, count:dogs, caption, grounded-caption, region-caption or propose.
    #[arg(long, required_unless_present = "questions")]
    task: Option<String>,
    /// Questions, one JSON object per line: `{"image": NAME, "question": TEXT, "boxes": [[x1,y1,x2,y2],…]}`; a line
    /// without image is about every picture, one without boxes about the proposals.
    #[arg(long, conflicts_with = "task")]
    questions: Option<PathBuf>,
    /// Folder of the results.
    #[arg(long)]
    out: PathBuf,
    /// Files to write; `results.jsonl` is always written.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "jsonl")]
    formats: Vec<Format>,
    /// Folder for copies of the pictures with their boxes drawn.
    #[arg(long)]
    annotate: Option<PathBuf>,
    /// Do part I of N of the pictures, as one of N processes.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Pictures to read and preprocess ahead of the engine; 0 reads each when its turn comes.
    #[arg(long, default_value_t = 8)]
    ahead: usize,
    /// Megabytes that pictures read ahead may take, beside those that run together.
    #[arg(long, value_name = "MB", default_value_t = 512)]
    ahead_memory: u64,
    /// Pictures whose vision networks run together, on a GPU in one batch; at most 32, fewer if memory is short [default:
    /// 8 on a GPU and where parts of the model are loaded on demand, else 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MOST_TOGETHER as i64))]
    together: Option<u8>,
    /// Delete the results in the folder and begin again.
    #[arg(long)]
    restart: bool,
    /// Try pictures again that failed in an earlier run.
    #[arg(long)]
    retry_failed: bool,
    /// Print a summary as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    answers: AnswerArgs,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let (pictures, questions) = inputs(options)?;
    options.answers.sampling().check()?;
    if pictures.repeated > 0 {
        say(&format!(
            "{} names are listed more than once",
            pictures.repeated
        ));
    }
    // Every picture has stages of its own; the meter counts pictures.
    let mut session = options.model.open_with(|progress| {
        if !matches!(progress.stage, Stage::Propose | Stage::Look | Stage::Read) {
            session::report(progress);
        }
    })?;
    let job = Job {
        pictures,
        questions,
        out: options.out.clone(),
        shard: options.shard,
        load: options.model.load_options(),
        granularity: options.model.granularity(),
        selection: options.model.selection(session.card()),
        max_tokens: options.answers.max_tokens,
        sampling: options.answers.sampling(),
        annotate: options.annotate.clone(),
        formats: options.formats.clone(),
        ahead: Limits {
            pictures: options.ahead,
            bytes: options.ahead_memory.saturating_mul(1_000_000),
        },
        together: options.together.map(usize::from),
        existing: Existing {
            restart: options.restart,
            retry_failed: options.retry_failed,
        },
    };
    let mut meter = Meter::new();
    let outcome = batch::run(&mut session, &job, &mut |progress| meter.show(progress));
    meter.end();
    let summary = outcome?;
    print(&summary, options.json)?;
    Ok(summary.failed == 0)
}

/// The pictures, and what is asked about them.
fn inputs(options: &Options) -> Result<(Pictures, Questions), Fault> {
    let root = options.root.as_deref();
    if let Some(root) = root.filter(|root| !root.is_dir()) {
        let fault = Fault::file(root, "is no folder").code(ErrorCode::NotFound);
        return Err(fault);
    }
    let skip: Vec<&Path> = [Some(&options.out), options.annotate.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    let images = options.images.as_deref();
    let pictures = images
        .map(|images| Pictures::list(images, root, &skip))
        .transpose()?;
    match (&options.task, &options.questions, pictures) {
        (Some(task), _, Some(pictures)) => Ok((pictures, Questions::of_task(task)?)),
        (_, Some(file), pictures) => {
            let (questions, pictures) = Questions::of_file(file, pictures, root)?;
            Ok((pictures, questions))
        }
        _ => {
            let what = "is missing";
            let advice = "Name the pictures, and a task or a file of questions";
            Err(Fault::new(FaultKind::Question, "--images", what, advice)
                .code(ErrorCode::InvalidInput))
        }
    }
}

/// Prints the summary.
fn print(summary: &Summary, as_json: bool) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    let written = if as_json {
        writeln!(out, "{}", super::json(summary))
    } else {
        let Summary {
            pictures,
            done,
            copied,
            skipped,
            failed,
            seconds,
            pictures_per_second,
            ..
        } = summary;
        writeln!(
            out,
            "{pictures} pictures: {done} results computed, {copied} copied, {skipped} from before, {failed} failed; \
             {seconds:.1} s, {pictures_per_second:.2} pictures per second"
        )
        .and_then(|()| summary.files.iter().try_for_each(|file| writeln!(out, "{file}")))
    };
    written
        .and_then(|()| out.flush())
        .map_err(|error| Fault::file("standard output", error))
}

/// A line on standard error, which may be closed.
fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Progress on standard error: a bar on a terminal, else lines.
struct Meter {
    start: Instant,
    bar: Option<ProgressBar>,
    said: Option<Instant>,
    /// Pictures done by earlier runs; known with the first progress.
    before: Option<usize>,
}

impl Meter {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = "{bar:30} {pos}/{len} pictures, {per_sec}, {eta} left {msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::no_length().with_style(style)
        });
        Self {
            start: Instant::now(),
            bar,
            said: None,
            before: None,
        }
    }

    fn show(
        &mut self,
        Progress {
            done,
            total,
            failed,
        }: Progress,
    ) {
        let before = *self.before.get_or_insert(done.saturating_sub(1));
        let failures = match failed {
            0 => String::new(),
            count => format!("({count} failed)"),
        };
        if let Some(bar) = &self.bar {
            if bar.length().is_none() {
                bar.set_length(total as u64);
                bar.set_position(before as u64);
                bar.reset_eta();
            }
            bar.set_position(done as u64);
            bar.set_message(failures);
            return;
        }
        let is_due = self.said.is_none_or(|said| said.elapsed() >= LINE);
        if !is_due && done < total {
            return;
        }
        self.said = Some(Instant::now());
        let rate = (done - before) as f64 / self.start.elapsed().as_secs_f64().max(1e-9);
        let left = (total - done) as f64 / rate;
        say(&format!(
            "{done}/{total} pictures, {rate:.2} per second, {left:.0} s left {failures}"
        ));
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
