//! Models in the origin private file system: `models/<id>/` with the manifest, the tokenizer, the
//! shards at their full length, a bitmap of the stored pieces (one byte each), and metadata.
//!
//! The manifest is written last; a folder without one is deleted. The bitmap is a hint: pieces are
//! hashed again when they are read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::protocol::store::ModelId;
use chatrex::weights::Manifest;
use chatrex::weights::manifest::{MANIFEST, Shard, sha256_hex};
use chatrex::weights::source::{Piece, PieceStore};
use js_sys::Date;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use super::js::{
    self, Directory, File, FileHandle, OpenFile, bytes_of, describe, get_directory, held_locks,
    name_of, names_in, object, wait,
};
use super::locks::Lock;

const MODELS: &str = "models";
const BITMAP: &str = "pieces.bin";
const METADATA: &str = "shelf.json";

/// Attempts to open a file: that of a terminated worker stays locked for a moment.
const ATTEMPTS: u32 = 20;

/// The metadata of a stored model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Its address; `None` for files of the user.
    pub address: Option<String>,
    /// Time of the first download, in milliseconds since 1970.
    pub added: f64,
    /// Time of the last load.
    pub used: Option<f64>,
}

impl Metadata {
    /// The metadata of a model that is added now.
    pub fn new(address: Option<String>) -> Self {
        Self {
            address,
            added: Date::now(),
            used: None,
        }
    }
}

/// The identity of a model: the first digits of its manifest's SHA-256.
pub fn id_of(json: &[u8]) -> String {
    sha256_hex(json)[..16].to_owned()
}

thread_local! {
    /// The models that this worker has open.
    static OPENED: RefCell<HashMap<String, Weak<ModelFolder>>> = RefCell::default();
}

/// The open folder of a stored model, locked against other tabs until it is dropped.
pub struct ModelFolder {
    /// The manifest's own bytes.
    pub json: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    folder: Directory,
    shards: HashMap<String, OpenFile>,
    bitmap_file: OpenFile,
    /// 1 for each stored piece.
    bitmap: RefCell<Vec<u8>>,
    metadata: RefCell<Metadata>,
    _lock: Lock,
}

impl Drop for ModelFolder {
    fn drop(&mut self) {
        self.shards.values().for_each(OpenFile::close);
        self.bitmap_file.close();
    }
}

impl ModelFolder {
    /// Opens the model `id`, if it is stored.
    ///
    /// # Errors
    /// Another tab has locked it, or its files cannot be opened.
    pub async fn open(id: &str) -> Result<Option<Rc<Self>>, Fault> {
        if let Some(folder) = opened(id) {
            return Ok(Some(folder));
        }
        let Some(folder) = find(id).await? else {
            return Ok(None);
        };
        let lock = lock(id).await?;
        let Ok(json) = read(&folder, MANIFEST).await else {
            return Ok(None);
        };
        let manifest = Manifest::parse(&json, MANIFEST)?;
        let metadata = read_metadata(&folder).await;
        Self::open_files(id, folder, lock, json, manifest, metadata)
            .await
            .map(Some)
    }

    /// Reserves the storage of a model and opens it.
    ///
    /// # Errors
    /// There is no space, another tab has locked it, or the storage fails. Nothing is left behind then.
    pub async fn create(
        json: Vec<u8>,
        manifest: Manifest,
        tokenizer: &[u8],
        metadata: Metadata,
    ) -> Result<Rc<Self>, Fault> {
        let id = id_of(&json);
        let lock = lock(&id).await?;
        let models = models().await?;
        let reserved = Self::reserve(&models, &id, &json, &manifest, tokenizer, &metadata).await;
        match reserved {
            Ok(folder) => Self::open_files(&id, folder, lock, json, manifest, metadata).await,
            Err(error) => {
                let _ = wait::<JsValue>(models.remove(&id, &recursive())).await;
                Err(unwritable(&manifest.name, manifest.bytes(), &error))
            }
        }
    }

    async fn reserve(
        models: &Directory,
        id: &str,
        json: &[u8],
        manifest: &Manifest,
        tokenizer: &[u8],
        metadata: &Metadata,
    ) -> Result<Directory, JsValue> {
        let folder: Directory = wait(models.directory(id, &create())).await?;
        for shard in &manifest.shards {
            let file = open_file(&folder, &shard.name, &create()).await?;
            let reserved = file.truncate(shard.bytes as f64);
            file.close();
            reserved?;
        }
        let pieces: usize = manifest.shards.iter().map(|s| s.pieces.len()).sum();
        write(&folder, BITMAP, &vec![0; pieces]).await?;
        write(&folder, &manifest.tokenizer.name, tokenizer).await?;
        write(&folder, METADATA, &to_json(metadata)).await?;
        write(&folder, MANIFEST, json).await?;
        Ok(folder)
    }

    async fn open_files(
        id: &str,
        folder: Directory,
        lock: Lock,
        json: Vec<u8>,
        manifest: Manifest,
        metadata: Metadata,
    ) -> Result<Rc<Self>, Fault> {
        let fail = |error: JsValue| unwritable(&manifest.name, manifest.bytes(), &error);
        let existing = object(&[]);
        let mut shards = HashMap::new();
        for shard in &manifest.shards {
            let file = open_file(&folder, &shard.name, &create())
                .await
                .map_err(fail)?;
            if file.get_size().map_err(fail)? != shard.bytes as f64 {
                file.truncate(shard.bytes as f64).map_err(fail)?;
            }
            shards.insert(shard.name.clone(), file);
        }
        let bitmap_file = open_file(&folder, BITMAP, &existing).await;
        let bitmap_file = bitmap_file.map_err(fail)?;
        let pieces: usize = manifest.shards.iter().map(|s| s.pieces.len()).sum();
        let mut bitmap = vec![0; pieces];
        bitmap_file.read(&mut bitmap, &at(0)).map_err(fail)?;
        let opened = Rc::new(Self {
            json,
            manifest,
            folder,
            shards,
            bitmap_file,
            bitmap: RefCell::new(bitmap),
            metadata: RefCell::new(metadata),
            _lock: lock,
        });
        OPENED.with_borrow_mut(|all| all.insert(id.to_owned(), Rc::downgrade(&opened)));
        Ok(opened)
    }

    /// Its address; `None` for files of the user.
    pub fn address(&self) -> Option<String> {
        self.metadata.borrow().address.clone()
    }

    /// Sets its address.
    ///
    /// # Errors
    /// The storage fails.
    pub async fn set_address(&self, address: Option<String>) -> Result<(), Fault> {
        self.metadata.borrow_mut().address = address;
        self.write_metadata().await
    }

    /// Sets the time of the last load to now.
    pub async fn touch(&self) {
        self.metadata.borrow_mut().used = Some(Date::now());
        // A failure only loses the time.
        let _ = self.write_metadata().await;
    }

    async fn write_metadata(&self) -> Result<(), Fault> {
        let json = to_json(&self.metadata.borrow());
        let written = write(&self.folder, METADATA, &json).await;
        written.map_err(|error| unwritable(&self.manifest.name, json.len() as u64, &error))
    }

    /// The stored tokenizer.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn tokenizer(&self) -> Result<Vec<u8>, Fault> {
        let name = &self.manifest.tokenizer.name;
        let bytes = read(&self.folder, name).await;
        bytes.map_err(|error| unreadable(name, &error))
    }

    /// Writes the tokenizer.
    ///
    /// # Errors
    /// The storage fails.
    pub async fn write_tokenizer(&self, bytes: &[u8]) -> Result<(), Fault> {
        let name = &self.manifest.tokenizer.name;
        let written = write(&self.folder, name, bytes).await;
        written.map_err(|error| unwritable(name, bytes.len() as u64, &error))
    }

    /// Bytes stored of each shard, in load order.
    pub fn stored_by_shard(&self) -> Vec<u64> {
        let bitmap = self.bitmap.borrow();
        let pieces = chatrex::weights::download::pieces(&self.manifest);
        let stored = |shard: &Shard| {
            let of_shard = pieces.iter().filter(|piece| piece.shard == shard.name);
            let stored = of_shard.filter(|piece| bitmap.get(piece.number) == Some(&1));
            stored
                .map(|piece| piece.range.end - piece.range.start)
                .sum()
        };
        self.manifest.shards.iter().map(stored).collect()
    }

    fn set_stored(&self, piece: usize, is_stored: bool) -> Result<(), JsValue> {
        let value = u8::from(is_stored);
        self.bitmap_file.write(&[value], &at(piece as u64))?;
        self.bitmap_file.flush()?;
        self.bitmap.borrow_mut()[piece] = value;
        Ok(())
    }
}

/// A model that is being made. Without its manifest the folder holds no model: it is deleted once the
/// worker has ended.
pub struct Draft {
    id: String,
    name: String,
    folder: Directory,
    shards: HashMap<String, OpenFile>,
    bytes: u64,
    _lock: Lock,
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.shards.values().for_each(OpenFile::close);
    }
}

impl Draft {
    /// Reserves the storage of a model with these shards.
    ///
    /// # Errors
    /// There is no space, or the storage fails. Nothing is left behind then.
    pub async fn create(name: &str, shards: &[(String, u64)]) -> Result<Self, Fault> {
        let id = id_of(format!("{name} {} {}", Date::now(), js_sys::Math::random()).as_bytes());
        let lock = lock(&id).await?;
        let models = models().await?;
        let bytes = shards.iter().map(|(_, bytes)| bytes).sum();
        let fail = |error: JsValue| unwritable(name, bytes, &error);
        let folder: Directory = wait(models.directory(&id, &create())).await.map_err(fail)?;
        let mut draft = Self {
            id,
            name: name.to_owned(),
            folder,
            shards: HashMap::new(),
            bytes,
            _lock: lock,
        };
        match draft.reserve(shards).await {
            Ok(()) => Ok(draft),
            Err(error) => {
                draft.discard().await;
                Err(unwritable(name, bytes, &error))
            }
        }
    }

    async fn reserve(&mut self, shards: &[(String, u64)]) -> Result<(), JsValue> {
        for (name, bytes) in shards {
            let file = open_file(&self.folder, name, &create()).await?;
            let reserved = file.truncate(*bytes as f64);
            self.shards.insert(name.clone(), file);
            reserved?;
        }
        Ok(())
    }

    /// Bytes of a shard from byte `at` on.
    ///
    /// # Errors
    /// There is no such shard, or it cannot be read.
    pub fn read(&self, shard: &str, at_byte: u64, bytes: &mut [u8]) -> Result<(), JsValue> {
        let file = self.shards.get(shard).ok_or(JsValue::UNDEFINED)?;
        file.read(bytes, &at(at_byte)).map(drop)
    }

    /// Writes bytes of a shard from byte `at` on.
    ///
    /// # Errors
    /// There is no such shard, or no room.
    pub fn write(&self, shard: &str, at_byte: u64, bytes: &[u8]) -> Result<(), JsValue> {
        let file = self.shards.get(shard).ok_or(JsValue::UNDEFINED)?;
        match file.write(bytes, &at(at_byte))? {
            count if count == bytes.len() as f64 => Ok(()),
            _ => Err(JsValue::from_str("a write was cut short")),
        }
    }

    /// Completes the model; its manifest comes last.
    ///
    /// # Errors
    /// The storage fails. Nothing is left behind then.
    pub async fn finish(self, json: &[u8], tokenizer: &[u8]) -> Result<ModelId, Fault> {
        match self.complete(json, tokenizer).await {
            Ok(()) => Ok(ModelId(self.id.clone())),
            Err(error) => {
                let fault = unwritable(&self.name, self.bytes, &error);
                self.discard().await;
                Err(fault)
            }
        }
    }

    async fn complete(&self, json: &[u8], tokenizer: &[u8]) -> Result<(), JsValue> {
        let manifest = Manifest::parse(json, MANIFEST);
        let manifest = manifest.map_err(|fault| JsValue::from_str(&fault.to_string()))?;
        for file in self.shards.values() {
            file.flush()?;
        }
        let pieces: usize = manifest.shards.iter().map(|s| s.pieces.len()).sum();
        write(&self.folder, BITMAP, &vec![1; pieces]).await?;
        write(&self.folder, &manifest.tokenizer.name, tokenizer).await?;
        write(&self.folder, METADATA, &to_json(&Metadata::new(None))).await?;
        write(&self.folder, MANIFEST, json).await
    }

    /// Deletes what was written.
    pub async fn discard(self) {
        let id = self.id.clone();
        drop(self);
        if let Ok(models) = models().await {
            // What stays is deleted with the next list.
            let _ = wait::<JsValue>(models.remove(&id, &recursive())).await;
        }
    }
}

/// The pieces of a stored model.
pub struct Pieces(pub Rc<ModelFolder>);

impl PieceStore for Pieces {
    fn has(&self, piece: &Piece) -> bool {
        self.0.bitmap.borrow()[piece.number] == 1
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
            .and_then(|()| self.0.set_stored(piece.number, true));
        written.map_err(|error| unwritable(&self.0.manifest.name, self.0.manifest.bytes(), &error))
    }

    fn forget(&self, piece: &Piece) {
        // A failure costs one more hash at the next read.
        let _ = self.0.set_stored(piece.number, false);
    }
}

/// A stored model in the list.
pub struct Listed {
    /// Its identity.
    pub id: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its metadata.
    pub metadata: Metadata,
    /// Bytes stored so far.
    pub done: u64,
    /// Whether another tab has locked it.
    pub in_other_tab: bool,
}

/// All stored models. Unlocked folders that hold no model are deleted.
///
/// # Errors
/// The browser offers no storage.
pub async fn list() -> Result<Vec<Listed>, Fault> {
    let models = models().await?;
    let fail = |error| unreadable(MODELS, &error);
    let locks = held_locks().await.map_err(fail)?;
    let mut found = Vec::new();
    for id in names_in(&models).await.map_err(fail)? {
        let in_other_tab = opened(&id).is_none() && locks.contains(&lock_name(&id));
        match listed(&models, &id, in_other_tab).await {
            Some(listed) => found.push(listed),
            None if locks.contains(&lock_name(&id)) => {}
            None => {
                let _ = wait::<JsValue>(models.remove(&id, &recursive())).await;
            }
        }
    }
    let key = |l: &Listed| (l.manifest.name.clone(), l.metadata.added as u64);
    found.sort_by_key(key);
    Ok(found)
}

async fn listed(models: &Directory, id: &str, in_other_tab: bool) -> Option<Listed> {
    let folder: Directory = wait(models.directory(id, &object(&[]))).await.ok()?;
    let json = read(&folder, MANIFEST).await.ok()?;
    let manifest = Manifest::parse(&json, MANIFEST).ok()?;
    let metadata = read_metadata(&folder).await;
    let bitmap = match opened(id) {
        Some(opened) => opened.bitmap.borrow().clone(),
        None => read(&folder, BITMAP).await.unwrap_or_default(),
    };
    let pieces = chatrex::weights::download::pieces(&manifest);
    let stored = pieces.iter().filter(|p| bitmap.get(p.number) == Some(&1));
    let done = stored.map(|p| p.range.end - p.range.start).sum::<u64>();
    Some(Listed {
        id: id.to_owned(),
        done: done + manifest.tokenizer.bytes,
        manifest,
        metadata,
        in_other_tab,
    })
}

/// Deletes a stored model that is not in use.
///
/// # Errors
/// It is in use here or in another tab, or the storage fails.
pub async fn delete(id: &str) -> Result<(), Fault> {
    if opened(id).is_some() {
        return Err(Fault::new(
            FaultKind::File,
            "this model",
            "is loaded",
            "Unload it first, then delete it",
        )
        .code(ErrorCode::InUse));
    }
    if find(id).await?.is_none() {
        return Ok(());
    }
    let _lock = lock(id).await?;
    let removed = wait::<JsValue>(models().await?.remove(id, &recursive())).await;
    removed
        .map(|_| ())
        .map_err(|error| unwritable("this model", 0, &error))
}

/// The open folder of the model `id`, if this worker has it open.
pub fn opened(id: &str) -> Option<Rc<ModelFolder>> {
    OPENED.with_borrow(|opened| opened.get(id).and_then(Weak::upgrade))
}

fn lock_name(id: &str) -> String {
    format!("chatrex model {id}")
}

/// Locks a model against other tabs.
async fn lock(id: &str) -> Result<Lock, Fault> {
    for _ in 0..ATTEMPTS {
        let lock = Lock::get(&lock_name(id)).await;
        if let Some(lock) = lock.map_err(|error| unreadable(MODELS, &error))? {
            return Ok(lock);
        }
        pause().await;
    }
    Err(in_use("this model"))
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

/// Opens a file of a folder for synchronous reads and writes.
async fn open_file(folder: &Directory, name: &str, options: &JsValue) -> Result<OpenFile, JsValue> {
    let file: FileHandle = wait(folder.file(name, options)).await?;
    let mut attempt = 1;
    loop {
        match wait(file.open()).await {
            Err(error) if attempt < ATTEMPTS && name_of(&error) == LOCKED => pause().await,
            opened => return opened,
        }
        attempt += 1;
    }
}

/// Name of the exception for a file that another worker has open.
const LOCKED: &str = "NoModificationAllowedError";

async fn read_metadata(folder: &Directory) -> Metadata {
    let json = read(folder, METADATA).await.ok();
    let metadata = json.and_then(|json| serde_json::from_slice(&json).ok());
    metadata.unwrap_or_else(|| Metadata::new(None))
}

async fn read(folder: &Directory, name: &str) -> Result<Vec<u8>, JsValue> {
    let file: FileHandle = wait(folder.file(name, &object(&[]))).await?;
    let file: File = wait(file.get_file()).await?;
    bytes_of(&file).await
}

async fn write(folder: &Directory, name: &str, bytes: &[u8]) -> Result<(), JsValue> {
    let file = open_file(folder, name, &create()).await?;
    let written = (file.truncate(0.0))
        .and_then(|()| file.write(bytes, &at(0)))
        .and_then(|count| match count == bytes.len() as f64 {
            true => file.flush(),
            false => Err(JsValue::from_str("a write was cut short")),
        });
    file.close();
    written
}

fn to_json(metadata: &Metadata) -> Vec<u8> {
    serde_json::to_vec(metadata).expect("metadata have string keys only")
}

fn recursive() -> JsValue {
    object(&[("recursive", JsValue::TRUE)])
}

fn create() -> JsValue {
    object(&[("create", JsValue::TRUE)])
}

fn at(byte: u64) -> JsValue {
    object(&[("at", JsValue::from_f64(byte as f64))])
}

fn in_use(name: &str) -> Fault {
    Fault::new(
        FaultKind::File,
        name,
        "is in use in another tab",
        "Unload it or close that tab, then try again",
    )
    .code(ErrorCode::InUse)
}

/// The fault of a failed write.
fn unwritable(name: &str, bytes: u64, error: &JsValue) -> Fault {
    match name_of(error).as_str() {
        "QuotaExceededError" => Fault::new(
            FaultKind::File,
            name,
            format!(
                "This needs {} and the browser refused the space",
                size(bytes)
            ),
            "Delete another model, or free space on this device",
        )
        .code(ErrorCode::Quota),
        LOCKED => in_use(name),
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
        "Try again, or delete the model and download it again",
    )
}

fn unavailable(error: &JsValue) -> Fault {
    Fault::new(
        FaultKind::File,
        "this browser",
        format!("keeps no files for this page: {}", describe(error)),
        "Open the page over HTTPS and outside a private window",
    )
    .code(ErrorCode::Unsupported)
}
