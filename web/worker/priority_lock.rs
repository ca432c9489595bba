//! A gate that one passes at a time: of those who wait, the one with the lowest key.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A place in a model: the file's place among the files, and the byte.
type Key = (usize, u64);

/// Open at first.
#[derive(Default)]
pub struct PriorityLock {
    passing: Cell<bool>,
    waiting: RefCell<BTreeMap<Key, Waker>>,
}

/// The right to be inside; given back when dropped.
pub struct Passing<'a>(&'a PriorityLock);

impl PriorityLock {
    /// Waits for the turn of `key`.
    pub async fn pass(&self, key: Key) -> Passing<'_> {
        let queued = Queued { gate: self, key };
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            waiting.insert(key, context.waker().clone());
            let first = waiting.first_key_value().is_some_and(|(&k, _)| k == key);
            if self.passing.get() || !first {
                return Poll::Pending;
            }
            self.passing.set(true);
            Poll::Ready(())
        })
        .await;
        drop(queued);
        Passing(self)
    }

    fn wake(&self) {
        if let Some((_, waker)) = self.waiting.borrow().first_key_value() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.passing.set(false);
        self.0.wake();
    }
}

/// A place in the queue, left when whoever waits gives up.
struct Queued<'a> {
    gate: &'a PriorityLock,
    key: Key,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.gate.waiting.borrow_mut().remove(&self.key);
        if !self.gate.passing.get() {
            self.gate.wake();
        }
    }
}
