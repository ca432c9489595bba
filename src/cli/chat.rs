//! `chatrex chat`: questions about an image, or to a model that reads text alone.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::names::finite;
use super::propose::{DetectedImage, ImageArgs};
use crate::closer_look::Cells;
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::geometry::{self, BoxXyxy};
use crate::image::{Pixels, annotate};
use crate::protocol::{AskTime, Client as _, Question, StopReason};
use crate::session::Session;
use crate::text::answer_parser::Span;
use crate::text::prompt::MAX_BOXES;

/// Arguments of `chatrex chat`.
#[derive(clap::Args)]
pub struct Options {
    /// Image file: JPEG, PNG or WebP. Models that read text alone need none.
    #[arg(long)]
    image: Option<PathBuf>,
    #[command(flatten)]
    args: ImageArgs,
    /// A question; repeat the option to ask several.
    #[arg(long, required = true)]
    ask: Vec<String>,
    /// After an answer that names boxes, ask the same question about the part of the image around them.
    #[arg(long, requires = "image")]
    closer_look: bool,
    /// JSON file with boxes to use instead of the proposals: `[[x1,y1,x2,y2],…]` in pixels of the image.
    #[arg(long)]
    boxes: Option<PathBuf>,
    #[command(flatten)]
    answers: AnswerArgs,
}

/// How a question is answered.
#[derive(clap::Args)]
pub struct AnswerArgs {
    /// Maximum number of tokens per answer.
    #[arg(long, default_value_t = 512)]
    pub max_tokens: u32,
    /// Softmax temperature; 0 selects greedy decoding.
    #[arg(long, default_value_t = Sampling::default().temperature, value_parser = finite::<f32>)]
    temperature: f32,
    /// Sample from the k most likely tokens (1 to 64).
    #[arg(long, default_value_t = Sampling::default().top_k)]
    top_k: u32,
    /// Nucleus sampling threshold.
    #[arg(long, default_value_t = Sampling::default().top_p, value_parser = finite::<f32>)]
    top_p: f32,
    /// Seed of the sampler.
    #[arg(long, default_value_t = Sampling::default().seed)]
    seed: u32,
    /// Disable constrained decoding, as in the original: answers may then refer to boxes that do not
    /// exist.
    #[arg(long)]
    no_grammar: bool,
}

impl AnswerArgs {
    /// The sampling parameters.
    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            repetition_penalty: Sampling::default().repetition_penalty,
            grammar: !self.no_grammar,
        }
    }
}

#[derive(Serialize)]
struct Report {
    boxes: Vec<BoxXyxy>,
    turns: Vec<TurnReport>,
}

#[derive(Serialize)]
struct TurnReport {
    question: String,
    prompt: String,
    text: String,
    spans: Vec<Span>,
    tokens: u32,
    stop: StopReason,
    milliseconds: AskTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    closer_look: Option<CloserLook>,
}

/// The answer to the same question about a part of the image.
#[derive(Serialize)]
struct CloserLook {
    /// First and last column and row of cells of the grid: `[x0, y0, x1, y1]`.
    cells: [u32; 4],
    /// The part of the image in pixels.
    crop: [u32; 4],
    /// The boxes of the part in pixels of the image.
    boxes: Vec<BoxXyxy>,
    text: String,
    spans: Vec<Span>,
    tokens: u32,
    stop: StopReason,
    milliseconds: AskTime,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let given_boxes = options.boxes.as_deref().map(read_boxes).transpose()?;
    let args = &options.args;
    args.check()?;
    let (mut session, pixels, proposals) = match &options.image {
        Some(image) => {
            let DetectedImage {
                session,
                pixels,
                boxes,
                ..
            } = args.look(image)?;
            (session, Some(pixels), boxes)
        }
        None => (open_without_image(args)?, None, Vec::new()),
    };
    let labels: Vec<Option<&str>> = match given_boxes {
        Some(_) => Vec::new(),
        None => proposals.iter().map(|p| p.label.as_deref()).collect(),
    };
    let mut boxes = given_boxes.unwrap_or_else(|| proposals.iter().map(|p| p.bbox).collect());
    if boxes.len() > MAX_BOXES {
        eprintln!(
            "{} boxes; the best {MAX_BOXES} are used, {} are dropped",
            boxes.len(),
            boxes.len() - MAX_BOXES
        );
        boxes.truncate(MAX_BOXES);
    }
    let mut turns = Vec::new();
    for question in &options.ask {
        let answer = session.answer(options.question(question, &boxes))?;
        if !args.json {
            let text: String = answer.spans.iter().map(describe).collect();
            println!("{text}");
        }
        turns.push(TurnReport {
            question: question.clone(),
            prompt: answer.prompt,
            text: answer.text,
            spans: answer.spans,
            tokens: answer.tokens,
            stop: answer.stop,
            milliseconds: answer.milliseconds,
            closer_look: None,
        });
    }
    if let (true, Some(pixels)) = (options.closer_look, &pixels) {
        for turn in &mut turns {
            turn.closer_look = options.look_closer(&mut session, pixels, &boxes, turn)?;
        }
    }
    if args.json {
        let report = Report {
            boxes: boxes.clone(),
            turns,
        };
        println!("{}", super::json(&report));
    }
    if let (Some(path), Some(pixels)) = (&args.annotate, &pixels) {
        annotate::write(pixels, &boxes, &labels, path)?;
    }
    Ok(true)
}

impl Options {
    fn question(&self, text: &str, boxes: &[BoxXyxy]) -> Question {
        Question {
            boxes: boxes.to_vec(),
            text: text.into(),
            max_tokens: self.answers.max_tokens,
            sampling: self.answers.sampling(),
            earlier: Vec::new(),
            system: None,
        }
    }

    /// Asks the question of `turn` about the part of the image around the boxes that its answer names. `None` if it
    /// names none inside the image, or the part is the whole image.
    fn look_closer(
        &self,
        session: &mut Session,
        pixels: &Pixels,
        boxes: &[BoxXyxy],
        turn: &TurnReport,
    ) -> Result<Option<CloserLook>, Fault> {
        let size = [pixels.width, pixels.height];
        let named = turn.spans.iter().flat_map(|span| &span.objects);
        let named: Vec<BoxXyxy> = named
            .filter_map(|&index| boxes.get(index as usize).copied())
            .collect();
        let Some(cells) = Cells::of_boxes(&named, size).map(Cells::grown) else {
            return Ok(None);
        };
        let crop = cells.crop(size);
        let [left, top, right, bottom] = crop;
        if crop == [0, 0, size[0], size[1]] || left == right || top == bottom {
            return Ok(None);
        }
        let (found, _) = self.args.boxes_of(session, pixels.crop(crop)?)?;
        let found: Vec<BoxXyxy> = found
            .iter()
            .take(MAX_BOXES)
            .map(|found| found.bbox)
            .collect();
        let answer = session.answer(self.question(&turn.question, &found))?;
        if !self.args.json {
            let text: String = answer.spans.iter().map(describe).collect();
            println!("closer look at {crop:?}: {text}");
        }
        let moved = found.iter().map(|bbox| BoxXyxy {
            x1: bbox.x1 + left as f32,
            y1: bbox.y1 + top as f32,
            x2: bbox.x2 + left as f32,
            y2: bbox.y2 + top as f32,
        });
        Ok(Some(CloserLook {
            cells: [cells.x0, cells.y0, cells.x1, cells.y1],
            crop,
            boxes: moved.collect(),
            text: answer.text,
            spans: answer.spans,
            tokens: answer.tokens,
            stop: answer.stop,
            milliseconds: answer.milliseconds,
        }))
    }
}

/// Opens a model that answers without an image.
fn open_without_image(args: &ImageArgs) -> Result<Session, Fault> {
    let session = args.model.open()?;
    if session.card().text_only {
        return Ok(session);
    }
    Err(Fault::new(
        FaultKind::Picture,
        "--image",
        format!(
            "is missing; {} answers questions about an image",
            session.card().name
        ),
        "Name an image, or use a model that reads text alone",
    )
    .code(ErrorCode::InvalidInput))
}

fn describe(span: &Span) -> String {
    if span.objects.is_empty() {
        span.text.clone()
    } else {
        format!("{} {:?}", span.text, span.objects)
    }
}

fn read_boxes(path: &Path) -> Result<Vec<BoxXyxy>, Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::file(path, error))?;
    let fault = |what| {
        let advice = "Write [[x1,y1,x2,y2],…] in pixels of the image";
        Fault::new(FaultKind::File, path.display().to_string(), what, advice)
            .code(ErrorCode::InvalidInput)
    };
    let boxes: Vec<BoxXyxy> = serde_json::from_slice(&bytes)
        .map_err(|error| fault(format!("is not a list of boxes ({error})")))?;
    match geometry::first_far_box(&boxes) {
        Some(index) => Err(fault(format!("box {index} {}", geometry::TOO_FAR))),
        None => Ok(boxes),
    }
}
