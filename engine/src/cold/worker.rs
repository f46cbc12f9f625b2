//! Who makes the passes: one thread of the store, or the thread that asks, in the simulator.
//!
//! A pass that failed is tried again after a pause, which doubles; what asks for it meanwhile waits as well.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::pass::{delete_all, pass};
use super::stats::add;
use super::tier::ColdTier;
use crate::channel::Channel;
use crate::ids::ChannelId;

/// Pause after the first failure, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Something to be done beside the shards.
pub enum Job {
    /// A pass over a channel is due.
    Pass(Arc<Channel>),
    /// A channel was deleted; so often it was tried in vain.
    Delete(ChannelId, u32),
    /// Somebody waits for this.
    Call(Box<dyn FnOnce() + Send>),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pass(_) => "Pass",
            Self::Delete(..) => "Delete",
            Self::Call(_) => "Call",
        })
    }
}

#[derive(Debug, Default)]
struct Inner {
    due: VecDeque<Job>,
    /// Jobs to be tried again, each with its moment of the steady clock.
    later: Vec<(u64, Job)>,
    thread: Option<JoinHandle<()>>,
    over: bool,
}

impl Inner {
    /// The next job whose time has come.
    fn take(&mut self, now_us: u64) -> Option<Job> {
        if let Some(index) = self.later.iter().position(|(at, _)| *at <= now_us) {
            return Some(self.later.swap_remove(index).1);
        }
        self.due.pop_front()
    }
}

/// What is to be done, and by whom.
#[derive(Debug)]
pub struct Queue {
    inline: bool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Queue {
    /// An empty one.
    pub fn new(inline: bool) -> Self {
        Self { inline, inner: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while the lock is held")
    }
}

impl ColdTier {
    /// A pass over this channel is due: a checkpoint has covered a seal, events were trimmed or truncated, its policy was
    /// changed. Costs a push on a queue; nothing at all for a channel that has neither a policy nor cold segments.
    pub fn due(self: &Arc<Self>, channel: &Arc<Channel>) {
        let Some(cold) = channel.persistence().and_then(|persistence| persistence.on_disk.cold()) else {
            return;
        };
        if !channel.config.get().cold().is_set() && !cold.is_concerned() {
            return;
        }
        if !cold.queued.swap(true, Ordering::AcqRel) {
            self.push(Job::Pass(channel.clone()));
        } else if self.queue.inline {
            // It may wait to be tried again; no thread sees to that here.
            self.run_what_is_due();
        }
    }

    /// A channel was deleted, durably: all its objects go, with or without a manifest.
    pub fn channel_deleted(self: &Arc<Self>, channel: ChannelId) {
        self.push(Job::Delete(channel, 0));
    }

    /// Does something on the thread of the passes.
    pub(super) fn push(self: &Arc<Self>, job: Job) {
        let mut inner = self.queue.lock();
        if inner.over {
            drop(inner);
            // Whoever waits for it is told that the store is being closed.
            if let Job::Call(call) = job {
                make(call);
            }
            return;
        }
        inner.due.push_back(job);
        if self.queue.inline {
            drop(inner);
            self.run_what_is_due();
            return;
        }
        if inner.thread.is_none() {
            let tier = self.clone();
            match std::thread::Builder::new().name("redex-cold".into()).spawn(move || tier.work()) {
                Ok(thread) => inner.thread = Some(thread),
                Err(error) => tracing::warn!(%error, "no thread for the cold store; segments stay local for now"),
            }
        }
        drop(inner);
        self.queue.changed.notify_one();
    }

    /// What the thread does, until it is over.
    fn work(self: Arc<Self>) {
        let mut inner = self.queue.lock();
        while !inner.over {
            let now_us = self.clock.steady_us();
            if let Some(job) = inner.take(now_us) {
                drop(inner);
                self.run(job);
                inner = self.queue.lock();
                continue;
            }
            let next = inner.later.iter().map(|(at, _)| at - now_us).min();
            inner = match next {
                None => self.queue.changed.wait(inner).expect("no panic while the lock is held"),
                Some(pause_us) => {
                    let pause = Duration::from_micros(pause_us);
                    self.queue.changed.wait_timeout(inner, pause).expect("no panic while the lock is held").0
                }
            };
        }
    }

    /// The same without a thread: what can be done now.
    fn run_what_is_due(self: &Arc<Self>) {
        loop {
            let job = self.queue.lock().take(self.clock.steady_us());
            let Some(job) = job else { return };
            self.run(job);
        }
    }

    fn run(self: &Arc<Self>, job: Job) {
        // A panic is a mistake of ours; the thread goes on with what others wait for.
        let ran = catch_unwind(AssertUnwindSafe(|| match job {
            Job::Pass(channel) => self.run_pass(&channel),
            Job::Delete(channel, failures) => self.run_delete(channel, failures),
            Job::Call(call) => call(),
        }));
        if ran.is_err() {
            tracing::error!("a pass over cold segments panicked");
        }
    }

    fn run_pass(self: &Arc<Self>, channel: &Arc<Channel>) {
        let Some(cold) = channel.persistence().and_then(|persistence| persistence.on_disk.cold()) else {
            return;
        };
        cold.queued.store(false, Ordering::Release);
        let result = pass(channel);
        let mut state = cold.pass_state();
        match result {
            Ok(_) => {
                state.failures = 0;
                self.succeeded();
            }
            Err(error) => {
                let failures = state.failures;
                state.failures = failures.saturating_add(1);
                drop(state);
                if !cold.queued.swap(true, Ordering::AcqRel) {
                    self.failed(cold.id, &error, failures, Job::Pass(channel.clone()));
                }
            }
        }
    }

    fn run_delete(self: &Arc<Self>, channel: ChannelId, failures: u32) {
        match delete_all(self, channel) {
            Ok(_) => self.succeeded(),
            Err(error) => self.failed(channel, &error, failures, Job::Delete(channel, failures.saturating_add(1))),
        }
    }

    fn succeeded(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(store = %self.uuid, "the cold store answers again");
        }
    }

    /// Puts a job aside; said once, until some pass succeeds.
    fn failed(&self, channel: ChannelId, error: &io::Error, failures: u32, job: Job) {
        if self.is_over() {
            return;
        }
        add(&self.counters.failed_passes, 1);
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(%channel, %error, failures, "cold segments wait again");
        } else {
            tracing::warn!(%channel, %error, "cold segments wait: the cold store or the disk refuses; tried again later");
        }
        let pause = PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
        let at = self.clock.steady_us() + pause.as_micros() as u64;
        self.queue.lock().later.push((at, job));
    }

    /// Ends the thread; what is under way ends where it is. The next opening goes on.
    pub fn finish(&self) {
        self.stop();
        let (thread, left) = {
            let mut inner = self.queue.lock();
            inner.over = true;
            inner.later.clear();
            (inner.thread.take(), std::mem::take(&mut inner.due))
        };
        self.queue.changed.notify_all();
        if let Some(thread) = thread {
            thread.join().expect("no panic leaves a job");
        }
        for job in left {
            if let Job::Call(call) = job {
                make(call);
            }
        }
    }
}

/// Makes a call on this thread. A panic in it reaches who waits for its result, and nobody else.
fn make(call: Box<dyn FnOnce() + Send>) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::cold::object::object_key;
    use crate::cold::sim::{ColdFault, SimColdStore};
    use crate::cold::tier::ColdSetup;
    use crate::ids::{Epoch, Seq, ShardId, StoreUuid};
    use crate::io::sim::{SimDisk, SimOptions};
    use crate::shard::checkpoint::Known;
    use crate::shard::handle::ShardHandle;

    const UUID: StoreUuid = StoreUuid([4; 16]);

    fn tier(store: &SimColdStore, clock: &Arc<ManualClock>, inline: bool) -> Arc<ColdTier> {
        let setup = ColdSetup { inline, ..ColdSetup::new(Arc::new(store.clone()), 1 << 20) };
        let disk = Arc::new(SimDisk::new(1, SimOptions::default()));
        ColdTier::new(&setup, UUID, Epoch(1), disk, Clock::manual(clock.clone()))
    }

    /// Its own objects, and those of no other; after failures, when their time has come.
    #[test]
    fn objects_of_a_deleted_channel_go() {
        let (store, clock) = (SimColdStore::default(), Arc::new(ManualClock::default()));
        let key = |channel, first| object_key(UUID, ChannelId(channel), Seq(first), 9);
        for (channel, first) in [(1, 0), (1, 5), (1, 9), (2, 0)] {
            store.set_object(&key(channel, first), Some(b"x"[..].into()));
        }
        let tier = tier(&store, &clock, true);
        let shard = ShardHandle::new(ShardId(0), Known::default());
        shard.cold.set(tier.clone()).unwrap();
        store.one_shot_fault(ColdFault::DeleteFails, 2);
        shard.cold_deleted(ChannelId(1), None);
        assert_eq!(store.keys(), [key(1, 5), key(1, 9), key(2, 0)]);
        assert_eq!(tier.counters.read().failed_passes, 1);
        tier.push(Job::Call(Box::new(|| {})));
        assert_eq!(store.keys().len(), 3, "its pause is not over");
        clock.advance(PAUSE_FIRST);
        tier.push(Job::Call(Box::new(|| {})));
        assert_eq!(store.keys(), [key(2, 0)]);
        assert_eq!(tier.counters.read().deleted, 3);
    }

    /// Pauses double, up to the longest.
    #[test]
    fn what_fails_again_waits_longer() {
        let (store, clock) = (SimColdStore::default(), Arc::new(ManualClock::default()));
        let tier = tier(&store, &clock, true);
        store.set_unreachable(true);
        tier.channel_deleted(ChannelId(1));
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let next = tier.queue.lock().later[0].0;
            pauses.push(Duration::from_micros(next - clock.steady_us()));
            clock.advance(*pauses.last().unwrap());
            tier.push(Job::Call(Box::new(|| {})));
        }
        assert_eq!(pauses[..3], [PAUSE_FIRST, PAUSE_FIRST * 2, PAUSE_FIRST * 4]);
        assert_eq!(pauses[11], PAUSE_MAX);
        assert_eq!(tier.counters.read().failed_passes, 13);
    }

    /// Whoever waits is answered: by the thread, also after a panic, and at the end by who asks.
    #[test]
    fn every_call_is_made_by_a_thread_that_outlives_panics() {
        let (store, clock) = (SimColdStore::default(), Arc::new(ManualClock::default()));
        let tier = tier(&store, &clock, false);
        let made = Arc::new(AtomicUsize::new(0));
        let call = || {
            let made = made.clone();
            Job::Call(Box::new(move || _ = made.fetch_add(1, Ordering::Relaxed)))
        };
        tier.push(Job::Call(Box::new(|| panic!("on purpose"))));
        (0..20).for_each(|_| tier.push(call()));
        tier.finish();
        tier.push(call());
        assert_eq!(made.load(Ordering::Relaxed), 21);
        assert!(tier.is_over() && tier.check_over().is_err());
    }
}
