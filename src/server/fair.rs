//! A bounded queue that serves clients in turn.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items of clients. Each client has a lane; [`FairQueue::pop`] takes one item of a lane and goes on to the next
/// lane, so a client with many items delays another by one item at most.
#[derive(Debug)]
pub struct FairQueue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct Inner<T> {
    /// In the order in which they are served; none is empty.
    lanes: VecDeque<Lane<T>>,
    length: usize,
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Lane<T> {
    client: String,
    items: VecDeque<(u64, T)>,
}

/// Why an item is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many items as the queue holds, and no client has more than this one.
    Full,
    /// The queue is closed.
    Closed,
}

/// An item was queued.
#[derive(Debug, PartialEq, Eq)]
pub struct Queued<T> {
    /// The number of the item, for [`FairQueue::remove`].
    pub number: u64,
    /// The newest item of the client with most of them, which gave way: the queue was full.
    pub displaced: Option<T>,
}

impl<T> FairQueue<T> {
    /// A queue of at most `capacity` items, at least one.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            lanes: VecDeque::new(),
            length: 0,
            next: 0,
            closed: false,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            capacity: capacity.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an item of `client`. In a full queue it takes the place of an item of a client that has at least two
    /// more.
    ///
    /// # Errors
    /// The queue is full or closed.
    pub fn push(&self, client: &str, item: T) -> Result<Queued<T>, Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        let mut displaced = None;
        if inner.length >= self.capacity {
            let own = inner.lanes.iter().find(|lane| lane.client == client);
            let own = own.map_or(0, |lane| lane.items.len());
            let longest = inner.lanes.iter_mut().max_by_key(|lane| lane.items.len());
            let longest = longest.filter(|lane| lane.items.len() >= own + 2);
            let (_, item) = longest
                .and_then(|lane| lane.items.pop_back())
                .ok_or(Refused::Full)?;
            displaced = Some(item);
            inner.length -= 1;
        }
        let number = inner.next;
        inner.next += 1;
        inner.length += 1;
        match inner.lanes.iter_mut().find(|lane| lane.client == client) {
            Some(lane) => lane.items.push_back((number, item)),
            None => inner.lanes.push_back(Lane {
                client: client.to_owned(),
                items: [(number, item)].into(),
            }),
        }
        self.changed.notify_one();
        Ok(Queued { number, displaced })
    }

    /// The next item; waits for one. `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut inner = self.lock();
        loop {
            if let Some(mut lane) = inner.lanes.pop_front() {
                let (_, item) = lane.items.pop_front().expect("no lane is empty");
                inner.length -= 1;
                if !lane.items.is_empty() {
                    inner.lanes.push_back(lane);
                }
                return Some(item);
            }
            if inner.closed {
                return None;
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the item `number` out, if it still waits.
    pub fn remove(&self, number: u64) -> Option<T> {
        let mut inner = self.lock();
        for index in 0..inner.lanes.len() {
            let items = &mut inner.lanes[index].items;
            if let Some(place) = items.iter().position(|(found, _)| *found == number) {
                let (_, item) = items.remove(place)?;
                if items.is_empty() {
                    inner.lanes.remove(index);
                }
                inner.length -= 1;
                return Some(item);
            }
        }
        None
    }

    /// Refuses further items; those that wait are still served.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// How many items wait.
    pub fn length(&self) -> usize {
        self.lock().length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(queue: &FairQueue<&'static str>) -> Vec<&'static str> {
        queue.close();
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn clients_are_served_in_turn() {
        let queue = FairQueue::new(9);
        for item in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            queue.push(&item[..1], item).expect("room");
        }
        assert_eq!(queue.length(), 6);
        assert_eq!(queue.pop(), Some("a1"));
        queue.push("d", "d1").expect("room");
        assert_eq!(drained(&queue), ["b1", "c1", "a2", "d1", "b2", "a3"]);
        assert_eq!((queue.length(), queue.pop()), (0, None));
        assert_eq!(queue.push("a", "late"), Err(Refused::Closed));
    }

    #[test]
    fn a_full_queue_takes_from_the_client_with_most() {
        let queue = FairQueue::new(3);
        for item in ["a1", "a2", "a3"] {
            queue.push("a", item).expect("room");
        }
        assert_eq!(queue.push("a", "a4"), Err(Refused::Full));
        let queued = queue.push("b", "b1").expect("a has three");
        assert_eq!(queued.displaced, Some("a3"));
        assert_eq!(queue.push("b", "b2"), Err(Refused::Full), "a has two");
        let queued = queue.push("c", "c1").expect("a has two more");
        assert_eq!(queued.displaced, Some("a2"));
        assert_eq!(queue.push("d", "d1"), Err(Refused::Full), "one each");
        assert_eq!(drained(&queue), ["a1", "b1", "c1"]);
    }

    #[test]
    fn an_item_can_be_taken_out() {
        let queue = FairQueue::new(3);
        let first = queue.push("a", "a1").expect("room").number;
        queue.push("a", "a2").expect("room");
        let other = queue.push("b", "b1").expect("room").number;
        assert_eq!(queue.remove(first), Some("a1"));
        assert_eq!(queue.remove(first), None);
        assert_eq!(queue.remove(other), Some("b1"));
        assert_eq!(queue.length(), 1);
        assert_eq!(drained(&queue), ["a2"]);
    }

    #[test]
    fn a_waiting_thread_gets_the_item() {
        let queue = FairQueue::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (queue.pop(), queue.pop()));
            queue.push("a", 7).expect("room");
            while queue.length() > 0 {
                std::thread::yield_now();
            }
            queue.close();
            assert_eq!(waiting.join().expect("no panic"), (Some(7), None));
        });
    }
}
