//! The state of a batch: the machines of `chat::batch` and `chat::review`, its files, and what is kept of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use chatrex::chat::batch::{Batch, Item};
use chatrex::chat::batch_strings as words;
use chatrex::chat::batch_work::{FIRST, Work};
use chatrex::chat::review::{self, Review};
use chatrex::error::{ErrorCode, Fault, FaultKind};
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::Blob;

use super::dialog;
use crate::batch_store::BatchStore;
use crate::decode::Opened;
use crate::locks::Lock;
use crate::pause::pause;

/// The lock of the tab that works on the batch.
const LOCK: &str = "chatrex batch";

/// How often a held lock is asked for again, and the pause between in milliseconds: the page that is
/// reloaded still holds it for a moment.
const ATTEMPTS: u32 = 10;
const PAUSE: i32 = 100;

/// The picture that is being worked on.
pub(super) struct Current {
    pub(super) index: usize,
    pub(super) work: Work,
    pub(super) opened: Opened,
}

/// The state of a batch. Copied freely.
#[derive(Clone, Copy)]
pub struct Batching {
    store: StoredValue<Option<Rc<BatchStore>>, LocalStorage>,
    /// Held while this tab has a batch.
    lock: StoredValue<Option<Lock>, LocalStorage>,
    /// Files of this visit by their place; those of an earlier one are in the store.
    pub(super) files: StoredValue<BTreeMap<usize, Blob>, LocalStorage>,
    /// Conversations that are not in the store.
    pub(super) bodies: StoredValue<BTreeMap<usize, String>, LocalStorage>,
    pub(super) current: StoredValue<Option<Current>, LocalStorage>,
    /// Counts the pictures that were begun; what comes for an earlier one is outdated.
    pub(super) begun: StoredValue<u32>,
    pub(super) next_turn: StoredValue<u32>,
    /// Counts the seconds while the batch runs.
    pub tick: RwSignal<u32>,
    /// The dialog.
    pub dialog: NodeRef<html::Dialog>,
    /// The batch; without pictures there is none.
    pub batch: RwSignal<Batch>,
    /// Its review.
    pub review: RwSignal<Review>,
    /// Whether the review is shown.
    pub is_reviewing: RwSignal<bool>,
    /// True while pictures are stored before the start.
    pub is_storing: RwSignal<bool>,
    /// Whether results survive a reload.
    pub is_kept: RwSignal<bool>,
    /// Whether another tab has the batch.
    pub is_elsewhere: RwSignal<bool>,
    /// What came of the last action.
    pub said: RwSignal<Option<Result<String, Fault>>>,
}

impl Batching {
    /// Without a batch.
    pub fn new() -> Self {
        Self {
            store: StoredValue::new_local(None),
            lock: StoredValue::new_local(None),
            files: StoredValue::new_local(BTreeMap::new()),
            bodies: StoredValue::new_local(BTreeMap::new()),
            current: StoredValue::new_local(None),
            begun: StoredValue::new(0),
            next_turn: StoredValue::new(FIRST),
            tick: RwSignal::new(0),
            dialog: NodeRef::new(),
            batch: RwSignal::new(Batch::default()),
            review: RwSignal::new(Review::default()),
            is_reviewing: RwSignal::new(false),
            is_storing: RwSignal::new(false),
            is_kept: RwSignal::new(true),
            is_elsewhere: RwSignal::new(false),
            said: RwSignal::new(None),
        }
    }

    /// Shows the dialog.
    pub fn open(self) {
        self.said.set(None);
        if self.is_elsewhere.get_untracked() {
            self.check();
        }
        dialog::show(self.dialog);
    }

    /// Takes the batch over if the other tab has given it up.
    pub fn check(self) {
        spawn_local(self.load());
    }

    /// Shows the stored batch, paused, unless another tab has it.
    pub(super) async fn load(self) {
        let store = self.store().await;
        self.is_kept.set(store.is_some());
        let Some(store) = store else {
            return;
        };
        let is_ours = self.claim().await;
        self.is_elsewhere.set(!is_ours);
        if is_ours && !self.restore(&store).await {
            self.release();
        }
    }

    /// Takes over the stored batch; false if there is none, or this tab has another one.
    pub(super) async fn restore(self, store: &BatchStore) -> bool {
        let Some(stored) = store.load().await else {
            return false;
        };
        let Some(batch) = Batch::restore(&stored.head, &stored.items) else {
            return false;
        };
        // The user may have begun another one meanwhile.
        let is_free = self.batch.with_untracked(|b| b.items().is_empty());
        if is_free {
            self.batch.set(batch);
            let review = stored.review.as_deref().map(Review::read);
            self.review.set(review.unwrap_or_default());
        }
        is_free
    }

    /// Takes the lock for a new batch.
    ///
    /// # Errors
    /// Another tab has a batch, or left one, which is shown then.
    pub(super) async fn make_room(self) -> Result<(), Fault> {
        let busy = |what, advice| {
            Err(Fault::new(FaultKind::Question, "the batch", what, advice).code(ErrorCode::InUse))
        };
        let was_ours = self.is_claimed();
        if !self.claim().await {
            self.is_elsewhere.set(true);
            return busy(words::IS_ELSEWHERE, words::CLOSE_OTHER);
        }
        if let (false, Some(store)) = (was_ours, self.store().await)
            && self.restore(&store).await
        {
            return busy(words::WAS_ELSEWHERE, words::SAVE_OTHER);
        }
        Ok(())
    }

    /// Whether this tab holds the lock.
    pub(super) fn is_claimed(self) -> bool {
        self.lock.with_value(Option::is_some)
    }

    /// Takes the lock; false while another tab holds it. A browser without locks always agrees.
    pub(super) async fn claim(self) -> bool {
        for _ in 0..ATTEMPTS {
            if self.is_claimed() {
                return true;
            }
            match Lock::get(LOCK).await {
                Ok(Some(lock)) => self.lock.set_value(Some(lock)),
                Ok(None) => pause(PAUSE).await,
                Err(_) => return true,
            }
        }
        self.is_claimed()
    }

    /// Gives up the lock, unless this tab has a batch or begins one.
    pub(super) fn release(self) {
        let is_idle = self.batch.with_untracked(|b| b.items().is_empty());
        if is_idle && !self.is_storing.get_untracked() {
            self.lock.set_value(None);
        }
    }

    pub(super) async fn store(self) -> Option<Rc<BatchStore>> {
        if let Some(store) = self.store.get_value() {
            return Some(store);
        }
        let store = Rc::new(BatchStore::open().await.ok()?);
        self.store.set_value(Some(store.clone()));
        Some(store)
    }

    /// The file of a picture.
    pub async fn file(self, index: usize) -> Option<Blob> {
        let known = self.files.with_value(|files| files.get(&index).cloned());
        if known.is_some() {
            return known;
        }
        self.store().await?.picture(index).await
    }

    pub(super) async fn body(self, index: usize) -> Option<String> {
        let known = self.bodies.with_value(|bodies| bodies.get(&index).cloned());
        if known.is_some() {
            return known;
        }
        self.store().await?.body(index).await
    }

    /// Gives the review an input, and keeps it.
    pub fn review(self, input: review::Input) {
        let is_stored = input.is_stored();
        self.batch
            .with_untracked(|batch| self.review.update(|review| review.step(input, batch)));
        if is_stored && self.is_kept.get_untracked() {
            let json = self.review.with_untracked(Review::to_json);
            spawn_local(async move {
                let stored = match self.store().await {
                    Some(store) => store.set_review(&json).await.is_ok(),
                    None => false,
                };
                self.is_kept.set(stored);
            });
        }
    }

    /// Stores the state of a picture; its conversation stays in memory where that fails.
    pub(super) fn keep(self, index: usize, body: Option<String>) {
        let state = self
            .batch
            .with_untracked(|b| b.items().get(index).map(Item::to_json));
        let Some(state) = state else {
            return;
        };
        if let Some(body) = &body {
            self.bodies
                .update_value(|bodies| drop(bodies.insert(index, body.clone())));
        }
        if !self.is_kept.get_untracked() {
            return;
        }
        spawn_local(async move {
            let stored = match self.store().await {
                Some(store) => store.set(index, &state, body.as_deref()).await.is_ok(),
                None => false,
            };
            if stored {
                self.bodies
                    .update_value(|bodies| drop(bodies.remove(&index)));
            }
            self.is_kept.set(stored);
        });
    }
}
