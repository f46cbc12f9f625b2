//! A channel as all its users share it: tail, watermarks, policy.
//!
//! One owner per piece of state: producers own the tail's reservation, the shard's thread moves `durable`, and what lies on
//! disk is described by `on_disk`, which the shard writes and readers read.

mod follow;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;

use crate::append::backlog::Backlog;
use crate::channel_name::ChannelName;
use crate::clock::Clock;
use crate::config::{FsyncPolicy, RedexFileConfig};
use crate::follow::overlay::Overlay;
use crate::ids::{ChannelId, Epoch, Seq};
use crate::read::offload::Offload;
use crate::segment::read::OnDisk;
use crate::shard::handle::{ShardHandle, Slot};
use crate::tail::waiters::Waiters;
use crate::tail::{Refusal, Refused, Reserved, Tail};

/// Resolution of event times, microseconds: a tick of the slowest kernel in common use.
const TICK_US: u64 = 4_000;

/// What belongs to a persistent channel only.
#[derive(Debug)]
pub struct Persistence {
    /// Its shard.
    pub shard: Arc<ShardHandle>,
    /// Its place in the shard's table.
    pub slot: Slot,
    /// What is on disk, for readers.
    pub on_disk: OnDisk,
    /// Who reads it for futures.
    pub offload: Arc<Offload>,
    /// What the journal says of it, if another process writes it.
    pub overlay: Option<Arc<Overlay>>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// Its id; zero in memory.
    pub id: ChannelId,
    /// As it was opened.
    pub config: RedexFileConfig,
    /// The newest events.
    pub tail: Tail,
    /// Appends that wait for room.
    pub backlog: Backlog,
    /// First event that is there.
    pub head: AtomicU64,
    /// Epochs that have appended, each with its first sequence; the last is the present one.
    pub epochs: Mutex<Vec<(Epoch, Seq)>>,
    /// The store's epoch.
    pub epoch: Epoch,
    /// Largest payload, bytes.
    pub payload_size_max: usize,
    /// Events below are durable.
    durable: CachePadded<AtomicU64>,
    /// [`Reserved::bytes_after`] of the last durable event.
    durable_bytes: AtomicU64,
    /// Events below have been handed to the kernel.
    written: AtomicU64,
    /// Events below should become durable soon.
    wanted: AtomicU64,
    /// Time of the first event since the shard last looked, 0 if none; kept for policies with a period.
    unseen_since_us: AtomicU64,
    /// Time of the first event that the shard has seen and that is not durable, 0 if none.
    unflushed_since_us: AtomicU64,
    /// Handles of this generation and older were closed; see [`Channel::is_closed`].
    closed_generation: AtomicU32,
    /// Those who wait for `durable`.
    pub durable_waiters: Waiters,
    /// Present for a persistent channel.
    pub persistence: Option<Persistence>,
    /// Where event times come from.
    pub clock: Clock,
}

/// What makes a channel.
pub struct ChannelParts {
    /// Its name.
    pub name: ChannelName,
    /// Its id; zero in memory.
    pub id: ChannelId,
    /// As it was opened.
    pub config: RedexFileConfig,
    /// Its tail.
    pub tail: Tail,
    /// Epochs that have appended before.
    pub epochs: Vec<(Epoch, Seq)>,
    /// First event that is there.
    pub head: Seq,
    /// The store's epoch.
    pub epoch: Epoch,
    /// Largest payload, bytes.
    pub payload_size_max: usize,
    /// Present for a persistent channel.
    pub persistence: Option<Persistence>,
    /// Where event times come from.
    pub clock: Clock,
}

impl Channel {
    /// A channel whose events so far are durable.
    pub fn new(parts: ChannelParts) -> Self {
        let next = parts.tail.published();
        let mut epochs = parts.epochs;
        if epochs.last().is_none_or(|(epoch, _)| *epoch < parts.epoch) {
            // An epoch without an event is replaced: it has nothing that a cursor could point at.
            if epochs.last().is_some_and(|(_, first)| *first == next) {
                epochs.pop();
            }
            epochs.push((parts.epoch, next));
        }
        Self {
            name: parts.name,
            id: parts.id,
            config: parts.config,
            tail: parts.tail,
            backlog: Backlog::default(),
            head: AtomicU64::new(parts.head.0),
            epochs: Mutex::new(epochs),
            epoch: parts.epoch,
            payload_size_max: parts.payload_size_max,
            durable: CachePadded::new(AtomicU64::new(next.0)),
            durable_bytes: AtomicU64::new(0),
            written: AtomicU64::new(next.0),
            wanted: AtomicU64::new(0),
            unseen_since_us: AtomicU64::new(0),
            unflushed_since_us: AtomicU64::new(0),
            closed_generation: AtomicU32::new(0),
            durable_waiters: Waiters::default(),
            persistence: parts.persistence,
            clock: parts.clock,
        }
    }

    /// Events below this survive a power cut. In memory, where there is nothing to survive, the published mark.
    #[inline]
    pub fn durable(&self) -> Seq {
        match self.persistence {
            Some(_) => Seq(self.durable.load(Ordering::Acquire)),
            None => self.tail.published(),
        }
    }

    /// Moves the durable mark. Only the shard's thread does this; it then runs a full fence and calls
    /// [`Channel::wake_durable`].
    pub fn set_durable(&self, seq: Seq, bytes: u64) {
        let before = self.durable.load(Ordering::Relaxed);
        assert!(before <= seq.0 && seq <= self.tail.published(), "committed <= durable <= published");
        self.durable_bytes.store(bytes, Ordering::Relaxed);
        self.durable.store(seq.0, Ordering::Release);
    }

    /// Notes that events below are written. Only the shard's thread does this.
    pub fn set_written(&self, seq: Seq) {
        self.written.store(seq.0, Ordering::Relaxed);
    }

    /// Wakes those who wait for the durable mark, which was moved here.
    pub fn wake_durable(&self, seq: Seq) {
        self.durable_waiters.wake_after_fence(seq.0);
    }

    /// Whether handles of this generation were closed. Closing ends the handles that are there; opening again gives new
    /// ones on the same channel.
    #[inline]
    pub fn is_closed(&self, generation: u32) -> bool {
        generation <= self.closed_generation.load(Ordering::Acquire)
    }

    /// Closes the handles of this generation and older.
    pub fn close(&self, generation: u32) {
        self.closed_generation.fetch_max(generation, Ordering::AcqRel);
        // Those who wait for `durable` are not woken: what they wait for still comes.
        self.tail.wake_readers();
    }

    /// Generation of a new handle.
    pub fn open_generation(&self) -> u32 {
        self.closed_generation.load(Ordering::Acquire) + 1
    }

    /// Events below this are asked to become durable.
    pub fn wanted(&self) -> Seq {
        Seq(self.wanted.load(Ordering::Acquire))
    }

    /// Asks for events below `seq` to become durable, and tells the shard that the channel has something to do.
    pub fn want_durable(&self, seq: Seq) {
        let Some(persistence) = &self.persistence else { return };
        if self.wanted.fetch_max(seq.0, Ordering::AcqRel) < seq.0 && self.tail.set_dirty() {
            persistence.shard.push_dirty(persistence.slot, &self.clock);
        }
    }

    /// Asks the shard to look now.
    pub fn ring(&self) {
        if let Some(persistence) = &self.persistence {
            persistence.shard.ring();
        }
    }

    /// Appends one event, at a time of the wall clock.
    #[inline]
    pub fn append(&self, payload: &[u8], time_us: u64) -> Result<(Reserved, Option<Seq>), Refusal> {
        let reserved = self.tail.append(payload, time_us).map_err(|refused| self.refused(refused))?;
        Ok((reserved, self.after_append(reserved, 1, time_us)))
    }

    /// Appends several events, visible together, at a time of the wall clock.
    pub fn append_batch<P: AsRef<[u8]>>(
        &self,
        payloads: &[P],
        time_us: u64,
    ) -> Result<(Reserved, Option<Seq>), Refusal> {
        let reserved = self.tail.append_batch(payloads, time_us).map_err(|refused| self.refused(refused))?;
        Ok((reserved, self.after_append(reserved, payloads.len() as u64, time_us)))
    }

    /// Whether an append has to wait because the shard is behind: that bounds, in time, what a killed process can lose.
    /// Durable appends, and a policy that counts events, have bounds of their own.
    #[inline]
    pub fn holds_back(&self, durable: bool, wall_us: u64) -> bool {
        let by_count = matches!(self.config.fsync_policy(), FsyncPolicy::EveryN(_));
        let Some(persistence) = self.persistence.as_ref().filter(|_| !by_count && !durable) else { return false };
        // The shard knows what stands in its queues; the other is true even while it stands still.
        let late = persistence.shard.is_behind() || persistence.shard.unwritten.is_old(wall_us, &self.clock);
        // A channel with nothing unwritten has nothing that gets older: so each goes on, one append a commit at the least,
        // whatever load others put on the shard.
        late && self.tail.published().0 > self.written.load(Ordering::Relaxed)
    }

    #[cold]
    fn refused(&self, refused: Refused) -> Refusal {
        if let Some(persistence) = self.persistence.as_ref().filter(|_| refused.newly_dirty) {
            persistence.shard.push_dirty(persistence.slot, &self.clock);
        }
        refused.refusal
    }

    /// Tells the shard, and says up to where the caller has to wait for durability under the channel's policy.
    #[inline]
    fn after_append(&self, reserved: Reserved, count: u64, time_us: u64) -> Option<Seq> {
        let persistence = self.persistence.as_ref()?;
        if self.config.fsync_policy().period().is_some() {
            // Before the shard can look: its collection takes this over, and a later one sees it.
            let _ = self.unseen_since_us.compare_exchange(0, time_us.max(1), Ordering::AcqRel, Ordering::Relaxed);
        }
        if reserved.newly_dirty {
            persistence.shard.push_dirty(persistence.slot, &self.clock);
        }
        // A period begins with the first event: the shard sets its timer when it looks.
        if reserved.crossed || (reserved.newly_dirty && self.config.fsync_policy().period().is_some()) {
            persistence.shard.ring();
        }
        let end = reserved.first.0 + count;
        match self.config.fsync_policy() {
            FsyncPolicy::Never => None,
            FsyncPolicy::EveryN(n) => self.after_append_every_n(end, n),
            FsyncPolicy::Interval(period) => self.is_late(period, time_us).then_some(Seq(end)),
            FsyncPolicy::IntervalOrBytes { period, max_bytes } => {
                let durable = self.durable.load(Ordering::Acquire);
                let bytes = reserved.bytes_after.saturating_sub(self.durable_bytes.load(Ordering::Relaxed));
                let unflushed = bytes + end.saturating_sub(durable) * 8;
                (unflushed > max_bytes || self.is_late(period, time_us)).then_some(Seq(end))
            }
        }
    }

    fn after_append_every_n(&self, end: u64, n: u64) -> Option<Seq> {
        let unflushed = end.saturating_sub(self.durable.load(Ordering::Acquire));
        if unflushed >= n.max(1) {
            return Some(Seq(end));
        }
        if unflushed == n / 2 && n >= 8 {
            // A flush that begins at half the bound is often over before the bound is reached.
            self.want_durable(Seq(end));
            self.ring();
        }
        None
    }

    /// Whether an event older than `period` is not durable.
    fn is_late(&self, period: std::time::Duration, now_us: u64) -> bool {
        let oldest = [&self.unseen_since_us, &self.unflushed_since_us]
            .into_iter()
            .map(|since| since.load(Ordering::Acquire))
            .filter(|since| *since != 0)
            .min();
        // Both times may be a tick behind.
        oldest.is_some_and(|since| now_us.saturating_sub(since) + TICK_US >= period.as_micros() as u64)
    }

    /// The shard is about to look at what is published: from now on these events count as seen. Returns the time of the
    /// oldest event that is seen and not durable, 0 if there is none.
    pub fn see_unflushed(&self) -> u64 {
        let unseen = self.unseen_since_us.load(Ordering::Acquire);
        let seen = self.unflushed_since_us.load(Ordering::Relaxed);
        let oldest = if seen == 0 { unseen } else { seen };
        // The seen mark first: a producer that looks between sees the event twice, never not at all.
        self.unflushed_since_us.store(oldest, Ordering::Release);
        if unseen != 0 {
            self.unseen_since_us.store(0, Ordering::Release);
        }
        oldest
    }

    /// Everything seen has become durable (`0`), or what is left was seen at `since_us`.
    pub fn set_unflushed_since(&self, since_us: u64) {
        self.unflushed_since_us.store(since_us, Ordering::Release);
    }
}
