//! The library beside the engine: surveys, downloads, imports and deletions, each a task of its
//! own, so that the engine goes on answering meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use chatrex::engine::memory_plan::{kv_cache_dtype, needs, plan_memory};
use chatrex::error::{Fault, FaultKind};
use chatrex::gpu::device::open;
use chatrex::memory::Fit;
use chatrex::model::config::ModelConfig;
use chatrex::protocol::store::{
    Activity, Facts, ModelId, Moved, StoreEvent, StoreRequest, StoredModel, Survey,
};
use chatrex::protocol::{DevicePreference, FromWorker};
use chatrex::weights::download::{Downloader, TransferStats};
use chatrex::weights::manifest::{MANIFEST, MAX_MANIFEST};
use chatrex::weights::source::{
    LocalFuture, ModelFiles, PartialRead, Runtime, TransferControl, too_long,
};
use chatrex::weights::{ByteSource, Manifest};
use js_sys::Array;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

use super::abort::PauseControl;
use super::host::{Yielder, device_is_open, post};
use super::http_source::HttpSource;
use super::js::{File, bytes_of, describe, performance_now};
use super::opfs::{self, Kept, Metadata, Pieces};

/// Where models named by a hub's `owner/name` lie.
const HUB: &str = "https://huggingface.co";

/// Progress is told at most this often, in milliseconds.
const NEWS: f64 = 120.0;

/// Whether another tab still has a model is looked up this often, in milliseconds.
const AGAIN: u32 = 1_500;

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static SURVEYED: RefCell<HashMap<String, Found>> = RefCell::default();
    static JOBS: RefCell<HashMap<String, Rc<Job>>> = RefCell::default();
}

/// A manifest and where the rest of its model lies.
#[derive(Clone)]
struct Found {
    json: Vec<u8>,
    manifest: Manifest,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    Address(String),
    Files(Rc<Picked>),
}

impl Origin {
    fn source(&self, steering: &Rc<PauseControl>) -> Rc<dyn ByteSource> {
        match self {
            Self::Address(address) => Rc::new(HttpSource::new(address, Rc::clone(steering))),
            Self::Files(files) => Rc::clone(files) as Rc<dyn ByteSource>,
        }
    }

    fn address(&self) -> Option<String> {
        match self {
            Self::Address(address) => Some(address.clone()),
            Self::Files(_) => None,
        }
    }
}

/// One model being brought here.
struct Job {
    model: ModelId,
    steering: Rc<PauseControl>,
    breath: Yielder,
    waiting: Cell<bool>,
    told: Cell<f64>,
    tally: Cell<TransferStats>,
    /// Delete what came, once it has ended.
    discard: Cell<bool>,
}

impl Job {
    fn new(model: ModelId) -> Rc<Self> {
        Rc::new(Self {
            model,
            steering: Rc::default(),
            breath: Yielder::default(),
            waiting: Cell::new(false),
            told: Cell::new(f64::NEG_INFINITY),
            tally: Cell::default(),
            discard: Cell::new(false),
        })
    }

    fn hear(&self, tally: TransferStats) {
        self.tally.set(tally);
        if performance_now() - self.told.get() >= NEWS {
            self.tell();
        }
    }

    fn tell(&self) {
        self.told.set(performance_now());
        let tally = self.tally.get();
        let moved = Moved {
            done: tally.done,
            total: tally.total,
            fetched: tally.fetched,
            wrong: tally.wrong,
            waiting: self.waiting.get(),
        };
        let model = self.model.clone();
        say(StoreEvent::Moved { model, moved });
    }
}

impl Runtime for Job {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let waits = self.hold() == TransferControl::Run;
            if waits && !self.waiting.replace(true) {
                self.tell();
            }
            self.steering.sleep(milliseconds).await;
            if waits {
                self.waiting.set(false);
            }
        })
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        self.breath.take()
    }

    fn hold(&self) -> TransferControl {
        self.steering.hold()
    }
}

/// Carries out a request of the page; files of the person travel in `beside`.
pub fn receive(request: StoreRequest, beside: JsValue) {
    spawn_local(async move {
        match request {
            StoreRequest::List => {}
            StoreRequest::Survey { address } => survey(address).await,
            StoreRequest::SurveyFiles => survey_files(&beside).await,
            StoreRequest::Keep { model } => keep(model).await,
            StoreRequest::Pause { model } => steer(&model, TransferControl::Pause),
            StoreRequest::Cancel { model, keep } => cancel(model, keep).await,
            StoreRequest::Delete { model } => delete(&model).await,
        }
        list().await;
    });
}

fn say(event: StoreEvent) {
    post(&FromWorker::Shelf(event));
}

fn job(model: &ModelId) -> Option<Rc<Job>> {
    JOBS.with_borrow(|jobs| jobs.get(&model.0).cloned())
}

/// Tells the page what is kept.
pub async fn list() {
    // A browser that keeps nothing has an empty shelf; whoever adds to it hears why it cannot.
    let Ok(found) = opfs::list().await else {
        return;
    };
    let models: Vec<_> = found.into_iter().map(shelved).collect();
    let elsewhere = |model: &StoredModel| model.activity == Activity::Elsewhere;
    if models.iter().any(elsewhere) && !WATCHING.replace(true) {
        spawn_local(async {
            PauseControl::default().sleep(AGAIN).await;
            WATCHING.set(false);
            Box::pin(list()).await;
        });
    }
    say(StoreEvent::Listed { models });
}

fn shelved(listed: opfs::Listed) -> StoredModel {
    let model = ModelId(listed.id);
    let activity = match job(&model) {
        Some(job) if job.hold() == TransferControl::Pause => Activity::Paused,
        Some(_) => Activity::Moving,
        None if listed.elsewhere => Activity::Elsewhere,
        None if opfs::held(&model.0).is_some() => Activity::Loaded,
        None => Activity::Idle,
    };
    StoredModel {
        facts: facts(&listed.manifest),
        address: listed.label.address,
        done: listed.done,
        used: listed.label.used,
        activity,
        model,
    }
}

fn facts(manifest: &Manifest) -> Facts {
    Facts {
        name: manifest.name.clone(),
        precision: manifest.precision.clone(),
        trained_on: manifest.provenance.trained_on.clone(),
        licence: manifest.licence.name.clone(),
        licence_text: manifest.licence.text.clone(),
        bytes: manifest.bytes(),
    }
}

async fn survey(address: String) {
    let surveyed = async {
        let base = base_of(&address)?;
        let source = HttpSource::new(&base, Rc::default());
        let json = source.read(MANIFEST, MAX_MANIFEST).await?;
        found(
            json,
            &format!("{base}/{MANIFEST}"),
            Origin::Address(base.clone()),
        )
    };
    tell_survey(surveyed.await).await;
}

async fn survey_files(beside: &JsValue) {
    let surveyed = async {
        let files = Rc::new(Picked::new(beside));
        let json = files.read(MANIFEST, MAX_MANIFEST).await?;
        let found = found(json, MANIFEST, Origin::Files(Rc::clone(&files)))?;
        files.complete(&found.manifest)?;
        Ok(found)
    };
    tell_survey(surveyed.await).await;
}

fn found(json: Vec<u8>, place: &str, origin: Origin) -> Result<Found, Fault> {
    let manifest = Manifest::parse(&json, place)?;
    ModelConfig::of(&manifest, place)?;
    Ok(Found {
        json,
        manifest,
        origin,
    })
}

/// Whether a model fits the engine's device, as far as its manifest tells.
async fn fit(manifest: &Manifest) -> Option<Fit> {
    if !device_is_open() {
        return None;
    }
    let config = ModelConfig::of(manifest, MANIFEST).ok()?;
    let device = open(DevicePreference::Auto).await.ok()?;
    Some(
        plan_memory(
            needs(manifest, &config, kv_cache_dtype(manifest)),
            &device,
            None,
        )
        .await,
    )
}

async fn tell_survey(surveyed: Result<Found, Fault>) {
    match surveyed {
        Ok(found) => {
            let fit = fit(&found.manifest).await;
            let model = ModelId(opfs::id_of(&found.json));
            say(StoreEvent::Surveyed(Survey {
                model: model.clone(),
                facts: facts(&found.manifest),
                address: found.origin.address(),
                fit,
            }));
            SURVEYED.with_borrow_mut(|surveyed| surveyed.insert(model.0, found));
        }
        Err(fault) => say(StoreEvent::NotSurveyed { fault }),
    }
}

/// The base address that a person's words mean: an address, or a hub's `owner/name[@revision]`.
fn base_of(words: &str) -> Result<String, Fault> {
    let words = words.trim().trim_end_matches('/');
    let words = words.strip_suffix(MANIFEST).unwrap_or(words);
    let words = words.trim_end_matches('/');
    if words.starts_with("http://") || words.starts_with("https://") {
        return Ok(words.to_owned());
    }
    let (name, revision) = words.split_once('@').unwrap_or((words, "main"));
    let plain = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(fits)
    };
    match name.split_once('/') {
        Some((owner, name)) if [owner, name, revision].into_iter().all(plain) => {
            Ok(format!("{HUB}/{owner}/{name}/resolve/{revision}"))
        }
        _ => Err(Fault::new(
            FaultKind::Model,
            words,
            "is neither an address nor a hub's owner/name",
            "Give the address of a folder that holds model.json",
        )),
    }
}

/// Brings a model here, or goes on after a pause.
async fn keep(model: ModelId) {
    if let Some(job) = job(&model) {
        job.steering.set(TransferControl::Run);
        return;
    }
    let job = Job::new(model.clone());
    JOBS.with_borrow_mut(|jobs| jobs.insert(model.0.clone(), Rc::clone(&job)));
    let outcome = bring(&job).await;
    JOBS.with_borrow_mut(|jobs| jobs.remove(&model.0));
    let cancelled = job.hold() == TransferControl::Cancel;
    if job.discard.get()
        && let Err(fault) = opfs::delete(&model.0).await
    {
        say(StoreEvent::Failed { model, fault });
        return;
    }
    match outcome {
        Ok(()) => {
            job.tell();
            say(StoreEvent::Complete { model });
        }
        Err(_) if cancelled => {}
        Err(fault) => say(StoreEvent::Failed { model, fault }),
    }
}

async fn bring(job: &Rc<Job>) -> Result<(), Fault> {
    let found = SURVEYED.with_borrow(|surveyed| surveyed.get(&job.model.0).cloned());
    let here = Kept::open(&job.model.0).await?;
    let (kept, origin) = match (here, found) {
        (Some(kept), Some(found)) => {
            let address = found.origin.address();
            if address.is_some() && address != kept.address() {
                kept.move_to(address).await?;
            }
            (kept, found.origin)
        }
        (Some(kept), None) => {
            let address = kept
                .address()
                .ok_or_else(|| files_again(&kept.manifest.name))?;
            (kept, Origin::Address(address))
        }
        (None, Some(found)) => {
            let entry = &found.manifest.tokenizer;
            let source = found.origin.source(&job.steering);
            let tokenizer = source.read(&entry.name, entry.bytes).await?;
            entry.check(&tokenizer)?;
            let label = Metadata::new(found.origin.address());
            let kept = Kept::create(found.json, found.manifest, &tokenizer, label).await?;
            (kept, found.origin)
        }
        (None, None) => {
            return Err(Fault::new(
                FaultKind::Model,
                "this model",
                "is not known any more",
                "Give its address or choose its files again",
            ));
        }
    };
    list().await;
    let store = Pieces(Rc::clone(&kept));
    let source = origin.source(&job.steering);
    let report = |tally| job.hear(tally);
    Downloader::new(&kept.manifest, &*source, Some(&store), &**job, &report)
        .keep()
        .await
}

fn files_again(name: &str) -> Fault {
    Fault::new(
        FaultKind::Model,
        name,
        "came from files of yours, and some are missing or damaged here",
        "Choose the files again",
    )
}

fn steer(model: &ModelId, hold: TransferControl) {
    if let Some(job) = job(model) {
        job.steering.set(hold);
    }
}

async fn cancel(model: ModelId, keep: bool) {
    match job(&model) {
        Some(job) => {
            job.discard.set(!keep);
            job.steering.set(TransferControl::Cancel);
        }
        None if !keep => delete(&model).await,
        None => {}
    }
}

async fn delete(model: &ModelId) {
    if let Err(fault) = opfs::delete(&model.0).await {
        let model = model.clone();
        say(StoreEvent::Failed { model, fault });
    }
}

/// The files of a model for the engine: a kept one, or those at an address.
///
/// # Errors
/// It is not here, another tab has it, or it is still on its way.
pub async fn files(model: &str, steering: &Rc<PauseControl>) -> Result<ModelFiles, Fault> {
    let Some(id) = ModelId::of_load(model) else {
        return Ok(ModelFiles {
            source: Box::new(HttpSource::new(model, Rc::clone(steering))),
            store: None,
        });
    };
    if job(&id).is_some() {
        return Err(Fault::new(
            FaultKind::Model,
            "this model",
            "is not here as a whole yet",
            "Wait for it, then load it",
        ));
    }
    let kept = Kept::open(&id.0).await?.ok_or_else(|| {
        Fault::new(
            FaultKind::Model,
            "this model",
            "is not kept in this browser any more",
            "Download or import it again",
        )
    })?;
    kept.touch().await;
    let address = kept.address();
    let origin = address.map(|address| HttpSource::new(&address, Rc::clone(steering)));
    spawn_local(list());
    Ok(ModelFiles {
        store: Some(Box::new(Pieces(Rc::clone(&kept)))),
        source: Box::new(Cached { kept, origin }),
    })
}

/// A kept model, whose damaged parts alone come from where it came from.
struct Cached {
    kept: Rc<Kept>,
    origin: Option<HttpSource>,
}

impl Drop for Cached {
    fn drop(&mut self) {
        // The engine lets go of the model a moment after this.
        spawn_local(async {
            Yielder::default().take().await;
            list().await;
        });
    }
}

impl ByteSource for Cached {
    fn place(&self) -> String {
        let origin = self.origin.as_ref().map(ByteSource::place);
        origin.unwrap_or_else(|| "this browser's storage".to_owned())
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            if name == MANIFEST {
                return Ok(self.kept.json.clone());
            }
            let entry = &self.kept.manifest.tokenizer;
            let here = self.kept.tokenizer().await;
            let here = here.and_then(|bytes| entry.check(&bytes).map(|()| bytes));
            match (here, &self.origin) {
                (Ok(bytes), _) => Ok(bytes),
                (Err(_), None) => Err(files_again(name)),
                (Err(_), Some(origin)) => {
                    let bytes = origin.read(name, limit).await?;
                    entry.check(&bytes)?;
                    self.kept.mend_tokenizer(&bytes).await?;
                    Ok(bytes)
                }
            }
        })
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        match &self.origin {
            Some(origin) => origin.range(file, length, range, arrived),
            None => Box::pin(async move { Err(PartialRead::fatal(files_again(file))) }),
        }
    }

    fn max_parallel(&self) -> usize {
        2
    }
}

/// Files the person picked.
struct Picked(HashMap<String, File>);

impl Picked {
    fn new(beside: &JsValue) -> Self {
        let files = beside.dyn_ref::<Array>().cloned().unwrap_or_default();
        let files = files.iter().map(JsValue::unchecked_into::<File>);
        Self(files.map(|file| (file.name(), file)).collect())
    }

    fn find(&self, name: &str) -> Result<&File, Fault> {
        self.0.get(name).ok_or_else(|| missing(&[name]))
    }

    /// Whether every file of the manifest is there with its length.
    fn complete(&self, manifest: &Manifest) -> Result<(), Fault> {
        let shards = manifest.shards.iter().map(|s| (&s.name, s.bytes));
        let tokenizer = (&manifest.tokenizer.name, manifest.tokenizer.bytes);
        let mut absent = Vec::new();
        for (name, bytes) in shards.chain([tokenizer]) {
            match self.0.get(name) {
                None => absent.push(name.as_str()),
                Some(file) if file.size() != bytes as f64 => {
                    let what = format!("has {} bytes instead of {bytes}", file.size());
                    return Err(Fault::model(name, what));
                }
                Some(_) => {}
            }
        }
        match absent.is_empty() {
            true => Ok(()),
            false => Err(missing(&absent)),
        }
    }
}

fn missing(names: &[&str]) -> Fault {
    let verb = if names.len() == 1 { "is" } else { "are" };
    Fault::new(
        FaultKind::Model,
        names.join(", "),
        format!("{verb} not among the files you chose"),
        "Choose the whole folder",
    )
}

fn unread(name: &str, error: &JsValue) -> Fault {
    Fault::new(
        FaultKind::File,
        name,
        format!("could not be read: {}", describe(error)),
        "Choose the files again",
    )
}

impl ByteSource for Picked {
    fn place(&self) -> String {
        "the files you chose".to_owned()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let file = self.find(name)?;
            if file.size() > limit as f64 {
                return Err(too_long(name, file.size() as u64, limit));
            }
            bytes_of(file).await.map_err(|error| unread(name, &error))
        })
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        _length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            let found = self.find(file).map_err(PartialRead::fatal)?;
            let slice = found.slice(range.start as f64, range.end as f64);
            let bytes = bytes_of(&slice).await;
            let bytes = bytes.map_err(|error| PartialRead::fatal(unread(file, &error)))?;
            arrived(bytes.len() as u64);
            if bytes.len() as u64 != range.end - range.start {
                let fault = Fault::model(file, "is shorter than it was when it was chosen");
                return Err(PartialRead::fatal(fault));
            }
            Ok(bytes)
        })
    }

    fn max_parallel(&self) -> usize {
        2
    }
}
