//! Runs a batch: gives `chat::batch` its inputs and carries out its effects on engine, store and history.

use std::collections::BTreeMap;
use std::time::Duration;

use chatrex::chat::batch::{
    Batch, Effect as Next, Input as Queue, Item, MAX_PICTURES, Status, Task,
};
use chatrex::chat::batch_export::{self, pages};
use chatrex::chat::batch_strings as words;
use chatrex::chat::batch_work::{FIRST, Work, WorkState, is_of_batch, takes_engine};
use chatrex::chat::conversation::{Input, Model};
use chatrex::chat::exchange::words as exchange_words;
use chatrex::chat::history::{Head, VERSION};
use chatrex::chat::review::Review;
use chatrex::error::{ErrorCode, Fault, FaultKind};
use chatrex::protocol::{Envelope, Event, ImageSize, PictureId, Request, ToWorker, TurnId};
use js_sys::Date;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use web_sys::Blob;

use super::batching::Current;
use super::dialog;
use super::kept::new_key;
use super::state::AppState;
use super::timer::repeat;
use crate::decode::{self, Opened};
use crate::embed;
use crate::export;
use crate::store::Record;

/// How often the time left is shown anew.
const SECOND: Duration = Duration::from_secs(1);

impl AppState {
    /// Shows the batch of the last visit, paused, and works on whenever the engine is free.
    pub fn begin_batching(self) {
        // A frame has no batches, and keeps nothing.
        if embed::options().is_embedded {
            return;
        }
        let batching = self.batching;
        let is_running = Memo::new(move |_| batching.batch.with(|b| b.running().is_some()));
        Effect::new(move |_| {
            if is_running.get() {
                repeat(SECOND, move || {
                    batching.tick.update(|tick| *tick = tick.wrapping_add(1));
                });
            }
        });
        batching.check();
        Effect::new(move |_| {
            self.model.track();
            self.busy.track();
            self.picture.track();
            self.likeness.track();
            let waits = batching
                .batch
                .with(|b| b.status() == Status::Running && b.running().is_none());
            let is_free = self
                .conversation
                .with_value(|c| matches!(c.model(), Model::Ready(_)) && c.is_settled());
            if waits && is_free {
                self.batch_step(Queue::Free(Date::now()), None);
            }
        });
    }

    /// Begins a batch with these pictures.
    pub fn start_batch(self, task: Task, in_history: bool, files: Vec<(String, Blob)>) {
        let batching = self.batching;
        if files.len() > MAX_PICTURES {
            let what = words::too_many(files.len(), MAX_PICTURES);
            let advice = "Choose fewer pictures; nothing was begun";
            let fault = Fault::new(FaultKind::Question, "the batch", what, advice);
            return batching.said.set(Some(Err(fault)));
        }
        batching.is_storing.set(true);
        spawn_local(async move {
            if let Err(fault) = batching.make_room().await {
                batching.is_storing.set(false);
                return batching.said.set(Some(Err(fault)));
            }
            let named = files
                .iter()
                .map(|(name, file)| (name.as_str(), file.size() as u64));
            let batch = Batch::new(new_key(), task, in_history, Item::all(named));
            let is_wanted = self.keep.settings.with_untracked(|s| s.keep_history);
            let store = batching.store().await.filter(|_| is_wanted);
            let mut is_kept = false;
            if let Some(store) = store {
                is_kept = store.begin(&batch.head.to_json()).await.is_ok();
                for (index, (_, file)) in files.iter().enumerate() {
                    let state = batch.items()[index].to_json();
                    is_kept = is_kept && store.add(index, &state, file).await.is_ok();
                }
            }
            let files = files.into_iter().map(|(_, file)| file).enumerate();
            batching.files.set_value(files.collect());
            batching.bodies.update_value(BTreeMap::clear);
            batching.review.set(Review::default());
            batching.is_kept.set(is_kept);
            batching.is_storing.set(false);
            batching.batch.set(batch);
            self.batch_step(Queue::Resume, None);
        });
    }

    /// Deletes the batch.
    pub fn forget_batch(self) {
        let batching = self.batching;
        self.batch_step(Queue::Cancel, None);
        batching.batch.set(Batch::default());
        batching.review.set(Review::default());
        batching.is_reviewing.set(false);
        batching.said.set(None);
        batching.files.update_value(BTreeMap::clear);
        batching.bodies.update_value(BTreeMap::clear);
        spawn_local(async move {
            if let Some(store) = batching.store().await {
                batching.is_kept.set(store.clear().await.is_ok());
            }
            batching.release();
        });
    }

    /// Gives the batch an input and carries out what follows; `body` is the conversation of a picture that
    /// is done.
    pub fn batch_step(self, input: Queue, body: Option<String>) {
        let batching = self.batching;
        let mut effects = Vec::new();
        batching.batch.update(|batch| effects = batch.step(input));
        for effect in effects {
            match effect {
                Next::Begin(index) => self.begin_picture(index),
                Next::Stop => self.stop_picture(),
                Next::Store(index) => batching.keep(index, body.clone()),
            }
        }
    }

    fn begin_picture(self, index: usize) {
        let batching = self.batching;
        batching.begun.update_value(|begun| *begun += 1);
        let begun = batching.begun.get_value();
        spawn_local(async move {
            let opened = match batching.file(index).await {
                Some(file) => decode::open(&file).await,
                None => Err(gone()),
            };
            if batching.begun.get_value() != begun {
                return;
            }
            let opened = match opened {
                Ok(opened) => opened,
                Err(mut fault) => {
                    fault.advice = String::new();
                    return self.batch_step(Queue::Failed(index, fault), None);
                }
            };
            // The user may have asked something meanwhile.
            let is_free = (self.conversation).with_value(|c| c.is_settled());
            if !is_free {
                return self.batch_step(Queue::Interrupted, None);
            }
            self.act(Input::Yield);
            let task = batching.batch.with_untracked(|b| b.head.task.clone());
            let next = TurnId(batching.next_turn.get_value());
            let picture = PictureId(FIRST + begun);
            let size = ImageSize {
                width: opened.width,
                height: opened.height,
            };
            let (work, requests) =
                (self.conversation).with_value(|c| Work::begin(c, next, picture, size, task));
            batching.current.set_value(Some(Current {
                index,
                work,
                opened,
            }));
            self.send_for_batch(requests);
        });
    }

    fn stop_picture(self) {
        let batching = self.batching;
        batching.begun.update_value(|begun| *begun += 1);
        if let Some(mut current) = batching.current.try_update_value(Option::take).flatten() {
            let requests = current.work.stop();
            batching.next_turn.set_value(current.work.next_turn().0);
            self.send_for_batch(requests);
        }
    }

    fn send_for_batch(self, requests: Vec<Request>) {
        for request in requests {
            let attachment = self.batching.current.with_value(|current| {
                let rgb = &current.as_ref()?.opened.rgb;
                let is_first = matches!(request, Request::Look { size: Some(_), .. });
                is_first.then(|| JsValue::from(decode::copied(rgb).buffer()))
            });
            self.send(Envelope {
                body: ToWorker::Engine(request),
                attachment,
            });
        }
    }

    /// Takes an event of the engine that is about the batch; false for any other.
    pub(super) fn batch_event(self, event: &Event) -> bool {
        let batching = self.batching;
        let works = batching.current.with_value(Option::is_some);
        if !is_of_batch(event, works) {
            return false;
        }
        let requests = batching.current.try_update_value(|current| {
            let current = current.as_mut()?;
            Some(current.work.on_event(event.clone()))
        });
        if let Some(requests) = requests.flatten() {
            self.send_for_batch(requests);
            self.check_picture();
        }
        true
    }

    /// Ends the work on the running picture where it is complete.
    fn check_picture(self) {
        let batching = self.batching;
        let state = batching.current.with_value(|current| {
            let current = current.as_ref()?;
            let name = batching
                .batch
                .with_untracked(|b| b.items()[current.index].name.clone());
            Some(current.work.state(&name))
        });
        let Some(state) = state.filter(|state| *state != WorkState::Going) else {
            return;
        };
        let Some(current) = batching.current.try_update_value(Option::take).flatten() else {
            return;
        };
        batching.next_turn.set_value(current.work.next_turn().0);
        let index = current.index;
        match state {
            WorkState::Going => {}
            WorkState::Failed(fault) => self.batch_step(Queue::Failed(index, fault), None),
            WorkState::Answered(outcome) => {
                let body = current.work.snapshot().map(|s| s.to_json());
                let answered = Queue::Answered(index, outcome, Date::now());
                self.batch_step(answered, body.clone());
                if batching.batch.with_untracked(|b| b.head.in_history) {
                    let Opened {
                        file, thumbnail, ..
                    } = current.opened;
                    self.put_in_history(index, body, file, thumbnail);
                }
            }
        }
    }

    /// The user's request takes the engine.
    pub(super) fn interrupt_batch(self, requests: &[Request]) {
        let is_running = || (self.batching.batch).with_untracked(|b| b.running().is_some());
        if requests.iter().any(takes_engine) && is_running() {
            self.batch_step(Queue::Interrupted, None);
        }
    }

    /// The engine is lost.
    pub(super) fn lose_batch(self, fault: &Fault) {
        if (self.batching.batch).with_untracked(|b| b.running().is_some()) {
            self.batch_step(Queue::Lost(fault.clone()), None);
        }
    }

    /// The key of a picture of the batch in the history.
    fn batch_key(self, index: usize) -> String {
        (self.batching.batch).with_untracked(|b| format!("{}-{index}", b.head.id))
    }

    fn put_in_history(
        self,
        index: usize,
        body: Option<String>,
        picture: Blob,
        thumbnail: Option<Blob>,
    ) {
        let now = Date::now();
        let head = self.batching.batch.with_untracked(|batch| {
            let item = &batch.items()[index];
            let outcome = item.outcome();
            let questions = outcome.map(|o| o.shown.clone()).filter(|q| !q.is_empty());
            Head {
                version: VERSION,
                id: self.batch_key(index),
                name: item.name.clone(),
                group: Some(batch.head.id.clone()),
                questions: questions.into_iter().collect(),
                model: outcome.map(|o| o.model.clone()).unwrap_or_default(),
                // In the order of the batch.
                created: now + index as f64 / 1000.0,
                changed: now,
                ..Head::default()
            }
        });
        self.keep.put(Record {
            head,
            body,
            picture,
            thumbnail,
        });
    }

    /// The keys and names of the pictures that were opened together with the current one.
    pub fn group_of_current(self) -> Vec<(String, String)> {
        let id = self.keep.id.get().unwrap_or_default();
        self.keep.shelf.with(|shelf| {
            let group = shelf.group(&id).into_iter();
            group.map(|h| (h.id.clone(), h.name.clone())).collect()
        })
    }

    /// Their files with their names.
    pub async fn group_pictures(self) -> Vec<(String, Blob)> {
        let mut pictures = Vec::new();
        for (id, name) in untrack(|| self.group_of_current()) {
            if let Some(record) = self.keep.record(&id).await {
                pictures.push((name, record.picture));
            }
        }
        pictures
    }

    /// Shows a picture of the batch with its answer on the page.
    pub fn open_of_batch(self, index: usize) {
        let batching = self.batching;
        dialog::close(batching.dialog);
        spawn_local(async move {
            let id = self.batch_key(index);
            if self.keep.shelf.with_untracked(|s| s.get(&id).is_none()) {
                let Some(file) = batching.file(index).await else {
                    return self.notice.set(Some(gone()));
                };
                let body = batching.body(index).await;
                let thumbnail = decode::preview(&file).await;
                self.put_in_history(index, body, file, thumbnail);
            }
            self.open_kept(id);
        });
    }

    /// Saves the results as lines of JSON.
    pub fn save_batch_lines(self, only_accepted: bool) {
        let lines = self.batch_lines(only_accepted);
        let saved = export::text(&lines, "application/jsonl").and_then(|blob| {
            export::download("batch.jsonl", &blob)?;
            Ok(exchange_words::saved(
                "batch.jsonl",
                None,
                blob.size() as u64,
            ))
        });
        self.batching.said.set(Some(saved));
    }

    fn batch_lines(self, only_accepted: bool) -> String {
        let batching = self.batching;
        batching.batch.with_untracked(|batch| {
            let review = batching.review.get_untracked();
            batch_export::jsonl(batch, only_accepted.then_some(&review))
        })
    }

    /// Saves the results as an archive.
    pub fn save_batch_zip(self, only_accepted: bool, with_pictures: bool) {
        let batching = self.batching;
        batching
            .said
            .set(Some(Ok(exchange_words::WORKING().to_owned())));
        spawn_local(async move {
            let saved = self.batch_zip(only_accepted, with_pictures).await;
            batching.said.set(Some(saved));
        });
    }

    async fn batch_zip(self, only_accepted: bool, with_pictures: bool) -> Result<String, Fault> {
        let batching = self.batching;
        let lines = self.batch_lines(only_accepted);
        let pages = batching.batch.with_untracked(|batch| {
            let review = batching.review.get_untracked();
            pages(batch, only_accepted.then_some(&review))
        });
        let mut pictures = Vec::new();
        let mut bytes = 0;
        for page in pages.iter().filter(|_| with_pictures) {
            let file = batching.file(page.item).await.ok_or_else(gone)?;
            bytes += file.size() as u64;
            if bytes > batch_export::MAX_BYTES {
                let fault = Fault::new(
                    FaultKind::File,
                    "batch.zip",
                    words::TOO_MUCH,
                    words::WITHOUT_PICTURES,
                );
                return Err(fault.code(ErrorCode::OutOfMemory));
            }
            pictures.push(export::content(&file).await?);
        }
        let boxes = pages.iter().map(|page| page.sheet.boxes.len()).sum();
        let zip = batch_export::zip(&pages, &lines, &pictures);
        let blob = export::bytes(&zip, "application/zip")?;
        export::download("batch.zip", &blob)?;
        Ok(exchange_words::saved(
            "batch.zip",
            Some(boxes),
            blob.size() as u64,
        ))
    }
}

/// A picture that the store does not have any more.
fn gone() -> Fault {
    Fault::new(
        FaultKind::File,
        "that picture",
        "it is not in the browser's storage any more",
        "Begin a batch with it again",
    )
    .code(ErrorCode::NotFound)
}
