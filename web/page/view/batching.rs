//! The state of a batch: the machines of `chat::batch` and `chat::review`, its files, and what is kept of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use chatrex::chat::batch::{Batch, Item};
use chatrex::chat::batch_work::{FIRST, Work};
use chatrex::chat::review::{self, Review};
use chatrex::error::Fault;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::Blob;

use super::dialog;
use crate::batch_store::BatchStore;
use crate::decode::Opened;

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
    /// What came of the last action.
    pub said: RwSignal<Option<Result<String, Fault>>>,
}

impl Batching {
    /// Without a batch.
    pub fn new() -> Self {
        Self {
            store: StoredValue::new_local(None),
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
            said: RwSignal::new(None),
        }
    }

    /// Shows the dialog.
    pub fn open(self) {
        self.said.set(None);
        dialog::show(self.dialog);
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
