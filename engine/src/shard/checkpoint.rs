//! The checkpoint: makes the journal below a point unnecessary (design D5).
//!
//! ```text
//!  begin: note where every changed channel stands (all commits below `lsn`), copy what fills no block
//!    -> destage the whole blocks up to there -> flush their files -> read the entries that move along
//!    -> write the checkpoint file, in slices -> flush it and its directory
//!    -> commit an entry that names the files in use -> recycle the journal below
//! ```
//!
//! Commits go on all the while. The newest entry of a channel counts; a file without such entries is removed, and living
//! entries of older files move along so that there are few files with few dead entries ([`super::checkpoint_files`],
//! [`super::checkpoint_moves`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Shard;
use super::active::{Active, Position, Sealing};
use super::checkpoint_moves::Moving;
use super::commit::{ControlEntry, Kind};
use super::handle::Slot;
use super::notes::{Note, NoteKind};
use super::ops::Purpose;
use super::stats::add;
use crate::channel::Channel;
use crate::error::Poisoned;
use crate::ids::{ByChannel, ChannelId, CheckpointNo, Lsn, SegmentNo, Seq, ShardId};
use crate::io::located::located;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, Durability, File, IoBuf, OpenMode, Operation};
use crate::journal::format::commit_size_checkpoint;
use crate::read::offload::Offloaded;
use crate::segment::block::RECORDS_PER_BLOCK;
use crate::segment::path::CHANNELS_DIR;
use crate::store::checkpoint::{
    ChannelState, CheckpointEncoder, CheckpointError, SegmentState, Tail, TailRef, load_tail,
};

/// Directory of all checkpoint files.
pub const CHECKPOINT_DIR: &str = "checkpoint";
/// Bytes of a checkpoint file written at once.
const SLICE_BYTES: usize = 256 << 10;
/// Journal bytes that are worth the flushes of one channel's files.
const BYTES_PER_CHANNEL: u64 = 256 << 10;
/// Flushes in flight before a checkpoint.
const FLUSHES: usize = 16;
/// Files that one of those threads flushes before it looks for other work.
const FLUSHED_AT_ONCE: usize = 8;

/// Directory of a shard's checkpoint files.
#[must_use]
pub fn checkpoint_dir(shard: ShardId) -> String {
    format!("{CHECKPOINT_DIR}/{:03}", shard.0)
}

/// A checkpoint file.
#[must_use]
pub fn checkpoint_path(shard: ShardId, number: CheckpointNo) -> String {
    format!("{CHECKPOINT_DIR}/{:03}/{}", shard.0, checkpoint_name(number))
}

/// Name of a checkpoint file in its directory.
#[must_use]
pub fn checkpoint_name(number: CheckpointNo) -> String {
    format!("{:020}.ckp", number.0)
}

/// The number in a checkpoint file's name; `None` if none has such a name.
#[must_use]
pub fn checkpoint_number(name: &str) -> Option<CheckpointNo> {
    let number = CheckpointNo(name.strip_suffix(".ckp")?.parse().ok()?);
    (number.0 > 0 && checkpoint_name(number) == name).then_some(number)
}

/// A channel's newest entry and where it lies.
#[derive(Clone, Debug)]
pub struct Located {
    /// The entry.
    pub state: Arc<ChannelState>,
    /// The file that has it.
    pub file: CheckpointNo,
}

/// The newest entries of a shard's channels. Shared with the door, which opens channels by them.
pub type Known = ByChannel<Located>;

/// Loads what fills no block of a channel.
pub fn load_located_tail(disk: &dyn Disk, shard: ShardId, located: &Located) -> Result<Tail, CheckpointError> {
    if located.state.tail.is_empty() {
        return Ok(Tail::default());
    }
    let path = checkpoint_path(shard, located.file);
    match disk.open(&path, OpenMode::Read) {
        Ok(file) => load_tail(&*file, &path, &located.state),
        Err(error) => Err(CheckpointError::Io { path, offset: 0, error }),
    }
}

/// Where a channel stood when the checkpoint began.
#[derive(Debug)]
struct Snapshot {
    slot: Slot,
    position: Position,
    /// Its head, as commits below the checkpoint's say: one that is written and not durable does not count yet, but it is
    /// not replayed either.
    head: Seq,
    segment_first: Seq,
    dat_size: u32,
    last_time_us: u64,
    tail: Tail,
}

/// A checkpoint under way.
#[derive(Debug)]
struct Run {
    /// Of the steady clock.
    begun_us: u64,
    number: CheckpointNo,
    lsn: Lsn,
    segment: SegmentNo,
    snapshots: Vec<Snapshot>,
    /// Deleted channels.
    tombstones: Vec<ChannelState>,
    /// What was dead at the beginning: gone before the end.
    dead: u64,
    /// Snapshots below have been destaged.
    destaged: usize,
    to_flush: Vec<Arc<dyn File>>,
    flushes: usize,
    /// Flushes beside the shard, each with its files.
    beside: Vec<Offloaded<io::Result<()>>>,
    states: Vec<ChannelState>,
    /// Entries of older files on their way.
    moving: Option<Moving>,
    /// Channels with their tails, moved along from older files.
    moved: Vec<(ChannelState, Tail)>,
    encoder: Option<CheckpointEncoder>,
    file: Option<Arc<dyn File>>,
    offset: u64,
    slice: Option<usize>,
    files_after: Vec<CheckpointNo>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Destaging(Box<Run>),
    Flushing(Box<Run>),
    Moving(Box<Run>),
    Writing(Box<Run>),
    FlushingFile(Box<Run>),
    /// The file is durable; its entry waits for the journal.
    Ready(Box<Run>),
    Committing(Box<Run>),
}

/// The checkpoint's state.
#[derive(Debug, Default)]
pub struct Checkpoint {
    stage: Stage,
    /// Journal bytes at the last beginning.
    begun_at: u64,
    /// Bytes of segments sealed since then that wait to go to the cold store: they go when a checkpoint covers them, and bulk
    /// that goes around the journal would never bring one.
    sealed_for_cold: u64,
    /// Where the journal ends with the entry of one that was begun when the shard had nothing more to commit.
    closing_end: Option<(SegmentNo, u64)>,
    /// Whether such a one is under way.
    closing_begun: bool,
    buf: Option<AlignedBuf>,
}

impl Checkpoint {
    /// Whether none is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Whether it can do nothing before the journal goes on.
    pub fn waits_for_the_journal(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Ready(_))
    }

    /// Whether the last one, which covers everything, is done, and nothing stands behind its entry in the journal, which
    /// ends here.
    pub fn is_final(&self, end: (SegmentNo, u64)) -> bool {
        self.is_idle() && self.closing_end == Some(end)
    }
}

impl Shard {
    /// Takes the next step of a checkpoint, or begins one if it is time. Says whether it did something.
    pub(super) fn step_checkpoint(&mut self) -> Result<bool, Poisoned> {
        if self.timers.space_retry_at.is_some() {
            return Ok(false);
        }
        match std::mem::take(&mut self.checkpoint.stage) {
            Stage::Idle => Ok(self.begin_checkpoint()),
            Stage::Destaging(run) => self.step_destaging(run),
            Stage::Flushing(run) => self.step_flushing(run),
            Stage::Moving(run) => self.step_moving(run),
            Stage::Writing(run) => self.step_writing(run),
            Stage::Ready(run) => self.step_ready(run),
            stage @ (Stage::FlushingFile(_) | Stage::Committing(_)) => {
                self.checkpoint.stage = stage;
                Ok(false)
            }
        }
    }

    fn begin_checkpoint(&mut self) -> bool {
        let bytes = self.journal.total() - self.checkpoint.begun_at;
        let sealed = self.checkpoint.sealed_for_cold;
        let due = bytes >= self.journal_worth_a_checkpoint() || sealed >= self.options.checkpoint_bytes;
        let end = (self.journal.number(), self.journal.offset());
        let last = self.closing && self.nothing_left_to_commit() && !self.checkpoint.is_final(end);
        // A roll that waits for a segment holds a checkpoint up only once it is under way.
        let rolling = self.journal.is_rolling() && !self.journal.waits_to_roll();
        if !(due || last || self.wants_recycling()) || rolling || self.errands.holds_checkpoints_up() {
            return false;
        }
        self.checkpoint.closing_begun = last;
        self.checkpoint.begun_at = self.journal.total();
        self.checkpoint.sealed_for_cold = 0;
        let lsn = self.commits.written;
        let changed = std::mem::take(&mut self.changed);
        let mut snapshots = Vec::with_capacity(changed.len());
        let trims = self.trims_below(lsn);
        for slot in changed {
            let mut active = self.active[slot as usize].take().expect("changed channels are open");
            active.changed = active.lsn > lsn;
            if active.changed {
                self.changed.push(slot);
            }
            let mut snapshot = self.snapshot(&active);
            let noted = trims.iter().filter(|(trimmed, _)| *trimmed == slot).map(|(_, head)| *head);
            snapshot.head = noted.fold(snapshot.head, Seq::max);
            snapshots.push(snapshot);
            active.force_destage = true;
            self.active[slot as usize] = Some(active);
            self.queue_destage(slot);
        }
        let run = Run {
            begun_us: self.now_us,
            number: self.checkpoint_files.next,
            lsn,
            segment: self.journal.segment_of(lsn),
            snapshots,
            tombstones: std::mem::take(&mut self.tombstones),
            dead: self.reclaim.handed_over(),
            destaged: 0,
            to_flush: Vec::new(),
            flushes: 0,
            beside: Vec::new(),
            states: Vec::new(),
            moving: None,
            moved: Vec::new(),
            encoder: None,
            file: None,
            offset: 0,
            slice: None,
            files_after: Vec::new(),
        };
        self.checkpoint_files.next = CheckpointNo(run.number.0 + 1);
        self.checkpoint.stage = Stage::Destaging(Box::new(run));
        true
    }

    /// Heads that commits below `lsn` note and that do not count yet.
    fn trims_below(&self, lsn: Lsn) -> Vec<(Slot, Seq)> {
        let below = self.commits.pending.iter().take_while(|commit| commit.lsn < lsn);
        let trimmed = |note: &Note| match note.kind {
            NoteKind::Trimmed(head) => Some((note.slot, head)),
            NoteKind::Configured(_) | NoteKind::CutOff(_) | NoteKind::Deleted => None,
        };
        below.flat_map(|commit| commit.notes()).filter_map(trimmed).collect()
    }

    /// Journal bytes from which a checkpoint is worth its flushes: two files for every channel that has changed. With many
    /// channels it waits, up to four times as long (design D5).
    fn journal_worth_a_checkpoint(&self) -> u64 {
        let least = self.options.checkpoint_bytes;
        (self.changed.len() as u64 * BYTES_PER_CHANNEL).clamp(least, least * 4)
    }

    /// Notes where a channel stands, and copies what fills no block.
    fn snapshot(&mut self, active: &Active) -> Snapshot {
        let position = active.written;
        // A page stays at least until something behind it is written.
        let page = active.channel.tail.page(position.page_no);
        let (segment_first, dat_size, bytes) = match &page {
            // Its page is the last of a segment that has been sealed: the next one begins here, and is empty.
            Some(page) if page.start().segment_first < active.segment.first => (active.segment.first, 0, Vec::new()),
            Some(page) => {
                let start = page.start();
                let byte = position.byte.max(start.prefix as usize);
                let floor = byte / BLOCK_SIZE * BLOCK_SIZE;
                (start.segment_first, start.dat_start + byte as u32, page.published_bytes(floor..byte).to_vec())
            }
            // Nothing was appended since the channel was opened.
            None => (active.segment.first, active.segment.dat_size.unwrap_or(0), active.recovered_tail.to_vec()),
        };
        let in_block = (position.seq.0 - segment_first.0) as usize % RECORDS_PER_BLOCK;
        let records = self.records(active, Seq(position.seq.0 - in_block as u64), in_block);
        let tail = Tail { records: records.clone(), bytes };
        self.record_scratch = records;
        let last_time_us = self.time_before(active, position.seq);
        let head = active.channel.head();
        Snapshot { slot: active.slot, position, head, segment_first, dat_size, last_time_us, tail }
    }

    /// Time of the event before this one.
    fn time_before(&self, active: &Active, seq: Seq) -> u64 {
        let Some(last) = seq.0.checked_sub(1) else { return 0 };
        match active.channel.tail.page_of(Seq(last)) {
            Some(page) => page.record((last - page.start().first_seq.0) as usize).time_us(),
            None => {
                let persistence = active.channel.persistence().expect("a shard's channels are persistent");
                persistence.on_disk.stub_record(Seq(last)).map_or(active.last_time_us, |record| record.time_us())
            }
        }
    }

    fn step_destaging(&mut self, mut run: Box<Run>) -> Result<bool, Poisoned> {
        while let Some(snapshot) = run.snapshots.get(run.destaged) {
            let active = self.active[snapshot.slot as usize].as_mut().expect("changed channels are open");
            if !is_destaged(active, snapshot) {
                active.force_destage = true;
                self.checkpoint.stage = Stage::Destaging(run);
                return Ok(false);
            }
            active.force_destage = false;
            let segment = &mut active.segment;
            for (file, dirty) in [(&segment.idx, &mut segment.idx_dirty), (&segment.dat, &mut segment.dat_dirty)] {
                if std::mem::take(dirty) {
                    run.to_flush.push(file.clone().expect("dirty files are open"));
                }
            }
            run.destaged += 1;
        }
        self.checkpoint.stage = Stage::Flushing(run);
        Ok(true)
    }

    fn step_flushing(&mut self, mut run: Box<Run>) -> Result<bool, Poisoned> {
        let mut worked = self.flush_beside(&mut run)?;
        while run.flushes < FLUSHES {
            let Some(file) = run.to_flush.pop() else { break };
            run.flushes += 1;
            worked = true;
            add(&self.handle.stats.checkpoint_flushes, 1);
            self.ops.submit(&mut *self.driver, Purpose::CheckpointFlush, Operation::Flush { file });
        }
        let done = run.flushes == 0 && run.to_flush.is_empty() && run.beside.is_empty();
        if done {
            self.compose_states(&mut run);
        }
        self.checkpoint.stage = if done { Stage::Moving(run) } else { Stage::Flushing(run) };
        Ok(worked || done)
    }

    /// Has many files flushed by the threads that make files, and sees which of those flushes have ended. The ring has one kernel
    /// worker for flushes: there each waits for the one before, and the file system commits its own journal for each. Flushes of several
    /// threads share that.
    fn flush_beside(&mut self, run: &mut Run) -> Result<bool, Poisoned> {
        let mut worked = false;
        let many = self.options.checkpoint_limits.flushed_beside.max(1);
        while run.to_flush.len() >= many && run.beside.len() < FLUSHES {
            let files = run.to_flush.split_off(run.to_flush.len().saturating_sub(FLUSHED_AT_ONCE));
            add(&self.handle.stats.checkpoint_flushes, files.len() as u64);
            let flush = move || files.iter().try_for_each(|file| file.flush().map_err(located(file.path())));
            run.beside.push(self.file_maker.run(flush));
            worked = true;
        }
        let mut failed = None;
        let mut context = Context::from_waker(&self.errand_waker);
        run.beside.retain_mut(|flush| match Pin::new(flush).poll(&mut context) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                worked = true;
                failed = failed.take().or(result.err());
                false
            }
        });
        match failed {
            Some(error) => Err(self.failure("segment flush", CHANNELS_DIR, error)),
            None => Ok(worked),
        }
    }

    /// A segment's file was flushed.
    pub(super) fn checkpoint_flushed(&mut self) {
        if let Stage::Flushing(run) = &mut self.checkpoint.stage {
            run.flushes -= 1;
        }
    }

    /// Makes the entries of the file.
    fn compose_states(&mut self, run: &mut Run) {
        for snapshot in &run.snapshots {
            let active = self.active[snapshot.slot as usize].as_ref().expect("changed channels are open");
            run.states.push(state_of(active, snapshot, run.lsn));
        }
        let lsn = run.lsn.0;
        run.states.extend(std::mem::take(&mut run.tombstones).into_iter().map(|state| ChannelState { lsn, ..state }));
    }

    fn step_writing(&mut self, mut run: Box<Run>) -> Result<bool, Poisoned> {
        if run.file.is_none() {
            if !self.begin_file(&mut run)? {
                self.checkpoint.stage = Stage::Writing(run);
                return Ok(false);
            }
            self.checkpoint.stage = Stage::Writing(run);
            return Ok(true);
        }
        if run.slice.is_some() {
            self.checkpoint.stage = Stage::Writing(run);
            return Ok(false);
        }
        let encoder = run.encoder.as_mut().expect("made with the file");
        let mut buf = self.checkpoint.buf.take().unwrap_or_else(|| AlignedBuf::new(SLICE_BYTES));
        let len = encoder.drain(&mut buf[..SLICE_BYTES]);
        let file = run.file.clone().expect("open");
        if len == 0 {
            self.checkpoint.buf = Some(buf);
            add(&self.handle.stats.checkpoint_flushes, 1);
            self.ops.submit(&mut *self.driver, Purpose::CheckpointFileFlush, Operation::Flush { file });
            self.checkpoint.stage = Stage::FlushingFile(run);
            return Ok(true);
        }
        run.slice = Some(len);
        add(&self.handle.stats.checkpoint_bytes, len as u64);
        let operation = Operation::Write {
            file,
            offset: run.offset,
            buf: IoBuf::Owned { buf, len },
            durability: Durability::Written,
        };
        self.ops.submit(&mut *self.driver, Purpose::CheckpointWrite, operation);
        self.checkpoint.stage = Stage::Writing(run);
        Ok(true)
    }

    /// Opens the file and encodes its content. `false` if there is no room on disk.
    fn begin_file(&mut self, run: &mut Run) -> Result<bool, Poisoned> {
        if run.encoder.is_none() {
            run.encoder = Some(self.encode(run));
            run.files_after = self.checkpoint_files.after(&self.handle.known(), run.number, run.ids());
        }
        let path = checkpoint_path(self.handle.id, run.number);
        let size = run.encoder.as_ref().expect("just made").bytes_left() as u64;
        let made = make_sized(&*self.disk, &path, size);
        run.file = self.found_space("making of a checkpoint file", &path, made)?;
        Ok(run.file.is_some())
    }

    /// Takes the next entries of older files along. Commits go on in between.
    fn step_moving(&mut self, mut run: Box<Run>) -> Result<bool, Poisoned> {
        let mut moving = match run.moving.take() {
            Some(moving) => moving,
            None => {
                let fresh = run.states.iter().map(|state| ChannelId(state.id)).collect();
                Moving::new(self.checkpoint_files.to_move(&self.handle.known(), &fresh))
            }
        };
        if moving.step(&*self.disk, self.handle.id, &mut self.checkpoint_files) {
            run.moving = Some(moving);
            self.checkpoint.stage = Stage::Moving(run);
            return Ok(true);
        }
        run.moved = moving.into_moved();
        self.step_writing(run)
    }

    fn encode(&self, run: &mut Run) -> CheckpointEncoder {
        let mut encoder = CheckpointEncoder::new(self.journal.header().uuid, self.handle.id, run.number);
        let mut offsets = Vec::with_capacity(run.states.len() + run.moved.len());
        for state in run.states.iter().chain(run.moved.iter().map(|(state, _)| state)) {
            offsets.push(encoder.push_state(state));
        }
        encoder.end_states();
        let base = encoder.tails_offset().expect("the states have ended");
        for (state, offset) in run.states.iter_mut().chain(run.moved.iter_mut().map(|(state, _)| state)).zip(offsets) {
            state.tail.offset = base + offset;
        }
        // Deleted channels come last, and have none.
        let fresh = run.states.iter().zip(run.snapshots.iter().map(|snapshot| &snapshot.tail));
        for (state, tail) in fresh.chain(run.moved.iter().map(|(state, tail)| (state, tail))) {
            if !state.tail.is_empty() {
                encoder.push_tail(state.id, &tail.records, &tail.bytes);
            }
        }
        encoder.finish();
        encoder
    }

    /// A slice of the file was written.
    pub(super) fn checkpoint_slice_written(&mut self, buf: Option<AlignedBuf>) {
        self.checkpoint.buf = buf;
        if let Stage::Writing(run) = &mut self.checkpoint.stage {
            run.offset += run.slice.take().expect("a slice was in flight") as u64;
        }
    }

    /// There was no room for a slice: the file is begun anew later.
    pub(super) fn checkpoint_found_no_space(&mut self) -> Result<(), Poisoned> {
        let Stage::Writing(run) = &mut self.checkpoint.stage else { unreachable!("a slice was in flight") };
        run.slice = None;
        run.offset = 0;
        run.file = None;
        let number = run.number;
        let mut run = match std::mem::take(&mut self.checkpoint.stage) {
            Stage::Writing(run) => run,
            _ => unreachable!("looked at above"),
        };
        run.encoder = Some(self.encode(&mut run));
        self.checkpoint.stage = Stage::Writing(run);
        let path = checkpoint_path(self.handle.id, number);
        let removed = self.disk.unlink(&path);
        self.checked("checkpoint removal", &path, removed)
    }

    /// The file is flushed: its name is made durable too.
    pub(super) fn checkpoint_file_flushed(&mut self) -> Result<(), Poisoned> {
        let Stage::FlushingFile(run) = std::mem::take(&mut self.checkpoint.stage) else {
            unreachable!("the file was being flushed");
        };
        let dir = checkpoint_dir(self.handle.id);
        let synced = self.disk.sync_dir(&dir);
        self.checked("checkpoint directory sync", &dir, synced)?;
        self.checkpoint.stage = Stage::Ready(run);
        Ok(())
    }

    /// Commits the entry that names the files, once the journal has room for it.
    fn step_ready(&mut self, run: Box<Run>) -> Result<bool, Poisoned> {
        if !self.reclaim.is_done(run.dead) {
            self.checkpoint.stage = Stage::Ready(run);
            return Ok(false);
        }
        let size = commit_size_checkpoint(run.files_after.len()) as u64;
        let left = self.journal.bytes_left();
        let waits_to_roll = self.journal.waits_to_roll();
        let rolls = self.journal.is_rolling() && !(waits_to_roll && self.lacks_spares());
        // What a roll that waits has left free is for this.
        let no_room = waits_to_roll && left < size + BLOCK_SIZE as u64;
        let busy = rolls || no_room || self.commits.has_barrier();
        if busy || self.commits.in_flight() >= self.options.commit_depth {
            self.checkpoint.stage = Stage::Ready(run);
            return Ok(false);
        }
        let wanted = (size + self.journal_reserve()).min(self.journal.segment_bytes() - BLOCK_SIZE as u64);
        if !waits_to_roll && left < wanted {
            self.checkpoint.stage = Stage::Ready(run);
            // Rolls, and comes back.
            self.begin_roll()?;
            return Ok(true);
        }
        let entry = ControlEntry::Checkpoint {
            replay_lsn: run.lsn,
            replay_segment: run.segment,
            files: run.files_after.clone(),
        };
        self.checkpoint.stage = Stage::Committing(run);
        self.commit_entry(Kind::Checkpoint, &entry, true);
        // A head that moved meanwhile is in the journal only, which nobody reads after a clean end.
        let all = self.changed.is_empty() && self.tombstones.is_empty();
        if std::mem::take(&mut self.checkpoint.closing_begun) && all {
            self.checkpoint.closing_end = Some((self.journal.number(), self.journal.offset()));
        }
        Ok(true)
    }

    /// The entry is durable: the files count, the journal below is not needed any more.
    pub(super) fn checkpoint_committed(&mut self) {
        let Stage::Committing(run) = std::mem::take(&mut self.checkpoint.stage) else {
            unreachable!("the entry was being committed");
        };
        let covered = self.channels_of(&run);
        let Run { begun_us, number, lsn, states, moved, files_after, offset, .. } = *run;
        let moved_count = moved.len() as u64;
        let changed = states.len();
        let states = states.into_iter().chain(moved.into_iter().map(|(state, _)| state));
        let dropped = self.checkpoint_files.take_in(&mut self.handle.known(), number, states);
        assert_eq!(self.checkpoint_files.files.len(), files_after.len(), "what the entry names is in use");
        for number in dropped {
            // Nothing names it any more: if it stays, the next open removes it.
            if let Err(error) = self.disk.unlink(&checkpoint_path(self.handle.id, number)) {
                tracing::warn!(shard = %self.handle.id, checkpoint = %number, %error, "old checkpoint file stays");
            }
        }
        self.replay_from = lsn;
        add(&self.handle.stats.checkpoints, 1);
        add(&self.handle.stats.checkpoint_moves, moved_count);
        let (shard, elapsed_us) = (self.handle.id, self.now_us.saturating_sub(begun_us));
        let (files, bytes) = (files_after.len(), offset);
        tracing::debug!(%shard, checkpoint = %number, %lsn, changed, moved = moved_count, files, bytes, elapsed_us, "checkpoint");
        self.handle.cold_due(covered);
    }

    /// A segment was sealed that has so many bytes.
    pub(super) fn sealed(&mut self, channel: &Channel, bytes: u64) {
        if self.handle.cold.get().is_some() && channel.config.get().cold().is_set() {
            self.checkpoint.sealed_for_cold += bytes;
        }
    }

    /// The channels that had changed; nobody asks for them in a store without a cold store.
    fn channels_of(&self, run: &Run) -> Vec<Arc<Channel>> {
        let slots = run.snapshots.iter().filter(|_| self.handle.cold.get().is_some()).map(|snapshot| snapshot.slot);
        slots.filter_map(|slot| Some(self.active[slot as usize].as_ref()?.channel.clone())).collect()
    }
}

impl Run {
    fn ids(&self) -> impl Iterator<Item = ChannelId> {
        let moved = self.moved.iter().map(|(state, _)| state);
        self.states.iter().chain(moved).map(|state| ChannelId(state.id))
    }
}

/// Makes a file with room for all that it will hold: a write that extends a file makes the ring call a kernel worker.
fn make_sized(disk: &dyn Disk, path: &str, size: u64) -> io::Result<Arc<dyn File>> {
    let file = disk.open(path, OpenMode::Create)?;
    match file.allocate(size) {
        Ok(()) => Ok(file),
        Err(error) => {
            drop(file);
            disk.unlink(path)?;
            Err(error)
        }
    }
}

/// Whether everything below the snapshot that fills blocks is written.
fn is_destaged(active: &Active, snapshot: &Snapshot) -> bool {
    if active.segment.first > snapshot.segment_first {
        return true;
    }
    if active.segment.first < snapshot.segment_first || !matches!(active.sealing, Sealing::No) {
        return false;
    }
    let position = &snapshot.position;
    let dat = active.dat_page > position.page_no
        || (active.dat_page == position.page_no && active.dat_byte >= position.byte / BLOCK_SIZE * BLOCK_SIZE);
    let in_block = (position.seq.0 - snapshot.segment_first.0) % RECORDS_PER_BLOCK as u64;
    dat && active.idx_done.0 >= position.seq.0 - in_block
}

/// The entry of a channel, as it stood at the snapshot.
fn state_of(active: &Active, snapshot: &Snapshot, lsn: Lsn) -> ChannelState {
    let end = snapshot.position.seq.0;
    let mut segments: Vec<SegmentState> =
        active.segments.iter().filter(|segment| segment.first <= snapshot.segment_first.0).copied().collect();
    // The segment may have grown, or been sealed, since: the entry tells how it was, and what came later is replayed.
    match segments.last_mut().filter(|segment| segment.first == snapshot.segment_first.0) {
        Some(segment) => {
            *segment = SegmentState { first: segment.first, end, dat_size: snapshot.dat_size, sealed: false }
        }
        None => {
            let first = snapshot.segment_first.0;
            segments.push(SegmentState { first, end, dat_size: snapshot.dat_size, sealed: false });
        }
    }
    let channel = &active.channel;
    // It may have moved since.
    let head = channel.head().max(snapshot.head).0.min(end);
    let epochs = channel.epochs.lock().expect("no panic while the lock is held");
    ChannelState {
        id: channel.id().0,
        name: channel.name.as_str().to_owned(),
        config: channel.config.get().encode(),
        lsn: lsn.0,
        head,
        end,
        last_time_us: snapshot.last_time_us,
        deleted: false,
        epochs: epochs.iter().map(|(epoch, first)| (epoch.0, first.0)).collect(),
        segments,
        idx_hash: 0,
        tail: TailRef {
            offset: 0,
            record_count: snapshot.tail.records.len() as u32,
            bytes_len: snapshot.tail.bytes.len() as u32,
        },
    }
}
