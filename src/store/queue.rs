//! A bounded queue between two threads, which hands over everything that waits at once.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items with their weight in bytes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    max_bytes: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    bytes: usize,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// A queue that takes nothing more while at least `max_bytes` wait.
    pub(super) fn new(max_bytes: usize) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), max_bytes }
    }

    /// No thread panics while it holds the lock, so what it guards is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item, after waiting for room. A closed queue gives it back.
    pub(super) fn push(&self, item: T, bytes: usize) -> Result<(), T> {
        let mut state = self.lock();
        while state.bytes >= self.max_bytes && !state.is_closed {
            state = self.wait(state);
        }
        if state.is_closed {
            return Err(item);
        }
        state.items.push_back(item);
        state.bytes = state.bytes.saturating_add(bytes);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for items and takes all of them; `None` once the queue is closed and empty.
    pub(super) fn take_all(&self) -> Option<VecDeque<T>> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.is_closed {
                return None;
            }
            state = self.wait(state);
        }
        state.bytes = 0;
        self.changed.notify_all();
        Some(std::mem::take(&mut state.items))
    }

    /// Takes nothing more; what waits is still handed over.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn everything_that_waits_is_taken_at_once_and_a_closed_queue_ends() {
        let queue = Queue::new(100);
        assert_eq!((queue.push(1, 10), queue.push(2, 10)), (Ok(()), Ok(())));
        assert_eq!(queue.take_all(), Some(VecDeque::from([1, 2])));
        assert_eq!(queue.push(3, 10), Ok(()));
        queue.close();
        assert_eq!(queue.push(4, 10), Err(4));
        assert_eq!(queue.take_all(), Some(VecDeque::from([3])));
        assert_eq!(queue.take_all(), None);
    }

    #[test]
    fn a_full_queue_makes_its_writer_wait() {
        let queue = Arc::new(Queue::new(20));
        queue.push(1, 25).unwrap();
        let writer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(2, 1)
        });
        assert_eq!(queue.take_all(), Some(VecDeque::from([1])));
        assert_eq!(writer.join().unwrap(), Ok(()));
        assert_eq!(queue.take_all(), Some(VecDeque::from([2])));
    }
}
