//! Folders of the user that models are used from in place: the browser remembers the folder, not its files,
//! and asks again for the permission to read it.

use idb::builder::{DatabaseBuilder, ObjectStoreBuilder};
use idb::{Database, Error, Query, TransactionMode};
use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::File;

const NAME: &str = "chatrex-folders";
const FOLDERS: &str = "folders";

/// A folder of the user.
#[derive(Clone)]
pub struct Folder(JsValue);

impl Folder {
    /// Lets the user choose a folder; `None` if the user does not.
    pub async fn choose() -> Option<Self> {
        let window = web_sys::window()?;
        let chosen = call(&window, "showDirectoryPicker", &[]).await?;
        Some(Self(chosen))
    }

    /// Its files.
    pub async fn files(&self) -> Vec<File> {
        let mut files = Vec::new();
        let Some(entries) = method(&self.0, "values").and_then(|f| f.call0(&self.0).ok()) else {
            return files;
        };
        while let Some(next) = call(&entries, "next", &[]).await {
            if get(&next, "done").is_none_or(|done| done.is_truthy()) {
                break;
            }
            let Some(entry) = get(&next, "value") else {
                break;
            };
            let is_file = get(&entry, "kind").is_some_and(|kind| kind == "file");
            if is_file && let Some(file) = call(&entry, "getFile", &[]).await {
                files.extend(file.dyn_into::<File>().ok());
            }
        }
        files
    }

    /// Asks for the permission to read it.
    pub async fn is_allowed(&self) -> bool {
        let options = Object::new();
        // An object takes every property.
        let _ = Reflect::set(&options, &"mode".into(), &"read".into());
        let options = [options.into()];
        match call(&self.0, "requestPermission", &options).await {
            Some(answer) => answer == "granted",
            // A browser without the question reads it, or its files fail.
            None => true,
        }
    }
}

/// Whether the browser lets the user choose folders that it remembers.
pub fn are_offered() -> bool {
    let window = web_sys::window().map(JsValue::from);
    window.is_some_and(|window| method(&window, "showDirectoryPicker").is_some())
}

fn get(object: &JsValue, name: &str) -> Option<JsValue> {
    let value = Reflect::get(object, &name.into()).ok();
    value.filter(|value| !value.is_undefined() && !value.is_null())
}

fn method(object: &JsValue, name: &str) -> Option<Function> {
    get(object, name)?.dyn_into().ok()
}

/// The outcome of a method that returns a promise.
async fn call(object: &JsValue, name: &str, arguments: &[JsValue]) -> Option<JsValue> {
    let arguments: Array = arguments.iter().collect();
    let called = method(object, name)?.apply(object, &arguments).ok()?;
    JsFuture::from(Promise::resolve(&called)).await.ok()
}

async fn database() -> Result<Database, Error> {
    let builder = DatabaseBuilder::new(NAME).version(1);
    builder
        .add_object_store(ObjectStoreBuilder::new(FOLDERS))
        .build()
        .await
}

/// The names of the models in remembered folders; none where the browser keeps nothing.
pub async fn names() -> Vec<String> {
    let read = async {
        let database = database().await?;
        let transaction = database.transaction(&[FOLDERS], TransactionMode::ReadOnly)?;
        transaction
            .object_store(FOLDERS)?
            .get_all_keys(None, None)?
            .await
    };
    let keys: Result<Vec<JsValue>, Error> = read.await;
    let keys = keys.unwrap_or_default();
    keys.iter().filter_map(JsValue::as_string).collect()
}

/// The folder of a model.
pub async fn find(name: &str) -> Option<Folder> {
    let database = database().await.ok()?;
    let transaction = database.transaction(&[FOLDERS], TransactionMode::ReadOnly);
    let store = transaction.ok()?.object_store(FOLDERS).ok()?;
    let folder = store.get(JsValue::from_str(name)).ok()?.await.ok()??;
    Some(Folder(folder))
}

/// Remembers the folder of a model. Where the browser refuses, it is chosen again at the next visit.
pub async fn keep(name: &str, folder: &Folder) {
    let written = async {
        let database = database().await?;
        let transaction = database.transaction(&[FOLDERS], TransactionMode::ReadWrite)?;
        let store = transaction.object_store(FOLDERS)?;
        store
            .put(&folder.0, Some(&JsValue::from_str(name)))?
            .await?;
        transaction.commit()?.await
    };
    let _: Result<_, Error> = written.await;
}

/// Forgets the folder of a model; its files stay.
pub async fn forget(name: &str) {
    let deleted = async {
        let database = database().await?;
        let transaction = database.transaction(&[FOLDERS], TransactionMode::ReadWrite)?;
        let store = transaction.object_store(FOLDERS)?;
        store.delete(Query::from(JsValue::from_str(name)))?.await?;
        transaction.commit()?.await
    };
    let _: Result<_, Error> = deleted.await;
}
