//! What readers and subscriptions stand at, so that retention can wait for them.
//!
//! A reader that takes its time has a [`Hold`]: a position that it moves as it goes on. The lowest one is how far events may be
//! dropped without anybody noticing; how long they are held back is the channel's to say (`with_retention_hold`).

use std::sync::{Arc, Weak};

use crate::ids::Seq;
use crate::sync::scheduled::atomic::{AtomicU64, Ordering};
use crate::sync::scheduled::{Mutex, MutexGuard};

/// The positions of a channel's readers.
#[derive(Debug, Default)]
pub struct Holds(Mutex<Vec<Weak<AtomicU64>>>);

/// The position of one reader; gone when it is dropped.
#[derive(Debug)]
pub struct Hold(Arc<AtomicU64>);

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.0.lock().expect("no panic while the lock is held")
    }

    /// A reader begins at `next`.
    pub fn begin(&self, next: Seq) -> Hold {
        let position = Arc::new(AtomicU64::new(next.0));
        let mut holds = self.lock();
        // Those that are gone leave their places: each is looked at a bounded number of times.
        if holds.len() == holds.capacity() {
            holds.retain(|hold| hold.strong_count() > 0);
        }
        holds.push(Arc::downgrade(&position));
        Hold(position)
    }

    /// The lowest position, if there is a reader.
    pub fn lowest(&self) -> Option<Seq> {
        let mut holds = self.lock();
        let mut lowest = None;
        holds.retain(|hold| match hold.upgrade() {
            None => false,
            Some(position) => {
                let position = position.load(Ordering::Acquire);
                lowest = Some(lowest.map_or(position, |lowest: u64| lowest.min(position)));
                true
            }
        });
        lowest.map(Seq)
    }
}

impl Hold {
    /// The reader has what lies before `next`.
    #[inline]
    pub fn move_to(&self, next: Seq) {
        self.0.store(next.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_position_of_those_that_are_there() {
        let holds = Holds::default();
        assert_eq!(holds.lowest(), None);
        let slow = holds.begin(Seq(3));
        let fast = holds.begin(Seq(5));
        fast.move_to(Seq(9));
        assert_eq!(holds.lowest(), Some(Seq(3)));
        slow.move_to(Seq(20));
        assert_eq!(holds.lowest(), Some(Seq(9)));
        drop(fast);
        assert_eq!(holds.lowest(), Some(Seq(20)));
        drop(slow);
        assert_eq!(holds.lowest(), None);
        (0..1000).for_each(|seq| drop(holds.begin(Seq(seq))));
        assert!(holds.lock().len() < 1000, "those that are gone leave their places");
    }
}
