//! A shard: one thread, one queue of I/O, one journal.
//!
//! ```text
//!  turn:  reap -> receive -> timers -> gather -> roll -> commit
//!             -> destage -> checkpoint -> spares -> recycle -> backlog -> submit
//! ```
//!
//! The shard is a state machine: [`Shard::turn`] takes what has completed and what is published, and submits what follows
//! from it. It reads no clock but the one it was given, and never waits; [`run`] does that around it, and the simulator does
//! it by hand. Segment files are made, and journal segments recycled, beside it, by threads of the store ([`Offload`]).
//!
//! Promises: see `docs/architecture.md`. A failed write or flush stops it for good ([`Poisoned`]); no flush is tried again.

pub mod active;
#[cfg(feature = "sim")]
pub mod by_hand;
pub mod checkpoint;
pub mod checkpoint_files;
pub mod checkpoint_moves;
pub mod commit;
pub mod destage;
pub mod destage_queue;
pub mod errands;
pub mod groups;
pub mod handle;
pub mod notes;
pub mod ops;
pub mod plan;
pub mod reclaim;
pub mod regroup;
pub mod retention;
pub mod roll;
pub mod run;
pub mod seal;
pub mod stats;
pub mod timers;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Waker;

use self::active::{Active, DestageTurn};
use self::checkpoint::Checkpoint;
use self::checkpoint_files::CheckpointFiles;
use self::commit::{Commits, ControlEntry, Kind};
use self::destage_queue::DestageQueue;
use self::errands::Errands;
use self::groups::Groups;
use self::handle::{Control, ShardHandle, Slot};
use self::notes::{Note, NoteKind};
use self::ops::{Ops, Purpose};
use self::reclaim::Reclaim;
use self::regroup::Regroup;
use self::retention::AgeLook;
use self::roll::{ErrandDone, Making};
use self::timers::Timers;
use crate::append::backlog::relieve;
use crate::clock::Clock;
use crate::error::{ChangeError, Poisoned};
use crate::ids::{Epoch, Lsn};
use crate::io::located::split;
use crate::io::{AlignedBuf, Completion, Disk, Doorbell, Driver, File, IoFacts};
use crate::journal::journal_dir;
use crate::journal::pool::SegmentPool;
use crate::journal::writer::Journal;
use crate::options::Options;
use crate::random::Random;
use crate::read::offload::{Offload, Offloaded};
use crate::segment::record::IndexRecord;
use crate::store::checkpoint::ChannelState;
use crate::store::superblock::CleanEnd;
use crate::tail::page::prefetch;
use crate::tail::pool::PagePool;

/// What a failure of the shard's own queue is about, instead of a file.
const QUEUE: &str = "the shard's queue of I/O";
/// Share of the page budget in use from which small writes are worth their while.
const MEMORY_SHORT_PERCENT: usize = 50;
/// When a shard looks again for memory that it does not give back itself, for appends that wait for it.
const BACKLOG_RETRY_US: u64 = 5_000;
/// How long a shard that found no room on disk waits before it tries again.
const SPACE_RETRY_US: u64 = 50_000;
/// How often in a row that is before a store that nobody has any more gives up. With the first try everything that needs
/// no room gets going.
const RETRIES_IN_VAIN_MAX: u32 = 3;

/// What a shard begins with.
pub struct ShardSeed {
    /// Its door.
    pub handle: Arc<ShardHandle>,
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Where its journal goes on.
    pub journal: Journal,
    /// Ready journal segments.
    pub pool: SegmentPool,
    /// LSN of its next commit.
    pub next_lsn: Lsn,
    /// Commits below need no replay.
    pub replay_from: Lsn,
    /// Its checkpoint files.
    pub checkpoint_files: CheckpointFiles,
    /// Memory for pages.
    pub pages: Arc<PagePool>,
    /// Settings.
    pub options: Options,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub random: Random,
    /// Who makes files beside the shard.
    pub file_maker: Arc<Offload>,
}

/// See the module's text.
pub struct Shard {
    handle: Arc<ShardHandle>,
    disk: Arc<dyn Disk>,
    driver: Box<dyn Driver>,
    doorbell: Arc<Doorbell>,
    clock: Clock,
    random: Random,
    options: Options,
    pages: Arc<PagePool>,
    active: Vec<Option<Box<Active>>>,
    /// Channels with something to commit.
    queue: VecDeque<Slot>,
    /// Channels that may have something to destage.
    destage_queue: DestageQueue,
    /// Writes to segments' files in flight, extents aside.
    segment_writes: usize,
    /// Channels taken off the dirty list; kept for its memory.
    gathered: Vec<Slot>,
    /// How many channels are deferred.
    deferred: usize,
    /// Channels with appends that wait for room.
    backlogged: Vec<Slot>,
    /// When all channels were last looked at for memory.
    relieved_at: u64,
    /// Since when producers have been held back, if they are.
    held_back_since_us: Option<u64>,
    /// Something has made room for appends that wait.
    room_made: bool,
    /// When they were last tried for another reason.
    backlogs_tried_at: u64,
    /// Channels with commits since the last checkpoint.
    changed: Vec<Slot>,
    commits: Commits,
    /// What the next commit says of channels beside events.
    notes: VecDeque<Note>,
    /// The epoch of the cut that is under way.
    cut_epoch: Epoch,
    errands: Errands,
    groups: Groups,
    reclaim: Reclaim,
    /// Deleted channels that no checkpoint tells of yet.
    tombstones: Vec<ChannelState>,
    /// Channels with a limit of age, those that are due for a look, and the look under way.
    aging: Vec<Slot>,
    to_look_at: Vec<Slot>,
    age_look: Option<AgeLook>,
    journal: Journal,
    pool: SegmentPool,
    making: Option<Making>,
    zeros: Option<AlignedBuf>,
    checkpoint: Checkpoint,
    checkpoint_files: CheckpointFiles,
    /// Commits below need no replay: segments that end before can be recycled.
    replay_from: Lsn,
    ops: Ops,
    completions: Vec<Completion>,
    timers: Timers,
    /// Somebody waits, or much lies ready: the queue is committed as soon as it can be.
    commit_now: bool,
    /// Whether the next commit waits for those whom the last one has woken.
    regroup: Regroup,
    /// Until when it does, if it does: decided once a turn.
    held_until_us: Option<u64>,
    /// Somebody waits for what is written and not flushed.
    flush_backlog: bool,
    /// Everything is to be flushed.
    flush_now: bool,
    closing: bool,
    /// Nothing more comes from the channels below, since they are closed.
    settled: usize,
    /// How often what found no room was tried again since something last found its place, once nobody has the store.
    retries_in_vain: u32,
    ended: bool,
    worked_lately: bool,
    /// The wall clock when the dirty list was last gathered.
    gathered_wall_us: u64,
    memory_short: bool,
    file_maker: Arc<Offload>,
    /// A journal segment that is given back to the pool: its path, and its new name when that is done.
    recycling: Option<(String, Offloaded<io::Result<Option<String>>>)>,
    errand_waker: Waker,
    idx_buffers: Vec<AlignedBuf>,
    record_scratch: Vec<IndexRecord>,
    now_us: u64,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was done: another turn may find more.
    Worked,
    /// Nothing to do before an I/O ends, the bell rings, or this moment of the steady clock (microseconds) comes.
    Idle {
        /// The next timer.
        until_us: Option<u64>,
    },
    /// The shard has been closed.
    Ended,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("id", &self.handle.id).finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard that goes on where its seed says. Called on the thread that will run it.
    pub fn new(seed: ShardSeed) -> io::Result<Self> {
        let mut driver = seed.disk.driver()?;
        driver.write_lone_by_blocking(seed.options.commit_depth == 1);
        let doorbell = driver.doorbell();
        seed.handle.set_doorbell(doorbell.clone());
        *seed.handle.stats.io.lock().expect("no panic while the lock is held") =
            IoFacts { ring: driver.ring(), ..seed.disk.facts() };
        let now_us = seed.clock.steady_us();
        seed.handle.set_journal_segment_bytes(seed.options.journal_segment_bytes as usize);
        seed.handle.unwritten.set_age_max_us(2 * write_behind_us(&seed.options));
        let errand_waker = Waker::from(Arc::new(ErrandDone(seed.handle.clone())));
        Ok(Self {
            handle: seed.handle,
            disk: seed.disk,
            driver,
            doorbell,
            clock: seed.clock,
            random: seed.random,
            options: seed.options,
            pages: seed.pages,
            active: Vec::new(),
            queue: VecDeque::new(),
            destage_queue: DestageQueue::default(),
            segment_writes: 0,
            gathered: Vec::new(),
            deferred: 0,
            backlogged: Vec::new(),
            relieved_at: 0,
            held_back_since_us: None,
            room_made: false,
            backlogs_tried_at: 0,
            changed: Vec::new(),
            commits: Commits::new(seed.next_lsn),
            notes: VecDeque::new(),
            cut_epoch: Epoch(0),
            errands: Errands::default(),
            groups: Groups::default(),
            reclaim: Reclaim::default(),
            tombstones: Vec::new(),
            aging: Vec::new(),
            to_look_at: Vec::new(),
            age_look: None,
            journal: seed.journal,
            pool: seed.pool,
            making: None,
            zeros: None,
            checkpoint: Checkpoint::default(),
            checkpoint_files: seed.checkpoint_files,
            replay_from: seed.replay_from,
            ops: Ops::default(),
            completions: Vec::new(),
            timers: Timers::default(),
            commit_now: false,
            regroup: Regroup::default(),
            held_until_us: None,
            flush_backlog: false,
            flush_now: false,
            closing: false,
            settled: 0,
            retries_in_vain: 0,
            ended: false,
            worked_lately: false,
            gathered_wall_us: 0,
            memory_short: false,
            file_maker: seed.file_maker,
            recycling: None,
            errand_waker,
            idx_buffers: Vec::new(),
            record_scratch: Vec::new(),
            now_us,
        })
    }

    /// One turn of the shard's loop.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: a write or flush failed. Everybody who waits is told; the shard takes no more turns.
    pub fn turn(&mut self) -> Result<Turn, Poisoned> {
        if let Some(poisoned) = self.handle.poisoned() {
            return Err(poisoned.clone());
        }
        let turn = self.try_turn();
        if let Err(poisoned) = &turn {
            self.handle.poison(poisoned.clone());
        }
        turn
    }

    fn try_turn(&mut self) -> Result<Turn, Poisoned> {
        if self.ended {
            return Ok(Turn::Ended);
        }
        self.now_us = self.clock.steady_us();
        // Before the look at what has ended: who rang up to here was not woken by that.
        self.listen();
        let reaped = self.reap()?;
        let received = self.receive();
        self.fire_timers()?;
        let gathered = self.gather()?;
        self.roll()?;
        let errands = self.step_errands()? | self.step_groups();
        let committed = self.commit()?;
        self.relieve_memory();
        let more_to_destage = self.destage()?;
        let checkpointed = self.step_checkpoint()?;
        self.keep_spares()?;
        let recycled = self.recycle()? | self.reclaim()? | self.step_ages() | errands;
        self.arm_idle();
        self.watch_age();
        let relieved = self.relieve_backlogs();
        self.note_backpressure();
        let kicked = self.driver.kick();
        self.checked("submission", QUEUE, kicked)?;
        if self.closing && self.try_end()? {
            return Ok(Turn::Ended);
        }
        let to_commit = !self.queue.is_empty() || !self.notes.is_empty();
        let ready = self.commit_now && to_commit && self.can_commit() && self.held_until_us.is_none();
        let worked = ready || reaped || received || gathered || committed || checkpointed || recycled || relieved;
        let worked = worked || more_to_destage;
        Ok(if worked { Turn::Worked } else { Turn::Idle { until_us: self.next_timer() } })
    }

    /// Handles what has completed.
    fn reap(&mut self) -> Result<bool, Poisoned> {
        let mut completions = std::mem::take(&mut self.completions);
        let reaped = self.driver.reap(&mut completions);
        self.checked("look for completions", QUEUE, reaped)?;
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion)?;
        }
        self.completions = completions;
        Ok(any)
    }

    fn complete(&mut self, completion: Completion) -> Result<(), Poisoned> {
        let (purpose, file) = self.ops.finish(completion.token);
        self.segment_writes -= usize::from(purpose.is_segment_write());
        if let Err(error) = completion.result {
            if error.kind() == io::ErrorKind::StorageFull && purpose.may_find_no_space() {
                return self.found_no_space(purpose, file);
            }
            return Err(self.failure(purpose.what(), file.path(), error));
        }
        match purpose {
            Purpose::CommitWrite(lsn) => {
                self.commits.reuse(completion.buf.expect("a commit owns its buffer"));
                self.commit_op_ended(lsn)?;
            }
            Purpose::CommitExtent(extent) => self.extent_ended(&extent)?,
            Purpose::CommitFlush(lsn) => self.commit_op_ended(lsn)?,
            Purpose::Dat { slot, byte } => self.dat_written(slot, byte),
            Purpose::Idx { slot, end } => self.idx_written(slot, end, completion.buf),
            Purpose::SealWrite(slot) => self.seal_written(slot)?,
            Purpose::SealFlush(slot) => self.seal_flushed(slot),
            Purpose::RollHeader => self.roll_header_written(),
            Purpose::SpareZero => {
                self.zeros = completion.buf;
                self.zeros_written()?;
            }
            Purpose::SpareFlush => self.spare_flushed()?,
            Purpose::CheckpointFlush => self.checkpoint_flushed(),
            Purpose::CheckpointWrite => self.checkpoint_slice_written(completion.buf),
            Purpose::CheckpointFileFlush => self.checkpoint_file_flushed()?,
        }
        Ok(())
    }

    /// Something found the disk full and is as it was: it is tried again later, and appends are refused meanwhile.
    fn found_no_space(&mut self, purpose: Purpose, file: Arc<dyn File>) -> Result<(), Poisoned> {
        if matches!(purpose, Purpose::SpareZero) {
            return self.zeros_found_no_space();
        }
        self.no_space_found();
        match purpose {
            Purpose::CommitExtent(extent) => self.extent_found_no_space(extent, file),
            Purpose::Dat { slot, .. } => self.dat_found_no_space(slot),
            Purpose::Idx { slot, .. } => self.idx_found_no_space(slot),
            Purpose::SealWrite(slot) => self.seal_found_no_space(slot),
            Purpose::CheckpointWrite => self.checkpoint_found_no_space()?,
            _ => unreachable!("only what can be tried again finds no space"),
        }
        Ok(())
    }

    /// It is tried again: at once with the room of spares, if there are more than are needed, else later.
    fn no_space_found(&mut self) {
        self.handle.set_no_space(true);
        let wait_us = if self.give_up_spares() { 0 } else { SPACE_RETRY_US };
        self.timers.space_retry_at = Some(self.now_us + wait_us);
    }

    /// Something that needed new space got it.
    fn space_was_found(&mut self) {
        let waits = self.timers.space_retry_at.is_some() || self.timers.spare_retry_at.is_some();
        if self.handle.no_space() && !waits && !self.lacks_spares() && self.commits.extents_without_space == 0 {
            self.handle.set_no_space(false);
        }
    }

    /// The value, or `None` if there was no room for it.
    fn found_space<T>(&mut self, what: &'static str, path: &str, result: io::Result<T>) -> Result<Option<T>, Poisoned> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.no_space_found();
                Ok(None)
            }
            Err(error) => Err(self.failure(what, path, error)),
        }
    }

    /// The value; a failure stops the shard.
    fn checked<T>(&self, what: &'static str, path: &str, result: io::Result<T>) -> Result<T, Poisoned> {
        result.map_err(|error| self.failure(what, path, error))
    }

    /// `path` is what the error is about, unless it says itself.
    fn failure(&self, what: &'static str, path: &str, error: io::Error) -> Poisoned {
        let (file, cause) = split(error, path);
        Poisoned { shard: self.handle.id, what, file, cause: Arc::new(cause) }
    }

    /// Takes rare messages.
    fn receive(&mut self) -> bool {
        let mut any = false;
        while let Some(control) = self.handle.receive() {
            any = true;
            match control {
                Control::Open(opened) => self.open_channel(*opened),
                Control::Trim { slot, wanted } if self.refuses(slot) => wanted.request.decide(Err(self.refusal(slot))),
                Control::Trim { slot, wanted } => self.trim_for(slot, wanted),
                Control::Configured { slot, request } if self.refuses(slot) => request.decide(Err(self.refusal(slot))),
                Control::Configured { slot, request } => self.note(slot, NoteKind::Configured(request)),
                Control::Errand { slot, request, .. } if self.refuses(slot) => request.decide(Err(self.refusal(slot))),
                Control::Errand { slot, kind, request } => self.errands.push(slot, kind, request),
                Control::Group(group) if self.closing => Groups::refuse(&group),
                Control::Group(group) => self.groups.push(*group),
                Control::Close => self.close_channels(),
            }
        }
        any
    }

    /// Whether changes of a channel come too late.
    fn refuses(&self, slot: Slot) -> bool {
        self.closing || self.active.get(slot as usize).is_none_or(Option::is_none)
    }

    fn refusal(&self, slot: Slot) -> ChangeError {
        ChangeError::Closed { channel: self.handle.channel_name(slot) }
    }

    /// From now on appends are refused; those that wait for room come first.
    fn close_channels(&mut self) {
        self.closing = true;
        for active in self.active.iter().flatten() {
            if active.channel.backlog.close() {
                active.channel.tail.close();
            }
        }
    }

    fn open_channel(&mut self, opened: handle::Opened) {
        let slot = opened.slot as usize;
        if self.active.len() <= slot {
            self.active.resize_with(slot + 1, || None);
        }
        let mut active = Box::new(opened.into_active());
        if active.untold {
            active.queued = true;
            self.queue.push_back(active.slot);
            // The bell that came with the message may have been taken before the message was.
            self.commit_now = true;
        }
        self.active[slot] = Some(active);
    }

    /// Takes notice of those who started to wait.
    fn listen(&mut self) {
        if self.doorbell.take_urgent() {
            self.commit_now = true;
            self.regroup.rung(self.clock.steady_us());
        }
    }

    /// Decides until when the next commit waits for more events, if it does.
    fn hold_commit(&mut self) {
        let may_be_held = self.commit_now && !self.flush_now && !self.closing && self.can_commit();
        self.held_until_us = self.regroup.held_until_us(self.now_us).filter(|_| may_be_held);
    }

    /// Takes channels off the dirty list: what they have published will be committed, what they want flushed.
    fn gather(&mut self) -> Result<bool, Poisoned> {
        // Before the look at the list: who rings has put its channel there.
        self.listen();
        self.hold_commit();
        let mut any = false;
        while let Some(slot) = self.handle.pop_files_ready() {
            any = true;
            self.files_ready(slot)?;
        }
        // The list is left alone until there is a commit to make of it: a look at each event would take its channel's
        // cache lines from the producer again and again.
        if self.handle.has_dirty() {
            self.handle.unwritten.begin(&self.clock);
        }
        if self.handle.has_dirty() && self.timers.write_behind_at.is_none() {
            self.timers.write_behind_at = Some(self.now_us + self.write_behind_us());
        }
        let due = self.timers.write_behind_due(self.now_us);
        let wanted = self.commit_now || self.flush_now || due || self.closing;
        if !wanted || !self.can_commit() || self.held_until_us.is_some() {
            return Ok(any);
        }
        self.gathered_wall_us = self.clock.wall_us();
        let mut gathered = std::mem::take(&mut self.gathered);
        while let Some(slot) = self.handle.pop_dirty() {
            gathered.push(slot);
        }
        for (i, slot) in gathered.iter().enumerate() {
            any = true;
            self.expect_look(&gathered[i..]);
            self.look_at(*slot);
        }
        gathered.clear();
        self.gathered = gathered;
        Ok(any)
    }

    /// Asks for the cache lines of the channels that are looked at next: their producers wrote them on other cores.
    fn expect_look(&self, ahead: &[Slot]) {
        let active = |count: usize| self.active.get(*ahead.get(count)? as usize)?.as_deref();
        if let Some(active) = active(8) {
            prefetch((&raw const active.channel).cast());
            prefetch((&raw const active.at).cast());
        }
        if let Some(active) = active(4) {
            active.channel.tail.expect_look();
        }
    }

    /// Queues a channel that is on the dirty list if it has something to commit.
    fn look_at(&mut self, slot: Slot) {
        // A channel may be dirty before the message that opens it is taken.
        if self.active.get(slot as usize).is_none_or(Option::is_none) {
            self.receive();
        }
        // A channel that was deleted stays on the list until it is looked at.
        let Some(active) = self.active.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        active.channel.tail.clear_dirty();
        if let Some(period_us) = active.channel.config.period_us() {
            let since = active.channel.see_unflushed();
            if since != 0 {
                self.timers.arm_flush(since, period_us, self.clock.wall_us(), self.now_us);
            }
        }
        let published = active.channel.tail.published();
        if published > active.at.seq {
            if !active.queued && !active.deferred {
                active.queued = true;
                self.queue.push_back(slot);
            }
        } else if active.channel.wanted() > active.promised {
            self.flush_backlog = true;
        }
    }

    /// Publishes appends that wait for room, as far as there is some: when some was made, and now and then, since other
    /// shards give memory back, too.
    fn relieve_backlogs(&mut self) -> bool {
        let listed = self.backlogged.len();
        while let Some(slot) = self.handle.pop_backlogged() {
            self.backlogged.push(slot);
        }
        let due = self.now_us >= self.backlogs_tried_at + BACKLOG_RETRY_US;
        let changed = std::mem::take(&mut self.room_made) || self.backlogged.len() > listed;
        if self.backlogged.is_empty() || !(due || changed || self.closing || self.handle.no_space()) {
            return false;
        }
        self.backlogs_tried_at = self.now_us;
        let mut backlogged = std::mem::take(&mut self.backlogged);
        // Another one is the first to take what room there is.
        backlogged.rotate_left(1);
        let mut any = false;
        backlogged.retain(|slot| {
            // A channel may be on the list before the message that opens it is taken.
            let Some(active) = self.active.get(*slot as usize).and_then(Option::as_ref) else {
                // Or it was deleted.
                return !self.handle.is_deleted(*slot);
            };
            any |= relieve(&active.channel);
            let over = active.channel.backlog.unlist_if_empty();
            if over && self.closing {
                active.channel.tail.close();
            }
            if !over && active.has_blocks_to_write() && self.has_to_destage(active) {
                self.queue_destage_at(*slot, DestageTurn::First);
            }
            !over
        });
        self.backlogged = backlogged;
        any
    }

    /// When memory runs short, every channel is looked at again: what was too little to be worth a write is now.
    fn relieve_memory(&mut self) {
        let used_percent = self.pages.used_percent();
        if used_percent < MEMORY_SHORT_PERCENT {
            self.memory_short = false;
            return;
        }
        let again = !self.backlogged.is_empty() && self.now_us >= self.relieved_at + BACKLOG_RETRY_US;
        if !std::mem::replace(&mut self.memory_short, true) || again {
            self.relieved_at = self.now_us;
            let open: Vec<Slot> = self.active.iter().flatten().map(|active| active.slot).collect();
            open.into_iter().for_each(|slot| self.queue_destage(slot));
        }
    }

    /// How long an event waits to be written, and how long a sleep may be during which nobody rings for one. Both come
    /// one after the other, and then the write and whatever holds it up: all of it within the write-behind time.
    fn write_behind_us(&self) -> u64 {
        write_behind_us(&self.options)
    }

    /// How old an event may become, unwritten, before producers are held back: what they add meanwhile has to be written
    /// too within the write-behind time, and nobody rings during a short sleep.
    fn age_max_us(&self) -> u64 {
        2 * self.write_behind_us()
    }

    /// Holds producers back while something has waited too long to be written, be it for a slow device or for its turn.
    fn watch_age(&mut self) {
        let waiting = !self.queue.is_empty() || self.deferred > 0 || self.handle.has_dirty();
        if !waiting && !self.commits.is_writing() && self.handle.unwritten.since_us().is_some() {
            self.handle.unwritten.clear();
            if self.handle.has_dirty() {
                self.handle.unwritten.begin(&self.clock);
            }
        }
        let behind = self.handle.unwritten.since_us().is_some_and(|since| self.now_us >= since + self.age_max_us());
        self.room_made |= self.handle.is_behind() && !behind;
        self.handle.set_behind(behind);
    }

    /// Reports when producers begin to be held back, be it for memory or for time, and when that is over.
    fn note_backpressure(&mut self) {
        let behind = self.handle.is_behind();
        let waiting_channels = self.backlogged.len();
        match (behind || waiting_channels > 0, self.held_back_since_us) {
            (true, None) => {
                self.held_back_since_us = Some(self.now_us);
                let memory_percent = self.pages.used_percent();
                tracing::debug!(shard = %self.handle.id, behind, waiting_channels, memory_percent, "backpressure begun");
            }
            (false, Some(since_us)) => {
                self.held_back_since_us = None;
                let elapsed_us = self.now_us.saturating_sub(since_us);
                tracing::debug!(shard = %self.handle.id, elapsed_us, "backpressure ended");
            }
            _ => {}
        }
    }

    /// Whether nothing stands in the way of another commit.
    fn can_commit(&self) -> bool {
        let busy = self.journal.is_rolling() || self.commits.has_barrier();
        !busy && self.commits.in_flight() < self.options.commit_depth
    }

    /// The next moment at which there is something to do without anything else happening.
    fn next_timer(&self) -> Option<u64> {
        // A deferred channel is in no queue: its events wait for its dat file, not for a moment.
        let waiting = !self.queue.is_empty() || !self.notes.is_empty() || self.handle.has_dirty();
        let held_back_at = self
            .handle
            .unwritten
            .since_us()
            .filter(|_| !self.handle.is_behind())
            .map(|since| since + self.age_max_us());
        let backlog_at = (!self.backlogged.is_empty()).then_some(self.now_us + BACKLOG_RETRY_US);
        let others = [held_back_at, backlog_at, self.held_until_us];
        self.timers
            .next(self.can_commit() && waiting && self.held_until_us.is_none())
            .into_iter()
            .chain(others.into_iter().flatten())
            .min()
    }

    fn fire_timers(&mut self) -> Result<(), Poisoned> {
        let due = |at: Option<u64>| at.is_some_and(|at| at <= self.now_us);
        let (flush, idle) = (due(self.timers.flush_at), due(self.timers.idle_at));
        let ages = due(self.timers.ages_at);
        let (retry, retry_spare) = (due(self.timers.space_retry_at), due(self.timers.spare_retry_at));
        if flush {
            self.timers.flush_at = None;
            self.flush_now = true;
        }
        if idle {
            self.timers.idle_at = None;
            self.leave_witness()?;
        }
        if ages {
            self.timers.ages_at = None;
            self.ages_due();
        }
        if retry {
            self.timers.space_retry_at = None;
            self.retry_space()?;
        }
        if retry_spare {
            self.timers.spare_retry_at = None;
            self.retry_spare()?;
        }
        Ok(())
    }

    /// Tries again what found no room. Appends are let in again once that has room.
    fn retry_space(&mut self) -> Result<(), Poisoned> {
        self.retries_in_vain += u32::from(self.handle.gives_up());
        self.retry_extents();
        let _more = self.destage()?;
        // What is let in must find a place in the journal.
        self.retry_spare()
    }

    /// After a while without a commit the last one gets its witness (design D6).
    fn arm_idle(&mut self) {
        let wanted = self.commits.durable > self.commits.witnessed && self.commits.pending.is_empty();
        if !wanted || !self.queue.is_empty() {
            self.timers.idle_at = None;
        } else if self.timers.idle_at.is_none() {
            self.timers.idle_at = Some(self.now_us + self.options.idle_witness.as_micros() as u64);
        }
    }

    fn leave_witness(&mut self) -> Result<(), Poisoned> {
        // The end of a clean journal is its last checkpoint.
        if self.closing || !self.commits.pending.is_empty() || self.journal.is_rolling() {
            return Ok(());
        }
        if self.journal.bytes_left() < crate::io::BLOCK_SIZE as u64 + self.journal_reserve() {
            // The roll's entry is a witness too.
            return self.begin_roll();
        }
        self.commit_entry(Kind::Idle, &ControlEntry::Witness, false);
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        // Latencies are of interest on a clock that runs.
        self.clock.steady_ns()
    }

    /// Whether everything that was published is durable.
    fn nothing_left_to_commit(&mut self) -> bool {
        let quiet = self.queue.is_empty() && !self.handle.has_dirty() && !self.handle.has_control();
        let quiet = quiet && self.notes.is_empty() && self.errands.is_empty() && self.reclaim.is_empty();
        let quiet = quiet && self.groups.is_empty();
        // A producer may still be copying what it reserved before the close.
        quiet && !self.commits.needs_flush() && self.deferred == 0 && self.all_are_settled()
    }

    /// Whether nothing more comes from any channel. A channel of which that is so once is not looked at again: with many a look at
    /// all of them in each turn would take longer than the close.
    fn all_are_settled(&mut self) -> bool {
        for slot in self.settled..self.active.len() {
            match &self.active[slot] {
                Some(active) if !is_settled(&active.channel) => return false,
                Some(_) if slot == self.settled => self.settled += 1,
                _ => {}
            }
        }
        true
    }

    /// Ends the shard once everything is durable and a checkpoint covers it.
    fn try_end(&mut self) -> Result<bool, Poisoned> {
        let end = (self.journal.number(), self.journal.offset());
        let nothing_left = self.nothing_left_to_commit();
        let is_final = nothing_left && self.checkpoint.is_final(end);
        if self.handle.no_space() && !is_final && self.ops.in_flight() == 0 && self.waits_for_space() {
            return self.try_end_without_space();
        }
        if !nothing_left {
            self.flush_now = true;
            return Ok(false);
        }
        let errands = self.making.is_some() || self.recycling.is_some() || self.age_look.is_some();
        let quiet = self.ops.in_flight() == 0 && self.commits.pending.is_empty() && !errands;
        let rolling = self.journal.is_rolling() && !self.journal.waits_to_roll();
        if !quiet || rolling || !is_final {
            self.flush_now |= !self.commits.pending.is_empty() && self.checkpoint.is_idle();
            return Ok(false);
        }
        self.ended = true;
        self.handle.set_clean_end(CleanEnd {
            segment: self.journal.number(),
            offset: self.journal.offset(),
            next_lsn: self.commits.next,
        });
        self.handle.set_closed();
        Ok(true)
    }

    /// Whether nothing goes on before there is room on disk: not even the checkpoint that would recycle a segment for the
    /// roll that waits for one.
    fn waits_for_space(&self) -> bool {
        let roll = self.journal.waits_to_roll() && self.lacks_spares() && self.making.is_none();
        self.timers.space_retry_at.is_some() || roll && self.checkpoint.waits_for_the_journal()
    }

    /// The disk is full, so no checkpoint can be taken. What is in the journal is safe there: the next open recovers it.
    /// What found no room even there cannot be kept, and those who wait for it are told. What waits for another place is
    /// waited for, as long as there is somebody who may make room.
    fn try_end_without_space(&mut self) -> Result<bool, Poisoned> {
        if self.nothing_left_to_commit() {
            self.ended = true;
            self.handle.set_closed();
            return Ok(true);
        }
        if self.journal.is_rolling() && self.pool.ready() == 0 {
            return Err(self.failure("journal roll", &journal_dir(self.handle.id), io::ErrorKind::StorageFull.into()));
        }
        if self.handle.gives_up() && self.retries_in_vain >= RETRIES_IN_VAIN_MAX {
            return Err(self.failure("close", &journal_dir(self.handle.id), io::ErrorKind::StorageFull.into()));
        }
        self.flush_now = true;
        Ok(false)
    }
}

/// Whether nothing more comes from a channel that is being closed.
fn is_settled(channel: &crate::channel::Channel) -> bool {
    channel.backlog.is_empty() && channel.tail.is_closed() && channel.tail.is_settled()
}

/// See [`Shard::write_behind_us`].
fn write_behind_us(options: &Options) -> u64 {
    options.write_behind.as_micros() as u64 / 5
}
