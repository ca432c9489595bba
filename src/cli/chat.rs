//! `chatrex chat`: questions about a picture.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::propose::{Looked, Picture};
use crate::error::{Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::geometry::BoxXyxy;
use crate::image::annotate;
use crate::protocol::{AskTime, Client as _, Question, StopReason};
use crate::text::answer_parser::Span;
use crate::text::prompt::MAX_BOXES;

/// Arguments of `chatrex chat`.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    picture: Picture,
    /// A question; repeat it for further turns.
    #[arg(long, required = true)]
    ask: Vec<String>,
    /// Boxes to use instead of proposals: a JSON file `[[x1,y1,x2,y2],…]` in picture pixels.
    #[arg(long)]
    boxes: Option<PathBuf>,
    /// Cut answers after this many tokens.
    #[arg(long, default_value_t = 512)]
    max_tokens: u32,
    /// Choose words by chance: what logits are divided by before; 0 takes the likeliest.
    #[arg(long, default_value_t = Sampling::default().temperature)]
    temperature: f32,
    /// By chance among so many of the likeliest, at most 64.
    #[arg(long, default_value_t = Sampling::default().top_k)]
    top_k: u32,
    /// By chance among those of them that make up this share of probability.
    #[arg(long, default_value_t = Sampling::default().top_p)]
    top_p: f32,
    /// The same seed, the same answers.
    #[arg(long, default_value_t = Sampling::default().seed)]
    seed: u32,
    /// Let answers name boxes that there are not, as the original does.
    #[arg(long)]
    no_grammar: bool,
}

#[derive(Serialize)]
struct Report {
    boxes: Vec<BoxXyxy>,
    turns: Vec<Turn>,
}

#[derive(Serialize)]
struct Turn {
    question: String,
    prompt: String,
    text: String,
    spans: Vec<Span>,
    tokens: u32,
    stop: StopReason,
    milliseconds: AskTime,
}

pub(super) fn run(options: &Options) -> Result<bool, Fault> {
    let own_boxes = options.boxes.as_deref().map(read_boxes).transpose()?;
    let Looked {
        mut session,
        pixels,
        boxes,
        ..
    } = options.picture.look()?;
    let mut boxes = own_boxes.unwrap_or_else(|| boxes.iter().map(|p| p.bbox).collect());
    if boxes.len() > MAX_BOXES {
        eprintln!(
            "{} boxes; the best {MAX_BOXES} are used, {} are left out",
            boxes.len(),
            boxes.len() - MAX_BOXES
        );
        boxes.truncate(MAX_BOXES);
    }
    let sampling = Sampling {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        seed: options.seed,
        grammar: !options.no_grammar,
    };
    let mut turns = Vec::new();
    for question in &options.ask {
        let answer = session.ask(Question {
            boxes: boxes.clone(),
            text: question.clone(),
            max_tokens: options.max_tokens,
            sampling,
        })?;
        if !options.picture.json {
            let words: String = answer.spans.iter().map(describe).collect();
            println!("{words}");
        }
        turns.push(Turn {
            question: question.clone(),
            prompt: answer.prompt,
            text: answer.text,
            spans: answer.spans,
            tokens: answer.tokens,
            stop: answer.stop,
            milliseconds: answer.milliseconds,
        });
    }
    if let Some(path) = &options.picture.annotate {
        annotate::write(&pixels, &boxes, path)?;
    }
    if options.picture.json {
        println!("{}", super::json(&Report { boxes, turns }));
    }
    Ok(true)
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
    serde_json::from_slice(&bytes).map_err(|error| {
        Fault::new(
            FaultKind::File,
            path.display().to_string(),
            format!("holds no list of boxes ({error})"),
            "Write [[x1,y1,x2,y2],…] in pixels of the picture",
        )
    })
}
