//! Runs histories, one seed after the other, on several threads, until a limit is reached or one fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::history::{self, Mode, Tally};

/// When to end. The first limit that is reached counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Lives.
    pub lives: Option<u64>,
    /// Power cuts.
    pub cuts: Option<u64>,
    /// Time.
    pub time: Option<Duration>,
}

impl Limits {
    fn reached(&self, tally: &Tally, begun: Instant) -> bool {
        self.lives.is_some_and(|lives| tally.lives >= lives)
            || self.cuts.is_some_and(|cuts| tally.cut_count() >= cuts)
            || self.time.is_some_and(|time| begun.elapsed() >= time)
    }
}

/// Runs the histories of `first_seed`, the next number, and so on.
///
/// # Errors
///
/// The first history that fails.
pub fn run(first_seed: u64, mode: Mode, threads: u64, limits: Limits) -> Result<Tally, Failure> {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (total, failure) = (Mutex::new(Tally::default()), Mutex::new(None));
    let begun = Instant::now();
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let seed = first_seed.wrapping_add(next.fetch_add(1, Ordering::Relaxed));
            match history::run(seed, mode) {
                Ok(outcome) => {
                    let mut total = total.lock().expect("no panic while the lock is held");
                    total.add(&outcome.tally);
                    over.fetch_or(limits.reached(&total, begun), Ordering::Relaxed);
                }
                Err(found) => {
                    over.store(true, Ordering::Relaxed);
                    failure.lock().expect("no panic while the lock is held").get_or_insert(found);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().expect("no panic while the lock is held") {
        Some(failure) => Err(failure),
        None => Ok(total.into_inner().expect("no panic while the lock is held")),
    }
}
