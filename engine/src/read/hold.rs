//! What readers and subscriptions stand at, so that retention can wait for them.
//!
//! A reader that takes its time has a [`Hold`]: a position that it moves as it goes on. The lowest one is how far events may be
//! dropped without anybody noticing; how long they are held back is the channel's to say (`with_retention_hold`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::ids::Seq;

/// The positions of a channel's readers.
#[derive(Debug, Default)]
pub struct Holds(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    positions: Vec<Weak<AtomicU64>>,
    /// Events below are going, though the head may have yet to move: a reader that comes now cannot hold them.
    floor: u64,
}

impl Inner {
    fn lowest(&mut self) -> Option<u64> {
        let mut lowest = None;
        self.positions.retain(|hold| match hold.upgrade() {
            None => false,
            Some(position) => {
                let position = position.load(Ordering::Acquire);
                lowest = Some(lowest.map_or(position, |lowest: u64| lowest.min(position)));
                true
            }
        });
        lowest
    }

    fn add(&mut self, next: u64) -> Hold {
        let position = Arc::new(AtomicU64::new(next));
        // Those that are gone leave their places: each is looked at a bounded number of times.
        if self.positions.len() == self.positions.capacity() {
            self.positions.retain(|hold| hold.strong_count() > 0);
        }
        self.positions.push(Arc::downgrade(&position));
        Hold(position)
    }
}

/// The position of one reader; gone when it is dropped.
#[derive(Debug)]
pub struct Hold(Arc<AtomicU64>);

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while the lock is held")
    }

    /// A reader begins at `next`, whatever is going.
    pub fn begin(&self, next: Seq) -> Hold {
        self.lock().add(next.0)
    }

    /// A reader begins at `next`, or at the first event that is not going. Says where.
    pub fn begin_above_floor(&self, next: Seq) -> (Hold, Seq) {
        let mut inner = self.lock();
        let next = next.0.max(inner.floor);
        (inner.add(next), Seq(next))
    }

    /// How far events may go of those below `wanted`: as far as readers have come, but up to `hard` in any case. They are going from
    /// then on.
    pub fn grant(&self, wanted: Seq, hard: Seq) -> Seq {
        let mut inner = self.lock();
        let to = inner.lowest().map_or(wanted.0, |lowest| wanted.0.min(lowest.max(hard.0)));
        inner.floor = inner.floor.max(to);
        Seq(to)
    }

    /// Events below `to` are going, whatever readers hold.
    pub fn let_go(&self, to: Seq) {
        let mut inner = self.lock();
        inner.floor = inner.floor.max(to.0);
    }

    /// Events from `end` on are gone, and come again.
    pub fn cut_off(&self, end: Seq) {
        let mut inner = self.lock();
        inner.floor = inner.floor.min(end.0);
    }

    /// The lowest position, if there is a reader.
    pub fn lowest(&self) -> Option<Seq> {
        self.lock().lowest().map(Seq)
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
        assert!(holds.lock().positions.len() < 1000, "those that are gone leave their places");
    }

    #[test]
    fn who_comes_late_cannot_hold_what_is_going() {
        let holds = Holds::default();
        let slow = holds.begin(Seq(3));
        assert_eq!(holds.grant(Seq(10), Seq(1)), Seq(3));
        assert_eq!(holds.grant(Seq(10), Seq(5)), Seq(5));
        let (late, at) = holds.begin_above_floor(Seq(0));
        assert_eq!(at, Seq(5));
        drop(slow);
        assert_eq!(holds.grant(Seq(10), Seq(0)), Seq(5));
        drop(late);
        assert_eq!(holds.grant(Seq(10), Seq(0)), Seq(10));
        holds.cut_off(Seq(2));
        assert_eq!(holds.begin_above_floor(Seq(0)).1, Seq(2));
    }
}
