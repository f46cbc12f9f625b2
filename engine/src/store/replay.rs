//! Replays one channel's part of a journal: what is not on disk in whole blocks is written there again.
//!
//! An entry says "these bytes at that offset, this record at that sequence" (design D4), so replaying twice, or after a
//! replay that was cut off, changes nothing. Blocks are written as they fill; what fills none stays in memory and goes into
//! the checkpoint that recovery takes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::checkpoint::{ChannelState, SegmentState, Tail, TailRef};
use super::meta::Meta;
use crate::error::OpenError;
use crate::ids::{ChannelId, Epoch, Lsn, Seq, StoreUuid};
use crate::io::located::{located, split};
use crate::io::{AlignedBuf, BLOCK_SIZE, Disk, File, OpenMode};
use crate::journal::format::EventsEntry;
use crate::segment::block::{BlockPlace, RECORDS_PER_BLOCK, encode_block};
use crate::segment::path::{channel_dir, dat_path, idx_path};
use crate::segment::record::IndexRecord;
use crate::shard::destage::make_segment_files;
use crate::shard::handle::active_segment;
use crate::shard::seal::{IdxSums, idx_end};

/// Bytes of dat kept before whole blocks are written.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// A channel under replay.
pub struct Replay<'d> {
    disk: &'d dyn Disk,
    uuid: StoreUuid,
    state: ChannelState,
    /// Whether META was made. If the channel had blocks before, it was: damage there is told when the channel is opened.
    has_meta: bool,
    /// Whether each segment that follows is gone at the end of the journal, and whether the present one is: then nothing of it
    /// is read or written.
    fates: VecDeque<bool>,
    gone: bool,
    segment_first: Seq,
    /// Records from `records_base` on, which begins an index block.
    records: Vec<IndexRecord>,
    records_base: Seq,
    /// Bytes of dat from `bytes_base` on, which begins a block.
    bytes: Vec<u8>,
    bytes_base: u64,
    idx: Option<Arc<dyn File>>,
    dat: Option<Arc<dyn File>>,
}

impl<'d> Replay<'d> {
    /// Goes on where the channel's newest checkpoint entry stands.
    pub fn new(
        disk: &'d dyn Disk,
        uuid: StoreUuid,
        mut state: ChannelState,
        tail: Tail,
        mut fates: VecDeque<bool>,
    ) -> Self {
        let (segment_first, dat_size) = active_segment(&state);
        let has_meta = state.has_blocks();
        let sealed = state.segments.last().is_none_or(|segment| segment.sealed);
        let gone = fates.pop_front().unwrap_or(false);
        let tail = if sealed || gone { Tail::default() } else { tail };
        if sealed {
            let first = segment_first.0;
            state.segments.push(SegmentState { first, end: first, dat_size: 0, sealed: false });
        }
        Self {
            disk,
            uuid,
            has_meta,
            fates,
            gone,
            segment_first,
            records_base: Seq(state.end - tail.records.len() as u64),
            records: tail.records,
            bytes_base: u64::from(dat_size) - tail.bytes.len() as u64,
            bytes: tail.bytes,
            state,
            idx: None,
            dat: None,
        }
    }

    /// Commits below are contained in the checkpoint entry that the replay began with.
    pub fn lsn(&self) -> Lsn {
        Lsn(self.state.lsn)
    }

    /// Takes the events of one entry of a commit.
    pub fn events(&mut self, entry: &EventsEntry<'_>, inline: &[u8], epoch: Epoch) -> Result<(), OpenError> {
        let fields = &entry.fields;
        if self.begins_later(entry) {
            self.begin_at(fields.first);
        }
        if fields.segment_first != self.segment_first {
            if fields.segment_first != fields.first || fields.first.0 != self.state.end {
                return Err(self.inconsistent("a segment of the journal does not begin where the one before ends"));
            }
            self.io("seal", Self::seal)?;
            self.begin_segment(fields.segment_first);
        }
        if fields.first.0 != self.state.end {
            return Err(self.inconsistent("the journal's events do not follow those of the checkpoint"));
        }
        if self.state.epochs.last().is_none_or(|(last, _)| *last < epoch.0) {
            self.state.epochs.push((epoch.0, fields.first.0));
        }
        self.state.end += entry.records.len() as u64;
        self.state.last_time_us = entry.records.last().map_or(self.state.last_time_us, IndexRecord::time_us);
        if self.gone {
            return Ok(());
        }
        if fields.extent_len > 0 {
            let extent =
                u64::from(fields.extent_offset)..u64::from(fields.extent_offset) + u64::from(fields.extent_len);
            self.io("write", |replay| replay.extent(&extent))?;
        }
        if !inline.is_empty() {
            self.inline(u64::from(fields.dat_offset), inline)?;
        }
        self.records.extend_from_slice(entry.records);
        if self.bytes.len() >= PENDING_BYTES_MAX || self.records.len() >= 64 * RECORDS_PER_BLOCK {
            self.io("write", Self::write_whole_blocks)?;
        }
        Ok(())
    }

    /// A channel that was in memory before it was created may begin behind what it had dropped there.
    fn begins_later(&self, entry: &EventsEntry<'_>) -> bool {
        let fields = &entry.fields;
        let is_new = self.state.end == 0 && self.state.epochs.is_empty() && self.state.lsn == 0;
        is_new && fields.first.0 > 0 && fields.first == fields.segment_first
    }

    fn begin_at(&mut self, first: Seq) {
        self.state.segments.clear();
        (self.state.head, self.state.end) = (first.0, first.0);
        self.begin_segment(first);
    }

    fn bytes_end(&self) -> u64 {
        self.bytes_base + self.bytes.len() as u64
    }

    /// Bytes that lie in the entry itself.
    fn inline(&mut self, offset: u64, inline: &[u8]) -> Result<(), OpenError> {
        if offset < self.bytes_end() {
            return Err(self.inconsistent("payload bytes of the journal overlap those before"));
        }
        // Between two pages the rest of a block is zero.
        if offset - self.bytes_end() >= BLOCK_SIZE as u64 {
            return Err(self.inconsistent("payload bytes of the journal leave a gap"));
        }
        self.bytes.resize((offset - self.bytes_base) as usize, 0);
        self.bytes.extend_from_slice(inline);
        Ok(())
    }

    /// Blocks that were written straight to dat and hold. They may begin with bytes that were committed before, which are
    /// in memory: those are laid over, since only the commit's own were verified.
    fn extent(&mut self, extent: &std::ops::Range<u64>) -> io::Result<()> {
        let in_memory = self.bytes_end();
        // Open, so that it is flushed at the end: a killed process may have left the blocks in the kernel.
        let dat = self.dat()?;
        if in_memory > extent.start {
            self.mix(&*dat)?;
        } else if extent.start - in_memory < BLOCK_SIZE as u64 {
            self.bytes.resize((extent.start - self.bytes_base) as usize, 0);
        } else {
            let gap = io::Error::new(io::ErrorKind::InvalidData, "an extent of the journal leaves a gap");
            return Err(located(dat.path())(gap));
        }
        self.write_dat()?;
        self.bytes.clear();
        self.bytes_base = extent.end;
        Ok(())
    }

    /// The block in which the bytes in memory end goes on with an extent. It is the only copy of those, so it is left alone
    /// if it is right (design D5). If not, the extent has not become durable, and nobody was told that it has.
    fn mix(&mut self, dat: &dyn File) -> io::Result<()> {
        let whole = self.bytes.len() / BLOCK_SIZE * BLOCK_SIZE;
        let mixed = &self.bytes[whole..];
        let mut block = AlignedBuf::new(BLOCK_SIZE);
        dat.read_at(&mut block[..BLOCK_SIZE], self.bytes_base + whole as u64).map_err(located(dat.path()))?;
        if block[..mixed.len()] == *mixed {
            self.bytes.truncate(whole);
        } else {
            self.bytes.extend_from_slice(&block[mixed.len()..BLOCK_SIZE]);
        }
        Ok(())
    }

    /// The head lies here.
    pub fn trim(&mut self, head: Seq) {
        self.state.head = self.state.head.max(head.0);
        self.drop_below_head();
    }

    fn drop_below_head(&mut self) {
        let head = self.state.head;
        self.state.segments.retain(|segment| !segment.sealed || segment.end > head);
    }

    /// The channel has these settings.
    pub fn configure(&mut self, config: &[u8]) {
        self.state.config = config.to_vec();
    }

    /// The channel is gone. Its files go once the store is open.
    pub fn delete(&mut self) {
        self.state.deleted = true;
        self.gone = true;
        self.forget_unwritten();
    }

    fn forget_unwritten(&mut self) {
        self.records.clear();
        self.bytes.clear();
        self.idx = None;
        self.dat = None;
    }

    /// The events from `end` on are gone, in this epoch. The shard has sealed the segment before, so it is done again.
    pub fn cut_off(&mut self, end: Seq, epoch: Epoch) -> Result<(), OpenError> {
        if end.0 > self.state.end {
            return Err(self.inconsistent("the journal cuts off what is not there"));
        }
        // One that a later trim takes with it is only forgotten.
        if self.segment_first < end {
            self.io("seal", Self::seal)?;
        }
        let state = &mut self.state;
        state.segments.retain_mut(|segment| {
            segment.end = segment.end.min(end.0);
            segment.first < end.0
        });
        (state.end, state.head) = (end.0, state.head.min(end.0));
        while state.epochs.last().is_some_and(|(_, first)| *first >= end.0) {
            state.epochs.pop();
        }
        state.epochs.push((epoch.0, end.0));
        self.begin_segment(end);
        self.drop_below_head();
        Ok(())
    }

    fn begin_segment(&mut self, first: Seq) {
        self.gone = self.fates.pop_front().unwrap_or(false);
        self.forget_unwritten();
        self.state.segments.push(SegmentState { first: first.0, end: first.0, dat_size: 0, sealed: false });
        self.segment_first = first;
        self.records_base = first;
        self.bytes_base = 0;
    }

    fn write_whole_blocks(&mut self) -> io::Result<()> {
        self.write_dat()?;
        self.write_idx()
    }

    fn write_dat(&mut self) -> io::Result<()> {
        let whole = self.bytes.len() / BLOCK_SIZE * BLOCK_SIZE;
        if whole > 0 {
            let mut buf = AlignedBuf::new(whole);
            buf[..whole].copy_from_slice(&self.bytes[..whole]);
            let dat = self.dat()?;
            dat.allocate(self.bytes_base + whole as u64).map_err(located(dat.path()))?;
            dat.write_at(&buf[..whole], self.bytes_base).map_err(located(dat.path()))?;
            self.bytes.drain(..whole);
            self.bytes_base += whole as u64;
        }
        Ok(())
    }

    fn place(&self) -> BlockPlace {
        BlockPlace { channel: ChannelId(self.state.id), segment_first: self.segment_first }
    }

    fn write_idx(&mut self) -> io::Result<()> {
        let blocks = self.records.len() / RECORDS_PER_BLOCK;
        if blocks > 0 {
            let mut buf = AlignedBuf::new(blocks * BLOCK_SIZE);
            for (i, records) in self.records.chunks_exact(RECORDS_PER_BLOCK).enumerate() {
                let base = Seq(self.records_base.0 + (i * RECORDS_PER_BLOCK) as u64);
                encode_block(&mut buf[i * BLOCK_SIZE..(i + 1) * BLOCK_SIZE], records, base, self.place());
            }
            let offset = self.block_offset();
            let idx = self.idx()?;
            idx.allocate(offset + (blocks * BLOCK_SIZE) as u64).map_err(located(idx.path()))?;
            idx.write_at(&buf[..blocks * BLOCK_SIZE], offset).map_err(located(idx.path()))?;
            self.records.drain(..blocks * RECORDS_PER_BLOCK);
            self.records_base.0 += (blocks * RECORDS_PER_BLOCK) as u64;
        }
        Ok(())
    }

    fn block_offset(&self) -> u64 {
        (self.records_base.0 - self.segment_first.0) / RECORDS_PER_BLOCK as u64 * BLOCK_SIZE as u64
    }

    /// Ends the segment as the shard would have.
    fn seal(&mut self) -> io::Result<()> {
        if self.gone {
            let first = self.segment_first.0;
            self.state.segments.retain(|segment| segment.first != first);
            self.drop_below_head();
            return Ok(());
        }
        let dat_size = u32::try_from(self.bytes_end()).expect("offsets have 32 bits");
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_SIZE), 0);
        self.write_whole_blocks()?;
        let end = Seq(self.state.end);
        let whole = (self.records_base.0 - self.segment_first.0) as usize / RECORDS_PER_BLOCK;
        let idx = self.idx()?;
        let sums = IdxSums::read(&*idx, self.place(), whole).map_err(located(idx.path()))?;
        let channel = ChannelId(self.state.id);
        let last_time_us = self.state.last_time_us;
        let idx_end = idx_end(channel, (self.segment_first, end), dat_size, sums, &self.records, last_time_us);
        let idx_end = idx_end.map_err(located(idx.path()))?;
        idx.write_at(&idx_end.buf[..idx_end.len], idx_end.offset).map_err(located(idx.path()))?;
        idx.set_size(idx_end.offset + idx_end.len as u64).map_err(located(idx.path()))?;
        self.records.clear();
        self.bytes.clear();
        if dat_size > 0 {
            let dat = self.dat()?;
            let size = u64::from(dat_size).next_multiple_of(BLOCK_SIZE as u64);
            dat.set_size(size).map_err(located(dat.path()))?;
        }
        self.flush()?;
        let segment = self.state.segments.last_mut().expect("there is an active segment");
        *segment = SegmentState { first: self.segment_first.0, end: end.0, dat_size, sealed: true };
        self.drop_below_head();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        for file in [&self.idx, &self.dat].into_iter().flatten() {
            file.flush().map_err(located(file.path()))?;
        }
        Ok(())
    }

    fn dat(&mut self) -> io::Result<Arc<dyn File>> {
        if self.dat.is_none() {
            self.dat = Some(self.open(&dat_path(ChannelId(self.state.id), self.segment_first))?);
        }
        Ok(self.dat.clone().expect("just opened"))
    }

    fn idx(&mut self) -> io::Result<Arc<dyn File>> {
        if self.idx.is_none() {
            self.idx = Some(self.open(&idx_path(ChannelId(self.state.id), self.segment_first))?);
        }
        Ok(self.idx.clone().expect("just opened"))
    }

    fn open(&mut self, path: &str) -> io::Result<Arc<dyn File>> {
        let id = ChannelId(self.state.id);
        if self.has_meta {
            match self.disk.open_segment(path, OpenMode::Write) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(located(path)(error)),
                Ok(file) => {
                    // A killed process may have made it without making its name durable.
                    let dir = channel_dir(id);
                    self.disk.sync_dir(&dir).map_err(located(&dir))?;
                    return Ok(file);
                }
            }
        }
        let meta = Meta { uuid: self.uuid, id, name: self.state.name.clone(), created: id.epoch(), created_us: 0 };
        make_segment_files(self.disk, &meta, self.segment_first, self.has_meta)?;
        self.has_meta = true;
        self.disk.open_segment(path, OpenMode::Write).map_err(located(path))
    }

    /// Writes and flushes what fills whole blocks. Returns the entry for the checkpoint, and what fills no block.
    pub fn finish(mut self) -> Result<(ChannelState, Tail), OpenError> {
        if self.state.deleted {
            let ChannelState { id, name, config, .. } = self.state;
            return Ok((ChannelState { id, name, config, deleted: true, ..ChannelState::default() }, Tail::default()));
        }
        if self.gone {
            return Err(self.inconsistent("the journal drops the segment in which it goes on"));
        }
        self.io("write", |replay| {
            replay.write_whole_blocks()?;
            replay.flush()
        })?;
        let dat_size = u32::try_from(self.bytes_end()).expect("offsets have 32 bits");
        let end = self.state.end;
        let segment = self.state.segments.last_mut().expect("there is an active segment");
        *segment = SegmentState { first: segment.first, end, dat_size, sealed: false };
        let (record_count, bytes_len) = (self.records.len() as u32, self.bytes.len() as u32);
        self.state.tail = TailRef { offset: 0, record_count, bytes_len };
        Ok((self.state, Tail { records: self.records, bytes: self.bytes }))
    }

    fn inconsistent(&self, why: &'static str) -> OpenError {
        OpenError::Inconsistent { channel: self.state.name.clone(), why }
    }

    fn io<T>(&mut self, what: &'static str, act: impl FnOnce(&mut Self) -> io::Result<T>) -> Result<T, OpenError> {
        act(self).map_err(|source| {
            let (path, source) = split(source, &channel_dir(ChannelId(self.state.id)));
            OpenError::Io { what, path: path.into(), source }
        })
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;
    use crate::io::sim::{SimDisk, SimOptions};
    use crate::journal::format::EventsFields;

    /// Events that do not begin where the ones before end are no channel's: nothing is made of them.
    #[test]
    fn events_follow_one_another() {
        let disk = SimDisk::new(1, SimOptions::default());
        let segments = vec![SegmentState { first: 0, end: 5, dat_size: 0, sealed: false }];
        let state = ChannelState { name: "a".to_owned(), end: 5, lsn: 3, segments, ..ChannelState::default() };
        let records = [IndexRecord::inline(b"x", 1)];
        let tail = || Tail { records: vec![records[0]; 5], bytes: Vec::new() };
        for (first, follows) in [(4, false), (5, true), (6, false)] {
            let mut replay = Replay::new(&disk, StoreUuid([1; 16]), state.clone(), tail(), VecDeque::new());
            let (first, segment_first) = (Seq(first), Seq(0));
            let (dat_offset, inline_len, extent_offset, extent_len) = (0, 0, 0, 0);
            let channel = ChannelId(0);
            let fields =
                EventsFields { channel, first, segment_first, dat_offset, inline_len, extent_offset, extent_len };
            let entry = EventsEntry { fields, records: &records };
            let taken = replay.events(&entry, &[], Epoch(1));
            assert_eq!(taken.is_ok(), follows, "{first}: {taken:?}");
        }
    }
}
