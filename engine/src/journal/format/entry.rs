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

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// Writes entries one behind the other into a buffer, without allocating.
#[derive(Debug)]
pub struct MetaWriter<'a> {
    buf: &'a mut [u8],
    len: usize,
    entry_count: u32,
}

impl<'a> MetaWriter<'a> {
    /// Writes from the beginning of `buf`, usually what lies behind a commit's header.
    #[must_use]
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0, entry_count: 0 }
    }

    /// Bytes written; always a multiple of 4.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries written.
    #[must_use]
    pub fn entry_count(&self) -> u32 {
        self.entry_count
    }

    /// Bytes left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.buf.len() - self.len
    }

    /// Writes an events entry but for its records, and gives the place of those: `count` times 20 bytes, which the
    /// caller must fill.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    ///
    /// # Panics
    ///
    /// If there are no events, or a field has an impossible value.
    pub fn begin_events(&mut self, fields: &EventsFields, count: usize) -> Result<&mut [u8], MetaFull> {
        assert_eq!(fields.impossible(count as u64), None, "impossible value in an events entry");
        let raw = RawEvents {
            channel: U64::new(fields.channel.0),
            first_seq: U64::new(fields.first.0),
            segment_first: U64::new(fields.segment_first.0),
            count: U32::new(count as u32),
            dat_offset: U32::new(fields.dat_offset),
            inline_len: U32::new(fields.inline_len),
            extent_offset: U32::new(fields.extent_offset),
            extent_len: U32::new(fields.extent_len),
            pad: U32::ZERO,
        };
        let body = self.begin(KIND_EVENTS, EVENTS_SIZE + count * RECORD_SIZE)?;
        let (head, records) = body.split_at_mut(EVENTS_SIZE);
        head.copy_from_slice(raw.as_bytes());
        Ok(records)
    }

    /// Writes that a channel was created.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    ///
    /// # Panics
    ///
    /// If the name has not 1 to 255 bytes.
    pub fn channel_created(&mut self, channel: ChannelId, name: &str, config: &[u8]) -> Result<(), MetaFull> {
        assert!((1..=NAME_SIZE_MAX).contains(&name.len()), "name of {} bytes", name.len());
        let sizes = [(name.len() as u32).to_le_bytes(), (config.len() as u32).to_le_bytes()];
        let parts = [&channel.0.to_le_bytes(), sizes.as_flattened(), name.as_bytes(), config];
        self.write(KIND_CHANNEL_CREATED, &parts)
    }

    /// Writes that a channel's configuration was changed.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    pub fn channel_configured(&mut self, channel: ChannelId, config: &[u8]) -> Result<(), MetaFull> {
        let parts = [&channel.0.to_le_bytes()[..], &(config.len() as u32).to_le_bytes(), config];
        self.write(KIND_CHANNEL_CONFIGURED, &parts)
    }

    /// Writes that a channel was deleted.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    pub fn channel_deleted(&mut self, channel: ChannelId) -> Result<(), MetaFull> {
        self.write(KIND_CHANNEL_DELETED, &[&channel.0.to_le_bytes()])
    }

    /// Writes that the events of a channel below `head` were dropped.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    pub fn head_trimmed(&mut self, channel: ChannelId, head: Seq) -> Result<(), MetaFull> {
        self.write(KIND_HEAD_TRIMMED, &[&channel.0.to_le_bytes(), &head.0.to_le_bytes()])
    }

    /// Writes that the events of a channel from `end` on were dropped.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    pub fn suffix_truncated(&mut self, channel: ChannelId, end: Seq) -> Result<(), MetaFull> {
        self.write(KIND_SUFFIX_TRUNCATED, &[&channel.0.to_le_bytes(), &end.0.to_le_bytes()])
    }

    /// Writes that a checkpoint was written.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    pub fn checkpoint(
        &mut self,
        replay_lsn: Lsn,
        replay_segment: SegmentNo,
        files: &[CheckpointNo],
    ) -> Result<(), MetaFull> {
        let body = self.begin(KIND_CHECKPOINT, CHECKPOINT_SIZE + files.len() * 8)?;
        let (head, list) = body.split_at_mut(CHECKPOINT_SIZE);
        head.fill(0);
        head[..8].copy_from_slice(&replay_lsn.0.to_le_bytes());
        head[8..16].copy_from_slice(&replay_segment.0.to_le_bytes());
        head[16..20].copy_from_slice(&(files.len() as u32).to_le_bytes());
        for (place, file) in list.chunks_exact_mut(8).zip(files) {
            place.copy_from_slice(&file.0.to_le_bytes());
        }
        Ok(())
    }

    /// Writes that the journal goes on in another segment.
    ///
    /// # Errors
    ///
    /// [`MetaFull`]; then nothing is written.
    pub fn roll(&mut self, next: SegmentNo) -> Result<(), MetaFull> {
        self.write(KIND_ROLL, &[&next.0.to_le_bytes()])
    }

    fn write(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), MetaFull> {
        let size = parts.iter().map(|part| part.len()).sum();
        let mut rest = self.begin(kind, size)?;
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        rest.fill(0);
        Ok(())
    }

    /// Writes an entry's head and gives the place of its body, padded to 4 bytes.
    fn begin(&mut self, kind: u8, body_size: usize) -> Result<&mut [u8], MetaFull> {
        let needed = (HEAD_SIZE + body_size).next_multiple_of(4);
        let left = self.left();
        if needed > left {
            return Err(MetaFull { needed, left });
        }
        let entry = &mut self.buf[self.len..self.len + needed];
        let len = u32::try_from(needed).expect("a commit is below 4 GiB");
        let raw = RawEntryHead { kind, flags: 0, reserved: U16::ZERO, len: U32::new(len) };
        let (head, body) = entry.split_at_mut(HEAD_SIZE);
        head.copy_from_slice(raw.as_bytes());
        self.len += needed;
        self.entry_count += 1;
        Ok(body)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: EventsFields = EventsFields {
        channel: ChannelId(5),
        first: Seq(300),
        segment_first: Seq(204),
        dat_offset: 12288,
        inline_len: 30,
        extent_offset: 4096,
        extent_len: 8192,
    };

    fn payload(at: u64, len: u64) -> Vec<u8> {
        (at..at + len).map(|i| (i * 7 % 251) as u8).collect()
    }

    /// In the extent, across its end, behind it, in the record, empty.
    fn records() -> Vec<IndexRecord> {
        let dat = |at: u32, len: u32| IndexRecord::in_dat(at, len, crc32c::crc32c(&payload(at.into(), len.into())), 1);
        let empty = IndexRecord::in_dat(0, 0, 0, 2);
        vec![dat(5000, 7000), dat(12_000, 300), dat(12_300, 18), IndexRecord::inline(b"short", 2), empty]
    }

    fn written() -> Vec<u8> {
        let mut buf = vec![0xee; 1024];
        let mut meta = MetaWriter::new(&mut buf);
        let place = meta.begin_events(&FIELDS, 5).unwrap();
        place.copy_from_slice(records().as_bytes());
        assert_eq!(meta.len(), entry_size_events(5));
        meta.channel_created(ChannelId(6), "a/b", b"config").unwrap();
        meta.channel_configured(ChannelId(6), b"other").unwrap();
        meta.channel_deleted(ChannelId(7)).unwrap();
        meta.head_trimmed(ChannelId(8), Seq(40)).unwrap();
        meta.suffix_truncated(ChannelId(9), Seq(50)).unwrap();
        meta.checkpoint(Lsn(77), SegmentNo(4), &[CheckpointNo(2), CheckpointNo(3)]).unwrap();
        meta.roll(SegmentNo(12)).unwrap();
        assert_eq!(meta.entry_count(), 8);
        let len = meta.len();
        buf.truncate(len);
        buf
    }

    #[test]
    fn entries_of_every_kind_come_back() {
        let (buf, records) = (written(), records());
        let found: Vec<_> = entries(&buf).map(Result::unwrap).collect();
        let checkpoint = CheckpointEntry {
            replay_lsn: Lsn(77),
            replay_segment: SegmentNo(4),
            files: vec![CheckpointNo(2), CheckpointNo(3)],
        };
        let expected = [
            Entry::Events(EventsEntry { fields: FIELDS, records: &records }),
            Entry::ChannelCreated { channel: ChannelId(6), name: "a/b", config: b"config" },
            Entry::ChannelConfigured { channel: ChannelId(6), config: b"other" },
            Entry::ChannelDeleted { channel: ChannelId(7) },
            Entry::HeadTrimmed { channel: ChannelId(8), head: Seq(40) },
            Entry::SuffixTruncated { channel: ChannelId(9), end: Seq(50) },
            Entry::Checkpoint(checkpoint),
            Entry::Roll { next: SegmentNo(12) },
        ];
        assert_eq!(found, expected);
        assert_eq!(entries(&[]).count(), 0);
    }

    #[test]
    fn full_buffer_is_left_as_it_was() {
        let mut buf = [0; 100];
        let mut meta = MetaWriter::new(&mut buf);
        meta.roll(SegmentNo(1)).unwrap();
        let full = MetaFull { needed: entry_size_events(3), left: 84 };
        assert_eq!(meta.begin_events(&FIELDS, 3).unwrap_err(), full);
        assert_eq!((meta.len(), meta.entry_count()), (16, 1));
        meta.begin_events(&FIELDS, 1).unwrap();
    }

    /// No single flipped bit makes a decoder panic, and none in an entry's head passes. (In a commit the checksum
    /// covers all of them.)
    #[test]
    fn flipped_bits_never_panic_and_heads_are_strict() {
        let good = written();
        let mut bytes = good.clone();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let whole = entries(&bytes).all(|entry| entry.is_ok());
            assert!(!whole || bit / 8 >= 8, "{bit}");
            for entry in entries(&bytes).flatten() {
                if let Entry::Events(events) = entry {
                    let _ = events.verify_inline(&payload(12_288, 30));
                    let _ = events.verify_extent(&payload(4096, 8192), &payload(12_288, 30));
                }
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_is_found_or_ends_between_entries() {
        let bytes = written();
        let mut borders = vec![0];
        let mut all = entries(&bytes);
        while all.next().is_some() {
            borders.push(all.at);
        }
        for size in 0..bytes.len() {
            let whole = entries(&bytes[..size]).all(|entry| entry.is_ok());
            assert_eq!(whole, borders.contains(&size), "{size}");
        }
    }

    #[test]
    fn unknown_kinds_are_told_from_damage() {
        let mut bytes = written();
        bytes[0] = 9;
        let error = entries(&bytes).next().unwrap().unwrap_err();
        assert_eq!(error, EntryError::UnknownKind { at: 0, kind: 9 });
        assert_eq!(entries(&bytes).count(), 1);
    }

    #[test]
    fn payloads_are_verified_where_they_lie() {
        let records = records();
        let events = EventsEntry { fields: FIELDS, records: &records };
        let (extent, inline) = (payload(4096, 8192), payload(12_288, 30));
        events.verify_inline(&inline).unwrap();
        events.verify_extent(&extent, &inline).unwrap();
        for at in 0..extent.len() {
            let mut bad = extent.clone();
            bad[at] ^= 1;
            let covered = at >= 5000 - 4096;
            assert_eq!(events.verify_extent(&bad, &inline).is_err(), covered, "{at}");
            if at % 512 == 0 {
                assert!(events.verify_extent(&extent[..at], &inline).is_err());
            }
        }
        for at in 0..inline.len() {
            let mut bad = inline.clone();
            bad[at] ^= 1;
            let (alone, shared) = (events.verify_inline(&bad), events.verify_extent(&extent, &bad));
            assert_eq!((alone.is_err(), shared.is_err()), (at >= 12, at < 12), "{at}");
            assert!(events.verify_inline(&inline[..at]).is_err());
        }
    }

    #[test]
    fn payloads_outside_of_the_entry_are_refused() {
        for (at, len) in [(4000, 200), (12_300, 19), (0, 1)] {
            let records = [IndexRecord::in_dat(at, len, 0, 0)];
            let events = EventsEntry { fields: FIELDS, records: &records };
            assert_eq!(events.verify_inline(&[0; 30]), Err(PayloadError::Range { seq: Seq(300) }));
        }
    }

    #[test]
    fn impossible_events_are_refused() {
        let check = |fields: EventsFields, count| fields.impossible(count);
        assert_eq!(check(FIELDS, 1), None);
        assert_eq!(check(FIELDS, 0), Some("count"));
        assert_eq!(check(EventsFields { segment_first: Seq(301), ..FIELDS }, 1), Some("segment_first"));
        assert_eq!(check(EventsFields { first: Seq(u64::MAX), ..FIELDS }, 1), Some("first_seq"));
        assert_eq!(check(EventsFields { inline_len: u32::MAX, ..FIELDS }, 1), Some("inline_len"));
        assert_eq!(check(EventsFields { extent_len: 100, ..FIELDS }, 1), Some("extent_len"));
        assert_eq!(check(EventsFields { extent_offset: 1, ..FIELDS }, 1), Some("extent_offset"));
        assert_eq!(check(EventsFields { extent_len: 0, ..FIELDS }, 1), Some("extent_offset"));
        assert_eq!(check(EventsFields { dat_offset: 12_289, ..FIELDS }, 1), Some("dat_offset"));
    }
}
