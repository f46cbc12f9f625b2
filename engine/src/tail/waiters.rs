//! Those who wait for a watermark, woken in order, once per step of the mark.
//!
//! A waiter registers for a position and then looks at the mark again; whoever moves the mark looks for waiters
//! afterwards. Both sides go through the lock or a full fence, so one of them sees the other.

use std::collections::BinaryHeap;
use std::task::Waker;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering, fence};

struct Waiter {
    position: u64,
    waker: Waker,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}
impl Eq for Waiter {}
impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiter {
    /// Reversed: the heap gives the lowest position first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.position.cmp(&self.position)
    }
}

/// Waiters of one watermark, by position.
#[derive(Default)]
pub struct Waiters {
    count: AtomicUsize,
    heap: Mutex<BinaryHeap<Waiter>>,
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters").field("count", &self.count.load(Ordering::Relaxed)).finish()
    }
}

impl Waiters {
    /// Wakes `waker` when the mark passes `position` (is above it). The caller looks at the mark again afterwards.
    pub fn register(&self, position: u64, waker: &Waker) {
        let mut heap = self.heap.lock().expect("wakers are called outside of the lock");
        heap.push(Waiter { position, waker: waker.clone() });
        self.count.store(heap.len(), Ordering::Relaxed);
        drop(heap);
        // Pairs with the fence in `wake`: either the mark's mover sees the count, or the caller sees the mark.
        fence(Ordering::SeqCst);
    }

    /// Wakes all whose position lies below `mark`. Called after the mark was stored.
    pub fn wake(&self, mark: u64) {
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        loop {
            // In portions, so that no lock is held while a waker runs, and nothing is allocated.
            let mut portion: [Option<Waker>; 32] = Default::default();
            let mut taken = 0;
            {
                let mut heap = self.heap.lock().expect("wakers are called outside of the lock");
                while taken < portion.len() && heap.peek().is_some_and(|w| w.position < mark) {
                    portion[taken] = heap.pop().map(|w| w.waker);
                    taken += 1;
                }
                self.count.store(heap.len(), Ordering::Relaxed);
            }
            for waker in portion.iter_mut().filter_map(Option::take) {
                waker.wake();
            }
            if taken < portion.len() {
                return;
            }
        }
    }

    /// Whether anybody waits. A look from outside: it may be over the next moment.
    pub fn is_waited_for(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Wakes everybody, since what they wait for will not come.
    pub fn wake_all(&self) {
        self.wake(u64::MAX);
    }
}
