//! Models kept in this origin's private file system: `models/<id>/` with the manifest, the
//! tokenizer, the shards at their full length, one mark per piece, and what the shelf says of it.
//!
//! The manifest is written last: a folder without one is no model and is swept away. A mark is a
//! hint, for pieces are hashed again when they are read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use chatrex::error::{Fault, FaultKind};
use chatrex::weights::Manifest;
use chatrex::weights::manifest::{MANIFEST, sha256_hex};
use chatrex::weights::source::{Piece, PieceStore};
use js_sys::Date;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use super::js::{
    self, Directory, File, FileHandle, Lock, OpenFile, bytes_of, describe, get_directory, name_of,
    names_in, object, wait,
};

const MODELS: &str = "models";
const MARKS: &str = "pieces.bin";
const SHELF: &str = "shelf.json";

/// A file just left by a worker that ended may stay taken for a moment.
const ATTEMPTS: u32 = 20;

/// What the shelf says of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Where it came from; none for files of the person.
    pub address: Option<String>,
    /// When it was added, in milliseconds since 1970.
    pub added: f64,
    /// When it was last loaded.
    pub used: Option<f64>,
}

impl Metadata {
    /// A model from `address` that is added now.
    pub fn new(address: Option<String>) -> Self {
        Self {
            address,
            added: Date::now(),
            used: None,
        }
    }
}

/// The identity of a model: the beginning of its manifest's hash.
pub fn id_of(json: &[u8]) -> String {
    sha256_hex(json)[..16].to_owned()
}

thread_local! {
    /// The models this worker holds.
    static HELD: RefCell<HashMap<String, Weak<Kept>>> = RefCell::default();
}

/// A kept model, held by this worker alone until it is dropped.
pub struct Kept {
    /// The manifest's own bytes.
    pub json: Vec<u8>,
    /// What they say.
    pub manifest: Manifest,
    folder: Directory,
    shards: HashMap<String, OpenFile>,
    marks: OpenFile,
    marked: RefCell<Vec<u8>>,
    label: RefCell<Metadata>,
    _lock: Lock,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shards.values().for_each(OpenFile::close);
        self.marks.close();
    }
}

impl Kept {
    /// The model called `id`, if it is here.
    ///
    /// # Errors
    /// Another tab has it, or its files cannot be opened.
    pub async fn open(id: &str) -> Result<Option<Rc<Self>>, Fault> {
        if let Some(kept) = held(id) {
            return Ok(Some(kept));
        }
        let Some(folder) = find(id).await? else {
            return Ok(None);
        };
        let lock = lock(id).await?;
        let Ok(json) = read(&folder, MANIFEST).await else {
            return Ok(None);
        };
        let manifest = Manifest::parse(&json, MANIFEST)?;
        let label = read(&folder, SHELF).await.ok();
        let label = label.and_then(|json| serde_json::from_slice(&json).ok());
        let label = label.unwrap_or_else(|| Metadata::new(None));
        Self::take(id, folder, lock, json, manifest, label)
            .await
            .map(Some)
    }

    /// Makes room for a model and holds it.
    ///
    /// # Errors
    /// There is no room, another tab has it, or the storage fails. Nothing is left behind then.
    pub async fn create(
        json: Vec<u8>,
        manifest: Manifest,
        tokenizer: &[u8],
        label: Metadata,
    ) -> Result<Rc<Self>, Fault> {
        let id = id_of(&json);
        let lock = lock(&id).await?;
        let models = models().await?;
        let made = Self::fill(&models, &id, &json, &manifest, tokenizer, &label).await;
        match made {
            Ok(folder) => Self::take(&id, folder, lock, json, manifest, label).await,
            Err(error) => {
                let whole = object(&[("recursive", JsValue::TRUE)]);
                let _ = wait::<JsValue>(models.remove(&id, &whole)).await;
                Err(stuck(&manifest.name, manifest.bytes(), &error))
            }
        }
    }

    async fn fill(
        models: &Directory,
        id: &str,
        json: &[u8],
        manifest: &Manifest,
        tokenizer: &[u8],
        label: &Metadata,
    ) -> Result<Directory, JsValue> {
        let folder: Directory = wait(models.directory(id, &create())).await?;
        for shard in &manifest.shards {
            let file = take_file(&folder, &shard.name, &create()).await?;
            let reserved = file.truncate(shard.bytes as f64);
            file.close();
            reserved?;
        }
        let pieces: usize = manifest.shards.iter().map(|s| s.pieces.len()).sum();
        write(&folder, MARKS, &vec![0; pieces]).await?;
        write(&folder, &manifest.tokenizer.name, tokenizer).await?;
        write(&folder, SHELF, &to_json(label)).await?;
        write(&folder, MANIFEST, json).await?;
        Ok(folder)
    }

    async fn take(
        id: &str,
        folder: Directory,
        lock: Lock,
        json: Vec<u8>,
        manifest: Manifest,
        label: Metadata,
    ) -> Result<Rc<Self>, Fault> {
        let fail = |error: JsValue| stuck(&manifest.name, manifest.bytes(), &error);
        let existing = object(&[]);
        let mut shards = HashMap::new();
        for shard in &manifest.shards {
            let file = take_file(&folder, &shard.name, &create())
                .await
                .map_err(fail)?;
            if file.get_size().map_err(fail)? != shard.bytes as f64 {
                file.truncate(shard.bytes as f64).map_err(fail)?;
            }
            shards.insert(shard.name.clone(), file);
        }
        let marks = take_file(&folder, MARKS, &existing).await;
        let marks = marks.map_err(fail)?;
        let pieces: usize = manifest.shards.iter().map(|s| s.pieces.len()).sum();
        let mut marked = vec![0; pieces];
        marks.read(&mut marked, &at(0)).map_err(fail)?;
        let kept = Rc::new(Self {
            json,
            manifest,
            folder,
            shards,
            marks,
            marked: RefCell::new(marked),
            label: RefCell::new(label),
            _lock: lock,
        });
        HELD.with_borrow_mut(|held| held.insert(id.to_owned(), Rc::downgrade(&kept)));
        Ok(kept)
    }

    /// Where it came from.
    pub fn address(&self) -> Option<String> {
        self.label.borrow().address.clone()
    }

    /// Notes where its pieces can be had.
    ///
    /// # Errors
    /// The storage fails.
    pub async fn move_to(&self, address: Option<String>) -> Result<(), Fault> {
        self.label.borrow_mut().address = address;
        self.write_label().await
    }

    /// Notes that it is loaded now.
    pub async fn touch(&self) {
        self.label.borrow_mut().used = Some(Date::now());
        // Only the list's order suffers where this is not written.
        let _ = self.write_label().await;
    }

    async fn write_label(&self) -> Result<(), Fault> {
        let json = to_json(&self.label.borrow());
        let written = write(&self.folder, SHELF, &json).await;
        written.map_err(|error| stuck(&self.manifest.name, json.len() as u64, &error))
    }

    /// The tokenizer as it was stored.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn tokenizer(&self) -> Result<Vec<u8>, Fault> {
        let name = &self.manifest.tokenizer.name;
        let bytes = read(&self.folder, name).await;
        bytes.map_err(|error| unreadable(name, &error))
    }

    /// Stores the tokenizer again.
    ///
    /// # Errors
    /// The storage fails.
    pub async fn mend_tokenizer(&self, bytes: &[u8]) -> Result<(), Fault> {
        let name = &self.manifest.tokenizer.name;
        let written = write(&self.folder, name, bytes).await;
        written.map_err(|error| stuck(name, bytes.len() as u64, &error))
    }

    fn mark(&self, number: usize, mark: u8) -> Result<(), JsValue> {
        self.marks.write(&[mark], &at(number as u64))?;
        self.marks.flush()?;
        self.marked.borrow_mut()[number] = mark;
        Ok(())
    }
}

/// The pieces of a kept model.
pub struct Pieces(pub Rc<Kept>);

impl PieceStore for Pieces {
    fn has(&self, piece: &Piece) -> bool {
        self.0.marked.borrow()[piece.number] == 1
    }

    fn read(&self, piece: &Piece) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; (piece.range.end - piece.range.start) as usize];
        let read = self.0.shards[piece.shard].read(&mut bytes, &at(piece.range.start));
        read.map_err(|error| unreadable(piece.shard, &error))?;
        Ok(bytes)
    }

    fn write(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Fault> {
        let shard = &self.0.shards[piece.shard];
        let written = shard
            .write(bytes, &at(piece.range.start))
            .and_then(|count| match count == bytes.len() as f64 {
                true => shard.flush(),
                false => Err(JsValue::from_str("a write was cut short")),
            })
            .and_then(|()| self.0.mark(piece.number, 1));
        written.map_err(|error| stuck(&self.0.manifest.name, self.0.manifest.bytes(), &error))
    }

    fn forget(&self, piece: &Piece) {
        // A mark left standing costs one more hash at the next reading.
        let _ = self.0.mark(piece.number, 0);
    }
}

/// A kept model as the shelf lists it.
pub struct Listed {
    /// Its identity.
    pub id: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// What the shelf says of it.
    pub label: Metadata,
    /// Bytes that are here.
    pub done: u64,
    /// Another tab has it.
    pub elsewhere: bool,
}

/// Everything that is kept. What is no model, and in nobody's hands, is swept away.
///
/// # Errors
/// This browser keeps nothing for pages here.
pub async fn list() -> Result<Vec<Listed>, Fault> {
    let models = models().await?;
    let fail = |error| unreadable(MODELS, &error);
    let locks = Lock::held().await.map_err(fail)?;
    let mut found = Vec::new();
    for id in names_in(&models).await.map_err(fail)? {
        let elsewhere = held(&id).is_none() && locks.contains(&lock_name(&id));
        match listed(&models, &id, elsewhere).await {
            Some(listed) => found.push(listed),
            None if locks.contains(&lock_name(&id)) => {}
            None => {
                let whole = object(&[("recursive", JsValue::TRUE)]);
                let _ = wait::<JsValue>(models.remove(&id, &whole)).await;
            }
        }
    }
    let key = |l: &Listed| (l.manifest.name.clone(), l.label.added as u64);
    found.sort_by_key(key);
    Ok(found)
}

async fn listed(models: &Directory, id: &str, elsewhere: bool) -> Option<Listed> {
    let folder: Directory = wait(models.directory(id, &object(&[]))).await.ok()?;
    let json = read(&folder, MANIFEST).await.ok()?;
    let manifest = Manifest::parse(&json, MANIFEST).ok()?;
    let label = read(&folder, SHELF).await.ok();
    let label = label.and_then(|json| serde_json::from_slice(&json).ok());
    let marked = match held(id) {
        Some(kept) => kept.marked.borrow().clone(),
        None => read(&folder, MARKS).await.unwrap_or_default(),
    };
    let pieces = chatrex::weights::download::pieces(&manifest);
    let here = pieces.iter().filter(|p| marked.get(p.number) == Some(&1));
    let done = here.map(|p| p.range.end - p.range.start).sum::<u64>();
    Some(Listed {
        id: id.to_owned(),
        done: done + manifest.tokenizer.bytes,
        manifest,
        label: label.unwrap_or_else(|| Metadata::new(None)),
        elsewhere,
    })
}

/// Deletes a kept model that nobody holds.
///
/// # Errors
/// It is held here or in another tab, or the storage fails.
pub async fn delete(id: &str) -> Result<(), Fault> {
    if held(id).is_some() {
        return Err(Fault::new(
            FaultKind::File,
            "this model",
            "is loaded",
            "Unload it first, then delete it",
        ));
    }
    if find(id).await?.is_none() {
        return Ok(());
    }
    let _lock = lock(id).await?;
    let whole = object(&[("recursive", JsValue::TRUE)]);
    let removed = wait::<JsValue>(models().await?.remove(id, &whole)).await;
    removed
        .map(|_| ())
        .map_err(|error| stuck("this model", 0, &error))
}

/// The model called `id` where this worker holds it.
pub fn held(id: &str) -> Option<Rc<Kept>> {
    HELD.with_borrow(|held| held.get(id).and_then(Weak::upgrade))
}

fn lock_name(id: &str) -> String {
    format!("chatrex model {id}")
}

/// Holds a model's files against other tabs.
async fn lock(id: &str) -> Result<Lock, Fault> {
    for _ in 0..ATTEMPTS {
        let lock = Lock::get(&lock_name(id)).await;
        if let Some(lock) = lock.map_err(|error| unreadable(MODELS, &error))? {
            return Ok(lock);
        }
        pause().await;
    }
    Err(Fault::new(
        FaultKind::File,
        "this model",
        "is in use in another tab",
        "Unload it or close that tab, then try again",
    ))
}

async fn pause() {
    let later = js_sys::Promise::new(&mut |resolve, _| {
        js::set_timeout(&resolve, 50.0);
    });
    let _ = wait::<JsValue>(later).await;
}

async fn models() -> Result<Directory, Fault> {
    let root = get_directory().map_err(|error| unavailable(&error))?;
    let root: Directory = wait(root).await.map_err(|error| unavailable(&error))?;
    let models = wait(root.directory(MODELS, &create())).await;
    models.map_err(|error| unavailable(&error))
}

async fn find(id: &str) -> Result<Option<Directory>, Fault> {
    let models = models().await?;
    let plain = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(match plain {
        true => wait(models.directory(id, &object(&[]))).await.ok(),
        false => None,
    })
}

/// Opens a file of a folder for reading and writing at once.
async fn take_file(folder: &Directory, name: &str, options: &JsValue) -> Result<OpenFile, JsValue> {
    let file: FileHandle = wait(folder.file(name, options)).await?;
    let mut attempt = 1;
    loop {
        match wait(file.open()).await {
            Err(error) if attempt < ATTEMPTS && name_of(&error) == TAKEN => pause().await,
            opened => return opened,
        }
        attempt += 1;
    }
}

const TAKEN: &str = "NoModificationAllowedError";

async fn read(folder: &Directory, name: &str) -> Result<Vec<u8>, JsValue> {
    let file: FileHandle = wait(folder.file(name, &object(&[]))).await?;
    let file: File = wait(file.get_file()).await?;
    bytes_of(&file).await
}

async fn write(folder: &Directory, name: &str, bytes: &[u8]) -> Result<(), JsValue> {
    let file = take_file(folder, name, &create()).await?;
    let written = (file.truncate(0.0))
        .and_then(|()| file.write(bytes, &at(0)))
        .and_then(|count| match count == bytes.len() as f64 {
            true => file.flush(),
            false => Err(JsValue::from_str("a write was cut short")),
        });
    file.close();
    written
}

fn to_json(label: &Metadata) -> Vec<u8> {
    serde_json::to_vec(label).expect("a label has string keys only")
}

fn create() -> JsValue {
    object(&[("create", JsValue::TRUE)])
}

fn at(byte: u64) -> JsValue {
    object(&[("at", JsValue::from_f64(byte as f64))])
}

/// The fault of storage that takes no more.
fn stuck(name: &str, bytes: u64, error: &JsValue) -> Fault {
    match name_of(error).as_str() {
        "QuotaExceededError" => Fault::new(
            FaultKind::File,
            name,
            format!(
                "This needs {} and the browser refused the space",
                size(bytes)
            ),
            "Delete another model, or free space on this device",
        ),
        TAKEN => Fault::new(
            FaultKind::File,
            name,
            "is in use in another tab",
            "Unload it or close that tab, then try again",
        ),
        _ => Fault::new(
            FaultKind::File,
            name,
            format!("could not be stored: {}", describe(error)),
            "Delete another model, or free space on this device",
        ),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn unreadable(name: &str, error: &JsValue) -> Fault {
    Fault::new(
        FaultKind::File,
        name,
        format!(
            "could not be read from this browser's storage: {}",
            describe(error)
        ),
        "Try again, or delete the model and bring it here again",
    )
}

fn unavailable(error: &JsValue) -> Fault {
    Fault::new(
        FaultKind::File,
        "this browser",
        format!("keeps no files for this page: {}", describe(error)),
        "Open the page over HTTPS and outside a private window",
    )
}
