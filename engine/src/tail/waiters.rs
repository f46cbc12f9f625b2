//! Those who wait for a watermark, woken in order, once per step of the mark.
//!
//! A waiter registers for a position and then looks at the mark again; whoever moves the mark looks for waiters
//! afterwards. Both sides go through the lock or a full fence, so one of them sees the other.

use std::collections::BinaryHeap;
use std::task::Waker;

use super::sleepers::Sleepers;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

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
    /// How often waiters were taken out. One that registered before the last time may be gone.
    taken: AtomicU64,
    heap: Mutex<BinaryHeap<Waiter>>,
    sleepers: Sleepers,
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters").field("count", &self.count.load(Ordering::Relaxed)).finish()
    }
}

impl Waiters {
    /// Wakes `waker` when the mark passes `position` (is above it). The caller looks at the mark again afterwards.
    ///
    /// Returns what [`Waiters::taken`] says as long as the waiter is still there.
    pub fn register(&self, position: u64, waker: &Waker) -> u64 {
        let mut heap = self.heap.lock().expect("wakers are called outside of the lock");
        heap.push(Waiter { position, waker: waker.clone() });
        self.count.store(heap.len(), Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        drop(heap);
        // Pairs with the fence in `wake`: either the mark's mover sees the count, or the caller sees the mark.
        fence(Ordering::SeqCst);
        taken
    }

    /// Sleeps on this thread until `ready` gives something; it is asked at first, and whenever the mark may have passed `position`.
    pub fn sleep_until<T>(&self, position: u64, ready: impl FnMut() -> Option<T>) -> T {
        self.sleepers.sleep_until(position, ready)
    }

    /// The mark goes back, as at a cut. By the one who moves it.
    pub fn mark_goes_back(&self) {
        self.sleepers.mark_goes_back();
    }

    /// How often waiters were taken out.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Wakes all whose position lies below `mark`. Called after the mark was stored.
    pub fn wake(&self, mark: u64) {
        fence(Ordering::SeqCst);
        self.wake_after_fence(mark);
    }

    /// As [`Waiters::wake`], for one who has run a full fence since the mark was stored: one fence does for many marks. Says how
    /// many tasks it woke.
    #[inline]
    pub fn wake_after_fence(&self, mark: u64) -> usize {
        self.sleepers.wake_after_fence(mark);
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut woken = 0;
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
                if taken > 0 {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                }
            }
            for waker in portion.iter_mut().filter_map(Option::take) {
                waker.wake();
            }
            woken += taken;
            if taken < portion.len() {
                return woken;
            }
        }
    }

    #[cfg(all(test, not(redex_loom)))]
    /// Whether anybody waits. A look from outside: it may be over the next moment.
    pub fn is_waited_for(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Wakes everybody, since what they wait for will not come.
    pub fn wake_all(&self) {
        self.wake(u64::MAX);
    }
}

/// Remembers how a future has registered, so that polling it again does not register it again: a future that is polled and
/// polled, as in a `select!`, has one entry and not one a poll.
#[derive(Debug, Default)]
pub struct Registration(Option<Entry>);

#[derive(Debug)]
struct Entry {
    waker: Waker,
    position: u64,
    taken: u64,
}

impl Registration {
    /// Registers, unless the same waker waits for the same position already.
    pub fn register(&mut self, waiters: &Waiters, position: u64, waker: &Waker) {
        let waits = |entry: &Entry| {
            entry.position == position && entry.taken == waiters.taken() && entry.waker.will_wake(waker)
        };
        if !self.0.as_ref().is_some_and(waits) {
            let taken = waiters.register(position, waker);
            self.0 = Some(Entry { waker: waker.clone(), position, taken });
        }
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    struct Ignore;

    impl std::task::Wake for Ignore {
        fn wake(self: std::sync::Arc<Self>) {}
    }

    #[test]
    fn a_future_that_is_polled_again_and_again_has_one_entry() {
        let waiters = Waiters::default();
        let mut registration = Registration::default();
        let waker = Waker::from(std::sync::Arc::new(Ignore));
        for _ in 0..100 {
            registration.register(&waiters, 5, &waker);
        }
        assert_eq!(waiters.heap.lock().unwrap().len(), 1);
        waiters.wake(6);
        assert!(!waiters.is_waited_for());
        registration.register(&waiters, 5, &waker);
        assert_eq!(waiters.heap.lock().unwrap().len(), 1, "once woken it registers again");
    }

    #[test]
    fn all_below_the_mark_are_woken_however_many() {
        for count in [1, 31, 32, 33, 64, 100] {
            let waiters = Waiters::default();
            let woken = std::sync::Arc::new(Counter::default());
            let waker = Waker::from(woken.clone());
            (0..count + 3).for_each(|position| _ = waiters.register(position, &waker));
            waiters.wake(count);
            assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), count);
            assert_eq!(waiters.heap.lock().unwrap().len(), 3, "those above still wait");
        }
    }

    #[derive(Default)]
    struct Counter(std::sync::atomic::AtomicU64);

    impl std::task::Wake for Counter {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
