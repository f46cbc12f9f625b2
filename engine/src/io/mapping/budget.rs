//! How much may be mapped over a store.
//!
//! Mapped bytes cost page tables (a 512th of what was touched) and entries in the kernel's list of mappings, of which a process
//! has 65,530 unless told otherwise. So both are bounded; who needs more than is free has others let go, the longest unused first.
//!
//! Promises: what is mapped, also by payloads that somebody holds, never exceeds the bound.
//! What it leaves to others: what to do without a share. A reader then reads by plain calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Files mapped at once.
const FILES_MAX: u64 = 4096;

/// Somebody who has mapped something and can do without.
pub trait Holder: Send + Sync {
    /// When it was used last, by [`Budget::tick`]; `None` if it has nothing to let go, or is being used.
    fn idle_since(&self) -> Option<u64>;
    /// Unmaps, unless it is being used.
    fn let_go(&self);
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    files: u64,
}

/// The bound of a store.
pub struct Budget {
    bytes_max: u64,
    used: Mutex<Used>,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    ticks: AtomicU64,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("bytes_max", &self.bytes_max).field("used", &self.used).finish_non_exhaustive()
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A bound in bytes; 0 if nothing is to be mapped.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: Mutex::default(), holders: Mutex::default(), ticks: AtomicU64::new(0) })
    }

    /// Takes room for one file, by having others let go if need be. `None` if they cannot.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        if bytes > self.bytes_max {
            return None;
        }
        if let Some(share) = self.try_take(bytes) {
            return Some(share);
        }
        for holder in self.idle_holders() {
            holder.let_go();
            if let Some(share) = self.try_take(bytes) {
                return Some(share);
            }
        }
        None
    }

    fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let mut used = self.used.lock().expect("no panic while the lock is held");
        if used.bytes + bytes > self.bytes_max || used.files >= FILES_MAX {
            return None;
        }
        used.bytes += bytes;
        used.files += 1;
        Some(Share { budget: self.clone(), bytes })
    }

    /// Those that could let go, the longest unused first.
    fn idle_holders(&self) -> Vec<Arc<dyn Holder>> {
        let mut holders = self.holders.lock().expect("no panic while the lock is held");
        holders.retain(|holder| holder.strong_count() > 0);
        let all: Vec<_> = holders.iter().filter_map(Weak::upgrade).collect();
        drop(holders);
        let mut idle: Vec<_> = all.into_iter().filter_map(|holder| Some((holder.idle_since()?, holder))).collect();
        idle.sort_by_key(|(since, _)| *since);
        idle.into_iter().map(|(_, holder)| holder).collect()
    }

    /// Enters somebody who may be asked to let go; once for each.
    pub fn enlist(&self, holder: Weak<dyn Holder>) {
        self.holders.lock().expect("no panic while the lock is held").push(holder);
    }

    /// The next moment of use.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// Bytes that are mapped.
    #[cfg(test)]
    pub fn used_bytes(&self) -> u64 {
        self.used.lock().expect("no panic while the lock is held").bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock().expect("no panic while the lock is held");
        used.bytes -= self.bytes;
        used.files -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    struct Cache {
        share: Mutex<Option<Share>>,
        since: u64,
        in_use: AtomicBool,
    }

    impl Holder for Cache {
        fn idle_since(&self) -> Option<u64> {
            (self.share.lock().unwrap().is_some() && !self.in_use.load(Ordering::Relaxed)).then_some(self.since)
        }
        fn let_go(&self) {
            self.share.lock().unwrap().take();
        }
    }

    #[test]
    fn the_longest_unused_lets_go_and_what_is_used_stays() {
        let budget = Budget::new(100);
        let caches: Vec<Arc<Cache>> = [5, 3, 4]
            .into_iter()
            .map(|since| {
                let share = Mutex::new(budget.take(30));
                let cache = Arc::new(Cache { share, since, in_use: AtomicBool::new(false) });
                let holder: Weak<dyn Holder> = Arc::downgrade(&(cache.clone() as Arc<dyn Holder>));
                budget.enlist(holder);
                cache
            })
            .collect();
        let held = |i: usize| caches[i].share.lock().unwrap().is_some();
        let first = budget.take(30).unwrap();
        assert_eq!((held(0), held(1), held(2)), (true, false, true));
        caches[2].in_use.store(true, Ordering::Relaxed);
        assert!(budget.take(101).is_none() && held(0), "what can never fit costs nobody anything");
        assert!(budget.take(71).is_none());
        assert_eq!((held(0), held(2)), (false, true));
        assert_eq!(budget.used_bytes(), 60);
        drop((first, caches));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.take(100).is_some());
    }
}
