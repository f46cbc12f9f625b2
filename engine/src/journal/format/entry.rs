//! Entries: what a commit says happened.
//!
//! Entries lie one behind the other in a commit's meta. Each begins with 8 bytes, `kind u8`, `flags u8` (0),
//! `reserved u16` (0), `len u32` (the whole entry, a multiple of 4), and then has the body of its kind, padded with
//! zeros to 4 bytes. A reader that meets a kind it does not know stops: it must not skip what it cannot judge.
//!
//! | kind | body |
//! |---|---|
//! | 1 events | 48 bytes, see below, then `count` index records |
//! | 2 channel created | `channel u64, name_len u32, config_len u32`, name, config |
//! | 3 channel configured | `channel u64, config_len u32`, config |
//! | 4 channel deleted | `channel u64` |
//! | 5 head trimmed | `channel u64, head u64` |
//! | 6 suffix truncated | `channel u64, end u64` |
//! | 7 checkpoint | `replay_lsn u64, replay_segment u64, file_count u32, pad u32` (0), then `u64` a file |
//! | 8 roll | `next_segment u64` |
//!
//! An events entry begins with `channel u64, first_seq u64, segment_first u64, count u32, dat_offset u32,
//! inline_len u32, extent_offset u32, extent_len u32` and four zero bytes. Its payloads lie in its extent (whole blocks
//! that were written straight to dat), or in the commit's payload bytes ("inline bytes", packed in the order of the
//! entries), or in the extent first and then in the inline bytes.

#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::writer::MetaWriter;
use super::BLOCK_SIZE;
use super::commit::commit_size;
use crate::ids::{ChannelId, CheckpointNo, Lsn, SegmentNo, Seq};
use crate::segment::record::{IndexRecord, RECORD_SIZE, RecordError, RecordPlace};

const KIND_EVENTS: u8 = 1;
const KIND_CHANNEL_CREATED: u8 = 2;
const KIND_CHANNEL_CONFIGURED: u8 = 3;
const KIND_CHANNEL_DELETED: u8 = 4;
const KIND_HEAD_TRIMMED: u8 = 5;
const KIND_SUFFIX_TRUNCATED: u8 = 6;
const KIND_CHECKPOINT: u8 = 7;
const KIND_ROLL: u8 = 8;

const HEAD_SIZE: usize = 8;
const EVENTS_SIZE: usize = 48;
const CHECKPOINT_SIZE: usize = 24;

/// Size of an entry about a channel without events, its configuration aside, at the most.
pub const NOTE_ENTRY_SIZE_MAX: usize = HEAD_SIZE + 8 + 8;

/// Largest extent, bytes: the blocks of one page, which are fewer. Recovery makes a buffer for no more.
pub const EXTENT_SIZE_MAX: u32 = 128 << 20;

/// Longest channel name, bytes.
const NAME_SIZE_MAX: usize = 255;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntryHead {
    kind: u8,
    flags: u8,
    reserved: U16,
    len: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEvents {
    channel: U64,
    first_seq: U64,
    segment_first: U64,
    count: U32,
    dat_offset: U32,
    inline_len: U32,
    extent_offset: U32,
    extent_len: U32,
    pad: U32,
}

const _: () = {
    assert!(size_of::<RawEntryHead>() == HEAD_SIZE);
    assert!(size_of::<RawEvents>() == EVENTS_SIZE);
    assert!((HEAD_SIZE + EVENTS_SIZE).is_multiple_of(4) && RECORD_SIZE.is_multiple_of(4));
};

/// What an events entry says besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsFields {
    /// Whose events.
    pub channel: ChannelId,
    /// Sequence of the first event.
    pub first: Seq,
    /// First sequence of the idx and dat segment that they lie in.
    pub segment_first: Seq,
    /// Where the inline bytes lie in dat.
    pub dat_offset: u32,
    /// Length of the inline bytes.
    pub inline_len: u32,
    /// Where the extent lies in dat; a multiple of [`BLOCK_SIZE`], 0 without an extent.
    pub extent_offset: u32,
    /// Length of the extent, a multiple of [`BLOCK_SIZE`]; 0 for none. It may begin with bytes committed before.
    pub extent_len: u32,
}

/// Events of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsEntry<'a> {
    /// What they share.
    pub fields: EventsFields,
    /// One record an event, at least one.
    pub records: &'a [IndexRecord],
}

/// A checkpoint: where replay begins and which files hold the channels' states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// Commits below need no replay.
    pub replay_lsn: Lsn,
    /// The segment that holds `replay_lsn`; segments below may be recycled.
    pub replay_segment: SegmentNo,
    /// The checkpoint files in use, oldest first.
    pub files: Vec<CheckpointNo>,
}

/// One entry of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Events were appended.
    Events(EventsEntry<'a>),
    /// A channel was created.
    ChannelCreated {
        /// Its id.
        channel: ChannelId,
        /// Its name, 1 to 255 bytes.
        name: &'a str,
        /// Its configuration, in an encoding of its own.
        config: &'a [u8],
    },
    /// A channel's configuration was changed.
    ChannelConfigured {
        /// Its id.
        channel: ChannelId,
        /// Its configuration from now on.
        config: &'a [u8],
    },
    /// A channel was deleted.
    ChannelDeleted {
        /// Its id.
        channel: ChannelId,
    },
    /// The oldest events of a channel were dropped.
    HeadTrimmed {
        /// Its id.
        channel: ChannelId,
        /// The oldest sequence that is left.
        head: Seq,
    },
    /// The newest events of a channel were dropped.
    SuffixTruncated {
        /// Its id.
        channel: ChannelId,
        /// Its end from now on, exclusive.
        end: Seq,
    },
    /// A checkpoint was written.
    Checkpoint(CheckpointEntry),
    /// The journal goes on at the start of another segment; nothing follows in this one.
    Roll {
        /// The segment.
        next: SegmentNo,
    },
}

impl Entry<'_> {
    /// The channel that it is about; none if it is about the journal.
    #[must_use]
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Events(events) => Some(events.fields.channel),
            Self::ChannelCreated { channel, .. }
            | Self::ChannelConfigured { channel, .. }
            | Self::ChannelDeleted { channel }
            | Self::HeadTrimmed { channel, .. }
            | Self::SuffixTruncated { channel, .. } => Some(*channel),
            Self::Checkpoint(_) | Self::Roll { .. } => None,
        }
    }
}

/// Why bytes are not entries. Offsets count from the beginning of the meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A kind that version 1 does not have: newer software wrote it.
    #[error("entry at byte {at} has the unknown kind {kind}")]
    UnknownKind {
        /// Offset of the entry.
        at: usize,
        /// The kind.
        kind: u8,
    },
    /// The entry ends too early, or its length is impossible.
    #[error("entry at byte {at} has an impossible length")]
    Length {
        /// Offset of the entry.
        at: usize,
    },
    /// A field has a value that no writer gives it.
    #[error("field `{field}` of the entry at byte {at} has an impossible value")]
    Field {
        /// Offset of the entry.
        at: usize,
        /// Name of the field.
        field: &'static str,
    },
}

/// What is wrong with an event of an events entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The record makes no sense.
    #[error("record of event {seq}: {error}")]
    Record {
        /// The event.
        seq: Seq,
        /// What is wrong.
        error: RecordError,
    },
    /// The record names bytes that are neither in the entry's extent nor in its inline bytes.
    #[error("payload of event {seq} lies outside of what its entry holds")]
    Range {
        /// The event.
        seq: Seq,
    },
    /// The payload is damaged.
    #[error("payload of event {seq} does not match its checksum")]
    Checksum {
        /// The event.
        seq: Seq,
    },
}

/// An entry does not fit into what is left of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry of {needed} bytes does not fit into {left} bytes")]
pub struct MetaFull {
    /// Size of the entry, bytes.
    pub needed: usize,
    /// What is left, bytes.
    pub left: usize,
}

/// Size of an events entry with `count` records, bytes.
#[must_use]
pub const fn entry_size_events(count: usize) -> usize {
    HEAD_SIZE + EVENTS_SIZE + count * RECORD_SIZE
}

/// Size of a commit with nothing but a checkpoint entry that names so many files, bytes with padding.
#[must_use]
pub fn commit_size_checkpoint(files: usize) -> usize {
    commit_size(HEAD_SIZE + CHECKPOINT_SIZE + files * 8, 0)
}

/// The entries of a commit's meta, in order. Ends after the first error.
pub fn entries(meta: &[u8]) -> Entries<'_> {
    Entries { meta, at: 0 }
}

/// Iterator of [`entries`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    meta: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.meta.len() {
            return None;
        }
        let at = self.at;
        self.at = self.meta.len();
        match split_entry(&self.meta[at..], at) {
            Ok((kind, body)) => {
                self.at = at + HEAD_SIZE + body.len();
                Some(decode(kind, Body { rest: body, at }).inspect_err(|_| self.at = self.meta.len()))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Splits the first entry off: its kind, and its body with padding.
fn split_entry(bytes: &[u8], at: usize) -> Result<(u8, &[u8]), EntryError> {
    let (head, rest) = RawEntryHead::ref_from_prefix(bytes).map_err(|_| EntryError::Length { at })?;
    if !(KIND_EVENTS..=KIND_ROLL).contains(&head.kind) {
        return Err(EntryError::UnknownKind { at, kind: head.kind });
    }
    if head.flags != 0 || head.reserved.get() != 0 {
        return Err(EntryError::Field { at, field: "flags" });
    }
    let len = head.len.get() as usize;
    match len.checked_sub(HEAD_SIZE).and_then(|size| rest.get(..size)) {
        Some(body) if len.is_multiple_of(4) => Ok((head.kind, body)),
        _ => Err(EntryError::Length { at }),
    }
}

fn decode(kind: u8, mut body: Body<'_>) -> Result<Entry<'_>, EntryError> {
    let entry = match kind {
        KIND_EVENTS => Entry::Events(decode_events(&mut body)?),
        KIND_CHANNEL_CREATED => decode_created(&mut body)?,
        KIND_CHANNEL_CONFIGURED => {
            let (channel, config_len) = (body.channel()?, body.u32()?);
            Entry::ChannelConfigured { channel, config: body.bytes(config_len)? }
        }
        KIND_CHANNEL_DELETED => Entry::ChannelDeleted { channel: body.channel()? },
        KIND_HEAD_TRIMMED => Entry::HeadTrimmed { channel: body.channel()?, head: Seq(body.u64()?) },
        KIND_SUFFIX_TRUNCATED => Entry::SuffixTruncated { channel: body.channel()?, end: Seq(body.u64()?) },
        KIND_CHECKPOINT => Entry::Checkpoint(decode_checkpoint(&mut body)?),
        KIND_ROLL => Entry::Roll { next: SegmentNo(body.u64()?) },
        _ => return Err(EntryError::UnknownKind { at: body.at, kind }),
    };
    body.finish()?;
    Ok(entry)
}

fn decode_events<'a>(body: &mut Body<'a>) -> Result<EventsEntry<'a>, EntryError> {
    let at = body.at;
    let head = body.bytes(EVENTS_SIZE as u32)?;
    let raw = RawEvents::ref_from_bytes(head).map_err(|_| EntryError::Length { at })?;
    let count = raw.count.get();
    let size = count.checked_mul(RECORD_SIZE as u32).ok_or(EntryError::Length { at })?;
    let records = <[IndexRecord]>::ref_from_bytes(body.bytes(size)?).map_err(|_| EntryError::Length { at })?;
    let fields = EventsFields {
        channel: ChannelId(raw.channel.get()),
        first: Seq(raw.first_seq.get()),
        segment_first: Seq(raw.segment_first.get()),
        dat_offset: raw.dat_offset.get(),
        inline_len: raw.inline_len.get(),
        extent_offset: raw.extent_offset.get(),
        extent_len: raw.extent_len.get(),
    };
    if raw.pad.get() != 0 {
        return Err(EntryError::Field { at, field: "pad" });
    }
    match fields.impossible(u64::from(count)) {
        Some(field) => Err(EntryError::Field { at, field }),
        None => Ok(EventsEntry { fields, records }),
    }
}

fn decode_created<'a>(body: &mut Body<'a>) -> Result<Entry<'a>, EntryError> {
    let at = body.at;
    let (channel, name_len, config_len) = (body.channel()?, body.u32()?, body.u32()?);
    let name = std::str::from_utf8(body.bytes(name_len)?).ok();
    let name = name.filter(|name| (1..=NAME_SIZE_MAX).contains(&name.len()));
    let name = name.ok_or(EntryError::Field { at, field: "name" })?;
    Ok(Entry::ChannelCreated { channel, name, config: body.bytes(config_len)? })
}

fn decode_checkpoint(body: &mut Body<'_>) -> Result<CheckpointEntry, EntryError> {
    let at = body.at;
    let (replay_lsn, replay_segment) = (Lsn(body.u64()?), SegmentNo(body.u64()?));
    let (count, pad) = (body.u32()?, body.u32()?);
    if pad != 0 {
        return Err(EntryError::Field { at, field: "pad" });
    }
    let size = count.checked_mul(8).ok_or(EntryError::Length { at })?;
    let list = <[U64]>::ref_from_bytes(body.bytes(size)?).map_err(|_| EntryError::Length { at })?;
    let files = list.iter().map(|number| CheckpointNo(number.get())).collect();
    Ok(CheckpointEntry { replay_lsn, replay_segment, files })
}

/// What is left of an entry's body.
struct Body<'a> {
    rest: &'a [u8],
    /// Offset of the entry in the meta.
    at: usize,
}

impl<'a> Body<'a> {
    fn bytes(&mut self, size: u32) -> Result<&'a [u8], EntryError> {
        let parts = self.rest.split_at_checked(size as usize);
        let (bytes, rest) = parts.ok_or(EntryError::Length { at: self.at })?;
        self.rest = rest;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, EntryError> {
        let bytes = self.bytes(4)?;
        U32::read_from_bytes(bytes).map(U32::get).map_err(|_| EntryError::Length { at: self.at })
    }

    fn u64(&mut self) -> Result<u64, EntryError> {
        let bytes = self.bytes(8)?;
        U64::read_from_bytes(bytes).map(U64::get).map_err(|_| EntryError::Length { at: self.at })
    }

    fn channel(&mut self) -> Result<ChannelId, EntryError> {
        self.u64().map(ChannelId)
    }

    /// Only padding may be left.
    fn finish(self) -> Result<(), EntryError> {
        if self.rest.len() > 3 {
            return Err(EntryError::Length { at: self.at });
        }
        match self.rest.iter().all(|&byte| byte == 0) {
            true => Ok(()),
            false => Err(EntryError::Field { at: self.at, field: "padding" }),
        }
    }
}

impl EventsFields {
    /// Where in dat the inline bytes lie.
    #[must_use]
    pub fn inline_range(&self) -> Range<u64> {
        let start = u64::from(self.dat_offset);
        start..start + u64::from(self.inline_len)
    }

    /// Where in dat the extent lies; empty for none.
    #[must_use]
    pub fn extent_range(&self) -> Range<u64> {
        let start = u64::from(self.extent_offset);
        start..start + u64::from(self.extent_len)
    }

    /// Where in dat payloads of the entry can lie.
    fn dat_range(&self) -> Range<u64> {
        match (self.extent_len, self.inline_len) {
            (0, _) => self.inline_range(),
            (_, 0) => self.extent_range(),
            _ => self.extent_range().start..self.inline_range().end,
        }
    }

    /// The name of a field with a value that no writer gives it.
    fn impossible(&self, count: u64) -> Option<&'static str> {
        let (extent, inline) = (self.extent_range(), self.inline_range());
        let whole = |offset: u32| (offset as usize).is_multiple_of(BLOCK_SIZE);
        let apart = self.extent_len > 0 && self.inline_len > 0 && extent.end != inline.start;
        [
            (count == 0 || count > u64::from(u32::MAX) / RECORD_SIZE as u64, "count"),
            (self.first < self.segment_first, "segment_first"),
            (self.first.0.checked_add(count).is_none(), "first_seq"),
            (inline.end > u64::from(u32::MAX), "inline_len"),
            (extent.end > u64::from(u32::MAX) || !whole(self.extent_len), "extent_len"),
            (self.extent_len > EXTENT_SIZE_MAX, "extent_len"),
            (!whole(self.extent_offset) || (self.extent_len == 0 && self.extent_offset != 0), "extent_offset"),
            (apart, "dat_offset"),
        ]
        .into_iter()
        .find_map(|(bad, field)| bad.then_some(field))
    }
}

impl EventsEntry<'_> {
    /// End of the sequences, exclusive.
    #[must_use]
    pub fn end(&self) -> Seq {
        Seq(self.fields.first.0 + self.records.len() as u64)
    }

    /// Checks every record, and every payload that lies in the inline bytes alone. A payload that lies in the extent,
    /// or partly there, is left to [`EventsEntry::verify_extent`].
    ///
    /// # Errors
    ///
    /// The first event that is wrong.
    pub fn verify_inline(&self, inline: &[u8]) -> Result<(), PayloadError> {
        for (seq, record) in self.with_seqs() {
            record.check().map_err(|error| PayloadError::Record { seq, error })?;
            let Some(range) = dat_range(record) else { continue };
            if !contains(&self.fields.dat_range(), &range) {
                return Err(PayloadError::Range { seq });
            }
            if !contains(&self.fields.inline_range(), &range) {
                continue;
            }
            match slice(inline, self.fields.dat_offset, &range) {
                Some(payload) if record.verify_payload(payload) => {}
                _ => return Err(PayloadError::Checksum { seq }),
            }
        }
        Ok(())
    }

    /// Checks every payload that lies in the extent, whole or in part. `extent` are its bytes as dat has them, all
    /// [`EventsFields::extent_len`] of them; fewer if the file ends before, which then is an error.
    ///
    /// # Errors
    ///
    /// The first event that is wrong.
    pub fn verify_extent(&self, extent: &[u8], inline: &[u8]) -> Result<(), PayloadError> {
        let border = self.fields.extent_range().end;
        for (seq, record) in self.with_seqs() {
            let Some(range) = dat_range(record).filter(|range| range.start < border) else { continue };
            if !self.fields.extent_range().contains(&range.start) {
                continue; // without an extent nothing lies in one
            }
            let first = slice(extent, self.fields.extent_offset, &(range.start..range.end.min(border)));
            let second = slice(inline, self.fields.dat_offset, &(border..range.end.max(border)));
            let second = if range.end > border { second } else { Some(&[][..]) };
            let (Some(first), Some(second)) = (first, second) else {
                return Err(PayloadError::Checksum { seq });
            };
            if crc32c::crc32c_append(crc32c::crc32c(first), second) != record.payload_crc() {
                return Err(PayloadError::Checksum { seq });
            }
        }
        Ok(())
    }

    fn with_seqs(&self) -> impl Iterator<Item = (Seq, &IndexRecord)> {
        (self.fields.first.0..).map(Seq).zip(self.records)
    }
}

/// Where in dat a payload lies; `None` if it is empty or in its record.
fn dat_range(record: &IndexRecord) -> Option<Range<u64>> {
    match record.place() {
        RecordPlace::Dat { offset, len } if len > 0 => Some(u64::from(offset)..u64::from(offset) + u64::from(len)),
        _ => None,
    }
}

fn contains(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The bytes of `range`, where `bytes` begin at `base`.
fn slice<'a>(bytes: &'a [u8], base: u32, range: &Range<u64>) -> Option<&'a [u8]> {
    let start = range.start.checked_sub(u64::from(base))?;
    let end = range.end.checked_sub(u64::from(base))?;
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}
