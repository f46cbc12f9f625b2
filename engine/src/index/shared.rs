//! What the handles of an index and its thread share: the index, what is asked of the thread, and those who wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Waker;

use super::error::{IndexEnd, IndexErrors, IndexGap};
use super::state::IndexView;
use crate::channel_name::ChannelName;
use crate::tail::waiters::Waiters;

/// Gaps that are kept.
const GAPS_KEPT: usize = 1024;

#[derive(Debug, Default)]
struct Gaps {
    count: u64,
    newest: VecDeque<IndexGap>,
    /// Gaps below were counted: a rebuild meets them again.
    counted: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Shared<K, V> {
    pub channel: ChannelName,
    view: RwLock<IndexView<K, V>>,
    /// Of the view, to be read without its lock. Moves after the view has changed.
    applied: AtomicU64,
    gaps: Mutex<Gaps>,
    end: OnceLock<IndexEnd>,
    /// Those who wait for `applied`, or for the end.
    pub applied_waiters: Waiters,
    /// Number of the last rebuild that was asked for, and of the last that is done.
    rebuild_wanted: AtomicU64,
    rebuild_done: AtomicU64,
    pub rebuild_waiters: Waiters,
    dropped: AtomicBool,
    /// The thread, as long as it waits.
    thread: Mutex<Option<Waker>>,
}

impl<K: Ord, V: Ord> Shared<K, V> {
    pub fn new(channel: ChannelName, from: u64) -> Self {
        Self {
            channel,
            view: RwLock::new(IndexView::empty(from)),
            applied: AtomicU64::new(from),
            gaps: Mutex::default(),
            end: OnceLock::new(),
            applied_waiters: Waiters::default(),
            rebuild_wanted: AtomicU64::new(0),
            rebuild_done: AtomicU64::new(0),
            rebuild_waiters: Waiters::default(),
            dropped: AtomicBool::new(false),
            thread: Mutex::default(),
        }
    }

    /// The index, for reading. An order of keys or values that panicked while the index changed has stopped it; what it holds
    /// is read all the same.
    pub fn view(&self) -> RwLockReadGuard<'_, IndexView<K, V>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, IndexView<K, V>> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the index. Readers see it before or after, and never between.
    pub fn change(&self, change: impl FnOnce(&mut IndexView<K, V>)) {
        let applied = {
            let mut view = self.view_mut();
            change(&mut view);
            view.applied()
        };
        self.applied.store(applied, Ordering::Release);
        self.applied_waiters.wake(applied);
    }

    /// Puts another index in its place. The one before is dropped with the lock free.
    pub fn replace(&self, view: IndexView<K, V>) {
        let mut before = view;
        self.change(|present| std::mem::swap(present, &mut before));
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().expect("no panic while the lock is held")
    }

    /// Notes what is not in the index, before `applied` passes it.
    pub fn note(&self, gap: IndexGap) {
        let mut gaps = self.gaps();
        let range = gap.range();
        if matches!(gap, IndexGap::Lost { .. }) {
            // Other events come at these sequences.
            gaps.newest.retain(|gap| matches!(gap, IndexGap::Lost { .. }) || gap.range().end <= range.start);
            gaps.counted = gaps.counted.min(range.start);
        } else if range.end <= gaps.counted {
            return;
        } else {
            gaps.counted = range.end;
        }
        tracing::warn!(channel = %self.channel, from = range.start, to = range.end, %gap, "events not in the index");
        gaps.count += 1;
        gaps.newest.push_back(gap);
        if gaps.newest.len() > GAPS_KEPT {
            gaps.newest.pop_front();
        }
    }

    pub fn errors(&self) -> IndexErrors {
        let gaps = self.gaps();
        IndexErrors { count: gaps.count, newest: gaps.newest.iter().cloned().collect() }
    }

    pub fn gap_at(&self, seq: u64) -> Option<IndexGap> {
        self.gaps().newest.iter().find(|gap| gap.lacks(seq)).cloned()
    }

    /// Why the index has stopped, if it has.
    pub fn end(&self) -> Option<&IndexEnd> {
        self.end.get()
    }

    /// The index has stopped: whoever waits is told.
    pub fn stop(&self, end: IndexEnd) {
        tracing::info!(channel = %self.channel, applied = self.applied(), %end, "index stopped");
        if self.end.set(end).is_ok() {
            self.applied_waiters.wake_all();
            self.rebuild_waiters.wake_all();
        }
    }

    /// Asks for a rebuild. Returns its number.
    pub fn want_rebuild(&self) -> u64 {
        let number = self.rebuild_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_thread();
        number
    }

    pub fn rebuild_wanted(&self) -> u64 {
        self.rebuild_wanted.load(Ordering::Acquire)
    }

    pub fn rebuild_done(&self) -> u64 {
        self.rebuild_done.load(Ordering::Acquire)
    }

    pub fn set_rebuild_done(&self, number: u64) {
        self.rebuild_done.store(number, Ordering::Release);
        self.rebuild_waiters.wake(number + 1);
    }

    /// The last handle is gone.
    pub fn drop_handles(&self) {
        self.dropped.store(true, Ordering::Release);
        self.wake_thread();
    }

    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Has the thread woken when something is asked of it. It looks at what is asked afterwards.
    pub fn register_thread(&self, waker: &Waker) {
        let mut thread = self.thread.lock().expect("no panic while the lock is held");
        if !thread.as_ref().is_some_and(|before| before.will_wake(waker)) {
            *thread = Some(waker.clone());
        }
    }

    fn wake_thread(&self) {
        let waker = self.thread.lock().expect("no panic while the lock is held").clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The handles of one index: the last of them ends its thread.
#[derive(Debug)]
pub(crate) struct Handles<K: Ord, V: Ord>(pub Arc<Shared<K, V>>);

impl<K: Ord, V: Ord> Drop for Handles<K, V> {
    fn drop(&mut self) {
        self.0.drop_handles();
    }
}
