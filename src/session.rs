//! The Rust facade: opens a model, looks at a picture, asks questions about it.
//!
//! ```no_run
//! use chatrex::{Model, Session, SessionOptions};
//!
//! # fn main() -> Result<(), chatrex::Fault> {
//! let options = SessionOptions::default().on_progress(|progress| eprintln!("{progress:?}"));
//! let mut session = Session::open(Model::Folder("chatrex-7b-q4".into()), options)?;
//! let pixels = chatrex::image::decode::open("photo.jpg".as_ref())?;
//! let boxes: Vec<_> = session.look(pixels)?.iter().map(|proposal| proposal.bbox).collect();
//! let mut length = 0;
//! let answer = session.ask("What is <obj0>?", &boxes[..1], |spans| {
//!     length = spans.iter().map(|span| span.text.len()).sum();
//! })?;
//! assert_eq!(length, answer.spans.iter().map(|span| span.text.len()).sum::<usize>());
//! # Ok(())
//! # }
//! ```
//!
//! A host with files, a clock or a message loop of its own uses [`Engine`] and [`Host`] instead.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use crate::built_in::BuiltIn;
use crate::engine::together::{Encoded, Input};
use crate::engine::{Engine, Host};
use crate::error::{ErrorCode, Fault, FaultKind};
use crate::generate::sampling::Sampling;
use crate::geometry::{BoxXyxy, Granularity, Proposal};
use crate::image::Pixels;
use crate::progress::{Progress, Stage};
use crate::protocol::client::Counter;
use crate::protocol::{
    Answer, Client, Envelope, Event, Link, LoadOptions, ModelCard, Question, Request, TurnId,
};
use crate::text::answer_parser::Span;
use crate::text::prompt::IMAGE_SLOT;
use crate::weights::ByteSource;
use crate::weights::source::{
    BlockingRuntime, Embedded, Folder, LocalFuture, ModelFiles, Runtime, TransferControl,
};

/// Name of the built-in model for drawn scenes.
pub const NANO: &str = BuiltIn::Nano.name();

/// Name of the model that the program uses where none is given.
pub const DEFAULT_MODEL: &str = BuiltIn::of_default().name();

/// The files of a folder in `assets/models`, compiled into the program.
macro_rules! embedded {
    ($name:literal: $($file:literal)+) => {
        Embedded {
            name: $name,
            files: &[$((
                $file,
                include_bytes!(concat!("../assets/models/", $name, "/", $file)),
            )),+],
        }
    };
}

const NANO_FILES: Embedded = embedded!(
    "nano": "model.json" "tokenizer.json" "upn.safetensors" "towers.safetensors"
    "decoder.safetensors"
);

const MINI_FILES: Embedded = embedded!(
    "mini": "model.json" "tokenizer.json" "detector.safetensors" "projector.safetensors"
    "decoder.safetensors"
);

/// The files of [`BuiltIn::SHIPPED`].
const EMBEDDED: &[Embedded] = &[MINI_FILES, NANO_FILES];

/// A model that a [`Session`] opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// The built-in model for photographs.
    Mini,
    /// The built-in model for drawn scenes.
    Nano,
    /// A model folder, as `chatrex convert` writes it.
    Folder(PathBuf),
}

impl Model {
    /// The name under which the host finds the files.
    fn name(&self) -> String {
        match self {
            Self::Mini => BuiltIn::Mini.name().into(),
            Self::Nano => NANO.into(),
            Self::Folder(path) => path.display().to_string(),
        }
    }
}

impl From<BuiltIn> for Model {
    fn from(model: BuiltIn) -> Self {
        match model {
            BuiltIn::Mini => Self::Mini,
            BuiltIn::Nano => Self::Nano,
        }
    }
}

/// The model that the program uses where none is given.
impl Default for Model {
    fn default() -> Self {
        BuiltIn::default().into()
    }
}

/// The name of a built-in model or the path of a folder, as `--model` takes them.
impl From<&str> for Model {
    fn from(name: &str) -> Self {
        match BuiltIn::named(name) {
            Some(model) => model.into(),
            None => Self::Folder(name.into()),
        }
    }
}

/// How a model is opened.
#[derive(Default)]
pub struct SessionOptions {
    /// Device, GPU memory limit and KV cache type.
    pub load: LoadOptions,
    progress: Option<Box<dyn FnMut(Progress) + Send>>,
}

impl SessionOptions {
    /// Calls `callback` with the progress of loading, looking and reading.
    #[must_use]
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + Send + 'static) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }
}

impl<T: Into<LoadOptions>> From<T> for SessionOptions {
    fn from(load: T) -> Self {
        Self {
            load: load.into(),
            progress: None,
        }
    }
}

/// One loaded model and the current picture.
pub struct Session {
    engine: Engine<SessionHost>,
    events: Events,
    progress: Option<Box<dyn FnMut(Progress) + Send>>,
    card: Option<ModelCard>,
    counter: Counter,
}

/// Ends answers of a [`Session`] from any thread. Clones stop the same answers.
///
/// ```
/// use chatrex::{DevicePreference, Model, Session, StopHandle, image};
///
/// # fn main() -> Result<(), chatrex::Fault> {
/// let mut session = Session::open(Model::Nano, DevicePreference::Cpu)?;
/// session.look(image::decode::open("web/static/samples/scene.png".as_ref())?)?;
/// let handle = StopHandle::new();
/// session.stop_with(&handle);
/// let answer = session.ask("What is in this image?", &[], |_| handle.stop())?;
/// assert_eq!(answer.stop, chatrex::protocol::StopReason::Stopped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// A handle that has not stopped anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the current answer of the session before its next token, with
    /// [`StopReason::Stopped`](crate::protocol::StopReason::Stopped); every later answer before its first token,
    /// until the session gets another handle. Finding boxes, encoding the picture and reading the question are not
    /// interrupted.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`StopHandle::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Events that the engine emitted and nobody has taken yet.
type Events = Arc<Mutex<Vec<Event>>>;

/// The engine's host in a session: files on disk, the system clock.
pub(crate) struct SessionHost {
    events: Events,
    start: Instant,
    stop: Mutex<StopHandle>,
}

impl SessionHost {
    fn stop(&self) -> std::sync::MutexGuard<'_, StopHandle> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for SessionHost {
    fn emit(&self, event: Event) {
        lock(&self.events).push(event);
    }

    fn milliseconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64() * 1e3
    }

    fn stopped(&self, _turn: TurnId) -> bool {
        self.stop().is_stopped()
    }

    fn files<'a>(&'a self, model: &'a str) -> LocalFuture<'a, Result<ModelFiles, Fault>> {
        let built_in = EMBEDDED.iter().find(|files| files.name == model);
        let source: Result<Box<dyn ByteSource>, Fault> = if let Some(files) = built_in {
            Ok(Box::new(*files))
        } else if Path::new(model).is_dir() {
            Ok(Box::new(Folder(model.into())))
        } else {
            Err(Fault::new(
                FaultKind::Model,
                model,
                "is no folder",
                "Name a folder with model.json, or leave --model out for the built-in model",
            )
            .code(ErrorCode::NotFound))
        };
        let files = source.map(|source| ModelFiles {
            source,
            store: None,
        });
        Box::pin(std::future::ready(files))
    }
}

impl Runtime for SessionHost {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        BlockingRuntime.sleep(milliseconds)
    }

    /// Pending once, so that the session delivers the events so far.
    fn yield_now(&self) -> LocalFuture<'_, ()> {
        let mut yielded = false;
        Box::pin(poll_fn(move |context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    fn control(&self) -> TransferControl {
        BlockingRuntime.control()
    }
}

/// Gives freed memory back to the system: while weights are packed, parts of them are in memory twice.
fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function has no requirements.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn lock(events: &Events) -> std::sync::MutexGuard<'_, Vec<Event>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Loads `model`.
    ///
    /// # Errors
    /// The model cannot be loaded or the device not be opened.
    pub fn open(
        model: impl Into<Model>,
        options: impl Into<SessionOptions>,
    ) -> Result<Self, Fault> {
        pollster::block_on(Self::open_async(model.into(), options.into()))
    }

    /// As [`Session::open`], for a caller with an executor of its own.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_async(model: Model, options: SessionOptions) -> Result<Self, Fault> {
        let SessionOptions { load, progress } = options;
        let mut session = Self::empty();
        session.progress = progress;
        let load = Request::Load {
            model: model.name(),
            options: load,
        };
        let wanted = |event: &Event| matches!(event, Event::Ready(_));
        match session.run(load.into(), wanted, |_| ()).await? {
            Event::Ready(card) => session.card = Some(*card),
            other => unreachable!("only the model was wanted: {other:?}"),
        }
        return_freed_memory();
        Ok(session)
    }

    /// A session without a model, for benchmarks of random weights.
    pub(crate) fn empty() -> Self {
        let events = Events::default();
        let host = SessionHost {
            events: Arc::clone(&events),
            start: Instant::now(),
            stop: Mutex::default(),
        };
        Self {
            engine: Engine::new(host),
            events,
            progress: None,
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

    /// Makes `handle` the one that ends answers of this session, in place of an earlier handle.
    pub fn stop_with(&mut self, handle: &StopHandle) {
        *self.engine.host().stop() = handle.clone();
    }

    /// The handle that ends answers of this session.
    pub fn stop_handle(&self) -> StopHandle {
        self.engine.host().stop().clone()
    }

    /// Tokens of the prompt of an answer of this session, those of the picture and of its boxes included, whether
    /// they were prefilled for it or cached.
    pub fn prompt_tokens(&mut self, answer: &Answer) -> u32 {
        let (_, Some(model)) = self.engine.parts() else {
            return 0;
        };
        let ids = model.tokenizer.encode(&answer.prompt);
        let pictures = ids.iter().filter(|&&id| id == IMAGE_SLOT).count();
        (ids.len() - pictures + pictures * model.config.visual_tokens()) as u32
    }

    /// The engine, for diagnostics.
    pub(crate) fn engine(&mut self) -> &mut Engine<SessionHost> {
        &mut self.engine
    }

    /// Makes `pixels` the current picture and finds whole objects in it: every proposal, best first.
    ///
    /// # Errors
    /// The picture cannot be used, or the device fails.
    pub fn look(&mut self, pixels: Pixels) -> Result<Vec<Proposal>, Fault> {
        Ok(self.open_picture(pixels, Granularity::Coarse)?.0)
    }

    /// The proposals of the current picture for another prompt of the detector, best first.
    ///
    /// # Errors
    /// There is no current picture, or the device fails.
    pub fn propose(&mut self, granularity: Granularity) -> Result<Vec<Proposal>, Fault> {
        let request = self.counter.look_again(granularity);
        let wanted = |event: &Event| matches!(event, Event::Proposed { .. });
        match pollster::block_on(self.run(request, wanted, |_| ()))? {
            Event::Proposed { boxes, .. } => Ok(boxes),
            other => unreachable!("only proposals were wanted: {other:?}"),
        }
    }

    /// Asks about the current picture. The answer may name `boxes` (at most 100, in pixels of the
    /// picture) by their indices; `on_spans` is called with the whole answer so far whenever it grew.
    /// Decoding is greedy and ends after the model's default number of tokens.
    ///
    /// # Errors
    /// The question cannot be asked, there is no current picture, or the device fails.
    pub fn ask(
        &mut self,
        question: &str,
        boxes: &[BoxXyxy],
        on_spans: impl FnMut(&[Span]),
    ) -> Result<Answer, Fault> {
        let question = Question {
            boxes: boxes.into(),
            text: question.into(),
            max_tokens: self.card().default_max_tokens,
            sampling: Sampling::default(),
            earlier: Vec::new(),
            system: None,
        };
        pollster::block_on(self.ask_async(question, on_spans))
    }

    /// As [`Session::ask`], with all options, for a caller with an executor of its own.
    ///
    /// # Errors
    /// As [`Session::ask`].
    pub async fn ask_async(
        &mut self,
        question: Question,
        mut on_spans: impl FnMut(&[Span]),
    ) -> Result<Answer, Fault> {
        let request = self.counter.ask(question);
        let wanted = |event: &Event| matches!(event, Event::Done { .. });
        let deliver = |event: &Event| {
            if let Event::Said { spans, .. } = event {
                on_spans(spans);
            }
        };
        match self.run(request, wanted, deliver).await? {
            Event::Done { answer, .. } => Ok(answer),
            other => unreachable!("only an answer was wanted: {other:?}"),
        }
    }

    /// How sure the model was of the boxes that its last answer names: one entry per index, in their
    /// order.
    ///
    /// # Errors
    /// The last request was no question about the current picture, or the device fails.
    pub fn links(&mut self) -> Result<Vec<Link>, Fault> {
        let request = self.counter.links();
        let wanted = |event: &Event| matches!(event, Event::Links { .. });
        match pollster::block_on(self.run(request, wanted, |_| ()))? {
            Event::Links { links, .. } => Ok(links),
            other => unreachable!("only links were wanted: {other:?}"),
        }
    }

    /// How alike `boxes` of the current picture are (at most 100, in its pixels): cosines of their object
    /// tokens, row by row. Empty if the model sees no boxes.
    ///
    /// # Errors
    /// There is no current picture, or the device fails.
    pub fn compare(&mut self, boxes: &[BoxXyxy]) -> Result<Vec<Vec<f32>>, Fault> {
        let request = self.counter.compare(boxes.into());
        let wanted = |event: &Event| matches!(event, Event::Compared { .. });
        match pollster::block_on(self.run(request, wanted, |_| ()))? {
            Event::Compared { likeness, .. } => Ok(likeness),
            other => unreachable!("only a comparison was wanted: {other:?}"),
        }
    }

    /// Handles `request`; the first event that is `wanted`. Events go to `deliver` as they come.
    async fn run(
        &mut self,
        request: Envelope<Request>,
        wanted: impl Fn(&Event) -> bool,
        mut deliver: impl FnMut(&Event),
    ) -> Result<Event, Fault> {
        let mut outcome = None;
        let take = |event: Event| {
            deliver(&event);
            match event {
                Event::Progress(progress) => {
                    if let Some(callback) = &mut self.progress {
                        callback(progress);
                    }
                }
                Event::Failed { fault, .. } => outcome = Some(Err(fault)),
                event if outcome.is_none() && wanted(&event) => outcome = Some(Ok(event)),
                _ => {}
            }
        };
        with_events(self.engine.handle(request), &self.events, take).await;
        outcome.expect("the engine answers every request with its event or a fault")
    }

    /// [`Engine::pictures_together`].
    pub(crate) fn pictures_together(&self, wanted: Option<usize>, limit: Option<u64>) -> usize {
        pollster::block_on(self.engine.pictures_together(wanted, limit))
    }

    /// [`Engine::encode_together`]; progress goes to the callback.
    pub(crate) fn encode_together(
        &mut self,
        pictures: &[Input<'_>],
        granularity: Granularity,
    ) -> Result<Vec<Encoded>, Fault> {
        let take = |event| {
            if let (Event::Progress(progress), Some(callback)) = (event, &mut self.progress) {
                callback(progress);
            }
        };
        let work = self.engine.encode_together(pictures, granularity);
        pollster::block_on(with_events(work, &self.events, take))
    }
}

/// Awaits `work`; `events` go to `take` as they come.
async fn with_events<T>(
    work: impl Future<Output = T>,
    events: &Events,
    mut take: impl FnMut(Event),
) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let poll = work.as_mut().poll(context);
        let events = std::mem::take(&mut *lock(events));
        events.into_iter().for_each(&mut take);
        poll
    })
    .await
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
        pollster::block_on(self.run(request, wanted, |_| ()))
    }
}

/// Prints the end of every stage to standard error.
pub(crate) fn report(Progress { stage, done, total }: Progress) {
    if done == total {
        let text = match stage {
            Stage::Fetch => "weights read",
            Stage::Upload => "weights on the device",
            Stage::Compile => "pipelines compiled",
            Stage::Propose => "boxes found",
            Stage::Look => "picture encoded",
            Stage::Read => "question read",
        };
        eprintln!("{text}");
    }
}

#[cfg(test)]
mod families;

#[cfg(test)]
mod together;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::generate::sampling::Sampling;
    use crate::geometry::BoxXyxy;
    use crate::image::decode;
    use crate::memory::{KvCacheDType, Residency};
    use crate::protocol::{DevicePreference, Exchange, Granularity, Question, StopReason};
    use crate::weights::dtype::DType;
    use crate::weights::manifest::{MANIFEST, Manifest, sha256_hex};

    fn question(boxes: &[BoxXyxy], text: &str, max_tokens: u32) -> Question {
        Question {
            boxes: boxes.to_vec(),
            text: text.into(),
            max_tokens,
            sampling: Sampling::default(),
            earlier: Vec::new(),
            system: None,
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
            ..LoadOptions::default()
        };
        let mut session = Session::open(NANO, options)?;
        let pixels = decode::open(Path::new("web/static/samples/scene.png"))?;
        let (found, _) = session.open_picture(pixels, Granularity::Coarse)?;
        let boxes: Vec<BoxXyxy> = found.iter().take(8).map(|found| found.bbox).collect();
        let mut texts = String::new();
        for text in ["What is <obj0>?", "How many cats are there?"] {
            texts.push_str(&session.answer(question(&boxes, text, 24))?.text);
        }
        Ok((texts, session.card().clone()))
    }

    #[test]
    fn evicted_parts_answer_as_resident_ones() {
        let Ok((all, card)) = answered(DevicePreference::Wgpu, None) else {
            println!("evicted_parts_answer_as_resident_ones skipped: no GPU");
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

    /// Every index of a greedy answer is the most probable box, on every device alike; words are as probable
    /// after the links were computed as before.
    #[test]
    fn links_are_the_probabilities_of_the_indices() {
        let run = |device| {
            let mut session = Session::open(NANO, LoadOptions::from(device))?;
            let pixels = decode::open(Path::new("web/static/samples/scene.png"))?;
            let (found, _) = session.open_picture(pixels, Granularity::Coarse)?;
            let boxes: Vec<BoxXyxy> = found.iter().take(20).map(|found| found.bbox).collect();
            let early = session.links().expect_err("nothing is answered");
            assert_eq!(early.code, ErrorCode::NotReady);
            let text = "Please detect cat in this image. Answer the question with grounded answer.";
            let answer = session.answer(question(&boxes, text, 48))?;
            let links = session.links()?;
            // The second call prefills what the first one cut from the cache.
            for (again, link) in session.links()?.iter().zip(&links) {
                assert_eq!(again.object, link.object);
                assert!((again.probability - link.probability).abs() < 1e-4);
            }
            assert_eq!(
                session.answer(question(&boxes, text, 48))?.text,
                answer.text
            );
            let likeness = session.compare(&boxes)?;
            Ok::<_, Fault>((answer, links, likeness))
        };
        let (answer, links, likeness) = run(DevicePreference::Cpu).expect("the CPU answers");
        let named = answer.spans.iter().flat_map(|span| &span.objects);
        let named: Vec<u32> = named.copied().collect();
        let objects: Vec<u32> = links.iter().map(|link| link.object).collect();
        assert!(!named.is_empty(), "{}", answer.text);
        assert_eq!(objects, named);
        for link in &links {
            let other = link.runner_up.expect("20 boxes");
            assert!(link.probability >= other.probability, "{link:?}");
            assert!(
                link.probability + other.probability <= 1.0 + 1e-5,
                "{link:?}"
            );
        }
        assert_eq!(likeness.len(), 20);
        for (number, row) in likeness.iter().enumerate() {
            assert!((row[number] - 1.0).abs() < 1e-4, "{row:?}");
            assert!((row[0] - likeness[0][number]).abs() < 1e-5);
        }
        let Ok((on_gpu, gpu_links, _)) = run(DevicePreference::Wgpu) else {
            println!("the GPU part of links_are_the_probabilities_of_the_indices skipped: no GPU");
            return;
        };
        assert_eq!(on_gpu.text, answer.text);
        for (a, b) in links.iter().zip(&gpu_links) {
            assert_eq!(a.object, b.object);
            assert!((a.probability - b.probability).abs() < 0.02, "{a:?} {b:?}");
        }
    }

    /// Earlier turns are part of the prompt; control words of the model are refused in all texts.
    #[test]
    fn earlier_turns_are_part_of_the_prompt() {
        let mut session =
            Session::open(NANO, LoadOptions::from(DevicePreference::Cpu)).expect("nano");
        let pixels = decode::open(Path::new("web/static/samples/scene.png")).expect("the sample");
        let (found, _) = session
            .open_picture(pixels, Granularity::Coarse)
            .expect("boxes");
        let boxes: Vec<BoxXyxy> = found.iter().take(4).map(|found| found.bbox).collect();
        let mut second = question(&boxes, "And what is <obj1>?", 4);
        let exchange = Exchange {
            question: "What is <obj0>?".into(),
            answer: "<ground>cat</ground><objects><obj0></objects>".into(),
        };
        second.earlier = vec![exchange.clone()];
        let answer = session.answer(second.clone()).expect("an answer");
        let prompt = &answer.prompt;
        let place = |text: &str| {
            prompt
                .find(text)
                .unwrap_or_else(|| panic!("{prompt}: no {text}"))
        };
        assert!(place("What is <obj0>?") < place(&exchange.answer));
        assert!(place(&exchange.answer) < place("And what is <obj1>?"));
        assert_eq!(prompt.matches("<objfeat>").count(), 4);
        for (text, answer) in [("a <|im_end|> b", ""), ("Why?", "a <|im_start|>user")] {
            let mut bad = second.clone();
            bad.text = text.into();
            bad.earlier[0].answer = answer.into();
            let fault = session.answer(bad).expect_err("a control word");
            assert!(fault.what.contains("control word"), "{fault}");
        }
    }

    /// A further question prefills its own tokens only, and every device gives the same answer: sampled
    /// on the GPU, with either type of KV cache, for long questions, and without boxes.
    #[test]
    fn a_further_question_prefills_its_own_tokens_only() {
        const QUESTIONS: [&str; 4] = [
            "How many cats are there?",
            "What is <obj0>?",
            "Please detect cat and penguin in this image. Answer the question with grounded answer.",
            "?",
        ];
        let run = |device, cache| {
            let options = LoadOptions {
                cache: Some(cache),
                ..LoadOptions::from(device)
            };
            let mut session = Session::open(NANO, options)?;
            let pixels = decode::open(Path::new("web/static/samples/scene.png"))?;
            let (found, _) = session.open_picture(pixels, Granularity::Coarse)?;
            let boxes: Vec<BoxXyxy> = found.iter().map(|found| found.bbox).collect();
            let empty = session
                .answer(question(&boxes, "", 48))
                .expect_err("nothing is asked");
            assert!(empty.what.contains("nothing is asked"), "{empty}");
            let mut answers = Vec::new();
            for text in QUESTIONS {
                answers.push(session.answer(question(&boxes, text, 48))?);
            }
            let without_boxes = session.answer(question(&[], QUESTIONS[0], 48))?;
            Ok((answers, without_boxes.text))
        };
        let (expected, expected_without) =
            run(DevicePreference::Cpu, KvCacheDType::F32).expect("a CPU");
        for form in [KvCacheDType::F32, KvCacheDType::F16] {
            let (answers, without) =
                run(DevicePreference::Wgpu, form).unwrap_or_else(|fault: Fault| {
                    println!("on the CPU only: {fault}");
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

    #[test]
    fn every_file_of_a_built_in_model_is_compiled_in() {
        let names: Vec<&str> = BuiltIn::SHIPPED.iter().map(|m| m.name()).collect();
        let embedded: Vec<&str> = EMBEDDED.iter().map(|files| files.name).collect();
        assert_eq!(embedded, names);
        for files in EMBEDDED {
            let folder = Path::new("assets/models").join(files.name);
            let mut on_disk: Vec<String> = std::fs::read_dir(folder)
                .expect("a folder of the repository")
                .map(|entry| {
                    entry
                        .expect("a file")
                        .file_name()
                        .into_string()
                        .expect("UTF-8")
                })
                .collect();
            let mut compiled: Vec<&str> = files.files.iter().map(|(name, _)| *name).collect();
            on_disk.sort_unstable();
            compiled.sort_unstable();
            assert_eq!(compiled, on_disk, "{}", files.name);
        }
        assert_eq!(Model::from("nano"), Model::Nano);
        assert_eq!(Model::from("folder"), Model::Folder("folder".into()));
        assert_eq!(Model::default(), Model::from(DEFAULT_MODEL));
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
        let opened = Session::open(Model::Folder(folder.clone()), device);
        std::fs::remove_dir_all(&folder).expect("the folder made above");
        opened
    }

    #[test]
    fn a_device_that_fails_the_self_test_is_named() {
        let opened = opened_changed(DevicePreference::Cpu, |manifest, _| {
            let test = manifest.self_test.as_mut().expect("nano has a self-test");
            test.expected[3] += 2.0 * test.tolerance;
        });
        let fault = opened.err().expect("one value is off").to_string();
        assert!(
            fault.contains("CPU: fails the self-test: value 3"),
            "{fault}"
        );
    }

    /// A NaN in a weight is reported with the tensor's name, in every part.
    #[test]
    fn nan_weights_are_reported() {
        for device in [DevicePreference::Cpu, DevicePreference::Wgpu] {
            if Session::open(NANO, device).is_err() {
                println!("nan_weights_are_reported: no {device:?}");
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

    /// A stopped answer ends at once, a new handle lets answers go on, and the tokens of a prompt are those that a
    /// first question prefills.
    #[test]
    fn a_handle_stops_answers() {
        let mut session = Session::open(NANO, DevicePreference::Cpu).expect("a CPU");
        let pixels = decode::open(Path::new("web/static/samples/scene.png")).expect("the sample");
        let (found, _) = session
            .open_picture(pixels, Granularity::Coarse)
            .expect("boxes");
        let boxes: Vec<BoxXyxy> = found.iter().take(4).map(|found| found.bbox).collect();
        let text = "Please detect cat in this image. Answer the question with grounded answer.";
        let whole = session.ask(text, &boxes, |_| ()).expect("an answer");
        assert_eq!(whole.stop, StopReason::End);
        assert_eq!(session.prompt_tokens(&whole), whole.prefill_tokens);
        let again = session.ask(text, &boxes, |_| ()).expect("an answer");
        assert!(again.prefill_tokens < whole.prefill_tokens);
        assert_eq!(session.prompt_tokens(&again), whole.prefill_tokens);
        let handle = StopHandle::new();
        session.stop_with(&handle);
        let cut = session.ask(text, &boxes, |_| handle.stop());
        let cut = cut.expect("an answer");
        assert_eq!(cut.stop, StopReason::Stopped);
        assert!(cut.tokens < whole.tokens && session.stop_handle().is_stopped());
        assert_eq!(session.ask(text, &boxes, |_| ()).expect("none").tokens, 0);
        session.stop_with(&StopHandle::new());
        let rest = session.ask(text, &boxes, |_| ()).expect("an answer");
        assert_eq!(rest.text, whole.text);
    }

    /// Questions longer than the KV cache has room for, and answers of no token.
    #[test]
    fn questions_of_any_length_are_handled() {
        let mut session = Session::open(NANO, DevicePreference::Cpu).expect("a CPU");
        let pixels = decode::open(Path::new("web/static/samples/scene.png")).expect("the sample");
        session
            .open_picture(pixels, Granularity::Coarse)
            .expect("a CPU");
        let mut ask = |text: &str, limit| session.answer(question(&[], text, limit));
        let long = "cat ".repeat(5000);
        for (question, limit, says) in [
            (&*long, 8, "there is room for 1024"),
            ("cat", 5000, "5000 for the answer; there is room for 1024"),
            (" ", 8, "nothing is asked"),
        ] {
            let fault = ask(question, limit).expect_err(says).to_string();
            assert!(fault.contains(says), "{fault}");
        }
        let within = ask(&"cat ".repeat(400), 8).expect("within the limit");
        assert!(within.prefill_tokens > 400);
        assert_eq!(ask("cat", 0).expect("an empty answer").tokens, 0);
    }
}
