//! The batch in IndexedDB, in a database of its own.
//!
//! `batch` holds the head and the review as JSON under these names. `items` holds, by the place of the
//! picture, `[state as JSON, conversation as JSON or null]`; `pictures` its file.

use chatrex::chat::history::Trouble;
use idb::{Database, Error, TransactionMode};
use js_sys::Array;
use wasm_bindgen::prelude::*;
use web_sys::Blob;

use crate::store;

const NAME: &str = "chatrex-batch";
const VERSION: u32 = 1;
const BATCH: &str = "batch";
const ITEMS: &str = "items";
const PICTURES: &str = "pictures";
const STORES: [&str; 3] = [BATCH, ITEMS, PICTURES];
const HEAD: &str = "head";
const REVIEW: &str = "review";

/// A batch as it is stored.
pub struct StoredBatch {
    /// Its head as JSON.
    pub head: String,
    /// Its review as JSON.
    pub review: Option<String>,
    /// The states of its pictures as JSON, by their place.
    pub items: Vec<Option<String>>,
}

/// The open database.
pub struct BatchStore(Database);

impl BatchStore {
    /// Opens the database, and makes it at the first time.
    ///
    /// # Errors
    /// The browser offers no storage here.
    pub async fn open() -> Result<Self, Trouble> {
        store::open(NAME, VERSION, &STORES).await.map(Self)
    }

    /// The batch, if there is one.
    pub async fn load(&self) -> Option<StoredBatch> {
        self.read().await.ok().flatten()
    }

    async fn read(&self) -> Result<Option<StoredBatch>, Error> {
        let stores = [BATCH, ITEMS];
        let transaction = self.0.transaction(&stores, TransactionMode::ReadOnly)?;
        let batch = transaction.object_store(BATCH)?;
        let (head, review) = (batch.get(text(HEAD))?, batch.get(text(REVIEW))?);
        let items = transaction.object_store(ITEMS)?;
        let (keys, states) = (items.get_all_keys(None, None)?, items.get_all(None, None)?);
        let (head, review) = (head.await?, review.await?);
        let (keys, states) = (keys.await?, states.await?);
        let Some(head) = head.and_then(|head| head.as_string()) else {
            return Ok(None);
        };
        let mut items = Vec::new();
        for (key, state) in keys.iter().zip(&states) {
            let Some(place) = key.as_f64().map(|key| key as usize) else {
                continue;
            };
            // Keys come in order; those of this page have no large gaps.
            if place < chatrex::chat::batch::MAX_PICTURES {
                items.resize(items.len().max(place + 1), None);
                items[place] = parts(state).get(0).as_string();
            }
        }
        Ok(Some(StoredBatch {
            head,
            review: review.and_then(|review| review.as_string()),
            items,
        }))
    }

    /// The file of a picture.
    pub async fn picture(&self, place: usize) -> Option<Blob> {
        let value = self.get(PICTURES, number(place)).await?;
        value.dyn_into().ok()
    }

    /// The conversation about a picture as JSON.
    pub async fn body(&self, place: usize) -> Option<String> {
        let value = self.get(ITEMS, number(place)).await?;
        parts(&value).get(1).as_string()
    }

    async fn get(&self, store: &str, key: JsValue) -> Option<JsValue> {
        let read = async {
            let transaction = self.0.transaction(&[store], TransactionMode::ReadOnly)?;
            transaction.object_store(store)?.get(key)?.await
        };
        read.await.ok().flatten()
    }

    /// Begins a batch in place of any other.
    ///
    /// # Errors
    /// The browser has no room.
    pub async fn begin(&self, head: &str) -> Result<(), Trouble> {
        let write = async {
            let transaction = self.0.transaction(&STORES, TransactionMode::ReadWrite)?;
            for store in STORES {
                transaction.object_store(store)?.clear()?.await?;
            }
            let batch = transaction.object_store(BATCH)?;
            batch.put(&text(head), Some(&text(HEAD)))?.await?;
            transaction.commit()?.await
        };
        write.await.map(drop).map_err(|_: Error| Trouble::Full)
    }

    /// Stores a picture that waits.
    ///
    /// # Errors
    /// The browser has no room.
    pub async fn add(&self, place: usize, state: &str, picture: &Blob) -> Result<(), Trouble> {
        let write = async {
            let stores = [ITEMS, PICTURES];
            let transaction = self.0.transaction(&stores, TransactionMode::ReadWrite)?;
            let value = Array::of2(&text(state), &JsValue::NULL);
            let key = number(place);
            let items = transaction.object_store(ITEMS)?;
            items.put(&value, Some(&key))?.await?;
            let pictures = transaction.object_store(PICTURES)?;
            pictures.put(picture, Some(&key))?.await?;
            transaction.commit()?.await
        };
        write.await.map(drop).map_err(|_: Error| Trouble::Full)
    }

    /// Stores the state of a picture.
    ///
    /// # Errors
    /// The browser has no room.
    pub async fn set(&self, place: usize, state: &str, body: Option<&str>) -> Result<(), Trouble> {
        let body = body.map_or(JsValue::NULL, text);
        let value = Array::of2(&text(state), &body);
        self.put(ITEMS, number(place), &value).await
    }

    /// Stores the review.
    ///
    /// # Errors
    /// The browser has no room.
    pub async fn set_review(&self, review: &str) -> Result<(), Trouble> {
        self.put(BATCH, text(REVIEW), &text(review)).await
    }

    async fn put(&self, store: &str, key: JsValue, value: &JsValue) -> Result<(), Trouble> {
        let write = async {
            let transaction = self.0.transaction(&[store], TransactionMode::ReadWrite)?;
            let objects = transaction.object_store(store)?;
            objects.put(value, Some(&key))?.await?;
            transaction.commit()?.await
        };
        write.await.map(drop).map_err(|_: Error| Trouble::Full)
    }

    /// Deletes the batch.
    ///
    /// # Errors
    /// The browser refuses it.
    pub async fn clear(&self) -> Result<(), Trouble> {
        store::clear(&self.0, &STORES).await
    }
}

fn text(text: &str) -> JsValue {
    JsValue::from_str(text)
}

fn number(place: usize) -> JsValue {
    JsValue::from_f64(place as f64)
}

/// The parts of a stored item; what is not there is empty.
fn parts(value: &JsValue) -> Array {
    value.dyn_ref::<Array>().cloned().unwrap_or_default()
}
