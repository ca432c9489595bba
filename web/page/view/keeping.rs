//! What stays: the open conversation, the way back to kept ones, and the settings.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chatrex::chat::conversation::{Conversation, Input};
use chatrex::chat::history::{Head, Shelf, Snapshot, VERSION};
use chatrex::chat::kept_strings as words;
use chatrex::chat::overlay::{Mentions, Overlay};
use chatrex::chat::question::QuestionKind;
use chatrex::chat::samples;
use chatrex::chat::settings::{LanguageChoice, Settings, Theme};
use chatrex::chat::share::Shared;
use chatrex::error::{Fault, FaultKind};
use js_sys::Date;
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::Blob;

use super::kept::{Current, Source, Undo, new_key};
use super::share;
use super::state::AppState;
use crate::decode::{self, Opened};
use crate::store::Record;
use crate::{embed, locale, memory, theme};

/// A change is written after this time.
const DELAY: Duration = Duration::from_millis(300);

impl AppState {
    /// Decides what the page shows first: what it showed last; at the very first visit the first sample
    /// with its question; else nothing.
    pub fn begin_keeping(self) {
        let keep = self.keep;
        let is_first_visit = memory::settings().is_none();
        let settings = keep.settings.get_untracked();
        theme::apply(settings.theme);
        locale::apply(settings.language);
        self.act(Input::Usual {
            choices: settings.choices,
            now: true,
        });
        if let Some(filter) = settings.filter {
            self.act(Input::Filter(filter));
        }
        self.act(Input::Prefer(settings.granularity));
        self.watch_changes();
        let shared = share::take_link(self);
        let frame = embed::options();
        if frame.forgets() {
            keep.is_decided.set(true);
            self.take_prompt(shared);
            return;
        }
        let request = self.next_open_request();
        spawn_local(async move {
            if is_first_visit && !frame.is_embedded {
                if shared.is_none() && self.is_last_request(request) {
                    self.open_first_sample();
                }
                keep.is_decided.set(true);
                self.take_prompt(shared);
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
            self.take_prompt(shared);
        });
    }

    /// Puts the question of a link into the text box. It is not asked.
    fn take_prompt(self, shared: Option<Shared>) {
        if let Some(shared) = shared
            && self.draft.with_untracked(String::is_empty)
        {
            self.kind.set(shared.kind);
            self.draft.set(shared.prompt);
        }
    }

    /// Takes over the settings of a link, for this visit.
    pub(super) fn take_settings(self, shared: &Shared) {
        let settings = [
            shared.filter.map(Input::Filter),
            shared.sampling.map(Input::Sampling),
            shared.granularity.map(Input::Prefer),
        ];
        // Without a picture none of them asks the engine for anything.
        self.conversation.update_value(|conversation| {
            for input in settings.into_iter().flatten() {
                conversation.step(input);
            }
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
            self.choices.track();
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
        // Words that were typed before the page had decided what it shows are newer.
        let mut draft = self.draft.get_untracked();
        if self.keep.is_decided.get_untracked() || draft.is_empty() {
            draft = snapshot.draft.clone();
        }
        let kind = snapshot.kind;
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
            .say(words::CLOSED().to_owned(), Some(Undo::Show(id)));
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
        self.forget_batch();
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
            keep.tell(words::ALL_DELETED().to_owned());
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

    /// The name of the current picture's file.
    pub fn picture_name(self) -> String {
        let current = &self.keep.current;
        let name = current.with_value(|current| Some(current.as_ref()?.head.name.clone()));
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| "picture".to_owned())
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
        locale::apply(LanguageChoice::System);
        self.act(Input::ResetSettings);
    }

    /// Keeps what the user set.
    pub(super) fn keep_setting(self, input: &Input) {
        match input {
            Input::Usual { choices, .. } => self.keep.set(|s| s.choices = choices.clone()),
            Input::Filter(filter) => self.keep.set(|s| s.filter = Some(*filter)),
            Input::Prefer(granularity) => self.keep.set(|s| s.granularity = *granularity),
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

fn lost(what: &str) -> Fault {
    let advice = "The others are unchanged";
    Fault::new(FaultKind::File, "that conversation", what, advice)
}
