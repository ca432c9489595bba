//! An async mutex whose waiters are served in the order of their keys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A position in a model: the index of the file, and the byte.
type Key = (usize, u64);

/// The mutex, unlocked at first.
#[derive(Default)]
pub struct PriorityLock {
    locked: Cell<bool>,
    waiting: RefCell<BTreeMap<Key, Waker>>,
}

/// The lock is held until this is dropped.
pub struct PriorityGuard<'a>(&'a PriorityLock);

impl PriorityLock {
    /// Waits until the mutex is unlocked and `key` is the lowest of those that wait.
    pub async fn lock(&self, key: Key) -> PriorityGuard<'_> {
        let waiter = Waiter { lock: self, key };
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            waiting.insert(key, context.waker().clone());
            let is_first = waiting.first_key_value().is_some_and(|(&k, _)| k == key);
            if self.locked.get() || !is_first {
                return Poll::Pending;
            }
            self.locked.set(true);
            Poll::Ready(())
        })
        .await;
        drop(waiter);
        PriorityGuard(self)
    }

    fn wake_first(&self) {
        if let Some((_, waker)) = self.waiting.borrow().first_key_value() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for PriorityGuard<'_> {
    fn drop(&mut self) {
        self.0.locked.set(false);
        self.0.wake_first();
    }
}

/// An entry among the waiters; dropped with the future that waits.
struct Waiter<'a> {
    lock: &'a PriorityLock,
    key: Key,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.lock.waiting.borrow_mut().remove(&self.key);
        if !self.lock.locked.get() {
            self.lock.wake_first();
        }
    }
}
