//! What other threads know of a shard: its door.
//!
//! Producers put a channel on the dirty list, those who wait ring the bell, the store sends what is rare (a channel
//! opened, the store closes) by a queue. Everything else about a shard belongs to its thread alone.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::SegQueue;

use super::active::{Active, ActiveSegment};
use super::checkpoint::Known;
use super::errands::ErrandKind;
use super::groups::GroupRequest;
use super::retention::{RetentionState, TrimRequest};
use super::stats::{ShardStats, Stats};
use crate::append::backlog::relieve;
use crate::channel::Channel;
use crate::channel_name::ChannelName;
use crate::clock::Clock;
use crate::cold::tier::ColdTier;
use crate::error::Poisoned;
use crate::ids::{ChannelId, Lsn, Seq, ShardId};
use crate::io::Doorbell;
use crate::request::Request;
use crate::segment::block::RECORDS_PER_BLOCK;
use crate::store::checkpoint::{ChannelState, SegmentState};
use crate::store::roots::Roots;
use crate::store::superblock::CleanEnd;
use crate::sync::scheduled::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sync::scheduled::{Mutex, MutexGuard};
use crate::tail::page::PageStart;
use crate::tail::waiters::Waiters;

/// Index of an open channel in its shard's table.
pub type Slot = u32;

/// A rare message to a shard.
#[derive(Debug)]
pub enum Control {
    /// A channel was opened for the first time since the store was.
    Open(Box<Opened>),
    /// The head of a channel is to move.
    Trim {
        /// Whose.
        slot: Slot,
        /// Where to, and who wants to know.
        wanted: TrimRequest,
    },
    /// Settings of a channel were changed.
    Configured {
        /// Whose.
        slot: Slot,
        /// Who wants to know when that is durable.
        request: Request,
    },
    /// A change for which a channel has to be at rest.
    Errand {
        /// Which channel.
        slot: Slot,
        /// Which change.
        kind: ErrandKind,
        /// Who wants to know.
        request: Request,
    },
    /// A batch over several channels, lined up in each.
    Group(Box<GroupRequest>),
    /// Flush everything, take a checkpoint, and stop.
    Close,
}

/// A channel that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its shared half.
    pub channel: Arc<Channel>,
    /// Its place in the table.
    pub slot: Slot,
    /// What the store knew of it.
    pub state: Arc<ChannelState>,
    /// Bytes of the active segment's unfinished dat block.
    pub tail_bytes: Bytes,
    /// Whether the journal has yet to be told of it.
    pub created: bool,
    /// Its first page, if it comes with some: it was in memory before.
    pub page: Option<PageStart>,
}

impl Opened {
    /// The shard's half.
    pub fn into_active(self) -> Active {
        let next = Seq(self.state.end);
        let (first, dat_size) = active_segment(&self.state);
        let mut segment = ActiveSegment::new(first);
        segment.dat_size = Some(dat_size);
        segment.times_complete = next.0 - first.0 < RECORDS_PER_BLOCK as u64;
        let mut active = Active::new(self.channel, self.slot, next, segment, Lsn(self.state.lsn));
        active.segments = self.state.segments.clone();
        if active.segments.last().is_none_or(|segment| segment.sealed) {
            active.segments.push(SegmentState { first: first.0, end: first.0, dat_size: 0, sealed: false });
        }
        active.untold = self.created;
        if let Some(page) = self.page {
            active.begin_at(page);
        }
        active.recovered_tail = self.tail_bytes;
        active.last_time_us = self.state.last_time_us;
        active.retention = RetentionState::new(Seq(self.state.head), &active.segments, active.at.bytes_total);
        active
    }
}

/// First sequence and dat size of the segment in which a channel goes on.
pub fn active_segment(state: &ChannelState) -> (Seq, u32) {
    match state.segments.last() {
        Some(segment) if !segment.sealed => (Seq(segment.first), segment.dat_size),
        _ => (Seq(state.end), 0),
    }
}

/// Since when events have waited to be written: what producers go by, so that they stop by themselves while the shard stands
/// still, be it for a slow device or for want of a processor.
#[derive(Debug, Default)]
pub struct Unwritten {
    /// Of the steady clock; 0 while nothing waits.
    since_us: AtomicU64,
    /// The same moment on the wall clock, whose reading a producer has at hand: within one tick nothing gets old.
    since_wall_us: AtomicU64,
    /// How old an event may become before more are held back; 0 until the shard runs.
    age_max_us: AtomicU64,
}

impl Unwritten {
    /// Sets how old an event may become.
    pub fn set_age_max_us(&self, age_max_us: u64) {
        self.age_max_us.store(age_max_us, Ordering::Relaxed);
    }

    /// Something is there to be written, that was put on the dirty list before.
    pub fn begin(&self, clock: &Clock) {
        if self.since_us.load(Ordering::Relaxed) == 0 {
            self.set(clock.steady_us(), clock.wall_us());
        }
    }

    /// What was published before this moment is written.
    pub fn set(&self, since_us: u64, since_wall_us: u64) {
        self.since_wall_us.store(since_wall_us, Ordering::Relaxed);
        self.since_us.store(since_us.max(1), Ordering::Relaxed);
    }

    /// The oldest moment, if something waits.
    pub fn since_us(&self) -> Option<u64> {
        Some(self.since_us.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }

    /// Nothing waits, as far as the shard has seen. It looks at the dirty list again afterwards: who put something there
    /// before this may have found another moment set, and left it.
    pub fn clear(&self) {
        self.since_us.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether something has waited too long, at `wall_us`.
    #[inline]
    pub fn is_old(&self, wall_us: u64, clock: &Clock) -> bool {
        let since = self.since_us.load(Ordering::Relaxed);
        since != 0 && wall_us != self.since_wall_us.load(Ordering::Relaxed) && self.is_older_than_allowed(since, clock)
    }

    fn is_older_than_allowed(&self, since_us: u64, clock: &Clock) -> bool {
        let age_max_us = self.age_max_us.load(Ordering::Relaxed);
        age_max_us != 0 && clock.steady_us().saturating_sub(since_us) >= age_max_us
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct ShardHandle {
    /// Which shard.
    pub id: ShardId,
    doorbell: OnceLock<Arc<Doorbell>>,
    dirty: SegQueue<Slot>,
    files_ready: SegQueue<Slot>,
    control: Mutex<VecDeque<Control>>,
    has_control: AtomicBool,
    known: Mutex<Known>,
    clean_end: Mutex<Option<CleanEnd>>,
    poisoned: OnceLock<Poisoned>,
    no_space: AtomicBool,
    /// Since when events have waited to be written.
    pub unwritten: Unwritten,
    behind: AtomicBool,
    /// What a durable commit takes, on an average over the last ones, ns.
    commit_ns: AtomicU64,
    gives_up: AtomicBool,
    closed: AtomicBool,
    /// Channels, so that a failure reaches those who wait for them.
    channels: Mutex<Vec<Option<Arc<Channel>>>>,
    /// Channels that were deleted and that the store still lists.
    deleted: Mutex<Vec<ChannelId>>,
    /// What all shards stand on.
    roots: OnceLock<Arc<Roots>>,
    /// Held while a batch lines up in its channels.
    group_order: Mutex<()>,
    journal_segment_bytes: AtomicUsize,
    /// Channels with appends that wait for room.
    backlogged: SegQueue<Slot>,
    /// Those who wait for the close.
    pub close_waiters: Waiters,
    /// Where old segments go, if the store has such a place.
    pub cold: OnceLock<Arc<ColdTier>>,
    /// Counters.
    pub stats: ShardStats,
}

impl ShardHandle {
    /// The door of a shard that does not run yet, whose channels are `known`.
    pub fn new(id: ShardId, known: Known) -> Arc<Self> {
        Arc::new(Self {
            id,
            doorbell: OnceLock::new(),
            dirty: SegQueue::new(),
            files_ready: SegQueue::new(),
            control: Mutex::new(VecDeque::new()),
            has_control: AtomicBool::new(false),
            known: Mutex::new(known),
            clean_end: Mutex::new(None),
            poisoned: OnceLock::new(),
            no_space: AtomicBool::new(false),
            unwritten: Unwritten::default(),
            behind: AtomicBool::new(false),
            commit_ns: AtomicU64::new(0),
            gives_up: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            channels: Mutex::new(Vec::new()),
            deleted: Mutex::new(Vec::new()),
            roots: OnceLock::new(),
            group_order: Mutex::new(()),
            journal_segment_bytes: AtomicUsize::new(usize::MAX),
            backlogged: SegQueue::new(),
            close_waiters: Waiters::default(),
            cold: OnceLock::new(),
            stats: ShardStats::default(),
        })
    }

    /// Hangs up the bell, once the shard has one.
    pub fn set_doorbell(&self, doorbell: Arc<Doorbell>) {
        assert!(self.doorbell.set(doorbell).is_ok(), "a shard has one doorbell");
    }

    /// Puts a channel on the list; the caller was told so by its tail.
    pub fn push_dirty(&self, slot: Slot, clock: &Clock) {
        self.dirty.push(slot);
        match self.doorbell.get() {
            // Has a full fence.
            Some(doorbell) => doorbell.ring_if_deep(),
            None => fence(Ordering::SeqCst),
        }
        self.unwritten.begin(clock);
    }

    /// Takes a channel off the list.
    pub fn pop_dirty(&self) -> Option<Slot> {
        self.dirty.pop()
    }

    /// The files of a channel's segment are there.
    pub fn push_files_ready(&self, slot: Slot) {
        self.files_ready.push(slot);
        self.ring();
    }

    /// Takes a channel whose files are there.
    pub fn pop_files_ready(&self) -> Option<Slot> {
        self.files_ready.pop()
    }

    /// Appends to a channel wait for room. The caller rings.
    pub fn push_backlogged(&self, slot: Slot) {
        self.backlogged.push(slot);
    }

    /// Takes a channel with appends that wait for room.
    pub fn pop_backlogged(&self) -> Option<Slot> {
        self.backlogged.pop()
    }

    /// Whether a channel is on the list.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Somebody starts to wait, or much lies ready.
    #[inline]
    pub fn ring(&self) {
        if let Some(doorbell) = self.doorbell.get() {
            doorbell.ring_urgent();
        }
    }

    /// Sends a rare message. Returns the channel's slot for [`Control::Open`].
    pub fn send(&self, control: Control) {
        self.control.lock().expect("no panic while the lock is held").push_back(control);
        self.has_control.store(true, Ordering::Release);
        self.ring();
    }

    /// Gives a channel its slot.
    pub fn register(&self, make: impl FnOnce(Slot) -> Arc<Channel>) -> Arc<Channel> {
        let mut channels = self.channels.lock().expect("no panic while the lock is held");
        let slot = Slot::try_from(channels.len()).expect("fewer than 2^32 channels are open");
        let channel = make(slot);
        channels.push(Some(channel.clone()));
        channel
    }

    /// Says what all shards stand on.
    pub fn set_roots(&self, roots: Arc<Roots>) {
        assert!(self.roots.set(roots).is_ok(), "a store has one root");
    }

    /// What all shards stand on.
    pub fn roots(&self) -> Arc<Roots> {
        self.roots.get().expect("set when the store is opened").clone()
    }

    /// Batches line up in their channels one after the other.
    pub fn order_of_groups(&self) -> MutexGuard<'_, ()> {
        self.group_order.lock().expect("no panic while the lock is held")
    }

    /// Size of a journal segment, bytes.
    pub fn journal_segment_bytes(&self) -> usize {
        self.journal_segment_bytes.load(Ordering::Relaxed)
    }

    /// Says how large a journal segment is.
    pub fn set_journal_segment_bytes(&self, bytes: usize) {
        self.journal_segment_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Name of a channel that has a slot, for messages.
    pub fn channel_name(&self, slot: Slot) -> ChannelName {
        let channels = self.channels.lock().expect("no panic while the lock is held");
        let channel = channels.get(slot as usize).and_then(Option::as_ref);
        channel.map_or_else(|| ChannelName::new("(deleted)").expect("a plain name"), |channel| channel.name.clone())
    }

    /// A channel was deleted, durably.
    pub fn deleted(&self, slot: Slot, id: ChannelId) {
        self.channels.lock().expect("no panic while the lock is held")[slot as usize] = None;
        self.deleted.lock().expect("no panic while the lock is held").push(id);
    }

    /// Whether the channel that had this place was deleted.
    pub fn is_deleted(&self, slot: Slot) -> bool {
        let channels = self.channels.lock().expect("no panic while the lock is held");
        channels.get(slot as usize).is_some_and(Option::is_none)
    }

    /// Takes the channels that were deleted.
    pub fn take_deleted(&self) -> Vec<ChannelId> {
        std::mem::take(&mut *self.deleted.lock().expect("no panic while the lock is held"))
    }

    /// Forgets the channels of a shard that has ended, those too that it was never told of: they know their shard, so neither
    /// would ever be freed.
    pub fn forget_channels(&self) {
        let channels = std::mem::take(&mut *self.channels.lock().expect("no panic while the lock is held"));
        // Those that it never came to know.
        let mut queue = self.control.lock().expect("no panic while the lock is held");
        let knows_channels = |control: &Control| matches!(control, Control::Open(_) | Control::Group(_));
        let (opened, others): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(knows_channels);
        *queue = others;
        drop(queue);
        drop((channels, opened));
    }

    /// A channel was cut off: what its checkpointed entry says of segments behind that counts no more.
    pub fn known_cut_off(&self, channel: ChannelId, end: Seq) {
        if let Some(located) = self.known().get_mut(&channel) {
            let state = Arc::make_mut(&mut located.state);
            state.segments.retain_mut(|segment| {
                segment.end = segment.end.min(end.0);
                segment.first < end.0
            });
        }
    }

    /// Adds what the shard has counted, and how it is now.
    pub fn add_stats(&self, stats: &mut Stats, clock: &Clock) {
        stats.add(&self.stats);
        stats.open_channels += self.channels.lock().expect("no panic while the lock is held").len() as u64;
        let since_us = self.unwritten.since_us();
        let age =
            since_us.map_or(Duration::ZERO, |since| Duration::from_micros(clock.steady_us().saturating_sub(since)));
        stats.unwritten_age = stats.unwritten_age.max(age);
        stats.shards_behind += u64::from(self.is_behind());
        stats.shards_without_space += u64::from(self.no_space());
        stats.shards_stopped += u64::from(self.poisoned().is_some());
    }

    /// The newest checkpointed entries of the shard's channels.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while the lock is held")
    }

    /// Where the journal ends, after a close.
    pub fn clean_end(&self) -> Option<CleanEnd> {
        *self.clean_end.lock().expect("no panic while the lock is held")
    }

    /// Says where the journal ends.
    pub fn set_clean_end(&self, end: CleanEnd) {
        *self.clean_end.lock().expect("no panic while the lock is held") = Some(end);
    }

    /// A pass over the cold segments of these channels is due.
    pub fn cold_due(&self, channels: impl IntoIterator<Item = Arc<Channel>>) {
        if let Some(cold) = self.cold.get() {
            channels.into_iter().for_each(|channel| cold.due(&channel));
        }
    }

    /// A channel was deleted, durably: its objects in the cold store go. `open` is its shared half, if it is open.
    pub fn cold_deleted(&self, channel: ChannelId, open: Option<&Channel>) {
        let Some(tier) = self.cold.get() else { return };
        if let Some(cold) = open.and_then(|open| open.persistence()?.on_disk.cold()) {
            cold.set_deleted();
        }
        tier.channel_deleted(channel);
    }

    /// Takes the next rare message.
    pub fn receive(&self) -> Option<Control> {
        if !self.has_control.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.control.lock().expect("no panic while the lock is held");
        let control = queue.pop_front();
        self.has_control.store(!queue.is_empty(), Ordering::Release);
        control
    }

    /// Whether a rare message waits.
    pub fn has_control(&self) -> bool {
        self.has_control.load(Ordering::Acquire)
    }

    /// The first failure, if there was one.
    #[inline]
    pub fn poisoned(&self) -> Option<&Poisoned> {
        self.poisoned.get()
    }

    /// Stops everything with this failure, unless there was one before.
    pub fn poison(&self, failure: Poisoned) {
        if self.poisoned.set(failure.clone()).is_ok() {
            tracing::error!(shard = %self.id, what = failure.what, file = failure.file, cause = %failure.cause, "shard stopped");
        }
        self.wake_everybody();
    }

    /// Says whether the disk is full.
    pub fn set_no_space(&self, no_space: bool) {
        if self.no_space.swap(no_space, Ordering::AcqRel) != no_space {
            match no_space {
                true => tracing::warn!(shard = %self.id, "no space on disk: appends are refused"),
                false => tracing::info!(shard = %self.id, "space on disk again"),
            }
        }
    }

    /// Says whether events have waited too long to be written.
    pub fn set_behind(&self, behind: bool) {
        if self.behind.load(Ordering::Relaxed) != behind {
            self.behind.store(behind, Ordering::Relaxed);
        }
    }

    /// A durable commit took so long.
    pub fn note_commit(&self, took_ns: u64) {
        let before = self.commit_ns.load(Ordering::Relaxed);
        self.commit_ns.store(before - before / 8 + took_ns / 8, Ordering::Relaxed);
    }

    /// What a durable commit takes, on an average over the last ones.
    pub fn commit_time(&self) -> Duration {
        Duration::from_nanos(self.commit_ns.load(Ordering::Relaxed))
    }

    /// Whether events have waited too long to be written: more would make it worse.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// Whether the disk is full.
    #[inline]
    pub fn no_space(&self) -> bool {
        self.no_space.load(Ordering::Relaxed)
    }

    /// The shard has ended well.
    pub fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_everybody();
    }

    /// Whether the shard has ended well.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses appends, and tells the shard to end. What waits for room is published before its channel is closed: the shard
    /// does that.
    pub fn begin_close(&self) {
        for channel in self.channels.lock().expect("no panic while the lock is held").iter().flatten() {
            if channel.backlog.close() {
                channel.tail.close();
            }
        }
        self.send(Control::Close);
    }

    /// Nobody is there any more who would make room: a close that waits for some ends without it.
    pub fn give_up_waiting(&self) {
        self.gives_up.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether a close ends without the room that it waits for.
    pub fn gives_up(&self) -> bool {
        self.gives_up.load(Ordering::Acquire)
    }

    fn wake_everybody(&self) {
        let channels: Vec<_> =
            self.channels.lock().expect("no panic while the lock is held").iter().flatten().cloned().collect();
        for channel in channels {
            channel.tail.close();
            channel.durable_waiters.wake_all();
            // Refused: the channel is closed.
            relieve(&channel);
        }
        self.close_waiters.wake_all();
    }
}
