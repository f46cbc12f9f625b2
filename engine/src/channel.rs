//! A channel as all its users share it: tail, watermarks, policy.
//!
//! One owner per piece of state: producers own the tail's reservation, the shard's thread moves `durable`, and what lies on
//! disk is described by `on_disk`, which the shard writes and readers read.

mod follow;

use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use crate::append::backlog::Backlog;
use crate::channel_name::ChannelName;
use crate::clock::Clock;
use crate::config::RedexFileConfig;
use crate::error::ReadError;
use crate::follow::overlay::Overlay;
use crate::ids::{ChannelId, Epoch, Seq};
use crate::live_config::LiveConfig;
use crate::memory;
use crate::read::hold::Holds;
use crate::read::offload::Offload;
use crate::segment::read::OnDisk;
use crate::segment::record::IndexRecord;
use crate::shard::handle::{ShardHandle, Slot};
use crate::sync::scheduled::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::scheduled::{Mutex, MutexGuard};
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
    /// Its id.
    pub id: ChannelId,
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
    /// Its settings.
    pub config: LiveConfig,
    /// The newest events.
    pub tail: Tail,
    /// Appends that wait for room.
    pub backlog: Backlog,
    /// First event that is there.
    head: AtomicU64,
    /// Epochs that have appended, each with its first sequence; the last is the present one.
    pub epochs: Mutex<Vec<(Epoch, Seq)>>,
    /// The epoch in which it gives sequences.
    epoch: AtomicU32,
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
    /// What its readers stand at.
    pub holds: Holds,
    /// Held by the producer that drops what is too much, in memory.
    retaining: Mutex<()>,
    /// Count of resets at which the channel in memory became persistent, and the epoch since then.
    bound_at: OnceLock<(u32, Epoch)>,
    /// A channel in memory is made persistent once, by [`Channel::bind`].
    persistence: OnceLock<Persistence>,
    /// A [`Life`].
    life: AtomicU8,
    /// Where event times come from.
    pub clock: Clock,
}

/// Whether a channel is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// It is.
    There,
    /// It is being deleted.
    Ending,
    /// It was deleted.
    Over,
}

/// What makes a channel.
pub struct ChannelParts {
    /// Its name.
    pub name: ChannelName,
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
            config: LiveConfig::new(parts.config),
            tail: parts.tail,
            backlog: Backlog::default(),
            head: AtomicU64::new(parts.head.0),
            epochs: Mutex::new(epochs),
            epoch: AtomicU32::new(parts.epoch.0),
            payload_size_max: parts.payload_size_max,
            durable: CachePadded::new(AtomicU64::new(next.0)),
            durable_bytes: AtomicU64::new(0),
            written: AtomicU64::new(next.0),
            wanted: AtomicU64::new(0),
            unseen_since_us: AtomicU64::new(0),
            unflushed_since_us: AtomicU64::new(0),
            closed_generation: AtomicU32::new(0),
            durable_waiters: Waiters::default(),
            holds: Holds::default(),
            retaining: Mutex::new(()),
            bound_at: OnceLock::new(),
            persistence: parts.persistence.map_or_else(OnceLock::new, OnceLock::from),
            life: AtomicU8::new(Life::There as u8),
            clock: parts.clock,
        }
    }

    /// What belongs to a persistent channel only.
    #[inline]
    pub fn persistence(&self) -> Option<&Persistence> {
        self.persistence.get()
    }

    /// Its id; zero in memory.
    pub fn id(&self) -> ChannelId {
        self.persistence().map_or_else(ChannelId::default, |persistence| persistence.id)
    }

    /// First event that is there.
    #[inline]
    pub fn head(&self) -> Seq {
        Seq(self.head.load(Ordering::Acquire))
    }

    /// Events below are not there any more.
    pub fn move_head(&self, head: Seq) {
        self.head.fetch_max(head.0, Ordering::AcqRel);
    }

    /// The epoch in which it gives sequences.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The epoch of a reader that began in this one, while the suffix has been cut off so many times: that in which the
    /// channel became persistent, if that came later.
    pub fn epoch_of_reader(&self, epoch: Epoch, resets: u32) -> Epoch {
        match self.bound_at.get() {
            Some((bound_at, bound)) if *bound_at == resets => epoch.max(*bound),
            _ => epoch,
        }
    }

    /// Whether it is there.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::There,
            1 => Life::Ending,
            _ => Life::Over,
        }
    }

    /// It is being deleted, or was: then all handles are closed, and subscriptions end.
    pub fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Release);
        if life == Life::Over {
            self.close(u32::MAX - 1);
        }
    }

    /// What there is was appended in these epochs, of the store that it was copied from: cursors of that one stay good. The present
    /// epoch begins behind it.
    pub fn carry_epochs(&self, earlier: &[(u32, u64)]) {
        let next = self.tail.published();
        let present = self.epoch();
        let mut epochs = self.epochs.lock().expect("no panic while the lock is held");
        let earlier = earlier.iter().map(|(epoch, first)| (Epoch(*epoch), Seq(*first)));
        *epochs = earlier.filter(|(epoch, first)| *epoch < present && *first < next).collect();
        epochs.push((present, next));
    }

    /// Events from `end` on are gone, and their sequences are given again, in this epoch. Its tail is at rest; the caller
    /// resets it next, and then calls [`Channel::wake_after_cut`].
    pub fn cut_off(&self, end: Seq, epoch: Epoch) {
        let mut epochs = self.epochs.lock().expect("no panic while the lock is held");
        // What those epochs gave is gone: a cursor of theirs leads to where this one begins.
        while epochs.last().is_some_and(|(_, first)| *first >= end) {
            epochs.pop();
        }
        epochs.push((epoch, end));
        self.epoch.store(epoch.0, Ordering::Release);
        drop(epochs);
        self.head.fetch_min(end.0, Ordering::AcqRel);
        self.wanted.store(end.0, Ordering::Release);
        self.written.store(end.0, Ordering::Relaxed);
        self.durable_bytes.store(0, Ordering::Relaxed);
        self.durable.store(end.0, Ordering::Release);
        self.durable_waiters.mark_goes_back();
        self.unseen_since_us.store(0, Ordering::Relaxed);
        self.unflushed_since_us.store(0, Ordering::Relaxed);
    }

    /// Readers and those who wait look at the channel anew.
    pub fn wake_after_cut(&self) {
        self.tail.wake_readers();
        self.durable_waiters.wake_all();
    }

    /// Record of an event, wherever it lies; `None` if it is not there.
    pub fn record_of(&self, seq: Seq) -> Result<Option<IndexRecord>, ReadError> {
        if seq < self.head() || seq >= self.tail.published() {
            return Ok(None);
        }
        if let Some(page) = self.tail.page_of(seq) {
            // A page that came behind a cut has not got as far yet.
            return Ok(page.published_record((seq.0 - page.start().first_seq.0) as usize));
        }
        let Some(persistence) = self.persistence() else { return Ok(None) };
        match persistence.on_disk.record(seq) {
            // Dropped meanwhile.
            Err(_) if seq < self.head() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Time of an event, microseconds since the Unix epoch; `None` if it is not there.
    pub fn time_of(&self, seq: Seq) -> Result<Option<u64>, ReadError> {
        Ok(self.record_of(seq)?.map(|record| record.time_us()))
    }

    /// First sequence and end of each segment; the last one has none yet.
    pub fn segment_bounds(&self) -> Vec<(Seq, Seq)> {
        let mut bounds = self.persistence().map_or_else(Vec::new, |persistence| persistence.on_disk.bounds());
        for (first, end) in self.tail.segments() {
            match bounds.last_mut() {
                Some(last) if first <= last.0 => last.1 = end.max(first),
                Some(last) => {
                    last.1 = last.1.min(first);
                    bounds.push((first, end));
                }
                None => bounds.push((first, end)),
            }
        }
        bounds
    }

    /// Events below this survive a power cut. In memory, where there is nothing to survive, the published mark.
    #[inline]
    pub fn durable(&self) -> Seq {
        match self.persistence() {
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

    /// Events below have been handed to the kernel. In memory the published mark.
    pub fn written_mark(&self) -> Seq {
        match self.persistence() {
            Some(_) => Seq(self.written.load(Ordering::Relaxed)),
            None => self.tail.published(),
        }
    }

    /// Wakes those who wait for the durable mark, which was moved here. Says how many tasks it woke.
    pub fn wake_durable(&self, seq: Seq) -> usize {
        self.durable_waiters.wake_after_fence(seq.0)
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

    /// Asks for events below `seq` to become durable, and tells the shard that the channel has something to do. Says whether nobody
    /// had asked for so much.
    pub fn want_durable(&self, seq: Seq) -> bool {
        let Some(persistence) = self.persistence() else { return false };
        let is_new = self.wanted.fetch_max(seq.0, Ordering::AcqRel) < seq.0;
        if is_new && self.tail.set_dirty() {
            persistence.shard.push_dirty(persistence.slot, &self.clock);
        }
        is_new
    }

    /// Asks the shard to look now.
    pub fn ring(&self) {
        if let Some(persistence) = self.persistence() {
            persistence.shard.ring();
        }
    }

    /// Appends one event, at a time of the wall clock, if it gets the expected sequence.
    #[inline]
    pub fn append(
        &self,
        payload: &[u8],
        time_us: u64,
        expected: Option<Seq>,
    ) -> Result<(Reserved, Option<Seq>), Refusal> {
        let reserved = self.tail.append_at(payload, time_us, expected).map_err(|refused| self.refused(refused))?;
        Ok((reserved, self.after_append(reserved, 1, time_us)))
    }

    /// Appends several events, visible together, at a time of the wall clock, if the first gets the expected sequence.
    pub fn append_batch<P: AsRef<[u8]>>(
        &self,
        payloads: &[P],
        time_us: u64,
        expected: Option<Seq>,
    ) -> Result<(Reserved, Option<Seq>), Refusal> {
        let reserved =
            self.tail.append_batch_at(payloads, time_us, expected).map_err(|refused| self.refused(refused))?;
        Ok((reserved, self.after_append(reserved, payloads.len() as u64, time_us)))
    }

    /// Whether an append has to wait because the shard is behind: that bounds, in time, what a killed process can lose.
    /// Durable appends, and a policy that counts events, have bounds of their own.
    #[inline]
    pub fn holds_back(&self, durable: bool, wall_us: u64) -> bool {
        let by_count = self.config.counts_events();
        let Some(persistence) = self.persistence().filter(|_| !by_count && !durable) else { return false };
        // The shard knows what stands in its queues; the other is true even while it stands still.
        let late = persistence.shard.is_behind() || persistence.shard.unwritten.is_old(wall_us, &self.clock);
        // A channel with nothing unwritten has nothing that gets older: so each goes on, one append a commit at the least,
        // whatever load others put on the shard.
        late && self.tail.published().0 > self.written.load(Ordering::Relaxed)
    }

    #[cold]
    fn refused(&self, refused: Refused) -> Refusal {
        if let Some(persistence) = self.persistence().filter(|_| refused.newly_dirty) {
            persistence.shard.push_dirty(persistence.slot, &self.clock);
        }
        refused.refusal
    }

    /// Tells the shard, and says up to where the caller has to wait for durability under the channel's policy.
    #[inline]
    fn after_append(&self, reserved: Reserved, count: u64, time_us: u64) -> Option<Seq> {
        let Some(persistence) = self.persistence() else {
            self.after_append_in_memory(Seq(reserved.first.0 + count), count, time_us);
            return None;
        };
        let bounds = self.config.bounds();
        if bounds.period_us.is_some() {
            // Before the shard can look: its collection takes this over, and a later one sees it.
            let _ = self.unseen_since_us.compare_exchange(0, time_us.max(1), Ordering::AcqRel, Ordering::Relaxed);
        }
        if reserved.newly_dirty {
            persistence.shard.push_dirty(persistence.slot, &self.clock);
        }
        // A period begins with the first event: the shard sets its timer when it looks.
        if reserved.crossed || (reserved.newly_dirty && bounds.period_us.is_some()) {
            persistence.shard.ring();
        }
        let end = reserved.first.0 + count;
        if let Some(n) = bounds.events {
            return self.after_append_every_n(end, n);
        }
        let broken = bounds.bytes.is_some_and(|max_bytes| self.unflushed_bytes(reserved, end) > max_bytes)
            || bounds.period_us.is_some_and(|period_us| self.is_late(period_us, time_us));
        broken.then_some(Seq(end))
    }

    #[inline]
    fn after_append_in_memory(&self, end: Seq, count: u64, time_us: u64) {
        if let Some(retention) = self.config.retention() {
            memory::retain(self, &retention, end, count, time_us);
        }
    }

    /// One at a time drops what is too much in memory; `None` for the others.
    pub fn try_retaining(&self) -> Option<MutexGuard<'_, ()>> {
        self.retaining.try_lock().ok()
    }

    /// The same, waited for.
    pub fn begin_retaining(&self) -> MutexGuard<'_, ()> {
        self.retaining.lock().expect("no panic while the lock is held")
    }

    /// The channel in memory becomes a persistent one: its events from `first` on, which begins a segment, are the shard's to
    /// write. `bytes` is what [`Reserved::bytes_after`] said before that event, `epoch` the one in which it goes on.
    ///
    /// # Panics
    ///
    /// If it is one already.
    pub fn bind(&self, persistence: Persistence, (first, bytes): (Seq, u64), epoch: Epoch) {
        {
            let mut epochs = self.epochs.lock().expect("no panic while the lock is held");
            self.epoch.store(epoch.0, Ordering::Release);
            // Before the place is read: a reader that does not see this yet stands before that.
            assert!(self.bound_at.set((self.tail.resets(), epoch)).is_ok(), "a channel becomes persistent once");
            epochs.push((epoch, self.tail.published()));
        }
        self.durable_bytes.store(bytes, Ordering::Relaxed);
        self.written.store(first.0, Ordering::Relaxed);
        self.durable.store(first.0, Ordering::Release);
        assert!(self.persistence.set(persistence).is_ok(), "a channel becomes persistent once");
    }

    /// Bytes that are not durable, as the policy counts them.
    fn unflushed_bytes(&self, reserved: Reserved, end: u64) -> u64 {
        let durable = self.durable.load(Ordering::Acquire);
        let bytes = reserved.bytes_after.saturating_sub(self.durable_bytes.load(Ordering::Relaxed));
        bytes + end.saturating_sub(durable) * 8
    }

    fn after_append_every_n(&self, end: u64, n: u64) -> Option<Seq> {
        let unflushed = end.saturating_sub(self.durable.load(Ordering::Acquire));
        if unflushed >= n {
            return Some(Seq(end));
        }
        if unflushed == n / 2 && n >= 8 {
            // A flush that begins at half the bound is often over before the bound is reached.
            self.want_durable(Seq(end));
            self.ring();
        }
        None
    }

    /// Whether an event older than this is not durable.
    fn is_late(&self, period_us: u64, now_us: u64) -> bool {
        let oldest = [&self.unseen_since_us, &self.unflushed_since_us]
            .into_iter()
            .map(|since| since.load(Ordering::Acquire))
            .filter(|since| *since != 0)
            .min();
        // Both times may be a tick behind.
        oldest.is_some_and(|since| now_us.saturating_sub(since) + TICK_US >= period_us)
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
