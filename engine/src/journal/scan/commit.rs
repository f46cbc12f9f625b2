//! One commit at one place: whether it is there, whole, and the one that must come next.

use super::error::{CommitFault, JournalError};
use super::image::Image;
use crate::ids::{Epoch, Lsn, SegmentNo};
use crate::io::BLOCK_SIZE;
use crate::journal::format::{
    CheckpointEntry, CommitFields, CommitHeader, Entry, EntryError, PayloadError, SegmentHeader, entries,
};

/// A commit that holds, but for its extents.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fields: CommitFields,
    pub(super) size: usize,
    /// The last checkpoint entry in it.
    pub(super) checkpoint: Option<CheckpointEntry>,
    /// The segment that a roll entry in it names.
    pub(super) roll: Option<SegmentNo>,
    /// Whether an extent belongs to it.
    pub(super) has_extent: bool,
}

/// What must be true of a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) segment: &'a SegmentHeader,
    pub(super) offset: usize,
    pub(super) lsn: Lsn,
    /// Epoch of STORE.
    pub(super) epoch_max: Epoch,
    /// LSN from which on commits of this segment are void.
    pub(super) void_from: Option<Lsn>,
}

/// What lies at a place.
#[derive(Debug)]
pub(super) enum Place {
    /// The commit that must come next.
    Commit(Found),
    /// A commit that the segment's successor makes void.
    Void,
    /// No such commit, or a damaged one.
    Bad(CommitFault),
}

/// Looks at one place.
///
/// A fault that a torn write can cause is a [`Place::Bad`]; one behind right checksums is an error.
pub(super) fn look(image: &mut Image, expected: &Expected<'_>) -> Result<Place, JournalError> {
    let header = match header(image, expected)? {
        Ok(header) => header,
        Err(fault) => return Ok(Place::Bad(fault)),
    };
    let fields = *header.fields();
    if expected.void_from.is_some_and(|from| from <= fields.lsn) {
        return Ok(Place::Void);
    }
    let size = header.commit_size();
    let bytes = image.bytes(expected.offset..expected.offset + size)?;
    let (meta, payload) = match header.body(bytes) {
        Ok(body) => body,
        Err(error) => return Ok(Place::Bad(error.into())),
    };
    let mut found = Found { fields, size, checkpoint: None, roll: None, has_extent: false };
    match found.take_entries(meta, payload) {
        Ok(()) => Ok(Place::Commit(found)),
        Err(fault @ CommitFault::Payload(PayloadError::Checksum { .. })) => Ok(Place::Bad(fault)),
        Err(fault) => Err(contradiction(image, expected, fault)),
    }
}

fn header(image: &mut Image, expected: &Expected<'_>) -> Result<Result<CommitHeader, CommitFault>, JournalError> {
    let offset = expected.offset;
    let bytes = image.bytes(offset..offset + BLOCK_SIZE)?;
    let header = match CommitHeader::verify(bytes, &expected.segment.context(), offset as u64) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.into())),
    };
    let CommitFields { lsn, epoch, .. } = *header.fields();
    if lsn != expected.lsn {
        return Ok(Err(CommitFault::OtherLsn(lsn)));
    }
    if !(expected.segment.epoch..=expected.epoch_max).contains(&epoch) {
        return Err(contradiction(image, expected, CommitFault::OtherEpoch(epoch)));
    }
    Ok(Ok(header))
}

fn contradiction(image: &Image, expected: &Expected<'_>, fault: CommitFault) -> JournalError {
    let (offset, lsn) = (expected.offset as u64, expected.lsn);
    let path = image.path().to_owned();
    match fault {
        CommitFault::Entry(EntryError::UnknownKind { kind, .. }) => {
            JournalError::NewerEntry { path, offset, lsn, kind }
        }
        fault => JournalError::Contradiction { path, offset, lsn, fault },
    }
}

impl Found {
    fn take_entries(&mut self, meta: &[u8], payload: &[u8]) -> Result<(), CommitFault> {
        let (mut count, mut rest) = (0, payload);
        for entry in entries(meta) {
            count += 1;
            match entry? {
                Entry::Events(events) => {
                    let inline = rest.split_at_checked(events.fields.inline_len as usize);
                    let (inline, behind) = inline.ok_or(CommitFault::Count)?;
                    rest = behind;
                    events.verify_inline(inline)?;
                    self.has_extent |= events.fields.extent_len > 0;
                }
                Entry::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
                Entry::Roll { next } => self.roll = Some(next),
                _ => {}
            }
        }
        match count == self.fields.entry_count && rest.is_empty() {
            true => Ok(()),
            false => Err(CommitFault::Count),
        }
    }
}
