//! Prefetches batches on worker threads and returns them in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// An ordered queue of batches `first`, `first + 1` and so on. A batch depends on its index only, so
/// the number of threads does not change the result.
pub struct DataLoader<T> {
    receiver: Receiver<(u64, T)>,
    /// Batches that arrived ahead of `next`.
    pending: BTreeMap<u64, T>,
    next: u64,
    stop: Arc<AtomicBool>,
}

impl<T: Send + 'static> DataLoader<T> {
    /// Starts `threads` worker threads that call `make` with the indices from `first` on.
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
                    let index = counter.fetch_add(1, Ordering::Relaxed);
                    if sender.send((index, make(index))).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            receiver,
            pending: BTreeMap::new(),
            next: first,
            stop,
        }
    }

    /// Blocks until the next batch is ready and returns it.
    ///
    /// # Panics
    /// A worker thread panicked.
    pub fn next_batch(&mut self) -> T {
        loop {
            if let Some(batch) = self.pending.remove(&self.next) {
                self.next += 1;
                return batch;
            }
            let (index, batch) = self
                .receiver
                .recv()
                .expect("the worker threads do not panic");
            self.pending.insert(index, batch);
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
    fn returns_batches_in_order() {
        let mut loader = DataLoader::start(5, 3, |n| n * n);
        for n in 5..40 {
            assert_eq!(loader.next_batch(), n * n);
        }
    }
}
