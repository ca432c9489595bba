//! Converts a published checkpoint among files of the user: slices are read from the files, and shards are
//! written into the private storage. The worker is busy meanwhile, so it is one of its own; to cancel, the
//! page ends it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use chatrex::convert::disk::{Host, install};
use chatrex::convert::{ByteProgress, Conversion, Prepared, prepare};
use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::protocol::FromWorker;
use chatrex::protocol::store::{Convertible, Facts, Quantization, StoreEvent};
use chatrex::weights::quant::Rounding;
use chatrex::weights::storage::QuantPreset;
use js_sys::Array;
use wasm_bindgen::prelude::*;

use super::js::{File, bytes_now, describe, name_of, performance_now};
use super::opfs::Draft;
use super::page::post;

/// The folder of the user's files, and that of the model.
const FROM: &str = "the files you chose";
const TO: &str = "model";

/// Weights per scale.
const GROUP: usize = 32;

/// Shortest time between two reports, in milliseconds.
const REPORT_INTERVAL: f64 = 120.0;

/// A checkpoint that was opened.
struct Opened {
    conversion: Conversion,
    prepared: Prepared,
    draft: Rc<RefCell<Option<Draft>>>,
}

thread_local! {
    static OPENED: RefCell<Option<Opened>> = const { RefCell::new(None) };
    /// Bytes written, bytes to write, and the time of the last report.
    static PROGRESS: Cell<(u64, u64, f64)> = const { Cell::new((0, 0, 0.0)) };
}

/// Opens the checkpoint among files of the user.
pub fn inspect(name: String, quantization: Quantization, files: Option<JsValue>) {
    match open(name, quantization, files) {
        Ok(opened) => {
            emit(StoreEvent::Convertible(Box::new(opened.convertible())));
            OPENED.set(Some(opened));
        }
        Err(fault) => emit(StoreEvent::ConversionFailed { fault }),
    }
}

fn emit(event: StoreEvent) {
    post(&FromWorker::Store(event));
}

/// Converts the checkpoint that was opened.
pub async fn convert() {
    let event = match run().await {
        Ok(event) => event,
        Err(fault) => StoreEvent::ConversionFailed { fault },
    };
    emit(event);
}

async fn run() -> Result<StoreEvent, Fault> {
    let Some(opened) = OPENED.take() else {
        let what = "was not opened";
        let fault = Fault::new(
            FaultKind::Model,
            "this checkpoint",
            what,
            "Choose its files again",
        );
        return Err(fault.code(ErrorCode::NotReady));
    };
    let Opened {
        conversion,
        prepared,
        draft,
    } = opened;
    let shards: Vec<_> = prepared
        .shards()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    let total = shards.iter().map(|(_, bytes)| bytes).sum();
    draft.replace(Some(Draft::create(prepared.facts().0, &shards).await?));
    PROGRESS.set((0, total, 0.0));
    let written = prepared.write(&conversion, &Report);
    let made = draft.take().expect("set above");
    match written {
        Ok(json) => {
            let model = made.finish(&json, prepared.tokenizer().1).await?;
            Ok(StoreEvent::Converted { model })
        }
        Err(fault) => {
            made.discard().await;
            Err(fault)
        }
    }
}

fn open(name: String, quantization: Quantization, files: Option<JsValue>) -> Result<Opened, Fault> {
    let files = files.and_then(|files| files.dyn_into::<Array>().ok());
    let files = files.unwrap_or_default();
    let files = files.iter().map(JsValue::unchecked_into::<File>);
    let files: BTreeMap<String, File> = files.map(|file| (file.name(), file)).collect();
    let find = |is: &dyn Fn(&str) -> bool| files.keys().find(|name| is(name)).cloned();
    let gguf = find(&|name| name.ends_with(".gguf"));
    let upn = find(&|name| {
        name.ends_with(".pth") || name.starts_with("upn") && name.ends_with(".safetensors")
    });
    let from = PathBuf::from(FROM);
    let conversion = Conversion {
        model: match gguf {
            Some(gguf) => from.join(gguf),
            None => from.clone(),
        },
        upn: upn.map(|upn| from.join(upn)),
        adapter: None,
        detector: None,
        detector_side: None,
        out: PathBuf::from(TO),
        quant: match quantization {
            Quantization::Q4 => QuantPreset::Q4,
            Quantization::Q8 => QuantPreset::Q8,
            Quantization::F16 => QuantPreset::F16,
        },
        group: GROUP,
        rounding: Rounding::Search,
        template: None,
        prefixes: Vec::new(),
        name: Some(name),
    };
    let draft = Rc::default();
    install(Box::new(Files {
        files,
        draft: Rc::clone(&draft),
    }));
    let prepared = prepare(&conversion)?;
    Ok(Opened {
        conversion,
        prepared,
        draft,
    })
}

impl Opened {
    fn convertible(&self) -> Convertible {
        let (name, precision, licence) = self.prepared.facts();
        let shards = self.prepared.shards().map(|(_, bytes)| bytes);
        let tokenizer = self.prepared.tokenizer().1.len() as u64;
        Convertible {
            facts: Facts {
                name: name.to_owned(),
                precision: precision.to_owned(),
                trained_on: self.prepared.trained_on().to_owned(),
                licence: licence.name.clone(),
                licence_text: licence.notices(),
                bytes: shards.sum::<u64>() + tokenizer,
            },
            needs: self.prepared.needs(),
            warnings: self.prepared.warnings().to_vec(),
        }
    }
}

/// Reports the progress to the page.
struct Report;

impl ByteProgress for Report {
    fn set_total(&self, _bytes: u64) {}

    fn add(&self, bytes: u64) {
        let (done, total, reported) = PROGRESS.get();
        let (done, now) = (done + bytes, performance_now());
        let is_due = now - reported >= REPORT_INTERVAL || done == total;
        PROGRESS.set((done, total, if is_due { now } else { reported }));
        if is_due {
            emit(StoreEvent::Converting { done, total });
        }
    }
}

/// The user's files, and the shards of the model.
struct Files {
    files: BTreeMap<String, File>,
    draft: Rc<RefCell<Option<Draft>>>,
}

impl Files {
    /// A file of the user.
    fn file(&self, path: &Path) -> Option<&File> {
        path.strip_prefix(FROM).ok()?;
        self.files.get(path.file_name()?.to_str()?)
    }
}

impl Host for Files {
    fn length(&self, path: &Path) -> Option<u64> {
        self.file(path).map(|file| file.size() as u64)
    }

    fn list(&self, folder: &Path) -> Vec<PathBuf> {
        self.files.keys().map(|name| folder.join(name)).collect()
    }

    fn read(&self, path: &Path, range: Range<u64>) -> io::Result<Vec<u8>> {
        let length = (range.end - range.start) as usize;
        if let Some(file) = self.file(path) {
            let slice = file.slice(range.start as f64, range.end as f64);
            let bytes = bytes_now(&slice).map_err(|error| failed(&error))?;
            return match bytes.len() == length {
                true => Ok(bytes),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        let mut bytes = vec![0; length];
        let draft = self.draft.borrow();
        let draft = draft.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let read = draft.read(name(path), range.start, &mut bytes);
        read.map_err(|error| failed(&error))?;
        Ok(bytes)
    }

    fn write(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let draft = self.draft.borrow();
        let draft = draft.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let written = draft.write(name(path), at, bytes);
        written.map_err(|error| failed(&error))
    }
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// An exception of the browser.
fn failed(error: &JsValue) -> io::Error {
    let kind = match name_of(error).as_str() {
        "QuotaExceededError" => io::ErrorKind::StorageFull,
        "NotFoundError" => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, describe(error))
}
