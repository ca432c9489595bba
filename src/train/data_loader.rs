//! Batches drawn ahead of time by other threads, handed out in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// A queue of batches number `first`, `first + 1`, and so on. What a batch holds depends on its
/// number alone, so the threads change nothing.
pub struct DataLoader<T> {
    receiver: Receiver<(u64, T)>,
    early: BTreeMap<u64, T>,
    next: u64,
    stop: Arc<AtomicBool>,
}

impl<T: Send + 'static> DataLoader<T> {
    /// Starts `threads` threads that call `make` with the numbers from `first` on.
    pub fn start(
        first: u64,
        threads: usize,
        make: impl Fn(u64) -> T + Send + Sync + 'static,
    ) -> Self {
        let (sender, receiver) = sync_channel(2);
        let (make, counter) = (Arc::new(make), Arc::new(AtomicU64::new(first)));
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..threads.max(1) {
            let (make, counter, stop) = (make.clone(), counter.clone(), stop.clone());
            let sender = sender.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = counter.fetch_add(1, Ordering::Relaxed);
                    if sender.send((number, make(number))).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            receiver,
            early: BTreeMap::new(),
            next: first,
            stop,
        }
    }

    /// The next batch.
    ///
    /// # Panics
    /// A thread that makes batches panicked.
    pub fn take(&mut self) -> T {
        loop {
            if let Some(batch) = self.early.remove(&self.next) {
                self.next += 1;
                return batch;
            }
            let (number, batch) = self
                .receiver
                .recv()
                .expect("the threads that make batches do not panic");
            self.early.insert(number, batch);
        }
    }
}

impl<T> Drop for DataLoader<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_in_order() {
        let mut feed = DataLoader::start(5, 3, |n| n * n);
        for n in 5..40 {
            assert_eq!(feed.take(), n * n);
        }
    }
}
