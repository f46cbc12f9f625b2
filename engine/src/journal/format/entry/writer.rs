//! Writes the entries of a commit.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::{
    CHECKPOINT_SIZE, EVENTS_SIZE, EventsFields, HEAD_SIZE, KIND_CHANNEL_CONFIGURED, KIND_CHANNEL_CREATED,
    KIND_CHANNEL_DELETED, KIND_CHECKPOINT, KIND_EVENTS, KIND_HEAD_TRIMMED, KIND_ROLL, KIND_SUFFIX_TRUNCATED, MetaFull,
    NAME_SIZE_MAX, RawEntryHead, RawEvents,
};
use crate::ids::{ChannelId, CheckpointNo, Lsn, SegmentNo, Seq};
use crate::segment::record::RECORD_SIZE;

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
