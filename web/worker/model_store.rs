//! The model store: previews, downloads, imports and deletions. Each is a task of its own, so that the
//! engine keeps answering meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use chatrex::engine::memory_plan::{kv_cache_dtype, needs, plan_memory};
use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::gpu::device::open;
use chatrex::memory::{Fit, MemoryNeeds};
use chatrex::model::config::ModelConfig;
use chatrex::protocol::store::{
    Activity, DownloadProgress, Facts, ModelId, PICKED, Preview, ShardProgress, ShardState,
    StoreEvent, StoreRequest, StoredModel,
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
use super::convert;
use super::http_source::HttpSource;
use super::js::{File, bytes_of, describe, performance_now};
use super::opfs::{self, Metadata, ModelFolder, Pieces};
use super::page::{self, post};
use super::yielder::Yielder;

/// The hub of `owner/name`.
const HUB: &str = "https://huggingface.co";

/// Shortest time between two progress events, in milliseconds.
const PROGRESS_INTERVAL: f64 = 120.0;

/// Time between two checks whether another tab still locks a model, in milliseconds.
const LOCK_POLL_INTERVAL: u32 = 1_500;

thread_local! {
    /// Whether the next check for locks of other tabs is scheduled.
    static POLLING: Cell<bool> = const { Cell::new(false) };
    /// The previewed models by id.
    static PREVIEWED: RefCell<HashMap<String, Found>> = RefCell::default();
    /// Files of the user that are read where they are.
    static PICKED_FILES: RefCell<Option<Rc<PickedFiles>>> = const { RefCell::new(None) };
    /// Memory plans of stored models by id.
    static FITS: RefCell<HashMap<String, Fit>> = RefCell::default();
    /// The running downloads by id.
    static JOBS: RefCell<HashMap<String, Rc<Job>>> = RefCell::default();
}

/// A manifest and the source of its model.
#[derive(Clone)]
struct Found {
    json: Vec<u8>,
    manifest: Manifest,
    origin: Origin,
}

/// The source of a model.
#[derive(Clone)]
enum Origin {
    /// A base address.
    Address(String),
    /// Files of the user.
    Files(Rc<PickedFiles>),
}

impl Origin {
    fn source(&self, control: &Rc<PauseControl>) -> Rc<dyn ByteSource> {
        match self {
            Self::Address(address) => Rc::new(HttpSource::new(address, Rc::clone(control))),
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

/// The download or import of a model.
struct Job {
    model: ModelId,
    control: Rc<PauseControl>,
    yielder: Yielder,
    /// Whether it waits for the network.
    waiting: Cell<bool>,
    /// Time of the last progress event.
    reported: Cell<f64>,
    stats: Cell<TransferStats>,
    /// Whether its pieces are deleted once it has ended.
    discard: Cell<bool>,
    /// Its model and what of it is on the way, once they are open.
    transfer: RefCell<Option<(Rc<ModelFolder>, Rc<Tally>)>>,
}

impl Job {
    fn new(model: ModelId) -> Rc<Self> {
        Rc::new(Self {
            model,
            control: Rc::default(),
            yielder: Yielder::default(),
            waiting: Cell::new(false),
            reported: Cell::new(f64::NEG_INFINITY),
            stats: Cell::default(),
            discard: Cell::new(false),
            transfer: RefCell::default(),
        })
    }

    fn on_stats(&self, stats: TransferStats) {
        self.stats.set(stats);
        if performance_now() - self.reported.get() >= PROGRESS_INTERVAL {
            self.report();
        }
    }

    fn report(&self) {
        self.reported.set(performance_now());
        let stats = self.stats.get();
        let progress = DownloadProgress {
            done: stats.done,
            total: stats.total,
            fetched: stats.fetched,
            wrong: stats.wrong,
            waiting: self.waiting.get(),
        };
        emit(StoreEvent::Progress {
            model: self.model.clone(),
            progress,
            shards: self.shards(),
        });
    }

    /// Its files, in load order.
    fn shards(&self) -> Vec<ShardProgress> {
        let transfer = self.transfer.borrow();
        let Some((folder, tally)) = &*transfer else {
            return Vec::new();
        };
        let shards = folder.manifest.shards.iter().zip(folder.stored_by_shard());
        let progress = shards.map(|(shard, done)| {
            let (requests, arrived) = tally.of(&shard.name);
            ShardProgress {
                name: shard.name.clone(),
                done,
                total: shard.bytes,
                state: ShardState::of(shard.bytes, done, arrived, requests),
            }
        });
        progress.collect()
    }
}

impl Runtime for Job {
    fn sleep(&self, milliseconds: u32) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let is_retry = self.control() == TransferControl::Run;
            if is_retry && !self.waiting.replace(true) {
                self.report();
            }
            self.control.sleep(milliseconds).await;
            if is_retry {
                self.waiting.set(false);
            }
        })
    }

    fn yield_now(&self) -> LocalFuture<'_, ()> {
        self.yielder.yield_now()
    }

    fn control(&self) -> TransferControl {
        self.control.control()
    }
}

/// Handles a request of the page; files of the user are the attachment.
pub fn receive(request: StoreRequest, attachment: Option<JsValue>) {
    spawn_local(async move {
        match request {
            StoreRequest::List => {}
            StoreRequest::Preview { address } => preview(address).await,
            StoreRequest::PreviewFiles => preview_files(attachment).await,
            StoreRequest::Download { model } => download(model).await,
            StoreRequest::Pause { model } => pause(&model),
            StoreRequest::Cancel { model, keep } => cancel(model, keep).await,
            StoreRequest::Delete { model } => delete(&model).await,
            StoreRequest::Judge { name, needs } => return judge(name, needs).await,
            StoreRequest::Inspect { name, quantization } => {
                return convert::inspect(name, quantization, attachment);
            }
            StoreRequest::Convert => return convert::convert().await,
        }
        list().await;
    });
}

fn emit(event: StoreEvent) {
    post(&FromWorker::Store(event));
}

fn job(model: &ModelId) -> Option<Rc<Job>> {
    JOBS.with_borrow(|jobs| jobs.get(&model.0).cloned())
}

/// Sends the list of the stored models to the page.
pub async fn list() {
    // Without storage the list is empty; a download fails with the reason.
    let Ok(found) = opfs::list().await else {
        return;
    };
    let mut models = Vec::new();
    for listed in found {
        let fit = fit_of(&listed.id, &listed.manifest).await;
        models.push(stored_model(listed, fit));
    }
    let in_other_tab = |model: &StoredModel| model.activity == Activity::InOtherTab;
    if models.iter().any(in_other_tab) && !POLLING.replace(true) {
        spawn_local(async {
            PauseControl::default().sleep(LOCK_POLL_INTERVAL).await;
            POLLING.set(false);
            Box::pin(list()).await;
        });
    }
    emit(StoreEvent::Listed { models });
}

/// The memory plan of a stored model, made once.
async fn fit_of(id: &str, manifest: &Manifest) -> Option<Fit> {
    let known = FITS.with_borrow(|fits| fits.get(id).cloned());
    match known {
        Some(known) => Some(known),
        None => {
            let made = fit(manifest).await?;
            FITS.with_borrow_mut(|fits| fits.insert(id.to_owned(), made.clone()));
            Some(made)
        }
    }
}

/// The engine has opened `device`: the list then says what fits.
pub fn on_device(device: DevicePreference) {
    if page::set_device(device) {
        FITS.with_borrow_mut(HashMap::clear);
        spawn_local(list());
    }
}

/// Whether a model of these needs would run here.
async fn judge(name: String, needs: MemoryNeeds) {
    if let Some(fit) = fit_of_needs(needs).await {
        emit(StoreEvent::Judged { name, fit });
    }
}

async fn fit_of_needs(needs: MemoryNeeds) -> Option<Fit> {
    let device = open(page::device()?).await.ok()?;
    Some(plan_memory(needs, &device, None).await)
}

/// Takes files of the user that the next model is read from.
pub fn pick(files: Option<JsValue>) {
    if files.is_some() {
        PICKED_FILES.set(Some(Rc::new(PickedFiles::new(files))));
    }
}

fn stored_model(listed: opfs::Listed, fit: Option<Fit>) -> StoredModel {
    let model = ModelId(listed.id);
    let activity = match job(&model) {
        Some(job) if job.control() == TransferControl::Pause => Activity::Paused,
        Some(_) => Activity::Downloading,
        None if listed.in_other_tab => Activity::InOtherTab,
        None if opfs::opened(&model.0).is_some() => Activity::Loaded,
        None => Activity::Idle,
    };
    StoredModel {
        facts: facts(&listed.manifest),
        address: listed.metadata.address,
        done: listed.done,
        used: listed.metadata.used,
        activity,
        fit,
        model,
    }
}

fn facts(manifest: &Manifest) -> Facts {
    Facts {
        name: manifest.name.clone(),
        precision: manifest.precision.clone(),
        trained_on: manifest.provenance.trained_on.clone(),
        licence: manifest.licence.name.clone(),
        licence_text: manifest.licence.notices(),
        bytes: manifest.bytes(),
    }
}

async fn preview(address: String) {
    let found = async {
        let base = base_of(&address)?;
        let source = HttpSource::new(&base, Rc::default());
        let json = source.read(MANIFEST, MAX_MANIFEST).await?;
        parse(
            json,
            &format!("{base}/{MANIFEST}"),
            Origin::Address(base.clone()),
        )
    };
    emit_preview(found.await).await;
}

async fn preview_files(attachment: Option<JsValue>) {
    let found = async {
        let files = Rc::new(PickedFiles::new(attachment));
        let json = files.read(MANIFEST, MAX_MANIFEST).await?;
        let found = parse(json, MANIFEST, Origin::Files(Rc::clone(&files)))?;
        files.check(&found.manifest)?;
        Ok(found)
    };
    emit_preview(found.await).await;
}

fn parse(json: Vec<u8>, place: &str, origin: Origin) -> Result<Found, Fault> {
    let manifest = Manifest::parse(&json, place)?;
    ModelConfig::of(&manifest, place)?;
    Ok(Found {
        json,
        manifest,
        origin,
    })
}

/// The memory plan of a model on the engine's device, from its manifest.
async fn fit(manifest: &Manifest) -> Option<Fit> {
    let config = ModelConfig::of(manifest, MANIFEST).ok()?;
    fit_of_needs(needs(manifest, &config, kv_cache_dtype(manifest))).await
}

async fn emit_preview(found: Result<Found, Fault>) {
    match found {
        Ok(found) => {
            let fit = fit(&found.manifest).await;
            let model = ModelId(opfs::id_of(&found.json));
            emit(StoreEvent::Previewed(Preview {
                model: model.clone(),
                facts: facts(&found.manifest),
                address: found.origin.address(),
                fit,
            }));
            PREVIEWED.with_borrow_mut(|previewed| previewed.insert(model.0, found));
        }
        Err(fault) => emit(StoreEvent::PreviewFailed { fault }),
    }
}

/// The base address of a user's input: an address, or a hub's `owner/name[@revision]`.
fn base_of(input: &str) -> Result<String, Fault> {
    let input = input.trim().trim_end_matches('/');
    let input = input.strip_suffix(MANIFEST).unwrap_or(input);
    let input = input.trim_end_matches('/');
    if input.starts_with("http://") || input.starts_with("https://") {
        return Ok(input.to_owned());
    }
    let (name, revision) = input.split_once('@').unwrap_or((input, "main"));
    let is_plain = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(fits)
    };
    match name.split_once('/') {
        Some((owner, name)) if [owner, name, revision].into_iter().all(is_plain) => {
            Ok(format!("{HUB}/{owner}/{name}/resolve/{revision}"))
        }
        _ => Err(Fault::new(
            FaultKind::Model,
            input,
            "is neither an address nor a hub's owner/name",
            "Give the address of a folder that holds model.json",
        )
        .code(ErrorCode::InvalidInput)),
    }
}

/// Downloads or imports a model, or continues after a pause.
async fn download(model: ModelId) {
    if let Some(job) = job(&model) {
        job.control.set(TransferControl::Run);
        return;
    }
    let job = Job::new(model.clone());
    JOBS.with_borrow_mut(|jobs| jobs.insert(model.0.clone(), Rc::clone(&job)));
    let outcome = run(&job).await;
    JOBS.with_borrow_mut(|jobs| jobs.remove(&model.0));
    let is_cancelled = job.control() == TransferControl::Cancel;
    if job.discard.get()
        && let Err(fault) = opfs::delete(&model.0).await
    {
        emit(StoreEvent::Failed { model, fault });
        return;
    }
    match outcome {
        Ok(()) => {
            job.report();
            emit(StoreEvent::Complete { model });
        }
        Err(_) if is_cancelled => {}
        Err(fault) => emit(StoreEvent::Failed { model, fault }),
    }
}

/// Runs a download until it is complete, fails or is cancelled.
async fn run(job: &Rc<Job>) -> Result<(), Fault> {
    let found = PREVIEWED.with_borrow(|previewed| previewed.get(&job.model.0).cloned());
    let stored = ModelFolder::open(&job.model.0).await?;
    let (folder, origin) = match (stored, found) {
        (Some(folder), Some(found)) => {
            let address = found.origin.address();
            if address.is_some() && address != folder.address() {
                folder.set_address(address).await?;
            }
            (folder, found.origin)
        }
        (Some(folder), None) => {
            let address = folder
                .address()
                .ok_or_else(|| needs_files(&folder.manifest.name))?;
            (folder, Origin::Address(address))
        }
        (None, Some(found)) => {
            let entry = &found.manifest.tokenizer;
            let source = found.origin.source(&job.control);
            let tokenizer = source.read(&entry.name, entry.bytes).await?;
            entry.check(&tokenizer)?;
            let metadata = Metadata::new(found.origin.address());
            let folder =
                ModelFolder::create(found.json, found.manifest, &tokenizer, metadata).await?;
            (folder, found.origin)
        }
        (None, None) => {
            return Err(Fault::new(
                FaultKind::Model,
                "this model",
                "is not known any more",
                "Give its address or choose its files again",
            )
            .code(ErrorCode::NotFound));
        }
    };
    list().await;
    let store = Pieces(Rc::clone(&folder));
    let tally = Rc::new(Tally::new(origin.source(&job.control)));
    job.transfer
        .replace(Some((Rc::clone(&folder), Rc::clone(&tally))));
    let report = |stats| job.on_stats(stats);
    let outcome = Downloader::new(&folder.manifest, &*tally, Some(&store), &**job, &report)
        .download()
        .await;
    job.report();
    job.transfer.take();
    outcome
}

/// A source that counts what is on the way of each file.
struct Tally {
    source: Rc<dyn ByteSource>,
    /// Open requests, and the bytes that arrived in them.
    files: RefCell<HashMap<String, (u32, u64)>>,
}

impl Tally {
    fn new(source: Rc<dyn ByteSource>) -> Self {
        Self {
            source,
            files: RefCell::default(),
        }
    }

    fn of(&self, file: &str) -> (u32, u64) {
        self.files.borrow().get(file).copied().unwrap_or_default()
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut (u32, u64))) {
        change(self.files.borrow_mut().entry(file.to_owned()).or_default());
    }
}

impl ByteSource for Tally {
    fn place(&self) -> String {
        self.source.place()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        self.source.read(name, limit)
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        Box::pin(async move {
            self.change(file, |of| of.0 += 1);
            let count = Cell::new(0);
            let on_bytes = |more| {
                count.set(count.get() + more);
                self.change(file, |of| of.1 += more);
                arrived(more);
            };
            let read = self.source.range(file, length, range, &on_bytes).await;
            self.change(file, |of| {
                of.0 = of.0.saturating_sub(1);
                of.1 = of.1.saturating_sub(count.get());
            });
            read
        })
    }

    fn max_parallel(&self) -> usize {
        self.source.max_parallel()
    }
}

/// The fault of a model that was imported and needs its files again.
fn needs_files(name: &str) -> Fault {
    Fault::new(
        FaultKind::Model,
        name,
        "came from files of yours, and some are missing or damaged here",
        "Choose the files again",
    )
    .code(ErrorCode::NotFound)
}

fn pause(model: &ModelId) {
    if let Some(job) = job(model) {
        job.control.set(TransferControl::Pause);
    }
}

async fn cancel(model: ModelId, keep: bool) {
    match job(&model) {
        Some(job) => {
            job.discard.set(!keep);
            job.control.set(TransferControl::Cancel);
        }
        None if !keep => delete(&model).await,
        None => {}
    }
}

async fn delete(model: &ModelId) {
    if let Err(fault) = opfs::delete(&model.0).await {
        let model = model.clone();
        emit(StoreEvent::Failed { model, fault });
    }
}

/// The files of a model for the engine: a stored one, or those at an address.
///
/// # Errors
/// It is not stored, another tab has locked it, or its download is not complete.
pub async fn files(model: &str, control: &Rc<PauseControl>) -> Result<ModelFiles, Fault> {
    if model.starts_with(PICKED) {
        let files = PICKED_FILES.with_borrow(Option::clone);
        let files = files.ok_or_else(|| needs_files("this model"))?;
        return Ok(ModelFiles {
            source: Box::new(Shared(files)),
            store: None,
        });
    }
    let Some(id) = ModelId::from_address(model) else {
        return Ok(ModelFiles {
            source: Box::new(HttpSource::new(model, Rc::clone(control))),
            store: None,
        });
    };
    if job(&id).is_some() {
        return Err(Fault::new(
            FaultKind::Model,
            "this model",
            "is not here as a whole yet",
            "Wait for it, then load it",
        )
        .code(ErrorCode::NotReady));
    }
    let folder = ModelFolder::open(&id.0).await?.ok_or_else(|| {
        Fault::new(
            FaultKind::Model,
            "this model",
            "is not kept in this browser any more",
            "Download or import it again",
        )
        .code(ErrorCode::NotFound)
    })?;
    folder.touch().await;
    let address = folder.address();
    let origin = address.map(|address| HttpSource::new(&address, Rc::clone(control)));
    spawn_local(list());
    Ok(ModelFiles {
        store: Some(Box::new(Pieces(Rc::clone(&folder)))),
        source: Box::new(StoredSource { folder, origin }),
    })
}

/// Files of the user that are read where they are.
struct Shared(Rc<PickedFiles>);

impl ByteSource for Shared {
    fn place(&self) -> String {
        self.0.place()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        self.0.read(name, limit)
    }

    fn range<'a>(
        &'a self,
        file: &'a str,
        length: u64,
        range: Range<u64>,
        arrived: &'a dyn Fn(u64),
    ) -> LocalFuture<'a, Result<Vec<u8>, PartialRead>> {
        self.0.range(file, length, range, arrived)
    }

    fn max_parallel(&self) -> usize {
        self.0.max_parallel()
    }
}

/// The source of a stored model: damaged parts are fetched again from its origin.
struct StoredSource {
    folder: Rc<ModelFolder>,
    origin: Option<HttpSource>,
}

impl Drop for StoredSource {
    fn drop(&mut self) {
        // The engine drops the model shortly after this.
        spawn_local(async {
            Yielder::default().yield_now().await;
            list().await;
        });
    }
}

impl ByteSource for StoredSource {
    fn place(&self) -> String {
        let origin = self.origin.as_ref().map(ByteSource::place);
        origin.unwrap_or_else(|| "this browser's storage".to_owned())
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            if name == MANIFEST {
                return Ok(self.folder.json.clone());
            }
            let entry = &self.folder.manifest.tokenizer;
            let stored = self.folder.tokenizer().await;
            let stored = stored.and_then(|bytes| entry.check(&bytes).map(|()| bytes));
            match (stored, &self.origin) {
                (Ok(bytes), _) => Ok(bytes),
                (Err(_), None) => Err(needs_files(name)),
                (Err(_), Some(origin)) => {
                    let bytes = origin.read(name, limit).await?;
                    entry.check(&bytes)?;
                    self.folder.write_tokenizer(&bytes).await?;
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
            None => Box::pin(async move { Err(PartialRead::fatal(needs_files(file))) }),
        }
    }

    fn max_parallel(&self) -> usize {
        2
    }
}

/// Files that the user picked.
struct PickedFiles(HashMap<String, File>);

impl PickedFiles {
    fn new(attachment: Option<JsValue>) -> Self {
        let files = attachment.and_then(|files| files.dyn_into::<Array>().ok());
        let files = files.unwrap_or_default();
        let files = files.iter().map(JsValue::unchecked_into::<File>);
        Self(files.map(|file| (file.name(), file)).collect())
    }

    fn find(&self, name: &str) -> Result<&File, Fault> {
        self.0.get(name).ok_or_else(|| missing(&[name]))
    }

    /// Checks that every file of the manifest is there with its length.
    fn check(&self, manifest: &Manifest) -> Result<(), Fault> {
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
    let what = match names.len() {
        1 => "is not among the files you chose",
        _ => "are not among the files you chose",
    };
    Fault::new(
        FaultKind::Model,
        names.join(", "),
        what,
        "Choose the whole folder",
    )
    .code(ErrorCode::NotFound)
}

fn unreadable(name: &str, error: &JsValue) -> Fault {
    Fault::new(
        FaultKind::File,
        name,
        format!("could not be read: {}", describe(error)),
        "Choose the files again",
    )
}

impl ByteSource for PickedFiles {
    fn place(&self) -> String {
        "the files you chose".to_owned()
    }

    fn read<'a>(&'a self, name: &'a str, limit: u64) -> LocalFuture<'a, Result<Vec<u8>, Fault>> {
        Box::pin(async move {
            let file = self.find(name)?;
            if file.size() > limit as f64 {
                return Err(too_long(name, file.size() as u64, limit));
            }
            bytes_of(file)
                .await
                .map_err(|error| unreadable(name, &error))
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
            let bytes = bytes.map_err(|error| PartialRead::fatal(unreadable(file, &error)))?;
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
