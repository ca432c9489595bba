//! The engine as the terminal uses it: requests in, collected events out.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use crate::engine::bench::report::{Report, Row};
use crate::engine::bench::{Around, Plan};
use crate::engine::examine::Examined;
use crate::engine::{Engine, Host};
use crate::fault::{Fault, FaultKind};
use crate::geometry::{BoxXyxy, Proposal};
use crate::image::Pixels;
use crate::progress::{Progress, Stage};
use crate::protocol::{
    Answer, DevicePreference, Event, Granularity, LookTime, ModelCard, PictureId, Request, TurnId,
};
use crate::weights::ByteSource;
use crate::weights::source::{Embedded, Folder, Hold, LocalFuture, ModelFiles, Pace, Straight};

/// The name `--model` starts with: the model compiled into the program.
pub const NANO: &str = "nano";

const NANO_FILES: Embedded = Embedded {
    name: NANO,
    files: &[
        (
            "model.json",
            include_bytes!("../../web/models/nano/model.json"),
        ),
        (
            "tokenizer.json",
            include_bytes!("../../web/models/nano/tokenizer.json"),
        ),
        (
            "upn.safetensors",
            include_bytes!("../../web/models/nano/upn.safetensors"),
        ),
        (
            "towers.safetensors",
            include_bytes!("../../web/models/nano/towers.safetensors"),
        ),
        (
            "decoder.safetensors",
            include_bytes!("../../web/models/nano/decoder.safetensors"),
        ),
    ],
};

/// One engine, one model, pictures one after another.
pub struct Session {
    engine: Engine<Terminal>,
    card: Option<ModelCard>,
    pictures: u32,
    turns: u32,
}

struct Terminal {
    events: RefCell<Vec<Event>>,
    start: Instant,
    said: Option<fn(&Event)>,
}

impl Terminal {
    fn engine(said: Option<fn(&Event)>) -> Engine<Self> {
        Engine::new(Self {
            events: RefCell::default(),
            start: Instant::now(),
            said,
        })
    }
}

impl Host for Terminal {
    fn emit(&self, event: Event) {
        match (&event, self.said) {
            (Event::Progress(_) | Event::Said { .. }, Some(said)) => said(&event),
            (Event::Progress(_) | Event::Said { .. }, None) => {}
            _ => self.events.borrow_mut().push(event),
        }
    }

    fn milliseconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64() * 1e3
    }

    fn stopped(&self, _turn: TurnId) -> bool {
        false
    }

    fn files<'a>(&'a self, model: &'a str) -> LocalFuture<'a, Result<ModelFiles, Fault>> {
        let source: Result<Box<dyn ByteSource>, Fault> = if model == NANO {
            Ok(Box::new(NANO_FILES))
        } else if Path::new(model).is_dir() {
            Ok(Box::new(Folder(model.into())))
        } else {
            Err(Fault::new(
                FaultKind::Model,
                model,
                "is no folder",
                "Name a folder with model.json, or leave --model out for nano",
            ))
        };
        let files = source.map(|source| ModelFiles {
            source,
            store: None,
        });
        Box::pin(std::future::ready(files))
    }
}

impl Pace for Terminal {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        Straight.sleep(milliseconds)
    }

    fn breathe(&self) -> LocalFuture<'_, ()> {
        Straight.breathe()
    }

    fn hold(&self) -> Hold {
        Straight.hold()
    }
}

impl Session {
    /// Loads `model` (a folder, or [`NANO`]) on `device`. It must not exceed `memory` bytes of
    /// graphics memory where there is a limit. Progress and words as they come go to `said`.
    ///
    /// # Errors
    /// The model cannot be loaded or the device not be opened.
    pub fn open(
        model: &str,
        device: DevicePreference,
        memory: Option<u64>,
        said: Option<fn(&Event)>,
    ) -> Result<Self, Fault> {
        let mut engine = Terminal::engine(said);
        let request = Request::Load {
            model: model.into(),
            device,
            memory,
        };
        let card = exchange(&mut engine, request, |event| match event {
            Event::Ready(card) => Some(card),
            _ => None,
        })?;
        Ok(Self {
            engine,
            card: Some(card),
            pictures: 0,
            turns: 0,
        })
    }

    /// A session without a model, for [`Session::bench`] on a made-up one.
    pub(super) fn empty() -> Self {
        Self {
            engine: Terminal::engine(None),
            card: None,
            pictures: 0,
            turns: 0,
        }
    }

    /// The loaded model.
    ///
    /// # Panics
    /// None is loaded.
    pub fn card(&self) -> &ModelCard {
        self.card.as_ref().expect("a session opens with a model")
    }

    /// Measures the loaded model or a made-up one; rows go to `tell` as they come.
    ///
    /// # Errors
    /// The plan asks for what there is not, or the device fails.
    pub(super) fn bench(
        &mut self,
        plan: &Plan,
        device: DevicePreference,
        tell: &dyn Fn(&Row),
    ) -> Result<Report, Fault> {
        let around = Around::default();
        pollster::block_on(self.engine.bench(plan, device, around, tell))
    }

    /// Opens a picture and finds its boxes: all of them, best first.
    ///
    /// # Errors
    /// The picture or the device fails.
    pub fn look(
        &mut self,
        pixels: Pixels,
        granularity: Granularity,
    ) -> Result<(Vec<Proposal>, LookTime), Fault> {
        self.pictures += 1;
        let request = Request::Look {
            picture: PictureId(self.pictures),
            pixels: Some(pixels),
            granularity,
        };
        exchange(&mut self.engine, request, |event| match event {
            Event::Proposed {
                boxes,
                milliseconds,
                ..
            } => Some((boxes, milliseconds)),
            _ => None,
        })
    }

    /// Carries a made-up picture through every stage.
    ///
    /// # Errors
    /// The device fails.
    pub fn examine(
        &mut self,
        pixels: &Pixels,
        selection: Option<Vec<usize>>,
    ) -> Result<Examined, Fault> {
        pollster::block_on(self.engine.examine(pixels, selection))
    }

    /// Asks about the picture opened last.
    ///
    /// # Errors
    /// The question cannot be asked, or the device fails.
    pub fn ask(
        &mut self,
        boxes: &[BoxXyxy],
        question: &str,
        max_tokens: u32,
    ) -> Result<Answer, Fault> {
        self.turns += 1;
        let request = Request::Ask {
            turn: TurnId(self.turns),
            picture: PictureId(self.pictures),
            boxes: boxes.to_vec(),
            question: question.into(),
            max_tokens,
        };
        exchange(&mut self.engine, request, |event| match event {
            Event::Done { answer, .. } => Some(answer),
            _ => None,
        })
    }
}

fn exchange<T>(
    engine: &mut Engine<Terminal>,
    request: Request,
    wanted: impl Fn(Event) -> Option<T>,
) -> Result<T, Fault> {
    pollster::block_on(engine.handle(request));
    let events = engine.host().events.take();
    let mut found = None;
    for event in events {
        if let Event::Failed { fault, .. } = event {
            return Err(fault);
        }
        found = found.or_else(|| wanted(event));
    }
    Ok(found.expect("the engine answers every request with its event or a fault"))
}

/// Prints progress to standard error.
pub(super) fn report(event: &Event) {
    if let Event::Progress(Progress { stage, done, total }) = event
        && done == total
    {
        let words = match stage {
            Stage::Fetch => "weights read",
            Stage::Upload => "weights on the device",
            Stage::Compile => "pipelines compiled",
            Stage::Propose => "boxes found",
            Stage::Look => "picture encoded",
            Stage::Read => "question read",
        };
        eprintln!("{words}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Residency;
    use crate::image::decode;
    use crate::weights::format::{MANIFEST, Manifest};

    /// Opens the sample picture, asks, and gives the answer's text with what stayed on the device.
    fn answered(
        device: DevicePreference,
        memory: Option<u64>,
    ) -> Result<(String, ModelCard), Fault> {
        let mut session = Session::open(NANO, device, memory, None)?;
        let pixels = decode::open(Path::new("web/samples/scene.png"))?;
        let (found, _) = session.look(pixels, Granularity::Coarse)?;
        let boxes: Vec<BoxXyxy> = found.iter().take(8).map(|found| found.bbox).collect();
        let mut texts = String::new();
        for question in ["What is <obj0>?", "How many cats are there?"] {
            texts.push_str(&session.ask(&boxes, question, 24)?.text);
        }
        Ok((texts, session.card().clone()))
    }

    #[test]
    fn parts_that_come_and_go_answer_as_parts_that_stay() {
        let Ok((all, card)) = answered(DevicePreference::Wgpu, None) else {
            println!(
                "parts_that_come_and_go_answer_as_parts_that_stay skipped: no graphics device"
            );
            return;
        };
        assert_eq!(card.fit.residency, Residency::All);
        let enough = card.fit.needs.peak(Residency::Decoder);
        let (one_by_one, card) =
            answered(DevicePreference::Wgpu, Some(enough)).expect("there is a device");
        assert_ne!(card.fit.residency, Residency::All);
        assert_eq!(one_by_one, all);
        let least = card.fit.needs.peak(Residency::OneByOne);
        let fault = answered(DevicePreference::Wgpu, Some(least - 1)).expect_err("too little");
        assert!(fault.what.contains("will not run"), "{fault}");
    }

    /// A further question reads its own words only, and every device answers alike: with tokens
    /// chosen on the graphics device, with many words, and with none.
    #[test]
    fn a_further_question_reads_its_own_words_only() {
        const QUESTIONS: [&str; 4] = [
            "How many cats are there?",
            "What is <obj0>?",
            "Please detect cat and penguin in this image. Answer the question with grounded answer.",
            "?",
        ];
        let run = |device| {
            let mut session = Session::open(NANO, device, None, None)?;
            let pixels = decode::open(Path::new("web/samples/scene.png"))?;
            let (found, _) = session.look(pixels, Granularity::Coarse)?;
            let boxes: Vec<BoxXyxy> = found.iter().map(|found| found.bbox).collect();
            let empty = session.ask(&boxes, "", 48).expect_err("nothing is asked");
            assert!(empty.what.contains("nothing is asked"), "{empty}");
            let mut answers = Vec::new();
            for question in QUESTIONS {
                answers.push(session.ask(&boxes, question, 48)?);
            }
            let without_boxes = session.ask(&[], QUESTIONS[0], 48)?;
            Ok((answers, without_boxes.text))
        };
        let (expected, expected_without) = run(DevicePreference::Cpu).expect("a processor");
        let (answers, without) = run(DevicePreference::Wgpu).unwrap_or_else(|fault: Fault| {
            println!("on the processor only: {fault}");
            (expected.clone(), expected_without.clone())
        });
        assert_eq!(without, expected_without);
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(answer.text, expected.text);
            assert_eq!(answer.prefill_tokens, expected.prefill_tokens);
        }
        let [first, further @ ..] = &answers[..] else {
            panic!("four answers");
        };
        let words = |question: &str| question.split_whitespace().count() as u32;
        for (answer, question) in further.iter().zip(&QUESTIONS[1..]) {
            let read = answer.prefill_tokens;
            assert!(
                read < 16 + 4 * words(question) && 4 * read < first.prefill_tokens,
                "{question}: {read} tokens, {} at first",
                first.prefill_tokens
            );
        }
    }

    #[test]
    fn a_device_that_computes_wrong_is_named() {
        let folder = std::env::temp_dir().join(format!("chatrex-wrong-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a writable temporary folder");
        for (name, bytes) in NANO_FILES.files {
            let mut bytes = bytes.to_vec();
            if *name == MANIFEST {
                let mut manifest = Manifest::parse(&bytes, MANIFEST).expect("nano's manifest");
                let test = manifest.self_test.as_mut().expect("nano has a self-test");
                test.expected[3] += 2.0 * test.tolerance;
                bytes = serde_json::to_vec(&manifest).expect("plain data");
            }
            std::fs::write(folder.join(name), bytes).expect("a writable temporary folder");
        }
        let place = folder.display().to_string();
        let opened = Session::open(&place, DevicePreference::Cpu, None, None).map(|_| ());
        std::fs::remove_dir_all(&folder).expect("the folder made above");
        let fault = opened.expect_err("one value is off").to_string();
        assert!(
            fault.contains("processor: computes wrong: value 3"),
            "{fault}"
        );
    }
}
