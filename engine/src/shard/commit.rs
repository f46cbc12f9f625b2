//! The group commit: what is published becomes one write to the journal, and durable.
//!
//! ```text
//!  planned -> writing -> written ---------------------------------> durable (unflushed: with a later flush)
//!                  \---- (write alone is durable) ----------------> durable
//!                             \--> flushing (this and all before) -> durable
//! ```
//!
//! Promises: acknowledgements follow the order of LSNs; a commit is durable only when all before it are; no policy leaves
//! more than a bound unflushed.
//!
//! A durable commit with nothing unflushed before it is one write that is durable by itself. With extents, or with something
//! unflushed before it, all writes end first, then the files are flushed; where several commits may be under way, each extent is a
//! write that is durable by itself too.

use std::collections::VecDeque;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::Shard;
use super::active::{DestageTurn, Position};
use super::handle::Slot;
use super::notes::{Note, NoteKind};
use super::ops::{Extent, Purpose};
use super::plan::{Plan, Planned};
use super::stats::add;
use crate::error::Poisoned;
use crate::ids::{CheckpointNo, Epoch, Lsn, SegmentNo, Seq};
use crate::io::{AlignedBuf, BLOCK_SIZE, Durability, File, IoBuf, Operation};
use crate::journal::format::{COMMIT_HEADER_SIZE, CommitFields, EventsFields, MetaWriter, finish_commit};
use crate::sync::scheduled::atomic::{Ordering, fence};

/// Bytes of one commit at the most, padding included.
pub const COMMIT_BYTES_MAX: usize = 2 << 20;
/// Dat files with extents that are flushed one after the other by blocking calls; more are flushed side by side.
const BLOCKING_FLUSHES_MAX: usize = 2;
/// Bytes that the entry of a new channel takes beside name and configuration, at the most.
const CREATED_ENTRY_EXTRA: usize = 32;

/// How a commit becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Not by itself: with the next flush.
    Unflushed,
    /// Its write is durable by itself, and so is each extent's.
    DurableWrites,
    /// By flushes once it and all before are written.
    FlushAfter,
}

/// How far a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its writes are in flight.
    Writing,
    /// They have ended.
    Written,
    /// Flushes that cover it are in flight.
    Flushing,
    /// Survives a power cut.
    Durable,
}

/// What a commit holds besides events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events, or nothing but the wish to flush.
    Events,
    /// A witness.
    Idle,
    /// The end of a journal segment.
    Roll,
    /// Names checkpoint files.
    Checkpoint,
}

/// An entry of the shard's own, in a commit of its own.
#[derive(Clone, Debug)]
pub enum ControlEntry {
    /// Nothing: the commit is a witness.
    Witness,
    /// The journal goes on in this segment.
    Roll(SegmentNo),
    /// A checkpoint was written.
    Checkpoint {
        /// Commits below need no replay.
        replay_lsn: Lsn,
        /// The segment that holds it.
        replay_segment: SegmentNo,
        /// The files in use.
        files: Vec<CheckpointNo>,
    },
}

/// What a commit is made of.
struct Content<'a> {
    plan: &'a Plan,
    created: &'a [Slot],
    notes: &'a [Note],
    control: &'a ControlEntry,
}

/// A commit that is not durable yet.
#[derive(Debug)]
pub struct Commit {
    /// Its number.
    pub lsn: Lsn,
    kind: Kind,
    means: Means,
    /// How far it is.
    pub stage: Stage,
    /// Whether the channels know that it is written.
    applied: bool,
    ops_left: usize,
    /// Where each channel stands after it.
    marks: Vec<(Slot, Position)>,
    /// What it notes of channels.
    notes: Vec<Note>,
    /// Its header tells that commits below are durable.
    witnesses: Lsn,
    /// Extents: channel, end of the blocks in their page, and whether the page ends there.
    extents: Vec<(Slot, usize, bool)>,
    bytes: u64,
    submitted_ns: u64,
    /// With this commit everything is written that was published before this moment of the steady and the wall clock.
    covers_us: Option<(u64, u64)>,
}

/// Commits that are not durable yet, in order, and what is kept for the next ones.
#[derive(Debug)]
pub struct Commits {
    /// In order of LSN.
    pub pending: VecDeque<Commit>,
    /// LSN of the next commit.
    pub next: Lsn,
    /// Commits below are durable.
    pub durable: Lsn,
    /// Commits below are written.
    pub written: Lsn,
    /// What the newest header said about `durable`.
    pub witnessed: Lsn,
    /// The same, of headers that are durable themselves.
    pub witnessed_durably: Lsn,
    /// Dat files with extents that no flush has covered.
    pub unflushed_extents: Vec<Arc<dyn File>>,
    unflushed_bytes: u64,
    /// Extents that found no room and are to be written again, each with its dat file.
    refused_extents: Vec<(Extent, Arc<dyn File>)>,
    /// Extents that found no room and have not been written yet, those under way again among them.
    pub extents_without_space: usize,
    buffers: Vec<AlignedBuf>,
    spare_marks: Vec<Vec<(Slot, Position)>>,
    plan: Plan,
    created: Vec<Slot>,
    /// Every commit of this run and what it says of channels: what the simulator compares with.
    #[cfg(feature = "sim")]
    pub log: Vec<crate::sim::SimCommit>,
}

/// What the simulated disk counts a commit with these notes as.
#[cfg(any(test, feature = "sim"))]
fn step_kind_of(notes: &[Note]) -> Option<crate::io::sim::StepKind> {
    use crate::io::sim::StepKind;
    notes.iter().find_map(|note| match note.kind {
        NoteKind::Configured(_) => None,
        NoteKind::Trimmed(_) => Some(StepKind::Trim),
        NoteKind::CutOff(_) => Some(StepKind::CutOff),
        NoteKind::Deleted => Some(StepKind::Delete),
    })
}

#[cfg(any(test, feature = "sim"))]
impl Kind {
    /// What the simulated disk counts its write as, where the path alone does not tell.
    fn step_kind(self) -> Option<crate::io::sim::StepKind> {
        use crate::io::sim::StepKind;
        match self {
            Self::Roll => Some(StepKind::Roll),
            Self::Checkpoint => Some(StepKind::CheckpointEntry),
            Self::Events | Self::Idle => None,
        }
    }
}

impl Commits {
    /// The first commit of a run will be `next`; everything below is durable.
    pub fn new(next: Lsn) -> Self {
        Self {
            pending: VecDeque::new(),
            next,
            durable: next,
            written: next,
            witnessed: next,
            witnessed_durably: next,
            unflushed_extents: Vec::new(),
            unflushed_bytes: 0,
            refused_extents: Vec::new(),
            extents_without_space: 0,
            buffers: Vec::new(),
            spare_marks: Vec::new(),
            plan: Plan::default(),
            created: Vec::new(),
            #[cfg(feature = "sim")]
            log: Vec::new(),
        }
    }

    /// Commits whose I/O is under way.
    pub fn in_flight(&self) -> usize {
        self.pending.iter().filter(|commit| matches!(commit.stage, Stage::Writing | Stage::Flushing)).count()
    }

    /// Whether something is written that no flush covers or will cover.
    fn has_backlog(&self) -> bool {
        self.pending.iter().any(|commit| commit.means == Means::Unflushed)
    }

    /// How a commit behind these becomes durable, if it is to be by itself.
    fn means(&self, durable: bool) -> Means {
        match (durable, self.has_backlog()) {
            (false, _) => Means::Unflushed,
            (true, false) => Means::DurableWrites,
            (true, true) => Means::FlushAfter,
        }
    }

    /// Whether a commit waits for, or does, flushes that cover all before it.
    pub fn has_barrier(&self) -> bool {
        self.pending.iter().any(|commit| commit.means == Means::FlushAfter)
    }

    /// Whether nothing is under way: each commit that is not durable is written and waits for somebody's flush.
    pub fn are_written(&self) -> bool {
        self.pending.iter().all(|commit| commit.means == Means::Unflushed && commit.applied)
    }

    /// Whether the writes of a commit are under way.
    pub fn is_writing(&self) -> bool {
        self.pending.iter().any(|commit| commit.stage == Stage::Writing)
    }

    /// Whether something is not durable yet.
    pub fn needs_flush(&self) -> bool {
        self.pending.iter().any(|commit| commit.kind != Kind::Idle)
    }

    /// Takes a buffer back.
    pub fn reuse(&mut self, buf: AlignedBuf) {
        self.buffers.push(buf);
    }

    fn buffer(&mut self) -> AlignedBuf {
        self.buffers.pop().unwrap_or_else(|| AlignedBuf::new(COMMIT_BYTES_MAX))
    }
}

impl Shard {
    /// Begins a commit if there is a reason and room for one. Says whether it did.
    pub(super) fn commit(&mut self) -> Result<bool, Poisoned> {
        if !self.can_commit() || self.held_until_us.is_some() {
            return Ok(false);
        }
        let due = self.timers.write_behind_due(self.now_us);
        let has_some = !self.queue.is_empty() || !self.notes.is_empty() || self.groups.wants_commit();
        let events = has_some && (self.commit_now || due);
        if !events && !self.flush_backlog && !self.flush_now {
            self.commit_now = false;
            return Ok(false);
        }
        if !has_some && !self.commits.has_backlog() {
            // Nothing to flush; above all no reason to roll, behind the last checkpoint of a close. What is deferred comes
            // back, and is flushed then.
            (self.commit_now, self.flush_backlog) = (false, false);
            self.flush_now &= self.deferred > 0;
            return Ok(false);
        }
        let room = self.commit_room();
        if room < self.journal.room_wanted() {
            self.begin_roll()?;
            return Ok(false);
        }
        self.plan_commit(room)
    }

    /// Bytes for entries and payload in the next commit.
    fn commit_room(&self) -> usize {
        let left = self.journal.bytes_left().saturating_sub(self.journal_reserve()) as usize;
        left.min(COMMIT_BYTES_MAX).saturating_sub(COMMIT_HEADER_SIZE)
    }

    fn plan_commit(&mut self, room: usize) -> Result<bool, Poisoned> {
        let mut plan = std::mem::take(&mut self.commits.plan);
        let mut created = std::mem::take(&mut self.commits.created);
        created.clear();
        let segment_bytes = self.journal.segment_bytes();
        let is_largest = room >= largest_room(segment_bytes, self.journal_reserve());
        plan.reset(room, extent_bytes(self.options.extent_bytes, segment_bytes), is_largest);
        let notes = self.plan_notes(&mut plan);
        let alone = notes.iter().any(|note| matches!(note.kind, NoteKind::CutOff(_)));
        let mut wanted = self.flush_now || self.flush_backlog || !notes.is_empty() || self.wants_durable_witness();
        let mut marks = self.commits.spare_marks.pop().unwrap_or_default();
        let mut no_room = !self.notes.is_empty();
        let mut group = if alone { None } else { self.plan_group(&mut plan, &mut marks) };
        wanted |= group.is_some();
        for _ in 0..if alone { 0 } else { self.queue.len() } {
            self.expect_plan();
            let slot = self.queue.pop_front().expect("as many as counted");
            let active = self.active[slot as usize].as_mut().expect("queued channels are open");
            let before = active.at;
            let mut planned = Planned::NoRoom;
            if !active.untold || tell(active, &mut created, &mut plan) {
                planned = plan.add(active);
            }
            wanted |= active.at.seq > before.seq && active.channel.wanted() > active.promised;
            if active.at.seq > before.seq {
                marks.push((slot, active.at));
            }
            active.queued = planned == Planned::NoRoom;
            active.deferred = planned == Planned::Deferred;
            match planned {
                Planned::All => {}
                Planned::Deferred => {
                    active.force_destage = true;
                    self.deferred += 1;
                    self.queue_destage_at(slot, DestageTurn::First);
                }
                Planned::NoRoom => {
                    no_room = true;
                    // What needs the whole room of a commit comes first in the next one.
                    match marks.last().is_some_and(|(marked, _)| *marked == slot) {
                        true => self.queue.push_back(slot),
                        false => self.queue.push_front(slot),
                    }
                    break;
                }
            }
        }
        if group.is_none() && !alone {
            group = self.plan_group(&mut plan, &mut marks);
            wanted |= group.is_some();
        }
        // It comes first in the next one, which has more room.
        no_room |= plan.group_lacks_room;
        // A cut stands alone, and what stands behind a batch goes into the next one.
        no_room |= !self.queue.is_empty();
        let nothing = plan.pieces.is_empty() && created.is_empty() && notes.is_empty();
        let flush_only = nothing && wanted && self.commits.has_backlog();
        let begun = if nothing && !flush_only {
            marks.clear();
            self.commits.spare_marks.push(marks);
            if no_room {
                // Not even one event fits what is left of this segment.
                self.begin_roll()?;
            }
            false
        } else {
            let means = self.means_of(&plan, wanted);
            let content = Content { plan: &plan, created: &created, notes: &notes, control: &ControlEntry::Witness };
            self.submit_commit(Kind::Events, means, &content, marks);
            let submitted = self.commits.pending.back_mut().expect("just submitted");
            submitted.notes = notes;
            let lsn = submitted.lsn;
            if let Some(group) = group {
                self.group_committed(&group, lsn);
            }
            if !no_room && self.deferred == 0 {
                let commit = self.commits.pending.back_mut().expect("just submitted");
                commit.covers_us = Some((self.now_us, self.gathered_wall_us));
            }
            true
        };
        self.commits.plan = plan;
        self.commits.created = created;
        if !no_room {
            self.commit_now = false;
            self.timers.write_behind_at = None;
        }
        if begun && wanted || !self.commits.has_backlog() {
            self.flush_backlog = false;
            self.flush_now &= no_room || self.deferred > 0;
        }
        Ok(begun)
    }

    /// Asks for the cache lines of the channels that are planned next: their producers wrote them on other cores.
    fn expect_plan(&self) {
        let ahead = |count| self.queue.get(count).and_then(|slot| self.active[*slot as usize].as_deref());
        if let Some(page) = ahead(8).and_then(|active| active.at_page.as_deref()) {
            page.expect_look();
        }
        if let Some(active) = ahead(4)
            && let Some(page) = active.at_page.as_deref()
        {
            page.expect_read(active.at.slot, active.at.byte);
        }
    }

    /// How the next commit becomes durable, if it is to.
    fn means(&self, wanted: bool) -> Means {
        let bounded = self.commits.unflushed_bytes >= self.options.unflushed_bytes_max;
        self.commits.means(wanted || bounded)
    }

    /// The same, of a commit with events. One write and its flush by a blocking call are as quick as they can be; with an extent
    /// beside it both are written first, and then flushed.
    fn means_of(&self, plan: &Plan, wanted: bool) -> Means {
        let means = self.means(wanted);
        let has_extents = plan.pieces.iter().any(|piece| piece.extent.is_some());
        match means {
            Means::DurableWrites if has_extents && self.options.commit_depth == 1 => Means::FlushAfter,
            other => other,
        }
    }

    /// Writes a commit without events, if nothing is in flight that it would have to wait for.
    pub(super) fn commit_entry(&mut self, kind: Kind, entry: &ControlEntry, durable: bool) {
        let plan = Plan::default();
        let marks = self.commits.spare_marks.pop().unwrap_or_default();
        let means = self.commits.means(durable);
        let content = Content { plan: &plan, created: &[], notes: &[], control: entry };
        self.submit_commit(kind, means, &content, marks);
    }

    fn submit_commit(&mut self, kind: Kind, means: Means, content: &Content<'_>, marks: Vec<(Slot, Position)>) {
        #[cfg(any(test, feature = "sim"))]
        let _label = crate::io::sim::StepLabel::begin(kind.step_kind().or(step_kind_of(content.notes)));
        #[cfg(feature = "sim")]
        self.log_commit(content.created, content.notes, &marks);
        let plan = content.plan;
        let lsn = self.commits.next;
        self.commits.next = Lsn(lsn.0 + 1);
        let mut commit = Commit {
            lsn,
            kind,
            means,
            stage: Stage::Writing,
            applied: false,
            ops_left: 1,
            marks,
            notes: Vec::new(),
            witnesses: self.commits.durable,
            extents: Vec::new(),
            bytes: 0,
            submitted_ns: self.now_ns(),
            covers_us: None,
        };
        self.promise(&commit, content);
        let durability = if means == Means::DurableWrites { Durability::Durable } else { Durability::Written };
        self.submit_extents(&mut commit, plan, durability);
        let mut buf = self.commits.buffer();
        let (len, inline) = self.compose(&mut buf, lsn, content);
        commit.bytes += len as u64;
        self.count_commit(&commit, plan, len, inline);
        let (file, offset) = self.journal.advance(len as u64);
        let buf = IoBuf::Owned { buf, len };
        let operation = Operation::Write { file, offset, buf, durability };
        self.ops.submit(&mut *self.driver, Purpose::CommitWrite(lsn), operation);
        self.commits.witnessed = self.commits.durable;
        if means == Means::Unflushed {
            self.commits.unflushed_bytes += commit.bytes;
        }
        self.commits.pending.push_back(commit);
        self.timers.idle_at = None;
    }

    /// Notes which events this commit will make durable.
    fn promise(&mut self, commit: &Commit, content: &Content<'_>) {
        let marks = commit.marks.iter().map(|(slot, position)| (slot, Some(position)));
        let others = content.created.iter().chain(content.notes.iter().map(|note| &note.slot));
        for (slot, position) in marks.chain(others.map(|slot| (slot, None))) {
            let active = self.active[*slot as usize].as_mut().expect("committed channels are open");
            active.lsn = Lsn(commit.lsn.0 + 1);
            if !std::mem::replace(&mut active.changed, true) {
                self.changed.push(*slot);
            }
            let Some(position) = position else { continue };
            if commit.means != Means::Unflushed {
                active.promised = position.seq;
            }
        }
        if commit.means == Means::FlushAfter {
            for (slot, position) in self.commits.pending.iter().flat_map(|earlier| &earlier.marks) {
                let active = self.active[*slot as usize].as_mut().expect("committed channels are open");
                active.promised = active.promised.max(position.seq);
            }
        }
    }

    fn submit_extents(&mut self, commit: &mut Commit, plan: &Plan, durability: Durability) {
        for piece in &plan.pieces {
            let Some(extent) = &piece.extent else { continue };
            let active = self.active[piece.slot as usize].as_mut().expect("committed channels are open");
            let file = active.segment.dat.clone().expect("opened before an extent is planned");
            if piece.completes_page {
                piece.page.pad();
            }
            active.dat_busy = true;
            active.segment.dat_dirty = true;
            let space = &active.segment.dat_space;
            let mut from = extent.start;
            while from < extent.end {
                let start = u64::from(piece.page.start().dat_start);
                let to = (space.cut(start + from as u64, start + extent.end as u64) - start) as usize;
                let page = piece.page.clone();
                let written = Extent { lsn: commit.lsn, page, blocks: from..to, durability, again: false };
                let operation = written.operation(file.clone());
                self.ops.submit(&mut *self.driver, Purpose::CommitExtent(written), operation);
                commit.ops_left += 1;
                from = to;
                if durability == Durability::Durable {
                    add(&self.handle.stats.extent_flushes, 1);
                }
            }
            commit.bytes += extent.len() as u64;
            commit.extents.push((piece.slot, extent.end, piece.completes_page));
            let stats = &self.handle.stats;
            add(&stats.extents, 1);
            add(&stats.extent_bytes, extent.len() as u64);
            if durability == Durability::Written
                && !self.commits.unflushed_extents.iter().any(|other| Arc::ptr_eq(other, &file))
            {
                self.commits.unflushed_extents.push(file);
            }
        }
    }

    /// Lays the commit out in the buffer. Returns its size, whole blocks, and the payload bytes that lie inside records.
    fn compose(&mut self, buf: &mut AlignedBuf, lsn: Lsn, content: &Content<'_>) -> (usize, usize) {
        const FITS: &str = "the plan keeps to the room";
        let mut meta = MetaWriter::new(&mut buf[COMMIT_HEADER_SIZE..]);
        for slot in content.created {
            let channel = &self.active[*slot as usize].as_ref().expect("told channels are open").channel;
            meta.channel_created(channel.id(), channel.name.as_str(), &channel.config.get().encode()).expect(FITS);
        }
        for note in content.notes {
            self.write_note(note, &mut meta);
        }
        match content.control {
            ControlEntry::Witness => {}
            ControlEntry::Roll(next) => meta.roll(*next).expect(FITS),
            ControlEntry::Checkpoint { replay_lsn, replay_segment, files } => {
                meta.checkpoint(*replay_lsn, *replay_segment, files).expect(FITS);
            }
        }
        let mut inline = 0;
        for piece in &content.plan.pieces {
            let start = piece.page.start();
            let active = self.active[piece.slot as usize].as_ref().expect("committed channels are open");
            let extent = piece.extent.as_ref().map_or((0, 0), |e| (start.dat_start + e.start as u32, e.len() as u32));
            let fields = EventsFields {
                channel: active.channel.id(),
                first: Seq(start.first_seq.0 + piece.slots.start as u64),
                segment_first: start.segment_first,
                dat_offset: start.dat_start + piece.inline.start as u32,
                inline_len: piece.inline.len() as u32,
                extent_offset: extent.0,
                extent_len: extent.1,
            };
            let records = meta.begin_events(&fields, piece.slots.len()).expect(FITS);
            piece.page.with_records(piece.slots.clone(), |from| {
                records.copy_from_slice(from.as_bytes());
                inline += from.iter().map(|record| record.inline_len().unwrap_or(0)).sum::<usize>();
            });
        }
        let (meta_len, entry_count) = (meta.len(), meta.entry_count());
        let mut at = COMMIT_HEADER_SIZE + meta_len;
        for piece in &content.plan.pieces {
            let bytes = piece.page.published_bytes(piece.inline.clone());
            buf[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        let fields = CommitFields {
            lsn,
            durable_lsn: self.commits.durable,
            epoch: self.epoch_of(content.notes),
            offset: self.journal.offset() as u32,
            meta_len: meta_len as u32,
            payload_len: (at - COMMIT_HEADER_SIZE - meta_len) as u32,
            entry_count,
        };
        (finish_commit(&mut buf[..], self.journal.context(), &fields), inline)
    }

    /// A cut is committed in the epoch that was raised for it, everything else in that of the run.
    fn epoch_of(&self, notes: &[Note]) -> Epoch {
        let cuts = notes.iter().any(|note| matches!(note.kind, NoteKind::CutOff(_)));
        if cuts { self.cut_epoch } else { self.journal.header().epoch }
    }

    fn count_commit(&mut self, commit: &Commit, plan: &Plan, len: usize, inline: usize) {
        let stats = &self.handle.stats;
        let events: usize = plan.pieces.iter().map(|piece| piece.slots.len()).sum();
        let payload = inline + plan.pieces.iter().map(|piece| piece.dat_bytes).sum::<usize>();
        add(&stats.journal_bytes, len as u64);
        add(&stats.payload_bytes, payload as u64);
        add(&stats.events, events as u64);
        match commit.kind {
            Kind::Idle => return add(&stats.idle_commits, 1),
            Kind::Roll | Kind::Checkpoint if commit.means != Means::Unflushed => add(&stats.checkpoint_flushes, 1),
            Kind::Events if commit.means != Means::Unflushed => add(&stats.flushes, 1),
            _ => {}
        }
        add(&stats.commits, 1);
        let depth = self.commits.in_flight() as u64 + 1;
        let mut histograms = stats.histograms.lock().expect("no panic while the lock is held");
        if events > 0 {
            histograms.events.saturating_record(events as u64);
        }
        histograms.bytes.saturating_record(len as u64);
        histograms.depth.saturating_record(depth);
    }

    /// There was no room for an extent: the commit waits, and with it the acknowledgement of all behind it.
    pub(super) fn extent_found_no_space(&mut self, mut extent: Extent, file: Arc<dyn File>) {
        self.commits.extents_without_space += usize::from(!extent.again);
        extent.again = true;
        self.commits.refused_extents.push((extent, file));
    }

    /// Writes again the extents that found no room. The first write of each has ended: no block is in flight twice.
    pub(super) fn retry_extents(&mut self) {
        for (extent, file) in std::mem::take(&mut self.commits.refused_extents) {
            let operation = extent.operation(file);
            self.ops.submit(&mut *self.driver, Purpose::CommitExtent(extent), operation);
        }
    }

    /// An extent was written.
    pub(super) fn extent_ended(&mut self, extent: &Extent) -> Result<(), Poisoned> {
        if extent.again {
            self.commits.extents_without_space -= 1;
            self.retries_in_vain = 0;
            self.space_was_found();
        }
        self.commit_op_ended(extent.lsn)
    }

    /// A write or flush of a commit has ended.
    pub(super) fn commit_op_ended(&mut self, lsn: Lsn) -> Result<(), Poisoned> {
        let index = (lsn.0 - self.commits.pending.front().expect("it is pending").lsn.0) as usize;
        let commit = &mut self.commits.pending[index];
        commit.ops_left -= 1;
        if commit.ops_left > 0 {
            return Ok(());
        }
        match (commit.stage, commit.means) {
            (Stage::Writing, Means::DurableWrites) => commit.stage = Stage::Durable,
            (Stage::Writing, _) => commit.stage = Stage::Written,
            (Stage::Flushing, _) => self.flushed(index),
            (Stage::Written | Stage::Durable, _) => unreachable!("nothing of it is in flight"),
        }
        self.apply_written();
        self.flush_if_due()?;
        self.acknowledge();
        Ok(())
    }

    /// Tells the channels what is written, in order.
    fn apply_written(&mut self) {
        for index in 0..self.commits.pending.len() {
            let commit = &mut self.commits.pending[index];
            if commit.stage == Stage::Writing {
                break;
            }
            if commit.applied {
                continue;
            }
            commit.applied = true;
            if let Some((since_us, since_wall_us)) = commit.covers_us {
                self.handle.unwritten.set(since_us, since_wall_us);
                // Those that were held back may be let in.
                self.room_made |= !self.backlogged.is_empty();
            }
            let lsn = commit.lsn;
            let marks = std::mem::take(&mut commit.marks);
            let extents = std::mem::take(&mut commit.extents);
            for (slot, end, completes_page) in extents {
                self.extent_written(slot, end, completes_page);
            }
            for (slot, position) in &marks {
                let active = self.active[*slot as usize].as_mut().expect("committed channels are open");
                active.written = *position;
                active.channel.set_written(position.seq);
                let active = self.active[*slot as usize].as_ref().expect("committed channels are open");
                if self.has_to_destage(active) {
                    self.queue_destage(*slot);
                }
                self.look_at_retention(*slot);
                self.trim_as_asked(*slot);
                self.bury_below_head(*slot);
            }
            self.commits.pending[index].marks = marks;
            self.commits.written = Lsn(lsn.0 + 1);
        }
    }

    /// Flushes what the first commit that asks for it has to cover, once all before it are written.
    fn flush_if_due(&mut self) -> Result<(), Poisoned> {
        let Some(index) = self.commits.pending.iter().position(|commit| commit.means == Means::FlushAfter) else {
            return Ok(());
        };
        if self.commits.pending[index].stage != Stage::Written || !self.commits.pending[index].applied {
            return Ok(());
        }
        let journal = self.journal.file();
        let files = std::mem::take(&mut self.commits.unflushed_extents);
        add(&self.handle.stats.extent_flushes, files.len() as u64);
        let commit = &mut self.commits.pending[index];
        commit.stage = Stage::Flushing;
        let nothing_beside = files.is_empty() && self.ops.in_flight() == 0;
        if nothing_beside || files.len() <= BLOCKING_FLUSHES_MAX && self.options.commit_depth == 1 {
            // No commit to overlap with: blocking calls are cheaper than kernel workers.
            for file in &files {
                self.checked("extent flush", file.path(), file.flush())?;
            }
            self.checked("journal flush", journal.path(), journal.flush())?;
            self.flushed(index);
            return Ok(());
        }
        let commit = &mut self.commits.pending[index];
        commit.ops_left = 1 + files.len();
        let lsn = commit.lsn;
        for file in files.into_iter().chain([journal]) {
            self.ops.submit(&mut *self.driver, Purpose::CommitFlush(lsn), Operation::Flush { file });
        }
        Ok(())
    }

    /// The flushes of a commit have ended: it and all before it are durable.
    fn flushed(&mut self, index: usize) {
        for commit in self.commits.pending.iter_mut().take(index + 1) {
            commit.stage = Stage::Durable;
        }
    }

    /// Moves the durable marks and wakes those who wait, in order.
    fn acknowledge(&mut self) {
        while self.commits.pending.front().is_some_and(|commit| commit.stage == Stage::Durable && commit.applied) {
            let mut commit = self.commits.pending.pop_front().expect("there is a front");
            self.commits.durable = Lsn(commit.lsn.0 + 1);
            self.commits.witnessed_durably = self.commits.witnessed_durably.max(commit.witnesses);
            if commit.means == Means::Unflushed {
                self.commits.unflushed_bytes = self.commits.unflushed_bytes.saturating_sub(commit.bytes);
            } else if commit.kind == Kind::Events {
                let elapsed = self.now_ns().saturating_sub(commit.submitted_ns);
                self.handle.note_commit(elapsed);
                let mut histograms = self.handle.stats.histograms.lock().expect("no panic while the lock is held");
                histograms.latency_ns.saturating_record(elapsed.max(1));
            }
            let notes = commit.take_notes();
            let mut marks = commit.marks;
            for (slot, position) in &marks {
                let active = self.active[*slot as usize].as_ref().expect("committed channels are open");
                active.channel.set_durable(position.seq, position.bytes_total);
            }
            // All marks first: who is woken by one finds the others moved too, and makes one burst of what he appends next.
            fence(Ordering::SeqCst);
            let mut tasks = 0;
            for (slot, position) in marks.drain(..) {
                let active = self.active[slot as usize].as_ref().expect("committed channels are open");
                tasks += active.channel.wake_durable(position.seq);
                self.timers.note_policy(&active.channel, self.now_us);
            }
            self.commits.spare_marks.push(marks);
            let was_awaited = commit.kind == Kind::Events && commit.means != Means::Unflushed;
            if was_awaited && self.options.commit_depth == 1 {
                self.regroup.acknowledged(self.clock.steady_us(), tasks);
            }
            // Whoever waits for these finds the marks moved.
            self.notes_durable(notes, commit.lsn);
            self.groups.durable(self.commits.durable);
            match commit.kind {
                Kind::Roll => self.rolled(),
                Kind::Checkpoint => self.checkpoint_committed(),
                Kind::Events => self.retries_in_vain = 0,
                Kind::Idle => {}
            }
        }
    }
}

impl Commit {
    /// What it notes of channels.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Takes its notes.
    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The channels that it is about.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.marks.iter().map(|(slot, _)| *slot).chain(self.notes.iter().map(|note| note.slot))
    }
}

/// Bytes for entries and payload in a commit at the beginning of a segment of which `reserve` bytes stay free.
pub fn largest_room(segment_bytes: u64, reserve: u64) -> usize {
    let left = segment_bytes.saturating_sub(BLOCK_SIZE as u64 + reserve) as usize;
    left.min(COMMIT_BYTES_MAX).saturating_sub(COMMIT_HEADER_SIZE)
}

/// Bytes from which a page's new blocks go by extent: with small segments less than was `set`.
pub fn extent_bytes(set: usize, segment_bytes: u64) -> usize {
    set.min(segment_bytes as usize / 4)
}

/// Notes that the commit tells of a new channel. `false` if there is no room.
fn tell(active: &mut super::active::Active, created: &mut Vec<Slot>, plan: &mut Plan) -> bool {
    let size = CREATED_ENTRY_EXTRA + active.channel.name.as_str().len() + active.channel.config.get().encode().len();
    if plan.room < size {
        return false;
    }
    plan.room -= size;
    // The next commit has more room: a batch that fits there is not split here.
    plan.is_largest = false;
    created.push(active.slot);
    active.untold = false;
    true
}
