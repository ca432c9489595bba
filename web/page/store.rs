//! The kept conversations in IndexedDB: three object stores with the conversation's key.
//!
//! `heads` holds `[head as JSON, thumbnail or null]`, `bodies` the snapshot as JSON, `pictures` the file
//! as it was opened. What another version wrote stays there unread.

use chatrex::chat::history::{Head, Save, Trouble, save};
use idb::builder::{DatabaseBuilder, ObjectStoreBuilder};
use idb::{Database, Error, ObjectStore, Query, TransactionMode};
use js_sys::Array;
use wasm_bindgen::prelude::*;
use web_sys::Blob;

const NAME: &str = "chatrex";
const VERSION: u32 = 1;
const HEADS: &str = "heads";
const BODIES: &str = "bodies";
const PICTURES: &str = "pictures";
const STORES: [&str; 3] = [HEADS, BODIES, PICTURES];

/// A conversation as it is stored.
#[derive(Clone)]
pub struct Record {
    /// For the list.
    pub head: Head,
    /// The snapshot as JSON; `None` if the picture was never opened.
    pub body: Option<String>,
    /// The file as it was opened.
    pub picture: Blob,
    /// A small picture.
    pub thumbnail: Option<Blob>,
}

/// The open database.
pub struct Store(Database);

impl Store {
    /// Opens the database, and makes it at the first time.
    ///
    /// # Errors
    /// The browser offers no storage here.
    pub async fn open() -> Result<Self, Trouble> {
        open(NAME, VERSION, &STORES).await.map(Self)
    }

    /// The heads as JSON, each with its thumbnail.
    ///
    /// # Errors
    /// The browser reads nothing.
    pub async fn heads(&self) -> Result<Vec<(String, Option<Blob>)>, Trouble> {
        let read = async {
            let transaction = self.0.transaction(&[HEADS], TransactionMode::ReadOnly)?;
            transaction.object_store(HEADS)?.get_all(None, None)?.await
        };
        let values = read.await.map_err(|_: Error| Trouble::NoStorage)?;
        Ok(values.iter().map(head_of).collect())
    }

    /// A conversation; `None` if it is not stored or cannot be read.
    pub async fn load(&self, id: &str) -> Option<Record> {
        self.read(id).await.ok().flatten()
    }

    async fn read(&self, id: &str) -> Result<Option<Record>, Error> {
        let transaction = self.0.transaction(&STORES, TransactionMode::ReadOnly)?;
        let get = |name| transaction.object_store(name)?.get(key(id));
        let (head, body, picture) = (get(HEADS)?, get(BODIES)?, get(PICTURES)?);
        let (head, body, picture) = (head.await?, body.await?, picture.await?);
        let record = head.and_then(|head| {
            let (json, thumbnail) = head_of(&head);
            Some(Record {
                head: Head::read(&json).ok()?,
                body: body.and_then(|body| body.as_string()),
                picture: picture?.dyn_into().ok()?,
                thumbnail,
            })
        });
        Ok(record)
    }

    /// Writes a conversation whose revision `seen` this tab knows, with its picture if `with_picture`.
    /// Nothing is written where another tab changed it.
    ///
    /// # Errors
    /// The browser has no room.
    pub async fn save(
        &self,
        record: &Record,
        seen: u32,
        with_picture: bool,
    ) -> Result<Save, Trouble> {
        let written = self.write(record, seen, with_picture).await;
        written.map_err(|_| Trouble::Full)
    }

    async fn write(&self, record: &Record, seen: u32, with_picture: bool) -> Result<Save, Error> {
        let key = key(&record.head.id);
        let transaction = self.0.transaction(&STORES, TransactionMode::ReadWrite)?;
        let heads = transaction.object_store(HEADS)?;
        let stored = heads.get(key.clone())?.await?;
        // A record that cannot be read counts as one of another tab.
        let stored =
            stored.map(|head| Head::read(&head_of(&head).0).map_or(u32::MAX, |head| head.revision));
        let revision = match save(stored, seen) {
            Save::Copy => return Ok(Save::Copy),
            Save::Write(revision) => revision,
        };
        let head = Head {
            revision,
            ..record.head.clone()
        };
        let thumbnail = record.thumbnail.as_ref().map_or(JsValue::NULL, Into::into);
        let head = Array::of2(&head.to_json().into(), &thumbnail);
        heads.put(&head, Some(&key))?.await?;
        let bodies = transaction.object_store(BODIES)?;
        match &record.body {
            Some(body) => drop(bodies.put(&JsValue::from_str(body), Some(&key))?.await?),
            None => bodies.delete(key.clone())?.await?,
        }
        // Written again where another tab deleted it.
        if with_picture || stored.is_none() {
            let pictures = transaction.object_store(PICTURES)?;
            pictures.put(&record.picture, Some(&key))?.await?;
        }
        transaction.commit()?.await?;
        Ok(Save::Write(revision))
    }

    /// Deletes a conversation.
    ///
    /// # Errors
    /// The browser refuses it.
    pub async fn delete(&self, id: &str) -> Result<(), Trouble> {
        let delete = |store: &ObjectStore| store.delete(Query::from(key(id))).map(drop);
        change(&self.0, &STORES, delete).await
    }

    /// Deletes everything.
    ///
    /// # Errors
    /// The browser refuses it.
    pub async fn clear(&self) -> Result<(), Trouble> {
        clear(&self.0, &STORES).await
    }
}

/// Opens a database with these object stores, and makes it at the first time.
///
/// # Errors
/// The browser offers no storage here.
pub async fn open(name: &str, version: u32, stores: &[&str]) -> Result<Database, Trouble> {
    let builder = DatabaseBuilder::new(name).version(version);
    let stores = stores.iter().copied().map(ObjectStoreBuilder::new);
    let builder = stores.fold(builder, DatabaseBuilder::add_object_store);
    builder.build().await.map_err(|_| Trouble::NoStorage)
}

/// Empties object stores in one transaction.
///
/// # Errors
/// The browser refuses it.
pub async fn clear(database: &Database, stores: &[&str]) -> Result<(), Trouble> {
    change(database, stores, |store| store.clear().map(drop)).await
}

/// Applies a change to object stores in one transaction.
async fn change(
    database: &Database,
    stores: &[&str],
    change: impl Fn(&ObjectStore) -> Result<(), Error>,
) -> Result<(), Trouble> {
    let changed = async {
        let transaction = database.transaction(stores, TransactionMode::ReadWrite)?;
        for store in stores {
            change(&transaction.object_store(store)?)?;
        }
        transaction.commit()?.await
    };
    changed.await.map(drop).map_err(|_: Error| Trouble::Full)
}

fn key(id: &str) -> JsValue {
    JsValue::from_str(id)
}

/// The parts of a stored head; what is not there is empty.
fn head_of(value: &JsValue) -> (String, Option<Blob>) {
    let parts = value.dyn_ref::<Array>().cloned().unwrap_or_default();
    let json = parts.get(0).as_string().unwrap_or_default();
    (json, parts.get(1).dyn_into().ok())
}
