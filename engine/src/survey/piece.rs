//! Events of one journal entry, with everything that is needed to give their payloads again.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::journal::SurveyedCommit;
use crate::ids::ChannelId;
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, OpenMode, read_full};
use crate::journal::format::{EventsEntry, EventsFields};
use crate::segment::path::dat_path;
use crate::segment::record::{IndexRecord, RecordPlace};

/// Events of one channel in one commit.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Position of the commit.
    pub lsn: u64,
    /// File of the commit.
    pub path: Arc<str>,
    /// Where the commit begins in it, bytes.
    pub offset: u64,
    fields: EventsFields,
    records: Vec<IndexRecord>,
    image: Arc<AlignedBuf>,
    inline: Range<usize>,
}

/// A payload that is not there.
#[derive(Clone, Debug)]
pub struct BadPayload {
    /// The file that should have it.
    pub path: String,
    /// Where, bytes.
    pub offset: u64,
    /// What is wrong.
    pub cause: String,
    /// Whether it lies in an extent of dat.
    pub in_extent: bool,
    /// Whether the device does not give it, so that nobody knows whether it is whole.
    pub is_unreadable: bool,
}

impl Piece {
    /// The events of an entry; `inline` is the range of its inline bytes in the commit's image.
    pub fn new(commit: &SurveyedCommit, events: &EventsEntry<'_>, inline: Range<usize>) -> Self {
        Self {
            lsn: commit.fields.lsn.0,
            path: commit.path.clone(),
            offset: commit.offset(),
            fields: events.fields,
            records: events.records.to_vec(),
            image: commit.image().clone(),
            inline,
        }
    }

    /// First sequence.
    pub fn first(&self) -> u64 {
        self.fields.first.0
    }

    /// End of the sequences, exclusive.
    pub fn end(&self) -> u64 {
        self.first() + self.records.len() as u64
    }

    /// Whether some of it lies in dat alone.
    pub fn has_extent(&self) -> bool {
        self.fields.extent_len > 0
    }

    /// The events from `end` on are gone.
    pub fn cut(&mut self, end: u64) {
        self.records.truncate(end.saturating_sub(self.first()) as usize);
    }

    /// The record of an event.
    pub fn record(&self, seq: u64) -> Option<&IndexRecord> {
        self.records.get(usize::try_from(seq.checked_sub(self.first())?).ok()?)
    }

    /// The payload of an event, checked.
    pub fn payload(&self, disk: &dyn Disk, channel: ChannelId, seq: u64) -> Result<Vec<u8>, BadPayload> {
        let record = self.record(seq).expect("the caller has looked");
        let bad = |cause: String| self.bad(cause);
        record.check().map_err(|error| bad(error.to_string()))?;
        let (offset, len) = match record.place() {
            RecordPlace::Inline { bytes, len } => return Ok(bytes[..len].to_vec()),
            RecordPlace::Dat { offset, len } => (u64::from(offset), u64::from(len)),
        };
        let border = self.fields.extent_range().end.max(offset).min(offset + len);
        let in_extent = self.fields.extent_len > 0 && offset < self.fields.extent_range().end;
        let border = if in_extent { border } else { offset };
        let mut payload = Vec::with_capacity(len as usize);
        if in_extent {
            payload = self.read_dat(disk, channel, offset..border)?;
        }
        if border < offset + len {
            let start = border.checked_sub(u64::from(self.fields.dat_offset));
            let range = start.map(|start| start as usize..(start + offset + len - border) as usize);
            let inline = range.and_then(|range| self.image[self.inline.clone()].get(range));
            payload.extend_from_slice(inline.ok_or_else(|| bad("its payload lies outside of its commit".to_owned()))?);
        }
        if record.verify_payload(&payload) {
            return Ok(payload);
        }
        let (found, expected) = (crate::checksum::crc32c(&payload), record.payload_crc());
        let cause = format!("checksum of its payload is {found:#010x}, its record says {expected:#010x}");
        match in_extent {
            true => Err(self.bad_extent(channel, offset, cause)),
            false => Err(bad(cause)),
        }
    }

    /// The payload of an event as its segment has it, if that is so: what is bad in the journal may have been written there.
    pub fn payload_in_dat(&self, disk: &dyn Disk, channel: ChannelId, seq: u64) -> Option<Vec<u8>> {
        let record = self.record(seq).filter(|record| record.check().is_ok())?;
        let RecordPlace::Dat { offset, len } = record.place() else { return None };
        let range = u64::from(offset)..u64::from(offset) + u64::from(len);
        let payload = self.read_dat(disk, channel, range).ok()?;
        record.verify_payload(&payload).then_some(payload)
    }

    fn bad(&self, cause: String) -> BadPayload {
        BadPayload { path: self.path.to_string(), offset: self.offset, cause, in_extent: false, is_unreadable: false }
    }

    fn bad_extent(&self, channel: ChannelId, offset: u64, cause: String) -> BadPayload {
        let path = dat_path(channel, self.fields.segment_first);
        let cause = format!("{cause} (commit {} in {} at byte {})", self.lsn, self.path, self.offset);
        BadPayload { path, offset, cause, in_extent: true, is_unreadable: false }
    }

    fn read_dat(&self, disk: &dyn Disk, channel: ChannelId, range: Range<u64>) -> Result<Vec<u8>, BadPayload> {
        let path = dat_path(channel, self.fields.segment_first);
        let start = range.start - range.start % BLOCK_SIZE as u64;
        let size = (range.end - start).next_multiple_of(BLOCK_SIZE as u64) as usize;
        let mut buf = AlignedBuf::new(size);
        let read = disk.open(&path, OpenMode::Read).and_then(|file| read_full(&*file, &mut buf[..size], start));
        let read = read.map_err(|error| BadPayload {
            is_unreadable: error.kind() != io::ErrorKind::NotFound,
            ..self.bad_extent(channel, range.start, format!("it cannot be read: {error}"))
        })?;
        let wanted = (range.start - start) as usize..(range.end - start) as usize;
        if read < wanted.end {
            return Err(self.bad_extent(channel, range.start, "the file ends before".to_owned()));
        }
        Ok(buf[wanted].to_vec())
    }
}
