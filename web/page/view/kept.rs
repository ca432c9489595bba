//! The kept conversations: the list, those in memory, and the queue of what is to be written. The
//! settings are kept beside them.
//!
//! Rules. Conversations are written one after the other. What is not written yet, or is not to be
//! written, is in memory and can be opened all the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use chatrex::chat::history::{Head, Save, Shelf, Trouble};
use chatrex::chat::model_manager::Choice;
use chatrex::chat::settings::Settings;
use js_sys::{Date, Math};
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::Blob;

use crate::decode::ObjectUrl;
use crate::store::{Record, Store};
use crate::{embed, memory};

/// How long a message with an action stays.
const TOAST: Duration = Duration::from_secs(10);

/// A message with what can be undone.
#[derive(Clone)]
pub struct Toast {
    /// What happened.
    pub text: String,
    pub(super) undo: Option<Undo>,
    number: u32,
}

impl Toast {
    /// Whether it offers to undo.
    pub fn can_undo(&self) -> bool {
        self.undo.is_some()
    }
}

/// What a message undoes.
#[derive(Clone)]
pub(super) enum Undo {
    /// Show this conversation again.
    Show(String),
    /// Put these conversations back, and show one of them again.
    Put(Vec<Record>, Option<String>),
}

/// Where a picture comes from.
#[derive(Clone, Default)]
pub struct Source {
    /// Name of its file; empty if it has none.
    pub name: String,
    /// The pictures that are opened together.
    pub group: Option<String>,
    /// The record that it has already.
    pub id: Option<String>,
    /// Whether the page opens it without being asked: then nothing is to be undone.
    pub is_first: bool,
}

/// The open conversation.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) head: Head,
    pub(super) picture: Blob,
    pub(super) thumbnail: Option<Blob>,
    /// What was written of it last.
    pub(super) body: Option<String>,
    pub(super) is_temporary: bool,
}

/// The state of everything kept. Copied freely.
#[derive(Clone, Copy)]
pub struct Keeping {
    store: StoredValue<Option<Rc<Store>>, LocalStorage>,
    /// Conversations that are not in the database, or not yet.
    pub(super) memory: StoredValue<BTreeMap<String, Record>, LocalStorage>,
    /// The keys of those that are to be written.
    pub(super) queue: StoredValue<VecDeque<String>, LocalStorage>,
    pub(super) is_writing: StoredValue<bool>,
    pub(super) is_timed: StoredValue<bool>,
    /// The revision that this tab knows, by key.
    pub(super) seen: StoredValue<BTreeMap<String, u32>, LocalStorage>,
    /// The keys of those that the user wants to keep in memory only.
    pub(super) temporary: StoredValue<BTreeSet<String>, LocalStorage>,
    pub(super) current: StoredValue<Option<Current>, LocalStorage>,
    toasts: StoredValue<u32>,
    /// The list.
    pub shelf: RwSignal<Shelf>,
    /// Addresses of thumbnails by key.
    pub thumbnails: RwSignal<BTreeMap<String, Rc<ObjectUrl>>, LocalStorage>,
    /// The settings.
    pub settings: RwSignal<Settings>,
    /// The key of the open conversation.
    pub id: RwSignal<Option<String>>,
    /// Whether the open conversation is kept in memory only.
    pub is_temporary: RwSignal<bool>,
    /// The last message.
    pub toast: RwSignal<Option<Toast>, LocalStorage>,
    /// True once it is decided what the page shows first.
    pub is_decided: RwSignal<bool>,
    /// Whether the list is open.
    pub is_open: RwSignal<bool>,
}

impl Keeping {
    /// With the settings of the last visit.
    pub fn new() -> Self {
        let settings = memory::settings().map(|json| Settings::read(&json));
        let mut settings = settings.unwrap_or_default();
        settings.keep_history &= !embed::options().forgets();
        Self {
            store: StoredValue::new_local(None),
            memory: StoredValue::new_local(BTreeMap::new()),
            queue: StoredValue::new_local(VecDeque::new()),
            is_writing: StoredValue::new(false),
            is_timed: StoredValue::new(false),
            seen: StoredValue::new_local(BTreeMap::new()),
            temporary: StoredValue::new_local(BTreeSet::new()),
            current: StoredValue::new_local(None),
            toasts: StoredValue::new(0),
            shelf: RwSignal::new(Shelf::default()),
            thumbnails: RwSignal::new_local(BTreeMap::new()),
            settings: RwSignal::new(settings),
            id: RwSignal::new(None),
            is_temporary: RwSignal::new(false),
            toast: RwSignal::new_local(None),
            is_decided: RwSignal::new(false),
            is_open: RwSignal::new(false),
        }
    }

    /// The model to begin with: that of the address, else the last one.
    pub fn choice(self, address: &str) -> Choice {
        let kept = self.settings.with_untracked(Settings::choice);
        match kept {
            Some(kept) if !Choice::is_in_address(address) => kept,
            _ => Choice::of_address(address),
        }
    }

    /// Changes the settings and keeps them.
    pub fn set(self, change: impl FnOnce(&mut Settings)) {
        let before = self.settings.get_untracked();
        self.settings.update(change);
        let stored = memory::settings();
        let now = self.settings.get_untracked();
        memory::keep_settings(&now.stored_over(&before, stored.as_deref()));
    }

    pub(super) async fn store(self) -> Result<Rc<Store>, Trouble> {
        if let Some(store) = self.store.get_value() {
            return Ok(store);
        }
        let store = Rc::new(Store::open().await?);
        self.store.set_value(Some(store.clone()));
        Ok(store)
    }

    pub(super) fn is_kept(self, id: &str) -> bool {
        let is_temporary = self.temporary.with_value(|t| t.contains(id));
        !is_temporary && self.settings.with_untracked(|s| s.keep_history)
    }

    /// This tab read or wrote a revision.
    pub(super) fn know(self, id: &str, revision: u32) {
        self.seen.update_value(|seen| {
            seen.insert(id.to_owned(), revision);
        });
    }

    fn unknow(self, id: &str) {
        self.seen.update_value(|seen| {
            seen.remove(id);
        });
    }

    fn show_thumbnail(self, id: &str, thumbnail: Option<&Blob>) {
        if let Some(url) = thumbnail.and_then(|t| ObjectUrl::new(t).ok()) {
            self.thumbnails
                .update(|all| drop(all.insert(id.to_owned(), Rc::new(url))));
        }
    }

    /// Takes a conversation into list and memory, and writes it if it is to be kept.
    pub(super) fn put(self, record: Record) {
        let id = record.head.id.clone();
        let is_new = self.thumbnails.with_untracked(|all| !all.contains_key(&id));
        if is_new {
            self.show_thumbnail(&id, record.thumbnail.as_ref());
        }
        self.shelf.update(|shelf| shelf.put(record.head.clone()));
        self.memory
            .update_value(|memory| drop(memory.insert(id.clone(), record)));
        if self.is_kept(&id) {
            self.queue.update_value(|queue| {
                if !queue.contains(&id) {
                    queue.push_back(id);
                }
            });
            self.write_queue();
        }
    }

    pub(super) fn write_queue(self) {
        if self.is_writing.get_value() {
            return;
        }
        self.is_writing.set_value(true);
        spawn_local(async move {
            while let Some(id) = self.queue.try_update_value(VecDeque::pop_front).flatten() {
                self.write(id).await;
            }
            self.is_writing.set_value(false);
        });
    }

    /// Writes a conversation from memory to the database.
    async fn write(self, id: String) {
        let record = self.memory.with_value(|memory| memory.get(&id).cloned());
        let Some(record) = record.filter(|_| self.is_kept(&id)) else {
            return;
        };
        let seen = self.seen.with_value(|seen| seen.get(&id).copied());
        let written = match self.store().await {
            Ok(store) => {
                let with_picture = seen.is_none();
                store.save(&record, seen.unwrap_or(0), with_picture).await
            }
            Err(trouble) => Err(trouble),
        };
        match written {
            Ok(Save::Write(revision)) => {
                self.know(&id, revision);
                let is_newer = |kept: &Record| kept.body != record.body || kept.head != record.head;
                self.memory.update_value(|memory| {
                    if !memory.get(&id).is_some_and(is_newer) {
                        memory.remove(&id);
                    }
                });
                if self.shelf.with_untracked(|s| s.trouble.is_some()) {
                    self.shelf.update(|shelf| shelf.trouble = None);
                }
            }
            Ok(Save::Copy) => self.copy(&id),
            Err(trouble) => self.shelf.update(|shelf| shelf.trouble = Some(trouble)),
        }
    }

    /// Another tab changed a conversation: this one goes on under a key of its own.
    fn copy(self, id: &str) {
        let taken = self.memory.try_update_value(|memory| memory.remove(id));
        let Some(mut record) = taken.flatten() else {
            return;
        };
        record.head.id = new_key();
        record.head.group = None;
        let copy = record.head.id.clone();
        self.unknow(id);
        self.current.update_value(|current| {
            if let Some(current) = current.as_mut().filter(|c| c.head.id == id) {
                current.head.id.clone_from(&copy);
                current.head.group = None;
                memory::keep_current(&copy);
                self.id.set(Some(copy.clone()));
            }
        });
        self.put(record);
        spawn_local(self.reload());
    }

    /// Reads the list again; conversations in memory stay in it.
    pub async fn reload(self) {
        let heads = match self.store().await {
            Ok(store) => store.heads().await,
            Err(trouble) => Err(trouble),
        };
        match heads {
            Ok(heads) => {
                self.shelf.update(|shelf| {
                    shelf.fill(heads.iter().map(|(json, _)| json.as_str()));
                    self.memory.with_value(|memory| {
                        for record in memory.values() {
                            shelf.put(record.head.clone());
                        }
                    });
                });
                for (json, thumbnail) in &heads {
                    if let Ok(head) = Head::read(json) {
                        let known = self.thumbnails.with_untracked(|t| t.contains_key(&head.id));
                        if !known {
                            self.show_thumbnail(&head.id, thumbnail.as_ref());
                        }
                    }
                }
            }
            Err(trouble) => self.shelf.update(|shelf| shelf.trouble = Some(trouble)),
        }
    }

    /// A conversation from memory or from the database.
    pub(super) async fn record(self, id: &str) -> Option<Record> {
        let known = self.memory.with_value(|memory| memory.get(id).cloned());
        if known.is_some() {
            return known;
        }
        let record = self.store().await.ok()?.load(id).await?;
        self.know(id, record.head.revision);
        Some(record)
    }

    pub(super) async fn forget(self, id: &str) {
        self.memory.update_value(|memory| drop(memory.remove(id)));
        self.queue
            .update_value(|queue| queue.retain(|key| key != id));
        self.unknow(id);
        self.shelf.update(|shelf| shelf.remove(id));
        self.thumbnails.update(|all| drop(all.remove(id)));
        if let Ok(store) = self.store().await
            && let Err(trouble) = store.delete(id).await
        {
            self.shelf.update(|shelf| shelf.trouble = Some(trouble));
        }
    }

    /// Shows a message.
    pub(super) fn say(self, text: String, undo: Option<Undo>) {
        self.toasts.update_value(|number| *number += 1);
        let number = self.toasts.get_value();
        self.toast.set(Some(Toast { text, undo, number }));
        set_timeout(
            move || {
                let is_last = |t: &Option<Toast>| t.as_ref().is_some_and(|t| t.number == number);
                if self.toast.with_untracked(is_last) {
                    self.toast.set(None);
                }
            },
            TOAST,
        );
    }

    /// Shows a message without an action.
    pub fn tell(self, text: String) {
        self.say(text, None);
    }
}

/// A key that no other conversation has.
pub(super) fn new_key() -> String {
    let random = (Math::random() * 2_f64.powi(52)) as u64;
    format!("{:012x}-{random:013x}", Date::now() as u64)
}
