//! Entries about channels, beside their events: settings changed, head trimmed, suffix cut off, channel deleted.
//!
//! A note goes into the next commit, before its events, and that commit is made durable. What it says counts from then on:
//! so no crash takes back what anybody has seen of it.

use super::Shard;
use super::handle::Slot;
use super::plan::Plan;
use crate::error::ChangeError;
use crate::ids::{Lsn, Seq};
use crate::journal::format::{MetaWriter, NOTE_ENTRY_SIZE_MAX};
use crate::request::Request;

/// What is to be noted of a channel.
#[derive(Clone, Debug)]
pub enum NoteKind {
    /// Its settings, as they are.
    Configured(Request),
    /// Its head lies here now.
    Trimmed(Seq),
    /// It ends here now.
    CutOff(Seq),
    /// It is gone.
    Deleted,
}

/// A note, and of which channel.
#[derive(Clone, Debug)]
pub struct Note {
    /// Whose.
    pub slot: Slot,
    /// What.
    pub kind: NoteKind,
}

impl Shard {
    /// Notes something of a channel.
    pub(super) fn note(&mut self, slot: Slot, kind: NoteKind) {
        self.notes.push_back(Note { slot, kind });
        self.commit_now = true;
    }

    /// Takes back what is to be noted of a channel that is gone.
    pub(super) fn forget_notes(&mut self, slot: Slot) {
        let channel = self.handle.channel_name(slot);
        self.notes.retain(|note| {
            if let (true, NoteKind::Configured(request)) = (note.slot == slot, &note.kind) {
                request.decide(Err(ChangeError::Closed { channel: channel.clone() }));
            }
            note.slot != slot
        });
    }

    /// Takes the notes that have room in the next commit. One about a channel that the journal has yet to be told of waits
    /// for that, and those behind it wait too.
    pub(super) fn plan_notes(&mut self, plan: &mut Plan) -> Vec<Note> {
        let mut planned = Vec::new();
        while let Some(note) = self.notes.front() {
            let active =
                self.active[note.slot as usize].as_ref().expect("a channel is there while something is noted of it");
            let size = note_size(note, active);
            if active.untold || plan.room < size {
                break;
            }
            plan.room -= size;
            // The next commit has more room: a batch that fits there is not split here.
            plan.is_largest = false;
            planned.push(self.notes.pop_front().expect("there is a front"));
        }
        planned
    }

    /// Writes a note's entry.
    pub(super) fn write_note(&self, note: &Note, meta: &mut MetaWriter<'_>) {
        const FITS: &str = "the plan keeps to the room";
        let channel = &self.active[note.slot as usize].as_ref().expect("noted channels are open").channel;
        match &note.kind {
            NoteKind::Configured(_) => {
                meta.channel_configured(channel.id(), &channel.config.get().encode()).expect(FITS)
            }
            NoteKind::Trimmed(head) => meta.head_trimmed(channel.id(), *head).expect(FITS),
            NoteKind::CutOff(end) => meta.suffix_truncated(channel.id(), *end).expect(FITS),
            NoteKind::Deleted => meta.channel_deleted(channel.id()).expect(FITS),
        }
    }

    /// The commit of these notes is durable: they count.
    pub(super) fn notes_durable(&mut self, notes: Vec<Note>, lsn: Lsn) {
        for note in notes {
            match note.kind {
                NoteKind::Configured(request) => request.decide(Ok(0)),
                NoteKind::Trimmed(head) => self.trimmed(note.slot, head, lsn),
                NoteKind::CutOff(_) | NoteKind::Deleted => self.errand_noted(lsn),
            }
        }
    }
}

fn note_size(note: &Note, active: &super::active::Active) -> usize {
    match note.kind {
        NoteKind::Configured(_) => NOTE_ENTRY_SIZE_MAX + active.channel.config.get().encode().len(),
        NoteKind::Trimmed(_) | NoteKind::CutOff(_) | NoteKind::Deleted => NOTE_ENTRY_SIZE_MAX,
    }
}
