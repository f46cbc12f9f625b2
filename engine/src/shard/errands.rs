//! Rare changes for which a channel has to be at rest: a suffix is cut off, a channel is reset or deleted.
//!
//! ```text
//!  hold appends up, end the segment -> all is durable, destaged and sealed -> raise the epoch, durably (a cut only)
//!    -> commit the note, durably -> change what is in memory, let appends in again
//! ```
//!
//! One at a time. Since everything is sealed by then, a cut only moves the ends of sealed segments: no block that holds a
//! copy of anything is written again (design D5). No checkpoint begins between the note and the change in memory: it would
//! tell of the channel as it was, and be newer than the note.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Shard;
use super::active::{Active, ActiveSegment, Position, Sealing};
use super::handle::Slot;
use super::notes::NoteKind;
use super::reclaim::Dead;
use crate::channel::Life;
use crate::error::{ChangeError, Poisoned};
use crate::ids::{Epoch, Lsn, Seq};
use crate::read::offload::Offloaded;
use crate::request::Request;
use crate::store::checkpoint::{ChannelState, SegmentState};
use crate::tail::{Refusal, TailStart};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrandKind {
    /// The events from this one on go.
    CutOff(Seq),
    /// All events go, and sequences begin anew at 0.
    Reset,
    /// The channel goes.
    Delete,
}

#[derive(Debug)]
enum Stage {
    /// Appends are to be held up.
    Pausing,
    /// Everything is on its way to disk.
    Settling,
    /// The epoch is being raised.
    Raising(Offloaded<io::Result<Epoch>>),
    /// The note waits for its commit, or for that to become durable.
    Noted,
    /// It is durable.
    Durable(Lsn),
    /// Nothing is to be done any more.
    Over,
}

/// A change under way.
#[derive(Debug)]
pub struct Errand {
    slot: Slot,
    kind: ErrandKind,
    stage: Stage,
    /// Whether the channel was sent to disk since it is held up. Not told by `force_destage`, which bulk that was
    /// committed before may have left.
    pushed_out: bool,
    epoch: Epoch,
    request: Request,
}

/// Changes that wait for their turn; the first is under way.
#[derive(Debug, Default)]
pub struct Errands(VecDeque<Errand>);

impl Errands {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lines one up.
    pub fn push(&mut self, slot: Slot, kind: ErrandKind, request: Request) {
        self.0.push_back(Errand { slot, kind, stage: Stage::Pausing, pushed_out: false, epoch: Epoch(0), request });
    }

    /// Whether a change of the channel has gone so far that its head has to stay where it is until that is over.
    pub fn holds_trims_up(&self, slot: Slot) -> bool {
        let is_far = |errand: &Errand| matches!(errand.stage, Stage::Raising(_) | Stage::Noted | Stage::Durable(_));
        self.0.front().is_some_and(|errand| errand.slot == slot && is_far(errand))
    }

    /// Whether a note is on its way that a checkpoint must not overtake.
    pub fn holds_checkpoints_up(&self) -> bool {
        self.0.front().is_some_and(|errand| matches!(errand.stage, Stage::Noted | Stage::Durable(_)))
    }
}

impl Shard {
    /// Takes the next step of the first errand. Says whether it did something.
    pub(super) fn step_errands(&mut self) -> Result<bool, Poisoned> {
        let Some(mut errand) = self.errands.0.pop_front() else { return Ok(false) };
        if self.active.get(errand.slot as usize).is_none_or(Option::is_none) {
            // It was deleted by the errand before.
            let channel = self.handle.channel_name(errand.slot);
            errand.request.decide(Err(ChangeError::Closed { channel }));
            return Ok(true);
        }
        let (worked, over) = match errand.stage {
            Stage::Pausing => (self.pause(&mut errand), false),
            Stage::Settling => (self.settle(&mut errand), false),
            Stage::Raising(_) => (self.raise_epoch(&mut errand)?, false),
            Stage::Noted => (false, false),
            // A deleted channel may have been destaged meanwhile.
            Stage::Durable(_) if !self.io_has_ended(errand.slot) => (false, false),
            Stage::Durable(lsn) => (true, self.apply(&errand, lsn)),
            Stage::Over => (true, true),
        };
        if over {
            self.trim_as_asked(errand.slot);
        } else {
            self.errands.0.push_front(errand);
        }
        Ok(worked)
    }

    fn pause(&mut self, errand: &mut Errand) -> bool {
        let active = self.active[errand.slot as usize].as_ref().expect("looked at before");
        if active.group.is_some() || self.groups.has_yet_to_append(errand.slot) {
            // A batch that is half appended comes first.
            return false;
        }
        if errand.kind == ErrandKind::Delete {
            active.channel.set_life(Life::Ending);
            active.channel.backlog.close();
            active.channel.tail.close();
        } else {
            match active.channel.tail.pause() {
                Ok(newly_dirty) => {
                    if newly_dirty {
                        self.handle.push_dirty(errand.slot, &self.clock);
                    }
                }
                // Pages wait to be written: some have to leave first.
                Err(Refusal::Full) => {
                    self.push_out(errand.slot);
                    return false;
                }
                Err(Refusal::Closed | Refusal::OtherSeq(_)) => {}
            }
            // The segment that ended with this may have been written long ago.
            self.push_out(errand.slot);
        }
        errand.stage = Stage::Settling;
        true
    }

    /// Sees to it that all of the channel goes to disk.
    fn push_out(&mut self, slot: Slot) {
        self.flush_now = true;
        self.commit_now = true;
        self.active[slot as usize].as_mut().expect("looked at before").force_destage = true;
        self.queue_destage(slot);
    }

    fn settle(&mut self, errand: &mut Errand) -> bool {
        if !self.is_at_rest(errand) {
            let active = self.active[errand.slot as usize].as_ref().expect("looked at before");
            let channel = &active.channel;
            let to_commit = active.at.seq < channel.tail.published() || channel.durable() < channel.tail.published();
            let to_seal = errand.kind != ErrandKind::Delete && active.segment.first < channel.tail.published();
            let under_way = errand.pushed_out && active.force_destage;
            // One that the journal has yet to be told of waits in the queue, and nobody else may ask for a commit.
            let to_tell = active.untold;
            if to_commit || to_tell || to_seal && !under_way {
                self.push_out(errand.slot);
                errand.pushed_out = true;
            }
            return false;
        }
        if let Some(error) = self.out_of_range(errand) {
            let active = self.active[errand.slot as usize].as_ref().expect("looked at before");
            active.channel.tail.resume();
            self.room_made = true;
            errand.request.decide(Err(error));
            errand.stage = Stage::Over;
        } else if errand.kind == ErrandKind::Delete {
            self.note(errand.slot, NoteKind::Deleted);
            errand.stage = Stage::Noted;
        } else {
            let roots = self.handle.roots();
            errand.stage = Stage::Raising(self.file_maker.run(move || roots.raise_epoch()));
        }
        true
    }

    /// Another change that came before may have left no such position.
    fn out_of_range(&self, errand: &Errand) -> Option<ChangeError> {
        let ErrandKind::CutOff(end) = errand.kind else { return None };
        let channel = &self.active[errand.slot as usize].as_ref().expect("looked at before").channel;
        let (head, next) = (channel.head(), channel.tail.published());
        let noted = self.active[errand.slot as usize].as_ref().expect("looked at before").retention.noted();
        let bad = end < head.max(noted) || end > next;
        bad.then(|| ChangeError::OutOfRange { channel: channel.name.clone(), end: end.0, head: head.0, next: next.0 })
    }

    /// Whether none of the channel's files is in use.
    fn io_has_ended(&self, slot: Slot) -> bool {
        let active = self.active[slot as usize].as_ref().expect("looked at before");
        let writing = active.dat_busy || active.idx_busy || !matches!(active.sealing, Sealing::No);
        !writing && active.segment.opening.is_none()
    }

    /// Whether nothing of the channel is under way.
    fn is_at_rest(&self, errand: &Errand) -> bool {
        let active = self.active[errand.slot as usize].as_ref().expect("looked at before");
        let tail = &active.channel.tail;
        let quiet = self.io_has_ended(errand.slot) && !active.deferred && !active.untold;
        let named = |slot: &Slot| *slot == errand.slot;
        let pending = self.commits.pending.iter().any(|commit| commit.slots().any(|slot| named(&slot)));
        let pending = pending || self.notes.iter().any(|note| named(&note.slot));
        let settled = tail.is_settled() && active.at.seq == tail.published() && active.written.seq == active.at.seq;
        let durable = active.channel.durable() == tail.published();
        let sealed = errand.kind == ErrandKind::Delete || active.segment.first == tail.published();
        quiet && !pending && settled && durable && sealed && self.checkpoint.is_idle()
    }

    fn raise_epoch(&mut self, errand: &mut Errand) -> Result<bool, Poisoned> {
        let Stage::Raising(raising) = &mut errand.stage else { unreachable!("looked at before") };
        let Poll::Ready(raised) = Pin::new(raising).poll(&mut Context::from_waker(&self.errand_waker)) else {
            return Ok(false);
        };
        errand.epoch = self.checked("epoch write", "STORE", raised)?;
        if !self.checkpoint.is_idle() {
            // One has begun meanwhile: it goes first. A higher epoch than needed does no harm.
            errand.stage = Stage::Settling;
            return Ok(true);
        }
        let end = match errand.kind {
            ErrandKind::CutOff(end) => end,
            ErrandKind::Reset | ErrandKind::Delete => Seq(0),
        };
        self.cut_epoch = errand.epoch;
        self.note(errand.slot, NoteKind::CutOff(end));
        errand.stage = Stage::Noted;
        Ok(true)
    }

    /// The errand's note is durable.
    pub(super) fn errand_noted(&mut self, lsn: Lsn) {
        let errand = self.errands.0.front_mut().expect("an errand's note is its own");
        assert!(matches!(errand.stage, Stage::Noted), "a note is committed once");
        errand.stage = Stage::Durable(lsn);
    }

    /// Changes what is in memory. Says that it is done.
    fn apply(&mut self, errand: &Errand, lsn: Lsn) -> bool {
        let end = match errand.kind {
            ErrandKind::Delete => {
                self.delete(errand.slot, lsn);
                0
            }
            ErrandKind::Reset => self.cut_off(errand, Seq(0), lsn),
            ErrandKind::CutOff(end) => self.cut_off(errand, end, lsn),
        };
        errand.request.decide(Ok(end));
        true
    }

    fn cut_off(&mut self, errand: &Errand, end: Seq, lsn: Lsn) -> u64 {
        let slot = errand.slot;
        let active = self.active[slot as usize].as_mut().expect("looked at before");
        let gone = cut_segments(&mut active.segments, end);
        let channel = active.channel.clone();
        let persistence = channel.persistence().expect("a shard's channels are persistent");
        persistence.on_disk.cut_off(end);
        restart(active, end);
        channel.cut_off(end, errand.epoch);
        channel.tail.reset(TailStart { next: end, segment_first: end, ..TailStart::default() });
        channel.wake_after_cut();
        for first in gone {
            self.bury(slot, channel.id(), Dead::Segment(first), lsn);
        }
        self.handle.known_cut_off(channel.id(), end);
        self.handle.cold_due([channel.clone()]);
        // One that ends there now may lie below the head altogether.
        self.bury_after_cut(slot, lsn);
        self.room_made = true;
        tracing::info!(channel = %channel.name, end = %end, epoch = %errand.epoch, "suffix cut off");
        end.0
    }

    fn delete(&mut self, slot: Slot, lsn: Lsn) {
        let active = self.active[slot as usize].take().expect("looked at before");
        self.forget_notes(slot);
        active.retention.refuse_requests(&active.channel.name);
        self.queue.retain(|other| *other != slot);
        self.destage_queue.remove(slot);
        self.backlogged.retain(|other| *other != slot);
        self.changed.retain(|other| *other != slot);
        let channel = &active.channel;
        self.tombstones.push(ChannelState {
            id: channel.id().0,
            name: channel.name.as_str().to_owned(),
            config: channel.config.get().encode(),
            deleted: true,
            ..ChannelState::default()
        });
        self.bury(slot, channel.id(), Dead::Channel, lsn);
        self.handle.deleted(slot, channel.id());
        self.handle.cold_deleted(channel.id(), Some(channel));
        channel.set_life(Life::Over);
        channel.wake_after_cut();
        tracing::info!(channel = %channel.name, id = %channel.id(), "channel deleted");
    }
}

/// Ends the segments at `end`, and begins one there. Gives those that have nothing any more.
fn cut_segments(segments: &mut Vec<SegmentState>, end: Seq) -> Vec<Seq> {
    let mut gone = Vec::new();
    segments.retain_mut(|segment| {
        if segment.first >= end.0 {
            // The active one has nothing, and no files.
            if segment.sealed {
                gone.push(Seq(segment.first));
            }
            return false;
        }
        segment.end = segment.end.min(end.0);
        true
    });
    segments.push(SegmentState { first: end.0, end: end.0, dat_size: 0, sealed: false });
    gone
}

/// Begins a channel anew at `end`, as when it is opened.
fn restart(active: &mut Active, end: Seq) {
    let at = Position { seq: end, segment_first: end, ..Position::default() };
    (active.at, active.written, active.at_page) = (at, at, None);
    active.promised = end;
    (active.dat_page, active.dat_byte, active.destaged_total) = (0, 0, 0);
    (active.idx_next, active.idx_done, active.stubbed) = (end, end, end);
    active.force_destage = false;
    active.segment = ActiveSegment::new(end);
    active.recovered_tail = bytes::Bytes::new();
    active.retention.restart(end, &active.segments);
}
