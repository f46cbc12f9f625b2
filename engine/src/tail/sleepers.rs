//! Threads that sleep until a watermark has passed their position: one word, and one system call for all that a step of the mark
//! wakes.
//!
//! A waker for each thread costs its system call on the shard's core, and with hundreds of threads that takes longer than a commit. Here
//! the kernel has all of them in one queue, each with a bit for its position; a step of the mark wakes those whose bits it covers
//! (`FUTEX_WAKE_BITSET`, futex(2)). Positions far apart share bits: who is woken too early sleeps again.
//!
//! Promises: no wake-up is lost. A sleeper says that it is there, runs a full fence, and then looks at the mark; whoever moves the
//! mark runs a full fence and then looks for sleepers. So one of them sees the other; and a sleeper that was seen either finds the
//! word changed, and does not sleep, or is in the queue.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::io::futex;

/// Consecutive positions that share a bit.
const POSITIONS_PER_BIT: u64 = 16;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Sleepers {
    count: AtomicU32,
    /// Changes with every step of the mark that finds somebody asleep.
    steps: AtomicU32,
    /// Positions below were passed by the mark the last time that somebody was woken. Lower is always safe.
    woken_below: AtomicU64,
}

impl Sleepers {
    /// Sleeps until `ready` gives something; it is asked at first, and whenever the mark may have passed `position`.
    pub fn sleep_until<T>(&self, position: u64, mut ready: impl FnMut() -> Option<T>) -> T {
        self.count.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result = loop {
            // Before the look: what comes after it changes the word.
            let steps = self.steps.load(Ordering::Acquire);
            if let Some(result) = ready() {
                break result;
            }
            futex::wait(&self.steps, steps, bits(position, position + 1));
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Wakes those whose position lies below `mark`, by one who has run a full fence since the mark was stored. One thread at a time
    /// moves the mark; others say `u64::MAX`.
    #[inline]
    pub fn wake_after_fence(&self, mark: u64) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.wake(mark);
        }
    }

    /// The mark goes back: what it passes next are positions below those of before. By the one who moves it.
    pub fn mark_goes_back(&self) {
        self.woken_below.store(0, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self, mark: u64) {
        let bits = match mark {
            u64::MAX => u32::MAX,
            _ => bits(self.woken_below.swap(mark, Ordering::Relaxed), mark),
        };
        self.steps.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.steps, bits);
    }
}

/// The bits of the positions from `from` to below `to`; all of them if that is no range, as after a cut.
fn bits(from: u64, to: u64) -> u32 {
    let (first, last) = (from / POSITIONS_PER_BIT, to.saturating_sub(1) / POSITIONS_PER_BIT);
    if from >= to || last - first >= u64::from(u32::BITS) {
        return u32::MAX;
    }
    (first..=last).fold(0, |bits, block| bits | 1 << (block % u64::from(u32::BITS)))
}

#[cfg(all(test, not(any(redex_loom, redex_shuttle))))]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_step_covers_the_bits_of_its_positions() {
        assert_eq!(bits(0, 1), 1);
        assert_eq!(bits(15, 17), 0b11);
        assert_eq!(bits(31 * 16, 33 * 16), 1 << 31 | 1);
        assert_eq!(bits(0, 32 * 16), u32::MAX);
        assert_eq!(bits(5, 5 + 32 * 16), u32::MAX);
        assert_eq!(bits(100, 40), u32::MAX, "the mark went back");
        for position in [0_u64, 15, 16, 511, 512, 10_000] {
            for (from, to) in
                [(0, position + 1), (position, position + 1), (position.saturating_sub(40), position + 40)]
            {
                assert_ne!(bits(position, position + 1) & bits(from, to), 0, "{position} in {from}..{to}");
            }
        }
    }

    /// A step that leads from below the old mark to above it wakes who waits for what lies below the old mark, too.
    #[test]
    fn a_mark_that_went_back_wakes_all_that_it_passes_again() {
        let (sleepers, mark) = (Arc::new(Sleepers::default()), Arc::new(AtomicU64::new(60)));
        sleepers.woken_below.store(100, Ordering::Relaxed);
        sleepers.mark_goes_back();
        let sleeper = {
            let (sleepers, mark) = (sleepers.clone(), mark.clone());
            thread::spawn(move || sleepers.sleep_until(60, || (mark.load(Ordering::Acquire) > 60).then_some(())))
        };
        while sleepers.count.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        // Long enough that it is asleep, mostly; if it is not, the test shows less.
        thread::sleep(std::time::Duration::from_millis(50));
        mark.store(161, Ordering::Release);
        fence(Ordering::SeqCst);
        sleepers.wake_after_fence(161);
        thread::sleep(std::time::Duration::from_millis(500));
        assert!(sleeper.is_finished(), "it sleeps on");
        sleeper.join().unwrap();
    }

    /// Threads sleep for one position after the other, and a mark that moves by uneven steps wakes each: nobody is left asleep.
    #[test]
    fn nobody_sleeps_on() {
        const END: u64 = 20_000;
        let (sleepers, mark) = (Arc::new(Sleepers::default()), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (sleepers, mark) = (sleepers.clone(), mark.clone());
                thread::spawn(move || {
                    for position in (thread..END).step_by(97) {
                        let seen = || Some(mark.load(Ordering::Acquire)).filter(|mark| *mark > position);
                        assert!(sleepers.sleep_until(position, seen) > position);
                    }
                })
            })
            .collect();
        let mut at = 0;
        while at < END {
            at = (at + 1 + at % 61).min(END);
            mark.store(at, Ordering::Release);
            fence(Ordering::SeqCst);
            sleepers.wake_after_fence(at);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(sleepers.count.load(Ordering::Relaxed), 0);
    }
}
