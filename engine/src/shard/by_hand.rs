//! What the simulator looks at beside a shard's turns.

use super::Shard;
use super::active::Position;
use super::handle::Slot;
use super::notes::{Note, NoteKind};
use crate::sim::{SimChange, SimCommit};

impl Shard {
    /// Operations submitted and not yet reaped.
    pub fn in_flight(&self) -> usize {
        self.driver.in_flight()
    }

    /// See [`ShardHandle::give_up_waiting`](super::handle::ShardHandle::give_up_waiting).
    pub fn give_up_waiting(&self) {
        self.handle.give_up_waiting();
    }

    /// Every commit since the store was opened, in order, and what it says of channels.
    pub fn commit_log(&self) -> &[SimCommit] {
        &self.commits.log
    }

    /// Keeps what the next commit says.
    pub(super) fn log_commit(&mut self, created: &[Slot], notes: &[Note], marks: &[(Slot, Position)]) {
        let begin = |slot: Slot| self.active[slot as usize].as_ref().map_or(0, |active| active.segment.first.0);
        let created = created.iter().map(|slot| (*slot, SimChange::Created { begin: begin(*slot) }));
        let notes = notes.iter().map(|note| {
            let change = match &note.kind {
                NoteKind::Configured(_) => SimChange::Configured,
                NoteKind::Trimmed(head) => SimChange::Trimmed(head.0),
                NoteKind::CutOff(end) => SimChange::CutOff(end.0),
                NoteKind::Deleted => SimChange::Deleted,
            };
            (note.slot, change)
        });
        let marks = marks.iter().map(|(slot, position)| (*slot, SimChange::Events(position.seq.0)));
        let name = |slot: Slot| {
            let active = self.active[slot as usize].as_ref().expect("committed channels are open");
            active.channel.name.clone()
        };
        let changes = created.chain(notes).chain(marks).map(|(slot, change)| (name(slot), change)).collect();
        self.commits.log.push(SimCommit { lsn: self.commits.next.0, changes });
    }
}
