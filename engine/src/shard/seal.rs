//! The end of a segment: the last index block, the footer, exact sizes, flushed. From then on it never changes.
//!
//! A seal begins when all of the segment is destaged and the pages have gone on to the next one. Until it is done the
//! next segment's blocks stay in memory and the journal.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::active::{Active, ActiveSegment, Sealing};
use super::handle::Slot;
use super::ops::Purpose;
use super::stats::add;
use crate::error::Poisoned;
use crate::ids::{ChannelId, Seq};
use crate::io::located::located;
use crate::io::{AlignedBuf, BLOCK_SIZE, Durability, File, IoBuf, Operation};
use crate::segment::block::{BlockPlace, RECORDS_PER_BLOCK, decode_block, encode_block};
use crate::segment::footer::{Footer, idx_hash_append};
use crate::segment::record::IndexRecord;
use crate::segment::time_block::BlockTimes;
use crate::store::checkpoint::SegmentState;

/// Index bytes read at once when the footer's sums have to be made from the file.
const READ_BYTES: usize = 1 << 20;

/// The last part of an idx file.
#[derive(Debug)]
pub struct IdxEnd {
    /// The last, short block and the time blocks (if any), and the footer.
    pub buf: AlignedBuf,
    /// Bytes of it.
    pub len: usize,
    /// Where it goes.
    pub offset: u64,
}

/// Sums over the whole index blocks of a segment.
#[derive(Clone, Debug, Default)]
pub struct IdxSums {
    /// Running hash.
    pub hash: u32,
    /// When the blocks begin.
    pub times: BlockTimes,
}

impl IdxSums {
    /// Makes the sums of the first `blocks` blocks from the file. Each block is checked.
    pub fn read(file: &dyn File, place: BlockPlace, blocks: usize) -> io::Result<Self> {
        let mut sums = Self::default();
        let mut buf = AlignedBuf::new(READ_BYTES);
        let mut block = 0;
        while block < blocks {
            let count = (blocks - block).min(READ_BYTES / BLOCK_SIZE);
            let read = file.read_at(&mut buf[..count * BLOCK_SIZE], (block * BLOCK_SIZE) as u64)?;
            if read < count * BLOCK_SIZE {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the idx file is too short"));
            }
            for bytes in buf[..count * BLOCK_SIZE].chunks_exact(BLOCK_SIZE) {
                let base = Seq(place.segment_first.0 + (block * RECORDS_PER_BLOCK) as u64);
                let records =
                    decode_block(bytes, place, base).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                sums.hash = idx_hash_append(sums.hash, bytes);
                sums.times.push(block as u32, records.first().map_or(0, IndexRecord::time_us));
                block += 1;
            }
        }
        Ok(sums)
    }
}

/// Composes the end of a segment's idx: `records` are those of its last, short block. Fails if the segment's last event is older
/// than its first, which whole blocks of a damaged store can say.
pub fn idx_end(
    channel: ChannelId,
    (first, end): (Seq, Seq),
    dat_size: u32,
    mut sums: IdxSums,
    records: &[IndexRecord],
    last_time_us: u64,
) -> io::Result<IdxEnd> {
    assert!(records.len() < RECORDS_PER_BLOCK, "whole blocks are written before");
    let place = BlockPlace { channel, segment_first: first };
    let whole = (end.0 - first.0) as usize / RECORDS_PER_BLOCK;
    let time_blocks = BlockTimes::block_count_of(whole + usize::from(!records.is_empty()));
    let mut buf = AlignedBuf::new((time_blocks + 2) * BLOCK_SIZE);
    let mut len = 0;
    if let Some(first_record) = records.first() {
        let base = Seq(end.0 - records.len() as u64);
        encode_block(&mut buf[..BLOCK_SIZE], records, base, place);
        sums.hash = idx_hash_append(sums.hash, &buf[..BLOCK_SIZE]);
        sums.times.push(whole as u32, first_record.time_us());
        len = BLOCK_SIZE;
    }
    let times_len = time_blocks * BLOCK_SIZE;
    sums.times.encode(&mut buf[len..len + times_len], place);
    len += times_len;
    let footer = Footer {
        channel,
        first,
        end,
        dat_size: u64::from(dat_size),
        first_time_us: sums.times.index().samples().first().map_or(0, |sample| sample.first_time_us),
        last_time_us: records.last().map_or(last_time_us, IndexRecord::time_us),
        idx_hash: sums.hash,
        time_index: sums.times.index().clone(),
        has_time_blocks: time_blocks > 0,
    };
    if footer.first_time_us > footer.last_time_us {
        let why = format!("the events {first}..{end} have times that go backwards");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    footer.encode(&mut buf[len..len + BLOCK_SIZE]);
    len += BLOCK_SIZE;
    Ok(IdxEnd { buf, len, offset: (whole * BLOCK_SIZE) as u64 })
}

impl Shard {
    /// Begins the seal of the segment if everything of it is destaged.
    pub(super) fn seal_if_complete(&mut self, active: &mut Active) -> io::Result<()> {
        if !matches!(active.sealing, Sealing::No) || active.dat_busy || active.idx_busy {
            return Ok(());
        }
        let Some(page) = active.channel.tail.page(active.dat_page) else { return Ok(()) };
        let (next, end) = (page.start().segment_first, page.start().first_seq);
        if next == active.segment.first || active.written.seq < end {
            return Ok(());
        }
        let left = (end.0 - active.idx_next.0) as usize;
        if left >= RECORDS_PER_BLOCK {
            return Ok(());
        }
        let first = active.segment.first;
        let whole = (end.0 - first.0) as usize / RECORDS_PER_BLOCK;
        let time_blocks = BlockTimes::block_count_of(whole + 1);
        let file = self.open_idx(active, ((whole + 2 + time_blocks) * BLOCK_SIZE) as u64)?;
        self.write_recovered_tail(active)?;
        let place = BlockPlace { channel: active.channel.id(), segment_first: first };
        let sums = match active.segment.times_complete {
            true => IdxSums { hash: active.segment.idx_hash, times: std::mem::take(&mut active.segment.times) },
            false => IdxSums::read(&*file, place, whole).map_err(located(file.path()))?,
        };
        let records = self.records(active, active.idx_next, left);
        let last_time_us = match records.is_empty() {
            true => self.last_time_of(active, end),
            false => 0,
        };
        let dat_size = active.segment.dat_size.unwrap_or(0);
        let idx_end = idx_end(active.channel.id(), (first, end), dat_size, sums, &records, last_time_us);
        let idx_end = idx_end.map_err(located(file.path()))?;
        active.last_time_us = records.last().map_or(last_time_us, IndexRecord::time_us);
        self.record_scratch = records;
        let idx_size = idx_end.offset + idx_end.len as u64;
        active.sealing = Sealing::Writing { idx_size, end };
        active.segment.idx_dirty = true;
        add(&self.handle.stats.seal_bytes, idx_end.len as u64);
        let buf = IoBuf::Owned { buf: idx_end.buf, len: idx_end.len };
        let operation = Operation::Write { file, offset: idx_end.offset, buf, durability: Durability::Written };
        self.submit_segment_write(Purpose::SealWrite(active.slot), operation);
        Ok(())
    }

    /// Time of the last event below `end`, whose record is in the last whole block.
    fn last_time_of(&self, active: &Active, end: Seq) -> u64 {
        let Some(last) = end.0.checked_sub(1).filter(|last| *last >= active.segment.first.0) else { return 0 };
        match active.channel.tail.page_of(Seq(last)) {
            Some(page) if page.start().first_seq.0 <= last => {
                page.record((last - page.start().first_seq.0) as usize).time_us()
            }
            _ => active.last_time_us,
        }
    }

    /// A reopened channel went on in a new segment: the unfinished block of the old one is written as it is.
    fn write_recovered_tail(&mut self, active: &mut Active) -> io::Result<()> {
        if active.recovered_tail.is_empty() {
            return Ok(());
        }
        let dat_size = active.segment.dat_size.expect("a reopened segment has a size");
        let offset = u64::from(dat_size) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let file = self.open_dat(active, offset + BLOCK_SIZE as u64)?;
        let mut buf = AlignedBuf::new(BLOCK_SIZE);
        buf[..active.recovered_tail.len()].copy_from_slice(&active.recovered_tail);
        file.write_at(&buf[..BLOCK_SIZE], offset).map_err(located(file.path()))?;
        add(&self.handle.stats.seal_bytes, BLOCK_SIZE as u64);
        active.segment.dat_dirty = true;
        active.recovered_tail = Bytes::new();
        let persistence = active.channel.persistence().expect("a shard's channels are persistent");
        persistence.on_disk.drop_dat_tail();
        Ok(())
    }

    /// The last block and the footer were written: cuts the files to size and flushes them.
    pub(super) fn seal_written(&mut self, slot: Slot) -> Result<(), Poisoned> {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        let Sealing::Writing { idx_size, end } = active.sealing else { unreachable!("a seal is being written") };
        let dat_size = active.segment.dat_size.unwrap_or(0);
        let idx = active.segment.idx.clone().expect("open while it is written");
        let dat = active.segment.dat.clone();
        let mut files: Vec<Arc<dyn File>> = vec![idx.clone()];
        let mut result = idx.set_size(idx_size).map_err(located(idx.path()));
        if let Some(dat) = dat.filter(|_| dat_size > 0) {
            let size = u64::from(dat_size).next_multiple_of(BLOCK_SIZE as u64);
            result = result.and_then(|()| dat.set_size(size).map_err(located(dat.path())));
            files.push(dat);
        }
        active.sealing = Sealing::Flushing { left: files.len(), end };
        self.checked("segment cut", idx.path(), result)?;
        for file in files {
            add(&self.handle.stats.checkpoint_flushes, 1);
            self.ops.submit(&mut *self.driver, Purpose::SealFlush(slot), Operation::Flush { file });
        }
        Ok(())
    }

    /// A write of the seal found no room: it is begun again.
    pub(super) fn seal_found_no_space(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        active.sealing = Sealing::No;
        // The samples went into the footer that was not written: they are read again.
        active.segment.times_complete = false;
        self.queue_destage(slot);
    }

    /// A flush of the seal has ended; with the last one the segment is sealed.
    pub(super) fn seal_flushed(&mut self, slot: Slot) {
        let active = self.active[slot as usize].as_mut().expect("the channel is open");
        let Sealing::Flushing { left, end } = &mut active.sealing else { unreachable!("a seal is being flushed") };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let end = *end;
        let first = active.segment.first;
        let dat_size = active.segment.dat_size.unwrap_or(0);
        let page = active.channel.tail.page(active.dat_page).expect("the next segment's first page is not written yet");
        let next = page.start().segment_first;
        let on_disk = &active.channel.persistence().expect("a shard's channels are persistent").on_disk;
        let sealed = SegmentState { first: first.0, end: end.0, dat_size, sealed: true };
        match active.segments.last_mut().filter(|segment| segment.first == first.0) {
            Some(segment) => *segment = sealed,
            None => active.segments.push(sealed),
        }
        active.retention.sealed(&sealed, page.start().byte_base);
        on_disk.set_dat_size(first, dat_size);
        on_disk.end_segment(first, end);
        on_disk.add_segment(next);
        on_disk.trim_stub(end);
        active.segments.push(SegmentState { first: next.0, end: next.0, dat_size: 0, sealed: false });
        active.segment = ActiveSegment::new(next);
        active.idx_next = next;
        active.idx_done = next;
        active.sealing = Sealing::No;
        let channel = active.channel.clone();
        add(&self.handle.stats.seals, 1);
        tracing::debug!(channel = %active.channel.id(), segment = %first, end = %end, dat_size, "segment sealed");
        self.sealed(&channel, u64::from(dat_size));
        self.queue_destage(slot);
        self.undefer(slot);
        self.bury_below_head(slot);
        self.look_at_retention(slot);
    }
}

#[cfg(all(test, not(redex_loom)))]
mod tests {
    use super::*;

    /// A segment whose blocks are whole and whose times are wrong is an error, where a footer of it would be a contradiction.
    #[test]
    fn times_that_go_backwards_are_an_error() {
        let records = [IndexRecord::inline(b"a", 5), IndexRecord::inline(b"b", 4)];
        let end = |count: u64| {
            let records = &records[..count as usize];
            idx_end(ChannelId(1), (Seq(0), Seq(count)), 0, IdxSums::default(), records, 0)
        };
        assert_eq!(end(1).unwrap().len, 2 * BLOCK_SIZE);
        assert_eq!(end(2).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
