//! What stays: conversations in the browser's database, settings, and the way back to both.
//!
//! Rules. Changes are written one after the other, at most twice a second. What is not written yet, or
//! is not to be written, is in memory and can be opened all the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chatrex::chat::conversation::{Conversation, Input};
use chatrex::chat::history::{Head, Save, Shelf, Snapshot, Trouble, VERSION};
use chatrex::chat::kept_strings as words;
use chatrex::chat::model_manager::Choice;
use chatrex::chat::overlay::{Mentions, Overlay};
use chatrex::chat::question::QuestionKind;
use chatrex::chat::samples;
use chatrex::chat::settings::{Settings, Theme};
use chatrex::error::{Fault, FaultKind};
use js_sys::{Date, Math};
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::time::Duration;
use web_sys::Blob;

use super::state::AppState;
use crate::decode::{self, ObjectUrl, Opened};
use crate::store::{Record, Store};
use crate::{memory, theme};

/// A change is written after this time.
const DELAY: Duration = Duration::from_millis(300);
/// How long a message with an action stays.
const TOAST: Duration = Duration::from_secs(10);

/// A message with what can be undone.
#[derive(Clone)]
pub struct Toast {
    /// What happened.
    pub text: String,
    undo: Option<Undo>,
    number: u32,
}

impl Toast {
    /// Whether it offers to undo.
    pub fn can_undo(&self) -> bool {
        self.undo.is_some()
    }
}

#[derive(Clone)]
enum Undo {
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
struct Current {
    head: Head,
    picture: Blob,
    thumbnail: Option<Blob>,
    /// What was written of it last.
    body: Option<String>,
    is_temporary: bool,
}

/// The state of everything kept. Copied freely.
#[derive(Clone, Copy)]
pub struct Keeping {
    store: StoredValue<Option<std::rc::Rc<Store>>, LocalStorage>,
    /// Conversations that are not in the database, or not yet.
    memory: StoredValue<BTreeMap<String, Record>, LocalStorage>,
    /// The keys of those that are to be written.
    queue: StoredValue<VecDeque<String>, LocalStorage>,
    is_writing: StoredValue<bool>,
    is_timed: StoredValue<bool>,
    /// The revision that this tab knows, by key.
    seen: StoredValue<BTreeMap<String, u32>, LocalStorage>,
    /// The keys of those that the user wants to keep in memory only.
    temporary: StoredValue<BTreeSet<String>, LocalStorage>,
    current: StoredValue<Option<Current>, LocalStorage>,
    toasts: StoredValue<u32>,
    /// The list.
    pub shelf: RwSignal<Shelf>,
    /// Addresses of thumbnails by key.
    pub thumbnails: RwSignal<BTreeMap<String, std::rc::Rc<ObjectUrl>>, LocalStorage>,
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
            settings: RwSignal::new(settings.unwrap_or_default()),
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
        self.settings.update(change);
        memory::keep_settings(&self.settings.with_untracked(Settings::to_json));
    }

    async fn store(self) -> Result<std::rc::Rc<Store>, Trouble> {
        if let Some(store) = self.store.get_value() {
            return Ok(store);
        }
        let store = std::rc::Rc::new(Store::open().await?);
        self.store.set_value(Some(store.clone()));
        Ok(store)
    }

    fn is_kept(self, id: &str) -> bool {
        let is_temporary = self.temporary.with_value(|t| t.contains(id));
        !is_temporary && self.settings.with_untracked(|s| s.keep_history)
    }

    /// This tab read or wrote a revision.
    fn know(self, id: &str, revision: u32) {
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
                .update(|all| drop(all.insert(id.to_owned(), std::rc::Rc::new(url))));
        }
    }

    /// Takes a conversation into list and memory, and writes it if it is to be kept.
    fn put(self, record: Record) {
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

    fn write_queue(self) {
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
    async fn record(self, id: &str) -> Option<Record> {
        let known = self.memory.with_value(|memory| memory.get(id).cloned());
        if known.is_some() {
            return known;
        }
        let record = self.store().await.ok()?.load(id).await?;
        self.know(id, record.head.revision);
        Some(record)
    }

    async fn forget(self, id: &str) {
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
    fn say(self, text: String, undo: Option<Undo>) {
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

impl AppState {
    /// Decides what the page shows first: what it showed last; at the very first visit the first sample
    /// with its question; else nothing.
    pub fn begin_keeping(self) {
        let keep = self.keep;
        let is_first_visit = memory::settings().is_none();
        let settings = keep.settings.get_untracked();
        theme::apply(settings.theme);
        self.act(Input::Sampling(settings.sampling));
        if let Some(filter) = settings.filter {
            self.act(Input::Filter(filter));
        }
        self.act(Input::Prefer(settings.granularity));
        self.watch_changes();
        let request = self.next_open_request();
        spawn_local(async move {
            if is_first_visit {
                self.open_first_sample();
                keep.is_decided.set(true);
                keep.reload().await;
                return;
            }
            keep.reload().await;
            self.take_pending().await;
            let newest = || {
                keep.shelf
                    .with_untracked(|s| Some(s.all().first()?.id.clone()))
            };
            let last = memory::current().or_else(newest);
            let is_there = |id: &String| keep.shelf.with_untracked(|s| s.get(id).is_some());
            if let Some(id) = last.filter(is_there) {
                self.restore(id, request).await;
            }
            keep.is_decided.set(true);
        });
    }

    /// What the page could not write before it was left.
    async fn take_pending(self) {
        let Some(pending) = memory::take_pending() else {
            return;
        };
        let Ok((head, body, in_flight)) = serde_json::from_str::<(String, String, bool)>(&pending)
        else {
            return;
        };
        let Ok(head) = Head::read(&head) else {
            return;
        };
        let Some(stored) = self.keep.record(&head.id).await else {
            return;
        };
        if stored.body.as_ref() == Some(&body) {
            return;
        }
        // What the left page was writing may have arrived; anything else is of another tab.
        let arrived = head.revision + u32::from(in_flight);
        if stored.head.revision != arrived {
            self.keep.know(&head.id, head.revision);
        }
        self.keep.put(Record {
            head,
            body: Some(body),
            ..stored
        });
    }

    /// Writes the conversation after changes, and when the page is left.
    fn watch_changes(self) {
        Effect::new(move |_| {
            self.picture.track();
            self.candidates.track();
            self.filter.track();
            self.draft.track();
            self.kind.track();
            self.turns
                .with(|turns| turns.iter().for_each(|t| t.turn.track()));
            self.touch();
        });
        window_event_listener(ev::pagehide, move |_| self.leave_page());
        window_event_listener(ev::pageshow, move |event| {
            // The page comes back as it was left, and writes on.
            if event.persisted() {
                drop(memory::take_pending());
            }
        });
    }

    fn touch(self) {
        if !self.keep.is_timed.get_value() {
            self.keep.is_timed.set_value(true);
            set_timeout(
                move || {
                    self.keep.is_timed.set_value(false);
                    self.save();
                },
                DELAY,
            );
        }
    }

    /// The open conversation if it changed since it was written.
    fn changed(self) -> Option<Record> {
        let (draft, kind) = (self.draft.get_untracked(), self.kind.get_untracked());
        let snapshot = self
            .conversation
            .with_value(|c| Snapshot::of(c, &draft, kind))?;
        let body = snapshot.to_json();
        let model = self.models.with_untracked(|m| Settings::name(m.choice()));
        let changed = self.keep.current.try_update_value(|current| {
            let current = current.as_mut()?;
            if current.body.as_ref() == Some(&body) {
                return None;
            }
            current.head.questions = snapshot.turns.into_iter().map(|t| t.shown).collect();
            current.head.changed = Date::now();
            current.head.model = model;
            current.body = Some(body.clone());
            // The user may have renamed it in the list.
            let renamed = |shelf: &Shelf| Some(shelf.get(&current.head.id)?.renamed.clone());
            if let Some(renamed) = self.keep.shelf.with_untracked(renamed) {
                current.head.renamed = renamed;
            }
            Some(Record {
                head: current.head.clone(),
                body: Some(body),
                picture: current.picture.clone(),
                thumbnail: current.thumbnail.clone(),
            })
        });
        changed.flatten()
    }

    /// Writes the open conversation if it changed.
    fn save(self) {
        if let Some(record) = self.changed() {
            self.keep.put(record);
        }
    }

    /// The page is left: what is not in the database yet is kept for the next page of this tab.
    fn leave_page(self) {
        self.save();
        let keep = self.keep;
        let Some(id) = keep.id.get_untracked().filter(|id| keep.is_kept(id)) else {
            return;
        };
        let revision = keep.seen.with_value(|seen| seen.get(&id).copied());
        let in_flight = keep.is_writing.get_value();
        let pending = keep.memory.with_value(|memory| {
            let Record { head, body, .. } = memory.get(&id)?;
            let head = Head {
                revision: revision.unwrap_or(0),
                ..head.clone()
            };
            serde_json::to_string(&(head.to_json(), body.as_ref()?, in_flight)).ok()
        });
        match pending {
            Some(pending) => memory::keep_pending(&pending),
            None => drop(memory::take_pending()),
        }
    }

    /// Another conversation follows: the open one is written.
    fn leave(self) {
        self.save();
        self.keep.current.set_value(None);
    }

    fn set_current(self, current: Option<Current>) {
        let id = current.as_ref().map(|c| c.head.id.clone());
        memory::keep_current(id.as_deref().unwrap_or_default());
        let is_temporary = current.as_ref().is_some_and(|c| c.is_temporary);
        self.keep.is_temporary.set(is_temporary);
        self.keep.current.set_value(current);
        self.keep.id.set(id);
    }

    /// A decoded picture begins a conversation.
    pub(super) fn begin_conversation(self, opened: Opened, source: Source) {
        let before = self.keep.id.get_untracked();
        self.leave();
        let now = Date::now();
        let known = source.id.as_deref();
        let known = known.and_then(|id| self.keep.shelf.with_untracked(|s| s.get(id).cloned()));
        let is_known = known.is_some();
        let head = known.unwrap_or_else(|| Head {
            version: VERSION,
            id: source.id.clone().unwrap_or_else(new_key),
            name: source.name.clone(),
            group: source.group.clone(),
            created: now,
            changed: now,
            ..Head::default()
        });
        let current = Current {
            head,
            picture: opened.file.clone(),
            thumbnail: opened.thumbnail.clone(),
            body: None,
            is_temporary: false,
        };
        self.show_opened(opened);
        self.set_current(Some(current));
        if let Some(before) = before.filter(|_| !source.is_first && !is_known) {
            let text = words::opened(&source.name);
            self.keep.say(text, Some(Undo::Show(before)));
        }
    }

    /// Shows a kept conversation; after a failure the open one stays.
    pub fn open_kept(self, id: String) {
        if self.keep.id.get_untracked().as_ref() == Some(&id) {
            return;
        }
        let request = self.next_open_request();
        spawn_local(async move { self.restore(id, request).await });
    }

    async fn restore(self, id: String, request: u32) {
        self.save();
        let Some(record) = self.keep.record(&id).await else {
            self.notice.set(Some(lost(words::NOT_THERE)));
            return;
        };
        let snapshot = record.body.as_deref().map(Snapshot::read).transpose();
        let Ok(snapshot) = snapshot else {
            self.notice.set(Some(lost(words::DAMAGED)));
            return;
        };
        let Some(snapshot) = snapshot else {
            let source = Source {
                id: Some(id),
                ..Source::default()
            };
            self.open(record.picture, source, request).await;
            return;
        };
        self.opening.set(true);
        let opened = decode::open(&record.picture).await;
        if !self.is_last_request(request) {
            return;
        }
        self.opening.set(false);
        let opened = match opened {
            Ok(opened) => opened,
            Err(fault) => return self.notice.set(Some(fault)),
        };
        self.notice.set(None);
        self.leave();
        let (draft, kind) = (snapshot.draft.clone(), snapshot.kind);
        let picture = self.keep_pixels(opened);
        self.reset_input();
        self.act(snapshot.restore(picture));
        self.flush();
        self.draft.set(draft);
        self.kind.set(kind);
        let is_temporary = self.keep.temporary.with_value(|t| t.contains(&id));
        self.set_current(Some(Current {
            head: record.head,
            picture: record.picture,
            thumbnail: record.thumbnail,
            body: record.body,
            is_temporary,
        }));
        let last = |c: &Conversation| c.turns().last().and_then(Mentions::of).is_some();
        let names_boxes = self.conversation.with_value(last);
        self.overlay.update(|o| o.on_answer(names_boxes));
    }

    /// Closes the picture: the page is as empty as at the beginning, and the conversation is kept.
    pub fn close_picture(self) {
        self.next_open_request();
        let Some(id) = self.keep.id.get_untracked() else {
            return;
        };
        self.leave();
        self.show_nothing();
        self.keep
            .say(words::CLOSED.to_owned(), Some(Undo::Show(id)));
    }

    fn show_nothing(self) {
        self.overlay.update(Overlay::reset);
        self.reset_input();
        self.act(Input::Close);
        self.flush();
        self.draft.set(String::new());
        self.kind.set(QuestionKind::Free);
        self.set_current(None);
    }

    /// Deletes conversations; they can be put back for a while.
    pub fn delete_kept(self, id: String) {
        let keep = self.keep;
        spawn_local(async move {
            self.save();
            let record = keep.record(&id).await;
            let is_open = keep.id.get_untracked().as_ref() == Some(&id);
            if is_open {
                keep.current.set_value(None);
                self.show_nothing();
            }
            keep.forget(&id).await;
            // Those that were deleted just before come back with it.
            let (mut records, mut shown) = match keep.toast.get_untracked().and_then(|t| t.undo) {
                Some(Undo::Put(records, shown)) => (records, shown),
                _ => (Vec::new(), None),
            };
            records.extend(record);
            shown = if is_open { Some(id) } else { shown };
            let text = words::deleted(records.len());
            keep.say(text, Some(Undo::Put(records, shown)));
        });
    }

    /// Deletes all conversations.
    pub fn delete_everything(self) {
        let keep = self.keep;
        self.next_open_request();
        keep.current.set_value(None);
        self.show_nothing();
        keep.memory.update_value(BTreeMap::clear);
        keep.queue.update_value(VecDeque::clear);
        keep.seen.update_value(BTreeMap::clear);
        keep.thumbnails.update(BTreeMap::clear);
        keep.shelf.update(Shelf::clear);
        keep.toast.set(None);
        spawn_local(async move {
            if let Ok(store) = keep.store().await
                && let Err(trouble) = store.clear().await
            {
                keep.shelf.update(|shelf| shelf.trouble = Some(trouble));
            }
            keep.tell(words::ALL_DELETED.to_owned());
        });
    }

    /// Gives a conversation a title; an empty one gives back its own.
    pub fn rename_kept(self, id: String, title: String) {
        let keep = self.keep;
        let title = Some(title.trim().to_owned()).filter(|title| !title.is_empty());
        spawn_local(async move {
            if let Some(mut record) = keep.record(&id).await {
                record.head.renamed.clone_from(&title);
                keep.current.update_value(|current| {
                    if let Some(current) = current.as_mut().filter(|c| c.head.id == id) {
                        current.head.renamed = title;
                    }
                });
                keep.put(record);
            }
        });
    }

    /// Undoes what the last message is about.
    pub fn undo(self) {
        let keep = self.keep;
        let Some(toast) = keep.toast.get_untracked() else {
            return;
        };
        keep.toast.set(None);
        match toast.undo {
            Some(Undo::Show(id)) => self.open_kept(id),
            Some(Undo::Put(records, shown)) => {
                for record in records {
                    keep.put(record);
                }
                if let Some(id) = shown {
                    self.open_kept(id);
                }
            }
            None => {}
        }
    }

    /// Whether conversations are kept from now on.
    pub fn set_keep_history(self, is_kept: bool) {
        let keep = self.keep;
        keep.set(|settings| settings.keep_history = is_kept);
        if is_kept {
            let waiting = keep.memory.with_value(|m| m.keys().cloned().collect());
            keep.queue.set_value(waiting);
            keep.write_queue();
        }
    }

    /// Whether the open conversation stays in memory only; then what is stored of it is deleted.
    pub fn set_temporary(self, is_temporary: bool) {
        let keep = self.keep;
        let Some(id) = keep.id.get_untracked() else {
            return;
        };
        keep.is_temporary.set(is_temporary);
        keep.current.update_value(|current| {
            if let Some(current) = current {
                current.is_temporary = is_temporary;
                current.body = None;
            }
        });
        if is_temporary {
            keep.temporary.update_value(|t| {
                t.insert(id.clone());
            });
            spawn_local(async move {
                keep.forget(&id).await;
                self.save();
            });
        } else {
            keep.temporary.update_value(|t| {
                t.remove(&id);
            });
            self.save();
        }
    }

    /// Settings as for a new visitor; history and model stay.
    pub fn reset_settings(self) {
        self.keep.set(|settings| {
            *settings = Settings {
                model: settings.model.take(),
                keep_history: settings.keep_history,
                ..Settings::default()
            };
        });
        theme::apply(Theme::System);
        self.act(Input::ResetSettings);
    }

    /// Keeps what the user set.
    pub(super) fn keep_setting(self, input: &Input) {
        match *input {
            Input::Sampling(sampling) => self.keep.set(|s| s.sampling = sampling),
            Input::Filter(filter) => self.keep.set(|s| s.filter = Some(filter)),
            Input::Prefer(granularity) => self.keep.set(|s| s.granularity = granularity),
            _ => {}
        }
    }

    /// Opens the first of several pictures; the others wait beside it.
    pub fn open_files(self, files: Vec<(String, Blob)>) {
        let mut files = files.into_iter();
        let Some((name, first)) = files.next() else {
            return;
        };
        if files.len() == 0 {
            return self.open_file(first, name);
        }
        let group = Some(new_key());
        let request = self.next_open_request();
        spawn_local(async move {
            let (mut next, mut unread) = (Some((name, first)), 0);
            while let Some((name, file)) = next.take() {
                let source = Source {
                    name,
                    group: group.clone(),
                    ..Source::default()
                };
                if self.open(file, source, request).await {
                    break;
                }
                unread += 1;
                next = files.next();
            }
            for (name, file) in files {
                let Some(thumbnail) = decode::preview(&file).await else {
                    unread += 1;
                    continue;
                };
                let now = Date::now();
                self.keep.put(Record {
                    head: Head {
                        version: VERSION,
                        id: new_key(),
                        name,
                        group: group.clone(),
                        created: now,
                        changed: now,
                        ..Head::default()
                    },
                    body: None,
                    picture: file,
                    thumbnail: Some(thumbnail),
                });
            }
            if unread > 0 {
                self.notice.set(None);
                self.keep.tell(words::not_pictures(unread));
            }
        });
    }

    /// Shows the next or the previous picture of those that were opened together.
    pub fn step_picture(self, step: isize) -> bool {
        let next = self.keep.id.with_untracked(|id| {
            let id = id.as_deref()?;
            (self.keep.shelf).with_untracked(|s| Some(s.neighbor(id, step)?.id.clone()))
        });
        let found = next.is_some();
        if let Some(next) = next {
            self.open_kept(next);
        }
        found
    }

    /// Opens the first sample and asks its question, as at the first visit.
    pub fn open_first_sample(self) {
        let choice = self.models.with_untracked(|m| m.choice().clone());
        if let Some(sample) = samples::of(&choice).first() {
            self.open_sample_as(sample, true);
        }
    }
}

fn new_key() -> String {
    let random = (Math::random() * 2_f64.powi(52)) as u64;
    format!("{:012x}-{random:013x}", Date::now() as u64)
}

fn lost(what: &str) -> Fault {
    let advice = "The others are unchanged";
    Fault::new(FaultKind::File, "that conversation", what, advice)
}
