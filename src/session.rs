//! The engine as the terminal uses it: requests in, collected events out.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use crate::diagnostics::bench::report::{Report, Row};
use crate::diagnostics::bench::{Around, Plan};
use crate::diagnostics::compare::ActivationDump;
use crate::engine::{Engine, Host};
use crate::error::{Fault, FaultKind};
use crate::image::Pixels;
use crate::progress::{Progress, Stage};
use crate::protocol::client::Counter;
use crate::protocol::{
    Client, DevicePreference, Envelope, Event, LoadOptions, ModelCard, Request, TurnId,
};
use crate::weights::ByteSource;
use crate::weights::source::{
    BlockingRuntime, Embedded, Folder, LocalFuture, ModelFiles, Runtime, TransferControl,
};

/// The name `--model` starts with: the model compiled into the program.
pub const NANO: &str = "nano";

const NANO_FILES: Embedded = Embedded {
    name: NANO,
    files: &[
        (
            "model.json",
            include_bytes!("../assets/models/nano/model.json"),
        ),
        (
            "tokenizer.json",
            include_bytes!("../assets/models/nano/tokenizer.json"),
        ),
        (
            "upn.safetensors",
            include_bytes!("../assets/models/nano/upn.safetensors"),
        ),
        (
            "towers.safetensors",
            include_bytes!("../assets/models/nano/towers.safetensors"),
        ),
        (
            "decoder.safetensors",
            include_bytes!("../assets/models/nano/decoder.safetensors"),
        ),
    ],
};

/// One engine, one model, pictures one after another.
pub struct Session {
    engine: Engine<Terminal>,
    card: Option<ModelCard>,
    counter: Counter,
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

impl Runtime for Terminal {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        BlockingRuntime.sleep(milliseconds)
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        BlockingRuntime.yield_now()
    }

    fn control(&self) -> TransferControl {
        BlockingRuntime.control()
    }
}

impl Session {
    /// Loads `model` (a folder, or [`NANO`]). Progress and words as they come go to `said`.
    ///
    /// # Errors
    /// The model cannot be loaded or the device not be opened.
    pub fn open(
        model: &str,
        options: impl Into<LoadOptions>,
        said: Option<fn(&Event)>,
    ) -> Result<Self, Fault> {
        let mut engine = Terminal::engine(said);
        let load = Request::Load {
            model: model.into(),
            options: options.into(),
        };
        let card = exchange(&mut engine, load.into(), |event| match event {
            Event::Ready(card) => Some(card),
            _ => None,
        })?;
        Ok(Self {
            engine,
            card: Some(card),
            counter: Counter::default(),
        })
    }

    /// A session without a model, for [`Session::bench`] on a made-up one.
    pub(super) fn empty() -> Self {
        Self {
            engine: Terminal::engine(None),
            card: None,
            counter: Counter::default(),
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

    /// Carries a made-up picture through every stage.
    ///
    /// # Errors
    /// The device fails.
    pub fn examine(
        &mut self,
        pixels: &Pixels,
        selection: Option<Vec<usize>>,
    ) -> Result<ActivationDump, Fault> {
        pollster::block_on(self.engine.examine(pixels, selection))
    }
}

impl Client for Session {
    fn card(&self) -> &ModelCard {
        Session::card(self)
    }

    fn counter(&mut self) -> &mut Counter {
        &mut self.counter
    }

    fn exchange(
        &mut self,
        request: Envelope<Request>,
        wanted: fn(&Event) -> bool,
    ) -> Result<Event, Fault> {
        exchange(&mut self.engine, request, |event| {
            wanted(&event).then_some(event)
        })
    }
}

fn exchange<T>(
    engine: &mut Engine<Terminal>,
    request: Envelope<Request>,
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
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::generate::sampling::Sampling;
    use crate::geometry::BoxXyxy;
    use crate::image::decode;
    use crate::memory::{KvCacheDType, Residency};
    use crate::protocol::{Granularity, Question};
    use crate::weights::dtype::DType;
    use crate::weights::manifest::{MANIFEST, Manifest, sha256_hex};

    fn question(boxes: &[BoxXyxy], text: &str, max_tokens: u32) -> Question {
        Question {
            boxes: boxes.to_vec(),
            text: text.into(),
            max_tokens,
            sampling: Sampling::default(),
        }
    }

    /// Opens the sample picture, asks, and gives the answer's text with what stayed on the device.
    fn answered(
        device: DevicePreference,
        memory: Option<u64>,
    ) -> Result<(String, ModelCard), Fault> {
        let options = LoadOptions {
            device,
            memory,
            cache: None,
        };
        let mut session = Session::open(NANO, options, None)?;
        let pixels = decode::open(Path::new("web/static/samples/scene.png"))?;
        let (found, _) = session.look(pixels, Granularity::Coarse)?;
        let boxes: Vec<BoxXyxy> = found.iter().take(8).map(|found| found.bbox).collect();
        let mut texts = String::new();
        for text in ["What is <obj0>?", "How many cats are there?"] {
            texts.push_str(&session.ask(question(&boxes, text, 24))?.text);
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
    /// chosen on the graphics device, keys and values in either form, with many words, and with none.
    #[test]
    fn a_further_question_reads_its_own_words_only() {
        const QUESTIONS: [&str; 4] = [
            "How many cats are there?",
            "What is <obj0>?",
            "Please detect cat and penguin in this image. Answer the question with grounded answer.",
            "?",
        ];
        let run = |device, cache| {
            let options = LoadOptions {
                device,
                memory: None,
                cache: Some(cache),
            };
            let mut session = Session::open(NANO, options, None)?;
            let pixels = decode::open(Path::new("web/static/samples/scene.png"))?;
            let (found, _) = session.look(pixels, Granularity::Coarse)?;
            let boxes: Vec<BoxXyxy> = found.iter().map(|found| found.bbox).collect();
            let empty = session
                .ask(question(&boxes, "", 48))
                .expect_err("nothing is asked");
            assert!(empty.what.contains("nothing is asked"), "{empty}");
            let mut answers = Vec::new();
            for text in QUESTIONS {
                answers.push(session.ask(question(&boxes, text, 48))?);
            }
            let without_boxes = session.ask(question(&[], QUESTIONS[0], 48))?;
            Ok((answers, without_boxes.text))
        };
        let (expected, expected_without) =
            run(DevicePreference::Cpu, KvCacheDType::F32).expect("a processor");
        for form in [KvCacheDType::F32, KvCacheDType::F16] {
            let (answers, without) =
                run(DevicePreference::Wgpu, form).unwrap_or_else(|fault: Fault| {
                    println!("on the processor only: {fault}");
                    (expected.clone(), expected_without.clone())
                });
            assert_eq!(without, expected_without, "{form:?}");
            for (answer, expected) in answers.iter().zip(&expected) {
                assert_eq!(answer.text, expected.text, "{form:?}");
                assert_eq!(answer.prefill_tokens, expected.prefill_tokens);
            }
        }
        let answers = expected;
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

    /// Opens nano with its manifest and its files changed.
    fn opened_changed(
        device: DevicePreference,
        change: impl Fn(&mut Manifest, &mut BTreeMap<&str, Vec<u8>>),
    ) -> Result<Session, Fault> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("chatrex-changed-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a writable temporary folder");
        let files = NANO_FILES.files.iter();
        let mut files: BTreeMap<_, _> =
            files.map(|(name, bytes)| (*name, bytes.to_vec())).collect();
        let json = files.remove(MANIFEST).expect("nano has a manifest");
        let mut manifest = Manifest::parse(&json, MANIFEST).expect("nano's manifest");
        change(&mut manifest, &mut files);
        for shard in &mut manifest.shards {
            let bytes = &files[&*shard.name];
            shard.sha256 = sha256_hex(bytes);
            let pieces = bytes.chunks(manifest.piece_bytes as usize);
            shard.pieces = pieces.map(sha256_hex).collect();
        }
        files.insert(MANIFEST, serde_json::to_vec(&manifest).expect("plain data"));
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).expect("a writable temporary folder");
        }
        let place = folder.display().to_string();
        let opened = Session::open(&place, device, None);
        std::fs::remove_dir_all(&folder).expect("the folder made above");
        opened
    }

    #[test]
    fn a_device_that_computes_wrong_is_named() {
        let opened = opened_changed(DevicePreference::Cpu, |manifest, _| {
            let test = manifest.self_test.as_mut().expect("nano has a self-test");
            test.expected[3] += 2.0 * test.tolerance;
        });
        let fault = opened.err().expect("one value is off").to_string();
        assert!(
            fault.contains("processor: fails the self-test: value 3"),
            "{fault}"
        );
    }

    /// Weights that are no numbers are refused by name, whatever part they belong to.
    #[test]
    fn weights_that_are_no_numbers_are_noticed() {
        for device in [DevicePreference::Cpu, DevicePreference::Wgpu] {
            if Session::open(NANO, device, None).is_err() {
                println!("weights_that_are_no_numbers_are_noticed: no {device:?}");
                continue;
            }
            let with_nan = |tensor: &str| {
                opened_changed(device, |manifest, files| {
                    let entry = &manifest.tensors[tensor];
                    let place = entry.offset as usize;
                    let nan = match entry.dtype {
                        DType::F16 => half::f16::NAN.to_le_bytes().to_vec(),
                        DType::F32 => f32::NAN.to_le_bytes().to_vec(),
                        other => panic!("{tensor} is stored as {other:?}"),
                    };
                    let shard = files.get_mut(&*entry.shard).expect("a shard of nano");
                    shard[place..place + nan.len()].copy_from_slice(&nan);
                })
            };
            for tensor in [
                "backbone.model.backbone.layers.0.blocks.0.attn.proj.weight",
                "vision_tower.vision_tower.vision_model.pre_layrnorm.weight",
                "model.layers.0.mlp.up_proj.weight",
                "model.norm.weight",
            ] {
                let fault = with_nan(tensor).err().expect(tensor).to_string();
                assert!(fault.contains(tensor) && fault.contains("NaN"), "{fault}");
            }
        }
    }

    /// More words than there is room for, and none.
    #[test]
    fn questions_of_any_length_get_words() {
        let mut session = Session::open(NANO, DevicePreference::Cpu, None).expect("a processor");
        let pixels = decode::open(Path::new("web/static/samples/scene.png")).expect("the sample");
        session
            .look(pixels, Granularity::Coarse)
            .expect("a processor");
        let mut ask = |text: &str, limit| session.ask(question(&[], text, limit));
        let long = "cat ".repeat(5000);
        for (question, limit, says) in [
            (&*long, 8, "there is room for 1024"),
            ("cat", 2000, "2000 for the answer; there is room for 1024"),
            (" ", 8, "nothing is asked"),
        ] {
            let fault = ask(question, limit).expect_err(says).to_string();
            assert!(fault.contains(says), "{fault}");
        }
        let within = ask(&"cat ".repeat(400), 8).expect("room for it");
        assert!(within.prefill_tokens > 400);
        assert_eq!(ask("cat", 0).expect("no word is asked for").tokens, 0);
    }
}
